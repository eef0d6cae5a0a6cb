//! Years in the life of a store, on a clock that is told the time: what it needs must not grow with its age.
//!
//! A random program works on a bounded set of keys, day after day. The store is kept up every hour; the disk fails now and then; at
//! the end of most days the store is closed, or the machine loses power. What comes up must be what was, and after each week all
//! of it is recounted.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder::{Clock, Error, Larder, ManualClock, Options, Retention, SnapshotOptions};

use crate::{Call, Failure, Fault, FaultyDisk, Plan, Random, Workload, still};

const DAY: i64 = 24 * 3_600 * 1_000_000;
/// How often a day the store is kept up.
const UPKEEP_A_DAY: usize = 24;
/// How many commits one step, and the upkeep before it, make at most.
const COMMITS_A_STEP_MAX: u64 = 64;

/// A store that is worked with for so many days.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    /// Decides everything.
    pub seed: u64,
    /// How many days.
    pub days: usize,
    /// How many things are done a day.
    pub steps_a_day: usize,
}

/// What was done, and what the store needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Soaked {
    /// How many commits there were.
    pub commits: u64,
    /// How often the store was closed and opened again.
    pub closed: u64,
    /// How often the machine lost power.
    pub crashes: u64,
    /// How often the disk failed, and the store had to be opened again for it.
    pub failures: u64,
    /// How often everything was recounted.
    pub recounts: u64,
    /// For each day the length of the file, in bytes.
    pub file_bytes: Vec<u64>,
    /// For each week how long a snapshot of all that is kept was, in bytes.
    pub kept_bytes: Vec<u64>,
}

struct Life {
    soak: Soak,
    clock: Arc<ManualClock>,
    random: Random,
    disk: FaultyDisk,
    /// By number, the identity of each state that may come up; the first is on disk.
    states: BTreeMap<u64, String>,
    soaked: Soaked,
}

impl Soak {
    /// Lives through it, and hands every day to `look`.
    ///
    /// # Errors
    /// What came up that was not, or did not come up, or does not recount, with the day.
    pub fn run(self, look: &mut dyn FnMut(usize, &Soaked)) -> Result<Soaked, String> {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let random = Random::new(self.seed);
        let (disk, states) = (FaultyDisk::default(), BTreeMap::new());
        let mut life = Life { soak: self, clock, random, disk, states, soaked: Soaked::default() };
        let mut larder = life.disk.open(life.options(), true).map_err(|error| error.to_string())?;
        larder.flush().map_err(|error| error.to_string())?;
        life.note(&larder, true).map_err(|error| error.to_string())?;
        for day in 0..self.days {
            // Each program does other things, and some things not at all.
            let mut workload = Workload::new(self.seed.wrapping_mul(1_000_003).wrapping_add(day as u64));
            larder = life
                .day(larder, &mut workload, (day + 1).is_multiple_of(7))
                .map_err(|what| format!("seed {}, day {day}: {what}", self.seed))?;
            look(day, &life.soaked);
        }
        Ok(life.soaked)
    }
}

impl Life {
    fn options(&self) -> Options {
        let mut retention = Retention::default().rows_max(20_000);
        retention.age_max = 3 * DAY;
        still()
            .clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
            .retention(retention)
            .reserve_bytes(0)
            .cache_bytes(1 << 20)
    }

    fn day(
        &mut self,
        larder: Larder,
        workload: &mut Workload,
        is_last_of_week: bool,
    ) -> Result<Larder, String> {
        let mut larder = larder;
        for step in 0..self.soak.steps_a_day {
            self.clock.advance(self.random.below(2 * DAY as usize / self.soak.steps_a_day) as i64);
            if self.random.below(self.soak.steps_a_day) < 2 {
                self.plan_a_failure();
            }
            let is_time_for_upkeep = step % self.soak.steps_a_day.div_ceil(UPKEEP_A_DAY) == 0;
            let upkept = if is_time_for_upkeep { self.keep_up(&larder) } else { Ok(()) };
            let upkept = upkept.and_then(|()| self.note(&larder, false));
            let done = upkept.and_then(|()| workload.step(&larder, &self.clock).map(drop));
            if done.and_then(|()| self.note(&larder, workload.is_durable())).is_err() {
                self.soaked.failures += 1;
                larder = self.come_up(larder, true)?;
            }
        }
        self.disk.set_plan(Plan::default());
        larder = match self.random.below(4) {
            0 => {
                larder.flush().map_err(|error| format!("it does not come to the disk: {error}"))?;
                larder
            }
            1 => {
                self.soaked.closed += 1;
                larder.close().map_err(|error| format!("it does not close: {error}"))?;
                self.open()?
            }
            _ => {
                self.soaked.crashes += 1;
                self.come_up(larder, false)?
            }
        };
        if is_last_of_week {
            clear(&larder).map_err(|error| format!("nothing is removed: {error}"))?;
            let report = larder.verify(&mut |_| {}).map_err(|error| error.to_string())?;
            if !report.is_clean() {
                return Err(format!("{:?}", report.findings));
            }
            self.soaked.recounts += 1;
            let mut snapshot = Vec::new();
            larder
                .snapshot_into(&mut snapshot, &SnapshotOptions::new())
                .map_err(|error| error.to_string())?;
            self.soaked.kept_bytes.push(snapshot.len() as u64);
        }
        self.note(&larder, true).map_err(|error| error.to_string())?;
        let health = larder.health();
        self.soaked.commits = health.last_commit;
        self.soaked.file_bytes.push(health.space.file_bytes);
        Ok(larder)
    }

    fn keep_up(&self, larder: &Larder) -> Result<(), Error> {
        larder.upkeep(self.clock.now())?;
        larder.sweep(1_000).map(drop)
    }

    /// One of the next calls to the disk fails.
    fn plan_a_failure(&mut self) {
        let call = *self.random.pick(&Call::ALL);
        let failure = *self.random.pick(&Failure::ALL);
        let at = self.disk.calls(call) + self.random.below(20) as u64;
        let fault = Some(Fault { call, at, failure, is_lasting: false });
        self.disk.set_plan(Plan { fault, ..Plan::default() });
    }

    /// Notes the state that there is, which is on disk or not.
    fn note(&mut self, larder: &Larder, is_durable: bool) -> Result<(), Error> {
        let info = larder.info()?;
        if is_durable {
            self.states.clear();
        }
        self.states.insert(info.last_commit.sequence, info.state);
        Ok(())
    }

    /// Loses power, and looks at what comes up. What was under way when the disk failed may be there or not.
    fn come_up(&mut self, larder: Larder, has_failed: bool) -> Result<Larder, String> {
        let image = match self.random.below(3) {
            0 => self.disk.current(),
            1 => self.disk.durable(),
            _ => self.disk.torn(self.random.number()),
        };
        drop(larder);
        self.disk = FaultyDisk::holding(image, Plan::default());
        let larder = self.open()?;
        let info = larder.info().map_err(|error| error.to_string())?;
        let sequence = info.last_commit.sequence;
        let first = self.states.keys().next().copied().unwrap_or(0);
        let last = self.states.keys().next_back().copied().unwrap_or(0);
        if sequence < first {
            return Err(format!("commit {first} was on disk, {sequence} came up"));
        }
        let under_way = if has_failed { COMMITS_A_STEP_MAX } else { 0 };
        match self.states.get(&sequence) {
            Some(state) if *state != info.state => Err(format!("another state came up at commit {sequence}")),
            None if sequence > last + under_way => {
                Err(format!("commit {sequence} came up, {last} was the last"))
            }
            _ => {
                self.note(&larder, true).map_err(|error| error.to_string())?;
                Ok(larder)
            }
        }
    }

    fn open(&self) -> Result<Larder, String> {
        self.disk.open(self.options(), true).map_err(|error| format!("it does not open: {error}"))
    }
}

/// Removes what would pile up: moved trees, dead letters.
fn clear(larder: &Larder) -> Result<(), Error> {
    let session = larder.session("ana")?;
    session.delete_tree("moved")?;
    session.delete_tree("k")?;
    larder.flush()
}
