//! What follows when tasks end: those after them become ready or fail, those before them may have become pointless. All of it
//! in one transaction, without recursion, however far it goes; every task is read and written once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use larder::{Direction, Graph, Micros, WriteTxn};

use super::groups::{self, Shapes};
use super::task::{effect_key, id_of};
use super::{LINK, Result, Task, TaskId, TaskStatus, Tasks, TasksError, Trigger};
use crate::outbox::Effect;
use crate::place::open;

/// Why what waits for nothing any more was called off.
const DEAD_END: &str = "All child tasks already terminated";

/// How many tasks are changed in one transaction at most by who sees to what is due: with what each of them may take, that
/// fits into one. Few where it is tested.
const CHANGED_MAX: usize = if cfg!(test) { 250 } else { 50_000 };

/// What became of other tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[must_use]
pub struct Settled {
    /// How many can be claimed now, or from their time on.
    pub readied: u64,
    /// How many failed because one that they needed did.
    pub failed: u64,
    /// How many were called off because all after them had ended.
    pub canceled: u64,
}

impl Settled {
    pub(super) fn add(&mut self, other: Self) {
        self.readied += other.readied;
        self.failed += other.failed;
        self.canceled += other.canceled;
    }
}

/// Tasks in memory, as they were read, and as they are to be written.
pub(super) struct Work<'w> {
    tasks: &'w Tasks,
    now: Micros,
    loaded: BTreeMap<TaskId, (Task, Task)>,
    ended: VecDeque<TaskId>,
    /// Tasks that ended while others before them had not.
    orphaned: Vec<TaskId>,
    effects: Vec<(TaskId, u32, Trigger)>,
    settled: Settled,
}

impl<'w> Work<'w> {
    pub(super) fn new(tasks: &'w Tasks, txn: &WriteTxn<'_>) -> Self {
        Self {
            tasks,
            now: txn.info().time,
            loaded: BTreeMap::new(),
            ended: VecDeque::new(),
            orphaned: Vec::new(),
            effects: Vec::new(),
            settled: Settled::default(),
        }
    }

    pub(super) fn now(&self) -> Micros {
        self.now
    }

    /// Takes up a task that was read.
    pub(super) fn take(&mut self, task: Task) -> &mut Task {
        &mut self.loaded.entry(task.id).or_insert_with(|| (task.clone(), task)).1
    }

    /// Gives a task, to be changed.
    pub(super) fn task(&mut self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<&mut Task> {
        if !self.loaded.contains_key(&id) {
            let task = self.tasks.task_in(txn, id)?;
            self.loaded.insert(id, (task.clone(), task));
        }
        let loaded = self.loaded.get_mut(&id).ok_or(TasksError::NoSuchTask { task: id })?;
        Ok(&mut loaded.1)
    }

    /// Lets what is to be carried out at a moment of a task be carried out.
    pub(super) fn trigger(&mut self, task: &Task, trigger: Trigger) {
        if task.has_actions {
            self.effects.push((task.id, task.attempts, trigger));
        }
    }

    /// Ends a task. What is to be carried out then is only of tasks that somebody had begun.
    pub(super) fn end(
        &mut self,
        txn: &mut WriteTxn<'_>,
        id: TaskId,
        status: TaskStatus,
        reason: Option<&str>,
        triggers: &[Trigger],
    ) -> Result<()> {
        let now = self.now;
        let task = self.task(txn, id)?;
        let was = task.paused_from.unwrap_or(task.status);
        task.status = status;
        (task.updated, task.ended, task.until) = (now, Some(now), None);
        (task.fence, task.paused_from) = (0, None);
        let has_open_parents = std::mem::take(&mut task.wait_finished) > 0;
        task.wait_success = 0;
        if let Some(reason) = reason {
            task.set_reason(reason);
        }
        if was.is_begun() {
            let task = task.clone();
            triggers.iter().for_each(|trigger| self.trigger(&task, *trigger));
        }
        self.ended.push_back(id);
        if has_open_parents {
            self.orphaned.push(id);
        }
        Ok(())
    }

    pub(super) fn linked(
        &self,
        txn: &mut WriteTxn<'_>,
        id: TaskId,
        direction: Direction,
    ) -> Result<Vec<(TaskId, bool)>> {
        let edges = Graph::over(txn.collection(&self.tasks.links)?).edges(LINK, id, direction)?;
        let end = |edge: &larder::Edge| match direction {
            Direction::Down => id_of(&edge.to),
            Direction::Up => id_of(&edge.from),
        };
        Ok(edges.iter().filter_map(|edge| Some((end(edge)?, edge.has("r")))).collect())
    }

    /// Settles what ended, and tells whether what changes with it fits into a transaction.
    pub(super) fn fits(&mut self, txn: &mut WriteTxn<'_>) -> Result<bool> {
        self.settle(txn)?;
        Ok(self.loaded.len() <= CHANGED_MAX)
    }

    /// Tells the tasks after those that ended, and then those before.
    fn settle(&mut self, txn: &mut WriteTxn<'_>) -> Result<()> {
        while let Some(id) = self.ended.pop_front() {
            let is_success = self.task(txn, id)?.status == TaskStatus::Success;
            for (child, requires_success) in self.linked(txn, id, Direction::Down)? {
                self.tell(txn, child, id, is_success, requires_success)?;
            }
        }
        let mut above = BTreeSet::new();
        loop {
            for id in std::mem::take(&mut self.orphaned) {
                above.extend(self.linked(txn, id, Direction::Up)?.into_iter().map(|(parent, _)| parent));
            }
            let Some(id) = above.pop_last() else { break };
            let task = self.task(txn, id)?;
            let is_barrier = task.is_barrier;
            if task.status.is_terminal() || !self.is_dead_end(txn, id)? {
                continue;
            }
            self.end(txn, id, TaskStatus::Canceled, Some(DEAD_END), &[Trigger::Cancel])?;
            self.settled.canceled += 1;
            if is_barrier {
                self.orphaned.clear();
            }
        }
        // Whatever was called off has nobody after it who is not over.
        self.ended.clear();
        Ok(())
    }

    /// Tells a task that one that it waits for has ended.
    fn tell(
        &mut self,
        txn: &mut WriteTxn<'_>,
        child: TaskId,
        parent: TaskId,
        is_success: bool,
        requires_success: bool,
    ) -> Result<()> {
        let now = self.now;
        let task = self.task(txn, child)?;
        if !task.is_waiting() {
            return Ok(());
        }
        task.wait_finished = task.wait_finished.saturating_sub(1);
        if requires_success && !is_success {
            let reason = format!("Required parent task {parent} failed");
            self.settled.failed += 1;
            return self.end(txn, child, TaskStatus::Failure, Some(&reason), &[]);
        }
        if requires_success {
            task.wait_success = task.wait_success.saturating_sub(1);
        }
        task.updated = now;
        if task.wait_finished > 0 {
            return Ok(());
        }
        task.until = task.until.filter(|time| *time > now);
        if task.status == TaskStatus::Waiting {
            task.status = TaskStatus::Pending;
            self.settled.readied += 1;
        } else {
            task.paused_from = Some(TaskStatus::Pending);
        }
        Ok(())
    }

    /// Tells whether everything after a task is over, and there is something.
    fn is_dead_end(&mut self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<bool> {
        let children = self.linked(txn, id, Direction::Down)?;
        for (child, _) in &children {
            if !self.task(txn, *child)?.status.is_terminal() {
                return Ok(false);
            }
        }
        Ok(!children.is_empty())
    }

    /// Settles what ended, and writes what changed.
    pub(super) fn write(mut self, txn: &mut WriteTxn<'_>) -> Result<Settled> {
        self.settle(txn)?;
        let changed: Vec<&(Task, Task)> =
            self.loaded.values().filter(|(before, now)| before != now).collect();
        if changed.is_empty() {
            return Ok(self.settled);
        }
        let mut rows = txn.collection(&self.tasks.rows)?;
        for (_, task) in &changed {
            rows.put(task.id, task.draft())?;
        }
        let mut shapes = Shapes::default();
        for (before, task) in &changed {
            let is_same = before.status == task.status && before.paused_from == task.paused_from;
            if (is_same && before.remaining() == task.remaining())
                || !shapes.read(self.tasks, txn, &task.kind)?
            {
                continue;
            }
            let body = self.tasks.body_in(txn, task.id)?;
            let mut rows = open(txn, &self.tasks.groups, groups::definition)?;
            shapes.change(&mut rows, Some(before), Some((task, &body)))?;
        }
        for (id, attempt, trigger) in std::mem::take(&mut self.effects) {
            if trigger == Trigger::Cancel {
                // Or it would be started after that.
                self.tasks.withdraw_starts(txn, (id, attempt))?;
            }
            let body = self.tasks.body_in(txn, id)?;
            let actions = body.actions.iter().filter(|action| action.trigger == trigger);
            for (number, action) in (1_u32..).zip(actions) {
                let malformed =
                    |error: serde_json::Error| TasksError::Malformed { task: id, what: error.to_string() };
                let payload = serde_json::to_vec(&action.params).map_err(malformed)?;
                let key = effect_key(id, attempt, trigger, number);
                if !self.tasks.outbox.add(txn, Effect::new(key, payload).of(id))? {
                    let what = format!("its effect {} of attempt {attempt} is there already", trigger.name());
                    return Err(TasksError::Malformed { task: id, what });
                }
            }
        }
        Ok(self.settled)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use larder::{Clock, ManualClock, Options};

    use super::super::{TaskDraft, TaskStatus, Tasks};

    /// Of two tasks with 200 after each not both can be ended together here, and one with 300 not at all: nobody waits for it.
    #[test]
    fn what_many_wait_for_is_swept_one_at_a_time_and_stops_nobody() {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let options = Options::new().inline().clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let ana = options.open_in_memory().unwrap().session("ana").unwrap();
        let tasks = Tasks::at("tasks").unwrap();
        let started: Vec<_> = [300, 200, 200, 0]
            .into_iter()
            .map(|children| {
                let first = TaskDraft::new("first", "a", "io").timeout(Duration::from_secs(60));
                let after = (0..children)
                    .map(|child| TaskDraft::new(child.to_string(), "b", "io").after_success_of("first"));
                let batch: Vec<_> = std::iter::once(first).chain(after).collect();
                ana.try_write(|txn| tasks.create(txn, &batch)).unwrap();
                let claimed = ana.try_write(|txn| tasks.claim(txn)).unwrap().value.unwrap();
                ana.try_write(|txn| tasks.run(txn, claimed.token())).unwrap();
                claimed.task.id
            })
            .collect();
        clock.advance(61_000_000);
        let swept = ana.try_write(|txn| tasks.sweep(txn, 100)).unwrap().value;
        assert_eq!((swept.timed_out, swept.settled.failed), (3, 400));
        let view = ana.snapshot().unwrap();
        let statuses: Vec<_> =
            started.iter().map(|id| tasks.get(&view, *id).unwrap().unwrap().status).collect();
        let failed = TaskStatus::Failure;
        assert_eq!(statuses, [TaskStatus::Running, failed, failed, failed]);
        assert_eq!(ana.try_write(|txn| tasks.sweep(txn, 100)).unwrap().value.timed_out, 0);
    }
}
