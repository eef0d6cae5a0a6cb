//! What is kept beside the records, each in one table, in the same transaction as the change that it follows from.

mod audit;
mod claims;
mod contents;
mod deadlines;
mod derived;
mod edges;
mod history;
mod logs;
mod numbered;
mod once;
mod rows;
mod statistics;
mod tags;

pub(crate) use audit::AuditBuffer;
pub use audit::AuditEntry;
pub use claims::Orphan;
pub(crate) use claims::{ClaimRow, FENCES_AT_ONCE, check_group, group_key, group_prefix};
pub(crate) use contents::ContentRow;
pub use deadlines::Purpose;
pub(crate) use deadlines::{deadline_key, deadline_of, expiry_of, is_expirable};
pub(crate) use derived::{
    DerivedRow, ReferenceCounts, References, derived_of_claim, derived_of_record, is_all_derived, is_derived,
};
pub(crate) use edges::{EXTERNALS, change_edges, dependent_in, edges_of, external_key, is_edge, version_in};
pub(crate) use history::{PRUNED as HISTORY_PRUNED, decode as decode_history, encode as encode_history};
pub use logs::Progress;
pub(crate) use logs::{LOG_ENTRIES_MAX, PROGRESS, decode_entry, encode_entry};
pub(crate) use numbered::{numbered_key, numbered_of, numbered_prefix};
pub use once::CommitOutcome;
pub(crate) use once::OnceRow;
pub(crate) use rows::{
    DefinedCollection, Groups, OpenedCollection, RowChange, derived_of_row, entry_of, row_key, row_key_of,
    row_name, values_of,
};
pub(crate) use statistics::StatisticsMap;
pub use statistics::{Count, Statistics};
pub(crate) use tags::{tag_changes, tag_prefix, tagged_key};
