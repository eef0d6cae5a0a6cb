//! Compacting, repairing, salvaging: a new file of what there is in another one.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::documents::Documents;
use crate::error::{Error, Result};
use crate::larder::Larder;
use crate::options::Options;
use crate::primitives::{is_all_derived, is_derived};
use crate::rebuild::rebuild;
use crate::snapshot::{Watch, watched};
use crate::store::{Snapshot, Store, Table};
use crate::verify::{Finding, VerifyReport, verify};

/// How much memory pages are kept in while a file is filled, in bytes.
const CACHE_BYTES: usize = 128 << 20;

/// What compacting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactReport {
    /// The length of the file before, in bytes.
    pub before: u64,
    /// Its length after.
    pub after: u64,
}

impl Larder {
    /// Copies the store into a file as short as it can be, which then has its name. Others read meanwhile, and write as long
    /// as what they write fits into memory (64 MiB) and has no payload above 1 MiB; then they wait. Needs room for the copy
    /// beside the file. Readers that are open keep the old file, and its room, until they are done.
    ///
    /// # Errors
    /// [`StoreFull`](crate::ErrorKind::StoreFull), [`Io`](crate::ErrorKind::Io), [`Corrupt`](crate::ErrorKind::Corrupt),
    /// [`Aborted`](crate::ErrorKind::Aborted): the store goes on with the file that it had.
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the store is not in a file.
    pub fn compact(&self, watch: Option<&Watch>) -> Result<CompactReport> {
        self.shared().observed("compact", "", || {
            let (before, after) = self.shared().commit.compact(&mut |bytes| watched(watch, bytes))?;
            Ok(CompactReport { before, after })
        })
    }
}

/// Recounts everything in a file that nobody has open, and compares the checksums of its pages besides, which also tells of
/// rows that are missing where nothing counts them. Not a byte of it changes.
///
/// # Errors
/// As [`Options::open_read_only`]; damage is a finding, as far as the file can be read at all.
pub fn verify_file(path: impl AsRef<Path>, progress: &mut dyn FnMut(&VerifyReport)) -> Result<VerifyReport> {
    let are_pages_whole = Store::check_pages(path.as_ref());
    let larder = Options::new().open_read_only(path)?;
    let mut report = larder.verify(progress)?;
    let wrong = match are_pages_whole {
        Ok(true) => return Ok(report),
        Ok(false) => "the checksums of its pages do not agree with them".to_owned(),
        Err(error) => error.to_string(),
    };
    report.findings.push(Finding {
        place: "pages".to_owned(),
        what: wrong,
        remedy: "rows may be missing: restore a snapshot, or keep what there is: larder repair FILE",
    });
    Ok(report)
}

/// What was repaired.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// How many rows were copied.
    pub rows: u64,
    /// What could not be read, and is not in the new file.
    pub left_out: Vec<Finding>,
    /// What is wrong with the new file still: what cannot be derived from anything.
    pub verified: VerifyReport,
    /// Where the file as it was is kept, if the new one has its place.
    pub kept: Option<PathBuf>,
    /// What failed when the new one had its place already: that a loss of power leaves it there, or that the log of the former one
    /// is gone.
    pub unsettled: Option<Error>,
}

/// Makes a new file of one that opens, without what is damaged, and with everything derived again that follows from
/// something else. [`verify_file`] says beforehand what is wrong. The file itself is not changed, and nothing is guessed.
///
/// # Errors
/// As [`Options::open_read_only`], and [`AlreadyExists`](crate::ErrorKind::AlreadyExists). A file that does not open is one for
/// [`salvage`](crate::salvage).
pub fn repair(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<RepairReport> {
    let larder = Options::new().open_read_only(from)?;
    let (mut report, identity) = (RepairReport::default(), *larder.shared().commit.store().identity());
    Store::build(to.as_ref(), identity, CACHE_BYTES, |store| report.fill(&larder, store))?;
    Ok(report)
}

/// The same, with the new file in the place of the one that there is. This is kept beside it, with its log if it has one: as
/// `FILE.before-repair`, or, if there is one from before, with a number behind that. Nobody may have it open to write. A crash leaves
/// the one or the other, whole; one between the last two steps leaves the file under both names, until it is repaired in place again.
///
/// # Errors
/// As [`repair`]; [`Io`](crate::ErrorKind::Io) where a file can have one name only, 16 were kept before, or another file has the
/// path meanwhile. All leave what there was.
pub fn repair_in_place(path: impl AsRef<Path>) -> Result<RepairReport> {
    let larder = Options::new().open_read_only(path)?;
    let mut report = RepairReport::default();
    let fill = |store: &Store| report.fill(&larder, store);
    let (kept, settled) = larder.shared().commit.store().build_instead(CACHE_BYTES, fill)?;
    Ok(RepairReport { kept, unsettled: settled.err(), ..report })
}

impl RepairReport {
    /// Fills a new store with what can be read of another and what follows from that.
    fn fill(&mut self, from: &Larder, to: &Store) -> Result<()> {
        let snapshot = Arc::clone(from.shared().commit.committed_view()?.snapshot());
        self.rows = copy_readable(&snapshot, to, &mut self.left_out)?;
        rebuild(to)?;
        self.verified = verify_new(to)?;
        Ok(())
    }
}

/// Verifies a store that is being made.
pub(crate) fn verify_new(store: &Store) -> Result<VerifyReport> {
    let view = store.view()?;
    let documents = Documents::read(&view)?;
    verify(&view, &documents, &mut |_| {})
}

/// Copies the rows that can be read and do not follow from others.
fn copy_readable(snapshot: &Arc<Snapshot>, store: &Store, left_out: &mut Vec<Finding>) -> Result<u64> {
    let (mut loader, mut count) = (store.load(), 0);
    // What the file is was written when it was made; the rest of these is derived, or was not finished.
    let is_copied = |table: &Table| !matches!(table, Table::Meta | Table::Staging) && !is_all_derived(*table);
    for table in Table::ALL.into_iter().filter(is_copied) {
        for row in snapshot.range(table, Bound::Unbounded, Bound::Unbounded)?.over_damage() {
            match row {
                Ok(row) if is_derived(table, row.key()) => {}
                Ok(row) => {
                    loader.put_sealed(table, row.key().to_vec().into(), row.sealed().to_vec().into())?;
                    count += 1;
                }
                Err(error) => left_out.push(Finding {
                    place: table.name().to_owned(),
                    what: error.to_string(),
                    remedy: "restore it from a copy, or look for it with: larder salvage FILE NEW",
                }),
            }
        }
    }
    loader.commit()?;
    Ok(count)
}
