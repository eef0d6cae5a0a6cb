//! How much of what there is: counted in the commit that changes it, read without a scan.
//!
//! One row of the table `state`, `statistics`: entries `[name length u8][assets i64][bytes i64][name]` in the order
//! of their names. `t` counts all assets, `p` those that no policy may remove, `f:NAME` those of a data format, `s:NAME` those
//! of a status. Names are cut
//! after 255 bytes.

use std::collections::{BTreeMap, BTreeSet};

use larder_format::Record;

use crate::error::Result;
use crate::store::corrupt;

/// How many assets, and the sum of the lengths of their payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// How many.
    pub assets: u64,
    /// The sum of the lengths of their payloads in bytes, before compression and deduplication.
    pub bytes: u64,
}

/// How much of what there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// All assets; explicit directories are counted by status only.
    pub total: Count,
    /// Those that no policy may remove: pinned, or nothing makes them again.
    pub protected: Count,
    /// By data format.
    pub by_format: BTreeMap<String, Count>,
    /// By status.
    pub by_status: BTreeMap<String, Count>,
}

/// How many, and their bytes; may be less than nothing in what a transaction counts.
type Counts = (i64, i64);

fn sum(left: Counts, right: Counts) -> Counts {
    (left.0.saturating_add(right.0), left.1.saturating_add(right.1))
}

/// The rows behind the statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StatisticsMap(BTreeMap<Vec<u8>, Counts>);

impl StatisticsMap {
    /// Counts a record in, or with a weight of -1 out.
    pub(crate) fn count(&mut self, record: &Record, weight: i64) {
        let bytes = i64::try_from(record.payload().length()).unwrap_or(i64::MAX).saturating_mul(weight);
        let status = record.status();
        self.add(&[b"s:", status.name().as_bytes()], (weight, bytes));
        if !record.is_directory() {
            self.add(&[b"t"], (weight, bytes));
            if record.is_protected() {
                self.add(&[b"p"], (weight, bytes));
            }
            self.add(&[b"f:", record.data_format().as_bytes()], (weight, bytes));
        }
    }

    fn add(&mut self, name: &[&[u8]], counts: Counts) {
        let mut name = name.concat();
        name.truncate(usize::from(u8::MAX));
        let entry = self.0.entry(name).or_default();
        *entry = sum(*entry, counts);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what a transaction counted; what is left of nothing goes.
    pub(crate) fn add_all(&mut self, delta: Self) {
        for (name, counts) in delta.0 {
            let counts = sum(self.0.get(&name).copied().unwrap_or_default(), counts);
            if counts == (0, 0) {
                self.0.remove(&name);
            } else {
                self.0.insert(name, counts);
            }
        }
    }

    /// Gives the counters that are not the same in another: their names, and what they are here and there, where 0 is for
    /// none.
    pub(crate) fn differences(&self, other: &Self) -> Vec<(String, [(i64, i64); 2])> {
        let names: BTreeSet<&Vec<u8>> = self.0.keys().chain(other.0.keys()).collect();
        let of = |map: &Self, name| map.0.get(name).copied().unwrap_or_default();
        names
            .into_iter()
            .map(|name| (name.escape_ascii().to_string(), [of(self, name), of(other, name)]))
            .filter(|(_, [here, there])| here != there)
            .collect()
    }

    /// Gives the bytes of all payloads, or of those that no policy may remove.
    pub(crate) fn bytes(&self, name: &[u8]) -> i64 {
        self.0.get(name).map_or(0, |(_, bytes)| *bytes)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_with(&Self::default())
    }

    /// Encodes what [`add_all`](Self::add_all) would leave.
    pub(crate) fn encode_with(&self, delta: &Self) -> Vec<u8> {
        let mut row = Vec::with_capacity((self.0.len() + delta.0.len()) * 32);
        let (mut ours, mut theirs) = (self.0.iter().peekable(), delta.0.iter().peekable());
        while let Some(name) = [ours.peek(), theirs.peek()].into_iter().flatten().map(|(name, _)| *name).min()
        {
            let rows = [&mut ours, &mut theirs].into_iter();
            let counts = rows.filter_map(|rows| rows.next_if(|row| row.0 == name));
            let (assets, bytes) = counts.fold((0, 0), |all, (_, counts)| sum(all, *counts));
            if (assets, bytes) == (0, 0) {
                continue;
            }
            row.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            row.extend_from_slice(&assets.to_le_bytes());
            row.extend_from_slice(&bytes.to_le_bytes());
            row.extend_from_slice(name);
        }
        row
    }

    /// Reads the row of the statistics; there is none in a new store.
    pub(crate) fn load(row: Option<&[u8]>) -> Result<Self> {
        let mut rest = row.unwrap_or_default();
        let mut statistics = Self::default();
        while !rest.is_empty() {
            let entry = || {
                let (length, rest) = rest.split_first()?;
                let (assets, rest) = rest.split_first_chunk::<8>()?;
                let (bytes, rest) = rest.split_first_chunk::<8>()?;
                let (name, rest) = rest.split_at_checked(usize::from(*length))?;
                Some((name, (i64::from_le_bytes(*assets), i64::from_le_bytes(*bytes)), rest))
            };
            let (name, count, after) =
                entry().ok_or_else(|| corrupt("the row of the statistics is malformed"))?;
            statistics.0.insert(name.to_vec(), count);
            rest = after;
        }
        Ok(statistics)
    }

    /// Gives the statistics in their public form.
    pub(crate) fn public(&self) -> Statistics {
        let mut statistics = Statistics::default();
        for (name, (assets, bytes)) in &self.0 {
            let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
            let count = Count { assets: unsigned(*assets), bytes: unsigned(*bytes) };
            match name.split_at_checked(2) {
                Some((b"f:", name)) => {
                    statistics.by_format.insert(String::from_utf8_lossy(name).into_owned(), count);
                }
                Some((b"s:", name)) => {
                    statistics.by_status.insert(String::from_utf8_lossy(name).into_owned(), count);
                }
                _ if name.as_slice() == b"p" => statistics.protected = count,
                _ => statistics.total = count,
            }
        }
        statistics
    }
}
