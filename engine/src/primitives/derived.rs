//! What follows from other rows, and can be derived from them again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{Key, PayloadState, Record};

use super::claims::{ClaimRow, group_key};
use super::deadlines::{Purpose, deadline_key, expiry_of};
use super::edges::edge_key;
use super::history;
use super::tags::tag_key;
use crate::error::Result;
use crate::store::{Snapshot, Table};

/// A row that has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DerivedRow {
    pub(crate) table: Table,
    pub(crate) key: Bytes,
    pub(crate) body: Bytes,
}

impl DerivedRow {
    fn new(table: Table, key: impl Into<Bytes>, body: impl Into<Bytes>) -> Self {
        Self { table, key: key.into(), body: body.into() }
    }
}

/// The rows that follow from a record: its tags, what it was made from, when it expires.
pub(crate) fn derived_of_record(key: &Key, record: &Record) -> Vec<DerivedRow> {
    let tags = record.tags().map(|tag| DerivedRow::new(Table::Tags, tag_key(tag, key), Bytes::new()));
    let mut rows: Vec<DerivedRow> = tags.collect();
    rows.extend(record.dependencies().into_iter().map(|dependency| {
        DerivedRow::new(
            Table::Edges,
            edge_key(&dependency.on, key),
            dependency.version.to_be_bytes().to_vec(),
        )
    }));
    rows.extend(expiry_of(record).map(|at| {
        DerivedRow::new(Table::Deadlines, deadline_key(at, Purpose::Expiry, key.encoded()), Bytes::new())
    }));
    rows
}

/// The rows that follow from a claim on an encoded key: its time, its place in its group.
pub(crate) fn derived_of_claim(key: &[u8], claim: &ClaimRow) -> Vec<DerivedRow> {
    let deadline = deadline_key(claim.until, Purpose::Claim, key);
    let mut rows = vec![DerivedRow::new(Table::Deadlines, deadline, Bytes::new())];
    if !claim.group.is_empty() {
        rows.push(DerivedRow::new(Table::Claims, group_key(&claim.group, key), Bytes::new()));
    }
    rows
}

/// Tells whether all rows of a table follow from others.
pub(crate) fn is_all_derived(table: Table) -> bool {
    matches!(table, Table::Tags | Table::Deadlines | Table::Entries)
}

/// Tells whether a row of a table is there only because of another.
pub(crate) fn is_derived(table: Table, row_key: &[u8]) -> bool {
    match table {
        _ if is_all_derived(table) => true,
        Table::Edges => super::is_edge(row_key),
        Table::Claims => row_key.first() == Some(&3),
        _ => false,
    }
}

/// How many contents are counted in one pass, so that the memory for it is bounded: some 64 bytes each.
const COUNTED_AT_ONCE: u64 = 4_000_000;

/// How often records and former states refer to contents, counted in passes over the first byte of their digests.
pub(crate) struct ReferenceCounts {
    snapshot: Arc<Snapshot>,
    passes: u16,
    pass: u16,
}

/// The id of a content that is named under several; no payload has it.
const NO_ONE_ID: u64 = u64::MAX;

/// The references to the contents of a pass: by digest, the payload id that they name, and how many there are.
pub(crate) type References = BTreeMap<[u8; 32], (u64, u64)>;

impl ReferenceCounts {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Result<Self> {
        let passes = snapshot.count(Table::Contents)?.div_ceil(COUNTED_AT_ONCE).clamp(1, 256);
        Ok(Self { snapshot, passes: u16::try_from(passes).unwrap_or(256), pass: 0 })
    }

    /// Gives the range of first bytes of the next pass, and what was counted; nothing behind the last. Rows that cannot be
    /// read, or are malformed, are passed over.
    pub(crate) fn next(&mut self) -> Result<Option<(std::ops::RangeInclusive<u8>, References)>> {
        if self.pass == self.passes {
            return Ok(None);
        }
        let bound =
            |pass: u16| u8::try_from(u32::from(pass) * 256 / u32::from(self.passes)).unwrap_or(u8::MAX);
        let last = if self.pass + 1 == self.passes { u8::MAX } else { bound(self.pass + 1) - 1 };
        let range = bound(self.pass)..=last;
        let mut references = References::new();
        let mut count = |record: &Record| {
            if let PayloadState::Stored { hash, id, .. } = record.payload()
                && range.contains(&hash.0[0])
            {
                let entry = references.entry(hash.0).or_insert((id, 0));
                entry.1 += 1;
                if entry.0 != id {
                    entry.0 = NO_ONE_ID;
                }
            }
        };
        let readable = |table| -> Result<_> {
            let rows = self.snapshot.range(table, Bound::Unbounded, Bound::Unbounded)?;
            Ok(rows.over_damage().filter_map(Result::ok))
        };
        for row in readable(Table::Records)? {
            if let Ok((record, _)) = Record::in_place(row.body()) {
                count(&record.to_record());
            }
        }
        for row in readable(Table::History)? {
            if let Ok((_, was)) = history::decode(&Bytes::copy_from_slice(row.body())) {
                count(&was.record);
            }
        }
        self.pass += 1;
        Ok(Some((range, references)))
    }
}
