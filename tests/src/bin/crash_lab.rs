//! The crash lab as a command: crash images, crashes while a crash is recovered from, errors of the disk, bits that rot, files with
//! edits, schedules of fences, histories of threads. Prints a scoreboard; the exit code is 1 if anything was found, with the line
//! that shows it again (for a history: that runs its program again, as often as is said; how the threads meet is up to the
//! machine).
//!
//! ```text
//! cargo run --release -p larder-tests --bin crash_lab                    the tier of every change
//! cargo run --release -p larder-tests --bin crash_lab -- long 3600       for so many seconds each
//! cargo run --release -p larder-tests --bin crash_lab -- replay SEED LOG AT LOSS SEED [AT LOSS SEED]
//! cargo run --release -p larder-tests --bin crash_lab -- deliveries              every crash of programs over queues and a cache
//! cargo run --release -p larder-tests --bin crash_lab -- delivery SEED           every crash of one program over queues and a cache
//! cargo run --release -p larder-tests --bin crash_lab -- errors                the errors of the disk, all of them
//! cargo run --release -p larder-tests --bin crash_lab -- error CALL AT FAILURE LASTING
//! cargo run --release -p larder-tests --bin crash_lab -- bits                  a bit of every byte of some files
//! cargo run --release -p larder-tests --bin crash_lab -- bit FILE BYTE BIT
//! cargo run --release -p larder-tests --bin crash_lab -- edits SEED COUNT
//! cargo run --release -p larder-tests --bin crash_lab -- fences SEED
//! cargo run --release -p larder-tests --bin crash_lab -- history SEED TIMES
//! cargo run --release -p larder-tests --bin crash_lab -- soak DAYS SEED        so many days of a store, on a clock that is told the time
//! ```

#![expect(clippy::disallowed_methods, reason = "how long it takes is told, and limited")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::format::{CollectionDefinition, Operation};
use larder::{
    Clock, Draft, Durability, Fenceable, IndexDefinition, Larder, ManualClock, Options, SnapshotFile,
    SnapshotOptions, WriteTxn, verify_file,
};
use larder_tests::history::{Checked, Program, check, record};
use larder_tests::{
    Call, Crash, Drawn, Failure, Fault, FaultyDisk, Image, Judge, Known, Lie, LongRun, Loss, Plan, Random,
    Rot, Said, Soak, Soaked, Survived, Trace, Verdict, Workload, deliveries_of, small, status_kib, still,
};
use parking_lot::Mutex;

/// How many steps of a program are run.
const PROGRAM_STEPS: usize = 40;
/// How many threads there are in a history, and how many calls of each.
const HISTORY: (usize, usize) = (4, 20);

/// How much is done.
#[derive(Clone, Copy)]
struct Tier {
    images: u64,
    double_crashes: u64,
    deliveries: u64,
    thorough_every: u64,
    is_every_bit: bool,
    edits: u64,
    schedules: u64,
    histories: u64,
    limit: Duration,
}

/// What every change has to pass.
const CHANGE: Tier = Tier {
    images: 100_000,
    double_crashes: 20_000,
    deliveries: 50_000,
    thorough_every: 20,
    is_every_bit: false,
    edits: 100_000,
    schedules: 1_000_000,
    histories: 10_000,
    limit: Duration::MAX,
};

fn main() {
    // What redb answers damage with is an error for those who call the store; nobody has to read of each.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let tier = match words.as_slice() {
        [] => CHANGE,
        ["long", seconds] => {
            let limit = Duration::from_secs(seconds.parse().expect("a number of seconds"));
            let (images, double_crashes) = (u64::MAX, u64::MAX);
            let (schedules, histories, deliveries, edits) = (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
            let is_every_bit = true;
            Tier {
                images,
                double_crashes,
                deliveries,
                edits,
                schedules,
                histories,
                limit,
                is_every_bit,
                ..CHANGE
            }
        }
        ["verify", path] => {
            let is_clean = verify_file(path, &mut |_| {}).is_ok_and(|report| report.is_clean());
            std::process::exit(i32::from(!is_clean));
        }
        ["seeds", folder] => {
            for (number, seed) in seeds().iter().enumerate() {
                std::fs::write(format!("{folder}/{number}"), seed).expect("a folder that can be written to");
            }
            return;
        }
        ["edits", seed, count] => {
            edits(seed.parse().expect("a number"), count.parse().expect("a number"));
            return;
        }
        ["history", seed, times] => {
            let (seed, times) = (seed.parse().expect("a number"), times.parse().expect("a number"));
            let not_explained = (0..times).filter(|_: &u64| history(seed).is_none()).count();
            println!("{not_explained} of {times} not explained");
            std::process::exit(i32::from(not_explained > 0));
        }
        ["delivery", seed] => {
            // Each is recounted in full: what only a recount finds is to be found again.
            let seed = seed.parse().expect("a number");
            let found = deliveries_of(seed, 1, &AtomicU64::new(0), &Mutex::default());
            println!("{found} findings");
            std::process::exit(i32::from(found > 0));
        }
        ["deliveries"] => {
            let failures = AtomicU64::new(0);
            deliveries(&CHANGE, &failures);
            std::process::exit(i32::from(failures.into_inner() > 0));
        }
        ["soak", days, seed] => {
            let (days, seed) = (days.parse().expect("a number"), seed.parse().expect("a number"));
            std::process::exit(i32::from(!soak(Soak { seed, days, steps_a_day: 1_440 })));
        }
        ["errors"] => {
            let failures = AtomicU64::new(0);
            errors(&CHANGE, &failures);
            std::process::exit(i32::from(failures.into_inner() > 0));
        }
        ["error", call, at, failure, is_lasting] => {
            error(call, at, failure, is_lasting);
            return;
        }
        ["fences", seed] => {
            let found = fences_of(seed.parse().expect("a number"));
            println!("{found} stale writes");
            std::process::exit(i32::from(found > 0));
        }
        ["bits"] => {
            let failures = AtomicU64::new(0);
            rotten_bits(&CHANGE, &failures);
            std::process::exit(i32::from(failures.into_inner() > 0));
        }
        ["bit", name, at, number] => {
            bit(name, at, number);
            return;
        }
        ["lie", number] => lie(number.parse().expect("a number")),
        ["replay", seed, with_log, crash @ ..] if matches!(crash.len(), 3 | 6) => {
            let (first, again) = crash.split_at(3);
            replay(seed, with_log, crash_of(first), (!again.is_empty()).then(|| crash_of(again)));
            return;
        }
        _ => {
            eprintln!(
                "crash_lab [long SECONDS | replay SEED LOG AT LOSS SEED [AT LOSS SEED] | deliveries | delivery SEED | errors | error CALL AT FAILURE LASTING | bits | bit FILE BYTE BIT | edits SEED COUNT | fences SEED | history SEED TIMES | soak DAYS SEED]"
            );
            std::process::exit(2);
        }
    };
    let failures = AtomicU64::new(0);
    // First: what the others need of memory would hide what it needs.
    let has_aged_well = soak(Soak { seed: 1, days: 112, steps_a_day: 480 });
    failures.fetch_add(u64::from(!has_aged_well), Ordering::Relaxed);
    crash_images(&tier, &failures);
    deliveries(&tier, &failures);
    lies(&failures);
    errors(&tier, &failures);
    rotten_bits(&tier, &failures);
    random_edits(&tier, &failures);
    fences(&tier, &failures);
    histories(&tier, &failures);
    let failures = failures.load(Ordering::Relaxed);
    println!("{} findings", failures);
    std::process::exit(i32::from(failures > 0));
}

/// Runs a program on a disk that remembers; gives what it did, and what is known.
fn run(seed: u64, with_log: bool, lie: Option<Lie>) -> (Trace, Known) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let options = || small(&clock);
    let fresh = FaultyDisk::default();
    fresh.open(options(), with_log).expect("a new store").close().expect("a store that closes");
    let base: Image = [fresh.store(), Vec::new()];
    let disk = FaultyDisk::holding(base.clone(), Plan { is_recorded: true, lie, ..Plan::default() });
    let mut known = Known::default();
    let mut workload = Workload::new(seed);
    let mut note = |larder: &Larder, is_durable: bool, disk: &FaultyDisk| {
        let info = larder.info().expect("a store that is open");
        let (sequence, steps) = (info.last_commit.sequence, disk.step_count());
        known.identities.insert(sequence, info.state);
        known.begun.insert(steps, sequence);
        if is_durable {
            known.durable.insert(steps, sequence);
        }
    };
    let mut larder = disk.open(options(), with_log).expect("a store that opens");
    note(&larder, true, &disk);
    for step in 0..PROGRAM_STEPS {
        workload.step(&larder, &clock).expect("a disk that works");
        note(&larder, workload.is_durable(), &disk);
        if step % 13 == 12 {
            larder.close().expect("a store that closes");
            larder = disk.open(options(), with_log).expect("a store that opens again");
            note(&larder, true, &disk);
        }
    }
    drop(larder);
    DRAWN.lock().add(workload.counts());
    (Trace { base, steps: disk.take_steps() }, known)
}

/// How often each kind of operation was done in programs, and refused.
static DRAWN: Mutex<Drawn> = Mutex::new(Drawn::new());

/// Years of a store: it must come up as it was whenever it is opened, and need no more with age. Prints what it needed, month by
/// month.
fn soak(soak: Soak) -> bool {
    const MONTH: usize = 30;
    let began = Instant::now();
    println!("  day    commits  crashes  failures   file MiB   kept MiB  memory MiB");
    let mib = |bytes: &[u64]| bytes.last().copied().unwrap_or(0) as f64 / 1_048_576.0;
    let mut needed = Vec::new();
    let mut look = |day: usize, so_far: &Soaked| {
        let needs = [mib(&so_far.file_bytes), mib(&so_far.kept_bytes), status_kib("VmRSS") as f64 / 1_024.0];
        if (day + 1).is_multiple_of(7) {
            needed.push(needs);
        }
        if (day + 1).is_multiple_of(MONTH) {
            let (Soaked { commits, crashes, failures, .. }, [file, kept, memory]) = (so_far, needs);
            println!(
                "{:>5} {commits:>10} {crashes:>8} {failures:>9} {file:>10.1} {kept:>10.1} {memory:>11.1}",
                day + 1
            );
        }
    };
    let done = match soak.run(&mut look) {
        Ok(done) => done,
        Err(what) => {
            println!("  {what}");
            return false;
        }
    };
    let is_flat = needs_no_more_with_age(&needed);
    println!(
        "{} days, {} commits, {} closed, {} crashes, {} failures of the disk, {} recounts in full, {:.0} s: {}",
        soak.days,
        done.commits,
        done.closed,
        done.crashes,
        done.failures,
        done.recounts,
        began.elapsed().as_secs_f64(),
        match is_flat {
            Some(true) => "needs no more with age",
            Some(false) => "NEEDS MORE WITH AGE",
            None => "too short to tell whether it needs more with age",
        }
    );
    is_flat != Some(false)
}

/// Holds the later half of the weeks against the earlier half: file, what is kept, memory, by their medians, as programs differ
/// from day to day. A file grows by doubling, and lies in memory here, with what of it was synced and what was not.
fn needs_no_more_with_age(weeks: &[[f64; 3]]) -> Option<bool> {
    const WEEKS_MIN: usize = 16;
    let (early, late) = weeks.split_at(weeks.len() / 2);
    let median = |weeks: &[[f64; 3]], what: usize| {
        let mut needs: Vec<f64> = weeks.iter().map(|needs| needs[what]).collect();
        needs.sort_by(f64::total_cmp);
        needs.get(needs.len() / 2).copied().unwrap_or(0.0)
    };
    let allowed = [(2.0, 0.0), (1.25, 0.25), (1.25, 3.0 * median(late, 0))];
    let is_flat = allowed
        .into_iter()
        .enumerate()
        .all(|(what, (times, more))| median(late, what) <= times * median(early, what) + more);
    (weeks.len() >= WEEKS_MIN).then_some(is_flat)
}

#[derive(Default)]
struct Score {
    images: AtomicU64,
    double_crashes: AtomicU64,
    thorough: AtomicU64,
    bad: AtomicU64,
}

fn crash_images(tier: &Tier, failures: &AtomicU64) {
    let (score, began) = (Score::default(), Instant::now());
    let seeds = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let is_going = || {
                    (score.images.load(Ordering::Relaxed) < tier.images
                        || score.double_crashes.load(Ordering::Relaxed) < tier.double_crashes)
                        && began.elapsed() < tier.limit
                };
                while is_going() {
                    let seed = seeds.fetch_add(1, Ordering::Relaxed);
                    // Most stores have a log.
                    images_of(seed, !seed.is_multiple_of(4), tier, &score, &is_going);
                }
            });
        }
    });
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "crash images          {:>9}   {} of them recounted in full, {} programs, {:.0} s",
        count(&score.images),
        count(&score.thorough),
        seeds.into_inner() - 1,
        began.elapsed().as_secs_f64()
    );
    println!("crashes in recovery   {:>9}", count(&score.double_crashes));
    println!("  lost, phantom, refused, unsound: {}", count(&score.bad));
    failures.fetch_add(DRAWN.lock().tell(), Ordering::Relaxed);
    failures.fetch_add(count(&score.bad), Ordering::Relaxed);
}

/// Crashes of consumers who take messages from a queue, and remember what they came to.
fn deliveries(tier: &Tier, failures: &AtomicU64) {
    let (images, seeds, bad, began) =
        (AtomicU64::new(0), AtomicU64::new(1), AtomicU64::new(0), Instant::now());
    let drawn = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while images.load(Ordering::Relaxed) < tier.deliveries && began.elapsed() < tier.limit {
                    let seed = seeds.fetch_add(1, Ordering::Relaxed);
                    let found = deliveries_of(seed, tier.thorough_every, &images, &drawn);
                    if found > 0 && bad.fetch_add(found, Ordering::Relaxed) < 10 {
                        println!(
                            "  again: cargo run --release -p larder-tests --bin crash_lab -- delivery {seed}"
                        );
                    }
                }
            });
        }
    });
    let bad = bad.into_inner();
    println!(
        "deliveries            {:>9}   images of {} programs over queues and a cache, {bad} lost, back, or not adding up, {:.0} s",
        images.into_inner(),
        seeds.into_inner() - 1,
        began.elapsed().as_secs_f64()
    );
    failures.fetch_add(drawn.into_inner().tell(), Ordering::Relaxed);
    failures.fetch_add(bad, Ordering::Relaxed);
}

fn images_of(seed: u64, with_log: bool, tier: &Tier, score: &Score, is_going: &dyn Fn() -> bool) {
    let (trace, known) = run(seed, with_log, None);
    for at in 0..=trace.steps.len() {
        for loss in Loss::ALL {
            let crash = Crash { at, loss, seed };
            let number = score.images.fetch_add(1, Ordering::Relaxed);
            let is_thorough = number.is_multiple_of(tier.thorough_every);
            score.thorough.fetch_add(u64::from(is_thorough), Ordering::Relaxed);
            // Of every fifth the recovery itself is cut short.
            let is_recorded = number.is_multiple_of(5);
            let image = trace.image(&crash);
            let judge = Judge { is_thorough, is_recorded };
            let (verdict, steps) = judge.look(image.clone(), with_log, &known, at);
            report(&verdict, seed, with_log, &crash, score);
            if is_recorded {
                recovery_cut_short(&Trace { base: image, steps }, with_log, &known, (seed, crash), score);
            }
        }
        if !is_going() {
            return;
        }
    }
}

/// Crashes somewhere while a crash is recovered from.
fn recovery_cut_short(
    recovery: &Trace,
    with_log: bool,
    known: &Known,
    (seed, crash): (u64, Crash),
    score: &Score,
) {
    let mut random = Random::new(seed ^ crash.at as u64);
    for loss in [Loss::Nothing, Loss::Some, Loss::Torn] {
        let again = Crash { at: random.below(recovery.steps.len() + 1), loss, seed: random.number() };
        score.double_crashes.fetch_add(1, Ordering::Relaxed);
        let (verdict, _) = Judge::default().look(recovery.image(&again), with_log, known, crash.at);
        if report(&verdict, seed, with_log, &crash, score) {
            println!("    and in its recovery: {} {:?} {}", again.at, again.loss, again.seed);
        }
    }
}

/// Tells of what was found, if anything was and not too often before; tells whether it did.
fn report(verdict: &Verdict, seed: u64, with_log: bool, crash: &Crash, score: &Score) -> bool {
    let is_told = !matches!(verdict, Verdict::Good(_)) && score.bad.fetch_add(1, Ordering::Relaxed) < 10;
    if is_told {
        println!("  {verdict:?}");
        println!(
            "  again: cargo run --release -p larder-tests --bin crash_lab -- replay {seed} {with_log} {} {:?} {}",
            crash.at, crash.loss, crash.seed
        );
    }
    is_told
}

/// Reads what a crash was: where, what it lost, and what draws that.
fn crash_of(words: &[&str]) -> Crash {
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let loss = Loss::ALL.into_iter().find(|known| format!("{known:?}") == words[1]).expect("a kind of loss");
    Crash { at: number(0) as usize, loss, seed: number(2) }
}

/// Looks at a crash again, and at one in its recovery: at that one, if it is said, or at all.
fn replay(seed: &str, with_log: &str, crash: Crash, again: Option<Crash>) {
    let with_log = with_log == "true";
    let (trace, known) = run(seed.parse().expect("a number"), with_log, None);
    let judge = Judge { is_thorough: true, is_recorded: true };
    let image = trace.image(&crash);
    let (verdict, steps) = judge.look(image.clone(), with_log, &known, crash.at);
    println!("{verdict:?}, after {} steps of recovery", steps.len());
    let recovery = Trace { base: image, steps };
    let all = (0..=recovery.steps.len()).flat_map(|at| Loss::ALL.map(|loss| Crash { at, loss, seed: 1 }));
    for again in again.map_or_else(|| all.collect(), |again| vec![again]) {
        let (verdict, _) = judge.look(recovery.image(&again), with_log, &known, crash.at);
        if !matches!(verdict, Verdict::Good(_)) {
            println!("cut short at {}, {:?}: {verdict:?}", again.at, again.loss);
        }
    }
}

/// What a disk can say that is not so. The lab would notice a store that does the same.
const LIES: [(&str, Lie); 5] = [
    ("no sync of the log", Lie::Sync(1)),
    ("no sync of the file", Lie::Sync(0)),
    ("a write to the log in 7 is lost", Lie::Write(1, 7)),
    ("a write to the file in 31 is lost", Lie::Write(0, 31)),
    ("the length of the log is lost", Lie::SetLength(1)),
];

/// Each lie must be found out. In a process of its own: what it leaves can end redb, and the process with it.
fn lies(failures: &AtomicU64) {
    for (number, (what, _)) in LIES.into_iter().enumerate() {
        let lab = std::env::current_exe().expect("a path");
        let output =
            std::process::Command::new(lab).args(["lie", &number.to_string()]).output().expect("a process");
        let found = output.status.code() != Some(0);
        println!("planted: {what:<34} {}", if found { "found out" } else { "MISSED" });
        failures.fetch_add(u64::from(!found), Ordering::Relaxed);
    }
}

/// Tells a lie; ends with 1 when it is found out.
fn lie(number: usize) -> ! {
    for seed in 1..=6 {
        let (trace, known) = run(seed, true, Some(LIES[number].1));
        for at in (0..=trace.steps.len()).step_by(3) {
            for loss in [Loss::Nothing, Loss::Some] {
                let image = trace.image(&Crash { at, loss, seed });
                let judge = Judge { is_thorough: true, is_recorded: false };
                if !matches!(judge.look(image, true, &known, at).0, Verdict::Good(_)) {
                    std::process::exit(1);
                }
            }
        }
    }
    std::process::exit(0);
}

/// Each call to the disk that a run of two hundred commits makes fails once, in each way there is.
fn errors(tier: &Tier, failures: &AtomicU64) {
    let (began, next, bad) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let run = LongRun::new();
    let (calls, faults) = (run.calls(), run.faults());
    let work = || {
        let mut done: Vec<Survived> = Vec::new();
        while began.elapsed() < tier.limit {
            let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed) as usize) else { break };
            match run.with(*fault) {
                Ok(survived) => done.push(survived),
                Err(what) => {
                    let Fault { call, at, failure, is_lasting } = *fault;
                    if bad.fetch_add(1, Ordering::Relaxed) < 10 {
                        println!("  {fault:?}: {what}");
                        println!(
                            "  again: cargo run --release -p larder-tests --bin crash_lab -- error {call:?} {at} \
                             {failure:?} {is_lasting}"
                        );
                    }
                }
            }
        }
        done
    };
    let done = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(work), scope.spawn(work));
        let mut done = one.join().expect("a worker");
        done.extend(other.join().expect("a worker"));
        done
    });
    let (bad, count) =
        (bad.into_inner(), |is: fn(&Survived) -> bool| done.iter().filter(|one| is(one)).count());
    println!(
        "errors of the disk    {:>9} of {}, {} images: {bad} findings, {:.0} s",
        done.len() as u64 + bad,
        faults.len(),
        done.iter().map(|one| one.images).sum::<u64>(),
        began.elapsed().as_secs_f64()
    );
    println!("  at each of {calls:?}");
    println!(
        "  {} met by a caller, {} with an unknown outcome, {} went on; {} went on after Poisoned, {} refused commits came up after a loss of power",
        count(|one| one.errors > 0),
        count(|one| one.is_unknown),
        count(|one| one.went_on),
        count(|one| one.took_back),
        count(|one| one.refused_came_up)
    );
    failures.fetch_add(bad, Ordering::Relaxed);
}

fn error(call: &str, at: &str, failure: &str, is_lasting: &str) {
    let call = Call::ALL.into_iter().find(|known| format!("{known:?}") == call).expect("a kind of call");
    let failure = Failure::ALL.into_iter().find(|known| format!("{known:?}") == failure).expect("a failure");
    let fault = Fault { call, at: at.parse().expect("a number"), failure, is_lasting: is_lasting == "true" };
    println!("{:?}", LongRun::new().with(fault));
}

/// Fills a store, of which bits then rot.
type Fill = fn(&Larder);

const FIXTURES: [(&str, Fill); 4] = [
    ("small", small_assets),
    ("many levels", many_levels),
    ("large payloads", large_payloads),
    ("everything", everything),
];

fn small_assets(larder: &Larder) {
    let session = larder.session("ana").expect("a session");
    for number in 0..6 {
        session.put(format!("s/{number}"), number.to_string()).expect("room");
    }
}

fn many_levels(larder: &Larder) {
    let bulk: Vec<String> = (0..60).map(|number| format!("k/{number:04}")).collect();
    let put = |txn: &mut WriteTxn<'_>| {
        bulk.iter().try_for_each(|key| txn.put(key, Draft::from(key.repeat(40)).tag("t")).map(drop))
    };
    larder.session("ana").expect("a session").write(put).expect("room");
}

fn large_payloads(larder: &Larder) {
    let session = larder.session("ana").expect("a session");
    for number in 0..3 {
        session.put(format!("large/{number}"), Random::new(number).bytes(20_000)).expect("room");
    }
}

/// Rows of every kind: of collections, a queue, claims, edges, history, tags, the feed.
fn everything(larder: &Larder) {
    program(larder, 49, 40);
}

/// Does so many steps of the program of a seed.
fn program(larder: &Larder, seed: u64, steps: usize) {
    let (mut workload, clock) = (Workload::new(seed), ManualClock::at(1_000_000));
    for _ in 0..steps {
        workload.step(larder, &clock).expect("a disk that works");
    }
}

/// What verifying a file in a process of its own came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verified {
    Clean,
    Found,
    /// It ended in another way than by saying so.
    Ended,
}

fn verify(path: &Path) -> Verified {
    let lab = std::env::current_exe().expect("a path");
    match std::process::Command::new(lab).arg("verify").arg(path).output().expect("a process").status.code() {
        Some(0) => Verified::Clean,
        Some(1) => Verified::Found,
        _ => Verified::Ended,
    }
}

/// What was seen of one file with a bit that was turned.
#[derive(Default)]
struct Seen {
    wrong: AtomicU64,
    unseen: AtomicU64,
    ended: AtomicU64,
    noticed: AtomicU64,
}

impl Seen {
    /// Looks at a file; gives what is a finding.
    fn look(&self, said: &Said, path: &Path) -> Option<&'static str> {
        let (count, finding) = match said.again(path) {
            Rot::Unchanged => return None,
            Rot::Refused => (&self.noticed, None),
            Rot::Wrong => (&self.wrong, Some("wrong bytes")),
            Rot::Missing => match verify(path) {
                Verified::Found => (&self.noticed, None),
                Verified::Clean => (&self.unseen, Some("not found by verify")),
                Verified::Ended => (&self.ended, Some("verify did not end by itself")),
            },
        };
        count.fetch_add(1, Ordering::Relaxed);
        finding
    }
}

/// A folder in memory, where there is one.
fn folder() -> tempfile::TempDir {
    let within = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "." };
    tempfile::tempdir_in(within).expect("a folder")
}

/// Writes a store that is closed and as short as it can be; gives its bytes.
fn fixture(path: &Path, fill: impl FnOnce(&Larder)) -> Vec<u8> {
    let larder = still().open(path).expect("a new store");
    fill(&larder);
    larder.compact(None).expect("a shorter file");
    larder.close().expect("a store that closes");
    std::fs::read(path).expect("a file")
}

/// One bit of every byte of some files, or every bit: no read gives other bytes, and what is missing is found by `verify`.
fn rotten_bits(tier: &Tier, failures: &AtomicU64) {
    let folder = folder();
    for (name, fill) in FIXTURES {
        let began = Instant::now();
        let path = folder.path().join("a.larder");
        let good = fixture(&path, fill);
        let said = Said::of(&path, name == "everything").expect("a store that can be read");
        let (next, seen) = (AtomicU64::new(0), Seen::default());
        let of_each = if tier.is_every_bit { 8 } else { 1 };
        let all = good.len() as u64 * of_each;
        let turn_bits = |thread: usize| {
            let path = folder.path().join(format!("{thread}.larder"));
            let mut bytes = good.clone();
            while began.elapsed() < tier.limit {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= all {
                    break;
                }
                let at = (number / of_each) as usize;
                let bit = number % 8;
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, &bytes).expect("room in memory");
                if let Some(what) = seen.look(&said, &path) {
                    println!("  {what}: {name}, bit {bit} of byte {at}");
                    println!(
                        "  again: cargo run --release -p larder-tests --bin crash_lab -- bit \"{name}\" {at} {bit}"
                    );
                }
                bytes[at] ^= 1 << bit;
            }
        };
        std::thread::scope(|scope| {
            (0..2).for_each(|thread| drop(scope.spawn(move || turn_bits(thread))));
        });
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        println!(
            "bits of {name:<14} {:>9} of {} bytes, {} assets and rows: {} wrong bytes, {} not found by verify, {} ended it, {} noticed, {:.0} s",
            all.min(count(&next)),
            good.len(),
            said.count(),
            count(&seen.wrong),
            count(&seen.unseen),
            count(&seen.ended),
            count(&seen.noticed),
            began.elapsed().as_secs_f64()
        );
        failures.fetch_add(count(&seen.wrong) + count(&seen.unseen) + count(&seen.ended), Ordering::Relaxed);
        if name == "small" {
            snapshot_bits(&path, folder.path(), failures);
        }
        std::fs::remove_file(&path).expect("a file of ours");
    }
}

/// Turns one bit of one file, and says what is read from it then.
fn bit(name: &str, at: &str, bit: &str) {
    let folder = folder();
    let path = folder.path().join("a.larder");
    let (_, fill) = FIXTURES.into_iter().find(|(known, _)| *known == name).expect("a file that is known");
    let mut bytes = fixture(&path, fill);
    let said = Said::of(&path, name == "everything").expect("a store that can be read");
    bytes[at.parse::<usize>().expect("a number")] ^= 1 << bit.parse::<u32>().expect("a number");
    std::fs::write(&path, &bytes).expect("room in memory");
    println!("{} bytes, {} rows", bytes.len(), said.count());
    println!("{:?}: {}", said.again(&path), Seen::default().look(&said, &path).unwrap_or("as it should be"));
}

/// Every bit of a snapshot.
fn snapshot_bits(path: &Path, folder: &Path, failures: &AtomicU64) {
    let larder = Options::new().open_read_only(path).expect("a store");
    let mut snapshot = Vec::new();
    larder.snapshot_into(&mut snapshot, &SnapshotOptions::new()).expect("a snapshot");
    let target = folder.join("snapshot");
    let mut missed = 0;
    for bit in 0..snapshot.len() * 8 {
        snapshot[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&target, &snapshot).expect("room in memory");
        if SnapshotFile::open(&target).and_then(|file| file.verify(1, None)).is_ok() {
            missed += 1;
            println!("  not noticed: bit {} of byte {} of the snapshot of \"small\"", bit % 8, bit / 8);
        }
        snapshot[bit / 8] ^= 1 << (bit % 8);
    }
    println!("bits of a snapshot    {:>9}: {missed} not noticed", snapshot.len() * 8);
    failures.fetch_add(missed, Ordering::Relaxed);
}

/// Files with a few random bytes in them, or pages that are gone, doubled or in each other's place, or cut short: opening, reading and verifying give something or an error, and end nobody.
fn random_edits(tier: &Tier, failures: &AtomicU64) {
    const AT_ONCE: u64 = 5_000;
    let (began, next, ended) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed * AT_ONCE >= tier.edits || began.elapsed() > tier.limit {
                        return;
                    }
                    let lab = std::env::current_exe().expect("a path");
                    let arguments = ["edits".to_owned(), seed.to_string(), AT_ONCE.to_string()];
                    let status = std::process::Command::new(lab).args(arguments).status().expect("a process");
                    if !status.success() {
                        ended.fetch_add(1, Ordering::Relaxed);
                        println!("  again: cargo run --release -p larder-tests --bin crash_lab -- edits {seed} {AT_ONCE}");
                    }
                }
            });
        }
    });
    let done = next.into_inner().saturating_sub(2) * AT_ONCE;
    let ended = ended.into_inner();
    println!(
        "files with edits      {done:>9}: {ended} processes ended, {:.0} s",
        began.elapsed().as_secs_f64()
    );
    failures.fetch_add(ended, Ordering::Relaxed);
}

/// Does to a file what disks, copies and people do: most often to a few bytes, else to a page, or to its end.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const PAGE: usize = 4_096;
    let pages = bytes.len() / PAGE;
    let page = |number: usize| number * PAGE..(number + 1) * PAGE;
    let (one, other) = (random.below(pages), random.below(pages));
    match random.below(10) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => bytes[page(one)].fill(0),
        2 => bytes.copy_within(page(one), other * PAGE),
        3 => {
            let moved = bytes[page(one)].to_vec();
            bytes.copy_within(page(other), one * PAGE);
            bytes[page(other)].copy_from_slice(&moved);
        }
        _ => {
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = random.number() as u8;
            }
        }
    }
}

/// Edits a file so many times, and looks at it each time. Ends in a panic where anything else does.
fn edits(seed: u64, count: u64) {
    let folder = folder();
    let path = folder.path().join("a.larder");
    let good = fixture(&path, |larder| program(larder, seed, 12));
    let mut random = Random::new(seed);
    for _ in 0..count {
        let mut bytes = good.clone();
        damage(&mut bytes, &mut random);
        std::fs::write(&path, &bytes).expect("room in memory");
        let Ok(larder) = Options::new().cache_bytes(1 << 20).open_read_only(&path) else { continue };
        let _ = larder.verify(&mut |_| {});
        let _ = larder.info();
        let _ = larder.root().and_then(|session| session.snapshot()).map(|snapshot| {
            snapshot
                .walk("")
                .map(|walk| walk.filter_map(Result::ok).filter(|(key, _)| snapshot.get(key).is_ok()).count())
        });
    }
}

/// What real encodings look like, for `tests/fuzz` to begin with.
fn seeds() -> Vec<Vec<u8>> {
    let larder = still().open_in_memory().expect("a store in memory");
    let mut workload = Workload::new(5);
    let clock = ManualClock::at(1_000_000);
    for _ in 0..60 {
        workload.step(&larder, &clock).expect("a store in memory");
    }
    let mut snapshot = Vec::new();
    larder.snapshot_into(&mut snapshot, &SnapshotOptions::new()).expect("a snapshot");
    let definition = CollectionDefinition::new()
        .index(IndexDefinition::new("a").by("b").by_descending("c").only("d", [1, 2]));
    let definition = definition.encode(7).expect("a short definition").to_vec();
    let mut seeds = vec![definition];
    seeds.extend([snapshot[..80].to_vec(), b"a\0b\0".to_vec(), b"users/*/x/**".to_vec()]);
    let content = zstd::decode_all(snapshot.as_slice()).expect("zstd frames");
    let (bytes, mut at) = (bytes::Bytes::from(content), 144);
    seeds.push(bytes[..144].to_vec());
    while let Ok(operation) = Operation::decode(&bytes, &mut at) {
        if let Operation::Put { value, key, .. } = &operation {
            seeds.push(value[8..].iter().take(2_000).copied().collect());
            seeds.push(key.to_vec());
        }
    }
    seeds.push(
        b"default = \"deny\"\n[[rule]]\nallow = [\"read\"]\nwho = [\"*\"]\non = \"a/{owner}/**\"\n".to_vec(),
    );
    seeds.push(b"max_binary_size = \"1 MiB\"\n[[history]]\non = \"**\"\ngenerations = 3\n".to_vec());
    seeds.push(b"[[format]]\nname = \"x\"\nmedia_types = [\"a/b\"]\nextensions = [\"x\"]\n".to_vec());
    seeds
}

/// Holders that pause, clocks that move: nobody whose claim is past writes anything.
fn fences(tier: &Tier, failures: &AtomicU64) {
    let (began, seeds, done, stale) =
        (Instant::now(), AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while done.load(Ordering::Relaxed) < tier.schedules && began.elapsed() < tier.limit / 3 {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            let found = fences_of(seed);
            done.fetch_add(SCHEDULES, Ordering::Relaxed);
            if found > 0 && stale.fetch_add(found, Ordering::Relaxed) < 10 {
                println!("  again: cargo run --release -p larder-tests --bin crash_lab -- fences {seed}");
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let stale = stale.into_inner();
    println!(
        "schedules of fences   {:>9}: {stale} stale writes, {:.0} s",
        done.into_inner(),
        began.elapsed().as_secs_f64()
    );
    failures.fetch_add(stale, Ordering::Relaxed);
}

/// How many schedules are drawn for one store.
const SCHEDULES: u64 = 200;

/// Draws schedules for one store; tells in how many somebody wrote who may not, or had a number that was not new.
fn fences_of(seed: u64) -> u64 {
    let (clock, mut random) = (Arc::new(ManualClock::at(1_000_000)), Random::new(seed));
    let options = still().clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let larder = options.durability(Durability::Lazy).open_in_memory().expect("a store");
    let sessions = ["ana", "bob", "eve"].map(|name| larder.session(name).expect("a session"));
    let mut greatest = 0;
    (0..SCHEDULES).map(|_| schedule(&larder, &sessions, &clock, &mut random, &mut greatest)).sum()
}

/// One schedule: who holds the newest claim is known, and nobody else's write counts.
fn schedule(
    larder: &Larder,
    sessions: &[larder::Session; 3],
    clock: &ManualClock,
    random: &mut Random,
    greatest: &mut u64,
) -> u64 {
    const YEARS: i64 = 10 * 365 * 86_400 * 1_000_000;
    let mut fences: [Option<u64>; 3] = [None; 3];
    let (mut holder, mut stale) = (None, 0);
    for _ in 0..8 {
        let who = random.below(3);
        match random.below(4) {
            0 => {
                let time = Duration::from_micros(1 + random.below(50) as u64);
                let claimed = sessions[who].write(|txn| txn.claim("part", time, None));
                if let Ok(receipt) = claimed {
                    stale += u64::from(receipt.value <= *greatest);
                    *greatest = receipt.value;
                    fences[who] = Some(receipt.value);
                    holder = Some(who);
                }
            }
            // Forwards, and sometimes back, and sometimes far.
            1 => clock.advance(match random.below(100) {
                0..20 => -20,
                20..22 => -YEARS,
                22..24 => YEARS,
                _ => random.below(60) as i64,
            }),
            2 => drop(larder.sweep(10)),
            _ => {
                let Some(fence) = fences[who] else { continue };
                let Ok(claim) = sessions[who].resume_claim("part", fence) else { continue };
                let put = claim.put(format!("by {who}"));
                let is_stored = matches!(put, Ok(Fenceable::Done(_)));
                let _ = claim.detach();
                let may = holder == Some(who) && fences[who] == Some(*greatest);
                stale += u64::from(is_stored && !may);
            }
        }
    }
    if let Some(fence) = holder.and_then(|who| fences[who]) {
        let _ = larder.root().and_then(|root| root.write(|txn| txn.release_claim("part", fence)));
    }
    stale
}

/// Histories of threads that read and write at once: one order explains each.
fn histories(tier: &Tier, failures: &AtomicU64) {
    let (began, seeds, not_explained) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let mut sum = Checked::default();
        while began.elapsed() < tier.limit / 3 {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            if seed >= tier.histories {
                break;
            }
            match history(seed) {
                Some(checked) => sum += checked,
                None => drop(not_explained.fetch_add(1, Ordering::Relaxed)),
            }
        }
        sum
    };
    let sum = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(work), scope.spawn(work));
        let mut sum = one.join().expect("a worker");
        sum += other.join().expect("a worker");
        sum
    });
    let not_explained = not_explained.into_inner();
    println!(
        "histories             {:>9}: {not_explained} not explained, {:.0} s",
        sum.histories + not_explained,
        began.elapsed().as_secs_f64()
    );
    println!(
        "  {} calls, {} of them while others ran; {} commits, {} reads, {} refusals",
        sum.calls, sum.overlapping, sum.commits, sum.reads, sum.refusals
    );
    failures.fetch_add(not_explained, Ordering::Relaxed);
}

/// Runs the program of a seed; gives what was in it, or nothing, and says why, if no order explains what was seen.
fn history(seed: u64) -> Option<Checked> {
    let options = still().cache_bytes(1 << 20).reserve_bytes(0);
    // A disk takes a while to make.
    let larder = match seed % 16 {
        0 => FaultyDisk::default().open(options.log_segment_bytes(64 << 10), true),
        1 => FaultyDisk::default().open(options, false),
        2..=5 => options.record_cache_bytes(0).open_in_memory(),
        _ => options.open_in_memory(),
    };
    let (threads, calls) = HISTORY;
    let (larder, program) = (larder.expect("a store in memory"), Program::new(seed, threads, calls));
    // A call that fails ends its thread.
    let history = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| record(&larder, &program)));
    let found = match history.map(|history| check(&history)) {
        Ok(Ok(checked)) => return Some(checked),
        Ok(Err(violation)) => violation.to_string(),
        Err(_) => "a call failed".to_owned(),
    };
    println!("  {found}");
    println!("  again: cargo run --release -p larder-tests --bin crash_lab -- history {seed} 1000");
    None
}
