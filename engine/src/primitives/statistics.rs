//! How much of what there is: counted in the commit that changes it, read without a scan.
//!
//! Rows of the table `state`: `s:t` for all assets, `s:f:NAME` by data format, `s:s:NAME` by status; the value is
//! how many, and the sum of the lengths of their payloads, each u64.

use std::collections::BTreeMap;

use larder_format::Record;

use crate::error::Result;
use crate::store::{corrupt, state_key};

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
    /// By data format.
    pub by_format: BTreeMap<String, Count>,
    /// By status.
    pub by_status: BTreeMap<String, Count>,
}

/// The rows behind the statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StatisticsMap(BTreeMap<Vec<u8>, (i64, i64)>);

impl StatisticsMap {
    /// Counts a record in, or with a weight of -1 out.
    pub(crate) fn count(&mut self, record: &Record, weight: i64) {
        let bytes = i64::try_from(record.payload().length()).unwrap_or(i64::MAX).saturating_mul(weight);
        let status = record.status();
        self.add(&[b"s:", status.name().as_bytes()], (weight, bytes));
        if !record.is_directory() {
            self.add(&[b"t"], (weight, bytes));
            self.add(&[b"f:", record.data_format().as_bytes()], (weight, bytes));
        }
    }

    fn add(&mut self, name: &[&[u8]], (assets, bytes): (i64, i64)) {
        let key = [&[state_key::STATISTICS], name].concat().concat();
        let entry = self.0.entry(key).or_default();
        entry.0 = entry.0.saturating_add(assets);
        entry.1 = entry.1.saturating_add(bytes);
    }

    /// Adds what a transaction counted, and gives the rows that changed: `None` for one that is to go.
    pub(crate) fn absorb(&mut self, delta: &Self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut rows = Vec::with_capacity(delta.0.len());
        for (key, (assets, bytes)) in &delta.0 {
            if (*assets, *bytes) == (0, 0) {
                continue;
            }
            let entry = self.0.entry(key.clone()).or_default();
            entry.0 = entry.0.saturating_add(*assets);
            entry.1 = entry.1.saturating_add(*bytes);
            if *entry == (0, 0) {
                self.0.remove(key);
                rows.push((key.clone(), None));
            } else {
                rows.push((key.clone(), Some([entry.0.to_le_bytes(), entry.1.to_le_bytes()].concat())));
            }
        }
        rows
    }

    /// Gives the part of the statistics that `delta` changes, to be changed by way of trial.
    pub(crate) fn clone_for(&self, delta: &Self) -> Self {
        Self(delta.0.keys().filter_map(|key| Some((key.clone(), *self.0.get(key)?))).collect())
    }

    /// Takes in a row of the table `state`.
    pub(crate) fn load(&mut self, key: &[u8], row: &[u8]) -> Result<()> {
        let parts = row.split_first_chunk::<8>().zip(row.last_chunk::<8>()).filter(|_| row.len() == 16);
        let Some(((assets, _), bytes)) = parts else {
            return Err(corrupt("a row of the statistics is malformed"));
        };
        self.0.insert(key.to_vec(), (i64::from_le_bytes(*assets), i64::from_le_bytes(*bytes)));
        Ok(())
    }

    /// Gives the statistics in their public form.
    pub(crate) fn public(&self) -> Statistics {
        let mut statistics = Statistics::default();
        for (key, (assets, bytes)) in &self.0 {
            let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
            let count = Count { assets: unsigned(*assets), bytes: unsigned(*bytes) };
            let name = key.strip_prefix(state_key::STATISTICS).unwrap_or_default();
            match name.split_at_checked(2) {
                Some((b"f:", name)) => {
                    statistics.by_format.insert(String::from_utf8_lossy(name).into_owned(), count);
                }
                Some((b"s:", name)) => {
                    statistics.by_status.insert(String::from_utf8_lossy(name).into_owned(), count);
                }
                _ => statistics.total = count,
            }
        }
        statistics
    }
}
