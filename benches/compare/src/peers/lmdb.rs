use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use super::{Filter, Kind, Mode, Offered, Peer, Row, n_of};

pub(super) const KIND: Kind = Kind {
    name: "LMDB",
    version: "through heed 0.22",
    configuration: "two databases, a map of 64 GiB, a transaction a put; unsynced: MDB_NOSYNC",
    open,
};

struct Lmdb {
    env: Env,
    meta: Database<Bytes, Bytes>,
    payload: Database<Bytes, Bytes>,
}

#[allow(unsafe_code, reason = "heed asks for it: the file is mapped, and nobody else may change it")]
fn open(folder: &Path, mode: Mode) -> Offered<Box<dyn Peer>> {
    let mut options = EnvOpenOptions::new();
    options.map_size(64 << 30).max_dbs(2).max_readers(256);
    // SAFETY: the folder was made for this process, which opens it once at a time.
    let env = unsafe {
        if mode != Mode::Durable {
            options.flags(EnvFlags::NO_SYNC);
        }
        options.open(folder)?
    };
    let mut transaction = env.write_txn()?;
    let meta = env.create_database(&mut transaction, Some("meta"))?;
    let payload = env.create_database(&mut transaction, Some("payload"))?;
    transaction.commit()?;
    Ok(Some(Box::new(Lmdb { env, meta, payload })))
}

impl Lmdb {
    fn write(&self, rows: &[Row]) -> Offered<()> {
        let mut transaction = self.env.write_txn()?;
        for row in rows {
            self.meta.put(&mut transaction, row.key.as_bytes(), &row.json())?;
            self.payload.put(&mut transaction, row.key.as_bytes(), &row.payload)?;
        }
        transaction.commit()?;
        Ok(Some(()))
    }
}

impl Peer for Lmdb {
    fn put(&self, row: &Row) -> Offered<()> {
        self.write(std::slice::from_ref(row))
    }

    fn bulk(&self, rows: &[Row]) -> Offered<()> {
        rows.chunks(10_000).try_for_each(|rows| self.write(rows).map(drop))?;
        self.env.force_sync()?;
        Ok(Some(()))
    }

    fn meta(&self, key: &str) -> Offered<usize> {
        let transaction = self.env.read_txn()?;
        Ok(self.meta.get(&transaction, key.as_bytes())?.map(<[u8]>::len))
    }

    fn number(&self, key: &str) -> Offered<u64> {
        let transaction = self.env.read_txn()?;
        self.meta.get(&transaction, key.as_bytes())?.map(n_of).transpose()
    }

    fn payload(&self, key: &str) -> Offered<Vec<u8>> {
        let transaction = self.env.read_txn()?;
        Ok(self.payload.get(&transaction, key.as_bytes())?.map(<[u8]>::to_vec))
    }

    fn filter(&self, filter: Filter) -> Offered<usize> {
        let transaction = self.env.read_txn()?;
        let mut count = 0;
        for row in self.meta.iter(&transaction)? {
            count += usize::from(filter.wants(row?.1)?);
        }
        Ok(Some(count))
    }

    fn list(&self, directory: &str) -> Offered<usize> {
        let transaction = self.env.read_txn()?;
        Ok(Some(self.meta.prefix_iter(&transaction, format!("{directory}/").as_bytes())?.count()))
    }
}
