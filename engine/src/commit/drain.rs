//! From the overlay into the store: in large batches in the order of keys, behind those who commit.
//!
//! What is drained was visible before: a view of the store that has more than its reader may see would show that. It is
//! in the store then and not yet on disk there; the log still has it. A checkpoint makes it durable in the store, and its
//! segment of the log free.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_format::WriteSet;
use parking_lot::{Mutex, MutexGuard};

use super::room::is_large;
use super::{Accepted, Commit, count_within, unknown};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{ApplyError, Beside, Position};

/// From how many bytes on it is worth draining.
const WORTHWHILE: usize = 4 << 20;
/// How many bytes are drained in one go.
const DRAINED_AT_ONCE: usize = 4 << 20;
/// How many bytes are drained in one go while there is no room.
pub(super) const CAREFUL_AT_ONCE: usize = 256 << 10;
/// How many bytes may wait in the overlay before writers wait for the drain.
const WAITING_MAX: usize = 64 << 20;

/// For how long a batch waits at most for every byte it has, where little is left of the log, in nanoseconds: the last quarter
/// of a segment of the usual length lasts a second longer then.
const WAIT_NS_MAX: u64 = 240;
/// And for how long altogether.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// How often whoever makes a segment free is hurried, by a batch that cannot go on before.
const HURRIED_EVERY: Duration = Duration::from_millis(5);

/// What waits to be drained, and how far the store is.
pub(super) struct Drain {
    waiting: Mutex<Waiting>,
    /// Held by whoever drains; the last commit that is in the store.
    pub(super) drained: Mutex<Position>,
    /// Whether the store was opened again and lacks some of that, which the log has. Changed by who holds `drained`.
    pub(super) is_behind: AtomicBool,
    /// Held while the store is copied, which takes long, and by the store's thread for a step.
    copying: Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    write_sets: VecDeque<(Position, WriteSet)>,
    bytes: usize,
    /// The newest at the last look, to tell whether nothing has come since.
    seen: u64,
}

impl Drain {
    pub(super) fn new(head: Position) -> Self {
        let (waiting, drained) = (Mutex::default(), Mutex::new(head));
        Self { waiting, drained, is_behind: AtomicBool::new(false), copying: Mutex::default() }
    }

    pub(super) fn push(&self, batch: &[Accepted]) {
        let mut waiting = self.waiting.lock();
        for accepted in batch {
            waiting.bytes += accepted.write_set.as_bytes().len();
            waiting.write_sets.push_back((accepted.head(), accepted.write_set.clone()));
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Forgets what waits: the store has it.
    pub(super) fn start_over(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    /// Gives the next that are drained together, of what is visible.
    fn next(&self, at_once: usize, visible: u64) -> Vec<(Position, WriteSet)> {
        let waiting = self.waiting.lock();
        let visible = waiting.write_sets.iter().take_while(|(head, _)| head.sequence <= visible);
        let count = count_within(visible.map(|(_, write_set)| write_set), at_once);
        waiting.write_sets.iter().take(count).cloned().collect()
    }

    fn forget(&self, upto: u64) {
        let mut waiting = self.waiting.lock();
        while waiting.write_sets.front().is_some_and(|(head, _)| head.sequence <= upto) {
            if let Some((_, write_set)) = waiting.write_sets.pop_front() {
                waiting.bytes -= write_set.as_bytes().len();
            }
        }
    }

    /// Tells whether nothing has come since the last look.
    fn is_quiet(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let newest = waiting.write_sets.back().map_or(0, |(head, _)| head.sequence);
        newest == std::mem::replace(&mut waiting.seen, newest)
    }
}

impl Commit {
    /// Holds up who drains; gives the last commit that is in the store.
    ///
    /// # Errors
    /// Where the store was to start over and could not: nothing may be built on what it has.
    pub(super) fn hold_drained(&self) -> Result<MutexGuard<'_, Position>> {
        let drained = self.drain.drained.lock();
        if self.drain.is_behind.load(Ordering::Relaxed) { Err(needs_start_over()) } else { Ok(drained) }
    }

    /// Drains once; tells whether there was something to drain.
    fn drain_some(&self) -> Result<bool> {
        self.make_room_to_drain();
        let mut drained = self.hold_drained()?;
        // Where there is no room, little at a time and durably: the pages of the step before can then be used again.
        let is_careful = self.store.beside().has_log() && self.is_full();
        let at_once = if is_careful { CAREFUL_AT_ONCE } else { DRAINED_AT_ONCE };
        // A batch waits here a moment before it is visible.
        let batch = self.drain.next(at_once, self.overlay.head().sequence);
        let Some((head, _)) = batch.last() else { return Ok(false) };
        if is_careful {
            if batch.iter().any(|(_, write_set)| is_large(write_set)) {
                // With a view of what was before, no page of it could be used again: it is done by starting over.
                self.ask_to_start_over();
                return Ok(false);
            }
            self.sync_log()?;
            self.apply_carefully(&batch)?;
        } else {
            let write_sets: Vec<&WriteSet> = batch.iter().map(|(_, write_set)| write_set).collect();
            self.store.apply(&write_sets, head, false)?;
        }
        *drained = *head;
        self.overlay.rebase(self.store.view()?, head);
        self.drain.forget(head.sequence);
        self.look_for_room();
        Ok(true)
    }

    /// Drains everything that is visible.
    pub(crate) fn drain_all(&self) -> Result<()> {
        self.drain_upto(u64::MAX)
    }

    /// Drains what is visible up to a commit, be it with some that come behind it.
    fn drain_upto(&self, upto: u64) -> Result<()> {
        if self.store.is_read_only() {
            return Ok(());
        }
        while self.drain.drained.lock().sequence < upto
            && self.drain_some().inspect_err(|error| self.fail(error))?
        {}
        Ok(())
    }

    /// Takes a view of the store that has what was staged meanwhile.
    pub(crate) fn refresh(&self) -> Result<()> {
        let drained = self.hold_drained()?;
        self.overlay.rebase(self.store.view()?, &drained);
        Ok(())
    }

    /// Makes everything that is visible durable in the store.
    pub(super) fn checkpoint(&self) -> Result<()> {
        if self.checkpoint_upto(u64::MAX, || self.store.flush())? { Ok(()) } else { Err(needs_start_over()) }
    }

    /// Makes that segment of the log free whose turn it was, if it is not, by this way of making durable what was drained;
    /// `false` where the store has to start over first. Of what is not in it no more is drained than has to be: who writes
    /// might never let it end.
    fn free_segment(&self, flush: impl FnOnce() -> Result<()>) -> Result<bool> {
        self.free_segment_held(&self.freeing.lock(), flush)
    }

    /// The same, in haste: also whoever is at it already has to be.
    pub(super) fn free_segment_now(&self) -> Result<()> {
        let freeing = loop {
            self.store.hurry();
            if let Some(freeing) = self.freeing.try_lock_for(HURRIED_EVERY) {
                break freeing;
            }
        };
        let is_free = self.free_segment_held(&freeing, || self.store.flush())?;
        if is_free { Ok(()) } else { Err(needs_start_over()) }
    }

    fn free_segment_held(
        &self,
        _alone: &MutexGuard<'_, ()>,
        flush: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        let waits_for = self.log.lock().waits_for();
        waits_for.map_or(Ok(true), |upto| self.checkpoint_upto(upto, flush))
    }

    /// Makes what is visible up to a commit durable in the store, by this way of making durable what was drained; `false` where
    /// the store has to start over first.
    fn checkpoint_upto(&self, upto: u64, flush: impl FnOnce() -> Result<()>) -> Result<bool> {
        self.make_room_to_drain();
        if matches!(self.store.beside(), Beside::Nothing) {
            // What comes behind the drain is due still.
            self.nothing_is_due();
        }
        self.drain_upto(upto)?;
        if self.is_to_start_over() {
            return Ok(false);
        }
        let upto = self.hold_drained()?.sequence;
        // First the log: what is durable in the store must be there too, or a crash would leave a gap in it.
        self.sync_log().inspect_err(|error| self.fail(error))?;
        flush().inspect_err(|error| self.fail(error))?;
        self.log.lock().note_checkpoint(upto);
        Ok(true)
    }

    /// Refuses to go on where something that is visible was not drained: what is large waits for a start over.
    fn check_drained(&self, drained: &Position) -> Result<()> {
        if drained.sequence == self.overlay.head().sequence { Ok(()) } else { Err(needs_start_over()) }
    }

    /// Applies a batch to the store at once, and makes it durable there: for what the log does not take.
    pub(super) fn carry_through(&self, batch: &[Accepted]) -> Result<()> {
        let Some(last) = batch.last() else { return Ok(()) };
        self.drain_all()?;
        let mut drained = self.hold_drained()?;
        // Nothing may be put in front of what waits.
        self.check_drained(&drained)?;
        let (head, write_sets) =
            (last.head(), batch.iter().map(|accepted| &accepted.write_set).collect::<Vec<_>>());
        self.nothing_is_due();
        self.store.apply(&write_sets, &head, true).map_err(|error| match error {
            ApplyError::Before(error) => error,
            ApplyError::Unknown(error) => unknown(last, error),
        })?;
        self.log.lock().skip_to(head.sequence);
        *drained = head;
        self.show(batch)?;
        self.overlay.rebase(self.store.view()?, &head);
        Ok(())
    }

    /// Does for those who come next what nobody waits for.
    pub(super) fn after_carrying(&self, bytes: u64) {
        self.look_for_room_now_and_then(bytes);
        if self.drain.bytes() >= if self.is_full() { CAREFUL_AT_ONCE } else { WORTHWHILE } {
            if self.is_inline {
                // There is no thread that would do it. A failure is remembered, and met by the next writer.
                let _ = self.drain_all();
            } else {
                self.wake();
            }
        }
    }

    /// Hurries whoever makes a segment of the log free, and waits for that a little, the longer the less is left of the
    /// other: the next batches would meet its end, and wait for all of it.
    pub(super) fn ease_pressure(&self, bytes: u64) {
        let Some(pressure) = self.log.lock().pressure() else { return };
        self.hurry();
        let part = (2.0 * pressure - 1.0).max(0.0);
        let wait_max = Duration::from_nanos(bytes.saturating_mul(WAIT_NS_MAX)).min(WAIT_MAX);
        let _freed = self.freeing.try_lock_for(wait_max.mul_f64(part));
    }

    /// Waits until there is room in the overlay, helping to make it.
    pub(crate) fn wait_for_room(&self) -> Result<()> {
        while self.drain.bytes() > WAITING_MAX && self.queue.lock().failed.is_none() {
            if !self.drain_some().inspect_err(|error| self.fail(error))? {
                break;
            }
        }
        Ok(())
    }

    /// Waits until nobody else copies the store and its thread is between two steps, and keeps it so. Who holds a turn must not
    /// wait here.
    pub(super) fn begin_copying(&self) -> MutexGuard<'_, ()> {
        self.drain.copying.lock()
    }

    /// Keeps the store from being copied for a step of its thread; nothing if it is: then the thread sees to other things.
    pub(crate) fn hold_off_copying(&self) -> Option<MutexGuard<'_, ()>> {
        self.drain.copying.try_lock()
    }

    /// Does a step of draining or a checkpoint if it is time to, taking its time while there is no haste since; tells whether
    /// there may be more to do.
    pub(crate) fn drain_if_due(&self, since: u64) -> Result<bool> {
        if self.store.is_read_only() || self.queue.lock().failed.is_some() {
            return Ok(false);
        }
        if self.store.beside().has_log() {
            // Only to be ahead: if there is no room, the next who commits is told.
            let _ = self.log.lock().write_ahead();
        }
        if self.log.lock().waits_for().is_some() {
            return self.free_segment(|| self.store.flush_at_leisure(since));
        }
        if self.drain.bytes() >= WORTHWHILE {
            // Not all of it: a segment may have to be made free meanwhile.
            return self.drain_some().inspect_err(|error| self.fail(error));
        }
        if self.drain.is_quiet() && self.drain.bytes() > 0 {
            self.drain_all()?;
        }
        Ok(false)
    }

    /// Brings everything into the store, and takes the log away: the file alone is the store again. Where there is no room
    /// to do it at once the log stays, with everything in it.
    pub(super) fn bring_home(&self) -> Result<()> {
        self.drain_all()?;
        let drained = self.hold_drained().and_then(|drained| self.check_drained(&drained));
        if drained.is_err() {
            self.sync_log()?;
            return drained;
        }
        if self.log.lock().file().is_none() {
            return self.store.flush();
        }
        // If the file cannot be written, it is all in the log.
        self.sync_log()?;
        self.store.set_log_in_use(None).inspect_err(|error| self.fail(error))?;
        self.log.lock().release();
        self.store.beside().remove()
    }
}

pub(super) fn needs_start_over() -> Error {
    ErrorKind::no_room("a large transaction at once").into()
}
