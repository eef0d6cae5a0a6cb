//! Histories: what several threads asked of one store and were told, and whether one order explains all of it.
//!
//! A [`Program`] is made of a seed. [`record`] runs it, a thread for each part of it, through the public API, and writes
//! down every call with what it saw and what it was told. [`check`] then looks for an order in which the calls could have
//! been made one after another. It does not have to search: every commit says its number, so the order is known, and only
//! has to be shown to be one (a witness; compare P. B. Gibbons, E. Korach, "Testing Shared Memories", SIAM J. Comput. 1997,
//! who show what it costs to be without). It takes O(n log n) for n calls, where keys are few.
//!
//! What is demanded, each of it a [`Rule`]:
//!
//! 1. Commits have the numbers 1 to n, each of them once.
//! 2. Whoever is called after another has answered comes after it: a commit has a greater number than whatever was seen or
//!    done before it was called; a view is at no earlier commit than what had answered when it was asked for.
//! 3. What a write transaction reads, and what its changes are told, is what all commits before it left, with what it
//!    changed itself.
//! 4. What a view reads is what the commits up to its own left: all keys of the same commit, however late they are read.
//! 5. What was refused, or said not to be there, was so at the commit that it was told of.
//! 6. A read that does not say of which commit it is, is of one between its call and its answer.
//! 7. The feed, and what was told to who subscribed, are these commits in this order, with what they did.
//! 8. What is there at the end is what all commits left.
//!
//! Two programs of one seed are the same. How the threads meet is up to the machine, and so two histories of one seed are
//! not: a violation comes with the calls that show it, and not with the promise that it comes again.

mod check;
mod model;
mod program;
mod recorder;

pub use check::{Checked, Rule, Violation, check};
pub use program::Program;
pub use recorder::record;

use std::collections::BTreeMap;

use larder::EventKind;

/// What a key has. No two puts of a program have the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// What was put.
    pub value: u64,
    /// Its generation.
    pub generation: u64,
    /// The commit that wrote it.
    pub commit: u64,
}

/// On what condition a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// On none.
    Always,
    /// If nothing is there.
    IfAbsent,
    /// If something is there.
    IfThere,
    /// If it has this generation.
    IfGeneration(u64),
}

/// What was to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// To put a value under a key.
    Put(&'static str, u64, Only),
    /// To remove a key.
    Delete(&'static str, Only),
    /// To give what is under the first key the second; the condition is about the first.
    Rename(&'static str, &'static str, Only),
    /// To remove whatever is at and below a place.
    DeleteTree(&'static str),
}

/// What a change was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It was stored.
    Stored {
        /// As this generation.
        generation: u64,
        /// In place of this one.
        previous: Option<u64>,
    },
    /// So many assets are gone.
    Removed(u64),
    /// Nothing is there.
    NotFound,
    /// The condition does not hold; this generation is there.
    Refused(Option<u64>),
    /// Something is there where it was to go.
    AlreadyExists,
}

impl Told {
    /// Tells whether anything was changed.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Stored { .. } | Self::Removed(_))
    }
}

/// One thing that was done in a call, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key was read.
    Read(&'static str, Option<Version>),
    /// The keys below a place were walked over: key, generation, commit.
    Walk(&'static str, Vec<(String, u64, u64)>),
    /// A change was asked for.
    Change(Change, Told),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With a commit of this number, which everybody sees.
    Committed(u64),
    /// With a commit of this number, which is on its way.
    Submitted(u64),
    /// Without a change, after this commit, which everybody sees.
    Unchanged(u64),
    /// With an error of the closure, after this commit, which may be on its way still.
    Abandoned(u64),
    /// With a view of this commit.
    View(u64),
    /// With the word that this commit, which was submitted before, is done.
    Awaited(u64),
    /// With an answer that does not say of which commit it is.
    Unplaced,
}

/// A call of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which thread's it is.
    pub thread: usize,
    /// When it was called, by a counter that all threads share.
    pub called: u64,
    /// When it answered, by the same counter.
    pub answered: u64,
    /// How it ended.
    pub ended: Ended,
    /// What was done in it. A view is read from for as long as it is held, also after it was given.
    pub steps: Vec<Step>,
}

/// What the feed says of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// The number of the commit.
    pub commit: u64,
    /// What happened.
    pub kind: EventKind,
    /// Where.
    pub place: String,
    /// Where it came from.
    pub from: Option<String>,
    /// The generation before.
    pub old_generation: Option<u64>,
    /// The generation after.
    pub new_generation: Option<u64>,
    /// Who did it.
    pub principal: String,
}

/// What several threads asked of a store that was empty, and were told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The calls, those of one thread in their order.
    pub calls: Vec<Call>,
    /// The feed, read at the end.
    pub feed: Vec<Happened>,
    /// What was told to who had subscribed before the beginning.
    pub notices: Vec<Happened>,
    /// What is there at the end.
    pub end: BTreeMap<String, Version>,
}

/// The name of the principal in whose name a thread calls.
pub fn principal_of(thread: usize) -> String {
    format!("thread-{thread}")
}
