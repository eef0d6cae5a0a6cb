//! Collections, as a caller sees them: rows with typed keys, named fields and a value, in the order of their keys and
//! of what they are indexed by.
//!
//! A collection lies under a key, as an asset does; what may be done with it is decided there.

use std::borrow::Cow;

use bytes::Bytes;
use larder_format::{
    Aggregate, CollectionDefinition, Labelled, LabelledBuilder, Part, Record, RowContent, Tuple, TupleError,
};

use crate::error::{Error, ErrorKind, Result};
use crate::payload::{Loadable, Storable, TypedValue, archive};
use crate::primitives::OpenedCollection;
use crate::txn::{CollectionMut, ReadTxn};

/// How many rows there are on a page if nothing is said.
const PAGE_DEFAULT: usize = 100;
/// The most rows of a page.
const PAGE_MAX: usize = 10_000;
/// How many rows are read in one go where all are asked for.
const PAGE_AT_ONCE: usize = 1_000;

/// A row that is to be put: a value, and the fields that it is found and counted by.
#[derive(Clone, Default)]
#[must_use]
pub struct RowDraft {
    fields: LabelledBuilder,
    value: Bytes,
}

/// Tells how long the value is, and not what it is.
impl std::fmt::Debug for RowDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = format_args!("{} bytes", self.value.len());
        f.debug_struct("RowDraft").field("fields", &self.fields).field("value", &value).finish()
    }
}

impl RowDraft {
    /// Begins a row with this value, of at most 16 MiB.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { fields: LabelledBuilder::default(), value: value.into() }
    }

    /// Begins a row whose value is archived, to be read in place.
    ///
    /// # Errors
    /// [`Serialization`](ErrorKind::Serialization).
    pub fn typed<T: Storable>(value: &T) -> Result<Self> {
        archive(value).map(Self::new)
    }

    /// Sets a field; of two with the same name the last one counts.
    pub fn field(mut self, name: impl AsRef<str>, value: impl Into<Part>) -> Self {
        self.fields.set(name.as_ref(), &value.into());
        self
    }

    /// Leaves a field out.
    pub fn without(mut self, name: &str) -> Self {
        self.fields.remove(name);
        self
    }

    /// Sets the value.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = value.into();
        self
    }

    pub(crate) fn content(self) -> Result<RowContent> {
        let Self { fields, value } = self;
        Ok(RowContent { fields: fields.build().map_err(not_a_field)?, value })
    }
}

fn not_a_field(error: TupleError) -> Error {
    let expected = "names with values, at most 4096 bytes together".to_owned();
    ErrorKind::InvalidArgument { argument: "fields", expected, got: error.to_string() }.into()
}

impl<V: Into<Bytes>> From<V> for RowDraft {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}

/// A row, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    key: Tuple,
    content: RowContent,
}

impl Row {
    pub(crate) fn new(key: Tuple, content: RowContent) -> Self {
        Self { key, content }
    }

    /// Gives the key.
    #[must_use]
    pub fn key(&self) -> &Tuple {
        &self.key
    }

    /// Gives the fields.
    #[must_use]
    pub fn fields(&self) -> &Labelled {
        &self.content.fields
    }

    /// Gives a field, if the row has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Part> {
        self.content.fields.get(name)
    }

    /// Tells whether the row has a field.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.content.fields.contains(name)
    }

    /// Gives a field that holds an integer of 64 bits.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.content.fields.integer(name)
    }

    /// Gives a field that holds text, where it lies.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.content.fields.text(name)
    }

    /// Gives the value.
    #[must_use]
    pub fn value(&self) -> &Bytes {
        &self.content.value
    }

    /// Opens a value that was put as a [typed](RowDraft::typed) one.
    ///
    /// # Errors
    /// [`TypeMismatch`](ErrorKind::TypeMismatch), [`Corrupt`](ErrorKind::Corrupt).
    pub fn typed<T: Loadable>(&self) -> Result<TypedValue<T>> {
        TypedValue::from_page(Box::new(self.content.value.clone()))
    }

    /// Makes a draft of the row, to put it again with a change.
    pub fn to_draft(&self) -> RowDraft {
        RowDraft { fields: (&self.content.fields).into(), value: self.content.value.clone() }
    }
}

/// Whatever can be the key of a row: a [`Tuple`], one part, or several.
pub trait IntoRowKey {
    /// Makes the key.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) where a part has no place in the order, or all are too long.
    fn into_row_key(self) -> Result<Tuple>;
}

fn row_key_of(parts: Vec<Part>) -> Result<Tuple> {
    Tuple::new(parts).map_err(|error| {
        let expected = "the key of a row: a tuple of at most 4096 bytes".to_owned();
        ErrorKind::InvalidArgument { argument: "key", expected, got: error.to_string() }.into()
    })
}

impl IntoRowKey for Tuple {
    fn into_row_key(self) -> Result<Tuple> {
        Ok(self)
    }
}

impl IntoRowKey for &Tuple {
    fn into_row_key(self) -> Result<Tuple> {
        Ok(self.clone())
    }
}

impl IntoRowKey for Vec<Part> {
    fn into_row_key(self) -> Result<Tuple> {
        row_key_of(self)
    }
}

macro_rules! one_part_keys {
    ($($type:ty),*) => {$(
        impl IntoRowKey for $type {
            fn into_row_key(self) -> Result<Tuple> {
                row_key_of(vec![self.into()])
            }
        }
    )*};
}

one_part_keys!(Part, &str, String, u64, i64, u32, i32);

impl<A: Into<Part>, B: Into<Part>> IntoRowKey for (A, B) {
    fn into_row_key(self) -> Result<Tuple> {
        row_key_of(vec![self.0.into(), self.1.into()])
    }
}

impl<A: Into<Part>, B: Into<Part>, C: Into<Part>> IntoRowKey for (A, B, C) {
    fn into_row_key(self) -> Result<Tuple> {
        row_key_of(vec![self.0.into(), self.1.into(), self.2.into()])
    }
}

/// Where a page ended. Stays good while rows come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCursor(pub(crate) Bytes);

/// Which rows are asked for, in the order of their keys or of an index: all of them, or those that begin with some
/// values, and of these the ones whose next value lies between two.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct RowRange {
    pub(crate) equal: Vec<Part>,
    pub(crate) at_least: Option<Part>,
    pub(crate) at_most: Option<Part>,
    pub(crate) after: Option<RowCursor>,
    limit: Option<usize>,
}

impl RowRange {
    /// Asks for all rows.
    pub fn all() -> Self {
        Self::default()
    }

    /// Asks for those that begin with a value; several are given one after the other.
    pub fn with(mut self, value: impl Into<Part>) -> Self {
        self.equal.push(value.into());
        self
    }

    /// Asks for those whose next value is this one or greater.
    pub fn at_least(mut self, value: impl Into<Part>) -> Self {
        self.at_least = Some(value.into());
        self
    }

    /// Asks for those whose next value is this one or less.
    pub fn at_most(mut self, value: impl Into<Part>) -> Self {
        self.at_most = Some(value.into());
        self
    }

    /// Asks for what is behind a cursor: keyset paging.
    pub fn after(mut self, cursor: RowCursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Asks for this many at most: up to 10 000; 100 if nothing is said. Of none there is no next page.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(crate) fn effective_limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX)
    }
}

/// Rows, in the order that they were asked for in.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RowPage {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<RowCursor>,
}

/// What an index says of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Indexed {
    /// The values of the fields that the index goes by, in their order; of a field that it goes by each part of, the part.
    pub values: Vec<Part>,
    /// The key of the row.
    pub row: Tuple,
}

/// Entries of an index, in its order.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct IndexPage {
    /// The entries.
    pub entries: Vec<Indexed>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<RowCursor>,
}

/// What became of a collection that was defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Defined {
    /// It was not there, and is empty now.
    Created,
    /// It is there, defined in the same way.
    Unchanged,
    /// It is there; its indexes and aggregates were derived anew.
    Changed,
}

/// What became of a row that was to be put only where none is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// None was there: it is now.
    First,
    /// This one was there before, and is as it was.
    Existing(Row),
}

/// A collection, as a read transaction sees it.
pub struct Collection<'t> {
    txn: &'t ReadTxn,
    key: larder_format::Key,
    collection: OpenedCollection,
}

impl std::fmt::Debug for Collection<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<'t> Collection<'t> {
    pub(crate) fn new(txn: &'t ReadTxn, key: larder_format::Key, collection: OpenedCollection) -> Self {
        Self { txn, key, collection }
    }

    /// Gives how it is defined.
    #[must_use]
    pub fn definition(&self) -> &CollectionDefinition {
        &self.collection.definition
    }

    /// Gives the record under its key: whoever may work with a collection may see it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.collection.record
    }

    /// Gives a row, if it is there.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), [`ReaderExpired`](ErrorKind::ReaderExpired),
    /// [`Corrupt`](ErrorKind::Corrupt), [`InvalidArgument`](ErrorKind::InvalidArgument) for the key.
    pub fn get(&self, key: impl IntoRowKey) -> Result<Option<Row>> {
        let key = key.into_row_key()?;
        self.txn.with(|reading| reading.row_of(&self.key, &self.collection, &key))
    }

    /// Gives a page of rows in the order of their keys.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub fn page(&self, range: &RowRange) -> Result<RowPage> {
        self.txn.with(|reading| reading.rows_of(&self.key, &self.collection, range))
    }

    /// Gives a page of rows in the order of an index.
    ///
    /// # Errors
    /// As [`Collection::get`]; [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such index.
    pub fn find(&self, index: &str, range: &RowRange) -> Result<RowPage> {
        self.txn
            .with(|reading| reading.rows_by(&self.key, &self.collection, index, range, None))
            .map(|found| found.0)
    }

    /// Gives a page of what an index itself says: no row is read. The least value of a field and the greatest are the first
    /// entries of an index by it, ascending and descending.
    ///
    /// # Errors
    /// As [`Collection::find`].
    pub fn entries(&self, index: &str, range: &RowRange) -> Result<IndexPage> {
        self.txn.with(|reading| reading.entries_by(&self.key, &self.collection, index, range))
    }

    /// Counts the entries of an index in a range, whatever its limit says, in time that grows with how many they are; no row is
    /// read. An [`aggregate`](Collection::aggregate) needs no counting.
    ///
    /// # Errors
    /// As [`Collection::find`].
    pub fn count(&self, index: &str, range: &RowRange) -> Result<u64> {
        self.txn.with(|reading| reading.count_by(&self.key, &self.collection, index, range))
    }

    /// Tells how many rows there are, and how many bytes their keys and values have: without counting. Whoever may do
    /// anything with the rows may know it.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub fn total(&self) -> Result<Aggregate> {
        self.aggregate_of(None, &[])
    }

    /// Gives what an aggregate says of a group: without counting.
    ///
    /// # Errors
    /// As [`Collection::get`]; [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such aggregate.
    pub fn aggregate(&self, name: &str, group: &[Part]) -> Result<Aggregate> {
        self.aggregate_of(Some(name), group)
    }

    fn aggregate_of(&self, name: Option<&str>, group: &[Part]) -> Result<Aggregate> {
        self.txn.with(|reading| {
            let at = reading.group_of(&self.key, &self.collection, name, group)?;
            reading.aggregate_at(&at).map_err(|error| error.at(&self.key))
        })
    }

    /// Gives all groups of an aggregate, with what it says of them.
    ///
    /// # Errors
    /// As [`Collection::aggregate`].
    pub fn groups(&self, name: &str) -> Result<Vec<(Tuple, Aggregate)>> {
        self.txn.with(|reading| reading.groups_of(&self.key, &self.collection, name))
    }
}

/// Rows that can be read, in a view or in a write transaction: what a layer's reading code is written for, once.
///
/// The methods are those of [`Collection`] and [`CollectionMut`].
pub trait Rows {
    /// Gives a row, if it is there.
    ///
    /// # Errors
    /// As [`Collection::get`].
    fn get(&mut self, key: impl IntoRowKey) -> Result<Option<Row>>;

    /// Gives a page of rows in the order of their keys.
    ///
    /// # Errors
    /// As [`Collection::page`].
    fn page(&mut self, range: &RowRange) -> Result<RowPage>;

    /// Gives a page of rows in the order of an index.
    ///
    /// # Errors
    /// As [`Collection::find`].
    fn find(&mut self, index: &str, range: &RowRange) -> Result<RowPage>;

    /// Gives a page of what an index itself says.
    ///
    /// # Errors
    /// As [`Collection::entries`].
    fn entries(&mut self, index: &str, range: &RowRange) -> Result<IndexPage>;

    /// Counts the entries of an index in a range.
    ///
    /// # Errors
    /// As [`Collection::count`].
    fn count(&mut self, index: &str, range: &RowRange) -> Result<u64>;

    /// Gives what an aggregate says of a group.
    ///
    /// # Errors
    /// As [`Collection::aggregate`].
    fn aggregate(&mut self, name: &str, group: &[Part]) -> Result<Aggregate>;

    /// Gives all rows of a range at once, whatever its limit says: in the order of an index, or else of their keys.
    ///
    /// # Errors
    /// As [`Collection::page`] and [`Collection::find`].
    fn all(&mut self, index: Option<&str>, range: &RowRange) -> Result<Vec<Row>> {
        let (mut rows, mut range) = (Vec::new(), range.clone().limit(PAGE_AT_ONCE));
        loop {
            let page = match index {
                Some(index) => self.find(index, &range)?,
                None => self.page(&range)?,
            };
            rows.extend(page.rows);
            let Some(next) = page.next else { return Ok(rows) };
            range = range.after(next);
        }
    }
}

macro_rules! rows_of {
    ($($type:ty),*) => {$(
        impl Rows for $type {
            fn get(&mut self, key: impl IntoRowKey) -> Result<Option<Row>> {
                <$type>::get(self, key)
            }

            fn page(&mut self, range: &RowRange) -> Result<RowPage> {
                <$type>::page(self, range)
            }

            fn find(&mut self, index: &str, range: &RowRange) -> Result<RowPage> {
                <$type>::find(self, index, range)
            }

            fn entries(&mut self, index: &str, range: &RowRange) -> Result<IndexPage> {
                <$type>::entries(self, index, range)
            }

            fn count(&mut self, index: &str, range: &RowRange) -> Result<u64> {
                <$type>::count(self, index, range)
            }

            fn aggregate(&mut self, name: &str, group: &[Part]) -> Result<Aggregate> {
                <$type>::aggregate(self, name, group)
            }
        }
    )*};
}

rows_of!(Collection<'_>, CollectionMut<'_, '_>);
