//! Messages: as they are enqueued, as they lie in a row, as they are delivered.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use larder::{Micros, Part, Row, RowDraft};

use super::error::{QueueError, invalid, micros};
use super::settings::Backoff;
use crate::place::{cut, is_set, number};
use crate::state::states;

/// The least and the greatest priority.
const PRIORITIES: std::ops::RangeInclusive<i64> = -1_000..=1_000;
/// Payloads up to this length lie in the row of their message, which every delivery writes anew.
const APART_FROM: usize = 2_048;
/// The most bytes of the names and values of all headers together: what is written of a message on its way has to find
/// room beside them in its row.
const HEADERS_LENGTH_MAX: usize = 2_048;
/// What is counted for each header beside its bytes.
const HEADER_LENGTH_MIN: usize = 8;
/// The most bytes of a key that messages are told apart by, and of a reason.
const TEXT_LENGTH_MAX: usize = 512;

/// A message that is to be enqueued.
#[derive(Clone)]
#[must_use]
pub struct Message {
    pub(super) payload: Bytes,
    pub(super) priority: i64,
    pub(super) delay: Duration,
    pub(super) dedupe: Option<(String, Duration)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) attempts_max: Option<u32>,
    pub(super) backoff: Option<Backoff>,
}

/// Tells how long the payload is, and not what it is.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("priority", &self.priority)
            .field("delay", &self.delay)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl Message {
    /// Makes a message of bytes, which nobody looks into.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            priority: 0,
            delay: Duration::ZERO,
            dedupe: None,
            headers: Vec::new(),
            attempts_max: None,
            backoff: None,
        }
    }

    /// Sets the priority, -1 000 to 1 000: of a greater one is taken first; 0 if nothing is said.
    pub fn priority(mut self, priority: i64) -> Self {
        self.priority = priority;
        self
    }

    /// Lets nobody take it before this time has passed.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Enqueues it only if none with this key was enqueued within a window of time, whatever became of that one.
    pub fn dedupe(mut self, key: impl Into<String>, window: Duration) -> Self {
        self.dedupe = Some((key.into(), window));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Says how often this message is delivered before it is a dead letter, whatever the queue says.
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts);
        self
    }

    /// Says how long this message waits when it is given back, whatever the queue says.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    pub(super) fn check(&self) -> Result<(), QueueError> {
        if !PRIORITIES.contains(&self.priority) {
            return Err(invalid("priority", "-1000 to 1000", self.priority));
        }
        micros("delay", self.delay, true)?;
        if let Some((key, window)) = &self.dedupe {
            if key.is_empty() || key.len() > TEXT_LENGTH_MAX {
                return Err(invalid("dedupe key", format!("1 to {TEXT_LENGTH_MAX} bytes"), key.len()));
            }
            micros("dedupe window", *window, false)?;
        }
        let headers = length_of(&self.headers);
        if headers > HEADERS_LENGTH_MAX {
            return Err(invalid(
                "headers",
                format!("{HEADERS_LENGTH_MAX} bytes together, 8 more for each"),
                headers,
            ));
        }
        self.backoff.as_ref().map_or(Ok(()), Backoff::check)
    }
}

/// How many bytes headers take in a row.
fn length_of(headers: &[(String, String)]) -> usize {
    // A zero takes two bytes.
    let length = |text: &String| text.len() + text.bytes().filter(|byte| *byte == 0).count();
    headers.iter().map(|(name, value)| length(name) + length(value) + HEADER_LENGTH_MIN).sum()
}

impl<P: Into<Bytes>> From<P> for Message {
    fn from(payload: P) -> Self {
        Self::new(payload)
    }
}

states! {
    /// Where a message is on its way.
    #[non_exhaustive]
    MessageState {
        /// It can be taken.
        Ready => "ready",
        /// It waits for its time.
        Delayed => "delayed",
        /// Somebody has it.
        InFlight => "in flight",
        /// It was delivered as often as it may be.
        Dead => "dead",
    }
}

/// What its holder shows to acknowledge a message, or to give it back: a message, and which delivery of it. It is text for
/// those who pass it on: `message.fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The number of the message.
    pub message: u64,
    /// The number of the delivery: none other has it, in any queue of the file.
    pub fence: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.message, self.fence)
    }
}

impl FromStr for Token {
    type Err = QueueError;

    fn from_str(text: &str) -> Result<Self, QueueError> {
        let parts = text.split_once('.').and_then(|(message, fence)| {
            Some(Self { message: message.parse().ok()?, fence: fence.parse().ok()? })
        });
        parts.ok_or_else(|| {
            invalid(
                "token",
                "two numbers with a point between them",
                text.chars().take(64).collect::<String>(),
            )
        })
    }
}

/// A message, as it lies in its queue; or as it is delivered, if there is a token.
#[derive(Clone)]
#[non_exhaustive]
pub struct Envelope {
    /// Its number: of two, the one that was enqueued later has the greater one.
    pub id: u64,
    /// Where it is.
    pub state: MessageState,
    /// Its priority.
    pub priority: i64,
    /// How often it was delivered.
    pub attempts: u32,
    /// When it was enqueued.
    pub enqueued: Micros,
    /// Until when somebody has it, or from when on it can be taken; 0 if that is now.
    pub until: Micros,
    /// Its headers, in the order in which they were given.
    pub headers: Vec<(String, String)>,
    /// Why it was given back, when somebody said so last, or became a dead letter: the first 512 bytes of it.
    pub reason: Option<String>,
    /// The queue that it came from, if it was moved.
    pub origin: Option<String>,
    /// When it became a dead letter.
    pub died: Option<Micros>,
    pub(super) fence: u64,
    /// The time that it was taken for, where that is not the queue's.
    pub(super) lease: Option<Micros>,
    pub(super) order: i64,
    pub(super) length: u64,
    pub(super) is_apart: bool,
    pub(super) attempts_max: Option<u32>,
    pub(super) backoff: Option<Backoff>,
    pub(super) payload: Bytes,
}

/// Tells how long the payload is, and not what it is.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("priority", &self.priority)
            .field("attempts", &self.attempts)
            .field("enqueued", &self.enqueued)
            .field("until", &self.until)
            .field("headers", &self.headers)
            .field("reason", &self.reason)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish_non_exhaustive()
    }
}

impl Envelope {
    /// Gives the payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Gives what to show to whoever has the message.
    #[must_use]
    pub fn token(&self) -> Token {
        Token { message: self.id, fence: self.fence }
    }

    pub(super) fn new(id: u64, message: Message, now: Micros) -> Result<Self, QueueError> {
        let delay = micros("delay", message.delay, true)?;
        let length = message.payload.len();
        Ok(Self {
            id,
            state: if delay == 0 { MessageState::Ready } else { MessageState::Delayed },
            priority: message.priority,
            attempts: 0,
            enqueued: now,
            until: if delay == 0 { 0 } else { now.saturating_add(delay) },
            headers: message.headers,
            reason: None,
            origin: None,
            died: None,
            fence: 0,
            lease: None,
            order: i64::try_from(id).unwrap_or(i64::MAX),
            length: length as u64,
            is_apart: length > APART_FROM,
            attempts_max: message.attempts_max,
            backoff: message.backoff,
            payload: message.payload,
        })
    }

    /// Makes the row; a payload that lies apart is not in it.
    pub(super) fn draft(&self) -> RowDraft {
        let payload = if self.is_apart { Bytes::new() } else { self.payload.clone() };
        let mut draft = RowDraft::new(payload)
            .field("a", self.attempts)
            .field("b", self.length)
            .field("e", self.enqueued)
            .field("o", self.order)
            .field("p", self.priority)
            .field("s", self.state.number());
        if self.until != 0 {
            draft = draft.field("t", self.until);
        }
        if self.fence != 0 {
            draft = draft.field("f", self.fence);
        }
        if let Some(lease) = self.lease {
            draft = draft.field("v", lease);
        }
        if self.is_apart {
            draft = draft.field("x", true);
        }
        if let Some(attempts) = self.attempts_max {
            draft = draft.field("m", attempts);
        }
        if let Some(Backoff { base, factor, cap }) = self.backoff {
            let time = |time: Duration| Part::from(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
            draft = draft.field("w", vec![time(base), factor.into(), time(cap)]);
        }
        if !self.headers.is_empty() {
            let pair = |(name, value): &(String, String)| {
                Part::List(vec![name.clone().into(), value.clone().into()])
            };
            draft = draft.field("h", self.headers.iter().map(pair).collect::<Vec<_>>());
        }
        if let Some(reason) = &self.reason {
            draft = draft.field("r", cut(reason, TEXT_LENGTH_MAX));
        }
        if let Some(origin) = &self.origin {
            draft = draft.field("g", cut(origin, TEXT_LENGTH_MAX));
        }
        if let Some(died) = self.died {
            draft = draft.field("d", died);
        }
        draft
    }

    /// Reads a row; what is not a message is none.
    pub(super) fn of(row: &Row) -> Option<Self> {
        let [Part::Integer(id)] = row.key().parts() else { return None };
        let small = |name: &str| u32::try_from(row.integer(name)?).ok();
        let texts = |part: &Part| match part {
            Part::List(pair) => match pair.as_slice() {
                [Part::String(name), Part::String(value)] => Some((name.clone(), value.clone())),
                _ => None,
            },
            _ => None,
        };
        let headers = match row.field("h") {
            Some(Part::List(pairs)) => pairs.iter().map(texts).collect::<Option<_>>()?,
            Some(_) => return None,
            None => Vec::new(),
        };
        let time = |part: &Part| match part {
            Part::Integer(micros) => u64::try_from(*micros).ok().map(Duration::from_micros),
            _ => None,
        };
        let backoff = match row.field("w") {
            Some(Part::List(parts)) => match parts.as_slice() {
                [base, Part::Integer(factor), cap] => {
                    Some(Backoff { base: time(base)?, factor: u32::try_from(*factor).ok()?, cap: time(cap)? })
                }
                _ => return None,
            },
            _ => None,
        };
        // Who may put messages may put a row that looks like one, and stops the queue when it is written again.
        let (length, is_apart) = (u64::try_from(row.integer("b")?).ok()?, is_set(row, "x"));
        if length_of(&headers) > HEADERS_LENGTH_MAX
            || backoff.is_some_and(|backoff| backoff.check().is_err())
            || !(is_apart || length == row.value().len() as u64)
        {
            return None;
        }
        Some(Self {
            id: u64::try_from(*id).ok()?,
            state: MessageState::of_number(row.integer("s"))?,
            priority: row.integer("p")?,
            attempts: small("a")?,
            enqueued: row.integer("e")?,
            until: row.integer("t").unwrap_or(0),
            headers,
            reason: row.text("r").map(String::from),
            origin: row.text("g").map(String::from),
            died: row.integer("d"),
            fence: number(row, "f"),
            lease: row.integer("v"),
            order: row.integer("o")?,
            length,
            is_apart,
            attempts_max: small("m"),
            backoff,
            payload: row.value().clone(),
        })
    }
}
