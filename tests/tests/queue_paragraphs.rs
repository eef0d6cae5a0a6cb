//! The paragraphs of OxideQ's plan that are not about the queue alone: what can be watched, how it ends, who
//! may open it, how much goes through it; and those of its quick wins that concern a store.

#![deny(unfulfilled_lint_expectations)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use larder::{
    Clock, CollectionDefinition, CountingIds, Durability, Edit, ErrorKind, Larder, ManualClock, Options,
    RowDraft, Session,
};
use larder_layers::once::Decisions;
use larder_layers::outbox::Outbox;
use larder_layers::queue::{
    Message, MessageState, Nack, Queue, QueueError, QueueSettings, QueueStats, Queues, Requeued, Token,
};
use larder_layers::rate::{Rate, RateLimit};
use larder_tests::{FaultyDisk, Plan, Workload, everywhere, still, verified};

const SECOND: i64 = 1_000_000;

fn q() -> Queue {
    Queues::at("queues").unwrap().queue("q").unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Creates the queue, unless it is there.
fn create(session: &Session, settings: &QueueSettings) {
    session.try_write(|txn| q().create(txn, settings)).unwrap();
}

fn act<R>(
    session: &Session,
    act: impl FnOnce(&Queue, &mut larder::WriteTxn<'_>) -> Result<R, QueueError>,
) -> Result<R, QueueError> {
    session.try_write(|txn| act(&q(), txn)).map(|receipt| receipt.value)
}

fn put(session: &Session, message: impl Into<Message>) -> Result<u64, QueueError> {
    act(session, |queue, txn| queue.enqueue(txn, message)).map(|enqueued| enqueued.id())
}

fn take(session: &Session, count: usize) -> Vec<Token> {
    let taken = act(session, |queue, txn| queue.dequeue_up_to(txn, count, None)).unwrap();
    taken.iter().map(larder_layers::queue::Envelope::token).collect()
}

fn stats(session: &Session) -> QueueStats {
    session.read(|view| Ok(q().stats(view))).unwrap().unwrap()
}

/// The numbers of all messages that are there, whatever their state.
fn ids(session: &Session) -> Vec<u64> {
    let view = session.snapshot().unwrap();
    let states = [MessageState::Ready, MessageState::Delayed, MessageState::InFlight, MessageState::Dead];
    let all = states.map(|state| q().peek(&view, state, 100_000).unwrap());
    let mut ids: Vec<u64> = all.iter().flatten().map(|message| message.id).collect();
    ids.sort_unstable();
    ids
}

/// S4-§2. What was ever enqueued, delivered, acknowledged, given back, taken back and given up is counted,
/// and how long messages waited. No total ever goes back, and all go on after the file was closed, and after
/// a crash. How long operations take, `health().operations` tells, which `health.rs` tests.
#[test]
fn s4_par_2_totals_only_grow_and_go_on_after_closing_and_after_a_crash() {
    let clock = Arc::new(ManualClock::at(SECOND));
    let totals = |stats: &QueueStats| {
        let QueueStats { enqueued, dequeued, acked, nacked, expired, died, .. } = *stats;
        [vec![enqueued, dequeued, acked, nacked, expired, died], stats.waits.to_vec()].concat()
    };
    let mut last = totals(&QueueStats::default());
    let mut image = Default::default();
    for life in 1..=4 {
        let disk = FaultyDisk::holding(image, Plan::default());
        let larder = disk.open(still().clock(clock.clone()), true).unwrap();
        let ana = larder.session("ana").unwrap();
        create(&ana, &QueueSettings::new().attempts_max(2));
        assert_eq!(totals(&stats(&ana)), last, "life {life} goes on where the one before it ended");
        let mut grown = |step: &str| {
            let now = totals(&stats(&ana));
            assert!(now.iter().zip(&last).all(|(now, before)| now >= before), "{step}: {last:?}, {now:?}");
            assert!(now != last, "{step} is counted");
            last = now;
        };
        act(&ana, |queue, txn| queue.enqueue_all(txn, (0..7).map(|n| Message::new(format!("{n}"))))).unwrap();
        grown("7 are enqueued");
        let held = take(&ana, 3);
        grown("3 are taken");
        act(&ana, |queue, txn| queue.ack(txn, held[0])).unwrap();
        grown("1 is acknowledged");
        let given = act(&ana, |queue, txn| queue.nack(txn, held[1], &Nack::new())).unwrap();
        assert_eq!(given, Requeued::Ready);
        grown("1 is given back");
        clock.advance(30 * SECOND);
        assert_eq!(act(&ana, |queue, txn| queue.sweep(txn, 10)).unwrap(), 1);
        grown("the time of 1 is over");
        let held = take(&ana, 2);
        grown("both are taken again");
        let dead = act(&ana, |queue, txn| queue.nack_all(txn, &held, &Nack::new())).unwrap();
        assert_eq!(dead, [Requeued::Dead; 2]);
        grown("both are given up");
        let held = take(&ana, 1);
        act(&ana, |queue, txn| queue.ack(txn, held[0])).unwrap();
        grown("another is acknowledged");
        let refused = act(&ana, |queue, txn| queue.ack(txn, held[0]));
        assert!(matches!(refused, Err(QueueError::LeaseLost { .. })));
        let now = stats(&ana);
        assert_eq!(
            last[..6],
            [7, 6, 2, 3, 1, 2].map(|each| each * life),
            "what changed nothing is not counted"
        );
        assert_eq!(now.waits.iter().sum::<u64>(), now.dequeued, "every delivery is in one class of waits");
        assert_eq!((now.ready, now.dead), (3 * life, 2 * life));
        verified(&larder);
        // Every other one ends with the machine.
        image = if life % 2 == 0 { disk.durable() } else { Default::default() };
        larder.close().unwrap();
        if life % 2 == 1 {
            image = disk.current();
        }
    }
    assert!(last[6] > 0 && last[7..].iter().sum::<u64>() > 0, "some came at once, and some after 30 s");
}

/// S4-§3. Two queues that take so many in a window each are limited independently, in the commit that enqueues: what is over the limit
/// is not enqueued, what was not enqueued is not counted, and whoever is refused is told until when. So it is in memory, on a file, and
/// after a crash.
#[test]
fn s4_par_3_two_queues_are_limited_independently() {
    let queues = ["fast", "slow"].map(|name| Queues::at("queues").unwrap().queue(name).unwrap());
    let limits = [100, 10].map(|limit| RateLimit::new("limits", limit, seconds(60)).unwrap());
    let depths = |larder: &Larder| {
        let view = larder.root().unwrap().snapshot().unwrap();
        queues.each_ref().map(|queue| queue.stats(&view).map_or(0, |stats| stats.ready))
    };
    everywhere(
        |larder, clock| {
            let ana = larder.session("ana").unwrap();
            for queue in &queues {
                ana.try_write(|txn| queue.create(txn, &QueueSettings::new())).unwrap();
            }
            // Gives the time of the next window, if this one is over.
            let put = |which: usize, count: usize| -> Result<Option<i64>, QueueError> {
                let (queue, mut until) = (&queues[which], None);
                let put = ana.try_write(|txn| {
                    for _ in 0..count {
                        if let Rate::Limited { until: next } = limits[which].take(txn, queue.name())? {
                            until = Some(next);
                            return Err(QueueError::Paused { name: queue.name().to_owned() });
                        }
                        let _ = queue.enqueue(txn, "x")?;
                    }
                    Ok(())
                });
                match put {
                    Err(error) if until.is_none() => Err(error),
                    _ => Ok(until),
                }
            };
            for _ in 0..10 {
                assert_eq!((put(0, 1).unwrap(), put(1, 1).unwrap()), (None, None));
            }
            assert_eq!((put(1, 1).unwrap(), depths(larder)), (Some(61 * SECOND), [10, 10]));
            // A batch that does not fit is neither enqueued nor counted.
            assert_eq!((put(0, 91).unwrap(), depths(larder)), (Some(61 * SECOND), [10, 10]));
            clock.advance(30 * SECOND);
            for _ in 0..90 {
                assert_eq!(put(0, 1).unwrap(), None);
            }
            assert_eq!((put(0, 1).unwrap(), depths(larder)), (Some(61 * SECOND), [100, 10]));
            clock.advance(30 * SECOND - 1);
            assert_eq!((put(0, 1).unwrap(), put(1, 1).unwrap()), (Some(61 * SECOND), Some(61 * SECOND)));
            clock.advance(1);
            assert_eq!((put(1, 10).unwrap(), put(1, 1).unwrap()), (None, Some(121 * SECOND)));
            assert_eq!((put(0, 1).unwrap(), depths(larder)), (None, [101, 20]));
        },
        |larder| {
            // What is counted in the window that goes on is what was enqueued in it, also where a crash has ended it.
            let view = larder.root().unwrap().snapshot().unwrap();
            let counted = |name: &str| {
                let row = view.collection("limits").ok()?.get(name).unwrap()?;
                row.integer("n")
            };
            for (depth, name) in depths(larder).into_iter().zip(["fast", "slow"]) {
                let counted = counted(name).unwrap_or(0).unsigned_abs();
                let before = if name == "fast" { 100 } else { 10 };
                assert!(depth == counted || depth == before + counted, "{name}: {depth}, {counted}");
            }
        },
    );
}

/// S4-§5. Closing puts on disk what was only in memory: 1 000 messages that were enqueued lazily and what was
/// acknowledged. Whoever comes later is told that the store is closed, and a reader that is stuck holds up
/// nobody.
#[test]
fn s4_par_5_closing_puts_everything_on_disk_and_ends_every_handle() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still().log_segment_bytes(16 << 20), true).unwrap();
    let ana = larder.session("ana").unwrap();
    create(&ana, &QueueSettings::new());
    let lazy = ana.clone().durability(Durability::Lazy);
    for number in 0..1_000 {
        put(&lazy, format!("{number}")).unwrap();
    }
    let held = take(&lazy, 10);
    act(&lazy, |queue, txn| queue.ack_all(txn, &held[..4])).unwrap();
    let crashed = FaultyDisk::holding(disk.durable(), Plan::default()).open(still(), true).unwrap();
    assert_eq!(stats(&crashed.session("ana").unwrap()).enqueued, 0, "it was in memory only");
    let (other, stuck) = (larder.clone(), ana.snapshot().unwrap());
    larder.close().unwrap();
    let is_closed = |outcome: Result<(), QueueError>| {
        let Err(QueueError::Store(error)) = &outcome else { panic!("{outcome:?}") };
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    };
    is_closed(put(&ana, "late").map(drop));
    is_closed(act(&ana, |queue, txn| queue.dequeue(txn)).map(drop));
    is_closed(act(&ana, |queue, txn| queue.ack(txn, held[5])));
    is_closed(q().stats(&stuck).map(drop));
    is_closed(ana.snapshot().map(drop).map_err(Into::into));
    other.close().unwrap();
    drop(stuck);
    let larder = FaultyDisk::holding(disk.durable(), Plan::default()).open(still(), true).unwrap();
    let ana = larder.session("ana").unwrap();
    let now = stats(&ana);
    assert_eq!((now.ready, now.in_flight, now.acked, now.enqueued), (990, 6, 4, 1_000));
    act(&ana, |queue, txn| queue.ack_all(txn, &held[4..])).unwrap();
    verified(&larder);
}

/// S4-§5. Closing waits for whoever is at it: what workers were told is done is there, and of what they were
/// refused nothing is.
#[test]
fn s4_par_5_closing_amid_many_workers_keeps_what_they_were_told_and_nothing_else() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    create(&larder.session("ana").unwrap(), &QueueSettings::new());
    let (tell, told) = mpsc::channel::<u64>();
    let mut done: Vec<u64> = std::thread::scope(|scope| {
        for worker in 0..8 {
            let (session, tell) = (larder.session("worker").unwrap(), tell.clone());
            let session =
                session.durability(if worker % 2 == 0 { Durability::Lazy } else { Durability::Synced });
            scope.spawn(move || {
                loop {
                    match put(&session, "x") {
                        Ok(id) => tell.send(id).unwrap(),
                        Err(QueueError::Store(error)) => {
                            assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
                            return;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        drop(tell);
        let first: Vec<u64> = told.iter().take(200).collect();
        larder.close().unwrap();
        first.into_iter().chain(told.iter()).collect()
    });
    done.sort_unstable();
    let larder = FaultyDisk::holding(disk.durable(), Plan::default()).open(still(), true).unwrap();
    assert!(done.len() >= 200);
    assert_eq!(ids(&larder.session("ana").unwrap()), done);
    verified(&larder);
}

/// What a process of this test's own is to do: `work` or `hold`, and the path of the file.
const CHILD: &str = "LARDER_TEST_QUEUE_CHILD";

fn on_a_clock(path: &Path) -> larder::Result<Larder> {
    Options::new().clock(Arc::new(ManualClock::at(SECOND))).open(path)
}

/// Says something to whoever started the process.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "said {line}").and_then(|()| out.flush()).unwrap();
}

/// Not a test of its own: what the processes do that are started by others.
#[test]
fn child() {
    let Some(what) = std::env::var_os(CHILD).and_then(|value| value.into_string().ok()) else { return };
    let (what, path) = what.split_once('|').unwrap();
    let larder = match on_a_clock(Path::new(path)) {
        Ok(larder) => larder,
        Err(error) => match error.kind() {
            ErrorKind::Locked { pid } => return say(format_args!("locked {}", pid.unwrap_or(0))),
            _ => panic!("{error}"),
        },
    };
    let ana = larder.session("ana").unwrap();
    create(&ana, &QueueSettings::new());
    if what == "hold" {
        put(&ana, "one more").unwrap();
        say(format_args!("open {}", stats(&ana).ready));
        // Until whoever started it lets go.
        std::io::stdin().lines().for_each(drop);
        return larder.close().unwrap();
    }
    loop {
        for _ in 0..3 {
            say(format_args!("enqueued {}", put(&ana, vec![b'x'; 1_024]).unwrap()));
        }
        for token in take(&ana, 2) {
            act(&ana, |queue, txn| queue.ack(txn, token)).unwrap();
            say(format_args!("acked {}", token.message));
        }
    }
}

struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(what: &str, path: &Path) -> Self {
        let mut child = larder_tests::child(CHILD, format!("{what}|{}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next thing that it says, and the number in it; nothing once it has ended.
    fn said(&mut self) -> Option<(String, u64)> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let said = line.split_once("said ").and_then(|(_, said)| said.trim().split_once(' '));
            if let Some((what, number)) = said {
                return Some((what.to_owned(), number.parse().unwrap()));
            }
        }
    }

    fn end(mut self) -> std::process::ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().unwrap()
    }
}

/// S4-§5. A process that is told to go (SIGTERM) and has no handler for it loses nothing that it was told was
/// done: what was enqueued is there, what was acknowledged does not come again.
#[cfg(unix)]
#[test]
fn s4_par_5_a_process_that_is_terminated_keeps_what_was_acknowledged() {
    use std::os::unix::process::ExitStatusExt;
    for count in [1, 40, 77] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.larder");
        let (mut enqueued, mut acked) = (Vec::new(), Vec::new());
        let mut process = Process::start("work", &path);
        let mut note = |said: (String, u64)| match said.0.as_str() {
            "enqueued" => enqueued.push(said.1),
            "acked" => acked.push(said.1),
            other => panic!("{other}"),
        };
        for _ in 0..count {
            note(process.said().expect("it works until it is told to go"));
        }
        let kill = format!("kill -TERM {}", process.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        // What it still said before it went.
        while let Some(said) = process.said() {
            note(said);
        }
        assert_eq!(process.end().signal(), Some(15));
        let larder = on_a_clock(&path).unwrap();
        let ana = larder.session("ana").unwrap();
        let there = ids(&ana);
        assert!(acked.iter().all(|id| !there.contains(id)), "what was acknowledged is gone");
        // It may have been stopped between doing a thing and saying so: one thing, of either kind.
        let gone = enqueued.iter().filter(|id| !there.contains(id) && !acked.contains(id)).count();
        let more = there.iter().filter(|id| !enqueued.contains(id)).count();
        assert!(gone + more <= 1, "{gone} are gone, {more} came, of {} and {}", enqueued.len(), acked.len());
        let now = stats(&ana);
        assert_eq!((now.enqueued, now.acked), ((enqueued.len() + more) as u64, (acked.len() + gone) as u64));
        assert!(now.in_flight <= 2 && enqueued.len() + acked.len() >= count, "{now:?}");
        verified(&larder);
    }
}

/// S4-§7. Whether a queue is too deep is asked in the same time however deep it is: the figures of the queue
/// and the health of the store take the same few reads of the file at 100 messages and at 10 000, give or
/// take the levels of its trees. What is too deep is up to the layer above.
#[test]
fn s4_par_7_depth_and_health_are_read_in_the_same_time_however_deep_the_queue_is() {
    let asked = [100usize, 10_000].map(|depth| {
        let disk = FaultyDisk::default();
        let larder = disk.open(still(), true).unwrap();
        let ana = larder.session("ana").unwrap();
        create(&ana, &QueueSettings::new());
        act(&ana, |queue, txn| queue.enqueue_all(txn, (0..depth).map(|_| Message::new("x")))).unwrap();
        take(&ana, depth / 10);
        larder.close().unwrap();
        // Nothing of it is in memory.
        let disk = FaultyDisk::holding(disk.current(), Plan::default());
        let larder = disk.open(still().cache_bytes(0), true).unwrap();
        let ana = larder.session("ana").unwrap();
        let before = disk.reads();
        let now = stats(&ana);
        let health = larder.health();
        let reads = disk.reads() - before;
        assert!(health.open && health.writable && health.last_error.is_none());
        let is_deep = |limit: u64| now.ready + now.delayed + now.in_flight > limit;
        assert_eq!([depth as u64 - 1, depth as u64, 1_000_000].map(is_deep), [true, false, false]);
        assert_eq!((now.in_flight, now.bytes, now.oldest), (depth as u64 / 10, depth as u64, Some(SECOND)));
        let before = disk.reads();
        assert_eq!(ids(&ana).len(), depth);
        (reads, disk.reads() - before)
    });
    let [(few, counted_few), (many, counted_many)] = asked;
    assert!(many <= few + 16, "{few} reads at 100, {many} at 10 000");
    assert!(counted_many > 10 * counted_few.max(many), "counting is what it is not: {asked:?}");
}

/// S4-§8. Of two replicas on one volume one opens the file, and the other is told at once which process has
/// it. When the first has gone, by itself or killed, the next opens it, and nothing is missing.
#[test]
fn s4_par_8_of_many_processes_one_opens_the_file_until_it_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.larder");
    let mut depth = 0;
    for is_killed in [false, true, false] {
        // They start at once; the one that opens it holds it until it is let go.
        let replicas: Vec<Process> = (0..6).map(|_| Process::start("hold", &path)).collect();
        let mut holders = Vec::new();
        let mut refused = Vec::new();
        for mut replica in replicas {
            let (what, number) = replica.said().expect("an answer");
            match what.as_str() {
                "open" => holders.push((replica, number)),
                _ => refused.push((replica, what, number)),
            }
        }
        let [(holder, seen)] = &mut holders[..] else { panic!("{} have opened it", holders.len()) };
        depth += 1;
        assert_eq!(*seen, depth, "what the ones before it left, and one more");
        for (replica, what, pid) in refused {
            assert_eq!((what.as_str(), pid), ("locked", u64::from(holder.child.id())));
            assert!(replica.end().success());
        }
        let error = on_a_clock(&path).map(drop).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Locked { pid } if *pid == Some(holder.child.id())),
            "{error}"
        );
        if is_killed {
            holder.child.kill().unwrap();
        }
        let (holder, _) = holders.pop().unwrap();
        assert_eq!(holder.end().success(), !is_killed);
    }
    let larder = on_a_clock(&path).unwrap();
    assert_eq!(stats(&larder.session("ana").unwrap()).ready, 3);
    verified(&larder);
}

const THREADS: usize = 100;
const EACH: usize = 5;

fn payload(number: usize) -> Vec<u8> {
    let mut payload = vec![b'x'; 1_024];
    payload[..8].copy_from_slice(&(number as u64).to_le_bytes());
    payload
}

/// Enqueues what is this producer's.
fn produce(session: &Session, producer: usize) {
    for number in producer * EACH..(producer + 1) * EACH {
        put(session, payload(number)).unwrap();
    }
}

/// Takes and acknowledges until so many are gone; gives those that were taken here.
fn consume(session: &Session, left: &AtomicUsize) -> Vec<usize> {
    let mut taken = Vec::new();
    while left.load(Ordering::SeqCst) > 0 {
        let Some(message) = act(session, |queue, txn| queue.dequeue(txn)).unwrap() else {
            std::thread::yield_now();
            continue;
        };
        let number = u64::from_le_bytes(*message.payload().first_chunk().unwrap()) as usize;
        assert!(message.payload()[..] == payload(number)[..] && message.attempts == 1);
        act(session, |queue, txn| queue.ack(txn, message.token())).unwrap();
        left.fetch_sub(1, Ordering::SeqCst);
        taken.push(number);
    }
    taken
}

/// S4-§9. What is measured is right first: 100 producers, then 100 consumers, then 50 of each at once, with
/// messages of 1 KiB, in every durability; each message is delivered once, and nothing is left. Syncs are
/// counted in place of time: none where nobody asks for one, one for a whole window, and none too many where
/// everybody waits for his. How many a second, and p50 and p99, are measured by
/// `cargo bench -p larder-benches --bench targets -- queue`, and beside SQLite, with 64 threads, by
/// `benches/compare`.
#[test]
fn s4_par_9_a_hundred_producers_and_consumers_in_every_durability() {
    let window = Durability::Window { milliseconds: 10 };
    for durability in [Durability::Synced, window, Durability::Lazy] {
        let clock = Arc::new(ManualClock::at(SECOND));
        let disk = FaultyDisk::default();
        let options = || still().clock(clock.clone()).log_segment_bytes(16 << 20);
        let larder = disk.open(options(), true).unwrap();
        create(&larder.session("ana").unwrap(), &QueueSettings::new());
        let session = larder.session("ana").unwrap().durability(durability);
        // Ingest.
        let (syncs, commits) = (disk.syncs(), larder.info().unwrap().last_commit.sequence);
        std::thread::scope(|scope| {
            for producer in 0..THREADS {
                let session = &session;
                scope.spawn(move || produce(session, producer));
            }
        });
        let synced = disk.syncs() - syncs;
        let commits = larder.info().unwrap().last_commit.sequence - commits;
        assert_eq!(commits, (THREADS * EACH) as u64, "each is a commit of its own");
        let survivors = |disk: &FaultyDisk| {
            let crashed = FaultyDisk::holding(disk.durable(), Plan::default()).open(options(), true).unwrap();
            stats(&crashed.session("ana").unwrap()).ready
        };
        match durability {
            Durability::Synced => {
                assert!((1..=commits).contains(&synced), "{synced} syncs for {commits} commits");
                assert_eq!(survivors(&disk), commits, "none that was acknowledged is lost");
            }
            Durability::Window { .. } => {
                assert_eq!((synced, survivors(&disk)), (0, 0), "the window is open");
                assert!(!larder.upkeep(clock.now() + 9_999).unwrap().flushed);
                assert!(larder.upkeep(clock.now() + 10_000).unwrap().flushed);
                let synced = disk.syncs() - syncs;
                assert!((1..=2).contains(&synced), "{synced} syncs for all that came in one window");
                assert_eq!(survivors(&disk), commits);
            }
            _ => {
                assert_eq!((synced, survivors(&disk)), (0, 0), "nobody asked for one");
                larder.flush().unwrap();
                assert_eq!(survivors(&disk), commits);
            }
        }
        // Drain, and then both at once.
        for (producers, consumers) in [(0, THREADS), (THREADS / 2, THREADS / 2)] {
            let expected = if producers == 0 { THREADS * EACH } else { producers * EACH };
            let left = AtomicUsize::new(expected);
            let mut delivered: Vec<usize> = std::thread::scope(|scope| {
                let (session, left) = (&session, &left);
                for producer in 0..producers {
                    scope.spawn(move || produce(session, producer));
                }
                let threads: Vec<_> =
                    (0..consumers).map(|_| scope.spawn(|| consume(session, left))).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            delivered.sort_unstable();
            assert!(delivered.iter().copied().eq(0..expected), "{durability:?}: each once");
        }
        let now = stats(&session);
        let all = (THREADS * EACH + THREADS / 2 * EACH) as u64;
        assert_eq!((now.enqueued, now.dequeued, now.acked), (all, all, all));
        assert_eq!((now.ready, now.in_flight, now.dead, now.bytes), (0, 0, 0, 0));
        verified(&larder);
    }
}

/// S4-QW2. A store in memory is one for tests because it does the same: random programs over everything that
/// changes a store, queue and cache among it, have the same outcomes and the same state, byte by byte, in
/// memory and on a file.
#[test]
fn s4_qw2_a_store_in_memory_does_what_one_on_a_file_does() {
    for seed in 100..106 {
        let folder = tempfile::tempdir().unwrap();
        let run = |is_file: bool| {
            let clock = Arc::new(ManualClock::at(SECOND));
            let options = still().clock(clock.clone()).ids(Arc::new(CountingIds::from(1)));
            let larder = if is_file {
                options.open(folder.path().join("w.larder")).unwrap()
            } else {
                options.open_in_memory().unwrap()
            };
            let mut workload = Workload::new(seed);
            let steps: Vec<_> = (0..120)
                .map(|_| (workload.step(&larder, &clock).unwrap(), larder.info().unwrap().state))
                .collect();
            verified(&larder);
            steps
        };
        let (memory, file) = (run(false), run(true));
        assert!(memory == file, "seed {seed}");
        assert!(memory.windows(2).filter(|pair| pair[0].1 != pair[1].1).count() > 20, "it did something");
    }
}

/// S4-QW5. Whoever drops an outcome without a look is warned by the compiler. Each expectation below is one:
/// where a type is no longer `#[must_use]` the file does not compile.
#[test]
fn s4_qw5_the_compiler_warns_of_every_outcome_that_is_dropped() {
    let larder = still().open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let settings = QueueSettings::new();
    create(&ana, &settings);
    ana.try_write(|txn| -> Result<(), QueueError> {
        #[expect(unused_must_use, reason = "Enqueued")]
        q().enqueue(txn, "x")?;
        #[expect(unused_must_use, reason = "a message that is not enqueued")]
        Message::new("y");
        let taken = q().dequeue(txn)?.unwrap();
        #[expect(unused_must_use, reason = "Requeued")]
        q().nack(txn, taken.token(), &Nack::new())?;
        #[expect(unused_must_use, reason = "a way to give back that nothing is given back in")]
        Nack::new();
        #[expect(unused_must_use, reason = "settings that no queue has")]
        settings.clone().attempts_max(1);
        Ok(())
    })
    .unwrap();
    ana.write(|txn| {
        #[expect(unused_must_use, reason = "Outcome")]
        txn.apply(Edit::put("k", "x"))?;
        #[expect(unused_must_use, reason = "an edit that is not applied")]
        Edit::put("k", "y");
        #[expect(unused_must_use, reason = "Defined")]
        txn.define_collection("rows", &CollectionDefinition::new())?;
        #[expect(unused_must_use, reason = "Inserted")]
        txn.collection("rows")?.insert(1, RowDraft::default())?;
        #[expect(unused_must_use, reason = "Decision")]
        Decisions::at("decisions")?.decide(txn, 1, "left", None)?;
        #[expect(unused_must_use, reason = "Begun")]
        Outbox::at("work")?.begin(txn, "job")?;
        #[expect(unused_must_use, reason = "Failed")]
        Outbox::at("work")?.fail(txn, "job", 0, "broken")?;
        #[expect(unused_must_use, reason = "Rate")]
        RateLimit::new("limits", 1, seconds(1))?.take(txn, "a")?;
        Ok(())
    })
    .unwrap();
    #[expect(unused_must_use, reason = "Lookup")]
    ana.get_loadable("k").unwrap();
    #[expect(unused_must_use, reason = "CommitOutcome")]
    ana.outcome_of("never").unwrap();
    #[expect(unused_must_use, reason = "CommitTicket")]
    ana.submit(|txn| txn.put("k", "z")).unwrap();
    #[expect(unused_must_use, reason = "a claim that is not asked for")]
    ana.claim("k");
    let claim = ana.claim("k").for_at_most(seconds(9)).unwrap();
    #[expect(unused_must_use, reason = "Fenceable")]
    claim.put("z").unwrap();
    ana.write(|txn| {
        #[expect(unused_must_use, reason = "CancelOutcome")]
        txn.cancel("k")?;
        Ok(())
    })
    .unwrap();
    // Those that did something did it all the same.
    assert_eq!(ana.get("k").unwrap().bytes().unwrap(), "z");
    assert_eq!((stats(&ana).enqueued, stats(&ana).nacked), (1, 1));
    verified(&larder);
}
