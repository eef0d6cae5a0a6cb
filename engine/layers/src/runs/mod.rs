//! A store of what pipelines make: assets and their partitions, the runs that made them, what they were made from; and of what
//! pipelines wait for.
//!
//! - [Making](Runs::start): a value, its state, its lineage and the audit of it are [one commit](Runs::commit).
//! - [Planning](Runs::missing): which partitions are still to be made; what is [below](Runs::impact) one that changes.
//! - [Barriers](Runs::open_barrier): many items, done in any order by anybody, and one who finds that all are.
//! - [Gates](Runs::open_gate) and [approvals](Runs::request_approval): somebody outside says something, once.
//! - [Routes](Runs::route), [slots](Runs::take_slot), [schedules](Runs::set_schedule), [runs](Runs::set_run) and their
//!   configuration.
//!
//! ```
//! use larder::Options;
//! use larder_layers::runs::{Asset, Produced, Runs, RunsError};
//!
//! let ana = Options::new().open_in_memory()?.session("ana")?;
//! let runs = Runs::at("runs")?;
//! let (orders, report) = (Asset::of("orders", "2026-11-21")?, Asset::of("report", "2026-11-21")?);
//! for (asset, value, from) in [(&orders, "7 soups", vec![]), (&report, "soup is liked", vec![orders.clone()])] {
//!     let ticket = ana.try_write(|txn| runs.start(txn, asset, "run 1"))?.value;
//!     // ... make it ...
//!     ana.try_write(|txn| runs.commit(txn, &ticket, Produced::new("text", value).from(from)))?;
//! }
//! let view = ana.snapshot()?;
//! let below = runs.impact(&view, &orders, 10)?;
//! assert_eq!(below[0].asset, report);
//! # Ok::<(), RunsError>(())
//! ```
//!
//! # Invariants
//!
//! 1. Where something was made with success, its value, its lineage and its audit are there: one commit brought them.
//! 2. A state changes by comparison with what it was, in the transaction that read it. What is counted of items are aggregates
//!    of their rows, so it only moves when they do.
//! 3. Values of partitions are typed: 1, 1.0 and "1" are three partitions, and none is one, too.

mod approval;
mod barrier;
mod error;
mod gate;
mod lineage;
mod made;
mod plan;
mod remove;

use larder::format::TupleError;
use larder::{IntoKey, Key, Part, RowDraft, Tuple, WriteTxn};

pub use approval::{Approval, ApprovalState, Decided};
pub use barrier::{
    Added, Barrier, BarrierDraft, BarrierId, BarrierState, CalledOff, Item, ItemState, Oversize, Progress,
};
pub use error::RunsError;
pub use gate::{Gate, GateDraft, GateState, OnTimeout, Signaled, SweptGates};
pub use lineage::{Impact, Made};
pub use made::{AuditRow, Committed, LineageMode, MadeState, Materialization, Produced, Ticket};
pub use plan::{Route, Run, RunState, RunsHealth, Schedule, Slot};

use crate::once::Decisions;
use crate::place::open;

/// The result of an operation of a store of runs.
type Result<T> = std::result::Result<T, RunsError>;

/// The most bytes of what a gate or an approval is of.
const OF_LENGTH_MAX: usize = 2_048;
/// The most bytes of the name of an asset, a run, or whatever else has one.
pub const NAME_LENGTH_MAX: usize = 255;
/// The most bytes that a partition takes as a part of a key.
pub const PARTITION_LENGTH_MAX: usize = 1_024;

/// An asset, or a partition of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asset {
    name: String,
    partition: Part,
    encoded: Vec<u8>,
}

impl Asset {
    /// Names a partition of an asset; [`Part::Nil`] for one that has none.
    ///
    /// # Errors
    /// [`InvalidName`](RunsError::InvalidName) for a name that is blank or longer than 255 bytes, and for a partition that is no
    /// part of a key, or takes more than 1 024 bytes there.
    pub fn of(name: impl Into<String>, partition: impl Into<Part>) -> Result<Self> {
        let (name, partition) = (name.into(), partition.into());
        check_name("asset", &name, NAME_LENGTH_MAX)?;
        let invalid = |got: String| RunsError::InvalidName {
            argument: "partition",
            expected: format!("a value that takes at most {PARTITION_LENGTH_MAX} bytes in a key"),
            got,
        };
        let encoded =
            Tuple::encode(std::slice::from_ref(&partition)).map_err(|error| invalid(error.to_string()))?;
        if encoded.len() > PARTITION_LENGTH_MAX {
            return Err(invalid(format!("{} bytes", encoded.len())));
        }
        Self::encode(name, partition).map_err(|error| invalid(error.to_string()))
    }

    fn encode(name: String, partition: Part) -> std::result::Result<Self, TupleError> {
        let encoded = Tuple::encode(&[name.as_str().into(), partition.clone()])?;
        Ok(Self { name, partition, encoded })
    }

    /// Gives the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the partition.
    #[must_use]
    pub fn partition(&self) -> &Part {
        &self.partition
    }

    fn parts(&self) -> Vec<Part> {
        vec![self.name.as_str().into(), self.partition.clone()]
    }

    /// What stands for it where lists may not be nested as deep as in a key: its encoding, which has the same order.
    fn node(&self) -> Part {
        Part::Bytes(self.encoded.clone())
    }

    fn of_parts(parts: &[Part]) -> Option<Self> {
        match parts {
            [Part::String(name), partition, ..] => Self::encode(name.clone(), partition.clone()).ok(),
            _ => None,
        }
    }

    fn of_node(node: &Part) -> Option<Self> {
        let Part::Bytes(encoded) = node else { return None };
        Self::of_parts(Tuple::decode(encoded).ok()?.parts())
    }
}

impl std::fmt::Display for Asset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.partition {
            Part::Nil => f.write_str(&self.name),
            Part::String(text) => write!(f, "{}[{text}]", self.name),
            Part::Integer(number) => write!(f, "{}[{number}]", self.name),
            Part::Date(date) => {
                write!(f, "{}[{:04}-{:02}-{:02}]", self.name, date.year(), date.month(), date.day())
            }
            other => write!(f, "{}[{other:?}]", self.name),
        }
    }
}

fn check_name(argument: &'static str, name: &str, length_max: usize) -> Result<()> {
    if name.trim().is_empty() || name.len() > length_max || name.chars().any(char::is_control) {
        let expected = format!("1 to {length_max} bytes, not all of them blank, without control characters");
        let got = match name.len() {
            length if length > length_max => format!("{length} bytes"),
            _ => format!("{name:?}"),
        };
        return Err(RunsError::InvalidName { argument, expected, got });
    }
    Ok(())
}

/// Refuses what leaves no room in its row for what is written of it later.
fn check_of(of: &Part) -> Result<()> {
    let length = Tuple::encode(std::slice::from_ref(of)).map_or(usize::MAX, |encoded| encoded.len());
    if length > OF_LENGTH_MAX {
        let (expected, got) = (format!("at most {OF_LENGTH_MAX} bytes"), format!("{length} bytes"));
        return Err(RunsError::InvalidName { argument: "of", expected, got });
    }
    Ok(())
}

/// Gives the text of a part of a key.
fn text_of(part: Option<&Part>) -> String {
    match part {
        Some(Part::String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Runs and what they make, below a key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runs {
    key: Key,
    made: Key,
    values: Key,
    lineage: Key,
    audit: Key,
    barriers: Key,
    gates: Key,
    approvals: Key,
    runs: Key,
    schedules: Key,
    slots: Key,
    routes: Decisions,
}

impl Runs {
    /// Names the key that everything lies below. Stores below different keys know nothing of each other.
    ///
    /// # Errors
    /// [`InvalidKey`](larder::ErrorKind::InvalidKey).
    pub fn at(key: impl IntoKey) -> larder::Result<Self> {
        let key = key.into_key()?;
        let below = |name: &str| Ok::<Key, larder::Error>(key.join(name)?);
        Ok(Self {
            made: below("made")?,
            values: below("values")?,
            lineage: below("lineage")?,
            audit: below("audit")?,
            barriers: below("barriers")?,
            gates: below("gates")?,
            approvals: below("approvals")?,
            runs: below("runs")?,
            schedules: below("schedules")?,
            slots: below("slots")?,
            routes: Decisions::at(below("routes")?)?,
            key,
        })
    }

    /// Gives the key that everything lies below.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Writes down that something happened.
    fn note(
        &self,
        txn: &mut WriteTxn<'_>,
        event: &str,
        run: &str,
        asset: Option<&Asset>,
        details: &str,
    ) -> Result<()> {
        let (number, now, actor) = (txn.unique_number(), txn.info().time, txn.principal().to_owned());
        let mut draft = RowDraft::new(details.to_owned())
            .field("v", event)
            .field("u", run)
            .field("a", actor)
            .field("c", now);
        if let Some(asset) = asset {
            draft = draft.field("n", asset.node());
        }
        open(txn, &self.audit, made::audit_definition)?.put(number, draft)?;
        Ok(())
    }
}
