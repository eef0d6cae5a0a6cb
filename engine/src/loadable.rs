//! What may be served as a hit: found, finished, not volatile, in time, made from what is still so, and readable.

use bytes::Bytes;
use larder_format::{AbsentReason, Dependency, Key, NEVER, Node, PayloadState, Record, Right, Status};

use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::guard::Row;
use crate::primitives::{external_key, version_in};
use crate::store::Table;
use crate::txn::{Asset, Reading};

/// What a reader gets who asks for what may be served.
#[derive(Debug)]
#[must_use]
pub enum Lookup {
    /// It is there, and may be served.
    Hit(Asset),
    /// It is not to be served, and why.
    Miss(Miss),
}

impl Lookup {
    /// Gives the asset, if it is a hit.
    pub fn hit(self) -> Option<Asset> {
        match self {
            Self::Hit(asset) => Some(asset),
            Self::Miss(_) => None,
        }
    }

    /// Gives why it is a miss, if it is one.
    #[must_use]
    pub fn miss(&self) -> Option<&Miss> {
        match self {
            Self::Hit(_) => None,
            Self::Miss(miss) => Some(miss),
        }
    }
}

/// Why something that is there is not to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// It is never to be served again.
    Volatile,
    /// It is past its time, or was marked as expired.
    Expired,
    /// It has another status than one of something that is finished and good.
    Status(Status),
    /// What it was made from has changed, or is gone.
    Stale {
        /// What it was made from, in the version that was seen.
        seen: Dependency,
        /// The version that there is, 0 where the caller may not know it; nothing, if it is gone.
        found: Option<u128>,
    },
    /// There is no payload.
    Absent(AbsentReason),
    /// The payload is not what was put.
    Corrupt(String),
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Volatile => f.write_str("it is volatile"),
            Self::Expired => f.write_str("it has expired"),
            Self::Status(status) => write!(f, "its status is {status}"),
            Self::Stale { seen, found: None } => write!(f, "{} is gone", seen.on),
            Self::Stale { seen, found: Some(0) } => write!(f, "{} has changed", seen.on),
            Self::Stale { seen, found: Some(found) } => {
                write!(
                    f,
                    "{} has changed: version {:032x} was seen, {found:032x} is there",
                    seen.on, seen.version
                )
            }
            Self::Absent(reason) => write!(f, "it has no payload: {reason}"),
            Self::Corrupt(what) => write!(f, "its payload is damaged: {what}"),
        }
    }
}

/// Says why a record alone is not to be served now.
pub(crate) fn miss_of<B: AsRef<[u8]>>(record: &Record<B>, clock: &dyn Clock) -> Option<Miss> {
    if record.is_volatile() {
        return Some(Miss::Volatile);
    }
    if !record.status_properties().is_loadable {
        return Some(match record.status() {
            Status::Expired => Miss::Expired,
            other => Miss::Status(other),
        });
    }
    // A clock takes longer to look at than all the rest.
    if record.expires() != NEVER && record.expires() <= clock.now() {
        return Some(Miss::Expired);
    }
    match record.payload() {
        PayloadState::Absent(reason) => Some(Miss::Absent(reason)),
        _ => None,
    }
}

/// Answers from a row alone, where that is enough: small, and made from nothing.
pub(crate) fn from_row(key: &Key, row: &Row, payload: &Bytes, clock: &dyn Clock) -> Option<Lookup> {
    if let Some(miss) = miss_of(&row.record, clock) {
        return Some(Lookup::Miss(miss));
    }
    let is_alone = row.record.section(larder_format::SectionTag::Dependencies.number()).is_none();
    Asset::of_row(key, row, payload).filter(|_| is_alone).map(Lookup::Hit)
}

impl Reading<'_, '_> {
    /// Gives an asset if it may be served now.
    pub(crate) fn loadable(&self, key: &Key, clock: &dyn Clock) -> Result<Lookup> {
        let row = self.found(key)?;
        if let Some(lookup) = from_row(key, &row, &Bytes::new(), clock) {
            return Ok(lookup);
        }
        if let Some(miss) = self.stale(&row.record)? {
            return Ok(Lookup::Miss(miss));
        }
        match self.asset_of(key, row) {
            Ok(asset) => Ok(Lookup::Hit(asset)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => {
                Ok(Lookup::Miss(Miss::Corrupt(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }

    /// Says what a record was made from that is no longer so.
    pub(crate) fn stale(&self, record: &Record) -> Result<Option<Miss>> {
        for seen in record.dependencies() {
            let found = self.version_of(&seen.on)?;
            if found.is_none_or(|found| !seen.matches(found)) {
                let found = self.told(&seen.on, found);
                return Ok(Some(Miss::Stale { seen, found }));
            }
        }
        Ok(None)
    }

    /// What may be said of a version: of what the caller may not read neither which it is, nor whether it is there.
    pub(crate) fn told(&self, node: &Node, version: Option<u128>) -> Option<u128> {
        match node {
            Node::Asset(key) if !self.guard.allows(Right::READ, key) => Some(0),
            _ => version,
        }
    }

    /// Gives the version of something that others depend on; nothing, if it is gone.
    pub(crate) fn version_of(&self, node: &Node) -> Result<Option<u128>> {
        match node {
            Node::Asset(key) => Ok(self.row(key)?.map(|row| row.record.version())),
            Node::External(name) => {
                let row = self.view.get(self.own, Table::Edges, &external_key(name))?;
                Ok(Some(row.map_or(0, |row| version_in(&row))))
            }
            _ => Ok(Some(0)),
        }
    }
}
