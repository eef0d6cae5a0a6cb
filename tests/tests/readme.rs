//! The code that the README shows is compiled and run here: what is shown there is found here, word by word.

use std::time::Duration;

use larder::{Draft, Edit, Fenceable, Larder, Lookup, Outcome, Session, Status};
use larder_layers::queue::{Message, QueueError, QueueSettings, Queues};
use larder_layers::remember::{Cache, Parts, Remember, RememberError};
use larder_layers::tasks::{TaskDraft, TaskOutcome, Tasks, TasksError};

type Outcomes = Result<(), Box<dyn std::error::Error>>;

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn compute(leeks: &larder::Asset) -> String {
    format!("leeks,{}", leeks.record().payload().length())
}

fn serve(report: larder::Asset) {
    drop(report);
}

fn bake(leeks: u32) -> Result<larder_layers::remember::Computed, RememberError> {
    Ok(format!("a pie of {leeks} leeks").into())
}

fn the_library_in_twenty_lines() -> Outcomes {
    let larder = Larder::open("pantry.larder")?;
    let ana = larder.session("ana")?;

    ana.put("menus/friday.json", br#"{"soup":"leek"}"#)?;
    let dish = ana.get("menus/friday.json")?;
    assert_eq!(dish.record().media_type(), "application/json");
    ana.put_file("photos/plating.png", "plating.png")?;
    ana.list("menus")?;

    ana.write(|txn| {
        txn.put("stock/leeks.txt", "10")?;
        txn.put("log/1.txt", "two leeks used")?;
        Ok(())
    })?;
    match ana.apply(Edit::put("menus/friday.json", "{}").if_generation(3))?.value {
        Outcome::Refused(refusal) => println!("expected {}", refusal.expected),
        outcome => println!("{outcome:?}"),
    }
    larder.close()?;
    Ok(())
}

fn work_that_can_be_revoked(ana: &Session) -> Outcomes {
    let claim = ana.claim("reports/q3.csv").for_at_most(minutes(10))?;
    let report = compute(&ana.get("stock/leeks.txt")?);
    let draft = Draft::from(report).status(Status::Ready).with(|about| about.depends_on("stock/leeks.txt"));
    match claim.put(draft)? {
        Fenceable::Done(receipt) => println!("stored in commit {}", receipt.commit.sequence),
        Fenceable::Fenced { by } => println!("{by:?} set or cancelled it meanwhile; nothing was changed"),
    }
    ana.put("stock/leeks.txt", "9")?;
    match ana.get_loadable("reports/q3.csv")? {
        Lookup::Hit(report) => serve(report),
        Lookup::Miss(why) => println!("{why}"),
    }
    let Lookup::Miss(why) = ana.get_loadable("reports/q3.csv")? else { panic!("it was made from 10 leeks") };
    assert_eq!(why.to_string(), "it has expired");
    Ok(())
}

fn a_queue_and_a_cache(ana: Session) -> Outcomes {
    let orders = Queues::at("queues")?.queue("orders")?;
    ana.try_write(|txn| orders.create(txn, &QueueSettings::default()))?;
    ana.try_write(|txn| orders.enqueue(txn, Message::new("two soups").delay(minutes(5))))?;
    ana.try_write(|txn| -> Result<(), QueueError> {
        if let Some(order) = orders.dequeue(txn)? {
            txn.put("kitchen/1.txt", order.payload().clone())?;
            orders.ack(txn, order.token())?;
        }
        Ok(())
    })?;
    let many = ana.combiner(); // for many threads: what comes together is one commit
    let queue = orders.clone();
    many.try_write(move |txn| queue.enqueue(txn, Message::new("a pie")))?;

    let pies = Cache::at("cache")?.namespace("pies")?;
    let pie = pies.get_or_compute(&ana, &Parts::new().with("leeks", 3), &Remember::new(), || bake(3))?;
    assert_eq!(pie.bytes()?, "a pie of 3 leeks");
    Ok(())
}

fn tasks(ana: &Session) -> Result<(), TasksError> {
    let tasks = Tasks::at("tasks")?;
    let batch = [
        TaskDraft::new("fetch", "fetch it", "io"),
        TaskDraft::new("build", "build it", "cpu").after_success_of("fetch"),
    ];
    ana.try_write(|txn| tasks.create(txn, &batch))?;
    if let Some(task) = ana.try_write(|txn| tasks.claim(txn))?.value {
        ana.try_write(|txn| tasks.run(txn, task.token()))?;
        ana.try_write(|txn| tasks.finish(txn, task.token(), &TaskOutcome::Success))?;
    }
    assert_eq!(ana.try_write(|txn| tasks.claim(txn))?.value.unwrap().task.name, "build it");
    Ok(())
}

/// Code without what does not matter: comments, white space, and the commas that end a list.
fn words(code: &str) -> String {
    let code = code.lines().map(|line| line.split(" //").next().unwrap_or(line)).collect::<String>();
    let code: String = code.split_whitespace().collect();
    [(",)", ")"), (",]", "]"), (",}", "}")].iter().fold(code, |code, (from, to)| code.replace(from, to))
}

#[test]
fn what_the_readme_shows_is_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::env::set_current_dir(folder.path()).unwrap();
    std::fs::write("plating.png", b"\x89PNG\r\n\x1a\n").unwrap();
    the_library_in_twenty_lines().unwrap();
    let larder = Larder::open("pantry.larder").unwrap();
    let ana = larder.session("ana").unwrap();
    work_that_can_be_revoked(&ana).unwrap();
    a_queue_and_a_cache(ana.clone()).unwrap();
    tasks(&ana).unwrap();

    let here = words(include_str!("readme.rs"));
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> =
        readme.split("```rust\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        let code = block.lines().filter(|line| !line.starts_with("use ")).collect::<Vec<_>>().join("\n");
        assert!(here.contains(&words(&code)), "not here as it is there:\n{block}");
    }
}
