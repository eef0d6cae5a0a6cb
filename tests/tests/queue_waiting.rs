//! Waiting for a message: who is woken, by what, and with which rights.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use larder::{DocumentKind, Larder, ManualClock, Session};
use larder_layers::queue::{Envelope, Message, Nack, Queue, QueueError, QueueSettings, Queues};
use larder_tests::{still, verified};

const SECOND: i64 = 1_000_000;

/// Counts how often somebody is woken.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rung(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Looks whether somebody has his message.
    fn ask<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

struct World {
    larder: Larder,
    clock: Arc<ManualClock>,
    root: Session,
    queue: Queue,
}

fn world() -> World {
    let clock = Arc::new(ManualClock::at(SECOND));
    let larder = still().clock(clock.clone()).open_in_memory().unwrap();
    let root = larder.root().unwrap();
    let queue = Queues::at("queues").unwrap().queue("q").unwrap();
    let settings = QueueSettings::new().visibility(Duration::from_secs(30));
    assert!(root.try_write(|txn| queue.create(txn, &settings)).unwrap().value);
    World { larder, clock, root, queue }
}

impl World {
    fn put(&self, message: impl Into<Message>) {
        let message = message.into();
        let _ = self.root.try_write(|txn| self.queue.enqueue(txn, message)).unwrap();
    }

    fn pause(&self, is_paused: bool) {
        let queue = &self.queue;
        self.root.try_write(|txn| if is_paused { queue.pause(txn) } else { queue.resume(txn) }).unwrap();
    }
}

fn message(poll: Poll<Result<Envelope, QueueError>>) -> Option<Envelope> {
    match poll {
        Poll::Ready(envelope) => Some(envelope.unwrap()),
        Poll::Pending => None,
    }
}

/// S4-1.1. A consumer that has the right to consume, and no other, is woken by the commit that brings a message, and by nothing that
/// is none of his business.
#[test]
fn s4_1_1_a_consumer_is_woken_with_no_other_right_than_to_consume() {
    let world = world();
    let rules = "default = \"deny\"\n[[rule]]\nallow = [\"consume\"]\nwho = [\"worker\"]\non = \"queues/q/**\"\n\
                 [[rule]]\nallow = [\"consume\"]\nwho = [\"worker\"]\non = \"queues/q\"\n";
    world.root.set_document(DocumentKind::Rules, rules).unwrap();
    let worker = world.larder.session("worker").unwrap();
    let stranger = world.larder.session("stranger").unwrap();
    let (bell, strangers) = (Arc::new(Bell::default()), stranger.subscribe("queues", 4).unwrap());
    let mut next = pin!(world.queue.next(&worker));
    assert!(bell.ask(next.as_mut()).is_pending());
    let before = bell.rung();
    world.put("soup");
    assert!(bell.rung() > before, "nobody woke him");
    let taken = message(bell.ask(next.as_mut())).expect("woken by a message that he is not given");
    assert_eq!(taken.payload(), "soup");
    assert!(strangers.next_within(Duration::ZERO).is_none(), "he may not know of it");
    verified(&world.larder);
}

/// S4-1.1. Who waits with a timer is woken when a delay is over, and when somebody's time with a message is; asked for the time that
/// is left until then.
#[test]
fn s4_1_1_with_a_timer_what_is_due_by_time_alone_wakes_too() {
    let world = world();
    let asked = RefCell::new(Vec::new());
    let sleep = |time: Duration| {
        asked.borrow_mut().push(time);
        // Over when the clock of the store says so.
        let until = world.root.now() + i64::try_from(time.as_micros()).unwrap();
        let root = &world.root;
        std::future::poll_fn(move |_| if root.now() >= until { Poll::Ready(()) } else { Poll::Pending })
    };
    let bell = Arc::new(Bell::default());
    world.put(Message::new("later").delay(Duration::from_secs(5)));
    let mut next = Box::pin(world.queue.next_with(&world.root, sleep));
    assert!(bell.ask(next.as_mut()).is_pending());
    assert_eq!(*asked.borrow(), [Duration::from_secs(5)]);
    world.clock.advance(5 * SECOND);
    let taken = message(bell.ask(next.as_mut())).expect("its delay is over");
    assert_eq!(taken.payload(), "later");
    // Nobody acknowledges it.
    let mut next = Box::pin(world.queue.next_with(&world.root, sleep));
    assert!(bell.ask(next.as_mut()).is_pending());
    world.clock.advance(30 * SECOND);
    let again = message(bell.ask(next.as_mut())).expect("nobody's time is left");
    assert_eq!((again.id, again.attempts), (taken.id, 2));
    let nack = Nack::new().delay(Duration::from_secs(7));
    let _ = world.root.try_write(|txn| world.queue.nack(txn, again.token(), &nack)).unwrap();
    let mut next = Box::pin(world.queue.next_with(&world.root, sleep));
    assert!(bell.ask(next.as_mut()).is_pending());
    assert_eq!(asked.borrow().last(), Some(&Duration::from_secs(7)));
    verified(&world.larder);
}

/// P8. While a queue is paused there is nothing to take, and who waits goes on waiting; resumed, it wakes him.
#[test]
fn p8_who_waits_waits_on_while_the_queue_is_paused() {
    let world = world();
    world.put("soup");
    world.pause(true);
    let found = world.queue.dequeue_within(&world.root, Duration::ZERO).unwrap();
    assert!(found.is_none(), "{found:?}");
    let bell = Arc::new(Bell::default());
    let mut next = pin!(world.queue.next(&world.root));
    assert!(bell.ask(next.as_mut()).is_pending());
    let before = bell.rung();
    world.pause(false);
    assert!(bell.rung() > before, "nobody woke him");
    assert!(message(bell.ask(next.as_mut())).is_some_and(|taken| taken.payload() == "soup"));
}
