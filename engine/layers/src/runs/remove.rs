//! What is removed: of runs that are over, and of what is past.

use larder::{Micros, RowRange, Tuple, WriteTxn};

use super::plan::{CONFIG, RUN, STEP, run_of};
use super::{ApprovalState, MadeState, Result, RunState, Runs, RunsError, barrier, made, text_of};
use crate::place::{found, remove_all, remove_where};

/// Removes something of a run, at most so many rows; gives how many these were.
type Removal = fn(&Runs, &mut WriteTxn<'_>, &str, usize) -> Result<usize>;

impl Runs {
    /// Removes what is known of a run that is over, at most `limit` rows of it; gives how many, and 0 once nothing is left that
    /// may go; until then a barrier has perhaps lost some of its items. What was begun last of an asset stays, and the run with it, until another run makes that asset. Values, their
    /// lineage and the [audit](Runs::remove_audit_before) stay.
    ///
    /// # Errors
    /// [`InvalidState`](RunsError::InvalidState) for a run that goes on; [`Store`](RunsError::Store).
    pub fn remove_run(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<u64> {
        const REMOVALS: [Removal; 6] = [
            Runs::remove_routes,
            Runs::remove_gates_of,
            Runs::remove_barriers,
            Runs::remove_steps,
            Runs::remove_made,
            Runs::remove_rest,
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

    fn remove_gates_of(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.gates))? else { return Ok(0) };
        remove_where(&mut rows, None, RowRange::all().with(run), limit, |_, _| Ok(true))
    }

    fn remove_steps(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.runs))? else { return Ok(0) };
        remove_where(&mut rows, None, RowRange::all().with(STEP).with(run), limit, |_, _| Ok(true))
    }

    /// Each barrier after its items.
    fn remove_barriers(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.barriers))? else { return Ok(0) };
        let mut removed = 0;
        remove_where(&mut rows, Some("run"), RowRange::all().with(run), limit, |rows, row| {
            if let Some(items) = barrier::items_below(row) {
                removed += remove_where(rows, None, items, limit - removed, |_, _| Ok::<_, RunsError>(true))?;
            }
            let may_go = removed < limit;
            removed += usize::from(may_go);
            Ok::<_, RunsError>(may_go)
        })?;
        Ok(removed)
    }

    fn remove_made(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        let Some(mut rows) = found(txn.collection(&self.made))? else { return Ok(0) };
        remove_where(&mut rows, Some("run"), RowRange::all().with(run), limit, |rows, row| {
            Ok(made::last_of(rows, row)?.is_none_or(|last| last != *row.key()))
        })
    }

    /// The run itself, if nothing of what it has made stays.
    fn remove_rest(&self, txn: &mut WriteTxn<'_>, run: &str, limit: usize) -> Result<usize> {
        if let Some(mut made) = found(txn.collection(&self.made))?
            && !made.find("run", &RowRange::all().with(run).limit(1))?.rows.is_empty()
        {
            return Ok(0);
        }
        let Some(mut rows) = found(txn.collection(&self.runs))? else { return Ok(0) };
        let mut removed = 0;
        for kind in [CONFIG, RUN] {
            removed += usize::from(removed < limit && rows.remove((kind, run))?);
        }
        Ok(removed)
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
        Ok(self.remove_gates_of(txn, run, usize::MAX)? as u64)
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
        // Of which nothing was said goes on as long as somebody is at something of it.
        let Some(rows) = found(txn.collection(&self.made))? else { return Ok(None) };
        for state in [MadeState::Running, MadeState::WaitingApproval] {
            if rows.aggregate("run", &[run.into(), state.number().into()])?.count > 0 {
                return Ok(Some(RunState::Running));
            }
        }
        Ok(None)
    }
}
