//! What queues must be like after each commit: their rules said again, in memory, without a store, indexes or counters.
//!
//! 1. Every message that was enqueued is in one place: in one queue, in one state; or it is gone, and was acknowledged or purged.
//! 2. A number that was given out, for a message or for a delivery, is never given out again.
//! 3. What is refused changes nothing.
//! 4. Everything that is counted is what a recount gives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use larder::Micros;
use larder_layers::queue::{
    Enqueued, Envelope, MessageState, QueueError, QueueSettings, QueueStats, RequeueAt, Requeued, Token,
};

/// How many queues there are.
pub(super) const QUEUES: usize = 2;
/// The names of the queues.
pub(super) const NAMES: [&str; QUEUES] = ["q", "other"];
/// The keys that messages are told apart by.
pub(super) const KEYS: [&str; 3] = ["soup", "bread", "salt"];
/// All states, in the order of their numbers.
pub(super) const STATES: [MessageState; 4] =
    [MessageState::Ready, MessageState::Delayed, MessageState::InFlight, MessageState::Dead];
/// Why a message is given back whose time is over.
const TIME_OVER: &str = "its time was over";

/// A message, as whoever looks at it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) id: u64,
    pub(super) state: MessageState,
    pub(super) priority: i64,
    pub(super) attempts: u32,
    pub(super) enqueued: Micros,
    pub(super) until: Micros,
    pub(super) reason: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) died: Option<Micros>,
    /// The number of the delivery; 0 where nobody has it.
    pub(super) fence: u64,
    pub(super) payload: Payload,
}

/// A payload: every byte of it says which message it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) byte: u8,
    pub(super) length: usize,
}

impl Payload {
    /// Makes the bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        vec![self.byte; self.length]
    }
}

impl Letter {
    /// Reads a message that was found.
    ///
    /// # Errors
    /// If its payload is nobody's.
    pub(super) fn of(envelope: &Envelope) -> Result<Self, String> {
        let payload = envelope.payload();
        let byte = payload.first().copied().unwrap_or(0);
        if payload.iter().any(|other| *other != byte) {
            return Err(format!("message {} is not what was enqueued", envelope.id));
        }
        Ok(Self {
            id: envelope.id,
            state: envelope.state,
            priority: envelope.priority,
            attempts: envelope.attempts,
            enqueued: envelope.enqueued,
            until: envelope.until,
            reason: envelope.reason.clone(),
            origin: envelope.origin.clone(),
            died: envelope.died,
            fence: envelope.token().fence,
            payload: Payload { byte, length: payload.len() },
        })
    }

    fn token(&self) -> Token {
        Token { message: self.id, fence: self.fence }
    }
}

/// A message with what nobody sees of it.
#[derive(Debug, Clone)]
struct Held {
    letter: Letter,
    /// Its place among those of its priority.
    order: i64,
    attempts_max: Option<u32>,
    /// The time that it was taken for, where that is not the queue's.
    lease: Option<Micros>,
}

/// A message that is to be enqueued.
#[derive(Debug, Clone)]
pub(super) struct New {
    pub(super) payload: Payload,
    pub(super) priority: i64,
    pub(super) delay: Micros,
    pub(super) attempts_max: Option<u32>,
    pub(super) dedupe: Option<(&'static str, Micros)>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no room.
    Full,
    /// Nothing is taken from a queue that is paused.
    Paused,
    /// Some tokens are no longer good: these.
    Lost(Vec<Token>),
    /// A token is there twice.
    Twice(Token),
}

impl Refusal {
    /// Reads the refusal of a queue; every other error is given back.
    pub(super) fn of(error: QueueError) -> Result<Self, QueueError> {
        match error {
            QueueError::QueueFull { .. } => Ok(Self::Full),
            QueueError::Paused { .. } => Ok(Self::Paused),
            QueueError::LeaseLost { tokens } => Ok(Self::Lost(tokens)),
            QueueError::DuplicateToken { token } => Ok(Self::Twice(token)),
            other => Err(other),
        }
    }
}

type Answer<T> = Result<T, Refusal>;

/// A queue.
#[derive(Debug, Clone)]
struct Shelf {
    settings: QueueSettings,
    messages: BTreeMap<u64, Held>,
    /// Keys, until when each stands for a message, and for which.
    keys: Vec<(&'static str, Micros, u64)>,
    totals: QueueStats,
}

/// All queues after a commit.
#[derive(Debug, Clone)]
pub(super) struct World {
    shelves: [Shelf; QUEUES],
    /// Counts the places that were given to messages.
    places: i64,
    /// The greatest number that was given out for a message or a delivery.
    pub(super) greatest: u64,
    /// The messages that were acknowledged.
    pub(super) acknowledged: BTreeSet<u64>,
    /// The time of the commit.
    pub(super) time: Micros,
}

/// What is found of a queue: its messages by state, each in its order, and what the queue says of itself.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) letters: [Vec<Letter>; STATES.len()],
    pub(super) stats: QueueStats,
    pub(super) settings: QueueSettings,
}

impl Shelf {
    fn live(&self) -> impl Iterator<Item = &Held> {
        self.messages.values().filter(|held| held.letter.state != MessageState::Dead)
    }

    /// Tells whether there is room for so many messages of so many bytes.
    fn has_room(&self, count: usize, bytes: usize) -> bool {
        let (live, live_bytes) = self
            .live()
            .fold((0, 0), |(live, live_bytes), held| (live + 1, live_bytes + held.letter.payload.length));
        (count == 0 || (live + count) as u64 <= self.settings.messages_max)
            && (bytes == 0 || (live_bytes + bytes) as u64 <= self.settings.bytes_max)
    }

    /// Gives the messages of a state in their order.
    fn in_state(&self, state: MessageState) -> Vec<&Held> {
        let mut found: Vec<&Held> =
            self.messages.values().filter(|held| held.letter.state == state).collect();
        found.sort_by_key(|held| match state {
            MessageState::Ready => (-held.letter.priority, held.order),
            MessageState::Dead => (held.letter.died.unwrap_or(0), 0),
            _ => (held.letter.until, 0),
        });
        found
    }

    fn numbers(&self, state: MessageState, until: Micros, limit: usize) -> Vec<u64> {
        let due = self.in_state(state).into_iter().filter(|held| held.letter.until <= until);
        due.take(limit).map(|held| held.letter.id).collect()
    }

    /// Tells whether a message is in flight under a token.
    fn is_held(&self, token: Token) -> bool {
        self.messages.get(&token.message).is_some_and(|held| {
            held.letter.state == MessageState::InFlight && held.letter.fence == token.fence
        })
    }

    fn check(&self, tokens: &[Token]) -> Answer<()> {
        let mut seen = BTreeSet::new();
        if let Some(token) = tokens.iter().find(|token| !seen.insert(**token)) {
            return Err(Refusal::Twice(*token));
        }
        let lost: Vec<Token> = tokens.iter().filter(|token| !self.is_held(**token)).copied().collect();
        if lost.is_empty() { Ok(()) } else { Err(Refusal::Lost(lost)) }
    }

    fn known(&self, key: &str, now: Micros) -> Option<u64> {
        let stands = |known: &&(&str, Micros, u64)| known.0 == key && known.1 > now;
        self.keys.iter().find(stands).map(|(.., id)| *id)
    }

    /// Gives messages back that somebody has; tells what became of each.
    fn give_back(
        &mut self,
        mut ids: Vec<u64>,
        now: Micros,
        delay: Option<Micros>,
        reason: Option<&str>,
        places: &mut i64,
    ) -> BTreeMap<u64, Requeued> {
        if self.settings.requeue_at == RequeueAt::Front {
            ids.sort_by_key(|id| std::cmp::Reverse((self.messages.get(id).map(|held| held.order), *id)));
        }
        let mut outcomes = BTreeMap::new();
        for id in ids {
            let Some(held) = self.messages.get_mut(&id) else { continue };
            let letter = &mut held.letter;
            (letter.fence, held.lease) = (0, None);
            if let Some(reason) = reason {
                letter.reason = Some(reason.to_owned());
            }
            let attempts_max = held.attempts_max.unwrap_or(self.settings.attempts_max);
            let outcome = if attempts_max > 0 && letter.attempts >= attempts_max {
                self.totals.died += 1;
                letter.died = Some(now);
                (letter.state, letter.until) = (MessageState::Dead, 0);
                Requeued::Dead
            } else {
                *places += 1;
                held.order = match self.settings.requeue_at {
                    RequeueAt::Front => -*places,
                    RequeueAt::Back => *places,
                    _ => held.order,
                };
                match delay.unwrap_or_else(|| micros(self.settings.backoff.wait(letter.attempts))) {
                    0 => {
                        (letter.state, letter.until) = (MessageState::Ready, 0);
                        Requeued::Ready
                    }
                    wait => {
                        (letter.state, letter.until) = (MessageState::Delayed, now + wait);
                        Requeued::Delayed { until: now + wait }
                    }
                }
            };
            outcomes.insert(id, outcome);
        }
        outcomes
    }

    /// Sees to what is due; gives how many messages changed.
    fn sweep(&mut self, now: Micros, limit: usize, places: &mut i64) -> u64 {
        let expired = self.numbers(MessageState::InFlight, now, limit);
        let count = expired.len() as u64;
        self.totals.expired += count;
        let _ = self.give_back(expired, now, None, Some(TIME_OVER), places);
        let delayed = self.numbers(MessageState::Delayed, now, limit);
        for id in &delayed {
            if let Some(held) = self.messages.get_mut(id) {
                (held.letter.state, held.letter.until) = (MessageState::Ready, 0);
            }
        }
        count + delayed.len() as u64
    }

    /// Counts everything.
    fn stats(&self) -> QueueStats {
        let mut stats = self.totals.clone();
        let count = |state: MessageState| self.in_state(state).len() as u64;
        stats.ready = count(MessageState::Ready);
        stats.delayed = count(MessageState::Delayed);
        stats.in_flight = count(MessageState::InFlight);
        stats.dead = count(MessageState::Dead);
        stats.bytes = self.live().map(|held| held.letter.payload.length as u64).sum();
        stats.oldest = self.live().map(|held| held.letter.enqueued).min();
        stats
    }
}

/// Turns a time into microseconds.
pub(super) fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX)
}

impl World {
    /// Makes the queues as they are when they were created.
    pub(super) fn new(settings: &[QueueSettings; QUEUES], time: Micros) -> Self {
        let shelves = settings.clone().map(|settings| Shelf {
            settings,
            messages: BTreeMap::new(),
            keys: Vec::new(),
            totals: QueueStats::default(),
        });
        Self { shelves, places: 0, greatest: 0, acknowledged: BTreeSet::new(), time }
    }

    /// Remembers that a number was given out.
    fn number(&mut self, number: u64) -> Result<u64, String> {
        if number <= self.greatest {
            return Err(format!("the number {number} is not new: {} was given out", self.greatest));
        }
        self.greatest = number;
        Ok(number)
    }

    fn place(&mut self) -> i64 {
        self.places += 1;
        self.places
    }

    /// Gives the tokens of what is in flight.
    pub(super) fn tokens(&self, queue: usize) -> Vec<Token> {
        let in_flight = self.shelves[queue].in_state(MessageState::InFlight);
        in_flight.into_iter().map(|held| held.letter.token()).collect()
    }

    /// Tells whether a message is in flight under a token.
    pub(super) fn is_held(&self, queue: usize, token: Token) -> bool {
        self.shelves[queue].is_held(token)
    }

    /// Tells whether there are messages of a state in a queue.
    pub(super) fn has(&self, queue: usize, state: MessageState) -> bool {
        self.shelves[queue].messages.values().any(|held| held.letter.state == state)
    }

    /// Gives how many messages there are in a queue.
    pub(super) fn count(&self, queue: usize) -> u64 {
        self.shelves[queue].messages.len() as u64
    }

    /// Gives the message that a key stands for.
    pub(super) fn known(&self, queue: usize, key: &str, now: Micros) -> Option<u64> {
        self.shelves[queue].known(key, now)
    }

    /// Gives whether nothing can be taken from a queue.
    pub(super) fn is_paused(&self, queue: usize) -> bool {
        self.shelves[queue].settings.is_paused
    }

    /// Enqueues; `told` is what the queue said, which gives the numbers of what is new.
    pub(super) fn enqueue(
        &mut self,
        queue: usize,
        messages: &[New],
        told: &[Enqueued],
    ) -> Result<Answer<Vec<Enqueued>>, String> {
        let (now, shelf) = (self.time, &self.shelves[queue]);
        let mut keys = BTreeSet::new();
        let is_new = |new: &&New| {
            new.dedupe.is_none_or(|(key, _)| shelf.known(key, now).is_none() && keys.insert(key))
        };
        let entering: Vec<&New> = messages.iter().filter(is_new).collect();
        if !shelf.has_room(entering.len(), entering.iter().map(|new| new.payload.length).sum()) {
            return Ok(Err(Refusal::Full));
        }
        let mut numbers = told.iter().filter_map(|told| match told {
            Enqueued::New(id) => Some(*id),
            Enqueued::Duplicate(_) => None,
        });
        let mut enqueued = Vec::new();
        for new in messages {
            if let Some(id) = new.dedupe.and_then(|(key, _)| self.known(queue, key, now)) {
                enqueued.push(Enqueued::Duplicate(id));
                continue;
            }
            let id = numbers.next().ok_or("a message was not enqueued, and nothing was refused")?;
            let (id, order) = (self.number(id)?, self.place());
            let is_delayed = new.delay > 0;
            let letter = Letter {
                id,
                state: if is_delayed { MessageState::Delayed } else { MessageState::Ready },
                priority: new.priority,
                attempts: 0,
                enqueued: now,
                until: if is_delayed { now + new.delay } else { 0 },
                reason: None,
                origin: None,
                died: None,
                fence: 0,
                payload: new.payload,
            };
            let shelf = &mut self.shelves[queue];
            shelf.messages.insert(id, Held { letter, order, attempts_max: new.attempts_max, lease: None });
            shelf.keys.extend(new.dedupe.map(|(key, window)| (key, now + window, id)));
            shelf.totals.enqueued += 1;
            enqueued.push(Enqueued::New(id));
        }
        Ok(Ok(enqueued))
    }

    /// Takes messages; `told` is what the queue gave, which has the numbers of the deliveries.
    pub(super) fn dequeue(
        &mut self,
        queue: usize,
        count: usize,
        lease: Option<Micros>,
        told: &[Letter],
    ) -> Result<Answer<Vec<Letter>>, String> {
        let now = self.time;
        let Self { shelves, places, .. } = self;
        let shelf = &mut shelves[queue];
        if shelf.settings.is_paused {
            return Ok(Err(Refusal::Paused));
        }
        shelf.sweep(now, 100, places);
        let until = now + lease.unwrap_or_else(|| micros(shelf.settings.visibility));
        let mut taken = Vec::new();
        for (at, id) in shelf.numbers(MessageState::Ready, Micros::MAX, count).into_iter().enumerate() {
            let fence = told.get(at).map(|letter| letter.fence).ok_or("a message was not taken")?;
            let fence = self.number(fence)?;
            let shelf = &mut self.shelves[queue];
            let Some(held) = shelf.messages.get_mut(&id) else { continue };
            let letter = &mut held.letter;
            (letter.state, letter.until, letter.fence) = (MessageState::InFlight, until, fence);
            letter.attempts += 1;
            held.lease = lease;
            shelf.totals.dequeued += 1;
            let waited_ms = u64::try_from((now - letter.enqueued) / 1_000).unwrap_or(0);
            let last = shelf.totals.waits.len() - 1;
            let class = (0..last).find(|class| waited_ms < 1 << (2 * class)).unwrap_or(last);
            shelf.totals.waits[class] += 1;
            taken.push(letter.clone());
        }
        Ok(Ok(taken))
    }

    /// Acknowledges all of them, or none.
    pub(super) fn ack(&mut self, queue: usize, tokens: &[Token]) -> Answer<()> {
        let shelf = &mut self.shelves[queue];
        shelf.check(tokens)?;
        for token in tokens {
            shelf.messages.remove(&token.message);
            self.acknowledged.insert(token.message);
        }
        shelf.totals.acked += tokens.len() as u64;
        Ok(())
    }

    /// Gives all of them back, or none.
    pub(super) fn nack(
        &mut self,
        queue: usize,
        tokens: &[Token],
        delay: Option<Micros>,
        reason: Option<&str>,
    ) -> Answer<Vec<Requeued>> {
        let now = self.time;
        let Self { shelves, places, .. } = self;
        let shelf = &mut shelves[queue];
        shelf.check(tokens)?;
        shelf.totals.nacked += tokens.len() as u64;
        let ids = tokens.iter().map(|token| token.message).collect();
        let outcomes = shelf.give_back(ids, now, delay, reason, places);
        Ok(tokens.iter().filter_map(|token| outcomes.get(&token.message).copied()).collect())
    }

    /// Gives whoever has a message this time from now on, or that which he took it for.
    pub(super) fn extend(&mut self, queue: usize, token: Token, time: Option<Micros>) -> Answer<Micros> {
        let (now, shelf) = (self.time, &mut self.shelves[queue]);
        shelf.check(&[token])?;
        let mut until = now;
        if let Some(held) = shelf.messages.get_mut(&token.message) {
            until = now + time.or(held.lease).unwrap_or_else(|| micros(shelf.settings.visibility));
            held.letter.until = until;
        }
        Ok(until)
    }

    /// Finds what is past its time.
    pub(super) fn expired(&self, queue: usize, limit: usize) -> Vec<Token> {
        let shelf = &self.shelves[queue];
        let due = shelf.in_state(MessageState::InFlight);
        let due = due.into_iter().filter(|held| held.letter.until <= self.time);
        due.take(limit).map(|held| held.letter.token()).collect()
    }

    /// Takes back what somebody has until a time at most.
    pub(super) fn take_back(
        &mut self,
        queue: usize,
        tokens: &[Token],
        until: Micros,
    ) -> Vec<(Token, Option<Requeued>)> {
        let now = self.time;
        let Self { shelves, places, .. } = self;
        let shelf = &mut shelves[queue];
        let is_due = |token: &&Token| {
            let held = shelf.messages.get(&token.message);
            shelf.is_held(**token) && held.is_some_and(|held| held.letter.until <= until)
        };
        let mut due: BTreeSet<Token> = tokens.iter().filter(is_due).copied().collect();
        shelf.totals.expired += due.len() as u64;
        let ids = due.iter().map(|token| token.message).collect();
        let outcomes = shelf.give_back(ids, now, None, Some(TIME_OVER), places);
        // Of a token that is there twice the second finds nothing.
        let mut outcome = |token: &Token| outcomes.get(&token.message).copied().filter(|_| due.remove(token));
        tokens.iter().map(|token| (*token, outcome(token))).collect()
    }

    /// Sees to what is due.
    pub(super) fn sweep(&mut self, queue: usize, limit: usize) -> u64 {
        let Self { shelves, places, time, .. } = self;
        shelves[queue].sweep(*time, limit, places)
    }

    /// Moves messages to the other queue, where they have these numbers.
    pub(super) fn move_to(
        &mut self,
        queue: usize,
        state: MessageState,
        limit: usize,
        numbers: &[u64],
    ) -> Result<Answer<u64>, String> {
        let other = 1 - queue;
        let moving = self.shelves[queue].numbers(state, Micros::MAX, limit);
        let length =
            |id: &u64| self.shelves[queue].messages.get(id).map_or(0, |held| held.letter.payload.length);
        if !self.shelves[other].has_room(moving.len(), moving.iter().map(length).sum()) {
            return Ok(Err(Refusal::Full));
        }
        if numbers.len() != moving.len() {
            return Err(format!("{} messages came where {} should have", numbers.len(), moving.len()));
        }
        for (before, id) in moving.iter().zip(numbers) {
            let (id, order) = (self.number(*id)?, self.place());
            let Some(mut held) = self.shelves[queue].messages.remove(before) else { continue };
            held.letter = Letter {
                id,
                state: MessageState::Ready,
                until: 0,
                attempts: 0,
                died: None,
                origin: Some(NAMES[queue].to_owned()),
                ..held.letter
            };
            self.shelves[other].messages.insert(id, Held { order, ..held });
        }
        self.shelves[queue].totals.purged += moving.len() as u64;
        self.shelves[other].totals.enqueued += moving.len() as u64;
        Ok(Ok(moving.len() as u64))
    }

    /// Lets dead letters be taken again, as many as there is room for.
    pub(super) fn redrive(&mut self, queue: usize, limit: usize) -> Answer<u64> {
        let shelf = &mut self.shelves[queue];
        let mut count = 0;
        for id in shelf.numbers(MessageState::Dead, Micros::MAX, limit) {
            let length = shelf.messages.get(&id).map_or(0, |held| held.letter.payload.length);
            if !shelf.has_room(1, length) {
                return if count == 0 { Err(Refusal::Full) } else { Ok(count) };
            }
            if let Some(held) = shelf.messages.get_mut(&id) {
                let letter = &mut held.letter;
                (letter.state, letter.attempts, letter.died) = (MessageState::Ready, 0, None);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes everything.
    pub(super) fn purge(&mut self, queue: usize) -> u64 {
        let shelf = &mut self.shelves[queue];
        let count = std::mem::take(&mut shelf.messages).len() as u64;
        shelf.totals.purged += count;
        count
    }

    /// Removes dead letters.
    pub(super) fn purge_dead(&mut self, queue: usize, limit: usize) -> u64 {
        let shelf = &mut self.shelves[queue];
        let dead = shelf.numbers(MessageState::Dead, Micros::MAX, limit);
        dead.iter().for_each(|id| drop(shelf.messages.remove(id)));
        shelf.totals.purged += dead.len() as u64;
        dead.len() as u64
    }

    /// Says whether anything can be taken.
    pub(super) fn set_paused(&mut self, queue: usize, is_paused: bool) {
        self.shelves[queue].settings.is_paused = is_paused;
    }

    /// Holds what was found against it.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub(super) fn compare(&self, found: &[Found; QUEUES]) -> Result<(), String> {
        let mut places: BTreeMap<u64, (usize, &Letter)> = BTreeMap::new();
        for (queue, found) in found.iter().enumerate() {
            for letter in found.letters.iter().flatten() {
                if places.insert(letter.id, (queue, letter)).is_some() {
                    return Err(format!("message {} is there twice", letter.id));
                }
            }
        }
        for (queue, shelf) in self.shelves.iter().enumerate() {
            for (id, held) in &shelf.messages {
                match places.remove(id) {
                    None => return Err(format!("message {id} is lost: {:?}", held.letter)),
                    Some((there, letter)) if there != queue || *letter != held.letter => {
                        return Err(format!(
                            "message {id} is {letter:?} in {}, and was {:?} in {}",
                            NAMES[there], held.letter, NAMES[queue]
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        if let Some((id, (queue, letter))) = places.pop_first() {
            let what = match (self.acknowledged.contains(&id), id > self.greatest) {
                (true, _) => "was acknowledged, and came back",
                (false, true) => "came out of nowhere",
                (false, false) => "was purged or moved, and came back",
            };
            return Err(format!("message {id} {what}: {letter:?} in {}", NAMES[queue]));
        }
        for ((shelf, found), name) in self.shelves.iter().zip(found).zip(NAMES) {
            for (state, letters) in STATES.into_iter().zip(&found.letters) {
                let order: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
                let expected = shelf.numbers(state, Micros::MAX, usize::MAX);
                if order != expected {
                    return Err(format!("of {name}, {state:?} are {order:?} in turn, and not {expected:?}"));
                }
            }
            let stats = shelf.stats();
            if found.stats != stats {
                return Err(format!("{name} counts {:?}, where there are {stats:?}", found.stats));
            }
            if found.settings != shelf.settings {
                return Err(format!("{name} works by {:?}, and not by {:?}", found.settings, shelf.settings));
            }
        }
        Ok(())
    }
}
