//! Transactions of many threads that are made one: each gets its own answer, and nobody another's failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use larder::{Combiner, DocumentKind, Error, ErrorKind, Options, Receipt, Result, WriteTxn};
use larder_tests::{Call, Fault, FaultyDisk, Plan, in_memory, kind_of, verified};

/// Runs calls at the same time: none is begun before all wait for the one that has the lead.
fn at_once<R: Send>(combiner: &Combiner, calls: Vec<Box<dyn FnOnce() -> R + Send + '_>>) -> Vec<R> {
    let ((begun, has_begun), (go, gate)) = (channel::<()>(), channel::<()>());
    let waiting = format!("waiting: {}", calls.len());
    std::thread::scope(|threads| {
        let first = threads.spawn(move || {
            combiner.write(move |_| {
                begun.send(()).unwrap();
                // Until it is let go of.
                let _ = gate.recv();
                Ok(())
            })
        });
        has_begun.recv().unwrap();
        let calls: Vec<_> = calls.into_iter().map(|call| threads.spawn(call)).collect();
        while !format!("{combiner:?}").contains(&waiting) {
            std::thread::yield_now();
        }
        drop(go);
        first.join().unwrap().unwrap();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// A call that stores a number under a key, and says how often it ran.
fn put<'c>(
    combiner: &'c Combiner,
    number: u32,
    runs: &Arc<AtomicU32>,
) -> impl FnOnce() -> Result<Receipt<u32>> + 'c {
    let runs = Arc::clone(runs);
    move || {
        combiner.write(move |txn| {
            runs.fetch_add(1, Ordering::Relaxed);
            txn.put(format!("rows/{number}"), number.to_string())?;
            Ok(number)
        })
    }
}

/// S4-2.5. What comes at the same time is one commit; every caller has what his own closure returned, and sees it.
#[test]
fn s4_2_5_what_comes_at_the_same_time_is_one_commit_and_each_has_his_answer() {
    let larder = in_memory();
    let combiner = larder.session("ana").unwrap().combiner();
    let runs = Arc::default();
    let receipts: Vec<Result<Receipt<u32>>> =
        at_once(&combiner, (0..8).map(|number| Box::new(put(&combiner, number, &runs)) as _).collect());
    for (number, receipt) in (0..).zip(&receipts) {
        let receipt = receipt.as_ref().unwrap();
        assert_eq!((receipt.value, receipt.commit), (number, receipts[0].as_ref().unwrap().commit));
        let stored = larder.session("ana").unwrap().get(format!("rows/{number}")).unwrap();
        assert_eq!(stored.bytes().unwrap(), number.to_string());
    }
    assert_eq!(larder.info().unwrap().last_commit.sequence, 1, "one commit: the first changed nothing");
    assert_eq!(runs.load(Ordering::Relaxed), 8, "each ran once");
    assert!(combiner.write(|txn| txn.exists("rows/7")).unwrap().value, "and goes on");
    assert_eq!(larder.health().operations["write"].count, 10, "each counts for itself");
}

/// Whoever fails, by his own error, by a panic, or because he may not, fails alone: what the others did is there once, what he
/// did is not.
#[test]
fn s1_10_nobodys_failure_is_anothers() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    root.set_document(
        DocumentKind::Rules,
        "default = \"deny\"\n[[rule]]\nallow = [\"read\", \"write\"]\nwho = [\"ana\"]\non = \"rows/**\"\n",
    )
    .unwrap();
    let combiner = larder.session("ana").unwrap().combiner();
    let (runs, ran) = (Arc::default(), Arc::new(AtomicU32::new(0)));
    let (once, ran_too) = (Arc::clone(&ran), Arc::clone(&ran));
    let combined = &combiner;
    type Call<'c> = Box<dyn FnOnce() -> Result<u32> + Send + 'c>;
    let mut calls: Vec<Call<'_>> = Vec::new();
    for number in 0..3 {
        let call = put(combined, number, &runs);
        calls.push(Box::new(move || call().map(|receipt| receipt.value)));
    }
    calls.push(Box::new(move || {
        let refused = combined.write(move |txn| {
            once.fetch_add(1, Ordering::Relaxed);
            txn.put("rows/refused", "soup")?;
            Err::<u32, _>(Error::abort("no soup today"))
        });
        refused.map(|receipt| receipt.value)
    }));
    calls.push(Box::new(move || {
        combined.write(|txn| txn.put("elsewhere", "soup")).map(|_| unreachable!("he may not"))
    }));
    calls.push(Box::new(move || {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            combined.write(move |txn| -> Result<u32> {
                ran_too.fetch_add(100, Ordering::Relaxed);
                txn.put("rows/panicked", "soup")?;
                panic!("the pot boils over")
            })
        }));
        Err(Error::abort(panicked.unwrap_err().downcast_ref::<&str>().unwrap()))
    }));
    let outcomes = at_once(&combiner, calls);
    assert_eq!(outcomes.iter().flatten().copied().collect::<Vec<_>>(), [0, 1, 2]);
    let errors: Vec<String> =
        outcomes[3..].iter().map(|outcome| outcome.clone().unwrap_err().to_string()).collect();
    assert!(errors[0].contains("no soup today"), "{errors:?}");
    assert_eq!(kind_of(outcomes[4].clone()), "AccessDenied");
    assert!(errors[2].contains("the pot boils over"), "{errors:?}");
    assert_eq!(ran.load(Ordering::Relaxed) % 100, 2, "once with the others, and once alone");
    let names: Vec<_> = root.list("rows").unwrap().iter().map(|entry| entry.name().to_owned()).collect();
    assert_eq!(names, ["0", "1", "2"]);
    for number in 0..3 {
        assert_eq!(root.record(format!("rows/{number}")).unwrap().generation(), 1, "there once");
    }
    verified(&larder);
}

/// More failures than it tries to leave out: then each runs alone, and those that can are there.
#[test]
fn s1_10_where_many_fail_each_is_alone() {
    let larder = in_memory();
    let combiner = larder.session("ana").unwrap().combiner();
    let combined = &combiner;
    let calls = (0..24_u32).map(|number| {
        Box::new(move || {
            combined.write(move |txn| {
                txn.put(format!("rows/{number}"), "soup")?;
                if number % 2 == 0 { Err(Error::abort("an even one")) } else { Ok(number) }
            })
        }) as Box<dyn FnOnce() -> Result<Receipt<u32>> + Send + '_>
    });
    let outcomes = at_once(&combiner, calls.collect());
    for (number, outcome) in (0..).zip(outcomes) {
        assert_eq!(outcome.map(|receipt| receipt.value).ok(), (number % 2 == 1).then_some(number));
    }
    assert_eq!(larder.session("ana").unwrap().list("rows").unwrap().len(), 12);
    verified(&larder);
}

/// A commit of many that fails on the disk fails for all of them, and is not tried again by anybody: it may be there.
#[test]
fn t06_a_commit_of_many_whose_outcome_is_unknown_is_so_for_all() {
    let mut unknown = 0;
    for at in 1..12 {
        let fresh = FaultyDisk::default();
        let options = || Options::new().inline().log_segment_bytes(1 << 20);
        fresh.open(options(), true).unwrap().close().unwrap();
        let plan = Plan { fault: Some(Fault::once(Call::Sync, at)), ..Plan::default() };
        let disk = FaultyDisk::closed(fresh.store(), plan);
        let Ok(larder) = disk.open(options(), true) else { continue };
        let combiner = larder.session("ana").unwrap().combiner();
        let runs = Arc::default();
        let outcomes: Vec<Result<Receipt<u32>>> =
            at_once(&combiner, (0..4).map(|number| Box::new(put(&combiner, number, &runs)) as _).collect());
        assert_eq!(runs.load(Ordering::Relaxed), 4, "sync {at}: each ran once");
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!(failed == 0 || failed == 4, "sync {at}: {outcomes:?}");
        if failed > 0 {
            unknown += 1;
            for outcome in outcomes {
                assert_eq!(kind_of(outcome), "OutcomeUnknown", "sync {at}");
            }
        }
        drop((combiner, larder));
        for image in [disk.durable(), disk.current()] {
            let larder = FaultyDisk::holding(image, Plan::default()).open(options(), true).unwrap();
            let there = larder.session("ana").unwrap().names("rows").map_or(0, |names| names.len());
            assert!(there == 4 || (there == 0 && failed > 0), "sync {at}: {there} of 4");
        }
    }
    assert!(unknown > 0, "no sync of the commit was hit");
}

/// Within a transaction of the same thread it is refused, by itself and by a session's, and others are not held up.
#[test]
fn x_7_in_a_transaction_of_the_same_thread_it_is_refused() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let combiner = Arc::new(ana.combiner());
    let inner = Arc::clone(&combiner);
    let nested = combiner.write(move |_| Ok(inner.write(|_| Ok(())).map_err(|error| error.kind().clone())));
    assert!(matches!(nested.unwrap().value, Err(ErrorKind::Nested)));
    let nested = ana.write(|_| Ok(kind_of(combiner.write(|txn| txn.put("a", "b")))));
    assert_eq!(nested.unwrap().value, "Nested");
    combiner.write(|txn| txn.put("a", "b")).unwrap();
}

/// S2-5. Threads count in one row, through a combiner, through sessions, and some of them fail after they wrote: everybody who
/// was told of a number has it alone, in the order in which he was told, and no number is missing.
#[test]
fn s2_5_no_number_is_given_twice_or_lost_however_they_meet() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    ana.put("count", "0").unwrap();
    let combiner = ana.combiner();
    fn count(txn: &mut WriteTxn<'_>, fails: bool) -> Result<u32> {
        let number = 1 + String::from_utf8_lossy(&txn.get("count")?.bytes()?).parse::<u32>().unwrap();
        txn.put("count", number.to_string())?;
        if fails { Err(Error::abort("after it wrote")) } else { Ok(number) }
    }
    let counted = std::thread::scope(|threads| {
        let workers = (0..8_u32).map(|worker| {
            let (combiner, ana) = (&combiner, ana.clone());
            threads.spawn(move || {
                let mut numbers = Vec::new();
                for turn in 0..150 {
                    let fails = (worker * 31 + turn * 7) % 11 == 0;
                    let receipt = match (worker + turn) % 5 {
                        0 => ana.write(|txn| count(txn, fails)),
                        _ => combiner.write(move |txn| count(txn, fails)),
                    };
                    assert_eq!(receipt.is_err(), fails);
                    numbers.extend(receipt.ok().map(|receipt| receipt.value));
                }
                numbers
            })
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(counted.iter().all(|numbers| numbers.is_sorted()), "what is asked for later comes later");
    let mut all: Vec<u32> = counted.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=u32::try_from(all.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!(ana.get("count").unwrap().bytes().unwrap(), all.len().to_string());
}

/// Whose turn does not come in time is told so, each for himself, and nothing of his is there.
#[test]
fn x_7_a_turn_that_does_not_come_is_busy_for_each() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let combiner = ana.clone().wait_max(Duration::from_millis(2)).combiner();
    let runs = Arc::default();
    let outcomes: Vec<Result<Receipt<u32>>> = ana
        .write(|_| {
            // While this one has the turn, on another thread.
            let ask = || (0..6).map(|number| put(&combiner, number, &runs)).collect::<Vec<_>>();
            Ok(std::thread::scope(|threads| {
                let calls: Vec<_> = ask().into_iter().map(|call| threads.spawn(call)).collect();
                calls.into_iter().map(|call| call.join().unwrap()).collect()
            }))
        })
        .unwrap()
        .value;
    for outcome in outcomes {
        assert_eq!(kind_of(outcome), "Busy");
    }
    assert_eq!(runs.load(Ordering::Relaxed), 0, "nobody had the turn");
    combiner.write(|txn| txn.put("a", "b")).unwrap();
    assert_eq!(larder.info().unwrap().last_commit.sequence, 1);
}
