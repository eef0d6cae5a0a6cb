//! Retention: what is too old, too many or too large goes, oldest first, in bounded transactions.
//!
//! One scan says what would go; nothing is read twice, and nothing is kept but what goes. Each removal looks again, in
//! its own transaction, whether the asset is still as it was seen. What is pinned, what nothing makes again, and what
//! running work was made from stays.

use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use larder_format::{Key, Micros, Node, PayloadState, Prefix, Retention, RetentionReason, Status};

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
    /// What may go, the youngest on top: it is let go of as soon as those below suffice.
    old: BinaryHeap<Candidate>,
    old_bytes: u64,
    too_old: Vec<Leaving>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    age: Age,
    key: Key,
    bytes: u64,
    generation: u64,
    version: u128,
}

/// Says what would go at a time.
pub(crate) fn plan(txn: &ReadTxn, retention: &Retention, now: Micros) -> Result<RetentionReport> {
    let mut seen: Vec<Seen> = retention.rules.iter().map(|_| Seen::default()).collect();
    let needed = needed_by_claims(txn)?;
    let scanned = txn.scan(Prefix::root())?.fold(Vec::new, |rows: &mut Vec<Row>, asset| {
        rows.extend(row_of(asset, retention)?);
        Ok(())
    })?;
    for row in scanned.into_iter().flatten() {
        let (Some(rule), Some(seen)) = (retention.rules.get(row.rule), seen.get_mut(row.rule)) else {
            continue;
        };
        seen.count += 1;
        seen.bytes += row.candidate.bytes;
        if !row.may_go || needed.contains(&row.candidate.key) {
            continue;
        }
        let Candidate { age, key, bytes, generation, version } = row.candidate;
        if rule.age_max.is_some_and(|age_max| now.saturating_sub(age.updated) > age_max) {
            seen.count -= 1;
            seen.bytes -= bytes;
            let leaving = Leaving {
                key,
                bytes,
                updated: age.updated,
                reason: RetentionReason::Age,
                rule: row.rule + 1,
                generation,
                version,
            };
            seen.too_old.push(leaving);
        } else if rule.count_max.is_some() || rule.bytes_max.is_some() {
            seen.old_bytes += bytes;
            seen.old.push(Candidate { age, key, bytes, generation, version });
        }
    }
    let mut report = RetentionReport::default();
    for ((rule, mut seen), number) in retention.rules.iter().zip(seen).zip(1..) {
        seen.too_old.sort_by(|a, b| (a.updated, &a.key).cmp(&(b.updated, &b.key)));
        report.leaving.append(&mut seen.too_old);
        for Candidate { age, key, bytes, generation, version } in seen.old.into_sorted_vec() {
            let reason = if rule.count_max.is_some_and(|most| seen.count > most) {
                RetentionReason::Count
            } else if rule.bytes_max.is_some_and(|most| seen.bytes > most) {
                RetentionReason::Bytes
            } else {
                break;
            };
            seen.count -= 1;
            seen.bytes -= bytes;
            report.leaving.push(Leaving {
                key,
                bytes,
                updated: age.updated,
                reason,
                rule: number,
                generation,
                version,
            });
        }
    }
    report.bytes = report.leaving.iter().map(|leaving| leaving.bytes).sum();
    Ok(report)
}

/// An asset that a rule is about.
struct Row {
    rule: usize,
    may_go: bool,
    candidate: Candidate,
}

fn row_of(asset: &Scanned<'_>, retention: &Retention) -> Result<Option<Row>> {
    let record = asset.record();
    if record.is_directory() {
        return Ok(None);
    }
    let Some((rule, found)) = retention.rule_of(asset.encoded_key()) else { return Ok(None) };
    // A recipe by itself is nothing that takes room.
    let has_payload = !matches!(record.payload(), PayloadState::Absent(_));
    let may_go = found.may_remove(record) && (has_payload || record.status() != Status::Recipe);
    let age = Age { is_good: record.status() != Status::Expired, updated: record.updated() };
    let candidate = Candidate {
        age,
        key: asset.key()?,
        bytes: record.payload().length(),
        generation: record.generation(),
        version: record.version(),
    };
    Ok(Some(Row { rule, may_go, candidate }))
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
