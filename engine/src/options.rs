//! How a store is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder_format::{LOG_BLOCK, Micros, Pattern};

use crate::authorizer::{Authorizer, Hooks, Validator};
use crate::clock::{Clock, IdSource, RandomIds, SystemClock};
use crate::commit::Durability;
use crate::error::{ErrorKind, Result};
use crate::larder::Larder;
use crate::store::{Place, Storage};

/// An operation that took longer than the threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowOperation {
    /// The operation.
    pub operation: &'static str,
    /// The key or place that it was about; empty if it was about none.
    pub place: String,
    /// How long it took, in microseconds.
    pub micros: Micros,
}

/// Is told of slow operations.
pub type SlowHook = Arc<dyn Fn(&SlowOperation) + Send + Sync>;

/// How much of what the store keeps for itself is kept: whatever passes one of the bounds goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// The most rows of the change feed, and of the audit, and versions of a document, each.
    pub rows_max: u64,
    /// The greatest age of a row, in microseconds; for a version of a document, how long ago it was replaced.
    pub age_max: Micros,
    /// The most idempotency keys.
    pub idempotency_keys_max: u64,
    /// The greatest age of an idempotency key, in microseconds.
    pub idempotency_age_max: Micros,
}

const DAY: Micros = 24 * 3_600 * 1_000_000;

impl Default for Retention {
    /// A million rows of feed and audit, and versions of a document, 30 days; a million idempotency keys, 24 hours.
    fn default() -> Self {
        Self {
            rows_max: 1_000_000,
            age_max: 30 * DAY,
            idempotency_keys_max: 1_000_000,
            idempotency_age_max: DAY,
        }
    }
}

impl Retention {
    /// Keeps at most this many rows of feed and audit, and versions of a document.
    #[must_use]
    pub fn rows_max(mut self, rows: u64) -> Self {
        self.rows_max = rows;
        self
    }
}

/// How a store is opened. The defaults serve most: a file that is made if it is not there, one thread of the
/// store's own, every commit on disk when it returns.
///
/// ```
/// # use larder::{Options, Durability};
/// let larder = Options::new().durability(Durability::Lazy).open_in_memory()?;
/// # larder.close()?;
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) inline: bool,
    pub(crate) cache_bytes: usize,
    pub(crate) record_cache_bytes: Option<usize>,
    pub(crate) column_bytes: usize,
    pub(crate) wait_max: Duration,
    pub(crate) durability: Durability,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) hooks: Hooks,
    pub(crate) cascade_max: usize,
    pub(crate) slow_threshold: Micros,
    pub(crate) slow_hook: Option<SlowHook>,
    pub(crate) reader_age_max: Micros,
    pub(crate) retention: Retention,
    pub(crate) discard_log: bool,
    pub(crate) upgrade: bool,
    pub(crate) log_segment_bytes: u64,
    pub(crate) reserve_bytes: Option<u64>,
    pub(crate) file_bytes_max: u64,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("create", &self.create)
            .field("inline", &self.inline)
            .field("cache_bytes", &self.cache_bytes)
            .field("wait_max", &self.wait_max)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            inline: false,
            cache_bytes: 128 << 20,
            record_cache_bytes: None,
            column_bytes: 64 << 20,
            wait_max: Duration::from_secs(30),
            durability: Durability::Synced,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            hooks: Hooks::default(),
            cascade_max: 200_000,
            slow_threshold: 100_000,
            slow_hook: None,
            reader_age_max: 3_600 * 1_000_000,
            retention: Retention::default(),
            discard_log: false,
            upgrade: false,
            log_segment_bytes: 32 << 20,
            reserve_bytes: None,
            file_bytes_max: u64::MAX,
        }
    }
}

impl Options {
    /// Makes the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses to make a file where there is none.
    #[must_use]
    pub fn existing_only(mut self) -> Self {
        self.create = false;
        self
    }

    /// Has no thread of the store's own: the caller drives [`Larder::upkeep`].
    #[must_use]
    pub fn inline(mut self) -> Self {
        self.inline = true;
        self
    }

    /// Sets how much memory pages and records are kept in, in bytes; 128 MiB by default, a quarter of it for records.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets how much of the memory for pages and records is for records that were read, decoded, with the small
    /// payloads behind them, in bytes; 0 keeps none. A quarter by default. Where mostly single records are read, all over a
    /// store with more of them than that holds, seven eighths are better: pages that the store does not keep are in the page
    /// cache of the system, records are not.
    #[must_use]
    pub fn record_cache_bytes(mut self, bytes: usize) -> Self {
        self.record_cache_bytes = Some(bytes);
        self
    }

    /// Sets how much memory columns of records may take, once somebody asks for [summaries](crate::ReadTxn::summaries), in
    /// bytes; with 0 there are none. 64 MiB by default: a record takes 40 and its key, so that is enough for some 900 000.
    #[must_use]
    pub fn column_bytes(mut self, bytes: usize) -> Self {
        self.column_bytes = bytes;
        self
    }

    pub(crate) fn cache_of_records(&self) -> usize {
        self.record_cache_bytes.unwrap_or(self.cache_bytes / 4).min(self.cache_bytes)
    }

    /// Sets how long a transaction waits for its turn before it is [`Busy`](ErrorKind::Busy); 30 s by default.
    #[must_use]
    pub fn wait_max(mut self, wait: Duration) -> Self {
        self.wait_max = wait;
        self
    }

    /// Sets how durable a commit is when its call returns, for sessions that do not say otherwise.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Takes the time from here.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes ids from here.
    #[must_use]
    pub fn ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Decides about access here, in place of the rules that are stored in the file.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.hooks.authorizer = Some(authorizer);
        self
    }

    /// Lets a validator look at whatever is stored under keys of a pattern.
    ///
    /// # Errors
    /// [`InvalidDocument`](ErrorKind::InvalidDocument) if the pattern is malformed.
    pub fn validator(mut self, pattern: &str, validator: Arc<dyn Validator>) -> Result<Self> {
        let pattern = Pattern::parse(pattern).map_err(|error| ErrorKind::InvalidDocument {
            document: "pattern of a validator".to_owned(),
            what: error.to_string(),
        })?;
        self.hooks.validators.push((pattern, validator));
        Ok(self)
    }

    /// Audits the changes that are allowed too, not only what is refused. Reads that are allowed are not audited.
    #[must_use]
    pub fn audit_allowed(mut self) -> Self {
        self.hooks.audit_allowed = true;
        self
    }

    /// Sets how many assets may expire with one that changes, in its transaction, and how many are looked at for a cycle;
    /// 200 000 by default.
    #[must_use]
    pub fn cascade_max(mut self, assets: usize) -> Self {
        self.cascade_max = assets;
        self
    }

    /// Sets from when on an operation is reported as slow, in microseconds; 100 ms by default.
    #[must_use]
    pub fn slow_threshold(mut self, micros: Micros) -> Self {
        self.slow_threshold = micros;
        self
    }

    /// Reports slow operations here, beside the warning of `tracing`, if that feature is on.
    #[must_use]
    pub fn on_slow(mut self, hook: SlowHook) -> Self {
        self.slow_hook = Some(hook);
        self
    }

    /// Sets the greatest age of a read transaction, in microseconds; an hour by default.
    #[must_use]
    pub fn reader_age_max(mut self, micros: Micros) -> Self {
        self.reader_age_max = micros;
        self
    }

    /// Sets how much of feed, audit, idempotency keys and former versions of documents is kept.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Goes on without a commit log that is missing, damaged, or not that of the file: what can be read of it in
    /// order is applied, and the log is set aside under another name. Commits that were acknowledged may be lost;
    /// [`Larder::recovery`] tells what was done.
    #[must_use]
    pub fn discard_log(mut self) -> Self {
        self.discard_log = true;
        self
    }

    /// Brings a file of an older format to the current one, after a copy of it was made beside it; without this it is
    /// refused as [`UpgradeRequired`](ErrorKind::UpgradeRequired). [`Larder::upgraded`] tells what was done.
    #[must_use]
    pub fn upgrade(mut self) -> Self {
        self.upgrade = true;
        self
    }

    /// Sets how long each of the two segments of the commit log may become, in bytes; 32 MiB by default, at least
    /// 512 KiB, in whole blocks of 4 096. When one is full what it has is made durable in the file, while the other
    /// takes what comes. The longer they are, the rarer that is, and the longer it takes to open a file that was not
    /// closed. 512 MiB at most.
    #[must_use]
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.log_segment_bytes = bytes.clamp(512 << 10, 1 << 29).next_multiple_of(LOG_BLOCK as u64);
        self
    }

    /// Keeps this many bytes of the disk, really allocated while the store is open, which only deleting, expiring and bringing
    /// to rest what was acknowledged may use; by default 64 MiB, and not more than an eighth of what the disk has left. It
    /// should have room for what both segments of the commit log can hold. 0 keeps none: after a full disk the store may
    /// then have to wait for room. Without room for it, only what makes room is accepted until there is. Where nothing can be
    /// kept free (a file system that allocates nothing ahead, systems other than Linux) there is none, and
    /// [`Health`](crate::Health) says so.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = Some(bytes);
        self
    }

    /// Sets how many bytes of the file may be used, the reserve included; no limit by default. What grows beyond it is
    /// refused as [`StoreFull`](ErrorKind::StoreFull). A store in memory may pass it by what was accepted before.
    #[must_use]
    pub fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = bytes;
        self
    }

    /// Opens a file. What a crash left in the commit log beside it is taken into it first.
    ///
    /// # Errors
    /// [`Locked`](ErrorKind::Locked) if it is open elsewhere, [`NotALarderFile`](ErrorKind::NotALarderFile),
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion) and [`UnsupportedFeatures`](ErrorKind::UnsupportedFeatures) if it is of
    /// a later version, [`UpgradeRequired`](ErrorKind::UpgradeRequired) if it is of an earlier one and
    /// [`upgrade`](Self::upgrade) was not asked for, [`NoSuchFile`](ErrorKind::NoSuchFile),
    /// [`PermissionDenied`](ErrorKind::PermissionDenied), [`Io`](ErrorKind::Io), [`StoreFull`](ErrorKind::StoreFull);
    /// [`Corrupt`](ErrorKind::Corrupt), for which there are `larder repair` and `larder salvage`;
    /// [`LogMissing`](ErrorKind::LogMissing), [`LogDiverged`](ErrorKind::LogDiverged) and [`LogDamaged`](ErrorKind::LogDamaged) if
    /// its log is not there, another file's, or lacks what was on disk: put it back, or give it up with
    /// [`discard_log`](Self::discard_log).
    pub fn open(self, path: impl AsRef<Path>) -> Result<Larder> {
        let create = self.create;
        Larder::start(self, Place::File { path: path.as_ref(), create })
    }

    /// Opens a file without changing one byte of it, even if it was left by a crash.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Larder> {
        Larder::start(self, Place::ReadOnly { path: path.as_ref() })
    }

    /// Makes a store in memory, which goes with its last handle.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn open_in_memory(self) -> Result<Larder> {
        Larder::start(self, Place::Memory)
    }

    /// Opens a store in a storage of the caller's own, for tests with faults and for exotic hosts. Without a commit
    /// log, what has to be on disk is committed into the store itself.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_storage(self, storage: Box<dyn Storage>) -> Result<Larder> {
        Larder::start(self, Place::Custom(storage, None))
    }

    /// Opens a store in a storage of the caller's own, with its commit log in another, which is empty while the
    /// store is closed.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_storages(self, storage: Box<dyn Storage>, log: Arc<dyn Storage>) -> Result<Larder> {
        Larder::start(self, Place::Custom(storage, Some(log)))
    }
}
