use std::path::Path;

use larder::{AttributeValue, Draft, Durability, Larder, Options, Session};

use super::{Filter, Kind, Mode, Offered, Peer, Row};

pub(super) const KIND: Kind = Kind {
    name: "larder",
    version: env!("CARGO_PKG_VERSION"),
    configuration: "defaults, 512 MiB of cache (where records are read, 448 of them for these), columns of records in 128 MiB more, bulk loads sorted in 1 GiB; every put is checked, hashed, audited, in the feed and the statistics",
    open,
};

struct Ours {
    /// Closes when it goes.
    _larder: Larder,
    session: Session,
}

fn open(folder: &Path, mode: Mode) -> Offered<Box<dyn Peer>> {
    let durability = if mode == Mode::Durable { Durability::Synced } else { Durability::Lazy };
    let records = if mode == Mode::ToRead { 448 } else { 128 };
    let options = Options::new().durability(durability);
    let options = options.cache_bytes(512 << 20).record_cache_bytes(records << 20).column_bytes(128 << 20);
    let larder = options.open(folder.join("a.larder"))?;
    let session = larder.session("bench")?;
    Ok(Some(Box::new(Ours { _larder: larder, session })))
}

fn draft(row: &Row) -> Draft {
    let n = i64::try_from(row.n).unwrap_or(i64::MAX);
    Draft::from(row.payload.clone()).attribute("n", n).attribute("note", "x".repeat(100))
}

fn number(record: &larder::Record<impl AsRef<[u8]>>) -> Option<u64> {
    match record.attribute("n") {
        Some(AttributeValue::Integer(n)) => u64::try_from(n).ok(),
        _ => None,
    }
}

impl Peer for Ours {
    fn put(&self, row: &Row) -> Offered<()> {
        self.session.put(row.key.as_str(), draft(row))?;
        Ok(Some(()))
    }

    fn bulk(&self, rows: &[Row]) -> Offered<()> {
        let mut bulk = self.session.bulk().memory_bytes_max(1 << 30);
        rows.iter().try_for_each(|row| bulk.put(row.key.as_str(), draft(row)))?;
        let report = bulk.finish()?;
        if report.refused > 0 { Err("a row was refused".into()) } else { Ok(Some(())) }
    }

    fn meta(&self, key: &str) -> Offered<usize> {
        Ok(Some(self.session.record(key)?.as_bytes().len()))
    }

    fn number(&self, key: &str) -> Offered<u64> {
        Ok(number(&self.session.record(key)?))
    }

    fn payload(&self, key: &str) -> Offered<Vec<u8>> {
        Ok(Some(self.session.get(key)?.bytes()?.into()))
    }

    fn filter(&self, filter: Filter) -> Offered<usize> {
        let view = self.session.snapshot()?;
        let count = match filter {
            Filter::Number => {
                let scan = view.scan("")?.threads(2);
                scan.count(|asset| number(asset.record()).is_some_and(|n| n.is_multiple_of(100)))?
            }
            Filter::Length(length) => view.summaries("")?.count(|asset| asset.length() == length as u64)?,
        };
        Ok(Some(usize::try_from(count)?))
    }

    fn list(&self, directory: &str) -> Offered<usize> {
        Ok(Some(self.session.names(directory)?.len()))
    }
}
