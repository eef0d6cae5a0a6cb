//! What is counted of a queue, over its whole life: totals that never go back.

use bytes::Bytes;
use larder::{CollectionMut, Micros, RowDraft};

use super::error::QueueError;

/// The key of the row.
pub(super) const TOTALS: &str = "totals";
/// How many classes of waiting times there are: below 1 ms, and from 4^(n-1) ms to 4^n ms.
pub(super) const WAIT_CLASSES: usize = 12;
const COUNTS: usize = 7;

/// What was done in a transaction, and all that ever was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) enqueued: u64,
    pub(super) dequeued: u64,
    pub(super) acked: u64,
    pub(super) nacked: u64,
    pub(super) expired: u64,
    pub(super) died: u64,
    pub(super) purged: u64,
    /// How many deliveries came how long after the message was enqueued.
    pub(super) waits: [u64; WAIT_CLASSES],
}

impl Totals {
    fn counts(&self) -> [u64; COUNTS] {
        [self.enqueued, self.dequeued, self.acked, self.nacked, self.expired, self.died, self.purged]
    }

    pub(super) fn encode(&self) -> Bytes {
        self.counts()
            .iter()
            .chain(&self.waits)
            .flat_map(|count| count.to_le_bytes())
            .collect::<Vec<u8>>()
            .into()
    }

    pub(super) fn decode(value: &[u8]) -> Self {
        let mut counts = value
            .chunks_exact(8)
            .map(|chunk| chunk.first_chunk().map_or(0, |count| u64::from_le_bytes(*count)));
        let mut next = || counts.next().unwrap_or(0);
        Self {
            enqueued: next(),
            dequeued: next(),
            acked: next(),
            nacked: next(),
            expired: next(),
            died: next(),
            purged: next(),
            waits: std::array::from_fn(|_| next()),
        }
    }

    fn with(mut self, other: &Self) -> Self {
        self.enqueued = self.enqueued.saturating_add(other.enqueued);
        self.dequeued = self.dequeued.saturating_add(other.dequeued);
        self.acked = self.acked.saturating_add(other.acked);
        self.nacked = self.nacked.saturating_add(other.nacked);
        self.expired = self.expired.saturating_add(other.expired);
        self.died = self.died.saturating_add(other.died);
        self.purged = self.purged.saturating_add(other.purged);
        self.waits.iter_mut().zip(other.waits).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        self
    }

    /// Counts a delivery.
    pub(super) fn deliver(&mut self, waited: Micros) {
        self.dequeued += 1;
        let ms = u64::try_from(waited / 1_000).unwrap_or(0);
        let class = (u64::BITS - ms.leading_zeros()).div_ceil(2) as usize;
        if let Some(count) = self.waits.get_mut(class.min(WAIT_CLASSES - 1)) {
            *count += 1;
        }
    }

    /// Adds it to what ever was.
    pub(super) fn book(&self, books: &mut CollectionMut<'_, '_>) -> Result<(), QueueError> {
        if *self == Self::default() {
            return Ok(());
        }
        let all = books.get(TOTALS)?.map_or_else(Self::default, |row| Self::decode(row.value()));
        books.put(TOTALS, RowDraft::new(all.with(self).encode()))?;
        Ok(())
    }
}
