//! The write transaction: what a closure changes, and how the outcome becomes a write-set.

mod claims;
mod edits;
mod history;
mod life;
mod logs;
mod rows;
mod single;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{
    ContentHash, EventKind, EventRow, FeedRow, Key, PayloadState, Prefix, Record, Right, WriteSetBuilder,
    WriteSetHeader,
};

pub use self::rows::CollectionMut;
pub(crate) use self::rows::Fronts;
use super::changes::Changes;
use super::reading::{Asset, Entry, Page, PageRequest, Reading};
use super::view::View;
use crate::authorizer::Caller;
use crate::commit::{Accepted, CommitInfo, Durability, Held, Slot};
use crate::documents::{Document, DocumentKind, Documents, row_of};
use crate::edit::{Draft, Edit, IntoKey, IntoPlace, Outcome, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Admitted, Guard, Totals};
use crate::larder::{ReaderToken, Shared};
use crate::payload::{Loadable, PayloadReader, TypedValue};
use crate::primitives::{ContentRow, OnceRow, StatisticsMap, tag_changes};
use crate::store::{Table, chunk_key, state_key};

/// Chunks of a payload are removed one by one up to this many, and as a range beyond.
const ROWS_BY_NAME_MAX: u64 = 16;

/// A write transaction. Its closure runs on the thread that called, one at a time with all others; it sees its own
/// changes, and everything that was accepted before it. An error, a panic or a drop leaves nothing.
pub struct WriteTxn<'s> {
    shared: &'s Arc<Shared>,
    caller: &'s Caller,
    held: Held<'s>,
    view: View,
    token: Arc<ReaderToken>,
    changes: Changes,
    documents: Arc<Documents>,
    statistics: StatisticsMap,
    /// By how many bytes records and rows shrink, payloads not counted, about: what is kept of them beside is not counted either.
    shrinks_by: i64,
    events: Vec<EventRow>,
    staged: Vec<crate::payload::Staged>,
    info: CommitInfo,
    /// What the clock said when it began, in microseconds.
    now: i64,
    documents_changed: bool,
    /// Keys whose claims were made, or given up.
    claims: BTreeMap<Bytes, bool>,
    /// Keys that are written in the name of whoever claimed them.
    acting_for: Vec<Key>,
    /// Up to which fence this transaction reserves numbers.
    fences_reserved: Option<u64>,
    /// What is known of collections.
    rows: rows::RowsAtWork,
    /// Whether anything was made from anything.
    has_edges: bool,
    /// Whether anything was said of the work on any asset.
    has_logs: bool,
    /// Whether what expires was found beforehand.
    is_cascading: bool,
    /// Whether a commit with the same idempotency key was found: this one changes nothing.
    is_repeat: bool,
}

impl std::fmt::Debug for WriteTxn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTxn").field("commit", &self.info).finish_non_exhaustive()
    }
}

/// Where the payload of a new record is, and what has to be written for it.
struct Linked {
    state: PayloadState,
    inline: Bytes,
    content: Option<(ContentHash, ContentRow)>,
    chunks: Vec<(u64, Bytes)>,
    staged: Option<crate::payload::Staged>,
}

impl<'s> WriteTxn<'s> {
    pub(crate) fn begin(shared: &'s Arc<Shared>, caller: &'s Caller, mut held: Held<'s>) -> Result<Self> {
        shared.commit.heal(&mut held)?;
        let view = shared.commit.accepted_view()?;
        let now = shared.clock.now();
        let info = CommitInfo { sequence: held.sequence + 1, time: now.max(held.time) };
        let documents = Arc::clone(&held.documents);
        let (has_edges, has_logs) = (held.has_edges, held.has_logs);
        Ok(Self {
            shared,
            caller,
            held,
            view,
            token: Arc::new(ReaderToken::unlimited(shared)),
            changes: Changes::default(),
            documents,
            statistics: StatisticsMap::default(),
            shrinks_by: 0,
            events: Vec::new(),
            staged: Vec::new(),
            info,
            now,
            documents_changed: false,
            claims: BTreeMap::new(),
            acting_for: Vec::new(),
            fences_reserved: None,
            rows: rows::RowsAtWork::default(),
            has_edges,
            has_logs,
            is_cascading: false,
            is_repeat: false,
        })
    }

    fn guard<'g>(&'g self, documents: &'g Arc<Documents>) -> Guard<'g> {
        // Only where it is limited: it takes a look at two maps.
        let totals = documents.limits.max_total_size().map(|_| {
            let bytes = |name: &[u8]| {
                let bytes = self.held.statistics.bytes(name).saturating_add(self.statistics.bytes(name));
                u64::try_from(bytes).unwrap_or(0)
            };
            Totals { used: bytes(b"t"), protected: bytes(b"p") }
        });
        let room = self.shared.commit.no_room(|| self.shared.pinned());
        Guard { caller: self.caller, documents, hooks: &self.shared.hooks, totals, room }
    }

    /// Refuses what grows, where there is no room for it.
    fn grow(&self) -> Result<()> {
        self.guard(&self.documents).grow()
    }

    fn reading(&self) -> Reading<'_, '_> {
        Reading {
            view: &self.view,
            own: Some(&self.changes),
            guard: self.guard(&self.documents),
            token: &self.token,
        }
    }

    fn audited<R>(&self, result: Result<R>) -> Result<R> {
        result.inspect_err(|error| self.shared.audit_refusal(self.caller, error))
    }

    /// Gives what this transaction will be called when it is committed, with its time.
    #[must_use]
    pub fn info(&self) -> CommitInfo {
        self.info
    }

    /// Gives the name of whoever this is done by.
    #[must_use]
    pub fn principal(&self) -> &str {
        self.caller.name()
    }

    /// Gives an asset as it is now, in this transaction.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`AccessDenied`](ErrorKind::AccessDenied),
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn get(&self, key: impl IntoKey) -> Result<Asset> {
        self.audited(self.reading().asset(&key.into_key()?))
    }

    /// Gives a record as it is now, without its payload.
    ///
    /// # Errors
    /// As [`WriteTxn::get`].
    pub fn record(&self, key: impl IntoKey) -> Result<Record> {
        self.audited(self.reading().record(&key.into_key()?))
    }

    /// Tells whether something is stored under a key that the caller may know of.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn exists(&self, key: impl IntoKey) -> Result<bool> {
        self.reading().exists(&key.into_key()?)
    }

    /// Opens a payload as it is now.
    ///
    /// # Errors
    /// As [`WriteTxn::get`], and [`PayloadUnavailable`](ErrorKind::PayloadUnavailable).
    pub fn open(&self, key: impl IntoKey) -> Result<PayloadReader> {
        self.audited(self.reading().open(&key.into_key()?))
    }

    /// Opens a typed payload as it is now.
    ///
    /// # Errors
    /// As [`WriteTxn::open`], and [`TypeMismatch`](ErrorKind::TypeMismatch).
    pub fn get_typed<T: Loadable>(&self, key: impl IntoKey) -> Result<TypedValue<T>> {
        self.audited(self.reading().typed(&key.into_key()?))
    }

    /// Lists one level below a place.
    ///
    /// # Errors
    /// As [`ReadTxn::list`](crate::ReadTxn::list).
    pub fn list(&self, place: impl IntoPlace) -> Result<Vec<Entry>> {
        self.audited(self.reading().list(&place.into_place()?))
    }

    /// Gives a page of the assets at and below a place.
    ///
    /// # Errors
    /// As [`ReadTxn::page`](crate::ReadTxn::page).
    pub fn page(&self, place: impl IntoPlace, request: &PageRequest) -> Result<Page> {
        self.audited(self.reading().page(&place.into_place()?, request))
    }

    /// Gives the assets that have a tag.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn find_by_tag(&self, tag: &str) -> Result<Vec<(Key, Record)>> {
        self.reading().tagged(tag)
    }

    /// Puts what was made ready before the transaction began.
    pub(crate) fn put_prepared(&mut self, key: &Key, draft: &Draft, ready: super::Ready) -> Result<Stored> {
        stored(self.apply_ready(key, draft, ready, &[])?, Some(key))
    }

    fn note_shrinking(&mut self, from: usize, to: usize) {
        self.shrinks_by += i64::try_from(from).unwrap_or(i64::MAX) - i64::try_from(to).unwrap_or(i64::MAX);
    }

    /// Tells of something that happened to a key and left its record as it is.
    fn tell(&mut self, kind: EventKind, key: &Key) {
        self.events.push(EventRow {
            kind,
            key: key.encoded().to_vec(),
            from: Vec::new(),
            old_generation: 0,
            new_generation: 0,
            bytes: 0,
        });
    }

    /// Applies an edit with its conditions.
    ///
    /// # Errors
    /// Every refusal of the guard but a condition that does not hold, which is an [`Outcome`]. After an error
    /// nothing of the edit is in the transaction, which can go on.
    pub fn apply(&mut self, edit: Edit) -> Result<Outcome> {
        let Edit { change, conditions } = edit;
        let result = change.and_then(|change| self.change(change, &conditions));
        self.audited(result)
    }

    /// Records an admitted change, and what follows from it: index, references, statistics, feed.
    fn record_change(&mut self, admitted: &Admitted, linked: Option<Linked>) -> Result<()> {
        let key = admitted.key();
        let (old, new) =
            (admitted.old().map(|row| &row.record), admitted.new_record().map(|(record, _)| record));
        let stored = |record: Option<&Record>| match record.map(Record::payload) {
            Some(PayloadState::Stored { hash, .. }) => Some(hash),
            _ => None,
        };
        // Before anything is changed: it can be too much.
        let affected = self.affected(key, old, new)?;
        if !matches!(admitted.kind(), EventKind::Annotated | EventKind::Expired) {
            self.revoke_by_write(key)?;
        }
        let length = |record: Option<&Record>| {
            record.map_or(0, |record| key.encoded().len() + record.as_bytes().len())
        };
        self.note_shrinking(length(old), length(new));
        let (old_content, new_content) = (stored(old), stored(new));
        let hash_of = |record: Option<&Record>| record.and_then(|record| record.payload().hash());
        let is_evicted = admitted.kind() == EventKind::Evicted;
        let was = admitted.old().filter(|was| was.record.has_payload() && hash_of(old) != hash_of(new));
        let was = was.filter(|_| !is_evicted);
        let history = was.and_then(|was| Some((was, self.history_limit(key)?)));
        if old_content != new_content {
            if let Some(hash) = new_content {
                self.refer(&hash, linked)?;
            }
            if let Some(hash) = old_content.filter(|_| history.is_none()) {
                self.unlink(&hash, 1)?;
            }
        }
        if let Some((was, limit)) = history {
            self.remember(key, was, limit)?;
        }
        let (removed, added) = tag_changes(key, old, new);
        for row in removed {
            self.changes.remove(Table::Tags, row);
        }
        for row in added {
            self.changes.put(Table::Tags, row, Bytes::new());
        }
        self.change_life(key, old, new);
        self.rows.forget_opened(key);
        self.change_collection(admitted.kind(), old, new);
        match (admitted.kind(), admitted.from()) {
            (EventKind::Renamed, Some(from)) => self.end_log(from, Some(key))?,
            _ if new.is_none() => self.end_log(key, None)?,
            _ => {}
        }
        if let Some(old) = old {
            self.statistics.count(old, -1);
        }
        match admitted.new_record() {
            Some((record, row)) => {
                self.statistics.count(record, 1);
                self.changes.put(Table::Records, key.encoded_bytes(), row.clone());
            }
            None => self.changes.remove(Table::Records, key.encoded_bytes()),
        }
        self.events.push(EventRow {
            kind: admitted.kind(),
            key: key.encoded().to_vec(),
            from: admitted.from().map(|from| from.encoded().to_vec()).unwrap_or_default(),
            old_generation: old.map_or(0, Record::generation),
            new_generation: new.map_or(0, Record::generation),
            bytes: match admitted.kind() {
                // What went is what there is to tell.
                EventKind::Evicted => old.map_or(0, |record| record.payload().length()),
                _ => new.map_or(0, |record| record.payload().length()),
            },
        });
        let right = if new.is_some() { Right::WRITE } else { Right::DELETE };
        self.shared.audit_allowed(&self.guard(&self.documents), right, key, self.info.time);
        self.expire_all(affected)
    }

    /// Adds a reference to a content, writing it where it is new.
    fn refer(&mut self, hash: &ContentHash, linked: Option<Linked>) -> Result<()> {
        let known = self.view.get(Some(&self.changes), Table::Contents, &hash.0)?;
        let mut content = match (known, &linked) {
            (Some(row), _) => ContentRow::decode(&row)?,
            (None, Some(Linked { content: Some((_, content)), .. })) => *content,
            _ => return Err(crate::store::corrupt(format!("content {hash} has no row"))),
        };
        content.references += 1;
        self.changes.put(Table::Contents, hash.0.to_vec(), content.encode());
        if let Some(linked) = linked {
            for (number, body) in linked.chunks {
                self.changes.put(Table::Chunks, chunk_key(content.id, number).to_vec(), body);
            }
            if let Some(staged) = linked.staged {
                self.changes.remove(Table::Staging, staged.id().to_be_bytes().to_vec());
                self.staged.push(staged);
            }
        }
        Ok(())
    }

    /// Takes references away; the last one takes the content with it.
    fn unlink(&mut self, hash: &ContentHash, references: u64) -> Result<()> {
        let Some(row) = self.view.get(Some(&self.changes), Table::Contents, &hash.0)? else {
            return Err(crate::store::corrupt(format!("content {hash} has no row")));
        };
        let mut content = ContentRow::decode(&row)?;
        content.references = content.references.saturating_sub(references);
        if content.references > 0 {
            self.changes.put(Table::Contents, hash.0.to_vec(), content.encode());
            return Ok(());
        }
        self.changes.remove(Table::Contents, hash.0.to_vec());
        // A few rows by name: a range would part the batch that it is in.
        if let Some(numbers) = crate::payload::row_numbers(&content.stored(*hash), ROWS_BY_NAME_MAX)? {
            for number in numbers {
                self.changes.remove(Table::Chunks, chunk_key(content.id, number).to_vec());
            }
            return Ok(());
        }
        let start = Bytes::copy_from_slice(&chunk_key(content.id, 0));
        let end = Bytes::copy_from_slice(&chunk_key(content.id + 1, 0));
        self.changes.remove_range(Table::Chunks, start, Some(end), 0);
        Ok(())
    }

    /// Sets a document: rules, limits or registry. Needs the right to administer, at the root.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied); [`InvalidDocument`](ErrorKind::InvalidDocument) with line and
    /// remedy, if the text cannot be used.
    pub fn set_document(&mut self, kind: DocumentKind, text: &str) -> Result<u64> {
        let documents = Arc::clone(&self.documents);
        let allowed = self.guard(&documents).access(Right::ADMIN, &Prefix::root());
        self.audited(allowed)?;
        self.shared.audit_allowed(&self.guard(&documents), Right::ADMIN, &Prefix::root(), self.info.time);
        let document = Document {
            version: documents.get(kind).version + 1,
            time: self.info.time,
            principal: self.caller.name().to_owned(),
            text: text.to_owned(),
        };
        let version = document.version;
        let (key, row) = row_of(kind, &document);
        self.documents = Arc::new(documents.with(kind, document)?);
        self.documents_changed = true;
        self.rows.forget_all_opened();
        self.changes.put(Table::Documents, key, row);
        self.events.push(EventRow {
            kind: EventKind::DocumentChanged,
            key: kind.name().as_bytes().to_vec(),
            from: Vec::new(),
            old_generation: version - 1,
            new_generation: version,
            bytes: text.len() as u64,
        });
        Ok(version)
    }

    /// Removes rows of the store's own keeping that are past their retention.
    pub(crate) fn trim(&mut self, table: Table, end: Bytes, count: u64) {
        self.changes.remove_range(table, Bytes::new(), Some(end), count);
    }

    /// Sets a number that the store keeps about itself.
    pub(crate) fn mark(&mut self, name: &'static [u8], number: i64) {
        self.changes.put(Table::State, name, number.to_le_bytes().to_vec());
    }

    /// Removes one row of the store's own keeping.
    pub(crate) fn trim_row(&mut self, table: Table, key: Bytes) {
        self.changes.remove(table, key);
    }

    /// Gives the receipt of an earlier commit with this idempotency key, if there was one.
    pub(crate) fn earlier(&mut self, idempotency_key: &str) -> Result<Option<CommitInfo>> {
        let key = OnceRow::key(self.caller.name(), idempotency_key)?;
        let row = self.view.get(Some(&self.changes), Table::Once, &key)?;
        self.is_repeat = row.is_some();
        row.map(|row| OnceRow::decode(&row)).transpose()
    }

    /// Encodes what was changed and hands it on, to be waited for in `slot`; nothing, if nothing was. Gives the slot of
    /// the last commit that was read from.
    pub(crate) fn finish(
        mut self,
        durability: Durability,
        idempotency_key: &str,
        slot: &Arc<Slot>,
    ) -> Result<(CommitInfo, Option<Arc<Slot>>)> {
        let idempotency_key = if self.is_repeat { "" } else { idempotency_key };
        let nothing = self.changes.is_empty() && idempotency_key.is_empty();
        let has_audit = self.held.is_for_upkeep && !self.shared.audit.is_empty();
        if nothing && !has_audit {
            let info = CommitInfo { sequence: self.held.sequence, time: self.held.time };
            return Ok((info, self.shared.commit.newest_slot()));
        }
        self.write_aggregates();
        if !self.statistics.is_empty() {
            let row = self.held.statistics.encode_with(&self.statistics);
            self.changes.put(Table::State, state_key::STATISTICS, row);
        }
        self.rows.tell(&mut self.events);
        let feed = FeedRow {
            time: self.info.time,
            principal: self.caller.name().to_owned(),
            events: std::mem::take(&mut self.events),
        };
        if !feed.events.is_empty() {
            self.changes.put(Table::Feed, self.info.sequence.to_be_bytes().to_vec(), feed.encode());
        }
        if !idempotency_key.is_empty() {
            let key = OnceRow::key(self.caller.name(), idempotency_key)?;
            self.changes.put(Table::Once, key, OnceRow::encode(&self.info));
        }
        let audit = self.shared.audit.take();
        let mut audit_next = self.held.audit_next;
        for entry in &audit {
            self.changes.put(Table::Audit, audit_next.to_be_bytes().to_vec(), entry.encode());
            audit_next += 1;
        }
        if !audit.is_empty() {
            self.changes.put(Table::State, state_key::AUDIT_NEXT, audit_next.to_le_bytes().to_vec());
        }
        let header = WriteSetHeader {
            sequence: self.info.sequence,
            time: self.info.time,
            store_id: self.shared.commit.store().identity().store_id,
            base: self.held.identity,
            principal: self.caller.name().to_owned(),
            idempotency_key: idempotency_key.to_owned(),
        };
        let mut builder = WriteSetBuilder::with_capacity(self.changes.bytes());
        let encoded = self.changes.write(&mut builder).and_then(|()| builder.encode(&header));
        let write_set = match encoded {
            Ok(write_set) => write_set,
            Err(error) => {
                self.shared.audit.put_back(audit);
                return Err(error.into());
            }
        };
        let identity = write_set.identity();
        // A number that was reserved must never be reserved again, whatever becomes of the claim.
        let durability = if self.fences_reserved.is_some() { Durability::Synced } else { durability };
        self.shared.commit.accept(Accepted {
            write_set,
            info: self.info,
            now: self.now,
            base: header.base,
            durability,
            frees_claims: self.claims.values().any(|is_live| !is_live),
            documents: self.documents_changed.then(|| Arc::clone(&self.documents)),
            feed: Arc::new(feed),
            staged: (!self.staged.is_empty()).then(|| self.shared.commit.store().staged()),
            slot: Arc::clone(slot),
        })?;
        self.shared.commit.note_growth(|| self.statistics.bytes(b"t") - self.shrinks_by);
        self.held.sequence = self.info.sequence;
        self.held.time = self.info.time;
        self.held.identity = identity;
        self.held.statistics.add_all(std::mem::take(&mut self.statistics));
        self.held.documents = Arc::clone(&self.documents);
        self.held.audit_next = audit_next;
        self.held.has_edges = self.has_edges;
        self.held.has_logs = self.has_logs;
        self.rows.finish(&mut self.held.fronts);
        if let Some(reserved) = self.fences_reserved {
            self.held.fences_reserved = reserved;
        }
        for (key, is_live) in std::mem::take(&mut self.claims) {
            if is_live {
                self.held.claimed.insert(key)
            } else {
                self.held.claimed.remove(&key)
            };
        }
        for staged in self.staged.drain(..) {
            staged.keep();
        }
        Ok((self.info, Some(Arc::clone(slot))))
    }

    /// Gives about how large the transaction is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.changes.bytes() + self.rows.bytes()
    }
}

/// The error for a refusal where that aborts.
pub(crate) fn refused(refusal: &crate::edit::Refusal) -> Error {
    let actual = match &refusal.actual {
        None => "nothing, or nothing that may be told".to_owned(),
        Some(actual) => format!("generation {}, status {}", actual.generation, actual.status),
    };
    ErrorKind::PreconditionFailed { expected: refusal.expected.to_string(), actual }.into()
}

/// What was stored; an outcome that is not what a call promises is an error.
pub(crate) fn stored(outcome: Outcome, key: Option<&Key>) -> Result<Stored> {
    let error = match outcome {
        Outcome::Created(stored) | Outcome::Replaced(stored) => return Ok(stored),
        Outcome::Refused(refusal) => refused(&refusal),
        _ => ErrorKind::NotFound.into(),
    };
    Err(key.map_or(error.clone(), |key| error.at(key)))
}
