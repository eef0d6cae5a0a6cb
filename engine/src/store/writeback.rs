//! Pages on their way to the disk before anybody waits for them.
//!
//! What redb writes stays in the page cache until a sync, which then puts all of it in the disk's queue at once; a sync of
//! the commit log that comes meanwhile waits behind. Written back a few pages at a time, it leaves the disk idle in between.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::turn::Turn;

/// How many pieces are remembered; of more the sync takes care.
const PIECES_MAX: usize = 1 << 17;
/// How much is written back at a time, in bytes: on a disk that takes 100 us for a page at random places, a wait of a
/// millisecond at most.
const AT_ONCE: u64 = 64 << 10;
/// How long the disk is then left to others.
const PAUSE: Duration = Duration::from_micros(500);

/// A file that is synced at leisure: as long as nobody else wants a turn.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) file: File,
    pub(super) turn: Arc<Turn>,
}

/// What was written since the last sync.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Offsets and lengths, as they came.
    pieces: Mutex<Vec<(u64, u64)>>,
    pace: Mutex<Option<Pace>>,
}

impl Unsynced {
    pub(super) fn note(&self, offset: u64, length: u64) {
        let mut pieces = self.pieces.lock();
        if pieces.len() >= PIECES_MAX {
            pieces.sort_unstable();
            pieces.dedup();
            if pieces.len() > PIECES_MAX / 2 {
                pieces.clear();
            }
        }
        pieces.push((offset, length));
    }

    /// Says at what pace the next syncs are made ready; at none if there is hurry.
    pub(super) fn set_pace(&self, pace: Option<Pace>) {
        *self.pace.lock() = pace;
    }

    /// Gives what was written, in the order of the file, each place once, and forgets it.
    fn take(&self) -> Vec<(u64, u64)> {
        let mut pieces = std::mem::take(&mut *self.pieces.lock());
        pieces.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (offset, length) in pieces {
            match runs.last_mut() {
                Some((begin, before)) if offset <= *begin + *before && *before < AT_ONCE => {
                    *before = (*before).max(offset + length - *begin);
                }
                _ => runs.push((offset, length)),
            }
        }
        runs
    }

    /// Makes a sync ready that comes next: has what it would write written, at the pace that was set. A hint: whether it
    /// arrives, the sync tells.
    pub(super) fn write_back(&self) {
        let pieces = self.take();
        let pace = self.pace.lock();
        let Some(Pace { file, turn }) = &*pace else { return };
        let mut begun = 0;
        for (offset, length) in pieces {
            write_back(file, offset, length);
            begun += length;
            if begun >= AT_ONCE {
                begun = 0;
                if !turn.pause(PAUSE) {
                    return;
                }
            }
        }
    }
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
    fn each_place_is_written_back_once_and_in_order() {
        let unsynced = Unsynced::default();
        for offset in [3, 1, 2, 1, 9] {
            unsynced.note(offset * 4_096, 4_096);
        }
        unsynced.note(9 * 4_096, 8_192);
        assert_eq!(unsynced.take(), [(4_096, 3 * 4_096), (9 * 4_096, 8_192)]);
        assert_eq!(unsynced.take(), []);
        unsynced.note(0, 1);
        unsynced.write_back();
        assert_eq!(unsynced.take(), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let unsynced = Unsynced::default();
        for number in 0..2 * PIECES_MAX as u64 {
            unsynced.note(number * 8_192, 4_096);
        }
        assert!(unsynced.take().len() <= PIECES_MAX);
    }
}
