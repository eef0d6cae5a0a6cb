//! Between redb and the bytes: every read, write, sync and lock of redb passes through [`Backend`].
//!
//! Invariants (the tests name them):
//! 1. Every method of redb's `StorageBackend` is forwarded, the locks among them: those that are left
//!    out default to "unsupported", and the file is then open to everybody.
//! 2. A failed sync is final: nothing is written, resized or synced after it, by any backend that shares
//!    the state. The kernel may have dropped the pages that it could not write, and would report the
//!    next sync of them as good.
//! 3. A file whose file system has no locks is refused. redb would go on without.
//! 4. [`CopyOnWrite`] changes no byte of its file.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{BackendError, DatabaseError, StorageBackend, StorageError};

use super::storage::Storage;
use super::writeback::Unsynced;

/// Where the bytes of a store are.
#[derive(Debug)]
pub(crate) enum Medium {
    /// In a file.
    File(FileBackend),
    /// In memory, and gone with it.
    Memory(Arc<InMemoryBackend>),
    /// In a file that is not changed; the changes are in memory.
    CopyOnWrite(CopyOnWrite),
    /// In what the application gives.
    Custom(Box<dyn Storage>),
}

impl Medium {
    /// Takes a file that was opened for reading and writing.
    pub(crate) fn file(file: File) -> io::Result<Self> {
        Ok(Self::File(file_backend(file)?))
    }

    /// Takes a file that was opened for reading, and keeps all changes in memory.
    pub(crate) fn copy_on_write(file: File) -> io::Result<Self> {
        Ok(Self::CopyOnWrite(CopyOnWrite::new(file)?))
    }

    /// Gives the length in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => file.len(),
            Self::Memory(memory) => memory.len(),
            Self::CopyOnWrite(copy) => copy.len(),
            Self::Custom(storage) => storage.len(),
        }
    }

    /// Reads exactly as many bytes as `out` has.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read(offset, out),
            Self::Memory(memory) => memory.read(offset, out),
            Self::CopyOnWrite(copy) => copy.read(offset, out),
            Self::Custom(storage) => storage.read(offset, out),
        }
    }

    /// Sets the length; what is added is zero.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_len(len),
            Self::Memory(memory) => memory.set_len(len),
            Self::CopyOnWrite(copy) => copy.set_len(len),
            Self::Custom(storage) => storage.set_len(len),
        }
    }

    /// Puts everything that was written on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_data(),
            Self::Memory(memory) => memory.sync_data(),
            // Nothing in memory outlives the process.
            Self::CopyOnWrite(_) => Ok(()),
            Self::Custom(storage) => storage.sync(),
        }
    }

    /// Writes all of `data`.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(offset, data),
            Self::Memory(memory) => memory.write(offset, data),
            Self::CopyOnWrite(copy) => copy.write(offset, data),
            Self::Custom(storage) => storage.write(offset, data),
        }
    }

    fn close(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.close(),
            Self::Memory(memory) => memory.close(),
            Self::CopyOnWrite(copy) => copy.base.close(),
            Self::Custom(storage) => storage.close(),
        }
    }
}

fn file_backend(file: File) -> io::Result<FileBackend> {
    FileBackend::new(file).map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(error)) => error,
        other => io::Error::other(other),
    })
}

/// What is known of the input and output of a store. It outlives a backend: a store that reopens its
/// redb handle passes it on, and a failed sync stays final.
#[derive(Debug, Default)]
pub(crate) struct BackendState {
    reads: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    syncs: AtomicU64,
    length: AtomicU64,
    /// Up to where anything was written, or was there before.
    used: AtomicU64,
    /// Up to where it may be, less one, so that 0 is for no limit.
    limit: AtomicU64,
    full: AtomicBool,
    /// Whether a read failed since the file was opened: redb answers nothing any more after that.
    read_failed: AtomicBool,
    failed_sync: OnceLock<String>,
    unsynced: Unsynced,
    /// One sync at a time: of two at once, the kernel tells only one that pages were lost.
    syncing: Mutex<()>,
}

impl BackendState {
    /// Gives the number of reads that were begun.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Gives the number of writes that were made.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Gives the number of bytes that were written.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// Gives the number of syncs that succeeded.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Gives up to where anything was written.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes the length of a file that is not read through here.
    pub(crate) fn note_length(&self, bytes: u64) {
        self.length.store(bytes, Ordering::Relaxed);
    }

    /// Notes up to where it was written before.
    pub(crate) fn note_used(&self, bytes: u64) {
        self.used.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Gives up to where it may be written.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed).wrapping_sub(1)
    }

    /// Sets up to where it may be written; the greatest number for no limit.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes.wrapping_add(1), Ordering::Relaxed);
    }

    /// Gives the length in bytes, as last asked for or set.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// Gives what went wrong with the first sync that failed. After it nothing is written any more.
    pub(crate) fn failed_sync(&self) -> Option<&str> {
        self.failed_sync.get().map(String::as_str)
    }

    /// Gives what is known of how large the file is, and whether it met the end of the disk.
    pub(crate) fn extent(&self) -> (u64, u64, bool) {
        (self.length(), self.used(), self.is_full())
    }

    /// Goes back to what was known before another file was written in its place, and given up.
    pub(crate) fn set_extent(&self, (length, used, is_full): (u64, u64, bool)) {
        self.unsynced.forget();
        self.length.store(length, Ordering::Relaxed);
        self.used.store(used, Ordering::Relaxed);
        self.full.store(is_full, Ordering::Release);
    }

    /// Gives what was written to a file and is not synced.
    pub(super) fn unsynced(&self) -> &Unsynced {
        &self.unsynced
    }

    /// Says that the file is opened again.
    pub(crate) fn start_over(&self) {
        self.full.store(false, Ordering::Release);
        self.read_failed.store(false, Ordering::Release);
    }

    /// Tells whether a read failed since the file was opened.
    pub(crate) fn has_failed_read(&self) -> bool {
        self.read_failed.load(Ordering::Acquire)
    }

    /// Tells whether a write found no room since the file was opened. A hint, no verdict on
    /// a commit: redb also writes pages early that it can keep in memory when that fails.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    fn refuse_after_failed_sync(&self) -> io::Result<()> {
        match self.failed_sync() {
            None => Ok(()),
            Some(what) => {
                Err(io::Error::other(format!("an earlier sync failed ({what}), nothing is written after it")))
            }
        }
    }

    /// Runs a sync, unless one failed before: a failed sync is final.
    pub(crate) fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _alone = self.syncing.lock();
        self.refuse_after_failed_sync()?;
        match sync() {
            Ok(()) => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.failed_sync.get_or_init(|| error.to_string());
                self.note(Err(error))
            }
        }
    }

    /// Runs a write of this length, unless a sync failed before.
    pub(crate) fn write(&self, length: usize, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.refuse_after_failed_sync()?;
        self.note(write())?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(length as u64, Ordering::Relaxed);
        Ok(())
    }

    fn note(&self, outcome: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &outcome
            && is_no_room(error)
        {
            self.full.store(true, Ordering::Release);
        }
        outcome
    }
}

/// Tells whether an operation failed for want of room: on the disk, in the quota, or below the greatest
/// size of a file (ENOSPC, EDQUOT, EFBIG).
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// What redb is given to read from and write to.
#[derive(Debug)]
pub(crate) struct Backend {
    medium: Medium,
    state: Arc<BackendState>,
    /// Whether a custom storage was locked: it has one lock, where redb takes several ranges.
    locked: Mutex<bool>,
}

impl Backend {
    /// Puts a medium behind redb. The state is a new one, or that of the backend it replaces.
    pub(crate) fn new(medium: Medium, state: Arc<BackendState>) -> Self {
        Self { medium, state, locked: Mutex::new(false) }
    }

    /// Gives the state, to keep when redb takes the backend.
    pub(crate) fn state(&self) -> &Arc<BackendState> {
        &self.state
    }

    fn lock_custom(&self, storage: &dyn Storage) -> io::Result<bool> {
        let mut locked = self.locked.lock();
        if !*locked {
            *locked = storage.try_lock()?;
        }
        Ok(*locked)
    }

    fn try_lock(&self, range: Range, shared: Sharing) -> Result<bool, BackendError> {
        let (start, end) = range;
        let outcome = match (&self.medium, shared) {
            (Medium::File(file), Sharing::Exclusive) => file.try_lock_range(start, end),
            (Medium::File(file), Sharing::Shared) => file.try_lock_shared_range(start, end),
            (Medium::CopyOnWrite(copy), _) => copy.base.try_lock_shared_range(start, end),
            (Medium::Custom(storage), _) => self.lock_custom(storage.as_ref()).map_err(BackendError::from),
            // Nobody else can have it.
            (Medium::Memory(_), _) => Ok(true),
        };
        closed_without_locks(range, outcome)
    }

    fn lock(&self, range: Range, shared: Sharing) -> Result<(), BackendError> {
        let (start, end) = range;
        let outcome = match (&self.medium, shared) {
            (Medium::File(file), Sharing::Exclusive) => file.lock_range(start, end),
            (Medium::File(file), Sharing::Shared) => file.lock_shared_range(start, end),
            (Medium::CopyOnWrite(copy), _) => copy.base.lock_shared_range(start, end),
            (Medium::Custom(storage), _) => match self.lock_custom(storage.as_ref()) {
                Ok(true) => Ok(()),
                // A custom storage cannot be waited for.
                Ok(false) => Err(BackendError::Io(io::ErrorKind::WouldBlock.into())),
                Err(error) => Err(error.into()),
            },
            (Medium::Memory(_), _) => Ok(()),
        };
        closed_without_locks(range, outcome)
    }
}

type Range = (Bound<u64>, Bound<u64>);

#[derive(Debug, Clone, Copy)]
enum Sharing {
    Exclusive,
    Shared,
}

/// Refuses what has no locks. redb asks for ranges first and, where those are unsupported, for the
/// whole storage; where that is unsupported too it opens without any lock. So the answer to the last
/// question is made an error.
fn closed_without_locks<T>(range: Range, outcome: Result<T, BackendError>) -> Result<T, BackendError> {
    let whole = matches!(range, (Bound::Unbounded | Bound::Included(0), Bound::Unbounded));
    match outcome {
        Err(BackendError::Unsupported) if whole => Err(BackendError::Io(io::Error::other(
            "there are no file locks here, so nothing would keep a second writer out",
        ))),
        other => other,
    }
}

// Denied, so that a method that a later redb adds with a default breaks the build of the checks.
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        let length = self.medium.len()?;
        self.state.length.store(length, Ordering::Relaxed);
        Ok(length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.state.reads.fetch_add(1, Ordering::Relaxed);
        self.medium.read(offset, out).inspect_err(|_| self.state.read_failed.store(true, Ordering::Release))
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.state.refuse_after_failed_sync()?;
        // What redb does while a file grows, readers wait for.
        self.state.unsynced.set_pace(None);
        self.state.note(self.medium.set_len(len))?;
        self.state.length.store(len, Ordering::Relaxed);
        self.state.used.fetch_min(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.state.unsynced.make_ready();
        self.state.sync(|| self.medium.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let end = offset.saturating_add(data.len() as u64);
        self.state.write(data.len(), || {
            // Memory has no end that could be met: who grows is refused before, and what was accepted has to go in.
            if end > self.state.limit() && !matches!(self.medium, Medium::Memory(_)) {
                let what = format!("the store may have {} bytes", self.state.limit());
                return Err(io::Error::new(io::ErrorKind::StorageFull, what));
            }
            self.medium.write(offset, data)
        })?;
        self.state.used.fetch_max(end, Ordering::Relaxed);
        if matches!(self.medium, Medium::File(_)) {
            self.state.unsynced.note(offset, data.len() as u64);
        }
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        self.medium.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.try_lock((start, end), Sharing::Exclusive)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.try_lock((start, end), Sharing::Shared)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock((start, end), Sharing::Exclusive)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock((start, end), Sharing::Shared)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        match &self.medium {
            Medium::File(file) => file.unlock_range(start, end),
            Medium::CopyOnWrite(copy) => copy.base.unlock_range(start, end),
            // A custom storage is unlocked by its close, all at once.
            Medium::Memory(_) | Medium::Custom(_) => Ok(()),
        }
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        match &self.medium {
            Medium::File(file) => file.query_lock_range(start, end),
            Medium::CopyOnWrite(copy) => copy.base.query_lock_range(start, end),
            Medium::Memory(_) | Medium::Custom(_) => Ok(false),
        }
    }
}

/// How much is kept in memory at a time: redb's page.
const PAGE: usize = 4096;

/// How many bytes of changes [`CopyOnWrite`] keeps before it says that it is full.
const CHANGES_MAX: u64 = 1 << 30;

/// A file that is read, with what is written kept in memory: redb can recover a file that was left by
/// a crash, and not a byte of the file changes.
///
/// redb opens it for writing and asks for exclusive locks. The file is given *shared* ones: several
/// inspectors may look at once, a writer keeps them out, and they keep a writer out. (A shared lock is
/// also all that a file can have that is open for reading only.)
#[derive(Debug)]
pub(crate) struct CopyOnWrite {
    base: FileBackend,
    changes: RwLock<Changes>,
}

struct Changes {
    pages: HashMap<u64, Box<[u8; PAGE]>>,
    /// The length as redb sees it.
    length: u64,
    /// How much of the file is still to be seen: what a shorter length cut off stays cut off.
    visible: u64,
    max: u64,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("pages", &self.pages.len())
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl CopyOnWrite {
    /// Takes a file that was opened for reading.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let base = file_backend(file)?;
        let length = base.len()?;
        let changes = Changes { pages: HashMap::new(), length, visible: length, max: CHANGES_MAX };
        Ok(Self { base, changes: RwLock::new(changes) })
    }

    /// Reads what the file has from `offset` on, and zeros where it has nothing.
    fn read_base(&self, visible: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(visible.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        match out.split_at_mut_checked(there) {
            Some((there, beyond)) => {
                beyond.fill(0);
                if there.is_empty() { Ok(()) } else { self.base.read(offset, there) }
            }
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.changes.read().length)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes.read();
        if end_of(offset, out.len())? > changes.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_base(changes.visible, offset, out)?;
        for piece in pieces(offset, out.len()) {
            let Some((here, rest)) = out.split_at_mut_checked(piece.length) else { break };
            if let Some(page) = changes.pages.get(&piece.page)
                && let Some(written) = page.get(piece.start..piece.start + piece.length)
            {
                here.copy_from_slice(written);
            }
            out = rest;
        }
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> io::Result<()> {
        let end = end_of(offset, data.len())?;
        let mut changes = self.changes.write();
        for piece in pieces(offset, data.len()) {
            let Some((here, rest)) = data.split_at_checked(piece.length) else { break };
            if !changes.pages.contains_key(&piece.page) {
                if (changes.pages.len() as u64 + 1) * PAGE as u64 > changes.max {
                    return Err(io::Error::new(
                        io::ErrorKind::StorageFull,
                        format!("more than {} bytes of changes to keep in memory", changes.max),
                    ));
                }
                let mut page = Box::new([0; PAGE]);
                self.read_base(changes.visible, piece.page * PAGE as u64, page.as_mut_slice())?;
                changes.pages.insert(piece.page, page);
            }
            if let Some(page) = changes.pages.get_mut(&piece.page)
                && let Some(place) = page.get_mut(piece.start..piece.start + piece.length)
            {
                place.copy_from_slice(here);
            }
            data = rest;
        }
        changes.length = changes.length.max(end);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changes = self.changes.write();
        if length < changes.length {
            let (last, kept) = (length / PAGE as u64, length % PAGE as u64);
            changes.pages.retain(|page, _| *page < last || (*page == last && kept > 0));
            if let Some(page) = changes.pages.get_mut(&last)
                && let Some(cut) = usize::try_from(kept).ok().and_then(|kept| page.get_mut(kept..))
            {
                cut.fill(0);
            }
            changes.visible = changes.visible.min(length);
        }
        changes.length = length;
        Ok(())
    }
}

fn end_of(offset: u64, length: usize) -> io::Result<u64> {
    offset.checked_add(length as u64).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The part of a range of bytes that lies in one page.
#[derive(Debug, PartialEq)]
struct Piece {
    page: u64,
    start: usize,
    length: usize,
}

/// Cuts a range of bytes at the boundaries of pages. The end of the range must be representable.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE as u64).ok()?;
        let piece = Piece { page: at / PAGE as u64, start, length: (PAGE - start).min(length - done) };
        done += piece.length;
        Some(piece)
    })
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers are small, or only a pattern")]
mod tests {
    use std::fs::OpenOptions;
    use std::path::Path;

    use redb::{Database, Durability, ReadableDatabase, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");
    const PAGE_LENGTH: u64 = PAGE as u64;

    fn read_write(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    fn on_file(path: &Path) -> Backend {
        Backend::new(Medium::file(read_write(path)).unwrap(), Arc::default())
    }

    fn inspecting(path: &Path) -> Backend {
        Backend::new(Medium::copy_on_write(File::open(path).unwrap()).unwrap(), Arc::default())
    }

    fn open(backend: Backend) -> Result<Database, DatabaseError> {
        Database::builder().create_with_backend(backend)
    }

    fn put(database: &Database, key: u64, value: &[u8], durability: Durability) {
        try_put(database, key, value, durability).unwrap();
    }

    fn try_put(
        database: &Database,
        key: u64,
        value: &[u8],
        durability: Durability,
    ) -> Result<(), redb::Error> {
        let mut write = database.begin_write()?;
        write.set_durability(durability).unwrap();
        write.open_table(TABLE)?.insert(key, value)?;
        write.commit()?;
        Ok(())
    }

    fn get(database: &Database, key: u64) -> Option<Vec<u8>> {
        let read = database.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        table.get(key).unwrap().map(|value| value.value().to_vec())
    }

    fn already_open(outcome: Result<Database, DatabaseError>) -> bool {
        matches!(outcome, Err(DatabaseError::DatabaseAlreadyOpen))
    }

    /// A storage that does what it is told to, and counts.
    #[derive(Debug, Default)]
    struct Scripted {
        bytes: RwLock<Vec<u8>>,
        calls: Mutex<HashMap<&'static str, usize>>,
        fails: Mutex<HashMap<&'static str, io::ErrorKind>>,
        elsewhere: AtomicBool,
    }

    impl Scripted {
        fn call(&self, name: &'static str) -> io::Result<()> {
            *self.calls.lock().entry(name).or_default() += 1;
            match self.fails.lock().get(name) {
                Some(kind) => Err((*kind).into()),
                None => Ok(()),
            }
        }

        fn calls(&self, name: &'static str) -> usize {
            self.calls.lock().get(name).copied().unwrap_or(0)
        }

        fn fail(&self, name: &'static str, kind: io::ErrorKind) {
            self.fails.lock().insert(name, kind);
        }

        fn work_again(&self) {
            self.fails.lock().clear();
        }
    }

    impl Storage for Scripted {
        fn len(&self) -> io::Result<u64> {
            self.call("len")?;
            Ok(self.bytes.read().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.call("read")?;
            let bytes = self.bytes.read();
            let offset = offset as usize;
            out.copy_from_slice(bytes.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.call("set_len")?;
            self.bytes.write().resize(len as usize, 0);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            self.call("sync")
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.call("write")?;
            self.bytes.write()[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        }

        fn try_lock(&self) -> io::Result<bool> {
            self.call("try_lock")?;
            Ok(!self.elsewhere.load(Ordering::Relaxed))
        }

        fn close(&self) -> io::Result<()> {
            self.call("close")
        }
    }

    fn scripted() -> (Arc<Scripted>, Backend) {
        let storage = Arc::new(Scripted::default());
        let backend = Backend::new(Medium::Custom(Box::new(storage.clone())), Arc::default());
        (storage, backend)
    }

    // Invariant 1.

    #[test]
    fn a_file_is_opened_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        let database = open(on_file(&path)).unwrap();
        assert!(already_open(open(on_file(&path))));
        // Nor by redb itself, in either mode: the locks are redb's own.
        assert!(already_open(Database::open(&path)));
        assert!(matches!(redb::ReadOnlyDatabase::open(&path), Err(DatabaseError::DatabaseAlreadyOpen)));
        // Nor by another name.
        let other = directory.path().join("b.larder");
        std::fs::hard_link(&path, &other).unwrap();
        assert!(already_open(open(on_file(&other))));
        drop(database);
        drop(open(on_file(&other)).unwrap());

        let holder = Database::open(&path).unwrap();
        assert!(already_open(open(on_file(&path))));
        drop(holder);
    }

    #[test]
    fn every_lock_method_reaches_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        let (mine, peer) = (on_file(&path), on_file(&path));
        let byte = |at: u64| (Bound::Included(at), Bound::Included(at));
        let (start, end) = byte(7);

        assert!(mine.try_lock_range(start, end).unwrap());
        assert!(!peer.try_lock_range(start, end).unwrap());
        assert!(!peer.try_lock_shared_range(start, end).unwrap());
        assert!(peer.query_lock_range(start, end).unwrap());
        mine.unlock_range(start, end).unwrap();
        assert!(!peer.query_lock_range(start, end).unwrap());

        mine.lock_range(start, end).unwrap();
        assert!(!peer.try_lock_shared_range(start, end).unwrap());
        mine.close().unwrap();
        mine.lock_shared_range(start, end).unwrap();
        assert!(peer.try_lock_shared_range(start, end).unwrap());
        assert!(!on_file(&path).try_lock_range(start, end).unwrap());
    }

    #[test]
    fn a_custom_storage_is_locked_once_and_closed_once() {
        let (storage, backend) = scripted();
        let database = open(backend).unwrap();
        put(&database, 1, b"one", Durability::Immediate);
        assert_eq!(get(&database, 1).unwrap(), b"one");
        drop(database);
        assert_eq!((storage.calls("try_lock"), storage.calls("close")), (1, 1));
        for name in ["len", "read", "set_len", "sync", "write"] {
            assert!(storage.calls(name) > 0, "{name}");
        }

        let (storage, backend) = scripted();
        storage.elsewhere.store(true, Ordering::Relaxed);
        assert!(already_open(open(backend)));
        assert_eq!((storage.calls("write"), storage.calls("close")), (0, 1));
    }

    // Invariant 2.

    #[test]
    fn a_failed_sync_is_final() {
        let (storage, backend) = scripted();
        let state = backend.state().clone();
        let database = open(backend).unwrap();
        put(&database, 1, b"one", Durability::Immediate);
        assert!(state.failed_sync().is_none());

        storage.fail("sync", io::ErrorKind::Other);
        assert!(try_put(&database, 2, b"two", Durability::Immediate).is_err());
        assert!(state.failed_sync().is_some());
        storage.work_again();
        let (syncs, writes) = (storage.calls("sync"), storage.calls("write"));
        assert!(try_put(&database, 3, b"three", Durability::Immediate).is_err());
        drop(database);

        // Nor by another backend of the same store; that redb latches would not do.
        let again = Backend::new(Medium::Custom(Box::new(storage.clone())), state.clone());
        assert!(again.sync_data().is_err());
        assert!(again.set_len(1 << 20).is_err());
        let error = again.write(0, b"x").unwrap_err();
        assert!(error.to_string().contains("earlier sync failed"), "{error}");
        assert_eq!((storage.calls("sync"), storage.calls("write")), (syncs, writes));
        assert!(again.read(0, &mut [0; 9]).is_ok());
    }

    #[test]
    fn want_of_room_is_noted() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            for name in ["write", "set_len"] {
                let (storage, backend) = scripted();
                let state = backend.state().clone();
                backend.set_len(PAGE_LENGTH).unwrap();
                storage.fail(name, kind);
                let (wrote, grew) = (backend.write(0, b"x"), backend.set_len(PAGE_LENGTH * 2));
                assert_eq!((wrote.is_err(), grew.is_err()), (name == "write", name == "set_len"));
                assert!(state.is_full(), "{kind:?} {name}");
                assert!(state.failed_sync().is_none());
            }
        }
        let (storage, backend) = scripted();
        storage.fail("set_len", io::ErrorKind::Other);
        assert!(backend.set_len(1).is_err());
        assert!(!backend.state().is_full());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_numbers_of_the_system_are_want_of_room() {
        for number in [27, 28, 122] {
            assert!(is_no_room(&io::Error::from_raw_os_error(number)), "{number}");
        }
        assert!(!is_no_room(&io::Error::from_raw_os_error(5)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_noted() {
        let backend = on_file(Path::new("/dev/full"));
        assert!(backend.write(0, b"x").is_err());
        assert!(backend.state().is_full());
    }

    #[test]
    fn what_is_done_is_counted() {
        let (_, backend) = scripted();
        let state = backend.state().clone();
        backend.set_len(PAGE_LENGTH).unwrap();
        backend.write(0, &[1; 100]).unwrap();
        backend.read(0, &mut [0; 10]).unwrap();
        backend.sync_data().unwrap();
        assert_eq!((state.reads(), state.writes(), state.bytes_written(), state.syncs()), (1, 1, 100, 1));
        assert_eq!(state.length(), PAGE_LENGTH);
    }

    // Invariant 3.

    #[test]
    fn a_storage_that_cannot_lock_is_refused() {
        let (storage, backend) = scripted();
        storage.fail("try_lock", io::ErrorKind::Unsupported);
        let error = open(backend).unwrap_err();
        assert!(error.to_string().contains("no file locks"), "{error}");
        assert_eq!(storage.calls("write"), 0);
    }

    #[test]
    fn memory_needs_no_lock() {
        let database = open(Backend::new(Medium::Memory(Arc::default()), Arc::default())).unwrap();
        put(&database, 1, b"one", Durability::Immediate);
        assert_eq!(get(&database, 1).unwrap(), b"one");
    }

    // Invariant 4.

    #[test]
    fn a_crashed_file_is_read_and_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (live, crashed) = (directory.path().join("live"), directory.path().join("crashed"));
        let database = open(on_file(&live)).unwrap();
        for key in 0..200 {
            put(&database, key, &[key as u8; 3000], Durability::Immediate);
        }
        put(&database, 1000, b"not synced", Durability::None);
        let write = database.begin_write().unwrap();
        write.open_table(TABLE).unwrap().insert(2000, b"not committed".as_slice()).unwrap();
        std::fs::copy(&live, &crashed).unwrap();
        let before = std::fs::read(&crashed).unwrap();
        assert!(
            matches!(redb::ReadOnlyDatabase::open(&crashed), Err(DatabaseError::RepairAborted)),
            "the copy needs no recovery, so nothing is tested"
        );

        let backend = inspecting(&crashed);
        let state = backend.state().clone();
        let inspected = open(backend).unwrap();
        assert!(state.writes() > 0);
        for key in 0..200 {
            assert_eq!(get(&inspected, key).unwrap(), [key as u8; 3000]);
        }
        assert_eq!((get(&inspected, 1000), get(&inspected, 2000)), (None, None));
        // It can be written to, as replaying a log does; nobody else sees it.
        put(&inspected, 5000, &[5; 100_000], Durability::Immediate);
        assert_eq!(get(&inspected, 5000).unwrap(), [5; 100_000]);
        assert!(std::fs::read(&crashed).unwrap() == before);
        drop(inspected);
        assert!(std::fs::read(&crashed).unwrap() == before);

        let inspected = open(inspecting(&crashed)).unwrap();
        assert_eq!(get(&inspected, 5000), None);
        drop(inspected);
        assert_eq!(get(&open(on_file(&crashed)).unwrap(), 7).unwrap(), [7; 3000]);
    }

    #[test]
    fn inspectors_share_and_a_writer_excludes_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        let writer = open(on_file(&path)).unwrap();
        put(&writer, 1, b"one", Durability::Immediate);
        assert!(already_open(open(inspecting(&path))));
        drop(writer);

        let (first, second) = (open(inspecting(&path)).unwrap(), open(inspecting(&path)).unwrap());
        assert_eq!((get(&first, 1).unwrap(), get(&second, 1).unwrap()), (b"one".to_vec(), b"one".to_vec()));
        assert!(already_open(open(on_file(&path))));
        assert!(already_open(Database::open(&path)));
        drop(first);
        assert!(already_open(open(on_file(&path))));
        drop(second);
        put(&open(on_file(&path)).unwrap(), 2, b"two", Durability::Immediate);
    }

    #[test]
    fn copy_on_write_does_what_a_file_does() {
        let directory = tempfile::tempdir().unwrap();
        let (base, model) = (directory.path().join("base"), directory.path().join("model"));
        let bytes: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(&base, &bytes).unwrap();
        std::fs::write(&model, &bytes).unwrap();
        let (copy, model) = (inspecting(&base), on_file(&model));

        // A small generator, so that the run is the same each time.
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut draw = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for round in 0..3000_u32 {
            match draw(8) {
                0 => {
                    let length = draw(40_000);
                    copy.set_len(length).unwrap();
                    model.set_len(length).unwrap();
                }
                1..=3 => {
                    let data = vec![round as u8; draw(9000) as usize];
                    let offset = draw(40_000);
                    if data.is_empty() {
                        continue;
                    }
                    copy.write(offset, &data).unwrap();
                    model.write(offset, &data).unwrap();
                }
                _ => {
                    let (offset, length) = (draw(45_000), draw(9000) as usize);
                    let (mut here, mut there) = (vec![1; length], vec![2; length]);
                    match model.read(offset, &mut there) {
                        Ok(()) if length > 0 => {
                            copy.read(offset, &mut here).unwrap();
                            assert!(here == there, "round {round}: {length} at {offset}");
                        }
                        Ok(()) => {}
                        Err(_) => assert!(copy.read(offset, &mut here).is_err(), "round {round}"),
                    }
                }
            }
            assert_eq!(copy.len().unwrap(), model.len().unwrap());
        }
        assert!(std::fs::read(&base).unwrap() == bytes);
    }

    #[test]
    fn copy_on_write_keeps_no_more_than_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, [1; 100]).unwrap();
        let copy = CopyOnWrite::new(File::open(&path).unwrap()).unwrap();
        copy.changes.write().max = PAGE_LENGTH * 2;
        copy.write(0, &[2; PAGE * 2]).unwrap();
        copy.write(5, &[3; PAGE]).unwrap();
        assert!(is_no_room(&copy.write(PAGE_LENGTH * 2, &[4]).unwrap_err()));
        assert!(copy.write(u64::MAX, &[4]).is_err());
        assert!(copy.read(u64::MAX, &mut [4]).is_err());
    }

    #[test]
    fn pieces_are_cut_at_pages() {
        let cut: Vec<_> = pieces(PAGE_LENGTH - 1, PAGE + 2).collect();
        let piece = |page, start, length| Piece { page, start, length };
        assert_eq!(cut, [piece(0, PAGE - 1, 1), piece(1, 0, PAGE), piece(2, 0, 1)]);
        assert_eq!(pieces(77, 0).count(), 0);
    }
}
