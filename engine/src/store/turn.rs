//! Who writes to the store, one at a time; and who may take the time for it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Held by whoever writes to the current generation, so that none is put in its place meanwhile.
#[derive(Debug, Default)]
pub(super) struct Turn {
    turn: Mutex<()>,
    haste: Mutex<Haste>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Haste {
    /// How many wait for the turn.
    waiting: usize,
    /// How often it was asked for by others, who wait for what whoever has the turn does next.
    asked: u64,
}

impl Turn {
    /// Waits for the turn, and takes it. Whoever has it does not pause meanwhile.
    pub(super) fn take(&self) -> MutexGuard<'_, ()> {
        if let Some(turn) = self.turn.try_lock() {
            return turn;
        }
        self.haste.lock().waiting += 1;
        self.changed.notify_all();
        let turn = self.turn.lock();
        self.haste.lock().waiting -= 1;
        turn
    }

    /// Tells how often there was hurry so far.
    pub(super) fn haste(&self) -> u64 {
        self.haste.lock().asked
    }

    /// Asks whoever takes pauses to take no more.
    pub(super) fn hurry(&self) {
        self.haste.lock().asked += 1;
        self.changed.notify_all();
    }

    /// Pauses for so long, or until there is hurry; tells whether there was none `since`.
    pub(super) fn pause(&self, time: Duration, since: u64) -> bool {
        let mut haste = self.haste.lock();
        let is_calm = |haste: &Haste| haste.waiting == 0 && haste.asked == since;
        if is_calm(&haste) {
            self.changed.wait_for(&mut haste, time);
        }
        is_calm(&haste)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_pause_ends_when_somebody_waits_for_the_turn() {
        let turn = Turn::default();
        let held = turn.take();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| drop(turn.take()));
            while turn.pause(LONG, 0) {}
            drop(held);
            other.join().unwrap();
        });
        assert!(turn.pause(Duration::ZERO, 0));
    }

    #[test]
    fn a_pause_ends_when_it_is_asked_to() {
        let turn = Turn::default();
        let before = turn.haste();
        turn.hurry();
        assert!(!turn.pause(LONG, before));
        assert!(turn.pause(Duration::ZERO, turn.haste()));
    }
}
