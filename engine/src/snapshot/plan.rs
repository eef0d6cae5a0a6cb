//! What goes into a snapshot, in the order of table and key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use larder_format::{
    EventKind, FeedRow, Operation, PayloadState, Position, Prefix, Record, SnapshotManifest,
};

use crate::error::{ErrorKind, Result};
use crate::larder::FEED_TRIMMED;
use crate::primitives::{DefinedCollection, EXTERNALS, HISTORY_PRUNED, decode_history, row_key};
use crate::store::{Snapshot, SnapshotRange, Table, chunk_key, corrupt, state_key};
use crate::txn::prefix_end;

/// The tables of which a snapshot has everything: all but what the file is, and what was not finished.
const WHOLE: [Table; 16] = [
    Table::State,
    Table::Records,
    Table::Chunks,
    Table::Contents,
    Table::Tags,
    Table::Feed,
    Table::Audit,
    Table::Once,
    Table::Documents,
    Table::Claims,
    Table::Deadlines,
    Table::Edges,
    Table::History,
    Table::Logs,
    Table::Rows,
    Table::Entries,
];

type Key = Vec<u8>;

/// Some operations.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Puts all rows between two keys.
    Rows(Table, Bound<Key>, Bound<Key>),
    /// Puts a row, or removes it where there is none.
    Row(Table, Key),
    /// Puts a row that is not in the store.
    Own(Table, Key, Vec<u8>),
    /// Removes the rows from a key up to, and without, another.
    Clear(Table, Key, Option<Key>),
}

impl Part {
    fn all(table: Table) -> Self {
        Self::Rows(table, Bound::Unbounded, Bound::Unbounded)
    }

    fn range(table: Table, (start, end): (Key, Option<Key>)) -> Self {
        Self::Rows(table, Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded))
    }

    fn below(table: Table, prefix: &[u8]) -> Self {
        Self::range(table, (prefix.to_vec(), prefix_end(prefix)))
    }

    fn chunks(id: u64) -> Self {
        let end = id.checked_add(1).map(|next| chunk_key(next, 0).to_vec());
        Self::range(Table::Chunks, (chunk_key(id, 0).to_vec(), end))
    }
}

/// Plans a snapshot of everything.
pub(super) fn full(snapshot: &Arc<Snapshot>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for table in WHOLE {
        if table != Table::Chunks {
            parts.push(Part::all(table));
            continue;
        }
        // Uploads that are at work are none of it.
        let mut start = Bound::Unbounded;
        for id in snapshot.uploads()? {
            parts.push(Part::Rows(table, start, Bound::Excluded(chunk_key(id, 0).to_vec())));
            start = Bound::Included(chunk_key(id.saturating_add(1), 0).to_vec());
        }
        parts.push(Part::Rows(table, start, Bound::Unbounded));
    }
    Ok(parts)
}

/// Plans a snapshot of the assets at and below a prefix. Keeps the digests of their payloads in memory.
pub(super) fn below(snapshot: &Arc<Snapshot>, prefix: &Prefix) -> Result<Vec<Part>> {
    let range = prefix.subtree_range();
    let (mut contents, mut collections) = (BTreeMap::new(), BTreeSet::new());
    for table in [Table::Records, Table::History] {
        for row in rows(snapshot, table, &range)? {
            let row = row?;
            let record = if table == Table::Records {
                Record::in_place(row.body())?.0.to_record()
            } else {
                decode_history(&bytes::Bytes::copy_from_slice(row.body()))?.1.record
            };
            note_content(&mut contents, &record);
            collections.extend(DefinedCollection::id_of(&record));
        }
    }
    // The numbers that were given out are those of collections and of what is in them: none may be given out again.
    let fences = snapshot.get(Table::State, state_key::FENCES)?.map(|fences| fences.to_vec());
    let fences = fences.map(|fences| Part::Own(Table::State, state_key::FENCES.to_vec(), fences));
    let mut parts: Vec<Part> = fences.into_iter().collect();
    parts.extend([
        Part::Own(Table::State, state_key::HEAD.to_vec(), snapshot.head()?.encode().to_vec()),
        Part::range(Table::Records, range.clone()),
    ]);
    push_contents(&mut parts, contents);
    parts.extend([
        Part::all(Table::Documents),
        Part::below(Table::Edges, &EXTERNALS),
        Part::range(Table::History, range.clone()),
        Part::range(Table::Logs, range),
    ]);
    parts.extend(collections.into_iter().map(|id| Part::below(Table::Rows, &id.to_be_bytes())));
    Ok(parts)
}

fn note_content(contents: &mut BTreeMap<[u8; 32], u64>, record: &Record) {
    if let PayloadState::Stored { hash, id, .. } = record.payload() {
        contents.insert(hash.0, id);
    }
}

/// The chunks of contents by their ids, then the contents by their digests.
fn push_contents(parts: &mut Vec<Part>, contents: BTreeMap<[u8; 32], u64>) {
    parts.extend(contents.values().copied().collect::<BTreeSet<u64>>().into_iter().map(Part::chunks));
    parts.extend(contents.into_keys().map(|hash| Part::Row(Table::Contents, hash.to_vec())));
}

/// What the feed says of what happened since the base.
#[derive(Default)]
struct Changed {
    /// With whether their payloads may be ones that the base does not have.
    keys: BTreeMap<Key, bool>,
    /// The ranges of keys that were removed as a whole.
    ranges: BTreeMap<Key, Option<Key>>,
    /// Rows of collections, and collections all of whose rows were removed.
    rows: BTreeSet<Key>,
    cleared: BTreeSet<Key>,
}

impl Changed {
    fn read(snapshot: &Arc<Snapshot>, base: &Position) -> Result<Self> {
        let mut changed = Self::default();
        let start = base.sequence.to_be_bytes();
        for row in snapshot.range(Table::Feed, Bound::Included(&start), Bound::Unbounded)? {
            let row = row?;
            let feed = FeedRow::decode(row.body()).map_err(|error| corrupt(error.to_string()))?;
            if row.key() == start {
                if feed.time != base.time {
                    return Err(mismatch(format!(
                        "commit {} of the store is not the one that the snapshot ends with",
                        base.sequence
                    )));
                }
                continue;
            }
            for event in feed.events {
                match event.kind {
                    EventKind::DocumentChanged => {}
                    EventKind::RowPut | EventKind::RowRemoved => {
                        let id = event.new_generation;
                        if event.from.is_empty() && event.kind == EventKind::RowRemoved {
                            changed.cleared.insert(id.to_be_bytes().to_vec());
                        } else {
                            changed.rows.extend(event.rows().map(|row| row_key(id, row).to_vec()));
                        }
                    }
                    EventKind::TreeDeleted => {
                        let end = prefix_end(&event.key);
                        changed.ranges.insert(event.key, end);
                    }
                    kind => {
                        let is_payload_new = !matches!(
                            kind,
                            EventKind::Annotated
                                | EventKind::Expired
                                | EventKind::ClaimChanged
                                | EventKind::Logged
                                | EventKind::Deleted
                                | EventKind::Evicted
                        );
                        if !event.from.is_empty() {
                            changed.touch(event.from, false);
                        }
                        changed.touch(event.key, is_payload_new);
                    }
                }
            }
        }
        Ok(changed)
    }

    fn touch(&mut self, key: Key, is_payload_new: bool) {
        *self.keys.entry(key).or_default() |= is_payload_new;
    }
}

fn mismatch(what: String) -> crate::error::Error {
    ErrorKind::SnapshotMismatch { what }.into()
}

/// Plans a snapshot of what changed since a base. Keeps the keys that changed in memory.
pub(super) fn since(snapshot: &Arc<Snapshot>, base: &Position, audit_base: u64) -> Result<Vec<Part>> {
    let head = snapshot.head()?;
    if base.sequence > head.sequence {
        let what =
            format!("it ends at commit {}, and the store is at commit {}", base.sequence, head.sequence);
        return Err(mismatch(what));
    }
    let mark = |name: &[u8]| -> Result<u64> {
        let row = snapshot.get(Table::State, name)?;
        Ok(row.and_then(|row| row.first_chunk().map(|number| u64::from_le_bytes(*number))).unwrap_or(0))
    };
    let trimmed = mark(FEED_TRIMMED)?;
    if base.sequence < trimmed {
        return Err(ErrorKind::Lagged { wanted: base.sequence + 1, first: trimmed + 1 }.into());
    }
    let changed = Changed::read(snapshot, base)?;
    let is_history_pruned = mark(HISTORY_PRUNED)? > base.sequence;

    let mut contents = BTreeMap::new();
    for (key, _) in changed.keys.iter().filter(|(_, is_payload_new)| **is_payload_new) {
        snapshot
            .get_with(Table::Records, key, |row| {
                Record::in_place(row).map(|(record, _)| note_content(&mut contents, &record.to_record()))
            })?
            .transpose()?;
        for row in rows(snapshot, Table::History, &numbered_range(key))? {
            let row = row?;
            let (until, was) = decode_history(&bytes::Bytes::copy_from_slice(row.body()))?;
            if until >= base.time {
                note_content(&mut contents, &was.record);
            }
        }
    }
    let mut parts = vec![Part::all(Table::State)];
    changed.plan(Table::Records, &mut parts);
    push_contents(&mut parts, contents);
    for (table, base) in [(Table::Feed, base.sequence + 1), (Table::Audit, audit_base)] {
        let kept = snapshot.range(table, Bound::Unbounded, Bound::Unbounded)?.next().transpose()?;
        parts.push(Part::Clear(table, Vec::new(), kept.map(|row| row.key().to_vec())));
        parts.push(Part::Rows(table, Bound::Included(base.to_be_bytes().to_vec()), Bound::Unbounded));
    }
    // Few rows, or rows that nothing says when they changed: as a whole.
    for table in [Table::Once, Table::Documents, Table::Claims] {
        parts.extend([Part::Clear(table, Vec::new(), None), Part::all(table)]);
    }
    parts.push(Part::Clear(Table::Edges, EXTERNALS.to_vec(), prefix_end(&EXTERNALS)));
    parts.push(Part::below(Table::Edges, &EXTERNALS));
    if is_history_pruned {
        parts.extend([Part::Clear(Table::History, Vec::new(), None), Part::all(Table::History)]);
    } else {
        changed.plan(Table::History, &mut parts);
    }
    changed.plan(Table::Logs, &mut parts);
    changed.plan_rows(&mut parts);
    Ok(parts)
}

impl Changed {
    /// The rows of collections; what is left of one that was cleared is there as a whole.
    fn plan_rows(&self, parts: &mut Vec<Part>) {
        let mut cleared = self.cleared.iter().peekable();
        let clear = |id: &Key, parts: &mut Vec<Part>| {
            parts.push(Part::Clear(Table::Rows, id.clone(), prefix_end(id)));
            parts.push(Part::below(Table::Rows, id));
        };
        for row in &self.rows {
            while let Some(id) = cleared.next_if(|id| *id <= row) {
                clear(id, parts);
            }
            if !row.first_chunk::<8>().is_some_and(|id| self.cleared.contains(id.as_slice())) {
                parts.push(Part::Row(Table::Rows, row.clone()));
            }
        }
        cleared.for_each(|id| clear(id, parts));
    }

    /// The rows of a table that are of keys that changed, with the ranges that were removed before them.
    fn plan(&self, table: Table, parts: &mut Vec<Part>) {
        let mut ranges = self.ranges.iter().peekable();
        let mut covered: Option<&Option<Key>> = None;
        for key in self.keys.keys() {
            while let Some((start, end)) = ranges.next_if(|(start, _)| *start <= key) {
                push_range(table, start, end, &mut covered, parts);
            }
            if table == Table::Records {
                parts.push(Part::Row(table, key.clone()));
            } else if !is_within(key, covered) {
                let (start, end) = numbered_range(key);
                parts.push(Part::Clear(table, start.clone(), end.clone()));
                parts.push(Part::range(table, (start, end)));
            }
        }
        for (start, end) in ranges {
            push_range(table, start, end, &mut covered, parts);
        }
    }
}

/// Removes a range; of what is said of assets rather than of the assets, what is there now follows.
fn push_range<'c>(
    table: Table,
    start: &Key,
    end: &'c Option<Key>,
    covered: &mut Option<&'c Option<Key>>,
    parts: &mut Vec<Part>,
) {
    if is_within(start, *covered) {
        return;
    }
    *covered = Some(end);
    parts.push(Part::Clear(table, start.clone(), end.clone()));
    if table != Table::Records {
        parts.push(Part::range(table, (start.clone(), end.clone())));
    }
}

/// Tells whether a key lies before the end of the last range.
fn is_within(key: &Key, covered: Option<&Option<Key>>) -> bool {
    covered.is_some_and(|end| end.as_ref().is_none_or(|end| key < end))
}

fn numbered_range(key: &[u8]) -> (Key, Option<Key>) {
    let start = [key, &[0]].concat();
    let end = prefix_end(&start);
    (start, end)
}

fn rows(snapshot: &Arc<Snapshot>, table: Table, range: &(Key, Option<Key>)) -> Result<SnapshotRange> {
    let end = range.1.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    snapshot.range(table, Bound::Included(&range.0), end)
}

/// The operations of a plan, one after the other.
pub(super) struct Operations {
    snapshot: Arc<Snapshot>,
    parts: std::vec::IntoIter<Part>,
    rows: Option<(Table, SnapshotRange)>,
}

impl Operations {
    pub(super) fn new(snapshot: Arc<Snapshot>, parts: Vec<Part>) -> Self {
        Self { snapshot, parts: parts.into_iter(), rows: None }
    }

    /// Appends the next operation, and counts it; tells whether there was one.
    pub(super) fn append_next(&mut self, out: &mut Vec<u8>, manifest: &mut SnapshotManifest) -> Result<bool> {
        let length = out.len();
        let table = loop {
            if let Some((table, rows)) = &mut self.rows {
                if let Some(row) = rows.next() {
                    let (table, row) = (*table, row?);
                    said(Operation::put_sealed(out, table.number(), row.key(), &[row.sealed()]))?;
                    break table;
                }
                self.rows = None;
            }
            match self.parts.next() {
                None => return Ok(false),
                Some(Part::Rows(table, start, end)) => {
                    let rows = self.snapshot.range(table, as_slice(&start), as_slice(&end))?;
                    self.rows = Some((table, rows));
                }
                Some(Part::Row(table, key)) => {
                    let body = self.snapshot.get(table, &key)?;
                    match body {
                        Some(body) => put(out, table, &key, &body)?,
                        None => said(Operation::delete(out, table.number(), &key))?,
                    }
                    break table;
                }
                Some(Part::Own(table, key, body)) => {
                    put(out, table, &key, &body)?;
                    break table;
                }
                Some(Part::Clear(table, start, end)) => {
                    said(Operation::delete_range(out, table.number(), &start, end.as_deref()))?;
                    break table;
                }
            }
        };
        manifest.count(table.number(), (out.len() - length) as u64);
        Ok(true)
    }
}

fn put(out: &mut Vec<u8>, table: Table, key: &[u8], body: &[u8]) -> Result<()> {
    let checksum = larder_format::checksum(table.number(), key, body).to_le_bytes();
    said(Operation::put_sealed(out, table.number(), key, &[&checksum, body]))
}

fn said(is_said: bool) -> Result<()> {
    if is_said { Ok(()) } else { Err(corrupt("a row is larger than any that larder writes")) }
}

fn as_slice(bound: &Bound<Key>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}
