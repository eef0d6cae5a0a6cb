//! Why an asset is what it is: what it came from, what came from it, and what keeps it from being served.

use larder_format::{Dependency, Key, LogEntry, Micros, Node, Prefix, Record, Right};

use crate::claim::ClaimInfo;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::loadable::{Miss, miss_of};
use crate::primitives::{
    ClaimRow, LOG_ENTRIES_MAX, Orphan, PROGRESS, Progress, decode_entry, decode_history, dependent_in,
    edges_of, numbered_key, numbered_of, numbered_prefix, version_in,
};
use crate::store::Table;
use crate::txn::{Asset, Reading};

/// What an asset was.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Former {
    /// The record, with its generation.
    pub record: Record,
    /// Until when it was so.
    pub until: Micros,
}

/// What is known about an asset beside its record.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Why {
    /// The record.
    pub record: Record,
    /// Why it is not served; nothing, if it is. A payload is not read for it.
    pub miss: Option<Miss>,
    /// What it was made from, in the version that was seen, and the version that there is: 0 where the caller may not know it,
    /// nothing if it is gone.
    pub made_from: Vec<(Dependency, Option<u128>)>,
    /// What was made from it, as far as the caller may list it.
    pub dependents: Vec<Key>,
    /// Who has claimed it.
    pub claim: Option<ClaimInfo>,
}

impl Reading<'_, '_> {
    pub(crate) fn why(&self, key: &Key, clock: &dyn Clock) -> Result<Why> {
        let record = self.record(key)?;
        let mut miss = miss_of(&record, clock);
        if miss.is_none() {
            miss = self.stale(&record)?;
        }
        let made_from = record.dependencies().into_iter().map(|seen| {
            let found = self.told(&seen.on, self.version_of(&seen.on)?);
            Ok((seen, found))
        });
        let made_from = made_from.collect::<Result<_>>()?;
        let claim = self.view.get(self.own, Table::Claims, &ClaimRow::key(key.encoded()))?;
        let claim = claim.map(|row| ClaimRow::decode(&row)).transpose()?;
        Ok(Why {
            miss,
            made_from,
            dependents: self.dependents(&Node::Asset(key.clone()))?,
            claim: claim.map(|row| ClaimInfo::new(key.clone(), row)),
            record,
        })
    }

    /// Gives the claims at and below a place, as far as the caller may list their keys.
    pub(crate) fn claims(&self, place: &Prefix) -> Result<Vec<ClaimInfo>> {
        let front = ClaimRow::key(place.encoded());
        let mut found = Vec::new();
        for row in self.view.prefix(self.own, Table::Claims, &front)? {
            let (row_key, row) = row?;
            let key = Key::decode(row_key.get(1..).unwrap_or_default());
            let key = key.map_err(|error| crate::store::corrupt(error.to_string()))?;
            if self.guard.allows(Right::LIST, &key) {
                found.push(ClaimInfo::new(key, ClaimRow::decode(&row)?));
            }
        }
        Ok(found)
    }

    /// Gives what is kept of the history of a key, oldest first.
    pub(crate) fn history(&self, key: &Key) -> Result<Vec<Former>> {
        self.guard.reading(key)?;
        let mut found = Vec::new();
        for row in self.view.prefix(self.own, Table::History, &numbered_prefix(key))? {
            let (_, body) = row?;
            let (until, row) = decode_history(&body)?;
            found.push(Former { record: row.record, until });
        }
        Ok(found)
    }

    /// Gives an asset as it was.
    pub(crate) fn former(&self, key: &Key, generation: u64) -> Result<Asset> {
        self.guard.reading(key)?;
        let body = self.view.get(self.own, Table::History, &numbered_key(key, generation))?;
        let body = body.ok_or_else(|| Error::from(ErrorKind::NotFound).at(key))?;
        self.asset_of(key, decode_history(&body)?.1)
    }

    /// Gives what was said of the work on an asset.
    pub(crate) fn log(&self, key: &Key) -> Result<(Vec<LogEntry>, Option<Progress>)> {
        self.found(key)?;
        let (mut entries, mut progress) = (Vec::new(), None);
        for row in self.view.prefix(self.own, Table::Logs, &numbered_prefix(key))? {
            let (row_key, body) = row?;
            match numbered_of(&row_key)?.1 {
                PROGRESS => progress = Some(Progress::decode(&body)?),
                _ => entries.push(decode_entry(&body)?),
            }
        }
        // A few more may be there, until the log is trimmed.
        entries.drain(..entries.len().saturating_sub(LOG_ENTRIES_MAX));
        Ok((entries, progress))
    }

    /// Gives the claims that were revoked.
    pub(crate) fn orphans(&self) -> Result<Vec<Orphan>> {
        let mut found = Vec::new();
        for row in self.view.prefix(self.own, Table::Claims, &Orphan::PREFIX)? {
            let (row_key, row) = row?;
            let orphan = Orphan::decode(&row_key, &row)?;
            if self.guard.allows(Right::LIST, &orphan.key) {
                found.push(orphan);
            }
        }
        Ok(found)
    }

    /// Gives what was made from something, as far as the caller may list it.
    pub(crate) fn dependents(&self, node: &Node) -> Result<Vec<Key>> {
        let all = self.edges_from(node)?.into_iter().map(|(key, _)| key);
        Ok(all.filter(|key| self.guard.allows(Right::LIST, key)).collect())
    }

    /// Gives what was made from something, with the version of it that was seen, whoever asks.
    pub(crate) fn edges_from(&self, node: &Node) -> Result<Vec<(Key, u128)>> {
        let front = edges_of(node);
        let mut found = Vec::new();
        for row in self.view.prefix(self.own, Table::Edges, &front)? {
            let (row_key, row) = row?;
            found.extend(dependent_in(&row_key, &front).map(|key| (key, version_in(&row))));
        }
        Ok(found)
    }
}
