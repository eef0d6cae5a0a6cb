//! What survives when reading fails, when a recovery is cut short too, and when the damage is where rows are found.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use larder::{Annotation, Durability, ErrorKind, Larder, Result};
use larder_tests::{Call, Fault, FaultyDisk, Image, Plan, still, verified};

fn open(storage: &FaultyDisk) -> Result<Larder> {
    storage.open(still(), true)
}

/// One that keeps no pages: every read reaches the storage.
fn open_uncached(storage: &FaultyDisk) -> Result<Larder> {
    storage.open(still().cache_bytes(0), true)
}

fn noise(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| ((at ^ seed).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What a store of the program below holds: in rows, in chunks, and staged.
fn contents() -> BTreeMap<String, Vec<u8>> {
    let sizes = [0usize, 1, 900, 1_024, 1_025, 6_000, 70_000];
    let small =
        (0..40u32).map(|n| (format!("k/{}/{n}.bin", n % 5), noise(n, sizes[n as usize % sizes.len()])));
    small.chain([("large.bin".to_owned(), noise(99, 1_200_000))]).collect()
}

fn filled(storage: &FaultyDisk) {
    let larder = open(storage).unwrap();
    let session = larder.session("ana").unwrap().durability(Durability::Lazy);
    for (key, bytes) in contents() {
        session.put(key.as_str(), bytes).unwrap();
        session.annotate(key.as_str(), Annotation::new().tag("kept")).unwrap();
    }
    larder.close().unwrap();
}

/// Reads everything in every way there is. No payload may be another; gives how many calls failed, and whether
/// something that is there was said not to be.
fn read_all(larder: &Larder, expected: &BTreeMap<String, Vec<u8>>, what: &str) -> (usize, bool) {
    let session = larder.session("ana").unwrap();
    let (mut failed, mut hidden) = (0, false);
    let mut say = |answer: Result<bool>| match answer {
        Ok(is_right) => hidden |= !is_right,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => hidden = true,
        Err(_) => failed += 1,
    };
    for (key, bytes) in expected {
        say(session.get(key.as_str()).and_then(|asset| asset.bytes()).map(|got| {
            assert!(got == bytes, "{what}: other bytes under {key}");
            true
        }));
        say(session.exists(key.as_str()));
    }
    say(session.snapshot().and_then(|view| {
        let rows = view.walk("")?.collect::<Result<Vec<_>>>()?;
        Ok(rows.iter().map(|(key, _)| key.as_str()).eq(expected.keys()))
    }));
    let listed = expected.keys().filter(|key| key.starts_with("k/3/")).count();
    say(session.list("k/3").map(|entries| entries.len() == listed));
    say(session.find_by_tag("kept").map(|found| found.len() == expected.len()));
    (failed, hidden)
}

#[test]
fn t08_a_read_that_fails_is_an_error_or_nothing_and_is_no_lasting_damage() {
    let storage = FaultyDisk::default();
    filled(&storage);
    let (bytes, expected) = (storage.store(), contents());
    let counted = FaultyDisk::closed(bytes.clone(), Plan::default());
    assert_eq!(read_all(&open_uncached(&counted).unwrap(), &expected, "without faults"), (0, false));
    let reads = counted.reads();
    assert!(reads > 50, "{reads}");
    let (mut noticed, step) = (0, (reads / 120).max(1));
    for at in (0..reads).step_by(step as usize) {
        let storage = FaultyDisk::closed(
            bytes.clone(),
            Plan { fault: Some(Fault::once(Call::Read, at)), ..Plan::default() },
        );
        let what = format!("read {at} of {reads}");
        let Ok(larder) = open_uncached(&storage) else {
            noticed += 1;
            continue;
        };
        let (failed, hidden) = read_all(&larder, &expected, &what);
        assert!(!hidden, "{what}: something is said not to be there");
        noticed += usize::from(failed > 0);
        drop(larder);
        let larder = open(&FaultyDisk::holding(storage.current(), Plan::default())).unwrap();
        assert_eq!(read_all(&larder, &expected, &what), (0, false), "{what}: it lasts");
    }
    assert!(noticed > 0);
}

/// T08, S4-2.3. A store that started over after a read that failed, and could not, was closed as if it had, and its log
/// removed: with all that was acknowledged since the last checkpoint.
#[test]
fn t08_what_was_acknowledged_outlives_a_start_over_that_fails_and_closing() {
    const PUTS: u32 = 20;
    let (mut met, mut failed) = (0, 0);
    for call in Call::ALL {
        for later in 0.. {
            let storage = FaultyDisk::default();
            let larder = open_uncached(&storage).unwrap();
            let session = larder.session("ana").unwrap();
            for number in 0..PUTS {
                session.put(format!("k/{number}"), noise(number, 900)).unwrap();
            }
            // Into the file, and not on disk there.
            let _ = larder.upkeep(0).unwrap();
            let fault = Fault::once(Call::Read, storage.calls(Call::Read));
            storage.set_plan(Plan { fault: Some(fault), ..Plan::default() });
            assert!(session.get("k/7").is_err());
            // Whoever writes next starts over.
            let at = storage.calls(call) + later;
            storage.set_plan(Plan { fault: Some(Fault::once(call, at)), ..Plan::default() });
            failed += u32::from(session.put("more", "x").is_err());
            let is_met = storage.calls(call) > at;
            storage.set_plan(Plan::default());
            let closed = larder.close();
            for image in [storage.current(), storage.durable()] {
                let what = format!("{call:?} {later}, {closed:?}");
                let larder = open(&FaultyDisk::holding(image, Plan::default()))
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                let session = larder.session("ana").unwrap();
                for number in 0..PUTS {
                    let found = session.get(format!("k/{number}")).and_then(|asset| asset.bytes());
                    assert!(found.is_ok_and(|found| found == noise(number, 900)), "{what}: {number}");
                }
                verified(&larder);
            }
            if !is_met {
                break;
            }
            met += 1;
        }
    }
    assert!(met > 40 && failed > 10, "{met} faults were met, {failed} puts failed");
}

#[test]
fn t02_a_recovery_that_is_cut_short_can_be_done_again() {
    // A crash in the middle of a program.
    let storage = FaultyDisk::default();
    let larder = open(&storage).unwrap();
    let session = larder.session("ana").unwrap();
    for number in 0..6u32 {
        session.put(format!("k/{number}"), noise(number, 3_000)).unwrap();
    }
    let lazy = session.clone().durability(Durability::Lazy);
    for number in 6..12u32 {
        lazy.put(format!("k/{number}"), noise(number, 3_000)).unwrap();
    }
    let check = |image: Image, what: &str| {
        let larder = open(&FaultyDisk::holding(image, Plan::default()))
            .unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
        let session = larder.session("ana").unwrap();
        let there: Vec<bool> = (0..12).map(|n| session.exists(format!("k/{n}")).unwrap()).collect();
        let count = there.iter().take_while(|there| **there).count();
        assert!(count >= 6 && !there[count..].contains(&true), "{what}: {there:?}");
        for number in 0..count as u32 {
            let bytes = session.get(format!("k/{number}")).unwrap().bytes().unwrap();
            assert!(bytes == noise(number, 3_000), "{what}");
        }
        verified(&larder);
    };
    for seed in 1..6 {
        let crashed = storage.torn(seed);
        let counted = FaultyDisk::holding(crashed.clone(), Plan::default());
        drop(open(&counted).unwrap());
        // Opening, and closing, is cut short at every operation; what is left is cut short once more.
        for at in 0..counted.operations() {
            let second =
                FaultyDisk::holding(crashed.clone(), Plan { freeze_at: Some(at), ..Plan::default() });
            drop(open(&second));
            for image in [second.durable(), second.torn(seed * 7 + at)] {
                let third =
                    FaultyDisk::holding(image.clone(), Plan { freeze_at: Some(at / 2), ..Plan::default() });
                drop(open(&third));
                check(third.torn(at + 1), &format!("seed {seed}, operation {at}, twice"));
                check(image, &format!("seed {seed}, operation {at}"));
            }
        }
    }
}

/// redb compares the checksums of pages when it recovers, not when it reads: a flipped bit in a key can hide rows
/// from a reader. It gives him no wrong bytes, and no panic; and whoever verifies is told.
#[test]
fn t20_a_flipped_bit_gives_no_wrong_bytes_and_what_it_hides_is_found_by_verify() {
    let storage = FaultyDisk::default();
    let larder = open(&storage).unwrap();
    let session = larder.session("ana").unwrap();
    let expected: BTreeMap<String, Vec<u8>> =
        contents().into_iter().filter(|(_, bytes)| bytes.len() < 10_000).collect();
    for (key, bytes) in &expected {
        session.put(key.as_str(), bytes.clone()).unwrap();
        session.annotate(key.as_str(), Annotation::new().tag("kept")).unwrap();
    }
    larder.close().unwrap();
    let bytes = storage.store();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    // Two that were not found by verify once lie among these: keys in a page above the rows.
    let (mut noticed, step) = (0, (used.len() / 900).max(1));
    let sample = used.iter().copied().step_by(step).chain(118_900..119_000);
    for at in sample.filter(|at| bytes[*at] != 0) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let what = format!("byte {at}");
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Ok(larder) = open(&FaultyDisk::closed(flipped, Plan::default())) else { return true };
            let (failed, hidden) = read_all(&larder, &expected, &what);
            let found = larder.verify(&mut |_| {}).map_or(true, |report| !report.is_clean());
            assert!(found || !hidden, "{what}: something is hidden, and verify finds nothing");
            failed > 0 || found
        }));
        match outcome {
            Ok(is_noticed) => noticed += usize::from(is_noticed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    assert!(noticed > 0);
}
