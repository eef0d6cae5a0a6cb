//! Reading: any range of a payload, from its rows, without reading the rest.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use larder_format::ContentHash;

use crate::error::{Error, ErrorKind, Result};

use super::frame::{
    Codec, FRAME_LENGTH, FrameEntry, SEEK_ENTRY_LENGTH, SEEK_ROW_ENTRIES, SEEK_TABLE_NUMBER, decompress,
    frames, plain_length, seek_table_rows,
};
use super::in_memory;
use super::layout::{CONTIGUOUS_LENGTH_MAX, Chunk, ChunkClass, Layout};

/// Gives the rows of a payload.
pub(crate) trait ChunkSource {
    /// Gives the body of a row, its checksum compared; None where there is no such row.
    ///
    /// # Errors
    /// Whatever keeps the source from it.
    fn chunk(&self, id: u64, number: u64) -> Result<Option<Bytes>>;
}

/// What is known of a payload in rows; the numbers as they stand on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The number under which its rows lie.
    pub(crate) id: u64,
    /// The length of the payload, in bytes.
    pub(crate) length: u64,
    /// The length of the stored stream, in bytes.
    pub(crate) stored_length: u64,
    /// The number of the codec.
    pub(crate) codec: u8,
    /// The number of the size class of the rows.
    pub(crate) class: u8,
    /// The digest of the payload.
    pub(crate) hash: ContentHash,
}

impl Stored {
    /// Checks the numbers against each other, and gives what they stand for.
    fn check(&self) -> Result<(Codec, Layout)> {
        let Self { id, length, stored_length, .. } = *self;
        let wrong = |what: &str| Err(corrupt(id, format_args!("its descriptor is malformed: {what}")));
        let Some(class) = ChunkClass::from_number(self.class) else {
            return wrong("unknown size class");
        };
        let Some(codec) = Codec::from_number(self.codec) else {
            return wrong("unknown codec");
        };
        if class == ChunkClass::Contiguous && (codec != Codec::Raw || stored_length > CONTIGUOUS_LENGTH_MAX) {
            return wrong("one row cannot hold it");
        }
        match codec {
            Codec::Raw if length == stored_length => {}
            Codec::Zstd if 0 < stored_length && stored_length < length => {}
            _ => return wrong("its stored length does not go with its length"),
        }
        Ok((codec, Layout { class, stored_length }))
    }

    /// Tells whether the payload lies in one row, as it is.
    pub(crate) fn is_one_plain_row(&self) -> Result<bool> {
        let (codec, layout) = self.check()?;
        Ok(codec == Codec::Raw && layout.count() == 1)
    }

    /// Counts the rows that the payload has: of its stream, and of its seek table.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the fields contradict each other.
    pub(crate) fn row_counts(&self) -> Result<(u64, u64)> {
        let (codec, layout) = self.check()?;
        Ok((layout.count(), seek_table_rows(codec, self.length)))
    }
}

/// A payload that is being read: from its beginning, from anywhere, or whole.
///
/// It has a position, where [`Read`] goes on and which [`Seek`] moves; the other methods leave it alone. It holds
/// one row and one frame of at most 256 KiB, so that reading on decodes everything once, and so that a payload of
/// any length is read in bounded memory. An [`io::Error`] that it gives has an [`Error`] inside.
pub struct PayloadReader {
    content: Content,
    length: u64,
    hash: ContentHash,
    position: u64,
}

enum Content {
    Inline(Bytes),
    Raw(Rows),
    Frames(Frames),
}

impl PayloadReader {
    /// Begins to read a payload that is in memory.
    pub(crate) fn inline(payload: Bytes, hash: ContentHash) -> Self {
        Self { length: payload.len() as u64, content: Content::Inline(payload), hash, position: 0 }
    }

    /// Begins to read a payload in rows; reads none of them yet.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the fields of the descriptor contradict each other.
    pub(crate) fn stored(stored: Stored, source: Box<dyn ChunkSource + Send>) -> Result<Self> {
        let (codec, layout) = stored.check()?;
        let Stored { id, length, hash, .. } = stored;
        let rows = Rows { id, layout, source, kept: None };
        let content = match codec {
            Codec::Raw => Content::Raw(rows),
            Codec::Zstd => Content::Frames(Frames::new(rows, length)),
        };
        Ok(Self { content, length, hash, position: 0 })
    }

    /// Gives the length of the payload, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Tells whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Gives the blake3 digest that the payload had when it was written.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// Reads from `offset` on into `out`, and tells how much was read.
    ///
    /// Fills `out` as far as the payload goes: less than its length is read only at the end, and 0 at or after it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where rows are missing or malformed; what reading the file answers. `out` then has
    /// bytes of no meaning.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let count = in_memory(self.length.saturating_sub(offset)).min(out.len());
        let (out, _) = out.split_at_mut_checked(count).unwrap_or_default();
        if out.is_empty() {
            return Ok(0);
        }
        match &mut self.content {
            Content::Inline(payload) => {
                let start = in_memory(offset);
                let from = payload.get(start..start + count).unwrap_or_default();
                copy(from, out);
            }
            Content::Raw(rows) => rows.fill(offset, out)?,
            Content::Frames(frames) => frames.fill(offset, out)?,
        }
        Ok(count)
    }

    /// Gives the bytes of a range, without reading the others, to be kept: no page is held for them.
    ///
    /// The part of a range behind the end of the payload is left out: the answer may be shorter than the range, or
    /// empty.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where rows are missing or malformed; [`ErrorKind::InvalidArgument`] where the range
    /// ends before it begins, or does not fit into memory; what reading the file answers.
    pub fn range(&mut self, range: Range<u64>) -> Result<Bytes> {
        let Range { start, end } = self.cut(range)?;
        if start == end {
            return Ok(Bytes::new());
        }
        if let Content::Inline(payload) = &self.content {
            return Ok(payload.slice(in_memory(start)..in_memory(end)));
        }
        // A copy: rows lie in their pages.
        let mut out = reserve(end - start)?;
        match &mut self.content {
            Content::Inline(_) => {}
            Content::Raw(rows) => rows.append(start, end, &mut out)?,
            Content::Frames(frames) => frames.append(start, end, &mut out)?,
        }
        Ok(Bytes::from(out))
    }

    /// Gives the bytes of a range piece by piece, as they lie in their pages where they were not compressed: nothing of
    /// them is copied, whatever the length of the payload. Of a compressed payload a piece is what is wanted of a frame,
    /// which has 256 KiB at most.
    ///
    /// Who holds a piece is a reader of the state that it is of, as if he held the view, but for the limit of its age: use it
    /// and let it go, or copy it. The part of a range behind the end of the payload is left out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where the range ends before it begins. A piece is [`ErrorKind::Corrupt`] where its row
    /// is missing or malformed, or what reading the file answers; it is the last one then.
    pub fn pieces(&mut self, range: Range<u64>) -> Result<Pieces<'_>> {
        let Range { start, end } = self.cut(range)?;
        Ok(Pieces { reader: self, at: start, end })
    }

    /// Cuts a range off at the end of the payload.
    fn cut(&self, range: Range<u64>) -> Result<Range<u64>> {
        if range.start > range.end {
            return Err(Error::new(ErrorKind::InvalidArgument {
                argument: "range",
                expected: "a start that is not behind the end".to_owned(),
                got: format!("{}..{}", range.start, range.end),
            }));
        }
        let end = range.end.min(self.length);
        Ok(range.start.min(end)..end)
    }

    /// Gives the whole payload, to be kept: it takes its length in memory. Read a large one in
    /// [pieces](Self::pieces). Not to be confused with [`Read::bytes`], which gives one byte at a time.
    ///
    /// # Errors
    /// As those of [`Self::range`].
    pub fn read_whole(&mut self) -> Result<Bytes> {
        self.range(0..self.length)
    }

    /// Reads the whole payload in bounded memory, and compares its blake3 digest with that of its record.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the digest is another one, or rows are missing or malformed; what reading the
    /// file answers.
    pub fn verify(&mut self) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        let name = match &mut self.content {
            Content::Inline(payload) => {
                hasher.update(payload);
                "an inline payload".to_owned()
            }
            Content::Raw(rows) => {
                for chunk in rows.layout.chunks() {
                    hasher.update(&rows.chunk(chunk)?);
                }
                format!("payload {}", rows.id)
            }
            Content::Frames(frames) => {
                for index in 0..frames.count() {
                    hasher.update(frames.frame(index)?);
                }
                format!("payload {}", frames.rows.id)
            }
        };
        let found = ContentHash(*hasher.finalize().as_bytes());
        if found == self.hash {
            return Ok(());
        }
        let what = format!("{name} has the digest {found}, its record says {}", self.hash);
        Err(Error::new(ErrorKind::Corrupt { what }))
    }
}

/// Pieces of a payload, in their order. Ends after the first error.
#[derive(Debug)]
#[must_use]
pub struct Pieces<'r> {
    reader: &'r mut PayloadReader,
    at: u64,
    end: u64,
}

impl Iterator for Pieces<'_> {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.at >= self.end {
            return None;
        }
        let piece = match &mut self.reader.content {
            Content::Inline(payload) => Ok(payload.slice(in_memory(self.at)..)),
            Content::Raw(rows) => rows.starting_at(self.at),
            Content::Frames(frames) => frames.starting_at(self.at),
        };
        let piece = piece.map(|mut piece| {
            piece.truncate(in_memory(self.end - self.at));
            piece
        });
        self.at = piece.as_ref().map_or(self.end, |piece| self.at + piece.len() as u64);
        Some(piece)
    }
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
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a position before the beginning of the payload")
        })?;
        Ok(self.position)
    }
}

impl fmt::Debug for PayloadReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadReader")
            .field("length", &self.length)
            .field("hash", &self.hash)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// The stored stream, row by row.
struct Rows {
    id: u64,
    layout: Layout,
    source: Box<dyn ChunkSource + Send>,
    /// The row that was read last, by its number.
    kept: Option<(u64, Bytes)>,
}

impl Rows {
    /// Gives a row that must be there, and must have this length.
    fn row(&self, number: u64, length: u64) -> Result<Bytes> {
        let Some(body) = self.source.chunk(self.id, number)? else {
            return Err(corrupt(self.id, format_args!("chunk {number} is missing")));
        };
        if body.len() as u64 != length {
            let found = body.len();
            return Err(corrupt(
                self.id,
                format_args!("chunk {number} has {found} bytes, expected {length}"),
            ));
        }
        Ok(body)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<Bytes> {
        if let Some((number, body)) = &self.kept
            && *number == chunk.number
        {
            return Ok(body.clone());
        }
        // Let go of the old row before the new one is read: there is one in memory, not two.
        self.kept = None;
        let body = self.row(chunk.number, chunk.length)?;
        self.kept = Some((chunk.number, body.clone()));
        Ok(body)
    }

    /// Gives the row of the byte at `offset`, from that byte on.
    fn starting_at(&mut self, offset: u64) -> Result<Bytes> {
        let Some((chunk, within)) = self.layout.locate(offset) else {
            return Err(corrupt(self.id, format_args!("byte {offset} of its stream is behind the end")));
        };
        Ok(self.chunk(chunk)?.slice(in_memory(within)..))
    }

    /// Shares a range, which is not empty, if it lies within one row.
    fn within_one(&mut self, start: u64, end: u64) -> Result<Option<Bytes>> {
        let length = end - start;
        match self.layout.locate(start) {
            Some((chunk, within)) if length <= chunk.length - within => {
                Ok(Some(self.starting_at(start)?.slice(..in_memory(length))))
            }
            _ => Ok(None),
        }
    }

    fn append(&mut self, mut offset: u64, end: u64, out: &mut Vec<u8>) -> Result<()> {
        while offset < end {
            let mut from = self.starting_at(offset)?;
            from.truncate(in_memory(end - offset));
            out.extend_from_slice(&from);
            offset += from.len() as u64;
        }
        Ok(())
    }

    fn fill(&mut self, mut offset: u64, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            let from = self.starting_at(offset)?;
            let (now, rest) = out.split_at_mut(from.len().min(out.len()));
            copy(&from, now);
            offset += now.len() as u64;
            out = rest;
        }
        Ok(())
    }
}

/// Frames of a stored stream.
struct Frames {
    rows: Rows,
    /// The length of the payload, in plain bytes.
    length: u64,
    /// Where in the stored stream the frames of each row of the seek table begin, as far as they were read.
    starts: Vec<u64>,
    /// The row of the seek table that was read last, by its place.
    seek: Option<(u64, Vec<Located>)>,
    /// The frame that was decoded last.
    decoded: Option<u64>,
    plain: Vec<u8>,
}

/// Where a frame lies in the stored stream.
#[derive(Debug, Clone, Copy)]
struct Located {
    offset: u64,
    entry: FrameEntry,
}

impl Frames {
    fn new(rows: Rows, length: u64) -> Self {
        Self { rows, length, starts: vec![0], seek: None, decoded: None, plain: Vec::new() }
    }

    fn count(&self) -> u64 {
        frames(self.length)
    }

    fn locate(&mut self, index: u64) -> Result<Located> {
        if self.count() == 1 {
            // The constructor has compared the two lengths: the only frame is never raw.
            let stored_length = u32::try_from(self.rows.layout.stored_length).unwrap_or(0);
            return Ok(Located { offset: 0, entry: FrameEntry { stored_length, raw: false } });
        }
        let (place, within) = (index / SEEK_ROW_ENTRIES as u64, index % SEEK_ROW_ENTRIES as u64);
        if self.seek.as_ref().is_none_or(|(kept, _)| *kept != place) {
            // Lengths have to be added up from the beginning, once.
            for earlier in self.starts.len() as u64..=place {
                self.read_seek_row(earlier - 1)?;
            }
            self.read_seek_row(place)?;
        }
        let located = self.seek.as_ref().and_then(|(_, row)| row.get(in_memory(within)).copied());
        located.ok_or_else(|| corrupt(self.rows.id, format_args!("frame {index} is behind the end")))
    }

    fn read_seek_row(&mut self, place: u64) -> Result<()> {
        if self.seek.as_ref().is_some_and(|(kept, _)| *kept == place) {
            return Ok(());
        }
        let id = self.rows.id;
        let (first, full) = (place * SEEK_ROW_ENTRIES as u64, SEEK_ROW_ENTRIES as u64);
        let entries = self.count().saturating_sub(first).min(full);
        let row = self.rows.row(SEEK_TABLE_NUMBER + place, entries * SEEK_ENTRY_LENGTH as u64)?;
        let mut offset = self.starts.get(in_memory(place)).copied().unwrap_or(u64::MAX);
        let (encoded, _) = row.as_chunks::<SEEK_ENTRY_LENGTH>();
        let mut located = Vec::with_capacity(encoded.len());
        for (index, entry) in (first..).zip(encoded) {
            let wrong = |what| corrupt(id, format_args!("its seek table is malformed: frame {index} {what}"));
            let entry = FrameEntry::decode(*entry, plain_length(self.length, index));
            let entry = entry.ok_or_else(|| wrong("has an impossible length"))?;
            located.push(Located { offset, entry });
            offset = offset.saturating_add(u64::from(entry.stored_length));
            if offset > self.rows.layout.stored_length {
                return Err(wrong("ends behind the stored stream"));
            }
        }
        if first + entries == self.count() && offset != self.rows.layout.stored_length {
            return Err(corrupt(id, format_args!("its frames end before its stored stream does")));
        }
        if self.starts.len() as u64 == place + 1 {
            self.starts.push(offset);
        }
        self.seek = Some((place, located));
        Ok(())
    }

    /// Decodes a frame into `out`, which has its plain length.
    fn decode_into(&mut self, index: u64, out: &mut [u8]) -> Result<()> {
        let Located { offset, entry } = self.locate(index)?;
        if entry.raw {
            return self.rows.fill(offset, out);
        }
        let end = offset + u64::from(entry.stored_length);
        let stored = match self.rows.within_one(offset, end)? {
            Some(shared) => shared,
            None => {
                let mut joined = vec![0; entry.stored_length as usize];
                self.rows.fill(offset, &mut joined)?;
                Bytes::from(joined)
            }
        };
        decompress(self.rows.id, index, &stored, out)
    }

    /// Gives the frame of the byte at `offset`, from that byte on.
    fn starting_at(&mut self, offset: u64) -> Result<Bytes> {
        let index = offset / FRAME_LENGTH as u64;
        let mut plain = vec![0; plain_length(self.length, index)];
        self.decode_into(index, &mut plain)?;
        Ok(Bytes::from(plain).slice(in_memory(offset % FRAME_LENGTH as u64)..))
    }

    /// Gives a frame, decoding it unless it was the last one decoded.
    fn frame(&mut self, index: u64) -> Result<&[u8]> {
        if self.decoded != Some(index) {
            self.decoded = None;
            let mut plain = std::mem::take(&mut self.plain);
            plain.resize(plain_length(self.length, index), 0);
            let result = self.decode_into(index, &mut plain);
            self.plain = plain;
            result?;
            self.decoded = Some(index);
        }
        Ok(&self.plain)
    }

    fn append(&mut self, mut offset: u64, end: u64, out: &mut Vec<u8>) -> Result<()> {
        let frame = FRAME_LENGTH as u64;
        while offset < end {
            let next = (offset - offset % frame).saturating_add(frame).min(end);
            let before = out.len();
            out.resize(before + in_memory(next - offset), 0);
            self.fill(offset, out.get_mut(before..).unwrap_or_default())?;
            offset = next;
        }
        Ok(())
    }

    fn fill(&mut self, mut offset: u64, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            let index = offset / FRAME_LENGTH as u64;
            let within = in_memory(offset % FRAME_LENGTH as u64);
            let length = plain_length(self.length, index);
            let (now, rest) = out.split_at_mut((length.saturating_sub(within)).min(out.len()));
            if now.is_empty() {
                return Err(corrupt(self.rows.id, format_args!("byte {offset} is behind the end")));
            }
            if now.len() == length && self.decoded != Some(index) {
                // All of it is wanted: decode it where it is wanted.
                self.decode_into(index, now)?;
            } else {
                copy(self.frame(index)?.get(within..).unwrap_or_default(), now);
            }
            offset += now.len() as u64;
            out = rest;
        }
        Ok(())
    }
}

/// Copies as many bytes as both have.
fn copy(from: &[u8], to: &mut [u8]) {
    let length = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..length), to.get_mut(..length)) {
        to.copy_from_slice(from);
    }
}

/// Reserves memory, which is not touched before there are bytes for it: a length that lies costs nothing.
fn reserve(length: u64) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.try_reserve_exact(in_memory(length)).map_err(|error| {
        let expected = "a payload that fits into memory; read this one in pieces".to_owned();
        let got = format!("{length} bytes");
        Error::new(ErrorKind::InvalidArgument { argument: "payload", expected, got }).caused_by(error)
    })?;
    Ok(out)
}

fn corrupt(id: u64, what: fmt::Arguments<'_>) -> Error {
    Error::new(ErrorKind::Corrupt { what: format!("payload {id}: {what}") })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::super::writer::{PayloadWriter, Spec, Written, encode_small};
    use super::*;

    /// Bytes that compress.
    pub(in crate::payload) fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| b"leek, potato, stock; "[at % 21] ^ u8::from(at % 1013 == 0)).collect()
    }

    /// Bytes that do not.
    pub(in crate::payload) fn noise(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[derive(Clone, Default)]
    struct Map {
        rows: BTreeMap<u64, Bytes>,
        asked: Arc<AtomicUsize>,
    }

    impl ChunkSource for Map {
        fn chunk(&self, id: u64, number: u64) -> Result<Option<Bytes>> {
            assert_eq!(id, 7);
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(self.rows.get(&number).cloned())
        }
    }

    fn descriptor(written: &Written) -> Stored {
        let Written { length, hash, stored_length, codec, class } = *written;
        Stored { id: 7, length, stored_length, codec, class, hash }
    }

    fn open(chunks: &[(u64, Bytes)], written: &Written) -> PayloadReader {
        let map = Map { rows: chunks.iter().cloned().collect(), ..Map::default() };
        PayloadReader::stored(descriptor(written), Box::new(map)).unwrap()
    }

    /// Reads whole, verified, and once more as a stream.
    pub(in crate::payload) fn read_back(chunks: &[(u64, Bytes)], written: &Written) -> Vec<u8> {
        let mut reader = open(chunks, written);
        reader.verify().unwrap();
        let whole = reader.read_whole().unwrap();
        let mut streamed = Vec::new();
        reader.read_to_end(&mut streamed).unwrap();
        assert!(whole == streamed);
        streamed
    }

    fn mixed() -> Vec<u8> {
        [text(400_000), noise(500_000), text(300_000)].concat()
    }

    type Kind = (Vec<u8>, Vec<(u64, Bytes)>, Written);

    /// Every kind of stored payload: raw, contiguous, of one frame, of several frames, raw ones among them.
    fn kinds() -> Vec<Kind> {
        let payloads = [
            (noise(200_000), false, false),
            (text(70_000), false, true),
            (text(70_000), true, false),
            (mixed(), true, false),
            (vec![], false, false),
        ];
        payloads
            .into_iter()
            .map(|(payload, compress, contiguous)| {
                let encoded = encode_small(&Bytes::from(payload.clone()), compress, contiguous);
                (payload, encoded.chunks, encoded.written)
            })
            .collect()
    }

    fn is_corrupt<T>(result: Result<T>) -> bool {
        matches!(result.err().map(|error| error.kind().clone()), Some(ErrorKind::Corrupt { what }) if what.starts_with("payload 7: "))
    }

    #[test]
    fn a_range_within_a_raw_row_reads_nothing_else() {
        let payload = Bytes::from(noise(200_000));
        let encoded = encode_small(&payload, false, false);
        let map = Map { rows: encoded.chunks.into_iter().collect(), ..Map::default() };
        let asked = Arc::clone(&map.asked);
        let mut reader = PayloadReader::stored(descriptor(&encoded.written), Box::new(map)).unwrap();
        let range = reader.range(70_000..70_100).unwrap();
        assert_eq!((range, asked.load(Ordering::Relaxed)), (payload.slice(70_000..70_100), 1));
        assert_eq!(reader.range(65_000..66_000).unwrap(), payload.slice(65_000..66_000));
        assert_eq!(reader.range(199_990..300_000).unwrap(), payload.slice(199_990..));
        assert_eq!(reader.range(300_000..400_000).unwrap(), Bytes::new());
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = reader.range(5..4);
        assert!(matches!(reversed.unwrap_err().kind(), ErrorKind::InvalidArgument { .. }));
    }

    #[test]
    fn pieces_are_the_range_and_raw_ones_lie_in_their_rows() {
        for (payload, chunks, written) in kinds() {
            let length = payload.len() as u64;
            let cuts =
                [0, 1, 4_063, 65_504, 65_505, length / 2, length.saturating_sub(1), length, length + 9];
            for (start, end) in cuts.iter().flat_map(|start| cuts.iter().map(move |end| (*start, *end))) {
                let mut reader = open(&chunks, &written);
                if start > end {
                    assert!(reader.pieces(start..end).is_err());
                    continue;
                }
                let whole = reader.range(start..end).unwrap();
                let pieces: Vec<Bytes> = reader.pieces(start..end).unwrap().collect::<Result<_>>().unwrap();
                assert!(pieces.iter().all(|piece| !piece.is_empty()));
                assert!(pieces.concat() == whole, "{start}..{end}");
                let is_in_a_row = |piece: &Bytes| {
                    chunks.iter().any(|(_, row)| row.as_ptr_range().contains(&piece.as_ptr()))
                };
                if written.codec == Codec::Raw.number() {
                    assert!(pieces.iter().all(is_in_a_row));
                }
            }
        }
    }

    #[test]
    fn a_damaged_piece_is_the_last_one() {
        let encoded = encode_small(&Bytes::from(noise(200_000)), false, false);
        let mut chunks = encoded.chunks;
        chunks.remove(1);
        let mut reader = open(&chunks, &encoded.written);
        let pieces: Vec<Result<Bytes>> = reader.pieces(0..200_000).unwrap().collect();
        assert!(matches!(pieces.as_slice(), [Ok(_), Err(_)]), "{pieces:?}");
    }

    #[test]
    fn an_inline_payload_is_not_copied() {
        let inline = Bytes::from(text(100));
        let mut reader = PayloadReader::inline(inline.clone(), ContentHash::of(&inline));
        assert_eq!(reader.read_whole().unwrap().as_ptr(), inline.as_ptr());
        reader.verify().unwrap();
    }

    #[test]
    fn reading_on_reads_each_row_and_decodes_each_frame_once() {
        for (payload, chunks, written) in kinds() {
            let map = Map { rows: chunks.iter().cloned().collect(), ..Map::default() };
            let asked = Arc::clone(&map.asked);
            let mut reader = PayloadReader::stored(descriptor(&written), Box::new(map)).unwrap();
            let mut found = Vec::new();
            let mut buffer = [0; 999];
            loop {
                match reader.read(&mut buffer).unwrap() {
                    0 => break,
                    count => found.extend_from_slice(&buffer[..count]),
                }
            }
            assert!(found == payload);
            assert_eq!(asked.load(Ordering::Relaxed), chunks.len());
            let (rows, seek_rows) = descriptor(&written).row_counts().unwrap();
            assert_eq!(rows + seek_rows, chunks.len() as u64);
        }
    }

    #[test]
    fn seeking_goes_where_it_says() {
        for (payload, chunks, written) in kinds() {
            let mut reader = open(&chunks, &written);
            let length = payload.len() as u64;
            assert_eq!((reader.len(), reader.is_empty()), (length, length == 0));
            assert_eq!(reader.seek(SeekFrom::Start(length + 9)).unwrap(), length + 9);
            assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
            assert_eq!(reader.seek(SeekFrom::End(-(length.cast_signed()) / 2)).unwrap(), length - length / 2);
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            assert!(rest == payload[payload.len() - payload.len() / 2..]);
            assert!(reader.seek(SeekFrom::Current(-(length.cast_signed()) - 1)).is_err());
            assert_eq!(reader.stream_position().unwrap(), length);
        }
    }

    #[test]
    fn a_missing_shorter_or_longer_row_is_corruption_and_is_named() {
        for (payload, chunks, written) in kinds() {
            for damaged in 0..chunks.len() {
                let number = chunks[damaged].0;
                let body = chunks[damaged].1.clone();
                let longer = Bytes::from([&body[..], &[0]].concat());
                for replacement in [None, Some(body.slice(1..)), Some(longer)] {
                    let mut rows = chunks.clone();
                    match replacement {
                        None => drop(rows.remove(damaged)),
                        Some(body) => rows[damaged].1 = body,
                    }
                    let mut reader = open(&rows, &written);
                    assert!(is_corrupt(reader.read_whole()) && is_corrupt(reader.verify()));
                    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
                    let inner = error.get_ref().and_then(|error| error.downcast_ref::<Error>()).unwrap();
                    assert!(inner.to_string().contains(&format!("chunk {number} ")), "{inner}");
                }
            }
            // A reader that failed reads what is whole.
            assert!(read_back(&chunks, &written) == payload);
        }
    }

    #[test]
    fn descriptors_that_contradict_themselves_are_refused() {
        for (_, chunks, written) in kinds() {
            let good = descriptor(&written);
            let wrong = [
                Stored { class: 0, ..good },
                Stored { class: 5, ..good },
                Stored { codec: 2, ..good },
                Stored { codec: 1 - good.codec, ..good },
                Stored { stored_length: good.stored_length + (1 << 40), ..good },
                Stored { class: 1, length: 1 << 40, stored_length: 1 << 40, codec: 0, ..good },
            ];
            for stored in wrong {
                let map = Map { rows: chunks.iter().cloned().collect(), ..Map::default() };
                assert!(is_corrupt(PayloadReader::stored(stored, Box::new(map))), "{stored:?}");
            }
        }
    }

    #[test]
    fn lengths_that_lie_give_an_error_in_bounded_memory() {
        for (_, chunks, written) in kinds() {
            for length in
                [1, written.length / 2, written.length + 1, written.length * 3 + 1, 1 << 50, u64::MAX]
            {
                for stored_length in [written.stored_length, written.stored_length / 2, length] {
                    let stored = Stored { length, stored_length, ..descriptor(&written) };
                    let map = Map { rows: chunks.iter().cloned().collect(), ..Map::default() };
                    let Ok(mut reader) = PayloadReader::stored(stored, Box::new(map)) else { continue };
                    if stored == descriptor(&written) {
                        continue;
                    }
                    assert!(
                        reader.verify().is_err() && is_corrupt_or_too_large(reader.read_whole()),
                        "{stored:?}"
                    );
                    let mut buffer = [0; 100];
                    for offset in [0, length / 2, length - 1] {
                        drop(reader.read_at(offset, &mut buffer));
                    }
                }
            }
        }
    }

    /// A shorter payload of the same rows may well be readable; it is the digest that refuses it.
    fn is_corrupt_or_too_large(result: Result<Bytes>) -> bool {
        result.err().is_none_or(|error| {
            matches!(error.kind(), ErrorKind::Corrupt { .. } | ErrorKind::InvalidArgument { .. })
        })
    }

    #[test]
    fn another_digest_is_corruption() {
        for (payload, chunks, written) in kinds() {
            let written = Written { hash: ContentHash::of(b"other"), ..written };
            assert!(is_digest_error(open(&chunks, &written).verify()));
            let inline = PayloadReader::inline(Bytes::from(payload), written.hash).verify();
            assert!(is_digest_error(inline));
        }
        fn is_digest_error(result: Result<()>) -> bool {
            matches!(result.unwrap_err().kind(), ErrorKind::Corrupt { what } if what.contains("digest"))
        }
    }

    #[test]
    fn a_seek_table_of_several_rows_is_added_up_from_any_place() {
        // 16 376 frames fill a row; zeros compress to next to nothing, so the payload of 4 GiB is small in rows.
        struct Zeros(BTreeMap<u64, Bytes>);
        impl ChunkSource for Zeros {
            fn chunk(&self, _: u64, number: u64) -> Result<Option<Bytes>> {
                Ok(self.0.get(&number).cloned())
            }
        }
        let frame = encode_small(&Bytes::from(vec![0; FRAME_LENGTH]), true, false).chunks[0].1.clone();
        let last = encode_small(&Bytes::from(text(1000)), true, false).chunks[0].1.clone();
        let count = SEEK_ROW_ENTRIES * 2 + 5;
        let stream = Bytes::from([frame.repeat(count - 1), last.to_vec()].concat());
        let entry = |frame: &Bytes| {
            FrameEntry { stored_length: u32::try_from(frame.len()).unwrap(), raw: false }.encode()
        };
        let table = Bytes::from([entry(&frame).repeat(count - 1), entry(&last).to_vec()].concat());
        let layout = Layout { class: ChunkClass::Kib256, stored_length: stream.len() as u64 };
        let mut rows: BTreeMap<u64, Bytes> = layout
            .chunks()
            .map(|it| (it.number, stream.slice(in_memory(it.offset)..in_memory(it.offset + it.length))))
            .collect();
        for (place, row) in table.chunks(65_504).enumerate() {
            rows.insert(SEEK_TABLE_NUMBER + place as u64, Bytes::copy_from_slice(row));
        }
        let length = (FRAME_LENGTH * (count - 1) + 1000) as u64;
        let stored = Stored {
            id: 7,
            length,
            stored_length: layout.stored_length,
            codec: 1,
            class: 3,
            hash: ContentHash::default(),
        };
        let mut reader = PayloadReader::stored(stored, Box::new(Zeros(rows))).unwrap();
        let row = (SEEK_ROW_ENTRIES * FRAME_LENGTH) as u64;
        assert_eq!(reader.range(length - 1000..length).unwrap(), text(1000));
        for offset in [row - 5, 0, 2 * row - 5, row, 2 * row, 5, length - 1005] {
            assert_eq!(reader.range(offset..offset + 5).unwrap(), [0; 5][..], "{offset}");
        }
        assert_eq!(reader.range(length - 3..length).unwrap(), text(1000)[997..]);
    }

    #[test]
    fn readers_move_between_threads() {
        fn send<T: Send>() {}
        send::<PayloadReader>();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_range_is_that_of_the_payload(kind in 0_usize..4, cuts in prop::collection::vec((0_usize..1100, 0_usize..1100), 1..6)) {
            let (payload, chunks, written) = kinds().swap_remove(kind);
            let mut reader = open(&chunks, &written);
            for (a, b) in cuts {
                let at = |part: usize| part * payload.len() / 1000;
                let (start, end) = (at(a.min(b)), at(a.max(b)));
                let expected = &payload[start.min(payload.len())..end.min(payload.len())];
                prop_assert!(reader.range(start as u64..end as u64).unwrap() == expected);
                let mut out = vec![0; end - start];
                prop_assert_eq!(reader.read_at(start as u64, &mut out).unwrap(), expected.len());
                prop_assert!(&out[..expected.len()] == expected);
            }
        }

        #[test]
        fn damage_gives_an_error_or_what_the_digest_refuses(
            kind in 0_usize..4, row: prop::sample::Index, damage in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
        ) {
            let (payload, mut chunks, written) = kinds().swap_remove(kind);
            let row = row.index(chunks.len());
            let mut body = chunks[row].1.to_vec();
            let before = body.clone();
            for (at, bits) in damage {
                let at = at.index(body.len());
                body[at] ^= bits;
            }
            let changed = body != before;
            chunks[row].1 = Bytes::from(body);
            let mut reader = open(&chunks, &written);
            let verified = reader.verify();
            if let Ok(bytes) = reader.read_whole() {
                // Damage that decodes to the same bytes is none.
                prop_assert_eq!(verified.is_ok(), bytes == payload);
            } else {
                prop_assert!(changed && verified.is_err());
            }
        }
    }

    #[test]
    fn a_failed_read_leaves_the_position() {
        let (_, mut chunks, written) = kinds().swap_remove(0);
        let kept = chunks.remove(1);
        let mut reader = open(&chunks, &written);
        assert!(reader.read(&mut [0; 100_000]).is_err());
        assert_eq!(reader.stream_position().unwrap(), 0);
        assert_eq!(reader.read(&mut [0; 1000]).unwrap(), 1000);
        drop(kept);
    }

    #[test]
    fn a_writer_of_frames_is_read_by_frames() {
        let payload = mixed();
        let mut writer = PayloadWriter::new(Vec::new(), Spec { compress: true, ..Spec::default() });
        writer.write_all(&payload).unwrap();
        let (chunks, written) = writer.finish().unwrap();
        assert_eq!((written.codec, written.length), (1, payload.len() as u64));
        assert!(written.stored_length < written.length);
        assert!(read_back(&chunks, &written) == payload);
    }
}
