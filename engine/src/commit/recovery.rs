//! What a crash left in the commit log, read back when the store is opened.
//!
//! The batches of the two segments form one chain, the older segment first. What of it the store does not have yet
//! is applied. Where the chain ends there may be torn batches, which nobody was told of: they are discarded. But
//! every batch also says up to which commit the log was on disk before it was written; where the chain ends
//! before the greatest of these, something that was acknowledged has been lost, and that is an error.

use std::path::Path;

use bytes::Bytes;
use larder_format::{BatchHeader, LOG_BLOCK, LogError, LogFileHeader, WriteSet};

use super::{CommitInfo, count_within};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Beside, LogFile, Position, Store};

/// How much is applied in one go, in bytes: all that a log of the usual length holds, so that every page is met once.
const APPLIED_AT_ONCE: usize = 64 << 20;

/// What was found beside the store when it was opened, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The last commit that was in the store itself.
    pub found: CommitInfo,
    /// How many commits were taken from the log.
    pub replayed: u64,
    /// The last commit after that.
    pub last_commit: CommitInfo,
    /// How many bytes of batches were left out that had not been written to their end; none of them had been
    /// acknowledged as being on disk.
    pub torn_bytes: u64,
    /// Where a log went that was given up, as [`Options::discard_log`](crate::Options::discard_log) asks for.
    pub discarded: Option<String>,
}

/// Brings the store to where the log ends.
pub(super) fn recover(store: &Store, discard: bool) -> Result<Option<RecoveryReport>> {
    let in_use = store.log_in_use()?;
    let log = store.beside().open(store.is_read_only())?;
    if in_use.is_none() && log.is_none() {
        return Ok(None);
    }
    let head = store.view()?.head()?;
    let mut report = RecoveryReport {
        found: head.into(),
        replayed: 0,
        last_commit: head.into(),
        torn_bytes: 0,
        discarded: None,
    };
    let found = log.as_ref().map(|log| Found::read(store, log, in_use.as_ref(), &head)).transpose();
    drop(log);
    let found = match found {
        Ok(Some(found)) if found.loss.is_none() || discard => found,
        Ok(Some(Found { loss: Some(loss), .. })) => return Err(loss),
        Ok(None) if !discard => {
            return Err(ErrorKind::LogMissing { path: store.beside().name() }.into());
        }
        Err(error) if !discard => return Err(error),
        // Nothing of the log can be used.
        Ok(_) | Err(_) => Found::default(),
    };
    let end = apply(store, &found, head)?;
    report.replayed = end.sequence.saturating_sub(head.sequence);
    report.last_commit = end.into();
    report.torn_bytes = found.torn_bytes;
    if store.is_read_only() {
        return Ok(Some(report));
    }
    // From here on the store has everything. What comes next may be cut short: the next open does it again.
    store.set_log_in_use(None)?;
    if found.loss.is_some() || (discard && !found.is_ours) {
        if store.beside().open(false).is_ok_and(|log| log.is_some()) {
            report.discarded = Some(store.beside().set_aside()?);
        }
    } else {
        store.beside().remove()?;
    }
    let is_silent = in_use.is_none() && report.discarded.is_none();
    Ok((!is_silent).then_some(report))
}

/// Reads what a log has that follows a position, whether or not it was synced.
pub(super) fn write_sets_after(
    log: &LogFile,
    header: &LogFileHeader,
    at: &Position,
) -> Result<Vec<(Position, WriteSet)>> {
    let mut found = Found::default();
    found.follow(&Chain::read(&Bytes::from(log.read_all()?), header), *at)?;
    Ok(found.write_sets)
}

/// Reads the write-sets of the commit log beside a file, in order, whatever the file is like; as far as they can be read.
pub(crate) fn write_sets_in(store: &Path) -> Result<Vec<WriteSet>> {
    let Some(log) = Beside::of(store)?.open(true)? else { return Ok(Vec::new()) };
    let bytes = Bytes::from(log.read_all()?);
    let Ok(header) = LogFileHeader::decode(&bytes) else { return Ok(Vec::new()) };
    let mut write_sets = Vec::new();
    for batch in Chain::read(&bytes, &header).batches {
        let mut rest = batch.body;
        write_sets.extend(std::iter::from_fn(|| split_write_set(&mut rest)));
    }
    Ok(write_sets)
}

/// Applies what the store does not have; gives where it then ends.
fn apply(store: &Store, found: &Found, head: Position) -> Result<Position> {
    let mut end = head;
    let mut rest = found.write_sets.as_slice();
    while !rest.is_empty() {
        let count = count_within(rest.iter().map(|(_, write_set)| write_set), APPLIED_AT_ONCE);
        let (now, later) = rest.split_at(count);
        if let Some((last, _)) = now.last() {
            let write_sets: Vec<&WriteSet> = now.iter().map(|(_, write_set)| write_set).collect();
            store.apply(&write_sets, last, false)?;
            end = *last;
        }
        rest = later;
    }
    Ok(end)
}

/// What can be used of a log.
#[derive(Default)]
struct Found {
    /// What the store does not have, in order, with the state after each.
    write_sets: Vec<(Position, WriteSet)>,
    torn_bytes: u64,
    /// What is missing that should be there.
    loss: Option<Error>,
    is_ours: bool,
}

impl Found {
    fn read(store: &Store, log: &LogFile, in_use: Option<&[u8; 16]>, head: &Position) -> Result<Self> {
        let diverged = |what: String| Error::from(ErrorKind::LogDiverged { what });
        let bytes = Bytes::from(log.read_all()?);
        let header = match LogFileHeader::decode(&bytes) {
            Ok(header) => header,
            // One that was begun and not finished; its name alone could not have told.
            Err(_) if in_use.is_none() && bytes.iter().all(|byte| *byte == 0) => {
                return Ok(Self { is_ours: true, ..Self::default() });
            }
            Err(LogError::Version { found }) => {
                let max = larder_format::LOG_VERSION;
                return Err(ErrorKind::UnsupportedVersion { found, max }.into());
            }
            Err(error) => return Err(diverged(format!("{}: {error}", store.beside().name()))),
        };
        if header.store_id != store.identity().store_id {
            return Err(diverged("it is that of another file".to_owned()));
        }
        if in_use.is_some_and(|id| *id != header.log_id) {
            return Err(diverged("it was begun at another time, or beside a copy of this file".to_owned()));
        }
        let chain = Chain::read(&bytes, &header);
        let mut found = Self { is_ours: true, ..Self::default() };
        if in_use.is_none() {
            // It was in use no more, or not yet: all that it has, the store has.
            return match chain.batches.iter().map(|batch| batch.header.last).max() {
                Some(last) if last > head.sequence => Err(diverged(format!(
                    "it goes up to commit {last}, the file ends at commit {} and was closed there",
                    head.sequence
                ))),
                _ => Ok(found),
            };
        }
        found.follow(&chain, *head)?;
        let (length, made) = (bytes.len() as u64, header.length());
        if length < made && found.loss.is_none() {
            found.loss = Some(diverged(format!("it was cut off: it has {length} of {made} bytes")));
        }
        Ok(found)
    }

    /// Collects what follows the store's own end.
    fn follow(&mut self, chain: &Chain, head: Position) -> Result<()> {
        let mut end = head;
        'chain: for batch in &chain.batches {
            if batch.header.last <= end.sequence {
                continue;
            }
            if batch.header.first > end.sequence + 1 {
                break;
            }
            let mut rest = batch.body.clone();
            for _ in 0..batch.header.count {
                let Some(write_set) = split_write_set(&mut rest) else { break 'chain };
                let header = write_set.header()?;
                if header.sequence <= end.sequence {
                    continue;
                }
                if header.sequence != end.sequence + 1 {
                    break 'chain;
                }
                if header.base != end.identity {
                    let what =
                        format!("commit {} in it builds on another state than the file's", header.sequence);
                    self.loss = Some(ErrorKind::LogDiverged { what }.into());
                    break 'chain;
                }
                end =
                    Position { sequence: header.sequence, time: header.time, identity: write_set.identity() };
                self.write_sets.push((end, write_set));
            }
        }
        if self.loss.is_none() && chain.synced > end.sequence {
            self.loss = Some(match chain.batches.first() {
                Some(first) if first.header.first > head.sequence + 1 => {
                    let (first, last) = (first.header.first, head.sequence);
                    let what = format!("it begins at commit {first}, and the file ends at commit {last}");
                    ErrorKind::LogDiverged { what }.into()
                }
                _ => ErrorKind::LogDamaged { readable: end.sequence, synced: chain.synced }.into(),
            });
        }
        self.torn_bytes = chain.torn_bytes;
        Ok(())
    }
}

struct Batch {
    header: BatchHeader,
    body: Bytes,
}

/// The batches that can be read, in the order in which they were written.
#[derive(Default)]
struct Chain {
    batches: Vec<Batch>,
    /// The last commit that some batch says was on disk before it.
    synced: u64,
    /// The length of batches that begin well and do not end so.
    torn_bytes: u64,
}

impl Chain {
    fn read(bytes: &Bytes, header: &LogFileHeader) -> Self {
        let segment_length = usize::try_from(header.segment_length).unwrap_or(usize::MAX);
        let begin =
            |number: usize| LOG_BLOCK.saturating_add(segment_length.saturating_mul(number)).min(bytes.len());
        let segments = [bytes.slice(begin(0)..begin(1)), bytes.slice(begin(1)..begin(2))];
        // Wherever a batch begins, whether or not what leads there can be read.
        let headers: Vec<Vec<(usize, BatchHeader)>> = segments
            .iter()
            .map(|segment| {
                (0..segment.len())
                    .step_by(LOG_BLOCK)
                    .filter_map(|at| Some((at, header_at(segment, at, header)?)))
                    .collect()
            })
            .collect();
        let newest = headers.iter().flatten().map(|(_, batch)| batch.generation).max().unwrap_or(0);
        let is_current = |batch: &BatchHeader| batch.generation + 1 >= newest;
        let synced = headers
            .iter()
            .flatten()
            .filter(|(_, batch)| is_current(batch))
            .map(|(_, batch)| batch.synced)
            .max()
            .unwrap_or(0);
        let mut chain = Self { synced, ..Self::default() };
        let mut runs: Vec<(u64, &Bytes)> = segments
            .iter()
            .filter_map(|segment| Some((header_at(segment, 0, header)?.generation, segment)))
            .filter(|(generation, _)| generation + 1 >= newest)
            .collect();
        runs.sort_by_key(|(generation, _)| *generation);
        for (generation, segment) in runs {
            chain.walk(segment, generation, header);
        }
        chain
    }

    /// Reads a segment from its beginning as far as its batches follow one another.
    fn walk(&mut self, segment: &Bytes, generation: u64, header: &LogFileHeader) {
        let mut at = 0;
        while let Some(batch) = header_at(segment, at, header).filter(|batch| batch.generation == generation)
        {
            let body_at = at + larder_format::BATCH_HEADER_LENGTH;
            let body_end = usize::try_from(batch.length).ok().and_then(|length| body_at.checked_add(length));
            let body = body_end.filter(|end| *end <= segment.len()).map(|end| segment.slice(body_at..end));
            match body.filter(|body| BatchHeader::checksum_of(body) == batch.checksum) {
                Some(body) => self.batches.push(Batch { header: batch, body }),
                None => {
                    self.torn_bytes += batch.length;
                    return;
                }
            }
            let length = batch.length_in_file().and_then(|length| usize::try_from(length).ok());
            let Some(next) = length.and_then(|length| at.checked_add(length)) else { return };
            at = next;
        }
    }
}

fn header_at(segment: &Bytes, at: usize, log: &LogFileHeader) -> Option<BatchHeader> {
    let header = BatchHeader::decode(segment.get(at..)?).ok()?;
    (header.store_id == log.store_id && header.log_id == log.log_id).then_some(header)
}

/// Takes the first write-set off the front.
pub(super) fn split_write_set(rest: &mut Bytes) -> Option<WriteSet> {
    let length = WriteSet::length_at(rest)?;
    (length <= rest.len()).then(|| rest.split_to(length)).and_then(|bytes| WriteSet::decode(bytes).ok())
}
