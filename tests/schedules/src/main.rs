//! larder's own locks under schedules that are drawn: whoever asks for a lock, or lets go of one, may have to wait for others.
//!
//! ```text
//! larder-schedules 10000          # so many schedules of every scenario, from seed 1 on
//! larder-schedules 1000 edits 7   # of one scenario, from this seed on: what was found with the same count before
//! ```
//!
//! Half of the schedules are drawn evenly, half favour some threads over others (S. Burckhardt et al., "A Randomized Scheduler
//! with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010). A schedule in which all threads wait is a deadlock; one that
//! takes a million steps goes round in circles. Both end the run, as what a scenario demands in vain does. The stores have no thread
//! of their own.

#![allow(clippy::disallowed_methods, reason = "it says how long it took")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use larder::{Durability, ErrorKind, Larder, ManualClock, SnapshotOptions, WriteTxn};
use larder_layers::queue::{Message, QueueSettings, Queues};
use larder_layers::remember::{Cache, Parts, Remember, RememberError};
use larder_tests::{Call, Fault, FaultyDisk, Plan, Random, small, verified};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread::{JoinHandle, spawn};
use shuttle::{Config, Runner};

/// How many schedules have one seed.
const OF_ONE_SEED: usize = 500;
/// How often a thread is put behind the others, in schedules that favour some.
const DEPTH: usize = 3;
/// What a thread may put on its stack, in bytes.
const STACK_BYTES: usize = 1 << 20;

/// A scenario, and one in how many looks at a clock finds a wait over in it.
type Scenario = (&'static str, u32, fn());

/// One in how many looks at a clock finds a wait over where threads have little patience.
const PATIENCE: u32 = 6;

const SCENARIOS: [Scenario; 14] = [
    ("edits", 0, edits),
    ("together", 0, together),
    ("readers", 0, readers),
    ("upkeep", 0, upkeep),
    ("fences", 0, fences),
    ("waiting", 0, waiting),
    ("queue", 0, queue),
    ("flight", 0, flight),
    ("crash", 0, crash),
    ("closing", 0, closing),
    ("leaving", 0, leaving),
    ("failing", 0, failing),
    ("full", 0, full),
    ("patience", PATIENCE, patience),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1_000_usize);
    let only = arguments.next();
    let first = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    for (name, timeouts, scenario) in SCENARIOS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        parking_lot::timeouts(timeouts);
        let began = Instant::now();
        let (mut done, mut seed) = (0, first);
        while done < count {
            let now = OF_ONE_SEED.min(count - done);
            eprint!("\r{name} {now} from seed {seed}  ");
            run(RandomScheduler::new_from_seed(seed, now.div_ceil(2)), scenario);
            run(PctScheduler::new_from_seed(seed, DEPTH, now / 2 + 1), scenario);
            (done, seed) = (done + now, seed + 1);
        }
        println!("\r{name}: {done} schedules, 0 findings, {:.1} s", began.elapsed().as_secs_f64());
    }
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario);
}

/// A store with a log, on a disk in memory, without a thread of its own.
fn store() -> Arc<Larder> {
    let options = small(&Arc::new(ManualClock::at(1_000_000)));
    Arc::new(FaultyDisk::holding(Default::default(), Plan::default()).open(options, true).expect("a store"))
}

fn join(threads: Vec<JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// Edits of three threads, each as durable as it is asked to be: every one is there, in a commit of its own.
fn edits() {
    let larder = store();
    let durability = [Durability::Synced, Durability::Lazy, Durability::Window { milliseconds: 5 }];
    join(
        (0..3_usize)
            .map(|thread| {
                let session = larder.session("ana").expect("a session").durability(durability[thread]);
                spawn(move || {
                    session.put("shared", thread.to_string()).expect("room");
                    session.put(format!("own/{thread}"), "leek").expect("room");
                    match thread {
                        0 => drop(session.delete("own/0").expect("there")),
                        _ => drop(
                            session
                                .tag(format!("own/{thread}"), ["soup"], Default::default())
                                .expect("there"),
                        ),
                    }
                    assert_eq!(session.exists(format!("own/{thread}")).expect("a store"), thread != 0);
                })
            })
            .collect(),
    );
    assert_eq!(larder.info().expect("a store").last_commit.sequence, 9);
    let root = larder.root().expect("a session");
    assert_eq!(root.record("shared").expect("there").generation(), 3);
    root.durability(Durability::Synced).put("last", "").expect("room");
    verified(&larder);
}

/// Closures that are one transaction, a closure that is alone, and an edit: none is lost, none done twice, and who fails fails
/// alone.
fn together() {
    let larder = store();
    let combiner = Arc::new(larder.session("ana").expect("a session").combiner());
    let mut threads: Vec<JoinHandle<()>> = (0..3_i64)
        .map(|thread| {
            let combiner = Arc::clone(&combiner);
            spawn(move || {
                let done = combiner.write(move |txn| {
                    let before = if txn.exists("count")? { txn.get("count")?.bytes()?.len() } else { 0 };
                    txn.put("count", "x".repeat(before + 1))?;
                    if thread == 2 { Err(larder::Error::abort("no")) } else { Ok(before) }
                });
                assert_eq!(done.is_ok(), thread != 2);
            })
        })
        .collect();
    let session = larder.session("ben").expect("a session");
    threads.push(spawn(move || {
        session.write(|txn| txn.put("alone", "1").map(drop)).expect("room");
        session.put("edit", "2").expect("room");
    }));
    join(threads);
    let root = larder.root().expect("a session");
    assert_eq!(root.get("count").expect("there").bytes().expect("read"), "xx");
    assert!(root.exists("alone").expect("a store") && root.exists("edit").expect("a store"));
}

/// Two keys that change together, read hot and in views: no reader sees one without the other, or goes back.
fn readers() {
    let larder = store();
    let writer = larder.session("ana").expect("a session");
    let put = move |number: u32| {
        let text = number.to_string();
        writer
            .write(|txn| txn.put("a", text.as_str()).and_then(|_| txn.put("b", text.as_str())))
            .expect("room");
    };
    put(0);
    let mut threads: Vec<JoinHandle<()>> = (0..2)
        .map(|thread| {
            let (session, larder) = (larder.session("ben").expect("a session"), Arc::clone(&larder));
            spawn(move || {
                let mut last = 0;
                for _ in 0..3 {
                    let number = |asset: larder::Asset| {
                        let bytes = asset.bytes().expect("read");
                        String::from_utf8_lossy(&bytes).parse::<u32>().expect("a number")
                    };
                    let now = if thread == 0 {
                        number(session.get("a").expect("there"))
                    } else {
                        let view = session.snapshot().expect("a view");
                        let (a, b) = (view.get("a").expect("there"), view.get("b").expect("there"));
                        let (a, b) = (number(a), number(b));
                        assert_eq!(a, b);
                        a
                    };
                    assert!(now >= last, "{now} after {last}");
                    last = now;
                    larder.upkeep(2_000_000).expect("a disk");
                }
            })
        })
        .collect();
    threads.push(spawn(move || (1..4).for_each(put)));
    join(threads);
}

/// T48. Who writes, reads, looks after the store, makes it smaller, removes a tree and takes a snapshot, all at once.
fn upkeep() {
    // In a file of its own: only that is made smaller.
    let folder = tempfile::tempdir().expect("a folder");
    let options = small(&Arc::new(ManualClock::at(1_000_000)));
    let larder = Arc::new(options.open(folder.path().join("a.larder")).expect("a store"));
    let writer = larder.session("ana").expect("a session");
    for number in 0..3 {
        writer.put(format!("old/{number}"), "leek").expect("room");
    }
    let session = || larder.session("ana").expect("a session");
    let (writes, removes, reads) = (session(), session(), session());
    let here = || Arc::clone(&larder);
    let (looks_after, takes_snapshot) = (here(), here());
    let makes_smaller = |larder: Arc<Larder>| {
        spawn(move || match larder.compact(None) {
            Err(error) if !matches!(error.kind(), ErrorKind::Busy { .. }) => panic!("{error}"),
            _ => {}
        })
    };
    join(vec![
        spawn(move || {
            for number in 0..3 {
                writes.put(format!("new/{number}"), "leek").expect("room");
            }
        }),
        spawn(move || assert_eq!(removes.delete_tree("old").expect("a store").value, 3)),
        spawn(move || {
            let view = reads.snapshot().expect("a view");
            let names = view.names("old").map_or(0, |names| names.len());
            assert!(names == 0 || names == 3, "{names}");
        }),
        spawn(move || {
            looks_after.upkeep(2_000_000).expect("a disk");
            looks_after.flush().expect("a disk");
        }),
        makes_smaller(here()),
        makes_smaller(here()),
        spawn(move || {
            takes_snapshot.snapshot_into(&mut Vec::new(), &SnapshotOptions::new()).expect("a snapshot");
        }),
    ]);
    verified(&larder);
}

/// Two who want the same claim, and one who calls it off: what who had it was told is stored is there.
fn fences() {
    let larder = store();
    let stored = Arc::new(AtomicU32::new(0));
    let mut threads: Vec<JoinHandle<()>> = (0..2_u32)
        .map(|thread| {
            let (session, stored) = (larder.session("ana").expect("a session"), Arc::clone(&stored));
            spawn(move || {
                let claim =
                    match session.claim("work").wait_max(Duration::ZERO).for_at_most(Duration::from_secs(60))
                    {
                        Ok(claim) => claim,
                        Err(error) if matches!(error.kind(), ErrorKind::Claimed { .. }) => return,
                        Err(error) => panic!("{error}"),
                    };
                if claim.put(thread.to_string()).expect("room").done().is_some() {
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let session = larder.session("ana").expect("a session");
    threads.push(spawn(move || drop(session.cancel("work").expect("a store"))));
    join(threads);
    let there = larder.root().expect("a session").record("work").map_or(0, |record| record.generation());
    assert!(there >= u64::from(stored.load(Ordering::Relaxed)));
}

/// Puts of three threads while somebody does something to the store or its disk; gives the disk, and which puts were
/// acknowledged. The others were refused as `is_refusal` knows it.
fn meanwhile(
    plan: Plan,
    length: usize,
    is_refusal: fn(&ErrorKind) -> bool,
    act: impl FnOnce(Larder, FaultyDisk, &parking_lot::Mutex<Vec<String>>) + Send + 'static,
) -> (FaultyDisk, Vec<String>) {
    let disk = FaultyDisk::holding(Default::default(), plan);
    let larder = disk.open(small(&Arc::new(ManualClock::at(1_000_000))), true).expect("a store");
    larder.root().expect("a session").put("before", Random::new(9).bytes(length)).expect("room");
    let acknowledged = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut threads: Vec<JoinHandle<()>> = (0..3_u64)
        .map(|thread| {
            let (session, acknowledged) =
                (larder.session("ana").expect("a session"), Arc::clone(&acknowledged));
            spawn(move || {
                for number in 0..2 {
                    let key = format!("own/{thread}/{number}");
                    match session.put(&*key, Random::new(2 * thread + number).bytes(length)) {
                        Ok(_) => acknowledged.lock().push(key),
                        Err(error) if is_refusal(error.kind()) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    let (same, known) = (disk.clone(), Arc::clone(&acknowledged));
    threads.push(spawn(move || act(larder, same, &known)));
    join(threads);
    let acknowledged = std::mem::take(&mut *acknowledged.lock());
    (disk, acknowledged)
}

/// Demands that everything that was acknowledged is in what a disk holds.
fn has_all(image: larder_tests::Image, acknowledged: &[String]) {
    let disk = FaultyDisk::holding(image, Plan::default());
    let larder = disk.open(small(&Arc::new(ManualClock::at(1_000_000))), true).expect("a store");
    let root = larder.root().expect("a session");
    acknowledged.iter().for_each(|key| assert!(root.exists(&**key).expect("a store"), "{key}"));
    verified(&larder);
}

/// Power that goes at any moment: what was acknowledged before is there, whatever the disk made of the rest.
fn crash() {
    let seed = thread_rng().r#gen();
    meanwhile(
        Plan::default(),
        4,
        |_| false,
        move |larder, disk, acknowledged| {
            let upkeep = spawn(move || {
                larder.upkeep(2_000_000).expect("a disk");
                larder.flush().expect("a disk");
            });
            let known = acknowledged.lock().clone();
            has_all(disk.torn(seed), &known);
            join(vec![upkeep]);
        },
    );
}

/// A store that is closed while others write: they are told so, and what they were told before is in the file.
fn closing() {
    let is_refusal = |kind: &ErrorKind| matches!(kind, ErrorKind::Closed);
    let (disk, acknowledged) =
        meanwhile(Plan::default(), 4, is_refusal, |larder, _, _| larder.close().expect("a disk"));
    has_all(disk.durable(), &acknowledged);
}

/// A store in a file that is closed while others write and make it smaller: the file alone is the store, and has all of it.
fn leaving() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.larder");
    let open = || small(&Arc::new(ManualClock::at(1_000_000))).open(&path).expect("a store");
    let larder = open();
    let session = larder.session("ana").expect("a session");
    let acknowledged = Arc::new(AtomicU32::new(0));
    let (closes, makes_smaller, stored) = (larder.clone(), larder, Arc::clone(&acknowledged));
    join(vec![
        spawn(move || {
            for number in 0..3 {
                match session.put(format!("own/{number}"), "leek") {
                    Ok(_) => drop(stored.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => assert!(matches!(error.kind(), ErrorKind::Closed), "{error}"),
                }
            }
        }),
        spawn(move || match makes_smaller.compact(None) {
            Err(error) if !matches!(error.kind(), ErrorKind::Closed) => panic!("{error}"),
            _ => {}
        }),
        spawn(move || closes.close().expect("a disk")),
    ]);
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 1, "files beside the store");
    let larder = open();
    let root = larder.root().expect("a session");
    for number in 0..acknowledged.load(Ordering::Relaxed) {
        assert!(root.exists(format!("own/{number}")).expect("a store"), "{number}");
    }
    verified(&larder);
}

/// A disk that syncs no more: everybody is told, nobody waits for ever, and what was acknowledged is on it.
fn failing() {
    let is_refusal = |kind: &ErrorKind| {
        use ErrorKind::{Closed, Io, OutcomeUnknown, Poisoned};
        matches!(kind, Closed | Io { .. } | OutcomeUnknown { .. } | Poisoned { .. })
    };
    let (disk, acknowledged) = meanwhile(Plan::default(), 4, is_refusal, |larder, disk, _| {
        let at = disk.calls(Call::Sync);
        disk.set_plan(Plan { fault: Some(Fault::once(Call::Sync, at).lasting()), ..Plan::default() });
        let _ = larder.flush();
        let _ = larder.close();
    });
    has_all(disk.durable(), &acknowledged);
}

/// Three who wait for one claim: each has it once, and never two at a time.
fn waiting() {
    let larder = store();
    let holders = Arc::new(AtomicU32::new(0));
    let threads = (0..3).map(|_| {
        let (session, holders) = (larder.session("ana").expect("a session"), Arc::clone(&holders));
        spawn(move || {
            let request = session.claim("work").wait_max(Duration::from_secs(60));
            let claim = request.for_at_most(Duration::from_secs(60)).expect("in time");
            assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
            session.put("other", "leek").expect("room");
            holders.fetch_sub(1, Ordering::Relaxed);
            assert!(claim.release().expect("a store"));
        })
    });
    join(threads.collect());
}

/// Two who put messages in and two who take them out, through one combiner: each is acknowledged once.
fn queue() {
    let larder = store();
    let queue = Queues::at("queues").and_then(|queues| queues.queue("jobs")).expect("a name");
    let root = larder.root().expect("a session");
    root.try_write(|txn| queue.create(txn, &QueueSettings::new())).expect("room");
    let combiner = Arc::new(larder.session("ana").expect("a session").combiner());
    let acknowledged = Arc::new(AtomicU32::new(0));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..2 {
        let (producer, from) = (Arc::clone(&combiner), queue.clone());
        threads.push(spawn(move || {
            let put = move |txn: &mut WriteTxn<'_>| from.enqueue(txn, Message::new("leek")).map(drop);
            producer.try_write(put).expect("room");
        }));
        let (consumer, to, count) = (Arc::clone(&combiner), queue.clone(), Arc::clone(&acknowledged));
        threads.push(spawn(move || {
            let from = to.clone();
            let taken = consumer.try_write(move |txn| from.dequeue(txn)).expect("a queue").value;
            if let Some(delivery) = taken {
                consumer.try_write(move |txn| to.ack(txn, delivery.token())).expect("in time");
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    join(threads);
    let stats = root.snapshot().map(|view| queue.stats(&view)).expect("a view").expect("a queue");
    let acknowledged = u64::from(acknowledged.load(Ordering::Relaxed));
    assert_eq!((stats.enqueued, stats.acked), (2, acknowledged));
    assert_eq!((stats.ready, stats.in_flight), (2 - acknowledged, 0));
}

/// Three who want the same value: it is computed once.
fn flight() {
    let larder = store();
    let computed = Arc::new(AtomicU32::new(0));
    let cache = Arc::new(Cache::at("cache").and_then(|cache| cache.namespace("soups")).expect("a name"));
    let threads = (0..3).map(|_| {
        let (session, computed) = (larder.session("ana").expect("a session"), Arc::clone(&computed));
        let cache = Arc::clone(&cache);
        spawn(move || {
            let parts = Parts::new().with("vegetable", "leek");
            let value = cache.get_or_compute(&session, &parts, &Remember::new(), || {
                computed.fetch_add(1, Ordering::Relaxed);
                session.put("on the way", "")?;
                Ok::<_, RememberError>("soup".into())
            });
            assert_eq!(value.expect("room").bytes().expect("read"), "soup");
        })
    });
    join(threads.collect());
    assert_eq!(computed.load(Ordering::Relaxed), 1);
}

/// A disk that takes half of what is put, and does not say how much room it has, and a removal, which may be refused there too:
/// who is refused is told why, and what is acknowledged is on the disk.
fn full() {
    let is_refusal = |kind: &ErrorKind| {
        use ErrorKind::{OutcomeUnknown, Poisoned, StoreFull};
        matches!(kind, StoreFull { .. } | OutcomeUnknown { .. } | Poisoned { .. })
    };
    let plan = Plan { capacity: Some(4 << 20), is_room_secret: true, ..Plan::default() };
    let (disk, acknowledged) = meanwhile(plan, 1_000_000, is_refusal, |larder, _, _| {
        let _ = larder.root().expect("a session").delete("before");
        let _ = larder.upkeep(2_000_000);
    });
    has_all(disk.durable(), &acknowledged);
}

/// Edits that wait for a time only: what is refused is not done, then or later, and what is not refused is.
fn patience() {
    let larder = store();
    let done = Arc::new(AtomicU32::new(0));
    let threads = (0..4_u32).map(|thread| {
        let session = larder.session("ana").expect("a session").wait_max(Duration::from_millis(1));
        let done = Arc::clone(&done);
        spawn(move || {
            let key = format!("own/{thread}");
            let put = || session.put(&*key, "leek").map(drop);
            let write = || session.write(|txn| txn.put(&*key, "leek").map(drop)).map(drop);
            match if thread == 3 { write() } else { put() } {
                Ok(()) => drop(done.fetch_or(1 << thread, Ordering::Relaxed)),
                Err(error) if matches!(error.kind(), ErrorKind::Busy { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        })
    });
    join(threads.collect());
    parking_lot::timeouts(0);
    let root = larder.root().expect("a session");
    root.put("last", "").expect("room");
    for thread in 0..4 {
        let is_done = done.load(Ordering::Relaxed) & 1 << thread != 0;
        assert_eq!(root.exists(format!("own/{thread}")).expect("a store"), is_done, "{thread}");
    }
    parking_lot::timeouts(PATIENCE);
}
