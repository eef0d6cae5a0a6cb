//! A small build system: the packages of a workspace and what they depend on are tasks, and building one is reading all of
//! its sources. Several threads of one process build; it is killed in the middle, and another one goes on.
//!
//! `cargo run -p larder-layers --example build_system`

#![allow(clippy::print_stdout, reason = "examples show what they do")]
#![allow(clippy::disallowed_methods, reason = "an application has the machine's clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use larder::{Options, Session};
use larder_layers::outbox::Retry;
use larder_layers::queue::Backoff;
use larder_layers::tasks::{
    ClaimedTask, Matcher, Rule, TaskDraft, TaskOutcome, TaskStatus, Tasks, TasksError,
};
use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const THREADS: usize = 4;
/// How long a builder may be silent. Here it is short, so that what a killed one left behind is soon taken up.
const PATIENCE: Duration = Duration::from_millis(300);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, file] = arguments.as_slice()
        && verb == "build"
    {
        return build(Path::new(file));
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("build.larder");
    let larder = Options::new().open(&file)?;
    let session = larder.session("planner")?;
    let drafts = plan()?;
    let created = session.try_write(|txn| tasks()?.create(txn, &drafts))?.value;
    println!("{} packages to build", created.tasks.len());
    larder.close()?;

    // Another process builds, until half of it is done; then it is killed.
    let mut builder = Command::new(std::env::current_exe()?)
        .args(["build".as_ref(), file.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(builder.stdout.take().ok_or("its output")?).lines();
    let seen = lines.map_while(Result::ok).take(drafts.len() / 2).count();
    builder.kill()?;
    builder.wait()?;
    println!("killed after it had told of {seen}");

    // What it said is so; what it was at can be claimed again when its time is over.
    let larder = Options::new().open(&file)?;
    let session = larder.session("planner")?;
    let stats = session.read(|view| Ok(tasks()?.stats(view)))??;
    assert!(stats.of(TaskStatus::Success) >= seen as u64, "nothing that it said is lost");
    for (status, count) in &stats.statuses {
        println!("  {count:>4} {}", status.name());
    }
    larder.close()?;
    build(&file)?;

    let larder = Options::new().open(&file)?;
    let view = larder.session("planner")?.snapshot()?;
    let tasks = tasks()?;
    let stats = tasks.stats(&view)?;
    assert_eq!(stats.of(TaskStatus::Success), created.tasks.len() as u64);
    assert_eq!(view.list("built")?.len(), created.tasks.len(), "each has what was built of it");
    let path = tasks.critical_path(&view, created.batch, |_| 0)?;
    println!(
        "all are built; the longest way through has {} packages, of {} us",
        path.nodes.len(),
        path.length
    );
    println!("verified: {}", larder.verify(&mut |_| {})?.is_clean());
    Ok(())
}

fn tasks() -> larder::Result<Tasks> {
    Ok(Tasks::at("tasks")?.claim_time(PATIENCE))
}

/// Makes a task of every package that this workspace is built of.
fn plan() -> Outcome<Vec<TaskDraft>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .stderr(Stdio::inherit())
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let manifests: BTreeMap<String, String> = list(metadata.get("packages"))
        .iter()
        .map(|package| (text(package, "id"), text(package, "manifest_path")))
        .collect();
    let needs: BTreeMap<String, BTreeSet<String>> = list(metadata.pointer("/resolve/nodes"))
        .iter()
        .map(|node| {
            // What only tests need is not needed to build it, and may go round in a circle.
            let is_needed =
                |edge: &&Value| list(edge.get("dep_kinds")).iter().any(|kind| text(kind, "kind") != "dev");
            let edges = list(node.get("deps"));
            (text(node, "id"), edges.iter().filter(is_needed).map(|edge| text(edge, "pkg")).collect())
        })
        .collect();
    // At most three builds read at the same time, however many threads there are.
    let rule = Rule::Concurrency {
        max: 3,
        matcher: Matcher { status: TaskStatus::Running, kind: "build".to_owned(), fields: Vec::new() },
    };
    let (mut drafts, mut done) = (Vec::new(), BTreeSet::new());
    while done.len() < needs.len() {
        let ready: Vec<&String> = needs
            .iter()
            .filter(|(id, needs)| !done.contains(*id) && needs.iter().all(|need| done.contains(need)))
            .map(|(id, _)| id)
            .collect();
        if ready.is_empty() {
            return Err("packages that need each other".into());
        }
        for id in ready {
            let name = id.rsplit(['/', '#']).next().unwrap_or(id);
            let manifest = manifests.get(id).cloned().unwrap_or_default();
            let draft = TaskDraft::new(id, name, "build")
                .metadata("manifest", manifest)
                .timeout(PATIENCE)
                .rule(rule.clone())
                .retry(Retry { backoff: Backoff::NONE, retries_max: 10 });
            let needed = needs.get(id).into_iter().flatten();
            drafts.push(needed.fold(draft, TaskDraft::after_success_of));
            done.insert(id.clone());
        }
    }
    Ok(drafts)
}

/// Builds until nothing is left, with several threads.
fn build(file: &Path) -> Outcome<()> {
    let larder = Options::new().open(file)?;
    std::thread::scope(|scope| {
        let builders: Vec<_> = (0..THREADS)
            .map(|number| {
                let session = larder.session(format!("builder-{number}").as_str());
                scope.spawn(move || build_until_done(&session?))
            })
            .collect();
        builders.into_iter().try_for_each(|builder| builder.join().map_err(|_| "a builder panicked")?)
    })?;
    larder.close()?;
    Ok(())
}

fn build_until_done(session: &Session) -> Outcome<()> {
    let tasks = tasks()?;
    loop {
        let _ = session.try_write(|txn| tasks.sweep(txn, 100))?.value;
        let claimed = session.try_write(|txn| {
            let claimed = tasks.claim(txn)?;
            claimed.iter().try_for_each(|claimed| tasks.run(txn, claimed.token()))?;
            Ok::<_, TasksError>(claimed)
        })?;
        let Some(claimed) = claimed.value else {
            let stats = session.read(|view| Ok(tasks.stats(view)))??;
            if stats.statuses.iter().all(|(status, _)| status.is_terminal()) {
                return Ok(());
            }
            // Nothing can be claimed until another thread has finished what this one waits for.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let (outcome, digest) = match digest_of(&claimed) {
            Ok(digest) => (TaskOutcome::Success, digest),
            Err(error) => (TaskOutcome::Failure(error.to_string()), String::new()),
        };
        // What was built, and that it was, are one commit. Whoever was too slow has built for nothing.
        let finished = session.try_write(|txn| {
            txn.put(format!("built/{}", claimed.task.id), digest.clone())?;
            tasks.finish(txn, claimed.token(), &outcome)
        });
        match finished {
            Ok(_) => println!("{}", claimed.task.name),
            Err(TasksError::Fenced { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads all sources of a package.
fn digest_of(claimed: &ClaimedTask) -> Outcome<String> {
    let manifest = claimed.body.metadata.get("manifest").and_then(Value::as_str).unwrap_or_default();
    let mut folders = vec![Path::new(manifest).parent().ok_or("a folder")?.join("src")];
    let mut hasher = blake3::Hasher::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                hasher.update(&std::fs::read(&path)?);
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
