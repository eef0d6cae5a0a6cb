//! From an accepted transaction to a durable one, and from there into the store.
//!
//! ```text
//! accept ─▶ queue ─▶ carry: log, one sync for all ─▶ show ─▶ wake who waits
//!   │                                                 │
//!   ▼                                                 ▼ behind it, in large batches in the order of keys
//! overlay: layers over a view of the store ◀──────── drain ─▶ store ─▶ checkpoint, now and then
//! ```
//!
//! Transactions are sequenced one at a time, by a lock that is taken for the length of a closure. What a closure
//! leaves is a write-set; it goes into a layer, where later closures see it, and into a queue. Whoever finds
//! nobody at work takes the whole queue, writes it to the log in one batch, syncs once, makes it visible and wakes
//! those whose commits it carried; then it hands the lead to one of those who came meanwhile (group commit by
//! combining: D. Hendler et al., "Flat Combining and the Synchronization-Parallelism Tradeoff", SPAA 2010).
//! What is visible is drained into the store later, which nobody waits for.
//!
//! Invariants
//! 1. Write-sets reach the log, and the store, in the order of their sequence numbers, without gaps.
//! 2. A commit is reported as done only after it is as durable as it was asked to be, and visible.
//! 3. After a failure nothing more is accepted: what depended on the failed write-sets fails with them. What was
//!    acknowledged before stays visible, and lies in the log for the next open.
//! 4. A layer is dropped only when everything in it has been drained.
//! 5. A segment of the log is used again only when everything in it is durable in the store.

mod compact;
mod drain;
mod log;
mod overlay;
mod recovery;
mod room;
mod sequencer;
mod ticket;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use larder_format::{FeedRow, Key, StateIdentity, WriteSet};
use parking_lot::{Condvar, Mutex, RwLock};

use drain::Drain;
use log::{Appended, Log};
use overlay::Overlay;
pub(crate) use overlay::{Layer, Said};
pub use recovery::RecoveryReport;
pub(crate) use recovery::write_sets_in;
pub(crate) use room::NoRoom;
use room::Room;
use sequencer::this_thread;
pub(crate) use sequencer::{Held, Sequenced, Sequencer};
pub use ticket::{CommitInfo, CommitTicket};
pub(crate) use ticket::{Slot, Woken, wake};

use crate::cache::{CacheStatistics, RecordCache};
use crate::columns::Columns;
use crate::documents::Documents;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Row;

use crate::larder::InputOutput;
use crate::options::Options;
use crate::store::{Beside, FORMATS, Position, Store, Table, UpgradeReport, shield};
use crate::subscription::Subscribers;
use crate::txn::View;

/// How much is carried in one batch at most, in bytes.
const CARRIED_AT_ONCE: u64 = 8 << 20;

/// How many batches a thread carries in a row that nobody waits for.
const LED_IN_A_ROW: u64 = 256;

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

/// How far a clock has gone back at least that is not only looked at a moment earlier, in microseconds.
const CLOCK_BACK_MIN: i64 = 1_000_000;

/// When a flush is due, and when that was said, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FlushDue {
    at: i64,
    since: i64,
}

/// An accepted write-set on its way.
pub(crate) struct Accepted {
    pub(crate) write_set: WriteSet,
    pub(crate) info: CommitInfo,
    /// What the clock said, in microseconds: not the time of the commit, which never goes back.
    pub(crate) now: i64,
    /// The identity of the state that it builds on.
    pub(crate) base: StateIdentity,
    pub(crate) durability: Durability,
    /// Whether somebody may be waiting for a claim that it frees.
    pub(crate) frees_claims: bool,
    pub(crate) documents: Option<Arc<Documents>>,
    pub(crate) feed: Arc<FeedRow>,
    /// The number of what was staged for it and has to be on disk before it, if anything was.
    pub(crate) staged: Option<u64>,
    pub(crate) slot: Arc<Slot>,
}

impl Accepted {
    /// Gives the state after it.
    fn head(&self) -> Position {
        Position { sequence: self.info.sequence, time: self.info.time, identity: self.write_set.identity() }
    }
}

/// Wakes those who wait for a claim to be freed.
#[derive(Default)]
pub(crate) struct Freed {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Freed {
    /// Tells how often claims were freed.
    pub(crate) fn count(&self) -> u64 {
        *self.count.lock()
    }

    fn tell(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    /// Waits until claims were freed since a count was taken, or so long; tells whether they were.
    pub(crate) fn wait(&self, since: u64, wait: std::time::Duration) -> bool {
        let mut count = self.count.lock();
        if *count == since {
            self.changed.wait_for(&mut count, wait);
        }
        *count != since
    }
}

/// Who carries what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Leader {
    #[default]
    Nobody,
    /// Somebody who was told to, and has not begun.
    Called,
    /// This thread.
    Thread(NonZeroUsize),
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Accepted>,
    leader: Leader,
    /// The newest that was accepted, carried or not.
    newest: Option<Arc<Slot>>,
    failed: Option<Error>,
}

/// The commit path of one store.
pub(crate) struct Commit {
    store: Store,
    sequencer: Sequencer,
    queue: Mutex<Queue>,
    /// Told whenever nobody leads any more.
    unled: Condvar,
    overlay: Overlay,
    log: Mutex<Log>,
    log_segment_length: u64,
    carried_at_once: usize,
    /// Held while a segment of the log is made free: who comes second finds it done.
    freeing: Mutex<()>,
    /// Held while the log is synced: of two syncs at once, the kernel tells only one that pages were lost.
    syncing: Mutex<()>,
    drain: Drain,
    room: Room,
    documents: RwLock<Arc<Documents>>,
    subscribers: Subscribers,
    freed: Freed,
    recovery: Option<RecoveryReport>,
    upgrade: Option<UpgradeReport>,
    waker: Sender<()>,
    is_inline: bool,
    is_closed: AtomicBool,
    /// Whether something failed: a quick look at the queue's `failed`.
    has_failed: AtomicBool,
    /// When what is visible and not on disk has to be there, if ever.
    flush_due: Mutex<Option<FlushDue>>,
    /// What went wrong last.
    last_error: Mutex<Option<Error>>,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}

impl Commit {
    /// Takes a store that was opened, with what its log has. `waker` wakes the thread that drains, if there is one.
    pub(crate) fn new(mut store: Store, options: &Options, waker: Sender<()>) -> Result<Self> {
        let recovery = recovery::recover(&store, options.discard_log)?;
        let upgrade = store.upgrade(&FORMATS, options.upgrade)?;
        let cache = RecordCache::new(options.cache_of_records(), Columns::new(options.column_bytes));
        let overlay = Overlay::new(store.view()?, cache)?;
        let view = overlay.committed()?;
        let documents = Arc::new(Documents::read(view.snapshot())?);
        let sequenced = Sequenced::load(&view, Arc::clone(&documents))?;
        let head = overlay.head();
        let log_segment_length = options.log_segment_bytes;
        let room = Room::new(options, store.room());
        let commit = Self {
            store,
            sequencer: Sequencer::new(sequenced),
            queue: Mutex::default(),
            unled: Condvar::new(),
            overlay,
            log: Mutex::new(Log::new(&head, Arc::clone(&options.ids), log_segment_length)),
            log_segment_length,
            // Batches fill a segment, and do not end where the next finds no room in it.
            carried_at_once: usize::try_from(CARRIED_AT_ONCE.min(log_segment_length / 4))
                .unwrap_or(usize::MAX),
            freeing: Mutex::default(),
            syncing: Mutex::default(),
            drain: Drain::new(head),
            room,
            documents: RwLock::new(documents),
            subscribers: Subscribers::default(),
            freed: Freed::default(),
            recovery,
            upgrade,
            waker,
            is_inline: options.inline,
            is_closed: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            flush_due: Mutex::default(),
            last_error: Mutex::default(),
        };
        commit.begin_room();
        Ok(commit)
    }

    /// Tells what was found beside the store when it was opened.
    pub(crate) fn recovery(&self) -> Option<&RecoveryReport> {
        self.recovery.as_ref()
    }

    /// Tells how the file was brought to the current format when it was opened.
    pub(crate) fn upgrade(&self) -> Option<&UpgradeReport> {
        self.upgrade.as_ref()
    }

    /// Gives what was read and written since the store was opened.
    pub(crate) fn input_output(&self) -> InputOutput {
        let mut input_output = self.store.input_output();
        self.log.lock().count(&mut input_output);
        input_output
    }

    /// Lets the store's thread know that somebody waits for it.
    pub(crate) fn hurry(&self) {
        self.store.hurry();
        self.wake();
    }

    /// Lets the store's thread know that there is something to do.
    fn wake(&self) {
        // A full channel has a wake-up in it already.
        let _ = self.waker.try_send(());
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

    pub(crate) fn freed(&self) -> &Freed {
        &self.freed
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
        self.overlay.accepted()
    }

    /// Gives the view of all that is committed.
    pub(crate) fn committed_view(&self) -> Result<View> {
        self.check_open()?;
        if self.has_failed.load(Ordering::Acquire) {
            // As it is, the file answers nothing. If it cannot be helped, the reader is told.
            let _ = self.heal_now();
        }
        self.overlay.committed()
    }

    /// Reads the page of a record ahead of the turn, where that is not free: whoever has it waits for the disk alone, and so
    /// does everybody else. Only a hint, but a disk that cannot be read is told at once: redb tells it only once.
    pub(crate) fn read_ahead(&self, key: &Key) -> Result<()> {
        if !self.sequencer.is_taken() {
            return Ok(());
        }
        let read = self.overlay.committed()?.snapshot().get_with(Table::Records, key.encoded(), |_| ());
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::Io { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Hands the row of a key, as the newest commit has it, to `take`, if it is in the cache of records; and its payload, which
    /// is empty if it is not there.
    pub(crate) fn cached<R>(&self, key: &[u8], take: impl FnOnce(&Row, &bytes::Bytes) -> R) -> Option<R> {
        self.overlay.cached(key, take)
    }

    /// Tells how well the cache of records does.
    pub(crate) fn cache_statistics(&self) -> CacheStatistics {
        self.overlay.cache().statistics()
    }

    /// Says why nothing is accepted, if so.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.store.is_read_only() {
            return Err(ErrorKind::ReadOnly.into());
        }
        // What only wants room is started over by who writes next.
        match self.failure() {
            Some(error) if room::is_final(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Brings everything that is visible into the store, where it can be changed, for those who read past the overlay.
    pub(crate) fn bring_in(&self) -> Result<()> {
        if self.check_writable().is_err() {
            return self.check_open();
        }
        self.heal_now()?;
        self.drain_all()
    }

    /// Gives what went wrong last.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.last_error.lock().clone()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(ErrorKind::Closed.into()) } else { Ok(()) }
    }

    /// Takes in a write-set; the caller holds the sequencer, so that the order is that of the sequence numbers.
    pub(crate) fn accept(&self, accepted: Accepted) -> Result<()> {
        self.overlay.absorb(accepted.info.sequence, &accepted.write_set)?;
        let mut queue = self.queue.lock();
        queue.newest = Some(Arc::clone(&accepted.slot));
        queue.waiting.push_back(accepted);
        Ok(())
    }

    /// Waits for a commit, leading others where nobody does.
    pub(crate) fn drive(&self, slot: &Slot) -> Result<CommitInfo> {
        if let Some(outcome) = slot.outcome() {
            return outcome;
        }
        self.lead_if_free();
        loop {
            match slot.wait_within(None) {
                Some(Woken::Done(outcome)) => return outcome,
                Some(Woken::ToLead) => self.lead(),
                Some(Woken::ToTakeTurn) | None => {}
            }
        }
    }

    /// Carries what waits, if nobody else is at it.
    pub(crate) fn lead_if_free(&self) {
        {
            let mut queue = self.queue.lock();
            if queue.leader != Leader::Nobody || queue.waiting.is_empty() {
                return;
            }
            queue.leader = Leader::Called;
        }
        self.lead();
    }

    /// Carries one batch, then hands the lead on.
    pub(crate) fn lead(&self) {
        for led in 0_u64.. {
            let batch = self.take_batch();
            if !batch.is_empty() {
                self.carry(&batch);
            }
            let heirs: Vec<Arc<Slot>> = {
                let mut queue = self.queue.lock();
                let is_done = queue.waiting.is_empty();
                if is_done || (led >= LED_IN_A_ROW && !self.is_inline) {
                    queue.leader = Leader::Nobody;
                    drop(queue);
                    self.unled.notify_all();
                    // The store's thread goes on with the rest; it has other things to do in between.
                    if !is_done {
                        self.hurry();
                    }
                    return;
                }
                queue.leader = Leader::Called;
                queue.waiting.iter().map(|accepted| Arc::clone(&accepted.slot)).collect()
            };
            if heirs.iter().any(|slot| slot.hand_over()) {
                return;
            }
            // Nobody waits for these: they were submitted, and are carried here.
        }
    }

    /// Waits until everything that was accepted is carried, or was refused, and nobody is at it any more; but for this thread,
    /// which may be one that tells others what it carried.
    fn wait_until_idle(&self) {
        loop {
            self.lead_if_free();
            let mut queue = self.queue.lock();
            match queue.leader {
                Leader::Nobody if queue.waiting.is_empty() => return,
                Leader::Nobody => {}
                Leader::Thread(thread) if thread == this_thread() => return,
                Leader::Called | Leader::Thread(_) => self.unled.wait(&mut queue),
            }
        }
    }

    /// Takes what is carried together: as much as fits, or one write-set that is too large for the log.
    fn take_batch(&self) -> Vec<Accepted> {
        let mut queue = self.queue.lock();
        queue.leader = Leader::Thread(this_thread());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = queue.waiting.front() {
            bytes += next.write_set.as_bytes().len();
            let is_alone = !self.log_takes(next);
            if !batch.is_empty() && (is_alone || bytes > self.carried_at_once) {
                break;
            }
            batch.extend(queue.waiting.pop_front());
            if is_alone {
                break;
            }
        }
        batch
    }

    fn carry(&self, batch: &[Accepted]) {
        let Some(last) = batch.last() else { return };
        let outcome = match self.failure() {
            Some(error) => Err(error),
            // The storage may be the application's, and panic at any moment.
            None => shield("commit", || Ok(self.make_safe(batch)))
                .unwrap_or_else(|panic| Err(unknown(last, panic))),
        };
        if let Err(error) = &outcome {
            self.fail(error);
            // Whatever helps: what waits already builds on this.
            self.refuse_all(error);
        }
        for accepted in batch {
            accepted.slot.complete(match &outcome {
                Ok(()) => Ok(accepted.info),
                Err(error) => Err(error.clone()),
            });
        }
        if outcome.is_ok() {
            for accepted in batch {
                self.subscribers.tell(accepted.info, &accepted.feed);
            }
            if batch.iter().any(|accepted| accepted.frees_claims) {
                self.freed.tell();
            }
            let bytes = batch.iter().map(|accepted| accepted.write_set.as_bytes().len() as u64).sum();
            self.after_carrying(bytes);
            self.ease_pressure(bytes);
        }
    }

    /// Makes a batch as durable as it was asked to be, and visible.
    fn make_safe(&self, batch: &[Accepted]) -> Result<()> {
        let Some(last) = batch.last() else { return Ok(()) };
        let is_due = self.is_flush_due(last.now);
        let sync = is_due || batch.iter().any(|accepted| accepted.durability == Durability::Synced);
        let is_taken = batch.iter().all(|accepted| self.log_takes(accepted));
        match self.store.beside() {
            Beside::Memory => {}
            Beside::Nothing if !sync => {}
            Beside::File(_) | Beside::Custom(_) if is_taken => {
                let logged = match self.log_batch(batch, sync) {
                    // What is accepted when there is no room makes some, and may have what was kept for it.
                    Err(error) if self.may_use_reserve(&error) => self.log_batch(batch, sync),
                    logged => logged,
                };
                match logged {
                    Ok(()) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::StoreFull { .. }) => {
                        self.take_back(batch, error)?;
                    }
                    Err(error) => return Err(unknown(last, error)),
                }
            }
            _ => return self.carry_through(batch),
        }
        self.drain.push(batch);
        if self.store.beside().has_log()
            && self.is_full()
            && batch.iter().any(|accepted| room::is_large(&accepted.write_set))
        {
            self.ask_to_start_over();
        }
        self.show(batch)?;
        if !sync {
            self.note_due(batch);
        }
        Ok(())
    }

    /// Notes until when a batch has to be on disk. Not before it is where a sync finds it: that ends what is due.
    fn note_due(&self, batch: &[Accepted]) {
        let due = batch.iter().filter_map(|Accepted { durability, now, .. }| match durability {
            Durability::Window { milliseconds } => {
                Some(FlushDue { at: now.saturating_add(i64::from(*milliseconds) * 1_000), since: *now })
            }
            _ => None,
        });
        if let Some(due) = due.min() {
            let mut flush_due = self.flush_due.lock();
            if flush_due.is_none_or(|known| due < known) {
                *flush_due = Some(due);
                self.hurry();
            }
        }
    }

    fn log_batch(&self, batch: &[Accepted], sync: bool) -> Result<()> {
        let Some(last) = batch.last() else { return Ok(()) };
        if let Some(staged) = batch.iter().filter_map(|accepted| accepted.staged).max()
            && !self.store.is_staged_durable(staged)
        {
            // What a write-set in the log names must be there after a crash.
            self.store.flush()?;
        }
        // It may have the batch from a try before this one.
        if self.log.lock().appended() < last.info.sequence {
            while self.log.lock().append(&self.store, batch)? == Appended::Full {
                self.free_segment_now()?;
            }
        }
        if !sync {
            return Ok(());
        }
        self.sync_log()?;
        // Whatever became of the log meanwhile: what it does not have is not acknowledged.
        if self.log.lock().synced() < last.info.sequence { Err(ErrorKind::Closed.into()) } else { Ok(()) }
    }

    fn log_takes(&self, accepted: &Accepted) -> bool {
        log::takes(self.log_segment_length, &accepted.write_set)
    }

    /// Takes a batch back that the log found no room for. Somebody who made some meanwhile may have put it on disk: then it
    /// stays, and it was no failure.
    fn take_back(&self, batch: &[Accepted], error: Error) -> Result<()> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let _alone = self.syncing.lock();
        let mut log = self.log.lock();
        if log.has_failed_sync() {
            // It is not known what that did, whatever it says.
            return Err(unknown(last, error));
        }
        if log.synced() >= last.info.sequence {
            return Ok(());
        }
        log.cut(first.info.sequence.saturating_sub(1)).map_err(|error| unknown(last, error))?;
        Err(error)
    }

    /// Puts everything that the log was handed on disk.
    fn sync_log(&self) -> Result<()> {
        let _alone = self.syncing.lock();
        if !matches!(self.store.beside(), Beside::Nothing) {
            self.nothing_is_due();
        }
        let written = self.log.lock().write_out()?;
        if let Some((file, upto)) = written {
            file.sync()?;
            self.log.lock().note_synced(upto);
        }
        Ok(())
    }

    /// Makes a batch visible.
    fn show(&self, batch: &[Accepted]) -> Result<()> {
        let Some(last) = batch.last() else { return Ok(()) };
        for accepted in batch {
            self.overlay.note(accepted.info.sequence, &accepted.write_set)?;
        }
        if let Some(documents) = batch.iter().rev().find_map(|accepted| accepted.documents.as_ref()) {
            *self.documents.write() = Arc::clone(documents);
        }
        self.overlay.show(&last.head());
        Ok(())
    }

    /// Remembers a failure: nothing more is accepted. What is only that redb has met one before, whoever was told of that, or
    /// was told late, or that the file was about to be opened again, is helped by starting over, where there is a log to do it
    /// from.
    pub(crate) fn fail(&self, error: &Error) {
        *self.last_error.lock() = Some(error.clone());
        if matches!(error.kind(), ErrorKind::Poisoned { .. } | ErrorKind::Closed)
            && self.queue.lock().failed.is_none()
            && self.can_start_over()
        {
            return self.ask_to_start_over();
        }
        self.refuse_all(error);
    }

    /// Accepts nothing more, and refuses what waits, until the store has started over if it can.
    fn refuse_all(&self, error: &Error) {
        self.queue.lock().failed.get_or_insert_with(|| error.clone());
        self.has_failed.store(true, Ordering::Release);
    }

    /// Makes everything that is visible durable.
    pub(crate) fn flush(&self) -> Result<()> {
        if let Err(error) = self.check_writable() {
            // What is visible is not lost with what failed: it goes into the log as far as that can be.
            return match error.kind() {
                ErrorKind::Poisoned { .. } => self.leave_in_log().inspect(|()| self.nothing_is_due()),
                _ => Err(error),
            };
        }
        self.heal_now()?;
        self.settle()?;
        let flushed = match self.store.beside() {
            Beside::Memory => {
                self.nothing_is_due();
                Ok(())
            }
            Beside::Nothing => self.checkpoint(),
            Beside::File(_) | Beside::Custom(_) => self.sync_log(),
        };
        flushed.inspect_err(|error| self.fail(error))
    }

    /// Tells how many microseconds there are until a flush is due; `i64::MAX` if none is.
    pub(crate) fn until_flush_due(&self, now: i64) -> i64 {
        match *self.flush_due.lock() {
            None => i64::MAX,
            // The clock went back: it does not tell how long ago that was.
            Some(due) if now.saturating_add(CLOCK_BACK_MIN) < due.since => 0,
            Some(due) => due.at.saturating_sub(now).max(0),
        }
    }

    fn is_flush_due(&self, now: i64) -> bool {
        self.until_flush_due(now) == 0
    }

    fn nothing_is_due(&self) {
        *self.flush_due.lock() = None;
    }

    /// Waits until no closure runs, then accepts nothing more and brings everything into the store.
    pub(crate) fn close(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut held = self.sequencer.hold();
        if self.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let closed = if self.store.is_read_only() { Ok(()) } else { self.bring_home_or_leave(&mut held) };
        // Who has the store copied goes on without the turn.
        let _drained = self.drain.drained.lock();
        self.is_closed.store(true, Ordering::Release);
        self.subscribers.close();
        self.overlay.close();
        self.store.close();
        drop(held);
        closed
    }

    fn bring_home_or_leave(&self, held: &mut Held<'_>) -> Result<()> {
        // What can be helped was in the way of a commit, or is in that of this.
        for _ in 0..2 {
            let _ = self.heal(held);
            if self.queue.lock().failed.is_some() {
                break;
            }
            match self.settle().and_then(|()| self.bring_home()) {
                Ok(()) => return Ok(()),
                Err(_) if self.has_to_start_over() => {}
                Err(error) => return self.leave_in_log().and(Err(error)),
            }
        }
        self.leave_in_log()
    }

    /// Gives the newest commit that was accepted since the store was opened.
    pub(crate) fn newest_slot(&self) -> Option<Arc<Slot>> {
        self.queue.lock().newest.clone()
    }

    /// Waits until everything that was accepted is carried.
    pub(crate) fn settle(&self) -> Result<()> {
        match self.newest_slot() {
            Some(slot) => self.drive(&slot).map(drop),
            None => Ok(()),
        }
    }

    /// Counts the rows of a table, up to what was drained.
    pub(crate) fn count(&self, table: Table) -> Result<u64> {
        self.overlay.committed()?.snapshot().count(table)
    }
}

/// How many of the first write-sets come to at most so many bytes together; one at least, if there is one.
fn count_within<'w>(write_sets: impl IntoIterator<Item = &'w WriteSet>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |write_set: &&WriteSet| {
        let is_first = bytes == 0;
        bytes += write_set.as_bytes().len();
        is_first || bytes <= bytes_max
    };
    write_sets.into_iter().take_while(fits).count()
}

fn unknown(last: &Accepted, error: Error) -> Error {
    Error::from(ErrorKind::OutcomeUnknown { commit: last.info.sequence }).caused_by(error)
}
