//! Snapshots: a store at one commit, or what changed in it since, as a file that anybody can check without the store.
//!
//! ```text
//! store ─▶ plan ─▶ operations ─▶ pieces ─▶ file ─▶ pieces ─▶ operations ─▶ a new store
//!          what     in order     framed by          compared     loaded, what is derived derived again
//!          goes in               workers            by workers
//! ```
//!
//! A full snapshot has all rows. An increment has the rows of what the feed names since the commit that it builds on,
//! and small tables as a whole; what is derived from records is left out, and derived again when it is restored. Snapshots
//! are chained by the identity of the state that they end with.

mod frame;
mod in_order;
mod plan;
mod policy;
mod read;
mod restore;
mod write;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_format::{Key, Micros, Position, Prefix, SnapshotHeader, SnapshotKind};

use crate::clock::{IdSource, RandomIds};
use crate::commit::CommitInfo;
use crate::edit::IntoPlace;
use crate::error::{Error, ErrorKind, Result};
use crate::larder::{Larder, ReaderToken};
use crate::store::{FORMAT_VERSION, Table, write_new_file};

pub use policy::SnapshotPolicy;
pub(crate) use restore::begin_epoch;
pub use restore::{RestoreOptions, RestoreReport, restore};

/// Is told how many bytes of rows were worked through, and says whether to go on.
pub type Watch = Arc<dyn Fn(u64) -> ControlFlow<()> + Send + Sync>;

pub(crate) fn watched(watch: Option<&Watch>, bytes: u64) -> Result<()> {
    match watch.map(|watch| watch(bytes)) {
        Some(ControlFlow::Break(())) => {
            Err(ErrorKind::Aborted { what: "it was cancelled".to_owned() }.into())
        }
        _ => Ok(()),
    }
}

/// How a snapshot is made. By default all of the store, by one thread beside the caller's, compressed quickly.
#[derive(Clone)]
pub struct SnapshotOptions {
    threads: usize,
    level: i32,
    prefix: Prefix,
    since: Option<SnapshotInfo>,
    watch: Option<Watch>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { threads: 1, level: 1, prefix: Prefix::root(), since: None, watch: None }
    }
}

impl std::fmt::Debug for SnapshotOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotOptions").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl SnapshotOptions {
    /// Makes the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses on this many threads beside the one that reads; at least 1. The bytes do not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets the level of zstd, from 1 (the default) to 19.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.level = level.clamp(1, 19);
        self
    }

    /// Takes only the assets at and below a place, with documents, and without feed, audit, claims and idempotency keys.
    /// What it is restored to is another store.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey).
    pub fn below(mut self, place: impl IntoPlace) -> Result<Self> {
        self.prefix = place.into_place()?;
        Ok(self)
    }

    /// Takes everything.
    fn of_everything(self) -> Self {
        Self { prefix: Prefix::root(), since: None, ..self }
    }

    /// Takes only what changed since another snapshot of the store, which has to be full, or an increment itself.
    #[must_use]
    pub fn since(mut self, base: SnapshotInfo) -> Self {
        self.since = Some(base);
        self
    }

    /// Tells how far it is here; the answer can be to give up, which leaves nothing.
    #[must_use]
    pub fn watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo(SnapshotHeader);

impl SnapshotInfo {
    /// How much of the store it has.
    #[must_use]
    pub fn kind(&self) -> SnapshotKind {
        self.0.kind
    }

    /// The id of the store.
    #[must_use]
    pub fn store_id(&self) -> u128 {
        u128::from_be_bytes(self.0.store_id)
    }

    /// When it was made.
    #[must_use]
    pub fn made(&self) -> Micros {
        self.0.made
    }

    /// The commit that it ends with.
    #[must_use]
    pub fn commit(&self) -> CommitInfo {
        self.0.head.into()
    }

    /// The identity of the state that it ends with, in hexadecimal digits.
    #[must_use]
    pub fn state(&self) -> String {
        self.0.head.identity.to_string()
    }

    /// The commit that an increment builds on.
    #[must_use]
    pub fn base(&self) -> Option<CommitInfo> {
        (self.0.kind == SnapshotKind::Increment).then(|| self.0.base.into())
    }

    /// The place whose assets it has, if it has not all.
    #[must_use]
    pub fn prefix(&self) -> Option<Key> {
        Key::decode(&self.0.prefix).ok()
    }

    /// Tells whether this one is the increment that goes on where another ends.
    #[must_use]
    pub fn follows(&self, base: &Self) -> bool {
        self.0.kind == SnapshotKind::Increment
            && base.0.kind != SnapshotKind::Prefix
            && (self.0.store_id, self.0.base) == (base.0.store_id, base.0.head)
    }
}

/// A snapshot that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// What it is of: what an increment that goes on from here is made [`since`](SnapshotOptions::since).
    pub info: SnapshotInfo,
    /// How many rows it has, or removals of such.
    pub rows: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The length of what it decompresses to.
    pub content_bytes: u64,
}

/// What a snapshot has that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotContents {
    /// What it is of.
    pub info: SnapshotInfo,
    /// How many records it has.
    pub records: u64,
    /// How many rows it has, or removals of such.
    pub rows: u64,
    /// The length of what it decompresses to.
    pub content_bytes: u64,
}

impl Larder {
    /// Writes a snapshot to a file that is not there yet, while others read and write: the store as it is when it begins, and
    /// all of that is on disk then. It is there whole or not at all, for those who may use the file of the store.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists); [`StoreFull`](ErrorKind::StoreFull), [`Io`](ErrorKind::Io);
    /// [`Corrupt`](ErrorKind::Corrupt): what is damaged goes into no snapshot; [`Aborted`](ErrorKind::Aborted) if it was
    /// cancelled. Of an increment: [`SnapshotMismatch`](ErrorKind::SnapshotMismatch) if the base is not of this store, and
    /// [`Lagged`](ErrorKind::Lagged) if the feed does not reach back to it.
    pub fn snapshot(&self, to: impl AsRef<Path>, options: &SnapshotOptions) -> Result<SnapshotReport> {
        let (mut report, like) = (None, self.shared().commit.store().path());
        write_new_file(to.as_ref(), like.as_deref(), &mut |out| {
            report = Some(self.write_snapshot(out, options)?);
            Ok(())
        })?;
        report.inspect(|report| self.note_snapshot(report)).ok_or_else(|| Error::from(ErrorKind::Closed))
    }

    /// Writes a snapshot to wherever the caller says.
    ///
    /// # Errors
    /// As [`Larder::snapshot`]. What was written before an error is no snapshot, and is known as none.
    pub fn snapshot_into(&self, out: &mut dyn Write, options: &SnapshotOptions) -> Result<SnapshotReport> {
        self.write_snapshot(out, options).inspect(|report| self.note_snapshot(report))
    }

    /// Counts from it on, if it has everything.
    fn note_snapshot(&self, report: &SnapshotReport) {
        if report.info.kind() != SnapshotKind::Prefix {
            *self.shared().snapshot_taken.lock() = Some(report.info.commit().sequence);
        }
    }

    /// Tells how many commits there were since the last snapshot that was made since the store was opened; nothing if none
    /// was. A [`SnapshotPolicy`] also knows of those before.
    #[must_use]
    pub fn commits_since_snapshot(&self) -> Option<u64> {
        let shared = self.shared();
        let taken = (*shared.snapshot_taken.lock())?;
        Some(shared.commit.committed_view().ok()?.head().sequence.saturating_sub(taken))
    }

    fn write_snapshot(&self, out: &mut dyn Write, options: &SnapshotOptions) -> Result<SnapshotReport> {
        let shared = self.shared();
        shared.observed("snapshot", options.prefix.as_str(), || {
            let commit = &shared.commit;
            commit.bring_in()?;
            if commit.check_writable().is_ok() {
                // What a loss of power may take is in no snapshot: an increment on it would miss what came in its place.
                commit.flush()?;
            }
            let _token = ReaderToken::of_snapshot(shared);
            let snapshot = Arc::clone(commit.committed_view()?.snapshot());
            let (head, store) = (snapshot.head()?, commit.store());
            let audit_next = snapshot.get(Table::State, crate::store::state_key::AUDIT_NEXT)?;
            let audit_next =
                audit_next.and_then(|row| row.first_chunk().map(|next| u64::from_le_bytes(*next)));
            let mut header = SnapshotHeader {
                kind: SnapshotKind::Full,
                format: FORMAT_VERSION,
                made: shared.clock.now(),
                created: store.identity().created,
                store_id: store.identity().store_id,
                head,
                base: Position::default(),
                audit_next: audit_next.unwrap_or(0),
                prefix: options.prefix.encoded().to_vec(),
            };
            let parts = match &options.since {
                Some(SnapshotInfo(base)) => {
                    check_base(base, &header, &options.prefix)?;
                    (header.kind, header.base) = (SnapshotKind::Increment, base.head);
                    plan::since(&snapshot, &base.head, base.audit_next)?
                }
                None if options.prefix.is_root() => plan::full(&snapshot)?,
                None => {
                    header.kind = SnapshotKind::Prefix;
                    plan::below(&snapshot, &options.prefix)?
                }
            };
            let operations = plan::Operations::new(snapshot, parts);
            let watch = options.watch.as_ref();
            let written = write::write(&header, operations, out, (options.threads, options.level), watch)?;
            let (rows, bytes, content_bytes) = (written.rows, written.bytes, written.content_bytes);
            Ok(SnapshotReport { info: SnapshotInfo(header), rows, bytes, content_bytes })
        })
    }
}

fn check_base(base: &SnapshotHeader, of: &SnapshotHeader, prefix: &Prefix) -> Result<()> {
    let mismatch = |what: &str| Err(ErrorKind::SnapshotMismatch { what: what.to_owned() }.into());
    if base.store_id != of.store_id {
        mismatch("the one to build on is of another store")
    } else if base.head.sequence == of.head.sequence && base.head.identity != of.head.identity {
        mismatch("the one to build on ends with another commit of the same number")
    } else if base.kind == SnapshotKind::Prefix || !prefix.is_root() {
        mismatch("an increment has everything that changed, and builds on a snapshot of everything")
    } else {
        Ok(())
    }
}

/// A snapshot in a file.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    info: SnapshotInfo,
}

impl SnapshotFile {
    /// Looks at a file, and reads what it is a snapshot of.
    ///
    /// # Errors
    /// [`NoSuchFile`](ErrorKind::NoSuchFile), [`SnapshotDamaged`](ErrorKind::SnapshotDamaged),
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        Ok(Self { info: SnapshotInfo(read::header_of(&path)?), path })
    }

    /// Gives what it is a snapshot of. [`verify`](SnapshotFile::verify) tells whether it has that.
    #[must_use]
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Reads all of it: every digest, every checksum, the order and the number of the rows. Needs no store, and memory for
    /// some pieces a thread.
    ///
    /// # Errors
    /// [`SnapshotDamaged`](ErrorKind::SnapshotDamaged), [`Io`](ErrorKind::Io), [`Aborted`](ErrorKind::Aborted).
    pub fn verify(&self, threads: usize, watch: Option<&Watch>) -> Result<SnapshotContents> {
        let (header, manifest) = read::read(&self.path, threads, watch, |_| Ok(()))?;
        let sum = |of: fn(&(u64, u64)) -> u64| manifest.tables.values().map(of).sum();
        let records = manifest.tables.get(&Table::Records.number()).map_or(0, |(count, _)| *count);
        let (rows, content_bytes) = (sum(|(count, _)| *count), sum(|(_, bytes)| *bytes));
        Ok(SnapshotContents { info: SnapshotInfo(header), records, rows, content_bytes })
    }

    /// Reads all of it, and hands every record to `each`, in the order of their keys; nothing where an increment says that
    /// it was removed.
    ///
    /// # Errors
    /// As [`SnapshotFile::verify`]. What was handed on counts only if this is `Ok`.
    pub fn records(&self, each: &mut dyn FnMut(Key, Option<larder_format::Record>)) -> Result<()> {
        use larder_format::Operation;
        read::read(&self.path, 1, None, |operations| {
            for operation in operations {
                let (table, key) = operation.place();
                if table != Table::Records.number() {
                    continue;
                }
                let Ok(key) = Key::decode(key) else {
                    return Err(read::damaged("a key is malformed"));
                };
                match operation {
                    Operation::Put { value, .. } => {
                        let body = value.get(larder_format::CHECKSUM_LENGTH..).unwrap_or_default();
                        each(key, Some(larder_format::Record::in_place(body)?.0.to_record()));
                    }
                    Operation::Delete { .. } => each(key, None),
                    Operation::DeleteRange { .. } => {}
                }
            }
            Ok(())
        })
        .map(drop)
    }
}

/// Gives an id for another store.
pub(crate) fn fresh_id() -> [u8; 16] {
    RandomIds.next_id().to_be_bytes()
}
