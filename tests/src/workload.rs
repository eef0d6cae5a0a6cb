//! A random program over everything that changes a store.

use std::time::Duration;

use larder::{
    AggregateDefinition, Annotation, CollectionDefinition, DocumentKind, Draft, Durability, Error,
    IndexDefinition, Larder, LogKind, ManualClock, Part, RowDraft, RowRange, Session, Status,
};

use larder_layers::queue::{Envelope, Message, Nack, QueueError, QueueSettings, Queues, Token};
use larder_layers::remember::{Cache, CacheLimits, Parts, Remember, RememberError};

use crate::Random;

const KEYS: [&str; 14] = [
    "a",
    "b",
    "c",
    "d/e",
    "d/f",
    "d/f/g",
    "d/f/h",
    "k/one",
    "k/two",
    "k/two/deep",
    "x",
    "y/z",
    "y/zz",
    "é/ß",
];
const PLACES: [&str; 4] = ["d", "d/f", "k", "y"];
const TAGS: [&str; 4] = ["hot", "cold", "raw", "ü"];
const LIMITS: [&str; 3] =
    ["[[history]]\non = \"k/**\"\ngenerations = 3\n", "[[history]]\non = \"**\"\ngenerations = 2\n", ""];

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// It was done.
    Done,
    /// It was refused, and changed nothing.
    Refused,
}

const KINDS: usize = 21;

/// A random program. Two of the same seed do the same; how often which operation comes differs from seed to seed (swarm
/// testing: A. Groce et al., ISSTA 2012).
#[derive(Debug)]
pub struct Workload {
    random: Random,
    weights: [usize; KINDS],
    claims: Vec<(&'static str, u64)>,
    tokens: Vec<Token>,
    once: u64,
    is_durable: bool,
    counts: [(u64, u64); KINDS],
}

impl Workload {
    /// Makes the program of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut weights = [0; KINDS];
        for weight in &mut weights {
            *weight = if random.percent(25) { 0 } else { 1 + random.below(8) };
        }
        // Without these there is nothing to work on.
        weights[0] = 4 + random.below(8);
        weights[1] = 2 + random.below(4);
        Self {
            random,
            weights,
            claims: Vec::new(),
            tokens: Vec::new(),
            once: 0,
            is_durable: true,
            counts: [(0, 0); KINDS],
        }
    }

    /// Gives how often each kind of operation was done, and refused.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        NAMES.into_iter().zip(self.counts).map(|(name, (done, refused))| (name, done, refused))
    }

    /// Tells whether everything up to the last thing that was done is on disk.
    pub fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// Does the next thing.
    ///
    /// # Errors
    /// When the store could not do it: not when it would not.
    pub fn step(&mut self, larder: &Larder, clock: &ManualClock) -> Result<Did, Error> {
        let total: usize = self.weights.iter().sum();
        let mut at = self.random.below(total);
        let kind = self.weights.iter().position(|weight| {
            let is_this = at < *weight;
            at = at.saturating_sub(*weight);
            is_this
        });
        let kind = kind.unwrap_or(0);
        let session = larder.session("ana")?;
        let is_lazy = self.random.percent(30);
        let session = if is_lazy { session.durability(Durability::Lazy) } else { session };
        // What the store does in its own name is as durable as the next flush.
        self.is_durable = false;
        let before = larder.info()?.last_commit.sequence;
        match self.act(kind, larder, &session, clock) {
            Ok(()) => {
                self.counts[kind].0 += 1;
                let has_committed = larder.info()?.last_commit.sequence > before;
                self.is_durable = has_committed && !is_lazy && !matches!(kind, 13 | 17);
                Ok(Did::Done)
            }
            // The store itself: the disk, the file, the handle.
            Err(error) if matches!(error.code(), 605 | 700..900) => Err(error),
            Err(_) => {
                self.counts[kind].1 += 1;
                Ok(Did::Refused)
            }
        }
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.random.below(KEYS.len())]
    }

    fn payload(&mut self) -> Vec<u8> {
        match self.random.below(10) {
            0 => Vec::new(),
            1..=5 => vec![b'a' + self.random.below(4) as u8; 1 + self.random.below(900)],
            // A few contents only, so that assets share them.
            6..=7 => vec![self.random.below(3) as u8; 5_000],
            8 => {
                let length = 2_000 + self.random.below(9_000);
                self.random.bytes(length)
            }
            _ => {
                let length = 60_000 + self.random.below(30_000);
                self.random.bytes(length)
            }
        }
    }

    fn draft(&mut self, key: &str, now: i64) -> Draft {
        let mut draft = Draft::bytes(self.payload());
        if self.random.percent(40) {
            draft = draft.tag(*self.random.pick(&TAGS));
        }
        if self.random.percent(30) {
            let on = self.key();
            draft = draft.with(|annotation| annotation.depends_on(on));
        }
        if self.random.percent(10) {
            draft = draft.with(|annotation| annotation.depends_on_external("weather", 7));
        }
        if self.random.percent(20) {
            let at = now + self.random.below(5_000) as i64;
            draft = draft.status(Status::Ready).with(|annotation| annotation.expires(at));
        }
        draft.attribute("of", key)
    }

    /// Changes a few rows of a collection, which it defines where there is none.
    fn rows(&mut self, session: &Session) -> Result<(), Error> {
        let place = *self.random.pick(&["d/rows", "k/rows", "rows"]);
        let definition = definition(self.random.percent(10));
        let steps: Vec<(usize, i64, i64)> = (0..1 + self.random.below(6))
            .map(|_| (self.random.below(20), self.random.below(12) as i64, self.random.below(5) as i64 - 1))
            .collect();
        let value = self.payload();
        session
            .write(|txn| {
                let _ = txn.define_collection(place, &definition)?;
                let mut rows = txn.collection(place)?;
                for (what, key, number) in steps {
                    let draft = RowDraft::new(value.clone())
                        .field("state", number)
                        .field("tags", vec![Part::from("x"), Part::from(number)]);
                    match what {
                        0 => drop(rows.clear()?),
                        1..=4 => drop(rows.remove(key)?),
                        5..=7 => drop(rows.add(("count", key), "n", number)?),
                        8 => drop(rows.put(key, draft.field("only", number))?),
                        _ => drop(rows.put(key, draft)?),
                    }
                    let first = rows.find("by state", &RowRange::all().limit(1))?;
                    assert!(first.rows.iter().all(|row| row.integer("state").is_some()));
                }
                Ok(())
            })
            .map(drop)
    }

    /// Works with a queue, which it creates where there is none.
    fn queue(&mut self, session: &Session) -> Result<(), Error> {
        let queue = Queues::at("k/queues").and_then(|queues| queues.queue("q")).map_err(of_queue)?;
        let (what, token) = (self.random.below(8), self.tokens.last().copied());
        let message =
            Message::new(self.payload()).delay(Duration::from_micros(self.random.below(2) as u64 * 900));
        let settings = QueueSettings::new().visibility(Duration::from_micros(2_000)).attempts_max(2);
        let work =
            session.try_write(|txn| -> Result<_, QueueError> {
                let _ = queue.create(txn, &settings)?;
                let mut taken = Vec::new();
                match (what, token) {
                    (0..=2, _) => drop(queue.enqueue_all(
                        txn,
                        [message.clone(), message.dedupe("once", Duration::from_secs(1))],
                    )?),
                    (3..=4, _) => taken = queue.dequeue_up_to(txn, 2, None)?,
                    (5, Some(token)) => queue.ack(txn, token)?,
                    (6, Some(token)) => drop(queue.nack(txn, token, &Nack::new())?),
                    _ => drop(queue.sweep(txn, 5)?),
                }
                Ok(taken)
            });
        if matches!(what, 5 | 6) {
            self.tokens.pop();
        }
        let taken = work.map_err(of_queue)?.value;
        self.tokens.extend(taken.iter().map(Envelope::token));
        Ok(())
    }

    /// Works with a small cache.
    fn remember(&mut self, session: &Session) -> Result<(), Error> {
        let of_cache = |error| match error {
            RememberError::Store(error) => error,
            other => Error::abort(other),
        };
        let cache = Cache::at("d/cache").and_then(|cache| cache.namespace("n")).map_err(of_cache)?;
        let parts = Parts::new().with("of", self.random.below(8) as i64);
        let payload = self.payload();
        if self.random.percent(20) {
            let limits = CacheLimits::new().entries_max(1 + self.random.below(5) as u64).bytes_max(100_000);
            session.try_write(|txn| cache.set_limits(txn, &limits)).map_err(of_cache)?;
        }
        if self.random.percent(15) {
            return session.try_write(|txn| cache.invalidate(txn, &parts)).map(drop).map_err(of_cache);
        }
        let how = Remember::new().tag(*self.random.pick(&TAGS)).wait_max(Duration::ZERO);
        let how = if self.random.percent(20) { how.expires_after(Duration::from_micros(1_500)) } else { how };
        cache.get_or_compute(session, &parts, &how, || Ok(payload.into())).map(drop).map_err(of_cache)
    }

    fn act(
        &mut self,
        kind: usize,
        larder: &Larder,
        session: &Session,
        clock: &ManualClock,
    ) -> Result<(), Error> {
        let key = self.key();
        let now = larder::Clock::now(clock);
        match kind {
            0 => {
                let draft = self.draft(key, now);
                session.put(key, draft).map(drop)
            }
            1 => {
                let puts: Vec<(&str, Draft)> = (0..1 + self.random.below(4))
                    .map(|_| {
                        let key = self.key();
                        (key, self.draft(key, now))
                    })
                    .collect();
                session
                    .write(|txn| puts.into_iter().try_for_each(|(key, draft)| txn.put(key, draft).map(drop)))
                    .map(drop)
            }
            2 => session.delete(key).map(drop),
            3 => session.delete_tree(*self.random.pick(&PLACES)).map(drop),
            4 => session.rename(key, self.key()).map(drop),
            5 => session.copy(key, self.key()).map(drop),
            6 => session
                .rename_tree(*self.random.pick(&PLACES), format!("moved/{}", self.random.below(3)))
                .map(drop),
            7 => {
                let tag = *self.random.pick(&TAGS);
                let annotation = Annotation::new().tag(tag).title(format!("{}", self.random.below(100)));
                session.annotate(key, annotation).map(drop)
            }
            8 => {
                let group = self.random.percent(50).then_some(("slots", 2));
                let time = Duration::from_micros(500 + self.random.below(4_000) as u64);
                let fence = session.write(|txn| txn.claim(key, time, group))?.value;
                self.claims.push((key, fence));
                Ok(())
            }
            9 => {
                let Some((key, fence)) = self.claims.pop() else { return Ok(()) };
                session.write(|txn| txn.release_claim(key, fence)).map(drop)
            }
            10 => {
                let Some((key, fence)) = self.claims.last().copied() else { return Ok(()) };
                let claim = session.resume_claim(key, fence)?;
                let draft = self.draft(key, now);
                let put = claim.put(draft).map(drop);
                let _ = claim.detach();
                put
            }
            11 => session.cancel(key).map(drop),
            12 => session.expire(key).map(drop),
            13 => {
                clock.advance(self.random.below(3_000) as i64);
                larder.sweep(1 + self.random.below(4)).map(drop)
            }
            14 => match self.random.below(3) {
                0 => session.log(key, LogKind::Info, "at work").map(drop),
                1 => session.progress(key, 1, 10, "soon").map(drop),
                _ => {
                    let version = self.random.number().into();
                    larder.root()?.write(|txn| txn.set_external("weather", version)).map(drop)
                }
            },
            15 => {
                let limits = *self.random.pick(&LIMITS);
                larder.root()?.set_document(DocumentKind::Limits, limits).map(drop)
            }
            16 => {
                self.once += 1;
                let (name, draft) = (format!("once-{}", self.once), self.draft(key, now));
                session.write_once(&name, |txn| txn.put(key, draft)).map(drop)
            }
            18 => self.rows(session),
            19 => self.queue(session),
            20 => self.remember(session),
            _ => match self.random.below(3) {
                0 => larder.prune_history().map(drop),
                1 => larder.flush(),
                _ => {
                    let generation = 1 + self.random.below(4) as u64;
                    session.write(|txn| txn.restore(key, generation)).map(drop)
                }
            },
        }
    }
}

fn of_queue(error: QueueError) -> Error {
    match error {
        QueueError::Store(error) => error,
        other => Error::abort(other),
    }
}

/// The rows that the program works on, defined in one of two ways.
fn definition(is_other: bool) -> CollectionDefinition {
    let definition = CollectionDefinition::new()
        .index(IndexDefinition::new("by state").by_descending("state").by("tags"))
        .index(IndexDefinition::new("only").unique().by("only").only("only", [0, 1, 2]))
        .aggregate(AggregateDefinition::new("by state").group_by("state").sum("state"));
    if is_other { definition.index(IndexDefinition::new("tags").by_each("tags")) } else { definition }
}

const NAMES: [&str; KINDS] = [
    "put",
    "put several",
    "delete",
    "delete tree",
    "rename",
    "copy",
    "rename tree",
    "annotate",
    "claim",
    "release",
    "put for claim",
    "cancel",
    "expire",
    "sweep",
    "log",
    "set document",
    "put once",
    "keep house",
    "rows",
    "queue",
    "remember",
];
