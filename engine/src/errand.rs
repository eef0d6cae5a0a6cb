//! Single edits on their way to the sequencer: whoever has the turn does those of all who wait.
//!
//! A closure runs on the thread of its caller. An edit is data, and anybody can carry it out; so a thread whose turn
//! does not come at once leaves its edit as an errand, and sleeps until its commit is done. Whoever gets the turn does
//! all errands that are there, in the order in which they came. Without this, many threads with an edit each would wake
//! one another for every single one.
//!
//! An errand is never left: whoever queues one tries to take the turn afterwards, and whoever ends a turn with errands
//! waiting wakes the first of those who wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::authorizer::Caller;
use crate::commit::{CommitInfo, Durability, Held, Slot, Woken};
use crate::edit::{Change, Condition, Edit, Outcome};
use crate::error::{ErrorKind, Result};
use crate::larder::Shared;
use crate::txn::{Ready, WriteTxn};

/// How many errands one thread does in a row, before another has to.
const DONE_IN_A_ROW: usize = 64;

/// An edit that waits for its turn.
pub(crate) struct Errand {
    caller: Caller,
    durability: Durability,
    work: Mutex<Option<Work>>,
    answer: Mutex<Option<Answer>>,
    /// Done when the commit is, or when there is none.
    slot: Arc<Slot>,
}

/// What is to be done.
pub(crate) struct Work {
    pub(crate) change: Change,
    /// What could be done about it beforehand.
    pub(crate) ready: Option<Ready>,
    pub(crate) conditions: Vec<Condition>,
}

enum Answer {
    /// What became of it, and an earlier commit that it read, if it made none itself.
    Done(Result<(Outcome, CommitInfo, Option<Arc<Slot>>)>),
    Panicked(Box<dyn std::any::Any + Send>),
}

impl Errand {
    pub(crate) fn new(caller: &Caller, durability: Durability, work: Work) -> Arc<Self> {
        Arc::new(Self {
            caller: caller.clone(),
            durability,
            work: Mutex::new(Some(work)),
            answer: Mutex::default(),
            slot: Arc::default(),
        })
    }

    /// Lets the one who waits for it try to take the turn.
    pub(crate) fn offer_turn(&self) {
        self.slot.offer_turn();
    }

    /// Waits until it is done, by this thread or another, and as durable as it was asked to be.
    pub(crate) fn wait(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        wait_max: Duration,
    ) -> Result<(Outcome, CommitInfo)> {
        let sequencer = shared.commit.sequencer();
        sequencer.queue(Arc::clone(self));
        let mut patience = Some(wait_max);
        let outcome = loop {
            if let Some(held) = sequencer.try_enter(self.caller.name(), shared.clock.now()) {
                do_all(shared, held);
                shared.commit.lead_if_free();
            }
            match self.slot.wait_within(patience) {
                Some(Woken::Done(outcome)) => break outcome,
                Some(Woken::ToLead) => shared.commit.lead(),
                Some(Woken::ToTakeTurn) => {}
                None => {
                    if sequencer.withdraw(self) {
                        return Err(sequencer.busy(shared.clock.now(), wait_max).into());
                    }
                    // It is being done: from here on it takes as long as it takes.
                    patience = None;
                }
            }
        };
        match self.answer.lock().take() {
            Some(Answer::Panicked(panic)) => std::panic::resume_unwind(panic),
            Some(Answer::Done(Err(error))) => Err(error),
            Some(Answer::Done(Ok((value, commit, earlier)))) => {
                outcome?;
                if let Some(earlier) = earlier {
                    shared.commit.drive(&earlier)?;
                }
                Ok((value, commit))
            }
            None => Err(outcome.err().unwrap_or_else(|| ErrorKind::Closed.into())),
        }
    }

    /// Does it, in a transaction of its own.
    fn run(&self, shared: &Arc<Shared>, held: Held<'_>) {
        let Some(Work { change, ready, conditions }) = self.work.lock().take() else { return };
        // Held until the answer is there: the commit may be done, and its owner awake, before this thread goes on.
        let mut answer = self.answer.lock();
        let done = shared.commit.check_writable().and_then(|()| {
            let mut txn = WriteTxn::begin(shared, &self.caller, held)?;
            let outcome = match (change, ready) {
                (Change::Put { key, draft }, Some(ready)) => {
                    txn.apply_ready(&key, &draft, ready, &conditions)?
                }
                (change, _) => txn.apply(Edit { change: Ok(change), conditions })?,
            };
            let (commit, slot) = txn.finish(self.durability, "", &self.slot)?;
            Ok((outcome, commit, slot))
        });
        match done {
            // The commit is on its way, and ends the wait.
            Ok((outcome, commit, Some(slot))) if Arc::ptr_eq(&slot, &self.slot) => {
                *answer = Some(Answer::Done(Ok((outcome, commit, None))));
            }
            Ok((outcome, commit, earlier)) => {
                *answer = Some(Answer::Done(Ok((outcome, commit, earlier))));
                self.slot.complete(Ok(commit));
            }
            Err(error) => {
                *answer = Some(Answer::Done(Err(error.clone())));
                self.slot.complete(Err(error));
            }
        }
    }

    /// Hands a panic to the owner.
    fn panicked(&self, panic: Box<dyn std::any::Any + Send>) {
        *self.answer.lock() = Some(Answer::Panicked(panic));
        self.slot.complete(Err(ErrorKind::Closed.into()));
    }
}

/// Does what waits, as long as the turn is this thread's.
fn do_all<'s>(shared: &'s Arc<Shared>, mut held: Held<'s>) {
    for _ in 0..DONE_IN_A_ROW {
        let Some(errand) = shared.commit.sequencer().next_errand() else { return };
        held.go_on();
        let by = errand.caller.name();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| errand.run(shared, held))) {
            // It is its owner's: a hook of the application panicked.
            errand.panicked(panic);
        }
        // Let go of and taken again for every errand: a closure that waits may come in between.
        let Some(again) = shared.commit.sequencer().try_enter(by, shared.clock.now()) else { return };
        held = again;
    }
}
