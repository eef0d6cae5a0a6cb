//! The work: each scenario gives a table, a line for each figure and a column for each peer.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::peers::{Filter, Kind, Mode, Peer, Row, all as all_peers};
use crate::{queues, tasks};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How much is done.
pub struct Scale {
    pub rounds: usize,
    /// How long each peer writes in each round.
    pub slice: Duration,
    /// How many records are read, filtered and imported.
    records: u64,
    /// How many single reads a round has.
    reads: u64,
    /// How many batches of tasks a round has.
    pub batches: usize,
}

impl Scale {
    /// For a look.
    pub const QUICK: Self =
        Self { rounds: 3, slice: Duration::from_millis(700), records: 20_000, reads: 20_000, batches: 3 };
    /// For the record.
    pub const FULL: Self =
        Self { rounds: 6, slice: Duration::from_secs(10), records: 1_000_000, reads: 200_000, batches: 10 };
}

/// A figure of every peer.
pub struct Line {
    /// What was measured.
    pub what: String,
    /// In which unit.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Name of the peer, and the figure.
    pub figures: Vec<(&'static str, f64)>,
}

/// A piece of work.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What is done, in a sentence.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Path, &Scale) -> Fallible<Vec<Line>>,
}

/// All of it, in the order of the report.
pub fn all() -> Vec<Scenario> {
    let scenario = |name, about, run| Scenario { name, about, run };
    vec![
        scenario(
            "durable put",
            "256 B of metadata and 1 KiB of payload, on disk when the call returns, one thread. The yardstick \
             overwrites a block of 4 KiB that was written before, and syncs it.",
            |folder, scale| puts(folder, scale, 1),
        ),
        scenario("durable put, 64 threads", "The same, from 64 threads at once.", |folder, scale| {
            puts(folder, scale, 64)
        }),
        scenario("put without a sync", "The same row, one thread, on disk sometime.", unsynced),
        scenario(
            "payload",
            "Incompressible payloads: one durable put each, and reading them whole, warm.",
            payloads,
        ),
        scenario(
            "records",
            "Records in 1 000 directories: imported unsorted, larder with its bulk load, the others in transactions of \
             10 000, all on disk at the end; opened again; fetched at random; filtered by an attribute, which larder does \
             with two threads and the others, but SQLite, by decoding JSON; listed.",
            records,
        ),
        scenario(
            "queue",
            "Messages of 1 KiB, everything on disk when the call returns: put in, taken out and acknowledged (two commits), and \
             both by half of the threads each. larder's threads share a combiner. SQLite has one table with partial indexes, and one connection under a mutex.",
            queues::queues,
        ),
        scenario(
            "tasks",
            "Tasks that wait for each other, each operation one transaction, on disk when the call returns, one \
             thread. SQLite has a table of tasks and one of links with the indexes that this needs, prepared \
             statements and a recursive query for what fails; larder also keeps what is not asked for here: \
             retries, an outbox, what is due, counts.",
            tasks::tasks,
        ),
    ]
}

fn row(number: u64, length: usize) -> Row {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut state = mixed | 1;
    let payload = (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    Row { key: format!("assets{:03}/{mixed:016x}.bin", number % 1_000), n: number, payload }
}

/// Opens every peer that has this mode, each in a folder of its own.
fn open_all(folder: &Path, mode: Mode) -> Fallible<Vec<(Kind, Box<dyn Peer>)>> {
    let mut open = Vec::new();
    for kind in all_peers() {
        if let Some(peer) = open_one(folder, &kind, mode)? {
            open.push((kind, peer));
        }
    }
    Ok(open)
}

fn open_one(folder: &Path, kind: &Kind, mode: Mode) -> Fallible<Option<Box<dyn Peer>>> {
    let folder = folder.join(kind.name.replace(' ', "-"));
    fs::create_dir_all(&folder)?;
    (kind.open)(&folder, mode)
}

fn expect(holds: bool, name: &str, what: &str) -> Fallible<()> {
    if holds { Ok(()) } else { Err(format!("{name}: {what}").into()) }
}

pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted.get(((sorted.len().saturating_sub(1)) as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}

/// What the puts of one peer took, over all rounds.
#[derive(Default)]
struct Puts {
    rates: Vec<f64>,
    micros: Vec<f64>,
    /// Up to which number each thread has put.
    next: Vec<u64>,
}

/// Lets threads put for a while.
fn hammer(
    puts: &mut Puts,
    threads: usize,
    slice: Duration,
    put: impl Fn(u64) -> Fallible<()> + Sync,
) -> Fallible<()> {
    puts.next.resize(threads, 0);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let outcome: Fallible<Vec<(Vec<f64>, u64)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = puts
            .next
            .iter()
            .enumerate()
            .map(|(thread, next)| {
                let (put, stop, mut number) = (&put, &stop, *next);
                scope.spawn(move || -> Fallible<(Vec<f64>, u64)> {
                    let mut micros = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        put(number * threads as u64 + thread as u64)?;
                        micros.push(began.elapsed().as_secs_f64() * 1e6);
                        number += 1;
                    }
                    Ok((micros, number))
                })
            })
            .collect();
        // The length of a round: the threads work meanwhile.
        std::thread::sleep(slice);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a panic".into()))).collect()
    });
    let elapsed = began.elapsed().as_secs_f64();
    let mut count = 0;
    for (next, (micros, number)) in puts.next.iter_mut().zip(outcome?) {
        *next = number;
        count += micros.len();
        puts.micros.extend(micros);
    }
    puts.rates.push(count as f64 / elapsed);
    Ok(())
}

/// Compares a store with what was put: every hundredth row, and the last of every thread.
fn check(name: &str, peer: &dyn Peer, puts: &Puts, length: usize) -> Fallible<()> {
    let threads = puts.next.len() as u64;
    for (thread, next) in puts.next.iter().enumerate() {
        for number in (0..*next).step_by(100).chain(next.checked_sub(1)) {
            let row = row(number * threads + thread as u64, length);
            expect(
                peer.payload(&row.key)?.is_some_and(|found| found == row.payload),
                name,
                "another payload",
            )?;
            expect(peer.number(&row.key)? == Some(row.n), name, "other metadata")?;
        }
    }
    Ok(())
}

fn line(what: impl Into<String>, unit: &'static str, more_is_better: bool) -> Line {
    Line { what: what.into(), unit, more_is_better, figures: Vec::new() }
}

fn puts(folder: &Path, scale: &Scale, threads: usize) -> Fallible<Vec<Line>> {
    const LENGTH: usize = 1_024;
    let peers = open_all(folder, Mode::Durable)?;
    let mut all: Vec<Puts> = peers.iter().map(|_| Puts::default()).collect();
    let mut yardstick = Puts::default();
    fs::write(folder.join("block"), [0; 4_096])?;
    let block = OpenOptions::new().write(true).open(folder.join("block"))?;
    block.sync_all()?;
    for _ in 0..scale.rounds {
        for ((_, peer), puts) in peers.iter().zip(&mut all) {
            hammer(puts, threads, scale.slice, |number| peer.put(&row(number, LENGTH)).map(drop))?;
        }
        if threads == 1 {
            hammer(&mut yardstick, 1, scale.slice / 5, |number| {
                use std::io::{Seek, SeekFrom, Write};
                let mut file = &block;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&[number as u8; 4_096])?;
                Ok(file.sync_data()?)
            })?;
        }
    }
    let mut lines = vec![
        line("puts a second", "1/s", true),
        line("p50", "us", false),
        line("p99", "us", false),
        line("p99.9", "us", false),
        line("longest", "ms", false),
    ];
    let mut note = |name: &'static str, puts: &mut Puts| {
        puts.micros.sort_by(f64::total_cmp);
        let figures = [
            median(&mut puts.rates),
            percentile(&puts.micros, 0.5),
            percentile(&puts.micros, 0.99),
            percentile(&puts.micros, 0.999),
            percentile(&puts.micros, 1.0) / 1e3,
        ];
        for (line, figure) in lines.iter_mut().zip(figures) {
            line.figures.push((name, figure));
        }
    };
    for ((kind, peer), mut puts) in peers.into_iter().zip(all) {
        check(kind.name, peer.as_ref(), &puts, LENGTH)?;
        drop(peer);
        if let Some(again) = open_one(folder, &kind, Mode::Durable)? {
            check(kind.name, again.as_ref(), &puts, LENGTH)?;
        }
        note(kind.name, &mut puts);
    }
    if threads == 1 {
        note("write + fdatasync", &mut yardstick);
    }
    Ok(lines)
}

fn unsynced(folder: &Path, scale: &Scale) -> Fallible<Vec<Line>> {
    const LENGTH: usize = 1_024;
    let peers = open_all(folder, Mode::Unsynced)?;
    let mut all: Vec<Puts> = peers.iter().map(|_| Puts::default()).collect();
    for _ in 0..scale.rounds {
        for ((_, peer), puts) in peers.iter().zip(&mut all) {
            hammer(puts, 1, scale.slice / 2, |number| peer.put(&row(number, LENGTH)).map(drop))?;
        }
    }
    let mut lines =
        vec![line("puts a second", "1/s", true), line("p50", "us", false), line("p99", "us", false)];
    for ((kind, peer), mut puts) in peers.into_iter().zip(all) {
        check(kind.name, peer.as_ref(), &puts, LENGTH)?;
        puts.micros.sort_by(f64::total_cmp);
        let figures =
            [median(&mut puts.rates), percentile(&puts.micros, 0.5), percentile(&puts.micros, 0.99)];
        for (line, figure) in lines.iter_mut().zip(figures) {
            line.figures.push((kind.name, figure));
        }
    }
    Ok(lines)
}

fn payloads(folder: &Path, scale: &Scale) -> Fallible<Vec<Line>> {
    let mut lines = Vec::new();
    for (length, name) in [(16 << 10, "16 KiB"), (256 << 10, "256 KiB"), (16 << 20, "16 MiB")] {
        let folder = folder.join(name.replace(' ', ""));
        let peers = open_all(&folder, Mode::Durable)?;
        let next = AtomicU64::new(0);
        let mut writes: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
        let mut reads: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
        let count = ((48 << 20) / length).clamp(3, 200);
        for _ in 0..scale.rounds {
            let rows: Vec<Row> =
                (0..count).map(|_| row(next.fetch_add(1, Ordering::Relaxed), length)).collect();
            let megabytes = (count * length) as f64 / 1e6;
            for ((_, peer), writes) in peers.iter().zip(&mut writes) {
                let began = Instant::now();
                rows.iter().try_for_each(|row| peer.put(row).map(drop))?;
                writes.push(megabytes / began.elapsed().as_secs_f64());
            }
            for (((kind, peer), reads), _) in peers.iter().zip(&mut reads).zip(0..) {
                for row in &rows {
                    let found = peer.payload(&row.key)?;
                    expect(found.is_some_and(|found| found == row.payload), kind.name, "another payload")?;
                }
                let began = Instant::now();
                for row in &rows {
                    black_box(peer.payload(&row.key)?);
                }
                reads.push(megabytes / began.elapsed().as_secs_f64());
            }
        }
        let (mut write, mut read) =
            (line(format!("{name} written"), "MB/s", true), line(format!("{name} read"), "MB/s", true));
        for (((kind, _), mut writes), mut reads) in peers.iter().zip(writes).zip(reads) {
            write.figures.push((kind.name, median(&mut writes)));
            read.figures.push((kind.name, median(&mut reads)));
        }
        drop(peers);
        lines.extend([write, read]);
        fs::remove_dir_all(&folder)?;
    }
    Ok(lines)
}

fn records(folder: &Path, scale: &Scale) -> Fallible<Vec<Line>> {
    const LENGTH: usize = 16;
    let count = scale.records;
    let rows: Vec<Row> = (0..count).map(|number| row(number, LENGTH + (number % 100) as usize)).collect();
    let (mut imported, mut opened) = (line("imported", "1/s", true), line("opened again", "ms", false));
    let mut peers = Vec::new();
    for kind in all_peers() {
        let Some(peer) = open_one(folder, &kind, Mode::ToRead)? else { continue };
        let began = Instant::now();
        if peer.bulk(&rows)?.is_none() {
            continue;
        }
        imported.figures.push((kind.name, count as f64 / began.elapsed().as_secs_f64()));
        drop(peer);
        let began = Instant::now();
        let Some(peer) = open_one(folder, &kind, Mode::ToRead)? else { continue };
        expect(peer.number(&rows[0].key)? == Some(0), kind.name, "other metadata")?;
        opened.figures.push((kind.name, began.elapsed().as_secs_f64() * 1e3));
        for row in rows.iter().step_by(100) {
            expect(peer.number(&row.key)? == Some(row.n), kind.name, "other metadata")?;
            expect(peer.payload(&row.key)?.as_ref() == Some(&row.payload), kind.name, "another payload")?;
        }
        peers.push((kind, peer));
    }
    let reads: [(Line, u64); 3] = [
        (line("get, 1 000 hot", "ns", false), 1_000),
        (line("get, 100 000 hot", "ns", false), 100_000),
        (line("get, of all", "ns", false), count),
    ];
    let gets = |peer: &dyn Peer, hot: u64, reads: u64, mut random: u64| -> Fallible<f64> {
        let hot = hot.min(count);
        let mut step = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % hot) as usize
        };
        let began = Instant::now();
        for _ in 0..reads {
            black_box(peer.meta(&rows[step()].key)?);
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / reads as f64)
    };
    let mut lines = vec![imported, opened];
    for (at, (mut line, hot)) in reads.into_iter().enumerate() {
        let mut samples: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
        for round in 0..=scale.rounds {
            for ((_, peer), samples) in peers.iter().zip(&mut samples) {
                // The first round makes it warm, and does not count.
                let reads = if round == 0 { 2 * hot.min(count) } else { scale.reads };
                let sample = gets(peer.as_ref(), hot, reads, (7 + at * 100 + round) as u64)?;
                samples.extend((round > 0).then_some(sample));
            }
        }
        for ((kind, _), mut samples) in peers.iter().zip(samples) {
            line.figures.push((kind.name, median(&mut samples)));
        }
        lines.push(line);
    }
    let mut timed = |line: Line,
                     act: &dyn Fn(&dyn Peer) -> Fallible<Option<usize>>,
                     expected: u64,
                     part: f64| {
        let mut line = line;
        let mut samples: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..scale.rounds {
            for ((kind, peer), samples) in peers.iter().zip(&mut samples) {
                let began = Instant::now();
                expect(act(peer.as_ref())? == usize::try_from(expected).ok(), kind.name, "another count")?;
                samples.push(began.elapsed().as_secs_f64() * part);
            }
        }
        for ((kind, _), mut samples) in peers.iter().zip(samples) {
            line.figures.push((kind.name, median(&mut samples)));
        }
        lines.push(line);
        Fallible::Ok(())
    };
    for (name, filter) in
        [("filtered by an attribute", Filter::Number), ("filtered by length", Filter::Length(LENGTH))]
    {
        let filtered = line(name, "ns a record", false);
        timed(filtered, &|peer| peer.filter(filter), count.div_ceil(100), 1e9 / count as f64)?;
    }
    timed(line("directory listed", "us", false), &|peer| peer.list("assets007"), count / 1_000, 1e6)?;
    Ok(lines)
}
