//! A random program over two queues and a cache: each thing is done in the store and in the model, and both must say the same.

use std::sync::Arc;
use std::time::Duration;

use larder::{Larder, ManualClock, Micros, Session, WriteTxn};
use larder_layers::queue::{
    Backoff, Enqueued, Message, MessageState, Nack, Queue, QueueError, QueueSettings, RequeueAt, Token,
};
use larder_layers::remember::{Namespace, Remember};

use super::look::{bytes_of, look, result_of};
use super::model::{KEYS, Letter, New, Payload, QUEUES, Refusal, World};
use super::{Fallible, places};
use crate::{Did, Random};

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Enqueue,
    EnqueueSeveral,
    EnqueueDelayed,
    EnqueueOnce,
    Dequeue,
    Ack,
    AckSeveral,
    Nack,
    NackSeveral,
    Extend,
    Heartbeat,
    FindExpired,
    TakeBackExpired,
    TakeBack,
    Sweep,
    Move,
    Redrive,
    Purge,
    PurgeDead,
    Pause,
    Resume,
    Wait,
}

/// Everything that can be done, under its name, and how often it comes.
const KINDS: [(Kind, &str, usize); 22] = [
    (Kind::Enqueue, "enqueue", 8),
    (Kind::EnqueueSeveral, "enqueue several", 5),
    (Kind::EnqueueDelayed, "enqueue delayed", 4),
    (Kind::EnqueueOnce, "refuse a duplicate", 6),
    (Kind::Dequeue, "dequeue", 24),
    (Kind::Ack, "ack", 8),
    (Kind::AckSeveral, "ack several", 8),
    (Kind::Nack, "nack", 5),
    (Kind::NackSeveral, "nack several", 6),
    (Kind::Extend, "extend", 4),
    (Kind::Heartbeat, "heartbeat", 3),
    (Kind::FindExpired, "find expired", 6),
    (Kind::TakeBackExpired, "take back expired", 8),
    (Kind::TakeBack, "take back", 3),
    (Kind::Sweep, "sweep", 4),
    (Kind::Move, "move", 6),
    (Kind::Redrive, "redrive", 6),
    (Kind::Purge, "purge", 1),
    (Kind::PurgeDead, "purge dead", 2),
    (Kind::Pause, "pause", 1),
    (Kind::Resume, "resume", 8),
    (Kind::Wait, "wait", 12),
];

/// The longest time that a message waits before it can be taken.
const DELAY_US_MAX: usize = 2_000;

/// What a queue says, or why it does not.
type Answer<T> = Result<T, Refusal>;

/// Draws how the queues work.
pub(super) fn settings(random: &mut Random) -> [QueueSettings; QUEUES] {
    std::array::from_fn(|_| {
        let wait = Duration::from_micros(300 + random.below(900) as u64);
        let backoff = [Backoff::NONE, Backoff::fixed(wait), Backoff::exponential(wait, 2, 3 * wait)];
        let settings = QueueSettings::new()
            .visibility(Duration::from_micros(1_000 + random.below(4_000) as u64))
            .attempts_max(1 + random.below(3) as u32)
            .backoff(*random.pick(&backoff))
            .requeue_at(*random.pick(&[RequeueAt::Original, RequeueAt::Front, RequeueAt::Back]));
        let settings =
            if random.percent(40) { settings.messages_max(6 + random.below(8) as u64) } else { settings };
        if random.percent(40) { settings.bytes_max(10_000) } else { settings }
    })
}

/// A program on its way.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) world: World,
    session: Session,
    clock: Arc<ManualClock>,
    queues: [Queue; QUEUES],
    results: Namespace,
    random: Random,
    weights: [usize; KINDS.len()],
    /// All tokens that were ever given to anybody.
    pub(super) given: [Vec<Token>; QUEUES],
    /// What was found past its time, and not seen to yet.
    expired: [Vec<Token>; QUEUES],
    counts: [(u64, u64); KINDS.len()],
    enqueued: u8,
}

impl Program {
    /// Begins a program on queues that were just created; how often what comes differs from program to program.
    pub(super) fn new(
        larder: &Larder,
        clock: &Arc<ManualClock>,
        world: World,
        mut random: Random,
    ) -> Fallible<Self> {
        let (queues, results) = places()?;
        let weights = KINDS.map(|(kind, _, weight)| match kind {
            // Without these there is nothing to work on.
            Kind::Enqueue | Kind::Dequeue | Kind::Resume | Kind::Wait => weight,
            _ => weight * random.below(3),
        });
        Ok(Self {
            world,
            session: larder.session("ana")?,
            clock: Arc::clone(clock),
            queues,
            results,
            random,
            weights,
            given: Default::default(),
            expired: Default::default(),
            counts: [(0, 0); KINDS.len()],
            enqueued: 0,
        })
    }

    /// Gives how often each kind of operation was done, and refused.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64, u64)> {
        let named = KINDS.iter().zip(self.counts);
        named.map(|((_, name, _), (done, refused))| (*name, done, refused)).collect()
    }

    /// Does the next thing, which is one commit at most.
    ///
    /// # Errors
    /// Where the queue says something else than the model, or is not as the model is.
    pub(super) fn step(&mut self) -> Fallible<()> {
        let mut at = self.random.below(self.weights.iter().sum());
        let kind = self.weights.iter().position(|weight| {
            let is_this = at < *weight;
            at = at.saturating_sub(*weight);
            is_this
        });
        let number = kind.unwrap_or(0);
        let (kind, name, _) = KINDS[number];
        let queue = self.queue(kind);
        let did = self.act(kind, queue).map_err(|what| format!("{name}: {what}"))?;
        let count = &mut self.counts[number];
        match did {
            Some(Did::Done) => count.0 += 1,
            Some(Did::Refused) => count.1 += 1,
            None => {}
        }
        let found = look(&self.queues, &self.session.snapshot()?)?;
        self.world.compare(&found).map_err(|what| format!("after {name}: {what}"))?;
        Ok(())
    }

    /// Draws a queue: one where there is something to do, if there is.
    fn queue(&mut self, kind: Kind) -> usize {
        let queue = usize::from(self.random.percent(35));
        let has_work = |queue: usize| match kind {
            Kind::Dequeue => self.world.has(queue, MessageState::Ready),
            Kind::Redrive | Kind::PurgeDead => self.world.has(queue, MessageState::Dead),
            Kind::Resume => self.world.is_paused(queue),
            Kind::Enqueue | Kind::EnqueueSeveral | Kind::EnqueueDelayed | Kind::EnqueueOnce => true,
            Kind::Sweep | Kind::Move | Kind::Purge | Kind::Pause | Kind::Wait => true,
            // All others are for those who have messages.
            _ => self.world.has(queue, MessageState::InFlight),
        };
        if has_work(queue) || !has_work(1 - queue) { queue } else { 1 - queue }
    }

    /// Does something with a queue, in one commit.
    fn work<T>(
        &mut self,
        queue: usize,
        work: impl Fn(&mut WriteTxn<'_>, &Queue) -> Result<T, QueueError>,
    ) -> Fallible<Answer<T>> {
        let done = self.session.try_write(|txn| {
            self.world.time = txn.info().time;
            work(txn, &self.queues[queue])
        });
        answer(done.map(|receipt| receipt.value))
    }

    fn act(&mut self, kind: Kind, queue: usize) -> Fallible<Option<Did>> {
        match kind {
            Kind::Enqueue => self.enqueue(queue, 1, 0, &[]).map(|(did, _)| did),
            Kind::EnqueueSeveral => {
                let count = 2 + self.random.below(3);
                let delay_max = if self.random.percent(30) { DELAY_US_MAX } else { 0 };
                let keys: &[&str] = if self.random.percent(30) { &KEYS } else { &[] };
                self.enqueue(queue, count, delay_max, keys).map(|(did, _)| did)
            }
            Kind::EnqueueDelayed => self.enqueue(queue, 1, DELAY_US_MAX, &[]).map(|(did, _)| did),
            Kind::EnqueueOnce => {
                let count = 1 + self.random.below(3);
                let delay_max = if self.random.percent(20) { DELAY_US_MAX } else { 0 };
                let (did, is_duplicate) = self.enqueue(queue, count, delay_max, &KEYS)?;
                Ok(did.filter(|did| is_duplicate || *did == Did::Refused))
            }
            Kind::Dequeue => self.dequeue(queue),
            Kind::Ack | Kind::AckSeveral => self.ack(queue, most_of(kind)),
            Kind::Nack | Kind::NackSeveral => self.nack(queue, most_of(kind)),
            Kind::Extend => self.extend(queue),
            Kind::Heartbeat => {
                let Some(token) = self.tokens(queue, 1).pop() else { return Ok(None) };
                let told = self.work(queue, |txn, queue| queue.heartbeat(txn, token))?;
                agree(&told, &self.world.extend(queue, token, None))
            }
            Kind::FindExpired => self.find_expired(queue),
            Kind::TakeBackExpired => {
                // What was found a while ago may have been seen to since, or have been given more time.
                if self.expired[queue].is_empty() {
                    self.find_expired(queue)?;
                }
                let tokens = std::mem::take(&mut self.expired[queue]);
                let told = self.work(queue, |txn, queue| queue.take_back_expired(txn, &tokens))?;
                let expected = self.world.take_back(queue, &tokens, self.world.time);
                let is_something = expected.iter().any(|(_, outcome)| outcome.is_some());
                Ok(agree(&told, &Ok(expected))?.filter(|_| is_something))
            }
            Kind::TakeBack => {
                let tokens = self.tokens(queue, 3);
                let told = self.work(queue, |txn, queue| queue.take_back(txn, &tokens))?;
                let expected = self.world.take_back(queue, &tokens, Micros::MAX);
                let is_something = expected.iter().any(|(_, outcome)| outcome.is_some());
                Ok(agree(&told, &Ok(expected))?.filter(|_| is_something))
            }
            Kind::Sweep => {
                let limit = 1 + self.random.below(4);
                let told = self.work(queue, |txn, queue| queue.sweep(txn, limit))?;
                let swept = self.world.sweep(queue, limit);
                Ok(agree(&told, &Ok(swept))?.filter(|_| swept > 0))
            }
            Kind::Move => self.move_to(queue),
            Kind::Redrive => {
                let limit = 1 + self.random.below(3);
                let told = self.work(queue, |txn, queue| queue.redrive(txn, limit))?;
                let redriven = self.world.redrive(queue, limit);
                Ok(agree(&told, &redriven)?.filter(|_| redriven != Ok(0)))
            }
            Kind::Purge => {
                let told = self.work(queue, |txn, queue| queue.purge(txn))?;
                let purged = self.world.purge(queue);
                Ok(agree(&told, &Ok(purged))?.filter(|_| purged > 0))
            }
            Kind::PurgeDead => {
                let limit = 1 + self.random.below(3);
                let told = self.work(queue, |txn, queue| queue.purge_dead(txn, limit))?;
                let purged = self.world.purge_dead(queue, limit);
                Ok(agree(&told, &Ok(purged))?.filter(|_| purged > 0))
            }
            Kind::Pause | Kind::Resume => {
                let (is_pause, was_paused) = (kind == Kind::Pause, self.world.is_paused(queue));
                let told = self.work(
                    queue,
                    |txn, queue| {
                        if is_pause { queue.pause(txn) } else { queue.resume(txn) }
                    },
                )?;
                self.world.set_paused(queue, is_pause);
                Ok(agree(&told, &Ok(()))?.filter(|_| was_paused != is_pause))
            }
            Kind::Wait => {
                self.clock.advance(1 + self.random.below(1_500) as i64);
                Ok(Some(Did::Done))
            }
        }
    }

    /// Enqueues messages, of which some may be known already; tells whether one was.
    fn enqueue(
        &mut self,
        queue: usize,
        count: usize,
        delay_max: usize,
        keys: &[&'static str],
    ) -> Fallible<(Option<Did>, bool)> {
        let news: Vec<New> = (0..count)
            .map(|_| {
                self.enqueued = self.enqueued.wrapping_add(1);
                let random = &mut self.random;
                let length = if random.percent(20) { 4_000 } else { 1 + random.below(60) };
                New {
                    payload: Payload { byte: self.enqueued, length },
                    priority: if random.percent(30) { random.below(5) as i64 - 2 } else { 0 },
                    delay: if delay_max > 0 { 1 + random.below(delay_max) as i64 } else { 0 },
                    attempts_max: random.percent(15).then(|| random.below(3) as u32),
                    dedupe: (!keys.is_empty())
                        .then(|| (*random.pick(keys), 500 + random.below(4_000) as i64)),
                }
            })
            .collect();
        let told = self.work(queue, |txn, queue| queue.enqueue_all(txn, news.iter().map(message)))?;
        let enqueued = told.as_deref().unwrap_or_default();
        let expected = self.world.enqueue(queue, &news, enqueued)?;
        let is_duplicate = enqueued.iter().any(|enqueued| matches!(enqueued, Enqueued::Duplicate(_)));
        Ok((agree(&told, &expected)?, is_duplicate))
    }

    fn dequeue(&mut self, queue: usize) -> Fallible<Option<Did>> {
        let count = 1 + self.random.below(3);
        let lease = self.random.percent(25).then(|| 500 + self.random.below(4_000) as i64);
        let told = self.work(queue, |txn, queue| queue.dequeue_up_to(txn, count, lease.map(duration)))?;
        let told = match told {
            Ok(taken) => Ok(taken.iter().map(Letter::of).collect::<Result<Vec<_>, _>>()?),
            Err(refusal) => Err(refusal),
        };
        let letters = told.as_deref().unwrap_or_default();
        let expected = self.world.dequeue(queue, count, lease, letters)?;
        let did = agree(&told, &expected)?;
        self.given[queue].extend(self.world.tokens(queue));
        self.given[queue].sort();
        self.given[queue].dedup();
        Ok(did.filter(|_| !letters.is_empty() || told.is_err()))
    }

    /// Acknowledges messages, and remembers what they came to.
    fn ack(&mut self, queue: usize, most: usize) -> Fallible<Option<Did>> {
        let (tokens, is_several) = (self.tokens(queue, most), most > 1);
        let Some(first) = tokens.first() else { return Ok(None) };
        let done = self.session.try_write(|txn| -> Fallible<()> {
            self.world.time = txn.info().time;
            let queue = &self.queues[queue];
            if is_several { queue.ack_all(txn, &tokens) } else { queue.ack(txn, *first) }?;
            for token in &tokens {
                let result = bytes_of(token.message);
                self.results.store_in(txn, &result_of(token.message), result, &Remember::new())?;
            }
            Ok(())
        });
        let told = match done {
            Ok(_) => Ok(()),
            Err(error) => answer(Err(*error.downcast::<QueueError>()?))?,
        };
        Ok(agree(&told, &self.world.ack(queue, &tokens))?.filter(|_| !is_several || tokens.len() > 1))
    }

    fn nack(&mut self, queue: usize, most: usize) -> Fallible<Option<Did>> {
        let (tokens, is_several) = (self.tokens(queue, most), most > 1);
        let Some(first) = tokens.first() else { return Ok(None) };
        let delay = self.random.percent(30).then(|| self.random.below(1_500) as i64);
        let reason = self.random.percent(50).then_some("it burnt");
        let nack = delay.map_or_else(Nack::new, |delay| Nack::new().delay(duration(delay)));
        let nack = reason.map_or_else(|| nack.clone(), |reason| nack.clone().reason(reason));
        let told = self.work(queue, |txn, queue| {
            if is_several {
                queue.nack_all(txn, &tokens, &nack)
            } else {
                queue.nack(txn, *first, &nack).map(|requeued| vec![requeued])
            }
        })?;
        let expected = self.world.nack(queue, &tokens, delay, reason);
        Ok(agree(&told, &expected)?.filter(|_| !is_several || tokens.len() > 1))
    }

    fn extend(&mut self, queue: usize) -> Fallible<Option<Did>> {
        let Some(token) = self.tokens(queue, 1).pop() else { return Ok(None) };
        let time = 1 + self.random.below(4_000) as i64;
        let told = self.work(queue, |txn, queue| queue.extend(txn, token, duration(time)))?;
        agree(&told, &self.world.extend(queue, token, Some(time)))
    }

    /// Finds what is past its time, for whoever takes it back.
    fn find_expired(&mut self, queue: usize) -> Fallible<Option<Did>> {
        if self.random.percent(60) {
            self.clock.advance(self.random.below(4_000) as i64);
        }
        let (limit, view) = (1 + self.random.below(4), self.session.snapshot()?);
        self.world.time = view.now();
        let found = self.queues[queue].expired(&view, view.now(), limit)?;
        let did = agree(&Ok(found.clone()), &Ok(self.world.expired(queue, limit)))?;
        self.expired[queue] = found;
        Ok(did.filter(|_| !self.expired[queue].is_empty()))
    }

    fn move_to(&mut self, queue: usize) -> Fallible<Option<Did>> {
        let state = *self.random.pick(&[MessageState::Ready, MessageState::Delayed, MessageState::Dead]);
        let limit = 1 + self.random.below(3);
        let other = self.queues[1 - queue].clone();
        let told = self.work(queue, |txn, queue| queue.move_to(txn, &other, state, limit))?;
        let ready = other.peek(&self.session.snapshot()?, MessageState::Ready, 10_000)?;
        let mut numbers: Vec<u64> =
            ready.iter().map(|message| message.id).filter(|id| *id > self.world.greatest).collect();
        numbers.sort_unstable();
        let moved = self.world.move_to(queue, state, limit, &numbers)?;
        Ok(agree(&told, &moved)?.filter(|_| moved != Ok(0)))
    }

    /// Draws tokens: most often good ones, sometimes one whose time is over, sometimes one twice.
    fn tokens(&mut self, queue: usize, most: usize) -> Vec<Token> {
        let mut good = self.world.tokens(queue);
        let mut tokens = Vec::new();
        let count = 1 + self.random.below(most);
        while tokens.len() < count && !good.is_empty() {
            tokens.push(good.swap_remove(self.random.below(good.len())));
        }
        let spent: Vec<Token> = self.spent(queue);
        if !spent.is_empty() && self.random.percent(10) {
            let place = self.random.below(tokens.len().max(1));
            let token = *self.random.pick(&spent);
            match tokens.get_mut(place) {
                Some(place) => *place = token,
                None => tokens.push(token),
            }
        }
        if most > 1 && !tokens.is_empty() && self.random.percent(5) {
            tokens.push(tokens[0]);
        }
        tokens
    }

    /// Gives the tokens that are no longer good.
    fn spent(&self, queue: usize) -> Vec<Token> {
        self.given[queue].iter().filter(|token| !self.world.is_held(queue, **token)).copied().collect()
    }
}

/// How many messages are acknowledged, or given back, together.
fn most_of(kind: Kind) -> usize {
    if matches!(kind, Kind::AckSeveral | Kind::NackSeveral) { 4 } else { 1 }
}

fn duration(micros: Micros) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Makes the message that is enqueued.
pub(super) fn message(new: &New) -> Message {
    let message = Message::new(new.payload.bytes()).priority(new.priority).delay(duration(new.delay));
    let message = match new.attempts_max {
        Some(attempts) => message.attempts_max(attempts),
        None => message,
    };
    match new.dedupe {
        Some((key, window)) => message.dedupe(key, duration(window)),
        None => message,
    }
}

/// Reads what a queue says: a refusal is an answer, and every other error is one.
pub(super) fn answer<T>(done: Result<T, QueueError>) -> Fallible<Answer<T>> {
    match done {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(Refusal::of(error)?)),
    }
}

/// Demands that a queue says what the model says.
fn agree<T: PartialEq + std::fmt::Debug>(told: &Answer<T>, expected: &Answer<T>) -> Fallible<Option<Did>> {
    if told != expected {
        return Err(format!("the queue says {told:?}, and the model {expected:?}").into());
    }
    Ok(Some(if told.is_ok() { Did::Done } else { Did::Refused }))
}
