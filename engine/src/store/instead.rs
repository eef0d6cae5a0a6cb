//! Another store in the place of the one that there is, which is kept under a name of its own.

use std::io;
use std::path::{Path, PathBuf};

use super::upgrade::{BACKUPS_MAX, backup_path};
use super::{Backend, Beside, Identity, Medium, Store, names, place};
use crate::error::{Error, ErrorKind, Result};

/// What is in the name that the former store is kept under.
const KEPT: &str = "before-repair";

impl Store {
    /// Makes a store in the place of the one at a path; gives the name that this has then, its log beside it.
    ///
    /// # Errors
    /// All but those of the last step, which takes the former log away, leave what there was.
    pub(crate) fn build_instead(
        path: &Path,
        identity: Identity,
        cache_bytes: usize,
        fill: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = place::resolve(path)?;
        let mut kept = None;
        let replaced = place::replace(&path, |file, _| {
            let medium =
                Medium::file(file).map_err(|error| place::io_error("beginning the new file", error))?;
            Self::make(Backend::new(medium, Default::default()), identity, cache_bytes, fill)?;
            kept = Some(keep(&path)?);
            Ok(())
        });
        match (replaced, kept) {
            (Ok(((), synced)), Some(kept)) => {
                // A log beside a store that does not name it is nobody's: the next open takes it away.
                synced.and_then(|()| Beside::file(&path).clear_away())?;
                Ok(kept)
            }
            (replaced, kept) => {
                kept.iter().for_each(|kept| drop_names(kept));
                replaced.and_then(|_| Err(ErrorKind::NoSuchFile.into()))
            }
        }
    }
}

/// Gives a store, and the log beside it, another name each: the first that nothing has.
fn keep(path: &Path) -> Result<PathBuf> {
    let keeping = |error| place::io_error("keeping the former file under another name", error);
    for number in 1..=BACKUPS_MAX {
        let kept = backup_path(path, KEPT, number);
        // That of a store that was kept before, and is elsewhere now: it is not this one's.
        if Beside::path(&kept).exists() {
            continue;
        }
        match names::link(path, &kept) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            linked => linked.map_err(keeping)?,
        }
        let log = Beside::path(path);
        if log.exists()
            && let Err(error) = names::link(&log, &Beside::path(&kept))
        {
            drop_names(&kept);
            return Err(keeping(error));
        }
        return Ok(kept);
    }
    let doing = format!("looking for a name for the former file: {BACKUPS_MAX} are taken");
    Err(Error::new(ErrorKind::Io { doing }))
}

/// Takes the other names away: the store has its own still.
fn drop_names(kept: &Path) {
    let _ = names::remove(kept);
    if Beside::path(kept).exists() {
        let _ = names::remove(&Beside::path(kept));
    }
}
