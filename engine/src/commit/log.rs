//! The commit log, as it is written: write-sets are gathered into batches, batches fill two segments in turn.
//!
//! ```text
//! block 0        segment 0                       segment 1
//! +--------+-------------------------------+-------------------------------+
//! | header | batch | batch | ...           | batch | ...                   |
//! +--------+-------------------------------+-------------------------------+
//! ```
//!
//! Invariants
//! 1. A batch is written in one go, into blocks that no other batch of this turn has touched. What is carried together
//!    is in one batch, whole: it is refused whole, too.
//! 2. A segment is begun anew only after everything in it is durable in the store.
//! 3. What is written next to the end has been written before, as zeros: a sync then has no new blocks to note.
//!
//! The file is made with the first batch, and the store says on disk that it is in use before that is written.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::{BATCH_HEADER_LENGTH, BatchHeader, LOG_BLOCK, LogFileHeader, StateIdentity, WriteSet};
use rkyv::util::AlignedVec;

use super::Accepted;
use crate::clock::IdSource;
use crate::error::{ErrorKind, Result};
use crate::larder::InputOutput;
use crate::store::{LogFile, Position, Store};

/// What was gathered is written without waiting for a sync before it grows to more than this; and so is a batch that is
/// longer. In bytes.
const GATHERED_MAX: usize = 1 << 20;
/// How much is written ahead as zeros at first, in bytes; later as much as there is already, up to the most.
const AHEAD_MIN: u64 = 256 << 10;
const AHEAD_MAX: u64 = 4 << 20;

/// What comes behind a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A sync.
    Sync,
    /// More batches.
    More,
}

/// What became of write-sets that were handed to the log together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    /// They are in the log, and on disk after the next sync.
    Done,
    /// There is room only when what lies in the other segment is durable in the store.
    Full,
}

/// A log that can be written to.
pub(super) struct Log {
    ids: Arc<dyn IdSource>,
    /// The length of each of the two segments, in bytes.
    segment_length: u64,
    open: Option<OpenLog>,
    /// Whether making the file was tried, and failed.
    is_begun: bool,
    gathered: Gathered,
    /// The last write-set that was handed over, and the last that is on disk, here or in the store.
    appended: u64,
    synced: u64,
    /// Up to here everything is durable in the store.
    checkpointed: u64,
}

/// A batch under construction: room for its header, then its write-sets.
struct Gathered {
    bytes: AlignedVec<LOG_BLOCK>,
    count: u32,
    first: u64,
    base: StateIdentity,
}

impl Default for Gathered {
    fn default() -> Self {
        let mut gathered =
            Self { bytes: AlignedVec::new(), count: 0, first: 0, base: StateIdentity::default() };
        gathered.begin();
        gathered
    }
}

impl Gathered {
    /// Begins anew, with room for the header.
    fn begin(&mut self) {
        if self.bytes.capacity() > 2 * GATHERED_MAX {
            self.bytes = AlignedVec::new();
        }
        self.bytes.clear();
        self.bytes.resize(BATCH_HEADER_LENGTH, 0);
        self.count = 0;
    }

    /// How much room it takes, if there is anything in it.
    fn length_in_blocks(&self) -> u64 {
        if self.count == 0 { 0 } else { in_blocks(self.bytes.len()) }
    }

    fn write_sets(&self) -> Result<Vec<(Position, WriteSet)>> {
        let bytes = self.bytes.get(BATCH_HEADER_LENGTH..).unwrap_or_default();
        let (mut rest, mut found) = (Bytes::copy_from_slice(bytes), Vec::new());
        while let Some(write_set) = super::recovery::split_write_set(&mut rest) {
            let header = write_set.header()?;
            let (sequence, time, identity) = (header.sequence, header.time, write_set.identity());
            found.push((Position { sequence, time, identity }, write_set));
        }
        Ok(found)
    }
}

struct OpenLog {
    file: Arc<LogFile>,
    header: LogFileHeader,
    generation: u64,
    /// The segment whose turn it is, and the one whose turn it was.
    active: Segment,
    other: Segment,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    /// Where it begins in the file.
    begin: u64,
    /// Where its next batch goes.
    at: u64,
    /// Where it ends.
    end: u64,
    /// Up to where it was written before, be it as zeros.
    written: u64,
    /// The last write-set in it.
    last: u64,
}

impl Segment {
    fn number(number: u64, length: u64) -> Self {
        let begin = LOG_BLOCK as u64 + number * length;
        Self { begin, end: begin + length, at: begin, written: begin, last: 0 }
    }

    fn room(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// Writes zeros ahead, from `from` on, up to which all was written or is about to be.
    fn write_ahead(&mut self, file: &LogFile, from: u64) -> Result<()> {
        let step = (from - self.begin).clamp(AHEAD_MIN, AHEAD_MAX);
        let upto = (from + step).min(self.end);
        let zeros = vec![0; usize::try_from(upto - from).unwrap_or(0)];
        file.write(from, &zeros)?;
        self.written = upto;
        Ok(())
    }
}

impl Log {
    /// A log of which nothing is on disk yet, for a store that ends at `head`.
    pub(super) fn new(head: &Position, ids: Arc<dyn IdSource>, segment_length: u64) -> Self {
        Self {
            ids,
            segment_length,
            open: None,
            is_begun: false,
            gathered: Gathered::default(),
            appended: head.sequence,
            synced: head.sequence,
            checkpointed: head.sequence,
        }
    }

    /// Makes the file, if there is none.
    pub(super) fn begin(&mut self, store: &Store) -> Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        if std::mem::replace(&mut self.is_begun, true) {
            // A try that failed may have left a file, and that it is in use.
            if store.log_in_use()?.is_some() {
                store.set_log_in_use(None)?;
            }
            store.beside().clear_away()?;
        }
        self.open = Some(OpenLog::make(store, self.ids.as_ref(), self.segment_length)?);
        self.is_begun = false;
        Ok(())
    }

    /// Takes write-sets that are carried together and follow on what it has: all of them, or none.
    pub(super) fn append(&mut self, store: &Store, carried: &[Accepted]) -> Result<Appended> {
        let (Some(first), Some(last)) = (carried.first(), carried.last()) else { return Ok(Appended::Done) };
        let length: usize = carried.iter().map(|accepted| accepted.write_set.as_bytes().len()).sum();
        self.begin(store)?;
        let Some(open) = &mut self.open else { return Err(ErrorKind::Closed.into()) };
        let needed = self.gathered.length_in_blocks() + in_blocks(BATCH_HEADER_LENGTH + length);
        let is_room = needed <= open.active.room();
        if !is_room && open.other.last > self.checkpointed {
            return Ok(Appended::Full);
        }
        if !is_room || self.gathered.bytes.len() + length > GATHERED_MAX {
            open.write(&mut self.gathered, self.appended, self.synced, Next::More)?;
        }
        if !is_room {
            open.take_turns();
        }
        if self.gathered.count == 0 {
            (self.gathered.first, self.gathered.base) = (first.info.sequence, first.base);
        }
        for accepted in carried {
            self.gathered.count += 1;
            self.gathered.bytes.extend_from_slice(accepted.write_set.as_bytes());
        }
        let before = std::mem::replace(&mut self.appended, last.info.sequence);
        if self.gathered.bytes.len() > GATHERED_MAX {
            // It is alone in there. Without room for it, it is refused before anybody sees it.
            if let Err(error) = open.write(&mut self.gathered, self.appended, self.synced, Next::More) {
                self.gathered.begin();
                self.appended = before;
                return Err(error);
            }
        }
        Ok(Appended::Done)
    }

    /// Writes what was gathered, and gives what has to be synced, and up to which write-set it is then on disk.
    /// Nothing if everything is.
    pub(super) fn write_out(&mut self) -> Result<Option<(Arc<LogFile>, u64)>> {
        if self.synced >= self.appended {
            return Ok(None);
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        open.write(&mut self.gathered, self.appended, self.synced, Next::Sync)?;
        Ok(Some((Arc::clone(&open.file), self.appended)))
    }

    /// Says that what was written up to here is on disk.
    pub(super) fn note_synced(&mut self, upto: u64) {
        self.synced = self.synced.max(upto);
    }

    /// Says that everything up to here is durable in the store.
    pub(super) fn note_checkpoint(&mut self, upto: u64) {
        self.checkpointed = self.checkpointed.max(upto);
        self.synced = self.synced.max(upto);
    }

    /// Says that the store went ahead without the log.
    pub(super) fn skip_to(&mut self, sequence: u64) {
        self.gathered = Gathered::default();
        self.appended = sequence;
        self.note_checkpoint(sequence);
    }

    /// Up to which write-set everything has to be durable in the store before the segment can be used again whose turn it was;
    /// nothing if it is free.
    pub(super) fn waits_for(&self) -> Option<u64> {
        let open = self.open.as_ref()?;
        (open.other.last > self.checkpointed).then_some(open.other.last)
    }

    /// Tells how soon a checkpoint has to come, before there is nowhere to write: from 0 where half of the way to that is done
    /// to 1 at its end; nothing if there is no hurry.
    pub(super) fn pressure(&self) -> Option<f64> {
        let half = self.segment_length as f64 / 2.0;
        let room = self.open.as_ref()?.active.room() as f64;
        self.waits_for().filter(|_| room < half).map(|_| 1.0 - room / half)
    }

    /// Writes ahead what the next batches will be written over. For those who are in no hurry.
    pub(super) fn write_ahead(&mut self) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let active = &mut open.active;
        let (used, ahead) = (active.at - active.begin, active.written.saturating_sub(active.at));
        if active.written < active.end && ahead < used.clamp(AHEAD_MIN / 2, AHEAD_MAX / 2) {
            active.write_ahead(&open.file, active.written)?;
        }
        Ok(())
    }

    /// Adds what was done with the file to what was done with the store's.
    pub(super) fn count(&self, input_output: &mut InputOutput) {
        let Some(open) = &self.open else { return };
        let state = open.file.state();
        input_output.log_writes = state.writes();
        input_output.log_bytes_written = state.bytes_written();
        input_output.log_syncs = state.syncs();
        input_output.is_full |= state.is_full();
        let used =
            |segment: &Segment| if segment.last > self.checkpointed { segment.at - segment.begin } else { 0 };
        input_output.log_bytes = used(&open.active) + used(&open.other);
    }

    /// Tells whether a sync of the file failed: the last one, then.
    pub(super) fn has_failed_sync(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.file.state().failed_sync().is_some())
    }

    /// Gives the last write-set that is known to be on disk.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Gives the last write-set that was handed over.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// Gives the file, and what it says of itself, if there is one.
    pub(super) fn file(&self) -> Option<(&LogFile, &LogFileHeader)> {
        self.open.as_ref().map(|open| (open.file.as_ref(), &open.header))
    }

    /// Gives the write-sets that were gathered, and not written, after a position.
    pub(super) fn gathered_after(&self, end: &Position) -> Result<Vec<(Position, WriteSet)>> {
        let mut gathered = self.gathered.write_sets()?;
        gathered.retain(|(position, _)| position.sequence > end.sequence);
        Ok(gathered)
    }

    /// Forgets what was gathered after a write-set: it was refused.
    pub(super) fn cut(&mut self, last: u64) -> Result<()> {
        let mut kept = self.gathered.write_sets()?;
        kept.retain(|(position, _)| position.sequence <= last);
        let length: usize = kept.iter().map(|(_, write_set)| write_set.as_bytes().len()).sum();
        self.gathered.count = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        self.gathered.bytes.resize(BATCH_HEADER_LENGTH + length, 0);
        self.appended = self.appended.min(last);
        Ok(())
    }

    /// Forgets everything: the store has all up to here, and there is no file any more.
    pub(super) fn start_over(&mut self, sequence: u64) {
        self.open = None;
        self.gathered = Gathered::default();
        (self.appended, self.synced, self.checkpointed) = (sequence, sequence, sequence);
    }

    /// Lets go of the file.
    pub(super) fn release(&mut self) {
        self.open = None;
    }
}

impl OpenLog {
    fn make(store: &Store, ids: &dyn IdSource, segment_length: u64) -> Result<Self> {
        let header = LogFileHeader {
            store_id: store.identity().store_id,
            log_id: ids.next_id().to_be_bytes(),
            process: std::process::id(),
            segment_length,
        };
        let mut bytes = header.encode();
        bytes.resize(bytes.len() + usize::try_from(AHEAD_MIN).unwrap_or(0), 0);
        let file = store.beside().make(store.path().as_deref(), &bytes, header.length())?;
        store.set_log_in_use(Some(header.log_id))?;
        let (mut active, other) = (Segment::number(0, segment_length), Segment::number(1, segment_length));
        active.written += AHEAD_MIN;
        Ok(Self { file: Arc::new(file), header, generation: 1, active, other })
    }

    /// Writes a batch, if there is one.
    fn write(&mut self, gathered: &mut Gathered, last: u64, synced: u64, next: Next) -> Result<()> {
        if gathered.count == 0 {
            return Ok(());
        }
        let body = gathered.bytes.get(BATCH_HEADER_LENGTH..).unwrap_or_default();
        let header = BatchHeader {
            count: gathered.count,
            generation: self.generation,
            store_id: self.header.store_id,
            log_id: self.header.log_id,
            length: body.len() as u64,
            first: gathered.first,
            last,
            synced,
            base: gathered.base,
            checksum: BatchHeader::checksum_of(body),
        };
        for (to, from) in gathered.bytes.iter_mut().zip(header.encode()) {
            *to = from;
        }
        let length = gathered.bytes.len();
        gathered.bytes.resize(length.next_multiple_of(LOG_BLOCK), 0);
        let written = self.write_blocks(&gathered.bytes, next);
        // If it is tried again, what comes meanwhile has to follow on the last write-set.
        gathered.bytes.resize(length, 0);
        if written.is_err() {
            // As much as was written may be all that is not zero. It is refused, so it must not come up after a crash; its first
            // block was written before, and takes no room.
            let _ = self.file.write(self.active.at, &[0; LOG_BLOCK]);
        }
        written?;
        self.active.last = last;
        gathered.begin();
        Ok(())
    }

    fn write_blocks(&mut self, blocks: &[u8], next: Next) -> Result<()> {
        let end = self.active.at + blocks.len() as u64;
        if end > self.active.written {
            self.active.write_ahead(&self.file, end)?;
        }
        match next {
            Next::Sync => self.file.write_to_sync(self.active.at, blocks)?,
            Next::More => self.file.write(self.active.at, blocks)?,
        }
        self.active.at = end;
        Ok(())
    }

    /// Begins the other segment anew.
    fn take_turns(&mut self) {
        std::mem::swap(&mut self.active, &mut self.other);
        self.active.at = self.active.begin;
        self.generation += 1;
    }
}

/// Tells whether a write-set fits into a segment of this length at all.
pub(super) fn takes(segment_length: u64, write_set: &WriteSet) -> bool {
    in_blocks(write_set.as_bytes().len() + BATCH_HEADER_LENGTH) <= segment_length
}

fn in_blocks(length: usize) -> u64 {
    length.next_multiple_of(LOG_BLOCK) as u64
}
