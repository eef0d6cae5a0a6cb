//! Stores of tasks, and of runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use larder::{Direction, Part, ReadTxn};
use larder_layers::runs::{Asset, GateState, MadeState, RunState};
use larder_layers::tasks::{Blocked, Task, TaskFilter, TaskId, TaskStatus, TasksError, WhyNot};
use larder_layers::{runs, tasks};
use serde_json::{Value, json};

use crate::Context;
use crate::graph::{Drawing, Node};
use crate::output::{Done, Failure, number, shown, time};

/// Where something lies.
#[derive(Args)]
pub(crate) struct Place {
    /// The store.
    file: PathBuf,
    /// The key that the tasks, or the runs, lie below.
    place: String,
}

/// How a graph is shown.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Picture {
    /// As lines.
    Text,
    /// For Graphviz.
    Dot,
    /// As a picture.
    Svg,
}

#[derive(Subcommand)]
pub(crate) enum Tasks {
    /// List tasks.
    Ls {
        #[command(flatten)]
        at: Place,
        /// Only those of this status.
        #[arg(long)]
        status: Option<String>,
        /// Only those of this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Only those of this batch.
        #[arg(long)]
        batch: Option<u64>,
        /// Only those whose name contains this.
        #[arg(long)]
        name: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show how many tasks there are of each status, and of each batch.
    Stat {
        #[command(flatten)]
        at: Place,
    },
    /// Show all that is known of a task.
    Show {
        #[command(flatten)]
        at: Place,
        /// The number of the task.
        task: TaskId,
    },
    /// Show who waits for whom in a batch.
    Graph {
        #[command(flatten)]
        at: Place,
        /// The number of the batch.
        batch: u64,
        /// As what.
        #[arg(long, value_enum, default_value = "text")]
        format: Picture,
    },
    /// Show the longest way through a batch, by how long its tasks ran; for those that did not, how long they may.
    CriticalPath {
        #[command(flatten)]
        at: Place,
        /// The number of the batch.
        batch: u64,
    },
    /// Show why a task does not run. Exit code 1: something keeps it from running.
    WhyBlocked {
        #[command(flatten)]
        at: Place,
        /// The number of the task.
        task: TaskId,
    },
}

fn task_line(task: &Task) -> String {
    format!(
        "{:>10}  {:<8}  {:>5}  {}  {}  {}",
        task.id,
        task.status.name(),
        task.priority,
        time(task.created),
        shown(&task.kind),
        shown(&task.name)
    )
}

fn task_json(task: &Task) -> Value {
    json!({
        "id": task.id, "name": task.name, "kind": task.kind, "status": task.status, "batch": task.batch,
        "priority": task.priority, "created_us": task.created, "updated_us": task.updated,
        "started_us": task.started, "ended_us": task.ended, "until_us": task.until,
        "wait_finished": task.wait_finished, "wait_success": task.wait_success,
        "successes": task.successes, "failures": task.failures, "expected": task.expected,
        "reason": task.reason, "attempts": task.attempts, "barrier": task.is_barrier,
        "timeout_us": u64::try_from(task.timeout.as_micros()).unwrap_or(u64::MAX),
    })
}

fn color_of(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Waiting => "#eeeeee",
        TaskStatus::Pending => "#fff2c9",
        TaskStatus::Claimed | TaskStatus::Running => "#cfe5ff",
        TaskStatus::Paused => "#e4d7f5",
        TaskStatus::Success => "#cdeccd",
        TaskStatus::Failure => "#f6c9c6",
        TaskStatus::Canceled => "#d9d2c9",
    }
}

fn blocked_text(blocked: &Blocked) -> String {
    match blocked {
        Blocked::Concurrency { count, max } => format!("{count} tasks match, of {max} that may"),
        Blocked::Capacity { remaining, max } => format!("{remaining} items are left, of {max} that may be"),
        Blocked::MissingField { field } => {
            format!("a rule goes by the field {}, which its metadata lack", shown(field))
        }
    }
}

impl Tasks {
    pub(crate) fn run(self, context: &Context) -> Done {
        match self {
            Self::Ls { at, status, kind, batch, name, limit } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, tasks) = (session.snapshot()?, tasks::Tasks::at(&at.place)?);
                let mut filter = TaskFilter::new().size(limit);
                if let Some(status) = status {
                    filter = filter.status(status.parse()?);
                }
                filter = kind.into_iter().fold(filter, TaskFilter::kind);
                filter = batch.into_iter().fold(filter, TaskFilter::batch);
                filter = name.into_iter().fold(filter, TaskFilter::name_contains);
                let mut left = limit;
                while left > 0 {
                    let page = tasks.list(&view, &filter.clone().size(left))?;
                    for task in &page.tasks {
                        context.output.line(|| task_line(task), || task_json(task))?;
                    }
                    left = left.saturating_sub(page.tasks.len());
                    let Some(next) = page.next else { break };
                    filter = filter.after(next);
                }
                Ok(0)
            }
            Self::Stat { at } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, tasks) = (session.snapshot()?, tasks::Tasks::at(&at.place)?);
                let line = |name: String, batch: Option<u64>, stats: &tasks::TaskStats| {
                    let statuses: Vec<String> = stats
                        .statuses
                        .iter()
                        .map(|(status, count)| format!("{} {}", number(*count), status.name()))
                        .collect();
                    let counts: BTreeMap<&str, u64> =
                        stats.statuses.iter().map(|(status, count)| (status.name(), *count)).collect();
                    let items = i64::try_from(stats.successes).unwrap_or(i64::MAX);
                    context.output.line(
                        || format!("{name:>16}  {}", statuses.join(", ")),
                        || json!({"batch": batch, "statuses": counts, "total": stats.total(), "successes": items}),
                    )
                };
                line("all".to_owned(), None, &tasks.stats(&view)?)?;
                for (batch, _) in tasks.batches(&view)? {
                    line(format!("batch {batch}"), Some(batch), &tasks.batch_stats(&view, batch)?)?;
                }
                Ok(0)
            }
            Self::Show { at, task } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, tasks) = (session.snapshot()?, tasks::Tasks::at(&at.place)?);
                show(context, &tasks, &view, task)
            }
            Self::Graph { at, batch, format } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, tasks) = (session.snapshot()?, tasks::Tasks::at(&at.place)?);
                let (all, links) = tasks.dag(&view, batch)?;
                let places: BTreeMap<TaskId, usize> =
                    all.iter().enumerate().map(|(place, task)| (task.id, place)).collect();
                let mut drawing = Drawing::default();
                drawing.nodes.extend(all.iter().map(|task| Node {
                    id: format!("{} {}", task.id, task.status.name()),
                    label: task.name.clone(),
                    color: color_of(task.status),
                }));
                for link in &links {
                    // Links to tasks of other batches have no place here.
                    if let (Some(from), Some(to)) = (places.get(&link.parent), places.get(&link.child)) {
                        drawing.edges.push((*from, *to, link.requires_success));
                    }
                }
                if format != Picture::Text {
                    return draw(context, &drawing, format);
                }
                for task in &all {
                    let after: Vec<TaskId> =
                        links.iter().filter(|link| link.child == task.id).map(|link| link.parent).collect();
                    context.output.line(
                        || format!("{}  after {after:?}", task_line(task)),
                        || json!({"task": task_json(task), "after": after}),
                    )?;
                }
                Ok(0)
            }
            Self::CriticalPath { at, batch } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, tasks) = (session.snapshot()?, tasks::Tasks::at(&at.place)?);
                let timeout = |task: &Task| u64::try_from(task.timeout.as_micros()).unwrap_or(u64::MAX);
                let path = tasks.critical_path(&view, batch, timeout)?;
                for node in &path.nodes {
                    let Part::Integer(id) = node else { continue };
                    let id = TaskId::try_from(*id).unwrap_or(0);
                    let Some(task) = tasks.get(&view, id)? else { continue };
                    context.output.line(|| task_line(&task), || task_json(&task))?;
                }
                context.output.line(
                    || format!("{} ms", number(path.length / 1_000)),
                    || json!({"length_us": path.length}),
                )?;
                Ok(0)
            }
            Self::WhyBlocked { at, task } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, tasks) = (session.snapshot()?, tasks::Tasks::at(&at.place)?);
                let why = tasks.why_not(&view, task, session.now())?;
                let (text, is_blocked) = match &why {
                    WhyNot::Waiting(links) => {
                        let parents: Vec<TaskId> = links.iter().map(|link| link.parent).collect();
                        (format!("it waits for {parents:?}"), true)
                    }
                    WhyNot::NotBefore(at) => (format!("it is not to be claimed before {}", time(*at)), true),
                    WhyNot::Blocked(blocked) => (blocked_text(blocked), true),
                    WhyNot::NotClaimed { before } => {
                        (format!("nothing: nobody has claimed it; {before} are claimed before it"), false)
                    }
                    WhyNot::Status(status) => {
                        let is_kept = status.is_terminal() || *status == TaskStatus::Paused;
                        (format!("it is {}", status.name()), is_kept)
                    }
                    other => (format!("{other:?}"), true),
                };
                context
                    .output
                    .line(|| text.clone(), || json!({"task": task, "why": text, "blocked": is_blocked}))?;
                Ok(u8::from(is_blocked))
            }
        }
    }
}

fn draw(context: &Context, drawing: &Drawing, format: Picture) -> Done {
    let picture = if format == Picture::Dot { drawing.dot() } else { drawing.svg() };
    context.output.line(|| picture.clone(), || json!({ "picture": picture }))?;
    Ok(0)
}

fn show(context: &Context, tasks: &tasks::Tasks, view: &ReadTxn, id: TaskId) -> Done {
    let task = tasks.get(view, id)?.ok_or(TasksError::NoSuchTask { task: id })?;
    let body = tasks.body(view, id)?;
    let links = |direction| -> Result<Vec<TaskId>, Failure> {
        let links = tasks.links(view, id, direction)?;
        let end = |link: &tasks::Link| if direction == Direction::Up { link.parent } else { link.child };
        Ok(links.iter().map(end).collect())
    };
    let (after, before) = (links(Direction::Up)?, links(Direction::Down)?);
    let attempts = tasks.attempts(view, id)?;
    let effects = tasks.outbox().of(view, id)?;
    context.output.line(
        || {
            let mut text = task_line(&task);
            let mut line = |name: &str, value: String| text.push_str(&format!("\n  {name:<10} {value}"));
            line("after", format!("{after:?}, waits for {} of them", task.wait_finished));
            line("before", format!("{before:?}"));
            line("items", format!("{} good, {} bad, of {:?}", task.successes, task.failures, task.expected));
            for (name, at) in [("started", task.started), ("ended", task.ended), ("until", task.until)] {
                if let Some(at) = at {
                    line(name, time(at));
                }
            }
            if let Some(reason) = &task.reason {
                line("reason", shown(reason));
            }
            for attempt in &attempts {
                line(
                    "attempt",
                    format!("{} {}  {}", attempt.number, time(attempt.ended), shown(&attempt.reason)),
                );
            }
            for effect in &effects {
                line(
                    "effect",
                    format!(
                        "{}  {} attempts  {:?}",
                        effect.state.name(),
                        effect.attempts,
                        effect.key.parts()
                    ),
                );
            }
            if !body.metadata.is_empty() {
                line("metadata", shown(&json!(body.metadata).to_string()));
            }
            if !body.rules.is_empty() {
                line("rules", shown(&json!(body.rules).to_string()));
            }
            text
        },
        || {
            let attempts: Vec<Value> = attempts
                .iter()
                .map(|one| json!({"number": one.number, "ended_us": one.ended, "reason": one.reason}))
                .collect();
            let effects: Vec<Value> = effects
                .iter()
                .map(|effect| json!({"state": effect.state.name(), "attempts": effect.attempts}))
                .collect();
            json!({
                "task": task_json(&task), "body": body, "after": after, "before": before,
                "attempts": attempts, "effects": effects,
            })
        },
    )?;
    Ok(0)
}

/// Which asset is meant.
#[derive(Args)]
pub(crate) struct Named {
    /// The name of the asset.
    asset: String,
    /// The partition, if it has one.
    #[arg(long)]
    partition: Option<String>,
    /// What the partition is.
    #[arg(long, default_value = "string", value_parser = ["string", "integer", "date"])]
    partition_type: String,
}

impl Named {
    fn asset(&self) -> Result<Asset, Failure> {
        let wrong = |text: &str| {
            Failure::Other(format!("{text:?} is not {} {}", "a partition of type", self.partition_type))
        };
        let partition = match (self.partition.as_deref(), self.partition_type.as_str()) {
            (None, _) => Part::Nil,
            (Some(text), "integer") => text.parse::<i64>().map_err(|_| wrong(text))?.into(),
            (Some(text), "date") => {
                let date: jiff::civil::Date = text.parse().map_err(|_| wrong(text))?;
                let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
                larder::format::Date::new(i32::from(date.year()), month, day).map_err(|_| wrong(text))?.into()
            }
            (Some(text), _) => text.into(),
        };
        Ok(Asset::of(self.asset.as_str(), partition)?)
    }
}

#[derive(Subcommand)]
pub(crate) enum Runs {
    /// List runs.
    Ls {
        #[command(flatten)]
        at: Place,
        /// How many of each state at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show what was made in a run, and what happened.
    Show {
        #[command(flatten)]
        at: Place,
        /// The run.
        run: String,
    },
    /// Show what an asset was made from, or what is made from it.
    Lineage {
        #[command(flatten)]
        at: Place,
        #[command(flatten)]
        named: Named,
        /// What is made from it.
        #[arg(long)]
        down: bool,
        /// How far to go.
        #[arg(long, default_value_t = 100)]
        depth: u32,
        /// As what.
        #[arg(long, value_enum, default_value = "text")]
        format: Picture,
    },
    /// Show what is made from an asset, and how the last making of each went.
    Impact {
        #[command(flatten)]
        at: Place,
        #[command(flatten)]
        named: Named,
        /// How far to go.
        #[arg(long, default_value_t = 100)]
        depth: u32,
    },
    /// List gates that wait.
    Gates {
        #[command(flatten)]
        at: Place,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// List the barriers of a run.
    Barriers {
        #[command(flatten)]
        at: Place,
        /// The run.
        run: String,
    },
    /// Show what is going on. Exit code 1: something is past its time.
    Health {
        #[command(flatten)]
        at: Place,
    },
}

fn made_color(state: Option<MadeState>) -> &'static str {
    match state {
        Some(MadeState::Success) => "#cdeccd",
        Some(MadeState::Failed) => "#f6c9c6",
        Some(MadeState::Running) => "#cfe5ff",
        Some(MadeState::WaitingApproval) => "#fff2c9",
        Some(MadeState::Skipped) => "#d9d2c9",
        None => "#eeeeee",
    }
}

impl Runs {
    pub(crate) fn run(self, context: &Context) -> Done {
        match self {
            Self::Ls { at, limit } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, runs) = (session.snapshot()?, runs::Runs::at(&at.place)?);
                for state in [RunState::Running, RunState::Paused, RunState::Succeeded, RunState::Failed] {
                    for run in runs.runs(&view, state, None, limit)?.0 {
                        context.output.line(
                            || format!("{:<10}  {}  {}", state.name(), time(run.started), shown(&run.name)),
                            || json!({"run": run.name, "state": state.name(), "started_us": run.started, "ended_us": run.ended}),
                        )?;
                    }
                }
                Ok(0)
            }
            Self::Show { at, run } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, runs) = (session.snapshot()?, runs::Runs::at(&at.place)?);
                for made in runs.made_in(&view, &run)? {
                    let reason = made.reason.clone().unwrap_or_default();
                    let took = made.ended.map(|ended| (ended - made.started) / 1_000);
                    context.output.line(
                        || {
                            let took = took.map_or("-".to_owned(), |took| format!("{took} ms"));
                            let name = shown(&made.asset.to_string());
                            format!("{:<20}  {}  {took:>10}  {name}  {}", made.state.name(), time(made.started), shown(&reason))
                        },
                        || json!({"asset": made.asset.to_string(), "state": made.state.name(), "started_us": made.started, "took_ms": took, "reason": made.reason, "from": made.from}),
                    )?;
                }
                let mut after = None;
                loop {
                    let (rows, next) = runs.audit(&view, Some(&run), after, 1_000)?;
                    for row in rows {
                        let asset = row.asset.as_ref().map(Asset::to_string).unwrap_or_default();
                        context.output.line(
                            || format!("  {}  {:<16}  {}  {}  {}", time(row.time), shown(&row.event), shown(&row.actor), shown(&asset), shown(&row.details)),
                            || json!({"event": row.event, "time_us": row.time, "actor": row.actor, "asset": asset, "details": row.details}),
                        )?;
                    }
                    if next.is_none() {
                        return Ok(0);
                    }
                    after = next;
                }
            }
            Self::Lineage { at, named, down, depth, format } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, runs) = (session.snapshot()?, runs::Runs::at(&at.place)?);
                let asset = named.asset()?;
                let made = match down {
                    true => runs.downstream(&view, &asset, depth)?,
                    false => runs.upstream(&view, &asset, depth)?,
                };
                if format == Picture::Text {
                    for made in made {
                        context.output.line(
                            || format!("{:>4}  {}", made.depth, shown(&made.asset.to_string())),
                            || json!({"asset": made.asset.to_string(), "depth": made.depth}),
                        )?;
                    }
                    return Ok(0);
                }
                let assets: Vec<Asset> =
                    std::iter::once(asset).chain(made.into_iter().map(|made| made.asset)).collect();
                let mut drawing = Drawing::default();
                for asset in &assets {
                    let state = runs.latest(&view, asset)?.map(|made| made.state);
                    drawing.nodes.push(Node {
                        id: state.map_or("not made", MadeState::name).to_owned(),
                        label: asset.to_string(),
                        color: made_color(state),
                    });
                    for (from, to) in runs.edges(&view, asset, Direction::Up)? {
                        let place = |asset: &Asset| assets.iter().position(|other| other == asset);
                        if let (Some(from), Some(to)) = (place(&from), place(&to)) {
                            drawing.edges.push((from, to, true));
                        }
                    }
                }
                draw(context, &drawing, format)
            }
            Self::Impact { at, named, depth } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, runs) = (session.snapshot()?, runs::Runs::at(&at.place)?);
                for impact in runs.impact(&view, &named.asset()?, depth)? {
                    let state = impact.state.map_or("not made", MadeState::name);
                    context.output.line(
                        || format!("{:>4}  {state:<20}  {}", impact.depth, shown(&impact.asset.to_string())),
                        || json!({"asset": impact.asset.to_string(), "depth": impact.depth, "state": state}),
                    )?;
                }
                Ok(0)
            }
            Self::Gates { at, limit } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, runs) = (session.snapshot()?, runs::Runs::at(&at.place)?);
                for gate in runs.gates(&view, GateState::Waiting, limit)? {
                    let until = gate.until.map_or("-".to_owned(), time);
                    // A token is as good as a key: it is not shown.
                    context.output.line(
                        || format!("{until}  {} retries  {}", gate.retries, shown(&gate.run)),
                        || json!({"run": gate.run, "until_us": gate.until, "retries": gate.retries}),
                    )?;
                }
                Ok(0)
            }
            Self::Barriers { at, run } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, runs) = (session.snapshot()?, runs::Runs::at(&at.place)?);
                for barrier in runs.barriers(&view, &run)? {
                    let name = barrier.asset.to_string();
                    context.output.line(
                        || {
                            format!(
                                "{:>10}  {:<16}  {} of {} done, {} failed  {}",
                                barrier.id,
                                barrier.state.name(),
                                number(barrier.completed),
                                number(barrier.total),
                                number(barrier.failed),
                                shown(&name)
                            )
                        },
                        || {
                            json!({
                                "barrier": barrier.id, "state": barrier.state.name(), "total": barrier.total,
                                "completed": barrier.completed, "failed": barrier.failed, "asset": name,
                                "closed": barrier.is_closed, "until_us": barrier.until,
                            })
                        },
                    )?;
                }
                Ok(0)
            }
            Self::Health { at } => {
                let (_larder, session) = context.look(&at.file)?;
                let (view, runs) = (session.snapshot()?, runs::Runs::at(&at.place)?);
                let health = runs.health(&view, session.now())?;
                context.output.line(
                    || {
                        format!(
                            "  going on  {} runs, {} materializations, {} gates\n  so far    {} made, {} failed\n  past time {} materializations, {} gates, {} barriers\n  due       {} schedules",
                            number(health.runs),
                            number(health.running),
                            number(health.gates),
                            number(health.made),
                            number(health.failed),
                            number(health.overdue),
                            number(health.overdue_gates),
                            number(health.overdue_barriers),
                            number(health.due_schedules)
                        )
                    },
                    || {
                        json!({
                            "runs": health.runs, "running": health.running, "made": health.made,
                            "failed": health.failed, "overdue": health.overdue, "gates": health.gates,
                            "overdue_gates": health.overdue_gates, "overdue_barriers": health.overdue_barriers,
                            "due_schedules": health.due_schedules, "well": health.is_well(),
                        })
                    },
                )?;
                Ok(u8::from(!health.is_well()))
            }
        }
    }
}
