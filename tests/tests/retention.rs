//! What is kept, and what goes: quotas, rules by pattern, and what no policy may touch.

use std::sync::Arc;
use std::time::Duration;

use larder::format::{Retention, RetentionReason};
use larder::{AbsentReason, DocumentKind, Draft, Larder, ManualClock, Options, Session, Status};
use larder_tests::{FaultyDisk, Plan, in_memory, kind_of, still, verified};

const KIB: usize = 1 << 10;

fn payload(n: usize, length: usize) -> Vec<u8> {
    let mut state = n as u64 * 2 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn made(n: usize, length: usize) -> Draft {
    Draft::from(payload(n, length)).status(Status::Ready)
}

fn on_a_clock() -> (Larder, Session, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    (larder, session, clock)
}

fn keys(session: &Session) -> Vec<String> {
    session.snapshot().unwrap().walk("").unwrap().map(|row| row.unwrap().0.to_string()).collect()
}

#[test]
fn s0_5_a_evicting_to_a_quota_keeps_what_is_pinned() {
    let (larder, session, clock) = on_a_clock();
    for n in 0..20 {
        session.put(format!("k/{n:02}"), made(n, 100 * KIB).with(|about| about.pinned(n % 4 == 0))).unwrap();
        clock.advance(1_000);
    }
    let quota = Retention::within(1 << 20);
    let said = larder.retain(&quota, true).unwrap();
    assert_eq!(keys(&session).len(), 20, "it was only asked for");
    let before = larder.info().unwrap().last_commit.sequence;
    let report = larder.retain(&quota, false).unwrap();
    assert_eq!(report.leaving, said.leaving);
    assert_eq!((report.leaving.len(), report.bytes), (10, 10 * 100 * KIB as u64));
    assert!(
        report.leaving.iter().all(|leaving| leaving.reason == RetentionReason::Bytes && leaving.rule == 1)
    );
    let left = keys(&session);
    assert_eq!(left.len(), 10);
    assert!((0..20).step_by(4).all(|n| left.contains(&format!("k/{n:02}"))), "{left:?}");
    assert!(left.contains(&"k/19".to_owned()) && !left.contains(&"k/01".to_owned()), "the oldest go first");
    let told = session.feed_since(before, 100).unwrap();
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|event| event.kind.name() == "evicted" && event.bytes == 100 * KIB as u64));
    assert_eq!(larder.retain(&quota, false).unwrap().leaving.len(), 0, "there is nothing left to do");
    verified(&larder);
}

#[test]
fn s0_5_b_what_would_pass_the_quota_is_refused_and_nothing_is_evicted() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    root.set_document(DocumentKind::Limits, "max_total_size = \"500 KiB\"\n").unwrap();
    let session = larder.session("ana").unwrap();
    for n in 0..5 {
        session.put(format!("k/{n}"), made(n, 100 * KIB).with(|about| about.pinned(true))).unwrap();
    }
    let refused = session.put("k/5", made(5, 1)).unwrap_err();
    match refused.kind() {
        larder::ErrorKind::QuotaExceeded { used, size, limit, protected } => {
            assert_eq!((*used, *size, *limit, *protected), (512_000, 1, 512_000, 512_000));
        }
        other => panic!("{other}"),
    }
    assert_eq!(keys(&session).len(), 5);
    // What takes no more than what it replaces is stored, and what is there can be renamed, and changed.
    session.put("k/0", made(9, 100 * KIB)).unwrap();
    session.rename("k/0", "k/zero").unwrap();
    session.annotate("k/1", larder::Annotation::new().title("a")).unwrap();
    assert_eq!(kind_of(session.copy("k/1", "k/copy")), "QuotaExceeded");
    // In one transaction as well, and when something went there is room.
    let refused = session.write(|txn| {
        txn.delete("k/1")?;
        txn.put("new/1", made(10, 60 * KIB))?;
        txn.put("new/2", made(11, 60 * KIB))
    });
    assert_eq!(kind_of(refused), "QuotaExceeded");
    assert!(session.exists("k/1").unwrap());
    session.delete("k/1").unwrap();
    session.put("new/1", made(10, 60 * KIB)).unwrap();
    // A limit that is lowered removes nothing, and lets nothing more in.
    root.set_document(DocumentKind::Limits, "max_total_size = \"1 KiB\"\n").unwrap();
    assert_eq!(kind_of(session.put("tiny", "x")), "QuotaExceeded");
    session.put("new/1", made(10, 59 * KIB)).unwrap();
    assert_eq!(
        kind_of(session.put("new/1", made(10, 60 * KIB))),
        "QuotaExceeded",
        "it may shrink, and not grow again"
    );
    assert_eq!(larder.statistics().unwrap().protected.assets, 3);
    verified(&larder);
}

#[test]
fn s0_5_d_e_what_would_be_lost_is_refused_until_that_is_said_to_be_known() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let strict = "[[strictness]]\non = \"strict/**\"\nlevel = \"strict\"\n";
    larder.root().unwrap().set_document(DocumentKind::Limits, strict).unwrap();
    let session = larder.session("ana").unwrap();
    let live = || Draft::absent(AbsentReason::Transient).type_identifier("ui_element").data_format("ui");
    assert_eq!(kind_of(session.put("strict/a", live())), "WouldLoseData");
    assert!(!session.exists("strict/a").unwrap());
    session.put("strict/a", live().with(larder::Annotation::loss_is_known)).unwrap();
    session.put("strict/b", live().with(|about| about.has_recipe(true))).unwrap();
    session.put("lax/a", live()).unwrap();
    larder.close().unwrap();
    let larder = FaultyDisk::holding(disk.current(), Plan::default()).open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let error = session.get("strict/a").unwrap().bytes().unwrap_err();
    assert!(error.to_string().contains("transient"), "{error}");
    assert_eq!(
        (error.kind().name(), session.record("strict/a").unwrap().status()),
        ("PayloadUnavailable", Status::Transient)
    );
    verified(&larder);
}

#[test]
fn rules_go_by_pattern_age_count_bytes_and_status() {
    let (larder, session, clock) = on_a_clock();
    let day = 86_400_000_000;
    for n in 0..6 {
        session.put(format!("cache/{n}"), made(n, 2 * KIB)).unwrap();
        session.put(format!("many/{n}"), made(100 + n, KIB)).unwrap();
        session.put(format!("logs/{n}"), payload(200 + n, KIB)).unwrap();
        session.put(format!("kept/{n}"), payload(300 + n, KIB)).unwrap();
        clock.advance(day);
    }
    let rules = Retention::parse(
        r#"
        [[retain]]
        on = "cache/**"
        max_age = "4 d"
        max_bytes = "5 KiB"
        [[retain]]
        on = "many/*"
        max_count = 2
        [[retain]]
        on = "logs/**"
        status = ["source"]
        max_age = "3 d"
        [[retain]]
        on = "**"
        max_count = 0
        "#,
    )
    .unwrap();
    let said = larder.retain(&rules, true).unwrap();
    let why: Vec<(String, &str, usize)> = said
        .leaving
        .iter()
        .map(|leaving| (leaving.key.to_string(), leaving.reason.name(), leaving.rule))
        .collect();
    let expected = [
        ("cache/0", "age", 1),
        ("cache/1", "age", 1),
        ("cache/2", "bytes", 1),
        ("cache/3", "bytes", 1),
        ("many/0", "count", 2),
        ("many/1", "count", 2),
        ("many/2", "count", 2),
        ("many/3", "count", 2),
        ("logs/0", "age", 3),
        ("logs/1", "age", 3),
        ("logs/2", "age", 3),
    ];
    assert_eq!(why, expected.map(|(key, reason, rule)| (key.to_owned(), reason, rule)));
    let report = larder.retain(&rules, false).unwrap();
    assert_eq!((report.leaving.len(), report.kept), (11, 0));
    assert_eq!(
        keys(&session).iter().filter(|key| key.starts_with("kept/")).count(),
        6,
        "nothing makes them again"
    );
    verified(&larder);
}

#[test]
fn what_has_expired_goes_before_what_is_older() {
    let (larder, session, clock) = on_a_clock();
    for n in 0..4 {
        session.put(format!("k/{n}"), made(n, KIB)).unwrap();
        clock.advance(1_000);
    }
    session.expire("k/3").unwrap();
    let report = larder.retain(&Retention::within(3 * KIB as u64), false).unwrap();
    assert_eq!(report.leaving.iter().map(|leaving| leaving.key.as_str()).collect::<Vec<_>>(), ["k/3"]);
}

#[test]
fn running_work_keeps_what_it_was_made_from() {
    let (larder, session, clock) = on_a_clock();
    for n in 0..3 {
        session.put(format!("in/{n}"), made(n, KIB)).unwrap();
    }
    session.put("out", made(9, KIB).with(|about| about.depends_on("in/1"))).unwrap();
    clock.advance(1_000);
    let all = Retention::parse("[[retain]]\non = \"**\"\nmax_age = \"0 s\"\n").unwrap();
    let claim = session.claim("out").for_at_most(Duration::from_secs(60)).unwrap();
    assert_eq!(larder.retain(&all, false).unwrap().leaving.len(), 2);
    assert_eq!(keys(&session), ["in/1", "out"]);
    drop(claim);
    assert_eq!(larder.retain(&all, false).unwrap().leaving.len(), 2);
    assert!(keys(&session).is_empty());
    verified(&larder);
}

#[test]
fn what_a_recipe_makes_goes_back_to_it_and_what_was_made_from_it_expires() {
    let (larder, session, clock) = on_a_clock();
    session.put("made", made(1, 9 * KIB).with(|about| about.has_recipe(true))).unwrap();
    session.put("of/it", made(2, KIB / 2).with(|about| about.depends_on("made").pinned(true))).unwrap();
    clock.advance(1_000);
    let report = larder.retain(&Retention::within(2 * KIB as u64), false).unwrap();
    assert_eq!(report.leaving.len(), 1);
    assert_eq!(session.record("made").unwrap().status(), Status::Recipe);
    assert_eq!(session.record("of/it").unwrap().status(), Status::Expired);
    assert_eq!(
        larder.retain(&Retention::within(0), false).unwrap().leaving.len(),
        0,
        "a recipe takes no room"
    );
    assert_eq!(verified(&larder).chunks, 0, "its chunks are gone");
}

#[test]
fn a_policy_that_was_planned_on_what_has_changed_leaves_it() {
    // Thousands go in several transactions; what is put meanwhile is newer than what was seen.
    let (larder, session, clock) = on_a_clock();
    session
        .write(|txn| (0..2_500).try_for_each(|n| txn.put(format!("k/{n:04}"), made(n, 8)).map(drop)))
        .unwrap();
    clock.advance(1_000);
    let before = larder.info().unwrap().last_commit.sequence;
    let report = larder.retain(&Retention::within(8 * 10), false).unwrap();
    assert_eq!((report.leaving.len(), larder.info().unwrap().last_commit.sequence), (2_490, before + 3));
    assert_eq!(keys(&session).len(), 10);
    verified(&larder);
}
