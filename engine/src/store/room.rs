//! Room: how much there is, how much may be used, and a reserve that is really allocated.
//!
//! The reserve is a file without a name beside the store's: it has blocks of the disk for as long as the store is open, and
//! gives them back at once when they are needed, or when the process ends in whatever way.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Storage;
use crate::error::Result;

/// What is kept free for deleting, and for bringing to rest what was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    file: Mutex<Option<File>>,
    held: AtomicU64,
}

impl Reserve {
    /// Tells how many bytes it has.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Takes so many bytes of the disk that a folder is on; tells whether there is room for them.
    fn hold(&self, beside: &Path, bytes: u64) -> bool {
        let mut file = self.file.lock();
        if file.is_some() || bytes == 0 {
            return true;
        }
        self.note_tried(bytes, allocate(beside, bytes).map(|allocated| *file = Some(allocated)))
    }

    /// Notes what came of a try to have so many bytes kept free. Where there is no such thing as a reserve, none is held, and
    /// that is no want of room.
    fn note_tried(&self, bytes: u64, tried: io::Result<()>) -> bool {
        self.held.store(if tried.is_ok() { bytes } else { 0 }, Ordering::Release);
        tried.map_or_else(|error| error.kind() == io::ErrorKind::Unsupported, |()| true)
    }

    /// Gives everything back.
    pub(super) fn release(&self) {
        *self.file.lock() = None;
        self.held.store(0, Ordering::Release);
    }
}

fn allocate(beside: &Path, bytes: u64) -> io::Result<File> {
    let file = tempfile::tempfile_in(super::place::directory_of(beside))?;
    allocate_in(&file, bytes)?;
    Ok(file)
}

#[cfg(target_os = "linux")]
fn allocate_in(file: &File, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
}

/// Elsewhere there is no safe call for it: what is not allocated is no reserve.
#[cfg(not(target_os = "linux"))]
fn allocate_in(_: &File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Tells how many bytes the disk has left for whoever is not its administrator, where that can be told.
#[cfg(unix)]
fn disk_room(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(super::place::directory_of(path)).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn disk_room(_: &Path) -> Option<u64> {
    None
}

impl super::Store {
    /// Tells how many bytes can still be written, where that can be told: what the disk has left, and the limit.
    pub(crate) fn room(&self) -> Option<u64> {
        let disk = match &self.custom {
            Some(storage) => storage.room(),
            None => self.path().and_then(|path| disk_room(&path)),
        };
        let below_limit = match self.state.limit() {
            u64::MAX => None,
            limit => Some(limit.saturating_sub(self.state.used())),
        };
        [disk, below_limit].into_iter().flatten().min()
    }

    /// Tells whether there is anything to take a reserve from.
    pub(crate) fn can_hold_reserve(&self) -> bool {
        self.custom.is_some() || self.path().is_some()
    }

    /// Takes a reserve, unless there is one, or cannot be one here; tells whether there is room for it.
    pub(crate) fn hold_reserve(&self, bytes: u64) -> bool {
        match (&self.custom, self.path()) {
            (Some(_), _) if bytes == 0 || self.reserve.held() > 0 => true,
            (Some(storage), _) => self.reserve.note_tried(bytes, storage.set_reserve(bytes)),
            (None, Some(path)) => self.reserve.hold(&path, bytes),
            (None, None) => true,
        }
    }

    /// Gives the reserve back to the disk.
    pub(crate) fn release_reserve(&self) {
        if let Some(storage) = &self.custom {
            // It held one, so it can let go of it.
            let _ = storage.set_reserve(0);
        }
        self.reserve.release();
    }

    /// Tells how many bytes the reserve has.
    pub(crate) fn reserve_held(&self) -> u64 {
        self.reserve.held()
    }

    /// Closes the file and opens it again: after an error, redb answers nothing any more. What was not durable is gone;
    /// views that are held are lost. Gives the ids of the uploads that end with it, for who knows which of them were used.
    pub(crate) fn reopen(&self) -> Result<Vec<u64>> {
        let _turn = self.turn.take();
        let old = self.current();
        old.lose();
        self.state.start_over();
        let next = match (&self.custom, old.file()) {
            (Some(storage), _) => {
                let medium = super::Medium::Custom(Box::new(Arc::clone(storage)));
                self.start_again(medium, None)?
            }
            (None, Some(file)) => {
                let opening = |error| super::place::io_error("opening the file again", error);
                let same = file.try_clone().map_err(opening)?;
                let medium = file.try_clone().and_then(super::Medium::file).map_err(opening)?;
                self.start_again(medium, Some(same))?
            }
            (None, None) => match &self.memory {
                Some(memory) => self.start_again(super::Medium::Memory(Arc::clone(memory)), None)?,
                // It is only read, of what is in nobody's way.
                None => return Ok(Vec::new()),
            },
        };
        let uploads = Arc::new(super::Snapshot::of(next.begin_read()?, Arc::clone(&next))).uploads()?;
        *self.current.write() = next;
        self.reopened.fetch_add(1, Ordering::AcqRel);
        Ok(uploads)
    }

    /// Tells how often the file was opened again: what was staged before is not there any more.
    pub(crate) fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::Acquire)
    }

    fn start_again(&self, medium: super::Medium, file: Option<File>) -> Result<Arc<super::Generation>> {
        let backend = super::Backend::new(medium, Arc::clone(&self.state));
        let identity = self.current().file_identity().cloned();
        let mut again = Self::start(backend, self.cache_bytes, None, identity)?;
        if let Some(file) = file {
            again.current.get_mut().keep_file(file);
        }
        Ok(again.into_generation())
    }
}
