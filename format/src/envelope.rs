//! What precedes a typed payload: enough to tell whether the bytes behind it may be read in place.
//!
//! rkyv's archived form depends on its version, on byte order and pointer width (cargo features that the whole
//! build shares) and on the type. The envelope names all of them, so that a mismatch is an error, never a misread.
//!
//! ```text
//!  0  4  magic "LTYP"
//!  4  1  envelope version (1)
//!  5  1  rkyv format: minor version of rkyv 0.x (8)
//!  6  1  byte order: 1 little, 2 big
//!  7  1  width of relative pointers in bits: 16, 32, 64
//!  8  2  alignment of the archived type in bytes, a power of two up to 16
//! 10  6  reserved, 0
//! 16 16  fingerprint of the type
//! 32  8  length of the archive in bytes
//! 40  8  reserved, 0
//! 48  .  the archive
//! ```
//!
//! 48 is a multiple of 16: an envelope that begins at an address divisible by 16 is followed by an archive that does.

/// The length of an envelope, in bytes.
pub const ENVELOPE_LENGTH: usize = 48;
/// The greatest alignment of an archived type that can be stored, in bytes.
pub const ENVELOPE_ALIGNMENT_MAX: u16 = 16;
/// The version of rkyv's format that this version of larder writes: rkyv 0.8.
pub const RKYV_FORMAT: u8 = 8;

const MAGIC: [u8; 4] = *b"LTYP";
const VERSION: u8 = 1;

/// The order of the bytes in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

/// How an archive was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The minor version of rkyv 0.x whose format the archive has.
    pub rkyv_format: u8,
    /// The order of bytes in numbers.
    pub byte_order: ByteOrder,
    /// The width of relative pointers, in bits.
    pub pointer_width: u8,
    /// The alignment of the archived type, in bytes.
    pub alignment: u16,
    /// A digest of the type's name, size and alignment.
    pub fingerprint: [u8; 16],
    /// The length of the archive, in bytes.
    pub archive_length: u64,
}

/// The bytes are not a typed payload, or one that was written otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The payload does not begin with an envelope.
    #[error("the payload is not a typed one: it has no envelope of {ENVELOPE_LENGTH} bytes in front")]
    NotTyped,
    /// The envelope has a version that this version of larder does not know.
    #[error("the envelope has version {found}; this version of larder reads up to {VERSION}")]
    Version {
        /// The version that was found.
        found: u8,
    },
    /// A field of the envelope differs from what this build reads.
    #[error("the typed payload was written with {field} {found}; this build reads {expected}")]
    Mismatch {
        /// Which field it is.
        field: &'static str,
        /// What this build reads.
        expected: String,
        /// What the envelope says.
        found: String,
    },
    /// The envelope contradicts itself.
    #[error("the envelope is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Envelope {
    /// Encodes the envelope.
    #[must_use]
    pub fn encode(&self) -> [u8; ENVELOPE_LENGTH] {
        let mut out = [0; ENVELOPE_LENGTH];
        let fields: [&[u8]; 8] = [
            &MAGIC,
            &[VERSION, self.rkyv_format, if self.byte_order == ByteOrder::Little { 1 } else { 2 }],
            &[self.pointer_width],
            &self.alignment.to_le_bytes(),
            &[0; 6],
            &self.fingerprint,
            &self.archive_length.to_le_bytes(),
            &[0; 8],
        ];
        for (to, from) in out.iter_mut().zip(fields.iter().copied().flatten()) {
            *to = *from;
        }
        out
    }

    /// Splits a payload into its envelope and the archive behind it.
    ///
    /// # Errors
    /// [`EnvelopeError`] where the payload is not a typed one, or is one of a version or shape not known here.
    pub fn split(payload: &[u8]) -> Result<(Self, &[u8]), EnvelopeError> {
        let Some((head, archive)) = payload.split_first_chunk::<ENVELOPE_LENGTH>() else {
            return Err(EnvelopeError::NotTyped);
        };
        let envelope = Self::decode(head)?;
        if envelope.archive_length != archive.len() as u64 {
            return Err(EnvelopeError::Malformed { what: "the length of the archive is another one" });
        }
        Ok((envelope, archive))
    }

    fn decode(head: &[u8; ENVELOPE_LENGTH]) -> Result<Self, EnvelopeError> {
        let [m0, m1, m2, m3, version, rkyv_format, order, pointer_width, a0, a1, rest @ ..] = head;
        if [*m0, *m1, *m2, *m3] != MAGIC {
            return Err(EnvelopeError::NotTyped);
        }
        if *version != VERSION {
            return Err(EnvelopeError::Version { found: *version });
        }
        let (reserved, rest) = rest.split_at(6);
        let (Some((fingerprint, rest)), true) =
            (rest.split_first_chunk::<16>(), reserved.iter().all(|byte| *byte == 0))
        else {
            return Err(EnvelopeError::Malformed { what: "reserved bytes are not zero" });
        };
        let Some((length, tail)) = rest.split_first_chunk::<8>() else {
            return Err(EnvelopeError::NotTyped);
        };
        if tail.iter().any(|byte| *byte != 0) {
            return Err(EnvelopeError::Malformed { what: "reserved bytes are not zero" });
        }
        let byte_order = match order {
            1 => ByteOrder::Little,
            2 => ByteOrder::Big,
            _ => return Err(EnvelopeError::Malformed { what: "the byte order is neither little nor big" }),
        };
        let alignment = u16::from_le_bytes([*a0, *a1]);
        if !alignment.is_power_of_two() || alignment > ENVELOPE_ALIGNMENT_MAX {
            return Err(EnvelopeError::Malformed { what: "the alignment is not a power of two up to 16" });
        }
        Ok(Self {
            rkyv_format: *rkyv_format,
            byte_order,
            pointer_width: *pointer_width,
            alignment,
            fingerprint: *fingerprint,
            archive_length: u64::from_le_bytes(*length),
        })
    }

    /// Compares with what this build reads.
    ///
    /// # Errors
    /// [`EnvelopeError::Mismatch`] for the first field that differs: format, byte order, pointer width, type.
    pub fn expect(&self, build: &Self) -> Result<(), EnvelopeError> {
        fn differ<T: PartialEq + std::fmt::Debug>(
            field: &'static str,
            expected: T,
            found: T,
        ) -> Result<(), EnvelopeError> {
            if expected == found {
                return Ok(());
            }
            Err(EnvelopeError::Mismatch {
                field,
                expected: format!("{expected:?}"),
                found: format!("{found:?}"),
            })
        }
        differ("rkyv format 0.x, x =", build.rkyv_format, self.rkyv_format)?;
        differ("byte order", build.byte_order, self.byte_order)?;
        differ("pointer width", build.pointer_width, self.pointer_width)?;
        differ("alignment", build.alignment, self.alignment)?;
        differ(
            "type fingerprint",
            u128::from_be_bytes(build.fingerprint),
            u128::from_be_bytes(self.fingerprint),
        )
    }
}

/// Digests what identifies an archived type: its name without module paths, its size and its alignment.
///
/// Moving a type to another module keeps the fingerprint; renaming it or changing its size does not.
#[must_use]
pub fn type_fingerprint(type_name: &str, archived_size: usize, archived_alignment: usize) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(short_type_name(type_name).as_bytes());
    hasher.update(&(archived_size as u64).to_le_bytes());
    hasher.update(&(archived_alignment as u64).to_le_bytes());
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Strips the module paths from a type's name: `a::b::Menu<core::option::Option<u8>>` becomes `Menu<Option<u8>>`.
#[must_use]
pub fn short_type_name(type_name: &str) -> String {
    let mut out = String::with_capacity(type_name.len());
    let mut rest = type_name;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let (path, tail) = rest.split_at(end);
        out.push_str(path.rsplit("::").next().unwrap_or(path));
        let mut chars = tail.chars();
        out.extend(chars.next());
        rest = chars.as_str();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Envelope {
        Envelope {
            rkyv_format: RKYV_FORMAT,
            byte_order: ByteOrder::Little,
            pointer_width: 32,
            alignment: 8,
            fingerprint: type_fingerprint("kitchen::Menu", 24, 8),
            archive_length: 5,
        }
    }

    #[test]
    fn an_envelope_round_trips_and_every_truncation_is_refused() {
        let mut payload = sample().encode().to_vec();
        payload.extend_from_slice(b"soup!");
        let (envelope, archive) = Envelope::split(&payload).unwrap();
        assert_eq!((envelope, archive), (sample(), &b"soup!"[..]));
        for length in 0..payload.len() {
            assert!(Envelope::split(&payload[..length]).is_err());
        }
    }

    #[test]
    fn an_envelope_that_contradicts_its_layout_is_refused() {
        for alignment in [1, 2, 4, 8, 16] {
            for byte_order in [ByteOrder::Little, ByteOrder::Big] {
                let envelope = Envelope { alignment, byte_order, archive_length: 0, ..sample() };
                assert_eq!(Envelope::split(&envelope.encode()).unwrap(), (envelope, &b""[..]));
            }
        }
        let empty = Envelope { archive_length: 0, ..sample() }.encode();
        let reserved = (10..16).chain(40..48).map(|at| (at, 1));
        for (at, byte) in
            [(0, b'l'), (4, 2), (6, 0), (6, 3), (8, 0), (8, 3), (8, 32), (32, 1)].into_iter().chain(reserved)
        {
            let mut other = empty;
            other[at] = byte;
            assert!(Envelope::split(&other).is_err(), "byte {at} is {byte}");
        }
        assert!(Envelope::split(&[&empty[..], b"!"].concat()).is_err(), "longer than it says");
    }

    #[test]
    fn each_difference_is_named() {
        let other = Envelope { pointer_width: 64, ..sample() };
        let error = other.expect(&sample()).unwrap_err().to_string();
        assert!(error.contains("pointer width 64") && error.contains("32"), "{error}");
        let other = Envelope { fingerprint: type_fingerprint("kitchen::Dish", 24, 8), ..sample() };
        assert!(other.expect(&sample()).unwrap_err().to_string().contains("fingerprint"));
        for other in [
            Envelope { rkyv_format: 7, ..sample() },
            Envelope { byte_order: ByteOrder::Big, ..sample() },
            Envelope { alignment: 4, ..sample() },
        ] {
            assert!(other.expect(&sample()).is_err(), "{other:?}");
        }
        assert_eq!(Envelope { archive_length: 9, ..sample() }.expect(&sample()), Ok(()));
    }

    #[test]
    fn names_lose_their_modules_only() {
        assert_eq!(short_type_name("a::b::Menu<core::option::Option<u8>>"), "Menu<Option<u8>>");
        assert_eq!(short_type_name("(a::_b1, [c::D; 4])"), "(_b1, [D; 4])");
        assert_eq!(type_fingerprint("x::Menu", 8, 8), type_fingerprint("y::z::Menu", 8, 8));
        assert_ne!(type_fingerprint("Menu", 8, 8), type_fingerprint("Menu", 16, 8));
        assert_ne!(type_fingerprint("Menu", 8, 8), type_fingerprint("Menu", 8, 4));
    }
}
