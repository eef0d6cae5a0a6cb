//! How long operations take: a histogram for each, by the clock of the store, since it was opened.
//!
//! A histogram has four buckets for each doubling, from eight microseconds to more than a day, so that no two times in
//! one are further apart than a quarter (the log-linear buckets of G. Tene's HdrHistogram, with two bits). Noting an operation
//! takes a lock that only the first of a name holds alone, and adds to four numbers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;
use serde::Serialize;

use larder_format::Micros;

/// How many buckets there are below each doubling.
const STEPS: u64 = 4;
/// 0 to 7 microseconds have a bucket each; what takes longer than a day and a third is in the last.
const BUCKETS: usize = 4 * 36;

/// How long one kind of operation took since the store was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// How many of them ended with an error.
    pub failed: u64,
    /// What they took together, in microseconds.
    pub micros: u64,
    /// What the longest took, in microseconds.
    pub micros_max: u64,
    /// The histogram: for each bucket that is not empty, the longest that lies in it, in microseconds, and how many lie there.
    pub buckets: Vec<(u64, u64)>,
}

impl Latency {
    /// Gives what a part of the operations took at most, in microseconds, up to a fourth more than it was: half of them for
    /// 0.5, all but one of a hundred for 0.99. 0 if there were none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.count as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut seen = 0;
        let reached = self.buckets.iter().find(|(_, count)| {
            seen += count;
            seen as f64 >= wanted
        });
        reached.map_or(self.micros_max, |(longest, _)| (*longest).min(self.micros_max))
    }
}

#[derive(Debug)]
struct Histogram {
    failed: AtomicU64,
    micros: AtomicU64,
    micros_max: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// The kinds of operations there were, by their names.
#[derive(Debug, Default)]
pub(crate) struct Latencies(RwLock<HashMap<&'static str, Arc<Histogram>>>);

impl Latencies {
    /// Notes an operation that is over.
    pub(crate) fn note(&self, operation: &'static str, micros: Micros, has_failed: bool) {
        if let Some(histogram) = self.0.read().get(operation) {
            return histogram.note(micros, has_failed);
        }
        self.0.write().entry(operation).or_default().note(micros, has_failed);
    }

    /// Tells of all that there were.
    pub(crate) fn tell(&self) -> BTreeMap<&'static str, Latency> {
        self.0.read().iter().map(|(operation, histogram)| (*operation, histogram.tell())).collect()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self { failed: zero(), micros: zero(), micros_max: zero(), buckets: std::array::from_fn(|_| zero()) }
    }
}

impl Histogram {
    fn note(&self, micros: Micros, has_failed: bool) {
        let micros = u64::try_from(micros).unwrap_or(0);
        if let Some(bucket) = self.buckets.get(bucket_of(micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.micros.fetch_add(micros, Relaxed);
        if micros > self.micros_max.load(Relaxed) {
            self.micros_max.fetch_max(micros, Relaxed);
        }
        if has_failed {
            self.failed.fetch_add(1, Relaxed);
        }
    }

    fn tell(&self) -> Latency {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).enumerate();
        let buckets: Vec<(u64, u64)> =
            counts.filter(|(_, count)| *count > 0).map(|(at, count)| (longest_of(at), count)).collect();
        Latency {
            count: buckets.iter().map(|(_, count)| count).sum(),
            failed: self.failed.load(Relaxed),
            micros: self.micros.load(Relaxed),
            micros_max: self.micros_max.load(Relaxed),
            buckets,
        }
    }
}

/// Gives the bucket of a time: four for each doubling, which its first three bits choose.
fn bucket_of(micros: u64) -> usize {
    let below = micros.max(1).ilog2().saturating_sub(2);
    let bucket = STEPS * u64::from(below) + (micros >> below);
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// Gives the longest time that lies in a bucket.
fn longest_of(bucket: usize) -> u64 {
    if bucket >= BUCKETS - 1 {
        return u64::MAX;
    }
    let bucket = bucket as u64;
    let below = (bucket / STEPS).saturating_sub(1);
    ((bucket - STEPS * below + 1) << below) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_behind_the_one_before_it_and_is_narrow(micros in 0..1_u64 << 36) {
            let bucket = bucket_of(micros);
            prop_assert!(micros <= longest_of(bucket));
            let first = bucket.checked_sub(1).map_or(0, |before| longest_of(before) + 1);
            prop_assert!(micros >= first);
            prop_assert!(bucket == BUCKETS - 1 || longest_of(bucket) - first <= first / 4);
        }
    }

    #[test]
    fn every_bucket_follows_the_one_before_it() {
        for bucket in 1..BUCKETS {
            assert!(longest_of(bucket) > longest_of(bucket - 1));
            assert_eq!(bucket_of(longest_of(bucket - 1)), bucket - 1);
            assert_eq!(bucket_of(longest_of(bucket - 1) + 1), bucket);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }
}
