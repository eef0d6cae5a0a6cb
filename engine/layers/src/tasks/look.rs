//! Looking at tasks.

use larder::{
    Direction, Figures, Graph, Larder, LongestPath, Micros, Part, ReadTxn, Row, RowCursor, RowPage, RowRange,
    Rows,
};
use serde_json::{Map, Value};

use super::act::blocked_by;
use super::task::{attempts_of, body_key, id_of};
use super::{
    Blocked, LINK, Result, Task, TaskAttempt, TaskBody, TaskId, TaskStatus, Tasks, TasksError, groups,
};
use crate::place::{found, text};

/// How many tasks are on a page if nothing is said.
const PAGE_DEFAULT: usize = 50;
/// The most tasks of a page.
const PAGE_MAX: usize = 100;
const NODES_MAX: usize = 1_000_000;

/// Which tasks are asked for: those to which all that is said applies.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct TaskFilter {
    batch: Option<u64>,
    status: Option<TaskStatus>,
    kind: Option<String>,
    name_contains: Option<String>,
    metadata: Map<String, Value>,
    size: Option<usize>,
    skip: u64,
    after: Option<RowCursor>,
}

impl TaskFilter {
    /// Asks for all tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for those of a batch.
    pub fn batch(mut self, batch: u64) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Asks for those of a status.
    pub fn status(mut self, status: TaskStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Asks for those of a kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Asks for those whose name contains a text.
    pub fn name_contains(mut self, text: impl Into<String>) -> Self {
        self.name_contains = Some(text.into());
        self
    }

    /// Asks for those whose metadata have a value in a field.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Asks for so many: 1 to 100; 50 if nothing, or 0, is said.
    pub fn size(mut self, size: usize) -> Self {
        self.size = Some(size).filter(|size| *size > 0);
        self
    }

    /// Asks for the page of this number, from 0. Reads all before it: a [cursor](TaskFilter::after) does not.
    pub fn page(mut self, page: u64) -> Self {
        self.skip = page;
        self
    }

    /// Asks for what is behind a cursor.
    pub fn after(mut self, cursor: RowCursor) -> Self {
        self.after = Some(cursor);
        self
    }

    fn effective_size(&self) -> usize {
        self.size.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX)
    }

    fn admits(&self, task: &Task) -> bool {
        self.batch.is_none_or(|batch| task.batch == batch)
            && self.status.is_none_or(|status| task.status == status)
            && self.kind.as_ref().is_none_or(|kind| task.kind == *kind)
            && self.name_contains.as_ref().is_none_or(|text| task.name.contains(text.as_str()))
    }
}

/// Tasks, in the order in which they were created, or by kind and then in it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<RowCursor>,
}

/// What is known of all tasks, or of those of a batch: without counting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TaskStats {
    /// How many tasks of each status there are; those of which there are none are left out.
    pub statuses: Vec<(TaskStatus, u64)>,
    /// How many of their items succeeded.
    pub successes: i128,
    /// How many of their items failed.
    pub failures: i128,
    /// How many items they are about.
    pub expected: i128,
}

impl TaskStats {
    /// Tells how many tasks of a status there are.
    #[must_use]
    pub fn of(&self, status: TaskStatus) -> u64 {
        self.statuses.iter().find(|(other, _)| *other == status).map_or(0, |(_, count)| *count)
    }

    /// Tells how many tasks there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.statuses.iter().map(|(_, count)| count).sum()
    }
}

/// Who waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Whom it waits for.
    pub parent: TaskId,
    /// Who waits.
    pub child: TaskId,
    /// Whether the parent has to succeed.
    pub requires_success: bool,
}

/// Why a task does not run now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyNot {
    /// It waits for these.
    Waiting(Vec<Link>),
    /// It is not to be claimed before a time.
    NotBefore(Micros),
    /// A rule does not let it be claimed.
    Blocked(Blocked),
    /// Nobody has claimed it; so many are claimed before it.
    NotClaimed {
        /// How many, 1 000 at most.
        before: usize,
    },
    /// It is like this.
    Status(TaskStatus),
}

impl Tasks {
    /// Gives a task, if it is there.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn get(&self, view: &ReadTxn, id: TaskId) -> Result<Option<Task>> {
        let Some(rows) = found(view.collection(&self.rows))? else { return Ok(None) };
        rows.get(id)?.as_ref().map(Task::of).transpose()
    }

    fn existing(&self, view: &ReadTxn, id: TaskId) -> Result<Task> {
        self.get(view, id)?.ok_or(TasksError::NoSuchTask { task: id })
    }

    /// Gives what hardly ever changes of a task.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn body(&self, view: &ReadTxn, id: TaskId) -> Result<TaskBody> {
        let Some(rows) = found(view.collection(&self.rows))? else { return Ok(TaskBody::default()) };
        let row = rows.get(body_key(id))?;
        row.map_or_else(|| Ok(TaskBody::default()), |row| TaskBody::decode(id, row.value()))
    }

    /// Gives the attempts at a task that failed and were to be tried again, the first one first.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn attempts(&self, view: &ReadTxn, id: TaskId) -> Result<Vec<TaskAttempt>> {
        let Some(mut rows) = found(view.collection(&self.rows))? else { return Ok(Vec::new()) };
        let rows = rows.all(None, &attempts_of(id))?;
        let attempt = |row: &Row| {
            let number =
                row.key().parts().last().and_then(id_of).and_then(|number| u32::try_from(number).ok());
            Some(TaskAttempt {
                number: number?,
                started: row.integer("g"),
                ended: row.integer("e")?,
                reason: text(row, "r"),
            })
        };
        Ok(rows.iter().filter_map(attempt).collect())
    }

    /// Gives a page of tasks.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn list(&self, view: &ReadTxn, filter: &TaskFilter) -> Result<TaskPage> {
        let Some(rows) = found(view.collection(&self.rows))? else { return Ok(TaskPage::default()) };
        let size = filter.effective_size();
        let mut skip = filter.skip.saturating_mul(size as u64);
        let (index, range) = match filter {
            TaskFilter { batch: Some(batch), .. } => (Some("batch"), RowRange::all().with(*batch)),
            TaskFilter { status: Some(status), kind: Some(kind), .. } => {
                (Some("state"), RowRange::all().with(status.number()).with(kind.as_str()))
            }
            TaskFilter { status: Some(status), .. } => (Some("state"), RowRange::all().with(status.number())),
            TaskFilter { kind: Some(kind), .. } => (Some("kind"), RowRange::all().with(kind.as_str())),
            // Rows of other sorts have keys that begin with a text.
            _ => (None, RowRange::all().at_most(u64::MAX)),
        };
        let read_from = |cursor: &Option<RowCursor>, limit: usize| {
            let range = range.clone().limit(limit);
            let range = cursor.iter().fold(range, |range, cursor| range.after(cursor.clone()));
            match index {
                Some(index) => rows.find(index, &range),
                None => rows.page(&range),
            }
        };
        let (mut page, mut cursor) = (TaskPage::default(), filter.after.clone());
        loop {
            let RowPage { rows: read, next, .. } = read_from(&cursor, PAGE_MAX)?;
            for (place, row) in (1..).zip(&read) {
                let task = Task::of(row)?;
                if !filter.admits(&task) || !self.has_metadata(view, filter, task.id)? {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                page.tasks.push(task);
                if page.tasks.len() == size {
                    page.next = read_from(&cursor, place)?.next;
                    return Ok(page);
                }
            }
            if next.is_none() {
                return Ok(page);
            }
            cursor = next;
        }
    }

    fn has_metadata(&self, view: &ReadTxn, filter: &TaskFilter, id: TaskId) -> Result<bool> {
        if filter.metadata.is_empty() {
            return Ok(true);
        }
        let body = self.body(view, id)?;
        Ok(filter.metadata.iter().all(|(name, value)| body.metadata.get(name) == Some(value)))
    }

    /// Tells how many tasks there are of each status, and what was counted of them.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn stats(&self, view: &ReadTxn) -> Result<TaskStats> {
        self.stats_of(view, None)
    }

    /// Has the health of a store tell how many tasks there are of each status, under the name of their place.
    pub fn add_health(&self, larder: &Larder) {
        let tasks = self.clone();
        larder.add_health(self.key().as_str(), move |view| -> Result<Figures> {
            let stats = tasks.stats(view)?;
            let figure = |status: TaskStatus| i64::try_from(stats.of(status)).unwrap_or(i64::MAX);
            Ok(TaskStatus::ALL.map(|status| (status.name().to_owned(), figure(status))).into())
        });
    }

    /// Tells how many tasks of a batch there are of each status, and what was counted of them.
    ///
    /// # Errors
    /// [`NoSuchBatch`](TasksError::NoSuchBatch), [`Store`](TasksError::Store).
    pub fn batch_stats(&self, view: &ReadTxn, batch: u64) -> Result<TaskStats> {
        let stats = self.stats_of(view, Some(batch))?;
        if stats.total() == 0 { Err(TasksError::NoSuchBatch { batch }) } else { Ok(stats) }
    }

    fn stats_of(&self, view: &ReadTxn, batch: Option<u64>) -> Result<TaskStats> {
        let Some(rows) = found(view.collection(&self.rows))? else { return Ok(TaskStats::default()) };
        let group: Vec<Part> = batch.into_iter().map(Part::from).collect();
        let sum = |of_all: &str, of_batch: &str| {
            let name = if batch.is_some() { of_batch } else { of_all };
            rows.aggregate(name, &group).map(|aggregate| aggregate.sum)
        };
        let mut stats = TaskStats {
            statuses: Vec::new(),
            successes: sum("successes", "batch successes")?,
            failures: sum("failures", "batch failures")?,
            expected: sum("expected", "batch expected")?,
        };
        for status in TaskStatus::ALL {
            let group = [group.clone(), vec![status.number().into()]].concat();
            let name = if batch.is_some() { "batch" } else { "status" };
            let count = rows.aggregate(name, &group)?.count;
            if count > 0 {
                stats.statuses.push((status, count));
            }
        }
        Ok(stats)
    }

    /// Tells how many tasks of each kind and status there are.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn kinds(&self, view: &ReadTxn) -> Result<Vec<(String, TaskStatus, u64)>> {
        let Some(rows) = found(view.collection(&self.rows))? else { return Ok(Vec::new()) };
        let mut kinds = Vec::new();
        for (group, aggregate) in rows.groups("kind")? {
            if let [Part::String(kind), Part::Integer(status)] = group.parts()
                && let Some(status) = TaskStatus::of_number(i64::try_from(*status).ok())
            {
                kinds.push((kind.clone(), status, aggregate.count));
            }
        }
        Ok(kinds)
    }

    /// Gives all batches of which there are tasks, and how many tasks these are.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn batches(&self, view: &ReadTxn) -> Result<Vec<(u64, u64)>> {
        let Some(rows) = found(view.collection(&self.rows))? else { return Ok(Vec::new()) };
        let mut batches: Vec<(u64, u64)> = Vec::new();
        for (group, aggregate) in rows.groups("batch")? {
            let Some(batch) = group.parts().first().and_then(id_of) else { continue };
            match batches.last_mut() {
                Some((last, count)) if *last == batch => *count += aggregate.count,
                _ => batches.push((batch, aggregate.count)),
            }
        }
        Ok(batches)
    }

    /// Gives whom a task waits for or waited for, or who waits for it.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn links(&self, view: &ReadTxn, id: TaskId, direction: Direction) -> Result<Vec<Link>> {
        let Some(rows) = found(view.collection(&self.links))? else { return Ok(Vec::new()) };
        let edges = Graph::over(rows).edges(LINK, id, direction)?;
        let link = |edge: &larder::Edge| {
            let requires_success = edge.has("r");
            Some(Link { parent: id_of(&edge.from)?, child: id_of(&edge.to)?, requires_success })
        };
        Ok(edges.iter().filter_map(link).collect())
    }

    /// Gives all tasks of a batch, and whom they wait for or waited for, of this batch or another.
    ///
    /// # Errors
    /// [`NoSuchBatch`](TasksError::NoSuchBatch), [`Store`](TasksError::Store).
    pub fn dag(&self, view: &ReadTxn, batch: u64) -> Result<(Vec<Task>, Vec<Link>)> {
        let Some(mut rows) = found(view.collection(&self.rows))? else {
            return Err(TasksError::NoSuchBatch { batch });
        };
        let rows = rows.all(Some("batch"), &RowRange::all().with(batch))?;
        let mut tasks = rows.iter().map(Task::of).collect::<Result<Vec<_>>>()?;
        if tasks.is_empty() {
            return Err(TasksError::NoSuchBatch { batch });
        }
        tasks.sort_by_key(|task| task.id);
        let mut links = Vec::new();
        for task in &tasks {
            links.extend(self.links(view, task.id, Direction::Up)?);
        }
        links.sort();
        Ok((tasks, links))
    }

    /// Gives the longest way through a batch: a task takes as long as it ran, or, if it did not, as `weight` says.
    ///
    /// # Errors
    /// [`NoSuchBatch`](TasksError::NoSuchBatch), [`Store`](TasksError::Store).
    pub fn critical_path(
        &self,
        view: &ReadTxn,
        batch: u64,
        weight: impl Fn(&Task) -> u64,
    ) -> Result<LongestPath> {
        let (tasks, _) = self.dag(view, batch)?;
        let Some(rows) = found(view.collection(&self.links))? else { return Ok(LongestPath::default()) };
        let micros_of = |task: &Task| match (task.started, task.ended) {
            (Some(started), Some(ended)) => u64::try_from(ended - started).unwrap_or(0),
            _ => weight(task),
        };
        let weights: std::collections::BTreeMap<TaskId, u64> =
            tasks.iter().map(|task| (task.id, micros_of(task))).collect();
        let weight = |node: &Part| Ok(id_of(node).and_then(|id| weights.get(&id).copied()).unwrap_or(0));
        let ids = tasks.iter().map(|task| task.id);
        Ok(Graph::over(rows).longest_path(LINK, ids, NODES_MAX, weight)?)
    }

    /// Tells why a task does not run at a time.
    ///
    /// # Errors
    /// [`NoSuchTask`](TasksError::NoSuchTask), [`Store`](TasksError::Store).
    pub fn why_not(&self, view: &ReadTxn, id: TaskId, now: Micros) -> Result<WhyNot> {
        let task = self.existing(view, id)?;
        if task.is_waiting() && task.status != TaskStatus::Paused {
            let mut links = Vec::new();
            for link in self.links(view, id, Direction::Up)? {
                if self.get(view, link.parent)?.is_some_and(|parent| !parent.status.is_terminal()) {
                    links.push(link);
                }
            }
            return Ok(WhyNot::Waiting(links));
        }
        if task.status != TaskStatus::Pending {
            return Ok(WhyNot::Status(task.status));
        }
        if let Some(time) = task.until.filter(|time| *time > now) {
            return Ok(WhyNot::NotBefore(time));
        }
        let body = self.body(view, id)?;
        for rule in &body.rules {
            match groups::view_group(self, view, rule.matcher(), &body.metadata)? {
                Some(Err(field)) => return Ok(WhyNot::Blocked(Blocked::MissingField { field })),
                Some(Ok(members)) => {
                    if let Some(blocked) = blocked_by(rule, &task, members) {
                        return Ok(WhyNot::Blocked(blocked));
                    }
                }
                None => {}
            }
        }
        let Some(mut rows) = found(view.collection(&self.rows))? else {
            return Ok(WhyNot::Status(task.status));
        };
        let first = Rows::find(&mut rows, "ready", &RowRange::all().limit(1_000))?.rows;
        let before =
            first.iter().take_while(|row| row.key().parts().first().and_then(id_of) != Some(id)).count();
        Ok(WhyNot::NotClaimed { before })
    }
}
