//! What threads are to do, made of a seed.

use larder::Durability;

use crate::Random;

const KEYS: [&str; 7] = ["a", "b", "c", "d", "d/e", "d/f", "d/f/g"];
const PLACES: [&str; 4] = ["", "d", "d", "d/f"];
/// How many views a thread holds at most.
pub(super) const VIEWS: usize = 2;

/// What several threads are to do. Two of the same seed are the same; how often which call comes differs from seed to seed.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) threads: Vec<Vec<Instruction>>,
}

/// On what condition a change is to be made. Which generation was seen is known when it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Always,
    IfAbsent,
    IfThere,
    /// If the key has the generation that the thread saw last.
    IfAsSeen,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Plan {
    Put(&'static str, u64, When),
    Delete(&'static str, When),
    Rename(&'static str, &'static str, When),
    DeleteTree(&'static str),
}

/// What is done in a transaction, or with a view.
#[derive(Debug, Clone, Copy)]
pub(super) enum Move {
    Read(&'static str),
    Walk(&'static str),
    Change(Plan),
    /// Others go first, if they want to.
    Yield,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Commit,
    /// Without waiting for it.
    Submit,
    /// The closure gives an error.
    Abandon,
}

#[derive(Debug, Clone)]
pub(super) enum Instruction {
    Get(&'static str),
    Edit(Plan, Durability),
    Write(Vec<Move>, Ending, Durability),
    /// To take a view in place of one that is held, and read from it.
    View(usize, Vec<Move>),
    /// To read from a view that is held.
    Look(usize, Vec<Move>),
    /// To wait for what was submitted last.
    Await,
    Flush,
    /// To recount everything, for which all that is visible is drained into the store.
    Verify,
}

impl Program {
    /// Makes the program of a seed: so many threads, so many calls of each.
    pub fn new(seed: u64, threads: usize, calls: usize) -> Self {
        let mut random = Random::new(seed);
        let mut weights = [0; 8];
        for weight in &mut weights {
            *weight = if random.percent(20) { 0 } else { 1 + random.below(6) };
        }
        // Without these there is nothing to see.
        weights[1] = weights[1].max(2);
        weights[2] = weights[2].max(2);
        let mut maker = Maker { keys: 2 + random.below(KEYS.len() - 1), random, weights, values: 0 };
        let threads = (0..threads).map(|_| (0..calls).map(|_| maker.instruction()).collect()).collect();
        Self { threads }
    }
}

struct Maker {
    random: Random,
    weights: [usize; 8],
    /// How many keys are used.
    keys: usize,
    /// How many values were put.
    values: u64,
}

impl Maker {
    fn instruction(&mut self) -> Instruction {
        let mut at = self.random.below(self.weights.iter().sum());
        let kind = self.weights.iter().position(|weight| {
            let is_this = at < *weight;
            at = at.saturating_sub(*weight);
            is_this
        });
        let view = self.random.below(VIEWS);
        match kind.unwrap_or(0) {
            0 => Instruction::Get(self.key()),
            1 => Instruction::Edit(self.plan(), self.durability()),
            2 => {
                let moves = (0..1 + self.random.below(5)).map(|_| self.movement(60)).collect();
                let ending = match self.random.below(10) {
                    0 => Ending::Abandon,
                    1..=3 => Ending::Submit,
                    _ => Ending::Commit,
                };
                Instruction::Write(moves, ending, self.durability())
            }
            3 => Instruction::View(view, self.reads()),
            4 => Instruction::Look(view, self.reads()),
            5 => Instruction::Await,
            6 => Instruction::Flush,
            _ => Instruction::Verify,
        }
    }

    fn reads(&mut self) -> Vec<Move> {
        (0..1 + self.random.below(5)).map(|_| self.movement(0)).collect()
    }

    fn movement(&mut self, changes: usize) -> Move {
        if self.random.percent(changes) {
            return Move::Change(self.plan());
        }
        match self.random.below(8) {
            0 => Move::Walk(self.place()),
            1 => Move::Yield,
            _ => Move::Read(self.key()),
        }
    }

    fn plan(&mut self) -> Plan {
        let when = *self.random.pick(&[When::Always, When::IfAbsent, When::IfThere, When::IfAsSeen]);
        let key = self.key();
        match self.random.below(10) {
            0 | 1 => Plan::Delete(key, when),
            2 => match self.key() {
                to if to != key => Plan::Rename(key, to, when),
                _ => Plan::Delete(key, when),
            },
            3 if self.random.percent(40) => Plan::DeleteTree(self.place()),
            _ => {
                self.values += 1;
                let when = if self.random.percent(40) { When::Always } else { when };
                Plan::Put(key, self.values, when)
            }
        }
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.random.below(self.keys)]
    }

    fn place(&mut self) -> &'static str {
        PLACES[self.random.below(PLACES.len())]
    }

    fn durability(&mut self) -> Durability {
        match self.random.below(4) {
            0 => Durability::Lazy,
            1 => Durability::Window { milliseconds: 5 },
            _ => Durability::Synced,
        }
    }
}
