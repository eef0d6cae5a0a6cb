//! Sweeping: what is past its time is marked, batch by batch, by an explicit call or by a thread that was asked for.
//!
//! Nothing depends on it: a reader that asks for what is loadable goes by the time itself, and a claim that is past its
//! time can be taken over. Sweeping makes it seen by those who list, count, or wait.

use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{RecvTimeoutError, Sender};
use larder_format::{Key, Micros};

use crate::error::{Error, ErrorKind, Result};
use crate::larder::Shared;
use crate::primitives::{Purpose, deadline_key, deadline_of};
use crate::store::Table;
use crate::trace;
use crate::txn::View;

/// Something that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due {
    /// When it was due, or will be.
    pub at: Micros,
    /// What.
    pub purpose: Purpose,
    /// The key that it is about.
    pub key: Key,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
#[non_exhaustive]
pub struct SweepReport {
    /// How many assets were marked as expired; those that were made from them are not among them.
    pub expired: u64,
    /// How many claims were revoked.
    pub claims: u64,
    /// How many assets could not be marked, because too much would expire with them; what is behind them was gone on with.
    pub refused: u64,
}

impl SweepReport {
    /// Gives how much was done.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.expired + self.claims
    }
}

/// How a [`Sweeper`] works.
#[derive(Debug, Clone, Copy)]
pub struct SweepOptions {
    every: Duration,
    batch: usize,
    budget: Duration,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), batch: 1_000, budget: Duration::from_millis(100) }
    }
}

impl SweepOptions {
    /// Looks every second, marks up to 1 000 in one transaction, for 100 ms at a time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how often is looked.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets how many are marked in one transaction at most.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch.max(1);
        self
    }

    /// Sets how long is swept in one go; what is left waits for the next.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }
}

/// Gives what is due at a time, earliest first.
pub(crate) fn due(view: &View, now: Micros, limit: usize) -> Result<Vec<Due>> {
    due_after(view, None, now, limit)
}

fn due_after(view: &View, last: Option<&Due>, now: Micros, limit: usize) -> Result<Vec<Due>> {
    let start = match last {
        Some(Due { at, purpose, key }) => Bound::Excluded(deadline_key(*at, *purpose, key.encoded())),
        None => Bound::Unbounded,
    };
    let end = match now.checked_add(1) {
        Some(after) => Bound::Excluded(deadline_key(after, Purpose::Expiry, &[]).slice(..8)),
        None => Bound::Unbounded,
    };
    view.range(None, Table::Deadlines, start, end)?.take(limit).map(|row| due_in(&row?.0)).collect()
}

/// Gives the earliest deadline.
pub(crate) fn next(view: &View) -> Result<Option<Due>> {
    let mut rows = view.range(None, Table::Deadlines, Bound::Unbounded, Bound::Unbounded)?;
    rows.next().map(|row| due_in(&row?.0)).transpose()
}

fn due_in(row_key: &Bytes) -> Result<Due> {
    let parts =
        deadline_of(row_key).and_then(|(at, purpose, key)| Some((at, purpose, Key::decode(key).ok()?)));
    let (at, purpose, key) = parts.ok_or_else(|| crate::store::corrupt("a deadline is malformed"))?;
    Ok(Due { at, purpose, key })
}

/// Marks what is due at a time, up to a limit, in one transaction, or in as many as it takes where that is too large.
pub(crate) fn sweep(shared: &Arc<Shared>, now: Micros, limit: usize) -> Result<SweepReport> {
    let mut report = SweepReport::default();
    let mut last: Option<Due> = None;
    // What cannot be marked is the first that is due next time, too.
    while report.total() == 0 {
        let due = due_after(&shared.commit.committed_view()?, last.as_ref(), now, limit)?;
        fire_parted(shared, &due, &mut report)?;
        last = due.into_iter().last();
        if last.is_none() || report.refused == 0 {
            break;
        }
    }
    Ok(report)
}

/// Does what was due; the halves of it where it is too much for one transaction.
fn fire_parted(shared: &Arc<Shared>, due: &[Due], report: &mut SweepReport) -> Result<()> {
    let error = match fire(shared, due) {
        Ok(fired) => {
            report.expired += fired.expired;
            report.claims += fired.claims;
            return Ok(());
        }
        Err(error) => error,
    };
    if !matches!(error.kind(), ErrorKind::TransactionTooLarge { .. } | ErrorKind::CascadeTooLarge { .. }) {
        return Err(error);
    }
    if let [one] = due {
        trace::trouble("something past its time could not be marked", Some(&error.at(&one.key)));
        report.refused += 1;
        return Ok(());
    }
    let (first, second) = due.split_at(due.len() / 2);
    fire_parted(shared, first, report)?;
    fire_parted(shared, second, report)
}

/// Does what was due, as far as it still is, in one transaction.
pub(crate) fn fire(shared: &Arc<Shared>, due: &[Due]) -> Result<SweepReport> {
    let mut report = SweepReport::default();
    if due.is_empty() {
        return Ok(report);
    }
    crate::upkeep::write_as_store(shared, |txn| {
        let now = txn.info().time;
        // By what lies in the table now: it may have been moved, done by another, or looked at with another clock.
        for Due { at, purpose, key } in due.iter().filter(|due| due.at <= now) {
            if txn.fire(*at, *purpose, key)? {
                match purpose {
                    Purpose::Expiry => report.expired += 1,
                    Purpose::Claim => report.claims += 1,
                }
            }
        }
        Ok(())
    })?;
    Ok(report)
}

/// A thread that sweeps, until it is stopped or dropped, or the store is closed.
#[derive(Debug)]
#[must_use]
pub struct Sweeper {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    pub(crate) fn start(shared: &Arc<Shared>, options: SweepOptions) -> Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(1);
        let weak = Arc::downgrade(shared);
        let thread = std::thread::Builder::new()
            .name("larder-sweeper".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(options.every) == Err(RecvTimeoutError::Timeout)
                    && go(&weak, &options)
                {}
            })
            .map_err(|error| {
                Error::from(ErrorKind::Io { doing: "starting a sweeper".to_owned() }).caused_by(error)
            })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops the thread, and waits until it has.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            trace::trouble("a sweeper ended with a panic", None);
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sweeps once, within the budget; tells whether to go on.
fn go(shared: &Weak<Shared>, options: &SweepOptions) -> bool {
    let Some(shared) = shared.upgrade() else { return false };
    let budget = i64::try_from(options.budget.as_micros()).unwrap_or(i64::MAX);
    let began = shared.clock.now();
    loop {
        match sweep(&shared, shared.clock.now(), options.batch) {
            Ok(report) if report.total() > 0 && shared.clock.now().saturating_sub(began) < budget => {}
            Ok(_) => return true,
            Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Poisoned { .. }) => {
                return false;
            }
            Err(error) => {
                trace::trouble("what is past its time could not be marked", Some(&error));
                return true;
            }
        }
    }
}
