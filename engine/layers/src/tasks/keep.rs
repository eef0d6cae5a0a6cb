//! Many tasks at once: a batch that is stopped, and what has been over for long.

use larder::{Graph, Micros, RowRange, Rows, Tuple, WriteTxn};

use super::settle::Work;
use super::task::{attempts_of, body_key};
use super::{LINK, Result, Task, TaskStatus, Tasks, TasksError, Trigger, groups};
use crate::place::{found, remove_all};

/// Why the tasks of a batch were called off.
const STOPPED: &str = "Batch stopped";

impl Tasks {
    pub(super) fn all_of_batch(
        &self,
        txn: &mut WriteTxn<'_>,
        batch: u64,
        kind: Option<&str>,
    ) -> Result<Vec<Task>> {
        let Some(mut rows) = found(txn.collection(&self.rows))? else { return Ok(Vec::new()) };
        let range = RowRange::all().with(batch);
        let range = kind.into_iter().fold(range, RowRange::with);
        Rows::all(&mut rows, Some("batch"), &range)?.iter().map(Task::of).collect()
    }

    /// Calls off all tasks of a batch that are not over; gives how many of each status these were.
    ///
    /// # Errors
    /// [`NoSuchBatch`](TasksError::NoSuchBatch); [`Store`](TasksError::Store), also for a batch of which the changes are
    /// more than 64 MiB.
    pub fn stop_batch(&self, txn: &mut WriteTxn<'_>, batch: u64) -> Result<Vec<(TaskStatus, u64)>> {
        let tasks = self.all_of_batch(txn, batch, None)?;
        if tasks.is_empty() {
            return Err(TasksError::NoSuchBatch { batch });
        }
        let mut work = Work::new(self, txn);
        let mut stopped = TaskStatus::ALL.map(|status| (status, 0_u64));
        for task in tasks.into_iter().filter(|task| !task.status.is_terminal()) {
            if let Some((_, count)) = stopped.iter_mut().find(|(status, _)| *status == task.status) {
                *count += 1;
            }
            let id = task.id;
            work.take(task);
            work.end(txn, id, TaskStatus::Canceled, Some(STOPPED), &[Trigger::Cancel])?;
        }
        let _ = work.write(txn)?;
        Ok(stopped.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    /// Removes tasks that were over before a time, the longest first, with everything that is known of them; gives how many. It
    /// looks at `limit` of them at most, and leaves those of which something is still to be carried out.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store).
    pub fn remove_ended_before(&self, txn: &mut WriteTxn<'_>, time: Micros, limit: usize) -> Result<u64> {
        let Some(mut rows) = found(txn.collection(&self.rows))? else { return Ok(0) };
        let range = RowRange::all().at_most(time.saturating_sub(1)).limit(limit);
        let candidates = rows.find("ended", &range)?.rows;
        let mut ended = Vec::with_capacity(candidates.len());
        for row in &candidates {
            let task = Task::of(row)?;
            // What would have started it is of no use to anybody any more.
            let is_told = |key: &Tuple| !key.parts().contains(&Trigger::Start.name().into());
            if !task.has_actions || !self.outbox.open_of(txn, task.id)?.iter().any(is_told) {
                ended.push(task);
            }
        }
        let mut rows = txn.collection(&self.rows)?;
        for task in &ended {
            rows.remove(task.id)?;
            rows.remove(body_key(task.id))?;
            let attempts = Rows::all(&mut rows, None, &attempts_of(task.id))?;
            remove_all(&mut rows, &attempts)?;
        }
        let mut graph = Graph::over(txn.collection(&self.links)?);
        for task in &ended {
            graph.remove_node(LINK, task.id)?;
        }
        if let Some(mut rows) = found(txn.collection(&self.groups))? {
            ended.iter().try_for_each(|task| groups::forget(&mut rows, task.id))?;
        }
        for task in &ended {
            self.outbox.remove_of(txn, task.id)?;
        }
        Ok(ended.len() as u64)
    }

    /// Removes all tasks, and everything that is known of them; tells whether there was anything.
    ///
    /// # Errors
    /// [`Store`](TasksError::Store): it takes the right to delete.
    pub fn drop_all(&self, txn: &mut WriteTxn<'_>) -> Result<bool> {
        Ok(txn.delete_tree(&self.key)? > 0)
    }
}
