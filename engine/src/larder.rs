//! The store as an application holds it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use larder_format::{Micros, Retention, Right};
use parking_lot::Mutex;

use crate::authorizer::{Caller, Hooks, Place as KeyPlace};
use crate::cache::CacheStatistics;
use crate::clock::Clock;
use crate::commit::{Commit, CommitInfo, RecoveryReport};
use crate::documents::DocumentKind;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::latency::Latencies;
use crate::options::{Options, SlowOperation};
use crate::primitives::{AuditBuffer, AuditEntry, Statistics, StatisticsMap};
use crate::retention::{self, RetentionReport};
use crate::session::Session;
use crate::store::{Place, Store, Table, UpgradeReport, state_key};
use crate::sweep::{self, Due, SweepOptions, SweepReport, Sweeper};
use crate::trace;
use crate::txn::View;
use crate::upkeep::{Upkeep, UpkeepReport};
use crate::verify::{VerifyReport, verify};

/// A store of assets in one file. Cheap to clone; everything is done through sessions.
///
/// The last handle to go closes the store; [`Larder::close`] does it and tells how it went.
#[derive(Clone)]
pub struct Larder {
    // Goes first, while there is still a store to write to.
    upkeep: Arc<Upkeep>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Larder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Larder").field("path", &self.shared.commit.store().path()).finish_non_exhaustive()
    }
}

/// What all handles of a store share.
pub(crate) struct Shared {
    pub(crate) commit: Arc<Commit>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) audit: AuditBuffer,
    pub(crate) settings: Options,
    /// Whoever does what follows from others' changes.
    pub(crate) system: Caller,
    readers: Arc<Readers>,
    /// The commit that the last snapshot ends with.
    pub(crate) snapshot_taken: Mutex<Option<u64>>,
    /// Who tells how he is when the store is asked.
    pub(crate) layers: crate::health::Layers,
    /// How long what took.
    pub(crate) latencies: Latencies,
    next_payload: AtomicU64,
}

/// What was read from and written to a file since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InputOutput {
    /// How many reads.
    pub reads: u64,
    /// How many writes.
    pub writes: u64,
    /// How many bytes were written.
    pub bytes_written: u64,
    /// How many syncs.
    pub syncs: u64,
    /// Whether a write found no room.
    pub is_full: bool,
    /// How many writes to the commit log.
    pub log_writes: u64,
    /// How many bytes were written to the commit log.
    pub log_bytes_written: u64,
    /// How many syncs of the commit log.
    pub log_syncs: u64,
    /// How many bytes of the commit log hold commits that are not on disk in the file itself.
    pub log_bytes: u64,
}

/// What a store is, and how much is in it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Info {
    /// The path of the file, if there is one.
    pub path: Option<std::path::PathBuf>,
    /// The format version of the file: that which was found, where it is read only and was upgraded in memory.
    pub format: u32,
    /// The store's id.
    pub store_id: u128,
    /// When the file was made.
    pub created: Micros,
    /// The newest commit.
    pub last_commit: CommitInfo,
    /// The identity of the state, in hexadecimal digits.
    pub state: String,
    /// The length of the file in bytes.
    pub file_bytes: u64,
    /// What was read from and written to the file since it was opened.
    pub input_output: InputOutput,
    /// How well the cache of records does.
    pub cache: CacheStatistics,
    /// How much of what there is.
    pub statistics: Statistics,
    /// The version of the rules; 0 if none were set, and everything is allowed.
    pub rules_version: u64,
    /// How many rules there are.
    pub rules: usize,
    /// What the rules do where none applies: `allow` or `deny`.
    pub rules_default: &'static str,
    /// How many size limits there are.
    pub limits: usize,
    /// How many readers are open.
    pub readers: usize,
    /// When the oldest reader was opened.
    pub oldest_reader: Option<Micros>,
}

impl Larder {
    /// Opens a file, or makes it if it is not there.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    pub(crate) fn start(options: Options, place: Place<'_>) -> Result<Self> {
        let store = Store::open(
            place,
            options.cache_bytes - options.cache_of_records(),
            options.clock.now(),
            options.ids.next_id().to_be_bytes(),
        )?;
        let (waker, wakes) = crossbeam_channel::bounded(1);
        let commit = Arc::new(Commit::new(store, &options, waker)?);
        let shared = Arc::new(Shared {
            clock: Arc::clone(&options.clock),
            hooks: Arc::new(options.hooks.clone()),
            audit: AuditBuffer::default(),
            readers: Arc::default(),
            snapshot_taken: Mutex::default(),
            layers: crate::health::Layers::default(),
            latencies: Latencies::default(),
            next_payload: AtomicU64::new(next_payload_id(&commit)?),
            settings: options,
            system: Caller::root()?,
            commit,
        });
        reclaim(&shared.commit)?;
        let upkeep = Arc::new(Upkeep::start(&shared, wakes)?);
        Ok(Self { shared, upkeep })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Gives a session for a principal, which the application has identified.
    ///
    /// # Errors
    /// [`InvalidName`](ErrorKind::InvalidName) if it is not one segment of a key, or `root`.
    pub fn session(&self, principal: &str) -> Result<Session> {
        Ok(Session::new(&self.shared, &self.upkeep, Caller::named(principal, [])?))
    }

    /// Gives the session of the file's holder, to whom no rule applies.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn root(&self) -> Result<Session> {
        Ok(Session::new(&self.shared, &self.upkeep, Caller::root()?))
    }

    /// Gives how much of what there is, without a scan.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Corrupt`](ErrorKind::Corrupt).
    pub fn statistics(&self) -> Result<Statistics> {
        statistics_in(&self.shared.commit.committed_view()?)
    }

    /// Gives what the store is, and how much is in it, without a scan.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Corrupt`](ErrorKind::Corrupt).
    pub fn info(&self) -> Result<Info> {
        let view = self.shared.commit.committed_view()?;
        let (head, store) = (*view.head(), self.shared.commit.store());
        let documents = self.shared.commit.documents();
        let (readers, oldest_reader) = self.shared.readers.count();
        Ok(Info {
            path: store.path(),
            format: store.identity().format,
            store_id: u128::from_be_bytes(store.identity().store_id),
            created: store.identity().created,
            last_commit: head.into(),
            state: head.identity.to_string(),
            file_bytes: store.backend_state().length(),
            input_output: self.shared.commit.input_output(),
            cache: self.shared.commit.cache_statistics(),
            statistics: statistics_in(&view)?,
            rules_version: documents.get(DocumentKind::Rules).version,
            rules: documents.rules.rules().len(),
            rules_default: documents.rules.default_effect().as_str(),
            limits: documents.limits.limit_count(),
            readers,
            oldest_reader,
        })
    }

    /// Recounts everything, and names what does not agree. Reads every record and every payload.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed); damage is a finding, not an error, as far as the file can be read at all.
    pub fn verify(&self, progress: &mut dyn FnMut(&VerifyReport)) -> Result<VerifyReport> {
        let commit = &self.shared.commit;
        self.shared.observed("verify", "", || {
            // Nothing that lies over the store then hides what is in it.
            commit.bring_in()?;
            verify(commit.committed_view()?.snapshot(), &commit.documents(), progress)
        })
    }

    /// Tells what was found beside the file when it was opened: nothing, if it was closed cleanly.
    #[must_use]
    pub fn recovery(&self) -> Option<&RecoveryReport> {
        self.shared.commit.recovery()
    }

    /// Tells how the file was upgraded when it was opened; nothing, if it had the current format.
    #[must_use]
    pub fn upgraded(&self) -> Option<&UpgradeReport> {
        self.shared.commit.upgrade()
    }

    /// Puts everything that is visible on disk.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`StoreFull`](ErrorKind::StoreFull), [`Closed`](ErrorKind::Closed).
    pub fn flush(&self) -> Result<()> {
        self.shared.observed("flush", "", || self.shared.commit.flush())
    }

    /// Does what is due at a time: flushes, writes the audit, trims what is past its retention. The store's own
    /// thread calls it; with [`Options::inline`] the caller does.
    ///
    /// # Errors
    /// As a write.
    pub fn upkeep(&self, now: Micros) -> Result<UpkeepReport> {
        crate::upkeep::run(&self.shared, now)
    }

    /// Removes what rules of retention say is too old, too many or too large, oldest first, in bounded transactions; or,
    /// if it is only asked for, says what would go. What is pinned, what nothing makes again (unless a rule names its
    /// status), what is claimed, and what claimed assets were made from stays. What a recipe makes goes back to it.
    ///
    /// # Errors
    /// As a write; what went before an error is gone.
    pub fn retain(&self, retention: &Retention, only_say: bool) -> Result<RetentionReport> {
        self.shared.observed("retain", "", || {
            let view = self.root()?.snapshot()?;
            let report = retention::plan(&view, retention, self.shared.clock.now())?;
            drop(view);
            if only_say { Ok(report) } else { retention::carry_out(&self.shared, report) }
        })
    }

    /// Lets go of what is too much or too old in the history of all keys, by the limits that are in force; tells how many
    /// keys had some.
    ///
    /// # Errors
    /// As a write.
    pub fn prune_history(&self) -> Result<u64> {
        self.shared.observed("prune_history", "", || crate::upkeep::prune_history(&self.shared))
    }

    /// Gives what is due at a time, earliest first: assets that expire, claims that are past their time. Changes nothing.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Corrupt`](ErrorKind::Corrupt).
    pub fn due(&self, now: Micros, limit: usize) -> Result<Vec<Due>> {
        sweep::due(&self.shared.commit.committed_view()?, now, limit)
    }

    /// Gives the earliest deadline there is, due or not.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Corrupt`](ErrorKind::Corrupt).
    pub fn next_deadline(&self) -> Result<Option<Due>> {
        sweep::next(&self.shared.commit.committed_view()?)
    }

    /// Does what [`due`](Larder::due) gave, as far as it is due still, in one transaction.
    ///
    /// # Errors
    /// As a write.
    pub fn fire(&self, due: &[Due]) -> Result<SweepReport> {
        self.shared.observed("fire", "", || sweep::fire(&self.shared, due))
    }

    /// Marks what is past its time now, up to a limit, in one transaction; in several where one would be too large. An asset with
    /// which too much would expire is passed over, and counted.
    ///
    /// # Errors
    /// As a write.
    pub fn sweep(&self, limit: usize) -> Result<SweepReport> {
        self.shared.observed("sweep", "", || sweep::sweep(&self.shared, self.shared.clock.now(), limit))
    }

    /// Starts a thread that sweeps, until it is stopped or dropped, or the store is closed.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if the thread cannot be started.
    pub fn sweeper(&self, options: SweepOptions) -> Result<Sweeper> {
        Sweeper::start(&self.shared, options)
    }

    /// Tells whether the file that is open still has its name: if it was deleted or replaced, what is written goes
    /// with the last handle.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        self.shared.commit.store().is_still_there()
    }

    /// Waits for the transaction at work, puts everything on disk and closes the store. Every other handle gets
    /// [`Closed`](ErrorKind::Closed) from now on.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`StoreFull`](ErrorKind::StoreFull) if something could not be put on disk;
    /// [`Nested`](ErrorKind::Nested) inside a write transaction.
    pub fn close(self) -> Result<()> {
        self.shared.commit.sequencer().check_not_nested()?;
        let kept = self.shared.write_audit();
        self.upkeep.stop();
        self.shared.commit.close().and(kept)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.commit.close() {
            trace::trouble("the store was not closed cleanly", Some(&error));
        }
    }
}

impl Shared {
    /// Gives how many read, and since when the oldest does.
    pub(crate) fn readers(&self) -> (usize, Option<Micros>) {
        self.readers.count()
    }

    /// Gives how many snapshots are being made.
    pub(crate) fn snapshots_at_work(&self) -> usize {
        self.readers.open.lock().values().filter(|reader| reader.is_snapshot).count()
    }

    /// Gives how many bytes of the file those who read keep from being used again, at most.
    pub(crate) fn pinned(&self) -> u64 {
        let state = self.commit.store().backend_state();
        let oldest = self.readers.open.lock().values().map(|reader| reader.written).min();
        oldest.map_or(0, |written| state.bytes_written().saturating_sub(written).min(state.used()))
    }

    /// Gives the number of a new payload.
    pub(crate) fn next_payload_id(&self) -> u64 {
        self.next_payload.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets the store's thread know that there is something to do.
    pub(crate) fn wake(&self) {
        self.commit.hurry();
    }

    /// Runs an operation under a span, notes how long it took, and reports it if it was slow.
    pub(crate) fn observed<R, E>(
        &self,
        operation: &'static str,
        place: &str,
        act: impl FnOnce() -> Result<R, E>,
    ) -> Result<R, E> {
        let _span = trace::operation(operation, place);
        self.timed(operation, place, act)
    }

    /// Runs an operation whose span was begun, notes how long it took, and reports it if it was slow.
    pub(crate) fn timed<R, E>(
        &self,
        operation: &'static str,
        place: &str,
        act: impl FnOnce() -> Result<R, E>,
    ) -> Result<R, E> {
        let began = self.clock.now();
        let result = act();
        let micros = self.clock.now().saturating_sub(began);
        self.latencies.note(operation, micros, result.is_err());
        if micros >= self.settings.slow_threshold {
            trace::slow(operation, place, micros);
            if let Some(hook) = &self.settings.slow_hook {
                hook(&SlowOperation { operation, place: place.to_owned(), micros });
            }
        }
        result
    }

    /// Notes a refusal for the audit; other errors are none of its business.
    pub(crate) fn audit_refusal(&self, caller: &Caller, error: &Error) {
        let Some(ErrorKind::AccessDenied { right, by, .. }) = error.denial() else { return };
        self.audit.push(AuditEntry {
            time: self.clock.now(),
            principal: caller.name().to_owned(),
            right: right.clone(),
            place: error.key().map(ToString::to_string).unwrap_or_default(),
            allowed: false,
            by: by.clone(),
            dropped_before: 0,
        });
        self.wake();
    }

    /// Notes what a guard allowed, if that is asked for.
    pub(crate) fn audit_allowed(&self, guard: &Guard<'_>, right: Right, place: &impl KeyPlace, time: Micros) {
        if !self.hooks.audit_allowed {
            return;
        }
        self.audit.push(AuditEntry {
            time,
            principal: guard.caller.name().to_owned(),
            right: right.to_string(),
            place: place.text().to_owned(),
            allowed: true,
            by: guard.judge(right, place).by.to_string(),
            dropped_before: 0,
        });
    }

    /// Writes what waits for the audit in a commit of its own.
    pub(crate) fn write_audit(self: &Arc<Self>) -> Result<()> {
        if self.audit.is_empty() || self.commit.check_writable().is_err() {
            return Ok(());
        }
        crate::upkeep::write_as_store(self, |_| Ok(()))
    }

    pub(crate) fn audit_rows(self: &Arc<Self>, from: u64, limit: usize) -> Result<Vec<(u64, AuditEntry)>> {
        self.write_audit()?;
        let view = self.commit.committed_view()?;
        let start = Bound::Included(Bytes::copy_from_slice(&from.to_be_bytes()));
        let rows = view.range(None, Table::Audit, start, Bound::Unbounded)?;
        rows.take(limit)
            .map(|row| {
                let (key, row) = row?;
                let number = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                Ok((number, AuditEntry::decode(&row)?))
            })
            .collect()
    }

    /// Gives the newest commit whose feed row is past its retention; 0 if none is.
    pub(crate) fn feed_trimmed(&self, view: &View) -> Result<u64> {
        mark(view, FEED_TRIMMED).map(i64::cast_unsigned)
    }

    pub(crate) fn idempotency_kept_since(&self, view: &View) -> Result<i64> {
        mark(view, ONCE_TRIMMED)
    }
}

/// The row of `state` that says up to which commit the feed was trimmed.
pub(crate) const FEED_TRIMMED: &[u8] = b"feed-trimmed";
/// The row of `state` that says since when idempotency keys are kept.
pub(crate) const ONCE_TRIMMED: &[u8] = b"once-trimmed";

fn mark(view: &View, key: &[u8]) -> Result<i64> {
    let row = view.get(None, Table::State, key)?;
    Ok(row.and_then(|row| row.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))).unwrap_or(0))
}

fn statistics_in(view: &View) -> Result<Statistics> {
    Ok(StatisticsMap::load(view.get(None, Table::State, state_key::STATISTICS)?.as_deref())?.public())
}

/// The first payload id that no chunk has, and that none had before: a snapshot, or a page that is not used any more, may have
/// it still. There are far fewer than a million of them to a commit.
fn next_payload_id(commit: &Commit) -> Result<u64> {
    const PER_COMMIT: u64 = 1 << 20;
    let snapshot = commit.store().view()?;
    let last = snapshot.range(Table::Chunks, Bound::Unbounded, Bound::Unbounded)?.next_back().transpose()?;
    let last = last.and_then(|row| row.key().first_chunk().map(|id| u64::from_be_bytes(*id))).unwrap_or(0);
    let by_commits = snapshot.head()?.sequence.checked_mul(PER_COMMIT).unwrap_or(0);
    Ok(last.max(by_commits) + 1)
}

/// Takes back what uploads left that a crash ended.
fn reclaim(commit: &Commit) -> Result<()> {
    if commit.store().is_read_only() {
        return Ok(());
    }
    let ids = commit.store().view()?.uploads()?;
    if !ids.is_empty() {
        trace::note("reclaiming unfinished uploads", ids.len());
        commit.store().unstage(&ids)?;
        commit.refresh()?;
    }
    Ok(())
}

/// A reader that is open.
#[derive(Debug)]
struct Reader {
    began: Micros,
    /// How many bytes had been written to the file by then.
    written: u64,
    is_snapshot: bool,
}

/// The readers that are open, by number.
#[derive(Debug, Default)]
struct Readers {
    open: Mutex<BTreeMap<u64, Reader>>,
    next: AtomicU64,
}

impl Readers {
    fn count(&self) -> (usize, Option<Micros>) {
        let open = self.open.lock();
        (open.len(), open.values().map(|reader| reader.began).min())
    }
}

/// Says that somebody reads, since when, and whether that is too long.
pub(crate) struct ReaderToken {
    readers: Arc<Readers>,
    /// The number of the reader; none of a write transaction, which is no reader.
    number: Option<u64>,
    clock: Arc<dyn Clock>,
    began: Micros,
    /// How many bytes had been written when it began.
    written: u64,
    /// The greatest age of a reader.
    age_max: Micros,
}

impl ReaderToken {
    pub(crate) fn issue(shared: &Shared) -> Self {
        Self::unlimited(shared).registered(false)
    }

    /// For a snapshot, which takes as long as it takes.
    pub(crate) fn of_snapshot(shared: &Shared) -> Self {
        Self::unlimited(shared).registered(true)
    }

    /// For a write transaction, which may work as long as it does: others wait for it anyway.
    pub(crate) fn unlimited(shared: &Shared) -> Self {
        Self {
            readers: Arc::clone(&shared.readers),
            number: None,
            clock: Arc::clone(&shared.clock),
            began: 0,
            written: shared.commit.store().backend_state().bytes_written(),
            age_max: shared.settings.reader_age_max,
        }
    }

    fn registered(mut self, is_snapshot: bool) -> Self {
        self.began = self.clock.now();
        let number = self.readers.next.fetch_add(1, Ordering::Relaxed);
        let reader = Reader { began: self.began, written: self.written, is_snapshot };
        self.readers.open.lock().insert(number, reader);
        self.number = Some(number);
        if is_snapshot {
            self.age_max = Micros::MAX;
        }
        self
    }

    /// For what is read later: what a write transaction gives of a large payload outlives it, and is a reader then.
    pub(crate) fn to_keep(self: &Arc<Self>) -> Arc<Self> {
        if self.number.is_some() {
            return Arc::clone(self);
        }
        let Self { began, written, age_max, .. } = **self;
        let (readers, clock) = (Arc::clone(&self.readers), Arc::clone(&self.clock));
        // As old as the asking for it, not as the transaction, which may have worked for long.
        Arc::new(Self { readers, number: None, clock, began, written, age_max }.registered(false))
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.number.is_none() || self.age_max == Micros::MAX {
            return Ok(());
        }
        let age = self.clock.now().saturating_sub(self.began);
        if age <= self.age_max {
            return Ok(());
        }
        let milliseconds = |micros: Micros| u64::try_from(micros / 1_000).unwrap_or(0);
        Err(ErrorKind::ReaderExpired { age_ms: milliseconds(age), age_ms_max: milliseconds(self.age_max) }
            .into())
    }
}

impl Drop for ReaderToken {
    fn drop(&mut self) {
        if let Some(number) = &self.number {
            self.readers.open.lock().remove(number);
        }
    }
}
