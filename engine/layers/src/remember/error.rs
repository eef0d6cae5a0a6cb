//! What can go wrong with a cache, and what to do about it.

use larder::format::TupleError;

/// An error of a cache of computations.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RememberError {
    /// The store would not, or could not.
    #[error(transparent)]
    Store(#[from] larder::Error),
    /// A name is not that of a namespace.
    #[error("{name:?} is not the name of a namespace: use one segment of a key")]
    InvalidName {
        /// The beginning of the name.
        name: String,
    },
    /// The parts are not what something can be remembered by.
    #[error("nothing can be remembered by these parts: {0}")]
    Parts(TupleError),
    /// A value is larger than its namespace may be, or all else in it is pinned. Nothing was stored.
    #[error(
        "a value of {size} bytes has no room in its namespace, which takes {limit} {unit}; nothing was stored: raise the limit, or unpin something"
    )]
    TooLarge {
        /// The length of the value in bytes.
        size: u64,
        /// What is limited: entries or bytes.
        unit: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// There are too many values with the same fingerprint.
    #[error("more than {0} values have the same fingerprint: use one of more bits")]
    Collisions(u32),
}

impl RememberError {
    pub(super) fn parts(error: TupleError) -> Self {
        Self::Parts(error)
    }
}
