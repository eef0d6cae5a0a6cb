//! The rows of collections, and what follows from them: entries of indexes, and aggregates.
//!
//! ```text
//! rows:    [collection number u64 big-endian][key of the row]                        -> a row
//! entries: [collection number u64 big-endian][number u16 big-endian][values][00][key of the row] -> nothing
//!          [collection number u64 big-endian][number u16 big-endian, from 8000 on][values]       -> an aggregate
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{
    Aggregate, CollectionDefinition, Differing, IndexDefinition, IndexEntry, Part, Record, RowContent,
    SectionTag, Tuple,
};

use super::derived::DerivedRow;
use crate::error::Result;
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

/// Says the key that a row has in its collection, for people: `"a" 2`.
pub(crate) fn row_name(key: &[u8]) -> String {
    let Ok(key) = Tuple::decode(key) else { return key.escape_ascii().to_string() };
    let name = |part: &Part| match part {
        Part::Integer(number) => number.to_string(),
        Part::String(text) => format!("{text:?}"),
        other => format!("{other:?}"),
    };
    key.parts().iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Gives the key of the row that an entry of an index is of.
pub(crate) fn entry_of<'e>(index: &IndexDefinition, entry: &'e [u8]) -> Result<&'e [u8]> {
    let row = row_key_of(entry).and_then(|(_, entry)| index.row_of(entry));
    row.ok_or_else(|| corrupt(format!("an entry of the index {} is malformed", index.name)))
}

/// Gives the values that an entry of an index is under, and the key of the row that it is of.
pub(crate) fn values_of(index: &IndexDefinition, entry: &[u8]) -> Result<(Vec<Part>, Tuple)> {
    let split = row_key_of(entry).and_then(|(_, entry)| index.values_of(entry));
    let decoded = split.and_then(|(values, row)| Some((values, Tuple::decode(row).ok()?)));
    decoded.ok_or_else(|| corrupt(format!("an entry of the index {} is malformed", index.name)))
}

/// The entries of a row in the indexes of its collection.
pub(crate) fn derived_of_row(
    collection: &DefinedCollection,
    key: &[u8],
    content: &RowContent,
) -> impl Iterator<Item = DerivedRow> {
    let indexes = collection.definition.indexes.iter();
    let entries = indexes.flat_map(move |index| index.entries(collection.id, key, &content.fields));
    entries.map(|entry| DerivedRow { table: Table::Entries, key: entry.key.into(), body: Bytes::new() })
}

/// What a row adds to the aggregates of its collection that are asked for, and to that of all rows, by what they lie under.
fn shares_of(
    collection: &DefinedCollection,
    key: &[u8],
    content: &RowContent,
    differing: Differing,
) -> impl Iterator<Item = (Vec<u8>, i128)> {
    let length = (key.len() + content.value.len()) as i128;
    let total = [&collection.id.to_be_bytes()[..], &CollectionDefinition::total_key()].concat();
    let aggregates = collection.definition.aggregates.iter();
    let aggregates = aggregates.filter(move |aggregate| differing.concerns_aggregate(aggregate));
    let shares = aggregates.filter_map(|aggregate| aggregate.share(collection.id, &content.fields));
    std::iter::once((total, length)).chain(shares)
}

/// What follows when a row turns into another, is new, or goes.
#[derive(Default)]
pub(crate) struct RowChange<'d> {
    /// Entries that are no longer there.
    pub(crate) gone: Vec<Vec<u8>>,
    /// Entries that are there now, and the indexes that they are of.
    pub(crate) come: Vec<(&'d IndexDefinition, IndexEntry)>,
    /// How many rows, and how much, are added to which aggregates; one can be there twice.
    pub(crate) shares: Vec<(Vec<u8>, (i64, i128))>,
}

impl<'d> RowChange<'d> {
    /// Derives what follows; what does not depend on a field that differs is not looked at.
    pub(crate) fn new(
        collection: &'d DefinedCollection,
        key: &[u8],
        old: Option<&RowContent>,
        new: Option<&RowContent>,
    ) -> Self {
        let definition = &collection.definition;
        let differing = match (old, new) {
            (Some(old), Some(new)) => definition.differing(&old.fields, &new.fields),
            _ => Differing::ALL,
        };
        let mut change = Self::default();
        for (content, weight) in [(old, -1), (new, 1)] {
            let shares = content.into_iter().flat_map(|row| shares_of(collection, key, row, differing));
            change.shares.extend(shares.map(|(at, sum)| (at, (weight, sum * i128::from(weight)))));
        }
        for index in definition.indexes.iter().filter(|index| differing.concerns_index(index)) {
            let entries = |row: &RowContent| index.entries(collection.id, key, &row.fields);
            let mut gone = old.map(entries).unwrap_or_default();
            let mut come = new.map(entries).unwrap_or_default();
            come.retain(|entry| {
                let before = gone.iter().position(|other| other == entry);
                before.map(|place| gone.swap_remove(place)).is_none()
            });
            change.gone.extend(gone.into_iter().map(|entry| entry.key));
            change.come.extend(come.into_iter().map(|entry| (index, entry)));
        }
        change
    }
}

/// The aggregates of rows, counted anew.
#[derive(Default)]
pub(crate) struct Groups(BTreeMap<Bytes, Aggregate>);

impl Groups {
    /// Counts a row in.
    pub(crate) fn count(&mut self, collection: &DefinedCollection, key: &[u8], content: &RowContent) {
        for (at, sum) in shares_of(collection, key, content, Differing::ALL) {
            let group = self.0.entry(at.into()).or_default();
            *group = group.with(1, sum);
        }
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
