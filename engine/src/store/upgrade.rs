//! From one format to the next: after a backup, in one transaction, when it was asked for.

use std::path::{Path, PathBuf};

use redb::{ReadableTable, WriteTransaction};

use super::snapshot::bytes_definition;
use super::tables::{Tree, tree_key};
use super::{
    FORMAT_VERSION, Store, Table, commit_error, meta_key, names, place, shield, state_key, storage,
    table_error,
};
use crate::error::{Error, ErrorKind, Result};
use crate::primitives::{Purpose, StatisticsMap, deadline_key, expiry_of};

/// How many backups of one kind are kept under names of their own.
pub(super) const BACKUPS_MAX: u32 = 16;
/// How much of a file is copied in one go, in bytes.
const COPIED_AT_ONCE: usize = 1 << 20;

/// What was done to bring a file to the format of this version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpgradeReport {
    /// The format that the file had.
    pub from: u32,
    /// The format that it has now.
    pub to: u32,
    /// Where the file as it was is kept; nothing where no file was changed.
    pub backup: Option<PathBuf>,
}

/// Turns what lies in a file of one format into that of the next.
pub(crate) struct Step {
    from: u32,
    apply: fn(&WriteTransaction) -> Result<()>,
}

/// The formats that are known: the one that is written, and the steps that lead there.
pub(crate) struct Formats {
    pub(super) current: u32,
    pub(super) steps: &'static [Step],
}

/// Format 1 is the first: no step leads to it.
pub(crate) const FORMATS: Formats = Formats {
    current: FORMAT_VERSION,
    steps: &[Step { from: 1, apply: add_index }, Step { from: 2, apply: add_rows }],
};

/// Format 2 has claims, deadlines and edges, in a tree of their own; what expires has its row, and what no policy may
/// remove is counted.
fn add_index(transaction: &WriteTransaction) -> Result<()> {
    let mut index =
        transaction.open_table(bytes_definition(Table::Deadlines.tree().0)).map_err(table_error)?;
    let records = transaction.open_table(bytes_definition(Tree::Own(Table::Records))).map_err(table_error)?;
    let mut statistics = StatisticsMap::default();
    for row in records.iter().map_err(storage)? {
        let (key, value) = row.map_err(storage)?;
        let body = larder_format::unseal(Table::Records.number(), key.value(), value.value())
            .map_err(|error| super::corrupt(error.to_string()))?;
        let (record, _) = larder_format::Record::in_place(body)?;
        let record = record.to_record();
        statistics.count(&record, 1);
        let Some(at) = expiry_of(&record) else { continue };
        let row_key = deadline_key(at, Purpose::Expiry, key.value());
        let mut sealed = Vec::new();
        larder_format::seal_into(Table::Deadlines.number(), &row_key, &[], &mut sealed);
        index.insert(&*tree_key(Table::Deadlines, &row_key), sealed.as_slice()).map_err(storage)?;
    }
    // Counted anew: what no policy may remove is among them now.
    let mut journal = transaction.open_table(bytes_definition(Table::State.tree().0)).map_err(table_error)?;
    let mut sealed = Vec::new();
    larder_format::seal_into(Table::State.number(), state_key::STATISTICS, &statistics.encode(), &mut sealed);
    let key = tree_key(Table::State, state_key::STATISTICS);
    journal.insert(&*key, sealed.as_slice()).map_err(storage)?;
    Ok(())
}

/// Format 3 has collections: a tree for their rows, empty as yet.
fn add_rows(transaction: &WriteTransaction) -> Result<()> {
    transaction.open_table(bytes_definition(Tree::Own(Table::Rows))).map_err(table_error)?;
    Ok(())
}

impl Store {
    /// Brings the file to the current format. Everything of its commit log is in it already.
    ///
    /// # Errors
    /// [`UpgradeRequired`](ErrorKind::UpgradeRequired) where the file is older and was not to be upgraded.
    pub(crate) fn upgrade(&mut self, formats: &Formats, is_wanted: bool) -> Result<Option<UpgradeReport>> {
        let (from, to) = (self.identity.format, formats.current);
        if from == to {
            return Ok(None);
        }
        if !(is_wanted || self.is_read_only) {
            return Err(ErrorKind::UpgradeRequired { found: from, to }.into());
        }
        let backup = self.back_up(from)?;
        let _turn = self.turn.take();
        let begun = shield("upgrade the file", || {
            let transaction = self.begin_write()?;
            for format in from..to {
                let step = formats.steps.iter().find(|step| step.from == format);
                // An older format than any that can be brought here.
                let step = step.ok_or(ErrorKind::UnsupportedVersion { found: from, max: to })?;
                (step.apply)(&transaction)?;
            }
            {
                let mut meta =
                    transaction.open_table(bytes_definition(Tree::Own(Table::Meta))).map_err(table_error)?;
                let mut sealed = Vec::new();
                let (table, key) = (Table::Meta.number(), meta_key::FORMAT);
                larder_format::seal_into(table, key, &to.to_le_bytes(), &mut sealed);
                meta.insert(key, sealed.as_slice()).map_err(storage)?;
            }
            Ok(transaction)
        });
        if let (Err(_), Some(backup)) = (&begun, &backup) {
            // The file is as it was: a copy of it for each try would only take room.
            let _ = names::remove(backup);
        }
        let transaction = begun?;
        shield("upgrade the file", || {
            self.commit_durably(transaction).map_err(|error| commit_error(error, "upgrading the file"))
        })?;
        if !self.is_read_only {
            self.identity.format = to;
        }
        Ok(Some(UpgradeReport { from, to, backup }))
    }

    /// Copies the file as it is, to a name beside it that nothing has.
    fn back_up(&self, format: u32) -> Result<Option<PathBuf>> {
        let (Some(path), false) = (self.path(), self.is_read_only) else { return Ok(None) };
        for number in 1..=BACKUPS_MAX {
            let backup = backup_path(&path, &format!("format-{format}-backup"), number);
            match place::create_new(&backup, Some(&path), |target| {
                let copying = |error| place::io_error("backing up the file", error);
                let length = self.state.length();
                target.set_len(length).map_err(copying)?;
                let mut piece = vec![0; COPIED_AT_ONCE];
                for offset in (0..length).step_by(COPIED_AT_ONCE) {
                    let left = usize::try_from(length - offset).unwrap_or(COPIED_AT_ONCE);
                    let piece = piece.get_mut(..left.min(COPIED_AT_ONCE)).unwrap_or_default();
                    self.read_file(offset, piece)
                        .and_then(|()| target.write(offset, piece))
                        .map_err(copying)?;
                }
                Ok(())
            }) {
                Ok(()) => return Ok(Some(backup)),
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists) => {}
                Err(error) => return Err(error),
            }
        }
        let doing = format!("looking for a name for the backup: {BACKUPS_MAX} are taken");
        Err(Error::new(ErrorKind::Io { doing }))
    }
}

/// The name of a backup, which says what it is.
pub(super) fn backup_path(path: &Path, what: &str, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    if number > 1 {
        name.push(format!("-{number}"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::*;

    /// Marks every row of `state` as brought to the next format.
    fn mark(transaction: &WriteTransaction) -> Result<()> {
        let mut table =
            transaction.open_table(bytes_definition(Table::State.tree().0)).map_err(table_error)?;
        let mut sealed = Vec::new();
        larder_format::seal_into(Table::State.number(), b"upgraded", b"yes", &mut sealed);
        table.insert(&b"\x01upgraded"[..], sealed.as_slice()).map_err(storage)?;
        Ok(())
    }

    fn fail(_: &WriteTransaction) -> Result<()> {
        Err(super::super::corrupt("on purpose"))
    }

    const NEXT: Formats =
        Formats { current: FORMAT_VERSION + 1, steps: &[Step { from: FORMAT_VERSION, apply: mark }] };
    const FAILING: Formats =
        Formats { current: FORMAT_VERSION + 1, steps: &[Step { from: FORMAT_VERSION, apply: fail }] };
    const TWO_ON: Formats = Formats {
        current: FORMAT_VERSION + 2,
        steps: &[Step { from: FORMAT_VERSION, apply: mark }, Step { from: FORMAT_VERSION + 1, apply: mark }],
    };

    fn open(place: Place<'_>) -> Store {
        Store::open(place, 1 << 20, 7, [7; 16]).unwrap()
    }

    fn is_marked(store: &Store) -> bool {
        store.view().unwrap().get(Table::State, b"upgraded").unwrap().is_some()
    }

    #[test]
    fn a_file_of_the_current_format_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        assert_eq!(open(Place::File { path: &path, create: true }).upgrade(&FORMATS, true).unwrap(), None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_older_file_is_refused_until_it_is_asked_for_and_backed_up_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        drop(open(Place::File { path: &path, create: true }));
        let mut store = open(Place::File { path: &path, create: false });
        let refused = store.upgrade(&NEXT, false).unwrap_err();
        assert!(
            matches!(refused.kind(), ErrorKind::UpgradeRequired { found: FORMAT_VERSION, to } if *to == FORMAT_VERSION + 1),
            "{refused}"
        );
        assert!(refused.to_string().contains("larder upgrade FILE"));
        drop(store);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "a refusal leaves nothing");

        let mut store = open(Place::File { path: &path, create: false });
        assert!(store.identity().format == FORMAT_VERSION && !is_marked(&store), "and changes nothing");
        let report = store.upgrade(&NEXT, true).unwrap().unwrap();
        let next = FORMAT_VERSION + 1;
        assert_eq!((report.from, report.to, store.identity().format), (FORMAT_VERSION, next, next));
        assert!(is_marked(&store));
        drop(store);
        // This version now refuses the file, and opens the backup.
        let refused =
            Store::open(Place::File { path: &path, create: false }, 1 << 20, 7, [7; 16]).err().unwrap();
        assert!(
            matches!(refused.kind(), ErrorKind::UnsupportedVersion { max: FORMAT_VERSION, .. }),
            "{refused}"
        );
        let backup = report.backup.unwrap();
        let store = open(Place::File { path: &backup, create: false });
        assert!(store.identity().format == FORMAT_VERSION && !is_marked(&store));
    }

    #[test]
    fn an_upgrade_that_fails_leaves_the_file_as_it_was_and_can_be_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        drop(open(Place::File { path: &path, create: true }));
        for _ in 0..2 {
            let mut store = open(Place::File { path: &path, create: false });
            assert!(store.upgrade(&FAILING, true).is_err());
            assert!(store.identity().format == FORMAT_VERSION && !is_marked(&store));
        }
        let mut store = open(Place::File { path: &path, create: false });
        let report = store.upgrade(&TWO_ON, true).unwrap().unwrap();
        assert_eq!((report.from, report.to), (FORMAT_VERSION, FORMAT_VERSION + 2));
        assert!(
            report.backup.unwrap().ends_with(format!("a.larder.format-{FORMAT_VERSION}-backup")),
            "tries that failed left none"
        );
        // One that is there is not written over.
        drop(store);
        std::fs::remove_file(&path).unwrap();
        drop(open(Place::File { path: &path, create: true }));
        let report =
            open(Place::File { path: &path, create: false }).upgrade(&TWO_ON, true).unwrap().unwrap();
        assert!(report.backup.unwrap().ends_with(format!("a.larder.format-{FORMAT_VERSION}-backup-2")));
    }

    #[test]
    fn an_inspector_upgrades_in_memory_and_changes_no_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.larder");
        drop(open(Place::File { path: &path, create: true }));
        let before = std::fs::read(&path).unwrap();
        let mut store = Store::open_recovering(&path, 1 << 20).unwrap();
        assert_eq!(store.upgrade(&NEXT, false).unwrap().unwrap().backup, None);
        assert!(is_marked(&store));
        drop(store);
        assert!(std::fs::read(&path).unwrap() == before);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_format_that_no_step_leads_from_is_refused() {
        let mut store = open(Place::Memory);
        let gap =
            Formats { current: FORMAT_VERSION + 2, steps: &[Step { from: FORMAT_VERSION + 1, apply: mark }] };
        let refused = store.upgrade(&gap, true).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::UnsupportedVersion { .. }), "{refused}");
    }
}
