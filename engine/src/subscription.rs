//! The change feed, live: whoever subscribed is told of every commit, in order, through a bounded buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::{Poll, Waker};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use larder_format::FeedRow;
use parking_lot::{Mutex, RwLock};

use crate::commit::{CommitInfo, wake};

/// The most commits that are kept for a slow receiver.
const CAPACITY_MAX: usize = 1 << 16;

/// Those who are told.
#[derive(Default)]
pub(crate) struct Subscribers {
    list: RwLock<Vec<Subscriber>>,
    are_there: AtomicBool,
    /// Whether nothing comes any more: who is added is told at once. Changed by who holds the list.
    is_closed: AtomicBool,
}

struct Subscriber {
    sender: Sender<(CommitInfo, Arc<FeedRow>)>,
    marks: Arc<Marks>,
}

/// What both ends share; the sender is not among it, so that its end is noticed.
#[derive(Default)]
struct Marks {
    /// The first commit that did not fit in the buffer; 0 if none is missing.
    missed_from: AtomicU64,
    is_dropped: AtomicBool,
    /// Who awaits what comes next.
    waker: Mutex<Option<Waker>>,
}

impl Marks {
    fn waker(&self) -> Option<Waker> {
        self.waker.lock().take()
    }
}

/// The receiving end of a subscription.
pub(crate) struct Inbox {
    receiver: Receiver<(CommitInfo, Arc<FeedRow>)>,
    marks: Arc<Marks>,
}

/// What came in.
pub(crate) enum Incoming {
    Commit(CommitInfo, Arc<FeedRow>),
    /// The buffer overflowed: from this commit on something is missing.
    Missed {
        from: u64,
    },
    Nothing,
    Closed,
}

impl Subscribers {
    /// Adds one, who is told of what is committed from now on.
    pub(crate) fn add(&self, capacity: usize) -> Inbox {
        let (sender, receiver) = bounded(capacity.clamp(1, CAPACITY_MAX));
        let marks = Arc::new(Marks::default());
        let mut list = self.list.write();
        list.retain(|other| !other.marks.is_dropped.load(Ordering::Relaxed));
        if !self.is_closed.load(Ordering::Acquire) {
            list.push(Subscriber { sender, marks: Arc::clone(&marks) });
            self.are_there.store(true, Ordering::Release);
        }
        Inbox { receiver, marks }
    }

    /// Tells all of a commit. Never blocks: whose buffer is full misses it, and is told so.
    pub(crate) fn tell(&self, info: CommitInfo, feed: &Arc<FeedRow>) {
        if !self.are_there.load(Ordering::Acquire) {
            return;
        }
        // Woken with nothing in hand: who is may subscribe at once.
        let mut wakers = Vec::new();
        for subscriber in self.list.read().iter() {
            let marks = &subscriber.marks;
            let missing = marks.missed_from.load(Ordering::Acquire) != 0;
            if missing || marks.is_dropped.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(TrySendError::Full(commit)) = subscriber.sender.try_send((info, Arc::clone(feed))) {
                marks.missed_from.store(info.sequence, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                // Who has taken everything meanwhile may wait already, without having seen that: to him it is not missing.
                if subscriber.sender.is_empty()
                    && marks
                        .missed_from
                        .compare_exchange(info.sequence, 0, Ordering::SeqCst, Ordering::SeqCst)
                        .is_ok()
                {
                    // There is room, and nobody else sends.
                    let _ = subscriber.sender.try_send(commit);
                }
            }
            wakers.extend(marks.waker());
        }
        wakers.into_iter().for_each(wake);
    }

    /// Lets all know that nothing more comes.
    pub(crate) fn close(&self) {
        self.are_there.store(false, Ordering::Release);
        let list = {
            let mut list = self.list.write();
            self.is_closed.store(true, Ordering::Release);
            std::mem::take(&mut *list)
        };
        let marks: Vec<_> = list.iter().map(|subscriber| Arc::clone(&subscriber.marks)).collect();
        drop(list);
        marks.iter().filter_map(|marks| marks.waker()).for_each(wake);
    }
}

impl Inbox {
    /// Gives what came next, or lets the waker know when something has.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Incoming> {
        *self.marks.waker.lock() = Some(waker.clone());
        match self.next(Some(Duration::ZERO)) {
            Incoming::Nothing => Poll::Pending,
            other => Poll::Ready(other),
        }
    }

    /// Gives what came next, waiting for it at most for `wait`; without a limit if there is none.
    pub(crate) fn next(&self, wait: Option<Duration>) -> Incoming {
        match self.receiver.try_recv() {
            Ok((info, feed)) => return Incoming::Commit(info, feed),
            Err(TryRecvError::Disconnected) => return Incoming::Closed,
            Err(TryRecvError::Empty) => {}
        }
        fence(Ordering::SeqCst);
        if self.marks.missed_from.load(Ordering::SeqCst) != 0 {
            // As long as something is missing nothing is sent: what fitted came before it.
            if let Ok((info, feed)) = self.receiver.try_recv() {
                return Incoming::Commit(info, feed);
            }
            let from = self.marks.missed_from.swap(0, Ordering::SeqCst);
            if from != 0 {
                return Incoming::Missed { from };
            }
        }
        let received = match wait {
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => self.receiver.recv_timeout(wait),
        };
        match received {
            Ok((info, feed)) => Incoming::Commit(info, feed),
            Err(RecvTimeoutError::Timeout) => Incoming::Nothing,
            Err(RecvTimeoutError::Disconnected) => Incoming::Closed,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.marks.is_dropped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A subscriber with a small buffer waited for ever: what it had missed was noted just before it waited.
    #[test]
    fn who_lags_and_waits_is_told_and_nothing_comes_out_of_order() {
        const LAST: u64 = 200_000;
        let subscribers = Subscribers::default();
        let inbox = subscribers.add(1);
        let feed = Arc::new(FeedRow { time: 0, principal: String::new(), events: Vec::new() });
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sequence = 0;
                while sequence < LAST || !is_done.load(Ordering::Relaxed) {
                    sequence += 1;
                    subscribers.tell(CommitInfo { sequence, time: 0 }, &feed);
                    if sequence > LAST {
                        std::thread::yield_now();
                    }
                    // Nothing was heard for long: whoever waits is let go, and finds that he has not come to the end.
                    if sequence > 50 * LAST {
                        break;
                    }
                }
                subscribers.close();
            });
            let mut last = 0;
            while last < LAST {
                match inbox.next(None) {
                    Incoming::Commit(info, _) => {
                        assert!(info.sequence > last, "{} after {last}", info.sequence);
                        last = info.sequence;
                    }
                    Incoming::Missed { from } => assert!(from > last, "missed from {from} after {last}"),
                    Incoming::Nothing => {}
                    Incoming::Closed => break,
                }
            }
            is_done.store(true, Ordering::Relaxed);
            assert!(last >= LAST, "it waited for ever after {last}");
        });
    }
}
