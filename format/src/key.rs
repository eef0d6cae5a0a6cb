//! Paths of assets, and the encoding in which they are stored.
//!
//! # Invariants of a [`Key`]
//!
//! 1. It has 1 to 64 segments ([`Key::DEPTH_MAX`]), written with `/` between them.
//! 2. A segment is 1 to 255 bytes of UTF-8 ([`Key::SEGMENT_LEN_MAX`]), kept as given: nothing is normalised, so
//!    `é` as one code point and `é` as two are two keys, and `A` is not `a`.
//! 3. Its encoded form is at most 1 024 bytes ([`Key::ENCODED_LEN_MAX`]), which is its text plus one.
//! 4. No segment is empty (so no leading, trailing or double slash), `.` or `..`.
//! 5. No character is a control character: U+0000 to U+001F, U+007F, U+0080 to U+009F.
//!
//! A text that breaks one of these is refused, never repaired: two spellings of one key would be two ways past a rule.
//!
//! # Encoded form
//!
//! Every segment, each followed by the byte `00`:
//!
//! ```text
//! a          61 00
//! a/b        61 00 62 00
//! a/b/c.txt  61 00 62 00 63 2e 74 78 74 00
//! a-b        61 2d 62 00
//! ```
//!
//! By invariant 5 no segment holds a byte below `20`. From this follows:
//!
//! 6. The order of the encoded bytes is the order by segments: `a` < `a/b` < `a-b` < `a.txt` (as text, `a-b` and
//!    `a.txt` would come between `a` and `a/b`).
//! 7. The descendants of `a/b` are exactly the other keys that begin with `61 00 62 00`.
//! 8. What lies at or below a key ends before the same bytes with `01` for the last `00`; there a listing continues
//!    that skips what is below ([`Prefix::after_child`]).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Ends every segment of an encoded key.
const TERMINATOR: u8 = 0x00;
/// Greater than the terminator and less than every byte of a segment.
const AFTER_TERMINATOR: u8 = 0x01;
/// As many characters of a refused text are quoted in an error.
const EXCERPT_CHARS_MAX: usize = 64;

/// Names an asset by its path, such as `reports/2024/summary.csv`.
///
/// What holds for every key: 1 to 64 segments of 1 to 255 bytes, at most 1 024 bytes encoded, none of them empty, `.`
/// or `..`, no control characters; bytes as given. Equality, order and hash are those of the encoded form, which is
/// the order by segments. A clone shares its buffer.
///
/// Serialised as its text; what is deserialised is checked like any other text.
#[derive(Clone)]
pub struct Key {
    /// The text, then the encoded form: `a/b` `a\0b\0`. Both are UTF-8, and the second is one byte longer.
    text_then_encoded: Arc<str>,
}

impl Key {
    /// The greatest number of segments of a key.
    pub const DEPTH_MAX: usize = 64;
    /// The greatest length of one segment, in bytes.
    pub const SEGMENT_LEN_MAX: usize = 255;
    /// The greatest length of the encoded form, in bytes; the text is one byte shorter.
    pub const ENCODED_LEN_MAX: usize = 1024;

    /// Makes a key of its text.
    ///
    /// # Errors
    ///
    /// The first of these that applies: [`KeyError::Empty`], [`KeyError::TooLong`], [`KeyError::TooDeep`]; then, for
    /// the first segment that is refused, [`KeyError::EmptySegment`], [`KeyError::DotSegment`],
    /// [`KeyError::ControlCharacter`] or [`KeyError::SegmentTooLong`].
    pub fn parse(text: &str) -> Result<Key, KeyError> {
        check_text(text)?;
        Ok(Key::from_checked(text))
    }

    /// Makes a key of its encoded form, which may come from anywhere.
    ///
    /// Whatever is accepted encodes to the same bytes again.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotUtf8`]; [`KeyError::NotCanonical`] if the last byte is not the terminator or a segment holds
    /// `/`; otherwise as [`Key::parse`].
    pub fn decode(encoded: &[u8]) -> Result<Key, KeyError> {
        if encoded.is_empty() {
            return Err(KeyError::Empty);
        }
        if encoded.len() > Key::ENCODED_LEN_MAX {
            return Err(KeyError::TooLong { len: encoded.len(), max: Key::ENCODED_LEN_MAX });
        }
        let decoded = std::str::from_utf8(encoded)
            .map_err(|error| KeyError::NotUtf8 { position: error.valid_up_to() })?;
        let Some(segments) = decoded.strip_suffix('\0') else {
            return Err(KeyError::NotCanonical {
                position: encoded.len(),
                expected: "the byte 00 after the last segment",
            });
        };
        if let Some(position) = segments.find('/') {
            return Err(KeyError::NotCanonical {
                position,
                expected: "the byte 00 between segments, not a slash",
            });
        }
        if segments.is_empty() {
            return Err(KeyError::EmptySegment { position: 0 });
        }
        let mut buffer = String::with_capacity(encoded.len() * 2 - 1);
        for segment in segments.split('\0') {
            buffer.push_str(segment);
            buffer.push('/');
        }
        buffer.pop();
        check_text(&buffer)?;
        buffer.push_str(decoded);
        Ok(Key { text_then_encoded: buffer.into() })
    }

    /// Builds the buffer of a text that keeps the invariants.
    fn from_checked(text: &str) -> Key {
        let mut buffer = Vec::with_capacity(text.len().saturating_mul(2).saturating_add(1));
        buffer.extend_from_slice(text.as_bytes());
        buffer.extend(text.bytes().map(|byte| if byte == b'/' { TERMINATOR } else { byte }));
        buffer.push(TERMINATOR);
        // One byte of ASCII for another: it stays UTF-8.
        Key { text_then_encoded: String::from_utf8(buffer).unwrap_or_default().into() }
    }

    /// Splits the buffer, whose length is twice that of the text, plus one.
    fn halves(&self) -> (&str, &str) {
        let both = &*self.text_then_encoded;
        both.split_at_checked(both.len() / 2).unwrap_or_default()
    }

    /// Returns the text: the segments with `/` between them.
    pub fn as_str(&self) -> &str {
        self.halves().0
    }

    /// Returns the encoded form: every segment followed by the byte `00`.
    pub fn encoded(&self) -> &[u8] {
        self.halves().1.as_bytes()
    }

    /// Returns the encoded form as shared bytes: nothing is copied, the key's own buffer is kept alive.
    pub fn encoded_bytes(&self) -> Bytes {
        Bytes::from_owner(EncodedOf(self.clone()))
    }

    /// Iterates over the segments, the outermost first. There is at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.as_str().split('/')
    }

    /// Counts the segments: 1 to 64.
    pub fn depth(&self) -> usize {
        self.segments().count()
    }

    /// Returns the last segment.
    pub fn name(&self) -> &str {
        self.segments().next_back().unwrap_or_default()
    }

    /// Returns what follows the last dot of the name, as it is written: `gz` of `a/b.tar.gz`.
    ///
    /// There is none if nothing follows the dot (`a.`) or nothing precedes it (`.bashrc`).
    pub fn extension(&self) -> Option<&str> {
        let (stem, extension) = self.name().rsplit_once('.')?;
        (!stem.is_empty() && !extension.is_empty()).then_some(extension)
    }

    /// Returns the place that this key lies directly below: the root for a key of one segment.
    pub fn parent(&self) -> Prefix {
        Prefix { key: self.as_str().rsplit_once('/').map(|(parent, _)| Key::from_checked(parent)) }
    }

    /// Makes the key of a direct child.
    ///
    /// # Errors
    ///
    /// [`KeyError::SlashInSegment`] if it is more than one segment; otherwise as [`Key::parse`] of the whole path, in
    /// which positions are counted too.
    pub fn join(&self, segment: &str) -> Result<Key, KeyError> {
        join(Some(self), segment)
    }

    /// Makes the key at the same place below `to` as this one has below `from`; `from` itself becomes `to` itself.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotBelow`] if `from` does not cover this key; [`KeyError::Empty`] if the result would be the root;
    /// [`KeyError::TooLong`] or [`KeyError::TooDeep`] if it would not be a key.
    pub fn rebase(&self, from: &Prefix, to: &Prefix) -> Result<Key, KeyError> {
        if !from.covers(self) {
            return Err(KeyError::NotBelow { key: excerpt(self.as_str()), prefix: excerpt(from.as_str()) });
        }
        let rest = self.as_str().get(from.as_str().len()..).unwrap_or_default();
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        match (to.as_key(), rest) {
            (None, rest) => Key::parse(rest),
            (Some(to), "") => Ok(to.clone()),
            (Some(to), rest) => Key::parse(&format!("{to}/{rest}")),
        }
    }
}

/// Lends the encoded half of a key to `Bytes`.
struct EncodedOf(Key);

impl AsRef<[u8]> for EncodedOf {
    fn as_ref(&self) -> &[u8] {
        self.0.encoded()
    }
}

/// Checks invariants 1 to 5, the cheap ones first, so that work is bounded whatever the length of the text.
fn check_text(text: &str) -> Result<(), KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    let len = text.len().saturating_add(1);
    if len > Key::ENCODED_LEN_MAX {
        return Err(KeyError::TooLong { len, max: Key::ENCODED_LEN_MAX });
    }
    if is_plain(text) {
        return Ok(());
    }
    let depth = text.split('/').count();
    if depth > Key::DEPTH_MAX {
        return Err(KeyError::TooDeep { depth, max: Key::DEPTH_MAX });
    }
    let mut position = 0_usize;
    for segment in text.split('/') {
        check_segment(segment, position)?;
        position = position.saturating_add(segment.len()).saturating_add(1);
    }
    Ok(())
}

/// Tells in one pass whether a text of the right length is the key that nearly all are: of printable ASCII.
fn is_plain(text: &str) -> bool {
    let (mut depth, mut segment_len, mut dots) = (1, 0, 0);
    let is_segment =
        |len: usize, dots: usize| len > 0 && len <= Key::SEGMENT_LEN_MAX && (len > 2 || dots < len);
    for byte in text.bytes() {
        match byte {
            b'/' if is_segment(segment_len, dots) => (depth, segment_len, dots) = (depth + 1, 0, 0),
            b'/' => return false,
            b'.' => (segment_len, dots) = (segment_len + 1, dots + 1),
            b' '..=b'~' => segment_len += 1,
            _ => return false,
        }
    }
    is_segment(segment_len, dots) && depth <= Key::DEPTH_MAX
}

/// Checks one segment, which begins at byte `position` of the text.
fn check_segment(segment: &str, position: usize) -> Result<(), KeyError> {
    if segment.is_empty() {
        return Err(KeyError::EmptySegment { position });
    }
    if segment == "." || segment == ".." {
        return Err(KeyError::DotSegment { segment: segment.to_owned(), position });
    }
    if let Some((offset, control)) = segment.char_indices().find(|(_, character)| character.is_control()) {
        let position = position.saturating_add(offset);
        return Err(KeyError::ControlCharacter { code: u32::from(control), position });
    }
    if segment.len() > Key::SEGMENT_LEN_MAX {
        let (len, max) = (segment.len(), Key::SEGMENT_LEN_MAX);
        return Err(KeyError::SegmentTooLong { segment: excerpt(segment), len, max });
    }
    Ok(())
}

/// Makes the key of a direct child of a key or of the root.
fn join(parent: Option<&Key>, segment: &str) -> Result<Key, KeyError> {
    if let Some(position) = segment.find('/') {
        return Err(KeyError::SlashInSegment { segment: excerpt(segment), position });
    }
    match parent {
        None => Key::parse(segment),
        Some(parent) => {
            // Bounds what is copied below; `parse` then says the same of whatever is between the two limits.
            let len = parent.encoded().len().saturating_add(segment.len()).saturating_add(1);
            if len > Key::ENCODED_LEN_MAX {
                return Err(KeyError::TooLong { len, max: Key::ENCODED_LEN_MAX });
            }
            Key::parse(&format!("{parent}/{segment}"))
        }
    }
}

/// Quotes the beginning of a text for an error: escaped, and with an ellipsis if there is more.
pub(crate) fn excerpt(text: &str) -> String {
    let mut quoted: String = text.chars().take(EXCERPT_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(EXCERPT_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.encoded() == other.encoded()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.encoded().cmp(other.encoded())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.encoded().hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({:?})", self.as_str())
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Key {
        key.clone()
    }
}

impl FromStr for Key {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Key, KeyError> {
        Key::parse(text)
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;
    fn try_from(text: &str) -> Result<Key, KeyError> {
        Key::parse(text)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Key, KeyError> {
        Key::parse(&text)
    }
}

impl TryFrom<&String> for Key {
    type Error = KeyError;
    fn try_from(text: &String) -> Result<Key, KeyError> {
        Key::parse(text)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the path of an asset, such as \"reports/summary.csv\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                Key::parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Names a place in the tree of keys below which others lie: the root, or a key.
///
/// The root has no text and no bytes: it is parsed from the empty text, displayed as the empty text, and encoded as
/// no bytes, so that the text and bytes of every prefix begin those of what is below it. It comes before every key.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    key: Option<Key>,
}

impl Prefix {
    /// Returns the root, which covers every key.
    pub fn root() -> Prefix {
        Prefix { key: None }
    }

    /// Makes a prefix of its text; the empty text is the root.
    ///
    /// # Errors
    ///
    /// As [`Key::parse`], but never [`KeyError::Empty`].
    pub fn parse(text: &str) -> Result<Prefix, KeyError> {
        if text.is_empty() { Ok(Prefix::root()) } else { Key::parse(text).map(Prefix::from) }
    }

    /// Tells whether this is the root.
    pub fn is_root(&self) -> bool {
        self.key.is_none()
    }

    /// Returns the key, unless this is the root.
    pub fn as_key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Returns the text; empty for the root.
    pub fn as_str(&self) -> &str {
        self.as_key().map_or("", Key::as_str)
    }

    /// Returns the encoded form, with which the encoded form of everything below begins; empty for the root.
    pub fn encoded(&self) -> &[u8] {
        self.as_key().map_or(&[], Key::encoded)
    }

    /// Tells whether the key is this place itself or lies below it at any depth.
    pub fn covers(&self, key: &Key) -> bool {
        key.encoded().starts_with(self.encoded())
    }

    /// Tells whether the key lies below this place at any depth, and is not the place itself.
    pub fn is_ancestor_of(&self, key: &Key) -> bool {
        self.covers(key) && key.encoded().len() > self.encoded().len()
    }

    /// Makes the key of a direct child.
    ///
    /// # Errors
    ///
    /// As [`Key::join`].
    pub fn join(&self, segment: &str) -> Result<Key, KeyError> {
        join(self.as_key(), segment)
    }

    /// Returns the range of encoded keys that holds this place and all below it: from the first, included, to the
    /// second, excluded, or to the end if there is none, as for the root.
    pub fn subtree_range(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (self.encoded().to_vec(), self.subtree_end())
    }

    /// Returns the range of encoded keys that holds all below this place but not the place itself, bounded as
    /// [`Prefix::subtree_range`].
    pub fn descendants_range(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut start = self.encoded().to_vec();
        if !self.is_root() {
            start.push(AFTER_TERMINATOR);
        }
        (start, self.subtree_end())
    }

    /// Replaces the last terminator by its successor (invariant 8).
    fn subtree_end(&self) -> Option<Vec<u8>> {
        let mut end = self.key.as_ref()?.encoded().to_vec();
        end.pop();
        end.push(AFTER_TERMINATOR);
        Some(end)
    }

    /// Finds the direct child at or below which the key with these encoded bytes lies.
    ///
    /// There is none if the bytes are not those of a descendant of this place. Only the child's own segment is
    /// looked at; what follows it is not proven to be a key.
    pub fn child_of<'a>(&self, encoded_key: &'a [u8]) -> Option<Child<'a>> {
        let below = encoded_key.strip_prefix(self.encoded())?;
        let len = below.iter().position(|byte| *byte == TERMINATOR)?;
        let (name, rest) = below.split_at_checked(len)?;
        let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
        Some(if rest.len() == 1 { Child::Itself(name) } else { Child::Deeper(name) })
    }

    /// Returns the least position among encoded keys that comes after the direct child of this name and all below
    /// it. A listing that seeks there from each child reads one key of each.
    ///
    /// The name is a child's, as [`Prefix::child_of`] gives it; it is not checked.
    pub fn after_child(&self, name: &str) -> Vec<u8> {
        let mut position =
            Vec::with_capacity(self.encoded().len().saturating_add(name.len()).saturating_add(1));
        position.extend_from_slice(self.encoded());
        position.extend_from_slice(name.as_bytes());
        position.push(AFTER_TERMINATOR);
        position
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Prefix({:?})", self.as_str())
    }
}

impl From<Key> for Prefix {
    fn from(key: Key) -> Prefix {
        Prefix { key: Some(key) }
    }
}

impl From<&Key> for Prefix {
    fn from(key: &Key) -> Prefix {
        Prefix { key: Some(key.clone()) }
    }
}

impl From<&Prefix> for Prefix {
    fn from(prefix: &Prefix) -> Prefix {
        prefix.clone()
    }
}

impl FromStr for Prefix {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Prefix, KeyError> {
        Prefix::parse(text)
    }
}

impl TryFrom<&str> for Prefix {
    type Error = KeyError;
    fn try_from(text: &str) -> Result<Prefix, KeyError> {
        Prefix::parse(text)
    }
}

impl TryFrom<String> for Prefix {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Prefix, KeyError> {
        Prefix::parse(&text)
    }
}

/// Names a direct child of a [`Prefix`], and tells whether a key is that child or lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child<'a> {
    /// The key is the child of this name.
    Itself(&'a str),
    /// The key lies below the child of this name.
    Deeper(&'a str),
}

impl<'a> Child<'a> {
    /// Returns the child's name: one segment.
    pub fn name(&self) -> &'a str {
        match self {
            Child::Itself(name) | Child::Deeper(name) => name,
        }
    }
}

/// Says why a text or a sequence of bytes is not a key.
///
/// Positions are bytes from the beginning of the text. Texts in fields are excerpts: at most 64 characters, escaped,
/// so that an error can be printed whatever was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is nothing, or only the root is named where an asset is wanted.
    #[error(
        "a key needs at least one segment, but the path is empty: name an asset, such as \"reports/summary.csv\""
    )]
    Empty,
    /// The encoded form would be too long.
    #[error("the key takes {len} bytes encoded, more than {max}: shorten its path")]
    TooLong {
        /// The length of the encoded form, in bytes.
        len: usize,
        /// The greatest length allowed.
        max: usize,
    },
    /// There are too many segments.
    #[error("the key has {depth} segments, more than {max}: nest it less deeply")]
    TooDeep {
        /// The number of segments.
        depth: usize,
        /// The greatest number allowed.
        max: usize,
    },
    /// One segment is too long.
    #[error("the segment \"{segment}\" takes {len} bytes, more than {max}: shorten it")]
    SegmentTooLong {
        /// The beginning of the segment.
        segment: String,
        /// Its length, in bytes.
        len: usize,
        /// The greatest length allowed.
        max: usize,
    },
    /// A segment is empty: the path begins or ends with a slash, or two follow each other.
    #[error("the segment at byte {position} is empty: remove the leading, trailing or doubled slash")]
    EmptySegment {
        /// Where the segment would begin.
        position: usize,
    },
    /// A segment is `.` or `..`.
    #[error(
        "the segment \"{segment}\" at byte {position} is relative: resolve the path before it is used as a key"
    )]
    DotSegment {
        /// The segment.
        segment: String,
        /// Where it begins.
        position: usize,
    },
    /// A character is a control character.
    #[error("the path has the control character U+{code:04X} at byte {position}: remove it")]
    ControlCharacter {
        /// The character's code point.
        code: u32,
        /// Where it is.
        position: usize,
    },
    /// A slash is in what should be one segment.
    #[error(
        "\"{segment}\" has a slash at byte {position}, but one segment is wanted: join its segments one by one"
    )]
    SlashInSegment {
        /// The beginning of the text that was given as a segment.
        segment: String,
        /// Where in it the slash is.
        position: usize,
    },
    /// A key does not lie at or below the place from which it should move.
    #[error("the key \"{key}\" does not lie at or below \"{prefix}\": choose a prefix that covers it")]
    NotBelow {
        /// The beginning of the key.
        key: String,
        /// The beginning of the prefix.
        prefix: String,
    },
    /// Encoded bytes are not UTF-8.
    #[error(
        "the encoded key is not UTF-8 from byte {position} on: it is damaged or was not written as a key"
    )]
    NotUtf8 {
        /// How many bytes are UTF-8.
        position: usize,
    },
    /// Encoded bytes are not what the key that they resemble encodes to.
    #[error("the encoded key wants {expected} at byte {position}: it is damaged or was not written as a key")]
    NotCanonical {
        /// Where the bytes differ.
        position: usize,
        /// What belongs there.
        expected: &'static str,
    },
}
