//! The sequencer: one transaction at a time decides what it changes, in fair order, with a limit to the wait.

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use larder_format::StateIdentity;
use parking_lot::{Mutex, MutexGuard};

use crate::documents::Documents;
use crate::error::{ErrorKind, Result};
use crate::primitives::StatisticsMap;
use crate::store::{Table, state_key};
use crate::txn::View;

/// The state after everything that was accepted.
pub(crate) struct Sequenced {
    pub(crate) sequence: u64,
    pub(crate) time: i64,
    pub(crate) identity: StateIdentity,
    pub(crate) statistics: StatisticsMap,
    pub(crate) documents: Arc<Documents>,
    pub(crate) audit_next: u64,
}

impl Sequenced {
    /// Reads the state of a store in which everything has been published.
    pub(crate) fn load(view: &View, documents: Arc<Documents>) -> Result<Self> {
        let head = *view.head();
        let statistics =
            StatisticsMap::load(view.get(None, Table::State, state_key::STATISTICS)?.as_deref())?;
        let audit_next = view
            .get(None, Table::State, state_key::AUDIT_NEXT)?
            .and_then(|row| row.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)))
            .unwrap_or(0);
        Ok(Self {
            sequence: head.sequence,
            time: head.time,
            identity: head.identity,
            statistics,
            documents,
            audit_next,
        })
    }
}

/// Who holds the sequencer.
struct Holder {
    thread: ThreadId,
    by: String,
    since: i64,
}

/// The lock under which transactions are sequenced.
///
/// parking_lot's mutex is fair on the scale of half a millisecond: nobody starves, and a handover does not cost a
/// context switch each time.
pub(crate) struct Sequencer {
    state: Mutex<Sequenced>,
    holder: Mutex<Option<Holder>>,
}

/// The sequencer, held.
pub(crate) struct Held<'a> {
    state: MutexGuard<'a, Sequenced>,
    sequencer: &'a Sequencer,
    /// Whether the transaction is the store's own, and commits what waits even if it changes nothing itself.
    pub(crate) is_for_upkeep: bool,
}

impl Sequencer {
    pub(super) fn new(state: Sequenced) -> Self {
        Self { state: Mutex::new(state), holder: Mutex::new(None) }
    }

    /// Waits for the sequencer, at most for `wait`.
    pub(crate) fn enter(&self, by: &str, now: i64, wait: Duration) -> Result<Held<'_>> {
        let thread = std::thread::current().id();
        let state = match self.state.try_lock() {
            Some(state) => state,
            None => {
                if self.holder.lock().as_ref().is_some_and(|holder| holder.thread == thread) {
                    return Err(ErrorKind::Nested.into());
                }
                self.state.try_lock_for(wait).ok_or_else(|| self.busy(now, wait))?
            }
        };
        *self.holder.lock() = Some(Holder { thread, by: by.to_owned(), since: now });
        Ok(Held { state, sequencer: self, is_for_upkeep: false })
    }

    /// Waits for the sequencer as long as it takes.
    pub(super) fn hold(&self) -> Held<'_> {
        Held { state: self.state.lock(), sequencer: self, is_for_upkeep: false }
    }

    /// Tells whether this thread holds the sequencer.
    pub(crate) fn is_held_here(&self) -> bool {
        let thread = std::thread::current().id();
        self.holder.lock().as_ref().is_some_and(|holder| holder.thread == thread)
    }

    fn busy(&self, now: i64, wait: Duration) -> ErrorKind {
        let waited = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let (held, by) = match &*self.holder.lock() {
            Some(holder) => (now.saturating_add(waited).saturating_sub(holder.since), holder.by.clone()),
            None => (waited, "somebody".to_owned()),
        };
        ErrorKind::Busy { held_ms: u64::try_from(held / 1_000).unwrap_or(0), by }
    }
}

impl std::ops::Deref for Held<'_> {
    type Target = Sequenced;

    fn deref(&self) -> &Sequenced {
        &self.state
    }
}

impl std::ops::DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Sequenced {
        &mut self.state
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.sequencer.holder.lock() = None;
    }
}
