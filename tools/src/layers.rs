//! What is built on the store: rows of collections, queues, caches.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use larder::format::{Date, Labelled, Time};
use larder::{ErrorKind, Key, Part, Row, RowRange, Tuple};
use larder_layers::queue::{self, MessageState, QueueError, Queues};
use larder_layers::remember::{self, Eviction, Namespace, RememberError};
use larder_layers::runs::RunsError;
use larder_layers::tasks::TasksError;
use serde_json::{Map, Value, json};

use crate::Context;
use crate::output::{Done, Failure, number, shown, size, time};

macro_rules! failures_of {
    ($($error:ident),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                match error {
                    $error::Store(error) => error.into(),
                    other => larder::Error::abort(other).into(),
                }
            }
        }
    )*};
}

failures_of!(QueueError, RememberError, RunsError, TasksError);

fn date(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

fn clock(time: Time) -> String {
    let (seconds, nanos) = (time.nanos_of_day() / 1_000_000_000, time.nanos_of_day() % 1_000_000_000);
    format!("{:02}:{:02}:{:02}.{nanos:09}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Says a part so that its type can be seen.
fn text(part: &Part) -> String {
    match part {
        Part::Nil => "nil".to_owned(),
        Part::Bool(value) => value.to_string(),
        Part::Integer(value) => value.to_string(),
        Part::Float(value) => format!("{value:?}"),
        Part::Symbol(name) => format!(":{}", shown(name)),
        Part::String(value) => format!("{value:?}"),
        Part::Bytes(bytes) => format!("x{}", hex(bytes)),
        Part::Date(value) => date(*value),
        Part::Time(value) => clock(*value),
        Part::LocalDateTime(value) => format!("{}T{}", date(value.date), clock(value.time)),
        Part::ZonedInstant(value) => {
            let micros =
                value.seconds().saturating_mul(1_000_000).saturating_add(i64::from(value.nanos() / 1_000));
            format!("{} {}", time(micros), shown(value.zone()))
        }
        Part::Uuid(bytes) => hex(bytes),
        Part::List(parts) => format!("[{}]", parts.iter().map(text).collect::<Vec<_>>().join(", ")),
        _ => "?".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_text(key: &Tuple) -> String {
    key.parts().iter().map(text).collect::<Vec<_>>().join(" ")
}

fn value_of(part: &Part) -> Value {
    match part {
        Part::Nil => Value::Null,
        Part::Bool(value) => json!(value),
        Part::Integer(value) => i64::try_from(*value)
            .map(Value::from)
            .or_else(|_| u64::try_from(*value).map(Value::from))
            .unwrap_or_default(),
        Part::Float(value) => json!(value),
        Part::String(value) => json!(value),
        Part::List(parts) => parts.iter().map(value_of).collect(),
        other => json!(text(other)),
    }
}

fn fields(fields: &Labelled) -> Value {
    Value::Object(
        fields.iter().map(|(name, value)| (name.into_owned(), value_of(&value))).collect::<Map<_, _>>(),
    )
}

#[derive(Args)]
pub(crate) struct Rows {
    /// The store.
    file: PathBuf,
    /// The key of the collection.
    key: String,
    /// In the order of this index.
    #[arg(long)]
    by: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

fn rows_of(
    file: &Path,
    key: &str,
    by: Option<&str>,
    limit: usize,
    context: &Context,
) -> Result<Vec<Row>, Failure> {
    let (_larder, session) = context.look(file)?;
    let view = session.snapshot()?;
    let collection = view.collection(key)?;
    let (mut rows, mut after): (Vec<Row>, _) = (Vec::new(), None);
    while rows.len() < limit {
        let range = after.take().map_or_else(RowRange::all, |cursor| RowRange::all().after(cursor));
        let range = range.limit((limit - rows.len()).min(1_000));
        let page = match by {
            Some(index) => collection.find(index, &range)?,
            None => collection.page(&range)?,
        };
        rows.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(rows)
}

impl Rows {
    pub(crate) fn run(self, context: &Context) -> Done {
        for row in rows_of(&self.file, &self.key, self.by.as_deref(), self.limit, context)? {
            context.output.line(
                || {
                    let fields: Vec<_> = row
                        .fields()
                        .iter()
                        .map(|(name, value)| format!("{}={}", shown(&name), text(&value)))
                        .collect();
                    format!(
                        "{}  {}  {}",
                        key_text(row.key()),
                        size(row.value().len() as u64),
                        fields.join(" ")
                    )
                },
                || {
                    json!({
                        "key": row.key().parts().iter().map(value_of).collect::<Value>(),
                        "fields": fields(row.fields()),
                        "bytes": row.value().len(),
                    })
                },
            )?;
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Counters {
    /// The store.
    file: PathBuf,
    /// The key of the collection.
    key: String,
    /// How many rows at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

impl Counters {
    pub(crate) fn run(self, context: &Context) -> Done {
        for row in rows_of(&self.file, &self.key, None, self.limit, context)? {
            for (name, value) in row.fields().iter() {
                let Part::Integer(_) = value else { continue };
                context.output.line(
                    || format!("{:>20}  {} {}", text(&value), key_text(row.key()), shown(&name)),
                    || {
                        let key: Value = row.key().parts().iter().map(value_of).collect();
                        json!({"key": key, "field": name, "value": value_of(&value)})
                    },
                )?;
            }
        }
        Ok(0)
    }
}

#[derive(Subcommand)]
pub(crate) enum Index {
    /// Show what a collection is indexed and counted by.
    Ls {
        /// The store.
        file: PathBuf,
        /// The key of the collection.
        key: String,
    },
    /// Compare every index and aggregate of a store with its rows. Exit code 1: they do not agree.
    Verify {
        /// The store.
        file: PathBuf,
    },
    /// Derive the indexes and aggregates of a collection anew.
    Rebuild {
        /// The store.
        file: PathBuf,
        /// The key of the collection.
        key: String,
    },
}

impl Index {
    pub(crate) fn run(self, context: &Context) -> Done {
        match self {
            Self::Ls { file, key } => {
                let (_larder, session) = context.look(&file)?;
                let view = session.snapshot()?;
                let collection = view.collection(key.as_str())?;
                for index in &collection.definition().indexes {
                    let fields: Vec<&str> = index.fields.iter().map(|(name, _)| name.as_str()).collect();
                    let kind = if index.is_unique { "unique" } else { "index" };
                    context.output.line(
                        || format!("{kind:<9} {}  by {}", shown(&index.name), shown(&fields.join(", "))),
                        || json!({"kind": "index", "name": index.name, "unique": index.is_unique, "fields": fields}),
                    )?;
                }
                for aggregate in &collection.definition().aggregates {
                    context.output.line(
                        || {
                            let sum = aggregate.sum.as_ref().map_or(String::new(), |sum| format!(", sum of {sum}"));
                            shown(&format!("aggregate {}  by {}{sum}", aggregate.name, aggregate.group.join(", ")))
                        },
                        || json!({"kind": "aggregate", "name": aggregate.name, "fields": aggregate.group, "sum": aggregate.sum}),
                    )?;
                }
                let total = collection.total()?;
                context.output.line(
                    || format!("{} rows, {}", number(total.count), size(u64::try_from(total.sum).unwrap_or(0))),
                    || json!({"kind": "total", "rows": total.count, "bytes": u64::try_from(total.sum).unwrap_or(0)}),
                )?;
                Ok(0)
            }
            Self::Verify { file } => {
                let (larder, _) = context.look(&file)?;
                let report = larder.verify(&mut |_| {})?;
                let findings: Vec<_> = report
                    .findings
                    .iter()
                    .map(|finding| format!("{}: {}", finding.place, finding.what))
                    .collect();
                context.output.line(
                    || {
                        let mut text =
                            format!("{} rows, {} entries", number(report.rows), number(report.entries));
                        findings.iter().for_each(|finding| text.push_str(&format!("\n  {}", shown(finding))));
                        text
                    },
                    || json!({"rows": report.rows, "entries": report.entries, "findings": findings}),
                )?;
                Ok(u8::from(!report.is_clean()))
            }
            Self::Rebuild { file, key } => {
                let (larder, session) = context.change(&file)?;
                let entries = session.write(|txn| txn.rebuild_collection(key.as_str()))?.value;
                context
                    .output
                    .line(|| format!("{} entries", number(entries)), || json!({"entries": entries}))?;
                larder.close()?;
                Ok(0)
            }
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Queue {
    /// List the queues at a place.
    Ls {
        /// The store.
        file: PathBuf,
        /// Where they lie.
        place: String,
    },
    /// Show how a queue is, and how it works.
    Stat {
        /// The store.
        file: PathBuf,
        /// The key of the queue.
        queue: String,
    },
    /// Show messages without taking them.
    Peek {
        /// The store.
        file: PathBuf,
        /// The key of the queue.
        queue: String,
        /// In which state: ready, delayed, in-flight or dead.
        #[arg(long, default_value = "ready", value_parser = ["ready", "delayed", "in-flight", "dead"])]
        state: String,
        /// How many at most.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Let dead letters be taken again.
    Redrive {
        /// The store.
        file: PathBuf,
        /// The key of the queue.
        queue: String,
        /// How many at most.
        #[arg(long, default_value_t = 10_000)]
        limit: usize,
    },
    /// Remove all messages, or the dead letters.
    Purge {
        /// The store.
        file: PathBuf,
        /// The key of the queue.
        queue: String,
        /// Only dead letters.
        #[arg(long)]
        dead: bool,
    },
}

/// Names a queue by its key.
fn queue_at(key: &str) -> Result<queue::Queue, Failure> {
    let (root, name) = key.rsplit_once('/').unwrap_or(("", key));
    Ok(Queues::at(root)?.queue(name)?)
}

fn state_of(name: &str) -> MessageState {
    match name {
        "delayed" => MessageState::Delayed,
        "in-flight" => MessageState::InFlight,
        "dead" => MessageState::Dead,
        _ => MessageState::Ready,
    }
}

impl Queue {
    pub(crate) fn run(self, context: &Context) -> Done {
        match self {
            Self::Ls { file, place } => {
                let (_larder, session) = context.look(&file)?;
                let view = session.snapshot()?;
                for queue in Queues::at(&place)?.list(&view)? {
                    let stats = queue.stats(&view)?;
                    context.output.line(
                        || {
                            format!(
                                "{:>10} ready  {:>8} delayed  {:>8} in flight  {:>8} dead  {}",
                                number(stats.ready),
                                number(stats.delayed),
                                number(stats.in_flight),
                                number(stats.dead),
                                queue.name()
                            )
                        },
                        || json!({"queue": queue.key().as_str(), "stats": stats}),
                    )?;
                }
                Ok(0)
            }
            Self::Stat { file, queue } => {
                let (_larder, session) = context.look(&file)?;
                let (view, queue) = (session.snapshot()?, queue_at(&queue)?);
                let (stats, settings) = (queue.stats(&view)?, queue.settings(&view)?);
                context.output.line(
                    || {
                        let oldest = stats.oldest.map_or("-".to_owned(), time);
                        format!(
                            "  now       {} ready, {} delayed, {} in flight, {} dead, {}\n  oldest    {oldest}\n  \
                             ever      {} enqueued, {} delivered, {} acknowledged, {} given back, {} expired, {} dead, {} purged\n  \
                             works     {:?} a delivery, {} attempts, {} messages, {}{}",
                            number(stats.ready),
                            number(stats.delayed),
                            number(stats.in_flight),
                            number(stats.dead),
                            size(stats.bytes),
                            number(stats.enqueued),
                            number(stats.dequeued),
                            number(stats.acked),
                            number(stats.nacked),
                            number(stats.expired),
                            number(stats.died),
                            number(stats.purged),
                            settings.visibility,
                            settings.attempts_max,
                            number(settings.messages_max),
                            size(settings.bytes_max),
                            if settings.is_paused { ", paused" } else { "" },
                        )
                    },
                    || json!({"queue": queue.key().as_str(), "stats": stats, "settings": settings}),
                )?;
                Ok(0)
            }
            Self::Peek { file, queue, state, limit } => {
                let (_larder, session) = context.look(&file)?;
                let view = session.snapshot()?;
                for message in queue_at(&queue)?.peek(&view, state_of(&state), limit)? {
                    let reason = message.reason.clone().unwrap_or_default();
                    context.output.line(
                        || {
                            format!(
                                "{:>12}  {:>10}  {}  priority {}  attempts {}  {}",
                                message.id,
                                size(message.payload().len() as u64),
                                time(message.enqueued),
                                message.priority,
                                message.attempts,
                                shown(&reason)
                            )
                        },
                        || {
                            json!({
                                "id": message.id, "bytes": message.payload().len(), "enqueued_us": message.enqueued,
                                "priority": message.priority, "attempts": message.attempts, "until_us": message.until,
                                "headers": message.headers, "reason": message.reason, "origin": message.origin,
                                "died_us": message.died,
                            })
                        },
                    )?;
                }
                Ok(0)
            }
            Self::Redrive { file, queue, limit } => {
                let queue = queue_at(&queue)?;
                let mut was_room = false;
                change_in_parts(context, &file, "redriven", limit, |txn, limit| {
                    match queue.redrive(txn, limit) {
                        // As many as there is room for.
                        Err(queue::QueueError::QueueFull { .. }) if was_room => Ok(0),
                        redriven => {
                            was_room = true;
                            redriven
                        }
                    }
                })
            }
            Self::Purge { file, queue, dead } => {
                let queue = queue_at(&queue)?;
                if !dead {
                    return change(context, &file, "purged", |txn| queue.purge(txn));
                }
                change_in_parts(context, &file, "purged", usize::MAX, |txn, limit| {
                    queue.purge_dead(txn, limit)
                })
            }
        }
    }
}

/// Changes something, and says how much.
fn change<E: From<larder::Error> + Into<Failure>>(
    context: &Context,
    file: &Path,
    what: &'static str,
    act: impl FnOnce(&mut larder::WriteTxn<'_>) -> Result<u64, E>,
) -> Done {
    let (larder, session) = context.change(file)?;
    let count = session.try_write(act).map_err(Into::into)?.value;
    context.output.line(|| format!("{} {what}", number(count)), || json!({ what: count }))?;
    larder.close()?;
    Ok(0)
}

/// How much is changed in one transaction.
const CHANGED_AT_ONCE: usize = 1_000;

/// Changes up to so much, in transactions of a good size, and says how much; also if one of them fails.
fn change_in_parts<E: From<larder::Error> + Into<Failure>>(
    context: &Context,
    file: &Path,
    what: &'static str,
    limit: usize,
    mut act: impl FnMut(&mut larder::WriteTxn<'_>, usize) -> Result<u64, E>,
) -> Done {
    let (larder, session) = context.change(file)?;
    let mut all = 0;
    let failure = loop {
        let left = usize::try_from(all).map_or(0, |all| limit.saturating_sub(all)).min(CHANGED_AT_ONCE);
        match session.try_write(|txn| if left == 0 { Ok(0) } else { act(txn, left) }) {
            Ok(receipt) if receipt.value > 0 => all += receipt.value,
            Err(error) if all == 0 => return Err(error.into()),
            ended => break ended.err(),
        }
    };
    context.output.line(|| format!("{} {what}", number(all)), || json!({ what: all }))?;
    larder.close()?;
    failure.map_or(Ok(0), |error| Err(error.into()))
}

#[derive(Subcommand)]
pub(crate) enum Cache {
    /// List the namespaces of a cache.
    Ls {
        /// The store.
        file: PathBuf,
        /// Where the cache lies.
        place: String,
    },
    /// Show the entries of a namespace, in the order in which they would be evicted.
    Explain {
        /// The store.
        file: PathBuf,
        /// The key of the namespace.
        namespace: String,
        /// By what; the namespace's own policy, if not said.
        #[arg(long, value_parser = ["recent", "frequent", "cost"])]
        by: Option<String>,
        /// Only what would go if a value of so many bytes were stored, by the limits of the namespace.
        #[arg(long, conflicts_with = "by")]
        incoming: Option<u64>,
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show how much is in a namespace.
    Stat {
        /// The store.
        file: PathBuf,
        /// The key of the namespace.
        namespace: String,
    },
    /// Forget values: all of a namespace, or those with a tag, or made from some part.
    Invalidate {
        /// The store.
        file: PathBuf,
        /// The key of the namespace.
        namespace: String,
        /// Only those with this tag.
        #[arg(long, conflicts_with_all = ["part", "prefix"])]
        tag: Option<String>,
        /// Only those one of whose parts is this text: NAME=TEXT.
        #[arg(long, value_parser = pair, conflicts_with = "prefix")]
        part: Option<(String, String)>,
        /// Only those one of whose parts is a text that begins so: NAME=TEXT.
        #[arg(long, value_parser = pair)]
        prefix: Option<(String, String)>,
    },
    /// Remove values that are past their time.
    Sweep {
        /// The store.
        file: PathBuf,
        /// The key of the namespace.
        namespace: String,
    },
}

/// Takes a name and a text apart.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=TEXT")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn namespace_at(key: &str) -> Result<Namespace, Failure> {
    let (root, name) = key.rsplit_once('/').unwrap_or(("", key));
    Ok(remember::Cache::at(root)?.namespace(name)?)
}

/// Refuses a namespace that is not there: whoever mistypes its name is told, and makes none.
fn must_be_there(key: &str, exists: impl FnOnce(&str) -> larder::Result<bool>) -> Result<(), RememberError> {
    if exists(&format!("{key}/entries"))? {
        return Ok(());
    }
    let key = Key::parse(key).map_err(larder::Error::from)?;
    Err(larder::Error::from(ErrorKind::NotFound).at(&key).into())
}

impl Cache {
    pub(crate) fn run(self, context: &Context) -> Done {
        match self {
            Self::Ls { file, place } => {
                let (_larder, session) = context.look(&file)?;
                let view = session.snapshot()?;
                for namespace in remember::Cache::at(&place)?.list(&view)? {
                    total(context, &namespace, &view)?;
                }
                Ok(0)
            }
            Self::Stat { file, namespace } => {
                let (_larder, session) = context.look(&file)?;
                let view = session.snapshot()?;
                let found = namespace_at(&namespace)?;
                must_be_there(&namespace, |entries| view.exists(entries))?;
                total(context, &found, &view)
            }
            Self::Explain { file, namespace, by, incoming, limit } => {
                let (_larder, session) = context.look(&file)?;
                let view = session.snapshot()?;
                let found = namespace_at(&namespace)?;
                must_be_there(&namespace, |entries| view.exists(entries))?;
                let limits = found.limits(&view)?;
                let eviction = match by.as_deref() {
                    Some("frequent") => Eviction::LeastFrequent,
                    Some("cost") => Eviction::LeastCost,
                    Some(_) => Eviction::LeastRecent,
                    None => limits.eviction,
                };
                let mut entries = match incoming {
                    Some(bytes) => found.would_evict(&view, &limits, bytes)?,
                    None => found.explain(&view, eviction, limit)?,
                };
                entries.truncate(limit);
                for entry in entries {
                    context.output.line(
                        || {
                            format!(
                                "{:>10}  {:>8} hits  {:>10} us  {}  {}",
                                size(entry.bytes),
                                entry.hits,
                                entry.cost_us,
                                time(entry.last_used),
                                key_text(&entry.parts)
                            )
                        },
                        || {
                            json!({
                                "key": entry.key.as_str(), "bytes": entry.bytes, "hits": entry.hits,
                                "cost_us": entry.cost_us, "last_used_us": entry.last_used,
                                "parts": entry.parts.parts().iter().map(value_of).collect::<Value>(),
                            })
                        },
                    )?;
                }
                Ok(0)
            }
            Self::Invalidate { file, namespace, tag, part, prefix } => {
                let found = namespace_at(&namespace)?;
                change(context, &file, "forgotten", |txn| {
                    must_be_there(&namespace, |entries| txn.exists(entries))?;
                    match (tag, part, prefix) {
                        (Some(tag), _, _) => found.invalidate_tag(txn, &tag),
                        (_, Some((name, text)), _) => found.invalidate_part(txn, &name, text.as_str()),
                        (_, _, Some((name, prefix))) => found.invalidate_prefix(txn, &name, &prefix),
                        _ => found.clear(txn),
                    }
                })
            }
            Self::Sweep { file, namespace } => {
                let found = namespace_at(&namespace)?;
                change_in_parts(context, &file, "forgotten", usize::MAX, |txn, limit| {
                    must_be_there(&namespace, |entries| txn.exists(entries))?;
                    found.sweep(txn, limit)
                })
            }
        }
    }
}

fn total(context: &Context, namespace: &Namespace, view: &larder::ReadTxn) -> Done {
    let total = namespace.total(view)?;
    let bytes = u64::try_from(total.sum).unwrap_or(0);
    context.output.line(
        || format!("{:>10} entries  {:>12}  {}", number(total.count), size(bytes), shown(namespace.name())),
        || json!({"namespace": namespace.name(), "entries": total.count, "bytes": bytes}),
    )?;
    Ok(0)
}
