//! What is counted of tasks while they run: many at once, each for itself, and not twice.

use std::time::Duration;

use larder::WriteTxn;

use super::settle::Work;
use super::task::TaskId;
use super::{Result, TaskStatus, Tasks, TasksError};
use crate::once::Decision;
use crate::place::after;

/// For how long it is known that a flush was made.
const FLUSH_KNOWN: Duration = Duration::from_secs(24 * 3_600);
/// How many flushes that need not be known any more are forgotten by one that is made.
const FORGOTTEN: usize = 10;

/// What is to be counted of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The task.
    pub task: TaskId,
    /// How many more of its items succeeded.
    pub successes: i64,
    /// How many more of its items failed.
    pub failures: i64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Counted {
    /// It was counted, and makes so many.
    Applied {
        /// How many of the task's items succeeded.
        successes: i64,
        /// How many of the task's items failed.
        failures: i64,
    },
    /// There is no such task.
    NoSuchTask,
    /// Nothing was to be counted, or less than nothing.
    Refused,
    /// There would be more than 2^63 - 1: nothing was counted.
    Overflow,
}

impl Tasks {
    /// Counts items of many tasks, also of such that are over, and tells of each what became of it; what goes wrong with one
    /// does not keep the others. The time of tasks that run begins anew. `None`, and nothing changed, if a flush of this name
    /// was made in the last 24 hours.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn count(
        &self,
        txn: &mut WriteTxn<'_>,
        flush: Option<&str>,
        items: &[Counts],
    ) -> Result<Option<Vec<Counted>>> {
        if let Some(flush) = flush {
            if self.flushes.decide(txn, flush, "", Some(FLUSH_KNOWN))? != Decision::First {
                return Ok(None);
            }
            self.flushes.remove_expired(txn, FORGOTTEN)?;
        }
        let mut work = Work::new(self, txn);
        let counted = items.iter().map(|item| count(&mut work, txn, *item)).collect::<Result<Vec<_>>>()?;
        let _ = work.write(txn)?;
        Ok(Some(counted))
    }
}

fn count(work: &mut Work<'_>, txn: &mut WriteTxn<'_>, item: Counts) -> Result<Counted> {
    let Counts { task, successes, failures } = item;
    if successes < 0 || failures < 0 || (successes, failures) == (0, 0) {
        return Ok(Counted::Refused);
    }
    let now = work.now();
    let task = match work.task(txn, task) {
        Err(TasksError::NoSuchTask { .. }) => return Ok(Counted::NoSuchTask),
        task => task?,
    };
    let sums = (task.successes.checked_add(successes), task.failures.checked_add(failures));
    let (Some(successes), Some(failures)) = sums else { return Ok(Counted::Overflow) };
    (task.successes, task.failures, task.updated) = (successes, failures, now);
    if task.status == TaskStatus::Running {
        task.until = Some(after(now, task.timeout));
    }
    Ok(Counted::Applied { successes, failures })
}
