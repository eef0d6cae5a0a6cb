//! What survives: crashes at every step, failing syncs, a full disk, flipped bits.

use larder::{Durability, ErrorKind, Larder, ManualClock, Options};
use larder_tests::{FaultyStorage, Plan};
use std::sync::Arc;

fn options() -> Options {
    Options::new().inline().cache_bytes(1 << 20).clock(Arc::new(ManualClock::at(1_000_000)))
}

fn open(storage: &FaultyStorage) -> larder::Result<Larder> {
    options().open_storage(Box::new(storage.clone()))
}

const COMMITS: u64 = 6;

fn payload(commit: u64) -> Vec<u8> {
    // Some in the record's row, some in chunks.
    vec![commit as u8; if commit.is_multiple_of(2) { 100 } else { 6_000 }]
}

/// Puts two assets and a counter in each commit; gives how many were acknowledged.
fn program(larder: &Larder) -> u64 {
    let session = larder.session("ana").unwrap();
    for commit in 1..=COMMITS {
        let done = session.write(|txn| {
            txn.put(format!("a/{commit}.bin"), payload(commit))?;
            txn.put(format!("b/{commit}.bin"), payload(commit + 1))?;
            txn.put("count.txt", commit.to_string())?;
            if commit > 2 {
                txn.delete(format!("a/{}.bin", commit - 2))?;
            }
            Ok(())
        });
        if done.is_err() {
            return commit - 1;
        }
    }
    COMMITS
}

/// What must hold after a crash: every acknowledged commit is there, none is half there, everything recounts.
fn check(image: Vec<u8>, acknowledged: u64, what: &str) {
    let larder = open(&FaultyStorage::holding(image, Plan::default()))
        .unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    let session = larder.session("ana").unwrap();
    let count = match session.get("count.txt") {
        Ok(asset) => String::from_utf8(asset.bytes().unwrap().to_vec()).unwrap().parse::<u64>().unwrap(),
        Err(_) => 0,
    };
    assert!(count >= acknowledged, "{what}: {acknowledged} commits were acknowledged, {count} are there");
    for commit in 1..=COMMITS {
        let there = session.get(format!("a/{commit}.bin")).map(|asset| asset.bytes().unwrap().to_vec());
        let expected = commit <= count && commit + 2 > count;
        assert_eq!(there.is_ok(), expected, "{what}: a/{commit} at {count}");
        if let Ok(bytes) = there {
            assert_eq!(bytes, payload(commit), "{what}");
        }
        assert_eq!(session.exists(format!("b/{commit}.bin")).unwrap(), commit <= count, "{what}: b/{commit}");
    }
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.findings);
}

/// A store that was made, and nothing else, with how many operations the program takes on it.
fn fresh() -> (Vec<u8>, u64) {
    let storage = FaultyStorage::default();
    open(&storage).unwrap().close().unwrap();
    let bytes = storage.current();
    let counted = FaultyStorage::holding(bytes.clone(), Plan::default());
    let larder = open(&counted).unwrap();
    assert_eq!(program(&larder), COMMITS);
    larder.close().unwrap();
    (bytes, counted.operations())
}

#[test]
fn t01_t04_a_crash_at_every_operation_loses_nothing_that_was_acknowledged() {
    let (bytes, operations) = fresh();
    assert!(operations > 50, "{operations}");
    for at in 0..operations {
        let plan = Plan { freeze_at: Some(at), ..Plan::default() };
        let storage = FaultyStorage::holding(bytes.clone(), plan);
        let acknowledged = open(&storage).map_or(0, |larder| program(&larder));
        check(storage.durable(), acknowledged, &format!("operation {at}, nothing unsynced kept"));
        for seed in 0..3 {
            let image = storage.torn(at * 31 + seed + 1);
            check(image, acknowledged, &format!("operation {at}, torn {seed}"));
        }
    }
}

#[test]
fn t06_a_failed_sync_poisons_the_handle_and_is_never_tried_again() {
    let (bytes, _) = fresh();
    let counted = FaultyStorage::holding(bytes.clone(), Plan::default());
    let larder = open(&counted).unwrap();
    program(&larder);
    let syncs = counted.syncs();
    drop(larder);
    for at in 1..syncs {
        let plan = Plan { fail_sync: Some(at), ..Plan::default() };
        let storage = FaultyStorage::holding(bytes.clone(), plan);
        let Ok(larder) = open(&storage) else { continue };
        let acknowledged = program(&larder);
        if acknowledged == COMMITS {
            continue; // the sync belongs to the closing
        }
        let session = larder.session("ana").unwrap();
        let tried = storage.syncs();
        let error = session.put("late.txt", "x").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Poisoned { .. }), "sync {at}: {error}");
        assert_eq!(storage.syncs(), tried, "sync {at} was tried again");
        drop(larder);
        check(storage.durable(), acknowledged, &format!("sync {at}"));
        check(storage.current(), acknowledged, &format!("sync {at}, cache kept"));
    }
}

#[test]
fn t06_a_commit_whose_outcome_is_unknown_says_so_and_can_be_asked_for() {
    let (bytes, _) = fresh();
    let mut unknown = 0;
    for at in 1..12 {
        let plan = Plan { fail_sync: Some(at), ..Plan::default() };
        let storage = FaultyStorage::holding(bytes.clone(), plan);
        let Ok(larder) = open(&storage) else { continue };
        let session = larder.session("ana").unwrap();
        let put = session.write_once("order-1", |txn| txn.put("a.txt", "x"));
        drop(session);
        drop(larder);
        if let Err(error) = put {
            unknown += 1;
            assert!(matches!(error.kind(), ErrorKind::OutcomeUnknown { .. }), "{error}");
            for image in [storage.durable(), storage.current()] {
                let larder = open(&FaultyStorage::holding(image, Plan::default())).unwrap();
                let session = larder.session("ana").unwrap();
                let known =
                    matches!(session.outcome_of("order-1").unwrap(), larder::CommitOutcome::Committed(_));
                assert_eq!(known, session.exists("a.txt").unwrap());
                // Asked for again, it happens exactly once.
                session.write_once("order-1", |txn| txn.put("a.txt", "x")).unwrap();
                assert_eq!(session.record("a.txt").unwrap().generation(), 1);
            }
        }
    }
    assert!(unknown > 0, "no sync of the commit was hit");
}

#[test]
fn t07_a_full_disk_is_a_typed_error_and_loses_nothing() {
    let (bytes, operations) = fresh();
    let mut full = 0;
    for at in 0..operations {
        let plan = Plan { full_at: Some(at), ..Plan::default() };
        let storage = FaultyStorage::holding(bytes.clone(), plan);
        let Ok(larder) = open(&storage) else { continue };
        let session = larder.session("ana").unwrap();
        let mut acknowledged = 0;
        for commit in 1..=COMMITS {
            match session.put(format!("x/{commit}.bin"), payload(commit)) {
                Ok(_) => acknowledged = commit,
                Err(error) => {
                    let text = format!("{error:?}");
                    let typed = text.contains("StoreFull") || text.contains("Poisoned");
                    assert!(typed, "write {at}: {text}");
                    full += 1;
                    break;
                }
            }
        }
        drop(session);
        drop(larder);
        let larder = open(&FaultyStorage::holding(storage.durable(), Plan::default())).unwrap();
        let session = larder.session("ana").unwrap();
        for commit in 1..=acknowledged {
            assert_eq!(session.get(format!("x/{commit}.bin")).unwrap().bytes().unwrap(), payload(commit));
        }
        assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
    }
    assert!(full > 0);
}

#[test]
fn t11_a_panic_in_a_closure_harms_nobody() {
    let larder = options().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    for round in 0..50 {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            session.write(|txn| -> larder::Result<()> {
                txn.put("half.txt", "x")?;
                std::panic::resume_unwind(Box::new("given up"));
            })
        }));
        assert!(panicked.is_err());
        session.put("whole.txt", round.to_string()).unwrap();
    }
    assert!(!session.exists("half.txt").unwrap());
    assert_eq!(session.record("whole.txt").unwrap().generation(), 50);
    assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn t20_no_flipped_bit_gives_wrong_bytes() {
    let storage = FaultyStorage::default();
    let larder = open(&storage).unwrap();
    program(&larder);
    larder.close().unwrap();
    let bytes = storage.current();
    // Every 61st byte, another bit each time: redb's page layout repeats in powers of two, which this steps across.
    let (mut same, mut noticed) = (0, 0);
    for at in (0..bytes.len()).step_by(61) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let opened = options().open_storage(Box::new(FaultyStorage::holding(flipped, Plan::default())));
        let Ok(larder) = opened else {
            noticed += 1;
            continue;
        };
        let session = larder.session("ana").unwrap();
        let mut is_noticed = false;
        for commit in 1..=COMMITS {
            for (directory, expected) in [("a", payload(commit)), ("b", payload(commit + 1))] {
                match session.get(format!("{directory}/{commit}.bin")).and_then(|asset| asset.bytes()) {
                    Ok(bytes) => assert_eq!(bytes, expected, "byte {at}"),
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {}
                    Err(_) => is_noticed = true,
                }
            }
        }
        if is_noticed { noticed += 1 } else { same += 1 }
    }
    assert!(noticed > 0 && same > 0, "{noticed} noticed, {same} without effect");
}

#[test]
fn an_unfinished_upload_is_reclaimed_at_the_next_open() {
    let storage = FaultyStorage::default();
    let larder = open(&storage).unwrap();
    let session = larder.session("ana").unwrap();
    let noise: Vec<u8> = (0..6_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let key = larder::Key::parse("big.bin").unwrap();
    let prepared = session.prepare(&key, &mut noise.as_slice(), &larder::Draft::bytes("")).unwrap();
    larder.flush().unwrap();
    let crashed = storage.durable();
    drop(prepared);
    let larder = open(&FaultyStorage::holding(crashed, Plan::default())).unwrap();
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.chunks, 0);
}

#[test]
fn s4_2_3_what_survives_of_lazy_commits_is_a_prefix() {
    let (bytes, _) = fresh();
    let storage = FaultyStorage::holding(bytes, Plan::default());
    let larder = open(&storage).unwrap();
    let session = larder.session("ana").unwrap().durability(Durability::Lazy);
    for number in 0..40 {
        session.put(format!("{number:02}.txt"), "x").unwrap();
        if number == 20 {
            larder.flush().unwrap();
        }
    }
    for seed in 1..40 {
        let larder = open(&FaultyStorage::holding(storage.torn(seed), Plan::default())).unwrap();
        let session = larder.session("ana").unwrap();
        let there: Vec<bool> = (0..40).map(|n| session.exists(format!("{n:02}.txt")).unwrap()).collect();
        let count = there.iter().take_while(|there| **there).count();
        assert!(count >= 21 && there[count..].iter().all(|there| !there), "{there:?}");
    }
}
