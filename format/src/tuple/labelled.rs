//! Labelled parts: the fields of rows, and the parts of fingerprints. They are read where they lie, one by one.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::{END, ESCAPED, LIST, Part, PartInPlace, Reader, STRING, Tuple, TupleError, measure, write};
use crate::key::excerpt;

/// In how many lists the part of a label lies.
const DEPTH: usize = 2;
/// What a pair takes beside its label and its part: where its list and its label begin, and where they end.
const PAIR_LEN: usize = 4;

/// Holds labelled parts in their one canonical form, whatever the order in which they were given.
///
/// It encodes to a tuple of one list, which holds for every label, in the order of the labels' bytes, a list of the
/// label, as a string, and its part. So a part may hold lists nested 14 deep. Two of them have the same bytes exactly
/// if they have the same labels with the same parts.
#[derive(Clone)]
pub struct Labelled {
    encoded: Bytes,
    pairs: Vec<Pair>,
}

/// Where a label lies, escaped and without its end, and its part behind it: all between the label's beginning and `end`.
#[derive(Clone, Copy, Debug)]
struct Pair {
    label: u32,
    label_end: u32,
    part: u32,
    end: u32,
}

impl Pair {
    fn label(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.label as usize..self.label_end as usize).unwrap_or_default()
    }

    fn part(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.part as usize..self.end as usize).unwrap_or_default()
    }
}

/// Finds a label among pairs in their order: where it is, or where it would be. Escaped labels are in the order of labels.
fn place_of(pairs: &[Pair], bytes: &[u8], label: &str) -> Result<usize, usize> {
    let label = escaped(label);
    pairs.binary_search_by(|pair| pair.label(bytes).cmp(&label))
}

fn escaped(label: &str) -> Cow<'_, [u8]> {
    if !label.as_bytes().contains(&END) {
        return Cow::Borrowed(label.as_bytes());
    }
    let escape = |byte: &u8| if *byte == END { vec![END, ESCAPED] } else { vec![*byte] };
    Cow::Owned(label.as_bytes().iter().flat_map(escape).collect())
}

fn unescaped(label: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(label) {
        Ok(label) => Cow::Borrowed(label),
        // 255 is no byte of UTF-8: it escapes.
        Err(_) => {
            let bytes = label.iter().copied().filter(|byte| *byte != ESCAPED).collect();
            Cow::Owned(String::from_utf8(bytes).unwrap_or_default())
        }
    }
}

impl Labelled {
    /// Makes the canonical form of labels and parts, of which there may be none.
    ///
    /// # Errors
    ///
    /// [`TupleError::BlankLabel`] if a label is empty or only white space; [`TupleError::DuplicateLabel`] if two are
    /// equal; otherwise as [`Tuple::encode`].
    pub fn new<L: AsRef<str>>(pairs: impl IntoIterator<Item = (L, Part)>) -> Result<Labelled, TupleError> {
        let pairs: Vec<(L, Part)> = pairs.into_iter().collect();
        let mut labels: Vec<&str> = pairs.iter().map(|(label, _)| label.as_ref()).collect();
        if labels.iter().any(|label| label.trim().is_empty()) {
            return Err(TupleError::BlankLabel);
        }
        labels.sort_unstable();
        if let Some(label) =
            labels.iter().zip(labels.iter().skip(1)).find_map(|(a, b)| (a == b).then_some(*a))
        {
            return Err(TupleError::DuplicateLabel { label: excerpt(label) });
        }
        let mut builder = LabelledBuilder::default();
        for (label, part) in &pairs {
            builder.set(label.as_ref(), part);
        }
        builder.build()
    }

    /// Makes the canonical form of a list whose every part is a list of a label, as a string, and a part; in any
    /// order.
    ///
    /// # Errors
    ///
    /// [`TupleError::UnlabelledPart`] if it is anything else, such as a scalar; otherwise as [`Labelled::new`].
    pub fn from_part(part: Part) -> Result<Labelled, TupleError> {
        let Part::List(list) = part else { return Err(TupleError::UnlabelledPart) };
        let pairs: Result<Vec<(String, Part)>, TupleError> = list
            .into_iter()
            .map(|pair| {
                let Part::List(pair) = pair else { return Err(TupleError::UnlabelledPart) };
                match <[Part; 2]>::try_from(pair) {
                    Ok([Part::String(label), part]) => Ok((label, part)),
                    _ => Err(TupleError::UnlabelledPart),
                }
            })
            .collect();
        Labelled::new(pairs?)
    }

    /// Makes the canonical form of its bytes, which may come from anywhere. What is accepted encodes to the same bytes
    /// again.
    ///
    /// # Errors
    ///
    /// As [`Tuple::decode`] and [`Labelled::from_part`]; and [`TupleError::NotCanonical`] if the labels are not in
    /// order.
    pub fn decode(encoded: &Bytes) -> Result<Labelled, TupleError> {
        if let Some(pairs) = pairs_in(encoded) {
            return Ok(Labelled { encoded: encoded.clone(), pairs });
        }
        // Something is wrong: what, is found out in the order in which a tuple is taken apart.
        let parts = Tuple::decode(encoded)?.into_parts();
        let [part] = <[Part; 1]>::try_from(parts).map_err(|_| TupleError::UnlabelledPart)?;
        let labelled = Labelled::from_part(part)?;
        match labelled.encoded.iter().zip(encoded.iter()).position(|(a, b)| a != b) {
            None => Ok(labelled),
            Some(position) => {
                Err(TupleError::NotCanonical { position, expected: "the labels in their order" })
            }
        }
    }

    /// Iterates over the labels and their parts, in the order of the labels.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Part)> {
        self.pairs.iter().filter_map(|pair| {
            let part = Reader::new(pair.part(&self.encoded)).part(DEPTH).ok()?;
            Some((unescaped(pair.label(&self.encoded)), part))
        })
    }

    /// Returns the part of this label.
    pub fn get(&self, label: &str) -> Option<Part> {
        Reader::new(self.encoded_part(label)?).part(DEPTH).ok()
    }

    /// Returns the part of this label, if it is an integer of 64 bits.
    pub fn integer(&self, label: &str) -> Option<i64> {
        match self.in_place(label)? {
            PartInPlace::Integer(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// Returns the part of this label, if it is text: as it lies here, unless it has a byte of 0.
    pub fn text(&self, label: &str) -> Option<Cow<'_, str>> {
        match self.in_place(label)? {
            PartInPlace::String(text) => Some(text),
            _ => None,
        }
    }

    /// Tells whether there is a part of this label.
    pub fn contains(&self, label: &str) -> bool {
        place_of(&self.pairs, &self.encoded, label).is_ok()
    }

    fn in_place(&self, label: &str) -> Option<PartInPlace<'_>> {
        Reader::new(self.encoded_part(label)?).in_place().ok()
    }

    /// Returns the encoded part of this label.
    pub(crate) fn encoded_part(&self, label: &str) -> Option<&[u8]> {
        let place = place_of(&self.pairs, &self.encoded, label).ok()?;
        self.pairs.get(place).map(|pair| pair.part(&self.encoded))
    }

    /// Tells each label, escaped, that only one of two has, or that has different parts.
    pub(crate) fn each_differing<'l>(&'l self, other: &'l Labelled, mut tell: impl FnMut(&'l [u8])) {
        let (mut ours, mut theirs) = (self.pairs.iter().peekable(), other.pairs.iter().peekable());
        loop {
            let our = ours.peek().map(|pair| pair.label(&self.encoded));
            let their = theirs.peek().map(|pair| pair.label(&other.encoded));
            let order = match (our, their) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            let our_part =
                if order.is_le() { ours.next().map(|pair| pair.part(&self.encoded)) } else { None };
            let their_part =
                if order.is_ge() { theirs.next().map(|pair| pair.part(&other.encoded)) } else { None };
            if our_part != their_part {
                our.filter(|_| order.is_le()).or(their).into_iter().for_each(&mut tell);
            }
        }
    }

    /// Returns the tuple that it encodes to.
    pub fn to_tuple(&self) -> Tuple {
        Tuple::of_checked(self.encoded.clone())
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

/// Finds the pairs in the canonical form; nothing if the bytes are not one.
fn pairs_in(encoded: &[u8]) -> Option<Vec<Pair>> {
    if encoded.len() > Tuple::ENCODED_LEN_MAX {
        return None;
    }
    let mut reader = Reader::new(encoded);
    if reader.byte().ok()? != LIST {
        return None;
    }
    let mut pairs: Vec<Pair> = Vec::with_capacity(24);
    let offset = |reader: &Reader<'_>| u32::try_from(reader.position()).ok();
    loop {
        match reader.byte().ok()? {
            END => break,
            LIST => {}
            _ => return None,
        }
        if reader.byte().ok()? != STRING {
            return None;
        }
        let label = offset(&reader)?;
        if reader.text().ok()?.trim().is_empty() {
            return None;
        }
        let part = offset(&reader)?;
        reader.skip(DEPTH).ok()?;
        let pair = Pair { label, label_end: part.checked_sub(1)?, part, end: offset(&reader)? };
        if reader.byte().ok()? != END
            || pairs.last().is_some_and(|last| last.label(encoded) >= pair.label(encoded))
        {
            return None;
        }
        pairs.push(pair);
    }
    reader.rest.is_empty().then_some(pairs)
}

/// Takes the parts of an encoded list apart; nothing if it is something else.
pub(crate) fn parts_of_list(encoded: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = Reader::new(encoded.strip_prefix(&[LIST])?);
    let mut parts = Vec::new();
    while reader.rest.first() != Some(&END) {
        let rest = reader.rest;
        reader.skip(DEPTH).ok()?;
        parts.push(rest.get(..rest.len().checked_sub(reader.rest.len())?)?);
    }
    Some(parts)
}

impl PartialEq for Labelled {
    fn eq(&self, other: &Labelled) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for Labelled {}

impl PartialOrd for Labelled {
    fn partial_cmp(&self, other: &Labelled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labelled {
    fn cmp(&self, other: &Labelled) -> Ordering {
        self.encoded.cmp(&other.encoded)
    }
}

impl Hash for Labelled {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.encoded.hash(state);
    }
}

impl fmt::Debug for Labelled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// Labelled parts in the making: each is encoded when it is given.
#[derive(Clone, Debug, Default)]
pub struct LabelledBuilder {
    /// Labels and parts, as they came; also such that are not there any more.
    bytes: Vec<u8>,
    /// In the order of their labels.
    pairs: Vec<Pair>,
    /// Labels whose parts have no encoding, or that are none.
    errors: Vec<(String, TupleError)>,
}

impl From<&Labelled> for LabelledBuilder {
    fn from(labelled: &Labelled) -> Self {
        Self { bytes: labelled.encoded.to_vec(), pairs: labelled.pairs.clone(), errors: Vec::new() }
    }
}

impl LabelledBuilder {
    /// Sets the part of a label, in place of the one that was there; tells whether one was.
    pub fn set(&mut self, label: &str, part: &Part) -> bool {
        self.forgive(label);
        let place = place_of(&self.pairs, &self.bytes, label);
        match self.append(label, part) {
            Ok(pair) => match place {
                Ok(at) => self.pairs.get_mut(at).into_iter().for_each(|there| *there = pair),
                Err(at) => self.pairs.insert(at, pair),
            },
            Err(error) => self.errors.push((label.to_owned(), error)),
        }
        place.is_ok()
    }

    /// Forgets what was wrong with a label: it has another part now, or none.
    fn forgive(&mut self, label: &str) {
        if !self.errors.is_empty() {
            self.errors.retain(|(other, _)| other != label);
        }
    }

    fn append(&mut self, label: &str, part: &Part) -> Result<Pair, TupleError> {
        if label.trim().is_empty() {
            return Err(TupleError::BlankLabel);
        }
        let len = measure(std::slice::from_ref(part), DEPTH)?;
        let offset = |bytes: &[u8]| {
            let too_long = TupleError::TooLong { len: bytes.len(), max: Tuple::ENCODED_LEN_MAX };
            u32::try_from(bytes.len()).map_err(|_| too_long)
        };
        self.bytes.reserve(label.len().saturating_add(len));
        let label_at = offset(&self.bytes)?;
        self.bytes.extend_from_slice(&escaped(label));
        let part_at = offset(&self.bytes)?;
        write(part, &mut self.bytes);
        Ok(Pair { label: label_at, label_end: part_at, part: part_at, end: offset(&self.bytes)? })
    }

    /// Takes a label out, with its part.
    pub fn remove(&mut self, label: &str) {
        self.forgive(label);
        if let Ok(place) = place_of(&self.pairs, &self.bytes, label) {
            self.pairs.remove(place);
        }
    }

    /// Makes the canonical form.
    ///
    /// # Errors
    ///
    /// What was wrong first of what is there: [`TupleError::BlankLabel`], or as [`Tuple::encode`].
    pub fn build(self) -> Result<Labelled, TupleError> {
        let Self { bytes, mut pairs, errors } = self;
        if let Some((_, error)) = errors.into_iter().next() {
            return Err(error);
        }
        let lengths = pairs.iter().map(|pair| pair.label(&bytes).len() + pair.part(&bytes).len() + PAIR_LEN);
        let len = lengths.fold(2_usize, usize::saturating_add);
        if len > Tuple::ENCODED_LEN_MAX {
            return Err(TupleError::TooLong { len, max: Tuple::ENCODED_LEN_MAX });
        }
        let mut encoded = Vec::with_capacity(len);
        // As long as it may be, it can be counted.
        let offset = |encoded: &[u8]| u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        encoded.push(LIST);
        for pair in &mut pairs {
            encoded.extend_from_slice(&[LIST, STRING]);
            let label = offset(&encoded);
            encoded.extend_from_slice(pair.label(&bytes));
            let label_end = offset(&encoded);
            encoded.push(END);
            let part = offset(&encoded);
            encoded.extend_from_slice(pair.part(&bytes));
            *pair = Pair { label, label_end, part, end: offset(&encoded) };
            encoded.push(END);
        }
        encoded.push(END);
        debug_assert_eq!(encoded.len(), len, "what was added up is what was written");
        Ok(Labelled { encoded: encoded.into(), pairs })
    }
}
