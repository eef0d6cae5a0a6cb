//! Live objects: values that are in memory only, beside the records that say so.
//!
//! The record lies in the store, with status `Transient` and without payload, so that others know of the asset, and know
//! after a restart that it was lost. The value is here, as long as there is room, and only as long as the record is the
//! one that was written with it: whatever is put over it, deletes or annotates it makes the value unreachable.
//!
//! No lock is held while anything of the application's is called.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use larder_format::{AbsentReason, Key, Status};
use lru::LruCache;
use parking_lot::Mutex;

use crate::edit::{Annotation, Draft, IntoKey};
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::trace;

/// A value of any type.
type Value = Arc<dyn Any + Send + Sync>;
/// What turns a value that has to go into something that can be stored, or gives it up.
type LastCall = Box<dyn FnOnce(&(dyn Any + Send + Sync)) -> Option<Draft> + Send>;
/// What is told of a value before it goes.
type Hook = Arc<dyn Fn(&Key, u64) + Send + Sync>;

/// How many values there may be, and how heavy.
#[derive(Clone)]
pub struct LiveOptions {
    entries_max: usize,
    weight_max: u64,
    before_eviction: Option<Hook>,
}

impl std::fmt::Debug for LiveOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveOptions")
            .field("entries_max", &self.entries_max)
            .field("weight_max", &self.weight_max)
            .finish_non_exhaustive()
    }
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self { entries_max: 10_000, weight_max: 1 << 30, before_eviction: None }
    }
}

impl LiveOptions {
    /// Up to 10 000 values, of a weight of 2^30 together.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many values there may be.
    #[must_use]
    pub fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries.max(1);
        self
    }

    /// Sets how heavy they may be together, in the unit of whoever gives the weights.
    #[must_use]
    pub fn weight_max(mut self, weight: u64) -> Self {
        self.weight_max = weight;
        self
    }

    /// Sets what is called with the key and weight of a value before it goes for want of room.
    #[must_use]
    pub fn before_eviction(mut self, hook: impl Fn(&Key, u64) + Send + Sync + 'static) -> Self {
        self.before_eviction = Some(Arc::new(hook));
        self
    }
}

/// A value on its way in.
#[must_use]
pub struct LiveDraft {
    value: Value,
    weight: u64,
    is_pinned: bool,
    last_call: Option<LastCall>,
    draft: Draft,
}

impl std::fmt::Debug for LiveDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveDraft").field("weight", &self.weight).finish_non_exhaustive()
    }
}

impl LiveDraft {
    /// Makes a draft of a value of a weight.
    pub fn new<T: Any + Send + Sync>(value: Arc<T>, weight: u64) -> Self {
        let draft = Draft::absent(AbsentReason::Transient).status(Status::Transient);
        Self { value, weight, is_pinned: false, last_call: None, draft }
    }

    /// Keeps the value whatever happens, until it is removed.
    pub fn pinned(mut self) -> Self {
        self.is_pinned = true;
        self
    }

    /// Says how to store the value if it has to go; `None` gives it up.
    pub fn stored_by<T: Any + Send + Sync>(
        mut self,
        last_call: impl FnOnce(&T) -> Option<Draft> + Send + 'static,
    ) -> Self {
        self.last_call = Some(Box::new(move |value| value.downcast_ref().and_then(last_call)));
        self
    }

    /// Sets the metadata of the record.
    pub fn with(mut self, annotate: impl FnOnce(Annotation) -> Annotation) -> Self {
        self.draft = self.draft.with(annotate);
        self
    }

    /// Says what the value is, for the record.
    pub fn type_identifier(mut self, name: impl Into<String>) -> Self {
        self.draft = self.draft.type_identifier(name);
        self
    }
}

/// How many values there are, and what became of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LiveStatistics {
    /// How many there are.
    pub entries: u64,
    /// How heavy they are together.
    pub weight: u64,
    /// How many of them are pinned.
    pub pinned_entries: u64,
    /// How heavy these are together.
    pub pinned_weight: u64,
    /// How many had to go and were stored.
    pub stored: u64,
    /// How many had to go and were lost.
    pub lost: u64,
}

struct Object {
    value: Value,
    weight: u64,
    is_pinned: bool,
    last_call: Option<LastCall>,
    /// The commit that its record came with: no other record of the key has that.
    commit: u64,
    session: Session,
}

struct Held {
    objects: LruCache<Key, Object>,
    statistics: LiveStatistics,
}

/// Values that are in memory only. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct LiveObjects {
    held: Arc<Mutex<Held>>,
    options: LiveOptions,
}

impl std::fmt::Debug for LiveObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveObjects").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

impl LiveObjects {
    /// Makes an empty collection.
    #[must_use]
    pub fn new(options: LiveOptions) -> Self {
        let held = Held { objects: LruCache::unbounded(), statistics: LiveStatistics::default() };
        Self { held: Arc::new(Mutex::new(held)), options }
    }

    /// Puts the record of a value into the store, and keeps the value; others go if there is no room, those that were
    /// asked for longest ago first.
    ///
    /// # Errors
    /// As [`Session::put`]; [`WouldLoseData`](ErrorKind::WouldLoseData) if nothing makes or stores the value again, it is
    /// not pinned, and that is not said to be [known](Annotation::loss_is_known);
    /// [`QuotaExceeded`](ErrorKind::QuotaExceeded) if those that are pinned leave no room for it.
    pub fn put(&self, session: &Session, key: impl IntoKey, live: LiveDraft) -> Result<()> {
        let key = key.into_key()?;
        let LiveDraft { value, weight, is_pinned, last_call, draft } = live;
        let metadata = &draft.metadata;
        let is_safe = is_pinned || last_call.is_some() || metadata.has_recipe == Some(true);
        if !is_safe && !metadata.loss_is_known {
            return Err(Error::from(ErrorKind::WouldLoseData).at(&key));
        }
        self.check_room(&key, weight)?;
        // Known from here on: it is pinned, can be stored, is made by something, or its loss was said to be known.
        let draft = draft.with(Annotation::loss_is_known);
        let commit = session.put(&key, draft)?.commit.sequence;
        let session = session.clone();
        let object = Object { value, weight, is_pinned, last_call, commit, session };
        // Whatever goes is dropped after the lock: the application's own code runs there too.
        let (_former, victims) = {
            let mut held = self.held.lock();
            if held.objects.peek(&key).is_some_and(|there| there.commit > commit) {
                // Another was put over it meanwhile.
                return Ok(());
            }
            let former = held.remove(&key);
            held.insert(key, object);
            (former, held.make_room(&self.options))
        };
        self.say_goodbye(victims);
        Ok(())
    }

    /// Gives a value, if it is here, of this type, and what the record says: nothing else was put there since.
    ///
    /// # Errors
    /// As [`Session::record`].
    pub fn get<T: Any + Send + Sync>(&self, session: &Session, key: impl IntoKey) -> Result<Option<Arc<T>>> {
        let key = key.into_key()?;
        loop {
            let commit = session.record(&key)?.commit();
            let mut held = self.held.lock();
            let Some(object) = held.objects.get(&key) else { return Ok(None) };
            match object.commit.cmp(&commit) {
                std::cmp::Ordering::Equal => return Ok(Arc::clone(&object.value).downcast().ok()),
                // It was put after the record was read.
                std::cmp::Ordering::Greater => {}
                std::cmp::Ordering::Less => {
                    // Something else was put there. Nobody can want it any more.
                    let _former = held.remove(&key);
                    drop(held);
                    return Ok(None);
                }
            }
        }
    }

    /// Pins a value, or lets it go when there is no room; tells whether it is here.
    pub fn set_pinned(&self, key: &Key, is_pinned: bool) -> bool {
        let mut held = self.held.lock();
        let Some(mut object) = held.remove(key) else { return false };
        object.is_pinned = is_pinned;
        held.insert(key.clone(), object);
        true
    }

    /// Lets go of a value, which is not stored; tells whether it was here. The record stays, and says that it is gone.
    pub fn remove(&self, key: &Key) -> bool {
        let object = self.held.lock().remove(key);
        object.is_some()
    }

    /// Stores what can be stored, pinned or not, and lets go of everything: to be called before the store is closed.
    pub fn close(&self) {
        let victims = {
            let mut held = self.held.lock();
            let all: Vec<_> = std::iter::from_fn(|| held.objects.pop_lru()).collect();
            for (_, object) in &all {
                held.statistics.add(object, false);
            }
            all
        };
        self.say_goodbye(victims);
    }

    /// Tells how many values there are, and how heavy.
    #[must_use]
    pub fn statistics(&self) -> LiveStatistics {
        self.held.lock().statistics
    }

    fn check_room(&self, key: &Key, weight: u64) -> Result<()> {
        let held = self.held.lock();
        let statistics = held.statistics;
        let own = held.objects.peek(key).filter(|own| own.is_pinned);
        let pinned = statistics.pinned_weight.saturating_sub(own.map_or(0, |own| own.weight));
        let entries = statistics.pinned_entries.saturating_sub(u64::from(own.is_some()));
        let limit = self.options.weight_max;
        if pinned.saturating_add(weight) <= limit && entries < self.options.entries_max as u64 {
            return Ok(());
        }
        let kind =
            ErrorKind::QuotaExceeded { used: statistics.weight, size: weight, limit, protected: pinned };
        Err(Error::from(kind).at(key))
    }

    /// Gives values that have to go their last call, and notes what became of them.
    fn say_goodbye(&self, victims: Vec<(Key, Object)>) {
        for (key, object) in victims {
            let is_stored = catch_unwind(AssertUnwindSafe(|| {
                if let Some(hook) = &self.options.before_eviction {
                    hook(&key, object.weight);
                }
                store(&key, object)
            }));
            let mut held = self.held.lock();
            match is_stored {
                Ok(Ok(true)) => held.statistics.stored += 1,
                Ok(Ok(false)) => held.statistics.lost += 1,
                Ok(Err(error)) => {
                    held.statistics.lost += 1;
                    trace::trouble("a value that had to go could not be stored", Some(&error));
                }
                Err(_) => {
                    held.statistics.lost += 1;
                    trace::trouble("what was to store a value that had to go panicked", None);
                }
            }
        }
    }
}

/// Stores a value that has to go, if it can be, and its record is still the one that was written with it.
fn store(key: &Key, object: Object) -> Result<bool> {
    let draft = object.last_call.and_then(|last_call| last_call(&*object.value));
    let Some(draft) = draft else { return Ok(false) };
    let stored = object.session.write(|txn| match txn.record(key) {
        Ok(record) if record.commit() == object.commit => txn.put(key, draft).map(|_| true),
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound) => Err(error),
        _ => Ok(false),
    })?;
    Ok(stored.value)
}

impl Held {
    fn insert(&mut self, key: Key, object: Object) {
        self.statistics.add(&object, true);
        self.objects.put(key, object);
    }

    fn remove(&mut self, key: &Key) -> Option<Object> {
        let object = self.objects.pop(key)?;
        self.statistics.add(&object, false);
        Some(object)
    }

    /// Takes out what has to go: the pinned stay, and keep their place.
    fn make_room(&mut self, options: &LiveOptions) -> Vec<(Key, Object)> {
        let mut victims = Vec::new();
        while self.statistics.entries > options.entries_max as u64
            || self.statistics.weight > options.weight_max
        {
            let oldest = self.objects.iter().rev().find(|(_, object)| !object.is_pinned);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            victims.extend(self.remove(&key).map(|object| (key, object)));
        }
        victims
    }
}

impl LiveStatistics {
    fn add(&mut self, object: &Object, comes: bool) {
        let change = |number: &mut u64, by: u64| {
            *number = if comes { number.saturating_add(by) } else { number.saturating_sub(by) };
        };
        change(&mut self.entries, 1);
        change(&mut self.weight, object.weight);
        if object.is_pinned {
            change(&mut self.pinned_entries, 1);
            change(&mut self.pinned_weight, object.weight);
        }
    }
}
