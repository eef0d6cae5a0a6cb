//! Approvals: somebody is asked, and decides once.

use std::time::Duration;

use bytes::Bytes;
use larder::{
    CollectionDefinition, IndexDefinition, Micros, Part, ReadTxn, Row, RowDraft, RowRange, WriteTxn,
};

use super::{NAME_LENGTH_MAX, Result, Runs, RunsError, check_name, check_of};
use crate::place::{after, cut, found, number, open, text};
use crate::state::states;

const REASON_LENGTH_MAX: usize = 1_000;

states! {
    /// How an approval is.
    ApprovalState {
        /// Nobody has decided.
        Pending => "pending",
        /// Somebody else is to decide.
        Escalated => "escalated",
        /// Yes.
        Approved => "approved",
        /// Yes, with changes.
        Modified => "modified",
        /// No.
        Rejected => "rejected",
        /// Nobody has decided in time.
        Expired => "expired",
    }
}

impl ApprovalState {
    fn of(row: &Row) -> Self {
        Self::of_number(row.integer("s")).unwrap_or(Self::Expired)
    }

    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Escalated)
    }
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// Yes.
    Approved,
    /// Yes, with these changes.
    Modified(Bytes),
    /// No, and why.
    Rejected(String),
}

/// An approval.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Approval {
    /// Its number.
    pub id: u64,
    /// What it is about.
    pub of: Part,
    /// At which point.
    pub checkpoint: String,
    /// How it is.
    pub state: ApprovalState,
    /// Until when somebody is to decide.
    pub until: Option<Micros>,
    /// Who decided.
    pub by: Option<String>,
    /// When.
    pub decided: Option<Micros>,
    /// Why not.
    pub reason: Option<String>,
    /// Who is to decide, after it was escalated.
    pub escalated_to: Option<String>,
    /// How often it was.
    pub escalations: u32,
    /// What is to be known to decide; the changes, when it was approved with some.
    pub context: Bytes,
}

fn definition() -> CollectionDefinition {
    let open = [ApprovalState::Pending, ApprovalState::Escalated].map(ApprovalState::number);
    CollectionDefinition::new()
        .index(IndexDefinition::new("of").by("m"))
        .index(IndexDefinition::new("state").by("s"))
        .index(IndexDefinition::new("until").by("t").only("s", open))
}

fn approval_of(row: &Row) -> Approval {
    let id = match row.key().parts() {
        [Part::Integer(id)] => u64::try_from(*id).unwrap_or(0),
        _ => 0,
    };
    Approval {
        id,
        of: row.field("m").unwrap_or(Part::Nil),
        checkpoint: text(row, "k"),
        state: ApprovalState::of(row),
        until: row.integer("t"),
        by: row.text("b").map(String::from),
        decided: row.integer("e"),
        reason: row.text("r").map(String::from),
        escalated_to: row.text("x").map(String::from),
        escalations: number(row, "n"),
        context: row.value().clone(),
    }
}

impl Runs {
    /// Asks for an approval, for so long; gives its number.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName) for the checkpoint; [`Store`](RunsError::Store).
    pub fn request_approval(
        &self,
        txn: &mut WriteTxn<'_>,
        of: impl Into<Part>,
        checkpoint: &str,
        context: impl Into<Bytes>,
        time: Duration,
    ) -> Result<u64> {
        check_name("checkpoint", checkpoint, NAME_LENGTH_MAX)?;
        let (now, id, of) = (txn.info().time, txn.unique_number(), of.into());
        check_of(&of)?;
        let draft = RowDraft::new(context)
            .field("m", of)
            .field("k", checkpoint)
            .field("s", ApprovalState::Pending.number())
            .field("t", after(now, time));
        open(txn, &self.approvals, definition)?.put(id, draft)?;
        Ok(id)
    }

    fn change_approval(
        &self,
        txn: &mut WriteTxn<'_>,
        id: u64,
        change: impl FnOnce(&Approval, RowDraft) -> RowDraft,
    ) -> Result<()> {
        let mut rows = open(txn, &self.approvals, definition)?;
        let missing = || RunsError::NotFound { what: "approval", name: id.to_string() };
        let row = rows.get(id)?.ok_or_else(missing)?;
        let approval = approval_of(&row);
        if !approval.state.is_open() {
            let (name, state) = (id.to_string(), approval.state.name());
            return Err(RunsError::InvalidState { what: "the approval", name, state, expected: "undecided" });
        }
        rows.put(id, change(&approval, row.to_draft()))?;
        Ok(())
    }

    /// Decides, once, in the caller's name. One whose time is over and that was not [seen to](Runs::expire_approvals) can be
    /// decided still.
    ///
    /// # Errors
    /// [`NotFound`](RunsError::NotFound); [`InvalidState`](RunsError::InvalidState) if it was decided or has expired;
    /// [`Store`](RunsError::Store).
    pub fn decide(&self, txn: &mut WriteTxn<'_>, id: u64, decided: &Decided) -> Result<()> {
        let (now, by) = (txn.info().time, txn.principal().to_owned());
        self.change_approval(txn, id, |_, draft| {
            let draft = draft.field("b", by).field("e", now).without("t");
            match decided {
                Decided::Approved => draft.field("s", ApprovalState::Approved.number()),
                Decided::Modified(changes) => {
                    draft.value(changes.clone()).field("s", ApprovalState::Modified.number())
                }
                Decided::Rejected(reason) => {
                    let reason = cut(reason, REASON_LENGTH_MAX);
                    draft.field("s", ApprovalState::Rejected.number()).field("r", reason)
                }
            }
        })
    }

    /// Lets somebody else decide, for so long from now on.
    ///
    /// # Errors
    /// As [`Runs::decide`], and [`InvalidName`](RunsError::InvalidName).
    pub fn escalate(&self, txn: &mut WriteTxn<'_>, id: u64, to: &str, time: Duration) -> Result<()> {
        check_name("escalated_to", to, NAME_LENGTH_MAX)?;
        let until = after(txn.info().time, time);
        self.change_approval(txn, id, |approval, draft| {
            let draft = draft.field("s", ApprovalState::Escalated.number()).field("x", to);
            draft.field("n", approval.escalations + 1).field("t", until)
        })
    }

    /// Lets approvals expire whose time is over, at most `limit` of them; gives their numbers.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn expire_approvals(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<Vec<u64>> {
        let now = txn.info().time;
        let mut rows = open(txn, &self.approvals, definition)?;
        let due = rows.find("until", &RowRange::all().at_most(now).limit(limit))?.rows;
        for row in &due {
            let draft = row.to_draft().field("s", ApprovalState::Expired.number());
            rows.put(row.key(), draft.field("e", now).without("t"))?;
        }
        Ok(due.iter().map(|row| approval_of(row).id).collect())
    }

    /// Gives an approval, if it is there.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn approval(&self, view: &ReadTxn, id: u64) -> Result<Option<Approval>> {
        let Some(rows) = found(view.collection(&self.approvals))? else { return Ok(None) };
        Ok(rows.get(id)?.as_ref().map(approval_of))
    }

    /// Gives approvals in a state, the oldest first, at most `limit` of them.
    ///
    /// # Errors
    /// [`Store`](RunsError::Store).
    pub fn approvals(&self, view: &ReadTxn, state: ApprovalState, limit: usize) -> Result<Vec<Approval>> {
        let Some(rows) = found(view.collection(&self.approvals))? else { return Ok(Vec::new()) };
        let page = rows.find("state", &RowRange::all().with(state.number()).limit(limit))?;
        Ok(page.rows.iter().map(approval_of).collect())
    }
}
