//! What can go wrong with a queue, and what to do about it.

use larder::Micros;

use super::Token;

/// An error of a queue.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The store would not, or could not.
    #[error(transparent)]
    Store(#[from] larder::Error),
    /// A name is not that of a queue.
    #[error("{name:?} is not the name of a queue: {reason}")]
    InvalidName {
        /// The beginning of the name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no queue of this name.
    #[error("there is no queue {name}: create it first")]
    NoSuchQueue {
        /// The name.
        name: String,
    },
    /// An argument is outside its range.
    #[error("{argument}: expected {expected}, got {got}")]
    InvalidArgument {
        /// The argument.
        argument: &'static str,
        /// What was expected.
        expected: String,
        /// What was got.
        got: String,
    },
    /// Nothing is taken from a queue that is paused.
    #[error("the queue {name} is paused: resume it first")]
    Paused {
        /// The name.
        name: String,
    },
    /// The queue has as many messages, or bytes, as it may.
    #[error(
        "the queue is full: {depth} {unit} of {limit}; nothing was enqueued; take some out, or try again later"
    )]
    QueueFull {
        /// What is limited: messages or bytes.
        unit: &'static str,
        /// How many there are.
        depth: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A message is larger than the queue takes.
    #[error("message {at} has {size} bytes, more than {limit}; nothing was enqueued")]
    MessageTooLarge {
        /// Its place among those that were to be enqueued, from 0.
        at: usize,
        /// Its size in bytes.
        size: u64,
        /// The most bytes of a message.
        limit: u64,
    },
    /// Messages that were to be enqueued together are larger than the queue takes at once.
    #[error("the batch has {size} {unit}, more than {limit}; nothing was enqueued: make it smaller")]
    BatchTooLarge {
        /// What is limited: messages or bytes.
        unit: &'static str,
        /// How many there are.
        size: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Somebody's time with a message is over: it was acknowledged, given back, taken away, or is of another queue. Nothing
    /// was changed.
    #[error("the lease was lost of {}: nothing was changed; drop what was done for it", names(.tokens))]
    LeaseLost {
        /// All tokens that are no longer good, in the order in which they were given.
        tokens: Vec<Token>,
    },
    /// A token is there twice.
    #[error("the token {token} is there twice: name every message once")]
    DuplicateToken {
        /// The token.
        token: Token,
    },
    /// A row of the queue is not what the queue wrote.
    #[error("row {row} of the queue {name} is not that of a message: {what}")]
    Malformed {
        /// The name.
        name: String,
        /// The number of the message.
        row: u64,
        /// What is wrong.
        what: &'static str,
    },
}

fn names(tokens: &[Token]) -> String {
    let names: Vec<String> = tokens.iter().take(20).map(Token::to_string).collect();
    let more = if tokens.len() > 20 { format!(" and {} more", tokens.len() - 20) } else { String::new() };
    names.join(", ") + &more
}

pub(super) fn invalid(argument: &'static str, expected: impl Into<String>, got: impl ToString) -> QueueError {
    QueueError::InvalidArgument { argument, expected: expected.into(), got: got.to_string() }
}

/// The longest time that anything of a queue can take.
const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(100 * 366 * 86_400);

/// Turns a duration into microseconds; of what may not be 0, 0 is refused.
pub(super) fn micros(
    argument: &'static str,
    time: std::time::Duration,
    may_be_zero: bool,
) -> Result<Micros, QueueError> {
    let micros = i64::try_from(time.as_micros()).ok();
    let least = i64::from(!may_be_zero);
    micros.filter(|micros| *micros >= least && time <= TIME_MAX).ok_or_else(|| {
        let least = if may_be_zero { "0" } else { "1 us" };
        invalid(argument, format!("a time of {least} to 100 years"), format!("{time:?}"))
    })
}
