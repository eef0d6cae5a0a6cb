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

pub use limits::{ByteSize, Level, Limit, LimitedBy, Limits, MAX_LIMITS};
pub use pattern::{
    Captures, MAX_CAPTURE_NAME_BYTES, MAX_LITERAL_BYTES, MAX_PATTERN_BYTES, MAX_PATTERN_SEGMENTS, Pattern,
    PatternError, PatternErrorKind, PatternSegment, PatternSet,
};
pub use policy::{
    Consideration, Deciding, Decision, Effect, Explanation, Finding, MAX_DOCUMENT_BYTES, MAX_RULE_ENTRIES,
    MAX_RULE_NAME_BYTES, MAX_RULES, Principal, PrincipalError, PrincipalName, Right, Rights, Rule, Rules,
    RulesError, RulesErrorKind, Who, parse_combined,
};
