//! Waiting for messages: woken by the commit that brings one, or when the time of one has come.

use std::time::Duration;

use larder::{Notice, Session, Subscription};

use super::{Envelope, Queue, Result};

/// How many commits may pass unseen before a waiter looks again anyway.
const CAPACITY: usize = 4;

impl Queue {
    /// Takes the next message, waiting for one at most for a time. Whoever waits looks only when something happens to the
    /// queue, or when a delay or somebody's time with a message is over. To be told of the first he needs the right to list.
    ///
    /// # Errors
    /// As [`Queue::dequeue_up_to`]; `Closed` when the store is.
    pub fn dequeue_within(&self, session: &Session, wait: Duration) -> Result<Option<Envelope>> {
        // Before the first look: what comes between the two is told.
        let subscription = session.subscribe(&self.key, CAPACITY)?;
        let (mut began, mut napped) = (None, Duration::ZERO);
        loop {
            let receipt = session.try_write(|txn| {
                let now = txn.info().time;
                self.dequeue(txn).map(|taken| (taken, now))
            })?;
            let (taken, now) = receipt.value;
            // By the clock of the store, which need not move while somebody waits.
            let passed = now.saturating_sub(*began.get_or_insert(now));
            let passed = Duration::from_micros(u64::try_from(passed).unwrap_or(0)).max(napped);
            let left = wait.saturating_sub(passed);
            if taken.is_some() || left.is_zero() {
                return Ok(taken);
            }
            let due = session.read(|view| Ok(self.next_due(view)))??;
            let until_due = due
                .map(|due| Duration::from_micros(u64::try_from(due.saturating_sub(now)).unwrap_or(0).max(1)));
            let nap = until_due.map_or(left, |due| due.min(left));
            if subscription.next_within(nap).is_none() {
                napped += nap;
            }
        }
    }

    /// Takes the next message, waiting for one as long as it takes, as a future that any executor can run, or none. It is
    /// woken by commits: what becomes due by time alone is taken when something else happens to the queue, or by
    /// [`Queue::sweep`]. A future that is dropped has taken nothing.
    ///
    /// # Errors
    /// As [`Queue::dequeue_within`].
    pub async fn next(&self, session: &Session) -> Result<Envelope> {
        let subscription: Subscription = session.subscribe(&self.key, CAPACITY)?;
        loop {
            let taken = session.try_write(|txn| self.dequeue(txn))?.value;
            if let Some(envelope) = taken {
                return Ok(envelope);
            }
            if subscription.notice().await == Notice::Closed {
                return Err(session.snapshot().err().map_or_else(|| self.closed(), Into::into));
            }
        }
    }

    fn closed(&self) -> super::QueueError {
        larder::Error::abort(format!("the store of the queue {} was closed", self.name())).into()
    }
}
