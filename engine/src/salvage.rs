//! What can be read of a file that does not open any more, page by page, as a new store.
//!
//! Rows are known by their checksums, and of several of one key the newest counts, by the commit that it says it is of. Old
//! pages may have what was deleted since: where the feed says so, it stays deleted. Payloads are compared with their
//! digests; what is not whole is left out, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use larder_format::{ContentHash, EventKind, FeedRow, Key, Operation, PayloadState, Record, RowContent};

use crate::commit::write_sets_in;
use crate::error::{ErrorKind, Result};
use crate::payload::PayloadReader;
use crate::primitives::{ContentRow, decode_history, is_derived, row_key};
use crate::rebuild::rebuild;
use crate::repair::verify_new;
use crate::snapshot::{begin_epoch, fresh_id};
use crate::store::{FORMAT_VERSION, Identity, Position, Store, Table, scan_pages, state_key};
use crate::verify::{Finding, VerifyReport};

/// How much memory pages are kept in while the new file is filled, in bytes.
const CACHE_BYTES: usize = 128 << 20;

/// What was found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SalvageReport {
    /// How many pages with rows there were.
    pub pages: u64,
    /// How many rows were found, of all ages.
    pub rows: u64,
    /// How many assets are in the new file.
    pub assets: u64,
    /// How many were found that the feed says were deleted.
    pub deleted: u64,
    /// The newest commit of which anything was found.
    pub last_commit: u64,
    /// What was found, and is not whole.
    pub lost: Vec<Finding>,
    /// What is wrong with the new file still.
    pub verified: VerifyReport,
}

type Place = (Table, Vec<u8>);

/// The newest row of every key, and since when something is gone.
#[derive(Default)]
struct Found {
    rows: BTreeMap<Place, (u64, Bytes)>,
    gone: BTreeMap<Vec<u8>, u64>,
    trees_gone: Vec<(Vec<u8>, u64)>,
    /// Rows of collections that were removed, and collections all of whose rows were.
    rows_gone: BTreeMap<Vec<u8>, u64>,
    count: u64,
    last_commit: u64,
    head: Position,
    fences: u64,
    audit_next: u64,
    created: i64,
    store_id: Option<[u8; 16]>,
}

impl Found {
    /// Takes a row, if it is the newest of its key; of those that do not say how new they are, the one that comes last.
    fn take(&mut self, table: Table, key: &[u8], sealed: &[u8]) {
        self.count += 1;
        let body = sealed.get(larder_format::CHECKSUM_LENGTH..).unwrap_or_default();
        let version = match table {
            Table::Staging | Table::Claims => return,
            Table::Meta => {
                if key == crate::store::meta_key::CREATED {
                    self.created = body.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
                }
                if key == crate::store::meta_key::STORE_ID {
                    self.store_id = body.try_into().ok();
                }
                return;
            }
            Table::State => {
                if key == state_key::HEAD
                    && let Some(head) = Position::decode(body)
                    && head.sequence >= self.head.sequence
                {
                    self.head = head;
                }
                if key == state_key::FENCES {
                    let fences = body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                    self.fences = self.fences.max(fences);
                }
                return;
            }
            _ if is_derived(table, key) => return,
            Table::Records => match Record::in_place(body) {
                Ok((record, _)) => record.to_record().commit(),
                Err(_) => return,
            },
            Table::Contents => match ContentRow::decode(body) {
                Ok(content) => content.id,
                Err(_) => return,
            },
            Table::History => match decode_history(&Bytes::copy_from_slice(body)) {
                Ok((until, _)) => until.max(0).cast_unsigned(),
                Err(_) => return,
            },
            Table::Rows => match RowContent::decode(&Bytes::copy_from_slice(body)) {
                Ok((commit, _)) => commit,
                Err(_) => return,
            },
            Table::Feed => {
                self.note_feed(key, body);
                0
            }
            Table::Audit => {
                let next = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes).saturating_add(1));
                self.audit_next = self.audit_next.max(next);
                0
            }
            _ => 0,
        };
        if matches!(table, Table::Records | Table::Rows) {
            self.last_commit = self.last_commit.max(version);
        }
        let place = (table, key.to_vec());
        if self.rows.get(&place).is_none_or(|(there, _)| *there <= version) {
            self.rows.insert(place, (version, Bytes::copy_from_slice(sealed)));
        }
    }

    /// Remembers what a commit removed.
    fn note_feed(&mut self, key: &[u8], body: &[u8]) {
        let (Some(sequence), Ok(feed)) =
            (key.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)), FeedRow::decode(body))
        else {
            return;
        };
        self.last_commit = self.last_commit.max(sequence);
        for event in feed.events {
            match event.kind {
                EventKind::Deleted | EventKind::Evicted if event.new_generation == 0 => {
                    let gone = self.gone.entry(event.key).or_default();
                    *gone = sequence.max(*gone);
                }
                EventKind::Renamed => {
                    let gone = self.gone.entry(event.from).or_default();
                    *gone = sequence.max(*gone);
                }
                EventKind::TreeDeleted => self.trees_gone.push((event.key, sequence)),
                EventKind::RowRemoved => {
                    let id = event.new_generation;
                    // Without a key it is all of them, by the number that their keys begin with.
                    let all = event.from.is_empty().then(|| row_key(id, &[]));
                    for at in all.into_iter().chain(event.rows().map(|row| row_key(id, row))) {
                        let gone = self.rows_gone.entry(at.to_vec()).or_default();
                        *gone = sequence.max(*gone);
                    }
                }
                _ => {}
            }
        }
    }

    /// Leaves out what was removed by a commit behind the one that it is of; gives how many that were.
    fn drop_deleted(&mut self) -> u64 {
        let before = self.rows.len();
        let (gone, trees, rows) = (&self.gone, &self.trees_gone, &self.rows_gone);
        self.rows.retain(|(table, key), (version, _)| {
            if *table == Table::Rows {
                let is_gone = |at: &[u8]| rows.get(at).is_some_and(|at| *version < *at);
                return !(is_gone(key) || key.get(..8).is_some_and(is_gone));
            }
            *table != Table::Records
                || !(gone.get(key).is_some_and(|at| *version < *at)
                    || trees.iter().any(|(tree, at)| *version < *at && key.starts_with(tree)))
        });
        (before - self.rows.len()) as u64
    }

    /// Takes what the commit log has, in order. What was put in the place of another store lies beside the log of that one.
    fn take_log(&mut self, path: &Path) -> Result<()> {
        for write_set in write_sets_in(path)? {
            let header = write_set.header()?;
            if self.store_id.is_some_and(|id| id != header.store_id) {
                continue;
            }
            if header.sequence > self.head.sequence {
                let identity = write_set.identity();
                self.head = Position { sequence: header.sequence, time: header.time, identity };
            }
            for operation in write_set.operations()? {
                let operation = operation?;
                let Some(table) = Table::from_number(operation.place().0) else { continue };
                match operation {
                    Operation::Put { key, value, .. } => self.take(table, &key, &value),
                    Operation::Delete { key, .. } => {
                        self.rows.remove(&(table, key.to_vec()));
                    }
                    Operation::DeleteRange { start, end, .. } => {
                        let end = end.map(|end| end.to_vec());
                        self.rows.retain(|(other, key), _| {
                            *other != table
                                || key.as_slice() < start.as_ref()
                                || end.as_ref().is_some_and(|end| key >= end)
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Makes a new store of every asset that can be read in a file, whatever else is wrong with it, and in the commit log
/// beside it. It is another store, in another epoch, without claims. Keeps the rows in memory, and not the payloads.
///
/// # Errors
/// [`NoSuchFile`](ErrorKind::NoSuchFile), [`Io`](ErrorKind::Io), [`AlreadyExists`](ErrorKind::AlreadyExists);
/// [`NotALarderFile`](ErrorKind::NotALarderFile) if no row of larder's is found.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<SalvageReport> {
    let from = from.as_ref();
    let mut found = Found::default();
    let pages = scan_pages(from, |table, key, sealed| {
        // Chunks are read again when they are copied.
        if table != Table::Chunks {
            found.take(table, key, sealed);
        }
        Ok(())
    })?;
    found.take_log(from)?;
    if found.rows.is_empty() {
        let found = "a file without any row of larder's".to_owned();
        return Err(ErrorKind::NotALarderFile { found }.into());
    }
    let deleted = found.drop_deleted();
    found.last_commit = found.last_commit.max(found.head.sequence);
    let identity = Identity { format: FORMAT_VERSION, store_id: fresh_id(), created: found.created };
    let (mut lost, mut verified, mut assets) = (Vec::new(), VerifyReport::default(), 0);
    Store::build(to.as_ref(), identity, CACHE_BYTES, |store| {
        fill(store, from, &found)?;
        lost = remove_damaged(store)?;
        rebuild(store)?;
        let mut loader = store.load();
        begin_epoch(store, &mut loader, &found.head, true)?;
        loader.commit()?;
        verified = verify_new(store)?;
        assets = verified.records;
        Ok(())
    })?;
    Ok(SalvageReport {
        pages,
        rows: found.count,
        assets,
        deleted,
        last_commit: found.last_commit,
        lost,
        verified,
    })
}

fn fill(store: &Store, from: &Path, found: &Found) -> Result<()> {
    let mut loader = store.load();
    for ((table, key), (_, sealed)) in &found.rows {
        if *table != Table::Chunks {
            let (key, value) = (key.clone().into(), sealed.clone());
            loader.put_sealed(*table, key, value)?;
        }
    }
    scan_pages(from, |table, key, sealed| match table {
        Table::Chunks => loader.put_sealed(table, key.to_vec().into(), sealed.to_vec().into()),
        _ => Ok(()),
    })?;
    // Those of the log are the newest.
    for ((table, key), (_, sealed)) in &found.rows {
        if *table == Table::Chunks {
            loader.put_sealed(*table, key.clone().into(), sealed.clone())?;
        }
    }
    loader.put(Table::State, state_key::HEAD, &found.head.encode())?;
    loader.put(Table::State, state_key::FENCES, &found.fences.to_le_bytes())?;
    loader.put(Table::State, state_key::AUDIT_NEXT, &found.audit_next.to_le_bytes())?;
    loader.commit()
}

/// Leaves out records and former states whose payloads are not whole; gives what was lost.
fn remove_damaged(store: &Store) -> Result<Vec<Finding>> {
    let view = store.view()?;
    let mut whole = BTreeSet::new();
    for row in view.range(Table::Contents, Bound::Unbounded, Bound::Unbounded)? {
        let row = row?;
        let (Ok(hash), Ok(content)) = (<[u8; 32]>::try_from(row.key()), ContentRow::decode(row.body()))
        else {
            continue;
        };
        let source = Box::new(std::sync::Arc::clone(&view));
        let read = PayloadReader::stored(content.stored(ContentHash(hash)), source)
            .and_then(|mut reader| reader.verify());
        if read.is_ok() {
            whole.insert((hash, content.id));
        }
    }
    let is_whole = |record: &Record, inline: &[u8]| match record.payload() {
        PayloadState::Stored { hash, id, .. } => whole.contains(&(hash.0, id)),
        PayloadState::Inline { hash, .. } => ContentHash::of(inline) == hash,
        PayloadState::Absent(_) => true,
    };
    let (mut loader, mut lost) = (store.load(), Vec::new());
    for row in view.range(Table::Records, Bound::Unbounded, Bound::Unbounded)? {
        let row = row?;
        let (record, inline) = Record::split(&Bytes::copy_from_slice(row.body()))?;
        if !is_whole(&record, &inline) {
            loader.remove(Table::Records, row.key())?;
            let place = Key::decode(row.key())
                .map_or_else(|_| row.key().escape_ascii().to_string(), |key| key.to_string());
            let what = format!("its payload of {} bytes is not whole", record.payload().length());
            lost.push(Finding { place, what, remedy: "restore the asset from a copy" });
        }
    }
    for row in view.range(Table::History, Bound::Unbounded, Bound::Unbounded)? {
        let row = row?;
        let (_, was) = decode_history(&Bytes::copy_from_slice(row.body()))?;
        if !is_whole(&was.record, &was.inline) {
            loader.remove(Table::History, row.key())?;
        }
    }
    loader.commit()?;
    Ok(lost)
}
