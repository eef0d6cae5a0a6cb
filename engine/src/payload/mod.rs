//! How the bytes of a payload become rows, and rows become the bytes of a payload again.
//!
//! ```text
//! plain payload --blake3--> frames (codec zstd) --> stored stream --> layout --> rows of `chunks`
//! ```
//!
//! A row lies under (payload id, chunk number). What is told apart here:
//!
//! - the **codec** says what the stored stream is: the plain payload, or compressed frames one after the other
//!   (`frame.rs`);
//! - the **layout** says how the stored stream is cut into rows, from two numbers alone (`layout.rs`).
//!
//! Nothing here knows redb, transactions or checksums: a writer puts bodies into a [`ChunkSink`], a reader takes
//! them from a [`ChunkSource`], which has compared their checksums.
//!
//! Invariants:
//! 1. Codec, class, length and stored length alone say which rows there are, and how long each of them is.
//! 2. A writer holds at most one chunk and two frames; only a contiguous payload is held whole.
//! 3. A reader holds at most one chunk, one frame and one row of the seek table; only `read_whole` and `range` hold
//!    what they answer.
//! 4. Whatever a source gives, the answer is the bytes that the descriptor promises or an error.

mod frame;
mod layout;
mod prepared;
mod reader;
mod typed;
mod writer;

pub(crate) use frame::SEEK_TABLE_NUMBER;
pub(crate) use layout::CONTIGUOUS_LENGTH_MAX;
pub(crate) use reader::{ChunkSource, Stored};
pub(crate) use typed::{PayloadPage, archive};
pub(crate) use writer::{ChunkSink, Encoded, PayloadWriter, Spec, Written, copy_from_reader, encode_small};

pub use prepared::Prepared;
pub(crate) use prepared::{
    HEAD_LENGTH, INLINE_LENGTH_MAX, PreparedBody, STAGED_LENGTH_MIN, Staged, StagingSink,
};
pub use reader::{PayloadReader, Pieces};
pub use typed::{Loadable, Placement, Storable, TypedValue};

/// Turns a length into one of memory; what does not fit gives the greatest, which no allocation grants.
fn in_memory(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Gives the numbers of all rows of a payload, if they are `most` or fewer.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) where the descriptor contradicts itself.
pub(crate) fn row_numbers(stored: &Stored, most: u64) -> crate::error::Result<Option<Vec<u64>>> {
    let (rows, seek_rows) = stored.row_counts()?;
    let few = rows.saturating_add(seek_rows) <= most;
    Ok(few.then(|| (0..rows).chain((0..seek_rows).map(|row| SEEK_TABLE_NUMBER + row)).collect()))
}
