//! What is removed: of runs that are over, and of what is past.

use larder::{Key, Micros, Row, RowRange, Rows, Tuple, WriteTxn};

use super::plan::{CONFIG, RUN, STEP, run_of};
use super::{
    ApprovalState, BarrierState, GateState, MadeState, Result, RunState, Runs, RunsError, barrier, made,
    text_of,
};
use crate::place::{found, has_any, remove_all, remove_where};

/// Removes something of a run, at most so many rows; gives how many these were.
type Removal = fn(&Runs, &mut WriteTxn<'_>, &str, usize) -> Result<usize>;

impl Runs {
    /// Removes what is known of a run that is over, at most `limit` rows of it; gives how many, and 0 once nothing is left that
    /// may go. Until then a barrier has perhaps lost some of its items.
    ///
    /// What says how the value of an asset was made stays, and what was begun last of it, until another run makes that asset;
    /// so do barriers that are open and gates that wait. The run itself goes with the last of it. Values, their lineage and the
    /// [audit](Runs::remove_audit_before) stay in any case. What stays is looked at each time.
    ///
    /// # Errors
    /// [`InvalidState`](RunsError::InvalidState) for a run that goes on; [`Store`](RunsError::Store).
    pub fn remove_run(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<u64> {
        const REMOVALS: [Removal; 7] = [
            Runs::remove_routes,
            |runs, txn, run, limit| {
                runs.remove_gates_where(txn, run, limit, |state| state != GateState::Waiting)
            },
            Runs::remove_barriers,
            Runs::remove_steps,
            Runs::remove_config,
            Runs::remove_made,
            Runs::remove_last,
        ];
        self.demand_over(txn, run)?;
        let mut left = limit;
        for removal in REMOVALS {
            if left > 0 {
                left -= removal(self, txn, run, left)?;
            }
        }
        Ok((limit - left) as u64)
    }

    fn remove_routes(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        Ok(usize::try_from(self.routes.remove_of(txn, run, limit)?).unwrap_or(limit))
    }

    fn remove_gates_where(
        &self,
        txn: &mut WriteTxn<'_>,
        run: &str,
        limit: usize,
        may_go: impl Fn(GateState) -> bool,
    ) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.gates))? else { return Ok(0) };
        let range = RowRange::all().with(run);
        remove_where(&mut rows, None, range, limit, |_, row| Ok(may_go(GateState::of(row))))
    }

    fn remove_steps(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.runs))? else { return Ok(0) };
        remove_where(&mut rows, None, RowRange::all().with(STEP).with(run), limit, |_, _| Ok(true))
    }

    fn remove_config(&self, txn: &mut WriteTxn<'_>, run: &str, _limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.runs))? else { return Ok(0) };
        Ok(usize::from(rows.remove((CONFIG, run))?))
    }

    /// Each barrier after its items.
    fn remove_barriers(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.barriers))? else { return Ok(0) };
        let mut removed = 0;
        for barrier in rows.all(Some("run"), &RowRange::all().with(run))? {
            let Some(items) = barrier::items_of_ended(&barrier) else { continue };
            removed +=
                remove_where(&mut rows, None, items, limit - removed, |_, _| Ok::<_, RunsError>(true))?;
            if removed == limit {
                break;
            }
            removed += usize::from(rows.remove(barrier.key())?);
        }
        Ok(removed)
    }

    fn remove_made(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.made))? else { return Ok(0) };
        remove_where(&mut rows, Some("run"), RowRange::all().with(run), limit, |rows, row| {
            if made::last_of(rows, row)?.is_some_and(|last| last == *row.key()) {
                return Ok(false);
            }
            let asset = row.key().parts().iter().take(2).cloned().collect::<Vec<_>>();
            let Some(values) = found(rows.txn().collection(&self.values))? else { return Ok(true) };
            Ok(values.get(asset)?.is_none_or(|value| value.text("u").as_deref() != Some(run)))
        })
    }

    /// The run itself, if nothing of it stays.
    fn remove_last(&self, txn: &mut WriteTxn<'_>, run: &str, _limit: usize) -> Result<usize> {
        let has_more = has_of_run(txn, &self.made, Some("run"), run, |_| true)?
            || self.has_gate(txn, run, |_| true)?
            || self.has_barrier(txn, run, |_| true)?;
        if has_more {
            return Ok(0);
        }
        let Some(mut rows) = found(txn.collection(&self.runs))? else { return Ok(0) };
        Ok(usize::from(rows.remove((RUN, run))?))
    }

    /// Forgets what was chosen in a run that does not go on, at most `limit` of it; gives how much.
    ///
    /// # Errors
    /// [`InvalidState`](RunsError::InvalidState) for a run that goes on, which would choose again;
    /// [`Store`](RunsError::Store).
    pub fn forget_routes_of(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<u64> {
        self.demand_over(txn, run)?;
        Ok(self.routes.remove_of(txn, run, limit)?)
    }

    /// Forgets what was chosen before a time, the oldest first, at most `limit` of it, but nothing of runs that go on; gives
    /// how much.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn forget_routes_before(&self, txn: &mut WriteTxn<'_>, time: Micros, limit: usize) -> Result<u64> {
        let is_over = |txn: &mut WriteTxn<'_>, key: &Tuple| {
            Ok(self.goes_on(txn, &text_of(key.parts().first()))?.is_none())
        };
        self.routes.remove_before_where(txn, time, limit, is_over)
    }

    /// Removes the gates of a run; gives how many there were.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn remove_gates(&self, txn: &mut WriteTxn<'_>, run: &str) -> Result<u64> {
        Ok(self.remove_gates_where(txn, run, usize::MAX, |_| true)? as u64)
    }

    /// Removes approvals that were decided, or have expired, before a time, at most `limit` of them; gives how many. Looks at
    /// all that are not open, the oldest first.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn remove_approvals_before(&self, txn: &mut WriteTxn<'_>, time: Micros, limit: usize) -> Result<u64> {
        let Some(mut rows) = found(txn.collection(&self.approvals))? else { return Ok(0) };
        let mut removed = 0;
        for state in ApprovalState::ALL.into_iter().filter(|state| !state.is_open()) {
            let range = RowRange::all().with(state.number());
            removed += remove_where(&mut rows, Some("state"), range, limit - removed, |_, row| {
                Ok::<_, RunsError>(row.integer("e").is_some_and(|decided| decided < time))
            })?;
        }
        Ok(removed as u64)
    }

    /// Removes what happened before a time, at most `limit` rows; gives how many.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn remove_audit_before(&self, txn: &mut WriteTxn<'_>, time: Micros, limit: usize) -> Result<u64> {
        let Some(mut rows) = found(txn.collection(&self.audit))? else { return Ok(0) };
        let old = rows.find("time", &RowRange::all().at_most(time.saturating_sub(1)).limit(limit))?.rows;
        Ok(remove_all(&mut rows, &old)?)
    }

    fn demand_over(&self, txn: &mut WriteTxn<'_>, run: &str) -> Result<()> {
        let Some(state) = self.goes_on(txn, run)? else { return Ok(()) };
        let (name, state) = (run.to_owned(), state.name());
        Err(RunsError::InvalidState { what: "the run", name, state, expected: "over" })
    }

    fn goes_on(&self, txn: &mut WriteTxn<'_>, run: &str) -> Result<Option<RunState>> {
        let known = match found(txn.collection(&self.runs))? {
            Some(rows) => rows.get((RUN, run))?.as_ref().and_then(run_of),
            None => None,
        };
        if let Some(known) = known {
            return Ok(Some(known.state).filter(|state| !state.is_over()));
        }
        // Of which nothing was said goes on as long as somebody is at something of it, or waits for something.
        if let Some(rows) = found(txn.collection(&self.made))? {
            for state in [MadeState::Running, MadeState::WaitingApproval] {
                if rows.aggregate("run", &[run.into(), state.number().into()])?.count > 0 {
                    return Ok(Some(RunState::Running));
                }
            }
        }
        let waits = self.has_gate(txn, run, |row| GateState::of(row) == GateState::Waiting)?
            || self.has_barrier(txn, run, |row| barrier::state_of(row) == Some(BarrierState::Open))?;
        Ok(waits.then_some(RunState::Running))
    }

    fn has_gate(&self, txn: &mut WriteTxn<'_>, run: &str, is: impl Fn(&Row) -> bool) -> Result<bool> {
        has_of_run(txn, &self.gates, None, run, is)
    }

    fn has_barrier(&self, txn: &mut WriteTxn<'_>, run: &str, is: impl Fn(&Row) -> bool) -> Result<bool> {
        has_of_run(txn, &self.barriers, Some("run"), run, is)
    }
}

fn has_of_run(
    txn: &mut WriteTxn<'_>,
    rows: &Key,
    index: Option<&str>,
    run: &str,
    is: impl Fn(&Row) -> bool,
) -> Result<bool> {
    let Some(mut rows) = found(txn.collection(rows))? else { return Ok(false) };
    Ok(has_any(&mut rows, index, RowRange::all().with(run), is)?)
}
