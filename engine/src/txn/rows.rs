//! Reading rows of collections from a view.

use std::ops::Bound;

use bytes::Bytes;
use larder_format::{
    Aggregate, CollectionDefinition, IndexDefinition, IndexOrder, Key, Part, RowContent, Tuple,
};

use super::reading::Reading;
use crate::collection::{IndexPage, Indexed, Row, RowCursor, RowPage, RowRange};
use crate::error::{Error, ErrorKind, Result};
use crate::primitives::{DefinedCollection, OpenedCollection, entry_of, row_key, row_key_of, values_of};
use crate::store::{Table, corrupt};

/// Which entries of which index are asked for.
struct Asked<'a> {
    key: &'a Key,
    collection: &'a DefinedCollection,
    index: &'a IndexDefinition,
    range: &'a RowRange,
}

/// Where a way through an index ended, and where it began.
struct Walked {
    /// Behind what was taken, if there is more.
    next: Option<RowCursor>,
    /// The first entry: nothing lies before it.
    first: Option<Bytes>,
}

impl Reading<'_, '_> {
    /// Finds the collection under a key. Who may do nothing with it is told what one is told who may not read here.
    pub(crate) fn collection(&self, key: &Key) -> Result<OpenedCollection> {
        let opened = self.opened(key);
        if !opened.as_ref().is_ok_and(|opened| self.may_work_with(key, &opened.collection)) {
            self.guard.reading(key)?;
        }
        opened
    }

    /// Opens a collection for whoever may know of it.
    pub(crate) fn opened(&self, key: &Key) -> Result<OpenedCollection> {
        let Some(row) = self.row(key)? else { return Err(Error::from(ErrorKind::NotFound).at(key)) };
        let Some(section) = DefinedCollection::section(&row.record) else {
            return Err(Error::from(ErrorKind::NotACollection).at(key));
        };
        let collection = self.view.definition(section).map_err(|error| error.at(key))?;
        Ok(OpenedCollection { record: row.record.clone(), collection })
    }

    /// Tells whether the caller may do anything with the rows.
    fn may_work_with(&self, key: &Key, collection: &DefinedCollection) -> bool {
        let rights = &collection.definition.rights;
        let lists = [&rights.read, &rights.insert, &rights.change, &rights.remove];
        lists.into_iter().flatten().any(|right| self.guard.allows(*right, key))
    }

    fn may_read(&self, key: &Key, collection: &DefinedCollection) -> Result<()> {
        self.token.check()?;
        self.guard.access_by_any(&collection.definition.rights.read, key).map_err(|error| error.at(key))
    }

    /// Gives what lies under the key of a row, without asking.
    pub(crate) fn row_content(
        &self,
        collection: &DefinedCollection,
        row: &[u8],
    ) -> Result<Option<RowContent>> {
        let Some(body) = self.view.get_to_keep(self.own, Table::Rows, &row_key(collection.id, row))? else {
            return Ok(None);
        };
        RowContent::decode(&body)
            .map(|(_, content)| Some(content))
            .map_err(|error| corrupt(error.to_string()))
    }

    pub(crate) fn row_of(
        &self,
        key: &Key,
        collection: &DefinedCollection,
        row: &Tuple,
    ) -> Result<Option<Row>> {
        self.may_read(key, collection)?;
        let content = self.row_content(collection, row.encoded()).map_err(|error| error.at(key))?;
        Ok(content.map(|content| Row::new(row.clone(), content)))
    }

    /// Gives rows in the order of their keys.
    pub(crate) fn rows_of(
        &self,
        key: &Key,
        collection: &DefinedCollection,
        range: &RowRange,
    ) -> Result<RowPage> {
        self.may_read(key, collection)?;
        let encode = |parts: &[Part], _| Tuple::encode(parts).map_err(|error| unusable(&error));
        let (start, end) = bounds(collection.id, range, false, encode)?;
        let mut page = RowPage::default();
        for row in self.view.range(self.own, Table::Rows, start, end)? {
            let (at, body) = row?;
            if page.rows.len() == range.effective_limit() {
                page.next =
                    page.rows.last().map(|row| RowCursor(row_key(collection.id, row.key().encoded())));
                break;
            }
            let decoded = row_key_of(&at).and_then(|(_, row)| Tuple::decode(row).ok());
            let row = decoded.ok_or_else(|| corrupt("the key of a row is malformed").at(key))?;
            let (_, content) =
                RowContent::decode(&body).map_err(|error| corrupt(error.to_string()).at(key))?;
            page.rows.push(Row::new(row, content));
        }
        Ok(page)
    }

    /// Gives rows in the order of an index, and where the first entry lies; nothing lies before `front`.
    pub(crate) fn rows_by(
        &self,
        key: &Key,
        collection: &DefinedCollection,
        index: &str,
        range: &RowRange,
        front: Option<Bytes>,
    ) -> Result<(RowPage, Option<Bytes>)> {
        let asked = self.asked(key, collection, index, range)?;
        let mut rows = Vec::new();
        let walked = self.walk_index(&asked, range.effective_limit(), front, |entry| {
            let row = entry_of(asked.index, entry)?;
            let (Some(content), Ok(row)) = (self.row_content(collection, row)?, Tuple::decode(row)) else {
                return Err(corrupt(format!("an entry of the index {} is of no row", asked.index.name)));
            };
            rows.push(Row::new(row, content));
            Ok(())
        })?;
        Ok((RowPage { rows, next: walked.next }, walked.first))
    }

    /// Gives what an index itself says, in its order.
    pub(crate) fn entries_by(
        &self,
        key: &Key,
        collection: &DefinedCollection,
        index: &str,
        range: &RowRange,
    ) -> Result<IndexPage> {
        let asked = self.asked(key, collection, index, range)?;
        let mut entries = Vec::new();
        let walked = self.walk_index(&asked, range.effective_limit(), None, |entry| {
            let (values, row) = values_of(asked.index, entry)?;
            entries.push(Indexed { values, row });
            Ok(())
        })?;
        Ok(IndexPage { entries, next: walked.next })
    }

    /// Counts the entries of an index.
    pub(crate) fn count_by(
        &self,
        key: &Key,
        collection: &DefinedCollection,
        index: &str,
        range: &RowRange,
    ) -> Result<u64> {
        let asked = self.asked(key, collection, index, range)?;
        let mut count = 0;
        self.walk_index(&asked, usize::MAX, None, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    fn asked<'a>(
        &self,
        key: &'a Key,
        collection: &'a DefinedCollection,
        index: &str,
        range: &'a RowRange,
    ) -> Result<Asked<'a>> {
        self.may_read(key, collection)?;
        let index = index_named(&collection.definition, index)?;
        Ok(Asked { key, collection, index, range })
    }

    /// Goes through entries of an index, up to `limit` of them; nothing lies before `front`.
    fn walk_index(
        &self,
        &Asked { key, collection, index, range }: &Asked<'_>,
        limit: usize,
        front: Option<Bytes>,
        mut take: impl FnMut(&Bytes) -> Result<()>,
    ) -> Result<Walked> {
        let order = index.fields.get(range.equal.len()).map(|(_, order)| *order);
        let is_descending = order == Some(IndexOrder::Descending);
        let values = range.equal.len() + usize::from(range.at_least.is_some() || range.at_most.is_some());
        if values > index.fields.len() {
            let expected =
                format!("at most {} values: the index {} has no more", index.fields.len(), index.name);
            let got = values.to_string();
            return Err(ErrorKind::InvalidArgument { argument: "range", expected, got }.into());
        }
        let encode = |parts: &[Part], is_start| {
            let encoded = if is_start { index.start(parts) } else { index.prefix(parts) };
            encoded.map_err(|error| unusable(&error))
        };
        let (start, end) = bounds(collection.id, range, is_descending, encode)?;
        let start = match (front, start) {
            (Some(front), Bound::Included(start)) => Bound::Included(start.max(front)),
            (_, start) => start,
        };
        if let (Bound::Included(start), Bound::Excluded(end)) = (&start, &end)
            && start >= end
        {
            return Ok(Walked { next: None, first: Some(start.clone()) });
        }
        // Where there is none, there is none up to the end.
        let mut first = if let Bound::Excluded(end) = &end { Some(end.clone()) } else { None };
        let (mut taken, mut last, mut next) = (0, None, None);
        for entry in self.view.range(self.own, Table::Entries, start, end)? {
            let (entry, _) = entry?;
            if taken == 0 {
                first = Some(entry.clone());
            }
            if taken == limit {
                next = last.map(RowCursor);
                break;
            }
            take(&entry).map_err(|error| error.at(key))?;
            taken += 1;
            last = Some(entry);
        }
        Ok(Walked { next, first })
    }

    /// Gives what a group of an aggregate lies under, for those who may know what it says.
    pub(crate) fn group_of(
        &self,
        key: &Key,
        collection: &DefinedCollection,
        name: Option<&str>,
        group: &[Part],
    ) -> Result<Bytes> {
        // Who may put rows may know how many there are, so that he can stop in time.
        if !self.may_work_with(key, collection) {
            self.may_read(key, collection)?;
        }
        self.token.check()?;
        let at = match name {
            None => CollectionDefinition::total_key().to_vec(),
            Some(name) => {
                let aggregate = aggregate_named(&collection.definition, name)?;
                if group.len() != aggregate.group.len() {
                    let (expected, got) =
                        (format!("{} values", aggregate.group.len()), group.len().to_string());
                    return Err(ErrorKind::InvalidArgument { argument: "group", expected, got }.into());
                }
                aggregate.key(group).map_err(|error| unusable(&error))?
            }
        };
        Ok(row_key(collection.id, &at))
    }

    /// Gives what lies under the key of a group.
    pub(crate) fn aggregate_at(&self, at: &[u8]) -> Result<Aggregate> {
        let Some(body) = self.view.get(self.own, Table::Entries, at)? else {
            return Ok(Aggregate::default());
        };
        Aggregate::decode(&body).ok_or_else(|| corrupt("an aggregate is malformed"))
    }

    pub(crate) fn groups_of(
        &self,
        key: &Key,
        collection: &DefinedCollection,
        name: &str,
    ) -> Result<Vec<(Tuple, Aggregate)>> {
        self.may_read(key, collection)?;
        let aggregate = aggregate_named(&collection.definition, name)?;
        let prefix = row_key(collection.id, &aggregate.key(&[]).map_err(|error| unusable(&error))?);
        let mut groups = Vec::new();
        let mut rows = self.view.prefix(self.own, Table::Entries, &prefix)?;
        while let Some(row) = rows.next_row().transpose()? {
            let group = row.key().strip_prefix(&prefix[..]).and_then(|group| Tuple::decode(group).ok());
            let malformed = || corrupt("an aggregate is malformed").at(key);
            groups.push((group.ok_or_else(malformed)?, Aggregate::decode(row.body()).ok_or_else(malformed)?));
        }
        Ok(groups)
    }
}

/// Where rows or entries lie that are asked for.
fn bounds(
    id: u64,
    range: &RowRange,
    is_descending: bool,
    encode: impl Fn(&[Part], bool) -> Result<Vec<u8>>,
) -> Result<(Bound<Bytes>, Bound<Bytes>)> {
    let with = |next: Option<&Part>, is_start: bool| -> Result<Vec<u8>> {
        let mut parts = range.equal.clone();
        parts.extend(next.cloned());
        Ok(row_key(id, &encode(&parts, is_start)?).to_vec())
    };
    let (least, most) = match is_descending {
        false => (range.at_least.as_ref(), range.at_most.as_ref()),
        true => (range.at_most.as_ref(), range.at_least.as_ref()),
    };
    let start = Bytes::from(with(least, true)?);
    let start = match &range.after {
        Some(RowCursor(after)) if *after >= start => Bound::Excluded(after.clone()),
        _ => Bound::Included(start),
    };
    let mut end = with(most, false)?;
    // No value goes on so, but for a longer text that only begins with this one.
    end.push(u8::MAX);
    Ok((start, Bound::Excluded(end.into())))
}

pub(super) fn index_named<'d>(
    definition: &'d CollectionDefinition,
    name: &str,
) -> Result<&'d IndexDefinition> {
    definition.index_named(name).ok_or_else(|| {
        let names: Vec<_> = definition.indexes.iter().map(|index| index.name.as_str()).collect();
        no_such("index", name, &names)
    })
}

fn aggregate_named<'d>(
    definition: &'d CollectionDefinition,
    name: &str,
) -> Result<&'d larder_format::AggregateDefinition> {
    definition.aggregate_named(name).ok_or_else(|| {
        let names: Vec<_> = definition.aggregates.iter().map(|aggregate| aggregate.name.as_str()).collect();
        no_such("aggregate", name, &names)
    })
}

fn no_such(argument: &'static str, name: &str, names: &[&str]) -> Error {
    let expected = format!("one of {names:?}");
    ErrorKind::InvalidArgument { argument, expected, got: name.chars().take(64).collect() }.into()
}

fn unusable(error: &larder_format::TupleError) -> Error {
    let expected = "values that can be part of a key".to_owned();
    ErrorKind::InvalidArgument { argument: "range", expected, got: error.to_string() }.into()
}
