//! The locks that larder uses, on a scheduler that decides at each of them who goes on.
//!
//! All threads of a schedule are one thread of the machine: a lock of the standard library that says that it is free is free,
//! and those in here keep only the values. Where a lock is asked for or let go, another thread may go on; but not within
//! larder's `store`, which redb calls while it holds locks of its own, that this scheduler knows nothing of. A wait that has an
//! end ends when it is drawn, or never: see [`timeouts`].

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::Thread;

/// One in how many looks at a clock finds a wait over.
static TIMEOUTS: AtomicU32 = AtomicU32::new(0);

/// Says that one in so many looks at the clock finds a wait over that has an end; with 0 none does.
pub fn timeouts(one_in: u32) {
    TIMEOUTS.store(one_in, Ordering::Relaxed);
}

fn have_timeouts() -> bool {
    TIMEOUTS.load(Ordering::Relaxed) > 0
}

fn is_over() -> bool {
    have_timeouts() && thread_rng().gen_ratio(1, TIMEOUTS.load(Ordering::Relaxed))
}

/// Where a lock was asked for.
type Place = &'static Location<'static>;

/// Lets another go on, except where redb may hold a lock, and where a thread ends by a panic.
fn switch(at: Place) {
    let is_within_redb = at.file().contains("engine/src/store/") || at.file().ends_with("/disk.rs");
    if !is_within_redb && !std::thread::panicking() {
        shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

/// Threads that wait, in the order in which they came.
#[derive(Debug, Default)]
struct Waiting {
    threads: std::sync::Mutex<VecDeque<(u64, Thread)>>,
    next: AtomicU64,
}

impl Waiting {
    fn threads(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Thread)>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self) -> u64 {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let thread = shuttle::thread::current();
        self.threads().push_back((ticket, thread));
        ticket
    }

    fn has(&self, ticket: u64) -> bool {
        self.threads().iter().any(|(other, _)| *other == ticket)
    }

    fn leave(&self, ticket: u64) {
        self.threads().retain(|(other, _)| *other != ticket);
    }

    /// Waits until somebody wakes whoever has the ticket.
    fn wait(&self, ticket: u64) {
        while self.has(ticket) {
            shuttle::thread::park();
        }
    }

    fn wake(&self, count: usize) -> usize {
        let woken: Vec<_> = {
            let mut threads = self.threads();
            let count = count.min(threads.len());
            threads.drain(..count).collect()
        };
        woken.iter().for_each(|(_, thread)| thread.unpark());
        woken.len()
    }
}

/// What tells threads from one another.
pub mod lock_api {
    /// Tells threads from one another.
    pub trait GetThreadId {
        /// One that does.
        const INIT: Self;

        /// Gives a number that no other thread has.
        fn nonzero_thread_id(&self) -> std::num::NonZeroUsize;
    }
}

/// Tells the threads of a schedule from one another.
#[derive(Debug)]
pub struct RawThreadId;

impl lock_api::GetThreadId for RawThreadId {
    const INIT: Self = Self;

    fn nonzero_thread_id(&self) -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(usize::from(shuttle::current::me()))
    }
}

/// A mutex.
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized> {
    is_locked: AtomicBool,
    waiting: Waiting,
    value: std::sync::Mutex<T>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self {
            is_locked: AtomicBool::new(false),
            waiting: Waiting::default(),
            value: std::sync::Mutex::new(value),
        }
    }

    pub fn into_inner(self) -> T {
        self.value.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        switch(Location::caller());
        self.take(Location::caller())
    }

    fn take(&self, at: Place) -> MutexGuard<'_, T> {
        while self.is_locked.swap(true, Ordering::Relaxed) {
            self.waiting.wait(self.waiting.join());
        }
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, value: Some(value), at }
    }

    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let (is_locked, at) = (self.is_locked(), Location::caller());
        (!is_locked).then(|| self.take(at))
    }

    #[track_caller]
    pub fn try_lock_for(&self, _wait: Duration) -> Option<MutexGuard<'_, T>> {
        if !have_timeouts() {
            return Some(self.lock());
        }
        loop {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            if is_over() {
                return None;
            }
            shuttle::thread::yield_now();
        }
    }

    #[track_caller]
    pub fn is_locked(&self) -> bool {
        switch(Location::caller());
        self.is_locked.load(Ordering::Relaxed)
    }
}

/// A mutex, locked.
#[derive(Debug)]
#[must_use]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    value: Option<std::sync::MutexGuard<'a, T>>,
    at: Place,
}

impl<T: ?Sized> MutexGuard<'_, T> {
    fn free(&mut self) {
        self.value = None;
        self.mutex.is_locked.store(false, Ordering::Relaxed);
        self.mutex.waiting.wake(usize::MAX);
    }

    fn take_again(&mut self) {
        let mut again = self.mutex.take(self.at);
        self.value = again.value.take();
        std::mem::forget(again);
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a guard that is not waited with")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a guard that is not waited with")
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.free();
        switch(self.at);
    }
}

/// Whether a wait ended by time.
#[derive(Debug, Clone, Copy)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// A condition variable.
#[derive(Debug, Default)]
pub struct Condvar {
    waiting: Waiting,
}

impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        let ticket = self.waiting.join();
        guard.free();
        self.waiting.wait(ticket);
        guard.take_again();
    }

    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, _wait: Duration) -> WaitTimeoutResult {
        if !have_timeouts() {
            self.wait(guard);
            return WaitTimeoutResult(false);
        }
        let ticket = self.waiting.join();
        guard.free();
        while self.waiting.has(ticket) && !is_over() {
            shuttle::thread::yield_now();
        }
        let is_over = self.waiting.has(ticket);
        self.waiting.leave(ticket);
        guard.take_again();
        WaitTimeoutResult(is_over)
    }

    pub fn notify_one(&self) -> bool {
        self.waiting.wake(1) > 0
    }

    pub fn notify_all(&self) -> usize {
        self.waiting.wake(usize::MAX)
    }
}

/// A lock for one who writes or many who read. Nobody begins to read while somebody waits to write, as with the original.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized> {
    readers: AtomicUsize,
    writers_waiting: AtomicUsize,
    is_written: AtomicBool,
    waiting: Waiting,
    value: std::sync::RwLock<T>,
}

impl<T> RwLock<T> {
    pub fn new(value: T) -> Self {
        Self {
            readers: AtomicUsize::new(0),
            writers_waiting: AtomicUsize::new(0),
            is_written: AtomicBool::new(false),
            waiting: Waiting::default(),
            value: std::sync::RwLock::new(value),
        }
    }
}

impl<T: ?Sized> RwLock<T> {
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let at = Location::caller();
        switch(at);
        while self.is_written.load(Ordering::Relaxed) || self.writers_waiting.load(Ordering::Relaxed) > 0 {
            self.waiting.wait(self.waiting.join());
        }
        self.readers.fetch_add(1, Ordering::Relaxed);
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner);
        RwLockReadGuard { lock: self, value: Some(value), at }
    }

    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let at = Location::caller();
        switch(at);
        self.writers_waiting.fetch_add(1, Ordering::Relaxed);
        while self.is_written.load(Ordering::Relaxed) || self.readers.load(Ordering::Relaxed) > 0 {
            self.waiting.wait(self.waiting.join());
        }
        self.writers_waiting.fetch_sub(1, Ordering::Relaxed);
        self.is_written.store(true, Ordering::Relaxed);
        let value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        RwLockWriteGuard { lock: self, value: Some(value), at }
    }
}

/// Held by one who reads.
#[derive(Debug)]
#[must_use]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    value: Option<std::sync::RwLockReadGuard<'a, T>>,
    at: Place,
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until the guard goes")
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.lock.readers.fetch_sub(1, Ordering::Relaxed);
        self.lock.waiting.wake(usize::MAX);
        switch(self.at);
    }
}

/// Held by one who writes.
#[derive(Debug)]
#[must_use]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    value: Option<std::sync::RwLockWriteGuard<'a, T>>,
    at: Place,
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until the guard goes")
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("it is there until the guard goes")
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.lock.is_written.store(false, Ordering::Relaxed);
        self.lock.waiting.wake(usize::MAX);
        switch(self.at);
    }
}
