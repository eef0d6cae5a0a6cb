//! `export`: assets into files, below one folder and nowhere else.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use larder::{AttributeValue, ErrorKind, Key, PayloadReader, Prefix, Record};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::Context;
use crate::import::{MODIFIED, SIDECAR};
use crate::output::{Done, Failure, number, shown, size};

#[derive(Args)]
pub(crate) struct Export {
    /// The store.
    file: PathBuf,
    /// The folder; made if it is not there.
    folder: PathBuf,
    /// What is exported: everything at and below this place.
    #[arg(default_value = "")]
    place: String,
    /// Write over files that are there.
    #[arg(long)]
    overwrite: bool,
    /// Write the metadata that came from a sidecar back to one.
    #[arg(long)]
    sidecars: bool,
}

impl Export {
    pub(crate) fn run(self, context: &Context) -> Done {
        let place = Prefix::parse(&self.place).map_err(larder::Error::from)?;
        let (_larder, session) = context.look(&self.file)?;
        std::fs::create_dir_all(&self.folder)?;
        let root = self.folder.canonicalize()?;
        let view = session.snapshot()?;
        let (mut files, mut bytes, mut without, mut refused) = (0u64, 0u64, 0u64, Vec::new());
        let mut checked = BTreeSet::new();
        for asset in view.walk(place)? {
            let (key, record) = asset?;
            let written = self.write(&root, &key, &record, &mut checked, || view.open(&key));
            match written {
                Ok(Some(length)) => {
                    files += 1;
                    bytes += length;
                }
                Ok(None) => without += 1,
                Err(Refusal::Item(what)) => refused.push((key.to_string(), what)),
                Err(Refusal::All(failure)) => return Err(failure),
            }
        }
        context.output.line(
            || {
                let mut text = format!(
                    "  {} files  {}; {} without payload, {} refused",
                    number(files),
                    size(bytes),
                    number(without),
                    number(refused.len() as u64)
                );
                for (key, what) in &refused {
                    text.push_str(&shown(&format!("\n  refused  {key}: {what}")));
                }
                text
            },
            || {
                let refused = refused.iter().map(|(key, what)| json!({"key": key, "what": what}));
                json!({"files": files, "bytes": bytes, "without_payload": without, "refused": refused.collect::<Vec<_>>()})
            },
        )?;
        Ok(u8::from(!refused.is_empty()))
    }

    /// Writes one asset; gives its length, or nothing if there is no payload to write.
    fn write(
        &self,
        root: &Path,
        key: &Key,
        record: &Record,
        checked: &mut BTreeSet<PathBuf>,
        open: impl FnOnce() -> larder::Result<PayloadReader>,
    ) -> Result<Option<u64>, Refusal> {
        let mut path = root.to_path_buf();
        let mut segments = key.segments().peekable();
        while let Some(segment) = segments.next() {
            check_segment(segment)?;
            path.push(segment);
            let is_directory = segments.peek().is_some() || record.is_directory();
            if is_directory && !checked.contains(&path) {
                make_directory(&path)?;
                checked.insert(path.clone());
            }
        }
        if record.is_directory() {
            return Ok(None);
        }
        if record.is_collection() {
            return Err(Refusal::Item(
                "it is a collection of rows, which files cannot hold: take a snapshot".to_owned(),
            ));
        }
        if !record.has_payload() {
            return Ok(None);
        }
        let mut reader = match open() {
            Ok(reader) => reader,
            Err(error)
                if matches!(error.kind(), ErrorKind::AccessDenied { .. } | ErrorKind::Corrupt { .. }) =>
            {
                return Err(Refusal::Item(error.to_string()));
            }
            Err(error) => return Err(Refusal::All(error.into())),
        };
        let mut file = self.begin(&path)?;
        io::copy(&mut reader, &mut file)?;
        if let Some(AttributeValue::Timestamp(nanos)) = record.attributes().get(MODIFIED) {
            let distance = Duration::from_nanos(nanos.unsigned_abs());
            let time = if *nanos >= 0 {
                SystemTime::UNIX_EPOCH.checked_add(distance)
            } else {
                SystemTime::UNIX_EPOCH.checked_sub(distance)
            };
            if let Some(time) = time {
                file.as_file().set_modified(time)?;
            }
        }
        self.publish(file, &path)?;
        if self.sidecars
            && let Some(extra) = record.extra()
        {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(SIDECAR);
            let path = path.with_file_name(name);
            let mut file = self.begin(&path)?;
            io::copy(&mut &*extra, &mut file)?;
            self.publish(file, &path)?;
        }
        Ok(Some(reader.len()))
    }

    /// Begins a file under another name: what has its own stays until it is whole.
    fn begin(&self, path: &Path) -> Result<NamedTempFile, Refusal> {
        let there = std::fs::symlink_metadata(path);
        match there {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(metadata) if !metadata.is_file() => {
                return Err(Refusal::Item("something that is not a file is there already".to_owned()));
            }
            Ok(_) if !self.overwrite => {
                return Err(Refusal::Item("a file is there already; --overwrite writes over it".to_owned()));
            }
            Ok(_) => {}
        }
        let mut begun = tempfile::Builder::new();
        begun.prefix(".larder-export-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            begun.permissions(std::fs::Permissions::from_mode(0o666));
        }
        Ok(begun.tempfile_in(path.parent().unwrap_or(Path::new(".")))?)
    }

    /// Gives it its name, in place of what has it if that was asked for; never of what a link with it leads to.
    fn publish(&self, file: NamedTempFile, path: &Path) -> Result<(), Refusal> {
        let published = if self.overwrite { file.persist(path) } else { file.persist_noclobber(path) };
        published.map(drop).map_err(|error| error.error.into())
    }
}

enum Refusal {
    Item(String),
    All(Failure),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                Self::All(Failure::Io(error))
            }
            _ => Self::Item(error.to_string()),
        }
    }
}

/// A key cannot have `.` or `..`; what else could lead elsewhere on some system is refused here.
fn check_segment(segment: &str) -> Result<(), Refusal> {
    let stem = segment.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT")));
    let what = if segment.contains(['/', '\\', '\0']) {
        "a name with a path separator cannot be a file's"
    } else if cfg!(windows) && (segment.contains([':', '<', '>', '"', '|', '?', '*']) || device) {
        "the name is not one of a file on this system"
    } else {
        return Ok(());
    };
    Err(Refusal::Item(format!("{segment:?}: {what}")))
}

/// Makes a directory; one that is there is good if it is one, and no link to one.
fn make_directory(path: &Path) -> Result<(), Refusal> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::symlink_metadata(path)?.is_dir() {
                return Ok(());
            }
            let what = "a file or a link is there, where a directory is needed";
            Err(Refusal::Item(format!("{}: {what}", path.display())))
        }
        Err(error) => Err(error.into()),
    }
}
