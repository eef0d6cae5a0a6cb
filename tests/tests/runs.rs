//! The store of runs: what FlowStone asks for, scenario by scenario, in memory, on a file and on the images of crashes, each
//! with a full recount.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use larder::{
    Clock, Direction, DocumentKind, ErrorKind, Larder, ManualClock, Part, RowRange, Rows, Session, WriteTxn,
};
use larder_layers::outbox::Retry;
use larder_layers::queue::{Backoff, Enqueued, Message, Nack, QueueSettings, Queues, Requeued};
use larder_layers::rate::{Rate, RateLimit};
use larder_layers::runs::{
    ApprovalState, Asset, BarrierDraft, BarrierState, Decided, GateDraft, GateState, ItemState, LineageMode,
    MadeState, OnTimeout, Oversize, Produced, Progress, RunState, Runs, RunsError, Signaled, Slot, Ticket,
};
use larder_tests::{everywhere, in_memory, verified};

const SECOND: i64 = 1_000_000;

struct World<'w> {
    clock: &'w Arc<ManualClock>,
    ana: Session,
    runs: Runs,
}

impl<'w> World<'w> {
    fn new(larder: &'w Larder, clock: &'w Arc<ManualClock>) -> Self {
        Self { clock, ana: larder.session("ana").unwrap(), runs: Runs::at("runs").unwrap() }
    }

    fn act<R>(
        &self,
        act: impl FnOnce(&Runs, &mut WriteTxn<'_>) -> Result<R, RunsError>,
    ) -> Result<R, RunsError> {
        self.ana.try_write(|txn| act(&self.runs, txn)).map(|receipt| receipt.value)
    }

    fn start(&self, asset: &Asset, run: &str) -> Ticket {
        self.act(|runs, txn| runs.start(txn, asset, run)).unwrap()
    }

    fn make(&self, asset: &Asset, run: &str, value: &str, from: &[&Asset]) {
        let ticket = self.start(asset, run);
        let produced =
            Produced::new("text", value.to_owned()).from(from.iter().map(|asset| (*asset).clone()));
        let _ = self.act(|runs, txn| runs.commit(txn, &ticket, produced)).unwrap();
    }

    fn value(&self, asset: &Asset) -> Option<String> {
        let value = self.runs.value(&self.ana.snapshot().unwrap(), asset).unwrap();
        value.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn state(&self, asset: &Asset, run: &str) -> Option<MadeState> {
        self.runs.made(&self.ana.snapshot().unwrap(), asset, run).unwrap().map(|made| made.state)
    }

    fn events(&self, run: &str) -> Vec<String> {
        let view = self.ana.snapshot().unwrap();
        let (rows, _) = self.runs.audit(&view, Some(run), None, 100).unwrap();
        rows.into_iter().map(|row| row.event).collect()
    }

    fn barrier(&self, draft: &BarrierDraft, keys: &[Part]) -> u64 {
        self.act(|runs, txn| {
            let id = runs.open_barrier(txn, draft)?;
            let _ = runs.add_items(txn, id, keys, None)?;
            let _ = runs.close_barrier(txn, id)?;
            Ok(id)
        })
        .unwrap()
    }

    fn complete(&self, id: u64, key: impl Into<Part>) -> Result<Progress, RunsError> {
        let key = key.into();
        self.act(|runs, txn| runs.complete_item(txn, id, &key, format!("{key:?}")))
    }

    fn fail(&self, id: u64, key: impl Into<Part>) -> Result<Progress, RunsError> {
        self.act(|runs, txn| runs.fail_item(txn, id, &key.into(), "broken"))
    }

    fn counts(&self, id: u64) -> (u64, u64, u64) {
        let barrier = self.runs.barrier(&self.ana.snapshot().unwrap(), id).unwrap();
        (barrier.total, barrier.completed, barrier.failed)
    }

    fn barrier_state(&self, id: u64) -> BarrierState {
        self.runs.barrier(&self.ana.snapshot().unwrap(), id).unwrap().state
    }

    fn gate(&self, draft: &GateDraft) -> Result<(), RunsError> {
        self.act(|runs, txn| runs.open_gate(txn, draft))
    }

    fn signal(&self, run: &str, token: &str, payload: &str) -> Result<Signaled, RunsError> {
        self.act(|runs, txn| runs.signal(txn, run, token, payload.to_owned(), "10.0.0.1"))
    }

    fn gate_state(&self, run: &str, token: &str) -> Option<GateState> {
        self.runs.gate(&self.ana.snapshot().unwrap(), run, token).unwrap().map(|gate| gate.state)
    }
}

fn asset(name: &str) -> Asset {
    Asset::of(name, Part::Nil).unwrap()
}

fn part(name: &str, partition: impl Into<Part>) -> Asset {
    Asset::of(name, partition).unwrap()
}

fn keys(names: &[&str]) -> Vec<Part> {
    names.iter().map(|name| Part::from(*name)).collect()
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Whatever commit the store is at: what was made has its value, its lineage and its audit; and barriers are finished exactly
/// if their items are.
fn recount(larder: &Larder) {
    let ana = larder.session("ana").unwrap();
    let runs = Runs::at("runs").unwrap();
    let view = ana.snapshot().unwrap();
    if let Ok(mut rows) = view.collection("runs/made") {
        for row in rows.all(None, &RowRange::all()).unwrap() {
            let [Part::String(name), partition, Part::String(run)] = row.key().parts() else { panic!() };
            let asset = Asset::of(name.as_str(), partition.clone()).unwrap();
            let made = runs.made(&view, &asset, run).unwrap().unwrap();
            let (events, _) = runs.audit(&view, Some(run), None, 1_000).unwrap();
            let of_it = |event: &str| {
                events.iter().any(|row| row.event == event && row.asset.as_ref() == Some(&asset))
            };
            assert!(of_it("started"), "{made:?}");
            assert_eq!(
                made.state == MadeState::Success,
                made.ended.is_some() && of_it("made") && made.reason.is_none()
            );
        }
    }
    // By the order of the audit: how many edges what was made last of an asset should have.
    let (audit, _) = runs.audit(&view, None, None, 10_000).unwrap();
    let mut latest: BTreeMap<Asset, u64> = BTreeMap::new();
    let made = audit.into_iter().filter(|row| row.event == "made").collect::<Vec<_>>();
    let last_run: BTreeMap<Asset, String> =
        made.iter().map(|row| (row.asset.clone().unwrap(), row.run.clone())).collect();
    for row in made {
        let asset = row.asset.unwrap();
        let Some(made) = runs.made(&view, &asset, &row.run).unwrap() else {
            // Removed with its run, because the asset was made by another one after it.
            assert_ne!(last_run[&asset], row.run, "{asset}");
            continue;
        };
        if made.state == MadeState::Success {
            latest.insert(asset, made.from);
        }
    }
    for (asset, from) in latest {
        let edges = runs.edges(&view, &asset, Direction::Up).unwrap();
        assert_eq!(edges.len() as u64, from, "{asset}: {edges:?}");
        for (up, _) in edges {
            let down = runs.edges(&view, &up, Direction::Down).unwrap();
            assert!(down.iter().any(|(_, to)| *to == asset), "an edge is seen from both ends");
        }
    }
    if let Ok(mut rows) = view.collection("runs/barriers") {
        for row in rows.all(None, &RowRange::all().with("b")).unwrap() {
            let Part::Integer(id) = row.key().parts()[1] else { panic!() };
            let barrier = runs.barrier(&view, id as u64).unwrap();
            let items = runs.items(&view, barrier.id).unwrap();
            let count = |state| items.iter().filter(|item| item.state == state).count() as u64;
            assert_eq!(barrier.total, items.len() as u64);
            assert_eq!(barrier.completed, count(ItemState::Completed));
            assert_eq!(barrier.failed, count(ItemState::Failed));
            let is_done = barrier.is_closed && barrier.completed + barrier.failed == barrier.total;
            assert!(barrier.state != BarrierState::Open || !is_done, "{barrier:?}");
            assert_eq!(barrier.until.is_some(), barrier.state == BarrierState::Open);
            let places: Vec<u64> = items.iter().map(|item| item.place).collect();
            // Of a run that is over, they are perhaps being removed.
            let run = runs.run(&view, &barrier.run).unwrap();
            if run.is_none_or(|run| run.state == RunState::Running) {
                assert_eq!(places, (0..barrier.total).collect::<Vec<_>>());
            }
        }
    }
}

fn play(scenario: impl Fn(&World<'_>)) {
    everywhere(|larder, clock| scenario(&World::new(larder, clock)), recount);
}

// Partitions.

/// S1-6: partition_test. Other than there, a number, a text and a symbol are three partitions, and so are nil and "".
#[test]
fn s1_6_partitions_are_typed_and_come_back_as_they_were() {
    play(|world| {
        let date = larder::format::Date::new(2024, 1, 1).unwrap();
        let time = larder::format::Time::new(1).unwrap();
        let zoned = larder::format::ZonedInstant::new(0, 1, "Europe/Berlin").unwrap();
        let partitions: Vec<Part> = vec![
            Part::Nil,
            "".into(),
            1.into(),
            "1".into(),
            Part::Symbol("1".to_owned()),
            1.0.into(),
            true.into(),
            "true".into(),
            date.into(),
            "2024-01-01".into(),
            Part::List(vec![1.into(), 2.into()]),
            vec![date.into(), Part::List(vec![Part::Nil])].into(),
            "a|b:c/d\0\u{ff}".into(),
            "e\u{301}".into(),
            "\u{e9}".into(),
            time.into(),
            larder::format::LocalDateTime { date, time }.into(),
            zoned.into(),
            vec![0xff_u8, 0].into(),
        ];
        for (number, partition) in partitions.iter().enumerate() {
            let (it, before) = (part("a", partition.clone()), asset("source"));
            world.make(&it, "r", &number.to_string(), &[&before]);
        }
        let view = world.ana.snapshot().unwrap();
        for (number, partition) in partitions.iter().enumerate() {
            assert_eq!(world.value(&part("a", partition.clone())), Some(number.to_string()));
        }
        let made: BTreeSet<Asset> =
            world.runs.made_in(&view, "r").unwrap().into_iter().map(|made| made.asset).collect();
        let below = world.runs.downstream(&view, &asset("source"), 100).unwrap();
        let below: BTreeSet<Asset> = below.into_iter().map(|made| made.asset).collect();
        assert_eq!((made.len(), &made), (partitions.len(), &below), "type-exact in keys and in lineage");
    });
}

/// S1-6b, S1-6d, X-8.
#[test]
fn s1_6_partitions_that_cannot_be_part_of_a_key_are_refused() {
    let nested = |depth: usize| (0..depth).fold(Part::from(1), |part, _| Part::List(vec![part]));
    assert!(Asset::of("a", nested(16)).is_ok());
    let name_of = |result: Result<Asset, RunsError>| match result.unwrap_err() {
        RunsError::InvalidName { argument, .. } => argument,
        other => panic!("{other}"),
    };
    assert_eq!(name_of(Asset::of("a", nested(17))), "partition");
    assert!(Asset::of("a", "x".repeat(1_022)).is_ok());
    assert_eq!(name_of(Asset::of("a", "x".repeat(1_023))), "partition");
    assert_eq!(name_of(Asset::of("a", f64::NAN)), "partition");
    for name in ["", "  ", &"n".repeat(256), "a\nb"] {
        assert_eq!(name_of(Asset::of(name, Part::Nil)), "asset");
    }
    // The deepest and the longest can be made, and have lineage.
    play(|world| {
        let (deep, long) = (part("a", nested(16)), part(&"n".repeat(255), "x".repeat(1_022)));
        world.make(&deep, &"r".repeat(255), "deep", &[&long]);
        world.make(&long, "r", "long", &[&deep]);
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.runs.upstream(&view, &deep, 1).unwrap()[0].asset, long);
    });
}

// Making.

/// materialization_store_test: records start, success, failure; S1-6g: nothing is a partition, too.
#[test]
fn materializations_have_one_row_for_asset_partition_and_run() {
    play(|world| {
        let it = asset("a");
        let ticket = world.start(&it, "r1");
        assert_eq!(world.state(&it, "r1"), Some(MadeState::Running));
        let again = world.act(|runs, txn| runs.start(txn, &it, "r1"));
        assert!(matches!(again, Err(RunsError::AlreadyRunning { .. })));
        world.clock.advance(7 * SECOND);
        let produced = Produced::new("json", "{}").metadata("made well").hash([1, 2]);
        let committed = world.act(|runs, txn| runs.commit(txn, &ticket, produced)).unwrap();
        assert_eq!(committed.duration, 7 * SECOND);
        let view = world.ana.snapshot().unwrap();
        let made = world.runs.made(&view, &it, "r1").unwrap().unwrap();
        assert_eq!(
            (made.state, &made.metadata[..], made.hash),
            (MadeState::Success, &b"made well"[..], Some(vec![1, 2]))
        );
        assert_eq!(made.by, "ana");
        let value = world.runs.value(&view, &it).unwrap().unwrap();
        assert_eq!(
            (value.0.as_str(), &value.1[..]),
            ("json", &b"{}"[..]),
            "S1-4b: the format is kept with the value"
        );
        let ticket = world.start(&it, "r2");
        world.act(|runs, txn| runs.fail(txn, &ticket, "out of soup")).unwrap();
        let view = world.ana.snapshot().unwrap();
        let latest = world.runs.latest(&view, &it).unwrap().unwrap();
        assert_eq!(
            (latest.run.as_str(), latest.state, latest.reason.as_deref()),
            ("r2", MadeState::Failed, Some("out of soup"))
        );
        assert_eq!(world.value(&it).as_deref(), Some("{}"), "what was made before stays");
        let late = world.act(|runs, txn| runs.commit(txn, &ticket, Produced::new("json", "late")));
        assert!(matches!(late, Err(RunsError::Fenced { .. })));
        assert_eq!(world.events("r2"), ["started", "failed"]);
        let count = |state| world.runs.count(&world.ana.snapshot().unwrap(), state).unwrap();
        assert_eq!(
            (count(MadeState::Success), count(MadeState::Failed), count(MadeState::Running)),
            (1, 1, 0)
        );
    });
}

/// S1-2c: who is past his time is taken over, and late.
#[test]
fn s1_2_a_partition_that_hangs_is_made_by_another() {
    play(|world| {
        let it = part("a", 1);
        let ticket = world.start(&it, "r");
        world.clock.advance(30 * 60 * SECOND - 1);
        assert!(world.act(|runs, txn| runs.start(txn, &it, "r")).is_err());
        world.act(|runs, txn| runs.renew(txn, &ticket, minutes(1))).unwrap();
        world.clock.advance(60 * SECOND);
        let health =
            |world: &World<'_>| world.runs.health(&world.ana.snapshot().unwrap(), world.clock.now()).unwrap();
        assert_eq!((health(world).overdue, health(world).is_well()), (1, false));
        let other = world.start(&it, "r");
        assert_eq!(health(world).overdue, 0);
        let late = world.act(|runs, txn| runs.commit(txn, &ticket, Produced::new("t", "late")));
        assert!(matches!(late, Err(RunsError::Fenced { .. })));
        assert!(matches!(world.act(|runs, txn| runs.fail(txn, &ticket, "x")), Err(RunsError::Fenced { .. })));
        let _ = world.act(|runs, txn| runs.commit(txn, &other, Produced::new("t", "good"))).unwrap();
        assert_eq!(world.value(&it).as_deref(), Some("good"));
    });
}

/// lineage_test; lineage_persistence_repo_test; executor_lineage_test: depth 1 and 2, and what is below, with its state.
#[test]
fn lineage_recursive_upstream_downstream_and_impact() {
    play(|world| {
        let (raw, clean, report) = (part("raw", 1), part("clean", 1), asset("report"));
        world.make(&raw, "r", "1", &[]);
        world.make(&clean, "r", "2", &[&raw]);
        world.make(&report, "r", "3", &[&clean, &raw]);
        let failing = world.start(&report, "r2");
        world.act(|runs, txn| runs.fail(txn, &failing, "no")).unwrap();
        let view = world.ana.snapshot().unwrap();
        let up = |it: &Asset, depth| {
            let made = world.runs.upstream(&view, it, depth).unwrap();
            made.into_iter().map(|made| (made.asset, made.depth)).collect::<Vec<_>>()
        };
        assert_eq!(up(&report, 100), [(clean.clone(), 1), (raw.clone(), 1)], "a diamond shows each once");
        assert_eq!(up(&clean, 1), [(raw.clone(), 1)]);
        assert_eq!(up(&raw, 1), []);
        let impact = world.runs.impact(&view, &raw, 100).unwrap();
        let impact: Vec<_> = impact.into_iter().map(|one| (one.asset, one.depth, one.state)).collect();
        assert_eq!(
            impact,
            [(clean.clone(), 1, Some(MadeState::Success)), (report.clone(), 1, Some(MadeState::Failed))]
        );
        // Made again from something else: the old edge goes.
        assert!(!world.runs.is_stale(&view, &clean).unwrap());
        drop(view);
        world.make(&raw, "r3", "1b", &[]);
        let view = world.ana.snapshot().unwrap();
        assert!(world.runs.is_stale(&view, &clean).unwrap() && world.runs.is_stale(&view, &report).unwrap());
        drop(view);
        world.make(&report, "r3", "3b", &[&clean]);
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.runs.upstream(&view, &report, 1).unwrap().len(), 1);
        assert_eq!(world.runs.upstream(&view, &report, 2).unwrap().len(), 2);
    });
}

/// S1-9: what cannot be written of five edges, because a rule does not let it be.
#[test]
fn s1_9_without_lineage_there_is_no_success_unless_that_is_what_was_asked_for() {
    let larder = in_memory();
    let runs = Runs::at("runs").unwrap();
    let (bob, root) = (larder.session("bob").unwrap(), larder.root().unwrap());
    let it = part("a", 1);
    let from: Vec<Asset> = (0..5).map(|n| part("source", n)).collect();
    // The collections are there; what was made first has no lineage.
    let ticket = root.try_write(|txn| runs.start(txn, &it, "r0")).unwrap().value;
    let _ = root.try_write(|txn| runs.commit(txn, &ticket, Produced::new("t", "0"))).unwrap();
    let rules = r#"
        default = "allow"
        [[rule]]
        deny = ["write"]
        who = ["bob"]
        on = "runs/lineage"
    "#;
    root.set_document(DocumentKind::Rules, rules).unwrap();
    let ticket = bob.try_write(|txn| runs.start(txn, &it, "r1")).unwrap().value;
    let made = |mode| Produced::new("t", "1").from(from.clone()).lineage_mode(mode);
    let refused = bob.try_write(|txn| runs.commit(txn, &ticket, made(LineageMode::Atomic))).unwrap_err();
    let RunsError::Lineage { source } = refused else { panic!("{refused}") };
    assert!(matches!(source.kind(), ErrorKind::AccessDenied { .. }), "{source}");
    let value = |larder: &Larder| {
        let view = larder.root().unwrap().snapshot().unwrap();
        assert!(runs.edges(&view, &it, Direction::Up).unwrap().is_empty());
        let state = runs.made(&view, &it, "r1").unwrap().unwrap().state;
        (state, runs.value(&view, &it).unwrap().unwrap().1)
    };
    assert_eq!(value(&larder), (MadeState::Running, "0".into()));
    let committed =
        bob.try_write(|txn| runs.commit(txn, &ticket, made(LineageMode::BestEffort))).unwrap().value;
    assert!(committed.lineage_error.is_some());
    assert_eq!(value(&larder), (MadeState::Success, "1".into()));
    let (rows, _) = runs.audit(&root.snapshot().unwrap(), Some("r1"), None, 10).unwrap();
    let events: Vec<&str> = rows.iter().map(|row| row.event.as_str()).collect();
    assert_eq!(events, ["started", "lineage failed", "made"]);
    // Nor where the lineage is out of reach altogether.
    root.set_document(DocumentKind::Rules, &rules.replace("\"write\"", "\"list\", \"read\", \"write\""))
        .unwrap();
    let ticket = bob.try_write(|txn| runs.start(txn, &it, "r1")).unwrap().value;
    let committed =
        bob.try_write(|txn| runs.commit(txn, &ticket, made(LineageMode::BestEffort))).unwrap().value;
    assert!(committed.lineage_error.is_some());
    recount(&larder);
    verified(&larder);
}

/// S1-4: whoever lost his ticket while an approval was waited for left what nobody could make, or say of that it has failed.
#[test]
fn s1_4_what_waits_for_approval_can_be_taken_up_by_another() {
    play(|world| {
        let asset = part("a", 1);
        assert!(matches!(
            world.act(|runs, txn| runs.take_up(txn, &asset, "r")).unwrap_err(),
            RunsError::InvalidState { .. }
        ));
        let lost = world.start(&asset, "r");
        assert!(world.act(|runs, txn| runs.take_up(txn, &asset, "r")).is_err(), "somebody is at it");
        world.act(|runs, txn| runs.wait_for_approval(txn, &lost)).unwrap();
        let ticket = world.act(|runs, txn| runs.take_up(txn, &asset, "r")).unwrap();
        let produced = || Produced::new("text", "x");
        assert!(matches!(
            world.act(|runs, txn| runs.commit(txn, &lost, produced())).unwrap_err(),
            RunsError::Fenced { .. }
        ));
        let _ = world.act(|runs, txn| runs.commit(txn, &ticket, produced())).unwrap();
        assert_eq!(world.state(&asset, "r"), Some(MadeState::Success));
    });
}

/// What was made from what it was before was stale at once, and for ever.
#[test]
fn s1_4_what_was_made_from_itself_is_not_stale() {
    play(|world| {
        let (sum, item) = (part("sum", 1), part("item", 1));
        world.make(&item, "r", "1", &[]);
        world.make(&sum, "r", "1", &[&sum, &item]);
        let is_stale = |asset: &Asset| world.runs.is_stale(&world.ana.snapshot().unwrap(), asset).unwrap();
        assert!(!is_stale(&sum));
        world.make(&item, "s", "2", &[]);
        assert!(is_stale(&sum));
        world.make(&sum, "s", "3", &[&sum, &item]);
        assert!(!is_stale(&sum));
    });
}

/// S1-9: whatever can be an asset can be made from whatever can be one.
#[test]
fn s1_9_the_longest_assets_have_lineage() {
    play(|world| {
        let long = |name: &str| part(&name.repeat(255), "\0".repeat(510));
        world.make(&long("a"), "r", "x", &[&long("b"), &long("a")]);
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.runs.edges(&view, &long("a"), Direction::Up).unwrap().len(), 2);
    });
}

/// S1-4a, S1-4c: what cannot be encoded leaves everything as it was.
#[test]
fn s1_4_a_value_that_cannot_be_made_changes_nothing() {
    play(|world| {
        let five: Vec<Asset> = (0..5).map(|n| part("a", n)).collect();
        world.make(&five[0], "r0", "before", &[]);
        let outcome: Result<(), RunsError> = world.act(|runs, txn| {
            for (number, it) in five.iter().enumerate() {
                let ticket = runs.start(txn, it, "r")?;
                let value = match number {
                    2 => vec![0; (16 << 20) + 1],
                    _ => b"ok".to_vec(),
                };
                let _ = runs.commit(txn, &ticket, Produced::new("binary", value))?;
            }
            Ok(())
        });
        assert!(matches!(outcome, Err(RunsError::ValueTooLarge { .. })));
        assert_eq!(world.value(&five[0]).as_deref(), Some("before"));
        assert!(five[1..].iter().all(|it| world.value(it).is_none()));
        assert_eq!(world.state(&five[0], "r"), None);
    });
}

// Routes.

/// routing_test: route decisions are persisted and reused, skips unselected branches without IO writes, optional deps pass nil.
#[test]
fn s1_10_routes_are_decided_once_and_kept_as_long_as_their_run_goes_on() {
    play(|world| {
        let router = part("router", Part::Nil);
        let route =
            |run: &str, it: &Asset, branch| world.act(|runs, txn| runs.route(txn, run, it, branch)).unwrap();
        let first = route("r1", &router, Some("left"));
        assert_eq!((first.branch.as_deref(), first.is_new), (Some("left"), true));
        let again = route("r1", &router, Some("right"));
        assert_eq!(
            (again.branch.as_deref(), again.is_new),
            (Some("left"), false),
            "S1-10g: also without a partition"
        );
        assert_eq!(route("r1", &part("router", 1), None).branch, None);
        assert_eq!(route("r1", &part("router", 1), Some("left")).branch, None, "none is a choice, too");
        assert!(route("r2", &router, Some("right")).is_new);
        // What is not chosen is skipped, and nothing is written for it.
        let right = asset("right");
        world.act(|runs, txn| runs.skip(txn, &right, "r1", "not chosen")).unwrap();
        assert_eq!((world.state(&right, "r1"), world.value(&right)), (Some(MadeState::Skipped), None));
        // Retention.
        world.act(|runs, txn| runs.set_run(txn, "r1", RunState::Running)).unwrap();
        world.act(|runs, txn| runs.set_run(txn, "r2", RunState::Succeeded)).unwrap();
        let forget = |run: &str| world.act(|runs, txn| runs.forget_routes_of(txn, run, 100));
        assert!(matches!(forget("r1"), Err(RunsError::InvalidState { .. })), "it would choose again");
        world.clock.advance(SECOND);
        let now = world.clock.now();
        let forget_before = |time| world.act(|runs, txn| runs.forget_routes_before(txn, time, 1)).unwrap();
        assert_eq!(forget_before(now - SECOND), 0, "what is exactly so old stays");
        assert_eq!(forget_before(now), 1, "those of the run that goes on are passed over");
        assert_eq!(forget_before(now), 0);
        let view = world.ana.snapshot().unwrap();
        assert!(world.runs.chosen(&view, "r2", &router, now).unwrap().is_none());
        assert_eq!(
            world.runs.chosen(&view, "r1", &router, now).unwrap().unwrap().branch.as_deref(),
            Some("left")
        );
        drop(view);
        world.act(|runs, txn| runs.set_run(txn, "r1", RunState::Failed)).unwrap();
        assert_eq!(forget("r1").unwrap(), 2);
    });
}

// Barriers.

/// scatter_test: create_barrier, complete, gather, status.
#[test]
fn scatter_create_complete_and_gather_when_all_complete() {
    play(|world| {
        let id = world.barrier(&BarrierDraft::new("r", asset("a")), &keys(&["x", "y", "z"]));
        assert_eq!(world.counts(id), (3, 0, 0));
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.runs.items_in(&view, id, ItemState::Pending, 10).unwrap().len(), 3);
        drop(view);
        assert_eq!(world.complete(id, "z").unwrap(), Progress::Open { left: 2 });
        assert_eq!(world.complete(id, "x").unwrap(), Progress::Open { left: 1 });
        assert_eq!(world.complete(id, "x").unwrap(), Progress::AlreadyDone(ItemState::Completed));
        assert_eq!(world.fail(id, "x").unwrap(), Progress::AlreadyDone(ItemState::Completed));
        assert_eq!(world.counts(id), (3, 2, 0), "counted once");
        assert!(matches!(world.complete(id, "nobody"), Err(RunsError::NotFound { what: "item", .. })));
        assert!(matches!(world.complete(id + 1, "x"), Err(RunsError::NotFound { what: "barrier", .. })));
        let join = |id| world.act(|runs, txn| runs.join(txn, id));
        assert!(matches!(join(id), Err(RunsError::InvalidState { .. })));
        assert_eq!(world.complete(id, "y").unwrap(), Progress::Finished(BarrierState::Completed));
        assert_eq!(world.complete(id, "y").unwrap(), Progress::AlreadyDone(ItemState::Completed));
        assert_eq!([join(id).unwrap(), join(id).unwrap()], [true, false]);
        let items = world.runs.items(&world.ana.snapshot().unwrap(), id).unwrap();
        let gathered: Vec<_> = items.iter().map(|item| (item.key.clone(), item.result.clone())).collect();
        let expected = keys(&["x", "y", "z"]).into_iter().map(|key| (key.clone(), format!("{key:?}").into()));
        assert_eq!(gathered, expected.collect::<Vec<_>>(), "in the order in which they were added");
    });
}

#[test]
fn scatter_fail_increments_and_the_threshold_decides() {
    play(|world| {
        for (threshold, failing, state) in [
            (0.0, 0, BarrierState::Completed),
            (0.0, 1, BarrierState::Failed),
            (0.5, 2, BarrierState::PartialFailure),
            (0.5, 3, BarrierState::Failed),
            (1.0, 4, BarrierState::PartialFailure),
        ] {
            let draft = BarrierDraft::new("r", asset("a")).threshold(threshold);
            let id = world.barrier(&draft, &keys(&["0", "1", "2", "3"]));
            let mut last = None;
            for n in 0..4 {
                let name = n.to_string();
                let progress = if n < failing {
                    world.fail(id, name.as_str())
                } else {
                    world.complete(id, name.as_str())
                };
                last = Some(progress.unwrap());
            }
            assert_eq!(last, Some(Progress::Finished(state)), "{threshold} {failing}");
            assert_eq!(world.counts(id), (4, 4 - failing, failing));
        }
        for threshold in [-0.1, 1.1, f64::NAN] {
            let draft = BarrierDraft::new("r", asset("a")).threshold(threshold);
            let refused = world.act(|runs, txn| runs.open_barrier(txn, &draft));
            assert!(matches!(refused, Err(RunsError::InvalidName { argument: "threshold", .. })));
        }
    });
}

#[test]
fn scatter_cancel_fails_what_is_pending_and_nothing_comes_after() {
    play(|world| {
        let id = world.barrier(&BarrierDraft::new("r", asset("a")), &keys(&["x", "y", "z"]));
        let _ = world.complete(id, "x").unwrap();
        let taken = world.act(|runs, txn| runs.take_items(txn, id, 1)).unwrap();
        assert_eq!((taken[0].key.clone(), taken[0].state), (Part::from("y"), ItemState::Executing));
        assert_eq!(world.act(|runs, txn| runs.cancel_barrier(txn, id)).unwrap().items, 2);
        assert_eq!((world.counts(id), world.barrier_state(id)), ((3, 1, 2), BarrierState::Cancelled));
        assert_eq!(world.complete(id, "y").unwrap(), Progress::AlreadyDone(ItemState::Failed));
        let refused = |result: Result<(), RunsError>| {
            assert!(matches!(result, Err(RunsError::InvalidState { state: "cancelled", .. })), "{result:?}");
        };
        refused(world.act(|runs, txn| runs.cancel_barrier(txn, id).map(drop)));
        refused(world.act(|runs, txn| runs.add_items(txn, id, &keys(&["w"]), None).map(|_| ())));
        refused(world.act(|runs, txn| runs.close_barrier(txn, id).map(|_| ())));
        refused(world.act(|runs, txn| runs.take_items(txn, id, 1).map(drop)));
    });
}

/// S1-12.
#[test]
fn s1_12_keys_have_a_limit_and_are_told_apart_by_all_of_them() {
    play(|world| {
        let draft = BarrierDraft::new("r", asset("a")).key_length_max(1_000, Oversize::Refuse);
        let key = |length: usize, end: &str| Part::from("k".repeat(length - 2 - end.len()) + end);
        let id = world.act(|runs, txn| runs.open_barrier(txn, &draft)).unwrap();
        let add = |id, keys: &[Part]| world.act(|runs, txn| runs.add_items(txn, id, keys, None));
        let mut hundred: Vec<Part> = (0..99).map(Part::from).collect();
        hundred.push(key(1_001, ""));
        let refused = add(id, &hundred).unwrap_err();
        assert!(
            matches!(refused, RunsError::KeyTooLarge { index: 99, size: 1_001, limit: 1_000, .. }),
            "{refused}"
        );
        assert_eq!(world.counts(id), (0, 0, 0), "none of a hundred");
        assert_eq!(add(id, &[key(1_000, "")]).unwrap().added, 1);
        let warning = BarrierDraft::new("r", asset("a")).key_length_max(1_000, Oversize::Warn);
        let id = world.act(|runs, txn| runs.open_barrier(txn, &warning)).unwrap();
        let added = add(id, &[key(3_500, "a"), key(3_500, "b"), Part::from(1)]).unwrap();
        assert_eq!((added.added, added.oversize), (3, 2), "a long common beginning makes no difference");
        assert!(matches!(add(id, &[key(3_501, "")]), Err(RunsError::KeyTooLarge { .. })));
        // Ten of a hundred are there twice.
        let id = world.act(|runs, txn| runs.open_barrier(txn, &BarrierDraft::new("r", asset("a")))).unwrap();
        let hundred: Vec<Part> = (0..100).map(|n| Part::from(n % 90)).collect();
        let added = add(id, &hundred).unwrap();
        assert_eq!((added.added, added.duplicates, world.counts(id).0), (90, 10, 90));
    });
}

/// item_reader_test: checkpoint and restore resume reads; reader errors propagate.
#[test]
fn scatter_items_and_the_readers_checkpoint_are_one_commit() {
    play(|world| {
        let id = world.act(|runs, txn| runs.open_barrier(txn, &BarrierDraft::new("r", asset("a")))).unwrap();
        let page = |from: u64| -> Vec<Part> { (from..from + 10).map(Part::from).collect() };
        let read = |from: u64, fails: bool| {
            world.act(|runs, txn| {
                let added = runs.add_items(txn, id, &page(from), Some((from + 10).to_string().into()))?;
                if fails { Err(RunsError::Malformed { what: "the source" }) } else { Ok(added) }
            })
        };
        let _ = read(0, false).unwrap();
        assert!(read(10, true).is_err());
        // Who comes up again goes on where the checkpoint says; a page that is read twice adds nothing.
        let checkpoint = |world: &World<'_>| {
            let barrier = world.runs.barrier(&world.ana.snapshot().unwrap(), id).unwrap();
            std::str::from_utf8(&barrier.checkpoint).unwrap().parse::<u64>().unwrap()
        };
        assert_eq!((checkpoint(world), world.counts(id).0), (10, 10));
        assert_eq!(read(checkpoint(world), false).unwrap().added, 10);
        assert_eq!(read(10, false).unwrap().duplicates, 10);
        assert_eq!((checkpoint(world), world.counts(id).0), (20, 20));
        for n in 0..20 {
            let progress = world.complete(id, n).unwrap();
            assert_eq!(progress, Progress::Open { left: 19 - n }, "more may come");
        }
        let closed = world.act(|runs, txn| runs.close_barrier(txn, id)).unwrap();
        assert_eq!(closed, Progress::Finished(BarrierState::Completed));
        // One without items is done when it is closed.
        let id = world.act(|runs, txn| runs.open_barrier(txn, &BarrierDraft::new("r", asset("b")))).unwrap();
        let closed = world.act(|runs, txn| runs.close_barrier(txn, id)).unwrap();
        assert_eq!(closed, Progress::Finished(BarrierState::Completed));
    });
}

/// item_reader_test: distributed mode creates parent and sub barriers; batching.
#[test]
fn scatter_barriers_can_be_items_of_others() {
    play(|world| {
        let parent =
            world.barrier(&BarrierDraft::new("r", asset("all")).threshold(0.5), &[0.into(), 1.into()]);
        let draft = |n: u64| BarrierDraft::new("r", asset("part")).under(parent, n).batch(2);
        let orphan = world.act(|runs, txn| runs.open_barrier(txn, &draft(7)));
        assert!(matches!(orphan, Err(RunsError::NotFound { what: "item", .. })));
        let children: Vec<u64> = (0..2).map(|n| world.barrier(&draft(n), &keys(&["x", "y", "z"]))).collect();
        let batches: Vec<u64> = world
            .runs
            .items(&world.ana.snapshot().unwrap(), children[0])
            .unwrap()
            .iter()
            .map(|item| item.batch)
            .collect();
        assert_eq!(batches, [0, 0, 1]);
        for key in ["x", "y", "z"] {
            let _ = world.complete(children[0], key).unwrap();
        }
        assert_eq!((world.counts(parent), world.barrier_state(parent)), ((2, 1, 0), BarrierState::Open));
        let second = world.act(|runs, txn| runs.open_barrier(txn, &draft(1)));
        assert!(matches!(second, Err(RunsError::InvalidState { .. })), "it has one: {second:?}");
        let off = world.act(|runs, txn| runs.cancel_barrier(txn, children[1])).unwrap();
        assert_eq!(off.items, 3);
        let ended = [(children[1], BarrierState::Cancelled), (parent, BarrierState::PartialFailure)];
        assert_eq!(off.ended, ended);
        assert_eq!(
            (world.counts(parent), world.barrier_state(parent)),
            ((2, 1, 1), BarrierState::PartialFailure)
        );
        let orphan = world.act(|runs, txn| runs.open_barrier(txn, &draft(7)));
        assert!(matches!(orphan, Err(RunsError::InvalidState { .. })), "it is over");
        let barriers = world.runs.barriers(&world.ana.snapshot().unwrap(), "r").unwrap();
        assert_eq!(barriers.len(), 3);
        assert_eq!(barriers[1].parent, Some((parent, 0.into())));
    });
}

#[test]
fn scatter_a_barrier_whose_time_is_over_has_failed() {
    play(|world| {
        let id = world.barrier(&BarrierDraft::new("r", asset("a")).time(minutes(5)), &keys(&["x", "y"]));
        let _ = world.complete(id, "x").unwrap();
        let sweep = || world.act(|runs, txn| runs.sweep_barriers(txn, 10)).unwrap();
        world.clock.advance(5 * 60 * SECOND - 1);
        assert_eq!(sweep(), Vec::<u64>::new());
        world.clock.advance(1);
        assert_eq!((sweep(), sweep()), (vec![id], vec![]));
        assert_eq!((world.counts(id), world.barrier_state(id)), ((2, 1, 1), BarrierState::Failed));
    });
}

/// parallel_branches_test: stores joined result when all branches succeed; all_or_nothing; lineage includes branch final assets.
#[test]
fn parallel_branches_are_joined_exactly_once() {
    play(|world| {
        let branches = [asset("left"), asset("right")];
        let id = world.barrier(&BarrierDraft::new("r", asset("joined")), &keys(&["left", "right"]));
        for (branch, name) in branches.iter().zip(["left", "right"]) {
            let ticket = world.start(branch, "r");
            // The branch's value and its arrival are one commit.
            world
                .act(|runs, txn| {
                    let _ = runs.commit(txn, &ticket, Produced::new("t", name))?;
                    runs.complete_item(txn, id, &name.into(), "")
                })
                .map(|_| ())
                .unwrap();
        }
        let joined = asset("joined");
        let ticket = world.start(&joined, "r");
        let join = || {
            world.act(|runs, txn| {
                if !runs.join(txn, id)? {
                    return Ok(false);
                }
                let made = Produced::new("t", "both").from(branches.clone());
                let _ = runs.commit(txn, &ticket, made)?;
                Ok(true)
            })
        };
        assert_eq!((join().unwrap(), join().unwrap()), (true, false));
        let view = world.ana.snapshot().unwrap();
        let up = world.runs.upstream(&view, &joined, 1).unwrap();
        assert_eq!(up.into_iter().map(|made| made.asset).collect::<Vec<_>>(), branches);
    });
}

// Gates.

/// S1-5a: signal_gate_test: create, get_by_token.
#[test]
fn s1_5_a_token_is_of_its_run_and_there_once() {
    play(|world| {
        world.gate(&GateDraft::new("run1", "t").of(vec!["a".into(), Part::Nil])).unwrap();
        let again = world.gate(&GateDraft::new("run1", "t")).unwrap_err();
        assert!(matches!(&again, RunsError::Duplicate { owner, .. } if owner.contains('a')), "{again}");
        world.gate(&GateDraft::new("run2", "t")).unwrap();
        assert_eq!(world.signal("run1", "t", "yes").unwrap(), Signaled::First);
        assert_eq!(world.gate_state("run2", "t"), Some(GateState::Waiting));
        assert!(
            matches!(world.gate(&GateDraft::new("run1", "t")), Err(RunsError::Duplicate { .. })),
            "also when it is over"
        );
        // S1-5f: one gate for what waits.
        let second = world.gate(&GateDraft::new("run1", "u").of(vec!["a".into(), Part::Nil]));
        assert!(matches!(second, Err(RunsError::Duplicate { .. })));
        assert_eq!(world.gate_state("run1", "u"), None);
        let gate = world.runs.gate(&world.ana.snapshot().unwrap(), "run1", "t").unwrap().unwrap();
        assert_eq!(
            (&gate.payload[..], gate.source.as_str(), gate.signaled),
            (&b"yes"[..], "10.0.0.1", Some(world.clock.now()))
        );
    });
}

/// S1-5b: and what is tampered with, or cannot be a token, opens nothing.
#[test]
fn s1_5_tokens_that_cannot_be_one_are_refused() {
    play(|world| {
        for token in ["", "   ", "a\0b", &"t".repeat(1_025), &"t".repeat(4_097)] {
            let refused = world.gate(&GateDraft::new("r", token));
            assert!(matches!(refused, Err(RunsError::InvalidName { argument: "token", .. })), "{token:?}");
            assert!(matches!(world.signal("r", token, ""), Err(RunsError::NotFound { .. })));
            assert_eq!(world.gate_state("r", token), None);
        }
        world.gate(&GateDraft::new("r", "t".repeat(1_024))).unwrap();
        world.gate(&GateDraft::new("r", "a.b.c")).unwrap();
        assert!(matches!(world.signal("r", "a.b.d", ""), Err(RunsError::NotFound { .. })));
        assert_eq!(world.signal("r", "a.b.c", "").unwrap(), Signaled::First);
    });
}

/// S1-5c, S1-5d: receive_signal: record; already signaled; cancel.
#[test]
fn s1_5_a_gate_is_opened_once() {
    play(|world| {
        world.gate(&GateDraft::new("r", "t")).unwrap();
        assert_eq!(world.signal("r", "t", "first").unwrap(), Signaled::First);
        assert_eq!(world.signal("r", "t", "second").unwrap(), Signaled::Already);
        let cancel = |token: &str| world.act(|runs, txn| runs.cancel_gate(txn, "r", token));
        assert!(matches!(cancel("t"), Err(RunsError::InvalidState { state: "signaled", .. })));
        let gate = world.runs.gate(&world.ana.snapshot().unwrap(), "r", "t").unwrap().unwrap();
        assert_eq!(&gate.payload[..], b"first");
        world.gate(&GateDraft::new("r", "u")).unwrap();
        cancel("u").unwrap();
        assert!(matches!(
            world.signal("r", "u", ""),
            Err(RunsError::InvalidState { state: "cancelled", .. })
        ));
        assert_eq!(world.act(|runs, txn| runs.remove_gates(txn, "r")).unwrap(), 2);
    });
}

/// S1-5e: handle_timeout: timeout; retries when configured; list_waiting.
#[test]
fn s1_5_a_gates_time_and_its_waiting_again_move_together() {
    play(|world| {
        world.gate(&GateDraft::new("r", "fails")).unwrap();
        world.gate(&GateDraft::new("r", "cancels").on_timeout(OnTimeout::Cancel)).unwrap();
        world.gate(&GateDraft::new("r", "retries").on_timeout(OnTimeout::RETRY)).unwrap();
        let sweep = || {
            let swept = world.act(|runs, txn| runs.sweep_gates(txn, 10)).unwrap();
            (swept.timed_out, swept.cancelled, swept.retried)
        };
        world.clock.advance(3_599 * SECOND);
        assert_eq!(sweep(), (0, 0, 0));
        world.clock.advance(SECOND);
        assert_eq!(sweep(), (1, 1, 1));
        assert_eq!(world.gate_state("r", "fails"), Some(GateState::TimedOut));
        assert_eq!(world.gate_state("r", "cancels"), Some(GateState::Cancelled));
        for wait in [5 * 60, 15 * 60] {
            let gate = world.runs.gate(&world.ana.snapshot().unwrap(), "r", "retries").unwrap().unwrap();
            assert_eq!(gate.until, Some(world.clock.now() + wait * SECOND));
            world.clock.advance(wait * SECOND - 1);
            assert_eq!(sweep(), (0, 0, 0));
            world.clock.advance(1);
            assert_eq!(sweep(), (0, 0, 1));
        }
        let waiting = world.runs.gates(&world.ana.snapshot().unwrap(), GateState::Waiting, 10).unwrap();
        assert_eq!(waiting.len(), 1);
        world.clock.advance(45 * 60 * SECOND - 1);
        assert_eq!(world.signal("r", "retries", "at last").unwrap(), Signaled::First);
        world.clock.advance(SECOND);
        assert_eq!(sweep(), (0, 0, 0));
        // And when it has waited as often as it may, it has timed out.
        let retry = Retry { backoff: Backoff::fixed(minutes(1)), retries_max: 1 };
        let draft = GateDraft::new("r", "once").time(minutes(1)).on_timeout(OnTimeout::Retry(retry));
        world.gate(&draft).unwrap();
        for swept in [(0, 0, 1), (1, 0, 0), (0, 0, 0)] {
            world.clock.advance(60 * SECOND);
            assert_eq!(sweep(), swept);
        }
        assert!(matches!(
            world.signal("r", "once", ""),
            Err(RunsError::InvalidState { state: "timed out", .. })
        ));
    });
}

// Approvals.

/// approvals_test, checkpoint_test.
#[test]
fn approvals_are_decided_once() {
    play(|world| {
        let it = asset("a");
        let ticket = world.start(&it, "r");
        let ask = |name: &str| {
            world.act(|runs, txn| runs.request_approval(txn, "a", name, "look at this", minutes(60))).unwrap()
        };
        world.act(|runs, txn| runs.wait_for_approval(txn, &ticket)).unwrap();
        let ids: Vec<u64> = ["one", "two", "three", "four"].into_iter().map(ask).collect();
        let decide = |id, decided: Decided| world.act(|runs, txn| runs.decide(txn, id, &decided));
        // The decision and what follows from it are one commit.
        world
            .act(|runs, txn| {
                runs.decide(txn, ids[0], &Decided::Approved)?;
                runs.commit(txn, &ticket, Produced::new("t", "good"))
            })
            .map(drop)
            .unwrap();
        assert!(matches!(
            decide(ids[0], Decided::Approved),
            Err(RunsError::InvalidState { state: "approved", .. })
        ));
        decide(ids[1], Decided::Rejected("too much salt".to_owned())).unwrap();
        world.act(|runs, txn| runs.escalate(txn, ids[2], "chef", minutes(120))).unwrap();
        decide(ids[2], Decided::Modified("less salt".into())).unwrap();
        let escalated = world.act(|runs, txn| runs.escalate(txn, ids[2], "owner", minutes(1)));
        assert!(matches!(escalated, Err(RunsError::InvalidState { state: "modified", .. })));
        world.clock.advance(3_600 * SECOND);
        let expire = || world.act(|runs, txn| runs.expire_approvals(txn, 10)).unwrap();
        assert_eq!((expire(), expire()), (vec![ids[3]], vec![]));
        assert!(matches!(
            decide(ids[3], Decided::Approved),
            Err(RunsError::InvalidState { state: "expired", .. })
        ));
        assert!(matches!(decide(1_234, Decided::Approved), Err(RunsError::NotFound { .. })));
        let view = world.ana.snapshot().unwrap();
        let get = |id| world.runs.approval(&view, id).unwrap().unwrap();
        assert_eq!((get(ids[0]).by.as_deref(), get(ids[0]).state), (Some("ana"), ApprovalState::Approved));
        assert_eq!(get(ids[1]).reason.as_deref(), Some("too much salt"));
        assert_eq!((get(ids[2]).escalated_to.as_deref(), get(ids[2]).escalations), (Some("chef"), 1));
        assert_eq!((&get(ids[2]).context[..], get(ids[2]).until), (&b"less salt"[..], None));
        assert!(world.runs.approvals(&view, ApprovalState::Pending, 10).unwrap().is_empty());
    });
}

// Plans.

/// S1-2a, S1-2d: backfill_planner_test: skips existing partitions unless forced.
#[test]
fn s1_2_a_backfill_names_what_is_missing_one_after_the_other() {
    play(|world| {
        for n in 0..4 {
            world.make(&part("a", n * 2), "r", "x", &[]);
        }
        let view = world.ana.snapshot().unwrap();
        let missing = |is_forced| {
            let partitions = (0..10).map(Part::from);
            let names = world.runs.missing(&view, "a", partitions, is_forced);
            names.map(|name| name.unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(missing(false), ["a[1]", "a[3]", "a[5]", "a[7]", "a[8]", "a[9]"]);
        assert_eq!(missing(true).len(), 10);
        // What cannot be a partition is told in its place, and does not keep the others.
        let odd = [Part::from(1), Part::from(f64::NAN), Part::from(3)];
        let outcomes: Vec<bool> =
            world.runs.missing(&view, "a", odd, false).map(|outcome| outcome.is_ok()).collect();
        assert_eq!(outcomes, [true, false, true]);
    });
}

/// S1-2b: slots of a name, which survive a crash by their time.
#[test]
fn s1_2_slots_are_so_many_and_come_back_with_time() {
    play(|world| {
        let take = |holder: String| {
            world.act(|runs, txn| runs.take_slot(txn, "backfill", 32, &holder, minutes(30))).unwrap()
        };
        let taken: Vec<Option<Slot>> = (0..100).map(|n| take(format!("w{n}"))).collect();
        assert_eq!(taken.iter().flatten().count(), 32);
        for slot in taken.iter().flatten().take(10) {
            assert!(world.act(|runs, txn| runs.release_slot(txn, slot)).unwrap());
            assert!(!world.act(|runs, txn| runs.release_slot(txn, slot)).unwrap());
        }
        let more = (100..200).filter_map(|n| take(format!("w{n}"))).count();
        assert_eq!(more, 10);
        world.clock.advance(30 * 60 * SECOND);
        let again = (200..300).filter_map(|n| take(format!("w{n}"))).count();
        assert_eq!(again, 32, "all of them are past their time");
        let late = taken[15].as_ref().unwrap();
        assert!(!world.act(|runs, txn| runs.holds_slot(txn, late)).unwrap());
    });
}

/// api_test: exists, invalidate, status; different partitions store separate results; re-runs.
#[test]
fn values_exist_until_they_are_invalidated() {
    play(|world| {
        for n in 0..3 {
            world.make(&part("a", n), "r", &n.to_string(), &[]);
        }
        world.make(&part("ab", 0), "r", "other", &[]);
        let exists = |it: &Asset| world.runs.exists(&world.ana.snapshot().unwrap(), it).unwrap();
        assert!(exists(&part("a", 1)) && !exists(&part("a", 7)) && !exists(&part("a", "1")));
        let invalidate = |partition: Option<Part>| {
            world.act(|runs, txn| runs.invalidate(txn, "a", partition.as_ref())).unwrap()
        };
        assert_eq!((invalidate(Some(1.into())), invalidate(Some(1.into())), invalidate(None)), (1, 0, 2));
        assert!(!exists(&part("a", 0)) && exists(&part("ab", 0)));
        assert_eq!(world.state(&part("a", 0), "r"), Some(MadeState::Success), "that it was made is known");
        world.make(&part("a", 0), "r", "again", &[]);
        assert_eq!(world.value(&part("a", 0)).as_deref(), Some("again"));
    });
}

#[test]
fn a_dependency_hash_changes_when_something_is_made_again() {
    play(|world| {
        let from = [part("a", 1), part("b", 1)];
        let hash = || world.runs.dependency_hash(&world.ana.snapshot().unwrap(), &from).unwrap();
        let none = hash();
        world.make(&from[0], "r", "1", &[]);
        let one = hash();
        assert_eq!(one, hash());
        world.make(&from[1], "r", "1", &[]);
        let both = hash();
        world.make(&from[0], "r2", "1", &[]);
        assert_eq!(BTreeSet::from([none, one, both, hash()]).len(), 4);
    });
}

/// run_index_emission_test, schedule_store_test, RunConfig.
#[test]
fn runs_steps_configurations_and_schedules() {
    play(|world| {
        let set = |run: &str, state| world.act(|runs, txn| runs.set_run(txn, run, state)).unwrap();
        set("r1", RunState::Running);
        set("r2", RunState::Running);
        world.clock.advance(SECOND);
        set("r1", RunState::Succeeded);
        let view = world.ana.snapshot().unwrap();
        let run = world.runs.run(&view, "r1").unwrap().unwrap();
        assert_eq!(
            (run.state, run.ended.map(|ended| ended - run.started)),
            (RunState::Succeeded, Some(SECOND))
        );
        assert_eq!(world.runs.runs(&view, RunState::Running, None, 10).unwrap().0[0].name, "r2");
        drop(view);
        for known in ["first", "second"] {
            world.act(|runs, txn| runs.set_step(txn, "r1", "load", known)).unwrap();
        }
        let steps = world.runs.steps(&world.ana.snapshot().unwrap(), "r1").unwrap();
        assert_eq!(steps, [("load".to_owned(), "second".into())], "by its id, not one more");
        world.act(|runs, txn| runs.set_config(txn, "r1", "{}", minutes(60))).unwrap();
        let config = |world: &World<'_>| {
            world.runs.config(&world.ana.snapshot().unwrap(), "r1", world.clock.now()).unwrap()
        };
        world.clock.advance(3_599 * SECOND);
        assert_eq!(config(world), Some("{}".into()));
        world.clock.advance(SECOND);
        assert_eq!(config(world), None, "before anybody has swept");
        assert_eq!(world.act(|runs, txn| runs.sweep_configs(txn, 10)).unwrap(), 1);
        let now = world.clock.now();
        world.act(|runs, txn| runs.set_schedule(txn, "daily", now, "cursor 1")).unwrap();
        world.act(|runs, txn| runs.set_schedule(txn, "later", now + SECOND, "")).unwrap();
        let due = world.runs.due_schedules(&world.ana.snapshot().unwrap(), now, 10).unwrap();
        assert_eq!((due.len(), &due[0].state[..], due[0].last), (1, &b"cursor 1"[..], None));
        let advance = || world.act(|runs, txn| runs.advance(txn, &due[0], now + 86_400 * SECOND)).unwrap();
        assert_eq!((advance(), advance()), (true, false), "of two who saw it, one does it");
        let due = world.runs.due_schedules(&world.ana.snapshot().unwrap(), now + SECOND, 10).unwrap();
        assert_eq!(due.iter().map(|schedule| schedule.name.as_str()).collect::<Vec<_>>(), ["later"]);
        let health = world.runs.health(&world.ana.snapshot().unwrap(), now + SECOND).unwrap();
        assert_eq!((health.runs, health.due_schedules, health.is_well()), (1, 1, true));
    });
}

/// S1-3: asset_worker_test: snoozes when dependency missing (30 s), uses exponential backoff: jobs are messages of a queue.
#[test]
fn s1_3_jobs_have_their_retries_and_their_names() {
    play(|world| {
        let jobs = Queues::at("jobs").unwrap().queue("assets").unwrap();
        let write = |act: &dyn Fn(&mut WriteTxn<'_>) -> Result<(), larder_layers::queue::QueueError>| {
            world.ana.try_write(|txn| act(txn)).unwrap();
        };
        write(&|txn| jobs.create(txn, &QueueSettings::new()).map(drop));
        let seconds = Duration::from_secs;
        let enqueue = |run: &str| {
            let message = Message::new("a|1")
                .attempts_max(10)
                .backoff(Backoff::exponential(seconds(30), 3, seconds(300)))
                .dedupe(format!("a 1 {run}"), seconds(60));
            world.ana.try_write(|txn| jobs.enqueue(txn, message)).unwrap().value
        };
        let first = enqueue("r1");
        assert!(matches!(first, Enqueued::New(_)));
        world.clock.advance(59 * SECOND);
        assert_eq!(enqueue("r1"), Enqueued::Duplicate(first.id()));
        assert!(matches!(enqueue("r2"), Enqueued::New(_)), "another run");
        world.clock.advance(2 * SECOND);
        assert!(matches!(enqueue("r1"), Enqueued::New(_)));
        let take = || world.ana.try_write(|txn| jobs.dequeue(txn)).unwrap().value;
        // Snoozed: given back for 30 s.
        let taken = take().unwrap();
        let nack = Nack::new().delay(seconds(30));
        let given = world.ana.try_write(|txn| jobs.nack(txn, taken.token(), &nack)).unwrap().value;
        assert_eq!(given, Requeued::Delayed { until: world.clock.now() + 30 * SECOND });
        let other = take().unwrap();
        for (at, wait) in [30, 90, 270, 300, 300, 300, 300, 300, 300].into_iter().enumerate() {
            let token = if at == 0 {
                other.token()
            } else {
                world.clock.advance(SECOND * wait_before(at));
                let again = std::iter::from_fn(take).find(|message| message.id == other.id);
                again.expect("it is due").token()
            };
            let given = world.ana.try_write(|txn| jobs.nack(txn, token, &Nack::new())).unwrap().value;
            assert_eq!(given, Requeued::Delayed { until: world.clock.now() + wait * SECOND });
        }
        world.clock.advance(300 * SECOND);
        let last = std::iter::from_fn(take).find(|message| message.id == other.id).unwrap();
        let given = world.ana.try_write(|txn| jobs.nack(txn, last.token(), &Nack::new())).unwrap().value;
        assert_eq!((last.attempts, given), (10, Requeued::Dead));
    });
}

fn wait_before(at: usize) -> i64 {
    [0, 30, 90, 270, 300, 300, 300, 300, 300][at]
}

/// rate_limiter_test: check; a slot is given back on error, too.
#[test]
fn rates_and_slots_of_a_bucket() {
    play(|world| {
        let limit = RateLimit::new("runs/rates", 100, Duration::from_secs(60)).unwrap();
        let take = || world.ana.write(|txn| limit.take(txn, "api")).unwrap().value;
        let ok = (0..100).filter(|_| matches!(take(), Rate::Ok { .. })).count();
        assert_eq!((ok, take()), (100, Rate::Limited { until: world.clock.now() + 60 * SECOND }));
        world.clock.advance(60 * SECOND);
        assert_eq!(take(), Rate::Ok { left: 99 });
        // What is done with a slot and fails leaves it as it was.
        let outcome: Result<(), RunsError> = world.act(|runs, txn| {
            assert!(runs.take_slot(txn, "db", 1, "w1", minutes(1))?.is_some());
            Err(RunsError::Malformed { what: "the work" })
        });
        assert!(outcome.is_err());
        assert!(world.act(|runs, txn| runs.take_slot(txn, "db", 1, "w2", minutes(1))).unwrap().is_some());
        assert!(world.act(|runs, txn| runs.take_slot(txn, "db", 1, "w3", minutes(1))).unwrap().is_none());
    });
}

/// audit_log_context_test: in the same commit, by whom, and trimmed by age.
#[test]
fn audit_says_who_did_what_and_is_trimmed_by_age() {
    play(|world| {
        let it = part("a", 1);
        world.make(&it, "r", "x", &[]);
        let view = world.ana.snapshot().unwrap();
        let (rows, next) = world.runs.audit(&view, None, None, 1).unwrap();
        assert_eq!(
            (rows[0].actor.as_str(), rows[0].event.as_str(), rows[0].asset.as_ref()),
            ("ana", "started", Some(&it))
        );
        let (rows, _) = world.runs.audit(&view, None, next, 10).unwrap();
        assert_eq!(rows.len(), 1);
        drop(view);
        let now = world.clock.now();
        let remove = |time| world.act(|runs, txn| runs.remove_audit_before(txn, time, 10)).unwrap();
        assert_eq!(remove(now), 0);
        world.act(|runs, txn| runs.skip(txn, &it, "r2", "no")).unwrap();
        assert_eq!(world.events("r2"), ["started", "skipped"]);
    });
}

/// What waits for somebody's approval is made by nobody else.
#[test]
fn what_waits_for_approval_is_not_begun_again() {
    play(|world| {
        let it = asset("a");
        let ticket = world.start(&it, "r");
        world.act(|runs, txn| runs.wait_for_approval(txn, &ticket)).unwrap();
        world.clock.advance(86_400 * SECOND);
        let again = world.act(|runs, txn| runs.start(txn, &it, "r")).unwrap_err();
        assert!(matches!(again, RunsError::InvalidState { state: "waiting for approval", .. }), "{again}");
        assert!(world.act(|runs, txn| runs.skip(txn, &it, "r", "no")).is_err());
        let _ = world.act(|runs, txn| runs.commit(txn, &ticket, Produced::new("t", "good"))).unwrap();
    });
}

/// What was made from a value that had been replaced meanwhile is stale, unless it is known which one was read.
#[test]
fn what_was_made_from_an_old_value_is_stale() {
    play(|world| {
        let (orders, report) = (asset("orders"), asset("report"));
        world.make(&orders, "r", "v1", &[]);
        let stale = |world: &World<'_>| world.runs.is_stale(&world.ana.snapshot().unwrap(), &report).unwrap();
        let ticket = world.start(&report, "r");
        world.make(&orders, "r2", "v2", &[]);
        let made = Produced::new("t", "of v1").from([orders.clone()]);
        let _ = world.act(|runs, txn| runs.commit(txn, &ticket, made)).unwrap();
        assert!(stale(world));
        let ticket = world.start(&report, "r3");
        world.make(&orders, "r3", "v3", &[]);
        let version = world.runs.version(&world.ana.snapshot().unwrap(), &orders).unwrap().unwrap();
        let made = Produced::new("t", "of v3").from_version(orders.clone(), version);
        let _ = world.act(|runs, txn| runs.commit(txn, &ticket, made)).unwrap();
        assert!(!stale(world));
        world.make(&orders, "r4", "v4", &[]);
        assert!(stale(world));
    });
}

/// Slots of a name are of one store.
#[test]
fn slots_of_two_stores_are_two() {
    play(|world| {
        let other = Runs::at("other").unwrap();
        let take = |runs: &Runs, holder: &str| {
            world
                .ana
                .try_write(|txn| runs.take_slot(txn, "db", 1, holder, minutes(1)))
                .unwrap()
                .value
                .is_some()
        };
        assert!(take(&world.runs, "w1") && take(&other, "w1"));
        assert!(!take(&world.runs, "w2") && !take(&other, "w2"));
    });
}

/// However large a barrier is, calling it off is one row; and what is an item of it gives nothing out any more.
#[test]
fn scatter_a_large_barrier_is_called_off_at_once() {
    play(|world| {
        let parent = world.barrier(&BarrierDraft::new("r", asset("all")), &[1.into(), 2.into()]);
        let many: Vec<Part> = (0..2_000).map(Part::from).collect();
        let child = world.barrier(&BarrierDraft::new("r", asset("part")).under(parent, 1), &many);
        let taken = world.act(|runs, txn| runs.take_items(txn, child, 3)).unwrap();
        let _ = world.complete(child, 0).unwrap();
        assert!(world.act(|runs, txn| runs.release_item(txn, child, &taken[1].key)).unwrap());
        assert!(!world.act(|runs, txn| runs.release_item(txn, child, &taken[1].key)).unwrap());
        let again = world.act(|runs, txn| runs.take_items(txn, child, 1)).unwrap();
        assert_eq!(again[0].key, taken[1].key, "in its old place");
        assert_eq!(world.act(|runs, txn| runs.take_items(txn, child, 0)).unwrap(), []);
        assert_eq!(world.act(|runs, txn| runs.cancel_barrier(txn, parent)).unwrap().items, 2);
        let refused = world.act(|runs, txn| runs.take_items(txn, child, 1));
        assert!(matches!(refused, Err(RunsError::InvalidState { state: "cancelled", .. })), "{refused:?}");
        assert_eq!(world.act(|runs, txn| runs.cancel_barrier(txn, child)).unwrap().items, 1_999);
        assert_eq!(world.counts(child), (2_000, 1, 1_999));
        let view = world.ana.snapshot().unwrap();
        let count = |state| world.runs.items_in(&view, child, state, 10_000).unwrap().len();
        assert_eq!(
            (count(ItemState::Pending), count(ItemState::Completed), count(ItemState::Failed)),
            (0, 1, 1_999)
        );
        assert!(
            world
                .act(|runs, txn| runs.open_barrier(txn, &BarrierDraft::new("r", asset("x")).under(parent, 2)))
                .is_err()
        );
    });
}

/// Whoever finishes a barrier that finishes others is told of all.
#[test]
fn scatter_who_finishes_barriers_above_is_told() {
    play(|world| {
        let top = world.barrier(&BarrierDraft::new("r", asset("top")), &keys(&["m"]));
        let mid = world.barrier(&BarrierDraft::new("r", asset("mid")).under(top, "m"), &keys(&["l"]));
        let low = world.barrier(&BarrierDraft::new("r", asset("low")).under(mid, "l"), &keys(&["x"]));
        let all = [low, mid, top].map(|id| (id, BarrierState::Completed)).to_vec();
        assert_eq!(world.complete(low, "x").unwrap(), Progress::FinishedUpTo(all));
    });
}

/// A run of which nothing was said goes on as long as somebody is at something of it.
#[test]
fn s1_10_routes_of_a_run_that_nobody_registered_are_kept_while_it_goes_on() {
    play(|world| {
        let (it, router) = (asset("a"), asset("router"));
        let ticket = world.start(&it, "r");
        let _ = world.act(|runs, txn| runs.route(txn, "r", &router, Some("left"))).unwrap();
        world.clock.advance(SECOND);
        let forget = || {
            let now = world.clock.now();
            world.act(|runs, txn| runs.forget_routes_before(txn, now, 10)).unwrap()
        };
        assert_eq!(forget(), 0);
        world.act(|runs, txn| runs.fail(txn, &ticket, &"\u{1f980}".repeat(2_000))).unwrap();
        assert_eq!(forget(), 1);
    });
}

/// A token is as good as a key: whoever asks for a second gate of the same is not told the first one's.
#[test]
fn s1_5_an_error_does_not_tell_a_token() {
    play(|world| {
        world.gate(&GateDraft::new("r", "very-secret").of("a")).unwrap();
        let error = world.gate(&GateDraft::new("r", "other").of("a")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("very-secret"), "{error:?}");
    });
}

/// S1-5c, S1-10f, X-7: of many at once, one.
#[test]
fn x_7_of_many_who_say_join_or_decide_the_same_one_is_first() {
    let rounds = if cfg!(debug_assertions) { 20 } else { 1_000 };
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let runs = Runs::at("runs").unwrap();
    for round in 0..rounds {
        let run = format!("r{round}");
        ana.try_write(|txn| runs.open_gate(txn, &GateDraft::new(run.as_str(), "t"))).unwrap();
        let id = ana
            .try_write(|txn| {
                let id = runs.open_barrier(txn, &BarrierDraft::new(run.as_str(), asset("a")))?;
                runs.close_barrier(txn, id).map(|_| id)
            })
            .unwrap()
            .value;
        let firsts: Vec<(bool, bool, Option<String>, bool)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread: u64| {
                    let (ana, runs, run) = (&ana, &runs, run.as_str());
                    scope.spawn(move || {
                        let payload = thread.to_string();
                        let signaled =
                            ana.try_write(|txn| runs.signal(txn, run, "t", payload.clone(), "")).unwrap();
                        let joined = ana.try_write(|txn| runs.join(txn, id)).unwrap();
                        let route =
                            ana.try_write(|txn| runs.route(txn, run, &asset("router"), Some(&payload)));
                        let route = route.unwrap().value;
                        (signaled.value == Signaled::First, joined.value, route.branch, route.is_new)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(firsts.iter().filter(|first| first.0).count(), 1);
        assert_eq!(firsts.iter().filter(|first| first.1).count(), 1);
        assert_eq!(firsts.iter().filter(|first| first.3).count(), 1);
        let branches: BTreeSet<_> = firsts.iter().map(|first| first.2.clone()).collect();
        assert_eq!(branches.len(), 1, "all go the same way");
        let gate = runs.gate(&ana.snapshot().unwrap(), &run, "t").unwrap().unwrap();
        let winner = firsts.iter().position(|first| first.0).unwrap();
        assert_eq!(&gate.payload[..], winner.to_string().as_bytes());
    }
    recount(&larder);
    verified(&larder);
}

#[test]
fn s1_10_what_is_known_of_a_run_that_is_over_can_be_removed() {
    play(|world| {
        let (orders, report) = (asset("orders"), asset("report"));
        for run in ["r1", "r2"] {
            world.act(|runs, txn| runs.set_run(txn, run, RunState::Running)).unwrap();
            world.make(&orders, run, run, &[]);
        }
        world.make(&report, "r1", "only here", &[&orders]);
        let above = world.barrier(&BarrierDraft::new("r1", orders.clone()), &keys(&["a", "b"]));
        let below =
            world.barrier(&BarrierDraft::new("r2", orders.clone()).under(above, "a"), &keys(&["x", "y"]));
        world.gate(&GateDraft::new("r1", "token")).unwrap();
        world.gate(&GateDraft::new("r1", "waits")).unwrap();
        let _ = world.signal("r1", "token", "").unwrap();
        // Of a run that nobody registered, what is waited for says that it goes on.
        assert!(matches!(
            world.act(|runs, txn| {
                runs.open_gate(txn, &GateDraft::new("r3", "token"))?;
                runs.remove_run(txn, "r3", 10)
            }),
            Err(RunsError::InvalidState { what: "the run", .. })
        ));
        world.act(|runs, txn| runs.set_step(txn, "r1", "first", "known")).unwrap();
        world.act(|runs, txn| runs.set_config(txn, "r1", "flags", minutes(10))).unwrap();
        let _ = world.act(|runs, txn| runs.route(txn, "r1", &orders, Some("left"))).unwrap();
        let remove = |run: &str, limit| world.act(|runs, txn| runs.remove_run(txn, run, limit));
        assert!(matches!(remove("r1", 10), Err(RunsError::InvalidState { what: "the run", .. })));
        world.act(|runs, txn| runs.set_run(txn, "r1", RunState::Succeeded)).unwrap();
        // A route, a gate, a step, the configuration, one of the two materializations: two at a time.
        assert_eq!([(); 4].map(|()| remove("r1", 2).unwrap()), [2, 2, 1, 0]);
        assert_eq!(world.runs.barriers(&world.ana.snapshot().unwrap(), "r1").unwrap().len(), 1, "it is open");
        let _ = world.act(|runs, txn| runs.cancel_barrier(txn, above)).unwrap();
        assert_eq!([(); 3].map(|()| remove("r1", 2).unwrap()), [2, 1, 0], "two items and their barrier");
        let view = world.ana.snapshot().unwrap();
        assert!(world.runs.barriers(&view, "r1").unwrap().is_empty());
        assert!(world.runs.gate(&view, "r1", "token").unwrap().is_none());
        assert!(world.runs.gate(&view, "r1", "waits").unwrap().is_some());
        assert!(world.runs.steps(&view, "r1").unwrap().is_empty());
        assert!(world.runs.chosen(&view, "r1", &orders, world.clock.now()).unwrap().is_none());
        assert_eq!(
            (world.state(&orders, "r1"), world.state(&orders, "r2")),
            (None, Some(MadeState::Success))
        );
        assert_eq!(world.state(&report, "r1"), Some(MadeState::Success), "the last of its asset stays");
        assert!(world.runs.run(&view, "r1").unwrap().is_some(), "and its run");
        assert_eq!(world.value(&report).as_deref(), Some("only here"));
        assert_eq!(world.runs.upstream(&view, &report, 9).unwrap().len(), 1);
        drop(view);
        // What was an item of it ends all the same.
        let _ = world.complete(below, "x").unwrap();
        assert_eq!(world.complete(below, "y").unwrap(), Progress::Finished(BarrierState::Completed));
        // What was tried without success leaves what says how the value was made.
        let ticket = world.start(&report, "r2");
        world.act(|runs, txn| runs.fail(txn, &ticket, "no leeks")).unwrap();
        assert_eq!(remove("r1", 10).unwrap(), 0);
        world.make(&report, "r2", "again", &[]);
        world.act(|runs, txn| runs.cancel_gate(txn, "r1", "waits")).unwrap();
        assert_eq!(remove("r1", 10).unwrap(), 3, "the last materialization, the gate and the run");
        let view = world.ana.snapshot().unwrap();
        assert!(world.runs.run(&view, "r1").unwrap().is_none());
        assert!(world.runs.made_in(&view, "r1").unwrap().is_empty());
        assert_eq!(world.runs.barriers(&view, "r2").unwrap().len(), 1);
    });
}

#[test]
fn approvals_are_removed_by_when_they_were_decided() {
    play(|world| {
        let request =
            |of: i64| world.act(|runs, txn| runs.request_approval(txn, of, "ship", "", minutes(1))).unwrap();
        let ids = [1, 2, 3, 4].map(request);
        for id in &ids[..2] {
            world.act(|runs, txn| runs.decide(txn, *id, &Decided::Approved)).unwrap();
        }
        world.clock.advance(SECOND);
        let later = world.clock.now();
        world.act(|runs, txn| runs.decide(txn, ids[2], &Decided::Rejected("no".into()))).unwrap();
        let remove =
            |time, limit| world.act(|runs, txn| runs.remove_approvals_before(txn, time, limit)).unwrap();
        assert_eq!([remove(later, 1), remove(later, 5), remove(later, 5)], [1, 1, 0]);
        assert_eq!(remove(later + 1, 5), 1);
        let view = world.ana.snapshot().unwrap();
        let left = ids.map(|id| world.runs.approval(&view, id).unwrap().map(|approval| approval.state));
        assert_eq!(left, [None, None, None, Some(ApprovalState::Pending)], "what is open stays");
    });
}
