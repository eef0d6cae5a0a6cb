//! The rows of collections, and what follows from them: entries of indexes, and aggregates.
//!
//! ```text
//! rows:    [collection number u64 big-endian][key of the row]                        -> a row
//! entries: [collection number u64 big-endian][number u16 big-endian][values][00][key of the row] -> nothing
//!          [collection number u64 big-endian][number u16 big-endian, from 8000 on][values]       -> an aggregate
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{
    Aggregate, AggregateDefinition, CollectionDefinition, IndexDefinition, Record, RowContent, SectionTag,
    TupleError,
};

use super::derived::DerivedRow;
use crate::error::{ErrorKind, Result};
use crate::store::{Table, corrupt};

/// A collection as its record says it is.
#[derive(Debug, Clone)]
pub(crate) struct DefinedCollection {
    pub(crate) id: u64,
    pub(crate) definition: Arc<CollectionDefinition>,
}

/// A collection, and the record under its key.
#[derive(Debug, Clone)]
pub(crate) struct OpenedCollection {
    pub(crate) record: Record,
    pub(crate) collection: DefinedCollection,
}

impl std::ops::Deref for OpenedCollection {
    type Target = DefinedCollection;

    fn deref(&self) -> &DefinedCollection {
        &self.collection
    }
}

impl DefinedCollection {
    /// Gives the section of a record that says it; nothing if the record is not that of a collection.
    pub(crate) fn section(record: &Record) -> Option<&[u8]> {
        if !record.is_collection() {
            return None;
        }
        Some(record.section(SectionTag::Collection.number()).unwrap_or_default())
    }

    /// Gives the number of the collection of a record, if it is that of one.
    pub(crate) fn id_of(record: &Record) -> Option<u64> {
        Self::section(record)?.first_chunk().map(|id| u64::from_le_bytes(*id))
    }

    pub(crate) fn decode(section: &[u8]) -> Result<Self> {
        let (id, definition) =
            CollectionDefinition::decode(section).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self { id, definition: Arc::new(definition) })
    }

    /// Gives the rows of everything below it, in the tables of rows and entries.
    pub(crate) fn range(id: u64) -> (Bytes, Option<Bytes>) {
        let end = id.checked_add(1).map(|next| Bytes::copy_from_slice(&next.to_be_bytes()));
        (Bytes::copy_from_slice(&id.to_be_bytes()), end)
    }
}

/// What a row, or an entry, of a collection lies under.
pub(crate) fn row_key(id: u64, key: &[u8]) -> Bytes {
    [&id.to_be_bytes(), key].concat().into()
}

/// Takes the key of a row apart: the number of its collection, and its key there.
pub(crate) fn row_key_of(row_key: &[u8]) -> Option<(u64, &[u8])> {
    row_key.split_first_chunk::<8>().map(|(id, key)| (u64::from_be_bytes(*id), key))
}

/// Gives the key of the row that an entry of an index is of.
pub(crate) fn entry_of<'e>(index: &IndexDefinition, entry: &'e [u8]) -> Result<&'e [u8]> {
    let row = row_key_of(entry).and_then(|(_, entry)| index.row_of(entry));
    row.ok_or_else(|| corrupt(format!("an entry of the index {} is malformed", index.name)))
}

/// The entries of a row in the indexes of its collection.
pub(crate) fn derived_of_row(
    collection: &DefinedCollection,
    key: &[u8],
    content: &RowContent,
) -> Result<Vec<DerivedRow>> {
    let entries = entries_of(collection, key, content, |_| true)?;
    let row = |key| DerivedRow { table: Table::Entries, key, body: Bytes::new() };
    Ok(entries.into_iter().map(row).collect())
}

/// The entries of a row in those indexes of its collection that are asked for.
fn entries_of(
    collection: &DefinedCollection,
    key: &[u8],
    content: &RowContent,
    is_wanted: impl Fn(&IndexDefinition) -> bool,
) -> Result<Vec<Bytes>> {
    let mut entries = Vec::new();
    for index in collection.definition.indexes.iter().filter(|index| is_wanted(index)) {
        let of_index = index.entries(key, &content.fields).map_err(|error| unencodable(&error))?;
        entries.extend(of_index.iter().map(|entry| row_key(collection.id, &entry.key)));
    }
    Ok(entries)
}

/// What a row adds to the aggregates of its collection that are asked for, and to that of all rows, by what they lie under.
fn shares_of(
    collection: &DefinedCollection,
    key: &[u8],
    content: &RowContent,
    is_wanted: impl Fn(&AggregateDefinition) -> bool,
) -> Result<Vec<(Bytes, i128)>> {
    let length = (key.len() + content.value.len()) as i128;
    let mut shares = vec![(row_key(collection.id, &CollectionDefinition::total_key()), length)];
    for aggregate in collection.definition.aggregates.iter().filter(|aggregate| is_wanted(aggregate)) {
        let share = aggregate.share(&content.fields).map_err(|error| unencodable(&error))?;
        shares.extend(share.map(|(at, sum)| (row_key(collection.id, &at), sum)));
    }
    Ok(shares)
}

/// What follows when a row turns into another, is new, or goes.
#[derive(Default)]
pub(crate) struct RowChange {
    /// Entries that are no longer there.
    pub(crate) gone: Vec<Bytes>,
    /// Entries that are there now.
    pub(crate) come: Vec<Bytes>,
    /// How many rows, and how much, are added to which aggregates.
    pub(crate) shares: BTreeMap<Bytes, (i8, i128)>,
}

impl RowChange {
    /// Derives what follows; what does not depend on a field that differs is not looked at.
    pub(crate) fn new(
        collection: &DefinedCollection,
        key: &[u8],
        old: Option<&RowContent>,
        new: Option<&RowContent>,
    ) -> Result<Self> {
        let differing = match (old, new) {
            (Some(old), Some(new)) => Some(old.fields.differing(&new.fields)),
            _ => None,
        };
        let concerns = |goes_by: &dyn Fn(&str) -> bool| {
            differing.as_ref().is_none_or(|fields| fields.iter().any(|field| goes_by(field)))
        };
        let mut change = Self::default();
        for (content, weight) in [(old, -1_i8), (new, 1)] {
            let Some(content) = content else { continue };
            let is_counted = |aggregate: &AggregateDefinition| concerns(&|field| aggregate.goes_by(field));
            for (at, sum) in shares_of(collection, key, content, is_counted)? {
                let (rows, sums) = change.shares.entry(at).or_default();
                *rows += weight;
                *sums = sums.saturating_add(sum.saturating_mul(i128::from(weight)));
            }
            let is_concerned = |index: &IndexDefinition| concerns(&|field| index.goes_by(field));
            let entries = entries_of(collection, key, content, is_concerned)?;
            if weight < 0 { change.gone = entries } else { change.come = entries }
        }
        change.shares.retain(|_, share| *share != (0, 0));
        let kept: BTreeSet<Bytes> =
            change.gone.iter().filter(|entry| change.come.contains(entry)).cloned().collect();
        for entries in [&mut change.gone, &mut change.come] {
            entries.retain(|entry| !kept.contains(entry));
        }
        Ok(change)
    }
}

fn unencodable(error: &TupleError) -> ErrorKind {
    ErrorKind::InvalidArgument {
        argument: "fields",
        expected: "values that can be keys of an index".to_owned(),
        got: error.to_string(),
    }
}

/// The aggregates of rows, counted anew.
#[derive(Default)]
pub(crate) struct Groups(BTreeMap<Bytes, Aggregate>);

impl Groups {
    /// Counts a row in.
    pub(crate) fn count(
        &mut self,
        collection: &DefinedCollection,
        key: &[u8],
        content: &RowContent,
    ) -> Result<()> {
        for (at, sum) in shares_of(collection, key, content, |_| true)? {
            let group = self.0.entry(at).or_default();
            *group = group.with(1, sum);
        }
        Ok(())
    }

    /// Gives the rows that say it.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = DerivedRow> {
        self.0.into_iter().map(|(key, group)| DerivedRow {
            table: Table::Entries,
            key,
            body: Bytes::copy_from_slice(&group.encode()),
        })
    }
}
