//! Typed keys of collections, and the encoding in which they are stored.
//!
//! # Invariants
//!
//! 1. Two different tuples have different bytes, and the type is part of the value: `1`, `1.0`, `"1"` and the symbol
//!    `1` are four keys. Text is kept as given: nothing is normalised.
//! 2. The order of the bytes is the order of the tuples: part by part, and a tuple comes before those that begin with
//!    it. Parts are ordered by type (nil, false, true, integer, float, symbol, string, bytes, date, time, local
//!    date-time, instant with zone, uuid, list), then by value.
//! 3. A part says where it ends. So the bytes of a tuple begin those of every tuple that begins with it.
//! 4. A tuple has exactly one encoding, and only that is decoded.
//! 5. Lists are nested at most 16 deep, the bytes are at most 4 096.
//!
//! # Encoded form
//!
//! The parts in order. Each is a tag and what follows it; numbers are big-endian.
//!
//! | part | tag | then | example |
//! |---|---|---|---|
//! | (end of a list) | `00` | | |
//! | nil | `10` | | `10` |
//! | false, true | `20`, `21` | | `21` |
//! | integer ≥ 0 | `38` + n | the n bytes of the value, none of them leading zeros | 0 = `38`; 300 = `3a 01 2c` |
//! | integer < 0 | `38` - n | the n bytes of its absolute value, inverted | -1 = `37 fe`; -300 = `36 fe d3` |
//! | float | `48` | its 8 bytes: all inverted if the sign bit is set, else only the sign bit | 1.0 = `48 bf f0 00 00 00 00 00 00` |
//! | symbol | `50` | its text (see below) | `ok` = `50 6f 6b 00` |
//! | string | `58` | its text | `"a"` = `58 61 00` |
//! | bytes | `60` | the bytes, as a text | `ff 00` = `60 ff 00 ff 00` |
//! | date | `68` | year + 2^31 (4 bytes), month, day | 2024-01-01 = `68 80 00 07 e8 01 01` |
//! | time | `70` | nanoseconds since midnight (8 bytes) | 00:00:00.000000001 = `70 00 00 00 00 00 00 00 01` |
//! | local date-time | `78` | as of date, then as of time | |
//! | instant with zone | `80` | seconds + 2^63 (8 bytes), nanoseconds (4 bytes), zone as a text | |
//! | uuid | `88` | its 16 bytes | |
//! | list | `90` | its parts, then `00` | `[nil, [1]]` = `90 10 90 39 01 00 00` |
//!
//! A text is its bytes, with `00 ff` for every `00`, then `00`. No tag is `ff`, so whatever follows a text's end, it
//! comes before every longer text.

mod labelled;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use bytes::Bytes;

pub(crate) use labelled::parts_of_list;
pub use labelled::{Labelled, LabelledBuilder};

const END: u8 = 0x00;
const ESCAPED: u8 = 0xff;
const NIL: u8 = 0x10;
const FALSE: u8 = 0x20;
const TRUE: u8 = 0x21;
const INTEGER_LEAST: u8 = INTEGER - 8;
const INTEGER: u8 = 0x38;
const INTEGER_GREATEST: u8 = INTEGER + 8;
const FLOAT: u8 = 0x48;
const SYMBOL: u8 = 0x50;
const STRING: u8 = 0x58;
const BYTES: u8 = 0x60;
const DATE: u8 = 0x68;
const TIME: u8 = 0x70;
const LOCAL_DATE_TIME: u8 = 0x78;
const ZONED_INSTANT: u8 = 0x80;
const UUID: u8 = 0x88;
const LIST: u8 = 0x90;

// The tags are in the order of the types (invariant 2).
const _: () = assert!(END < NIL && NIL < FALSE && FALSE < TRUE && TRUE < INTEGER_LEAST);
const _: () = assert!(INTEGER_GREATEST < FLOAT && FLOAT < SYMBOL && SYMBOL < STRING && STRING < BYTES);
const _: () =
    assert!(BYTES < DATE && DATE < TIME && TIME < LOCAL_DATE_TIME && LOCAL_DATE_TIME < ZONED_INSTANT);
const _: () = assert!(ZONED_INSTANT < UUID && UUID < LIST && LIST < ESCAPED);

const DATE_LEN: usize = 6;
const TIME_LEN: usize = 8;
const ZONE_LEN_MAX: usize = 255;
const SIGN_32: u32 = 1 << 31;
const SIGN_64: u64 = 1 << 63;

/// Holds a day of the proleptic Gregorian calendar, without a time and a zone. Years are -9999 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: i32,
    month: u8,
    day: u8,
}

impl Date {
    /// The least year; year 0 is the one before year 1.
    pub const YEAR_MIN: i32 = -9999;
    /// The greatest year.
    pub const YEAR_MAX: i32 = 9999;

    /// Makes a date of its year, its month (1 to 12) and its day (from 1).
    ///
    /// # Errors
    ///
    /// [`TupleError::InvalidDate`] if there is no such day, or the year is out of range.
    pub fn new(year: i32, month: u8, day: u8) -> Result<Date, TupleError> {
        let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => 0,
        };
        if (Date::YEAR_MIN..=Date::YEAR_MAX).contains(&year) && (1..=days).contains(&day) {
            Ok(Date { year, month, day })
        } else {
            Err(TupleError::InvalidDate { year, month, day })
        }
    }

    /// Returns the year.
    pub fn year(&self) -> i32 {
        self.year
    }

    /// Returns the month: 1 to 12.
    pub fn month(&self) -> u8 {
        self.month
    }

    /// Returns the day of the month: 1 to 31.
    pub fn day(&self) -> u8 {
        self.day
    }
}

/// Holds a time of day, without a date and a zone, in nanoseconds since midnight. Leap seconds have no place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    nanos_of_day: u64,
}

impl Time {
    /// The number of nanoseconds of a day, which a time is less than.
    pub const NANOS_PER_DAY: u64 = 86_400_000_000_000;

    /// Makes a time of the nanoseconds since midnight.
    ///
    /// # Errors
    ///
    /// [`TupleError::InvalidTime`] if they are a day or more.
    pub fn new(nanos_of_day: u64) -> Result<Time, TupleError> {
        if nanos_of_day < Time::NANOS_PER_DAY {
            Ok(Time { nanos_of_day })
        } else {
            Err(TupleError::InvalidTime { nanos_of_day })
        }
    }

    /// Returns the nanoseconds since midnight.
    pub fn nanos_of_day(&self) -> u64 {
        self.nanos_of_day
    }
}

/// Holds a date and a time of day, without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalDateTime {
    /// The day.
    pub date: Date,
    /// The time on that day.
    pub time: Time,
}

/// Holds an instant, and the zone in which it was given. Ordered by instant, then by the zone's bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZonedInstant {
    seconds: i64,
    nanos: u32,
    zone: String,
}

impl ZonedInstant {
    /// The number of nanoseconds of a second.
    pub const NANOS_PER_SECOND: u32 = 1_000_000_000;

    /// Makes an instant: whole seconds since 1970-01-01T00:00:00Z, rounded down, and the nanoseconds after them; with
    /// a zone such as `UTC`, `Europe/Berlin` or `+02:00`. Whether there is such a zone is not checked.
    ///
    /// # Errors
    ///
    /// [`TupleError::InvalidInstant`] if the nanoseconds are a second or more; [`TupleError::InvalidZone`] if the zone
    /// is empty, longer than 255 bytes, or has a control character.
    pub fn new(seconds: i64, nanos: u32, zone: impl Into<String>) -> Result<ZonedInstant, TupleError> {
        let zone = zone.into();
        if nanos >= ZonedInstant::NANOS_PER_SECOND {
            return Err(TupleError::InvalidInstant { nanos });
        }
        if zone.is_empty() || zone.len() > ZONE_LEN_MAX || zone.contains(char::is_control) {
            return Err(TupleError::InvalidZone { len: zone.len(), max: ZONE_LEN_MAX });
        }
        Ok(ZonedInstant { seconds, nanos, zone })
    }

    /// Returns the whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    /// Returns the nanoseconds after the whole seconds: 0 to 999 999 999.
    pub fn nanos(&self) -> u32 {
        self.nanos
    }

    /// Returns the zone, as it was given.
    pub fn zone(&self) -> &str {
        &self.zone
    }
}

/// Holds one typed part of a [`Tuple`].
///
/// Equality and order are those of the encoding: -0.0 comes before 0.0, and an integer never equals a float.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Part {
    /// No value, which is a value: less than all others, and equal to itself in a unique index.
    Nil,
    /// A truth value; false is less than true.
    Bool(bool),
    /// An integer of -2^63 to 2^64 - 1; others are refused when they are encoded.
    Integer(i128),
    /// A floating-point number, infinities included; NaN is refused when it is encoded.
    Float(f64),
    /// A name that is not text: what other languages call an atom, a keyword or an interned string.
    Symbol(String),
    /// Text, as given; ordered by its bytes.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A day.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// A day and a time of day, without a zone.
    LocalDateTime(LocalDateTime),
    /// An instant with a zone.
    ZonedInstant(ZonedInstant),
    /// A UUID, ordered by its bytes.
    Uuid([u8; 16]),
    /// Further parts, nested at most 16 deep.
    List(Vec<Part>),
}

impl Part {
    /// The least integer: -2^63.
    pub const INTEGER_MIN: i128 = i64::MIN as i128;
    /// The greatest integer: 2^64 - 1.
    pub const INTEGER_MAX: i128 = u64::MAX as i128;

    /// Returns the place of the type in the order of types.
    fn rank(&self) -> u8 {
        match self {
            Part::Nil => NIL,
            Part::Bool(_) => FALSE,
            Part::Integer(_) => INTEGER,
            Part::Float(_) => FLOAT,
            Part::Symbol(_) => SYMBOL,
            Part::String(_) => STRING,
            Part::Bytes(_) => BYTES,
            Part::Date(_) => DATE,
            Part::Time(_) => TIME,
            Part::LocalDateTime(_) => LOCAL_DATE_TIME,
            Part::ZonedInstant(_) => ZONED_INSTANT,
            Part::Uuid(_) => UUID,
            Part::List(_) => LIST,
        }
    }
}

impl Ord for Part {
    fn cmp(&self, other: &Part) -> Ordering {
        match (self, other) {
            (Part::Bool(a), Part::Bool(b)) => a.cmp(b),
            (Part::Integer(a), Part::Integer(b)) => a.cmp(b),
            (Part::Float(a), Part::Float(b)) => a.total_cmp(b),
            (Part::Symbol(a), Part::Symbol(b)) | (Part::String(a), Part::String(b)) => a.cmp(b),
            (Part::Bytes(a), Part::Bytes(b)) => a.cmp(b),
            (Part::Date(a), Part::Date(b)) => a.cmp(b),
            (Part::Time(a), Part::Time(b)) => a.cmp(b),
            (Part::LocalDateTime(a), Part::LocalDateTime(b)) => a.cmp(b),
            (Part::ZonedInstant(a), Part::ZonedInstant(b)) => a.cmp(b),
            (Part::Uuid(a), Part::Uuid(b)) => a.cmp(b),
            (Part::List(a), Part::List(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Part) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Part) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Part {}

macro_rules! part_from {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl From<$source> for Part {
            fn from(value: $source) -> Part {
                Part::$variant(value.into())
            }
        }
    )*};
}

part_from! {
    bool => Bool,
    i32 => Integer,
    i64 => Integer,
    u32 => Integer,
    u64 => Integer,
    f64 => Float,
    &str => String,
    String => String,
    Vec<u8> => Bytes,
    Date => Date,
    Time => Time,
    LocalDateTime => LocalDateTime,
    ZonedInstant => ZonedInstant,
    Vec<Part> => List,
}

/// Holds a tuple that has been checked and encoded: the key of a row.
///
/// Equality, order and hash are those of its bytes, which are those of its parts. What was decoded is taken apart when
/// somebody asks for its parts.
#[derive(Clone)]
pub struct Tuple {
    encoded: Bytes,
    parts: OnceLock<Vec<Part>>,
}

impl Tuple {
    /// The greatest length of the encoded form, in bytes.
    pub const ENCODED_LEN_MAX: usize = 4096;
    /// How deep lists may be nested; the tuple itself does not count.
    pub const DEPTH_MAX: usize = 16;

    /// Makes a tuple of its parts, of which there may be none.
    ///
    /// A tuple of two parts and a tuple of one list of two parts are different keys.
    ///
    /// # Errors
    ///
    /// As [`Tuple::encode`].
    pub fn new(parts: Vec<Part>) -> Result<Tuple, TupleError> {
        let encoded = Tuple::encode(&parts)?.into();
        Ok(Tuple { encoded, parts: parts.into() })
    }

    /// Encodes parts.
    ///
    /// # Errors
    ///
    /// [`TupleError::TooDeep`], [`TupleError::NotANumber`] or [`TupleError::IntegerOutOfRange`] for the first part of
    /// which it is true; otherwise [`TupleError::TooLong`].
    pub fn encode(parts: &[Part]) -> Result<Vec<u8>, TupleError> {
        let len = measure(parts, 0)?;
        if len > Tuple::ENCODED_LEN_MAX {
            return Err(TupleError::TooLong { len, max: Tuple::ENCODED_LEN_MAX });
        }
        let mut out = Vec::with_capacity(len);
        parts.iter().for_each(|part| write(part, &mut out));
        debug_assert_eq!(out.len(), len, "measure and write agree");
        Ok(out)
    }

    /// Makes a tuple of its bytes, which may come from anywhere. What is accepted encodes to the same bytes again.
    ///
    /// # Errors
    ///
    /// [`TupleError::TooLong`] before anything is read; then, for the first part that is refused,
    /// [`TupleError::Truncated`], [`TupleError::UnknownTag`], [`TupleError::NotUtf8`], [`TupleError::NotCanonical`],
    /// [`TupleError::TooDeep`], or what refuses the value itself.
    pub fn decode(encoded: &[u8]) -> Result<Tuple, TupleError> {
        if encoded.len() > Tuple::ENCODED_LEN_MAX {
            return Err(TupleError::TooLong { len: encoded.len(), max: Tuple::ENCODED_LEN_MAX });
        }
        let mut reader = Reader::new(encoded);
        while !reader.rest.is_empty() {
            reader.skip(0)?;
        }
        Ok(Tuple::of_checked(Bytes::copy_from_slice(encoded)))
    }

    /// Makes a tuple of bytes that are the encoding of one.
    fn of_checked(encoded: Bytes) -> Tuple {
        Tuple { encoded, parts: OnceLock::new() }
    }

    /// Returns how many bytes the first part takes of bytes that begin with one.
    pub fn first_length(encoded: &[u8]) -> Option<usize> {
        let mut reader = Reader::new(encoded);
        reader.skip(0).ok()?;
        Some(reader.position())
    }

    /// Tells whether the encoding of a part ends with a byte 0 that is another in front of a byte ff: that of text and bytes.
    pub(crate) fn is_escaped(part: &[u8]) -> bool {
        matches!(part.first(), Some(&(SYMBOL | STRING | BYTES | ZONED_INSTANT)))
    }

    /// Returns the parts.
    pub fn parts(&self) -> &[Part] {
        self.parts.get_or_init(|| Reader::new(&self.encoded).all(0).unwrap_or_default())
    }

    /// Returns the parts and gives up their encoding.
    pub fn into_parts(self) -> Vec<Part> {
        self.parts();
        self.parts.into_inner().unwrap_or_default()
    }

    /// Returns the encoded form.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns the encoded form as shared bytes.
    pub fn encoded_bytes(&self) -> Bytes {
        self.encoded.clone()
    }
}

impl PartialEq for Tuple {
    fn eq(&self, other: &Tuple) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for Tuple {}

impl PartialOrd for Tuple {
    fn partial_cmp(&self, other: &Tuple) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tuple {
    fn cmp(&self, other: &Tuple) -> Ordering {
        self.encoded.cmp(&other.encoded)
    }
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.encoded.hash(state);
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Tuple").field(&self.parts()).finish()
    }
}

impl TryFrom<Vec<Part>> for Tuple {
    type Error = TupleError;
    fn try_from(parts: Vec<Part>) -> Result<Tuple, TupleError> {
        Tuple::new(parts)
    }
}

/// Adds up the encoded length of parts that lie in `depth` lists, and refuses what has no encoding.
fn measure(parts: &[Part], depth: usize) -> Result<usize, TupleError> {
    parts.iter().try_fold(0_usize, |sum, part| {
        let content = match part {
            Part::Nil | Part::Bool(_) => 0,
            Part::Integer(value) => {
                if !(Part::INTEGER_MIN..=Part::INTEGER_MAX).contains(value) {
                    return Err(TupleError::IntegerOutOfRange { value: *value });
                }
                usize::from(integer_width(*value))
            }
            Part::Float(value) if value.is_nan() => return Err(TupleError::NotANumber),
            Part::Float(_) => 8,
            Part::Symbol(text) | Part::String(text) => text_len(text.as_bytes()),
            Part::Bytes(bytes) => text_len(bytes),
            Part::Date(_) => DATE_LEN,
            Part::Time(_) => TIME_LEN,
            Part::LocalDateTime(_) => DATE_LEN + TIME_LEN,
            Part::ZonedInstant(instant) => text_len(instant.zone.as_bytes()).saturating_add(12),
            Part::Uuid(_) => 16,
            Part::List(_) if depth >= Tuple::DEPTH_MAX => {
                return Err(TupleError::TooDeep { max: Tuple::DEPTH_MAX });
            }
            Part::List(list) => measure(list, depth.saturating_add(1))?.saturating_add(1),
        };
        Ok(sum.saturating_add(content).saturating_add(1))
    })
}

/// Returns the encoded length of a text, without its tag.
fn text_len(text: &[u8]) -> usize {
    let escapes = text.iter().filter(|byte| **byte == END).count();
    text.len().saturating_add(escapes).saturating_add(1)
}

/// Returns the number of bytes of the absolute value: 0 to 8 for an integer in range.
fn integer_width(value: i128) -> u8 {
    (0..16).find(|width| value.unsigned_abs() >> (8 * u32::from(*width)) == 0).unwrap_or(16)
}

/// Writes a part that has been measured.
fn write(part: &Part, out: &mut Vec<u8>) {
    match part {
        Part::Nil => out.push(NIL),
        Part::Bool(false) => out.push(FALSE),
        Part::Bool(true) => out.push(TRUE),
        Part::Integer(value) => write_integer(*value, out),
        Part::Float(value) => {
            let bits = value.to_bits();
            let ordered = if bits & SIGN_64 == 0 { bits | SIGN_64 } else { !bits };
            out.push(FLOAT);
            out.extend_from_slice(&ordered.to_be_bytes());
        }
        Part::Symbol(text) => write_text(SYMBOL, text.as_bytes(), out),
        Part::String(text) => write_text(STRING, text.as_bytes(), out),
        Part::Bytes(bytes) => write_text(BYTES, bytes, out),
        Part::Date(date) => {
            out.push(DATE);
            write_date(*date, out);
        }
        Part::Time(time) => {
            out.push(TIME);
            out.extend_from_slice(&time.nanos_of_day.to_be_bytes());
        }
        Part::LocalDateTime(local) => {
            out.push(LOCAL_DATE_TIME);
            write_date(local.date, out);
            out.extend_from_slice(&local.time.nanos_of_day.to_be_bytes());
        }
        Part::ZonedInstant(instant) => {
            out.push(ZONED_INSTANT);
            out.extend_from_slice(&(instant.seconds.cast_unsigned() ^ SIGN_64).to_be_bytes());
            out.extend_from_slice(&instant.nanos.to_be_bytes());
            write_escaped(instant.zone.as_bytes(), out);
        }
        Part::Uuid(uuid) => {
            out.push(UUID);
            out.extend_from_slice(uuid);
        }
        Part::List(list) => {
            out.push(LIST);
            list.iter().for_each(|part| write(part, out));
            out.push(END);
        }
    }
}

fn write_integer(value: i128, out: &mut Vec<u8>) {
    let width = integer_width(value);
    let (tag, inverted) =
        if value < 0 { (INTEGER.saturating_sub(width), 0xff) } else { (INTEGER.saturating_add(width), 0x00) };
    let bytes = value.unsigned_abs().to_be_bytes();
    out.push(tag);
    out.extend(bytes.iter().skip(bytes.len().saturating_sub(width.into())).map(|byte| byte ^ inverted));
}

fn write_date(date: Date, out: &mut Vec<u8>) {
    out.extend_from_slice(&(date.year.cast_unsigned() ^ SIGN_32).to_be_bytes());
    out.extend_from_slice(&[date.month, date.day]);
}

fn write_text(tag: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    write_escaped(text, out);
}

fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        out.push(*byte);
        if *byte == END {
            out.push(ESCAPED);
        }
    }
    out.push(END);
}

/// Reads parts from the front of bytes that are not trusted.
struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

/// A part where it lies.
enum PartInPlace<'a> {
    Nil,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Symbol(Cow<'a, str>),
    String(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Date(Date),
    Time(Time),
    LocalDateTime(LocalDateTime),
    ZonedInstant(ZonedInstant),
    Uuid([u8; 16]),
    /// The beginning of a list, whose parts follow.
    List,
}

impl<'a> Reader<'a> {
    fn new(encoded: &'a [u8]) -> Self {
        Self { rest: encoded, len: encoded.len() }
    }

    fn position(&self) -> usize {
        self.len.saturating_sub(self.rest.len())
    }

    fn byte(&mut self) -> Result<u8, TupleError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TupleError> {
        let Some((array, rest)) = self.rest.split_first_chunk() else {
            return Err(TupleError::Truncated { position: self.len });
        };
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], TupleError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(TupleError::Truncated { position: self.len });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Reads all parts that are left, which lie in `depth` lists.
    fn all(&mut self, depth: usize) -> Result<Vec<Part>, TupleError> {
        let mut parts = Vec::new();
        while !self.rest.is_empty() {
            parts.push(self.part(depth)?);
        }
        Ok(parts)
    }

    /// Reads a part, which lies in `depth` lists.
    fn part(&mut self, depth: usize) -> Result<Part, TupleError> {
        Ok(match self.in_place()? {
            PartInPlace::Nil => Part::Nil,
            PartInPlace::Bool(value) => Part::Bool(value),
            PartInPlace::Integer(value) => Part::Integer(value),
            PartInPlace::Float(value) => Part::Float(value),
            PartInPlace::Symbol(text) => Part::Symbol(text.into_owned()),
            PartInPlace::String(text) => Part::String(text.into_owned()),
            PartInPlace::Bytes(bytes) => Part::Bytes(bytes.into_owned()),
            PartInPlace::Date(date) => Part::Date(date),
            PartInPlace::Time(time) => Part::Time(time),
            PartInPlace::LocalDateTime(local) => Part::LocalDateTime(local),
            PartInPlace::ZonedInstant(instant) => Part::ZonedInstant(instant),
            PartInPlace::Uuid(uuid) => Part::Uuid(uuid),
            PartInPlace::List => {
                let mut parts = Vec::new();
                self.list(depth, |reader, depth| reader.part(depth).map(|part| parts.push(part)))?;
                Part::List(parts)
            }
        })
    }

    /// Checks a part, which lies in `depth` lists, as reading it does, and makes nothing of it.
    fn skip(&mut self, depth: usize) -> Result<(), TupleError> {
        match self.in_place()? {
            PartInPlace::List => self.list(depth, Reader::skip),
            _ => Ok(()),
        }
    }

    /// Has each part of a list read whose tag was read, up to its end.
    fn list(
        &mut self,
        depth: usize,
        mut read: impl FnMut(&mut Self, usize) -> Result<(), TupleError>,
    ) -> Result<(), TupleError> {
        if depth >= Tuple::DEPTH_MAX {
            return Err(TupleError::TooDeep { max: Tuple::DEPTH_MAX });
        }
        loop {
            match self.rest.split_first() {
                Some((&END, rest)) => {
                    self.rest = rest;
                    return Ok(());
                }
                _ => read(self, depth.saturating_add(1))?,
            }
        }
    }

    /// Reads a part, of a list only that it begins.
    fn in_place(&mut self) -> Result<PartInPlace<'a>, TupleError> {
        let position = self.position();
        let tag = self.byte()?;
        match tag {
            NIL => Ok(PartInPlace::Nil),
            FALSE => Ok(PartInPlace::Bool(false)),
            TRUE => Ok(PartInPlace::Bool(true)),
            INTEGER_LEAST..=INTEGER_GREATEST => self.integer(tag, position),
            FLOAT => {
                let ordered = u64::from_be_bytes(self.array()?);
                let bits = if ordered & SIGN_64 == 0 { !ordered } else { ordered ^ SIGN_64 };
                let value = f64::from_bits(bits);
                if value.is_nan() { Err(TupleError::NotANumber) } else { Ok(PartInPlace::Float(value)) }
            }
            SYMBOL => self.text().map(PartInPlace::Symbol),
            STRING => self.text().map(PartInPlace::String),
            BYTES => self.escaped().map(PartInPlace::Bytes),
            DATE => self.date().map(PartInPlace::Date),
            TIME => self.time().map(PartInPlace::Time),
            LOCAL_DATE_TIME => {
                let date = self.date()?;
                Ok(PartInPlace::LocalDateTime(LocalDateTime { date, time: self.time()? }))
            }
            ZONED_INSTANT => {
                let seconds = (u64::from_be_bytes(self.array()?) ^ SIGN_64).cast_signed();
                let nanos = u32::from_be_bytes(self.array()?);
                ZonedInstant::new(seconds, nanos, self.text()?).map(PartInPlace::ZonedInstant)
            }
            UUID => self.array().map(PartInPlace::Uuid),
            LIST => Ok(PartInPlace::List),
            _ => Err(TupleError::UnknownTag { tag, position }),
        }
    }

    fn integer(&mut self, tag: u8, position: usize) -> Result<PartInPlace<'a>, TupleError> {
        let negative = tag < INTEGER;
        let inverted = if negative { 0xff } else { 0x00 };
        let bytes = self.take(tag.abs_diff(INTEGER).into())?;
        if bytes.first().is_some_and(|byte| byte ^ inverted == 0) {
            return Err(TupleError::NotCanonical { position, expected: "an integer without leading zeros" });
        }
        let absolute = bytes.iter().fold(0_i128, |value, byte| (value << 8) | i128::from(byte ^ inverted));
        let value = if negative { absolute.saturating_neg() } else { absolute };
        if value < Part::INTEGER_MIN {
            return Err(TupleError::IntegerOutOfRange { value });
        }
        Ok(PartInPlace::Integer(value))
    }

    fn date(&mut self) -> Result<Date, TupleError> {
        let year = (u32::from_be_bytes(self.array()?) ^ SIGN_32).cast_signed();
        let [month, day] = self.array()?;
        Date::new(year, month, day)
    }

    fn time(&mut self) -> Result<Time, TupleError> {
        Time::new(u64::from_be_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<Cow<'a, str>, TupleError> {
        let position = self.position();
        match self.escaped()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
        }
        .ok_or(TupleError::NotUtf8 { position })
    }

    fn escaped(&mut self) -> Result<Cow<'a, [u8]>, TupleError> {
        let mut bytes = Cow::Borrowed(&[][..]);
        loop {
            let run = self.rest.iter().position(|byte| *byte == END).unwrap_or(self.rest.len());
            let run = self.take(run)?;
            self.byte()?;
            if bytes.is_empty() {
                bytes = Cow::Borrowed(run);
            } else {
                bytes.to_mut().extend_from_slice(run);
            }
            match self.rest.split_first() {
                Some((&ESCAPED, rest)) => {
                    bytes.to_mut().push(END);
                    self.rest = rest;
                }
                _ => return Ok(bytes),
            }
        }
    }
}

/// Says why parts are not a tuple, or bytes not its encoding. Positions are bytes from the beginning of the encoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TupleError {
    /// Lists are nested too deeply.
    #[error("the tuple nests lists more than {max} deep: flatten it")]
    TooDeep {
        /// The greatest depth allowed.
        max: usize,
    },
    /// The encoded form would be, or is, too long.
    #[error(
        "the tuple takes {len} bytes encoded, more than {max}: shorten it, or use a hash of it as the key"
    )]
    TooLong {
        /// The length of the encoded form, in bytes.
        len: usize,
        /// The greatest length allowed.
        max: usize,
    },
    /// A float is NaN, which has no place in the order.
    #[error("NaN has no place in the order of keys: use nil for a missing number")]
    NotANumber,
    /// An integer is less than -2^63 or greater than 2^64 - 1.
    #[error("the integer {value} is not in -2^63 to 2^64 - 1: use bytes or a string for it")]
    IntegerOutOfRange {
        /// The integer.
        value: i128,
    },
    /// There is no such day, or its year is out of range.
    #[error("year {year}, month {month}, day {day} is no date of the years -9999 to 9999: correct it")]
    InvalidDate {
        /// The year.
        year: i32,
        /// The month.
        month: u8,
        /// The day.
        day: u8,
    },
    /// A time of day is a day or more.
    #[error("{nanos_of_day} ns is not within a day, which has {}: correct it", Time::NANOS_PER_DAY)]
    InvalidTime {
        /// The nanoseconds since midnight.
        nanos_of_day: u64,
    },
    /// The nanoseconds after an instant's whole seconds are a second or more.
    #[error("{nanos} ns is not within a second: carry it over to the seconds")]
    InvalidInstant {
        /// The nanoseconds.
        nanos: u32,
    },
    /// A zone is empty, too long, or has a control character.
    #[error(
        "a zone is 1 to {max} bytes without control characters, got {len} bytes: name one, such as \"UTC\""
    )]
    InvalidZone {
        /// The length of the zone, in bytes.
        len: usize,
        /// The greatest length allowed.
        max: usize,
    },
    /// A label is empty or only white space.
    #[error("a label is empty or blank: name every part")]
    BlankLabel,
    /// Two labels are equal.
    #[error("the label \"{label}\" is there twice: name every part differently")]
    DuplicateLabel {
        /// The beginning of the label: at most 64 characters, escaped.
        label: String,
    },
    /// A part has no label where each must have one.
    #[error("a part has no label: give a list of pairs, each of a string and a part")]
    UnlabelledPart,
    /// The bytes end within a part.
    #[error("the encoded tuple ends within a part, after {position} bytes: it is damaged or not whole")]
    Truncated {
        /// The number of bytes.
        position: usize,
    },
    /// A tag is not one of those defined.
    #[error(
        "the encoded tuple has the unknown tag {tag:02x} at byte {position}: it is damaged or of a later version"
    )]
    UnknownTag {
        /// The tag.
        tag: u8,
        /// Where it is.
        position: usize,
    },
    /// A text is not UTF-8.
    #[error(
        "the text at byte {position} of the encoded tuple is not UTF-8: it is damaged or was not written as one"
    )]
    NotUtf8 {
        /// Where the text begins.
        position: usize,
    },
    /// The bytes are not what the tuple that they resemble encodes to.
    #[error("the encoded tuple wants {expected} at byte {position}: it is damaged or was not written as one")]
    NotCanonical {
        /// Where the bytes differ.
        position: usize,
        /// What belongs there.
        expected: &'static str,
    },
}
