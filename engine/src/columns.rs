//! The fields of records that filters ask for most, in columns: 1 000 000 records are looked at in milliseconds.
//!
//! The columns are made of the view of the first reader who asks for them, and follow the commits from there on: what a
//! commit changes is noted before it is visible, and taken in by the next reader who sees it. A reader of an older state
//! looks at the records where they lie.
//!
//! Invariants
//! 1. The columns are what a reader at `upto` sees, and everything that was changed after `upto` is in the log.
//! 2. A change is in the log before any reader sees its commit (the protocol of [`crate::cache`]).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_format::{AbsentReason, Key, Micros, PayloadState, Record, RecordFlags, StatusProperties};
use parking_lot::Mutex;

use crate::error::Result;
use crate::store::corrupt;

/// What a record takes in the columns beside its key, in bytes.
const RECORD_BYTES: usize = 40;
/// What a change takes in the log or over the columns beside its key, in bytes, about.
const CHANGE_BYTES: usize = 160;
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
}

impl Base {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        self.keys.len() + self.len() * RECORD_BYTES
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
    fn change(&mut self, key: Box<[u8]>, fields: Option<Fields>) {
        let bytes = key.len() + CHANGE_BYTES;
        if Arc::make_mut(&mut self.newer).insert(key, fields).is_none() {
            self.newer_bytes += bytes;
        }
    }

    /// Puts all in columns again, where much has changed; tells whether that could be done.
    fn settle(&mut self) -> bool {
        if self.newer.len() <= CHANGES_MIN + self.base.len() / CHANGES_PART {
            return true;
        }
        let mut base = Base::default();
        let mut is_whole = true;
        let settled = self.each(&[], None, |summary| {
            is_whole &= base.push(summary);
            Ok(())
        });
        self.base = Arc::new(base);
        self.newer = Arc::default();
        self.newer_bytes = 0;
        is_whole && settled.is_ok()
    }
}

/// What commits changed that the columns have not taken in.
#[derive(Default)]
struct Log {
    /// The last commit that changed any record.
    noted: u64,
    /// Whether changes are kept.
    is_kept: bool,
    changes: VecDeque<(u64, Box<[u8]>, Option<Fields>)>,
    bytes: usize,
}

impl Log {
    fn forget(&mut self) {
        *self = Self { noted: self.noted, ..Self::default() };
    }
}

/// The columns of a store, once somebody has asked for them and as far as there is room.
pub(crate) struct Columns {
    bytes_max: usize,
    /// Whether there was no room for them: then nobody tries again.
    is_too_large: AtomicBool,
    table: Mutex<Option<Table>>,
    /// Locked behind the table.
    log: Mutex<Log>,
}

impl Columns {
    /// Makes columns that take up to so many bytes; with 0 there are none.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let is_too_large = AtomicBool::new(bytes_max == 0);
        Self { bytes_max, is_too_large, table: Mutex::default(), log: Mutex::default() }
    }

    /// Notes what a commit that is not visible yet makes of a record; nothing where it removes it.
    pub(crate) fn change(&self, key: &[u8], commit: u64, row: Option<&[u8]>) {
        let mut log = self.log.lock();
        log.noted = log.noted.max(commit);
        if !log.is_kept {
            return;
        }
        let fields = match row.map(Record::in_place) {
            None => None,
            Some(Ok((record, _))) => Some(Fields::of(&record)),
            // Readers meet the error where it lies.
            Some(Err(_)) => return log.forget(),
        };
        log.bytes += key.len() + CHANGE_BYTES;
        log.changes.push_back((commit, key.into(), fields));
        if log.bytes > self.bytes_max / CHANGES_PART {
            // Nobody asks any more. What is not kept is made anew.
            log.forget();
        }
    }

    /// Notes that a commit that is not visible yet removes many records.
    pub(crate) fn clear(&self, commit: u64) {
        let mut log = self.log.lock();
        log.noted = log.noted.max(commit);
        log.forget();
    }

    /// Gives the columns as a reader at a commit sees them; `fill` hands over what the reader sees, where they have to be
    /// made. Nothing where the reader sees an older state, or where there is no room.
    pub(crate) fn at(
        &self,
        commit: u64,
        fill: impl FnOnce(&mut dyn FnMut(Summary<'_>) -> Result<bool>) -> Result<()>,
    ) -> Result<Option<Table>> {
        if self.is_too_large.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut slot = self.table.lock();
        let since = {
            let mut log = self.log.lock();
            if !log.is_kept {
                *slot = None;
                log.is_kept = true;
            }
            log.noted
        };
        let made = match slot.take() {
            Some(table) => Some(table),
            // What was changed before changes were kept may not be seen by this reader.
            None if commit < since => None,
            None => self.make(commit, fill)?,
        };
        let Some(mut table) = made else {
            self.log.lock().forget();
            return Ok(None);
        };
        let mut is_whole = true;
        if table.upto <= commit {
            let mut log = self.log.lock();
            if !log.is_kept {
                return Ok(None);
            }
            while log.changes.front().is_some_and(|(at, ..)| *at <= commit) {
                let Some((at, key, fields)) = log.changes.pop_front() else { break };
                log.bytes -= key.len() + CHANGE_BYTES;
                if at > table.upto {
                    table.change(key, fields);
                }
            }
            drop(log);
            is_whole = table.settle() && table.bytes() <= self.bytes_max;
            table.upto = commit;
        }
        if !is_whole {
            self.is_too_large.store(true, Ordering::Relaxed);
            self.log.lock().forget();
            return Ok(None);
        }
        *slot = Some(table.clone());
        Ok((table.upto <= commit).then_some(table))
    }

    fn make(
        &self,
        commit: u64,
        fill: impl FnOnce(&mut dyn FnMut(Summary<'_>) -> Result<bool>) -> Result<()>,
    ) -> Result<Option<Table>> {
        let (mut base, mut is_whole) = (Base::default(), true);
        fill(&mut |summary| {
            is_whole = base.push(summary) && base.bytes() <= self.bytes_max;
            Ok(is_whole)
        })?;
        let table = Table { base: Arc::new(base), newer: Arc::default(), newer_bytes: 0, upto: commit };
        self.is_too_large.store(!is_whole, Ordering::Relaxed);
        Ok(is_whole.then_some(table))
    }

    /// Tells how many records are in columns, and about how many bytes these take.
    pub(crate) fn size(&self) -> (u64, u64) {
        let table = self.table.lock();
        table.as_ref().map_or((0, 0), |table| (table.base.len() as u64, table.bytes() as u64))
    }
}
