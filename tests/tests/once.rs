//! What happens once, and what may happen so often.

use std::sync::Arc;
use std::time::Duration;

use larder::{Larder, ManualClock, Part, Session};
use larder_layers::once::{Begun, Decision, Decisions, Failed, Work};
use larder_layers::queue::Backoff;
use larder_layers::rate::{Rate, RateLimit};
use larder_tests::{still, verified};

const SECOND: i64 = 1_000_000;

fn store() -> (Larder, Session, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(SECOND));
    let larder = still().clock(clock.clone()).open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    (larder, ana, clock)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn s2_7_work_is_done_once_retried_later_and_given_up() {
    let (larder, ana, clock) = store();
    let work = Work::at("work").unwrap();
    let begin = |key: &str| ana.write(|txn| work.begin(txn, key, seconds(30))).unwrap().value;
    let token = |begun: Begun| match begun {
        Begun::Proceed { attempt, token } => (attempt, token),
        other => panic!("{other:?}"),
    };
    let (attempt, first) = token(begin("a"));
    assert_eq!(attempt, 1);
    assert_eq!(begin("a"), Begun::InProgress { until: 31 * SECOND });
    clock.advance(30 * SECOND);
    let (attempt, second) = token(begin("a"));
    assert_eq!(attempt, 2, "taken over");
    assert!(!ana.write(|txn| work.complete(txn, "a", first, "late")).unwrap().value);
    assert!(ana.write(|txn| work.complete(txn, "a", second, "done")).unwrap().value);
    assert_eq!(begin("a"), Begun::Done("done".into()));
    assert!(!ana.write(|txn| work.complete(txn, "a", second, "again")).unwrap().value);
    // 5 s, 10 s, 20 s, and then no more.
    let backoff = Backoff::exponential(seconds(5), 2, seconds(300));
    let fail = |token: u64| ana.write(|txn| work.fail(txn, "b", token, backoff, 3)).unwrap().value;
    for wait in [5, 10, 20] {
        let (_, token) = token(begin("b"));
        let now = larder::Clock::now(&*clock);
        assert_eq!(fail(token), Failed::RetryAt(now + wait * SECOND));
        assert_eq!(fail(token), Failed::Lost);
        assert_eq!(begin("b"), Begun::Waiting { until: now + wait * SECOND });
        clock.advance(wait * SECOND);
    }
    assert_eq!(fail(token(begin("b")).1), Failed::Dead);
    assert_eq!(begin("b"), Begun::Dead);
    // Of many who begin, one proceeds.
    let proceeding: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| matches!(begin("c"), Begun::Proceed { .. }))).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(proceeding, 1);
    verified(&larder);
}

#[test]
fn s1_10_decisions_are_made_once_and_removed_by_age_by_run_and_in_batches() {
    let (larder, ana, clock) = store();
    let decisions = Decisions::at("routes").unwrap();
    let day = 86_400 * SECOND;
    for age in 0..10 {
        ana.write(|txn| {
            (0..100).try_for_each(|n| {
                decisions.decide(txn, (age % 3, n, Part::Nil), format!("{age}"), None).map(|made| {
                    assert_eq!(made == Decision::First, age < 3);
                })
            })
        })
        .unwrap();
        clock.advance(day);
    }
    let read = |key: (i64, i64, Part)| {
        let now = larder::Clock::now(&*clock);
        ana.read(|view| decisions.get(view, key, now)).unwrap()
    };
    assert_eq!(read((1, 7, Part::Nil)).unwrap(), "1");
    // Made on days 0, 1 and 2; what is exactly as old stays.
    let before =
        |time: i64, limit: usize| ana.write(|txn| decisions.remove_before(txn, time, limit)).unwrap().value;
    let swept: Vec<u64> = (0..4).map(|_| before(SECOND + day, 40)).collect();
    assert_eq!(swept, [40, 40, 20, 0]);
    assert_eq!((read((0, 7, Part::Nil)), read((1, 7, Part::Nil)).is_some()), (None, true));
    assert_eq!(ana.write(|txn| decisions.remove_of(txn, 1, 1_000)).unwrap().value, 100);
    assert_eq!((read((1, 7, Part::Nil)), read((2, 7, Part::Nil)).is_some()), (None, true));
    // For a time.
    let decide = |value: &'static str| {
        ana.write(|txn| decisions.decide(txn, (9, 9, Part::Nil), value, Some(seconds(3_600)))).unwrap().value
    };
    assert_eq!(decide("left"), Decision::First);
    clock.advance(3_599 * SECOND);
    assert_eq!(read((9, 9, Part::Nil)).unwrap(), "left");
    assert_eq!(decide("right"), Decision::Existing("left".into()));
    clock.advance(SECOND);
    assert_eq!(read((9, 9, Part::Nil)), None);
    assert_eq!(ana.write(|txn| decisions.remove_expired(txn, 10)).unwrap().value, 1);
    assert_eq!(decide("right"), Decision::First);
    verified(&larder);
}

#[test]
fn s2_17_s4_3_so_many_may_be_done_in_a_window_each_name_by_itself() {
    let (larder, ana, clock) = store();
    let limit = RateLimit::new("limits", 100, seconds(60)).unwrap();
    let take = |name: &str| ana.write(|txn| limit.take(txn, name)).unwrap().value;
    for left in (0..100).rev() {
        assert_eq!(take("a"), Rate::Ok { left });
    }
    assert_eq!(take("a"), Rate::Limited { until: 61 * SECOND });
    assert_eq!(take("b"), Rate::Ok { left: 99 });
    clock.advance(60 * SECOND);
    assert_eq!(take("a"), Rate::Ok { left: 99 });
    assert_eq!(ana.write(|txn| limit.sweep(txn, 10)).unwrap().value, 1);
    verified(&larder);
}
