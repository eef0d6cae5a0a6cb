//! Pages on their way to the disk before anybody waits for them.
//!
//! What redb writes stays in the page cache until a sync, which then puts all of it in the disk's queue at once; a sync of
//! the commit log that comes meanwhile waits behind. Written back a few pages at a time, it leaves the disk idle in between.

use std::fs::File;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;

use super::turn::Turn;

/// How many pieces are remembered before those that touch are put together; of more than that the sync takes care.
const PIECES_MAX: usize = 1 << 17;
/// How much is written back at a time, in bytes: on a disk that takes 100 us for a page at random places, a wait of less
/// than two milliseconds.
const AT_ONCE: u64 = 64 << 10;
/// How long the disk is then left to others.
const PAUSE: Duration = Duration::from_micros(500);

/// A file that one thread syncs at leisure: as long as nobody else wants a turn.
#[derive(Debug)]
pub(super) struct Pace {
    file: File,
    turn: Arc<Turn>,
    since: u64,
    thread: ThreadId,
}

impl Pace {
    /// For the thread that calls, while there is no haste since.
    pub(super) fn new(file: File, turn: Arc<Turn>, since: u64) -> Self {
        Self { file, turn, since, thread: std::thread::current().id() }
    }
}

/// What was written since the last sync.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Offsets and lengths, as they came.
    pieces: Mutex<Vec<(u64, u64)>>,
    pace: Mutex<Option<Arc<Pace>>>,
}

impl Unsynced {
    pub(super) fn note(&self, offset: u64, length: u64) {
        let mut pieces = self.pieces.lock();
        if pieces.len() >= PIECES_MAX {
            *pieces = together(std::mem::take(&mut pieces));
            pieces.truncate(PIECES_MAX / 2);
        }
        pieces.push((offset, length));
    }

    /// Forgets everything: it is synced, or of no use.
    pub(super) fn forget(&self) {
        self.pieces.lock().clear();
    }

    /// Says at what pace the next syncs are made ready; at none if there is hurry.
    pub(super) fn set_pace(&self, pace: Option<Pace>) {
        *self.pace.lock() = pace.map(Arc::new);
    }

    /// Makes a sync ready that comes next: has what it would write written, at the pace that was set for this thread. A hint:
    /// whether it arrives, the sync tells.
    pub(super) fn make_ready(&self) {
        let pieces = std::mem::take(&mut *self.pieces.lock());
        let pace = self.pace.lock().clone();
        let Some(pace) = pace.filter(|pace| pace.thread == std::thread::current().id()) else { return };
        let mut begun = 0;
        for (mut offset, mut length) in together(pieces) {
            while length > 0 {
                let part = length.min(AT_ONCE - begun);
                write_back(&pace.file, offset, part);
                (offset, length, begun) = (offset + part, length - part, begun + part);
                if begun == AT_ONCE {
                    begun = 0;
                    if !pace.turn.pause(PAUSE, pace.since) {
                        return;
                    }
                }
            }
        }
    }
}

/// Puts pieces in the order of the file, each place once.
fn together(mut pieces: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    pieces.sort_unstable();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (offset, length) in pieces {
        match runs.last_mut() {
            Some((begin, before)) if offset <= *begin + *before => {
                *before = (*before).max(offset + length - *begin);
            }
            _ => runs.push((offset, length)),
        }
    }
    runs
}

/// Begins to write back. Linux does when it is told that pages will not be needed; those that are written back already
/// leave its cache, and are in redb's or read again.
#[cfg(target_os = "linux")]
fn write_back(file: &File, offset: u64, length: u64) {
    let length = std::num::NonZeroU64::new(length);
    let _ = rustix::fs::fadvise(file, offset, length, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn write_back(_: &File, _: u64, _: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_touch_are_put_together() {
        let pieces = [3, 1, 2, 1, 9].map(|page| (page * 4_096, 4_096));
        let pieces = [&pieces[..], &[(9 * 4_096, 8_192)]].concat();
        assert_eq!(together(pieces), [(4_096, 3 * 4_096), (9 * 4_096, 8_192)]);
    }

    #[test]
    fn what_was_made_ready_is_forgotten_at_a_pace_and_at_none() {
        let (unsynced, turn) = (Unsynced::default(), Arc::new(Turn::default()));
        for _ in 0..2 {
            for number in 0..100 {
                unsynced.note(number * 8_192, 4_096);
            }
            unsynced.make_ready();
            assert!(unsynced.pieces.lock().is_empty());
            unsynced.set_pace(Some(Pace::new(tempfile::tempfile().unwrap(), Arc::clone(&turn), 0)));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let unsynced = Unsynced::default();
        for number in 0..2 * PIECES_MAX as u64 {
            unsynced.note(number * 8_192, 4_096);
        }
        assert!(unsynced.pieces.lock().len() <= PIECES_MAX);
    }
}
