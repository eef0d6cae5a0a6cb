//! What the tests share: a storage in memory that can fail, freeze, and tell what a crash would leave.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use larder::{Error, Larder, ManualClock, Options, Storage, VerifyReport};
use parking_lot::Mutex;

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// From this write, set-length or sync on, counted from 0, every call fails: the machine is gone.
    pub freeze_at: Option<u64>,
    /// This sync fails, counted from 0; nothing else does.
    pub fail_sync: Option<u64>,
    /// Writes fail for want of room from this one on, counted from 0.
    pub full_at: Option<u64>,
    /// This read fails, counted from 0; nothing else does.
    pub fail_read: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
    operations: u64,
    writes: u64,
    syncs: u64,
    reads: u64,
    plan: Plan,
}

/// A storage in memory.
#[derive(Debug, Clone, Default)]
pub struct FaultyStorage(Arc<Mutex<State>>);

impl FaultyStorage {
    /// Makes one that holds these bytes, all of them durable.
    pub fn holding(bytes: Vec<u8>, plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(State { durable: bytes.clone(), current: bytes, plan, ..State::default() })))
    }

    /// Gives what is there after a crash that loses everything since the last sync.
    pub fn durable(&self) -> Vec<u8> {
        self.0.lock().durable.clone()
    }

    /// Gives what is there after a crash that keeps a part of the writes since the last sync, chosen by a seed, and
    /// tears one of them at a sector of 512 bytes.
    pub fn torn(&self, seed: u64) -> Vec<u8> {
        let state = self.0.lock();
        let mut image = state.durable.clone();
        let mut random = seed | 1;
        for (offset, bytes) in &state.pending {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let length = match random % 4 {
                0 => 0,
                1 => bytes.len().min(512),
                _ => bytes.len(),
            };
            let (start, end) = (*offset as usize, *offset as usize + length);
            if image.len() < end {
                image.resize(end, 0);
            }
            image[start..end].copy_from_slice(&bytes[..length]);
        }
        image
    }

    /// Gives what is there now.
    pub fn current(&self) -> Vec<u8> {
        self.0.lock().current.clone()
    }

    /// Counts the syncs that were asked for.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Counts the reads that were asked for.
    pub fn reads(&self) -> u64 {
        self.0.lock().reads
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
    fn step(&mut self) -> io::Result<()> {
        let at = self.operations;
        self.operations += 1;
        match self.plan.freeze_at {
            Some(freeze) if at >= freeze => Err(io::Error::other("the machine is gone")),
            _ => Ok(()),
        }
    }
}

impl Storage for FaultyStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let at = state.reads;
        state.reads += 1;
        if state.plan.fail_read == Some(at) {
            return Err(io::Error::other("the disk cannot read this"));
        }
        let from = state.current.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(from.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.current.resize(length as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let at = state.syncs;
        state.syncs += 1;
        if state.plan.fail_sync == Some(at) {
            return Err(io::Error::other("the disk says no"));
        }
        state.durable = state.current.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let at = state.writes;
        state.writes += 1;
        if state.plan.full_at.is_some_and(|full| at >= full) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if state.current.len() < end {
            state.current.resize(end, 0);
        }
        state.current[start..end].copy_from_slice(bytes);
        state.pending.push((offset, bytes.to_vec()));
        Ok(())
    }
}

/// Options with a clock that stands, and without a thread of the store's own.
pub fn still() -> Options {
    Options::new().inline().cache_bytes(4 << 20).clock(Arc::new(ManualClock::at(1_000_000)))
}

/// A store in memory, on a clock that stands.
pub fn in_memory() -> Larder {
    still().open_in_memory().expect("a store in memory")
}

/// Recounts everything and demands that all of it agrees.
#[track_caller]
pub fn verified(larder: &Larder) -> VerifyReport {
    let report = larder.verify(&mut |_| {}).expect("a store that can be read");
    assert!(report.is_clean(), "{:#?}", report.findings);
    report
}

/// The name of the kind of an error that must be there.
#[track_caller]
pub fn kind_of<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.expect_err("an error").kind().name()
}

/// The smallest executor there is.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
