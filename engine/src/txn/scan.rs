//! Scans: every asset at and below a place, looked at where it lies, by one thread or several.
//!
//! A walk makes a key and a record of its own of every asset. A scan hands out what lies in the page, which is many
//! times quicker where most assets are not wanted. For several threads the range is cut into pieces at keys that are
//! there; each thread takes the next piece that nobody has, and what they found is put together in the order of keys.

use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use larder_format::{Key, Prefix, Record, Right};
use parking_lot::Mutex;

use super::read::ReadTxn;
use super::reading::Reading;
use super::view::LOOK_AT_AGE_EVERY;
use crate::columns::Summary;
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::store::{Table, corrupt};

/// How many pieces there are for every thread, so that they end at about the same time.
const PIECES_A_THREAD: usize = 16;

/// An asset where it lies.
pub struct Scanned<'a> {
    key: &'a [u8],
    record: Record<&'a [u8]>,
    inline: &'a [u8],
}

impl std::fmt::Debug for Scanned<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanned").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Scanned<'_> {
    /// Makes the key.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if it is malformed.
    pub fn key(&self) -> Result<Key> {
        Key::decode(self.key).map_err(|error| corrupt(error.to_string()))
    }

    /// Gives the key as it lies there: every segment followed by a byte of 0.
    #[must_use]
    pub fn encoded_key(&self) -> &[u8] {
        self.key
    }

    /// Gives the record, in place.
    #[must_use]
    pub fn record(&self) -> &Record<&[u8]> {
        &self.record
    }

    /// Gives the payload, if it is a small one that lies with the record.
    #[must_use]
    pub fn inline_payload(&self) -> Option<&[u8]> {
        use larder_format::PayloadState;
        matches!(self.record.payload(), PayloadState::Inline { .. }).then_some(self.inline)
    }
}

/// A scan of a view, to be run by [`count`](Scan::count), [`find`](Scan::find) or [`fold`](Scan::fold). Only what the
/// caller may list is handed out, by the rules that are in force when it runs.
#[derive(Debug)]
#[must_use]
pub struct Scan<'a> {
    txn: &'a ReadTxn,
    place: Prefix,
    threads: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(txn: &'a ReadTxn, place: Prefix) -> Self {
        Self { txn, place, threads: 1 }
    }

    /// Sets how many threads share the work: 1 by default, which is the caller's own.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Counts the assets that are wanted.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`ReaderExpired`](crate::ErrorKind::ReaderExpired),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn count(&self, is_wanted: impl Fn(&Scanned<'_>) -> bool + Sync) -> Result<u64> {
        let counts = self.fold(
            || 0,
            |count, asset| {
                *count += u64::from(is_wanted(asset));
                Ok(())
            },
        )?;
        Ok(counts.into_iter().sum())
    }

    /// Gives the assets that are wanted, in the order of their keys.
    ///
    /// # Errors
    /// As [`Scan::count`].
    pub fn find(&self, is_wanted: impl Fn(&Scanned<'_>) -> bool + Sync) -> Result<Vec<(Key, Record)>> {
        let found = self.fold(Vec::new, |found: &mut Vec<(Key, Record)>, asset| {
            if is_wanted(asset) {
                found.push((asset.key()?, asset.record.to_record()));
            }
            Ok(())
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Folds the assets piece by piece: `begin` makes the beginning of a piece, `step` takes an asset in. Gives what
    /// became of the pieces, in the order of keys: one where one thread works, several otherwise.
    ///
    /// # Errors
    /// As [`Scan::count`], and what `step` answers, which ends the scan.
    pub fn fold<A: Send>(
        &self,
        begin: impl Fn() -> A + Sync,
        step: impl Fn(&mut A, &Scanned<'_>) -> Result<()> + Sync,
    ) -> Result<Vec<A>> {
        self.txn.observed("scan", self.place.as_str(), |reading| {
            let pieces = reading.pieces(&self.place, self.threads)?;
            let run = |(start, end): &Piece| {
                let mut sum = begin();
                reading.scan(&self.place, start.clone(), end.clone(), |asset| step(&mut sum, asset))?;
                Ok(sum)
            };
            if self.threads == 1 {
                return pieces.iter().map(run).collect();
            }
            share(&pieces, self.threads, run)
        })
    }
}

/// What is known of the assets of a view without looking at them, to be run by [`count`](Summaries::count),
/// [`find`](Summaries::find) or [`each`](Summaries::each). Only what the caller may list is handed out, by the rules that are in
/// force when it runs.
#[derive(Debug)]
#[must_use]
pub struct Summaries<'a> {
    txn: &'a ReadTxn,
    place: Prefix,
}

impl<'a> Summaries<'a> {
    pub(super) fn new(txn: &'a ReadTxn, place: Prefix) -> Self {
        Self { txn, place }
    }

    /// Counts the assets that are wanted.
    ///
    /// # Errors
    /// As [`Scan::count`].
    pub fn count(&self, is_wanted: impl Fn(&Summary<'_>) -> bool) -> Result<u64> {
        let mut count = 0;
        self.run(is_wanted, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Gives the keys of the assets that are wanted, in their order.
    ///
    /// # Errors
    /// As [`Scan::count`].
    pub fn find(&self, is_wanted: impl Fn(&Summary<'_>) -> bool) -> Result<Vec<Key>> {
        let mut found = Vec::new();
        self.run(is_wanted, |summary| summary.key().map(|key| found.push(key)))?;
        Ok(found)
    }

    /// Hands every asset to `step`, in the order of their keys.
    ///
    /// # Errors
    /// As [`Scan::count`], and what `step` answers, which ends the scan.
    pub fn each(&self, step: impl FnMut(&Summary<'_>) -> Result<()>) -> Result<()> {
        self.run(|_| true, step)
    }

    fn run(
        &self,
        is_wanted: impl Fn(&Summary<'_>) -> bool,
        mut step: impl FnMut(&Summary<'_>) -> Result<()>,
    ) -> Result<()> {
        self.txn.observed("summaries", self.place.as_str(), |reading| {
            reading.token.check()?;
            let mut step = |summary: &Summary<'_>| if is_wanted(summary) { step(summary) } else { Ok(()) };
            let (start, end) = self.place.subtree_range();
            match reading.view.columns(|| reading.token.check())? {
                Some(columns) => {
                    let mut lister = Lister::new(reading.guard, &self.place);
                    columns.each(&start, end.as_deref(), |summary| {
                        if lister.allows(summary.encoded_key())? { step(&summary) } else { Ok(()) }
                    })
                }
                None => {
                    let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(Bytes::from(end)));
                    reading.scan(&self.place, Bound::Included(start.into()), end, |asset| {
                        step(&Summary::of(asset.key, &asset.record))
                    })
                }
            }
        })
    }
}

/// What the caller may list: asked for a directory at a time, where that has one answer.
struct Lister<'g> {
    guard: Guard<'g>,
    is_everything: bool,
    /// The directory that was asked for last, and its answer.
    directory: Option<(Vec<u8>, Option<bool>)>,
}

impl<'g> Lister<'g> {
    fn new(guard: Guard<'g>, place: &Prefix) -> Self {
        Self { guard, is_everything: guard.uniform_below(Right::LIST, place) == Some(true), directory: None }
    }

    fn allows(&mut self, encoded: &[u8]) -> Result<bool> {
        if self.is_everything {
            return Ok(true);
        }
        let decode = |encoded: &[u8]| Key::decode(encoded).map_err(|error| corrupt(error.to_string()));
        let name = encoded.get(..encoded.len().saturating_sub(1)).unwrap_or_default();
        let end = name.iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1);
        let parent = encoded.get(..end).unwrap_or_default();
        let answer = match &self.directory {
            Some((asked, answer)) if asked == parent => *answer,
            _ => {
                let place = if parent.is_empty() { Prefix::root() } else { Prefix::from(&decode(parent)?) };
                let answer = self.guard.uniform_below(Right::LIST, &place);
                self.directory = Some((parent.to_vec(), answer));
                answer
            }
        };
        match answer {
            Some(answer) => Ok(answer),
            None => Ok(self.guard.allows(Right::LIST, &decode(encoded)?)),
        }
    }
}

/// From a key to another.
type Piece = (Bound<Bytes>, Bound<Bytes>);

/// Runs pieces on threads, and gives what became of them in their order.
fn share<A: Send>(
    pieces: &[Piece],
    threads: usize,
    run: impl Fn(&Piece) -> Result<A> + Sync,
) -> Result<Vec<A>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<A>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(pieces.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = pieces.get(at) else { return };
                    let outcome = run(piece);
                    if outcome.is_err() {
                        // Nobody needs the rest.
                        next.store(pieces.len(), Ordering::Relaxed);
                    }
                    done.lock().push((at, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

impl Reading<'_, '_> {
    /// Hands what the caller may list between two keys at and below a place to `step`.
    fn scan(
        &self,
        place: &Prefix,
        start: Bound<Bytes>,
        end: Bound<Bytes>,
        mut step: impl FnMut(&Scanned<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut lister = Lister::new(self.guard, place);
        let mut rows = self.view.range(self.own, Table::Records, start, end)?;
        let mut until_look = 0;
        while let Some(row) = rows.next_row() {
            if until_look == 0 {
                self.token.check()?;
                until_look = LOOK_AT_AGE_EVERY;
            }
            until_look -= 1;
            let row = row?;
            let (record, inline) = match Record::in_place(row.body()) {
                Ok(parts) => parts,
                Err(error) => {
                    let error = Error::from(error);
                    return Err(Key::decode(row.key()).map_or(error.clone(), |key| error.at(&key)));
                }
            };
            if lister.allows(row.key())? {
                step(&Scanned { key: row.key(), record, inline })?;
            }
        }
        Ok(())
    }

    /// Cuts what lies at and below a place into pieces, at keys that are in the store.
    fn pieces(&self, place: &Prefix, threads: usize) -> Result<Vec<Piece>> {
        let (start, end) = place.subtree_range();
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(Bytes::from(end)));
        let mut cuts = Vec::new();
        if threads > 1 {
            let ends =
                self.view.ends(Table::Records, Bound::Included(&start), end.as_ref().map(AsRef::as_ref))?;
            if let Some((first, last)) = ends {
                for guess in between(&first, &last, threads.saturating_mul(PIECES_A_THREAD)) {
                    let mut rows = self.view.snapshot().range(
                        Table::Records,
                        Bound::Included(&guess),
                        Bound::Included(&last),
                    )?;
                    cuts.extend(rows.next().transpose()?.map(|row| Bytes::copy_from_slice(row.key())));
                }
                cuts.dedup();
            }
        }
        let starts = std::iter::once(Bound::Included(Bytes::from(start)))
            .chain(cuts.iter().cloned().map(Bound::Included));
        let ends = cuts.iter().cloned().map(Bound::Excluded).chain(std::iter::once(end));
        Ok(starts.zip(ends).collect())
    }
}

/// Gives byte strings at even distances between two others: what they have in common, then a number of 8 bytes.
fn between(first: &[u8], last: &[u8], parts: usize) -> impl Iterator<Item = Vec<u8>> {
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(key.iter().skip(common)) {
            *to = *from;
        }
        u64::from_be_bytes(bytes)
    };
    let (low, high) = (number(first), number(last));
    let common = first.get(..common).unwrap_or_default().to_vec();
    let step = high.saturating_sub(low) / parts.max(1) as u64;
    (1..parts as u64)
        .map(move |part| [&common, low.saturating_add(step * part).to_be_bytes().as_slice()].concat())
}
