//! The life of an asset in a write transaction: what it was made from, when it expires, and what expires with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{
    Dependency, EventKind, Key, Micros, Node, Prefix, Record, RecordBuilder, RecordFlags, Right, Status,
    is_external_name,
};

use super::WriteTxn;
use crate::edit::{Annotation, IntoKey};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, New, Proposal, Row, Verdict};
use crate::primitives::{Purpose, change_edges, deadline_key, expiry_of, external_key, is_expirable};
use crate::store::Table;

/// What was made of the dependencies that an annotation names.
pub(super) struct Resolved {
    pub(super) dependencies: Vec<Dependency>,
    /// Whether one of them is never the same again.
    pub(super) is_volatile: bool,
}

impl WriteTxn<'_> {
    /// Marks an asset as expired, and with it whatever was made from it. One that is expired stays as it is.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`NotExpirable`](ErrorKind::NotExpirable) for what nothing makes again;
    /// [`AccessDenied`](ErrorKind::AccessDenied): it takes the right to write;
    /// [`CascadeTooLarge`](ErrorKind::CascadeTooLarge).
    pub fn expire(&mut self, key: impl IntoKey) -> Result<bool> {
        let key = key.into_key()?;
        let expired = self.expire_key(&key).map_err(|error| error.at(&key));
        self.audited(expired)
    }

    fn expire_key(&mut self, key: &Key) -> Result<bool> {
        let documents = Arc::clone(&self.documents);
        self.guard(&documents).access(Right::WRITE, key)?;
        let Some(row) = self.reading().row(key)? else { return Err(ErrorKind::NotFound.into()) };
        match row.record.status() {
            Status::Expired => Ok(false),
            status if is_expirable(&status) => {
                self.set_status_of(key, row, Status::Expired, EventKind::Expired)?;
                Ok(true)
            }
            status => Err(ErrorKind::NotExpirable { status: status.to_string() }.into()),
        }
    }

    /// Does what was due for a key at a time, if it still is; tells whether it was.
    pub(crate) fn fire(&mut self, at: Micros, purpose: Purpose, key: &Key) -> Result<bool> {
        if purpose == Purpose::Claim {
            return self.revoke_if_due(key, at);
        }
        match self.reading().row(key)? {
            Some(row) if expiry_of(&row.record) == Some(at) => {
                self.set_status_of(key, row, Status::Expired, EventKind::Expired)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Says which version something outside of the store has now; whatever was made from another expires. 0 is unknown,
    /// and matches anything.
    ///
    /// # Errors
    /// [`AccessDenied`](ErrorKind::AccessDenied): it takes the right to manage, at the root;
    /// [`InvalidName`](ErrorKind::InvalidName), [`CascadeTooLarge`](ErrorKind::CascadeTooLarge).
    pub fn set_external(&mut self, name: &str, version: u128) -> Result<()> {
        let documents = Arc::clone(&self.documents);
        let allowed = self.guard(&documents).access(Right::MANAGE, &Prefix::root());
        self.audited(allowed)?;
        check_external(name)?;
        let node = Node::External(name.to_owned());
        let affected = if self.reading().version_of(&node)? != Some(version) && version != 0 {
            self.affected_by([(node, Some(version))])?
        } else {
            Vec::new()
        };
        self.changes.put(Table::Edges, external_key(name), version.to_be_bytes().to_vec());
        self.has_edges = true;
        self.expire_all(affected)
    }

    /// Looks up what an annotation says an asset was made from. Nothing, if it says nothing.
    pub(super) fn resolve(&self, key: &Key, annotation: &Annotation) -> Result<Option<Resolved>> {
        if annotation.dependencies.is_empty() {
            return Ok(None);
        }
        let mut resolved = Resolved { dependencies: Vec::new(), is_volatile: false };
        for (node, seen) in &annotation.dependencies {
            let node = node.clone()?;
            let current = match &node {
                Node::Asset(on) if on == key => {
                    return Err(ErrorKind::DependencyCycle { path: format!("{key} - {key}") }.into());
                }
                Node::Asset(on) => {
                    self.guard(&self.documents).reading(on)?;
                    let row = self.reading().row(on)?;
                    let row = row.ok_or_else(|| Error::from(ErrorKind::NotFound).at(on))?;
                    resolved.is_volatile |= row.record.is_volatile();
                    row.record.version()
                }
                Node::External(name) => {
                    check_external(name)?;
                    self.reading().version_of(&node)?.unwrap_or(0)
                }
                _ => 0,
            };
            let dependency = Dependency { on: node, version: seen.unwrap_or(current) };
            if !dependency.matches(current) {
                return Err(ErrorKind::DependencyChanged {
                    on: dependency.on.to_string(),
                    seen: format!("{:032x}", dependency.version),
                    found: format!("{current:032x}"),
                }
                .into());
            }
            resolved.dependencies.push(dependency);
        }
        self.check_cycle(key, &resolved.dependencies)?;
        Ok(Some(resolved))
    }

    /// Follows what dependencies were made from, and refuses if that leads back.
    pub(super) fn check_cycle(&self, key: &Key, dependencies: &[Dependency]) -> Result<()> {
        // What nothing was made from closes no cycle.
        if !self.has_edges || self.reading().edges_from(&Node::Asset(key.clone()))?.is_empty() {
            return Ok(());
        }
        let mut came_from: BTreeMap<Key, Key> = BTreeMap::new();
        let mut open: Vec<Key> = Vec::new();
        let follow = |from: &Key, on: &[Dependency], open: &mut Vec<Key>, came: &mut BTreeMap<Key, Key>| {
            for dependency in on {
                if let Node::Asset(next) = &dependency.on
                    && !came.contains_key(next)
                {
                    came.insert(next.clone(), from.clone());
                    open.push(next.clone());
                }
            }
        };
        follow(key, dependencies, &mut open, &mut came_from);
        while let Some(next) = open.pop() {
            if next == *key {
                let mut path = vec![next.to_string()];
                let mut at = came_from.get(&next);
                while let Some(from) = at.filter(|from| **from != *key) {
                    path.push(from.to_string());
                    at = came_from.get(from);
                }
                path.push(key.to_string());
                path.reverse();
                return Err(ErrorKind::DependencyCycle { path: path.join(" - ") }.into());
            }
            if came_from.len() > self.shared.settings.cascade_max {
                return Err(self.too_large());
            }
            if let Some(row) = self.reading().row(&next)? {
                follow(&next, &row.record.dependencies(), &mut open, &mut came_from);
            }
        }
        Ok(())
    }

    /// Gives all that expires when something changes, nearest first. Nothing is changed by it.
    fn affected_by(&self, origins: impl IntoIterator<Item = (Node, Option<u128>)>) -> Result<Vec<Key>> {
        let mut seen: BTreeSet<Key> = BTreeSet::new();
        let mut affected = Vec::new();
        let mut open: VecDeque<_> = origins.into_iter().collect();
        while let Some((node, version)) = open.pop_front() {
            for (dependent, saw) in self.reading().edges_from(&node)? {
                let is_as_seen = version.is_some_and(|version| saw == version || saw == 0);
                if is_as_seen || !seen.insert(dependent.clone()) {
                    continue;
                }
                let row = self.reading().row(&dependent)?;
                if row.is_none_or(|row| row.record.status() != Status::Ready) {
                    continue;
                }
                if affected.len() >= self.shared.settings.cascade_max {
                    return Err(self.too_large());
                }
                affected.push(dependent.clone());
                open.push_back((Node::Asset(dependent), None));
            }
        }
        Ok(affected)
    }

    fn too_large(&self) -> Error {
        ErrorKind::CascadeTooLarge { limit: self.shared.settings.cascade_max as u64 }.into()
    }

    /// Gives all that expires when a record changes.
    pub(super) fn affected(&self, key: &Key, old: Option<&Record>, new: Option<&Record>) -> Result<Vec<Key>> {
        if !self.has_edges || self.is_cascading || !is_new_version(old, new) {
            return Ok(Vec::new());
        }
        let version = new.filter(|new| new.status() != Status::Expired).map(Record::version);
        self.affected_by([(Node::Asset(key.clone()), version)])
    }

    /// Gives all that expires when these go.
    pub(super) fn affected_by_removal(&self, of: &[(Key, Record)]) -> Result<Vec<Key>> {
        if !self.has_edges || self.is_cascading {
            return Ok(Vec::new());
        }
        let gone = of.iter().filter(|(_, record)| is_new_version(Some(record), None));
        self.affected_by(gone.map(|(key, _)| (Node::Asset(key.clone()), None)))
    }

    /// Marks assets as expired that were found to be affected.
    pub(super) fn expire_all(&mut self, keys: Vec<Key>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        // What they affect in turn was found with them.
        self.is_cascading = true;
        let done = keys.into_iter().try_for_each(|key| match self.reading().row(&key)? {
            Some(row) => self.set_status_of(&key, row, Status::Expired, EventKind::Expired),
            None => Ok(()),
        });
        self.is_cascading = false;
        done
    }

    /// Gives an asset another status, in the store's own name.
    pub(super) fn set_status_of(
        &mut self,
        key: &Key,
        row: Row,
        status: Status,
        kind: EventKind,
    ) -> Result<()> {
        let documents = Arc::clone(&self.documents);
        let mut builder = self.successor(RecordBuilder::from_record(&row.record), Some(&row));
        builder.set_status(status);
        let guard = Guard { caller: &self.shared.system, ..self.guard(&documents) };
        let inline = row.inline.clone();
        let new = New::kept(builder, &inline);
        let proposal = Proposal {
            key,
            right: Right::WRITE,
            kind,
            from: None,
            old: Some(row),
            new: Some(new),
            conditions: &[],
        };
        if let Verdict::Admitted(admitted, _) = guard.admit(proposal)? {
            self.record_change(&admitted, None)?;
        }
        Ok(())
    }

    /// Removes an asset by a rule, if it is as it was seen and nobody works on it; what a recipe makes goes back to it.
    pub(crate) fn evict(&mut self, key: &Key, generation: u64, version: u128) -> Result<bool> {
        // What was made from something that went before it has expired with that, and goes all the same.
        let is_as_seen = |record: &Record| {
            record.generation() == generation
                || (record.status() == Status::Expired && record.version() == version)
        };
        let old = self.reading().row(key)?.filter(|row| is_as_seen(&row.record));
        let Some(old) = old.filter(|_| !self.is_claimed(key)) else { return Ok(false) };
        let new = back_to_recipe(&old).map(|builder| New::bare(self.successor(builder, Some(&old))));
        let documents = Arc::clone(&self.documents);
        let guard = Guard { caller: &self.shared.system, ..self.guard(&documents) };
        let kind = EventKind::Evicted;
        let proposal =
            Proposal { key, right: Right::DELETE, kind, from: None, old: Some(old), new, conditions: &[] };
        match guard.admit(proposal)? {
            Verdict::Admitted(admitted, _) => self.record_change(&admitted, None).map(|()| true),
            Verdict::Refused(_) => Ok(false),
        }
    }

    /// Writes the edges and the deadline that change with a record.
    pub(super) fn change_life(&mut self, key: &Key, old: Option<&Record>, new: Option<&Record>) {
        if change_edges(&mut self.changes, key, old, new) {
            self.has_edges = true;
        }
        let (before, after) = (old.and_then(expiry_of), new.and_then(expiry_of));
        if before != after {
            if let Some(at) = before {
                self.changes.remove(Table::Deadlines, deadline_key(at, Purpose::Expiry, key.encoded()));
            }
            if let Some(at) = after {
                let row_key = deadline_key(at, Purpose::Expiry, key.encoded());
                self.changes.put(Table::Deadlines, row_key, Bytes::new());
            }
        }
    }
}

/// Tells whether the version of what others may depend on changed with a record.
fn is_new_version(old: Option<&Record>, new: Option<&Record>) -> bool {
    match (old, new) {
        (Some(_), None) => true,
        (Some(old), Some(new)) => {
            let becomes = |status| new.status() == status && old.status() != status;
            becomes(Status::Expired)
                || becomes(Status::Recipe)
                || (old.version() != new.version() && old.version() != 0 && new.version() != 0)
        }
        (None, _) => false,
    }
}

fn check_external(name: &str) -> Result<()> {
    if is_external_name(name.as_bytes()) {
        return Ok(());
    }
    let what = format!("expected 1 to 1 024 bytes without control characters, got {} bytes", name.len());
    Err(ErrorKind::InvalidName { field: "external name", what }.into())
}

/// Brings status, flag and expiry of what is volatile together, and dependencies into the record.
pub(super) fn settle(builder: &mut RecordBuilder, annotation: &Annotation, resolved: Option<Resolved>) {
    if let Some(Resolved { dependencies, is_volatile }) = resolved {
        builder.set_dependencies(&dependencies);
        if is_volatile && annotation.stable_because.is_none() {
            builder.flags = builder.flags.with(RecordFlags::VOLATILE, true);
        }
    }
    if *builder.status() == Status::Volatile {
        builder.flags = builder.flags.with(RecordFlags::VOLATILE, true);
    }
    if builder.flags.contains(RecordFlags::VOLATILE) {
        builder.expires = larder_format::IMMEDIATELY;
    }
}

/// Gives the status that follows from a change of the flag alone.
pub(super) fn turn_volatile(builder: &mut RecordBuilder, annotation: &Annotation) {
    match (annotation.volatile, annotation.status.is_some()) {
        (Some(true), false) if builder.status().properties().is_loadable => {
            builder.set_status(Status::Volatile);
        }
        (Some(false), false) if *builder.status() == Status::Volatile => {
            builder.set_status(Status::Ready);
            if annotation.expires.is_none() {
                builder.expires = larder_format::NEVER;
            }
        }
        _ => {}
    }
}

/// The record of a recipe, in place of an asset that it makes and that was removed.
pub(super) fn back_to_recipe(old: &Row) -> Option<RecordBuilder> {
    let is_made = old.record.flags().contains(RecordFlags::HAS_RECIPE);
    if !is_made || old.record.status() == Status::Recipe {
        return None;
    }
    let mut builder = RecordBuilder::from_record(&old.record);
    builder.payload = larder_format::PayloadState::Absent(larder_format::AbsentReason::NeverProduced);
    builder.version = 0;
    builder.expires = larder_format::NEVER;
    builder.flags = RecordFlags::HAS_RECIPE;
    builder.set_dependencies(&[]);
    builder.set_status(Status::Recipe);
    Some(builder)
}
