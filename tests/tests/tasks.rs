//! The store of tasks: what ArcRun asks for, scenario by scenario, in memory, on a file and on the images of crashes, each with
//! a full recount.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use larder::{Clock, Direction, Larder, ManualClock, Part, RowRange, Rows, Session, WriteTxn};
use larder_layers::outbox::{EffectState, Retry};
use larder_layers::queue::Backoff;
use larder_layers::tasks::{
    Blocked, Counted, Counts, CreatedTask, Finished, Link, Matcher, Problem, Rule, Task, TaskClaim,
    TaskDraft, TaskFilter, TaskId, TaskOutcome, TaskStatus, TaskToken, Tasks, TasksError, Trigger, WhyNot,
};
use larder_tests::{everywhere, in_memory, verified};
use serde_json::json;

use TaskStatus::{Canceled, Claimed, Failure, Paused, Pending, Running, Success, Waiting};

const SECOND: i64 = 1_000_000;

struct World<'w> {
    larder: &'w Larder,
    clock: &'w Arc<ManualClock>,
    ana: Session,
    tasks: Tasks,
}

impl<'w> World<'w> {
    fn new(larder: &'w Larder, clock: &'w Arc<ManualClock>) -> Self {
        Self { larder, clock, ana: larder.session("ana").unwrap(), tasks: Tasks::at("tasks").unwrap() }
    }

    fn act<R>(
        &self,
        act: impl FnOnce(&Tasks, &mut WriteTxn<'_>) -> Result<R, TasksError>,
    ) -> Result<R, TasksError> {
        self.ana.try_write(|txn| act(&self.tasks, txn)).map(|receipt| receipt.value)
    }

    fn create(&self, batch: &[TaskDraft]) -> Vec<TaskId> {
        let created = self.act(|tasks, txn| tasks.create(txn, batch)).unwrap();
        created.tasks.iter().map(CreatedTask::id).collect()
    }

    fn one(&self, draft: TaskDraft) -> TaskId {
        self.create(&[draft])[0]
    }

    fn refused(&self, batch: &[TaskDraft]) -> Vec<(usize, &'static str)> {
        let before = self.tasks.stats(&self.ana.snapshot().unwrap()).unwrap();
        let error = self.act(|tasks, txn| tasks.create(txn, batch)).unwrap_err();
        let TasksError::Invalid { problems } = error else { panic!("{error}") };
        assert_eq!(self.tasks.stats(&self.ana.snapshot().unwrap()).unwrap(), before, "nothing was created");
        problems.iter().map(|problem| (problem.index, problem.field)).collect()
    }

    fn claim(&self) -> Option<TaskId> {
        self.act(|tasks, txn| tasks.claim(txn)).unwrap().map(|claimed| claimed.task.id)
    }

    fn claim_task(&self, id: TaskId) -> TaskClaim {
        self.act(|tasks, txn| tasks.claim_task(txn, id)).unwrap()
    }

    /// Claims a task and lets it run.
    fn start(&self, id: TaskId) -> TaskToken {
        let TaskClaim::Claimed(claimed) = self.claim_task(id) else { panic!("{:?}", self.claim_task(id)) };
        self.act(|tasks, txn| tasks.run(txn, claimed.token())).unwrap();
        claimed.token()
    }

    fn end(&self, token: TaskToken, outcome: TaskOutcome) -> Result<Finished, TasksError> {
        self.act(|tasks, txn| tasks.finish(txn, token, &outcome))
    }

    fn succeed(&self, id: TaskId) -> Finished {
        self.end(self.start(id), TaskOutcome::Success).unwrap()
    }

    fn fail(&self, id: TaskId) -> Finished {
        self.end(self.start(id), TaskOutcome::Failure("broken".to_owned())).unwrap()
    }

    fn cancel(&self, id: TaskId) -> Result<(), TasksError> {
        self.act(|tasks, txn| tasks.cancel(txn, id, "not needed").map(drop))
    }

    fn task(&self, id: TaskId) -> Task {
        self.tasks.get(&self.ana.snapshot().unwrap(), id).unwrap().expect("a task")
    }

    fn statuses(&self, ids: &[TaskId]) -> Vec<TaskStatus> {
        ids.iter().map(|id| self.task(*id).status).collect()
    }

    fn waits(&self, id: TaskId) -> (u32, u32) {
        let task = self.task(id);
        (task.wait_finished, task.wait_success)
    }

    fn count(&self, task: TaskId, successes: i64, failures: i64) -> Counted {
        let item = Counts { task, successes, failures };
        self.act(|tasks, txn| tasks.count(txn, None, &[item])).unwrap().unwrap()[0]
    }

    fn effects(&self, id: TaskId) -> Vec<String> {
        let effects = self.tasks.outbox().of(&self.ana.snapshot().unwrap(), id).unwrap();
        let name = |part: &Part| match part {
            Part::String(name) => name.clone(),
            other => panic!("{other:?}"),
        };
        effects.iter().map(|effect| name(&effect.key.parts()[1])).collect()
    }

    fn list(&self, filter: &TaskFilter) -> Vec<TaskId> {
        let page = self.tasks.list(&self.ana.snapshot().unwrap(), filter).unwrap();
        page.tasks.iter().map(|task| task.id).collect()
    }

    fn sweep(&self) -> (u64, u64, u64) {
        let swept = self.act(|tasks, txn| tasks.sweep(txn, 1_000)).unwrap();
        (swept.requeued, swept.timed_out, swept.released)
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn task(local: &str) -> TaskDraft {
    TaskDraft::new(local, local, "work")
}

fn matcher(status: TaskStatus, fields: &[&str]) -> Matcher {
    Matcher { status, kind: "work".to_owned(), fields: fields.iter().map(ToString::to_string).collect() }
}

fn at_most(max: u64, fields: &[&str]) -> Rule {
    Rule::Concurrency { max, matcher: matcher(Running, fields) }
}

fn capacity(max: u64, fields: &[&str]) -> Rule {
    Rule::Capacity { max, matcher: matcher(Running, fields) }
}

/// Counts everything that is kept of tasks anew.
fn recount(larder: &Larder) {
    let ana = larder.session("ana").unwrap();
    let view = ana.snapshot().unwrap();
    for place in ["tasks", "other"] {
        let tasks = Tasks::at(place).unwrap();
        let Ok(mut rows) = view.collection(format!("{place}/tasks").as_str()) else { continue };
        let (mut all, mut filter) = (BTreeMap::new(), TaskFilter::new().size(100));
        loop {
            let page = tasks.list(&view, &filter).unwrap();
            all.extend(page.tasks.into_iter().map(|task| (task.id, task)));
            let Some(next) = page.next else { break };
            filter = filter.after(next);
        }
        let stats = tasks.stats(&view).unwrap();
        for status in TaskStatus::ALL {
            assert_eq!(stats.of(status), all.values().filter(|task| task.status == status).count() as u64);
        }
        let sum = |of: fn(&Task) -> i64| all.values().map(|task| i128::from(of(task))).sum::<i128>();
        assert_eq!(stats.successes, sum(|task| task.successes));
        assert_eq!(stats.failures, sum(|task| task.failures));
        assert_eq!(stats.expected, sum(|task| task.expected.unwrap_or(0)));
        let kinds: u64 = tasks.kinds(&view).unwrap().iter().map(|(_, _, count)| count).sum();
        assert_eq!(kinds, all.len() as u64);
        for task in all.values() {
            let parents = tasks.links(&view, task.id, Direction::Up).unwrap();
            let open: Vec<&Link> =
                parents.iter().filter(|link| !all[&link.parent].status.is_terminal()).collect();
            let needed = open.iter().filter(|link| link.requires_success).count();
            let waits = (task.wait_finished as usize, task.wait_success as usize);
            let counted = if task.status.is_terminal() { (0, 0) } else { (open.len(), needed) };
            assert_eq!(waits, counted, "{task:?}");
            match task.status {
                Waiting => assert!(task.wait_finished > 0, "{task:?}"),
                Pending | Claimed | Running => assert_eq!(waits, (0, 0), "{task:?}"),
                _ => {}
            }
            assert_eq!(task.ended.is_some(), task.status.is_terminal(), "{task:?}");
            // Whoever needs somebody who failed has failed.
            for link in tasks.links(&view, task.id, Direction::Down).unwrap() {
                let child = &all[&link.child];
                let is_lost = matches!(task.status, Failure | Canceled) && link.requires_success;
                assert!(!is_lost || child.status.is_terminal(), "{task:?} {child:?}");
            }
        }
        let ready = rows.all(Some("ready"), &RowRange::all()).unwrap().len();
        let is_ready = |task: &&Task| task.status == Pending && task.until.is_none();
        assert_eq!(ready, all.values().filter(is_ready).count());
        recount_groups(&view, place, &tasks, &all);
    }
}

/// Whoever a matcher means is a member of its group, and nobody else is.
fn recount_groups(view: &larder::ReadTxn, place: &str, tasks: &Tasks, all: &BTreeMap<TaskId, Task>) {
    let Ok(mut rows) = view.collection(format!("{place}/groups").as_str()) else { return };
    let mut members = BTreeSet::new();
    let mut shapes = Vec::new();
    for row in rows.all(None, &RowRange::all()).unwrap() {
        match row.key().parts() {
            [Part::Integer(task), Part::Integer(shape)] => {
                members.insert((*task as TaskId, *shape as i64));
                assert_eq!(row.integer("r"), Some(all[&(*task as TaskId)].remaining()));
            }
            [_, Part::String(kind), Part::Integer(status), Part::List(fields)] => {
                shapes.push((row.integer("i").unwrap(), *status as usize, kind.clone(), fields.clone()));
            }
            other => panic!("{other:?}"),
        }
    }
    let mut counted = BTreeSet::new();
    for task in all.values() {
        let body = tasks.body(view, task.id).unwrap();
        for (number, status, kind, fields) in &shapes {
            let asked = TaskStatus::ALL[*status];
            let is_begun = |status| matches!(status, Claimed | Running);
            let is_at_work = is_begun(task.status) || task.paused_from.is_some_and(is_begun);
            let is_asked = asked == task.status || (asked == Running && is_at_work);
            let has = |field: &Part| match field {
                Part::String(name) => body.metadata.contains_key(name),
                _ => false,
            };
            if is_asked && task.kind == *kind && fields.iter().all(has) {
                counted.insert((task.id, *number));
            }
        }
    }
    assert_eq!(members, counted);
}

fn play(scenario: impl Fn(&World<'_>)) {
    everywhere(|larder, clock| scenario(&World::new(larder, clock)), recount);
}

// Claims.

#[test]
fn test_bug1_claim_task_atomic_prevents_duplicate_execution() {
    play(|world| {
        let id = world.one(task("a"));
        assert!(matches!(world.claim_task(id), TaskClaim::Claimed(_)));
        assert_eq!(world.claim_task(id), TaskClaim::NotPending(Claimed));
        assert_eq!(world.claim(), None);
        assert!(matches!(
            world.act(|tasks, txn| tasks.claim_task(txn, 7_777)),
            Err(TasksError::NoSuchTask { task: 7_777 })
        ));
    });
}

/// S2-4, first half: counted once, however often it is said.
#[test]
fn test_bug2_double_update_no_negative_counters() {
    play(|world| {
        let ids =
            world.create(&[task("a"), task("b"), task("c").after_success_of("a").after_success_of("b")]);
        let token = world.start(ids[0]);
        assert_eq!(world.waits(ids[2]), (2, 2));
        let _ = world.end(token, TaskOutcome::Success).unwrap();
        assert!(matches!(world.end(token, TaskOutcome::Success), Err(TasksError::Fenced { .. })));
        assert_eq!(world.waits(ids[2]), (1, 1));
        let _ = world.succeed(ids[1]);
        assert_eq!((world.task(ids[2]).status, world.waits(ids[2])), (Pending, (0, 0)));
    });
}

#[test]
fn test_bug3_double_success_update_returns_zero_second_time() {
    play(|world| {
        let id = world.one(task("a"));
        let token = world.start(id);
        assert!(matches!(world.end(token, TaskOutcome::Success), Ok(Finished::Ended(_))));
        let again = world.end(token, TaskOutcome::Failure("late".to_owned()));
        assert!(matches!(again, Err(TasksError::Fenced { task }) if task == id));
        assert_eq!(world.task(id).status, Success);
    });
}

#[test]
fn test_bug4_rejects_negative_counters_and_failures_without_a_reason() {
    play(|world| {
        let id = world.one(task("a"));
        assert_eq!(world.count(id, -1, 0), Counted::Refused);
        assert_eq!(world.count(id, 0, -5), Counted::Refused);
        let token = world.start(id);
        for reason in ["", "  "] {
            let failed = world.end(token, TaskOutcome::Failure(reason.to_owned()));
            assert!(matches!(failed, Err(TasksError::InvalidArgument { argument: "outcome", .. })));
        }
        assert_eq!(world.task(id).status, Running);
        // Only what was claimed runs, and only once.
        let again = world.act(|tasks, txn| tasks.run(txn, token)).unwrap_err();
        assert!(matches!(again, TasksError::InvalidState { status: Running, .. }), "{again}");
    });
}

#[test]
fn test_bug8_what_is_not_running_or_not_there_is_refused() {
    play(|world| {
        let id = world.one(task("a"));
        let nobody = TaskToken { task: id, fence: 0 };
        assert!(matches!(world.end(nobody, TaskOutcome::Success), Err(TasksError::Fenced { .. })));
        let nothing = TaskToken { task: 99_999, fence: 1 };
        let missing = world.end(nothing, TaskOutcome::Success);
        assert!(matches!(missing, Err(TasksError::NoSuchTask { task: 99_999 })));
        assert_eq!(world.count(99_999, 1, 0), Counted::NoSuchTask);
        assert!(matches!(world.cancel(99_999), Err(TasksError::NoSuchTask { .. })));
    });
}

// Batches: everything that is wrong is told, and nothing is created.

#[test]
fn test_bug7_dedupe_is_a_part_of_creating() {
    play(|world| {
        let draft = |user| task("a").metadata("user", user).unless(matcher(Pending, &["user"]));
        let first = world.act(|tasks, txn| tasks.create(txn, &[draft(1)])).unwrap();
        let again = world.act(|tasks, txn| tasks.create(txn, &[draft(1)])).unwrap();
        assert_eq!(again.tasks, [CreatedTask::Skipped(first.tasks[0].id())]);
        // Two of a batch: the second finds the first.
        let both = [
            draft(2),
            TaskDraft::new("b", "b", "work").metadata("user", 2).unless(matcher(Pending, &["user"])),
        ];
        let created = world.act(|tasks, txn| tasks.create(txn, &both)).unwrap();
        assert_eq!(created.tasks[1], CreatedTask::Skipped(created.tasks[0].id()));
        assert_eq!(world.list(&TaskFilter::new()).len(), 2);
    });
}

#[test]
fn test_dedupe_skip_existing() {
    play(|world| {
        let draft = |kind: &str, user: &str| {
            TaskDraft::new("a", "a", kind).metadata("user", user).metadata("other", 1).unless(Matcher {
                status: Pending,
                kind: kind.to_owned(),
                fields: vec!["user".to_owned(), "other".to_owned()],
            })
        };
        assert_eq!(world.one(draft("k", "x")), world.one(draft("k", "x")));
        assert_ne!(world.one(draft("k", "x")), world.one(draft("k", "y")));
        assert_ne!(world.one(draft("k", "x")), world.one(draft("l", "x")));
        // The order of a matcher's fields does not matter.
        let fields = vec!["other".to_owned(), "user".to_owned()];
        let turned = Matcher { status: Pending, kind: "k".to_owned(), fields };
        let same = TaskDraft::new("a", "a", "k").metadata("user", "x").metadata("other", 1).unless(turned);
        assert_eq!(world.one(draft("k", "x")), world.one(same));
    });
}

#[test]
fn test_dedupe_against_running_task() {
    play(|world| {
        let id = world.one(task("a").metadata("user", 1));
        world.start(id);
        let draft = task("b").metadata("user", 1).unless(matcher(Running, &["user"]));
        assert_eq!(world.one(draft.clone()), id, "it matches what was there before anybody asked so");
        let _ = world.end(world.task(id).token(), TaskOutcome::Success).unwrap();
        assert_ne!(world.one(draft), id);
    });
}

#[test]
fn test_dedupe_pending_does_not_match_running() {
    play(|world| {
        let draft = task("a").metadata("user", 1).unless(matcher(Pending, &["user"]));
        let id = world.one(draft.clone());
        world.start(id);
        assert_ne!(world.one(draft), id);
    });
}

/// S2-19: what a rule or a matcher goes by may be missing.
#[test]
fn s2_19_a_missing_field_has_an_outcome() {
    play(|world| {
        // Of a matcher for duplicates: it does not count.
        let draft = task("a").unless(matcher(Pending, &["project"]));
        assert_ne!(world.one(draft.clone()), world.one(draft));
        // Of a rule: the task is blocked, and it is said why.
        let id = world.one(task("b").rule(at_most(1, &["project"])));
        let missing = Blocked::MissingField { field: "project".to_owned() };
        assert_eq!(world.claim_task(id), TaskClaim::Blocked(missing.clone()));
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.tasks.why_not(&view, id, SECOND).unwrap(), WhyNot::Blocked(missing));
        // Nil is a value; who lacks the field is not counted.
        let nil = world.one(task("c").metadata("project", json!(null)).rule(at_most(1, &["project"])));
        world.start(nil);
        let other = world.one(task("d").metadata("project", json!(null)).rule(at_most(1, &["project"])));
        assert_eq!(world.claim_task(other), TaskClaim::Blocked(Blocked::Concurrency { count: 1, max: 1 }));
    });
}

#[test]
fn test_bug9_duplicate_ids_in_batch() {
    play(|world| assert_eq!(world.refused(&[task("a"), task("b"), task("a")]), [(2, "id")]));
}

#[test]
fn test_bug10_unknown_dependency() {
    play(|world| {
        assert_eq!(world.refused(&[task("a").after_end_of("nobody")]), [(0, "after")]);
        let missing = world.act(|tasks, txn| tasks.create(txn, &[task("a").after_task(12_345, true)]));
        assert!(matches!(missing, Err(TasksError::NoSuchTask { task: 12_345 })));
    });
}

#[test]
fn test_bug11_forward_reference() {
    play(|world| {
        assert_eq!(world.refused(&[task("a").after_end_of("b"), task("b")]), [(0, "after")]);
        assert_eq!(world.refused(&[task("a").after_end_of("a")]), [(0, "after")], "nor itself");
        let twice = task("b").after_end_of("a").after_success_of("a");
        assert_eq!(world.refused(&[task("a"), twice]), [(1, "after")], "nor twice");
    });
}

#[test]
fn test_valid_backward_reference() {
    play(|world| {
        let ids = world.create(&[task("a"), task("b").after_success_of("a")]);
        assert_eq!(world.statuses(&ids), [Pending, Waiting]);
        // And one of an earlier batch, however it is.
        let later = world.one(task("c").after_task(ids[1], false));
        assert_eq!(world.waits(later), (1, 0));
        let _ = world.fail(ids[0]);
        assert_eq!(world.statuses(&[ids[1], later]), [Failure, Pending]);
        assert_eq!(world.refused(&[task("d").after_task(ids[1], true)]), [(0, "after")]);
        assert_eq!(world.task(world.one(task("e").after_task(ids[1], false))).status, Pending);
    });
}

/// S2-22.
#[test]
fn s2_22_all_that_is_wrong_with_a_batch_is_told() {
    play(|world| {
        let batch = [
            task("a"),
            TaskDraft::new("b", "", "work"),
            task("c"),
            TaskDraft::new("d", "d", "k".repeat(101)),
            task("e").timeout(seconds(86_401)),
        ];
        assert_eq!(world.refused(&batch), [(1, "name"), (3, "kind"), (4, "timeout")]);
    });
}

/// X-8: every limit, just kept and just passed.
#[test]
fn x_8_limits_of_a_task() {
    play(|world| {
        let metadata = |length: usize| task("a").metadata("m", "x".repeat(length - r#"{"m":""}"#.len()));
        let good = [
            TaskDraft::new("a", "n".repeat(255), "k".repeat(100)),
            task("a").timeout(seconds(86_400)),
            task("a").timeout(Duration::from_micros(1)),
            task("a").priority(1_000),
            task("a").priority(-1_000),
            task("a").expected(0),
            metadata(64 << 10),
            TaskDraft::new("a", "nämé ☃ \"quoted\" \\ \u{1f980}", "work"),
        ];
        for draft in good {
            world.one(draft);
        }
        let bad = [
            (TaskDraft::new("a", "n".repeat(256), "k"), "name"),
            (TaskDraft::new("a", " ", "k"), "name"),
            (TaskDraft::new("a", "n", ""), "kind"),
            (task("a").timeout(Duration::ZERO), "timeout"),
            (task("a").priority(1_001), "priority"),
            (task("a").priority(-1_001), "priority"),
            (task("a").expected(-1), "expected"),
            (metadata((64 << 10) + 1), "metadata"),
            (task("a").rule(at_most(1, &["x", "x"])), "matcher"),
            (task("a").rule(capacity(1, &[])), "rules"),
            (task("a").retry(Retry { backoff: Backoff::NONE, retries_max: 1_001 }), "retry"),
        ];
        for (draft, field) in bad {
            assert_eq!(world.refused(&[draft]), [(0, field)]);
        }
    });
}

/// S2-2: what an application demands of its actions is a part of creating.
#[test]
fn s2_2_a_check_of_the_applications_own_refuses_the_batch() {
    everywhere(
        |larder, clock| {
            let mut world = World::new(larder, clock);
            world.tasks = world.tasks.clone().check(|draft| {
                let is_inner = |url: &str| url.contains("169.254.");
                let urls = draft.actions().iter().filter_map(|action| action.params["url"].as_str());
                if urls.into_iter().any(is_inner) {
                    return Err(("params.url", "expected an address outside".to_owned()));
                }
                Ok(())
            });
            let good = task("a").action(Trigger::Start, json!({"url": "https://example.org"}));
            let bad = task("b").action(Trigger::Start, json!({"url": "http://169.254.169.254"}));
            assert_eq!(world.refused(&[good.clone(), bad]), [(1, "params.url")]);
            world.one(good);
        },
        recount,
    );
}

// Rules.

#[test]
fn test_concurrency_blocks_when_limit_reached() {
    play(|world| {
        let ids: Vec<_> = (0..3).map(|_| world.one(task("a").rule(at_most(1, &[])))).collect();
        assert_eq!(world.claim(), Some(ids[0]));
        assert_eq!(world.claim(), None, "one that is claimed counts");
        assert_eq!(world.claim_task(ids[1]), TaskClaim::Blocked(Blocked::Concurrency { count: 1, max: 1 }));
        let token = world.task(ids[0]).token();
        let _ = world.end(token, TaskOutcome::Success).unwrap();
        assert_eq!(world.claim(), Some(ids[1]));
    });
}

#[test]
fn test_concurrency_blocks_same_metadata_allows_different_metadata() {
    play(|world| {
        let draft = |project: &str| task("a").metadata("project", project).rule(at_most(1, &["project"]));
        let ids = [world.one(draft("x")), world.one(draft("x")), world.one(draft("y"))];
        assert_eq!(world.claim(), Some(ids[0]));
        assert_eq!(world.claim(), Some(ids[2]), "the one in between is passed over");
        assert_eq!(world.claim(), None);
        // Values are told apart by type, and long ones by all of them.
        let long = |end: &str| draft(&("x".repeat(5_000) + end));
        let ids = [world.one(long("1")), world.one(long("1")), world.one(long("2"))];
        assert_eq!([world.claim(), world.claim(), world.claim()], [Some(ids[0]), Some(ids[2]), None]);
        let number = world.one(task("a").metadata("project", 1).rule(at_most(1, &["project"])));
        let text = world.one(task("a").metadata("project", "1").rule(at_most(1, &["project"])));
        assert_eq!([world.claim(), world.claim()], [Some(number), Some(text)]);
    });
}

#[test]
fn test_concurrency_rules_stored() {
    play(|world| {
        let rules = [at_most(3, &["a", "b"]), capacity(9, &[])];
        let id = world.one(task("a").expected(1).rule(rules[0].clone()).rule(rules[1].clone()));
        let body = world.tasks.body(&world.ana.snapshot().unwrap(), id).unwrap();
        assert_eq!(body.rules, rules);
    });
}

#[test]
fn concurrency_of_another_kind_does_not_count_the_task_itself() {
    play(|world| {
        let rule = Rule::Concurrency {
            max: 1,
            matcher: Matcher { status: Running, kind: "other".to_owned(), fields: Vec::new() },
        };
        let others: Vec<_> = (0..2).map(|_| world.one(TaskDraft::new("o", "o", "other"))).collect();
        let ids: Vec<_> = (0..2).map(|_| world.one(task("a").rule(rule.clone()))).collect();
        world.start(others[0]);
        assert!(matches!(world.claim_task(ids[0]), TaskClaim::Claimed(_)));
        world.start(others[1]);
        assert_eq!(world.claim_task(ids[1]), TaskClaim::Blocked(Blocked::Concurrency { count: 2, max: 1 }));
    });
}

#[test]
fn test_capacity_blocks_when_at_limit() {
    play(|world| {
        let draft = |expected| task("a").expected(expected).rule(capacity(500, &[]));
        let ids = [world.one(draft(500)), world.one(draft(1))];
        world.start(ids[0]);
        assert_eq!(
            world.claim_task(ids[1]),
            TaskClaim::Blocked(Blocked::Capacity { remaining: 500, max: 500 })
        );
    });
}

#[test]
fn test_capacity_allows_when_under_limit() {
    play(|world| {
        let draft = |expected| task("a").expected(expected).rule(capacity(500, &[]));
        let ids =
            [world.one(draft(200)), world.one(draft(200)), world.one(draft(9_999)), world.one(draft(1))];
        world.start(ids[0]);
        world.start(ids[1]);
        world.start(ids[2]); // There is room, whatever it brings: test_capacity_allows_large_candidate_when_room.
        assert!(matches!(world.claim_task(ids[3]), TaskClaim::Blocked(Blocked::Capacity { .. })));
    });
}

#[test]
fn test_capacity_accounts_for_progress() {
    play(|world| {
        let draft = |expected| task("a").expected(expected).rule(capacity(100, &[]));
        let ids = [world.one(draft(150)), world.one(draft(1))];
        world.start(ids[0]);
        assert!(matches!(world.claim_task(ids[1]), TaskClaim::Blocked(_)));
        assert_eq!(world.count(ids[0], 40, 10), Counted::Applied { successes: 40, failures: 10 });
        assert_eq!(
            world.claim_task(ids[1]),
            TaskClaim::Blocked(Blocked::Capacity { remaining: 100, max: 100 })
        );
        let _ = world.count(ids[0], 1, 0);
        assert!(matches!(world.claim_task(ids[1]), TaskClaim::Claimed(_)));
    });
}

#[test]
fn test_capacity_zero_or_null_contributes_nothing() {
    play(|world| {
        let plain = world.one(task("a"));
        let zero = world.one(task("a").expected(0));
        let over = world.one(task("a").expected(3));
        for id in [plain, zero, over] {
            world.start(id);
        }
        let _ = world.count(over, 9, 9);
        let id = world.one(task("b").expected(5).rule(capacity(1, &[])));
        assert!(matches!(world.claim_task(id), TaskClaim::Claimed(_)));
    });
}

#[test]
fn test_capacity_combined_with_concurrency() {
    play(|world| {
        let draft = || task("a").expected(10).rule(at_most(3, &[])).rule(capacity(1_000, &[]));
        let ids: Vec<_> = (0..4).map(|_| world.one(draft())).collect();
        for id in &ids[..3] {
            world.start(*id);
        }
        assert_eq!(world.claim_task(ids[3]), TaskClaim::Blocked(Blocked::Concurrency { count: 3, max: 3 }));
    });
}

#[test]
fn test_capacity_respects_metadata_fields() {
    play(|world| {
        let draft = |project: &str| task("a").metadata("p", project).expected(10).rule(capacity(10, &["p"]));
        let ids = [world.one(draft("x")), world.one(draft("x")), world.one(draft("y"))];
        world.start(ids[0]);
        assert!(matches!(world.claim_task(ids[1]), TaskClaim::Blocked(_)));
        assert!(matches!(world.claim_task(ids[2]), TaskClaim::Claimed(_)));
    });
}

#[test]
fn test_capacity_requires_expected_count() {
    play(|world| assert_eq!(world.refused(&[task("a").rule(capacity(5, &[]))]), [(0, "rules")]));
}

#[test]
fn test_update_batch_rules() {
    play(|world| {
        let batch = [task("a"), task("b"), TaskDraft::new("c", "c", "other"), task("d").expected(4)];
        let created = world.act(|tasks, txn| tasks.create(txn, &batch)).unwrap();
        let ids: Vec<_> = created.tasks.iter().map(CreatedTask::id).collect();
        let _ = world.succeed(ids[0]);
        let set = |kind: &str, rules: &[Rule]| {
            world.act(|tasks, txn| tasks.set_rules(txn, created.batch, kind, rules))
        };
        assert_eq!(set("work", &[at_most(1, &[])]).unwrap(), 2, "who is over is left as he is");
        assert_eq!((set("nobody", &[]).unwrap(), set("other", &[]).unwrap()), (0, 1));
        world.start(ids[1]);
        assert!(matches!(world.claim_task(ids[3]), TaskClaim::Blocked(_)));
        // test_capacity_rule_with_no_expected_count: one of them has none.
        assert!(matches!(set("work", &[capacity(1, &[])]), Err(TasksError::InvalidArgument { .. })));
        assert_eq!(set("work", &[]).unwrap(), 2);
        assert!(matches!(world.claim_task(ids[3]), TaskClaim::Claimed(_)));
    });
}

// Counters.

#[test]
fn test_batch_update_increments_counters() {
    play(|world| {
        let id = world.one(task("a").expected(10));
        world.start(id);
        assert_eq!(world.count(id, 5, 2), Counted::Applied { successes: 5, failures: 2 });
        assert_eq!(world.count(id, 1, 1), Counted::Applied { successes: 6, failures: 3 }, "accumulates");
        assert_eq!(world.count(id, 0, 0), Counted::Refused, "rejects zero");
        assert_eq!(world.task(id).remaining(), 1);
    });
}

#[test]
fn test_batch_update_persists_counters_on_terminal_tasks() {
    play(|world| {
        let id = world.one(task("a"));
        let token = world.start(id);
        let _ = world.count(id, 3, 1);
        let _ = world.end(token, TaskOutcome::Success).unwrap();
        assert_eq!(world.count(id, 2, 2), Counted::Applied { successes: 5, failures: 3 });
        assert_eq!(world.task(id).status, Success);
    });
}

/// S2-5c, S2-21: one that is not there, or would overflow, does not keep the others.
#[test]
fn s2_21_counters_are_of_64_bits_and_checked_each_for_itself() {
    play(|world| {
        let ids: Vec<_> = (0..10).map(|n| world.one(task(&format!("t{n}")))).collect();
        let item = |task, successes| Counts { task, successes, failures: 0 };
        assert_eq!(
            world.count(ids[3], i64::MAX - 1, 0),
            Counted::Applied { successes: i64::MAX - 1, failures: 0 }
        );
        let mut items: Vec<_> = ids.iter().map(|id| item(*id, 1 << 31)).collect();
        items.push(item(77_777, 1));
        let counted = world.act(|tasks, txn| tasks.count(txn, Some("f1"), &items)).unwrap().unwrap();
        assert_eq!(
            counted
                .iter()
                .filter(|one| **one == Counted::Applied { successes: 1 << 31, failures: 0 })
                .count(),
            9
        );
        assert_eq!((counted[3], counted[10]), (Counted::Overflow, Counted::NoSuchTask));
        assert_eq!(world.count(ids[3], 1, 0), Counted::Applied { successes: i64::MAX, failures: 0 });
        assert_eq!(world.count(ids[3], 1, 0), Counted::Overflow);
        // S2-5b: the same flush again changes nothing; a day later its name is free.
        assert_eq!(world.act(|tasks, txn| tasks.count(txn, Some("f1"), &items)).unwrap(), None);
        assert_eq!(world.task(ids[0]).successes, 1 << 31);
        world.clock.advance(24 * 3_600 * SECOND);
        let again = world.act(|tasks, txn| tasks.count(txn, Some("f1"), &items[..1])).unwrap().unwrap();
        assert_eq!(again, [Counted::Applied { successes: 1 << 32, failures: 0 }]);
    });
}

// Priorities and delays.

/// S2-31: test_priority_*.
#[test]
fn s2_31_the_greatest_priority_is_claimed_first_and_then_the_oldest() {
    play(|world| {
        let ids: Vec<_> = [0, 10, -5, 10].map(|priority| world.one(task("a").priority(priority))).to_vec();
        let set = |id, priority| world.act(|tasks, txn| tasks.set_priority(txn, id, priority));
        assert!(matches!(set(ids[0], 1_001), Err(TasksError::InvalidArgument { .. })));
        assert!(matches!(set(ids[0], -1_001), Err(TasksError::InvalidArgument { .. })));
        set(ids[2], 20).unwrap();
        let claimed: Vec<_> = (0..4).map(|_| world.claim().unwrap()).collect();
        assert_eq!(claimed, [ids[2], ids[1], ids[3], ids[0]]);
        world.cancel(ids[0]).unwrap();
        assert!(matches!(set(ids[0], 1), Err(TasksError::InvalidState { status: Canceled, .. })));
    });
}

/// S2-32.
#[test]
fn s2_32_a_task_is_not_claimed_before_its_time() {
    play(|world| {
        let now = world.clock.now();
        let later = world.one(task("a").start_after(now + 60 * SECOND).priority(5));
        let sooner = world.one(task("b"));
        assert_eq!(world.claim_task(later), TaskClaim::NotBefore(now + 60 * SECOND));
        let next = world.ana.read(|view| Ok(world.tasks.next_due(view))).unwrap().unwrap();
        assert_eq!(next, Some(now + 60 * SECOND));
        world.clock.advance(59 * SECOND);
        assert_eq!([world.claim(), world.claim()], [Some(sooner), None]);
        let third = world.one(task("c"));
        world.clock.advance(SECOND);
        assert_eq!([world.claim(), world.claim()], [Some(later), Some(third)], "and then in its place");
    });
}

// Propagation.

#[test]
fn test_child_becomes_pending_fails_or_waits_on() {
    play(|world| {
        let batch = [
            task("a"),
            task("b"),
            task("needs").after_success_of("a").after_end_of("b"),
            task("takes").after_end_of("a"),
        ];
        let ids = world.create(&batch);
        assert_eq!((world.waits(ids[2]), world.waits(ids[3])), ((2, 1), (1, 0)));
        let Finished::Ended(settled) = world.fail(ids[0]) else { panic!() };
        assert_eq!((settled.readied, settled.failed, settled.canceled), (1, 1, 1));
        let statuses = [Failure, Canceled, Failure, Pending];
        assert_eq!(world.statuses(&ids), statuses, "nobody waits for the second one any more");
        assert_eq!(world.task(ids[2]).reason, Some(format!("Required parent task {} failed", ids[0])));
    });
}

#[test]
fn test_failure_propagation_through_chain() {
    play(|world| {
        let names: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
        let mut batch = vec![task(&names[0])];
        batch.extend(names.windows(2).map(|pair| task(&pair[1]).after_success_of(&pair[0])));
        let ids = world.create(&batch);
        let Finished::Ended(settled) = world.fail(ids[0]) else { panic!() };
        assert_eq!(settled.failed, 49);
        assert!(world.statuses(&ids).iter().all(|status| *status == Failure));
    });
}

#[test]
fn test_multi_level_dag_propagation() {
    play(|world| {
        let ids = world.create(&[
            task("root"),
            task("left").after_success_of("root"),
            task("right").after_success_of("root"),
            task("join").after_success_of("left").after_success_of("right"),
            task("end").after_success_of("join"),
        ]);
        let _ = world.succeed(ids[0]);
        assert_eq!(world.statuses(&ids), [Success, Pending, Pending, Waiting, Waiting]);
        let _ = world.succeed(ids[1]);
        let _ = world.succeed(ids[2]);
        assert_eq!(world.statuses(&ids[3..]), [Pending, Waiting]);
        let _ = world.succeed(ids[3]);
        let _ = world.succeed(ids[4]);
        assert_eq!(world.tasks.stats(&world.ana.snapshot().unwrap()).unwrap().of(Success), 5);
    });
}

#[test]
fn test_cicd_pipeline_failure_cascade() {
    play(|world| {
        let ids = world.create(&[
            task("checkout"),
            task("build").after_success_of("checkout"),
            task("test").after_success_of("build"),
            task("deploy").after_success_of("test"),
            task("notify").after_end_of("test"),
        ]);
        let _ = world.succeed(ids[0]);
        let _ = world.fail(ids[1]);
        assert_eq!(world.statuses(&ids), [Success, Failure, Failure, Failure, Pending]);
    });
}

#[test]
fn test_canceled_parent_optional_child_becomes_pending() {
    play(|world| {
        let ids = world.create(&[task("a"), task("b").after_end_of("a"), task("c").after_success_of("a")]);
        world.cancel(ids[0]).unwrap();
        assert_eq!(world.statuses(&ids), [Canceled, Pending, Failure]);
    });
}

#[test]
fn test_diamond_dag_mixed_results() {
    play(|world| {
        let ids = world.create(&[
            task("a"),
            task("b").after_success_of("a"),
            task("c").after_success_of("a"),
            task("d").after_end_of("b").after_success_of("c"),
        ]);
        let _ = world.succeed(ids[0]);
        let _ = world.fail(ids[1]);
        assert_eq!((world.task(ids[3]).status, world.waits(ids[3])), (Waiting, (1, 1)));
        let _ = world.succeed(ids[2]);
        assert_eq!(world.task(ids[3]).status, Pending);
    });
}

// What is before a task that was called off.

#[test]
fn test_dead_end_cancel_basic_and_multi_level() {
    play(|world| {
        let ids = world.create(&[
            task("top"),
            task("mid").after_end_of("top"),
            task("leaf").after_end_of("mid"),
            task("apart"),
        ]);
        // Only a task that is not waiting can be called off by hand; what waits for a failed one fails.
        let leaf = world.one(task("x").after_task(ids[3], true).after_task(ids[2], false));
        world.cancel(ids[3]).unwrap();
        assert_eq!(world.task(leaf).status, Failure);
        assert_eq!(
            world.statuses(&ids[..3]),
            [Canceled, Canceled, Canceled],
            "nobody waits for them any more"
        );
        assert_eq!(world.task(ids[0]).reason.as_deref(), Some("All child tasks already terminated"));
    });
}

/// Whoever was behind 1 000 that a rule blocked was never looked at.
#[test]
fn s2_1_what_can_be_claimed_is_by_and_by_however_many_are_blocked_before_it() {
    let (larder, clock) = (in_memory(), Arc::new(ManualClock::at(SECOND)));
    let world = World::new(&larder, &clock);
    let batch: Vec<_> = (0..2_500).map(|n| task(&n.to_string()).rule(at_most(1, &[]))).collect();
    let ids = world.create(&batch);
    let free = [(); 3].map(|()| world.one(TaskDraft::new("free", "free", "other")));
    assert_eq!(world.claim(), Some(ids[0]));
    // The first comes to where these are; from there on one after the other is found at once.
    assert_eq!((0..2).find_map(|_| world.claim()), Some(free[0]));
    assert_eq!((world.claim(), world.claim()), (Some(free[1]), Some(free[2])));
    assert_eq!((0..4).filter_map(|_| world.claim()).count(), 0);
}

#[test]
fn test_dead_end_cancel_barrier() {
    play(|world| {
        let ids = world.create(&[
            task("top"),
            task("wall").after_end_of("top").barrier(),
            task("mid").after_end_of("wall"),
            task("apart"),
        ]);
        let leaf = world.one(task("x").after_task(ids[3], true).after_task(ids[2], false));
        world.cancel(ids[3]).unwrap();
        assert_eq!(world.statuses(&[ids[0], ids[1], ids[2], leaf]), [Pending, Canceled, Canceled, Failure]);
    });
}

#[test]
fn test_dead_end_cancel_no_children_and_partial_children() {
    play(|world| {
        let ids =
            world.create(&[task("a"), task("b").after_end_of("a"), task("c").after_end_of("a"), task("d")]);
        let lost = world.one(task("x").after_task(ids[3], true).after_task(ids[1], false));
        world.cancel(ids[3]).unwrap();
        assert_eq!(world.statuses(&[lost, ids[1]]), [Failure, Canceled]);
        assert_eq!(world.statuses(&[ids[0], ids[2]]), [Pending, Waiting], "somebody still waits for it");
    });
}

#[test]
fn test_dead_end_cancel_paused_and_running() {
    play(|world| {
        let cancel = |name: &str| task(name).action(Trigger::Cancel, json!({}));
        let ids = world.create(&[cancel("paused"), cancel("running"), task("apart")]);
        let lost = [
            world.one(task("x").after_task(ids[2], true).after_task(ids[0], false)),
            world.one(task("y").after_task(ids[2], true).after_task(ids[1], false)),
        ];
        world.act(|tasks, txn| tasks.pause(txn, ids[0])).unwrap();
        let token = world.start(ids[1]);
        world.cancel(ids[2]).unwrap();
        assert_eq!(world.statuses(&ids), [Canceled; 3]);
        assert_eq!(world.statuses(&lost), [Failure; 2]);
        assert_eq!((world.effects(ids[0]), world.effects(ids[1])), (vec![], vec!["cancel".to_owned()]));
        assert!(matches!(world.end(token, TaskOutcome::Success), Err(TasksError::Fenced { .. })));
    });
}

// Whole batches.

#[test]
fn test_stop_batch() {
    play(|world| {
        let batch = [task("a"), task("b").after_end_of("a"), task("c"), task("d")];
        let created = world.act(|tasks, txn| tasks.create(txn, &batch)).unwrap();
        let ids: Vec<_> = created.tasks.iter().map(CreatedTask::id).collect();
        let outside = world.one(task("x").after_task(ids[0], true));
        world.start(ids[0]);
        world.act(|tasks, txn| tasks.pause(txn, ids[2])).unwrap();
        let _ = world.succeed(ids[3]);
        let stop = |batch| world.act(|tasks, txn| tasks.stop_batch(txn, batch));
        assert_eq!(stop(created.batch).unwrap(), [(Waiting, 1), (Running, 1), (Paused, 1)]);
        assert_eq!(world.statuses(&ids), [Canceled, Canceled, Canceled, Success]);
        assert_eq!(world.task(ids[0]).reason.as_deref(), Some("Batch stopped"));
        assert_eq!(world.task(outside).status, Failure);
        assert_eq!(stop(created.batch).unwrap(), [], "test_stop_batch_already_terminal");
        assert!(matches!(stop(999_999), Err(TasksError::NoSuchBatch { batch: 999_999 })));
    });
}

#[test]
fn test_batch_stats_and_list_batches() {
    play(|world| {
        let make = |drafts: &[TaskDraft]| world.act(|tasks, txn| tasks.create(txn, drafts)).unwrap();
        let first = make(&[task("a").expected(10), task("b").expected(5), task("c").after_end_of("a")]);
        let second = make(&[task("a")]);
        let _ = world.count(first.tasks[0].id(), 4, 1);
        let _ = world.count(second.tasks[0].id(), 100, 0);
        let _ = world.succeed(first.tasks[0].id());
        let view = world.ana.snapshot().unwrap();
        let stats = world.tasks.batch_stats(&view, first.batch).unwrap();
        assert_eq!(stats.statuses, [(Pending, 2), (Success, 1)]);
        assert_eq!((stats.successes, stats.failures, stats.expected, stats.total()), (4, 1, 15, 3));
        assert_eq!(world.tasks.batches(&view).unwrap(), [(first.batch, 3), (second.batch, 1)]);
        assert!(matches!(
            world.tasks.batch_stats(&view, 1_234_567),
            Err(TasksError::NoSuchBatch { batch: 1_234_567 })
        ));
    });
}

// Leases and time.

#[test]
fn test_stale_claimed_task_requeued_to_pending() {
    play(|world| {
        let id = world.one(task("a"));
        assert_eq!(world.claim(), Some(id));
        let stale = world.task(id).token();
        world.clock.advance(29 * SECOND);
        assert_eq!(world.sweep(), (0, 0, 0), "test_recently_claimed_task_not_requeued");
        world.clock.advance(SECOND);
        assert_eq!(world.sweep(), (1, 0, 0));
        assert_eq!(world.claim(), Some(id), "test_requeued_task_picked_up_by_start_loop");
        assert_ne!(world.task(id).token(), stale);
        assert!(matches!(world.act(|tasks, txn| tasks.run(txn, stale)), Err(TasksError::Fenced { .. })));
        assert_eq!(world.task(id).attempts, 2);
    });
}

#[test]
fn test_recent_batch_update_prevents_timeout() {
    play(|world| {
        let id = world.one(task("a").timeout(seconds(10)));
        let token = world.start(id);
        world.clock.advance(9 * SECOND);
        let _ = world.count(id, 1, 0);
        world.clock.advance(9 * SECOND);
        assert_eq!(world.sweep(), (0, 0, 0));
        let until = world.act(|tasks, txn| tasks.heartbeat(txn, token)).unwrap();
        assert_eq!(until, world.clock.now() + 10 * SECOND);
        world.clock.advance(10 * SECOND);
        assert_eq!(world.sweep(), (0, 1, 0));
        assert_eq!((world.task(id).status, world.task(id).reason), (Failure, Some("Timeout".to_owned())));
    });
}

/// S2-16: test_timeout_propagates_failure_to_children, test_timeout_loop_fires_on_failure_webhook.
#[test]
fn s2_16_what_takes_too_long_fails_and_is_called_off_outside_once() {
    play(|world| {
        let draft = task("a")
            .timeout(seconds(5))
            .action(Trigger::Start, json!({"url": "start"}))
            .action(Trigger::Cancel, json!({"url": "stop 1"}))
            .action(Trigger::Cancel, json!({"url": "stop 2"}))
            .action(Trigger::Failure, json!({"url": "tell"}))
            .action(Trigger::Success, json!({"url": "never"}));
        let ids = world.create(&[draft, task("b").after_success_of("a"), task("c").after_end_of("a")]);
        let token = world.start(ids[0]);
        world.clock.advance(5 * SECOND);
        assert_eq!(world.sweep(), (0, 1, 0));
        assert_eq!(world.statuses(&ids), [Failure, Failure, Pending]);
        assert_eq!(world.effects(ids[0]), ["failure", "cancel", "cancel"], "and nobody starts it any more");
        let late = world.end(token, TaskOutcome::Success);
        assert!(matches!(late, Err(TasksError::Fenced { .. })));
        assert_eq!(world.sweep(), (0, 0, 0));
        assert_eq!(world.effects(ids[0]).len(), 3, "a second sweep finds nothing");
    });
}

/// S2-15: tried again, with what was, on the same id.
#[test]
fn s2_15_a_failure_is_tried_again_and_told_once() {
    play(|world| {
        let retry = Retry { backoff: Backoff::exponential(seconds(10), 2, seconds(300)), retries_max: 2 };
        let ids = world.create(&[task("a").retry(retry), task("b").after_success_of("a")]);
        for wait in [10, 20] {
            let now = world.clock.now();
            assert_eq!(world.fail(ids[0]), Finished::RetryAt(now + wait * SECOND));
            assert_eq!(world.statuses(&ids), [Pending, Waiting]);
            assert!(matches!(world.claim_task(ids[0]), TaskClaim::NotBefore(_)));
            world.clock.advance(wait * SECOND);
        }
        let Finished::Ended(settled) = world.fail(ids[0]) else { panic!() };
        assert_eq!(settled.failed, 1);
        assert_eq!(world.statuses(&ids), [Failure, Failure]);
        let attempts = world.tasks.attempts(&world.ana.snapshot().unwrap(), ids[0]).unwrap();
        let told: Vec<_> = attempts.iter().map(|one| (one.number, one.reason.as_str())).collect();
        assert_eq!(told, [(1, "broken"), (2, "broken"), (3, "broken")]);
        // By hand: only as long as nobody after it has ended.
        let again = world.act(|tasks, txn| tasks.retry(txn, ids[0]));
        assert!(matches!(again, Err(TasksError::ChildrenEnded { count: 1, .. })));
        let ids = world.create(&[task("c"), task("d").after_end_of("c")]);
        assert!(matches!(
            world.act(|tasks, txn| tasks.retry(txn, ids[0])),
            Err(TasksError::InvalidState { status: Pending, .. })
        ));
        let _ = world.fail(ids[0]);
        world.act(|tasks, txn| tasks.retry(txn, ids[0])).unwrap();
        assert_eq!((world.statuses(&ids), world.waits(ids[1])), (vec![Pending, Waiting], (1, 0)));
        let _ = world.succeed(ids[0]);
        assert_eq!(world.statuses(&ids), [Success, Pending]);
    });
}

// Paging.

/// S2-3: test_pagination_*.
#[test]
fn s2_3_pages_have_their_size_and_no_gaps() {
    play(|world| {
        let batch: Vec<_> = (0..120).map(|n| task(&format!("t{n}"))).collect();
        let ids = world.create(&batch);
        let (mut seen, mut filter, mut pages) = (Vec::new(), TaskFilter::new().size(20), 0);
        loop {
            let page = world.tasks.list(&world.ana.snapshot().unwrap(), &filter).unwrap();
            seen.extend(page.tasks.iter().map(|task| task.id).filter(|id| ids.contains(id)));
            world.create(&batch[..10]);
            pages += 1;
            let Some(next) = page.next.filter(|_| seen.len() < 120) else { break };
            filter = TaskFilter::new().size(20).after(next);
        }
        assert_eq!((seen, pages), (ids.clone(), 6));
        let pages = |size, page| world.list(&TaskFilter::new().size(size).page(page));
        assert_eq!((pages(0, 0).len(), pages(1_000, 0).len(), pages(101, 1).len()), (50, 100, 80));
        assert_eq!(pages(20, 2), &ids[40..60]);
        assert!(pages(100, 1_000_000_000_000).is_empty() && pages(100, u64::MAX).is_empty());
    });
}

#[test]
fn test_filter_by_kind_status_name_batch_and_metadata() {
    play(|world| {
        let created = world
            .act(|tasks, txn| {
                let batch = [
                    TaskDraft::new("a", "compile core", "cpu").metadata("p", 1),
                    TaskDraft::new("b", "compile tools", "cpu").metadata("p", 2),
                    TaskDraft::new("c", "fetch", "io").metadata("p", 1).metadata("q", json!(null)),
                ];
                tasks.create(txn, &batch)
            })
            .unwrap();
        let ids: Vec<_> = created.tasks.iter().map(CreatedTask::id).collect();
        let other = world.one(TaskDraft::new("d", "compile", "cpu")); // test_bug16: without metadata.
        world.start(ids[1]);
        let list = |filter: TaskFilter| world.list(&filter);
        let all = TaskFilter::new;
        assert_eq!(list(all()), [ids[0], ids[1], ids[2], other]);
        assert_eq!(list(all().kind("cpu")), [ids[0], ids[1], other]);
        assert_eq!(list(all().status(Pending)).len(), 3);
        assert_eq!(list(all().status(Running).kind("cpu")), [ids[1]]);
        assert_eq!(list(all().name_contains("compile").status(Pending)), [ids[0], other]);
        assert_eq!(list(all().metadata("p", 1)), [ids[0], ids[2]]);
        assert_eq!(list(all().metadata("p", 1).kind("io")), [ids[2]]);
        assert_eq!(list(all().metadata("q", json!(null))), [ids[2]]);
        assert_eq!(list(all().batch(created.batch).kind("cpu")), [ids[0], ids[1]]);
        assert_eq!(list(all().batch(4_711)), Vec::<TaskId>::new());
        // What is left out does not make a page shorter.
        let filter = all().name_contains("compile").size(2);
        let page = world.tasks.list(&world.ana.snapshot().unwrap(), &filter).unwrap();
        assert_eq!(page.tasks.len(), 2);
        let rest = list(filter.after(page.next.unwrap()));
        assert_eq!(rest, [other]);
    });
}

// Pause and cancel.

/// S2-14: test_pause_*.
#[test]
fn s2_14_what_is_paused_is_not_claimed_and_goes_on_in_its_place() {
    play(|world| {
        let pause = |id| world.act(|tasks, txn| tasks.pause(txn, id));
        let resume = |id| world.act(|tasks, txn| tasks.resume(txn, id));
        let ids: Vec<_> = (0..3).map(|n| world.one(task(&format!("p{n}")))).collect();
        pause(ids[1]).unwrap();
        assert!(matches!(pause(ids[1]), Err(TasksError::InvalidState { status: Paused, .. })));
        assert_eq!([world.claim(), world.claim(), world.claim()], [Some(ids[0]), Some(ids[2]), None]);
        let later = world.one(task("later"));
        assert_eq!(resume(ids[1]).unwrap(), Pending);
        assert!(matches!(resume(ids[1]), Err(TasksError::InvalidState { status: Pending, .. })));
        assert_eq!([world.claim(), world.claim()], [Some(ids[1]), Some(later)], "in its old place");
        // What it waits for is counted all the same.
        let pair =
            world.create(&[task("a"), task("b").after_success_of("a"), task("c").after_success_of("a")]);
        pause(pair[1]).unwrap();
        let _ = world.succeed(pair[0]);
        assert_eq!((world.task(pair[1]).status, world.waits(pair[1])), (Paused, (0, 0)));
        assert_eq!(resume(pair[1]).unwrap(), Pending);
        // What still waits waits on.
        let pair = world.create(&[task("a"), task("b").after_success_of("a")]);
        pause(pair[1]).unwrap();
        assert_eq!(resume(pair[1]).unwrap(), Waiting);
        pause(pair[1]).unwrap();
        let _ = world.fail(pair[0]);
        assert_eq!(world.task(pair[1]).status, Failure, "and fails with what it needs");
        assert!(matches!(pause(pair[1]), Err(TasksError::InvalidState { status: Failure, .. })));
        // Time stands still; whoever has it keeps it.
        let id = world.one(task("run").timeout(seconds(60)));
        let token = world.start(id);
        pause(id).unwrap();
        world.clock.advance(3_600 * SECOND);
        assert_eq!(world.sweep().1, 0);
        let early = world.end(token, TaskOutcome::Success);
        assert!(matches!(early, Err(TasksError::InvalidState { status: Paused, .. })));
        assert_eq!(resume(id).unwrap(), Running);
        world.clock.advance(59 * SECOND);
        assert_eq!(world.sweep().1, 0);
        let _ = world.end(token, TaskOutcome::Success).unwrap();
        // Who had claimed it and not begun has lost it.
        let id = world.one(task("claimed"));
        let TaskClaim::Claimed(claimed) = world.claim_task(id) else { panic!() };
        pause(id).unwrap();
        assert_eq!(resume(id).unwrap(), Pending);
        let run = world.act(|tasks, txn| tasks.run(txn, claimed.token()));
        assert!(matches!(run, Err(TasksError::Fenced { .. })));
    });
}

/// S2-20: test_cancel_*.
#[test]
fn s2_20_a_cancellation_leaves_what_is_to_be_called_off_outside() {
    play(|world| {
        let draft = || {
            task("a")
                .action(Trigger::Cancel, json!({"n": 1}))
                .action(Trigger::Failure, json!({}))
                .action(Trigger::Cancel, json!({"n": 2}))
        };
        let running = world.one(draft());
        world.start(running);
        world.cancel(running).unwrap();
        assert_eq!(
            (world.task(running).status, world.effects(running)),
            (Canceled, vec!["cancel".to_owned(); 2])
        );
        let payloads: Vec<_> = world
            .act(|tasks, txn| Ok(tasks.outbox().take(txn, 10)?))
            .unwrap()
            .iter()
            .map(|taken| taken.payload.clone())
            .collect();
        assert_eq!(payloads, [r#"{"n":1}"#, r#"{"n":2}"#]);
        let claimed = world.one(draft());
        assert_eq!(world.claim(), Some(claimed));
        world.cancel(claimed).unwrap();
        assert_eq!(world.effects(claimed).len(), 2, "what starts it may be on its way");
        let pending = world.one(draft());
        world.cancel(pending).unwrap();
        assert!(world.effects(pending).is_empty());
        let paused = world.one(draft());
        world.act(|tasks, txn| tasks.pause(txn, paused)).unwrap();
        world.cancel(paused).unwrap();
        assert!(world.effects(paused).is_empty());
        let refused = |id, status| {
            let error = world.cancel(id).unwrap_err();
            assert!(matches!(error, TasksError::InvalidState { status: is, .. } if is == status), "{error}");
        };
        refused(pending, Canceled);
        let pair = world.create(&[task("b"), task("c").after_end_of("b")]);
        refused(pair[1], Waiting);
    });
}

// Effects.

/// S2-8: test_idempotency: what starts a task is done once, and its outcome is of the same commit as the task's.
#[test]
fn s2_8_the_outcome_of_an_action_is_committed_with_the_state_it_causes() {
    play(|world| {
        let id = world
            .one(task("a").action(Trigger::Start, json!({"url": "x"})).action(Trigger::Success, json!({})));
        assert_eq!(world.claim(), Some(id));
        let taken = world.act(|tasks, txn| Ok(tasks.outbox().take(txn, 10)?)).unwrap().pop().unwrap();
        let token = world.task(id).token();
        let view = world.ana.snapshot().unwrap();
        assert_eq!(
            world.tasks.outbox().get(&view, &taken.key).unwrap().unwrap().state,
            EffectState::InFlight
        );
        // Nobody else does it meanwhile: test_pending_webhook_blocks_until_stale.
        assert!(world.act(|tasks, txn| Ok(tasks.outbox().take(txn, 10)?)).unwrap().is_empty());
        world
            .act(|tasks, txn| {
                assert!(tasks.outbox().complete(txn, &taken.key, taken.token, "200")?);
                tasks.run(txn, token)
            })
            .unwrap();
        let view = world.ana.snapshot().unwrap();
        let effect = world.tasks.outbox().get(&view, &taken.key).unwrap().unwrap();
        assert_eq!((effect.state, effect.attempts, &effect.result[..]), (EffectState::Done, 1, &b"200"[..]));
        assert_eq!(world.task(id).status, Running);
        // test_different_triggers_independent.
        let _ = world.end(token, TaskOutcome::Success).unwrap();
        assert_eq!(world.effects(id), ["start", "success"]);
    });
}

#[test]
fn test_requeue_claimed_skips_on_start_when_idempotent() {
    play(|world| {
        let id = world.one(task("a").action(Trigger::Start, json!({})));
        assert_eq!(world.claim(), Some(id));
        world.clock.advance(30 * SECOND);
        assert_eq!(world.sweep(), (1, 0, 0));
        assert!(world.effects(id).is_empty(), "nobody had begun it, and nobody is to");
        assert_eq!(world.claim(), Some(id));
        let taken = world.act(|tasks, txn| Ok(tasks.outbox().take(txn, 10)?)).unwrap();
        assert_eq!(taken.len(), 1);
        world.clock.advance(30 * SECOND);
        assert_eq!(world.sweep(), (1, 0, 0));
        assert_eq!(world.claim(), Some(id));
        assert_eq!(
            world.effects(id),
            ["start", "start"],
            "what was begun stays, and is told apart by its key"
        );
    });
}

/// What would start a task was carried out after it had been called off, by whoever came late or tried again.
#[test]
fn s2_15_nothing_starts_a_task_that_was_called_off() {
    play(|world| {
        let draft = || task("a").action(Trigger::Start, json!({})).action(Trigger::Cancel, json!({}));
        let take = || world.act(|tasks, txn| Ok(tasks.outbox().take(txn, 10)?)).unwrap();
        let id = world.one(draft());
        assert_eq!(world.claim(), Some(id));
        world.cancel(id).unwrap();
        assert_eq!(world.effects(id), ["cancel"], "nobody had begun to start it");
        let cancel = take().pop().unwrap();
        world.act(|tasks, txn| Ok(tasks.outbox().complete(txn, &cancel.key, cancel.token, "")?)).unwrap();
        // Of one that has failed and would be tried again, it is known that it was tried.
        let id = world.one(draft().retry(Retry { backoff: Backoff::NONE, retries_max: 3 }));
        assert_eq!(world.claim(), Some(id));
        let start = take().pop().unwrap();
        let _ = world.act(|tasks, txn| Ok(tasks.outbox().fail(txn, &start.key, start.token, "no")?)).unwrap();
        world.cancel(id).unwrap();
        world.clock.advance(1_000 * SECOND);
        let keys: Vec<_> = take().into_iter().map(|taken| taken.key.parts()[1].clone()).collect();
        assert_eq!(keys, [Part::from("cancel")]);
        let effects = world.tasks.outbox().of(&world.ana.snapshot().unwrap(), id).unwrap();
        assert_eq!(effects[0].state, EffectState::Dead);
    });
}

/// Each task of a batch was compared with all before it.
#[test]
fn s2_9_a_large_batch_in_which_nothing_is_twice_is_created() {
    let larder = in_memory();
    let clock = Arc::new(ManualClock::at(SECOND));
    let world = World::new(&larder, &clock);
    let draft = |number: u32| {
        task(&number.to_string()).metadata("key", number % 19_990).unless(matcher(Pending, &["key"]))
    };
    let batch: Vec<TaskDraft> = (0..20_000).map(draft).collect();
    let ids: BTreeSet<TaskId> = world.create(&batch).into_iter().collect();
    assert_eq!(ids.len(), 19_990);
    let again: BTreeSet<TaskId> = world.create(&batch[..100]).into_iter().collect();
    assert!(again.is_subset(&ids));
}

/// What is to be carried out of a task was removed with it.
#[test]
fn a_task_stays_as_long_as_something_of_it_is_to_be_carried_out() {
    play(|world| {
        let id = world.one(task("a").action(Trigger::Success, json!({})));
        let _ = world.succeed(id);
        let later = world.clock.now() + 1;
        let remove = || world.act(|tasks, txn| tasks.remove_ended_before(txn, later, 10)).unwrap();
        assert_eq!(remove(), 0);
        let done = world.act(|tasks, txn| Ok(tasks.outbox().take(txn, 10)?)).unwrap().pop().unwrap();
        assert_eq!(remove(), 0, "somebody is at it");
        world.act(|tasks, txn| Ok(tasks.outbox().complete(txn, &done.key, done.token, "")?)).unwrap();
        assert_eq!(remove(), 1);
    });
}

/// A task that is retried by hand has effects of its own, and what was is known.
#[test]
fn s2_15_a_retry_by_hand_starts_anew_and_forgets_nothing() {
    play(|world| {
        let retry = Retry { backoff: Backoff::NONE, retries_max: 1 };
        let id = world.one(
            task("a").retry(retry).action(Trigger::Start, json!({})).action(Trigger::Failure, json!({})),
        );
        assert_eq!(world.fail(id), Finished::RetryAt(world.clock.now()));
        assert!(matches!(world.fail(id), Finished::Ended(_)));
        assert_eq!(world.effects(id), ["start", "start", "failure"]);
        world.act(|tasks, txn| tasks.retry(txn, id)).unwrap();
        assert_eq!(world.fail(id), Finished::RetryAt(world.clock.now()), "as often as before");
        assert!(matches!(world.fail(id), Finished::Ended(_)));
        assert_eq!(world.effects(id).len(), 6);
        let attempts = world.tasks.attempts(&world.ana.snapshot().unwrap(), id).unwrap();
        assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    });
}

/// A task that is claimed and given up by those who claimed it has not failed.
#[test]
fn s2_15_what_nobody_began_does_not_count_as_a_try() {
    play(|world| {
        let retry = Retry { backoff: Backoff::NONE, retries_max: 1 };
        let id = world.one(task("a").retry(retry));
        for _ in 0..3 {
            assert_eq!(world.claim(), Some(id));
            world.clock.advance(30 * SECOND);
            assert_eq!(world.sweep(), (1, 0, 0));
        }
        assert_eq!(world.fail(id), Finished::RetryAt(world.clock.now()));
        assert!(matches!(world.fail(id), Finished::Ended(_)));
    });
}

#[test]
fn s2_15_a_retry_by_hand_looks_at_what_the_task_waits_for() {
    play(|world| {
        let ids = world.create(&[
            task("a"),
            task("c"),
            task("b").after_success_of("a").after_success_of("c"),
            task("d").after_end_of("c"),
            task("e").after_end_of("c"),
        ]);
        let _ = world.fail(ids[0]);
        assert_eq!(world.statuses(&ids), [Failure, Pending, Failure, Waiting, Waiting]);
        let retry = |id| world.act(|tasks, txn| tasks.retry(txn, id));
        let refused = retry(ids[2]).unwrap_err();
        assert!(matches!(refused, TasksError::InvalidState { task, .. } if task == ids[0]), "{refused}");
        // What it needs can be tried again only with those that wait for it; so this one is lost, and another can be made.
        assert!(matches!(retry(ids[0]), Err(TasksError::ChildrenEnded { .. })));
        // A task that was called off waits for those that are still to end.
        let x = world.one(task("x").after_task(ids[1], false));
        let y = world.one(task("y").after_task(x, true).after_task(ids[1], false));
        world.act(|tasks, txn| tasks.pause(txn, x)).unwrap();
        world.cancel(x).unwrap();
        assert_eq!(world.statuses(&[x, y]), [Canceled, Failure]);
        let x = world.one(task("x").after_task(ids[1], false));
        world.act(|tasks, txn| tasks.pause(txn, x)).unwrap();
        world.cancel(x).unwrap();
        retry(x).unwrap();
        assert_eq!((world.task(x).status, world.waits(x)), (Waiting, (1, 0)));
        let _ = world.succeed(ids[1]);
        assert_eq!(world.task(x).status, Pending);
    });
}

/// Who is paused keeps what he has, and so counts as one who is at work.
#[test]
fn s2_24_a_pause_makes_no_room() {
    play(|world| {
        let ids: Vec<_> = (0..2).map(|_| world.one(task("a").expected(5).rule(at_most(1, &[])))).collect();
        world.start(ids[0]);
        world.act(|tasks, txn| tasks.pause(txn, ids[0])).unwrap();
        assert_eq!(world.claim_task(ids[1]), TaskClaim::Blocked(Blocked::Concurrency { count: 1, max: 1 }));
        // Also for a rule that is new.
        let capped = world.one(task("c").expected(1).rule(capacity(5, &[])));
        assert_eq!(world.claim_task(capped), TaskClaim::Blocked(Blocked::Capacity { remaining: 5, max: 5 }));
        assert_eq!(world.act(|tasks, txn| tasks.resume(txn, ids[0])).unwrap(), Running);
        let _ = world.end(world.task(ids[0]).token(), TaskOutcome::Success).unwrap();
        assert!(matches!(world.claim_task(ids[1]), TaskClaim::Claimed(_)));
        // One that was claimed and goes back makes some.
        world.act(|tasks, txn| tasks.pause(txn, ids[1])).unwrap();
        world.act(|tasks, txn| tasks.resume(txn, ids[1])).unwrap();
        assert_eq!(world.claim(), Some(ids[1]));
    });
}

/// S2-9, S2-22: who goes on after a batch was refused has nothing of it.
#[test]
fn s2_22_a_refused_batch_leaves_nothing_in_the_callers_transaction() {
    play(|world| {
        let lost = world.one(task("lost"));
        let _ = world.fail(lost);
        let bad = [task("a"), task("b").after_success_of("a"), task("c").after_task(lost, true)];
        let unknown = [task("a"), task("b").after_task(12_345, true)];
        let created = world
            .act(|tasks, txn| {
                assert!(matches!(tasks.create(txn, &bad), Err(TasksError::Invalid { .. })));
                assert!(matches!(tasks.create(txn, &unknown), Err(TasksError::NoSuchTask { .. })));
                tasks.create(txn, &[task("good")])
            })
            .unwrap();
        assert_eq!(world.list(&TaskFilter::new()), [lost, created.tasks[0].id()]);
    });
}

/// Two that were not created can be the same task: whoever waits for both waits for it once.
#[test]
fn test_dedupe_of_two_that_somebody_waits_for() {
    play(|world| {
        let there = world.one(task("x").metadata("user", 1));
        let same = |name: &str| task(name).metadata("user", 1).unless(matcher(Pending, &["user"]));
        let ids = world.create(&[same("a"), same("b"), task("c").after_end_of("a").after_success_of("b")]);
        assert_eq!((ids[0], ids[1], world.waits(ids[2])), (there, there, (1, 1)));
    });
}

/// Nobody asks for nothing, and many are many.
#[test]
fn as_many_as_are_asked_for() {
    play(|world| {
        let batch: Vec<_> = (0..1_200).map(|n| task(&format!("t{n}"))).collect();
        world.create(&batch);
        let claim = |limit| world.act(|tasks, txn| tasks.claim_up_to(txn, limit)).unwrap().len();
        assert_eq!((claim(0), claim(1_150), claim(100)), (0, 1_150, 50));
        assert_eq!(world.act(|tasks, txn| tasks.sweep(txn, 0)).unwrap().requeued, 0);
    });
}

// Graphs.

/// test_dag: linear, fan-in, fan-out, diamond, mixed; test_dag_endpoint_returns_tasks_and_links.
#[test]
fn test_dag_shapes_and_counters_at_creation() {
    play(|world| {
        let batch = [
            task("a"),
            task("b").after_success_of("a"),
            task("c").after_end_of("a"),
            task("d").after_success_of("b").after_end_of("c"),
            task("e").after_success_of("d"),
        ];
        let created = world.act(|tasks, txn| tasks.create(txn, &batch)).unwrap();
        let ids: Vec<_> = created.tasks.iter().map(CreatedTask::id).collect();
        let waits: Vec<_> = ids.iter().map(|id| world.waits(*id)).collect();
        assert_eq!(waits, [(0, 0), (1, 1), (1, 0), (2, 1), (1, 1)]);
        let view = world.ana.snapshot().unwrap();
        let (tasks, links) = world.tasks.dag(&view, created.batch).unwrap();
        assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids);
        let link = |parent: usize, child: usize, requires_success| Link {
            parent: ids[parent],
            child: ids[child],
            requires_success,
        };
        let expected =
            [link(0, 1, true), link(0, 2, false), link(1, 3, true), link(2, 3, false), link(3, 4, true)];
        assert_eq!(links, expected);
        assert_eq!(
            world.tasks.why_not(&view, ids[3], SECOND).unwrap(),
            WhyNot::Waiting(vec![link(1, 3, true), link(2, 3, false)])
        );
        assert_eq!(world.tasks.why_not(&view, ids[0], SECOND).unwrap(), WhyNot::NotClaimed { before: 0 });
    });
}

/// S2-11, for links that come later.
#[test]
fn s2_11_a_link_that_closes_a_circle_is_refused_with_the_path() {
    play(|world| {
        let ids =
            world.create(&[task("a"), task("b").after_end_of("a"), task("c").after_end_of("b"), task("d")]);
        let link = |parent, child| world.act(|tasks, txn| tasks.link(txn, parent, child, true));
        // The first one is not waiting for itself yet.
        let error = link(ids[2], ids[0]).unwrap_err();
        let TasksError::Cycle { path } = error else { panic!("{error}") };
        assert_eq!(path, [ids[0], ids[1], ids[2], ids[0]]);
        assert!(matches!(link(ids[0], ids[0]), Err(TasksError::Cycle { .. })));
        assert!(matches!(link(ids[0], ids[1]), Err(TasksError::DuplicateLink { .. })));
        link(ids[3], ids[0]).unwrap();
        assert_eq!((world.task(ids[0]).status, world.waits(ids[0])), (Waiting, (1, 1)));
        let _ = world.succeed(ids[3]);
        assert_eq!(world.task(ids[0]).status, Pending);
        world.start(ids[0]);
        let late = link(world.one(task("e")), ids[0]);
        assert!(matches!(late, Err(TasksError::InvalidState { status: Running, .. })));
    });
}

/// S2-35, by how long tasks ran, or are thought to run.
#[test]
fn s2_35_the_critical_path_of_a_batch() {
    play(|world| {
        let batch = [
            task("a"),
            task("b").after_end_of("a"),
            task("c").after_end_of("a"),
            task("d").after_end_of("b").after_end_of("c"),
        ];
        let created = world.act(|tasks, txn| tasks.create(txn, &batch)).unwrap();
        let ids: Vec<_> = created.tasks.iter().map(CreatedTask::id).collect();
        let run = |id, time| {
            let token = world.start(id);
            world.clock.advance(time * SECOND);
            let _ = world.end(token, TaskOutcome::Success).unwrap();
        };
        run(ids[0], 1);
        run(ids[2], 5);
        run(ids[1], 3);
        let path = world.tasks.critical_path(&world.ana.snapshot().unwrap(), created.batch, |_| 10).unwrap();
        assert_eq!(path.length, 6 * SECOND as u64 + 10);
        assert_eq!(path.nodes, [ids[0], ids[2], ids[3]].map(Part::from));
    });
}

// Namespaces, and what is over.

/// S2-33.
#[test]
fn s2_33_stores_below_different_keys_know_nothing_of_each_other() {
    play(|world| {
        let other = World { tasks: Tasks::at("other").unwrap(), ..World::new(world.larder, world.clock) };
        let rule = |name: &str| {
            task(name).metadata("p", 1).rule(at_most(1, &["p"])).unless(matcher(Pending, &["p"]))
        };
        let mine = world.one(rule("a"));
        let theirs = other.one(rule("a"));
        assert_eq!(
            (world.list(&TaskFilter::new()), other.list(&TaskFilter::new())),
            (vec![mine], vec![theirs])
        );
        assert_eq!((world.claim(), other.claim()), (Some(mine), Some(theirs)), "each has its own limit");
        let before: Vec<_> = other.list(&TaskFilter::new()).iter().map(|id| other.task(*id)).collect();
        assert!(world.act(|tasks, txn| tasks.drop_all(txn)).unwrap());
        assert!(!world.act(|tasks, txn| tasks.drop_all(txn)).unwrap());
        assert!(world.list(&TaskFilter::new()).is_empty());
        assert_eq!(world.claim(), None);
        assert_eq!(
            other.list(&TaskFilter::new()).iter().map(|id| other.task(*id)).collect::<Vec<_>>(),
            before
        );
    });
}

#[test]
fn retention_removes_what_was_over_for_long_with_all_that_is_known_of_it() {
    play(|world| {
        let retry = Retry { backoff: Backoff::NONE, retries_max: 1 };
        let draft = task("a")
            .metadata("p", 1)
            .retry(retry)
            .action(Trigger::Start, json!({}))
            .rule(at_most(9, &["p"]))
            .unless(matcher(Failure, &["p"]));
        let ids = world.create(&[draft, task("b").after_end_of("a"), task("c")]);
        let _ = world.fail(ids[0]);
        let Finished::Ended(_) = world.fail(ids[0]) else { panic!() };
        world.clock.advance(10 * SECOND);
        let _ = world.succeed(ids[1]);
        let now = world.clock.now();
        let remove = |time| world.act(|tasks, txn| tasks.remove_ended_before(txn, time, 1_000)).unwrap();
        assert_eq!(remove(now - 10 * SECOND), 0, "what ended at the time itself stays");
        assert_eq!(remove(now - 10 * SECOND + 1), 1);
        let view = world.ana.snapshot().unwrap();
        assert_eq!(world.tasks.get(&view, ids[0]).unwrap(), None);
        assert!(world.tasks.attempts(&view, ids[0]).unwrap().is_empty());
        assert!(world.effects(ids[0]).is_empty());
        assert!(world.tasks.links(&view, ids[1], Direction::Up).unwrap().is_empty());
        drop(view);
        assert_eq!(remove(now + 1), 1);
        assert_eq!(world.list(&TaskFilter::new()), [ids[2]]);
    });
}

/// S2-9: what is wrong with one of several does not keep the others, if that is what the caller wants.
#[test]
fn s2_9_one_that_fails_does_not_keep_the_others() {
    play(|world| {
        let ids: Vec<_> = (0..10).map(|n| world.one(task(&format!("t{n}")))).collect();
        let tokens: Vec<_> = ids.iter().map(|id| world.start(*id)).collect();
        world.cancel(ids[3]).unwrap();
        // Each in a transaction of its own.
        let ended: Vec<_> =
            tokens[..5].iter().map(|token| world.end(*token, TaskOutcome::Success).is_ok()).collect();
        assert_eq!(ended, [true, true, true, false, true]);
        // All in one: none.
        let all = world.act(|tasks, txn| {
            tokens[3..]
                .iter()
                .try_for_each(|token| tasks.finish(txn, *token, &TaskOutcome::Success).map(drop))
        });
        assert!(matches!(all, Err(TasksError::Fenced { .. })));
        assert_eq!(world.statuses(&ids[5..]), [Running; 5]);
        // And within one, what is refused leaves the transaction as it was.
        let done = world
            .act(|tasks, txn| {
                let ends = tokens[3..].iter().map(|token| tasks.finish(txn, *token, &TaskOutcome::Success));
                Ok(ends.filter(Result::is_ok).count())
            })
            .unwrap();
        assert_eq!(done, 5);
        assert_eq!(world.statuses(&ids[5..]), [Success; 5]);
    });
}

/// S2-18, S2-6: an error has its operands in its text.
#[test]
fn s2_18_errors_say_what_of() {
    let token = TaskToken { task: 31_337, fence: 1 };
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let tasks = Tasks::at("tasks").unwrap();
    let error = ana.try_write(|txn| tasks.run(txn, token)).unwrap_err();
    assert!(error.to_string().contains("31337"), "{error}");
    let problems = vec![Problem { index: 4, field: "name", message: "expected x".to_owned() }];
    let error = TasksError::Invalid { problems };
    assert!(error.to_string().contains("task 4, name: expected x"), "{error}");
    for error in [
        TasksError::Cycle { path: vec![7_001, 7_002] },
        TasksError::DuplicateLink { parent: 7_001, child: 7_002 },
        TasksError::ChildrenEnded { task: 7_001, count: 7_002 },
    ] {
        assert!(error.to_string().contains("7001") && error.to_string().contains("7002"), "{error}");
    }
    verified(&larder);
}
