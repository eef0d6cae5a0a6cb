//! What is done with tasks: claimed, run, finished, cancelled, paused, tried again. A token is compared here and nowhere else.

use std::time::Duration;

use larder::{Direction, Micros, ReadTxn, RowCursor, RowDraft, RowRange, Rows, WriteTxn};

use super::draft::PRIORITY_MAX;
use super::groups::{self, Shapes};
use super::settle::{Settled, Work};
use super::task::{Task, TaskBody, TaskId, TaskStatus, TaskToken, attempt_key, effect_key, id_of};
use super::{Result, Rule, Tasks, TasksError, Trigger};
use crate::place::{after, cut, found};

/// How many tasks that cannot be claimed now are looked at, at most, for those that can.
const LOOKED_AT_MAX: usize = 1_000;
const PAGE: usize = 100;
/// How many tasks that are due are seen to together, and from how many bytes of changes on the others wait for the next sweep.
const SWEPT_AT_ONCE: usize = 64;
const SWEPT_BYTES_MAX: usize = 16 << 20;
/// How long a task that cannot be ended in a transaction is left alone.
const PUT_OFF: Duration = Duration::from_secs(60);
/// The most bytes of a reason that are kept with an attempt, whose row has room for not much more.
const REASON_LENGTH_MAX: usize = 1_024;
/// Why a task failed that was not heard of in time.
const TIMEOUT: &str = "Timeout";

/// A task that was claimed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClaimedTask {
    /// The task.
    pub task: Task,
    /// Its metadata, its actions and its rules.
    pub body: TaskBody,
}

impl ClaimedTask {
    /// Gives what to show to say something of it.
    #[must_use]
    pub fn token(&self) -> TaskToken {
        self.task.token()
    }
}

/// Why a task cannot be claimed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// So many tasks match already.
    Concurrency {
        /// How many there are.
        count: u64,
        /// How many there may be.
        max: u64,
    },
    /// So much is left to do of those that match.
    Capacity {
        /// How much there is.
        remaining: u64,
        /// How much there may be.
        max: u64,
    },
    /// A rule goes by a field that the task's metadata lack.
    MissingField {
        /// The field.
        field: String,
    },
}

/// What became of a claim on a certain task.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum TaskClaim {
    /// It is the caller's.
    Claimed(Box<ClaimedTask>),
    /// A rule does not allow it now.
    Blocked(Blocked),
    /// It cannot be claimed: it is like this.
    NotPending(TaskStatus),
    /// It cannot be claimed before a time.
    NotBefore(Micros),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskOutcome {
    /// It did what it was to do.
    Success,
    /// It did not, and why.
    Failure(String),
}

/// What became of a task that was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Finished {
    /// It is over, and this followed for others.
    Ended(Settled),
    /// It failed, and can be claimed again from then on.
    RetryAt(Micros),
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[must_use]
pub struct Swept {
    /// How many were claimed and not begun in time, and can be claimed again.
    pub requeued: u64,
    /// How many ran for too long, and have failed or will be tried again.
    pub timed_out: u64,
    /// How many waited for a time that has come.
    pub released: u64,
    /// What followed for others.
    pub settled: Settled,
}

fn wrong_state(task: &Task, expected: &'static str) -> TasksError {
    TasksError::InvalidState { task: task.id, status: task.status, expected }
}

impl Tasks {
    /// Claims the first task that can be: of the greatest priority, and of these the one that was created first.
    ///
    /// # Errors
    /// As [`Tasks::claim_up_to`].
    pub fn claim(&self, txn: &mut WriteTxn<'_>) -> Result<Option<ClaimedTask>> {
        Ok(self.claim_up_to(txn, 1)?.pop())
    }

    /// Claims up to so many tasks, in their order. Whoever has one says in the claim's time that it [runs](Tasks::run), or
    /// finishes it; else others can claim it.
    ///
    /// Rules are looked at in the same transaction, so what they limit is never exceeded. Of tasks that a rule blocks the first
    /// 1 000 are passed over, and if that is not enough 1 000 more, from where the last claim stopped: behind more than that
    /// a claim may come back with less than there is, and the next one finds more. Tasks whose time to wait is over are let in first, as many as are asked for, and 100 at least.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn claim_up_to(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<Vec<ClaimedTask>> {
        let mut claimed = Vec::new();
        let record = found(txn.collection(&self.rows))?.map(|rows| rows.record().clone());
        let Some(record) = record.filter(|_| limit > 0) else { return Ok(claimed) };
        self.release_due(txn, limit.max(PAGE))?;
        let mut shapes = Shapes::default();
        let Some(stopped) = self.claim_from(txn, &mut shapes, None, limit, &mut claimed)? else {
            return Ok(claimed);
        };
        // Whoever is behind many that are blocked has his turn by and by. A place in another collection is none here.
        let behind = self.behind.lock().take().filter(|(of, _)| *of == record);
        let from = behind.map_or(stopped, |(_, from)| from);
        let next = self.claim_from(txn, &mut shapes, Some(from.clone()), limit, &mut claimed)?;
        // With enough from there, there may be more.
        let next = next.or_else(|| (claimed.len() == limit).then_some(from));
        *self.behind.lock() = next.map(|next| (record, next));
        Ok(claimed)
    }

    /// Claims what can be, from a place in the order of tasks on; gives where it stopped, if so many were passed over.
    fn claim_from(
        &self,
        txn: &mut WriteTxn<'_>,
        shapes: &mut Shapes,
        mut from: Option<RowCursor>,
        limit: usize,
        claimed: &mut Vec<ClaimedTask>,
    ) -> Result<Option<RowCursor>> {
        let mut passed_over = 0;
        while passed_over < LOOKED_AT_MAX {
            let size = if from.is_none() { limit.min(PAGE) } else { PAGE };
            let range = from.take().into_iter().fold(RowRange::all().limit(size), RowRange::after);
            let page = txn.collection(&self.rows)?.find("ready", &range)?;
            for row in &page.rows {
                if claimed.len() == limit {
                    return Ok(None);
                }
                let task = Task::of(row)?;
                let body = self.body_in(txn, task.id)?;
                match self.blocked(txn, shapes, &task, &body)? {
                    None => claimed.push(self.claim_one(txn, task, body)?),
                    Some(_) => passed_over += 1,
                }
            }
            let Some(next) = page.next.filter(|_| claimed.len() < limit) else { return Ok(None) };
            from = Some(next);
        }
        Ok(from)
    }

    /// Claims a certain task.
    ///
    /// # Errors
    /// [`NoSuchTask`](TasksError::NoSuchTask), [`Store`](TasksError::Store).
    pub fn claim_task(&self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<TaskClaim> {
        let now = txn.info().time;
        let task = self.task_in(txn, id)?;
        if task.status != TaskStatus::Pending {
            return Ok(TaskClaim::NotPending(task.status));
        }
        if let Some(time) = task.until.filter(|time| *time > now) {
            return Ok(TaskClaim::NotBefore(time));
        }
        let body = self.body_in(txn, id)?;
        match self.blocked(txn, &mut Shapes::default(), &task, &body)? {
            Some(blocked) => Ok(TaskClaim::Blocked(blocked)),
            None => Ok(TaskClaim::Claimed(Box::new(self.claim_one(txn, task, body)?))),
        }
    }

    fn claim_one(&self, txn: &mut WriteTxn<'_>, task: Task, body: TaskBody) -> Result<ClaimedTask> {
        let fence = txn.unique_number();
        let mut work = Work::new(self, txn);
        let now = work.now();
        let task = work.take(task);
        (task.status, task.fence, task.updated) = (TaskStatus::Claimed, fence, now);
        task.until = Some(after(now, self.claim_time));
        task.attempts = task.attempts.saturating_add(1);
        let task = task.clone();
        work.trigger(&task, Trigger::Start);
        let _ = work.write(txn)?;
        Ok(ClaimedTask { task, body })
    }

    /// Takes back what would start a task that nobody has any more, as far as nobody is at it.
    pub(super) fn withdraw_starts(&self, txn: &mut WriteTxn<'_>, (id, attempt): (TaskId, u32)) -> Result<()> {
        let body = self.body_in(txn, id)?;
        let starts = body.actions.iter().filter(|action| action.trigger == Trigger::Start);
        for (number, _) in (1..).zip(starts) {
            self.outbox.withdraw(txn, effect_key(id, attempt, Trigger::Start, number))?;
        }
        Ok(())
    }

    /// Tells which rule does not let a task be claimed.
    fn blocked(
        &self,
        txn: &mut WriteTxn<'_>,
        shapes: &mut Shapes,
        task: &Task,
        body: &TaskBody,
    ) -> Result<Option<Blocked>> {
        for rule in &body.rules {
            shapes.read(self, txn, &rule.matcher().kind)?;
            let group = match shapes.group(rule.matcher(), &body.metadata) {
                Some(Ok(group)) => group,
                Some(Err(field)) => return Ok(Some(Blocked::MissingField { field })),
                None => continue,
            };
            let Some(mut rows) = found(txn.collection(&self.groups))? else { continue };
            if let Some(blocked) = blocked_by(rule, task, groups::members(&mut rows, &group)?) {
                return Ok(Some(blocked));
            }
        }
        Ok(None)
    }

    /// Finds a task that is still whose who shows this token.
    fn held(&self, work: &mut Work<'_>, txn: &mut WriteTxn<'_>, token: TaskToken) -> Result<Task> {
        let task = work.task(txn, token.task)?;
        if task.fence != token.fence || token.fence == 0 {
            return Err(TasksError::Fenced { task: token.task });
        }
        if !task.status.is_begun() {
            return Err(wrong_state(task, "claimed or running"));
        }
        Ok(task.clone())
    }

    /// Says that a task that was claimed runs: its time begins.
    ///
    /// # Errors
    /// [`Fenced`](TasksError::Fenced); [`InvalidState`](TasksError::InvalidState) if it is not claimed;
    /// [`NoSuchTask`](TasksError::NoSuchTask); [`Store`](TasksError::Store).
    pub fn run(&self, txn: &mut WriteTxn<'_>, token: TaskToken) -> Result<()> {
        let mut work = Work::new(self, txn);
        let task = self.held(&mut work, txn, token)?;
        if task.status != TaskStatus::Claimed {
            return Err(wrong_state(&task, "claimed"));
        }
        let now = work.now();
        let task = work.task(txn, token.task)?;
        (task.status, task.started, task.updated) = (TaskStatus::Running, Some(now), now);
        task.until = Some(after(now, task.timeout));
        work.write(txn).map(drop)
    }

    /// Says that somebody is still at a task: its time, or that of the claim, begins anew. Gives when it is over.
    ///
    /// # Errors
    /// As [`Tasks::run`].
    pub fn heartbeat(&self, txn: &mut WriteTxn<'_>, token: TaskToken) -> Result<Micros> {
        let mut work = Work::new(self, txn);
        let task = self.held(&mut work, txn, token)?;
        let (now, time) = (work.now(), self.time_of(&task));
        let until = after(now, time);
        let task = work.task(txn, token.task)?;
        (task.until, task.updated) = (Some(until), now);
        let _ = work.write(txn)?;
        Ok(until)
    }

    fn time_of(&self, task: &Task) -> Duration {
        if task.status == TaskStatus::Running { task.timeout } else { self.claim_time }
    }

    /// Finishes a task that was claimed, and tells all that wait for it: those that need its success fail if it has failed,
    /// and those that need them; the others wait for one less. Tasks that now have nobody after them who is not over are
    /// called off.
    ///
    /// A failure that may be tried again leaves it pending, and tells nobody.
    ///
    /// # Errors
    /// As [`Tasks::run`]; [`InvalidArgument`](TasksError::InvalidArgument) for a failure without a reason.
    pub fn finish(
        &self,
        txn: &mut WriteTxn<'_>,
        token: TaskToken,
        outcome: &TaskOutcome,
    ) -> Result<Finished> {
        if let TaskOutcome::Failure(reason) = outcome
            && reason.trim().is_empty()
        {
            let (expected, got) = ("a reason of the failure".to_owned(), "none".to_owned());
            return Err(TasksError::InvalidArgument { argument: "outcome", expected, got });
        }
        let mut work = Work::new(self, txn);
        let task = self.held(&mut work, txn, token)?;
        match outcome {
            TaskOutcome::Success => {
                work.end(txn, task.id, TaskStatus::Success, None, &[Trigger::Success])?;
            }
            TaskOutcome::Failure(reason) => {
                if let Some(at) = self.fail(&mut work, txn, &task, reason, &[Trigger::Failure])? {
                    let _ = work.write(txn)?;
                    return Ok(Finished::RetryAt(at));
                }
            }
        }
        Ok(Finished::Ended(work.write(txn)?))
    }

    /// Lets a task that somebody had be tried again, or fail; gives from when on it can be claimed.
    fn fail(
        &self,
        work: &mut Work<'_>,
        txn: &mut WriteTxn<'_>,
        task: &Task,
        reason: &str,
        triggers: &[Trigger],
    ) -> Result<Option<Micros>> {
        let now = work.now();
        if task.retry.retries_max > 0 {
            let mut draft = RowDraft::default().field("e", now).field("r", cut(reason, REASON_LENGTH_MAX));
            if let Some(started) = task.started {
                draft = draft.field("g", started);
            }
            txn.collection(&self.rows)?.put(attempt_key(task.id, task.attempts), draft)?;
        }
        work.task(txn, task.id)?.tries_failed = task.tries_failed.saturating_add(1);
        if task.tries_failed >= task.retry.retries_max {
            work.end(txn, task.id, TaskStatus::Failure, Some(reason), triggers)?;
            return Ok(None);
        }
        // What was begun outside for this attempt is called off.
        if triggers.contains(&Trigger::Cancel) {
            work.trigger(task, Trigger::Cancel);
        }
        let at = after(now, task.retry.backoff.wait(task.tries_failed.saturating_add(1)));
        let task = work.task(txn, task.id)?;
        (task.status, task.fence, task.updated) = (TaskStatus::Pending, 0, now);
        (task.started, task.until) = (None, Some(at).filter(|at| *at > now));
        task.set_reason(reason);
        Ok(Some(at))
    }

    /// Calls a task off that is pending, paused, claimed or running. Those after it are told as if it had failed; tasks before
    /// it that now have nobody after them who is not over are called off too, and those before these, up to a
    /// [barrier](super::TaskDraft::barrier), with it.
    ///
    /// # Errors
    /// [`InvalidState`](TasksError::InvalidState) if it waits for others, or is over;
    /// [`NoSuchTask`](TasksError::NoSuchTask); [`Store`](TasksError::Store).
    pub fn cancel(&self, txn: &mut WriteTxn<'_>, id: TaskId, reason: &str) -> Result<Settled> {
        let mut work = Work::new(self, txn);
        let task = work.task(txn, id)?;
        if task.status == TaskStatus::Waiting || task.status.is_terminal() {
            return Err(wrong_state(task, "pending, paused, claimed or running"));
        }
        work.end(txn, id, TaskStatus::Canceled, Some(reason), &[Trigger::Cancel])?;
        work.write(txn)
    }

    /// Lets a task neither be claimed nor time out, until it is resumed. What it waits for is counted all the same; whoever
    /// has it keeps it, and can say nothing of it meanwhile.
    ///
    /// # Errors
    /// [`InvalidState`](TasksError::InvalidState) if it is paused or over; as [`Tasks::cancel`].
    pub fn pause(&self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<()> {
        let mut work = Work::new(self, txn);
        let now = work.now();
        let task = work.task(txn, id)?;
        if task.status == TaskStatus::Paused || task.status.is_terminal() {
            return Err(wrong_state(task, "waiting, pending, claimed or running"));
        }
        task.paused_from = Some(task.status);
        (task.status, task.updated) = (TaskStatus::Paused, now);
        if task.paused_from.is_some_and(TaskStatus::is_begun) {
            task.until = None;
        }
        work.write(txn).map(drop)
    }

    /// Lets a task go on that was paused: as it was, in its original place, with all of its time before it. One that was
    /// claimed and did not run yet can be claimed again.
    ///
    /// # Errors
    /// [`InvalidState`](TasksError::InvalidState) if it is not paused; as [`Tasks::cancel`].
    pub fn resume(&self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<TaskStatus> {
        let mut work = Work::new(self, txn);
        let now = work.now();
        let task = work.task(txn, id)?;
        let (TaskStatus::Paused, Some(was)) = (task.status, task.paused_from.take()) else {
            return Err(wrong_state(task, "paused"));
        };
        task.updated = now;
        task.status = match was {
            TaskStatus::Claimed => TaskStatus::Pending,
            was => was,
        };
        match task.status {
            TaskStatus::Running => task.until = Some(after(now, task.timeout)),
            TaskStatus::Pending => {
                task.fence = 0;
                task.until = task.until.filter(|time| *time > now);
            }
            _ => {}
        }
        let (status, resumed) = (task.status, task.clone());
        if was == TaskStatus::Claimed && resumed.has_actions {
            self.withdraw_starts(txn, (id, resumed.attempts))?;
        }
        let _ = work.write(txn)?;
        Ok(status)
    }

    /// Lets a task that has failed or was called off be claimed again, if all that wait for it still do, and all that it needs
    /// have not failed; as soon as those that it waits for have ended. It may be retried as often as before.
    ///
    /// # Errors
    /// [`ChildrenEnded`](TasksError::ChildrenEnded); [`InvalidState`](TasksError::InvalidState) if it has not failed, or what
    /// it needs has; [`NoSuchTask`](TasksError::NoSuchTask); [`Store`](TasksError::Store).
    pub fn retry(&self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<()> {
        let mut work = Work::new(self, txn);
        let now = work.now();
        let task = work.task(txn, id)?;
        if !matches!(task.status, TaskStatus::Failure | TaskStatus::Canceled) {
            return Err(wrong_state(task, "one that has failed or was called off"));
        }
        let (mut wait_finished, mut wait_success) = (0, 0);
        for (parent, requires_success) in work.linked(txn, id, Direction::Up)? {
            let parent = work.task(txn, parent)?;
            if !parent.status.is_terminal() {
                wait_finished += 1;
                wait_success += u32::from(requires_success);
            } else if requires_success && parent.status != TaskStatus::Success {
                return Err(wrong_state(parent, "one that has succeeded, or has not ended"));
            }
        }
        let mut count = 0;
        for (child, requires_success) in work.linked(txn, id, Direction::Down)? {
            let child = work.task(txn, child)?;
            let is_ready = child.status == TaskStatus::Pending;
            if !is_ready && !child.is_waiting() && child.paused_from != Some(TaskStatus::Pending) {
                count += 1;
            }
            child.wait_finished += 1;
            child.wait_success += u32::from(requires_success);
            if is_ready {
                child.status = TaskStatus::Waiting;
            }
            child.paused_from = child.paused_from.map(|_| TaskStatus::Waiting);
        }
        if count > 0 {
            return Err(TasksError::ChildrenEnded { task: id, count });
        }
        let task = work.task(txn, id)?;
        (task.updated, task.ended, task.started, task.tries_failed) = (now, None, None, 0);
        (task.wait_finished, task.wait_success) = (wait_finished, wait_success);
        task.status = if wait_finished > 0 { TaskStatus::Waiting } else { TaskStatus::Pending };
        work.write(txn).map(drop)
    }

    /// Sets the priority of a task that is not over: it is claimed in its new place from then on.
    ///
    /// # Errors
    /// [`InvalidArgument`](TasksError::InvalidArgument); [`InvalidState`](TasksError::InvalidState);
    /// [`NoSuchTask`](TasksError::NoSuchTask); [`Store`](TasksError::Store).
    pub fn set_priority(&self, txn: &mut WriteTxn<'_>, id: TaskId, priority: i32) -> Result<()> {
        if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
            let expected = format!("-{PRIORITY_MAX} to {PRIORITY_MAX}");
            return Err(TasksError::InvalidArgument {
                argument: "priority",
                expected,
                got: priority.to_string(),
            });
        }
        let mut work = Work::new(self, txn);
        let task = work.task(txn, id)?;
        if task.status.is_terminal() {
            return Err(wrong_state(task, "one that is not over"));
        }
        task.priority = priority;
        work.write(txn).map(drop)
    }

    /// Sees to what is due, of each kind at most `limit`, and no more than fits well into a transaction: tasks that were claimed
    /// and not begun in time can be claimed again, those that ran for too long have failed, or are tried again, and those that
    /// wait for a time that has come can be claimed.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn sweep(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<Swept> {
        let mut swept = Swept::default();
        if found(txn.collection(&self.rows))?.is_none() {
            return Ok(swept);
        }
        swept.released = self.release_due(txn, limit)?;
        let now = txn.info().time;
        let due = txn.collection(&self.rows)?.find("due", &RowRange::all().at_most(now).limit(limit))?;
        for rows in due.rows.chunks(SWEPT_AT_ONCE) {
            let ids = || rows.iter().filter_map(|row| id_of(row.key().parts().first()?));
            let (mut work, before) = (Work::new(self, txn), swept);
            for id in ids() {
                self.sweep_one(&mut work, txn, id, &mut swept)?;
            }
            if work.fits(txn)? {
                swept.settled.add(work.write(txn)?);
            } else {
                swept = before;
                self.sweep_apart(txn, ids(), &mut swept)?;
            }
            // What is left is due still.
            if txn.bytes() > SWEPT_BYTES_MAX {
                break;
            }
        }
        Ok(swept)
    }

    /// Sees to tasks one by one, of which so many others change that not all together fit into a transaction. One of which that
    /// is true alone cannot be ended: the others do not wait for it.
    fn sweep_apart(
        &self,
        txn: &mut WriteTxn<'_>,
        ids: impl Iterator<Item = TaskId>,
        swept: &mut Swept,
    ) -> Result<()> {
        for id in ids {
            let (mut work, before) = (Work::new(self, txn), *swept);
            self.sweep_one(&mut work, txn, id, swept)?;
            if !work.fits(txn)? {
                (work, *swept) = (Work::new(self, txn), before);
                let until = after(work.now(), PUT_OFF);
                work.task(txn, id)?.until = Some(until);
            }
            swept.settled.add(work.write(txn)?);
            if txn.bytes() > SWEPT_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    fn sweep_one(
        &self,
        work: &mut Work<'_>,
        txn: &mut WriteTxn<'_>,
        id: TaskId,
        swept: &mut Swept,
    ) -> Result<()> {
        let now = work.now();
        let task = work.task(txn, id)?.clone();
        if task.until.is_none_or(|until| until > now) {
            // It was seen to with another one.
            return Ok(());
        }
        if task.status == TaskStatus::Claimed {
            if task.has_actions {
                self.withdraw_starts(txn, (id, task.attempts))?;
            }
            let task = work.task(txn, id)?;
            (task.status, task.fence, task.until) = (TaskStatus::Pending, 0, None);
            task.updated = now;
            swept.requeued += 1;
        } else if task.status == TaskStatus::Running {
            let triggers = [Trigger::Failure, Trigger::Cancel];
            let _ = self.fail(work, txn, &task, TIMEOUT, &triggers)?;
            swept.timed_out += 1;
        }
        Ok(())
    }

    /// Lets tasks be claimed whose time to wait is over.
    fn release_due(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let now = txn.info().time;
        let mut rows = txn.collection(&self.rows)?;
        let due = rows.find("delayed", &RowRange::all().at_most(now).limit(limit))?.rows;
        for row in &due {
            let task = Task { until: None, ..Task::of(row)? };
            rows.put(task.id, task.draft())?;
        }
        Ok(due.len() as u64)
    }

    /// Tells when there is something to see to next.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn next_due(&self, view: &ReadTxn) -> Result<Option<Micros>> {
        let Some(mut rows) = found(view.collection(&self.rows))? else { return Ok(None) };
        let mut next: Option<Micros> = None;
        for index in ["due", "delayed"] {
            let first = Rows::find(&mut rows, index, &RowRange::all().limit(1))?.rows;
            next = next.into_iter().chain(first.first().and_then(|row| row.integer("t"))).min();
        }
        Ok(next)
    }
}

pub(super) fn blocked_by(rule: &Rule, task: &Task, members: groups::Members) -> Option<Blocked> {
    match rule {
        Rule::Concurrency { max, matcher } => {
            // One of another kind does not add to those that match.
            let limit = if matcher.kind == task.kind { *max } else { max.saturating_add(1) };
            (members.count >= limit).then_some(Blocked::Concurrency { count: members.count, max: *max })
        }
        Rule::Capacity { max, .. } => {
            let remaining = u64::try_from(members.remaining).unwrap_or(0);
            (remaining >= *max).then_some(Blocked::Capacity { remaining, max: *max })
        }
    }
}
