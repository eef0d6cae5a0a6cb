//! The audit: who asked for what and was refused, and, if asked for, what was allowed.
//!
//! Refusals have no commit of their own: they wait in a bounded buffer and go with the next commit, or with one
//! that upkeep makes for them. Key: audit sequence, u64 big-endian. Value:
//! `[time i64][right u8][allowed u8][dropped u32][principal length u16][place length u16][principal][place][by]`.

use std::collections::VecDeque;

use larder_format::{Micros, Right};
use parking_lot::Mutex;

use crate::error::Result;
use crate::store::corrupt;

/// How many entries wait at most; beyond, the oldest are dropped and counted.
const AUDIT_WAITING_MAX: usize = 4_096;

/// One entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEntry {
    /// When it was asked.
    pub time: Micros,
    /// Who asked.
    pub principal: String,
    /// What for.
    pub right: String,
    /// Where: a key, or a prefix.
    pub place: String,
    /// The answer.
    pub allowed: bool,
    /// What decided.
    pub by: String,
    /// How many entries before this one were dropped because too many waited.
    pub dropped_before: u32,
}

/// Entries that wait for a commit.
#[derive(Debug, Default)]
pub(crate) struct AuditBuffer(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<AuditEntry>,
    dropped: u32,
}

impl AuditBuffer {
    pub(crate) fn push(&self, mut entry: AuditEntry) {
        let mut waiting = self.0.lock();
        if waiting.entries.len() >= AUDIT_WAITING_MAX {
            waiting.entries.pop_front();
            waiting.dropped = waiting.dropped.saturating_add(1);
        }
        entry.dropped_before = std::mem::take(&mut waiting.dropped);
        waiting.entries.push_back(entry);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().entries.is_empty()
    }

    /// Takes out what waits.
    pub(crate) fn take(&self) -> Vec<AuditEntry> {
        let mut waiting = self.0.lock();
        if waiting.entries.is_empty() { Vec::new() } else { waiting.entries.drain(..).collect() }
    }

    /// Puts back what could not be committed.
    pub(crate) fn put_back(&self, entries: Vec<AuditEntry>) {
        let mut waiting = self.0.lock();
        for entry in entries.into_iter().rev() {
            waiting.entries.push_front(entry);
        }
    }
}

impl AuditEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let cut = |text: &str| u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes();
        let right = Right::from_name(&self.right).map_or(0, Right::number);
        let mut row = Vec::with_capacity(18 + self.principal.len() + self.place.len() + self.by.len());
        row.extend_from_slice(&self.time.to_le_bytes());
        row.extend_from_slice(&[right, u8::from(self.allowed)]);
        row.extend_from_slice(&self.dropped_before.to_le_bytes());
        row.extend_from_slice(&cut(&self.principal));
        row.extend_from_slice(&cut(&self.place));
        row.extend_from_slice(self.principal.as_bytes());
        row.extend_from_slice(self.place.as_bytes());
        row.extend_from_slice(self.by.as_bytes());
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        let parts = || {
            let (time, rest) = row.split_first_chunk::<8>()?;
            let ([right, allowed], rest) = rest.split_first_chunk::<2>()?;
            let (dropped, rest) = rest.split_first_chunk::<4>()?;
            let (principal_length, rest) = rest.split_first_chunk::<2>()?;
            let (place_length, rest) = rest.split_first_chunk::<2>()?;
            let (principal, rest) =
                rest.split_at_checked(usize::from(u16::from_le_bytes(*principal_length)))?;
            let (place, by) = rest.split_at_checked(usize::from(u16::from_le_bytes(*place_length)))?;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
            Some(Self {
                time: i64::from_le_bytes(*time),
                principal: text(principal)?,
                right: Right::from_number(*right)
                    .map_or_else(|| format!("right {right}"), |right| right.to_string()),
                place: text(place)?,
                allowed: *allowed == 1,
                by: text(by)?,
                dropped_before: u32::from_le_bytes(*dropped),
            })
        };
        parts().ok_or_else(|| corrupt("an entry of the audit is malformed"))
    }
}
