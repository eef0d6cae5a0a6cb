//! When there is no room: refusing early what grows, and starting over after a write that found none.
//!
//! ```text
//! plenty ── room runs low, or a write found none ──▶ full: only what makes room is accepted, the reserve is theirs
//!   ▲                                                  │
//!   └──── there is room again, and for the reserve ◀───┘
//! ```
//!
//! redb answers nothing any more after an error. So the file is opened again, which takes it back to its last checkpoint;
//! what is visible since then is taken from the commit log; the log goes, and everything that was accepted and not
//! visible with it: those who wait for it were told. Whoever writes next does that, or the store's thread.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use larder_format::WriteSet;

use super::drain::{CAREFUL_AT_ONCE, needs_start_over};
use super::log::Log;
use super::recovery;
use super::{Commit, Held, Sequenced, count_within};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;
use crate::store::{Beside, Position};

/// The reserve where the options do not say: this much, and not more than this part of what the disk has left.
const RESERVE_BYTES: u64 = 64 << 20;
const RESERVE_PART: u64 = 8;
/// After how many bytes of write-sets room is looked for: much less than the margin.
const LOOK_EVERY_BYTES: u64 = 64 << 10;
/// With less room than this, beside what waits to be drained, nothing that grows is accepted.
const MARGIN_BYTES: u64 = 512 << 10;

/// Whether there is room, and what of it is kept.
#[derive(Debug)]
pub(super) struct Room {
    reserve_bytes: u64,
    file_bytes_max: u64,
    is_full: AtomicBool,
    /// Whether the store has to start over to go on, though nothing failed.
    is_to_start_over: AtomicBool,
    /// How many bytes were carried since room was looked for.
    carried: AtomicU64,
    /// How many bytes of payloads were removed or refused since it was full, less what came.
    freed: AtomicI64,
}

impl Room {
    pub(super) fn new(options: &Options, room: Option<u64>) -> Self {
        let usual = || room.map_or(0, |room| (room / RESERVE_PART).min(RESERVE_BYTES) & !4_095);
        Self {
            reserve_bytes: options.reserve_bytes.unwrap_or_else(usual),
            file_bytes_max: options.file_bytes_max,
            is_full: AtomicBool::new(false),
            is_to_start_over: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            freed: AtomicI64::new(0),
        }
    }
}

/// Which part of the file has to be free, at most, for it to be made shorter for want of room.
const WORTH_COMPACTING: u64 = 8;

/// How large a write-set is that is applied in parts while there is no room, in bytes.
const PARTED_FROM: usize = 16 << 10;

/// That nothing that grows may come, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoRoom {
    used: u64,
    limit: u64,
    pinned: u64,
    reserve: u64,
}

impl NoRoom {
    /// Says so.
    pub(crate) fn refusal(&self) -> Error {
        let Self { used, limit, pinned, reserve } = *self;
        let doing = "what is to be stored".to_owned();
        ErrorKind::StoreFull { doing, used, limit, pinned, reserve }.into()
    }
}

impl Commit {
    /// Takes the reserve, and looks whether there is room.
    pub(super) fn begin_room(&self) {
        if self.store.is_read_only() {
            return;
        }
        self.set_limit(true);
        if !self.store.hold_reserve(self.room.reserve_bytes) {
            self.enter_full();
        }
        self.look_for_room();
    }

    /// The reserve is out of what the file may have, as long as it is kept.
    fn set_limit(&self, is_reserve_kept: bool) {
        let kept = if is_reserve_kept { self.room.reserve_bytes } else { 0 };
        let limit = match self.room.file_bytes_max {
            u64::MAX => u64::MAX,
            max => max.saturating_sub(kept),
        };
        self.store.backend_state().set_limit(limit);
    }

    fn margin(&self) -> u64 {
        MARGIN_BYTES + 2 * self.drain.bytes() as u64
    }

    fn enter_full(&self) {
        self.room.is_full.store(true, Ordering::Release);
    }

    /// Looks for room once so many bytes were carried.
    pub(crate) fn look_for_room_now_and_then(&self, bytes: u64) {
        if self.room.carried.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) >= LOOK_EVERY_BYTES {
            self.room.carried.store(0, Ordering::Relaxed);
            self.look_for_room();
        }
    }

    /// Refuses what grows from now on, if room has run low.
    pub(super) fn look_for_room(&self) {
        if self.store.room().is_some_and(|room| room < self.margin()) {
            self.enter_full();
        }
    }

    /// Tells whether nothing that grows is accepted.
    pub(crate) fn is_full(&self) -> bool {
        self.room.is_full.load(Ordering::Acquire)
    }

    /// Gives the reserve away after a write to the log that found no room; tells whether there was one.
    pub(super) fn may_use_reserve(&self, error: &Error) -> bool {
        let is_room = matches!(error.kind(), ErrorKind::StoreFull { .. });
        let is_final = self.has_failed.load(Ordering::Acquire) || self.log.lock().has_failed_sync();
        if !is_room || is_final || self.store.reserve_held() == 0 {
            return false;
        }
        self.enter_full();
        self.give_reserve();
        true
    }

    /// Gives the reserve away before the file is written to, where the room without it may not do: only what makes room is
    /// accepted by then.
    pub(super) fn make_room_to_drain(&self) {
        let needed = 4 * self.margin();
        if self.is_full()
            && self.store.reserve_held() > 0
            && self.store.room().is_some_and(|room| room < needed)
        {
            self.give_reserve();
        }
    }

    fn give_reserve(&self) {
        self.store.release_reserve();
        self.set_limit(false);
    }

    /// Tells whether nothing that grows may come; looks whether that has changed.
    pub(crate) fn no_room(&self, pinned: impl FnOnce() -> u64) -> Option<NoRoom> {
        if !self.is_full() || self.leave_full() {
            return None;
        }
        let state = self.store.backend_state();
        let (used, reserve) = (state.used(), self.store.reserve_held());
        let limit = match (self.room.file_bytes_max, self.store.room()) {
            (u64::MAX, Some(room)) => used.saturating_add(room),
            (u64::MAX, None) => 0,
            (max, _) => max,
        };
        Some(NoRoom { used, limit, pinned: pinned(), reserve })
    }

    /// Goes back to plenty, if there is room for what comes and for the reserve.
    fn leave_full(&self) -> bool {
        let wanted = self.room_to_leave();
        let is_room = match self.store.room() {
            Some(room) => room >= wanted,
            // Where it cannot be told, it is tried.
            None if self.store.reserve_held() == 0 => {
                let is_room = self.store.hold_reserve(wanted);
                self.store.release_reserve();
                is_room
            }
            None => true,
        };
        if !is_room || !self.store.hold_reserve(self.room.reserve_bytes) {
            return false;
        }
        self.set_limit(true);
        self.room.freed.store(0, Ordering::Release);
        self.room.is_full.store(false, Ordering::Release);
        true
    }

    /// Notes by how much payloads grew or shrank with a transaction.
    pub(crate) fn note_growth(&self, bytes: impl FnOnce() -> i64) {
        if self.is_full() {
            self.room.freed.fetch_sub(bytes(), Ordering::AcqRel);
        }
    }

    /// Notes what was staged of a payload that is refused.
    pub(crate) fn note_refused(&self, bytes: usize) {
        if self.is_full() || self.has_failed.load(Ordering::Acquire) {
            self.room.freed.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::AcqRel);
        }
    }

    /// Tells how many bytes the reserve should have.
    pub(crate) fn reserve_wanted(&self) -> u64 {
        self.room.reserve_bytes
    }

    /// Gives what is said to who comes after a failure: `Poisoned`, unless the store can start over.
    pub(super) fn failure(&self) -> Option<Error> {
        let failed = self.queue.lock().failed.clone()?;
        let is_full = matches!(failed.kind(), ErrorKind::StoreFull { .. });
        // redb may meet the full disk first where it tells nobody, and answer everything with that later.
        let has_met_end = self.store.backend_state().is_full();
        let is_helped = (is_full || has_met_end || self.is_to_start_over()) && self.can_start_over();
        Some(match (is_helped, is_full, has_met_end) {
            (false, ..) => ErrorKind::Poisoned { by: failed.to_string() }.into(),
            (true, true, _) => failed,
            (true, false, true) => ErrorKind::no_room("what was to be stored").into(),
            (true, false, false) => ErrorKind::Interrupted.into(),
        })
    }

    /// Tells whether everything that is visible can be had again from the file as it was, and the log.
    pub(super) fn can_start_over(&self) -> bool {
        self.store.backend_state().failed_sync().is_none()
            && !self.log.lock().has_failed_sync()
            && self.store.beside().has_log()
    }

    /// Lets whoever writes next start over.
    pub(super) fn ask_to_start_over(&self) {
        self.room.is_to_start_over.store(true, Ordering::Release);
        self.hurry();
    }

    pub(super) fn is_to_start_over(&self) -> bool {
        self.room.is_to_start_over.load(Ordering::Acquire)
    }

    pub(super) fn has_to_start_over(&self) -> bool {
        if self.has_failed.load(Ordering::Acquire) {
            self.failure().is_some_and(|error| !is_final(&error))
        } else {
            (self.is_to_start_over() || self.store.backend_state().has_failed_read()) && self.can_start_over()
        }
    }

    /// Starts over after a write that found no room, if there was one, for who does not hold the sequencer.
    pub(crate) fn heal_now(&self) -> Result<()> {
        if !self.has_to_start_over() {
            return Ok(());
        }
        self.sequencer.check_not_nested()?;
        self.heal(&mut self.sequencer.hold())
    }

    /// Starts over after a write that found no room, if there was one; gives back what was freed, if that is enough to go
    /// on as usual.
    pub(crate) fn heal(&self, held: &mut Held<'_>) -> Result<()> {
        // Whoever waited for the turn may find the store closed.
        self.check_open()?;
        if self.has_to_start_over() {
            self.heal_failed(held)?;
        }
        let freed = self.room.freed.load(Ordering::Acquire).max(0).cast_unsigned();
        if self.is_full()
            && freed >= self.room_to_leave().min(self.store.backend_state().used() / WORTH_COMPACTING)
        {
            self.room.freed.store(0, Ordering::Release);
            // With more of it in the file than on the disk, it would be full again at once.
            if self.store.room().is_some_and(|room| room < freed) || !self.leave_full() {
                if self.give_back().is_err() {
                    self.heal_failed(held)?;
                }
                self.leave_full();
            }
        }
        Ok(())
    }

    /// How much room there has to be to go back to plenty: for what comes, and for the reserve.
    fn room_to_leave(&self) -> u64 {
        let wanted = if self.store.can_hold_reserve() { self.room.reserve_bytes } else { 0 };
        let missing = wanted.saturating_sub(self.store.reserve_held());
        missing.saturating_add(2 * self.margin())
    }

    fn heal_failed(&self, held: &mut Held<'_>) -> Result<()> {
        // Nothing more is accepted; what was is told that it failed.
        self.wait_until_idle();
        let mut drained = self.drain.drained.lock();
        self.drain.is_behind.store(true, Ordering::Relaxed);
        let _alone = self.syncing.lock();
        let visible = self.overlay.head();
        let mut log = self.log.lock();
        self.enter_full();
        self.make_room_to_drain();
        let mut done = self.start_over(&mut log, &visible);
        if matches!(&done, Err(error) if matches!(error.kind(), ErrorKind::StoreFull { .. })) {
            // This is what it was kept for.
            self.give_reserve();
            done = self.start_over(&mut log, &visible);
        }
        let begun = done.and_then(|()| self.begin_again(&visible));
        // The file may be behind what was drained into it: nothing goes on from there, and nobody takes the log for settled.
        **held = begun.inspect_err(|error| {
            // It is tried again by who writes next, and by the store's thread when it has slept.
            self.room.is_to_start_over.store(true, Ordering::Release);
            self.refuse_all(error);
        })?;
        *drained = visible;
        self.drain.is_behind.store(false, Ordering::Relaxed);
        self.nothing_is_due();
        let mut queue = self.queue.lock();
        (queue.failed, queue.newest) = (None, None);
        self.has_failed.store(false, Ordering::Release);
        self.room.is_to_start_over.store(false, Ordering::Release);
        crate::trace::note("started over for want of room", 1);
        Ok(())
    }

    /// Puts everything in memory over a file that has all that is visible.
    fn begin_again(&self, visible: &Position) -> Result<Sequenced> {
        let snapshot = self.store.view()?;
        self.drain.start_over();
        self.overlay.start_over(snapshot, visible);
        Sequenced::load(&self.overlay.committed()?, self.documents())
    }

    /// Opens the file again, and makes everything durable in it that is visible. The log goes.
    fn start_over(&self, log: &mut Log, visible: &Position) -> Result<()> {
        let uploads = self.store.reopen()?;
        let at = self.store.view()?.head()?;
        log.cut(visible.sequence)?;
        let _ = log.write_out();
        if let Some((file, _)) = log.file() {
            // Of what is applied in steps, a crash may leave the first ones: the log has to have all of it.
            file.sync()?;
        }
        let [logged, gathered] = self.pending(log, &at, visible)?;
        self.apply_carefully(&logged)?;
        if let Some((last, _)) = gathered.last() {
            // There was no room in the log for these.
            self.store.apply(&write_sets_of(&gathered), last, true)?;
        }
        let left = self.store.view()?.uploads()?;
        self.store.unstage(&uploads.into_iter().filter(|id| left.contains(id)).collect::<Vec<_>>())?;
        if self.store.log_in_use()?.is_some() {
            self.store.set_log_in_use(None)?;
        }
        if log.file().is_some() {
            self.store.beside().remove()?;
        }
        log.start_over(visible.sequence);
        Ok(())
    }

    /// Leaves what is visible in the log, where it cannot be brought into the store: the next open does that.
    ///
    /// # Errors
    /// Why something that is visible is lost, if it is.
    pub(super) fn leave_in_log(&self) -> Result<()> {
        // Whoever is at it may have handed something to the log that is not visible yet, and is taken back here; and whoever waits
        // for what was accepted is told that it failed.
        self.wait_until_idle();
        if matches!(self.store.beside(), Beside::Memory) {
            return Ok(());
        }
        let _alone = self.syncing.lock();
        let (visible, failure) = (self.overlay.head().sequence, self.failure());
        let mut log = self.log.lock();
        log.cut(visible)?;
        if let Some((file, upto)) = log.write_out()? {
            file.sync()?;
            log.note_synced(upto);
        }
        if log.synced() >= visible { Ok(()) } else { Err(failure.unwrap_or_else(needs_start_over)) }
    }

    /// Applies what the log has, a little at a time and durably.
    pub(super) fn apply_carefully(&self, write_sets: &[(Position, WriteSet)]) -> Result<()> {
        for step in steps(write_sets) {
            let Some((last, _)) = step.last() else { continue };
            if step.iter().any(|(_, write_set)| is_large(write_set)) {
                for (position, write_set) in step {
                    self.store.apply_in_parts(write_set, position)?;
                }
                continue;
            }
            self.store.apply(&write_sets_of(step), last, true)?;
        }
        Ok(())
    }

    /// The write-sets that are visible and not in the file: those in the log, and those on their way into it.
    fn pending(&self, log: &Log, at: &Position, visible: &Position) -> Result<[Pending; 2]> {
        let mut logged = match log.file() {
            Some((file, header)) => recovery::write_sets_after(file, header, at)?,
            None => Vec::new(),
        };
        logged.retain(|(position, _)| position.sequence <= visible.sequence);
        let end = |pending: &Pending, at| pending.last().map_or(at, |(position, _)| *position);
        let logged_end = end(&logged, *at);
        let gathered = log.gathered_after(&logged_end)?;
        let end = end(&gathered, logged_end);
        if end == *visible {
            Ok([logged, gathered])
        } else {
            Err(ErrorKind::LogDamaged { readable: end.sequence, synced: visible.sequence }.into())
        }
    }

    /// Gives back what the file is longer than it has to be, in place: for want of room for a copy. Readers are lost.
    pub(super) fn compact_in_place(&self) -> Result<()> {
        let _held = self.sequencer.hold();
        self.check_open()?;
        self.give_back()
    }

    /// The same, for the holder of the sequencer. After an error the store has to start over.
    fn give_back(&self) -> Result<()> {
        self.give_back_unnoted().inspect_err(|error| self.fail(error))
    }

    fn give_back_unnoted(&self) -> Result<()> {
        self.settle()?;
        self.drain_all()?;
        let drained = self.hold_drained()?;
        self.sync_log()?;
        self.store.flush()?;
        self.store.reopen()?;
        let trimmed = self.store.trim();
        self.overlay.rebase(self.store.view()?, &drained);
        self.log.lock().note_checkpoint(drained.sequence);
        trimmed
    }
}

/// Tells whether a failure is one that only opening the store again helps.
pub(super) fn is_final(failure: &Error) -> bool {
    matches!(failure.kind(), ErrorKind::Poisoned { .. })
}

/// Write-sets that are to be applied, with the state after each.
type Pending = Vec<(Position, WriteSet)>;

fn write_sets_of(pending: &[(Position, WriteSet)]) -> Vec<&WriteSet> {
    pending.iter().map(|(_, write_set)| write_set).collect()
}

/// Tells whether a write-set is applied in parts while there is no room.
pub(super) fn is_large(write_set: &WriteSet) -> bool {
    write_set.as_bytes().len() > PARTED_FROM
}

/// Cuts what is to be applied into durable steps.
fn steps(pending: &[(Position, WriteSet)]) -> impl Iterator<Item = &[(Position, WriteSet)]> {
    let mut rest = pending;
    std::iter::from_fn(move || {
        let count = count_within(rest.iter().map(|(_, write_set)| write_set), CAREFUL_AT_ONCE);
        let (now, later) = rest.split_at(count);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}
