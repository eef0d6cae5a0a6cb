//! Work that can be revoked: whoever lost the right to write changes nothing, however late it comes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::{
    Annotation, CancelOutcome, Claim, DocumentKind, Draft, Durability, Edit, Fenceable, LogKind, ManualClock,
    Options, Session, Status,
};
use larder_tests::{FaultyDisk, Plan, in_memory, kind_of, still, verified};

const MINUTE: Duration = Duration::from_secs(60);

fn claim(session: &Session, key: &str) -> Claim {
    session.claim(key).for_at_most(MINUTE).unwrap()
}

fn text(session: &Session, key: &str) -> String {
    String::from_utf8(session.get(key).unwrap().bytes().unwrap().to_vec()).unwrap()
}

#[test]
fn s0_3_a_what_was_set_meanwhile_stays() {
    let larder = in_memory();
    let (worker, other) = (larder.session("worker").unwrap(), larder.session("other").unwrap());
    let held = claim(&worker, "k");
    other.put("k", "new").unwrap();
    let late = held.put("old").unwrap();
    assert_eq!(late, Fenceable::Fenced { by: Some("other".to_owned()) });
    assert_eq!((text(&other, "k").as_str(), other.record("k").unwrap().generation()), ("new", 1));
    // One that was not revoked is stored, and ends.
    let held = claim(&worker, "k");
    assert!(!held.put("newer").unwrap().is_fenced());
    assert_eq!(text(&other, "k"), "newer");
    assert!(other.snapshot().unwrap().claims("").unwrap().is_empty());
    assert!(held.put("again").unwrap().is_fenced(), "it has ended");
    verified(&larder);
}

#[test]
fn s0_3_b_in_a_thousand_races_the_late_one_is_never_seen() {
    let larder = in_memory();
    let (worker, other) = (larder.session("worker").unwrap(), larder.session("other").unwrap());
    for round in 0..1_000 {
        let key = format!("k/{}", round % 7);
        let held = claim(&worker, &key);
        let fenced = std::thread::scope(|scope| {
            let late = scope.spawn(|| held.put(format!("old {round}")).unwrap().is_fenced());
            other.put(key.as_str(), format!("new {round}")).unwrap();
            // From here on the late one must not be seen, whether or not it has come.
            assert_eq!(text(&other, &key), format!("new {round}"));
            late.join().unwrap()
        });
        assert_eq!(text(&other, &key), format!("new {round}"), "fenced: {fenced}");
    }
    verified(&larder);
}

#[test]
fn s0_3_c_late_status_progress_and_log_change_nothing() {
    let larder = in_memory();
    let (worker, other) = (larder.session("worker").unwrap(), larder.session("other").unwrap());
    let held = claim(&worker, "k");
    assert!(
        !held.write(|txn| txn.put("k", Draft::from("half").status(Status::Partial))).unwrap().is_fenced()
    );
    assert!(!held.annotate(Annotation::new().log(LogKind::Info, "half done")).unwrap().is_fenced());
    other.put("k", "new").unwrap();
    let before = other.record("k").unwrap();
    assert!(held.annotate(Annotation::new().log(LogKind::Info, "nearly done")).unwrap().is_fenced());
    assert!(held.annotate(Annotation::new().status(Status::Ready)).unwrap().is_fenced());
    assert!(held.write(|txn| txn.put("elsewhere", "x")).unwrap().is_fenced());
    assert!(!held.renew(MINUTE).unwrap());
    assert_eq!(other.record("k").unwrap(), before, "to the byte");
    assert!(!other.exists("elsewhere").unwrap());
}

#[test]
fn s0_3_d_what_is_under_way_is_cancelled_and_nothing_else() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    for status in Status::known().filter(|status| *status != Status::Directory) {
        session.put("k", Draft::from("x").status(status.clone())).unwrap();
        let before = session.record("k").unwrap();
        let outcome = session.cancel("k").unwrap().value;
        if status.properties().is_cancellable {
            assert_eq!(outcome, CancelOutcome::Cancelled);
            assert_eq!(session.record("k").unwrap().status(), Status::Cancelled);
        } else {
            assert_eq!(outcome, CancelOutcome::NotCancellable(status));
            assert_eq!(session.record("k").unwrap(), before, "nothing is written");
        }
    }
    assert_eq!(session.cancel("nothing").unwrap().value, CancelOutcome::NotFound);
    // A claim is something that can be cancelled, whatever the asset is.
    let held = claim(&session, "k");
    assert_eq!(session.cancel("k").unwrap().value, CancelOutcome::Cancelled);
    assert!(held.put("late").unwrap().is_fenced());
    verified(&larder);
}

#[test]
fn s0_3_e_a_fence_survives_a_crash() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let fence = claim(&session, "k").detach();
    let image = disk.durable();
    drop(larder);
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let held = session.resume_claim("k", fence).unwrap();
    assert!(held.renew(MINUTE).unwrap(), "it holds still");
    session.put("k", "new").unwrap();
    assert!(held.put("old").unwrap().is_fenced());
    assert_eq!(text(&session, "k"), "new");
    verified(&larder);
}

#[test]
fn s0_3_no_fence_is_used_twice_though_a_crash_takes_claims_back() {
    let mut seen = BTreeSet::new();
    let mut image = FaultyDisk::default().durable();
    for life in 0..5 {
        let disk = FaultyDisk::holding(image, Plan::default());
        let larder = disk.open(still().durability(Durability::Lazy), true).unwrap();
        let session = larder.session("ana").unwrap();
        for n in 0..20 {
            let fence = claim(&session, &format!("{life}/{n}")).detach();
            assert!(seen.insert(fence), "{fence} was given out before");
            // A transaction that comes to nothing has given out a number all the same.
            let refused = session.write(|txn| {
                assert!(seen.insert(txn.claim(format!("{life}/other/{n}"), MINUTE, None)?));
                txn.put("..", "x")
            });
            assert_eq!(kind_of(refused), "InvalidKey");
            assert!(session.resume_claim(format!("{life}/{n}").as_str(), fence).unwrap().release().unwrap());
        }
        // What was not synced is lost, claims among it.
        image = disk.durable();
        drop(larder);
    }
    assert_eq!(seen.len(), 200);
}

#[test]
fn s0_3_f_those_who_were_revoked_and_work_on_are_listed() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let held: Vec<Claim> = (0..5).map(|n| claim(&session, &format!("k/{n}"))).collect();
    assert_eq!(session.snapshot().unwrap().claims("k").unwrap().len(), 5);
    for n in 0..5 {
        assert_eq!(session.cancel(format!("k/{n}")).unwrap().value, CancelOutcome::Cancelled);
    }
    let orphans = || session.snapshot().unwrap().orphans().unwrap();
    assert_eq!(orphans().len(), 5);
    assert!(orphans().iter().all(|orphan| orphan.by == "ana" && orphan.owner == "ana"));
    assert!(held[0].put("late").unwrap().is_fenced());
    assert!(held[1].annotate(Annotation::new().message("at work still")).unwrap().is_fenced());
    assert_eq!(orphans().len(), 4, "who only tells of progress is at work still");
    let mut held = held.into_iter();
    held.next();
    drop(held.next());
    assert_eq!(orphans().len(), 3);
    verified(&larder);
    drop(held);
    assert!(orphans().is_empty());
    verified(&larder);
}

#[test]
fn s0_3_g_what_a_revoked_worker_streamed_in_is_reclaimed() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("base", vec![7u8; 3_000_000]).unwrap();
    let before = verified(&larder);
    let held = claim(&session, "k");
    let _ = session.cancel("k").unwrap();
    let payload: Vec<u8> = (0..5_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(held.put_reader(&mut payload.as_slice(), "").unwrap().is_fenced());
    let after = verified(&larder);
    assert_eq!((after.chunks, after.payloads), (before.chunks, before.payloads));
    assert!(!session.exists("k").unwrap());
}

#[test]
fn s1_2_b_a_group_holds_so_many_claims_and_no_more() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let ask = |n: usize| session.claim(format!("part/{n}")).in_group("slots", 32).for_at_most(MINUTE);
    let (mut held, mut full) = (Vec::new(), 0);
    for n in 0..100 {
        match ask(n) {
            Ok(claim) => held.push(claim),
            Err(error) => {
                assert_eq!(error.kind().name(), "GroupFull", "{error}");
                full += 1;
            }
        }
    }
    assert_eq!((held.len(), full), (32, 68));
    verified(&larder);
    held.truncate(22);
    let more = (100..200).filter_map(|n| ask(n).ok()).count();
    // Each of those is given back at once, so that there is always room: ten at a time.
    assert_eq!(more, 100);
    let more: Vec<Claim> = (100..200).filter_map(|n| ask(n).ok()).collect();
    assert_eq!(more.len(), 10);
    verified(&larder);
}

#[test]
fn s1_2_c_a_slot_past_its_time_is_taken_over_and_the_late_one_is_fenced() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    let (slow, quick) = (larder.session("slow").unwrap(), larder.session("quick").unwrap());
    let ask = |session: &Session| session.claim("part").in_group("slots", 1).for_at_most(30 * MINUTE);
    let hung = ask(&slow).unwrap();
    clock.advance(29 * 60_000_000);
    assert_eq!(kind_of(ask(&quick)), "Claimed");
    // Past its time, and nobody has asked: what it does in the end still counts.
    clock.advance(60_000_000);
    assert!(!hung.annotate_missing().is_fenced());
    let taken = ask(&quick).unwrap();
    assert!(taken.fence() > hung.fence());
    assert_eq!(hung.put("late").unwrap(), Fenceable::Fenced { by: Some("quick".to_owned()) });
    assert!(!taken.put("in time").unwrap().is_fenced());
    assert_eq!(text(&quick, "part"), "in time");
    verified(&larder);
}

/// Each holder has a key of his own: what is past its time makes room, and is over.
#[test]
fn s1_2_c_a_slot_of_another_key_past_its_time_is_taken_over_too() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let ask = |n: u64, time: u64| {
        ana.claim(format!("w/{n}").as_str()).in_group("slots", 2).for_at_most(Duration::from_secs(time))
    };
    let (first, second) = (ask(1, 60).unwrap(), ask(2, 30).unwrap());
    assert_eq!(kind_of(ask(3, 60)), "GroupFull");
    clock.advance(60_000_000);
    // Both are past their time; for one more, the one that has been for longer goes.
    let third = ask(3, 60).unwrap();
    assert!(second.put("late").unwrap().is_fenced());
    assert!(!first.annotate_missing().is_fenced(), "there is room for it still");
    let fourth = ask(4, 60).unwrap();
    assert!(first.annotate_missing().is_fenced());
    assert_eq!(kind_of(ask(5, 60)), "GroupFull");
    assert!(!third.put("in time").unwrap().is_fenced() && !fourth.put("in time").unwrap().is_fenced());
    verified(&larder);
}

/// What a worker does that has nothing to show yet.
trait AtWork {
    fn annotate_missing(&self) -> Fenceable<()>;
}

impl AtWork for Claim {
    fn annotate_missing(&self) -> Fenceable<()> {
        match self.write(|_| Ok(())).unwrap() {
            Fenceable::Done(_) => Fenceable::Done(()),
            Fenceable::Fenced { by } => Fenceable::Fenced { by },
        }
    }
}

#[test]
fn x_7_of_many_who_want_the_same_one_at_a_time_has_it() {
    let larder = Options::new().open_in_memory().unwrap();
    let (at_work, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let session = larder.session(&format!("worker{thread}")).unwrap();
            let (at_work, most, done) = (&at_work, &most, &done);
            scope.spawn(move || {
                for _ in 0..20 {
                    let held = session.claim("k").wait_max(10 * MINUTE).for_at_most(MINUTE).unwrap();
                    most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    at_work.fetch_sub(1, Ordering::SeqCst);
                    assert!(!held.put("x").unwrap().is_fenced());
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!((most.into_inner(), done.into_inner()), (1, 320));
    assert_eq!(larder.session("ana").unwrap().record("k").unwrap().generation(), 320);
}

#[test]
fn x_7_of_sixteen_who_ask_at_once_one_wins_in_every_round() {
    let larder = in_memory();
    for round in 0..1_000 {
        let won: usize = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..16)
                .map(|thread| {
                    let session = larder.session(&format!("worker{thread}")).unwrap();
                    scope.spawn(move || {
                        let asked = session.claim(format!("k/{round}")).for_at_most(MINUTE);
                        asked.map(Claim::detach).is_ok()
                    })
                })
                .collect();
            asking.into_iter().map(|asked| usize::from(asked.join().unwrap())).sum()
        });
        assert_eq!(won, 1, "round {round}");
    }
    assert_eq!(larder.session("ana").unwrap().snapshot().unwrap().claims("").unwrap().len(), 1_000);
    verified(&larder);
}

#[test]
fn whatever_else_writes_under_a_key_revokes_its_claim() {
    let larder = in_memory();
    let (worker, other) = (larder.session("worker").unwrap(), larder.session("other").unwrap());
    let is_revoked = |key: &str, act: &dyn Fn()| {
        other.put("t/there", "x").unwrap();
        other.put("from", "x").unwrap();
        let held = claim(&worker, key);
        act();
        let _ = other.delete("t/new");
        held.annotate_missing().is_fenced()
    };
    assert!(is_revoked("t/there", &|| drop(other.delete("t/there"))));
    assert!(is_revoked("t/there", &|| drop(other.delete_tree("t"))));
    assert!(is_revoked("t/nothing", &|| drop(other.delete_tree("t"))), "though nothing is there yet");
    assert!(is_revoked("t/there", &|| drop(other.rename("t/there", "t/new"))));
    assert!(is_revoked("t/new", &|| drop(other.rename("from", "t/new"))));
    assert!(is_revoked("t/there", &|| drop(other.copy("from", "t/there"))));
    assert!(!is_revoked("t/there", &|| drop(other.annotate("t/there", Annotation::new().title("a")))));
    assert!(!is_revoked("t/there", &|| drop(other.put("elsewhere", "x"))));
    assert!(
        !is_revoked("t/there", &|| drop(other.apply(Edit::put("t/there", "x").if_absent()))),
        "it was refused"
    );
    verified(&larder);
}

#[test]
fn bad_claims_are_refused_and_leave_nothing() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.make_directory("dir").unwrap();
    let year = Duration::from_secs(366 * 86_400);
    assert_eq!(kind_of(session.claim("dir").for_at_most(MINUTE)), "IsADirectory");
    assert_eq!(kind_of(session.claim("../k").for_at_most(MINUTE)), "InvalidKey");
    assert_eq!(kind_of(session.claim("k").for_at_most(Duration::ZERO)), "InvalidArgument");
    assert_eq!(kind_of(session.claim("k").for_at_most(101 * year)), "InvalidArgument");
    assert_eq!(kind_of(session.claim("k").for_at_most(Duration::MAX)), "InvalidArgument");
    for group in [String::new(), "g".repeat(256), "a\0b".to_owned()] {
        assert_eq!(kind_of(session.claim("k").in_group(group, 1).for_at_most(MINUTE)), "InvalidName");
    }
    assert_eq!(kind_of(session.claim("k").in_group("none", 0).for_at_most(MINUTE)), "GroupFull");
    let view = session.snapshot().unwrap();
    assert!(view.claims("").unwrap().is_empty() && view.orphans().unwrap().is_empty());

    // A fence of another key, of a former life of the key, of nothing.
    let held = claim(&session, "k");
    assert!(session.resume_claim("other", held.fence()).unwrap().put("x").unwrap().is_fenced());
    assert!(session.resume_claim("k", held.fence() + 1).unwrap().put("x").unwrap().is_fenced());
    let former = held.detach();
    session.put("k", "x").unwrap();
    session.delete("k").unwrap();
    let held = claim(&session, "k");
    assert!(session.resume_claim("k", former).unwrap().put("x").unwrap().is_fenced());
    assert!(!held.put("mine").unwrap().is_fenced());
    verified(&larder);
}

#[test]
fn s0_7_it_takes_the_right_to_claim_and_the_right_to_cancel() {
    let larder = in_memory();
    let rules = r#"
        default = "deny"
        [[rule]]
        allow = ["claim", "write", "read", "list"]
        who = ["worker"]
        on = "jobs/**"
        [[rule]]
        allow = ["cancel"]
        who = ["boss"]
        on = "jobs/**"
    "#;
    larder.root().unwrap().set_document(DocumentKind::Rules, rules).unwrap();
    let (worker, boss) = (larder.session("worker").unwrap(), larder.session("boss").unwrap());
    assert_eq!(kind_of(boss.claim("jobs/1").for_at_most(MINUTE)), "AccessDenied");
    assert_eq!(kind_of(worker.claim("other/1").for_at_most(MINUTE)), "AccessDenied");
    let held = claim(&worker, "jobs/1");
    assert_eq!(kind_of(worker.cancel("jobs/1")), "AccessDenied");
    assert!(boss.snapshot().unwrap().claims("").unwrap().is_empty(), "who may not list does not see it");
    held.write(|txn| txn.put("jobs/1", Draft::from("x").status(Status::Partial))).unwrap().done().unwrap();
    // A fence can be guessed, and is not enough.
    let guessed = boss.resume_claim("jobs/1", held.fence()).unwrap();
    assert_eq!(kind_of(guessed.renew(MINUTE)), "AccessDenied");
    assert_eq!(kind_of(guessed.write(|_| Ok(()))), "AccessDenied");
    assert_eq!(kind_of(guessed.release()), "AccessDenied");
    assert_eq!(boss.cancel("jobs/1").unwrap().value, CancelOutcome::Cancelled);
    assert_eq!(worker.record("jobs/1").unwrap().status(), Status::Cancelled);
    assert_eq!(worker.snapshot().unwrap().orphans().unwrap()[0].by, "boss");
}

#[test]
fn a_claim_that_is_dropped_is_given_back_and_whoever_waits_has_it() {
    let larder = Options::new().open_in_memory().unwrap();
    let (ana, bob) = (larder.session("ana").unwrap(), larder.session("bob").unwrap());
    let held = claim(&ana, "k");
    assert_eq!(kind_of(bob.claim("k").for_at_most(MINUTE)), "Claimed");
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| bob.claim("k").wait_max(10 * MINUTE).for_at_most(MINUTE).unwrap().detach());
        drop(held);
        let fence = waiting.join().unwrap();
        assert_eq!(bob.snapshot().unwrap().claims("k").unwrap()[0].fence, fence);
    });
    // Whoever waits for a while only is told in the end.
    let refused = ana.claim("k").wait_max(Duration::from_millis(20)).for_at_most(MINUTE);
    assert_eq!(kind_of(refused), "Claimed");
}

#[test]
fn those_who_were_revoked_long_ago_are_forgotten() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let held = claim(&session, "k");
    let _ = session.cancel("k").unwrap();
    let orphans = || session.snapshot().unwrap().orphans().unwrap().len();
    clock.advance(86_400_000_000);
    larder.upkeep(1_000_000 + 86_400_000_000).unwrap();
    assert_eq!(orphans(), 1);
    clock.advance(400 * 86_400_000_000);
    larder.upkeep(1_000_000 + 401 * 86_400_000_000).unwrap();
    assert_eq!(orphans(), 0);
    assert!(held.put("late").unwrap().is_fenced(), "and fenced for ever");
}

const HOUR: i64 = 3_600_000_000;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

#[test]
fn x_9_a_clock_that_jumps_back_ends_no_claim_early_and_turns_no_order() {
    for jump in [HOUR, TEN_YEARS] {
        let begin = 2 * TEN_YEARS;
        let clock = Arc::new(ManualClock::at(begin));
        let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
        let (ana, bob) = (larder.session("ana").unwrap(), larder.session("bob").unwrap());
        let held = claim(&ana, "k");
        ana.put(
            "timed",
            Draft::from("x").status(Status::Ready).with(|about| about.expires(begin + 90_000_000)),
        )
        .unwrap();
        let next = larder.next_deadline().unwrap();
        clock.advance(-jump);
        assert_eq!(larder.next_deadline().unwrap(), next);
        assert_eq!(larder.sweep(10).unwrap().total(), 0);
        assert_eq!(kind_of(bob.claim("k").for_at_most(MINUTE)), "Claimed");
        let other = claim(&bob, "other");
        // As much later by the clock it is where it was: nothing was early, and nothing is late.
        clock.advance(jump + 59_000_000);
        assert_eq!(kind_of(ana.claim("other").for_at_most(MINUTE)), "Claimed");
        assert_eq!(kind_of(bob.claim("k").for_at_most(MINUTE)), "Claimed");
        clock.advance(1_000_000);
        assert_eq!(larder.sweep(10).unwrap().claims, 2, "both were made at the same commit time");
        assert!(held.put("late").unwrap().is_fenced() && other.put("late").unwrap().is_fenced());
        clock.advance(30_000_000);
        assert_eq!(larder.sweep(10).unwrap().expired, 1);
        let told = ana.feed_since(0, 100).unwrap();
        assert!(told.is_sorted_by_key(|event| (event.commit.sequence, event.time)));
        verified(&larder);
    }
}

#[test]
fn x_9_what_was_past_by_a_clock_ten_years_ahead_does_not_come_back_with_the_right_time() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(TEN_YEARS));
    let open = || {
        let options = Options::new().inline().clock(Arc::clone(&clock) as _);
        options.open(folder.path().join("a.larder")).unwrap()
    };
    let larder = open();
    let ana = larder.session("ana").unwrap();
    let held = claim(&ana, "k");
    let timed = Draft::from("x").status(Status::Ready).with(|about| about.expires(TEN_YEARS + HOUR));
    ana.put("timed", timed).unwrap();
    clock.advance(TEN_YEARS);
    let swept = larder.sweep(10).unwrap();
    assert_eq!((swept.claims, swept.expired), (1, 1));
    assert!(held.put("late").unwrap().is_fenced());
    drop(ana);
    larder.close().unwrap();
    clock.advance(-TEN_YEARS);
    let larder = open();
    let ana = larder.session("ana").unwrap();
    assert!(ana.get_loadable("timed").unwrap().miss().is_some());
    let held = claim(&ana, "k");
    assert!(!held.put("on time").unwrap().is_fenced());
    let told = ana.feed_since(0, 100).unwrap();
    assert!(told.is_sorted_by_key(|event| (event.commit.sequence, event.time)));
    verified(&larder);
}

#[test]
fn s0_3_x_7_of_a_put_and_a_cancel_at_the_same_time_one_wins_in_every_round() {
    let larder = in_memory();
    let (worker, boss) = (larder.session("worker").unwrap(), larder.session("boss").unwrap());
    let mut fenced = 0;
    for round in 0..1_000 {
        let key = format!("k/{}", round % 5);
        let _ = boss.delete(key.as_str()).unwrap();
        let held = claim(&worker, &key);
        let (late, cancelled) = std::thread::scope(|scope| {
            let late = scope.spawn(|| held.put(Draft::from("x").status(Status::Ready)).unwrap().is_fenced());
            let cancelled = boss.cancel(key.as_str()).unwrap().value;
            (late.join().unwrap(), cancelled)
        });
        let is_there = boss.exists(key.as_str()).unwrap();
        // Either it was cancelled, and nothing was stored; or it was stored before, and there was nothing to cancel.
        assert_eq!(
            (late, is_there),
            (cancelled == CancelOutcome::Cancelled, !late),
            "round {round}: {cancelled:?}"
        );
        fenced += usize::from(late);
    }
    assert!(larder.session("ana").unwrap().snapshot().unwrap().orphans().unwrap().is_empty(), "{fenced}");
    verified(&larder);
}

#[test]
fn s1_2_b_of_many_who_ask_at_once_as_many_win_as_there_are_slots() {
    let larder = in_memory();
    for round in 0..100 {
        let held: Vec<u64> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..16)
                .map(|thread| {
                    let session = larder.session(&format!("worker{thread}")).unwrap();
                    scope.spawn(move || {
                        let asked = session.claim(format!("part/{thread}")).in_group("slots", 5);
                        asked.for_at_most(MINUTE).map(Claim::detach).ok()
                    })
                })
                .collect();
            asking.into_iter().filter_map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(held.len(), 5, "round {round}");
        let session = larder.session("ana").unwrap();
        for claim in session.snapshot().unwrap().claims("part").unwrap() {
            assert!(session.resume_claim(&claim.key, claim.fence).unwrap().release().unwrap());
        }
    }
    verified(&larder);
}

#[test]
fn a_claim_that_is_renewed_has_one_deadline_and_it_is_the_later() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = Options::new().inline().clock(Arc::clone(&clock) as _).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let held = claim(&session, "k");
    clock.advance(30_000_000);
    assert!(held.renew(MINUTE).unwrap());
    verified(&larder);
    clock.advance(59_000_000);
    assert_eq!(larder.sweep(10).unwrap().claims, 0);
    clock.advance(1_000_000);
    assert_eq!(larder.sweep(10).unwrap().claims, 1);
    assert!(!held.renew(MINUTE).unwrap());
}

#[test]
fn what_is_done_in_the_name_of_a_claim_revokes_others() {
    let larder = in_memory();
    let (ana, bob) = (larder.session("ana").unwrap(), larder.session("bob").unwrap());
    let (mine, his) = (claim(&ana, "mine"), claim(&bob, "his"));
    let done = mine.write(|txn| {
        txn.put("mine", "x")?;
        txn.put("his", "x")
    });
    assert!(!done.unwrap().is_fenced());
    assert!(his.put("late").unwrap().is_fenced());
    assert!(!mine.put("y").unwrap().is_fenced());
}

/// S3-4. Claims of others that come and go meanwhile take nothing from the time that one waits.
#[test]
fn s3_4_a_wait_lasts_as_long_as_it_was_asked_to_whoever_else_frees_claims() {
    let larder = in_memory();
    let (ana, bob) = (larder.session("ana").unwrap(), larder.session("bob").unwrap());
    let held = ana.claim("part").for_at_most(Duration::from_secs(60)).unwrap();
    std::thread::scope(|scope| {
        // Each took a twentieth of a second from the wait: a thousand were enough.
        let waiting = scope.spawn(|| {
            bob.claim("part").wait_max(Duration::from_secs(50)).for_at_most(Duration::from_secs(60))
        });
        for number in 0..1_500 {
            drop(ana.claim(format!("other/{number}")).for_at_most(Duration::from_secs(60)).unwrap());
        }
        drop(held);
        assert!(waiting.join().unwrap().is_ok());
    });
}
