//! When snapshots are made, and how many are kept: for those who have no scheduler of their own.

use std::path::{Path, PathBuf};

use larder_format::{Micros, SnapshotKind};

use super::{SnapshotFile, SnapshotInfo, SnapshotOptions, SnapshotReport};
use crate::error::{Error, ErrorKind, Result};
use crate::larder::Larder;
use crate::store::io_error;

/// What the names of snapshots end with.
const EXTENSION: &str = "larder-snapshot";

/// Makes snapshots in a folder when there is reason to: after so many commits, or so much time. The caller asks it as
/// often as it likes; it has no thread.
///
/// Names are `COMMIT-KIND.larder-snapshot`, with twenty digits, so that they sort as they were made. A chain is a full
/// snapshot and the increments on it; chains are removed as a whole, the oldest first, once newer ones are complete.
#[derive(Debug, Clone)]
pub struct SnapshotPolicy {
    folder: PathBuf,
    commits: u64,
    age: Micros,
    increments: usize,
    chains: usize,
    options: SnapshotOptions,
}

impl SnapshotPolicy {
    /// Keeps snapshots in a folder, which is there: after 5 000 commits, six increments on a full one, two chains.
    #[must_use]
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self {
            folder: folder.as_ref().to_path_buf(),
            commits: 5_000,
            age: Micros::MAX,
            increments: 6,
            chains: 2,
            options: SnapshotOptions::new(),
        }
    }

    /// Sets after how many commits one is due.
    #[must_use]
    pub fn every_commits(mut self, commits: u64) -> Self {
        self.commits = commits.max(1);
        self
    }

    /// Sets after how much time one is due, in microseconds, if there was a commit meanwhile; never by default.
    #[must_use]
    pub fn every_micros(mut self, age: Micros) -> Self {
        self.age = age.max(0);
        self
    }

    /// Sets how many increments there are on a full one; 0 for full ones only.
    #[must_use]
    pub fn increments(mut self, increments: usize) -> Self {
        self.increments = increments;
        self
    }

    /// Sets how many chains are kept; at least 1.
    #[must_use]
    pub fn chains(mut self, chains: usize) -> Self {
        self.chains = chains.max(1);
        self
    }

    /// Sets how they are made; of what, is the policy's business.
    #[must_use]
    pub fn options(mut self, options: SnapshotOptions) -> Self {
        self.options = options.of_everything();
        self
    }

    /// Gives the snapshots in the folder that are of this store, by when they were made. What cannot be read is left out, and stays.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`Closed`](ErrorKind::Closed).
    pub fn snapshots(&self, larder: &Larder) -> Result<Vec<(PathBuf, SnapshotInfo)>> {
        let store_id = larder.shared().commit.store().identity().store_id;
        let reading = |error| io_error("reading the folder of snapshots", error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(reading)? {
            let path = entry.map_err(reading)?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && let Ok(snapshot) = SnapshotFile::open(&path)
                && snapshot.info.0.store_id == store_id
                && snapshot.info.kind() != SnapshotKind::Prefix
            {
                found.push((path, snapshot.info));
            }
        }
        // By when they were made, first: those of a time that the store was taken back from may go further.
        found.sort_by_key(|(path, info)| (info.made(), info.commit().sequence, path.clone()));
        Ok(found)
    }

    /// Makes a snapshot if one is due, and removes chains that are too many; gives what was made.
    ///
    /// # Errors
    /// As [`Larder::snapshot`].
    pub fn run(&self, larder: &Larder) -> Result<Option<(PathBuf, SnapshotReport)>> {
        let found = self.snapshots(larder)?;
        let (head, now) = (larder.info()?.last_commit, larder.shared().clock.now());
        // What goes further than the store does is of a time that it was taken back from.
        let newest = found.last().map(|(_, info)| info);
        let newest = newest.filter(|newest| newest.commit().sequence <= head.sequence);
        let is_due = newest.is_none_or(|newest| {
            let commits = head.sequence.saturating_sub(newest.commit().sequence);
            commits >= self.commits || (commits > 0 && now.saturating_sub(newest.made()) >= self.age)
        });
        if !is_due {
            return Ok(None);
        }
        let chain = found.iter().rev().take_while(|(_, info)| info.kind() == SnapshotKind::Increment).count();
        let base = newest.filter(|_| chain < self.increments && self.is_chained(&found, chain)).cloned();
        let made = match self.make(larder, base, head.sequence) {
            // The feed does not reach back, or the store is not the one that it was: a chain begins.
            Err(error)
                if matches!(error.kind(), ErrorKind::Lagged { .. } | ErrorKind::SnapshotMismatch { .. }) =>
            {
                self.make(larder, None, head.sequence)?
            }
            made => made?,
        };
        self.remove_old_chains(larder)?;
        Ok(Some(made))
    }

    fn make(
        &self,
        larder: &Larder,
        base: Option<SnapshotInfo>,
        sequence: u64,
    ) -> Result<(PathBuf, SnapshotReport)> {
        let kind = if base.is_some() { SnapshotKind::Increment } else { SnapshotKind::Full };
        let path = self.folder.join(format!("{sequence:020}-{kind}.{EXTENSION}"));
        let options = match base {
            Some(base) => self.options.clone().since(base),
            None => self.options.clone(),
        };
        larder.snapshot(&path, &options).map(|report| (path, report))
    }

    /// Tells whether the newest snapshots are one chain that can be gone on with.
    fn is_chained(&self, found: &[(PathBuf, SnapshotInfo)], increments: usize) -> bool {
        let Some(chain) = found.len().checked_sub(increments + 1).and_then(|begin| found.get(begin..)) else {
            return false;
        };
        chain.windows(2).all(|pair| match pair {
            [(_, before), (_, next)] => next.follows(before),
            _ => true,
        })
    }

    fn remove_old_chains(&self, larder: &Larder) -> Result<()> {
        let found = self.snapshots(larder)?;
        let fulls = found.iter().filter(|(_, info)| info.kind() == SnapshotKind::Full).count();
        let mut to_skip = fulls.saturating_sub(self.chains);
        for (path, info) in found {
            if info.kind() == SnapshotKind::Full {
                if to_skip == 0 {
                    return Ok(());
                }
                to_skip -= 1;
            }
            std::fs::remove_file(&path)
                .map_err(|error| -> Error { io_error("removing an old snapshot", error) })?;
        }
        Ok(())
    }
}
