//! Compacting, repairing, salvaging: what comes out is what can be had, and the file is never worse for it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::{
    AggregateDefinition, CollectionDefinition, DocumentKind, Draft, Durability, Finding, IndexDefinition,
    Larder, Options, RowDraft, RowRange, Tuple, repair, salvage, verify_file,
};
use larder_tests::{Lab, Random, dump, kind_of, still, verified};

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

/// Every asset with its payload, for comparison.
fn assets(larder: &Larder) -> Vec<(String, u64, Option<Vec<u8>>)> {
    let snapshot = larder.root().unwrap().snapshot().unwrap();
    snapshot
        .walk("")
        .unwrap()
        .map(|found| {
            let (key, record) = found.unwrap();
            let payload = record.has_payload().then(|| snapshot.get(&key).unwrap().bytes().unwrap().to_vec());
            (key.to_string(), record.generation(), payload)
        })
        .collect()
}

#[test]
fn a_compacted_store_is_the_same_in_less_room_and_goes_on() {
    let lab = Lab::new();
    let larder = lab.filled("a.larder", 11, 200);
    larder.root().unwrap().set_document(DocumentKind::Limits, "").unwrap();
    let session = larder.root().unwrap().durability(Durability::Lazy);
    for number in 0..300 {
        session.put(format!("ballast/{number}"), Random::new(number).bytes(30_000)).unwrap();
    }
    session.delete_tree("ballast").unwrap();
    larder.flush().unwrap();
    let before = dump(&larder);
    let view = larder.root().unwrap().snapshot().unwrap();
    let old = view.get("a").ok().map(|asset| asset.bytes().unwrap());
    let report = larder.compact(None).unwrap();
    assert!(report.before > 9_000_000 && report.after < report.before / 4, "{report:?}");
    assert_eq!(length(&lab.path("a.larder")), report.after);
    assert!(dump(&larder) == before);
    // A view of before sees what it saw; writes, claims, a crash and a close do what they always do.
    session.put("a", "new").unwrap();
    assert_eq!(view.get("a").ok().map(|asset| asset.bytes().unwrap()), old);
    drop(view);
    larder.flush().unwrap();
    for name in ["a.larder", "a.larder-log"] {
        std::fs::copy(lab.path(name), lab.path(&name.replace("a.", "crashed."))).unwrap();
    }
    let crashed = lab.open("crashed.larder");
    assert_eq!(crashed.root().unwrap().get("a").unwrap().bytes().unwrap().as_ref(), b"new");
    verified(&crashed);
    crashed.close().unwrap();
    assert!(larder.is_still_there());
    larder.close().unwrap();
    verified(&lab.open("a.larder"));
    assert_eq!(lab.names(), ["a.larder", "crashed.larder"]);
    assert_eq!(kind_of(still().open_in_memory().unwrap().compact(None)), "InvalidArgument");
}

#[test]
fn compacting_goes_on_beside_readers_and_writers() {
    let lab = Lab::new();
    let larder = Options::new().open(lab.path("a.larder")).unwrap();
    let session = larder.session("ana").unwrap();
    for number in 0..500 {
        session.put(format!("n/{number}"), number.to_string()).unwrap();
    }
    let going = AtomicBool::new(true);
    let mut acknowledged = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0u64;
            while going.load(Ordering::Relaxed) {
                number += 1;
                session.put("count", number.to_string()).unwrap();
                if number.is_multiple_of(10) {
                    session
                        .put(format!("large/{}", number % 3), Random::new(number).bytes(1_500_000))
                        .unwrap();
                }
            }
            number
        });
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                let view = session.snapshot().unwrap();
                for number in (0..500).step_by(7) {
                    assert_eq!(view.get(format!("n/{number}")).unwrap().bytes().unwrap(), number.to_string());
                }
            }
        });
        for _ in 0..6 {
            larder.compact(None).unwrap();
        }
        going.store(false, Ordering::Relaxed);
        acknowledged = writer.join().unwrap();
    });
    verified(&larder);
    larder.close().unwrap();
    let larder = Larder::open(lab.path("a.larder")).unwrap();
    let there = larder.session("ana").unwrap();
    assert_eq!(there.get("count").unwrap().bytes().unwrap(), acknowledged.to_string());
    verified(&larder);
}

#[test]
fn compacting_that_is_given_up_changes_nothing() {
    let lab = Lab::new();
    let larder = lab.filled("a.larder", 12, 100);
    let before = dump(&larder);
    let names = lab.names();
    let space = larder.health().space;
    let watch: larder::Watch = Arc::new(|_| ControlFlow::Break(()));
    assert_eq!(kind_of(larder.compact(Some(&watch))), "Aborted");
    assert!(dump(&larder) == before && lab.names() == names);
    let now = larder.health().space;
    assert_eq!((now.file_bytes, now.used_bytes), (space.file_bytes, space.used_bytes));
    larder.root().unwrap().put("goes", "on").unwrap();
    larder.close().unwrap();
    verified(&lab.open("a.larder"));
}

#[test]
fn a_store_without_damage_is_repaired_to_the_same() {
    let lab = Lab::new();
    for seed in 0..8 {
        let (name, copy) = (format!("{seed}.larder"), format!("{seed}-repaired.larder"));
        let larder = lab.filled(&name, seed, 150);
        let before = dump(&larder);
        larder.close().unwrap();
        assert!(verify_file(lab.path(&name), &mut |_| {}).unwrap().is_clean());
        let report = repair(lab.path(&name), lab.path(&copy)).unwrap();
        assert!(report.left_out.is_empty() && report.verified.is_clean(), "{report:?}");
        assert!(dump(&lab.open(&copy)) == before, "seed {seed}");
        assert_eq!(kind_of(repair(lab.path(&name), lab.path(&copy))), "AlreadyExists");
    }
}

/// Finds bytes in a file, and turns a bit of each place where they are.
fn damage(path: &Path, bytes: &[u8]) -> usize {
    let mut content = std::fs::read(path).unwrap();
    let places: Vec<usize> = content
        .windows(bytes.len())
        .enumerate()
        .filter(|(_, window)| *window == bytes)
        .map(|(at, _)| at)
        .collect();
    for at in &places {
        content[at + bytes.len() / 2] ^= 4;
    }
    std::fs::write(path, content).unwrap();
    places.len()
}

#[test]
fn x_6_what_is_derived_is_repaired_and_what_is_not_is_named() {
    let lab = Lab::new();
    let larder = lab.open("a.larder");
    let session = larder.root().unwrap();
    for number in 0..300 {
        session.put(format!("n/{number}"), Draft::from(number.to_string()).tag("zebra-tag")).unwrap();
    }
    session.put("lost.txt", "the only words of this kind").unwrap();
    let expected: Vec<_> = assets(&larder).into_iter().filter(|(key, ..)| key != "lost.txt").collect();
    larder.close().unwrap();
    // A row of the index of tags, and the only row of a record.
    assert!(damage(&lab.path("a.larder"), b"zebra-tag\0n\x00150\0") > 0);
    assert!(damage(&lab.path("a.larder"), b"the only words of this kind") > 0);
    let found = verify_file(lab.path("a.larder"), &mut |_| {}).unwrap();
    assert!(!found.is_clean());
    let before = std::fs::read(lab.path("a.larder")).unwrap();
    std::fs::write(lab.path("c.larder"), &before).unwrap();
    let in_place = larder::repair_in_place(lab.path("c.larder")).unwrap();
    let kept = in_place.kept.unwrap();
    assert!(kept == lab.path("c.larder.before-repair") && std::fs::read(kept).unwrap() == before);
    assert_eq!((in_place.left_out.len(), in_place.verified.is_clean()), (1, true));
    assert_eq!(assets(&lab.open("c.larder")), expected);
    let report = repair(lab.path("a.larder"), lab.path("b.larder")).unwrap();
    assert!(std::fs::read(lab.path("a.larder")).unwrap() == before, "the file itself is left alone");
    assert_eq!(report.left_out.len(), 1, "{:?}", report.left_out);
    assert!(report.verified.is_clean(), "{:?}", report.verified.findings);
    let repaired = lab.open("b.larder");
    verified(&repaired);
    assert_eq!(assets(&repaired), expected);
    assert_eq!(repaired.root().unwrap().find_by_tag("zebra-tag").unwrap().len(), 300);
}

/// What was kept by a repair before is left alone, also where only its log is there still.
#[test]
fn x_6_a_repair_in_place_takes_no_name_that_something_has() {
    let lab = Lab::new();
    drop(lab.filled("a.larder", 1, 20));
    std::fs::write(lab.path("a.larder.before-repair-log"), "of another").unwrap();
    for name in ["a.larder.before-repair-2", "a.larder.before-repair-3"] {
        let report = larder::repair_in_place(lab.path("a.larder")).unwrap();
        assert_eq!(report.kept.unwrap(), lab.path(name));
    }
    assert_eq!(std::fs::read(lab.path("a.larder.before-repair-log")).unwrap(), b"of another");
}

/// What is wrong with a payload names the assets that have it: a few of them, where there are many.
#[test]
fn x_6_a_rotten_payload_names_the_assets_that_have_it() {
    let lab = Lab::new();
    let larder = lab.open("a.larder");
    let session = larder.root().unwrap();
    let payload =
        [b"the only words of this kind ".as_slice(), &larder_tests::Random::new(3).bytes(9_000)].concat();
    for number in 0..5 {
        session.put(format!("n/{number}"), payload.clone()).unwrap();
    }
    session.put("other", larder_tests::Random::new(4).bytes(9_000)).unwrap();
    drop(session);
    larder.close().unwrap();
    assert!(damage(&lab.path("a.larder"), b"the only words of this kind") > 0);
    let found = verify_file(lab.path("a.larder"), &mut |_| {}).unwrap().findings;
    let named = |finding: &&Finding| finding.place.ends_with(", of n/0, n/1, n/2 and 2 others");
    assert_eq!(found.iter().filter(named).count(), 1, "{found:#?}");
}

/// An entry of an index that rotted is found, with its collection and row, and deriving the index anew mends it: in the file
/// itself, and in another.
#[test]
fn x_6_a_rotten_entry_of_an_index_is_found_named_and_derived_anew() {
    let owner = |number: i64| format!("zebra-owner-{number:03}");
    let lab = Lab::new();
    let larder = lab.open("a.larder");
    let definition = CollectionDefinition::new()
        .index(IndexDefinition::new("owner").by("owner"))
        .aggregate(AggregateDefinition::new("cost").sum("cost"));
    let root = larder.root().unwrap();
    root.write(|txn| {
        let _ = txn.define_collection("jobs", &definition)?;
        let mut jobs = txn.collection("jobs")?;
        (0..300_i64).try_for_each(|number| {
            let row = RowDraft::default().field("owner", owner(number)).field("cost", number);
            jobs.put(number, row).map(drop)
        })
    })
    .unwrap();
    let expected = dump(&larder);
    drop(root);
    larder.close().unwrap();
    // The value, its end, and the key of the row: so it lies in the index and nowhere else.
    let mut entry = owner(150).into_bytes();
    entry.extend([0, 0]);
    entry.extend(Tuple::encode(&[150.into()]).unwrap());
    assert_eq!(damage(&lab.path("a.larder"), &entry), 1);
    let found = verify_file(lab.path("a.larder"), &mut |_| {}).unwrap().findings;
    let named = found.iter().filter(|finding| finding.place == "jobs, row 150").count();
    assert_eq!(named, 1, "{found:#?}");
    // Others are not found either, where the search in a page goes by the rotten one; and the page is not what it was.
    let is_derived = |finding: &Finding| finding.place == "pages" || finding.remedy.contains("derived again");
    assert!(found.iter().all(is_derived), "{found:#?}");

    let repaired = repair(lab.path("a.larder"), lab.path("b.larder")).unwrap();
    assert!(repaired.left_out.is_empty() && repaired.verified.is_clean(), "{repaired:?}");
    assert!(dump(&lab.open("b.larder")) == expected);
    let larder = lab.open("a.larder");
    let root = larder.root().unwrap();
    let find = || root.read(|view| view.collection("jobs")?.find("owner", &RowRange::all().with(owner(150))));
    // What is not found is no wrong row, and what is rotten is none at all.
    assert!(find().map_or(true, |page| page.rows.is_empty()));
    assert_eq!(root.write(|txn| txn.rebuild_collection("jobs")).unwrap().value, 302);
    assert_eq!(find().unwrap().rows.len(), 1);
    verified(&larder);
}

#[test]
fn a_file_that_does_not_open_is_salvaged_page_by_page() {
    let lab = Lab::new();
    let larder = lab.open("a.larder");
    let session = larder.root().unwrap();
    for number in 0..400u64 {
        session.put(format!("small/{number}"), Draft::from(number.to_string()).tag("t")).unwrap();
    }
    for number in 0..12u64 {
        session.put(format!("large/{number}"), Random::new(number).bytes(150_000)).unwrap();
        session.put(format!("gone/{number}"), "deleted again").unwrap();
    }
    session.put("small/7", "the newest").unwrap();
    session.delete("gone/1").unwrap();
    session.delete_tree("gone").unwrap();
    session.rename("small/8", "moved").unwrap();
    let tagged = session.find_by_tag("t").unwrap().len();
    let expected = assets(&larder);
    let last = larder.info().unwrap().last_commit.sequence;
    larder.close().unwrap();
    let mut bytes = std::fs::read(lab.path("a.larder")).unwrap();
    // redb's header, with all it knows of where its trees begin.
    bytes[..4_096].fill(0xA5);
    std::fs::write(lab.path("a.larder"), &bytes).unwrap();
    assert_eq!(kind_of(Larder::open(lab.path("a.larder"))), "NotALarderFile");
    let report = salvage(lab.path("a.larder"), lab.path("b.larder")).unwrap();
    assert!(
        report.lost.is_empty() && report.verified.is_clean(),
        "{:?} {:?}",
        report.lost,
        report.verified.findings
    );
    assert_eq!((report.assets, report.last_commit), (expected.len() as u64, last));
    let salvaged = lab.open("b.larder");
    assert_eq!(assets(&salvaged), expected);
    assert_eq!(salvaged.root().unwrap().find_by_tag("t").unwrap().len(), tagged);

    // A payload that is not whole is named, and left out.
    let needle = Random::new(5).bytes(64);
    assert!(damage(&lab.path("a.larder"), &needle) > 0);
    let report = salvage(lab.path("a.larder"), lab.path("c.larder")).unwrap();
    assert_eq!(report.lost.iter().map(|lost| lost.place.as_str()).collect::<Vec<_>>(), ["large/5"]);
    verified(&lab.open("c.larder"));
    std::fs::write(lab.path("noise"), Random::new(1).bytes(200_000)).unwrap();
    assert_eq!(kind_of(salvage(lab.path("noise"), lab.path("d.larder"))), "NotALarderFile");
    assert_eq!(kind_of(salvage(lab.path("nothing"), lab.path("d.larder"))), "NoSuchFile");
}

#[test]
fn what_the_commit_log_has_is_salvaged_too() {
    let lab = Lab::new();
    let larder = lab.open("live.larder");
    let session = larder.root().unwrap();
    session.put("first", "in the file").unwrap();
    larder.close().unwrap();
    let larder = lab.open("live.larder");
    let session = larder.root().unwrap();
    session.put("second", Random::new(3).bytes(9_000)).unwrap();
    session.delete("first").unwrap();
    let expected = assets(&larder);
    for name in ["live.larder", "live.larder-log"] {
        std::fs::copy(lab.path(name), lab.path(&name.replace("live", "crashed"))).unwrap();
    }
    let mut bytes = std::fs::read(lab.path("crashed.larder")).unwrap();
    bytes[..4_096].fill(0);
    std::fs::write(lab.path("crashed.larder"), &bytes).unwrap();
    let report = salvage(lab.path("crashed.larder"), lab.path("back.larder")).unwrap();
    assert!(report.lost.is_empty(), "{:?}", report.lost);
    assert_eq!(assets(&lab.open("back.larder")), expected);
}
