//! History in a write transaction: what is kept of what was, and for how long.

use std::sync::Arc;

use larder_format::{EventKind, HistoryLimit, Key, PayloadState, RecordBuilder, Right};

use super::WriteTxn;
use crate::edit::{IntoKey, Stored};
use crate::error::{ErrorKind, Result};
use crate::guard::{New, Proposal, Row, Verdict};
use crate::primitives::{decode_history, encode_history, numbered_key, numbered_of, numbered_prefix};
use crate::store::Table;

impl WriteTxn<'_> {
    /// Gives an asset the payload and the metadata again that it had in a generation of its history; they are a new
    /// generation. Gives what became of it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if that generation is not kept; as [`WriteTxn::put`].
    pub fn restore(&mut self, key: impl IntoKey, generation: u64) -> Result<Stored> {
        let key = key.into_key()?;
        let restored = self.restore_key(&key, generation).map_err(|error| error.at(&key));
        self.audited(restored)
    }

    fn restore_key(&mut self, key: &Key, generation: u64) -> Result<Stored> {
        let documents = Arc::clone(&self.documents);
        let guard = self.guard(&documents);
        guard.access(Right::WRITE, key)?;
        guard.reading(key)?;
        let body = self.view.get(Some(&self.changes), Table::History, &numbered_key(key, generation))?;
        let Some(body) = body else { return Err(ErrorKind::NotFound.into()) };
        let (_, was) = decode_history(&body)?;
        self.check_cycle(key, &was.record.dependencies())?;
        let old = self.reading().row(key)?;
        let previous = old.as_ref().map(|old| old.record.generation());
        let mut builder = RecordBuilder::from_record(&was.record);
        let last = match previous {
            Some(previous) => previous,
            None => self.last_former(key)?,
        };
        builder.generation = last.max(generation) + 1;
        builder.created = old.as_ref().map_or(was.record.created(), |old| old.record.created());
        builder.updated = self.info.time;
        builder.commit = self.info.sequence;
        let stored_as = builder.generation;
        let new = New::kept(builder, &was.inline);
        let (kind, right) = (EventKind::Put, Right::WRITE);
        let proposal = Proposal { key, right, kind, from: None, old, new: Some(new), conditions: &[] };
        if let Verdict::Admitted(admitted, _) = guard.admit(proposal)? {
            self.record_change(&admitted, None)?;
        }
        Ok(Stored { generation: stored_as, previous, warnings: Vec::new(), tags_ignored: Vec::new() })
    }

    /// Tells how much of the history of a key is kept, if any is.
    pub(super) fn history_limit(&self, key: &Key) -> Option<HistoryLimit> {
        self.documents.limits.history(key.encoded())
    }

    /// Gives the last generation that is kept of a key: where nothing is under it any more, the next goes on from there.
    pub(super) fn last_former(&self, key: &Key) -> Result<u64> {
        if self.history_limit(key).is_none() {
            return Ok(0);
        }
        let rows = self.view.prefix(Some(&self.changes), Table::History, &numbered_prefix(key))?;
        let last = rows.last().transpose()?;
        last.map_or(Ok(0), |(row_key, _)| Ok(numbered_of(&row_key)?.1))
    }

    /// Keeps what a key had. The reference to its content goes over to the history.
    pub(super) fn remember(&mut self, key: &Key, old: &Row, limit: HistoryLimit) -> Result<()> {
        let row_key = numbered_key(key, old.record.generation());
        // Where nothing was kept for a while, a generation can be there already.
        if let Some(body) = self.view.get(Some(&self.changes), Table::History, &row_key)?
            && let PayloadState::Stored { hash, .. } = decode_history(&body)?.1.record.payload()
        {
            self.unlink(&hash, 1)?;
        }
        self.changes.put(Table::History, row_key, encode_history(self.info.time, old));
        self.prune_key(key, Some(limit))
    }

    /// Lets go of what is too much or too old of the history of a key; of all of it where nothing says that it is kept.
    pub(crate) fn prune_key(&mut self, key: &Key, limit: Option<HistoryLimit>) -> Result<()> {
        let mut kept = Vec::new();
        for row in self.view.prefix(Some(&self.changes), Table::History, &numbered_prefix(key))? {
            let (row_key, body) = row?;
            kept.push((numbered_of(&row_key)?.1, decode_history(&body)?));
        }
        let surplus = match limit.and_then(|limit| limit.generations) {
            Some(most) => kept.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX)),
            None => 0,
        };
        for (at, (generation, (until, was))) in kept.into_iter().enumerate() {
            let is_old = limit
                .and_then(|limit| limit.age_max)
                .is_some_and(|age_max| self.info.time.saturating_sub(until) > age_max);
            if limit.is_some() && at >= surplus && !is_old {
                continue;
            }
            self.changes.remove(Table::History, numbered_key(key, generation));
            if let PayloadState::Stored { hash, .. } = was.record.payload() {
                self.unlink(&hash, 1)?;
            }
        }
        Ok(())
    }

    /// Prunes the history of keys by the rules that are in force.
    pub(crate) fn prune(&mut self, keys: &[Key]) -> Result<()> {
        keys.iter().try_for_each(|key| self.prune_key(key, self.history_limit(key)))
    }
}
