//! The commit log: what a crash leaves in it comes back, and a log that is not right is an error or a clean recovery,
//! never a panic and never silence.

use std::fs;
use std::path::PathBuf;

use larder::{Durability, Larder, Result};
use larder_tests::{Call, Failure, Fault, FaultyDisk, Image, LOG, Plan, STORE, kind_of, still, verified};

const BLOCK: usize = 4_096;
const COMMITS: u64 = 6;

fn open(image: Image) -> Result<Larder> {
    FaultyDisk::holding(image, Plan::default()).open(still(), true)
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut step = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    (0..length).map(|_| step()).collect()
}

/// What a crash leaves of a store in which this many commits were acknowledged, none of them drained.
fn crashed(commits: u64) -> Image {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    for commit in 1..=commits {
        session.put(format!("{commit}"), noise(commit, 500)).unwrap();
    }
    disk.durable()
}

/// How many commits are there: a prefix, each whole.
fn count(larder: &Larder, commits: u64) -> u64 {
    let session = larder.session("ana").unwrap();
    let is_there = |commit: &u64| session.exists(format!("{commit}")).unwrap();
    let count = (1..=commits).take_while(is_there).count() as u64;
    assert!(!(count + 1..=commits).any(|commit| is_there(&commit)), "a gap after {count}");
    for commit in 1..=count {
        assert!(session.get(format!("{commit}")).unwrap().bytes().unwrap() == noise(commit, 500));
    }
    count
}

#[test]
fn what_was_acknowledged_comes_back_and_the_report_says_so() {
    let larder = open(crashed(COMMITS)).unwrap();
    let report = larder.recovery().unwrap();
    assert_eq!((report.found.sequence, report.replayed, report.last_commit.sequence), (0, COMMITS, COMMITS));
    assert_eq!((report.torn_bytes, &report.discarded), (0, &None));
    assert_eq!(count(&larder, COMMITS), COMMITS);
    assert_eq!(verified(&larder).records, COMMITS);
    // And the numbers go on.
    let next = larder.session("ana").unwrap().put("next", "x").unwrap();
    assert_eq!(next.commit.sequence, COMMITS + 1);
}

#[test]
fn a_clean_close_leaves_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.larder");
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for round in 0..3 {
        let larder = Larder::open(&path).unwrap();
        assert_eq!(larder.recovery(), None);
        assert_eq!(names(), ["a.larder"], "no log before the first commit");
        larder.session("ana").unwrap().put(format!("{round}"), "x").unwrap();
        assert_eq!(names(), ["a.larder", "a.larder-log"]);
        assert!(larder.info().unwrap().input_output.log_bytes > 0);
        larder.close().unwrap();
        assert_eq!(names(), ["a.larder"]);
    }
}

#[test]
fn t01_segments_take_turns_and_a_crash_anywhere_loses_nothing() {
    const KEYS: u64 = 40;
    let program = |larder: &Larder| -> u64 {
        let session = larder.session("ana").unwrap();
        // Up to 60 KB each: a segment has room for about ten.
        let put =
            |n: &u64| session.put(format!("{}", n % KEYS), noise(*n, 1_000 + (*n as usize * 7_919) % 60_000));
        (1..=120).take_while(|n| put(n).is_ok()).count() as u64
    };
    let check = |image: Image, acknowledged: u64, what: &str| {
        let disk = FaultyDisk::holding(image, Plan::default());
        let larder = disk.open(still(), true).unwrap_or_else(|error| panic!("{what}: {error}"));
        let session = larder.session("ana").unwrap();
        let last = larder.info().unwrap().last_commit.sequence;
        assert!(last == acknowledged || last == acknowledged + 1, "{what}: {acknowledged}, there are {last}");
        for key in 0..KEYS {
            let newest = (1..=last).rev().find(|n| n % KEYS == key);
            let found = session.get(format!("{key}")).map(|asset| asset.bytes().unwrap());
            match newest {
                Some(n) => {
                    assert!(found.unwrap() == noise(n, 1_000 + (n as usize * 7_919) % 60_000), "{what}")
                }
                None => assert!(found.is_err()),
            }
        }
        verified(&larder);
    };
    let counted = FaultyDisk::default();
    let larder = counted.open(still(), true).unwrap();
    assert_eq!(program(&larder), 120);
    assert!(larder.info().unwrap().input_output.log_bytes_written > 6 * (512 << 10));
    let (begin, operations) = (20, counted.operations());
    check(counted.durable(), 120, "at the end");
    for at in (begin..operations).step_by((operations as usize - 20) / 90) {
        let disk = FaultyDisk::holding(Image::default(), Plan { freeze_at: Some(at), ..Plan::default() });
        let acknowledged = disk.open(still(), true).map_or(0, |larder| program(&larder));
        check(disk.durable(), acknowledged, &format!("operation {at}"));
        check(disk.torn(at), acknowledged, &format!("operation {at}, torn"));
    }
}

#[test]
fn what_is_too_large_for_the_log_goes_past_it_and_the_log_goes_on() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let lazy = session.clone().durability(Durability::Lazy);
    session.put("small", noise(1, 300)).unwrap();
    lazy.put("lazy", noise(2, 300)).unwrap();
    // Not staged, and longer than a segment with its record.
    session.put("large", noise(3, 600_000)).unwrap();
    lazy.put("after", noise(4, 300)).unwrap();
    session.put("last", noise(5, 300)).unwrap();
    // Staged: it is on disk before the log names it.
    session.put("staged", noise(6, 3_000_000)).unwrap();
    let larder = open(disk.durable()).unwrap();
    let session = larder.session("ana").unwrap();
    for (key, seed, length) in [
        ("small", 1, 300),
        ("lazy", 2, 300),
        ("large", 3, 600_000),
        ("after", 4, 300),
        ("last", 5, 300),
        ("staged", 6, 3_000_000),
    ] {
        assert!(session.get(key).unwrap().bytes().unwrap() == noise(seed, length), "{key}");
    }
    assert_eq!(larder.info().unwrap().last_commit.sequence, 6);
    verified(&larder);
}

#[test]
fn a_flipped_bit_in_the_log_is_noticed_or_harmless() {
    let image = crashed(COMMITS);
    let used = BLOCK * (1 + COMMITS as usize);
    let (mut refused, mut recovered) = (0, 0);
    for at in (0..used).filter(|at| at % BLOCK < 160 || at % 13 == 0) {
        let mut flipped = image.clone();
        flipped[LOG][at] ^= 1 << (at % 8);
        match open(flipped) {
            Ok(larder) => {
                let count = count(&larder, COMMITS);
                // Rot in the very last batch cannot be told from one that was torn as it was written.
                let is_in_last = at / BLOCK == COMMITS as usize;
                assert!(count == COMMITS || (is_in_last && count == COMMITS - 1), "byte {at}: {count}");
                recovered += 1;
            }
            Err(error) => {
                let kind = error.kind().name();
                assert!(
                    ["LogDamaged", "LogDiverged", "UnsupportedVersion"].contains(&kind),
                    "byte {at}: {error}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 500 && recovered > 500, "{refused} refused, {recovered} recovered");
}

#[test]
fn a_log_that_was_cut_off_is_noticed() {
    let image = crashed(COMMITS);
    let used = BLOCK * (1 + COMMITS as usize);
    for length in (0..=used).filter(|length| length % BLOCK < 200 || length % 97 == 0) {
        let mut cut = image.clone();
        cut[LOG].truncate(length);
        let error = open(cut).unwrap_err();
        let kind = error.kind().name();
        assert!(["LogDamaged", "LogDiverged", "LogMissing"].contains(&kind), "cut at {length}: {error}");
    }
}

#[test]
fn a_damaged_log_can_be_given_up_and_what_comes_before_the_damage_is_kept() {
    let mut image = crashed(COMMITS);
    image[LOG][BLOCK * 4 + 300] ^= 1; // in the fourth batch
    assert_eq!(kind_of(open(image.clone())), "LogDamaged");
    let larder = FaultyDisk::holding(image, Plan::default()).open(still().discard_log(), true).unwrap();
    assert_eq!(count(&larder, COMMITS), 3);
    assert!(larder.recovery().unwrap().discarded.is_some());
    verified(&larder);
}

#[test]
fn a_log_that_is_missing_is_an_error_until_it_is_given_up() {
    let mut image = crashed(COMMITS);
    image[LOG].clear();
    assert_eq!(kind_of(open(image.clone())), "LogMissing");
    let disk = FaultyDisk::holding(image, Plan::default());
    let larder = disk.open(still().discard_log(), true).unwrap();
    assert_eq!(count(&larder, COMMITS), 0);
    larder.session("ana").unwrap().put("1", noise(1, 500)).unwrap();
    larder.close().unwrap();
    assert_eq!(open(disk.current()).unwrap().recovery(), None);
}

#[test]
fn logs_of_other_stores_and_other_times_are_refused() {
    let (one, other) = (crashed(COMMITS), crashed(COMMITS));
    for (store, log) in [(&one, &other), (&other, &one)] {
        assert_eq!(kind_of(open([store[STORE].clone(), log[LOG].clone()])), "LogDiverged");
    }

    // A store that was closed, and beside it the log of what came after.
    let disk = FaultyDisk::default();
    disk.open(still(), true).unwrap().close().unwrap();
    let closed = disk.store();
    let larder = disk.open(still(), true).unwrap();
    larder.session("ana").unwrap().put("1", noise(1, 500)).unwrap();
    let later = disk.durable();
    assert_eq!(kind_of(open([closed.clone(), later[LOG].clone()])), "LogDiverged");

    // A copy of the store from early in the life of the log, when the log does not reach back so far any more.
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    session.put("1", noise(1, 500)).unwrap();
    let early = disk.durable();
    for n in 0..40 {
        session.put("2", noise(n, 60_000)).unwrap();
    }
    let late = disk.durable();
    assert_eq!(kind_of(open([early[STORE].clone(), late[LOG].clone()])), "LogDiverged");

    // And the log of a sitting before: it was begun at another time.
    let disk = FaultyDisk::holding(later, Plan::default());
    let before = disk.durable();
    disk.open(still(), true).unwrap().close().unwrap();
    let larder = disk.open(still(), true).unwrap();
    larder.session("ana").unwrap().put("2", noise(2, 500)).unwrap();
    assert_eq!(kind_of(open([disk.durable()[STORE].clone(), before[LOG].clone()])), "LogDiverged");
}

#[test]
fn a_log_of_another_version_is_named() {
    let mut image = crashed(COMMITS);
    image[LOG][8] = 9;
    let error = open(image).unwrap_err();
    assert!(matches!(error.kind(), larder::ErrorKind::UnsupportedVersion { found: 9, max: 1 }), "{error}");
}

/// Puts what a crash left into files.
fn on_disk(image: &Image) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (store, log) = (directory.path().join("a.larder"), directory.path().join("a.larder-log"));
    fs::write(&store, &image[STORE]).unwrap();
    fs::write(&log, &image[LOG]).unwrap();
    (directory, store, log)
}

#[test]
fn an_inspector_sees_what_is_in_the_log_and_changes_no_byte() {
    let image = crashed(COMMITS);
    let (_directory, store, log) = on_disk(&image);
    for _ in 0..2 {
        let larder = still().open_read_only(&store).unwrap();
        assert_eq!(larder.recovery().unwrap().replayed, COMMITS);
        assert_eq!(count(&larder, COMMITS), COMMITS);
        verified(&larder);
        larder.close().unwrap();
        assert!(fs::read(&store).unwrap() == image[STORE] && fs::read(&log).unwrap() == image[LOG]);
    }
    let larder = Larder::open(&store).unwrap();
    assert_eq!(count(&larder, COMMITS), COMMITS);
    assert!(!log.exists(), "what it had is in the store");
}

#[cfg(unix)]
#[test]
fn a_store_finds_its_log_through_a_symbolic_link_and_says_where_it_should_be_through_a_hard_one() {
    let (directory, store, _) = on_disk(&crashed(COMMITS));
    let (soft, hard) = (directory.path().join("soft"), directory.path().join("hard.larder"));
    std::os::unix::fs::symlink(&store, &soft).unwrap();
    fs::hard_link(&store, &hard).unwrap();
    let error = Larder::open(&hard).unwrap_err();
    assert!(error.to_string().contains("hard.larder-log"), "{error}");
    assert_eq!(error.kind().name(), "LogMissing");
    assert_eq!(count(&Larder::open(&soft).unwrap(), COMMITS), COMMITS);
}

#[test]
fn what_is_in_the_place_of_the_log_and_is_none_is_not_touched() {
    let disk = FaultyDisk::default();
    disk.open(still(), true).unwrap().close().unwrap();
    let (_directory, store, log) = on_disk(&[disk.store(), b"my diary".to_vec()]);
    assert_eq!(kind_of(Larder::open(&store)), "LogDiverged");
    assert_eq!(fs::read(&log).unwrap(), b"my diary");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    assert_eq!(kind_of(Larder::open(&store)), "LogDiverged");
    fs::remove_dir(&log).unwrap();
    // One that was begun and never used goes without a word.
    fs::write(&log, vec![0; 8_192]).unwrap();
    assert_eq!(Larder::open(&store).unwrap().recovery(), None);
    assert!(!log.exists());
}

#[test]
fn a_log_that_is_set_aside_is_kept_under_another_name() {
    let mut image = crashed(COMMITS);
    image[LOG][BLOCK * 2 + 300] ^= 1;
    let (_directory, store, log) = on_disk(&image);
    assert_eq!(kind_of(Larder::open(&store)), "LogDamaged");
    let larder = still().discard_log().open(&store).unwrap();
    assert_eq!(count(&larder, COMMITS), 1);
    let aside = larder.recovery().unwrap().discarded.clone().unwrap();
    assert!(fs::read(aside).unwrap() == image[LOG] && !log.exists());
}

/// T07. A batch that could not be written was left with its padding, and what came behind it could not be read again: neither
/// after a crash, nor when the store started over, which took away a log that nobody had read.
#[test]
fn t07_what_follows_a_batch_that_found_no_room_is_read_again() {
    const PUTS: usize = 160;
    let payload = |number: usize| noise(number as u64 + 1, 20_000);
    let (mut met, mut all) = (0, 0);
    for write in 0.. {
        let plan = Plan { capacity: Some(1 << 30), ..Plan::default() };
        let disk = FaultyDisk::holding(Image::default(), plan);
        disk.open(still().reserve_bytes(0), true).unwrap().close().unwrap();
        let options = still().log_segment_bytes(8 << 20).reserve_bytes(4 << 20).durability(Durability::Lazy);
        let larder = disk.open(options, true).unwrap();
        let at = disk.calls(Call::Write) + write;
        let fault = Some(Fault::once(Call::Write, at).with(Failure::Full));
        disk.set_plan(Plan { fault, ..plan });
        let session = larder.session("ana").unwrap();
        // All of them in one batch.
        let submit = |number: usize| session.submit(|txn| txn.put(format!("k/{number}"), payload(number)));
        let tickets: Vec<_> = (0..PUTS).map(|number| (number, submit(number).unwrap().1)).collect();
        let put = tickets.into_iter().filter_map(|(number, ticket)| ticket.wait().is_ok().then_some(number));
        let put: Vec<usize> = put.collect();
        // If that is what finds no room, it does the next time.
        let is_flushed = larder.flush().is_ok() || larder.flush().is_ok();
        assert!(is_flushed, "write {write}");
        let is_met = disk.calls(Call::Write) > at;
        disk.set_plan(plan);
        for image in [disk.durable(), disk.current()] {
            let again = FaultyDisk::holding(image, Plan::default());
            let back = again.open(still(), true).unwrap_or_else(|error| panic!("write {write}: {error}"));
            verified(&back);
            let session = back.session("ana").unwrap();
            for number in &put {
                let found = session.get(format!("k/{number}")).unwrap().bytes().unwrap();
                assert!(found == payload(*number), "write {write}: put {number}");
            }
        }
        larder.close().unwrap();
        let closed = disk.open(still(), true).unwrap();
        let session = closed.session("ana").unwrap();
        put.iter().for_each(|number| drop(session.get(format!("k/{number}")).unwrap()));
        if !is_met {
            break;
        }
        met += 1;
        all += u32::from(put.len() == PUTS);
    }
    assert!(met >= 4 && all > 0, "{met} writes failed, after {all} of them all was stored");
}

/// T07, S4-2.3. Of a batch that was refused half-way, for want of room in the log or in the file that a segment had to wait
/// for, nothing comes up after a crash; one that may come up says so.
#[test]
fn t07_nothing_comes_up_of_a_batch_that_was_refused_half_way() {
    const TOGETHER: usize = 24;
    let payload = |number: usize| noise(number as u64 + 1, 50_000);
    let mut refused = 0;
    for segment_bytes in [512 << 10, 8 << 20] {
        for write in 0.. {
            let plan = Plan { capacity: Some(1 << 30), ..Plan::default() };
            let disk = FaultyDisk::holding(Image::default(), plan);
            let options = still().log_segment_bytes(segment_bytes).reserve_bytes(0);
            let larder = disk.open(options, true).unwrap();
            let session = larder.session("ana").unwrap();
            session.put("before", "x").unwrap();
            let at = disk.calls(Call::Write) + write;
            let fault = Fault::once(Call::Write, at).with(Failure::FullHalfWay);
            disk.set_plan(Plan { fault: Some(fault), ..plan });
            let submit =
                |number: usize| session.submit(|txn| txn.put(format!("k/{number}"), payload(number)));
            let tickets: Vec<_> = (0..TOGETHER).map_while(|number| submit(number).ok()).collect();
            let outcomes: Vec<_> = tickets.into_iter().map(|(_, ticket)| ticket.wait()).collect();
            // The process ends here.
            let back = open(disk.current()).unwrap_or_else(|error| panic!("write {write}: {error}"));
            verified(&back);
            let found = back.session("ana").unwrap();
            for (number, outcome) in outcomes.into_iter().enumerate() {
                let is_there = found.exists(format!("k/{number}")).unwrap();
                match outcome {
                    Ok(_) => assert!(is_there, "{segment_bytes}, write {write}: put {number} is lost"),
                    outcome if kind_of(outcome.clone()) == "StoreFull" => {
                        assert!(!is_there, "{segment_bytes}, write {write}: put {number} was refused");
                        refused += 1;
                    }
                    outcome => assert_eq!(kind_of(outcome), "OutcomeUnknown"),
                }
            }
            if disk.calls(Call::Write) <= at {
                break;
            }
        }
    }
    assert!(refused > 100, "{refused} were refused");
}

/// T07. A write to the log that was cut short where only zeros were missing is a commit that was refused, and stays so.
#[test]
fn t07_a_commit_that_was_refused_in_the_midst_of_its_write_does_not_come_up() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    session.put("a", "x").unwrap();
    let fault = Fault::once(Call::Write, disk.calls(Call::Write)).with(Failure::FullAtTheEnd);
    disk.set_plan(Plan { fault: Some(fault), ..Plan::default() });
    assert_eq!(kind_of(session.put("b", "y")), "StoreFull");
    // The process ends here.
    let back = open(disk.current()).unwrap();
    let session = back.session("ana").unwrap();
    assert!(session.exists("a").unwrap() && !session.exists("b").unwrap());
    verified(&back);
}

/// S4-2.3. Who asks again for what was committed without a sync, and wants it on disk, has it there.
#[test]
fn s4_2_3_a_commit_that_is_asked_for_again_is_as_durable_as_it_is_asked_to_be() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let synced = larder.session("ana").unwrap();
    synced.put("first", "x").unwrap();
    let lazy = synced.clone().durability(Durability::Lazy);
    let put = |session: &larder::Session| session.write_once("order 7", |txn| txn.put("a", "x"));
    assert!(put(&lazy).unwrap().value.is_some());
    let lost = open(disk.durable()).unwrap();
    assert!(!lost.session("ana").unwrap().exists("a").unwrap());
    assert!(put(&synced).unwrap().value.is_none());
    let kept = open(disk.durable()).unwrap();
    assert!(kept.session("ana").unwrap().exists("a").unwrap());
}
