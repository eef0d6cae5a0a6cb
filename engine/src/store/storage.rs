//! What the application gives a store to lie on: its code, and so nothing that is relied on not to panic.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::reason_of;

/// What a store can lie on, other than a file or memory: a test with faults, a device, another process.
///
/// The storage behaves like one file that is opened by its position: a sequence of bytes, all of which
/// can be read and written from several threads at once. A store on it can be no safer than it is.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a storage is empty")]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Gives the length in bytes. A new storage has 0; anything else is taken for a store.
    ///
    /// # Errors
    /// When the length cannot be told.
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` with the bytes from `offset` on: what was last written there, synced or not.
    ///
    /// # Errors
    /// When not all of `out` lies below the length (`UnexpectedEof`), or cannot be read. Never fewer
    /// bytes than asked for, and never others.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Sets the length. New bytes are zero; bytes beyond the new length are gone, and are zero when the
    /// storage grows over them again.
    ///
    /// # Errors
    /// When there is no room (`StorageFull`, `QuotaExceeded`, `FileTooLarge`), or it fails otherwise.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when everything written and every length set before it is safe from a loss of power.
    ///
    /// # Errors
    /// When any of it may not be safe. It is not called again after that.
    fn sync(&self) -> io::Result<()>;

    /// Writes all of `data` from `offset` on. Until the next [`sync`](Self::sync) a loss of power may
    /// leave all, some or none of it.
    ///
    /// # Errors
    /// When not all of it was written; some of it may have been.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Locks the storage against every other user of it until [`close`](Self::close), without waiting.
    /// Gives false when somebody else has it locked. Called once, before anything else.
    ///
    /// What only this process can reach, and only once, has nothing to lock: true, which is the default.
    ///
    /// # Errors
    /// When it cannot be told whether the storage is locked; it is then not opened.
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Tells how many bytes can still be written, where that can be told.
    fn room(&self) -> Option<u64> {
        None
    }

    /// Keeps this many bytes for the storage, really: what it has can be written up to there, whatever else happens; 0 gives
    /// them back. Without one, a store that meets a full disk may have to be opened again with more room.
    ///
    /// # Errors
    /// When they cannot be had, or there is no such thing here.
    fn set_reserve(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Releases the lock and whatever else is held. After it the storage is locked again, or nothing is called.
    ///
    /// # Errors
    /// When something could not be released.
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Storage + ?Sized> Storage for Arc<S> {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        (**self).read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        (**self).set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write(offset, data)
    }

    fn try_lock(&self) -> io::Result<bool> {
        (**self).try_lock()
    }

    fn room(&self) -> Option<u64> {
        (**self).room()
    }

    fn set_reserve(&self, bytes: u64) -> io::Result<()> {
        (**self).set_reserve(bytes)
    }

    fn close(&self) -> io::Result<()> {
        (**self).close()
    }
}

/// A storage whose panics are errors: wherever it is called, on whichever thread, that thread goes on, and a sync that panicked
/// has failed.
#[derive(Debug)]
pub(super) struct Shielded(pub(super) Arc<dyn Storage>);

fn shielded<R>(call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(io::Error::other(format!("the storage of the application panicked: {}", reason_of(&*panic))))
    })
}

impl Storage for Shielded {
    fn len(&self) -> io::Result<u64> {
        shielded(|| self.0.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        shielded(|| self.0.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        shielded(|| self.0.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        shielded(|| self.0.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        shielded(|| self.0.write(offset, data))
    }

    fn try_lock(&self) -> io::Result<bool> {
        shielded(|| self.0.try_lock())
    }

    fn room(&self) -> Option<u64> {
        shielded(|| Ok(self.0.room())).ok().flatten()
    }

    fn set_reserve(&self, bytes: u64) -> io::Result<()> {
        shielded(|| self.0.set_reserve(bytes))
    }

    fn close(&self) -> io::Result<()> {
        shielded(|| self.0.close())
    }
}
