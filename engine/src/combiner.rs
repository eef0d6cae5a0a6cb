//! Transactions of many threads, made one: one turn, one commit, one wait for the disk.
//!
//! A closure runs on the thread of its caller, one at a time with all others; threads that come with a small one each spend
//! more on taking turns, and on a commit each, than on the work. What may run on any thread can be done by whoever comes first,
//! for all who came meanwhile (D. Hendler et al., "Flat Combining and the Synchronization-Parallelism Tradeoff", SPAA 2010):
//!
//! ```text
//! try_write ─▶ desk ─▶ lead: all that wait, in one transaction ─▶ durable ─▶ hand the lead on, wake each
//!                                 └─ nothing came of it ─▶ each alone, on the thread of its caller
//! ```
//!
//! Invariants
//! 1. What a closure did is there once: it runs again only after the transaction that it ran in came to nothing.
//! 2. Nobody's error is another's: it is the caller's own run that tells him of it.
//! 3. Whoever has the lead hands it on, or nobody waits.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::commit::{CommitInfo, Slot, Woken};
use crate::error::{Error, Result};
use crate::session::{Receipt, Session};
use crate::txn::WriteTxn;

/// The most transactions that are made one.
const TOGETHER_MAX: usize = 256;

/// How often they are tried together, each time without one that failed.
const TRIES_MAX: usize = 4;

/// Write transactions of one principal, from as many threads as there are, those that come at the same time in one commit.
///
/// It is for many threads with small transactions of closures; [`Session::put`] and the other single changes are carried out
/// together without it. Clone the session to have one that does not share its commits.
///
/// ```
/// # fn main() -> larder::Result<()> {
/// # let larder = larder::Options::new().open_in_memory()?;
/// let orders = larder.session("ana")?.combiner();
/// std::thread::scope(|threads| {
///     for table in 1..=8 {
///         let orders = &orders;
///         threads.spawn(move || {
///             orders.write(move |txn| {
///                 let number = txn.unique_number();
///                 txn.put(format!("orders/{number}"), format!("leek soup for table {table}"))
///             })
///         });
///     }
/// });
/// assert_eq!(larder.session("ana")?.list("orders")?.len(), 8);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Combiner {
    session: Session,
    desk: Mutex<Desk>,
}

/// Who waits, in the order in which they came.
#[derive(Default)]
struct Desk {
    waiting: VecDeque<Arc<dyn Job>>,
    has_leader: bool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Combiner {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, desk: Mutex::default() }
    }

    /// Runs a write transaction, with those of others in one commit if there are any, and waits until it is as durable as the
    /// session asks for.
    ///
    /// The closure runs on this thread or on another that calls the same combiner, and sees what the others that are in the
    /// transaction did before it. It runs again if that transaction came to nothing: alone then, on this thread. Only what its
    /// last run did is there, and given back.
    ///
    /// # Errors
    /// As [`Session::write`]: what the closure returns when it runs alone. Others come to nothing only by their own errors.
    pub fn write<R: Send + 'static>(
        &self,
        closure: impl FnMut(&mut WriteTxn<'_>) -> Result<R> + Send + 'static,
    ) -> Result<Receipt<R>> {
        self.try_write(closure)
    }

    /// The same for a closure that has errors of its own type.
    ///
    /// # Errors
    /// As [`Combiner::write`].
    pub fn try_write<R: Send + 'static, E: From<Error> + 'static>(
        &self,
        closure: impl FnMut(&mut WriteTxn<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<Receipt<R>, E> {
        self.session.changing("write", "", || {
            self.session.check_not_nested()?;
            let work = Mutex::new(Work { closure, value: None, errors: PhantomData });
            let ask = Arc::new(Ask { work, slot: Slot::default() });
            let (outcome, lead) = self.wait(&ask)?;
            let mut work = ask.work.lock();
            match work.value.take() {
                Some(value) => Ok(Receipt { value, commit: outcome? }),
                None => {
                    let receipt = self.session.write_now("", &mut work.closure);
                    // Whoever comes meanwhile waits for it, and they are together.
                    drop(lead);
                    receipt
                }
            }
        })
    }

    /// Waits until a job was done with others, or is to be done alone; carries out what waits if nobody else does. Gives the
    /// lead to whoever has it and is the only one.
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) if nobody carries it out in time.
    fn wait<J: Job + 'static>(&self, job: &Arc<J>) -> Result<(Result<CommitInfo>, Option<Lead<'_>>)> {
        let job = Arc::clone(job) as Arc<dyn Job>;
        let mut patience = Some(self.session.patience());
        let mut leads = {
            let mut desk = self.desk.lock();
            desk.waiting.push_back(Arc::clone(&job));
            !std::mem::replace(&mut desk.has_leader, true)
        };
        loop {
            if leads {
                let lead = Lead { combiner: self };
                let mut batch = Batch { jobs: self.take(), outcome: None };
                if batch.jobs.len() == 1 {
                    batch.jobs.clear();
                    return Ok((Ok(CommitInfo::default()), Some(lead)));
                }
                batch.outcome = Some(self.together(&batch.jobs));
                drop(lead);
            }
            match job.slot().wait_within(patience) {
                Some(Woken::Done(outcome)) => return Ok((outcome, None)),
                Some(Woken::ToLead | Woken::ToTakeTurn) => leads = true,
                None if self.withdraw(&job) => return Err(self.session.busy()),
                // It is being carried out: from here on it takes as long as it takes.
                None => (leads, patience) = (false, None),
            }
        }
    }

    /// Takes a job back; tells whether it was still there.
    fn withdraw(&self, job: &Arc<dyn Job>) -> bool {
        let mut desk = self.desk.lock();
        let Some(at) = desk.waiting.iter().position(|other| Arc::ptr_eq(other, job)) else { return false };
        desk.waiting.remove(at);
        drop(desk);
        // It may have been offered the lead just now, and nobody offers it any more.
        if let Some(Woken::ToTakeTurn) = job.slot().wait_within(Some(Duration::ZERO)) {
            drop(Lead { combiner: self });
        }
        true
    }

    /// Takes what waits; the job of whoever has the lead is the first.
    fn take(&self) -> Vec<Arc<dyn Job>> {
        let mut desk = self.desk.lock();
        let count = desk.waiting.len().min(TOGETHER_MAX);
        desk.waiting.drain(..count).collect()
    }

    /// Carries out jobs in one transaction, and waits until it is durable. Which of them are in it, they know themselves.
    fn together(&self, jobs: &[Arc<dyn Job>]) -> Result<CommitInfo> {
        let mut jobs: Vec<&Arc<dyn Job>> = jobs.iter().collect();
        for _ in 0..TRIES_MAX {
            let mut at_work = None;
            let sequenced = catch_unwind(AssertUnwindSafe(|| {
                self.session.sequence("", |txn| {
                    for (at, job) in jobs.iter().enumerate() {
                        at_work = Some(at);
                        if !job.run(txn) {
                            return Err(Error::abort("a transaction that it was to be one with failed"));
                        }
                    }
                    at_work = None;
                    Ok(())
                })
            }));
            if let Ok(Ok(((), commit, slot))) = sequenced {
                // An error from here on is everybody's: what they did may be on the disk.
                return self.session.wait(slot).map(|()| commit);
            }
            jobs.iter().for_each(|job| job.forget());
            // It failed, or panicked; it is its caller's to see how. If it was none of them, the turn did not come, nothing can be
            // written, or together they are too much.
            let Some(at) = at_work else { break };
            jobs.remove(at);
        }
        Ok(CommitInfo::default())
    }
}

/// What is carried out together. Whatever becomes of whoever leads, each is told.
struct Batch {
    jobs: Vec<Arc<dyn Job>>,
    outcome: Option<Result<CommitInfo>>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        let outcome =
            self.outcome.take().unwrap_or_else(|| Err(Error::abort("whoever carried it out panicked")));
        self.jobs.iter().for_each(|job| job.slot().complete(outcome.clone()));
    }
}

/// The lead; handed on to whoever waits longest.
struct Lead<'c> {
    combiner: &'c Combiner,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut desk = self.combiner.desk.lock();
        match desk.waiting.front() {
            Some(next) => next.slot().offer_turn(),
            None => desk.has_leader = false,
        }
    }
}

/// A closure of somebody who waits.
trait Job: Send + Sync {
    /// Carries it out; tells whether it went well.
    fn run(&self, txn: &mut WriteTxn<'_>) -> bool;

    /// Forgets what came of it: the transaction came to nothing.
    fn forget(&self);

    /// Where its caller waits. Done when it was carried out with others, and when it is to be carried out alone.
    fn slot(&self) -> &Slot;
}

struct Ask<F, R, E> {
    work: Mutex<Work<F, R, E>>,
    slot: Slot,
}

struct Work<F, R, E> {
    closure: F,
    /// What it returned in a transaction with others.
    value: Option<R>,
    errors: PhantomData<fn() -> E>,
}

impl<F, R, E> Job for Ask<F, R, E>
where
    F: FnMut(&mut WriteTxn<'_>) -> Result<R, E> + Send,
    R: Send,
{
    fn run(&self, txn: &mut WriteTxn<'_>) -> bool {
        let mut work = self.work.lock();
        work.value = (work.closure)(txn).ok();
        work.value.is_some()
    }

    fn forget(&self) {
        self.work.lock().value = None;
    }

    fn slot(&self) -> &Slot {
        &self.slot
    }
}
