//! Where the data lies: the only module that names redb.
//!
//! Invariants
//! 1. Every durable commit goes through [`Store::commit_durably`], which asks for quick repair: a file that was
//!    not closed opens at once.
//! 2. The applied position is in the same redb transaction as the data that it speaks of.
//! 3. Every value has its checksum in front; every read compares it.
//! 4. Nothing that redb does on a damaged file reaches the caller as a panic.

mod apply;
mod backend;
mod place;
mod snapshot;
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use larder_format::StateIdentity;
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase, WriteTransaction};

pub(crate) use apply::{ApplyError, StagedRow};
pub use backend::Storage;
use backend::{Backend, BackendState};
pub(crate) use snapshot::{ChunkPage, Snapshot, SnapshotRange, chunk_key};
pub(crate) use tables::{Table, meta_key, state_key};

use crate::error::{Error, ErrorKind, Result};

/// The format version that is written.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The required features that this version knows.
const FEATURES_KNOWN: u64 = 0;

/// The applied position: what a state is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// The sequence number of the last commit.
    pub(crate) sequence: u64,
    /// Its time.
    pub(crate) time: i64,
    /// The identity of the state after it.
    pub(crate) identity: StateIdentity,
}

impl Head {
    const LENGTH: usize = 48;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LENGTH);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.identity.0);
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        let parts = row
            .split_first_chunk::<8>()
            .and_then(|(sequence, rest)| rest.split_first_chunk::<8>().map(|(time, rest)| (sequence, time, rest)))
            .and_then(|(sequence, time, rest)| Some((sequence, time, <[u8; 32]>::try_from(rest).ok()?)));
        let Some((sequence, time, identity)) = parts else {
            return Err(corrupt("the applied position is malformed"));
        };
        Ok(Self {
            sequence: u64::from_le_bytes(*sequence),
            time: i64::from_le_bytes(*time),
            identity: StateIdentity(identity),
        })
    }
}

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
    /// Where the caller says.
    Custom(Box<dyn Storage>),
}

/// An open store.
pub(crate) struct Store {
    // An Option only so that closing can be shielded; it is there for as long as the store is.
    database: Option<Database>,
    state: Arc<BackendState>,
    place: place::OpenPlace,
    identity: Identity,
    current: RwLock<Arc<Snapshot>>,
    read_only: bool,
}

impl Store {
    /// Opens a store, or makes it.
    pub(crate) fn open(place: Place<'_>, cache_bytes: usize, created: i64, store_id: [u8; 16]) -> Result<Self> {
        let fresh = Identity { format: FORMAT_VERSION, store_id, created };
        match place {
            Place::Memory => Self::start(Backend::memory(), place::OpenPlace::none(), cache_bytes, Some(fresh), false),
            Place::Custom(storage) => {
                let is_empty = storage.len().map_err(|error| io("asking for the length", error))? == 0;
                let backend = Backend::custom(storage);
                Self::start(backend, place::OpenPlace::none(), cache_bytes, is_empty.then_some(fresh), false)
            }
            Place::ReadOnly { path } => {
                let (backend, open) = place::open_read_only(path)?;
                Self::start(backend, open, cache_bytes, None, true)
            }
            Place::File { path, create } => match place::open_existing(path) {
                Ok((backend, open)) => Self::start(backend, open, cache_bytes, None, false),
                Err(error) if create && matches!(error.kind(), ErrorKind::NoSuchFile) => {
                    let made = place::create_new(path, |backend| {
                        drop(Self::start(backend, place::OpenPlace::none(), cache_bytes, Some(fresh), false)?);
                        Ok(())
                    });
                    match made {
                        Ok(()) => {}
                        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists) => {}
                        Err(error) => return Err(error),
                    }
                    let (backend, open) = place::open_existing(path)?;
                    Self::start(backend, open, cache_bytes, None, false)
                }
                Err(error) => Err(error),
            },
        }
    }

    fn start(
        backend: Backend,
        place: place::OpenPlace,
        cache_bytes: usize,
        fresh: Option<Identity>,
        read_only: bool,
    ) -> Result<Self> {
        let state = backend.state();
        let database = shield("open the file", || {
            redb::Builder::new()
                .set_cache_size(cache_bytes)
                .create_with_backend(backend)
                .map_err(|error| place.open_error(error))
        })?;
        // From here on every way out goes through Drop, which is shielded.
        let closing = Closing(Some(database));
        let database = closing.0.as_ref().ok_or_else(|| Error::new(ErrorKind::Closed))?;
        if let Some(identity) = fresh {
            Self::lay_out(database, &identity)?;
        }
        let identity = Self::identify(database)?;
        let snapshot = Self::view_of(database)?;
        Ok(Self {
            database: closing.keep(),
            state,
            place,
            identity,
            current: RwLock::new(Arc::new(snapshot)),
            read_only,
        })
    }

    /// Makes all tables and writes what the file is.
    fn lay_out(database: &Database, identity: &Identity) -> Result<()> {
        shield("create the file", || {
            let transaction = database.begin_write().map_err(transaction_error)?;
            {
                for table in Table::ALL {
                    if table == Table::Chunks {
                        transaction.open_table(snapshot::CHUNKS).map_err(table_error)?;
                    } else {
                        transaction.open_table(snapshot::bytes_definition(table)).map_err(table_error)?;
                    }
                }
                let mut meta =
                    transaction.open_table(snapshot::bytes_definition(Table::Meta)).map_err(table_error)?;
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
            Self::commit_durably(transaction).map_err(|error| commit_error(error, "creating the file"))
        })
    }

    /// Reads what the file is, and refuses what it must not touch.
    fn identify(database: &Database) -> Result<Identity> {
        let not_larder = |found: &str| Error::new(ErrorKind::NotALarderFile { found: found.to_owned() });
        shield("read what the file is", || {
            let transaction = database.begin_read().map_err(transaction_error)?;
            let meta = match transaction.open_table(snapshot::bytes_definition(Table::Meta)) {
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
            let number = |body: &[u8]| body.iter().rev().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
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
        self.read_only
    }

    /// Gives what the backend counts and remembers.
    pub(crate) fn backend_state(&self) -> &BackendState {
        &self.state
    }

    /// Gives the newest published view.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    /// Makes what was committed last the newest view.
    pub(crate) fn publish(&self) -> Result<Arc<Snapshot>> {
        let snapshot = Arc::new(Self::view_of(self.database()?)?);
        *self.current.write() = Arc::clone(&snapshot);
        Ok(snapshot)
    }

    fn view_of(database: &Database) -> Result<Snapshot> {
        let transaction = shield("begin to read", || database.begin_read().map_err(transaction_error))?;
        Snapshot::open(&transaction)
    }

    fn database(&self) -> Result<&Database> {
        self.database.as_ref().ok_or_else(|| ErrorKind::Closed.into())
    }

    /// Commits so that it is on disk on return: the one place that asks redb for it.
    fn commit_durably(mut transaction: WriteTransaction) -> Result<(), redb::CommitError> {
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
        drop(Closing(self.database.take()));
    }
}

/// A database that is closed without letting a panic out: redb may meet damage while it closes.
struct Closing(Option<Database>);

impl Closing {
    fn keep(mut self) -> Option<Database> {
        self.0.take()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(move || drop(database))).is_err() {
            tracing::error!("closing the file met damage");
        }
    }
}

/// Runs what touches redb; a panic inside, which redb answers damage with in places, becomes an error.
fn shield<R>(doing: &'static str, act: impl FnOnce() -> Result<R>) -> Result<R> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(corrupt(format!("redb gave up trying to {doing}: {text}")))
        }
    }
}

pub(crate) fn corrupt(what: impl Into<String>) -> Error {
    ErrorKind::Corrupt { what: what.into() }.into()
}

fn io(doing: &str, error: std::io::Error) -> Error {
    let kind = if backend::is_full(&error) {
        ErrorKind::StoreFull { doing: doing.to_owned() }
    } else {
        ErrorKind::Io { doing: doing.to_owned() }
    };
    Error::new(kind).caused_by(error)
}

fn storage(error: redb::StorageError) -> Error {
    match error {
        redb::StorageError::Corrupted(what) => corrupt(what),
        redb::StorageError::Io(error) => io("reading or writing the file", error),
        redb::StorageError::ValueTooLarge(size) => {
            ErrorKind::TransactionTooLarge { size: size as u64, limit: 3 << 30 }.into()
        }
        redb::StorageError::PreviousIo => {
            ErrorKind::Poisoned { by: "an input or output error".to_owned() }.into()
        }
        redb::StorageError::DatabaseClosed => ErrorKind::Closed.into(),
        other => Error::new(ErrorKind::Io { doing: "reading or writing the file".to_owned() }).caused_by(other),
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
        redb::CommitError::Storage(redb::StorageError::Io(error)) => io(doing, error),
        redb::CommitError::Storage(error) => storage(error),
        other => corrupt(other.to_string()),
    }
}
