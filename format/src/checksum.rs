//! The checksum in front of every stored value.
//!
//! redb verifies its own page checksums only while it repairs a file, so a bit that rots is served to the
//! reader as if nothing had happened. Every value that larder stores therefore begins with eight bytes that
//! depend on the table, the key and the body, and every read compares them. A value that was moved to another
//! key or table fails as surely as one whose bits were flipped.
//!
//! ```text
//! 0        8
//! +--------+------------------------+
//! | xxh3   | body                   |
//! +--------+------------------------+
//! xxh3 = XXH3-64(body, seed = XXH3-64(key, seed = table number)), little-endian
//! ```
//!
//! XXH3 is the 64-bit variant of xxHash 0.8 (Y. Collet). It guards against accident, not against an author of
//! files: `verify` and snapshots use blake3.

use twox_hash::XxHash3_64;

/// The length of the checksum that precedes a body, in bytes.
pub const CHECKSUM_LENGTH: usize = 8;

/// A stored value does not belong to the place it was found in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChecksumError {
    /// The value is shorter than a checksum.
    #[error("a stored value has {found} bytes, fewer than the {CHECKSUM_LENGTH} of its checksum")]
    TooShort {
        /// The length that was found, in bytes.
        found: usize,
    },
    /// The checksum in front of the value is not the one its table, key and body give.
    #[error("the stored checksum is {stored:016x}, but table, key and value give {computed:016x}")]
    Mismatch {
        /// The checksum that the value carries.
        stored: u64,
        /// The checksum of what was read.
        computed: u64,
    },
}

/// Computes the checksum of a body under a key of a table.
#[must_use]
pub fn checksum(table: u8, key: &[u8], body: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(u64::from(table), key), body)
}

/// Appends the checksum and the body to `out`.
pub fn seal_into(table: u8, key: &[u8], body: &[u8], out: &mut Vec<u8>) {
    out.reserve(CHECKSUM_LENGTH + body.len());
    out.extend_from_slice(&checksum(table, key, body).to_le_bytes());
    out.extend_from_slice(body);
}

/// Gives the body of a stored value after comparing its checksum.
///
/// # Errors
/// [`ChecksumError`] where the value is too short to carry a checksum, or carries another one.
pub fn unseal<'a>(table: u8, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], ChecksumError> {
    let Some((front, body)) = stored.split_first_chunk::<CHECKSUM_LENGTH>() else {
        return Err(ChecksumError::TooShort { found: stored.len() });
    };
    let stored = u64::from_le_bytes(*front);
    let computed = checksum(table, key, body);
    if stored == computed { Ok(body) } else { Err(ChecksumError::Mismatch { stored, computed }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_other_place_is_noticed() {
        let mut stored = Vec::new();
        seal_into(3, b"a\0b\0", b"twelve leeks", &mut stored);
        assert_eq!(unseal(3, b"a\0b\0", &stored).unwrap(), b"twelve leeks");
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(3, b"a\0b\0", &flipped).is_err(), "bit {bit}");
        }
        assert!(unseal(4, b"a\0b\0", &stored).is_err());
        assert!(unseal(3, b"a\0c\0", &stored).is_err());
        for length in 0..stored.len() {
            assert!(unseal(3, b"a\0b\0", &stored[..length]).is_err());
        }
    }
}
