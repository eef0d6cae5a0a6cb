//! A store that gets old.

use std::sync::Arc;

use larder::{Clock, DocumentKind, Larder, ManualClock, Retention, SnapshotOptions};
use larder_tests::{Random, Soak, still, verified};

/// T51. Two weeks of a store, with failures of the disk and losses of power: whenever it is opened it is as it was, and each
/// week it recounts. Whether it needs more with age takes longer to tell: the crash lab does years of it.
#[test]
fn t51_a_store_comes_up_as_it_was_day_after_day() {
    let soak = Soak { seed: 7, days: 14, steps_a_day: 120 };
    let mut days = 0;
    let soaked = soak.run(&mut |day, so_far| {
        assert_eq!((day, so_far.file_bytes.len()), (days, days + 1));
        days += 1;
    });
    let soaked = soaked.unwrap_or_else(|what| panic!("{what}"));
    assert_eq!((days, soaked.recounts), (14, 2));
    assert!(soaked.commits > 1_000 && soaked.crashes > 2 && soaked.failures > 2, "{soaked:?}");
    assert_eq!(soaked.kept_bytes.len(), 2);
}

/// T51. Former versions of rules, limits and registry go when they were replaced too long ago, or too often since; that
/// which is in force stays, however old it is.
#[test]
fn t51_former_versions_of_documents_go_and_the_one_in_force_stays() {
    const DAY: i64 = 24 * 3_600 * 1_000_000;
    let clock = Arc::new(ManualClock::at(DAY));
    let mut retention = Retention::default().rows_max(8);
    retention.age_max = 3 * DAY;
    let options = || still().retention(retention).clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let larder = options().open_in_memory().unwrap();
    let mut random = Random::new(1);
    // Nothing compresses, so that what is kept is seen in a snapshot.
    let mut set = |larder: &Larder| {
        let comment: String = random.bytes(20_000).iter().map(|byte| char::from(b'0' + byte % 64)).collect();
        let text = format!("# {}\ndefault = \"allow\"\n", comment.replace('\\', "/"));
        larder.root().unwrap().set_document(DocumentKind::Rules, &text).unwrap();
        text
    };
    let versions_kept = |larder: &Larder| {
        let mut snapshot = Vec::new();
        larder.snapshot_into(&mut snapshot, &SnapshotOptions::new()).unwrap();
        // A comment of 64 characters takes 6 bits of each.
        snapshot.len() / 15_000
    };
    for _ in 0..6 {
        set(&larder);
        clock.advance(DAY);
    }
    assert_eq!(versions_kept(&larder), 6);
    let _ = larder.upkeep(clock.now()).unwrap();
    // That of the third day was replaced three days ago.
    assert_eq!(versions_kept(&larder), 4, "what was replaced up to three days ago is kept");
    for _ in 0..20 {
        set(&larder);
    }
    let text = set(&larder);
    let _ = larder.upkeep(clock.now()).unwrap();
    assert_eq!(versions_kept(&larder), 8, "no more than eight");
    clock.advance(100 * DAY);
    let _ = larder.upkeep(clock.now()).unwrap();
    assert_eq!(versions_kept(&larder), 1);
    let rules = larder.root().unwrap().document(DocumentKind::Rules).unwrap();
    assert_eq!((rules.text, rules.version), (text, 27));
    verified(&larder);
}
