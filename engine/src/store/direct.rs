//! Writes past the page cache, for what is written once, synced at once and read only after a crash.
//!
//! The kernel copies nothing and has nothing to write back when the sync comes: on the machine of `benches/RESULTS.md`
//! a block of 4 KiB is on disk in five sixths of the time. What is written is as durable as any other write: after the
//! next sync.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::backend::is_no_room;

/// A second handle of a file, for whole blocks.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    is_refused: AtomicBool,
}

impl Direct {
    /// Opens a file once more, if it is still the one at this path and its file system can do this.
    #[cfg(target_os = "linux")]
    pub(super) fn open(path: &Path, same: &File) -> Option<Self> {
        use std::fs::OpenOptions;
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

        use rustix::fs::OFlags;

        let flags = (OFlags::DIRECT | OFlags::NOFOLLOW).bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).ok()?;
        let (this, that) = (file.metadata().ok()?, same.metadata().ok()?);
        let is_same = (this.dev(), this.ino()) == (that.dev(), that.ino());
        is_same.then_some(Self { file, is_refused: AtomicBool::new(false) })
    }

    /// Elsewhere there is no such thing.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn open(_: &Path, _: &File) -> Option<Self> {
        None
    }

    /// Writes blocks whose memory, place and length are multiples of [`LOG_BLOCK`](larder_format::LOG_BLOCK). False, from then on, where that cannot be done, as when they have to be aligned otherwise; nothing can
    /// be said of what lies there then, until it is written in the usual way, which tells what is wrong with the disk.
    ///
    /// # Errors
    /// Want of room.
    pub(super) fn write(&self, offset: u64, blocks: &[u8]) -> io::Result<bool> {
        if self.is_refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match write_all_at(&self.file, blocks, offset) {
            Ok(()) => Ok(true),
            Err(error) if is_no_room(&error) => Err(error),
            Err(_) => {
                self.is_refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
        }
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn write_all_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_format::LOG_BLOCK;
    use rkyv::util::AlignedVec;

    #[test]
    fn what_is_not_aligned_is_refused_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create_new(&path).unwrap();
        // Some file systems have no such handle; then there is nothing to show.
        let Some(direct) = Direct::open(&path, &file) else { return };
        let mut blocks = AlignedVec::<LOG_BLOCK>::new();
        blocks.resize(2 * LOG_BLOCK, 7);
        if !direct.write(0, &blocks).unwrap() {
            return;
        }
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 2 * LOG_BLOCK]);
        assert!(!direct.write(1, &blocks[..LOG_BLOCK]).unwrap());
        assert!(!direct.write(0, &blocks).unwrap());
    }

    #[test]
    fn another_file_at_the_path_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("file"), directory.path().join("other"));
        let file = File::create_new(&path).unwrap();
        std::fs::write(&other, b"of somebody else").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(Direct::open(&path, &file).is_none());
    }
}
