//! Queues and a cache under crashes: after each there is what a model says, as it was before the commit that was in doubt, or as it
//! is after it, and nothing in between. What was acknowledged is gone, and what it came to is remembered, in one commit; what was
//! enqueued is in one place; no delivery counts twice.

mod look;
mod model;
mod program;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{Larder, ManualClock, WriteTxn};
use larder_layers::queue::{Enqueued, Message, Queue, QueueError, Queues, Token};
use larder_layers::remember::{Cache, CacheLimits, Namespace};

use parking_lot::Mutex;

use self::look::{look, remembered};
use self::model::{KEYS, NAMES, QUEUES, World};
use self::program::Program;
use crate::{Crash, Drawn, FaultyDisk, Image, Loss, Plan, Random, Trace, small};

/// How many things are done in a program.
const STEPS: usize = 100;
/// How many results are remembered at most.
const RESULTS_MAX: u64 = 3;
/// When a program begins.
const BEGINNING: i64 = 1_000_000;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What was done, by steps of the disk.
#[derive(Debug)]
struct Moment {
    /// How many steps there were before it.
    asked: usize,
    /// How many there were when it was told to be done.
    done: usize,
    /// What there is then.
    world: World,
    /// All tokens that had been given to anybody by then.
    given: [Vec<Token>; QUEUES],
}

/// What consumers of queues did on a disk that remembers.
#[derive(Debug)]
pub struct Deliveries {
    seed: u64,
    trace: Trace,
    /// The first is before anything was done.
    moments: Vec<Moment>,
    counts: Vec<(&'static str, u64, u64)>,
}

fn places() -> Fallible<([Queue; QUEUES], Namespace)> {
    let queues = Queues::at("queues")?;
    let [one, other] = NAMES;
    Ok(([queues.queue(one)?, queues.queue(other)?], Cache::at("results")?.namespace("n")?))
}

impl Deliveries {
    /// Runs a program of a seed.
    ///
    /// # Errors
    /// What a store does that it should not, on a disk that works.
    pub fn run(seed: u64) -> Fallible<Self> {
        let clock = Arc::new(ManualClock::at(BEGINNING));
        let (queues, results) = places()?;
        let mut random = Random::new(seed);
        let settings = program::settings(&mut random);
        let fresh = FaultyDisk::default();
        let larder = fresh.open(small(&clock), true)?;
        let ana = larder.session("ana")?;
        for (queue, settings) in queues.iter().zip(&settings) {
            let _ = ana.try_write(|txn| queue.create(txn, settings))?;
        }
        let limits = CacheLimits::new().entries_max(RESULTS_MAX);
        ana.try_write(|txn| results.set_limits(txn, &limits))?;
        larder.close()?;
        let base: Image = [fresh.store(), Vec::new()];
        let disk = FaultyDisk::holding(base.clone(), Plan { is_recorded: true, ..Plan::default() });
        let larder = disk.open(small(&clock), true)?;
        let world = World::new(&settings, BEGINNING);
        let mut moments = vec![Moment { asked: 0, done: 0, world: world.clone(), given: Default::default() }];
        let mut program = Program::new(&larder, &clock, world, random)?;
        for step in 0..STEPS {
            let asked = disk.step_count();
            program.step().map_err(|what| format!("step {step}: {what}"))?;
            let (world, given) = (program.world.clone(), program.given.clone());
            moments.push(Moment { asked, done: disk.step_count(), world, given });
        }
        let counts = program.counts();
        drop((program, ana, larder));
        Ok(Self { seed, trace: Trace { base, steps: disk.take_steps() }, moments, counts })
    }

    /// Tells how many messages were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.moments.last().map_or(0, |moment| moment.world.acknowledged.len())
    }

    /// Tells before how many steps of the disk there can be a crash.
    pub fn points(&self) -> usize {
        self.trace.steps.len() + 1
    }

    /// Opens what a crash leaves, and holds it against what consumers were told. Recounts everything, if asked to.
    ///
    /// # Errors
    /// What is lost, came back, came out of nowhere, or does not add up.
    pub fn judge(&self, crash: &Crash, is_thorough: bool) -> Fallible<()> {
        self.hold(crash, is_thorough)
            .map_err(|what| format!("seed {} of deliveries, {crash:?}: {what}", self.seed).into())
    }

    fn hold(&self, crash: &Crash, is_thorough: bool) -> Fallible<()> {
        let disk = FaultyDisk::holding(self.trace.image(crash), Plan::default());
        // What was told to be done is there; what was asked for after it may be there, as a whole.
        let told = self.moments.partition_point(|moment| moment.done <= crash.at).saturating_sub(1);
        let in_doubt = self.moments.get(told + 1).filter(|moment| moment.asked < crash.at);
        let moments: Vec<&Moment> = self.moments.get(told).into_iter().chain(in_doubt).collect();
        let time = moments.last().map_or(BEGINNING, |moment| moment.world.time);
        let larder = disk.open(small(&Arc::new(ManualClock::at(time))), true)?;
        let (queues, results) = places()?;
        let view = larder.session("ana")?.snapshot()?;
        let found = look(&queues, &view)?;
        let remembered = remembered(&results, &view)?;
        let mut wrong = Vec::new();
        let mut there = None;
        for moment in moments {
            match moment.world.compare(&found).and_then(|()| moment.recall(&remembered)) {
                Ok(()) => there = Some(moment),
                Err(what) => wrong.push(what),
            }
        }
        let Some(moment) = there else { return Err(wrong.join("; or, with what was in doubt: ").into()) };
        if is_thorough {
            moment.go_on(&larder, &queues)?;
            let report = larder.verify(&mut |_| {})?;
            if !report.is_clean() {
                return Err(format!("{:?}", report.findings).into());
            }
        }
        Ok(())
    }
}

impl Moment {
    /// Demands that the results are remembered of what was acknowledged, the newest of them, and of nothing else.
    fn recall(&self, remembered: &[u64]) -> Result<(), String> {
        let acknowledged = &self.world.acknowledged;
        if let Some(id) = remembered.iter().find(|id| !acknowledged.contains(id)) {
            return Err(format!("message {id} was not acknowledged, and what it came to is there"));
        }
        // Older results make room for newer ones.
        let done = acknowledged.len() as u64;
        if (remembered.len() as u64) != done.min(RESULTS_MAX) {
            return Err(format!("{} results are remembered, of {done} done", remembered.len()));
        }
        Ok(())
    }

    /// Goes on after the crash, and takes all of it back.
    fn go_on(&self, larder: &Larder, queues: &[Queue; QUEUES]) -> Fallible<()> {
        let mut outcome = Err("nothing was tried".into());
        let taken_back = larder.session("ana")?.write(|txn| -> larder::Result<()> {
            outcome =
                queues.iter().enumerate().try_for_each(|(number, queue)| self.try_all(txn, number, queue));
            Err(larder::Error::abort("all of it is taken back"))
        });
        outcome.and(if taken_back.is_err() { Ok(()) } else { Err("it was not taken back".into()) })
    }

    /// Demands that whoever has a message still has it, that whoever has none any more is told so, that a duplicate is still one,
    /// and that numbers are new.
    fn try_all(&self, txn: &mut WriteTxn<'_>, number: usize, queue: &Queue) -> Fallible<()> {
        let held = self.world.tokens(number);
        let is_spent = |token: &&Token| !self.world.is_held(number, **token);
        let spent: Vec<Token> = self.given[number].iter().filter(is_spent).copied().collect();
        match queue.ack_all(txn, &spent) {
            Ok(()) if spent.is_empty() => {}
            Err(QueueError::LeaseLost { tokens }) if tokens == spent => {}
            other => return Err(format!("{spent:?} were spent, and are answered with {other:?}").into()),
        }
        queue.ack_all(txn, &held)?;
        let (purged, left) = (queue.purge(txn)?, self.world.count(number) - held.len() as u64);
        if purged != left {
            return Err(format!("{purged} messages were purged, of {left}").into());
        }
        let now = txn.info().time;
        for key in KEYS {
            let again = queue.enqueue(txn, Message::new("again").dedupe(key, Duration::from_secs(1)))?;
            match (again, self.world.known(number, key, now)) {
                (Enqueued::Duplicate(id), Some(known)) if id == known => {}
                (Enqueued::New(id), None) if id > self.world.greatest => {}
                (again, known) => {
                    return Err(format!("{key} stands for {known:?}, and is answered with {again:?}").into());
                }
            }
        }
        Ok(())
    }
}

/// Looks at every crash of one program; tells of how many something was found, and counts what was done in it.
pub fn deliveries_of(seed: u64, thorough_every: u64, images: &AtomicU64, drawn: &Mutex<Drawn>) -> u64 {
    let deliveries = match Deliveries::run(seed) {
        Ok(deliveries) => deliveries,
        Err(what) => {
            println!("  seed {seed} of deliveries, on a disk that works: {what}");
            return 1;
        }
    };
    let mut found = 0;
    for at in 0..deliveries.points() {
        for loss in Loss::ALL {
            let is_thorough = images.fetch_add(1, Ordering::Relaxed).is_multiple_of(thorough_every);
            if let Err(what) = deliveries.judge(&Crash { at, loss, seed }, is_thorough) {
                found += 1;
                println!("  {what}");
            }
        }
    }
    drawn.lock().add(deliveries.counts);
    found
}
