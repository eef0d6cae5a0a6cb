//! What is still to be made, and what runs have of their own: their state, their configuration, routes, slots, schedules.

use std::time::Duration;

use bytes::Bytes;
use larder::{
    AggregateDefinition, CollectionDefinition, ErrorKind, IndexDefinition, Micros, Part, ReadTxn, Row,
    RowCursor, RowDraft, RowRange, Rows, WriteTxn,
};

use super::{Asset, GateState, MadeState, NAME_LENGTH_MAX, Result, Runs, RunsError, check_name, text_of};
use crate::once::Decision;
use crate::place::{after, found, open, remove_all};
use crate::state::states;

pub(super) const RUN: &str = "r";
pub(super) const STEP: &str = "s";
pub(super) const CONFIG: &str = "c";
/// The most bytes of the name of slots.
const SLOT_LENGTH_MAX: usize = 200;
/// How many of what is overdue are counted for a report.
const COUNTED_MAX: usize = 1_000;

states! {
    /// How a run is.
    RunState {
        /// It goes on.
        Running => "running",
        /// It has reached its end.
        Succeeded => "succeeded",
        /// It has not.
        Failed => "failed",
        /// It does not go on now.
        Paused => "paused",
    }
}

impl RunState {
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: RunState,
    /// When it was first heard of.
    pub started: Micros,
    /// When it was over.
    pub ended: Option<Micros>,
}

/// Which way was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Route {
    /// The branch; `None` for none of them.
    pub branch: Option<String>,
    /// Whether it was chosen now; else it was before, and holds.
    pub is_new: bool,
}

/// One of so many, held for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Slot {
    name: String,
    holder: String,
    fence: u64,
}

/// When something is to happen again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When it happens next.
    pub next: Micros,
    /// When it happened last.
    pub last: Option<Micros>,
    /// What else is to be known.
    pub state: Bytes,
}

/// What is going on, counted without a scan; what is overdue up to 1 000 of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RunsHealth {
    /// How many runs go on.
    pub runs: u64,
    /// How many materializations somebody is at.
    pub running: u64,
    /// How many were made.
    pub made: u64,
    /// How many have failed.
    pub failed: u64,
    /// How many of those that somebody is at are past their time.
    pub overdue: u64,
    /// How many gates wait, up to 1 000.
    pub gates: u64,
    /// How many of them are past their time.
    pub overdue_gates: u64,
    /// How many barriers are past their time.
    pub overdue_barriers: u64,
    /// How many schedules are due.
    pub due_schedules: u64,
}

impl RunsHealth {
    /// Tells whether nothing is past its time.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.overdue + self.overdue_gates + self.overdue_barriers == 0
    }
}

fn runs_definition() -> CollectionDefinition {
    CollectionDefinition::new()
        .index(IndexDefinition::new("state").by("s").by("g"))
        .index(IndexDefinition::new("until").by("t"))
        .aggregate(AggregateDefinition::new("state").group_by("s"))
}

fn schedules_definition() -> CollectionDefinition {
    CollectionDefinition::new().index(IndexDefinition::new("next").by("t"))
}

pub(super) fn run_of(row: &Row) -> Option<Run> {
    let state = RunState::of_number(row.integer("s"))?;
    let name = text_of(row.key().parts().get(1));
    Some(Run { name, state, started: row.integer("g")?, ended: row.integer("e") })
}

impl Runs {
    /// Gives, one after the other, the partitions of an asset that have no value; all of them, if they are to be made in any
    /// case. Nothing is collected: it may be asked for as many as there are names.
    pub fn missing<'r>(
        &'r self,
        view: &'r ReadTxn,
        name: &'r str,
        partitions: impl IntoIterator<Item = Part> + 'r,
        is_forced: bool,
    ) -> impl Iterator<Item = Result<Asset>> + 'r {
        let values = found(view.collection(&self.values));
        partitions.into_iter().filter_map(move |partition| {
            let asset = match Asset::of(name, partition) {
                Ok(asset) => asset,
                Err(error) => return Some(Err(error)),
            };
            let is_there = match &values {
                Ok(Some(values)) => values.get(asset.parts()).map(|row| row.is_some()),
                Ok(None) => Ok(false),
                Err(error) => Err(error.clone()),
            };
            match is_there {
                Err(error) => Some(Err(error.into())),
                Ok(is_there) => (is_forced || !is_there).then_some(Ok(asset)),
            }
        })
    }

    /// Says how a run is; it begins with that, if it is new.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName), [`Store`](RunsError::Store).
    pub fn set_run(&self, txn: &mut WriteTxn<'_>, run: &str, state: RunState) -> Result<()> {
        check_name("run", run, NAME_LENGTH_MAX)?;
        let now = txn.info().time;
        let mut rows = open(txn, &self.runs, runs_definition)?;
        let draft = match rows.get((RUN, run))? {
            Some(row) => row.to_draft(),
            None => RowDraft::default().field("g", now),
        };
        let draft = draft.field("s", state.number());
        let draft = if state.is_over() { draft.field("e", now) } else { draft.without("e") };
        rows.put((RUN, run), draft)?;
        Ok(())
    }

    /// Gives a run, if it is known.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn run(&self, view: &ReadTxn, run: &str) -> Result<Option<Run>> {
        let Some(rows) = found(view.collection(&self.runs))? else { return Ok(None) };
        Ok(rows.get((RUN, run))?.as_ref().and_then(run_of))
    }

    /// Gives runs in a state, the oldest first, at most `limit` of them, and where to go on.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn runs(
        &self,
        view: &ReadTxn,
        state: RunState,
        after: Option<RowCursor>,
        limit: usize,
    ) -> Result<(Vec<Run>, Option<RowCursor>)> {
        let Some(rows) = found(view.collection(&self.runs))? else { return Ok((Vec::new(), None)) };
        let range = RowRange::all().with(state.number()).limit(limit);
        let page = rows.find("state", &after.into_iter().fold(range, RowRange::after))?;
        Ok((page.rows.iter().filter_map(run_of).collect(), page.next))
    }

    /// Puts what is known of a step of a run, in place of what was known before.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName), [`Store`](RunsError::Store).
    pub fn set_step(
        &self,
        txn: &mut WriteTxn<'_>,
        run: &str,
        step: &str,
        known: impl Into<Bytes>,
    ) -> Result<()> {
        check_name("run", run, NAME_LENGTH_MAX)?;
        check_name("step", step, NAME_LENGTH_MAX)?;
        open(txn, &self.runs, runs_definition)?.put((STEP, run, step), known.into())?;
        Ok(())
    }

    /// Gives what is known of the steps of a run, in the order of their names.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn steps(&self, view: &ReadTxn, run: &str) -> Result<Vec<(String, Bytes)>> {
        let Some(mut rows) = found(view.collection(&self.runs))? else { return Ok(Vec::new()) };
        let rows = rows.all(None, &RowRange::all().with(STEP).with(run))?;
        Ok(rows.iter().map(|row| (text_of(row.key().parts().get(2)), row.value().clone())).collect())
    }

    /// Sets the configuration of a run, for a time.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName), [`Store`](RunsError::Store).
    pub fn set_config(
        &self,
        txn: &mut WriteTxn<'_>,
        run: &str,
        config: impl Into<Bytes>,
        time: Duration,
    ) -> Result<()> {
        check_name("run", run, NAME_LENGTH_MAX)?;
        let until = after(txn.info().time, time);
        let draft = RowDraft::new(config).field("t", until);
        open(txn, &self.runs, runs_definition)?.put((CONFIG, run), draft)?;
        Ok(())
    }

    /// Gives the configuration of a run, if its time is not over.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn config(&self, view: &ReadTxn, run: &str, now: Micros) -> Result<Option<Bytes>> {
        let Some(rows) = found(view.collection(&self.runs))? else { return Ok(None) };
        let is_valid = |row: &Row| row.integer("t").is_some_and(|until| until > now);
        Ok(rows.get((CONFIG, run))?.filter(is_valid).map(|row| row.value().clone()))
    }

    /// Removes configurations whose time is over, at most `limit` of them; gives how many.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn sweep_configs(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let now = txn.info().time;
        let Some(mut rows) = found(txn.collection(&self.runs))? else { return Ok(0) };
        let due = rows.find("until", &RowRange::all().at_most(now).limit(limit))?.rows;
        Ok(remove_all(&mut rows, &due)?)
    }

    /// Chooses a branch for a partition in a run, or none, unless one was chosen; gives the one that holds.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName), [`Store`](RunsError::Store).
    pub fn route(
        &self,
        txn: &mut WriteTxn<'_>,
        run: &str,
        router: &Asset,
        branch: Option<&str>,
    ) -> Result<Route> {
        check_name("run", run, NAME_LENGTH_MAX)?;
        let value = branch.map_or_else(Bytes::new, |branch| [b"+", branch.as_bytes()].concat().into());
        let key = [vec![run.into()], router.parts()].concat();
        Ok(match self.routes.decide(txn, key, value, None)? {
            Decision::First => Route { branch: branch.map(str::to_owned), is_new: true },
            Decision::Existing(value) => Route { branch: branch_of(&value), is_new: false },
        })
    }

    /// Gives the branch that was chosen, if one was, or none of them was chosen.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn chosen(&self, view: &ReadTxn, run: &str, router: &Asset, now: Micros) -> Result<Option<Route>> {
        let key = [vec![run.into()], router.parts()].concat();
        let value = self.routes.get(view, key, now)?;
        Ok(value.map(|value| Route { branch: branch_of(&value), is_new: false }))
    }

    /// Takes one of so many slots of a name for a time, in a holder's name; `None` if all are taken. One whose time is over is
    /// taken over.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName) for what cannot be a part of a key; [`Store`](RunsError::Store), also if the
    /// holder has one of this name already.
    pub fn take_slot(
        &self,
        txn: &mut WriteTxn<'_>,
        name: &str,
        slots: u64,
        holder: &str,
        time: Duration,
    ) -> Result<Option<Slot>> {
        check_name("slot", name, SLOT_LENGTH_MAX)?;
        let key = self.slot_key(name, holder)?;
        // Groups are of the whole file; slots of one store are not those of another.
        let store = blake3::hash(self.slots.as_str().as_bytes()).to_hex();
        let group = format!("{} {name}", store.get(..32).unwrap_or_default());
        match txn.claim(&key, time, Some((&group, slots))) {
            Ok(fence) => Ok(Some(Slot { name: name.to_owned(), holder: holder.to_owned(), fence })),
            Err(error) if matches!(error.kind(), ErrorKind::GroupFull { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn slot_key(&self, name: &str, holder: &str) -> Result<larder::Key> {
        let join = |key: &larder::Key, segment: &str| key.join(segment).map_err(larder::Error::from);
        Ok(join(&join(&self.slots, name)?, holder)?)
    }

    /// Tells whether a slot is still the caller's: to be asked in the transaction that acts in its name.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn holds_slot(&self, txn: &mut WriteTxn<'_>, slot: &Slot) -> Result<bool> {
        Ok(txn.act_for_claim(self.slot_key(&slot.name, &slot.holder)?, slot.fence)?)
    }

    /// Gives a slot back; tells whether it was still the caller's.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn release_slot(&self, txn: &mut WriteTxn<'_>, slot: &Slot) -> Result<bool> {
        Ok(txn.release_claim(self.slot_key(&slot.name, &slot.holder)?, slot.fence)?)
    }

    /// Sets when something happens next, and what else is to be known of it.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName), [`Store`](RunsError::Store).
    pub fn set_schedule(
        &self,
        txn: &mut WriteTxn<'_>,
        name: &str,
        next: Micros,
        state: impl Into<Bytes>,
    ) -> Result<()> {
        check_name("schedule", name, NAME_LENGTH_MAX)?;
        let mut rows = open(txn, &self.schedules, schedules_definition)?;
        let draft = rows.get(name)?.map_or_else(RowDraft::default, |row| row.to_draft());
        rows.put(name, draft.value(state).field("t", next))?;
        Ok(())
    }

    /// Gives what is due, the longest first, at most `limit` of it.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn due_schedules(&self, view: &ReadTxn, now: Micros, limit: usize) -> Result<Vec<Schedule>> {
        let Some(rows) = found(view.collection(&self.schedules))? else { return Ok(Vec::new()) };
        let page = rows.find("next", &RowRange::all().at_most(now).limit(limit))?;
        let schedule = |row: &Row| Schedule {
            name: text_of(row.key().parts().first()),
            next: row.integer("t").unwrap_or(0),
            last: row.integer("l"),
            state: row.value().clone(),
        };
        Ok(page.rows.iter().map(schedule).collect())
    }

    /// Says that something that was due has happened, and when it happens next; true for one of those who saw that it was
    /// due.
    ///
    /// # Errors
    /// [`NotFound`](RunsError::NotFound), [`Store`](RunsError::Store).
    pub fn advance(&self, txn: &mut WriteTxn<'_>, seen: &Schedule, next: Micros) -> Result<bool> {
        let now = txn.info().time;
        let mut rows = open(txn, &self.schedules, schedules_definition)?;
        let missing = || RunsError::NotFound { what: "schedule", name: seen.name.clone() };
        let row = rows.get(seen.name.as_str())?.ok_or_else(missing)?;
        if row.integer("t") != Some(seen.next) {
            return Ok(false);
        }
        rows.put(seen.name.as_str(), row.to_draft().field("t", next).field("l", now))?;
        Ok(true)
    }

    /// Tells what is going on, and what is past its time.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn health(&self, view: &ReadTxn, now: Micros) -> Result<RunsHealth> {
        let runs = match found(view.collection(&self.runs))? {
            Some(rows) => rows.aggregate("state", &[RunState::Running.number().into()])?.count,
            None => 0,
        };
        Ok(RunsHealth {
            runs,
            running: self.count(view, MadeState::Running)?,
            made: self.count(view, MadeState::Success)?,
            failed: self.count(view, MadeState::Failed)?,
            overdue: overdue(view, &self.made, now)?,
            gates: self.gates(view, GateState::Waiting, COUNTED_MAX)?.len() as u64,
            overdue_gates: overdue(view, &self.gates, now)?,
            overdue_barriers: overdue(view, &self.barriers, now)?,
            due_schedules: self.due_schedules(view, now, COUNTED_MAX)?.len() as u64,
        })
    }
}

fn branch_of(value: &Bytes) -> Option<String> {
    value.strip_prefix(b"+").map(|branch| String::from_utf8_lossy(branch).into_owned())
}

/// Tells how much of what has a time is past it, as far as that is counted.
fn overdue(view: &ReadTxn, key: &larder::Key, now: Micros) -> Result<u64> {
    let Some(rows) = found(view.collection(key))? else { return Ok(0) };
    Ok(rows.find("until", &RowRange::all().at_most(now).limit(COUNTED_MAX))?.rows.len() as u64)
}
