//! A shorter file in the place of the one that there is, while others read and write.

use super::Commit;
use crate::error::Result;

impl Commit {
    /// Copies the store into a file as short as it can be, and goes on with that. Who writes meanwhile waits when the
    /// overlay is full, or a large payload is to be staged. Gives the lengths before and after.
    pub(crate) fn compact(&self, each: &mut dyn FnMut(u64) -> Result<()>) -> Result<(u64, u64)> {
        self.check_writable()?;
        self.drain_all()?;
        // Nothing is drained until the copy is in place.
        let drained = self.drain.drained.lock();
        // First the log: what is durable in the new file must be there too.
        self.sync_log().inspect_err(|error| self.fail(error))?;
        let lengths = self.store.replace_by_copy(each)?;
        self.overlay.rebase(self.store.view()?, &drained);
        self.log.lock().note_checkpoint(drained.sequence);
        Ok(lengths)
    }
}
