//! What was accepted and is not yet in the store: versions of keys, in memory, in commit order.
//!
//! A layer is a skip list of (table, key, sequence) with the newest version of a key first; a reader asks for
//! the newest version up to a sequence number, so that one layer serves views of different ages: those of writers,
//! who see everything that was accepted, and those of readers, who see what is committed. Layers are dropped whole,
//! once everything in them has been drained into the store.

use std::cmp::Reverse;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use larder_format::{CHECKSUM_LENGTH, Operation, WriteSet};
use lru::DefaultHasher;
use parking_lot::{Mutex, RwLock};

use crate::cache::RecordCache;
use crate::error::{ErrorKind, Result};
use crate::guard::Row;
use crate::store::{Position, Snapshot, Table, corrupt};
use crate::txn::View;

/// A layer is closed, and another begun, when it has grown beyond this many bytes.
pub(crate) const LAYER_BYTES: usize = 4 << 20;

/// The layers over the store, and what of them is committed.
pub(super) struct Overlay {
    /// Held while a write-set goes into a layer, and while layers are dropped: none must be found all drained, and
    /// go, while something is on its way into it.
    absorbing: Mutex<()>,
    state: RwLock<State>,
    /// The sequence number of the last commit that is visible.
    visible: AtomicU64,
    cache: Arc<RecordCache>,
}

#[derive(Clone)]
struct State {
    /// Newest first.
    layers: Arc<[Arc<Layer>]>,
    /// What the layers lie over; nothing once the store is closed.
    snapshot: Option<Arc<Snapshot>>,
    /// The last commit that is visible.
    head: Position,
}

impl Overlay {
    pub(super) fn new(snapshot: Arc<Snapshot>, cache: RecordCache) -> Result<Self> {
        let head = snapshot.head()?;
        let state = State { layers: Arc::new([]), snapshot: Some(snapshot), head };
        Ok(Self {
            absorbing: Mutex::default(),
            state: RwLock::new(state),
            visible: AtomicU64::new(head.sequence),
            cache: Arc::new(cache),
        })
    }

    /// Gives the view of what is committed.
    pub(super) fn committed(&self) -> Result<View> {
        self.view(|state| state.head.sequence)
    }

    /// Gives the view of everything that was accepted.
    ///
    /// Only for the holder of the sequencer. It has an end, as what was read in a transaction stays readable after it.
    pub(super) fn accepted(&self) -> Result<View> {
        self.view(|state| {
            let newest = state.layers.iter().map(|layer| layer.newest()).max().unwrap_or(0);
            newest.max(state.head.sequence)
        })
    }

    fn view(&self, upto: impl FnOnce(&State) -> u64) -> Result<View> {
        let state = self.state.read();
        let Some(snapshot) = &state.snapshot else { return Err(ErrorKind::Closed.into()) };
        let upto = upto(&state);
        let (layers, snapshot) = (Arc::clone(&state.layers), Arc::clone(snapshot));
        Ok(View::new(layers, snapshot, Arc::clone(&self.cache), upto, state.head))
    }

    /// Gives the last commit that is visible.
    pub(super) fn head(&self) -> Position {
        self.state.read().head
    }

    /// Takes in a write-set; only those who see everything that was accepted see it.
    pub(super) fn absorb(&self, sequence: u64, write_set: &WriteSet) -> Result<()> {
        let _alone = self.absorbing.lock();
        let newest = self.state.read().layers.first().filter(|layer| layer.bytes() < LAYER_BYTES).cloned();
        let newest = newest.unwrap_or_else(|| {
            let layer = Arc::new(Layer::default());
            let mut state = self.state.write();
            state.layers = std::iter::once(Arc::clone(&layer)).chain(state.layers.iter().cloned()).collect();
            layer
        });
        newest.absorb(sequence, write_set)
    }

    /// Gives the cache of records.
    pub(super) fn cache(&self) -> &RecordCache {
        &self.cache
    }

    /// Hands the row of a key, as the newest commit has it, to `take`, if it is in the cache; and its payload, if that is there.
    pub(super) fn cached<R>(&self, key: &[u8], take: impl FnOnce(&Row, &Bytes) -> R) -> Option<R> {
        self.cache.get_with_payload(key, self.visible.load(Ordering::Acquire), take)
    }

    /// Tells the cache of records what a write-set changes, which is not visible yet.
    pub(super) fn note(&self, sequence: u64, write_set: &WriteSet) -> Result<()> {
        for operation in write_set.operations()? {
            match operation? {
                Operation::Put { table, key, value } if table == Table::Records.number() => {
                    self.cache.change(&key, sequence, value.get(CHECKSUM_LENGTH..));
                }
                Operation::Delete { table, key } if table == Table::Records.number() => {
                    self.cache.change(&key, sequence, None);
                }
                Operation::DeleteRange { table, .. } if table == Table::Records.number() => {
                    self.cache.clear(sequence);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes everything visible up to a commit, of which the cache knows.
    pub(super) fn show(&self, head: &Position) {
        let mut state = self.state.write();
        state.head = *head;
        self.visible.store(head.sequence, Ordering::Release);
    }

    /// Puts the layers over a newer view of the store, in which everything is up to `drained`.
    pub(super) fn rebase(&self, snapshot: Arc<Snapshot>, drained: &Position) {
        let _alone = self.absorbing.lock();
        let mut state = self.state.write();
        state.snapshot = Some(snapshot);
        if state.layers.iter().any(|layer| layer.newest() <= drained.sequence) {
            state.layers =
                state.layers.iter().filter(|layer| layer.newest() > drained.sequence).cloned().collect();
        }
    }

    /// Begins anew over a view of the store that has everything that is visible.
    pub(super) fn start_over(&self, snapshot: Arc<Snapshot>, head: &Position) {
        let _alone = self.absorbing.lock();
        let mut state = self.state.write();
        *state = State { layers: Arc::new([]), snapshot: Some(snapshot), head: *head };
    }

    /// Lets go of the store. Views that are held stay as they are.
    pub(super) fn close(&self) {
        self.state.write().snapshot = None;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    table: Table,
    key: Bytes,
    newest_first: Reverse<u64>,
}

#[derive(Debug, Clone)]
struct RemovedRange {
    table: Table,
    start: Bytes,
    end: Option<Bytes>,
    sequence: u64,
}

impl RemovedRange {
    fn covers(&self, table: Table, key: &[u8]) -> bool {
        self.table == table
            && key >= self.start.as_ref()
            && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }
}

/// Accepted write-sets.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    versions: SkipMap<Version, Option<Bytes>>,
    /// Which keys there are versions of, or seem to be.
    keys: KeyFilter,
    removed: RwLock<Vec<RemovedRange>>,
    bytes: AtomicUsize,
    newest: AtomicU64,
}

/// What a layer says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// It has this body.
    Is(Bytes),
    /// It was removed.
    Gone,
    /// Nothing.
    Nothing,
}

impl Layer {
    /// Takes in a write-set.
    pub(crate) fn absorb(&self, sequence: u64, write_set: &WriteSet) -> Result<()> {
        for operation in write_set.operations()? {
            let (table, key, value) = match operation? {
                Operation::Put { table, key, value } => (table, key, Some(value.slice(CHECKSUM_LENGTH..))),
                Operation::Delete { table, key } => (table, key, None),
                Operation::DeleteRange { table, start, end, .. } => {
                    let table = known(table)?;
                    self.removed.write().push(RemovedRange { table, start, end, sequence });
                    continue;
                }
            };
            let table = known(table)?;
            self.keys.add(table, &key);
            self.versions.insert(Version { table, key, newest_first: Reverse(sequence) }, value);
        }
        self.bytes.fetch_add(write_set.as_bytes().len(), Ordering::Relaxed);
        self.newest.store(sequence, Ordering::Release);
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Gives the sequence number of the newest write-set in it; 0 if there is none.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Tells what is known here of a key, up to a sequence number.
    pub(crate) fn get(&self, table: Table, key: &[u8], upto: u64) -> Said {
        let gone = self.gone_at(table, key, upto);
        if !self.keys.may_have(table, key) {
            return if gone.is_some() { Said::Gone } else { Said::Nothing };
        }
        let from = Version { table, key: Bytes::copy_from_slice(key), newest_first: Reverse(upto) };
        let entry = self
            .versions
            .lower_bound(Bound::Included(&from))
            .filter(|entry| entry.key().table == table && entry.key().key == from.key);
        match entry {
            Some(entry) if gone.is_none_or(|gone| entry.key().newest_first.0 >= gone) => {
                entry.value().clone().map_or(Said::Gone, Said::Is)
            }
            _ if gone.is_some() => Said::Gone,
            _ => Said::Nothing,
        }
    }

    /// Gives the newest removal of a range that covers the key, up to a sequence number.
    pub(crate) fn gone_at(&self, table: Table, key: &[u8], upto: u64) -> Option<u64> {
        self.removed
            .read()
            .iter()
            .filter(|range| range.sequence <= upto && range.covers(table, key))
            .map(|range| range.sequence)
            .max()
    }

    /// Gives the first key at or behind a bound of which this layer says something.
    pub(crate) fn next(
        &self,
        table: Table,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        upto: u64,
    ) -> Option<(Bytes, Said)> {
        let mut from = match start {
            Bound::Included(key) => {
                Version { table, key: Bytes::copy_from_slice(key), newest_first: Reverse(u64::MAX) }
            }
            Bound::Excluded(key) => {
                Version { table, key: Bytes::copy_from_slice(key), newest_first: Reverse(0) }
            }
            Bound::Unbounded => Version { table, key: Bytes::new(), newest_first: Reverse(u64::MAX) },
        };
        loop {
            let entry = self.versions.lower_bound(Bound::Excluded(&from))?;
            let version = entry.key();
            let beyond = match end {
                Bound::Included(end) => version.key.as_ref() > end,
                Bound::Excluded(end) => version.key.as_ref() >= end,
                Bound::Unbounded => false,
            };
            if version.table != table || beyond {
                return None;
            }
            let key = version.key.clone();
            match self.get(table, &key, upto) {
                // Only versions that are too new for this view: on to the next key.
                Said::Nothing => from = Version { table, key, newest_first: Reverse(0) },
                said => return Some((key, said)),
            }
        }
    }
}

/// Tells most keys of which a layer has no version from those of which it has one, by two bits of a hash each (B. H. Bloom,
/// "Space/Time Trade-offs in Hash Coding with Allowable Errors", CACM 1970). There are a dozen layers when much is written, and
/// a put asks them for keys that none of them has.
#[derive(Debug)]
struct KeyFilter {
    words: Box<[AtomicU64]>,
    hasher: DefaultHasher,
}

/// How many words a filter has: 2^19 bits, for the 20 000 to 100 000 rows of a layer. A power of two.
const FILTER_WORDS: usize = 1 << 13;

impl Default for KeyFilter {
    fn default() -> Self {
        Self {
            words: std::iter::repeat_with(AtomicU64::default).take(FILTER_WORDS).collect(),
            hasher: DefaultHasher::default(),
        }
    }
}

impl KeyFilter {
    fn add(&self, table: Table, key: &[u8]) {
        if let Some((word, bits)) = self.place(table, key) {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    fn may_have(&self, table: Table, key: &[u8]) -> bool {
        self.place(table, key).is_none_or(|(word, bits)| word.load(Ordering::Relaxed) & bits == bits)
    }

    /// Both bits lie in one word, so that it is one place in memory that is looked at.
    fn place(&self, table: Table, key: &[u8]) -> Option<(&AtomicU64, u64)> {
        let hash = self.hasher.hash_one((table.number(), key));
        let word = usize::try_from(hash >> 12).unwrap_or(0) & (FILTER_WORDS - 1);
        Some((self.words.get(word)?, 1 << (hash & 63) | 1 << (hash >> 6 & 63)))
    }
}

fn known(table: u8) -> Result<Table> {
    Table::from_number(table).ok_or_else(|| corrupt(format!("a write-set names table {table}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_hides_nothing_and_knows_most_of_what_is_not_there() {
        let filter = KeyFilter::default();
        let key = |number: u32| format!("shelf{}/{number}", number % 7);
        assert!(!filter.may_have(Table::Records, key(0).as_bytes()), "an empty one has nothing");
        (0..20_000).for_each(|number| filter.add(Table::Records, key(number).as_bytes()));
        assert!((0..20_000).all(|number| filter.may_have(Table::Records, key(number).as_bytes())));
        let seems = |table| {
            (0..20_000).filter(|number| filter.may_have(table, key(number + 20_000).as_bytes())).count()
        };
        assert!(seems(Table::Records) < 1_000, "{}", seems(Table::Records));
        let of_another =
            (0..20_000).filter(|number| filter.may_have(Table::Rows, key(*number).as_bytes())).count();
        assert!(of_another < 1_000, "{of_another}: a table of its own");
    }
}
