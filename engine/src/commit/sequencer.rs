//! The sequencer: one transaction at a time decides what it changes, in fair order, with a limit to the wait.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_format::StateIdentity;
use parking_lot::lock_api::GetThreadId;
use parking_lot::{Mutex, MutexGuard, RawThreadId};

use crate::documents::Documents;
use crate::errand::Errand;
use crate::error::{ErrorKind, Result};
use crate::primitives::StatisticsMap;
use crate::store::{Table, state_key};
use crate::txn::{Fronts, View};

/// The state after everything that was accepted.
pub(crate) struct Sequenced {
    pub(crate) sequence: u64,
    pub(crate) time: i64,
    pub(crate) identity: StateIdentity,
    pub(crate) statistics: StatisticsMap,
    pub(crate) documents: Arc<Documents>,
    pub(crate) audit_next: u64,
    /// The encoded keys that are claimed.
    pub(crate) claimed: HashSet<Bytes>,
    /// The last fence that was given out, and up to which numbers are reserved.
    pub(crate) fence: u64,
    pub(crate) fences_reserved: u64,
    /// Whether anything was made from anything.
    pub(crate) has_edges: bool,
    /// Whether anything was said of the work on any asset.
    pub(crate) has_logs: bool,
    pub(crate) fronts: Fronts,
}

impl Sequenced {
    /// Reads the state of a store in which everything has been published.
    pub(crate) fn load(view: &View, documents: Arc<Documents>) -> Result<Self> {
        let head = *view.head();
        let statistics =
            StatisticsMap::load(view.get(None, Table::State, state_key::STATISTICS)?.as_deref())?;
        let number = |key| -> Result<u64> {
            let row = view.get(None, Table::State, key)?;
            Ok(row.and_then(|row| row.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))).unwrap_or(0))
        };
        let mut claimed = HashSet::new();
        for row in view.prefix(None, Table::Claims, &[1])? {
            claimed.extend(row?.0.strip_prefix(&[1]).map(Bytes::copy_from_slice));
        }
        let fences_reserved = number(state_key::FENCES)?;
        let has_some =
            |table| -> Result<bool> { Ok(view.prefix(None, table, &[])?.next().transpose()?.is_some()) };
        Ok(Self {
            sequence: head.sequence,
            time: head.time,
            identity: head.identity,
            statistics,
            documents,
            audit_next: number(state_key::AUDIT_NEXT)?,
            claimed,
            // Whatever was reserved may have been given out.
            fence: fences_reserved,
            fences_reserved,
            has_edges: has_some(Table::Edges)?,
            has_logs: has_some(Table::Logs)?,
            fronts: Fronts::default(),
        })
    }
}

/// Tells this thread from all others that there are, as the locks do.
pub(super) fn this_thread() -> NonZeroUsize {
    RawThreadId::INIT.nonzero_thread_id()
}

/// Who holds the sequencer.
struct Holder {
    thread: NonZeroUsize,
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
    /// Edits whose turn has not come.
    errands: Mutex<VecDeque<Arc<Errand>>>,
}

/// The sequencer, held.
pub(crate) struct Held<'a> {
    state: MutexGuard<'a, Sequenced>,
    sequencer: &'a Sequencer,
    /// Whether the transaction is the store's own, and commits what waits even if it changes nothing itself.
    pub(crate) is_for_upkeep: bool,
    /// Goes after the state: it offers the turn once that is free.
    offer: Offer<'a>,
}

/// Offers the turn to whoever waits with an errand.
struct Offer<'a> {
    sequencer: &'a Sequencer,
    is_withheld: bool,
}

impl Sequencer {
    pub(super) fn new(state: Sequenced) -> Self {
        Self { state: Mutex::new(state), holder: Mutex::new(None), errands: Mutex::default() }
    }

    /// Waits for the sequencer, at most for `wait`.
    pub(crate) fn enter(&self, by: &str, now: i64, wait: Duration) -> Result<Held<'_>> {
        let thread = this_thread();
        let state = match self.state.try_lock() {
            Some(state) => state,
            None => {
                if self.holder.lock().as_ref().is_some_and(|holder| holder.thread == thread) {
                    return Err(ErrorKind::Nested.into());
                }
                self.state.try_lock_for(wait).ok_or_else(|| self.busy(now, wait))?
            }
        };
        Ok(self.held(state, by, now))
    }

    /// Takes the turn, if it is free.
    pub(crate) fn try_enter(&self, by: &str, now: i64) -> Option<Held<'_>> {
        self.state.try_lock().map(|state| self.held(state, by, now))
    }

    fn held<'a>(&'a self, state: MutexGuard<'a, Sequenced>, by: &str, now: i64) -> Held<'a> {
        let thread = this_thread();
        *self.holder.lock() = Some(Holder { thread, by: by.to_owned(), since: now });
        Held {
            state,
            sequencer: self,
            is_for_upkeep: false,
            offer: Offer { sequencer: self, is_withheld: false },
        }
    }

    /// Leaves an errand for whoever has the turn next.
    pub(crate) fn queue(&self, errand: Arc<Errand>) {
        self.errands.lock().push_back(errand);
    }

    /// Takes the errand that has waited longest.
    pub(crate) fn next_errand(&self) -> Option<Arc<Errand>> {
        self.errands.lock().pop_front()
    }

    /// Takes an errand back; tells whether it was still there.
    pub(crate) fn withdraw(&self, errand: &Arc<Errand>) -> bool {
        let mut errands = self.errands.lock();
        let at = errands.iter().position(|waiting| Arc::ptr_eq(waiting, errand));
        let was_there = at.is_some_and(|at| errands.remove(at).is_some());
        // It may have been offered the turn just now, and takes it no more.
        if let (true, Some(next)) = (was_there, errands.front()) {
            next.offer_turn();
        }
        was_there
    }

    /// Waits for the sequencer as long as it takes.
    pub(super) fn hold(&self) -> Held<'_> {
        Held {
            state: self.state.lock(),
            sequencer: self,
            is_for_upkeep: false,
            offer: Offer { sequencer: self, is_withheld: false },
        }
    }

    /// Tells whether anybody holds the sequencer at this moment.
    pub(super) fn is_taken(&self) -> bool {
        self.state.is_locked()
    }

    /// Tells whether this thread holds the sequencer.
    pub(crate) fn is_held_here(&self) -> bool {
        let thread = this_thread();
        self.holder.lock().as_ref().is_some_and(|holder| holder.thread == thread)
    }

    /// Refuses what would wait for the transaction that this thread is in.
    pub(crate) fn check_not_nested(&self) -> Result<()> {
        if self.is_held_here() { Err(ErrorKind::Nested.into()) } else { Ok(()) }
    }

    pub(crate) fn busy(&self, now: i64, wait: Duration) -> ErrorKind {
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

impl Held<'_> {
    /// Offers the turn to nobody when it ends: this thread takes it again at once.
    pub(crate) fn go_on(&mut self) {
        self.offer.is_withheld = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.sequencer.holder.lock() = None;
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if !self.is_withheld
            && let Some(errand) = self.sequencer.errands.lock().front()
        {
            errand.offer_turn();
        }
    }
}
