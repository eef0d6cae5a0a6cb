//! A full disk: what was acknowledged stays, reading goes on, and deleting makes room again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use larder::{Durability, Error, Larder, Options, RestoreOptions, SnapshotOptions, Storage, restore};
use larder_layers::queue::{Message, QueueError, QueueSettings, Queues};
use larder_tests::{
    Call, Crash, Fault, FaultyDisk, FaultyStorage, LOG, Loss, Plan, Random, STORE, Step, Trace, kind_of,
    still, verified,
};

const MIB: u64 = 1 << 20;

fn options() -> Options {
    still().reserve_bytes(2 * MIB)
}

fn is_full(error: &Error) -> bool {
    matches!(error.kind().name(), "StoreFull" | "OutcomeUnknown")
}

/// Puts until there is no room any more; gives what was acknowledged.
fn fill(larder: &Larder, size: usize, model: &mut BTreeMap<String, Vec<u8>>, from: u64) -> u64 {
    let session = larder.session("ana").unwrap();
    for number in from..100_000 {
        let (key, payload) = (format!("fill/{number}"), Random::new(number).bytes(size));
        match session.put(&key, payload.clone()) {
            Ok(_) => drop(model.insert(key, payload)),
            Err(error) => {
                assert!(is_full(&error), "{error}");
                return number;
            }
        }
    }
    panic!("it never was full");
}

fn same(larder: &Larder, model: &BTreeMap<String, Vec<u8>>) {
    let snapshot = larder.root().unwrap().snapshot().unwrap();
    let keys: Vec<String> = snapshot.walk("").unwrap().map(|found| found.unwrap().0.to_string()).collect();
    assert!(keys.iter().eq(model.keys()), "{} keys are there, {} were acknowledged", keys.len(), model.len());
    for (key, payload) in model {
        assert!(snapshot.get(key).unwrap().bytes().unwrap() == payload.as_slice(), "{key}");
    }
}

#[test]
fn t07_a_full_disk_does_not_wedge_a_store() {
    for is_room_secret in [false, true] {
        for (size, capacity) in [(900, 9), (30_000, 14), (300_000, 20), (1_500_000, 40)] {
            let what = format!("payloads of {size}, {capacity} MiB, secret {is_room_secret}");
            let plan = Plan { capacity: Some(capacity * MIB), is_room_secret, ..Plan::default() };
            let disk = FaultyDisk::holding(Default::default(), plan);
            let larder = disk.open(options(), true).unwrap();
            let mut model = BTreeMap::new();
            let mut next = 0;
            for round in 0..3 {
                next = fill(&larder, size, &mut model, next);
                assert!(model.len() > 3, "{what}: {} fit", model.len());
                same(&larder, &model);
                let health = larder.health();
                assert!(health.writable && health.open, "{what}: {health:?}");
                // What nobody needs any more goes, one by one or in a transaction.
                let session = larder.session("ana").unwrap();
                let gone: Vec<String> = model.keys().step_by(2).cloned().collect();
                if round % 2 == 0 {
                    for key in &gone {
                        session.delete(key).unwrap_or_else(|error| panic!("{what}, round {round}: {error}"));
                    }
                } else {
                    session.write(|txn| gone.iter().try_for_each(|key| txn.delete(key).map(drop))).unwrap();
                }
                gone.iter().for_each(|key| drop(model.remove(key)));
                same(&larder, &model);
            }
            verified(&larder);
            larder.close().unwrap();
            let larder = disk.open(options(), true).unwrap();
            same(&larder, &model);
            verified(&larder);
        }
    }
}

#[test]
fn t07_a_large_removal_that_waits_for_no_disk_leaves_a_store_without_a_log_writable() {
    let plan = Plan { capacity: Some(14 * MIB), ..Plan::default() };
    let disk = FaultyDisk::holding(Default::default(), plan);
    let larder = disk.open(options(), false).unwrap();
    let mut model = BTreeMap::new();
    fill(&larder, 900, &mut model, 0);
    let session = larder.session("ana").unwrap();
    let lazy = larder.session("ana").unwrap().durability(Durability::Lazy);
    lazy.write(|txn| model.keys().try_for_each(|key| txn.delete(key).map(drop))).unwrap();
    larder.flush().unwrap();
    session.put("after", "leek").unwrap();
    same(&larder, &BTreeMap::from([("after".to_owned(), b"leek".to_vec())]));
    verified(&larder);
}

#[test]
fn what_is_lazy_and_visible_is_there_after_a_full_disk() {
    let plan = Plan { capacity: Some(10 * MIB), is_room_secret: true, ..Plan::default() };
    let disk = FaultyDisk::holding(Default::default(), plan);
    let larder = disk.open(options(), true).unwrap();
    let session = larder.session("ana").unwrap().durability(Durability::Lazy);
    let mut model = BTreeMap::new();
    for number in 0..20_000u64 {
        let (key, payload) = (format!("{number:05}"), Random::new(number).bytes(900));
        match session.put(&key, payload.clone()) {
            Ok(_) => drop(model.insert(key, payload)),
            Err(error) => {
                assert!(is_full(&error), "{error}");
                break;
            }
        }
    }
    assert!(model.len() < 20_000);
    session.delete("00000").unwrap();
    model.remove("00000");
    same(&larder, &model);
    larder.close().unwrap();
    same(&disk.open(options(), true).unwrap(), &model);
}

#[test]
fn expiry_snapshots_elsewhere_and_compaction_work_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::holding(Default::default(), Plan { capacity: Some(16 * MIB), ..Plan::default() });
    let larder = disk.open(options(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let draft = larder::Draft::from("soon").status(larder::Status::Ready);
    session.put("expires", draft.with(|annotation| annotation.expires(1_000_000))).unwrap();
    let mut model = BTreeMap::new();
    fill(&larder, 20_000, &mut model, 0);
    let refused = session.put("more", vec![0; 100]).unwrap_err();
    let larder::ErrorKind::StoreFull { used, limit, reserve, .. } = refused.kind() else {
        panic!("{refused}")
    };
    assert!(*used > 8 * MIB && *limit >= *used && *reserve <= 2 * MIB, "{refused:?}");
    assert_eq!(kind_of(session.log("expires", larder::LogKind::Info, "x".repeat(50_000))), "StoreFull");
    assert_eq!(kind_of(session.copy("fill/1", "copy")), "StoreFull");
    assert_eq!(kind_of(session.claim("k").for_at_most(std::time::Duration::from_secs(1))), "StoreFull");
    let health = larder.health();
    assert!(health.space.is_full && health.expiries_overdue == 1 && health.overdue_since == Some(1_000_000));
    assert_eq!(larder.sweep(10).unwrap().expired, 1);
    session.annotate("expires", larder::Annotation::new().tag("said")).unwrap();
    let path = folder.path().join("snapshot");
    larder.snapshot(&path, &SnapshotOptions::new()).unwrap();
    restore(&[&path], folder.path().join("back.larder"), &RestoreOptions::new()).unwrap();
    session.delete_tree("fill").unwrap();
    session.put("more", vec![0; 100]).unwrap();
    verified(&larder);
}

#[test]
fn a_limit_is_kept_and_a_reserve_that_cannot_be_had_leaves_deleting() {
    let disk = FaultyDisk::default();
    let larder = disk.open(options().file_bytes_max(10 * MIB), true).unwrap();
    let mut model = BTreeMap::new();
    let next = fill(&larder, 40_000, &mut model, 0);
    assert!(larder.health().space.used_bytes <= 10 * MIB);
    larder.session("ana").unwrap().delete("fill/0").unwrap();
    model.remove("fill/0");
    same(&larder, &model);
    larder.close().unwrap();
    // More of a reserve than there is of a disk.
    let plan = Plan { capacity: Some(14 * MIB), ..Plan::default() };
    let disk = FaultyDisk::closed(disk.store(), plan);
    let larder = disk.open(still().reserve_bytes(100 * MIB), true).unwrap();
    let health = larder.health();
    assert!(health.space.is_full && health.space.reserve_bytes == 0 && health.writable, "{health:?}");
    let session = larder.session("ana").unwrap();
    assert_eq!(kind_of(session.put("more", "x")), "StoreFull");
    session.delete("fill/1").unwrap();
    same(&larder, &{
        model.remove("fill/1");
        model.clone()
    });
    disk.set_plan(Plan { capacity: Some(1_000 * MIB), ..Plan::default() });
    fill_some(&larder, next);
    assert!(!larder.health().space.is_full);
}

fn fill_some(larder: &Larder, from: u64) {
    let session = larder.session("ana").unwrap();
    for number in from..from + 50 {
        session.put(format!("fill/{number}"), Random::new(number).bytes(40_000)).unwrap();
    }
}

/// A disk of its own, where this is allowed.
struct Mounted(PathBuf);

impl Mounted {
    fn new(folder: &tempfile::TempDir, mebibytes: u64) -> Option<Self> {
        let path = folder.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn t07_on_a_real_disk_that_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::new(&folder, 24) else {
        eprintln!("not allowed to mount a disk: nothing was shown");
        return;
    };
    for (number, size) in [800, 20_000, 1_300_000].into_iter().enumerate() {
        let path = disk.0.join(format!("{number}.larder"));
        let larder = Options::new().reserve_bytes(3 * MIB).log_segment_bytes(1 << 20).open(&path).unwrap();
        let mut model = BTreeMap::new();
        let mut next = 0;
        for round in 0..3 {
            next = fill(&larder, size, &mut model, next);
            same(&larder, &model);
            let elsewhere = folder.path().join(format!("{number}-{round}.snapshot"));
            // Its view may be lost once, when the store's thread starts over.
            let taken = larder.snapshot(&elsewhere, &SnapshotOptions::new());
            if let Err(error) = taken {
                assert_eq!(error.kind().name(), "Interrupted");
                larder.snapshot(&elsewhere, &SnapshotOptions::new()).unwrap();
            }
            let session = larder.session("ana").unwrap();
            let gone: Vec<String> = model.keys().step_by(2).cloned().collect();
            for key in &gone {
                session.delete(key).unwrap();
                model.remove(key);
            }
        }
        larder.compact(None).unwrap();
        same(&larder, &model);
        larder.close().unwrap();
        let larder = Larder::open(&path).unwrap();
        same(&larder, &model);
        verified(&larder);
        larder.close().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

/// T07. Closing a store that had just become full took its log away, with what was acknowledged and could not be brought in
/// without starting over.
#[test]
fn t07_what_was_acknowledged_before_the_disk_was_full_is_there_after_closing() {
    let mut waited = 0;
    for (size, capacity) in (17_000..60_000).step_by(4_300).flat_map(|size| [(size, 9), (size, 14)]) {
        let what = format!("payloads of {size}, {capacity} MiB");
        let plan = Plan { capacity: Some(capacity * MIB), ..Plan::default() };
        let disk = FaultyDisk::holding(Default::default(), plan);
        let larder = disk.open(options(), true).unwrap();
        let mut model = BTreeMap::new();
        fill(&larder, size, &mut model, 0);
        let closed = larder.close();
        let image = disk.current();
        waited += u32::from(closed.is_err() || !image[LOG].is_empty());
        let back = FaultyDisk::holding(image, Plan::default());
        let larder = back.open(options(), true).unwrap_or_else(|error| panic!("{what}: {error}"));
        same(&larder, &model);
        verified(&larder);
    }
    println!("{waited} were closed with their log");
}

/// T07. A transaction that is too large for the log went into the file in front of what waited for a start over, which was
/// lost with it.
#[test]
fn t07_what_is_too_large_for_the_log_is_put_in_front_of_nothing() {
    for size in [17_000, 24_000, 33_000, 41_000] {
        let plan = Plan { capacity: Some(24 * MIB), ..Plan::default() };
        let disk = FaultyDisk::holding(Default::default(), plan);
        let larder = disk.open(options(), true).unwrap();
        let session = larder.session("ana").unwrap();
        for part in 0..8 {
            let put = |txn: &mut larder::WriteTxn<'_>| {
                (0..1_000).try_for_each(|number| {
                    let draft = larder::Draft::from("x").tag("a tag of forty bytes, so that there is much");
                    txn.put(format!("tree/{part}/{number:04}"), draft).map(drop)
                })
            };
            session.write(put).unwrap();
        }
        let mut model = BTreeMap::new();
        fill(&larder, size, &mut model, 0);
        let removed = session.delete_tree("tree");
        let in_tree = session.snapshot().unwrap().walk("tree").unwrap().count();
        assert_eq!(in_tree, if removed.is_ok() { 0 } else { 8_000 }, "{size}: {removed:?}");
        let _ = larder.close();
        let back = FaultyDisk::holding(disk.current(), Plan::default());
        let larder = back.open(options(), true).unwrap();
        larder.session("ana").unwrap().delete_tree("tree").unwrap();
        same(&larder, &model);
        verified(&larder);
    }
}

/// The keys that a commit of [`fill_together`] writes.
fn together() -> impl Iterator<Item = String> {
    (0..120).map(|number| format!("together/{number:03}"))
}

/// Commits what belongs together, lazily, and uploads something now and then, until there is no room any more; gives the last
/// that was acknowledged.
fn fill_together(session: &larder::Session, from: u64) -> u64 {
    for commit in from..100_000 {
        if commit.is_multiple_of(6)
            && let Err(error) = session.put(format!("large/{commit}"), Random::new(commit).bytes(1_200_000))
        {
            assert!(is_full(&error), "{error}");
            return commit - 1;
        }
        let put = |txn: &mut larder::WriteTxn<'_>| {
            txn.put(
                format!("alone/{commit:05}"),
                Random::new(commit).bytes(500 + 900 * (commit as usize % 7)),
            )?;
            together().try_for_each(|key| {
                let mut bytes = Random::new(commit).bytes(200);
                bytes[..8].copy_from_slice(&commit.to_be_bytes());
                txn.put(key, bytes).map(drop)
            })
        };
        if let Err(error) = session.clone().durability(Durability::Lazy).write(put) {
            assert!(is_full(&error), "{error}");
            return commit - 1;
        }
    }
    panic!("it never was full");
}

/// Gives the commit of which everything is that belongs together.
fn found_together(larder: &Larder) -> Result<u64, String> {
    let snapshot = larder.root().unwrap().snapshot().unwrap();
    let mut found: Vec<u64> = together()
        .map(|key| match snapshot.get(&key) {
            Ok(asset) => u64::from_be_bytes(*asset.bytes().unwrap().first_chunk().unwrap()),
            Err(_) => 0,
        })
        .collect();
    let alone = snapshot.walk("alone").unwrap().filter(Result::is_ok).count() as u64;
    found.dedup();
    match found.as_slice() {
        [one] if *one == alone => Ok(alone),
        other => Err(format!("{alone} are alone, together are {other:?}")),
    }
}

/// T07, T02. Starting over put commits into the file a part at a time that only memory had: a crash in there left half of one.
#[test]
fn t07_a_crash_while_a_full_store_starts_over_leaves_whole_commits() {
    let (mut images, mut started_over) = (0, 0);
    for (capacity, reserve) in [(5, 0), (8, 0), (8, 1), (10, 2)] {
        let plan = Plan { capacity: Some(capacity * MIB), is_room_secret: true, ..Plan::default() };
        let disk = FaultyDisk::holding(Default::default(), plan);
        let larder = disk.open(still().reserve_bytes(reserve * MIB), true).unwrap();
        let session = larder.session("ana").unwrap();
        let acknowledged = fill_together(&session, 1);
        let base = disk.current();
        disk.set_plan(Plan { is_recorded: true, ..plan });
        drop(session.delete("not/there"));
        let _ = session.put("other", "x");
        // Without any room it may not be done; then nothing can be read either.
        started_over += u32::from(found_together(&larder) == Ok(acknowledged));
        let trace = Trace { base, steps: disk.take_steps() };
        // Behind each sync, and here and there in between.
        let is_behind_sync =
            |at: usize| at.checked_sub(1).is_some_and(|at| matches!(trace.steps[at], Step::Sync(_)));
        let apart = (trace.steps.len() / 16).max(1);
        for at in (0..=trace.steps.len()).filter(|at| is_behind_sync(*at) || at.is_multiple_of(apart)) {
            for loss in [Loss::Nothing, Loss::Prefix] {
                let image = trace.image(&Crash { at, loss, seed: at as u64 });
                let back = FaultyDisk::holding(image, Plan::default());
                let larder =
                    back.open(options(), true).unwrap_or_else(|error| panic!("{capacity}, {at}: {error}"));
                let found = found_together(&larder)
                    .unwrap_or_else(|what| panic!("{capacity}, {at}, {loss:?}: {what}"));
                assert!(found <= acknowledged + 1, "{found} of {acknowledged}");
                verified(&larder);
                images += 1;
            }
        }
    }
    assert!(images > 100 && started_over > 0, "{images} images, {started_over} started over");
}

/// S4-2.3, T05. A store that had failed was closed as if all were well, without what only memory had.
#[test]
fn s4_2_3_what_is_lazy_is_there_after_closing_a_store_that_failed_or_closing_says_so() {
    for is_lasting in [false, true] {
        let disk = FaultyDisk::default();
        let larder = disk.open(options(), true).unwrap();
        let session = larder.session("ana").unwrap();
        session.put("first", "x").unwrap();
        let lazy = session.clone().durability(Durability::Lazy);
        for number in 0..20 {
            lazy.put(format!("alone/{number:02}"), "x").unwrap();
        }
        let fault = Fault::once(Call::Write, disk.calls(Call::Write));
        disk.set_plan(Plan {
            fault: Some(if is_lasting { fault.lasting() } else { fault }),
            ..Plan::default()
        });
        assert_eq!(kind_of(session.put("last", "x")), "OutcomeUnknown");
        assert_eq!(kind_of(session.put("more", "x")), "Poisoned");
        let closed = larder.close();
        assert_eq!(closed.is_err(), is_lasting, "{closed:?}");
        let larder = FaultyDisk::holding(disk.durable(), Plan::default()).open(options(), true).unwrap();
        let there = larder.root().unwrap().names("").unwrap();
        let expected: &[&str] = if is_lasting { &["first"] } else { &["alone", "first"] };
        assert_eq!(there, expected);
        let alone = larder.root().unwrap().snapshot().unwrap().walk("alone").unwrap().count();
        assert_eq!(alone, if is_lasting { 0 } else { 20 });
    }
}

/// S4-2.3. What was visible when a store failed for good was only in memory until it was closed.
#[test]
fn s4_2_3_what_is_lazy_is_on_disk_after_a_flush_of_a_store_that_failed() {
    let disk = FaultyDisk::default();
    let larder = disk.open(options(), true).unwrap();
    let session = larder.session("ana").unwrap();
    session.put("first", "x").unwrap();
    let window = Durability::Window { milliseconds: 5 };
    session.clone().durability(window).put("visible", "x").unwrap();
    disk.set_plan(Plan { fault: Some(Fault::once(Call::Write, disk.calls(Call::Write))), ..Plan::default() });
    assert_eq!(kind_of(session.put("last", "x")), "OutcomeUnknown");
    larder.flush().unwrap();
    assert_eq!(kind_of(session.put("more", "x")), "Poisoned");
    let again = FaultyDisk::holding(disk.durable(), Plan::default()).open(options(), true).unwrap();
    assert_eq!(again.root().unwrap().names("").unwrap(), ["first", "visible"]);
}

/// A disk that says how much room it has by itself, and can keep nothing free: as all are to systems other than Linux.
#[derive(Debug)]
struct Plain(FaultyStorage, fn() -> Option<u64>);

impl Storage for Plain {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(offset, bytes)
    }

    fn room(&self) -> Option<u64> {
        self.1()
    }
}

fn on_plain_disks(disk: &FaultyDisk, room: fn() -> Option<u64>) -> Larder {
    let (store, log) = (Plain(disk.file(STORE), room), Plain(disk.file(LOG), room));
    still().open_storages(Box::new(store), Arc::new(log)).unwrap()
}

/// T11. Nobody was left to carry what came behind a commit after which it panicked.
#[test]
fn t11_a_storage_that_panics_when_it_is_asked_for_room_says_nothing_of_it() {
    let larder = on_plain_disks(&FaultyDisk::default(), || panic!("no idea"));
    let session = larder.session("ana").unwrap();
    for number in 0..3 {
        // Room is looked for after so many bytes.
        session.put(format!("own/{number}"), Random::new(number).bytes(100_000)).unwrap();
    }
    assert_eq!(larder.health().space.reserve_bytes, 0);
    verified(&larder);
}

/// T07. Such a store was full from the beginning, and for ever.
#[test]
fn t07_where_nothing_can_be_kept_free_there_is_no_reserve_and_all_goes_on() {
    let larder = on_plain_disks(&FaultyDisk::default(), || Some(1 << 30));
    larder.root().unwrap().put("a", "x").unwrap();
    let health = larder.health();
    assert!(health.space.reserve_bytes == 0 && health.space.reserve_bytes_wanted > 0, "{health:?}");
}

/// Reads bytes that do not compress, and does something half-way.
struct Interrupted<'a> {
    left: usize,
    at: usize,
    then: Option<Box<dyn FnOnce() + 'a>>,
}

impl std::io::Read for Interrupted<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let length = out.len().min(self.left);
        out[..length].copy_from_slice(&Random::new(self.left as u64).bytes(length));
        self.left -= length;
        if self.left < self.at {
            self.then.take().into_iter().for_each(|then| then());
        }
        Ok(length)
    }
}

/// T07. What an upload had staged when it was refused stayed until the next open, where room was wanted most.
#[test]
fn t07_what_a_refused_upload_had_staged_is_given_back() {
    for is_checkpointed in [false, true] {
        let disk =
            FaultyDisk::holding(Default::default(), Plan { capacity: Some(24 * MIB), ..Plan::default() });
        let larder = disk.open(options(), true).unwrap();
        let session = larder.session("ana").unwrap();
        for round in 0..4 {
            let what = format!("round {round}, with a checkpoint: {is_checkpointed}");
            // What is staged at the same time, and committed, makes durable all that is staged.
            let put = || drop(session.put("other", Random::new(round).bytes(1_500_000)).unwrap());
            let then: Option<Box<dyn FnOnce()>> = if is_checkpointed { Some(Box::new(put)) } else { None };
            let mut reader = Interrupted { left: 30 * MIB as usize, at: 22 * MIB as usize, then };
            let key = larder::Key::parse("large").unwrap();
            let error = session.prepare(&key, &mut reader, &"".into()).unwrap_err();
            assert!(is_full(&error), "{what}: {error}");
            assert!(!session.delete("not/there").unwrap().value, "{what}");
            let payload = Random::new(round).bytes(9 * MIB as usize);
            session.put("fits", payload.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(session.get("fits").unwrap().bytes().unwrap() == payload.as_slice());
            session.delete("fits").unwrap();
            verified(&larder);
        }
    }
}

#[test]
fn t07_a_store_in_memory_with_a_limit_is_full_and_goes_on() {
    for (limit, size) in [(16 * MIB, 30), (16 * MIB, 900), (16 * MIB, 30_000), (32 * MIB, 1_500_000)] {
        let options = still().file_bytes_max(limit).reserve_bytes(MIB);
        let larder = options.open_in_memory().unwrap();
        let session = larder.session("ana").unwrap();
        let (mut model, mut next) = (BTreeMap::new(), 0);
        for _ in 0..2 {
            next = fill(&larder, size, &mut model, next);
            same(&larder, &model);
            let health = larder.health();
            assert!(health.writable && health.open, "{limit}, {size}: {health:?}");
            assert!(health.space.used_bytes <= 2 * limit, "{limit}, {size}: {health:?}");
            for key in std::mem::take(&mut model).keys() {
                assert!(session.delete(key).unwrap().value);
            }
            larder.flush().unwrap();
            session.put("more", vec![0; 100]).unwrap();
            session.delete("more").unwrap();
            same(&larder, &model);
        }
        verified(&larder);
    }
}

#[test]
fn t07_a_queue_that_is_purged_makes_room() {
    let larder = still().file_bytes_max(16 * MIB).reserve_bytes(MIB).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let queue = Queues::at("queues").unwrap().queue("jobs").unwrap();
    session.try_write(|txn| queue.create(txn, &QueueSettings::default())).unwrap();
    let batch = |from: u64| -> Vec<Message> {
        (from..from + 16).map(|n| Message::new(Random::new(n).bytes(4_096))).collect()
    };
    for round in 0..2 {
        let mut count = 0;
        let refused = loop {
            match session.try_write(|txn| {
                batch(count).into_iter().try_for_each(|message| queue.enqueue(txn, message).map(drop))
            }) {
                Ok(_) => count += 16,
                Err(QueueError::Store(error)) => break error,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(is_full(&refused) && count > 200, "round {round}: {count}, {refused}");
        let purged = session.try_write(|txn| queue.purge(txn)).unwrap();
        assert_eq!(purged.value, count, "round {round}");
        larder.flush().unwrap();
        session.put("more", vec![0; 100]).unwrap();
    }
    verified(&larder);
}
