//! Reading from a view as somebody: what read transactions and write transactions have in common.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{Child, Key, Prefix, Record, Right};

use super::changes::Changes;
use super::view::{View, ViewRange, ViewRow, prefix_end};
use crate::cache::PAYLOAD_KEPT_MAX;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, KeptGuard, Row};
use crate::larder::ReaderToken;
use crate::payload::{ChunkSource, Loadable, PayloadReader, TypedValue};
use crate::primitives::{ContentRow, tag_prefix, tagged_key};
use crate::store::Table;

/// Payloads up to this length are read together with their record.
const EAGER_LENGTH_MAX: u64 = 1 << 20;
/// The size of a page if none is asked for.
const PAGE_SIZE_DEFAULT: usize = 50;
/// The greatest size of a page.
const PAGE_SIZE_MAX: usize = 100;

/// An asset: a record and its payload, of one commit.
#[derive(Debug)]
pub struct Asset {
    key: Key,
    record: Record,
    payload: Payload,
}

enum Payload {
    Read(Bytes),
    Open(Box<parking_lot::Mutex<PayloadReader>>),
    Absent,
}

/// Tells how long it is, and not what it is.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Open(_) => f.write_str("not read yet"),
            Self::Absent => f.write_str("none"),
        }
    }
}

impl Asset {
    /// Makes the asset of a row whose payload lies in it, or is at hand, or that has none.
    pub(crate) fn of_row(key: &Key, row: &Row, at_hand: &Bytes) -> Option<Self> {
        let payload = match row.record.payload() {
            larder_format::PayloadState::Inline { .. } => Payload::Read(row.inline.clone()),
            larder_format::PayloadState::Absent(_) => Payload::Absent,
            larder_format::PayloadState::Stored { .. } if at_hand.is_empty() => return None,
            larder_format::PayloadState::Stored { .. } => Payload::Read(at_hand.clone()),
        };
        Some(Self { key: key.clone(), record: row.record.clone(), payload })
    }

    /// Gives the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Gives the record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Gives the payload. Above 1 MiB it is read now, from the state that the record is of.
    ///
    /// # Errors
    /// [`PayloadUnavailable`](ErrorKind::PayloadUnavailable) where there is none, which is not the same as one of
    /// 0 bytes; [`Corrupt`](ErrorKind::Corrupt) where what is stored is not what was written.
    pub fn bytes(&self) -> Result<Bytes> {
        match &self.payload {
            Payload::Read(bytes) => Ok(bytes.clone()),
            Payload::Open(reader) => reader.lock().read_whole().map_err(|error| error.at(&self.key)),
            Payload::Absent => Err(unavailable(&self.key, &self.record)),
        }
    }

    /// Turns the asset into a reader of its payload.
    ///
    /// # Errors
    /// [`PayloadUnavailable`](ErrorKind::PayloadUnavailable) where there is none.
    pub fn into_reader(self) -> Result<PayloadReader> {
        match self.payload {
            Payload::Read(bytes) => {
                let hash = self.record.payload().hash().unwrap_or_default();
                Ok(PayloadReader::inline(bytes, hash))
            }
            Payload::Open(reader) => Ok((*reader).into_inner()),
            Payload::Absent => Err(unavailable(&self.key, &self.record)),
        }
    }
}

fn unavailable(key: &Key, record: &Record) -> Error {
    use larder_format::{AbsentReason, PayloadState};
    let reason = match record.payload() {
        PayloadState::Absent(AbsentReason::Directory) => return Error::from(ErrorKind::IsADirectory).at(key),
        PayloadState::Absent(reason) => reason,
        _ => AbsentReason::NeverProduced,
    };
    Error::from(ErrorKind::PayloadUnavailable { reason }).at(key)
}

/// One entry of a directory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The full key.
    pub key: Key,
    /// The record, if there is one under this key: of an asset, or of an explicit directory.
    pub record: Option<Record>,
    /// Whether anything lies below.
    pub has_children: bool,
}

impl Entry {
    /// Gives the last segment of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// Tells whether the entry is a directory: something lies below, or it was made explicitly.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.has_children || self.record.as_ref().is_some_and(Record::is_directory)
    }

    /// Tells whether the entry is an asset.
    #[must_use]
    pub fn is_asset(&self) -> bool {
        self.record.as_ref().is_some_and(|record| !record.is_directory())
    }
}

/// Where a page ended. Stays good while keys come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Key);

impl Cursor {
    /// Makes the cursor that stands behind a key.
    #[must_use]
    pub fn after(key: Key) -> Self {
        Self(key)
    }

    /// Gives the last key that was seen.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.0
    }
}

/// Which page is asked for.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    size: Option<usize>,
    number: u64,
    after: Option<Cursor>,
}

impl PageRequest {
    /// Asks for the first page, of 50 assets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for pages of this size: 1 to 100; more is cut to 100, 0 is the default of 50.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        self.size = Some(size);
        self
    }

    /// Asks for what is behind a cursor: the steady way to page.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Asks for the page of this number, from 0: skips what is before, which takes time.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    fn effective_size(&self) -> usize {
        match self.size {
            None | Some(0) => PAGE_SIZE_DEFAULT,
            Some(size) => size.min(PAGE_SIZE_MAX),
        }
    }
}

/// A page of assets, in the order of their keys.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The assets.
    pub assets: Vec<(Key, Record)>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<Cursor>,
}

/// A view, and who looks at it.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'v, 'g> {
    pub(crate) view: &'v View,
    pub(crate) own: Option<&'v Changes>,
    pub(crate) guard: Guard<'g>,
    pub(crate) token: &'v Arc<ReaderToken>,
}

impl<'v> Reading<'v, '_> {
    /// Gives the row of a key without asking whether the caller may see it.
    pub(crate) fn row(&self, key: &Key) -> Result<Option<Row>> {
        self.token.check()?;
        self.view.row(self.own, key.encoded()).map_err(|error| error.at(key))
    }

    pub(crate) fn found(&self, key: &Key) -> Result<Row> {
        self.guard.reading(key)?;
        self.row(key)?.ok_or_else(|| Error::from(ErrorKind::NotFound).at(key))
    }

    pub(crate) fn record(&self, key: &Key) -> Result<Record> {
        self.found(key).map(|row| row.record)
    }

    /// Tells whether something is there that the caller may know of.
    pub(crate) fn exists(&self, key: &Key) -> Result<bool> {
        self.token.check()?;
        if !self.guard.allows(Right::LIST, key) && !self.guard.allows(Right::READ, key) {
            return Ok(false);
        }
        Ok(self.view.row(self.own, key.encoded()).map_err(|error| error.at(key))?.is_some())
    }

    pub(crate) fn asset(&self, key: &Key) -> Result<Asset> {
        let row = self.found(key)?;
        self.asset_of(key, row)
    }

    pub(crate) fn asset_of(&self, key: &Key, row: Row) -> Result<Asset> {
        let is_kept = self.own.is_none() && row.record.payload().length() <= PAYLOAD_KEPT_MAX;
        let at_hand = if is_kept { self.view.kept_payload(key, &row) } else { Bytes::new() };
        if let Some(asset) = Asset::of_row(key, &row, &at_hand) {
            return Ok(asset);
        }
        let payload = if row.record.payload().length() <= EAGER_LENGTH_MAX {
            let payload = self.read_row(key, &row)?;
            if is_kept {
                self.view.keep_payload(key, &row, &payload);
            }
            Payload::Read(payload)
        } else {
            Payload::Open(Box::new(parking_lot::Mutex::new(self.open_row(key, &row)?)))
        };
        Ok(Asset { key: key.clone(), record: row.record, payload })
    }

    pub(crate) fn open(&self, key: &Key) -> Result<PayloadReader> {
        let row = self.found(key)?;
        self.open_row(key, &row)
    }

    /// Opens the payload of a row, to be read later.
    fn open_row(&self, key: &Key, row: &Row) -> Result<PayloadReader> {
        self.reader(key, row, self.token.to_keep())
    }

    /// Reads the payload of a row now.
    fn read_row(&self, key: &Key, row: &Row) -> Result<Bytes> {
        let read = self.reader(key, row, Arc::clone(self.token))?.read_whole();
        read.map_err(|error| error.at(key))
    }

    fn reader(&self, key: &Key, row: &Row, token: Arc<ReaderToken>) -> Result<PayloadReader> {
        use larder_format::PayloadState;
        match row.record.payload() {
            PayloadState::Absent(_) => Err(unavailable(key, &row.record)),
            PayloadState::Inline { hash, .. } => Ok(PayloadReader::inline(row.inline.clone(), hash)),
            PayloadState::Stored { hash, id, .. } => {
                let content = self.content(key, &hash.0, id)?;
                let own = self.own.map(|own| own_chunks(own, id)).unwrap_or_default();
                let source = ViewSource { view: self.view.clone(), own, token };
                PayloadReader::stored(content.stored(hash), Box::new(source)).map_err(|error| error.at(key))
            }
        }
    }

    fn content(&self, key: &Key, hash: &[u8], id: u64) -> Result<ContentRow> {
        let row = self.view.get(self.own, Table::Contents, hash)?;
        let content = row.map(|row| ContentRow::decode(&row)).transpose()?;
        content.filter(|content| content.id == id).ok_or_else(|| {
            let what = format!("payload {id} has no row among the contents");
            Error::from(ErrorKind::Corrupt { what }).at(key)
        })
    }

    /// Opens a typed payload, in its page where it lies there aligned.
    pub(crate) fn typed<T: Loadable>(&self, key: &Key) -> Result<TypedValue<T>> {
        use larder_format::PayloadState;
        let row = self.found(key)?;
        let opened = match row.record.payload() {
            PayloadState::Inline { .. } => TypedValue::from_page(Box::new(row.inline)),
            PayloadState::Absent(_) => Err(unavailable(key, &row.record)),
            PayloadState::Stored { hash, id, .. } => {
                let is_plain = self.content(key, &hash.0, id)?.stored(hash).is_one_plain_row()?;
                let page = match self.own {
                    None if is_plain => self.view.snapshot().chunk_in_place(id, 0)?,
                    _ => None,
                };
                match page {
                    Some(page) => TypedValue::from_page(Box::new(page)),
                    None => TypedValue::from_assembled(self.read_row(key, &row)?),
                }
            }
        };
        opened.map_err(|error| error.at(key))
    }

    /// Lists the rows at and below a place, those that the caller may list.
    pub(crate) fn walk(&self, place: &Prefix, after: Option<&Key>) -> Result<Walk<'v>> {
        let (start, end) = place.subtree_range();
        let start = match after {
            Some(key) if key.encoded() >= start.as_slice() => Bound::Excluded(key.encoded_bytes()),
            _ => Bound::Included(start.into()),
        };
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.into()));
        let rows = self.view.range(self.own, Table::Records, start, end)?;
        let is_uniform = self.guard.uniform_below(Right::LIST, place) == Some(true);
        Ok(Walk { rows, guard: self.guard.keep(), is_uniform, token: Arc::clone(self.token) })
    }

    /// Hands the children of a place to `step`, in the order of their names: one that is there itself, and one below which
    /// something lies, which is the same child again if it is also there itself. What else lies below it is skipped.
    fn children(
        &self,
        place: &Prefix,
        mut step: impl FnMut(Child<'_>, &ViewRow) -> Result<()>,
    ) -> Result<()> {
        let (start, end) = place.descendants_range();
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(Bytes::from(end)));
        let mut from = Some(Bytes::from(start));
        while let Some(start) = from.take() {
            let mut rows = self.view.range(self.own, Table::Records, Bound::Included(start), end.clone())?;
            while let Some(row) = rows.next_row().transpose()? {
                let Some(child) = place.child_of(row.key()) else { break };
                step(child, &row)?;
                if let Child::Deeper(name) = child {
                    from = Some(place.after_child(name).into());
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lists one level: every child of a place once.
    pub(crate) fn list(&self, place: &Prefix) -> Result<Vec<Entry>> {
        self.token.check()?;
        let mut entries: Vec<Entry> = Vec::new();
        self.children(place, |child, row| {
            match child {
                Child::Itself(_) => {
                    let record = Record::in_place(row.body())?.0.to_record();
                    let key =
                        Key::decode(row.key()).map_err(|error| crate::store::corrupt(error.to_string()))?;
                    entries.push(Entry { key, record: Some(record), has_children: false });
                }
                Child::Deeper(name) => match entries.last_mut() {
                    Some(entry) if entry.name() == name => entry.has_children = true,
                    _ => entries.push(Entry { key: place.join(name)?, record: None, has_children: true }),
                },
            }
            Ok(())
        })?;
        if self.guard.uniform_below(Right::LIST, place) != Some(true) {
            entries = entries
                .into_iter()
                .filter_map(|entry| self.visible(entry).transpose())
                .collect::<Result<_>>()?;
        }
        if entries.is_empty()
            && let Some(key) = place.as_key()
        {
            let is_there = self.guard.allows(Right::LIST, key) && self.row(key)?.is_some();
            if !is_there {
                return Err(Error::from(ErrorKind::NotFound).at(key));
            }
        }
        Ok(entries)
    }

    /// Gives the names of the children of a place, in their order, without looking at their records.
    pub(crate) fn names(&self, place: &Prefix) -> Result<Vec<String>> {
        self.token.check()?;
        let mut names: Vec<String> = Vec::new();
        if self.guard.uniform_below(Right::LIST, place) == Some(true) {
            self.children(place, |child, _| {
                if names.last().is_none_or(|last| last != child.name()) {
                    names.push(child.name().to_owned());
                }
                Ok(())
            })?;
        }
        if names.is_empty() {
            // Nothing, or not all of it: then it depends on what is there.
            let entries = self.list(place)?;
            names.extend(entries.iter().map(|entry| entry.name().to_owned()));
        }
        Ok(names)
    }

    /// Leaves of an entry what the caller may see of it. A directory that nobody made is there for those only who
    /// may see something in it.
    fn visible(&self, mut entry: Entry) -> Result<Option<Entry>> {
        let below = Prefix::from(&entry.key);
        if !self.guard.allows(Right::LIST, &entry.key) {
            entry.record = None;
        }
        entry.has_children = entry.has_children
            && (self.guard.uniform_below(Right::LIST, &below) == Some(true)
                || self.walk(&below, Some(&entry.key))?.next().transpose()?.is_some());
        Ok((entry.record.is_some() || entry.has_children).then_some(entry))
    }

    pub(crate) fn page(&self, place: &Prefix, request: &PageRequest) -> Result<Page> {
        let size = request.effective_size();
        let skipped = request.number.saturating_mul(size as u64);
        let mut walk = self.walk(place, request.after.as_ref().map(Cursor::key))?;
        let mut skip = skipped;
        while skip > 0 {
            let Some(row) = walk.next() else { return Ok(Page { assets: Vec::new(), next: None }) };
            row?;
            skip -= 1;
        }
        let mut assets = Vec::with_capacity(size);
        for row in walk.by_ref().take(size) {
            assets.push(row?);
        }
        let is_more = walk.next().transpose()?.is_some();
        let next = assets.last().filter(|_| is_more).map(|(key, _)| Cursor(key.clone()));
        Ok(Page { assets, next })
    }

    /// Gives the assets that have a tag, those that the caller may list.
    pub(crate) fn tagged(&self, tag: &str) -> Result<Vec<(Key, Record)>> {
        let mut found = Vec::new();
        for row in self.view.prefix(self.own, Table::Tags, &tag_prefix(tag))? {
            let (row_key, _) = row?;
            let Some((_, encoded)) = tagged_key(&row_key) else { continue };
            let key = Key::decode(encoded).map_err(|error| crate::store::corrupt(error.to_string()))?;
            if !self.guard.allows(Right::LIST, &key) {
                continue;
            }
            if let Some(row) = self.row(&key)? {
                found.push((key, row.record));
            }
        }
        Ok(found)
    }
}

fn own_chunks(own: &Changes, id: u64) -> HashMap<u64, Bytes> {
    let prefix = id.to_be_bytes();
    let end = prefix_end(&prefix);
    let end_bound = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
    let mut from = Bound::Included(Bytes::copy_from_slice(&prefix));
    let mut chunks = HashMap::new();
    loop {
        let start = match &from {
            Bound::Included(key) => Bound::Included(key.as_ref()),
            Bound::Excluded(key) => Bound::Excluded(key.as_ref()),
            Bound::Unbounded => Bound::Unbounded,
        };
        let Some((key, said)) = own.next(Table::Chunks, start, end_bound) else { return chunks };
        if let (crate::commit::Said::Is(body), Some(number)) = (said, key.last_chunk::<8>()) {
            chunks.insert(u64::from_be_bytes(*number), body);
        }
        from = Bound::Excluded(key);
    }
}

/// Rows of a payload, from a view that stays as it is.
struct ViewSource {
    view: View,
    own: HashMap<u64, Bytes>,
    token: Arc<ReaderToken>,
}

impl ChunkSource for ViewSource {
    fn chunk(&self, id: u64, number: u64) -> Result<Option<Bytes>> {
        self.token.check()?;
        match self.own.get(&number) {
            Some(body) => Ok(Some(body.clone())),
            None => {
                let body = self.view.chunk(id, number)?;
                let kept = |body| Bytes::from_owner(KeptChunk { body, _reader: Arc::clone(&self.token) });
                Ok(body.map(kept))
            }
        }
    }
}

/// A chunk in its page, and the reader that keeps the page: who holds the one counts as the other.
struct KeptChunk {
    body: Bytes,
    _reader: Arc<ReaderToken>,
}

impl AsRef<[u8]> for KeptChunk {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Assets at and below a place, in the order of their keys. Ends after the first error.
pub struct Walk<'a> {
    rows: ViewRange<'a>,
    guard: KeptGuard,
    is_uniform: bool,
    token: Arc<ReaderToken>,
}

impl std::fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").finish_non_exhaustive()
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(Key, Record)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Err(error) = self.token.check() {
                return Some(Err(error));
            }
            let row = match self.rows.next_row()? {
                Ok(row) => row,
                Err(error) => return Some(Err(error)),
            };
            let key = match Key::decode(row.key()) {
                Ok(key) => key,
                Err(error) => return Some(Err(crate::store::corrupt(error.to_string()))),
            };
            if self.is_uniform || self.guard.guard().allows(Right::LIST, &key) {
                return Some(match Record::in_place(row.body()) {
                    Ok((record, _)) => Ok((key, record.to_record())),
                    Err(error) => Err(Error::from(error).at(&key)),
                });
            }
        }
    }
}
