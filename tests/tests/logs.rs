//! What is said of the work on an asset lies apart from its record, is bounded, and goes where the asset goes.

use std::sync::Arc;
use std::time::Duration;

use larder::{Annotation, Draft, Durability, Larder, LogKind, ManualClock, Options, Session, Status};
use larder_tests::{FaultyDisk, Plan, in_memory, kind_of, still, verified};

fn messages(session: &Session, key: &str) -> Vec<String> {
    session.snapshot().unwrap().log(key).unwrap().into_iter().map(|entry| entry.message).collect()
}

fn done(session: &Session, key: &str) -> Option<u64> {
    session.snapshot().unwrap().progress(key).unwrap().map(|progress| progress.done)
}

fn at_work(larder: &Larder) -> Session {
    let session = larder.session("ana").unwrap();
    session.put("k", Draft::from("half").status(Status::Processing)).unwrap();
    session
}

#[test]
fn entries_are_appended_and_the_record_is_left_alone() {
    let larder = in_memory();
    let session = at_work(&larder);
    let before = session.record("k").unwrap();
    session.log("k", LogKind::Info, "began").unwrap();
    session.log("k", LogKind::Warning, "salt is low").unwrap();
    session.progress("k", 3, 10, "cutting").unwrap();
    session.progress("k", 4, 10, "boiling").unwrap();
    let view = session.snapshot().unwrap();
    let log = view.log("k").unwrap();
    assert_eq!(log.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [LogKind::Info, LogKind::Warning]);
    assert_eq!((log[0].message.as_str(), log[0].time), ("began", 1_000_000));
    let progress = view.progress("k").unwrap().unwrap();
    assert_eq!((progress.done, progress.total, progress.message.as_str()), (4, 10, "boiling"));
    assert_eq!(session.record("k").unwrap(), before, "to the byte");
    let told = session.feed_since(1, 10).unwrap();
    assert_eq!(told.iter().map(|event| event.kind.name()).collect::<Vec<_>>(), ["logged"; 4]);
    assert_eq!(verified(&larder).logs, 3);
    assert!(view.log("k").unwrap().len() == 2 && messages(&session, "k").len() == 2);
}

#[test]
fn the_last_thousand_entries_are_kept() {
    let larder = in_memory();
    let session = at_work(&larder);
    for part in 0..11 {
        session
            .write(|txn| {
                (0..100).try_for_each(|n| txn.log("k", LogKind::Debug, format!("{}", part * 100 + n)))
            })
            .unwrap();
    }
    let messages = messages(&session, "k");
    assert_eq!((messages.len(), messages[0].as_str(), messages[999].as_str()), (1_000, "100", "1099"));
    let kept = verified(&larder).logs;
    assert!((1_000..1_100).contains(&kept), "{kept}");
}

#[test]
fn it_goes_with_its_asset_and_nowhere_else() {
    let larder = in_memory();
    let session = at_work(&larder);
    for key in ["t/a", "t/b", "t/b/c", "tt"] {
        session.put(key, "x").unwrap();
        session.log(key, LogKind::Info, key).unwrap();
        session.progress(key, 1, 2, "").unwrap();
    }
    session.put("t/a", "y").unwrap();
    assert_eq!(messages(&session, "t/a"), ["t/a"], "a new payload does not end the log");
    session.rename("t/a", "moved").unwrap();
    assert_eq!((messages(&session, "moved"), done(&session, "moved")), (vec!["t/a".to_owned()], Some(1)));
    session.copy("moved", "copy").unwrap();
    assert!(messages(&session, "copy").is_empty());
    session.put("t/a", "again").unwrap();
    assert!(messages(&session, "t/a").is_empty());
    session.rename_tree("t/b", "u").unwrap();
    assert_eq!(messages(&session, "u/c"), ["t/b/c"]);
    session.delete("moved").unwrap();
    session.delete_tree("u").unwrap();
    assert_eq!(messages(&session, "tt"), ["tt"]);
    assert_eq!(verified(&larder).logs, 2);
}

#[test]
fn bad_entries_are_refused() {
    let larder = in_memory();
    let session = at_work(&larder);
    assert_eq!(kind_of(session.log("nothing", LogKind::Info, "x")), "NotFound");
    assert_eq!(kind_of(session.progress("nothing", 1, 1, "x")), "NotFound");
    assert_eq!(kind_of(session.log("../k", LogKind::Info, "x")), "InvalidKey");
    assert_eq!(kind_of(session.log("k", LogKind::Info, "x".repeat(2 << 20))), "MetadataTooLarge");
    session.progress("k", u64::MAX, 0, "").unwrap();
    assert_eq!(done(&session, "k"), Some(u64::MAX));
    let rules = "default = \"deny\"\n[[rule]]\nallow = [\"read\"]\nwho = [\"bob\"]\non = \"**\"\n";
    larder.root().unwrap().set_document(larder::DocumentKind::Rules, rules).unwrap();
    let bob = larder.session("bob").unwrap();
    assert_eq!(kind_of(bob.log("k", LogKind::Info, "x")), "AccessDenied");
    assert_eq!(done(&bob, "k"), Some(u64::MAX));
    assert_eq!(kind_of(larder.session("eve").unwrap().snapshot().unwrap().log("k")), "NotFound");
    verified(&larder);
}

#[test]
fn s0_3_c_a_late_worker_says_nothing_more() {
    let larder = in_memory();
    let session = at_work(&larder);
    let claim = session.claim("k").for_at_most(Duration::from_secs(60)).unwrap();
    assert!(!claim.write(|txn| txn.progress("k", 1, 2, "half")).unwrap().is_fenced());
    let _ = session.cancel("k").unwrap();
    assert!(claim.write(|txn| txn.progress("k", 2, 2, "whole")).unwrap().is_fenced());
    assert!(claim.write(|txn| txn.log("k", LogKind::Info, "done")).unwrap().is_fenced());
    assert_eq!((done(&session, "k"), messages(&session, "k").len()), (Some(1), 0));
    assert!(claim.annotate(Annotation::new().title("late")).unwrap().is_fenced());
    verified(&larder);
}

#[test]
fn test_metadata_save_is_throttled_and_coalesced() {
    let disk = FaultyDisk::default();
    let clock = Arc::new(ManualClock::at(1_000_000));
    let options = || Options::new().inline().log_segment_bytes(512 << 10).clock(Arc::clone(&clock) as _);
    let larder = disk.open(options(), true).unwrap();
    let session = at_work(&larder);
    let before = larder.info().unwrap().input_output.log_syncs;
    let soon = session.clone().durability(Durability::Window { milliseconds: 100 });
    for n in 1..=8 {
        soon.progress("k", n, 8, "").unwrap();
        clock.advance(10_000);
    }
    assert_eq!(done(&session, "k"), Some(8), "the last is seen at once");
    clock.advance(100_000);
    larder.upkeep(1_180_000).unwrap();
    assert_eq!(larder.info().unwrap().input_output.log_syncs, before + 1, "eight of them, one sync");
    let image = disk.durable();
    drop(larder);
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    assert_eq!(done(&larder.session("ana").unwrap(), "k"), Some(8));
    verified(&larder);
}
