//! What the bytes of a larder file mean: keys, records, data formats, rules, write-sets.
//!
//! Pure: no I/O, no clock, no storage engine, no unsafe code. Every decoder takes hostile bytes, is bounded by
//! a named limit, and answers with a typed error. `SPEC.md` is normative; the modules mirror its sections.

mod checksum;
mod collection;
mod dependency;
mod envelope;
mod event;
mod key;
mod limits;
mod log;
mod numbered;
mod operation;
mod pattern;
mod policy;
mod position;
mod record;
mod registry;
mod retention;
mod snapshot;
mod status;
mod tuple;
mod writeset;

pub use checksum::{CHECKSUM_LENGTH, ChecksumError, checksum, seal_into, unseal};
pub use collection::{
    Aggregate, AggregateDefinition, CollectionDefinition, CollectionError, CollectionRights, Differing,
    INDEX_FIELDS_MAX, INDEXES_MAX, IndexDefinition, IndexEntry, IndexOrder, ROW_VALUE_MAX, RowContent,
    RowFilter,
};
pub use dependency::{Dependency, EXTERNAL_NAME_LENGTH_MAX, Node, is_external_name};
pub use envelope::{
    ByteOrder, ENVELOPE_ALIGNMENT_MAX, ENVELOPE_LENGTH, Envelope, EnvelopeError, RKYV_FORMAT,
    short_type_name, type_fingerprint,
};
pub use event::{EventKind, EventRow, FeedRow, FeedRowError};
pub use key::{Child, Key, KeyError, Prefix};
pub use limits::{ByteSize, HistoryLimit, Limit, LimitedBy, Limits, MAX_LIMITS};
pub use log::{BATCH_HEADER_LENGTH, BatchHeader, LOG_BLOCK, LOG_VERSION, LogError, LogFileHeader};
pub use operation::{Operation, OperationError};
pub use pattern::{
    Captures, MAX_CAPTURE_NAME_BYTES, MAX_LITERAL_BYTES, MAX_PATTERN_BYTES, MAX_PATTERN_SEGMENTS, Pattern,
    PatternError, PatternErrorKind, PatternSegment, PatternSet,
};
pub use policy::{
    Consideration, Deciding, Decision, Effect, Explanation, Finding, MAX_DOCUMENT_BYTES, MAX_RULE_ENTRIES,
    MAX_RULE_NAME_BYTES, MAX_RULES, Principal, PrincipalError, PrincipalName, Right, Rights, Rule, Rules,
    RulesError, RulesErrorKind, Who, parse_combined,
};
pub use position::{POSITION_LENGTH, Position};
pub use record::{
    AbsentReason, AttributeValue, Attributes, ContentHash, IMMEDIATELY, LogEntry, LogKind, Micros, NEVER,
    PayloadState, RECORD_HEADER_LENGTH, RECORD_VERSION, Record, RecordBuilder, RecordError, RecordFlags,
    SectionTag,
};
pub use registry::{
    Claim, Format, FormatError, FormatName, Inferred, REGISTRY_ENTRIES_MAX, REGISTRY_LEN_MAX,
    REGISTRY_NAME_LEN_MAX, Registry, RegistryError, SNIFF_LEN, Strictness, Verdict, Warning,
};
pub use retention::{MAX_RETENTION_RULES, Retention, RetentionReason, RetentionRule};
pub use snapshot::{
    PIECE_HEADER_LENGTH, PieceHeader, PieceKind, SNAPSHOT_CONTENT_MAX, SNAPSHOT_VERSION, SnapshotError,
    SnapshotHeader, SnapshotKind, SnapshotManifest,
};
pub use status::{CUSTOM_STATUS, Status, StatusProperties};
pub use tuple::{
    Date, Labelled, LabelledBuilder, LocalDateTime, Part, Time, Tuple, TupleError, ZonedInstant,
};
pub use writeset::{
    StateIdentity, WRITE_SET_HEADER_LENGTH, WRITE_SET_LENGTH_MAX, WriteSet, WriteSetBuilder, WriteSetError,
    WriteSetHeader,
};
