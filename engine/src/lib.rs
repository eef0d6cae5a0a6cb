//! larder: an embedded, transactional store for assets, in one file.
//!
//! An asset is a **key** (a path), a **record** (metadata, checked against a registry of data formats, types and
//! media types) and a **payload** (bytes, a stream of gigabytes, or a typed value that is read in place). What
//! changes together changes in one commit, or not at all; who may change what is decided inside the transaction.
//!
//! ```
//! use larder::{Larder, Options};
//!
//! let larder = Options::new().open_in_memory()?; // or Larder::open("pantry.larder")
//! let ana = larder.session("ana")?; // a principal: who asks
//!
//! ana.put("menus/friday.json", br#"{"soup":"leek"}"#)?; // on disk when this returns
//! let dish = ana.get("menus/friday.json")?;
//! assert_eq!(dish.record().media_type(), "application/json"); // from the key's extension
//! assert_eq!(dish.bytes()?.as_ref(), br#"{"soup":"leek"}"#);
//!
//! let receipt = ana.write(|txn| {
//!     txn.put("stock/leeks.txt", "12")?;
//!     txn.put("log/1.txt", "twelve leeks came in")?;
//!     Ok(txn.list("stock")?.len())
//! })?;
//! assert_eq!(receipt.value, 1);
//! larder.close()?;
//! # Ok::<(), larder::Error>(())
//! ```
//!
//! # The way of a write
//!
//! ```text
//! Session::put ─▶ WriteTxn ─▶ guard ─▶ write-set ─▶ commit ─▶ store (redb)
//!  who asks       what they    may it,   what will     when it    where it
//!                 see          is it     change        is safe    lies
//!                              sound
//! ```
//!
//! A [`Session`] is bound to a principal, and is the only way in. A [`WriteTxn`] sees its own changes over what was
//! accepted before it. The guard decides every change, in one place and one order; only what it admits is recorded.
//! The outcome is a write-set, with times and ids decided. Commits that wait at the same time share one sync of the
//! commit log; then they are visible, from memory, and are drained into the store behind everybody's back.
//!
//! # Reading the source
//!
//! `larder-format` says what bytes mean and does nothing else. Here: `session` and `edit` are what a caller says,
//! `txn` is what a transaction sees, `guard` what it may do, `commit` how it becomes durable, `store` where it lies. `errand`
//! carries out single changes of many threads together, `combiner` closures.
//! `cache` keeps the records that are hot; `collection` is rows with indexes, as a caller sees them, and `graph` rows that are
//! edges.
//! `primitives` are the rows that follow from a change: tags, references, statistics, claims, deadlines, edges, history, feed,
//! audit. `claim`, `loadable`, `sweep`, `retention` and `why` are what they are for; `live` keeps values that cannot be stored,
//! `mounts` joins stores. `snapshot` writes copies and restores them; `repair`, `rebuild` and `salvage` make a new file of
//! another one; `verify` and `health` say how a store is.

mod authorizer;
mod bulk;
mod cache;
mod claim;
mod clock;
mod collection;
mod columns;
mod combiner;
mod commit;
mod documents;
mod edit;
mod errand;
mod error;
mod feed;
mod graph;
mod guard;
mod health;
mod larder;
mod latency;
mod live;
mod loadable;
mod mounts;
mod options;
mod payload;
mod primitives;
mod rebuild;
mod repair;
mod retention;
mod salvage;
mod session;
mod snapshot;
mod store;
mod subscription;
mod sweep;
mod trace;
mod txn;
mod upkeep;
mod verify;
mod why;

pub use authorizer::{AccessDecision, AccessRequest, Authorizer, Objection, Validator};
pub use bulk::{Bulk, BulkReport};
pub use cache::CacheStatistics;
pub use claim::{CancelOutcome, Claim, ClaimInfo, ClaimRequest, Fenceable};
pub use clock::{Clock, CountingIds, IdSource, ManualClock, RandomIds, SystemClock};
pub use collection::{
    Collection, Defined, IndexPage, Indexed, Inserted, IntoRowKey, Row, RowCursor, RowDraft, RowPage,
    RowRange, Rows,
};
pub use columns::Summary;
pub use combiner::Combiner;
pub use commit::{CommitInfo, CommitTicket, Durability, RecoveryReport};
pub use documents::{Document, DocumentKind};
pub use edit::{
    Actual, Annotation, BatchMode, Condition, Draft, Edit, IntoKey, IntoPlace, Outcome, Refusal, Stored,
    TagPolicy,
};
pub use error::{Action, Error, ErrorKind, Result};
pub use feed::{Event, Notice, Subscription};
pub use graph::{Direction, Edge, Graph, LongestPath, Reached, WalkLimits, Walked, graph_definition};
pub use health::{Figures, Health, LayerHealth, ReaderHealth, SpaceHealth};
pub use larder::{Info, InputOutput, Larder};
pub use latency::Latency;
pub use live::{LiveDraft, LiveObjects, LiveOptions, LiveStatistics};
pub use loadable::{Lookup, Miss};
pub use mounts::Mounts;
pub use options::{Options, Retention, SlowHook, SlowOperation};
pub use payload::{Loadable, PayloadReader, Pieces, Placement, Prepared, Storable, TypedValue};
pub use primitives::{AuditEntry, CommitOutcome, Count, Orphan, Progress, Purpose, Statistics};
pub use repair::{CompactReport, RepairReport, repair, repair_in_place, verify_file};
pub use retention::{Leaving, RetentionReport};
pub use salvage::{SalvageReport, salvage};
pub use session::{Receipt, Session};
pub use snapshot::{
    RestoreOptions, RestoreReport, SnapshotContents, SnapshotFile, SnapshotInfo, SnapshotOptions,
    SnapshotPolicy, SnapshotReport, Watch, restore,
};
pub use store::{Storage, UpgradeReport};
pub use sweep::{Due, SweepOptions, SweepReport, Sweeper};
pub use txn::{
    Asset, CollectionMut, Cursor, Entry, Page, PageRequest, ReadTxn, Scan, Scanned, Summaries, Walk, WriteTxn,
};
pub use upkeep::UpkeepReport;
pub use verify::{Finding, VerifyReport};
pub use why::{Former, Why};

pub use larder_format as format;
pub use larder_format::{
    AbsentReason, Aggregate, AggregateDefinition, AttributeValue, Attributes, CollectionDefinition,
    CollectionRights, ContentHash, EventKind, IMMEDIATELY, IndexDefinition, Key, KeyError, LogEntry, LogKind,
    Micros, NEVER, Part, PayloadState, Prefix, Record, RecordFlags, Right, SnapshotKind, Status, Tuple,
    Warning,
};
