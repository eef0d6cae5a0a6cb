//! From snapshots to a store: a new file, which is there whole or not at all.

use std::path::{Path, PathBuf};

use larder_format::{SnapshotHeader, SnapshotKind, StateIdentity};

use super::read::{header_of, read};
use super::{SnapshotInfo, Watch, fresh_id};
use crate::commit::CommitInfo;
use crate::error::{ErrorKind, Result};
use crate::larder::FEED_TRIMMED;
use crate::primitives::Purpose;
use crate::rebuild::rebuild;
use crate::store::{Identity, Loader, Position, Store, Table, state_key};

/// How much memory pages are kept in while a store is filled, in bytes.
const CACHE_BYTES: usize = 128 << 20;
/// Sequence numbers and fences of another epoch begin at the next multiple of this.
const EPOCH: u64 = 1 << 48;

/// How a store is restored. By default as it was, by one thread beside the caller's.
#[derive(Clone, Default)]
pub struct RestoreOptions {
    threads: usize,
    is_new_epoch: bool,
    watch: Option<Watch>,
}

impl std::fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreOptions").field("is_new_epoch", &self.is_new_epoch).finish_non_exhaustive()
    }
}

impl RestoreOptions {
    /// Makes the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses on this many threads beside the one that fills the file; at least 1.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Begins another epoch: for a store that takes the place of one that went on after the snapshot. It gets an id of its
    /// own; its commits and fences begin beyond any that the other can have given out; nobody has a claim in it, and its
    /// feed begins anew. So whoever still holds a claim, or a place in the feed, of what was lost is told so, and is never
    /// taken for somebody else.
    #[must_use]
    pub fn new_epoch(mut self) -> Self {
        self.is_new_epoch = true;
        self
    }

    /// Tells how far it is here; the answer can be to give up, which leaves nothing.
    #[must_use]
    pub fn watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The last snapshot of the chain.
    pub info: SnapshotInfo,
    /// How many snapshots there were.
    pub snapshots: usize,
    /// How many rows they had, or removals of such.
    pub rows: u64,
    /// The last commit in the store, which is another one in a new epoch.
    pub last_commit: CommitInfo,
}

/// Restores a store from a snapshot, and the increments that follow it, in order, to a file that is not there yet. Every
/// byte is compared with its digest on the way, and the file gets its name only after the last of them.
///
/// ```
/// # use larder::{Larder, Options, RestoreOptions, SnapshotOptions, restore};
/// # let folder = tempfile::tempdir().unwrap();
/// # let (monday, friday, back) =
/// #     (folder.path().join("monday"), folder.path().join("friday"), folder.path().join("back.larder"));
/// let larder = Options::new().open_in_memory()?;
/// larder.root()?.put("stock/leeks.txt", "12")?;
/// let full = larder.snapshot(&monday, &SnapshotOptions::new())?;
/// larder.root()?.put("stock/leeks.txt", "10")?;
/// larder.snapshot(&friday, &SnapshotOptions::new().since(full.info))?;
///
/// restore(&[&monday, &friday], &back, &RestoreOptions::new())?;
/// assert_eq!(Larder::open(&back)?.root()?.get("stock/leeks.txt")?.bytes()?.as_ref(), b"10");
/// # Ok::<(), larder::Error>(())
/// ```
///
/// # Errors
/// [`AlreadyExists`](ErrorKind::AlreadyExists); [`SnapshotDamaged`](ErrorKind::SnapshotDamaged);
/// [`SnapshotMismatch`](ErrorKind::SnapshotMismatch) if they do not follow one another; [`StoreFull`](ErrorKind::StoreFull),
/// [`Io`](ErrorKind::Io), [`Aborted`](ErrorKind::Aborted). After an error there is no file.
pub fn restore(
    snapshots: &[impl AsRef<Path>],
    to: impl AsRef<Path>,
    options: &RestoreOptions,
) -> Result<RestoreReport> {
    let paths: Vec<PathBuf> = snapshots.iter().map(|path| path.as_ref().to_path_buf()).collect();
    let headers = paths.iter().map(|path| header_of(path)).collect::<Result<Vec<_>>>()?;
    let (first, last) = check_chain(&headers)?;
    let is_other_store = options.is_new_epoch || first.kind == SnapshotKind::Prefix;
    let store_id = if is_other_store { fresh_id() } else { first.store_id };
    let identity = Identity { format: last.format, store_id, created: first.created };
    let (mut rows, mut head) = (0, last.head);
    Store::build(to.as_ref(), identity, CACHE_BYTES, |store| {
        let mut loader = store.load();
        for (path, expected) in paths.iter().zip(&headers) {
            let (header, manifest) =
                read(path, options.threads, options.watch.as_ref(), |operations| loader.apply(operations))?;
            if header != *expected {
                return Err(
                    ErrorKind::SnapshotDamaged { what: "it changed while it was read".to_owned() }.into()
                );
            }
            rows += manifest.tables.values().map(|(count, _)| count).sum::<u64>();
        }
        loader.commit()?;
        if headers.len() > 1 || first.kind != SnapshotKind::Full {
            rebuild(store)?;
        }
        let mut loader = store.load();
        if is_other_store {
            head = begin_epoch(store, &mut loader, &last.head, options.is_new_epoch)?;
        }
        loader.commit()?;
        let found = store.view()?.head()?;
        if found != head {
            let what = format!("it ends with commit {}, and not with {}", found.sequence, head.sequence);
            return Err(ErrorKind::SnapshotDamaged { what }.into());
        }
        Ok(())
    })?;
    let (info, snapshots) = (SnapshotInfo(last.clone()), paths.len());
    Ok(RestoreReport { info, snapshots, rows, last_commit: head.into() })
}

/// A snapshot that stands alone, then increments, each from where the one before it ends.
fn check_chain(headers: &[SnapshotHeader]) -> Result<(&SnapshotHeader, &SnapshotHeader)> {
    let mismatch = |what: String| Err(ErrorKind::SnapshotMismatch { what }.into());
    let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
        return mismatch("there is none".to_owned());
    };
    if first.kind == SnapshotKind::Increment {
        return mismatch(format!(
            "the first is an increment on commit {}; what it builds on has to come before it",
            first.base.sequence
        ));
    }
    for (number, pair) in (2..).zip(headers.windows(2)) {
        let [before, next] = pair else { continue };
        if !SnapshotInfo(next.clone()).follows(&SnapshotInfo(before.clone())) {
            return mismatch(format!(
                "number {number} is {} {} and builds on commit {}, number {} ends with commit {} of {}",
                next.kind,
                if next.store_id == before.store_id { "of the same store" } else { "of another store" },
                next.base.sequence,
                number - 1,
                before.head.sequence,
                if before.kind == SnapshotKind::Prefix { "a part of the store" } else { "the store" },
            ));
        }
    }
    Ok((first, last))
}

/// Makes another store of it: nothing that the one it was goes on to give out is given out here.
pub(crate) fn begin_epoch(
    store: &Store,
    loader: &mut Loader<'_>,
    head: &Position,
    is_new_epoch: bool,
) -> Result<Position> {
    let beyond = |number: u64| (number / EPOCH).saturating_add(1).saturating_mul(EPOCH);
    let mut next = *head;
    if is_new_epoch {
        next.sequence = beyond(head.sequence);
        let view = store.view()?;
        let fences = view.get(Table::State, state_key::FENCES)?;
        let fences = fences.and_then(|row| row.first_chunk().map(|last| u64::from_le_bytes(*last)));
        loader.put(Table::State, state_key::FENCES, &beyond(fences.unwrap_or(0)).to_le_bytes())?;
        loader.remove_range(Table::Claims, &[], None)?;
        for row in view.range(Table::Deadlines, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)? {
            let row = row?;
            if Purpose::of_row(row.key()) == Some(Purpose::Claim) {
                loader.remove(Table::Deadlines, row.key())?;
            }
        }
        loader.remove_range(Table::Feed, &[], None)?;
    }
    loader.put(Table::State, FEED_TRIMMED, &next.sequence.to_le_bytes())?;
    // Another history begins here, though it begins with the same assets.
    let chained = [&head.identity.0[..], &store.identity().store_id, &next.sequence.to_le_bytes()].concat();
    next.identity = StateIdentity(*blake3::hash(&chained).as_bytes());
    loader.put(Table::State, state_key::HEAD, &next.encode())?;
    Ok(next)
}
