//! `import`: files into assets.

use std::fs::Metadata;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use larder::{
    Annotation, AttributeValue, ContentHash, Draft, Durability, Key, Options, Prefix, Receipt, Record,
    Session, Status, Stored, WriteTxn,
};
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::Context;
use crate::output::{Done, Failure, number, shown, size};

/// The attribute that holds a file's modification time, to the nanosecond.
pub(crate) const MODIFIED: &str = "file.modified";
/// What Liquers puts behind a file's name for its metadata.
pub(crate) const SIDECAR: &str = ".__metadata__";

/// Files above this length are streamed in, each in a transaction of its own.
const STREAMED_LENGTH_MIN: u64 = 1 << 20;
/// How much goes into one transaction: files, and bytes.
const BATCH_FILES: usize = 512;
const BATCH_BYTES: u64 = 16 << 20;
/// How many files are read ahead.
const READ_AHEAD: usize = 256;

#[derive(Args)]
pub(crate) struct Import {
    /// The folder whose files are stored.
    folder: PathBuf,
    /// The store; made if it is not there.
    file: PathBuf,
    /// Where in the store they go; at the root if not said.
    #[arg(long, default_value = "")]
    at: String,
    /// Leave hidden files out.
    #[arg(long)]
    no_hidden: bool,
    /// Follow links instead of skipping them.
    #[arg(long)]
    follow: bool,
}

/// A file that was read ahead.
struct Read {
    key: Key,
    path: PathBuf,
    length: u64,
    modified: Option<i64>,
    payload: Option<Vec<u8>>,
    sidecar: Option<Vec<u8>>,
}

enum Step {
    File(Box<Read>),
    Skipped,
    Refused(String, String),
}

#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    new: u64,
    changed: u64,
    unchanged: u64,
    links: u64,
    refused: Vec<(String, String)>,
}

impl Import {
    pub(crate) fn run(self, context: &Context) -> Done {
        if !self.folder.is_dir() {
            return Err(Failure::Other(format!(
                "{}: expected a folder; there is none",
                self.folder.display()
            )));
        }
        let at = Prefix::parse(&self.at).map_err(larder::Error::from)?;
        let larder = Options::new().durability(Durability::Lazy).open(&self.file)?;
        let session = context.session(&larder)?;
        let began = Instant::now();
        let progress = progress(context);
        let mut tally = Tally::default();
        let (sender, receiver) = crossbeam_channel::bounded(READ_AHEAD);
        let (paths_in, paths) = crossbeam_channel::bounded::<(usize, PathBuf, Key)>(READ_AHEAD);
        let own = self.file.canonicalize().ok();
        std::thread::scope(|scope| -> Result<(), Failure> {
            for _ in 0..2 {
                let (paths, sender) = (paths.clone(), sender.clone());
                scope.spawn(move || {
                    for (order, path, key) in paths {
                        if sender.send((order, read(path, key))).is_err() {
                            return;
                        }
                    }
                });
            }
            let walk_sender = sender.clone();
            let import = &self;
            scope.spawn(move || import.walk(&at, own.as_deref(), &paths_in, &walk_sender));
            drop((sender, paths));
            // Readers finish out of order; keys go in in theirs, which is the cheapest way to write them.
            let mut early = std::collections::BTreeMap::new();
            let mut next = 0;
            let mut batch = Vec::new();
            for (order, step) in receiver {
                early.insert(order, step);
                while let Some(step) = early.remove(&next) {
                    next += 1;
                    take(&session, step, &mut batch, &mut tally)?;
                    progress.set_message(format!("{} files  {}", number(tally.files), size(tally.bytes)));
                }
            }
            flush(&session, &mut batch, &mut tally)
        })?;
        larder.flush()?;
        let live = larder.info()?.file_bytes;
        larder.close()?;
        progress.finish_and_clear();
        report(context, &tally, began.elapsed(), live)?;
        Ok(u8::from(!tally.refused.is_empty()))
    }

    fn walk(
        &self,
        at: &Prefix,
        own: Option<&Path>,
        paths: &crossbeam_channel::Sender<(usize, PathBuf, Key)>,
        steps: &crossbeam_channel::Sender<(usize, Step)>,
    ) {
        let walk = WalkDir::new(&self.folder).sort_by_file_name().follow_links(self.follow).min_depth(1);
        let is_wanted =
            |name: &std::ffi::OsStr| !(self.no_hidden && name.as_encoded_bytes().starts_with(b"."));
        let mut order = 0;
        for entry in walk.into_iter().filter_entry(|entry| is_wanted(entry.file_name())) {
            let step = match entry {
                Ok(entry) if entry.file_type().is_dir() => continue,
                Ok(entry) if entry.path_is_symlink() && !self.follow => Step::Skipped,
                Ok(entry) if is_sidecar(entry.path()) => continue,
                Ok(entry) if own.is_some_and(|own| is_of_store(own, entry.path())) => continue,
                Ok(entry) if entry.file_type().is_file() => match self.key_of(at, entry.path()) {
                    Ok(key) => {
                        if paths.send((order, entry.into_path(), key)).is_err() {
                            return;
                        }
                        order += 1;
                        continue;
                    }
                    Err(what) => Step::Refused(entry.path().display().to_string(), what),
                },
                Ok(entry) => Step::Refused(entry.path().display().to_string(), "not a file".to_owned()),
                Err(error) => Step::Refused(
                    error.path().map(|path| path.display().to_string()).unwrap_or_default(),
                    error.to_string(),
                ),
            };
            if steps.send((order, step)).is_err() {
                return;
            }
            order += 1;
        }
    }

    fn key_of(&self, at: &Prefix, path: &Path) -> Result<Key, String> {
        let below = path.strip_prefix(&self.folder).map_err(|error| error.to_string())?;
        let mut key: Option<Key> = at.as_key().cloned();
        for part in below.components() {
            let name = part.as_os_str().to_str().ok_or("the name is not UTF-8")?;
            let joined = match &key {
                Some(key) => key.join(name),
                None => Prefix::root().join(name),
            };
            key = Some(joined.map_err(|error| error.to_string())?);
        }
        key.ok_or_else(|| "the name is empty".to_owned())
    }
}

/// Tells whether a file is the store's own, or its log.
fn is_of_store(own: &Path, path: &Path) -> bool {
    let mut log = own.as_os_str().to_owned();
    log.push("-log");
    path.canonicalize().is_ok_and(|path| path == own || path.as_os_str() == log)
}

fn is_sidecar(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(SIDECAR).is_some_and(|stem| !stem.is_empty() && path.with_file_name(stem).is_file())
}

/// Reads a file, and its sidecar if there is one.
fn read(path: PathBuf, key: Key) -> Step {
    let look = || -> std::io::Result<Read> {
        let metadata = std::fs::metadata(&path)?;
        let length = metadata.len();
        let payload = (length <= STREAMED_LENGTH_MIN).then(|| std::fs::read(&path)).transpose()?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(SIDECAR);
        let sidecar = std::fs::read(path.with_file_name(name)).ok();
        Ok(Read { key, length, modified: modified(&metadata), payload, sidecar, path: path.clone() })
    };
    match look() {
        Ok(read) => Step::File(Box::new(read)),
        Err(error) => Step::Refused(path.display().to_string(), error.to_string()),
    }
}

fn modified(metadata: &Metadata) -> Option<i64> {
    let time = metadata.modified().ok()?;
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|nanos| -nanos),
    }
}

fn take(session: &Session, step: Step, batch: &mut Vec<Read>, tally: &mut Tally) -> Result<(), Failure> {
    match step {
        Step::Skipped => tally.links += 1,
        Step::Refused(path, what) => tally.refused.push((path, what)),
        Step::File(file) => {
            tally.files += 1;
            tally.bytes += file.length;
            if file.payload.is_none() {
                flush(session, batch, tally)?;
                stream(session, &file, tally)?;
            } else {
                batch.push(*file);
                let bytes: u64 = batch.iter().map(|file| file.length).sum();
                if batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
                    flush(session, batch, tally)?;
                }
            }
        }
    }
    Ok(())
}

/// Puts a batch in one commit; a file that is refused does not keep the others out.
fn flush(session: &Session, batch: &mut Vec<Read>, tally: &mut Tally) -> Result<(), Failure> {
    if batch.is_empty() {
        return Ok(());
    }
    let files = std::mem::take(batch);
    let Receipt { value: outcomes, .. } = session.write(|txn| {
        Ok(files.into_iter().map(|file| (file.path.clone(), put(txn, file))).collect::<Vec<_>>())
    })?;
    for (path, outcome) in outcomes {
        count(&path, outcome, tally)?;
    }
    Ok(())
}

fn put(txn: &mut WriteTxn<'_>, mut file: Read) -> larder::Result<Option<Stored>> {
    let payload = file.payload.take().unwrap_or_default();
    if let Ok(record) = txn.record(&file.key)
        && record.payload().hash() == Some(ContentHash::of(&payload))
        && is_described(&record, &file)
    {
        return Ok(None);
    }
    txn.put(&file.key, describe(Draft::from(payload), file.modified, file.sidecar.as_deref())).map(Some)
}

/// Tells whether a record has the time of a file, and what its sidecar says, if it has one.
fn is_described(record: &Record, file: &Read) -> bool {
    record.attributes().get(MODIFIED) == file.modified.map(AttributeValue::Timestamp).as_ref()
        && file.sidecar.as_deref().is_none_or(|sidecar| record.extra() == Some(sidecar))
}

/// Streams a large file in. One of the same length and time is taken to be the same, unread.
fn stream(session: &Session, file: &Read, tally: &mut Tally) -> Result<(), Failure> {
    let same = session
        .record(&file.key)
        .is_ok_and(|record| record.payload().length() == file.length && is_described(&record, file));
    let outcome = if same {
        Ok(None)
    } else {
        let draft = describe(Draft::file(&file.path), file.modified, file.sidecar.as_deref());
        session.put(&file.key, draft).map(|receipt| Some(receipt.value))
    };
    count(&file.path, outcome, tally)
}

fn count(path: &Path, outcome: larder::Result<Option<Stored>>, tally: &mut Tally) -> Result<(), Failure> {
    match outcome {
        Ok(None) => tally.unchanged += 1,
        Ok(Some(stored)) if stored.is_new() => tally.new += 1,
        Ok(Some(_)) => tally.changed += 1,
        // What concerns one file is its own; what concerns the store ends the import.
        Err(error) if matches!(error.code(), 100..600) => {
            tally.refused.push((path.display().to_string(), error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Adds what is known of a file: its modification time, and what its sidecar says.
fn describe(draft: Draft, modified: Option<i64>, sidecar: Option<&[u8]>) -> Draft {
    let mut draft = match modified {
        Some(nanos) => draft.attribute(MODIFIED, AttributeValue::Timestamp(nanos)),
        None => draft,
    };
    let Some(sidecar) = sidecar else { return draft };
    let fields: Value = serde_json::from_slice(sidecar).unwrap_or(Value::Null);
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(name) = text("data_format") {
        draft = draft.data_format(name);
    }
    if let Some(name) = text("media_type") {
        draft = draft.media_type(name);
    }
    if let Some(name) = text("type_identifier") {
        draft = draft.type_identifier(name);
    }
    draft.with(|mut metadata: Annotation| {
        if let Some(title) = text("title") {
            metadata = metadata.title(title);
        }
        if let Some(description) = text("description") {
            metadata = metadata.description(description);
        }
        if let Some(name) = text("type_name") {
            metadata = metadata.type_name(name);
        }
        if let Some(message) = text("message") {
            metadata = metadata.message(message);
        }
        if let Some(status) = text("status") {
            metadata = metadata.status(Status::from_name(status));
        }
        if let Some(volatile) = fields.get("is_volatile").and_then(Value::as_bool) {
            metadata = metadata.volatile(volatile);
        }
        metadata.extra(sidecar.to_vec())
    })
}

fn progress(context: &Context) -> ProgressBar {
    if context.output.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn report(context: &Context, tally: &Tally, took: Duration, file_bytes: u64) -> std::io::Result<()> {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = tally.bytes as f64 / f64::from(1 << 20) / seconds;
    context.output.line(
        || {
            let mut text = format!(
                "  {} files  {}  {rate:.0} MiB/s  done in {seconds:.1} s\n  {} new, {} changed, {} unchanged, {} refused, {} links skipped; the file has {}",
                number(tally.files),
                size(tally.bytes),
                number(tally.new),
                number(tally.changed),
                number(tally.unchanged),
                number(tally.refused.len() as u64),
                number(tally.links),
                size(file_bytes),
            );
            for (path, what) in &tally.refused {
                text.push_str(&shown(&format!("\n  refused  {path}: {what}")));
            }
            text
        },
        || {
            json!({
                "files": tally.files, "bytes": tally.bytes, "seconds": seconds, "new": tally.new,
                "changed": tally.changed, "unchanged": tally.unchanged, "links_skipped": tally.links,
                "file_bytes": file_bytes,
                "refused": tally.refused.iter().map(|(path, what)| json!({"path": path, "what": what})).collect::<Vec<_>>(),
            })
        },
    )
}
