//! Mending: `repair`, `salvage`, `compact`.

use std::path::{Path, PathBuf};

use clap::Args;
use larder::{Finding, Options};
use serde_json::json;

use crate::Context;
use crate::output::{Done, Output, number, shown, size};

#[derive(Args)]
pub(crate) struct Repair {
    /// The store. It is not changed, unless that is asked for.
    file: PathBuf,
    /// Where the repaired store goes, which is not there yet. Without it, only what is wrong is shown.
    to: Option<PathBuf>,
    /// Put the repaired store in the place of this one, if anything is wrong with it; this is kept as FILE.before-repair.
    #[arg(long, conflicts_with = "to")]
    in_place: bool,
}

fn tell(output: Output, findings: &[Finding], what: &str) -> std::io::Result<()> {
    findings.iter().try_for_each(|finding| {
        output.line(
            || format!("{}: {}\n  {}", shown(&finding.place), shown(&finding.what), finding.remedy),
            || json!({what: {"place": finding.place, "what": finding.what, "remedy": finding.remedy}}),
        )
    })
}

impl Repair {
    pub(crate) fn run(self, context: &Context) -> Done {
        let report = if let Some(to) = &self.to {
            larder::repair(&self.file, to)?
        } else {
            let found = larder::verify_file(&self.file, &mut |_| {})?;
            tell(context.output, &found.findings, "finding")?;
            let count = found.findings.len();
            context.output.line(
                || match count {
                    0 => "nothing to repair".to_owned(),
                    _ if self.in_place => format!("{count} findings; what can be repaired is repaired"),
                    _ => format!("{count} findings; to repair what can be: larder repair FILE NEW"),
                },
                || json!({"findings": count}),
            )?;
            if count == 0 || !self.in_place {
                return Ok(u8::from(count > 0));
            }
            larder::repair_in_place(&self.file)?
        };
        let to = self.to.as_deref().unwrap_or(&self.file);
        tell(context.output, &report.left_out, "left_out")?;
        tell(context.output, &report.verified.findings, "finding")?;
        let kept = report.kept.as_ref().map(|kept| kept.display().to_string());
        let unsettled = report.unsettled.as_ref().map(ToString::to_string);
        if let Some(unsettled) = &unsettled {
            let says = || format!("the new file has its place, and then this failed: {}", shown(unsettled));
            context.output.line(says, || json!({"unsettled": unsettled}))?;
        }
        let is_whole = report.left_out.is_empty() && report.verified.is_clean() && unsettled.is_none();
        context.output.line(
            || {
                format!(
                    "{}: {} rows, {} left out, {} findings{}",
                    shown(&to.display().to_string()),
                    number(report.rows),
                    report.left_out.len(),
                    report.verified.findings.len(),
                    kept.as_ref()
                        .map_or(String::new(), |kept| format!("; the file as it was is {}", shown(kept)))
                )
            },
            || {
                json!({
                    "rows": report.rows, "left_out": report.left_out.len(),
                    "findings": report.verified.findings.len(), "kept": kept,
                })
            },
        )?;
        Ok(u8::from(!is_whole))
    }
}

#[derive(Args)]
pub(crate) struct Salvage {
    /// What is left of a store. It is not changed.
    file: PathBuf,
    /// Where the new store goes, which is not there yet.
    to: PathBuf,
}

impl Salvage {
    pub(crate) fn run(self, context: &Context) -> Done {
        let report = larder::salvage(&self.file, &self.to)?;
        tell(context.output, &report.lost, "lost")?;
        tell(context.output, &report.verified.findings, "finding")?;
        context.output.line(
            || {
                format!(
                    "{}: {} assets up to commit {}, from {} rows on {} pages; {} were deleted, {} are lost",
                    shown(&self.to.display().to_string()),
                    number(report.assets),
                    number(report.last_commit),
                    number(report.rows),
                    number(report.pages),
                    number(report.deleted),
                    report.lost.len()
                )
            },
            || {
                json!({
                    "assets": report.assets, "rows": report.rows, "pages": report.pages, "deleted": report.deleted,
                    "last_commit": report.last_commit, "lost": report.lost.len(),
                })
            },
        )?;
        Ok(u8::from(!report.lost.is_empty() || !report.verified.is_clean()))
    }
}

pub(crate) fn compact(context: &Context, file: &Path) -> Done {
    let larder = Options::new().existing_only().open(file)?;
    let report = larder.compact(None)?;
    larder.close()?;
    context.output.line(
        || format!("{} before, {} after", size(report.before), size(report.after)),
        || json!({"before": report.before, "after": report.after}),
    )?;
    Ok(0)
}
