//! Hot records, decoded and checked, with their payloads where these are small: a least-recently-used cache in shards.
//!
//! What is in the cache is what the newest commit says, and every entry knows since which commit it is so. A reader at
//! commit *s* may take an entry that holds since *s* or before; readers of older states pass by.
//!
//! The protocol
//! 1. Before commit *n* becomes visible, every key that it writes is [changed](RecordCache::change), which replaces or
//!    removes its entry and notes *n* in its shard.
//! 2. A reader at *s* that found nothing reads its view and [fills](RecordCache::fill) what it found. If its shard has
//!    noted a commit after *s* meanwhile, the fill is dropped: it could be of a state that has passed.
//!
//! So an entry holds from its commit until the next change of its key, and no longer: a change removes it before anyone
//! can be at the commit that changes it, and a fill from before cannot bring it back.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{CollectionDefinition, ContentHash, Record};
use lru::{DefaultHasher, LruCache};
use parking_lot::{Mutex, RwLock};

use crate::columns::Columns;
use crate::error::Result;
use crate::guard::Row;
use crate::primitives::DefinedCollection;

/// A power of two, and more than there are likely to be threads that read at once.
const SHARDS: usize = 64;
/// How many keys a shard remembers that it did not keep.
const PASSERS: usize = 1 << 10;
/// What an entry takes beside its key and its row, in bytes, about: the list, the map, the allocations.
const ENTRY_OVERHEAD: usize = 160;
/// An entry may take this part of its shard at most.
const ENTRY_PART_MAX: usize = 8;
/// Up to which length a payload is kept that lies in rows of its own.
pub(crate) const PAYLOAD_KEPT_MAX: u64 = 4 << 10;

/// How well the cache of records does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// How many reads it answered.
    pub hits: u64,
    /// How many reads it could not answer.
    pub misses: u64,
    /// How many entries went to make room.
    pub evictions: u64,
    /// How many entries there are.
    pub entries: u64,
    /// About how many bytes they take.
    pub bytes: u64,
    /// How many records are in columns, for those who ask for [summaries](crate::ReadTxn::summaries).
    pub column_records: u64,
    /// About how many bytes the columns take.
    pub column_bytes: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    row: Row,
    /// The payload, if it lies in rows of its own and was asked for; else nothing.
    payload: Bytes,
    /// The commit from which on this is what the key has.
    since: u64,
    weight: usize,
}

struct Shard {
    entries: LruCache<Box<[u8]>, Entry>,
    /// What was asked for lately and not kept, by a part of its hash.
    passers: Box<[u16]>,
    bytes: usize,
    /// The last commit that changed a key of this shard.
    changed: u64,
    hits: u64,
    misses: u64,
    evictions: u64,
}

/// The records that were asked for last.
pub(crate) struct RecordCache {
    shards: Box<[Mutex<Shard>]>,
    hasher: DefaultHasher,
    shard_bytes_max: usize,
    definitions: RwLock<Definitions>,
    columns: Columns,
}

/// Definitions of collections, by their bytes: those that are defined alike share one, which is near then.
type Definitions = HashMap<Box<[u8]>, Arc<CollectionDefinition>, DefaultHasher>;

/// The most definitions that are kept.
const DEFINITIONS_MAX: usize = 4_096;

impl RecordCache {
    /// Makes a cache that takes up to so many bytes, and columns that take as many as they may; with 0 there are none.
    pub(crate) fn new(bytes_max: usize, columns: Columns) -> Self {
        let shard = || Shard {
            entries: LruCache::unbounded(),
            passers: vec![0; PASSERS].into(),
            bytes: 0,
            changed: 0,
            hits: 0,
            misses: 0,
            evictions: 0,
        };
        let count = if bytes_max == 0 { 0 } else { SHARDS };
        Self {
            shards: (0..count).map(|_| Mutex::new(shard())).collect(),
            hasher: DefaultHasher::default(),
            shard_bytes_max: bytes_max / SHARDS,
            definitions: RwLock::default(),
            columns,
        }
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Gives what a section of a record says of a collection. It is kept by what it says, and so is never outdated.
    pub(crate) fn definition(&self, section: &[u8]) -> Result<DefinedCollection> {
        let (id, bytes) = section.split_first_chunk().unwrap_or((&[0; 8], section));
        if let Some(definition) = self.definitions.read().get(bytes) {
            return Ok(DefinedCollection { id: u64::from_le_bytes(*id), definition: Arc::clone(definition) });
        }
        let collection = DefinedCollection::decode(section)?;
        let mut definitions = self.definitions.write();
        if definitions.len() >= DEFINITIONS_MAX {
            definitions.clear();
        }
        definitions.insert(bytes.into(), Arc::clone(&collection.definition));
        Ok(collection)
    }

    fn shard(&self, key: &[u8]) -> Option<&Mutex<Shard>> {
        self.shards.get(part(self.hasher.hash_one(key), 40, SHARDS))
    }

    /// Hands what the key has at a commit to `take`, if it is here.
    pub(crate) fn get<R>(&self, key: &[u8], at: u64, take: impl FnOnce(&Row) -> R) -> Option<R> {
        self.look(key, at, |row, _| take(row), 1)
    }

    /// The same, with the payload, which is empty if it is not here. Nothing here is no miss yet: a view asks again.
    pub(crate) fn get_with_payload<R>(
        &self,
        key: &[u8],
        at: u64,
        take: impl FnOnce(&Row, &Bytes) -> R,
    ) -> Option<R> {
        self.look(key, at, take, 0)
    }

    fn look<R>(
        &self,
        key: &[u8],
        at: u64,
        take: impl FnOnce(&Row, &Bytes) -> R,
        misses_if_not: u64,
    ) -> Option<R> {
        let mut shard = self.shard(key)?.lock();
        // While there is room the order is of no matter, and to bring an entry to the front touches both of its neighbours, which
        // are in nobody's cache. Before the shard is full it is in order again.
        let is_ordered = shard.bytes > self.shard_bytes_max / 4 * 3;
        let entry = if is_ordered { shard.entries.get(key) } else { shard.entries.peek(key) };
        let taken = entry.filter(|entry| entry.since <= at).map(|entry| take(&entry.row, &entry.payload));
        match taken {
            Some(_) => shard.hits += 1,
            None => shard.misses += misses_if_not,
        }
        taken
    }

    /// Keeps what a reader found at a commit, unless it may have passed since. Once the cache is full it takes what is
    /// asked for a second time only: to read everything once must not drive out what is hot.
    pub(crate) fn fill(&self, key: &[u8], at: u64, row: &Row) {
        if self.shards.is_empty() {
            return;
        }
        let hash = self.hasher.hash_one(key);
        let Some(shard) = self.shards.get(part(hash, 40, SHARDS)) else { return };
        let mut shard = shard.lock();
        if shard.changed <= at && (shard.has_room(key, row, self.shard_bytes_max) || shard.comes_again(hash))
        {
            shard.put(key, at, row.clone(), self.shard_bytes_max);
        }
    }

    /// Keeps the payload of a record that is here, if it is of this digest.
    pub(crate) fn fill_payload(&self, key: &[u8], hash: ContentHash, payload: &[u8]) {
        let hashed = self.hasher.hash_one(key);
        let Some(shard) = self.shards.get(part(hashed, 40, SHARDS)) else { return };
        let mut shard = shard.lock();
        let is_room = shard.bytes + payload.len() <= self.shard_bytes_max || shard.comes_again(hashed);
        let Some(entry) = shard.entries.peek_mut(key) else { return };
        let is_its_own = entry.payload.is_empty() && entry.row.record.payload().hash() == Some(hash);
        if is_room && is_its_own && entry.weight + payload.len() <= self.shard_bytes_max / ENTRY_PART_MAX {
            // A copy of its own: it lies in a page, which must not be kept.
            entry.payload = Bytes::copy_from_slice(payload);
            entry.weight += payload.len();
            shard.bytes += payload.len();
            shard.make_room(self.shard_bytes_max);
        }
    }

    /// Gives the payload of a record that is here, if it is of this digest; else nothing. What is not here is no miss: the record
    /// was asked for.
    pub(crate) fn payload(&self, key: &[u8], hash: ContentHash) -> Bytes {
        let Some(shard) = self.shard(key) else { return Bytes::new() };
        let shard = shard.lock();
        let entry = shard.entries.peek(key).filter(|entry| entry.row.record.payload().hash() == Some(hash));
        entry.map_or_else(Bytes::new, |entry| entry.payload.clone())
    }

    /// Notes that a commit, which is not visible yet, changes a key. One that is asked for often keeps its place, with
    /// what it has then.
    pub(crate) fn change(&self, key: &[u8], commit: u64, row: Option<&[u8]>) {
        self.columns.change(key, commit, row);
        let Some(shard) = self.shard(key) else { return };
        let mut shard = shard.lock();
        shard.changed = shard.changed.max(commit);
        let Some(old) = shard.entries.pop(key) else { return };
        shard.bytes -= old.weight;
        // A copy of its own: the row lies in a write-set, which would be kept whole.
        let row = row.and_then(|row| Record::split(&Bytes::copy_from_slice(row)).ok());
        if let Some((record, inline)) = row {
            shard.put(key, commit, Row { record, inline }, self.shard_bytes_max);
        }
    }

    /// Notes that a commit, which is not visible yet, removes a range of keys.
    pub(crate) fn clear(&self, commit: u64) {
        self.columns.clear(commit);
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.changed = shard.changed.max(commit);
            shard.entries.clear();
            shard.bytes = 0;
        }
    }

    /// Tells how well it does.
    pub(crate) fn statistics(&self) -> CacheStatistics {
        let mut sum = CacheStatistics::default();
        for shard in &self.shards {
            let shard = shard.lock();
            sum.hits += shard.hits;
            sum.misses += shard.misses;
            sum.evictions += shard.evictions;
            sum.entries += shard.entries.len() as u64;
            sum.bytes += shard.bytes as u64;
        }
        (sum.column_records, sum.column_bytes) = self.columns.size();
        sum
    }
}

/// The part of a hash that begins with a bit, below a power of two up to 2^16. The map in a shard goes by the lowest
/// bits, as many as it needs, and by the highest 7: what chooses the shard must be neither.
fn part(hash: u64, bit: u32, below: usize) -> usize {
    usize::try_from((hash >> bit) & 0xFFFF).unwrap_or(0) & (below - 1)
}

fn weight_of(key: &[u8], row: &Row) -> usize {
    ENTRY_OVERHEAD + key.len() + row.record.as_bytes().len() + row.inline.len()
}

impl Shard {
    fn has_room(&self, key: &[u8], row: &Row, bytes_max: usize) -> bool {
        self.bytes + weight_of(key, row) <= bytes_max
    }

    /// Tells whether a key was asked for lately, and remembers that it was (the doorkeeper of G. Einziger et al.,
    /// "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS 2017).
    fn comes_again(&mut self, hash: u64) -> bool {
        let mark = u16::try_from(part(hash, 24, 1 << 16)).unwrap_or(0) | 1;
        let passer = self.passers.get_mut(part(hash, 46, PASSERS));
        passer.is_some_and(|passer| std::mem::replace(passer, mark) == mark)
    }

    fn put(&mut self, key: &[u8], since: u64, row: Row, bytes_max: usize) {
        let weight = weight_of(key, &row);
        if weight > bytes_max / ENTRY_PART_MAX {
            return;
        }
        if let Some(old) = self.entries.put(key.into(), Entry { row, payload: Bytes::new(), since, weight }) {
            self.bytes -= old.weight;
        }
        self.bytes += weight;
        self.make_room(bytes_max);
    }

    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((_, old)) = self.entries.pop_lru() else { break };
            self.bytes -= old.weight;
            self.evictions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use larder_format::{PayloadState, RecordBuilder};
    use proptest::prelude::*;

    use super::*;

    /// A row that says at which commit it was written.
    fn row(commit: u64) -> (Row, Vec<u8>) {
        let payload = commit.to_be_bytes();
        let hash = ContentHash::of(&payload);
        let mut builder = RecordBuilder::new(PayloadState::Inline { length: 8, hash });
        (builder.generation, builder.commit) = (1, commit);
        let (record, bytes) = builder.encode(&payload).unwrap();
        (Row { record, inline: Bytes::copy_from_slice(&payload) }, bytes.to_vec())
    }

    fn commit_of(row: &Row) -> u64 {
        u64::from_be_bytes(row.inline.as_ref().try_into().unwrap())
    }

    #[test]
    fn an_entry_serves_its_commit_and_later_ones_until_it_is_changed() {
        let cache = RecordCache::new(1 << 20, Columns::new(0));
        assert_eq!(cache.get(b"a", 5, commit_of), None);
        cache.fill(b"a", 5, &row(3).0);
        assert_eq!(cache.get(b"a", 4, commit_of), None, "an older reader passes by");
        assert_eq!(cache.get(b"a", 5, commit_of), Some(3));
        assert_eq!(cache.get(b"a", 9, commit_of), Some(3));
        cache.change(b"a", 10, Some(&row(10).1));
        assert_eq!(cache.get(b"a", 9, commit_of), None);
        assert_eq!(cache.get(b"a", 10, commit_of), Some(10));
        cache.change(b"a", 11, None);
        assert_eq!(cache.get(b"a", 11, commit_of), None);
        cache.fill(b"a", 10, &row(10).0);
        assert_eq!(cache.get(b"a", 11, commit_of), None, "a fill from before does not bring it back");
        cache.fill(b"b", 11, &row(1).0);
        cache.clear(12);
        cache.fill(b"b", 11, &row(1).0);
        assert_eq!(cache.get(b"b", 12, commit_of), None);
        let statistics = cache.statistics();
        assert_eq!((statistics.hits, statistics.entries, statistics.bytes), (3, 0, 0));
    }

    #[test]
    fn the_budget_is_kept_and_what_is_asked_for_again_is_preferred() {
        let cache = RecordCache::new(1 << 20, Columns::new(0));
        for n in 0..10_000u32 {
            cache.fill(&n.to_be_bytes(), 1, &row(1).0);
        }
        let statistics = cache.statistics();
        assert!(statistics.bytes <= 1 << 20 && statistics.entries > 1_000, "{statistics:?}");
        assert!(statistics.evictions < 100, "{statistics:?}: what is asked for once drives nothing out");
        let late = 9_999u32.to_be_bytes();
        assert!(cache.get(&late, 1, commit_of).is_none());
        cache.fill(&late, 1, &row(1).0);
        assert!(cache.get(&late, 1, commit_of).is_some(), "what is asked for again is kept");
        assert!(cache.statistics().bytes <= 1 << 20);
    }

    #[test]
    fn a_size_of_zero_turns_it_off() {
        let cache = RecordCache::new(0, Columns::new(0));
        cache.fill(b"a", 1, &row(1).0);
        cache.change(b"a", 2, None);
        cache.clear(3);
        assert_eq!(cache.get(b"a", 3, commit_of), None);
        assert_eq!(cache.statistics(), CacheStatistics::default());
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Commits a change of some keys; a key that is `true` is removed.
        Commit(BTreeMap<u8, bool>),
        Clear,
        /// A reader takes a view of the newest commit.
        Begin,
        /// A reader asks for a key, and fills it if it is not there.
        Read(usize, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => prop::collection::btree_map(0..12u8, any::<bool>(), 1..4).prop_map(Step::Commit),
            1 => Just(Step::Clear),
            2 => Just(Step::Begin),
            8 => (any::<prop::sample::Index>(), 0..12u8).prop_map(|(reader, key)| Step::Read(reader.index(64), key)),
        ]
    }

    proptest! {
        #[test]
        fn no_reader_gets_another_state_than_its_own(steps in prop::collection::vec(step(), 1..200)) {
            let cache = RecordCache::new(1 << 20, Columns::new(0));
            // Every state there was: key, and the commit that wrote it.
            let mut states: Vec<BTreeMap<u8, u64>> = vec![BTreeMap::new()];
            let mut readers = vec![0];
            for step in steps {
                let next = states.len() as u64;
                match step {
                    Step::Commit(changes) => {
                        let mut state = states.last().unwrap().clone();
                        for (key, is_removal) in changes {
                            let bytes = (!is_removal).then(|| row(next).1);
                            cache.change(&[key], next, bytes.as_deref());
                            if is_removal { state.remove(&key) } else { state.insert(key, next) };
                        }
                        states.push(state);
                    }
                    Step::Clear => {
                        cache.clear(next);
                        states.push(BTreeMap::new());
                    }
                    Step::Begin => readers.push(next - 1),
                    Step::Read(reader, key) => {
                        let at = readers[reader % readers.len()];
                        let expected = states[usize::try_from(at).unwrap()].get(&key).copied();
                        match cache.get(&[key], at, commit_of) {
                            Some(found) => prop_assert_eq!(Some(found), expected),
                            None => {
                                if let Some(commit) = expected {
                                    cache.fill(&[key], at, &row(commit).0);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
