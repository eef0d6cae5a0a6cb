//! What is due without being asked for: flushes of a window, the audit, what is past its retention.

use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use larder_format::{FeedRow, Micros};
use parking_lot::Mutex;

use crate::authorizer::Caller;
use crate::commit::Durability;
use crate::documents::{Document, DocumentKind};
use crate::error::{Error, ErrorKind, Result};
use crate::larder::{FEED_TRIMMED, ONCE_TRIMMED, Shared};
use crate::primitives::{AuditEntry, HISTORY_PRUNED, OnceRow, Orphan, numbered_of};
use crate::store::Table;
use crate::trace;
use crate::txn::WriteTxn;

/// The longest that the thread sleeps, and so the longest that a refusal waits for the audit.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How often retention is looked at, in microseconds.
const TRIM_EVERY: Micros = 60 * 1_000_000;
/// How many rows are looked at in one go when something is trimmed.
const TRIM_AT_ONCE: usize = 10_000;

/// Of how many keys the history is pruned in one transaction.
const PRUNED_AT_ONCE: usize = 1_000;

/// What upkeep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UpkeepReport {
    /// Whether what was visible was put on disk.
    pub flushed: bool,
    /// How many rows of the feed, the audit, the idempotency keys and former versions of documents were dropped.
    pub trimmed: u64,
}

/// The store's thread.
pub(crate) struct Upkeep {
    shared: Weak<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stop: crossbeam_channel::Sender<()>,
}

impl Upkeep {
    /// Starts the thread, unless the caller drives upkeep.
    pub(crate) fn start(shared: &Arc<Shared>, wakes: Receiver<()>) -> Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        if shared.commit.is_inline() || shared.commit.store().is_read_only() {
            return Ok(Self { shared: Arc::downgrade(shared), thread: Mutex::new(None), stop });
        }
        let weak = Arc::downgrade(shared);
        let shared = Weak::clone(&weak);
        let thread = std::thread::Builder::new()
            .name("larder-upkeep".to_owned())
            .spawn(move || keep_up(&weak, &wakes, &stopped))
            .map_err(|error| {
                Error::from(ErrorKind::Io { doing: "starting the store's thread".to_owned() })
                    .caused_by(error)
            })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), stop })
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        let _ = self.stop.try_send(());
        if let Some(shared) = self.shared.upgrade() {
            shared.commit.store().hurry();
        }
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            trace::trouble("the store's thread ended with a panic", None);
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop();
        // The last handle goes: what waits for the audit is written now, or never.
        if let Some(shared) = self.shared.upgrade()
            && let Err(error) = shared.write_audit()
        {
            trace::trouble("the last entries of the audit were lost", Some(&error));
        }
    }
}

fn keep_up(shared: &Weak<Shared>, wakes: &Receiver<()>, stopped: &Receiver<()>) {
    let (mut trimmed_at, mut sleep) = (Micros::MIN, SLEEP_MAX);
    loop {
        // What comes from here on is not kept waiting.
        let Some(haste) = shared.upgrade().map(|shared| shared.commit.store().haste()) else { return };
        // Woken, stopped, or nothing for a while.
        crossbeam_channel::select! {
            recv(stopped) -> _ => return,
            recv(wakes) -> woken => if woken.is_err() { return },
            default(sleep) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        if stopped.try_recv() != Err(TryRecvError::Empty) {
            return;
        }
        shared.commit.lead_if_free();
        let now = shared.clock.now();
        let mut step = shared
            .commit
            .heal_now()
            .and_then(|()| flush_if_due(&shared, now))
            .and_then(|_| shared.write_audit())
            .map(|()| false);
        // While the store is copied there are windows to see to.
        if let Some(_not_copied) = shared.commit.hold_off_copying() {
            step = step.and_then(|_| shared.commit.drain_if_due(haste));
            if now.saturating_sub(trimmed_at) >= TRIM_EVERY {
                trimmed_at = now;
                step = step.and_then(|is_more| trim(&shared, now).map(|_| is_more));
            }
        }
        match step {
            Err(_) if shared.commit.check_open().is_err() => return,
            Err(error) => {
                trace::trouble("upkeep failed", Some(&error));
                // Not again at once: whatever it is will be there for a while.
                if matches!(stopped.recv_timeout(SLEEP_MAX), Ok(()) | Err(RecvTimeoutError::Disconnected)) {
                    return;
                }
            }
            Ok(true) => {
                sleep = Duration::ZERO;
                continue;
            }
            Ok(false) => {}
        }
        let until_due = shared.commit.until_flush_due(shared.clock.now());
        sleep = SLEEP_MAX.min(Duration::from_micros(until_due.cast_unsigned()));
    }
}

/// Does what is due.
pub(crate) fn run(shared: &Arc<Shared>, now: Micros) -> Result<UpkeepReport> {
    shared.commit.lead_if_free();
    shared.commit.heal_now()?;
    let flushed = flush_if_due(shared, now)?;
    shared.write_audit()?;
    let trimmed = trim(shared, now)?;
    shared.commit.drain_all()?;
    Ok(UpkeepReport { flushed, trimmed })
}

fn flush_if_due(shared: &Shared, now: Micros) -> Result<bool> {
    if shared.commit.until_flush_due(now) > 0 {
        return Ok(false);
    }
    shared.commit.flush()?;
    Ok(true)
}

/// Runs a transaction in the store's own name, as durable as the next flush.
pub(crate) fn write_as_store(
    shared: &Arc<Shared>,
    change: impl FnOnce(&mut WriteTxn<'_>) -> Result<()>,
) -> Result<()> {
    let caller = Caller::root()?;
    let wait = shared.settings.wait_max;
    let mut held = shared.commit.sequencer().enter("upkeep", shared.clock.now(), wait)?;
    held.is_for_upkeep = true;
    let mut txn = WriteTxn::begin(shared, &caller, held)?;
    change(&mut txn)?;
    let (_, slot) = txn.finish(Durability::Lazy, "", &Arc::default())?;
    match slot {
        Some(slot) => shared.commit.drive(&slot).map(drop),
        None => Ok(()),
    }
}

/// Prunes the history of all keys, some in a transaction.
pub(crate) fn prune_history(shared: &Arc<Shared>) -> Result<u64> {
    let mut keys = Vec::new();
    let view = shared.commit.committed_view()?;
    for row in view.range(None, Table::History, Bound::Unbounded, Bound::Unbounded)? {
        keys.push(numbered_of(&row?.0)?.0);
        // The rows of a key lie next to one another.
        keys.dedup();
    }
    drop(view);
    for keys in keys.chunks(PRUNED_AT_ONCE) {
        write_as_store(shared, |txn| {
            // Nothing in the feed tells of it.
            txn.mark(HISTORY_PRUNED, txn.info().sequence.cast_signed());
            txn.prune(keys)
        })?;
    }
    Ok(keys.len() as u64)
}

/// Drops what is past its retention: from the old end, by number and by age.
fn trim(shared: &Arc<Shared>, now: Micros) -> Result<u64> {
    if shared.commit.check_writable().is_err() {
        return Ok(0);
    }
    // The ends of tables are looked for in the store.
    shared.commit.drain_all()?;
    let retention = shared.settings.retention;
    let feed = past(shared, Table::Feed, retention.rows_max, |row| {
        Ok(FeedRow::decode(row).map_err(|error| crate::store::corrupt(error.to_string()))?.time)
            .map(|time| now.saturating_sub(time) > retention.age_max)
    })?;
    let audit = past(shared, Table::Audit, retention.rows_max, |row| {
        Ok(now.saturating_sub(AuditEntry::decode(row)?.time) > retention.age_max)
    })?;
    let once = past_once(shared, now)?;
    let orphans = past_orphans(shared, now)?;
    let documents = past_documents(shared, now)?;
    let count = feed.as_ref().map_or(0, |(_, count)| *count)
        + audit.as_ref().map_or(0, |(_, count)| *count)
        + (once.len() + orphans.len() + documents.len()) as u64;
    if count == 0 {
        return Ok(0);
    }
    write_as_store(shared, |txn| {
        if let Some((last, count)) = feed {
            let trimmed = last.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            txn.mark(FEED_TRIMMED, trimmed.cast_signed());
            txn.trim(Table::Feed, after(&last), count);
        }
        if let Some((last, count)) = audit {
            txn.trim(Table::Audit, after(&last), count);
        }
        if !once.is_empty() {
            txn.mark(ONCE_TRIMMED, now.saturating_sub(retention.idempotency_age_max));
        }
        for key in once {
            txn.trim_row(Table::Once, key);
        }
        for key in orphans {
            txn.trim_row(Table::Claims, key);
        }
        for key in documents {
            txn.trim_row(Table::Documents, key);
        }
        Ok(())
    })?;
    Ok(count)
}

fn sequence_of(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The first key behind this one.
fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// Finds the last row from the old end that is too many or too old, and how many there are up to it.
fn past(
    shared: &Shared,
    table: Table,
    rows_max: u64,
    is_old: impl Fn(&[u8]) -> Result<bool>,
) -> Result<Option<(Bytes, u64)>> {
    let view = shared.commit.committed_view()?;
    // Keys are sequence numbers: first and last tell how many there are, or a few more where commits had no events.
    let ends = |back| view.snapshot().end_of(table, back);
    let (Some(first), Some(newest)) = (ends(false)?, ends(true)?) else { return Ok(None) };
    let surplus = (sequence_of(&newest) + 1).saturating_sub(sequence_of(&first)).saturating_sub(rows_max);
    let mut last = None;
    let rows = view.range(None, table, Bound::Unbounded, Bound::Unbounded)?;
    for (number, row) in (1u64..).zip(rows.take(TRIM_AT_ONCE)) {
        let (key, row) = row?;
        let is_surplus = sequence_of(&key).saturating_sub(sequence_of(&first)) < surplus;
        if !is_surplus && !is_old(&row)? {
            break;
        }
        last = Some((key, number));
    }
    Ok(last)
}

/// Claims that were revoked so long ago that their holders will not be heard of any more.
fn past_orphans(shared: &Shared, now: Micros) -> Result<Vec<Bytes>> {
    let view = shared.commit.committed_view()?;
    let mut past = Vec::new();
    for row in view.prefix(None, Table::Claims, &Orphan::PREFIX)?.take(TRIM_AT_ONCE) {
        let (key, row) = row?;
        let age = now.saturating_sub(Orphan::decode(&key, &row)?.time);
        past.extend((age > shared.settings.retention.age_max).then_some(key));
    }
    Ok(past)
}

/// Versions of documents that were replaced too long ago, or too often since. The one that is in force stays.
fn past_documents(shared: &Shared, now: Micros) -> Result<Vec<Bytes>> {
    let retention = shared.settings.retention;
    let (view, documents) = (shared.commit.committed_view()?, shared.commit.documents());
    let mut past = Vec::new();
    for kind in DocumentKind::ALL {
        let newest = documents.get(kind).version;
        let mut before: Option<(Bytes, u64)> = None;
        for row in view.prefix(None, Table::Documents, &kind.key_prefix())?.take(TRIM_AT_ONCE) {
            let (key, row) = row?;
            let Ok(document) = Document::decode(&key, &row) else {
                // What verifying finds must not keep the rest from being trimmed.
                trace::trouble("a former document is malformed, and stays", None);
                continue;
            };
            if let Some((key, version)) = before.replace((key, document.version)) {
                let is_surplus = newest.saturating_sub(version) >= retention.rows_max.max(1);
                if !is_surplus && now.saturating_sub(document.time) <= retention.age_max {
                    break;
                }
                past.push(key);
            }
        }
    }
    Ok(past)
}

/// Idempotency keys lie in the order of their names: those that are too old are looked for among all.
fn past_once(shared: &Shared, now: Micros) -> Result<Vec<Bytes>> {
    let retention = shared.settings.retention;
    let view = shared.commit.committed_view()?;
    let surplus = shared.commit.count(Table::Once)?.saturating_sub(retention.idempotency_keys_max);
    let mut rows = Vec::new();
    for row in view.range(None, Table::Once, Bound::Unbounded, Bound::Unbounded)? {
        let (key, row) = row?;
        let time = OnceRow::decode(&row)?.time;
        if surplus > 0 || now.saturating_sub(time) > retention.idempotency_age_max {
            rows.push((time, key));
        }
    }
    rows.sort();
    let old =
        rows.iter().take_while(|(time, _)| now.saturating_sub(*time) > retention.idempotency_age_max).count();
    let count = old.max(usize::try_from(surplus).unwrap_or(usize::MAX)).min(TRIM_AT_ONCE);
    Ok(rows.into_iter().take(count).map(|(_, key)| key).collect())
}
