//! Filling a file that nobody has yet: from a snapshot, from another store, from what could be read of one.

use std::ops::Bound;

use bytes::Bytes;
use larder_format::{Operation, seal_into};
use redb::{CursorError, ReadableTable, WriteTransaction};

use super::apply::{Target, known};
use super::tables::tree_key;
use super::{Store, Table, commit_error, corrupt, shield, storage};
use crate::error::Result;

/// How much is put into one transaction, in bytes.
const COMMITTED_AT_ONCE: usize = 64 << 20;
/// How many single changes are gathered before they are applied, and how many bytes of them.
const GATHERED_MAX: usize = 4_096;
const GATHERED_BYTES_MAX: usize = 1 << 20;

/// Puts rows into a store past everything that checks them: nobody else has it open.
pub(crate) struct Loader<'s> {
    store: &'s Store,
    transaction: Option<WriteTransaction>,
    bytes: usize,
    /// Single changes, gathered so that a table is opened once for many.
    gathered: Vec<Operation>,
    gathered_bytes: usize,
}

impl Store {
    /// Begins to fill the store.
    pub(crate) fn load(&self) -> Loader<'_> {
        Loader { store: self, transaction: None, bytes: 0, gathered: Vec::new(), gathered_bytes: 0 }
    }
}

impl Loader<'_> {
    /// Applies operations in their order. Rows behind all that there are go in quickest.
    pub(crate) fn apply(&mut self, operations: &[Operation]) -> Result<()> {
        self.apply_gathered()?;
        self.apply_now(operations)?;
        if self.bytes >= COMMITTED_AT_ONCE { self.commit() } else { Ok(()) }
    }

    fn apply_gathered(&mut self) -> Result<()> {
        self.gathered_bytes = 0;
        let gathered = std::mem::take(&mut self.gathered);
        self.apply_now(&gathered)
    }

    fn apply_now(&mut self, operations: &[Operation]) -> Result<()> {
        self.bytes += operations.iter().map(length_of).sum::<usize>();
        shield("fill the file", || {
            let mut rest = operations;
            while let Some(first) = rest.first() {
                let table = known(first.place().0)?;
                let same = rest.iter().take_while(|operation| operation.place().0 == table.number()).count();
                let (now, later) = rest.split_at(same);
                let transaction = self.transaction()?;
                apply_to(&mut Target::open(transaction, table)?, table, now)?;
                rest = later;
            }
            Ok(())
        })
    }

    fn gather(&mut self, operation: Operation) -> Result<()> {
        self.gathered_bytes += length_of(&operation);
        self.gathered.push(operation);
        let is_enough = self.gathered.len() >= GATHERED_MAX || self.gathered_bytes >= GATHERED_BYTES_MAX;
        if is_enough { self.apply(&[]) } else { Ok(()) }
    }

    /// Puts a row.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], body: &[u8]) -> Result<()> {
        let mut sealed = Vec::new();
        seal_into(table.number(), key, body, &mut sealed);
        self.put_sealed(table, key.to_vec().into(), sealed.into())
    }

    /// Puts a row whose value has its checksum in front.
    pub(crate) fn put_sealed(&mut self, table: Table, key: Bytes, value: Bytes) -> Result<()> {
        self.gather(Operation::Put { table: table.number(), key, value })
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.gather(Operation::Delete { table: table.number(), key: key.to_vec().into() })
    }

    /// Removes the rows from `start` up to, and without, `end`.
    pub(crate) fn remove_range(&mut self, table: Table, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        let (start, end) = (start.to_vec().into(), end.map(|end| end.to_vec().into()));
        self.gather(Operation::DeleteRange { table: table.number(), start, end, count: 0 })
    }

    /// Lets what was done so far be seen, and the transaction go.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.apply_gathered()?;
        self.bytes = 0;
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        shield("fill the file", || {
            transaction.commit().map_err(|error| commit_error(error, "filling the file"))
        })
    }

    fn transaction(&mut self) -> Result<&WriteTransaction> {
        if self.transaction.is_none() {
            self.transaction = Some(self.store.begin_unsynced()?);
        }
        self.transaction.as_ref().ok_or_else(|| corrupt("no transaction was begun"))
    }
}

fn length_of(operation: &Operation) -> usize {
    match operation {
        Operation::Put { key, value, .. } => key.len() + value.len(),
        _ => operation.place().1.len(),
    }
}

/// Applies operations on one table.
fn apply_to(target: &mut Target<'_>, table: Table, operations: &[Operation]) -> Result<()> {
    let done = append(target, table, operations)?;
    for operation in operations.get(done..).unwrap_or_default() {
        match operation {
            Operation::Put { key, value, .. } => target.insert(&tree_key(table, key), value)?,
            Operation::Delete { key, .. } => target.remove(&tree_key(table, key))?,
            Operation::DeleteRange { start, end, .. } => {
                target.remove_range_of(table, start, end.as_deref())?;
            }
        }
    }
    Ok(())
}

/// Appends the puts at the front, as long as they lie behind everything in the tree and behind one another; tells how many.
fn append(target: &mut Target<'_>, table: Table, operations: &[Operation]) -> Result<usize> {
    match target {
        Target::Bytes(tree) => {
            let last = tree.last().map_err(storage)?.map(|(key, _)| key.value().to_vec());
            append_behind(last, table, operations, |rows| {
                let mut end = tree.upper_bound_mut(Bound::<&[u8]>::Unbounded).map_err(storage)?;
                for (key, value) in rows {
                    end.insert_before(key.as_slice(), *value).map_err(cursor_error)?;
                }
                end.close().map_err(storage)
            })
        }
        Target::Chunks(tree) => {
            let last = tree.last().map_err(storage)?.map(|(key, _)| key.value().to_vec());
            append_behind(last, table, operations, |rows| {
                let mut end = tree.upper_bound_mut(Bound::<[u8; 16]>::Unbounded).map_err(storage)?;
                for (key, value) in rows {
                    end.insert_before(super::apply::fixed(key)?, *value).map_err(cursor_error)?;
                }
                end.close().map_err(storage)
            })
        }
    }
}

fn append_behind(
    mut last: Option<Vec<u8>>,
    table: Table,
    operations: &[Operation],
    append: impl FnOnce(&[(Vec<u8>, &[u8])]) -> Result<()>,
) -> Result<usize> {
    let mut rows = Vec::new();
    for operation in operations {
        let Operation::Put { key, value, .. } = operation else { break };
        let key = tree_key(table, key).into_owned();
        if last.as_ref().is_some_and(|last| *last >= key) {
            break;
        }
        last = Some(key.clone());
        rows.push((key, value.as_ref()));
    }
    if !rows.is_empty() {
        append(&rows)?;
    }
    Ok(rows.len())
}

fn cursor_error(error: CursorError) -> crate::error::Error {
    match error {
        CursorError::Storage(error) => storage(error),
        other => corrupt(other.to_string()),
    }
}
