//! Where the data lies: the only module that names redb.
//!
//! Invariants
//! 1. Every durable commit goes through [`Store::commit_to_disk`], which asks for quick repair: a file that was
//!    not closed opens at once.
//! 2. The applied position is in the same redb transaction as the data that it speaks of.
//! 3. Every value has its checksum in front; every read compares it.
//! 4. Nothing that redb does on a damaged file reaches the caller as a panic.

mod apply;
mod backend;
mod beside;
mod direct;
mod generation;
mod instead;
mod loader;
mod names;
mod place;
mod raw;
mod room;
mod snapshot;
mod storage;
mod tables;
mod turn;
mod upgrade;
mod writeback;

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use larder_format::Position;
use parking_lot::RwLock;
use redb::backends::InMemoryBackend;
use redb::{Database, Durability, WriteTransaction};

pub(crate) use apply::{ApplyError, StagedRow};
use backend::{Backend, BackendState, Medium};
pub(crate) use beside::{Beside, LogFile};
use generation::{Closing, Generation, Open};
pub(crate) use loader::Loader;
pub(crate) use place::io_error;
pub(crate) use raw::scan_pages;
pub(crate) use snapshot::{ChunkPage, Snapshot, SnapshotRange, StoredRow, chunk_key};
use storage::Shielded;
pub use storage::Storage;
use tables::Tree;
pub(crate) use tables::{Table, meta_key, state_key};
use turn::Turn;
pub(crate) use upgrade::FORMATS;
pub use upgrade::UpgradeReport;

use crate::error::{Error, ErrorKind, Result};
use crate::larder::InputOutput;

/// The format version that is written.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// How much memory pages are kept in while all of them are read once, in bytes.
const PAGES_CACHE_BYTES: usize = 16 << 20;
/// The required features that this version knows.
const FEATURES_KNOWN: u64 = 0;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    pub(crate) store_id: [u8; 16],
    pub(crate) created: i64,
}

/// How a store is opened.
pub(crate) enum Place<'a> {
    /// A file; made if it is not there and `create` is given.
    File { path: &'a Path, create: bool },
    /// A file that is not changed.
    ReadOnly { path: &'a Path },
    /// Memory.
    Memory,
    /// Where the caller says; the commit log in the second, if there is one.
    Custom(Box<dyn Storage>, Option<Arc<dyn Storage>>),
}

/// An open store.
pub(crate) struct Store {
    current: RwLock<Arc<Generation>>,
    turn: Arc<Turn>,
    cache_bytes: usize,
    /// The storage of the caller's own that the store lies on, if it does.
    custom: Option<Arc<dyn Storage>>,
    /// The memory that it lies in, if it does.
    memory: Option<Arc<InMemoryBackend>>,
    reserve: room::Reserve,
    reopened: AtomicU64,
    state: Arc<BackendState>,
    identity: Identity,
    is_read_only: bool,
    beside: Beside,
    /// How often something was staged, and how many of these are known to be on disk.
    staged: AtomicU64,
    staged_durable: AtomicU64,
}

impl Store {
    /// Opens a store, or makes it.
    pub(crate) fn open(
        place: Place<'_>,
        cache_bytes: usize,
        created: i64,
        store_id: [u8; 16],
    ) -> Result<Self> {
        let fresh = Identity { format: FORMAT_VERSION, store_id, created };
        let start = |medium: Medium, fresh: Option<Identity>| {
            Self::start(Backend::new(medium, Arc::default()), cache_bytes, fresh, None)
        };
        match place {
            Place::Memory => {
                let memory = Arc::new(InMemoryBackend::new());
                let mut store = start(Medium::Memory(Arc::clone(&memory)), Some(fresh))?;
                store.memory = Some(memory);
                store.beside = Beside::Memory;
                Ok(store)
            }
            Place::Custom(storage, log) => {
                let storage: Arc<dyn Storage> = Arc::new(Shielded(Arc::from(storage)));
                let length =
                    storage.len().map_err(|error| place::io_error("asking for the length", error))?;
                let medium = Medium::Custom(Box::new(Arc::clone(&storage)));
                let mut store = start(medium, (length == 0).then_some(fresh))?;
                store.custom = Some(storage);
                store.beside = log.map_or(Beside::Nothing, |log| Beside::Custom(Arc::new(Shielded(log))));
                Ok(store)
            }
            Place::ReadOnly { path } => {
                let path = place::resolve(path)?;
                if let Some(store) = Self::open_at_rest(&path, cache_bytes)? {
                    return Ok(store);
                }
                Self::open_recovering(&path, cache_bytes)
            }
            Place::File { path, create } => {
                let path = place::resolve(path)?;
                match Self::open_file(&path, cache_bytes) {
                    Err(error) if create && matches!(error.kind(), ErrorKind::NoSuchFile) => {}
                    // It was replaced, or deleted, before it was locked.
                    Ok(store) if !store.is_still_there() => {
                        drop(store);
                        return Self::open(
                            Place::File { path: &path, create },
                            cache_bytes,
                            created,
                            store_id,
                        );
                    }
                    opened => return opened,
                }
                let made = place::create_new(&path, None, |medium| {
                    Self::start(Backend::new(medium, Arc::default()), cache_bytes, Some(fresh), None)
                        .map(drop)
                });
                match made {
                    Err(error) if !matches!(error.kind(), ErrorKind::AlreadyExists) => Err(error),
                    // Made here, or by somebody who was faster.
                    _ => Self::open_file(&path, cache_bytes),
                }
            }
        }
    }

    /// Opens a file to look at it that was closed cleanly and has the current format; nothing if it is another.
    fn open_at_rest(path: &Path, cache_bytes: usize) -> Result<Option<Self>> {
        let opened = place::open_existing(path, place::Access::Read)?;
        if Beside::file(path).open(true)?.is_some() {
            return Ok(None);
        }
        let database = shield("open the file", || {
            match redb::Builder::new().set_cache_size(cache_bytes).open_read_only(path) {
                Ok(database) => Ok(Some(database)),
                Err(redb::DatabaseError::RepairAborted) => Ok(None),
                Err(error) => Err(place::open_error(path, error)),
            }
        })?;
        let Some(database) = database else { return Ok(None) };
        let length = opened.file.metadata().map_or(0, |metadata| metadata.len());
        let mut store =
            Self::of(Closing(Some(Open::ToRead(database))), Arc::default(), cache_bytes, opened.identity)?;
        store.state.note_length(length);
        let is_current = store.identity.format == FORMAT_VERSION && store.log_in_use()?.is_none();
        store.is_read_only = true;
        store.beside = Beside::file(path);
        Ok(is_current.then_some(store))
    }

    /// Opens a file to look at it, whatever has to be done to it first: that is done in memory.
    fn open_recovering(path: &Path, cache_bytes: usize) -> Result<Self> {
        let opened = place::open_existing(path, place::Access::Read)?;
        let medium =
            Medium::copy_on_write(opened.file).map_err(|error| place::io_error("opening the file", error))?;
        let backend = Backend::new(medium, Arc::default());
        let mut store = Self::start(backend, cache_bytes, None, Some(opened.identity))?;
        store.is_read_only = true;
        store.beside = Beside::file(path);
        Ok(store)
    }

    fn open_file(path: &Path, cache_bytes: usize) -> Result<Self> {
        let opened = place::open_existing(path, place::Access::Write)?;
        let opening = |error| place::io_error("opening the file", error);
        let file = opened.file.try_clone().map_err(opening)?;
        let medium = Medium::file(opened.file).map_err(opening)?;
        let backend = Backend::new(medium, Arc::default());
        store_used(backend.state(), &file);
        let mut store = Self::start(backend, cache_bytes, None, Some(opened.identity))?;
        store.current.get_mut().keep_file(file);
        store.beside = Beside::file(path);
        Ok(store)
    }

    /// Compares the checksums of all pages of a file that nobody has open; not a byte of it changes. What its commit log has
    /// is none of it.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Corrupt`](ErrorKind::Corrupt) if the file is so damaged that this cannot be told.
    pub(crate) fn check_pages(path: &Path) -> Result<bool> {
        let path = place::resolve(path)?;
        let store = Self::open_recovering(&path, PAGES_CACHE_BYTES)?;
        store.current().with_database_mut(|database| {
            shield("check the pages", || {
                database.check_integrity().map_err(|error| place::open_error(&path, error))
            })
        })
    }

    /// Makes a file that holds what `fill` puts in, and is there whole or not at all.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if there is something under the name; it is not touched.
    pub(crate) fn build(
        path: &Path,
        identity: Identity,
        cache_bytes: usize,
        fill: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        place::create_new(&place::resolve(path)?, None, |medium| {
            Self::start(Backend::new(medium, Arc::default()), cache_bytes, Some(identity), None)?.make(fill)
        })
    }

    /// Fills what is empty, as short as it can be and on disk.
    fn make(&self, fill: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        fill(self)?;
        self.flush()?;
        self.trim()
    }

    fn start(
        backend: Backend,
        cache_bytes: usize,
        fresh: Option<Identity>,
        file_identity: Option<place::FileIdentity>,
    ) -> Result<Self> {
        let state = Arc::clone(backend.state());
        let path = file_identity.as_ref().map(|identity| identity.path().to_owned()).unwrap_or_default();
        let database = shield("open the file", || {
            redb::Builder::new()
                .set_cache_size(cache_bytes)
                .create_with_backend(backend)
                .map_err(|error| place::open_error(&path, error))
        })?;
        // From here on every way out goes through Drop, which is shielded.
        let closing = Closing(Some(Open::ToWrite(database)));
        if let (Some(identity), Some(Open::ToWrite(database))) = (fresh, &closing.0) {
            Self::lay_out(database, &identity)?;
        }
        Self::of(closing, state, cache_bytes, file_identity)
    }

    fn of(
        closing: Closing,
        state: Arc<BackendState>,
        cache_bytes: usize,
        file_identity: impl Into<Option<place::FileIdentity>>,
    ) -> Result<Self> {
        let open = closing.0.as_ref().ok_or_else(|| Error::new(ErrorKind::Closed))?;
        let identity = Self::identify(open)?;
        Ok(Self {
            current: RwLock::new(Arc::new(Generation::new(closing.keep(), file_identity.into()))),
            turn: Arc::default(),
            cache_bytes,
            custom: None,
            memory: None,
            reserve: room::Reserve::default(),
            reopened: AtomicU64::new(0),
            state,
            identity,
            is_read_only: false,
            beside: Beside::Nothing,
            staged: AtomicU64::new(0),
            staged_durable: AtomicU64::new(0),
        })
    }

    /// Makes all tables and writes what the file is.
    fn lay_out(database: &Database, identity: &Identity) -> Result<()> {
        shield("create the file", || {
            let transaction = database.begin_write().map_err(transaction_error)?;
            {
                for tree in Tree::all() {
                    if tree == Tree::Own(Table::Chunks) {
                        transaction.open_table(snapshot::CHUNKS).map_err(table_error)?;
                    } else {
                        transaction.open_table(snapshot::bytes_definition(tree)).map_err(table_error)?;
                    }
                }
                let mut meta = transaction
                    .open_table(snapshot::bytes_definition(Tree::Own(Table::Meta)))
                    .map_err(table_error)?;
                let rows: [(&[u8], Vec<u8>); 4] = [
                    (meta_key::FORMAT, identity.format.to_le_bytes().to_vec()),
                    (meta_key::FEATURES_REQUIRED, 0u64.to_le_bytes().to_vec()),
                    (meta_key::STORE_ID, identity.store_id.to_vec()),
                    (meta_key::CREATED, identity.created.to_le_bytes().to_vec()),
                ];
                for (key, body) in rows {
                    let mut sealed = Vec::new();
                    larder_format::seal_into(Table::Meta.number(), key, &body, &mut sealed);
                    meta.insert(key, sealed.as_slice()).map_err(storage)?;
                }
            }
            Self::commit_to_disk(transaction).map_err(|error| commit_error(error, "creating the file"))
        })
    }

    /// Reads what the file is, and refuses what it must not touch.
    fn identify(open: &Open) -> Result<Identity> {
        let not_larder = |found: &str| Error::new(ErrorKind::NotALarderFile { found: found.to_owned() });
        shield("read what the file is", || {
            let transaction = open.begin_read()?;
            let meta = match transaction.open_table(snapshot::bytes_definition(Tree::Own(Table::Meta))) {
                Ok(meta) => meta,
                Err(
                    redb::TableError::TableDoesNotExist(_)
                    | redb::TableError::TableTypeMismatch { .. }
                    | redb::TableError::TableIsMultimap(_),
                ) => return Err(not_larder("a redb database of another application")),
                Err(error) => return Err(table_error(error)),
            };
            let read = |key: &[u8]| -> Result<Vec<u8>> {
                let Some(guard) = meta.get(key).map_err(storage)? else {
                    return Err(not_larder("a redb database of another application"));
                };
                let body = larder_format::unseal(Table::Meta.number(), key, guard.value())
                    .map_err(|error| corrupt(format!("table meta, key {}: {error}", key.escape_ascii())))?;
                Ok(body.to_vec())
            };
            let number =
                |body: &[u8]| body.iter().rev().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
            let format = u32::try_from(number(&read(meta_key::FORMAT)?)).unwrap_or(u32::MAX);
            if format > FORMAT_VERSION {
                return Err(ErrorKind::UnsupportedVersion { found: format, max: FORMAT_VERSION }.into());
            }
            let unknown = number(&read(meta_key::FEATURES_REQUIRED)?) & !FEATURES_KNOWN;
            if unknown != 0 {
                return Err(ErrorKind::UnsupportedFeatures { bits: unknown }.into());
            }
            let store_id = <[u8; 16]>::try_from(read(meta_key::STORE_ID)?.as_slice())
                .map_err(|_| corrupt("the store id has not 16 bytes"))?;
            Ok(Identity { format, store_id, created: number(&read(meta_key::CREATED)?).cast_signed() })
        })
    }

    /// Gives what the file says of itself.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Tells whether nothing may be changed.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Gives what the backend counts and remembers.
    pub(crate) fn backend_state(&self) -> &BackendState {
        &self.state
    }

    /// Gives what was read and written since the store was opened.
    pub(crate) fn input_output(&self) -> InputOutput {
        InputOutput {
            reads: self.state.reads(),
            writes: self.state.writes(),
            bytes_written: self.state.bytes_written(),
            syncs: self.state.syncs(),
            is_full: self.state.is_full(),
            ..InputOutput::default()
        }
    }

    /// Reads from the file itself, past redb.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let current = self.current();
        let mut file = current.file().ok_or(std::io::ErrorKind::Unsupported)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }

    /// Opens a view of what was committed last.
    pub(crate) fn view(&self) -> Result<Arc<Snapshot>> {
        let current = self.current();
        let transaction = current.begin_read()?;
        Ok(Arc::new(Snapshot::of(transaction, current)))
    }

    /// Tells where the commit log lies.
    pub(crate) fn beside(&self) -> &Beside {
        &self.beside
    }

    /// Gives the id of the commit log that is in use.
    pub(crate) fn log_in_use(&self) -> Result<Option<[u8; 16]>> {
        let row = self.view()?.get(Table::Meta, meta_key::LOG)?;
        let id = row.map(|row| <[u8; 16]>::try_from(row.as_ref()));
        id.transpose().map_err(|_| corrupt("the id of the commit log has not 16 bytes"))
    }

    /// Says on disk which commit log is in use from now on, if any, together with everything that was applied.
    pub(crate) fn set_log_in_use(&self, id: Option<[u8; 16]>) -> Result<()> {
        let _turn = self.turn.take();
        shield("note the commit log", || {
            let transaction = self.begin_write()?;
            {
                let mut meta = transaction
                    .open_table(snapshot::bytes_definition(Tree::Own(Table::Meta)))
                    .map_err(table_error)?;
                match id {
                    Some(id) => {
                        let mut sealed = Vec::new();
                        larder_format::seal_into(Table::Meta.number(), meta_key::LOG, &id, &mut sealed);
                        meta.insert(meta_key::LOG, sealed.as_slice()).map_err(storage)?;
                    }
                    None => {
                        meta.remove(meta_key::LOG).map_err(storage)?;
                    }
                }
            }
            self.commit_durably(transaction).map_err(|error| commit_error(error, "noting the commit log"))
        })
    }

    /// Pushes what was written so far to the disk, without a commit and without holding up one.
    pub(crate) fn push_to_disk(&self) -> Result<()> {
        let current = self.current();
        let Some(file) = current.file() else { return Ok(()) };
        self.state.unsynced().forget();
        self.state.sync(|| file.sync_data()).map_err(|error| place::io_error("syncing the file", error))
    }

    /// Tells how often there was hurry so far.
    pub(crate) fn haste(&self) -> u64 {
        self.turn.haste()
    }

    /// Asks whoever makes something durable at leisure to take no more pauses.
    pub(crate) fn hurry(&self) {
        self.turn.hurry();
    }

    /// Closes the file. Views that are still held stay as they are.
    pub(crate) fn close(&self) {
        self.current().close();
    }

    fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read())
    }

    /// Gives the path of the file, if there is one.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.current().file_identity().map(|identity| identity.path().to_owned())
    }

    /// Tells whether the path still leads to the file that is open.
    pub(crate) fn is_still_there(&self) -> bool {
        self.current().file_identity().is_none_or(place::FileIdentity::still_there)
    }

    /// Checks that what is put in the place of the file takes that of no other.
    fn check_still_there(&self) -> Result<()> {
        if self.is_still_there() {
            return Ok(());
        }
        let doing = "replacing the file, which is not there any more".to_owned();
        Err(ErrorKind::Io { doing }.into())
    }

    fn begin_write(&self) -> Result<WriteTransaction> {
        self.current().with_database(|database| database.begin_write().map_err(transaction_error))
    }

    /// Begins a transaction that is on disk with the next one that syncs.
    fn begin_unsynced(&self) -> Result<WriteTransaction> {
        let mut transaction = self.begin_write()?;
        transaction.set_durability(Durability::None).map_err(|error| corrupt(error.to_string()))?;
        Ok(transaction)
    }

    /// Copies everything into a new file, as short as it can be, and goes on with that one under the same name. Views that
    /// are held stay with the old one, which goes when the last of them does. Gives the lengths before and after. `each` is told how
    /// many bytes were copied, and says whether to go on.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) where there is no file to be replaced; then, and after every other
    /// error, the store goes on with the file that it had. That its new name may not be safe from a loss of power is told
    /// beside the lengths.
    pub(crate) fn replace_by_copy(
        &self,
        each: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<((u64, u64), Result<()>)> {
        let _turn = self.turn.take();
        let (Some(path), false) = (self.path(), self.is_read_only) else {
            let (expected, got) =
                ("a store in a file of its own", "one that has none, or may not be changed");
            let (expected, got) = (expected.to_owned(), got.to_owned());
            return Err(ErrorKind::InvalidArgument { argument: "the store", expected, got }.into());
        };
        let (before, extent) = (self.state.length(), self.state.extent());
        let source = self.view()?;
        let make = |file: std::fs::File, identity| {
            let beginning = |error| place::io_error("beginning the new file", error);
            let medium = file.try_clone().and_then(Medium::file).map_err(beginning)?;
            // The state is that of the old one: a sync that failed stays final.
            let backend = Backend::new(medium, Arc::clone(&self.state));
            let mut copy = Self::start(backend, self.cache_bytes, Some(self.identity), Some(identity))?;
            copy.current.get_mut().keep_file(file);
            copy.copy_all(&source, each)?;
            copy.flush()?;
            copy.trim()?;
            Ok(copy)
        };
        let copied = place::replace(&path, make, || self.check_still_there());
        // What it says of the file was said of the copy meanwhile.
        let (copy, synced) = copied.inspect_err(|_| self.state.set_extent(extent))?;
        *self.current.write() = copy.into_generation();
        self.staged_durable.fetch_max(self.staged(), Ordering::AcqRel);
        Ok(((before, self.state.length()), synced))
    }

    /// Gives what is open, which then outlives this.
    fn into_generation(self) -> Arc<Generation> {
        std::mem::replace(&mut self.current.write(), Arc::new(Generation::new(None, None)))
    }

    /// Copies all rows of all tables.
    fn copy_all(&self, source: &Arc<Snapshot>, each: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut loader = self.load();
        let mut bytes = 0;
        for table in Table::ALL {
            for row in source.range(table, Bound::Unbounded, Bound::Unbounded)? {
                let row = row?;
                bytes += row.sealed().len() as u64;
                loader.put_sealed(table, row.key().to_vec().into(), row.sealed().to_vec().into())?;
                each(bytes)?;
            }
        }
        loader.commit()
    }

    /// Gives back what the file is longer than it has to be. Nobody may be reading.
    pub(crate) fn trim(&self) -> Result<()> {
        // Nor may anybody be staging a payload.
        let _turn = self.turn.take();
        self.current().with_database_mut(|database| {
            shield("trim the file", || {
                loop {
                    match database.compact() {
                        Ok(true) => {}
                        Ok(false) => return Ok(()),
                        Err(redb::CompactionError::Storage(error)) => return Err(storage(error)),
                        Err(error) => return Err(corrupt(error.to_string())),
                    }
                }
            })
        })
    }

    /// Gives a number for everything that was staged so far.
    pub(crate) fn staged(&self) -> u64 {
        self.staged.load(Ordering::Acquire)
    }

    /// Tells whether everything that was staged up to a number is on disk.
    pub(crate) fn is_staged_durable(&self, staged: u64) -> bool {
        self.staged_durable.load(Ordering::Acquire) >= staged
    }

    fn commit_durably(&self, transaction: WriteTransaction) -> Result<(), redb::CommitError> {
        // Nothing can be staged in between: there is one write transaction at a time.
        let staged = self.staged();
        Self::commit_to_disk(transaction)?;
        self.staged_durable.fetch_max(staged, Ordering::AcqRel);
        Ok(())
    }

    /// Commits so that it is on disk on return: the one place that asks redb for it.
    fn commit_to_disk(mut transaction: WriteTransaction) -> Result<(), redb::CommitError> {
        if let Err(error) = transaction.set_durability(Durability::Immediate) {
            return Err(redb::CommitError::from(match error {
                redb::SetDurabilityError::PersistentSavepointModified => {
                    redb::StorageError::Corrupted("a persistent savepoint is in the way".to_owned())
                }
                _ => redb::StorageError::Corrupted("the durability cannot be set".to_owned()),
            }));
        }
        transaction.set_quick_repair(true);
        transaction.commit()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Notes how much of a file the disk has: what was never written takes no room.
fn store_used(state: &BackendState, file: &std::fs::File) {
    #[cfg(unix)]
    let used = {
        use std::os::unix::fs::MetadataExt;
        file.metadata().map(|metadata| metadata.len().min(metadata.blocks() * 512))
    };
    #[cfg(not(unix))]
    let used = file.metadata().map(|metadata| metadata.len());
    state.note_used(used.unwrap_or(0));
}

/// Makes a file that holds what `fill` writes, and is there whole or not at all; for those who may use the file `like` it.
///
/// # Errors
/// [`AlreadyExists`](ErrorKind::AlreadyExists) if there is something under the name; it is not touched.
pub(crate) fn write_new_file(
    path: &Path,
    like: Option<&Path>,
    fill: &mut dyn FnMut(&mut dyn std::io::Write) -> Result<()>,
) -> Result<()> {
    place::create_new(&place::resolve(path)?, like, |medium| fill(&mut Writer { medium, at: 0 }))
}

/// Writes to a medium from its beginning.
struct Writer {
    medium: Medium,
    at: u64,
}

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.medium.write(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs what touches redb or a storage; a panic inside, which redb answers damage with in places, becomes an error.
pub(crate) fn shield<R>(doing: &'static str, act: impl FnOnce() -> Result<R>) -> Result<R> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(result) => result,
        Err(panic) => Err(corrupt(format!("a panic, trying to {doing}: {}", reason_of(&*panic)))),
    }
}

/// Gives what a panic says of itself.
fn reason_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

pub(crate) fn corrupt(what: impl Into<String>) -> Error {
    ErrorKind::Corrupt { what: what.into() }.into()
}

fn storage(error: redb::StorageError) -> Error {
    match error {
        redb::StorageError::Corrupted(what) => corrupt(what),
        redb::StorageError::Io(error) => place::io_error("reading or writing the file", error),
        redb::StorageError::ValueTooLarge(size) => {
            ErrorKind::TransactionTooLarge { size: size as u64, limit: 3 << 30 }.into()
        }
        redb::StorageError::PreviousIo => {
            ErrorKind::Poisoned { by: "an input or output error".to_owned() }.into()
        }
        redb::StorageError::DatabaseClosed => ErrorKind::Closed.into(),
        other => {
            Error::new(ErrorKind::Io { doing: "reading or writing the file".to_owned() }).caused_by(other)
        }
    }
}

fn table_error(error: redb::TableError) -> Error {
    match error {
        redb::TableError::Storage(error) => storage(error),
        other => corrupt(other.to_string()),
    }
}

fn transaction_error(error: redb::TransactionError) -> Error {
    match error {
        redb::TransactionError::Storage(error) => storage(error),
        other => corrupt(other.to_string()),
    }
}

fn commit_error(error: redb::CommitError, doing: &str) -> Error {
    match error {
        redb::CommitError::Storage(redb::StorageError::Io(error)) => place::io_error(doing, error),
        redb::CommitError::Storage(error) => storage(error),
        other => corrupt(other.to_string()),
    }
}
