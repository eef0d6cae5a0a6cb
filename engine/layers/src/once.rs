//! Decisions that are made once. They lie in a collection that is made when the first is.

use std::time::Duration;

use bytes::Bytes;
use larder::{
    CollectionDefinition, CollectionMut, IndexDefinition, IntoKey, IntoRowKey, Key, Micros, Part, ReadTxn,
    Result, Row, RowDraft, RowRange, Tuple, WriteTxn,
};

use crate::place::{after, found, open, remove_all, remove_where};

/// Decisions: the first that is made under a key holds.
#[derive(Debug, Clone)]
pub struct Decisions {
    key: Key,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// This one: none was made before.
    First,
    /// Another one, before.
    Existing(Bytes),
}

fn decisions() -> CollectionDefinition {
    CollectionDefinition::new()
        .index(IndexDefinition::new("age").by("n"))
        .index(IndexDefinition::new("until").by("x"))
}

fn holds(row: &Row, now: Micros) -> bool {
    row.integer("x").is_none_or(|until| until > now)
}

impl Decisions {
    /// Names the collection.
    ///
    /// # Errors
    /// [`InvalidKey`](larder::ErrorKind::InvalidKey).
    pub fn at(key: impl IntoKey) -> Result<Self> {
        Ok(Self { key: key.into_key()? })
    }

    /// Decides something, unless it is decided; for a time, if one is given.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn decide(
        &self,
        txn: &mut WriteTxn<'_>,
        key: impl IntoRowKey,
        value: impl Into<Bytes>,
        for_at_most: Option<Duration>,
    ) -> Result<Decision> {
        let (key, now) = (key.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, decisions)?;
        if let Some(row) = rows.get(&key)?.filter(|row| holds(row, now)) {
            return Ok(Decision::Existing(row.value().clone()));
        }
        let mut draft = RowDraft::new(value).field("n", now);
        if let Some(time) = for_at_most {
            draft = draft.field("x", after(now, time));
        }
        rows.put(&key, draft)?;
        Ok(Decision::First)
    }

    /// Gives what was decided, if that holds at this time.
    ///
    /// # Errors
    /// As [`larder::Collection::get`].
    pub fn get(&self, view: &ReadTxn, key: impl IntoRowKey, now: Micros) -> Result<Option<Bytes>> {
        let Some(rows) = found(view.collection(&self.key))? else { return Ok(None) };
        Ok(rows.get(key)?.filter(|row| holds(row, now)).map(|row| row.value().clone()))
    }

    /// Removes decisions that were made before a time, the oldest first, at most `limit` of them; gives how many.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn remove_before(&self, txn: &mut WriteTxn<'_>, time: Micros, limit: usize) -> Result<u64> {
        self.remove(txn, |rows| {
            rows.find("age", &RowRange::all().at_most(time.saturating_sub(1)).limit(limit))
        })
    }

    /// As [`Decisions::remove_before`], but only those that may be removed, which is asked for each.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`], and whatever asking gives.
    pub fn remove_before_where<E: From<larder::Error>>(
        &self,
        txn: &mut WriteTxn<'_>,
        time: Micros,
        limit: usize,
        mut may_go: impl FnMut(&mut WriteTxn<'_>, &Tuple) -> std::result::Result<bool, E>,
    ) -> std::result::Result<u64, E> {
        let mut rows = open(txn, &self.key, decisions)?;
        let range = RowRange::all().at_most(time.saturating_sub(1));
        remove_where(&mut rows, Some("age"), range, limit, |rows, row| may_go(rows.txn(), row.key()))
            .map(|removed| removed as u64)
    }

    /// Removes decisions that do not hold any more, at most `limit` of them; gives how many.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn remove_expired(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let now = txn.info().time;
        self.remove(txn, |rows| rows.find("until", &RowRange::all().at_most(now).limit(limit)))
    }

    /// Removes decisions whose keys begin with a part, at most `limit` of them; gives how many.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn remove_of(&self, txn: &mut WriteTxn<'_>, first: impl Into<Part>, limit: usize) -> Result<u64> {
        self.remove(txn, |rows| rows.page(&RowRange::all().with(first).limit(limit)))
    }

    fn remove(
        &self,
        txn: &mut WriteTxn<'_>,
        find: impl FnOnce(&mut CollectionMut<'_, '_>) -> Result<larder::RowPage>,
    ) -> Result<u64> {
        let mut rows = open(txn, &self.key, decisions)?;
        let found = find(&mut rows)?.rows;
        remove_all(&mut rows, &found)
    }
}
