//! Messages on their way in.

use std::collections::{BTreeMap, BTreeSet};

use larder::{Aggregate, CollectionMut, Micros, RowDraft, RowRange, WriteTxn};

use super::books::Totals;
use super::error::{QueueError, micros};
use super::message::{Envelope, Message};
use super::settings::QueueSettings;
use super::{AT_ONCE_MAX, Enqueued, Queue, Result};
use crate::place::remove_all;

impl Queue {
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
        let mut before = Vec::with_capacity(messages.len());
        let (mut keys, mut count, mut bytes) = (BTreeSet::new(), 0, 0);
        for message in &messages {
            let key = message.dedupe.as_ref().map(|(key, _)| key);
            let known = key.map(|key| self.enqueued_before(txn, key, now)).transpose()?.flatten();
            if known.is_none() && key.is_none_or(|key| keys.insert(key)) {
                count += 1;
                bytes += message.payload.len() as u64;
            }
            before.push(known);
        }
        check_room(&settings, &live, count, bytes)?;
        let mut totals = Totals::default();
        let mut enqueued = Vec::with_capacity(messages.len());
        let mut just_now: BTreeMap<String, u64> = BTreeMap::new();
        for (message, known) in messages.into_iter().zip(before) {
            let again = message.dedupe.as_ref().and_then(|(key, _)| just_now.get(key).copied());
            if let Some(id) = known.or(again) {
                enqueued.push(Enqueued::Duplicate(id));
                continue;
            }
            let id = txn.unique_number();
            let dedupe = message.dedupe.clone();
            let envelope = Envelope::new(id, message, now)?;
            self.put_new(txn, &envelope)?;
            // After the message: a key must not stand for one that was refused.
            if let Some((key, window)) = dedupe {
                let until = now.saturating_add(micros("dedupe window", window, false)?);
                let draft = RowDraft::default().field("i", id).field("u", until);
                let mut books = txn.collection(&self.books)?;
                books.put(("d", key.as_str(), until), draft)?;
                // Two for one: so they go also where nobody sweeps.
                Self::forget_keys(&mut books, now, 2)?;
                just_now.insert(key, id);
            }
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

    /// Forgets keys whose window is over, at most so many.
    pub(super) fn forget_keys(books: &mut CollectionMut<'_, '_>, now: Micros, limit: usize) -> Result<()> {
        let due = books.find("until", &RowRange::all().at_most(now).limit(limit))?.rows;
        remove_all(books, &due)?;
        Ok(())
    }

    pub(super) fn put_new(&self, txn: &mut WriteTxn<'_>, envelope: &Envelope) -> Result<()> {
        let mut rows = txn.collection(&self.key)?;
        rows.put(envelope.id, envelope.draft())?;
        if envelope.is_apart {
            rows.put(("b", envelope.id), envelope.payload.clone())?;
        }
        Ok(())
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

pub(super) fn check_room(settings: &QueueSettings, live: &Aggregate, count: u64, bytes: u64) -> Result<()> {
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
