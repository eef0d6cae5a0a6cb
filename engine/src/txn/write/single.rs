//! Single changes in a transaction: those of a [`Session`](crate::Session), by the same names.

use std::path::PathBuf;

use super::{WriteTxn, stored};
use crate::edit::{Annotation, Draft, Edit, IntoKey, IntoPlace, Stored, TagPolicy};
use crate::error::Result;
use crate::payload::Storable;

impl WriteTxn<'_> {
    /// Stores a draft under a key, in place of what is there.
    ///
    /// # Errors
    /// Every refusal of the guard; then nothing of the put is in the transaction, which can go on.
    pub fn put(&mut self, key: impl IntoKey, draft: impl Into<Draft>) -> Result<Stored> {
        self.stored(Edit::put(key, draft))
    }

    /// Stores a value in its archived form.
    ///
    /// # Errors
    /// As [`WriteTxn::put`], and [`Serialization`](crate::ErrorKind::Serialization).
    pub fn put_typed<T: Storable>(&mut self, key: impl IntoKey, value: &T) -> Result<Stored> {
        self.put(key, Draft::typed(value))
    }

    /// Changes the metadata of an asset; its payload stays.
    ///
    /// # Errors
    /// As [`WriteTxn::put`], and [`NotFound`](crate::ErrorKind::NotFound) if nothing is there.
    pub fn annotate(&mut self, key: impl IntoKey, annotation: Annotation) -> Result<Stored> {
        self.stored(Edit::annotate(key, annotation))
    }

    /// Removes an asset; tells whether it was there.
    ///
    /// # Errors
    /// [`AccessDenied`](crate::ErrorKind::AccessDenied), whether or not anything is there.
    pub fn delete(&mut self, key: impl IntoKey) -> Result<bool> {
        self.apply(Edit::delete(key)).map(|outcome| outcome.is_done())
    }

    /// Stores the content of a file. It is read in the transaction, and holds up other writers: for a large one take
    /// [`Session::put_file`](crate::Session::put_file), or [`Session::prepare`](crate::Session::prepare) ahead of the transaction.
    ///
    /// # Errors
    /// As [`WriteTxn::put`], and [`Source`](crate::ErrorKind::Source) if the file cannot be read to its end.
    pub fn put_file(&mut self, key: impl IntoKey, path: impl Into<PathBuf>) -> Result<Stored> {
        self.put(key, Draft::file(path))
    }

    /// Adds tags to an asset, or replaces them, as the policy says.
    ///
    /// # Errors
    /// As [`WriteTxn::annotate`]; [`TooManyTags`](crate::ErrorKind::TooManyTags), [`InvalidTag`](crate::ErrorKind::InvalidTag).
    pub fn tag<'t>(
        &mut self,
        key: impl IntoKey,
        tags: impl IntoIterator<Item = &'t str>,
        policy: TagPolicy,
    ) -> Result<Stored> {
        self.stored(Edit::tag(key, tags, policy))
    }

    /// Removes everything at and below a place; tells how many assets went.
    ///
    /// # Errors
    /// [`AccessDenied`](crate::ErrorKind::AccessDenied) if one of the keys may not be removed; then none is.
    pub fn delete_tree(&mut self, place: impl IntoPlace) -> Result<u64> {
        self.apply(Edit::delete_tree(place)).map(|outcome| outcome.removed())
    }

    /// Gives an asset another key.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`AlreadyExists`](crate::ErrorKind::AlreadyExists),
    /// [`AccessDenied`](crate::ErrorKind::AccessDenied).
    pub fn rename(&mut self, from: impl IntoKey, to: impl IntoKey) -> Result<Stored> {
        self.stored(Edit::rename(from, to))
    }

    /// Moves everything at and below a place to another; tells how many assets went.
    ///
    /// # Errors
    /// As [`WriteTxn::rename`]; [`TransactionTooLarge`](crate::ErrorKind::TransactionTooLarge).
    pub fn rename_tree(&mut self, from: impl IntoPlace, to: impl IntoPlace) -> Result<u64> {
        self.apply(Edit::rename_tree(from, to)).map(|outcome| outcome.removed())
    }

    /// Stores a copy of an asset under another key, in place of what is there; the payload is shared.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`AccessDenied`](crate::ErrorKind::AccessDenied).
    pub fn copy(&mut self, from: impl IntoKey, to: impl IntoKey) -> Result<Stored> {
        self.stored(Edit::copy(from, to))
    }

    /// Makes a directory that is there even while it is empty. One that is there already is left as it is.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if an asset has this key.
    pub fn make_directory(&mut self, key: impl IntoKey) -> Result<Stored> {
        self.stored(Edit::make_directory(key))
    }

    /// Removes a directory that is empty; tells whether it was there.
    ///
    /// # Errors
    /// [`NotEmpty`](crate::ErrorKind::NotEmpty).
    pub fn remove_directory(&mut self, key: impl IntoKey) -> Result<bool> {
        self.apply(Edit::remove_directory(key)).map(|outcome| outcome.is_done())
    }

    fn stored(&mut self, edit: Edit) -> Result<Stored> {
        let key = edit.change.as_ref().ok().and_then(|change| change.key().cloned());
        stored(self.apply(edit)?, key.as_ref())
    }
}
