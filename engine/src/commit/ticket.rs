//! A commit that is on its way: it can be waited for, awaited, or forgotten; it goes on all the same.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use larder_format::Position;
use parking_lot::{Condvar, Mutex};

use super::Commit;
use crate::error::Result;

/// What a commit is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CommitInfo {
    /// The sequence number: one more than that of the commit before. 0 for the empty store.
    pub sequence: u64,
    /// The commit time in microseconds since the epoch; never less than that of the commit before.
    pub time: i64,
}

impl From<Position> for CommitInfo {
    fn from(position: Position) -> Self {
        Self { sequence: position.sequence, time: position.time }
    }
}

/// Wakes who awaits something. That is code of the application: if it panics, that ends nothing here.
pub(crate) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// What a leader and those who wait for it share.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    outcome: Option<Result<CommitInfo>>,
    is_waited_for: bool,
    is_to_lead: bool,
    is_to_take_turn: bool,
    waker: Option<Waker>,
}

/// Why a wait ended.
pub(crate) enum Woken {
    Done(Result<CommitInfo>),
    ToLead,
    ToTakeTurn,
}

impl Slot {
    pub(crate) fn complete(&self, outcome: Result<CommitInfo>) {
        let mut state = self.state.lock();
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// Hands the lead to whoever waits here; `false` if nobody does.
    pub(super) fn hand_over(&self) -> bool {
        let mut state = self.state.lock();
        if !state.is_waited_for || state.outcome.is_some() {
            return false;
        }
        state.is_to_lead = true;
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Lets whoever waits here try to take the turn.
    pub(crate) fn offer_turn(&self) {
        self.state.lock().is_to_take_turn = true;
        self.changed.notify_all();
    }

    /// Waits for the outcome, for the lead, or for the turn, at most for `wait_max` where that is said.
    pub(crate) fn wait_within(&self, wait_max: Option<Duration>) -> Option<Woken> {
        let mut state = self.state.lock();
        state.is_waited_for = true;
        let mut is_over = false;
        let woken = loop {
            if let Some(outcome) = &state.outcome {
                break Some(Woken::Done(outcome.clone()));
            }
            if std::mem::take(&mut state.is_to_lead) {
                break Some(Woken::ToLead);
            }
            if std::mem::take(&mut state.is_to_take_turn) {
                break Some(Woken::ToTakeTurn);
            }
            match wait_max {
                // The lead may have come when the time was over already.
                _ if is_over => break None,
                None => self.changed.wait(&mut state),
                Some(wait_max) => is_over = self.changed.wait_for(&mut state, wait_max).timed_out(),
            }
        };
        // Who does something else meanwhile is not handed the lead: he may be waiting for whoever has it.
        state.is_waited_for = false;
        woken
    }

    pub(super) fn outcome(&self) -> Option<Result<CommitInfo>> {
        self.state.lock().outcome.clone()
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Result<CommitInfo>> {
        let mut state = self.state.lock();
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A commit that was accepted and is on its way to the disk.
///
/// Wait for it with [`CommitTicket::wait`], or await it: no runtime is needed. Dropping it changes nothing.
#[derive(Debug)]
#[must_use = "the commit goes on without it, but nothing else tells whether it became durable"]
pub struct CommitTicket {
    slot: Arc<Slot>,
    commit: Arc<Commit>,
    info: CommitInfo,
}

impl CommitTicket {
    pub(crate) fn new(slot: Arc<Slot>, commit: Arc<Commit>, info: CommitInfo) -> Self {
        Self { slot, commit, info }
    }

    /// A ticket for what is committed already.
    pub(crate) fn done(commit: Arc<Commit>, info: CommitInfo) -> Self {
        let slot = Arc::new(Slot::default());
        slot.complete(Ok(info));
        Self { slot, commit, info }
    }

    /// Gives what the commit will be called, if it becomes durable.
    #[must_use]
    pub fn info(&self) -> CommitInfo {
        self.info
    }

    /// Tells the outcome, if there is one yet.
    #[must_use]
    pub fn try_wait(&self) -> Option<Result<CommitInfo>> {
        self.slot.outcome()
    }

    /// Waits until the commit is as durable as it was asked to be.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if it may or may not have become durable;
    /// [`StoreFull`](crate::ErrorKind::StoreFull), [`Io`](crate::ErrorKind::Io) or
    /// [`Poisoned`](crate::ErrorKind::Poisoned) if it did not.
    pub fn wait(self) -> Result<CommitInfo> {
        self.commit.drive(&self.slot)
    }
}

impl Future for CommitTicket {
    type Output = Result<CommitInfo>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.slot.poll(context);
        if polled.is_pending() && self.commit.is_inline() {
            // There is no thread that would do it: the one that polls does.
            return Poll::Ready(self.commit.drive(&self.slot));
        }
        polled
    }
}
