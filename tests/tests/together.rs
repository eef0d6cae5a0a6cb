//! The five systems on one store: each keeps its own, and one commit can change what all of them keep.

use larder::{Durability, ErrorKind, Larder, Session, Status};
use larder_layers::outbox::EffectState;
use larder_layers::queue::{Message, QueueError, QueueSettings, Queues};
use larder_layers::remember::{Cache, Parts, Remember};
use larder_layers::runs::{Asset, Produced, Runs, RunsError};
use larder_layers::tasks::{
    Counts, CreatedTask, TaskDraft, TaskId, TaskOutcome, TaskStatus, TaskToken, Tasks, TasksError, Trigger,
};
use larder_tests::{FaultyDisk, Plan, everywhere, in_memory, still, verified};
use serde_json::json;

/// Whatever a layer says, or this store: one error of an application.
#[derive(Debug)]
#[expect(dead_code, reason = "shown where a test fails")]
enum Trouble {
    Store(larder::Error),
    Queue(QueueError),
    Tasks(TasksError),
    Runs(RunsError),
    Own,
}

macro_rules! trouble_of {
    ($($name:ident($error:ty)),*) => {$(
        impl From<$error> for Trouble {
            fn from(error: $error) -> Self {
                Self::$name(error)
            }
        }
    )*};
}

trouble_of!(Store(larder::Error), Queue(QueueError), Tasks(TasksError), Runs(RunsError));

fn create(ana: &Session, tasks: &Tasks, draft: TaskDraft) -> TaskId {
    let created = ana.try_write(|txn| tasks.create(txn, &[draft])).unwrap().value;
    created.tasks.iter().map(CreatedTask::id).next().unwrap()
}

fn start(ana: &Session, tasks: &Tasks) -> TaskToken {
    let claimed = ana.try_write(|txn| tasks.claim(txn)).unwrap().value.unwrap();
    ana.try_write(|txn| tasks.run(txn, claimed.token())).unwrap();
    claimed.token()
}

/// What all five have, as far as this scenario goes: an asset, a value with lineage, a task, a message.
fn state(larder: &Larder) -> (Option<Status>, Option<usize>, Option<TaskStatus>, Option<u64>) {
    let ana = larder.session("ana").unwrap();
    let view = ana.snapshot().unwrap();
    let asset = view.record("reports/1.txt").ok().map(|record| record.status().clone());
    let runs = Runs::at("pipeline").unwrap();
    let report = Asset::of("report", 1).unwrap();
    let from = runs.value(&view, &report).unwrap().map(|_| runs.upstream(&view, &report, 9).unwrap().len());
    let tasks = Tasks::at("tasks").unwrap();
    let page = tasks.list(&view, &larder_layers::tasks::TaskFilter::new()).unwrap();
    let queue = Queues::at("queues").unwrap().queue("jobs").unwrap();
    (
        asset,
        from,
        page.tasks.first().map(|task| task.status),
        queue.stats(&view).ok().map(|stats| stats.acked),
    )
}

/// X-13: a job is taken, its task finished, its asset stored, its lineage kept, what was remembered of it forgotten; in one
/// commit or not at all, however the store ends.
#[test]
fn x_13_what_five_systems_keep_changes_in_one_commit() {
    let play = |larder: &Larder| {
        let ana = larder.session("ana").unwrap();
        let queue = Queues::at("queues").unwrap().queue("jobs").unwrap();
        let (tasks, runs) = (Tasks::at("tasks").unwrap(), Runs::at("pipeline").unwrap());
        let cache = Cache::at("cache").unwrap().namespace("pages").unwrap();
        let parts = Parts::new().with("report", 1);
        let _ = cache.store(&ana, &parts, "as it was before", &Remember::new()).unwrap();
        let _ = ana.try_write(|txn| queue.create(txn, &QueueSettings::new())).unwrap();
        create(&ana, &tasks, TaskDraft::new("r", "report 1", "report"));
        let _ = ana.try_write(|txn| queue.enqueue(txn, Message::new("report 1"))).unwrap();
        let token = start(&ana, &tasks);
        let (orders, report) = (Asset::of("orders", 1).unwrap(), Asset::of("report", 1).unwrap());
        let ticket = ana.try_write(|txn| runs.start(txn, &report, "r1")).unwrap().value;
        let job = ana.try_write(|txn| queue.dequeue(txn)).unwrap().value.unwrap();
        let all = |fails: bool| {
            ana.try_write(|txn| -> Result<(), Trouble> {
                txn.put("reports/1.txt", "seven soups")?;
                let made = Produced::new("text", "seven soups").from([orders.clone()]);
                let _ = runs.commit(txn, &ticket, made)?;
                let _ = tasks.finish(txn, token, &TaskOutcome::Success)?;
                queue.ack(txn, job.token())?;
                cache.clear(txn).map_err(|_| Trouble::Own)?;
                if fails { Err(Trouble::Own) } else { Ok(()) }
            })
        };
        assert!(matches!(all(true), Err(Trouble::Own)));
        assert_eq!(state(larder), (None, None, Some(TaskStatus::Running), Some(0)));
        assert!(cache.get(&ana, &parts).unwrap().is_some());
        all(false).unwrap();
        assert!(cache.get(&ana, &parts).unwrap().is_none());
        // Each of them knows its own, and refuses what comes too late.
        let late = [
            matches!(all(false), Err(Trouble::Runs(RunsError::Fenced { .. }))),
            matches!(
                ana.try_write(|txn| tasks.finish(txn, token, &TaskOutcome::Success)),
                Err(TasksError::Fenced { .. })
            ),
            matches!(ana.try_write(|txn| queue.ack(txn, job.token())), Err(QueueError::LeaseLost { .. })),
        ];
        assert_eq!(late, [true; 3]);
    };
    everywhere(
        |larder, _| play(larder),
        |larder| {
            let (asset, from, task, acked) = state(larder);
            let is_done = asset.is_some();
            assert_eq!(from, is_done.then_some(1));
            assert_eq!(task == Some(TaskStatus::Success), is_done);
            assert_eq!(acked.unwrap_or(0), u64::from(is_done));
        },
    );
}

/// S2-25: an executor of the application's own takes what is to be done from the outbox, however it fares with it.
#[test]
fn s2_25_effects_are_carried_out_by_whoever_takes_them() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let tasks = Tasks::at("tasks").unwrap();
    for n in 0..20 {
        create(&ana, &tasks, TaskDraft::new("t", "t", "k").action(Trigger::Start, json!({ "n": n })));
    }
    while ana.try_write(|txn| tasks.claim(txn)).unwrap().value.is_some() {}
    let mut called = Vec::new();
    loop {
        let taken = ana.write(|txn| tasks.outbox().take(txn, 7)).unwrap().value;
        if taken.is_empty() {
            break;
        }
        for effect in taken {
            let params: serde_json::Value = serde_json::from_slice(&effect.payload).unwrap();
            called.push(params["n"].as_i64().unwrap());
            assert!(
                ana.write(|txn| tasks.outbox().complete(txn, &effect.key, effect.token, "200"))
                    .unwrap()
                    .value
            );
        }
    }
    assert_eq!(called, (0..20).collect::<Vec<_>>(), "each once, the oldest first");
    let view = ana.snapshot().unwrap();
    assert_eq!(tasks.outbox().count(&view, EffectState::Done).unwrap(), 20);
    verified(&larder);
}

/// S2-34: what an action is to be filled in with is of the same view as the action.
#[test]
fn s2_34_metadata_and_actions_are_of_one_view() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let tasks = Tasks::at("tasks").unwrap();
    let draft = TaskDraft::new("t", "t", "k")
        .metadata("tenant", "soup & co")
        .action(Trigger::Start, json!({"header": "X-Tenant: {tenant}"}));
    let id = create(&ana, &tasks, draft);
    let view = ana.snapshot().unwrap();
    ana.try_write(|txn| tasks.drop_all(txn)).unwrap();
    let body = tasks.body(&view, id).unwrap();
    assert_eq!(body.metadata["tenant"], "soup & co");
    assert_eq!(body.actions[0].params["header"], "X-Tenant: {tenant}");
}

/// S2-37: what was counted and not yet on disk is, after closing; a reader that is stuck does not keep the store open, and is
/// told; closing twice is closing once; what comes after is refused; and who does not close loses nothing acknowledged.
#[test]
fn s2_37_closing_writes_what_is_buffered_and_ends_everybody() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still().log_segment_bytes(16 << 20), true).unwrap();
    let ana = larder.session("ana").unwrap();
    let tasks = Tasks::at("tasks").unwrap();
    let id = create(&ana, &tasks, TaskDraft::new("t", "t", "k"));
    let lazy = ana.clone().durability(Durability::Lazy);
    let one = [Counts { task: id, successes: 1, failures: 0 }];
    for _ in 0..1_000 {
        let _ = lazy.try_write(|txn| tasks.count(txn, None, &one)).unwrap();
    }
    let counted = |disk: &FaultyDisk| {
        let larder = FaultyDisk::holding(disk.durable(), Plan::default()).open(still(), true).unwrap();
        let view = larder.session("ana").unwrap().snapshot().unwrap();
        tasks.get(&view, id).unwrap().unwrap().successes
    };
    assert_eq!(counted(&disk), 0, "nobody has asked for it to be on disk");
    let (again, stuck) = (larder.clone(), ana.snapshot().unwrap());
    larder.close().unwrap();
    assert_eq!(counted(&disk), 1_000);
    again.close().unwrap();
    let is_closed = |outcome: Result<(), TasksError>| {
        assert!(
            matches!(&outcome, Err(TasksError::Store(error)) if *error.kind() == ErrorKind::Closed),
            "{outcome:?}"
        );
    };
    is_closed(tasks.get(&stuck, id).map(drop));
    is_closed(ana.try_write(|txn| tasks.count(txn, None, &one)).map(drop));
    drop(stuck);
    // Nobody closes: what was acknowledged as on disk is.
    let larder = disk.open(still(), true).unwrap();
    let ana = larder.session("ana").unwrap();
    let _ = ana.try_write(|txn| tasks.count(txn, None, &one)).unwrap();
    assert_eq!(counted(&disk), 1_001);
}
