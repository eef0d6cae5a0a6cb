//! What is forgotten: to make room, and because somebody says that it is not so any more.

use bytes::Bytes;
use larder::format::{Labelled, RecordFlags};
use larder::{
    AbsentReason, CollectionDefinition, CollectionMut, Draft, ErrorKind, Key, Part, Record, Row, RowDraft,
    RowRange, Tuple, WriteTxn,
};

use super::limits::Excess;
use super::{Namespace, Parts, RememberError, Result, are_found, digest_of_tag};
use crate::place::{found, number, open, page_of, remove_where};

/// How many entries are looked at at a time to make room.
const EVICTED_AT_ONCE: usize = 32;
/// How much is noted as forgotten, until it is noted that everything was.
const NOTES_MAX: u64 = 10_000;

/// What is noted as forgotten. A note is a row by what kind it is and the digest of what it is about; it has a number of
/// the count that also numbers claims: so who has claimed before was computing while it was forgotten.
#[derive(Clone, Copy)]
enum Note<'a> {
    Everything,
    Parts(&'a [u8]),
    Tag(&'a str),
    Part(&'a str, &'a Part),
}

fn numbered(number: u64) -> RowDraft {
    RowDraft::default().field("n", number)
}

impl Note<'_> {
    fn row(self) -> Result<Tuple> {
        let digest = |bytes: &[u8]| Part::from(blake3::hash(bytes).as_bytes().to_vec());
        let parts = match self {
            Self::Everything => vec!["everything".into()],
            Self::Parts(parts) => vec!["parts".into(), digest(parts)],
            Self::Tag(tag) => vec!["tag".into(), digest(tag.as_bytes())],
            Self::Part(name, value) => {
                let pair = Tuple::encode(&[name.into(), value.clone()]).map_err(RememberError::parts)?;
                vec!["part".into(), digest(&pair)]
            }
        };
        Tuple::new(parts).map_err(RememberError::parts)
    }
}

impl Namespace {
    /// Removes entries until the limits hold: never the one that was just written, never one that is pinned.
    pub(super) fn evict(&self, txn: &mut WriteTxn<'_>, written: Option<(&Tuple, u64)>) -> Result<Vec<Key>> {
        let (mut evicted, now) = (Vec::new(), txn.info().time);
        loop {
            let (mut entries, limits) = self.open(txn)?;
            let total = entries.aggregate("all", &[])?;
            let bytes = u64::try_from(total.sum).unwrap_or(u64::MAX);
            let Some((unit, limit)) = Excess::of(&limits, total.count, bytes).unit() else {
                return Ok(evicted);
            };
            let first = |entries: &mut CollectionMut<'_, '_>, index: &str, range: RowRange| {
                let found = entries.find(index, &range.limit(EVICTED_AT_ONCE))?.rows;
                let is_old = |row: &Row| written.is_none_or(|(written, _)| row.key() != written);
                Ok::<_, RememberError>(found.into_iter().find(is_old))
            };
            // What is past its time is of use to nobody.
            let due = match are_found(entries.definition()) {
                true => first(&mut entries, "until", RowRange::all().at_most(now))?,
                false => None,
            };
            if let Some(due) = due {
                evicted.extend(self.forget_if_due(txn, due.key())?.flatten());
                continue;
            }
            let victim = first(&mut entries, limits.eviction.index(), RowRange::all())?;
            let Some(victim) = victim else {
                return match written {
                    Some((_, size)) => Err(RememberError::TooLarge { size, unit, limit }),
                    None => Ok(evicted),
                };
            };
            evicted.extend(self.forget(txn, victim.key())?);
        }
    }

    /// Removes an entry and its value; gives the key of the value, if it was there.
    pub(super) fn forget(&self, txn: &mut WriteTxn<'_>, row: &Tuple) -> Result<Option<Key>> {
        let (mut entries, _) = self.open(txn)?;
        entries.remove(row)?;
        let (there, at) = self.place(txn, &self.fingerprint_of(row.encoded_bytes(), 0)?)?;
        if there.is_none() {
            return Ok(None);
        }
        if txn.exists(&self.behind(&at)?.key)? {
            // Others with the same fingerprint lie behind it and are found past it: what stays is a mark.
            let mark = Draft::absent(AbsentReason::Evicted).with(|about| about.extra(at.parts.clone()));
            txn.put(&at.key, mark)?;
        } else {
            txn.delete(&at.key)?;
        }
        Ok(Some(at.key))
    }

    /// Opens the notes. There is always one of everything, so that it takes no room when there is none left.
    pub(super) fn open_notes<'t, 's>(&self, txn: &'t mut WriteTxn<'s>) -> Result<CollectionMut<'t, 's>> {
        if found(txn.collection(&self.forgotten))?.is_none() {
            open(txn, &self.forgotten, CollectionDefinition::new)?
                .put(Note::Everything.row()?, numbered(0))?;
        }
        Ok(txn.collection(&self.forgotten)?)
    }

    /// Notes that something was forgotten, for those who are computing it.
    fn note(&self, txn: &mut WriteTxn<'_>, what: Note<'_>) -> Result<()> {
        let now = txn.unique_number();
        let mut notes = self.open_notes(txn)?;
        if !matches!(what, Note::Everything) && notes.total()?.count < NOTES_MAX {
            match notes.put(what.row()?, numbered(now)) {
                Err(error) if matches!(error.kind(), ErrorKind::StoreFull { .. }) => {}
                noted => return Ok(noted.map(drop)?),
            }
        }
        let everything = Note::Everything.row()?;
        remove_where(&mut notes, None, RowRange::all(), usize::MAX, |_, row| {
            Ok::<_, RememberError>(*row.key() != everything)
        })?;
        notes.put(everything, numbered(now))?;
        Ok(())
    }

    /// Tells whether a value that was just stored was forgotten since somebody claimed to compute it.
    pub(super) fn was_forgotten_since(
        &self,
        txn: &mut WriteTxn<'_>,
        fence: u64,
        record: &Record,
    ) -> Result<bool> {
        let Some(notes) = found(txn.collection(&self.forgotten))? else { return Ok(false) };
        let encoded = Bytes::copy_from_slice(record.extra().unwrap_or_default());
        let parts = Labelled::decode(&encoded).map_err(RememberError::parts)?;
        let parts: Vec<_> = parts.iter().collect();
        let of_parts = parts.iter().map(|(name, value)| Note::Part(name, value));
        let all = [Note::Everything, Note::Parts(&encoded)].into_iter();
        for note in all.chain(record.tags().map(Note::Tag)).chain(of_parts) {
            if notes.get(note.row()?)?.is_some_and(|row| number::<u64>(&row, "n") > fence) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets a value, also one that is being computed; tells whether it was there.
    ///
    /// # Errors
    /// [`Parts`](RememberError::Parts), [`Store`](RememberError::Store).
    pub fn invalidate(&self, txn: &mut WriteTxn<'_>, parts: &Parts) -> Result<bool> {
        let row = self.fingerprint(parts)?.row()?;
        self.note(txn, Note::Parts(row.encoded()))?;
        Ok(self.forget(txn, &row)?.is_some())
    }

    /// Removes values that are past their time, at most so many, and never what is pinned; gives how many went. They are not given
    /// to anybody before, and go first when room is made; without this, and without limits, they stay. Those of a namespace that
    /// was made before entries said when they expire are found once [its limits were set](Self::set_limits).
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn sweep(&self, txn: &mut WriteTxn<'_>, limit: usize) -> Result<u64> {
        if found(txn.collection(&self.entries))?.is_none() {
            return Ok(0);
        }
        let now = txn.info().time;
        loop {
            let (mut entries, _) = self.open(txn)?;
            if !are_found(entries.definition()) {
                return Ok(0);
            }
            let due = entries.find("until", &RowRange::all().at_most(now).limit(limit))?.rows;
            let mut count = 0;
            for row in &due {
                count += u64::from(self.forget_if_due(txn, row.key())?.is_some());
            }
            // Where none of them was due after all, there may be others.
            if count > 0 || due.is_empty() {
                return Ok(count);
            }
        }
    }

    /// Removes an entry that is past its time, with its value; gives the key of that, if it was there. Where somebody gave the value
    /// itself more time, or pinned it, its entry says so from now on, and nothing is removed.
    fn forget_if_due(&self, txn: &mut WriteTxn<'_>, row: &Tuple) -> Result<Option<Option<Key>>> {
        let (record, at) = self.place(txn, &self.fingerprint_of(row.encoded_bytes(), 0)?)?;
        let is_kept = |record: &Record| {
            record.expires() > txn.info().time || record.flags().contains(RecordFlags::PINNED)
        };
        match record.filter(is_kept) {
            Some(record) => self.mark(txn, &at, &record).map(|()| None),
            None => self.forget(txn, row).map(Some),
        }
    }

    /// Forgets every value that was given a tag when it was stored or asked for, also those that are being computed; gives how
    /// many were there.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn invalidate_tag(&self, txn: &mut WriteTxn<'_>, tag: &str) -> Result<u64> {
        self.note(txn, Note::Tag(tag))?;
        let is_indexed = are_found(self.open(txn)?.0.definition());
        let range = is_indexed.then(|| ("tag", RowRange::all().with(digest_of_tag(tag))));
        self.forget_where(txn, range, |namespace, txn, row| {
            let (record, _) = namespace.place(txn, &namespace.fingerprint_of(row.encoded_bytes(), 0)?)?;
            // The digests of two tags can be the same.
            let has_tag = record.is_none_or(|record| record.tags().any(|other| other == tag));
            if has_tag {
                // Whoever computes it anew gives it other tags, perhaps.
                namespace.note(txn, Note::Parts(row.encoded()))?;
            }
            Ok(has_tag)
        })
    }

    /// Forgets every value one of whose parts is a text that begins so, also those that are being computed; gives how many were
    /// there. Looks at all entries. Whatever is computed meanwhile, from other parts too, is given to whoever computes it, and
    /// not kept.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn invalidate_prefix(&self, txn: &mut WriteTxn<'_>, name: &str, prefix: &str) -> Result<u64> {
        self.note(txn, Note::Everything)?;
        self.forget_where(txn, None, |_, _, row| {
            let parts = Labelled::decode(&row.encoded_bytes()).map_err(RememberError::parts)?;
            Ok(matches!(parts.get(name), Some(Part::String(text)) if text.starts_with(prefix)))
        })
    }

    /// Forgets every value one of whose parts is this, also those that are being computed; gives how many were there. Looks
    /// at all entries.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn invalidate_part(&self, txn: &mut WriteTxn<'_>, name: &str, value: impl Into<Part>) -> Result<u64> {
        let value = value.into();
        self.note(txn, Note::Part(name, &value))?;
        self.forget_where(txn, None, |_, _, row| {
            let parts = Labelled::decode(&row.encoded_bytes()).map_err(RememberError::parts)?;
            Ok(parts.get(name).as_ref() == Some(&value))
        })
    }

    /// Forgets those of all entries, or of those in a range of an index, that are to go; gives how many values there were.
    fn forget_where(
        &self,
        txn: &mut WriteTxn<'_>,
        range: Option<(&str, RowRange)>,
        is_to_go: impl Fn(&Self, &mut WriteTxn<'_>, &Tuple) -> Result<bool>,
    ) -> Result<u64> {
        let mut count = 0;
        self.each_entry(txn, range, |namespace, txn, row| {
            if is_to_go(namespace, txn, row)? {
                count += u64::from(namespace.forget(txn, row)?.is_some());
            }
            Ok(())
        })?;
        Ok(count)
    }

    /// Goes through all entries, or those in a range of an index, which may be changed and removed meanwhile.
    pub(super) fn each_entry(
        &self,
        txn: &mut WriteTxn<'_>,
        range: Option<(&str, RowRange)>,
        mut each: impl FnMut(&Self, &mut WriteTxn<'_>, &Tuple) -> Result<()>,
    ) -> Result<()> {
        let (index, range) = range.map_or((None, RowRange::all()), |(index, range)| (Some(index), range));
        let mut after = None;
        loop {
            let range = after.take().map_or_else(|| range.clone(), |cursor| range.clone().after(cursor));
            let (mut entries, _) = self.open(txn)?;
            let page = page_of(&mut entries, index, &range.limit(1_000))?;
            for row in &page.rows {
                each(self, txn, row.key())?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Forgets everything, also what is being computed, and keeps the limits; gives how many values there were.
    ///
    /// # Errors
    /// [`Store`](RememberError::Store).
    pub fn clear(&self, txn: &mut WriteTxn<'_>) -> Result<u64> {
        self.note(txn, Note::Everything)?;
        let (mut entries, _) = self.open(txn)?;
        let count = entries.clear()?;
        txn.delete_tree(&self.values)?;
        // Those who keep a fingerprint go on counting where they did.
        self.uses.lock().values().for_each(|uses| {
            let _ = uses.take();
        });
        Ok(count)
    }
}
