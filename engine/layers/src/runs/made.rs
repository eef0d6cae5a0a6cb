//! Making things: a value, its state, what it was made from, and the audit of it, in one commit.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use larder::{
    AggregateDefinition, CollectionDefinition, CollectionMut, Direction, Graph, IndexDefinition, Micros,
    Part, ReadTxn, Row, RowCursor, RowDraft, RowRange, Rows, Tuple, WriteTxn, graph_definition,
};

use super::{Asset, NAME_LENGTH_MAX, Result, Runs, RunsError, check_name, lineage, text_of};
use crate::place::{after, cut, found, number, open, remove_all, text};
use crate::state::states;

/// How long whoever makes something has for it, if he says nothing.
const TIME: Duration = Duration::from_secs(30 * 60);
/// The most bytes of a value.
const VALUE_LENGTH_MAX: u64 = 16 << 20;
const REASON_LENGTH_MAX: usize = 1_000;
const HASH_LENGTH_MAX: usize = 64;

states! {
    /// How making something is going.
    MadeState {
        /// Somebody is at it.
        Running => "running",
        /// It was made.
        Success => "success",
        /// It was not.
        Failed => "failed",
        /// Somebody is to approve of it.
        WaitingApproval => "waiting for approval",
        /// It was decided that it is not to be made in this run.
        Skipped => "skipped",
    }
}

impl MadeState {
    fn of(row: &Row) -> Option<Self> {
        Self::of_number(row.integer("s"))
    }
}

/// The right to make something in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    /// What.
    pub asset: Asset,
    /// The run.
    pub run: String,
    /// A number that nobody else is given.
    pub fence: u64,
}

/// What was made.
#[derive(Debug, Clone)]
#[must_use]
pub struct Produced {
    format: String,
    value: Bytes,
    from: Vec<(Asset, Option<u64>)>,
    hash: Option<Vec<u8>>,
    metadata: Bytes,
    mode: LineageMode,
}

/// What happens when it cannot be kept what something was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineageMode {
    /// Nothing is stored, and the error is told.
    #[default]
    Atomic,
    /// It is stored without, and the error is told beside the success and written down.
    BestEffort,
}

impl Produced {
    /// Says what was made: its format and its bytes, at most 16 MiB. What is larger is put as an asset by the same transaction,
    /// and its key is the value here.
    pub fn new(format: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self {
            format: format.into(),
            value: value.into(),
            from: Vec::new(),
            hash: None,
            metadata: Bytes::new(),
            mode: LineageMode::Atomic,
        }
    }

    /// Says what it was made from: the values that there were when its making began. If one was made again meanwhile, this is
    /// [stale](Runs::is_stale) from the beginning.
    pub fn from(mut self, assets: impl IntoIterator<Item = Asset>) -> Self {
        self.from.extend(assets.into_iter().map(|asset| (asset, None)));
        self
    }

    /// Says what it was made from, and which [version](Runs::version) of it was read.
    pub fn from_version(mut self, asset: Asset, version: u64) -> Self {
        self.from.push((asset, Some(version)));
        self
    }

    /// Says under which hash of its dependencies it was made: 64 bytes at most.
    pub fn hash(mut self, hash: impl Into<Vec<u8>>) -> Self {
        self.hash = Some(hash.into());
        self
    }

    /// Adds what else is to be known.
    pub fn metadata(mut self, metadata: impl Into<Bytes>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Says what happens when the lineage cannot be kept.
    pub fn lineage_mode(mut self, mode: LineageMode) -> Self {
        self.mode = mode;
        self
    }
}

/// What became of what was made.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct Committed {
    /// How long it took, in microseconds.
    pub duration: i64,
    /// Why the lineage was not kept, if it was not.
    pub lineage_error: Option<larder::Error>,
}

/// The making of something in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Materialization {
    /// What.
    pub asset: Asset,
    /// The run.
    pub run: String,
    /// How it is going.
    pub state: MadeState,
    /// When it began.
    pub started: Micros,
    /// When it was over.
    pub ended: Option<Micros>,
    /// Until when somebody has it who is at it; then another may.
    pub until: Option<Micros>,
    /// Who is, or was, at it.
    pub by: String,
    /// Why it failed, or was skipped.
    pub reason: Option<String>,
    /// Under which hash of its dependencies it was made.
    pub hash: Option<Vec<u8>>,
    /// From how many others it was made.
    pub from: u64,
    /// What else is known.
    pub metadata: Bytes,
    pub(super) fence: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRow {
    /// What.
    pub event: String,
    /// When.
    pub time: Micros,
    /// Who did it.
    pub actor: String,
    /// In which run.
    pub run: String,
    /// To which asset.
    pub asset: Option<Asset>,
    /// What else is to be said.
    pub details: String,
}

fn definition() -> CollectionDefinition {
    CollectionDefinition::new()
        .index(IndexDefinition::new("latest").by("n").by_descending("o"))
        .index(IndexDefinition::new("run").by("u").by("o"))
        .index(IndexDefinition::new("state").by("s").by("o"))
        .index(IndexDefinition::new("until").by("t").only("s", [MadeState::Running.number()]))
        .aggregate(AggregateDefinition::new("state").group_by("s"))
        .aggregate(AggregateDefinition::new("run").group_by("u").group_by("s"))
}

pub(super) fn audit_definition() -> CollectionDefinition {
    CollectionDefinition::new()
        .index(IndexDefinition::new("run").by("u"))
        .index(IndexDefinition::new("asset").by("n"))
        .index(IndexDefinition::new("time").by("c"))
}

fn row_key(asset: &Asset, run: &str) -> Vec<Part> {
    [asset.parts(), vec![run.into()]].concat()
}

impl Materialization {
    fn of(row: &Row) -> Result<Self> {
        Self::read(row).ok_or(RunsError::Malformed { what: "what was made" })
    }

    fn read(row: &Row) -> Option<Self> {
        let bytes = |part: &Part| match part {
            Part::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        };
        Some(Self {
            asset: Asset::of_parts(row.key().parts())?,
            run: text_of(row.key().parts().get(2)),
            state: MadeState::of(row)?,
            started: row.integer("g")?,
            ended: row.integer("e"),
            until: row.integer("t"),
            by: text(row, "x"),
            reason: row.text("r").map(String::from),
            hash: row.field("h").as_ref().and_then(bytes),
            from: number(row, "l"),
            metadata: row.value().clone(),
            fence: number(row, "f"),
        })
    }

    fn draft(&self, order: u64) -> RowDraft {
        let mut draft = RowDraft::new(self.metadata.clone())
            .field("n", self.asset.node())
            .field("u", self.run.as_str())
            .field("o", order)
            .field("s", self.state.number())
            .field("g", self.started)
            .field("x", self.by.as_str())
            .field("l", self.from);
        for (name, number) in [("e", self.ended), ("t", self.until)] {
            draft = number.into_iter().fold(draft, |draft, number| draft.field(name, number));
        }
        if self.fence != 0 {
            draft = draft.field("f", self.fence);
        }
        if let Some(reason) = &self.reason {
            draft = draft.field("r", cut(reason, REASON_LENGTH_MAX));
        }
        if let Some(hash) = &self.hash {
            draft = draft.field("h", hash.clone());
        }
        draft
    }
}

/// Gives the key of what was begun last of an asset.
pub(super) fn last_of(rows: &mut CollectionMut<'_, '_>, row: &Row) -> Result<Option<Tuple>> {
    let Some(node) = row.field("n") else { return Ok(None) };
    let last = rows.find("latest", &RowRange::all().with(node).limit(1))?.rows;
    Ok(last.first().map(|last| last.key().clone()))
}

fn order_of(row: &Row) -> u64 {
    number(row, "o")
}

impl Runs {
    /// Begins to make something in a run, for 30 minutes.
    ///
    /// # Errors
    /// As [`Runs::start_for`].
    pub fn start(&self, txn: &mut WriteTxn<'_>, asset: &Asset, run: &str) -> Result<Ticket> {
        self.start_for(txn, asset, run, TIME)
    }

    /// Begins to make something in a run, for a time; then another may. What was made in the same run before is made again,
    /// and stays until then.
    ///
    /// # Errors
    /// [`AlreadyRunning`](RunsError::AlreadyRunning); [`InvalidState`](RunsError::InvalidState) if it waits for somebody's
    /// approval; [`InvalidName`](RunsError::InvalidName) for the run; [`Store`](RunsError::Store).
    pub fn start_for(
        &self,
        txn: &mut WriteTxn<'_>,
        asset: &Asset,
        run: &str,
        time: Duration,
    ) -> Result<Ticket> {
        check_name("run", run, NAME_LENGTH_MAX)?;
        let (now, fence, by) = (txn.info().time, txn.unique_number(), txn.principal().to_owned());
        let mut rows = open(txn, &self.made, definition)?;
        if let Some(row) = rows.get(row_key(asset, run))? {
            let before = Materialization::of(&row)?;
            if let Some(until) =
                before.until.filter(|until| before.state == MadeState::Running && *until > now)
            {
                return Err(RunsError::AlreadyRunning { until });
            }
            if before.state == MadeState::WaitingApproval {
                let (what, name, state) = ("the making of", asset.to_string(), before.state.name());
                return Err(RunsError::InvalidState { what, name, state, expected: "decided first" });
            }
        }
        let made = Materialization {
            asset: asset.clone(),
            run: run.to_owned(),
            state: MadeState::Running,
            started: now,
            ended: None,
            until: Some(after(now, time)),
            by,
            reason: None,
            hash: None,
            from: 0,
            metadata: Bytes::new(),
            fence,
        };
        rows.put(row_key(asset, run), made.draft(fence))?;
        self.note(txn, "started", run, Some(asset), "")?;
        Ok(Ticket { asset: asset.clone(), run: run.to_owned(), fence })
    }

    /// Gives whoever makes something more time, from now on.
    ///
    /// # Errors
    /// [`Fenced`](RunsError::Fenced), [`Store`](RunsError::Store).
    pub fn renew(&self, txn: &mut WriteTxn<'_>, ticket: &Ticket, time: Duration) -> Result<Micros> {
        let until = after(txn.info().time, time);
        self.change(txn, ticket, &[MadeState::Running], |made| made.until = Some(until))?;
        Ok(until)
    }

    /// Changes what is still the caller's.
    fn change(
        &self,
        txn: &mut WriteTxn<'_>,
        ticket: &Ticket,
        states: &[MadeState],
        change: impl FnOnce(&mut Materialization),
    ) -> Result<Materialization> {
        let key = row_key(&ticket.asset, &ticket.run);
        let mut rows = open(txn, &self.made, definition)?;
        let fenced = || RunsError::Fenced { what: ticket.asset.to_string() };
        let row = rows.get(key.clone())?.ok_or_else(fenced)?;
        let mut made = Materialization::of(&row)?;
        if made.fence != ticket.fence || !states.contains(&made.state) {
            return Err(fenced());
        }
        change(&mut made);
        rows.put(key, made.draft(order_of(&row)))?;
        Ok(made)
    }

    /// Stores what was made: the value, the success, the lineage and the audit, or nothing of it. What was the lineage of the
    /// asset before is replaced.
    ///
    /// # Errors
    /// [`Fenced`](RunsError::Fenced); [`Lineage`](RunsError::Lineage), unless it is kept by
    /// [best effort](LineageMode::BestEffort); [`ValueTooLarge`](RunsError::ValueTooLarge); [`Store`](RunsError::Store). The
    /// transaction is to be given up then.
    pub fn commit(&self, txn: &mut WriteTxn<'_>, ticket: &Ticket, produced: Produced) -> Result<Committed> {
        let Produced { format, value, from, hash, metadata, mode } = produced;
        check_name("format", &format, NAME_LENGTH_MAX)?;
        let size = value.len() as u64;
        if size > VALUE_LENGTH_MAX {
            return Err(RunsError::ValueTooLarge { size, limit: VALUE_LENGTH_MAX });
        }
        if hash.as_ref().is_some_and(|hash| hash.len() > HASH_LENGTH_MAX) {
            let (expected, got) = (format!("at most {HASH_LENGTH_MAX} bytes"), "more".to_owned());
            return Err(RunsError::InvalidName { argument: "hash", expected, got });
        }
        let (now, version) = (txn.info().time, txn.unique_number());
        let states = [MadeState::Running, MadeState::WaitingApproval];
        let made = self.change(txn, ticket, &states, |made| {
            (made.state, made.ended, made.until) = (MadeState::Success, Some(now), None);
            (made.hash, made.metadata) = (hash, metadata);
        })?;
        let asset = &ticket.asset;
        let draft = RowDraft::new(value).field("f", format).field("o", version).field("u", made.run.as_str());
        open(txn, &self.values, CollectionDefinition::new)?.put(asset.parts(), draft)?;
        let lineage_error = match self.set_lineage(txn, ticket, &from) {
            Ok(count) => {
                self.change(txn, ticket, &[MadeState::Success], |made| made.from = count)?;
                None
            }
            Err(error) if mode == LineageMode::BestEffort => {
                // Where no lineage can be written at all, there is none to be cleared.
                let _ = self.set_lineage(txn, ticket, &[]);
                self.note(txn, "lineage failed", &made.run, Some(asset), &error.to_string())?;
                Some(error)
            }
            Err(source) => return Err(RunsError::Lineage { source }),
        };
        self.note(txn, "made", &made.run, Some(asset), "")?;
        Ok(Committed { duration: now - made.started, lineage_error })
    }

    /// Replaces the edges to an asset; gives how many there are.
    fn set_lineage(
        &self,
        txn: &mut WriteTxn<'_>,
        ticket: &Ticket,
        from: &[(Asset, Option<u64>)],
    ) -> larder::Result<u64> {
        let (now, node) = (txn.info().time, ticket.asset.node());
        let mut edges = BTreeMap::new();
        for (upstream, version) in from {
            let value = match found(txn.collection(&self.values))? {
                Some(values) => values.get(upstream.parts())?,
                None => None,
            };
            // Which of its values was read: a later one makes this one stale. Of one that came after the making began, it is
            // not known that it was.
            let seen = value.as_ref().map(|value| order_of(value).min(ticket.fence));
            let mut draft = RowDraft::default().field("u", ticket.run.as_str()).field("c", now);
            if let Some(version) = version.or(seen) {
                draft = draft.field("o", version);
            }
            edges.insert(upstream.node(), draft);
        }
        let mut graph = Graph::over(open(txn, &self.lineage, graph_definition)?);
        let before = graph.edges(lineage::MADE_FROM, node.clone(), Direction::Up)?;
        for edge in before.iter().filter(|edge| !edges.contains_key(&edge.from)) {
            graph.disconnect(lineage::MADE_FROM, edge.from.clone(), node.clone())?;
        }
        let count = edges.len() as u64;
        for (from, draft) in edges {
            graph.connect(lineage::MADE_FROM, from, node.clone(), draft)?;
        }
        Ok(count)
    }

    /// Says that something could not be made, and why.
    ///
    /// # Errors
    /// [`Fenced`](RunsError::Fenced), [`Store`](RunsError::Store).
    pub fn fail(&self, txn: &mut WriteTxn<'_>, ticket: &Ticket, reason: &str) -> Result<()> {
        let now = txn.info().time;
        let states = [MadeState::Running, MadeState::WaitingApproval];
        self.change(txn, ticket, &states, |made| {
            (made.state, made.ended, made.until) = (MadeState::Failed, Some(now), None);
            made.reason = Some(reason.to_owned());
        })?;
        self.note(txn, "failed", &ticket.run, Some(&ticket.asset), reason)
    }

    /// Says that something waits for somebody's approval: nobody else makes it meanwhile.
    ///
    /// # Errors
    /// [`Fenced`](RunsError::Fenced), [`Store`](RunsError::Store).
    pub fn wait_for_approval(&self, txn: &mut WriteTxn<'_>, ticket: &Ticket) -> Result<()> {
        self.change(txn, ticket, &[MadeState::Running], |made| {
            (made.state, made.until) = (MadeState::WaitingApproval, None);
        })?;
        self.note(txn, "waiting for approval", &ticket.run, Some(&ticket.asset), "")
    }

    /// Takes up what waits for somebody's approval, to commit it or to say that it has failed: whoever had it before has lost it.
    ///
    /// # Errors
    /// [`InvalidState`](RunsError::InvalidState) if it does not wait; [`Store`](RunsError::Store).
    pub fn take_up(&self, txn: &mut WriteTxn<'_>, asset: &Asset, run: &str) -> Result<Ticket> {
        let (fence, key) = (txn.unique_number(), row_key(asset, run));
        let rows = found(txn.collection(&self.made))?;
        let row = rows.map(|rows| rows.get(key.clone())).transpose()?.flatten();
        let made = row.as_ref().map(Materialization::of).transpose()?;
        match (row, made) {
            (Some(row), Some(made)) if made.state == MadeState::WaitingApproval => {
                let made = Materialization { fence, ..made };
                open(txn, &self.made, definition)?.put(key, made.draft(order_of(&row)))?;
                self.note(txn, "taken up", run, Some(asset), "")?;
                Ok(Ticket { asset: asset.clone(), run: run.to_owned(), fence })
            }
            (_, made) => {
                let (what, name) = ("the making of", asset.to_string());
                let state = made.map_or("not begun", |made| made.state.name());
                Err(RunsError::InvalidState { what, name, state, expected: "waiting for approval" })
            }
        }
    }

    /// Says that something is not made in a run, and why; no value is written.
    ///
    /// # Errors
    /// As [`Runs::start`].
    pub fn skip(&self, txn: &mut WriteTxn<'_>, asset: &Asset, run: &str, reason: &str) -> Result<()> {
        let ticket = self.start(txn, asset, run)?;
        let now = txn.info().time;
        self.change(txn, &ticket, &[MadeState::Running], |made| {
            (made.state, made.ended, made.until) = (MadeState::Skipped, Some(now), None);
            made.reason = Some(reason.to_owned());
        })?;
        self.note(txn, "skipped", run, Some(asset), reason)
    }

    /// Gives what was made last of an asset, with the format it was said to have.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn value(&self, view: &ReadTxn, asset: &Asset) -> Result<Option<(String, Bytes)>> {
        let Some(values) = found(view.collection(&self.values))? else { return Ok(None) };
        Ok(values.get(asset.parts())?.map(|row| (text(&row, "f"), row.value().clone())))
    }

    /// Gives the version of what was made last of an asset: a number that the next one does not have.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn version(&self, view: &ReadTxn, asset: &Asset) -> Result<Option<u64>> {
        let Some(values) = found(view.collection(&self.values))? else { return Ok(None) };
        Ok(values.get(asset.parts())?.as_ref().map(order_of))
    }

    /// Tells whether a value is there.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn exists(&self, view: &ReadTxn, asset: &Asset) -> Result<bool> {
        Ok(self.value(view, asset)?.is_some())
    }

    /// Removes the values of an asset, of one partition or of all, and nothing of what is known of them; gives how many there
    /// were.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn invalidate(&self, txn: &mut WriteTxn<'_>, name: &str, partition: Option<&Part>) -> Result<u64> {
        let Some(mut rows) = found(txn.collection(&self.values))? else { return Ok(0) };
        let range = partition
            .into_iter()
            .fold(RowRange::all().with(name), |range, partition| range.with(partition.clone()));
        let values = Rows::all(&mut rows, None, &range)?;
        remove_all(&mut rows, &values)?;
        for row in &values {
            let asset = Asset::of_parts(row.key().parts());
            self.note(txn, "invalidated", "", asset.as_ref(), "")?;
        }
        Ok(values.len() as u64)
    }

    /// Gives the making of something in a run.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn made(&self, view: &ReadTxn, asset: &Asset, run: &str) -> Result<Option<Materialization>> {
        let Some(rows) = found(view.collection(&self.made))? else { return Ok(None) };
        rows.get(row_key(asset, run))?.as_ref().map(Materialization::of).transpose()
    }

    /// Gives what was begun last of an asset, in any run.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn latest(&self, view: &ReadTxn, asset: &Asset) -> Result<Option<Materialization>> {
        let Some(rows) = found(view.collection(&self.made))? else { return Ok(None) };
        let range = RowRange::all().with(asset.node()).limit(1);
        rows.find("latest", &range)?.rows.first().map(Materialization::of).transpose()
    }

    /// Gives all that was begun in a run, in its order.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn made_in(&self, view: &ReadTxn, run: &str) -> Result<Vec<Materialization>> {
        let Some(mut rows) = found(view.collection(&self.made))? else { return Ok(Vec::new()) };
        let rows = rows.all(Some("run"), &RowRange::all().with(run))?;
        rows.iter().map(Materialization::of).collect()
    }

    /// Tells how many materializations of each state there are: without counting.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn count(&self, view: &ReadTxn, state: MadeState) -> Result<u64> {
        let Some(rows) = found(view.collection(&self.made))? else { return Ok(0) };
        Ok(rows.aggregate("state", &[state.number().into()])?.count)
    }

    /// Gives a hash of the values that something is to be made from: the same as long as none of them is made again.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn dependency_hash(&self, view: &ReadTxn, from: &[Asset]) -> Result<Vec<u8>> {
        let mut hasher = blake3::Hasher::new();
        let values = found(view.collection(&self.values))?;
        for asset in from {
            let order = match &values {
                Some(values) => values.get(asset.parts())?.as_ref().map_or(0, order_of),
                None => 0,
            };
            if let Part::Bytes(node) = asset.node() {
                hasher.update(&(node.len() as u64).to_le_bytes());
                hasher.update(&node);
            }
            hasher.update(&order.to_le_bytes());
        }
        Ok(hasher.finalize().as_bytes().to_vec())
    }

    /// Gives what happened, the oldest first, and where to go on; of a run, if one is named.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn audit(
        &self,
        view: &ReadTxn,
        run: Option<&str>,
        after: Option<RowCursor>,
        limit: usize,
    ) -> Result<(Vec<AuditRow>, Option<RowCursor>)> {
        let Some(rows) = found(view.collection(&self.audit))? else { return Ok((Vec::new(), None)) };
        let range = after.into_iter().fold(RowRange::all().limit(limit), RowRange::after);
        let page = match run {
            Some(run) => rows.find("run", &range.with(run))?,
            None => rows.page(&range)?,
        };
        let row = |row: &Row| AuditRow {
            event: text(row, "v"),
            time: row.integer("c").unwrap_or(0),
            actor: text(row, "a"),
            run: text(row, "u"),
            asset: row.field("n").as_ref().and_then(Asset::of_node),
            details: String::from_utf8_lossy(row.value()).into_owned(),
        };
        Ok((page.rows.iter().map(row).collect(), page.next))
    }
}
