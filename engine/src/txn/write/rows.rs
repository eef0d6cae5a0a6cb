//! Collections in a write transaction: defined, and their rows put, removed and counted up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{
    AbsentReason, Aggregate, CollectionDefinition, EventKind, EventRow, IndexDefinition, IndexEntry, Key,
    Part, PayloadState, Record, RecordBuilder, Right, RowContent, SectionTag, Status, Tuple,
};

use super::WriteTxn;
use crate::collection::{Defined, IndexPage, Inserted, IntoRowKey, Row, RowDraft, RowPage, RowRange};
use crate::edit::IntoKey;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{New, Proposal, Verdict};
use crate::primitives::{
    DefinedCollection, Groups, OpenedCollection, RowChange, derived_of_row, row_key, row_key_of, row_name,
};
use crate::store::{Table, corrupt};
use crate::txn::rows::index_named;

/// How many bytes a row has that is removed with all others of its collection: a guess, and rather too much, as all that follows
/// from it in a full store is that its file is made shorter, or that this is tried in vain.
const ROW_LENGTH: usize = 4 << 10;

/// What is known of collections while a transaction is at work.
#[derive(Default)]
pub(super) struct RowsAtWork {
    /// Collections that arrived under another key, and have not left the one before.
    moving: BTreeSet<u64>,
    /// Indexes, and where their first entries lie now.
    fronts: HashMap<Bytes, Bytes>,
    /// Collections whose rows were changed, by their numbers.
    changed: BTreeMap<u64, ChangedRows>,
    /// Collections that were opened, by their keys: a layer opens the same ones again and again.
    opened: HashMap<Bytes, OpenedCollection>,
    /// Aggregates that rows changed, by what they lie under: as they were, and are. Many rows are of the same groups, which are
    /// read and written once.
    groups: HashMap<Vec<u8>, (Aggregate, Aggregate)>,
}

/// What an aggregate takes in a transaction beside its key, in bytes, about.
const GROUP_BYTES: usize = 64;

/// What was done to the rows of a collection.
struct ChangedRows {
    key: Bytes,
    is_cleared: bool,
    /// By key, whether the row is there now.
    rows: BTreeMap<Bytes, bool>,
}

/// Where the first entries of indexes lie, or would: what comes before was removed. So a queue is not walked over from
/// its beginning for every message that is taken from it.
pub(crate) type Fronts = HashMap<Bytes, Bytes>;

/// The most indexes of which the front is known.
const FRONTS_MAX: usize = 65_536;

impl RowsAtWork {
    /// Tells what was done to rows.
    pub(super) fn tell(&mut self, events: &mut Vec<EventRow>) {
        for (id, changed) in std::mem::take(&mut self.changed) {
            let ChangedRows { key, is_cleared, rows } = changed;
            if is_cleared {
                let (kind, key) = (EventKind::RowRemoved, key.to_vec());
                let (from, old_generation, bytes) = (Vec::new(), 0, 0);
                events.push(EventRow { kind, key, from, old_generation, new_generation: id, bytes });
            }
            for (kind, is_there) in [(EventKind::RowRemoved, false), (EventKind::RowPut, true)] {
                let rows = rows.iter().filter(|(_, is)| **is == is_there).map(|(row, _)| &row[..]);
                events.extend(EventRow::of_rows(kind, &key, id, rows));
            }
        }
    }

    /// Gives about how many bytes are to be written yet.
    pub(super) fn bytes(&self) -> usize {
        self.groups.len() * GROUP_BYTES
    }

    /// Forgets how a collection was opened, whose record changes.
    pub(super) fn forget_opened(&mut self, key: &Key) {
        if !self.opened.is_empty() {
            self.opened.remove(key.encoded());
        }
    }

    /// Forgets how collections were opened: much has changed, or who may work with them.
    pub(super) fn forget_all_opened(&mut self) {
        self.opened.clear();
    }

    /// Takes over what is known, when the transaction has come to something.
    pub(super) fn finish(&mut self, fronts: &mut Fronts) {
        if fronts.len() + self.fronts.len() > FRONTS_MAX {
            fronts.clear();
        }
        fronts.extend(self.fronts.drain());
    }
}

impl<'s> WriteTxn<'s> {
    /// Gives a number that is never used again in this file, whatever becomes of the transaction: greater than all that
    /// were given out before.
    pub fn unique_number(&mut self) -> u64 {
        self.next_fence()
    }

    /// Defines a collection: makes it, where nothing is under the key, or derives its indexes and aggregates anew where
    /// it is there and was defined in another way, which reads all of its rows.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied): it takes the right to manage; [`AlreadyExists`](ErrorKind::AlreadyExists)
    /// if something else is under the key; [`InvalidArgument`](ErrorKind::InvalidArgument) for the definition;
    /// [`NotUnique`](ErrorKind::NotUnique); [`TransactionTooLarge`](ErrorKind::TransactionTooLarge) if there are very many
    /// entries to derive.
    pub fn define_collection(
        &mut self,
        key: impl IntoKey,
        definition: &CollectionDefinition,
    ) -> Result<Defined> {
        let key = key.into_key()?;
        let defined = self.define(&key, definition).map_err(|error| error.at(&key));
        self.audited(defined)
    }

    fn define(&mut self, key: &Key, definition: &CollectionDefinition) -> Result<Defined> {
        let documents = Arc::clone(&self.documents);
        self.guard(&documents).access(Right::MANAGE, key)?;
        let unusable = |error: larder_format::CollectionError| {
            let expected = "a definition that can be used".to_owned();
            Error::from(ErrorKind::InvalidArgument { argument: "definition", expected, got: error.what })
        };
        let definition = definition.clone().numbered().map_err(unusable)?;
        let old = self.reading().row(key)?;
        let before = match &old {
            None => None,
            Some(old) => {
                let section = DefinedCollection::section(&old.record).ok_or(ErrorKind::AlreadyExists)?;
                Some(self.view.definition(section)?)
            }
        };
        if before.as_ref().is_some_and(|before| *before.definition == definition) {
            return Ok(Defined::Unchanged);
        }
        let id = before.as_ref().map_or_else(|| self.next_fence(), |before| before.id);
        let builder = match &old {
            None => RecordBuilder::new(PayloadState::Absent(AbsentReason::Collection)),
            Some(old) => RecordBuilder::from_record(&old.record),
        };
        let mut builder = self.successor(builder, old.as_ref());
        if old.is_none() {
            builder.set_status(Status::Source);
        }
        builder.set_section(SectionTag::Collection.number(), definition.encode(id).map_err(unusable)?);
        let new = New::bare(builder);
        let kind = if old.is_none() { EventKind::Put } else { EventKind::Annotated };
        let proposal =
            Proposal { key, right: Right::MANAGE, kind, from: None, old, new: Some(new), conditions: &[] };
        let Verdict::Admitted(admitted, _) = self.guard(&documents).admit(proposal)? else {
            return Err(corrupt("a change without conditions was refused for one"));
        };
        // Before anything is changed: a value can be there twice.
        let collection = DefinedCollection { id, definition: Arc::new(definition) };
        let derived = if before.is_some() { self.derive_all(&collection)? } else { BTreeMap::new() };
        self.record_change(&admitted, None)?;
        if before.is_none() {
            return Ok(Defined::Created);
        }
        self.put_derived(id, derived);
        Ok(Defined::Changed)
    }

    /// Derives the indexes and aggregates of a collection anew from its rows; gives how many entries there are.
    ///
    /// # Errors
    /// As [`WriteTxn::define_collection`]; [`NotFound`](ErrorKind::NotFound), [`NotACollection`](ErrorKind::NotACollection).
    pub fn rebuild_collection(&mut self, key: impl IntoKey) -> Result<u64> {
        let key = key.into_key()?;
        let rebuilt = self.rebuild(&key).map_err(|error| error.at(&key));
        self.audited(rebuilt)
    }

    fn rebuild(&mut self, key: &Key) -> Result<u64> {
        let documents = Arc::clone(&self.documents);
        self.guard(&documents).access(Right::MANAGE, key)?;
        let collection = self.reading().opened(key)?;
        let derived = self.derive_all(&collection)?;
        let count = derived.len() as u64;
        self.put_derived(collection.id, derived);
        Ok(count)
    }

    /// Puts everything that follows from the rows of a collection in place of what there was.
    fn put_derived(&mut self, id: u64, derived: BTreeMap<Bytes, Bytes>) {
        let (start, end) = DefinedCollection::range(id);
        self.changes.remove_range(Table::Entries, start, end, 0);
        self.forget_derived(id);
        for (at, body) in derived {
            self.changes.put(Table::Entries, at, body);
        }
    }

    /// Derives the entries and aggregates of all rows.
    fn derive_all(&self, collection: &DefinedCollection) -> Result<BTreeMap<Bytes, Bytes>> {
        let (mut derived, mut groups) = (BTreeMap::new(), Groups::default());
        let mut taken: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for row in self.view.prefix(Some(&self.changes), Table::Rows, &collection.id.to_be_bytes())? {
            let (at, body) = row?;
            let (_, key) = row_key_of(&at).ok_or_else(|| corrupt("the key of a row is malformed"))?;
            let (_, content) = RowContent::decode(&body).map_err(|error| corrupt(error.to_string()))?;
            for index in collection.definition.indexes.iter().filter(|index| index.is_unique) {
                for mut entry in index.entries(collection.id, key, &content.fields) {
                    entry.key.truncate(entry.values_length);
                    if let Some(other) = taken.insert(entry.key, key.to_vec()) {
                        return Err(not_unique(&index.name, &other));
                    }
                }
            }
            derived.extend(derived_of_row(collection, key, &content).map(|entry| (entry.key, entry.body)));
            groups.count(collection, key, &content);
        }
        derived.extend(groups.into_rows().map(|row| (row.key, row.body)));
        Ok(derived)
    }

    /// Opens a collection, to read and change its rows.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`NotACollection`](ErrorKind::NotACollection),
    /// [`AccessDenied`](ErrorKind::AccessDenied).
    pub fn collection(&mut self, key: impl IntoKey) -> Result<CollectionMut<'_, 's>> {
        let key = key.into_key()?;
        let collection = match self.rows.opened.get(key.encoded()) {
            Some(opened) => opened.clone(),
            None => {
                let opened = self.audited(self.reading().collection(&key))?;
                self.rows.opened.insert(key.encoded_bytes(), opened.clone());
                opened
            }
        };
        Ok(CollectionMut { txn: self, key, collection })
    }

    /// Sees to the rows of a collection whose record changes, goes, or comes under another key.
    pub(super) fn change_collection(&mut self, kind: EventKind, old: Option<&Record>, new: Option<&Record>) {
        let (old, new) = (old.and_then(DefinedCollection::id_of), new.and_then(DefinedCollection::id_of));
        if let (EventKind::Renamed, Some(id)) = (kind, new) {
            self.rows.moving.insert(id);
        }
        if let Some(id) = old.filter(|id| new != Some(*id))
            && !self.rows.moving.remove(&id)
        {
            self.drop_rows(id);
        }
    }

    pub(super) fn drop_rows(&mut self, id: u64) {
        let total = self.aggregate_at(&row_key(id, &CollectionDefinition::total_key()));
        let count = usize::try_from(total.map_or(0, |total| total.count)).unwrap_or(0);
        self.note_shrinking(count.saturating_mul(ROW_LENGTH), 0);
        let (start, end) = DefinedCollection::range(id);
        self.changes.remove_range(Table::Rows, start.clone(), end.clone(), 0);
        self.changes.remove_range(Table::Entries, start, end, 0);
        self.forget_derived(id);
    }

    /// Forgets what was to be added to the aggregates of a collection, and where its indexes begin.
    fn forget_derived(&mut self, id: u64) {
        self.rows.groups.retain(|at, _| !at.starts_with(&id.to_be_bytes()));
        let is_other = |at: &Bytes, _: &mut Bytes| !at.starts_with(&id.to_be_bytes());
        self.held.fronts.retain(is_other);
        self.rows.fronts.retain(is_other);
    }

    /// Gives what an aggregate says now.
    fn aggregate_at(&self, at: &[u8]) -> Result<Aggregate> {
        match self.rows.groups.get(at) {
            Some((_, is)) => Ok(*is),
            None => self.reading().aggregate_at(at),
        }
    }

    /// Writes what became of aggregates.
    pub(super) fn write_aggregates(&mut self) {
        let groups = std::mem::take(&mut self.rows.groups);
        for (at, (_, is)) in groups.into_iter().filter(|(_, (was, is))| was != is) {
            match is.count {
                0 => self.changes.remove(Table::Entries, at),
                _ => self.changes.put(Table::Entries, at, Bytes::copy_from_slice(&is.encode())),
            }
        }
    }

    /// Puts an entry of an index. Whatever the transaction comes to, the index is read from there on.
    fn put_entry(&mut self, at: Bytes) {
        if let Some(index) = at.get(..10) {
            for fronts in [&mut self.held.fronts, &mut self.rows.fronts] {
                if let Some(front) = fronts.get_mut(index).filter(|front| at < **front) {
                    *front = at.clone();
                }
            }
        }
        self.changes.put(Table::Entries, at, Bytes::new());
    }
}

fn not_unique(index: &str, row: &[u8]) -> Error {
    ErrorKind::NotUnique { index: index.to_owned(), row: row_name(row) }.into()
}

/// A collection in a write transaction, which sees its own changes.
pub struct CollectionMut<'t, 's> {
    txn: &'t mut WriteTxn<'s>,
    key: Key,
    collection: OpenedCollection,
}

impl std::fmt::Debug for CollectionMut<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CollectionMut").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<'s> CollectionMut<'_, 's> {
    /// Gives the transaction.
    pub fn txn(&mut self) -> &mut WriteTxn<'s> {
        self.txn
    }

    /// Gives how the collection is defined.
    #[must_use]
    pub fn definition(&self) -> &CollectionDefinition {
        &self.collection.definition
    }

    /// Gives the record under its key: whoever may work with a collection may see it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.collection.record
    }

    /// Gives a row as it is now, if it is there.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), [`Corrupt`](ErrorKind::Corrupt),
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for the key.
    pub fn get(&self, key: impl IntoRowKey) -> Result<Option<Row>> {
        let key = key.into_row_key()?;
        self.txn.audited(self.txn.reading().row_of(&self.key, &self.collection, &key))
    }

    /// Gives a page of rows in the order of their keys.
    ///
    /// # Errors
    /// As [`CollectionMut::get`].
    pub fn page(&self, range: &RowRange) -> Result<RowPage> {
        self.txn.audited(self.txn.reading().rows_of(&self.key, &self.collection, range))
    }

    /// Gives a page of rows in the order of an index. From the beginning of an index it does not matter how many rows
    /// were there before and are gone.
    ///
    /// # Errors
    /// As [`CollectionMut::get`]; [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such index.
    pub fn find(&mut self, index: &str, range: &RowRange) -> Result<RowPage> {
        let defined = index_named(&self.collection.definition, index)?;
        let is_descending =
            defined.fields.first().is_some_and(|(_, order)| *order == larder_format::IndexOrder::Descending);
        let number = defined.number();
        let at = row_key(self.collection.id, &number.to_be_bytes());
        let first = if is_descending { &range.at_most } else { &range.at_least };
        let is_from_start = range.equal.is_empty() && range.after.is_none() && first.is_none();
        let known = self.txn.rows.fronts.get(&at).or_else(|| self.txn.held.fronts.get(&at)).cloned();
        let front = known.filter(|_| is_from_start);
        let found = self.txn.reading().rows_by(&self.key, &self.collection, index, range, front);
        let (page, first) = self.txn.audited(found)?;
        if let Some(first) = first.filter(|_| is_from_start) {
            self.txn.rows.fronts.insert(at, first);
        }
        Ok(page)
    }

    /// Gives a page of what an index itself says: no row is read.
    ///
    /// # Errors
    /// As [`CollectionMut::find`].
    pub fn entries(&self, index: &str, range: &RowRange) -> Result<IndexPage> {
        self.txn.audited(self.txn.reading().entries_by(&self.key, &self.collection, index, range))
    }

    /// Counts the entries of an index in a range, whatever its limit says; no row is read.
    ///
    /// # Errors
    /// As [`CollectionMut::find`].
    pub fn count(&self, index: &str, range: &RowRange) -> Result<u64> {
        self.txn.audited(self.txn.reading().count_by(&self.key, &self.collection, index, range))
    }

    /// Tells how many rows there are, and how many bytes their keys and values have: without counting.
    ///
    /// # Errors
    /// As [`CollectionMut::get`].
    pub fn total(&self) -> Result<Aggregate> {
        self.aggregate_of(None, &[])
    }

    fn aggregate_of(&self, name: Option<&str>, group: &[Part]) -> Result<Aggregate> {
        let at = self.txn.reading().group_of(&self.key, &self.collection, name, group);
        self.txn.audited(at.and_then(|at| self.aggregate_at(&at)))
    }

    fn aggregate_at(&self, at: &[u8]) -> Result<Aggregate> {
        self.txn.aggregate_at(at).map_err(|error| error.at(&self.key))
    }

    /// Gives what an aggregate says of a group: without counting.
    ///
    /// # Errors
    /// As [`CollectionMut::get`]; [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such aggregate.
    pub fn aggregate(&self, name: &str, group: &[Part]) -> Result<Aggregate> {
        self.aggregate_of(Some(name), group)
    }

    /// Puts a row, in place of what is there; tells whether something was.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), [`NotUnique`](ErrorKind::NotUnique),
    /// [`BinaryTooLarge`](ErrorKind::BinaryTooLarge), [`InvalidArgument`](ErrorKind::InvalidArgument) for key or fields,
    /// [`StoreFull`](ErrorKind::StoreFull). Then nothing of the put is in the transaction, which can go on.
    pub fn put(&mut self, key: impl IntoRowKey, draft: impl Into<RowDraft>) -> Result<bool> {
        let key = key.into_row_key()?;
        let content = draft.into().content()?;
        let old = self.content(&key)?;
        let is_there = old.is_some();
        self.change(&key, old, Some(content))?;
        Ok(is_there)
    }

    /// Puts a row where none is; where one is, that stays, and is given back. Decides something once.
    ///
    /// # Errors
    /// As [`CollectionMut::put`]; it takes the right to read too.
    pub fn insert(&mut self, key: impl IntoRowKey, draft: impl Into<RowDraft>) -> Result<Inserted> {
        let key = key.into_row_key()?;
        if let Some(row) = self.get(&key)? {
            return Ok(Inserted::Existing(row));
        }
        let content = draft.into().content()?;
        self.change(&key, None, Some(content))?;
        Ok(Inserted::First)
    }

    /// Removes a row; tells whether it was there.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), [`InvalidArgument`](ErrorKind::InvalidArgument) for the key.
    pub fn remove(&mut self, key: impl IntoRowKey) -> Result<bool> {
        let key = key.into_row_key()?;
        let old = self.content(&key)?;
        let is_there = old.is_some();
        self.change(&key, old, None)?;
        Ok(is_there)
    }

    /// Removes all rows; tells how many there were.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn clear(&mut self) -> Result<u64> {
        let documents = Arc::clone(&self.txn.documents);
        let rights = &self.collection.definition.rights.remove;
        let allowed = self.txn.guard(&documents).row(&self.key, rights, None, false);
        self.txn.audited(allowed.map_err(|error| error.at(&self.key)))?;
        let at = row_key(self.collection.id, &CollectionDefinition::total_key());
        let count = self.aggregate_at(&at)?.count;
        if count > 0 {
            self.txn.drop_rows(self.collection.id);
            let changed = self.changed();
            changed.is_cleared = true;
            changed.rows.clear();
        }
        Ok(count)
    }

    /// Adds to a field that holds an integer, 0 where row or field are not there yet; gives what it says then.
    ///
    /// # Errors
    /// [`CounterOutOfRange`](ErrorKind::CounterOutOfRange) beyond 64 bits; as [`CollectionMut::put`].
    pub fn add(&mut self, key: impl IntoRowKey, field: &str, delta: i64) -> Result<i64> {
        self.add_within(key, field, delta, i64::MIN..=i64::MAX)
    }

    /// Adds to a field that holds an integer, unless that would leave a range.
    ///
    /// # Errors
    /// As [`CollectionMut::add`].
    pub fn add_within(
        &mut self,
        key: impl IntoRowKey,
        field: &str,
        delta: i64,
        range: RangeInclusive<i64>,
    ) -> Result<i64> {
        let key = key.into_row_key()?;
        let old = self.content(&key)?;
        let row = old.clone().map(|content| Row::new(key.clone(), content));
        let value = match row.as_ref().and_then(|row| row.field(field)) {
            None => 0,
            Some(Part::Integer(value)) => value,
            Some(other) => {
                let (expected, got) = (format!("an integer in the field {field}"), format!("{other:?}"));
                return Err(Error::from(ErrorKind::InvalidArgument { argument: "field", expected, got })
                    .at(&self.key));
            }
        };
        let sum = value.checked_add(i128::from(delta)).and_then(|sum| i64::try_from(sum).ok());
        let Some(sum) = sum.filter(|sum| range.contains(sum)) else {
            let counter = format!("{:?} {field}", key.parts());
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let (min, max) = (*range.start(), *range.end());
            return Err(
                Error::from(ErrorKind::CounterOutOfRange { counter, value, delta, min, max }).at(&self.key)
            );
        };
        let draft = row.map_or_else(RowDraft::default, |row| row.to_draft()).field(field, sum);
        self.change(&key, old, Some(draft.content()?))?;
        Ok(sum)
    }

    fn content(&self, key: &Tuple) -> Result<Option<RowContent>> {
        let content = self.txn.reading().row_content(&self.collection, key.encoded());
        content.map_err(|error| error.at(&self.key))
    }

    /// Turns a row into another, and with it what follows from it.
    fn change(&mut self, key: &Tuple, old: Option<RowContent>, new: Option<RowContent>) -> Result<()> {
        let changed = self.change_checked(key, old, new).map_err(|error| error.at(&self.key));
        self.txn.audited(changed)
    }

    fn change_checked(
        &mut self,
        key: &Tuple,
        old: Option<RowContent>,
        new: Option<RowContent>,
    ) -> Result<()> {
        let documents = Arc::clone(&self.txn.documents);
        let rights = &self.collection.definition.rights;
        let rights = match (&old, &new) {
            (_, None) => &rights.remove,
            (None, Some(_)) => &rights.insert,
            (Some(_), Some(_)) => &rights.change,
        };
        let size = |content: &RowContent| content.value.len();
        let is_growing = new.as_ref().is_some_and(|new| old.as_ref().is_none_or(|old| size(new) > size(old)));
        self.txn.guard(&documents).row(&self.key, rights, new.as_ref().map(size), is_growing)?;
        if old == new {
            return Ok(());
        }
        let encoded = key.encoded();
        let change = RowChange::new(&self.collection, encoded, old.as_ref(), new.as_ref());
        for (index, entry) in change.come.iter().filter(|(index, _)| index.is_unique) {
            self.check_unique(index, entry, encoded)?;
        }
        // Before anything is changed: one may be unreadable.
        for (at, _) in &change.shares {
            if !self.txn.rows.groups.contains_key(at) {
                let was = self.txn.reading().aggregate_at(at)?;
                self.txn.rows.groups.insert(at.clone(), (was, was));
            }
        }
        for (at, (rows, sum)) in change.shares {
            if let Some((_, is)) = self.txn.rows.groups.get_mut(&at) {
                *is = is.with(rows, sum);
            }
        }
        // The fields again for what indexes have of them.
        let length = |content: Option<&RowContent>| {
            content
                .map_or(0, |content| encoded.len() + content.value.len() + 2 * content.fields.encoded().len())
        };
        self.txn.note_shrinking(length(old.as_ref()), length(new.as_ref()));
        for entry in change.gone {
            self.txn.changes.remove(Table::Entries, entry);
        }
        for (_, entry) in change.come {
            self.txn.put_entry(entry.key.into());
        }
        self.changed().rows.insert(key.encoded_bytes(), new.is_some());
        let at = row_key(self.collection.id, encoded);
        match &new {
            Some(content) => {
                self.txn.changes.put(Table::Rows, at, content.encode(self.txn.info.sequence));
            }
            None => {
                self.txn.changes.remove(Table::Rows, at);
            }
        }
        Ok(())
    }

    /// Refuses values of a unique index that another row has.
    fn check_unique(&self, index: &IndexDefinition, entry: &IndexEntry, key: &[u8]) -> Result<()> {
        let values = entry.key.get(..entry.values_length).unwrap_or_default();
        for other in self.txn.view.prefix(Some(&self.txn.changes), Table::Entries, values)? {
            let (other, _) = other?;
            let other = other.get(values.len()..).unwrap_or_default();
            if other != key {
                return Err(not_unique(&index.name, other));
            }
        }
        Ok(())
    }

    fn changed(&mut self) -> &mut ChangedRows {
        let key = &self.key;
        self.txn.rows.changed.entry(self.collection.id).or_insert_with(|| ChangedRows {
            key: key.encoded_bytes(),
            is_cleared: false,
            rows: BTreeMap::new(),
        })
    }
}
