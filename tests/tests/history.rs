//! What payloads were before they changed: kept where the limits say so, for as long as they say.

use std::sync::Arc;

use larder::format::Retention;
use larder::{Annotation, DocumentKind, Draft, Larder, ManualClock, Options, Session, Status};
use larder_tests::{FaultyDisk, Plan, in_memory, kind_of, still, verified};

fn keep(larder: &Larder, text: &str) {
    larder.root().unwrap().set_document(DocumentKind::Limits, text).unwrap();
}

fn generations(session: &Session, key: &str) -> Vec<u64> {
    let history = session.snapshot().unwrap().history(key).unwrap();
    history.iter().map(|former| former.record.generation()).collect()
}

fn former(session: &Session, key: &str, generation: u64) -> Vec<u8> {
    session.snapshot().unwrap().get_former(key, generation).unwrap().bytes().unwrap().to_vec()
}

/// Small ones lie in the row, larger ones in chunks.
fn payload(n: u8, is_large: bool) -> Vec<u8> {
    vec![n; if is_large { 20_000 + usize::from(n) } else { 10 }]
}

#[test]
fn the_last_so_many_generations_are_kept_and_can_be_read_and_restored() {
    for is_large in [false, true] {
        let larder = in_memory();
        keep(&larder, "[[history]]\non = \"kept/**\"\ngenerations = 3\n");
        let session = larder.session("ana").unwrap();
        for n in 1..=6 {
            session.put("kept/k", Draft::from(payload(n, is_large)).attribute("n", i64::from(n))).unwrap();
            session.put("other/k", payload(n, is_large)).unwrap();
        }
        assert_eq!(generations(&session, "kept/k"), [3, 4, 5]);
        assert!(generations(&session, "other/k").is_empty());
        assert_eq!(former(&session, "kept/k", 4), payload(4, is_large));
        assert_eq!(kind_of(session.snapshot().unwrap().get_former("kept/k", 2)), "NotFound");
        verified(&larder);
        // The same content again, and a change of metadata, are no new payload.
        session.put("kept/k", payload(6, is_large)).unwrap();
        session.annotate("kept/k", Annotation::new().title("six")).unwrap();
        assert_eq!(generations(&session, "kept/k"), [3, 4, 5]);
        let stored = session.write(|txn| txn.restore("kept/k", 4)).unwrap().value;
        assert_eq!((stored.generation, stored.previous), (9, Some(8)));
        let asset = session.get("kept/k").unwrap();
        assert_eq!(asset.bytes().unwrap(), payload(4, is_large));
        assert_eq!(asset.record().attribute("n"), Some(4i64.into()), "with its metadata");
        assert_eq!(generations(&session, "kept/k"), [4, 5, 8]);
        verified(&larder);
    }
}

#[test]
fn what_was_removed_can_be_brought_back() {
    let larder = in_memory();
    keep(&larder, "[[history]]\non = \"**\"\ngenerations = 5\n");
    let session = larder.session("ana").unwrap();
    session.put("t/a", payload(1, true)).unwrap();
    session.put("t/b", payload(2, false)).unwrap();
    session.put("c", payload(3, true)).unwrap();
    session.delete("c").unwrap();
    session.delete_tree("t").unwrap();
    let report = verified(&larder);
    assert_eq!((report.records, report.formers), (0, 3));
    for (key, n, is_large) in [("t/a", 1, true), ("t/b", 2, false), ("c", 3, true)] {
        session.write(|txn| txn.restore(key, 1)).unwrap();
        assert_eq!(session.get(key).unwrap().bytes().unwrap(), payload(n, is_large));
    }
    verified(&larder);
    // What comes after a removal goes on counting, so that no generation is there twice.
    session.put("d", "one").unwrap();
    session.delete("d").unwrap();
    assert_eq!(session.put("d", "two").unwrap().value.generation, 2);
    session.delete("d").unwrap();
    assert_eq!((former(&session, "d", 1), former(&session, "d", 2)), (b"one".to_vec(), b"two".to_vec()));
    // And what is renamed or copied to where something was, or brought back there.
    session.put("e", payload(9, true)).unwrap();
    assert_eq!(session.rename("e", "d").unwrap().value.generation, 3);
    session.delete("d").unwrap();
    assert_eq!(former(&session, "d", 2), b"two");
    session.write(|txn| txn.restore("d", 1)).unwrap();
    assert_eq!(session.record("d").unwrap().generation(), 4);
    session.delete("d").unwrap();
    assert_eq!(former(&session, "d", 2), b"two");
    session.copy("c", "d").unwrap();
    assert_eq!(session.record("d").unwrap().generation(), 5);
    session.delete("d").unwrap();
    assert_eq!(generations(&session, "d"), [1, 2, 3, 4, 5]);
    session.make_directory("d").unwrap();
    assert_eq!(session.record("d").unwrap().generation(), 6);
    verified(&larder);
}

/// What closes no circle when it is put closes none when it is brought back.
#[test]
fn what_is_brought_back_closes_no_circle() {
    let larder = in_memory();
    keep(&larder, "[[history]]\non = \"**\"\ngenerations = 5\n");
    let session = larder.session("ana").unwrap();
    session.put("b", "1").unwrap();
    session.put("a", Draft::from("1").with(|about| about.depends_on("b"))).unwrap();
    session.put("a", "2").unwrap();
    session.put("b", Draft::from("2").with(|about| about.depends_on("a"))).unwrap();
    assert_eq!(kind_of(session.write(|txn| txn.restore("a", 1))), "DependencyCycle");
    verified(&larder);
}

#[test]
fn history_has_an_age_and_ends_with_its_rule() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    keep(&larder, "[[history]]\non = \"k/**\"\nmax_age = \"10 s\"\n");
    let session = larder.session("ana").unwrap();
    for n in 1..=5 {
        session.put("k/a", payload(n, true)).unwrap();
        clock.advance(4_000_000);
    }
    assert_eq!(generations(&session, "k/a"), [2, 3, 4], "the first was superseded more than 10 s ago");
    clock.advance(5_000_000);
    assert_eq!(larder.prune_history().unwrap(), 1);
    assert_eq!(generations(&session, "k/a"), [4]);
    verified(&larder);
    keep(&larder, "");
    assert_eq!(generations(&session, "k/a"), [4], "until it is pruned");
    larder.prune_history().unwrap();
    assert!(generations(&session, "k/a").is_empty());
    assert_eq!(verified(&larder).formers, 0);
}

#[test]
fn s0_7_history_is_read_by_who_may_read_and_restored_by_who_may_write() {
    let larder = in_memory();
    keep(&larder, "[[history]]\non = \"**\"\ngenerations = 5\n");
    let root = larder.root().unwrap();
    root.put("k", "one").unwrap();
    root.put("k", "two").unwrap();
    let rules = "default = \"deny\"\n[[rule]]\nallow = [\"read\", \"list\"]\nwho = [\"ana\"]\non = \"**\"\n";
    root.set_document(DocumentKind::Rules, rules).unwrap();
    let (ana, bob) = (larder.session("ana").unwrap(), larder.session("bob").unwrap());
    assert_eq!(former(&ana, "k", 1), b"one");
    assert_eq!(kind_of(ana.write(|txn| txn.restore("k", 1))), "AccessDenied");
    assert_eq!(kind_of(bob.snapshot().unwrap().history("k")), "NotFound");
    assert_eq!(kind_of(bob.snapshot().unwrap().get_former("k", 1)), "NotFound");
}

#[test]
fn what_is_evicted_leaves_no_history_and_history_survives_a_crash() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    keep(&larder, "[[history]]\non = \"**\"\ngenerations = 5\n");
    let session = larder.session("ana").unwrap();
    let ready = |n| Draft::from(payload(n, true)).status(Status::Ready);
    session.put("k", ready(1)).unwrap();
    session.put("k", ready(2)).unwrap();
    let image = disk.durable();
    drop(larder);
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    assert_eq!(former(&session, "k", 1), payload(1, true));
    assert_eq!(larder.retain(&Retention::within(0), false).unwrap().leaving.len(), 1);
    assert_eq!(generations(&session, "k"), [1]);
    verified(&larder);
}
