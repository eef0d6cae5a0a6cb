//! One consistent view of what redb holds, with its tables opened once and shared by all who read it.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use larder_format::unseal;
use redb::{
    AccessGuard, OwnedAccessGuard, ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition,
};

use super::tables::{Table, Tree, state_key, tree_key};
use super::{Generation, Position, corrupt, shield, storage};
use crate::error::Result;
use crate::payload::{ChunkSource, PayloadPage};

pub(super) type BytesTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
pub(super) type ChunkTable = ReadOnlyTable<[u8; 16], &'static [u8]>;

pub(super) const fn bytes_definition(tree: Tree) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(tree.name())
}

pub(super) const CHUNKS: TableDefinition<'static, [u8; 16], &'static [u8]> =
    TableDefinition::new(Table::Chunks.name());

/// The key of a chunk: payload id, then chunk number, both big-endian.
pub(crate) fn chunk_key(id: u64, number: u64) -> [u8; 16] {
    ((u128::from(id) << 64) | u128::from(number)).to_be_bytes()
}

/// A consistent view of the tables. A table is opened by the first who reads it, for all who do.
pub(crate) struct Snapshot {
    head: OnceLock<Position>,
    chunks: OnceLock<ChunkTable>,
    trees: [OnceLock<BytesTable>; Table::ALL.len() + 1],
    // After the tables: it must go behind them, and before the database that it is of.
    transaction: ReadTransaction,
    generation: Arc<Generation>,
}

impl Snapshot {
    pub(super) fn of(transaction: ReadTransaction, generation: Arc<Generation>) -> Self {
        Self {
            head: OnceLock::new(),
            chunks: OnceLock::new(),
            trees: Default::default(),
            transaction,
            generation,
        }
    }

    /// Gives the position up to which write-sets are in the view.
    pub(crate) fn head(&self) -> Result<Position> {
        if let Some(head) = self.head.get() {
            return Ok(*head);
        }
        let head = match self.get(Table::State, state_key::HEAD)? {
            Some(row) => {
                Position::decode(&row).ok_or_else(|| corrupt("the applied position is malformed"))?
            }
            None => Position::default(),
        };
        Ok(*self.head.get_or_init(|| head))
    }

    /// Gives the body under a key, as a copy, after comparing its checksum.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.get_with(table, key, Bytes::copy_from_slice)
    }

    /// Hands the body under a key to `read`, in place, after comparing its checksum.
    pub(crate) fn get_with<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        shield("read", || {
            let guard = match table {
                Table::Chunks => match <[u8; 16]>::try_from(key) {
                    Ok(key) => self.chunk_table()?.get(key),
                    Err(_) => return Ok(None),
                },
                other => self.bytes_table(other)?.get(tree_key(other, key).as_ref()),
            };
            let Some(guard) = guard.map_err(storage)? else { return Ok(None) };
            let body =
                unseal(table.number(), key, guard.value()).map_err(|error| damaged(table, key, error))?;
            Ok(Some(read(body)))
        })
        .map_err(|error| self.generation.told(error))
    }

    /// Gives a chunk in place: the page stays as long as the guard does, which counts as a reader.
    pub(crate) fn chunk_in_place(&self, id: u64, number: u64) -> Result<Option<ChunkPage>> {
        let key = chunk_key(id, number);
        shield("read a payload", || {
            let Some(guard) = self.chunk_table()?.get_owned(key).map_err(storage)? else { return Ok(None) };
            unseal(Table::Chunks.number(), &key, guard.value())
                .map_err(|error| damaged(Table::Chunks, &key, error))?;
            Ok(Some(ChunkPage { guard }))
        })
        .map_err(|error| self.generation.told(error))
    }

    /// Gives the ids of what is uploaded, and nothing refers to yet.
    pub(crate) fn uploads(self: &Arc<Self>) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        for row in self.range(Table::Staging, Bound::Unbounded, Bound::Unbounded)? {
            ids.extend(row?.key().first_chunk().map(|id| u64::from_be_bytes(*id)));
        }
        Ok(ids)
    }

    /// Tells how many rows a table has that has a tree of its own.
    pub(crate) fn count(&self, table: Table) -> Result<u64> {
        shield("count", || {
            match table {
                Table::Chunks => self.chunk_table()?.len(),
                other => self.bytes_table(other)?.len(),
            }
            .map_err(storage)
        })
        .map_err(|error| self.generation.told(error))
    }

    /// Iterates over the rows of a table between two keys, with their checksums compared.
    pub(crate) fn range(
        self: &Arc<Self>,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<SnapshotRange> {
        let rows = shield("read", || {
            Ok(match table {
                Table::Chunks => {
                    let bound = |bound: Bound<&[u8]>| match bound {
                        Bound::Unbounded => Bound::Unbounded,
                        Bound::Included(key) => Bound::Included(padded(key)),
                        Bound::Excluded(key) => Bound::Excluded(padded(key)),
                    };
                    Rows::Chunks(
                        self.chunk_table()?.range::<[u8; 16]>((bound(start), bound(end))).map_err(storage)?,
                    )
                }
                other => {
                    let (start, end) = (tree_bound(other, start, 0), tree_bound(other, end, 1));
                    let bounds =
                        (start.as_ref().map(|key| key.as_ref()), end.as_ref().map(|key| key.as_ref()));
                    Rows::Bytes(self.bytes_table(other)?.range::<&[u8]>(bounds).map_err(storage)?)
                }
            })
        })
        .map_err(|error| self.generation.told(error))?;
        Ok(SnapshotRange { is_over_damage: false, rows: Some(rows), table, snapshot: Arc::clone(self) })
    }

    /// Gives the first key of a table, or the last.
    pub(crate) fn end_of(self: &Arc<Self>, table: Table, back: bool) -> Result<Option<Bytes>> {
        let mut rows = self.range(table, Bound::Unbounded, Bound::Unbounded)?;
        let row = if back { rows.next_back() } else { rows.next() };
        Ok(row.transpose()?.map(|row| Bytes::copy_from_slice(row.key())))
    }

    fn bytes_table(&self, table: Table) -> Result<&BytesTable> {
        let tree = table.tree().0;
        let slot = self.trees.get(tree.place());
        let slot = slot.ok_or_else(|| corrupt(format!("there is no table {}", table.name())))?;
        if let Some(open) = slot.get() {
            return Ok(open);
        }
        let open = self.transaction.open_table(bytes_definition(tree)).map_err(super::table_error)?;
        Ok(slot.get_or_init(|| open))
    }

    fn chunk_table(&self) -> Result<&ChunkTable> {
        if let Some(open) = self.chunks.get() {
            return Ok(open);
        }
        let open = self.transaction.open_table(CHUNKS).map_err(super::table_error)?;
        Ok(self.chunks.get_or_init(|| open))
    }
}

impl ChunkSource for Arc<Snapshot> {
    fn chunk(&self, id: u64, number: u64) -> Result<Option<Bytes>> {
        self.get(Table::Chunks, &chunk_key(id, number))
    }
}

fn damaged(table: Table, key: &[u8], error: larder_format::ChecksumError) -> crate::error::Error {
    corrupt(format!("table {}, key {}: {error}", table.name(), key.escape_ascii()))
}

/// A bound in the tree of a table; where there is none, that of the table in the tree that it shares.
fn tree_bound(table: Table, bound: Bound<&[u8]>, beyond: u8) -> Bound<Cow<'_, [u8]>> {
    match (bound, table.tree().1) {
        (Bound::Included(key), _) => Bound::Included(tree_key(table, key)),
        (Bound::Excluded(key), _) => Bound::Excluded(tree_key(table, key)),
        (Bound::Unbounded, None) => Bound::Unbounded,
        (Bound::Unbounded, Some(front)) if beyond == 0 => Bound::Included(vec![front].into()),
        (Bound::Unbounded, Some(front)) => Bound::Excluded(vec![front + beyond].into()),
    }
}

/// A key of the chunk table from one that may be shorter: what is missing is zero.
fn padded(key: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(key) {
        *to = *from;
    }
    out
}

/// A chunk that lies in its page.
pub(crate) struct ChunkPage {
    guard: OwnedAccessGuard<&'static [u8]>,
}

impl ChunkPage {
    /// Turns the page into bytes, which keep it as long as they are there.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for ChunkPage {
    fn as_ref(&self) -> &[u8] {
        self.body()
    }
}

impl PayloadPage for ChunkPage {
    fn body(&self) -> &[u8] {
        self.guard.value().get(larder_format::CHECKSUM_LENGTH..).unwrap_or_default()
    }
}

enum Rows {
    Bytes(redb::Range<'static, &'static [u8], &'static [u8]>),
    Chunks(redb::Range<'static, [u8; 16], &'static [u8]>),
}

/// A row in its page, whose checksum was compared. Must not be kept longer than the view.
pub(crate) struct StoredRow {
    key: StoredKey,
    value: AccessGuard<'static, &'static [u8]>,
}

enum StoredKey {
    /// With the byte in front that tells the tables of a shared tree apart.
    Bytes {
        key: AccessGuard<'static, &'static [u8]>,
        front: usize,
    },
    Chunk([u8; 16]),
}

impl StoredRow {
    pub(crate) fn key(&self) -> &[u8] {
        match &self.key {
            StoredKey::Bytes { key, front } => key.value().get(*front..).unwrap_or_default(),
            StoredKey::Chunk(key) => key,
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.sealed().get(larder_format::CHECKSUM_LENGTH..).unwrap_or_default()
    }

    /// The body with its checksum in front.
    pub(crate) fn sealed(&self) -> &[u8] {
        self.value.value()
    }
}

/// Rows of a table in the order of their keys. Ends after the first error.
pub(crate) struct SnapshotRange {
    /// Whether a row that is damaged is passed over rather than the end.
    is_over_damage: bool,
    // Declared before the snapshot: the rows must go before the transaction that they belong to.
    rows: Option<Rows>,
    table: Table,
    snapshot: Arc<Snapshot>,
}

impl SnapshotRange {
    /// Goes on behind rows whose checksums do not agree. Where redb itself cannot go on, it ends all the same.
    pub(crate) fn over_damage(mut self) -> Self {
        self.is_over_damage = true;
        self
    }

    fn step(&mut self, back: bool) -> Option<Result<StoredRow>> {
        let table = self.table;
        let rows = self.rows.as_mut()?;
        let mut is_row_damaged = false;
        let item = shield("read", || {
            let row = match rows {
                Rows::Bytes(rows) => {
                    let Some(item) = (if back { rows.next_back() } else { rows.next() }) else {
                        return Ok(None);
                    };
                    let (key, value) = item.map_err(storage)?;
                    let front = usize::from(table.tree().1.is_some());
                    StoredRow { key: StoredKey::Bytes { key, front }, value }
                }
                Rows::Chunks(rows) => {
                    let Some(item) = (if back { rows.next_back() } else { rows.next() }) else {
                        return Ok(None);
                    };
                    let (key, value) = item.map_err(storage)?;
                    StoredRow { key: StoredKey::Chunk(key.value()), value }
                }
            };
            let found = unseal(table.number(), row.key(), row.value.value());
            is_row_damaged = found.is_err();
            found.map_err(|error| damaged(table, row.key(), error))?;
            Ok(Some(row))
        });
        let item = item.map_err(|error| self.snapshot.generation.told(error)).transpose();
        if !(matches!(item, Some(Ok(_))) || (is_row_damaged && self.is_over_damage)) {
            self.rows = None;
        }
        item
    }
}

impl Iterator for SnapshotRange {
    type Item = Result<StoredRow>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for SnapshotRange {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}
