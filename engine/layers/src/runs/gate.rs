//! Gates: something waits until somebody outside says a token, once.

use std::time::Duration;

use bytes::Bytes;
use larder::{
    CollectionDefinition, CollectionMut, IndexDefinition, Micros, Part, ReadTxn, Row, RowDraft, RowRange,
    WriteTxn,
};

use super::{NAME_LENGTH_MAX, Result, Runs, RunsError, check_name, check_of, text_of};
use crate::outbox::Retry;
use crate::place::{after, cut, found, number, open, text};
use crate::queue::Backoff;
use crate::state::states;

/// The most bytes of a token.
const TOKEN_LENGTH_MAX: usize = 1_024;
/// How long a gate waits, if nothing else is said.
const TIME: Duration = Duration::from_secs(3_600);

states! {
    /// How a gate is.
    GateState {
        /// Nobody has said the token.
        Waiting => "waiting",
        /// Somebody has.
        Signaled => "signaled",
        /// Nobody has in time.
        TimedOut => "timed out",
        /// It was called off.
        Cancelled => "cancelled",
    }
}

impl GateState {
    pub(super) fn of(row: &Row) -> Self {
        Self::of_number(row.integer("s")).unwrap_or(Self::Cancelled)
    }
}

/// What happens to a gate that nobody opens in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// It has timed out.
    Fail,
    /// It is called off.
    Cancel,
    /// It waits again, so often and for so long; then it has timed out.
    Retry(Retry),
}

impl OnTimeout {
    /// Waits again three times: for 5, 15 and 45 minutes.
    pub const RETRY: Self = Self::Retry(Retry {
        backoff: Backoff::exponential(Duration::from_secs(300), 3, Duration::from_secs(86_400)),
        retries_max: 3,
    });
}

/// A gate that is to be opened.
#[derive(Debug, Clone)]
#[must_use]
pub struct GateDraft {
    run: String,
    token: String,
    of: Option<Part>,
    time: Duration,
    on_timeout: OnTimeout,
}

impl GateDraft {
    /// Begins a gate of a run with a token: 1 to 1 024 bytes that are not blank. The same token in another run is another
    /// gate. It waits for an hour, and has timed out then, if nothing else is said.
    pub fn new(run: impl Into<String>, token: impl Into<String>) -> Self {
        Self { run: run.into(), token: token.into(), of: None, time: TIME, on_timeout: OnTimeout::Fail }
    }

    /// Says what waits at it; nothing waits at two gates.
    pub fn of(mut self, subject: impl Into<Part>) -> Self {
        self.of = Some(subject.into());
        self
    }

    /// Sets for how long it waits.
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Says what happens when nobody comes in time.
    pub fn on_timeout(mut self, on_timeout: OnTimeout) -> Self {
        self.on_timeout = on_timeout;
        self
    }
}

/// A gate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gate {
    /// The run.
    pub run: String,
    /// The token.
    pub token: String,
    /// How it is.
    pub state: GateState,
    /// What waits at it.
    pub of: Option<Part>,
    /// Until when it waits.
    pub until: Option<Micros>,
    /// How often it has waited again.
    pub retries: u32,
    /// When the token was said.
    pub signaled: Option<Micros>,
    /// By whom, as he says.
    pub source: String,
    /// What was said with it.
    pub payload: Bytes,
}

/// What became of a token that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Signaled {
    /// It opened the gate.
    First,
    /// Another one did, before: what was said with this one is not kept.
    Already,
}

/// What became of gates whose time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[must_use]
pub struct SweptGates {
    /// How many have timed out.
    pub timed_out: u64,
    /// How many were called off.
    pub cancelled: u64,
    /// How many wait again.
    pub retried: u64,
}

fn definition() -> CollectionDefinition {
    let waiting = [GateState::Waiting.number()];
    CollectionDefinition::new()
        .index(IndexDefinition::new("of").unique().by("m"))
        .index(IndexDefinition::new("until").by("t").only("s", waiting))
        .index(IndexDefinition::new("state").by("s").by("c"))
}

fn gate_of(row: &Row) -> Gate {
    let parts = row.key().parts();
    Gate {
        run: text_of(parts.first()),
        token: text_of(parts.get(1)),
        state: GateState::of(row),
        of: row.field("m"),
        until: row.integer("t"),
        retries: number(row, "n"),
        signaled: row.integer("g"),
        source: text(row, "x"),
        payload: row.value().clone(),
    }
}

fn duplicate(owner: String) -> RunsError {
    RunsError::Duplicate { what: "a gate", owner }
}

impl Runs {
    /// Opens a gate, unless there is one of its token in its run, whatever became of that.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName) for run and token; [`Duplicate`](RunsError::Duplicate);
    /// [`Store`](RunsError::Store).
    pub fn open_gate(&self, txn: &mut WriteTxn<'_>, draft: &GateDraft) -> Result<()> {
        check_name("run", &draft.run, NAME_LENGTH_MAX)?;
        check_name("token", &draft.token, TOKEN_LENGTH_MAX)?;
        let now = txn.info().time;
        let mut rows = open(txn, &self.gates, definition)?;
        let key = (draft.run.as_str(), draft.token.as_str());
        if let Some(row) = rows.get(key)? {
            return Err(duplicate(format!("{:?}", row.field("m").unwrap_or(Part::Nil))));
        }
        if let Some(of) = &draft.of {
            check_of(of)?;
            let others = rows.find("of", &RowRange::all().with(of.clone()).limit(1))?.rows;
            if let Some(other) = others.first() {
                // A token is as good as a key: whose it is does not tell it.
                return Err(duplicate(format!("the run {}", text_of(other.key().parts().first()))));
            }
        }
        let mut row = RowDraft::default()
            .field("s", GateState::Waiting.number())
            .field("c", now)
            .field("t", after(now, draft.time));
        if let Some(of) = &draft.of {
            row = row.field("m", of.clone());
        }
        match draft.on_timeout {
            OnTimeout::Fail => {}
            OnTimeout::Cancel => row = row.field("z", false),
            OnTimeout::Retry(retry) => row = row.field("z", retry.to_part()),
        }
        rows.put(key, row)?;
        Ok(())
    }

    fn waiting(
        rows: &CollectionMut<'_, '_>,
        run: &str,
        token: &str,
    ) -> Result<std::result::Result<Row, GateState>> {
        // What cannot be a token is none.
        let missing = || RunsError::NotFound { what: "gate of this token in the run", name: run.to_owned() };
        check_name("token", token, TOKEN_LENGTH_MAX).map_err(|_| missing())?;
        let row = rows.get((run, token))?.ok_or_else(missing)?;
        Ok(match GateState::of(&row) {
            GateState::Waiting => Ok(row),
            state => Err(state),
        })
    }

    /// Says a token, with what else is to be said. Of many who do, one opens the gate. A gate whose time is over and that was
    /// not [seen to](Runs::sweep_gates) waits still.
    ///
    /// # Errors
    /// [`NotFound`](RunsError::NotFound), also for what cannot be a token; [`InvalidState`](RunsError::InvalidState) if it has
    /// timed out or was called off; [`Store`](RunsError::Store).
    pub fn signal(
        &self,
        txn: &mut WriteTxn<'_>,
        run: &str,
        token: &str,
        payload: impl Into<Bytes>,
        source: &str,
    ) -> Result<Signaled> {
        let now = txn.info().time;
        let mut rows = open(txn, &self.gates, definition)?;
        match Self::waiting(&rows, run, token)? {
            Ok(row) => {
                let draft = row.to_draft().value(payload).field("s", GateState::Signaled.number());
                let source = cut(source, NAME_LENGTH_MAX);
                rows.put((run, token), draft.field("g", now).field("x", source).without("t"))?;
                Ok(Signaled::First)
            }
            Err(GateState::Signaled) => Ok(Signaled::Already),
            Err(state) => Err(not_waiting(run, state)),
        }
    }

    /// Calls a gate off that waits.
    ///
    /// # Errors
    /// [`NotFound`](RunsError::NotFound); [`InvalidState`](RunsError::InvalidState); [`Store`](RunsError::Store).
    pub fn cancel_gate(&self, txn: &mut WriteTxn<'_>, run: &str, token: &str) -> Result<()> {
        let mut rows = open(txn, &self.gates, definition)?;
        let row = Self::waiting(&rows, run, token)?.map_err(|state| not_waiting(run, state))?;
        rows.put((run, token), row.to_draft().field("s", GateState::Cancelled.number()).without("t"))?;
        Ok(())
    }

    /// Sees to gates whose time is over, at most `limit` of them.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn sweep_gates(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<SweptGates> {
        let now = txn.info().time;
        let mut rows = open(txn, &self.gates, definition)?;
        let mut swept = SweptGates::default();
        for row in rows.find("until", &RowRange::all().at_most(now).limit(limit))?.rows {
            let (gate, draft) = (gate_of(&row), row.to_draft());
            let end = |draft: RowDraft, state: GateState| draft.field("s", state.number()).without("t");
            let draft = match row.field("z").as_ref().map(Retry::from_part) {
                Some(Some(Retry { backoff, retries_max })) if gate.retries < retries_max => {
                    swept.retried += 1;
                    let until = after(now, backoff.wait(gate.retries + 1));
                    draft.field("n", gate.retries + 1).field("t", until)
                }
                Some(None) => {
                    swept.cancelled += 1;
                    end(draft, GateState::Cancelled)
                }
                _ => {
                    swept.timed_out += 1;
                    end(draft, GateState::TimedOut)
                }
            };
            rows.put(row.key(), draft)?;
        }
        Ok(swept)
    }

    /// Gives a gate, if it is there.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn gate(&self, view: &ReadTxn, run: &str, token: &str) -> Result<Option<Gate>> {
        let Some(rows) = found(view.collection(&self.gates))? else { return Ok(None) };
        if check_name("token", token, TOKEN_LENGTH_MAX).is_err() {
            return Ok(None);
        }
        Ok(rows.get((run, token))?.as_ref().map(gate_of))
    }

    /// Gives gates in a state, the oldest first, at most `limit` of them.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn gates(&self, view: &ReadTxn, state: GateState, limit: usize) -> Result<Vec<Gate>> {
        let Some(rows) = found(view.collection(&self.gates))? else { return Ok(Vec::new()) };
        let page = rows.find("state", &RowRange::all().with(state.number()).limit(limit))?;
        Ok(page.rows.iter().map(gate_of).collect())
    }
}

fn not_waiting(run: &str, state: GateState) -> RunsError {
    let name = format!("of the run {run}");
    RunsError::InvalidState { what: "the gate", name, state: state.name(), expected: "waiting" }
}
