//! Crashes: the images that may be left, and what has to come up from them.

use std::collections::BTreeMap;

use larder::Larder;

use crate::disk::{FaultyDisk, Image, Plan, Step};
use crate::{Random, still};

/// A sector: what a disk writes as a whole, or not at all.
const SECTOR: usize = 512;

/// What survives of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// Some writes and lengths, each as a whole, in any combination.
    Some,
    /// Some sectors of some writes.
    Torn,
    /// Everything up to somewhere, then nothing: as a disk with a queue in order.
    Prefix,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::All, Self::Some, Self::Torn, Self::Prefix];
}

/// A crash: before which step, what survives, and the seed of what is left to chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// How many steps were taken.
    pub at: usize,
    /// What survives of those that were not synced.
    pub loss: Loss,
    /// Chooses among the ways in which that can be.
    pub seed: u64,
}

/// What a run did to the disk, from what was there before.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// What was there before.
    pub base: Image,
    /// What was done.
    pub steps: Vec<Step>,
}

fn put(image: &mut Image, step: &Step) {
    match step {
        Step::Write(file, offset, bytes) => {
            let (from, to) = (*offset as usize, *offset as usize + bytes.len());
            let file = &mut image[*file];
            if file.len() < to {
                file.resize(to, 0);
            }
            file[from..to].copy_from_slice(bytes);
        }
        Step::SetLength(file, length) => image[*file].resize(*length as usize, 0),
        Step::Sync(_) => {}
    }
}

impl Trace {
    /// Gives what a crash leaves.
    pub fn image(&self, crash: &Crash) -> Image {
        let steps = &self.steps[..crash.at.min(self.steps.len())];
        // Up to the last sync of each file everything is there.
        let synced = [0, 1].map(|file| steps.iter().rposition(|step| *step == Step::Sync(file)).unwrap_or(0));
        let file_of = |step: &Step| match step {
            Step::Write(file, ..) | Step::SetLength(file, _) | Step::Sync(file) => *file,
        };
        let mut image = self.base.clone();
        let mut random = Random::new(crash.seed ^ (crash.at as u64) << 20);
        let cut = random.below(steps.len() + 1);
        for (number, step) in steps.iter().enumerate() {
            if number < synced[file_of(step)] {
                put(&mut image, step);
                continue;
            }
            match crash.loss {
                Loss::Nothing => {}
                Loss::All => put(&mut image, step),
                Loss::Some => {
                    if random.percent(50) {
                        put(&mut image, step);
                    }
                }
                Loss::Prefix => {
                    if number < cut {
                        put(&mut image, step);
                    }
                }
                Loss::Torn => match step {
                    Step::Write(file, offset, bytes) => {
                        for (sector, part) in bytes.chunks(SECTOR).enumerate() {
                            if random.percent(60) {
                                let at = offset + (sector * SECTOR) as u64;
                                put(&mut image, &Step::Write(*file, at, part.into()));
                            }
                        }
                    }
                    step if random.percent(70) => put(&mut image, step),
                    _ => {}
                },
            }
        }
        image
    }
}

/// What is known of a run: after how many steps which commit was there, and what was on disk.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The identity of the state after a commit, where it was looked at.
    pub identities: BTreeMap<u64, String>,
    /// By steps taken: up to which commit everything was acknowledged as being on disk.
    pub durable: BTreeMap<usize, u64>,
    /// By steps taken: the last commit that had been begun.
    pub begun: BTreeMap<usize, u64>,
}

impl Known {
    /// Up to which commit everything was acknowledged as being on disk when so many steps had been taken.
    pub fn durable_at(&self, steps: usize) -> u64 {
        self.durable.range(..=steps).next_back().map_or(0, |(_, sequence)| *sequence)
    }

    /// The last commit that can have been begun when so many steps had been taken.
    pub fn begun_at(&self, steps: usize) -> u64 {
        let next = self.begun.range(steps..).next().or_else(|| self.begun.iter().next_back());
        next.map_or(0, |(_, sequence)| *sequence)
    }
}

/// What came up from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What may: the commit, and how many steps were taken to open it.
    Good(u64),
    /// It does not open.
    Refused(String),
    /// What was acknowledged is not there: how far it goes, how far it has to.
    Lost(u64, u64),
    /// What was never done is there, or what was done is not as it was.
    Phantom(u64),
    /// It does not recount.
    Unsound(String),
}

/// Judges images.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judge {
    /// Whether everything is recounted, too.
    pub is_thorough: bool,
    /// Whether the steps of the opening are remembered.
    pub is_recorded: bool,
}

impl Judge {
    /// Opens an image, and tells whether what comes up is what may, with what was done to the disk meanwhile.
    pub fn look(&self, image: Image, with_log: bool, known: &Known, at: usize) -> (Verdict, Vec<Step>) {
        let disk = FaultyDisk::holding(image, Plan { is_recorded: self.is_recorded, ..Plan::default() });
        let larder = match disk.open(still().cache_bytes(1 << 20).reserve_bytes(0), with_log) {
            Ok(larder) => larder,
            Err(error) => return (Verdict::Refused(error.to_string()), disk.take_steps()),
        };
        let steps = disk.take_steps();
        (self.judge(&larder, known, at), steps)
    }

    fn judge(&self, larder: &Larder, known: &Known, at: usize) -> Verdict {
        let info = match larder.info() {
            Ok(info) => info,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let sequence = info.last_commit.sequence;
        let (durable, begun) = (known.durable_at(at), known.begun_at(at));
        if sequence < durable {
            return Verdict::Lost(sequence, durable);
        }
        if sequence > begun || known.identities.get(&sequence).is_some_and(|identity| *identity != info.state)
        {
            return Verdict::Phantom(sequence);
        }
        if self.is_thorough {
            match larder.verify(&mut |_| {}) {
                Ok(report) if report.is_clean() => {}
                Ok(report) => return Verdict::Unsound(format!("{:?}", report.findings)),
                Err(error) => return Verdict::Unsound(error.to_string()),
            }
        }
        Verdict::Good(sequence)
    }
}
