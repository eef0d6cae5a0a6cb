//! What survives: crashes at every step, failing syncs, a full disk, flipped bits.

use larder::{Durability, ErrorKind, Larder, ManualClock, Options};
use larder_tests::{Call, Failure, Fault, FaultyDisk, Image, Plan};
use std::sync::Arc;

fn options() -> Options {
    Options::new()
        .inline()
        .log_segment_bytes(512 << 10)
        .cache_bytes(1 << 20)
        .clock(Arc::new(ManualClock::at(1_000_000)))
}

fn open(disk: &FaultyDisk, with_log: bool) -> larder::Result<Larder> {
    disk.open(options(), with_log)
}

/// Commits go through the log, or straight into the store.
const BOTH: [bool; 2] = [true, false];

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
fn check(image: Image, with_log: bool, acknowledged: u64, what: &str) {
    let larder = open(&FaultyDisk::holding(image, Plan::default()), with_log)
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
fn fresh(with_log: bool) -> (Vec<u8>, u64) {
    let disk = FaultyDisk::default();
    open(&disk, with_log).unwrap().close().unwrap();
    let bytes = disk.store();
    let counted = FaultyDisk::closed(bytes.clone(), Plan::default());
    let larder = open(&counted, with_log).unwrap();
    assert_eq!(program(&larder), COMMITS);
    larder.close().unwrap();
    (bytes, counted.operations())
}

#[test]
fn s2_26_x_2_t01_t04_a_crash_at_every_operation_loses_nothing_that_was_acknowledged() {
    for with_log in BOTH {
        let (bytes, operations) = fresh(with_log);
        assert!(operations > 30, "{operations}");
        for at in 0..operations {
            let plan = Plan { freeze_at: Some(at), ..Plan::default() };
            let disk = FaultyDisk::closed(bytes.clone(), plan);
            let acknowledged = open(&disk, with_log).map_or(0, |larder| program(&larder));
            let what = format!("log {with_log}, operation {at}");
            check(disk.durable(), with_log, acknowledged, &format!("{what}, nothing unsynced kept"));
            for seed in 0..4 {
                let image = disk.torn(at * 31 + seed + 1);
                check(image, with_log, acknowledged, &format!("{what}, torn {seed}"));
            }
        }
    }
}

#[test]
fn t06_a_failed_sync_poisons_the_handle_and_is_never_tried_again() {
    BOTH.into_iter().for_each(a_failed_sync_poisons);
}

#[test]
fn t06_a_sync_that_fails_for_want_of_room_is_final_too() {
    let (bytes, _) = fresh(true);
    let mut unknown = 0;
    for at in 1..12 {
        let fault = Fault::once(Call::Sync, at).with(Failure::Full);
        let plan = Plan { fault: Some(fault), ..Plan::default() };
        let disk = FaultyDisk::closed(bytes.clone(), plan);
        let Ok(larder) = open(&disk, true) else { continue };
        let session = larder.session("ana").unwrap();
        let Err(error) = session.put("a.txt", "x") else { continue };
        // Before the log there is nothing of which it could be unknown.
        if matches!(error.kind(), ErrorKind::OutcomeUnknown { .. }) {
            unknown += 1;
            let error = session.put("b.txt", "x").unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Poisoned { .. }), "sync {at}: {error}");
        }
    }
    assert!(unknown > 0, "no sync of the log was hit");
}

fn a_failed_sync_poisons(with_log: bool) {
    let (bytes, _) = fresh(with_log);
    let counted = FaultyDisk::closed(bytes.clone(), Plan::default());
    let larder = open(&counted, with_log).unwrap();
    program(&larder);
    let syncs = counted.syncs();
    drop(larder);
    for at in 1..syncs {
        let plan = Plan { fault: Some(Fault::once(Call::Sync, at)), ..Plan::default() };
        let storage = FaultyDisk::closed(bytes.clone(), plan);
        let Ok(larder) = open(&storage, with_log) else { continue };
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
        check(storage.durable(), with_log, acknowledged, &format!("sync {at}"));
        check(storage.current(), with_log, acknowledged, &format!("sync {at}, cache kept"));
    }
}

#[test]
fn t06_a_commit_whose_outcome_is_unknown_says_so_and_can_be_asked_for() {
    BOTH.into_iter().for_each(an_unknown_outcome_can_be_asked_for);
}

fn an_unknown_outcome_can_be_asked_for(with_log: bool) {
    let (bytes, _) = fresh(with_log);
    let mut unknown = 0;
    for at in 1..12 {
        let plan = Plan { fault: Some(Fault::once(Call::Sync, at)), ..Plan::default() };
        let storage = FaultyDisk::closed(bytes.clone(), plan);
        let Ok(larder) = open(&storage, with_log) else { continue };
        let session = larder.session("ana").unwrap();
        let put = session.write_once("order-1", |txn| txn.put("a.txt", "x"));
        drop(session);
        drop(larder);
        if let Err(error) = put {
            unknown += 1;
            assert!(matches!(error.kind(), ErrorKind::OutcomeUnknown { .. }), "{error}");
            for image in [storage.durable(), storage.current()] {
                let larder = open(&FaultyDisk::holding(image, Plan::default()), with_log).unwrap();
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
    BOTH.into_iter().for_each(a_full_disk);
}

fn a_full_disk(with_log: bool) {
    let (bytes, operations) = fresh(with_log);
    let mut full = 0;
    for at in 0..operations {
        let fault = Fault::once(Call::Write, at).with(Failure::Full).lasting();
        let plan = Plan { fault: Some(fault), ..Plan::default() };
        let storage = FaultyDisk::closed(bytes.clone(), plan);
        let Ok(larder) = open(&storage, with_log) else { continue };
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
        let larder = open(&FaultyDisk::holding(storage.durable(), Plan::default()), with_log).unwrap();
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
    let disk = FaultyDisk::default();
    let larder = open(&disk, true).unwrap();
    program(&larder);
    larder.close().unwrap();
    let bytes = disk.store();
    // Every 61st byte, another bit each time: redb's page layout repeats in powers of two, which this steps across.
    let (mut same, mut noticed) = (0, 0);
    for at in (0..bytes.len()).step_by(61) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let Ok(larder) = open(&FaultyDisk::closed(flipped, Plan::default()), true) else {
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
    BOTH.into_iter().for_each(an_unfinished_upload_is_reclaimed);
}

fn an_unfinished_upload_is_reclaimed(with_log: bool) {
    let storage = FaultyDisk::default();
    let larder = open(&storage, with_log).unwrap();
    let session = larder.session("ana").unwrap();
    let noise: Vec<u8> = (0..6_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let key = larder::Key::parse("big.bin").unwrap();
    let prepared = session.prepare(&key, &mut noise.as_slice(), &larder::Draft::bytes("")).unwrap();
    larder.flush().unwrap();
    let crashed = storage.durable();
    drop(prepared);
    let larder = open(&FaultyDisk::holding(crashed, Plan::default()), with_log).unwrap();
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.chunks, 0);
}

#[test]
fn s4_2_3_what_survives_of_lazy_commits_is_a_prefix() {
    BOTH.into_iter().for_each(what_survives_is_a_prefix);
}

fn what_survives_is_a_prefix(with_log: bool) {
    let (bytes, _) = fresh(with_log);
    let storage = FaultyDisk::closed(bytes, Plan::default());
    let larder = open(&storage, with_log).unwrap();
    let session = larder.session("ana").unwrap().durability(Durability::Lazy);
    for number in 0..40 {
        session.put(format!("{number:02}.txt"), "x").unwrap();
        if number == 20 {
            larder.flush().unwrap();
        }
    }
    for seed in 1..40 {
        let larder = open(&FaultyDisk::holding(storage.torn(seed), Plan::default()), with_log).unwrap();
        let session = larder.session("ana").unwrap();
        let there: Vec<bool> = (0..40).map(|n| session.exists(format!("{n:02}.txt")).unwrap()).collect();
        let count = there.iter().take_while(|there| **there).count();
        assert!(count >= 21 && there[count..].iter().all(|there| !there), "{there:?}");
    }
}

#[test]
fn s2_13_x_12_random_edits_of_a_file_end_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.larder");
    let larder = options().open(&path).unwrap();
    program(&larder);
    larder.compact(None).unwrap();
    larder.close().unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut random = larder_tests::Random::new(13);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..1_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.number() as u8;
        }
        std::fs::write(&path, &bytes).unwrap();
        match options().open_read_only(&path) {
            Err(_) => refused += 1,
            Ok(larder) => {
                opened += 1;
                let _ = larder.verify(&mut |_| {});
                let _ = larder.session("ana").unwrap().get("count.txt").map(|asset| asset.bytes());
            }
        }
    }
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}
