//! Deadlines: one table in the order of time, for whatever is due at some time.
//!
//! Key: `[time, its sign bit flipped, i64 big-endian][purpose u8][encoded key]`. Value: empty. A row is there as long as
//! what it is about has this deadline, so that none fires twice, and none that was moved fires at all.

use bytes::Bytes;
use larder_format::{Micros, NEVER, Record, Status};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// An asset expires.
    Expiry,
    /// A claim is given up by whoever holds it.
    Claim,
}

impl Purpose {
    fn number(self) -> u8 {
        match self {
            Self::Expiry => 1,
            Self::Claim => 2,
        }
    }

    /// Gives what a row is about.
    pub(crate) fn of_row(row_key: &[u8]) -> Option<Self> {
        deadline_of(row_key).map(|(_, purpose, _)| purpose)
    }

    /// Gives its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Claim => "claim",
        }
    }
}

const SIGN: u64 = 1 << 63;

/// The key of the row that says when something is due.
pub(crate) fn deadline_key(at: Micros, purpose: Purpose, key: &[u8]) -> Bytes {
    [&(at.cast_unsigned() ^ SIGN).to_be_bytes()[..], &[purpose.number()], key].concat().into()
}

/// When something is due, what, and the encoded key that it is about.
pub(crate) fn deadline_of(row_key: &[u8]) -> Option<(Micros, Purpose, &[u8])> {
    let (time, rest) = row_key.split_first_chunk::<8>()?;
    let (purpose, key) = rest.split_first()?;
    let purpose = match purpose {
        1 => Purpose::Expiry,
        2 => Purpose::Claim,
        _ => return None,
    };
    Some(((u64::from_be_bytes(*time) ^ SIGN).cast_signed(), purpose, key))
}

/// When an asset is to be marked as expired. What nothing makes again is never marked: a reader that asks for what is
/// loadable is told by its time all the same.
pub(crate) fn expiry_of(record: &Record) -> Option<Micros> {
    let is_marked = is_expirable(&record.status()) && !record.is_volatile();
    Some(record.expires()).filter(|at| is_marked && *at != NEVER)
}

/// Tells whether an asset of this status can be marked as expired.
pub(crate) fn is_expirable(status: &Status) -> bool {
    matches!(status, Status::Ready | Status::Override)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_in_the_order_of_time() {
        let times = [Micros::MIN, -5, 0, 1, 1_000_000, Micros::MAX - 1];
        let rows: Vec<Bytes> = times.iter().map(|at| deadline_key(*at, Purpose::Expiry, b"a\0")).collect();
        assert!(rows.is_sorted());
        for (at, row) in times.iter().zip(&rows) {
            assert_eq!(deadline_of(row), Some((*at, Purpose::Expiry, &b"a\0"[..])));
        }
    }
}
