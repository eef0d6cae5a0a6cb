//! A store of tasks that wait for each other: their state and all that follows from it; whoever runs them is somebody else.
//!
//! Tasks are [created](Tasks::create) in batches. One can be [claimed](Tasks::claim) when all that it waits for have ended as
//! they should; [rules](Rule) say how many of a sort may be at work, or how much may be left to do. Whoever has one says that it
//! [runs](Tasks::run) and how it [ended](Tasks::finish); then others become ready, or fail, or are called off because nobody
//! is left who waits for them. What the layer above is to carry out then lies in an [outbox](Tasks::outbox), put there by the
//! same commit.
//!
//! ```
//! use larder::Options;
//! use larder_layers::tasks::{TaskDraft, TaskOutcome, Tasks, TasksError};
//!
//! let ana = Options::new().open_in_memory()?.session("ana")?;
//! let tasks = Tasks::at("tasks")?;
//! let batch = [
//!     TaskDraft::new("fetch", "fetch the sources", "io"),
//!     TaskDraft::new("build", "build them", "cpu").after_success_of("fetch"),
//! ];
//! ana.try_write(|txn| tasks.create(txn, &batch))?;
//!
//! while let Some(claimed) = ana.try_write(|txn| tasks.claim(txn))?.value {
//!     ana.try_write(|txn| tasks.run(txn, claimed.token()))?;
//!     // ... do it ...
//!     ana.try_write(|txn| {
//!         txn.put("log.txt", claimed.task.name.clone())?;
//!         tasks.finish(txn, claimed.token(), &TaskOutcome::Success)
//!     })?;
//! }
//! assert_eq!(ana.read(|view| view.get("log.txt"))?.bytes()?, "build them");
//! # Ok::<(), TasksError>(())
//! ```
//!
//! # What is kept where
//!
//! Below the key of the store: `tasks`, with a row for each task, one for what hardly ever changes of it, and one for each
//! attempt that failed; `links`, a graph; `groups`, of which rules ask how many members they have; `outbox`; `flushes`.
//!
//! # Invariants
//!
//! 1. A task waits for as many others as it has links from tasks that are not over; a test counts them.
//! 2. A status changes by comparison with the one it was, in the transaction that read it; what follows is in the same one.
//! 3. Whoever shows a token that is not the task's last one changes nothing.

mod act;
mod count;
mod create;
mod draft;
mod error;
mod groups;
mod keep;
mod look;
mod settle;
mod task;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder::{
    AggregateDefinition, CollectionDefinition, IndexDefinition, IntoKey, Key, Record, RowCursor, WriteTxn,
};
use parking_lot::Mutex;

pub use act::{Blocked, ClaimedTask, Finished, Swept, TaskClaim, TaskOutcome};
pub use count::{Counted, Counts};
pub use create::{Created, CreatedTask};
pub use draft::{
    Action, KIND_LENGTH_MAX, METADATA_LENGTH_MAX, Matcher, NAME_LENGTH_MAX, PRIORITY_MAX, Rule, TIMEOUT_MAX,
    TaskDraft, Trigger,
};
pub use error::{Problem, TasksError};
pub use look::{Link, TaskFilter, TaskPage, TaskStats, WhyNot};
pub use settle::Settled;
pub use task::{Task, TaskAttempt, TaskBody, TaskId, TaskStatus, TaskToken};

use crate::once::Decisions;
use crate::outbox::Outbox;

/// The result of an operation of a store of tasks.
type Result<T> = std::result::Result<T, TasksError>;

/// The label of the edges between tasks.
const LINK: u32 = 1;
/// How long whoever claims a task has to say that it runs, if nothing else is said.
const CLAIM_TIME: Duration = Duration::from_secs(30);

/// What an application demands of tasks that are to be created: the field that is wrong, and how.
type Check = dyn Fn(&TaskDraft) -> std::result::Result<(), (&'static str, String)> + Send + Sync;

/// Tasks below a key. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    key: Key,
    rows: Key,
    links: Key,
    groups: Key,
    flushes: Decisions,
    outbox: Outbox,
    claim_time: Duration,
    check: Option<Arc<Check>>,
    /// Where the last claim stopped that passed over many that were blocked, and in which collection.
    behind: Arc<Mutex<Option<(Record, RowCursor)>>>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("key", &self.key).finish_non_exhaustive()
    }
}

fn definition() -> CollectionDefinition {
    let one = |status: TaskStatus| [status.number()];
    let begun = [TaskStatus::Claimed, TaskStatus::Running].map(TaskStatus::number);
    let over = [TaskStatus::Success, TaskStatus::Failure, TaskStatus::Canceled].map(TaskStatus::number);
    CollectionDefinition::new()
        .index(IndexDefinition::new("ready").by_descending("p").by("c").only("y", [true]))
        .index(IndexDefinition::new("delayed").by("t").only("s", one(TaskStatus::Pending)))
        .index(IndexDefinition::new("due").by("t").only("s", begun))
        .index(IndexDefinition::new("state").by("s").by("k"))
        .index(IndexDefinition::new("kind").by("k"))
        .index(IndexDefinition::new("batch").by("b").by("k"))
        .index(IndexDefinition::new("ended").by("e").only("s", over))
        .aggregate(AggregateDefinition::new("status").group_by("s"))
        .aggregate(AggregateDefinition::new("kind").group_by("k").group_by("s"))
        .aggregate(AggregateDefinition::new("batch").group_by("b").group_by("s"))
        .aggregate(AggregateDefinition::new("successes").sum("a"))
        .aggregate(AggregateDefinition::new("failures").sum("f"))
        .aggregate(AggregateDefinition::new("expected").sum("x"))
        .aggregate(AggregateDefinition::new("batch successes").group_by("b").sum("a"))
        .aggregate(AggregateDefinition::new("batch failures").group_by("b").sum("f"))
        .aggregate(AggregateDefinition::new("batch expected").group_by("b").sum("x"))
}

impl Tasks {
    /// Names the key that everything lies below. Stores below different keys know nothing of each other.
    ///
    /// # Errors
    /// [`InvalidKey`](larder::ErrorKind::InvalidKey).
    pub fn at(key: impl IntoKey) -> larder::Result<Self> {
        let key = key.into_key()?;
        let below = |name: &str| Ok::<Key, larder::Error>(key.join(name)?);
        Ok(Self {
            rows: below("tasks")?,
            links: below("links")?,
            groups: below("groups")?,
            flushes: Decisions::at(below("flushes")?)?,
            outbox: Outbox::at(below("outbox")?)?,
            claim_time: CLAIM_TIME,
            check: None,
            behind: Arc::default(),
            key,
        })
    }

    /// Says how long whoever claims a task has to say that it runs: 30 s, if nothing is said.
    #[must_use]
    pub fn claim_time(self, time: Duration) -> Self {
        Self { claim_time: time, ..self }
    }

    /// Demands more of tasks that are to be created; what is refused is told with everything else that is wrong.
    #[must_use]
    pub fn check(
        self,
        check: impl Fn(&TaskDraft) -> std::result::Result<(), (&'static str, String)> + Send + Sync + 'static,
    ) -> Self {
        Self { check: Some(Arc::new(check)), ..self }
    }

    /// Gives the key that everything lies below.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Gives what is to be carried out because of tasks: an effect's key is the task, the [trigger](Trigger)'s name, the
    /// attempt and a number; its payload are the action's parameters, as JSON.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn task_in(&self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<Task> {
        let row = match crate::place::found(txn.collection(&self.rows))? {
            Some(rows) => rows.get(id)?,
            None => None,
        };
        Task::of(&row.ok_or(TasksError::NoSuchTask { task: id })?)
    }

    fn body_in(&self, txn: &mut WriteTxn<'_>, id: TaskId) -> Result<TaskBody> {
        let row = txn.collection(&self.rows)?.get(task::body_key(id))?;
        row.map_or_else(|| Ok(TaskBody::default()), |row| TaskBody::decode(id, row.value()))
    }
}
