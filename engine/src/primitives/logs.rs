//! Logs and progress, apart from the records: a listing does not read them, and an entry does not rewrite a record.
//!
//! ```text
//! by its number: [kind u8][time i64][text]
//! by 2^64 - 1:   [time i64][done u64][total u64][text]
//! ```

use larder_format::{LogEntry, LogKind, Micros};

use crate::error::Result;
use crate::store::corrupt;

/// How many entries are kept of a log; the oldest go.
pub(crate) const LOG_ENTRIES_MAX: usize = 1_000;
/// The number that progress stands under, behind all entries.
pub(crate) const PROGRESS: u64 = u64::MAX;

/// How far the work on an asset is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// When it was told.
    pub time: Micros,
    /// How much is done.
    pub done: u64,
    /// Of how much; 0 if that is not known.
    pub total: u64,
    /// What is being done.
    pub message: String,
}

pub(crate) fn encode_entry(entry: &LogEntry) -> Vec<u8> {
    [&[entry.kind.number()][..], &entry.time.to_le_bytes(), entry.message.as_bytes()].concat()
}

pub(crate) fn decode_entry(row: &[u8]) -> Result<LogEntry> {
    let parts = || {
        let (kind, rest) = row.split_first()?;
        let (time, text) = rest.split_first_chunk::<8>()?;
        let message = String::from_utf8(text.to_vec()).ok()?;
        Some(LogEntry { kind: LogKind::from_number(*kind)?, time: i64::from_le_bytes(*time), message })
    };
    parts().ok_or_else(|| corrupt("an entry of a log is malformed"))
}

impl Progress {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let numbers = [self.time.cast_unsigned(), self.done, self.total].map(u64::to_le_bytes);
        [numbers.as_flattened(), self.message.as_bytes()].concat()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        let parts = || {
            let (time, rest) = row.split_first_chunk::<8>()?;
            let (done, rest) = rest.split_first_chunk::<8>()?;
            let (total, text) = rest.split_first_chunk::<8>()?;
            Some(Self {
                time: i64::from_le_bytes(*time),
                done: u64::from_le_bytes(*done),
                total: u64::from_le_bytes(*total),
                message: String::from_utf8(text.to_vec()).ok()?,
            })
        };
        parts().ok_or_else(|| corrupt("a row of progress is malformed"))
    }
}
