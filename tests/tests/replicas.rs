//! S4-§1: a store as the state machine of something that is replicated. A log of commands, with their times in them, is applied to several
//! stores, each command with its number in one commit: they come to the same state, byte by byte; what was applied is not applied again;
//! and whoever was interrupted goes on behind the last one that was. 4 000 commands; `LARDER_LONG=1` takes 100 000.

use std::sync::Arc;
use std::time::Duration;

use larder::{
    CollectionDefinition, CountingIds, Durability, Larder, ManualClock, RowDraft, Session, WriteTxn,
};
use larder_layers::queue::{
    Backoff, Envelope, Message, MessageState, Nack, Queue, QueueError, QueueSettings, Queues,
};
use larder_layers::remember::{Cache, Namespace, Parts, Remember, RememberError};
use larder_tests::{Crash, FaultyDisk, Image, Loss, Plan, Random, Trace, dump, small, verified};

fn commands() -> u64 {
    if std::env::var_os("LARDER_LONG").is_some() { 100_000 } else { 4_000 }
}

/// What is done; of messages in flight, which one, as they lie in the queue.
#[derive(Debug, Clone)]
enum What {
    Enqueue {
        length: usize,
        priority: i64,
        delay: u64,
    },
    Dequeue {
        count: usize,
        seconds: u64,
    },
    Ack(usize),
    Nack(usize),
    Extend(usize, u64),
    Sweep(usize),
    Redrive(usize),
    Purge,
    Put(usize, usize),
    Delete(usize),
    Remember(i64, usize),
    Forget(i64),
    /// It fails, always and everywhere, after it has done something.
    Refused,
}

/// An entry of the log: its number, the time at which it was proposed, and what it says.
#[derive(Debug, Clone)]
struct Command {
    index: u64,
    time: i64,
    what: What,
}

fn log(seed: u64, count: u64) -> Vec<Command> {
    let (mut random, mut time) = (Random::new(seed), 1_000_000);
    (1..=count)
        .map(|index| {
            time += random.below(400_000) as i64;
            let what = match random.below(100) {
                0..=29 => What::Enqueue {
                    length: if random.percent(3) { 3_000 } else { random.below(60) },
                    priority: random.below(3) as i64,
                    delay: if random.percent(10) { random.below(20) as u64 } else { 0 },
                },
                30..=49 => What::Dequeue { count: 1 + random.below(3), seconds: 1 + random.below(30) as u64 },
                50..=64 => What::Ack(random.below(8)),
                65..=71 => What::Nack(random.below(8)),
                72..=74 => What::Extend(random.below(8), 1 + random.below(60) as u64),
                75..=79 => What::Sweep(1 + random.below(5)),
                80..=81 => What::Redrive(2),
                82 if random.percent(5) => What::Purge,
                83..=88 => What::Put(random.below(40), random.below(3_000)),
                89..=90 => What::Delete(random.below(40)),
                91..=96 => What::Remember(random.below(30) as i64, random.below(200)),
                97 => What::Forget(random.below(30) as i64),
                _ => What::Refused,
            };
            Command { index, time, what }
        })
        .collect()
}

/// What a command came to: the same on every replica.
type Answer = Result<String, String>;

struct Replica {
    larder: Larder,
    clock: Arc<ManualClock>,
    session: Session,
    queue: Queue,
    cache: Namespace,
}

impl Replica {
    fn on(disk: &FaultyDisk) -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let options = small(&clock).ids(Arc::new(CountingIds::from(1)));
        Self::of(disk.open(options, true).unwrap(), clock)
    }

    fn in_memory() -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let options = small(&clock).ids(Arc::new(CountingIds::from(1)));
        Self::of(options.open_in_memory().unwrap(), clock)
    }

    fn of(larder: Larder, clock: Arc<ManualClock>) -> Self {
        let session = larder.session("raft").unwrap().durability(Durability::Lazy);
        let queue = Queues::at("queues").unwrap().queue("q").unwrap();
        let cache = Cache::at("cache").unwrap().namespace("n").unwrap();
        Self { larder, clock, session, queue, cache }
    }

    /// The number of the last command that was applied.
    fn applied(&self) -> u64 {
        let view = self.session.snapshot().unwrap();
        let row = view.collection("raft").ok().and_then(|rows| rows.get("applied").unwrap());
        row.and_then(|row| row.integer("index")).unwrap_or(0).cast_unsigned()
    }

    /// Applies a command, unless it was applied: what it does and its number are one commit. What is refused has its number, too.
    fn apply(&self, command: &Command) -> Option<Answer> {
        self.clock.set(command.time);
        let number = |txn: &mut WriteTxn<'_>| -> larder::Result<bool> {
            if txn.collection("raft").is_err() {
                let _ = txn.define_collection("raft", &CollectionDefinition::new())?;
            }
            let mut rows = txn.collection("raft")?;
            let applied = rows.get("applied")?.and_then(|row| row.integer("index")).unwrap_or(0);
            if applied.cast_unsigned() >= command.index {
                return Ok(false);
            }
            assert_eq!(applied.cast_unsigned() + 1, command.index, "none is left out");
            rows.put("applied", RowDraft::default().field("index", command.index))?;
            Ok(true)
        };
        let applied = self.session.try_write(|txn| -> Result<_, QueueError> {
            if !number(txn)? {
                return Ok(None);
            }
            self.act(txn, &command.what).map(Some)
        });
        match applied {
            Ok(receipt) => receipt.value.map(Ok),
            Err(error) => {
                assert!(self.session.write(number).unwrap().value);
                Some(Err(error.to_string()))
            }
        }
    }

    fn act(&self, txn: &mut WriteTxn<'_>, what: &What) -> Result<String, QueueError> {
        let queue = &self.queue;
        let settings = QueueSettings::new().attempts_max(3).messages_max(60).backoff(Backoff::exponential(
            Duration::from_secs(1),
            2,
            Duration::from_secs(9),
        ));
        let _ = queue.create(txn, &settings)?;
        let of = |number: i64| Parts::new().with("of", number);
        let cached = |error: RememberError| match error {
            RememberError::Store(error) => QueueError::Store(error),
            other => QueueError::Store(larder::Error::abort(other)),
        };
        // Of those in flight, the one at a place.
        let held = |txn: &mut WriteTxn<'_>, place: usize| -> Result<_, QueueError> {
            let mut held = Vec::new();
            let rows = txn.collection(queue.key())?.find("expired", &larder::RowRange::all().limit(50))?.rows;
            for row in &rows {
                let message = row.key().parts()[0].clone();
                let (larder::Part::Integer(message), Some(fence)) = (message, row.integer("f")) else {
                    panic!("{row:?}")
                };
                let (message, fence) = (u64::try_from(message).unwrap(), fence.cast_unsigned());
                held.push(larder_layers::queue::Token { message, fence });
            }
            let place = place % held.len().max(1);
            Ok(held.get(place).copied())
        };
        Ok(match *what {
            What::Enqueue { length, priority, delay } => {
                let message = Message::new(vec![b'm'; length])
                    .priority(priority)
                    .delay(Duration::from_secs(delay))
                    .dedupe(format!("{length} {priority}"), Duration::from_secs(2));
                format!("{:?}", queue.enqueue(txn, message)?)
            }
            What::Dequeue { count, seconds } => {
                let taken = queue.dequeue_up_to(txn, count, Some(Duration::from_secs(seconds)))?;
                format!("{:?}", taken.iter().map(Envelope::token).collect::<Vec<_>>())
            }
            What::Ack(place) => match held(txn, place)? {
                Some(token) => format!("{:?}", queue.ack(txn, token)?),
                None => "nothing is in flight".to_owned(),
            },
            What::Nack(place) => match held(txn, place)? {
                Some(token) => format!("{:?}", queue.nack(txn, token, &Nack::new().reason("no"))?),
                None => "nothing is in flight".to_owned(),
            },
            What::Extend(place, seconds) => match held(txn, place)? {
                Some(token) => format!("{:?}", queue.extend(txn, token, Duration::from_secs(seconds))?),
                None => "nothing is in flight".to_owned(),
            },
            What::Sweep(limit) => format!("{}", queue.sweep(txn, limit)?),
            What::Redrive(limit) => format!("{}", queue.redrive(txn, limit)?),
            What::Purge => format!("{}", queue.purge(txn)?),
            What::Put(key, length) => {
                format!("{:?}", txn.put(format!("k/{key}"), vec![b'p'; length])?.generation)
            }
            What::Delete(key) => format!("{:?}", txn.delete(format!("k/{key}"))?),
            What::Remember(number, length) => {
                let how = Remember::new().tag(format!("t{}", number % 3));
                let stored = self.cache.store_in(txn, &of(number), vec![b'v'; length], &how);
                format!("{:?}", stored.map_err(cached)?.outcome())
            }
            What::Forget(number) => {
                format!("{}", self.cache.invalidate(txn, &of(number)).map_err(cached)?)
            }
            What::Refused => {
                txn.put("k/refused", "never there")?;
                return Err(QueueError::Store(larder::Error::abort("not this one")));
            }
        })
    }

    /// Everything, but for the numbers that no two messages and deliveries of a file ever share: messages in their order.
    fn state_but_for_numbers(&self) -> String {
        let view = self.session.snapshot().unwrap();
        let messages = MessageState::ALL.map(|state| {
            let messages = self.queue.peek(&view, state, 1_000).unwrap();
            let each = messages.iter().map(|one| {
                let Envelope { priority, attempts, enqueued, until, reason, died, .. } = one;
                format!("{priority} {attempts} {enqueued} {until} {reason:?} {died:?} {:?}", one.payload())
            });
            each.collect::<Vec<_>>()
        });
        let assets: Vec<String> = view
            .walk("k")
            .unwrap()
            .map(|found| {
                let (key, record) = found.unwrap();
                format!("{key} {} {:?} {}", record.generation(), record.payload().hash(), record.updated())
            })
            .collect();
        let entries = (0..30).map(|number| {
            let entry = self.cache.entry(&self.session, &Parts::new().with("of", number)).unwrap();
            entry.map(|entry| (entry.key, entry.hits, entry.last_used, entry.bytes))
        });
        let entries: Vec<_> = entries.collect();
        format!("{:?}{messages:?}{assets:?}{entries:?}{}", self.queue.stats(&view).unwrap(), self.applied())
    }
}

/// Applies a part of the log again, of which nothing is left to apply.
fn apply_again(replica: &Replica, part: &[Command]) {
    let before = (replica.larder.info().unwrap().state, replica.larder.info().unwrap().last_commit.sequence);
    assert!(part.iter().all(|command| replica.apply(command).is_none()));
    let info = replica.larder.info().unwrap();
    assert_eq!((info.state, info.last_commit.sequence), before, "what was applied is no commit");
}

/// Two stores, one in memory and one on a disk, to which the same log is applied, give the same answers and have the same dump, byte by
/// byte; and nothing that was applied is applied again.
#[test]
fn s4_par_1_the_same_log_makes_the_same_state_and_is_applied_once() {
    let log = log(1, commands());
    let disk = FaultyDisk::default();
    let (one, other) = (Replica::in_memory(), Replica::on(&disk));
    let mut refused = 0;
    for (at, command) in log.iter().enumerate() {
        let answer = one.apply(command).expect("it was not applied");
        assert_eq!(other.apply(command), Some(answer.clone()), "{command:?}");
        refused += usize::from(answer.is_err());
        if at % 1_000 == 999 {
            assert_eq!(one.larder.info().unwrap().state, other.larder.info().unwrap().state, "{command:?}");
            apply_again(&other, &log[at - 999..=at]);
        }
    }
    assert!(refused > log.len() / 200 && refused < log.len() / 2, "{refused} were refused");
    assert_eq!((one.applied(), other.applied()), (commands(), commands()));
    assert!(dump(&one.larder) == dump(&other.larder), "byte by byte");
    assert_eq!(one.state_but_for_numbers(), other.state_but_for_numbers());
    for replica in [&one, &other] {
        assert!(!replica.session.exists("k/refused").unwrap());
        apply_again(replica, &log);
        let stats = replica.session.read(|view| Ok(replica.queue.stats(view))).unwrap().unwrap();
        assert!(stats.acked > 50 && stats.died > 0 && stats.expired > 10, "{stats:?}");
        verified(&replica.larder);
    }
}

/// A replica whose machine goes, again and again, at any moment, finds how far it came, goes on behind that, and comes to the same state
/// as one that was never interrupted.
///
/// But for the numbers of messages and deliveries: a number that a crash took back is not given out again, so those that come later are
/// greater than where there was none.
#[test]
fn s4_par_1_a_replica_that_crashed_goes_on_behind_the_last_that_it_applied() {
    let log = log(2, commands() / 4);
    let one = Replica::in_memory();
    log.iter().for_each(|command| drop(one.apply(command)));
    let fresh = FaultyDisk::default();
    Replica::on(&fresh).larder.close().unwrap();
    let mut image: Image = [fresh.store(), Vec::new()];
    let (mut random, mut crashes, mut lost) = (Random::new(3), 0, 0);
    loop {
        let disk = FaultyDisk::holding(image.clone(), Plan { is_recorded: true, ..Plan::default() });
        let replica = Replica::on(&disk);
        let from = replica.applied() as usize;
        verified(&replica.larder);
        // What was applied before is sent again, as after a lost acknowledgement.
        apply_again(&replica, &log[from.saturating_sub(20)..from]);
        let until = (from + 1 + random.below(150)).min(log.len());
        let flushed = from + (until - from) / 2;
        let mut steps = disk.step_count();
        for (at, command) in log[from..until].iter().enumerate() {
            assert!(replica.apply(command).is_some(), "{command:?}");
            if from + at == flushed {
                replica.larder.flush().unwrap();
                steps = disk.step_count();
            }
        }
        if until == log.len() {
            assert_eq!(replica.state_but_for_numbers(), one.state_but_for_numbers());
            assert_eq!(replica.applied(), log.len() as u64);
            verified(&replica.larder);
            break;
        }
        let trace = Trace { base: image, steps: disk.take_steps() };
        let at = steps + random.below(trace.steps.len() - steps + 1);
        let loss = Loss::ALL[crashes % Loss::ALL.len()];
        image = trace.image(&Crash { at, loss, seed: crashes as u64 });
        let up = Replica::on(&FaultyDisk::holding(image.clone(), Plan::default())).applied() as usize;
        assert!((flushed + 1..=until).contains(&up) || until == from + 1, "{up} of {flushed} to {until}");
        lost += until - up;
        crashes += 1;
    }
    assert!(crashes > 5 && lost > 20, "{crashes} crashes, {lost} commands that were lost");
}
