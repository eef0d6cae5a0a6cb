//! T47: random programs over runs, against a model of a few maps that knows of no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use larder::{Clock, ManualClock, Part, Session, WriteTxn};
use larder_layers::outbox::Retry;
use larder_layers::queue::Backoff;
use larder_layers::runs::{
    Asset, BarrierDraft, BarrierId, BarrierState, GateDraft, GateState, ItemState, MadeState, OnTimeout,
    Produced, Progress, Runs, RunsError, Signaled, Ticket,
};
use larder_tests::{Random, still, verified};

const SECOND: i64 = 1_000_000;
const PROGRAMS: u64 = if cfg!(debug_assertions) { 15 } else { 300 };
const STEPS: usize = 80;

struct World {
    larder: larder::Larder,
    clock: Arc<ManualClock>,
    ana: Session,
    runs: Runs,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(SECOND));
        let larder = still().clock(clock.clone()).open_in_memory().unwrap();
        let ana = larder.session("ana").unwrap();
        Self { larder, clock, ana, runs: Runs::at("runs").unwrap() }
    }

    fn act<R>(
        &self,
        act: impl FnOnce(&Runs, &mut WriteTxn<'_>) -> Result<R, RunsError>,
    ) -> Result<R, RunsError> {
        self.ana.try_write(|txn| act(&self.runs, txn)).map(|receipt| receipt.value)
    }
}

#[derive(Clone)]
struct ModelBarrier {
    state: BarrierState,
    is_closed: bool,
    half_may_fail: bool,
    items: BTreeMap<u64, ItemState>,
    parent: Option<(BarrierId, u64)>,
}

impl ModelBarrier {
    fn is_done(&self) -> bool {
        self.is_closed && self.items.values().all(|state| is_over(*state))
    }

    fn outcome(&self) -> BarrierState {
        let failed = self.items.values().filter(|state| **state == ItemState::Failed).count();
        match failed {
            0 => BarrierState::Completed,
            failed if self.half_may_fail && failed * 2 <= self.items.len() => BarrierState::PartialFailure,
            _ => BarrierState::Failed,
        }
    }
}

fn is_over(state: ItemState) -> bool {
    matches!(state, ItemState::Completed | ItemState::Failed)
}

type Barriers = BTreeMap<BarrierId, ModelBarrier>;

/// Ends a barrier, and those above that are done with it; gives all of them.
fn end(barriers: &mut Barriers, id: BarrierId, state: BarrierState) -> Vec<(BarrierId, BarrierState)> {
    let barrier = barriers.get_mut(&id).unwrap();
    barrier.state = state;
    for item in barrier.items.values_mut().filter(|item| !is_over(**item)) {
        *item = ItemState::Failed;
    }
    let mut ended = vec![(id, state)];
    if let Some((above, key)) = barrier.parent {
        let is_good = matches!(state, BarrierState::Completed | BarrierState::PartialFailure);
        let parent = barriers.get_mut(&above).unwrap();
        if parent.state == BarrierState::Open && !is_over(parent.items[&key]) {
            parent.items.insert(key, if is_good { ItemState::Completed } else { ItemState::Failed });
            if parent.is_done() {
                let outcome = parent.outcome();
                ended.extend(end(barriers, above, outcome));
            }
        }
    }
    ended
}

fn progress(barriers: &mut Barriers, id: BarrierId) -> Progress {
    let barrier = &barriers[&id];
    if !barrier.is_done() {
        let left = barrier.items.values().filter(|state| !is_over(**state)).count() as u64;
        return Progress::Open { left };
    }
    let outcome = barrier.outcome();
    let ended = end(barriers, id, outcome);
    if ended.len() > 1 { Progress::FinishedUpTo(ended) } else { Progress::Finished(outcome) }
}

/// T47.
#[test]
fn t47_barriers_are_those_of_a_model() {
    for seed in 0..PROGRAMS {
        let (world, mut random, mut model) = (World::new(), Random::new(4_700 + seed), Barriers::new());
        for step in 0..STEPS {
            let ids: Vec<BarrierId> = model.keys().copied().collect();
            let id = ids.get(random.below(ids.len().max(1))).copied().unwrap_or(0);
            let key = random.below(6) as u64;
            let is_open = model.get(&id).is_some_and(|barrier| barrier.state == BarrierState::Open);
            match random.below(8) {
                0 => {
                    let half_may_fail = random.percent(50);
                    let asset = Asset::of("a", Part::Nil).unwrap();
                    let draft =
                        BarrierDraft::new("r", asset).threshold(if half_may_fail { 0.5 } else { 0.0 });
                    let above = random.percent(50).then_some((id, key));
                    let draft = above.iter().fold(draft, |draft, (id, key)| draft.under(*id, *key));
                    let opened = world.act(|runs, txn| runs.open_barrier(txn, &draft));
                    let may = above.is_none_or(|(id, key)| {
                        let item = model.get(&id).and_then(|barrier| barrier.items.get(&key));
                        let has_one = model.values().any(|barrier| barrier.parent == Some((id, key)));
                        is_open && item.is_some_and(|item| !is_over(*item)) && !has_one
                    });
                    assert_eq!(opened.is_ok(), may, "seed {seed}, step {step}: {opened:?}");
                    if let Ok(id) = opened {
                        let (state, items) = (BarrierState::Open, BTreeMap::new());
                        let barrier =
                            ModelBarrier { state, is_closed: false, half_may_fail, items, parent: above };
                        model.insert(id, barrier);
                    }
                }
                1 | 2 if !ids.is_empty() => {
                    let keys: Vec<Part> = (0..=key).map(Part::from).collect();
                    let added = world.act(|runs, txn| runs.add_items(txn, id, &keys, None));
                    let barrier = model.get_mut(&id).unwrap();
                    assert_eq!(added.is_ok(), is_open && !barrier.is_closed);
                    if let Ok(added) = added {
                        let before = barrier.items.len() as u64;
                        for key in 0..=key {
                            barrier.items.entry(key).or_insert(ItemState::Pending);
                        }
                        assert_eq!(added.added, barrier.items.len() as u64 - before);
                        assert_eq!(added.duplicates, key + 1 - added.added);
                    }
                }
                3 if !ids.is_empty() => {
                    let closed = world.act(|runs, txn| runs.close_barrier(txn, id));
                    assert_eq!(closed.is_ok(), is_open);
                    if let Ok(closed) = closed {
                        model.get_mut(&id).unwrap().is_closed = true;
                        assert_eq!(closed, progress(&mut model, id), "seed {seed}, step {step}");
                    }
                }
                4 if !ids.is_empty() => {
                    let mut above = Some(id);
                    let mut may = true;
                    while let Some(id) = above {
                        may &= model[&id].state == BarrierState::Open;
                        above = model[&id].parent.map(|parent| parent.0);
                    }
                    let taken = world.act(|runs, txn| runs.take_items(txn, id, 2));
                    assert_eq!(taken.is_ok(), may);
                    for item in taken.unwrap_or_default() {
                        let Part::Integer(key) = item.key else { panic!() };
                        let state =
                            model.get_mut(&id).unwrap().items.insert(key as u64, ItemState::Executing);
                        assert_eq!(state, Some(ItemState::Pending));
                    }
                }
                5 | 6 if !ids.is_empty() => {
                    let is_good = random.percent(60);
                    let done = world.act(|runs, txn| match is_good {
                        true => runs.complete_item(txn, id, &key.into(), "x"),
                        false => runs.fail_item(txn, id, &key.into(), "x"),
                    });
                    match model[&id].items.get(&key).copied() {
                        None => assert!(matches!(done, Err(RunsError::NotFound { .. }))),
                        Some(state) if is_over(state) => {
                            assert_eq!(done.unwrap(), Progress::AlreadyDone(state))
                        }
                        Some(_) => {
                            let state = if is_good { ItemState::Completed } else { ItemState::Failed };
                            model.get_mut(&id).unwrap().items.insert(key, state);
                            assert_eq!(done.unwrap(), progress(&mut model, id), "seed {seed}, step {step}");
                        }
                    }
                }
                7 if !ids.is_empty() && random.percent(30) => {
                    let left = model[&id].items.values().filter(|state| !is_over(**state)).count() as u64;
                    let cancelled = world.act(|runs, txn| runs.cancel_barrier(txn, id));
                    assert_eq!(cancelled.is_ok(), is_open);
                    if let Ok(off) = cancelled {
                        assert_eq!(off.items, left);
                        end(&mut model, id, BarrierState::Cancelled);
                    }
                }
                _ => {}
            }
            let view = world.ana.snapshot().unwrap();
            for (id, expected) in &model {
                let barrier = world.runs.barrier(&view, *id).unwrap();
                let count = |state| expected.items.values().filter(|item| **item == state).count() as u64;
                assert_eq!(barrier.state, expected.state, "seed {seed}, step {step}, barrier {id}");
                assert_eq!(
                    (barrier.total, barrier.completed, barrier.failed),
                    (expected.items.len() as u64, count(ItemState::Completed), count(ItemState::Failed))
                );
            }
        }
        verified(&world.larder);
    }
}

/// T47.
#[test]
fn t47_gates_are_those_of_a_model() {
    for seed in 0..PROGRAMS {
        let (world, mut random) = (World::new(), Random::new(4_800 + seed));
        // By token: how it is, until when it waits, how often it has waited again.
        let mut model: BTreeMap<String, (GateState, i64, u32)> = BTreeMap::new();
        for step in 0..STEPS {
            let token = format!("t{}", random.below(5));
            let now = world.clock.now();
            let known = model.get(&token).copied();
            match random.below(5) {
                0 | 1 => {
                    let retry = Retry { backoff: Backoff::fixed(Duration::from_secs(7)), retries_max: 2 };
                    let draft = GateDraft::new("r", token.as_str())
                        .time(Duration::from_secs(10))
                        .on_timeout(OnTimeout::Retry(retry));
                    let opened = world.act(|runs, txn| runs.open_gate(txn, &draft));
                    assert_eq!(opened.is_ok(), known.is_none());
                    model.entry(token).or_insert((GateState::Waiting, now + 10 * SECOND, 0));
                }
                2 => {
                    let signaled = world.act(|runs, txn| runs.signal(txn, "r", &token, "x", ""));
                    match known.map(|known| known.0) {
                        None => assert!(matches!(signaled, Err(RunsError::NotFound { .. }))),
                        Some(GateState::Waiting) => {
                            assert_eq!(signaled.unwrap(), Signaled::First);
                            model.get_mut(&token).unwrap().0 = GateState::Signaled;
                        }
                        Some(GateState::Signaled) => assert_eq!(signaled.unwrap(), Signaled::Already),
                        Some(_) => assert!(matches!(signaled, Err(RunsError::InvalidState { .. }))),
                    }
                }
                3 if random.percent(40) => {
                    let cancelled = world.act(|runs, txn| runs.cancel_gate(txn, "r", &token));
                    assert_eq!(cancelled.is_ok(), known.is_some_and(|known| known.0 == GateState::Waiting));
                    if cancelled.is_ok() {
                        model.get_mut(&token).unwrap().0 = GateState::Cancelled;
                    }
                }
                _ => {
                    world.clock.advance(random.below(12) as i64 * SECOND);
                    let now = world.clock.now();
                    let swept = world.act(|runs, txn| runs.sweep_gates(txn, 100)).unwrap();
                    let (mut timed_out, mut retried) = (0, 0);
                    for (state, until, retries) in model.values_mut() {
                        if *state == GateState::Waiting && *until <= now {
                            if *retries < 2 {
                                (*until, *retries, retried) = (now + 7 * SECOND, *retries + 1, retried + 1);
                            } else {
                                (*state, timed_out) = (GateState::TimedOut, timed_out + 1);
                            }
                        }
                    }
                    assert_eq!(
                        (swept.timed_out, swept.retried),
                        (timed_out, retried),
                        "seed {seed}, step {step}"
                    );
                }
            }
            let view = world.ana.snapshot().unwrap();
            for (token, (state, until, retries)) in &model {
                let gate = world.runs.gate(&view, "r", token).unwrap().unwrap();
                assert_eq!((gate.state, gate.retries), (*state, *retries), "seed {seed}, step {step}");
                assert_eq!(gate.until, (*state == GateState::Waiting).then_some(*until));
            }
        }
        verified(&world.larder);
    }
}

struct ModelMade {
    state: MadeState,
    ticket: Ticket,
    until: i64,
}

/// What can be reached, by trying until nothing is new.
fn reached(edges: &BTreeSet<(usize, usize)>, start: usize, is_down: bool) -> BTreeSet<usize> {
    let mut seen = BTreeSet::from([start]);
    loop {
        let next = edges.iter().filter_map(|(from, to)| {
            let (here, there) = if is_down { (from, to) } else { (to, from) };
            seen.contains(here).then_some(*there)
        });
        let next: BTreeSet<usize> = next.filter(|node| !seen.contains(node)).collect();
        if next.is_empty() {
            seen.remove(&start);
            return seen;
        }
        seen.extend(next);
    }
}

/// T47: states and fences, values, lineage both ways, and what is stale.
#[test]
fn t47_what_is_made_is_what_a_model_makes() {
    let assets: Vec<Asset> = (0..6).map(|n| Asset::of("a", n).unwrap()).collect();
    for seed in 0..PROGRAMS {
        let (world, mut random) = (World::new(), Random::new(4_900 + seed));
        let mut made: BTreeMap<(usize, usize), ModelMade> = BTreeMap::new();
        let mut values: BTreeMap<usize, u64> = BTreeMap::new();
        let mut edges: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut tickets: Vec<(usize, usize, Ticket)> = Vec::new();
        let mut count = 0;
        for step in 0..STEPS {
            let (it, run) = (random.below(assets.len()), random.below(2));
            let (asset, name) = (&assets[it], format!("r{run}"));
            let now = world.clock.now();
            match random.below(6) {
                0 | 1 => {
                    let started =
                        world.act(|runs, txn| runs.start_for(txn, asset, &name, Duration::from_secs(5)));
                    let busy = made
                        .get(&(it, run))
                        .is_some_and(|made| made.state == MadeState::Running && made.until > now);
                    assert_eq!(started.is_ok(), !busy, "seed {seed}, step {step}");
                    if let Ok(ticket) = started {
                        tickets.push((it, run, ticket.clone()));
                        let until = now + 5 * SECOND;
                        made.insert((it, run), ModelMade { state: MadeState::Running, ticket, until });
                    }
                }
                2 | 3 if !tickets.is_empty() => {
                    let (it, run, ticket) = tickets.swap_remove(random.below(tickets.len()));
                    let is_held =
                        made[&(it, run)].ticket == ticket && made[&(it, run)].state == MadeState::Running;
                    if random.percent(25) {
                        let failed = world.act(|runs, txn| runs.fail(txn, &ticket, "no"));
                        assert_eq!(failed.is_ok(), is_held);
                        if is_held {
                            made.get_mut(&(it, run)).unwrap().state = MadeState::Failed;
                        }
                        continue;
                    }
                    let from: Vec<usize> = (0..assets.len()).filter(|_| random.percent(30)).collect();
                    count += 1;
                    let produced =
                        Produced::new("t", format!("{count}")).from(from.iter().map(|n| assets[*n].clone()));
                    let committed = world.act(|runs, txn| runs.commit(txn, &ticket, produced));
                    assert_eq!(committed.is_ok(), is_held, "seed {seed}, step {step}");
                    if is_held {
                        made.get_mut(&(it, run)).unwrap().state = MadeState::Success;
                        values.insert(it, count);
                        edges.retain(|(_, to)| *to != it);
                        edges.extend(from.iter().map(|from| (*from, it)));
                    }
                }
                4 if random.percent(30) => {
                    let partition = Part::from(it as u64);
                    let gone = world.act(|runs, txn| runs.invalidate(txn, "a", Some(&partition))).unwrap();
                    assert_eq!(gone, u64::from(values.remove(&it).is_some()));
                }
                _ => world.clock.advance(random.below(4) as i64 * SECOND),
            }
            let view = world.ana.snapshot().unwrap();
            for ((it, run), expected) in &made {
                let row = world.runs.made(&view, &assets[*it], &format!("r{run}")).unwrap().unwrap();
                assert_eq!(row.state, expected.state, "seed {seed}, step {step}");
            }
            for (n, asset) in assets.iter().enumerate() {
                let value = world.runs.value(&view, asset).unwrap().map(|(_, value)| value);
                assert_eq!(value, values.get(&n).map(|count| format!("{count}").into()));
                let names = |made: Vec<larder_layers::runs::Made>| -> BTreeSet<usize> {
                    made.iter()
                        .map(|made| assets.iter().position(|asset| *asset == made.asset).unwrap())
                        .collect()
                };
                // Whoever was made from himself is not among those that he was made from.
                let up = names(world.runs.upstream(&view, asset, 100).unwrap());
                let down = names(world.runs.downstream(&view, asset, 100).unwrap());
                assert_eq!(
                    (up, down),
                    (reached(&edges, n, false), reached(&edges, n, true)),
                    "seed {seed}, step {step}"
                );
            }
        }
        verified(&world.larder);
    }
}
