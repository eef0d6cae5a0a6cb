//! One consistent view: a transaction's own changes, over what was accepted before it, over what is in the store.
//!
//! One merge serves write transactions, which have all three, and read transactions, which have no changes of
//! their own, and of what was accepted only what was committed when they began.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{Key, PayloadState, Record};

use super::changes::Changes;
use crate::cache::RecordCache;
use crate::columns::{self, Summary};
use crate::commit::{Layer, Said};
use crate::error::Result;
use crate::guard::Row;
use crate::primitives::DefinedCollection;
use crate::store::{ChunkPage, Position, Snapshot, SnapshotRange, StoredRow, Table, chunk_key};

/// From how many bytes on a body may keep the write-set that it lies in.
const KEPT_WHOLE: usize = 64 << 10;
/// After how many records the age of a reader is looked at again.
pub(super) const LOOK_AT_AGE_EVERY: u32 = 1_024;

/// Layers, newest first, over a snapshot.
#[derive(Clone)]
pub(crate) struct View {
    layers: Arc<[Arc<Layer>]>,
    snapshot: Arc<Snapshot>,
    cache: Arc<RecordCache>,
    upto: u64,
    head: Position,
}

impl View {
    /// Layers over a snapshot, with what they say up to a sequence number; `head` is the last commit that is visible.
    pub(crate) fn new(
        layers: Arc<[Arc<Layer>]>,
        snapshot: Arc<Snapshot>,
        cache: Arc<RecordCache>,
        upto: u64,
        head: Position,
    ) -> Self {
        Self { layers, snapshot, cache, upto, head }
    }

    /// Gives the last commit that was visible to all when the view was taken.
    pub(crate) fn head(&self) -> &Position {
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
        self.get_as(own, table, key, |body| body)
    }

    /// Gives the body under a key, to be kept: what lies in a write-set is copied, which would be kept whole, unless it is a good
    /// part of one.
    pub(crate) fn get_to_keep(
        &self,
        own: Option<&Changes>,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Bytes>> {
        self.get_as(own, table, key, |body| {
            if body.len() < KEPT_WHOLE { Bytes::copy_from_slice(&body) } else { body }
        })
    }

    /// Gives the body under a key: what lies over the store is made into what is wanted of it.
    fn get_as(
        &self,
        own: Option<&Changes>,
        table: Table,
        key: &[u8],
        take: impl FnOnce(Bytes) -> Bytes,
    ) -> Result<Option<Bytes>> {
        match self.said(own, table, key) {
            Said::Is(body) => Ok(Some(take(body))),
            Said::Gone => Ok(None),
            Said::Nothing => self.snapshot.get(table, key),
        }
    }

    /// Gives a chunk: in its page where it lies in the store, which must not be kept longer than a reader of the view.
    pub(crate) fn chunk(&self, id: u64, number: u64) -> Result<Option<Bytes>> {
        match self.said(None, Table::Chunks, &chunk_key(id, number)) {
            Said::Is(body) => Ok(Some(body)),
            Said::Gone => Ok(None),
            Said::Nothing => Ok(self.snapshot.chunk_in_place(id, number)?.map(ChunkPage::into_bytes)),
        }
    }

    /// Gives the columns of records as they are in this view, which has no changes of its own over it; `look` is asked now
    /// and then whether to go on making them.
    pub(crate) fn columns(&self, look: impl Fn() -> Result<()>) -> Result<Option<columns::Table>> {
        self.cache.columns().at(self.head.sequence, |push| {
            let mut rows = self.range(None, Table::Records, Bound::Unbounded, Bound::Unbounded)?;
            let mut count = 0_u32;
            while let Some(row) = rows.next_row() {
                if count.is_multiple_of(LOOK_AT_AGE_EVERY) {
                    look()?;
                }
                count = count.wrapping_add(1);
                let row = row?;
                let (record, _) = Record::in_place(row.body())?;
                if !push(Summary::of(row.key(), &record)) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Gives what a section of a record says of a collection.
    pub(crate) fn definition(&self, section: &[u8]) -> Result<DefinedCollection> {
        self.cache.definition(section)
    }

    /// Gives the row of a record, from the cache where that has it.
    pub(crate) fn row(&self, own: Option<&Changes>, key: &[u8]) -> Result<Option<Row>> {
        let at = self.head.sequence;
        // What is newer than what is visible is in the layers of a writer; the cache knows nothing of it.
        if own.is_none()
            && let Some(row) = self.cache.get(key, at, Row::clone)
        {
            return Ok(Some(row));
        }
        let body = match self.said(own, Table::Records, key) {
            // A copy: the body lies in a write-set, which would be kept whole for it.
            Said::Is(body) => Bytes::copy_from_slice(&body),
            Said::Gone => return Ok(None),
            Said::Nothing => {
                if own.is_some()
                    && let Some(row) = self.cache.get(key, at, Row::clone)
                {
                    return Ok(Some(row));
                }
                let Some(body) = self.snapshot.get(Table::Records, key)? else { return Ok(None) };
                body
            }
        };
        let (record, inline) = Record::split(&body)?;
        let row = Row { record, inline };
        if own.is_none() {
            self.cache.fill(key, at, &row);
        }
        Ok(Some(row))
    }

    /// Gives a payload that lies in rows of its own, if it is in the cache; else nothing.
    pub(crate) fn kept_payload(&self, key: &Key, row: &Row) -> Bytes {
        let PayloadState::Stored { hash, .. } = row.record.payload() else { return Bytes::new() };
        self.cache.payload(key.encoded(), hash)
    }

    /// Keeps a payload in the cache that lies in rows of its own.
    pub(crate) fn keep_payload(&self, key: &Key, row: &Row, payload: &[u8]) {
        if let PayloadState::Stored { hash, .. } = row.record.payload() {
            self.cache.fill_payload(key.encoded(), hash, payload);
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
        let rows = self.snapshot.range(table, as_slice(&start), as_slice(&end))?;
        let own = own.filter(|own| !own.is_empty()).map(Source::Own);
        let layers = self.layers.iter().map(|layer| Source::Layer(layer, self.upto));
        let sources = own.into_iter().chain(layers).map(|source| (source.next(table, &start, &end), source));
        let sources = sources.collect();
        Ok(ViewRange { table, end, sources, stored: None, rows, ended: false })
    }

    /// Gives the first and the last key of the store between two keys; what lies over the store is not asked.
    pub(crate) fn ends(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<Option<(Bytes, Bytes)>> {
        let mut rows = self.snapshot.range(table, start, end)?;
        let key = |row: StoredRow| Bytes::copy_from_slice(row.key());
        let Some(first) = rows.next().transpose()?.map(key) else { return Ok(None) };
        let last = rows.next_back().transpose()?.map(key);
        Ok(last.map(|last| (first, last)))
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

/// What lies over the snapshot.
enum Source<'a> {
    Own(&'a Changes),
    Layer(&'a Layer, u64),
}

impl Source<'_> {
    /// Gives the first key at or behind a bound of which the source says something.
    fn next(&self, table: Table, start: &Bound<Bytes>, end: &Bound<Bytes>) -> Option<(Bytes, Said)> {
        match self {
            Self::Own(changes) => changes.next(table, as_slice(start), as_slice(end)),
            Self::Layer(layer, upto) => layer.next(table, as_slice(start), as_slice(end), *upto),
        }
    }

    /// Tells whether a range that was removed covers a key.
    fn has_removed(&self, table: Table, key: &[u8]) -> bool {
        match self {
            Self::Own(changes) => changes.get(table, key) == Said::Gone,
            Self::Layer(layer, upto) => layer.gone_at(table, key, *upto).is_some(),
        }
    }
}

/// A row of a view: in its page, or what a source over the store says. Must not be kept longer than the view.
pub(crate) enum ViewRow {
    Stored(StoredRow),
    Said { key: Bytes, body: Bytes },
}

impl ViewRow {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Stored(row) => row.key(),
            Self::Said { key, .. } => key,
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        match self {
            Self::Stored(row) => row.body(),
            Self::Said { body, .. } => body,
        }
    }

    /// Copies the row out of where it lies, its body too where that is in a write-set, which would be kept whole.
    pub(crate) fn to_bytes(&self) -> (Bytes, Bytes) {
        (Bytes::copy_from_slice(self.key()), Bytes::copy_from_slice(self.body()))
    }
}

/// Rows of a view in the order of their keys. Ends after the first error.
pub(crate) struct ViewRange<'a> {
    table: Table,
    end: Bound<Bytes>,
    /// Newest first, each with the next that it says.
    sources: Vec<(Option<(Bytes, Said)>, Source<'a>)>,
    /// The next of the store's rows, if it was looked at. Goes before them.
    stored: Option<StoredRow>,
    rows: SnapshotRange,
    ended: bool,
}

impl ViewRange<'_> {
    /// Gives the next row where it lies.
    pub(crate) fn next_row(&mut self) -> Option<Result<ViewRow>> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }

    fn step(&mut self) -> Result<Option<ViewRow>> {
        if self.sources.is_empty() {
            return Ok(self.rows.next().transpose()?.map(ViewRow::Stored));
        }
        loop {
            if self.stored.is_none() {
                self.stored = self.rows.next().transpose()?;
            }
            let least = self.sources.iter().filter_map(|(next, _)| next.as_ref()).map(|(key, _)| key).min();
            match (&self.stored, least) {
                (None, None) => return Ok(None),
                (Some(row), least) if least.is_none_or(|least| row.key() < least.as_ref()) => {
                    let is_removed =
                        self.sources.iter().any(|(_, source)| source.has_removed(self.table, row.key()));
                    let row = self.stored.take().map(ViewRow::Stored);
                    if !is_removed {
                        return Ok(row);
                    }
                }
                (stored, Some(key)) => {
                    let key = key.clone();
                    let is_here = stored.as_ref().is_some_and(|row| row.key() == key.as_ref());
                    let under = if is_here { self.stored.take() } else { None };
                    match self.take(&key) {
                        Said::Is(body) => return Ok(Some(ViewRow::Said { key, body })),
                        Said::Gone => {}
                        Said::Nothing => {
                            if let Some(row) = under {
                                return Ok(Some(ViewRow::Stored(row)));
                            }
                        }
                    }
                }
                (Some(_), None) => {}
            }
        }
    }

    /// Takes what the newest source says of a key, and steps all sources behind it.
    fn take(&mut self, key: &Bytes) -> Said {
        let mut said = Said::Nothing;
        for (next, source) in &mut self.sources {
            let here = if next.as_ref().is_some_and(|(at, _)| at == key) {
                let here = next.take().map(|(_, said)| said);
                *next = source.next(self.table, &Bound::Excluded(key.clone()), &self.end);
                here
            } else if said == Said::Nothing && source.has_removed(self.table, key) {
                Some(Said::Gone)
            } else {
                None
            };
            if said == Said::Nothing {
                said = here.unwrap_or(Said::Nothing);
            }
        }
        said
    }
}

impl Iterator for ViewRange<'_> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().map(|row| row.map(|row| row.to_bytes()))
    }
}
