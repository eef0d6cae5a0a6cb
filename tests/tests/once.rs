//! What happens once, and what may happen so often.

use std::sync::Arc;
use std::time::Duration;

use larder::{DocumentKind, Larder, ManualClock, Part, Session};
use larder_layers::once::{Decision, Decisions};
use larder_layers::outbox::{Begun, Effect, EffectState, Failed, Outbox, Retry};
use larder_layers::queue::Backoff;
use larder_layers::rate::{Rate, RateLimit};
use larder_tests::{everywhere, kind_of, still, verified};

const SECOND: i64 = 1_000_000;

/// In memory, on a file, and on images of crashes.
fn on_all(scenario: impl Fn(&Larder, &Session, &Arc<ManualClock>)) {
    everywhere(|larder, clock| scenario(larder, &larder.session("ana").unwrap(), clock), |_| {});
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn s2_7_work_is_done_once_retried_later_and_given_up() {
    on_all(|larder, ana, clock| {
        // 5 s, 10 s, 20 s, and then no more.
        let backoff = Backoff::exponential(seconds(5), 2, seconds(300));
        let work = Outbox::at("work").unwrap().retry(Retry { backoff, retries_max: 3 });
        let begin = |key: &str| ana.write(|txn| work.begin(txn, key)).unwrap().value;
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
        let fail = |token: u64| ana.write(|txn| work.fail(txn, "b", token, "out of reach")).unwrap().value;
        for wait in [5, 10, 20] {
            let (_, token) = token(begin("b"));
            let now = ana.now();
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
        verified(larder);
    });
}

/// S2-7, S2-8: an effect is there with what caused it, is carried out by one at a time, and its history is kept.
#[test]
fn s2_8_effects_are_committed_with_their_cause_taken_and_their_attempts_are_kept() {
    on_all(|larder, ana, clock| {
        let outbox = Outbox::at("outbox").unwrap();
        let key = ("task 7", "start");
        let failed: Result<_, larder::Error> = ana.write(|txn| {
            txn.put("a", "b")?;
            assert!(outbox.add(txn, Effect::new(key, "call"))?);
            txn.put("a/../b", "never").map(drop)
        });
        assert!(failed.is_err());
        assert_eq!(outbox.get(&ana.snapshot().unwrap(), key).unwrap(), None, "its cause was not committed");
        ana.write(|txn| {
            txn.put("a", "b")?;
            assert!(outbox.add(txn, Effect::new(key, "call").of("task 7"))?);
            assert!(!outbox.add(txn, Effect::new(key, "call again").of("task 7"))?, "the same effect");
            outbox.add(txn, Effect::new(("task 7", "later"), "call").of("task 7").delay(seconds(60)))?;
            outbox.add(txn, Effect::new(("task 8", "start"), "call"))
        })
        .unwrap();
        let take = |limit| ana.write(|txn| outbox.take(txn, limit)).unwrap().value;
        let first = take(1).pop().unwrap();
        assert_eq!(
            (first.attempt, &first.payload[..], first.of.clone()),
            (1, &b"call"[..], Some("task 7".into()))
        );
        assert_eq!(take(10).len(), 1, "that of the other task");
        assert_eq!(take(10), [], "one at a time, and nothing before it is due");
        let fail = |token| ana.write(|txn| outbox.fail(txn, key, token, "refused")).unwrap().value;
        let now = ana.now();
        assert_eq!(fail(first.token), Failed::RetryAt(now + 5 * SECOND));
        assert_eq!(fail(first.token), Failed::Lost);
        clock.advance(5 * SECOND);
        let second = take(1).pop().unwrap();
        assert_eq!((second.attempt, second.key.clone()), (2, first.key.clone()));
        // Nothing is heard of the second attempt: a third takes over, and what comes of the second changes nothing.
        clock.advance(30 * SECOND);
        let third = take(10).into_iter().find(|taken| taken.key == first.key).unwrap();
        assert_eq!(third.attempt, 3);
        assert_eq!(fail(second.token), Failed::Lost);
        assert!(ana.write(|txn| outbox.complete(txn, key, third.token, "200 OK")).unwrap().value);
        let view = ana.snapshot().unwrap();
        let done = outbox.get(&view, key).unwrap().unwrap();
        assert_eq!(
            (done.state, done.attempts, &done.payload[..], &done.result[..]),
            (EffectState::Done, 3, &b"call"[..], &b"200 OK"[..])
        );
        let attempts = outbox.attempts(&view, key).unwrap();
        let reasons: Vec<_> =
            attempts.iter().map(|attempt| (attempt.number, attempt.reason.as_deref())).collect();
        assert_eq!(reasons, [(1, Some("refused")), (2, Some("its time was over")), (3, None)]);
        assert!(attempts.iter().all(|attempt| attempt.ended >= Some(attempt.began)));
        assert_eq!(outbox.of(&view, "task 7").unwrap().len(), 2);
        assert_eq!(outbox.next_due(&view).unwrap(), Some(now + 60 * SECOND));
        let count = |state| outbox.count(&view, state).unwrap();
        assert_eq!(
            [EffectState::Waiting, EffectState::InFlight, EffectState::Done, EffectState::Dead].map(count),
            [1, 1, 1, 0]
        );
        verified(larder);
    });
}

#[test]
fn dead_effects_stay_until_they_are_revived_and_done_ones_go_with_their_attempts() {
    on_all(|larder, ana, clock| {
        let outbox = Outbox::at("outbox").unwrap().time(seconds(5));
        ana.write(|txn| {
            outbox.add(txn, Effect::new("a", "x").of("t").retry(Retry::NEVER))?;
            outbox.add(txn, Effect::new("b", "y").of("u"))
        })
        .unwrap();
        for taken in ana.write(|txn| outbox.take(txn, 10)).unwrap().value {
            assert_eq!(taken.until, ana.now() + 5 * SECOND);
            if taken.key.parts() == [Part::from("a")] {
                let failed = ana.write(|txn| outbox.fail(txn, &taken.key, taken.token, "no")).unwrap().value;
                assert_eq!(failed, Failed::Dead);
            } else {
                assert!(ana.write(|txn| outbox.complete(txn, &taken.key, taken.token, "")).unwrap().value);
            }
        }
        clock.advance(100 * SECOND);
        let now = ana.now();
        let remove = |time| ana.write(|txn| outbox.remove_done_before(txn, time, 10)).unwrap().value;
        assert_eq!((remove(SECOND), remove(now), remove(now)), (0, 1, 0));
        let revive = |key| ana.write(|txn| outbox.revive(txn, key)).unwrap().value;
        assert!(revive("a") && !revive("a") && !revive("b"));
        let again = ana.write(|txn| outbox.take(txn, 10)).unwrap().value.pop().unwrap();
        assert_eq!(again.attempt, 1, "it may be retried as often as before");
        assert!(ana.write(|txn| outbox.complete(txn, "a", again.token, "")).unwrap().value);
        let attempts = outbox.attempts(&ana.snapshot().unwrap(), "a").unwrap();
        assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(ana.write(|txn| outbox.remove_of(txn, "t")).unwrap().value, 1);
        assert_eq!(ana.snapshot().unwrap().collection("outbox").unwrap().total().unwrap().count, 0);
        verified(larder);
    });
}

/// One effect that had become too large for its place stopped all others.
#[test]
fn a_limit_that_is_lowered_does_not_stop_what_was_added() {
    on_all(|larder, ana, _| {
        let outbox = Outbox::at("outbox").unwrap();
        ana.write(|txn| outbox.add(txn, Effect::new("a", vec![7; 2 << 20]))).unwrap();
        ana.write(|txn| outbox.add(txn, Effect::new("b", "x"))).unwrap();
        larder.root().unwrap().set_document(DocumentKind::Limits, "max_binary_size = \"1 MB\"\n").unwrap();
        let taken = ana.write(|txn| outbox.take(txn, 10)).unwrap().value;
        assert_eq!(taken.iter().map(|one| one.payload.len()).collect::<Vec<_>>(), [2 << 20, 1]);
        for one in taken {
            assert!(ana.write(|txn| outbox.complete(txn, &one.key, one.token, "")).unwrap().value);
        }
        // What is added has room for what comes of it.
        assert_eq!(
            kind_of(ana.write(|txn| outbox.add(txn, Effect::new("c", vec![0; 15 << 20])))),
            "InvalidArgument"
        );
        ana.write(|txn| outbox.add(txn, Effect::new("d", "x"))).unwrap();
        let one = ana.write(|txn| outbox.take(txn, 1)).unwrap().value.pop().unwrap();
        let long = vec![0; (1 << 20) + 1];
        assert_eq!(
            kind_of(ana.write(|txn| outbox.complete(txn, &one.key, one.token, &long))),
            "InvalidArgument"
        );
        verified(larder);
    });
}

/// Those that had failed for good took the place of others, and there was no way to remove them.
#[test]
fn what_is_dead_is_in_nobodys_way_and_can_be_removed() {
    on_all(|larder, ana, clock| {
        let outbox = Outbox::at("outbox").unwrap().retry(Retry { backoff: Backoff::NONE, retries_max: 0 });
        for number in 0..5 {
            ana.write(|txn| outbox.add(txn, Effect::new(number, "x"))).unwrap();
        }
        let take = || ana.write(|txn| outbox.take(txn, 3)).unwrap().value.len();
        assert_eq!(take(), 3);
        clock.advance(60 * SECOND);
        ana.write(|txn| outbox.add(txn, Effect::new(5, "x"))).unwrap();
        assert_eq!(take(), 3);
        clock.advance(60 * SECOND);
        assert_eq!(take(), 0);
        let now = ana.now();
        let remove = |time| ana.write(|txn| outbox.remove_dead_before(txn, time, 10)).unwrap().value;
        assert_eq!((remove(now), remove(now + 1), remove(now + 1)), (3, 3, 0));
        assert_eq!(ana.snapshot().unwrap().collection("outbox").unwrap().total().unwrap().count, 0);
        verified(larder);
    });
}

/// Whoever is ended by what he carries out does not carry it out for ever.
#[test]
fn an_effect_of_which_nothing_is_heard_too_often_is_dead() {
    on_all(|larder, ana, clock| {
        let outbox = Outbox::at("outbox").unwrap();
        let retry = Retry { backoff: Backoff::NONE, retries_max: 2 };
        assert!(ana.write(|txn| outbox.add(txn, Effect::new("a", "x").retry(retry))).unwrap().value);
        let take = || ana.write(|txn| outbox.take(txn, 10)).unwrap().value.len();
        for _ in 0..3 {
            assert_eq!(take(), 1);
            clock.advance(30 * SECOND);
        }
        assert_eq!(take(), 0);
        let view = ana.snapshot().unwrap();
        assert_eq!(outbox.get(&view, "a").unwrap().unwrap().state, EffectState::Dead);
        assert_eq!(outbox.attempts(&view, "a").unwrap().len(), 3);
        assert_eq!(ana.write(|txn| outbox.begin(txn, "a")).unwrap().value, Begun::Dead);
        // What nobody has begun can be taken back; and what has no room to be begun is not added.
        assert!(ana.write(|txn| outbox.add(txn, Effect::new("b", "y"))).unwrap().value);
        let withdraw = |key: &str| ana.write(|txn| outbox.withdraw(txn, key)).unwrap().value;
        assert_eq!([withdraw("a"), withdraw("b"), withdraw("b")], [false, true, false]);
        for effect in [Effect::new("k".repeat(3_000), "z"), Effect::new("c", "z").of("o".repeat(3_000))] {
            assert!(ana.write(|txn| outbox.add(txn, effect.clone())).is_err());
        }
        assert_eq!(take(), 0);
        verified(larder);
    });
}

#[test]
fn s1_10_decisions_are_made_once_and_removed_by_age_by_run_and_in_batches() {
    on_all(|larder, ana, clock| {
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
            let now = ana.now();
            ana.read(|view| decisions.get(view, key, now)).unwrap()
        };
        assert_eq!(read((1, 7, Part::Nil)).unwrap(), "1");
        // Made on days 0, 1 and 2; what is exactly as old stays.
        let before = |time: i64, limit: usize| {
            ana.write(|txn| decisions.remove_before(txn, time, limit)).unwrap().value
        };
        let swept: Vec<u64> = (0..4).map(|_| before(SECOND + day, 40)).collect();
        assert_eq!(swept, [40, 40, 20, 0]);
        assert_eq!((read((0, 7, Part::Nil)), read((1, 7, Part::Nil)).is_some()), (None, true));
        assert_eq!(ana.write(|txn| decisions.remove_of(txn, 1, 1_000)).unwrap().value, 100);
        assert_eq!((read((1, 7, Part::Nil)), read((2, 7, Part::Nil)).is_some()), (None, true));
        // For a time.
        let decide = |value: &'static str| {
            ana.write(|txn| decisions.decide(txn, (9, 9, Part::Nil), value, Some(seconds(3_600))))
                .unwrap()
                .value
        };
        assert_eq!(decide("left"), Decision::First);
        clock.advance(3_599 * SECOND);
        assert_eq!(read((9, 9, Part::Nil)).unwrap(), "left");
        assert_eq!(decide("right"), Decision::Existing("left".into()));
        clock.advance(SECOND);
        assert_eq!(read((9, 9, Part::Nil)), None);
        assert_eq!(ana.write(|txn| decisions.remove_expired(txn, 10)).unwrap().value, 1);
        assert_eq!(decide("right"), Decision::First);
        verified(larder);
    });
}

/// S1-10a, b and d. Of 10 000 decisions of the last ten days those go that are older than seven, and none that is exactly as old: 1 000 in
/// each commit, so that who reads meanwhile sees all that a commit removes, or nothing.
#[test]
fn s1_10_a_b_d_of_ten_thousand_decisions_the_old_ones_go_in_batches() {
    const EACH: i64 = 1_000;
    let clock = Arc::new(ManualClock::at(SECOND));
    let larder = still().clock(clock.clone()).open_in_memory().unwrap();
    let (ana, decisions) = (larder.session("ana").unwrap(), Decisions::at("routes").unwrap());
    let day = 86_400 * SECOND;
    for age in (0..10).rev() {
        clock.set(SECOND + (9 - age) * day);
        ana.write(|txn| {
            (0..EACH).try_for_each(|n| {
                let made = decisions.decide(txn, (n % 50, n, age), format!("{age}"), None)?;
                assert_eq!(made, Decision::First);
                Ok(())
            })
        })
        .unwrap();
    }
    let now = ana.now();
    let count = || -> i64 {
        let view = ana.snapshot().unwrap();
        let is_there = |n: i64, age: i64| decisions.get(&view, (n % 50, n, age), now).unwrap().is_some();
        let each: Vec<i64> =
            (0..10).map(|age| (0..EACH).map(|n| i64::from(is_there(n, age))).sum()).collect();
        assert!(each.iter().all(|count| *count == 0 || *count == EACH), "{each:?}");
        each.iter().sum()
    };
    assert_eq!(count(), 10 * EACH);
    let before =
        |time: i64| ana.write(|txn| decisions.remove_before(txn, time, EACH as usize)).unwrap().value;
    // Of 9 and of 8 days; what is exactly 7 days old is kept.
    let commit = || larder.info().unwrap().last_commit.sequence;
    let first = commit();
    assert_eq!([before(now - 7 * day), before(now - 7 * day), before(now - 7 * day)], [1_000, 1_000, 0]);
    assert_eq!((count(), commit() - first), (8 * EACH, 2));
    let seven = ana.read(|view| decisions.get(view, (7, 7, 7), now)).unwrap();
    assert_eq!(seven.unwrap(), "7");
    // The rest of them, beside somebody who reads.
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| {
            (0..8).for_each(|_| assert_eq!(before(now + 1), 1_000));
            before(now + 1)
        });
        let mut last = 8 * EACH;
        while last > 0 {
            let seen = count();
            assert!(seen <= last && seen % EACH == 0, "{seen} after {last}");
            last = seen;
        }
        assert_eq!(removing.join().unwrap(), 0);
    });
    assert_eq!((commit() - first, verified(&larder).rows), (10, 0));
}

/// S2-17, S4-§3. 100 in a window of a minute, and the 101st is told until when; each name by itself.
#[test]
fn s2_17_s4_par_3_so_many_may_be_done_in_a_window_each_name_by_itself() {
    on_all(|larder, ana, clock| {
        let limit = RateLimit::new("limits", 100, seconds(60)).unwrap();
        let take = |name: &str| ana.write(|txn| limit.take(txn, name)).unwrap().value;
        assert_eq!(ana.write(|txn| limit.sweep(txn, 10)).unwrap().value, 0, "nothing was taken yet");
        for left in (0..100).rev() {
            assert_eq!(take("a"), Rate::Ok { left });
        }
        assert_eq!(take("a"), Rate::Limited { until: 61 * SECOND });
        assert_eq!(take("b"), Rate::Ok { left: 99 });
        clock.advance(60 * SECOND);
        assert_eq!(take("a"), Rate::Ok { left: 99 });
        assert_eq!(ana.write(|txn| limit.sweep(txn, 10)).unwrap().value, 1);
        verified(larder);
    });
}
