//! Mounts: several stores joined under places, as one tree.
//!
//! A key belongs to the first mount that covers it; what later ones have there is not seen. A store keeps its keys without
//! the place that it is mounted at. A transaction is one store's: [`Mounts::session_of`] gives the session and the key in it.

use std::collections::BTreeMap;

use larder_format::{Key, Prefix, Record, SectionTag};

use crate::edit::{Annotation, Draft, DraftPayload, Edit, IntoKey, IntoPlace, Outcome, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Receipt, Session};
use crate::txn::{Asset, Entry};

/// Stores that are joined. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Mounts(Vec<(Prefix, Session)>);

impl Mounts {
    /// Makes a tree of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Mounts a store, as somebody, at a place; `""` for the root. Earlier mounts go before later ones.
    ///
    /// # Errors
    /// [`InvalidKey`](ErrorKind::InvalidKey).
    pub fn mount(mut self, place: impl IntoPlace, session: Session) -> Result<Self> {
        self.0.push((place.into_place()?, session));
        Ok(self)
    }

    /// Gives the session that a key belongs to, and what it is called there.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if no mount covers it, or it is a mount point itself;
    /// [`InvalidKey`](ErrorKind::InvalidKey).
    pub fn session_of(&self, key: impl IntoKey) -> Result<(&Session, Key)> {
        let key = key.into_key()?;
        let found = self.mount_of(&key).and_then(|at| self.0.get(at));
        let (place, session) = found.ok_or_else(|| Error::from(ErrorKind::NotFound).at(&key))?;
        let inside = inside(place, &Prefix::from(&key))?;
        match inside.as_key() {
            Some(inside) => Ok((session, inside.clone())),
            None => Err(Error::from(ErrorKind::NotFound).at(&key)),
        }
    }

    fn mount_of(&self, key: &Key) -> Option<usize> {
        self.0.iter().position(|(place, _)| place.covers(key))
    }

    /// Stores a draft under a key, in place of what is there.
    ///
    /// # Errors
    /// As [`Session::put`] and [`Mounts::session_of`].
    pub fn put(&self, key: impl IntoKey, draft: impl Into<Draft>) -> Result<Receipt<Stored>> {
        let (session, key) = self.session_of(key)?;
        session.put(key, draft)
    }

    /// Gives an asset.
    ///
    /// # Errors
    /// As [`Session::get`] and [`Mounts::session_of`].
    pub fn get(&self, key: impl IntoKey) -> Result<Asset> {
        let (session, key) = self.session_of(key)?;
        session.get(key)
    }

    /// Gives a record.
    ///
    /// # Errors
    /// As [`Session::record`] and [`Mounts::session_of`].
    pub fn record(&self, key: impl IntoKey) -> Result<Record> {
        let (session, key) = self.session_of(key)?;
        session.record(key)
    }

    /// Removes an asset; tells whether it was there.
    ///
    /// # Errors
    /// As [`Session::delete`] and [`Mounts::session_of`].
    pub fn delete(&self, key: impl IntoKey) -> Result<Receipt<bool>> {
        let (session, key) = self.session_of(key)?;
        session.delete(key)
    }

    /// Copies an asset with its metadata, from one store to another if it must be: then its payload is streamed, it is a
    /// new asset there, and what it was made from stays behind.
    ///
    /// # Errors
    /// As [`Session::copy`], [`Session::put_reader`] and [`Mounts::session_of`].
    pub fn copy(&self, from: impl IntoKey, to: impl IntoKey) -> Result<Receipt<Outcome>> {
        let (from, to) = (from.into_key()?, to.into_key()?);
        let is_one_store = self.mount_of(&from) == self.mount_of(&to);
        let ((source, from), (target, to)) = (self.session_of(from)?, self.session_of(to)?);
        if is_one_store {
            return target.apply(Edit::copy(from, to));
        }
        let asset = source.get(&from)?;
        if asset.record().is_collection() {
            return Err(Error::from(ErrorKind::IsACollection).at(&from));
        }
        let draft = draft_of(asset.record());
        if !asset.record().has_payload() {
            return target.apply(Edit::put(to, draft));
        }
        let prepared = target.prepare(&to, &mut asset.into_reader()?, &draft)?;
        let draft = Draft { payload: DraftPayload::Prepared(prepared), ..draft };
        target.apply(Edit::put(to, draft))
    }

    /// Lists one level of all stores together, each name once; mount points are directories.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if no store has such a directory; as [`Session::list`].
    pub fn list(&self, place: impl IntoPlace) -> Result<Vec<Entry>> {
        let place = place.into_place()?;
        let mut entries: BTreeMap<Key, Entry> = BTreeMap::new();
        let mut is_there = place.is_root();
        for (at, (mounted, session)) in self.0.iter().enumerate() {
            // One that lies below an earlier one is not seen.
            let is_seen = |point: &&Key| place.is_ancestor_of(point) && self.mount_of(point) == Some(at);
            if let Some(point) = mounted.as_key().filter(is_seen) {
                let key = first_below(&place, point)?;
                let entry = Entry { key: key.clone(), record: None, has_children: true };
                entries.entry(key).or_insert(entry).has_children = true;
                is_there = true;
            }
            let covers = place.as_key().map_or(mounted.is_root(), |place| mounted.covers(place));
            if !covers {
                continue;
            }
            let listed = match session.list(inside(mounted, &place)?) {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound) => continue,
                listed => listed?,
            };
            is_there |= place.as_key().is_none_or(|place| self.mount_of(place) == Some(at));
            for entry in listed {
                let key = entry.key.rebase(&Prefix::root(), mounted)?;
                // What belongs to an earlier mount is not seen, whatever this one has there.
                if self.mount_of(&key) == Some(at) {
                    is_there = true;
                    let known = entries.entry(key.clone()).or_insert(Entry {
                        key,
                        record: None,
                        has_children: false,
                    });
                    known.has_children |= entry.has_children;
                    known.record = known.record.take().or(entry.record);
                }
            }
        }
        match place.as_key().filter(|_| !is_there) {
            Some(key) => Err(Error::from(ErrorKind::NotFound).at(key)),
            None => Ok(entries.into_values().collect()),
        }
    }
}

/// What a place is called in a store that is mounted above it.
fn inside(mounted: &Prefix, place: &Prefix) -> Result<Prefix> {
    match place.as_key() {
        Some(key) if mounted.as_key() != Some(key) => {
            Ok(Prefix::from(&key.rebase(mounted, &Prefix::root())?))
        }
        _ => Ok(Prefix::root()),
    }
}

/// The key on the way to another, one level below a place.
fn first_below(place: &Prefix, point: &Key) -> Result<Key> {
    let depth = place.as_key().map_or(0, Key::depth);
    let name = point.segments().nth(depth).unwrap_or_default();
    Ok(place.join(name)?)
}

/// A draft with the metadata of a record, without its payload.
fn draft_of(record: &Record) -> Draft {
    let reason = match record.payload() {
        larder_format::PayloadState::Absent(reason) => reason,
        _ => larder_format::AbsentReason::NeverProduced,
    };
    let draft = Draft::absent(reason)
        .data_format(record.data_format())
        .media_type(record.media_type())
        .type_identifier(record.type_identifier())
        .status(record.status());
    draft.with(|mut about| {
        for tag in [SectionTag::Title, SectionTag::Description, SectionTag::FileName, SectionTag::Message] {
            about.texts.extend(record.text(tag).map(|text| (tag, text.to_owned())));
        }
        about = record.tags().fold(about, Annotation::tag).expires(record.expires());
        for (name, value) in record.attributes().0 {
            about = about.attribute(name, value);
        }
        match record.extra() {
            Some(extra) => about.extra(extra.to_vec()),
            None => about,
        }
    })
}
