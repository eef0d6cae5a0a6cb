//! The report: a table for each scenario, charts beside it, and the rows that larder loses.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::peers::all as all_peers;
use crate::work::{Line, Scenario};

const OURS: &str = "larder";

/// A line of figures, for a terminal.
pub fn line(line: &Line) -> String {
    let figures: Vec<String> =
        line.figures.iter().map(|(name, figure)| format!("{name} {}", number(*figure))).collect();
    format!("  {} ({}): {}", line.what, line.unit, figures.join("   "))
}

fn number(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 1.0 => format!("{figure:.1}"),
        figure => format!("{figure:.3}"),
    }
}

/// How many times better larder is.
fn advantage(line: &Line, figure: f64) -> Option<f64> {
    let (_, ours) = line.figures.iter().find(|(name, _)| *name == OURS)?;
    Some(if line.more_is_better { ours / figure } else { figure / ours })
}

/// Writes the report and its charts.
pub fn write(out: &Path, is_quick: bool, folder: &Path, results: &[(Scenario, Vec<Line>)]) -> io::Result<()> {
    fs::create_dir_all(out.join("charts"))?;
    let mut text = String::from("# larder and its peers\n\n");
    let mode = if is_quick { "a quick run: too short for its figures to be quoted" } else { "the full run" };
    let _ = writeln!(
        text,
        "Printed by `cargo run --release -p larder-compare{}`; {mode}. Under each figure: how many times larder's it is, \
         above 1 where larder is better.\n\n{}\n",
        if is_quick { " -- --quick" } else { "" },
        machine(folder)
    );
    text.push_str("| peer | version | configured |\n|---|---|---|\n");
    for kind in all_peers() {
        let _ = writeln!(text, "| {} | {} | {} |", kind.name, kind.version, kind.configuration);
    }
    let mut lost = Vec::new();
    for (scenario, lines) in results {
        let file = format!("charts/{}.svg", scenario.name.replace([' ', ','], "-"));
        let _ =
            write!(text, "\n## {}\n\n{}\n\n![{}]({file})\n\n", scenario.name, scenario.about, scenario.name);
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in lines.iter().flat_map(|line| &line.figures) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let _ = writeln!(text, "| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
        for line in lines {
            let cells: Vec<String> = names
                .iter()
                .map(|name| match line.figures.iter().find(|(found, _)| found == name) {
                    None => "not offered".to_owned(),
                    Some((_, figure)) if *name == OURS => number(*figure),
                    Some((_, figure)) => {
                        let advantage = advantage(line, *figure).unwrap_or(f64::NAN);
                        if advantage < 1.0 {
                            lost.push(format!(
                                "{}, {}: {} {} {}, larder {}",
                                scenario.name,
                                line.what,
                                name,
                                number(*figure),
                                line.unit,
                                number(line.figures.first().map_or(f64::NAN, |(_, ours)| *ours))
                            ));
                        }
                        format!("{} ({}x)", number(*figure), number(advantage))
                    }
                })
                .collect();
            let _ = writeln!(text, "| {}, {} | {} |", line.what, line.unit, cells.join(" | "));
        }
        fs::write(out.join(file), chart(scenario.name, lines))?;
    }
    text.push_str("\n## Rows that larder loses\n\n");
    if lost.is_empty() {
        text.push_str("None in this run.\n");
    }
    for row in lost {
        let _ = writeln!(text, "- {row}");
    }
    fs::write(out.join("RESULTS.md"), text)
}

/// What the machine says of itself.
fn machine(folder: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let (cpu, memory, kernel) =
        (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/proc/sys/kernel/osrelease"));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mounts = read("/proc/mounts");
    let folder = folder.canonicalize().unwrap_or_default();
    let file_system = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mount, _)| folder.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map_or("unknown", |(_, file_system)| file_system);
    format!(
        "Machine: {cores} cores ({}), {} of memory, Linux {}, {file_system}.",
        field(&cpu, "model name"),
        field(&memory, "MemTotal"),
        kernel.trim()
    )
}

/// Bars for every line: the length is the figure's part of the line's greatest.
fn chart(title: &str, lines: &[Line]) -> String {
    const BAR: usize = 18;
    const WIDTH: f64 = 420.0;
    let mut body = String::new();
    let mut y = 40;
    for line in lines {
        let better = if line.more_is_better { "more is better" } else { "less is better" };
        let _ = writeln!(
            body,
            "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{}, {} ({better})</text>",
            y + 12,
            line.what,
            line.unit
        );
        y += 20;
        let most = line.figures.iter().map(|(_, figure)| *figure).fold(f64::MIN_POSITIVE, f64::max);
        for (name, figure) in &line.figures {
            let (length, color) =
                ((figure / most * WIDTH).max(1.0), if *name == OURS { "#b5541c" } else { "#8a9aa8" });
            let _ = writeln!(
                body,
                "<text x=\"10\" y=\"{}\">{name}</text><rect x=\"140\" y=\"{y}\" width=\"{length:.0}\" height=\"14\" fill=\"{color}\"/><text x=\"{:.0}\" y=\"{}\">{}</text>",
                y + 12,
                146.0 + length,
                y + 12,
                number(*figure)
            );
            y += BAR;
        }
        y += 10;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"660\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"660\" height=\"{y}\" fill=\"white\"/>\n<text x=\"10\" y=\"22\" font-size=\"16\">{title}</text>\n{body}</svg>\n"
    )
}
