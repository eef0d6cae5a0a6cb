//! A cache of computations: what was computed from some named parts is computed once, and then remembered.
//!
//! Under the place of a cache, each namespace has a collection of entries, which say how often a value was used, when, and
//! what it cost, and the values themselves, as assets: so they are streamed, typed, tagged, expire, and depend on other assets
//! as all assets do. A value that is past its time, or was made from what has changed since, is a miss.
//!
//! ```
//! use larder::Options;
//! use larder_layers::remember::{Cache, Outcome, Parts, Remember, RememberError};
//!
//! let larder = Options::new().open_in_memory()?;
//! let ana = larder.session("ana")?;
//! let squares = Cache::at("cache")?.namespace("square")?;
//! let parts = Parts::new().with("of", 12);
//! for expected in [Outcome::Miss, Outcome::Hit] {
//!     let value = squares.get_or_compute(&ana, &parts, &Remember::new(), || {
//!         Ok::<_, RememberError>("144".into()) // takes an hour, the first time
//!     })?;
//!     assert_eq!((value.outcome(), value.bytes()?.as_ref()), (expected, &b"144"[..]));
//! }
//! # Ok::<(), RememberError>(())
//! ```
//!
//! Of those who want the same value at the same time one computes it, under a claim, and the others wait for it. If that one
//! dies, or takes longer than the claim holds, the next takes over; what the first comes with later is not stored. What is
//! [forgotten](Namespace::invalidate) while it is computed may be made from what is not so any more: whoever computes it gets
//! it, and nobody else.
//!
//! Below a namespace lie `values`, `entries`, `computing`, where claims are, and `forgotten`. Whoever uses it reads, writes,
//! deletes and claims below all of it; the first one, or whoever [sets its limits](Namespace::set_limits), may manage it, too.

mod error;
mod forget;
mod limits;
mod parts;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{
    Aggregate, AggregateDefinition, Annotation, Asset, Claim, CollectionDefinition, CollectionMut, Draft,
    Durability, ErrorKind, Figures, IndexDefinition, Key, Larder, Lookup, Micros, NEVER, Part, ReadTxn,
    Record, Row, RowDraft, RowRange, Session, Status, TagPolicy, Tuple, WriteTxn,
};

use larder::format::RecordFlags;
use parking_lot::Mutex;

pub use self::error::RememberError;
use self::limits::Excess;
pub use self::limits::{CacheLimits, Eviction};
pub use self::parts::{Fingerprint, FingerprintFn, Parts};
use self::parts::{Taken, Uses, blake3_fingerprint};
use crate::place::{found, is_set, number, open};

type Result<T> = std::result::Result<T, RememberError>;

/// How many values may have the same fingerprint.
const COLLISIONS_MAX: u32 = 16;
/// How many uses are counted in memory before they are written.
const USES_MAX: usize = 1_024;
/// How many entries are looked at at a time to tell what would be evicted.
const EXPLAINED_AT_ONCE: usize = 256;
/// For how long a claim is made anew, in the transaction that gives it back.
const RETAKEN: Duration = Duration::from_secs(1);
/// The attribute of a value that is the knowledge that there is none.
const NOTHING: &str = "remember.nothing";

/// Where caches lie.
#[derive(Debug, Clone)]
pub struct Cache {
    root: Key,
    fingerprint: FingerprintFn,
}

impl Cache {
    /// Names the place, which need not be there yet.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store) with `InvalidKey`.
    pub fn at(root: &str) -> Result<Self> {
        Ok(Self { root: Key::parse(root).map_err(larder::Error::from)?, fingerprint: blake3_fingerprint })
    }

    /// Lets another function say which number stands for some parts. Parts with the same number are told apart still.
    #[must_use]
    pub fn fingerprint_with(mut self, fingerprint: FingerprintFn) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// Names a namespace. Its clones count uses together; so keep one, and clone it.
    ///
    /// # Errors
    /// [`InvalidName`](RememberError::InvalidName) for what is blank, or not one segment of a key.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let below = |name: &str| Key::parse(name).map_err(larder::Error::from);
        let refused = || RememberError::InvalidName { name: name.chars().take(64).collect() };
        if name.trim().is_empty() || name.contains('/') {
            return Err(refused());
        }
        let root = Key::parse(&format!("{}/{name}", self.root)).map_err(|_| refused())?;
        Ok(Namespace {
            values: below(&format!("{root}/values"))?,
            entries: below(&format!("{root}/entries"))?,
            forgotten: below(&format!("{root}/forgotten"))?,
            computing: below(&format!("{root}/computing"))?,
            fingerprint: self.fingerprint,
            uses: Arc::default(),
        })
    }

    /// Lists the namespaces that are there, and whose entries may be read.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn list(&self, view: &ReadTxn) -> Result<Vec<Namespace>> {
        let mut namespaces = Vec::new();
        for entry in found(view.list(&self.root))?.unwrap_or_default() {
            // What has another name than a namespace can have, or no entries, is none.
            let Ok(namespace) = self.namespace(entry.name()) else { continue };
            let entries = match found(view.record(&namespace.entries)) {
                // Of one that may not be read nobody is kept from seeing the others.
                Err(error) if matches!(error.kind(), ErrorKind::AccessDenied { .. }) => None,
                entries => entries?,
            };
            namespaces.extend(entries.filter(Record::is_collection).map(|_| namespace));
        }
        Ok(namespaces)
    }

    /// Has the health of a store tell of the namespaces that there are, under the name of the cache's place: of each how many
    /// entries it has, and the bytes of their values (`NAME/entries`, `NAME/bytes`).
    pub fn add_health(&self, larder: &Larder) {
        let cache = self.clone();
        larder.add_health(self.root.as_str(), move |view| -> Result<Figures> {
            let mut figures = Figures::new();
            for namespace in cache.list(view)? {
                let total = namespace.total(view)?;
                let entries = i64::try_from(total.count).unwrap_or(i64::MAX);
                let told = [("entries", entries), ("bytes", i64::try_from(total.sum).unwrap_or(i64::MAX))];
                figures.extend(told.map(|(what, figure)| (format!("{}/{what}", namespace.name()), figure)));
            }
            Ok(figures)
        });
    }
}

/// A namespace of a cache, by name. Cheap to clone; holds nothing open.
#[derive(Debug, Clone)]
pub struct Namespace {
    values: Key,
    entries: Key,
    /// What was forgotten, for those who are computing it meanwhile.
    forgotten: Key,
    /// Under it lies what is claimed by those who compute: what becomes of the values does not revoke that.
    computing: Key,
    fingerprint: FingerprintFn,
    /// By parts.
    uses: Arc<Mutex<HashMap<Bytes, Arc<Uses>>>>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The value was there.
    Hit,
    /// It was not there; it was computed, and stored.
    Miss,
    /// It was stored without being asked for first.
    Stored,
    /// Somebody else had stored it meanwhile: that one is given, with the tags and the pin that were asked for.
    AlreadyThere,
    /// It was computed, and while it was, somebody else stored another: that one is given, and this one is dropped.
    RaceLost,
    /// It was computed, and forgotten while it was: it is given, and not kept; whoever asks next computes it anew.
    Forgotten,
}

/// A value of a cache.
#[derive(Debug)]
pub struct Remembered {
    asset: Asset,
    outcome: Outcome,
    tags_ignored: Vec<String>,
}

impl Remembered {
    /// Gives what became of the request.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Tells whether what is remembered is that there is no value.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.asset.record().attribute(NOTHING).is_some()
    }

    /// Gives the value.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store) where it cannot be read.
    pub fn bytes(&self) -> Result<Bytes> {
        Ok(self.asset.bytes()?)
    }

    /// Gives the asset: record and value.
    #[must_use]
    pub fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Gives the tags that were given and ignored, because the entry had some and was to keep them.
    #[must_use]
    pub fn tags_ignored(&self) -> &[String] {
        &self.tags_ignored
    }
}

/// What a computation came to.
#[derive(Debug)]
#[must_use]
pub enum Computed {
    /// A value, with what is to be said of it.
    Value(Box<Draft>),
    /// The knowledge that there is none: remembered as any value is.
    Nothing,
}

impl<D: Into<Draft>> From<D> for Computed {
    fn from(draft: D) -> Self {
        Self::Value(Box::new(draft.into()))
    }
}

/// How a value is remembered.
#[derive(Debug, Clone)]
#[must_use]
pub struct Remember {
    tags: Vec<String>,
    tag_policy: TagPolicy,
    expires_after: Option<Duration>,
    is_pinned: bool,
    lease: Duration,
    wait_max: Duration,
}

impl Default for Remember {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            tag_policy: TagPolicy::Union,
            expires_after: None,
            is_pinned: false,
            lease: Duration::from_secs(60),
            wait_max: Duration::from_secs(60),
        }
    }
}

impl Remember {
    /// Remembers until there is no room; one computes it, for a minute at most, and others wait as long.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag, to the entry that is there too.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Says what becomes of the tags that the entry has.
    pub fn tag_policy(mut self, policy: TagPolicy) -> Self {
        self.tag_policy = policy;
        self
    }

    /// Remembers for a time; one of more than 292 000 years is for ever.
    pub fn expires_after(mut self, time: Duration) -> Self {
        self.expires_after = Some(time);
        self
    }

    /// Never evicts it, also if it is there already.
    pub fn pinned(mut self) -> Self {
        self.is_pinned = true;
        self
    }

    /// Sets for how long one who computes is waited for, before another takes over.
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// Sets how long to wait for one who computes.
    pub fn wait_max(mut self, time: Duration) -> Self {
        self.wait_max = time;
        self
    }

    /// Tells whether a value that is there is tagged and pinned as it is asked for.
    fn is_said_of(&self, record: &Record) -> bool {
        let has_all = self.tags.iter().all(|tag| record.tags().any(|other| other == tag));
        let is_same = match self.tag_policy {
            TagPolicy::Replace => has_all && record.tags().count() == self.tags.len(),
            _ => has_all,
        };
        (self.tags.is_empty() || is_same) && !self.pins(record)
    }

    /// Tells whether a value is to be pinned that is not.
    fn pins(&self, record: &Record) -> bool {
        self.is_pinned && !record.flags().contains(RecordFlags::PINNED)
    }

    /// What is said of a value that is there: it is pinned from now on, or stays as it is.
    fn annotation(&self) -> Annotation {
        let about = if self.is_pinned { Annotation::new().pinned(true) } else { Annotation::new() };
        if self.tags.is_empty() {
            return about;
        }
        self.tags.iter().fold(about.tag_policy(self.tag_policy), |all, tag| all.tag(tag.as_str()))
    }
}

/// What was found of a value, and who is to compute it.
#[derive(Debug)]
pub enum Load {
    /// It is there.
    Hit(Remembered),
    /// It is not there: whoever asked is to compute it.
    Compute(Computation),
    /// Somebody computes it.
    Busy {
        /// Who.
        by: String,
        /// For how long he may, in milliseconds.
        for_ms: u64,
    },
}

/// The right to compute a value, and to store it. Dropping it leaves that to others.
#[derive(Debug)]
#[must_use]
pub struct Computation {
    namespace: Namespace,
    fingerprint: Fingerprint,
    claim: Claim,
    began: Micros,
}

/// An entry, as the cache knows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The parts that it is remembered by.
    pub parts: Tuple,
    /// The key of its value.
    pub key: Key,
    /// How often it was used.
    pub hits: i64,
    /// When it was last used, or stored.
    pub last_used: Micros,
    /// The length of the value in bytes.
    pub bytes: u64,
    /// How long it took to compute, in microseconds.
    pub cost_us: i64,
    /// Whether it is never evicted.
    pub is_pinned: bool,
}

fn definition() -> CollectionDefinition {
    let evictable = |index: IndexDefinition| index.only("k", [false]);
    CollectionDefinition::new()
        .index(evictable(IndexDefinition::new("recent").by("l")))
        .index(evictable(IndexDefinition::new("frequent").by("h").by("l")))
        .index(evictable(IndexDefinition::new("cost").by("v").by("l")))
        .index(evictable(IndexDefinition::new("until").by("t")))
        .index(IndexDefinition::new("tag").by_each("g"))
        .aggregate(AggregateDefinition::new("all").sum("b"))
}

/// Tells whether entries are found by when they expire, and by their tags; those of a namespace that was made before are not,
/// until its limits are set.
fn are_found(definition: &CollectionDefinition) -> bool {
    definition.index_named("until").is_some()
}

/// What stands for a tag in an entry, where there is room for few bytes.
fn digest_of_tag(tag: &str) -> i64 {
    blake3::hash(tag.as_bytes()).as_bytes().first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

/// Says in an entry what its record says: whether it may be evicted, when it expires, its tags.
fn about(entry: RowDraft, record: &Record) -> RowDraft {
    let entry = entry.field("k", record.flags().contains(RecordFlags::PINNED));
    let tags: Vec<Part> = record.tags().map(|tag| digest_of_tag(tag).into()).collect();
    let entry = if tags.is_empty() { entry.without("g") } else { entry.field("g", tags) };
    match record.expires() {
        NEVER => entry.without("t"),
        time => entry.field("t", time),
    }
}

impl Namespace {
    /// Gives the name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.entries.as_str().rsplit('/').nth(1).unwrap_or_default()
    }

    /// Says where the value of some parts lies, if no other has its fingerprint.
    ///
    /// # Errors
    /// [`Parts`](RememberError::Parts) if two have the same name, a name is blank, or they are too long.
    pub fn fingerprint(&self, parts: &Parts) -> Result<Fingerprint> {
        self.fingerprint_of(parts.labelled()?.encoded_bytes(), 0)
    }

    fn fingerprint_of(&self, parts: Bytes, attempt: u32) -> Result<Fingerprint> {
        let number = (self.fingerprint)(&parts);
        Fingerprint::of(&self.values, parts, number, attempt)
    }

    /// Says where to look next, where the value of other parts has the same fingerprint.
    fn behind(&self, at: &Fingerprint) -> Result<Fingerprint> {
        self.fingerprint_of(at.parts.clone(), at.attempt + 1)
    }

    /// Sets how large the namespace may be, and makes room at once. A namespace that was made before entries said when they expire,
    /// and which tags they have, is brought up to date with it.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn set_limits(&self, txn: &mut WriteTxn<'_>, limits: &CacheLimits) -> Result<u64> {
        let (entries, _) = self.open(txn)?;
        if !are_found(entries.definition()) {
            let _ = txn.define_collection(&self.entries, &definition())?;
            self.each_entry(txn, None, |namespace, txn, row| {
                let (record, at) =
                    namespace.place(txn, &namespace.fingerprint_of(row.encoded_bytes(), 0)?)?;
                record.map_or(Ok(()), |record| namespace.mark(txn, &at, &record))
            })?;
        }
        txn.annotate(&self.entries, limits.annotation())?;
        self.evict(txn, None).map(|evicted| evicted.len() as u64)
    }

    fn open<'t, 's>(&self, txn: &'t mut WriteTxn<'s>) -> Result<(CollectionMut<'t, 's>, CacheLimits)> {
        if found(txn.collection(&self.entries))?.is_none() {
            self.open_notes(txn)?;
        }
        let entries = open(txn, &self.entries, definition)?;
        let limits = CacheLimits::of(entries.record());
        Ok((entries, limits))
    }

    // ---- reading

    /// Gives a value if it is there, and counts that it was used.
    ///
    /// # Errors
    /// [`Parts`](RememberError::Parts), [`Store`](RememberError::Store).
    pub fn get(&self, session: &Session, parts: &Parts) -> Result<Option<Remembered>> {
        self.get_at(session, &self.fingerprint(parts)?)
    }

    /// Gives a value if it is there, for one who knows where it lies.
    ///
    /// # Errors
    /// As [`Namespace::get`].
    pub fn get_at(&self, session: &Session, fingerprint: &Fingerprint) -> Result<Option<Remembered>> {
        let Some((asset, _)) = self.look(session, fingerprint)? else { return Ok(None) };
        self.count_use(session, fingerprint)?;
        Ok(Some(Remembered { asset, outcome: Outcome::Hit, tags_ignored: Vec::new() }))
    }

    /// Finds the value of some parts, and where it lies; behind those of others that have the same fingerprint.
    fn look<'f>(
        &self,
        session: &Session,
        fingerprint: &'f Fingerprint,
    ) -> Result<Option<(Asset, Cow<'f, Fingerprint>)>> {
        let mut at = Cow::Borrowed(fingerprint);
        for _ in 0..COLLISIONS_MAX {
            let is_theirs = |extra: Option<&[u8]>| extra == Some(&at.parts[..]);
            match found(session.get_loadable(&at.key))? {
                None => return Ok(None),
                Some(Lookup::Hit(asset)) if is_theirs(asset.record().extra()) => {
                    return Ok(Some((asset, at)));
                }
                // Whose it is decides whether there can be another one behind it.
                Some(Lookup::Miss(_)) => match found(session.record(&at.key))? {
                    Some(record) if !is_theirs(record.extra()) => {}
                    _ => return Ok(None),
                },
                Some(_) => {}
            }
            at = Cow::Owned(self.behind(&at)?);
        }
        Ok(None)
    }

    fn count_use(&self, session: &Session, fingerprint: &Fingerprint) -> Result<()> {
        let mut is_much = false;
        let uses = fingerprint.uses.get_or_init(|| {
            let mut uses = self.uses.lock();
            is_much = uses.len() >= USES_MAX;
            Arc::clone(uses.entry(fingerprint.parts.clone()).or_default())
        });
        uses.add(session.now());
        if is_much {
            // Who may only read is given the value all the same; the uses wait for who may write them.
            let _ = self.write_uses(&session.clone().durability(Durability::Lazy));
        }
        Ok(())
    }

    /// Writes the uses that were counted since the last time: they are exact while the store is open, and as old as the last
    /// time when it is opened again. Storing a value does it too.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn write_uses(&self, session: &Session) -> Result<()> {
        self.counting(|taken| session.try_write(|txn| self.write_uses_in(txn, taken)))?;
        Ok(())
    }

    /// Runs what writes uses; if it fails, they are counted as before.
    fn counting<R>(&self, write: impl FnOnce(&mut Taken) -> Result<R>) -> Result<R> {
        let mut taken = Taken::new();
        write(&mut taken).inspect_err(|_| {
            let mut uses = self.uses.lock();
            for (parts, (hits, last)) in taken {
                uses.entry(parts).or_default().give_back(hits, last);
            }
        })
    }

    fn write_uses_in(&self, txn: &mut WriteTxn<'_>, taken: &mut Taken) -> Result<()> {
        {
            let mut uses = self.uses.lock();
            let counted = uses.iter().map(|(parts, uses)| (parts.clone(), uses.take()));
            taken.extend(counted.filter(|(_, (hits, _))| *hits > 0));
            // Those that nobody keeps are made again when they are used again.
            uses.retain(|_, uses| {
                let is_kept = Arc::strong_count(uses) > 1;
                // Whoever let go of it just now has counted before.
                std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
                is_kept || uses.read().0 > 0
            });
        }
        self.write_taken(txn, taken)
    }

    fn write_taken(&self, txn: &mut WriteTxn<'_>, taken: &[(Bytes, (i64, Micros))]) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let (mut entries, _) = self.open(txn)?;
        for (parts, (hits, last)) in taken {
            let key = Tuple::decode(parts).map_err(RememberError::parts)?;
            if let Some(row) = entries.get(&key)? {
                let hits = row.integer("h").unwrap_or(0).saturating_add(*hits);
                let last = row.integer("l").unwrap_or(0).max(*last);
                entries.put(&key, row.to_draft().field("h", hits).field("l", last))?;
            }
        }
        Ok(())
    }

    /// Gives an entry, uses that were not written yet among its own.
    ///
    /// # Errors
    /// As [`Namespace::get`].
    pub fn entry(&self, session: &Session, parts: &Parts) -> Result<Option<Entry>> {
        let fingerprint = self.fingerprint(parts)?;
        let Some((_, fingerprint)) = self.look(session, &fingerprint)? else { return Ok(None) };
        let view = session.snapshot()?;
        let Some(row) = view.collection(&self.entries)?.get(fingerprint.row()?)? else { return Ok(None) };
        let mut entry = self.entry_of(&row, &view)?;
        let uses = self.uses.lock();
        if let Some((hits, last)) = uses.get(&fingerprint.parts).map(|uses| uses.read()) {
            entry.hits += hits;
            entry.last_used = entry.last_used.max(last);
        }
        Ok(Some(entry))
    }

    fn entry_of(&self, row: &Row, view: &ReadTxn) -> Result<Entry> {
        let parts = row.key().encoded_bytes();
        let mut at = self.fingerprint_of(parts, 0)?;
        for _ in 0..COLLISIONS_MAX {
            match view.record(&at.key) {
                Ok(record) if record.extra() != Some(&at.parts[..]) => {
                    at = self.behind(&at)?;
                }
                _ => break,
            }
        }
        Ok(Entry {
            parts: row.key().clone(),
            key: at.key,
            hits: row.integer("h").unwrap_or(0),
            last_used: row.integer("l").unwrap_or(0),
            bytes: number(row, "b"),
            cost_us: row.integer("c").unwrap_or(0),
            is_pinned: is_set(row, "k"),
        })
    }

    /// Gives the entries in the order in which they would be evicted, at most so many: what goes first comes first. Changes
    /// nothing. Pinned ones are not among them.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn explain(&self, view: &ReadTxn, eviction: Eviction, limit: usize) -> Result<Vec<Entry>> {
        let Some(entries) = found(view.collection(&self.entries))? else { return Ok(Vec::new()) };
        let page = entries.find(eviction.index(), &RowRange::all().limit(limit))?;
        page.rows.iter().map(|row| self.entry_of(row, view)).collect()
    }

    /// Tells what would be evicted by some limits, if a value of so many bytes were stored (0 for none): in this order. Changes
    /// nothing, and stores nothing. It goes by the uses that were [written](Self::write_uses).
    ///
    /// # Errors
    /// [`Store`](RememberError::Store); [`TooLarge`](RememberError::TooLarge) if there would be no room all the same.
    pub fn would_evict(&self, view: &ReadTxn, limits: &CacheLimits, incoming: u64) -> Result<Vec<Entry>> {
        let Some(entries) = found(view.collection(&self.entries))? else { return Ok(Vec::new()) };
        let total = entries.aggregate("all", &[])?;
        let bytes = u64::try_from(total.sum).unwrap_or(u64::MAX).saturating_add(incoming);
        let mut left = Excess::of(limits, total.count + u64::from(incoming > 0), bytes);
        let mut evicted: Vec<Entry> = Vec::new();
        // What is past its time goes first, and is not named twice.
        let now = view.now();
        let due = are_found(entries.definition()).then(|| ("until", RowRange::all().at_most(now)));
        for (index, range) in due.into_iter().chain([(limits.eviction.index(), RowRange::all())]) {
            let mut after = None;
            while left.is_any() {
                let range = after.take().map_or_else(|| range.clone(), |cursor| range.clone().after(cursor));
                let page = entries.find(index, &range.limit(EXPLAINED_AT_ONCE))?;
                for row in &page.rows {
                    let is_named = index != "until" && row.integer("t").is_some_and(|time| time <= now);
                    if left.is_any() && !is_named {
                        left.take(number(row, "b"));
                        evicted.push(self.entry_of(row, view)?);
                    }
                }
                let Some(next) = page.next else { break };
                after = Some(next);
            }
        }
        match left.unit() {
            Some((unit, limit)) if incoming > 0 => {
                Err(RememberError::TooLarge { size: incoming, unit, limit })
            }
            _ => Ok(evicted),
        }
    }

    /// Gives the limits of the namespace; none, if it is not there.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn limits(&self, view: &ReadTxn) -> Result<CacheLimits> {
        let entries = found(view.collection(&self.entries))?;
        Ok(entries.map_or_else(CacheLimits::new, |entries| CacheLimits::of(entries.record())))
    }

    /// Tells how many entries there are, and how many bytes their values have: without counting.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn total(&self, view: &ReadTxn) -> Result<Aggregate> {
        let entries = found(view.collection(&self.entries))?;
        Ok(entries.map_or(Ok(Aggregate::default()), |entries| entries.aggregate("all", &[]))?)
    }

    // ---- computing

    /// Gives the value of some parts, computing it if it is not there. The closure runs outside of every transaction; of
    /// several who ask at the same time, one computes, and the others get what it stored.
    ///
    /// # Errors
    /// What the closure returns, and then nothing is stored; [`Parts`](RememberError::Parts);
    /// [`TooLarge`](RememberError::TooLarge); [`Store`](RememberError::Store), with `Claimed` if the wait is over.
    pub fn get_or_compute<E: From<RememberError>>(
        &self,
        session: &Session,
        parts: &Parts,
        how: &Remember,
        compute: impl FnOnce() -> std::result::Result<Computed, E>,
    ) -> std::result::Result<Remembered, E> {
        self.get_or_compute_with(session, parts, how, |_| compute())
    }

    /// The same for a closure that says now and then that it is [still at work](Computation::heartbeat): what takes longer than
    /// [its lease](Remember::lease) runs once, too.
    ///
    /// # Errors
    /// As [`Namespace::get_or_compute`].
    pub fn get_or_compute_with<E: From<RememberError>>(
        &self,
        session: &Session,
        parts: &Parts,
        how: &Remember,
        compute: impl FnOnce(&Computation) -> std::result::Result<Computed, E>,
    ) -> std::result::Result<Remembered, E> {
        let fingerprint = self.fingerprint(parts)?;
        match self.load(session, fingerprint, how, how.wait_max)? {
            Load::Hit(found) => Ok(found),
            Load::Compute(computation) => {
                let computed = compute(&computation)?;
                Ok(computation.store(session, computed, how)?)
            }
            Load::Busy { by, for_ms } => {
                let claimed = ErrorKind::Claimed { by, for_ms };
                Err(RememberError::Store(claimed.into()).into())
            }
        }
    }

    /// Gives a value if it is there, or the right to compute it, or says who does; waits for nobody.
    ///
    /// # Errors
    /// As [`Namespace::get_or_compute`].
    pub fn try_load(&self, session: &Session, parts: &Parts, how: &Remember) -> Result<Load> {
        self.load(session, self.fingerprint(parts)?, how, Duration::ZERO)
    }

    fn load(
        &self,
        session: &Session,
        fingerprint: Fingerprint,
        how: &Remember,
        wait: Duration,
    ) -> Result<Load> {
        if let Some((asset, at)) = self.look(session, &fingerprint)? {
            return self.hit(session, asset, &at, how, Outcome::Hit).map(Load::Hit);
        }
        // One claim for all parts with the same fingerprint. It need not outlive a crash.
        let lazy = session.clone().durability(Durability::Lazy);
        let claim = match lazy
            .claim(self.computing.join(fingerprint.key.name()).map_err(larder::Error::from)?)
            .wait_max(wait)
            .for_at_most(how.lease)
        {
            Ok(claim) => claim,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::Claimed { by, for_ms } => Ok(Load::Busy { by: by.clone(), for_ms: *for_ms }),
                    _ => Err(error.into()),
                };
            }
        };
        // Stored by the one who had the claim before.
        if let Some((asset, at)) = self.look(session, &fingerprint)? {
            return self.hit(session, asset, &at, how, Outcome::AlreadyThere).map(Load::Hit);
        }
        let began = session.now();
        Ok(Load::Compute(Computation { namespace: self.clone(), fingerprint, claim, began }))
    }

    /// Counts a use, and sees to the tags, and to whether it is pinned.
    fn hit(
        &self,
        session: &Session,
        asset: Asset,
        at: &Fingerprint,
        how: &Remember,
        outcome: Outcome,
    ) -> Result<Remembered> {
        self.count_use(session, at)?;
        if how.is_said_of(asset.record()) {
            return Ok(Remembered { asset, outcome, tags_ignored: Vec::new() });
        }
        let said = session.try_write(|txn| self.say(txn, at, how))?.value;
        let (asset, tags_ignored) = said.unwrap_or((asset, Vec::new()));
        Ok(Remembered { asset, outcome, tags_ignored })
    }

    /// Sees to the tags of a value that is there, and to whether it is pinned; gives it as it is then, and the tags that were
    /// ignored. Whoever removed it meanwhile leaves nothing to be said of it.
    fn say(
        &self,
        txn: &mut WriteTxn<'_>,
        at: &Fingerprint,
        how: &Remember,
    ) -> Result<Option<(Asset, Vec<String>)>> {
        let Some(annotated) = found(txn.annotate(&at.key, how.annotation()))? else { return Ok(None) };
        let asset = txn.get(&at.key)?;
        self.mark(txn, at, asset.record())?;
        Ok(Some((asset, annotated.tags_ignored)))
    }

    /// Stores a value that was computed elsewhere, unless one is there.
    ///
    /// # Errors
    /// As [`Namespace::get_or_compute`].
    pub fn store(
        &self,
        session: &Session,
        parts: &Parts,
        value: impl Into<Computed>,
        how: &Remember,
    ) -> Result<Remembered> {
        let fingerprint = self.fingerprint(parts)?;
        self.store_at(session, &fingerprint, value.into(), how, None, Outcome::Stored)
    }

    /// Stores a value that was computed elsewhere in a transaction of the caller's, unless one is there: what it is the outcome of is
    /// done in the same commit, or neither is; what is there is used in that commit, too. Room is made by the uses that were
    /// [written](Self::write_uses): those that are only counted yet belong to no transaction.
    ///
    /// # Errors
    /// [`Parts`](RememberError::Parts), [`TooLarge`](RememberError::TooLarge), [`Store`](RememberError::Store). After an error the
    /// caller should give the transaction up.
    pub fn store_in(
        &self,
        txn: &mut WriteTxn<'_>,
        parts: &Parts,
        value: impl Into<Computed>,
        how: &Remember,
    ) -> Result<Remembered> {
        let (there, at) = self.there(txn, &self.fingerprint(parts)?)?;
        if let Some(asset) = there {
            let asset = asset?;
            let used = (at.parts.clone(), (1, txn.info().time));
            self.write_taken(txn, &[used])?;
            let said = if how.is_said_of(asset.record()) { None } else { self.say(txn, &at, how)? };
            let (asset, tags_ignored) = said.unwrap_or((asset, Vec::new()));
            return Ok(Remembered { asset, outcome: Outcome::AlreadyThere, tags_ignored });
        }
        let tags_ignored = self.put(txn, &at, value.into(), how)?;
        let asset = txn.get(&at.key)?;
        self.enter(txn, &at, asset.record(), 0)?;
        Ok(Remembered { asset, outcome: Outcome::Stored, tags_ignored })
    }

    /// Pins a value, or lets it be evicted again; tells whether it is there.
    ///
    /// # Errors
    /// [`Parts`](RememberError::Parts), [`Store`](RememberError::Store).
    pub fn set_pinned(&self, txn: &mut WriteTxn<'_>, parts: &Parts, is_pinned: bool) -> Result<bool> {
        let (there, at) = self.there(txn, &self.fingerprint(parts)?)?;
        if there.is_none() {
            return Ok(false);
        }
        txn.annotate(&at.key, Annotation::new().pinned(is_pinned))?;
        let record = txn.record(&at.key)?;
        self.mark(txn, &at, &record)?;
        Ok(true)
    }

    /// Says in the entry of a value what its record says.
    pub(super) fn mark(&self, txn: &mut WriteTxn<'_>, at: &Fingerprint, record: &Record) -> Result<()> {
        let row = at.row()?;
        let (mut entries, _) = self.open(txn)?;
        if let Some(entry) = entries.get(&row)? {
            entries.put(&row, about(entry.to_draft(), record))?;
        }
        Ok(())
    }

    /// Reads the value that may be given, if there is one, and tells where it lies, or will.
    fn there(
        &self,
        txn: &mut WriteTxn<'_>,
        fingerprint: &Fingerprint,
    ) -> Result<(Option<larder::Result<Asset>>, Fingerprint)> {
        let (there, at) = self.place(txn, fingerprint)?;
        let is_there = there.is_some_and(|record| is_loadable(&record, txn.info().time));
        let read = is_there.then(|| txn.get(&at.key)).filter(|read| !is_damaged(read));
        Ok((read, at))
    }

    fn store_at(
        &self,
        session: &Session,
        fingerprint: &Fingerprint,
        computed: Computed,
        how: &Remember,
        claim: Option<(&Claim, Micros)>,
        outcome: Outcome,
    ) -> Result<Remembered> {
        let receipt = self.counting(|taken| {
            session.try_write(|txn| -> Result<_> {
                let fence = match claim {
                    None => None,
                    Some((claim, _)) => held(txn, claim)?,
                };
                let (there, at) = self.there(txn, fingerprint)?;
                let stored = if there.is_some() || (claim.is_some() && fence.is_none()) {
                    None
                } else {
                    let tags_ignored = self.put(txn, &at, computed, how)?;
                    let asset = txn.get(&at.key)?;
                    let is_forgotten = match claim {
                        Some((claim, _)) => self.was_forgotten_since(txn, claim.fence(), asset.record())?,
                        None => false,
                    };
                    if is_forgotten {
                        self.forget(txn, &at.row()?)?;
                        Some(Remembered { asset, outcome: Outcome::Forgotten, tags_ignored: Vec::new() })
                    } else {
                        let cost = claim.map_or(0, |(_, began)| session.now() - began);
                        self.write_uses_in(txn, taken)?;
                        self.enter(txn, &at, asset.record(), cost)?;
                        Some(Remembered { asset, outcome, tags_ignored })
                    }
                };
                if let Some((claim, _)) = claim {
                    txn.release_claim(claim.key(), claim.fence())?;
                    if let Some(anew) = fence.filter(|fence| *fence != claim.fence()) {
                        txn.release_claim(claim.key(), anew)?;
                    }
                }
                Ok(stored)
            })
        })?;
        let lost = if claim.is_some() { Outcome::RaceLost } else { Outcome::AlreadyThere };
        match receipt.value {
            Some(stored) => Ok(stored),
            None => match self.look(session, fingerprint)? {
                Some((asset, at)) => self.hit(session, asset, &at, how, lost),
                // The right was lost, and nobody has stored anything; or what was there is gone again.
                None => {
                    let by = "somebody who took over".to_owned();
                    Err(larder::Error::from(ErrorKind::Claimed { by, for_ms: 0 }).into())
                }
            },
        }
    }

    /// Finds where the value of some parts lies, or will.
    fn place(
        &self,
        txn: &mut WriteTxn<'_>,
        fingerprint: &Fingerprint,
    ) -> Result<(Option<Record>, Fingerprint)> {
        let mut at = fingerprint.clone();
        for _ in 0..COLLISIONS_MAX {
            let Some(record) = found(txn.record(&at.key))? else { return Ok((None, at)) };
            if record.extra() == Some(&at.parts[..]) {
                return Ok((Some(record), at));
            }
            at = self.behind(&at)?;
        }
        Err(RememberError::Collisions(COLLISIONS_MAX))
    }

    /// Stores a value; gives the tags that were ignored.
    fn put(
        &self,
        txn: &mut WriteTxn<'_>,
        at: &Fingerprint,
        computed: Computed,
        how: &Remember,
    ) -> Result<Vec<String>> {
        let now = txn.info().time;
        let draft = match computed {
            Computed::Value(draft) => *draft,
            Computed::Nothing => Draft::bytes(Bytes::new()).attribute(NOTHING, true),
        };
        let draft = draft.status(Status::Ready).with(|about| {
            let about =
                how.tags.iter().fold(about.extra(at.parts.clone()).pinned(how.is_pinned), |about, tag| {
                    about.tag(tag.as_str())
                });
            let about = about.tag_policy(how.tag_policy);
            match how.expires_after.and_then(|time| i64::try_from(time.as_micros()).ok()) {
                Some(time) => about.expires(now.saturating_add(time)),
                None => about,
            }
        });
        Ok(txn.put(&at.key, draft)?.tags_ignored)
    }

    /// Makes the entry of a value that was stored, and room for it.
    fn enter(&self, txn: &mut WriteTxn<'_>, at: &Fingerprint, record: &Record, cost: Micros) -> Result<()> {
        let (now, bytes) = (txn.info().time, record.payload().length());
        let row = at.row()?;
        let (mut entries, _) = self.open(txn)?;
        let hits = entries.get(&row)?.and_then(|row| row.integer("h")).unwrap_or(0);
        let density = cost.max(0).saturating_mul(1_000) / i64::try_from(bytes.max(1)).unwrap_or(i64::MAX);
        let entry = RowDraft::default()
            .field("b", bytes)
            .field("c", cost.max(0))
            .field("h", hits)
            .field("l", now)
            .field("v", density);
        entries.put(&row, about(entry, record))?;
        self.evict(txn, Some((&row, bytes)))?;
        Ok(())
    }
}

/// Gives the fence to act with. A claim that was revoked because its time was over, and that nobody has taken over, is made
/// anew: what was computed is as good as it was.
fn held(txn: &mut WriteTxn<'_>, claim: &Claim) -> Result<Option<u64>> {
    if txn.act_for_claim(claim.key(), claim.fence())? {
        return Ok(Some(claim.fence()));
    }
    if !txn.has_claim_lapsed(claim.key(), claim.fence())? {
        return Ok(None);
    }
    match txn.claim(claim.key(), RETAKEN, None) {
        Ok(fence) => Ok(txn.act_for_claim(claim.key(), fence)?.then_some(fence)),
        Err(error) if matches!(error.kind(), ErrorKind::Claimed { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether a value may be given to those who ask: as the store's own lookup does, but for what it was made from.
fn is_loadable(record: &Record, now: Micros) -> bool {
    record.has_payload() && record.status_properties().is_loadable && record.expires() > now
}

/// Tells whether a value is not what was put: it is computed anew, as if it were not there.
fn is_damaged(read: &larder::Result<Asset>) -> bool {
    read.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Corrupt { .. }))
}

impl Computation {
    /// Gives the key that is claimed meanwhile. Whoever [cancels](Session::cancel) it lets others compute, and what this one
    /// comes with is not stored.
    #[must_use]
    pub fn claimed(&self) -> &Key {
        self.claim.key()
    }

    /// Gives the fingerprint of what is to be computed.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Says that the computation is still at work: nobody takes over for this time from now on. Tells whether nobody has.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn heartbeat(&self, lease: Duration) -> Result<bool> {
        Ok(self.claim.renew(lease)?)
    }

    /// Stores what was computed; if somebody took over and was faster, gives what he stored.
    ///
    /// # Errors
    /// [`TooLarge`](RememberError::TooLarge), [`Store`](RememberError::Store), with `Claimed` if somebody took over and is
    /// not done.
    pub fn store(
        self,
        session: &Session,
        computed: impl Into<Computed>,
        how: &Remember,
    ) -> Result<Remembered> {
        let Self { namespace, fingerprint, claim, began } = self;
        let claimed = Some((&claim, began));
        let stored = namespace.store_at(session, &fingerprint, computed.into(), how, claimed, Outcome::Miss);
        if stored.is_ok() {
            // It was given back with the value.
            let _ = claim.detach();
        }
        stored
    }
}
