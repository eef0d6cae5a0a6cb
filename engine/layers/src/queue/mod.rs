//! A message queue: every message is taken by one consumer at a time, for a time, until it is acknowledged.
//!
//! A queue is a collection, under a key of the application's choice; one row is one message, with its state:
//!
//! ```text
//!            enqueue              dequeue                ack
//!   (new) ─────────────▶ ready ─────────────▶ in flight ─────▶ (gone)
//!      └──▶ delayed ──▶    ▲  ◀── nack, time over ──┘  └──▶ dead ──▶ redrive ──▶ ready
//! ```
//!
//! Whoever takes a message gets a token with a number that no other delivery ever has. What comes with an old one changes
//! nothing and is told so, [`LeaseLost`](QueueError::LeaseLost); so no message is acknowledged twice, however late anybody
//! is. A lease that is past its time holds until the message is taken back: by [`Queue::sweep`], or by the next
//! [`Queue::dequeue`].
//!
//! Messages of the same priority are taken in the order in which they were enqueued; one that is given back goes to its old
//! place, or where the settings say. Dead letters stay in their queue, in a state of their own: they have no queue that could
//! breed more, and keep where they were, how often they were tried, and why they were given up.
//!
//! Times are those of the transaction. Producers need the right to enqueue at the key of the queue and below it, consumers the
//! right to consume; who creates one, the right to manage, and to write its settings, the right to write.

mod books;
mod consumer;
mod error;
mod message;
mod settings;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use larder::{
    Aggregate, AggregateDefinition, CollectionDefinition, CollectionMut, CollectionRights, Edit, ErrorKind,
    IndexDefinition, Key, Micros, Part, ReadTxn, Record, Right, RowDraft, RowRange, WriteTxn,
};

use parking_lot::Mutex;

use self::books::{TOTALS, Totals, WAIT_CLASSES};
pub use self::error::QueueError;
use self::error::{invalid, micros};
pub use self::message::{Envelope, Message, MessageState, Token};
pub use self::settings::{Backoff, QueueSettings, RequeueAt};

type Result<T> = std::result::Result<T, QueueError>;

/// The most bytes of the name of a queue.
const NAME_LENGTH_MAX: usize = 128;
/// The most messages that are taken, enqueued or looked at in one go.
const AT_ONCE_MAX: usize = 10_000;
/// How many messages whose time has come are seen to by somebody who takes one.
const SWEPT_BY_DEQUEUE: usize = 100;

/// Where queues lie.
#[derive(Debug, Clone)]
pub struct Queues {
    root: Key,
}

impl Queues {
    /// Names the place, which need not be there yet.
    ///
    /// # Errors
    /// [`Store`](QueueError::Store) with `InvalidKey`.
    pub fn at(root: &str) -> Result<Self> {
        Ok(Self { root: Key::parse(root).map_err(larder::Error::from)? })
    }

    /// Names a queue, which need not be there yet: 1 to 128 letters, digits, `_` and `-`.
    ///
    /// # Errors
    /// [`InvalidName`](QueueError::InvalidName).
    pub fn queue(&self, name: &str) -> Result<Queue> {
        let reason = if name.is_empty() {
            "it is empty"
        } else if name.len() > NAME_LENGTH_MAX {
            "it has more than 128 bytes"
        } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
            "it has something else than letters, digits, _ and -"
        } else {
            let key = Key::parse(&format!("{}/{name}", self.root)).map_err(larder::Error::from)?;
            let books = Key::parse(&format!("{key}/books")).map_err(larder::Error::from)?;
            return Ok(Queue { key, books, known: Arc::default() });
        };
        Err(QueueError::InvalidName { name: name.chars().take(64).collect(), reason })
    }

    /// Lists the queues that are there, in the order of their names.
    ///
    /// # Errors
    /// [`Store`](QueueError::Store).
    pub fn list(&self, view: &ReadTxn) -> Result<Vec<Queue>> {
        let entries = match view.list(&self.root) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.iter().filter(|entry| entry.record.as_ref().is_some_and(Record::is_collection));
        names.map(|entry| self.queue(entry.name())).collect()
    }
}

/// A queue, by name. Cheap to clone; holds nothing open.
#[derive(Debug, Clone)]
pub struct Queue {
    key: Key,
    books: Key,
    /// What its record said when it was last looked at, and which settings that are.
    known: Arc<Mutex<Option<(Record, QueueSettings)>>>,
}

impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Queue {}

/// What became of a message that was to be enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Enqueued {
    /// It was enqueued under this number.
    New(u64),
    /// One with the same key was enqueued within the window, under this number; nothing was.
    Duplicate(u64),
}

impl Enqueued {
    /// Gives the number of the message that stands for it.
    pub fn id(self) -> u64 {
        match self {
            Self::New(id) | Self::Duplicate(id) => id,
        }
    }
}

/// What became of a message that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Requeued {
    /// It can be taken again.
    Ready,
    /// It can be taken from then on.
    Delayed {
        /// When.
        until: Micros,
    },
    /// It was tried as often as it may be, and is a dead letter.
    Dead,
}

/// How somebody gives a message back.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Nack {
    delay: Option<Duration>,
    reason: Option<String>,
}

impl Nack {
    /// Gives it back as the message, or the queue, says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets it wait for this time.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Says why.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// How a queue is: counted when it changes, not when it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct QueueStats {
    /// Messages that can be taken.
    pub ready: u64,
    /// Messages that wait for their time.
    pub delayed: u64,
    /// Messages that somebody has.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
    /// The bytes of the payloads of all of them but the dead letters.
    pub bytes: u64,
    /// When the oldest message that is not dead was enqueued.
    pub oldest: Option<Micros>,
    /// Messages that were ever enqueued.
    pub enqueued: u64,
    /// Deliveries that there ever were.
    pub dequeued: u64,
    /// Messages that were ever acknowledged.
    pub acked: u64,
    /// How often one was given back.
    pub nacked: u64,
    /// How often the time of one was over.
    pub expired: u64,
    /// Messages that ever became dead letters.
    pub died: u64,
    /// Messages that were ever removed without being delivered: purged, or moved to another queue.
    pub purged: u64,
    /// How many deliveries there were below 1 ms after the message was enqueued, below 4 ms, below 16 ms, and so on; the
    /// last is of all others.
    pub waits: [u64; WAIT_CLASSES],
}

fn definition() -> CollectionDefinition {
    let state = |state: MessageState| [state.number()];
    let live = [MessageState::Ready, MessageState::Delayed, MessageState::InFlight].map(MessageState::number);
    CollectionDefinition::new()
        .index(IndexDefinition::new("ready").by_descending("p").by("o").only("s", state(MessageState::Ready)))
        .index(IndexDefinition::new("delayed").by("t").only("s", state(MessageState::Delayed)))
        .index(IndexDefinition::new("expired").by("t").only("s", state(MessageState::InFlight)))
        .index(IndexDefinition::new("dead").by("d").only("s", state(MessageState::Dead)))
        .index(IndexDefinition::new("age").by("e").only("s", live))
        .aggregate(AggregateDefinition::new("state").group_by("s").sum("b"))
        .aggregate(AggregateDefinition::new("live").sum("b").only("s", live))
        .rights(CollectionRights {
            read: vec![Right::READ, Right::CONSUME],
            insert: vec![Right::ENQUEUE],
            change: vec![Right::CONSUME],
            remove: vec![Right::CONSUME],
        })
}

/// Totals, and the keys that messages are told apart by.
fn books_definition() -> CollectionDefinition {
    let anyone = vec![Right::ENQUEUE, Right::CONSUME];
    CollectionDefinition::new().index(IndexDefinition::new("until").by("u")).rights(CollectionRights {
        read: vec![Right::READ, Right::ENQUEUE, Right::CONSUME],
        insert: anyone.clone(),
        change: anyone.clone(),
        remove: anyone,
    })
}

impl Queue {
    /// Gives the key that the queue lies under.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Gives the name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// Creates the queue; one that is there is left as it is, messages and settings. Tells whether it was not there.
    ///
    /// # Errors
    /// [`InvalidArgument`](QueueError::InvalidArgument) for a setting; [`Store`](QueueError::Store).
    pub fn create(&self, txn: &mut WriteTxn<'_>, settings: &QueueSettings) -> Result<bool> {
        settings.check()?;
        if txn.define_collection(&self.key, &definition())? != larder::Defined::Created {
            return Ok(false);
        }
        let _ = txn.define_collection(&self.books, &books_definition())?;
        txn.annotate(&self.key, settings.annotation())?;
        Ok(true)
    }

    /// Sets how the queue works, from now on.
    ///
    /// # Errors
    /// As [`Queue::create`], and [`NoSuchQueue`](QueueError::NoSuchQueue).
    pub fn configure(&self, txn: &mut WriteTxn<'_>, settings: &QueueSettings) -> Result<()> {
        settings.check()?;
        self.open(txn)?;
        txn.annotate(&self.key, settings.annotation())?;
        Ok(())
    }

    /// Lets nobody take anything, until the queue is resumed. What is in flight can be acknowledged and given back.
    ///
    /// # Errors
    /// As [`Queue::configure`].
    pub fn pause(&self, txn: &mut WriteTxn<'_>) -> Result<()> {
        self.set_paused(txn, true)
    }

    /// Lets messages be taken again.
    ///
    /// # Errors
    /// As [`Queue::configure`].
    pub fn resume(&self, txn: &mut WriteTxn<'_>) -> Result<()> {
        self.set_paused(txn, false)
    }

    fn set_paused(&self, txn: &mut WriteTxn<'_>, is_paused: bool) -> Result<()> {
        let (_, settings) = self.open(txn)?;
        self.configure(txn, &QueueSettings { is_paused, ..settings })
    }

    /// Gives how the queue works.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn settings(&self, view: &ReadTxn) -> Result<QueueSettings> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        Ok(self.settings_of(rows.record()))
    }

    /// Removes the queue with all that is in it; tells whether it was there.
    ///
    /// # Errors
    /// [`Store`](QueueError::Store): it takes the right to delete.
    pub fn delete(&self, txn: &mut WriteTxn<'_>) -> Result<bool> {
        Ok(txn.apply(Edit::delete_tree(&self.key))?.is_done())
    }

    fn missing(&self, error: larder::Error) -> QueueError {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotACollection => {
                QueueError::NoSuchQueue { name: self.name().to_owned() }
            }
            _ => error.into(),
        }
    }

    fn open<'t, 's>(&self, txn: &'t mut WriteTxn<'s>) -> Result<(CollectionMut<'t, 's>, QueueSettings)> {
        let rows = txn.collection(&self.key).map_err(|error| self.missing(error))?;
        let settings = self.settings_of(rows.record());
        Ok((rows, settings))
    }

    fn settings_of(&self, record: &Record) -> QueueSettings {
        let mut known = self.known.lock();
        match &*known {
            Some((of, settings)) if of == record => settings.clone(),
            _ => {
                let settings = QueueSettings::of(record);
                *known = Some((record.clone(), settings.clone()));
                settings
            }
        }
    }

    fn book(&self, txn: &mut WriteTxn<'_>, totals: &Totals) -> Result<()> {
        totals.book(&mut txn.collection(&self.books)?)
    }

    fn read(&self, row: &larder::Row) -> Result<Envelope> {
        Envelope::of(row).ok_or_else(|| self.malformed(row.key().parts(), "fields are missing"))
    }

    fn malformed(&self, key: &[Part], what: &'static str) -> QueueError {
        let row = match key {
            [Part::Integer(id)] => u64::try_from(*id).unwrap_or(0),
            _ => 0,
        };
        QueueError::Malformed { name: self.name().to_owned(), row, what }
    }

    // ---- in

    /// Enqueues a message.
    ///
    /// # Errors
    /// As [`Queue::enqueue_all`].
    pub fn enqueue(&self, txn: &mut WriteTxn<'_>, message: impl Into<Message>) -> Result<Enqueued> {
        let enqueued = self.enqueue_all(txn, [message.into()])?;
        enqueued.first().copied().ok_or_else(|| self.malformed(&[], "nothing was enqueued"))
    }

    /// Enqueues messages, in this order: all of them, or none. Gives what became of each.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue); [`InvalidArgument`](QueueError::InvalidArgument);
    /// [`MessageTooLarge`](QueueError::MessageTooLarge) and [`BatchTooLarge`](QueueError::BatchTooLarge), before anything is
    /// said of the queue's room; [`QueueFull`](QueueError::QueueFull); [`Store`](QueueError::Store).
    pub fn enqueue_all(
        &self,
        txn: &mut WriteTxn<'_>,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<Enqueued>> {
        let messages: Vec<Message> = messages.into_iter().collect();
        let now = txn.info().time;
        let (rows, settings) = self.open(txn)?;
        let live = rows.aggregate("live", &[])?;
        check_sizes(&messages, &settings)?;
        // What is a duplicate takes no room.
        let mut duplicates = Vec::with_capacity(messages.len());
        let mut windows: BTreeSet<&str> = BTreeSet::new();
        for message in &messages {
            let known = match &message.dedupe {
                None => None,
                Some((key, _)) => self.enqueued_before(txn, key, now)?,
            };
            let is_again = message.dedupe.as_ref().is_some_and(|(key, _)| !windows.insert(key));
            duplicates.push((known, is_again));
        }
        let fresh =
            || messages.iter().zip(&duplicates).filter(|(_, (known, again))| known.is_none() && !again);
        let bytes: u64 = fresh().map(|(message, _)| message.payload.len() as u64).sum();
        check_room(&settings, &live, fresh().count() as u64, bytes)?;
        let mut totals = Totals::default();
        let mut enqueued = Vec::with_capacity(messages.len());
        for (message, (known, _)) in messages.into_iter().zip(duplicates) {
            // One of the same batch is known by now.
            let known = match (&message.dedupe, known) {
                (Some((key, _)), None) => self.enqueued_before(txn, key, now)?,
                (_, known) => known,
            };
            if let Some(id) = known {
                enqueued.push(Enqueued::Duplicate(id));
                continue;
            }
            let id = txn.unique_number();
            if let Some((key, window)) = &message.dedupe {
                let until = now.saturating_add(micros("dedupe window", *window, false)?);
                let draft = RowDraft::default().field("i", id).field("u", until);
                txn.collection(&self.books)?.put(("d", key.as_str(), until), draft)?;
            }
            let envelope = Envelope::new(id, message, now)?;
            self.put_new(txn, &envelope)?;
            totals.enqueued += 1;
            enqueued.push(Enqueued::New(id));
        }
        self.book(txn, &totals)?;
        Ok(enqueued)
    }

    fn enqueued_before(&self, txn: &mut WriteTxn<'_>, key: &str, now: Micros) -> Result<Option<u64>> {
        let books = txn.collection(&self.books)?;
        let known = books.page(&RowRange::all().with("d").with(key).at_least(now + 1).limit(1))?;
        Ok(known.rows.first().and_then(|row| u64::try_from(row.integer("i")?).ok()))
    }

    fn put_new(&self, txn: &mut WriteTxn<'_>, envelope: &Envelope) -> Result<()> {
        let mut rows = txn.collection(&self.key)?;
        rows.put(envelope.id, envelope.draft())?;
        if envelope.is_apart {
            rows.put(("b", envelope.id), envelope.payload.clone())?;
        }
        Ok(())
    }

    // ---- out

    /// Takes the next message, for the queue's time; `None` if there is none.
    ///
    /// # Errors
    /// As [`Queue::dequeue_up_to`].
    pub fn dequeue(&self, txn: &mut WriteTxn<'_>) -> Result<Option<Envelope>> {
        Ok(self.dequeue_up_to(txn, 1, None)?.pop())
    }

    /// Takes up to so many messages, 1 to 10 000, for a time, or that of the queue; in their order.
    ///
    /// Messages whose time has come are seen to first, as by [`Queue::sweep`], 100 of each kind at most.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Paused`](QueueError::Paused),
    /// [`InvalidArgument`](QueueError::InvalidArgument), [`Store`](QueueError::Store).
    pub fn dequeue_up_to(
        &self,
        txn: &mut WriteTxn<'_>,
        count: usize,
        visibility: Option<Duration>,
    ) -> Result<Vec<Envelope>> {
        if !(1..=AT_ONCE_MAX).contains(&count) {
            return Err(invalid("count", format!("1 to {AT_ONCE_MAX}"), count));
        }
        let now = txn.info().time;
        let (_, settings) = self.open(txn)?;
        if settings.is_paused {
            return Err(QueueError::Paused { name: self.name().to_owned() });
        }
        let visibility = micros("visibility", visibility.unwrap_or(settings.visibility), false)?;
        let mut totals = self.sweep_rows(txn, now, SWEPT_BY_DEQUEUE)?;
        let (mut rows, _) = self.open(txn)?;
        let ready = rows.find("ready", &RowRange::all().limit(count))?.rows;
        let mut taken = Vec::with_capacity(ready.len());
        for row in ready {
            let mut envelope = self.read(&row)?;
            envelope.state = MessageState::InFlight;
            envelope.attempts = envelope.attempts.saturating_add(1);
            envelope.until = now.saturating_add(visibility);
            envelope.fence = rows.txn().unique_number();
            rows.put(envelope.id, envelope.draft())?;
            if envelope.is_apart {
                let apart = rows.get(("b", envelope.id))?;
                let apart =
                    apart.ok_or_else(|| self.malformed(row.key().parts(), "its payload is not there"))?;
                envelope.payload = apart.value().clone();
            }
            totals.deliver(now - envelope.enqueued);
            taken.push(envelope);
        }
        self.book(txn, &totals)?;
        Ok(taken)
    }

    /// Finds what is in flight under a token; what is not is none.
    fn held(&self, rows: &CollectionMut<'_, '_>, token: Token) -> Result<Option<Envelope>> {
        let Some(row) = rows.get(token.message)? else { return Ok(None) };
        let envelope = self.read(&row)?;
        Ok(Some(envelope).filter(|held| held.state == MessageState::InFlight && held.fence == token.fence))
    }

    /// Finds what is in flight under all of some tokens, or says which of them are lost.
    fn all_held(&self, rows: &CollectionMut<'_, '_>, tokens: &[Token]) -> Result<Vec<Envelope>> {
        let mut seen = BTreeSet::new();
        if let Some(token) = tokens.iter().find(|token| !seen.insert(**token)) {
            return Err(QueueError::DuplicateToken { token: *token });
        }
        let (mut held, mut lost) = (Vec::with_capacity(tokens.len()), Vec::new());
        for token in tokens {
            match self.held(rows, *token)? {
                Some(envelope) => held.push(envelope),
                None => lost.push(*token),
            }
        }
        if lost.is_empty() { Ok(held) } else { Err(QueueError::LeaseLost { tokens: lost }) }
    }

    fn remove(&self, rows: &mut CollectionMut<'_, '_>, envelope: &Envelope) -> Result<()> {
        rows.remove(envelope.id)?;
        if envelope.is_apart {
            rows.remove(("b", envelope.id))?;
        }
        Ok(())
    }

    /// Acknowledges a message: it is done, and gone.
    ///
    /// # Errors
    /// [`LeaseLost`](QueueError::LeaseLost), [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn ack(&self, txn: &mut WriteTxn<'_>, token: Token) -> Result<()> {
        self.ack_all(txn, &[token])
    }

    /// Acknowledges messages: all of them, or none.
    ///
    /// # Errors
    /// As [`Queue::ack`], with every token that is lost; [`DuplicateToken`](QueueError::DuplicateToken).
    pub fn ack_all(&self, txn: &mut WriteTxn<'_>, tokens: &[Token]) -> Result<()> {
        let (mut rows, _) = self.open(txn)?;
        let held = self.all_held(&rows, tokens)?;
        held.iter().try_for_each(|envelope| self.remove(&mut rows, envelope))?;
        self.book(txn, &Totals { acked: held.len() as u64, ..Totals::default() })
    }

    /// Gives a message back.
    ///
    /// # Errors
    /// As [`Queue::ack`]; [`InvalidArgument`](QueueError::InvalidArgument) for the delay.
    pub fn nack(&self, txn: &mut WriteTxn<'_>, token: Token, nack: &Nack) -> Result<Requeued> {
        let requeued = self.nack_all(txn, &[token], nack)?;
        requeued.first().copied().ok_or_else(|| self.malformed(&[], "nothing was given back"))
    }

    /// Gives messages back: all of them, or none.
    ///
    /// # Errors
    /// As [`Queue::ack_all`]; [`InvalidArgument`](QueueError::InvalidArgument) for the delay.
    pub fn nack_all(&self, txn: &mut WriteTxn<'_>, tokens: &[Token], nack: &Nack) -> Result<Vec<Requeued>> {
        let delay = nack.delay.map(|delay| micros("delay", delay, true)).transpose()?;
        let (mut rows, settings) = self.open(txn)?;
        let held = self.all_held(&rows, tokens)?;
        let mut totals = Totals { nacked: held.len() as u64, ..Totals::default() };
        let requeued: Result<Vec<_>> = held
            .into_iter()
            .map(|envelope| {
                give_back(&mut rows, &settings, envelope, delay, nack.reason.as_deref(), &mut totals)
            })
            .collect();
        let requeued = requeued?;
        self.book(txn, &totals)?;
        Ok(requeued)
    }

    /// Gives whoever has a message more time, from now on; gives when it is over.
    ///
    /// # Errors
    /// As [`Queue::ack`]; [`InvalidArgument`](QueueError::InvalidArgument) for a time of 0 or of more than 100 years.
    pub fn extend(&self, txn: &mut WriteTxn<'_>, token: Token, time: Duration) -> Result<Micros> {
        let until = txn.info().time.saturating_add(micros("time", time, false)?);
        let (mut rows, _) = self.open(txn)?;
        let envelopes = self.all_held(&rows, &[token])?;
        for envelope in envelopes {
            rows.put(envelope.id, Envelope { until, ..envelope }.draft())?;
        }
        Ok(until)
    }

    /// Says that whoever has a message is still at work: gives it the queue's time again, from now on.
    ///
    /// # Errors
    /// As [`Queue::ack`].
    pub fn heartbeat(&self, txn: &mut WriteTxn<'_>, token: Token) -> Result<Micros> {
        let (_, settings) = self.open(txn)?;
        self.extend(txn, token, settings.visibility)
    }

    // ---- time

    /// Finds messages whose time with whoever has them is over, the longest first. Changes nothing.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn expired(&self, view: &ReadTxn, now: Micros, limit: usize) -> Result<Vec<Token>> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let page = rows.find("expired", &RowRange::all().at_most(now).limit(limit))?;
        page.rows.iter().map(|row| self.read(row).map(|envelope| envelope.token())).collect()
    }

    /// Takes messages back from whoever has them, whether or not their time is over; tells of each what became of it,
    /// `None` if it was acknowledged or given back before.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn take_back(
        &self,
        txn: &mut WriteTxn<'_>,
        tokens: &[Token],
    ) -> Result<Vec<(Token, Option<Requeued>)>> {
        let (mut rows, settings) = self.open(txn)?;
        let (mut totals, mut outcomes) = (Totals::default(), Vec::with_capacity(tokens.len()));
        for token in tokens {
            let outcome = match self.held(&rows, *token)? {
                None => None,
                Some(envelope) => {
                    totals.expired += 1;
                    Some(give_back(&mut rows, &settings, envelope, None, Some(TIME_OVER), &mut totals)?)
                }
            };
            outcomes.push((*token, outcome));
        }
        self.book(txn, &totals)?;
        Ok(outcomes)
    }

    /// Sees to what is due, of each kind at most `limit`: takes back messages whose time is over, lets those be taken whose
    /// delay is, and forgets keys whose window is. Gives how many messages changed.
    ///
    /// # Errors
    /// As [`Queue::take_back`].
    pub fn sweep(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let now = txn.info().time;
        let before = self.due(txn, now, limit)?;
        let totals = self.sweep_rows(txn, now, limit)?;
        self.book(txn, &totals)?;
        let mut books = txn.collection(&self.books)?;
        for row in books.find("until", &RowRange::all().at_most(now).limit(limit.max(1)))?.rows {
            books.remove(row.key())?;
        }
        Ok(before)
    }

    fn due(&self, txn: &mut WriteTxn<'_>, now: Micros, limit: usize) -> Result<u64> {
        let (mut rows, _) = self.open(txn)?;
        let range = RowRange::all().at_most(now).limit(limit.max(1));
        Ok((rows.find("expired", &range)?.rows.len() + rows.find("delayed", &range)?.rows.len()) as u64)
    }

    fn sweep_rows(&self, txn: &mut WriteTxn<'_>, now: Micros, limit: usize) -> Result<Totals> {
        let (mut rows, settings) = self.open(txn)?;
        let (mut totals, range) = (Totals::default(), RowRange::all().at_most(now).limit(limit.max(1)));
        for row in rows.find("expired", &range)?.rows {
            let envelope = self.read(&row)?;
            totals.expired += 1;
            let _ = give_back(&mut rows, &settings, envelope, None, Some(TIME_OVER), &mut totals)?;
        }
        for row in rows.find("delayed", &range)?.rows {
            let envelope = self.read(&row)?;
            rows.put(envelope.id, Envelope { state: MessageState::Ready, until: 0, ..envelope }.draft())?;
        }
        Ok(totals)
    }

    /// Tells when the queue has something to see to next: a delay or somebody's time that is over.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn next_due(&self, view: &ReadTxn) -> Result<Option<Micros>> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let mut next: Option<Micros> = None;
        for index in ["expired", "delayed"] {
            let first = rows.find(index, &RowRange::all().limit(1))?.rows;
            let at = first.first().and_then(|row| row.integer("t"));
            next = [next, at].into_iter().flatten().min();
        }
        Ok(next)
    }

    // ---- looking, and keeping order

    /// Shows messages in a state, without taking them: those that can be taken in the order in which they will be.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn peek(&self, view: &ReadTxn, state: MessageState, limit: usize) -> Result<Vec<Envelope>> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let page = rows.find(index_of(state), &RowRange::all().limit(limit))?;
        let mut envelopes = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            let mut envelope = self.read(row)?;
            if envelope.is_apart {
                let apart = rows.get(("b", envelope.id))?;
                let apart =
                    apart.ok_or_else(|| self.malformed(row.key().parts(), "its payload is not there"))?;
                envelope.payload = apart.value().clone();
            }
            envelopes.push(envelope);
        }
        Ok(envelopes)
    }

    /// Removes everything from the queue, what is in flight too; gives how many messages went.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn purge(&self, txn: &mut WriteTxn<'_>) -> Result<u64> {
        let (mut rows, _) = self.open(txn)?;
        let dead = rows.aggregate("state", &[MessageState::Dead.number().into()])?.count;
        let purged = rows.aggregate("live", &[])?.count + dead;
        rows.clear()?;
        self.book(txn, &Totals { purged, ..Totals::default() })?;
        Ok(purged)
    }

    /// Removes dead letters, the oldest first; gives how many went.
    ///
    /// # Errors
    /// As [`Queue::purge`].
    pub fn purge_dead(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let (mut rows, _) = self.open(txn)?;
        let dead = rows.find("dead", &RowRange::all().limit(limit))?.rows;
        for row in &dead {
            let envelope = self.read(row)?;
            self.remove(&mut rows, &envelope)?;
        }
        self.book(txn, &Totals { purged: dead.len() as u64, ..Totals::default() })?;
        Ok(dead.len() as u64)
    }

    /// Lets dead letters be taken again, the oldest first, as if they had never been tried; gives how many.
    ///
    /// # Errors
    /// As [`Queue::purge`].
    pub fn redrive(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let (mut rows, _) = self.open(txn)?;
        let dead = rows.find("dead", &RowRange::all().limit(limit))?.rows;
        for row in &dead {
            let envelope = self.read(row)?;
            let envelope = Envelope { state: MessageState::Ready, attempts: 0, died: None, ..envelope };
            rows.put(envelope.id, envelope.draft())?;
        }
        Ok(dead.len() as u64)
    }

    /// Moves messages that are ready, delayed or dead to another queue, where they are behind those that are there, and can be
    /// taken; they say where they came from. Gives how many.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue) for either; [`InvalidArgument`](QueueError::InvalidArgument) for those in
    /// flight, or if both are the same; [`QueueFull`](QueueError::QueueFull); [`Store`](QueueError::Store).
    pub fn move_to(
        &self,
        txn: &mut WriteTxn<'_>,
        other: &Self,
        state: MessageState,
        limit: usize,
    ) -> Result<u64> {
        if self == other || state == MessageState::InFlight {
            return Err(invalid(
                "move",
                "messages that nobody has, and another queue",
                format!("{state:?}, {}", other.name()),
            ));
        }
        let (room, settings) = {
            let (rows, settings) = other.open(txn)?;
            (rows.aggregate("live", &[])?, settings)
        };
        let (mut rows, _) = self.open(txn)?;
        let mut moved = Vec::new();
        for row in rows.find(index_of(state), &RowRange::all().limit(limit))?.rows {
            let mut envelope = self.read(&row)?;
            if envelope.is_apart {
                let apart = rows.get(("b", envelope.id))?;
                let apart =
                    apart.ok_or_else(|| self.malformed(row.key().parts(), "its payload is not there"))?;
                envelope.payload = apart.value().clone();
            }
            moved.push(envelope);
        }
        let bytes = moved.iter().map(|envelope| envelope.length).sum();
        check_room(&settings, &room, moved.len() as u64, bytes)?;
        for envelope in &moved {
            self.remove(&mut rows, envelope)?;
        }
        let count = moved.len() as u64;
        for envelope in moved {
            let id = txn.unique_number();
            let envelope = Envelope {
                id,
                order: i64::try_from(id).unwrap_or(i64::MAX),
                state: MessageState::Ready,
                until: 0,
                attempts: 0,
                died: None,
                origin: Some(self.name().to_owned()),
                ..envelope
            };
            other.put_new(txn, &envelope)?;
        }
        self.book(txn, &Totals { purged: count, ..Totals::default() })?;
        other.book(txn, &Totals { enqueued: count, ..Totals::default() })?;
        Ok(count)
    }

    /// Tells how the queue is, in the same time however many messages there are.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue), [`Store`](QueueError::Store).
    pub fn stats(&self, view: &ReadTxn) -> Result<QueueStats> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let count = |state: MessageState| -> Result<u64> {
            Ok(rows.aggregate("state", &[state.number().into()])?.count)
        };
        let totals = view.collection(&self.books)?.get(TOTALS)?;
        let totals = totals.map_or_else(Totals::default, |row| Totals::decode(row.value()));
        let oldest = rows.find("age", &RowRange::all().limit(1))?.rows;
        Ok(QueueStats {
            ready: count(MessageState::Ready)?,
            delayed: count(MessageState::Delayed)?,
            in_flight: count(MessageState::InFlight)?,
            dead: count(MessageState::Dead)?,
            bytes: u64::try_from(rows.aggregate("live", &[])?.sum).unwrap_or(0),
            oldest: oldest.first().and_then(|row| row.integer("e")),
            enqueued: totals.enqueued,
            dequeued: totals.dequeued,
            acked: totals.acked,
            nacked: totals.nacked,
            expired: totals.expired,
            died: totals.died,
            purged: totals.purged,
            waits: totals.waits,
        })
    }
}

/// Why a message was given back whose time was over.
const TIME_OVER: &str = "its time was over";

fn index_of(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Delayed => "delayed",
        MessageState::InFlight => "expired",
        MessageState::Dead => "dead",
    }
}

fn check_sizes(messages: &[Message], settings: &QueueSettings) -> Result<()> {
    if messages.len() > AT_ONCE_MAX {
        let (size, limit) = (messages.len() as u64, AT_ONCE_MAX as u64);
        return Err(QueueError::BatchTooLarge { unit: "messages", size, limit });
    }
    let mut bytes = 0;
    for (at, message) in messages.iter().enumerate() {
        message.check()?;
        let (size, limit) = (message.payload.len() as u64, settings.message_bytes_max);
        if size > limit {
            return Err(QueueError::MessageTooLarge { at, size, limit });
        }
        bytes += size;
    }
    if messages.len() > 1 && bytes > settings.batch_bytes_max {
        return Err(QueueError::BatchTooLarge {
            unit: "bytes",
            size: bytes,
            limit: settings.batch_bytes_max,
        });
    }
    Ok(())
}

fn check_room(settings: &QueueSettings, live: &Aggregate, count: u64, bytes: u64) -> Result<()> {
    let live_bytes = u64::try_from(live.sum).unwrap_or(0);
    for (unit, depth, more, limit) in [
        ("messages", live.count, count, settings.messages_max),
        ("bytes", live_bytes, bytes, settings.bytes_max),
    ] {
        if more > 0 && depth.saturating_add(more) > limit {
            return Err(QueueError::QueueFull { unit, depth, limit });
        }
    }
    Ok(())
}

/// Gives a message back that somebody had.
fn give_back(
    rows: &mut CollectionMut<'_, '_>,
    settings: &QueueSettings,
    mut envelope: Envelope,
    delay: Option<Micros>,
    reason: Option<&str>,
    totals: &mut Totals,
) -> Result<Requeued> {
    let now = rows.txn().info().time;
    envelope.fence = 0;
    envelope.reason = reason.map(str::to_owned).or(envelope.reason);
    let attempts_max = envelope.attempts_max.unwrap_or(settings.attempts_max);
    let requeued = if attempts_max > 0 && envelope.attempts >= attempts_max {
        totals.died += 1;
        envelope.died = Some(now);
        Requeued::Dead
    } else {
        let backoff = envelope.backoff.unwrap_or(settings.backoff);
        let wait = delay.map_or_else(|| micros("backoff", backoff.wait(envelope.attempts), true), Ok)?;
        let number =
            |rows: &mut CollectionMut<'_, '_>| i64::try_from(rows.txn().unique_number()).unwrap_or(i64::MAX);
        envelope.order = match settings.requeue_at {
            RequeueAt::Original => envelope.order,
            RequeueAt::Front => -number(rows),
            RequeueAt::Back => number(rows),
        };
        if wait == 0 { Requeued::Ready } else { Requeued::Delayed { until: now.saturating_add(wait) } }
    };
    (envelope.state, envelope.until) = match requeued {
        Requeued::Ready => (MessageState::Ready, 0),
        Requeued::Delayed { until } => (MessageState::Delayed, until),
        Requeued::Dead => (MessageState::Dead, 0),
    };
    rows.put(envelope.id, envelope.draft())?;
    Ok(requeued)
}
