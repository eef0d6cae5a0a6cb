//! Another store in the place of the one that there is, which is kept under a name of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::upgrade::{BACKUPS_MAX, backup_path};
use super::{Backend, Beside, Medium, Store, names, place};
use crate::error::{Error, ErrorKind, Result};

/// What is in the name that the former store is kept under.
const KEPT: &str = "before-repair";

impl Store {
    /// Makes a store in the place of this one, which is open to read; gives the name that this has then, its log beside it. What
    /// comes behind that is told beside it: the sync of the directory, and to take the former log away.
    ///
    /// # Errors
    /// All leave what there was.
    pub(crate) fn build_instead(
        &self,
        cache_bytes: usize,
        fill: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<(Option<PathBuf>, Result<()>)> {
        let Some(path) = self.path() else { return Err(ErrorKind::Closed.into()) };
        let mut kept = None;
        let make = |file, identity| {
            let medium =
                Medium::file(file).map_err(|error| place::io_error("beginning the new file", error))?;
            let backend = Backend::new(medium, Arc::default());
            let store = Self::start(backend, cache_bytes, Some(self.identity), Some(identity))?;
            store.make(fill)?;
            Ok(store)
        };
        let keep_this = || {
            self.check_still_there()?;
            kept = Some(Kept::beside(&path)?);
            Ok(())
        };
        let (store, synced) = place::replace(&path, make, keep_this)?;
        // A log beside a store that does not name it is nobody's. The new one is open until it is gone, so that nobody has made
        // another.
        let settled = synced.and_then(|()| Beside::file(&path).clear_away());
        drop(store);
        Ok((kept.map(Kept::stay), settled))
    }
}

/// Other names of a store and its log, that go again unless they are to stay.
struct Kept {
    path: PathBuf,
    linked: Vec<PathBuf>,
}

impl Kept {
    /// Gives a store, and the log beside it, another name each: the first that nothing has.
    fn beside(path: &Path) -> Result<Self> {
        let log = Beside::path(path);
        for number in 1..=BACKUPS_MAX {
            let mut kept = Self { path: backup_path(path, KEPT, number), linked: Vec::new() };
            let log_kept = Beside::path(&kept.path);
            take_back(path, &kept.path).map_err(keeping)?;
            take_back(&log, &log_kept).map_err(keeping)?;
            // That of a store that was kept before, and is elsewhere now: it is not this one's.
            if log_kept.symlink_metadata().is_ok() {
                continue;
            }
            match kept.link(path, &log, log_kept) {
                Ok(()) => return Ok(kept),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(keeping(error)),
            }
        }
        let doing = format!("looking for a name for the former file: {BACKUPS_MAX} are taken");
        Err(Error::new(ErrorKind::Io { doing }))
    }

    fn link(&mut self, store: &Path, log: &Path, log_kept: PathBuf) -> io::Result<()> {
        names::link(store, &self.path)?;
        self.linked.push(self.path.clone());
        if log.symlink_metadata().is_ok() {
            names::link(log, &log_kept)?;
            self.linked.push(log_kept);
        }
        names::sync_directory(place::directory_of(store))
    }

    /// Lets them stay; gives the name of the store.
    fn stay(mut self) -> PathBuf {
        self.linked.clear();
        std::mem::take(&mut self.path)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for name in self.linked.drain(..) {
            let _ = names::remove(&name);
        }
    }
}

/// Takes a name away that one who was stopped here gave to what still has its own: it keeps nothing.
fn take_back(own: &Path, other: &Path) -> io::Result<()> {
    let is_another_name = place::file_identity(own).is_some_and(|file| {
        other.symlink_metadata().is_ok_and(|metadata| place::number_of(&metadata) == Some(file))
    });
    if is_another_name { names::remove(other) } else { Ok(()) }
}

fn keeping(error: io::Error) -> Error {
    place::io_error("keeping the former file under another name", error)
}

#[cfg(test)]
mod tests {
    use crate::Options;

    /// Who puts another store at the path while one is repaired keeps it, and has it open.
    #[test]
    fn x_6_a_file_that_took_the_place_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, value) in [("a.larder", "one"), ("b.larder", "two")] {
            let larder = Options::new().inline().open(at(name)).unwrap();
            larder.root().unwrap().put("a", value).unwrap();
            larder.close().unwrap();
        }
        let larder = Options::new().open_read_only(at("a.larder")).unwrap();
        let other = Options::new().inline().open(at("b.larder")).unwrap();
        let replaced = larder.shared().commit.store().build_instead(1 << 20, |_| {
            std::fs::rename(at("b.larder"), at("a.larder")).unwrap();
            Ok(())
        });
        assert!(replaced.unwrap_err().to_string().contains("not there any more"));
        assert_eq!(other.root().unwrap().get("a").unwrap().bytes().unwrap(), "two");
        other.close().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
