//! Key patterns: what a rule or a limit is on. The grammar is at [`Pattern`].
//!
//! Keys are taken in their encoded form: every segment followed by one zero byte, the root being empty. A tail
//! that lacks its zero byte is taken for a segment: a deny rule must not miss a key because it was cut badly.
//!
//! Invariants:
//! 1. A pattern has at most [`MAX_PATTERN_SEGMENTS`] segments before its `**` and [`MAX_PATTERN_BYTES`] bytes.
//! 2. `**` is last or absent.
//! 3. A capture's name occurs once in its pattern.
//! 4. [`PatternSet`] answers exactly what matching every pattern by itself would.

mod trie;

use std::cmp::Ordering;
use std::fmt;

pub use trie::{Captures, PatternSet};
pub(crate) use trie::{Coverage, SegmentHasher, Trie};

/// The most bytes a pattern may have.
pub const MAX_PATTERN_BYTES: usize = 1024;
/// The most segments a pattern may have, not counting its `**`.
pub const MAX_PATTERN_SEGMENTS: usize = 64;
/// The most bytes a literal segment may have.
pub const MAX_LITERAL_BYTES: usize = 255;
/// The most bytes a capture's name may have.
pub const MAX_CAPTURE_NAME_BYTES: usize = 32;

/// One segment of a [`Pattern`], its final `**` apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PatternSegment {
    /// Matches this segment, byte for byte.
    Literal(Box<str>),
    /// `*`: matches any one segment.
    Any,
    /// `{name}`: matches any one segment and captures it.
    Capture(Box<str>),
}

/// A parsed key pattern.
///
/// A pattern is written like a key: segments separated by `/`, no slash in front.
///
/// | segment | matches |
/// |---|---|
/// | `recipes` | that segment, byte for byte |
/// | `*` | exactly one segment, whatever it is |
/// | `{name}` | exactly one segment, and captures it under a name (`[a-z][a-z0-9_]*`, at most 32 bytes) |
/// | `**` | the rest: zero or more segments; only as the last segment |
///
/// So `a/**` matches `a` itself and every key below it, and `**` matches every key and the root: a rule on a
/// drawer covers the drawer too. There is nothing else in the grammar: no classes, no braces, no escapes, no `*`
/// inside a segment (`*.csv`), so that every match is linear in the key and every set of patterns is one trie.
/// What is not in the grammar is refused, never taken for a literal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    segments: Box<[PatternSegment]>,
    rest: bool,
}

impl Pattern {
    /// Parses a pattern; nothing is repaired.
    ///
    /// # Errors
    /// [`PatternError`] with the byte position of the first offence.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let refuse = |position: usize, kind: PatternErrorKind| PatternError::new(text, position, kind);
        if text.is_empty() {
            return Err(refuse(0, PatternErrorKind::Empty));
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(refuse(MAX_PATTERN_BYTES, PatternErrorKind::TooLong { bytes: text.len() }));
        }
        if text.starts_with('/') {
            return Err(refuse(0, PatternErrorKind::LeadingSlash));
        }
        let mut segments: Vec<PatternSegment> = Vec::new();
        let mut rest = false;
        let mut position = 0_usize;
        for segment in text.split('/') {
            if rest {
                return Err(refuse(position.saturating_sub(3), PatternErrorKind::RestNotLast));
            }
            if segment == "**" {
                rest = true;
            } else {
                if segments.len() == MAX_PATTERN_SEGMENTS {
                    return Err(refuse(position, PatternErrorKind::TooManySegments));
                }
                let parsed = parse_segment(segment).map_err(|(at, kind)| refuse(position + at, kind))?;
                if matches!(parsed, PatternSegment::Capture(_)) && segments.contains(&parsed) {
                    return Err(refuse(position, PatternErrorKind::DuplicateCapture));
                }
                segments.push(parsed);
            }
            position += segment.len() + 1;
        }
        Ok(Self { text: text.into(), segments: segments.into(), rest })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments before the final `**`, if there is one.
    pub fn segments(&self) -> &[PatternSegment] {
        &self.segments
    }

    /// Whether the pattern ends in `**`.
    pub fn has_rest(&self) -> bool {
        self.rest
    }

    /// The names of the captures with the number, from 0, of the segment that each stands for.
    pub fn captures(&self) -> impl Iterator<Item = (&str, usize)> {
        self.segments.iter().enumerate().filter_map(|(at, segment)| match segment {
            PatternSegment::Capture(name) => Some((&**name, at)),
            _ => None,
        })
    }

    /// Whether the pattern matches an encoded key.
    pub fn matches_encoded(&self, key: &[u8]) -> bool {
        let mut left = key;
        for segment in &self.segments {
            let Some((head, tail)) = split_segment(left) else { return false };
            if matches!(segment, PatternSegment::Literal(literal) if literal.as_bytes() != head) {
                return false;
            }
            left = tail;
        }
        self.rest || left.is_empty()
    }

    /// Orders two patterns that match the same key by how specific they are; the greater is the more specific.
    ///
    /// From the left, the first difference decides: a literal is more specific than `*` or a capture, those more
    /// than `**`, and ending there more than `**`. So the longest literal beginning wins, and
    /// `users/*/uploads/**` is more specific than `users/**`.
    pub fn cmp_specificity(&self, other: &Self) -> Ordering {
        self.specificity().cmp(other.specificity())
    }

    fn specificity(&self) -> impl Iterator<Item = u8> {
        let last = if self.rest { 0 } else { 3 };
        self.segments
            .iter()
            .map(|segment| if matches!(segment, PatternSegment::Literal(_)) { 2 } else { 1 })
            .chain([last])
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

fn parse_segment(segment: &str) -> Result<PatternSegment, (usize, PatternErrorKind)> {
    if segment == "*" {
        return Ok(PatternSegment::Any);
    }
    if let Some(name) = segment.strip_prefix('{').and_then(|tail| tail.strip_suffix('}')) {
        return match is_capture_name(name) {
            true => Ok(PatternSegment::Capture(name.into())),
            false => Err((0, PatternErrorKind::CaptureName)),
        };
    }
    for (at, c) in segment.char_indices() {
        match c {
            '*' => return Err((at, PatternErrorKind::PartialWildcard)),
            '{' | '}' => return Err((at, PatternErrorKind::StrayBrace)),
            _ => {}
        }
    }
    check_segment(segment)?;
    Ok(PatternSegment::Literal(segment.into()))
}

/// What every segment of a key must hold to; shared with principals, which are one segment.
pub(crate) fn check_segment(segment: &str) -> Result<(), (usize, PatternErrorKind)> {
    if segment.is_empty() {
        return Err((0, PatternErrorKind::EmptySegment));
    }
    if segment == "." || segment == ".." {
        return Err((0, PatternErrorKind::DotSegment));
    }
    if segment.len() > MAX_LITERAL_BYTES {
        return Err((MAX_LITERAL_BYTES, PatternErrorKind::SegmentTooLong { bytes: segment.len() }));
    }
    match segment.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err((at, PatternErrorKind::ControlCharacter)),
        None => Ok(()),
    }
}

pub(crate) fn is_capture_name(name: &str) -> bool {
    name.len() <= MAX_CAPTURE_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Splits the first segment off an encoded key; `None` when nothing is left.
pub(crate) fn split_segment(key: &[u8]) -> Option<(&[u8], &[u8])> {
    if key.is_empty() {
        return None;
    }
    match key.iter().position(|&byte| byte == 0) {
        Some(end) => {
            let (head, tail) = key.split_at_checked(end)?;
            Some((head, tail.get(1..)?))
        }
        None => Some((key, &[])),
    }
}

/// The segment with this number, from 0, of an encoded key.
pub(crate) fn nth_segment(key: &[u8], number: usize) -> Option<&[u8]> {
    let mut left = key;
    for _ in 0..number {
        left = split_segment(left)?.1;
    }
    split_segment(left).map(|(head, _)| head)
}

/// Shows an encoded key as it is written: `a/b/c`, and `(root)` for the root.
pub(crate) fn show_key(key: &[u8]) -> String {
    if key.is_empty() {
        return "(root)".to_owned();
    }
    let body = key.strip_suffix(&[0]).unwrap_or(key);
    String::from_utf8_lossy(body).replace('\0', "/")
}

/// A text that is not a pattern: where, why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {pattern:?}, byte {position}: {kind}")]
#[non_exhaustive]
pub struct PatternError {
    /// The refused text, cut after its first 80 characters.
    pub pattern: String,
    /// The byte at which it goes wrong.
    pub position: usize,
    /// What is wrong.
    pub kind: PatternErrorKind,
}

impl PatternError {
    fn new(pattern: &str, position: usize, kind: PatternErrorKind) -> Self {
        Self { pattern: pattern.chars().take(80).collect(), position, kind }
    }
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternErrorKind {
    /// No text.
    #[error("a pattern may not be empty; write \"**\" for every key")]
    Empty,
    /// More than [`MAX_PATTERN_BYTES`].
    #[error("{bytes} bytes, at most {MAX_PATTERN_BYTES}; shorten it with \"**\"")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// More than [`MAX_PATTERN_SEGMENTS`].
    #[error("more than {MAX_PATTERN_SEGMENTS} segments; shorten it with \"**\"")]
    TooManySegments,
    /// A slash in front.
    #[error("patterns are written like keys, without a slash in front; remove it")]
    LeadingSlash,
    /// Two slashes in a row, or one at the end.
    #[error("empty segment; remove the extra slash (write \"a/**\" for all that is in a)")]
    EmptySegment,
    /// `.` or `..`.
    #[error("\".\" and \"..\" are no segments of a key; write the whole path")]
    DotSegment,
    /// A literal segment over [`MAX_LITERAL_BYTES`].
    #[error("segment of {bytes} bytes, at most {MAX_LITERAL_BYTES}; no key can have it")]
    SegmentTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A control character: no key has one.
    #[error("control character; no key can have it, remove it")]
    ControlCharacter,
    /// `**` somewhere but at the end.
    #[error("\"**\" stands only at the end; write \"*\" once for each segment that may vary")]
    RestNotLast,
    /// `*` beside other characters.
    #[error("\"*\" stands for one whole segment; write \"*\" alone, or \"**\" at the end for the rest")]
    PartialWildcard,
    /// A brace that is not a whole segment's.
    #[error("a capture is one whole segment, \"{{name}}\"; braces have no other use and no escape")]
    StrayBrace,
    /// `{...}` around something that is not a name.
    #[error(
        "a capture's name is a small letter, then small letters, digits or \"_\", at most {MAX_CAPTURE_NAME_BYTES}"
    )]
    CaptureName,
    /// The same capture twice in one pattern.
    #[error("this capture occurs twice; give the second another name, or write \"*\"")]
    DuplicateCapture,
}
