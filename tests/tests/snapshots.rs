//! Snapshots: full, of a part, of what changed; what comes back from them, and what is never taken from a damaged one.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::format::Operation;
use larder::{
    Draft, Durability, Options, RestoreOptions, SnapshotFile, SnapshotInfo, SnapshotKind, SnapshotOptions,
    SnapshotPolicy, restore,
};
use larder_tests::{FaultyDisk, Lab, Plan, Random, Workload, dump, kind_of, still, verified};
use proptest::prelude::*;

/// The rows that one dump has and the other has not, for people.
fn difference(left: &[u8], right: &[u8]) -> Vec<String> {
    let rows = |dump: &[u8]| -> BTreeSet<String> {
        let content = bytes::Bytes::from(zstd::decode_all(dump).unwrap());
        let (mut at, mut rows) = (144, BTreeSet::new());
        while let Ok(operation) = Operation::decode(&content, &mut at) {
            rows.insert(format!("{operation:?}"));
        }
        rows
    };
    let (left, right) = (rows(left), rows(right));
    let only = |side: &str, rows: &BTreeSet<String>, other: &BTreeSet<String>| {
        rows.difference(other).map(|row| format!("{side}: {row}")).collect::<Vec<_>>()
    };
    [only("before", &left, &right), only("restored", &right, &left)].concat()
}

fn full() -> SnapshotOptions {
    SnapshotOptions::new()
}

fn as_it_was() -> RestoreOptions {
    RestoreOptions::new()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn x_1_x_5_a_snapshot_and_its_increments_give_the_same_rows_byte_by_byte(
        seed in any::<u64>(),
        parts in prop::collection::vec(0usize..40, 1..5),
    ) {
        let lab = Lab::new();
        let larder = lab.open("live.larder");
        let mut workload = Workload::new(seed);
        let mut made: Vec<(PathBuf, SnapshotInfo)> = Vec::new();
        for (number, steps) in parts.iter().enumerate() {
            for _ in 0..*steps {
                workload.step(&larder, &lab.clock).unwrap();
            }
            let path = lab.path(&format!("{number}.snapshot"));
            let options = match made.last() {
                None => full(),
                Some((_, base)) => full().since(base.clone()),
            };
            let report = larder.snapshot(&path, &options).unwrap();
            SnapshotFile::open(&path).unwrap().verify(2, None).unwrap();
            made.push((path, report.info));
        }
        verified(&larder);
        let paths: Vec<&Path> = made.iter().map(|(path, _)| path.as_path()).collect();
        restore(&paths, lab.path("back.larder"), &as_it_was()).unwrap();
        let back = lab.open("back.larder");
        verified(&back);
        prop_assert_eq!(larder.info().unwrap().state, back.info().unwrap().state);
        let (before, after) = (dump(&larder), dump(&back));
        prop_assert!(before == after, "{:#?}", difference(&before, &after));
        // And it goes on as the other does.
        larder.root().unwrap().put("next", "x").unwrap();
        back.root().unwrap().put("next", "x").unwrap();
        prop_assert_eq!(larder.info().unwrap().state, back.info().unwrap().state);
    }
}

#[test]
fn a_snapshot_is_a_stream_of_zstd_frames_and_does_not_depend_on_threads() {
    let lab = Lab::new();
    let larder = lab.filled("live.larder", 3, 300);
    let one = dump(&larder);
    let mut three = Vec::new();
    let report = larder.snapshot_into(&mut three, &full().threads(3)).unwrap();
    assert!(one == three);
    assert_eq!(report.bytes, one.len() as u64);
    assert_eq!(zstd::decode_all(one.as_slice()).unwrap().len() as u64, report.content_bytes);
}

#[test]
fn a_snapshot_is_of_one_commit_while_others_write() {
    let lab = Lab::new();
    let larder = Options::new().durability(Durability::Lazy).open(lab.path("live.larder")).unwrap();
    let session = larder.session("ana").unwrap();
    for number in 0..2_000 {
        session.put(format!("a/{number}"), number.to_string()).unwrap();
    }
    let going = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while going.load(Ordering::Relaxed) {
                number += 1;
                // Two that always agree.
                let pair = |txn: &mut larder::WriteTxn<'_>| {
                    txn.put("pair/left", number.to_string())?;
                    txn.put("pair/right", number.to_string()).map(drop)
                };
                session.write(pair).unwrap();
            }
        });
        for round in 0..5 {
            let (path, back) = (lab.path(&format!("{round}")), lab.path(&format!("{round}.larder")));
            larder.snapshot(&path, &full().threads(2)).unwrap();
            restore(&[&path], &back, &as_it_was()).unwrap();
            let back = lab.options().open(&back).unwrap();
            verified(&back);
            let session = back.root().unwrap();
            let text = |key: &str| session.get(key).ok().map(|asset| asset.bytes().unwrap());
            assert_eq!(text("pair/left"), text("pair/right"));
            assert_eq!(back.statistics().unwrap().by_status.len(), 1);
        }
        going.store(false, Ordering::Relaxed);
    });
}

#[test]
fn what_is_below_a_place_is_restored_as_a_store_of_its_own() {
    let lab = Lab::new();
    let larder = lab.open("live.larder");
    let session = larder.session("ana").unwrap();
    let large = Random::new(1).bytes(70_000);
    session.put("menus/friday", Draft::from(large.clone()).tag("fish")).unwrap();
    session.put("menus/monday/lunch", "soup").unwrap();
    session.put("menus-old", "no").unwrap();
    session.put("stock/fish", Draft::from(large.clone()).tag("fish")).unwrap();
    let path = lab.path("menus.snapshot");
    let report = larder.snapshot(&path, &full().below("menus").unwrap()).unwrap();
    assert_eq!((report.info.kind(), report.info.prefix().unwrap().as_str()), (SnapshotKind::Prefix, "menus"));
    restore(&[&path], lab.path("back.larder"), &as_it_was()).unwrap();
    let back = lab.open("back.larder");
    verified(&back);
    let there = back.root().unwrap();
    assert_eq!(there.get("menus/friday").unwrap().bytes().unwrap(), large);
    assert_eq!(there.find_by_tag("fish").unwrap().len(), 1);
    assert!(!there.exists("menus-old").unwrap() && !there.exists("stock/fish").unwrap());
    assert_eq!(back.statistics().unwrap().total.assets, 2);
    assert_ne!(back.info().unwrap().store_id, larder.info().unwrap().store_id);
    assert_eq!(kind_of(larder.snapshot(lab.path("no"), &full().since(report.info))), "SnapshotMismatch");
}

#[test]
fn an_increment_is_as_large_as_what_changed() {
    let lab = Lab::new();
    let larder = lab.open("live.larder");
    let session = larder.session("ana").unwrap().durability(Durability::Lazy);
    for number in 0..200 {
        session.put(format!("big/{number}"), Random::new(number).bytes(40_000)).unwrap();
    }
    let base = larder.snapshot(lab.path("full"), &full()).unwrap();
    for number in 0..10 {
        session.annotate(format!("big/{number}"), larder::Annotation::new().tag("seen")).unwrap();
    }
    session.put("big/new", Random::new(7_777).bytes(40_000)).unwrap();
    let increment = larder.snapshot(lab.path("more"), &full().since(base.info.clone())).unwrap();
    assert!(base.bytes > 8_000_000 && increment.bytes < 60_000, "{} and {}", base.bytes, increment.bytes);
    // Nothing happened: an increment all the same, and one that can be gone on with.
    let nothing = larder.snapshot(lab.path("none"), &full().since(increment.info.clone())).unwrap();
    assert!(nothing.info.follows(&increment.info) && !nothing.info.follows(&base.info));
    let chain = [lab.path("full"), lab.path("more"), lab.path("none")];
    restore(&chain, lab.path("back.larder"), &as_it_was()).unwrap();
    assert!(dump(&lab.open("back.larder")) == dump(&larder));
}

#[test]
fn snapshots_that_do_not_follow_one_another_are_refused() {
    let lab = Lab::new();
    let larder = lab.filled("live.larder", 5, 50);
    let session = larder.root().unwrap();
    let first = larder.snapshot(lab.path("1"), &full()).unwrap().info;
    session.put("one", "x").unwrap();
    let second = larder.snapshot(lab.path("2"), &full().since(first.clone())).unwrap().info;
    session.put("two", "x").unwrap();
    larder.snapshot(lab.path("3"), &full().since(second)).unwrap();
    let other = still().open(lab.path("other.larder")).unwrap();
    other.root().unwrap().put("one", "x").unwrap();
    let foreign = other.snapshot(lab.path("foreign"), &full()).unwrap().info;
    let try_all = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| lab.path(name)).collect();
        kind_of(restore(&paths, lab.path("back.larder"), &as_it_was()))
    };
    for wrong in [
        &["1", "3"][..],
        &["2", "3"],
        &["1", "3", "2"],
        &["1", "2", "2"],
        &["1", "1"],
        &["foreign", "2"],
        &[],
    ] {
        assert_eq!(try_all(wrong), "SnapshotMismatch", "{wrong:?}");
    }
    assert_eq!(try_all(&["4"]), "NoSuchFile");
    assert_eq!(kind_of(larder.snapshot(lab.path("4"), &full().since(foreign))), "SnapshotMismatch");
    // Another history of the same store: it went back, and on from there.
    larder.close().unwrap();
    restore(&[lab.path("1")], lab.path("back.larder"), &as_it_was()).unwrap();
    let back = lab.open("back.larder");
    lab.clock.advance(5);
    back.root().unwrap().put("elsewhere", "y").unwrap();
    let diverged = back.snapshot(lab.path("d"), &full().since(first)).unwrap().info;
    assert!(try_all(&["1", "d", "3"]) == "SnapshotMismatch");
    let larder = lab.open("live.larder");
    assert_eq!(kind_of(larder.snapshot(lab.path("5"), &full().since(diverged))), "SnapshotMismatch");
}

#[test]
fn what_is_there_is_never_replaced_and_what_was_given_up_leaves_nothing() {
    let lab = Lab::new();
    let larder = lab.filled("live.larder", 6, 120);
    std::fs::write(lab.path("taken"), "mine").unwrap();
    assert_eq!(kind_of(larder.snapshot(lab.path("taken"), &full())), "AlreadyExists");
    larder.snapshot(lab.path("good"), &full()).unwrap();
    assert_eq!(kind_of(restore(&[lab.path("good")], lab.path("taken"), &as_it_was())), "AlreadyExists");
    assert_eq!(std::fs::read(lab.path("taken")).unwrap(), b"mine");
    let before = lab.names();
    let steps = Arc::new(AtomicU64::new(0));
    let watch: larder::Watch = Arc::new(move |_| match steps.fetch_add(1, Ordering::Relaxed) {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert_eq!(kind_of(larder.snapshot(lab.path("half"), &full().watch(Arc::clone(&watch)))), "Aborted");
    let options = as_it_was().watch(watch);
    assert_eq!(kind_of(restore(&[lab.path("good")], lab.path("half.larder"), &options)), "Aborted");
    assert_eq!(kind_of(larder.snapshot(lab.path("no/folder"), &full())), "NoSuchFile");
    assert_eq!(lab.names(), before);
}

#[test]
fn t23_no_damage_to_a_snapshot_reaches_a_store() {
    let lab = Lab::new();
    let larder = lab.open("live.larder");
    let session = larder.session("ana").unwrap();
    session.put("soup.txt", Draft::from("leek").tag("hot")).unwrap();
    session.put("noise.bin", Random::new(4).bytes(3_000)).unwrap();
    session.put("pie.txt", "apple ".repeat(300)).unwrap();
    let good = dump(&larder);
    let before = lab.names();
    let path = lab.path("damaged");
    let mut refused = 0;
    let mut check = |bytes: &[u8], what: &dyn Fn() -> String| {
        std::fs::write(&path, bytes).unwrap();
        let verified = SnapshotFile::open(&path).and_then(|snapshot| snapshot.verify(1, None));
        assert!(verified.is_err(), "{}: not noticed", what());
        refused += 1;
        if refused % 50 == 0 {
            assert!(
                restore(&[&path], lab.path("back.larder"), &as_it_was()).is_err(),
                "{}: restored",
                what()
            );
        }
        std::fs::remove_file(&path).unwrap();
    };
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        check(&flipped, &|| format!("bit {} of byte {at}", at % 8));
        check(&good[..at], &|| format!("cut off after {at} bytes"));
    }
    for tail in [&[0][..], &good] {
        check(&[&good[..], tail].concat(), &|| "bytes behind the end".to_owned());
    }
    // Pieces that are left out, doubled, swapped, or of another snapshot.
    let pieces = pieces_of(&good);
    session.put("soup.txt", Draft::from("fish").tag("hot")).unwrap();
    let other = dump(&larder);
    let others = pieces_of(&other);
    for at in 0..pieces.len() {
        let mut without = pieces.clone();
        without.remove(at);
        check(&without.concat(), &|| format!("without piece {at}"));
        let mut doubled = pieces.clone();
        doubled.insert(at, pieces[at]);
        check(&doubled.concat(), &|| format!("piece {at} twice"));
        let mut swapped = pieces.clone();
        swapped.swap(at, (at + 1) % pieces.len());
        check(&swapped.concat(), &|| format!("piece {at} and the next swapped"));
        if pieces[at] != others[at] {
            let mut spliced = pieces.clone();
            spliced[at] = others[at];
            check(&spliced.concat(), &|| format!("piece {at} of another snapshot"));
        }
    }
    assert_eq!(lab.names(), before);
}

fn pieces_of(snapshot: &[u8]) -> Vec<&[u8]> {
    let mut rest = snapshot;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let frame = u32::from_le_bytes(rest[24..28].try_into().unwrap()) as usize;
        let (piece, after) = rest.split_at(80 + frame);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[test]
fn t44_a_new_epoch_never_gives_out_what_was_given_out() {
    let lab = Lab::new();
    let larder = lab.open("live.larder");
    let session = larder.session("ana").unwrap();
    let hour = std::time::Duration::from_secs(3_600);
    let early = session.write(|txn| txn.claim("part", hour, None)).unwrap().value;
    larder.snapshot(lab.path("s"), &full()).unwrap();
    // What the restored store knows nothing of.
    let lost = session.write(|txn| txn.claim("other", hour, None)).unwrap().value;
    let last = session.put("late", "x").unwrap().commit;
    larder.close().unwrap();
    restore(&[lab.path("s")], lab.path("back.larder"), &as_it_was().new_epoch()).unwrap();
    let back = lab.open("back.larder");
    verified(&back);
    let there = back.session("ana").unwrap();
    for (key, fence) in [("part", early), ("other", lost)] {
        assert_eq!(
            kind_of(there.resume_claim(key, fence).and_then(|claim| {
                match claim.put("stale")? {
                    larder::Fenceable::Done(_) => Ok("stored"),
                    _ => Err(larder::Error::abort("fenced")),
                }
            })),
            "Aborted",
            "{key}"
        );
    }
    let next = there.write(|txn| txn.claim("part", hour, None)).unwrap();
    assert!(next.value > lost && next.commit.sequence > last.sequence);
    assert_eq!(kind_of(there.feed_since(last.sequence, 10)), "Lagged");
    assert_eq!(there.feed_since(next.commit.sequence - 1, 10).unwrap().len(), 1);
    // And again: the epoch after that one.
    back.snapshot(lab.path("s2"), &full()).unwrap();
    restore(&[lab.path("s2")], lab.path("again.larder"), &as_it_was().new_epoch()).unwrap();
    let again = lab.open("again.larder").session("ana").unwrap();
    assert!(again.write(|txn| txn.claim("part", hour, None)).unwrap().value > next.value);
}

#[test]
fn s4_1_1_2_a_policy_makes_snapshots_when_they_are_due_and_keeps_some() {
    let lab = Lab::new();
    let folder = lab.path("snapshots");
    std::fs::create_dir(&folder).unwrap();
    let larder = lab.open("live.larder");
    let session = larder.session("ana").unwrap();
    let policy =
        SnapshotPolicy::new(&folder).every_commits(10).every_micros(1_000_000).increments(2).chains(2);
    assert_eq!(larder.commits_since_snapshot(), None);
    let first = policy.run(&larder).unwrap().expect("there was none");
    assert_eq!((first.1.info.kind(), larder.commits_since_snapshot()), (SnapshotKind::Full, Some(0)));
    assert!(policy.run(&larder).unwrap().is_none());
    let mut kinds = Vec::new();
    for number in 0..105 {
        session.put(format!("n/{}", number % 7), number.to_string()).unwrap();
        if let Some((_, report)) = policy.run(&larder).unwrap() {
            kinds.push(report.info.kind().name());
        }
    }
    let (i, f) = ("increment", "full");
    assert_eq!(kinds, [i, i, f, i, i, f, i, i, f, i]);
    assert_eq!(larder.commits_since_snapshot(), Some(5));
    // Time alone is a reason only where something happened.
    lab.clock.advance(2_000_000);
    let last = policy.run(&larder).unwrap().expect("it is old").1;
    lab.clock.advance(2_000_000);
    assert!(policy.run(&larder).unwrap().is_none());
    let kept = policy.snapshots(&larder).unwrap();
    assert_eq!(kept.iter().map(|(_, info)| info.kind().name()).collect::<Vec<_>>(), [f, i, i, f, i, i]);
    let newest: Vec<&PathBuf> = kept[3..].iter().map(|(path, _)| path).collect();
    restore(&newest, lab.path("back.larder"), &as_it_was()).unwrap();
    assert_eq!(lab.open("back.larder").info().unwrap().state, last.info.state());
}

/// What a policy has of a time that the store was taken back from kept it from making any more.
#[test]
fn s4_1_1_2_a_policy_goes_on_where_the_store_was_taken_back() {
    let lab = Lab::new();
    let folder = lab.path("snapshots");
    std::fs::create_dir(&folder).unwrap();
    // Of what, is the policy's business.
    let below = full().below("elsewhere").unwrap();
    let policy = SnapshotPolicy::new(&folder).every_commits(10).increments(2).chains(9).options(below);
    let larder = lab.open("live.larder");
    for number in 0..35 {
        larder.root().unwrap().put(format!("n/{number}"), "x").unwrap();
        policy.run(&larder).unwrap();
    }
    let made = policy.snapshots(&larder).unwrap();
    assert_eq!(made.len(), 4);
    larder.close().unwrap();
    restore(&[&made[0].0], lab.path("back.larder"), &as_it_was()).unwrap();
    let back = lab.open("back.larder");
    back.root().unwrap().put("other", "y").unwrap();
    lab.clock.advance(1_000);
    let (_, report) = policy.run(&back).unwrap().expect("there is none of this time");
    assert_eq!(report.info.kind(), SnapshotKind::Full);
    assert!(policy.run(&back).unwrap().is_none());
    for number in 0..12 {
        back.root().unwrap().put(format!("o/{number}"), "x").unwrap();
    }
    lab.clock.advance(1_000);
    let (_, report) = policy.run(&back).unwrap().expect("twelve commits later");
    assert_eq!(report.info.kind(), SnapshotKind::Increment);
}

/// A snapshot with what a loss of power took afterwards was gone on from as if nothing had happened.
#[test]
fn x_1_nothing_is_in_a_snapshot_that_a_loss_of_power_takes() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    session.put("a", "1").unwrap();
    session.clone().durability(Durability::Lazy).put("b", "2").unwrap();
    let mut bytes = Vec::new();
    let made = larder.snapshot_into(&mut bytes, &full()).unwrap();
    let back = FaultyDisk::holding(disk.durable(), Plan::default());
    let back = back.open(still(), true).unwrap();
    assert_eq!(back.info().unwrap().state, made.info.state());
}

/// The number of a payload was given out again after the newest one had gone: what was left of that came back with a snapshot.
#[test]
fn x_1_an_increment_has_nothing_of_a_payload_that_went_before_it() {
    let lab = Lab::new();
    let larder = lab.open("live.larder");
    larder.root().unwrap().put("a", Random::new(1).bytes(900_000)).unwrap();
    let first = larder.snapshot(lab.path("1"), &full()).unwrap().info;
    larder.root().unwrap().delete("a").unwrap();
    larder.close().unwrap();
    let larder = lab.open("live.larder");
    larder.root().unwrap().put("b", Random::new(2).bytes(300_000)).unwrap();
    larder.snapshot(lab.path("2"), &full().since(first)).unwrap();
    restore(&[lab.path("1"), lab.path("2")], lab.path("back.larder"), &as_it_was()).unwrap();
    let back = lab.open("back.larder");
    verified(&back);
    assert_eq!(difference(&dump(&larder), &dump(&back)), Vec::<String>::new());
}

/// Whoever watched a compaction, and asked how the store is, waited for ever where somebody else was about to make the log.
#[test]
fn a_compaction_can_be_watched_by_who_asks_how_the_store_is() {
    let lab = Lab::new();
    lab.filled("live.larder", 3, 100).close().unwrap();
    let larder = Arc::new(lab.open("live.larder"));
    let session = larder.session("ana").unwrap();
    let watched = {
        let (larder, session) = (Arc::clone(&larder), session.clone());
        let writing = std::sync::Mutex::new(None);
        move |_| {
            let mut writing = writing.lock().unwrap();
            writing.get_or_insert_with(|| {
                let session = session.clone();
                let thread = std::thread::spawn(move || session.put("meanwhile", "x").unwrap());
                while !thread.is_finished() {
                    larder.info().unwrap();
                    std::thread::yield_now();
                }
            });
            ControlFlow::Continue(())
        }
    };
    larder.compact(Some(&(Arc::new(watched) as _))).unwrap();
    assert!(session.exists("meanwhile").unwrap());
    verified(&larder);
}

#[test]
fn a_crashed_store_can_be_taken_a_snapshot_of_and_not_a_byte_of_it_changes() {
    let lab = Lab::new();
    let larder = lab.filled("live.larder", 9, 100);
    larder.flush().unwrap();
    for name in ["live.larder", "live.larder-log"] {
        std::fs::copy(lab.path(name), lab.path(&name.replace("live", "crashed"))).unwrap();
    }
    let before = std::fs::read(lab.path("crashed.larder")).unwrap();
    let inspected = lab.options().open_read_only(lab.path("crashed.larder")).unwrap();
    let report = inspected.snapshot(lab.path("rescued"), &full()).unwrap();
    drop(inspected);
    assert!(std::fs::read(lab.path("crashed.larder")).unwrap() == before);
    assert_eq!(report.info.state(), larder.info().unwrap().state);
    restore(&[lab.path("rescued")], lab.path("back.larder"), &as_it_was()).unwrap();
    assert!(dump(&lab.open("back.larder")) == dump(&larder));
}
