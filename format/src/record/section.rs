//! The tagged sections of a record, and what is inside those that larder knows.

use std::collections::BTreeMap;

use crate::dependency::Dependency;
use crate::numbered::numbered;

/// What a section of a record holds.
///
/// Numbers below 0x8000 are larder's; an application may use those from 0x8000 on for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u16)]
pub enum SectionTag {
    /// The data format, text.
    DataFormat = 1,
    /// The media type, text.
    MediaType = 2,
    /// The type identifier, text.
    TypeIdentifier = 3,
    /// The name of the type, text.
    TypeName = 4,
    /// The name of a custom status, text.
    StatusName = 5,
    /// The tags: strings.
    Tags = 6,
    /// The attributes: names and values.
    Attributes = 7,
    /// Opaque bytes of the application.
    Extra = 8,
    /// The title, text.
    Title = 9,
    /// The description, text.
    Description = 10,
    /// The file name, text.
    FileName = 11,
    /// A message, text.
    Message = 12,
    /// The log: entries with time and kind.
    Log = 13,
    /// What the asset was made from.
    Dependencies = 14,
    /// The number and the definition of a collection.
    Collection = 15,
}

impl SectionTag {
    /// Gives the number of the section.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Tells whether the section holds one text.
    #[must_use]
    pub const fn is_text(number: u16) -> bool {
        matches!(number, 1..=5 | 9..=12)
    }
}

#[derive(Debug)]
pub(crate) struct SectionError(pub(crate) &'static str);

/// Each section is [tag u16][reserved u16, 0][length u32][bytes].
const SECTION_HEADER_LENGTH: usize = 8;

/// Checks that the bytes are sections in ascending order, and that what is inside those that are known is sound.
pub(crate) fn check(mut bytes: &[u8]) -> Result<(), SectionError> {
    let mut last = None;
    while !bytes.is_empty() {
        let Some((tag, body, rest)) = split(bytes) else {
            return Err(SectionError(
                "a section is longer than its record, or its reserved bytes are not zero",
            ));
        };
        if tag == 0 || last.is_some_and(|last| last >= tag) {
            return Err(SectionError("sections are not in ascending order of their tags"));
        }
        if SectionTag::is_text(tag) && std::str::from_utf8(body).is_err() {
            return Err(SectionError("a section of text is not UTF-8"));
        }
        if tag == SectionTag::Tags.number() {
            check_strings(body)?;
        }
        if tag == SectionTag::Attributes.number() {
            Attributes::check(body)?;
        }
        if tag == SectionTag::Log.number() {
            LogEntry::decode_all(body)?;
        }
        if tag == SectionTag::Dependencies.number() {
            Dependency::decode_all(body).map_err(SectionError)?;
        }
        last = Some(tag);
        bytes = rest;
    }
    Ok(())
}

/// Iterates over sections that were checked.
pub(crate) fn iterate(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, body, rest) = split(bytes)?;
        bytes = rest;
        Some((tag, body))
    })
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let ([t0, t1, r0, r1, l0, l1, l2, l3], rest) = bytes.split_first_chunk::<SECTION_HEADER_LENGTH>()?;
    if (*r0, *r1) != (0, 0) {
        return None;
    }
    let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    let (body, rest) = rest.split_at_checked(length)?;
    Some((u16::from_le_bytes([*t0, *t1]), body, rest))
}

/// Appends one section.
pub(crate) fn append(tag: u16, body: &[u8], out: &mut Vec<u8>) -> Result<(), super::RecordError> {
    let length = u32::try_from(body.len()).map_err(|_| super::RecordError::TooLarge {
        what: "a section",
        found: body.len(),
        max: u32::MAX as usize,
    })?;
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(body);
    Ok(())
}

/// Encodes strings, each behind its length: [length u32][UTF-8].
pub(crate) fn encode_strings<'a>(strings: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::new();
    for string in strings {
        push_bytes(string.as_bytes(), &mut out);
    }
    out
}

pub(crate) fn strings(mut bytes: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (string, rest) = take_bytes(bytes)?;
        bytes = rest;
        std::str::from_utf8(string).ok()
    })
}

fn check_strings(mut bytes: &[u8]) -> Result<(), SectionError> {
    while !bytes.is_empty() {
        let (string, rest) = take_bytes(bytes).ok_or(SectionError("a tag is longer than its section"))?;
        std::str::from_utf8(string).map_err(|_| SectionError("a tag is not UTF-8"))?;
        bytes = rest;
    }
    Ok(())
}

fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // Lengths beyond u32 are refused where the section as a whole is appended.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AttributeValue {
    /// Yes or no.
    Bool(bool),
    /// A signed number of 64 bits.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nanoseconds since 1970-01-01 00:00 UTC; from 1677 to 2262.
    Timestamp(i64),
}

macro_rules! attribute_from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for AttributeValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}
attribute_from!(bool => Bool, i64 => Integer, i32 => Integer, u32 => Integer, f64 => Float, &str => Text, String => Text, Vec<u8> => Bytes, &[u8] => Bytes);

/// Free attributes of an asset: names and small typed values, ordered by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes(pub BTreeMap<String, AttributeValue>);

impl Attributes {
    /// Gives the value of an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.get(name)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in &self.0 {
            push_bytes(name.as_bytes(), &mut out);
            match value {
                AttributeValue::Bool(value) => out.extend_from_slice(&[1, u8::from(*value)]),
                AttributeValue::Integer(value) => {
                    out.push(2);
                    out.extend_from_slice(&value.to_le_bytes());
                }
                AttributeValue::Float(value) => {
                    out.push(3);
                    out.extend_from_slice(&value.to_bits().to_le_bytes());
                }
                AttributeValue::Text(value) => {
                    out.push(4);
                    push_bytes(value.as_bytes(), &mut out);
                }
                AttributeValue::Bytes(value) => {
                    out.push(5);
                    push_bytes(value, &mut out);
                }
                AttributeValue::Timestamp(value) => {
                    out.push(6);
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SectionError> {
        Self::in_place(bytes)
            .map(|attribute| attribute.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Checks encoded attributes, and makes nothing of them.
    fn check(bytes: &[u8]) -> Result<(), SectionError> {
        Self::in_place(bytes).try_for_each(|attribute| attribute.map(drop))
    }

    /// Finds one among encoded attributes.
    pub(crate) fn find(bytes: &[u8], name: &str) -> Option<AttributeValue> {
        let mut attributes = Self::in_place(bytes).map_while(Result::ok);
        attributes.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    }

    /// Iterates over encoded attributes, where they lie; ends after the first error.
    fn in_place(
        mut bytes: &[u8],
    ) -> impl Iterator<Item = Result<(&str, AttributeInPlace<'_>), SectionError>> {
        let mut last = None;
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let Some((name, value, rest)) = AttributeInPlace::split(bytes) else {
                bytes = &[];
                return Some(Err(SectionError("an attribute is malformed")));
            };
            if last.is_some_and(|last| last >= name) {
                bytes = &[];
                return Some(Err(SectionError("attributes are not in ascending order of their names")));
            }
            (last, bytes) = (Some(name), rest);
            Some(Ok((name, value)))
        })
    }
}

/// The value of an attribute, where it lies.
enum AttributeInPlace<'a> {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Timestamp(i64),
}

impl<'a> AttributeInPlace<'a> {
    /// Takes the first attribute off the front: its name, its value, and what follows.
    fn split(bytes: &'a [u8]) -> Option<(&'a str, Self, &'a [u8])> {
        let (name, rest) = take_bytes(bytes)?;
        let name = std::str::from_utf8(name).ok()?;
        let (kind, rest) = rest.split_first()?;
        let (value, rest) = match kind {
            1 => match rest.split_first()? {
                (0, rest) => (Self::Bool(false), rest),
                (1, rest) => (Self::Bool(true), rest),
                _ => return None,
            },
            2 | 3 | 6 => {
                let (value, rest) = rest.split_first_chunk::<8>()?;
                let value = match kind {
                    2 => Self::Integer(i64::from_le_bytes(*value)),
                    3 => Self::Float(f64::from_bits(u64::from_le_bytes(*value))),
                    _ => Self::Timestamp(i64::from_le_bytes(*value)),
                };
                (value, rest)
            }
            4 => {
                let (value, rest) = take_bytes(rest)?;
                (Self::Text(std::str::from_utf8(value).ok()?), rest)
            }
            5 => {
                let (value, rest) = take_bytes(rest)?;
                (Self::Bytes(value), rest)
            }
            _ => return None,
        };
        Some((name, value, rest))
    }

    fn to_owned(&self) -> AttributeValue {
        match *self {
            Self::Bool(value) => AttributeValue::Bool(value),
            Self::Integer(value) => AttributeValue::Integer(value),
            Self::Float(value) => AttributeValue::Float(value),
            Self::Text(value) => AttributeValue::Text(value.to_owned()),
            Self::Bytes(value) => AttributeValue::Bytes(value.to_vec()),
            Self::Timestamp(value) => AttributeValue::Timestamp(value),
        }
    }
}

numbered! {
    /// How serious a log entry is.
    pub enum LogKind {
        /// For those who search a fault.
        1 Debug "debug",
        /// What happened.
        2 Info "info",
        /// What may be wrong.
        3 Warning "warning",
        /// What went wrong.
        4 Error "error",
    }
}

/// One entry of an asset's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// How serious it is.
    pub kind: LogKind,
    /// When it was written.
    pub time: super::Micros,
    /// What it says, in full.
    pub message: String,
}

impl LogEntry {
    pub(crate) fn encode_all(entries: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in entries {
            out.push(entry.kind.number());
            out.extend_from_slice(&entry.time.to_le_bytes());
            push_bytes(entry.message.as_bytes(), &mut out);
        }
        out
    }

    pub(crate) fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>, SectionError> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (entry, rest) = Self::decode_one(bytes).ok_or(SectionError("a log entry is malformed"))?;
            out.push(entry);
            bytes = rest;
        }
        Ok(out)
    }

    fn decode_one(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (kind, rest) = bytes.split_first()?;
        let kind = LogKind::from_number(*kind)?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (message, rest) = take_bytes(rest)?;
        let message = String::from_utf8(message.to_vec()).ok()?;
        Some((Self { kind, time: i64::from_le_bytes(*time), message }, rest))
    }
}
