//! What a write transaction has changed so far, by table and key; nothing of it is seen by anyone else.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use larder_format::{WriteSetBuilder, WriteSetError};

use crate::commit::Said;
use crate::store::Table;

/// Rows to put and to remove.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    rows: BTreeMap<Table, BTreeMap<Bytes, Option<Bytes>>>,
    removed: Vec<RemovedRange>,
    bytes: usize,
}

#[derive(Debug)]
struct RemovedRange {
    table: Table,
    start: Bytes,
    end: Option<Bytes>,
    count: u64,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.values().all(BTreeMap::is_empty) && self.removed.is_empty()
    }

    /// Gives about how many bytes the rows have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn put(&mut self, table: Table, key: impl Into<Bytes>, body: impl Into<Bytes>) {
        let (key, body) = (key.into(), body.into());
        self.set(table, key, Some(body));
    }

    pub(crate) fn remove(&mut self, table: Table, key: impl Into<Bytes>) {
        self.set(table, key.into(), None);
    }

    fn set(&mut self, table: Table, key: Bytes, body: Option<Bytes>) {
        let bytes = |body: &Option<Bytes>| body.as_ref().map_or(8, |body| body.len() + 16);
        let (length, added) = (key.len(), key.len() + bytes(&body));
        // What is put again, as an aggregate is with every row, is there once.
        let before = self.rows.entry(table).or_default().insert(key, body);
        self.bytes = self.bytes + added - before.map_or(0, |before| length + bytes(&before));
    }

    /// Removes everything from `start` up to, and without, `end`; what was put there before goes too.
    pub(crate) fn remove_range(&mut self, table: Table, start: Bytes, end: Option<Bytes>, count: u64) {
        if let Some(rows) = self.rows.get_mut(&table) {
            rows.retain(|key, _| *key < start || end.as_ref().is_some_and(|end| key >= end));
        }
        self.bytes += start.len() * 2 + 24;
        self.removed.push(RemovedRange { table, start, end, count });
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Said {
        match self.rows.get(&table).and_then(|rows| rows.get(key)) {
            Some(Some(body)) => Said::Is(body.clone()),
            Some(None) => Said::Gone,
            None if self.is_removed(table, key) => Said::Gone,
            None => Said::Nothing,
        }
    }

    fn is_removed(&self, table: Table, key: &[u8]) -> bool {
        self.removed.iter().any(|range| {
            range.table == table
                && key >= range.start.as_ref()
                && range.end.as_ref().is_none_or(|end| key < end.as_ref())
        })
    }

    /// Gives the first key at or behind a bound that was changed.
    pub(crate) fn next(&self, table: Table, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Option<(Bytes, Said)> {
        let (key, body) = self.rows.get(&table)?.range::<[u8], _>((start, Bound::Unbounded)).next()?;
        let beyond = match end {
            Bound::Included(end) => key.as_ref() > end,
            Bound::Excluded(end) => key.as_ref() >= end,
            Bound::Unbounded => false,
        };
        if beyond {
            return None;
        }
        Some((key.clone(), body.clone().map_or(Said::Gone, Said::Is)))
    }

    /// Lists the changes as operations: the removed ranges, then the rows in the order of table and key.
    pub(crate) fn write(&self, builder: &mut WriteSetBuilder) -> Result<(), WriteSetError> {
        for range in &self.removed {
            builder.delete_range(range.table.number(), &range.start, range.end.as_deref(), range.count)?;
        }
        for (table, rows) in &self.rows {
            for (key, body) in rows {
                match body {
                    Some(body) => builder.put(table.number(), key, body)?,
                    None => builder.delete(table.number(), key)?,
                }
            }
        }
        Ok(())
    }
}
