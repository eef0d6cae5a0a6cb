//! A store that gets old.

use larder_tests::Soak;

/// T51. Two weeks of a store, with failures of the disk and losses of power: whenever it is opened it is as it was, it
/// recounts, and it takes no more room in the second week than in the first, but for the doubling by which a file grows. The
/// crash lab does years of it.
#[test]
fn t51_a_store_comes_up_as_it_was_day_after_day_and_takes_no_more_room() {
    let soak = Soak { seed: 7, days: 14, steps_a_day: 120 };
    let mut days = 0;
    let soaked = soak.run(&mut |day, so_far| {
        assert_eq!((day, so_far.file_bytes.len()), (days, days + 1));
        days += 1;
    });
    let soaked = soaked.unwrap_or_else(|what| panic!("{what}"));
    assert_eq!((days, soaked.recounts), (14, 2));
    assert!(soaked.commits > 1_000 && soaked.crashes > 2 && soaked.failures > 2, "{soaked:?}");
    let (first, second) = soaked.file_bytes.split_at(7);
    let most = |week: &[u64]| week.iter().max().copied().unwrap_or(0);
    assert!(most(second) <= 2 * most(first), "{soaked:?}");
}
