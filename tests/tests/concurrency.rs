//! Many at once: nothing is lost, everything is in order, and whoever cannot go on is told.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use larder::{
    CommitOutcome, Durability, ErrorKind, Larder, ManualClock, Notice, Options, Retention, Session,
};

fn file() -> (tempfile::TempDir, Larder) {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path().join("s.larder")).unwrap();
    (folder, larder)
}

#[test]
fn t40_many_writers_lose_nothing_and_the_feed_is_whole_and_in_order() {
    let (folder, larder) = file();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let session = larder.session(&format!("p{thread}")).unwrap();
            scope.spawn(move || {
                let mut last = 0;
                for number in 0..25 {
                    let receipt =
                        session.put(format!("{thread}/{number}"), format!("{thread} {number}")).unwrap();
                    assert!(receipt.commit.sequence > last);
                    last = receipt.commit.sequence;
                    // What was acknowledged is visible at once.
                    assert!(session.exists(format!("{thread}/{number}")).unwrap());
                }
            });
        }
    });
    assert_eq!(larder.info().unwrap().last_commit.sequence, 400);
    let events = larder.root().unwrap().feed_since(0, 1_000).unwrap();
    let sequences: Vec<u64> = events.iter().map(|event| event.commit.sequence).collect();
    assert_eq!(sequences, (1..=400).collect::<Vec<_>>());
    assert!(events.is_sorted_by_key(|event| event.time));
    larder.close().unwrap();
    let larder = Larder::open(folder.path().join("s.larder")).unwrap();
    assert_eq!(larder.statistics().unwrap().total.assets, 400);
    assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn counters_in_transactions_lose_no_increment() {
    for _ in 0..20 {
        count_together();
    }
}

fn count_together() {
    let larder = Options::new().open_in_memory().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let session = larder.session("ana").unwrap();
            scope.spawn(move || {
                for _ in 0..50 {
                    session
                        .write(|txn| {
                            let count = match txn.get("count.txt") {
                                Ok(asset) => {
                                    String::from_utf8_lossy(&asset.bytes()?).parse::<u64>().unwrap_or(0)
                                }
                                Err(_) => 0,
                            };
                            txn.put("count.txt", (count + 1).to_string())
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(larder.root().unwrap().get("count.txt").unwrap().bytes().unwrap(), "400");
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there is: tickets need no other.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_ticket_is_waited_for_awaited_or_forgotten_and_the_commit_goes_on() {
    let (folder, larder) = file();
    let session = larder.session("ana").unwrap();
    let (_, first) = session.submit(|txn| txn.put("a", "x")).unwrap();
    let (_, second) = session.submit(|txn| txn.put("b", "x")).unwrap();
    drop(session.submit(|txn| txn.put("c", "x")).unwrap());
    assert_eq!(block_on(second).unwrap().sequence, 2);
    assert_eq!(first.wait().unwrap().sequence, 1);
    larder.close().unwrap();
    let larder = Larder::open(folder.path().join("s.larder")).unwrap();
    assert_eq!(larder.statistics().unwrap().total.assets, 3);
    let inline = Options::new().inline().open_in_memory().unwrap();
    let (_, ticket) = inline.session("ana").unwrap().submit(|txn| txn.put("a", "x")).unwrap();
    assert_eq!(block_on(ticket).unwrap().sequence, 1);
}

/// Asks something of the store when it is woken, and panics.
struct Rude(Session, AtomicU32);

impl Wake for Rude {
    fn wake(self: Arc<Self>) {
        drop(self.0.subscribe("", 1).unwrap());
        self.1.fetch_add(1, Ordering::Relaxed);
        panic!("a waker panics");
    }
}

/// Whoever wakes others is the one who writes for all: what a waker did to him, nobody was written for any more.
#[test]
fn a_waker_that_subscribes_and_panics_is_nobody_elses_trouble() {
    let larder = Options::new().inline().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let subscription = session.subscribe("", 8).unwrap();
    let rude = Arc::new(Rude(session.clone(), AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&rude));
    for number in 1..=3 {
        {
            let notice = pin!(subscription.notice());
            assert!(notice.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        session.put(format!("{number}"), "x").unwrap();
        assert_eq!(rude.1.load(Ordering::Relaxed), number);
        assert!(matches!(subscription.next_notice(), Notice::Events(events) if events.len() == 1));
    }
}

#[test]
fn t41_a_view_stays_as_it_was() {
    let larder = Options::new().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k/0", "before").unwrap();
    let view = session.snapshot().unwrap();
    session
        .write(|txn| {
            for number in 0..2_000 {
                txn.put(format!("k/{number}"), "after")?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(view.walk("k").unwrap().count(), 1);
    assert_eq!(view.get("k/0").unwrap().bytes().unwrap(), "before");
    assert_eq!(session.snapshot().unwrap().walk("k").unwrap().count(), 2_000);
}

#[test]
fn a_transaction_in_a_transaction_is_an_error_and_no_deadlock() {
    let larder = Options::new().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session
        .write(|txn| {
            let inner = session.put("inner", "x").unwrap_err();
            assert!(matches!(inner.kind(), ErrorKind::Nested), "{inner}");
            assert!(matches!(larder.clone().close().unwrap_err().kind(), ErrorKind::Nested));
            // Reading what is committed is no matter.
            assert!(!session.exists("outer").unwrap());
            txn.put("outer", "x")
        })
        .unwrap();
    assert!(session.exists("outer").unwrap() && !session.exists("inner").unwrap());
}

#[test]
fn after_the_close_every_handle_says_so() {
    let larder = Options::new().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k", "x").unwrap();
    let view = session.snapshot().unwrap();
    let subscription = session.subscribe("", 4).unwrap();
    let other = larder.clone();
    larder.close().unwrap();
    let closed = |error: larder::Error| assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    closed(session.put("k", "y").unwrap_err());
    closed(session.get("k").unwrap_err());
    closed(view.get("k").unwrap_err());
    closed(other.flush().unwrap_err());
    closed(other.info().unwrap_err());
    assert_eq!(subscription.next_notice(), Notice::Closed);
    other.close().unwrap();
}

#[test]
fn a_slow_subscriber_is_told_and_the_feed_has_what_it_missed() {
    let larder = Options::new().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let subscription = session.subscribe("menus", 3).unwrap();
    for number in 0..10 {
        session.put(format!("menus/{number}"), "x").unwrap();
        session.put(format!("other/{number}"), "x").unwrap();
    }
    let mut seen = Vec::new();
    let missed = loop {
        match subscription.next_within(Duration::ZERO) {
            Some(Notice::Events(events)) => seen.extend(events.iter().map(|event| event.commit.sequence)),
            Some(Notice::Lagged { from }) => break from,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((seen, missed), (vec![1, 3], 4));
    let rest = session.feed_since(missed - 1, 100).unwrap();
    assert_eq!(rest.len(), 17);
    session.put("menus/new", "x").unwrap();
    let Some(Notice::Events(events)) = subscription.next_within(Duration::ZERO) else {
        panic!("nothing came")
    };
    assert_eq!(events[0].place, "menus/new");
}

#[test]
fn a_window_is_kept_and_a_lazy_commit_waits_for_the_flush() {
    let clock = Arc::new(ManualClock::at(0));
    let larder = Options::new().inline().clock(clock.clone()).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.clone().durability(Durability::Lazy).put("lazy", "x").unwrap();
    clock.advance(1_000_000);
    assert!(!larder.upkeep(1_000_000).unwrap().flushed);
    session.durability(Durability::Window { milliseconds: 10 }).put("window", "x").unwrap();
    assert!(!larder.upkeep(1_009_999).unwrap().flushed);
    assert!(larder.upkeep(1_010_000).unwrap().flushed);
    assert!(!larder.upkeep(9_000_000).unwrap().flushed);
}

#[test]
fn x_9_commit_times_never_go_back() {
    let clock = Arc::new(ManualClock::at(10_000_000));
    let larder = Options::new().inline().clock(clock.clone()).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let mut last = 0;
    for step in [0, 5_000, -3_600_000_000, 10, 4_000_000_000] {
        clock.advance(step);
        let commit = session.put("k", "x").unwrap().commit;
        assert!(commit.time >= last);
        last = commit.time;
    }
}

#[test]
fn a_reader_that_is_too_old_is_told() {
    let clock = Arc::new(ManualClock::at(0));
    let larder =
        Options::new().inline().clock(clock.clone()).reader_age_max(1_000_000).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k", vec![7; 3 << 20]).unwrap();
    let (view, mut reader) = (session.snapshot().unwrap(), session.open("k").unwrap());
    assert_eq!(larder.info().unwrap().readers, 2);
    clock.advance(1_000_001);
    let error = view.get("k").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReaderExpired { age_ms: 1_000, age_ms_max: 1_000 }), "{error}");
    assert!(reader.range(0..10).is_err());
    drop((view, reader));
    assert_eq!(larder.info().unwrap().readers, 0);
}

#[test]
fn an_idempotency_key_runs_a_closure_once_and_answers_for_it() {
    let clock = Arc::new(ManualClock::at(0));
    let larder = Options::new().inline().clock(clock.clone()).open_in_memory().unwrap();
    let (ana, bob) = (larder.session("ana").unwrap(), larder.session("bob").unwrap());
    assert_eq!(ana.outcome_of("order-1").unwrap(), CommitOutcome::Unknown { kept_since: 0 });
    let first = ana.write_once("order-1", |txn| txn.put("k", "x")).unwrap();
    let again = ana.write_once("order-1", |_| -> larder::Result<()> { panic!("ran twice") }).unwrap();
    assert!(first.value.is_some() && again.value.is_none());
    assert_eq!(first.commit, again.commit);
    assert_eq!(ana.outcome_of("order-1").unwrap(), CommitOutcome::Committed(first.commit));
    // Keys are each principal's own.
    assert!(bob.write_once("order-1", |txn| txn.put("l", "x")).unwrap().value.is_some());
    let day = 24 * 3_600 * 1_000_000;
    clock.advance(day + 1);
    larder.upkeep(day + 1).unwrap();
    assert!(matches!(ana.outcome_of("order-1").unwrap(), CommitOutcome::Unknown { kept_since: 1 }));
}

#[test]
fn the_feed_is_trimmed_and_says_so() {
    let larder =
        Options::new().inline().retention(Retention::default().rows_max(10)).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    for number in 0..30 {
        session.put(format!("{number}"), "x").unwrap();
    }
    larder.upkeep(1).unwrap();
    let error = session.feed_since(3, 100).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Lagged { wanted: 4, first: 21 }), "{error}");
    assert_eq!(session.feed_since(20, 100).unwrap().len(), 10);
    assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
}

/// The store's thread ended with the `Larder`, though its sessions went on.
#[test]
fn what_is_submitted_and_awaited_is_done_as_long_as_a_session_is_left() {
    let (folder, larder) = file();
    let session = larder.session("ana").unwrap();
    drop(larder);
    let (_, ticket) = session.submit(|txn| txn.put("k", "x").map(drop)).unwrap();
    assert_eq!(larder_tests::block_on(ticket).unwrap().sequence, 1);
    drop(session);
    let larder = Larder::open(folder.path().join("s.larder")).unwrap();
    assert!(larder.root().unwrap().exists("k").unwrap());
}

/// A clock that had gone back kept windows open until it was where it had been.
#[test]
fn s4_2_3_a_window_is_kept_by_a_clock_that_goes_back() {
    let clock = Arc::new(ManualClock::at(3_600_000_000));
    let larder = Options::new().inline().clock(clock.clone()).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap().durability(Durability::Window { milliseconds: 10 });
    session.put("first", "x").unwrap();
    clock.set(0);
    assert!(larder.upkeep(0).unwrap().flushed, "nobody knows how long ago that was");
    session.put("second", "x").unwrap();
    assert!(!larder.upkeep(9_999).unwrap().flushed);
    assert!(larder.upkeep(10_000).unwrap().flushed);
}
