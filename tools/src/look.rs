//! Looking: `ls`, `tree`, `stat`, `cat`, `find`, `info`, `verify`, `feed`, `audit`. Nothing here changes a file.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use larder::{AttributeValue, Entry, Key, NEVER, PayloadState, Prefix, Progress, Record, Session};
use serde_json::{Value, json};

use crate::Context;
use crate::output::{Done, Failure, Output, number, shown, size, time};

#[derive(Args)]
pub(crate) struct List {
    /// The store.
    file: PathBuf,
    /// The directory; the root if not said.
    #[arg(default_value = "")]
    place: String,
    /// Show sizes, times and formats.
    #[arg(short, long)]
    long: bool,
}

impl List {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        for entry in session.list(self.place.as_str())? {
            context.output.line(|| self.text(&entry), || entry_json(&entry))?;
        }
        Ok(0)
    }

    fn text(&self, entry: &Entry) -> String {
        let name = shown(entry.name()) + if entry.is_directory() { "/" } else { "" };
        match &entry.record {
            Some(record) if self.long && !record.is_directory() => format!(
                "{:>12}  {}  {:<10} {:<10} {name}",
                size(record.payload().length()),
                time(record.updated()),
                shown(&record.status().to_string()),
                shown(record.data_format())
            ),
            _ if self.long => format!("{:>12}  {:>23}  {:<10} {:<10} {name}", "-", "", "", ""),
            _ => name,
        }
    }
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "key": entry.key.as_str(),
        "name": entry.name(),
        "directory": entry.is_directory(),
        "asset": entry.record.as_ref().filter(|_| entry.is_asset()).map(record_json),
    })
}

#[derive(Args)]
pub(crate) struct Tree {
    /// The store.
    file: PathBuf,
    /// Where to begin; at the root if not said.
    #[arg(default_value = "")]
    place: String,
}

impl Tree {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        let place = Prefix::parse(&self.place).map_err(larder::Error::from)?;
        branch(&session, &place, "", context.output)?;
        Ok(0)
    }
}

/// Shows one level, and below each entry what is in it. As deep as keys can be, which is 64 levels.
fn branch(session: &Session, place: &Prefix, indent: &str, output: Output) -> Result<(), Failure> {
    let entries = session.list(place)?;
    let last = entries.len().saturating_sub(1);
    for (at, entry) in entries.iter().enumerate() {
        let (knot, line) = if at == last { ("└── ", "    ") } else { ("├── ", "│   ") };
        let slash = if entry.is_directory() { "/" } else { "" };
        output.line(|| format!("{indent}{knot}{}{slash}", shown(entry.name())), || entry_json(entry))?;
        if entry.has_children {
            branch(session, &Prefix::from(&entry.key), &format!("{indent}{line}"), output)?;
        }
    }
    Ok(())
}

#[derive(Args)]
pub(crate) struct Stat {
    /// The store.
    file: PathBuf,
    /// The key.
    key: String,
}

impl Stat {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        let view = session.snapshot()?;
        let record = view.record(self.key.as_str())?;
        let (log, progress) = (view.log(self.key.as_str())?, view.progress(self.key.as_str())?);
        context.output.line(
            || {
                let mut text = stat(&self.key, &record);
                if let Some(Progress { time: at, done, total, message, .. }) = &progress {
                    text.push_str(&format!("\n  progress    {done} of {total}  {message}  {}", time(*at)));
                }
                for entry in &log {
                    let (at, kind, message) = (time(entry.time), entry.kind.name(), &entry.message);
                    text.push_str(&format!("\n  {at} {kind}: {message}"));
                }
                shown(&text)
            },
            || {
                let mut value = record_json(&record);
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("key".to_owned(), json!(self.key));
                    if let Some(Progress { time, done, total, message, .. }) = &progress {
                        let progress = json!({"time_us": time, "done": done, "total": total, "message": message});
                        fields.insert("progress".to_owned(), progress);
                    }
                    let entry = |entry: &larder::format::LogEntry| {
                        json!({"time_us": entry.time, "kind": entry.kind.name(), "message": entry.message})
                    };
                    fields.insert("worklog".to_owned(), log.iter().map(entry).collect());
                }
                value
            },
        )?;
        Ok(0)
    }
}

fn stat(key: &str, record: &Record) -> String {
    let mut lines = vec![
        format!("  {key}"),
        format!("  status      {}, generation {}", record.status(), record.generation()),
        format!(
            "  format      {}  ({}, {})",
            record.data_format(),
            record.media_type(),
            record.type_identifier()
        ),
        format!("  created     {}", time(record.created())),
        format!("  updated     {}, commit {}", time(record.updated()), record.commit()),
    ];
    lines.push(match record.payload() {
        PayloadState::Absent(reason) => format!("  payload     none: {reason}"),
        state => format!("  payload     {} ({} bytes)", size(state.length()), number(state.length())),
    });
    lines.extend(record.payload().hash().map(|hash| format!("  blake3      {hash}")));
    if record.expires() != NEVER {
        lines.push(format!("  expires     {}", time(record.expires())));
    }
    let tags: Vec<&str> = record.tags().collect();
    if !tags.is_empty() {
        lines.push(format!("  tags        {}", tags.join(", ")));
    }
    for (name, value) in &record.attributes().0 {
        lines.push(format!("  {name} = {}", attribute_json(value)));
    }
    for entry in record.log() {
        lines.push(format!("  {} {}: {}", time(entry.time), entry.kind.name(), entry.message));
    }
    lines.join("\n")
}

/// What a record says, for programs.
pub(crate) fn record_json(record: &Record) -> Value {
    let attributes = record.attributes();
    let attributes: serde_json::Map<String, Value> =
        attributes.0.iter().map(|(name, value)| (name.clone(), attribute_json(value))).collect();
    let absent = match record.payload() {
        PayloadState::Absent(reason) => Some(reason.name()),
        _ => None,
    };
    json!({
        "status": record.status().name(),
        "generation": record.generation(),
        "data_format": record.data_format(),
        "media_type": record.media_type(),
        "type_identifier": record.type_identifier(),
        "created_us": record.created(),
        "updated_us": record.updated(),
        "commit": record.commit(),
        "bytes": record.payload().length(),
        "blake3": record.payload().hash().map(|hash| hash.to_string()),
        "absent": absent,
        "tags": record.tags().collect::<Vec<_>>(),
        "attributes": attributes,
        "log": record.log().iter().map(|entry| json!({"kind": entry.kind.name(), "time_us": entry.time, "message": entry.message})).collect::<Vec<_>>(),
    })
}

fn attribute_json(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::Bool(value) => json!(value),
        AttributeValue::Integer(value) => json!(value),
        AttributeValue::Float(value) => json!(value),
        AttributeValue::Text(value) => json!(value),
        AttributeValue::Bytes(value) => json!(value),
        AttributeValue::Timestamp(nanos) => json!({"unix_ns": nanos}),
        other => json!(format!("{other:?}")),
    }
}

#[derive(Args)]
pub(crate) struct Cat {
    /// The store.
    file: PathBuf,
    /// The key.
    key: String,
}

impl Cat {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        let mut reader = session.open(self.key.as_str())?;
        io::copy(&mut reader, &mut io::stdout().lock())?;
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Find {
    /// The store.
    file: PathBuf,
    /// The tag.
    #[arg(long)]
    tag: String,
}

impl Find {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        for (key, record) in session.find_by_tag(&self.tag)? {
            context.output.line(
                || shown(key.as_str()),
                || json!({"key": key.as_str(), "asset": record_json(&record)}),
            )?;
        }
        Ok(0)
    }
}

pub(crate) fn info(context: &Context, file: &Path) -> Done {
    let (larder, _) = context.look(file)?;
    let info = larder.info()?;
    let statistics = &info.statistics;
    let length = std::fs::metadata(file)?.len();
    context.output.line(
        || {
            let mut formats: Vec<_> = statistics.by_format.iter().collect();
            formats.sort_by_key(|(_, count)| std::cmp::Reverse(count.bytes));
            let mut shares: Vec<String> = formats
                .iter()
                .take(5)
                .map(|(name, count)| format!("{name} {} ({})", number(count.assets), size(count.bytes)))
                .collect();
            if formats.len() > 5 {
                shares.push(format!("{} more formats", formats.len() - 5));
            }
            let in_log = larder.recovery().map_or(0, |report| report.replayed);
            let unclean = match in_log {
                0 => String::new(),
                _ => format!("\n  not closed: {} of the commits are in its log only; larder recover brings it to rest", number(in_log)),
            };
            format!(
                "  {}   {}   format {}   last commit {}, {}\n  assets   {}  {}      {}\n  rules    {}, default {}      limits {}{unclean}",
                shown(&file.display().to_string()),
                size(length),
                info.format,
                number(info.last_commit.sequence),
                time(info.last_commit.time),
                number(statistics.total.assets),
                size(statistics.total.bytes),
                shown(&shares.join("   ")),
                info.rules,
                info.rules_default,
                info.limits,
            )
        },
        || {
            let counts = |counts: &std::collections::BTreeMap<String, larder::Count>| -> Value {
                counts
                    .iter()
                    .map(|(name, count)| (name.clone(), json!({"assets": count.assets, "bytes": count.bytes})))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            };
            json!({
                "file": file.display().to_string(), "file_bytes": length, "format": info.format,
                "store_id": format!("{:032x}", info.store_id), "created_us": info.created,
                "last_commit": info.last_commit.sequence, "last_commit_us": info.last_commit.time,
                "state": info.state, "assets": statistics.total.assets, "bytes": statistics.total.bytes,
                "by_format": counts(&statistics.by_format), "by_status": counts(&statistics.by_status),
                "rules": info.rules, "rules_version": info.rules_version, "rules_default": info.rules_default,
                "limits": info.limits,
                "in_log": larder.recovery().map_or(0, |report| report.replayed),
            })
        },
    )?;
    Ok(0)
}

pub(crate) fn verify(context: &Context, file: &Path) -> Done {
    let report = larder::verify_file(file, &mut |_| {})?;
    context.output.line(
        || {
            let found = if report.is_clean() {
                "nothing found".to_owned()
            } else {
                format!("{} findings", number(report.findings.len() as u64 + report.findings_left_out))
            };
            let mut text = format!(
                "  {} records, {} payloads, {} chunks, {} tags, {} edges, {} deadlines, {} claims, {} former, {} log entries, {} commits: {found}",
                number(report.records),
                number(report.payloads),
                number(report.chunks),
                number(report.tags),
                number(report.edges),
                number(report.deadlines),
                number(report.claims),
                number(report.formers),
                number(report.logs),
                number(report.commits),
            );
            for finding in &report.findings {
                text.push_str(&shown(&format!("\n  {}: {} ({})", finding.place, finding.what, finding.remedy)));
            }
            for warning in &report.warnings {
                text.push_str(&shown(&format!("\n  warning  {}: {}", warning.place, warning.what)));
            }
            text
        },
        || {
            let list = |findings: &[larder::Finding]| -> Vec<Value> {
                let one = |finding: &larder::Finding| json!({"place": finding.place, "what": finding.what, "remedy": finding.remedy});
                findings.iter().map(one).collect()
            };
            json!({
                "records": report.records, "payloads": report.payloads, "chunks": report.chunks,
                "tags": report.tags, "edges": report.edges, "deadlines": report.deadlines, "claims": report.claims,
                "formers": report.formers, "logs": report.logs,
                "commits": report.commits, "findings": list(&report.findings),
                "findings_left_out": report.findings_left_out, "warnings": list(&report.warnings),
            })
        },
    )?;
    Ok(u8::from(!report.is_clean()))
}

#[derive(Args)]
pub(crate) struct Feed {
    /// The store.
    file: PathBuf,
    /// Only what came after this commit, or from this entry of the audit on.
    #[arg(long, default_value_t = 0)]
    since: u64,
    /// At most about this many.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

impl Feed {
    pub(crate) fn feed(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        for event in session.feed_since(self.since, self.limit)? {
            context.output.line(
                || {
                    let from = event.from.as_ref().map(|from| format!("  from {from}")).unwrap_or_default();
                    shown(&format!(
                        "{:>8}  {}  {:<16} {}{from}  {}",
                        event.commit.sequence,
                        time(event.time),
                        event.kind.name(),
                        event.place,
                        event.principal
                    ))
                },
                || {
                    json!({
                        "commit": event.commit.sequence, "time_us": event.time, "kind": event.kind.name(),
                        "place": event.place, "from": event.from, "old_generation": event.old_generation,
                        "new_generation": event.new_generation, "bytes": event.bytes, "principal": event.principal,
                    })
                },
            )?;
        }
        Ok(0)
    }

    pub(crate) fn audit(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        for (at, entry) in session.audit(self.since, self.limit)? {
            let answer = if entry.allowed { "allowed" } else { "denied" };
            context.output.line(
                || {
                    shown(&format!(
                        "{at:>8}  {}  {answer:<8} {:<8} {}  {}  by {}",
                        time(entry.time),
                        entry.right,
                        entry.place,
                        entry.principal,
                        entry.by
                    ))
                },
                || {
                    json!({
                        "entry": at, "time_us": entry.time, "allowed": entry.allowed, "right": entry.right,
                        "place": entry.place, "principal": entry.principal, "by": entry.by,
                        "dropped_before": entry.dropped_before,
                    })
                },
            )?;
        }
        Ok(0)
    }
}

/// Parses a key that was typed in.
pub(crate) fn key(text: &str) -> Result<Key, Failure> {
    Ok(Key::parse(text).map_err(larder::Error::from)?)
}
