//! Where time and randomness come from: from outside, so that what larder does can be done again.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use larder_format::Micros;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Gives the microseconds since 1970-01-01 00:00 UTC. May go backwards; larder's commit times do not.
    fn now(&self) -> Micros;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn now(&self) -> Micros {
        let since = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH);
        since(std::time::SystemTime::now())
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that only moves when it is told to.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Makes a clock that stands at a time.
    #[must_use]
    pub fn at(time: Micros) -> Self {
        Self(AtomicI64::new(time))
    }

    /// Sets the time, forwards or backwards.
    pub fn set(&self, time: Micros) {
        self.0.store(time, Ordering::SeqCst);
    }

    /// Moves the time on by microseconds; a negative number moves it back.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.0.load(Ordering::SeqCst)
    }
}

/// Gives ids that nobody else gives.
pub trait IdSource: Send + Sync + 'static {
    /// Gives 128 bits that were not given before.
    fn next_id(&self) -> u128;
}

/// Random ids, from the operating system by way of the standard library's hash keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn next_id(&self) -> u128 {
        use std::hash::{BuildHasher, Hasher};
        let half = |salt: u64| {
            let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
            hasher.write_u64(salt);
            u128::from(hasher.finish())
        };
        (half(1) << 64) | half(2)
    }
}

/// Ids that count up from a number, for tests that must do the same thing twice.
#[derive(Debug, Default)]
pub struct CountingIds(AtomicU64);

impl CountingIds {
    /// Makes a source that begins with `first`.
    #[must_use]
    pub fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }
}

impl IdSource for CountingIds {
    fn next_id(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
