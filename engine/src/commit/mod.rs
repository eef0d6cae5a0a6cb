//! From an accepted transaction to a durable one.
//!
//! Transactions are sequenced one at a time, by a lock that is taken for the length of a closure. What a closure
//! leaves is a write-set; it goes into a layer, where later closures see it, and into a queue. Whoever finds
//! nobody at work takes the whole queue, applies it in one go, syncs once, publishes the new view and wakes those
//! whose commits it carried; then it hands the lead to one of those who came meanwhile (group commit by
//! combining: D. Hendler et al., "Flat Combining", SPAA 2010).
//!
//! Invariants
//! 1. Write-sets reach the store in the order of their sequence numbers, without gaps.
//! 2. A commit is reported as done only after it is as durable as it was asked to be, and visible.
//! 3. After a failure nothing more is accepted: what depended on the failed write-sets fails with them.
//! 4. A layer is dropped only when everything in it has been published.

mod overlay;
mod sequencer;
mod ticket;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_format::{FeedRow, WriteSet};
use parking_lot::{Mutex, RwLock};

pub(crate) use overlay::{Layer, Said};
pub(crate) use sequencer::{Held, Sequenced, Sequencer};
pub(crate) use ticket::Slot;
use ticket::Woken;
pub use ticket::{CommitInfo, CommitTicket};

use crate::documents::Documents;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{ApplyError, Head, Store, Table};
use crate::subscription::Subscribers;
use crate::txn::View;

/// How durable a commit is when its call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// On disk.
    #[default]
    Synced,
    /// Visible at once, on disk within this many milliseconds.
    Window {
        /// The longest time until it is on disk, in milliseconds.
        milliseconds: u32,
    },
    /// Visible at once, on disk with the next commit that is synced, with a flush, or at close.
    Lazy,
}

/// An accepted write-set on its way.
pub(crate) struct Accepted {
    pub(crate) write_set: WriteSet,
    pub(crate) info: CommitInfo,
    pub(crate) durability: Durability,
    pub(crate) documents: Option<Arc<Documents>>,
    pub(crate) feed: Arc<FeedRow>,
    pub(crate) slot: Arc<Slot>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Accepted>,
    has_leader: bool,
    /// The newest that was accepted, carried or not.
    newest: Option<Arc<Slot>>,
    failed: Option<Error>,
}

/// The commit path of one store.
pub(crate) struct Commit {
    store: Store,
    sequencer: Sequencer,
    queue: Mutex<Queue>,
    layers: RwLock<Arc<[Arc<Layer>]>>,
    documents: RwLock<Arc<Documents>>,
    subscribers: Subscribers,
    is_inline: bool,
    is_closed: AtomicBool,
    /// When what is visible and not on disk has to be there, in microseconds; `i64::MAX` for never.
    flush_due: Mutex<i64>,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}

impl Commit {
    pub(crate) fn new(store: Store, is_inline: bool) -> Result<Self> {
        let view = View::of(store.current()?);
        let documents = Arc::new(Documents::load(&view)?);
        let sequenced = Sequenced::load(&view, Arc::clone(&documents))?;
        Ok(Self {
            store,
            sequencer: Sequencer::new(sequenced),
            queue: Mutex::default(),
            layers: RwLock::new(Arc::new([])),
            documents: RwLock::new(documents),
            subscribers: Subscribers::default(),
            is_inline,
            is_closed: AtomicBool::new(false),
            flush_due: Mutex::new(i64::MAX),
        })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    pub(crate) fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.is_inline
    }

    /// Gives the documents of the newest published view.
    pub(crate) fn documents(&self) -> Arc<Documents> {
        Arc::clone(&self.documents.read())
    }

    /// Gives the view of all that was accepted, for the holder of the sequencer.
    pub(crate) fn accepted_view(&self) -> Result<View> {
        // Layers before the snapshot: what leaves the layers in between is in the snapshot that is taken after.
        let layers = Arc::clone(&self.layers.read());
        Ok(View::new(layers, self.store.current()?, u64::MAX))
    }

    /// Gives the view of all that is committed.
    pub(crate) fn committed_view(&self) -> Result<View> {
        self.check_open()?;
        Ok(View::of(self.store.current()?))
    }

    /// Says why nothing is accepted, if so.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.store.is_read_only() {
            return Err(ErrorKind::ReadOnly.into());
        }
        match &self.queue.lock().failed {
            Some(error) => Err(ErrorKind::Poisoned { by: error.to_string() }.into()),
            None => Ok(()),
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(ErrorKind::Closed.into()) } else { Ok(()) }
    }

    /// Takes in a write-set; the caller holds the sequencer, so that the order is that of the sequence numbers.
    pub(crate) fn accept(&self, accepted: Accepted) -> Result<()> {
        self.absorb(&accepted)?;
        if let Durability::Window { milliseconds } = accepted.durability {
            let due = accepted.info.time.saturating_add(i64::from(milliseconds) * 1_000);
            let mut flush_due = self.flush_due.lock();
            *flush_due = due.min(*flush_due);
        }
        let mut queue = self.queue.lock();
        queue.newest = Some(Arc::clone(&accepted.slot));
        queue.waiting.push_back(accepted);
        Ok(())
    }

    /// Takes a write-set into the newest layer. The list is held until that is done: a leader must not find the layer
    /// all published, and drop it, while something is on its way into it.
    fn absorb(&self, accepted: &Accepted) -> Result<()> {
        let mut layers = self.layers.write();
        let newest = match layers.first() {
            Some(layer) if layer.bytes() < overlay::LAYER_BYTES => Arc::clone(layer),
            _ => {
                let layer = Arc::new(Layer::default());
                *layers = std::iter::once(Arc::clone(&layer)).chain(layers.iter().cloned()).collect();
                layer
            }
        };
        newest.absorb(accepted.info.sequence, &accepted.write_set)
    }

    /// Waits for a commit, leading others where nobody does.
    pub(crate) fn drive(&self, slot: &Slot) -> Result<CommitInfo> {
        if let Some(outcome) = slot.outcome() {
            return outcome;
        }
        self.lead_if_free();
        loop {
            match slot.wait() {
                Woken::Done(outcome) => return outcome,
                Woken::ToLead => self.lead(),
            }
        }
    }

    /// Carries what waits, if nobody else is at it.
    pub(crate) fn lead_if_free(&self) {
        {
            let mut queue = self.queue.lock();
            if queue.has_leader || queue.waiting.is_empty() {
                return;
            }
            queue.has_leader = true;
        }
        self.lead();
    }

    /// Carries one batch, then hands the lead on.
    fn lead(&self) {
        let batch = std::mem::take(&mut self.queue.lock().waiting);
        if !batch.is_empty() {
            self.carry(Vec::from(batch));
        }
        loop {
            let heirs: Vec<Arc<Slot>> = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.has_leader = false;
                    return;
                }
                queue.waiting.iter().map(|accepted| Arc::clone(&accepted.slot)).collect()
            };
            if heirs.iter().any(|slot| slot.hand_over()) {
                return;
            }
            // Nobody waits for these: they were submitted, and are carried here.
            let batch = std::mem::take(&mut self.queue.lock().waiting);
            self.carry(Vec::from(batch));
        }
    }

    fn carry(&self, batch: Vec<Accepted>) {
        let outcome = self.apply(&batch);
        if let Err(error) = &outcome {
            self.queue.lock().failed.get_or_insert_with(|| error.clone());
        }
        for accepted in batch {
            accepted.slot.complete(match &outcome {
                Ok(()) => Ok(accepted.info),
                Err(error) => Err(error.clone()),
            });
        }
    }

    fn apply(&self, batch: &[Accepted]) -> Result<()> {
        if let Some(error) = &self.queue.lock().failed {
            return Err(ErrorKind::Poisoned { by: error.to_string() }.into());
        }
        let Some(last) = batch.last() else { return Ok(()) };
        let write_sets: Vec<&WriteSet> = batch.iter().map(|accepted| &accepted.write_set).collect();
        let head =
            Head { sequence: last.info.sequence, time: last.info.time, identity: last.write_set.identity() };
        let sync = batch.iter().any(|accepted| accepted.durability == Durability::Synced);
        self.store.apply(&write_sets, &head, sync).map_err(|error| match error {
            ApplyError::Before(error) => error,
            ApplyError::Unknown(error) => {
                Error::from(ErrorKind::OutcomeUnknown { commit: last.info.sequence }).caused_by(error)
            }
        })?;
        if sync {
            *self.flush_due.lock() = i64::MAX;
        }
        self.store.publish();
        if let Some(documents) = batch.iter().rev().find_map(|accepted| accepted.documents.as_ref()) {
            *self.documents.write() = Arc::clone(documents);
        }
        self.drop_layers(head.sequence);
        for accepted in batch {
            self.subscribers.tell(accepted.info, &accepted.feed);
        }
        Ok(())
    }

    /// Drops the layers in which everything has been published.
    fn drop_layers(&self, published: u64) {
        let mut layers = self.layers.write();
        if layers.iter().any(|layer| layer.newest() <= published) {
            *layers = layers.iter().filter(|layer| layer.newest() > published).cloned().collect();
        }
    }

    /// Makes everything that is visible durable.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check_writable()?;
        self.lead_if_free();
        let flushed = self.store.flush();
        if let Err(error) = &flushed {
            self.queue.lock().failed.get_or_insert_with(|| error.clone());
        } else {
            *self.flush_due.lock() = i64::MAX;
        }
        flushed
    }

    /// Gives when a flush is due, in microseconds; `i64::MAX` for never.
    pub(crate) fn flush_due(&self) -> i64 {
        *self.flush_due.lock()
    }

    /// Waits until no closure runs, then accepts nothing more and makes everything durable.
    pub(crate) fn close(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let held = self.sequencer.hold();
        let flushed = if self.store.is_read_only() || self.queue.lock().failed.is_some() {
            Ok(())
        } else {
            self.drain().and_then(|()| self.flush())
        };
        self.is_closed.store(true, Ordering::Release);
        self.subscribers.close();
        self.store.close();
        drop(held);
        flushed
    }

    /// Gives the newest commit that was accepted since the store was opened.
    pub(crate) fn newest_slot(&self) -> Option<Arc<Slot>> {
        self.queue.lock().newest.clone()
    }

    /// Waits until everything that was accepted is carried; the caller holds the sequencer.
    pub(crate) fn drain(&self) -> Result<()> {
        let newest = self.queue.lock().newest.clone();
        match newest {
            Some(slot) => self.drive(&slot).map(drop),
            None => Ok(()),
        }
    }

    /// Counts the rows of a table in the newest published view.
    pub(crate) fn count(&self, table: Table) -> Result<u64> {
        self.store.current()?.count(table)
    }
}
