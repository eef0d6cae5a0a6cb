use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Filter, Kind, Mode, Offered, Peer, Row, n_of};

pub(super) const KIND: Kind = Kind {
    name: "plain files",
    version: "of this system",
    configuration: "a file and a JSON file beside it; durable: written under another name, synced, renamed, the \
                    directory synced",
    open,
};

struct Files {
    folder: PathBuf,
    mode: Mode,
}

fn open(folder: &Path, mode: Mode) -> Offered<Box<dyn Peer>> {
    Ok(Some(Box::new(Files { folder: folder.to_owned(), mode })))
}

impl Files {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.mode != Mode::Durable {
            return fs::write(path, bytes);
        }
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }

    fn sidecar(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.__metadata__"))
    }
}

impl Peer for Files {
    fn put(&self, row: &Row) -> Offered<()> {
        fs::create_dir_all(self.folder.join(row.directory()))?;
        self.write(&self.folder.join(&row.key), &row.payload)?;
        self.write(&self.sidecar(&row.key), &row.json())?;
        Ok(Some(()))
    }

    fn bulk(&self, _: &[Row]) -> Offered<()> {
        Ok(None)
    }

    fn meta(&self, key: &str) -> Offered<usize> {
        Ok(Some(fs::read(self.sidecar(key))?.len()))
    }

    fn number(&self, key: &str) -> Offered<u64> {
        Ok(Some(n_of(&fs::read(self.sidecar(key))?)?))
    }

    fn payload(&self, key: &str) -> Offered<Vec<u8>> {
        Ok(Some(fs::read(self.folder.join(key))?))
    }

    fn filter(&self, _: Filter) -> Offered<usize> {
        Ok(None)
    }

    fn list(&self, directory: &str) -> Offered<usize> {
        Ok(Some(fs::read_dir(self.folder.join(directory))?.count() / 2))
    }
}
