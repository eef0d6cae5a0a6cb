//! The same work on larder and on what its users would pick instead: redb, SQLite, LMDB, fjall, cacache, plain files.
//!
//! Rounds are interleaved: every peer has its turn in each, so that a busy minute of the machine hits all alike. What is
//! printed are medians of rounds, and percentiles of single operations over all rounds. Every store is compared with
//! what was written to it, also after it was closed and opened again.
//!
//! ```text
//! cargo run --release -p larder-compare             # under 45 minutes; writes benches/compare/RESULTS.md
//! cargo run --release -p larder-compare -- --quick  # about two minutes; writes to target/compare
//! ```

#![allow(clippy::disallowed_methods, reason = "a measurement reads the machine's clock")]

mod peers;
mod queues;
mod report;
mod tasks;
mod work;

use std::path::{Path, PathBuf};

use work::Scale;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let value_of = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = match value_of("--out") {
        Some(out) => PathBuf::from(out),
        None if is_quick => here.join("../../target/compare"),
        None => here.to_owned(),
    };
    let folder = match value_of("--dir") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir_in(".")?,
    };
    let scale = if is_quick { Scale::QUICK } else { Scale::FULL };
    let only = value_of("--only");
    let mut results = Vec::new();
    for scenario in work::all() {
        if only.as_ref().is_some_and(|only| !scenario.name.contains(only.as_str())) {
            continue;
        }
        eprintln!("{}", scenario.name);
        let folder = folder.path().join(scenario.name.replace(' ', "-"));
        let rows = (scenario.run)(&folder, &scale)?;
        for row in &rows {
            eprintln!("{}", report::line(row));
        }
        results.push((scenario, rows));
        // What a scenario left must not weigh on the next.
        std::fs::remove_dir_all(&folder)?;
    }
    report::write(&out, is_quick, folder.path(), &results)?;
    eprintln!("written to {}", out.join("RESULTS.md").display());
    Ok(())
}
