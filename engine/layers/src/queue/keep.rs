//! Looking at a queue, and keeping it in order.

use larder::{Aggregate, CollectionMut, Micros, Part, ReadTxn, RowRange, WriteTxn};

use super::books::{TOTALS, Totals};
use super::error::invalid;
use super::message::{Envelope, MessageState};
use super::put::check_room;
use super::{Queue, QueueError, QueueStats, Result};

impl Queue {
    /// Shows messages in a state, without taking them: those that can be taken in the order in which they will be.
    ///
    /// # Errors
    /// [`NoSuchQueue`](super::QueueError::NoSuchQueue), [`Store`](super::QueueError::Store).
    pub fn peek(&self, view: &ReadTxn, state: MessageState, limit: usize) -> Result<Vec<Envelope>> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let page = rows.find(index_of(state), &RowRange::all().limit(limit))?;
        let mut envelopes = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            // What is no message, whoever put it there, is not shown as one.
            let Some(mut envelope) = Envelope::of(row) else { continue };
            if envelope.is_apart {
                envelope.payload = self.payload(rows.get(("b", envelope.id))?, envelope.id)?;
            }
            envelopes.push(envelope);
        }
        Ok(envelopes)
    }

    /// Removes everything from the queue, what is in flight too; gives how many messages went.
    ///
    /// # Errors
    /// [`NoSuchQueue`](super::QueueError::NoSuchQueue), [`Store`](super::QueueError::Store).
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
        let dead = self.dead(&mut rows, limit)?;
        for envelope in &dead {
            self.remove(&mut rows, envelope)?;
        }
        self.book(txn, &Totals { purged: dead.len() as u64, ..Totals::default() })?;
        Ok(dead.len() as u64)
    }

    /// Finds dead letters, the oldest first; rows that are none are set aside, and looked past.
    fn dead(&self, rows: &mut CollectionMut<'_, '_>, limit: usize) -> Result<Vec<Envelope>> {
        loop {
            let found = rows.find("dead", &RowRange::all().limit(limit))?.rows;
            let dead = self.read_some(rows, &found)?;
            if !dead.is_empty() || found.is_empty() {
                return Ok(dead);
            }
        }
    }

    /// Lets dead letters be taken again, the oldest first, as if they had never been tried: as many as there is room for; gives
    /// how many.
    ///
    /// # Errors
    /// As [`Queue::purge`]; [`QueueFull`](super::QueueError::QueueFull) if there is room for none.
    pub fn redrive(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        let (mut rows, settings) = self.open(txn)?;
        let live = rows.aggregate("live", &[])?;
        let (mut bytes, mut count) = (0, 0);
        for envelope in self.dead(&mut rows, limit)? {
            bytes = u64::saturating_add(bytes, envelope.length);
            match check_room(&settings, &live, count + 1, bytes) {
                Err(full) if count == 0 => return Err(full),
                Err(_) => break,
                Ok(()) => count += 1,
            }
            let envelope = Envelope { state: MessageState::Ready, attempts: 0, died: None, ..envelope };
            rows.put(envelope.id, envelope.draft())?;
        }
        Ok(count)
    }

    /// Moves messages that are ready, delayed or dead to another queue, where they are behind those that are there, and can be
    /// taken; they say where they came from. Gives how many.
    ///
    /// # Errors
    /// [`NoSuchQueue`](super::QueueError::NoSuchQueue) for either; [`InvalidArgument`](super::QueueError::InvalidArgument) for those in
    /// flight, or if both are the same; [`QueueFull`](super::QueueError::QueueFull);
    /// [`MessageTooLarge`](super::QueueError::MessageTooLarge) for the other queue; [`Store`](super::QueueError::Store).
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
        let found = rows.find(index_of(state), &RowRange::all().limit(limit))?.rows;
        let moved = self.read_whole(&mut rows, &found)?;
        let bytes = moved.iter().map(|envelope| envelope.length).fold(0, u64::saturating_add);
        if let Some((at, large)) =
            moved.iter().enumerate().find(|(_, envelope)| envelope.length > settings.message_bytes_max)
        {
            return Err(QueueError::MessageTooLarge {
                at,
                size: large.length,
                limit: settings.message_bytes_max,
            });
        }
        check_room(&settings, &room, moved.len() as u64, bytes)?;
        // Whoever may not take them away is told before anything is moved; then they are there before they are not here.
        if let Some(first) = moved.first() {
            rows.put(first.id, first.draft())?;
        }
        let count = moved.len() as u64;
        for envelope in moved.clone() {
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
        let (mut rows, _) = self.open(txn)?;
        moved.iter().try_for_each(|envelope| self.remove(&mut rows, envelope))?;
        self.book(txn, &Totals { purged: count, ..Totals::default() })?;
        other.book(txn, &Totals { enqueued: count, ..Totals::default() })?;
        Ok(count)
    }

    /// Tells how the queue is, in the same time however many messages there are.
    ///
    /// # Errors
    /// [`NoSuchQueue`](super::QueueError::NoSuchQueue), [`Store`](super::QueueError::Store).
    pub fn stats(&self, view: &ReadTxn) -> Result<QueueStats> {
        let rows = view.collection(&self.key).map_err(|error| self.missing(error))?;
        let groups = rows.groups("state")?;
        let of = |state: MessageState| {
            let of_state = groups.iter().find(|(group, _)| group.parts() == [state.number().into()]);
            of_state.map_or_else(Aggregate::default, |(_, aggregate)| *aggregate)
        };
        let (ready, delayed) = (of(MessageState::Ready), of(MessageState::Delayed));
        let (in_flight, dead) = (of(MessageState::InFlight), of(MessageState::Dead));
        let totals = view.collection(&self.books)?.get(TOTALS)?;
        let totals = totals.map_or_else(Totals::default, |row| Totals::decode(row.value()));
        let oldest = rows.entries("age", &RowRange::all().limit(1))?.entries;
        Ok(QueueStats {
            ready: ready.count,
            delayed: delayed.count,
            in_flight: in_flight.count,
            dead: dead.count,
            bytes: u64::try_from(ready.sum + delayed.sum + in_flight.sum).unwrap_or(0),
            oldest: oldest.first().and_then(|entry| match entry.values[..] {
                [Part::Integer(at)] => Micros::try_from(at).ok(),
                _ => None,
            }),
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

fn index_of(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Delayed => "delayed",
        MessageState::InFlight => "expired",
        MessageState::Dead => "dead",
    }
}
