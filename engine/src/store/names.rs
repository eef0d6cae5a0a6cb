//! Names of files, as they are made, changed and taken away: the one place where that is done, so that a test can say
//! what of it a loss of power would keep.
//!
//! Invariants
//! 1. A name that is published is of a file that was synced before.
//! 2. When an operation returns, the directory was synced behind its last change of a name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Notes a step, where a test records what is done, and may let it fail.
macro_rules! note {
    ($step:ident($($path:expr),+)) => {
        #[cfg(test)]
        record::note(record::Step::$step($($path.to_owned()),+))?;
        #[cfg(not(test))]
        let _ = ($($path),+);
    };
}

/// Makes a file under a name that nothing has; if it is to hold what another does, for those who may use that one.
pub(super) fn make(path: &Path, like: Option<&Path>) -> io::Result<File> {
    note!(Make(path));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    if let Some(like) = like.and_then(|like| fs::metadata(like).ok()) {
        use std::os::unix::fs::OpenOptionsExt;
        let file = options.mode(0o600).open(path)?;
        give_access(&file, &like);
        return Ok(file);
    }
    let _ = like;
    options.open(path)
}

/// Gives a file the owner, the group and the permissions of another; as far as that can be done, and to nobody else.
#[cfg(unix)]
fn give_access(file: &File, like: &fs::Metadata) {
    use rustix::fs::{Gid, Uid, fchown};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let has_group = fchown(file, None, Some(Gid::from_raw(like.gid()))).is_ok();
    // Only the administrator can give it to another owner.
    let _ = fchown(file, Some(Uid::from_raw(like.uid())), None);
    let mode = like.mode() & if has_group { 0o777 } else { 0o707 };
    // Some file systems know no permissions.
    let _ = file.set_permissions(fs::Permissions::from_mode(mode));
}

/// Gives a file another name, which nothing has.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    note!(Link(from, to));
    fs::hard_link(from, to)
}

/// Gives a file another name, in place of the one that it has and of what had that name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    note!(Rename(from, to));
    fs::rename(from, to)
}

/// Takes a name away, and the file with it if that was its last one.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    note!(Remove(path));
    fs::remove_file(path)
}

/// Puts what is in a file on disk, before it is published.
pub(super) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    note!(SyncFile(path));
    file.sync_all()
}

/// Makes the names in a directory safe from a loss of power: files that were made, renamed or deleted
/// there. redb never does this.
///
/// Windows has no such call, and needs none; file systems that refuse it for directories (`EINVAL`) keep
/// their names their own way.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    note!(SyncDirectory(directory));
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(directory)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod record {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::path::PathBuf;

    /// What is done to a name, or to what is behind it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) enum Step {
        Make(PathBuf),
        Link(PathBuf, PathBuf),
        Rename(PathBuf, PathBuf),
        Remove(PathBuf),
        SyncFile(PathBuf),
        SyncDirectory(PathBuf),
    }

    thread_local! {
        static STEPS: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
        static FAULT: Cell<Fault> = const { Cell::new(Fault::NONE) };
    }

    /// Which steps fail.
    #[derive(Clone, Copy)]
    struct Fault {
        /// After how many.
        after: usize,
        /// Whether all that come then fail, or one.
        is_lasting: bool,
        has_failed: bool,
    }

    impl Fault {
        const NONE: Self = Self { after: usize::MAX, is_lasting: false, has_failed: false };
    }

    pub(super) fn note(step: Step) -> io::Result<()> {
        let fault = FAULT.get();
        if fault.after == 0 && (fault.is_lasting || !fault.has_failed) {
            FAULT.set(Fault { has_failed: true, ..fault });
            return Err(io::Error::other("on purpose"));
        }
        FAULT.set(Fault { after: fault.after.saturating_sub(1), ..fault });
        STEPS.with_borrow_mut(|steps| steps.push(step));
        Ok(())
    }

    /// Lets a step on this thread fail, after so many.
    pub(super) fn fail_after(steps: usize) {
        FAULT.set(Fault { after: steps, ..Fault::NONE });
    }

    /// Lets all steps on this thread fail, after so many: nothing that was to be put right behind a failure is.
    pub(super) fn stop_after(steps: usize) {
        FAULT.set(Fault { after: steps, is_lasting: true, ..Fault::NONE });
    }

    /// Lets no step fail any more; tells whether one did.
    pub(super) fn has_failed() -> bool {
        FAULT.replace(Fault::NONE).has_failed
    }

    /// Gives what was done on this thread since the last time.
    pub(super) fn take() -> Vec<Step> {
        STEPS.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    use super::record::{Step, fail_after, has_failed, stop_after, take};
    use crate::store::place::file_identity;
    use crate::{Options, RestoreOptions, SnapshotOptions, restore};

    /// The names that there are, and those that a loss of power would leave if it kept nothing that it need not.
    #[derive(Default)]
    struct Disk {
        /// By name, the file: the number of its making.
        now: BTreeMap<PathBuf, usize>,
        kept: BTreeMap<PathBuf, usize>,
        synced: BTreeSet<usize>,
        made: usize,
    }

    impl Disk {
        /// Does what was done; demands that what is published was synced.
        fn replay(&mut self, steps: &[Step]) {
            for step in steps {
                match step {
                    Step::Make(path) => {
                        self.made += 1;
                        assert!(self.now.insert(path.clone(), self.made).is_none(), "{step:?}");
                    }
                    Step::Link(from, to) | Step::Rename(from, to) => {
                        let file = self.now[from];
                        assert!(self.synced.contains(&file), "{step:?}: what it is was not synced");
                        self.now.insert(to.clone(), file);
                        if matches!(step, Step::Rename(..)) {
                            self.now.remove(from);
                        }
                    }
                    Step::Remove(path) => assert!(self.now.remove(path).is_some(), "{step:?}"),
                    Step::SyncFile(path) => drop(self.synced.insert(self.now[path])),
                    Step::SyncDirectory(directory) => {
                        let is_here = |path: &PathBuf| path.parent() == Some(directory);
                        self.kept.retain(|path, _| !is_here(path));
                        let here = self.now.iter().filter(|(path, _)| is_here(path));
                        self.kept.extend(here.map(|(path, file)| (path.clone(), *file)));
                    }
                }
            }
        }

        /// Takes in what was done since; demands that all names are safe, and are these.
        #[track_caller]
        fn rests(&mut self, names: &[&str]) {
            self.replay(&take());
            assert_eq!(self.now, self.kept, "a name would be lost, or come back");
            let found: Vec<_> = self.now.keys().filter_map(|path| path.file_name()?.to_str()).collect();
            assert_eq!(found, names);
        }
    }

    /// T14: whenever an operation has returned, a loss of power keeps every name as it is.
    #[test]
    fn t14_names_are_safe_when_an_operation_returns() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        let options = || Options::new().inline();
        let mut disk = Disk::default();
        take();

        let larder = options().open(at("a.larder")).unwrap();
        disk.rests(&["a.larder"]);
        let session = larder.root().unwrap();
        session.put("a", "one").unwrap();
        disk.rests(&["a.larder", "a.larder-log"]);
        let snapshot = larder.snapshot(at("a.snapshot"), &SnapshotOptions::new()).unwrap();
        assert!(snapshot.rows > 0);
        disk.rests(&["a.larder", "a.larder-log", "a.snapshot"]);
        larder.compact(None).unwrap();
        session.put("b", "two").unwrap();
        disk.rests(&["a.larder", "a.larder-log", "a.snapshot"]);
        drop(session);
        larder.close().unwrap();
        disk.rests(&["a.larder", "a.snapshot"]);

        restore(&[at("a.snapshot")], at("b.larder"), &RestoreOptions::new()).unwrap();
        disk.rests(&["a.larder", "a.snapshot", "b.larder"]);
        crate::repair(at("a.larder"), at("c.larder")).unwrap();
        disk.rests(&["a.larder", "a.snapshot", "b.larder", "c.larder"]);
        crate::repair_in_place(at("c.larder")).unwrap();
        let all = ["a.larder", "a.snapshot", "b.larder", "c.larder", "c.larder.before-repair"];
        disk.rests(&all);
        let larder = options().open(at("b.larder")).unwrap();
        assert_eq!(larder.root().unwrap().get("a").unwrap().bytes().unwrap(), "one");
        larder.close().unwrap();
        disk.rests(&all);
    }

    /// T14: whatever fails of putting a shorter file in the place of the store's, what is acknowledged then is there later. When
    /// the directory could not be synced, the store went on with a file that had no name any more.
    #[test]
    fn t14_a_compaction_that_fails_loses_nothing() {
        for has_log in [false, true] {
            for steps in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let at = folder.path().join("a.larder");
                let options = || Options::new().inline();
                let open = || options().open(&at).unwrap();
                open().root().unwrap().put("a", "one").unwrap();
                let larder = open();
                let session = larder.root().unwrap();
                if has_log {
                    session.put("b", "two").unwrap();
                }
                fail_after(steps);
                let compacted = larder.compact(None);
                if !has_failed() {
                    compacted.unwrap();
                    assert!(steps > 3, "{steps} steps");
                    break;
                }
                let put = session.put("c", "three");
                drop(session);
                let _ = larder.close();
                let larder = open();
                let session = larder.root().unwrap();
                assert_eq!(session.get("a").unwrap().bytes().unwrap(), "one", "{steps}");
                assert_eq!(session.exists("b").unwrap(), has_log, "{steps}: {compacted:?}");
                assert_eq!(session.exists("c").unwrap(), put.is_ok(), "{steps}: {compacted:?}, {put:?}");
            }
        }
    }

    /// T13: wherever restoring fails, there is the whole store or nothing, and nothing else is left.
    #[test]
    fn t13_a_restore_that_fails_leaves_a_whole_store_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = folder.path().join("a.snapshot");
        let larder = Options::new().inline().open_in_memory().unwrap();
        larder.root().unwrap().put("a", "one").unwrap();
        larder.snapshot(&snapshot, &SnapshotOptions::new()).unwrap();
        for steps in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let at = folder.path().join("a.larder");
            fail_after(steps);
            let restored = restore(&[&snapshot], &at, &RestoreOptions::new());
            let has_failed = has_failed();
            // That the other name of the new file stays is no reason to fail.
            assert!(restored.is_ok() || has_failed, "{steps}: {restored:?}");
            if at.exists() {
                let larder = Options::new().inline().existing_only().open(&at).unwrap();
                assert_eq!(larder.root().unwrap().get("a").unwrap().bytes().unwrap(), "one", "{steps}");
                larder.close().unwrap();
            } else {
                assert!(restored.is_err(), "{steps}");
            }
            if !has_failed {
                assert!(steps > 3, "{steps} steps");
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
                break;
            }
        }
    }

    /// A store to be repaired in place: one that was closed, or one with a log, as a crash leaves it.
    fn to_repair(folder: &Path, has_log: bool) -> PathBuf {
        let (from, at) = (folder.join("from.larder"), folder.join("a.larder"));
        let larder = Options::new().inline().open(&from).unwrap();
        larder.root().unwrap().put("a", "one").unwrap();
        if has_log {
            std::fs::copy(&from, &at).unwrap();
            std::fs::copy(folder.join("from.larder-log"), folder.join("a.larder-log")).unwrap();
        }
        larder.close().unwrap();
        if !has_log {
            std::fs::copy(&from, &at).unwrap();
        }
        at
    }

    fn names_in(folder: &Path) -> BTreeSet<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn of(path: &Path) -> bytes::Bytes {
        let larder = Options::new().inline().existing_only().open(path).unwrap();
        larder.root().unwrap().get("a").unwrap().bytes().unwrap()
    }

    /// T14: whatever fails of putting a repaired file in the place of the store's, what was there is there, under the names that it had.
    #[test]
    fn t14_a_repair_in_place_that_fails_loses_nothing() {
        for has_log in [false, true] {
            for steps in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let at = to_repair(folder.path(), has_log);
                let before = names_in(folder.path());
                fail_after(steps);
                let repaired = crate::repair_in_place(&at);
                let has_failed = has_failed();
                match repaired {
                    Err(_) => assert_eq!(names_in(folder.path()), before, "{steps}"),
                    Ok(report) => {
                        assert_eq!(report.unsettled.is_some(), has_failed, "{steps}: {report:?}");
                        assert_eq!(of(&report.kept.unwrap()), "one", "{steps}");
                    }
                }
                assert_eq!(of(&at), "one", "{steps}");
                if !has_failed {
                    assert!(steps > 5, "{steps} steps");
                    break;
                }
            }
        }
    }

    /// T14: wherever it is stopped, the store opens, and a second try leaves no file that has two names.
    #[test]
    fn t14_a_repair_in_place_that_is_stopped_can_be_done_again() {
        for has_log in [false, true] {
            for steps in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let at = to_repair(folder.path(), has_log);
                stop_after(steps);
                let stopped = crate::repair_in_place(&at);
                if !has_failed() {
                    stopped.unwrap();
                    assert!(steps > 5, "{steps} steps");
                    break;
                }
                let again = crate::repair_in_place(&at).unwrap();
                let larder = Options::new().inline().existing_only().open(&at).unwrap();
                let root = larder.root().unwrap();
                assert_eq!(root.get("a").unwrap().bytes().unwrap(), "one", "{steps}: {stopped:?}");
                root.put("a", "two").unwrap();
                let files: BTreeSet<_> =
                    names_in(folder.path()).iter().map(|name| file_identity(name)).collect();
                assert_eq!(files.len(), names_in(folder.path()).len(), "{steps}: {stopped:?}");
                assert_eq!(of(&again.kept.unwrap()), "one", "{steps}: {stopped:?}");
            }
        }
    }

    /// What holds what the store holds is for nobody else either.
    #[cfg(unix)]
    #[test]
    fn files_made_of_a_store_have_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        drop(Options::new().inline().open(at("a.larder")).unwrap());
        let mode = |name: &str| at(name).metadata().unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(at("a.larder"), PermissionsExt::from_mode(0o600)).unwrap();
        let larder = Options::new().inline().open(at("a.larder")).unwrap();
        larder.root().unwrap().put("a", "one").unwrap();
        larder.snapshot(at("a.snapshot"), &SnapshotOptions::new()).unwrap();
        larder.compact(None).unwrap();
        for name in ["a.larder", "a.larder-log", "a.snapshot"] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
    }
}
