//! Idempotency keys: a row for each commit that was made with one, so that its outcome can be asked for.
//!
//! Key: principal, 0, idempotency key. Value: commit sequence u64, commit time i64.

use bytes::Bytes;

use crate::commit::CommitInfo;
use crate::error::{ErrorKind, Result};
use crate::store::corrupt;

/// The most bytes that an idempotency key may have.
pub(crate) const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 255;

/// What became of a commit, asked for by its idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum CommitOutcome {
    /// It was committed.
    Committed(CommitInfo),
    /// Nothing is known of it: it was not committed, or it was before `kept_since` and its row is gone.
    Unknown {
        /// Every commit with an idempotency key since this time is known; 0 if no row was ever dropped.
        kept_since: i64,
    },
}

/// A row of the table.
pub(crate) struct OnceRow;

impl OnceRow {
    pub(crate) fn key(principal: &str, idempotency_key: &str) -> Result<Bytes> {
        let what = match idempotency_key.len() {
            0 => "it is empty".to_owned(),
            1..=IDEMPOTENCY_KEY_LENGTH_MAX => {
                return Ok([principal.as_bytes(), &[0], idempotency_key.as_bytes()].concat().into());
            }
            length => format!("it has {length} bytes, more than {IDEMPOTENCY_KEY_LENGTH_MAX}"),
        };
        Err(ErrorKind::InvalidName { field: "idempotency key", what }.into())
    }

    pub(crate) fn encode(info: &CommitInfo) -> Vec<u8> {
        [info.sequence.to_le_bytes(), info.time.to_le_bytes()].concat()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<CommitInfo> {
        let parts = row.split_first_chunk::<8>().zip(row.last_chunk::<8>()).filter(|_| row.len() == 16);
        let Some(((sequence, _), time)) = parts else {
            return Err(corrupt("a row of the idempotency keys is malformed"));
        };
        Ok(CommitInfo { sequence: u64::from_le_bytes(*sequence), time: i64::from_le_bytes(*time) })
    }
}
