//! What is wrong with a rules or limits document.

use super::principal::PrincipalError;
use crate::pattern::PatternError;

/// A refused rules or limits document: where, why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, {field}: {kind}")]
#[non_exhaustive]
pub struct RulesError {
    /// The line, from 1.
    pub line: usize,
    /// The field, as in `rule 2, on`.
    pub field: String,
    /// What is wrong with it.
    pub kind: RulesErrorKind,
}

/// What is wrong with a document. Texts from the document are cut after 80 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesErrorKind {
    /// Over the size limit; nothing of it was read.
    #[error("{bytes} bytes, at most {limit}; write patterns and groups rather than single keys and names")]
    DocumentTooLarge {
        /// Its size.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// Not TOML.
    #[error("not TOML: {message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// A field that must be there is not.
    #[error("missing; add it: {expected}")]
    Missing {
        /// What it takes.
        expected: &'static str,
    },
    /// A field that does not belong there.
    #[error("unknown field; known here: {expected}")]
    UnknownField {
        /// What may be there.
        expected: &'static str,
    },
    /// A value of another type.
    #[error("expected {expected}, got {got}; write {expected}")]
    WrongType {
        /// The type it takes.
        expected: &'static str,
        /// The type that is there.
        got: &'static str,
    },
    /// A value of the right type that means nothing.
    #[error("expected {expected}, got {got:?}; write {expected}")]
    WrongValue {
        /// What it takes.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// A rule with `allow` and `deny`.
    #[error("a rule either allows or denies; split it in two")]
    AllowAndDeny,
    /// A rule with neither.
    #[error("a rule needs allow = [...] or deny = [...]; add one")]
    NeitherAllowNorDeny,
    /// An empty list where it would make the rule never apply.
    #[error("an empty list never applies; fill it or remove the whole table")]
    EmptyList,
    /// More than a named limit.
    #[error("{count} {what}, at most {limit}; use patterns and groups")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A right that is neither a known name nor a number from 1 to 63.
    #[error(
        "unknown right {got:?}; known: read, write, delete, list, admin, claim, cancel, enqueue, consume, manage, or the number (1 to 63) of a later version's"
    )]
    UnknownRight {
        /// What is there.
        got: String,
    },
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(PatternError),
    /// An entry of `who` or `except` that names nobody.
    #[error(transparent)]
    Principal(PrincipalError),
    /// A capture in `who` or `except` that a pattern in `on` does not take.
    #[error("{{{capture}}} is not captured by the pattern {pattern:?}; write it there, or split the rule")]
    UnboundCapture {
        /// The capture.
        capture: String,
        /// The pattern without it.
        pattern: String,
    },
    /// An exception that leaves nobody.
    #[error("with {entry:?} excepted the rule never applies; remove the entry or the rule")]
    NeverApplies {
        /// The entry.
        entry: String,
    },
}
