//! The place of the commit log, beside that of the store.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_format::LOG_BLOCK;

use super::backend::{BackendState, Medium};
use super::direct::Direct;
use super::storage::Storage;
use super::{names, place};
use crate::error::{Error, ErrorKind, Result};

/// The longest log that is read, in bytes; those that are written are much shorter.
const LENGTH_MAX: u64 = (1 << 30) + LOG_BLOCK as u64;

/// The file of a commit log.
#[derive(Debug)]
pub(crate) struct LogFile {
    medium: Medium,
    /// For what is synced at once.
    direct: Option<Direct>,
    state: BackendState,
}

impl LogFile {
    fn of(medium: Medium) -> Self {
        Self { medium, direct: None, state: BackendState::default() }
    }

    /// Reads all of it.
    pub(crate) fn read_all(&self) -> Result<Vec<u8>> {
        let reading = |error| place::io_error("reading the commit log", error);
        let length = self.medium.len().map_err(reading)?.min(LENGTH_MAX);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.medium.read(0, &mut bytes).map_err(reading)?;
        Ok(bytes)
    }

    /// Writes; what was not written for want of room is [`StoreFull`](ErrorKind::StoreFull).
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.state
            .write(bytes.len(), || self.medium.write(offset, bytes))
            .map_err(|error| place::io_error("writing the commit log", error))
    }

    /// Writes whole blocks that are synced next, as [`write`](Self::write) does; the sooner for it if their memory is aligned.
    pub(crate) fn write_to_sync(&self, offset: u64, blocks: &[u8]) -> Result<()> {
        let writing = || match &self.direct {
            Some(direct) if direct.write(offset, blocks)? => Ok(()),
            _ => self.medium.write(offset, blocks),
        };
        self.state
            .write(blocks.len(), writing)
            .map_err(|error| place::io_error("writing the commit log", error))
    }

    /// Puts what was written on disk. A sync that failed is the last one.
    pub(crate) fn sync(&self) -> Result<()> {
        self.state
            .sync(|| self.medium.sync())
            .map_err(|error| place::io_error("syncing the commit log", error))
    }

    /// Gives what was done so far.
    pub(crate) fn state(&self) -> &BackendState {
        &self.state
    }
}

/// Where the commit log lies.
#[derive(Debug)]
pub(crate) enum Beside {
    /// In a file with the name of the store's and `-log` behind it.
    File(PathBuf),
    /// Where the caller said.
    Custom(Arc<dyn Storage>),
    /// There is none: what has to be on disk is committed into the store itself.
    Nothing,
    /// There is none, nor a disk: nothing outlives the process.
    Memory,
}

impl Beside {
    /// The place beside a file.
    pub(crate) fn of(store: &Path) -> Result<Self> {
        Ok(Self::file(&place::resolve(store)?))
    }

    /// The place beside the store at a resolved path.
    pub(super) fn file(store: &Path) -> Self {
        Self::File(Self::path(store))
    }

    /// The name of the log beside a store's.
    pub(super) fn path(store: &Path) -> PathBuf {
        let mut name = OsString::from(store);
        name.push("-log");
        name.into()
    }

    /// Tells whether there is a place for a log.
    pub(crate) fn has_log(&self) -> bool {
        matches!(self, Self::File(_) | Self::Custom(_))
    }

    /// Tells where that is, for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Custom(_) => "the storage of the commit log".to_owned(),
            Self::Nothing | Self::Memory => "no commit log".to_owned(),
        }
    }

    /// Opens what lies there, if something does. With `read_only` it is not changed.
    pub(crate) fn open(&self, read_only: bool) -> Result<Option<LogFile>> {
        let opening = |error| place::io_error("opening the commit log", error);
        match self {
            Self::Nothing | Self::Memory => Ok(None),
            Self::Custom(storage) => {
                let length = storage.len().map_err(opening)?;
                Ok((length > 0).then(|| LogFile::of(Medium::Custom(Box::new(Arc::clone(storage))))))
            }
            Self::File(path) => {
                match fs::symlink_metadata(path) {
                    Ok(metadata) if metadata.is_file() => {}
                    Ok(_) => {
                        let what = format!("{} is not a file", path.display());
                        return Err(ErrorKind::LogDiverged { what }.into());
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(opening(error)),
                }
                let file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(opening)?;
                let direct = if read_only { None } else { Direct::open(path, &file) };
                let medium = if read_only { Medium::copy_on_write(file) } else { Medium::file(file) };
                medium.map(|medium| Some(LogFile { direct, ..LogFile::of(medium) })).map_err(opening)
            }
        }
    }

    /// Makes it, with these bytes and then zeros up to a length, on disk with its name; for those who may use the file `like` it.
    pub(crate) fn make(&self, like: Option<&Path>, bytes: &[u8], length: u64) -> Result<LogFile> {
        let writing = |error| place::io_error("making the commit log", error);
        let fill = |medium: &Medium| {
            medium
                .set_len(length)
                .and_then(|()| medium.write(0, bytes))
                .and_then(|()| medium.sync())
                .map_err(writing)
        };
        match self {
            Self::File(path) => {
                place::create_new(path, like, |medium| fill(&medium))?;
                self.open(false)?.ok_or_else(|| Error::new(ErrorKind::NoSuchFile))
            }
            Self::Custom(storage) => {
                let medium = Medium::Custom(Box::new(Arc::clone(storage)));
                fill(&medium)?;
                Ok(LogFile::of(medium))
            }
            Self::Nothing | Self::Memory => Err(ErrorKind::Closed.into()),
        }
    }

    /// Takes away what lies in its place, if anything does: what a try to make it left.
    pub(crate) fn clear_away(&self) -> Result<()> {
        match self {
            Self::File(path) if fs::symlink_metadata(path).is_ok() => self.remove(),
            // What lies there is overwritten.
            _ => Ok(()),
        }
    }

    /// Takes it away.
    pub(crate) fn remove(&self) -> Result<()> {
        let removing = |error| place::io_error("removing the commit log", error);
        match self {
            Self::File(path) => names::remove(path)
                .and_then(|()| names::sync_directory(place::directory_of(path)))
                .map_err(removing),
            Self::Custom(storage) => storage.set_len(0).and_then(|()| storage.sync()).map_err(removing),
            Self::Nothing | Self::Memory => Ok(()),
        }
    }

    /// Puts it out of the way, under another name, and tells which; what had that name before goes.
    pub(crate) fn set_aside(&self) -> Result<String> {
        let Self::File(path) = self else {
            self.remove()?;
            return Ok("nowhere".to_owned());
        };
        let mut aside = OsString::from(path);
        aside.push(".discarded");
        names::rename(path, Path::new(&aside))
            .and_then(|()| names::sync_directory(place::directory_of(path)))
            .map_err(|error| place::io_error("setting the commit log aside", error))?;
        Ok(Path::new(&aside).display().to_string())
    }
}
