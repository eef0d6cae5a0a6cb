//! A disk in memory that can fail, freeze, and tell what a crash would leave.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use larder::{Error, Larder, Options, Storage};
use parking_lot::Mutex;

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// From this write, set-length or sync on, counted from 0, every call fails: the machine is gone.
    pub freeze_at: Option<u64>,
    /// A call that fails.
    pub fault: Option<Fault>,
    /// How many bytes the disk has, for both files and what is kept for them. Counted in blocks that were written.
    pub capacity: Option<u64>,
    /// Whether the disk does not say how much room it has.
    pub is_room_secret: bool,
    /// Whether what is done is remembered.
    pub is_recorded: bool,
    /// A lie that the disk tells.
    pub lie: Option<Lie>,
}

/// What a disk is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To set the length of a file.
    SetLength,
    /// To sync a file.
    Sync,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::SetLength, Self::Sync];
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// With an error of the device.
    Device,
    /// For want of room.
    Full,
    /// For want of room, after half of the blocks that were to be written.
    FullHalfWay,
    /// For want of room, when only the last byte was still to be written: no file system does it, but a storage may.
    FullAtTheEnd,
    /// With a panic: it is the application's code.
    Panic,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Device, Self::Full, Self::FullHalfWay, Self::FullAtTheEnd, Self::Panic];

    fn error(self) -> io::Error {
        let kind = match self {
            // As a panic does, and without a word on the standard error output.
            Self::Panic => std::panic::resume_unwind(Box::new("the disk panics")),
            Self::Device => io::ErrorKind::Other,
            Self::Full | Self::FullHalfWay | Self::FullAtTheEnd => io::ErrorKind::StorageFull,
        };
        io::Error::new(kind, "the disk says no")
    }
}

/// A call that fails, of both files together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which call.
    pub call: Call,
    /// Which one of them, counted from 0.
    pub at: u64,
    /// How.
    pub failure: Failure,
    /// Whether all that come after it fail in the same way.
    pub is_lasting: bool,
}

impl Fault {
    /// One call fails, with an error of the device; nothing else does.
    pub fn once(call: Call, at: u64) -> Self {
        Self { call, at, failure: Failure::Device, is_lasting: false }
    }

    /// Lets it fail in another way.
    pub fn with(self, failure: Failure) -> Self {
        Self { failure, ..self }
    }

    /// Lets all fail that come after it.
    pub fn lasting(self) -> Self {
        Self { is_lasting: true, ..self }
    }
}

/// What a disk says it did, and did not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A sync of one of the files: as if a commit were acknowledged before it.
    Sync(usize),
    /// Every so many writes to one of the files.
    Write(usize, u64),
    /// A length that is set is lost by a crash, though it was synced.
    SetLength(usize),
}

/// Something that was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These bytes were written there.
    Write(usize, u64, Arc<[u8]>),
    /// It got this length.
    SetLength(usize, u64),
    /// It was synced.
    Sync(usize),
}

const BLOCK: u64 = 4_096;

/// The files of a store: itself, and its commit log.
pub const STORE: usize = 0;
/// The commit log.
pub const LOG: usize = 1;

/// What is in the files.
pub type Image = [Vec<u8>; 2];

#[derive(Debug, Default)]
struct State {
    current: Image,
    durable: Image,
    pending: Vec<Pending>,
    /// The least length of each file since its last sync.
    shortest: [usize; 2],
    /// Whether a sync of each file failed, and how many were asked for after that.
    has_failed_sync: [bool; 2],
    syncs_after: u64,
    operations: u64,
    calls: [u64; 4],
    plan: Plan,
    blocks: [BTreeSet<u64>; 2],
    reserved: u64,
    steps: Vec<Step>,
}

/// Something that was written since the last sync.
#[derive(Debug)]
struct Pending {
    file: usize,
    offset: u64,
    bytes: Vec<u8>,
    /// Whether a sync of it failed: the next one says nothing of it (A. Rebello et al., "Can Applications Recover from
    /// fsync Failures?", USENIX ATC 2020).
    is_lost: bool,
}

/// A disk in memory with two files, and one plan for both.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

/// One of its files.
#[derive(Debug, Clone)]
pub struct FaultyStorage(Arc<Mutex<State>>, usize);

impl FaultyDisk {
    /// Makes one that holds these bytes, all of them durable.
    pub fn holding(image: Image, plan: Plan) -> Self {
        // Only where room is counted: it takes a look at every byte.
        let is_counted = plan.capacity.is_some();
        let blocks = [STORE, LOG].map(|file| {
            if !is_counted {
                return BTreeSet::new();
            }
            let is_written = |block: &u64| {
                let from = (block * BLOCK) as usize;
                let to = (from + BLOCK as usize).min(image[file].len());
                image[file][from..to].iter().any(|byte| *byte != 0)
            };
            (0..(image[file].len() as u64).div_ceil(BLOCK)).filter(is_written).collect()
        });
        let shortest = [image[STORE].len(), image[LOG].len()];
        let (durable, current) = (image.clone(), image);
        Self(Arc::new(Mutex::new(State { durable, current, plan, blocks, shortest, ..State::default() })))
    }

    /// Makes one with a store on it that was closed.
    pub fn closed(store: Vec<u8>, plan: Plan) -> Self {
        Self::holding([store, Vec::new()], plan)
    }

    /// Opens the store on it, with a commit log beside it or without.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(&self, options: Options, with_log: bool) -> Result<Larder, Error> {
        let store = Box::new(self.file(STORE));
        if with_log {
            options.open_storages(store, Arc::new(self.file(LOG)))
        } else {
            options.open_storage(store)
        }
    }

    /// Gives one of the files.
    pub fn file(&self, file: usize) -> FaultyStorage {
        FaultyStorage(Arc::clone(&self.0), file)
    }

    /// Gives what is there after a crash that loses everything since the last sync.
    pub fn durable(&self) -> Image {
        self.0.lock().durable.clone()
    }

    /// Gives what is there after a crash that keeps a part of the writes since the last sync, chosen by a seed, and
    /// tears one of them at a sector of 512 bytes.
    pub fn torn(&self, seed: u64) -> Image {
        let state = self.0.lock();
        let mut image = state.durable.clone();
        let mut random = seed | 1;
        for Pending { file, offset, bytes, .. } in &state.pending {
            let file = &mut image[*file];
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let length = match random % 4 {
                0 => 0,
                1 => bytes.len().min(512),
                _ => bytes.len(),
            };
            let (start, end) = (*offset as usize, *offset as usize + length);
            if file.len() < end {
                file.resize(end, 0);
            }
            file[start..end].copy_from_slice(&bytes[..length]);
        }
        image
    }

    /// Gives what is there now.
    pub fn current(&self) -> Image {
        self.0.lock().current.clone()
    }

    /// Gives what is in the store's file now.
    pub fn store(&self) -> Vec<u8> {
        self.0.lock().current[STORE].clone()
    }

    /// Gives what was done since it was asked for last, if it is remembered.
    pub fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut self.0.lock().steps)
    }

    /// Counts the steps that are remembered.
    pub fn step_count(&self) -> usize {
        self.0.lock().steps.len()
    }

    /// Counts the calls of a kind that were made.
    pub fn calls(&self, call: Call) -> u64 {
        self.0.lock().calls[call as usize]
    }

    /// Counts the syncs that were asked for.
    pub fn syncs(&self) -> u64 {
        self.calls(Call::Sync)
    }

    /// Counts the syncs of a file that were asked for after one of it had failed.
    pub fn syncs_after_failure(&self) -> u64 {
        self.0.lock().syncs_after
    }

    /// Counts the reads that were asked for.
    pub fn reads(&self) -> u64 {
        self.calls(Call::Read)
    }

    /// Sets what goes wrong from now on, counted as before.
    pub fn set_plan(&self, plan: Plan) {
        self.0.lock().plan = plan;
    }

    /// Counts the operations that change something, so that each can be made to fail.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }
}

impl State {
    /// How many bytes can still be written.
    fn room(&self) -> Option<u64> {
        let used = self.blocks.iter().map(|blocks| blocks.len() as u64 * BLOCK).sum::<u64>() + self.reserved;
        self.plan.capacity.map(|capacity| capacity.saturating_sub(used))
    }

    fn step(&mut self) -> io::Result<()> {
        let at = self.operations;
        self.operations += 1;
        match self.plan.freeze_at {
            Some(freeze) if at >= freeze => Err(io::Error::other("the machine is gone")),
            _ => Ok(()),
        }
    }

    /// Counts a call; tells how it fails, if it does.
    fn fault(&mut self, call: Call) -> Option<Failure> {
        let at = self.calls[call as usize];
        self.calls[call as usize] += 1;
        let fault = self.plan.fault.filter(|fault| fault.call == call)?;
        (at == fault.at || (fault.is_lasting && at > fault.at)).then_some(fault.failure)
    }

    /// Makes durable what a file has, but for what a sync before this one lost.
    fn keep(&mut self, file: usize) {
        let (current, durable) = (&self.current[file], &mut self.durable[file]);
        durable.truncate(self.shortest[file]);
        durable.resize(current.len(), 0);
        for pending in self.pending.iter().filter(|pending| pending.file == file && !pending.is_lost) {
            let from = (pending.offset as usize).min(current.len());
            let to = (pending.offset as usize + pending.bytes.len()).min(current.len());
            durable[from..to].copy_from_slice(&current[from..to]);
        }
        self.shortest[file] = current.len();
        self.pending.retain(|pending| pending.file != file);
    }
}

impl Storage for FaultyStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().current[self.1].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        if let Some(failure) = state.fault(Call::Read) {
            return Err(failure.error());
        }
        let from = state.current[self.1].get(offset as usize..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(from.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if let Some(failure) = state.fault(Call::SetLength) {
            return Err(failure.error());
        }
        state.current[self.1].resize(length as usize, 0);
        state.shortest[self.1] = state.shortest[self.1].min(length as usize);
        if state.plan.is_recorded && state.plan.lie != Some(Lie::SetLength(self.1)) {
            state.steps.push(Step::SetLength(self.1, length));
        }
        state.blocks[self.1].retain(|block| *block < length.div_ceil(BLOCK));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.syncs_after += u64::from(state.has_failed_sync[self.1]);
        if let Some(failure) = state.fault(Call::Sync) {
            state.has_failed_sync[self.1] = true;
            for pending in state.pending.iter_mut().filter(|pending| pending.file == self.1) {
                pending.is_lost = true;
            }
            return Err(failure.error());
        }
        if state.plan.is_recorded {
            if state.plan.lie != Some(Lie::Sync(self.1)) {
                state.steps.push(Step::Sync(self.1));
            }
            // The steps say what is durable.
            return Ok(());
        }
        state.keep(self.1);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let at = state.calls[Call::Write as usize];
        let failure = state.fault(Call::Write);
        let bytes = match failure {
            Some(failure @ (Failure::Device | Failure::Full | Failure::Panic)) => return Err(failure.error()),
            Some(Failure::FullHalfWay) => &bytes[..(bytes.len() as u64 / 2 / BLOCK * BLOCK) as usize],
            Some(Failure::FullAtTheEnd) => &bytes[..bytes.len().saturating_sub(1)],
            None => bytes,
        };
        let touched = offset / BLOCK..(offset + bytes.len() as u64).div_ceil(BLOCK);
        if state.plan.capacity.is_none() {
            state.blocks[self.1].clear();
        }
        let new = touched.clone().filter(|block| !state.blocks[self.1].contains(block)).count() as u64;
        if state.room().is_some_and(|room| room < new * BLOCK) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if state.plan.capacity.is_some() {
            state.blocks[self.1].extend(touched);
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        let file = &mut state.current[self.1];
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        if state.plan.is_recorded {
            let is_lost = matches!(state.plan.lie, Some(Lie::Write(file, every)) if file == self.1 && at.is_multiple_of(every));
            if !is_lost {
                state.steps.push(Step::Write(self.1, offset, bytes.into()));
            }
        } else {
            let (file, bytes) = (self.1, bytes.to_vec());
            state.pending.push(Pending { file, offset, bytes, is_lost: false });
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn room(&self) -> Option<u64> {
        let state = self.0.lock();
        if state.plan.is_room_secret { None } else { state.room() }
    }

    fn set_reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.reserved = 0;
        if state.room().is_some_and(|room| room < bytes) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        state.reserved = bytes;
        Ok(())
    }
}
