//! What can go wrong with runs, and what to do about it.

use larder::Micros;

use super::BarrierId;

/// An error of a store of runs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RunsError {
    /// The store would not, or could not.
    #[error(transparent)]
    Store(#[from] larder::Error),
    /// The lineage of something that was made could not be kept, so neither was what was made.
    #[error("nothing was stored, because what it was made from cannot be kept: {source}")]
    Lineage {
        /// Why not.
        source: larder::Error,
    },
    /// A name, a token or a partition cannot be one.
    #[error("{argument}: expected {expected}, got {got}")]
    InvalidName {
        /// What it is of.
        argument: &'static str,
        /// What was expected.
        expected: String,
        /// What was got.
        got: String,
    },
    /// The value is larger than a row can be.
    #[error("the value has {size} bytes, more than {limit}: store it as an asset, and its key here")]
    ValueTooLarge {
        /// Its size.
        size: u64,
        /// The most bytes.
        limit: u64,
    },
    /// Somebody else is making the same thing.
    #[error("somebody is at it until {until}: wait, or make something else")]
    AlreadyRunning {
        /// Until when, in microseconds since the epoch; then another may.
        until: Micros,
    },
    /// Somebody else has taken over, or it was ended: nothing was changed.
    #[error("{what} is no longer the caller's: nothing was changed; drop what was done for it")]
    Fenced {
        /// What.
        what: String,
    },
    /// There is one of this name already.
    #[error("there is {what} already, of {owner}: nothing was changed")]
    Duplicate {
        /// What.
        what: &'static str,
        /// Whose it is.
        owner: String,
    },
    /// There is no such thing.
    #[error("there is no {what} {name}")]
    NotFound {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Something is not in a state in which this can be done with it.
    #[error("{what} {name} is {state}, and would have to be {expected}: nothing was changed")]
    InvalidState {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
        /// How it is.
        state: &'static str,
        /// How it would have to be.
        expected: &'static str,
    },
    /// Keys of items are longer than the barrier takes.
    #[error(
        "the key of item {index} of the barrier {barrier} has {size} bytes, more than {limit}; none was added"
    )]
    KeyTooLarge {
        /// The barrier.
        barrier: BarrierId,
        /// The item's place among those that were to be added, from 0.
        index: usize,
        /// The size of its key.
        size: usize,
        /// The most bytes of a key.
        limit: usize,
    },
    /// A row is not what was written there.
    #[error("a row of {what} is malformed; verify the file")]
    Malformed {
        /// Of what.
        what: &'static str,
    },
}
