//! The life of assets: who is at work on them, when they expire, what they came from.

use std::path::PathBuf;

use clap::Args;
use larder::format::{ByteSize, Node, Retention};
use larder::{ErrorKind, Key, ReadTxn};
use serde_json::json;

use crate::Context;
use crate::look::key;
use crate::output::{Done, shown, time};

#[derive(Args)]
pub(crate) struct Claims {
    /// The store.
    file: PathBuf,
    /// Only at and below this place.
    #[arg(default_value = "")]
    place: String,
    /// Show those that were revoked, and whose holders have not been heard of since.
    #[arg(long)]
    orphans: bool,
}

impl Claims {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        let view = session.snapshot()?;
        if self.orphans {
            for orphan in view.orphans()? {
                context.output.line(
                    || {
                        let when = time(orphan.time);
                        let (fence, key, owner, by) = (orphan.fence, &orphan.key, &orphan.owner, &orphan.by);
                        shown(&format!("{fence:>8}  revoked {when} by {by}  {key}  {owner}"))
                    },
                    || {
                        json!({
                            "key": orphan.key.as_str(), "fence": orphan.fence, "owner": orphan.owner,
                            "by": orphan.by, "time_us": orphan.time,
                        })
                    },
                )?;
            }
            return Ok(0);
        }
        for claim in view.claims(self.place.as_str())? {
            context.output.line(
                || {
                    let group = claim.group.as_ref().map(|group| format!("  in {group}")).unwrap_or_default();
                    let (fence, key, owner) = (claim.fence, &claim.key, &claim.owner);
                    shown(&format!("{fence:>8}  until {}  {key}  {owner}{group}", time(claim.until)))
                },
                || {
                    json!({
                        "key": claim.key.as_str(), "fence": claim.fence, "owner": claim.owner,
                        "group": claim.group, "claimed_us": claim.claimed, "until_us": claim.until,
                    })
                },
            )?;
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Deadlines {
    /// The store.
    file: PathBuf,
    /// At most this many, earliest first.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

impl Deadlines {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (larder, _) = context.look(&self.file)?;
        for due in larder.due(i64::MAX, self.limit)? {
            context.output.line(
                || shown(&format!("{}  {:<6}  {}", time(due.at), due.purpose.name(), due.key)),
                || json!({"at_us": due.at, "purpose": due.purpose.name(), "key": due.key.as_str()}),
            )?;
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Sweep {
    /// The store.
    file: PathBuf,
    /// At most this many in one commit.
    #[arg(long, default_value_t = 1_000)]
    batch: usize,
}

impl Sweep {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (larder, _) = context.change(&self.file)?;
        let (mut expired, mut claims) = (0, 0);
        loop {
            let report = larder.sweep(self.batch.max(1))?;
            if report.total() == 0 {
                break;
            }
            expired += report.expired;
            claims += report.claims;
        }
        larder.close()?;
        context.output.line(
            || format!("  {expired} assets expired, {claims} claims revoked"),
            || json!({"expired": expired, "claims": claims}),
        )?;
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct History {
    /// The store.
    file: PathBuf,
    /// The key.
    key: String,
    /// Put back what it was in this generation.
    #[arg(long)]
    restore: Option<u64>,
}

impl History {
    pub(crate) fn run(self, context: &Context) -> Done {
        let key: Key = key(&self.key)?;
        if let Some(generation) = self.restore {
            let (larder, session) = context.change(&self.file)?;
            let stored = session.write(|txn| txn.restore(&key, generation))?.value;
            larder.close()?;
            context.output.line(
                || shown(&format!("  {key}  generation {} is what {generation} was", stored.generation)),
                || json!({"key": key.as_str(), "generation": stored.generation, "restored": generation}),
            )?;
            return Ok(0);
        }
        let (_larder, session) = context.look(&self.file)?;
        for former in session.snapshot()?.history(&key)? {
            let (record, until) = (former.record, former.until);
            let length = record.payload().length();
            context.output.line(
                || {
                    let (generation, status) = (record.generation(), record.status());
                    shown(&format!(
                        "{generation:>6}  until {}  {:>10}  {status}",
                        time(until),
                        ByteSize(length)
                    ))
                },
                || {
                    json!({
                        "generation": record.generation(), "until_us": until, "bytes": length,
                        "status": record.status().name(),
                        "content": record.payload().hash().map(|hash| hash.to_string()),
                    })
                },
            )?;
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Retain {
    /// The store.
    file: PathBuf,
    /// The rules, TOML: `[[retain]]` with `on`, and `max_age`, `max_count` or `max_bytes`.
    rules: PathBuf,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
}

impl Retain {
    pub(crate) fn run(self, context: &Context) -> Done {
        let text = std::fs::read_to_string(&self.rules)?;
        let rules = Retention::parse(&text).map_err(|error| {
            let what = error.to_string();
            larder::Error::from(ErrorKind::InvalidDocument { document: "retention".to_owned(), what })
        })?;
        let (larder, _) =
            if self.dry_run { context.look(&self.file)? } else { context.change(&self.file)? };
        let report = larder.retain(&rules, self.dry_run)?;
        for leaving in &report.leaving {
            context.output.line(
                || {
                    let (when, reason, rule) = (time(leaving.updated), leaving.reason, leaving.rule);
                    let bytes = ByteSize(leaving.bytes);
                    shown(&format!("  {bytes:>10}  {when}  {}  by {reason} (rule {rule})", leaving.key))
                },
                || {
                    json!({
                        "key": leaving.key.as_str(), "bytes": leaving.bytes, "updated_us": leaving.updated,
                        "reason": leaving.reason.name(), "rule": leaving.rule,
                    })
                },
            )?;
        }
        let count = report.leaving.len();
        let verb = if self.dry_run { "would go" } else { "went" };
        context.output.line(
            || format!("  {count} assets {verb}, {}; {} were left", ByteSize(report.bytes), report.kept),
            || json!({"count": count, "bytes": report.bytes, "kept": report.kept, "dry_run": self.dry_run}),
        )?;
        larder.close()?;
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Dependencies {
    /// The store.
    file: PathBuf,
    /// The key.
    key: String,
    /// Show what it was made from: what is shown if nothing is asked for.
    #[arg(long, conflicts_with = "down")]
    up: bool,
    /// Show what was made from it.
    #[arg(long)]
    down: bool,
    /// How far to go.
    #[arg(long, default_value_t = 16)]
    depth: usize,
}

impl Dependencies {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        let view = session.snapshot()?;
        let start = Node::Asset(key(&self.key)?);
        // In the order in which a tree is read; each once, however many ways lead there.
        let (mut open, mut seen) = (vec![(start, 0)], std::collections::BTreeSet::new());
        while let Some((node, depth)) = open.pop() {
            let is_new = !seen.contains(&node);
            context.output.line(
                || {
                    shown(&format!(
                        "{}{node}{}",
                        "  ".repeat(depth + 1),
                        if is_new { "" } else { "  (above)" }
                    ))
                },
                || json!({"depth": depth, "node": node.to_string(), "again": !is_new}),
            )?;
            if !is_new || depth >= self.depth {
                continue;
            }
            seen.insert(node.clone());
            let next =
                if self.down { made_from_it(&view, &node)? } else { what_it_was_made_from(&view, &node)? };
            open.extend(next.into_iter().rev().map(|node| (node, depth + 1)));
        }
        Ok(0)
    }
}

fn made_from_it(view: &ReadTxn, node: &Node) -> larder::Result<Vec<Node>> {
    Ok(view.dependents(node)?.into_iter().map(Node::Asset).collect())
}

fn what_it_was_made_from(view: &ReadTxn, node: &Node) -> larder::Result<Vec<Node>> {
    let Node::Asset(key) = node else { return Ok(Vec::new()) };
    match view.record(key) {
        Ok(record) => Ok(record.dependencies().into_iter().map(|dependency| dependency.on).collect()),
        // Gone, or not shown: what was made from it is there all the same.
        Err(error)
            if matches!(
                error.kind(),
                larder::ErrorKind::NotFound | larder::ErrorKind::AccessDenied { .. }
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[derive(Args)]
pub(crate) struct Why {
    /// The store.
    file: PathBuf,
    /// The key.
    key: String,
}

impl Why {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (_larder, session) = context.look(&self.file)?;
        let key: Key = key(&self.key)?;
        let why = session.why(&key)?;
        let is_served = why.miss.is_none();
        context.output.line(
            || {
                let served =
                    why.miss.as_ref().map_or("served".to_owned(), |miss| format!("not served: {miss}"));
                let mut text = format!("  {key}  {}  {served}", why.record.status());
                for (seen, found) in &why.made_from {
                    let state = match found {
                        None => "gone",
                        Some(found) if seen.matches(*found) => "as seen",
                        Some(_) => "changed",
                    };
                    text.push_str(&format!("\n  made from  {}  {:032x}  {state}", seen.on, seen.version));
                }
                for dependent in &why.dependents {
                    text.push_str(&format!("\n  made from it  {dependent}"));
                }
                if let Some(claim) = &why.claim {
                    let (owner, until) = (&claim.owner, time(claim.until));
                    text.push_str(&format!("\n  claimed by {owner} until {until}, fence {}", claim.fence));
                }
                shown(&text)
            },
            || {
                let made_from = |(seen, found): &(larder::format::Dependency, Option<u128>)| {
                    json!({
                        "on": seen.on.to_string(), "seen": format!("{:032x}", seen.version),
                        "found": found.map(|found| format!("{found:032x}")),
                    })
                };
                json!({
                    "key": key.as_str(), "status": why.record.status().name(), "served": is_served,
                    "miss": why.miss.as_ref().map(ToString::to_string),
                    "made_from": why.made_from.iter().map(made_from).collect::<Vec<_>>(),
                    "dependents": why.dependents.iter().map(Key::as_str).collect::<Vec<_>>(),
                    "claim": why.claim.as_ref().map(|claim| json!({
                        "owner": claim.owner, "fence": claim.fence, "until_us": claim.until,
                    })),
                })
            },
        )?;
        Ok(u8::from(!is_served))
    }
}
