//! The fields of records that filters ask for most, in columns: 1 000 000 records are looked at in milliseconds.
//!
//! The columns are made of the view of the first reader who asks for them, which is read whole, and follow the commits from
//! there on: what a commit changes is noted before it is visible, and taken in by the next reader who sees it. Whoever finds
//! no columns of the state that he sees looks at the records where they lie: also where something in the store cannot be
//! read, which he meets if it lies where he looks.
//!
//! Invariants
//! 1. The columns are what a reader at `upto` sees, and everything that was changed after `upto` is in the log.
//! 2. A change is in the log before any reader sees its commit (the protocol of [`crate::cache`]).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use larder_format::{AbsentReason, Key, Micros, PayloadState, Record, RecordFlags, StatusProperties};
use parking_lot::Mutex;

use crate::error::{ErrorKind, Result};
use crate::store::corrupt;

/// What a record takes in the columns beside its key, in bytes.
const RECORD_BYTES: usize = 40;
/// What a change takes in the log or over the columns beside its key, in bytes, about.
const CHANGE_BYTES: usize = 160;
/// What a data format takes beside its name, which is there twice, in bytes, about.
const FORMAT_BYTES: usize = 80;
/// How many changes it counts as that many records are removed at once.
const CLEARED: u64 = 1 << 40;
/// How long a reader waits for another one who takes in what changed, before he looks at the records himself.
const WAIT: Duration = Duration::from_millis(20);
/// So many changes are kept apart from the columns whatever their number, and beyond that a part of it.
const CHANGES_MIN: usize = 1_024;
const CHANGES_PART: usize = 8;

/// What is known of a record without looking at it: where it lies, or in columns.
#[derive(Clone, Copy)]
pub struct Summary<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Column(&'a Base, usize),
    Fields(&'a [u8], &'a Fields),
    Record(&'a [u8], &'a Record<&'a [u8]>),
}

impl std::fmt::Debug for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summary")
            .field("key", &self.encoded_key().escape_ascii().to_string())
            .field("status", &self.status_number())
            .field("data_format", &self.data_format())
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

macro_rules! read {
    ($self:ident, $column:ident, $record:expr) => {
        match $self.0 {
            Source::Column(base, at) => base.$column.get(at).copied().unwrap_or_default(),
            Source::Fields(_, fields) => fields.$column,
            Source::Record(_, record) => $record(record),
        }
    };
}

impl<'a> Summary<'a> {
    pub(crate) fn of(key: &'a [u8], record: &'a Record<&'a [u8]>) -> Self {
        Self(Source::Record(key, record))
    }

    /// Makes the key.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if it is malformed.
    pub fn key(&self) -> Result<Key> {
        Key::decode(self.encoded_key()).map_err(|error| corrupt(error.to_string()))
    }

    /// Gives the key as it is stored: every segment followed by a byte of 0.
    #[must_use]
    pub fn encoded_key(&self) -> &'a [u8] {
        match self.0 {
            Source::Column(base, at) => base.key(at).unwrap_or_default(),
            Source::Fields(key, _) | Source::Record(key, _) => key,
        }
    }

    /// Gives the number of the status: [`Status::number`](crate::Status::number).
    #[must_use]
    pub fn status_number(&self) -> u8 {
        read!(self, status, |record: &Record<&[u8]>| record.status_number())
    }

    /// Gives what the status implies.
    #[must_use]
    pub fn status_properties(&self) -> StatusProperties {
        StatusProperties::of_number(self.status_number())
    }

    /// Gives the data format; empty if there is none.
    #[must_use]
    pub fn data_format(&self) -> &'a str {
        match self.0 {
            Source::Column(base, at) => {
                let number = base.format.get(at).copied().unwrap_or_default();
                base.formats.get(usize::from(number)).map(|name| &**name).unwrap_or_default()
            }
            Source::Fields(_, fields) => &fields.format,
            Source::Record(_, record) => record.data_format(),
        }
    }

    /// Gives the length of the payload in bytes; 0 where there is none.
    #[must_use]
    pub fn length(&self) -> u64 {
        read!(self, length, |record: &Record<&[u8]>| record.payload().length())
    }

    /// Tells why there is no payload, if there is none.
    #[must_use]
    pub fn absent(&self) -> Option<AbsentReason> {
        AbsentReason::from_number(read!(self, absent, absent_of))
    }

    /// Gives when the asset was last changed.
    #[must_use]
    pub fn updated(&self) -> Micros {
        read!(self, updated, |record: &Record<&[u8]>| record.updated())
    }

    /// Gives the flags.
    #[must_use]
    pub fn flags(&self) -> RecordFlags {
        read!(self, flags, |record: &Record<&[u8]>| record.flags())
    }
}

/// The number of the reason for which a record has no payload; 0 if it has one.
fn absent_of(record: &Record<&[u8]>) -> u8 {
    match record.payload() {
        PayloadState::Absent(reason) => reason.number(),
        _ => 0,
    }
}

/// The fields of one record.
#[derive(Debug, Clone)]
struct Fields {
    status: u8,
    absent: u8,
    flags: RecordFlags,
    length: u64,
    updated: Micros,
    format: Box<str>,
}

impl Fields {
    fn of(record: &Record<&[u8]>) -> Self {
        Self {
            status: record.status_number(),
            absent: absent_of(record),
            flags: record.flags(),
            length: record.payload().length(),
            updated: record.updated(),
            format: record.data_format().into(),
        }
    }
}

/// Columns, in the order of keys.
#[derive(Debug, Default)]
pub(crate) struct Base {
    keys: Vec<u8>,
    /// Where the key of each record ends.
    ends: Vec<usize>,
    status: Vec<u8>,
    absent: Vec<u8>,
    flags: Vec<RecordFlags>,
    length: Vec<u64>,
    updated: Vec<Micros>,
    /// The place of the data format among all.
    format: Vec<u16>,
    formats: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u16>,
    formats_bytes: usize,
}

impl Base {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        self.keys.len() + self.len() * RECORD_BYTES + self.formats_bytes
    }

    /// Gives back what was reserved and is not needed.
    fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.status.shrink_to_fit();
        self.absent.shrink_to_fit();
        self.flags.shrink_to_fit();
        self.length.shrink_to_fit();
        self.updated.shrink_to_fit();
        self.format.shrink_to_fit();
    }

    fn key(&self, at: usize) -> Option<&[u8]> {
        let start = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.keys.get(start..*self.ends.get(at)?)
    }

    /// Gives the first place whose key is not less.
    fn place_of(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle).is_some_and(|other| other < key) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Appends what is behind everything that is there; tells whether it could be.
    fn push(&mut self, summary: Summary<'_>) -> bool {
        let format = summary.data_format();
        let number = match self.numbers.get(format) {
            Some(number) => *number,
            None => {
                let Ok(number) = u16::try_from(self.formats.len()) else { return false };
                self.formats.push(format.into());
                self.numbers.insert(format.into(), number);
                self.formats_bytes += 2 * format.len() + FORMAT_BYTES;
                number
            }
        };
        self.keys.extend_from_slice(summary.encoded_key());
        self.ends.push(self.keys.len());
        self.status.push(summary.status_number());
        self.absent.push(summary.absent().map_or(0, AbsentReason::number));
        self.flags.push(summary.flags());
        self.length.push(summary.length());
        self.updated.push(summary.updated());
        self.format.push(number);
        true
    }
}

/// Columns, and what was changed since they were made: what a reader at a commit sees.
#[derive(Clone)]
pub(crate) struct Table {
    base: Arc<Base>,
    /// By key, what a record is now; nothing where it is gone.
    newer: Arc<BTreeMap<Box<[u8]>, Option<Fields>>>,
    newer_bytes: usize,
    upto: u64,
}

impl Table {
    /// Hands every record between two keys to `step`, in the order of keys.
    pub(crate) fn each(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        mut step: impl FnMut(Summary<'_>) -> Result<()>,
    ) -> Result<()> {
        let base = &*self.base;
        let mut at = base.place_of(start);
        let newer = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        for (key, fields) in self.newer.range::<[u8], _>(newer) {
            let until = base.place_of(key);
            (at..until).try_for_each(|place| step(Summary(Source::Column(base, place))))?;
            at = until + usize::from(base.key(until) == Some(&**key));
            if let Some(fields) = fields {
                step(Summary(Source::Fields(key, fields)))?;
            }
        }
        let last = end.map_or(base.len(), |end| base.place_of(end));
        (at..last).try_for_each(|place| step(Summary(Source::Column(base, place))))
    }

    fn bytes(&self) -> usize {
        self.base.bytes() + self.newer_bytes
    }

    /// Takes in what a commit changed.
    fn change(&mut self, change: Change) {
        let (bytes, key_length) = (change.bytes(), change.key.len());
        let before = Arc::make_mut(&mut self.newer).insert(change.key, change.fields);
        let before = before.map_or(0, |before| change_bytes(key_length, before.as_ref()));
        self.newer_bytes = self.newer_bytes + bytes - before;
    }

    /// Puts all in columns again, where much has changed or there is little room; tells whether there is enough.
    fn settle(&mut self, bytes_max: usize) -> bool {
        if self.newer.len() as u64 <= changes_max(self.base.len()) && self.bytes() <= bytes_max {
            return true;
        }
        let mut base = Base::default();
        let mut is_whole = true;
        let settled = self.each(&[], None, |summary| {
            is_whole &= base.push(summary);
            Ok(())
        });
        base.shrink();
        self.base = Arc::new(base);
        self.newer = Arc::default();
        self.newer_bytes = 0;
        is_whole && settled.is_ok() && self.bytes() <= bytes_max
    }
}

/// How many changes are kept apart from the columns of so many records.
fn changes_max(records: usize) -> u64 {
    (CHANGES_MIN + records / CHANGES_PART) as u64
}

/// What commits changed that the columns have not taken in.
#[derive(Default)]
struct Log {
    /// The last commit that changed any record.
    noted: u64,
    /// How many changes of records there were.
    count: u64,
    /// Behind which commit all changes are here; nothing where nobody asks.
    since: Option<u64>,
    changes: VecDeque<Change>,
    bytes: usize,
}

struct Change {
    commit: u64,
    key: Box<[u8]>,
    fields: Option<Fields>,
}

impl Change {
    fn bytes(&self) -> usize {
        change_bytes(self.key.len(), self.fields.as_ref())
    }
}

fn change_bytes(key_length: usize, fields: Option<&Fields>) -> usize {
    CHANGE_BYTES + key_length + fields.map_or(0, |fields| fields.format.len())
}

impl Log {
    fn forget(&mut self) {
        *self = Self { noted: self.noted, count: self.count, ..Self::default() };
    }

    /// Takes out what was changed up to a commit.
    fn take(&mut self, upto: u64) -> Vec<Change> {
        let mut taken = Vec::new();
        while let Some(change) = self.changes.front()
            && change.commit <= upto
        {
            self.bytes -= change.bytes();
            taken.extend(self.changes.pop_front());
        }
        taken
    }
}

/// What there is of columns.
enum Slot {
    Empty,
    Made(Table),
    /// There was no room for them, or a record could not be read: not before so many changes of records it is tried again.
    GivenUp(u64),
}

/// The columns of a store, once somebody has asked for them and as far as there is room.
pub(crate) struct Columns {
    bytes_max: usize,
    slot: Mutex<Slot>,
    /// Locked behind the slot.
    log: Mutex<Log>,
}

impl Columns {
    /// Makes columns that take up to so many bytes; with 0 there are none.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, slot: Mutex::new(Slot::Empty), log: Mutex::default() }
    }

    /// Notes what a commit that is not visible yet makes of a record; nothing where it removes it.
    pub(crate) fn change(&self, key: &[u8], commit: u64, row: Option<&[u8]>) {
        if self.bytes_max == 0 {
            return;
        }
        let mut log = self.log.lock();
        log.noted = log.noted.max(commit);
        log.count += 1;
        if log.since.is_none() {
            return;
        }
        let fields = match row.map(Record::in_place) {
            None => None,
            Some(Ok((record, _))) => Some(Fields::of(&record)),
            // Readers meet the error where it lies.
            Some(Err(_)) => return log.forget(),
        };
        let change = Change { commit, key: key.into(), fields };
        log.bytes += change.bytes();
        log.changes.push_back(change);
        if log.bytes > self.bytes_max / CHANGES_PART {
            // Nobody asks any more. What is not kept is made anew.
            log.forget();
            drop(log);
            self.let_go();
        }
    }

    /// Notes that a commit that is not visible yet removes many records.
    pub(crate) fn clear(&self, commit: u64) {
        let mut log = self.log.lock();
        log.noted = log.noted.max(commit);
        log.count = log.count.saturating_add(CLEARED);
        log.forget();
        drop(log);
        self.let_go();
    }

    /// Gives the memory of columns back that nothing is noted for any more, unless somebody is at them: he will.
    fn let_go(&self) {
        if let Some(mut slot) = self.slot.try_lock()
            && matches!(*slot, Slot::Made(_))
        {
            *slot = Slot::Empty;
        }
    }

    /// Gives the columns as a reader at a commit sees them; `fill` hands over what the reader sees, where they have to be
    /// made. Nothing where the reader sees an older state, where there is no room, where something cannot be read, or where
    /// somebody else is making them.
    pub(crate) fn at(
        &self,
        commit: u64,
        fill: impl FnOnce(&mut dyn FnMut(Summary<'_>) -> bool) -> Result<()>,
    ) -> Result<Option<Table>> {
        if self.bytes_max == 0 {
            return Ok(None);
        }
        let Some(mut slot) = self.slot.try_lock_for(WAIT) else { return Ok(None) };
        let (since, count) = {
            let mut log = self.log.lock();
            match &*slot {
                Slot::GivenUp(until) if log.count < *until => return Ok(None),
                Slot::Made(_) if log.since.is_some() => {}
                _ => *slot = Slot::Empty,
            }
            let noted = log.noted;
            (*log.since.get_or_insert(noted), log.count)
        };
        let mut table = match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Made(table) => table,
            // What was changed before changes were noted may not be seen by this reader.
            _ if commit < since => return Ok(None),
            _ => {
                let (made, records) = self.make(commit, fill);
                match made {
                    Ok(Some(table)) => table,
                    Err(error) if !matches!(error.kind(), ErrorKind::Corrupt { .. }) => return Err(error),
                    _ => {
                        *slot = Slot::GivenUp(count + changes_max(records));
                        self.log.lock().forget();
                        return Ok(None);
                    }
                }
            }
        };
        if table.upto <= commit {
            let changes = {
                let mut log = self.log.lock();
                if log.since.is_none() {
                    return Ok(None);
                }
                log.take(commit)
            };
            let before = std::mem::replace(&mut table.upto, commit);
            changes.into_iter().filter(|it| it.commit > before).for_each(|it| table.change(it));
            if !table.settle(self.bytes_max) {
                *slot = Slot::GivenUp(count + changes_max(table.base.len()));
                self.log.lock().forget();
                return Ok(None);
            }
        }
        *slot = Slot::Made(table.clone());
        Ok((table.upto <= commit).then_some(table))
    }

    /// Makes columns of what a reader sees; tells how many records it saw.
    fn make(
        &self,
        commit: u64,
        fill: impl FnOnce(&mut dyn FnMut(Summary<'_>) -> bool) -> Result<()>,
    ) -> (Result<Option<Table>>, usize) {
        let (mut base, mut is_whole) = (Base::default(), true);
        let filled = fill(&mut |summary| {
            is_whole = base.push(summary) && base.bytes() <= self.bytes_max;
            is_whole
        });
        let records = base.len();
        base.shrink();
        let table = Table { base: Arc::new(base), newer: Arc::default(), newer_bytes: 0, upto: commit };
        (filled.map(|()| is_whole.then_some(table)), records)
    }

    /// Tells how many records are in columns, and about how many bytes these take; of none while they are made.
    pub(crate) fn size(&self) -> (u64, u64) {
        match self.slot.try_lock().as_deref() {
            Some(Slot::Made(table)) => (table.base.len() as u64, table.bytes() as u64),
            _ => (0, 0),
        }
    }
}
