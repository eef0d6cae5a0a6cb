//! A queue: larder's layer, and one table of SQLite, the way that its users write it.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder::{Combiner, Larder, Options};
use larder_layers::queue::{Message, Queue, QueueSettings, Queues};
use rusqlite::{Connection, OptionalExtension};

use crate::work::{Line, Scale, median, percentile};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a queue has to do: everything durable when it returns.
trait Work: Sync {
    fn enqueue(&self, payload: &[u8]) -> Fallible<()>;
    /// Takes a message and acknowledges it; tells whether there was one.
    fn consume(&self) -> Fallible<bool>;
    fn depth(&self) -> Fallible<u64>;
}

/// One combiner for all: threads whose transactions are small share it.
struct Ours {
    larder: Larder,
    combiner: Combiner,
    queue: Queue,
}

impl Ours {
    fn open(folder: &Path) -> Fallible<Self> {
        let larder = Options::new().open(folder.join("queue.larder"))?;
        let queue = Queues::at("queues")?.queue("jobs")?;
        let root = larder.root()?;
        root.try_write(|txn| queue.create(txn, &QueueSettings::new()))?;
        Ok(Self { larder, combiner: root.combiner(), queue })
    }
}

impl Work for Ours {
    fn enqueue(&self, payload: &[u8]) -> Fallible<()> {
        let (queue, message) = (self.queue.clone(), Message::new(payload.to_vec()));
        let _ = self.combiner.try_write(move |txn| queue.enqueue(txn, message.clone()))?;
        Ok(())
    }

    fn consume(&self) -> Fallible<bool> {
        let queue = self.queue.clone();
        let taken = self.combiner.try_write(move |txn| queue.dequeue(txn))?.value;
        let Some(token) = taken.map(|taken| taken.token()) else { return Ok(false) };
        let queue = self.queue.clone();
        self.combiner.try_write(move |txn| queue.ack(txn, token))?;
        Ok(true)
    }

    fn depth(&self) -> Fallible<u64> {
        let view = self.larder.root()?.snapshot()?;
        Ok(self.queue.stats(&view)?.ready)
    }
}

/// One connection for all: SQLite has one writer, and a mutex wakes the next sooner than its busy handler does.
struct Theirs {
    connection: Mutex<Connection>,
    now: AtomicI64,
}

impl Theirs {
    fn open(folder: &Path) -> Fallible<Self> {
        let connection = Connection::open(folder.join("queue.sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL, priority INTEGER NOT NULL,
               visible_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, token INTEGER);
             CREATE INDEX ready ON messages (priority DESC, id) WHERE token IS NULL;
             CREATE INDEX expired ON messages (visible_at) WHERE token IS NOT NULL;",
        )?;
        Ok(Self { connection: Mutex::new(connection), now: AtomicI64::new(1) })
    }
}

impl Work for Theirs {
    fn enqueue(&self, payload: &[u8]) -> Fallible<()> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut insert = connection
            .prepare_cached("INSERT INTO messages (payload, priority, visible_at) VALUES (?, 0, 0)")?;
        insert.execute([payload])?;
        Ok(())
    }

    fn consume(&self) -> Fallible<bool> {
        let token = self.now.fetch_add(1, Ordering::Relaxed);
        let taken: Option<(i64, Vec<u8>)> = {
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let mut take = connection.prepare_cached(
                "UPDATE messages SET token = ?1, visible_at = ?2, attempts = attempts + 1 WHERE id = \
                   (SELECT id FROM messages WHERE token IS NULL ORDER BY priority DESC, id LIMIT 1) \
                 RETURNING id, payload",
            )?;
            take.query_row((token, token + 30_000_000), |row| Ok((row.get(0)?, row.get(1)?))).optional()?
        };
        let Some((id, _payload)) = taken else { return Ok(false) };
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut remove = connection.prepare_cached("DELETE FROM messages WHERE id = ? AND token = ?")?;
        Ok(remove.execute((id, token))? == 1)
    }

    fn depth(&self) -> Fallible<u64> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(connection.query_row("SELECT count(*) FROM messages WHERE token IS NULL", [], |row| row.get(0))?)
    }
}

/// Runs something on threads for a while; gives how often a second, and how long each took in microseconds.
fn hammer(
    threads: usize,
    length: Duration,
    act: &(dyn Fn(usize) -> Fallible<()> + Sync),
) -> Fallible<(f64, Vec<f64>)> {
    let (stop, failed, began) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (stop, failed) = (&stop, &failed);
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        match act(thread) {
                            Ok(()) => times.push(began.elapsed().as_secs_f64() * 1e6),
                            Err(_) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                        }
                    }
                    times
                })
            })
            .collect();
        while began.elapsed() < length && !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            times.extend(worker.join().unwrap_or_default());
        }
    });
    if failed.into_inner() > 0 {
        return Err("an operation failed".into());
    }
    Ok((times.len() as f64 / began.elapsed().as_secs_f64(), times))
}

/// Ingest, drain and both, by one and by 64 at once.
pub fn queues(folder: &Path, scale: &Scale) -> Fallible<Vec<Line>> {
    let payload: Vec<u8> = (0..1_024_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut lines = Vec::new();
    for threads in [1, 64] {
        for (work, name) in [(0, "enqueue"), (1, "dequeue and acknowledge"), (2, "half of each")] {
            let mut figures: [(&str, Vec<f64>, Vec<f64>); 2] =
                [("larder", Vec::new(), Vec::new()), ("SQLite", Vec::new(), Vec::new())];
            for round in 0..scale.rounds {
                for (name, rates, times) in &mut figures {
                    let folder = folder.join(format!("{name}-{threads}-{work}-{round}"));
                    std::fs::create_dir_all(&folder)?;
                    let queue: Box<dyn Work> = if *name == "larder" {
                        Box::new(Ours::open(&folder)?)
                    } else {
                        Box::new(Theirs::open(&folder)?)
                    };
                    if work > 0 {
                        // Enough to take from for the whole time: finding nothing is no work.
                        fill(
                            &folder,
                            *name == "larder",
                            scale.slice.as_secs_f64() * 30_000.0,
                            &payload,
                            &*queue,
                        )?;
                    }
                    let before = queue.depth()?;
                    let (rate, taken) = hammer(threads, scale.slice, &|thread| {
                        let consumes = work == 1 || (work == 2 && thread % 2 == 1 && threads > 1);
                        if !consumes {
                            queue.enqueue(&payload)?;
                        }
                        if (consumes || work == 2 && threads == 1) && !queue.consume()? {
                            return Err("there was nothing left to take".into());
                        }
                        Ok(())
                    })?;
                    if work == 0 && queue.depth()? != before + taken.len() as u64 {
                        return Err(format!("{name} lost messages").into());
                    }
                    rates.push(rate);
                    times.extend(taken);
                    drop(queue);
                    std::fs::remove_dir_all(&folder)?;
                }
            }
            let who = if threads == 1 { "one thread".to_owned() } else { format!("{threads} threads") };
            figures.iter_mut().for_each(|(_, _, times)| times.sort_by(f64::total_cmp));
            let mut line =
                |what: &str,
                 unit,
                 more_is_better,
                 figure: &mut dyn FnMut(&mut Vec<f64>, &mut Vec<f64>) -> f64| {
                    let figures = figures
                        .iter_mut()
                        .map(|(name, rates, times)| (*name, figure(rates, times)))
                        .collect();
                    lines.push(Line { what: format!("{name}, {who}{what}"), unit, more_is_better, figures });
                };
            line("", "/s", true, &mut |rates, _| median(rates));
            line(", p50", "us", false, &mut |_, times| percentile(times, 0.5));
            line(", p99", "us", false, &mut |_, times| percentile(times, 0.99));
        }
    }
    Ok(lines)
}

/// Puts messages in, many at a time.
fn fill(folder: &Path, is_ours: bool, count: f64, payload: &[u8], queue: &dyn Work) -> Fallible<()> {
    let count = count as u64;
    if is_ours {
        // The store is open in the one that is measured: through it.
        let threads = 64;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(move || (0..count / threads).try_for_each(|_| queue.enqueue(payload))))
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a thread panicked".into())))
        })
    } else {
        let mut connection = Connection::open(folder.join("queue.sqlite"))?;
        let transaction = connection.transaction()?;
        for _ in 0..count {
            transaction.execute(
                "INSERT INTO messages (payload, priority, visible_at) VALUES (?, 0, 0)",
                [payload],
            )?;
        }
        Ok(transaction.commit()?)
    }
}
