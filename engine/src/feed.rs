//! The change feed, as somebody may see it: read from the file, or told live.

use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_format::{EventKind, EventRow, FeedRow, Key, Micros, Prefix, Right, Tuple};

use crate::authorizer::Caller;
use crate::commit::CommitInfo;
use crate::error::{ErrorKind, Result};
use crate::guard::Guard;
use crate::larder::{ReaderToken, Shared};
use crate::store::{Table, corrupt};
use crate::subscription::{Inbox, Incoming};
use crate::txn::Reading;

/// Something that happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The commit that it happened in.
    pub commit: CommitInfo,
    /// What happened.
    pub kind: EventKind,
    /// Where: a key; the place of a removed tree; or the name of a document.
    pub place: String,
    /// Where it came from, for a rename or a copy.
    pub from: Option<String>,
    /// The key of the row, where something happened to a row of a collection; an empty one if all were removed.
    pub row: Option<Tuple>,
    /// The generation before, if there was one.
    pub old_generation: Option<u64>,
    /// The generation after, if there is one.
    pub new_generation: Option<u64>,
    /// The length of the payload after, in bytes; of a removed tree, how many assets went; of a row, 0.
    pub bytes: u64,
    /// Who caused it.
    pub principal: String,
    /// When, in microseconds since the epoch.
    pub time: Micros,
}

pub(crate) struct Feed<'a> {
    shared: &'a Arc<Shared>,
    caller: &'a Caller,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, caller: &'a Caller) -> Self {
        Self { shared, caller }
    }

    pub(crate) fn since(&self, commit: u64, limit: usize) -> Result<Vec<Event>> {
        let view = self.shared.commit.committed_view()?;
        let first = view.range(None, Table::Feed, Bound::Unbounded, Bound::Unbounded)?.next().transpose()?;
        let trimmed = self.shared.feed_trimmed(&view)?;
        if commit < trimmed {
            let first = first.map_or(trimmed + 1, |(key, _)| sequence_of(&key));
            return Err(ErrorKind::Lagged { wanted: commit + 1, first }.into());
        }
        let from = Bound::Excluded(Bytes::copy_from_slice(&commit.to_be_bytes()));
        let mut events = Vec::new();
        for row in view.range(None, Table::Feed, from, Bound::Unbounded)? {
            let (key, row) = row?;
            let feed = FeedRow::decode(&row).map_err(|error| corrupt(error.to_string()))?;
            let info = CommitInfo { sequence: sequence_of(&key), time: feed.time };
            self.visible(info, &feed, &Prefix::root(), &mut events);
            if events.len() >= limit {
                break;
            }
        }
        Ok(events)
    }

    /// Adds the events of a commit that lie at or below a place and that the caller may see, by the newest rules.
    fn visible(&self, commit: CommitInfo, feed: &FeedRow, below: &Prefix, events: &mut Vec<Event>) {
        let documents = self.shared.commit.documents();
        let guard = Guard {
            caller: self.caller,
            documents: &documents,
            hooks: &self.shared.hooks,
            totals: None,
            room: None,
        };
        for row in &feed.events {
            let Some((place, is_whole)) = self.place_of(row, below, &guard) else { continue };
            let is_row = is_of_rows(row.kind);
            let generation = |generation: u64| (generation != 0 && !is_row).then_some(generation);
            let from = if is_row { None } else { Key::decode(&row.from).ok() };
            let from = from.filter(|from| guard.allows(Right::LIST, from));
            let event = Event {
                commit,
                kind: row.kind,
                place,
                from: from.map(|from| from.to_string()),
                row: is_row.then(|| Tuple::new(Vec::new()).ok()).flatten(),
                old_generation: generation(row.old_generation),
                new_generation: generation(row.new_generation),
                bytes: if is_whole { row.bytes } else { 0 },
                principal: feed.principal.clone(),
                time: feed.time,
            };
            if row.from.is_empty() || !is_row {
                events.push(event);
                continue;
            }
            events.extend(
                row.rows()
                    .filter_map(|row| Some(Event { row: Some(Tuple::decode(row).ok()?), ..event.clone() })),
            );
        }
    }

    /// Where an event is told to have been, if it concerns who asks; and whether all of it is below that.
    fn place_of(&self, row: &EventRow, below: &Prefix, guard: &Guard<'_>) -> Option<(String, bool)> {
        if row.kind == EventKind::DocumentChanged {
            let shown = below.is_root() && guard.allows(Right::ADMIN, &Prefix::root());
            return shown.then(|| (String::from_utf8_lossy(&row.key).into_owned(), true));
        }
        let key = if row.key.is_empty() { None } else { Some(Key::decode(&row.key).ok()?) };
        let place = key.as_ref().map_or_else(Prefix::root, Prefix::from);
        let is_tree = row.kind == EventKind::TreeDeleted;
        let is_row = is_of_rows(row.kind);
        let is_inside = key.as_ref().is_some_and(|key| below.covers(key));
        let is_around = (is_tree || place.is_root())
            && below.as_key().map_or(place.is_root(), |below| place.covers(below));
        let text = |place: &Prefix| place.as_key().map_or_else(String::new, Key::to_string);
        if !is_inside && !is_around {
            None
        } else if guard.allows(Right::LIST, &place)
            || is_row && key.is_some_and(|key| self.may_read_rows(&key, guard))
        {
            Some((text(&place), true))
        } else {
            // Of a tree that went, and may not be listed itself, he is told who may have listed something in it.
            let seen = if is_around { below } else { &place };
            let may_know = is_tree && guard.uniform_below(Right::LIST, seen) != Some(false);
            may_know.then(|| (text(seen), false))
        }
    }

    /// Tells whether the caller may read the rows of a collection, as that says itself: then he may know of them.
    fn may_read_rows(&self, key: &Key, guard: &Guard<'_>) -> bool {
        let Ok(view) = self.shared.commit.committed_view() else { return false };
        let token = ReaderToken::unlimited(self.shared);
        let reading = Reading { view: &view, own: None, guard: *guard, token: &Arc::new(token) };
        let opened = reading.collection(key);
        opened.is_ok_and(|opened| guard.access_by_any(&opened.collection.definition.rights.read, key).is_ok())
    }
}

/// Tells whether something happened to rows of a collection.
fn is_of_rows(kind: EventKind) -> bool {
    matches!(kind, EventKind::RowPut | EventKind::RowRemoved)
}

fn sequence_of(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// What a subscription tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// What a commit did, as far as the subscriber may see it; never empty.
    Events(Vec<Event>),
    /// The receiver was too slow: commits from this one on were dropped. [`Session::feed_since`] has them.
    ///
    /// [`Session::feed_since`]: crate::Session::feed_since
    Lagged {
        /// The first commit that was dropped.
        from: u64,
    },
    /// The store was closed; nothing more comes.
    Closed,
}

/// A live feed of what happens at and below a place.
#[must_use]
pub struct Subscription {
    shared: Arc<Shared>,
    caller: Caller,
    below: Prefix,
    inbox: Inbox,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("below", &self.below).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn new(shared: &Arc<Shared>, caller: &Caller, below: Prefix, capacity: usize) -> Self {
        let inbox = shared.commit.subscribers().add(capacity);
        Self { shared: Arc::clone(shared), caller: caller.clone(), below, inbox }
    }

    /// Waits for what happens next.
    #[must_use]
    pub fn next_notice(&self) -> Notice {
        loop {
            if let Some(notice) = self.look(None) {
                return notice;
            }
        }
    }

    /// Gives what happened meanwhile; `None` if nothing did within `wait`.
    #[must_use]
    pub fn next_within(&self, wait: Duration) -> Option<Notice> {
        self.look(Some(wait))
    }

    /// Waits for what happens next, as a future that any executor can run, or none.
    pub fn notice(&self) -> impl Future<Output = Notice> + '_ {
        std::future::poll_fn(|context| {
            loop {
                let std::task::Poll::Ready(incoming) = self.inbox.poll(context.waker()) else {
                    return std::task::Poll::Pending;
                };
                if let Some(Some(notice)) = self.notice_of(incoming) {
                    return std::task::Poll::Ready(notice);
                }
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "how long a thread sleeps is no time of the store")]
    fn look(&self, wait: Option<Duration>) -> Option<Notice> {
        // What is none of his business does not begin his wait anew.
        let until = wait.and_then(|wait| Instant::now().checked_add(wait));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if let Some(notice) = self.notice_of(self.inbox.next(left)) {
                return notice;
            }
        }
    }

    /// What is told of what came in: `None` for what does not concern the subscriber, `Some(None)` for nothing.
    #[expect(clippy::option_option, reason = "nothing came, and nothing of it is told, are two answers")]
    fn notice_of(&self, incoming: Incoming) -> Option<Option<Notice>> {
        match incoming {
            Incoming::Nothing => Some(None),
            Incoming::Closed => Some(Some(Notice::Closed)),
            Incoming::Missed { from } => Some(Some(Notice::Lagged { from })),
            Incoming::Commit(commit, feed) => {
                let mut events = Vec::new();
                Feed::new(&self.shared, &self.caller).visible(commit, &feed, &self.below, &mut events);
                (!events.is_empty()).then(|| Some(Notice::Events(events)))
            }
        }
    }
}
