//! One consistent view of what redb holds, with its tables opened once and shared by all who read it.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use larder_format::unseal;
use redb::{OwnedAccessGuard, ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableDefinition};

use super::tables::{Table, state_key};
use super::{Head, corrupt, shield, storage};
use crate::error::Result;
use crate::payload::PayloadPage;

pub(super) type BytesTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
pub(super) type ChunkTable = ReadOnlyTable<[u8; 16], &'static [u8]>;

pub(super) const fn bytes_definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

pub(super) const CHUNKS: TableDefinition<'static, [u8; 16], &'static [u8]> =
    TableDefinition::new(Table::Chunks.name());

/// The key of a chunk: payload id, then chunk number, both big-endian.
pub(crate) fn chunk_key(id: u64, number: u64) -> [u8; 16] {
    ((u128::from(id) << 64) | u128::from(number)).to_be_bytes()
}

/// A consistent view of the tables. A table is opened by the first who reads it, for all who do.
pub(crate) struct Snapshot {
    head: Head,
    chunks: OnceLock<ChunkTable>,
    tables: [OnceLock<BytesTable>; Table::ALL.len()],
    // After the tables: it must go last.
    transaction: ReadTransaction,
}

impl Snapshot {
    /// Opens the view at a position that is known.
    pub(super) fn at(transaction: ReadTransaction, head: Head) -> Self {
        Self { head, chunks: OnceLock::new(), tables: Default::default(), transaction }
    }

    /// Opens the view at the position that it says it is at.
    pub(super) fn open(transaction: ReadTransaction) -> Result<Self> {
        let mut snapshot = Self::at(transaction, Head::default());
        if let Some(row) = snapshot.get(Table::State, state_key::HEAD)? {
            snapshot.head = Head::decode(&row)?;
        }
        Ok(snapshot)
    }

    /// Gives the position up to which write-sets are in the view.
    pub(crate) fn head(&self) -> &Head {
        &self.head
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
                other => self.bytes_table(other)?.get(key),
            };
            let Some(guard) = guard.map_err(storage)? else { return Ok(None) };
            let body =
                unseal(table.number(), key, guard.value()).map_err(|error| damaged(table, key, error))?;
            Ok(Some(read(body)))
        })
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
    }

    /// Tells how many rows a table has.
    pub(crate) fn count(&self, table: Table) -> Result<u64> {
        shield("count", || {
            match table {
                Table::Chunks => self.chunk_table()?.len(),
                other => self.bytes_table(other)?.len(),
            }
            .map_err(storage)
        })
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
                other => Rows::Bytes(self.bytes_table(other)?.range::<&[u8]>((start, end)).map_err(storage)?),
            })
        })?;
        Ok(SnapshotRange { rows: Some(rows), table, _snapshot: Arc::clone(self) })
    }

    fn bytes_table(&self, table: Table) -> Result<&BytesTable> {
        let slot = self.tables.get(usize::from(table.number()) - 1);
        let slot = slot.ok_or_else(|| corrupt(format!("there is no table {}", table.name())))?;
        if let Some(open) = slot.get() {
            return Ok(open);
        }
        let open = self.transaction.open_table(bytes_definition(table)).map_err(super::table_error)?;
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

fn damaged(table: Table, key: &[u8], error: larder_format::ChecksumError) -> crate::error::Error {
    corrupt(format!("table {}, key {}: {error}", table.name(), key.escape_ascii()))
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

impl PayloadPage for ChunkPage {
    fn body(&self) -> &[u8] {
        self.guard.value().get(larder_format::CHECKSUM_LENGTH..).unwrap_or_default()
    }
}

enum Rows {
    Bytes(redb::Range<'static, &'static [u8], &'static [u8]>),
    Chunks(redb::Range<'static, [u8; 16], &'static [u8]>),
}

/// Rows of a table in the order of their keys. Ends after the first error.
pub(crate) struct SnapshotRange {
    // Declared before the snapshot: the rows must go before the transaction that they belong to.
    rows: Option<Rows>,
    table: Table,
    _snapshot: Arc<Snapshot>,
}

impl SnapshotRange {
    fn step(&mut self, back: bool) -> Option<Result<(Bytes, Bytes)>> {
        let table = self.table;
        let rows = self.rows.as_mut()?;
        let item = shield("read", || {
            let row = |key: &[u8], value: &[u8]| {
                let body = unseal(table.number(), key, value).map_err(|error| damaged(table, key, error))?;
                Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(body)))
            };
            match rows {
                Rows::Bytes(rows) => {
                    let Some(item) = (if back { rows.next_back() } else { rows.next() }) else {
                        return Ok(None);
                    };
                    let (key, value) = item.map_err(storage)?;
                    row(key.value(), value.value()).map(Some)
                }
                Rows::Chunks(rows) => {
                    let Some(item) = (if back { rows.next_back() } else { rows.next() }) else {
                        return Ok(None);
                    };
                    let (key, value) = item.map_err(storage)?;
                    row(&key.value(), value.value()).map(Some)
                }
            }
        });
        let item = item.transpose();
        if !matches!(item, Some(Ok(_))) {
            self.rows = None;
        }
        item
    }
}

impl Iterator for SnapshotRange {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for SnapshotRange {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}
