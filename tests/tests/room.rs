//! A full disk: what was acknowledged stays, reading goes on, and deleting makes room again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use larder::{Durability, Error, Larder, Options, RestoreOptions, SnapshotOptions, restore};
use larder_tests::{FaultyDisk, LOG, Plan, Random, kind_of, still, verified};

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
            larder.snapshot(&elsewhere, &SnapshotOptions::new()).unwrap();
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
