//! A payload that has been hashed, compressed and cut before any transaction is asked to take it.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::ContentHash;

use super::{ChunkSink, Encoded, Written};
use crate::commit::Commit;
use crate::error::{ErrorKind, Result};
use crate::store::StagedRow;

/// Payloads up to this length lie in the row of their record. Measured: see docs/decisions/0012.
pub(crate) const INLINE_LENGTH_MAX: usize = 512;
/// Payloads above this length are staged ahead of their transaction, so that they do not hold up other writers.
pub(crate) const STAGED_LENGTH_MIN: u64 = 1 << 20;
/// How much is staged in one go, in bytes: the longest that another writer waits for. Four of the longest rows.
const STAGED_AT_ONCE: usize = (4 << 20) - 4 * 32;
/// How much is staged before it is pushed to the disk, in bytes, so that no commit has to wait for all of it.
const STAGED_BEFORE_SYNC: usize = 32 << 20;
/// How much of the beginning of a payload is kept to look at.
pub(crate) const HEAD_LENGTH: usize = 512;

/// A payload on its way into the store: hashed, and where it is large, lying there already.
///
/// Dropping it without putting it gives its space back.
pub struct Prepared(pub(crate) PreparedBody);

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepared({} bytes)", self.length())
    }
}

pub(crate) enum PreparedBody {
    Inline { payload: Bytes, hash: ContentHash },
    Chunked { encoded: Encoded, head: Bytes },
    Staged { written: Written, head: Bytes, staged: Staged },
}

impl Prepared {
    /// Gives the length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match &self.0 {
            PreparedBody::Inline { payload, .. } => payload.len() as u64,
            PreparedBody::Chunked { encoded, .. } => encoded.written.length,
            PreparedBody::Staged { written, .. } => written.length,
        }
    }

    /// Gives the digest.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        match &self.0 {
            PreparedBody::Inline { hash, .. } => *hash,
            PreparedBody::Chunked { encoded, .. } => encoded.written.hash,
            PreparedBody::Staged { written, .. } => written.hash,
        }
    }

    /// Gives the beginning, up to 512 bytes or more.
    pub(crate) fn head(&self) -> &Bytes {
        match &self.0 {
            PreparedBody::Inline { payload, .. } => payload,
            PreparedBody::Chunked { head, .. } | PreparedBody::Staged { head, .. } => head,
        }
    }
}

/// Chunks that lie in the store under an id that nothing refers to yet.
#[derive(Debug)]
pub(crate) struct Staged {
    commit: Arc<Commit>,
    id: u64,
    is_used: bool,
    bytes: usize,
    /// How often the file had been opened again when the first of it was written.
    reopened: u64,
}

impl Staged {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Refuses what was written for another store, or is not there any more.
    pub(crate) fn check(&self, commit: &Arc<Commit>) -> Result<()> {
        if !Arc::ptr_eq(&self.commit, commit) {
            let expected = "a payload that was prepared by this store since it was opened".to_owned();
            let got = "one of another store, or of another opening of this one".to_owned();
            return Err(ErrorKind::InvalidArgument { argument: "prepared", expected, got }.into());
        }
        if self.reopened == commit.store().reopened() { Ok(()) } else { Err(ErrorKind::Interrupted.into()) }
    }

    /// Says that a record refers to the chunks now.
    pub(crate) fn keep(mut self) {
        self.is_used = true;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        self.commit.note_refused(self.bytes);
        if let Err(error) = self.commit.store().unstage(&[self.id]) {
            crate::trace::trouble("a staged payload is reclaimed at the next start only", Some(&error));
        }
    }
}

/// Keeps chunks in memory, and writes them out in goes once they are too many.
pub(crate) struct StagingSink {
    rows: Vec<StagedRow>,
    bytes: usize,
    unsynced: usize,
    started: i64,
    staged: Option<Staged>,
    commit: Arc<Commit>,
    id: u64,
}

impl StagingSink {
    pub(crate) fn new(commit: Arc<Commit>, id: u64, started: i64) -> Self {
        Self { rows: Vec::new(), bytes: 0, unsynced: 0, started, staged: None, commit, id }
    }

    fn write_out(&mut self) -> Result<()> {
        self.commit.look_for_room_now_and_then(self.bytes as u64);
        if let Some(room) = self.commit.no_room(|| 0) {
            return Err(room.refusal());
        }
        let reopened = self.commit.store().reopened();
        let written = self.commit.store().stage(self.id, self.started, &self.rows);
        written.inspect_err(|error| self.commit.fail(error))?;
        let staged = self.staged.get_or_insert_with(|| Staged {
            commit: Arc::clone(&self.commit),
            id: self.id,
            is_used: false,
            bytes: 0,
            reopened,
        });
        staged.bytes += self.bytes;
        self.unsynced += self.bytes;
        self.rows.clear();
        self.bytes = 0;
        if self.unsynced >= STAGED_BEFORE_SYNC {
            self.commit.store().push_to_disk()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Gives what was written: chunks in memory if they are few, or what lies in the store.
    pub(crate) fn finish(mut self, written: Written, head: Bytes) -> Result<Prepared> {
        if self.staged.is_none() && written.length < STAGED_LENGTH_MIN {
            let chunks =
                std::mem::take(&mut self.rows).into_iter().map(|row| (row.number, row.body)).collect();
            return Ok(Prepared(PreparedBody::Chunked { encoded: Encoded { written, chunks }, head }));
        }
        if !self.rows.is_empty() || self.staged.is_none() {
            self.write_out()?;
        }
        // Views from here on have the chunks: of a transaction that reads what it put, and of those after it.
        self.commit.refresh()?;
        match self.staged.take() {
            Some(staged) => Ok(Prepared(PreparedBody::Staged { written, head, staged })),
            None => Err(crate::store::corrupt("a staged payload was lost")),
        }
    }
}

impl ChunkSink for StagingSink {
    fn put(&mut self, number: u64, body: Bytes) -> Result<()> {
        self.bytes += body.len();
        self.rows.push(StagedRow { number, body });
        if self.bytes >= STAGED_AT_ONCE { self.write_out() } else { Ok(()) }
    }
}
