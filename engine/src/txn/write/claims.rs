//! Claims in a write transaction: made, renewed, given back, revoked. A fence is compared here and nowhere else, by the
//! transaction that makes the change.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_format::{EventKind, Key, Micros, Right, Status};

use super::WriteTxn;
use crate::claim::CancelOutcome;
use crate::edit::IntoKey;
use crate::error::{Error, ErrorKind, Result};
use crate::primitives::{
    ClaimRow, FENCES_AT_ONCE, Orphan, Purpose, check_group, deadline_key, group_key, group_prefix,
};
use crate::store::{Table, state_key};

/// Who revokes claims that are past their time.
const UPKEEP: &str = "upkeep";
/// The longest time that a claim can be made for.
const CLAIM_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

impl WriteTxn<'_> {
    /// Claims the right to write under a key until a time from now has passed, and gives the fence: a number that is
    /// never used again in this file. With a group, at most `limit` claims of it hold at the same time.
    ///
    /// A claim that is past its time is taken over; in a group that has no other room, so is one of another key.
    ///
    /// # Errors
    /// [`Claimed`](ErrorKind::Claimed), [`GroupFull`](ErrorKind::GroupFull), [`AccessDenied`](ErrorKind::AccessDenied),
    /// [`IsADirectory`](ErrorKind::IsADirectory), [`InvalidName`](ErrorKind::InvalidName) for a group,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a time of 0 or of more than 100 years.
    pub fn claim(
        &mut self,
        key: impl IntoKey,
        for_at_most: Duration,
        group: Option<(&str, u64)>,
    ) -> Result<u64> {
        self.grow()?;
        let key = key.into_key()?;
        let made = self.make_claim(&key, for_at_most, group).map_err(|error| error.at(&key));
        self.audited(made)
    }

    fn make_claim(&mut self, key: &Key, for_at_most: Duration, group: Option<(&str, u64)>) -> Result<u64> {
        let documents = Arc::clone(&self.documents);
        self.guard(&documents).access(Right::CLAIM, key)?;
        let until = self.until(for_at_most)?;
        if self.reading().row(key)?.is_some_and(|row| row.record.is_directory()) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let held = self.claim_of(key)?;
        if let Some(claim) = held.as_ref().filter(|claim| claim.until > self.info.time) {
            let for_ms = u64::try_from((claim.until - self.info.time) / 1_000).unwrap_or(0);
            return Err(ErrorKind::Claimed { by: claim.owner.clone(), for_ms }.into());
        }
        if let Some((group, limit)) = group {
            check_group(group)?;
            self.make_room_in(group, key, limit)?;
        }
        if let Some(claim) = held {
            let by = self.caller.name().to_owned();
            self.revoke(key, &claim, by);
        }
        let fence = self.next_fence();
        let claim = ClaimRow {
            fence,
            claimed: self.info.time,
            until,
            owner: self.caller.name().to_owned(),
            group: group.map_or_else(String::new, |(group, _)| group.to_owned()),
        };
        self.write_claim(key, &claim);
        self.claims.insert(key.encoded_bytes(), true);
        self.tell(EventKind::ClaimChanged, key);
        Ok(fence)
    }

    /// Gives a claim more time, from now on; tells whether it holds still.
    ///
    /// # Errors
    /// As [`WriteTxn::claim`].
    pub fn renew_claim(&mut self, key: impl IntoKey, fence: u64, for_at_most: Duration) -> Result<bool> {
        let key = key.into_key()?;
        let until = self.until(for_at_most)?;
        self.may_claim(&key)?;
        let Some(claim) = self.claim_of(&key)?.filter(|claim| claim.fence == fence) else { return Ok(false) };
        self.changes.remove(Table::Deadlines, deadline_key(claim.until, Purpose::Claim, key.encoded()));
        self.write_claim(&key, &ClaimRow { until, ..claim });
        Ok(true)
    }

    /// Gives a claim back, or says of one that was revoked that nobody works on it any more; tells whether it held.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey), [`AccessDenied`](ErrorKind::AccessDenied),
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn release_claim(&mut self, key: impl IntoKey, fence: u64) -> Result<bool> {
        let key = key.into_key()?;
        self.may_claim(&key)?;
        if let Some(claim) = self.claim_of(&key)?.filter(|claim| claim.fence == fence) {
            self.remove_claim(&key, &claim);
            self.tell(EventKind::ClaimChanged, &key);
            return Ok(true);
        }
        if self.orphan(fence)?.is_some_and(|orphan| orphan.key == key) {
            self.changes.remove(Table::Claims, Orphan::key(fence));
        }
        Ok(false)
    }

    /// Tells whether a claim holds, and lets what follows in this transaction be done in its name: the claim is not
    /// revoked by it. A claim that is past its time holds until somebody takes it over.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey), [`AccessDenied`](ErrorKind::AccessDenied),
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn act_for_claim(&mut self, key: impl IntoKey, fence: u64) -> Result<bool> {
        let key = key.into_key()?;
        self.may_claim(&key)?;
        let holds = self.claim_of(&key)?.is_some_and(|claim| claim.fence == fence);
        if holds {
            self.acting_for.push(key);
        }
        Ok(holds)
    }

    /// Tells whether a claim was revoked for no other reason than that its time was over: what was done under it is as good as it
    /// was, if nobody has claimed the key since.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey), [`AccessDenied`](ErrorKind::AccessDenied),
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn has_claim_lapsed(&mut self, key: impl IntoKey, fence: u64) -> Result<bool> {
        let key = key.into_key()?;
        self.may_claim(&key)?;
        Ok(self.orphan(fence)?.is_some_and(|orphan| orphan.key == key && orphan.by == UPKEEP))
    }

    /// Calls off whatever is going on under a key: the claim is revoked, and an asset that is waited for or worked on
    /// becomes `Cancelled`.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied): it takes the right to cancel.
    pub fn cancel(&mut self, key: impl IntoKey) -> Result<CancelOutcome> {
        let key = key.into_key()?;
        let cancelled = self.cancel_key(&key).map_err(|error| error.at(&key));
        self.audited(cancelled)
    }

    fn cancel_key(&mut self, key: &Key) -> Result<CancelOutcome> {
        let documents = Arc::clone(&self.documents);
        self.guard(&documents).access(Right::CANCEL, key)?;
        let claim = self.claim_of(key)?;
        let row = self.reading().row(key)?;
        let status = row.as_ref().map(|row| row.record.status());
        let is_cancellable = status.as_ref().is_some_and(|status| status.properties().is_cancellable);
        if let Some(claim) = &claim {
            let by = self.caller.name().to_owned();
            self.revoke(key, claim, by);
        }
        if let Some(row) = row.filter(|_| is_cancellable) {
            self.set_status_of(key, row, Status::Cancelled, EventKind::Annotated)?;
        }
        Ok(match status {
            _ if is_cancellable || claim.is_some() => CancelOutcome::Cancelled,
            Some(status) => CancelOutcome::NotCancellable(status),
            None => CancelOutcome::NotFound,
        })
    }

    /// A fence can be guessed: whoever comes with one needs the right that it took to get it.
    fn may_claim(&self, key: &Key) -> Result<()> {
        let allowed = self.guard(&self.documents).access(Right::CLAIM, key);
        self.audited(allowed.map_err(|error| error.at(key)))
    }

    /// Tells whether somebody has claimed a key.
    pub(super) fn is_claimed(&self, key: &Key) -> bool {
        let is_live = self.claims.get(key.encoded()).copied();
        is_live.unwrap_or_else(|| self.held.claimed.contains(key.encoded()))
    }

    /// Gives the claim of a key, past its time or not.
    pub(super) fn claim_of(&self, key: &Key) -> Result<Option<ClaimRow>> {
        let encoded = key.encoded();
        if !self.is_claimed(key) {
            return Ok(None);
        }
        let row = self.view.get(Some(&self.changes), Table::Claims, &ClaimRow::key(encoded))?;
        row.map(|row| ClaimRow::decode(&row)).transpose()
    }

    /// Gives a claim that was revoked.
    pub(crate) fn orphan(&self, fence: u64) -> Result<Option<Orphan>> {
        let key = Orphan::key(fence);
        let row = self.view.get(Some(&self.changes), Table::Claims, &key)?;
        row.map(|row| Orphan::decode(&key, &row)).transpose()
    }

    /// Revokes the claim of a key that somebody else wrote under.
    pub(super) fn revoke_by_write(&mut self, key: &Key) -> Result<()> {
        if self.acting_for.contains(key) {
            return Ok(());
        }
        if let Some(claim) = self.claim_of(key)? {
            let by = self.caller.name().to_owned();
            self.revoke(key, &claim, by);
        }
        Ok(())
    }

    /// Revokes the claims at and below a place.
    pub(super) fn revoke_below(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        let is_below = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        let claimed = self.held.claimed.iter().chain(self.claims.keys());
        let keys: Vec<_> = claimed.filter(|key| is_below(key)).cloned().collect();
        for key in keys {
            let key = Key::decode(&key).map_err(|error| crate::store::corrupt(error.to_string()))?;
            self.revoke_by_write(&key)?;
        }
        Ok(())
    }

    /// Asks whether the caller may remove what is claimed at and below a place, though nothing may be there yet.
    pub(super) fn may_revoke_below(&self, start: &[u8], end: Option<&[u8]>) -> Result<()> {
        let is_below = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        for key in self.held.claimed.iter().filter(|key| is_below(key)) {
            let key = Key::decode(key).map_err(|error| crate::store::corrupt(error.to_string()))?;
            self.guard(&self.documents).access(Right::DELETE, &key)?;
        }
        Ok(())
    }

    /// Revokes a claim that is past its time.
    pub(crate) fn revoke_if_due(&mut self, key: &Key, at: Micros) -> Result<bool> {
        let Some(claim) = self.claim_of(key)?.filter(|claim| claim.until == at) else { return Ok(false) };
        self.revoke(key, &claim, UPKEEP.to_owned());
        Ok(true)
    }

    fn revoke(&mut self, key: &Key, claim: &ClaimRow, by: String) {
        self.remove_claim(key, claim);
        let (owner, fence, time) = (claim.owner.clone(), claim.fence, self.info.time);
        let orphan = Orphan { key: key.clone(), fence, owner, by, time };
        self.changes.put(Table::Claims, Orphan::key(fence), orphan.encode());
        self.tell(EventKind::ClaimChanged, key);
    }

    fn remove_claim(&mut self, key: &Key, claim: &ClaimRow) {
        let encoded = key.encoded();
        self.changes.remove(Table::Claims, ClaimRow::key(encoded));
        self.changes.remove(Table::Deadlines, deadline_key(claim.until, Purpose::Claim, encoded));
        if !claim.group.is_empty() {
            self.changes.remove(Table::Claims, group_key(&claim.group, encoded));
        }
        self.claims.insert(key.encoded_bytes(), false);
    }

    fn write_claim(&mut self, key: &Key, claim: &ClaimRow) {
        let encoded = key.encoded();
        self.changes.put(Table::Claims, ClaimRow::key(encoded), claim.encode());
        self.changes.put(Table::Deadlines, deadline_key(claim.until, Purpose::Claim, encoded), Bytes::new());
        if !claim.group.is_empty() {
            self.changes.put(Table::Claims, group_key(&claim.group, encoded), Bytes::new());
        }
    }

    /// Sees that there is room for one more in a group, besides the claim of a key: those that are past their time are
    /// revoked as far as it takes, the longest first.
    fn make_room_in(&mut self, group: &str, but: &Key, limit: u64) -> Result<()> {
        let front = group_prefix(group);
        let (mut live, mut late) = (0, Vec::new());
        for row in self.view.prefix(Some(&self.changes), Table::Claims, &front)? {
            let (row_key, _) = row?;
            let Some(encoded) = row_key.strip_prefix(&front[..]).filter(|key| *key != but.encoded()) else {
                continue;
            };
            let claim = self.view.get(Some(&self.changes), Table::Claims, &ClaimRow::key(encoded))?;
            match claim.map(|row| ClaimRow::decode(&row)).transpose()? {
                Some(claim) if claim.until > self.info.time => live += 1,
                Some(claim) => late.push((claim.until, Bytes::copy_from_slice(encoded), claim)),
                None => {}
            }
        }
        if live >= limit {
            return Err(ErrorKind::GroupFull { group: group.to_owned(), limit }.into());
        }
        late.sort_by(|(a, a_key, _), (b, b_key, _)| (a, a_key).cmp(&(b, b_key)));
        let room = usize::try_from(limit - live - 1).unwrap_or(usize::MAX);
        let too_many = late.len().saturating_sub(room);
        for (_, encoded, claim) in late.into_iter().take(too_many) {
            let key = Key::decode(&encoded).map_err(|error| crate::store::corrupt(error.to_string()))?;
            let by = self.caller.name().to_owned();
            self.revoke(&key, &claim, by);
        }
        Ok(())
    }

    fn until(&self, for_at_most: Duration) -> Result<Micros> {
        let micros = i64::try_from(for_at_most.as_micros()).ok();
        let micros = micros.filter(|micros| *micros > 0 && for_at_most <= CLAIM_MAX);
        let until = micros.and_then(|micros| self.info.time.checked_add(micros));
        until.ok_or_else(|| {
            let expected = "a time of 1 us to 100 years".to_owned();
            let got = format!("{for_at_most:?}");
            Error::from(ErrorKind::InvalidArgument { argument: "for_at_most", expected, got })
        })
    }

    /// Takes the next fence number. Numbers are reserved many at a time, by a transaction that is synced, so that a claim
    /// which a crash takes back does not give its number to another.
    pub(super) fn next_fence(&mut self) -> u64 {
        // Counted even if the transaction comes to nothing: its closure may have told somebody.
        self.held.fence += 1;
        let fence = self.held.fence;
        if fence > self.fences_reserved.unwrap_or(self.held.fences_reserved) {
            let reserved = fence + FENCES_AT_ONCE;
            self.changes.put(Table::State, state_key::FENCES, reserved.to_le_bytes().to_vec());
            self.fences_reserved = Some(reserved);
        }
        fence
    }
}
