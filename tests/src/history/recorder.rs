//! Runs a program, and writes down what it was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{
    Asset, CommitTicket, Durability, Edit, Error, ErrorKind, Event, Key, Larder, Notice, Outcome,
    PageRequest, ReadTxn, Record, Result, Session, WriteTxn,
};

use super::program::{Ending, Instruction, Move, Plan, VIEWS, When};
use super::{Call, Change, Ended, Happened, History, Only, Program, Step, Told, Version, principal_of};
use crate::verified;

/// What stands for bytes that nobody put.
const NOBODYS: u64 = u64::MAX;
/// How long is waited for a notice that does not come: it is lost then.
const NOTICE_WAIT: Duration = Duration::from_secs(20);

/// Runs a program on a store that is empty, a thread for each part of it, and gives what it saw.
pub fn record(larder: &Larder, program: &Program) -> History {
    let root = larder.root().expect("a store that is open");
    // No call makes more than one commit: whoever subscribed never lags.
    let commits_max = 1 + program.threads.iter().map(Vec::len).sum::<usize>();
    let subscription = root.subscribe("", commits_max).expect("a store that is open");
    let (ticks, start) = (AtomicU64::new(1), Barrier::new(program.threads.len()));
    let mut calls = Vec::new();
    std::thread::scope(|scope| {
        let (ticks, start) = (&ticks, &start);
        let run = |(number, instructions): (usize, &Vec<Instruction>)| {
            let session = larder.session(&principal_of(number)).expect("a name");
            let instructions = instructions.clone();
            scope.spawn(move || {
                let mut thread = Thread {
                    number,
                    larder,
                    session,
                    ticks,
                    calls: Vec::with_capacity(instructions.len()),
                    views: [const { None }; VIEWS],
                    seen: HashMap::new(),
                    tickets: Vec::new(),
                };
                start.wait();
                instructions.into_iter().for_each(|instruction| thread.run(instruction));
                thread.calls
            })
        };
        let threads: Vec<_> = program.threads.iter().enumerate().map(run).collect();
        for thread in threads {
            calls.extend(thread.join().expect("a store that works"));
        }
    });
    // What was submitted and not waited for is carried now.
    larder.flush().expect("a store that works");
    let feed: Vec<Happened> =
        root.feed_since(0, usize::MAX).expect("a whole feed").into_iter().map(happened).collect();
    let mut notices = Vec::new();
    // Whoever carried a commit tells of it after it answered.
    while notices.len() < feed.len()
        && let Some(Notice::Events(events)) = subscription.next_within(NOTICE_WAIT)
    {
        notices.extend(events.into_iter().map(happened));
    }
    History { calls, feed, notices, end: everything(larder) }
}

/// Gives what is there.
fn everything(larder: &Larder) -> BTreeMap<String, Version> {
    let view = larder.root().and_then(|root| root.snapshot()).expect("a store that is open");
    let walk = view.walk("").expect("a store that can be read");
    walk.map(|item| {
        let (key, _) = item.expect("a store that can be read");
        let version = found(view.get(&key)).expect("what was walked over is there");
        (key.to_string(), version)
    })
    .collect()
}

fn happened(event: Event) -> Happened {
    Happened {
        commit: event.commit.sequence,
        kind: event.kind,
        place: event.place,
        from: event.from,
        old_generation: event.old_generation,
        new_generation: event.new_generation,
        principal: event.principal,
    }
}

/// The payload of a value. One of five does not lie in its row.
fn payload(value: u64) -> String {
    let text = value.to_string();
    if value.is_multiple_of(5) { format!("{text} ").repeat(600) } else { text }
}

fn found(asset: Result<Asset>) -> Option<Version> {
    let asset = match asset {
        Ok(asset) => asset,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => return None,
        Err(error) => panic!("a read failed: {error}"),
    };
    let bytes = asset.bytes().expect("a payload that can be read");
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let value = text.split(' ').next().and_then(|word| word.parse().ok());
    let value = value.filter(|value| payload(*value) == text).unwrap_or(NOBODYS);
    Some(Version { value, generation: asset.record().generation(), commit: asset.record().commit() })
}

fn walked(assets: Vec<(Key, Record)>) -> Vec<(String, u64, u64)> {
    assets.into_iter().map(|(key, record)| (key.to_string(), record.generation(), record.commit())).collect()
}

fn told(outcome: Result<Outcome>) -> Told {
    match outcome {
        Ok(Outcome::Created(stored) | Outcome::Replaced(stored)) => {
            Told::Stored { generation: stored.generation, previous: stored.previous }
        }
        Ok(Outcome::Removed { count }) => Told::Removed(count),
        Ok(Outcome::NotFound) => Told::NotFound,
        Ok(Outcome::Refused(refusal)) => Told::Refused(refusal.actual.map(|actual| actual.generation)),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists) => Told::AlreadyExists,
        other => panic!("nothing that a change should be told: {other:?}"),
    }
}

fn edit_of(change: &Change) -> Edit {
    let (edit, only) = match *change {
        Change::Put(key, value, only) => (Edit::put(key, payload(value)), only),
        Change::Delete(key, only) => (Edit::delete(key), only),
        Change::Rename(from, to, only) => (Edit::rename(from, to), only),
        Change::DeleteTree(place) => (Edit::delete_tree(place), Only::Always),
    };
    match only {
        Only::Always => edit,
        Only::IfAbsent => edit.if_absent(),
        Only::IfThere => edit.if_exists(),
        Only::IfGeneration(generation) => edit.if_generation(generation),
    }
}

/// The generations that a thread saw last.
type Seen = HashMap<&'static str, u64>;

fn change_of(plan: Plan, seen: &Seen) -> Change {
    let only = |key, when| match when {
        When::Always => Only::Always,
        When::IfAbsent => Only::IfAbsent,
        When::IfThere => Only::IfThere,
        When::IfAsSeen => Only::IfGeneration(seen.get(key).copied().unwrap_or(1)),
    };
    match plan {
        Plan::Put(key, value, when) => Change::Put(key, value, only(key, when)),
        Plan::Delete(key, when) => Change::Delete(key, only(key, when)),
        Plan::Rename(from, to, when) => Change::Rename(from, to, only(from, when)),
        Plan::DeleteTree(place) => Change::DeleteTree(place),
    }
}

fn note(seen: &mut Seen, step: &Step) {
    seen.extend(match step {
        Step::Read(key, Some(version)) => Some((*key, version.generation)),
        Step::Change(Change::Put(key, ..) | Change::Rename(_, key, _), Told::Stored { generation, .. })
        | Step::Change(Change::Put(key, ..) | Change::Delete(key, _), Told::Refused(Some(generation))) => {
            Some((*key, *generation))
        }
        _ => None,
    });
}

struct Thread<'a> {
    number: usize,
    larder: &'a Larder,
    session: Session,
    ticks: &'a AtomicU64,
    calls: Vec<Call>,
    /// The views that are held, each with the call that it is of.
    views: [Option<(ReadTxn, usize)>; VIEWS],
    seen: Seen,
    tickets: Vec<CommitTicket>,
}

impl Thread<'_> {
    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn run(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::Get(key) => {
                let called = self.tick();
                let asset = self.session.get(key);
                self.answered(called, Ended::Unplaced, Vec::new());
                self.keep(self.calls.len() - 1, Step::Read(key, found(asset)));
            }
            Instruction::Edit(plan, durability) => self.edit(plan, durability),
            Instruction::Write(moves, ending, durability) => self.write(&moves, ending, durability),
            Instruction::View(place, moves) => {
                let called = self.tick();
                let view = self.session.snapshot().expect("a store that is open");
                let commit = view.commit().expect("a view that can be read").sequence;
                self.answered(called, Ended::View(commit), Vec::new());
                self.views[place] = Some((view, self.calls.len() - 1));
                self.look(place, &moves);
            }
            Instruction::Look(place, moves) => self.look(place, &moves),
            Instruction::Await => {
                let Some(ticket) = self.tickets.pop() else { return };
                let called = self.tick();
                let commit = ticket.wait().expect("a store that works").sequence;
                self.answered(called, Ended::Awaited(commit), Vec::new());
            }
            Instruction::Flush => self.larder.flush().expect("a store that works"),
            Instruction::Verify => drop(verified(self.larder)),
        }
    }

    fn answered(&mut self, called: u64, ended: Ended, steps: Vec<Step>) {
        let answered = self.tick();
        steps.iter().for_each(|step| note(&mut self.seen, step));
        self.calls.push(Call { thread: self.number, called, answered, ended, steps });
    }

    /// Keeps a step of a call that was answered.
    fn keep(&mut self, call: usize, step: Step) {
        note(&mut self.seen, &step);
        self.calls[call].steps.push(step);
    }

    fn edit(&mut self, plan: Plan, durability: Durability) {
        let change = change_of(plan, &self.seen);
        let (session, edit) = (self.session.clone().durability(durability), edit_of(&change));
        let called = self.tick();
        let receipt = session.apply(edit);
        let commit = receipt.as_ref().ok().map(|receipt| receipt.commit.sequence);
        let told = told(receipt.map(|receipt| receipt.value));
        let ended = match commit {
            Some(commit) if told.is_done() => Ended::Committed(commit),
            Some(commit) => Ended::Unchanged(commit),
            None => Ended::Unplaced,
        };
        self.answered(called, ended, vec![Step::Change(change, told)]);
    }

    fn write(&mut self, moves: &[Move], ending: Ending, durability: Durability) {
        let session = self.session.clone().durability(durability);
        let (mut steps, mut number, mut seen) = (Vec::new(), 0, self.seen.clone());
        let closure = |txn: &mut WriteTxn<'_>| {
            number = txn.info().sequence;
            for movement in moves {
                if let Some(step) = in_transaction(txn, *movement, &seen)? {
                    note(&mut seen, &step);
                    steps.push(step);
                }
            }
            if ending == Ending::Abandon { Err(Error::abort("as the program says")) } else { Ok(()) }
        };
        let called = self.tick();
        let (commit, ticket) = match ending {
            Ending::Submit => {
                let ((), ticket) = session.submit(closure).expect("a store that works");
                (ticket.info().sequence, Some(ticket))
            }
            Ending::Commit => (session.write(closure).expect("a store that works").commit.sequence, None),
            Ending::Abandon => {
                let error = session.write(closure).expect_err("the error of the closure");
                assert!(matches!(error.kind(), ErrorKind::Aborted { .. }), "{error}");
                (number - 1, None)
            }
        };
        let is_done = steps.iter().any(|step| matches!(step, Step::Change(_, told) if told.is_done()));
        let ended = match ending {
            Ending::Abandon => Ended::Abandoned(commit),
            Ending::Commit if is_done => Ended::Committed(commit),
            Ending::Commit => Ended::Unchanged(commit),
            Ending::Submit if is_done => Ended::Submitted(commit),
            Ending::Submit => Ended::Abandoned(commit),
        };
        self.answered(called, ended, steps);
        self.tickets.extend(ticket);
    }

    fn look(&mut self, place: usize, moves: &[Move]) {
        let Some((view, call)) = self.views[place].take() else { return };
        for movement in moves {
            let step = match *movement {
                Move::Read(key) => Step::Read(key, found(view.get(key))),
                Move::Walk(place) => {
                    let walk = view.walk(place).expect("a store that can be read");
                    let assets = walk.collect::<Result<Vec<_>>>().expect("a store that can be read");
                    Step::Walk(place, walked(assets))
                }
                Move::Yield | Move::Change(_) => {
                    std::thread::yield_now();
                    continue;
                }
            };
            self.keep(call, step);
        }
        self.views[place] = Some((view, call));
    }
}

fn in_transaction(txn: &mut WriteTxn<'_>, movement: Move, seen: &Seen) -> Result<Option<Step>> {
    Ok(match movement {
        Move::Read(key) => Some(Step::Read(key, found(txn.get(key)))),
        Move::Walk(place) => {
            let page = txn.page(place, &PageRequest::new())?;
            Some(Step::Walk(place, walked(page.assets)))
        }
        Move::Change(plan) => {
            let change = change_of(plan, seen);
            let told = told(txn.apply(edit_of(&change)));
            Some(Step::Change(change, told))
        }
        Move::Yield => {
            std::thread::yield_now();
            None
        }
    })
}
