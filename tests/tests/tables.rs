//! The scenarios that SimuleOs and OxideQ test themselves, by the names that they have there: in memory, on a file, and on what crashes
//! would have left, each with a full recount. Those that are not here are in `queue.rs`, `remember.rs` and `cache_rows.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::format::TupleError;
use larder::{
    CollectionDefinition, Draft, Edit, EventKind, Inserted, Larder, ManualClock, Outcome as Edited, Part,
    RowDraft, Session, Tuple, WriteTxn,
};
use larder_layers::queue::{
    Message, MessageState, Nack, Queue, QueueError, QueueSettings, Queues, RequeueAt, Requeued, Token,
};
use larder_layers::remember::{
    Cache, Computed, Load, Namespace, Outcome, Parts, Remember, RememberError, Remembered,
};
use larder_tests::{everywhere, kind_of, still, verified};

const SECOND: i64 = 1_000_000;

struct World {
    larder: Larder,
    clock: Arc<ManualClock>,
    ana: Session,
}

/// In memory, on a file, and on images of crashes.
fn on_all(scenario: impl Fn(&World)) {
    everywhere(
        |larder, clock| {
            let ana = larder.session("ana").unwrap();
            scenario(&World { larder: larder.clone(), clock: Arc::clone(clock), ana });
        },
        recount,
    );
}

/// Counts the messages of every queue and the values of every cache: there are as many as is maintained, none was lost, and
/// everything else adds up.
fn recount(larder: &Larder) {
    let view = larder.root().unwrap().snapshot().unwrap();
    for queue in queues().list(&view).unwrap() {
        let stats = queue.stats(&view).unwrap();
        let counted = MessageState::ALL.map(|state| queue.peek(&view, state, 10_000).unwrap().len() as u64);
        assert_eq!(counted, [stats.ready, stats.delayed, stats.in_flight, stats.dead], "{}", queue.name());
        assert_eq!(stats.enqueued, stats.acked + stats.purged + counted.iter().sum::<u64>(), "{stats:?}");
    }
    for namespace in Cache::at("cache").unwrap().list(&view).unwrap() {
        let values = view.walk(format!("cache/{}/values", namespace.name()).as_str()).unwrap();
        let lengths: Vec<u64> = values.map(|value| value.unwrap().1.payload().length()).collect();
        let total = namespace.total(&view).unwrap();
        assert_eq!((total.count, total.sum), (lengths.len() as u64, i128::from(lengths.iter().sum::<u64>())));
    }
    verified(larder);
}

fn queues() -> Queues {
    Queues::at("queues").unwrap()
}

impl World {
    fn queue(&self, settings: &QueueSettings) -> Queue {
        let queue = queues().queue("q").unwrap();
        self.ana.try_write(|txn| queue.create(txn, settings)).unwrap();
        queue
    }

    fn act<R>(&self, act: impl FnOnce(&mut WriteTxn<'_>) -> Result<R, QueueError>) -> Result<R, QueueError> {
        self.ana.try_write(act).map(|receipt| receipt.value)
    }

    fn put(&self, queue: &Queue, message: impl Into<Message>) -> u64 {
        self.act(|txn| queue.enqueue(txn, message)).unwrap().id()
    }

    /// The next message: its token, its bytes, and how often it was delivered.
    fn take(&self, queue: &Queue) -> Option<(Token, Vec<u8>, u32)> {
        let taken = self.act(|txn| queue.dequeue(txn)).unwrap()?;
        Some((taken.token(), taken.payload().to_vec(), taken.attempts))
    }

    /// Pending and in flight, as OxideQ's statistics tell them.
    fn counts(&self, queue: &Queue) -> (u64, u64) {
        recount(&self.larder);
        let stats = self.ana.read(|view| Ok(queue.stats(view))).unwrap().unwrap();
        (stats.ready, stats.in_flight)
    }

    fn cache(&self, name: &str) -> Namespace {
        Cache::at("cache").unwrap().namespace(name).unwrap()
    }

    fn entries(&self, cache: &Namespace) -> u64 {
        recount(&self.larder);
        cache.total(&self.ana.snapshot().unwrap()).unwrap().count
    }
}

fn new() -> QueueSettings {
    QueueSettings::new()
}

/// `api_tests`: "test_create_queue". What is not there takes nothing; what is created again is what it was.
#[test]
fn s4_1_1_test_create_queue() {
    on_all(|world| {
        let queue = queues().queue("q").unwrap();
        let refused = world.act(|txn| queue.enqueue(txn, "x"));
        assert!(matches!(refused, Err(QueueError::NoSuchQueue { .. })), "{refused:?}");
        assert!(world.act(|txn| queue.create(txn, &new())).unwrap());
        assert_eq!(world.counts(&queue), (0, 0));
        world.put(&queue, "x");
        assert!(!world.act(|txn| queue.create(txn, &new().messages_max(0))).unwrap());
        let view = world.ana.snapshot().unwrap();
        assert!(queues().list(&view).unwrap().iter().eq([&queue]));
        assert_eq!(queue.settings(&view).unwrap(), new());
        assert_eq!(world.counts(&queue), (1, 0));
    });
}

/// S4-1.1. Whoever creates a queue beside those who fill it wipes nothing.
#[test]
fn s4_1_1_a_queue_that_is_created_while_it_is_filled_is_not_wiped() {
    let larder = still().open_in_memory().unwrap();
    let (ana, queue) = (larder.session("ana").unwrap(), queues().queue("q").unwrap());
    let created = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let made = ana.try_write(|txn| queue.create(txn, &new())).unwrap().value;
                    created.fetch_add(u32::from(made), Ordering::Relaxed);
                    let _ = ana.try_write(|txn| queue.enqueue(txn, "x")).unwrap();
                }
            });
        }
    });
    assert_eq!(created.into_inner(), 1);
    assert_eq!(ana.read(|view| Ok(queue.stats(view))).unwrap().unwrap().ready, 800);
    recount(&larder);
}

/// `api_tests`: "test_enqueue_dequeue".
#[test]
fn s4_1_1_test_enqueue_dequeue() {
    on_all(|world| {
        let queue = world.queue(&new());
        assert_eq!(world.take(&queue), None);
        world.put(&queue, "leeks");
        world.put(&queue, "");
        assert_eq!(world.counts(&queue), (2, 0));
        let (first, bytes, attempts) = world.take(&queue).unwrap();
        assert_eq!((bytes, attempts), (b"leeks".to_vec(), 1));
        let (second, bytes, _) = world.take(&queue).unwrap();
        assert!(bytes.is_empty() && first != second);
        assert_eq!((world.take(&queue), world.counts(&queue)), (None, (0, 2)));
    });
}

/// `api_tests`: "test_create_task_with_extra_fields". Nobody looks into a payload: whatever is in it comes back, byte by byte, and
/// what it says of itself is not what the queue does.
#[test]
fn s4_1_1_test_create_task_with_extra_fields() {
    on_all(|world| {
        let queue = world.queue(&new());
        let text = "{ \"data\":\"x\",\t\"priority\": 9, \"delay\":60,\"id\":\"\u{e9}\u{0}\",\r\n \"extra\":{\"a\":[1,2.50,null]} } ";
        let id = world.put(&queue, Message::new(text).header("extra", "field").header("extra", "again"));
        world.put(&queue, "later");
        let taken = world.act(|txn| queue.dequeue(txn)).unwrap().unwrap();
        assert_eq!(taken.payload(), text.as_bytes());
        assert_eq!((taken.id, taken.priority, taken.attempts), (id, 0, 1));
        let header = |value: &str| ("extra".to_owned(), value.to_owned());
        assert_eq!(taken.headers, [header("field"), header("again")]);
        assert_eq!(world.counts(&queue), (1, 1));
    });
}

/// `api_tests`: "test_ack_workflow". What was acknowledged is gone, cannot be acknowledged again, and never comes back.
#[test]
fn s4_1_4_test_ack_workflow() {
    on_all(|world| {
        let queue = world.queue(&new());
        world.put(&queue, "x");
        let (token, ..) = world.take(&queue).unwrap();
        assert_eq!(world.counts(&queue), (0, 1));
        world.act(|txn| queue.ack(txn, token)).unwrap();
        let again = world.act(|txn| queue.ack(txn, token));
        assert!(matches!(&again, Err(QueueError::LeaseLost { tokens }) if *tokens == [token]), "{again:?}");
        world.clock.advance(3_600 * SECOND);
        assert_eq!(world.act(|txn| queue.sweep(txn, 10)).unwrap(), 0);
        assert_eq!((world.take(&queue), world.counts(&queue)), (None, (0, 0)));
    });
}

/// `api_tests`: "test_nack_workflow". What was given back is taken again before what came behind it, and says how often it was.
#[test]
fn s4_1_3_test_nack_workflow() {
    for place in [RequeueAt::Original, RequeueAt::Front] {
        on_all(|world| {
            let queue = world.queue(&new().requeue_at(place));
            world.put(&queue, "x");
            world.put(&queue, "y");
            let (token, ..) = world.take(&queue).unwrap();
            let nack = Nack::new().reason("too salty");
            assert_eq!(world.act(|txn| queue.nack(txn, token, &nack)).unwrap(), Requeued::Ready);
            assert_eq!(world.counts(&queue), (2, 0));
            let again = world.act(|txn| queue.nack(txn, token, &nack));
            assert!(matches!(again, Err(QueueError::LeaseLost { .. })), "{again:?}");
            let (token, bytes, attempts) = world.take(&queue).unwrap();
            assert_eq!((bytes, attempts), (b"x".to_vec(), 2));
            world.act(|txn| queue.ack(txn, token)).unwrap();
            assert_eq!(world.counts(&queue), (1, 0));
        });
    }
}

/// `api_tests`: "test_timeout_cleanup". With a second for each delivery, and a sweep that comes after 2.5: nothing is in flight, and
/// one is pending.
#[test]
fn s4_1_5_test_timeout_cleanup() {
    on_all(|world| {
        let queue = world.queue(&new().visibility(Duration::from_secs(1)));
        world.put(&queue, "x");
        let (token, ..) = world.take(&queue).unwrap();
        world.clock.advance(SECOND - 1);
        assert_eq!(world.act(|txn| queue.sweep(txn, 10)).unwrap(), 0);
        world.clock.advance(SECOND * 3 / 2 + 1);
        assert_eq!(world.counts(&queue), (0, 1), "nobody has come yet");
        assert_eq!(world.act(|txn| queue.sweep(txn, 10)).unwrap(), 1);
        assert_eq!(world.counts(&queue), (1, 0));
        let late = world.act(|txn| queue.ack(txn, token));
        assert!(matches!(late, Err(QueueError::LeaseLost { .. })), "{late:?}");
    });
}

/// `batch_tests`: "test_batch_json_workflow", "test_batch_msgpack_workflow", "test_single_binary_protocol". Of two items, in whatever
/// they are written, a consumer who asks for five gets two, byte by byte, and acknowledges them together.
#[test]
fn s4_1_4_test_batch_json_workflow_test_batch_msgpack_workflow_test_single_binary_protocol() {
    let binary: &[u8] = &[0, 159, 146, 150];
    let protocols: [(&str, [&[u8]; 2]); 3] = [
        ("json", [b"{\"id\":1}", b"{\"id\": 2, \"of\": [1, null]}"]),
        ("msgpack", [&[0x81, 0xA2, b'i', b'd', 1], &[0x92, 0xC0, 0xCB, 0x7F, 0xF8, 0, 0, 0, 0, 0, 0]]),
        ("binary", [binary, b""]),
    ];
    on_all(|world| {
        let queue = world.queue(&new());
        for (protocol, items) in protocols {
            let batch = items.map(|item| Message::new(item.to_vec()));
            let ids = world.act(|txn| queue.enqueue_all(txn, batch)).unwrap();
            assert_eq!((ids.len(), world.counts(&queue)), (2, (2, 0)), "{protocol}");
            let taken = world.act(|txn| queue.dequeue_up_to(txn, 5, None)).unwrap();
            let payloads: Vec<&[u8]> = taken.iter().map(|message| message.payload().as_ref()).collect();
            assert_eq!(payloads, items, "{protocol}");
            let tokens: Vec<Token> = taken.iter().map(larder_layers::queue::Envelope::token).collect();
            world.act(|txn| queue.ack_all(txn, &tokens)).unwrap();
            assert_eq!(world.counts(&queue), (0, 0), "{protocol}");
        }
        world.put(&queue, binary.to_vec());
        assert_eq!(world.take(&queue).unwrap().1, binary);
    });
}

fn value(text: impl Into<String>) -> Result<Computed, RememberError> {
    Ok(text.into().into())
}

fn said(found: &Remembered) -> (Outcome, String) {
    (found.outcome(), String::from_utf8(found.bytes().unwrap().to_vec()).unwrap())
}

fn of(number: i64) -> Parts {
    Parts::new().with("of", number)
}

fn how() -> Remember {
    Remember::new()
}

/// `worksession_tests`: "remember! supports explicit ctx_hash and validates inputs". Whoever loses a race is given what is stored; what
/// is asked for with another extra part is another entry; what has no label is refused, and nothing is computed.
#[test]
fn s3_1_remember_supports_explicit_ctx_hash_and_validates_inputs() {
    on_all(|world| {
        let cache = world.cache("power");
        let raced = cache
            .get_or_compute(&world.ana, &of(0), &how(), || {
                assert_eq!(said(&cache.store(&world.ana, &of(0), "111", &how())?).0, Outcome::Stored);
                value("222")
            })
            .unwrap();
        assert_eq!(said(&raced), (Outcome::RaceLost, "111".to_owned()));
        let ask = |ctx_extra: &str, of: i64, power: u32| {
            let parts = Parts::new().with("of", of).with("ctx_extra", ctx_extra);
            let made = cache.get_or_compute(&world.ana, &parts, &how(), || value(of.pow(power).to_string()));
            said(&made.unwrap())
        };
        for (extra, power, text) in [("square", 2, "9"), ("cube", 3, "27")] {
            assert_eq!(ask(extra, 3, power), (Outcome::Miss, text.to_owned()));
            assert_eq!(ask(extra, 3, 0), (Outcome::Hit, text.to_owned()));
        }
        assert_eq!(world.entries(&cache), 1 + 2);
        let (tuple, vector) = (vec!["a".into(), 1.into()], vec![1.into(), 2.into()]);
        let nested = vec![Part::List(vec!["a".into(), 1.into(), 2.into()])];
        for extra in [Part::List(tuple), Part::List(vector), Part::List(nested), 7.into(), "a".into()] {
            let refused = Parts::from_part(extra);
            assert!(matches!(refused, Err(RememberError::Parts(TupleError::UnlabelledPart))), "{refused:?}");
        }
        for bad in [of(1).with("of", 2), of(1).with("", 2), of(1).with("\t ", 2)] {
            let refused: Result<_, RememberError> =
                cache.get_or_compute(&world.ana, &bad, &how(), || panic!("it is computed"));
            assert!(matches!(refused, Err(RememberError::Parts(_))), "{bad:?}");
        }
        // No parts at all is one value of the namespace.
        assert_eq!(said(&cache.store(&world.ana, &Parts::new(), "all", &how()).unwrap()).0, Outcome::Stored);
        assert_eq!(world.entries(&cache), 4);
    });
}

/// "@simos cache.remember supports single/tuple targets and do-block"; `simos_macro_tests`: "cache.key", "cache.remember all forms". What
/// is computed for several slots at once is one value: all of them are there, or none.
#[test]
fn s3_4_cache_remember_supports_single_and_tuple_targets() {
    on_all(|world| {
        let calls = AtomicU32::new(0);
        let parts = Parts::new().with("seed", 7).with("steps", 3);
        for (target, slots) in [("slot:x", vec![49]), ("slots:a,b", vec![7, 343])] {
            let (cache, before) = (world.cache(target), calls.load(Ordering::Relaxed));
            let made = || {
                calls.fetch_add(1, Ordering::Relaxed);
                let slots: Vec<Part> = slots.iter().map(|slot| Part::from(*slot)).collect();
                Ok::<Computed, RememberError>(Tuple::encode(&slots).unwrap().into())
            };
            let read = |found: &Remembered| Tuple::decode(&found.bytes().unwrap()).unwrap().into_parts();
            let expected: Vec<Part> = slots.iter().map(|slot| Part::from(*slot)).collect();
            // Every form finds what another has stored.
            let first = cache.get_or_compute(&world.ana, &parts, &how(), made).unwrap();
            let again = cache.get_or_compute_with(&world.ana, &parts, &how(), |_| made()).unwrap();
            let Load::Hit(loaded) = cache.try_load(&world.ana, &parts, &how()).unwrap() else {
                panic!("it is there")
            };
            let got = cache.get(&world.ana, &parts).unwrap().unwrap();
            let stored = cache.store(&world.ana, &parts, "other", &how()).unwrap();
            let outcomes = [&first, &again, &loaded, &got, &stored].map(|found| {
                assert_eq!(read(found), expected, "{target}");
                found.outcome()
            });
            let (hit, there) = (Outcome::Hit, Outcome::AlreadyThere);
            assert_eq!(outcomes, [Outcome::Miss, hit, hit, hit, there], "{target}");
            assert_eq!((calls.load(Ordering::Relaxed) - before, world.entries(&cache)), (1, 1), "{target}");
            // The key is where it lies.
            let key = cache.fingerprint(&parts).unwrap().key().clone();
            assert_eq!(world.ana.get(&key).unwrap().bytes().unwrap(), got.bytes().unwrap(), "{target}");
            assert!(key.as_str().starts_with(&format!("cache/{target}/values/")), "{key}");
            assert_eq!(cache.entry(&world.ana, &parts).unwrap().unwrap().hits, 4, "{target}");
        }
    });
}

/// "@simos cache.remember extra-key kwargs expand correctly". The same extra parts are the same key, whatever they are given by, and in
/// whatever order; one more, one less, or one of another type is another.
#[test]
fn s3_2_cache_remember_extra_key_kwargs_expand_correctly() {
    on_all(|world| {
        let cache = world.cache("slot:x");
        let pair = |name: &str, part: Part| Part::List(vec![name.into(), part]);
        let listed = vec![pair("n", 3.into()), pair("mode", "fast".into()), pair("deep", true.into())];
        let same = [
            Parts::new().with("mode", "fast").with("n", 3).with("deep", true),
            Parts::new().with("deep", true).with("n", 3_i64).with("mode", "fast".to_owned()),
            Parts::from_part(Part::List(listed)).unwrap(),
        ];
        let calls = AtomicU32::new(0);
        for parts in &same {
            let made = cache.get_or_compute(&world.ana, parts, &how(), || {
                calls.fetch_add(1, Ordering::Relaxed);
                value("x")
            });
            assert_eq!(said(&made.unwrap()).1, "x");
        }
        assert_eq!((calls.into_inner(), world.entries(&cache)), (1, 1));
        let others = [
            Parts::new().with("mode", "fast").with("n", 3),
            Parts::new().with("mode", "fast").with("n", 3).with("deep", true).with("wide", true),
            Parts::new().with("mode", "fast").with("n", "3").with("deep", true),
            Parts::new().with("mode", "fast").with("n", 3).with("deep", "true"),
            Parts::new().with("Mode", "fast").with("n", 3).with("deep", true),
        ];
        let key = |parts: &Parts| cache.fingerprint(parts).unwrap().key().to_string();
        let keys: BTreeSet<String> = others.iter().chain(&same).map(key).collect();
        assert_eq!(keys.len(), 1 + others.len());
    });
}

/// `query_tests`: "BlobStorage", "BlobStorage SimOs wrappers". What is there is not written over unless it is said so; then it has
/// replaced something, there are two records of it, and a missing record is made up for once.
#[test]
fn s3_1_d_blob_storage() {
    on_all(|world| {
        let put = |text: &'static str| Edit::put("blobs/a", text);
        let records = || {
            let events = world.ana.feed_since(0, 1_000).unwrap();
            events.iter().filter(|event| event.place == "blobs/a" && event.kind == EventKind::Put).count()
        };
        assert_eq!(kind_of(world.ana.get("blobs/a")), "NotFound");
        let Edited::Created(stored) = world.ana.apply(put("one").if_absent()).unwrap().value else {
            panic!("it was not there")
        };
        assert_eq!((stored.previous, stored.generation, records()), (None, 1, 1));
        let Edited::Refused(refusal) = world.ana.apply(put("two").if_absent()).unwrap().value else {
            panic!("it was there")
        };
        assert_eq!((refusal.actual.unwrap().generation, records()), (1, 1));
        assert_eq!(world.ana.get("blobs/a").unwrap().bytes().unwrap(), "one");
        let replaced = world.ana.put("blobs/a", "two").unwrap().value;
        assert_eq!((replaced.previous, replaced.generation, records()), (Some(1), 2, 2));
        assert_eq!(world.ana.get("blobs/a").unwrap().bytes().unwrap(), "two");

        // Records of blobs that were written by somebody who keeps none: one is appended, then none, and one is skipped.
        world.ana.write(|txn| txn.define_collection("tape", &CollectionDefinition::new())).unwrap();
        let backfill = || {
            let blobs: Vec<_> =
                world.ana.snapshot().unwrap().walk("blobs").unwrap().map(|found| found.unwrap()).collect();
            let filled = world.ana.write(|txn| {
                let (mut appended, mut skipped) = (0, 0);
                for (key, record) in blobs.iter().filter(|(_, record)| record.has_payload()) {
                    let row = RowDraft::default().field("bytes", record.payload().length());
                    match txn.collection("tape")?.insert(key.as_str(), row)? {
                        Inserted::First => appended += 1,
                        Inserted::Existing(_) => skipped += 1,
                    }
                }
                Ok((appended, skipped))
            });
            filled.unwrap().value
        };
        let commit = || world.larder.info().unwrap().last_commit.sequence;
        assert_eq!(backfill(), (1, 0));
        let before = commit();
        assert_eq!((backfill(), commit()), ((0, 1), before), "nothing to do is no commit");
        let tape = world.ana.read(|view| view.collection("tape")?.total()).unwrap();
        assert_eq!(tape.count, 1);
    });
}

/// `settings_tests`: "settings effective cache is lazy, versioned, and negatively caches misses". The settings that hold are made when
/// they are asked for, once for each version, and that there is none is known as well as what there is.
#[test]
fn s3_1_settings_effective_cache_is_lazy_versioned_and_negatively_caches_misses() {
    on_all(|world| {
        let cache = world.cache("settings");
        let calls = AtomicU32::new(0);
        let set = |text: &str| world.ana.put("settings", text.to_owned()).unwrap().value.generation;
        let effective = |name: &str, version: u64| {
            let parts = Parts::new().with("name", name).with("version", version);
            cache.get_or_compute(&world.ana, &parts, &how(), || {
                calls.fetch_add(1, Ordering::Relaxed);
                let text = world.ana.get("settings").unwrap().bytes()?;
                let text = String::from_utf8(text.to_vec()).unwrap();
                let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
                let made =
                    |found: &str| Draft::from(found.to_owned()).with(|about| about.depends_on("settings"));
                Ok::<Computed, RememberError>(found.map_or(Computed::Nothing, |found| made(found).into()))
            })
        };
        let asked = |name: &str, version: u64, outcome: Outcome, expected: Option<&str>| {
            let found = effective(name, version).unwrap();
            let text = (!found.is_nothing()).then(|| said(&found).1);
            assert_eq!((found.outcome(), text.as_deref()), (outcome, expected), "{name} of {version}");
        };
        let first = set("theme=dark\nsize=3");
        assert_eq!((calls.load(Ordering::Relaxed), world.entries(&cache)), (0, 0), "nobody has asked");
        for outcome in [Outcome::Miss, Outcome::Hit, Outcome::Hit] {
            asked("theme", first, outcome, Some("dark"));
            asked("font", first, outcome, None);
        }
        assert_eq!((calls.load(Ordering::Relaxed), world.entries(&cache)), (2, 2));
        let second = set("theme=light\nfont=serif");
        for outcome in [Outcome::Miss, Outcome::Hit] {
            asked("theme", second, outcome, Some("light"));
            asked("font", second, outcome, Some("serif"));
            asked("size", second, outcome, None);
        }
        assert_eq!((calls.load(Ordering::Relaxed), world.entries(&cache)), (5, 5));
        // What was made from the settings of before is not given any more; of former versions nothing need be kept.
        let theme = Parts::new().with("name", "theme").with("version", first);
        assert!(cache.get(&world.ana, &theme).unwrap().is_none());
        let forgotten = world.ana.try_write(|txn| cache.invalidate_part(txn, "version", first)).unwrap();
        assert_eq!((forgotten.value, world.entries(&cache)), (2, 3));
    });
}
