//! What a process leaves that cannot have the memory it asks for: it ends, wherever that is, and all that it was told was on
//! disk is there. `LARDER_LONG=1` tries three hundred limits instead of twelve.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use larder::{Draft, ErrorKind, Larder, Options};
use larder_tests::{Random, status_kib, verified};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

const CHILD: &str = "LARDER_TEST_CHILD_WITHOUT_MEMORY";
const KEYS: u64 = 7;
/// How many writes there are at most, should no limit be met.
const WRITES: u64 = 60;
/// How long a process may take. Only one that hangs takes so long.
const TIME_MAX: Duration = Duration::from_secs(300);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Memory could not be had, and it was aborted, as Rust does.
    Aborted,
    /// It was told of an error, and ended itself.
    Error,
    /// It had enough.
    Fed,
}

/// What payloads are pieces of: made before memory is short, so that it is the store that has to ask for some.
fn noise() -> Bytes {
    Random::new(9).bytes(length(WRITES) + WRITES as usize).into()
}

/// Larger and larger: in the commit, and from 1 MiB on staged ahead of it.
fn length(number: u64) -> usize {
    1 + (number * number) as usize * 1_000
}

fn payload(noise: &Bytes, number: u64) -> Bytes {
    noise.slice(number as usize..number as usize + length(number))
}

fn key(number: u64) -> String {
    format!("k/{}", number % KEYS)
}

/// Not a test of its own: what the process does. It takes its memory away, writes, and says what it was told was done.
#[test]
fn child() {
    let Some(arguments) = std::env::var_os(CHILD).and_then(|value| value.into_string().ok()) else { return };
    let (path, more) = arguments.split_once('|').unwrap();
    let noise = noise();
    let larder = Options::new().log_segment_bytes(4 << 20).open(path).unwrap();
    let session = larder.session("child").unwrap();
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Core, limit(0)).unwrap();
    println!("done 0");
    setrlimit(Resource::As, limit((status_kib("VmSize") << 10) + more.parse::<u64>().unwrap())).unwrap();
    for number in 1..=WRITES {
        match session.put(key(number), Draft::bytes(payload(&noise, number))) {
            Ok(receipt) => assert_eq!(receipt.commit.sequence, number),
            Err(error) => {
                // Also an answer, as long as it has a kind.
                println!("error {}", error.kind().name());
                std::process::exit(0);
            }
        }
        println!("done {number}");
    }
}

/// Lets a child write with so many bytes more than it has. Gives the last commit that it was told of, and how it ended.
fn starved(path: &Path, more: u64) -> (u64, End) {
    let mut child = larder_tests::child(CHILD, format!("{}|{more}", path.display()))
        // Otherwise the allocator takes address space long before it is asked for memory.
        .env("MALLOC_ARENA_MAX", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (pid, (done, is_done)) = (Pid::from_child(&child), mpsc::channel::<()>());
    let watch = std::thread::spawn(move || {
        let hangs = is_done.recv_timeout(TIME_MAX).is_err();
        if hangs {
            let _ = kill_process(pid, Signal::KILL);
        }
        hangs
    });
    let (mut last, mut error) = (None, None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        match line.trim().split_once(' ') {
            Some(("done", number)) => last = number.parse::<u64>().ok().or(last),
            Some(("error", name)) => error = Some(name.to_owned()),
            _ => {}
        }
    }
    let mut words = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut words);
    // It is waited for after this: until then nobody else has its number.
    let _ = done.send(());
    assert!(!watch.join().unwrap(), "{more} bytes more: it hangs");
    let status = child.wait().unwrap();
    let last = last.unwrap_or_else(|| panic!("{more} bytes more: it did not begin: {status}, {words}"));
    let is_for_want_of_memory = words.contains("memory allocation of");
    let end = match (status.signal().map(Signal::from_named_raw), status.code()) {
        (Some(Some(Signal::ABORT)), _) if is_for_want_of_memory => End::Aborted,
        (None, Some(0)) if error.is_some() => End::Error,
        (None, Some(0)) if last == WRITES => End::Fed,
        _ => panic!("{more} bytes more: it ended with {status} after {last}: {words}"),
    };
    (last, end)
}

fn check(path: &Path, noise: &Bytes, told: u64, what: &str) {
    let larder = Larder::open(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let session = larder.session("parent").unwrap();
    let last = larder.info().unwrap().last_commit.sequence;
    assert!(last == told || last == told + 1, "{what}: told of {told}, there are {last}");
    for at in 0..KEYS {
        let newest = (1..=last).rev().find(|number| number % KEYS == at);
        let found = session.get(key(at)).and_then(|asset| asset.bytes());
        match newest {
            Some(number) => {
                assert!(found.unwrap() == payload(noise, number), "{what}: commit {number} of {last}");
            }
            None => assert!(matches!(found.unwrap_err().kind(), ErrorKind::NotFound), "{what}: {at}"),
        }
    }
    let count = session.snapshot().unwrap().walk("").unwrap().count() as u64;
    assert_eq!(count, last.min(KEYS), "{what}");
    verified(&larder);
    larder.close().unwrap();
}

#[test]
fn t09_a_process_without_memory_loses_nothing_that_was_on_disk() {
    let rounds = if std::env::var_os("LARDER_LONG").is_some() { 300 } else { 12 };
    let directory = tempfile::tempdir().unwrap();
    let (noise, mut random) = (noise(), Random::new(9));
    let mut ends = BTreeMap::new();
    for round in 0..rounds {
        let path = directory.path().join(format!("{round}.larder"));
        // From so little that hardly anything can be done, to what some staged payloads take.
        let more = (256 << 10) + random.below(1 << (20 + round % 6)) as u64;
        let (told, end) = starved(&path, more);
        check(&path, &noise, told, &format!("round {round}, {more} bytes more, {end:?}"));
        *ends.entry(end).or_insert(0) += 1;
        println!("round {round}: {more} bytes more, {told} commits, {end:?}");
        std::fs::remove_file(&path).unwrap();
    }
    let hungry = ends.get(&End::Aborted).copied().unwrap_or(0);
    assert!(hungry > 0, "none ended for want of memory: {ends:?}");
}
