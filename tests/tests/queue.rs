//! The queue: what OxideQ asks for, on a file and in memory, each with a full recount.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::{
    CollectionDefinition, DocumentKind, Larder, ManualClock, Part, RestoreOptions, RowDraft, RowRange,
    Session, WriteTxn, restore,
};
use larder_layers::queue::{
    Backoff, Enqueued, Message, MessageState, Nack, Queue, QueueError, QueueSettings, QueueStats, Queues,
    RequeueAt, Requeued, Token,
};
use larder_tests::{Random, block_on, kind_of, still, verified};

const SECOND: i64 = 1_000_000;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

struct World {
    larder: Larder,
    clock: Arc<ManualClock>,
    ana: Session,
    queue: Queue,
}

impl World {
    fn new(larder: Larder, clock: Arc<ManualClock>, settings: &QueueSettings) -> Self {
        let ana = larder.session("ana").unwrap();
        let queue = Queues::at("queues").unwrap().queue("q").unwrap();
        let _ = ana.try_write(|txn| queue.create(txn, settings)).unwrap();
        Self { larder, clock, ana, queue }
    }

    fn act<R>(
        &self,
        act: impl FnOnce(&Queue, &mut WriteTxn<'_>) -> Result<R, QueueError>,
    ) -> Result<R, QueueError> {
        self.ana.try_write(|txn| act(&self.queue, txn)).map(|receipt| receipt.value)
    }

    fn put(&self, message: impl Into<Message>) -> Enqueued {
        self.act(|queue, txn| queue.enqueue(txn, message)).unwrap()
    }

    fn take(&self) -> Option<(Token, String, u32)> {
        let taken = self.act(|queue, txn| queue.dequeue(txn)).unwrap()?;
        let text = String::from_utf8(taken.payload().to_vec()).unwrap();
        Some((taken.token(), text, taken.attempts))
    }

    fn taken(&self) -> Token {
        self.take().expect("a message").0
    }

    fn sweep(&self, limit: usize) -> u64 {
        self.act(|queue, txn| queue.sweep(txn, limit)).unwrap()
    }

    fn stats(&self) -> QueueStats {
        self.ana.read(|view| Ok(self.queue.stats(view))).unwrap().unwrap()
    }

    /// Ready, delayed, in flight, dead: counted, and the same as what is maintained. No message is lost.
    fn counts(&self) -> [u64; 4] {
        let stats = self.stats();
        let states = [MessageState::Ready, MessageState::Delayed, MessageState::InFlight, MessageState::Dead];
        let view = self.ana.snapshot().unwrap();
        let counted = states.map(|state| self.queue.peek(&view, state, 10_000).unwrap().len() as u64);
        assert_eq!(counted, [stats.ready, stats.delayed, stats.in_flight, stats.dead]);
        assert_eq!(stats.enqueued, stats.acked + stats.purged + counted.iter().sum::<u64>(), "{stats:?}");
        verified(&self.larder);
        counted
    }
}

/// Plays a scenario in memory, on a file, and on the images that crashes in it would have left: in all of them what is counted is
/// what is there.
fn everywhere(settings: QueueSettings, scenario: impl Fn(&World)) {
    let queue_of = |larder: &Larder, clock: &Arc<ManualClock>| World {
        larder: larder.clone(),
        clock: Arc::clone(clock),
        ana: larder.session("ana").unwrap(),
        queue: Queues::at("queues").unwrap().queue("q").unwrap(),
    };
    larder_tests::everywhere(
        |larder, clock| scenario(&World::new(larder.clone(), Arc::clone(clock), &settings)),
        |larder| {
            let world = queue_of(larder, &Arc::new(ManualClock::at(SECOND)));
            // A crash may have come before there was one, or after it was deleted.
            if world.ana.read(|view| Ok(world.queue.stats(view))).unwrap().is_ok() {
                world.counts();
            }
        },
    );
}

fn new() -> QueueSettings {
    QueueSettings::new()
}

/// `memory.rs`: "test_create_and_queue_dequeue". First in, first out.
#[test]
fn test_create_and_queue_dequeue() {
    everywhere(new(), |world| {
        for text in ["one", "two", "three"] {
            let _ = world.put(text);
        }
        let (first, second) = (world.take().unwrap(), world.take().unwrap());
        assert_eq!((first.1.as_str(), first.2, second.1.as_str()), ("one", 1, "two"), "first in, first out");
        assert!(first.0 != second.0);
        world.act(|queue, txn| queue.ack(txn, first.0)).unwrap();
        assert_eq!(world.counts(), [1, 0, 1, 0]);
        // Created again, it is what it was.
        assert!(!world.act(|queue, txn| queue.create(txn, &new().attempts_max(1))).unwrap());
        assert_eq!(world.counts(), [1, 0, 1, 0]);
        assert_eq!(world.ana.read(|view| Ok(world.queue.settings(view))).unwrap().unwrap(), new());
        world.act(|queue, txn| queue.ack(txn, second.0)).unwrap();
        let third = world.taken();
        world.act(|queue, txn| queue.ack(txn, third)).unwrap();
        assert_eq!(world.take(), None);
        assert_eq!(world.counts(), [0, 0, 0, 0]);
    });
}

/// `memory.rs`: "test_dlq_functionality". What was given back five times is a dead letter, and its queue is empty.
#[test]
fn s4_1_3_test_dlq_functionality() {
    everywhere(new(), |world| {
        let _ = world.put(Message::new("bad").header("kind", "soup"));
        for attempt in 1..=5 {
            let (token, _, attempts) = world.take().unwrap();
            assert_eq!(attempts, attempt);
            let outcome =
                world.act(|queue, txn| queue.nack(txn, token, &Nack::new().reason("too salty"))).unwrap();
            assert_eq!(outcome, if attempt < 5 { Requeued::Ready } else { Requeued::Dead });
        }
        assert_eq!(world.take(), None);
        assert_eq!(world.counts(), [0, 0, 0, 1]);
        let view = world.ana.snapshot().unwrap();
        let [dead] = &world.queue.peek(&view, MessageState::Dead, 10).unwrap()[..] else { panic!("one") };
        assert_eq!((dead.attempts, dead.reason.as_deref(), dead.died), (5, Some("too salty"), Some(SECOND)));
        assert_eq!(dead.headers, [("kind".to_owned(), "soup".to_owned())]);
        drop(view);
        // To another queue, with where it came from; and taken again as if never tried.
        let others = Queues::at("queues").unwrap().queue("others").unwrap();
        let _ = world.ana.try_write(|txn| others.create(txn, &new())).unwrap();
        assert_eq!(world.act(|queue, txn| queue.redrive(txn, 10)).unwrap(), 1);
        assert_eq!(world.counts(), [1, 0, 0, 0]);
        let (token, _, attempts) = world.take().unwrap();
        assert_eq!(attempts, 1, "as if never tried");
        let outcome = world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap();
        assert_eq!(outcome, Requeued::Ready);
        assert_eq!(world.act(|queue, txn| queue.move_to(txn, &others, MessageState::Ready, 10)).unwrap(), 1);
        assert_eq!(world.counts(), [0, 0, 0, 0]);
        let moved = world.ana.try_write(|txn| others.dequeue(txn)).unwrap().value.unwrap();
        assert_eq!(
            (moved.origin.as_deref(), moved.attempts, moved.payload().as_ref()),
            (Some("q"), 1, &b"bad"[..])
        );
        let queues = world.ana.read(|view| Ok(Queues::at("queues").unwrap().list(view))).unwrap().unwrap();
        assert_eq!(queues.iter().map(Queue::name).collect::<Vec<_>>(), ["others", "q"], "nothing was bred");
    });
}

/// `memory.rs`: "test_heartbeat". The time is that of the delivery, and not of the sweeper: with 2 s more there is nothing to take back
/// 1.1 s later, and something 2.2 s later; with 60 s more nothing 2.2 s later, and something 60 s later.
#[test]
fn s4_qw3_test_heartbeat() {
    everywhere(new().visibility(seconds(2)), |world| {
        let _ = world.put("x");
        let token = world.taken();
        world.clock.advance(1_100_000);
        world.act(|queue, txn| queue.extend(txn, token, seconds(2))).unwrap();
        world.clock.advance(1_100_000);
        assert_eq!(world.sweep(10), 0);
        world.clock.advance(1_100_000);
        assert_eq!(world.sweep(10), 1);
        let token = world.taken();
        let until = world.act(|queue, txn| queue.extend(txn, token, seconds(60))).unwrap();
        world.clock.advance(2_200_000);
        assert_eq!(world.sweep(10), 0);
        world.clock.set(until);
        assert_eq!(world.sweep(10), 1);
        let token = world.taken();
        let now = larder::Clock::now(&*world.clock);
        assert_eq!(world.act(|queue, txn| queue.heartbeat(txn, token)).unwrap(), now + 2 * SECOND);
        for bad in [Duration::ZERO, Duration::MAX] {
            let refused = world.act(|queue, txn| queue.extend(txn, token, bad));
            assert!(matches!(refused, Err(QueueError::InvalidArgument { .. })), "{refused:?}");
        }
        assert_eq!(world.counts(), [0, 0, 1, 0]);
    });
}

/// `persistence_test`: "test_persistence_workflow". Opened again, what was not acknowledged is there, and nothing else; what a crash
/// leaves, `queue_crashes.rs` tests.
#[test]
fn s4_1_2_test_persistence_workflow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.larder");
    let clock = Arc::new(ManualClock::at(SECOND));
    let open = || still().clock(clock.clone()).open(&path).unwrap();
    let world = World::new(open(), clock.clone(), &new());
    for text in ["done", "held", "waiting"] {
        let _ = world.put(text);
    }
    let (done, held) = (world.taken(), world.taken());
    world.act(|queue, txn| queue.ack(txn, done)).unwrap();
    clock.advance(20 * SECOND);
    world.larder.close().unwrap();
    let world = World::new(open(), clock.clone(), &new().attempts_max(1));
    assert_eq!(world.counts(), [1, 0, 1, 0]);
    clock.advance(9 * SECOND);
    assert_eq!(world.sweep(10), 0, "29 s after it was taken");
    world.act(|queue, txn| queue.extend(txn, held, seconds(1))).unwrap();
    clock.advance(SECOND);
    assert_eq!(world.sweep(10), 1);
    assert_eq!(world.take().unwrap().1, "held", "its old place is before what came later");
    let stats = world.stats();
    assert_eq!((stats.enqueued, stats.dequeued, stats.acked, stats.expired), (3, 3, 1, 1), "totals go on");
    assert_eq!(world.counts(), [1, 0, 1, 0]);
}

#[test]
fn s4_0_1_sizes_of_messages_and_batches_are_limited() {
    everywhere(new(), |world| {
        let of = |length: usize| Message::new(vec![b'x'; length]);
        let mib = 1 << 20;
        let _ = world.put(of(mib));
        let too_large = world.act(|queue, txn| queue.enqueue(txn, of(mib + 1)));
        assert!(
            matches!(
                too_large,
                Err(QueueError::MessageTooLarge { at: 0, size: 1_048_577, limit: 1_048_576 })
            ),
            "{too_large:?}"
        );
        let batch = world.act(|queue, txn| queue.enqueue_all(txn, (0..11).map(|_| of(mib))));
        assert!(matches!(batch, Err(QueueError::BatchTooLarge { unit: "bytes", .. })), "{batch:?}");
        let batch = world.act(|queue, txn| queue.enqueue_all(txn, [of(1), of(mib + 1)]));
        assert!(matches!(batch, Err(QueueError::MessageTooLarge { at: 1, .. })), "{batch:?}");
        assert_eq!(world.counts(), [1, 0, 0, 0]);
        let taken = world.act(|queue, txn| queue.dequeue(txn)).unwrap().unwrap();
        assert_eq!(taken.payload().len(), mib);
        world.act(|queue, txn| queue.ack(txn, taken.token())).unwrap();
        assert_eq!(world.counts(), [0, 0, 0, 0]);
        assert_eq!(verified(&world.larder).rows, 1, "the totals are left");
    });
}

#[test]
fn s4_0_2_names_are_checked() {
    let queues = Queues::at("queues").unwrap();
    let long = "q".repeat(129);
    for name in ["", "a/b", "é", "a b", ".", &long] {
        assert!(matches!(queues.queue(name), Err(QueueError::InvalidName { .. })), "{name:?}");
    }
    everywhere(new().attempts_max(1), |world| {
        let longest = queues.queue(&"q".repeat(128)).unwrap();
        world
            .ana
            .try_write(|txn| {
                longest.create(txn, &new().attempts_max(1))?;
                let _ = longest.enqueue(txn, "x")?;
                let taken = longest.dequeue(txn)?.unwrap();
                longest.nack(txn, taken.token(), &Nack::new())
            })
            .unwrap();
        let view = world.ana.snapshot().unwrap();
        assert_eq!(longest.stats(&view).unwrap().dead, 1, "dead letters need no longer name");
        let nowhere = queues.queue("nowhere").unwrap();
        let refused = world.ana.try_write(|txn| nowhere.enqueue(txn, "x"));
        assert!(matches!(refused, Err(QueueError::NoSuchQueue { .. })), "{refused:?}");
    });
}

#[test]
fn s4_1_4_batches_are_acknowledged_as_a_whole_or_not_at_all() {
    everywhere(new(), |world| {
        for _ in 0..3 {
            let _ = world.put("x");
        }
        let (a, b) = (world.taken(), world.taken());
        let (x, y) = (Token { message: 77, fence: 1 }, Token { fence: b.fence + 5, ..a });
        let refused = world.act(|queue, txn| queue.ack_all(txn, &[a, b, x, y]));
        assert!(
            matches!(&refused, Err(QueueError::LeaseLost { tokens }) if *tokens == [x, y]),
            "{refused:?}"
        );
        let refused = world.act(|queue, txn| queue.nack_all(txn, &[a, x], &Nack::new()));
        assert!(matches!(refused, Err(QueueError::LeaseLost { .. })));
        let refused = world.act(|queue, txn| queue.ack_all(txn, &[a, a]));
        assert!(matches!(refused, Err(QueueError::DuplicateToken { token }) if token == a));
        assert_eq!(world.counts(), [1, 0, 2, 0]);
        world.act(|queue, txn| queue.ack_all(txn, &[a, b])).unwrap();
        assert_eq!(world.counts(), [1, 0, 0, 0]);
        assert_eq!(a.to_string().parse::<Token>().unwrap(), a);
        assert!("12".parse::<Token>().is_err() && "a.b".parse::<Token>().is_err());
    });
}

#[test]
fn x_7_s4_1_1_of_16_who_acknowledge_one_does() {
    let larder = still().open_in_memory().unwrap();
    let world = World::new(larder, Arc::new(ManualClock::at(0)), &new().attempts_max(0));
    for round in 0..1_000 {
        let _ = world.put("x");
        let token = world.taken();
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|thread| {
                    let (ana, queue) = (world.ana.clone(), world.queue.clone());
                    scope.spawn(move || match thread % 3 {
                        0 => ana.try_write(|txn| queue.ack(txn, token)).is_ok(),
                        1 => ana.try_write(|txn| queue.nack(txn, token, &Nack::new())).is_ok(),
                        _ => {
                            let outcome = ana.try_write(|txn| queue.take_back(txn, &[token])).unwrap().value;
                            outcome[0].1.is_some()
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|has_won| **has_won).count(), 1, "round {round}");
        let _ = world.act(|queue, txn| queue.purge(txn)).unwrap();
    }
    assert_eq!(world.counts(), [0, 0, 0, 0]);
    let stats = world.stats();
    assert_eq!(stats.acked + stats.nacked + stats.expired, 1_000);
}

#[test]
fn s4_1_5_s4_2_5_a_sweep_is_limited_one_commit_and_keeps_the_order() {
    everywhere(new().attempts_max(0), |world| {
        world
            .act(|queue, txn| queue.enqueue_all(txn, (0..2_500).map(|n| Message::new(format!("{n:04}")))))
            .unwrap();
        for _ in 0..25 {
            assert_eq!(world.act(|queue, txn| queue.dequeue_up_to(txn, 100, None)).unwrap().len(), 100);
        }
        let _ = world.put("later");
        world.clock.advance(31 * SECOND);
        let before = world.larder.info().unwrap().last_commit.sequence;
        let swept: Vec<u64> = (0..4).map(|_| world.sweep(1_000)).collect();
        assert_eq!(swept, [1_000, 1_000, 500, 0]);
        assert_eq!(
            world.larder.info().unwrap().last_commit.sequence,
            before + 3,
            "nothing to do is no commit"
        );
        let taken = world.act(|queue, txn| queue.dequeue_up_to(txn, 10_000, None)).unwrap();
        let texts: Vec<&[u8]> = taken.iter().map(|message| message.payload().as_ref()).collect();
        assert_eq!(
            (texts.len(), texts[0], texts[2_499], texts[2_500]),
            (2_501, &b"0000"[..], &b"2499"[..], &b"later"[..])
        );
        assert!(texts[..2_500].is_sorted());
        assert_eq!(world.counts(), [0, 0, 2_501, 0]);
    });
}

#[test]
fn s4_1_1_3_what_is_expired_is_found_without_a_change_and_taken_back_in_the_same_way_everywhere() {
    let state = || {
        let clock = Arc::new(ManualClock::at(SECOND));
        let ids = Arc::new(larder::CountingIds::from(1));
        let larder = still().clock(clock.clone()).ids(ids).open_in_memory().unwrap();
        let world = World::new(larder, clock, &new());
        for n in 0..20 {
            let _ = world.put(format!("{n}"));
        }
        let tokens: Vec<Token> = (0..10).map(|_| world.taken()).collect();
        world.clock.advance(40 * SECOND);
        let commit = world.larder.info().unwrap().last_commit.sequence;
        let view = world.ana.snapshot().unwrap();
        let expired = world.queue.expired(&view, 41 * SECOND, 100).unwrap();
        assert_eq!(expired, tokens);
        assert!(world.queue.expired(&view, 30 * SECOND, 100).unwrap().is_empty());
        drop(view);
        assert_eq!(world.larder.info().unwrap().last_commit.sequence, commit);
        // One is late, and still in time.
        world.act(|queue, txn| queue.ack(txn, tokens[3])).unwrap();
        let outcomes = world.act(|queue, txn| queue.take_back(txn, &expired)).unwrap();
        let skipped: Vec<Token> =
            outcomes.iter().filter(|(_, outcome)| outcome.is_none()).map(|(token, _)| *token).collect();
        assert_eq!(skipped, [tokens[3]]);
        assert_eq!(world.counts(), [19, 0, 0, 0]);
        world.larder.info().unwrap().state
    };
    assert_eq!(state(), state());
}

/// S4-§6. A queue that is full, by messages or by bytes, says so, and a batch that has no room is refused as a whole.
#[test]
fn s4_par_6_a_full_queue_takes_nothing_more() {
    everywhere(new().messages_max(10).bytes_max(1_000), |world| {
        for _ in 0..8 {
            let _ = world.put("x");
        }
        let batch = world.act(|queue, txn| queue.enqueue_all(txn, ["a", "b", "c"].map(Message::new)));
        assert!(
            matches!(batch, Err(QueueError::QueueFull { unit: "messages", depth: 8, limit: 10 })),
            "{batch:?}"
        );
        assert_eq!(world.counts(), [8, 0, 0, 0]);
        let _ = world.act(|queue, txn| queue.enqueue_all(txn, ["a", "b"].map(Message::new))).unwrap();
        // What is in flight counts, and what is dead does not.
        let token = world.taken();
        let full = world.act(|queue, txn| queue.enqueue(txn, "y"));
        assert!(
            matches!(full, Err(QueueError::QueueFull { unit: "messages", depth: 10, limit: 10 })),
            "{full:?}"
        );
        let _ = world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap();
        assert_eq!(world.counts(), [10, 0, 0, 0], "given back it is never refused");
        let token = world.taken();
        world.act(|queue, txn| queue.ack(txn, token)).unwrap();
        let bytes = world.act(|queue, txn| queue.enqueue(txn, vec![0; 992]));
        assert!(
            matches!(bytes, Err(QueueError::QueueFull { unit: "bytes", depth: 9, limit: 1_000 })),
            "{bytes:?}"
        );
    });
}

/// S4-§6. 32 threads fill a queue of 1 000 to the message, and the others are told that it is full; so it stays while some take and
/// acknowledge, and give back.
#[test]
fn s4_par_6_of_32_threads_at_a_limit_of_1_000_none_goes_beyond_it() {
    let world = World::new(
        still().open_in_memory().unwrap(),
        Arc::new(ManualClock::at(0)),
        &new().messages_max(1_000).attempts_max(0),
    );
    let fill = |each: usize, then: &(dyn Fn() + Sync)| -> (usize, usize) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..32)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut done, mut full) = (0, 0);
                        for _ in 0..each {
                            match world.ana.try_write(|txn| world.queue.enqueue(txn, "x")) {
                                Ok(_) => done += 1,
                                Err(QueueError::QueueFull {
                                    unit: "messages",
                                    depth: 1_000,
                                    limit: 1_000,
                                }) => {
                                    full += 1;
                                }
                                Err(other) => panic!("{other}"),
                            }
                            then();
                        }
                        (done, full)
                    })
                })
                .collect();
            let done = threads.into_iter().map(|thread| thread.join().unwrap());
            done.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
        })
    };
    assert_eq!(fill(50, &|| {}), (1_000, 600));
    assert_eq!(world.counts(), [1_000, 0, 0, 0]);
    let acked = AtomicUsize::new(0);
    let (done, _) = fill(20, &|| {
        let Some(taken) = world.act(|queue, txn| queue.dequeue(txn)).unwrap() else { return };
        let token = taken.token();
        if taken.id.is_multiple_of(2) {
            world.act(|queue, txn| queue.ack(txn, token)).unwrap();
            acked.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap();
        }
        let stats = world.stats();
        assert!(stats.ready + stats.in_flight <= 1_000, "{stats:?}");
    });
    let left = 1_000 + done as u64 - acked.into_inner() as u64;
    assert_eq!(world.counts(), [left, 0, 0, 0]);
    let (more, _) = fill(40, &|| {});
    assert_eq!((left + more as u64, world.counts()), (1_000, [1_000, 0, 0, 0]));
}

#[test]
fn s2_31_s2_32_priority_and_delay_order_what_is_taken() {
    everywhere(new(), |world| {
        for (text, priority, delay) in
            [("later", 9, 5), ("low", -1_000, 0), ("a", 0, 0), ("high", 1_000, 0), ("b", 0, 0)]
        {
            let _ = world.put(Message::new(text).priority(priority).delay(seconds(delay)));
        }
        let mut order = vec![world.take().unwrap().1];
        assert_eq!(world.counts(), [3, 1, 1, 0]);
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.queue.next_due(&view).unwrap(), Some(6 * SECOND));
        world.clock.advance(5 * SECOND);
        order.extend(std::iter::from_fn(|| world.take().map(|taken| taken.1)));
        assert_eq!(order, ["high", "later", "a", "b", "low"]);
        for bad in [Message::new("x").priority(1_001), Message::new("x").delay(Duration::MAX)] {
            let refused = world.act(|queue, txn| queue.enqueue(txn, bad.clone()));
            assert!(matches!(refused, Err(QueueError::InvalidArgument { .. })), "{refused:?}");
        }
    });
}

#[test]
fn s1_3_attempts_and_backoff_are_data_of_the_queue_or_of_the_message() {
    let backoff = Backoff::exponential(seconds(30), 3, seconds(300));
    assert_eq!([1, 2, 3, 4, 99].map(|attempts| backoff.wait(attempts).as_secs()), [30, 90, 270, 300, 300]);
    everywhere(new().attempts_max(3).backoff(Backoff::exponential(seconds(5), 3, seconds(60))), |world| {
        let _ = world.put("x");
        for wait in [5, 15] {
            let token = world.taken();
            let outcome = world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap();
            let now = larder::Clock::now(&*world.clock);
            assert_eq!(outcome, Requeued::Delayed { until: now + wait * SECOND });
            world.clock.advance(wait * SECOND - 1);
            assert_eq!(world.take(), None);
            world.clock.advance(1);
        }
        let token = world.taken();
        assert_eq!(world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap(), Requeued::Dead);
        let _ = world.put(Message::new("own").attempts_max(2).backoff(Backoff::fixed(seconds(1))));
        let token = world.taken();
        let later = world.act(|queue, txn| queue.nack(txn, token, &Nack::new().delay(seconds(9)))).unwrap();
        assert!(
            matches!(later, Requeued::Delayed { until } if until == larder::Clock::now(&*world.clock) + 9 * SECOND)
        );
        world.clock.advance(9 * SECOND);
        let token = world.taken();
        assert_eq!(world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap(), Requeued::Dead);
        assert_eq!(world.counts(), [0, 0, 0, 2]);
    });
}

#[test]
fn p8_a_message_goes_back_to_its_place_the_front_or_the_back() {
    for (place, expected) in [
        (RequeueAt::Original, ["a", "b", "c"]),
        (RequeueAt::Front, ["b", "a", "c"]),
        (RequeueAt::Back, ["c", "a", "b"]),
    ] {
        everywhere(new().requeue_at(place), |world| {
            for text in ["a", "b", "c"] {
                let _ = world.put(text);
            }
            for token in [world.taken(), world.taken()] {
                let _ = world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap();
            }
            let order: Vec<String> = std::iter::from_fn(|| world.take().map(|taken| taken.1)).collect();
            assert_eq!(order, expected, "{place:?}");
        });
    }
}

#[test]
fn p8_within_its_window_a_key_is_enqueued_once() {
    everywhere(new(), |world| {
        let put = || world.put(Message::new("x").dedupe("order-7", seconds(10)));
        let first = put();
        assert!(matches!(first, Enqueued::New(_)));
        let token = world.taken();
        world.act(|queue, txn| queue.ack(txn, token)).unwrap();
        assert_eq!(put(), Enqueued::Duplicate(first.id()), "whatever became of it");
        let both = ["y", "z"].map(|text| Message::new(text).dedupe("order-8", seconds(10)));
        let both = world.act(|queue, txn| queue.enqueue_all(txn, both)).unwrap();
        assert_eq!(both[1], Enqueued::Duplicate(both[0].id()), "in one batch too");
        world.clock.advance(10 * SECOND);
        let again = put();
        assert!(matches!(again, Enqueued::New(id) if id > first.id()));
        world.sweep(100);
        assert_eq!(world.counts(), [2, 0, 0, 0]);
        assert_eq!(
            verified(&world.larder).rows,
            2 + 1 + 1,
            "messages, totals, and the key that is in its window"
        );
    });
}

#[test]
fn p8_a_paused_queue_is_filled_and_not_emptied() {
    everywhere(new(), |world| {
        let _ = world.put("x");
        let token = world.taken();
        world.act(|queue, txn| queue.pause(txn)).unwrap();
        let _ = world.put("y");
        let refused = world.act(|queue, txn| queue.dequeue(txn));
        assert!(matches!(refused, Err(QueueError::Paused { .. })), "{refused:?}");
        world.act(|queue, txn| queue.ack(txn, token)).unwrap();
        world.act(|queue, txn| queue.resume(txn)).unwrap();
        assert_eq!(world.take().unwrap().1, "y");
        assert_eq!(world.act(|queue, txn| queue.purge(txn)).unwrap(), 1);
        assert_eq!(world.counts(), [0, 0, 0, 0]);
        assert!(world.act(|queue, txn| queue.delete(txn)).unwrap());
        assert!(!world.act(|queue, txn| queue.delete(txn)).unwrap());
        assert_eq!(verified(&world.larder).rows, 0);
    });
}

/// `batch_tests`: "test_single_binary_protocol". Of any bytes, small or large.
#[test]
fn batch_tests_bytes_are_what_they_were() {
    everywhere(new(), |world| {
        let payload = vec![0u8, 159, 146, 150];
        let large: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let batch = [Message::new(payload.clone()), Message::new(large.clone())];
        let _ = world.act(|queue, txn| queue.enqueue_all(txn, batch)).unwrap();
        let taken = world.act(|queue, txn| queue.dequeue_up_to(txn, 5, None)).unwrap();
        assert_eq!(taken.len(), 2);
        assert!(taken[0].payload()[..] == payload[..] && taken[1].payload()[..] == large[..]);
        for bad in [0, 10_001, usize::MAX] {
            let refused = world.act(|queue, txn| queue.dequeue_up_to(txn, bad, None));
            assert!(matches!(refused, Err(QueueError::InvalidArgument { .. })), "{bad}");
        }
    });
}

#[test]
fn a_token_of_another_queue_or_another_attempt_does_nothing() {
    everywhere(new(), |world| {
        let other = Queues::at("queues").unwrap().queue("other").unwrap();
        let _ = world.ana.try_write(|txn| other.create(txn, &new())).unwrap();
        let _ = world.put("x");
        let token = world.taken();
        let refused = world.ana.try_write(|txn| other.ack(txn, token));
        assert!(matches!(refused, Err(QueueError::LeaseLost { .. })), "{refused:?}");
        world.clock.advance(31 * SECOND);
        let again = world.taken();
        assert_eq!(again.message, token.message, "taken back by the next who takes one");
        for act in [
            world.act(|queue, txn| queue.ack(txn, token)),
            world.act(|queue, txn| queue.nack(txn, token, &Nack::new()).map(drop)),
            world.act(|queue, txn| queue.heartbeat(txn, token).map(drop)),
        ] {
            assert!(matches!(act, Err(QueueError::LeaseLost { .. })), "{act:?}");
        }
        world.act(|queue, txn| queue.ack(txn, again)).unwrap();
        assert_eq!(world.counts(), [0, 0, 0, 0]);
    });
}

#[test]
fn a_message_its_result_and_its_lineage_are_one_commit() {
    everywhere(new(), |world| {
        let _ = world.put("leeks");
        let taken = world.act(|queue, txn| queue.dequeue(txn)).unwrap().unwrap();
        let failed: Result<_, QueueError> = world.act(|queue, txn| {
            txn.put("results/soup.txt", taken.payload().clone())?;
            queue.ack(txn, taken.token())?;
            queue.ack(txn, taken.token())
        });
        assert!(matches!(failed, Err(QueueError::LeaseLost { .. })));
        assert!(!world.ana.exists("results/soup.txt").unwrap());
        assert_eq!(world.counts(), [0, 0, 1, 0]);
    });
}

/// S4-0.2. What is not a queue is neither listed as one nor removed as one, whatever its name.
#[test]
fn s4_0_2_what_is_no_queue_is_left_alone() {
    everywhere(new(), |world| {
        let queues = Queues::at("queues").unwrap();
        world.ana.put("queues/folder/soup", "leek").unwrap();
        world.ana.put("queues/asset", "leek").unwrap();
        world.ana.write(|txn| txn.define_collection("queues/rows", &CollectionDefinition::new())).unwrap();
        let listed = world.ana.read(|view| Ok(queues.list(view))).unwrap().unwrap();
        assert_eq!(listed.iter().map(Queue::name).collect::<Vec<_>>(), ["q"]);
        for name in ["folder", "asset", "rows"] {
            let other = queues.queue(name).unwrap();
            let deleted = world.act(|_, txn| other.delete(txn));
            assert!(matches!(deleted, Err(QueueError::NoSuchQueue { .. })), "{name}: {deleted:?}");
            let paused = world.act(|_, txn| other.pause(txn));
            assert!(matches!(paused, Err(QueueError::NoSuchQueue { .. })), "{name}: {paused:?}");
            let configured = world.act(|_, txn| other.configure(txn, &new()));
            assert!(matches!(configured, Err(QueueError::NoSuchQueue { .. })), "{name}: {configured:?}");
        }
        let rows = queues.queue("rows").unwrap();
        let created = world.act(|_, txn| rows.create(txn, &new()));
        assert!(
            matches!(&created, Err(QueueError::Store(error)) if kind_of(Err::<(), _>(error.clone())) == "AlreadyExists")
        );
        let settings = world.ana.read(|view| Ok(rows.settings(view))).unwrap();
        assert!(matches!(settings, Err(QueueError::NoSuchQueue { .. })), "{settings:?}");
        let view = world.ana.snapshot().unwrap();
        let definition = view.collection("queues/rows").unwrap();
        assert_eq!(*definition.definition(), CollectionDefinition::new(), "it is what it was");
        assert!(world.ana.exists("queues/folder/soup").unwrap() && world.ana.exists("queues/asset").unwrap());
        assert!(world.ana.exists("queues/rows").unwrap());
        assert!(!world.act(|_, txn| queues.queue("nothing").unwrap().delete(txn)).unwrap());
        assert!(world.act(|queue, txn| queue.delete(txn)).unwrap());
        assert!(!world.act(|queue, txn| queue.delete(txn)).unwrap());
    });
}

/// S4-QW3. A heartbeat gives the time again that the message was taken for, that of the queue where nothing else was said;
/// and who comes to take back what he found expired leaves it to whoever has given a sign of life since.
#[test]
fn s4_qw3_a_heartbeat_gives_the_time_of_the_delivery_and_keeps_the_message() {
    everywhere(new(), |world| {
        let _ = world.put("a");
        let _ = world.put("b");
        let long =
            world.act(|queue, txn| queue.dequeue_up_to(txn, 1, Some(seconds(600)))).unwrap()[0].token();
        let usual = world.taken();
        world.clock.advance(10 * SECOND);
        let beat = |token| world.act(|queue, txn| queue.heartbeat(txn, token)).unwrap();
        assert_eq!((beat(long), beat(usual)), (611 * SECOND, 41 * SECOND));
        assert_eq!(beat(long), 611 * SECOND, "it is kept");
        world.clock.advance(601 * SECOND);
        let view = world.ana.snapshot().unwrap();
        let expired = world.queue.expired(&view, world.ana.now(), 10).unwrap();
        assert_eq!(expired, [usual, long]);
        let _ = beat(long);
        let outcomes = world.act(|queue, txn| queue.take_back_expired(txn, &expired)).unwrap();
        assert_eq!(outcomes, [(usual, Some(Requeued::Ready)), (long, None)]);
        // Taken again, it is for the queue's time.
        let again = world.taken();
        let now = world.ana.now();
        assert_eq!(beat(again), now + 30 * SECOND);
        world.act(|queue, txn| queue.ack_all(txn, &[long, again])).unwrap();
        assert_eq!(world.counts(), [0, 0, 0, 0]);
    });
}

#[test]
fn producers_and_consumers_have_the_rights_that_they_need_and_no_more() {
    let larder = still().open_in_memory().unwrap();
    let root = larder.root().unwrap();
    let queue = Queues::at("queues").unwrap().queue("q").unwrap();
    root.try_write(|txn| queue.create(txn, &new())).unwrap();
    root.set_document(
        DocumentKind::Rules,
        "default = \"deny\"\n[[rule]]\non = \"queues/q/**\"\nwho = [\"maker\"]\nallow = [\"enqueue\"]\n\
         [[rule]]\non = \"queues/q/**\"\nwho = [\"worker\"]\nallow = [\"consume\"]\n",
    )
    .unwrap();
    let (maker, worker) = (larder.session("maker").unwrap(), larder.session("worker").unwrap());
    let message = || Message::new("x").dedupe("once", seconds(9));
    let _ = maker.try_write(|txn| queue.enqueue(txn, message())).unwrap();
    assert!(matches!(
        maker.try_write(|txn| queue.enqueue(txn, message())).unwrap().value,
        Enqueued::Duplicate(_)
    ));
    let denied = |result: Result<(), QueueError>| {
        assert!(matches!(&result, Err(QueueError::Store(error)) if error.code() == 301), "{result:?}");
    };
    denied(maker.try_write(|txn| queue.dequeue(txn)).map(drop));
    denied(worker.try_write(|txn| queue.enqueue(txn, "y")).map(drop));
    denied(worker.try_write(|txn| queue.pause(txn)).map(drop));
    denied(worker.try_write(|txn| queue.delete(txn)).map(drop));
    let taken = worker.try_write(|txn| queue.dequeue(txn)).unwrap().value.unwrap();
    worker.try_write(|txn| queue.ack(txn, taken.token())).unwrap();
    // Whoever may enqueue may put rows that are no messages, or no good ones: they stop nobody.
    let row = || RowDraft::default().field("s", 0_u32).field("p", 1_000).field("o", 1);
    let message = || row().field("a", 0_u32).field("b", 0).field("e", i64::MIN);
    let missing = message().field("x", true);
    let endless = message().field("w", vec![Part::from(1), Part::from(2), Part::from(i64::MAX)]);
    for (number, row) in
        (1..).zip([row(), message(), missing, endless, row().field("s", 1_u32).field("t", 1)])
    {
        maker.write(|txn| txn.collection("queues/q")?.put(number, row)).unwrap();
    }
    let books = RowDraft::new(vec![255; 8 * 19]);
    maker.write(|txn| txn.collection("queues/q/books")?.put("totals", books)).unwrap();
    let _ = maker.try_write(|txn| queue.enqueue(txn, "good")).unwrap();
    let forged = worker.try_write(|txn| queue.dequeue(txn)).unwrap().value.unwrap();
    assert_eq!(forged.enqueued, i64::MIN, "what looks like a message in every way is one");
    let taken = worker.try_write(|txn| queue.dequeue(txn)).unwrap().value.unwrap();
    assert_eq!(taken.payload(), "good");
    verified(&larder);
}

#[test]
fn who_waits_is_woken_by_the_commit_that_brings_a_message() {
    let larder = still().open_in_memory().unwrap();
    let world = World::new(larder, Arc::new(ManualClock::at(0)), &new());
    let (waited, awaited) = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| world.queue.dequeue_within(&world.ana, seconds(600)).unwrap().unwrap());
        let future = scope.spawn(|| block_on(world.queue.next(&world.ana)).unwrap());
        let _ = world.put("one");
        let _ = world.put("two");
        (waiter.join().unwrap(), future.join().unwrap())
    });
    let mut texts = [waited.payload().clone(), awaited.payload().clone()];
    texts.sort();
    assert_eq!(texts, ["one", "two"]);
    assert!(world.queue.dequeue_within(&world.ana, Duration::from_millis(2)).unwrap().is_none());
    // Whoever waits when the store is closed is told.
    std::thread::scope(|scope| {
        let future = scope.spawn(|| block_on(world.queue.next(&world.ana)));
        let waiter = scope.spawn(|| world.queue.dequeue_within(&world.ana, seconds(600)));
        world.larder.close().unwrap();
        assert!(future.join().unwrap().is_err() && waiter.join().unwrap().is_err());
    });
}

/// What a queue has to be: a message is ready, delayed, in flight or dead, and leaves by one way only. 8 000 random operations;
/// `LARDER_LONG=1` makes 100 000.
#[test]
fn x_1_s4_1_1_s4_2_1_conservation_over_random_programs() {
    let seeds = if std::env::var_os("LARDER_LONG").is_some() { 250 } else { 20 };
    for seed in 0..seeds {
        let clock = Arc::new(ManualClock::at(SECOND));
        let larder = still().clock(clock.clone()).open_in_memory().unwrap();
        let world = World::new(larder, clock, &new().attempts_max(3).messages_max(60));
        let mut random = Random::new(seed);
        let (mut held, mut acked): (Vec<Token>, BTreeMap<u64, u32>) = (Vec::new(), BTreeMap::new());
        for step in 0..400 {
            match random.below(12) {
                0..=3 => {
                    let length = if random.percent(10) { 5_000 } else { random.below(50) };
                    let message = Message::new(vec![b'm'; length]).priority(random.below(3) as i64).delay(
                        Duration::from_micros(if random.percent(20) {
                            random.below(3_000) as u64
                        } else {
                            0
                        }),
                    );
                    let _ = world.act(|queue, txn| queue.enqueue(txn, message));
                }
                4..=6 => {
                    let count = 1 + random.below(3);
                    let time = Duration::from_micros(1 + random.below(4_000) as u64);
                    let taken = world.act(|queue, txn| queue.dequeue_up_to(txn, count, Some(time))).unwrap();
                    held.extend(taken.iter().map(larder_layers::queue::Envelope::token));
                }
                7..=8 if !held.is_empty() => {
                    let token = held[random.below(held.len())];
                    if world.act(|queue, txn| queue.ack(txn, token)).is_ok() {
                        *acked.entry(token.message).or_default() += 1;
                    }
                }
                9 if !held.is_empty() => {
                    let token = held[random.below(held.len())];
                    let _ = world.act(|queue, txn| queue.nack(txn, token, &Nack::new()));
                }
                10 => {
                    world.clock.advance(random.below(3_000) as i64);
                    world.sweep(1 + random.below(5));
                }
                11 if random.percent(20) => match world.act(|queue, txn| queue.redrive(txn, 2)) {
                    Ok(_) | Err(QueueError::QueueFull { .. }) => {}
                    Err(error) => panic!("{error}"),
                },
                _ => {}
            }
            if step % 100 == 99 {
                let _ = world.counts();
            }
        }
        assert!(acked.values().all(|count| *count == 1), "nothing was acknowledged twice");
        assert_eq!(world.stats().acked, acked.len() as u64);
    }
}

#[test]
fn s4_2_1_stats_are_read_and_not_counted() {
    let larder = still().open_in_memory().unwrap();
    let world = World::new(larder, Arc::new(ManualClock::at(0)), &new());
    world.act(|queue, txn| queue.enqueue_all(txn, (0..500).map(|_| Message::new("x")))).unwrap();
    let taken = world.act(|queue, txn| queue.dequeue_up_to(txn, 100, None)).unwrap();
    let stats = world.stats();
    assert_eq!(
        (stats.ready, stats.in_flight, stats.bytes, stats.oldest),
        (400, 100, 500, Some(taken[0].enqueued))
    );
    assert_eq!(stats.waits.iter().sum::<u64>(), 100);
    assert_eq!(world.counts(), [400, 0, 100, 0]);
}

/// S4-2.4. However many messages went through, the file is as large as what is live, with what the change feed keeps of the past, and
/// opens at once. 20 000 of them; a million, with `LARDER_LONG=1`, and with how long it takes in
/// `cargo bench -p larder-benches --bench targets -- queue`.
#[test]
fn s4_2_4_the_file_is_as_large_as_what_is_live_and_opens_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.larder");
    let open = || larder::Options::new().inline().log_segment_bytes(2 << 20).open(&path).unwrap();
    let world = World::new(open(), Arc::new(ManualClock::at(0)), &new());
    let lazy = world.ana.clone().durability(larder::Durability::Lazy);
    let batch = |count: usize| (0..count).map(|_| Message::new(vec![b'm'; 1_024]));
    let _ = lazy.try_write(|txn| world.queue.enqueue_all(txn, batch(1_000))).unwrap();
    let is_long = std::env::var_os("LARDER_LONG").is_some();
    let (rounds, length_max, compacted_max) =
        if is_long { (10_000, 64 << 20, 32 << 20) } else { (200, 32 << 20, 4 << 20) };
    for round in 0..rounds {
        lazy.try_write(|txn| -> Result<(), QueueError> {
            let _ = world.queue.enqueue_all(txn, batch(100))?;
            let taken = world.queue.dequeue_up_to(txn, 100, None)?;
            let tokens: Vec<Token> = taken.iter().map(larder_layers::queue::Envelope::token).collect();
            world.queue.ack_all(txn, &tokens)
        })
        .unwrap();
        if round % (rounds / 4) == 0 {
            let _ = world.counts();
        }
    }
    world.larder.close().unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length < length_max, "{rounds} times 100 messages went through; {length} bytes are left");
    let larder = open();
    assert_eq!(larder.recovery().map_or(0, |report| report.replayed), 0, "nothing of its past is read again");
    larder.compact(None).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < compacted_max);
    let world = World::new(larder, Arc::new(ManualClock::at(0)), &new());
    assert_eq!(world.counts(), [1_000, 0, 0, 0]);
}

#[test]
fn x_5_s4_1_the_same_program_over_rows_queues_and_caches_gives_the_same_state() {
    let state = |seed: u64| {
        let (clock, ids) = (Arc::new(ManualClock::at(SECOND)), Arc::new(larder::CountingIds::from(1)));
        let larder = still().clock(clock.clone()).ids(ids).open_in_memory().unwrap();
        let mut workload = larder_tests::Workload::new(seed);
        for _ in 0..150 {
            let _ = workload.step(&larder, &clock).unwrap();
        }
        larder.info().unwrap().state
    };
    for seed in 0..5 {
        assert_eq!(state(seed), state(seed), "seed {seed}");
    }
}

fn world(settings: &QueueSettings) -> World {
    let clock = Arc::new(ManualClock::at(SECOND));
    World::new(still().clock(clock.clone()).open_in_memory().unwrap(), clock, settings)
}

/// S4-1.1. Headers as long as they may be leave room for all that is written of a message later; longer ones are refused.
#[test]
fn s4_1_1_a_message_with_the_longest_headers_goes_all_its_ways() {
    let world = world(&QueueSettings::new().attempts_max(3).backoff(Backoff::fixed(seconds(1))));
    let longest = |filler: &str| Message::new("x").header("h", filler.repeat(2_039 / filler.len()));
    let refused =
        world.act(|queue, txn| queue.enqueue(txn, Message::new("x").header("h", "a".repeat(2_040))));
    assert!(matches!(refused, Err(QueueError::InvalidArgument { .. })), "{refused:?}");
    for filler in ["a", "€"] {
        let id = world.put(longest(filler)).id();
        let token = world.taken();
        let reason = "€\0".repeat(600);
        let _ = world.act(|queue, txn| queue.nack(txn, token, &Nack::new().reason(&reason))).unwrap();
        world.clock.advance(2 * SECOND);
        assert_eq!(world.sweep(10), 1);
        world.taken();
        world.clock.advance(3_600 * SECOND);
        world.sweep(10);
        world.clock.advance(3_600 * SECOND);
        world.sweep(10);
        let token = world.taken();
        let _ = world.act(|queue, txn| queue.nack(txn, token, &Nack::new().reason(&reason))).unwrap();
        assert_eq!(world.stats().dead, 1, "message {id}");
        let other = Queues::at("queues").unwrap().queue(&format!("other-{}", filler.len())).unwrap();
        let _ = world.ana.try_write(|txn| other.create(txn, &QueueSettings::new())).unwrap();
        let moved = world.act(|queue, txn| queue.move_to(txn, &other, MessageState::Dead, 10)).unwrap();
        assert_eq!(moved, 1);
        let taken = world.ana.try_write(|txn| other.dequeue(txn)).unwrap().value.unwrap();
        assert_eq!(taken.origin.as_deref(), Some("q"));
    }
    verified(&world.larder);
}

/// S4-2.5. What is given back together to the front keeps its order there.
#[test]
fn s4_2_5_a_batch_given_back_to_the_front_keeps_its_order() {
    let settings = QueueSettings::new().requeue_at(RequeueAt::Front).attempts_max(0);
    for way in 0..3 {
        let world = world(&settings);
        for name in ["a", "b", "c", "d"] {
            let _ = world.put(name);
        }
        let tokens: Vec<Token> = (0..3).map(|_| world.taken()).collect();
        match way {
            0 => {
                world.clock.advance(3_600 * SECOND);
                world.sweep(10);
            }
            1 => drop(world.act(|queue, txn| queue.nack_all(txn, &tokens, &Nack::new())).unwrap()),
            _ => {
                let twice = [&tokens[..], &tokens[..1]].concat();
                let outcomes = world.act(|queue, txn| queue.take_back(txn, &twice)).unwrap();
                let found: Vec<bool> = outcomes.iter().map(|(_, outcome)| outcome.is_some()).collect();
                assert_eq!(found, [true, true, true, false]);
            }
        }
        world.clock.advance(3_600 * SECOND);
        world.sweep(10);
        let order: String = (0..4).map(|_| world.take().unwrap().1).collect();
        assert_eq!(order, "abcd", "way {way}");
    }
}

/// S4-1.1. Whoever may not put into one queue, or take from the other, moves nothing, also if the transaction goes on.
#[test]
fn s4_1_1_what_may_not_be_moved_stays_where_it_is() {
    let world = world(&QueueSettings::new());
    let other = Queues::at("queues").unwrap().queue("other").unwrap();
    let _ = world.ana.try_write(|txn| other.create(txn, &QueueSettings::new())).unwrap();
    let _ = world.put("soup");
    let rules = |of_q: &str, of_other: &str| {
        format!(
            "default = \"deny\"\n[[rule]]\nallow = [\"read\", \"write\", \"consume\", \"enqueue\", \"admin\"]\nwho = [\"ana\", \"root\"]\non = \"**\"\n\
             [[rule]]\nallow = [{of_q}]\nwho = [\"ben\"]\non = \"queues/q/**\"\n[[rule]]\nallow = [{of_other}]\nwho = [\"ben\"]\non = \"queues/other/**\"\n"
        )
    };
    let ben = world.larder.session("ben").unwrap();
    for (of_q, of_other) in [
        ("\"consume\", \"read\"", "\"consume\", \"read\""),
        ("\"read\"", "\"enqueue\", \"consume\", \"read\""),
    ] {
        let root = world.larder.root().unwrap();
        root.set_document(DocumentKind::Rules, &rules(of_q, of_other)).unwrap();
        let mut moved = Ok(0);
        ben.write(|txn| {
            moved = world.queue.move_to(txn, &other, MessageState::Ready, 10);
            Ok(())
        })
        .unwrap();
        assert!(moved.is_err(), "{of_q}; {of_other}: {moved:?}");
        let view = world.larder.root().unwrap().snapshot().unwrap();
        let ready = |queue: &Queue| queue.stats(&view).unwrap().ready;
        assert_eq!((ready(&world.queue), ready(&other)), (1, 0), "{of_q}; {of_other}");
    }
}

/// S4-2.4. Keys that messages are told apart by go when their window is over, also where nobody sweeps.
#[test]
fn s4_2_4_keys_of_messages_do_not_pile_up_where_nobody_sweeps() {
    everywhere(new(), |world| {
        for number in 0..200 {
            let message = Message::new("soup").dedupe(format!("order {number}"), seconds(10));
            assert!(matches!(world.put(message), Enqueued::New(_)));
            let token = world.taken();
            world.act(|queue, txn| queue.ack(txn, token)).unwrap();
            world.clock.advance(SECOND);
        }
        let view = world.ana.snapshot().unwrap();
        let books = view.collection("queues/q/books").unwrap();
        let keys = books.page(&RowRange::all().with("d")).unwrap().rows.len();
        assert!((9..=20).contains(&keys), "{keys} of 200 are kept, for 10 seconds each");
    });
}

/// S4-0.1. What is larger than another queue takes is not moved there.
#[test]
fn s4_0_1_what_is_moved_is_no_larger_than_the_other_queue_takes() {
    everywhere(new(), |world| {
        let small = Queues::at("queues").unwrap().queue("small").unwrap();
        world.act(|_, txn| small.create(txn, &new().message_bytes_max(10))).unwrap();
        let _ = world.put(vec![1; 10]);
        let _ = world.put(vec![2; 11]);
        let moved = world.act(|queue, txn| queue.move_to(txn, &small, MessageState::Ready, 10));
        assert!(
            matches!(moved, Err(QueueError::MessageTooLarge { at: 1, size: 11, limit: 10 })),
            "{moved:?}"
        );
        assert_eq!(world.act(|queue, txn| queue.move_to(txn, &small, MessageState::Ready, 1)).unwrap(), 1);
        assert_eq!(world.counts(), [1, 0, 0, 0]);
    });
}

/// S4-1.1.3. A row that is no message, whoever put it there, is in the way of nobody who looks.
#[test]
fn s4_1_1_3_a_forged_row_is_in_the_way_of_nobody_who_looks() {
    // A crash would leave what the counters do not know of either.
    let clock = Arc::new(ManualClock::at(SECOND));
    let world = World::new(still().clock(clock.clone()).open_in_memory().unwrap(), clock, &new());
    {
        let _ = world.put("soup");
        let _ = world.taken();
        let forge = |key: i64, state: i64| {
            let row = RowDraft::default().field("s", state).field("t", 1_i64).field("d", 1_i64);
            world.ana.write(|txn| txn.collection("queues/q")?.put(key, row)).unwrap();
        };
        forge(-1, 2);
        forge(-2, 3);
        world.clock.advance(31 * SECOND);
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.queue.expired(&view, world.ana.now(), 10).unwrap().len(), 1);
        assert!(world.queue.peek(&view, MessageState::Dead, 10).unwrap().is_empty());
        assert_eq!(world.queue.peek(&view, MessageState::InFlight, 10).unwrap().len(), 1);
    }
}

/// S4-§2. The health of a store tells what was ever done with its queues, beside what is there.
#[test]
fn s4_par_2_health_tells_totals() {
    everywhere(new(), |world| {
        Queues::at("queues").unwrap().add_health(&world.larder);
        let _ = world.put("soup");
        let _ = world.put("leeks");
        world.clock.advance(3_000);
        let token = world.taken();
        world.act(|queue, txn| queue.ack(txn, token)).unwrap();
        let health = world.larder.health();
        let figures = &health.layers["queues"].figures;
        let told = ["enqueued", "dequeued", "acked", "nacked", "ready", "in_flight"];
        assert_eq!(told.map(|name| figures[&format!("q/{name}")]), [2, 1, 1, 0, 1, 0]);
        let waited = figures.iter().filter(|(name, _)| name.starts_with("q/waited"));
        let after = waited.clone().filter(|(_, deliveries)| **deliveries > 0);
        assert_eq!(after.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["q/waited_below_4_ms"]);
        assert!(waited.count() == 12 && figures.contains_key("q/waited_longer"), "{figures:?}");
    });
}

/// T44. What was taken before a snapshot can be acknowledged in the store that is made of it; what was taken after it was taken in a
/// life that is lost, and no number of that is given out again.
#[test]
fn t44_tokens_of_a_life_that_was_lost_are_refused_in_a_new_epoch() {
    let lab = larder_tests::Lab::new();
    let world = World::new(lab.open("live.larder"), Arc::new(ManualClock::at(SECOND)), &new());
    for text in ["a", "b", "c"] {
        let _ = world.put(text);
    }
    let early = world.taken();
    world.larder.snapshot(lab.path("s"), &larder::SnapshotOptions::new()).unwrap();
    let lost = [world.taken(), world.taken()];
    restore(&[lab.path("s")], lab.path("back.larder"), &RestoreOptions::new().new_epoch()).unwrap();
    let back = World::new(lab.open("back.larder"), Arc::new(ManualClock::at(SECOND)), &new());
    let taken = [back.taken(), back.taken()];
    for token in lost {
        assert!(!taken.contains(&token));
        let acked = back.act(|queue, txn| queue.ack(txn, token));
        assert!(matches!(acked, Err(QueueError::LeaseLost { .. })), "{acked:?}");
    }
    back.act(|queue, txn| queue.ack(txn, early)).unwrap();
    for token in taken {
        back.act(|queue, txn| queue.ack(txn, token)).unwrap();
    }
    assert_eq!(back.counts(), [0, 0, 0, 0]);
}

/// S1-3d. Of two who enqueue the same thing at the same time one does, and both are told which it is.
#[test]
fn s1_3_of_two_who_enqueue_the_same_at_once_one_does() {
    let world = World::new(still().open_in_memory().unwrap(), Arc::new(ManualClock::at(SECOND)), &new());
    for round in 0..500 {
        let message = || Message::new("x").dedupe(format!("order-{round}"), seconds(10));
        let (one, other) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| world.put(message()));
            (world.put(message()), beside.join().unwrap())
        });
        assert_eq!(one.id(), other.id(), "{round}");
        let new = [&one, &other].into_iter().filter(|done| matches!(done, Enqueued::New(_))).count();
        assert_eq!(new, 1, "{round}");
    }
    assert_eq!(world.counts(), [500, 0, 0, 0]);
}

/// Bad input: times that are none, or longer than there is time, keys that are too long: refused with a reason, or as good as for
/// ever; never a panic, a message that comes back at once, or one that is lost.
#[test]
fn s4_par_6_times_and_keys_that_make_no_sense_are_refused_or_last() {
    const CENTURIES: Duration = Duration::from_secs(1_000 * 365 * 86_400);
    everywhere(new(), |world| {
        let _ = world.put("a");
        let refused = |done: Result<(), QueueError>, what: &str| {
            assert!(done.is_err(), "{what} was done");
        };
        let configure = |settings: QueueSettings| world.act(|queue, txn| queue.configure(txn, &settings));
        refused(configure(new().visibility(Duration::ZERO)), "a visibility of no time");
        let dequeue = |time| world.act(|queue, txn| queue.dequeue_up_to(txn, 1, Some(time)));
        refused(dequeue(Duration::ZERO).map(drop), "taking for no time");
        let key = |key: String, window| {
            world.act(|queue, txn| queue.enqueue(txn, Message::new("x").dedupe(key, window))).map(drop)
        };
        refused(key("k".repeat(100_000), seconds(1)), "a key of 100 000 bytes");
        for time in [CENTURIES, Duration::MAX] {
            // Whether it is refused or lasts, the message is there still.
            if let Ok(taken) = dequeue(time) {
                world.clock.advance(365 * 86_400 * SECOND);
                assert_eq!(world.sweep(10), 0, "it is taken for longer than a year");
                let nack = Nack::new().delay(time);
                let token = taken[0].token();
                if world.act(|queue, txn| queue.nack(txn, token, &nack)).is_err() {
                    let _ = world.act(|queue, txn| queue.nack(txn, token, &Nack::new())).unwrap();
                }
            }
            let _ = key(format!("{time:?}"), time);
        }
        let there: u64 = world.counts().iter().sum();
        assert!((1..=3).contains(&there), "{there}");
    });
}
