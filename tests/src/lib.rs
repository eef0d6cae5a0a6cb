//! The crash lab: what the tests share, and what an application can test itself with.
//!
//! - [`FaultyDisk`]: two files in memory, that of a store and its commit log, with a plan of what goes wrong.
//! - [`Trace`]: what a run did to the disk; it gives the image that a crash would leave, anywhere and in many ways.
//! - [`Judge`]: whether what comes up from an image is what may.
//! - [`LongRun`]: two hundred commits, with a call to the disk that fails, and what must hold whichever it is.
//! - [`everywhere`]: a scenario in memory, on a file and on the images of crashes.
//! - [`Said`]: all that a store says, and what is read of it from a file that rotted.
//! - [`Soak`]: years of a store, with failures, on a clock that is told the time; it must not need more with age.
//! - [`Workload`]: a random program over everything that changes a store, the same for the same seed.
//! - [`DECODERS`]: every decoder of the file format, for a fuzzer.
//! - [`history`]: what several threads saw of one store, and whether one order explains it.

mod crash;
mod decoders;
mod deliveries;
mod disk;
mod drawn;
mod errors;
pub mod history;
mod lab;
mod process;
mod random;
mod rot;
mod soak;
mod stage;
mod workload;

pub use crash::{Crash, Judge, Known, Loss, Trace, Verdict};
pub use decoders::{DECODERS, Decoder};
pub use deliveries::{Deliveries, deliveries_of};
pub use disk::{Call, Failure, Fault, FaultyDisk, FaultyStorage, Image, LOG, Lie, Plan, STORE, Step};
pub use drawn::Drawn;
pub use errors::{LongRun, Survived};
pub use lab::{Lab, dump};
pub use process::child;
#[cfg(target_os = "linux")]
pub use process::status_kib;
pub use random::Random;
pub use rot::{Rot, Said};
pub use soak::{Soak, Soaked};
pub use stage::everywhere;
pub use workload::{Did, Workload};

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use larder::format;
use larder::{Clock, Error, Larder, ManualClock, Options, VerifyReport};

/// Options with a clock that stands, and without a thread of the store's own.
pub fn still() -> Options {
    Options::new()
        .inline()
        .log_segment_bytes(512 << 10)
        .cache_bytes(4 << 20)
        .clock(Arc::new(ManualClock::at(1_000_000)))
}

/// Options for a store that is small on its disk, on a clock.
pub fn small(clock: &Arc<ManualClock>) -> Options {
    still().clock(Arc::clone(clock) as Arc<dyn Clock>).cache_bytes(1 << 20).reserve_bytes(0)
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
