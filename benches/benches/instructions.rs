//! How many instructions an operation takes: a guard against slipping back that does not depend on the machine.
//!
//! ```text
//! cargo bench -p larder-benches --bench instructions              # compares with benches/instructions.txt
//! cargo bench -p larder-benches --bench instructions -- --update  # writes it
//! ```
//!
//! Runs itself under valgrind's callgrind, twice for each operation, with so many and with twice as many; the
//! difference is what the operations took without what surrounds them. Where there is no valgrind nothing is counted.

#![allow(clippy::disallowed_methods, reason = "a measurement reads its arguments and the environment")]

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use larder::{CountingIds, Draft, Durability, Larder, ManualClock, Options, Session};

/// By how much a count may grow before the guard speaks up: hash seeds make a few instructions more or less.
const TOLERANCE: f64 = 0.05;
const COUNT: u64 = 2_000;
const OPERATIONS: [&str; 6] =
    ["put", "put, no rule asked", "get", "hot get", "list, an entry", "scan, a record"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [operation, count] = arguments.as_slice() {
        work(operation, count.parse().unwrap_or(0));
        return ExitCode::SUCCESS;
    }
    let Ok(version) = Command::new("valgrind").arg("--version").output() else {
        println!("valgrind is not here; nothing was counted");
        return ExitCode::SUCCESS;
    };
    println!("{}", String::from_utf8_lossy(&version.stdout).trim());
    let recorded_at = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let recorded = std::fs::read_to_string(&recorded_at).unwrap_or_default();
    let (mut now, mut is_more) = (String::new(), false);
    for operation in OPERATIONS {
        let (Some(once), Some(twice)) = (counted(operation, COUNT), counted(operation, 2 * COUNT)) else {
            println!("{operation}: callgrind gave no count");
            return ExitCode::FAILURE;
        };
        let each = twice.saturating_sub(once) / COUNT;
        now.push_str(&format!("{operation}: {each}\n"));
        let before = recorded.lines().find_map(|line| {
            let (name, count) = line.split_once(": ")?;
            (name == operation).then(|| count.parse::<u64>().ok()).flatten()
        });
        let change = before.map_or(0.0, |before| each as f64 / before as f64 - 1.0);
        println!("{operation:<16} {each:>8} instructions, {:+.1} % of what is recorded", change * 100.0);
        is_more |= change > TOLERANCE;
    }
    if arguments.iter().any(|argument| argument == "--update") {
        std::fs::write(&recorded_at, now).expect("the record can be written");
    } else if is_more {
        println!(
            "more than recorded. If that is what is wanted: cargo bench -p larder-benches --bench instructions -- --update"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Counts the instructions of a run.
fn counted(operation: &str, count: u64) -> Option<u64> {
    let this = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args([operation, &count.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = text.lines().find_map(|line| line.split_once("Collected : "))?;
    collected.1.trim().parse().ok()
}

fn store(record_cache_bytes: usize) -> (Larder, Session) {
    let larder = Options::new()
        .inline()
        .clock(Arc::new(ManualClock::at(1_000_000)))
        .ids(Arc::new(CountingIds::default()))
        .durability(Durability::Lazy)
        .record_cache_bytes(record_cache_bytes)
        .open_in_memory()
        .expect("a store in memory");
    let session = larder.session("bench").expect("a session");
    (larder, session)
}

fn key(number: u64) -> String {
    format!("shelf{:02}/{number:06}.txt", number % 20)
}

fn filled(record_cache_bytes: usize) -> (Larder, Session) {
    let (larder, session) = store(record_cache_bytes);
    session
        .write(|txn| (0..2_000).try_for_each(|number| txn.put(key(number), "leek soup").map(drop)))
        .expect("a batch");
    larder.upkeep(0).expect("upkeep");
    (larder, session)
}

/// Does so many of an operation.
fn work(operation: &str, count: u64) {
    match operation {
        "put" | "put, no rule asked" => {
            let (larder, named) = store(8 << 20);
            // Nothing is asked about what the holder of the file does: the difference is what asking takes.
            let session = if operation == "put" { named } else { larder.root().expect("the holder") };
            for number in 0..count {
                session.put(key(number), Draft::from("leek soup").attribute("n", 7i64)).expect("a put");
            }
        }
        "get" | "hot get" => {
            let (_larder, session) = filled(if operation == "get" { 0 } else { 8 << 20 });
            for number in 0..count {
                black_box(session.record(key(number % 100)).expect("a record"));
            }
        }
        "list, an entry" => {
            let (_larder, session) = filled(0);
            for _ in 0..count / 100 {
                black_box(session.list("shelf07").expect("a listing"));
            }
        }
        _ => {
            let (_larder, session) = filled(0);
            let view = session.snapshot().expect("a view");
            for _ in 0..count / 2_000 {
                black_box(view.walk("").expect("a walk").count());
            }
        }
    }
}
