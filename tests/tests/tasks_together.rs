//! The store of tasks under many threads, at size, and under random programs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{Clock, EventKind, Larder, ManualClock, Session};
use larder_layers::outbox::Retry;
use larder_layers::queue::Backoff;
use larder_layers::tasks::{
    Counted, Counts, CreatedTask, Finished, Matcher, Rule, TaskDraft, TaskFilter, TaskId, TaskOutcome,
    TaskStatus, TaskToken, Tasks, TasksError, Trigger,
};
use larder_tests::{FaultyDisk, Plan, Random, in_memory, still, verified};

const SECOND: i64 = 1_000_000;

fn store() -> (Larder, Session, Tasks) {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    (larder, ana, Tasks::at("tasks").unwrap())
}

fn create(ana: &Session, tasks: &Tasks, batch: &[TaskDraft]) -> Vec<TaskId> {
    let created = ana.try_write(|txn| tasks.create(txn, batch)).unwrap().value;
    created.tasks.iter().map(CreatedTask::id).collect()
}

fn work(local: impl Into<String>) -> TaskDraft {
    TaskDraft::new(local, "work", "work")
}

fn start(ana: &Session, tasks: &Tasks, limit: usize) -> Vec<TaskToken> {
    let claimed = ana.try_write(|txn| tasks.claim_up_to(txn, limit)).unwrap().value;
    let tokens: Vec<_> = claimed.iter().map(|claimed| claimed.token()).collect();
    ana.try_write(|txn| tokens.iter().try_for_each(|token| tasks.run(txn, *token))).unwrap();
    tokens
}

/// S2-4: 64 parents, finished by as many threads.
#[test]
fn s2_4_a_child_of_many_parents_becomes_pending_once() {
    let rounds = if cfg!(debug_assertions) { 10 } else { 200 };
    let (larder, ana, tasks) = store();
    for round in 0..rounds {
        let parents: Vec<_> = (0..64).map(|n| work(format!("p{n}"))).collect();
        let mut child = work("child");
        for n in 0..64 {
            let name = format!("p{n}");
            child = if n % 2 == 0 { child.after_success_of(name) } else { child.after_end_of(name) };
        }
        let ids = create(&ana, &tasks, &[parents, vec![child]].concat());
        let child = ids[64];
        let tokens = start(&ana, &tasks, 64);
        let before = larder.info().unwrap().last_commit.sequence;
        std::thread::scope(|scope| {
            for token in &tokens {
                let (ana, tasks) = (&ana, &tasks);
                scope.spawn(move || {
                    let outcome = match token.task % 4 {
                        1 if ids_are_optional(token.task, child) => TaskOutcome::Failure("no".to_owned()),
                        _ => TaskOutcome::Success,
                    };
                    let _ = ana.try_write(|txn| tasks.finish(txn, *token, &outcome)).unwrap();
                });
            }
        });
        let view = ana.snapshot().unwrap();
        let task = tasks.get(&view, child).unwrap().unwrap();
        assert_eq!(
            (task.status, task.wait_finished, task.wait_success),
            (TaskStatus::Pending, 0, 0),
            "{round}"
        );
        drop(view);
        // It is told of as often as a parent ended, and became pending with the last one.
        let events = larder.root().unwrap().feed_since(before, 10_000).unwrap();
        let commits = events.iter().filter(|event| event.kind == EventKind::RowPut).map(|event| event.commit);
        assert_eq!(commits.collect::<std::collections::BTreeSet<_>>().len(), 64);
        assert_eq!(start(&ana, &tasks, 10).iter().map(|token| token.task).collect::<Vec<_>>(), [child]);
        let token = tasks.get(&ana.snapshot().unwrap(), child).unwrap().unwrap().token();
        let _ = ana.try_write(|txn| tasks.finish(txn, token, &TaskOutcome::Success)).unwrap();
    }
    verified(&larder);
}

/// Every other parent is one whose success the child does not need.
fn ids_are_optional(parent: TaskId, child: TaskId) -> bool {
    (child - parent) % 2 == 1
}

/// S2-24: no limit is ever exceeded.
#[test]
fn s2_24_many_threads_never_claim_more_than_a_rule_lets_them() {
    let (larder, ana, tasks) = store();
    let rule = |_| Rule::Concurrency {
        max: 3,
        matcher: Matcher {
            status: TaskStatus::Running,
            kind: "work".to_owned(),
            fields: vec!["project".to_owned()],
        },
    };
    let batch: Vec<_> =
        (0..100).map(|n| work(format!("t{n}")).metadata("project", n % 4).rule(rule(n))).collect();
    create(&ana, &tasks, &batch);
    let claimed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let (ana, tasks, claimed) = (&ana, &tasks, &claimed);
            scope.spawn(move || {
                for _ in 0..4 {
                    if let Some(task) = ana.try_write(|txn| tasks.claim(txn)).unwrap().value {
                        claimed.fetch_add(1, Ordering::Relaxed);
                        if thread % 2 == 0 {
                            ana.try_write(|txn| tasks.run(txn, task.token())).unwrap();
                        }
                    }
                    let view = ana.snapshot().unwrap();
                    let mut of_project: BTreeMap<String, u64> = BTreeMap::new();
                    for status in [TaskStatus::Claimed, TaskStatus::Running] {
                        let filter = TaskFilter::new().status(status).size(100);
                        for task in tasks.list(&view, &filter).unwrap().tasks {
                            let body = tasks.body(&view, task.id).unwrap();
                            *of_project.entry(body.metadata["project"].to_string()).or_default() += 1;
                        }
                    }
                    assert!(of_project.values().all(|count| *count <= 3), "{of_project:?}");
                }
            });
        }
    });
    assert_eq!(claimed.load(Ordering::Relaxed), 12);
    let stats = tasks.stats(&ana.snapshot().unwrap()).unwrap();
    assert_eq!(stats.of(TaskStatus::Claimed) + stats.of(TaskStatus::Running), 12);
    verified(&larder);
}

/// S2-5a: increments of many threads, flushed together, with flushes that come to nothing and are made again.
#[test]
fn s2_5_no_increment_is_lost_or_counted_twice() {
    let each = 10_000;
    let (larder, ana, tasks) = store();
    let batch: Vec<_> = (0..100).map(|n| work(format!("t{n}"))).collect();
    let ids = create(&ana, &tasks, &batch);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (ana, tasks, ids) = (&ana, &tasks, &ids);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                let mut pending: BTreeMap<TaskId, i64> = BTreeMap::new();
                for n in 1..=each {
                    *pending.entry(ids[random.below(ids.len())]).or_default() += 1;
                    if n % 100 > 0 {
                        continue;
                    }
                    let items: Vec<_> = pending
                        .iter()
                        .map(|(task, successes)| Counts { task: *task, successes: *successes, failures: 0 })
                        .collect();
                    let name = format!("{thread} {n}");
                    // One in ten comes to nothing; one in ten is not known to have come to something. Both are made again.
                    loop {
                        let luck = random.below(10);
                        let flushed: Result<_, TasksError> = ana.try_write(|txn| {
                            let counted = tasks.count(txn, Some(&name), &items)?;
                            let done = |one: &Counted| matches!(one, Counted::Applied { .. });
                            assert!(counted.iter().flatten().all(done));
                            if luck == 0 { Err(TasksError::NoSuchBatch { batch: 0 }) } else { Ok(()) }
                        });
                        if flushed.is_ok() && luck != 1 {
                            break;
                        }
                    }
                    pending.clear();
                }
            });
        }
    });
    let stats = tasks.stats(&ana.snapshot().unwrap()).unwrap();
    assert_eq!(stats.successes, i128::from(8 * each));
    verified(&larder);
}

/// S2-27: wide, deep, in one transaction each, without recursion. How long it takes: `cargo bench -p larder-benches --bench
/// layers`.
#[test]
fn s2_27_wide_and_deep_graphs() {
    let (larder, ana, tasks) = store();
    let (wide, deep) = if cfg!(debug_assertions) { (1_000, 1_000) } else { (9_999, 100_000) };
    let mut batch = vec![work("root")];
    batch.extend((0..wide).map(|n| work(format!("c{n}")).after_success_of("root")));
    create(&ana, &tasks, &batch);
    let root = start(&ana, &tasks, 1)[0];
    let finished = ana.try_write(|txn| tasks.finish(txn, root, &TaskOutcome::Success)).unwrap().value;
    let Finished::Ended(settled) = finished else { panic!() };
    assert_eq!(settled.readied, wide as u64);

    let deeper = Tasks::at("deep").unwrap();
    let mut last = create(&ana, &deeper, &[work("first")])[0];
    for from in (0..deep).step_by(10_000) {
        let until = (from + 10_000).min(deep);
        let mut batch = vec![work(format!("t{from}")).after_task(last, true)];
        batch
            .extend((from + 1..until).map(|n| work(format!("t{n}")).after_success_of(format!("t{}", n - 1))));
        last = *create(&ana, &deeper, &batch).last().unwrap();
    }
    let first = start(&ana, &deeper, 1)[0];
    let outcome = TaskOutcome::Failure("no".to_owned());
    let finished = ana.try_write(|txn| deeper.finish(txn, first, &outcome)).unwrap().value;
    let Finished::Ended(settled) = finished else { panic!() };
    assert_eq!(settled.failed, deep as u64);
    let view = ana.snapshot().unwrap();
    assert_eq!(deeper.stats(&view).unwrap().of(TaskStatus::Failure), deep as u64 + 1);
    verified(&larder);
}

/// S2-23: everything that has a time, without waiting for any.
#[test]
fn s2_23_a_scheduler_is_played_step_by_step() {
    let clock = Arc::new(ManualClock::at(SECOND));
    let larder = still().clock(clock.clone()).open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let tasks = Tasks::at("tasks").unwrap();
    let batch = [
        work("a").timeout(Duration::from_secs(10)).action(Trigger::Start, "go"),
        work("b").after_success_of("a"),
        work("c").after_end_of("a"),
    ];
    let ids = create(&ana, &tasks, &batch);
    let mut ran = Vec::new();
    // A loop as a caller would write it; the second time the clock jumps to what is due.
    for _ in 0..10 {
        let _ = ana.try_write(|txn| tasks.sweep(txn, 100)).unwrap();
        for effect in ana.try_write(|txn| tasks.outbox().take(txn, 10)).unwrap().value {
            assert!(
                ana.write(|txn| tasks.outbox().complete(txn, &effect.key, effect.token, "")).unwrap().value
            );
        }
        for token in start(&ana, &tasks, 10) {
            ran.push(token.task);
            if token.task != ids[0] {
                let _ = ana.try_write(|txn| tasks.finish(txn, token, &TaskOutcome::Success)).unwrap();
            }
        }
        match tasks.next_due(&ana.snapshot().unwrap()).unwrap() {
            Some(due) => clock.advance((due - clock.now()).max(0)),
            None => break,
        }
    }
    assert_eq!(ran, [ids[0], ids[2]]);
    let view = ana.snapshot().unwrap();
    let status = |id| tasks.get(&view, id).unwrap().unwrap().status;
    assert_eq!(
        ids.iter().map(|id| status(*id)).collect::<Vec<_>>(),
        [TaskStatus::Failure, TaskStatus::Failure, TaskStatus::Success]
    );
}

/// S2-29: what is maintained is what a count gives, after thousands of random operations.
#[test]
fn s2_29_statistics_are_those_of_a_count() {
    let clock = Arc::new(ManualClock::at(SECOND));
    let larder = still().clock(clock.clone()).open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let tasks = Tasks::at("tasks").unwrap();
    let mut random = Random::new(29);
    let (mut all, mut tokens): (Vec<TaskId>, Vec<TaskToken>) = (Vec::new(), Vec::new());
    let steps = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
    for step in 0..steps {
        let any = |random: &mut Random| all.get(random.below(all.len().max(1))).copied().unwrap_or(0);
        match random.below(12) {
            0..=2 => {
                let count = 1 + random.below(5);
                let batch: Vec<_> = (0..count)
                    .map(|n| {
                        let mut draft = TaskDraft::new(format!("t{n}"), "t", ["x", "y"][random.below(2)])
                            .priority(random.below(3) as i32)
                            .expected(random.below(9) as i64)
                            .metadata("p", random.below(3) as u64);
                        for parent in 0..n {
                            if random.percent(40) {
                                let name = format!("t{parent}");
                                draft = match random.below(2) {
                                    0 => draft.after_end_of(name),
                                    _ => draft.after_success_of(name),
                                };
                            }
                        }
                        if random.percent(20) {
                            let retries_max = random.below(2) as u32;
                            draft = draft.retry(Retry { backoff: Backoff::NONE, retries_max });
                        }
                        if random.percent(30) {
                            let fields = vec!["p".to_owned()];
                            let matcher =
                                Matcher { status: TaskStatus::Running, kind: "x".to_owned(), fields };
                            draft = match random.below(2) {
                                0 => draft.rule(Rule::Concurrency { max: 2, matcher }),
                                _ => draft.rule(Rule::Capacity { max: 10, matcher }),
                            };
                        }
                        if random.percent(20) { draft.barrier() } else { draft }
                    })
                    .collect();
                all.extend(create(&ana, &tasks, &batch));
            }
            3..=5 => tokens.extend(start(&ana, &tasks, 1 + random.below(3))),
            6 | 7 if !tokens.is_empty() => {
                let token = tokens.swap_remove(random.below(tokens.len()));
                let outcome = match random.below(3) {
                    0 => TaskOutcome::Failure("no".to_owned()),
                    _ => TaskOutcome::Success,
                };
                let _ = ana.try_write(|txn| tasks.finish(txn, token, &outcome));
            }
            8 => {
                let id = any(&mut random);
                let _ = ana.try_write(|txn| match step % 5 {
                    0 => tasks.cancel(txn, id, "no").map(drop),
                    1 => tasks.retry(txn, id),
                    2 => tasks.pause(txn, id),
                    3 => tasks.set_priority(txn, id, 7),
                    _ => tasks.resume(txn, id).map(drop),
                });
            }
            9 => {
                let (parent, child) = (any(&mut random), any(&mut random));
                let _ = ana.try_write(|txn| tasks.link(txn, parent, child, step % 2 == 0));
            }
            10 => {
                let item = Counts { task: any(&mut random), successes: 1, failures: random.below(2) as i64 };
                let _ = ana.try_write(|txn| tasks.count(txn, None, &[item])).unwrap();
            }
            _ => {
                clock.advance(random.below(20) as i64 * SECOND);
                let _ = ana.try_write(|txn| tasks.sweep(txn, 10)).unwrap();
                if random.percent(10) {
                    let before = clock.now() - 60 * SECOND;
                    ana.try_write(|txn| tasks.remove_ended_before(txn, before, 20)).unwrap();
                }
            }
        }
        if step % 500 == 499 {
            recount(&ana, &tasks);
            verified(&larder);
        }
    }
    assert!(all.len() > 500);
}

/// What the rules of propagation say, word by word, without rows: recursive, and asking everybody each time.
#[derive(Default)]
struct Model {
    tasks: BTreeMap<TaskId, ModelTask>,
    ended: Vec<TaskId>,
}

struct ModelTask {
    status: TaskStatus,
    /// What it was before it was paused.
    was: Option<TaskStatus>,
    is_barrier: bool,
    parents: Vec<(TaskId, bool)>,
    /// Who of them has not told it yet.
    open: std::collections::BTreeSet<TaskId>,
}

impl Model {
    fn status(&self, id: TaskId) -> TaskStatus {
        self.tasks[&id].status
    }

    fn children(&self, id: TaskId) -> Vec<(TaskId, bool)> {
        let link =
            |task: &ModelTask| task.parents.iter().find(|(parent, _)| *parent == id).map(|link| link.1);
        self.tasks.iter().filter_map(|(child, task)| Some((*child, link(task)?))).collect()
    }

    fn end(&mut self, id: TaskId, status: TaskStatus) {
        let task = self.tasks.get_mut(&id).unwrap();
        (task.status, task.was) = (status, None);
        self.ended.push(id);
        for (child, requires_success) in self.children(id) {
            let task = self.tasks.get_mut(&child).unwrap();
            task.open.remove(&id);
            if task.status != TaskStatus::Waiting && task.was != Some(TaskStatus::Waiting) {
                continue;
            }
            if requires_success && status != TaskStatus::Success {
                self.end(child, TaskStatus::Failure);
            } else if task.open.is_empty() {
                match task.status {
                    TaskStatus::Paused => task.was = Some(TaskStatus::Pending),
                    _ => task.status = TaskStatus::Pending,
                }
            }
        }
    }

    /// Ends a task, and then those before it that nobody waits for any more.
    fn settle(&mut self, id: TaskId, status: TaskStatus) {
        self.end(id, status);
        while let Some(ended) = self.ended.pop() {
            for (parent, _) in self.tasks[&ended].parents.clone() {
                let is_over = |(child, _): &(TaskId, bool)| self.status(*child).is_terminal();
                if !self.status(parent).is_terminal() && self.children(parent).iter().all(is_over) {
                    let task = self.tasks.get_mut(&parent).unwrap();
                    (task.status, task.was) = (TaskStatus::Canceled, None);
                    if !task.is_barrier {
                        self.ended.push(parent);
                    }
                }
            }
        }
    }
}

/// T46.
#[test]
fn t46_statuses_are_those_of_a_model() {
    let programs = if cfg!(debug_assertions) { 20 } else { 400 };
    for seed in 0..programs {
        let (_larder, ana, tasks) = store();
        let (mut random, mut model) = (Random::new(4_600 + seed), Model::default());
        let count = 2 + random.below(12);
        let (mut batch, mut links, mut barriers) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..count {
            let mut draft = work(format!("t{n}"));
            let mut parents = Vec::new();
            for parent in 0..n {
                if random.percent(35) {
                    let (name, requires_success) = (format!("t{parent}"), random.percent(50));
                    draft = if requires_success {
                        draft.after_success_of(name)
                    } else {
                        draft.after_end_of(name)
                    };
                    parents.push((parent, requires_success));
                }
            }
            let is_barrier = random.percent(20);
            batch.push(if is_barrier { draft.barrier() } else { draft });
            links.push(parents);
            barriers.push(is_barrier);
        }
        let ids = create(&ana, &tasks, &batch);
        for (n, id) in ids.iter().enumerate() {
            let parents: Vec<_> =
                links[n].iter().map(|(parent, required)| (ids[*parent], *required)).collect();
            let status = if parents.is_empty() { TaskStatus::Pending } else { TaskStatus::Waiting };
            let open = parents.iter().map(|(parent, _)| *parent).collect();
            let task = ModelTask { status, was: None, is_barrier: barriers[n], parents, open };
            model.tasks.insert(*id, task);
        }
        for step in 0..40 {
            let id = ids[random.below(ids.len())];
            let (status, was) = (model.status(id), model.tasks[&id].was);
            match random.below(5) {
                0 | 1 if status == TaskStatus::Pending => {
                    let claimed = ana.try_write(|txn| tasks.claim_task(txn, id)).unwrap().value;
                    assert!(matches!(claimed, larder_layers::tasks::TaskClaim::Claimed(_)));
                    model.tasks.get_mut(&id).unwrap().status = TaskStatus::Claimed;
                }
                0 | 1 if status == TaskStatus::Claimed => {
                    let token = tasks.get(&ana.snapshot().unwrap(), id).unwrap().unwrap().token();
                    let (outcome, status) = match random.below(2) {
                        0 => (TaskOutcome::Success, TaskStatus::Success),
                        _ => (TaskOutcome::Failure("no".to_owned()), TaskStatus::Failure),
                    };
                    let _ = ana.try_write(|txn| tasks.finish(txn, token, &outcome)).unwrap();
                    model.settle(id, status);
                }
                2 => {
                    let done = ana.try_write(|txn| tasks.cancel(txn, id, "no"));
                    let may = !status.is_terminal() && status != TaskStatus::Waiting;
                    assert_eq!(done.is_ok(), may, "{status:?}");
                    if may {
                        model.settle(id, TaskStatus::Canceled);
                    }
                }
                3 => {
                    let done = ana.try_write(|txn| tasks.pause(txn, id));
                    let may = !status.is_terminal() && status != TaskStatus::Paused;
                    assert_eq!(done.is_ok(), may, "{status:?}");
                    if may {
                        let task = model.tasks.get_mut(&id).unwrap();
                        (task.status, task.was) = (TaskStatus::Paused, Some(status));
                    }
                }
                4 => {
                    let done = ana.try_write(|txn| tasks.resume(txn, id));
                    assert_eq!(done.is_ok(), status == TaskStatus::Paused);
                    if let Some(was) = was {
                        let task = model.tasks.get_mut(&id).unwrap();
                        task.was = None;
                        task.status = if was == TaskStatus::Claimed { TaskStatus::Pending } else { was };
                    }
                }
                _ => {}
            }
            let view = ana.snapshot().unwrap();
            for id in &ids {
                let task = tasks.get(&view, *id).unwrap().unwrap();
                assert_eq!(task.status, model.status(*id), "task {id}, seed {seed}, step {step}");
            }
        }
    }
}

/// Counts by status, by kind, what is waited for, and who is blocked by nobody.
fn recount(ana: &Session, tasks: &Tasks) {
    let view = ana.snapshot().unwrap();
    let (mut counted, mut filter) = (BTreeMap::new(), TaskFilter::new().size(100));
    let mut all = BTreeMap::new();
    loop {
        let page = tasks.list(&view, &filter).unwrap();
        for task in page.tasks {
            *counted.entry((task.kind.clone(), task.status)).or_insert(0) += 1;
            all.insert(task.id, task);
        }
        let Some(next) = page.next else { break };
        filter = filter.after(next);
    }
    let kinds = tasks.kinds(&view).unwrap();
    assert_eq!(
        kinds.into_iter().map(|(kind, status, count)| ((kind, status), count)).collect::<BTreeMap<_, _>>(),
        counted
    );
    for task in all.values().filter(|task| !task.status.is_terminal()) {
        let parents = tasks.links(&view, task.id, larder::Direction::Up).unwrap();
        let open = parents.iter().filter(|link| !all[&link.parent].status.is_terminal());
        let (open, needed) = (open.clone().count(), open.filter(|link| link.requires_success).count());
        assert_eq!((task.wait_finished as usize, task.wait_success as usize), (open, needed), "{task:?}");
        assert!(task.status != TaskStatus::Waiting || open > 0, "{task:?}");
    }
}

/// S2-10: tasks and what is to be carried out of them, from one view, without a scan of everything: a list of 100 with 5 effects each takes
/// as many reads of the file among 100 as among 1 100, give or take the levels of its trees.
#[test]
fn s2_10_a_list_with_effects_is_of_one_view_and_reads_what_it_shows() {
    let tasks = Tasks::at("tasks").unwrap();
    let reads = [0, 1_000].map(|others| {
        let disk = FaultyDisk::default();
        let larder = disk.open(still(), true).unwrap();
        let ana = larder.session("ana").unwrap();
        let with_effects = |name: String| (0..5).fold(work(name), |draft, m| draft.action(Trigger::Start, m));
        let batch: Vec<_> = (0..100).map(|n| with_effects(format!("t{n}"))).collect();
        create(&ana, &tasks, &batch);
        start(&ana, &tasks, 100);
        if others > 0 {
            let batch: Vec<_> = (0..others).map(|n| with_effects(format!("other {n}"))).collect();
            create(&ana, &tasks, &batch);
        }
        larder.close().unwrap();
        // Nothing of it is in memory.
        let disk = FaultyDisk::holding(disk.current(), Plan::default());
        let larder = disk.open(still().cache_bytes(0), true).unwrap();
        let ana = larder.session("ana").unwrap();
        let view = ana.snapshot().unwrap();
        let running = TaskFilter::new().status(TaskStatus::Running).size(100);
        let before = disk.reads();
        let page = tasks.list(&view, &running).unwrap();
        let listed = disk.reads() - before;
        ana.try_write(|txn| tasks.drop_all(txn)).unwrap();
        assert_eq!(page.tasks.len(), 100);
        let before = disk.reads();
        for task in &page.tasks {
            assert_eq!(tasks.body(&view, task.id).unwrap().actions.len(), 5);
            assert_eq!(tasks.outbox().of(&view, task.id).unwrap().len(), 5);
        }
        (listed, disk.reads() - before)
    });
    let [(listed, joined), (listed_of_many, joined_of_many)] = reads;
    assert!(listed_of_many <= 2 * listed + 16 && joined_of_many <= 2 * joined + 16, "{reads:?}");
}
