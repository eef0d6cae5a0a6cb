use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::{Filter, Kind, Mode, Offered, Peer, Row, n_of};

pub(super) const KIND: Kind = Kind {
    name: "fjall",
    version: "3.1",
    configuration: "two keyspaces, payloads with key-value separation, 512 MiB of cache, a batch a put with \
                    PersistMode::SyncAll; unsynced: without",
    open,
};

struct Fjall {
    database: Database,
    meta: Keyspace,
    payload: Keyspace,
    mode: Mode,
}

fn open(folder: &Path, mode: Mode) -> Offered<Box<dyn Peer>> {
    let database = Database::builder(folder).cache_size(512 << 20).open()?;
    let meta = database.keyspace("meta", KeyspaceCreateOptions::default)?;
    let separated =
        || KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()));
    let payload = database.keyspace("payload", separated)?;
    Ok(Some(Box::new(Fjall { database, meta, payload, mode })))
}

impl Fjall {
    fn write(&self, rows: &[Row], mode: Mode) -> Offered<()> {
        let persist = (mode == Mode::Durable).then_some(PersistMode::SyncAll);
        let mut batch = self.database.batch().durability(persist);
        for row in rows {
            batch.insert(&self.meta, row.key.as_bytes(), row.json());
            batch.insert(&self.payload, row.key.as_bytes(), row.payload.as_slice());
        }
        batch.commit()?;
        Ok(Some(()))
    }
}

impl Peer for Fjall {
    fn put(&self, row: &Row) -> Offered<()> {
        self.write(std::slice::from_ref(row), self.mode)
    }

    fn bulk(&self, rows: &[Row]) -> Offered<()> {
        rows.chunks(10_000).try_for_each(|rows| self.write(rows, Mode::Unsynced).map(drop))?;
        self.database.persist(PersistMode::SyncAll)?;
        Ok(Some(()))
    }

    fn meta(&self, key: &str) -> Offered<usize> {
        Ok(self.meta.get(key.as_bytes())?.map(|value| value.len()))
    }

    fn number(&self, key: &str) -> Offered<u64> {
        self.meta.get(key.as_bytes())?.map(|value| n_of(&value)).transpose()
    }

    fn payload(&self, key: &str) -> Offered<Vec<u8>> {
        Ok(self.payload.get(key.as_bytes())?.map(|value| value.to_vec()))
    }

    fn filter(&self, filter: Filter) -> Offered<usize> {
        let mut count = 0;
        for row in self.meta.iter() {
            count += usize::from(filter.wants(&row.value()?)?);
        }
        Ok(Some(count))
    }

    fn list(&self, directory: &str) -> Offered<usize> {
        let mut count = 0;
        for row in self.meta.prefix(format!("{directory}/")) {
            count += usize::from(!row.key()?.is_empty());
        }
        Ok(Some(count))
    }
}
