//! Whether one order explains a history.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{At, Model};
use super::{Call, Change, Ended, Happened, History, Step, Told, Version, principal_of};

/// What is demanded of a history: the list at the head of [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Commits have the numbers 1 to n, each of them once.
    Numbers,
    /// Whoever is called after another has answered comes after it.
    Time,
    /// A write transaction reads what all commits before it left, and what it changed itself.
    Transaction,
    /// A view is of one commit.
    View,
    /// What is refused would be refused at the commit that it was told of.
    Refusal,
    /// A read that does not say of which commit it is, is of one between its call and its answer.
    Read,
    /// The feed, and what is told to subscribers, are the commits in their order.
    Feed,
    /// What is there at the end is what all commits left.
    End,
}

/// What is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it is against.
    pub rule: Rule,
    /// What was seen, where, and what should have been.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// What a history that is as it should be had in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Histories.
    pub histories: u64,
    /// Calls.
    pub calls: u64,
    /// Calls that began while another was not answered.
    pub overlapping: u64,
    /// Commits.
    pub commits: u64,
    /// Reads of a key, and walks.
    pub reads: u64,
    /// Changes that were refused, or found nothing.
    pub refusals: u64,
}

impl std::ops::AddAssign for Checked {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.calls += other.calls;
        self.overlapping += other.overlapping;
        self.commits += other.commits;
        self.reads += other.reads;
        self.refusals += other.refusals;
    }
}

/// Looks whether one order explains a history.
///
/// # Errors
/// The first thing that none does.
pub fn check(history: &History) -> Result<Checked, Violation> {
    let commits = in_order(history)?;
    let replay = Replay::of(history, &commits)?;
    let overlapping = in_time(history, &replay, commits.len() as u64)?;
    same_events(&replay.happened, &history.feed, "the feed")?;
    same_events(&replay.happened, &history.notices, "what the subscriber was told")?;
    if replay.end.0 != history.end {
        let text = format!("at the end there is {:?}, and {:?} should be", history.end, replay.end.0);
        return Err(Violation { rule: Rule::End, text });
    }
    let steps = || history.calls.iter().flat_map(|call| &call.steps);
    let is_refusal = |step: &&Step| matches!(step, Step::Change(_, told) if !told.is_done());
    Ok(Checked {
        histories: 1,
        calls: history.calls.len() as u64,
        overlapping,
        commits: commits.len() as u64,
        reads: steps().filter(|step| !matches!(step, Step::Change(..))).count() as u64,
        refusals: steps().filter(is_refusal).count() as u64,
    })
}

impl Ended {
    /// Gives the number of the commit that the call made.
    fn commit(self) -> Option<u64> {
        match self {
            Self::Committed(commit) | Self::Submitted(commit) => Some(commit),
            _ => None,
        }
    }

    /// Gives the commit whose state the call begins with.
    fn base(self) -> Option<u64> {
        match self {
            Self::Committed(commit) | Self::Submitted(commit) => commit.checked_sub(1),
            Self::Unchanged(at) | Self::Abandoned(at) | Self::View(at) => Some(at),
            Self::Awaited(_) | Self::Unplaced => None,
        }
    }
}

impl Call {
    /// Tells whether the answer was of what was accepted, which may be visible later only: so it is of those who write.
    fn is_of_accepted(&self) -> bool {
        match self.ended {
            Ended::Committed(_) | Ended::Submitted(_) | Ended::Unchanged(_) | Ended::Abandoned(_) => true,
            Ended::Unplaced => matches!(self.steps.as_slice(), [Step::Change(..)]),
            Ended::View(_) | Ended::Awaited(_) => false,
        }
    }

    /// Tells whether what the call saw, or did, is visible to everybody when it answers.
    fn is_visible(&self) -> bool {
        match self.ended {
            Ended::Committed(_) | Ended::Unchanged(_) | Ended::View(_) | Ended::Awaited(_) => true,
            Ended::Submitted(_) | Ended::Abandoned(_) => false,
            Ended::Unplaced => !self.is_of_accepted(),
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "thread {}, called at {}, answered at {}, ", self.thread, self.called, self.answered)?;
        match self.ended {
            Ended::Committed(commit) => write!(f, "commit {commit}"),
            Ended::Submitted(commit) => write!(f, "commit {commit}, submitted"),
            Ended::Unchanged(at) => write!(f, "no change at commit {at}"),
            Ended::Abandoned(at) => write!(f, "abandoned at commit {at}"),
            Ended::View(at) => write!(f, "a view of commit {at}"),
            Ended::Awaited(commit) => write!(f, "waited for commit {commit}"),
            Ended::Unplaced => write!(f, "of no commit that is told"),
        }
    }
}

/// A line for every call, in the order in which they were called.
impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut calls: Vec<&Call> = self.calls.iter().collect();
        calls.sort_by_key(|call| call.called);
        for call in calls {
            writeln!(f, "{call}")?;
            for step in &call.steps {
                writeln!(f, "    {}: {}", question_of(step), answer_of(step))?;
            }
        }
        Ok(())
    }
}

/// Gives the calls that committed, in the order of their numbers.
fn in_order(history: &History) -> Result<Vec<&Call>, Violation> {
    let wrong = |text| Violation { rule: Rule::Numbers, text };
    let mut numbered: Vec<(u64, &Call)> =
        history.calls.iter().filter_map(|call| Some((call.ended.commit()?, call))).collect();
    numbered.sort_by_key(|(number, _)| *number);
    for (at, (number, call)) in numbered.iter().enumerate() {
        let expected = at as u64 + 1;
        if *number < expected {
            let other = at.checked_sub(1).map_or_else(String::new, |before| numbered[before].1.to_string());
            return Err(wrong(format!("two commits have the number {number}: ({other}) and ({call})")));
        }
        if *number > expected {
            return Err(wrong(format!("nobody was told of commit {expected}; the next is ({call})")));
        }
    }
    let beyond = |call: &&Call| match call.ended {
        Ended::Unplaced => false,
        Ended::Awaited(commit) => commit > numbered.len() as u64,
        ended => ended.base().is_none_or(|base| base > numbered.len() as u64),
    };
    match history.calls.iter().find(beyond) {
        Some(call) => Err(wrong(format!("({call}) is of a commit that nobody made"))),
        None => Ok(numbered.into_iter().map(|(_, call)| call).collect()),
    }
}

/// The states that the commits lead through.
struct Replay {
    /// What each key had, from which commit on.
    versions: BTreeMap<String, Vec<(u64, Option<Version>)>>,
    happened: Vec<Happened>,
    end: Model,
}

impl Replay {
    /// Makes all commits again, and compares what everybody saw with what was there.
    fn of(history: &History, commits: &[&Call]) -> Result<Self, Violation> {
        let mut lookers: Vec<Vec<&Call>> = vec![Vec::new(); commits.len() + 1];
        for call in history.calls.iter().filter(|call| call.ended.commit().is_none()) {
            if let Some(base) = call.ended.base() {
                lookers[base as usize].push(call);
            }
        }
        let (mut versions, mut happened, mut state) =
            (BTreeMap::<String, Vec<_>>::new(), Vec::new(), Model::default());
        for (at, lookers) in lookers.iter().enumerate() {
            for call in lookers {
                // What is abandoned is done in a copy.
                play(call, at as u64 + 1, &mut state.clone(), &mut Vec::new())?;
            }
            let Some(call) = commits.get(at) else { break };
            let (number, before) = (at as u64 + 1, state.clone());
            play(call, number, &mut state, &mut happened)?;
            let keys: BTreeSet<&String> = before.0.keys().chain(state.0.keys()).collect();
            for key in keys {
                let (old, new) = (before.0.get(key), state.0.get(key).copied());
                if old.copied() != new {
                    versions.entry(key.clone()).or_default().push((number, new));
                }
            }
        }
        Ok(Self { versions, happened, end: state })
    }

    /// Gives what a key had after a commit.
    fn version(&self, key: &str, at: u64) -> Option<Version> {
        let versions = self.versions.get(key)?;
        let upto = versions.partition_point(|(commit, _)| *commit <= at);
        upto.checked_sub(1).and_then(|last| versions[last].1)
    }

    /// Gives the first commit from one on, up to another, at which a step would have been told what it was told.
    fn first_like(&self, step: &Step, from: u64, upto: u64) -> Option<u64> {
        let keys = keys_of(step);
        let mut candidates = BTreeSet::from([from]);
        for key in &keys {
            let versions = self.versions.get(*key).map_or(&[][..], Vec::as_slice);
            let later = versions.partition_point(|(commit, _)| *commit <= from);
            candidates.extend(
                versions[later..].iter().map(|(commit, _)| *commit).take_while(|commit| *commit <= upto),
            );
        }
        candidates.into_iter().filter(|at| *at <= upto).find(|at| {
            let there = keys.iter().filter_map(|key| Some(((*key).to_owned(), self.version(key, *at)?)));
            let mut state = Model(there.collect());
            state.step(step, &mut At { commit: at + 1, principal: "", happened: &mut Vec::new() }) == *step
        })
    }
}

/// The keys that a step which does not say of which commit it is can be about.
fn keys_of(step: &Step) -> Vec<&'static str> {
    match step {
        Step::Read(key, _) | Step::Change(Change::Put(key, ..) | Change::Delete(key, _), _) => vec![key],
        Step::Change(Change::Rename(from, to, _), _) => vec![from, to],
        Step::Walk(..) | Step::Change(Change::DeleteTree(_), _) => Vec::new(),
    }
}

/// Does what a call did, with what was there, and compares.
fn play(call: &Call, commit: u64, state: &mut Model, happened: &mut Vec<Happened>) -> Result<(), Violation> {
    let principal = principal_of(call.thread);
    let mut at = At { commit, principal: &principal, happened };
    let mut has_changed = false;
    for step in &call.steps {
        let expected = state.step(step, &mut at);
        if expected != *step {
            return Err(differs(call, commit - 1, step, &expected));
        }
        has_changed |= matches!(step, Step::Change(_, told) if told.is_done());
    }
    if has_changed != call.ended.commit().is_some() && !matches!(call.ended, Ended::Abandoned(_)) {
        let text = format!("({call}) says of itself what its steps do not: {:?}", call.steps);
        return Err(Violation { rule: Rule::Transaction, text });
    }
    Ok(())
}

fn differs(call: &Call, base: u64, step: &Step, expected: &Step) -> Violation {
    let rule = match (step, call.ended) {
        (Step::Change(_, told), _) if !told.is_done() => Rule::Refusal,
        (_, Ended::View(_)) => Rule::View,
        _ => Rule::Transaction,
    };
    let (seen, there) = (answer_of(step), answer_of(expected));
    let text =
        format!("({call}): {} was told {seen}; after commit {base} it should be {there}", question_of(step));
    Violation { rule, text }
}

fn question_of(step: &Step) -> String {
    match step {
        Step::Read(key, _) => format!("a read of {key:?}"),
        Step::Walk(place, _) => format!("a walk below {place:?}"),
        Step::Change(change, _) => format!("{change:?}"),
    }
}

fn answer_of(step: &Step) -> String {
    match step {
        Step::Read(_, None) => "that nothing is there".to_owned(),
        Step::Read(_, Some(Version { value, generation, commit })) => {
            format!("value {value}, generation {generation}, of commit {commit}")
        }
        Step::Walk(_, found) => format!("{found:?}"),
        Step::Change(_, told @ (Told::Stored { .. } | Told::Removed(_))) => {
            format!("that it is done ({told:?})")
        }
        Step::Change(_, told) => format!("{told:?}"),
    }
}

/// Goes through the history in the order of its calls and answers: whoever is called later is later. Gives how many
/// calls began while another was not answered.
fn in_time(history: &History, replay: &Replay, last: u64) -> Result<u64, Violation> {
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(history.calls.len() * 2);
    for (index, call) in history.calls.iter().enumerate() {
        moments.extend([(call.called, false, index), (call.answered, true, index)]);
    }
    moments.sort_unstable();
    let newest = newest_before(history, &moments, last);
    // Up to which commit was seen what is visible, and what was accepted, by whom answered already.
    let (mut visible, mut accepted) = (Known::default(), Known::default());
    let mut places: Vec<u64> = vec![0; history.calls.len()];
    let (mut open, mut overlapping) = (0u64, 0);
    for (_, has_answered, index) in moments {
        let call = &history.calls[index];
        if has_answered {
            open = open.saturating_sub(1);
            accepted.raise(places[index], call);
            if call.is_visible() {
                visible.raise(places[index], call);
            }
            continue;
        }
        overlapping += u64::from(open > 0);
        open += 1;
        let known = if call.is_of_accepted() { &accepted } else { &visible };
        places[index] = match (call.ended, call.ended.base()) {
            // It can have been done long before.
            (Ended::Awaited(commit), _) => commit,
            (_, Some(base)) if base < known.upto => return Err(known.is_missed_by(call)),
            (ended, Some(base)) => ended.commit().unwrap_or(base),
            (_, None) => unplaced(call, replay, known.upto, newest[index])?,
        };
    }
    Ok(overlapping)
}

/// Finds where a call can be that does not say where it is.
fn unplaced(call: &Call, replay: &Replay, from: u64, upto: u64) -> Result<u64, Violation> {
    let mut at = from;
    for step in &call.steps {
        let Some(found) = replay.first_like(step, at, upto) else {
            let rule = if call.is_of_accepted() { Rule::Refusal } else { Rule::Read };
            let (question, answer) = (question_of(step), answer_of(step));
            let text = format!(
                "({call}): {question} was told {answer}; it is so at no commit from {from} to {upto}"
            );
            return Err(Violation { rule, text });
        };
        at = found;
    }
    Ok(at)
}

/// Gives for every call the newest commit that it can know of: none that was begun after it answered, and none after that.
fn newest_before(history: &History, moments: &[(u64, bool, usize)], last: u64) -> Vec<u64> {
    let (mut newest, mut all) = (last, vec![last; history.calls.len()]);
    for (_, has_answered, index) in moments.iter().rev() {
        if *has_answered {
            all[*index] = newest;
        } else if let Some(commit) = history.calls[*index].ended.commit() {
            newest = newest.min(commit - 1);
        }
    }
    all
}

/// Up to which commit something is known, and from whom.
#[derive(Default)]
struct Known<'h> {
    upto: u64,
    from: Option<&'h Call>,
}

impl<'h> Known<'h> {
    fn raise(&mut self, upto: u64, from: &'h Call) {
        if upto > self.upto {
            (self.upto, self.from) = (upto, Some(from));
        }
    }

    fn is_missed_by(&self, call: &Call) -> Violation {
        let before = self.from.map(Call::to_string).unwrap_or_default();
        let text = format!("({call}) was called after ({before}) had answered, and comes before it");
        Violation { rule: Rule::Time, text }
    }
}

fn same_events(expected: &[Happened], got: &[Happened], what: &str) -> Result<(), Violation> {
    let wrong = |text| Err(Violation { rule: Rule::Feed, text });
    match expected.iter().zip(got).position(|(expected, got)| expected != got) {
        Some(at) => wrong(format!("{what} has {:?} where {:?} happened", got[at], expected[at])),
        None if expected.len() > got.len() => {
            wrong(format!("{what} does not have {:?}", expected[got.len()]))
        }
        None if expected.len() < got.len() => {
            wrong(format!("{what} has {:?}, which did not happen", got[expected.len()]))
        }
        None => Ok(()),
    }
}
