//! Collections: rows with typed keys, named fields and a value; and what follows from the rows: entries of indexes, and
//! aggregates. What is indexed and counted is said by data, the definition, so that anyone who has the file can check it
//! and derive it again.
//!
//! ```text
//! row:        [version u8, 1][reserved u8, 0][fields length u16][commit u64][fields, labelled][value]
//! entry:      [index number u16, big-endian][values, each a part of a tuple; inverted where descending][00][row key]
//! aggregate:  [aggregate number u16, big-endian, from 0x8000 on][values, each a part of a tuple]
//!             -> [count u64][sum i128]
//! definition: [collection number u64][a tuple: version 1, rights, indexes, aggregates]
//! ```
//! No part begins with `00`, and none, inverted, with anything above `ef`; so the entries of an index are in the order of
//! their values, and entries with the same values in that of their rows' keys.

use bytes::Bytes;

use crate::policy::Right;
use crate::tuple::{Labelled, Part, Tuple, TupleError, parts_of_list};

/// The most indexes, and the most aggregates, that a collection may have.
pub const INDEXES_MAX: usize = 32;
/// The most fields that an index or an aggregate may go by.
pub const INDEX_FIELDS_MAX: usize = 8;
/// The most bytes that a value of a row may have.
pub const ROW_VALUE_MAX: usize = 16 << 20;

/// The most bytes of the name of an index, an aggregate or a field.
const NAME_LENGTH_MAX: usize = 64;
const ROW_VERSION: u8 = 1;
const ROW_HEADER_LENGTH: usize = 12;
const DEFINITION_VERSION: i128 = 1;
/// The aggregate that every collection has: how many rows there are, and how many bytes their keys and contents have.
const TOTAL: u16 = 0x8000;
const END: u8 = 0;
/// The same behind an inverted text, whose own end an [`END`] would be taken for a part of.
const END_INVERTED: u8 = 1;

/// In which order an index has the values of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexOrder {
    /// The least first.
    Ascending,
    /// The greatest first.
    Descending,
    /// The least first; a row has an entry for each part of a list.
    Each,
}

/// Which rows an index or an aggregate is about: those whose field has one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFilter {
    field: String,
    one_of: Vec<Part>,
    /// The values as they lie in rows.
    encoded: Vec<Vec<u8>>,
}

impl RowFilter {
    fn new<P: Into<Part>>(field: impl Into<String>, one_of: impl IntoIterator<Item = P>) -> Self {
        let one_of: Vec<Part> = one_of.into_iter().map(P::into).collect();
        // What has no encoding is in no row.
        let encoded =
            one_of.iter().filter_map(|part| Tuple::encode(std::slice::from_ref(part)).ok()).collect();
        Self { field: field.into(), one_of, encoded }
    }

    /// Gives the field.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Gives the values.
    #[must_use]
    pub fn one_of(&self) -> &[Part] {
        &self.one_of
    }

    fn admits(&self, fields: &Labelled) -> bool {
        let value = fields.encoded_part(&self.field);
        value.is_some_and(|value| self.encoded.iter().any(|one| one == value))
    }
}

/// Some of the fields that indexes and aggregates go by: a bit for each, which several share where there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct FieldSet(u64);

impl FieldSet {
    const ALL: Self = Self(u64::MAX);

    fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// An index of a collection. A row that lacks one of its fields has no entry in it; nil is a value as any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDefinition {
    /// Its name.
    pub name: String,
    /// Whether no two rows may have the same values.
    pub is_unique: bool,
    /// The fields that it goes by, the first one first.
    pub fields: Vec<(String, IndexOrder)>,
    /// Which rows it is about; nothing for all.
    pub only: Option<RowFilter>,
    number: u16,
    goes_by: FieldSet,
}

impl IndexDefinition {
    /// Begins an index; it takes a field at least.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let (number, goes_by) = (0, FieldSet::default());
        Self { name: name.into(), is_unique: false, fields: Vec::new(), only: None, number, goes_by }
    }

    /// Lets no two rows have the same values.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.is_unique = true;
        self
    }

    /// Goes by a field, the least value first.
    #[must_use]
    pub fn by(mut self, field: impl Into<String>) -> Self {
        self.fields.push((field.into(), IndexOrder::Ascending));
        self
    }

    /// Goes by a field, the greatest value first.
    #[must_use]
    pub fn by_descending(mut self, field: impl Into<String>) -> Self {
        self.fields.push((field.into(), IndexOrder::Descending));
        self
    }

    /// Goes by each part of a field that holds a list.
    #[must_use]
    pub fn by_each(mut self, field: impl Into<String>) -> Self {
        self.fields.push((field.into(), IndexOrder::Each));
        self
    }

    /// Is about those rows only whose field has one of these values.
    #[must_use]
    pub fn only<P: Into<Part>>(
        mut self,
        field: impl Into<String>,
        one_of: impl IntoIterator<Item = P>,
    ) -> Self {
        self.only = Some(RowFilter::new(field, one_of));
        self
    }

    /// Gives the number under which its entries lie.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Gives what the entries begin with that have these values in the first fields.
    ///
    /// # Errors
    /// [`TupleError`] where a value has no encoding.
    pub fn prefix(&self, values: &[Part]) -> Result<Vec<u8>, TupleError> {
        let mut prefix = self.number.to_be_bytes().to_vec();
        for (value, (_, order)) in values.iter().zip(&self.fields) {
            push_value(value, *order, &mut prefix)?;
        }
        Ok(prefix)
    }

    /// Gives the entries of a row of the collection of a number.
    #[must_use]
    pub fn entries(&self, collection: u64, key: &[u8], fields: &Labelled) -> Vec<IndexEntry> {
        if self.only.as_ref().is_some_and(|only| !only.admits(fields)) {
            return Vec::new();
        }
        let mut entry = Vec::with_capacity(64 + key.len());
        entry.extend_from_slice(&collection.to_be_bytes());
        entry.extend_from_slice(&self.number.to_be_bytes());
        let mut entries = vec![entry];
        for (field, order) in &self.fields {
            let Some(value) = fields.encoded_part(field) else { return Vec::new() };
            match parts_of_list(value).filter(|_| *order == IndexOrder::Each) {
                Some(mut parts) => {
                    parts.sort_unstable();
                    parts.dedup();
                    let longer = |entry: &Vec<u8>, part: &[u8]| [entry.as_slice(), part].concat();
                    entries = entries
                        .iter()
                        .flat_map(|entry| parts.iter().map(|part| longer(entry, part)))
                        .collect();
                }
                None => entries.iter_mut().for_each(|entry| push_encoded(value, *order, entry)),
            }
        }
        let end = self.end_behind(fields.encoded_part(self.fields.last().map_or("", |(field, _)| field)));
        let finished = entries.into_iter().map(|mut entry| {
            let values_length = entry.len() + 1;
            entry.push(end);
            entry.extend_from_slice(key);
            IndexEntry { key: entry, values_length }
        });
        finished.collect()
    }

    /// Gives the key of the row that an entry is of; the entry begins with the number of the index.
    #[must_use]
    pub fn row_of<'e>(&self, entry: &'e [u8]) -> Option<&'e [u8]> {
        self.split(entry, |_| Some(()))
    }

    /// Gives the values that an entry is under, one for each field, and the key of the row that it is of. Of a field that is
    /// gone by each of its parts it is the part.
    #[must_use]
    pub fn values_of<'e>(&self, entry: &'e [u8]) -> Option<(Vec<Part>, &'e [u8])> {
        let mut values = Vec::with_capacity(self.fields.len());
        // One by one: all of them may be longer than a tuple.
        let row = self.split(entry, |value| {
            values.extend(Tuple::decode(value).ok()?.into_parts());
            Some(())
        })?;
        Some((values, row))
    }

    /// Gives the key of the row that an entry is of, and shows each value as it is encoded in a tuple.
    fn split<'e>(&self, entry: &'e [u8], mut see: impl FnMut(&[u8]) -> Option<()>) -> Option<&'e [u8]> {
        let mut rest = entry.strip_prefix(&self.number.to_be_bytes()[..])?;
        for (_, order) in &self.fields {
            let length = match order {
                IndexOrder::Descending => {
                    let inverted: Vec<u8> =
                        rest.iter().take(Tuple::ENCODED_LEN_MAX).map(|byte| !byte).collect();
                    let length = Tuple::first_length(&inverted)?;
                    see(inverted.get(..length)?)?;
                    length
                }
                _ => {
                    let length = Tuple::first_length(rest)?;
                    see(rest.get(..length)?)?;
                    length
                }
            };
            rest = rest.get(length..)?;
        }
        let (end, row) = rest.split_first()?;
        matches!(*end, END | END_INVERTED).then_some(row)
    }

    /// What ends the values of an entry, by the last of them.
    fn end_behind(&self, last: Option<&[u8]>) -> u8 {
        let is_inverted = self.fields.last().is_some_and(|(_, order)| *order == IndexOrder::Descending);
        if is_inverted && last.is_some_and(Tuple::is_escaped) { END_INVERTED } else { END }
    }

    /// Gives where the entries begin that have these values in the first fields: behind those of longer texts that only begin
    /// with the last of them.
    ///
    /// # Errors
    /// As [`IndexDefinition::prefix`].
    pub fn start(&self, values: &[Part]) -> Result<Vec<u8>, TupleError> {
        let mut start = self.prefix(values)?;
        let order =
            values.len().checked_sub(1).and_then(|last| self.fields.get(last)).map(|(_, order)| *order);
        if let (Some(IndexOrder::Descending), Some(last)) = (order, values.last())
            && Tuple::is_escaped(&Tuple::encode(std::slice::from_ref(last))?)
        {
            start.push(END_INVERTED);
        }
        Ok(start)
    }
}

/// An entry of an index: the values of a row, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// What it lies under.
    pub key: Vec<u8>,
    /// How much of it are numbers and values, with the values' end.
    pub values_length: usize,
}

fn push_value(value: &Part, order: IndexOrder, out: &mut Vec<u8>) -> Result<(), TupleError> {
    push_encoded(&Tuple::encode(std::slice::from_ref(value))?, order, out);
    Ok(())
}

fn push_encoded(value: &[u8], order: IndexOrder, out: &mut Vec<u8>) {
    match order {
        IndexOrder::Descending => out.extend(value.iter().map(|byte| !byte)),
        _ => out.extend_from_slice(value),
    }
}

/// How many rows there are of each group, and the sum of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateDefinition {
    /// Its name.
    pub name: String,
    /// The fields that rows are grouped by. A row that lacks one of them is in no group.
    pub group: Vec<String>,
    /// The field that is summed up, where it is an integer.
    pub sum: Option<String>,
    /// Which rows it is about; nothing for all.
    pub only: Option<RowFilter>,
    number: u16,
    goes_by: FieldSet,
}

impl AggregateDefinition {
    /// Begins an aggregate of all rows.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let (number, goes_by) = (0, FieldSet::default());
        Self { name: name.into(), group: Vec::new(), sum: None, only: None, number, goes_by }
    }

    /// Groups by a field.
    #[must_use]
    pub fn group_by(mut self, field: impl Into<String>) -> Self {
        self.group.push(field.into());
        self
    }

    /// Adds up a field.
    #[must_use]
    pub fn sum(mut self, field: impl Into<String>) -> Self {
        self.sum = Some(field.into());
        self
    }

    /// Is about those rows only whose field has one of these values.
    #[must_use]
    pub fn only<P: Into<Part>>(
        mut self,
        field: impl Into<String>,
        one_of: impl IntoIterator<Item = P>,
    ) -> Self {
        self.only = Some(RowFilter::new(field, one_of));
        self
    }

    /// Gives what a group lies under, without the number of the collection.
    ///
    /// # Errors
    /// [`TupleError`] where a value has no encoding.
    pub fn key(&self, group: &[Part]) -> Result<Vec<u8>, TupleError> {
        let mut key = self.number.to_be_bytes().to_vec();
        group.iter().try_for_each(|value| push_value(value, IndexOrder::Ascending, &mut key))?;
        Ok(key)
    }

    /// Gives what a row of the collection of a number adds to which group: what that lies under, and the sum.
    #[must_use]
    pub fn share(&self, collection: u64, fields: &Labelled) -> Option<(Vec<u8>, i128)> {
        if self.only.as_ref().is_some_and(|only| !only.admits(fields)) {
            return None;
        }
        let mut at = Vec::with_capacity(40);
        at.extend_from_slice(&collection.to_be_bytes());
        at.extend_from_slice(&self.number.to_be_bytes());
        for field in &self.group {
            at.extend_from_slice(fields.encoded_part(field)?);
        }
        let sum = match self.sum.as_ref().and_then(|field| fields.get(field)) {
            Some(Part::Integer(value)) => value,
            _ => 0,
        };
        Some((at, sum))
    }
}

/// What an aggregate says of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aggregate {
    /// How many rows there are.
    pub count: u64,
    /// The sum of the field.
    pub sum: i128,
}

impl Aggregate {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> [u8; 24] {
        let mut body = [0; 24];
        let (count, sum) = body.split_at_mut(8);
        count.copy_from_slice(&self.count.to_le_bytes());
        sum.copy_from_slice(&self.sum.to_le_bytes());
        body
    }

    /// Decodes it; nothing if the bytes are not one.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (count, sum) = body.split_first_chunk::<8>()?;
        Some(Self { count: u64::from_le_bytes(*count), sum: i128::from_le_bytes(sum.try_into().ok()?) })
    }

    /// Gives the aggregate with rows counted in, or a negative number of them out, and with that much more in the sum.
    #[must_use]
    pub fn with(self, rows: i64, sum: i128) -> Self {
        Self { count: self.count.saturating_add_signed(rows), sum: self.sum.saturating_add(sum) }
    }
}

/// Which rights it takes to work with a collection: one of each list will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionRights {
    /// To read rows.
    pub read: Vec<Right>,
    /// To put a row that was not there.
    pub insert: Vec<Right>,
    /// To change a row.
    pub change: Vec<Right>,
    /// To remove a row.
    pub remove: Vec<Right>,
}

impl Default for CollectionRights {
    fn default() -> Self {
        Self {
            read: vec![Right::READ],
            insert: vec![Right::WRITE],
            change: vec![Right::WRITE],
            remove: vec![Right::DELETE],
        }
    }
}

impl CollectionRights {
    fn lists(&self) -> [&Vec<Right>; 4] {
        [&self.read, &self.insert, &self.change, &self.remove]
    }
}

/// What a collection keeps of its rows, and who may work with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectionDefinition {
    /// Its indexes.
    pub indexes: Vec<IndexDefinition>,
    /// Its aggregates.
    pub aggregates: Vec<AggregateDefinition>,
    /// Which rights it takes.
    pub rights: CollectionRights,
    /// The fields that indexes and aggregates go by, in their order.
    fields: Vec<String>,
}

/// What may differ between two rows.
#[derive(Debug, Clone, Copy)]
pub struct Differing(FieldSet);

impl Differing {
    /// Everything: there is only one row.
    pub const ALL: Self = Self(FieldSet::ALL);

    /// Tells whether the entries of an index may differ.
    #[must_use]
    pub fn concerns_index(self, index: &IndexDefinition) -> bool {
        index.goes_by.meets(self.0)
    }

    /// Tells whether what is added to an aggregate may differ.
    #[must_use]
    pub fn concerns_aggregate(self, aggregate: &AggregateDefinition) -> bool {
        // What counts all rows goes by no field.
        aggregate.goes_by.meets(self.0) || self.0 == FieldSet::ALL
    }
}

/// A definition cannot be used, or bytes are not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the definition of the collection cannot be used: {what}")]
pub struct CollectionError {
    /// What is wrong.
    pub what: String,
}

fn unusable(what: impl Into<String>) -> CollectionError {
    CollectionError { what: what.into() }
}

impl CollectionDefinition {
    /// Defines a collection without indexes, for those who may read and write at its key.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an index.
    #[must_use]
    pub fn index(mut self, index: IndexDefinition) -> Self {
        self.indexes.push(index);
        self
    }

    /// Adds an aggregate.
    #[must_use]
    pub fn aggregate(mut self, aggregate: AggregateDefinition) -> Self {
        self.aggregates.push(aggregate);
        self
    }

    /// Says which rights it takes.
    #[must_use]
    pub fn rights(mut self, rights: CollectionRights) -> Self {
        self.rights = rights;
        self
    }

    /// Finds an index by its name.
    #[must_use]
    pub fn index_named(&self, name: &str) -> Option<&IndexDefinition> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// Finds an aggregate by its name.
    #[must_use]
    pub fn aggregate_named(&self, name: &str) -> Option<&AggregateDefinition> {
        self.aggregates.iter().find(|aggregate| aggregate.name == name)
    }

    /// Gives what the aggregate of all rows lies under.
    #[must_use]
    pub fn total_key() -> [u8; 2] {
        TOTAL.to_be_bytes()
    }

    /// Checks the definition, and numbers its indexes and aggregates by their places.
    ///
    /// # Errors
    /// [`CollectionError`] where the definition cannot be used.
    pub fn numbered(mut self) -> Result<Self, CollectionError> {
        self.check()?;
        for (number, index) in (1..TOTAL).zip(&mut self.indexes) {
            index.number = number;
        }
        for (number, aggregate) in (TOTAL + 1..).zip(&mut self.aggregates) {
            aggregate.number = number;
        }
        self.number_fields();
        Ok(self)
    }

    /// Numbers the fields that indexes and aggregates go by.
    fn number_fields(&mut self) {
        fn only(filter: Option<&RowFilter>) -> impl Iterator<Item = &str> {
            filter.map(RowFilter::field).into_iter()
        }
        fn of_index(index: &IndexDefinition) -> impl Iterator<Item = &str> {
            index.fields.iter().map(|(field, _)| field.as_str()).chain(only(index.only.as_ref()))
        }
        fn of_aggregate(aggregate: &AggregateDefinition) -> impl Iterator<Item = &str> {
            let fields = aggregate.group.iter().chain(&aggregate.sum).map(String::as_str);
            fields.chain(only(aggregate.only.as_ref()))
        }
        let of_indexes = self.indexes.iter().flat_map(of_index);
        let of_aggregates = self.aggregates.iter().flat_map(of_aggregate);
        let mut fields: Vec<String> = of_indexes.chain(of_aggregates).map(str::to_owned).collect();
        fields.sort();
        fields.dedup();
        for index in &mut self.indexes {
            index.goes_by = of_index(index).fold(FieldSet::default(), |set, field| with(set, &fields, field));
        }
        for aggregate in &mut self.aggregates {
            aggregate.goes_by =
                of_aggregate(aggregate).fold(FieldSet::default(), |set, field| with(set, &fields, field));
        }
        self.fields = fields;
    }

    /// Tells which of the fields that anything goes by differ between two rows.
    #[must_use]
    pub fn differing(&self, old: &Labelled, new: &Labelled) -> Differing {
        let mut differing = FieldSet::default();
        // No name of a field has a byte that is escaped.
        old.each_differing(new, |label| {
            if let Ok(place) = self.fields.binary_search_by(|field| field.as_bytes().cmp(label)) {
                differing.0 |= 1 << (place % 64);
            }
        });
        Differing(differing)
    }

    /// Checks names and how many of everything there are.
    fn check(&self) -> Result<(), CollectionError> {
        if self.indexes.len() > INDEXES_MAX || self.aggregates.len() > INDEXES_MAX {
            return Err(unusable(format!("it has more than {INDEXES_MAX} indexes or aggregates")));
        }
        let names = |mut names: Vec<&str>, what: &str| {
            for name in &names {
                check_name(name, what)?;
            }
            names.sort_unstable();
            match names.windows(2).find(|pair| pair.first() == pair.last()) {
                Some(pair) => Err(unusable(format!("two {what}s are called {:?}", pair.first()))),
                None => Ok(()),
            }
        };
        names(self.indexes.iter().map(|index| index.name.as_str()).collect(), "index")?;
        names(self.aggregates.iter().map(|aggregate| aggregate.name.as_str()).collect(), "aggregate")?;
        for index in &self.indexes {
            let each = index.fields.iter().filter(|(_, order)| *order == IndexOrder::Each).count();
            if index.fields.is_empty() || index.fields.len() > INDEX_FIELDS_MAX || each > 1 {
                let what =
                    format!("an index goes by 1 to {INDEX_FIELDS_MAX} fields, one of them a list at most");
                return Err(unusable(format!("{what}: {:?} does not", index.name)));
            }
            let fields = index.fields.iter().map(|(field, _)| field.as_str());
            fields
                .chain(index.only.as_ref().map(RowFilter::field))
                .try_for_each(|field| check_name(field, "field"))?;
        }
        for aggregate in &self.aggregates {
            if aggregate.group.len() > INDEX_FIELDS_MAX {
                let what = format!("an aggregate groups by {INDEX_FIELDS_MAX} fields at most");
                return Err(unusable(format!("{what}: {:?} does not", aggregate.name)));
            }
            let fields = aggregate.group.iter().chain(&aggregate.sum).map(String::as_str);
            fields
                .chain(aggregate.only.as_ref().map(RowFilter::field))
                .try_for_each(|field| check_name(field, "field"))?;
        }
        if self.rights.lists().into_iter().any(Vec::is_empty) {
            return Err(unusable("nobody has a right of an empty list: name one for each"));
        }
        Ok(())
    }

    /// Encodes the definition of the collection of a number.
    ///
    /// # Errors
    /// [`CollectionError`] where it takes more than 4 096 bytes.
    pub fn encode(&self, id: u64) -> Result<Bytes, CollectionError> {
        let rights = self.rights.lists().map(|rights| {
            Part::List(rights.iter().map(|right| Part::from(u32::from(right.number()))).collect())
        });
        let indexes = self.indexes.iter().map(|index| {
            let fields = index.fields.iter().map(|(field, order)| {
                let order = match order {
                    IndexOrder::Ascending => 0_u32,
                    IndexOrder::Descending => 1,
                    IndexOrder::Each => 2,
                };
                Part::List(vec![field.clone().into(), order.into()])
            });
            Part::List(vec![
                index.name.clone().into(),
                index.is_unique.into(),
                Part::List(fields.collect()),
                filter_part(index.only.as_ref()),
            ])
        });
        let aggregates = self.aggregates.iter().map(|aggregate| {
            Part::List(vec![
                aggregate.name.clone().into(),
                Part::List(aggregate.group.iter().cloned().map(Part::from).collect()),
                aggregate.sum.clone().map_or(Part::Nil, Part::from),
                filter_part(aggregate.only.as_ref()),
            ])
        });
        let tuple = Tuple::encode(&[
            Part::Integer(DEFINITION_VERSION),
            Part::List(rights.into()),
            Part::List(indexes.collect()),
            Part::List(aggregates.collect()),
        ])
        .map_err(|error| unusable(error.to_string()))?;
        Ok([&id.to_le_bytes(), tuple.as_slice()].concat().into())
    }

    /// Decodes a definition, and gives the number of the collection.
    ///
    /// # Errors
    /// [`CollectionError`] where the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Self), CollectionError> {
        let malformed = || unusable("it is malformed");
        let (id, tuple) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
        let parts = Tuple::decode(tuple).map_err(|error| unusable(error.to_string()))?.into_parts();
        let definition = Self::of_parts(&parts).ok_or_else(malformed)?;
        Ok((u64::from_le_bytes(*id), definition.numbered()?))
    }

    fn of_parts(parts: &[Part]) -> Option<Self> {
        let [
            Part::Integer(DEFINITION_VERSION),
            Part::List(rights),
            Part::List(indexes),
            Part::List(aggregates),
        ] = parts
        else {
            return None;
        };
        let [read, insert, change, remove] = rights.as_slice() else { return None };
        let rights = CollectionRights {
            read: rights_of(read)?,
            insert: rights_of(insert)?,
            change: rights_of(change)?,
            remove: rights_of(remove)?,
        };
        Some(Self {
            indexes: indexes.iter().map(index_of).collect::<Option<_>>()?,
            aggregates: aggregates.iter().map(aggregate_of).collect::<Option<_>>()?,
            rights,
            fields: Vec::new(),
        })
    }
}

/// Adds a field to a set, by its place among all.
fn with(set: FieldSet, fields: &[String], field: &str) -> FieldSet {
    let place = fields.binary_search_by(|other| other.as_str().cmp(field)).unwrap_or_default();
    FieldSet(set.0 | 1 << (place % 64))
}

fn check_name(name: &str, what: &str) -> Result<(), CollectionError> {
    if name.trim().is_empty() || name.len() > NAME_LENGTH_MAX || name.chars().any(char::is_control) {
        let got: String = name.chars().take(NAME_LENGTH_MAX).collect();
        return Err(unusable(format!(
            "{got:?} is not the name of {what}: it has 1 to {NAME_LENGTH_MAX} bytes"
        )));
    }
    Ok(())
}

fn filter_part(filter: Option<&RowFilter>) -> Part {
    filter.map_or(Part::Nil, |filter| {
        Part::List(
            std::iter::once(filter.field.clone().into()).chain(filter.one_of.iter().cloned()).collect(),
        )
    })
}

fn filter_of(part: &Part) -> Option<Option<RowFilter>> {
    match part {
        Part::Nil => Some(None),
        Part::List(parts) => {
            let (Part::String(field), one_of) = parts.split_first()? else { return None };
            Some(Some(RowFilter::new(field.clone(), one_of.iter().cloned())))
        }
        _ => None,
    }
}

fn rights_of(part: &Part) -> Option<Vec<Right>> {
    let Part::List(rights) = part else { return None };
    let right = |part: &Part| match part {
        Part::Integer(number) => Right::from_number(u8::try_from(*number).ok()?),
        _ => None,
    };
    rights.iter().map(right).collect()
}

fn index_of(part: &Part) -> Option<IndexDefinition> {
    let Part::List(parts) = part else { return None };
    let [Part::String(name), Part::Bool(is_unique), Part::List(fields), only] = parts.as_slice() else {
        return None;
    };
    let field = |part: &Part| {
        let Part::List(pair) = part else { return None };
        let [Part::String(field), Part::Integer(order)] = pair.as_slice() else { return None };
        let order = match order {
            0 => IndexOrder::Ascending,
            1 => IndexOrder::Descending,
            2 => IndexOrder::Each,
            _ => return None,
        };
        Some((field.clone(), order))
    };
    Some(IndexDefinition {
        name: name.clone(),
        is_unique: *is_unique,
        fields: fields.iter().map(field).collect::<Option<_>>()?,
        only: filter_of(only)?,
        number: 0,
        goes_by: FieldSet::default(),
    })
}

fn aggregate_of(part: &Part) -> Option<AggregateDefinition> {
    let Part::List(parts) = part else { return None };
    let [Part::String(name), Part::List(group), sum, only] = parts.as_slice() else {
        return None;
    };
    let text = |part: &Part| match part {
        Part::String(text) => Some(text.clone()),
        _ => None,
    };
    Some(AggregateDefinition {
        name: name.clone(),
        group: group.iter().map(text).collect::<Option<_>>()?,
        sum: match sum {
            Part::Nil => None,
            sum => Some(text(sum)?),
        },
        only: filter_of(only)?,
        number: 0,
        goes_by: FieldSet::default(),
    })
}

/// What lies under the key of a row.
#[derive(Clone, PartialEq, Eq)]
pub struct RowContent {
    /// The fields.
    pub fields: Labelled,
    /// The value.
    pub value: Bytes,
}

/// Tells how long the value is, and not what it is.
impl std::fmt::Debug for RowContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = format_args!("{} bytes", self.value.len());
        f.debug_struct("RowContent").field("fields", &self.fields).field("value", &value).finish()
    }
}

impl RowContent {
    /// Encodes the row, as a commit put it.
    #[must_use]
    pub fn encode(&self, commit: u64) -> Vec<u8> {
        let Self { fields, value } = self;
        let length = u16::try_from(fields.encoded().len()).unwrap_or(u16::MAX);
        let mut body = Vec::with_capacity(ROW_HEADER_LENGTH + usize::from(length) + value.len());
        body.extend_from_slice(&[ROW_VERSION, 0]);
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&commit.to_le_bytes());
        body.extend_from_slice(fields.encoded());
        body.extend_from_slice(value);
        body
    }

    /// Decodes a row, and gives the commit that put it; the value is a part of its bytes.
    ///
    /// # Errors
    /// [`CollectionError`] where the bytes are not a row.
    pub fn decode(body: &Bytes) -> Result<(u64, Self), CollectionError> {
        let malformed = || CollectionError { what: "a row is malformed".to_owned() };
        let ([version, reserved, low, high], rest) = body.split_first_chunk::<4>().ok_or_else(malformed)?;
        if (*version, *reserved) != (ROW_VERSION, 0) {
            return Err(malformed());
        }
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (commit, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let end = ROW_HEADER_LENGTH + length;
        if rest.len() < length {
            return Err(malformed());
        }
        let fields = Labelled::decode(&body.slice(ROW_HEADER_LENGTH..end))
            .map_err(|error| unusable(error.to_string()))?;
        let content = Self { fields, value: body.slice(end..) };
        Ok((u64::from_le_bytes(*commit), content))
    }
}
