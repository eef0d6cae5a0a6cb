//! The metadata record: a fixed header that is read in place, then tagged sections, then, for a small payload,
//! the payload itself. The layout is section 5 of SPEC.md.
//!
//! Invariants
//! 1. A [`Record`] holds bytes that were checked when it was made: the accessors cannot fail.
//! 2. Sections are in ascending order of their tags, each tag once; a section with an unknown tag is kept by
//!    every rewrite.
//! 3. Reserved bytes are zero when written and checked when read.
//! 4. An absent payload has a reason, length 0 and no hash.

mod builder;
mod section;

pub use builder::RecordBuilder;
pub use section::{AttributeValue, Attributes, LogEntry, LogKind, SectionTag};

use bytes::Bytes;

use crate::dependency::Dependency;
use crate::numbered::numbered;
use crate::status::{Status, StatusProperties};
use section::SectionError;

/// The length of the fixed header, in bytes.
pub const RECORD_HEADER_LENGTH: usize = 128;
/// The version of the record layout that is written.
pub const RECORD_VERSION: u8 = 1;

/// Microseconds since 1970-01-01 00:00 UTC.
pub type Micros = i64;

/// The deadline of a record that never expires.
pub const NEVER: Micros = Micros::MAX;
/// The deadline of a record that is expired from the start.
pub const IMMEDIATELY: Micros = Micros::MIN;

numbered! {
    /// Why a record has no payload.
    pub enum AbsentReason {
        /// The value cannot be serialised.
        1 NonSerializable "non-serializable",
        /// The value existed in memory only.
        2 Transient "transient",
        /// The payload was removed to make room.
        3 Evicted "evicted",
        /// Nothing was produced yet.
        4 NeverProduced "never-produced",
        /// The record is an explicit directory.
        5 Directory "directory",
        /// The record is that of a collection, whose rows lie elsewhere.
        6 Collection "collection",
    }
}

/// A blake3 digest of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Digests a whole payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self(*blake3::hash(payload).as_bytes())
    }

    /// Gives the first 16 bytes, the content version as Liquers counts it.
    #[must_use]
    pub fn version(&self) -> u128 {
        self.0.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
    }
}

impl std::fmt::Display for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// Where the payload of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadState {
    /// Behind the record, in the same row.
    Inline {
        /// The length in bytes.
        length: u64,
        /// The digest of the bytes.
        hash: ContentHash,
    },
    /// In chunks of its own.
    Stored {
        /// The length in bytes, before compression.
        length: u64,
        /// The digest of the bytes, before compression.
        hash: ContentHash,
        /// The number under which the chunks lie.
        id: u64,
    },
    /// Nowhere, and why.
    Absent(AbsentReason),
}

impl PayloadState {
    /// Gives the length in bytes; 0 where there is no payload.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Inline { length, .. } | Self::Stored { length, .. } => *length,
            Self::Absent(_) => 0,
        }
    }

    /// Gives the digest of the payload, if there is one.
    #[must_use]
    pub fn hash(&self) -> Option<ContentHash> {
        match self {
            Self::Inline { hash, .. } | Self::Stored { hash, .. } => Some(*hash),
            Self::Absent(_) => None,
        }
    }
}

/// Facts about an asset that are either so or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordFlags(u32);

impl RecordFlags {
    /// The asset is never served as a hit.
    pub const VOLATILE: Self = Self(1);
    /// The asset is never removed by a policy.
    pub const PINNED: Self = Self(2);
    /// The payload begins with an envelope: it is a typed value.
    pub const TYPED: Self = Self(4);
    /// There is a recipe that makes the asset: what is set from outside stands in its place.
    pub const HAS_RECIPE: Self = Self(8);

    /// Tells whether all flags of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Gives the flags with those of `other` set or cleared.
    #[must_use]
    pub fn with(self, other: Self, set: bool) -> Self {
        if set { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }

    /// Gives the flags as they stand in a record.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

/// A row does not hold a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The row ends before the record does.
    #[error("a record of {expected} bytes or more was expected, {found} are there")]
    Truncated {
        /// How many bytes it takes at least.
        expected: usize,
        /// How many are there.
        found: usize,
    },
    /// The record has a layout that this version does not know.
    #[error("the record has layout version {found}; this version of larder reads up to {RECORD_VERSION}")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// A field contradicts the layout.
    #[error("the record is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A part of a record to be written is too large to be encoded.
    #[error("{what} has {found} bytes, more than the {max} that a record can hold")]
    TooLarge {
        /// Which part it is.
        what: &'static str,
        /// How large it is, in bytes.
        found: usize,
        /// How large it may be, in bytes.
        max: usize,
    },
}

impl From<SectionError> for RecordError {
    fn from(SectionError(what): SectionError) -> Self {
        Self::Malformed { what }
    }
}

/// A metadata record, as it lies in the file: in bytes of its own, cheap to clone, or, as a `Record<&[u8]>`, in a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Record<B = Bytes> {
    bytes: B,
}

impl Record {
    /// Takes a row apart into its record and the payload behind it, which is empty unless it is inline.
    ///
    /// # Errors
    /// [`RecordError`] where the row is not a record of a known version, whole, with nothing left over.
    pub fn split(row: &Bytes) -> Result<(Self, Bytes), RecordError> {
        let length = Record::in_place(row)?.0.bytes.len();
        Ok((Self { bytes: row.slice(..length) }, row.slice(length..)))
    }

    pub(crate) fn from_checked(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// Gives the bytes of the record, without payload.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<'a> Record<&'a [u8]> {
    /// Takes a row apart where it lies, as [`Record::split`] does.
    ///
    /// # Errors
    /// As [`Record::split`].
    pub fn in_place(row: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let Some(header) = row.first_chunk::<RECORD_HEADER_LENGTH>() else {
            return Err(RecordError::Truncated { expected: RECORD_HEADER_LENGTH, found: row.len() });
        };
        let found = header.first().copied().unwrap_or_default();
        if found != RECORD_VERSION {
            return Err(RecordError::Version { found });
        }
        let sections_length = u32_at(header, 108) as usize;
        let length = RECORD_HEADER_LENGTH + sections_length;
        let Some((bytes, payload)) = row.split_at_checked(length) else {
            return Err(RecordError::Truncated { expected: length, found: row.len() });
        };
        let reserved = header.iter().skip(104).take(4).chain(header.iter().skip(120));
        if reserved.copied().any(|byte| byte != 0) {
            return Err(RecordError::Malformed { what: "reserved bytes are not zero" });
        }
        let record = Self { bytes };
        section::check(record.sections_bytes())?;
        record.check_payload(payload.len())?;
        Ok((record, payload))
    }

    /// Copies the record out of where it lies.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record { bytes: Bytes::copy_from_slice(self.bytes) }
    }
}

impl<B: AsRef<[u8]>> Record<B> {
    fn check_payload(&self, behind: usize) -> Result<(), RecordError> {
        let (state, reason) = (self.byte(1), self.byte(2));
        let what = match state {
            1 if reason != 0 => "a payload is there, with a reason for its absence",
            1 if self.u64_at(40) != behind as u64 => "the payload has another length than its record says",
            2 if reason != 0 => "a payload is there, with a reason for its absence",
            2 if behind != 0 => "bytes follow a record whose payload lies elsewhere",
            3 if behind != 0 || self.u64_at(40) != 0 => "bytes follow a record without payload",
            3 if AbsentReason::from_number(reason).is_none() => "the payload is absent for no known reason",
            1..=3 => return Ok(()),
            _ => "the payload is neither inline nor stored nor absent",
        };
        Err(RecordError::Malformed { what })
    }

    /// Gives how often the asset was changed: 1 when it is created, one more with every change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.u64_at(8)
    }

    /// Gives when the asset was created.
    #[must_use]
    pub fn created(&self) -> Micros {
        self.u64_at(16).cast_signed()
    }

    /// Gives when the asset was last changed.
    #[must_use]
    pub fn updated(&self) -> Micros {
        self.u64_at(24).cast_signed()
    }

    /// Gives the sequence number of the commit that last changed the asset.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.u64_at(32)
    }

    /// Gives when the asset expires: [`NEVER`], [`IMMEDIATELY`] or a time.
    #[must_use]
    pub fn expires(&self) -> Micros {
        self.u64_at(112).cast_signed()
    }

    /// Gives the version of the content: 128 bits, 0 if unknown.
    #[must_use]
    pub fn version(&self) -> u128 {
        u128::from_be_bytes(self.array_at(88))
    }

    /// Gives the status.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::from_number(self.byte(3), self.text(SectionTag::StatusName))
    }

    /// Gives the number of the status.
    #[must_use]
    pub fn status_number(&self) -> u8 {
        self.byte(3)
    }

    /// Gives what the status implies, without making one.
    #[must_use]
    pub fn status_properties(&self) -> StatusProperties {
        StatusProperties::of_number(self.byte(3))
    }

    /// Gives the flags.
    #[must_use]
    pub fn flags(&self) -> RecordFlags {
        RecordFlags(u32::from_le_bytes(self.array_at(4)))
    }

    /// Tells where the payload is.
    #[must_use]
    pub fn payload(&self) -> PayloadState {
        let (length, hash) = (self.u64_at(40), ContentHash(self.array_at(56)));
        match self.byte(1) {
            1 => PayloadState::Inline { length, hash },
            2 => PayloadState::Stored { length, hash, id: self.u64_at(48) },
            _ => PayloadState::Absent(
                AbsentReason::from_number(self.byte(2)).unwrap_or(AbsentReason::NeverProduced),
            ),
        }
    }

    /// Tells whether there is a payload, be it one of 0 bytes.
    #[must_use]
    pub fn has_payload(&self) -> bool {
        !matches!(self.payload(), PayloadState::Absent(_))
    }

    /// Tells whether the record is an explicit directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.payload() == PayloadState::Absent(AbsentReason::Directory)
    }

    /// Tells whether the record is that of a collection.
    #[must_use]
    pub fn is_collection(&self) -> bool {
        self.payload() == PayloadState::Absent(AbsentReason::Collection)
    }

    /// Gives the data format; empty if there is none.
    #[must_use]
    pub fn data_format(&self) -> &str {
        self.text(SectionTag::DataFormat).unwrap_or_default()
    }

    /// Gives the media type; empty if there is none.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.text(SectionTag::MediaType).unwrap_or_default()
    }

    /// Gives the type identifier; empty if there is none.
    #[must_use]
    pub fn type_identifier(&self) -> &str {
        self.text(SectionTag::TypeIdentifier).unwrap_or_default()
    }

    /// Gives a section of text, if it is there.
    #[must_use]
    pub fn text(&self, tag: SectionTag) -> Option<&str> {
        self.section(tag.number()).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Gives the tags, in their order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        section::strings(self.section(SectionTag::Tags.number()).unwrap_or_default())
    }

    /// Gives the attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        self.section(SectionTag::Attributes.number())
            .and_then(|bytes| Attributes::decode(bytes).ok())
            .unwrap_or_default()
    }

    /// Gives one attribute, without making anything of the others.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<AttributeValue> {
        self.section(SectionTag::Attributes.number()).and_then(|bytes| Attributes::find(bytes, name))
    }

    /// Gives what the asset was made from, each in the version that was seen.
    #[must_use]
    pub fn dependencies(&self) -> Vec<Dependency> {
        self.section(SectionTag::Dependencies.number())
            .and_then(|bytes| Dependency::decode_all(bytes).ok())
            .unwrap_or_default()
    }

    /// Tells whether the asset must never be served as a hit.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.flags().contains(RecordFlags::VOLATILE) || self.byte(3) == Status::Volatile.number()
    }

    /// Tells whether the asset cannot be made again: it was set from outside, and no recipe makes it.
    #[must_use]
    pub fn is_irreplaceable(&self) -> bool {
        let is_set = [Status::Source.number(), Status::Override.number()].contains(&self.byte(3));
        is_set && !self.flags().contains(RecordFlags::HAS_RECIPE)
    }

    /// Tells whether no policy may remove the asset: it is pinned, or cannot be made again.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.flags().contains(RecordFlags::PINNED) || self.is_irreplaceable()
    }

    /// Gives the log, oldest entry first.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.section(SectionTag::Log.number())
            .and_then(|bytes| LogEntry::decode_all(bytes).ok())
            .unwrap_or_default()
    }

    /// Gives the opaque bytes that the application keeps with the record.
    #[must_use]
    pub fn extra(&self) -> Option<&[u8]> {
        self.section(SectionTag::Extra.number())
    }

    /// Gives a section by its number, known or not.
    #[must_use]
    pub fn section(&self, tag: u16) -> Option<&[u8]> {
        self.sections().find(|(found, _)| *found == tag).map(|(_, bytes)| bytes)
    }

    /// Gives all sections, in the order of their numbers.
    pub fn sections(&self) -> impl Iterator<Item = (u16, &[u8])> {
        section::iterate(self.sections_bytes())
    }

    fn sections_bytes(&self) -> &[u8] {
        self.bytes.as_ref().get(RECORD_HEADER_LENGTH..).unwrap_or_default()
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.as_ref().get(at).copied().unwrap_or_default()
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array_at(at))
    }

    fn array_at<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.as_ref().get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }
}

impl<B: AsRef<[u8]>> std::fmt::Debug for Record<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("generation", &self.generation())
            .field("status", &self.status())
            .field("data_format", &self.data_format())
            .field("payload", &self.payload())
            .finish_non_exhaustive()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}
