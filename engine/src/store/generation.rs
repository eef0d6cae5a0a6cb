//! One opening of the file. The store goes on with the newest; views keep the one that they were taken from.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use redb::{Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};

use super::place::FileIdentity;
use crate::error::{Error, ErrorKind, Result};

/// An open database.
pub(super) enum Open {
    /// One that can be changed, or is recovered in memory.
    ToWrite(Database),
    /// One that was closed cleanly, and is only looked at: redb does nothing to it then that damage could stop.
    ToRead(ReadOnlyDatabase),
}

impl Open {
    pub(super) fn begin_read(&self) -> Result<ReadTransaction> {
        super::shield("begin to read", || {
            match self {
                Self::ToWrite(database) => database.begin_read(),
                Self::ToRead(database) => database.begin_read(),
            }
            .map_err(super::transaction_error)
        })
    }
}

/// An open database, and the file that it is in.
pub(super) struct Generation {
    database: RwLock<Closing>,
    /// The file once more, to push pages to the disk without redb's help.
    file: Option<File>,
    file_identity: Option<FileIdentity>,
    /// Whether the store had to go on with another, and views of this one are lost.
    is_lost: AtomicBool,
}

impl Generation {
    pub(super) fn new(database: Option<Open>, file_identity: Option<FileIdentity>) -> Self {
        let database = RwLock::new(Closing(database));
        Self { database, file: None, file_identity, is_lost: AtomicBool::new(false) }
    }

    /// Keeps the file beside the database, if nobody has a view yet.
    pub(super) fn keep_file(self: &mut Arc<Self>, file: File) {
        if let Some(only) = Arc::get_mut(self) {
            only.file = Some(file);
        }
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    pub(super) fn file_identity(&self) -> Option<&FileIdentity> {
        self.file_identity.as_ref()
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction> {
        match &self.database.read().0 {
            Some(open) => open.begin_read(),
            None => Err(ErrorKind::Closed.into()),
        }
    }

    pub(super) fn with_database<R>(&self, act: impl FnOnce(&Database) -> Result<R>) -> Result<R> {
        match &self.database.read().0 {
            Some(Open::ToWrite(database)) => act(database),
            Some(Open::ToRead(_)) => Err(ErrorKind::ReadOnly.into()),
            None => Err(ErrorKind::Closed.into()),
        }
    }

    pub(super) fn with_database_mut<R>(&self, act: impl FnOnce(&mut Database) -> Result<R>) -> Result<R> {
        match &mut self.database.write().0 {
            Some(Open::ToWrite(database)) => act(database),
            Some(Open::ToRead(_)) => Err(ErrorKind::ReadOnly.into()),
            None => Err(ErrorKind::Closed.into()),
        }
    }

    /// Closes the database, and tells those who still have a view of it.
    pub(super) fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
        self.close();
    }

    /// Gives the error for a view that may be lost.
    pub(super) fn told(&self, error: Error) -> Error {
        if self.is_lost.load(Ordering::Acquire) { ErrorKind::Interrupted.into() } else { error }
    }

    /// Closes the database, whoever still has a view of it.
    pub(super) fn close(&self) {
        drop(Closing(self.database.write().0.take()));
    }
}

/// A database that is closed without letting a panic out: redb may meet damage while it closes.
pub(super) struct Closing(pub(super) Option<Open>);

impl Closing {
    pub(super) fn keep(mut self) -> Option<Open> {
        self.0.take()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(move || drop(database))).is_err() {
            crate::trace::trouble("closing the file met damage", None);
        }
    }
}
