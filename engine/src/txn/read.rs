//! The read transaction: one consistent view, for as long as it is held.

use std::sync::Arc;

use larder_format::{Key, LogEntry, Node, Record};

use super::reading::{Asset, Entry, Page, PageRequest, Reading, Walk};
use super::scan::{Scan, Summaries};
use super::view::View;
use crate::authorizer::Caller;
use crate::claim::ClaimInfo;
use crate::collection::Collection;
use crate::commit::CommitInfo;
use crate::edit::{IntoKey, IntoPlace};
use crate::error::Result;
use crate::guard::Guard;
use crate::larder::{ReaderToken, Shared};
use crate::loadable::Lookup;
use crate::payload::{Loadable, PayloadReader, TypedValue};
use crate::primitives::{Orphan, Progress};
use crate::why::{Former, Why};

/// One consistent view: it sees what was committed when it began, and nothing later.
///
/// It never waits for writers and never makes one wait. While it is held the file cannot reuse what it sees, so
/// it has a greatest age ([`Options::reader_age_max`](crate::Options::reader_age_max)). The rules that apply are
/// those that are in force when a method is called.
#[must_use]
pub struct ReadTxn {
    shared: Arc<Shared>,
    caller: Caller,
    view: View,
    token: Arc<ReaderToken>,
}

impl std::fmt::Debug for ReadTxn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadTxn").field("commit", &self.commit()).finish_non_exhaustive()
    }
}

impl ReadTxn {
    pub(crate) fn begin(shared: &Arc<Shared>, caller: &Caller) -> Result<Self> {
        let view = shared.commit.committed_view()?;
        let token = Arc::new(ReaderToken::issue(shared));
        Ok(Self { shared: Arc::clone(shared), caller: caller.clone(), view, token })
    }

    /// Reads as one operation, about a place.
    pub(super) fn observed<'v, R>(
        &'v self,
        operation: &'static str,
        place: &str,
        read: impl FnOnce(Reading<'v, '_>) -> Result<R>,
    ) -> Result<R> {
        self.shared.observed(operation, place, || self.with(read))
    }

    /// Reads by the rules that are in force now.
    pub(crate) fn with<'v, R>(&'v self, read: impl FnOnce(Reading<'v, '_>) -> Result<R>) -> Result<R> {
        self.shared.commit.check_open()?;
        let documents = self.shared.commit.documents();
        let guard = Guard {
            caller: &self.caller,
            documents: &documents,
            hooks: &self.shared.hooks,
            totals: None,
            room: None,
        };
        let answer = read(Reading { view: &self.view, own: None, guard, token: &self.token });
        answer.inspect_err(|error| self.shared.audit_refusal(&self.caller, error))
    }

    /// Gives the newest commit that the view contains.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt).
    pub fn commit(&self) -> Result<CommitInfo> {
        Ok((*self.view.head()).into())
    }

    /// Gives the time by the clock of the store.
    #[must_use]
    pub fn now(&self) -> larder_format::Micros {
        self.shared.clock.now()
    }

    /// Gives an asset: its record and its payload.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`AccessDenied`](crate::ErrorKind::AccessDenied),
    /// [`ReaderExpired`](crate::ErrorKind::ReaderExpired), [`Corrupt`](crate::ErrorKind::Corrupt).
    pub fn get(&self, key: impl IntoKey) -> Result<Asset> {
        let key = key.into_key()?;
        self.observed("get", key.as_str(), |reading| reading.asset(&key))
    }

    /// Opens a collection, to read its rows.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`NotACollection`](crate::ErrorKind::NotACollection),
    /// [`AccessDenied`](crate::ErrorKind::AccessDenied).
    pub fn collection(&self, key: impl IntoKey) -> Result<Collection<'_>> {
        let key = key.into_key()?;
        let collection = self.observed("collection", key.as_str(), |reading| reading.collection(&key))?;
        Ok(Collection::new(self, key, collection))
    }

    /// Gives a record, without its payload.
    ///
    /// # Errors
    /// As [`ReadTxn::get`].
    pub fn record(&self, key: impl IntoKey) -> Result<Record> {
        let key = key.into_key()?;
        self.observed("record", key.as_str(), |reading| reading.record(&key))
    }

    /// Tells whether something is stored under a key that the caller may know of.
    ///
    /// # Errors
    /// [`ReaderExpired`](crate::ErrorKind::ReaderExpired), [`Corrupt`](crate::ErrorKind::Corrupt).
    pub fn exists(&self, key: impl IntoKey) -> Result<bool> {
        let key = key.into_key()?;
        self.observed("exists", key.as_str(), |reading| reading.exists(&key))
    }

    /// Gives an asset if it may be served: finished and good, not volatile, in time, and made from what is still so.
    ///
    /// # Errors
    /// As [`ReadTxn::get`]; what is there and not to be served is a [`Miss`](crate::Miss), damage of a payload too.
    pub fn get_loadable(&self, key: impl IntoKey) -> Result<Lookup> {
        let key = key.into_key()?;
        let clock = &*self.shared.clock;
        self.observed("get_loadable", key.as_str(), |reading| reading.loadable(&key, clock))
    }

    /// Tells what is known about an asset: what it came from, what came from it, why it is not served.
    ///
    /// # Errors
    /// As [`ReadTxn::get`].
    pub fn why(&self, key: impl IntoKey) -> Result<Why> {
        let key = key.into_key()?;
        let clock = &*self.shared.clock;
        self.observed("why", key.as_str(), |reading| reading.why(&key, clock))
    }

    /// Gives the log of an asset, oldest entry first: the last 1 000 entries.
    ///
    /// # Errors
    /// As [`ReadTxn::get`].
    pub fn log(&self, key: impl IntoKey) -> Result<Vec<LogEntry>> {
        let key = key.into_key()?;
        self.observed("log", key.as_str(), |reading| Ok(reading.log(&key)?.0))
    }

    /// Gives how far the work on an asset is, if that was said.
    ///
    /// # Errors
    /// As [`ReadTxn::get`].
    pub fn progress(&self, key: impl IntoKey) -> Result<Option<Progress>> {
        let key = key.into_key()?;
        self.observed("progress", key.as_str(), |reading| Ok(reading.log(&key)?.1))
    }

    /// Gives what is kept of the history of a key, oldest first; nothing, where the limits do not say that some is.
    ///
    /// # Errors
    /// As [`ReadTxn::get`], but for a key that has nothing.
    pub fn history(&self, key: impl IntoKey) -> Result<Vec<Former>> {
        let key = key.into_key()?;
        self.observed("history", key.as_str(), |reading| reading.history(&key))
    }

    /// Gives an asset as it was in a generation that is kept.
    ///
    /// # Errors
    /// As [`ReadTxn::get`]; [`NotFound`](crate::ErrorKind::NotFound) if that generation is not kept.
    pub fn get_former(&self, key: impl IntoKey, generation: u64) -> Result<Asset> {
        let key = key.into_key()?;
        self.observed("get_former", key.as_str(), |reading| reading.former(&key, generation))
    }

    /// Gives the assets that were made from something, as far as the caller may list them.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`ReaderExpired`](crate::ErrorKind::ReaderExpired).
    pub fn dependents(&self, node: &Node) -> Result<Vec<Key>> {
        self.observed("dependents", "", |reading| reading.dependents(node))
    }

    /// Gives the claims that hold at and below a place, as far as the caller may list their keys.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey), [`Corrupt`](crate::ErrorKind::Corrupt).
    pub fn claims(&self, place: impl IntoPlace) -> Result<Vec<ClaimInfo>> {
        let place = place.into_place()?;
        self.observed("claims", place.as_str(), |reading| reading.claims(&place))
    }

    /// Gives the claims that were revoked, and whose holders have not been heard of since, as far as the caller may list
    /// their keys; in the order of their fences.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt).
    pub fn orphans(&self) -> Result<Vec<Orphan>> {
        self.observed("orphans", "", |reading| reading.orphans())
    }

    /// Opens a payload for reading in ranges or as a stream.
    ///
    /// # Errors
    /// As [`ReadTxn::get`], and [`PayloadUnavailable`](crate::ErrorKind::PayloadUnavailable).
    pub fn open(&self, key: impl IntoKey) -> Result<PayloadReader> {
        let key = key.into_key()?;
        self.observed("open", key.as_str(), |reading| reading.open(&key))
    }

    /// Opens a typed payload in place: validated once, then read where it lies in the file's page.
    ///
    /// # Errors
    /// As [`ReadTxn::open`], and [`TypeMismatch`](crate::ErrorKind::TypeMismatch) if it is of another type.
    pub fn get_typed<T: Loadable>(&self, key: impl IntoKey) -> Result<TypedValue<T>> {
        let key = key.into_key()?;
        self.observed("get_typed", key.as_str(), |reading| reading.typed(&key))
    }

    /// Lists one level below a place, `""` for the root; only what the caller may see.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such directory, or none that the caller may see.
    pub fn list(&self, place: impl IntoPlace) -> Result<Vec<Entry>> {
        let place = place.into_place()?;
        self.observed("list", place.as_str(), |reading| reading.list(&place))
    }

    /// Lists the names one level below a place, `""` for the root, in their order; only what the caller may see. Nothing is read
    /// of what lies there.
    ///
    /// # Errors
    /// As [`ReadTxn::list`].
    pub fn names(&self, place: impl IntoPlace) -> Result<Vec<String>> {
        let place = place.into_place()?;
        self.observed("names", place.as_str(), |reading| reading.names(&place))
    }

    /// Gives all assets at and below a place, in the order of their keys; only what the caller may see.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey); the iterator ends after an error.
    pub fn walk(&self, place: impl IntoPlace) -> Result<Walk<'_>> {
        let place = place.into_place()?;
        self.observed("walk", place.as_str(), |reading| reading.walk(&place, None))
    }

    /// Makes a scan of all assets at and below a place: they are looked at where they lie, by several threads if asked.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey).
    pub fn scan(&self, place: impl IntoPlace) -> Result<Scan<'_>> {
        Ok(Scan::new(self, place.into_place()?))
    }

    /// Makes a scan of what filters ask for most of all assets at and below a place: status, format, length, time of the last
    /// change, flags. It is answered from columns in memory, which the first one makes of all records of the store; or as
    /// [`ReadTxn::scan`] is, where [there is no room](crate::Options::column_bytes) for them, where this view is older than what
    /// they have, while somebody makes them, and where a record of the store cannot be read.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey).
    pub fn summaries(&self, place: impl IntoPlace) -> Result<Summaries<'_>> {
        Ok(Summaries::new(self, place.into_place()?))
    }

    /// Gives a page of the assets at and below a place.
    ///
    /// # Errors
    /// As [`ReadTxn::walk`].
    pub fn page(&self, place: impl IntoPlace, request: &PageRequest) -> Result<Page> {
        let place = place.into_place()?;
        self.observed("page", place.as_str(), |reading| reading.page(&place, request))
    }

    /// Gives the assets that have a tag, in the order of their keys; only what the caller may see.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`ReaderExpired`](crate::ErrorKind::ReaderExpired).
    pub fn find_by_tag(&self, tag: &str) -> Result<Vec<(Key, Record)>> {
        self.observed("find_by_tag", tag, |reading| reading.tagged(tag))
    }
}
