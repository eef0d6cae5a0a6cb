//! Tasks that are to be created, and what is demanded of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use larder::Micros;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Problem, TaskId, TaskStatus};
use crate::outbox::Retry;

/// The most bytes of a name.
pub const NAME_LENGTH_MAX: usize = 255;
/// The most bytes of a kind.
pub const KIND_LENGTH_MAX: usize = 100;
/// The most bytes of metadata, as JSON.
pub const METADATA_LENGTH_MAX: usize = 64 << 10;
/// The greatest priority; the least is its negative.
pub const PRIORITY_MAX: i32 = 1_000;
/// The longest time that a task may run.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
/// The most bytes of the parameters of all actions of a task, as JSON.
const ACTIONS_LENGTH_MAX: usize = 1 << 20;
/// The most fields of a matcher.
const FIELDS_MAX: usize = 8;
const RETRIES_MAX: u32 = 1_000;

/// When an action is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// When the task was claimed: it is what makes it run.
    Start,
    /// When it has succeeded.
    Success,
    /// When it has failed, or its time was over.
    Failure,
    /// When it is to be called off: it was cancelled, or its time was over, while somebody was at it.
    Cancel,
}

impl Trigger {
    /// Gives the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancel => "cancel",
        }
    }
}

/// Something that the layer above is to carry out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// When.
    pub trigger: Trigger,
    /// What: for whoever carries it out.
    pub params: Value,
}

/// Which tasks are meant: those of a kind and a status, whose metadata have the same values in some fields as the task
/// that asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Matcher {
    /// The status; of running tasks, those that are claimed are some.
    pub status: TaskStatus,
    /// The kind.
    pub kind: String,
    /// The fields.
    pub fields: Vec<String>,
}

/// What must hold for a task to be claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// At most so many tasks match, this one among them if it is of their kind.
    Concurrency {
        /// How many.
        max: u64,
        /// Which.
        matcher: Matcher,
    },
    /// What is left to do of the tasks that match, all together, is less than so much.
    Capacity {
        /// How much.
        max: u64,
        /// Which.
        matcher: Matcher,
    },
}

impl Rule {
    /// Gives which tasks are meant.
    #[must_use]
    pub fn matcher(&self) -> &Matcher {
        match self {
            Self::Concurrency { matcher, .. } | Self::Capacity { matcher, .. } => matcher,
        }
    }
}

/// Whom a task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum On {
    Local(String),
    Task(TaskId),
}

/// A task that is to be created.
#[derive(Debug, Clone)]
#[must_use]
pub struct TaskDraft {
    pub(super) local: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) timeout: Duration,
    pub(super) metadata: Map<String, Value>,
    pub(super) priority: i32,
    pub(super) start_after: Option<Micros>,
    pub(super) expected: Option<i64>,
    pub(super) is_barrier: bool,
    pub(super) retry: Retry,
    pub(super) actions: Vec<Action>,
    pub(super) rules: Vec<Rule>,
    pub(super) dedupe: Vec<Matcher>,
    pub(super) after: Vec<(On, bool)>,
}

impl TaskDraft {
    /// Begins a task: with an id by which others of its batch name it, a name and a kind. It may run for 60 s, has priority 0
    /// and is not retried, if nothing else is said.
    pub fn new(local: impl Into<String>, name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            local: local.into(),
            name: name.into(),
            kind: kind.into(),
            timeout: Duration::from_secs(60),
            metadata: Map::new(),
            priority: 0,
            start_after: None,
            expected: None,
            is_barrier: false,
            retry: Retry::NEVER,
            actions: Vec::new(),
            rules: Vec::new(),
            dedupe: Vec::new(),
            after: Vec::new(),
        }
    }

    /// Sets how long it may run without a word: more than 0, at most a day.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets a field of its metadata; all of it takes at most 64 KiB.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Sets its priority, -1000 to 1000; the greatest is claimed first.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Lets nobody claim it before a time.
    pub fn start_after(mut self, time: Micros) -> Self {
        self.start_after = Some(time);
        self
    }

    /// Says how many items it is about; what was counted of them is compared with it.
    pub fn expected(mut self, count: i64) -> Self {
        self.expected = Some(count);
        self
    }

    /// Lets what makes tasks before this one pointless end with it: see [`Tasks::cancel`](super::Tasks::cancel).
    pub fn barrier(mut self) -> Self {
        self.is_barrier = true;
        self
    }

    /// Says how often it is tried again, and after how long, before it has failed.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Adds something to be carried out.
    pub fn action(mut self, trigger: Trigger, params: impl Into<Value>) -> Self {
        self.actions.push(Action { trigger, params: params.into() });
        self
    }

    /// Adds a condition for its being claimed.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Does not create it if another task matches; one of several matchers is enough, and one whose field is missing in this
    /// task's metadata does not count.
    pub fn unless(mut self, matcher: Matcher) -> Self {
        self.dedupe.push(matcher);
        self
    }

    /// Lets it wait until an earlier task of the batch has succeeded; if that fails, it fails too.
    pub fn after_success_of(mut self, local: impl Into<String>) -> Self {
        self.after.push((On::Local(local.into()), true));
        self
    }

    /// Lets it wait until an earlier task of the batch has ended in any way.
    pub fn after_end_of(mut self, local: impl Into<String>) -> Self {
        self.after.push((On::Local(local.into()), false));
        self
    }

    /// Lets it wait for a task that exists: until it has succeeded, or until it has ended in any way.
    pub fn after_task(mut self, task: TaskId, requires_success: bool) -> Self {
        self.after.push((On::Task(task), requires_success));
        self
    }

    /// Gives the metadata.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Gives what is to be carried out.
    #[must_use]
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }
}

/// Finds everything that is wrong with the tasks of a batch, without a look at the store.
pub(super) fn problems(batch: &[TaskDraft]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let places: BTreeMap<&str, usize> =
        batch.iter().enumerate().rev().map(|(index, draft)| (draft.local.as_str(), index)).collect();
    for (index, draft) in batch.iter().enumerate() {
        let mut wrong = |field: &'static str, message: String| {
            problems.push(Problem { index, field, message });
        };
        if places.get(draft.local.as_str()) != Some(&index) {
            wrong("id", format!("expected one of its own, got {:?} again", draft.local));
        }
        check_task(draft, &mut wrong);
        let mut seen = BTreeSet::new();
        for (on, _) in &draft.after {
            let (is_new, name) = match on {
                On::Local(local) => (seen.insert(format!("local {local}")), format!("{local:?}")),
                On::Task(task) => (seen.insert(format!("task {task}")), format!("the task {task}")),
            };
            if !is_new {
                wrong("after", format!("it waits for {name} twice"));
            }
            if let On::Local(local) = on {
                match places.get(local.as_str()) {
                    None => wrong("after", format!("expected a task of the batch, got {local:?}")),
                    Some(place) if *place >= index => {
                        wrong("after", format!("expected an earlier task of the batch, got {local:?}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    problems
}

fn check_task(draft: &TaskDraft, wrong: &mut impl FnMut(&'static str, String)) {
    for (field, text, max) in [("name", &draft.name, NAME_LENGTH_MAX), ("kind", &draft.kind, KIND_LENGTH_MAX)]
    {
        if text.trim().is_empty() || text.len() > max {
            wrong(field, format!("expected 1 to {max} bytes, got {}", text.len()));
        }
    }
    if draft.timeout.is_zero() || draft.timeout > TIMEOUT_MAX {
        wrong("timeout", format!("expected more than 0, at most {TIMEOUT_MAX:?}, got {:?}", draft.timeout));
    }
    if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&draft.priority) {
        wrong("priority", format!("expected -{PRIORITY_MAX} to {PRIORITY_MAX}, got {}", draft.priority));
    }
    if let Some(count) = draft.expected.filter(|count| *count < 0) {
        wrong("expected", format!("expected 0 or more, got {count}"));
    }
    let length =
        |value: &dyn Fn() -> serde_json::Result<Vec<u8>>| value().map_or(usize::MAX, |text| text.len());
    let metadata = length(&|| serde_json::to_vec(&draft.metadata));
    if metadata > METADATA_LENGTH_MAX {
        wrong("metadata", format!("expected at most {METADATA_LENGTH_MAX} bytes of JSON, got {metadata}"));
    }
    let actions = length(&|| serde_json::to_vec(&draft.actions));
    if actions > ACTIONS_LENGTH_MAX {
        wrong("actions", format!("expected at most {ACTIONS_LENGTH_MAX} bytes of JSON, got {actions}"));
    }
    if draft.retry.retries_max > RETRIES_MAX {
        wrong("retry", format!("expected at most {RETRIES_MAX} times, got {}", draft.retry.retries_max));
    }
    for matcher in draft.dedupe.iter().chain(draft.rules.iter().map(Rule::matcher)) {
        check_matcher(matcher, wrong);
    }
    check_rules(&draft.rules, draft.expected, wrong);
}

/// What a capacity is compared with has to be known of whoever counts in it.
pub(super) fn check_rules(
    rules: &[Rule],
    expected: Option<i64>,
    wrong: &mut impl FnMut(&'static str, String),
) {
    if expected.is_none() && rules.iter().any(|rule| matches!(rule, Rule::Capacity { .. })) {
        wrong("rules", "expected a count of items with a rule of capacity, got none".to_owned());
    }
}

pub(super) fn check_matcher(matcher: &Matcher, wrong: &mut impl FnMut(&'static str, String)) {
    let names: BTreeSet<&String> = matcher.fields.iter().collect();
    let is_named = |name: &String| !name.trim().is_empty() && name.len() <= NAME_LENGTH_MAX;
    if names.len() != matcher.fields.len() || names.len() > FIELDS_MAX || !names.into_iter().all(is_named) {
        let got = matcher.fields.len();
        wrong("matcher", format!("expected at most {FIELDS_MAX} different fields with names, got {got}"));
    }
    if matcher.kind.trim().is_empty() || matcher.kind.len() > KIND_LENGTH_MAX {
        let got = matcher.kind.len();
        wrong("matcher", format!("expected a kind of 1 to {KIND_LENGTH_MAX} bytes, got {got}"));
    }
}
