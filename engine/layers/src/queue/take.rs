//! Messages on their way out, and those who have them: a token is compared here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use larder::{CollectionMut, Micros, ReadTxn, RowRange, WriteTxn};

use super::books::Totals;
use super::error::{QueueError, invalid, micros};
use super::message::{Envelope, MessageState, Token};
use super::settings::{QueueSettings, RequeueAt};
use super::{AT_ONCE_MAX, Nack, Queue, Requeued, Result};

/// How many messages whose time has come are seen to by somebody who takes one.
const SWEPT_BY_DEQUEUE: usize = 100;
/// How often messages are looked for, where rows that are none have to be set aside.
const LOOKED_FOR_MAX: usize = 1_000;
/// Why a message was given back whose time was over.
const TIME_OVER: &str = "its time was over";

impl Queue {
    /// Takes the next message, for the queue's time; `None` if there is none.
    ///
    /// # Errors
    /// As [`Queue::dequeue_up_to`].
    pub fn dequeue(&self, txn: &mut WriteTxn<'_>) -> Result<Option<Envelope>> {
        Ok(self.dequeue_up_to(txn, 1, None)?.pop())
    }

    /// Takes up to so many messages, 1 to 10 000, for a time, or that of the queue; in their order.
    ///
    /// Messages whose time has come are seen to first, as by [`Queue::sweep`], 100 of each kind at most.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Paused`](QueueError::Paused),
    /// [`InvalidArgument`](QueueError::InvalidArgument), [`Store`](QueueError::Store).
    pub fn dequeue_up_to(
        &self,
        txn: &mut WriteTxn<'_>,
        count: usize,
        visibility: Option<Duration>,
    ) -> Result<Vec<Envelope>> {
        if !(1..=AT_ONCE_MAX).contains(&count) {
            return Err(invalid("count", format!("1 to {AT_ONCE_MAX}"), count));
        }
        let now = txn.info().time;
        let (mut rows, settings) = self.open(txn)?;
        if settings.is_paused {
            return Err(QueueError::Paused { name: self.name().to_owned() });
        }
        let lease = visibility.map(|time| micros("visibility", time, false)).transpose()?;
        let visibility = lease.map_or_else(|| micros("visibility", settings.visibility, false), Ok)?;
        let mut totals = Totals::default();
        self.sweep_rows(&mut rows, &settings, SWEPT_BY_DEQUEUE, &mut totals)?;
        let mut taken = Vec::new();
        for mut envelope in self.ready(&mut rows, count)? {
            envelope.state = MessageState::InFlight;
            envelope.attempts = envelope.attempts.saturating_add(1);
            envelope.until = now.saturating_add(visibility);
            envelope.lease = lease;
            envelope.fence = rows.txn().unique_number();
            rows.put(envelope.id, envelope.draft())?;
            totals.deliver(now.saturating_sub(envelope.enqueued));
            taken.push(envelope);
        }
        self.book(txn, &totals)?;
        Ok(taken)
    }

    /// Finds what can be taken, in its order: so many, if there are.
    fn ready(&self, rows: &mut CollectionMut<'_, '_>, count: usize) -> Result<Vec<Envelope>> {
        let mut envelopes = Vec::new();
        for _ in 0..LOOKED_FOR_MAX {
            let found = rows.find("ready", &RowRange::all().limit(count))?.rows;
            envelopes = self.read_whole(rows, &found)?;
            // What was set aside is not found again.
            if envelopes.len() == found.len() {
                break;
            }
        }
        Ok(envelopes)
    }

    /// Finds what is in flight under a token; what is not is none.
    fn held(&self, rows: &CollectionMut<'_, '_>, token: Token) -> Result<Option<Envelope>> {
        let Some(row) = rows.get(token.message)? else { return Ok(None) };
        let envelope = self.read(&row)?;
        Ok(Some(envelope).filter(|held| held.state == MessageState::InFlight && held.fence == token.fence))
    }

    /// Finds what is in flight under all of some tokens, or says which of them are lost.
    fn all_held(&self, rows: &CollectionMut<'_, '_>, tokens: &[Token]) -> Result<Vec<Envelope>> {
        let mut seen = BTreeSet::new();
        if let Some(token) = tokens.iter().find(|token| !seen.insert(**token)) {
            return Err(QueueError::DuplicateToken { token: *token });
        }
        let (mut held, mut lost) = (Vec::with_capacity(tokens.len()), Vec::new());
        for token in tokens {
            match self.held(rows, *token)? {
                Some(envelope) => held.push(envelope),
                None => lost.push(*token),
            }
        }
        if lost.is_empty() { Ok(held) } else { Err(QueueError::LeaseLost { tokens: lost }) }
    }

    pub(super) fn remove(&self, rows: &mut CollectionMut<'_, '_>, envelope: &Envelope) -> Result<()> {
        rows.remove(envelope.id)?;
        if envelope.is_apart {
            rows.remove(("b", envelope.id))?;
        }
        Ok(())
    }

    /// Acknowledges a message: it is done, and gone.
    ///
    /// # Errors
    /// [`LeaseLost`](QueueError::LeaseLost), [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn ack(&self, txn: &mut WriteTxn<'_>, token: Token) -> Result<()> {
        self.ack_all(txn, &[token])
    }

    /// Acknowledges messages: all of them, or none.
    ///
    /// # Errors
    /// As [`Queue::ack`], with every token that is lost; [`DuplicateToken`](QueueError::DuplicateToken).
    pub fn ack_all(&self, txn: &mut WriteTxn<'_>, tokens: &[Token]) -> Result<()> {
        let (mut rows, _) = self.open(txn)?;
        let held = self.all_held(&rows, tokens)?;
        held.iter().try_for_each(|envelope| self.remove(&mut rows, envelope))?;
        self.book(txn, &Totals { acked: held.len() as u64, ..Totals::default() })
    }

    /// Gives a message back.
    ///
    /// # Errors
    /// As [`Queue::ack`]; [`InvalidArgument`](QueueError::InvalidArgument) for the delay.
    pub fn nack(&self, txn: &mut WriteTxn<'_>, token: Token, nack: &Nack) -> Result<Requeued> {
        let requeued = self.nack_all(txn, &[token], nack)?;
        requeued.first().copied().ok_or_else(|| self.malformed(&[], "nothing was given back"))
    }

    /// Gives messages back: all of them, or none.
    ///
    /// # Errors
    /// As [`Queue::ack_all`]; [`InvalidArgument`](QueueError::InvalidArgument) for the delay.
    pub fn nack_all(&self, txn: &mut WriteTxn<'_>, tokens: &[Token], nack: &Nack) -> Result<Vec<Requeued>> {
        let delay = nack.delay.map(|delay| micros("delay", delay, true)).transpose()?;
        let (mut rows, settings) = self.open(txn)?;
        let held = self.all_held(&rows, tokens)?;
        let mut totals = Totals { nacked: held.len() as u64, ..Totals::default() };
        let mut requeued = BTreeMap::new();
        for envelope in in_turn(&settings, held) {
            let id = envelope.id;
            let reason = nack.reason.as_deref();
            requeued.insert(id, give_back(&mut rows, &settings, envelope, delay, reason, &mut totals)?);
        }
        self.book(txn, &totals)?;
        Ok(tokens.iter().filter_map(|token| requeued.get(&token.message).copied()).collect())
    }

    /// Gives whoever has a message more time, from now on; gives when it is over.
    ///
    /// # Errors
    /// As [`Queue::ack`]; [`InvalidArgument`](QueueError::InvalidArgument) for a time of 0 or of more than 100 years.
    pub fn extend(&self, txn: &mut WriteTxn<'_>, token: Token, time: Duration) -> Result<Micros> {
        let time = micros("time", time, false)?;
        self.prolong(txn, token, |_, _| Ok(time))
    }

    /// Says that whoever has a message is still at work: gives it the time again that it was taken for, from now on.
    ///
    /// # Errors
    /// As [`Queue::ack`].
    pub fn heartbeat(&self, txn: &mut WriteTxn<'_>, token: Token) -> Result<Micros> {
        self.prolong(txn, token, |envelope, settings| {
            let lease = envelope.lease.and_then(|lease| u64::try_from(lease).ok());
            micros("time", lease.map_or(settings.visibility, Duration::from_micros), false)
        })
    }

    /// Gives whoever has a message a time from now on; gives when it is over.
    fn prolong(
        &self,
        txn: &mut WriteTxn<'_>,
        token: Token,
        time: impl Fn(&Envelope, &QueueSettings) -> Result<Micros>,
    ) -> Result<Micros> {
        let now = txn.info().time;
        let (mut rows, settings) = self.open(txn)?;
        let mut until = now;
        for envelope in self.all_held(&rows, &[token])? {
            until = now.saturating_add(time(&envelope, &settings)?);
            rows.put(envelope.id, Envelope { until, ..envelope }.draft())?;
        }
        Ok(until)
    }

    /// Finds messages whose time with whoever has them is over, the longest first. Changes nothing.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn expired(&self, view: &ReadTxn, now: Micros, limit: usize) -> Result<Vec<Token>> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let (mut tokens, mut range) = (Vec::new(), RowRange::all().at_most(now).limit(limit));
        while tokens.len() < limit {
            let page = rows.find("expired", &range)?;
            // What is no message, whoever put it there, is nobody's to take back.
            tokens.extend(page.rows.iter().filter_map(Envelope::of).map(|envelope| envelope.token()));
            let Some(next) = page.next else { break };
            range = range.after(next);
        }
        tokens.truncate(limit);
        Ok(tokens)
    }

    /// Takes messages back from whoever has them, whether or not their time is over; tells of each what became of it,
    /// `None` if it was acknowledged or given back before.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn take_back(
        &self,
        txn: &mut WriteTxn<'_>,
        tokens: &[Token],
    ) -> Result<Vec<(Token, Option<Requeued>)>> {
        self.take_back_until(txn, tokens, Micros::MAX)
    }

    /// The same for what [`Queue::expired`] gave: whoever has said meanwhile that he is still at work keeps his message, `None`.
    ///
    /// # Errors
    /// As [`Queue::take_back`].
    pub fn take_back_expired(
        &self,
        txn: &mut WriteTxn<'_>,
        tokens: &[Token],
    ) -> Result<Vec<(Token, Option<Requeued>)>> {
        let now = txn.info().time;
        self.take_back_until(txn, tokens, now)
    }

    /// Takes back what somebody has until a time at most.
    fn take_back_until(
        &self,
        txn: &mut WriteTxn<'_>,
        tokens: &[Token],
        until: Micros,
    ) -> Result<Vec<(Token, Option<Requeued>)>> {
        let (mut rows, settings) = self.open(txn)?;
        let mut totals = Totals::default();
        let mut held = BTreeMap::new();
        for token in tokens {
            let envelope = self.held(&rows, *token)?.filter(|envelope| envelope.until <= until);
            held.extend(envelope.map(|envelope| (envelope.id, envelope)));
        }
        let mut outcomes = BTreeMap::new();
        for envelope in in_turn(&settings, held.into_values().collect()) {
            totals.expired += 1;
            let token = envelope.token();
            let requeued = give_back(&mut rows, &settings, envelope, None, Some(TIME_OVER), &mut totals)?;
            outcomes.insert(token, requeued);
        }
        self.book(txn, &totals)?;
        // Of a token that is there twice the second finds nothing.
        Ok(tokens.iter().map(|token| (*token, outcomes.remove(token))).collect())
    }

    /// Sees to what is due, of each kind at most `limit`: takes back messages whose time is over, lets those be taken whose
    /// delay is, and forgets keys whose window is. Gives how many messages changed.
    ///
    /// # Errors
    /// As [`Queue::take_back`].
    pub fn sweep(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let now = txn.info().time;
        let (mut rows, settings) = self.open(txn)?;
        if limit == 0 {
            return Ok(0);
        }
        let mut totals = Totals::default();
        let swept = self.sweep_rows(&mut rows, &settings, limit, &mut totals)?;
        self.book(txn, &totals)?;
        Self::forget_keys(&mut txn.collection(&self.books)?, now, limit)?;
        Ok(swept)
    }

    /// Takes back what is past its time, and lets be taken what has waited for its; gives how many messages that were.
    fn sweep_rows(
        &self,
        rows: &mut CollectionMut<'_, '_>,
        settings: &QueueSettings,
        limit: usize,
        totals: &mut Totals,
    ) -> Result<u64> {
        let now = rows.txn().info().time;
        let (mut swept, range) = (0, RowRange::all().at_most(now).limit(limit));
        let expired = rows.find("expired", &range)?.rows;
        let expired = self.read_some(rows, &expired)?;
        for envelope in in_turn(settings, expired) {
            totals.expired += 1;
            let _ = give_back(rows, settings, envelope, None, Some(TIME_OVER), totals)?;
            swept += 1;
        }
        let delayed = rows.find("delayed", &range)?.rows;
        for envelope in self.read_some(rows, &delayed)? {
            rows.put(envelope.id, Envelope { state: MessageState::Ready, until: 0, ..envelope }.draft())?;
            swept += 1;
        }
        Ok(swept)
    }

    /// Tells when the queue has something to see to next: a delay or somebody's time that is over.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn next_due(&self, view: &ReadTxn) -> Result<Option<Micros>> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let mut next: Option<Micros> = None;
        for index in ["expired", "delayed"] {
            let first = rows.find(index, &RowRange::all().limit(1))?.rows;
            let at = first.first().and_then(|row| row.integer("t"));
            next = [next, at].into_iter().flatten().min();
        }
        Ok(next)
    }
}

/// The order in which messages are given back together: what comes to the front last is first there.
fn in_turn(settings: &QueueSettings, mut held: Vec<Envelope>) -> Vec<Envelope> {
    if settings.requeue_at == RequeueAt::Front {
        held.sort_by_key(|envelope| std::cmp::Reverse((envelope.order, envelope.id)));
    }
    held
}

/// Gives a message back that somebody had.
fn give_back(
    rows: &mut CollectionMut<'_, '_>,
    settings: &QueueSettings,
    mut envelope: Envelope,
    delay: Option<Micros>,
    reason: Option<&str>,
    totals: &mut Totals,
) -> Result<Requeued> {
    let now = rows.txn().info().time;
    (envelope.fence, envelope.lease) = (0, None);
    envelope.reason = reason.map(str::to_owned).or(envelope.reason);
    let attempts_max = envelope.attempts_max.unwrap_or(settings.attempts_max);
    let requeued = if attempts_max > 0 && envelope.attempts >= attempts_max {
        totals.died += 1;
        envelope.died = Some(now);
        Requeued::Dead
    } else {
        let backoff = envelope.backoff.unwrap_or(settings.backoff);
        let wait = delay.map_or_else(|| micros("backoff", backoff.wait(envelope.attempts), true), Ok)?;
        let number =
            |rows: &mut CollectionMut<'_, '_>| i64::try_from(rows.txn().unique_number()).unwrap_or(i64::MAX);
        envelope.order = match settings.requeue_at {
            RequeueAt::Original => envelope.order,
            RequeueAt::Front => -number(rows),
            RequeueAt::Back => number(rows),
        };
        if wait == 0 { Requeued::Ready } else { Requeued::Delayed { until: now.saturating_add(wait) } }
    };
    (envelope.state, envelope.until) = match requeued {
        Requeued::Ready => (MessageState::Ready, 0),
        Requeued::Delayed { until } => (MessageState::Delayed, until),
        Requeued::Dead => (MessageState::Dead, 0),
    };
    rows.put(envelope.id, envelope.draft())?;
    Ok(requeued)
}
