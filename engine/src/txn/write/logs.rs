//! Logs and progress in a write transaction.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::{EventKind, Key, LogEntry, LogKind, Right};

use super::WriteTxn;
use crate::edit::IntoKey;
use crate::error::{ErrorKind, Result};
use crate::primitives::{
    LOG_ENTRIES_MAX, PROGRESS, Progress, encode_entry, numbered_key, numbered_of, numbered_prefix,
};
use crate::store::Table;

/// How many bits the place of an entry in its commit has.
const ENTRIES_A_COMMIT_BITS: u32 = 20;
/// After how many entries, about, a log is trimmed.
const TRIMMED_EVERY: u64 = 64;

impl WriteTxn<'_> {
    /// Appends an entry to the log of an asset, which lies apart from its record: the asset has the same generation
    /// afterwards. The last 1 000 entries are kept, and sometimes a few more.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`AccessDenied`](ErrorKind::AccessDenied): it takes the right to write;
    /// [`MetadataTooLarge`](ErrorKind::MetadataTooLarge) for an entry.
    pub fn log(&mut self, key: impl IntoKey, kind: LogKind, message: impl Into<String>) -> Result<()> {
        let (key, message) = (key.into_key()?, message.into());
        let entry = LogEntry { kind, time: self.info.time, message };
        let done = self.check_log(&key, entry.message.len()).and_then(|()| {
            // In the order of commits, and in a commit in the order in which they come: nothing has to be looked up for it.
            let number = (self.info.sequence << ENTRIES_A_COMMIT_BITS) + self.events.len() as u64;
            self.changes.put(Table::Logs, numbered_key(&key, number), encode_entry(&entry));
            if (self.info.sequence + self.events.len() as u64).is_multiple_of(TRIMMED_EVERY) {
                self.trim_log(&key)?;
            }
            self.tell(EventKind::Logged, &key);
            Ok(())
        });
        self.audited(done.map_err(|error| error.at(&key)))
    }

    /// Says how far the work on an asset is; only the last that was said is kept.
    ///
    /// # Errors
    /// As [`WriteTxn::log`].
    pub fn progress(
        &mut self,
        key: impl IntoKey,
        done: u64,
        total: u64,
        message: impl Into<String>,
    ) -> Result<()> {
        let (key, message) = (key.into_key()?, message.into());
        let progress = Progress { time: self.info.time, done, total, message };
        let done = self.check_log(&key, progress.message.len()).map(|()| {
            self.changes.put(Table::Logs, numbered_key(&key, PROGRESS), progress.encode());
            self.tell(EventKind::Logged, &key);
        });
        self.audited(done.map_err(|error| error.at(&key)))
    }

    fn check_log(&mut self, key: &Key, length: usize) -> Result<()> {
        let documents = Arc::clone(&self.documents);
        self.guard(&documents).access(Right::WRITE, key)?;
        self.grow()?;
        let (size, limit) = (length as u64, documents.limits.max_metadata_size());
        if size > limit {
            return Err(ErrorKind::MetadataTooLarge { size, limit }.into());
        }
        if self.reading().row(key)?.is_none() {
            return Err(ErrorKind::NotFound.into());
        }
        self.has_logs = true;
        Ok(())
    }

    /// Lets go of entries beyond those that are kept. Once in a while: it reads them all.
    fn trim_log(&mut self, key: &Key) -> Result<()> {
        let entries =
            self.log_rows(key)?.into_iter().map(|(number, _)| number).filter(|number| *number != PROGRESS);
        let numbers: Vec<u64> = entries.collect();
        for number in numbers.iter().take(numbers.len().saturating_sub(LOG_ENTRIES_MAX)) {
            self.changes.remove(Table::Logs, numbered_key(key, *number));
        }
        Ok(())
    }

    fn log_rows(&self, key: &Key) -> Result<Vec<(u64, Bytes)>> {
        let mut found = Vec::new();
        for row in self.view.prefix(Some(&self.changes), Table::Logs, &numbered_prefix(key))? {
            let (row_key, body) = row?;
            found.push((numbered_of(&row_key)?.1, body));
        }
        Ok(found)
    }

    /// Removes the log of an asset that goes, or moves it along.
    pub(super) fn end_log(&mut self, key: &Key, moves_to: Option<&Key>) -> Result<()> {
        if !self.has_logs {
            return Ok(());
        }
        for (number, body) in self.log_rows(key)? {
            self.changes.remove(Table::Logs, numbered_key(key, number));
            if let Some(to) = moves_to {
                self.changes.put(Table::Logs, numbered_key(to, number), body);
            }
        }
        Ok(())
    }
}
