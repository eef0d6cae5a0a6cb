//! Carrying write-sets into redb, and staging the chunks of large payloads ahead of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use larder_format::{Operation, WriteSet, seal_into};
use redb::{Table as RedbTable, WriteTransaction};

use super::snapshot::{CHUNKS, bytes_definition, chunk_key};
use super::tables::{Tree, tree_key};
use super::writeback::Pace;
use super::{Position, Store, Table, commit_error, shield, state_key, storage, table_error};
use crate::error::{Error, ErrorKind, Result};

/// How much of a write-set is applied in one step where there is no room to do it at once.
const OPERATIONS_IN_A_PART: usize = 64;

/// Why write-sets were not carried into the store.
pub(crate) enum ApplyError {
    /// Nothing of them became durable.
    Before(Error),
    /// They may or may not have become durable.
    Unknown(Error),
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Before(error) | ApplyError::Unknown(error) => error,
        }
    }
}

/// A chunk on its way into the store ahead of the write-set that will name it.
pub(crate) struct StagedRow {
    pub(crate) number: u64,
    pub(crate) body: Bytes,
}

pub(super) enum Target<'txn> {
    Bytes(RedbTable<'txn, &'static [u8], &'static [u8]>),
    Chunks(RedbTable<'txn, [u8; 16], &'static [u8]>),
}

impl<'txn> Target<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction, table: Table) -> Result<Self> {
        Ok(match table.tree().0 {
            Tree::Own(Table::Chunks) => Self::Chunks(transaction.open_table(CHUNKS).map_err(table_error)?),
            tree => Self::Bytes(transaction.open_table(bytes_definition(tree)).map_err(table_error)?),
        })
    }

    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Bytes(table) => table.insert(key, value).map(drop),
            Self::Chunks(table) => table.insert(fixed(key)?, value).map(drop),
        }
        .map_err(storage)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Bytes(table) => table.remove(key).map(drop),
            Self::Chunks(table) => table.remove(fixed(key)?).map(drop),
        }
        .map_err(storage)
    }

    /// Removes a range of the keys of a table, whichever tree they lie in.
    pub(super) fn remove_range_of(&mut self, table: Table, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        let end = match (end, table.tree().1) {
            (Some(end), _) => Some(tree_key(table, end).into_owned()),
            (None, Some(front)) => Some(vec![front + 1]),
            (None, None) => None,
        };
        self.remove_range(&tree_key(table, start), end.as_deref())
    }

    fn remove_range(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        match self {
            Self::Bytes(table) => {
                let end = end.map_or(Bound::Unbounded, Bound::Excluded);
                table.retain_in::<&[u8], _>((Bound::Included(start), end), |_, _| false)
            }
            Self::Chunks(table) => {
                let end = match end {
                    Some(end) => Bound::Excluded(fixed(end)?),
                    None => Bound::Unbounded,
                };
                table.retain_in::<[u8; 16], _>((Bound::Included(fixed(start)?), end), |_, _| false)
            }
        }
        .map_err(storage)
    }
}

pub(super) fn fixed(key: &[u8]) -> Result<[u8; 16]> {
    key.try_into().map_err(|_| super::corrupt("the key of a chunk has not 16 bytes"))
}

impl Store {
    /// Applies write-sets that follow one another, and the position after them, in one redb transaction.
    ///
    /// With `sync` everything is on disk on return; without, it is visible, and on disk with the next that syncs.
    pub(crate) fn apply(
        &self,
        write_sets: &[&WriteSet],
        head: &Position,
        sync: bool,
    ) -> Result<(), ApplyError> {
        let _turn = self.turn.take();
        let begun = shield("begin to write", || {
            let transaction = if sync { self.begin_write() } else { self.begin_unsynced() }?;
            carry(&transaction, write_sets, head)?;
            Ok(transaction)
        })
        .map_err(ApplyError::Before)?;
        shield("commit", || {
            let done = if sync { self.commit_durably(begun) } else { begun.commit() };
            done.map_err(|error| commit_error(error, "committing"))
        })
        .map_err(ApplyError::Unknown)
    }

    /// Applies one write-set in several durable steps, the position with the last of them. For when there is no room to do
    /// it at once: what was done of it before an error, or a crash, is done again from the log. No view may be taken
    /// meanwhile.
    pub(crate) fn apply_in_parts(&self, write_set: &WriteSet, head: &Position) -> Result<()> {
        let operations = write_set.operations()?.collect::<Result<Vec<_>, _>>()?;
        let mut parts = operations.chunks(OPERATIONS_IN_A_PART).peekable();
        while let Some(part) = parts.next() {
            {
                let _turn = self.turn.take();
                let mut loader = self.load();
                loader.apply(part)?;
                if parts.peek().is_none() {
                    loader.put(Table::State, state_key::HEAD, &head.encode())?;
                }
                loader.commit()?;
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Makes everything that was committed so far durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let _turn = self.turn.take();
        self.flush_in_turn()
    }

    fn flush_in_turn(&self) -> Result<()> {
        shield("flush", || {
            let transaction = self.begin_write()?;
            self.commit_durably(transaction).map_err(|error| commit_error(error, "flushing"))
        })
    }

    /// As [`flush`](Self::flush), a little at a time, so that syncs of the commit log find the disk idle in between; for as
    /// long as nobody waits for a turn, and there was no [`haste`](Self::haste) since.
    pub(crate) fn flush_at_leisure(&self, since: u64) -> Result<()> {
        let _turn = self.turn.take();
        // Elsewhere there is no way to have pages written back.
        let file = self
            .current()
            .file()
            .filter(|_| cfg!(target_os = "linux"))
            .and_then(|file| file.try_clone().ok());
        let pace = file.map(|file| Pace::new(file, Arc::clone(&self.turn), since));
        self.state.unsynced().set_pace(pace);
        let flushed = self.flush_in_turn();
        self.state.unsynced().set_pace(None);
        flushed
    }

    /// Writes chunks of a payload that nothing refers to yet, without making them durable.
    ///
    /// `started` is when the upload began; the row that says so lets the next open reclaim what a crash left.
    pub(crate) fn stage(&self, id: u64, started: i64, rows: &[StagedRow]) -> Result<()> {
        let _turn = self.turn.take();
        shield("stage a payload", || {
            let transaction = self.begin_unsynced()?;
            {
                let mut staging = Target::open(&transaction, Table::Staging)?;
                let mut sealed = Vec::new();
                let key = id.to_be_bytes();
                seal_into(Table::Staging.number(), &key, &started.to_le_bytes(), &mut sealed);
                staging.insert(&key, &sealed)?;
                let mut chunks = Target::open(&transaction, Table::Chunks)?;
                for row in rows {
                    let key = chunk_key(id, row.number);
                    sealed.clear();
                    seal_into(Table::Chunks.number(), &key, &row.body, &mut sealed);
                    chunks.insert(&key, &sealed)?;
                }
            }
            self.staged.fetch_add(1, Ordering::AcqRel);
            transaction.commit().map_err(|error| commit_error(error, "staging a payload"))
        })
    }

    /// Takes back what was staged under these ids.
    pub(crate) fn unstage(&self, ids: &[u64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.take();
        shield("reclaim a payload", || {
            let transaction = self.begin_unsynced()?;
            {
                let mut staging = Target::open(&transaction, Table::Staging)?;
                let mut chunks = Target::open(&transaction, Table::Chunks)?;
                for id in ids {
                    staging.remove(&id.to_be_bytes())?;
                    let end = id.checked_add(1).map(|next| chunk_key(next, 0));
                    chunks.remove_range(&chunk_key(*id, 0), end.as_ref().map(<[u8; 16]>::as_slice))?;
                }
            }
            transaction.commit().map_err(|error| commit_error(error, "reclaiming a payload"))
        })
    }
}

/// Applies in the order of keys, so that pages are met once; the last of several changes of a key counts.
fn carry(transaction: &WriteTransaction, write_sets: &[&WriteSet], head: &Position) -> Result<()> {
    let mut changes: BTreeMap<(Table, Bytes), Option<Bytes>> = BTreeMap::new();
    for write_set in write_sets {
        for operation in write_set.operations()? {
            match operation? {
                Operation::Put { table, key, value } => {
                    changes.insert((known(table)?, key), Some(value));
                }
                Operation::Delete { table, key } => {
                    changes.insert((known(table)?, key), None);
                }
                Operation::DeleteRange { table, start, end, .. } => {
                    // What came before the range must be there to be removed with it.
                    carry_changes(transaction, std::mem::take(&mut changes))?;
                    let table = known(table)?;
                    Target::open(transaction, table)?.remove_range_of(table, &start, end.as_deref())?;
                }
            }
        }
    }
    let mut sealed = Vec::new();
    seal_into(Table::State.number(), state_key::HEAD, &head.encode(), &mut sealed);
    changes.insert((Table::State, Bytes::from_static(state_key::HEAD)), Some(sealed.into()));
    carry_changes(transaction, changes)
}

fn carry_changes(
    transaction: &WriteTransaction,
    changes: BTreeMap<(Table, Bytes), Option<Bytes>>,
) -> Result<()> {
    // Open until the end: `state` and `feed` share a tree, and are not next to each other.
    let mut open: Vec<(Tree, Target<'_>)> = Vec::new();
    for ((table, key), value) in changes {
        let tree = table.tree().0;
        let at = match open.iter().position(|(is_open, _)| *is_open == tree) {
            Some(at) => at,
            None => {
                open.push((tree, Target::open(transaction, table)?));
                open.len() - 1
            }
        };
        let Some((_, target)) = open.get_mut(at) else { continue };
        let key = tree_key(table, &key);
        match value {
            Some(value) => target.insert(&key, &value)?,
            None => target.remove(&key)?,
        }
    }
    Ok(())
}

pub(super) fn known(table: u8) -> Result<Table> {
    Table::from_number(table).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt {
            what: format!("a write-set names table {table}, which is not known"),
        })
    })
}
