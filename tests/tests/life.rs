//! The life of an asset: what may be served, when it expires, and what expires with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::format::Node;
use larder::format::{IMMEDIATELY, NEVER};
use larder::{
    AbsentReason, Annotation, DocumentKind, Draft, Key, Larder, ManualClock, Miss, Options, Purpose, Session,
    Status, SweepOptions,
};
use larder_tests::{FaultyDisk, Plan, STORE, in_memory, kind_of, still, verified};

fn ready(text: &str) -> Draft {
    Draft::from(text).status(Status::Ready)
}

fn made_from(text: &str, keys: &[&str]) -> Draft {
    ready(text).with(|about| keys.iter().fold(about, |about, key| about.depends_on(*key)))
}

fn miss(session: &Session, key: &str) -> Option<Miss> {
    session.get_loadable(key).unwrap().miss().cloned()
}

fn status(session: &Session, key: &str) -> Status {
    session.record(key).unwrap().status()
}

fn on_a_clock() -> (Larder, Session, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    (larder, session, clock)
}

// ---- what may be served

#[test]
fn s0_1_exactly_three_statuses_are_hits() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let mut hits = Vec::new();
    let custom = Status::Custom("drying".to_owned());
    for status in Status::known().chain([custom]).filter(|status| *status != Status::Directory) {
        session.put("k", Draft::from("x").status(status.clone())).unwrap();
        let expected = match &status {
            Status::Ready | Status::Source | Status::Override => None,
            Status::Volatile => Some(Miss::Volatile),
            Status::Expired => Some(Miss::Expired),
            other => Some(Miss::Status(other.clone())),
        };
        // Once from the store, and once from the cache.
        for _ in 0..2 {
            assert_eq!(miss(&session, "k"), expected, "{status}");
        }
        assert_eq!(session.get("k").unwrap().bytes().unwrap(), "x", "whatever it is, it can be read");
        hits.extend(expected.is_none().then_some(status));
    }
    assert_eq!(hits, [Status::Ready, Status::Source, Status::Override]);
    assert_eq!(kind_of(session.get_loadable("nothing")), "NotFound");
}

#[test]
fn s0_1_a_what_is_volatile_is_stored_and_never_a_hit() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("k", ready("x").with(|about| about.volatile(true))).unwrap();
    assert_eq!(miss(&session, "k"), Some(Miss::Volatile));
    let asset = session.get("k").unwrap();
    assert!(asset.record().is_volatile() && asset.bytes().unwrap() == "x");
    assert_eq!((status(&session, "k"), asset.record().expires()), (Status::Ready, IMMEDIATELY));
    // Setting it from outside makes it another asset.
    session.put("k", "y").unwrap();
    assert_eq!(miss(&session, "k"), None);
    assert_eq!(session.record("k").unwrap().expires(), NEVER);
}

#[test]
fn s0_1_b_the_flag_survives_ten_restarts() {
    let mut disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    larder.session("ana").unwrap().put("k", ready("x").with(|about| about.volatile(true))).unwrap();
    larder.close().unwrap();
    for _ in 0..10 {
        disk = FaultyDisk::holding(disk.current(), Plan::default());
        let larder = disk.open(still(), true).unwrap();
        assert!(larder.session("ana").unwrap().record("k").unwrap().is_volatile());
        larder.close().unwrap();
    }
}

#[test]
fn s0_1_c_what_is_made_from_something_volatile_is_volatile_unless_it_says_why_not() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("a", ready("x").with(|about| about.volatile(true))).unwrap();
    session.put("b", made_from("y", &["a"])).unwrap();
    assert_eq!(miss(&session, "b"), Some(Miss::Volatile));
    session.put("c", made_from("z", &["b"])).unwrap();
    assert_eq!(miss(&session, "c"), Some(Miss::Volatile), "and so on");
    let frozen = made_from("z", &["b"]).with(|about| about.stable_because("the day's figures are closed"));
    session.put("c", frozen).unwrap();
    assert_eq!(miss(&session, "c"), None);
    assert!(session.record("c").unwrap().log()[0].message.contains("the day's figures are closed"));
    // Flag and version of what it was made from are of the same commit as its own.
    let view = session.snapshot().unwrap();
    session.put("b", "other").unwrap();
    let why = view.why("c").unwrap();
    assert_eq!(why.made_from[0].1, Some(view.record("b").unwrap().version()));
    assert!(view.record("b").unwrap().is_volatile());
    verified(&larder);
}

#[test]
fn s0_1_d_status_flag_and_expiry_change_together() {
    let larder = Options::new().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k", ready("x")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let writer = larder.session("bob").unwrap();
            for round in 0..2_000 {
                writer.annotate("k", Annotation::new().volatile(round % 2 == 0)).unwrap();
            }
            stop.store(true, Ordering::SeqCst);
        });
        let mut seen = 0;
        while seen < 10_000 || !stop.load(Ordering::SeqCst) {
            let record = session.record("k").unwrap();
            let found = (record.status(), record.is_volatile(), record.expires());
            let is_whole =
                found == (Status::Ready, false, NEVER) || found == (Status::Volatile, true, IMMEDIATELY);
            assert!(is_whole, "{found:?}");
            seen += 1;
        }
    });
}

#[test]
fn a_miss_says_why() {
    let (larder, session, clock) = on_a_clock();
    session.put("absent", Draft::absent(AbsentReason::Evicted).status(Status::Ready)).unwrap();
    assert_eq!(miss(&session, "absent"), Some(Miss::Absent(AbsentReason::Evicted)));
    session.put("timed", Draft::from("x").with(|about| about.expires(5_000_000))).unwrap();
    assert_eq!(miss(&session, "timed"), None);
    clock.advance(3_999_999);
    assert_eq!(miss(&session, "timed"), None);
    clock.advance(1);
    assert_eq!(miss(&session, "timed"), Some(Miss::Expired), "by the time itself, swept or not");
    drop(larder);
}

#[test]
fn a_damaged_payload_is_a_miss_and_the_record_is_not_lost() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let payload: Vec<u8> = (0..40_000).map(|_| next()).collect();
    larder.session("ana").unwrap().put("k", Draft::from(payload.clone()).status(Status::Ready)).unwrap();
    larder.close().unwrap();
    let mut image = disk.current();
    let at = image[STORE].windows(64).position(|bytes| bytes == &payload[9_000..9_064]).unwrap();
    image[STORE][at] ^= 1;
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    assert!(matches!(miss(&session, "k"), Some(Miss::Corrupt(_))));
    assert_eq!(kind_of(session.get("k")), "Corrupt");
    assert_eq!(session.record("k").unwrap().payload().length(), 40_000);
}

// ---- deadlines

#[test]
fn deadlines_move_with_their_assets_and_fire_once() {
    let (larder, session, clock) = on_a_clock();
    let at = |at: i64| move |about: Annotation| about.expires(at);
    session.put("a", ready("x").with(at(5_000_000))).unwrap();
    session.put("b", ready("x").with(at(3_000_000))).unwrap();
    session.put("c", ready("x").with(at(4_000_000))).unwrap();
    session.put("never", ready("x")).unwrap();
    session.put("source", Draft::from("x").with(at(2_000_000))).unwrap();
    let next = || larder.next_deadline().unwrap().map(|due| (due.key.to_string(), due.at));
    assert_eq!(next(), Some(("b".to_owned(), 3_000_000)));
    // Moved to later, moved to earlier, cleared, and gone with its asset.
    session.annotate("b", Annotation::new().expires(6_000_000)).unwrap();
    session.put("a", ready("new").with(at(3_500_000))).unwrap();
    session.annotate("c", Annotation::new().expires(NEVER)).unwrap();
    assert_eq!(next(), Some(("a".to_owned(), 3_500_000)));
    session.rename("a", "z").unwrap();
    assert_eq!(next(), Some(("z".to_owned(), 3_500_000)));
    verified(&larder);
    assert!(larder.due(3_499_999, 10).unwrap().is_empty());
    clock.advance(4_000_000);
    let due = larder.due(5_000_000, 10).unwrap();
    assert_eq!(due.iter().map(|due| due.key.as_str()).collect::<Vec<_>>(), ["z"]);
    assert_eq!(due[0].purpose, Purpose::Expiry);
    // What was looked up is looked at again when it is done.
    session.annotate("z", Annotation::new().expires(7_000_000)).unwrap();
    assert_eq!(larder.fire(&due).unwrap().expired, 0);
    clock.advance(5_000_000);
    assert_eq!(larder.sweep(10).unwrap().expired, 2);
    assert_eq!((status(&session, "z"), status(&session, "b")), (Status::Expired, Status::Expired));
    assert_eq!((status(&session, "c"), status(&session, "source")), (Status::Ready, Status::Source));
    assert_eq!(session.get("z").unwrap().bytes().unwrap(), "new", "what is expired can be read");
    assert_eq!(larder.sweep(10).unwrap().total(), 0);
    assert_eq!(next(), None);
    verified(&larder);
}

#[test]
fn a_clock_that_goes_backwards_fires_nothing_early() {
    let (larder, session, clock) = on_a_clock();
    session.put("k", ready("x").with(|about| about.expires(2_000_000))).unwrap();
    clock.advance(-500_000);
    assert_eq!(larder.sweep(10).unwrap().total(), 0);
    clock.advance(1_400_000);
    assert_eq!((larder.sweep(10).unwrap().total(), miss(&session, "k")), (0, None));
    clock.advance(100_000);
    assert_eq!(larder.sweep(10).unwrap().total(), 1);
    for at in [i64::MIN, -1, 0, NEVER - 1] {
        session.put(format!("edge/{at}"), ready("x").with(|about| about.expires(at))).unwrap();
    }
    verified(&larder);
    assert_eq!(larder.sweep(10).unwrap().total(), 3, "those before 1970, and at once");
}

#[test]
fn s4_1_5_a_sweep_takes_as_many_as_it_may() {
    let (larder, session, clock) = on_a_clock();
    session
        .write(|txn| {
            (0..2_500).try_for_each(|n| {
                txn.put(format!("k/{n}"), ready("x").with(|about| about.expires(1_000_000 + n))).map(drop)
            })
        })
        .unwrap();
    clock.advance(10_000);
    let swept: Vec<u64> = (0..4).map(|_| larder.sweep(1_000).unwrap().total()).collect();
    assert_eq!(swept, [1_000, 1_000, 500, 0]);
    verified(&larder);
}

/// One asset that could not be marked stopped all that were due, and every claim.
#[test]
fn s4_1_5_nothing_stops_the_marking_of_what_is_past_its_time() {
    let (larder, session, clock) = on_a_clock();
    let soon = |text: &str| ready(text).with(|about| about.expires(2_000_000));
    let tagged = (0..5).fold(soon("x"), |draft, number| draft.tag(format!("tag-{number}")));
    session.put("first", tagged).unwrap();
    session.put("later", ready("x").with(|about| about.expires(3_000_000))).unwrap();
    session.set_document(DocumentKind::Limits, "max_tags = 2\n").unwrap();
    clock.advance(9_000_000);
    assert_eq!(larder.sweep(1).unwrap().expired, 1);
    assert_eq!(larder.sweep(1).unwrap().expired, 1);
    assert_eq!((status(&session, "first"), status(&session, "later")), (Status::Expired, Status::Expired));
    // What was made from something whose limits were lowered meanwhile is in nobody's way either.
    session.set_document(DocumentKind::Limits, "").unwrap();
    session.put("source", ready("1")).unwrap();
    let made = (0..5).fold(made_from("2", &["source"]), |draft, number| draft.tag(format!("tag-{number}")));
    session.put("made", made).unwrap();
    session.set_document(DocumentKind::Limits, "max_tags = 2\n").unwrap();
    session.put("source", ready("3")).unwrap();
    assert_eq!(status(&session, "made"), Status::Expired);
    verified(&larder);
}

/// What is too much for one transaction is done in several, and one that is too much by itself is passed over.
#[test]
fn s4_1_5_a_sweep_that_is_too_large_is_done_in_parts() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder =
        Options::new().inline().clock(Arc::clone(&clock) as _).cascade_max(10).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let soon = |at: i64| ready("x").with(|about| about.expires(at));
    session.put("heavy", soon(2_000_000)).unwrap();
    for number in 0..11 {
        session.put(format!("of-heavy/{number}"), made_from("x", &["heavy"])).unwrap();
    }
    for number in 0..20 {
        session.put(format!("light/{number}"), soon(2_000_001)).unwrap();
    }
    clock.advance(9_000_000);
    let report = larder.sweep(8).unwrap();
    assert_eq!((report.expired, report.refused), (7, 1));
    let report = larder.sweep(1).unwrap();
    assert_eq!((report.expired, report.refused), (1, 1));
    let report = larder.sweep(100).unwrap();
    assert_eq!((report.expired, report.refused), (12, 1));
    let report = larder.sweep(100).unwrap();
    assert_eq!((report.expired, report.refused), (0, 1));
    assert_eq!(status(&session, "heavy"), Status::Ready);
    verified(&larder);
}

#[test]
fn s4_1_5_a_sweeper_sweeps_until_it_is_stopped() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k", ready("x").with(|about| about.expires(2_000_000))).unwrap();
    let events = session.subscribe("k", 16).unwrap();
    let sweeper = larder.sweeper(SweepOptions::new().every(Duration::from_millis(1))).unwrap();
    clock.advance(2_000_000);
    let _ = events.next_notice();
    assert_eq!(status(&session, "k"), Status::Expired);
    sweeper.stop();
    session.put("l", ready("x").with(|about| about.expires(2_000_000))).unwrap();
    assert_eq!(larder.due(3_000_000, 10).unwrap().len(), 1, "nobody sweeps any more");
    // One that is left running ends with the store.
    let sweeper = larder.sweeper(SweepOptions::new().every(Duration::from_millis(1))).unwrap();
    larder.close().unwrap();
    drop(sweeper);
}

#[test]
fn s0_5_c_what_nothing_makes_again_does_not_expire() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("k", "x").unwrap();
    let before = session.record("k").unwrap();
    assert_eq!(kind_of(session.expire("k")), "NotExpirable");
    assert_eq!(session.record("k").unwrap(), before);
    assert_eq!(kind_of(session.expire("nothing")), "NotFound");
    assert!(!session.exists("nothing").unwrap(), "and makes no phantom");
    session.put("k", ready("x")).unwrap();
    assert!(session.expire("k").unwrap().value);
    assert!(!session.expire("k").unwrap().value, "once");
    assert_eq!(session.record("k").unwrap().generation(), 3);
}

#[test]
fn a_validator_does_not_keep_what_is_past_its_time() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let validator = |_: &Key, record: &larder::Record, _: &[u8]| {
        let is_ready = record.status() == Status::Ready;
        let what = "not ready".to_owned();
        if is_ready { Ok(()) } else { Err(larder::Objection { field: "status".to_owned(), what }) }
    };
    let options = Options::new().inline().clock(Arc::clone(&clock) as _);
    let larder = options.validator("**", Arc::new(validator)).unwrap().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k", ready("x").with(|about| about.expires(2_000_000))).unwrap();
    assert_eq!(kind_of(session.put("l", "a source")), "Validation");
    clock.advance(2_000_000);
    assert_eq!(larder.sweep(10).unwrap().expired, 1);
    assert_eq!(status(&session, "k"), Status::Expired);
}

// ---- recipes

#[test]
fn a_recipe_decides_what_is_set_and_what_is_left() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("plain", "x").unwrap();
    assert_eq!(status(&session, "plain"), Status::Source);
    let recipe = Draft::absent(AbsentReason::NeverProduced).status(Status::Recipe);
    session.put("k", recipe.with(|about| about.has_recipe(true))).unwrap();
    assert_eq!(miss(&session, "k"), Some(Miss::Status(Status::Recipe)));
    session.put("k", ready("made")).unwrap();
    assert_eq!(status(&session, "k"), Status::Ready);
    session.put("k", "by hand").unwrap();
    assert_eq!((status(&session, "k"), miss(&session, "k")), (Status::Override, None));
    assert!(session.delete("k").unwrap().value);
    assert_eq!(status(&session, "k"), Status::Recipe);
    assert_eq!(kind_of(session.get("k").unwrap().bytes()), "PayloadUnavailable");
    assert!(session.delete("k").unwrap().value, "the recipe itself");
    assert!(!session.exists("k").unwrap());
    verified(&larder);
}

// ---- dependencies

#[test]
fn a_chain_expires_with_its_beginning() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("a", "1").unwrap();
    session.put("b", made_from("2", &["a"])).unwrap();
    session.put("c", made_from("3", &["b"])).unwrap();
    session.put("apart", ready("4")).unwrap();
    verified(&larder);
    let before = larder.info().unwrap().last_commit.sequence;
    session.put("a", "1").unwrap();
    assert_eq!(status(&session, "b"), Status::Ready, "the same content is the same version");
    session.put("a", "other").unwrap();
    assert_eq!(larder.info().unwrap().last_commit.sequence, before + 2, "one commit each");
    assert_eq!((status(&session, "b"), status(&session, "c")), (Status::Expired, Status::Expired));
    assert_eq!(status(&session, "apart"), Status::Ready);
    assert_eq!(session.get("c").unwrap().bytes().unwrap(), "3");
    // Made again from what is there now.
    session.put("b", made_from("2b", &["a"])).unwrap();
    session.put("c", made_from("3b", &["b"])).unwrap();
    assert!(session.expire("b").unwrap().value);
    assert_eq!(status(&session, "c"), Status::Expired);
    session.put("b", made_from("2b", &["a"])).unwrap();
    session.delete("a").unwrap();
    assert_eq!(status(&session, "b"), Status::Expired, "what it was made from is gone");
    let events = session.feed_since(0, 1_000).unwrap();
    assert!(events.iter().any(|event| event.kind.name() == "expired" && event.place == "c"));
    verified(&larder);
}

#[test]
fn a_tree_that_goes_takes_what_was_made_from_it_along() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("in/a", "1").unwrap();
    session.put("in/b", made_from("2", &["in/a"]).with(|about| about.expires(9_000_000))).unwrap();
    session.put("out/c", made_from("3", &["in/b"])).unwrap();
    session.put("out/d", made_from("4", &["in/a"])).unwrap();
    session.delete_tree("in").unwrap();
    assert_eq!((status(&session, "out/c"), status(&session, "out/d")), (Status::Expired, Status::Expired));
    assert_eq!(larder.next_deadline().unwrap(), None);
    verified(&larder);
}

/// It was marked once for each of its inputs that went.
#[test]
fn what_was_made_from_much_of_a_tree_expires_once_with_it() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let inputs: Vec<String> = (0..30).map(|number| format!("raw/{number:02}")).collect();
    for input in &inputs {
        session.put(input.as_str(), input.as_str()).unwrap();
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    session.put("report", made_from("r", &inputs)).unwrap();
    let (before, since) = (session.record("report").unwrap().generation(), larder.info().unwrap());
    session.delete_tree("raw").unwrap();
    assert_eq!(status(&session, "report"), Status::Expired);
    assert_eq!(session.record("report").unwrap().generation(), before + 1);
    let events = session.feed_since(since.last_commit.sequence, 100).unwrap();
    assert_eq!(events.iter().filter(|event| event.place == "report").count(), 1);
    verified(&larder);
}

/// What `put` refuses, `copy` and `rename` do too: a circle would be stale and be said to be ready.
#[test]
fn a_copy_or_a_new_name_closes_no_circle() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("c", ready("1")).unwrap();
    session.put("b", made_from("2", &["c"])).unwrap();
    session.put("a", made_from("3", &["b"])).unwrap();
    assert_eq!(kind_of(session.copy("a", "c")), "DependencyCycle");
    assert_eq!(kind_of(session.copy("b", "c")), "DependencyCycle");
    session.delete("c").unwrap();
    assert_eq!(kind_of(session.rename("b", "c")), "DependencyCycle");
    session.copy("a", "d").unwrap();
    session.rename("d", "e").unwrap();
    verified(&larder);
}

#[test]
fn what_was_put_from_outside_does_not_expire_with_anything() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("a", "1").unwrap();
    session.put("b", Draft::from("2").with(|about| about.depends_on("a"))).unwrap();
    session.put("a", "other").unwrap();
    assert_eq!(status(&session, "b"), Status::Source);
    assert!(matches!(miss(&session, "b"), Some(Miss::Stale { .. })), "and a reader is told");
    verified(&larder);
}

#[test]
fn cycles_are_refused_with_the_path_that_closes_them() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("a", ready("1")).unwrap();
    session.put("b", made_from("2", &["a"])).unwrap();
    session.put("c", made_from("3", &["b"])).unwrap();
    let before = larder.info().unwrap().last_commit;
    let refused = session.put("a", made_from("4", &["c"])).unwrap_err();
    assert!(refused.to_string().contains("a - c - b - a"), "{refused}");
    assert_eq!(refused.kind().name(), "DependencyCycle");
    assert_eq!(kind_of(session.put("a", made_from("4", &["a"]))), "DependencyCycle");
    assert_eq!(larder.info().unwrap().last_commit, before);
    assert_eq!(status(&session, "b"), Status::Ready);
}

#[test]
fn versions_that_were_seen_are_compared() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("a", "1").unwrap();
    let seen = session.record("a").unwrap().version();
    session.put("a", "2").unwrap();
    let with = |version| ready("x").with(|about| about.depends_on_version("a", version));
    let refused = session.put("b", with(seen)).unwrap_err();
    assert_eq!((refused.kind().name(), refused.is_retryable()), ("DependencyChanged", true));
    session.put("b", with(session.record("a").unwrap().version())).unwrap();
    // 0 is unknown, and matches anything.
    session.put("c", with(0)).unwrap();
    session.put("a", "3").unwrap();
    assert_eq!((status(&session, "b"), status(&session, "c")), (Status::Expired, Status::Ready));
    assert_eq!(miss(&session, "c"), None);
    verified(&larder);
}

#[test]
fn what_lies_outside_has_a_version_too() {
    let larder = in_memory();
    let (root, session) = (larder.root().unwrap(), larder.session("ana").unwrap());
    let set = |version| root.write(|txn| txn.set_external("command:plot", version)).unwrap();
    let made = |version| ready("x").with(|about| about.depends_on_external("command:plot", version));
    session.put("before", made(1)).unwrap();
    set(1);
    session.put("k", made(1)).unwrap();
    assert_eq!(kind_of(session.put("l", made(2))), "DependencyChanged");
    set(1);
    assert_eq!(status(&session, "k"), Status::Ready);
    set(2);
    assert_eq!((status(&session, "k"), status(&session, "before")), (Status::Expired, Status::Expired));
    let view = session.snapshot().unwrap();
    let dependents = view.dependents(&Node::External("command:plot".to_owned())).unwrap();
    assert_eq!(dependents.iter().map(Key::as_str).collect::<Vec<_>>(), ["before", "k"]);
    assert_eq!(kind_of(root.write(|txn| txn.set_external("a\nb", 1))), "InvalidName");
    assert_eq!(
        kind_of(session.put("l", ready("x").with(|about| about.depends_on_external("", 1)))),
        "InvalidName"
    );
    verified(&larder);
}

#[test]
fn bad_dependencies_are_refused_and_leave_nothing() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    root.put("hidden/a", "x").unwrap();
    root.put("shown/a", "x").unwrap();
    let rules = "default = \"allow\"\n[[rule]]\ndeny = [\"read\", \"list\"]\nwho = [\"bob\"]\non = \"hidden/**\"\n\
                 [[rule]]\ndeny = [\"read\"]\nwho = [\"bob\"]\non = \"shown/**\"\n";
    root.set_document(DocumentKind::Rules, rules).unwrap();
    let bob = larder.session("bob").unwrap();
    assert_eq!(kind_of(bob.put("k", made_from("x", &["nothing"]))), "NotFound");
    assert_eq!(kind_of(bob.put("k", made_from("x", &["hidden/a"]))), "NotFound", "as if it were not there");
    assert_eq!(kind_of(bob.put("k", made_from("x", &["shown/a"]))), "AccessDenied");
    assert_eq!(kind_of(bob.put("k", made_from("x", &["../a"]))), "InvalidKey");
    assert!(!bob.exists("k").unwrap());
    // What was made from it by another is not shown to those who may not list it.
    root.put("hidden/b", made_from("x", &["k2"]).with(|_| Annotation::new())).unwrap();
    bob.put("k2", "x").unwrap();
    root.put("hidden/c", made_from("x", &["k2"])).unwrap();
    assert!(bob.why("k2").unwrap().dependents.is_empty());
    assert_eq!(root.why("k2").unwrap().dependents.len(), 1);
    verified(&larder);
}

#[test]
fn a_cascade_over_ten_thousand_is_one_commit() {
    let larder = Options::new().inline().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("a", "1").unwrap();
    for part in 0..10 {
        session
            .write(|txn| {
                (0..1_000)
                    .try_for_each(|n| txn.put(format!("k/{part}/{n}"), made_from("x", &["a"])).map(drop))
            })
            .unwrap();
    }
    let before = larder.info().unwrap().last_commit.sequence;
    session.put("a", "2").unwrap();
    assert_eq!(larder.info().unwrap().last_commit.sequence, before + 1);
    assert_eq!(larder.statistics().unwrap().by_status["expired"].assets, 10_000);
    verified(&larder);
}

#[test]
fn a_long_chain_expires_without_recursion() {
    // A stack of 256 KiB: whatever recursed along the chain would end there.
    let walk = || {
        let larder = Options::new().inline().open_in_memory().unwrap();
        let session = larder.session("ana").unwrap();
        session.put("k/0", "x").unwrap();
        session
            .write(|txn| {
                (1..8_000).try_for_each(|n| {
                    let made = made_from("x", &[&format!("k/{}", n - 1)]);
                    txn.put(format!("k/{n}"), made).map(drop)
                })
            })
            .unwrap();
        let closing = made_from("y", &["k/7999"]);
        assert_eq!(kind_of(session.put("k/0", closing)), "DependencyCycle");
        session.put("k/0", "y").unwrap();
        assert_eq!(larder.statistics().unwrap().by_status["expired"].assets, 7_999);
        verified(&larder);
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(walk).unwrap().join().unwrap();
}

#[test]
fn why_tells_what_it_came_from_and_what_keeps_it() {
    let (larder, session, _clock) = on_a_clock();
    session.put("a", "1").unwrap();
    session.put("b", made_from("2", &["a"])).unwrap();
    session.put("c", made_from("3", &["b"])).unwrap();
    let held = session.claim("b").for_at_most(Duration::from_secs(60)).unwrap();
    let why = session.why("b").unwrap();
    assert_eq!(why.miss, None);
    assert_eq!(why.made_from[0].0.on, Node::Asset("a".parse().unwrap()));
    assert_eq!(why.dependents, ["c".parse().unwrap()]);
    assert_eq!(why.claim.unwrap().fence, held.fence());
    session.put("a", "other").unwrap();
    let why = session.why("b").unwrap();
    assert_eq!(why.miss, Some(Miss::Expired));
    assert_ne!(Some(why.made_from[0].0.version), why.made_from[0].1);
    assert_eq!(kind_of(session.why("nothing")), "NotFound");
    drop(larder);
}

#[test]
fn what_is_gone_or_of_no_known_version_is_told_apart() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("a", "1").unwrap();
    session.put("made", made_from("2", &["a"])).unwrap();
    session.put("set", Draft::from("3").with(|about| about.depends_on("a"))).unwrap();
    // A value of which no version is known could be the one that was seen.
    session.put("a", Draft::absent(AbsentReason::NonSerializable).status(Status::Ready)).unwrap();
    assert_eq!(
        (status(&session, "made"), miss(&session, "made"), miss(&session, "set")),
        (Status::Ready, None, None)
    );
    session.delete("a").unwrap();
    assert_eq!(miss(&session, "made"), Some(Miss::Expired));
    assert!(matches!(miss(&session, "set"), Some(Miss::Stale { found: None, .. })), "it is gone");
    verified(&larder);
}

#[test]
fn what_is_not_due_yet_does_not_fire_though_it_is_asked_for() {
    let (larder, session, clock) = on_a_clock();
    session.put("k", ready("x").with(|about| about.expires(2_000_000))).unwrap();
    session.put("volatile", ready("x").with(|about| about.volatile(true))).unwrap();
    let due = larder.due(i64::MAX, 10).unwrap();
    assert_eq!(due.len(), 1, "what is volatile was never to be served, and need not be marked");
    assert_eq!(larder.fire(&due).unwrap().total(), 0);
    assert_eq!(status(&session, "k"), Status::Ready);
    clock.advance(1_000_000);
    assert_eq!(larder.fire(&due).unwrap().total(), 1);
}

#[test]
fn a_cascade_that_is_too_large_changes_nothing_and_the_transaction_can_go_on() {
    let larder = still().cascade_max(3).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("t/a", "1").unwrap();
    for n in 0..4 {
        session.put(format!("made/{n}"), made_from("x", &["t/a"])).unwrap();
    }
    let before = larder.info().unwrap().state;
    assert_eq!(kind_of(session.put("t/a", "2")), "CascadeTooLarge");
    assert_eq!(kind_of(session.delete("t/a")), "CascadeTooLarge");
    assert_eq!(kind_of(session.delete_tree("t")), "CascadeTooLarge");
    assert_eq!(kind_of(session.rename("t/a", "b")), "CascadeTooLarge");
    assert_eq!(kind_of(session.rename_tree("t", "u")), "CascadeTooLarge");
    assert_eq!(larder.info().unwrap().state, before);
    // What was refused is not in a transaction that goes on.
    session
        .write(|txn| {
            assert_eq!(kind_of(txn.apply(larder::Edit::rename_tree("t", "u"))), "CascadeTooLarge");
            assert_eq!(kind_of(txn.apply(larder::Edit::rename("t/a", "b"))), "CascadeTooLarge");
            txn.put("other", "x")
        })
        .unwrap();
    assert!(
        session.exists("t/a").unwrap() && !session.exists("b").unwrap() && !session.exists("u/a").unwrap()
    );
    verified(&larder);
    // In parts, it goes.
    session.expire("made/0").unwrap();
    session.put("t/a", "2").unwrap();
    assert_eq!(larder.statistics().unwrap().by_status["expired"].assets, 4);
}
