//! Measurements of larder. `cargo bench -p larder-benches --bench targets` prints the figures of the README;
//! `--bench layers` measures tasks and graphs; `--bench operations` measures every operation on assets with criterion;
//! rows, claims, queues, caches and snapshots are in `--bench targets`.

use std::path::Path;

/// What is measured under a name, in a folder of its own.
pub type Run = (&'static str, fn(&Path));

/// Runs what is named by the arguments of the program, or everything.
///
/// # Errors
/// Whatever keeps a folder for temporary files from being made.
pub fn run_wanted(runs: &[Run]) -> std::io::Result<()> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for (name, run) in runs {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            let folder = tempfile::tempdir()?;
            println!("\n{name}");
            run(folder.path());
        }
    }
    Ok(())
}

/// Gives the sample in the middle.
pub fn median(samples: &mut [f64]) -> f64 {
    percentile(samples, 0.5)
}

/// Gives the sample that such a part of the samples do not exceed.
pub fn percentile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let place = (samples.len().saturating_sub(1) as f64 * part).round() as usize;
    samples.get(place).copied().unwrap_or(f64::NAN)
}
