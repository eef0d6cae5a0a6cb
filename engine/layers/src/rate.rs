//! Rate limits: so many in a window of time, counted in the transaction that does what is limited.

use std::time::Duration;

use larder::{
    CollectionDefinition, ErrorKind, IndexDefinition, IntoKey, IntoRowKey, Key, Micros, Result, RowDraft,
    RowRange, WriteTxn,
};

use crate::place::{after, found, open, remove_all};

/// A limit. The window of a name begins with the first that is counted in it, and the next one with the first after its end;
/// so there can be twice as many around the end of one.
#[derive(Debug, Clone)]
pub struct RateLimit {
    key: Key,
    limit: u64,
    window: Duration,
}

/// Whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Rate {
    /// It may, and was counted.
    Ok {
        /// How many more may be done in this window.
        left: u64,
    },
    /// It may not, and was not.
    Limited {
        /// When the next window begins.
        until: Micros,
    },
}

fn definition() -> CollectionDefinition {
    CollectionDefinition::new().index(IndexDefinition::new("until").by("t"))
}

impl RateLimit {
    /// Limits to so many in a window of time; counts in a collection under a key, made when it is first used.
    ///
    /// # Errors
    /// [`InvalidKey`](larder::ErrorKind::InvalidKey); [`InvalidArgument`](larder::ErrorKind::InvalidArgument) for a window of
    /// less than a microsecond, in which nothing could be counted.
    pub fn new(key: impl IntoKey, limit: u64, window: Duration) -> Result<Self> {
        if window < Duration::from_micros(1) {
            let (expected, got) = ("at least 1 us".to_owned(), format!("{window:?}"));
            return Err(ErrorKind::InvalidArgument { argument: "window", expected, got }.into());
        }
        Ok(Self { key: key.into_key()?, limit, window })
    }

    /// Counts something that is done under a name, if it may be.
    ///
    /// # Errors
    /// As [`larder::CollectionMut::put`].
    pub fn take(&self, txn: &mut WriteTxn<'_>, name: impl IntoRowKey) -> Result<Rate> {
        let (name, now) = (name.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, definition)?;
        let row = rows.get(&name)?;
        let number = |field: &str| row.as_ref().and_then(|row| row.integer(field)).unwrap_or(0);
        let (count, until) = match number("t") {
            until if until > now => (u64::try_from(number("n")).unwrap_or(u64::MAX), until),
            _ => (0, after(now, self.window)),
        };
        if count >= self.limit {
            return Ok(Rate::Limited { until });
        }
        rows.put(&name, RowDraft::default().field("n", count + 1).field("t", until))?;
        Ok(Rate::Ok { left: self.limit - count - 1 })
    }

    /// Forgets names whose windows are over, at most `limit` of them; gives how many.
    ///
    /// # Errors
    /// As [`larder::CollectionMut::remove`].
    pub fn sweep(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let now = txn.info().time;
        let Some(mut rows) = found(txn.collection(&self.key))? else { return Ok(0) };
        let over = rows.find("until", &RowRange::all().at_most(now).limit(limit))?.rows;
        remove_all(&mut rows, &over)
    }
}
