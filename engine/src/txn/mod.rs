//! Transactions: what a closure sees and changes, and one consistent view to read from.

mod changes;
mod prepare;
mod read;
mod reading;
mod rows;
mod scan;
mod view;
mod write;

pub(crate) use changes::Changes;
pub(crate) use prepare::{Ready, prepare, prepare_reader};
pub use read::ReadTxn;
pub(crate) use reading::Reading;
pub use reading::{Asset, Cursor, Entry, Page, PageRequest, Walk};
pub use scan::{Scan, Scanned, Summaries};
pub(crate) use view::{View, prefix_end};
pub(crate) use write::Fronts;
pub use write::{CollectionMut, WriteTxn};
pub(crate) use write::{refused, stored};
