//! Things that happen once: decisions, and work that is not to be done twice.
//!
//! Both lie in a collection under a key of the application's choice, which is made when it is first used.

use std::time::Duration;

use bytes::Bytes;
use larder::{
    CollectionDefinition, CollectionMut, IndexDefinition, IntoKey, IntoRowKey, Key, Micros, Part, ReadTxn,
    Result, Row, RowDraft, RowRange, Tuple, WriteTxn,
};

use crate::place::{found, open};
use crate::queue::Backoff;

fn after(now: Micros, time: Duration) -> Micros {
    now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

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
        for row in &found {
            rows.remove(row.key())?;
        }
        Ok(found.len() as u64)
    }
}

/// Work that is done once under an idempotency key, however often it is begun, by whomever.
#[derive(Debug, Clone)]
pub struct Work {
    key: Key,
}

/// What somebody is told who begins some work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Begun {
    /// He is to do it.
    Proceed {
        /// Which attempt it is, from 1.
        attempt: u32,
        /// What to show when it is done, or has failed.
        token: u64,
    },
    /// Somebody is at it.
    InProgress {
        /// Until when; then another may begin.
        until: Micros,
    },
    /// It has failed, and is to be tried again later.
    Waiting {
        /// When.
        until: Micros,
    },
    /// It is done, and this came of it.
    Done(Bytes),
    /// It has failed too often.
    Dead,
}

/// What becomes of work that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Failed {
    /// It can be begun again from then on.
    RetryAt(Micros),
    /// It has failed too often.
    Dead,
    /// Somebody else has taken over: nothing was changed.
    Lost,
}

const PENDING: i64 = 0;
const DONE: i64 = 1;
const FAILED: i64 = 2;
const DEAD: i64 = 3;

fn work() -> CollectionDefinition {
    CollectionDefinition::new().index(IndexDefinition::new("state").by("s").by("t"))
}

impl Work {
    /// Names the collection.
    ///
    /// # Errors
    /// [`InvalidKey`](larder::ErrorKind::InvalidKey).
    pub fn at(key: impl IntoKey) -> Result<Self> {
        Ok(Self { key: key.into_key()? })
    }

    /// Begins some work, unless it is done, or somebody is at it whose time is not over.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn begin(
        &self,
        txn: &mut WriteTxn<'_>,
        key: impl IntoRowKey,
        for_at_most: Duration,
    ) -> Result<Begun> {
        let (key, now) = (key.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, work)?;
        let row = rows.get(&key)?;
        let number = |name: &str| row.as_ref().and_then(|row| row.integer(name)).unwrap_or(0);
        if let Some(row) = &row {
            let until = number("t");
            match number("s") {
                DONE => return Ok(Begun::Done(row.value().clone())),
                DEAD => return Ok(Begun::Dead),
                PENDING if until > now => return Ok(Begun::InProgress { until }),
                FAILED if until > now => return Ok(Begun::Waiting { until }),
                _ => {}
            }
        }
        let attempt = u32::try_from(number("a")).unwrap_or(u32::MAX).saturating_add(1);
        let token = rows.txn().unique_number();
        let until = after(now, for_at_most);
        let draft =
            RowDraft::default().field("s", PENDING).field("a", attempt).field("t", until).field("f", token);
        rows.put(&key, draft)?;
        Ok(Begun::Proceed { attempt, token })
    }

    /// Says that some work is done, and what came of it; tells whether it was still the caller's.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn complete(
        &self,
        txn: &mut WriteTxn<'_>,
        key: impl IntoRowKey,
        token: u64,
        result: impl Into<Bytes>,
    ) -> Result<bool> {
        let key = key.into_row_key()?;
        let mut rows = open(txn, &self.key, work)?;
        let Some(row) = held(&rows, &key, token)? else { return Ok(false) };
        rows.put(&key, row.to_draft().value(result).field("s", DONE).without("t").without("f"))?;
        Ok(true)
    }

    /// Says that some work has failed: it is tried again after a wait, up to `retries_max` times.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn fail(
        &self,
        txn: &mut WriteTxn<'_>,
        key: impl IntoRowKey,
        token: u64,
        backoff: Backoff,
        retries_max: u32,
    ) -> Result<Failed> {
        let (key, now) = (key.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, work)?;
        let Some(row) = held(&rows, &key, token)? else { return Ok(Failed::Lost) };
        let attempts = row.integer("a").and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(u32::MAX);
        let draft = row.to_draft().without("f");
        if attempts > retries_max {
            rows.put(&key, draft.field("s", DEAD).without("t"))?;
            return Ok(Failed::Dead);
        }
        let at = after(now, backoff.wait(attempts));
        rows.put(&key, draft.field("s", FAILED).field("t", at))?;
        Ok(Failed::RetryAt(at))
    }
}

/// Finds work that is still whose who shows this token.
fn held(rows: &CollectionMut<'_, '_>, key: &Tuple, token: u64) -> Result<Option<Row>> {
    let is_held = |row: &Row| row.integer("s") == Some(PENDING) && row.field("f") == Some(&token.into());
    Ok(rows.get(key)?.filter(is_held))
}
