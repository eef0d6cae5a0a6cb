use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Filter, Kind, Mode, Offered, Peer, Row};

pub(super) const KIND: Kind = Kind {
    name: "cacache",
    version: "13",
    configuration: "the blocking API, metadata in its index; it never syncs, so it has no durable put",
    open,
};

struct Cacache(PathBuf);

fn open(folder: &Path, mode: Mode) -> Offered<Box<dyn Peer>> {
    Ok(match mode {
        Mode::Durable => None,
        Mode::Unsynced | Mode::ToRead => Some(Box::new(Cacache(folder.to_owned()))),
    })
}

impl Peer for Cacache {
    fn put(&self, row: &Row) -> Offered<()> {
        let metadata = serde_json::from_slice(&row.json())?;
        let options = cacache::WriteOpts::new().size(row.payload.len()).metadata(metadata);
        let mut writer = options.open_sync(&self.0, &row.key)?;
        writer.write_all(&row.payload)?;
        writer.commit()?;
        Ok(Some(()))
    }

    fn bulk(&self, _: &[Row]) -> Offered<()> {
        Ok(None)
    }

    fn meta(&self, key: &str) -> Offered<usize> {
        Ok(cacache::metadata_sync(&self.0, key)?.map(|found| found.size))
    }

    fn number(&self, key: &str) -> Offered<u64> {
        Ok(cacache::metadata_sync(&self.0, key)?.and_then(|found| found.metadata["n"].as_u64()))
    }

    fn payload(&self, key: &str) -> Offered<Vec<u8>> {
        Ok(Some(cacache::read_sync(&self.0, key)?))
    }

    fn filter(&self, _: Filter) -> Offered<usize> {
        Ok(None)
    }

    fn list(&self, _: &str) -> Offered<usize> {
        Ok(None)
    }
}
