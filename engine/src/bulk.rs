//! Bulk loading: many assets, in the order of their keys, in commits of a good size.
//!
//! What costs most when many assets come in no order is that each of them changes another page of the tree. A bulk load
//! collects them, sorts them, and puts them run by run; a page is then written once, not once for every asset in it.

use larder_format::Key;

use crate::commit::Durability;
use crate::edit::{Draft, IntoKey};
use crate::error::{Action, Error, Result};
use crate::session::Session;
use crate::txn::Ready;

/// How much is collected before it is sorted and put, in bytes, if nothing else is asked for.
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// How many assets go into one commit at most: other writers have their turn in between.
const ASSETS_A_COMMIT: usize = 4_096;
/// How many bytes go into one commit, about.
const BYTES_A_COMMIT: usize = 4 << 20;
/// What an asset takes beside its payload while it waits, in bytes, about.
const ASSET_OVERHEAD: usize = 640;
/// How many refusals are kept.
const REFUSALS_MAX: usize = 1_000;

/// What a bulk load did.
#[derive(Debug, Clone, Default)]
#[must_use]
#[non_exhaustive]
pub struct BulkReport {
    /// How many assets were stored.
    pub stored: u64,
    /// How many were refused.
    pub refused: u64,
    /// The first 1 000 of those, each with why, in the order of keys within a run.
    pub refusals: Vec<(Key, Error)>,
    /// How many commits it took.
    pub commits: u64,
    /// How many sorted runs: 1 if everything fit into memory.
    pub runs: u64,
}

/// A bulk load: assets are collected by [`put`](Bulk::put), and stored in the order of their keys. Those of a key that
/// comes twice are stored in the order in which they came.
///
/// It is not one transaction: every asset is checked as any other and stands for itself; others read what is stored
/// already, and write in between. On disk is all of it when [`finish`](Bulk::finish) returns. A load that is dropped
/// without it leaves what it has stored, and loses what it has not.
#[derive(Debug)]
pub struct Bulk {
    session: Session,
    memory_bytes_max: usize,
    waiting: Vec<Waiting>,
    bytes: usize,
    report: BulkReport,
}

struct Waiting {
    key: Key,
    draft: Draft,
    ready: Ready,
    bytes: usize,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Bulk {
    pub(crate) fn new(session: &Session) -> Self {
        Self {
            session: session.clone().durability(Durability::Lazy),
            memory_bytes_max: MEMORY_BYTES_MAX,
            waiting: Vec::new(),
            bytes: 0,
            report: BulkReport::default(),
        }
    }

    /// Sets how many bytes are collected before they are sorted and stored; 256 MiB by default. Payloads from 1 MiB on
    /// do not count: they are staged in the store.
    #[must_use]
    pub fn memory_bytes_max(mut self, bytes: usize) -> Self {
        self.memory_bytes_max = bytes;
        self
    }

    /// Takes an asset in. Whatever can be done about it now is done: it is hashed, compressed, and staged if it is
    /// large. If the caller may not write there, or it is too large, or its file cannot be read, that is in the report.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey), and the load goes on. The load is over after
    /// [`Busy`](crate::ErrorKind::Busy), [`StoreFull`](crate::ErrorKind::StoreFull), [`Io`](crate::ErrorKind::Io) if
    /// what was collected could not be stored.
    pub fn put(&mut self, key: impl IntoKey, draft: impl Into<Draft>) -> Result<()> {
        let (key, mut draft) = (key.into_key()?, draft.into());
        let ready = match self.session.ready(&key, &mut draft) {
            Ok(ready) => ready,
            Err(error) if is_refusal(&error) => {
                self.report.refuse(key, error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let bytes =
            ASSET_OVERHEAD + 2 * key.as_str().len() + ready.bytes_in_memory() + draft.metadata.bytes();
        self.bytes += bytes;
        self.waiting.push(Waiting { key, draft, ready, bytes });
        if self.bytes >= self.memory_bytes_max { self.run() } else { Ok(()) }
    }

    /// Stores what is left, puts everything on disk, and tells how it went.
    ///
    /// # Errors
    /// As [`Bulk::put`]; what was stored until then stays.
    pub fn finish(mut self) -> Result<BulkReport> {
        self.run()?;
        self.session.flush()?;
        Ok(self.report)
    }

    /// Sorts and stores what was collected.
    fn run(&mut self) -> Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        self.report.runs += 1;
        waiting.sort_by(|a, b| a.key.cmp(&b.key));
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            let (session, report) = (&self.session, &mut self.report);
            let commit = session.write(|txn| {
                let (mut count, mut bytes) = (0, 0);
                let mut outcomes = BulkReport::default();
                while count < ASSETS_A_COMMIT
                    && bytes.max(txn.bytes()) < BYTES_A_COMMIT
                    && let Some(Waiting { key, draft, ready, bytes: its_bytes }) = waiting.next()
                {
                    count += 1;
                    bytes += its_bytes;
                    match txn.apply_ready(&key, &draft, ready, &[]) {
                        Ok(_) => outcomes.stored += 1,
                        Err(error) if is_refusal(&error) => outcomes.refuse(key, error),
                        Err(error) => return Err(error),
                    }
                }
                Ok(outcomes)
            })?;
            report.commits += 1;
            report.add(commit.value);
        }
        Ok(())
    }
}

/// Tells whether an error is about the asset alone.
fn is_refusal(error: &Error) -> bool {
    error.key().is_some() && matches!(error.action(), Action::CorrectTheArgument | Action::AskForAccess)
}

impl BulkReport {
    fn add(&mut self, other: Self) {
        self.stored += other.stored;
        self.refused += other.refused;
        let room = REFUSALS_MAX.saturating_sub(self.refusals.len());
        self.refusals.extend(other.refusals.into_iter().take(room));
    }

    fn refuse(&mut self, key: Key, error: Error) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push((key, error));
        }
    }
}
