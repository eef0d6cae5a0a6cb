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
    rows: BTreeMap<(Table, Bytes), Option<Bytes>>,
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
        self.rows.is_empty() && self.removed.is_empty()
    }

    /// Gives about how many bytes the rows have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn put(&mut self, table: Table, key: impl Into<Bytes>, body: impl Into<Bytes>) {
        let (key, body) = (key.into(), body.into());
        self.bytes += key.len() + body.len() + 16;
        self.rows.insert((table, key), Some(body));
    }

    pub(crate) fn remove(&mut self, table: Table, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len() + 8;
        self.rows.insert((table, key), None);
    }

    /// Removes everything from `start` up to, and without, `end`; what was put there before goes too.
    pub(crate) fn remove_range(&mut self, table: Table, start: Bytes, end: Option<Bytes>, count: u64) {
        self.rows.retain(|(row_table, key), _| {
            *row_table != table
                || key.as_ref() < start.as_ref()
                || end.as_ref().is_some_and(|end| key.as_ref() >= end.as_ref())
        });
        self.bytes += start.len() * 2 + 24;
        self.removed.push(RemovedRange { table, start, end, count });
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Said {
        if self.is_empty() {
            return Said::Nothing;
        }
        // A key of Bytes is needed to look a pair up; small keys are copied, which is cheaper than a second index.
        match self.rows.get(&(table, Bytes::copy_from_slice(key))) {
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
        if self.rows.is_empty() {
            return None;
        }
        let from = match start {
            Bound::Included(key) => Bound::Included((table, Bytes::copy_from_slice(key))),
            Bound::Excluded(key) => Bound::Excluded((table, Bytes::copy_from_slice(key))),
            Bound::Unbounded => Bound::Included((table, Bytes::new())),
        };
        let ((found, key), body) = self.rows.range((from, Bound::Unbounded)).next()?;
        let beyond = match end {
            Bound::Included(end) => key.as_ref() > end,
            Bound::Excluded(end) => key.as_ref() >= end,
            Bound::Unbounded => false,
        };
        if *found != table || beyond {
            return None;
        }
        Some((key.clone(), body.clone().map_or(Said::Gone, Said::Is)))
    }

    /// Lists the changes as operations: the removed ranges, then the rows in the order of table and key.
    pub(crate) fn write(&self, builder: &mut WriteSetBuilder) -> Result<(), WriteSetError> {
        for range in &self.removed {
            builder.delete_range(range.table.number(), &range.start, range.end.as_deref(), range.count)?;
        }
        for ((table, key), body) in &self.rows {
            match body {
                Some(body) => builder.put(table.number(), key, body)?,
                None => builder.delete(table.number(), key)?,
            }
        }
        Ok(())
    }
}
