//! What the bytes of a larder file mean. Pure: no I/O, no clock, no redb, no unsafe code.

mod checksum;
mod envelope;
mod key;
mod limits;
mod pattern;
mod policy;
mod record;
mod registry;
mod status;
mod tuple;
mod writeset;

pub use key::{Child, Key, KeyError, Prefix};
pub use tuple::{Date, Labelled, LocalDateTime, Part, Time, Tuple, TupleError, ZonedInstant};
