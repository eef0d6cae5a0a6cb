//! What is kept beside the records, each in one table, in the same transaction as the change that it follows from.

mod audit;
mod contents;
mod once;
mod statistics;
mod tags;

pub(crate) use audit::AuditBuffer;
pub use audit::AuditEntry;
pub(crate) use contents::ContentRow;
pub use once::CommitOutcome;
pub(crate) use once::OnceRow;
pub(crate) use statistics::StatisticsMap;
pub use statistics::{Count, Statistics};
pub(crate) use tags::{tag_changes, tag_key, tag_prefix, tagged_key};
