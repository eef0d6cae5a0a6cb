//! A stage for scenarios: what holds on one kind of store holds on all.

use std::sync::Arc;

use larder::{Larder, ManualClock};

use crate::{Crash, FaultyDisk, Loss, Plan, Trace, small, verified};

/// How many crash images of a scenario are looked at.
const IMAGES: usize = 12;
const SECOND: i64 = 1_000_000;

/// Plays a scenario in memory, on a file, and on a disk that remembers what was done to it. What must hold after every
/// commit is asked, with a full recount by the store itself, at the end of each, and of images that crashes would have left
/// of the disk.
pub fn everywhere(scenario: impl Fn(&Larder, &Arc<ManualClock>), holds: impl Fn(&Larder)) {
    let clock = || Arc::new(ManualClock::at(SECOND));
    let play = |larder: Larder, clock: &Arc<ManualClock>| {
        scenario(&larder, clock);
        verified(&larder);
        holds(&larder);
        drop(larder);
    };
    let now = clock();
    play(small(&now).open_in_memory().expect("a store in memory"), &now);

    let folder = tempfile::tempdir().expect("a folder");
    let now = clock();
    play(small(&now).open(folder.path().join("stage.larder")).expect("a store on a file"), &now);

    let fresh = FaultyDisk::default();
    fresh.open(small(&clock()), true).expect("a store").close().expect("a store that closes");
    let base = [fresh.store(), Vec::new()];
    let disk = FaultyDisk::holding(base.clone(), Plan { is_recorded: true, ..Plan::default() });
    let now = clock();
    play(disk.open(small(&now), true).expect("a store on a disk that remembers"), &now);
    let trace = Trace { base, steps: disk.take_steps() };
    for image in 1..=IMAGES {
        let (at, seed) = (trace.steps.len() * image / IMAGES, image as u64);
        let loss = Loss::ALL[image % Loss::ALL.len()];
        let disk = FaultyDisk::holding(trace.image(&Crash { at, loss, seed }), Plan::default());
        let larder = disk.open(small(&clock()), true).expect("a store that crashed opens");
        verified(&larder);
        holds(&larder);
    }
}
