//! Keeping copies: `snapshot`, `restore`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use larder::{RestoreOptions, SnapshotFile, SnapshotInfo, SnapshotKind, SnapshotOptions};
use serde_json::{Value, json};

use crate::Context;
use crate::output::{Done, Failure, number, shown, size, time};

#[derive(Subcommand)]
pub(crate) enum Snapshot {
    /// Write a snapshot: all of a store, the assets below a place, or what changed since another snapshot.
    Create(Create),
    /// Show what the snapshots in a folder are of.
    List {
        /// The folder.
        folder: PathBuf,
    },
    /// Read snapshots to their ends and compare every digest. Exit code 2: one is damaged.
    Verify {
        /// The snapshots.
        #[arg(required = true)]
        snapshots: Vec<PathBuf>,
        /// How many threads decompress.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Show which assets are not the same in two snapshots. Exit code 1: there are some.
    Diff {
        /// The older one; a full snapshot, or one of a place.
        old: PathBuf,
        /// The newer one.
        new: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Create {
    /// The store. It is not changed; one that is open elsewhere is locked, and makes its snapshots there.
    file: PathBuf,
    /// The snapshot, which is not there yet.
    to: PathBuf,
    /// Only the assets at and below a place.
    #[arg(long, default_value = "")]
    below: String,
    /// Only what changed since this snapshot.
    #[arg(long)]
    since: Option<PathBuf>,
    /// How many threads compress.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The level of zstd, 1 to 19.
    #[arg(long, default_value_t = 1)]
    level: i32,
}

impl Snapshot {
    pub(crate) fn run(self, context: &Context) -> Done {
        match self {
            Self::Create(verb) => verb.run(context),
            Self::List { folder } => list(context, &folder),
            Self::Verify { snapshots, threads } => verify(context, &snapshots, threads),
            Self::Diff { old, new } => diff(context, &old, &new),
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Done {
        let (larder, _) = context.look(&self.file)?;
        let mut options =
            SnapshotOptions::new().threads(self.threads).level(self.level).below(self.below.as_str())?;
        if let Some(base) = &self.since {
            options = options.since(SnapshotFile::open(base)?.info().clone());
        }
        let report = larder.snapshot(&self.to, &options)?;
        context.output.line(
            || {
                format!(
                    "{}, {} rows, {} in {}",
                    described(&report.info),
                    number(report.rows),
                    size(report.content_bytes),
                    size(report.bytes)
                )
            },
            || with(info_json(&report.info), json!({"rows": report.rows, "bytes": report.bytes, "content_bytes": report.content_bytes})),
        )?;
        Ok(0)
    }
}

fn described(info: &SnapshotInfo) -> String {
    let commit = info.commit();
    let until = format!("commit {}, {}", number(commit.sequence), time(commit.time));
    match (info.kind(), info.base(), info.prefix()) {
        (SnapshotKind::Increment, Some(base), _) => {
            format!("since commit {} up to {until}", number(base.sequence))
        }
        (_, _, Some(prefix)) => format!("below {} at {until}", shown(prefix.as_str())),
        _ => format!("all at {until}"),
    }
}

fn info_json(info: &SnapshotInfo) -> Value {
    json!({
        "kind": info.kind().name(),
        "store_id": format!("{:032x}", info.store_id()),
        "made_us": info.made(),
        "commit": info.commit().sequence,
        "commit_us": info.commit().time,
        "state": info.state(),
        "base": info.base().map(|base| base.sequence),
        "below": info.prefix().map(|prefix| prefix.to_string()),
    })
}

fn with(mut object: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (object.as_object_mut(), more) {
        fields.extend(more);
    }
    object
}

fn list(context: &Context, folder: &Path) -> Done {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let Ok(snapshot) = SnapshotFile::open(&path) else { continue };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        context.output.line(
            || format!("{:>12}  {}  {}", size(bytes), shown(&name), described(snapshot.info())),
            || with(info_json(snapshot.info()), json!({"name": name, "bytes": bytes})),
        )?;
    }
    Ok(0)
}

fn verify(context: &Context, snapshots: &[PathBuf], threads: usize) -> Done {
    for path in snapshots {
        let contents = SnapshotFile::open(path)?.verify(threads, None)?;
        let name = path.display().to_string();
        context.output.line(
            || {
                format!(
                    "{}: whole; {}, {} records, {} rows, {}",
                    shown(&name),
                    described(&contents.info),
                    number(contents.records),
                    number(contents.rows),
                    size(contents.content_bytes)
                )
            },
            || {
                let more = json!({
                    "path": name, "whole": true, "records": contents.records, "rows": contents.rows,
                    "content_bytes": contents.content_bytes,
                });
                with(info_json(&contents.info), more)
            },
        )?;
    }
    Ok(0)
}

/// What tells two states of an asset apart: the commit that it came with, and the first half of its payload's digest.
type State = (u64, u128);

fn records(path: &Path) -> larder::Result<BTreeMap<String, State>> {
    let mut records = BTreeMap::new();
    SnapshotFile::open(path)?.records(&mut |key, record| {
        if let Some(record) = record {
            records.insert(key.to_string(), (record.commit(), record.version()));
        }
    })?;
    Ok(records)
}

fn diff(context: &Context, old: &Path, new: &Path) -> Done {
    if [old, new].into_iter().any(|path| {
        SnapshotFile::open(path).is_ok_and(|snapshot| snapshot.info().kind() == SnapshotKind::Increment)
    }) {
        return Err(Failure::Other(
            "an increment has only what changed: compare snapshots that stand alone".to_owned(),
        ));
    }
    let (old, mut new) = (records(old)?, records(new)?);
    let mut found = 0;
    let mut tell = |key: &str, what: &str, mark: char| {
        found += 1;
        context.output.line(|| format!("{mark} {}", shown(key)), || json!({"key": key, "what": what}))
    };
    for (key, was) in &old {
        match new.remove(key) {
            None => tell(key, "removed", '-')?,
            Some(is) if is.1 != was.1 => tell(key, "payload", '!')?,
            Some(is) if is.0 != was.0 => tell(key, "metadata", '~')?,
            Some(_) => {}
        }
    }
    for key in new.keys() {
        tell(key, "added", '+')?;
    }
    Ok(u8::from(found > 0))
}

#[derive(Args)]
pub(crate) struct Restore {
    /// A full snapshot, or one of a place; then its increments, in order; then the store, which is not there yet.
    #[arg(required = true, num_args = 2.., value_name = "SNAPSHOTS... FILE")]
    paths: Vec<PathBuf>,
    /// Take the place of a store that went on after the snapshot: commits and fences begin beyond all that it gave out.
    #[arg(long)]
    new_epoch: bool,
    /// How many threads decompress.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Restore {
    pub(crate) fn run(self, context: &Context) -> Done {
        let Some((to, snapshots)) = self.paths.split_last() else { return Ok(2) };
        let options = RestoreOptions::new().threads(self.threads);
        let options = if self.new_epoch { options.new_epoch() } else { options };
        let report = larder::restore(snapshots, to, &options)?;
        context.output.line(
            || {
                format!(
                    "{}: {}, {} rows; the last commit is {}",
                    shown(&to.display().to_string()),
                    described(&report.info),
                    number(report.rows),
                    number(report.last_commit.sequence)
                )
            },
            || {
                let more = json!({"rows": report.rows, "snapshots": report.snapshots, "last_commit": report.last_commit.sequence});
                with(info_json(&report.info), more)
            },
        )?;
        Ok(0)
    }
}
