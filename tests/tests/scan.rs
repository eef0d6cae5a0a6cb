//! Scans say what a walk says, whatever lies where, and however many threads share the work.

use larder::{AttributeValue, DocumentKind, Draft, Error, ErrorKind, Key, Larder, Record, Session};
use larder_tests::{FaultyDisk, Plan, STORE, kind_of, still};
use proptest::prelude::*;

fn number_of(record: &Record<impl AsRef<[u8]>>) -> i64 {
    match record.attribute("n") {
        Some(AttributeValue::Integer(n)) => n,
        _ => -1,
    }
}

fn put_all(session: &Session, keys: impl Iterator<Item = String>) {
    session
        .write(|txn| {
            for (n, key) in (0i64..).zip(keys) {
                txn.put(key, Draft::from("x").attribute("n", n))?;
            }
            Ok(())
        })
        .unwrap();
}

/// What a scan finds, which is checked to be the same for one thread and for many, and what a walk does.
fn found(session: &Session, place: &str) -> Vec<Key> {
    let view = session.snapshot().unwrap();
    let is_wanted = |n: i64| n % 3 != 0;
    let walked: Vec<(Key, Record)> = view
        .walk(place)
        .unwrap()
        .map(Result::unwrap)
        .filter(|(_, record)| is_wanted(number_of(record)))
        .collect();
    for threads in [1, 2, 5] {
        let scan = view.scan(place).unwrap().threads(threads);
        assert_eq!(
            scan.find(|asset| is_wanted(number_of(asset.record()))).unwrap(),
            walked,
            "{threads} threads"
        );
        let count = scan.count(|asset| is_wanted(number_of(asset.record()))).unwrap();
        assert_eq!(count, walked.len() as u64);
    }
    walked.into_iter().map(|(key, _)| key).collect()
}

fn store() -> Larder {
    still().open_in_memory().unwrap()
}

#[test]
fn a_scan_is_a_walk_over_the_store_the_overlay_and_both() {
    let larder = store();
    let session = larder.session("ana").unwrap();
    assert!(found(&session, "").is_empty());
    put_all(&session, (0..2_000).map(|n| format!("d{:02}/{n:04}", n % 17)));
    assert_eq!(found(&session, "").len(), 1_333);
    larder.upkeep(0).unwrap();
    larder.verify(&mut |_| {}).unwrap();
    // In the store now; what follows lies over it.
    put_all(&session, (0..500).map(|n| format!("d{:02}/{:04}.new", n % 19, n)));
    session.delete_tree("d03").unwrap();
    session.delete("d04/0004").unwrap();
    session.put("d03/back", Draft::from("x").attribute("n", 1i64)).unwrap();
    let all = found(&session, "");
    assert!(all.iter().any(|key| key.as_str() == "d03/back"));
    assert_eq!(all.iter().filter(|key| key.as_str().starts_with("d03/")).count(), 1);
    assert!(found(&session, "d05").iter().all(|key| key.as_str().starts_with("d05/")));
    assert!(found(&session, "nothing").is_empty());
}

#[test]
fn s0_7_a_scan_shows_what_the_caller_may_list() {
    let larder = store();
    let root = larder.root().unwrap();
    put_all(&root, (0..600).map(|n| format!("{}/{n}", ["open", "closed", "half"][n % 3])));
    let rules = r#"
        default = "allow"
        [[rule]]
        deny = ["list"]
        who = ["*"]
        on = ["closed/**", "half/5"]
    "#;
    root.set_document(DocumentKind::Rules, rules).unwrap();
    let seen = found(&larder.session("bob").unwrap(), "");
    assert!(!seen.is_empty() && seen.iter().all(|key| !key.as_str().starts_with("closed/")));
    assert!(seen.iter().all(|key| key.as_str() != "half/5"));
    assert!(found(&larder.session("bob").unwrap(), "closed").is_empty());
    assert!(!found(&root, "closed").is_empty());
}

#[test]
fn an_error_of_the_caller_ends_a_scan_and_a_panic_of_it_is_its_own() {
    let larder = store();
    let session = larder.session("ana").unwrap();
    put_all(&session, (0..1_000).map(|n| format!("{n}")));
    let view = session.snapshot().unwrap();
    for threads in [1, 4] {
        let scan = view.scan("").unwrap().threads(threads);
        let refused = scan.fold(|| (), |(), _| Err(Error::from(ErrorKind::NotFound)));
        assert_eq!(kind_of(refused), "NotFound");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scan.count(|_| panic!("of the caller")).unwrap()
        }));
        assert!(panicked.is_err());
        assert_eq!(scan.count(|_| true).unwrap(), 1_000);
    }
}

#[test]
fn damage_ends_a_scan_with_an_error() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    put_all(&larder.session("ana").unwrap(), (0..50).map(|n| format!("leek/{n}")));
    larder.close().unwrap();
    let mut image = disk.current();
    let at = image[STORE].windows(8).rposition(|bytes| bytes == b"leek\x0049\0").unwrap();
    image[STORE][at + 40] ^= 1;
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    let view = larder.session("ana").unwrap().snapshot().unwrap();
    for threads in [1, 2] {
        assert_eq!(kind_of(view.scan("").unwrap().threads(threads).count(|_| true)), "Corrupt");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn keys_of_any_kind_are_scanned_once_each(
        keys in prop::collection::btree_set("[a-c\u{1}-\u{3}é/]{1,12}", 0..80),
        drained in any::<bool>(),
    ) {
        let larder = store();
        let session = larder.session("ana").unwrap();
        let keys: Vec<String> = keys.into_iter().filter(|key| Key::parse(key).is_ok()).collect();
        put_all(&session, keys.iter().cloned());
        if drained {
            larder.verify(&mut |_| {}).unwrap();
        }
        let count = keys.iter().enumerate().filter(|(n, _)| n % 3 != 0).count();
        prop_assert_eq!(found(&session, "").len(), count);
        found(&session, "a");
    }
}
