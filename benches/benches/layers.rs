//! What tasks and graphs take, at the sizes that are promised. `cargo bench -p larder-benches --bench layers [-- NAME]`

#![allow(
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "a measurement reads the machine's clock"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use larder::{
    Direction, Durability, Graph, Larder, Options, RowDraft, Session, WalkLimits, graph_definition,
};
use larder_benches::{Run, median, percentile, run_wanted};
use larder_layers::tasks::{
    Counts, CreatedTask, Matcher, Rule, TaskDraft, TaskId, TaskOutcome, TaskStatus, TaskToken, Tasks,
};

const ROUNDS: usize = 5;

fn main() {
    let runs: &[Run] = &[
        ("claims", claims),
        ("wide", wide),
        ("deep", deep),
        ("counters", counters),
        ("lineage", lineage),
        ("retention", retention),
    ];
    run_wanted(runs).expect("a folder for temporary files");
}

fn store(folder: &Path) -> (Larder, Session, Tasks) {
    let larder = Options::new().open(folder.join("layers.larder")).expect("a store");
    let session = larder.root().expect("a session").durability(Durability::Lazy);
    (larder, session, Tasks::at("tasks").expect("a key"))
}

fn work(local: String) -> TaskDraft {
    TaskDraft::new(local, "work", "work")
}

fn create(session: &Session, tasks: &Tasks, batch: &[TaskDraft]) -> Vec<TaskId> {
    let created = session.try_write(|txn| tasks.create(txn, batch)).expect("a batch").value;
    created.tasks.iter().map(CreatedTask::id).collect()
}

fn start(session: &Session, tasks: &Tasks, limit: usize) -> Vec<TaskToken> {
    let claimed = session.try_write(|txn| tasks.claim_up_to(txn, limit)).expect("tasks").value;
    let tokens: Vec<_> = claimed.iter().map(|claimed| claimed.token()).collect();
    let run = session.try_write(|txn| tokens.iter().try_for_each(|token| tasks.run(txn, *token)));
    run.expect("tasks that were claimed");
    tokens
}

/// A claim under a rule, and the finish that makes room for it, with so many running tasks of the same four projects.
fn claims(folder: &Path) {
    for running in [100, 1_000, 10_000] {
        let (larder, session, _) = store(&{
            let folder = folder.join(running.to_string());
            std::fs::create_dir(&folder).expect("a folder");
            folder
        });
        let tasks = Tasks::at("tasks").expect("a key");
        let fields = vec!["project".to_owned()];
        let matcher = Matcher { status: TaskStatus::Running, kind: "work".to_owned(), fields };
        let rule = Rule::Concurrency { max: running / 4 + 1, matcher };
        let draft = |n: u64| work(n.to_string()).metadata("project", n % 4).rule(rule.clone());
        for from in (0..running).step_by(1_000) {
            let batch: Vec<_> = (from..(from + 1_000).min(running)).map(draft).collect();
            create(&session, &tasks, &batch);
            while !start(&session, &tasks, 100).is_empty() {}
        }
        create(&session, &tasks, &(0..2_000).map(draft).collect::<Vec<_>>());
        larder.flush().expect("a disk");
        let mut times: [Vec<f64>; 2] = Default::default();
        for _ in 0..1_000 {
            let began = Instant::now();
            let mut inner = 0.0;
            let claimed = session
                .try_write(|txn| {
                    let began = Instant::now();
                    let claimed = tasks.claim(txn);
                    inner = began.elapsed().as_secs_f64() * 1e6;
                    claimed
                })
                .expect("a store")
                .value
                .expect("there is room for one");
            times[0].push(inner);
            times[1].push(began.elapsed().as_secs_f64() * 1e6);
            let outcome = TaskOutcome::Success;
            session.try_write(|txn| tasks.finish(txn, claimed.token(), &outcome).map(drop)).expect("its own");
        }
        let [inner, all] = &mut times;
        println!(
            "  {running:>6} running: p50 {:.1} us in the transaction (100 asked), {:.1} us with the commit; p99 {:.1} us",
            median(inner),
            median(all),
            percentile(all, 0.99)
        );
    }
}

/// A root with 9 999 after it: created, and finished.
fn wide(folder: &Path) {
    let (_larder, session, tasks) = store(folder);
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        let mut batch = vec![work("root".to_owned()).priority(1)];
        batch.extend((0..9_999).map(|n| work(n.to_string()).after_success_of("root")));
        let began = Instant::now();
        create(&session, &tasks, &batch);
        times[0].push(began.elapsed().as_secs_f64());
        let root = start(&session, &tasks, 1)[0];
        let began = Instant::now();
        let finished = session.try_write(|txn| tasks.finish(txn, root, &TaskOutcome::Success));
        let _ = finished.expect("its own").value;
        times[1].push(began.elapsed().as_secs_f64());
    }
    let [created, finished] = &mut times;
    println!("  10 000 tasks created in one transaction: {:.2} s (1 asked)", median(created));
    println!("  the root finished, 9 999 made ready: {:.2} s (1 asked)", median(finished));
}

/// A failure that goes down a chain.
fn deep(folder: &Path) {
    let (_larder, session, tasks) = store(folder);
    for deep in [1_000_u64, 10_000, 100_000] {
        let tasks = Tasks::at(format!("deep{deep}").as_str()).unwrap_or(tasks.clone());
        let mut last = create(&session, &tasks, &[work("first".to_owned())])[0];
        for from in (0..deep).step_by(10_000) {
            let mut batch = vec![work(from.to_string()).after_task(last, true)];
            let rest = from + 1..(from + 10_000).min(deep);
            batch.extend(rest.map(|n| work(n.to_string()).after_success_of((n - 1).to_string())));
            last = create(&session, &tasks, &batch).pop().expect("a task");
        }
        let first = start(&session, &tasks, 1)[0];
        let outcome = TaskOutcome::Failure("no".to_owned());
        let began = Instant::now();
        let _ = session.try_write(|txn| tasks.finish(txn, first, &outcome)).expect("its own").value;
        let took = began.elapsed().as_secs_f64();
        println!("  a failure down a chain of {deep}: {took:.3} s (5 asked for 100 000)");
    }
}

/// Counts of 100 tasks, flushed together.
fn counters(folder: &Path) {
    let (_larder, session, tasks) = store(folder);
    let ids = create(&session, &tasks, &(0..100).map(|n| work(n.to_string())).collect::<Vec<_>>());
    start(&session, &tasks, 100);
    let items: Vec<_> = ids.iter().map(|task| Counts { task: *task, successes: 100, failures: 0 }).collect();
    let mut times: Vec<f64> = (0..1_000)
        .map(|_| {
            let began = Instant::now();
            session.try_write(|txn| tasks.count(txn, None, &items).map(drop)).expect("tasks");
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    let each = median(&mut times);
    println!("  a flush of 100 tasks: p50 {each:.0} us, {:.1} M increments/s", 10_000.0 / each);
}

/// A graph of diamonds, walked from its source.
fn lineage(folder: &Path) {
    let (larder, session, _) = store(folder);
    let (layers, width) = (2_500_u64, 4_u64);
    let connect = session.write(|txn| txn.define_collection("lineage", &graph_definition()).map(drop));
    connect.expect("a graph");
    let mut edges = 0_u64;
    for from in (0..layers).step_by(100) {
        let put = session.write(|txn| {
            let mut graph = Graph::over(txn.collection("lineage")?);
            for layer in from..from + 100 {
                for (a, b) in (0..width).flat_map(|a| (0..width).map(move |b| (a, b))) {
                    graph.connect(1, layer * width + a, (layer + 1) * width + b, RowDraft::default())?;
                    edges += 1;
                }
            }
            Ok(())
        });
        put.expect("edges");
    }
    // To 100 000 edges, with shortcuts over ten layers.
    let put = session.write(|txn| {
        let mut graph = Graph::over(txn.collection("lineage")?);
        for over in 10.. {
            for node in 0..(layers - 30) * width {
                if edges >= 100_000 {
                    return Ok(());
                }
                graph.connect(1, node, node + over * width, RowDraft::default())?;
                edges += 1;
            }
        }
        Ok(())
    });
    put.expect("edges");
    larder.flush().expect("a disk");
    let limits = WalkLimits { depth_max: u32::MAX, nodes_max: usize::MAX };
    for (name, start, direction) in [("down", 0, Direction::Down), ("up", layers * width, Direction::Up)] {
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let view = session.snapshot().expect("a view");
                let began = Instant::now();
                let mut graph = Graph::over(view.collection("lineage").expect("a graph"));
                let walked = graph.walk(1, [start], direction, limits).expect("a walk");
                assert!(walked.reached.len() as u64 >= (layers - 1) * width, "{}", walked.reached.len());
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        println!("  {edges} edges, {} nodes, {name}: {:.0} ms", layers * width + width, median(&mut times));
    }
}

/// What is over removed in batches of 1 000, and how long a read takes meanwhile.
fn retention(folder: &Path) {
    let (larder, session, tasks) = store(folder);
    let mut known = Vec::new();
    for _ in 0..20 {
        known = create(&session, &tasks, &(0..5_000).map(|n| work(n.to_string())).collect::<Vec<_>>());
        let batch = session.read(|view| Ok(tasks.batches(view))).expect("a view").expect("batches");
        let batch = batch.last().expect("a batch").0;
        let _ = session.try_write(|txn| tasks.stop_batch(txn, batch)).expect("a batch").value;
    }
    larder.flush().expect("a disk");
    let read = |times: &mut Vec<f64>| {
        let began = Instant::now();
        let view = session.snapshot().expect("a view");
        let _ = tasks.get(&view, known[known.len() - 1 - times.len() % 100]).expect("a store");
        times.push(began.elapsed().as_secs_f64() * 1e6);
    };
    let mut alone = Vec::new();
    (0..10_000).for_each(|_| read(&mut alone));
    let (is_over, mut meanwhile, mut batches) = (AtomicBool::new(false), Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                read(&mut meanwhile);
            }
        });
        loop {
            let began = Instant::now();
            let removed = session.try_write(|txn| tasks.remove_ended_before(txn, i64::MAX, 1_000));
            if removed.expect("tasks").value == 0 {
                break;
            }
            batches.push(began.elapsed().as_secs_f64() * 1e3);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    println!(
        "  100 000 tasks removed, 1 000 at a time: p50 {:.1} ms; a read alone p50 {:.1} us, p99 {:.1} us, meanwhile p50 {:.1} us, p99 {:.1} us",
        median(&mut batches),
        median(&mut alone),
        percentile(&mut alone, 0.99),
        median(&mut meanwhile),
        percentile(&mut meanwhile, 0.99)
    );
}
