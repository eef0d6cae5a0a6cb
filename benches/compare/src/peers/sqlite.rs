use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Filter, Kind, Mode, Offered, Peer, Row};

pub(super) const KIND: Kind = Kind {
    name: "SQLite",
    version: "bundled with rusqlite 0.37",
    configuration: "WAL, synchronous=FULL (unsynced: OFF), prepared statements, 512 MiB of cache and of mmap, `n` and the length in \
                    columns, an index on the directory; one connection behind a mutex",
    open,
};

struct Sqlite(Mutex<Connection>);

fn open(folder: &Path, mode: Mode) -> Offered<Box<dyn Peer>> {
    let connection = Connection::open(folder.join("a.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if mode == Mode::Durable { "FULL" } else { "OFF" })?;
    connection.pragma_update(None, "cache_size", -(512 << 10))?;
    connection.pragma_update(None, "mmap_size", 512i64 << 20)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS assets(key TEXT PRIMARY KEY, directory TEXT, n INTEGER, length INTEGER, meta BLOB, payload BLOB);
         CREATE INDEX IF NOT EXISTS directories ON assets(directory);",
    )?;
    Ok(Some(Box::new(Sqlite(Mutex::new(connection)))))
}

impl Sqlite {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(connection: &Connection, row: &Row) -> Result<(), rusqlite::Error> {
    let n = i64::try_from(row.n).unwrap_or(i64::MAX);
    connection
        .prepare_cached("INSERT OR REPLACE INTO assets VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![row.key, row.directory(), n, row.payload.len(), row.json(), row.payload])
        .map(drop)
}

impl Peer for Sqlite {
    fn put(&self, row: &Row) -> Offered<()> {
        Ok(Some(insert(&self.lock(), row)?))
    }

    fn bulk(&self, rows: &[Row]) -> Offered<()> {
        let mut connection = self.lock();
        // Its recommendation for bulk: no sync for a transaction, and one for the checkpoint at the end.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        for rows in rows.chunks(10_000) {
            let transaction = connection.transaction()?;
            rows.iter().try_for_each(|row| insert(&transaction, row))?;
            transaction.commit()?;
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(Some(()))
    }

    fn meta(&self, key: &str) -> Offered<usize> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT meta FROM assets WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| Ok(row.get_ref(0)?.as_blob()?.len())).optional()?)
    }

    fn number(&self, key: &str) -> Offered<u64> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT n FROM assets WHERE key = ?1")?;
        let n: Option<i64> = statement.query_row([key], |row| row.get(0)).optional()?;
        Ok(n.map(i64::cast_unsigned))
    }

    fn payload(&self, key: &str) -> Offered<Vec<u8>> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT payload FROM assets WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    fn filter(&self, filter: Filter) -> Offered<usize> {
        let connection = self.lock();
        let count: i64 = match filter {
            Filter::Number => {
                let mut statement =
                    connection.prepare_cached("SELECT count(*) FROM assets WHERE n % 100 = 0")?;
                statement.query_row([], |row| row.get(0))?
            }
            Filter::Length(length) => {
                let mut statement =
                    connection.prepare_cached("SELECT count(*) FROM assets WHERE length = ?1")?;
                statement.query_row([length], |row| row.get(0))?
            }
        };
        Ok(Some(usize::try_from(count)?))
    }

    fn list(&self, directory: &str) -> Offered<usize> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT key FROM assets WHERE directory = ?1 ORDER BY key")?;
        let mut rows = statement.query([directory])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += usize::from(!row.get_ref(0)?.as_str()?.is_empty());
        }
        Ok(Some(count))
    }
}
