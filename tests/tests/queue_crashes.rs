//! Queues and a cache under crashes: what was acknowledged is gone, what was enqueued is in one place, no delivery counts twice, and a
//! deadline is what it was.

use std::sync::Arc;
use std::time::Duration;

use larder::{Larder, ManualClock, Session};
use larder_layers::queue::{
    Envelope, Message, MessageState, Nack, Queue, QueueSettings, QueueStats, Queues, Requeued, Token,
};
use larder_tests::{Crash, Deliveries, FaultyDisk, Image, Loss, Plan, Trace, small, verified};

const SECOND: i64 = 1_000_000;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn q() -> Queue {
    Queues::at("queues").unwrap().queue("q").unwrap()
}

/// A store that comes up from what a crash left, at a time.
struct World {
    larder: Larder,
    clock: Arc<ManualClock>,
    ana: Session,
}

impl World {
    fn of(disk: &FaultyDisk, time: i64) -> Self {
        let clock = Arc::new(ManualClock::at(time));
        let larder = disk.open(small(&clock), true).unwrap();
        let ana = larder.session("ana").unwrap();
        World { larder, clock, ana }
    }

    fn after(image: Image, time: i64) -> Self {
        Self::of(&FaultyDisk::holding(image, Plan::default()), time)
    }

    fn create(&self, settings: &QueueSettings) {
        self.ana.try_write(|txn| q().create(txn, settings)).unwrap();
    }

    fn put(&self, message: Message) -> u64 {
        self.ana.try_write(|txn| q().enqueue(txn, message)).unwrap().value.id()
    }

    fn take(&self) -> Envelope {
        self.ana.try_write(|txn| q().dequeue(txn)).unwrap().value.expect("a message")
    }

    fn nack(&self, token: Token, reason: &str) -> Requeued {
        self.ana.try_write(|txn| q().nack(txn, token, &Nack::new().reason(reason))).unwrap().value
    }

    /// Sweeps at a time; gives how many messages changed.
    fn sweep_at(&self, time: i64) -> u64 {
        self.clock.set(time);
        self.ana.try_write(|txn| q().sweep(txn, 10)).unwrap().value
    }

    fn peek(&self, state: MessageState) -> Vec<Envelope> {
        q().peek(&self.ana.snapshot().unwrap(), state, 100).unwrap()
    }

    /// Ready, delayed, in flight, dead, in a queue: counted, and the same as what is maintained.
    fn counts(&self, queue: &Queue) -> [u64; 4] {
        let view = self.ana.snapshot().unwrap();
        let QueueStats { ready, delayed, in_flight, dead, .. } = queue.stats(&view).unwrap();
        let counted = MessageState::ALL.map(|state| queue.peek(&view, state, 100).unwrap().len() as u64);
        assert_eq!(counted, [ready, delayed, in_flight, dead]);
        verified(&self.larder);
        counted
    }
}

/// S4-1.2. Deadlines are data: after a crash each is what it was. What was taken for 30 s comes back 30 s after it was taken, what was
/// given 60 s more has them, and what waits for its time waits on.
#[test]
fn s4_1_2_after_a_crash_deadlines_are_what_they_were() {
    let disk = FaultyDisk::default();
    let world = World::of(&disk, SECOND);
    world.create(&QueueSettings::new());
    for text in ["taken", "extended", "given back"] {
        world.put(Message::new(text));
    }
    world.put(Message::new("delayed").delay(seconds(25)));
    let [taken, extended, given_back] = [(); 3].map(|()| world.take().token());
    world.clock.set(11 * SECOND);
    let until = world.ana.try_write(|txn| q().extend(txn, extended, seconds(60))).unwrap().value;
    assert_eq!(until, 71 * SECOND);
    let nack = Nack::new().delay(seconds(22));
    let back = world.ana.try_write(|txn| q().nack(txn, given_back, &nack)).unwrap().value;
    assert_eq!(back, Requeued::Delayed { until: 33 * SECOND });
    // The machine goes 20 s after they were taken, with what was not synced, or without.
    for image in [disk.durable(), disk.current()] {
        let world = World::after(image, 21 * SECOND);
        assert_eq!(world.counts(&q()), [0, 2, 2, 0]);
        let untils = |state| world.peek(state).iter().map(|message| message.until).collect::<Vec<_>>();
        assert_eq!(untils(MessageState::InFlight), [31 * SECOND, 71 * SECOND]);
        assert_eq!(untils(MessageState::Delayed), [26 * SECOND, 33 * SECOND]);
        assert_eq!((world.sweep_at(26 * SECOND - 1), world.sweep_at(26 * SECOND)), (0, 1), "a delay is over");
        assert_eq!(world.sweep_at(30 * SECOND), 0, "29 s after it was taken");
        assert_eq!(world.sweep_at(31 * SECOND), 1, "30 s after it was taken");
        assert_eq!((world.sweep_at(33 * SECOND - 1), world.sweep_at(33 * SECOND)), (0, 1));
        assert_eq!(world.counts(&q()), [3, 0, 1, 0]);
        assert_eq!((world.sweep_at(71 * SECOND - 1), world.sweep_at(71 * SECOND)), (0, 1));
        assert_eq!(world.counts(&q()), [4, 0, 0, 0]);
        // Of the tokens of before none is good any more, and nothing was delivered meanwhile.
        let late = world.ana.try_write(|txn| q().ack_all(txn, &[taken, extended])).unwrap_err();
        assert!(late.to_string().contains("lease"), "{late}");
        let attempts: Vec<u32> = world.peek(MessageState::Ready).iter().map(|one| one.attempts).collect();
        assert_eq!(attempts, [1, 1, 1, 0]);
    }
}

/// S4-1.2; `persistence_test`: "test_persistence_workflow", behind a crash. What was not acknowledged is there, and nothing else; who was
/// at work when the machine went, and comes back in time, goes on with his token.
#[test]
fn s4_1_2_after_a_crash_a_token_is_as_good_as_it_was() {
    let disk = FaultyDisk::default();
    let world = World::of(&disk, SECOND);
    world.create(&QueueSettings::new());
    for text in ["done", "x", "y", "waiting"] {
        world.put(Message::new(text));
    }
    let done = world.take().token();
    world.ana.try_write(|txn| q().ack(txn, done)).unwrap();
    let tokens = [(); 2].map(|()| world.take().token());
    for image in [disk.durable(), disk.current()] {
        let world = World::after(image, 21 * SECOND);
        assert_eq!(world.counts(&q()), [1, 0, 2, 0]);
        assert_eq!(world.peek(MessageState::Ready)[0].payload(), "waiting");
        let until = world.ana.try_write(|txn| q().heartbeat(txn, tokens[0])).unwrap().value;
        assert_eq!(until, 51 * SECOND);
        world.ana.try_write(|txn| q().ack(txn, tokens[1])).unwrap();
        assert_eq!((world.sweep_at(50 * SECOND), world.counts(&q())), (0, [1, 0, 1, 0]));
        world.ana.try_write(|txn| q().ack(txn, tokens[0])).unwrap();
        assert_eq!(world.counts(&q()), [1, 0, 0, 0]);
    }
}

/// S4-1.3. A crash in the midst of the 5th time that a message is given back leaves it in flight, or as a dead letter, and never twice or
/// not at all; one directly behind it leaves the dead letter, with its attempts, its reason, and the queue that it is of. Moved to
/// another queue, it says where it came from, also after the next crash.
#[test]
fn s4_1_3_after_a_crash_a_dead_letter_is_what_it_was() {
    let fresh = FaultyDisk::default();
    World::of(&fresh, SECOND).larder.close().unwrap();
    let base: Image = [fresh.store(), Vec::new()];
    let disk = FaultyDisk::holding(base.clone(), Plan { is_recorded: true, ..Plan::default() });
    let world = World::of(&disk, SECOND);
    world.create(&QueueSettings::new().visibility(seconds(7)));
    let id = world.put(Message::new("bad").header("kind", "soup"));
    for attempt in 1..5 {
        assert_eq!(world.nack(world.take().token(), &format!("try {attempt}")), Requeued::Ready);
    }
    let token = world.take().token();
    let before = disk.step_count();
    assert_eq!(world.nack(token, "too salty"), Requeued::Dead);
    let acknowledged = disk.step_count();
    let others = Queues::at("queues").unwrap().queue("others").unwrap();
    world.ana.try_write(|txn| others.create(txn, &QueueSettings::new())).unwrap();
    let moved = world.ana.try_write(|txn| q().move_to(txn, &others, MessageState::Dead, 10)).unwrap();
    assert_eq!((moved.value, disk.step_count() > acknowledged), (1, true));
    let trace = Trace { base, steps: disk.take_steps() };
    let mut died = [0, 0];
    for (at, loss) in (before..=acknowledged).flat_map(|at| Loss::ALL.map(|loss| (at, loss))) {
        for seed in 1..=4 {
            let world = World::after(trace.image(&Crash { at, loss, seed }), 2 * SECOND);
            let counts = world.counts(&q());
            let is_dead = counts == [0, 0, 0, 1];
            assert!(is_dead || (counts == [0, 0, 1, 0] && at < acknowledged), "{counts:?} at {at}, {loss:?}");
            died[usize::from(is_dead)] += 1;
            let state = if is_dead { MessageState::Dead } else { MessageState::InFlight };
            let [message] = &world.peek(state)[..] else { panic!("one") };
            let (reason, time) = if is_dead { ("too salty", Some(SECOND)) } else { ("try 4", None) };
            assert_eq!((message.id, message.attempts, message.payload().as_ref()), (id, 5, &b"bad"[..]));
            assert_eq!((message.reason.as_deref(), message.died), (Some(reason), time));
            assert_eq!(message.headers, [("kind".to_owned(), "soup".to_owned())]);
            // How often it may be tried, and where it goes then, is as it was, too.
            let settings = q().settings(&world.ana.snapshot().unwrap()).unwrap();
            assert_eq!(settings, QueueSettings::new().visibility(seconds(7)));
            assert_eq!(settings.attempts_max, 5);
            if !is_dead {
                assert_eq!(world.nack(token, "after all"), Requeued::Dead);
                assert_eq!(world.counts(&q()), [0, 0, 0, 1]);
            }
        }
    }
    assert!(died.iter().all(|count| *count > 0), "{died:?}");
    let end = Crash { at: trace.steps.len(), loss: Loss::Nothing, seed: 1 };
    let world = World::after(trace.image(&end), 2 * SECOND);
    assert_eq!((world.counts(&q()), world.counts(&others)), ([0, 0, 0, 0], [1, 0, 0, 0]));
    let moved = world.ana.try_write(|txn| others.dequeue(txn)).unwrap().value.unwrap();
    assert_eq!((moved.origin.as_deref(), moved.reason.as_deref()), (Some("q"), Some("too salty")));
}

#[test]
fn t45_x_2_no_message_is_lost_and_none_comes_back() {
    let (mut images, mut acknowledged, seeds) = (0, 0, if cfg!(debug_assertions) { 4 } else { 40 });
    for seed in 1..=seeds {
        let deliveries = Deliveries::run(seed).unwrap();
        acknowledged += deliveries.acknowledged();
        for at in 0..deliveries.points() {
            let loss = Loss::ALL[at % Loss::ALL.len()];
            deliveries.judge(&Crash { at, loss, seed }, at.is_multiple_of(50)).unwrap();
            images += 1;
        }
    }
    assert!(
        images > 200 && acknowledged > 2 * seeds as usize,
        "{images} images, {acknowledged} acknowledged"
    );
}
