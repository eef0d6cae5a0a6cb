//! Bringing to rest what was not closed, and up to date what is old: `recover`, `upgrade`.

use std::path::{Path, PathBuf};

use clap::Args;
use larder::Options;
use serde_json::json;

use crate::Context;
use crate::output::{Done, number, shown, time};

#[derive(Args)]
pub(crate) struct Recover {
    /// The store.
    file: PathBuf,
    /// Go on without a commit log that is missing, damaged, or not that of the file: what can be read of it in order is
    /// kept, and it is set aside under another name. Commits may be lost.
    #[arg(long)]
    discard_log: bool,
}

impl Recover {
    pub(crate) fn run(&self, context: &Context) -> Done {
        let options = Options::new().existing_only();
        let larder = if self.discard_log { options.discard_log() } else { options }.open(&self.file)?;
        let report = larder.recovery().cloned();
        larder.close()?;
        context.output.line(
            || match &report {
                None => "nothing to recover: the file was closed cleanly".to_owned(),
                Some(report) => {
                    let mut text = format!(
                        "{} commits taken from the log; the last is {}, {}",
                        number(report.replayed),
                        number(report.last_commit.sequence),
                        time(report.last_commit.time)
                    );
                    if let Some(place) = &report.discarded {
                        text.push_str(&format!("\nthe log was set aside: {}", shown(place)));
                    }
                    text
                }
            },
            || match &report {
                None => json!({"recovered": false}),
                Some(report) => json!({
                    "recovered": true, "replayed": report.replayed, "found": report.found.sequence,
                    "last_commit": report.last_commit.sequence, "last_commit_us": report.last_commit.time,
                    "torn_bytes": report.torn_bytes, "discarded": report.discarded,
                }),
            },
        )?;
        Ok(0)
    }
}

pub(crate) fn upgrade(context: &Context, file: &Path) -> Done {
    let larder = Options::new().existing_only().upgrade().open(file)?;
    let (report, format) = (larder.upgraded().cloned(), larder.info()?.format);
    larder.close()?;
    let backup =
        report.as_ref().and_then(|report| report.backup.as_ref()).map(|path| path.display().to_string());
    context.output.line(
        || match (&report, &backup) {
            (None, _) => format!("nothing to do: the file has format {format}"),
            (Some(report), backup) => format!(
                "from format {} to {}; as it was it is kept in {}",
                report.from,
                report.to,
                shown(backup.as_deref().unwrap_or("no file"))
            ),
        },
        || json!({"upgraded": report.is_some(), "format": format, "from": report.as_ref().map(|report| report.from), "backup": backup}),
    )?;
    Ok(0)
}
