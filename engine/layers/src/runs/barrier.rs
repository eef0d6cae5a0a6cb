//! Barriers: many items of one thing, done in any order by anybody, and one who finds that all are.
//!
//! How many items are done, or are not, is an aggregate of their rows. The branches of a parallel execution are items, too;
//! and a barrier can be an item of another one.
//!
//! ```text
//! barrier: ["b", number]      -> "q" state, "u" run, "n" asset and partition, ...; the reader's checkpoint
//! item:    ["i", number, key] -> "y" number of the barrier, "s" state, "o" place, "d" batch, "c" number of the
//!                                barrier below it; its result or its error
//! ```

use std::time::Duration;

use bytes::Bytes;
use larder::{
    AggregateDefinition, CollectionDefinition, CollectionMut, IndexDefinition, Micros, Part, ReadTxn, Row,
    RowDraft, RowRange, Rows, Tuple, WriteTxn,
};

use super::{Asset, NAME_LENGTH_MAX, Result, Runs, RunsError, check_name};
use crate::place::{after, cut, found, number, open, text};
use crate::state::states;

/// The number of a barrier.
pub type BarrierId = u64;

const BARRIER: &str = "b";
const ITEM: &str = "i";
/// The most bytes of an item's key, if nothing else is said.
const KEY_LENGTH_MAX: usize = 2_048;
/// The most bytes that an item's key can have.
const KEY_LENGTH_LIMIT: usize = 3_500;
/// How long a barrier stays open, if nothing else is said.
const TIME: Duration = Duration::from_secs(30 * 60);
const ERROR_LENGTH_MAX: usize = 4_096;

states! {
    /// How a barrier is.
    BarrierState {
        /// Items may come, or are not done.
        Open => "open",
        /// All items are done, and none has failed.
        Completed => "completed",
        /// All items are done; so many have failed as may.
        PartialFailure => "partial failure",
        /// All items are done, and more have failed than may; or its time is over.
        Failed => "failed",
        /// It was called off.
        Cancelled => "cancelled",
    }
}

states! {
    /// How an item is.
    ItemState {
        /// Nobody is at it.
        Pending => "pending",
        /// Somebody is.
        Executing => "executing",
        /// It is done.
        Completed => "completed",
        /// It has failed.
        Failed => "failed",
    }
}

impl ItemState {
    fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// What happens to an item whose key is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oversize {
    /// None of the items is added.
    #[default]
    Refuse,
    /// It is added, and told; as long as it can be a key at all.
    Warn,
}

/// A barrier that is to be opened.
#[derive(Debug, Clone)]
#[must_use]
pub struct BarrierDraft {
    run: String,
    asset: Asset,
    threshold: f64,
    key_length_max: usize,
    oversize: Oversize,
    batch: u64,
    time: Duration,
    parent: Option<(BarrierId, Part)>,
}

impl BarrierDraft {
    /// Begins a barrier of an asset in a run. None of its items may fail, their keys may have 2 048 bytes, and it is open for
    /// 30 minutes, if nothing else is said.
    pub fn new(run: impl Into<String>, asset: Asset) -> Self {
        Self {
            run: run.into(),
            asset,
            threshold: 0.0,
            key_length_max: KEY_LENGTH_MAX,
            oversize: Oversize::Refuse,
            batch: 1,
            time: TIME,
            parent: None,
        }
    }

    /// Lets a part of the items fail, from 0 to 1.
    pub fn threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets how many bytes the key of an item may have, and what happens to longer ones.
    pub fn key_length_max(mut self, length: usize, oversize: Oversize) -> Self {
        (self.key_length_max, self.oversize) = (length, oversize);
        self
    }

    /// Numbers batches of so many items.
    pub fn batch(mut self, size: u64) -> Self {
        self.batch = size;
        self
    }

    /// Sets for how long it is open.
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Makes it an item of another barrier, which is done or has failed with it.
    pub fn under(mut self, barrier: BarrierId, key: impl Into<Part>) -> Self {
        self.parent = Some((barrier, key.into()));
        self
    }
}

/// What became of items that were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[must_use]
pub struct Added {
    /// How many were new.
    pub added: u64,
    /// How many were there already, or twice.
    pub duplicates: u64,
    /// How many had keys that are longer than they should be.
    pub oversize: u64,
}

/// What became of a barrier when something was done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is open: so many items are not done, or more may come.
    Open {
        /// How many are not done.
        left: u64,
    },
    /// This finished it. Nobody else is told so.
    Finished(BarrierState),
    /// This finished it, and with it others that it is an item of: all of them, from this one up. Nobody else is told so.
    FinishedUpTo(Vec<(BarrierId, BarrierState)>),
    /// The item was done before: nothing was changed.
    AlreadyDone(ItemState),
}

/// What was called off with a barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct CalledOff {
    /// How many items were not done.
    pub items: u64,
    /// All barriers that ended with it, from this one up. Nobody else is told so.
    pub ended: Vec<(BarrierId, BarrierState)>,
}

/// A barrier, with what is counted of its items.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Barrier {
    /// Its number.
    pub id: BarrierId,
    /// The run.
    pub run: String,
    /// The asset.
    pub asset: Asset,
    /// How it is.
    pub state: BarrierState,
    /// Whether all items are known.
    pub is_closed: bool,
    /// How many items there are.
    pub total: u64,
    /// How many are done.
    pub completed: u64,
    /// How many have failed.
    pub failed: u64,
    /// Which part may fail.
    pub threshold: f64,
    /// Until when it is open; `None` when it is not any more.
    pub until: Option<Micros>,
    /// Where its reader goes on.
    pub checkpoint: Bytes,
    /// Whose item it is.
    pub parent: Option<(BarrierId, Part)>,
}

/// An item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Item {
    /// Its key.
    pub key: Part,
    /// How it is.
    pub state: ItemState,
    /// Its place, from 0.
    pub place: u64,
    /// The number of its batch, from 0.
    pub batch: u64,
    /// What came of it, or why it failed.
    pub result: Bytes,
}

fn definition() -> CollectionDefinition {
    CollectionDefinition::new()
        .index(IndexDefinition::new("items").by("y").by("o"))
        .index(IndexDefinition::new("states").by("y").by("s").by("o"))
        .index(IndexDefinition::new("run").by("u"))
        .index(IndexDefinition::new("until").by("t"))
        .aggregate(AggregateDefinition::new("items").group_by("y").group_by("s"))
}

fn barrier_key(id: BarrierId) -> (&'static str, BarrierId) {
    (BARRIER, id)
}

/// Gives where the items of a barrier lie that has ended.
pub(super) fn items_of_ended(row: &Row) -> Option<RowRange> {
    let has_ended = state_of(row).is_some_and(|state| state != BarrierState::Open);
    id_of(row).filter(|_| has_ended).map(|id| RowRange::all().with(ITEM).with(id))
}

pub(super) fn state_of(row: &Row) -> Option<BarrierState> {
    BarrierState::of_number(row.integer("q"))
}

fn id_of(row: &Row) -> Option<BarrierId> {
    match row.key().parts() {
        [Part::String(kind), Part::Integer(id)] if kind == BARRIER => u64::try_from(*id).ok(),
        _ => None,
    }
}

fn item_key(id: BarrierId, key: &Part) -> (&'static str, BarrierId, Part) {
    (ITEM, id, key.clone())
}

/// Reads an item of a barrier in a state. What is not done of one that is not open has failed with it.
fn item_of(row: &Row, barrier: BarrierState) -> Result<Item> {
    let (Some(state), Some(key)) = (ItemState::of_number(row.integer("s")), row.key().parts().get(2)) else {
        return Err(RunsError::Malformed { what: "a barrier's item" });
    };
    let (place, batch) = (number(row, "o"), number(row, "d"));
    let item = Item { key: key.clone(), state, place, batch, result: row.value().clone() };
    if barrier == BarrierState::Open || state.is_over() {
        return Ok(item);
    }
    Ok(Item { state: ItemState::Failed, result: barrier.name().into(), ..item })
}

fn item_row(rows: &mut impl Rows, id: BarrierId, key: &Part) -> Result<Row> {
    let missing = || RunsError::NotFound { what: "item", name: item_name(id, key) };
    rows.get(item_key(id, key))?.ok_or_else(missing)
}

fn item_name(id: BarrierId, key: &Part) -> String {
    format!("{key:?} of the barrier {id}")
}

fn counts(rows: &mut impl Rows, id: BarrierId) -> Result<[u64; 4]> {
    let mut counts = [0; 4];
    for (count, state) in counts.iter_mut().zip(ItemState::ALL) {
        *count = rows.aggregate("items", &[id.into(), state.number().into()])?.count;
    }
    Ok(counts)
}

fn barrier_of(rows: &mut impl Rows, id: BarrierId) -> Result<(Row, Barrier)> {
    let missing = || RunsError::NotFound { what: "barrier", name: id.to_string() };
    let row = rows.get(barrier_key(id))?.ok_or_else(missing)?;
    let barrier = barrier_of_row(rows, id, &row)?;
    Ok((row, barrier))
}

fn barrier_of_row(rows: &mut impl Rows, id: BarrierId, row: &Row) -> Result<Barrier> {
    let malformed = || RunsError::Malformed { what: "a barrier" };
    let [pending, executing, completed, failed] = counts(rows, id)?;
    let state = state_of(row);
    let asset = row.field("n").as_ref().and_then(Asset::of_node).ok_or_else(malformed)?;
    let threshold = match row.field("h") {
        Some(Part::Float(threshold)) => threshold,
        _ => 0.0,
    };
    let parent = match row.field("w") {
        Some(Part::List(parts)) => match parts.as_slice() {
            [Part::Integer(id), key] => u64::try_from(*id).ok().map(|id| (id, key.clone())),
            _ => return Err(malformed()),
        },
        _ => None,
    };
    let state = state.ok_or_else(malformed)?;
    // What is not done of a barrier that is not open has failed with it.
    let given_up = if state == BarrierState::Open { 0 } else { pending + executing };
    Ok(Barrier {
        id,
        run: text(row, "u"),
        asset,
        state,
        is_closed: row.has("x"),
        total: pending + executing + completed + failed,
        completed,
        failed: failed + given_up,
        threshold,
        until: row.integer("t"),
        checkpoint: row.value().clone(),
        parent,
    })
}

impl Barrier {
    fn left(&self) -> u64 {
        self.total - self.completed - self.failed
    }

    /// What it comes to when all of its items are done.
    fn outcome(&self) -> BarrierState {
        match self.failed {
            0 => BarrierState::Completed,
            failed if failed as f64 / self.total as f64 <= self.threshold => BarrierState::PartialFailure,
            _ => BarrierState::Failed,
        }
    }

    fn demand_open(&self) -> Result<()> {
        if self.state == BarrierState::Open {
            return Ok(());
        }
        let (name, state) = (self.id.to_string(), self.state.name());
        Err(RunsError::InvalidState { what: "the barrier", name, state, expected: "open" })
    }
}

impl Runs {
    /// Opens a barrier; gives its number.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName) for the run, a threshold that is not between 0 and 1, a limit of keys beyond 3 500
    /// bytes, or a batch of 0; [`NotFound`](RunsError::NotFound) for the item that it is; [`Store`](RunsError::Store).
    pub fn open_barrier(&self, txn: &mut WriteTxn<'_>, draft: &BarrierDraft) -> Result<BarrierId> {
        check_name("run", &draft.run, NAME_LENGTH_MAX)?;
        let invalid = |argument, expected: &str, got: String| {
            Err(RunsError::InvalidName { argument, expected: expected.to_owned(), got })
        };
        if !(0.0..=1.0).contains(&draft.threshold) {
            return invalid("threshold", "0 to 1", draft.threshold.to_string());
        }
        if !(1..=KEY_LENGTH_LIMIT).contains(&draft.key_length_max) {
            return invalid("key_length_max", "1 to 3500", draft.key_length_max.to_string());
        }
        if draft.batch == 0 {
            return invalid("batch", "1 or more", "0".to_owned());
        }
        let (now, id) = (txn.info().time, txn.unique_number());
        let mut rows = open(txn, &self.barriers, definition)?;
        let mut row = RowDraft::default()
            .field("u", draft.run.as_str())
            .field("n", draft.asset.node())
            .field("q", BarrierState::Open.number())
            .field("h", draft.threshold)
            .field("m", draft.key_length_max as u64)
            .field("d", draft.batch)
            .field("c", now)
            .field("t", after(now, draft.time));
        if draft.oversize == Oversize::Warn {
            row = row.field("z", true);
        }
        if let Some((parent, key)) = &draft.parent {
            let above = barrier_of(&mut rows, *parent)?.1;
            above.demand_open()?;
            let item_row = item_row(&mut rows, *parent, key)?;
            let item = item_of(&item_row, above.state)?;
            let state = if item_row.has("c") { "one that has a barrier" } else { item.state.name() };
            if item.state.is_over() || item_row.has("c") {
                let (what, name) = ("the item", item_name(*parent, key));
                let expected = "not done, and without a barrier of its own";
                return Err(RunsError::InvalidState { what, name, state, expected });
            }
            rows.put(item_row.key(), item_row.to_draft().field("c", id))?;
            row = row.field("w", vec![(*parent).into(), key.clone()]);
        }
        rows.put(barrier_key(id), row)?;
        Ok(id)
    }

    /// Adds items to a barrier, and sets where its reader goes on, in one commit: so after a crash no item comes twice, and
    /// none is missing. The whole key says which item it is.
    ///
    /// # Errors
    /// [`KeyTooLarge`](RunsError::KeyTooLarge), and none was added; [`InvalidState`](RunsError::InvalidState) if the barrier is not
    /// open, or is closed; [`NotFound`](RunsError::NotFound); [`Store`](RunsError::Store).
    pub fn add_items(
        &self,
        txn: &mut WriteTxn<'_>,
        id: BarrierId,
        keys: &[Part],
        checkpoint: Option<Bytes>,
    ) -> Result<Added> {
        let mut rows = open(txn, &self.barriers, definition)?;
        let (row, barrier) = barrier_of(&mut rows, id)?;
        barrier.demand_open()?;
        if barrier.is_closed {
            let (what, name) = ("the barrier", id.to_string());
            return Err(RunsError::InvalidState { what, name, state: "closed", expected: "open for more" });
        }
        let limit = usize::try_from(number::<u64>(&row, "m")).unwrap_or(KEY_LENGTH_MAX);
        let may_warn = row.has("z");
        let mut added = Added::default();
        for (index, key) in keys.iter().enumerate() {
            let size = Tuple::encode(std::slice::from_ref(key)).map_or(usize::MAX, |encoded| encoded.len());
            if size > limit {
                if !may_warn || size > KEY_LENGTH_LIMIT {
                    let limit = if may_warn { KEY_LENGTH_LIMIT } else { limit };
                    return Err(RunsError::KeyTooLarge { barrier: id, index, size, limit });
                }
                added.oversize += 1;
            }
        }
        let batch = number::<u64>(&row, "d").max(1);
        for key in keys {
            let place = barrier.total + added.added;
            let draft = RowDraft::default()
                .field("y", id)
                .field("s", ItemState::Pending.number())
                .field("o", place)
                .field("d", place / batch);
            match rows.insert(item_key(id, key), draft)? {
                larder::Inserted::First => added.added += 1,
                larder::Inserted::Existing(_) => added.duplicates += 1,
            }
        }
        if let Some(checkpoint) = checkpoint {
            rows.put(barrier_key(id), row.to_draft().value(checkpoint))?;
        }
        Ok(added)
    }

    /// Says that no more items will come: the barrier is finished when all that there are are done, now or later.
    ///
    /// # Errors
    /// [`InvalidState`](RunsError::InvalidState) if it is not open; [`NotFound`](RunsError::NotFound);
    /// [`Store`](RunsError::Store).
    pub fn close_barrier(&self, txn: &mut WriteTxn<'_>, id: BarrierId) -> Result<Progress> {
        let mut rows = open(txn, &self.barriers, definition)?;
        let (row, barrier) = barrier_of(&mut rows, id)?;
        barrier.demand_open()?;
        rows.put(barrier_key(id), row.to_draft().field("x", true))?;
        settle(&mut rows, id)
    }

    /// Takes up to so many items that nobody is at, in their order.
    ///
    /// # Errors
    /// As [`Runs::close_barrier`]; also if a barrier that it is an item of is not open.
    pub fn take_items(&self, txn: &mut WriteTxn<'_>, id: BarrierId, limit: usize) -> Result<Vec<Item>> {
        let mut rows = open(txn, &self.barriers, definition)?;
        let mut above = Some(id);
        while let Some(id) = above {
            let barrier = barrier_of(&mut rows, id)?.1;
            barrier.demand_open()?;
            above = barrier.parent.map(|(id, _)| id);
        }
        let range = RowRange::all().with(id).with(ItemState::Pending.number()).limit(limit);
        let pending = rows.find("states", &range)?.rows;
        let mut taken = Vec::with_capacity(pending.len());
        for row in pending {
            rows.put(row.key(), row.to_draft().field("s", ItemState::Executing.number()))?;
            taken.push(Item { state: ItemState::Executing, ..item_of(&row, BarrierState::Open)? });
        }
        Ok(taken)
    }

    /// Gives an item back that was taken, for others; tells whether somebody was at it.
    ///
    /// # Errors
    /// As [`Runs::complete_item`].
    pub fn release_item(&self, txn: &mut WriteTxn<'_>, id: BarrierId, key: &Part) -> Result<bool> {
        let mut rows = open(txn, &self.barriers, definition)?;
        barrier_of(&mut rows, id)?.1.demand_open()?;
        let row = item_row(&mut rows, id, key)?;
        if ItemState::of_number(row.integer("s")) != Some(ItemState::Executing) {
            return Ok(false);
        }
        rows.put(row.key(), row.to_draft().field("s", ItemState::Pending.number()))?;
        Ok(true)
    }

    /// Says that an item is done, and what came of it. Whoever finishes the barrier with it is told, once.
    ///
    /// # Errors
    /// [`InvalidState`](RunsError::InvalidState) if the barrier is not open and the item is not done;
    /// [`NotFound`](RunsError::NotFound) for either; [`Store`](RunsError::Store).
    pub fn complete_item(
        &self,
        txn: &mut WriteTxn<'_>,
        id: BarrierId,
        key: &Part,
        result: impl Into<Bytes>,
    ) -> Result<Progress> {
        self.end_item(txn, id, key, ItemState::Completed, result.into())
    }

    /// Says that an item has failed, and why.
    ///
    /// # Errors
    /// As [`Runs::complete_item`].
    pub fn fail_item(
        &self,
        txn: &mut WriteTxn<'_>,
        id: BarrierId,
        key: &Part,
        error: &str,
    ) -> Result<Progress> {
        let error = cut(error, ERROR_LENGTH_MAX).to_owned();
        self.end_item(txn, id, key, ItemState::Failed, error.into())
    }

    fn end_item(
        &self,
        txn: &mut WriteTxn<'_>,
        id: BarrierId,
        key: &Part,
        state: ItemState,
        result: Bytes,
    ) -> Result<Progress> {
        let mut rows = open(txn, &self.barriers, definition)?;
        let (_, barrier) = barrier_of(&mut rows, id)?;
        let row = item_row(&mut rows, id, key)?;
        let item = item_of(&row, barrier.state)?;
        if item.state.is_over() {
            return Ok(Progress::AlreadyDone(item.state));
        }
        barrier.demand_open()?;
        rows.put(row.key(), row.to_draft().value(result).field("s", state.number()))?;
        settle(&mut rows, id)
    }

    /// Calls a barrier off: items that are not done have failed. Of barriers that are items of it, nothing can be taken any
    /// more.
    ///
    /// # Errors
    /// As [`Runs::close_barrier`].
    pub fn cancel_barrier(&self, txn: &mut WriteTxn<'_>, id: BarrierId) -> Result<CalledOff> {
        let mut rows = open(txn, &self.barriers, definition)?;
        barrier_of(&mut rows, id)?.1.demand_open()?;
        let (items, ended) = give_up(&mut rows, id, BarrierState::Cancelled)?;
        Ok(CalledOff { items, ended })
    }

    /// Calls off barriers whose time is over, at most `limit` of them; gives the numbers of all that ended.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn sweep_barriers(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<Vec<BarrierId>> {
        let now = txn.info().time;
        let mut rows = open(txn, &self.barriers, definition)?;
        let due = rows.find("until", &RowRange::all().at_most(now).limit(limit))?.rows;
        let ids: Vec<BarrierId> = due.iter().filter_map(id_of).collect();
        let mut ended = Vec::new();
        for id in ids {
            if barrier_of(&mut rows, id)?.1.state == BarrierState::Open {
                let (_, finished) = give_up(&mut rows, id, BarrierState::Failed)?;
                ended.extend(finished.into_iter().map(|(id, _)| id));
            }
        }
        Ok(ended)
    }

    /// Goes on with what comes after a barrier that is finished; true for one caller, ever.
    ///
    /// # Errors
    /// [`InvalidState`](RunsError::InvalidState) if it is open; [`NotFound`](RunsError::NotFound);
    /// [`Store`](RunsError::Store).
    pub fn join(&self, txn: &mut WriteTxn<'_>, id: BarrierId) -> Result<bool> {
        let mut rows = open(txn, &self.barriers, definition)?;
        let (row, barrier) = barrier_of(&mut rows, id)?;
        if barrier.state == BarrierState::Open {
            let (name, state) = (id.to_string(), barrier.state.name());
            return Err(RunsError::InvalidState { what: "the barrier", name, state, expected: "finished" });
        }
        if row.has("j") {
            return Ok(false);
        }
        rows.put(barrier_key(id), row.to_draft().field("j", true))?;
        Ok(true)
    }

    /// Gives a barrier.
    ///
    /// # Errors
    /// [`NotFound`](RunsError::NotFound), [`Store`](RunsError::Store).
    pub fn barrier(&self, view: &ReadTxn, id: BarrierId) -> Result<Barrier> {
        let missing = || RunsError::NotFound { what: "barrier", name: id.to_string() };
        let mut rows = found(view.collection(&self.barriers))?.ok_or_else(missing)?;
        Ok(barrier_of(&mut rows, id)?.1)
    }

    /// Gives the barriers of a run, the first one first.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn barriers(&self, view: &ReadTxn, run: &str) -> Result<Vec<Barrier>> {
        let Some(mut rows) = found(view.collection(&self.barriers))? else { return Ok(Vec::new()) };
        let of_run = rows.all(Some("run"), &RowRange::all().with(run))?;
        let mut barriers = Vec::with_capacity(of_run.len());
        for row in &of_run {
            if let Some(id) = id_of(row) {
                barriers.push(barrier_of_row(&mut rows, id, row)?);
            }
        }
        Ok(barriers)
    }

    /// Gives all items of a barrier in their order, with what came of them.
    ///
    /// # Errors
    /// [`NotFound`](RunsError::NotFound), [`Store`](RunsError::Store).
    pub fn items(&self, view: &ReadTxn, id: BarrierId) -> Result<Vec<Item>> {
        let Some(mut rows) = found(view.collection(&self.barriers))? else { return Ok(Vec::new()) };
        let state = barrier_of(&mut rows, id)?.1.state;
        let items = rows.all(Some("items"), &RowRange::all().with(id))?;
        items.iter().map(|row| item_of(row, state)).collect()
    }

    /// Gives the items of a barrier in a state, in their order, at most `limit` of them.
    ///
    /// # Errors
    /// [`NotFound`](RunsError::NotFound), [`Store`](RunsError::Store).
    pub fn items_in(
        &self,
        view: &ReadTxn,
        id: BarrierId,
        state: ItemState,
        limit: usize,
    ) -> Result<Vec<Item>> {
        let Some(mut rows) = found(view.collection(&self.barriers))? else { return Ok(Vec::new()) };
        let barrier = barrier_of(&mut rows, id)?.1.state;
        let states = match (barrier, state) {
            (BarrierState::Open, state) => vec![state],
            (_, ItemState::Failed) => vec![ItemState::Failed, ItemState::Pending, ItemState::Executing],
            (_, ItemState::Completed) => vec![state],
            _ => Vec::new(),
        };
        let mut items: Vec<Item> = Vec::new();
        for state in states {
            let range = RowRange::all().with(id).with(state.number()).limit(limit - items.len());
            let page = rows.find("states", &range)?.rows;
            items.extend(page.iter().map(|row| item_of(row, barrier)).collect::<Result<Vec<_>>>()?);
        }
        Ok(items)
    }
}

/// Finishes a barrier whose items are all done, and the one that it is an item of, and so on.
fn settle(rows: &mut CollectionMut<'_, '_>, id: BarrierId) -> Result<Progress> {
    let (row, barrier) = barrier_of(rows, id)?;
    let left = barrier.left();
    if left > 0 || !barrier.is_closed {
        return Ok(Progress::Open { left });
    }
    let state = barrier.outcome();
    let finished = end(rows, row, &barrier, state)?;
    Ok(if finished.len() > 1 { Progress::FinishedUpTo(finished) } else { Progress::Finished(state) })
}

/// Ends a barrier, and the item of another one that it is, and that one if it is finished with it, and so on; gives all that
/// ended.
fn end(
    rows: &mut CollectionMut<'_, '_>,
    row: Row,
    barrier: &Barrier,
    state: BarrierState,
) -> Result<Vec<(BarrierId, BarrierState)>> {
    let mut finished = vec![(barrier.id, state)];
    let (mut row, mut parent, mut state) = (row, barrier.parent.clone(), state);
    loop {
        rows.put(row.key(), row.to_draft().field("q", state.number()).without("t"))?;
        let Some((id, key)) = parent else { return Ok(finished) };
        // The one above may be removed, as all of its run was.
        if rows.get(barrier_key(id))?.is_none() {
            return Ok(finished);
        }
        let above = barrier_of(rows, id)?.1;
        let Some(item) = rows.get(item_key(id, &key))? else { return Ok(finished) };
        let is_done = item_of(&item, above.state)?.state.is_over();
        if is_done || above.state != BarrierState::Open {
            return Ok(finished);
        }
        let is_good = matches!(state, BarrierState::Completed | BarrierState::PartialFailure);
        let ended = if is_good { ItemState::Completed } else { ItemState::Failed };
        rows.put(item.key(), item.to_draft().field("s", ended.number()))?;
        let (above_row, above) = barrier_of(rows, id)?;
        if above.left() > 0 || !above.is_closed {
            return Ok(finished);
        }
        state = above.outcome();
        finished.push((id, state));
        (row, parent) = (above_row, above.parent);
    }
}

/// Ends a barrier whatever is not done: that has failed with it, without a look at each item. Gives how many these are, and
/// all barriers that ended.
fn give_up(
    rows: &mut CollectionMut<'_, '_>,
    id: BarrierId,
    state: BarrierState,
) -> Result<(u64, Vec<(BarrierId, BarrierState)>)> {
    let (row, barrier) = barrier_of(rows, id)?;
    let finished = end(rows, row, &barrier, state)?;
    Ok((barrier.left(), finished))
}
