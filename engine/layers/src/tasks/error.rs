//! What can go wrong with tasks, and what to do about it.

use super::{TaskId, TaskStatus};

/// What is wrong with a task of a batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// The field.
    pub field: &'static str,
    /// What was expected, and what was got.
    pub message: String,
}

/// An error of a store of tasks.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TasksError {
    /// The store would not, or could not.
    #[error(transparent)]
    Store(#[from] larder::Error),
    /// Tasks of a batch cannot be created. Nothing was.
    #[error("nothing was created: {}", listed(.problems))]
    Invalid {
        /// Everything that is wrong, in the order of the batch.
        problems: Vec<Problem>,
    },
    /// An argument is outside its range.
    #[error("{argument}: expected {expected}, got {got}")]
    InvalidArgument {
        /// The argument.
        argument: &'static str,
        /// What was expected.
        expected: String,
        /// What was got.
        got: String,
    },
    /// There is no such task.
    #[error("there is no task {task}")]
    NoSuchTask {
        /// The task.
        task: TaskId,
    },
    /// There is no such batch, or nothing of it is left.
    #[error("there is no task of the batch {batch}")]
    NoSuchBatch {
        /// The batch.
        batch: u64,
    },
    /// A task is not in a state in which this can be done with it.
    #[error("the task {task} is {}, and would have to be {expected}: nothing was changed", .status.name())]
    InvalidState {
        /// The task.
        task: TaskId,
        /// How it is.
        status: TaskStatus,
        /// How it would have to be.
        expected: &'static str,
    },
    /// A task was claimed by another, finished, cancelled or timed out meanwhile.
    #[error("the task {task} is no longer the caller's: nothing was changed; drop what was done for it")]
    Fenced {
        /// The task.
        task: TaskId,
    },
    /// Tasks that come after one have begun or ended, so it cannot be tried again.
    #[error("{count} tasks after the task {task} have begun or ended: create it anew, with them")]
    ChildrenEnded {
        /// The task.
        task: TaskId,
        /// How many.
        count: u64,
    },
    /// A task would have to wait for itself.
    #[error("a task would wait for itself: {path:?}; nothing was changed")]
    Cycle {
        /// The tasks, from one on to itself.
        path: Vec<TaskId>,
    },
    /// A task waits for another one already.
    #[error("the task {child} waits for the task {parent} already: nothing was changed")]
    DuplicateLink {
        /// Whom it waits for.
        parent: TaskId,
        /// Who waits.
        child: TaskId,
    },
    /// A row is not what was written there.
    #[error("a row of the task {task} is malformed: {what}; verify the file")]
    Malformed {
        /// The task.
        task: TaskId,
        /// What is wrong.
        what: String,
    },
}

fn listed(problems: &[Problem]) -> String {
    let one = |problem: &Problem| format!("task {}, {}: {}", problem.index, problem.field, problem.message);
    let shown: Vec<String> = problems.iter().take(20).map(one).collect();
    let more = problems.len().saturating_sub(20);
    shown.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() }
}
