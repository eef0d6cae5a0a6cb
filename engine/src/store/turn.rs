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
    /// Whether somebody else waits for what whoever has it will do next.
    is_asked_for: bool,
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

    /// Says that there is no hurry: for who begins to take pauses.
    pub(super) fn calm(&self) {
        self.haste.lock().is_asked_for = false;
    }

    /// Asks whoever takes pauses to take no more.
    pub(super) fn hurry(&self) {
        self.haste.lock().is_asked_for = true;
        self.changed.notify_all();
    }

    /// Pauses for so long, or until there is hurry; tells whether there is none.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let mut haste = self.haste.lock();
        let is_calm = |haste: &Haste| haste.waiting == 0 && !haste.is_asked_for;
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
            while turn.pause(LONG) {}
            drop(held);
            other.join().unwrap();
        });
        assert!(turn.pause(Duration::ZERO));
    }

    #[test]
    fn a_pause_ends_when_it_is_asked_to() {
        let turn = Turn::default();
        turn.hurry();
        assert!(!turn.pause(LONG));
        turn.calm();
        assert!(turn.pause(Duration::ZERO));
    }
}
