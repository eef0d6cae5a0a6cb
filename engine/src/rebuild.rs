//! Deriving again what follows from records, claims and contents: after an increment was restored, and to repair.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{Key, Record, RowContent};

use crate::error::Result;
use crate::primitives::{
    ClaimRow, ContentRow, DefinedCollection, DerivedRow, Groups, ReferenceCounts, StatisticsMap,
    derived_of_claim, derived_of_record, derived_of_row, is_derived, numbered_of, row_key_of,
};
use crate::store::{Loader, Snapshot, Store, Table, chunk_key, state_key};

/// Which tables have rows that are derived.
const DERIVED: [Table; 5] = [Table::Tags, Table::Claims, Table::Deadlines, Table::Edges, Table::Entries];

/// Derives everything again in a store that nobody else has open.
pub(crate) fn rebuild(store: &Store) -> Result<()> {
    let source = store.view()?;
    let mut loader = store.load();
    let all = |table| source.range(table, Bound::Unbounded, Bound::Unbounded);
    for table in DERIVED {
        for row in all(table)? {
            let row = row?;
            if is_derived(table, row.key()) {
                loader.remove(table, row.key())?;
            }
        }
    }
    let (mut statistics, mut collections) = (StatisticsMap::default(), BTreeMap::new());
    for row in all(Table::Records)? {
        let row = row?;
        let (Ok(key), Ok((record, _))) = (Key::decode(row.key()), Record::in_place(row.body())) else {
            continue;
        };
        let record = record.to_record();
        statistics.count(&record, 1);
        if let Some(Ok(collection)) = DefinedCollection::section(&record).map(DefinedCollection::decode) {
            collections.insert(collection.id, collection);
        }
        put_all(&mut loader, &derived_of_record(&key, &record))?;
    }
    for row in all(Table::Claims)? {
        let row = row?;
        if let Some((1, key)) = row.key().split_first()
            && let Ok(claim) = ClaimRow::decode(row.body())
        {
            put_all(&mut loader, &derived_of_claim(key, &claim))?;
        }
    }
    derive_rows(&source, &mut loader, &collections)?;
    // A store in which nothing was ever counted has no such row.
    if !statistics.is_empty() || source.get(Table::State, state_key::STATISTICS)?.is_some() {
        loader.put(Table::State, state_key::STATISTICS, &statistics.encode())?;
    }
    let ids = recount(&source, &mut loader)?;
    remove_chunks_without(&source, &mut loader, &ids)?;
    remove_logs_without_assets(&source, &mut loader)?;
    loader.remove_range(Table::Staging, &[], None)?;
    loader.commit()
}

/// Derives what follows from the rows of collections; those that are of none are removed.
fn derive_rows(
    source: &Arc<Snapshot>,
    loader: &mut Loader<'_>,
    collections: &BTreeMap<u64, DefinedCollection>,
) -> Result<()> {
    let mut groups = Groups::default();
    for row in source.range(Table::Rows, Bound::Unbounded, Bound::Unbounded)? {
        let row = row?;
        let known = row_key_of(row.key()).and_then(|(id, key)| Some((collections.get(&id)?, key)));
        let content = RowContent::decode(&Bytes::copy_from_slice(row.body()));
        match (known, content) {
            (Some((collection, key)), Ok((_, content))) => {
                derived_of_row(collection, key, &content).try_for_each(|row| put_all(loader, &[row]))?;
                groups.count(collection, key, &content);
            }
            _ => loader.remove(Table::Rows, row.key())?,
        }
    }
    groups.into_rows().try_for_each(|row| put_all(loader, &[row]))
}

fn put_all(loader: &mut Loader<'_>, rows: &[DerivedRow]) -> Result<()> {
    rows.iter().try_for_each(|row| loader.put(row.table, &row.key, &row.body))
}

/// Sets the references of contents to what is counted; gives the ids of those that have some.
fn recount(source: &Arc<Snapshot>, loader: &mut Loader<'_>) -> Result<BTreeSet<u64>> {
    let mut ids = BTreeSet::new();
    let mut counts = ReferenceCounts::new(Arc::clone(source))?;
    while let Some((range, references)) = counts.next()? {
        let end = range.end().checked_add(1).map(|end| [end]);
        let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
        for row in source.range(Table::Contents, Bound::Included(&[*range.start()]), end)? {
            let row = row?;
            let Ok(content) = ContentRow::decode(row.body()) else { continue };
            let count = <[u8; 32]>::try_from(row.key()).ok().and_then(|hash| references.get(&hash));
            match count {
                None => loader.remove(Table::Contents, row.key())?,
                Some((_, count)) => {
                    ids.insert(content.id);
                    if *count != content.references {
                        let content = ContentRow { references: *count, ..content };
                        loader.put(Table::Contents, row.key(), &content.encode())?;
                    }
                }
            }
        }
    }
    Ok(ids)
}

fn remove_chunks_without(source: &Arc<Snapshot>, loader: &mut Loader<'_>, ids: &BTreeSet<u64>) -> Result<()> {
    let mut from = chunk_key(0, 0);
    // From payload to payload, not from chunk to chunk.
    while let Some(row) =
        source.range(Table::Chunks, Bound::Included(&from), Bound::Unbounded)?.next().transpose()?
    {
        let Some(id) = row.key().first_chunk().map(|id| u64::from_be_bytes(*id)) else { break };
        let next = id.checked_add(1).map(|next| chunk_key(next, 0));
        if !ids.contains(&id) {
            loader.remove_range(Table::Chunks, &chunk_key(id, 0), next.as_ref().map(<[u8; 16]>::as_slice))?;
        }
        let Some(next) = next else { break };
        from = next;
    }
    Ok(())
}

fn remove_logs_without_assets(source: &Arc<Snapshot>, loader: &mut Loader<'_>) -> Result<()> {
    for row in source.range(Table::Logs, Bound::Unbounded, Bound::Unbounded)? {
        let row = row?;
        let is_kept = match numbered_of(row.key()) {
            Ok((key, _)) => source.get(Table::Records, key.encoded())?.is_some(),
            Err(_) => false,
        };
        if !is_kept {
            loader.remove(Table::Logs, row.key())?;
        }
    }
    Ok(())
}
