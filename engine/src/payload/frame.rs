//! Compressed payloads: frames that are decoded one by one, and the table that finds them.
//!
//! ```text
//! plain    | 256 KiB        | 256 KiB        | rest    |
//! stored   | zstd frame | raw frame      | zstd |              the stored stream, cut by the layout
//! table    | u32 | u32 | u32 |                                 rows from number 2^63 on, 65 504 bytes each
//! ```
//!
//! An entry of the table, little-endian, is the length of the frame in the stored stream; its highest bit says that
//! the frame is the plain bytes, since compression did not make it smaller. A payload of one frame has no table.

use std::cell::RefCell;

use crate::error::{Error, ErrorKind, Result};

use super::in_memory;

/// How many plain bytes a frame holds; the last one may hold fewer.
pub(super) const FRAME_LENGTH: usize = 256 << 10;
/// The length below which a payload is never compressed, in bytes.
pub(super) const COMPRESSED_LENGTH_MIN: usize = 256;
/// The number of the first row of the seek table.
pub(crate) const SEEK_TABLE_NUMBER: u64 = 1 << 63;
/// How many entries a full row of the seek table has: 65 504 bytes, which fill 16 pages.
pub(super) const SEEK_ROW_ENTRIES: usize = 65_504 / SEEK_ENTRY_LENGTH;
/// The length of an entry of the seek table, in bytes.
pub(super) const SEEK_ENTRY_LENGTH: usize = 4;
/// The bit of an entry that says that the frame is not compressed.
const RAW_BIT: u32 = 1 << 31;
/// The level of zstd: 1 is the fastest that still finds what repeats.
const ZSTD_LEVEL: i32 = 1;

const _: () = assert!(SEEK_ROW_ENTRIES * SEEK_ENTRY_LENGTH == (64 << 10) - 32);
const _: () = assert!(FRAME_LENGTH < RAW_BIT as usize);

/// What the stored stream of a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    /// The plain bytes.
    Raw = 0,
    /// Frames of zstd, or raw ones among them.
    Zstd = 1,
}

impl Codec {
    /// Gives the number that stands for the codec on disk.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// Gives the codec with this number.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Counts the frames of a payload of this many plain bytes.
pub(super) fn frames(length: u64) -> u64 {
    length.div_ceil(FRAME_LENGTH as u64)
}

/// Counts the rows of the seek table of a payload of this codec and this many plain bytes.
pub(crate) fn seek_table_rows(codec: Codec, length: u64) -> u64 {
    match (codec, frames(length)) {
        (Codec::Raw, _) | (Codec::Zstd, 0..=1) => 0,
        (Codec::Zstd, frames) => frames.div_ceil(SEEK_ROW_ENTRIES as u64),
    }
}

/// Gives the length of a frame in plain bytes; 0 for one that the payload does not have.
pub(super) fn plain_length(length: u64, index: u64) -> usize {
    let start = index.saturating_mul(FRAME_LENGTH as u64);
    in_memory(length.saturating_sub(start)).min(FRAME_LENGTH)
}

/// How a frame lies in the stored stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameEntry {
    /// Its length there, in bytes: 1 to [`FRAME_LENGTH`].
    pub(super) stored_length: u32,
    /// Whether it is the plain bytes.
    pub(super) raw: bool,
}

impl FrameEntry {
    pub(super) fn encode(self) -> [u8; SEEK_ENTRY_LENGTH] {
        (self.stored_length | if self.raw { RAW_BIT } else { 0 }).to_le_bytes()
    }

    /// Takes an entry apart; None where it contradicts the plain length of its frame.
    pub(super) fn decode(entry: [u8; SEEK_ENTRY_LENGTH], plain_length: usize) -> Option<Self> {
        let bits = u32::from_le_bytes(entry);
        let entry = Self { stored_length: bits & !RAW_BIT, raw: bits & RAW_BIT != 0 };
        let length = entry.stored_length as usize;
        let fits = if entry.raw { length == plain_length } else { 0 < length && length < plain_length };
        fits.then_some(entry)
    }
}

/// Gives the greatest length at which the first frame decides for compression: an eighth less than plain.
pub(super) fn worthwhile(plain_length: usize) -> usize {
    plain_length - plain_length.div_ceil(8)
}

thread_local! {
    // A context costs more to make than a small frame costs to code, so that each thread keeps one of each kind.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Up to which length a payload is looked at before it is compressed, in bytes.
const LOOKED_AT_LENGTH_MAX: usize = 4 << 10;
/// How much of it is looked at first, in bytes: enough to know text and numbers by.
const LOOKED_AT_FIRST: usize = 256;

/// Tells whether a small payload is noise, so that compressing it would be in vain: encrypted, compressed already, digests.
///
/// That is so where its bytes occur as often as bytes of noise do, neither too unevenly nor too evenly: Pearson's chi-square
/// of 256 classes lies within five standard deviations of its mean. What repeats a third of itself hardly passes.
/// Of a longer payload it is not asked: there zstd finds out as quickly.
pub(super) fn is_noise(plain: &[u8]) -> bool {
    let first = plain.get(..LOOKED_AT_FIRST).unwrap_or(plain);
    plain.len() <= LOOKED_AT_LENGTH_MAX && is_even(first) && is_even(plain)
}

/// Tells whether chi-square is within five standard deviations, 5 * sqrt(2 * 255), of its mean, 255.
fn is_even(bytes: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let length = bytes.len() as u64;
    // Times the length, so that it is a matter of whole numbers.
    let chi_square = (256 * counts.iter().map(|count| count * count).sum::<u64>()) - length * length;
    chi_square.abs_diff(255 * length) <= 113 * length
}

/// Compresses a frame into `out`, and tells whether it came out at `length_max` bytes or fewer.
///
/// A compressor that fails (it is short of memory) makes nothing smaller, and so never fails a write.
pub(super) fn compress(plain: &[u8], length_max: usize, out: &mut Vec<u8>) -> bool {
    let bound = zstd::zstd_safe::compress_bound(plain.len());
    out.clear();
    if out.try_reserve(bound).is_err() {
        return false;
    }
    with_kept(&COMPRESSOR, || zstd::bulk::Compressor::new(ZSTD_LEVEL), |it| it.compress_to_buffer(plain, out))
        .is_ok_and(|length| length <= length_max)
}

/// Decompresses a frame into exactly `out`.
///
/// # Errors
/// [`ErrorKind::Corrupt`] where it does not decode, or decodes to fewer or more bytes.
pub(super) fn decompress(id: u64, index: u64, stored: &[u8], out: &mut [u8]) -> Result<()> {
    let found =
        with_kept(&DECOMPRESSOR, zstd::bulk::Decompressor::new, |it| it.decompress_to_buffer(stored, out));
    let what = match found {
        Ok(length) if length == out.len() => return Ok(()),
        Ok(length) => {
            format!("payload {id}: frame {index} decodes to {length} bytes, expected {}", out.len())
        }
        Err(error) => format!("payload {id}: frame {index} does not decode to {} bytes: {error}", out.len()),
    };
    Err(Error::new(ErrorKind::Corrupt { what }))
}

/// Works with the thread's context, or with one of its own where the thread is ending.
fn with_kept<C, R>(
    kept: &'static std::thread::LocalKey<RefCell<Option<C>>>,
    make: impl FnOnce() -> std::io::Result<C>,
    work: impl FnOnce(&mut C) -> std::io::Result<R>,
) -> std::io::Result<R> {
    let taken = kept.try_with(RefCell::take).ok().flatten();
    let mut context = taken.map_or_else(make, Ok)?;
    let result = work(&mut context);
    // A thread that is ending has nowhere to keep it; then it is dropped here.
    drop(kept.try_with(|kept| kept.replace(Some(context))));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_known_by_its_bytes() {
        let noise = super::super::reader::tests::noise;
        for length in [256, 513, 1_000, 1_024, 4_096] {
            assert!(is_noise(&noise(length)), "{length}");
        }
        assert!(!is_noise(&noise(LOOKED_AT_LENGTH_MAX + 1)), "zstd is asked");
        let half = noise(512);
        let every = || (0..=u8::MAX).cycle();
        let not_noise: [(&str, Vec<u8>); 6] = [
            ("the same twice", half.repeat(2)),
            ("every byte as often", every().take(1_024).collect()),
            ("numbers", (0..256_u32).flat_map(u32::to_le_bytes).collect()),
            (
                "hexadecimal digits",
                noise(512).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect(),
            ),
            ("noise behind zeros", [vec![0; 256], noise(768)].concat()),
            ("zeros behind noise", [noise(768), vec![0; 256]].concat()),
        ];
        for (what, bytes) in not_noise {
            assert!(!is_noise(&bytes), "{what}");
        }
    }

    #[test]
    fn a_frame_decodes_to_its_own_length_only() {
        let plain = b"the same again, ".repeat(64);
        let mut stored = Vec::new();
        assert!(compress(&plain, worthwhile(plain.len()), &mut stored));
        let mut out = vec![0; plain.len()];
        decompress(1, 0, &stored, &mut out).unwrap();
        assert_eq!(out, plain);
        for length in [0, 1, plain.len() - 1, plain.len() + 1] {
            let error = decompress(1, 0, &stored, &mut vec![0; length]).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
        }
        // A context that failed once decodes the next frame.
        decompress(1, 0, &stored, &mut out).unwrap();
    }

    #[test]
    fn entries_that_contradict_their_frame_are_refused() {
        let entry = FrameEntry { stored_length: 100, raw: false };
        assert_eq!(FrameEntry::decode(entry.encode(), 101), Some(entry));
        assert_eq!(FrameEntry::decode(entry.encode(), 100), None);
        let raw = FrameEntry { stored_length: 100, raw: true };
        assert_eq!(FrameEntry::decode(raw.encode(), 100), Some(raw));
        assert_eq!(FrameEntry::decode(raw.encode(), 101), None);
        assert_eq!(FrameEntry::decode([0; 4], 100), None);
    }

    #[test]
    fn rows_of_the_seek_table_are_counted() {
        let frame = FRAME_LENGTH as u64;
        assert_eq!(seek_table_rows(Codec::Raw, u64::MAX), 0);
        assert_eq!(seek_table_rows(Codec::Zstd, frame), 0);
        assert_eq!(seek_table_rows(Codec::Zstd, frame + 1), 1);
        assert_eq!(seek_table_rows(Codec::Zstd, frame * 16_376), 1);
        assert_eq!(seek_table_rows(Codec::Zstd, frame * 16_376 + 1), 2);
    }
}
