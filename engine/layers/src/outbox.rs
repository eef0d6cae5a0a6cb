//! An outbox: effects that are to be carried out because of what was committed, and are committed with it.
//!
//! Nothing outside the store happens in a transaction. What is to happen is a row, put by the transaction that is the reason;
//! whoever carries it out takes it, does it, and says what came of it. It can happen twice, if somebody takes too long or is
//! killed between doing it and saying so: then both knew the same idempotency key.
//!
//! ```
//! use std::time::Duration;
//! use larder::Options;
//! use larder_layers::outbox::{Effect, Outbox};
//!
//! let ana = Options::new().open_in_memory()?.session("ana")?;
//! let outbox = Outbox::at("outbox")?;
//! ana.write(|txn| {
//!     txn.put("orders/7", "two soups")?;
//!     outbox.add(txn, Effect::new(("orders/7", "mail"), "to: kitchen"))
//! })?;
//!
//! for effect in ana.write(|txn| outbox.take(txn, 10))?.value {
//!     // ... send the mail, with its key ...
//!     assert!(ana.write(|txn| outbox.complete(txn, &effect.key, effect.token, "sent"))?.value);
//! }
//! # Ok::<(), larder::Error>(())
//! ```

use std::time::Duration;

use bytes::Bytes;
use larder::{
    AggregateDefinition, CollectionDefinition, CollectionMut, ErrorKind, IndexDefinition, IntoKey,
    IntoRowKey, Key, Micros, Part, ReadTxn, Result, Row, RowDraft, RowRange, Rows, Tuple, WriteTxn,
};

use crate::place::{after, cut, found, number, open, remove_all};
use crate::queue::Backoff;
use crate::state::states;

/// How long whoever takes an effect has for it, if nothing else is said.
const TIME: Duration = Duration::from_secs(30);
/// The most bytes that are kept of the reason of a failure.
const REASON_LENGTH_MAX: usize = 500;
/// Why an attempt ended of which nothing was heard.
const TIME_OVER: &str = "its time was over";

/// The most bytes of an effect's key, and of what it is of.
const KEY_LENGTH_MAX: usize = 3_000;
/// The most bytes of a payload, and of a result, which lie in one row of at most 16 MiB.
const PAYLOAD_LENGTH_MAX: usize = 14 << 20;
const RESULT_LENGTH_MAX: usize = 1 << 20;

const EFFECTS: u32 = 0;
const ATTEMPTS: u32 = 1;

states! {
    /// Where an effect is.
    #[non_exhaustive]
    EffectState {
        /// It is to be done, now or later.
        Waiting => "waiting",
        /// Somebody is at it.
        InFlight => "in flight",
        /// It is done.
        Done => "done",
        /// It has failed too often.
        Dead => "dead",
    }
}

impl EffectState {
    fn of(row: &Row) -> Self {
        Self::of_number(row.integer("s")).unwrap_or(Self::Dead)
    }
}

/// An effect that is to be carried out.
#[derive(Debug, Clone)]
#[must_use]
pub struct Effect {
    key: Result<Tuple>,
    payload: Bytes,
    of: Option<Part>,
    delay: Duration,
    retry: Option<Retry>,
}

/// How often something is tried again, and how long it waits before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How long it waits.
    pub backoff: Backoff,
    /// How often, at most.
    pub retries_max: u32,
}

impl Default for Retry {
    /// Three times: after 5 s, 10 s and 20 s.
    fn default() -> Self {
        let backoff = Backoff::exponential(Duration::from_secs(5), 2, Duration::from_secs(300));
        Self { backoff, retries_max: 3 }
    }
}

impl Retry {
    /// Not at all.
    pub const NEVER: Self = Self { backoff: Backoff::NONE, retries_max: 0 };

    pub(crate) fn to_part(self) -> Part {
        let Backoff { base, factor, cap } = self.backoff;
        let [base, cap] = [base, cap].map(|time| Part::from(after(0, time)));
        Part::List(vec![self.retries_max.into(), base, factor.into(), cap])
    }

    pub(crate) fn from_part(part: &Part) -> Option<Self> {
        let Part::List(parts) = part else { return None };
        let [Part::Integer(retries), Part::Integer(base), Part::Integer(factor), Part::Integer(cap)] =
            parts.as_slice()
        else {
            return None;
        };
        let time = |micros: &i128| u64::try_from(*micros).ok().map(Duration::from_micros);
        let backoff = Backoff { base: time(base)?, factor: u32::try_from(*factor).ok()?, cap: time(cap)? };
        Some(Self { backoff, retries_max: u32::try_from(*retries).ok()? })
    }
}

impl Effect {
    /// Makes an effect that is done once under an idempotency key.
    pub fn new(key: impl IntoRowKey, payload: impl Into<Bytes>) -> Self {
        let (key, payload) = (key.into_row_key(), payload.into());
        Self { key, payload, of: None, delay: Duration::ZERO, retry: None }
    }

    /// Says what the effect is of: all effects of something can be found.
    pub fn of(mut self, subject: impl Into<Part>) -> Self {
        self.of = Some(subject.into());
        self
    }

    /// Lets it wait before it can be taken.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says how often it is tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }
}

/// An effect that was taken, to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// The idempotency key: show it to whoever carries it out, so that he knows it when it comes again.
    pub key: Tuple,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// What to show when it is done, or has failed.
    pub token: u64,
    /// Until when; then another may take it.
    pub until: Micros,
    /// What it is of.
    pub of: Option<Part>,
    /// What is to be done.
    pub payload: Bytes,
}

/// What somebody is told who begins an effect by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Begun {
    /// He is to do it.
    Proceed {
        /// Which attempt it is, from 1.
        attempt: u32,
        /// What to show when it is done, or has failed.
        token: u64,
    },
    /// Somebody is at it.
    InProgress {
        /// Until when; then another may begin.
        until: Micros,
    },
    /// It is to be done later, perhaps because it has failed.
    Waiting {
        /// When.
        until: Micros,
    },
    /// It is done, and this came of it.
    Done(Bytes),
    /// It has failed too often.
    Dead,
}

/// What becomes of an effect that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Failed {
    /// It can be taken again from then on.
    RetryAt(Micros),
    /// It has failed too often.
    Dead,
    /// Somebody else has taken over: nothing was changed.
    Lost,
}

/// An effect, as it lies in its outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectInfo {
    /// The idempotency key.
    pub key: Tuple,
    /// Where it is.
    pub state: EffectState,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was added.
    pub added: Micros,
    /// From when on it can be taken, until when somebody is at it, or when it was over.
    pub at: Micros,
    /// What it is of.
    pub of: Option<Part>,
    /// What is to be done, or was.
    pub payload: Bytes,
    /// What came of it, when it is done.
    pub result: Bytes,
}

/// An attempt to carry out an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Which one, from 1.
    pub number: u32,
    /// When it began.
    pub began: Micros,
    /// When it was over; `None` while somebody is at it.
    pub ended: Option<Micros>,
    /// Why it failed; `None` if it did not, or is not over.
    pub reason: Option<String>,
}

/// Effects, in a collection that is made when the first is added.
#[derive(Debug, Clone)]
pub struct Outbox {
    key: Key,
    time: Duration,
    retry: Retry,
}

fn definition() -> CollectionDefinition {
    let open = [EffectState::Waiting, EffectState::InFlight].map(EffectState::number);
    CollectionDefinition::new()
        .index(IndexDefinition::new("due").by("t").only("s", open))
        .index(IndexDefinition::new("state").by("s").by("t"))
        .index(IndexDefinition::new("of").by("w").by("o"))
        .aggregate(AggregateDefinition::new("state").group_by("s"))
}

fn check_length(what: &'static str, length: usize, length_max: usize) -> Result<()> {
    if length <= length_max {
        return Ok(());
    }
    let (expected, got) = (format!("at most {length_max} bytes"), format!("{length} bytes"));
    Err(ErrorKind::InvalidArgument { argument: what, expected, got }.into())
}

fn effect_key(key: &Tuple) -> Vec<Part> {
    vec![EFFECTS.into(), Part::List(key.parts().to_vec())]
}

fn attempt_key(key: &Tuple, number: u32) -> Vec<Part> {
    vec![ATTEMPTS.into(), Part::List(key.parts().to_vec()), number.into()]
}

/// A payload and a result in one value: the payload's length comes first.
fn joined(payload: &[u8], result: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), payload, result].concat()
}

fn parted(value: &Bytes) -> (Bytes, Bytes) {
    let length = value.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let split = (4 + length).min(value.len());
    (value.slice(4.min(split)..split), value.slice(split..))
}

impl EffectInfo {
    fn of(row: &Row) -> Result<Self> {
        let key = match row.key().parts() {
            [_, Part::List(parts)] => parts.clone().into_row_key()?,
            _ => row.key().clone(),
        };
        let (payload, result) = parted(row.value());
        Ok(Self {
            key,
            state: EffectState::of(row),
            attempts: number(row, "a"),
            added: row.integer("n").unwrap_or(0),
            at: row.integer("t").unwrap_or(0),
            of: row.field("w"),
            payload,
            result,
        })
    }
}

impl Outbox {
    /// Names the collection. Whoever takes an effect has 30 s for it, and it is retried as the default says.
    ///
    /// # Errors
    /// [`InvalidKey`](larder::ErrorKind::InvalidKey).
    pub fn at(key: impl IntoKey) -> Result<Self> {
        Ok(Self { key: key.into_key()?, time: TIME, retry: Retry::default() })
    }

    /// Says how long whoever takes an effect has for it.
    #[must_use]
    pub fn time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Says how often effects are retried that do not say it themselves.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Adds an effect, whose payload has at most 14 MiB; tells whether its key was new. One that is there is left as it is, done
    /// or not.
    ///
    /// # Errors
    /// [`InvalidArgument`](larder::ErrorKind::InvalidArgument); as [`CollectionMut::put`].
    pub fn add(&self, txn: &mut WriteTxn<'_>, effect: Effect) -> Result<bool> {
        let now = txn.info().time;
        let key = effect.key?;
        // So that there is room for what is written of it later.
        let of = Tuple::encode(effect.of.as_slice()).map(|of| of.len());
        check_length("payload of the effect", effect.payload.len(), PAYLOAD_LENGTH_MAX)?;
        if key.encoded().len() > KEY_LENGTH_MAX || of.as_ref().is_ok_and(|length| *length > KEY_LENGTH_MAX) {
            let expected = format!("a key, and what the effect is of, of at most {KEY_LENGTH_MAX} bytes");
            let got = format!("{} and {} bytes", key.encoded().len(), of.unwrap_or(0));
            return Err(ErrorKind::InvalidArgument { argument: "effect", expected, got }.into());
        }
        let mut rows = open(txn, &self.key, definition)?;
        if rows.get(effect_key(&key))?.is_some() {
            return Ok(false);
        }
        let mut draft = RowDraft::new(joined(&effect.payload, &[]))
            .field("s", EffectState::Waiting.number())
            .field("t", after(now, effect.delay))
            .field("n", now)
            .field("o", rows.txn().unique_number());
        if let Some(of) = effect.of {
            draft = draft.field("w", of);
        }
        if let Some(retry) = effect.retry {
            draft = draft.field("m", retry.to_part());
        }
        rows.put(effect_key(&key), draft)?;
        Ok(true)
    }

    /// Takes up to so many effects that are to be done now: those that nobody has begun, those whose wait is over, and those
    /// whose taker has let his time pass and that may be tried again; the longest due first.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn take(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<Vec<Taken>> {
        let now = txn.info().time;
        let mut rows = open(txn, &self.key, definition)?;
        let (mut taken, mut has_buried) = (Vec::new(), true);
        // In the place of those that have failed for good, others are taken.
        while std::mem::take(&mut has_buried) && taken.len() < limit {
            let due = RowRange::all().at_most(now).limit(limit - taken.len());
            for row in rows.find("due", &due)?.rows {
                let info = EffectInfo::of(&row)?;
                if self.is_spent(&row) {
                    bury(&mut rows, &info.key, &row)?;
                    has_buried = true;
                    continue;
                }
                let until = after(now, self.time);
                let (attempt, token) = begin(&mut rows, &info.key, Some(&row), until)?;
                let EffectInfo { key, of, payload, .. } = info;
                taken.push(Taken { key, attempt, token, until, of, payload });
            }
        }
        Ok(taken)
    }

    /// Begins an effect by its key, whether or not it was added before.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn begin(&self, txn: &mut WriteTxn<'_>, key: impl IntoRowKey) -> Result<Begun> {
        let (key, now) = (key.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, definition)?;
        let row = rows.get(effect_key(&key))?;
        if let Some(row) = &row {
            let until = row.integer("t").unwrap_or(0);
            match EffectState::of(row) {
                EffectState::Done => return Ok(Begun::Done(parted(row.value()).1)),
                EffectState::Dead => return Ok(Begun::Dead),
                EffectState::InFlight if until > now => return Ok(Begun::InProgress { until }),
                EffectState::Waiting if until > now => return Ok(Begun::Waiting { until }),
                EffectState::InFlight if self.is_spent(row) => {
                    bury(&mut rows, &key, row)?;
                    return Ok(Begun::Dead);
                }
                _ => {}
            }
        }
        let (attempt, token) = begin(&mut rows, &key, row.as_ref(), after(now, self.time))?;
        Ok(Begun::Proceed { attempt, token })
    }

    /// Says that an effect is done, and what came of it, in at most 1 MiB; tells whether it was still the caller's.
    ///
    /// # Errors
    /// [`InvalidArgument`](larder::ErrorKind::InvalidArgument); as [`CollectionMut::put`].
    pub fn complete(
        &self,
        txn: &mut WriteTxn<'_>,
        key: impl IntoRowKey,
        token: u64,
        result: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let (key, now) = (key.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, definition)?;
        check_length("result of the effect", result.as_ref().len(), RESULT_LENGTH_MAX)?;
        let Some(row) = held(&rows, &key, token)? else { return Ok(false) };
        end_attempt(&mut rows, &key, &row, None)?;
        let value = joined(&parted(row.value()).0, result.as_ref());
        let draft = row.to_draft().value(value).field("s", EffectState::Done.number()).field("t", now);
        rows.put(effect_key(&key), draft.without("f"))?;
        Ok(true)
    }

    /// Says that an effect has failed, and why: it is tried again after a wait, or never.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn fail(
        &self,
        txn: &mut WriteTxn<'_>,
        key: impl IntoRowKey,
        token: u64,
        reason: &str,
    ) -> Result<Failed> {
        let (key, now) = (key.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, definition)?;
        let Some(row) = held(&rows, &key, token)? else { return Ok(Failed::Lost) };
        end_attempt(&mut rows, &key, &row, Some(reason))?;
        let own = row.field("m").as_ref().and_then(Retry::from_part);
        let Retry { backoff, retries_max } = own.unwrap_or(self.retry);
        let attempts = number(&row, "a");
        if attempts > retries_max {
            rows.put(effect_key(&key), dead(&row, now))?;
            return Ok(Failed::Dead);
        }
        let at = after(now, backoff.wait(attempts));
        let draft = row.to_draft().without("f");
        rows.put(effect_key(&key), draft.field("s", EffectState::Waiting.number()).field("t", at))?;
        Ok(Failed::RetryAt(at))
    }

    /// Tells whether nothing was heard of the last attempt that there may be.
    fn is_spent(&self, row: &Row) -> bool {
        let retry = row.field("m").as_ref().and_then(Retry::from_part).unwrap_or(self.retry);
        EffectState::of(row) == EffectState::InFlight && number::<u32>(row, "a") > retry.retries_max
    }

    /// Removes an effect that nobody has begun; one that has failed and waits to be tried again is dead. Tells whether it was
    /// either: if not, somebody is at it, or it is over.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn withdraw(&self, txn: &mut WriteTxn<'_>, key: impl IntoRowKey) -> Result<bool> {
        let Some(mut rows) = found(txn.collection(&self.key))? else { return Ok(false) };
        let key = key.into_row_key()?;
        let row = rows.get(effect_key(&key))?;
        let Some(row) = row.filter(|row| EffectState::of(row) == EffectState::Waiting) else {
            return Ok(false);
        };
        if number::<u32>(&row, "h") == 0 {
            return rows.remove(effect_key(&key));
        }
        let now = rows.txn().info().time;
        rows.put(effect_key(&key), dead(&row, now))?;
        Ok(true)
    }

    /// Lets an effect that is dead be tried again, from now on; tells whether it was.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn revive(&self, txn: &mut WriteTxn<'_>, key: impl IntoRowKey) -> Result<bool> {
        let (key, now) = (key.into_row_key()?, txn.info().time);
        let mut rows = open(txn, &self.key, definition)?;
        let dead = rows.get(effect_key(&key))?.filter(|row| EffectState::of(row) == EffectState::Dead);
        let Some(row) = dead else { return Ok(false) };
        let draft = row.to_draft().field("s", EffectState::Waiting.number()).field("t", now);
        rows.put(effect_key(&key), draft.field("a", 0))?;
        Ok(true)
    }

    /// Gives the keys of the effects of something that are still to be carried out.
    pub(crate) fn open_of(&self, txn: &mut WriteTxn<'_>, subject: impl Into<Part>) -> Result<Vec<Tuple>> {
        let Some(mut rows) = found(txn.collection(&self.key))? else { return Ok(Vec::new()) };
        let effects = Rows::all(&mut rows, Some("of"), &RowRange::all().with(subject))?;
        let is_open =
            |row: &&Row| matches!(EffectState::of(row), EffectState::Waiting | EffectState::InFlight);
        effects.iter().filter(is_open).map(|row| Ok(EffectInfo::of(row)?.key)).collect()
    }

    /// Removes all effects of something, and what is known of their attempts; tells how many effects there were.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn remove_of(&self, txn: &mut WriteTxn<'_>, subject: impl Into<Part>) -> Result<u64> {
        let Some(mut rows) = found(txn.collection(&self.key))? else { return Ok(0) };
        let effects = Rows::all(&mut rows, Some("of"), &RowRange::all().with(subject))?;
        effects.iter().try_for_each(|row| remove(&mut rows, row))?;
        Ok(effects.len() as u64)
    }

    /// Removes effects that were done before a time, the oldest first, at most `limit` of them; tells how many. Dead ones
    /// stay.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn remove_done_before(&self, txn: &mut WriteTxn<'_>, time: Micros, limit: usize) -> Result<u64> {
        self.remove_before(txn, EffectState::Done, time, limit)
    }

    /// Removes effects that have been dead since before a time, the oldest first, at most `limit` of them; tells how many.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn remove_dead_before(&self, txn: &mut WriteTxn<'_>, time: Micros, limit: usize) -> Result<u64> {
        self.remove_before(txn, EffectState::Dead, time, limit)
    }

    fn remove_before(
        &self,
        txn: &mut WriteTxn<'_>,
        state: EffectState,
        time: Micros,
        limit: usize,
    ) -> Result<u64> {
        let Some(mut rows) = found(txn.collection(&self.key))? else { return Ok(0) };
        let over = RowRange::all().with(state.number()).at_most(time.saturating_sub(1));
        let effects = rows.find("state", &over.limit(limit))?.rows;
        effects.iter().try_for_each(|row| remove(&mut rows, row))?;
        Ok(effects.len() as u64)
    }

    /// Gives an effect, if it is there.
    ///
    /// # Errors
    /// As [`larder::Collection::get`].
    pub fn get(&self, view: &ReadTxn, key: impl IntoRowKey) -> Result<Option<EffectInfo>> {
        let Some(rows) = found(view.collection(&self.key))? else { return Ok(None) };
        rows.get(effect_key(&key.into_row_key()?))?.as_ref().map(EffectInfo::of).transpose()
    }

    /// Gives all effects of something, in the order in which they were added.
    ///
    /// # Errors
    /// As [`larder::Collection::find`].
    pub fn of(&self, view: &ReadTxn, subject: impl Into<Part>) -> Result<Vec<EffectInfo>> {
        let Some(mut rows) = found(view.collection(&self.key))? else { return Ok(Vec::new()) };
        let rows = Rows::all(&mut rows, Some("of"), &RowRange::all().with(subject))?;
        rows.iter().map(EffectInfo::of).collect()
    }

    /// Gives effects in a state, at most `limit` of them: those that can be taken first, or ended first, come first.
    ///
    /// # Errors
    /// As [`larder::Collection::find`].
    pub fn list(&self, view: &ReadTxn, state: EffectState, limit: usize) -> Result<Vec<EffectInfo>> {
        let Some(rows) = found(view.collection(&self.key))? else { return Ok(Vec::new()) };
        let page = rows.find("state", &RowRange::all().with(state.number()).limit(limit))?;
        page.rows.iter().map(EffectInfo::of).collect()
    }

    /// Tells how many effects are in a state: without counting.
    ///
    /// # Errors
    /// As [`larder::Collection::aggregate`].
    pub fn count(&self, view: &ReadTxn, state: EffectState) -> Result<u64> {
        let Some(rows) = found(view.collection(&self.key))? else { return Ok(0) };
        Ok(rows.aggregate("state", &[state.number().into()])?.count)
    }

    /// Gives all attempts to carry out an effect, the first one first.
    ///
    /// # Errors
    /// As [`larder::Collection::page`].
    pub fn attempts(&self, view: &ReadTxn, key: impl IntoRowKey) -> Result<Vec<Attempt>> {
        let Some(mut rows) = found(view.collection(&self.key))? else { return Ok(Vec::new()) };
        let rows = Rows::all(&mut rows, None, &attempts_of(&key.into_row_key()?))?;
        let attempt = |row: &Row| Attempt {
            number: number(row, "a"),
            began: row.integer("n").unwrap_or(0),
            ended: row.integer("e"),
            reason: row.text("r").map(String::from),
        };
        Ok(rows.iter().map(attempt).collect())
    }

    /// Tells when an effect can be taken next.
    ///
    /// # Errors
    /// As [`larder::Collection::find`].
    pub fn next_due(&self, view: &ReadTxn) -> Result<Option<Micros>> {
        let Some(rows) = found(view.collection(&self.key))? else { return Ok(None) };
        let first = rows.find("due", &RowRange::all().limit(1))?.rows;
        Ok(first.first().and_then(|row| row.integer("t")))
    }
}

fn attempts_of(key: &Tuple) -> RowRange {
    RowRange::all().with(ATTEMPTS).with(key.parts().to_vec())
}

/// Begins an attempt; gives its number and its token.
fn begin(
    rows: &mut CollectionMut<'_, '_>,
    key: &Tuple,
    row: Option<&Row>,
    until: Micros,
) -> Result<(u32, u64)> {
    let now = rows.txn().info().time;
    if let Some(row) = row.filter(|row| EffectState::of(row) == EffectState::InFlight) {
        end_attempt(rows, key, row, Some(TIME_OVER))?;
    }
    let attempt = row.map_or(0, |row| number::<u32>(row, "a")).saturating_add(1);
    let token = rows.txn().unique_number();
    let fresh = || RowDraft::new(joined(&[], &[])).field("n", now).field("o", token);
    let draft = row.map_or_else(fresh, Row::to_draft);
    // Of what was revived, the attempts are numbered on.
    let number = row.map_or(0, |row| number::<u32>(row, "h")).saturating_add(1);
    let draft = draft.field("s", EffectState::InFlight.number()).field("a", attempt).field("h", number);
    rows.put(effect_key(key), draft.field("t", until).field("f", token))?;
    rows.put(attempt_key(key, number), RowDraft::default().field("a", number).field("n", now))?;
    Ok((attempt, token))
}

/// Ends what nothing was heard of for good.
fn bury(rows: &mut CollectionMut<'_, '_>, key: &Tuple, row: &Row) -> Result<()> {
    let now = rows.txn().info().time;
    end_attempt(rows, key, row, Some(TIME_OVER))?;
    rows.put(effect_key(key), dead(row, now)).map(drop)
}

fn dead(row: &Row, now: Micros) -> RowDraft {
    row.to_draft().without("f").field("s", EffectState::Dead.number()).field("t", now)
}

fn end_attempt(rows: &mut CollectionMut<'_, '_>, key: &Tuple, row: &Row, reason: Option<&str>) -> Result<()> {
    let now = rows.txn().info().time;
    let number: u32 = number(row, "h");
    let attempt = rows.get(attempt_key(key, number))?;
    let mut draft = attempt.map_or_else(RowDraft::default, |attempt| attempt.to_draft()).field("e", now);
    if let Some(reason) = reason {
        draft = draft.field("r", cut(reason, REASON_LENGTH_MAX));
    }
    rows.put(attempt_key(key, number), draft)?;
    Ok(())
}

fn remove(rows: &mut CollectionMut<'_, '_>, row: &Row) -> Result<()> {
    let key = EffectInfo::of(row)?.key;
    let attempts = Rows::all(rows, None, &attempts_of(&key))?;
    remove_all(rows, &attempts)?;
    rows.remove(row.key()).map(drop)
}

/// Finds an effect that is still whose who shows this token.
fn held(rows: &CollectionMut<'_, '_>, key: &Tuple, token: u64) -> Result<Option<Row>> {
    let is_held =
        |row: &Row| EffectState::of(row) == EffectState::InFlight && row.field("f") == Some(token.into());
    Ok(rows.get(effect_key(key))?.filter(is_held))
}
