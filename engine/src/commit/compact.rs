//! A shorter file in the place of the one that there is, while others read and write.

use super::Commit;
use crate::error::{ErrorKind, Result};

impl Commit {
    /// Makes the log, if there is room.
    fn begin_log(&self) -> Result<()> {
        if !self.store.beside().has_log() || self.is_full() {
            return Ok(());
        }
        let _alone = self.syncing.lock();
        let begun = self.log.lock().begin(&self.store);
        begun.inspect_err(|error| self.fail(error))
    }

    /// Copies the store into a file as short as it can be, and goes on with that. Who writes meanwhile waits when the
    /// overlay is full, or a large payload is to be staged. Without room for the copy it is done in place, and readers are
    /// lost. Gives the lengths before and after.
    pub(crate) fn compact(&self, each: &mut dyn FnMut(u64) -> Result<()>) -> Result<(u64, u64)> {
        self.check_writable()?;
        self.sequencer.check_not_nested()?;
        let _copying = self.begin_copying();
        self.bring_in()?;
        let held = self.sequencer.hold();
        // Who closes does so in a turn: either that has been, or it waits for the copy.
        self.check_open()?;
        // Whoever commits next would wait for the copy with it in hand, and with him all who want to know of the log.
        self.begin_log()?;
        // Nothing is drained until the copy is in place.
        let drained = self.hold_drained()?;
        drop(held);
        // First the log: what is durable in the new file must be there too.
        self.sync_log().inspect_err(|error| self.fail(error))?;
        let before = self.store.backend_state().length();
        match self.store.replace_by_copy(each) {
            Err(error) if matches!(error.kind(), ErrorKind::StoreFull { .. }) => {
                drop(drained);
                self.compact_in_place()?;
                Ok((before, self.store.backend_state().length()))
            }
            Err(error) => Err(error),
            Ok((lengths, synced)) => {
                self.overlay.rebase(self.store.view()?, &drained);
                // After a loss of power it may be the old file that has the name.
                synced.inspect_err(|error| self.fail(error))?;
                self.log.lock().note_checkpoint(drained.sequence);
                Ok(lengths)
            }
        }
    }
}
