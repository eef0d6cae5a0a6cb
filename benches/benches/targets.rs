//! The figures that larder promises, each against its yardstick in one interleaved run: medians and ratios.
//!
//! Times on a shared machine mean little by themselves; the ratios of one run do.

#![allow(
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "a measurement reads the machine's clock"
)]

use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_benches::{Run, median, percentile, run_wanted};
use larder_layers::queue::{Message, Queue, QueueError, QueueSettings, Queues};
use larder_layers::remember::{Cache, Parts, Remember, RememberError};

use larder::format::{seal_into, unseal};
use larder::{
    DocumentKind, Draft, Durability, Larder, Options, RestoreOptions, Session, SnapshotFile, SnapshotOptions,
    Status, restore, verify_file,
};

const PAYLOAD: usize = 1024;
const ROUNDS: usize = 5;
const TABLE: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("assets");

fn main() {
    if let Ok(path) = std::env::var(FILLED) {
        return fill(Path::new(&path));
    }
    let runs: &[Run] = &[
        ("durable", durable),
        ("overhead", overhead),
        ("stream", stream),
        ("listing", listing),
        ("reads", reads),
        ("killed", killed),
        ("life", life),
        ("snapshots", snapshots),
        ("queue", queue),
        ("remember", remember),
    ];
    run_wanted(runs).expect("a folder for temporary files");
}

/// 1 KiB that does not repeat itself.
fn payload(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..PAYLOAD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn draft(number: u64) -> Draft {
    Draft::from(payload(number)).attribute("note", "x".repeat(100)).attribute("count", number as i64)
}

/// Runs `put` on as many threads for a while; gives puts a second and the latencies in microseconds.
fn hammer(threads: u64, length: Duration, put: impl Fn(u64) + Sync) -> (f64, Vec<f64>) {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (put, stop) = (&put, &stop);
                scope.spawn(move || {
                    let mut times = Vec::new();
                    let mut number = thread << 32;
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        put(number);
                        times.push(began.elapsed().as_secs_f64() * 1e6);
                        number += 1;
                    }
                    times
                })
            })
            .collect();
        while began.elapsed() < length {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            latencies.extend(worker.join().expect("no worker panics"));
        }
    });
    (latencies.len() as f64 / began.elapsed().as_secs_f64(), latencies)
}

fn key(number: u64) -> String {
    format!("assets/{:03}/{:016x}.bin", number % 997, number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// 64 threads, every put on disk when it returns: 256 B of metadata and 1 KiB of payload.
fn durable(folder: &Path) {
    let larder = Larder::open(folder.join("durable.larder")).expect("a new store");
    let session = larder.session("bench").expect("a session");
    let database = redb::Database::create(folder.join("durable.redb")).expect("a new database");
    for threads in [1, 64] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS as u64 {
            let base = (round << 48) | (threads << 56);
            let length = Duration::from_millis(1_000);
            let (rate, times) = hammer(threads, length, |number| {
                session.put(key(base | number), draft(number)).expect("a put");
            });
            ours.push(rate);
            our_times.extend(times);
            let (rate, times) = hammer(threads, length, |number| {
                let mut value = vec![7; 256];
                value.extend_from_slice(&payload(number));
                let transaction = database.begin_write().expect("a transaction");
                {
                    let mut table = transaction.open_table(TABLE).expect("a table");
                    table.insert(key(base | number).as_bytes(), value.as_slice()).expect("an insert");
                }
                transaction.commit().expect("a commit");
            });
            theirs.push(rate);
            their_times.extend(times);
        }
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        println!(
            "  {threads:>2} threads  larder {ours:>7.0} puts/s  redb {theirs:>7.0} puts/s  ratio {:.2}x",
            ours / theirs
        );
        for part in [0.5, 0.99] {
            let (ours, theirs) = (percentile(&mut our_times, part), percentile(&mut their_times, part));
            println!(
                "              p{:<2} larder {ours:>8.0} us      redb {theirs:>8.0} us       ratio {:.3}",
                part * 100.0,
                ours / theirs
            );
        }
    }
}

/// One put with rules, registry, hash, feed and statistics against a bare redb put of the same bytes, unsynced.
fn overhead(folder: &Path) {
    // As much memory for pages as redb takes by default: neither writes any out while this runs.
    let options = Options::new().durability(Durability::Lazy).cache_bytes(1 << 30);
    let larder = options.open(folder.join("overhead.larder")).expect("a new store");
    let root = larder.root().expect("a session");
    let mut rules = String::from("default = \"allow\"\n");
    for number in 0..1_000 {
        rules.push_str(&format!(
            "[[rule]]\nname = \"r{number}\"\ndeny = [\"write\"]\nwho = [\"w{number}\"]\non = \"closed/{number}/**\"\n"
        ));
    }
    root.set_document(DocumentKind::Rules, &rules).expect("rules");
    let session = larder.session("bench").expect("a session");
    let database = redb::Database::create(folder.join("overhead.redb")).expect("a new database");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..number_from("PUTS", 20_000) {
        let (key, value) = (key(number), payload(number));
        let prepared = draft(number);
        let began = Instant::now();
        session.put(key.as_str(), prepared).expect("a put");
        ours.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        let mut bytes = vec![7; 256];
        bytes.extend_from_slice(&value);
        let mut transaction = database.begin_write().expect("a transaction");
        transaction.set_durability(redb::Durability::None).expect("a durability");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            table.insert(key.as_bytes(), bytes.as_slice()).expect("an insert");
        }
        transaction.commit().expect("a commit");
        theirs.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "  one put, unsynced, 1 000 rules: larder {ours:.1} us  redb {theirs:.1} us  ratio {:.2}x",
        ours / theirs
    );
}

/// Bytes that do not compress, without end.
struct Noise(u64);

impl Read for Noise {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        for chunk in out.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
        Ok(out.len())
    }
}

fn memory_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// A stream of 1 GiB that does not compress, with and without another writer.
fn stream(folder: &Path) {
    const LENGTH: u64 = 1 << 30;
    let before = memory_peak_kib();
    let larder =
        Options::new().cache_bytes(32 << 20).open(folder.join("stream.larder")).expect("a new store");
    let session = larder.session("bench").expect("a session");
    let mut rates = (Vec::new(), Vec::new());
    for round in 0..3u64 {
        let began = Instant::now();
        session.put_reader("big.bin", &mut Noise(round + 1).take(LENGTH), "").expect("a stream");
        rates.0.push(LENGTH as f64 / 1e6 / began.elapsed().as_secs_f64());
        let began = Instant::now();
        let path = folder.join("plain.bin");
        let mut file = std::fs::File::create(&path).expect("a file");
        let mut noise = Noise(round + 77).take(LENGTH);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = noise.read(&mut buffer).expect("noise");
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).expect("a write");
        }
        file.sync_data().expect("a sync");
        rates.1.push(LENGTH as f64 / 1e6 / began.elapsed().as_secs_f64());
        std::fs::remove_file(path).expect("a removal");
    }
    let (ours, theirs) = (median(&mut rates.0), median(&mut rates.1));
    println!(
        "  1 GiB stream: larder {ours:.0} MB/s  plain file {theirs:.0} MB/s  ratio {:.2}",
        ours / theirs
    );
    println!("  memory: {} MiB more at the peak", (memory_peak_kib() - before) / 1024);

    let (mut waits, rate) = std::thread::scope(|scope| {
        let streaming = scope.spawn(|| {
            let began = Instant::now();
            session.put_reader("other.bin", &mut Noise(4_711).take(LENGTH), "").expect("a stream");
            LENGTH as f64 / 1e6 / began.elapsed().as_secs_f64()
        });
        let mut waits = Vec::new();
        let mut number = 0;
        while !streaming.is_finished() {
            let began = Instant::now();
            session.put(key(number), draft(number)).expect("a put");
            waits.push(began.elapsed().as_secs_f64() * 1e3);
            number += 1;
        }
        (waits, streaming.join().expect("the stream does not panic"))
    });
    println!(
        "  beside another writer: {rate:.0} MB/s, ratio {:.2}; its puts waited p50 {:.1} ms, at most {:.0} ms",
        rate / theirs,
        percentile(&mut waits, 0.5),
        percentile(&mut waits, 1.0)
    );
    larder.close().expect("a close");
    let fresh = Larder::open(folder.join("fresh.larder")).expect("a new store");
    let session = fresh.session("bench").expect("a session");
    session.put_reader("big.bin", &mut Noise(5).take(LENGTH), "").expect("a stream");
    fresh.close().expect("a close");
    let file = std::fs::metadata(folder.join("fresh.larder")).expect("metadata");
    let on_disk = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    println!(
        "  space: {:.4}x of the payload on disk; the file is {:.2}x as long, what is more being a hole",
        on_disk as f64 / LENGTH as f64,
        file.len() as f64 / LENGTH as f64
    );
}

/// A directory of 1 000 entries above 200 000 descendants, and the removal of all of it.
fn listing(folder: &Path) {
    let larder =
        Options::new().durability(Durability::Lazy).open(folder.join("listing.larder")).expect("a new store");
    let session = larder.session("bench").expect("a session");
    let leaves = number_from("LEAVES", 200);
    for directory in 0..1_000 {
        session
            .write(|txn| {
                for leaf in 0..leaves {
                    txn.put(format!("top/{directory:04}/{leaf:05}.txt"), "x")?;
                }
                Ok(())
            })
            .expect("a batch");
    }
    let mut times: Vec<f64> = (0..21)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(session.list("top").expect("a listing").len(), 1_000);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    larder.flush().expect("a flush");
    println!("  1 000 entries above {} assets: {:.2} ms", leaves * 1_000, median(&mut times));
    let began = Instant::now();
    let gone = session.delete_tree("top").expect("a removal").value;
    println!("  {gone} assets removed in one commit: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
}

/// Where the process that is killed writes to.
const FILLED: &str = "LARDER_BENCH_FILLED";

/// Fills a store with 2 GiB that are in the file itself, and then as much as asked with what lies in the log alone.
fn fill(path: &Path) {
    let larder = Larder::open(path).expect("a new store");
    let mut bulk = larder.session("bench").expect("a session").bulk();
    for number in 0..2_048 {
        bulk.put(format!("large/{number:05}.bin"), payload(number).repeat(1_024)).expect("a put");
        bulk.put(format!("small/{number:05}.bin"), draft(number)).expect("a put");
    }
    let _ = bulk.finish().expect("a load");
    larder.close().expect("a close");
    // Segments so long that nothing is drained before it is killed.
    let options = Options::new().inline().log_segment_bytes(256 << 20).durability(Durability::Lazy);
    let larder = options.open(path).expect("the store");
    let session = larder.session("bench").expect("a session");
    let log_bytes = number_from("LOG_BYTES", 64 << 20);
    let mut number = 1 << 32;
    while larder.info().expect("what it is").input_output.log_bytes < log_bytes {
        for _ in 0..64 {
            session.put(key(number), draft(number)).expect("a put");
            number += 1;
        }
    }
    larder.flush().expect("a flush");
    println!("filled");
    loop {
        std::thread::park();
    }
}

/// Opening a store of 2 GiB that was killed, with and without 64 MiB of log.
fn killed(folder: &Path) {
    use std::io::BufRead;
    for log_bytes in [0, 64 << 20] {
        let path = folder.join(format!("killed-{log_bytes}.larder"));
        let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
            .env(FILLED, &path)
            .env("LOG_BYTES", log_bytes.to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a child");
        let stdout = std::io::BufReader::new(child.stdout.take().expect("its output"));
        assert!(
            stdout.lines().map_while(Result::ok).any(|line| line == "filled"),
            "the child fills the store"
        );
        child.kill().expect("a kill");
        child.wait().expect("its end");
        let began = Instant::now();
        let larder = Larder::open(&path).expect("the store");
        let opened = began.elapsed().as_secs_f64() * 1e3;
        let replayed = larder.recovery().map_or(0, |report| report.replayed);
        println!(
            "  opened after a kill with {} MiB of log: {opened:.0} ms, {replayed} commits replayed",
            log_bytes >> 20
        );
        larder.close().expect("a close");
        let began = Instant::now();
        let larder = Larder::open(&path).expect("the store");
        println!("  opened after a close: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
        drop(larder);
    }
}

/// Claims, what may be served, deadlines and cascades.
fn life(folder: &Path) {
    let larder = Larder::open(folder.join("life.larder")).expect("a new store");
    let session = larder.session("bench").expect("a session");
    claims(&session);
    served(&session);
    deadlines(&larder, &session);
    cascades(&larder, &session);
}

/// A claim and what is stored in its name, against a plain durable put.
fn claims(session: &Session) {
    let lazily = session.clone().durability(Durability::Lazy);
    let (mut plain, mut claimed) = (Vec::new(), Vec::new());
    for number in 0..2_000 {
        let began = Instant::now();
        session.put(format!("plain/{number}"), draft(number)).expect("a put");
        plain.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        let key = format!("claimed/{number}");
        // The claim needs no sync of its own: the put that it is for brings it along.
        let fence =
            lazily.claim(key.as_str()).for_at_most(Duration::from_secs(60)).expect("a claim").detach();
        let claim = session.resume_claim(key.as_str(), fence).expect("a key");
        assert!(!claim.put(draft(number)).expect("a put").is_fenced());
        claimed.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let (plain, claimed) = (median(&mut plain), median(&mut claimed));
    println!("  claim and fenced put: {claimed:.0} us, a plain put {plain:.0} us: {:.2}x", claimed / plain);
}

/// What may be served, against a hot get.
fn served(session: &Session) {
    let keys: Vec<String> = (0..1_000).map(|number| format!("plain/{number}")).collect();
    let (mut got, mut served) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let began = Instant::now();
        keys.iter().for_each(|key| drop(session.get(key.as_str()).expect("an asset")));
        got.push(began.elapsed().as_secs_f64() * 1e9 / keys.len() as f64);
        let began = Instant::now();
        keys.iter()
            .for_each(|key| assert!(session.get_loadable(key.as_str()).expect("an asset").hit().is_some()));
        served.push(began.elapsed().as_secs_f64() * 1e9 / keys.len() as f64);
    }
    let (got, served) = (median(&mut got), median(&mut served));
    println!("  get_loadable: {served:.0} ns, a hot get {got:.0} ns: {:.2}x", served / got);
}

/// 100 000 deadlines fire, in batches of 1 000, while somebody reads.
fn deadlines(larder: &Larder, session: &Session) {
    let mut bulk = session.bulk();
    for number in 0..100_000 {
        let timed = Draft::from("x").status(Status::Ready).with(|about| about.expires(number + 1));
        bulk.put(format!("timed/{number:06}"), timed).expect("a put");
    }
    let _ = bulk.finish().expect("a load");
    let read_for = |stop: &AtomicBool| {
        let (mut times, mut number) = (Vec::new(), 1u64);
        while !stop.load(Ordering::Relaxed) {
            number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17) | 1;
            let began = Instant::now();
            session.get(format!("timed/{:06}", number % 100_000)).expect("an asset");
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        times
    };
    let while_doing = |act: &(dyn Fn() + Sync)| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_for(&stop));
            act();
            stop.store(true, Ordering::Relaxed);
            reader.join().expect("no reader panics")
        })
    };
    let mut idle = while_doing(&|| std::thread::park_timeout(Duration::from_secs(2)));
    let began = Instant::now();
    let mut busy = while_doing(&|| while larder.sweep(1_000).expect("a sweep").total() > 0 {});
    println!(
        "  100 000 deadlines fired in {:.2} s; a reader's p99 {:.1} us meanwhile, {:.1} us idle: {:.2}x",
        began.elapsed().as_secs_f64(),
        percentile(&mut busy, 0.99),
        percentile(&mut idle, 0.99),
        percentile(&mut busy, 0.99) / percentile(&mut idle, 0.99),
    );
}

/// What was made from something expires with it, in its commit.
fn cascades(larder: &Larder, session: &Session) {
    let made = |from: &str| Draft::from("x").status(Status::Ready).with(|about| about.depends_on(from));
    let expired = || larder.statistics().expect("statistics").by_status["expired"].assets;
    session.put("origin", "1").expect("a put");
    for part in 0..10 {
        let put = |number: u64| (format!("wide/{part}/{number}"), made("origin"));
        session
            .write(|txn| (0..1_000).map(put).try_for_each(|(key, draft)| txn.put(key, draft).map(drop)))
            .expect("a batch");
    }
    let before = expired();
    let began = Instant::now();
    session.put("origin", "2").expect("a put");
    let took = began.elapsed().as_secs_f64();
    println!("  {} dependents expired in one commit in {took:.2} s", expired() - before);

    let length = number_from("CHAIN", 100_000);
    session.put("chain/000000", "1").expect("a put");
    for part in 0..length / 1_000 {
        session
            .write(|txn| {
                (part * 1_000..(part + 1) * 1_000).try_for_each(|number| {
                    let draft = made(&format!("chain/{number:06}"));
                    txn.put(format!("chain/{:06}", number + 1), draft).map(drop)
                })
            })
            .expect("a batch");
    }
    let before = expired();
    let began = Instant::now();
    match session.put("chain/000000", "2") {
        Ok(_) => {
            let took = began.elapsed().as_secs_f64();
            println!("  a chain of {} expired in one commit in {took:.2} s", expired() - before);
        }
        Err(error) => println!("  a chain of {length}: {error}"),
    }
}

/// A number from the environment, for those who profile or have time.
/// Snapshots beside `zstd -1 -T2` on a file of the same bytes, checking, restoring, compacting: MB of rows a second.
fn snapshots(folder: &Path) {
    const MEGABYTES: usize = 768;
    let words = b"the leek, the soup, the pie and the apple; 12 of them, or 31, with salt \n";
    for (name, is_text) in [("text", true), ("noise", false)] {
        let path = folder.join(format!("{name}.larder"));
        let larder = Larder::open(&path).expect("a store");
        let session = larder.session("ana").expect("a session").durability(Durability::Lazy);
        let plain = folder.join("plain");
        let mut beside = std::fs::File::create(&plain).expect("a file");
        for number in 0..MEGABYTES as u64 {
            // Text that is new every few words, or nothing that repeats itself.
            let payload: Vec<u8> = (0..1_024u64)
                .flat_map(|part| {
                    let noise = self::payload(number << 10 | part);
                    if is_text {
                        let at = usize::from(noise[0]) % 40;
                        noise
                            .iter()
                            .zip(words.iter().cycle().skip(at))
                            .map(|(n, w)| if n % 16 == 0 { *n } else { *w })
                            .collect()
                    } else {
                        noise
                    }
                })
                .collect();
            beside.write_all(&payload).expect("room");
            // As it is: what is compressed in the store already is no yardstick.
            let draft =
                Draft::from(payload).data_format("png").media_type("image/png").type_identifier("image");
            session.put(format!("n/{number}.png"), draft).expect("room");
        }
        larder.flush().expect("room");
        drop(beside);
        let rate = |seconds: f64| MEGABYTES as f64 * 1.048_576 / seconds;
        let mut samples: [Vec<f64>; 4] = Default::default();
        let mut sizes = (0, 0);
        for round in 0..3 {
            let snapshot = folder.join(format!("{round}.snapshot"));
            let began = Instant::now();
            let report = larder.snapshot(&snapshot, &SnapshotOptions::new().threads(2)).expect("a snapshot");
            samples[0].push(rate(began.elapsed().as_secs_f64()));
            sizes = (report.bytes, report.content_bytes);
            let began = Instant::now();
            let mut zstd = std::process::Command::new("zstd");
            zstd.args(["-1", "-T2", "-q", "-f", "-o"]).arg(folder.join("plain.zst")).arg(&plain);
            assert!(zstd.status().expect("zstd").success());
            // The snapshot is on disk when it is there.
            std::fs::File::open(folder.join("plain.zst")).and_then(|file| file.sync_all()).expect("a disk");
            samples[1].push(rate(began.elapsed().as_secs_f64()));
            let began = Instant::now();
            SnapshotFile::open(&snapshot).and_then(|file| file.verify(2, None)).expect("a whole snapshot");
            samples[2].push(rate(began.elapsed().as_secs_f64()));
            let back = folder.join("back.larder");
            let began = Instant::now();
            restore(&[&snapshot], &back, &RestoreOptions::new().threads(2)).expect("a store");
            samples[3].push(rate(began.elapsed().as_secs_f64()));
            std::fs::remove_file(&back).expect("a file of ours");
            std::fs::remove_file(&snapshot).expect("a file of ours");
        }
        let [made, zstd, checked, restored] = samples.map(|mut samples| median(&mut samples));
        println!(
            "  {name}, {MEGABYTES} MiB: snapshot with 2 threads {made:.0} MB/s, zstd -1 -T2 {zstd:.0} MB/s, {:.2}x; {} of {} bytes",
            made / zstd,
            sizes.0,
            sizes.1
        );
        println!("  checked {checked:.0} MB/s, restored {restored:.0} MB/s");
        let began = Instant::now();
        let report = larder.compact(None).expect("room");
        println!(
            "  compacted {:.0} MB/s, {} to {} bytes",
            rate(began.elapsed().as_secs_f64()),
            report.before,
            report.after
        );
        larder.close().expect("a store that closes");
        let began = Instant::now();
        assert!(verify_file(&path, &mut |_| {}).expect("a store").is_clean());
        println!("  verified {:.0} MB/s", rate(began.elapsed().as_secs_f64()));
        std::fs::remove_file(&path).expect("a file of ours");
    }
}

fn number_from(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// Reads of records: a hot set through a session, and redb's own get of the same rows; all of many, at random.
fn reads(folder: &Path) {
    let count = number_from("RECORDS", 200_000);
    let options = Options::new()
        .durability(Durability::Lazy)
        .cache_bytes(512 << 20)
        .record_cache_bytes(number_from("RECORD_CACHE", 128 << 20) as usize);
    let larder = options.open(folder.join("reads.larder")).expect("a new store");
    let session = larder.session("bench").expect("a session");
    let database =
        redb::Builder::new().set_cache_size(512 << 20).create(folder.join("reads.redb")).expect("a database");
    let keys: Vec<larder::Key> =
        (0..count).map(|number| larder::Key::parse(&key(number)).expect("a key")).collect();
    for (at, keys) in keys.chunks(10_000).enumerate() {
        session
            .write(|txn| {
                keys.iter()
                    .enumerate()
                    .try_for_each(|(leaf, key)| txn.put(key, draft((at * 10_000 + leaf) as u64)).map(drop))
            })
            .expect("a batch");
        let transaction = database.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for key in keys {
                table.insert(key.encoded(), vec![7; 1_400].as_slice()).expect("an insert");
            }
        }
        transaction.commit().expect("a commit");
    }
    larder.upkeep(0).expect("upkeep");
    let reading = redb::ReadableDatabase::begin_read(&database).expect("a view");
    let table = reading.open_table(TABLE).expect("a table");
    let time = |set: &[larder::Key], read: &dyn Fn(&larder::Key)| {
        let mut random = 7u64;
        let mut step = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            &set[(random % set.len() as u64) as usize]
        };
        (0..2 * set.len()).for_each(|_| read(step()));
        let rounds = 400_000;
        let began = Instant::now();
        (0..rounds).for_each(|_| read(step()));
        began.elapsed().as_secs_f64() * 1e9 / f64::from(rounds)
    };
    let compare = |what: &str, set: &[larder::Key]| {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(time(set, &|key| drop(std::hint::black_box(session.record(key).expect("a record")))));
            theirs.push(time(set, &|key| {
                let value = table.get(key.encoded()).expect("a read").expect("a value");
                std::hint::black_box(value.value().len());
            }));
        }
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        println!("  {what:<34} larder {ours:6.0} ns  redb {theirs:6.0} ns  ratio {:.2}x", ours / theirs);
    };
    compare("1 000 hot records", &keys[..1_000]);
    compare("100 000 hot records", &keys[..keys.len().min(100_000)]);
    compare(&format!("{count} records at random"), &keys);
    let rules: String = (0..1_000)
        .map(|rule| {
            format!("[[rule]]\nallow = [\"read\"]\nwho = [\"user{rule}\"]\non = \"private/{rule}/**\"\n")
        })
        .collect();
    let root = larder.root().expect("a session");
    root.set_document(DocumentKind::Rules, &format!("default = \"allow\"\n{rules}")).expect("rules");
    compare("1 000 hot records, 1 000 rules", &keys[..1_000]);
    drop((root, session));
    larder.close().expect("a store that closes");
    checked(&folder.join("reads.larder"), &keys, &time);
}

/// What it costs to compare the checksum of a row with every read that no cache of records answers.
fn checked(path: &Path, keys: &[larder::Key], time: &dyn Fn(&[larder::Key], &dyn Fn(&larder::Key)) -> f64) {
    let options = Options::new().cache_bytes(512 << 20).record_cache_bytes(0);
    let larder = options.open(path).expect("a store");
    let session = larder.session("bench").expect("a session");
    let mut row = Vec::new();
    seal_into(1, keys[0].encoded(), &payload(3).repeat(2)[..1_400], &mut row);
    let (mut gets, mut checks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        gets.push(time(keys, &|key| drop(std::hint::black_box(session.record(key).expect("a record")))));
        checks.push(time(keys, &|_| {
            std::hint::black_box(unseal(1, keys[0].encoded(), std::hint::black_box(&row)).is_ok());
        }));
    }
    let (get, check) = (median(&mut gets), median(&mut checks));
    println!(
        "  a get that no cache answers {get:.0} ns; the checksum of its row {check:.0} ns, {:.1} % (8 asked)",
        check / get * 100.0
    );
}

fn queue_in(larder: &Larder, name: &str) -> Queue {
    let queue = Queues::at("queues").and_then(|queues| queues.queue(name)).expect("a name");
    let session = larder.root().expect("a session");
    session.try_write(|txn| queue.create(txn, &QueueSettings::new())).expect("a queue");
    queue
}

/// What a queue costs without a disk; a million messages through a small file; how it is asked for when there are many.
fn queue(folder: &Path) {
    let larder = Options::new().open(folder.join("queue.larder")).expect("a store");
    let lazy = larder.root().expect("a session").durability(Durability::Lazy);
    let queue = queue_in(&larder, "jobs");
    let payload = payload(7);
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS * 4_000 {
        let began = Instant::now();
        let _ = lazy.try_write(|txn| queue.enqueue(txn, payload.clone())).expect("room");
        times[0].push(began.elapsed().as_secs_f64() * 1e6);
        // A thousand live.
        if round < 1_000 {
            continue;
        }
        let began = Instant::now();
        let taken = lazy.try_write(|txn| queue.dequeue(txn)).expect("a queue").value.expect("a message");
        times[1].push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        lazy.try_write(|txn| queue.ack(txn, taken.token())).expect("a lease");
        times[2].push(began.elapsed().as_secs_f64() * 1e6);
    }
    for (name, times) in ["enqueue", "dequeue", "acknowledge"].into_iter().zip(&mut times) {
        println!(
            "  {name:<12} without a sync: p50 {:.1} us, p99 {:.1} us",
            median(times),
            percentile(times, 0.99)
        );
    }

    let began = Instant::now();
    let cycles = 1_000_000;
    for _ in 0..cycles / 100 {
        let batch = (0..100).map(|_| Message::new(payload.clone()));
        lazy.try_write(|txn| queue.enqueue_all(txn, batch).map(drop)).expect("room");
        lazy.try_write(|txn| -> Result<(), QueueError> {
            let taken = queue.dequeue_up_to(txn, 100, None)?;
            let tokens: Vec<_> = taken.iter().map(|message| message.token()).collect();
            queue.ack_all(txn, &tokens)
        })
        .expect("messages");
    }
    let rate = f64::from(cycles) / began.elapsed().as_secs_f64();
    larder.close().expect("a store that closes");
    let path = folder.join("queue.larder");
    let size = std::fs::metadata(&path).expect("a file").len() as f64 / (1 << 20) as f64;
    let began = Instant::now();
    let larder = Options::new().open(&path).expect("a store");
    println!(
        "  {cycles} cycles in batches of 100, 1 000 live: {rate:.0}/s, file {size:.1} MiB (64 asked), opened in {:.1} ms (200 asked)",
        began.elapsed().as_secs_f64() * 1e3
    );

    let session = larder.root().expect("a session").durability(Durability::Lazy);
    let queues: Vec<Queue> = (0..1_000).map(|number| queue_in(&larder, &format!("q{number}"))).collect();
    for queue in &queues {
        session
            .try_write(|txn| -> Result<(), QueueError> {
                let _ = queue.enqueue_all(txn, (0..20).map(|_| Message::new("x")))?;
                queue.dequeue_up_to(txn, 10, None).map(drop)
            })
            .expect("room");
    }
    larder.flush().expect("a disk");
    let mut times: Vec<f64> = (0..ROUNDS * 4)
        .map(|_| {
            let began = Instant::now();
            let view = session.snapshot().expect("a view");
            let depth: u64 = queues.iter().map(|queue| queue.stats(&view).expect("a queue").ready).sum();
            assert_eq!(depth, 10_000);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    println!("  stats of 1 000 queues, 10 000 messages in flight: {:.1} ms (5 asked)", median(&mut times));
    drop((session, lazy));
    queue_of_many(&larder);
}

/// A hundred producers, a hundred consumers, and half of each, who share a combiner; by how durable each call is.
fn queue_of_many(larder: &Larder) {
    const THREADS: u64 = 100;
    let length = Duration::from_secs(3);
    let payload = payload(7);
    for (name, durability) in [
        ("on disk", Durability::Synced),
        ("on disk within 10 ms", Durability::Window { milliseconds: 10 }),
        ("lazily", Durability::Lazy),
    ] {
        let queue = queue_in(larder, &name.replace(' ', "-"));
        let combiner = larder.root().expect("a session").durability(durability).combiner();
        let enqueue = |_| {
            let (queue, message) = (queue.clone(), Message::new(payload.clone()));
            let _ = combiner.try_write(move |txn| queue.enqueue(txn, message.clone())).expect("room");
        };
        let consume = |_| {
            let taker = queue.clone();
            let taken = combiner.try_write(move |txn| taker.dequeue(txn)).expect("a queue").value;
            let Some(token) = taken.map(|taken| taken.token()) else { return };
            let acker = queue.clone();
            combiner.try_write(move |txn| acker.ack(txn, token)).expect("a lease");
        };
        let stats = || larder.root().and_then(|root| root.snapshot()).map(|view| queue.stats(&view));
        let counts = || stats().expect("a view").expect("a queue");
        let tell = |what: &str, (_, mut times): (f64, Vec<f64>), count: u64| {
            println!(
                "  {THREADS} {what}, {name}: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
                count as f64 / length.as_secs_f64(),
                median(&mut times) / 1e3,
                percentile(&mut times, 0.99) / 1e3
            );
        };
        let enqueued = hammer(THREADS, length, enqueue);
        tell("producers", enqueued, counts().enqueued);
        let consumed = hammer(THREADS, length, consume);
        tell("consumers", consumed, counts().acked);
        let before = counts();
        let both =
            hammer(THREADS, length, |number| if number % 2 == 0 { enqueue(number) } else { consume(number) });
        let after = counts();
        tell("of both", both, after.enqueued + after.acked - before.enqueued - before.acked);
    }
}

/// A hit beside a hot get; a miss; many who want the same.
fn remember(folder: &Path) {
    let larder = Options::new().open(folder.join("cache.larder")).expect("a store");
    let session = larder.root().expect("a session");
    let cache = Cache::at("cache").and_then(|cache| cache.namespace("n")).expect("a name");
    let value = payload(3);
    let parts = |number: u64| Parts::new().with("model", "leek").with("seed", number);
    let how = Remember::new();
    for number in 0..1_000 {
        let stored = cache
            .get_or_compute(&session, &parts(number), &how, || Ok::<_, RememberError>(value.clone().into()));
        drop(stored.expect("room"));
        session.put(key(number), value.clone()).expect("room");
    }
    let keys: Vec<larder::Key> = (0..1_000).map(|number| key(number).parse().expect("a key")).collect();
    let wanted: Vec<Parts> = (0..1_000).map(parts).collect();
    let known: Vec<_> = wanted.iter().map(|parts| cache.fingerprint(parts).expect("parts")).collect();
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS * 20 {
        let mut round = |at: usize, act: &mut dyn FnMut(usize)| {
            let began = Instant::now();
            (0..1_000).for_each(act);
            times[at].push(began.elapsed().as_secs_f64() * 1e6);
        };
        round(0, &mut |at| drop(session.get(&keys[at]).expect("an asset").bytes()));
        round(1, &mut |at| {
            drop(cache.get_at(&session, &known[at]).expect("a value").expect("a hit").bytes())
        });
        round(2, &mut |at| drop(cache.get(&session, &wanted[at]).expect("a value").expect("a hit").bytes()));
    }
    let [get, hit, with_parts] = &mut times;
    let (get, hit, with_parts) = (median(get), median(hit), median(with_parts));
    let each = 1_000.0;
    println!(
        "  hot get {:.3} us; hit {:.3} us, {:.2}x (1.5 asked); from its parts {:.3} us",
        get / each,
        hit / each,
        hit / get,
        with_parts / each
    );
    let (threads, hits_each) = (16, 200_000);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (session, cache, known) = (session.clone(), &cache, &known);
            scope.spawn(move || {
                for at in 0..hits_each {
                    let known = &known[(thread * 61 + at) % known.len()];
                    drop(cache.get_at(&session, known).expect("a value").expect("a hit").bytes());
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    println!("  {threads} threads that hit: {:.1} million/s", (threads * hits_each) as f64 / 1e6 / seconds);
    let mut number = 1_000_000;
    let mut miss = |session: &Session| {
        let mut times: Vec<f64> = (0..500)
            .map(|_| {
                number += 1;
                let began = Instant::now();
                let computed = || Ok::<_, RememberError>(value.clone().into());
                drop(cache.get_or_compute(session, &parts(number), &how, computed).expect("room"));
                began.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        median(&mut times)
    };
    println!("  a miss, computed and stored: {:.0} us on disk", miss(&session));
    println!(
        "                               {:.0} us without a sync",
        miss(&session.clone().durability(Durability::Lazy))
    );
    let began = Instant::now();
    for number in 0..200 {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let computed = || Ok::<_, RememberError>(value.clone().into());
                    drop(
                        cache
                            .get_or_compute(&session, &parts(5_000_000 + number), &how, computed)
                            .expect("room"),
                    );
                });
            }
        });
    }
    println!(
        "  16 who want the same value: {:.0} us until all have it",
        began.elapsed().as_secs_f64() * 1e6 / 200.0
    );
}
