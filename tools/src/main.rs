//! The `larder` command. It goes through the same door as every other user of the library: a session.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the tool is where terminal, clock and environment come in"
)]

mod change;
mod condition;
mod export;
mod govern;
mod graph;
mod import;
mod keep;
mod layers;
mod life;
mod look;
mod mend;
mod output;
mod recover;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use larder::{Larder, Options, Session};

use output::{Failure, Output};

/// Store assets in one file, look at them, get them back.
///
/// Exit codes: 0 done; 1 done, with findings or with items that were refused; 2 not done, the reason is on stderr.
#[derive(Parser)]
#[command(name = "larder", version)]
struct Command {
    /// Print JSON: one object, or one object a line.
    #[arg(long, global = true)]
    json: bool,
    /// Act as this principal instead of the file's holder, to whom no rule applies.
    #[arg(long = "as", global = true, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Act as a member of this group; may be given more than once.
    #[arg(long = "group", global = true)]
    groups: Vec<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Store the files of a folder. Hidden files are stored too, links are skipped, modification times are kept.
    Import(import::Import),
    /// Write assets to a folder: never outside of it, never over what is there unless asked to.
    Export(export::Export),
    /// List one level.
    Ls(look::List),
    /// Show everything below a place.
    Tree(look::Tree),
    /// Show what is known about an asset.
    Stat(look::Stat),
    /// Print a payload.
    Cat(look::Cat),
    /// Find assets by a tag.
    Find(look::Find),
    /// Show what a store is, and how much is in it.
    Info(FileOnly),
    /// Show how a store is. Exit code 1: not well.
    Health(FileOnly),
    /// Look at where a store lies: kernel, file system, mount options, lock, log, room. Exit code 1: something is not well.
    Doctor(FileOnly),
    /// Recount everything. Exit code 0: nothing found; 1: findings; 2: the file cannot be read.
    Verify(FileOnly),
    /// Make a new file of one that opens, without what is damaged, and with everything derived again that can be; or show
    /// what is wrong. Exit code 1: something is, still.
    Repair(mend::Repair),
    /// Make a new store of what can be read of a file that does not open any more, page by page.
    Salvage(mend::Salvage),
    /// Give back the room that is not used.
    Compact(FileOnly),
    /// Bring a store that was not closed to rest: what its commit log has goes into the file.
    Recover(recover::Recover),
    /// Bring a store of an older format to the current one; a copy of it as it was is kept beside it.
    Upgrade(FileOnly),
    /// Snapshots: create, list, verify, diff.
    #[command(subcommand)]
    Snapshot(keep::Snapshot),
    /// Make a store of a snapshot and its increments: a new file, there whole or not at all.
    Restore(keep::Restore),
    /// Show who has claimed what, and until when.
    Claims(life::Claims),
    /// Show when what expires.
    Deadlines(life::Deadlines),
    /// Mark what is past its time, and revoke claims that are.
    Sweep(life::Sweep),
    /// Remove what is too old, too many or too large by rules, or say what would go.
    Retention(life::Retain),
    /// Show what an asset was, where the limits say that it is kept, or put it back.
    History(life::History),
    /// Show what an asset was made from, or what was made from it.
    Deps(life::Dependencies),
    /// Show what an asset came from, what came from it, and why it is not served. Exit code 1: it is not.
    Why(life::Why),
    /// Show what happened.
    Feed(look::Feed),
    /// Show who was refused, and what was allowed where that is audited.
    Audit(look::Feed),
    /// Store one payload, from a file or from standard input.
    Put(change::Put),
    /// Remove an asset.
    Rm(change::Remove),
    /// Copy an asset.
    Cp(change::Pair),
    /// Give an asset another key.
    Mv(change::Move),
    /// Add tags to an asset.
    Tag(change::Tag),
    /// Show the rows of a collection, in the order of their keys or of an index.
    Rows(layers::Rows),
    /// Show the counters of a collection: the fields of its rows that hold integers.
    Counters(layers::Counters),
    /// The indexes of a collection: list, verify, rebuild.
    #[command(subcommand)]
    Index(layers::Index),
    /// Message queues: list, show, look into, redrive, purge.
    #[command(subcommand)]
    Queue(layers::Queue),
    /// Caches of computations: list, show, explain, forget.
    #[command(subcommand)]
    Cache(layers::Cache),
    /// Tasks that wait for each other: list, count, show, draw, find the longest way, explain.
    #[command(subcommand)]
    Tasks(work::Tasks),
    /// Runs and what they made: list, show, trace, draw; gates, barriers, health.
    #[command(subcommand)]
    Runs(work::Runs),
    /// Access rules: show, set, explain.
    #[command(subcommand)]
    Acl(govern::Acl),
    /// Size limits: show, set.
    #[command(subcommand)]
    Limits(govern::Limits),
    /// What the store adds to the registry of formats: show, set.
    #[command(subcommand)]
    Registry(govern::Document),
}

#[derive(Args)]
struct FileOnly {
    /// The store.
    file: PathBuf,
}

/// What every verb is given.
struct Context {
    output: Output,
    principal: Option<String>,
    groups: Vec<String>,
}

impl Context {
    fn session(&self, larder: &Larder) -> larder::Result<Session> {
        let session = match &self.principal {
            Some(principal) if principal != "root" => larder.session(principal)?,
            _ => larder.root()?,
        };
        session.in_groups(self.groups.iter().map(String::as_str))
    }

    /// Opens a store to look at it; not one byte of it is changed.
    fn look(&self, file: &Path) -> larder::Result<(Larder, Session)> {
        let larder = Options::new().open_read_only(file)?;
        let session = self.session(&larder)?;
        Ok((larder, session))
    }

    /// Opens a store to change it.
    fn change(&self, file: &Path) -> larder::Result<(Larder, Session)> {
        let larder = Options::new().existing_only().open(file)?;
        let session = self.session(&larder)?;
        Ok((larder, session))
    }
}

/// Says that this process is the one that does the work.
const INSIDE: &str = "LARDER_TOOL_INSIDE";

/// Does the work in a process of its own: a damaged file can end redb, and the process with it, in ways that cannot be
/// caught. Then there is still somebody to say so.
fn supervise() -> ExitCode {
    let done = std::env::current_exe().and_then(|tool| {
        std::process::Command::new(tool).args(std::env::args_os().skip(1)).env(INSIDE, "1").status()
    });
    let Ok(status) = done else { return work() };
    match (status.code(), ended_from_outside(status)) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(2)),
        (None, Some(signal)) => {
            eprintln!("larder: it was ended by signal {signal}, before it was done");
            ExitCode::from(2)
        }
        (None, None) => {
            eprintln!(
                "larder: reading the file ended the process: it is damaged; run: larder salvage FILE NEW"
            );
            ExitCode::from(2)
        }
    }
}

/// Gives the signal that ended a process, unless it is one that a process gives itself by what it does.
#[cfg(unix)]
fn ended_from_outside(status: std::process::ExitStatus) -> Option<i32> {
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt;
    let own = [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE, Signal::TRAP];
    status.signal().filter(|signal| own.iter().all(|own| own.as_raw() != *signal))
}

#[cfg(not(unix))]
fn ended_from_outside(_: std::process::ExitStatus) -> Option<i32> {
    None
}

/// Lets this process end when the one ends that started it: else it would go on, with the file locked, when that is killed.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        // Where it cannot be had, the work is done all the same.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
}

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        return supervise();
    }
    end_with_parent();
    work()
}

fn work() -> ExitCode {
    let command = Command::parse();
    let output = Output { json: command.json };
    let context = Context { output, principal: command.principal, groups: command.groups };
    let done = match command.verb {
        Verb::Import(verb) => verb.run(&context),
        Verb::Export(verb) => verb.run(&context),
        Verb::Ls(verb) => verb.run(&context),
        Verb::Tree(verb) => verb.run(&context),
        Verb::Stat(verb) => verb.run(&context),
        Verb::Cat(verb) => verb.run(&context),
        Verb::Find(verb) => verb.run(&context),
        Verb::Info(verb) => look::info(&context, &verb.file),
        Verb::Health(verb) => condition::health(&context, &verb.file),
        Verb::Doctor(verb) => condition::doctor(&context, &verb.file),
        Verb::Verify(verb) => look::verify(&context, &verb.file),
        Verb::Repair(verb) => verb.run(&context),
        Verb::Salvage(verb) => verb.run(&context),
        Verb::Compact(verb) => mend::compact(&context, &verb.file),
        Verb::Recover(verb) => verb.run(&context),
        Verb::Upgrade(verb) => recover::upgrade(&context, &verb.file),
        Verb::Snapshot(verb) => verb.run(&context),
        Verb::Restore(verb) => verb.run(&context),
        Verb::Claims(verb) => verb.run(&context),
        Verb::Deadlines(verb) => verb.run(&context),
        Verb::Sweep(verb) => verb.run(&context),
        Verb::Retention(verb) => verb.run(&context),
        Verb::History(verb) => verb.run(&context),
        Verb::Deps(verb) => verb.run(&context),
        Verb::Why(verb) => verb.run(&context),
        Verb::Feed(verb) => verb.feed(&context),
        Verb::Audit(verb) => verb.audit(&context),
        Verb::Put(verb) => verb.run(&context),
        Verb::Rm(verb) => verb.run(&context),
        Verb::Cp(verb) => verb.run(&context),
        Verb::Mv(verb) => verb.run(&context),
        Verb::Tag(verb) => verb.run(&context),
        Verb::Rows(verb) => verb.run(&context),
        Verb::Counters(verb) => verb.run(&context),
        Verb::Index(verb) => verb.run(&context),
        Verb::Queue(verb) => verb.run(&context),
        Verb::Cache(verb) => verb.run(&context),
        Verb::Tasks(verb) => verb.run(&context),
        Verb::Runs(verb) => verb.run(&context),
        Verb::Acl(verb) => verb.run(&context),
        Verb::Limits(verb) => verb.run(&context),
        Verb::Registry(verb) => verb.run(&context, larder::DocumentKind::Registry),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output has seen enough.
        Err(Failure::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            context.output.failure(&failure);
            ExitCode::from(2)
        }
    }
}
