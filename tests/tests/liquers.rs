//! The behaviour of Liquers' store and asset manager, scenario by scenario, each named after the test of Liquers' that it
//! re-expresses, on a file and in memory, with a full recount at the end; and the defects of its stores, of which larder
//! is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::format::{IMMEDIATELY, NEVER};
use larder::{
    AbsentReason, Annotation, Draft, Durability, Edit, Fenceable, Larder, LogKind, ManualClock, Miss,
    Options, Outcome, Session, Status,
};
use larder_tests::{Call, Failure, Fault, FaultyDisk, Plan, kind_of, still, verified};

/// A store, who uses it, and the clock that it goes by.
struct Bench {
    larder: Larder,
    session: Session,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn text(&self, key: &str) -> String {
        String::from_utf8(self.session.get(key).unwrap().bytes().unwrap().to_vec()).unwrap()
    }

    fn status(&self, key: &str) -> Status {
        self.session.record(key).unwrap().status()
    }

    fn miss(&self, key: &str) -> Option<Miss> {
        self.session.get_loadable(key).unwrap().miss().cloned()
    }

    fn names(&self, place: &str) -> Vec<String> {
        let entries = self.session.list(place).unwrap();
        entries.iter().map(|entry| entry.name().to_owned()).collect()
    }
}

/// Runs a scenario in memory and on a file, and recounts both.
fn on_both(scenario: impl Fn(&Bench)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("liquers.larder");
    for is_file in [false, true] {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let options = Options::new().clock(Arc::clone(&clock) as _);
        let larder = if is_file { options.open(&path) } else { options.inline().open_in_memory() }.unwrap();
        let session = larder.session("ana").unwrap();
        let bench = Bench { larder, session, clock };
        scenario(&bench);
        verified(&bench.larder);
        bench.larder.close().unwrap();
    }
    verified(&Larder::open(&path).unwrap());
}

fn ready(text: &str) -> Draft {
    Draft::from(text).status(Status::Ready)
}

fn made_from(text: &str, key: &str) -> Draft {
    ready(text).with(|about| about.depends_on(key))
}

// ---- the store

#[test]
fn test_simple_store() {
    on_both(|bench| {
        assert!(!bench.session.exists("a/b.txt").unwrap());
        bench.session.put("a/b.txt", "x").unwrap();
        assert_eq!(bench.text("a/b.txt"), "x");
        assert!(bench.session.delete("a/b.txt").unwrap().value);
        assert!(!bench.session.exists("a/b.txt").unwrap());
    });
}

#[test]
fn test_async_opendal_store_memory_metadata() {
    on_both(|bench| {
        let only = Draft::absent(AbsentReason::NeverProduced).with(|about| about.title("a plan"));
        bench.session.put("plan", only).unwrap();
        assert!(bench.session.exists("plan").unwrap());
        assert!(!bench.session.record("plan").unwrap().has_payload());
        assert_eq!(kind_of(bench.session.get("plan").unwrap().bytes()), "PayloadUnavailable");
    });
}

#[test]
fn test_store_set_get_data_nonexistent_key_delete_overwrite_empty() {
    on_both(|bench| {
        assert_eq!(kind_of(bench.session.get("k")), "NotFound");
        bench.session.put("k", "one").unwrap();
        bench.session.put("k", "two").unwrap();
        assert_eq!(bench.text("k"), "two");
        bench.session.delete("k").unwrap();
        assert_eq!(kind_of(bench.session.get("k")), "NotFound");
        assert!(!bench.session.delete("k").unwrap().value, "what is missing is no error");
        bench.session.put("k", "").unwrap();
        assert_eq!(bench.text("k"), "");
        assert!(bench.session.record("k").unwrap().has_payload());
    });
}

#[test]
fn test_store_metadata_operations_and_persistence() {
    on_both(|bench| {
        bench.session.put("k.json", "{}").unwrap();
        let about =
            Annotation::new().title("a title").description("more").attribute("n", 4i64).extra("{\"x\":1}");
        bench.session.annotate("k.json", about).unwrap();
        let asset = bench.session.get("k.json").unwrap();
        assert_eq!(
            (asset.bytes().unwrap().as_ref(), asset.record().media_type()),
            (&b"{}"[..], "application/json")
        );
        assert_eq!(asset.record().extra(), Some(&b"{\"x\":1}"[..]));
        assert_eq!(asset.record().attribute("n"), Some(4i64.into()));
    });
}

#[test]
fn test_store_makedir_is_dir_listdir_removedir_empty() {
    on_both(|bench| {
        let session = &bench.session;
        session.make_directory("made").unwrap();
        session.put("implied/deep/k", "x").unwrap();
        assert_eq!(bench.names(""), ["implied", "made"]);
        assert!(session.list("").unwrap().iter().all(|entry| entry.is_directory()));
        assert_eq!(bench.names("implied"), ["deep"]);
        assert!(bench.names("made").is_empty());
        assert!(session.remove_directory("made").unwrap().value);
        assert_eq!(kind_of(session.list("made")), "NotFound");
        assert_eq!(kind_of(session.remove_directory("implied")), "NotEmpty");
        assert_eq!(session.delete_tree("implied").unwrap().value, 1);
        assert!(bench.names("").is_empty());
    });
}

#[test]
fn test_entry_endpoint_workflow() {
    on_both(|bench| {
        let entry = Draft::from("data").data_format("txt").tag("t").with(|about| about.title("both"));
        bench.session.put("k", entry).unwrap();
        let asset = bench.session.get("k").unwrap();
        assert_eq!((asset.bytes().unwrap().as_ref(), asset.record().data_format()), (&b"data"[..], "txt"));
        assert_eq!(asset.record().tags().collect::<Vec<_>>(), ["t"]);
    });
}

#[test]
fn test_concurrent_writes_and_reads() {
    on_both(|bench| {
        std::thread::scope(|scope| {
            for n in 0..10 {
                let session = &bench.session;
                scope.spawn(move || session.put(format!("k/{n}"), format!("{n}")).unwrap());
            }
        });
        std::thread::scope(|scope| {
            for reader in 0..10 {
                scope.spawn(move || {
                    assert_eq!(bench.text(&format!("k/{}", reader % 5)), format!("{}", reader % 5))
                });
            }
        });
        assert_eq!(bench.names("k").len(), 10);
    });
}

#[test]
fn test_concurrent_writes_same_asset() {
    on_both(|bench| {
        std::thread::scope(|scope| {
            for n in 0..10i64 {
                let session = &bench.session;
                scope.spawn(move || {
                    session.put("k", Draft::from(format!("payload {n}")).attribute("n", n)).unwrap();
                });
            }
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(asset) = bench.session.get("k") else { continue };
                        let Some(larder::AttributeValue::Integer(n)) = asset.record().attribute("n") else {
                            panic!("metadata without their number")
                        };
                        assert_eq!(
                            asset.bytes().unwrap(),
                            format!("payload {n}"),
                            "one's data with another's metadata"
                        );
                    }
                });
            }
        });
        assert_eq!(bench.session.record("k").unwrap().generation(), 10);
    });
}

#[test]
fn test_large_binary_data_10mb() {
    on_both(|bench| {
        let payload: Vec<u8> =
            (0..10u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        bench.session.put("large.bin", payload.clone()).unwrap();
        assert!(bench.session.get("large.bin").unwrap().bytes().unwrap() == payload);
    });
}

#[test]
fn test_key_special_characters_round_trip_nested_paths() {
    on_both(|bench| {
        let keys = ["a-b", "a_b", "a.b", "a/b", "1/2/3", "a/b.c-d_e/f", ".hidden", "ü/ß", "a b"];
        for key in keys {
            bench.session.put(key, key).unwrap();
        }
        for key in keys {
            assert_eq!(bench.text(key), key);
        }
        assert_eq!(bench.names("a"), ["b", "b.c-d_e"], "and nothing of a-b, a.b, a_b");
    });
}

#[test]
fn test_multiple_content_types() {
    on_both(|bench| {
        let types = [
            ("a.json", "application/json"),
            ("a.csv", "text/csv"),
            ("a.png", "image/png"),
            ("a.txt", "text/plain"),
        ];
        for (key, media_type) in types {
            bench.session.put(key, Draft::from("x").media_type(media_type)).unwrap();
            assert_eq!(bench.session.record(key).unwrap().media_type(), media_type);
        }
    });
}

#[test]
fn test_destructive_get_operations() {
    on_both(|bench| {
        bench.session.put("k", "x").unwrap();
        let taken = bench.session.write(|txn| {
            let bytes = txn.get("k")?.bytes()?;
            txn.delete("k")?;
            Ok(bytes)
        });
        assert_eq!(taken.unwrap().value, "x");
        assert!(!bench.session.exists("k").unwrap());
    });
}

#[test]
fn test_roundtrip_every_byte() {
    on_both(|bench| {
        let every: Vec<u8> = (0..=255u8).cycle().take(70_000).collect();
        for length in [256, 1_024, 1_025, 70_000] {
            bench.session.put("k", &every[..length]).unwrap();
            assert_eq!(bench.session.get("k").unwrap().bytes().unwrap(), &every[..length]);
        }
    });
}

// ---- the asset manager

#[test]
fn test_set_without_recipe_with_expired_and_error_status_and_override() {
    on_both(|bench| {
        bench.session.put("k", "x").unwrap();
        assert_eq!(bench.status("k"), Status::Source);
        bench.session.put("old", Draft::from("x").status(Status::Expired)).unwrap();
        assert_eq!((bench.status("old"), bench.miss("old")), (Status::Expired, Some(Miss::Expired)));
        let failed = Draft::from("").status(Status::Error).with(|about| about.message("no leeks"));
        bench.session.put("failed", failed).unwrap();
        assert_eq!(bench.miss("failed"), Some(Miss::Status(Status::Error)));
        bench.session.put("made", ready("x").with(|about| about.has_recipe(true))).unwrap();
        bench.session.put("made", "by hand").unwrap();
        assert_eq!((bench.status("made"), bench.miss("made")), (Status::Override, None));
    });
}

#[test]
fn test_complete_asset_lifecycle_and_cross_api_recipe_to_asset() {
    on_both(|bench| {
        let recipe = Draft::absent(AbsentReason::NeverProduced).status(Status::Recipe);
        bench.session.put("k", recipe.with(|about| about.has_recipe(true))).unwrap();
        for status in [Status::Submitted, Status::Dependencies, Status::Processing] {
            bench.session.annotate("k", Annotation::new().status(status.clone())).unwrap();
            assert_eq!(bench.miss("k"), Some(Miss::Status(status)));
        }
        bench.session.put("k", ready("made")).unwrap();
        assert_eq!((bench.miss("k"), bench.text("k").as_str()), (None, "made"));
        bench.session.delete("k").unwrap();
        assert_eq!(bench.status("k"), Status::Recipe);
        bench.session.delete("k").unwrap();
        assert_eq!(kind_of(bench.session.get("k")), "NotFound");
    });
}

#[test]
fn test_metadata_save_is_throttled_and_coalesced() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_000_000));
    let options = Options::new().inline().clock(Arc::clone(&clock) as _);
    let larder = options.open(folder.path().join("a.larder")).unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k", Draft::from("x").status(Status::Partial)).unwrap();
    let before = larder.info().unwrap().input_output.log_syncs;
    let soon = session.clone().durability(Durability::Window { milliseconds: 100 });
    for done in 1..=8i64 {
        soon.annotate("k", Annotation::new().attribute("done", done)).unwrap();
        clock.advance(10_000);
    }
    assert_eq!(session.record("k").unwrap().attribute("done"), Some(8i64.into()), "the last is seen at once");
    assert_eq!(larder.info().unwrap().input_output.log_syncs, before);
    clock.advance(100_000);
    larder.upkeep(1_180_000).unwrap();
    assert_eq!(larder.info().unwrap().input_output.log_syncs, before + 1, "eight writes, one sync");
    verified(&larder);
}

#[test]
fn test_evaluate_store_failure_keeps_value_and_sets_warning() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    session.put("k", ready("old")).unwrap();
    let full = Fault::once(Call::Write, 0).with(Failure::Full).lasting();
    disk.set_plan(Plan { fault: Some(full), ..Plan::default() });
    let error = session.put("k", ready("new")).unwrap_err();
    assert!(["StoreFull", "OutcomeUnknown"].contains(&error.kind().name()), "{error}");
    assert_eq!(session.get("k").unwrap().bytes().unwrap(), "old", "the record before is whole");
    let image = disk.durable();
    drop(larder);
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    assert_eq!(larder.session("ana").unwrap().get("k").unwrap().bytes().unwrap(), "old");
    verified(&larder);
}

#[test]
fn test_runclaim_complete_disarms_drop_reparks() {
    on_both(|bench| {
        let minute = Duration::from_secs(60);
        let claims = || bench.session.snapshot().unwrap().claims("").unwrap().len();
        let claim = bench.session.claim("k").for_at_most(minute).unwrap();
        assert!(!claim.put(ready("x")).unwrap().is_fenced());
        let other = bench.session.claim("k").for_at_most(minute).unwrap();
        drop(claim);
        assert_eq!(claims(), 1, "one that is complete gives nothing back");
        drop(other);
        assert_eq!(claims(), 0, "one that is dropped is given back");
        let _again = bench.session.claim("k").for_at_most(minute).unwrap();
    });
}

#[test]
fn immediate_concurrent_same_query_runs_once() {
    on_both(|bench| {
        let runs = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        if let Some(asset) =
                            bench.session.get_loadable("q").ok().and_then(larder::Lookup::hit)
                        {
                            assert_eq!(asset.bytes().unwrap(), "computed");
                            return;
                        }
                        let minute = Duration::from_secs(60);
                        let claim = bench.session.claim("q").wait_max(minute).for_at_most(minute).unwrap();
                        // Somebody may have been quicker.
                        if bench.session.get_loadable("q").is_ok_and(|lookup| lookup.miss().is_none()) {
                            continue;
                        }
                        runs.fetch_add(1, Ordering::SeqCst);
                        assert!(matches!(claim.put(ready("computed")).unwrap(), Fenceable::Done(_)));
                    }
                });
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn test_untrack_cancels_duplicate_deadlines_and_retrack_earlier_fires_once() {
    on_both(|bench| {
        let at = |at: i64| ready("x").with(|about| about.expires(at));
        let due = || bench.larder.due(i64::MAX, 10).unwrap().len();
        for deadline in [9_000_000, 5_000_000, 7_000_000, 3_000_000] {
            bench.session.put("k", at(deadline)).unwrap();
            assert_eq!(due(), 1, "one for an asset");
        }
        bench.clock.advance(2_000_000);
        assert_eq!(
            (bench.larder.sweep(10).unwrap().total(), bench.larder.sweep(10).unwrap().total()),
            (1, 0)
        );
        bench.clock.advance(10_000_000);
        assert_eq!(bench.larder.sweep(10).unwrap().total(), 0);
        // What is set anew has no deadline that was meant for what it replaces.
        bench.session.put("k", at(20_000_000)).unwrap();
        bench.session.put("k", ready("y")).unwrap();
        assert_eq!(due(), 0);
    });
}

#[test]
fn test_manager_get_treats_expired_as_a_miss_and_get_any_status_reads_it() {
    on_both(|bench| {
        bench.session.put("k", ready("x")).unwrap();
        bench.session.expire("k").unwrap();
        let before = bench.session.record("k").unwrap();
        assert_eq!(bench.miss("k"), Some(Miss::Expired));
        assert_eq!(bench.text("k"), "x");
        assert_eq!(bench.session.record("k").unwrap(), before, "reading changes nothing");
        // From expired to an override: metadata alone, if it is expired still.
        let to_override = Edit::annotate("k", Annotation::new().status(Status::Override));
        let outcome = bench.session.apply(to_override.if_status([Status::Expired])).unwrap().value;
        assert!(matches!(outcome, Outcome::Replaced(_)));
        assert_eq!((bench.miss("k"), bench.text("k").as_str()), (None, "x"));
        assert_eq!(bench.session.record("k").unwrap().payload(), before.payload());
        let again =
            Edit::annotate("k", Annotation::new().status(Status::Override)).if_status([Status::Expired]);
        assert!(matches!(bench.session.apply(again).unwrap().value, Outcome::Refused(_)));
    });
}

#[test]
fn test_asset_ref_expire_from_source_errors() {
    on_both(|bench| {
        bench.session.put("k", "x").unwrap();
        assert_eq!(kind_of(bench.session.expire("k")), "NotExpirable");
        assert_eq!(bench.status("k"), Status::Source);
    });
}

#[test]
fn test_dependent_expiration_and_expire_cascade_chain() {
    on_both(|bench| {
        bench.session.put("a", ready("1")).unwrap();
        bench.session.put("b", made_from("2", "a")).unwrap();
        bench.session.put("c", made_from("3", "b")).unwrap();
        bench.session.put("d", made_from("4", "b")).unwrap();
        bench.session.expire("a").unwrap();
        for key in ["a", "b", "c", "d"] {
            assert_eq!(bench.status(key), Status::Expired, "{key}");
        }
    });
}

#[test]
fn expire_skips_version_zero_cascade() {
    on_both(|bench| {
        bench.session.put("a", Draft::absent(AbsentReason::NonSerializable).status(Status::Ready)).unwrap();
        bench.session.put("b", made_from("2", "a")).unwrap();
        assert_eq!(bench.session.record("b").unwrap().dependencies()[0].version, 0);
        bench.session.put("a", ready("now there is one")).unwrap();
        assert_eq!((bench.status("b"), bench.miss("b")), (Status::Ready, None));
    });
}

#[test]
fn expire_nonexistent_key_is_noop() {
    on_both(|bench| {
        assert_eq!(kind_of(bench.session.expire("nothing")), "NotFound");
        assert!(bench.names("").is_empty());
    });
}

#[test]
fn would_create_cycle_and_scheduled_cycle_is_rejected() {
    on_both(|bench| {
        bench.session.put("a", ready("1")).unwrap();
        bench.session.put("b", made_from("2", "a")).unwrap();
        assert_eq!(kind_of(bench.session.put("a", made_from("1", "b"))), "DependencyCycle");
        // In one transaction as well.
        let refused = bench.session.write(|txn| {
            txn.put("c", made_from("3", "b"))?;
            txn.put("a", made_from("1", "c"))
        });
        assert_eq!(kind_of(refused), "DependencyCycle");
        assert!(!bench.session.exists("c").unwrap());
    });
}

#[test]
fn test_asset_manager_volatile_no_cache() {
    on_both(|bench| {
        bench.session.put("k", Draft::from("x").status(Status::Volatile)).unwrap();
        assert_eq!(bench.miss("k"), Some(Miss::Volatile));
        assert!(bench.session.record("k").unwrap().is_volatile());
        bench.session.put("k", "set").unwrap();
        assert_eq!(bench.miss("k"), None);
    });
}

#[test]
fn test_failed_asset_get_returns_ok_error_state_and_keeps_its_log() {
    on_both(|bench| {
        bench.session.put("k", Draft::from("half").status(Status::Processing)).unwrap();
        bench.session.annotate("k", Annotation::new().log(LogKind::Info, "began")).unwrap();
        let failure =
            Annotation::new().status(Status::Error).log(LogKind::Error, "no leeks").message("no leeks");
        bench.session.annotate("k", failure).unwrap();
        assert_eq!(bench.miss("k"), Some(Miss::Status(Status::Error)));
        let record = bench.session.record("k").unwrap();
        assert_eq!(
            record.log().iter().map(|entry| entry.message.as_str()).collect::<Vec<_>>(),
            ["began", "no leeks"]
        );
        // Made again, it is good.
        bench.session.put("k", ready("whole")).unwrap();
        assert_eq!(bench.miss("k"), None);
    });
}

#[test]
fn expiration_times_are_in_their_order() {
    let ordered = [IMMEDIATELY, -1, 0, NEVER];
    assert!(ordered.is_sorted());
    on_both(|bench| {
        for (name, at) in [("never", NEVER), ("at", 5_000_000), ("immediately", IMMEDIATELY)] {
            bench.session.put(name, ready("x").with(|about| about.expires(at))).unwrap();
        }
        let due: Vec<_> =
            bench.larder.due(i64::MAX, 10).unwrap().into_iter().map(|due| due.key.to_string()).collect();
        assert_eq!(due, ["immediately", "at"]);
        assert_eq!(bench.miss("immediately"), Some(Miss::Expired));
    });
}

// ---- the known defects of Liquers' stores

#[test]
fn defect_1_a_crash_leaves_no_lock_behind() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    larder.session("ana").unwrap().put("k", "x").unwrap();
    let image = disk.durable();
    drop(larder);
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    larder.session("ana").unwrap().put("k", "y").unwrap();
}

#[test]
fn defect_2_3_what_was_put_is_on_disk_and_nothing_is_left_in_storing() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    larder.session("ana").unwrap().put("k", vec![7u8; 200_000]).unwrap();
    let image = disk.durable();
    drop(larder);
    let larder = FaultyDisk::holding(image, Plan::default()).open(still(), true).unwrap();
    let asset = larder.session("ana").unwrap().get("k").unwrap();
    assert_eq!((asset.record().status(), asset.bytes().unwrap().len()), (Status::Source, 200_000));
    verified(&larder);
}

#[test]
fn defect_4_metadata_of_nothing_make_no_phantom() {
    on_both(|bench| {
        assert_eq!(kind_of(bench.session.annotate("k", Annotation::new().title("a"))), "NotFound");
        assert!(!bench.session.exists("k").unwrap());
    });
}

#[test]
fn defect_5_6_listings_are_in_order_and_have_everything_once() {
    on_both(|bench| {
        for key in ["b/2", "a/b/c", "b/10", "a", "c", "a/b/d"] {
            bench.session.put(key, "x").unwrap();
        }
        let view = bench.session.snapshot().unwrap();
        let deep: Vec<_> = view.walk("").unwrap().map(|row| row.unwrap().0.to_string()).collect();
        assert_eq!(deep, ["a", "a/b/c", "a/b/d", "b/10", "b/2", "c"]);
        assert_eq!(bench.names(""), ["a", "b", "c"]);
    });
}

#[test]
fn defect_7_reading_changes_nothing() {
    on_both(|bench| {
        bench.session.put("k", ready("x")).unwrap();
        let before = bench.larder.info().unwrap().state;
        let _ = bench.session.get_loadable("k").unwrap();
        assert_eq!(kind_of(bench.session.get("k/meta")), "NotFound");
        assert_eq!(kind_of(bench.session.record("other")), "NotFound");
        let _ = bench.session.why("k").unwrap();
        bench.session.list("").unwrap();
        assert_eq!(bench.larder.info().unwrap().state, before);
    });
}

#[test]
fn defect_8_a_trailing_slash_is_told_and_data_come_with_their_metadata() {
    on_both(|bench| {
        assert_eq!(kind_of(bench.session.put("a/", "x")), "InvalidKey");
        assert!(bench.names("").is_empty());
    });
}

#[test]
fn defect_9_10_a_set_and_an_expiry_are_seen_at_once_however_hot_the_asset_is() {
    on_both(|bench| {
        bench.session.put("k", ready("one")).unwrap();
        for _ in 0..100 {
            assert_eq!(bench.text("k"), "one");
        }
        bench.larder.session("other").unwrap().put("k", ready("two")).unwrap();
        assert_eq!(bench.text("k"), "two");
        bench.larder.session("other").unwrap().expire("k").unwrap();
        assert_eq!(bench.miss("k"), Some(Miss::Expired));
    });
}
