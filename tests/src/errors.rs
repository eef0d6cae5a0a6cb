//! A long run in which a call to the disk fails, and what must hold whichever it is.
//!
//! Invariants
//! 1. Nothing panics. A call gives what is right, or an error that says what the disk did.
//! 2. A write that gave an error changed nothing; or it gave `OutcomeUnknown`. No write succeeds after that, or after an error
//!    that a failed sync gave; and no file is synced again of which a sync failed.
//! 3. What comes up from the disk, at once, after the run, and after the handle is dropped, with what was not synced and
//!    without it, is the state after one of the commits that were acknowledged, and not one before the last that has to
//!    be on disk; or that of the commit of which it is not known. `outcome_of` says the same.
//! 4. It recounts, and takes the next commit.
//!
//! What is counted, and not demanded:
//! - A write to the log that is cut short where the rest would have been zeros leaves the commit whole. It was refused, and
//!   its first block taken back; a loss of power can keep the write and lose that.
//! - A read that fails makes the handle say that nothing is accepted any more; what needs no page is accepted all the same.
//! - A sync that fails for want of room while the log is made, before there is anything in it, is not final: it is made anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use larder::{
    Clock, CommitOutcome, Draft, Durability, Error, ErrorKind, Larder, ManualClock, Options, Session,
    WriteTxn,
};

use crate::disk::{Call, Failure, Fault, FaultyDisk, Image, Plan};
use crate::{Random, still};

/// How many commits there are in a run.
const COMMITS: u64 = 200;
const KEYS: usize = 48;
const COUNT: &str = "count";

/// Of which commit the payload under each key is; 0 where nothing is.
type State = [u64; KEYS];

/// A run of two hundred commits, the same every time.
#[derive(Debug)]
pub struct LongRun {
    base: Image,
    payloads: Vec<Bytes>,
}

/// What became of a run with a fault in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survived {
    /// Whether the run came as far as the fault.
    pub is_hit: bool,
    /// How many calls gave an error.
    pub errors: u64,
    /// Whether there was a commit of which it is not known whether it is on disk.
    pub is_unknown: bool,
    /// Whether a commit was acknowledged after an error.
    pub went_on: bool,
    /// Whether one was acknowledged after it had been said that nothing is accepted any more.
    pub took_back: bool,
    /// Whether a commit that was refused came up.
    pub refused_came_up: bool,
    /// How many images were opened.
    pub images: u64,
}

/// A change of one key.
enum Change {
    Put(usize),
    Delete(usize),
    Rename(usize, usize),
}

/// What the application was told.
#[derive(Debug, Clone)]
struct Told {
    /// The commits that were acknowledged, and what each left.
    states: Vec<(u64, State)>,
    /// How many of them have to be on disk.
    durable: usize,
    unknown: Option<(u64, State)>,
    /// A commit that was refused after a write that was cut short, until another one follows.
    refused: Option<(u64, State)>,
    /// Whether it is a sync that fails.
    is_sync: bool,
    /// Whether it is a write that is cut short.
    is_cut_short: bool,
    /// Whether the log is made anew after a sync that failed.
    is_anew: bool,
    /// Whether nothing may be accepted any more.
    is_final: bool,
    said_poisoned: bool,
    took_back: bool,
    /// The errors that were met.
    errors: Vec<String>,
    went_on: bool,
    /// What the disk had when the first error was met, with and without what was not synced, and what was told then.
    first: Option<(Box<Told>, [Image; 2])>,
    /// What a loss of power left of what the disk had before the handle was dropped.
    last: Option<Image>,
}

impl Told {
    /// Takes an error; refuses one that says nothing of the disk.
    fn take(&mut self, error: &Error, doing: &str) -> Result<(), String> {
        self.errors.push(format!("{doing}: {error}"));
        let is_of_disk = matches!(
            error.kind(),
            ErrorKind::Io { .. }
                | ErrorKind::StoreFull { .. }
                | ErrorKind::Interrupted
                | ErrorKind::Poisoned { .. }
                | ErrorKind::OutcomeUnknown { .. }
        );
        // The first commit makes the log.
        let is_of_no_log = self.states.is_empty() && matches!(error.kind(), ErrorKind::StoreFull { .. });
        self.is_anew |= self.is_sync && is_of_no_log;
        self.is_final |=
            (self.is_sync && !self.is_anew) || matches!(error.kind(), ErrorKind::OutcomeUnknown { .. });
        self.said_poisoned |= matches!(error.kind(), ErrorKind::Poisoned { .. });
        if is_of_disk { Ok(()) } else { Err(format!("{doing}: {}: {error}", error.kind().name())) }
    }

    fn state(&self) -> State {
        self.states.last().map_or([0; KEYS], |(_, state)| *state)
    }

    fn look_at(&mut self, disk: &FaultyDisk, seed: u64) {
        if !self.errors.is_empty() && self.first.is_none() {
            self.first = Some((Box::new(self.clone()), [disk.current(), lost(disk, seed)]));
        }
    }
}

/// What is left by a loss of power: nothing of what was not synced, or some of it.
fn lost(disk: &FaultyDisk, seed: u64) -> Image {
    if seed.is_multiple_of(2) { disk.durable() } else { disk.torn(seed) }
}

fn options(clock: &Arc<ManualClock>) -> Options {
    // So few pages that most reads reach the disk.
    still().clock(Arc::clone(clock) as Arc<dyn Clock>).cache_bytes(64 << 10)
}

fn length(commit: u64) -> usize {
    match commit % 10 {
        // In rows, in chunks, and once staged ahead of the commit.
        0 => 40_000,
        7 if commit == 77 => 1_100_000,
        1..=3 => 100,
        _ => 3_000 + (commit as usize * 577) % 6_000,
    }
}

/// What a commit changes, and what it leaves.
fn next(state: &State, commit: u64) -> (Vec<Change>, State) {
    let at = |factor: u64, more: u64| ((commit * factor + more) % KEYS as u64) as usize;
    let (mut after, mut changes) = (*state, vec![Change::Put(at(1, 0))]);
    after[at(1, 0)] = commit;
    if commit.is_multiple_of(3) {
        let is_there = after[at(7, 5)] > 0;
        changes.push(if is_there { Change::Delete(at(7, 5)) } else { Change::Put(at(7, 5)) });
        after[at(7, 5)] = if is_there { 0 } else { commit };
    }
    let (from, to) = (at(5, 1), at(11, 2));
    if commit.is_multiple_of(7) && after[from] > 0 && after[to] == 0 {
        changes.push(Change::Rename(from, to));
        after.swap(from, to);
    }
    (changes, after)
}

fn key(number: usize) -> String {
    format!("k/{}/{number:02}", number % 5)
}

fn name(commit: u64) -> String {
    format!("once-{commit}")
}

impl Default for LongRun {
    fn default() -> Self {
        Self::new()
    }
}

impl LongRun {
    /// Makes it.
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let fresh = FaultyDisk::default();
        fresh.open(options(&clock), true).expect("a new store").close().expect("a store that closes");
        // Half of each compresses.
        let payload = |commit| {
            let mut bytes = Random::new(commit).bytes(length(commit));
            let half = bytes.len() / 2;
            bytes[half..].fill(commit as u8);
            bytes.into()
        };
        Self { base: [fresh.store(), Vec::new()], payloads: (0..=COMMITS + 1).map(payload).collect() }
    }

    /// Counts the calls of each kind in it.
    pub fn calls(&self) -> [(Call, u64); 4] {
        let disk = FaultyDisk::holding(self.base.clone(), Plan::default());
        let told = self.run(&disk, None).unwrap_or_else(|what| panic!("without a fault: {what}"));
        assert_eq!((told.states.len() as u64, told.errors.len()), (COMMITS, 0), "without a fault");
        Call::ALL.map(|call| (call, disk.calls(call)))
    }

    /// Gives a fault of each kind for each call: of writes that are cut short one of the two, and for good every third.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (call, count) in self.calls() {
            for at in 0..count {
                let fault = Fault::once(call, at);
                faults.push(fault);
                if at.is_multiple_of(7) {
                    faults.push(fault.with(Failure::Panic));
                }
                if call != Call::Read {
                    faults.push(fault.with(Failure::Full));
                }
                if call == Call::Write {
                    let is_half = Random::new(at).percent(50);
                    let short = if is_half { Failure::FullHalfWay } else { Failure::FullAtTheEnd };
                    faults.push(fault.with(short));
                }
                if matches!(call, Call::Write | Call::SetLength) && at.is_multiple_of(3) {
                    faults.push(fault.with(Failure::Full).lasting());
                }
            }
        }
        faults
    }

    /// Runs it with a fault.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn with(&self, fault: Fault) -> Result<Survived, String> {
        let disk = FaultyDisk::holding(self.base.clone(), Plan { fault: Some(fault), ..Plan::default() });
        let tried = catch_unwind(AssertUnwindSafe(|| self.run_and_look(&disk, fault)));
        tried.unwrap_or_else(|_| Err("a panic".to_owned()))
    }

    fn run_and_look(&self, disk: &FaultyDisk, fault: Fault) -> Result<Survived, String> {
        let mut told = self.run(disk, Some(fault))?;
        if disk.syncs_after_failure() > 0 && !told.is_anew {
            return Err("a sync that failed was tried again".to_owned());
        }
        let mut images = Vec::new();
        images.extend(told.last.take().map(|image| ("after a loss of power at the end", image)));
        let dropped = disk.current();
        if told.first.as_ref().is_none_or(|(_, [kept, _])| *kept != dropped) {
            images.push(("after it was dropped", dropped));
        }
        let (mut count, mut refused_came_up) = (0, false);
        for (when, image) in images {
            let came_up = self.look(when, image, &told).map_err(|what| format!("{when}: {what}"))?;
            refused_came_up |= came_up;
            count += 1;
        }
        if let Some((told, [kept, lost])) = told.first.take() {
            let is_other = kept != lost;
            let images = [("at the first error", kept), ("at the first error, with a loss of power", lost)];
            for (when, image) in images.into_iter().take(1 + usize::from(is_other)) {
                let came_up = self.look(when, image, &told).map_err(|what| format!("{when}: {what}"))?;
                refused_came_up |= came_up;
                count += 1;
            }
        }
        Ok(Survived {
            is_hit: disk.calls(fault.call) > fault.at,
            errors: told.errors.len() as u64,
            is_unknown: told.unknown.is_some(),
            went_on: told.went_on,
            took_back: told.took_back,
            refused_came_up,
            images: count,
        })
    }

    /// Runs it until the handle is dropped.
    fn run(&self, disk: &FaultyDisk, fault: Option<Fault>) -> Result<Told, String> {
        let (clock, seed) = (Arc::new(ManualClock::at(1_000_000)), fault.map_or(0, |fault| fault.at));
        let mut told = Told {
            states: Vec::new(),
            durable: 0,
            unknown: None,
            refused: None,
            is_sync: fault.is_some_and(|fault| fault.call == Call::Sync),
            is_cut_short: fault
                .is_some_and(|fault| matches!(fault.failure, Failure::FullHalfWay | Failure::FullAtTheEnd)),
            is_anew: false,
            is_final: false,
            said_poisoned: false,
            took_back: false,
            errors: Vec::new(),
            went_on: false,
            first: None,
            last: None,
        };
        let larder = match disk.open(options(&clock), true) {
            Ok(larder) => larder,
            Err(error) => {
                told.take(&error, "opening")?;
                told.look_at(disk, seed);
                return Ok(told);
            }
        };
        let session = larder.session("ana").map_err(|error| format!("a session: {error}"))?;
        for commit in 1..=COMMITS {
            self.commit(&session, commit, &mut told)?;
            told.look_at(disk, seed);
            self.read(&session, commit, &mut told)?;
            told.look_at(disk, seed);
            clock.advance(1_000);
            let kept = match commit % 50 {
                20 | 40 => larder.upkeep(clock.now()).map(|_| false),
                49 => larder.flush().map(|()| true),
                _ => continue,
            };
            match kept {
                Ok(true) => told.durable = told.states.len(),
                Ok(false) => {}
                Err(error) => told.take(&error, "upkeep")?,
            }
            told.look_at(disk, seed);
        }
        if !told.is_final {
            told.last = Some(lost(disk, seed + 1));
        }
        Ok(told)
    }

    fn commit(&self, session: &Session, commit: u64, told: &mut Told) -> Result<(), String> {
        let (changes, after) = next(&told.state(), commit);
        let is_lazy = commit % 8 == 3;
        let session = session.clone();
        let session = if is_lazy { session.durability(Durability::Lazy) } else { session };
        let write = |txn: &mut WriteTxn<'_>| self.change(txn, commit, &changes);
        let done = if commit.is_multiple_of(5) {
            session.write_once(&name(commit), write).map(drop)
        } else {
            session.write(write).map(drop)
        };
        let was_final = told.is_final;
        match done {
            Ok(()) if was_final => {
                return Err(format!(
                    "commit {commit} was acknowledged by a handle that accepts nothing: {:?}",
                    told.errors
                ));
            }
            Ok(()) => {
                told.went_on |= !told.errors.is_empty();
                told.took_back |= told.said_poisoned;
                told.states.push((commit, after));
                told.refused = None;
                if !is_lazy {
                    told.durable = told.states.len();
                }
            }
            Err(error) => {
                told.take(&error, "a commit")?;
                if matches!(error.kind(), ErrorKind::OutcomeUnknown { .. }) {
                    if was_final {
                        return Err(format!(
                            "commit {commit} of a handle that accepts nothing: {:?}",
                            told.errors
                        ));
                    }
                    told.unknown = Some((commit, after));
                } else if told.is_cut_short && told.refused.is_none() {
                    told.refused = Some((commit, after));
                }
            }
        }
        Ok(())
    }

    fn change(&self, txn: &mut WriteTxn<'_>, commit: u64, changes: &[Change]) -> larder::Result<()> {
        for change in changes {
            match *change {
                Change::Put(at) => {
                    let draft = Draft::bytes(self.payloads[commit as usize].clone());
                    txn.put(key(at), draft.tag(format!("t{}", commit % 3))).map(drop)?;
                }
                Change::Delete(at) => txn.delete(key(at)).map(drop)?,
                Change::Rename(from, to) => txn.apply(larder::Edit::rename(key(from), key(to))).map(drop)?,
            }
        }
        txn.put(COUNT, commit.to_string()).map(drop)
    }

    /// Reads a key, and now and then the names of all; what it is told is right.
    fn read(&self, session: &Session, commit: u64, told: &mut Told) -> Result<(), String> {
        let at = (commit as usize * 13) % KEYS;
        let state = told.state();
        match session.get(key(at)).and_then(|asset| asset.bytes()) {
            Ok(bytes) if state[at] > 0 && bytes == self.payloads[state[at] as usize] => {}
            Ok(_) => return Err(format!("after commit {commit}: other bytes under {}", key(at))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) && state[at] == 0 => {}
            Err(error) => told.take(&error, "a read")?,
        }
        if commit.is_multiple_of(25) {
            match self.found(session) {
                Ok(found) if found == state => {}
                Ok(_) => return Err(format!("after commit {commit}: something else is there")),
                Err(error) => told.take(&error, "a walk")?,
            }
        }
        Ok(())
    }

    /// Gives what is there, by what the payloads say.
    fn found(&self, session: &Session) -> larder::Result<State> {
        let view = session.snapshot()?;
        let mut found = [0; KEYS];
        for row in view.walk("k")? {
            let (path, _) = row?;
            let at = (0..KEYS).find(|at| key(*at) == path.as_str()).ok_or_else(|| Error::abort(&path))?;
            let bytes = view.get(&path)?.bytes()?;
            let of = self.payloads.iter().position(|payload| *payload == bytes);
            found[at] = of.ok_or_else(|| Error::abort(format!("other bytes under {path}")))? as u64;
        }
        Ok(found)
    }

    /// Opens what a disk holds, and tells what is not as it must be; otherwise whether what was refused came up.
    fn look(&self, when: &str, image: Image, told: &Told) -> Result<bool, String> {
        let clock = Arc::new(ManualClock::at(9_000_000));
        let disk = FaultyDisk::holding(image, Plan::default());
        let options = options(&clock).cache_bytes(1 << 20);
        let larder = disk.open(options, true).map_err(|error| format!("does not open: {error}"))?;
        let count = self.judge(&larder, told)?;
        let report = larder.verify(&mut |_| {}).map_err(|error| format!("verify: {error}"))?;
        if !report.is_clean() {
            return Err(format!("verify: {:?}", report.findings));
        }
        let next = larder.session("bob").and_then(|session| session.put("next", "x"));
        next.map_err(|error| format!("the next commit: {error}"))?;
        let came_up = told.refused.is_some_and(|(refused, _)| refused == count);
        if came_up && !when.contains("loss of power") {
            return Err(format!("commit {count} was refused"));
        }
        Ok(came_up)
    }

    /// Gives the last commit that came up.
    fn judge(&self, larder: &Larder, told: &Told) -> Result<u64, String> {
        let reading = |error: Error| format!("reading what came up: {error}");
        let session = larder.session("ana").map_err(reading)?;
        let count = match session.get(COUNT).and_then(|asset| asset.bytes()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).parse().map_err(|_| "another count".to_owned())?,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => 0,
            Err(error) => return Err(reading(error)),
        };
        let found = self.found(&session).map_err(reading)?;
        let acknowledged = told.states.iter().skip(told.durable.saturating_sub(1));
        let mut may_be = acknowledged.chain(&told.unknown).chain(&told.refused);
        let expected = match may_be.find(|(commit, _)| *commit == count) {
            Some((_, state)) => *state,
            None if count == 0 && told.durable == 0 => [0; KEYS],
            None => {
                let (durable, last) = (told.durable.checked_sub(1), told.states.last());
                let durable = durable.and_then(|at| told.states.get(at)).map(|(commit, _)| *commit);
                let (last, unknown) =
                    (last.map(|(commit, _)| *commit), told.unknown.map(|(commit, _)| commit));
                return Err(format!(
                    "commit {count} is the last: on disk has to be {durable:?}, acknowledged was {last:?}, \
                     unknown is {unknown:?}"
                ));
            }
        };
        if found != expected {
            return Err(format!("it is not what commit {count} left"));
        }
        let is_in = |commit: u64| {
            let is_told = told.states.iter().any(|(told, _)| *told == commit);
            let mut not_told = told.unknown.iter().chain(&told.refused);
            commit <= count && (is_told || not_told.any(|(other, _)| *other == commit))
        };
        for commit in (5..=COMMITS).step_by(5) {
            let outcome = session.outcome_of(&name(commit)).map_err(reading)?;
            if matches!(outcome, CommitOutcome::Committed(_)) != is_in(commit) {
                return Err(format!("commit {commit} of {count}: its outcome is {outcome:?}"));
            }
        }
        Ok(count)
    }
}
