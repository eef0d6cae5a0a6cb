//! Waiting for messages: woken by the commit that brings one, or when the time of one has come.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use larder::{Micros, Notice, Session, Subscription};

use super::{Envelope, Queue, QueueError, Result};

/// How many commits may pass unseen before a waiter looks again anyway.
const CAPACITY: usize = 4;

impl Queue {
    /// Takes the next message, waiting for one at most for a time. Whoever waits looks only when something happens to the
    /// queue, or when a delay or somebody's time with a message is over; while the queue is paused there is nothing to take. To be
    /// told that it was resumed he needs the right to list.
    ///
    /// # Errors
    /// As [`Queue::dequeue_up_to`]; `Closed` when the store is.
    pub fn dequeue_within(&self, session: &Session, wait: Duration) -> Result<Option<Envelope>> {
        // Before the first look: what comes between the two is told.
        let subscription = session.subscribe(&self.key, CAPACITY)?;
        let (mut began, mut napped) = (None, Duration::ZERO);
        loop {
            let (taken, now) = self.try_take(session)?;
            // By the clock of the store, which need not move while somebody waits.
            let passed = now.saturating_sub(*began.get_or_insert(now));
            let passed = Duration::from_micros(u64::try_from(passed).unwrap_or(0)).max(napped);
            let left = wait.saturating_sub(passed);
            if taken.is_some() || left.is_zero() {
                return Ok(taken);
            }
            let nap = self.time_to_due(session, now)?.map_or(left, |due| due.min(left));
            if subscription.next_within(nap).is_none() {
                napped += nap;
            }
        }
    }

    /// Takes the next message, waiting for one as long as it takes, as a future that any executor can run, or none. It is
    /// woken by commits: what becomes due by time alone is taken when something else happens to the queue, or by
    /// [`Queue::sweep`]; see [`Queue::next_with`]. That the queue was resumed, or removed, is told to those who may list it. A
    /// future that is dropped has taken nothing.
    ///
    /// # Errors
    /// As [`Queue::dequeue_within`].
    pub async fn next(&self, session: &Session) -> Result<Envelope> {
        self.next_with(session, |_| std::future::pending()).await
    }

    /// The same, woken also when a delay or somebody's time with a message is over: by the timer of the application's runtime,
    /// such as `tokio::time::sleep`.
    ///
    /// # Errors
    /// As [`Queue::dequeue_within`].
    pub async fn next_with<S: Future<Output = ()>>(
        &self,
        session: &Session,
        sleep: impl Fn(Duration) -> S,
    ) -> Result<Envelope> {
        let subscription: Subscription = session.subscribe(&self.key, CAPACITY)?;
        loop {
            let (taken, now) = self.try_take(session)?;
            if let Some(envelope) = taken {
                return Ok(envelope);
            }
            let mut notice = std::pin::pin!(subscription.notice());
            let mut timer = std::pin::pin!(self.time_to_due(session, now)?.map(&sleep));
            let woken = std::future::poll_fn(|context| {
                if let Poll::Ready(notice) = notice.as_mut().poll(context) {
                    return Poll::Ready(Some(notice));
                }
                match timer.as_mut().as_pin_mut() {
                    Some(timer) => timer.poll(context).map(|()| None),
                    None => Poll::Pending,
                }
            });
            if woken.await == Some(Notice::Closed) {
                return Err(session.snapshot().err().map_or_else(|| self.closed(), Into::into));
            }
        }
    }

    /// Takes the next message, if there is one and the queue is not paused; and tells what time it is.
    fn try_take(&self, session: &Session) -> Result<(Option<Envelope>, Micros)> {
        let mut now = 0;
        let taken = session.try_write(|txn| {
            now = txn.info().time;
            self.dequeue(txn)
        });
        match taken {
            Ok(receipt) => Ok((receipt.value, now)),
            Err(QueueError::Paused { .. }) => Ok((None, now)),
            Err(error) => Err(error),
        }
    }

    /// Tells in how long the queue has something to see to, if it has.
    fn time_to_due(&self, session: &Session, now: Micros) -> Result<Option<Duration>> {
        let view = session.snapshot()?;
        // What is due in a queue that is paused waits for that, not for the time.
        let due = if self.settings(&view)?.is_paused { None } else { self.next_due(&view)? };
        Ok(due.map(|due| Duration::from_micros(u64::try_from(due.saturating_sub(now)).unwrap_or(0).max(1))))
    }

    fn closed(&self) -> QueueError {
        larder::Error::abort(format!("the store of the queue {} was closed", self.name())).into()
    }
}
