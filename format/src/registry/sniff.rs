//! Magic numbers: what a payload's first bytes say about its format.
//!
//! A pattern is `[OFFSET:]HEX`, `??` for any byte, `*` for a gap of any length. The pattern with the most
//! fixed bytes wins, then the first in the table. A match is a hint, never a proof.

/// How many bytes of a payload are looked at.
pub const SNIFF_LEN: usize = 512;

/// The most bytes one pattern may have.
const PATTERN_LEN_MAX: usize = 128;

/// One magic number.
#[derive(Debug, Clone)]
pub(super) struct Magic {
    offset: usize,
    /// Where `None` is any byte. The first stands at `offset`, each other one somewhere behind the one before.
    segments: Vec<Vec<Option<u8>>>,
    strength: usize,
}

impl Magic {
    /// Parses a pattern; the error is what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (offset, pattern) = match text.split_once(':') {
            Some((digits, pattern)) => {
                (digits.parse::<usize>().map_err(|_| "the offset is not a decimal number")?, pattern)
            }
            None => (0, text),
        };
        if pattern.len() > PATTERN_LEN_MAX * 2 {
            return Err("it is too long");
        }
        let segments = pattern.split('*').map(segment).collect::<Result<Vec<_>, _>>()?;
        let length: usize = segments.iter().map(Vec::len).sum();
        // Before the sum, so that it cannot overflow.
        if offset > SNIFF_LEN || offset + length > SNIFF_LEN {
            return Err("it reaches too far into the payload");
        }
        let strength = segments.iter().flatten().filter(|byte| byte.is_some()).count();
        if strength < 2 {
            return Err("fewer than two bytes are fixed");
        }
        Ok(Self { offset, segments, strength })
    }

    /// Returns how many bytes are fixed.
    pub(super) fn strength(&self) -> usize {
        self.strength
    }

    /// Returns the byte that a matching payload begins with, where the pattern fixes it.
    pub(super) fn first_byte(&self) -> Option<u8> {
        if self.offset > 0 {
            return None;
        }
        self.segments.first()?.first().copied().flatten()
    }

    /// Tells whether `head`, cut to [`SNIFF_LEN`] by the caller, has this magic number.
    pub(super) fn matches(&self, head: &[u8]) -> bool {
        let Some(mut rest) = head.get(self.offset..) else { return false };
        for (index, segment) in self.segments.iter().enumerate() {
            let found = if index == 0 {
                fits(segment, rest).then_some(0)
            } else {
                (0..rest.len()).find(|&start| rest.get(start..).is_some_and(|tail| fits(segment, tail)))
            };
            let Some(start) = found else { return false };
            rest = rest.get(start + segment.len()..).unwrap_or_default();
        }
        true
    }
}

fn segment(hex: &str) -> Result<Vec<Option<u8>>, &'static str> {
    if hex.is_empty() {
        return Err("a part of it is empty");
    }
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return Err("it has half a byte") };
    pairs
        .iter()
        .map(|&[high, low]| byte(high, low).ok_or("it has a character that is not hexadecimal"))
        .collect()
}

fn byte(high: u8, low: u8) -> Option<Option<u8>> {
    if (high, low) == (b'?', b'?') {
        return Some(None);
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(Some(digit(high)? << 4 | digit(low)?))
}

fn fits(segment: &[Option<u8>], bytes: &[u8]) -> bool {
    segment.len() <= bytes.len()
        && segment.iter().zip(bytes).all(|(want, have)| want.is_none_or(|want| want == *have))
}

/// Tells whether the bytes can be the beginning of a text: UTF-8 (which may be cut at the end) without NUL.
pub(super) fn looks_textual(head: &[u8]) -> bool {
    let utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    utf8 && !head.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_have_an_offset_wildcards_and_gaps() {
        let magic = Magic::parse("1:41??42*4344").unwrap();
        assert_eq!(magic.strength(), 4);
        assert_eq!(magic.first_byte(), None);
        assert!(magic.matches(b"-A.B....CD"));
        assert!(magic.matches(b"-A.BCD"));
        assert!(!magic.matches(b"A.BCD"));
        assert!(!magic.matches(b"-A.BC"));
        assert!(!magic.matches(b""));
    }

    #[test]
    fn a_pattern_that_cannot_be_read_says_why() {
        let long = "41".repeat(200);
        let far = format!("{}:4142", usize::MAX);
        for bad in
            ["", "4", "41", "4g42", "x:4142", "??", "????4?", "*4142", "511:4142", "-1:4142", &long, &far]
        {
            assert!(Magic::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_byte_is_known_where_the_pattern_fixes_it() {
        for (text, first) in
            [("4142", Some(0x41)), ("0:4142", Some(0x41)), ("??4142", None), ("1:4142", None)]
        {
            assert_eq!(Magic::parse(text).unwrap().first_byte(), first, "{text}");
        }
    }

    #[test]
    fn a_pattern_may_reach_to_the_end_of_what_is_looked_at() {
        assert!(Magic::parse("510:4142").is_ok() && Magic::parse("512:4142").is_err());
        assert!(Magic::parse(&"41".repeat(128)).is_ok() && Magic::parse(&"41".repeat(129)).is_err());
        assert_eq!(Magic::parse("41??42").unwrap().strength(), 2);
    }

    #[test]
    fn text_cut_within_a_character_is_still_text() {
        assert!(looks_textual("grüße".as_bytes().get(..3).unwrap()));
        assert!(!looks_textual(b"\xff\xfe"));
        assert!(!looks_textual(b"a\0b"));
    }
}
