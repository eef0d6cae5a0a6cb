//! The session: a handle bound to who asks. The only way in.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_format::{ContentHash, Explanation, Key, LogKind, Micros, Prefix, Record, Right};

use crate::authorizer::Caller;
use crate::bulk::Bulk;
use crate::claim::{CancelOutcome, Claim, ClaimRequest};
use crate::combiner::Combiner;
use crate::commit::{CommitInfo, CommitTicket, Durability, Slot};
use crate::documents::{Document, DocumentKind};
use crate::edit::{
    Annotation, BatchMode, Change, Condition, Draft, DraftPayload, Edit, IntoKey, IntoPlace, Outcome, Stored,
    TagPolicy,
};
use crate::errand::{Errand, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Event, Feed, Subscription};
use crate::guard::{By, Guard, Judgement, Row, check_size};
use crate::larder::Shared;
use crate::loadable::{self, Lookup};
use crate::payload::{Loadable, PayloadReader, Prepared, Storable, TypedValue};
use crate::primitives::{AuditEntry, CommitOutcome, OnceRow};
use crate::store::Table;
use crate::trace;
use crate::txn::{
    Asset, Entry, Page, PageRequest, ReadTxn, Ready, WriteTxn, prepare, prepare_reader, refused, stored,
};
use crate::upkeep::Upkeep;
use crate::why::Why;

/// What a commit gives back: the value of the closure, and what the commit is called.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt<R> {
    /// What the closure returned.
    pub value: R,
    /// The commit; of a transaction that changed nothing, the newest one that it saw.
    pub commit: CommitInfo,
}

/// A handle bound to a principal. Cheap to clone; every operation goes through one.
///
/// A write returns when it is as durable as [`Session::durability`] says, on disk by default.
#[derive(Clone)]
pub struct Session {
    // Goes first, while there is still a store to write to; as long as one is left, what is due is seen to.
    _upkeep: Arc<Upkeep>,
    shared: Arc<Shared>,
    caller: Caller,
    durability: Durability,
    wait_max: Duration,
    /// What its changes are called by those who watch.
    name: Option<&'static str>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("principal", &self.caller.name()).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(shared: &Arc<Shared>, upkeep: &Arc<Upkeep>, caller: Caller) -> Self {
        Self {
            _upkeep: Arc::clone(upkeep),
            shared: Arc::clone(shared),
            caller,
            durability: shared.settings.durability,
            wait_max: shared.settings.wait_max,
            name: None,
        }
    }

    /// Gives the name of the principal.
    #[must_use]
    pub fn principal(&self) -> &str {
        self.caller.name()
    }

    /// Gives the session of the same principal in these groups.
    ///
    /// # Errors
    /// [`InvalidName`](ErrorKind::InvalidName) if one is not the name of a group.
    pub fn in_groups<'g>(mut self, groups: impl IntoIterator<Item = &'g str>) -> Result<Self> {
        self.caller = self.caller.in_groups(groups)?;
        Ok(self)
    }

    /// Gives the session with another durability of its commits.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Gives the session with another limit to how long it waits for its turn.
    #[must_use]
    pub fn wait_max(mut self, wait: Duration) -> Self {
        self.wait_max = wait;
        self
    }

    /// Gives the session with another name for what it changes: in spans, in reports of what was slow, and in the latencies of
    /// [`Larder::health`](crate::Larder::health). Without one it is `write`, or `submit`.
    ///
    /// ```
    /// # fn main() -> larder::Result<()> {
    /// # let larder = larder::Options::new().open_in_memory()?;
    /// let orders = larder.session("ana")?.named("take an order");
    /// orders.write(|txn| txn.put("orders/1", "leek soup"))?;
    /// assert_eq!(larder.health().operations["take an order"].count, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn named(mut self, operation: &'static str) -> Self {
        self.name = Some(operation);
        self
    }

    /// Gives the time by the clock of the store.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.shared.clock.now()
    }

    // ---- transactions

    /// Runs a write transaction and waits until it is as durable as the session asks for.
    ///
    /// The closure runs on this thread, one at a time with all other writers: while it blocks, they wait. If it
    /// returns an error, or panics, nothing is changed.
    ///
    /// # Errors
    /// What the closure returns; [`Busy`](ErrorKind::Busy) if its turn did not come in time;
    /// [`Nested`](ErrorKind::Nested) inside another write transaction of the same thread;
    /// [`TransactionTooLarge`](ErrorKind::TransactionTooLarge); [`StoreFull`](ErrorKind::StoreFull) if there is no room for what
    /// grows; [`ReadOnly`](ErrorKind::ReadOnly), [`Closed`](ErrorKind::Closed); [`Poisoned`](ErrorKind::Poisoned) after a failure
    /// that only opening the store again helps; [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if it failed when the
    /// transaction may have been on its way to the disk: look whether it is there, or use [`Session::write_once`].
    pub fn write<R>(&self, closure: impl FnOnce(&mut WriteTxn<'_>) -> Result<R>) -> Result<Receipt<R>> {
        self.try_write(closure)
    }

    /// Runs a write transaction whose closure has errors of its own type.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn try_write<R, E: From<Error>>(
        &self,
        closure: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E>,
    ) -> Result<Receipt<R>, E> {
        self.changing("write", "", || self.write_now("", closure))
    }

    pub(crate) fn write_now<R, E: From<Error>>(
        &self,
        idempotency_key: &str,
        closure: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E>,
    ) -> Result<Receipt<R>, E> {
        let (value, commit, slot) = self.sequence(idempotency_key, closure)?;
        self.wait(slot)?;
        Ok(Receipt { value, commit })
    }

    /// Gives for how long it waits for its turn.
    pub(crate) fn patience(&self) -> Duration {
        self.wait_max
    }

    /// Says that its turn did not come in time.
    pub(crate) fn busy(&self) -> Error {
        self.shared.commit.sequencer().busy(self.shared.clock.now(), self.wait_max).into()
    }

    /// Gives what makes write transactions of many threads one.
    #[must_use]
    pub fn combiner(&self) -> Combiner {
        Combiner::new(self.clone())
    }

    /// Runs a write transaction at most once under an idempotency key: if it was committed before, its receipt
    /// comes back without a value, and the closure does not run.
    ///
    /// # Errors
    /// As [`Session::write`]; [`InvalidName`](ErrorKind::InvalidName) if the key is empty or too long.
    pub fn write_once<R>(
        &self,
        idempotency_key: &str,
        closure: impl FnOnce(&mut WriteTxn<'_>) -> Result<R>,
    ) -> Result<Receipt<Option<R>>> {
        OnceRow::key(self.caller.name(), idempotency_key)?;
        let mut earlier = None;
        self.changing("write", "", || {
            let Receipt { value, commit } = self.write_now(idempotency_key, |txn| {
                earlier = txn.earlier(idempotency_key)?;
                if earlier.is_some() { Ok(None) } else { closure(txn).map(Some) }
            })?;
            if earlier.is_some() && self.durability == Durability::Synced {
                // Whoever committed it may have asked for less.
                self.shared.commit.flush()?;
            }
            Ok(Receipt { value, commit: earlier.unwrap_or(commit) })
        })
    }

    /// Runs a write transaction and does not wait for the disk: the ticket does, if somebody wants it to.
    ///
    /// # Errors
    /// As [`Session::write`], but for those that the disk causes, which the ticket has.
    pub fn submit<R>(
        &self,
        closure: impl FnOnce(&mut WriteTxn<'_>) -> Result<R>,
    ) -> Result<(R, CommitTicket)> {
        let (value, commit, slot) = self.changing("submit", "", || self.sequence::<R, Error>("", closure))?;
        let path = Arc::clone(&self.shared.commit);
        let ticket = match slot {
            Some(slot) => CommitTicket::new(slot, path, commit),
            None => CommitTicket::done(path, commit),
        };
        self.shared.wake();
        Ok((value, ticket))
    }

    /// Tells what became of a commit that was made under an idempotency key.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Corrupt`](ErrorKind::Corrupt).
    pub fn outcome_of(&self, idempotency_key: &str) -> Result<CommitOutcome> {
        let key = OnceRow::key(self.caller.name(), idempotency_key)?;
        let view = self.shared.commit.committed_view()?;
        match view.get(None, Table::Once, &key)? {
            Some(row) => Ok(CommitOutcome::Committed(OnceRow::decode(&row)?)),
            None => Ok(CommitOutcome::Unknown { kept_since: self.shared.idempotency_kept_since(&view)? }),
        }
    }

    /// Begins a read transaction: one consistent view for as long as it is held.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    pub fn snapshot(&self) -> Result<ReadTxn> {
        ReadTxn::begin(&self.shared, &self.caller)
    }

    /// Reads from one consistent view.
    ///
    /// # Errors
    /// What the closure returns; [`Closed`](ErrorKind::Closed).
    pub fn read<R>(&self, closure: impl FnOnce(&ReadTxn) -> Result<R>) -> Result<R> {
        closure(&self.snapshot()?)
    }

    pub(crate) fn sequence<R, E: From<Error>>(
        &self,
        idempotency_key: &str,
        closure: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, E>,
    ) -> Result<(R, CommitInfo, Option<Arc<Slot>>), E> {
        let shared = &self.shared;
        shared.commit.check_writable()?;
        shared.commit.wait_for_room()?;
        let now = shared.clock.now();
        let held = shared.commit.sequencer().enter(self.caller.name(), now, self.wait_max)?;
        // Again, now that nobody can close or fail in between.
        shared.commit.check_writable()?;
        let mut txn = WriteTxn::begin(shared, &self.caller, held)?;
        let value = closure(&mut txn)?;
        let (commit, slot) = txn.finish(self.durability, idempotency_key, &Arc::default())?;
        Ok((value, commit, slot))
    }

    pub(crate) fn wait(&self, slot: Option<Arc<Slot>>) -> Result<()> {
        match slot {
            Some(slot) => self.shared.commit.drive(&slot).map(drop),
            None => Ok(()),
        }
    }

    // ---- single changes

    /// Stores a draft under a key, in place of what is there.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), [`BinaryTooLarge`](ErrorKind::BinaryTooLarge), and every other
    /// refusal of the guard; then nothing is changed.
    pub fn put(&self, key: impl IntoKey, draft: impl Into<Draft>) -> Result<Receipt<Stored>> {
        self.stored(Edit::put(key, draft))
    }

    /// Stores the content of a file, however large: it is streamed in, and holds up nobody.
    ///
    /// # Errors
    /// As [`Session::put`], and [`Source`](ErrorKind::Source) if the file cannot be read to its end.
    pub fn put_file(&self, key: impl IntoKey, path: impl Into<PathBuf>) -> Result<Receipt<Stored>> {
        self.put(key, Draft::file(path))
    }

    /// Stores what a reader gives, however much: it is streamed in, and holds up nobody. The payload of `draft` is
    /// not looked at, its metadata are stored.
    ///
    /// # Errors
    /// As [`Session::put_file`].
    pub fn put_reader(
        &self,
        key: impl IntoKey,
        reader: &mut dyn Read,
        draft: impl Into<Draft>,
    ) -> Result<Receipt<Stored>> {
        let key = key.into_key()?;
        let mut draft = draft.into();
        let place = key.clone();
        let receipt = self.changing("write", place.as_str(), || {
            draft.payload = DraftPayload::Prepared(self.prepare_now(&key, reader, &draft)?);
            self.carry_out(Change::Put { key, draft }, Vec::new())
        })?;
        receipt_of(receipt, Some(&place))
    }

    /// Reads a payload, hashes it and stages it, ahead of the transaction that will put it under this key with
    /// [`Draft::prepared`].
    ///
    /// # Errors
    /// As [`Session::put_file`].
    pub fn prepare(&self, key: &Key, reader: &mut dyn Read, draft: &Draft) -> Result<Prepared> {
        self.shared.observed("prepare", key.as_str(), || self.prepare_now(key, reader, draft))
    }

    fn prepare_now(&self, key: &Key, reader: &mut dyn Read, draft: &Draft) -> Result<Prepared> {
        self.shared.commit.check_writable()?;
        let documents = self.shared.commit.documents();
        let allowed = self.with_guard(|guard| guard.access(Right::WRITE, key));
        self.audited(allowed.map_err(|error| error.at(key)))?;
        prepare_reader(&self.shared, &documents, key, draft, reader, None).map_err(|error| error.at(key))
    }

    /// Stores a value in its archived form, to be read in place.
    ///
    /// # Errors
    /// As [`Session::put`], and [`Serialization`](ErrorKind::Serialization).
    pub fn put_typed<T: Storable>(&self, key: impl IntoKey, value: &T) -> Result<Receipt<Stored>> {
        self.put(key, Draft::typed(value))
    }

    /// Changes the metadata of an asset; its payload stays.
    ///
    /// # Errors
    /// As [`Session::put`], and [`NotFound`](ErrorKind::NotFound) if nothing is there.
    pub fn annotate(&self, key: impl IntoKey, annotation: Annotation) -> Result<Receipt<Stored>> {
        self.stored(Edit::annotate(key, annotation))
    }

    /// Adds tags to an asset, or replaces them, as the policy says.
    ///
    /// # Errors
    /// As [`Session::annotate`]; [`TooManyTags`](ErrorKind::TooManyTags), [`InvalidTag`](ErrorKind::InvalidTag).
    pub fn tag<'t>(
        &self,
        key: impl IntoKey,
        tags: impl IntoIterator<Item = &'t str>,
        policy: TagPolicy,
    ) -> Result<Receipt<Stored>> {
        self.stored(Edit::tag(key, tags, policy))
    }

    /// Removes an asset; tells whether it was there.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), whether or not anything is there.
    pub fn delete(&self, key: impl IntoKey) -> Result<Receipt<bool>> {
        self.apply(Edit::delete(key)).map(|receipt| mapped(receipt, |outcome| outcome.is_done()))
    }

    /// Removes everything at and below a place; tells how many assets went.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied) if one of the keys may not be removed; then none is.
    pub fn delete_tree(&self, place: impl IntoPlace) -> Result<Receipt<u64>> {
        self.apply(Edit::delete_tree(place)).map(|receipt| mapped(receipt, |outcome| outcome.removed()))
    }

    /// Gives an asset another key.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`AlreadyExists`](ErrorKind::AlreadyExists),
    /// [`AccessDenied`](ErrorKind::AccessDenied).
    pub fn rename(&self, from: impl IntoKey, to: impl IntoKey) -> Result<Receipt<Stored>> {
        self.stored(Edit::rename(from, to))
    }

    /// Moves everything at and below a place to another; tells how many assets went.
    ///
    /// # Errors
    /// As [`Session::rename`]; [`TransactionTooLarge`](ErrorKind::TransactionTooLarge).
    pub fn rename_tree(&self, from: impl IntoPlace, to: impl IntoPlace) -> Result<Receipt<u64>> {
        self.apply(Edit::rename_tree(from, to)).map(|receipt| mapped(receipt, |outcome| outcome.removed()))
    }

    /// Stores a copy of an asset under another key, in place of what is there; the payload is shared. Not to replace anything
    /// take [`Edit::copy`] with [`Edit::if_absent`].
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`AccessDenied`](ErrorKind::AccessDenied).
    pub fn copy(&self, from: impl IntoKey, to: impl IntoKey) -> Result<Receipt<Stored>> {
        self.stored(Edit::copy(from, to))
    }

    /// Makes a directory that is there even while it is empty. One that is there already is left as it is.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if an asset has this key.
    pub fn make_directory(&self, key: impl IntoKey) -> Result<Receipt<Stored>> {
        self.stored(Edit::make_directory(key))
    }

    /// Removes a directory that is empty; tells whether it was there.
    ///
    /// # Errors
    /// [`NotEmpty`](ErrorKind::NotEmpty).
    pub fn remove_directory(&self, key: impl IntoKey) -> Result<Receipt<bool>> {
        self.apply(Edit::remove_directory(key)).map(|receipt| mapped(receipt, |outcome| outcome.is_done()))
    }

    /// Applies an edit with its conditions. A condition that does not hold is an [`Outcome`], not an error.
    ///
    /// # Errors
    /// As [`Session::put`].
    pub fn apply(&self, edit: Edit) -> Result<Receipt<Outcome>> {
        let Edit { change, conditions } = edit;
        let change = change?;
        let key = change.key().cloned();
        let place = key.as_ref().map_or("", Key::as_str);
        self.changing("write", place, || self.carry_out(change, conditions))
    }

    /// Makes the payload of a draft ready: whatever can be done before this writer's turn is done before it, hashing,
    /// compressing, staging.
    pub(crate) fn ready(&self, key: &Key, draft: &mut Draft) -> Result<Ready> {
        self.check_not_nested()?;
        self.shared.commit.check_writable()?;
        let documents = self.shared.commit.documents();
        let allowed = self.with_guard(|guard| guard.access(Right::WRITE, key));
        self.audited(allowed.map_err(|error| error.at(key)))?;
        prepare(&self.shared, &documents, key, draft).map_err(|error| error.at(key))
    }

    /// Puts everything that is visible on disk.
    pub(crate) fn flush(&self) -> Result<()> {
        self.shared.observed("flush", "", || self.shared.commit.flush())
    }

    /// Runs an operation that changes something, under its name or that of the session.
    pub(crate) fn changing<R, E>(
        &self,
        operation: &'static str,
        place: &str,
        act: impl FnOnce() -> Result<R, E>,
    ) -> Result<R, E> {
        self.shared.observed(self.name.unwrap_or(operation), place, act)
    }

    /// Refuses what would wait for the transaction that this thread is in.
    pub(crate) fn check_not_nested(&self) -> Result<()> {
        self.shared.commit.sequencer().check_not_nested()
    }

    fn carry_out(&self, mut change: Change, conditions: Vec<Condition>) -> Result<Receipt<Outcome>> {
        self.check_not_nested()?;
        self.shared.commit.check_writable()?;
        let ready = match &mut change {
            Change::Put { key, draft } => Some(self.ready(key, draft)?),
            _ => None,
        };
        self.shared.commit.wait_for_room()?;
        if let Some(key) = change.key() {
            self.shared.commit.read_ahead(key)?;
        }
        let errand = Errand::new(&self.caller, self.durability, Work { change, ready, conditions });
        let (value, commit) = errand.wait(&self.shared, self.wait_max)?;
        Ok(Receipt { value, commit })
    }

    fn stored(&self, edit: Edit) -> Result<Receipt<Stored>> {
        let key = edit.change.as_ref().ok().and_then(|change| change.key().cloned());
        receipt_of(self.apply(edit)?, key.as_ref())
    }

    /// Applies many edits in one commit: all or none, or each for itself.
    ///
    /// # Errors
    /// [`BatchRefused`](ErrorKind::BatchRefused) in [`BatchMode::Atomic`], with the error of every refused edit in
    /// [`Error::items`]; [`BatchTooLarge`](ErrorKind::BatchTooLarge).
    pub fn batch(
        &self,
        edits: impl IntoIterator<Item = Edit>,
        mode: BatchMode,
    ) -> Result<Receipt<Vec<Result<Outcome>>>> {
        let edits: Vec<Edit> = edits.into_iter().collect();
        let limits = Arc::clone(&self.shared.commit.documents().limits);
        let too_large = |what, size: u64, limit: u64| {
            if size > limit {
                Err(Error::from(ErrorKind::BatchTooLarge { what, size, limit }))
            } else {
                Ok(())
            }
        };
        too_large("edits", edits.len() as u64, limits.max_batch_count())?;
        self.write(|txn| {
            let count = edits.len();
            let (mut outcomes, mut errors) = (Vec::with_capacity(count), Vec::new());
            for (at, edit) in edits.into_iter().enumerate() {
                let outcome = txn.apply(edit);
                if mode == BatchMode::Atomic {
                    match &outcome {
                        Ok(Outcome::Refused(refusal)) => errors.push((at, refused(refusal))),
                        Err(error) => errors.push((at, error.clone())),
                        Ok(_) => {}
                    }
                }
                outcomes.push(outcome);
                too_large("bytes", txn.bytes() as u64, limits.max_batch_bytes())?;
            }
            if errors.is_empty() { Ok(outcomes) } else { Err(Error::of_batch(errors, count)) }
        })
    }

    /// Begins a bulk load: many assets, stored in the order of their keys in commits of a good size, and on disk when it
    /// is [finished](Bulk::finish). For those who bring in many at once it is two to three times as fast as batches.
    #[must_use]
    pub fn bulk(&self) -> Bulk {
        Bulk::new(self)
    }

    // ---- single reads

    /// Takes what is wanted of a row from the cache of records, if it is there and the caller may read it: without
    /// a view, and without looking at the clock. Every other case goes the long way.
    fn hot<R>(&self, key: &Key, take: impl FnOnce(&Row, &Bytes) -> R) -> Option<R> {
        self.shared.commit.check_open().ok()?;
        self.with_guard(|guard| guard.reading(key)).ok()?;
        self.shared.commit.cached(key.encoded(), take)
    }

    /// Gives an asset: its record and its payload, of one commit.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`AccessDenied`](ErrorKind::AccessDenied),
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn get(&self, key: impl IntoKey) -> Result<Asset> {
        let key = key.into_key()?;
        let _span = trace::operation("get", key.as_str());
        if let Some(Some(asset)) = self.hot(&key, |row, payload| Asset::of_row(&key, row, payload)) {
            return Ok(asset);
        }
        self.shared.timed("get", key.as_str(), || {
            match Asset::of_row(&key, &self.row(&key)?, &Bytes::new()) {
                Some(asset) => Ok(asset),
                None => self.snapshot()?.with(|reading| reading.asset(&key)),
            }
        })
    }

    /// Gives a record, without its payload.
    ///
    /// # Errors
    /// As [`Session::get`].
    pub fn record(&self, key: impl IntoKey) -> Result<Record> {
        let key = key.into_key()?;
        let _span = trace::operation("record", key.as_str());
        if let Some(record) = self.hot(&key, |row, _| row.record.clone()) {
            return Ok(record);
        }
        self.shared.timed("record", key.as_str(), || self.row(&key).map(|row| row.record))
    }

    /// Tells whether something is stored under a key that the caller may know of.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Corrupt`](ErrorKind::Corrupt).
    pub fn exists(&self, key: impl IntoKey) -> Result<bool> {
        self.snapshot()?.exists(key)
    }

    /// Opens a payload for reading in ranges or as a stream. While it is held it counts as a reader: one that is older than
    /// [`Options::reader_age_max`](crate::Options::reader_age_max), an hour by default, gives
    /// [`ReaderExpired`](ErrorKind::ReaderExpired) where it reads on.
    ///
    /// # Errors
    /// As [`Session::get`], and [`PayloadUnavailable`](ErrorKind::PayloadUnavailable).
    pub fn open(&self, key: impl IntoKey) -> Result<PayloadReader> {
        self.snapshot()?.open(key)
    }

    /// Opens a typed payload: validated once, then read where it lies. While it is held in place it counts as a
    /// reader.
    ///
    /// # Errors
    /// As [`Session::open`], and [`TypeMismatch`](ErrorKind::TypeMismatch) if it is of another type.
    pub fn get_typed<T: Loadable>(&self, key: impl IntoKey) -> Result<TypedValue<T>> {
        self.snapshot()?.get_typed(key)
    }

    /// Lists one level below a place, `""` for the root; only what the caller may see.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such directory, or none that the caller may see.
    pub fn list(&self, place: impl IntoPlace) -> Result<Vec<Entry>> {
        self.snapshot()?.list(place)
    }

    /// Lists the names one level below a place, as [`ReadTxn::names`] does.
    ///
    /// # Errors
    /// As [`Session::list`].
    pub fn names(&self, place: impl IntoPlace) -> Result<Vec<String>> {
        self.snapshot()?.names(place)
    }

    /// Gives a page of the assets at and below a place.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey), [`Corrupt`](ErrorKind::Corrupt).
    pub fn page(&self, place: impl IntoPlace, request: &PageRequest) -> Result<Page> {
        self.snapshot()?.page(place, request)
    }

    /// Gives the assets that have a tag, in the order of their keys; only what the caller may see.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Corrupt`](ErrorKind::Corrupt).
    pub fn find_by_tag(&self, tag: &str) -> Result<Vec<(Key, Record)>> {
        self.snapshot()?.find_by_tag(tag)
    }

    /// Reads one row from a view that is let go of at once.
    fn row(&self, key: &Key) -> Result<Row> {
        let allowed = self.with_guard(|guard| guard.reading(key));
        self.audited(allowed)?;
        let row = self.shared.commit.committed_view()?.row(None, key.encoded());
        row.and_then(|row| row.ok_or_else(|| ErrorKind::NotFound.into())).map_err(|error| error.at(key))
    }

    // ---- the life of an asset

    /// Gives an asset if it may be served: finished and good, not volatile, in time, and made from what is still so.
    ///
    /// # Errors
    /// As [`Session::get`]; what is there and not to be served is a [`Miss`](crate::Miss), damage of a payload too.
    pub fn get_loadable(&self, key: impl IntoKey) -> Result<Lookup> {
        let key = key.into_key()?;
        let _span = trace::operation("get_loadable", key.as_str());
        let clock = &*self.shared.clock;
        if let Some(Some(lookup)) =
            self.hot(&key, |row, payload| loadable::from_row(&key, row, payload, clock))
        {
            return Ok(lookup);
        }
        self.shared.timed("get_loadable", key.as_str(), || {
            self.snapshot()?.with(|reading| reading.loadable(&key, clock))
        })
    }

    /// Tells what is known about an asset: what it came from, what came from it, why it is not served.
    ///
    /// # Errors
    /// As [`Session::get`].
    pub fn why(&self, key: impl IntoKey) -> Result<Why> {
        self.snapshot()?.why(key)
    }

    /// Asks for a claim: the right to write under a key, until it is given back, revoked, or past its time.
    ///
    /// ```
    /// # fn main() -> larder::Result<()> {
    /// # let larder = larder::Options::new().open_in_memory()?;
    /// # let ana = larder.session("ana")?;
    /// use std::time::Duration;
    ///
    /// use larder::Fenceable;
    ///
    /// let claim = ana.claim("reports/q3.csv").for_at_most(Duration::from_secs(600))?;
    /// // ... an hour, in code that does not listen ...
    /// match claim.put("leeks;3")? {
    ///     Fenceable::Done(receipt) => println!("stored in commit {}", receipt.commit.sequence),
    ///     Fenceable::Fenced { by } => println!("{by:?} set or cancelled it meanwhile; nothing was changed"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn claim(&self, key: impl IntoKey) -> ClaimRequest<'_> {
        ClaimRequest::new(self, key.into_key())
    }

    /// Takes up a claim by its fence: one that was [detached](Claim::detach), or is of another thread or process.
    /// Dropping the handle does not give it back.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey). Whether it holds is told by what is done in its name.
    pub fn resume_claim(&self, key: impl IntoKey, fence: u64) -> Result<Claim> {
        Ok(Claim::new(self, key.into_key()?, fence, false))
    }

    /// Calls off whatever is going on under a key: see [`WriteTxn::cancel`].
    ///
    /// # Errors
    /// As [`WriteTxn::cancel`].
    pub fn cancel(&self, key: impl IntoKey) -> Result<Receipt<CancelOutcome>> {
        let key = key.into_key()?;
        self.write(|txn| txn.cancel(&key))
    }

    /// Marks an asset as expired, and with it whatever was made from it: see [`WriteTxn::expire`].
    ///
    /// # Errors
    /// As [`WriteTxn::expire`].
    pub fn expire(&self, key: impl IntoKey) -> Result<Receipt<bool>> {
        let key = key.into_key()?;
        self.write(|txn| txn.expire(&key))
    }

    /// Appends an entry to the log of an asset: see [`WriteTxn::log`].
    ///
    /// # Errors
    /// As [`WriteTxn::log`].
    pub fn log(&self, key: impl IntoKey, kind: LogKind, message: impl Into<String>) -> Result<Receipt<()>> {
        let key = key.into_key()?;
        self.write(|txn| txn.log(&key, kind, message))
    }

    /// Says how far the work on an asset is: see [`WriteTxn::progress`]. With a durability of
    /// [`Window`](Durability::Window) many within the window share one sync.
    ///
    /// # Errors
    /// As [`WriteTxn::log`].
    pub fn progress(
        &self,
        key: impl IntoKey,
        done: u64,
        total: u64,
        message: impl Into<String>,
    ) -> Result<Receipt<()>> {
        let key = key.into_key()?;
        self.write(|txn| txn.progress(&key, done, total, message))
    }

    pub(crate) fn claims_freed(&self) -> u64 {
        self.shared.commit.freed().count()
    }

    pub(crate) fn wait_for_claims(&self, since: u64, wait: Duration) -> bool {
        self.shared.commit.freed().wait(since, wait)
    }

    // ---- documents, feed, audit

    /// Gives a document that is in force.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied): it takes the right to administer, at the root.
    pub fn document(&self, kind: DocumentKind) -> Result<Document> {
        let allowed = self.with_guard(|guard| guard.access(Right::ADMIN, &Prefix::root()));
        self.audited(allowed)?;
        Ok(self.shared.commit.documents().get(kind).as_ref().clone())
    }

    /// Sets a document, from this commit on; gives its version.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), [`InvalidDocument`](ErrorKind::InvalidDocument).
    pub fn set_document(&self, kind: DocumentKind, text: &str) -> Result<Receipt<u64>> {
        self.write(|txn| txn.set_document(kind, text))
    }

    /// Explains whether a principal may do something, and what decides: one of the stored rules, the application's
    /// [`Authorizer`](crate::Authorizer), or that it is `root`, the holder of the file. Explaining for another
    /// principal takes the right to administer.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied), [`InvalidName`](ErrorKind::InvalidName).
    pub fn explain<'g>(
        &self,
        principal: &str,
        groups: impl IntoIterator<Item = &'g str>,
        right: Right,
        key: impl IntoKey,
    ) -> Result<Explanation> {
        let key = key.into_key()?;
        if principal != self.caller.name() {
            let allowed = self.with_guard(|guard| guard.access(Right::ADMIN, &Prefix::root()));
            self.audited(allowed)?;
        }
        let whom = Caller::of(principal, groups)?;
        let documents = self.shared.commit.documents();
        let guard = Guard {
            caller: &whom,
            documents: &documents,
            hooks: &self.shared.hooks,
            totals: None,
            room: None,
        };
        let Judgement { allowed, by } = guard.judge(right, &key);
        let (rules, whom) = (&documents.rules, whom.principal());
        Ok(match by {
            By::Rules(_) => rules.explain(whom, right, key.encoded()),
            by => rules.explain_instead(whom, right, key.encoded(), allowed, by.to_string()),
        })
    }

    /// Gives what happened after a commit, oldest first; only what the caller may see.
    ///
    /// # Errors
    /// [`Lagged`](ErrorKind::Lagged) if rows that were asked for are past their retention.
    pub fn feed_since(&self, commit: u64, limit: usize) -> Result<Vec<Event>> {
        self.shared.observed("feed_since", "", || Feed::new(&self.shared, &self.caller).since(commit, limit))
    }

    /// Subscribes to what happens at and below a place from now on; only what the caller may see.
    ///
    /// `capacity` is how many commits are kept for a slow receiver, from 1 to 65 536; beyond, it is told that it lagged.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey), [`Closed`](ErrorKind::Closed).
    pub fn subscribe(&self, place: impl IntoPlace, capacity: usize) -> Result<Subscription> {
        self.shared.commit.check_open()?;
        Ok(Subscription::new(&self.shared, &self.caller, place.into_place()?, capacity))
    }

    /// Gives the audit from an entry on, oldest first: refusals, and what was allowed if that is asked for.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied): it takes the right to administer, at the root.
    pub fn audit(&self, from: u64, limit: usize) -> Result<Vec<(u64, AuditEntry)>> {
        let allowed = self.with_guard(|guard| guard.access(Right::ADMIN, &Prefix::root()));
        self.audited(allowed)?;
        self.shared.observed("audit", "", || self.shared.audit_rows(from, limit))
    }

    /// Gives the digest that a payload would have.
    #[must_use]
    pub fn content_hash(payload: &[u8]) -> ContentHash {
        ContentHash::of(payload)
    }

    /// Tells whether a payload of this size may be stored under a key: what an upload endpoint asks first.
    ///
    /// # Errors
    /// [`BinaryTooLarge`](ErrorKind::BinaryTooLarge), [`AccessDenied`](ErrorKind::AccessDenied).
    pub fn check_upload(&self, key: impl IntoKey, size: u64) -> Result<()> {
        let key = key.into_key()?;
        let documents = self.shared.commit.documents();
        let allowed = self.with_guard(|guard| guard.access(Right::WRITE, &key));
        self.audited(allowed.map_err(|error| error.at(&key)))?;
        check_size(&documents, &key, size).map_err(|error| error.at(&key))
    }

    fn with_guard<R>(&self, ask: impl FnOnce(Guard<'_>) -> R) -> R {
        let documents = self.shared.commit.documents();
        ask(Guard {
            caller: &self.caller,
            documents: &documents,
            hooks: &self.shared.hooks,
            totals: None,
            room: None,
        })
    }

    fn audited<R>(&self, result: Result<R>) -> Result<R> {
        result.inspect_err(|error| self.shared.audit_refusal(&self.caller, error))
    }
}

fn mapped<A, B>(receipt: Receipt<A>, map: impl FnOnce(A) -> B) -> Receipt<B> {
    Receipt { value: map(receipt.value), commit: receipt.commit }
}

fn receipt_of(receipt: Receipt<Outcome>, key: Option<&Key>) -> Result<Receipt<Stored>> {
    Ok(Receipt { value: stored(receipt.value, key)?, commit: receipt.commit })
}
