//! Recounting everything: what is derived must equal what it is derived from.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use larder_format::{Claim, ContentHash, FeedRow, Key, PayloadState, Record, Strictness};

use crate::documents::Documents;
use crate::error::Result;
use crate::payload::{ChunkSource, PayloadReader, row_numbers};
use crate::primitives::{
    ClaimRow, ContentRow, Orphan, PROGRESS, Progress, Purpose, StatisticsMap, deadline_key, decode_entry,
    decode_history, edges_of, expiry_of, group_key, is_edge, numbered_of, tag_key, version_in,
};
use crate::store::{Table, chunk_key, state_key};
use crate::txn::View;

/// How many findings are kept; more are counted.
const FINDINGS_MAX: usize = 10_000;

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Where: a key, a tag, a payload.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What was recounted, and what was found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Records that were read.
    pub records: u64,
    /// Payloads whose digests were compared.
    pub payloads: u64,
    /// Chunks that are accounted for.
    pub chunks: u64,
    /// Rows of the tag index that were compared.
    pub tags: u64,
    /// Edges from what something was made from that were compared.
    pub edges: u64,
    /// Deadlines that were compared.
    pub deadlines: u64,
    /// Claims that hold.
    pub claims: u64,
    /// Entries of logs, and how far work is.
    pub logs: u64,
    /// Former states of assets.
    pub formers: u64,
    /// Commits in the feed that were read.
    pub commits: u64,
    /// What does not agree.
    pub findings: Vec<Finding>,
    /// What contradicts the registry of formats: odd, and no damage.
    pub warnings: Vec<Finding>,
    /// How many findings there were beyond those that are listed.
    pub findings_left_out: u64,
}

impl VerifyReport {
    /// Tells whether everything agrees.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, place: impl Into<String>, what: impl Into<String>, remedy: &'static str) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { place: place.into(), what: what.into(), remedy });
        } else {
            self.findings_left_out += 1;
        }
    }
}

const RESTORE: &str = "restore the asset from a copy, or delete it";
const REBUILD: &str = "it can be derived again from the records";

struct Source(View);

impl ChunkSource for Source {
    fn chunk(&self, id: u64, number: u64) -> Result<Option<Bytes>> {
        self.0.get(None, Table::Chunks, &chunk_key(id, number))
    }
}

/// Reads everything, and names what does not agree. Holds the digests of payloads and the tags of one pass.
pub(crate) fn verify(
    view: &View,
    documents: &Documents,
    progress: &mut dyn FnMut(&VerifyReport),
) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let mut statistics = StatisticsMap::default();
    let mut references: BTreeMap<ContentHash, (u64, u64)> = BTreeMap::new();
    let mut tag_rows = 0;
    for row in view.range(None, Table::Records, Bound::Unbounded, Bound::Unbounded)? {
        let (key, row) = match row {
            Ok(row) => row,
            Err(error) => {
                report.find("records", error.to_string(), RESTORE);
                break;
            }
        };
        report.records += 1;
        let place = key.escape_ascii().to_string();
        // Damage above the rows hides them from those who look for one, and not from those who pass by all.
        if view.get(None, Table::Records, &key)?.is_none() {
            report.find(place.clone(), "it is there, and is not found where it is looked for", RESTORE);
        }
        let Ok(key) = Key::decode(&key) else {
            report.find(place, "the key is malformed", RESTORE);
            continue;
        };
        let record = match Record::split(&row) {
            Ok((record, inline)) => {
                if let PayloadState::Inline { hash, .. } = record.payload() {
                    report.payloads += 1;
                    if ContentHash::of(&inline) != hash {
                        report.find(key.as_str(), "the payload is not the one that was put", RESTORE);
                    }
                }
                record
            }
            Err(error) => {
                report.find(key.as_str(), error.to_string(), RESTORE);
                continue;
            }
        };
        statistics.count(&record, 1);
        if let PayloadState::Stored { hash, id, .. } = record.payload() {
            let entry = references.entry(hash).or_insert((id, 0));
            entry.1 += 1;
            if entry.0 != id {
                report.find(
                    key.as_str(),
                    "it refers to another payload than others of the same content",
                    RESTORE,
                );
            }
        }
        for tag in record.tags() {
            tag_rows += 1;
            if view.get(None, Table::Tags, &tag_key(tag, &key))?.is_none() {
                report.find(key.as_str(), format!("the tag {tag:?} is not in the index"), REBUILD);
            }
        }
        check_life(view, &key, &record, &mut report)?;
        check_format(&key, &record, documents, &mut report);
        if report.records.is_multiple_of(1_000) {
            progress(&report);
        }
    }
    for row in view.range(None, Table::Tags, Bound::Unbounded, Bound::Unbounded)? {
        row?;
        report.tags += 1;
    }
    if report.tags != tag_rows {
        let what = format!("the index of tags has {} rows, the records have {tag_rows} tags", report.tags);
        report.find("tags", what, REBUILD);
    }
    check_history(view, &mut references, &mut report)?;
    check_logs(view, &mut report)?;
    check_index(view, &mut report)?;
    let ids = check_contents(view, &references, &mut report, progress)?;
    check_chunks(view, &ids, &mut report)?;
    check_statistics(view, &statistics, &mut report)?;
    check_feed(view, &mut report)?;
    progress(&report);
    Ok(report)
}

/// Every dependency of a record has its edge, and what expires its deadline.
fn check_life(view: &View, key: &Key, record: &Record, report: &mut VerifyReport) -> Result<()> {
    for dependency in record.dependencies() {
        report.edges += 1;
        let row_key = [&edges_of(&dependency.on)[..], key.encoded()].concat();
        let row = view.get(None, Table::Edges, &row_key)?;
        if row.is_none_or(|row| version_in(&row) != dependency.version) {
            report.find(
                key.as_str(),
                format!("its dependency on {} is not in the index", dependency.on),
                REBUILD,
            );
        }
    }
    if let Some(at) = expiry_of(record) {
        report.deadlines += 1;
        let row_key = deadline_key(at, Purpose::Expiry, key.encoded());
        if view.get(None, Table::Deadlines, &row_key)?.is_none() {
            report.find(key.as_str(), "it expires, and has no deadline", REBUILD);
        }
    }
    Ok(())
}

/// What assets were is whole, and refers to its content as they do.
fn check_history(
    view: &View,
    references: &mut BTreeMap<ContentHash, (u64, u64)>,
    report: &mut VerifyReport,
) -> Result<()> {
    for row in view.range(None, Table::History, Bound::Unbounded, Bound::Unbounded)? {
        let (row_key, body) = row?;
        report.formers += 1;
        let place = row_key.escape_ascii().to_string();
        let found =
            numbered_of(&row_key).and_then(|(_, generation)| Ok((generation, decode_history(&body)?.1)));
        let (generation, was) = match found {
            Ok(found) => found,
            Err(error) => {
                report.find(place, error.to_string(), RESTORE);
                continue;
            }
        };
        if was.record.generation() != generation {
            report.find(place.clone(), "it lies under another generation than its own", RESTORE);
        }
        match was.record.payload() {
            PayloadState::Inline { hash, .. } if ContentHash::of(&was.inline) != hash => {
                report.find(place, "the payload is not the one that was put", RESTORE);
            }
            PayloadState::Stored { hash, id, .. } => references.entry(hash).or_insert((id, 0)).1 += 1,
            _ => {}
        }
    }
    Ok(())
}

/// What was said of the work on assets can be read, and they are there.
fn check_logs(view: &View, report: &mut VerifyReport) -> Result<()> {
    let mut last: Option<Key> = None;
    for row in view.range(None, Table::Logs, Bound::Unbounded, Bound::Unbounded)? {
        let (row_key, body) = row?;
        report.logs += 1;
        let place = row_key.escape_ascii().to_string();
        let read = numbered_of(&row_key).and_then(|(key, number)| {
            if number == PROGRESS {
                Progress::decode(&body).map(drop)?
            } else {
                decode_entry(&body).map(drop)?
            }
            Ok(key)
        });
        match read {
            Err(error) => report.find(place, error.to_string(), RESTORE),
            Ok(key) if last.as_ref() == Some(&key) => {}
            Ok(key) => {
                if view.get(None, Table::Records, key.encoded())?.is_none() {
                    report.find(place, "it is about an asset that is not there", "it can be removed");
                }
                last = Some(key);
            }
        }
    }
    Ok(())
}

/// Claims have their deadlines and their places in groups; and there is nothing that nothing accounts for.
fn check_index(view: &View, report: &mut VerifyReport) -> Result<()> {
    let all = |table| view.range(None, table, Bound::Unbounded, Bound::Unbounded);
    let (mut in_groups, mut group_rows) = (0, 0);
    for row in all(Table::Claims)? {
        let (row_key, row) = row?;
        let place = row_key.escape_ascii().to_string();
        match row_key.split_first() {
            Some((1, key)) => {
                let claim = match ClaimRow::decode(&row) {
                    Ok(claim) => claim,
                    Err(error) => {
                        report.find(place, error.to_string(), RESTORE);
                        continue;
                    }
                };
                report.claims += 1;
                report.deadlines += 1;
                let deadline = deadline_key(claim.until, Purpose::Claim, key);
                if view.get(None, Table::Deadlines, &deadline)?.is_none() {
                    report.find(place.clone(), "the claim has no deadline", REBUILD);
                }
                if !claim.group.is_empty() {
                    in_groups += 1;
                    if view.get(None, Table::Claims, &group_key(&claim.group, key))?.is_none() {
                        report.find(place, "the claim is not in its group", REBUILD);
                    }
                }
            }
            Some((2, _)) => {
                if let Err(error) = Orphan::decode(&row_key, &row) {
                    report.find(place, error.to_string(), RESTORE);
                }
            }
            Some((3, _)) => group_rows += 1,
            _ => report.find(place, "no claim has such a row", RESTORE),
        }
    }
    let (mut edges, mut deadlines) = (0, 0);
    for row in all(Table::Edges)? {
        edges += u64::from(is_edge(&row?.0));
    }
    for row in all(Table::Deadlines)? {
        let _ = row?;
        deadlines += 1;
    }
    for (what, rows, expected) in [
        ("edges", edges, report.edges),
        ("deadlines", deadlines, report.deadlines),
        ("groups of claims", group_rows, in_groups),
    ] {
        if rows != expected {
            report.find(what, format!("there are {rows} rows, a recount gives {expected}"), REBUILD);
        }
    }
    Ok(())
}

/// What the registry says of a record, whatever the strictness was when it was put.
fn check_format(key: &Key, record: &Record, documents: &Documents, report: &mut VerifyReport) {
    if record.is_directory() || record.data_format().is_empty() {
        return;
    }
    let claim = Claim {
        extension: None,
        data_format: Some(record.data_format()),
        media_type: Some(record.media_type()),
        type_identifier: Some(record.type_identifier()),
    };
    if let Err(error) = documents.registry().validate(&claim, &[], Strictness::Strict) {
        let what = error.to_string();
        report.warnings.push(Finding {
            place: key.to_string(),
            what,
            remedy: "put it again, or extend the registry",
        });
    }
}

fn check_contents(
    view: &View,
    references: &BTreeMap<ContentHash, (u64, u64)>,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(&VerifyReport),
) -> Result<BTreeMap<u64, BTreeSet<u64>>> {
    let mut ids = BTreeMap::new();
    let mut seen = 0;
    for row in view.range(None, Table::Contents, Bound::Unbounded, Bound::Unbounded)? {
        let (key, row) = row?;
        let (Ok(hash), Ok(content)) = (<[u8; 32]>::try_from(key.as_ref()), ContentRow::decode(&row)) else {
            report.find(key.escape_ascii().to_string(), "a row of the contents is malformed", RESTORE);
            continue;
        };
        let hash = ContentHash(hash);
        let place = format!("payload {}", content.id);
        match references.get(&hash) {
            Some((id, count)) if (*id, *count) == (content.id, content.references) => seen += 1,
            Some((_, count)) => {
                seen += 1;
                let what = format!("it has {} references, {count} records refer to it", content.references);
                report.find(place.clone(), what, REBUILD);
            }
            None => report.find(place.clone(), "no record refers to it", "it can be removed"),
        }
        let stored = content.stored(hash);
        match row_numbers(&stored, u64::MAX) {
            Ok(numbers) => {
                ids.insert(content.id, numbers.unwrap_or_default().into_iter().collect());
            }
            Err(error) => report.find(place.clone(), error.to_string(), RESTORE),
        }
        let read = PayloadReader::stored(stored, Box::new(Source(view.clone())))
            .and_then(|mut reader| reader.verify());
        report.payloads += 1;
        if let Err(error) = read {
            report.find(place, error.to_string(), RESTORE);
        }
        progress(report);
    }
    if seen < references.len() {
        let what = format!("{} payloads that records refer to have no row", references.len() - seen);
        report.find("contents", what, RESTORE);
    }
    Ok(ids)
}

fn check_chunks(view: &View, ids: &BTreeMap<u64, BTreeSet<u64>>, report: &mut VerifyReport) -> Result<()> {
    let mut staged = BTreeSet::new();
    for row in view.range(None, Table::Staging, Bound::Unbounded, Bound::Unbounded)? {
        staged.extend(row?.0.first_chunk().map(|id| u64::from_be_bytes(*id)));
    }
    for row in view.range(None, Table::Chunks, Bound::Unbounded, Bound::Unbounded)? {
        let key = match row {
            Ok((key, _)) => key,
            Err(error) => {
                report.find("chunks", error.to_string(), RESTORE);
                return Ok(());
            }
        };
        let (Some(id), Some(number)) = (key.first_chunk(), key.last_chunk()) else { continue };
        let (id, number) = (u64::from_be_bytes(*id), u64::from_be_bytes(*number));
        report.chunks += 1;
        let is_known = ids.get(&id).is_some_and(|numbers| numbers.contains(&number)) || staged.contains(&id);
        if !is_known {
            report.find(
                format!("payload {id}"),
                format!("nothing accounts for its chunk {number}"),
                "it can be removed",
            );
        }
    }
    Ok(())
}

fn check_statistics(view: &View, counted: &StatisticsMap, report: &mut VerifyReport) -> Result<()> {
    let kept = StatisticsMap::load(view.get(None, Table::State, state_key::STATISTICS)?.as_deref())?;
    for (name, [kept, counted]) in kept.differences(counted) {
        let what = format!("the counter {name} says {kept:?}, a recount gives {counted:?}");
        report.find("statistics", what, REBUILD);
    }
    Ok(())
}

fn check_feed(view: &View, report: &mut VerifyReport) -> Result<()> {
    let head = *view.head();
    let mut last_time = i64::MIN;
    for row in view.range(None, Table::Feed, Bound::Unbounded, Bound::Unbounded)? {
        let (key, row) = row?;
        report.commits += 1;
        let sequence = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let place = format!("commit {sequence}");
        match FeedRow::decode(&row) {
            Ok(feed) if feed.time < last_time => {
                report.find(place.clone(), "it is older than the one before", RESTORE)
            }
            Ok(feed) => last_time = feed.time,
            Err(error) => report.find(place.clone(), error.to_string(), RESTORE),
        }
        if sequence > head.sequence {
            report.find(place, format!("the store is at commit {}", head.sequence), RESTORE);
        }
    }
    Ok(())
}
