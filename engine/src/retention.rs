//! Retention: what is too old, too many or too large goes, oldest first, in bounded transactions.
//!
//! One scan says what would go. What may go is kept in memory, by its key and little else, until all of it was seen: before,
//! nobody knows how much is too much. Each removal looks again, in its own transaction, whether the asset is still as it was
//! seen. What is pinned, what nothing makes again, and what
//! running work was made from stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use larder_format::{Key, Micros, Node, Prefix, Retention, RetentionReason, Status};

use crate::error::Result;
use crate::larder::Shared;
use crate::txn::{ReadTxn, Scanned};

/// How many assets go in one transaction.
const REMOVED_AT_ONCE: usize = 1_000;

/// An asset that goes, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaving {
    /// Its key.
    pub key: Key,
    /// The length of its payload, in bytes.
    pub bytes: u64,
    /// When it was last changed.
    pub updated: Micros,
    /// Why it goes.
    pub reason: RetentionReason,
    /// The rule that says so, counted from 1.
    pub rule: usize,
    generation: u64,
    version: u128,
}

/// What went, or would go.
#[derive(Debug, Clone, Default)]
#[must_use]
#[non_exhaustive]
pub struct RetentionReport {
    /// The assets, oldest first within a rule.
    pub leaving: Vec<Leaving>,
    /// The sum of the lengths of their payloads, in bytes.
    pub bytes: u64,
    /// How many of them were left because they had changed, or somebody is at work on them or with them, when it was
    /// their turn.
    pub kept: u64,
}

/// Looked at by age: what has expired first, then the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    /// False comes first, and goes first.
    is_good: bool,
    updated: Micros,
}

/// What a rule has seen.
#[derive(Default)]
struct Seen {
    count: u64,
    bytes: u64,
    too_old: Vec<Candidate>,
    /// What may go if all that there is turns out to be too much.
    others: Vec<Candidate>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    age: Age,
    key: Key,
    bytes: u64,
    generation: u64,
    version: u128,
}

impl Candidate {
    fn leaves(self, reason: RetentionReason, rule: usize) -> Leaving {
        let Self { age, key, bytes, generation, version } = self;
        Leaving { key, bytes, updated: age.updated, reason, rule, generation, version }
    }
}

/// Says what would go at a time.
pub(crate) fn plan(txn: &ReadTxn, retention: &Retention, now: Micros) -> Result<RetentionReport> {
    let needed = needed_by_claims(txn)?;
    let begin = || retention.rules.iter().map(|_| Seen::default()).collect();
    // One thread, and so one piece.
    let seen = txn
        .scan(Prefix::root())?
        .fold(begin, |seen: &mut Vec<Seen>, asset| look_at(asset, retention, &needed, now, seen))?;
    let mut report = RetentionReport::default();
    for ((rule, mut seen), number) in retention.rules.iter().zip(seen.into_iter().flatten()).zip(1..) {
        seen.too_old.sort_by(|a, b| (a.age.updated, &a.key).cmp(&(b.age.updated, &b.key)));
        let too_old = seen.too_old.into_iter();
        report.leaving.extend(too_old.map(|candidate| candidate.leaves(RetentionReason::Age, number)));
        seen.others.sort();
        for candidate in seen.others {
            let reason = if rule.count_max.is_some_and(|most| seen.count > most) {
                RetentionReason::Count
            } else if rule.bytes_max.is_some_and(|most| seen.bytes > most) {
                RetentionReason::Bytes
            } else {
                break;
            };
            seen.count -= 1;
            seen.bytes -= candidate.bytes;
            report.leaving.push(candidate.leaves(reason, number));
        }
    }
    report.bytes = report.leaving.iter().map(|leaving| leaving.bytes).sum();
    Ok(report)
}

/// Counts an asset for the rule that is about it, and keeps it if it may go.
fn look_at(
    asset: &Scanned<'_>,
    retention: &Retention,
    needed: &BTreeSet<Key>,
    now: Micros,
    seen: &mut [Seen],
) -> Result<()> {
    let record = asset.record();
    if record.is_directory() || record.is_collection() {
        return Ok(());
    }
    let Some((at, rule)) = retention.rule_of(asset.encoded_key()) else { return Ok(()) };
    let Some(seen) = seen.get_mut(at) else { return Ok(()) };
    let bytes = record.payload().length();
    let is_too_old = rule.age_max.is_some_and(|age_max| now.saturating_sub(record.updated()) > age_max);
    // A recipe by itself is nothing that takes room.
    let may_go = rule.may_remove(record) && (record.has_payload() || record.status() != Status::Recipe);
    let key = if may_go { Some(asset.key()?).filter(|key| !needed.contains(key)) } else { None };
    let candidate = key.map(|key| Candidate {
        age: Age { is_good: record.status() != Status::Expired, updated: record.updated() },
        key,
        bytes,
        generation: record.generation(),
        version: record.version(),
    });
    match candidate {
        // It goes whatever else there is, and does not count.
        Some(candidate) if is_too_old => {
            seen.too_old.push(candidate);
            return Ok(());
        }
        Some(candidate) if rule.count_max.is_some() || rule.bytes_max.is_some() => {
            seen.others.push(candidate)
        }
        _ => {}
    }
    seen.count += 1;
    seen.bytes += bytes;
    Ok(())
}

/// What is claimed, and what the assets under those keys were made from.
fn needed_by_claims(txn: &ReadTxn) -> Result<BTreeSet<Key>> {
    let mut needed = BTreeSet::new();
    for claim in txn.claims(Prefix::root())? {
        if let Ok(record) = txn.record(&claim.key) {
            needed.extend(record.dependencies().into_iter().filter_map(|dependency| match dependency.on {
                Node::Asset(key) => Some(key),
                _ => None,
            }));
        }
        needed.insert(claim.key);
    }
    Ok(needed)
}

/// Removes what goes, in bounded transactions.
pub(crate) fn carry_out(shared: &Arc<Shared>, mut report: RetentionReport) -> Result<RetentionReport> {
    let mut gone = Vec::with_capacity(report.leaving.len());
    let mut leaving = report.leaving.into_iter().peekable();
    while leaving.peek().is_some() {
        let batch: Vec<Leaving> = leaving.by_ref().take(REMOVED_AT_ONCE).collect();
        let mut went = Vec::with_capacity(batch.len());
        crate::upkeep::write_as_store(shared, |txn| {
            for leaving in batch {
                if txn.evict(&leaving.key, leaving.generation, leaving.version)? {
                    went.push(leaving);
                } else {
                    report.kept += 1;
                    report.bytes -= leaving.bytes;
                }
            }
            Ok(())
        })?;
        gone.append(&mut went);
    }
    report.leaving = gone;
    Ok(report)
}
