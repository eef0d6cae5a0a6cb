//! How a store is, without looking through it: what an application shows on a page of its own, or asks before it goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_format::Micros;
use parking_lot::Mutex;
use serde::Serialize;

use crate::commit::CommitInfo;
use crate::error::Result;
use crate::larder::Larder;
use crate::latency::Latency;
use crate::primitives::Purpose;
use crate::sweep;
use crate::txn::ReadTxn;

/// How many deadlines that are past are counted, at most.
const OVERDUE_MAX: usize = 1_000;

/// How a store is. Every figure is kept by the store as it goes; none is counted for this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether it can be read.
    pub open: bool,
    /// Whether anything can be changed.
    pub writable: bool,
    /// Why nothing can be changed, or what was wrong last.
    pub last_error: Option<String>,
    /// The sequence number of the newest commit.
    pub last_commit: u64,
    /// Its time, in microseconds since the epoch.
    pub last_commit_time: Micros,
    /// How many commits there were since the last snapshot that was made since the store was opened.
    pub commits_since_snapshot: Option<u64>,
    /// Those who read.
    pub readers: ReaderHealth,
    /// How many bytes of the commit log are not durable in the file itself.
    pub log_bytes: u64,
    /// How many deadlines are past: assets that are to be marked as expired, at most 1 000.
    pub expiries_overdue: u64,
    /// How many claims are past their time and not revoked, at most 1 000.
    pub claims_overdue: u64,
    /// Since when the earliest of these is past.
    pub overdue_since: Option<Micros>,
    /// Room.
    pub space: SpaceHealth,
    /// What the access rules do where none applies: `allow` or `deny`.
    pub rules_default: &'static str,
    /// The version of the rules; 0 if none were set, and everything is allowed.
    pub rules_version: u64,
    /// How long operations took since the store was opened, by their names: those of the functions; of what changes something
    /// `write`, until it is as durable as was asked for, and `submit`, which waits for no disk, unless the session
    /// [is named](crate::Session::named). What `get`, `record` and `get_loadable` of a session find in the cache of records is not
    /// among them: it takes less than the clock can tell.
    pub operations: BTreeMap<&'static str, Latency>,
    /// What layers tell of themselves, by the names under which they were [added](Larder::add_health).
    pub layers: BTreeMap<String, LayerHealth>,
}

/// Figures of a layer, by their names.
pub type Figures = BTreeMap<String, i64>;

/// How a layer is, by its own account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct LayerHealth {
    /// Its figures.
    pub figures: Figures,
    /// Why it cannot tell.
    pub error: Option<String>,
}

type Ask = dyn Fn(&ReadTxn) -> std::result::Result<Figures, String> + Send + Sync;

/// The layers that tell how they are.
#[derive(Default)]
pub(crate) struct Layers(Mutex<BTreeMap<String, Arc<Ask>>>);

/// Those who read a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReaderHealth {
    /// How many there are, snapshots among them.
    pub open: u64,
    /// How many of them are snapshots, which have no limit to their age.
    pub snapshots: u64,
    /// Since when the oldest reads.
    pub oldest_since: Option<Micros>,
    /// How old the oldest is, in microseconds.
    pub oldest_age: Option<Micros>,
    /// How many bytes of the file they keep from being used again, at most.
    pub pinned_bytes_max: u64,
}

/// How much room there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpaceHealth {
    /// Whether room has run low: nothing that grows is accepted.
    pub is_full: bool,
    /// The length of the file in bytes; what of it was never written takes no room on most disks.
    pub file_bytes: u64,
    /// Up to where it was written, in bytes.
    pub used_bytes: u64,
    /// The payloads of all assets together, in bytes, before compression and deduplication.
    pub payload_bytes: u64,
    /// How many bytes can still be written, by the limit and by what the disk has left, where that can be told.
    pub room_bytes: Option<u64>,
    /// How many bytes are kept for deleting, and how many should be.
    pub reserve_bytes: u64,
    /// How many bytes should be.
    pub reserve_bytes_wanted: u64,
}

impl Larder {
    /// Adds what a layer tells of itself to [`Larder::health`], under a name, in place of what had that name. It is asked
    /// whenever health is, with a view that sees everything: so it should be quick, and must not hold the store.
    pub fn add_health<E: std::fmt::Display>(
        &self,
        name: impl Into<String>,
        ask: impl Fn(&ReadTxn) -> std::result::Result<Figures, E> + Send + Sync + 'static,
    ) {
        let ask = move |view: &ReadTxn| ask(view).map_err(|error| error.to_string());
        self.shared().layers.0.lock().insert(name.into(), Arc::new(ask));
    }

    fn layers(&self) -> BTreeMap<String, LayerHealth> {
        let shared = self.shared();
        // Nobody is asked while the list is held: who is may add to it.
        let layers = shared.layers.0.lock().clone();
        if layers.is_empty() {
            return BTreeMap::new();
        }
        let view = ReadTxn::begin(shared, &shared.system).map_err(|error| error.to_string());
        let tell = |ask: Arc<Ask>| match view.as_ref().map_err(String::clone).and_then(|view| ask(view)) {
            Ok(figures) => LayerHealth { figures, error: None },
            Err(error) => LayerHealth { figures: Figures::new(), error: Some(error) },
        };
        layers.into_iter().map(|(name, ask)| (name, tell(ask))).collect()
    }

    /// Tells how the store is, also of one in which something has failed. Takes no longer for a large store.
    #[must_use]
    pub fn health(&self) -> Health {
        let shared = self.shared();
        let (commit, now) = (&shared.commit, shared.clock.now());
        let (store, view) = (commit.store(), commit.committed_view());
        let writable = commit.check_writable();
        let last_error = match &writable {
            Err(error) => Some(error.to_string()),
            Ok(()) => commit.last_error().map(|error| error.to_string()),
        };
        let last: CommitInfo = view.as_ref().map(|view| (*view.head()).into()).unwrap_or_default();
        let overdue = || -> Result<_> { sweep::due(&commit.committed_view()?, now, OVERDUE_MAX) };
        let overdue = overdue().unwrap_or_default();
        let claims = overdue.iter().filter(|due| due.purpose == Purpose::Claim).count();
        let documents = commit.documents();
        let (readers, oldest) = shared.readers();
        Health {
            open: view.is_ok(),
            writable: writable.is_ok(),
            last_error,
            last_commit: last.sequence,
            last_commit_time: last.time,
            commits_since_snapshot: self.commits_since_snapshot(),
            readers: ReaderHealth {
                open: readers as u64,
                snapshots: shared.snapshots_at_work() as u64,
                oldest_since: oldest,
                oldest_age: oldest.map(|since| now.saturating_sub(since)),
                pinned_bytes_max: shared.pinned(),
            },
            log_bytes: commit.input_output().log_bytes,
            expiries_overdue: (overdue.len() - claims) as u64,
            claims_overdue: claims as u64,
            overdue_since: overdue.first().map(|due| due.at),
            space: SpaceHealth {
                is_full: commit.is_full(),
                file_bytes: store.backend_state().length(),
                used_bytes: store.backend_state().used(),
                payload_bytes: self.statistics().map_or(0, |statistics| statistics.total.bytes),
                room_bytes: store.room(),
                reserve_bytes: store.reserve_held(),
                reserve_bytes_wanted: commit.reserve_wanted(),
            },
            rules_default: documents.rules.default_effect().as_str(),
            rules_version: documents.get(crate::DocumentKind::Rules).version,
            operations: shared.latencies.tell(),
            layers: self.layers(),
        }
    }
}
