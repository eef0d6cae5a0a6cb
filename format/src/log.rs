//! The commit log: write-sets on their way into the store, in batches that share one sync.
//!
//! The log is a file beside the store, written from front to back in blocks of 4 096 bytes. Its first block says
//! whose it is; two segments of equal length follow, which take turns. The file has its whole length from the
//! beginning, so that one that was cut off is known. A batch begins at a block, and what is left
//! of its last block is zero. A segment that is begun anew gets the next generation, so that what an earlier turn
//! left in it cannot be taken for its own. The layout is section 10 of SPEC.md.
//!
//! ```text
//! file header, 1 block                      batch header, then its write-sets
//!  0  8  magic "LARDLOG\x01"                 0  4  magic "LBT\x01"
//!  8  4  version, 1                          4  4  number of write-sets
//! 12  4  process that made it, a hint        8  8  generation of the segment, from 1
//! 16 16  store id                           16 16  store id
//! 32 16  log id                             32 16  log id
//! 48  8  length of a segment, bytes         48  8  length of the write-sets, bytes
//! 56  8  checksum of what is above          56  8  sequence number of the first
//!                                           64  8  sequence number of the last
//!                                           72  8  synced: the last that was on disk before this batch
//!                                           80 32  identity of the state below the first
//!                                          112  8  checksum of the write-sets
//!                                          120  8  checksum of what is above
//! ```
//! Checksums are XXH3-64 with seed 0. All numbers are little-endian.

use twox_hash::XxHash3_64;

use crate::writeset::StateIdentity;

/// The unit in which a log is written, in bytes: batches begin at multiples of it.
pub const LOG_BLOCK: usize = 4_096;
/// The length of the part of a batch that precedes its write-sets, in bytes.
pub const BATCH_HEADER_LENGTH: usize = 128;
/// The version of the log that is written, and the only one that is read.
pub const LOG_VERSION: u32 = 1;

const FILE_MAGIC: [u8; 8] = *b"LARDLOG\x01";
const FILE_HEADER_LENGTH: usize = 64;
const BATCH_MAGIC: [u8; 4] = *b"LBT\x01";

/// The bytes are not what a log has there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It does not begin as a log does.
    #[error("it does not begin as a commit log does")]
    NotALog,
    /// It is of another version.
    #[error("it is of version {found}, and version {LOG_VERSION} is read here")]
    Version {
        /// The version that it says.
        found: u32,
    },
    /// A checksum does not agree with what it covers.
    #[error("the checksum of {what} does not agree with it")]
    Checksum {
        /// What it covers.
        what: &'static str,
    },
    /// It is cut short, or says something that cannot be.
    #[error("it is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// What a log file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFileHeader {
    /// The store that it belongs to.
    pub store_id: [u8; 16],
    /// Its own id: the store names it while it is in use.
    pub log_id: [u8; 16],
    /// The process that made it; a hint for people.
    pub process: u32,
    /// The length of each of its two segments, in bytes.
    pub segment_length: u64,
}

impl LogFileHeader {
    /// Gives the length of the whole file, which it has from the beginning, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.segment_length.saturating_mul(2).saturating_add(LOG_BLOCK as u64)
    }

    /// Encodes it as the first block of a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LOG_BLOCK);
        out.extend_from_slice(&FILE_MAGIC);
        out.extend_from_slice(&LOG_VERSION.to_le_bytes());
        out.extend_from_slice(&self.process.to_le_bytes());
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.log_id);
        out.extend_from_slice(&self.segment_length.to_le_bytes());
        out.extend_from_slice(&XxHash3_64::oneshot(&out).to_le_bytes());
        out.resize(LOG_BLOCK, 0);
        out
    }

    /// Reads it from the beginning of a file.
    ///
    /// # Errors
    /// [`LogError`] where the bytes are not the first block of a log of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let fixed: &[u8; FILE_HEADER_LENGTH] = bytes.first_chunk().ok_or(LogError::NotALog)?;
        // The version is compared after the checksum only where it is this one: a later header may be longer.
        if fixed.first_chunk::<7>() != FILE_MAGIC.first_chunk::<7>() {
            return Err(LogError::NotALog);
        }
        let version = u32::from_le_bytes(at(fixed, 8));
        if at::<8>(fixed, 0) != FILE_MAGIC || version != LOG_VERSION {
            return Err(LogError::Version { found: version });
        }
        check(fixed, "the file header")?;
        let segment_length = u64::from_le_bytes(at(fixed, 48));
        if segment_length == 0 || segment_length % LOG_BLOCK as u64 != 0 || segment_length > 1 << 40 {
            return Err(LogError::Malformed { what: "the length of its segments" });
        }
        Ok(Self {
            process: u32::from_le_bytes(at(fixed, 12)),
            store_id: at(fixed, 16),
            log_id: at(fixed, 32),
            segment_length,
        })
    }
}

/// What precedes the write-sets of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// How many write-sets it has, at least one.
    pub count: u32,
    /// The turn of its segment.
    pub generation: u64,
    /// The store that it belongs to.
    pub store_id: [u8; 16],
    /// The log that it belongs to.
    pub log_id: [u8; 16],
    /// The length of the write-sets, in bytes.
    pub length: u64,
    /// The sequence number of its first write-set.
    pub first: u64,
    /// The sequence number of its last.
    pub last: u64,
    /// The sequence number up to which everything was on disk before this batch was written.
    pub synced: u64,
    /// The identity of the state that the first write-set builds on.
    pub base: StateIdentity,
    /// The checksum of the write-sets.
    pub checksum: u64,
}

impl BatchHeader {
    /// Encodes it, with its own checksum.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_LENGTH] {
        let mut out = Vec::with_capacity(BATCH_HEADER_LENGTH);
        out.extend_from_slice(&BATCH_MAGIC);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.log_id);
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.synced.to_le_bytes());
        out.extend_from_slice(&self.base.0);
        out.extend_from_slice(&self.checksum.to_le_bytes());
        out.extend_from_slice(&XxHash3_64::oneshot(&out).to_le_bytes());
        out.first_chunk().copied().unwrap_or([0; BATCH_HEADER_LENGTH])
    }

    /// Reads it from the beginning of a block.
    ///
    /// # Errors
    /// [`LogError`] where no batch begins there.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let fixed: &[u8; BATCH_HEADER_LENGTH] =
            bytes.first_chunk().ok_or(LogError::Malformed { what: "a batch is cut short" })?;
        if at::<4>(fixed, 0) != BATCH_MAGIC {
            return Err(LogError::Malformed { what: "no batch begins here" });
        }
        check(fixed, "a batch header")?;
        let header = Self {
            count: u32::from_le_bytes(at(fixed, 4)),
            generation: u64::from_le_bytes(at(fixed, 8)),
            store_id: at(fixed, 16),
            log_id: at(fixed, 32),
            length: u64::from_le_bytes(at(fixed, 48)),
            first: u64::from_le_bytes(at(fixed, 56)),
            last: u64::from_le_bytes(at(fixed, 64)),
            synced: u64::from_le_bytes(at(fixed, 72)),
            base: StateIdentity(at(fixed, 80)),
            checksum: u64::from_le_bytes(at(fixed, 112)),
        };
        let spans = header.last.checked_sub(header.first).and_then(|span| span.checked_add(1));
        if spans != Some(u64::from(header.count)) || header.first == 0 || header.synced >= header.first {
            return Err(LogError::Malformed { what: "the sequence numbers of a batch" });
        }
        Ok(header)
    }

    /// Gives the checksum of the write-sets of a batch.
    #[must_use]
    pub fn checksum_of(write_sets: &[u8]) -> u64 {
        XxHash3_64::oneshot(write_sets)
    }

    /// Gives how many bytes the batch takes in the file, whole blocks; `None` where that is beyond counting.
    #[must_use]
    pub fn length_in_file(&self) -> Option<u64> {
        self.length.checked_add(BATCH_HEADER_LENGTH as u64)?.checked_next_multiple_of(LOG_BLOCK as u64)
    }
}

/// Compares the checksum in the last eight bytes with those above.
fn check(fixed: &[u8], what: &'static str) -> Result<(), LogError> {
    let agrees = fixed
        .split_last_chunk::<8>()
        .is_some_and(|(covered, checksum)| u64::from_le_bytes(*checksum) == XxHash3_64::oneshot(covered));
    if agrees { Ok(()) } else { Err(LogError::Checksum { what }) }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> BatchHeader {
        BatchHeader {
            count: 3,
            generation: 7,
            store_id: [1; 16],
            log_id: [2; 16],
            length: 5_000,
            first: 10,
            last: 12,
            synced: 9,
            base: StateIdentity([3; 32]),
            checksum: 4,
        }
    }

    #[test]
    fn headers_come_back_as_they_were() {
        let file = LogFileHeader { store_id: [1; 16], log_id: [2; 16], process: 99, segment_length: 1 << 20 };
        assert_eq!(file.encode().len(), LOG_BLOCK);
        assert_eq!(LogFileHeader::decode(&file.encode()), Ok(file));
        assert_eq!(BatchHeader::decode(&batch().encode()), Ok(batch()));
        assert_eq!(batch().length_in_file(), Some(8_192));
        assert_eq!(BatchHeader { length: u64::MAX, ..batch() }.length_in_file(), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let file = LogFileHeader { store_id: [1; 16], log_id: [2; 16], process: 99, segment_length: 1 << 20 };
        let (file, batch) = (file.encode(), batch().encode());
        for bit in 0..BATCH_HEADER_LENGTH * 8 {
            let mut flipped = batch;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::decode(&flipped).is_err(), "bit {bit} of a batch header");
        }
        for bit in 0..FILE_HEADER_LENGTH * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(LogFileHeader::decode(&flipped).is_err(), "bit {bit} of a file header");
        }
        for length in 0..BATCH_HEADER_LENGTH {
            assert!(BatchHeader::decode(&batch[..length]).is_err());
        }
        for length in 0..FILE_HEADER_LENGTH {
            assert!(LogFileHeader::decode(&file[..length]).is_err());
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes =
            LogFileHeader { store_id: [1; 16], log_id: [2; 16], process: 0, segment_length: 4_096 }.encode();
        bytes[8] = 2;
        assert_eq!(LogFileHeader::decode(&bytes), Err(LogError::Version { found: 2 }));
        assert_eq!(
            LogFileHeader::decode(b"something else, and long enough to be looked at as a header....."),
            Err(LogError::NotALog)
        );
    }

    #[test]
    fn segments_are_whole_blocks_up_to_a_tebibyte() {
        let tebibyte = 1 << 40;
        for (segment_length, is_sound) in
            [(0, false), (4_096, true), (4_097, false), (tebibyte, true), (tebibyte + 4_096, false)]
        {
            let file = LogFileHeader { store_id: [1; 16], log_id: [2; 16], process: 0, segment_length };
            assert_eq!(LogFileHeader::decode(&file.encode()).is_ok(), is_sound, "{segment_length}");
            assert_eq!(file.length(), 2 * segment_length + 4_096);
        }
    }

    #[test]
    fn the_checksum_of_write_sets_and_the_blocks_that_they_take_are_those_of_the_layout() {
        assert_eq!(BatchHeader::checksum_of(b"soup"), XxHash3_64::oneshot(b"soup"));
        for (length, in_file) in [(0, 4_096), (4_096 - 128, 4_096), (4_097 - 128, 8_192)] {
            assert_eq!(BatchHeader { length, ..batch() }.length_in_file(), Some(in_file), "{length}");
        }
    }

    #[test]
    fn sequence_numbers_that_cannot_be_are_refused() {
        for wrong in [
            BatchHeader { count: 2, ..batch() },
            BatchHeader { first: 0, last: 2, ..batch() },
            BatchHeader { first: 13, ..batch() },
            BatchHeader { synced: 10, ..batch() },
        ] {
            assert!(BatchHeader::decode(&wrong.encode()).is_err(), "{wrong:?}");
        }
    }
}
