//! One zstd frame: compressed, or where that is no use, the content as it is in a frame of raw blocks.

use larder_format::SNAPSHOT_CONTENT_MAX;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, find_frame_compressed_size};

use crate::error::{Error, ErrorKind, Result};

/// What is looked at to tell whether a content can be compressed: this many pieces of this length, in bytes.
const SAMPLES: usize = 4;
const SAMPLE_LENGTH: usize = 4 << 10;
/// From this share of what they were, in per cent, compressed samples are taken for incompressible.
const SHARE_MIN: usize = 95;

const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// A frame with its content in one segment, whose length is said in four bytes; no checksum of its own.
const SINGLE_SEGMENT_U32: u8 = 0xA0;
/// The greatest length of a raw block (RFC 8878, section 3.1.1.2.4).
const BLOCK_LENGTH_MAX: usize = 128 << 10;

/// Makes frames.
pub(super) struct Framer {
    compressor: Compressor<'static>,
    sampler: Compressor<'static>,
}

impl Framer {
    pub(super) fn new(level: i32) -> Result<Self> {
        let make = |level, with_checksum| {
            let mut compressor = Compressor::new(level)?;
            compressor.set_parameter(CParameter::ChecksumFlag(with_checksum))?;
            Ok(compressor)
        };
        let failed = |error: std::io::Error| {
            Error::from(ErrorKind::Io { doing: "beginning to compress".to_owned() }).caused_by(error)
        };
        Ok(Self { compressor: make(level, true).map_err(failed)?, sampler: make(1, false).map_err(failed)? })
    }

    /// Puts a content into a frame.
    pub(super) fn frame(&mut self, content: &[u8]) -> Result<Vec<u8>> {
        if self.is_worthwhile(content) {
            let frame = self.compressor.compress(content).map_err(|error| {
                Error::from(ErrorKind::Io { doing: "compressing".to_owned() }).caused_by(error)
            })?;
            if frame.len() < content.len() {
                return Ok(frame);
            }
        }
        Ok(raw(content))
    }

    fn is_worthwhile(&mut self, content: &[u8]) -> bool {
        let step = content.len() / SAMPLES;
        if step < SAMPLE_LENGTH {
            return true;
        }
        let samples: Vec<u8> = (0..SAMPLES)
            .filter_map(|number| content.get(number * step..number * step + SAMPLE_LENGTH))
            .flatten()
            .copied()
            .collect();
        let compressed = self.sampler.compress(&samples).map_or(samples.len(), |frame| frame.len());
        compressed * 100 < samples.len() * SHARE_MIN
    }
}

fn raw(content: &[u8]) -> Vec<u8> {
    let blocks = content.len().div_ceil(BLOCK_LENGTH_MAX).max(1);
    let mut out = Vec::with_capacity(9 + blocks * 3 + content.len());
    out.extend_from_slice(&MAGIC);
    out.push(SINGLE_SEGMENT_U32);
    out.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut rest = content;
    for number in 1..=blocks {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_LENGTH_MAX));
        let head = u32::from(number == blocks) | u32::try_from(block.len()).unwrap_or(0) << 3;
        out.extend(head.to_le_bytes().into_iter().take(3));
        out.extend_from_slice(block);
        rest = after;
    }
    out
}

/// Gives the content of the one frame that the bytes are, which has this length.
pub(super) fn content(frame: &[u8], length: u32) -> Result<Vec<u8>> {
    let damaged = |what: &str| ErrorKind::SnapshotDamaged { what: what.to_owned() }.into();
    if !frame.starts_with(&MAGIC) || find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(damaged("a piece is not one zstd frame"));
    }
    let length = usize::try_from(length.min(SNAPSHOT_CONTENT_MAX)).unwrap_or(0);
    let content = Decompressor::new().and_then(|mut zstd| zstd.decompress(frame, length));
    match content {
        Ok(content) if content.len() == length => Ok(content),
        Ok(_) => Err(damaged("a frame has fewer bytes than it should")),
        Err(error) => {
            Err(ErrorKind::SnapshotDamaged { what: format!("a frame cannot be read: {error}") }.into())
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers are only a pattern")]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(length)
        .collect()
    }

    #[test]
    fn every_length_comes_back_also_through_zstd_as_it_is() {
        let mut framer = Framer::new(1).unwrap();
        for length in [0, 1, 5, 4_095, BLOCK_LENGTH_MAX - 1, BLOCK_LENGTH_MAX, BLOCK_LENGTH_MAX + 1, 3 << 20]
        {
            for bytes in [noise(length), vec![7; length]] {
                let frame = framer.frame(&bytes).unwrap();
                assert_eq!(content(&frame, u32::try_from(length).unwrap()).unwrap(), bytes);
                assert_eq!(zstd::decode_all(frame.as_slice()).unwrap(), bytes, "{length}");
                let wrong = u32::try_from(length).unwrap() + 1;
                assert!(content(&frame, wrong).is_err());
            }
        }
    }

    #[test]
    fn noise_is_left_as_it_is_and_costs_next_to_nothing() {
        let bytes = noise(1 << 20);
        assert_eq!(Framer::new(1).unwrap().frame(&bytes).unwrap().len(), bytes.len() + 9 + 3 * 8);
    }

    #[test]
    fn what_is_not_one_whole_frame_is_refused() {
        let frame = Framer::new(1).unwrap().frame(&[7; 1000]).unwrap();
        for length in 0..frame.len() {
            assert!(content(&frame[..length], 1000).is_err(), "{length}");
        }
        assert!(content(&[&frame[..], &[0]].concat(), 1000).is_err());
        assert!(content(&[&frame[..], &frame[..]].concat(), 2000).is_err(), "two frames");
        assert!(content(&frame, 999).is_err(), "more than it may have");
        // A skippable frame, and one that says that it is endless.
        assert!(content(&[0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0], 0).is_err());
        let mut endless = raw(&[7; 10]);
        endless[9] &= !1;
        assert!(content(&endless, 10).is_err());
    }
}
