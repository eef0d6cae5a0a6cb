//! Recounting everything: what is derived must equal what it is derived from.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{Claim, ContentHash, FeedRow, Key, PayloadState, Record, RowContent, Strictness};

use crate::documents::{Document, Documents};
use crate::error::Result;
use crate::payload::{PayloadReader, Stored, row_numbers};
use crate::primitives::{
    ClaimRow, ContentRow, DefinedCollection, DerivedRow, Groups, Orphan, PROGRESS, Progress, ReferenceCounts,
    References, StatisticsMap, decode_entry, decode_history, derived_of_claim, derived_of_record,
    derived_of_row, is_all_derived, is_derived, numbered_of, row_key_of, row_name,
};
use crate::store::{Snapshot, StoredRow, Table, chunk_key, state_key};
use crate::txn::prefix_end;

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
    /// Rows of collections that were compared with what follows from them.
    pub rows: u64,
    /// Entries of indexes and aggregates that were compared.
    pub entries: u64,
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
    /// How many findings and warnings there were beyond the 10 000 that are listed of each.
    pub findings_left_out: u64,
}

impl VerifyReport {
    /// Tells whether everything agrees.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, place: impl Into<String>, what: impl Into<String>, remedy: &'static str) {
        let finding = Finding { place: place.into(), what: what.into(), remedy };
        list(&mut self.findings, finding, &mut self.findings_left_out);
    }
}

fn list(findings: &mut Vec<Finding>, finding: Finding, left_out: &mut u64) {
    if findings.len() < FINDINGS_MAX {
        findings.push(finding);
    } else {
        *left_out += 1;
    }
}

/// What to do about a row of a table that cannot be read.
fn remedy_of(table: Table) -> &'static str {
    // Of edges, all but what was said of versions outside.
    if is_all_derived(table) || table == Table::Edges { REBUILD } else { RESTORE }
}

/// Says of which asset a row of a history or a log is, and which one.
fn numbered_place(row_key: &[u8]) -> String {
    let place = numbered_of(row_key).map(|(key, number)| format!("{key}, {number}"));
    place.unwrap_or_else(|_| row_key.escape_ascii().to_string())
}

const RESTORE: &str = "restore the asset from a copy, or delete it";
const REBUILD: &str = "it can be derived again: larder repair FILE";
const REMOVE: &str = "it can be removed: larder repair FILE";

/// How many of the assets that have a payload are named.
const NAMED_MAX: usize = 3;

/// How many payloads are kept in memory at a time, to account for their chunks.
const PAYLOADS_AT_ONCE: usize = 1_000_000;

/// Reads everything, and names what does not agree. Memory is bounded: what is counted is counted in passes.
pub(crate) fn verify(
    snapshot: &Arc<Snapshot>,
    documents: &Documents,
    progress: &mut dyn FnMut(&VerifyReport),
) -> Result<VerifyReport> {
    let mut check = Check {
        snapshot,
        documents,
        report: VerifyReport::default(),
        derived: BTreeMap::new(),
        collections: BTreeMap::new(),
        broken: BTreeMap::new(),
        progress,
    };
    check.records()?;
    check.claims()?;
    check.rows()?;
    check.derived()?;
    check.history()?;
    check.logs()?;
    check.contents()?;
    check.chunks()?;
    check.feed()?;
    check.others()?;
    check.name_broken()?;
    (check.progress)(&check.report);
    Ok(check.report)
}

struct Check<'c> {
    snapshot: &'c Arc<Snapshot>,
    documents: &'c Documents,
    report: VerifyReport,
    /// How many derived rows there have to be, by table.
    derived: BTreeMap<Table, u64>,
    /// The collections and their keys, by their numbers.
    collections: BTreeMap<u64, (Key, DefinedCollection)>,
    /// The payloads in which something was found, by their hashes, and which findings these are.
    broken: BTreeMap<ContentHash, Vec<usize>>,
    progress: &'c mut dyn FnMut(&VerifyReport),
}

impl Check<'_> {
    /// Hands every row of a table to `each`, as far as it can be read.
    fn each(
        &mut self,
        table: Table,
        mut each: impl FnMut(&mut Self, &StoredRow) -> Result<()>,
    ) -> Result<()> {
        self.each_between(table, (Bound::Unbounded, Bound::Unbounded), &mut each)
    }

    fn each_between(
        &mut self,
        table: Table,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut dyn FnMut(&mut Self, &StoredRow) -> Result<()>,
    ) -> Result<()> {
        for row in self.snapshot.range(table, start, end)?.over_damage() {
            match row {
                Ok(row) => each(self, &row)?,
                Err(error) => self.report.find(table.name(), error.to_string(), remedy_of(table)),
            }
        }
        Ok(())
    }

    /// What lies under a key. Damage is a finding.
    fn look(&mut self, table: Table, key: &[u8]) -> Option<Bytes> {
        match self.snapshot.get(table, key) {
            Ok(row) => row,
            Err(error) => {
                self.report.find(table.name(), error.to_string(), remedy_of(table));
                None
            }
        }
    }

    fn records(&mut self) -> Result<()> {
        let mut statistics = StatisticsMap::default();
        self.each(Table::Records, |check, row| {
            check.report.records += 1;
            check.record(row, &mut statistics);
            if check.report.records.is_multiple_of(1_000) {
                (check.progress)(&check.report);
            }
            Ok(())
        })?;
        let given_out = self.look(Table::State, state_key::FENCES);
        let given_out = given_out.and_then(|row| row.first_chunk().map(|number| u64::from_le_bytes(*number)));
        if let Some((number, _)) = self.collections.last_key_value()
            && *number > given_out.unwrap_or(0)
        {
            let what = format!("collection {number} has a number that can be given out again");
            self.report.find("state", what, RESTORE);
        }
        let kept = self.look(Table::State, state_key::STATISTICS);
        match StatisticsMap::load(kept.as_deref()) {
            Ok(kept) => {
                for (name, [kept, counted]) in kept.differences(&statistics) {
                    let what = format!("the counter {name} says {kept:?}, a recount gives {counted:?}");
                    self.report.find("statistics", what, REBUILD);
                }
            }
            Err(error) => self.report.find("statistics", error.to_string(), REBUILD),
        }
        Ok(())
    }

    fn record(&mut self, row: &StoredRow, statistics: &mut StatisticsMap) {
        let place = row.key().escape_ascii().to_string();
        // Damage above the rows hides them from those who look for one, and not from those who pass by all.
        if self.look(Table::Records, row.key()).is_none() {
            self.report.find(place.clone(), "it is there, and is not found where it is looked for", RESTORE);
        }
        let Ok(key) = Key::decode(row.key()) else {
            self.report.find(place, "the key is malformed", RESTORE);
            return;
        };
        let (record, inline) = match Record::split(&Bytes::copy_from_slice(row.body())) {
            Ok(found) => found,
            Err(error) => return self.report.find(key.as_str(), error.to_string(), RESTORE),
        };
        if let PayloadState::Inline { hash, .. } = record.payload() {
            self.report.payloads += 1;
            if ContentHash::of(&inline) != hash {
                self.report.find(key.as_str(), "the payload is not the one that was put", RESTORE);
            }
        }
        statistics.count(&record, 1);
        match DefinedCollection::section(&record).map(DefinedCollection::decode) {
            Some(Ok(collection)) if self.collections.contains_key(&collection.id) => {
                self.report.find(key.as_str(), "another collection has its number", RESTORE);
            }
            Some(Ok(collection)) => {
                self.collections.insert(collection.id, (key.clone(), collection));
            }
            Some(Err(error)) => self.report.find(key.as_str(), error.to_string(), RESTORE),
            None => {}
        }
        for row in derived_of_record(&key, &record) {
            self.follows(|| key.to_string(), &row);
        }
        self.format(&key, &record);
    }

    /// A row that follows from another is there, and says what it has to.
    fn follows(&mut self, place: impl Fn() -> String, row: &DerivedRow) {
        *self.derived.entry(row.table).or_default() += 1;
        if self.look(row.table, &row.key).is_none_or(|body| body != row.body) {
            let what = format!("a row of {} that follows from it is not there", row.table.name());
            self.report.find(place(), what, REBUILD);
        }
    }

    /// There is nothing derived that nothing accounts for.
    fn derived(&mut self) -> Result<()> {
        for table in [Table::Tags, Table::Edges, Table::Deadlines, Table::Claims, Table::Entries] {
            let mut count = 0;
            self.each(table, |_, row| {
                count += u64::from(is_derived(table, row.key()));
                Ok(())
            })?;
            let expected = self.derived.get(&table).copied().unwrap_or(0);
            match table {
                Table::Tags => self.report.tags = count,
                Table::Edges => self.report.edges = count,
                Table::Deadlines => self.report.deadlines = count,
                Table::Entries => self.report.entries = count,
                _ => {}
            }
            if count != expected {
                let what = format!("there are {count} rows, a recount gives {expected}");
                self.report.find(table.name(), what, REBUILD);
            }
        }
        Ok(())
    }

    fn claims(&mut self) -> Result<()> {
        self.each(Table::Claims, |check, row| {
            let place = || {
                let claimed = row.key().split_first().and_then(|(_, key)| Key::decode(key).ok());
                claimed.map_or_else(|| row.key().escape_ascii().to_string(), |key| key.to_string())
            };
            match row.key().split_first() {
                Some((1, key)) => match ClaimRow::decode(row.body()) {
                    Ok(claim) => {
                        check.report.claims += 1;
                        derived_of_claim(key, &claim).iter().for_each(|row| check.follows(place, row));
                    }
                    Err(error) => check.report.find(place(), error.to_string(), RESTORE),
                },
                Some((2, _)) => {
                    if let Err(error) = Orphan::decode(row.key(), row.body()) {
                        check.report.find(place(), error.to_string(), RESTORE);
                    }
                }
                Some((3, _)) => {}
                _ => check.report.find(place(), "no claim has such a row", RESTORE),
            }
            Ok(())
        })
    }

    /// What follows from the rows of collections is there. Keeps the aggregates in memory.
    fn rows(&mut self) -> Result<()> {
        let mut groups = Groups::default();
        self.each(Table::Rows, |check, row| {
            check.report.rows += 1;
            let known = row_key_of(row.key())
                .and_then(|(id, key)| Some((check.collections.get(&id)?.clone(), key.to_vec())));
            let Some(((of, collection), key)) = known else {
                let place = row.key().escape_ascii().to_string();
                check.report.find(place, "it is a row of no collection", REMOVE);
                return Ok(());
            };
            let place = || format!("{of}, row {}", row_name(&key));
            let content = match RowContent::decode(&Bytes::copy_from_slice(row.body())) {
                Ok((_, content)) => content,
                Err(error) => {
                    check.report.find(place(), error.to_string(), RESTORE);
                    return Ok(());
                }
            };
            derived_of_row(&collection, &key, &content).for_each(|row| check.follows(place, &row));
            groups.count(&collection, &key, &content);
            for index in collection.definition.indexes.iter().filter(|index| index.is_unique) {
                for entry in index.entries(collection.id, &key, &content.fields) {
                    let start = entry.key.get(..entry.values_length).unwrap_or_default();
                    let end = prefix_end(start);
                    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                    let same = check.snapshot.range(Table::Entries, Bound::Included(start), end)?;
                    if same.take(2).count() > 1 {
                        let what =
                            format!("another row has the same values in the unique index {}", index.name);
                        check.report.find(place(), what, RESTORE);
                    }
                }
            }
            Ok(())
        })?;
        groups.into_rows().for_each(|row| self.follows(|| "aggregates".to_owned(), &row));
        Ok(())
    }

    /// What assets were is whole.
    fn history(&mut self) -> Result<()> {
        self.each(Table::History, |check, row| {
            check.report.formers += 1;
            let place = || numbered_place(row.key());
            let found = numbered_of(row.key()).and_then(|(_, generation)| {
                Ok((generation, decode_history(&Bytes::copy_from_slice(row.body()))?.1))
            });
            match found {
                Err(error) => check.report.find(place(), error.to_string(), RESTORE),
                Ok((generation, was)) => {
                    if was.record.generation() != generation {
                        check.report.find(place(), "it lies under another generation than its own", RESTORE);
                    }
                    if let PayloadState::Inline { hash, .. } = was.record.payload()
                        && ContentHash::of(&was.inline) != hash
                    {
                        check.report.find(place(), "the payload is not the one that was put", RESTORE);
                    }
                }
            }
            Ok(())
        })
    }

    /// What was said of the work on assets can be read, and they are there.
    fn logs(&mut self) -> Result<()> {
        let mut last: Option<Key> = None;
        self.each(Table::Logs, |check, row| {
            check.report.logs += 1;
            let place = || numbered_place(row.key());
            let body = Bytes::copy_from_slice(row.body());
            let read = numbered_of(row.key()).and_then(|(key, number)| {
                if number == PROGRESS {
                    Progress::decode(&body).map(drop)?
                } else {
                    decode_entry(&body).map(drop)?
                }
                Ok(key)
            });
            match read {
                Err(error) => check.report.find(place(), error.to_string(), RESTORE),
                Ok(key) if last.as_ref() == Some(&key) => {}
                Ok(key) => {
                    if check.look(Table::Records, key.encoded()).is_none() {
                        check.report.find(place(), "it is about an asset that is not there", REMOVE);
                    }
                    last = Some(key);
                }
            }
            Ok(())
        })
    }

    /// Contents are those that records refer to, as often as they say, and are whole.
    fn contents(&mut self) -> Result<()> {
        let mut counts = ReferenceCounts::new(Arc::clone(self.snapshot))?;
        while let Some((range, mut references)) = counts.next()? {
            let (start, end) = bounds(&range);
            let bounds = (Bound::Included(start.as_slice()), end.as_ref().map(<[u8; 1]>::as_slice));
            self.each_between(Table::Contents, bounds, &mut |check, row| {
                check.content(row, &mut references);
                (check.progress)(&check.report);
                Ok(())
            })?;
            for hash in references.into_keys() {
                let what = "a payload that records refer to has no row";
                self.find_in_payload(
                    ContentHash(hash),
                    &format!("content {}", ContentHash(hash)),
                    what,
                    RESTORE,
                );
            }
        }
        Ok(())
    }

    fn content(&mut self, row: &StoredRow, references: &mut References) {
        let (Ok(hash), Ok(content)) = (<[u8; 32]>::try_from(row.key()), ContentRow::decode(row.body()))
        else {
            let place = row.key().escape_ascii().to_string();
            return self.report.find(place, "a row of the contents is malformed", RESTORE);
        };
        let (place, referred) = (format!("payload {}", content.id), references.remove(&hash));
        let hash = ContentHash(hash);
        match referred {
            None => self.report.find(place.clone(), "no record refers to it", REMOVE),
            Some((id, _)) if id != content.id => {
                self.find_in_payload(hash, &place, format!("records refer to it as payload {id}"), RESTORE);
            }
            Some((_, count)) if count != content.references => {
                let what = format!("it has {} references, {count} records refer to it", content.references);
                self.find_in_payload(hash, &place, what, REBUILD);
            }
            Some(_) => {}
        }
        self.report.payloads += 1;
        let source = Box::new(Arc::clone(self.snapshot));
        let read = PayloadReader::stored(content.stored(hash), source).and_then(|mut reader| reader.verify());
        if let Err(error) = read {
            self.find_in_payload(hash, &place, error.to_string(), RESTORE);
        }
    }

    /// Finds something in a payload; the assets that have it are named at the end.
    fn find_in_payload(
        &mut self,
        hash: ContentHash,
        place: &str,
        what: impl Into<String>,
        remedy: &'static str,
    ) {
        let at = self.report.findings.len();
        self.report.find(place, what, remedy);
        if self.report.findings.len() > at {
            self.broken.entry(hash).or_default().push(at);
        }
    }

    /// Names the assets that have the payloads in which something was found: a few of each.
    fn name_broken(&mut self) -> Result<()> {
        if self.broken.is_empty() {
            return Ok(());
        }
        let mut names: BTreeMap<ContentHash, (Vec<String>, u64)> = BTreeMap::new();
        let rows = self.snapshot.range(Table::Records, Bound::Unbounded, Bound::Unbounded)?;
        // What cannot be read was told before.
        for row in rows.over_damage().filter_map(Result::ok) {
            let record = Record::split(&Bytes::copy_from_slice(row.body()));
            let hash = record.ok().and_then(|(record, _)| record.payload().hash());
            if let (Some(hash), Ok(key)) = (hash, Key::decode(row.key()))
                && self.broken.contains_key(&hash)
            {
                let (named, others) = names.entry(hash).or_default();
                if named.len() < NAMED_MAX { named.push(key.to_string()) } else { *others += 1 }
            }
        }
        for (hash, findings) in &self.broken {
            let Some((named, others)) = names.get(hash) else { continue };
            let more = if *others > 0 { format!(" and {others} others") } else { String::new() };
            let of = format!(", of {}{more}", named.join(", "));
            for at in findings {
                if let Some(finding) = self.report.findings.get_mut(*at) {
                    finding.place.push_str(&of);
                }
            }
        }
        Ok(())
    }

    /// Every chunk is one of a payload, or of an upload.
    fn chunks(&mut self) -> Result<()> {
        let mut staged = BTreeSet::new();
        self.each(Table::Staging, |_, row| {
            staged.extend(row.key().first_chunk().map(|id| u64::from_be_bytes(*id)));
            Ok(())
        })?;
        // No payload has more rows than there are, whatever it says.
        let most = self.snapshot.count(Table::Chunks)?;
        let mut from = 0;
        loop {
            let (known, next) = self.payloads_from(from)?;
            let (start, end) = (chunk_key(from, 0), next.map(|next| chunk_key(next, 0)));
            let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
            let mut current: (u64, BTreeSet<u64>) = (0, BTreeSet::new());
            self.each_between(Table::Chunks, (Bound::Included(&start), end), &mut |check, row| {
                let (Some(id), Some(number)) = (row.key().first_chunk(), row.key().last_chunk()) else {
                    return Ok(());
                };
                let (id, number) = (u64::from_be_bytes(*id), u64::from_be_bytes(*number));
                check.report.chunks += 1;
                if current.0 != id {
                    let numbers = known.get(&id).map(|stored| row_numbers(stored, most));
                    let numbers = numbers.and_then(Result::ok).flatten().unwrap_or_default();
                    current = (id, numbers.into_iter().collect());
                }
                if !current.1.contains(&number) && !staged.contains(&id) {
                    let what = format!("nothing accounts for its chunk {number}");
                    check.report.find(format!("payload {id}"), what, REMOVE);
                }
                Ok(())
            })?;
            let Some(next) = next else { return Ok(()) };
            from = next;
        }
    }

    /// The payloads with the next ids, and the id from which on there are more.
    fn payloads_from(&mut self, from: u64) -> Result<(BTreeMap<u64, Stored>, Option<u64>)> {
        let (mut known, mut next) = (BTreeMap::new(), None);
        self.each(Table::Contents, |_, row| {
            let (Ok(hash), Ok(content)) = (<[u8; 32]>::try_from(row.key()), ContentRow::decode(row.body()))
            else {
                return Ok(());
            };
            if content.id >= from && next.is_none_or(|next| content.id < next) {
                known.insert(content.id, content.stored(ContentHash(hash)));
                if known.len() > PAYLOADS_AT_ONCE {
                    next = known.pop_last().map(|(id, _)| id);
                }
            }
            Ok(())
        })?;
        Ok((known, next))
    }

    fn feed(&mut self) -> Result<()> {
        let head = self.snapshot.head()?;
        let mut last_time = i64::MIN;
        self.each(Table::Feed, |check, row| {
            check.report.commits += 1;
            let sequence = row.key().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            let place = format!("commit {sequence}");
            match FeedRow::decode(row.body()) {
                Ok(feed) if feed.time < last_time => {
                    check.report.find(place.clone(), "it is older than the one before", RESTORE);
                }
                Ok(feed) => last_time = feed.time,
                Err(error) => check.report.find(place.clone(), error.to_string(), RESTORE),
            }
            if sequence > head.sequence {
                check.report.find(place, format!("the store is at commit {}", head.sequence), RESTORE);
            }
            Ok(())
        })
    }

    /// The rows that nothing else accounts for can be read.
    fn others(&mut self) -> Result<()> {
        for table in [Table::Meta, Table::State, Table::Audit, Table::Once] {
            self.each(table, |_, _| Ok(()))?;
        }
        self.each(Table::Documents, |check, row| {
            if let Err(error) = Document::decode(row.key(), row.body()) {
                check.report.find("a document".to_owned(), error.to_string(), RESTORE);
            }
            Ok(())
        })
    }

    /// What the registry says of a record, whatever the strictness was when it was put.
    fn format(&mut self, key: &Key, record: &Record) {
        if record.is_directory() || record.data_format().is_empty() {
            return;
        }
        let claim = Claim {
            extension: None,
            data_format: Some(record.data_format()),
            media_type: Some(record.media_type()),
            type_identifier: Some(record.type_identifier()),
        };
        if let Err(error) = self.documents.registry().validate(&claim, &[], Strictness::Strict) {
            let (place, what) = (key.to_string(), error.to_string());
            let warning = Finding { place, what, remedy: "put it again, or extend the registry" };
            list(&mut self.report.warnings, warning, &mut self.report.findings_left_out);
        }
    }
}

/// The keys that begin with a first byte of a range.
fn bounds(range: &RangeInclusive<u8>) -> ([u8; 1], Bound<[u8; 1]>) {
    ([*range.start()], range.end().checked_add(1).map_or(Bound::Unbounded, |end| Bound::Excluded([end])))
}
