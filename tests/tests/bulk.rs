//! Bulk loads store what single puts would have.

use larder::{BulkReport, DocumentKind, Draft, Larder, Session};
use larder_tests::{FaultyDisk, Plan, in_memory, kind_of, still, verified};

fn row(n: u64) -> (String, Draft) {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (format!("d{:03}/{mixed:016x}.bin", n % 100), Draft::from(format!("payload {n}")).tag("loaded"))
}

fn load(session: &Session, memory_bytes_max: usize, count: u64) -> BulkReport {
    let mut bulk = session.bulk().memory_bytes_max(memory_bytes_max);
    for (key, draft) in (0..count).map(row) {
        bulk.put(key, draft).unwrap();
    }
    bulk.finish().unwrap()
}

fn all_there(larder: &Larder, count: u64) {
    let session = larder.session("reader").unwrap();
    for n in 0..count {
        assert_eq!(session.get(row(n).0).unwrap().bytes().unwrap(), format!("payload {n}"));
    }
    assert_eq!(session.find_by_tag("loaded").unwrap().len() as u64, count);
    let report = verified(larder);
    assert_eq!((report.records, larder.statistics().unwrap().total.assets), (count, count));
}

#[test]
fn what_is_loaded_is_there_in_one_run_or_in_many() {
    for (memory_bytes_max, runs) in [(64 << 20, 1), (400_000, 15)] {
        let larder = in_memory();
        let report = load(&larder.session("ana").unwrap(), memory_bytes_max, 9_000);
        assert_eq!((report.stored, report.refused), (9_000, 0));
        assert!(report.runs >= runs && report.commits >= report.runs.max(3), "{report:?}");
        all_there(&larder, 9_000);
        let told = larder.session("reader").unwrap().feed_since(0, usize::MAX).unwrap();
        assert_eq!(told.len(), 9_000, "every asset has its event");
    }
}

#[test]
fn what_is_finished_is_on_disk() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let report = load(&larder.session("ana").unwrap(), 64 << 20, 6_000);
    assert_eq!(report.stored, 6_000);
    let image = disk.durable();
    drop(larder);
    all_there(&FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap(), 6_000);
}

#[test]
fn the_last_of_a_key_that_comes_twice_stays() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let mut bulk = session.bulk();
    for text in ["one", "two", "three"] {
        bulk.put("k", text).unwrap();
    }
    assert_eq!(bulk.finish().unwrap().stored, 3);
    assert_eq!(session.get("k").unwrap().bytes().unwrap(), "three");
    assert_eq!(session.record("k").unwrap().generation(), 3);
}

#[test]
fn s0_6_s0_7_what_is_refused_is_in_the_report_and_the_rest_is_stored() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    let rules = "default = \"allow\"\n[[rule]]\ndeny = [\"write\"]\nwho = [\"ana\"]\non = \"closed/**\"\n";
    root.set_document(DocumentKind::Rules, rules).unwrap();
    root.set_document(DocumentKind::Limits, "max_binary_size = \"10 B\"\n").unwrap();
    let ana = larder.session("ana").unwrap();
    let mut bulk = ana.bulk();
    bulk.put("open/a", "short").unwrap();
    bulk.put("closed/b", "short").unwrap();
    bulk.put("open/c", "much too long for it").unwrap();
    bulk.put("open/d", Draft::file("no/such/file")).unwrap();
    assert_eq!(kind_of(bulk.put("../e", "short")), "InvalidKey");
    bulk.put("open/f", Draft::from("x").tag("")).unwrap();
    bulk.put("open/g", "short").unwrap();
    let report = bulk.finish().unwrap();
    let refusals: Vec<_> =
        report.refusals.iter().map(|(key, error)| (key.as_str(), error.kind().name())).collect();
    let expected = [
        ("closed/b", "AccessDenied"),
        ("open/c", "BinaryTooLarge"),
        ("open/d", "Source"),
        ("open/f", "InvalidTag"),
    ];
    assert_eq!(refusals, expected);
    assert_eq!((report.stored, report.refused), (2, 4));
    assert_eq!(ana.list("open").unwrap().len(), 2);
    verified(&larder);
}

/// What was refused beyond those that are listed was in no number.
#[test]
fn every_refusal_is_counted() {
    let larder = in_memory();
    let mut bulk = larder.session("ana").unwrap().bulk();
    for n in 0..3_000 {
        bulk.put(format!("k/{n}"), Draft::from("x").tag("")).unwrap();
    }
    let report = bulk.finish().unwrap();
    assert_eq!((report.stored, report.refused, report.refusals.len()), (0, 3_000, 1_000));
}

/// Metadata took no part in how much goes into a commit: a load within all limits was refused.
#[test]
fn what_has_much_metadata_is_loaded() {
    let larder = in_memory();
    let mut bulk = larder.session("ana").unwrap().bulk();
    for n in 0..1_200 {
        bulk.put(format!("k/{n}"), Draft::from("x").with(|about| about.extra(vec![7; 100_000]))).unwrap();
    }
    let report = bulk.finish().unwrap();
    assert_eq!((report.stored, report.refused), (1_200, 0));
    assert!(report.commits > 2, "{report:?}");
    verified(&larder);
}

#[test]
fn a_load_inside_a_transaction_is_refused() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let inner = ana.clone();
    let refused = ana.write(|_| inner.bulk().put("k", "x"));
    assert_eq!(kind_of(refused), "Nested");
    let empty = ana.bulk().finish().unwrap();
    assert_eq!((empty.stored, empty.commits, empty.runs), (0, 0, 0));
}
