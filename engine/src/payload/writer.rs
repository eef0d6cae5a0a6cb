//! Writing: from plain bytes, at once or as they come, to rows.

use std::io::Read;

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use larder_format::ContentHash;

use crate::error::{Error, ErrorKind, Result};

use super::frame::{
    COMPRESSED_LENGTH_MIN, Codec, FRAME_LENGTH, FrameEntry, SEEK_ENTRY_LENGTH, SEEK_ROW_ENTRIES,
    SEEK_TABLE_NUMBER, compress, is_noise, worthwhile,
};
use super::in_memory;
use super::layout::{CONTIGUOUS_LENGTH_MAX, ChunkClass, Layout, UNDECIDED_LENGTH_MAX};

/// How much is read from a source at a time, in bytes: enough for blake3 to use all lanes.
const READ_LENGTH: usize = 128 << 10;

/// Takes the rows of a payload as they become whole.
///
/// Rows of the stream come in the order of their numbers, the rows of the seek table among them, in theirs.
pub(crate) trait ChunkSink {
    /// Keeps the body of a row.
    ///
    /// # Errors
    /// Whatever keeps the sink from it; the writer gives it back and accepts nothing more.
    fn put(&mut self, number: u64, body: Bytes) -> Result<()>;
}

impl ChunkSink for Vec<(u64, Bytes)> {
    fn put(&mut self, number: u64, body: Bytes) -> Result<()> {
        self.push((number, body));
        Ok(())
    }
}

impl<S: ChunkSink + ?Sized> ChunkSink for &mut S {
    fn put(&mut self, number: u64, body: Bytes) -> Result<()> {
        (**self).put(number, body)
    }
}

/// How a payload is to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spec {
    /// How many plain bytes are expected; only the size of rows depends on it.
    pub(crate) size_hint: Option<u64>,
    /// Whether compression is worth a try.
    pub(crate) compress: bool,
    /// Whether to keep the payload in one row, uncompressed, as far as [`CONTIGUOUS_LENGTH_MAX`] goes.
    pub(crate) contiguous: bool,
    /// The greatest length in bytes, and the name of that limit.
    pub(crate) limit: Option<(u64, String)>,
}

/// What has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// The length of the payload, in bytes.
    pub(crate) length: u64,
    /// The digest of the payload.
    pub(crate) hash: ContentHash,
    /// The length of the stored stream, in bytes; the seek table not counted.
    pub(crate) stored_length: u64,
    /// The number of the [`Codec`].
    pub(crate) codec: u8,
    /// The number of the [`ChunkClass`].
    pub(crate) class: u8,
}

/// A payload that was in memory, as rows.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// What its descriptor will say.
    pub(crate) written: Written,
    /// The numbers and bodies of its rows.
    pub(crate) chunks: Vec<(u64, Bytes)>,
}

/// What becomes of the next plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// They are held, in the hope that all of them fit into one row.
    Holding,
    /// They fill the first frame, which decides the codec.
    Undecided,
    /// They are the stored stream.
    Raw,
    /// They fill a frame.
    Frames,
}

/// Writes a payload of any length.
///
/// Holds one row and two frames, under 2 MiB; with `contiguous`, up to [`CONTIGUOUS_LENGTH_MAX`]. After an error
/// every further call gives the same error.
pub(crate) struct PayloadWriter<S> {
    sink: S,
    compress: bool,
    limit: Option<(u64, String)>,
    hasher: Hasher,
    length: u64,
    failed: Option<Error>,
    stage: Stage,
    /// Plain bytes: of a contiguous payload, or of a frame.
    gathered: Vec<u8>,
    /// A compressed frame on its way to `rows`.
    scratch: Vec<u8>,
    rows: Rows,
    table: Table,
}

impl<S: ChunkSink> PayloadWriter<S> {
    /// Begins a payload.
    pub(crate) fn new(sink: S, spec: Spec) -> Self {
        let Spec { size_hint, compress, contiguous, limit } = spec;
        let stage = match (contiguous, compress) {
            (true, _) if size_hint.is_none_or(|length| length <= CONTIGUOUS_LENGTH_MAX) => Stage::Holding,
            (_, true) => Stage::Undecided,
            (_, false) => Stage::Raw,
        };
        Self {
            sink,
            compress,
            limit,
            hasher: Hasher::new(),
            length: 0,
            failed: None,
            stage,
            gathered: Vec::new(),
            scratch: Vec::new(),
            rows: Rows::new(size_hint),
            table: Table::default(),
        }
    }

    /// Gives how many bytes have come.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends plain bytes.
    ///
    /// # Errors
    /// [`ErrorKind::BinaryTooLarge`] as soon as the limit is passed, before these bytes are looked at; what the
    /// sink answers.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.append(bytes);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if let Some((limit, by)) = &self.limit
            && self.length > *limit
        {
            let (size, limit, by) = (self.length, *limit, by.clone());
            return Err(Error::new(ErrorKind::BinaryTooLarge { size, limit, by }));
        }
        self.hasher.update(bytes);
        if self.stage != Stage::Holding {
            return self.feed(bytes);
        }
        if self.length <= CONTIGUOUS_LENGTH_MAX {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        self.stage = if self.compress { Stage::Undecided } else { Stage::Raw };
        let held = std::mem::take(&mut self.gathered);
        self.feed(&held)?;
        self.feed(bytes)
    }

    /// Cuts plain bytes into frames, where there are to be frames.
    fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.stage == Stage::Raw {
                return self.rows.push(bytes, &mut self.sink);
            }
            let wanted = FRAME_LENGTH - self.gathered.len();
            let (now, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            bytes = rest;
            if now.len() == FRAME_LENGTH {
                self.write_frame(now)?;
                continue;
            }
            self.gathered.extend_from_slice(now);
            if now.len() == wanted {
                self.write_gathered()?;
            }
        }
        Ok(())
    }

    fn write_gathered(&mut self) -> Result<()> {
        let mut frame = std::mem::take(&mut self.gathered);
        self.write_frame(&frame)?;
        frame.clear();
        self.gathered = frame;
        Ok(())
    }

    fn write_frame(&mut self, plain: &[u8]) -> Result<()> {
        if self.stage == Stage::Undecided {
            // Whether later frames shrink cannot be known; the first is a fair sample, and asking it is cheap.
            if !first_frame(plain, &mut self.scratch) {
                self.stage = Stage::Raw;
                return self.rows.push(plain, &mut self.sink);
            }
            self.stage = Stage::Frames;
        } else if !compress(plain, plain.len().saturating_sub(1), &mut self.scratch) {
            self.rows.push(plain, &mut self.sink)?;
            return self.table.push(entry(plain, true), &mut self.sink);
        }
        self.rows.push(&self.scratch, &mut self.sink)?;
        self.table.push(entry(&self.scratch, false), &mut self.sink)
    }

    /// Writes what is left, and tells what the payload has become.
    ///
    /// # Errors
    /// What the sink answers, or an earlier call gave.
    pub(crate) fn finish(mut self) -> Result<(S, Written)> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.stage != Stage::Holding && !self.gathered.is_empty() {
            self.write_gathered()?;
        }
        let (class, stored_length) = if self.stage == Stage::Holding {
            if !self.gathered.is_empty() {
                self.sink.put(0, Bytes::from(std::mem::take(&mut self.gathered)))?;
            }
            (ChunkClass::Contiguous, self.length)
        } else {
            self.rows.finish(&mut self.sink)?
        };
        self.table.finish(&mut self.sink)?;
        let codec = if self.stage == Stage::Frames { Codec::Zstd } else { Codec::Raw };
        let written = Written {
            length: self.length,
            hash: ContentHash(*self.hasher.finalize().as_bytes()),
            stored_length,
            codec: codec.number(),
            class: class.number(),
        };
        Ok((self.sink, written))
    }
}

/// Compresses the first frame of a payload, and tells whether the payload is to be compressed.
fn first_frame(plain: &[u8], scratch: &mut Vec<u8>) -> bool {
    plain.len() >= COMPRESSED_LENGTH_MIN
        && !is_noise(plain)
        && compress(plain, worthwhile(plain.len()), scratch)
}

fn entry(stored: &[u8], raw: bool) -> FrameEntry {
    // Never more than FRAME_LENGTH; were it more, no reader would take the entry.
    FrameEntry { stored_length: u32::try_from(stored.len()).unwrap_or(0), raw }
}

/// Cuts the stored stream into rows.
struct Rows {
    /// None until enough has come to choose.
    class: Option<ChunkClass>,
    size_hint: Option<u64>,
    pending: BytesMut,
    number: u64,
    stored_length: u64,
}

impl Rows {
    fn new(size_hint: Option<u64>) -> Self {
        let class = size_hint.map(ChunkClass::for_length);
        Self { class, size_hint, pending: BytesMut::new(), number: 0, stored_length: 0 }
    }

    /// Gives the length at which `pending` has a full row: or as much that they are chosen.
    fn target(&self) -> usize {
        in_memory(self.class.map_or(UNDECIDED_LENGTH_MAX + 1, ChunkClass::body_length))
    }

    fn push<S: ChunkSink>(&mut self, mut bytes: &[u8], sink: &mut S) -> Result<()> {
        while !bytes.is_empty() {
            let target = self.target();
            let wanted = target.saturating_sub(self.pending.len());
            let (now, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            if self.pending.is_empty() && self.class.is_some() {
                let expected =
                    self.size_hint.map_or(target, |hint| in_memory(hint.saturating_sub(self.stored_length)));
                self.pending.reserve(expected.min(target).max(now.len()));
            }
            self.pending.extend_from_slice(now);
            self.stored_length += now.len() as u64;
            bytes = rest;
            if self.pending.len() >= target {
                let class = *self.class.get_or_insert(ChunkClass::Mib1);
                self.put(in_memory(class.body_length()), sink)?;
            }
        }
        Ok(())
    }

    fn put<S: ChunkSink>(&mut self, length: usize, sink: &mut S) -> Result<()> {
        let body = self.pending.split_to(length.min(self.pending.len())).freeze();
        let number = self.number;
        self.number += 1;
        sink.put(number, body)
    }

    /// Cuts the tail. A stream that never grew so long that its rows had to be chosen is cut by its length.
    fn finish<S: ChunkSink>(&mut self, sink: &mut S) -> Result<(ChunkClass, u64)> {
        let class = self.class.unwrap_or(ChunkClass::for_length(self.stored_length));
        let layout = Layout { class, stored_length: self.stored_length };
        for chunk in layout.chunks_from(self.number) {
            self.put(in_memory(chunk.length), sink)?;
        }
        Ok((class, self.stored_length))
    }
}

/// Gathers the seek table; a payload of one frame gets none.
#[derive(Default)]
struct Table {
    frames: u64,
    rows: u64,
    row: BytesMut,
}

impl Table {
    fn push<S: ChunkSink>(&mut self, entry: FrameEntry, sink: &mut S) -> Result<()> {
        self.frames += 1;
        self.row.extend_from_slice(&entry.encode());
        if self.row.len() < SEEK_ROW_ENTRIES * SEEK_ENTRY_LENGTH { Ok(()) } else { self.put(sink) }
    }

    fn put<S: ChunkSink>(&mut self, sink: &mut S) -> Result<()> {
        let number = SEEK_TABLE_NUMBER + self.rows;
        self.rows += 1;
        sink.put(number, self.row.split().freeze())
    }

    fn finish<S: ChunkSink>(&mut self, sink: &mut S) -> Result<()> {
        if self.frames > 1 && !self.row.is_empty() { self.put(sink) } else { Ok(()) }
    }
}

/// Encodes a payload that is in memory; rows that are not compressed share its memory.
///
/// Gives the same rows as a [`PayloadWriter`] that was told the length.
pub(crate) fn encode_small(payload: &Bytes, compress: bool, contiguous: bool) -> Encoded {
    let length = payload.len() as u64;
    let mut chunks = Vec::new();
    let contiguous = contiguous && length <= CONTIGUOUS_LENGTH_MAX;
    let frames = if compress && !contiguous { compress_frames(payload, &mut chunks) } else { None };
    let class = if contiguous { ChunkClass::Contiguous } else { ChunkClass::for_length(length) };
    let codec = if frames.is_some() { Codec::Zstd } else { Codec::Raw };
    let stored = frames.as_ref().unwrap_or(payload);
    let layout = Layout { class, stored_length: stored.len() as u64 };
    chunks.extend(layout.chunks().map(|chunk| {
        let start = in_memory(chunk.offset);
        (chunk.number, stored.slice(start..start + in_memory(chunk.length)))
    }));
    let written = Written {
        length,
        hash: ContentHash::of(payload),
        stored_length: layout.stored_length,
        codec: codec.number(),
        class: class.number(),
    };
    Encoded { written, chunks }
}

/// Compresses all frames, and puts the seek table; None where the first frame says that it is not worth it.
fn compress_frames(payload: &Bytes, sink: &mut Vec<(u64, Bytes)>) -> Option<Bytes> {
    let mut scratch = Vec::new();
    let mut frames = payload.chunks(FRAME_LENGTH);
    if !first_frame(frames.next()?, &mut scratch) {
        return None;
    }
    let mut table = Table::default();
    let mut stored = BytesMut::from(scratch.as_slice());
    // A sink that is a vector never fails.
    table.push(entry(&scratch, false), sink).ok()?;
    for plain in frames {
        let raw = !compress(plain, plain.len().saturating_sub(1), &mut scratch);
        let frame = if raw { plain } else { &scratch };
        stored.extend_from_slice(frame);
        table.push(entry(frame, raw), sink).ok()?;
    }
    table.finish(sink).ok()?;
    Some(stored.freeze())
}

/// Writes all that a source gives, and tells how much it was.
///
/// # Errors
/// [`ErrorKind::Source`] where the source fails, with its error; an interrupted read is made again. What the
/// writer answers.
pub(crate) fn copy_from_reader<S: ChunkSink>(
    reader: &mut dyn Read,
    writer: &mut PayloadWriter<S>,
) -> Result<u64> {
    let mut buffer = vec![0; READ_LENGTH];
    let mut copied = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => {
                // A source that claims more than the buffer holds is held to the buffer.
                let read = buffer.get(..count).unwrap_or(&buffer);
                writer.write_all(read)?;
                copied += read.len() as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Error::new(ErrorKind::Source { after: writer.length() }).caused_by(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::super::layout::Chunk;
    use super::super::reader::tests::{noise, read_back, text};
    use super::*;

    fn spec(size_hint: Option<u64>) -> Spec {
        Spec { size_hint, ..Spec::default() }
    }

    fn write(payload: &[u8], spec: Spec, step: usize) -> (Vec<(u64, Bytes)>, Written) {
        let mut writer = PayloadWriter::new(Vec::new(), spec);
        payload.chunks(step).for_each(|piece| writer.write_all(piece).unwrap());
        writer.finish().unwrap()
    }

    fn sorted(mut chunks: Vec<(u64, Bytes)>) -> Vec<(u64, Bytes)> {
        chunks.sort_by_key(|chunk| chunk.0);
        chunks
    }

    #[test]
    fn rows_are_those_of_the_layout() {
        for length in [0, 1, 4_064, 65_504, 65_536, 300_000, 1 << 20, (1 << 20) + 1, 3_000_000] {
            for hint in [None, Some(length as u64), Some(0), Some(u64::MAX)] {
                let payload = noise(length);
                let (chunks, written) = write(&payload, spec(hint), 70_000);
                let class = ChunkClass::from_number(written.class).unwrap();
                let expected: Vec<Chunk> = Layout { class, stored_length: length as u64 }.chunks().collect();
                assert_eq!(chunks.len(), expected.len());
                for (chunk, (number, body)) in expected.iter().zip(&chunks) {
                    assert_eq!((chunk.number, chunk.length), (*number, body.len() as u64));
                }
                assert_eq!(written.hash, ContentHash::of(&payload));
                let all: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.1.to_vec()).collect();
                assert_eq!(all, payload);
            }
        }
    }

    #[test]
    fn the_hint_chooses_the_class() {
        let class = |hint, length| write(&noise(length), spec(hint), 1 << 16).1.class;
        assert_eq!((class(Some((256 << 10) - 1), 10), class(Some(256 << 10), 10)), (2, 3));
        assert_eq!((class(Some(16 << 20), 10), class(Some((16 << 20) + 1), 10)), (3, 4));
        assert_eq!((class(None, (256 << 10) - 1), class(None, 1 << 20)), (2, 3));
        assert_eq!(class(None, (1 << 20) + 1), 4);
    }

    #[test]
    fn a_payload_in_memory_gives_the_rows_of_a_stream() {
        let mut mixed = text(300_000);
        mixed.extend(noise(300_000));
        mixed.extend(text(700_000));
        for payload in [vec![], text(255), text(256), noise(256), text(FRAME_LENGTH), noise(600_000), mixed] {
            let payload = Bytes::from(payload);
            for (compress, contiguous) in [(false, false), (true, false), (false, true), (true, true)] {
                let size_hint = Some(payload.len() as u64);
                let streamed = write(&payload, Spec { size_hint, compress, contiguous, limit: None }, 50_001);
                let encoded = encode_small(&payload, compress, contiguous);
                assert_eq!(streamed.1, encoded.written);
                assert_eq!(sorted(streamed.0), sorted(encoded.chunks));
            }
        }
    }

    #[test]
    fn rows_of_a_payload_in_memory_share_it() {
        let payload = Bytes::from(noise(200_000));
        let range = payload.as_ptr_range();
        for contiguous in [false, true] {
            let encoded = encode_small(&payload, true, contiguous);
            assert_eq!(
                encoded.chunks.len(),
                if contiguous {
                    1
                } else {
                    Layout { class: ChunkClass::Kib64, stored_length: 200_000 }.chunks().count()
                }
            );
            assert!(encoded.chunks.iter().all(|chunk| range.contains(&chunk.1.as_ptr())));
        }
    }

    #[test]
    fn only_what_shrinks_by_an_eighth_is_compressed() {
        let codec = |payload: Vec<u8>| encode_small(&Bytes::from(payload), true, false).written.codec;
        assert_eq!((codec(text(255)), codec(text(256))), (0, 1));
        assert_eq!((codec(noise(100_000)), codec(text(100_000))), (0, 1));
        let mut nearly = noise(90_000);
        nearly.extend(text(10_000));
        assert_eq!(codec(nearly), 0);
        let mut worth = noise(80_000);
        worth.extend(text(20_000));
        assert_eq!(codec(worth), 1);
    }

    #[test]
    fn one_frame_has_no_seek_table_and_two_have_one() {
        let rows = |length| {
            let chunks = encode_small(&Bytes::from(text(length)), true, false).chunks;
            chunks.into_iter().filter(|chunk| chunk.0 >= SEEK_TABLE_NUMBER).collect::<Vec<_>>()
        };
        assert!(rows(FRAME_LENGTH).is_empty());
        let table = rows(FRAME_LENGTH + 1);
        assert_eq!((table.len(), table[0].0, table[0].1.len()), (1, SEEK_TABLE_NUMBER, 8));
        // The last frame is one byte, which does not shrink.
        assert_eq!(table[0].1[4..], [1, 0, 0, 0x80]);
    }

    #[test]
    fn full_rows_of_the_seek_table_leave_at_once() {
        let mut table = Table::default();
        let mut rows = Vec::new();
        for length in (0..).take(SEEK_ROW_ENTRIES + 2) {
            table.push(FrameEntry { stored_length: length + 1, raw: false }, &mut rows).unwrap();
        }
        assert_eq!((rows.len(), rows[0].1.len()), (1, 65_504));
        table.finish(&mut rows).unwrap();
        assert_eq!((rows[1].0, rows[1].1.len()), (SEEK_TABLE_NUMBER + 1, 8));
    }

    #[test]
    fn a_contiguous_payload_that_grows_too_long_is_cut() {
        let payload = text(in_memory(CONTIGUOUS_LENGTH_MAX) + 1);
        for compress in [false, true] {
            for size_hint in [None, Some(payload.len() as u64), Some(10)] {
                let spec = Spec { size_hint, compress, contiguous: true, limit: None };
                let (chunks, written) = write(&payload, spec, 3 << 20);
                assert_ne!(written.class, ChunkClass::Contiguous.number());
                assert_eq!(read_back(&chunks, &written), payload);
            }
        }
        let (chunks, written) = write(&payload[1..], Spec { contiguous: true, ..Spec::default() }, 1 << 20);
        assert_eq!((chunks.len(), written.class, written.codec), (1, 1, 0));
    }

    #[test]
    fn the_limit_is_kept_to_the_byte_and_the_error_stays() {
        let limit = Some((100, "images/**".to_owned()));
        let mut writer = PayloadWriter::new(Vec::new(), Spec { limit: limit.clone(), ..Spec::default() });
        writer.write_all(&[0; 60]).unwrap();
        writer.write_all(&[0; 40]).unwrap();
        let expected = ErrorKind::BinaryTooLarge { size: 101, limit: 100, by: "images/**".to_owned() };
        assert_eq!(writer.write_all(&[0]).unwrap_err().kind(), &expected);
        assert_eq!(writer.write_all(&[]).unwrap_err().kind(), &expected);
        assert_eq!(writer.finish().err().unwrap().kind(), &expected);

        let mut writer = PayloadWriter::new(Vec::new(), Spec { limit, ..Spec::default() });
        writer.write_all(&[0; 100]).unwrap();
        assert_eq!(writer.finish().unwrap().1.length, 100);
    }

    #[test]
    fn a_sink_that_fails_fails_the_writer_for_good() {
        struct Full(u64);
        impl ChunkSink for Full {
            fn put(&mut self, number: u64, _: Bytes) -> Result<()> {
                if number < self.0 { Ok(()) } else { Err(ErrorKind::no_room("rows").into()) }
            }
        }
        let mut writer = PayloadWriter::new(Full(1), spec(Some(200_000)));
        writer.write_all(&noise(70_000)).unwrap();
        assert!(writer.write_all(&noise(70_000)).is_err());
        assert!(writer.write_all(&[1]).is_err());
        assert!(matches!(writer.finish().err().unwrap().kind(), ErrorKind::StoreFull { .. }));
    }

    /// Gives its bytes, interrupted before each read, and then fails.
    struct Source<'a> {
        rest: &'a [u8],
        interrupted: bool,
        end: Option<io::ErrorKind>,
    }

    impl Read for Source<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match (self.rest.is_empty(), self.end) {
                (true, Some(kind)) => Err(kind.into()),
                _ => self.rest.read(&mut buffer[..1000]),
            }
        }
    }

    #[test]
    fn a_source_is_copied_through_interruptions_and_its_failure_told() {
        let payload = text(10_500);
        let mut source = Source { rest: &payload, interrupted: false, end: None };
        let mut writer = PayloadWriter::new(Vec::new(), Spec::default());
        assert_eq!(copy_from_reader(&mut source, &mut writer).unwrap(), 10_500);
        assert_eq!(writer.finish().unwrap().1.hash, ContentHash::of(&payload));

        let mut source = Source { rest: &payload, interrupted: false, end: Some(io::ErrorKind::BrokenPipe) };
        let mut writer = PayloadWriter::new(Vec::new(), Spec::default());
        let error = copy_from_reader(&mut source, &mut writer).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Source { after: 10_500 });
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_written_reads_back(
            pieces in prop::collection::vec((any::<bool>(), 0_usize..400_000), 0..5),
            hint in prop::option::of(0_u64..40_000_000),
            compress: bool,
            contiguous: bool,
            step in 1_usize..500_000,
        ) {
            let payload: Vec<u8> =
                pieces.iter().flat_map(|(plain, length)| if *plain { text(*length) } else { noise(*length) }).collect();
            let step = step.max(payload.len() / 1000).max(1);
            let spec = Spec { size_hint: hint, compress, contiguous, limit: None };
            let (chunks, written) = write(&payload, spec, step);
            prop_assert_eq!(written.hash, ContentHash::of(&payload));
            prop_assert_eq!(read_back(&chunks, &written), payload);
        }
    }
}
