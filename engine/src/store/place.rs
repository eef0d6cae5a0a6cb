//! Files and their directories: making a store's file, finding it, and telling what keeps it from
//! being opened.
//!
//! Invariants (the tests name them):
//! 1. Under the name of a store there is nothing, or a whole store: whatever stops its creation, and
//!    wherever. (File systems without hard links: see [`create_new`].)
//! 2. Of two creators one wins, and nothing is ever replaced.
//! 3. Looking at a file that is not a store changes nothing.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use redb::{DatabaseError, StorageError};

use super::backend::{Medium, is_no_room};
use super::names;
use crate::error::{Error, ErrorKind, Result};

/// What redb's files begin with (redb 4.4, `header.rs`).
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// The header page, which every file has.
const LENGTH_MIN: u64 = 4096;

/// How many symbolic links are followed to a file that is not there yet.
const LINKS_MAX: usize = 40;

/// How many names are tried for a file under construction.
const NAMES_MAX: usize = 16;

/// Up to this length the name of a store is repeated in that of its construction (255 is the usual limit).
const NAME_REPEATED_MAX: usize = 200;

/// The steps of a creation, each told before it is done. What the listener answers counts as the outcome
/// of the step: that is how the tests fail or stop each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Make the file under another name.
    Make,
    /// Let the store be written into it.
    Fill,
    /// Sync it.
    SyncFile,
    /// Give it its name, in addition to the other one; fails when the name is taken.
    Link,
    /// Where there are no hard links: take the name with an empty file; fails when the name is taken.
    Claim,
    /// Where there are no hard links: put the file in the place of the empty one.
    Rename,
    /// Take the other name away.
    Unlink,
    /// Sync the directory.
    SyncDirectory,
    /// After an error: take away what was made.
    CleanUp,
}

type Listener<'l> = &'l mut dyn FnMut(Step) -> io::Result<()>;

/// Makes a store's file at a resolved path, where there must be nothing yet: `AlreadyExists` otherwise,
/// also when somebody else was faster, whose file is then whole and can be opened.
///
/// `fill` gets the empty file, and holds nothing of it any more when it returns.
/// The file is built under another name in the same directory (`.NAME.larder-new-` and 16 digits), synced,
/// linked to its own name, which never replaces anything, and the directory is synced. A creator that dies
/// leaves the other name behind; nobody reads it, and it can be deleted when no creator is at work.
///
/// Where there are no hard links (FAT, some network file systems) the name is first taken with an empty
/// file, which the finished one then replaces. The race is still decided, by the empty file; but between the
/// two steps it can be seen, and a crash there leaves it: it is refused as "an empty file", and has to be
/// deleted by hand.
///
/// What holds the same as another file gives its path as `like`: the new one is for those who may use that one.
///
/// # Errors
/// An error from the last step, the sync of the directory, leaves the new file in its place: somebody may
/// have it open already. All others leave nothing.
pub(crate) fn create_new(
    path: &Path,
    like: Option<&Path>,
    fill: impl FnOnce(Medium) -> Result<()>,
) -> Result<()> {
    create_in_steps(path, like, fill, &mut |_| Ok(()))
}

/// Puts another file in the place of the one at a resolved path: built under another name, synced, renamed, the directory
/// synced. `fill` gets the empty file, and which one it will be; what it gives may hold the file open. `last` comes right before the
/// new file has the name.
///
/// Gives what `fill` gave as soon as the new file has its place, beside what became of the sync of the directory.
///
/// # Errors
/// All leave what there was.
pub(crate) fn replace<R>(
    path: &Path,
    fill: impl FnOnce(File, FileIdentity) -> Result<R>,
    last: impl FnOnce() -> Result<()>,
) -> Result<(R, Result<()>)> {
    let doing = |doing: &'static str| move |error| io_error(doing, error);
    let (mut temporary, file) = make_temporary(path, Some(path), &mut |_| Ok(()))?;
    let metadata = file.metadata().map_err(doing("beginning the new file"))?;
    let same = file.try_clone().map_err(doing("beginning the new file"))?;
    let filled = fill(same, FileIdentity::of(path, &metadata))?;
    if let Some(from) = &temporary.path {
        names::sync_file(&file, from).map_err(doing("syncing the new file"))?;
        last()?;
        names::rename(from, path).map_err(doing("putting the new file in the place of the old"))?;
    }
    temporary.path = None;
    let synced = names::sync_directory(directory_of(path));
    Ok((filled, synced.map_err(doing("syncing the directory of the new file"))))
}

fn create_in_steps(
    path: &Path,
    like: Option<&Path>,
    fill: impl FnOnce(Medium) -> Result<()>,
    before: Listener<'_>,
) -> Result<()> {
    // Only to be quick: what decides is the link.
    match fs::symlink_metadata(path) {
        Ok(_) => return Err(Error::new(ErrorKind::AlreadyExists)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("looking for the file", error)),
    }
    let (mut temporary, file) = make_temporary(path, like, before)?;
    let published = fill_and_publish(path, &mut temporary, file, fill, before);
    if published.is_err() && before(Step::CleanUp).is_err() {
        temporary.path = None;
    }
    drop(temporary);
    published?;
    before(Step::SyncDirectory)
        .and_then(|()| names::sync_directory(directory_of(path)))
        .map_err(|error| io_error("syncing the directory of the new file", error))
}

fn fill_and_publish(
    path: &Path,
    temporary: &mut Temporary,
    file: File,
    fill: impl FnOnce(Medium) -> Result<()>,
    before: Listener<'_>,
) -> Result<()> {
    let doing = |doing: &'static str| move |error| io_error(doing, error);
    before(Step::Fill)
        .and_then(|()| file.try_clone())
        .and_then(Medium::file)
        .map_err(doing("beginning the new file"))
        .and_then(fill)?;
    let Some(from) = &temporary.path else { return Err(Error::new(ErrorKind::NoSuchFile)) };
    let synced = before(Step::SyncFile).and_then(|()| names::sync_file(&file, from));
    synced.map_err(doing("syncing the new file"))?;
    drop(file);
    publish(path, temporary, before).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::new(ErrorKind::AlreadyExists),
        _ => io_error("giving the new file its name", error),
    })
}

/// Gives the finished file its name, without replacing anything that has it.
fn publish(path: &Path, temporary: &mut Temporary, before: Listener<'_>) -> io::Result<()> {
    let Some(from) = temporary.path.clone() else { return Err(io::ErrorKind::NotFound.into()) };
    match before(Step::Link).and_then(|()| names::link(&from, path)) {
        Ok(()) => {
            temporary.path = None;
            // It is published: that the other name stays is no reason to fail.
            let _ = before(Step::Unlink).and_then(|()| names::remove(&from));
            Ok(())
        }
        Err(error) if has_no_links(&error) => {
            before(Step::Claim).and_then(|()| names::make(path, None))?;
            if let Err(error) = before(Step::Rename).and_then(|()| names::rename(&from, path)) {
                if before(Step::CleanUp).is_ok() {
                    // Ours: nobody else could have taken the name.
                    let _ = names::remove(path);
                }
                return Err(error);
            }
            temporary.path = None;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Tells whether a link failed because there are none: `EPERM` is Linux's answer on FAT, and Windows
/// has one of its own.
fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks
    ) || (cfg!(windows) && error.raw_os_error() == Some(1))
}

/// A file under construction, which goes when this does.
struct Temporary {
    path: Option<PathBuf>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // There is nobody to tell, and it does no harm.
            let _ = names::remove(path);
        }
    }
}

fn make_temporary(path: &Path, like: Option<&Path>, before: Listener<'_>) -> Result<(Temporary, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let Some(name) = path.file_name() else { return Err(not_ours("a directory")) };
    // Unique, not secret; it leaves no trace in the store.
    let random = RandomState::new();
    let mut tries = 0;
    loop {
        tries += 1;
        let number = random.hash_one((std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let temporary = directory_of(path).join(temporary_name(name, number));
        let made = before(Step::Make).and_then(|()| names::make(&temporary, like));
        match made {
            Ok(file) => return Ok((Temporary { path: Some(temporary) }, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < NAMES_MAX => {}
            Err(error) if is_not_there(&error) => {
                return Err(Error::new(ErrorKind::NoSuchFile).caused_by(error));
            }
            Err(error) => return Err(io_error("making the new file", error)),
        }
    }
}

fn temporary_name(name: &OsStr, number: u64) -> OsString {
    let mut temporary = OsString::from(".");
    if name.len() <= NAME_REPEATED_MAX {
        temporary.push(name);
    }
    temporary.push(format!(".larder-new-{number:016x}"));
    temporary
}

/// Gives the one path of a file, whichever way it was named: absolute, without symbolic links. The file
/// need not be there; its directory must.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&path) {
            Ok(resolved) => return Ok(resolved),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_not_there(&error) => {
                return Err(Error::new(ErrorKind::NoSuchFile).caused_by(error));
            }
            Err(error) => return Err(io_error("looking for the file", error)),
        }
        // Not there, or a link to what is not there: to create it is to create that.
        if let Ok(target) = fs::read_link(&path) {
            path = directory_of(&path).join(target);
            continue;
        }
        let Some(name) = path.file_name() else { return Err(Error::new(ErrorKind::NoSuchFile)) };
        return match fs::canonicalize(directory_of(&path)) {
            Ok(directory) => Ok(directory.join(name)),
            Err(error) if is_not_there(&error) => Err(Error::new(ErrorKind::NoSuchFile).caused_by(error)),
            Err(error) => Err(io_error("looking for the directory of the file", error)),
        };
    }
    Err(Error::new(ErrorKind::Io { doing: format!("following more than {LINKS_MAX} symbolic links") }))
}

/// Gives the directory that a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be looked at: not one byte changes.
    Read,
    /// To be changed.
    Write,
}

/// A file that looks like a store, and has not been touched yet.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The file; redb has to lock it.
    pub(crate) file: File,
    /// Which file it is.
    pub(crate) identity: FileIdentity,
}

/// Opens the file at a resolved path if it looks like a store, and changes nothing. Whoever goes on to
/// lock it asks [`FileIdentity::still_there`] afterwards: it may have been replaced in between.
pub(crate) fn open_existing(path: &Path, access: Access) -> Result<Opened> {
    // Before it is opened: to open a pipe is to wait for its other end.
    let metadata = fs::metadata(path).map_err(|error| opening_error(path, access, error))?;
    let found = if metadata.is_file() {
        None
    } else if metadata.is_dir() {
        Some("a directory")
    } else {
        Some("a device, a pipe or a socket")
    };
    if let Some(found) = found {
        return Err(not_ours(found));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(access == Access::Write)
        .open(path)
        .map_err(|error| opening_error(path, access, error))?;
    let opened = file.metadata().map_err(|error| io_error("opening the file", error))?;
    let length = opened.len();
    let mut begin = Vec::new();
    let read = (&file).take(16).read_to_end(&mut begin);
    if let Err(error) = read {
        // The locks of Windows also stop those who read.
        if cfg!(windows) && error.raw_os_error() == Some(33) {
            return Err(Error::new(ErrorKind::Locked { pid: None }).caused_by(error));
        }
        return Err(io_error("reading the beginning of the file", error));
    }
    check_beginning(&begin, length)?;
    Ok(Opened { file, identity: FileIdentity::of(path, &opened) })
}

fn check_beginning(begin: &[u8], length: u64) -> Result<()> {
    if begin.is_empty() {
        Err(not_ours("an empty file"))
    } else if !begin.starts_with(&MAGIC) {
        Err(not_ours(format!("a file that begins with \"{}\"", begin.escape_ascii())))
    } else if length < LENGTH_MIN {
        Err(not_ours(format!("a file that was cut off after {length} bytes")))
    } else {
        Ok(())
    }
}

pub(crate) fn opening_error(path: &Path, access: Access, error: io::Error) -> Error {
    // Only asked for when a file cannot be written, to tell the two refusals apart.
    let readable = || access == Access::Write && File::open(path).is_ok();
    match error.kind() {
        _ if is_not_there(&error) => Error::new(ErrorKind::NoSuchFile).caused_by(error),
        io::ErrorKind::PermissionDenied if readable() => Error::new(ErrorKind::ReadOnly).caused_by(error),
        _ => io_error("opening the file", error),
    }
}

fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn not_ours(found: impl Into<String>) -> Error {
    Error::new(ErrorKind::NotALarderFile { found: found.into() })
}

/// Makes an error of larder of one of the operating system. `doing` goes on "... failed".
pub(crate) fn io_error(doing: impl Into<String>, error: io::Error) -> Error {
    let kind = match error.kind() {
        _ if is_no_room(&error) => ErrorKind::no_room(doing),
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        _ => ErrorKind::Io { doing: doing.into() },
    };
    Error::new(kind).caused_by(error)
}

/// Makes an error of larder of redb's refusal to open a file.
pub(crate) fn open_error(path: &Path, error: DatabaseError) -> Error {
    let kind = match error {
        DatabaseError::DatabaseAlreadyOpen => {
            return Error::new(ErrorKind::Locked { pid: lock_holder(path) });
        }
        // redb's own old formats. larder began with the present one, so it is not larder's file.
        DatabaseError::UpgradeRequired(format) => {
            return not_ours(format!("a redb file of format {format}, which larder never wrote"));
        }
        DatabaseError::Storage(StorageError::Io(error)) => {
            return match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    Error::new(ErrorKind::Corrupt { what: error.to_string() })
                }
                _ => io_error("opening the file", error),
            };
        }
        DatabaseError::Storage(StorageError::Corrupted(what)) => ErrorKind::Corrupt { what },
        DatabaseError::Storage(error @ (StorageError::PreviousIo | StorageError::LockPoisoned(_))) => {
            ErrorKind::Poisoned { by: error.to_string() }
        }
        DatabaseError::Storage(StorageError::DatabaseClosed) => ErrorKind::Closed,
        DatabaseError::RepairAborted => ErrorKind::Corrupt { what: "its recovery was given up".to_owned() },
        other => {
            return Error::new(ErrorKind::Io { doing: "opening the file".to_owned() }).caused_by(other);
        }
    };
    Error::new(kind)
}

/// Which file was opened, whatever its name means later. Where files have no number (elsewhere than on
/// Unix) an open file cannot be replaced either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    path: PathBuf,
    number: Option<(u64, u64)>,
}

impl FileIdentity {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        Self { path: path.to_path_buf(), number: number_of(metadata) }
    }

    /// Gives the path that it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether the path still leads to the file. If not, it was deleted, moved or replaced, and what
    /// is written to it is lost with the handle: it must not be acknowledged. Costs one look at the name.
    pub(crate) fn still_there(&self) -> bool {
        self.number.is_none() || file_identity(&self.path) == self.number
    }
}

/// Gives the device and the number of the file at a path, where there is one and files have them.
pub(crate) fn file_identity(path: &Path) -> Option<(u64, u64)> {
    number_of(&fs::metadata(path).ok()?)
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "there is none elsewhere")]
pub(super) fn number_of(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
pub(super) fn number_of(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Gives a process that has the file locked, where that can be told: Linux lists its locks. Only a hint
/// for an error: it may be gone by now, or live in another container.
pub(crate) fn lock_holder(path: &Path) -> Option<u32> {
    if cfg!(not(target_os = "linux")) {
        return None;
    }
    let (device, inode) = file_identity(path)?;
    holder_in(&fs::read_to_string("/proc/locks").ok()?, device, inode)
}

/// Finds the holder in lines such as `1: FLOCK  ADVISORY  WRITE 708 08:01:1835011 0 EOF`. Locks of open
/// files (`OFDLCK`) have no process (-1), but redb takes the older lock beside them; a line of somebody
/// who waits has `->` after its number.
fn holder_in(locks: &str, device: u64, inode: u64) -> Option<u32> {
    // How Linux packs the numbers of a device into one.
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
    let minor = (device & 0xff) | ((device >> 12) & !0xff);
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        if fields.next()? == "->" {
            return None;
        }
        let process = fields.nth(2)?.parse().ok().filter(|process| *process > 0)?;
        (fields.next()? == wanted).then_some(process)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use redb::{Database, ReadableDatabase, TableDefinition};

    use super::super::backend::Backend;
    use super::*;

    const TABLE: TableDefinition<u64, u64> = TableDefinition::new("t");

    fn fill_with(value: u64) -> impl FnOnce(Medium) -> Result<()> {
        move |medium| {
            let backend = Backend::new(medium, Arc::default());
            let database = Database::builder().create_with_backend(backend).unwrap();
            let write = database.begin_write().unwrap();
            write.open_table(TABLE).unwrap().insert(1, value).unwrap();
            write.commit().unwrap();
            Ok(())
        }
    }

    fn value_in(path: &Path) -> u64 {
        let opened = open_existing(path, Access::Write).unwrap();
        let medium = Medium::file(opened.file).unwrap();
        let database = Database::builder().create_with_backend(Backend::new(medium, Arc::default())).unwrap();
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        table.get(1).unwrap().unwrap().value()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn found(outcome: Result<Opened>) -> String {
        match outcome.unwrap_err().kind() {
            ErrorKind::NotALarderFile { found } => found.clone(),
            other => panic!("{other:?}"),
        }
    }

    const LINKED: [Step; 6] =
        [Step::Make, Step::Fill, Step::SyncFile, Step::Link, Step::Unlink, Step::SyncDirectory];
    const RENAMED: [Step; 7] =
        [Step::Make, Step::Fill, Step::SyncFile, Step::Link, Step::Claim, Step::Rename, Step::SyncDirectory];

    #[test]
    fn a_new_file_is_made_in_order_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        let mut steps = Vec::new();
        create_in_steps(&path, None, fill_with(7), &mut |step| {
            steps.push(step);
            Ok(())
        })
        .unwrap();
        assert_eq!(steps, LINKED);
        assert_eq!(names(directory.path()), ["a.larder"]);
        assert_eq!(value_in(&path), 7);
        assert_eq!(*create_new(&path, None, fill_with(8)).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(value_in(&path), 7);
    }

    /// Invariant 1: at every step everything stops, as in a crash.
    #[test]
    fn a_creation_that_stops_leaves_nothing_or_a_whole_store() {
        for (at, stop) in LINKED.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.larder");
            let mut stopped = false;
            let outcome = create_in_steps(&path, None, fill_with(7), &mut |step| {
                stopped |= step == stop;
                if stopped { Err(io::Error::other("stopped")) } else { Ok(()) }
            });
            assert!(outcome.is_err(), "{stop:?}");
            assert_eq!(path.exists(), at > 3, "{stop:?}");
            if path.exists() {
                assert_eq!(value_in(&path), 7, "{stop:?}");
            } else {
                create_new(&path, None, fill_with(8)).unwrap();
                assert_eq!(value_in(&path), 8, "{stop:?}");
            }
        }
    }

    #[test]
    fn a_creation_that_fails_cleans_up() {
        for stop in LINKED {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.larder");
            let outcome = create_in_steps(&path, None, fill_with(7), &mut |step| {
                if step == stop { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            });
            if stop == Step::Unlink {
                // A name too many is no failure.
                outcome.unwrap();
                assert_eq!(names(directory.path()).len(), 2);
                assert_eq!(value_in(&path), 7);
                continue;
            }
            assert_eq!(outcome.unwrap_err().kind().name(), "StoreFull", "{stop:?}");
            // A directory that was not synced is a failure, with the file there.
            assert_eq!(names(directory.path()).len(), usize::from(stop == Step::SyncDirectory), "{stop:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let refused = create_new(&directory.path().join("a"), None, |_| Err(Error::new(ErrorKind::Closed)));
        assert_eq!(*refused.unwrap_err().kind(), ErrorKind::Closed);
        let path = directory.path().join("a");
        let panicked = std::panic::catch_unwind(|| create_new(&path, None, |_| panic!("on purpose")));
        assert!(panicked.is_err());
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn without_hard_links_the_file_is_renamed_over_one_of_its_own() {
        for stop in [None, Some(Step::Claim), Some(Step::Rename), Some(Step::SyncDirectory)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.larder");
            let mut steps = Vec::new();
            let outcome = create_in_steps(&path, None, fill_with(7), &mut |step| {
                steps.push(step);
                match step {
                    Step::Link => Err(io::ErrorKind::Unsupported.into()),
                    _ if Some(step) == stop => Err(io::Error::other("failed")),
                    _ => Ok(()),
                }
            });
            assert_eq!(outcome.is_err(), stop.is_some());
            match stop {
                None | Some(Step::SyncDirectory) => {
                    assert_eq!(steps, RENAMED);
                    assert_eq!(value_in(&path), 7);
                    assert_eq!(names(directory.path()), ["a.larder"]);
                }
                Some(_) => assert!(names(directory.path()).is_empty()),
            }
        }
        // The name is taken between the look and the claim.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        let outcome = create_in_steps(&path, None, fill_with(7), &mut |step| match step {
            Step::Link => Err(io::ErrorKind::PermissionDenied.into()),
            Step::Claim => fs::write(&path, "theirs"),
            _ => Ok(()),
        });
        assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(names(directory.path()), ["a.larder"]);
    }

    /// Invariant 2.
    #[test]
    fn of_many_creators_one_wins() {
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.larder");
            let barrier = Barrier::new(8);
            let winners: Vec<u64> = std::thread::scope(|scope| {
                let creators: Vec<_> = (0..8_u64)
                    .map(|value| {
                        let (path, barrier) = (&path, &barrier);
                        scope.spawn(move || {
                            let outcome = create_in_steps(path, None, fill_with(value), &mut |step| {
                                // All have looked, and seen nothing, before the first one links.
                                if step == Step::Link {
                                    barrier.wait();
                                }
                                Ok(())
                            });
                            match outcome {
                                Ok(()) => Some(value),
                                Err(error) => {
                                    assert_eq!(*error.kind(), ErrorKind::AlreadyExists);
                                    None
                                }
                            }
                        })
                    })
                    .collect();
                creators.into_iter().filter_map(|creator| creator.join().unwrap()).collect()
            });
            assert_eq!(winners.len(), 1);
            assert_eq!(value_in(&path), winners[0]);
            assert_eq!(names(directory.path()), ["a.larder"]);
        }
    }

    #[test]
    fn a_long_name_is_not_made_longer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n".repeat(255));
        create_new(&path, None, fill_with(7)).unwrap();
        assert_eq!(value_in(&path), 7);
    }

    #[test]
    fn a_directory_that_is_not_there_is_said_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("no/a.larder");
        assert_eq!(*create_new(&path, None, fill_with(7)).unwrap_err().kind(), ErrorKind::NoSuchFile);
        assert_eq!(*resolve(&path).unwrap_err().kind(), ErrorKind::NoSuchFile);
    }

    /// Invariant 3.
    #[test]
    fn what_is_no_store_is_named_and_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let cases: [(&[u8], &str); 5] = [
            (b"", "an empty file"),
            (
                b"\x89PNG\r\n\x1a\n and more than sixteen",
                r#"a file that begins with "\x89PNG\r\n\x1a\n and mor""#,
            ),
            (b"redb", r#"a file that begins with "redb""#),
            (&MAGIC, "a file that was cut off after 9 bytes"),
            (&[0; 5000], r#"a file that begins with "\x00\x00"#),
        ];
        for (bytes, expected) in cases {
            fs::write(&path, bytes).unwrap();
            let before = fs::metadata(&path).unwrap().modified().unwrap();
            for access in [Access::Read, Access::Write] {
                let found = found(open_existing(&path, access));
                assert!(found.starts_with(expected), "{found}");
            }
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        }
        assert_eq!(found(open_existing(directory.path(), Access::Write)), "a directory");
        #[cfg(unix)]
        assert_eq!(
            found(open_existing(Path::new("/dev/null"), Access::Read)),
            "a device, a pipe or a socket"
        );
        let missing = open_existing(&directory.path().join("b"), Access::Write);
        assert_eq!(*missing.unwrap_err().kind(), ErrorKind::NoSuchFile);
        let below_a_file = open_existing(&path.join("b"), Access::Write);
        assert_eq!(*below_a_file.unwrap_err().kind(), ErrorKind::NoSuchFile);
    }

    #[test]
    fn a_store_cut_off_anywhere_is_refused_or_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        create_new(&path, None, fill_with(7)).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(whole.len() / 64) {
            fs::write(&path, &whole[..length]).unwrap();
            let Ok(opened) = open_existing(&path, Access::Write) else { continue };
            let backend = Backend::new(Medium::file(opened.file).unwrap(), Arc::default());
            if let Err(error) = Database::builder().create_with_backend(backend) {
                let error = open_error(&path, error);
                assert_eq!(error.kind().name(), "Corrupt", "{length}: {error}");
            }
        }
    }

    #[test]
    fn refusals_of_the_system_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let denied = |path: &Path, access| {
            opening_error(path, access, io::ErrorKind::PermissionDenied.into()).kind().name()
        };
        // Not readable either, as far as can be told: it is not there.
        assert_eq!(denied(&path, Access::Write), "PermissionDenied");
        fs::write(&path, "x").unwrap();
        assert_eq!(denied(&path, Access::Write), "ReadOnly");
        assert_eq!(denied(&path, Access::Read), "PermissionDenied");
        let read_only = opening_error(&path, Access::Write, io::ErrorKind::ReadOnlyFilesystem.into());
        assert_eq!(read_only.kind().name(), "ReadOnly");
        assert_eq!(io_error("x", io::ErrorKind::QuotaExceeded.into()).kind().name(), "StoreFull");
        assert_eq!(io_error("x", io::ErrorKind::TimedOut.into()).kind().name(), "Io");
    }

    #[cfg(unix)]
    #[test]
    fn every_spelling_of_a_path_is_one() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        let path = root.join("d/a");
        symlink("d/a", root.join("link")).unwrap();
        symlink("link", root.join("link to link")).unwrap();
        symlink("d", root.join("e")).unwrap();
        symlink("round", root.join("round")).unwrap();
        for _ in 0..2 {
            for spelling in ["d/a", "d/./a", "d/../d/a", "e/a", "link", "link to link"] {
                assert_eq!(resolve(&root.join(spelling)).unwrap(), path, "{spelling}");
            }
            // The first time without the file, the second time with it.
            fs::write(&path, "x").unwrap();
        }
        assert!(resolve(&root.join("round")).is_err());
        assert!(resolve(&path.join("b")).is_err());
        assert!(resolve(Path::new("Cargo.toml")).unwrap().is_absolute());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_deleted_or_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        create_new(&path, None, fill_with(7)).unwrap();
        create_new(&other, None, fill_with(8)).unwrap();
        let opened = open_existing(&path, Access::Write).unwrap();
        assert!(opened.identity.still_there());
        assert_eq!(opened.identity.path(), path);
        fs::rename(&other, &path).unwrap();
        assert!(!opened.identity.still_there());

        let opened = open_existing(&path, Access::Write).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!opened.identity.still_there());
        create_new(&path, None, fill_with(9)).unwrap();
        assert!(!opened.identity.still_there());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_holder_of_the_lock_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create_new(&path, None, fill_with(7)).unwrap();
        assert_eq!(lock_holder(&path), None);
        let open = || {
            let opened = open_existing(&path, Access::Write).unwrap();
            let medium = Medium::file(opened.file).unwrap();
            Database::builder().create_with_backend(Backend::new(medium, Arc::default()))
        };
        let holder = open().unwrap();
        let error = open_error(&path, open().unwrap_err());
        assert_eq!(*error.kind(), ErrorKind::Locked { pid: Some(std::process::id()) });
        drop(holder);
        assert_eq!(lock_holder(&path), None);
    }

    #[test]
    fn the_list_of_locks_is_read() {
        let locks = "1: -> FLOCK  ADVISORY  WRITE 99 08:01:1835011 0 EOF\n\
            2: OFDLCK ADVISORY  WRITE -1 08:01:1835011 0 EOF\n\
            3: POSIX  ADVISORY  READ  11 08:02:1835011 0 EOF\n\
            4: FLOCK  ADVISORY  WRITE 708 08:01:1835011 0 EOF\n\
            5: nonsense\n\n";
        assert_eq!(holder_in(locks, 0x801, 1_835_011), Some(708));
        assert_eq!(holder_in(locks, 0x802, 1_835_011), Some(11));
        assert_eq!(holder_in(locks, 0x801, 7), None);
        // A minor number above 255: 259:1234 is packed as 0x4_103_d2.
        assert_eq!(holder_in("1: FLOCK ADVISORY WRITE 5 103:4d2:9 0 EOF", 0x0041_03d2, 9), Some(5));
    }

    #[test]
    fn errors_of_redb_get_their_kinds() {
        let path = Path::new("there is no such file");
        let kind = |error: DatabaseError| open_error(path, error).kind().clone();
        assert_eq!(kind(DatabaseError::DatabaseAlreadyOpen), ErrorKind::Locked { pid: None });
        assert_eq!(kind(DatabaseError::UpgradeRequired(2)).name(), "NotALarderFile");
        let what = "a page".to_owned();
        let corrupted = StorageError::Corrupted(what.clone());
        assert_eq!(kind(corrupted.into()), ErrorKind::Corrupt { what });
        let io = |kind: io::ErrorKind| DatabaseError::Storage(StorageError::Io(kind.into()));
        assert_eq!(kind(io(io::ErrorKind::StorageFull)).name(), "StoreFull");
        assert_eq!(kind(io(io::ErrorKind::UnexpectedEof)).name(), "Corrupt");
        assert_eq!(kind(io(io::ErrorKind::TimedOut)).name(), "Io");
        assert_eq!(kind(StorageError::PreviousIo.into()).name(), "Poisoned");
        assert_eq!(kind(DatabaseError::RepairAborted).name(), "Corrupt");
    }
}
