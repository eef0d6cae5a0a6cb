//! A task as it lies in its rows: what changes with every step apart from what hardly ever does.

use std::time::Duration;

use larder::{Micros, Part, Row, RowDraft, RowRange};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Action, Result, Rule, TaskDraft, TasksError, Trigger};
use crate::outbox::Retry;
use crate::place::{after, cut, is_set, number};
use crate::state::states;

/// The number of a task: of two, the one that was created later has the greater one.
pub type TaskId = u64;

/// The most bytes that are kept of a reason.
const REASON_LENGTH_MAX: usize = 500;
/// The first part of the key of what hardly ever changes.
const BODY: &str = "b";
/// The first part of the keys of attempts.
const ATTEMPT: &str = "h";

states! {
    /// How a task is.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    TaskStatus {
        /// It waits for others.
        Waiting => "waiting",
        /// It can be claimed, now or from a time on.
        Pending => "pending",
        /// Somebody has it, and it does not run yet.
        Claimed => "claimed",
        /// It runs.
        Running => "running",
        /// It can neither be claimed nor time out, until it is resumed.
        Paused => "paused",
        /// It has succeeded.
        Success => "success",
        /// It has failed, timed out, or what it needed has.
        Failure => "failure",
        /// It was called off.
        Canceled => "canceled",
    }
}

impl TaskStatus {
    /// Tells whether a task of this status is over.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Canceled)
    }

    /// Tells whether somebody is at it.
    pub(super) fn is_begun(self) -> bool {
        matches!(self, Self::Claimed | Self::Running)
    }
}

impl std::str::FromStr for TaskStatus {
    type Err = TasksError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            TasksError::InvalidArgument {
                argument: "status",
                expected: format!("one of {names}"),
                got: name.chars().take(64).collect(),
            }
        })
    }
}

/// What whoever has a task shows when he says something of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskToken {
    /// The task.
    pub task: TaskId,
    /// A number that nobody else is given.
    pub fence: u64,
}

/// A task: everything about it that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How it is.
    pub status: TaskStatus,
    /// The batch that it was created in.
    pub batch: u64,
    /// Its priority.
    pub priority: i32,
    /// How long it may run without a word.
    pub timeout: Duration,
    /// When it was created.
    pub created: Micros,
    /// When it, or what is counted of it, changed last.
    pub updated: Micros,
    /// When it began to run.
    pub started: Option<Micros>,
    /// When it was over.
    pub ended: Option<Micros>,
    /// From when on it can be claimed, until when somebody has it, or when its time to run is over.
    pub until: Option<Micros>,
    /// How many tasks it waits for.
    pub wait_finished: u32,
    /// How many of them have to succeed.
    pub wait_success: u32,
    /// How many of its items succeeded.
    pub successes: i64,
    /// How many of its items failed.
    pub failures: i64,
    /// How many items it is about.
    pub expected: Option<i64>,
    /// Why it failed or was called off.
    pub reason: Option<String>,
    /// How often it was claimed.
    pub attempts: u32,
    /// Whether what makes tasks before it pointless ends with it.
    pub is_barrier: bool,
    /// How often it failed since it was created, or tried again by hand.
    pub tries_failed: u32,
    /// How it was before it was paused.
    pub paused_from: Option<TaskStatus>,
    pub(super) fence: u64,
    pub(super) has_actions: bool,
    pub(super) retry: Retry,
}

/// What hardly ever changes of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskBody {
    /// The metadata.
    pub metadata: Map<String, Value>,
    /// What is to be carried out.
    pub actions: Vec<Action>,
    /// What must hold for it to be claimed.
    pub rules: Vec<Rule>,
}

pub(super) fn body_key(id: TaskId) -> (&'static str, TaskId) {
    (BODY, id)
}

pub(super) fn attempt_key(id: TaskId, attempt: u32) -> (&'static str, TaskId, u32) {
    (ATTEMPT, id, attempt)
}

/// What an effect of a task is done once under.
pub(super) fn effect_key(id: TaskId, attempt: u32, trigger: Trigger, number: u32) -> Vec<Part> {
    vec![id.into(), trigger.name().into(), attempt.into(), number.into()]
}

/// The range of the keys of attempts of a task.
pub(super) fn attempts_of(id: TaskId) -> RowRange {
    RowRange::all().with(ATTEMPT).with(id)
}

/// Tells which task a node of the graph is, or a part of a key.
pub(super) fn id_of(part: &Part) -> Option<TaskId> {
    match part {
        Part::Integer(id) => u64::try_from(*id).ok(),
        _ => None,
    }
}

impl Task {
    pub(super) fn new(id: TaskId, batch: u64, draft: &TaskDraft, now: Micros) -> Self {
        Self {
            id,
            name: draft.name.clone(),
            kind: draft.kind.clone(),
            status: TaskStatus::Pending,
            batch,
            priority: draft.priority,
            timeout: draft.timeout,
            created: now,
            updated: now,
            started: None,
            ended: None,
            until: draft.start_after.filter(|time| *time > now),
            wait_finished: 0,
            wait_success: 0,
            successes: 0,
            failures: 0,
            expected: draft.expected,
            reason: None,
            attempts: 0,
            is_barrier: draft.is_barrier,
            tries_failed: 0,
            fence: 0,
            paused_from: None,
            has_actions: !draft.actions.is_empty(),
            retry: draft.retry,
        }
    }

    /// Gives what to show to say something of it, if somebody has it.
    #[must_use]
    pub fn token(&self) -> TaskToken {
        TaskToken { task: self.id, fence: self.fence }
    }

    /// Gives how many items are left, of those that it is about.
    #[must_use]
    pub fn remaining(&self) -> i64 {
        let done = self.successes.saturating_add(self.failures);
        self.expected.unwrap_or(0).saturating_sub(done).max(0)
    }

    /// Tells whether it waits for others, or would if it were resumed.
    pub(super) fn is_waiting(&self) -> bool {
        self.status == TaskStatus::Waiting || self.paused_from == Some(TaskStatus::Waiting)
    }

    /// Tells whether it is what a matcher asks for: one that is claimed is at work, and so is one that was when it was paused.
    pub(super) fn counts_as(&self, asked: TaskStatus) -> bool {
        let is_begun = self.status.is_begun() || self.paused_from.is_some_and(TaskStatus::is_begun);
        asked == self.status || (asked == TaskStatus::Running && is_begun)
    }

    pub(super) fn set_reason(&mut self, reason: &str) {
        self.reason = Some(cut(reason, REASON_LENGTH_MAX).to_owned());
    }

    /// Makes the row.
    pub(super) fn draft(&self) -> RowDraft {
        let numbers = [
            ("s", Some(i64::from(self.status.number()))),
            ("b", i64::try_from(self.batch).ok()),
            ("p", Some(i64::from(self.priority))),
            ("w", Some(after(0, self.timeout))),
            ("c", Some(self.created)),
            ("u", Some(self.updated)),
            ("g", self.started),
            ("e", self.ended),
            ("t", self.until),
            ("i", Some(i64::from(self.wait_finished)).filter(|count| *count > 0)),
            ("j", Some(i64::from(self.wait_success)).filter(|count| *count > 0)),
            ("a", Some(self.successes).filter(|count| *count > 0)),
            ("f", Some(self.failures).filter(|count| *count > 0)),
            ("x", self.expected),
            ("m", Some(i64::from(self.attempts)).filter(|count| *count > 0)),
            ("o", Some(i64::from(self.tries_failed)).filter(|count| *count > 0)),
            ("q", self.paused_from.map(|status| i64::from(status.number()))),
        ];
        let mut draft = RowDraft::default().field("n", self.name.as_str()).field("k", self.kind.as_str());
        for (name, number) in numbers {
            if let Some(number) = number {
                draft = draft.field(name, number);
            }
        }
        if self.fence != 0 {
            draft = draft.field("v", self.fence);
        }
        let flags = [
            ("d", self.is_barrier),
            ("l", self.has_actions),
            // Whoever may be claimed now.
            ("y", self.status == TaskStatus::Pending && self.until.is_none()),
        ];
        for (name, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
            draft = draft.field(name, true);
        }
        if self.retry.retries_max > 0 {
            draft = draft.field("z", self.retry.to_part());
        }
        if let Some(reason) = &self.reason {
            draft = draft.field("r", reason.as_str());
        }
        draft
    }

    /// Reads the row.
    pub(super) fn of(row: &Row) -> Result<Self> {
        let id = row.key().parts().first().and_then(id_of).unwrap_or(0);
        Self::read(row, id)
            .ok_or_else(|| TasksError::Malformed { task: id, what: format!("{:?}", row.fields()) })
    }

    fn read(row: &Row, id: TaskId) -> Option<Self> {
        let count = |name: &str| row.integer(name).map_or(Some(0), |count| u32::try_from(count).ok());
        let time = |micros: i64| u64::try_from(micros).ok().map(Duration::from_micros);
        let retry = row.field("z").as_ref().map_or(Some(Retry::NEVER), Retry::from_part)?;
        Some(Self {
            id,
            name: row.text("n")?.into_owned(),
            kind: row.text("k")?.into_owned(),
            status: TaskStatus::of_number(row.integer("s"))?,
            batch: u64::try_from(row.integer("b")?).ok()?,
            priority: i32::try_from(row.integer("p")?).ok()?,
            timeout: time(row.integer("w")?)?,
            created: row.integer("c")?,
            updated: row.integer("u")?,
            started: row.integer("g"),
            ended: row.integer("e"),
            until: row.integer("t"),
            wait_finished: count("i")?,
            wait_success: count("j")?,
            successes: row.integer("a").unwrap_or(0),
            failures: row.integer("f").unwrap_or(0),
            expected: row.integer("x"),
            reason: row.text("r").map(String::from),
            attempts: count("m")?,
            tries_failed: count("o")?,
            is_barrier: is_set(row, "d"),
            fence: number(row, "v"),
            paused_from: TaskStatus::of_number(row.integer("q")),
            has_actions: is_set(row, "l"),
            retry,
        })
    }
}

impl TaskBody {
    pub(super) fn encode(&self, id: TaskId) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| TasksError::Malformed { task: id, what: error.to_string() })
    }

    pub(super) fn decode(id: TaskId, value: &[u8]) -> Result<Self> {
        serde_json::from_slice(value)
            .map_err(|error| TasksError::Malformed { task: id, what: error.to_string() })
    }
}

/// An attempt at a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskAttempt {
    /// Which one, from 1.
    pub number: u32,
    /// When it began to run, if it did.
    pub started: Option<Micros>,
    /// When it was over.
    pub ended: Micros,
    /// Why it failed.
    pub reason: String,
}
