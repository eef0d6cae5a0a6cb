//! One consistent view: a transaction's own changes, over what was accepted before it, over what is in the store.
//!
//! One merge serves write transactions, which have all three, and read transactions, which have no changes of
//! their own, and of what was accepted only what was committed when they began.

use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::changes::Changes;
use crate::commit::{Layer, Said};
use crate::error::Result;
use crate::store::{Head, Snapshot, SnapshotRange, Table};

/// Layers, newest first, over a snapshot.
#[derive(Clone)]
pub(crate) struct View {
    layers: Arc<[Arc<Layer>]>,
    snapshot: Arc<Snapshot>,
    upto: u64,
    head: Head,
}

impl View {
    /// Layers over a snapshot, with what they say up to a sequence number; `head` is the last commit that is visible.
    pub(crate) fn new(layers: Arc<[Arc<Layer>]>, snapshot: Arc<Snapshot>, upto: u64, head: Head) -> Self {
        Self { layers, snapshot, upto, head }
    }

    /// Gives the last commit that was visible to all when the view was taken.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    fn said(&self, own: Option<&Changes>, table: Table, key: &[u8]) -> Said {
        let mut said = own.map_or(Said::Nothing, |own| own.get(table, key));
        for layer in self.layers.iter() {
            if said != Said::Nothing {
                break;
            }
            said = layer.get(table, key, self.upto);
        }
        said
    }

    /// Gives the body under a key.
    pub(crate) fn get(&self, own: Option<&Changes>, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        match self.said(own, table, key) {
            Said::Is(body) => Ok(Some(body)),
            Said::Gone => Ok(None),
            Said::Nothing => self.snapshot.get(table, key),
        }
    }

    /// Iterates over the rows of a table between two keys.
    pub(crate) fn range<'a>(
        &'a self,
        own: Option<&'a Changes>,
        table: Table,
        start: Bound<Bytes>,
        end: Bound<Bytes>,
    ) -> Result<ViewRange<'a>> {
        let rows = self.snapshot.range(table, as_slice(&start), as_slice(&end))?.peekable();
        let is_plain = own.is_none_or(Changes::is_empty) && self.layers.is_empty();
        Ok(ViewRange { view: self, own, table, from: start, end, rows, is_plain, ended: false })
    }

    /// Iterates over the rows whose keys begin with `prefix`.
    pub(crate) fn prefix<'a>(
        &'a self,
        own: Option<&'a Changes>,
        table: Table,
        prefix: &[u8],
    ) -> Result<ViewRange<'a>> {
        let end = prefix_end(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(Bytes::from(end)));
        self.range(own, table, Bound::Included(Bytes::copy_from_slice(prefix)), end)
    }
}

/// Gives the first key behind all that begin with `prefix`, if there is one.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    let byte = end.last_mut()?;
    *byte += 1;
    Some(end)
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Rows of a view in the order of their keys. Ends after the first error.
pub(crate) struct ViewRange<'a> {
    view: &'a View,
    own: Option<&'a Changes>,
    table: Table,
    from: Bound<Bytes>,
    end: Bound<Bytes>,
    rows: Peekable<SnapshotRange>,
    is_plain: bool,
    ended: bool,
}

impl ViewRange<'_> {
    /// Gives the least key that any source knows something of.
    fn least(&mut self) -> Result<Option<Bytes>> {
        let (from, end) = (as_slice(&self.from), as_slice(&self.end));
        let mut least = self.own.and_then(|own| own.next(self.table, from, end)).map(|(key, _)| key);
        for layer in self.view.layers.iter() {
            if let Some((key, _)) = layer.next(self.table, from, end, self.view.upto) {
                least = Some(least.map_or(key.clone(), |least| least.min(key)));
            }
        }
        match self.rows.peek() {
            Some(Ok((key, _))) if least.as_ref().is_none_or(|least| key < least) => Ok(Some(key.clone())),
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(least),
        }
    }

    fn step(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while let Some(key) = self.least()? {
            let row = match self.rows.peek() {
                Some(Ok((found, _))) if *found == key => self.rows.next().transpose()?,
                _ => None,
            };
            self.from = Bound::Excluded(key.clone());
            match self.view.said(self.own, self.table, &key) {
                Said::Is(body) => return Ok(Some((key, body))),
                Said::Gone => {}
                Said::Nothing => {
                    if let Some(row) = row {
                        return Ok(Some(row));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for ViewRange<'_> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_plain {
            return self.rows.next();
        }
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
