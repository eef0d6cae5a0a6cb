//! What is seen while others write: all of a transaction or nothing of it, and never an earlier state again.

use std::sync::mpsc;

use larder::{Error, Larder, Notice, Options};
use larder_tests::{block_on, in_memory, kind_of, verified};

fn all_there(larder: &Larder, threads: usize, each: usize) {
    let mut sequences: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let session = larder.session(&format!("writer{thread}")).unwrap();
                    let put = |n| session.put(format!("t{thread}/{n}.txt"), format!("{thread}:{n}"));
                    (0..each).map(|n| put(n).unwrap().commit.sequence).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    sequences.sort_unstable();
    let count = (threads * each) as u64;
    assert_eq!(sequences, (1..=count).collect::<Vec<_>>(), "every commit has a number of its own, no gap");

    let session = larder.session("reader").unwrap();
    for thread in 0..threads {
        for n in 0..each {
            let asset = session.get(format!("t{thread}/{n}.txt")).unwrap();
            assert_eq!(asset.bytes().unwrap(), format!("{thread}:{n}"));
        }
    }
    let events = session.feed_since(0, usize::MAX).unwrap();
    let told: Vec<u64> = events.iter().map(|event| event.commit.sequence).collect();
    assert_eq!(told, (1..=count).collect::<Vec<_>>());
    assert!(events.is_sorted_by_key(|event| event.time));
    for event in &events {
        let record = session.record(event.place.as_str()).unwrap();
        assert_eq!(record.commit(), event.commit.sequence);
        assert_eq!(event.principal, format!("writer{}", &event.place[1..event.place.find('/').unwrap()]));
    }
    assert_eq!(verified(larder).records, count);
}

#[test]
fn sixteen_threads_in_memory_lose_nothing() {
    all_there(&Options::new().open_in_memory().unwrap(), 16, 200);
}

#[test]
fn sixteen_threads_in_a_file_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.larder");
    let larder = Larder::open(&path).unwrap();
    all_there(&larder, 16, 200);
    larder.close().unwrap();
    let larder = Larder::open(&path).unwrap();
    assert_eq!(larder.info().unwrap().last_commit.sequence, 3_200);
    assert_eq!(verified(&larder).records, 3_200);
}

#[test]
fn a_later_write_sees_what_was_submitted_before_it() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let ((), first) = session.submit(|txn| txn.put("a.txt", "1").map(drop)).unwrap();
    let (seen, second) = session.submit(|txn| txn.get("a.txt")?.bytes()).unwrap();
    assert_eq!(seen, "1");
    assert_eq!(block_on(second).unwrap(), block_on(first).unwrap());
}

#[test]
fn a_ticket_that_nobody_waits_for_is_carried_all_the_same() {
    let larder = Options::new().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let subscription = session.subscribe("", 8).unwrap();
    let ((), ticket) = session.submit(|txn| txn.put("a.txt", "x").map(drop)).unwrap();
    drop(ticket);
    assert!(matches!(subscription.next_notice(), Notice::Events(events) if events.len() == 1));
    assert!(session.exists("a.txt").unwrap());
}

#[test]
fn readers_see_all_of_a_transaction_or_nothing() {
    let larder = in_memory();
    let larder = &larder;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let session = larder.session("reader").unwrap();
                    let mut last = 0;
                    while last < 300 {
                        let snapshot = session.snapshot().unwrap();
                        let seen: Vec<u64> = (0..5)
                            .filter_map(|n| snapshot.get(format!("k{n}")).ok())
                            .map(|asset| String::from_utf8_lossy(&asset.bytes().unwrap()).parse().unwrap())
                            .collect();
                        assert!(seen.is_empty() || seen.len() == 5);
                        let version = seen.first().copied().unwrap_or(0);
                        assert!(seen.iter().all(|other| *other == version), "{seen:?}");
                        assert!(version >= last, "a later reader saw an earlier state");
                        last = version;
                    }
                })
            })
            .collect();
        let session = larder.session("writer").unwrap();
        for version in 1..=300 {
            session
                .write(|txn| (0..5).try_for_each(|n| txn.put(format!("k{n}"), version.to_string()).map(drop)))
                .unwrap();
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_write_inside_a_write_is_refused_and_the_outer_one_goes_on() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let other = larder.session("bob").unwrap();
    session
        .write(|txn| {
            txn.put("a.txt", "x")?;
            assert_eq!(kind_of(session.put("b.txt", "x")), "Nested");
            assert_eq!(kind_of(other.write(|_| Ok(()))), "Nested");
            assert_eq!(kind_of(larder.clone().close()), "Nested");
            assert!(!other.exists("a.txt")?, "nobody else sees it yet");
            Ok(())
        })
        .unwrap();
    assert_eq!(session.list("").unwrap().len(), 1);
}

#[test]
fn a_close_waits_for_the_transaction_at_work() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let (entered, has_entered) = mpsc::channel();
    std::thread::scope(|scope| {
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let writer = scope.spawn({
            let session = session.clone();
            move || {
                session.write(|txn| {
                    entered.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    txn.put("a.txt", "x")
                })
            }
        });
        has_entered.recv().unwrap();
        let closing = scope.spawn(|| larder.clone().close());
        go_on.send(()).unwrap();
        writer.join().unwrap().unwrap();
        closing.join().unwrap().unwrap();
    });
    assert_eq!(kind_of(session.get("a.txt")), "Closed");
}

#[test]
fn a_closure_that_fails_or_panics_harms_nobody() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("a.txt", "old").unwrap();
    let pages = larder.info().unwrap().file_bytes;
    for n in 0..200 {
        let failed = session.write(|txn| {
            txn.put("a.txt", "new")?;
            txn.put("big.bin", vec![7; 200_000])?;
            Err::<(), _>(Error::abort(n))
        });
        assert_eq!(kind_of(failed), "Aborted");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            session.write(|txn| {
                txn.put("a.txt", "new")?;
                std::panic::resume_unwind(Box::new(n));
                #[expect(unreachable_code, reason = "gives the closure its type")]
                Ok(())
            })
        }));
        assert!(panicked.is_err());
    }
    assert_eq!(session.get("a.txt").unwrap().bytes().unwrap(), "old");
    assert_eq!(larder.info().unwrap().last_commit.sequence, 1);
    assert_eq!(larder.info().unwrap().file_bytes, pages);
    session.put("b.txt", "x").unwrap();
    verified(&larder);
}

#[test]
fn payloads_of_some_kib_are_kept_with_their_records_and_are_those_of_the_state_that_is_read() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let payload = |n: u8, length: usize| vec![n; length];
    for length in [512, 513, 1_024, 4_096, 4_097, 20_000] {
        let key = format!("k/{length}");
        let cached = || larder.info().unwrap().cache;
        session.put(&key, payload(1, length)).unwrap();
        assert_eq!(session.get(&key).unwrap().bytes().unwrap(), payload(1, length));
        let before = cached();
        assert_eq!(session.get(&key).unwrap().bytes().unwrap(), payload(1, length));
        let view = session.snapshot().unwrap();
        assert_eq!(view.get(&key).unwrap().bytes().unwrap(), payload(1, length));
        assert!(cached().hits > before.hits, "{length}");
        session.put(&key, payload(2, length)).unwrap();
        for _ in 0..2 {
            assert_eq!(session.get(&key).unwrap().bytes().unwrap(), payload(2, length), "{length}");
            assert_eq!(view.get(&key).unwrap().bytes().unwrap(), payload(1, length), "{length}");
        }
        // The bytes of it are part of the budget.
        let kept = cached().bytes - before.bytes.min(cached().bytes);
        assert!(kept < 8_192, "{length}: {kept}");
        session.annotate(&key, larder::Annotation::new().tag("t")).unwrap();
        assert_eq!(session.get(&key).unwrap().bytes().unwrap(), payload(2, length), "{length}");
        session.delete(&key).unwrap();
        assert_eq!(kind_of(session.get(&key)), "NotFound");
    }
    verified(&larder);
}
