//! Tasks that wait for each other: larder's layer, and two tables of SQLite, the way that a careful user
//! writes them.
//!
//! SQLite has what is measured here and no more: no retries, no pauses, no barriers, no outbox, no attempts,
//! no index of what is due; how many tasks there are of a status is counted when somebody asks. The layer
//! keeps all of these.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use larder::{Options, Session};
use larder_layers::tasks::{
    Counted, Counts, CreatedTask, Finished, Matcher, Rule, TaskDraft, TaskOutcome, TaskStatus, TaskToken,
    Tasks,
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::work::{Line, Scale, median, percentile};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How many tasks a batch has.
const BATCH: usize = 1_000;
/// How many tasks run while others are claimed.
const RUNNING: usize = 1_000;
const PROJECTS: usize = 4;
/// How many tasks are counted at once.
const FLUSHED: usize = 100;
const KIND: &str = "work";
const REASON: &str = "it broke";
const TIMEOUT: Duration = Duration::from_secs(60);

/// A task that is to be created, as an application has it.
struct Draft {
    name: String,
    priority: i32,
    project: usize,
    /// How many tasks of its project may be at work when it is claimed.
    project_max: Option<usize>,
    /// Which tasks of its batch have to succeed before.
    after: Vec<usize>,
}

impl Draft {
    fn new(number: usize) -> Self {
        let name = format!("task {number}");
        Self { name, priority: 0, project: number % PROJECTS, project_max: None, after: Vec::new() }
    }
}

/// What whoever has a task shows: the task, and a number.
type Token = (u64, u64);

/// What a store of tasks has to do: each in one transaction, durable when it returns.
trait Store {
    /// Creates a batch; gives the tasks, and the batch.
    fn create(&mut self, batch: &[Draft]) -> Fallible<(Vec<u64>, u64)>;
    fn claim(&mut self) -> Fallible<Option<Token>>;
    fn run(&mut self, token: Token) -> Fallible<()>;
    /// Claims up to so many tasks, and lets them run.
    fn start(&mut self, limit: usize) -> Fallible<Vec<Token>>;
    fn finish(&mut self, token: Token, is_success: bool) -> Fallible<()>;
    /// Counts an item of each task; gives how many it has now, of all of them.
    fn count(&mut self, tasks: &[u64]) -> Fallible<i64>;
    /// Calls off all tasks of a batch that are not over.
    fn stop(&mut self, batch: u64) -> Fallible<()>;
    /// Removes up to so many tasks that are over, the longest first; gives how many.
    fn remove(&mut self, limit: usize) -> Fallible<u64>;
    /// Tells how many tasks of each status there are, without those of which there are none.
    fn statuses(&self) -> Fallible<Vec<(TaskStatus, u64)>>;
}

struct Ours {
    session: Session,
    tasks: Tasks,
}

impl Ours {
    fn open(folder: &Path) -> Fallible<Self> {
        let larder = Options::new().open(folder.join("tasks.larder"))?;
        Ok(Self { session: larder.root()?, tasks: Tasks::at("tasks")? })
    }
}

fn token_of(token: TaskToken) -> Token {
    (token.task, token.fence)
}

fn of_token((task, fence): Token) -> TaskToken {
    TaskToken { task, fence }
}

fn task_draft((number, draft): (usize, &Draft)) -> TaskDraft {
    let mut task = TaskDraft::new(number.to_string(), draft.name.as_str(), KIND)
        .timeout(TIMEOUT)
        .priority(draft.priority)
        .metadata("project", draft.project);
    if let Some(max) = draft.project_max {
        let fields = vec!["project".to_owned()];
        let matcher = Matcher { status: TaskStatus::Running, kind: KIND.to_owned(), fields };
        task = task.rule(Rule::Concurrency { max: max as u64, matcher });
    }
    draft.after.iter().fold(task, |task, parent| task.after_success_of(parent.to_string()))
}

impl Store for Ours {
    fn create(&mut self, batch: &[Draft]) -> Fallible<(Vec<u64>, u64)> {
        let batch: Vec<TaskDraft> = batch.iter().enumerate().map(task_draft).collect();
        let created = self.session.try_write(|txn| self.tasks.create(txn, &batch))?.value;
        Ok((created.tasks.iter().map(CreatedTask::id).collect(), created.batch))
    }

    fn claim(&mut self) -> Fallible<Option<Token>> {
        let claimed = self.session.try_write(|txn| self.tasks.claim(txn))?.value;
        Ok(claimed.map(|claimed| token_of(claimed.token())))
    }

    fn run(&mut self, token: Token) -> Fallible<()> {
        self.session.try_write(|txn| self.tasks.run(txn, of_token(token)))?;
        Ok(())
    }

    fn start(&mut self, limit: usize) -> Fallible<Vec<Token>> {
        let started = self.session.try_write(|txn| {
            let claimed = self.tasks.claim_up_to(txn, limit)?;
            claimed.iter().try_for_each(|claimed| self.tasks.run(txn, claimed.token()))?;
            Ok::<_, larder_layers::tasks::TasksError>(claimed)
        })?;
        Ok(started.value.iter().map(|claimed| token_of(claimed.token())).collect())
    }

    fn finish(&mut self, token: Token, is_success: bool) -> Fallible<()> {
        let outcome = if is_success { TaskOutcome::Success } else { TaskOutcome::Failure(REASON.to_owned()) };
        match self.session.try_write(|txn| self.tasks.finish(txn, of_token(token), &outcome))?.value {
            Finished::Ended(_) => Ok(()),
            Finished::RetryAt(_) => Err("larder: a task is to be tried again".into()),
        }
    }

    fn count(&mut self, tasks: &[u64]) -> Fallible<i64> {
        let items: Vec<Counts> =
            tasks.iter().map(|task| Counts { task: *task, successes: 1, failures: 0 }).collect();
        let counted = self.session.try_write(|txn| self.tasks.count(txn, None, &items))?.value;
        let successes = |counted: &Counted| match counted {
            Counted::Applied { successes, .. } => Ok(*successes),
            other => Err(format!("larder: {other:?}")),
        };
        Ok(counted.iter().flatten().map(successes).sum::<Result<i64, _>>()?)
    }

    fn stop(&mut self, batch: u64) -> Fallible<()> {
        self.session.try_write(|txn| self.tasks.stop_batch(txn, batch))?;
        Ok(())
    }

    fn remove(&mut self, limit: usize) -> Fallible<u64> {
        let removed = self.session.try_write(|txn| {
            let now = txn.info().time;
            self.tasks.remove_ended_before(txn, now, limit)
        })?;
        Ok(removed.value)
    }

    fn statuses(&self) -> Fallible<Vec<(TaskStatus, u64)>> {
        Ok(self.tasks.stats(&self.session.snapshot()?)?.statuses)
    }
}

/// A status is its place in [`TaskStatus::ALL`]: 0 waiting, 1 pending, 2 claimed, 3 running, 4 paused, 5
/// success, 6 failure, 7 canceled. Whoever waits for a task is found by the links' primary key.
const TABLES: &str = "
    CREATE TABLE batch (id INTEGER PRIMARY KEY AUTOINCREMENT, created INTEGER NOT NULL);
    CREATE TABLE task (id INTEGER PRIMARY KEY AUTOINCREMENT, batch INTEGER NOT NULL, name TEXT NOT NULL,
        kind TEXT NOT NULL, status INTEGER NOT NULL, priority INTEGER NOT NULL, waits INTEGER NOT NULL,
        project INTEGER, project_max INTEGER, timeout INTEGER NOT NULL, fence INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, successes INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0, expected INTEGER, created INTEGER NOT NULL,
        updated INTEGER NOT NULL, started INTEGER, ended INTEGER, until INTEGER, reason TEXT,
        metadata TEXT NOT NULL);
    CREATE TABLE link (parent INTEGER NOT NULL, child INTEGER NOT NULL, needs_success INTEGER NOT NULL,
        PRIMARY KEY (parent, child)) WITHOUT ROWID;
    CREATE INDEX link_child ON link (child);
    CREATE INDEX task_state ON task (status, priority DESC, created, id);
    CREATE INDEX task_batch ON task (batch);
    CREATE INDEX task_busy ON task (kind, project) WHERE status IN (2, 3);
    CREATE INDEX task_ended ON task (ended) WHERE ended IS NOT NULL;";

/// The tasks that a transaction ends or removes.
const GONE: &str = "
    CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY, parent INTEGER, waits INTEGER NOT NULL);";

const INSERT: &str = "
    INSERT INTO task (batch, name, kind, status, priority, waits, project, project_max, timeout, created,
        updated, metadata)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11)";

/// The first that no rule blocks: what is at work of its project is counted in an index of that alone.
const CLAIM: &str = "
    UPDATE task SET status = 2, fence = fence + 1, attempts = attempts + 1, updated = ?1,
        until = ?1 + 30000000
    WHERE id = (SELECT id FROM task AS ready
        WHERE status = 1 AND (until IS NULL OR until <= ?1) AND (project_max IS NULL OR project_max >
            (SELECT count(*) FROM task AS busy
             WHERE busy.kind = ready.kind AND busy.project = ready.project AND busy.status IN (2, 3)))
        ORDER BY priority DESC, created, id LIMIT 1)
    RETURNING id, fence";

const RUN: &str = "
    UPDATE task SET status = 3, started = ?3, updated = ?3, until = ?3 + timeout
    WHERE id = ?1 AND fence = ?2 AND +status = 2";

const FINISH: &str = "
    UPDATE task SET status = ?3, updated = ?4, ended = ?4, until = NULL, reason = ?5
    WHERE id = ?1 AND fence = ?2 AND +status IN (2, 3)";

/// Those after a task that succeeded wait for one less.
const TELL: &str = "
    UPDATE task SET waits = waits - 1, updated = ?2, status = CASE waits WHEN 1 THEN 1 ELSE 0 END
    WHERE id IN (SELECT child FROM link WHERE parent = ?1) AND +status = 0";

/// A task that failed, and all that need its success, or that of one of them.
const LOSE: &str = "
    WITH RECURSIVE lost (id, parent, waits) AS (
        VALUES (?1, NULL, 0)
        UNION
        SELECT link.child, link.parent, task.waits
        FROM lost CROSS JOIN link ON link.parent = lost.id CROSS JOIN task ON task.id = link.child
        WHERE link.needs_success AND +task.status = 0)
    INSERT OR IGNORE INTO gone SELECT id, parent, waits FROM lost";

const FAIL: &str = "
    UPDATE task SET status = 6, waits = 0, updated = ?1, ended = ?1, until = NULL,
        reason = 'Required parent task ' || (SELECT parent FROM gone WHERE gone.id = task.id) || ' failed'
    WHERE id IN (SELECT id FROM gone WHERE parent IS NOT NULL)";

/// Those after tasks that failed that do not need their success wait for so many less.
const TELL_OF_LOST: &str = "
    UPDATE task SET waits = waits - told.count, updated = ?1,
        status = CASE waits WHEN told.count THEN 1 ELSE 0 END
    FROM (SELECT link.child, count(*) AS count FROM gone CROSS JOIN link ON link.parent = gone.id
          WHERE NOT link.needs_success GROUP BY link.child) AS told
    WHERE task.id = told.child AND +task.status = 0";

/// Tasks before such that ended while they had not, and after which nobody is left.
const DEAD_ENDS: &str = "
    INSERT OR IGNORE INTO gone
    SELECT DISTINCT task.id, NULL, task.waits + 1
    FROM gone CROSS JOIN link ON link.child = gone.id CROSS JOIN task ON task.id = link.parent
    WHERE gone.waits > 1 AND +task.status < 5 AND NOT EXISTS
        (SELECT 1 FROM link AS other CROSS JOIN task AS child ON child.id = other.child
         WHERE other.parent = task.id AND +child.status < 5)";

const CANCEL_DEAD_ENDS: &str = "
    UPDATE task SET status = 7, waits = 0, updated = ?1, ended = ?1, until = NULL,
        reason = 'All child tasks already terminated'
    WHERE id IN (SELECT id FROM gone) AND +status < 5";

const COUNT: &str = "
    UPDATE task SET successes = successes + ?2, failures = failures + ?3, updated = ?4,
        until = CASE status WHEN 3 THEN ?4 + timeout ELSE until END
    WHERE id = ?1 RETURNING successes";

const STOP: &str = "
    UPDATE task SET status = 7, waits = 0, updated = ?2, ended = ?2, until = NULL, reason = 'Batch stopped'
    WHERE batch = ?1 AND +status < 5";

const OVER: &str = "INSERT INTO gone SELECT id, NULL, 0 FROM task WHERE ended < ?1 ORDER BY ended LIMIT ?2";

const REMOVE: [&str; 3] = [
    "DELETE FROM link WHERE parent IN (SELECT id FROM gone)",
    "DELETE FROM link WHERE child IN (SELECT id FROM gone)",
    "DELETE FROM task WHERE id IN (SELECT id FROM gone)",
];

const FORGET: &str = "DELETE FROM gone";

struct Theirs {
    connection: Connection,
}

fn now() -> Fallible<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

impl Theirs {
    fn open(folder: &Path) -> Fallible<Self> {
        let file = folder.join("tasks.sqlite");
        let is_new = !file.exists();
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -(512 << 10))?;
        connection.pragma_update(None, "mmap_size", 512_i64 << 20)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(64);
        if is_new {
            connection.execute_batch(TABLES)?;
        }
        connection.execute_batch(GONE)?;
        Ok(Self { connection })
    }

    /// Begins a transaction that nobody else's write can come between.
    fn begin(&mut self) -> Fallible<Transaction<'_>> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

fn claim_in(transaction: &Transaction<'_>, now: i64) -> Fallible<Option<Token>> {
    let mut claim = transaction.prepare_cached(CLAIM)?;
    Ok(claim.query_row([now], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn run_in(transaction: &Transaction<'_>, (task, fence): Token, now: i64) -> Fallible<()> {
    match transaction.prepare_cached(RUN)?.execute((task, fence, now))? {
        1 => Ok(()),
        _ => Err("SQLite: a task that was claimed is not".into()),
    }
}

/// Lets everything fail that needs a task that failed, and tells the others.
fn fail_in(transaction: &Transaction<'_>, task: u64, now: i64) -> Fallible<()> {
    transaction.prepare_cached(LOSE)?.execute([task])?;
    transaction.prepare_cached(FAIL)?.execute([now])?;
    transaction.prepare_cached(TELL_OF_LOST)?.execute([now])?;
    while transaction.prepare_cached(DEAD_ENDS)?.execute([])? > 0 {
        transaction.prepare_cached(CANCEL_DEAD_ENDS)?.execute([now])?;
    }
    transaction.prepare_cached(FORGET)?.execute([])?;
    Ok(())
}

impl Store for Theirs {
    fn create(&mut self, batch: &[Draft]) -> Fallible<(Vec<u64>, u64)> {
        let (now, timeout) = (now()?, i64::try_from(TIMEOUT.as_micros())?);
        let transaction = self.begin()?;
        let mut ids = Vec::with_capacity(batch.len());
        transaction.prepare_cached("INSERT INTO batch (created) VALUES (?)")?.execute([now])?;
        let number = transaction.last_insert_rowid();
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            let mut link = transaction.prepare_cached("INSERT INTO link VALUES (?, ?, 1)")?;
            for draft in batch {
                // All that it waits for is new, too: it cannot be over.
                let waits = draft.after.len();
                let metadata = serde_json::json!({ "project": draft.project }).to_string();
                let status = if waits > 0 { TaskStatus::Waiting } else { TaskStatus::Pending };
                insert.execute((
                    number,
                    &draft.name,
                    KIND,
                    status as i64,
                    draft.priority,
                    waits,
                    draft.project,
                    draft.project_max,
                    timeout,
                    now,
                    metadata,
                ))?;
                let id = u64::try_from(transaction.last_insert_rowid())?;
                for parent in &draft.after {
                    link.execute((ids.get(*parent), id))?;
                }
                ids.push(id);
            }
        }
        transaction.commit()?;
        Ok((ids, u64::try_from(number)?))
    }

    fn claim(&mut self) -> Fallible<Option<Token>> {
        let now = now()?;
        let transaction = self.begin()?;
        let claimed = claim_in(&transaction, now)?;
        transaction.commit()?;
        Ok(claimed)
    }

    fn run(&mut self, token: Token) -> Fallible<()> {
        let now = now()?;
        let transaction = self.begin()?;
        run_in(&transaction, token, now)?;
        Ok(transaction.commit()?)
    }

    fn start(&mut self, limit: usize) -> Fallible<Vec<Token>> {
        let now = now()?;
        let transaction = self.begin()?;
        let mut started = Vec::new();
        while started.len() < limit
            && let Some(token) = claim_in(&transaction, now)?
        {
            run_in(&transaction, token, now)?;
            started.push(token);
        }
        transaction.commit()?;
        Ok(started)
    }

    fn finish(&mut self, (task, fence): Token, is_success: bool) -> Fallible<()> {
        let now = now()?;
        let transaction = self.begin()?;
        let (status, reason) =
            if is_success { (TaskStatus::Success, None) } else { (TaskStatus::Failure, Some(REASON)) };
        let mut finish = transaction.prepare_cached(FINISH)?;
        if finish.execute((task, fence, status as i64, now, reason))? != 1 {
            return Err("SQLite: a task that runs does not".into());
        }
        drop(finish);
        if is_success {
            transaction.prepare_cached(TELL)?.execute((task, now))?;
        } else {
            fail_in(&transaction, task, now)?;
        }
        Ok(transaction.commit()?)
    }

    fn count(&mut self, tasks: &[u64]) -> Fallible<i64> {
        let now = now()?;
        let transaction = self.begin()?;
        let mut successes = 0;
        {
            let mut count = transaction.prepare_cached(COUNT)?;
            for task in tasks {
                successes += count.query_row((*task, 1, 0, now), |row| row.get::<_, i64>(0))?;
            }
        }
        transaction.commit()?;
        Ok(successes)
    }

    fn stop(&mut self, batch: u64) -> Fallible<()> {
        let now = now()?;
        let transaction = self.begin()?;
        transaction.prepare_cached(STOP)?.execute((batch, now))?;
        Ok(transaction.commit()?)
    }

    fn remove(&mut self, limit: usize) -> Fallible<u64> {
        let now = now()?;
        let transaction = self.begin()?;
        let removed = transaction.prepare_cached(OVER)?.execute((now, limit))?;
        for remove in REMOVE {
            transaction.prepare_cached(remove)?.execute([])?;
        }
        transaction.prepare_cached(FORGET)?.execute([])?;
        transaction.commit()?;
        Ok(removed as u64)
    }

    fn statuses(&self) -> Fallible<Vec<(TaskStatus, u64)>> {
        let mut count =
            self.connection.prepare_cached("SELECT status, count(*) FROM task GROUP BY status")?;
        let rows = count.query_map([], |row| Ok((row.get::<_, usize>(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (status, count) = row?;
            let status = TaskStatus::ALL.get(status).ok_or("SQLite: an unknown status")?;
            Ok((*status, count))
        })
        .collect()
    }
}

fn open(name: &str, folder: &Path) -> Fallible<Box<dyn Store>> {
    std::fs::create_dir_all(folder)?;
    Ok(if name == "larder" { Box::new(Ours::open(folder)?) } else { Box::new(Theirs::open(folder)?) })
}

/// Adds how long something took, in microseconds.
fn timed<T>(times: &mut Vec<f64>, act: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    let began = Instant::now();
    let done = act()?;
    times.push(began.elapsed().as_secs_f64() * 1e6);
    Ok(done)
}

/// A batch of which each task waits for one to three earlier ones, but the first.
fn mesh() -> Vec<Draft> {
    let draft = |number: usize| {
        let mut draft = Draft::new(number);
        let mut random = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let wanted = number.min(1 + number % 3);
        let mut after = BTreeSet::new();
        while after.len() < wanted {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            after.insert((random % number as u64) as usize);
        }
        draft.after = after.into_iter().collect();
        draft
    };
    (0..BATCH).map(draft).collect()
}

/// A first task, claimed before all others, and those that wait for it, or each for the one before.
fn behind_first(is_chain: bool) -> Vec<Draft> {
    let draft = |number: usize| {
        let mut draft = Draft::new(number);
        draft.priority = i32::from(number == 0);
        draft.after.extend((number > 0).then_some(if is_chain { number.saturating_sub(1) } else { 0 }));
        draft
    };
    (0..BATCH).map(draft).collect()
}

/// A batch of tasks of which one more than run already may be at work in each project.
fn ruled() -> Vec<Draft> {
    let draft = |number| Draft { project_max: Some(RUNNING / PROJECTS + 1), ..Draft::new(number) };
    (0..BATCH).map(draft).collect()
}

/// What each step took every time, in microseconds.
type Times = [Vec<f64>];

/// Something that is measured: several times in a round, in a store of its own.
struct Phase {
    name: &'static str,
    /// What its steps are called, in which unit they are printed, and how many microseconds that is.
    steps: &'static [(&'static str, &'static str, f64)],
    /// What the steps together are called, when they are also counted by the second.
    rate: Option<&'static str>,
    /// How often it is done, for each batch of a round.
    times: usize,
    /// Brings a store to where the work begins, knowing how often it will be done.
    fill: fn(&mut dyn Store, usize) -> Fallible<Vec<u64>>,
    /// Does it once: adds what each step took, and gives what must be the same for all.
    act: fn(&mut dyn Store, &[u64], &mut Times) -> Fallible<i64>,
}

const PHASES: [Phase; 6] = [
    Phase {
        name: "create",
        steps: &[("1 000 created, each after 1 to 3 others, p50", "ms", 1e3)],
        rate: None,
        times: 1,
        fill: |_, _| Ok(Vec::new()),
        act: |store, _, times| {
            let batch = mesh();
            let (ids, _) = timed(&mut times[0], || store.create(&batch))?;
            Ok(i64::try_from(ids.len())?)
        },
    },
    Phase {
        name: "claim",
        steps: &[
            ("claim by a rule, 1 000 running, p50", "us", 1.0),
            ("run, 1 000 running, p50", "us", 1.0),
            ("finish, 1 000 running, p50", "us", 1.0),
        ],
        rate: Some("claim, run and finish by a rule, 1 000 running"),
        times: 100,
        fill: |store, count| {
            for _ in 0..RUNNING.div_ceil(BATCH) {
                store.create(&ruled())?;
            }
            let running = store.start(RUNNING)?.len();
            for _ in 0..count.div_ceil(BATCH) {
                store.create(&ruled())?;
            }
            if running == RUNNING { Ok(Vec::new()) } else { Err(format!("{running} tasks run").into()) }
        },
        act: |store, _, times| {
            let token = timed(&mut times[0], || store.claim())?.ok_or("no task can be claimed")?;
            timed(&mut times[1], || store.run(token))?;
            timed(&mut times[2], || store.finish(token, true))?;
            Ok(1)
        },
    },
    Phase {
        name: "ready",
        steps: &[("finish that makes 999 ready, p50", "ms", 1e3)],
        rate: None,
        times: 1,
        fill: |_, _| Ok(Vec::new()),
        act: |store, _, times| {
            store.create(&behind_first(false))?;
            let first = *store.start(1)?.first().ok_or("no task can be claimed")?;
            timed(&mut times[0], || store.finish(first, true))?;
            Ok(1)
        },
    },
    Phase {
        name: "failure",
        steps: &[("failure down a chain of 1 000, p50", "ms", 1e3)],
        rate: None,
        times: 1,
        fill: |_, _| Ok(Vec::new()),
        act: |store, _, times| {
            store.create(&behind_first(true))?;
            let first = *store.start(1)?.first().ok_or("no task can be claimed")?;
            timed(&mut times[0], || store.finish(first, false))?;
            Ok(1)
        },
    },
    Phase {
        name: "count",
        steps: &[("count items of 100 tasks, p50", "us", 1.0)],
        rate: None,
        times: 20,
        fill: |store, _| {
            let batch: Vec<Draft> = (0..FLUSHED).map(Draft::new).collect();
            store.create(&batch)?;
            Ok(store.start(FLUSHED)?.into_iter().map(|(task, _)| task).collect())
        },
        act: |store, tasks, times| timed(&mut times[0], || store.count(tasks)),
    },
    Phase {
        name: "remove",
        steps: &[("remove 1 000 ended, with links, p50", "ms", 1e3)],
        rate: None,
        times: 1,
        fill: |store, _| {
            // There is always more than what is removed.
            for _ in 0..2 {
                let (_, batch) = store.create(&mesh())?;
                store.stop(batch)?;
            }
            Ok(Vec::new())
        },
        act: |store, _, times| {
            let (_, batch) = store.create(&mesh())?;
            store.stop(batch)?;
            Ok(i64::try_from(timed(&mut times[0], || store.remove(BATCH))?)?)
        },
    },
];

/// What one peer did in a phase.
struct Turns {
    name: &'static str,
    /// What each step took, over all rounds.
    times: Vec<Vec<f64>>,
    /// How often a second all steps were done, in each round.
    rates: Vec<f64>,
    outcomes: Vec<i64>,
    statuses: Vec<(TaskStatus, u64)>,
}

/// Lets both do all phases, and compares what they have afterwards, also when they are opened again.
pub fn tasks(folder: &Path, scale: &Scale) -> Fallible<Vec<Line>> {
    let mut lines = Vec::new();
    for phase in &PHASES {
        let times = scale.batches * phase.times;
        let mut peers = Vec::new();
        for name in ["larder", "SQLite"] {
            let mut store = open(name, &folder.join(phase.name).join(name))?;
            let filled = (phase.fill)(store.as_mut(), scale.rounds * times)?;
            let turns = Turns {
                name,
                times: vec![Vec::new(); phase.steps.len()],
                rates: Vec::new(),
                outcomes: Vec::new(),
                statuses: Vec::new(),
            };
            peers.push((store, filled, turns));
        }
        for _ in 0..scale.rounds {
            for (store, filled, turns) in &mut peers {
                let before: f64 = turns.times.iter().flatten().sum();
                for _ in 0..times {
                    turns.outcomes.push((phase.act)(store.as_mut(), filled, &mut turns.times)?);
                }
                let took = turns.times.iter().flatten().sum::<f64>() - before;
                turns.rates.push(times as f64 * 1e6 / took);
            }
        }
        let mut all = Vec::new();
        for (store, _, mut turns) in peers {
            turns.statuses = store.statuses()?;
            drop(store);
            if open(turns.name, &folder.join(phase.name).join(turns.name))?.statuses()? != turns.statuses {
                return Err(format!("{}: {} lost tasks", phase.name, turns.name).into());
            }
            all.push(turns);
        }
        let [ours, theirs] = all.as_slice() else { return Err("expected two peers".into()) };
        if ours.statuses != theirs.statuses || ours.outcomes != theirs.outcomes {
            let (ours, theirs) = (&ours.statuses, &theirs.statuses);
            return Err(format!("{}: larder has {ours:?}, SQLite {theirs:?}", phase.name).into());
        }
        lines.extend(lines_of(phase, all));
        std::fs::remove_dir_all(folder.join(phase.name))?;
    }
    Ok(lines)
}

fn lines_of(phase: &Phase, mut all: Vec<Turns>) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(what) = phase.rate {
        let figures = all.iter_mut().map(|turns| (turns.name, median(&mut turns.rates))).collect();
        lines.push(Line { what: what.to_owned(), unit: "/s", more_is_better: true, figures });
    }
    for (step, (what, unit, micros)) in phase.steps.iter().enumerate() {
        let figure = |turns: &mut Turns| {
            turns.times[step].sort_by(f64::total_cmp);
            (turns.name, percentile(&turns.times[step], 0.5) / micros)
        };
        let figures = all.iter_mut().map(figure).collect();
        lines.push(Line { what: (*what).to_owned(), unit, more_is_better: false, figures });
    }
    lines
}
