//! How a queue works: data, in the attributes of its record, where everybody can see it.

use std::time::Duration;

use larder::{Annotation, AttributeValue, Record};
use serde::{Deserialize, Serialize};

use super::error::{QueueError, invalid, micros};

/// How long a message that was given back waits before it can be taken again: `base * factor^(attempts - 1)`, and `cap` at
/// most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The first wait.
    pub base: Duration,
    /// By how much it grows from one attempt to the next; 1 for always the same.
    pub factor: u32,
    /// The longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// No wait at all.
    pub const NONE: Self = Self { base: Duration::ZERO, factor: 1, cap: Duration::ZERO };

    /// Always the same wait.
    #[must_use]
    pub const fn fixed(wait: Duration) -> Self {
        Self { base: wait, factor: 1, cap: wait }
    }

    /// A wait that grows by a factor.
    #[must_use]
    pub const fn exponential(base: Duration, factor: u32, cap: Duration) -> Self {
        Self { base, factor, cap }
    }

    /// Gives the wait after so many attempts.
    #[must_use]
    pub fn wait(&self, attempts: u32) -> Duration {
        let growth = self.factor.max(1).checked_pow(attempts.saturating_sub(1));
        growth.and_then(|growth| self.base.checked_mul(growth)).unwrap_or(self.cap).min(self.cap)
    }

    pub(super) fn check(&self) -> Result<(), QueueError> {
        micros("backoff base", self.base, true)?;
        micros("backoff cap", self.cap, true).map(drop)
    }
}

/// Where a message goes that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RequeueAt {
    /// Where it was, by the order in which messages were enqueued.
    Original,
    /// Before all others of its priority.
    Front,
    /// Behind all others of its priority.
    Back,
}

impl RequeueAt {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Original, "original"), (Self::Front, "front"), (Self::Back, "back")];
}

/// How a queue works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueueSettings {
    /// For how long a message is whose who took it, if nothing else is said: 30 s.
    pub visibility: Duration,
    /// How often a message is delivered before it is a dead letter: 5; 0 for as often as it takes.
    pub attempts_max: u32,
    /// How long a message waits that was given back: not at all.
    pub backoff: Backoff,
    /// Where a message goes that was given back: to its original place.
    pub requeue_at: RequeueAt,
    /// The most messages, those in flight and those that wait for their time among them: 10 million.
    pub messages_max: u64,
    /// The most bytes of all messages' payloads: 64 GiB.
    pub bytes_max: u64,
    /// The most bytes of a payload: 1 MiB; at most 16 MiB.
    pub message_bytes_max: u64,
    /// The most bytes that are enqueued together: 10 MiB; at most 48 MiB.
    pub batch_bytes_max: u64,
    /// Whether nothing can be taken out for now.
    pub is_paused: bool,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            visibility: Duration::from_secs(30),
            attempts_max: 5,
            backoff: Backoff::NONE,
            requeue_at: RequeueAt::Original,
            messages_max: 10_000_000,
            bytes_max: 64 << 30,
            message_bytes_max: 1 << 20,
            batch_bytes_max: 10 << 20,
            is_paused: false,
        }
    }
}

const MESSAGE_BYTES_MAX: u64 = 16 << 20;
const BATCH_BYTES_MAX: u64 = 48 << 20;

impl QueueSettings {
    /// The settings that a queue has if nothing is said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For how long a message is whose who took it.
    #[must_use]
    pub fn visibility(mut self, time: Duration) -> Self {
        self.visibility = time;
        self
    }

    /// How often a message is delivered before it is a dead letter; 0 for as often as it takes.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts;
        self
    }

    /// How long a message waits that was given back.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Where a message goes that is given back.
    #[must_use]
    pub fn requeue_at(mut self, place: RequeueAt) -> Self {
        self.requeue_at = place;
        self
    }

    /// The most messages.
    #[must_use]
    pub fn messages_max(mut self, messages: u64) -> Self {
        self.messages_max = messages;
        self
    }

    /// The most bytes of all payloads.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// The most bytes of a payload.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: u64) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// The most bytes that are enqueued together.
    #[must_use]
    pub fn batch_bytes_max(mut self, bytes: u64) -> Self {
        self.batch_bytes_max = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), QueueError> {
        micros("visibility", self.visibility, false)?;
        self.backoff.check()?;
        for (argument, bytes, max) in [
            ("message_bytes_max", self.message_bytes_max, MESSAGE_BYTES_MAX),
            ("batch_bytes_max", self.batch_bytes_max, BATCH_BYTES_MAX),
        ] {
            if bytes > max {
                return Err(invalid(argument, format!("at most {max} bytes"), bytes));
            }
        }
        Ok(())
    }

    /// Tells whether a record is that of a queue: a collection with settings.
    pub(super) fn are_of(record: &Record) -> bool {
        record.is_collection() && record.attribute("queue.visibility_us").is_some()
    }

    /// Says the settings as attributes of a record.
    pub(super) fn annotation(&self) -> Annotation {
        let time = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let place = RequeueAt::ALL.iter().find(|(place, _)| *place == self.requeue_at);
        Annotation::new()
            .attribute("queue.visibility_us", time(self.visibility))
            .attribute("queue.attempts_max", i64::from(self.attempts_max))
            .attribute("queue.backoff_base_us", time(self.backoff.base))
            .attribute("queue.backoff_factor", i64::from(self.backoff.factor))
            .attribute("queue.backoff_cap_us", time(self.backoff.cap))
            .attribute("queue.requeue_at", place.map_or("original", |(_, name)| name))
            .attribute("queue.messages_max", count(self.messages_max))
            .attribute("queue.bytes_max", count(self.bytes_max))
            .attribute("queue.message_bytes_max", count(self.message_bytes_max))
            .attribute("queue.batch_bytes_max", count(self.batch_bytes_max))
            .attribute("queue.paused", self.is_paused)
    }

    /// Reads the settings from the attributes of a record; what is not there is as in a new queue.
    pub(super) fn of(record: &Record) -> Self {
        let attributes = record.attributes();
        let number = |name: &str, default: u64| match attributes.get(name) {
            Some(AttributeValue::Integer(value)) => u64::try_from(*value).unwrap_or(default),
            _ => default,
        };
        let time = |name: &str, default: Duration| {
            let micros = u64::try_from(default.as_micros()).unwrap_or(u64::MAX);
            Duration::from_micros(number(name, micros))
        };
        let small = |name: &str, default: u32| u32::try_from(number(name, default.into())).unwrap_or(default);
        let new = Self::new();
        let place = match attributes.get("queue.requeue_at") {
            Some(AttributeValue::Text(name)) => RequeueAt::ALL.iter().find(|(_, other)| other == name),
            _ => None,
        };
        Self {
            visibility: time("queue.visibility_us", new.visibility),
            attempts_max: small("queue.attempts_max", new.attempts_max),
            backoff: Backoff {
                base: time("queue.backoff_base_us", new.backoff.base),
                factor: small("queue.backoff_factor", new.backoff.factor),
                cap: time("queue.backoff_cap_us", new.backoff.cap),
            },
            requeue_at: place.map_or(new.requeue_at, |(place, _)| *place),
            messages_max: number("queue.messages_max", new.messages_max),
            bytes_max: number("queue.bytes_max", new.bytes_max),
            message_bytes_max: number("queue.message_bytes_max", new.message_bytes_max),
            batch_bytes_max: number("queue.batch_bytes_max", new.batch_bytes_max),
            is_paused: attributes.get("queue.paused") == Some(&AttributeValue::Bool(true)),
        }
    }
}
