//! Work that can be revoked: a claim on a key, with a fence that is compared in every commit made in its name.
//!
//! A claim says that somebody is at work on what will be stored under a key. Others can see it, wait for it, cancel it,
//! or write over it; whoever held it is then told at the next thing it tries, however late, and changes nothing. The
//! fence is a fencing token: M. Kleppmann, "How to do distributed locking", 2016.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_format::{Key, Micros, Status};

use crate::edit::{Annotation, Draft, DraftPayload, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::primitives::ClaimRow;
use crate::session::{Receipt, Session};
use crate::trace;
use crate::txn::WriteTxn;

/// The longest that is slept in one go while a claim is waited for: its holder may let its time pass in silence.
const WAIT_AT_ONCE: Duration = Duration::from_millis(50);

/// What came of something that was done in the name of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Fenceable<T> {
    /// It was done.
    Done(T),
    /// The claim had been revoked; nothing was changed.
    Fenced {
        /// Who revoked it, where that is still known.
        by: Option<String>,
    },
}

impl<T> Fenceable<T> {
    /// Gives what was done, if it was.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Fenced { .. } => None,
        }
    }

    /// Tells whether the claim had been revoked.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }
}

/// What came of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum CancelOutcome {
    /// Whatever was going on is called off.
    Cancelled,
    /// Nothing is known of the key.
    NotFound,
    /// Nothing is going on: the asset is finished, and has this status.
    NotCancellable(Status),
}

/// A claim that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimInfo {
    /// The key.
    pub key: Key,
    /// The fence.
    pub fence: u64,
    /// Who holds it.
    pub owner: String,
    /// The group that it counts in, if it does.
    pub group: Option<String>,
    /// When it was made.
    pub claimed: Micros,
    /// Until when it holds; past it, it holds until somebody takes it over.
    pub until: Micros,
}

impl ClaimInfo {
    pub(crate) fn new(key: Key, row: ClaimRow) -> Self {
        let ClaimRow { fence, claimed, until, owner, group } = row;
        Self { key, fence, owner, group: Some(group).filter(|group| !group.is_empty()), claimed, until }
    }
}

/// A claim that is asked for.
#[derive(Debug)]
#[must_use]
pub struct ClaimRequest<'s> {
    session: &'s Session,
    key: Result<Key>,
    group: Option<(String, u64)>,
    wait_max: Duration,
}

impl<'s> ClaimRequest<'s> {
    pub(crate) fn new(session: &'s Session, key: Result<Key>) -> Self {
        Self { session, key, group: None, wait_max: Duration::ZERO }
    }

    /// Lets at most `limit` claims of a group hold at the same time.
    pub fn in_group(mut self, group: impl Into<String>, limit: u64) -> Self {
        self.group = Some((group.into(), limit));
        self
    }

    /// Waits this long for a claim that somebody else has, or for room in the group; without it, not at all.
    pub fn wait_max(mut self, wait: Duration) -> Self {
        self.wait_max = wait;
        self
    }

    /// Makes the claim, for this time at most; it can be renewed.
    ///
    /// # Errors
    /// [`Claimed`](ErrorKind::Claimed), [`GroupFull`](ErrorKind::GroupFull) when the wait is over; and as
    /// [`WriteTxn::claim`].
    pub fn for_at_most(self, time: Duration) -> Result<Claim> {
        let key = self.key?;
        let mut left = self.wait_max;
        loop {
            let freed = self.session.claims_freed();
            let group = self.group.as_ref().map(|(group, limit)| (group.as_str(), *limit));
            match self.session.write(|txn| txn.claim(&key, time, group)) {
                Ok(receipt) => return Ok(Claim::new(self.session, key, receipt.value, true)),
                Err(error) if is_taken(&error) && !left.is_zero() => {
                    let (wait, began) = (left.min(WAIT_AT_ONCE), self.session.now());
                    let took = if self.session.wait_for_claims(freed, wait) {
                        // Some other claim may have been freed: that took as long as the clock says.
                        let elapsed = self.session.now().saturating_sub(began).max(0);
                        wait.min(Duration::from_micros(elapsed.cast_unsigned()))
                    } else {
                        wait
                    };
                    left = left.saturating_sub(took);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_taken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Claimed { .. } | ErrorKind::GroupFull { .. })
}

/// The right to write under a key, until it is given back or revoked. Dropping it gives it back.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    session: Session,
    key: Key,
    fence: u64,
    /// Whether it is given back when this is dropped.
    is_held: AtomicBool,
}

impl Claim {
    pub(crate) fn new(session: &Session, key: Key, fence: u64, is_held: bool) -> Self {
        Self { session: session.clone(), key, fence, is_held: AtomicBool::new(is_held) }
    }

    /// Gives the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Gives the fence: a number that no other claim of this file ever has.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Stores what was claimed for, and gives the claim back.
    ///
    /// # Errors
    /// As [`Session::put`]; the claim then holds still.
    pub fn put(&self, draft: impl Into<Draft>) -> Result<Fenceable<Receipt<Stored>>> {
        let mut draft = draft.into();
        let ready = self.session.ready(&self.key, &mut draft)?;
        self.run(true, |txn| txn.put_prepared(&self.key, &draft, ready))
    }

    /// Stores what a reader gives, streamed in, and gives the claim back. What was streamed in for a claim that turns
    /// out to be revoked is given up.
    ///
    /// # Errors
    /// As [`Session::put_reader`]; the claim then holds still.
    pub fn put_reader(
        &self,
        reader: &mut dyn Read,
        draft: impl Into<Draft>,
    ) -> Result<Fenceable<Receipt<Stored>>> {
        let mut draft = draft.into();
        draft.payload = DraftPayload::Prepared(self.session.prepare(&self.key, reader, &draft)?);
        self.put(draft)
    }

    /// Changes the metadata of the asset (status, message, log) while the work goes on.
    ///
    /// # Errors
    /// As [`Session::annotate`].
    pub fn annotate(&self, annotation: Annotation) -> Result<Fenceable<Receipt<Stored>>> {
        self.run(false, |txn| txn.annotate(&self.key, annotation))
    }

    /// Runs a transaction in the name of the claim: the fence is compared when it begins, and nobody can revoke the claim
    /// before it has ended.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn write<R>(
        &self,
        closure: impl FnOnce(&mut WriteTxn<'_>) -> Result<R>,
    ) -> Result<Fenceable<Receipt<R>>> {
        self.run(false, closure)
    }

    /// Gives the claim this time from now on; tells whether it holds still.
    ///
    /// # Errors
    /// As [`WriteTxn::claim`].
    pub fn renew(&self, time: Duration) -> Result<bool> {
        Ok(self.session.write(|txn| txn.renew_claim(&self.key, self.fence, time))?.value)
    }

    /// Gives the claim back; tells whether it held still.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn release(self) -> Result<bool> {
        self.is_held.store(false, Ordering::Relaxed);
        Ok(self.session.write(|txn| txn.release_claim(&self.key, self.fence))?.value)
    }

    /// Lets go of the handle and keeps the claim: [`Session::resume_claim`] takes it up again by its fence.
    #[must_use]
    pub fn detach(self) -> u64 {
        self.is_held.store(false, Ordering::Relaxed);
        self.fence
    }

    fn run<R>(
        &self,
        ends: bool,
        act: impl FnOnce(&mut WriteTxn<'_>) -> Result<R>,
    ) -> Result<Fenceable<Receipt<R>>> {
        let receipt = self.session.write(|txn| {
            let holds = txn.act_for_claim(&self.key, self.fence)?;
            let outcome = if holds {
                Fenceable::Done(act(txn)?)
            } else {
                Fenceable::Fenced { by: txn.orphan(self.fence)?.map(|orphan| orphan.by) }
            };
            if ends {
                txn.release_claim(&self.key, self.fence)?;
            }
            Ok(outcome)
        })?;
        if ends {
            self.is_held.store(false, Ordering::Relaxed);
        }
        Ok(match receipt.value {
            Fenceable::Done(value) => Fenceable::Done(Receipt { value, commit: receipt.commit }),
            Fenceable::Fenced { by } => Fenceable::Fenced { by },
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_held.load(Ordering::Relaxed) {
            return;
        }
        let session = self.session.clone().durability(crate::commit::Durability::Lazy);
        if let Err(error) = session.write(|txn| txn.release_claim(&self.key, self.fence)) {
            trace::trouble("a claim that was dropped holds until its time has passed", Some(&error));
        }
    }
}
