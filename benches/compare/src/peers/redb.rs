use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Filter, Kind, Mode, Offered, Peer, Row, n_of};

pub(super) const KIND: Kind = Kind {
    name: "redb",
    version: "4.4.0",
    configuration: "two tables with `&[u8]` keys, 512 MiB of cache, a transaction a put; unsynced: Durability::None",
    open,
};

const META: TableDefinition<&[u8], &[u8]> = TableDefinition::new("meta");
const PAYLOAD: TableDefinition<&[u8], &[u8]> = TableDefinition::new("payload");

struct Redb {
    database: Database,
    mode: Mode,
}

fn open(folder: &Path, mode: Mode) -> Offered<Box<dyn Peer>> {
    let database = redb::Builder::new().set_cache_size(512 << 20).create(folder.join("a.redb"))?;
    let redb = Redb { database, mode };
    redb.write(&[], mode)?;
    Ok(Some(Box::new(redb)))
}

impl Redb {
    fn write(&self, rows: &[Row], mode: Mode) -> Offered<()> {
        let mut transaction = self.database.begin_write()?;
        if mode != Mode::Durable {
            transaction.set_durability(Durability::None)?;
        }
        {
            let mut meta = transaction.open_table(META)?;
            let mut payload = transaction.open_table(PAYLOAD)?;
            for row in rows {
                meta.insert(row.key.as_bytes(), row.json().as_slice())?;
                payload.insert(row.key.as_bytes(), row.payload.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(Some(()))
    }
}

impl Peer for Redb {
    fn put(&self, row: &Row) -> Offered<()> {
        self.write(std::slice::from_ref(row), self.mode)
    }

    fn bulk(&self, rows: &[Row]) -> Offered<()> {
        for rows in rows.chunks(10_000) {
            self.write(rows, Mode::Durable)?;
        }
        Ok(Some(()))
    }

    fn meta(&self, key: &str) -> Offered<usize> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get(key.as_bytes())?.map(|value| value.value().len()))
    }

    fn number(&self, key: &str) -> Offered<u64> {
        let table = self.database.begin_read()?.open_table(META)?;
        table.get(key.as_bytes())?.map(|value| n_of(value.value())).transpose()
    }

    fn payload(&self, key: &str) -> Offered<Vec<u8>> {
        let table = self.database.begin_read()?.open_table(PAYLOAD)?;
        Ok(table.get(key.as_bytes())?.map(|value| value.value().to_vec()))
    }

    fn filter(&self, filter: Filter) -> Offered<usize> {
        let table = self.database.begin_read()?.open_table(META)?;
        let mut count = 0;
        for row in table.iter()? {
            count += usize::from(filter.wants(row?.1.value())?);
        }
        Ok(Some(count))
    }

    fn list(&self, directory: &str) -> Offered<usize> {
        let table = self.database.begin_read()?.open_table(META)?;
        let (start, end) = (format!("{directory}/"), format!("{directory}0"));
        Ok(Some(table.range(start.as_bytes()..end.as_bytes())?.count()))
    }
}
