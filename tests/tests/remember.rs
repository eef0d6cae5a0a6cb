//! The cache of computations: what SimuleOs asks for, each with a full recount.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use larder::{
    AbsentReason, AccessDecision, AccessRequest, AggregateDefinition, Annotation, Authorizer, Clock,
    CollectionDefinition, DocumentKind, Draft, ErrorKind, IndexDefinition, Larder, ManualClock, Part,
    PayloadState, Right, Session, TagPolicy, WriteTxn,
};
use larder_layers::queue::{QueueSettings, Queues};
use larder_layers::remember::{
    Cache, CacheLimits, Computed, Eviction, Load, Namespace, Outcome, Parts, Remember, RememberError,
    Remembered,
};
use larder_tests::{Random, everywhere, still, verified};

const SECOND: i64 = 1_000_000;

struct World {
    larder: Larder,
    clock: Arc<ManualClock>,
    ana: Session,
    cache: Namespace,
}

impl World {
    fn new(larder: &Larder, clock: &Arc<ManualClock>) -> Self {
        let (larder, clock, ana) = (larder.clone(), Arc::clone(clock), larder.session("ana").unwrap());
        World { larder, clock, ana, cache: Cache::at("cache").unwrap().namespace("square").unwrap() }
    }
}

fn world() -> World {
    let clock = Arc::new(ManualClock::at(SECOND));
    World::new(&still().clock(clock.clone()).open_in_memory().unwrap(), &clock)
}

/// In memory, on a file, and on images of crashes: wherever it ends, there are as many values as entries, of the same bytes.
fn on_all(scenario: impl Fn(&World)) {
    everywhere(
        |larder, clock| scenario(&World::new(larder, clock)),
        |larder| {
            let clock = Arc::new(ManualClock::at(SECOND));
            World::new(larder, &clock).total();
        },
    );
}

fn of(number: i64) -> Parts {
    Parts::new().with("of", number)
}

fn how() -> Remember {
    Remember::new()
}

fn value(text: &'static str) -> Result<Computed, RememberError> {
    Ok(text.into())
}

fn text(found: &Remembered) -> String {
    String::from_utf8(found.bytes().unwrap().to_vec()).unwrap()
}

impl World {
    fn remember(&self, parts: &Parts, text: &'static str) -> Remembered {
        self.cache.get_or_compute(&self.ana, parts, &how(), || value(text)).unwrap()
    }

    fn store(&self, parts: &Parts, text: &'static str, how: &Remember) -> Remembered {
        self.cache.store(&self.ana, parts, text, how).unwrap()
    }

    fn hits(&self, parts: &Parts) -> i64 {
        self.cache.entry(&self.ana, parts).unwrap().unwrap().hits
    }

    fn limit(&self, limits: CacheLimits) {
        self.ana.try_write(|txn| self.cache.set_limits(txn, &limits)).unwrap();
    }

    /// What is there, by what is maintained, which a recount agrees with: as many values as entries.
    fn total(&self) -> (u64, i128) {
        let view = self.larder.root().unwrap().snapshot().unwrap();
        let total = self.cache.total(&view).unwrap();
        let values = view.walk("cache/square/values").unwrap().map(|value| value.unwrap().1.payload());
        // A mark of what went, for those behind it, is no value.
        let values = values.filter(|payload| !matches!(payload, PayloadState::Absent(_)));
        let lengths: Vec<u64> = values.map(|payload| payload.length()).collect();
        assert_eq!((total.count, total.sum), (lengths.len() as u64, i128::from(lengths.iter().sum::<u64>())));
        verified(&self.larder);
        (total.count, total.sum)
    }

    fn is_there(&self, parts: &Parts) -> bool {
        self.ana.exists(self.cache.fingerprint(parts).unwrap().key()).unwrap()
    }
}

/// `worksession_tests`: "remember! reuses blob-backed values by named ctx hash".
#[test]
fn s3_1_remember_reuses_values_by_named_parts_and_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.larder");
    let calls = AtomicU32::new(0);
    let ask = || {
        let larder = still().open(&path).unwrap();
        let ana = larder.session("ana").unwrap();
        let cache = Cache::at("cache").unwrap().namespace("slot:x").unwrap();
        let found = cache
            .get_or_compute(&ana, &of(12), &how(), || {
                calls.fetch_add(1, Ordering::Relaxed);
                value("144")
            })
            .unwrap();
        let outcome = (found.outcome(), text(&found));
        cache.write_uses(&ana).unwrap();
        let hits = cache.entry(&ana, &of(12)).unwrap().unwrap().hits;
        assert_eq!(cache.total(&ana.snapshot().unwrap()).unwrap().count, 1);
        verified(&larder);
        larder.close().unwrap();
        (outcome, hits)
    };
    assert_eq!(ask(), ((Outcome::Miss, "144".to_owned()), 0));
    assert_eq!(ask(), ((Outcome::Hit, "144".to_owned()), 1));
    assert_eq!(ask(), ((Outcome::Hit, "144".to_owned()), 2));
    assert_eq!(calls.into_inner(), 1);
}

/// Allows everything, and tells when somebody called ben looks for a value.
struct Watched(Mutex<mpsc::Sender<()>>);

impl Authorizer for Watched {
    fn decide(&self, request: &AccessRequest<'_>) -> AccessDecision {
        if request.principal.name() == "ben"
            && request.right == Right::READ
            && request.place.contains("/values/")
        {
            let _ = self.0.lock().unwrap().send(());
        }
        AccessDecision { allowed: true, by: "everybody".to_owned() }
    }
}

/// What was found before, and what becomes of it until the value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Hit,
    Miss,
    Race,
    AlreadyExists,
    Stale,
    Partial,
}

/// S3-4. The parity matrix: whatever is found, who asks in one go and who asks in two steps are given the same, and leave the same
/// behind. Stale is what is past its time; partial, what has lost its payload.
#[test]
fn s3_4_one_shot_and_two_steps_do_the_same() {
    type Ask = fn(&World, &Session, &dyn Fn()) -> Remembered;
    fn own() -> Remember {
        how().tag("own").lease(Duration::from_secs(1))
    }
    let one_shot: Ask = |world, session, meanwhile| {
        let asked = world.cache.get_or_compute(session, &of(1), &own(), || {
            meanwhile();
            value("own")
        });
        asked.unwrap()
    };
    let two_steps: Ask =
        |world, session, meanwhile| match world.cache.try_load(session, &of(1), &own()).unwrap() {
            Load::Hit(found) => found,
            Load::Busy { by, .. } => panic!("{by} computes it"),
            Load::Compute(computation) => {
                meanwhile();
                computation.store(session, "own", &own()).unwrap()
            }
        };
    let cell = |found: Found, ask: Ask| {
        let clock = Arc::new(ManualClock::at(SECOND));
        let (tell, told) = mpsc::channel();
        let options = still().clock(clock.clone()).authorizer(Arc::new(Watched(Mutex::new(tell))));
        let world = World::new(&options.open_in_memory().unwrap(), &clock);
        let key = world.cache.fingerprint(&of(1)).unwrap().key().clone();
        let other = || drop(world.store(&of(1), "other", &how().tag("first")));
        match found {
            Found::Hit | Found::Partial => other(),
            Found::Stale => {
                world.store(&of(1), "other", &how().tag("first").expires_after(Duration::from_secs(5)));
                clock.advance(5 * SECOND);
            }
            _ => {}
        }
        if found == Found::Partial {
            let parts = world.cache.fingerprint(&of(1)).unwrap().parts().to_vec();
            let lost = Draft::absent(AbsentReason::Evicted).with(|about| about.extra(parts));
            world.ana.put(&key, lost).unwrap();
        }
        let ben = world.larder.session("ben").unwrap();
        let given = if found == Found::AlreadyExists {
            // He has looked, and found nothing, when somebody stores it before he can claim it.
            std::thread::scope(|scope| {
                let asking = world.ana.try_write(|txn| {
                    let asking = scope.spawn(|| ask(&world, &ben, &|| panic!("he computes it")));
                    // He is asked for his rights before what is in memory, and before what is in the store.
                    for _ in 0..2 {
                        told.recv_timeout(Duration::from_secs(60)).expect("that he looks");
                    }
                    world.cache.store_in(txn, &of(1), "other", &how().tag("first")).map(|_| asking)
                });
                asking.unwrap().value.join().unwrap()
            })
        } else {
            ask(&world, &ben, &|| {
                if found == Found::Race {
                    other()
                }
            })
        };
        let record = world.ana.record(&key).unwrap();
        let tags: Vec<String> = record.tags().map(str::to_owned).collect();
        let claims = world.larder.root().unwrap().read(|view| view.claims("")).unwrap().len();
        assert_eq!((world.total().0, claims), (1, 0), "{found:?}");
        assert_eq!(text(&given), text(&world.cache.get(&world.ana, &of(1)).unwrap().unwrap()), "{found:?}");
        // One of the hits is the one just above.
        (given.outcome(), text(&given), world.hits(&of(1)) - 1, tags, record.generation())
    };
    for (found, outcome, given, hits, tags, generation) in [
        (Found::Hit, Outcome::Hit, "other", 1, &["first", "own"][..], 2),
        (Found::Miss, Outcome::Miss, "own", 0, &["own"], 1),
        (Found::Race, Outcome::RaceLost, "other", 1, &["first", "own"], 2),
        (Found::AlreadyExists, Outcome::AlreadyThere, "other", 1, &["first", "own"], 2),
        (Found::Stale, Outcome::Miss, "own", 0, &["first", "own"], 2),
        (Found::Partial, Outcome::Miss, "own", 0, &["first", "own"], 3),
    ] {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let expected = (outcome, given.to_owned(), hits, tags, generation);
        assert_eq!(cell(found, one_shot), expected, "{found:?}, in one go");
        assert_eq!(cell(found, two_steps), expected, "{found:?}, in two steps");
    }
}

/// S3-4. A value that is stored where one is there already is the same use of that one, whoever makes the transaction.
#[test]
fn s3_4_what_is_there_already_is_used_whoever_makes_the_transaction() {
    on_all(|world| {
        let first = world.store(&of(1), "first", &how());
        assert_eq!((first.outcome(), world.hits(&of(1))), (Outcome::Stored, 0));
        let seen = |given: Remembered| (given.outcome(), text(&given));
        let there = (Outcome::AlreadyThere, "first".to_owned());
        world.clock.advance(5);
        assert_eq!(seen(world.store(&of(1), "second", &how())), there);
        let last_used = || {
            let entry = world.cache.entry(&world.ana, &of(1)).unwrap().unwrap();
            (entry.hits, entry.last_used)
        };
        assert_eq!(last_used(), (1, SECOND + 5));
        world.clock.advance(5);
        let stored = world.ana.try_write(|txn| world.cache.store_in(txn, &of(1), "third", &how()));
        assert_eq!(seen(stored.unwrap().value), there);
        assert_eq!(last_used(), (2, SECOND + 10));
        let tagged = how().tag("kept");
        let stored = world.ana.try_write(|txn| world.cache.store_in(txn, &of(1), "fourth", &tagged));
        assert_eq!((seen(stored.unwrap().value), world.hits(&of(1))), (there, 3));
        // What comes to nothing is no use.
        let failed: Result<_, RememberError> = world.ana.try_write(|txn| {
            world.cache.store_in(txn, &of(1), "fifth", &how())?;
            Err::<(), _>(RememberError::Store(larder::Error::abort("on second thoughts")))
        });
        assert!(failed.is_err() && world.hits(&of(1)) == 3);
    });
}

#[test]
fn s3_1_x_7_of_16_who_ask_at_the_same_time_one_computes() {
    let larder = still().open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let cache = Cache::at("cache").unwrap().namespace("n").unwrap();
    for round in 0..1_000 {
        let calls = AtomicU32::new(0);
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let found = cache.get_or_compute(&ana, &of(round), &how(), || {
                            calls.fetch_add(1, Ordering::Relaxed);
                            value("once")
                        });
                        found.unwrap().outcome()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(calls.into_inner(), 1, "round {round}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Miss).count(), 1);
        assert_eq!(cache.entry(&ana, &of(round)).unwrap().unwrap().hits, 15);
    }
    verified(&larder);
}

#[test]
fn s3_2_the_same_parts_are_the_same_however_they_are_given() {
    on_all(|world| {
        let fingerprint = |parts: &Parts| world.cache.fingerprint(parts).unwrap();
        let one = Parts::new().with("b", 2).with("a", 1);
        let other = Parts::new().with("a", 1).with("b", 2);
        assert_eq!(fingerprint(&one), fingerprint(&other));
        let pair = |name: &str, value: i64| Part::List(vec![name.into(), value.into()]);
        let listed = Parts::from_part(Part::List(vec![pair("b", 2), pair("a", 1)])).unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&listed));
        let typed: Vec<_> = [Part::from(1), "1".into(), 1.0.into(), true.into(), Part::Symbol("1".into())]
            .into_iter()
            .map(|part| fingerprint(&Parts::new().with("a", part)))
            .collect();
        for (at, one) in typed.iter().enumerate() {
            assert!(typed[at + 1..].iter().all(|other| one != other));
        }
        for unlabelled in
            [Part::from(1), Part::List(vec![1.into(), 2.into()]), Part::List(vec![pair("a", 1), 2.into()])]
        {
            assert!(matches!(Parts::from_part(unlabelled), Err(RememberError::Parts(_))));
        }
        for bad in [
            Parts::new().with("a", 1).with("a", 2),
            Parts::new().with(" ", 1),
            Parts::new().with("a", f64::NAN),
        ] {
            assert!(matches!(world.cache.fingerprint(&bad), Err(RememberError::Parts(_))));
        }
        let cache = Cache::at("cache").unwrap();
        for name in ["", "  ", "a/b", ".", ".."] {
            assert!(matches!(cache.namespace(name), Err(RememberError::InvalidName { .. })), "{name:?}");
        }
        // As they are on disk, for as long as there are files.
        let bytes: String = fingerprint(&one).parts().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, "90905861003901009058620039020000");
    });
}

#[test]
fn s3_2_parts_with_the_same_fingerprint_are_two_entries() {
    on_all(|world| {
        let cache = Cache::at("cache").unwrap().fingerprint_with(|_| 7).namespace("square").unwrap();
        let ask = |number: i64, text: &'static str| {
            let found = cache.get_or_compute(&world.ana, &of(number), &how(), || value(text)).unwrap();
            (found.outcome(), self::text(&found))
        };
        assert_eq!(ask(1, "one"), (Outcome::Miss, "one".into()));
        assert_eq!(ask(2, "two"), (Outcome::Miss, "two".into()));
        assert_eq!(ask(1, "x"), (Outcome::Hit, "one".into()));
        assert_eq!(ask(2, "x"), (Outcome::Hit, "two".into()));
        for (number, expected) in [(1, "one"), (2, "two")] {
            assert_eq!(text(&cache.get(&world.ana, &of(number)).unwrap().unwrap()), expected);
        }
        assert!(cache.get(&world.ana, &of(3)).unwrap().is_none());
        assert!(world.ana.try_write(|txn| cache.invalidate(txn, &of(1))).unwrap().value);
        assert_eq!(ask(2, "x"), (Outcome::Hit, "two".into()), "found past what is gone");
        assert_eq!(ask(1, "again"), (Outcome::Miss, "again".into()));
        assert_eq!(ask(3, "three"), (Outcome::Miss, "three".into()));
        verified(&world.larder);
    });
}

#[test]
fn s3_3_tags_are_united_replaced_or_kept_and_never_dropped_without_a_word() {
    on_all(|world| {
        let tagged = |tags: &[&str], policy: TagPolicy| {
            let how = tags.iter().fold(how(), |how, tag| how.tag(*tag)).tag_policy(policy);
            let found = world.cache.get_or_compute(&world.ana, &of(1), &how, || value("v"))?;
            let tags: Vec<String> = found.asset().record().tags().map(str::to_owned).collect();
            Ok::<_, RememberError>((tags, found.tags_ignored().to_vec()))
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(tagged(&["a", "b"], TagPolicy::Union).unwrap().0, ["a", "b"]);
        assert_eq!(
            tagged(&["b", "c"], TagPolicy::Union).unwrap(),
            (vec!["a".into(), "b".into(), "c".into()], none.clone())
        );
        assert_eq!(
            tagged(&["b", "c"], TagPolicy::Replace).unwrap(),
            (vec!["b".into(), "c".into()], none.clone())
        );
        assert_eq!(
            tagged(&["d"], TagPolicy::Keep).unwrap(),
            (vec!["b".into(), "c".into()], vec!["d".into()])
        );
        // Being used leaves them as they are.
        assert_eq!(tagged(&[], TagPolicy::Union).unwrap(), (vec!["b".into(), "c".into()], none));
        assert_eq!(world.hits(&of(1)), 4);
        let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(tagged(&many[..64], TagPolicy::Replace).is_ok());
        let refused = tagged(&many, TagPolicy::Replace);
        assert!(matches!(&refused, Err(RememberError::Store(error)) if error.code() == 403), "{refused:?}");
        // Gone with the value.
        assert_eq!(world.ana.try_write(|txn| world.cache.invalidate_tag(txn, "7")).unwrap().value, 1);
        assert_eq!(world.total(), (0, 0));
        assert_eq!(verified(&world.larder).tags, 0);
    });
}

#[test]
fn s3_3_uses_are_counted_without_a_commit_each() {
    on_all(|world| {
        let _ = world.remember(&of(1), "v");
        let commits = world.larder.info().unwrap().last_commit.sequence;
        for _ in 0..500 {
            world.clock.advance(10);
            assert!(world.cache.get(&world.ana, &of(1)).unwrap().is_some());
        }
        assert_eq!(world.larder.info().unwrap().last_commit.sequence, commits);
        let entry = world.cache.entry(&world.ana, &of(1)).unwrap().unwrap();
        assert_eq!((entry.hits, entry.last_used), (500, SECOND + 5_000));
        world.cache.write_uses(&world.ana).unwrap();
        assert_eq!(world.larder.info().unwrap().last_commit.sequence, commits + 1);
        assert_eq!(world.hits(&of(1)), 500);
    });
}

#[test]
fn a_computation_that_fails_panics_or_never_returns_leaves_the_value_to_others() {
    on_all(|world| {
        let failed = world.cache.get_or_compute(&world.ana, &of(1), &how(), || {
            Err(RememberError::Store(larder::Error::abort("out of leeks")))
        });
        assert!(matches!(failed, Err(RememberError::Store(_))));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.cache.get_or_compute(&world.ana, &of(1), &how(), || -> Result<Computed, RememberError> {
                panic!("burnt")
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(world.remember(&of(1), "v").outcome(), Outcome::Miss);
        // One that never returns is taken over when its time is over, and what it comes with later is dropped.
        let patient = how().lease(Duration::from_secs(10)).wait_max(Duration::ZERO);
        let Load::Compute(slow) = world.cache.try_load(&world.ana, &of(2), &patient).unwrap() else {
            panic!("free")
        };
        let busy = world.cache.try_load(&world.ana, &of(2), &patient).unwrap();
        assert!(matches!(busy, Load::Busy { ref by, for_ms: 10_000 } if by == "ana"), "{busy:?}");
        let busy = world.cache.get_or_compute(&world.ana, &of(2), &patient, || value("x"));
        assert!(matches!(&busy, Err(RememberError::Store(error)) if error.code() == 606), "{busy:?}");
        world.clock.advance(5 * SECOND);
        assert!(slow.heartbeat(Duration::from_secs(10)).unwrap());
        world.clock.advance(10 * SECOND);
        let taken_over = world.cache.get_or_compute(&world.ana, &of(2), &patient, || value("fast")).unwrap();
        assert_eq!(taken_over.outcome(), Outcome::Miss);
        assert!(!slow.heartbeat(Duration::from_secs(10)).unwrap());
        let late = slow.store(&world.ana, "slow", &patient).unwrap();
        assert_eq!((late.outcome(), text(&late)), (Outcome::RaceLost, "fast".to_owned()));
        // Past its time, with nobody who took over, it is stored: also where a sweep has revoked the claim.
        let Load::Compute(slow) = world.cache.try_load(&world.ana, &of(4), &patient).unwrap() else {
            panic!("free")
        };
        world.clock.advance(11 * SECOND);
        let _ = world.larder.sweep(10).unwrap();
        assert!(!slow.heartbeat(Duration::from_secs(10)).unwrap());
        assert_eq!(slow.store(&world.ana, "late", &patient).unwrap().outcome(), Outcome::Miss);
        // Also while the one who took over is still at it: then there is nothing to give.
        let Load::Compute(slow) = world.cache.try_load(&world.ana, &of(3), &patient).unwrap() else {
            panic!("free")
        };
        world.clock.advance(10 * SECOND);
        let Load::Compute(next) = world.cache.try_load(&world.ana, &of(3), &patient).unwrap() else {
            panic!("free")
        };
        let late = slow.store(&world.ana, "slow", &patient);
        assert!(matches!(&late, Err(RememberError::Store(error)) if error.code() == 606), "{late:?}");
        let stored = next.store(&world.ana, "next", &patient).unwrap();
        assert_eq!((stored.outcome(), text(&stored)), (Outcome::Miss, "next".to_owned()));
        assert_eq!(world.total().0, 4);
    });
}

/// What a cache forgets while it is computed was perhaps made from what is not so any more.
#[test]
fn s3_4_what_is_forgotten_while_it_is_computed_is_not_kept() {
    type Forget = fn(&Namespace, &mut WriteTxn<'_>) -> Result<u64, RememberError>;
    let ways: [(&str, Forget, Outcome); 7] = [
        ("its parts", |cache, txn| cache.invalidate(txn, &of(1)).map(u64::from), Outcome::Forgotten),
        ("its tag", |cache, txn| cache.invalidate_tag(txn, "fresh"), Outcome::Forgotten),
        ("its part", |cache, txn| cache.invalidate_part(txn, "of", 1), Outcome::Forgotten),
        ("everything", Namespace::clear, Outcome::Forgotten),
        ("other parts", |cache, txn| cache.invalidate(txn, &of(2)).map(u64::from), Outcome::Miss),
        ("another tag", |cache, txn| cache.invalidate_tag(txn, "stale"), Outcome::Miss),
        ("another part", |cache, txn| cache.invalidate_part(txn, "of", "1"), Outcome::Miss),
    ];
    for (what, forget, expected) in ways {
        let world = world();
        let how = how().tag("fresh");
        // What was forgotten before does not matter.
        let _ = world.ana.try_write(|txn| forget(&world.cache, txn)).unwrap();
        let Load::Compute(computation) = world.cache.try_load(&world.ana, &of(1), &how).unwrap() else {
            panic!("free")
        };
        assert_eq!(world.ana.try_write(|txn| forget(&world.cache, txn)).unwrap().value, 0, "{what}");
        let stored = computation.store(&world.ana, "old", &how).unwrap();
        assert_eq!((stored.outcome(), text(&stored)), (expected, "old".to_owned()), "{what}");
        assert_eq!(world.is_there(&of(1)), expected == Outcome::Miss, "{what}");
        let again = world.remember(&of(1), "new");
        let (outcome, value) =
            if expected == Outcome::Miss { (Outcome::Hit, "old") } else { (Outcome::Miss, "new") };
        assert_eq!((again.outcome(), text(&again)), (outcome, value.to_owned()), "{what}");
        assert_eq!(world.total().0, 1, "{what}");
    }
}

#[test]
fn s3_4_a_tag_reaches_whoever_computes_without_it() {
    on_all(|world| {
        let brief = how().tag("user:1").expires_after(Duration::from_secs(1));
        let _ = world.store(&of(1), "old", &brief);
        world.clock.advance(2 * SECOND);
        let Load::Compute(anew) = world.cache.try_load(&world.ana, &of(1), &how()).unwrap() else {
            panic!("past its time")
        };
        let forgotten = world.ana.try_write(|txn| world.cache.invalidate_tag(txn, "user:1")).unwrap();
        assert_eq!(forgotten.value, 1);
        assert_eq!(anew.store(&world.ana, "stale", &how()).unwrap().outcome(), Outcome::Forgotten);
    });
}

#[test]
fn s3_4_large_values_are_given_also_if_they_are_forgotten() {
    on_all(|world| {
        world.limit(CacheLimits::new().entries_max(1));
        let _ = world.store(&of(2), "stays", &how());
        let Load::Compute(slow) = world.cache.try_load(&world.ana, &of(1), &how()).unwrap() else {
            panic!("free")
        };
        let _ = world.ana.try_write(|txn| world.cache.invalidate(txn, &of(1))).unwrap();
        let large: Vec<u8> = (0..3_u32 << 20).map(|at| (at % 251) as u8).collect();
        let given = slow.store(&world.ana, large.clone(), &how().pinned()).unwrap();
        assert_eq!(given.outcome(), Outcome::Forgotten);
        world.larder.flush().unwrap();
        let _ = world.larder.upkeep(world.clock.now()).unwrap();
        assert!(given.bytes().unwrap() == large);
        // It has taken nobody's place.
        assert_eq!(world.remember(&of(2), "x").outcome(), Outcome::Hit);
        assert_eq!(world.total(), (1, 5));
    });
}

/// What is not so any more can be said also where there is no room left to say it.
#[test]
fn s3_3_a_full_store_can_forget() {
    let larder = still().file_bytes_max(6 << 20).reserve_bytes(1 << 20).open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let cache = Cache::at("cache").unwrap().namespace("square").unwrap();
    let _ = cache.store(&ana, &of(1), "v", &how().tag("t")).unwrap();
    let Load::Compute(computing) = cache.try_load(&ana, &of(2), &how()).unwrap() else { panic!("free") };
    while ana.put(format!("fill/{}", larder.info().unwrap().last_commit.sequence), vec![7; 30_000]).is_ok() {}
    let full = ana.put("fill/last", vec![7; 30_000]).unwrap_err();
    assert!(matches!(full.kind(), ErrorKind::StoreFull { .. }), "{full}");
    let refused = ana.try_write(|txn| cache.invalidate(txn, &of(3)));
    assert!(!refused.unwrap().value);
    assert_eq!(ana.try_write(|txn| cache.invalidate_tag(txn, "t")).unwrap().value, 1);
    assert_eq!(ana.try_write(|txn| cache.clear(txn)).unwrap().value, 0);
    ana.delete_tree("fill").unwrap();
    larder.flush().unwrap();
    assert_eq!(computing.store(&ana, "v", &how()).unwrap().outcome(), Outcome::Forgotten);
}

#[test]
fn s3_4_whoever_was_taken_over_stores_nothing_that_was_forgotten_since() {
    on_all(|world| {
        let short = how().lease(Duration::from_secs(10)).wait_max(Duration::ZERO);
        let Load::Compute(slow) = world.cache.try_load(&world.ana, &of(1), &short).unwrap() else {
            panic!("free")
        };
        world.clock.advance(11 * SECOND);
        let _ = world.larder.sweep(10).unwrap();
        assert_eq!(world.remember(&of(1), "next").outcome(), Outcome::Miss);
        let invalidated = world.ana.try_write(|txn| world.cache.invalidate(txn, &of(1))).unwrap();
        assert!(invalidated.value);
        let late = slow.store(&world.ana, "slow", &short).unwrap();
        assert_eq!((late.outcome(), text(&late)), (Outcome::Forgotten, "slow".to_owned()));
        assert_eq!(world.remember(&of(1), "newest").outcome(), Outcome::Miss);
    });
}

#[test]
fn s3_3_making_room_leaves_those_who_compute_at_work() {
    on_all(|world| {
        let brief = how().expires_after(Duration::from_secs(1));
        let _ = world.store(&of(1), "old", &brief);
        world.clock.advance(2 * SECOND);
        let Load::Compute(anew) = world.cache.try_load(&world.ana, &of(1), &brief).unwrap() else {
            panic!("past its time")
        };
        world.limit(CacheLimits::new().entries_max(1));
        let _ = world.store(&of(2), "another", &how());
        assert!(!world.is_there(&of(1)));
        let stored = anew.store(&world.ana, "new", &brief).unwrap();
        assert_eq!((stored.outcome(), text(&stored)), (Outcome::Miss, "new".to_owned()));
        assert_eq!(world.total().0, 1);
    });
}

#[test]
fn s3_3_what_is_there_is_pinned_when_it_is_asked_for_so() {
    on_all(|world| {
        let _ = world.store(&of(1), "v", &how().tag("kept"));
        let _ = world.cache.get_or_compute(&world.ana, &of(1), &how().pinned(), || value("x")).unwrap();
        let entry = world.cache.entry(&world.ana, &of(1)).unwrap().unwrap();
        assert!(entry.is_pinned);
        // It stays pinned, and keeps its tags.
        let found = world.remember(&of(1), "x");
        assert!(found.asset().record().is_protected() && found.asset().record().tags().eq(["kept"]));
        world.limit(CacheLimits::new().entries_max(1));
        let refused = world.cache.store(&world.ana, &of(2), "v", &how());
        assert!(matches!(refused, Err(RememberError::TooLarge { unit: "entries", .. })), "{refused:?}");
        assert!(world.is_there(&of(1)));
    });
}

#[test]
fn that_there_is_nothing_is_remembered_too() {
    on_all(|world| {
        let ask = |world: &World| {
            world
                .cache
                .get_or_compute(&world.ana, &of(1), &how(), || Ok::<_, RememberError>(Computed::Nothing))
        };
        assert_eq!(ask(world).unwrap().outcome(), Outcome::Miss);
        let again = ask(world).unwrap();
        assert!(again.outcome() == Outcome::Hit && again.is_nothing());
        assert!(!world.remember(&of(2), "").is_nothing(), "an empty value is a value");
    });
}

#[test]
fn limits_hold_at_every_commit_and_spare_what_was_just_written_and_what_is_pinned() {
    on_all(|world| {
        world.limit(CacheLimits::new().entries_max(3).bytes_max(100));
        let _ = world.store(&of(0), "pinned", &how().pinned());
        for number in 1..=10 {
            world.clock.advance(1);
            let _ = world.remember(&of(number), "value");
            assert!(world.total().0 <= 3);
            assert!(world.is_there(&of(0)) && world.is_there(&of(number)));
        }
        // What was used is newer.
        assert!(world.is_there(&of(9)) && !world.is_there(&of(8)));
        world.clock.advance(1);
        let _ = world.remember(&of(9), "x");
        world.cache.write_uses(&world.ana).unwrap();
        world.clock.advance(1);
        let _ = world.remember(&of(11), "value");
        assert!(world.is_there(&of(9)) && !world.is_there(&of(10)));
        let too_large = world.cache.store(&world.ana, &of(12), vec![0; 101], &how());
        assert!(
            matches!(too_large, Err(RememberError::TooLarge { size: 101, unit: "bytes", limit: 100 })),
            "{too_large:?}"
        );
        assert_eq!(world.total().0, 3, "nothing went for it");
        let _ = world.store(&of(13), "pinned", &how().pinned());
        let _ = world.store(&of(14), "pinned", &how().pinned());
        let no_room = world.cache.store(&world.ana, &of(15), "v", &how());
        assert!(matches!(no_room, Err(RememberError::TooLarge { unit: "entries", .. })), "{no_room:?}");
        world.limit(CacheLimits::new().entries_max(1));
        assert_eq!(world.total().0, 3, "what is pinned stays");
    });
}

#[test]
fn evictions_go_by_last_use_by_uses_or_by_cost_and_are_explained_beforehand() {
    for (eviction, expected) in [
        (Eviction::LeastRecent, [2, 0, 1]),
        (Eviction::LeastFrequent, [2, 1, 0]),
        (Eviction::LeastCost, [1, 2, 0]),
    ] {
        let world = world();
        world.limit(CacheLimits::new().entries_max(3).eviction(eviction));
        for (number, cost, uses) in [(0, 900, 5), (1, 10, 2), (2, 500, 0)] {
            let computed = world.cache.get_or_compute(&world.ana, &of(number), &how(), || {
                world.clock.advance(cost);
                value("v")
            });
            assert_eq!(computed.unwrap().outcome(), Outcome::Miss);
            assert_eq!(world.cache.entry(&world.ana, &of(number)).unwrap().unwrap().cost_us, cost);
            for _ in 0..uses {
                let _ = world.remember(&of(number), "x");
            }
        }
        // Used last: 0, then 1.
        for number in [0, 1] {
            world.clock.advance(1);
            let _ = world.remember(&of(number), "x");
        }
        world.cache.write_uses(&world.ana).unwrap();
        let view = world.ana.snapshot().unwrap();
        let explained = world.cache.explain(&view, eviction, 10).unwrap();
        let order: Vec<_> = explained.iter().map(|entry| entry.key.clone()).collect();
        assert_eq!(
            order,
            expected.map(|number| world.cache.fingerprint(&of(number)).unwrap().key().clone()),
            "{eviction:?}"
        );
        drop(view);
        for (gone, number) in expected.iter().zip(10..) {
            world.clock.advance(10_000);
            let computed = world.cache.get_or_compute(&world.ana, &of(number), &how().pinned(), || {
                world.clock.advance(1_000_000);
                value("v")
            });
            let _ = computed.unwrap();
            assert!(!world.is_there(&of(*gone)), "{eviction:?} {gone}");
        }
        assert_eq!(world.total().0, 3);
    }
}

#[test]
fn values_are_forgotten_by_parts_tag_name_and_what_they_were_made_from() {
    on_all(|world| {
        world.ana.put("source.csv", Draft::from("1,2").status(larder::Status::Ready)).unwrap();
        for number in 0..6 {
            let parts = of(number).with("kind", if number < 3 { "low" } else { "high" });
            let computed = world.cache.get_or_compute(
                &world.ana,
                &parts,
                &how().tag(format!("t{}", number % 2)),
                || {
                    let draft = Draft::from("v");
                    let draft =
                        if number == 5 { draft.with(|about| about.depends_on("source.csv")) } else { draft };
                    Ok::<_, RememberError>(draft.into())
                },
            );
            assert_eq!(computed.unwrap().outcome(), Outcome::Miss);
        }
        let high = |number: i64| of(number).with("kind", "high");
        assert!(world.cache.get(&world.ana, &high(5)).unwrap().is_some());
        world.ana.put("source.csv", "1,3").unwrap();
        assert!(
            world.cache.get(&world.ana, &high(5)).unwrap().is_none(),
            "what it was made from has changed"
        );
        assert!(world.cache.get(&world.ana, &high(4)).unwrap().is_some());
        let forget = |act: &dyn Fn(&mut larder::WriteTxn<'_>) -> Result<u64, RememberError>| {
            world.ana.try_write(act).unwrap().value
        };
        assert_eq!(forget(&|txn| world.cache.invalidate(txn, &high(4)).map(u64::from)), 1);
        assert_eq!(forget(&|txn| world.cache.invalidate(txn, &high(4)).map(u64::from)), 0);
        assert_eq!(forget(&|txn| world.cache.invalidate_part(txn, "kind", "low")), 3);
        assert_eq!(forget(&|txn| world.cache.invalidate_tag(txn, "t1")), 2);
        assert_eq!(world.total(), (0, 0));
        let _ = world.remember(&of(1), "v");
        assert_eq!(forget(&|txn| world.cache.clear(txn)), 1);
        assert_eq!(world.total(), (0, 0));
        let view = world.ana.snapshot().unwrap();
        let names: Vec<_> =
            Cache::at("cache").unwrap().list(&view).unwrap().iter().map(|n| n.name().to_owned()).collect();
        assert_eq!(names, ["square"]);
    });
}

/// S3-3. Uses are exact: what a transaction that failed was to write is written later, and readers count too.
#[test]
fn s3_3_no_use_is_lost() {
    on_all(|world| {
        let limits = CacheLimits::new().bytes_max(10);
        world.ana.try_write(|txn| world.cache.set_limits(txn, &limits)).unwrap();
        world.remember(&of(1), "x");
        let hits = |parts: &Parts| world.cache.entry(&world.ana, parts).unwrap().unwrap().hits;
        for _ in 0..3 {
            world.cache.get(&world.ana, &of(1)).unwrap().unwrap();
        }
        let long = Draft::from("y".repeat(100));
        let refused = world.cache.store(&world.ana, &of(2), long, &how());
        assert!(matches!(refused, Err(RememberError::TooLarge { .. })), "{refused:?}");
        assert_eq!(hits(&of(1)), 3);

        // Those who keep where a value lies are counted after everything was forgotten, too.
        let kept = world.cache.fingerprint(&of(1)).unwrap();
        world.cache.get_at(&world.ana, &kept).unwrap().unwrap();
        world.ana.try_write(|txn| world.cache.clear(txn)).unwrap();
        world.remember(&of(1), "x");
        for _ in 0..5 {
            world.cache.get_at(&world.ana, &kept).unwrap().unwrap();
        }
        world.cache.write_uses(&world.ana).unwrap();
        assert_eq!(hits(&of(1)), 5);
        verified(&world.larder);
    });
}

/// S3-3. Who may only read is given every value, however many, and is counted as soon as somebody may write.
#[test]
fn s3_3_who_may_only_read_counts_as_well() {
    const VALUES: i64 = 1_100;
    let world = world();
    for number in 0..VALUES {
        world.remember(&of(number), "x");
    }
    let rules = "default = \"deny\"\n[[rule]]\nallow = [\"read\"]\nwho = [\"eve\"]\non = \"**\"\n\
                 [[rule]]\nallow = [\"read\", \"write\", \"delete\"]\nwho = [\"ana\"]\non = \"**\"\n";
    world.larder.root().unwrap().set_document(larder::DocumentKind::Rules, rules).unwrap();
    let eve = world.larder.session("eve").unwrap();
    for number in 0..VALUES {
        assert_eq!(text(&world.cache.get(&eve, &of(number)).unwrap().unwrap()), "x", "{number}");
    }
    world.cache.write_uses(&world.ana).unwrap();
    let hits = |number| world.cache.entry(&world.ana, &of(number)).unwrap().unwrap().hits;
    assert!((0..VALUES).all(|number| hits(number) == 1));
}

/// S3-4. A value that is stored in a transaction of the caller's is there if what else that does is done, and not otherwise:
/// a message is acknowledged, its result remembered and noted, or none of it.
#[test]
fn s3_4_a_value_and_what_it_is_the_outcome_of_are_one_commit() {
    on_all(|world| {
        let queue = Queues::at("queues").unwrap().queue("q").unwrap();
        world.ana.try_write(|txn| queue.create(txn, &QueueSettings::new())).unwrap();
        let _ = world.ana.try_write(|txn| queue.enqueue(txn, "12")).unwrap();
        let taken = world.ana.try_write(|txn| queue.dequeue(txn)).unwrap().value.unwrap();
        let finish = |times: usize| {
            world.ana.try_write(|txn| -> Result<_, Box<dyn std::error::Error>> {
                let stored = world.cache.store_in(txn, &of(12), "144", &how().tag("squares"))?;
                let on = stored.asset().key().clone();
                txn.put("results/12", Draft::from("144").with(|about| about.depends_on(on)))?;
                (0..times).try_for_each(|_| queue.ack(txn, taken.token()))?;
                Ok(stored.outcome())
            })
        };
        assert!(finish(2).is_err(), "the second finds nothing to acknowledge");
        assert_eq!((world.total(), world.ana.exists("results/12").unwrap()), ((0, 0), false));
        assert_eq!(finish(1).unwrap().value, Outcome::Stored);
        assert_eq!((world.total(), world.ana.exists("results/12").unwrap()), ((1, 3), true));
        let found = world.remember(&of(12), "not computed");
        assert_eq!((found.outcome(), text(&found).as_str()), (Outcome::Hit, "144"));
        // What is there stays; what is too large is refused.
        let again =
            world.ana.try_write(|txn| world.cache.store_in(txn, &of(12), "145", &how())).unwrap().value;
        assert_eq!((again.outcome(), text(&again).as_str()), (Outcome::AlreadyThere, "144"));
        let tagged = how().tag("dozens").pinned();
        world.ana.try_write(|txn| world.cache.store_in(txn, &of(12), "145", &tagged)).unwrap();
        let entry = world.cache.entry(&world.ana, &of(12)).unwrap().unwrap();
        assert!(entry.is_pinned);
        let tags: Vec<String> = world.ana.record(&entry.key).unwrap().tags().map(str::to_owned).collect();
        assert_eq!(tags, ["squares", "dozens"]);
        world.ana.try_write(|txn| world.cache.set_pinned(txn, &of(12), false)).unwrap();
        world.limit(CacheLimits::new().bytes_max(5));
        let large = world.ana.try_write(|txn| world.cache.store_in(txn, &of(13), "too large", &how()));
        assert!(matches!(large, Err(RememberError::TooLarge { .. })), "{large:?}");
        // It makes room like any other.
        world.ana.try_write(|txn| world.cache.store_in(txn, &of(14), "1234", &how())).unwrap();
        assert_eq!(world.total(), (1, 4));
    });
}

/// S3-5. What was pinned can be let go: then it is evicted like any other.
#[test]
fn s3_5_what_is_no_longer_pinned_is_evicted() {
    on_all(|world| {
        let pin = |parts: &Parts, is_pinned: bool| {
            world.ana.try_write(|txn| world.cache.set_pinned(txn, parts, is_pinned)).unwrap().value
        };
        world.limit(CacheLimits::new().entries_max(2));
        assert!(!pin(&of(1), true), "it is not there");
        world.store(&of(1), "1", &how().pinned());
        world.store(&of(2), "4", &how());
        assert!(pin(&of(2), true));
        let full = world.cache.store(&world.ana, &of(3), "9", &how());
        assert!(matches!(full, Err(RememberError::TooLarge { .. })), "{full:?}");
        assert!(pin(&of(1), false));
        world.store(&of(3), "9", &how());
        assert!(!world.is_there(&of(1)) && world.is_there(&of(2)) && world.is_there(&of(3)));
        assert_eq!(world.total().0, 2);
    });
}

/// S3-5. Values that are past their time go when they are swept, or when there is no room, before anything that is still good; what is
/// pinned, or was given more time, stays.
#[test]
fn s3_5_what_is_past_its_time_goes_first() {
    on_all(|world| {
        let (short, long) = (Duration::from_secs(10), Duration::from_secs(100));
        for number in 0..4 {
            world.store(&of(number), "soon", &how().expires_after(short));
        }
        world.store(&of(4), "pinned", &how().expires_after(short).pinned());
        world.store(&of(5), "later", &how().expires_after(long));
        world.store(&of(6), "for ever", &how());
        let sweep = |limit| world.ana.try_write(|txn| world.cache.sweep(txn, limit)).unwrap().value;
        assert_eq!(sweep(10), 0);
        // The value itself was given more time.
        let key = world.cache.fingerprint(&of(3)).unwrap().key().clone();
        world.ana.annotate(&key, Annotation::new().expires(90 * SECOND)).unwrap();
        world.clock.advance(20 * SECOND);
        assert_eq!((sweep(1), sweep(1)), (1, 1), "at most so many");
        assert_eq!(world.total().0, 5);
        // There is room for four: the one that is past its time goes, not what was used the longest time ago.
        world.clock.advance(SECOND);
        world.limit(CacheLimits::new().entries_max(4));
        assert!(!world.is_there(&of(2)), "it is past its time");
        assert!([3, 4, 5, 6].into_iter().all(|number| world.is_there(&of(number))));
        world.store(&of(7), "new", &how());
        assert!(!world.is_there(&of(3)), "now the oldest goes");
        world.clock.advance(200 * SECOND);
        assert_eq!(sweep(10), 1);
        assert!([4, 6, 7].into_iter().all(|number| world.is_there(&of(number))), "pinned, or without a time");
        // The value itself was pinned.
        world.store(&of(8), "soon", &how().expires_after(short));
        world
            .ana
            .annotate(world.cache.fingerprint(&of(8)).unwrap().key(), Annotation::new().pinned(true))
            .unwrap();
        world.clock.advance(20 * SECOND);
        assert_eq!((sweep(10), world.is_there(&of(8))), (0, true));
        world.total();
    });
}

/// S3-3. A dry run names what a store of such a size evicts, by the limits and the policy that there are, in that order.
#[test]
fn s3_3_a_dry_run_names_what_is_evicted() {
    for (seed, eviction) in
        (0..12).zip([Eviction::LeastRecent, Eviction::LeastFrequent, Eviction::LeastCost].into_iter().cycle())
    {
        let world = world();
        let mut random = Random::new(seed);
        for number in 0..40 {
            let how = match random.below(4) {
                0 => how().expires_after(Duration::from_secs(random.below(60) as u64 + 1)),
                1 => how().pinned(),
                _ => how(),
            };
            let value = vec![b'x'; random.below(100) + 1];
            world.cache.store(&world.ana, &of(number), value, &how).unwrap();
            for _ in 0..random.below(3) {
                let used = of(random.below(number as usize + 1) as i64);
                world.cache.get(&world.ana, &used).unwrap();
            }
            world.clock.advance(SECOND);
        }
        world.cache.write_uses(&world.ana).unwrap();
        let (entries, bytes) = world.total();
        let limits = CacheLimits::new()
            .entries_max(entries)
            .bytes_max(u64::try_from(bytes).unwrap())
            .eviction(eviction);
        world.limit(limits);
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.cache.limits(&view).unwrap(), limits);
        assert!(world.cache.would_evict(&view, &limits, 0).unwrap().is_empty());
        let incoming = random.below(300) + 1;
        let named = world.cache.would_evict(&view, &limits, incoming as u64).unwrap();
        assert!(!named.is_empty() && !named.iter().any(|entry| entry.is_pinned), "seed {seed}");
        let before = keys(&world);
        world.cache.store(&world.ana, &of(1_000), vec![b'y'; incoming], &how()).unwrap();
        let after = keys(&world);
        let mut gone: Vec<_> = before.into_iter().filter(|key| !after.contains(key)).collect();
        let mut named: Vec<_> = named.into_iter().map(|entry| entry.key.to_string()).collect();
        gone.sort();
        named.sort();
        assert_eq!(named, gone, "seed {seed}, {eviction:?}");
        let none = world.cache.would_evict(&view, &limits.bytes_max(1).entries_max(1), 2);
        assert!(matches!(none, Err(RememberError::TooLarge { .. })), "{none:?}");
    }
}

fn keys(world: &World) -> Vec<String> {
    let view = world.ana.snapshot().unwrap();
    view.walk("cache/square/values").unwrap().map(|value| value.unwrap().0.to_string()).collect()
}

/// S3-3. What was made from something that lies at and below a place is forgotten, also what is being computed.
#[test]
fn s3_3_values_are_forgotten_by_the_beginning_of_a_part() {
    on_all(|world| {
        let from = |file: &str, step: i64| Parts::new().with("file", file).with("step", step);
        for (file, step) in [("src/a", 1), ("src/a", 2), ("src/b", 1), ("srcs", 1), ("doc/src/", 1)] {
            world.store(&from(file, step), "made", &how());
        }
        world.store(&Parts::new().with("file", 7_i64), "made", &how());
        world.store(&Parts::new().with("src/", "src/"), "made", &how());
        let Load::Compute(computing) = world.cache.try_load(&world.ana, &from("src/c", 1), &how()).unwrap()
        else {
            panic!("nobody else computes it")
        };
        let forget = |prefix| {
            let forgotten = world.ana.try_write(|txn| world.cache.invalidate_prefix(txn, "file", prefix));
            forgotten.unwrap().value
        };
        assert_eq!(forget("src/"), 3);
        assert_eq!(world.total().0, 4);
        assert!(world.is_there(&from("srcs", 1)) && world.is_there(&from("doc/src/", 1)));
        let late = computing.store(&world.ana, "too late", &how()).unwrap();
        assert_eq!((late.outcome(), world.is_there(&from("src/c", 1))), (Outcome::Forgotten, false));
        assert_eq!((forget("src/"), forget("nothing")), (0, 0));
        assert_eq!(forget(""), 2, "every text");
    });
}

/// S3-3. Whoever may not list the values, but read, write, delete and claim below the namespace, forgets by tag like anybody; and a
/// tag of assets elsewhere is none of the cache's business.
#[test]
fn s3_3_tags_are_forgotten_without_the_right_to_list() {
    on_all(|world| {
        let root = world.larder.root().unwrap();
        world.store(&of(0), "first", &how());
        root.put("elsewhere", Draft::from("soup").with(|about| about.tag("leeks"))).unwrap();
        let rules = "default = \"deny\"\n[[rule]]\nallow = [\"read\", \"write\", \"delete\", \"claim\", \"manage\"]\n\
                 who = [\"ana\"]\non = \"cache/**\"\n";
        root.set_document(DocumentKind::Rules, rules).unwrap();
        world.store(&of(1), "one", &how().tag("leeks").tag("soup"));
        world.store(&of(2), "two", &how().tag("soup"));
        // The tag comes later.
        let tagged =
            world.cache.get_or_compute(&world.ana, &of(0), &how().tag("leeks"), || value("not made"));
        assert_eq!(tagged.unwrap().outcome(), Outcome::Hit);
        let forget = |tag| world.ana.try_write(|txn| world.cache.invalidate_tag(txn, tag)).unwrap().value;
        assert_eq!(forget("leeks"), 2);
        for (number, is_there) in [(0, false), (1, false), (2, true)] {
            let found = world.cache.get(&world.ana, &of(number)).unwrap();
            assert_eq!(found.is_some(), is_there, "{number}");
        }
        assert_eq!((forget("leeks"), forget("soup")), (0, 1));
        assert!(root.exists("elsewhere").unwrap());
    });
}

/// A namespace that was made when entries did not say yet when they expire goes on: also for those who may not manage it, what is in
/// it is forgotten by its tags; once its limits are set it is swept, too.
#[test]
fn s3_5_a_namespace_of_before_is_brought_up_to_date() {
    on_all(|world| {
        let evictable = |index: IndexDefinition| index.only("k", [false]);
        let before = CollectionDefinition::new()
            .index(evictable(IndexDefinition::new("recent").by("l")))
            .index(evictable(IndexDefinition::new("frequent").by("h").by("l")))
            .index(evictable(IndexDefinition::new("cost").by("v").by("l")))
            .aggregate(AggregateDefinition::new("all").sum("b"));
        world.ana.write(|txn| txn.define_collection("cache/square/entries", &before)).unwrap();
        world.store(&of(1), "one", &how().tag("leeks").expires_after(Duration::from_secs(1)));
        world.store(&of(2), "two", &how().tag("leeks"));
        world.store(&of(3), "three", &how().tag("soup"));
        world.ana.try_write(|txn| world.cache.invalidate(txn, &of(99))).unwrap();
        let rules = "default = \"deny\"\n[[rule]]\nallow = [\"read\", \"write\", \"delete\", \"claim\"]\n\
                     who = [\"ana\"]\non = \"cache/**\"\n";
        let root = world.larder.root().unwrap();
        root.set_document(DocumentKind::Rules, rules).unwrap();
        world.clock.advance(2 * SECOND);
        let forget = |tag| world.ana.try_write(|txn| world.cache.invalidate_tag(txn, tag)).unwrap().value;
        let sweep = || world.ana.try_write(|txn| world.cache.sweep(txn, 9)).unwrap().value;
        assert_eq!((sweep(), forget("soup")), (0, 1));
        let view = root.snapshot().unwrap();
        let limits = CacheLimits::new().entries_max(1);
        assert_eq!(world.cache.would_evict(&view, &limits, 0).unwrap().len(), 1);
        assert!(
            world.ana.try_write(|txn| world.cache.set_limits(txn, &limits)).is_err(),
            "he may not manage it"
        );
        root.try_write(|txn| world.cache.set_limits(txn, &CacheLimits::new())).unwrap();
        assert_eq!((sweep(), forget("leeks")), (1, 1), "what was there before is brought up to date, too");
        assert_eq!(world.total(), (0, 0));
    });
}

/// S3-4. Who computes for longer than his lease, and says so, is not taken over; the one-shot form has a way to say so.
#[test]
fn s3_4_who_gives_signs_of_life_computes_once() {
    on_all(|world| {
        let slow = how().lease(Duration::from_secs(60));
        let made = world.cache.get_or_compute_with(&world.ana, &of(12), &slow, |computation| {
            for _ in 0..4 {
                world.clock.advance(50 * SECOND);
                assert!(computation.heartbeat(Duration::from_secs(60))?);
                let other = world.cache.try_load(&world.ana, &of(12), &slow)?;
                assert!(matches!(other, Load::Busy { .. }), "{other:?}");
            }
            value("144")
        });
        assert_eq!(made.unwrap().outcome(), Outcome::Miss);
        assert_eq!(text(&world.remember(&of(12), "not made")), "144");
    });
}

/// S4-§2. The health of a store tells how much is in each namespace.
#[test]
fn s3_5_health_tells_how_much_is_in_a_cache() {
    on_all(|world| {
        Cache::at("cache").unwrap().add_health(&world.larder);
        world.store(&of(1), "one", &how());
        world.store(&of(2), "four", &how());
        let health = world.larder.health();
        let figures = &health.layers["cache"].figures;
        assert_eq!((figures["square/entries"], figures["square/bytes"]), (2, 7));
    });
}

/// Bad input: leases of no time and of centuries are refused; a value for no time is past its time at once, and one for
/// centuries is not; names and parts that are too long, or not one each, are refused with a reason. Nothing panics, and nothing is stored
/// that is not given back.
#[test]
fn s3_2_times_names_and_parts_that_make_no_sense_are_refused_or_last() {
    const CENTURIES: Duration = Duration::from_secs(1_000 * 365 * 86_400);
    on_all(|world| {
        let ask = |number: i64, how: &Remember| {
            let made = world.cache.get_or_compute(&world.ana, &of(number), how, || value("v"));
            made.map(|found| found.outcome())
        };
        // For how long.
        assert!(ask(1, &how().lease(Duration::ZERO)).is_err(), "a lease of no time");
        for time in [CENTURIES, Duration::MAX] {
            assert!(ask(1, &how().lease(time)).is_err(), "a lease of {time:?}");
        }
        // Nor is a sign of life for no time one; the right to compute is what it was.
        let Load::Compute(computing) = world.cache.try_load(&world.ana, &of(1), &how()).unwrap() else {
            panic!("nobody else computes it")
        };
        for time in [Duration::ZERO, CENTURIES, Duration::MAX] {
            assert!(computing.heartbeat(time).is_err(), "{time:?} more");
        }
        let busy = world.cache.try_load(&world.ana, &of(1), &how()).unwrap();
        assert!(matches!(busy, Load::Busy { for_ms: 60_000, .. }), "{busy:?}");
        drop(computing);
        let century = Duration::from_secs(99 * 365 * 86_400);
        assert_eq!(ask(1, &how().lease(century).wait_max(Duration::MAX)).unwrap(), Outcome::Miss);
        for _ in 0..2 {
            assert_eq!(ask(2, &how().expires_after(Duration::ZERO)).unwrap(), Outcome::Miss, "past its time");
        }
        for (number, time) in [(3, CENTURIES), (4, Duration::MAX)] {
            assert_eq!(ask(number, &how().expires_after(time)).unwrap(), Outcome::Miss);
            world.clock.advance(100 * 365 * 86_400 * SECOND);
            assert_eq!(ask(number, &how()).unwrap(), Outcome::Hit, "{time:?}");
        }
        assert_eq!(world.total().0, 4);
        // By what name.
        let cache = Cache::at("cache").unwrap();
        let longest = cache.namespace(&"n".repeat(255)).unwrap();
        assert_eq!(longest.store(&world.ana, &of(1), "v", &how()).unwrap().outcome(), Outcome::Stored);
        let refused = cache.namespace(&"n".repeat(256));
        assert!(matches!(refused, Err(RememberError::InvalidName { .. })), "{refused:?}");
        // Of what parts: how many does not matter, but how long all of them are.
        let bytes = |parts: &Parts| world.cache.fingerprint(parts).map(|found| found.parts().len());
        let of_length = |length: usize| Parts::new().with("p", "x".repeat(length));
        let room = 4_096 - bytes(&of_length(0)).unwrap();
        assert_eq!(bytes(&of_length(room)).unwrap(), 4_096);
        assert_eq!(world.store(&of_length(room), "long", &how()).outcome(), Outcome::Stored);
        assert_eq!(text(&world.remember(&of_length(room), "x")), "long");
        let many = (0..10_000).fold(Parts::new(), |parts, n| parts.with(format!("part {n}"), n));
        let twice = of(1).with("of", 1);
        for bad in [of_length(room + 1), many, twice, of(1).with("x".repeat(5_000), 1)] {
            let refused = world.cache.store(&world.ana, &bad, "v", &how());
            assert!(matches!(refused, Err(RememberError::Parts(_))), "{refused:?}");
        }
        assert_eq!(world.total().0, 5);
    });
}

/// S3-3d. A tag of 128 bytes, and 64 of them, are taken; one of 129 bytes, or a 65th, is refused, and nothing is stored; what is there
/// already stays as it was.
#[test]
fn s3_3_d_tags_that_are_too_long_or_too_many_are_refused_and_nothing_is_stored() {
    on_all(|world| {
        let tagged =
            |count: usize, length: usize| (0..count).fold(how(), |how, n| how.tag(format!("{n:0>length$}")));
        let ask = |number: i64, how: &Remember| {
            let made = world.cache.get_or_compute(&world.ana, &of(number), how, || value("v"));
            made.map(|found| (found.outcome(), found.asset().record().tags().count()))
        };
        assert_eq!(ask(1, &tagged(64, 128)).unwrap(), (Outcome::Miss, 64));
        assert_eq!(ask(2, &how()).unwrap(), (Outcome::Miss, 0));
        for number in [2, 3] {
            for bad in [tagged(1, 129), tagged(65, 2), how().tag("")] {
                let refused = ask(number, &bad);
                assert!(matches!(refused, Err(RememberError::Store(_))), "{refused:?}");
                let refused = world.ana.try_write(|txn| world.cache.store_in(txn, &of(number), "v", &bad));
                assert!(refused.is_err(), "{bad:?}");
            }
        }
        assert_eq!((world.total().0, verified(&world.larder).tags), (2, 64));
        assert_eq!(ask(2, &how()).unwrap(), (Outcome::Hit, 0));
        // Whoever failed is in nobody's way.
        assert_eq!(ask(3, &tagged(64, 2)).unwrap(), (Outcome::Miss, 64));
        // All of them together are one too many for what is there.
        let more = ask(1, &how().tag("one more"));
        assert!(matches!(&more, Err(RememberError::Store(error)) if error.code() == 403), "{more:?}");
        assert_eq!(ask(1, &how()).unwrap(), (Outcome::Hit, 64));
        for (tag, forgotten) in [(format!("{:0>128}", 7), 1), (format!("{:0>2}", 7), 1), ("x".repeat(129), 0)]
        {
            let done = world.ana.try_write(|txn| world.cache.invalidate_tag(txn, &tag)).unwrap();
            assert_eq!(done.value, forgotten, "{tag}");
        }
        assert_eq!((world.total().0, verified(&world.larder).tags), (1, 0));
    });
}
