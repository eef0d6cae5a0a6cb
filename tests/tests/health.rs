//! How a store says that it is.

use std::sync::Arc;
use std::time::Duration;

use larder::{
    Clock, DocumentKind, Draft, Durability, Error, Figures, ManualClock, SnapshotOptions, Status, WriteTxn,
};
use larder_layers::queue::{QueueSettings, Queues};
use larder_layers::tasks::{TaskDraft, Tasks};
use larder_tests::{Call, Fault, FaultyDisk, Plan, Random, in_memory, still};

#[test]
fn s1_11_health_says_what_is_and_what_is_due() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = still().clock(Arc::clone(&clock) as Arc<dyn Clock>).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let health = larder.health();
    assert!(health.open && health.writable && !health.space.is_full && health.last_error.is_none());
    assert_eq!((health.rules_default, health.rules_version, health.last_commit), ("allow", 0, 0));
    let draft = Draft::from("x").status(Status::Ready).with(|annotation| annotation.expires(2_000_000));
    session.put("a", draft).unwrap();
    session.write(|txn| txn.claim("b", Duration::from_secs(5), None)).unwrap();
    larder.root().unwrap().set_document(DocumentKind::Rules, "default = \"allow\"\n").unwrap();
    clock.advance(10_000_000);
    let health = larder.health();
    assert_eq!((health.expiries_overdue, health.claims_overdue), (1, 1));
    assert_eq!((health.overdue_since, health.rules_version), (Some(2_000_000), 1));
    assert_eq!(health.space.payload_bytes, 1);
    larder.snapshot_into(&mut Vec::new(), &SnapshotOptions::new()).unwrap();
    assert_eq!(larder.health().commits_since_snapshot, Some(0));
    let other = larder.clone();
    larder.close().unwrap();
    assert!(!other.health().open && !other.health().writable);
}

#[test]
fn x_4_an_old_reader_is_seen_with_what_it_pins() {
    let disk = FaultyDisk::default();
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = disk.open(still().clock(Arc::clone(&clock) as Arc<dyn Clock>), true).unwrap();
    let session = larder.session("ana").unwrap().durability(Durability::Lazy);
    for number in 0..50 {
        session.put(format!("k/{number}"), Random::new(number).bytes(4_000)).unwrap();
    }
    larder.flush().unwrap();
    let reader = session.snapshot().unwrap();
    clock.advance(7_000_000);
    for round in 0..40u64 {
        for number in 0..50 {
            session.put(format!("k/{number}"), Random::new(round << 8 | number).bytes(4_000)).unwrap();
        }
    }
    larder.verify(&mut |_| {}).unwrap();
    let health = larder.health();
    assert_eq!((health.readers.open, health.readers.oldest_age), (1, Some(7_000_000)));
    assert!(health.readers.pinned_bytes_max > 1_000_000, "{:?}", health.readers);
    assert_eq!(reader.get("k/7").unwrap().bytes().unwrap(), Random::new(7).bytes(4_000));
    drop(reader);
    assert_eq!(larder.health().readers.pinned_bytes_max, 0);
}

#[test]
fn what_failed_is_said() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    session.put("a", "x").unwrap();
    disk.set_plan(Plan { fault: Some(Fault::once(Call::Sync, disk.syncs())), ..Plan::default() });
    assert!(session.put("b", "x").is_err());
    let health = larder.health();
    assert!(health.open && !health.writable);
    assert!(health.last_error.unwrap().contains("the disk says no"));
}

#[test]
fn s4_7_s1_11_layers_tell_how_they_are() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = still().clock(Arc::clone(&clock) as Arc<dyn Clock>).open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    let (queues, tasks) = (Queues::at("work/queues").unwrap(), Tasks::at("tasks").unwrap());
    queues.add_health(&larder);
    tasks.add_health(&larder);
    let figures = |layer: &str| larder.health().layers[layer].figures.clone();
    assert_eq!(figures("work/queues"), Figures::new(), "no queue yet");
    assert_eq!(figures("tasks")["pending"], 0);

    let queue = queues.queue("mail").unwrap();
    session
        .try_write(|txn| {
            queue.create(txn, &QueueSettings::new())?;
            for payload in ["one", "two", "three"] {
                let _ = queue.enqueue(txn, payload)?;
            }
            queue.dequeue(txn).map(drop)
        })
        .unwrap();
    session.try_write(|txn| tasks.create(txn, &[TaskDraft::new("a", "a", "a")]).map(drop)).unwrap();
    clock.advance(5_000_000);
    let mail = figures("work/queues");
    let told = ["ready", "delayed", "in_flight", "dead", "bytes", "age_us"]
        .map(|name| mail[&format!("mail/{name}")]);
    assert_eq!(told, [2, 0, 1, 0, 11, 5_000_000]);
    assert_eq!(figures("tasks")["pending"], 1);

    larder.add_health("broken", |_| Err::<Figures, _>("it has no figures"));
    assert_eq!(larder.health().layers["broken"].error.as_deref(), Some("it has no figures"));
    let text = serde_json::to_string(&larder.health()).unwrap();
    assert!(text.contains("\"mail/ready\":2"), "{text}");
    let other = larder.clone();
    drop(session);
    larder.close().unwrap();
    assert!(other.health().layers["tasks"].error.is_some());
}

/// S4-§2. How long operations take is noted by their names, each of a layer by the name that its session was given: how
/// many, how many failed, together, the longest, and a histogram that tells any part of them up to a fourth too much.
#[test]
fn s4_par_2_how_long_operations_took_is_told_by_their_names() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let larder = still().clock(Arc::clone(&clock) as Arc<dyn Clock>).open_in_memory().unwrap();
    assert!(larder.health().operations.is_empty());
    let ana = larder.session("ana").unwrap();
    let queue = Queues::at("queues").unwrap().queue("mail").unwrap();
    ana.try_write(|txn| queue.create(txn, &QueueSettings::new())).unwrap();
    let enqueuing = ana.clone().named("enqueue");
    for micros in 1..=1_000 {
        enqueuing
            .try_write(|txn: &mut WriteTxn<'_>| {
                clock.advance(micros);
                queue.enqueue(txn, "a letter")
            })
            .unwrap();
    }
    let refused: Result<_, Error> = enqueuing.write(|_| {
        clock.advance(70_000_000);
        Err::<(), _>(Error::abort("a whim"))
    });
    refused.unwrap_err();
    assert!(ana.get("nothing").is_err());

    let operations = larder.health().operations;
    let (enqueued, got, written) = (&operations["enqueue"], &operations["get"], &operations["write"]);
    assert_eq!((enqueued.count, enqueued.failed), (1_001, 1));
    assert_eq!((enqueued.micros, enqueued.micros_max), (500_500 + 70_000_000, 70_000_000));
    assert_eq!(enqueued.buckets.iter().map(|(_, count)| count).sum::<u64>(), 1_001);
    for (part, exactly) in [(0.001, 2), (0.1, 101), (0.5, 501), (0.9, 901), (0.99, 991)] {
        let told = enqueued.quantile(part);
        assert!((exactly..=exactly + exactly / 4).contains(&told), "{part}: {told} for {exactly}");
    }
    assert_eq!(enqueued.quantile(1.0), 70_000_000);
    assert_eq!((got.count, got.failed, got.micros_max, got.quantile(0.5)), (1, 1, 0, 0));
    assert_eq!((written.count, written.failed), (1, 0), "what has a name is not among the others");
    let json: serde_json::Value = serde_json::to_value(larder.health()).unwrap();
    assert_eq!(json["operations"]["enqueue"]["count"], 1_001);
}

#[test]
fn x_4_who_holds_a_piece_of_a_payload_is_a_reader() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let payload = Random::new(7).bytes(200_000);
    session.put("a", payload.clone()).unwrap();
    larder.upkeep(0).unwrap();
    let mut reader = session.open("a").unwrap();
    let pieces: Vec<_> = reader.pieces(10..150_000).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(pieces.len() > 1);
    drop(reader);
    assert_eq!(larder.health().readers.open, 1);
    session.put("a", "something else").unwrap();
    larder.upkeep(0).unwrap();
    assert!(pieces.concat() == payload[10..150_000]);
    drop(pieces);
    assert_eq!(larder.health().readers.open, 0);
}

/// Statistics of the cache count a read once, whichever way it goes.
#[test]
fn a_read_is_one_hit_or_one_miss() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    for number in 0..10 {
        ana.put(format!("a/{number}"), "soup").unwrap();
    }
    let counted = |read: &dyn Fn(usize)| {
        let before = larder.info().unwrap().cache;
        (0..10).for_each(read);
        let after = larder.info().unwrap().cache;
        (after.hits - before.hits, after.misses - before.misses)
    };
    let record = |number: usize| drop(ana.record(format!("a/{number}")).unwrap());
    assert_eq!(counted(&record), (0, 10));
    assert_eq!(counted(&record), (10, 0));
    assert_eq!(counted(&|number| drop(ana.get(format!("a/{number}")).unwrap())), (10, 0));
    assert_eq!(counted(&|number| drop(ana.record(format!("b/{number}")).unwrap_err())), (0, 10));
}
