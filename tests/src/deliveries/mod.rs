//! A queue and a cache under crashes: what was acknowledged is gone, and what it came to is remembered, in one commit; what was
//! enqueued is there; no delivery counts twice.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{ManualClock, ReadTxn};
use larder_layers::queue::{Message, MessageState, Nack, Queue, QueueError, QueueSettings, Queues, Token};
use larder_layers::remember::{Cache, CacheLimits, Namespace, Parts, Remember};

use crate::{Crash, FaultyDisk, Image, Loss, Plan, Random, Trace, small};

/// How many things are done in a program.
const STEPS: usize = 60;
/// How many results are remembered at most.
const RESULTS_MAX: u64 = 3;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What is known of a message: by steps of the disk, when it was there for good, and when it was gone.
#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    asked: usize,
    is_in: Option<usize>,
    leaving: Option<usize>,
    is_out: Option<usize>,
}

/// What consumers of a queue did on a disk that remembers.
#[derive(Debug)]
pub struct Deliveries {
    seed: u64,
    trace: Trace,
    fates: BTreeMap<u64, Fate>,
}

fn places() -> Fallible<(Queue, Namespace)> {
    Ok((Queues::at("queues")?.queue("q")?, Cache::at("results")?.namespace("n")?))
}

/// Tells whether somebody still had the message; every other error is one.
fn is_done(done: Fallible<()>) -> Fallible<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) => match error.downcast_ref::<QueueError>() {
            Some(QueueError::LeaseLost { .. }) => Ok(false),
            _ => Err(error),
        },
    }
}

/// What a message came to.
fn bytes_of(message: u64) -> Vec<u8> {
    vec![b'r'; message as usize % 50]
}

fn result_of(message: u64) -> Parts {
    Parts::new().with("message", i64::try_from(message).unwrap_or(0))
}

impl Deliveries {
    /// Runs a program of a seed.
    ///
    /// # Errors
    /// What a store does that it should not, on a disk that works.
    pub fn run(seed: u64) -> Fallible<Self> {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let (queue, results) = places()?;
        let fresh = FaultyDisk::default();
        let larder = fresh.open(small(&clock), true)?;
        let settings = QueueSettings::new().visibility(Duration::from_millis(2)).attempts_max(3);
        let ana = larder.session("ana")?;
        let _ = ana.try_write(|txn| queue.create(txn, &settings))?;
        let limits = CacheLimits::new().entries_max(RESULTS_MAX);
        ana.try_write(|txn| results.set_limits(txn, &limits))?;
        larder.close()?;
        let base: Image = [fresh.store(), Vec::new()];
        let disk = FaultyDisk::holding(base.clone(), Plan { is_recorded: true, ..Plan::default() });
        let larder = disk.open(small(&clock), true)?;
        let ana = larder.session("ana")?;
        let (mut random, mut fates) = (Random::new(seed), BTreeMap::<u64, Fate>::new());
        let mut held: Vec<Token> = Vec::new();
        for _ in 0..STEPS {
            let before = disk.step_count();
            match random.below(6) {
                0..=2 => {
                    let length = if random.percent(20) { 4_000 } else { random.below(60) };
                    let put = ana.try_write(|txn| queue.enqueue(txn, Message::new(vec![b'm'; length])))?;
                    let fate = Fate { asked: before, is_in: Some(disk.step_count()), ..Fate::default() };
                    fates.insert(put.value.id(), fate);
                }
                3 => {
                    let taken = ana.try_write(|txn| queue.dequeue_up_to(txn, 2, None))?.value;
                    held.extend(taken.iter().map(|message| message.token()));
                }
                4 if !held.is_empty() => {
                    let token = held.swap_remove(random.below(held.len()));
                    let done = ana.try_write(|txn| -> Fallible<()> {
                        queue.ack(txn, token)?;
                        let result = bytes_of(token.message);
                        results.store_in(txn, &result_of(token.message), result, &Remember::new())?;
                        Ok(())
                    });
                    if is_done(done.map(drop))? {
                        let fate = fates.get_mut(&token.message).ok_or("a message that nobody enqueued")?;
                        if fate.is_out.is_some() {
                            return Err(format!("message {} was acknowledged twice", token.message).into());
                        }
                        (fate.leaving, fate.is_out) = (Some(before), Some(disk.step_count()));
                    }
                }
                5 if !held.is_empty() => {
                    let token = held.swap_remove(random.below(held.len()));
                    // One whose time is over is nobody's to give back.
                    is_done(
                        ana.try_write(|txn| Ok(queue.nack(txn, token, &Nack::new()).map(drop)?)).map(drop),
                    )?;
                }
                _ => clock.advance(random.below(1_500) as i64),
            }
        }
        drop((ana, larder));
        Ok(Self { seed, trace: Trace { base, steps: disk.take_steps() }, fates })
    }

    /// Tells how many messages were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.fates.values().filter(|fate| fate.is_out.is_some()).count()
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
        let larder = disk.open(small(&Arc::new(ManualClock::at(1_000_000))), true)?;
        let (queue, results) = places()?;
        let view = larder.session("ana")?.snapshot()?;
        let there = messages(&queue, &view)?;
        let remembered = remembered(&results, &view)?;
        let stats = queue.stats(&view)?;
        if stats.enqueued != stats.acked + there.len() as u64 {
            return Err(format!("{} messages are there, of {stats:?}", there.len()).into());
        }
        // Older results make room for newer ones.
        if (remembered.len() as u64) != stats.acked.min(RESULTS_MAX) {
            return Err(
                format!("{} results are remembered, of {} done", remembered.len(), stats.acked).into()
            );
        }
        let is_known = |id: &&u64| self.fates.contains_key(id);
        if let Some(id) = there.iter().chain(&remembered).find(|id| !is_known(id)) {
            return Err(format!("nobody ever enqueued message {id}").into());
        }
        for (id, fate) in &self.fates {
            let (is_there, at) = (there.contains(id), crash.at);
            let is_leaving = fate.leaving.is_some_and(|asked| asked < at);
            let wrong = if !is_there && fate.is_in.is_some_and(|done| done <= at) && !is_leaving {
                "is lost"
            } else if is_there && fate.is_out.is_some_and(|done| done <= at) {
                "came back"
            } else if is_there && fate.asked >= at {
                "came out of nowhere"
            } else if is_there && remembered.contains(id) {
                "is there, and so is what it came to"
            } else if remembered.contains(id) && !is_leaving {
                "was not acknowledged, and what it came to is there"
            } else {
                continue;
            };
            return Err(format!("message {id} {wrong}: {fate:?}").into());
        }
        if is_thorough {
            let report = larder.verify(&mut |_| {})?;
            if !report.is_clean() {
                return Err(format!("{:?}", report.findings).into());
            }
        }
        Ok(())
    }
}

/// Looks at every crash of one program; tells of how many something was found.
pub fn deliveries_of(seed: u64, thorough_every: u64, images: &AtomicU64) -> u64 {
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
    found
}

/// Gives the numbers of all messages, which are as many as the queue says.
fn messages(queue: &Queue, view: &ReadTxn) -> Fallible<Vec<u64>> {
    let mut ids = Vec::new();
    for state in [MessageState::Ready, MessageState::Delayed, MessageState::InFlight, MessageState::Dead] {
        for message in queue.peek(view, state, 10_000)? {
            if message.payload().iter().any(|byte| *byte != b'm') {
                return Err(format!("message {} is not what was enqueued", message.id).into());
            }
            ids.push(message.id);
        }
    }
    Ok(ids)
}

/// Gives the numbers of the messages whose results are there: as many entries as values, of the same bytes.
fn remembered(results: &Namespace, view: &ReadTxn) -> Fallible<Vec<u64>> {
    let total = results.total(view)?;
    let entries = results.explain(view, CacheLimits::new().eviction, 10_000)?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let record = view.record(&entry.key).map_err(|error| format!("an entry without a value: {error}"))?;
        bytes += i128::from(record.payload().length());
        let encoded = entry.parts.encoded_bytes();
        let parts = larder::format::Labelled::decode(&encoded).map_err(|error| error.to_string())?;
        match parts.get("message") {
            Some(larder::Part::Integer(message)) => {
                let message = u64::try_from(message).unwrap_or(0);
                if view.get(&entry.key)?.bytes()? != bytes_of(message) {
                    return Err(format!("what message {message} came to is not what was stored").into());
                }
                messages.push(message);
            }
            other => return Err(format!("a result of {other:?}").into()),
        }
    }
    let values = match view.list("results/n/values") {
        Ok(values) => values.len(),
        Err(_) => 0,
    };
    if (total.count, total.sum, values) != (messages.len() as u64, bytes, messages.len()) {
        let told = format!("{} entries of {bytes} bytes and {values} values", messages.len());
        return Err(format!("{told}, where the cache says {total:?}").into());
    }
    Ok(messages)
}
