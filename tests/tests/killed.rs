//! What a process leaves that is killed at any moment: in each durability a prefix of what it did, and with `Synced` all
//! that it was told was done. `LARDER_LONG=1` kills two hundred times in each durability instead of eight.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use larder::{Durability, ErrorKind, Larder, Options};

const CHILD: &str = "LARDER_TEST_CHILD";

fn durability(name: &str) -> Durability {
    match name {
        "synced" => Durability::Synced,
        "window" => Durability::Window { milliseconds: 20 },
        _ => Durability::Lazy,
    }
}

fn payload(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(37) { 1_200_000 } else { 200 + (number as usize * 7_919) % 9_000 };
    (0..length as u64).map(|at| (at.wrapping_mul(number + 1).wrapping_mul(0x9E37_79B9) >> 24) as u8).collect()
}

/// Short segments: they take turns, and the store is checkpointed, while the process is killed.
fn options() -> Options {
    Options::new().log_segment_bytes(512 << 10)
}

/// Not a test of its own: what the process does that is killed. It writes, and says what it was told was done.
#[test]
fn child() {
    let Some(arguments) = std::env::var_os(CHILD).and_then(|value| value.into_string().ok()) else { return };
    let (path, name) = arguments.split_once('|').unwrap();
    let larder = options().open(path).unwrap();
    let session = larder.session("child").unwrap().durability(durability(name));
    for number in larder.info().unwrap().last_commit.sequence + 1.. {
        let receipt = session.put(format!("k/{:02}", number % 50), payload(number)).unwrap();
        assert_eq!(receipt.commit.sequence, number);
        println!("done {number}");
    }
}

/// Lets a child write until it has been told of so many commits, and kills it. Gives the last that it was told of.
fn killed_after(path: &Path, name: &str, count: u64) -> u64 {
    let mut child = larder_tests::child(CHILD, format!("{}|{name}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = |line: String| line.trim().strip_prefix("done ").and_then(|number| number.parse::<u64>().ok());
    let mut numbers = lines.filter_map(told);
    let mut last = numbers.by_ref().take(count as usize).last().expect("the child writes");
    // While it lives nobody else has the file.
    match Larder::open(path).map(drop).unwrap_err().kind() {
        ErrorKind::Locked { pid } => assert!(pid.is_none_or(|pid| pid == child.id()), "{pid:?}"),
        other => panic!("{other}"),
    }
    child.kill().unwrap();
    // What it still said before it went.
    last = numbers.last().unwrap_or(last);
    child.wait().unwrap();
    last
}

fn check(path: &Path, told: u64, name: &str) -> u64 {
    let larder = Larder::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let session = larder.session("parent").unwrap();
    let last = larder.info().unwrap().last_commit.sequence;
    assert!(name != "synced" || last >= told, "{name}: told of {told}, there are {last}");
    for key in 0..50 {
        let newest = (1..=last).rev().find(|number| number % 50 == key);
        let found = session.get(format!("k/{key:02}"));
        match newest {
            Some(number) => {
                assert!(found.unwrap().bytes().unwrap() == payload(number), "{name}: commit {number}")
            }
            None => assert!(found.is_err(), "{name}: {key}"),
        }
    }
    assert_eq!(session.feed_since(0, usize::MAX).unwrap().len() as u64, last, "{name}: the feed is whole");
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean(), "{name}: {:?}", report.findings);
    larder.close().unwrap();
    last
}

fn kills(name: &str) {
    let rounds = if std::env::var_os("LARDER_LONG").is_some() { 200 } else { 8 };
    let directory = tempfile::tempdir().unwrap();
    let mut path = directory.path().join("0.larder");
    for round in 0..rounds {
        // On what the kill before left, and now and then anew.
        if round % 5 == 0 {
            path = directory.path().join(format!("{round}.larder"));
        }
        let told = killed_after(&path, name, 1 + (round * 7_919) % 150);
        // Whoever held the lock is gone, and so is the lock.
        check(&path, told, name);
    }
}

#[test]
fn x_3_x_11_s3_1_b_s4_2_3_a_killed_process_loses_nothing_that_was_on_disk() {
    kills("synced");
}

#[test]
fn x_3_s4_2_3_a_killed_process_leaves_a_prefix_with_a_window() {
    kills("window");
}

#[test]
fn x_3_s4_2_3_a_killed_process_leaves_a_prefix_of_what_was_lazy() {
    kills("lazy");
}
