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
//! Where many threads enqueue, take or acknowledge one message each, let them share a [`Combiner`](larder::Combiner): what comes at
//! the same time is one commit.
//!
//! How long enqueuing, taking and acknowledging take, [`Larder::health`] tells of sessions that are [named](larder::Session::named)
//! after what they do.
//!
//! What was ever done with a queue is counted in a row beside it, in the transaction that does it: whoever may enqueue or consume is
//! trusted with these totals, as with the messages. How many there are now, and their bytes, nobody can say otherwise than it is.
//!
//! Times are those of the transaction. Producers need the right to enqueue at the key of the queue and below it, consumers the
//! right to consume; who creates one, the right to manage, and to write its settings, the right to write.

mod books;
mod consumer;
mod error;
mod keep;
mod message;
mod put;
mod settings;
mod take;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{
    AggregateDefinition, CollectionDefinition, CollectionMut, CollectionRights, ErrorKind, Figures,
    IndexDefinition, Key, Larder, Micros, Part, ReadTxn, Record, Right, Row, RowDraft, WriteTxn,
};

use parking_lot::Mutex;

use self::books::{Totals, WAIT_CLASSES};
pub use self::error::QueueError;
pub use self::message::{Envelope, Message, MessageState, Token};
pub use self::settings::{Backoff, QueueSettings, RequeueAt};
use crate::place::found;

type Result<T> = std::result::Result<T, QueueError>;

/// The most bytes of the name of a queue.
const NAME_LENGTH_MAX: usize = 128;
/// The most messages that are taken, enqueued or looked at in one go.
const AT_ONCE_MAX: usize = 10_000;

/// The class of those that waited longer than any other.
const LONGEST: usize = WAIT_CLASSES - 1;

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
        let entries = found(view.list(&self.root))?.unwrap_or_default();
        let names = entries.iter().filter(|entry| entry.record.as_ref().is_some_and(QueueSettings::are_of));
        // What has another name than a queue can have is none.
        Ok(names.filter_map(|entry| self.queue(entry.name()).ok()).collect())
    }

    /// Has the health of a store tell of the queues that there are, under the name of their place: of each how many messages
    /// it has in which state, their bytes, how old the oldest is, in microseconds, what was ever done, and after what time messages
    /// were taken (`NAME/ready`, `NAME/age_us`, `NAME/acked`, `NAME/waited_below_4_ms` for 1 ms up to 4, `NAME/waited_longer`).
    pub fn add_health(&self, larder: &Larder) {
        let queues = self.clone();
        larder.add_health(self.root.as_str(), move |view| -> Result<Figures> {
            let now = view.now();
            let mut figures = Figures::new();
            for queue in queues.list(view)? {
                let stats = queue.stats(view)?;
                let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                let age = stats.oldest.map_or(0, |since| now.saturating_sub(since).max(0));
                let told = [
                    ("ready", count(stats.ready)),
                    ("delayed", count(stats.delayed)),
                    ("in_flight", count(stats.in_flight)),
                    ("dead", count(stats.dead)),
                    ("bytes", count(stats.bytes)),
                    ("age_us", age),
                    ("enqueued", count(stats.enqueued)),
                    ("dequeued", count(stats.dequeued)),
                    ("acked", count(stats.acked)),
                    ("nacked", count(stats.nacked)),
                    ("expired", count(stats.expired)),
                    ("died", count(stats.died)),
                    ("purged", count(stats.purged)),
                ];
                figures.extend(told.map(|(name, figure)| (format!("{}/{name}", queue.name()), figure)));
                figures.extend(stats.waits.iter().enumerate().map(|(class, deliveries)| {
                    let name = match class {
                        LONGEST.. => "waited_longer".to_owned(),
                        _ => format!("waited_below_{}_ms", 1_u64 << (2 * class)),
                    };
                    (format!("{}/{name}", queue.name()), count(*deliveries))
                }));
            }
            Ok(figures)
        });
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

/// What became of a message that was to be enqueued. Whoever does not look at it is warned:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # let larder = larder::Options::new().open_in_memory().unwrap();
/// # let queue = larder_layers::queue::Queues::at("queues").unwrap().queue("q").unwrap();
/// # let ana = larder.session("ana").unwrap();
/// ana.try_write(|txn| queue.enqueue(txn, "soup")).unwrap().value;
/// ```
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

/// The state of a row that is no message, and is in nobody's way.
const SET_ASIDE: u32 = 255;

fn read_by(
    rows: &mut CollectionMut<'_, '_>,
    found: &[Row],
    read: impl Fn(&CollectionMut<'_, '_>, &Row) -> larder::Result<Option<Envelope>>,
) -> Result<Vec<Envelope>> {
    let mut envelopes = Vec::with_capacity(found.len());
    for row in found {
        match read(rows, row)? {
            Some(envelope) => envelopes.push(envelope),
            // What is in it, and it may be much, would be written again for each.
            None => drop(rows.put(row.key(), RowDraft::default().field("s", SET_ASIDE))?),
        }
    }
    Ok(envelopes)
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
    /// [`InvalidArgument`](QueueError::InvalidArgument) for a setting; [`Store`](QueueError::Store), with `AlreadyExists` if
    /// what is there is something else.
    pub fn create(&self, txn: &mut WriteTxn<'_>, settings: &QueueSettings) -> Result<bool> {
        settings.check()?;
        match txn.collection(&self.key) {
            Ok(rows) if !QueueSettings::are_of(rows.record()) => {
                return Err(larder::Error::from(ErrorKind::AlreadyExists).at(&self.key).into());
            }
            _ => {}
        }
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
        self.settings_of(rows.record())
    }

    /// Removes the queue with all that is in it; tells whether it was there, which to those who may do nothing with it, nor list
    /// it, it is not.
    ///
    /// # Errors
    /// [`NoSuchQueue`](QueueError::NoSuchQueue) if what is there is something else, which stays; [`Store`](QueueError::Store): it
    /// takes the right to delete, too.
    pub fn delete(&self, txn: &mut WriteTxn<'_>) -> Result<bool> {
        let is_queue = match txn.collection(&self.key) {
            Ok(rows) => QueueSettings::are_of(rows.record()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {
                if found(txn.list(&self.key))?.is_none_or(|below| below.is_empty()) {
                    return Ok(false);
                }
                false
            }
            Err(error) => return Err(self.missing(error)),
        };
        if is_queue {
            return Ok(txn.delete_tree(&self.key)? > 0);
        }
        Err(QueueError::NoSuchQueue { name: self.name().to_owned() })
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
        let settings = self.settings_of(rows.record())?;
        Ok((rows, settings))
    }

    fn settings_of(&self, record: &Record) -> Result<QueueSettings> {
        let mut known = self.known.lock();
        match &*known {
            Some((of, settings)) if of == record => Ok(settings.clone()),
            // Another collection is nobody's to change.
            _ if !QueueSettings::are_of(record) => {
                Err(QueueError::NoSuchQueue { name: self.name().to_owned() })
            }
            _ => {
                let settings = QueueSettings::of(record);
                *known = Some((record.clone(), settings.clone()));
                Ok(settings)
            }
        }
    }

    fn book(&self, txn: &mut WriteTxn<'_>, totals: &Totals) -> Result<()> {
        totals.book(&mut txn.collection(&self.books)?)
    }

    fn read(&self, row: &Row) -> Result<Envelope> {
        Envelope::of(row).ok_or_else(|| self.malformed(row.key().parts(), "fields are missing"))
    }

    /// Reads messages on their way, without payloads that lie apart. A row that is none, which whoever may enqueue can put, would
    /// stop all others: it is set aside, and goes when the queue is purged.
    fn read_some(&self, rows: &mut CollectionMut<'_, '_>, found: &[Row]) -> Result<Vec<Envelope>> {
        read_by(rows, found, |_, row| Ok(Envelope::of(row)))
    }

    /// The same, with their payloads.
    fn read_whole(&self, rows: &mut CollectionMut<'_, '_>, found: &[Row]) -> Result<Vec<Envelope>> {
        read_by(rows, found, |rows, row| {
            let Some(mut envelope) = Envelope::of(row) else { return Ok(None) };
            if envelope.is_apart {
                let Some(apart) = rows.get(("b", envelope.id))? else { return Ok(None) };
                envelope.payload = apart.value().clone();
            }
            Ok(Some(envelope))
        })
    }

    /// Gives the payload that lies apart from its message.
    fn payload(&self, apart: Option<Row>, id: u64) -> Result<Bytes> {
        let apart = apart.ok_or_else(|| self.malformed(&[id.into()], "its payload is not there"))?;
        Ok(apart.value().clone())
    }

    fn malformed(&self, key: &[Part], what: &'static str) -> QueueError {
        let row = match key {
            [Part::Integer(id)] => u64::try_from(*id).unwrap_or(0),
            _ => 0,
        };
        QueueError::Malformed { name: self.name().to_owned(), row, what }
    }
}
