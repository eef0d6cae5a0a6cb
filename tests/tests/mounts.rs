//! Several stores as one tree: the first that covers a key has it.

use larder::{Draft, Larder, Mounts};
use larder_tests::{in_memory, kind_of, verified};

struct Three {
    stores: [Larder; 3],
    mounts: Mounts,
}

fn three() -> Three {
    let stores = [in_memory(), in_memory(), in_memory()];
    let session = |at: usize| stores[at].session("ana").unwrap();
    let mounts = Mounts::new()
        .mount("photos", session(0))
        .unwrap()
        .mount("work/2026/reports", session(1))
        .unwrap()
        .mount("", session(2))
        .unwrap();
    Three { stores, mounts }
}

fn names(mounts: &Mounts, place: &str) -> Vec<(String, bool)> {
    let entries = mounts.list(place).unwrap();
    entries.iter().map(|entry| (entry.key.to_string(), entry.is_directory())).collect()
}

#[test]
fn router_the_first_store_whose_prefix_matches_has_the_key() {
    let Three { stores, mounts } = three();
    mounts.put("photos/a.png", "a").unwrap();
    mounts.put("work/2026/reports/q3.csv", "b").unwrap();
    mounts.put("work/notes.txt", "c").unwrap();
    for (at, key, text) in [(0, "a.png", "a"), (1, "q3.csv", "b"), (2, "work/notes.txt", "c")] {
        assert_eq!(stores[at].session("ana").unwrap().get(key).unwrap().bytes().unwrap(), text);
        assert_eq!(stores[at].statistics().unwrap().total.assets, 1);
    }
    assert_eq!(mounts.get("photos/a.png").unwrap().bytes().unwrap(), "a");
    assert_eq!(mounts.record("work/2026/reports/q3.csv").unwrap().media_type(), "text/csv");
    assert_eq!(kind_of(mounts.get("photos/b.png")), "NotFound");
    assert_eq!(kind_of(mounts.put("photos", "x")), "NotFound", "a mount point is a directory");
    assert!(mounts.delete("photos/a.png").unwrap().value);
    assert_eq!(stores[0].statistics().unwrap().total.assets, 0);
    let (session, key) = mounts.session_of("work/2026/reports/q4.csv").unwrap();
    session.write(|txn| txn.put(&key, "d")).unwrap();
    assert_eq!(mounts.get("work/2026/reports/q4.csv").unwrap().bytes().unwrap(), "d");
    let nothing = Mounts::new();
    assert_eq!(kind_of(nothing.get("a")), "NotFound");
    assert!(nothing.list("").unwrap().is_empty());
}

#[test]
fn listings_are_merged_and_what_is_covered_is_not_seen() {
    let Three { stores, mounts } = three();
    mounts.put("photos/2026/a.png", "a").unwrap();
    mounts.put("photos/b.png", "b").unwrap();
    mounts.put("work/notes.txt", "c").unwrap();
    mounts.put("work/2026/plan.txt", "d").unwrap();
    mounts.put("z.txt", "e").unwrap();
    // In the store at the root, where the others cover it.
    let under = stores[2].session("ana").unwrap();
    under.put("photos/hidden.png", "x").unwrap();
    under.put("work/2026/reports/hidden.csv", "x").unwrap();
    let is = |place: &str, expected: &[(&str, bool)]| {
        let expected: Vec<_> = expected.iter().map(|(key, dir)| ((*key).to_owned(), *dir)).collect();
        assert_eq!(names(&mounts, place), expected, "{place}");
    };
    is("", &[("photos", true), ("work", true), ("z.txt", false)]);
    is("photos", &[("photos/2026", true), ("photos/b.png", false)]);
    is("work", &[("work/2026", true), ("work/notes.txt", false)]);
    is("work/2026", &[("work/2026/plan.txt", false), ("work/2026/reports", true)]);
    is("work/2026/reports", &[]);
    assert_eq!(kind_of(mounts.list("nothing")), "NotFound");
    assert_eq!(kind_of(mounts.list("photos/nothing")), "NotFound");
}

#[test]
fn a_copy_goes_from_store_to_store_with_its_metadata() {
    let Three { stores, mounts } = three();
    let large: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, payload) in [("small.txt", b"leek".to_vec()), ("large.bin", large)] {
        let from = format!("photos/{name}");
        let draft = Draft::from(payload.clone()).tag("t").attribute("n", 4i64);
        mounts.put(from.as_str(), draft.with(|about| about.extra("more").expires(9_000_000))).unwrap();
        for to in [format!("photos/copy/{name}"), format!("work/{name}")] {
            assert!(mounts.copy(from.as_str(), to.as_str()).unwrap().value.is_done());
            let copy = mounts.get(to.as_str()).unwrap();
            assert!(copy.bytes().unwrap() == payload);
            let record = copy.record();
            assert_eq!(record.media_type(), mounts.record(from.as_str()).unwrap().media_type());
            assert_eq!((record.tags().collect::<Vec<_>>(), record.expires()), (vec!["t"], 9_000_000));
            assert_eq!((record.attribute("n"), record.extra()), (Some(4i64.into()), Some(&b"more"[..])));
        }
    }
    assert_eq!(kind_of(mounts.copy("photos/nothing", "work/x")), "NotFound");
    stores.iter().for_each(|store| drop(verified(store)));
}

/// A mount point below an earlier one has nothing that could be reached, and was shown all the same.
#[test]
fn what_is_mounted_below_an_earlier_one_is_not_seen() {
    let stores = [in_memory(), in_memory()];
    let session = |at: usize| stores[at].session("ana").unwrap();
    session(0).put("c", "x").unwrap();
    session(1).put("d", "y").unwrap();
    let mounts = Mounts::new().mount("a", session(0)).unwrap().mount("a/b", session(1)).unwrap();
    assert_eq!(names(&mounts, "a"), [("a/c".to_owned(), false)]);
    assert_eq!(kind_of(mounts.list("a/b")), "NotFound");
    assert_eq!(names(&mounts, ""), [("a".to_owned(), true)]);
}

/// What is copied from one store to another would be a collection without a definition.
#[test]
fn a_collection_is_copied_within_no_store_and_to_no_other() {
    let Three { stores, mounts } = three();
    let define =
        |txn: &mut larder::WriteTxn<'_>| txn.define_collection("rows", &larder::CollectionDefinition::new());
    stores[0].root().unwrap().write(define).unwrap();
    for to in ["photos/other", "other"] {
        assert_eq!(kind_of(mounts.copy("photos/rows", to)), "IsACollection");
    }
    let draft = || Draft::absent(larder::AbsentReason::Collection);
    assert_eq!(kind_of(mounts.put("other", draft())), "InvalidArgument");
    stores.iter().for_each(|larder| drop(verified(larder)));
}
