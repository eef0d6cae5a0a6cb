//! From rows back to bytes: whole, in ranges, or as a stream that can be sought in.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use larder_format::ContentHash;

use super::frame::{
    self, Codec, FRAME_LENGTH, FrameEntry, SEEK_ENTRY_LENGTH, SEEK_ROW_ENTRIES, SEEK_TABLE_NUMBER,
};
use super::in_memory;
use super::layout::{ChunkClass, Layout};
use crate::error::{Error, ErrorKind, Result};

/// Where a reader takes rows from. The checksums of what it gives have been compared.
pub(crate) trait ChunkSource: Send {
    /// Gives the body of a row, if it is there.
    fn chunk(&self, id: u64, number: u64) -> Result<Option<Bytes>>;
}

/// What a content row says of a payload that lies in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: u64,
    pub(crate) length: u64,
    pub(crate) stored_length: u64,
    pub(crate) codec: u8,
    pub(crate) class: u8,
    pub(crate) hash: ContentHash,
}

enum Body {
    Inline(Bytes),
    Rows { source: Box<dyn ChunkSource>, stored: Stored, codec: Codec, layout: Layout },
}

/// A payload, opened for reading. Holds at most one row and one frame in memory.
pub struct PayloadReader {
    body: Body,
    length: u64,
    hash: ContentHash,
    position: u64,
    row: Option<(u64, Bytes)>,
    frame: Option<(u64, Bytes)>,
    seek_row: Option<(u64, Bytes)>,
    /// The last frame that was found, and where in the stored stream it begins: the next one is found from there.
    found: (u64, u64),
}

impl std::fmt::Debug for PayloadReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayloadReader")
            .field("length", &self.length)
            .field("position", &self.position)
            .finish()
    }
}

impl PayloadReader {
    /// Opens a payload that lies behind its record.
    pub(crate) fn inline(payload: Bytes, hash: ContentHash) -> Self {
        Self::new(payload.len() as u64, hash, Body::Inline(payload))
    }

    /// Opens a payload that lies in rows.
    pub(crate) fn stored(source: Box<dyn ChunkSource>, stored: Stored) -> Result<Self> {
        let codec =
            Codec::from_number(stored.codec).ok_or_else(|| damaged(stored.id, "its codec is not known"))?;
        let class = ChunkClass::from_number(stored.class)
            .ok_or_else(|| damaged(stored.id, "its class is not known"))?;
        let layout = Layout { class, stored_length: stored.stored_length };
        Ok(Self::new(stored.length, stored.hash, Body::Rows { source, stored, codec, layout }))
    }

    fn new(length: u64, hash: ContentHash, body: Body) -> Self {
        Self { body, length, hash, position: 0, row: None, frame: None, seek_row: None, found: (0, 0) }
    }

    /// Gives the length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Tells whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads the whole payload. Without copying, where it lies in one row.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) where what is stored is not what was written.
    pub fn bytes(&mut self) -> Result<Bytes> {
        self.range(0..self.length)
    }

    /// Reads a range of the payload, and nothing of the rest. What lies beyond its end is left out.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) where what is stored is not what was written.
    pub fn range(&mut self, range: Range<u64>) -> Result<Bytes> {
        let end = range.end.min(self.length);
        let mut at = range.start.min(end);
        let first = self.piece(at)?;
        let first = first.slice(..in_memory(end - at).min(first.len()));
        at += first.len() as u64;
        if at >= end {
            return Ok(first);
        }
        let length = in_memory(end - range.start);
        let mut out = Vec::new();
        out.try_reserve_exact(length).map_err(|_| ErrorKind::InvalidArgument {
            argument: "range",
            expected: "a range that fits into memory".to_owned(),
            got: format!("{length} bytes"),
        })?;
        out.extend_from_slice(&first);
        while at < end {
            let piece = self.piece(at)?;
            let piece = piece.get(..in_memory(end - at).min(piece.len())).unwrap_or_default();
            out.extend_from_slice(piece);
            at += piece.len() as u64;
        }
        Ok(out.into())
    }

    /// Reads at a place, without moving the position; gives how many bytes were read, 0 at the end.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) where what is stored is not what was written.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize> {
        if offset >= self.length || out.is_empty() {
            return Ok(0);
        }
        let piece = self.piece(offset)?;
        let count = piece.len().min(out.len());
        for (to, from) in out.chunks_mut(count.max(1)).zip(piece.chunks(count.max(1))).take(1) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    /// Reads everything and compares its digest.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) where what is stored is not what was written.
    pub fn verify(&mut self) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < self.length {
            let piece = self.piece(at)?;
            hasher.update(&piece);
            at += piece.len() as u64;
        }
        let found = ContentHash(*hasher.finalize().as_bytes());
        if found == self.hash {
            return Ok(());
        }
        let what = format!("the payload has the digest {found}, its record says {}", self.hash);
        Err(ErrorKind::Corrupt { what }.into())
    }

    /// Gives the bytes from `at` to the end of the row or frame that they lie in; none only at the end.
    fn piece(&mut self, at: u64) -> Result<Bytes> {
        if at >= self.length {
            return Ok(Bytes::new());
        }
        match &self.body {
            Body::Inline(payload) => Ok(payload.slice(in_memory(at).min(payload.len())..)),
            Body::Rows { codec: Codec::Raw, stored, layout, .. } => {
                if stored.stored_length != stored.length {
                    return Err(damaged(
                        stored.id,
                        "it is not compressed, and has another length than is stored",
                    ));
                }
                let (id, layout) = (stored.id, *layout);
                let (chunk, within) = layout.locate(at).ok_or_else(|| damaged(id, "it ends too early"))?;
                let body = self.row(chunk.number, chunk.length)?;
                Ok(body.slice(in_memory(within).min(body.len())..))
            }
            Body::Rows { codec: Codec::Zstd, .. } => {
                let frame_length = FRAME_LENGTH as u64;
                let body = self.frame(at / frame_length)?;
                Ok(body.slice(in_memory(at % frame_length).min(body.len())..))
            }
        }
    }

    /// Gives the body of a row, which must have this length.
    fn row(&mut self, number: u64, length: u64) -> Result<Bytes> {
        if let Some((kept, body)) = &self.row
            && *kept == number
        {
            return Ok(body.clone());
        }
        let Body::Rows { source, stored, .. } = &self.body else { return Ok(Bytes::new()) };
        let body = source
            .chunk(stored.id, number)?
            .ok_or_else(|| damaged(stored.id, &format!("row {number} is missing")))?;
        if body.len() as u64 != length {
            let what = format!("row {number} has {} bytes, {length} were expected", body.len());
            return Err(damaged(stored.id, &what));
        }
        self.row = Some((number, body.clone()));
        Ok(body)
    }

    /// Gives a frame, decoded.
    fn frame(&mut self, index: u64) -> Result<Bytes> {
        if let Some((kept, body)) = &self.frame
            && *kept == index
        {
            return Ok(body.clone());
        }
        let Body::Rows { stored, .. } = &self.body else { return Ok(Bytes::new()) };
        let stored = *stored;
        let plain_length = frame::plain_length(stored.length, index);
        let (offset, entry) = self.entry(&stored, index, plain_length)?;
        let coded = self.stored_range(&stored, offset, u64::from(entry.stored_length))?;
        let body = if entry.raw {
            coded
        } else {
            let mut plain = vec![0; plain_length];
            frame::decompress(stored.id, index, &coded, &mut plain)?;
            plain.into()
        };
        self.frame = Some((index, body.clone()));
        Ok(body)
    }

    /// Finds where a frame lies in the stored stream.
    fn entry(&mut self, stored: &Stored, index: u64, plain_length: usize) -> Result<(u64, FrameEntry)> {
        if frame::frames(stored.length) <= 1 {
            let length = u32::try_from(stored.stored_length)
                .ok()
                .filter(|length| *length as usize <= FRAME_LENGTH)
                .ok_or_else(|| damaged(stored.id, "its only frame is longer than a frame can be"))?;
            return Ok((0, FrameEntry { stored_length: length, raw: false }));
        }
        let (mut at, mut offset) = if self.found.0 <= index { self.found } else { (0, 0) };
        loop {
            let entry = self.seek_entry(stored, at)?;
            if at == index {
                self.found = (at, offset);
                return Ok((offset, entry));
            }
            offset += u64::from(entry.stored_length);
            at += 1;
            debug_assert!(plain_length <= FRAME_LENGTH);
        }
    }

    fn seek_entry(&mut self, stored: &Stored, index: u64) -> Result<FrameEntry> {
        let malformed = || damaged(stored.id, &format!("its seek table is malformed at frame {index}"));
        let (number, within) = (index / SEEK_ROW_ENTRIES as u64, index % SEEK_ROW_ENTRIES as u64);
        let kept = self.seek_row.as_ref().filter(|(kept, _)| *kept == number).map(|(_, body)| body.clone());
        let body = match kept {
            Some(body) => body,
            None => {
                let Body::Rows { source, .. } = &self.body else { return Err(malformed()) };
                let body = source.chunk(stored.id, SEEK_TABLE_NUMBER + number)?.ok_or_else(malformed)?;
                self.seek_row = Some((number, body.clone()));
                body
            }
        };
        let at = in_memory(within) * SEEK_ENTRY_LENGTH;
        let entry = body.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(malformed)?;
        FrameEntry::decode(*entry, frame::plain_length(stored.length, index)).ok_or_else(malformed)
    }

    /// Gives bytes of the stored stream; `length` is that of a frame at most.
    fn stored_range(&mut self, stored: &Stored, offset: u64, length: u64) -> Result<Bytes> {
        let Body::Rows { layout, .. } = &self.body else { return Ok(Bytes::new()) };
        let layout = *layout;
        let end = offset.saturating_add(length);
        let mut at = offset;
        let mut out = Vec::new();
        while at < end {
            let (chunk, within) = layout
                .locate(at)
                .ok_or_else(|| damaged(stored.id, "its seek table leads beyond the end of what is stored"))?;
            let body = self.row(chunk.number, chunk.length)?;
            let body = body.slice(in_memory(within).min(body.len())..);
            let body = body.slice(..in_memory(end - at).min(body.len()));
            if at == offset && body.len() as u64 == length {
                return Ok(body);
            }
            out.extend_from_slice(&body);
            at += body.len() as u64;
        }
        Ok(out.into())
    }
}

fn damaged(id: u64, what: &str) -> Error {
    ErrorKind::Corrupt { what: format!("payload {id}: {what}") }.into()
}

impl Read for PayloadReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(self.position, out).map_err(io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for PayloadReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a position before the beginning of the payload")
        })?;
        Ok(self.position)
    }
}
