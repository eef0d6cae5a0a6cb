//! Batches of tasks on their way in: all of a batch, or nothing.

use std::collections::BTreeMap;

use larder::{Graph, Part, RowDraft, WriteTxn, graph_definition};
use serde_json::{Map, Value};

use super::draft::{On, check_matcher, check_rules, problems};
use super::groups::{self, Shapes};
use super::settle::Work;
use super::task::{Task, TaskBody, body_key, id_of};
use super::{LINK, Matcher, Problem, Result, Rule, TaskDraft, TaskId, TaskStatus, Tasks, TasksError};
use crate::place::open;

/// The most tasks of a batch.
const BATCH_MAX: usize = 100_000;

/// What became of a task of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum CreatedTask {
    /// It was created, under this number.
    New(TaskId),
    /// It was not, because this one matches.
    Skipped(TaskId),
}

impl CreatedTask {
    /// Gives the task that was created, or is there instead.
    #[must_use]
    pub fn id(&self) -> TaskId {
        match self {
            Self::New(id) | Self::Skipped(id) => *id,
        }
    }
}

/// A batch that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Created {
    /// Its number.
    pub batch: u64,
    /// What became of each task, in the order in which they were given.
    pub tasks: Vec<CreatedTask>,
}

/// The tasks that are to be created by what matchers ask for: the last of each group.
#[derive(Default)]
struct ByGroup(BTreeMap<Matcher, (usize, BTreeMap<Part, TaskId>)>);

impl ByGroup {
    /// Finds the last one that matches; of those that were planned since the last time, it takes note.
    fn find(
        &mut self,
        matcher: &Matcher,
        metadata: &Map<String, Value>,
        planned: &[Planned<'_>],
    ) -> Option<TaskId> {
        let (known, groups) = self.0.entry(matcher.clone()).or_default();
        for one in planned.get(*known..).unwrap_or_default() {
            if one.task.kind == matcher.kind
                && one.task.counts_as(matcher.status)
                && let Some(group) = groups::values_of(matcher, &one.draft.metadata)
            {
                groups.insert(group, one.task.id);
            }
        }
        *known = planned.len();
        groups.get(&groups::values_of(matcher, metadata)?).copied()
    }
}

/// A task that is to be created, and whom it waits for.
struct Planned<'d> {
    task: Task,
    draft: &'d TaskDraft,
    parents: BTreeMap<TaskId, bool>,
}

impl Tasks {
    /// Creates tasks, which may wait for earlier ones of them: all, or none.
    ///
    /// A task that is not created because another one matches is that one for those that wait for it. When a matcher asks for
    /// something for the first time, all tasks that have it become known for it, which takes as long as there are such tasks.
    ///
    /// # Errors
    /// [`Invalid`](TasksError::Invalid) with everything that is wrong with any of them;
    /// [`NoSuchTask`](TasksError::NoSuchTask) for what one waits for; [`Store`](TasksError::Store).
    pub fn create(&self, txn: &mut WriteTxn<'_>, batch: &[TaskDraft]) -> Result<Created> {
        let mut wrong = problems(batch);
        if let Some(check) = &self.check {
            for (index, draft) in batch.iter().enumerate() {
                if let Err((field, message)) = check(draft) {
                    wrong.push(Problem { index, field, message });
                }
            }
        }
        if batch.len() > BATCH_MAX {
            let message = format!("expected at most {BATCH_MAX} tasks, got {}", batch.len());
            wrong = vec![Problem { index: BATCH_MAX, field: "batch", message }];
        }
        if !wrong.is_empty() {
            return Err(TasksError::Invalid { problems: wrong });
        }
        let number = txn.unique_number();
        let mut shapes = Shapes::default();
        drop(open(txn, &self.rows, super::definition)?);
        drop(open(txn, &self.links, graph_definition)?);
        // First what becomes of each; nothing of the batch is written before all of that is known.
        let (mut planned, mut by_group): (Vec<Planned<'_>>, _) = (Vec::new(), ByGroup::default());
        let mut created = Vec::with_capacity(batch.len());
        let mut ids: BTreeMap<&str, TaskId> = BTreeMap::new();
        for (index, draft) in batch.iter().enumerate() {
            let one = match self.match_of(txn, &mut shapes, draft, (&planned, &mut by_group))? {
                Some(id) => CreatedTask::Skipped(id),
                None => {
                    let one = self.plan(txn, &ids, (index, draft), &planned, &mut wrong)?;
                    let id = one.task.id;
                    planned.push(one);
                    CreatedTask::New(id)
                }
            };
            ids.insert(&draft.local, one.id());
            created.push(one);
        }
        if !wrong.is_empty() {
            return Err(TasksError::Invalid { problems: wrong });
        }
        for mut one in planned {
            one.task.batch = number;
            self.create_one(txn, &mut shapes, one)?;
        }
        Ok(Created { batch: number, tasks: created })
    }

    /// Finds a task that is there already, or is to be created before this one.
    fn match_of(
        &self,
        txn: &mut WriteTxn<'_>,
        shapes: &mut Shapes,
        draft: &TaskDraft,
        (planned, by_group): (&[Planned<'_>], &mut ByGroup),
    ) -> Result<Option<TaskId>> {
        for matcher in &draft.dedupe {
            if let Some(id) = by_group.find(matcher, &draft.metadata, planned) {
                return Ok(Some(id));
            }
            shapes.add(self, txn, matcher)?;
            let Some(Ok(group)) = shapes.group(matcher, &draft.metadata) else { continue };
            let mut rows = open(txn, &self.groups, groups::definition)?;
            if let Some(id) = groups::last_member(&mut rows, &group)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Finds out whom a task waits for, and whether it can be created.
    fn plan<'d>(
        &self,
        txn: &mut WriteTxn<'_>,
        ids: &BTreeMap<&str, TaskId>,
        (index, draft): (usize, &'d TaskDraft),
        planned: &[Planned<'_>],
        wrong: &mut Vec<Problem>,
    ) -> Result<Planned<'d>> {
        let id = txn.unique_number();
        let mut task = Task::new(id, 0, draft, txn.info().time);
        // Two that were not created may be the same one: whoever needs either needs it.
        let mut parents: BTreeMap<TaskId, bool> = BTreeMap::new();
        for (on, requires_success) in &draft.after {
            let parent = match on {
                On::Local(local) => ids.get(local.as_str()).copied().unwrap_or(0),
                On::Task(parent) => *parent,
            };
            *parents.entry(parent).or_default() |= *requires_success;
        }
        for (parent, requires_success) in &parents {
            let of_batch = planned.binary_search_by_key(parent, |one| one.task.id);
            let status = match of_batch {
                Ok(_) => TaskStatus::Pending,
                Err(_) => self.task_in(txn, *parent)?.status,
            };
            if *requires_success && matches!(status, TaskStatus::Failure | TaskStatus::Canceled) {
                let message = format!("it needs the task {parent}, which has failed");
                wrong.push(Problem { index, field: "after", message });
            }
            if !status.is_terminal() {
                task.wait_finished += 1;
                task.wait_success += u32::from(*requires_success);
            }
        }
        if task.wait_finished > 0 {
            task.status = TaskStatus::Waiting;
        }
        Ok(Planned { task, draft, parents })
    }

    fn create_one(
        &self,
        txn: &mut WriteTxn<'_>,
        shapes: &mut Shapes,
        Planned { task, draft, parents }: Planned<'_>,
    ) -> Result<()> {
        let id = task.id;
        let body = TaskBody {
            metadata: draft.metadata.clone(),
            actions: draft.actions.clone(),
            rules: draft.rules.clone(),
        };
        let mut rows = txn.collection(&self.rows)?;
        rows.put(id, task.draft())?;
        if body != TaskBody::default() {
            rows.put(body_key(id), body.encode(id)?)?;
        }
        if !parents.is_empty() {
            let mut graph = Graph::over(txn.collection(&self.links)?);
            for (parent, requires_success) in parents {
                graph.connect(LINK, parent, id, link(requires_success))?;
            }
        }
        for rule in &draft.rules {
            shapes.add(self, txn, rule.matcher())?;
        }
        if shapes.read(self, txn, &task.kind)? {
            let mut rows = open(txn, &self.groups, groups::definition)?;
            shapes.change(&mut rows, None, Some((&task, &body)))?;
        }
        Ok(())
    }

    /// Lets a task wait for another one, too, as long as nobody has it.
    ///
    /// # Errors
    /// [`NoSuchTask`](TasksError::NoSuchTask); [`Cycle`](TasksError::Cycle); [`DuplicateLink`](TasksError::DuplicateLink);
    /// [`InvalidState`](TasksError::InvalidState) if the task is not waiting or pending, or if what it needs has failed;
    /// [`Store`](TasksError::Store).
    pub fn link(
        &self,
        txn: &mut WriteTxn<'_>,
        parent: TaskId,
        child: TaskId,
        requires_success: bool,
    ) -> Result<()> {
        let mut work = Work::new(self, txn);
        let status = work.task(txn, parent)?.status;
        let waiting = work.task(txn, child)?;
        if !matches!(waiting.status, TaskStatus::Waiting | TaskStatus::Pending) {
            let (status, expected) = (waiting.status, "waiting or pending");
            return Err(TasksError::InvalidState { task: child, status, expected });
        }
        let mut graph = Graph::over(txn.collection(&self.links)?);
        if let Some(mut path) = graph.path(LINK, child, parent)? {
            path.push(child.into());
            return Err(TasksError::Cycle { path: path.iter().filter_map(id_of).collect() });
        }
        if graph.edge(LINK, parent, child)?.is_some() {
            return Err(TasksError::DuplicateLink { parent, child });
        }
        if requires_success && matches!(status, TaskStatus::Failure | TaskStatus::Canceled) {
            return Err(TasksError::InvalidState {
                task: parent,
                status,
                expected: "one that has not failed",
            });
        }
        graph.connect(LINK, parent, child, link(requires_success))?;
        if !status.is_terminal() {
            waiting.status = TaskStatus::Waiting;
            waiting.wait_finished += 1;
            waiting.wait_success += u32::from(requires_success);
        }
        let _ = work.write(txn)?;
        Ok(())
    }

    /// Gives all tasks of a kind in a batch, as far as they are not over, other rules; gives how many these were.
    ///
    /// # Errors
    /// [`InvalidArgument`](TasksError::InvalidArgument), [`Store`](TasksError::Store).
    pub fn set_rules(&self, txn: &mut WriteTxn<'_>, batch: u64, kind: &str, rules: &[Rule]) -> Result<u64> {
        let mut shapes = Shapes::default();
        let mut problem = None;
        for rule in rules {
            check_matcher(rule.matcher(), &mut |_, message| problem = Some(message));
        }
        let tasks = self.all_of_batch(txn, batch, Some(kind))?;
        let tasks: Vec<Task> = tasks.into_iter().filter(|task| !task.status.is_terminal()).collect();
        for task in &tasks {
            let mut wrong = |_, message: String| problem = Some(format!("task {}: {message}", task.id));
            check_rules(rules, task.expected, &mut wrong);
        }
        if let Some(got) = problem {
            let expected = "rules that can be kept".to_owned();
            return Err(TasksError::InvalidArgument { argument: "rules", expected, got });
        }
        for rule in rules {
            shapes.add(self, txn, rule.matcher())?;
        }
        let count = tasks.len() as u64;
        for task in tasks {
            let body = TaskBody { rules: rules.to_vec(), ..self.body_in(txn, task.id)? };
            txn.collection(&self.rows)?.put(body_key(task.id), body.encode(task.id)?)?;
        }
        Ok(count)
    }
}

fn link(requires_success: bool) -> RowDraft {
    let draft = RowDraft::default();
    if requires_success { draft.field("r", true) } else { draft }
}
