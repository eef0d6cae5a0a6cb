//! The edits: what each proposes to the guard, and what is recorded of what it admits.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{
    AbsentReason, ContentHash, EventKind, EventRow, Key, LogEntry, LogKind, PayloadState, Prefix, Record,
    RecordBuilder, RecordFlags, Right, SectionTag, Status,
};

use super::life::{back_to_recipe, settle, turn_volatile};
use super::{Linked, WriteTxn, refused};
use crate::edit::{Annotation, Change, Condition, Draft, Outcome, Stored, TagPolicy};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Admitted, Guard, New, Proposal, Row, Verdict};
use crate::payload::{Prepared, PreparedBody};
use crate::primitives::{ContentRow, DefinedCollection, StatisticsMap, expiry_of, tag_changes};
use crate::store::Table;
use crate::txn::prepare::{Ready, claim_of, prepare};

impl WriteTxn<'_> {
    pub(super) fn change(&mut self, change: Change, conditions: &[Condition]) -> Result<Outcome> {
        match change {
            Change::Put { key, draft } => self.put_draft(&key, draft, conditions),
            Change::Annotate { key, annotation } => self.annotate_asset(&key, annotation, conditions),
            Change::Delete { key } => self.delete_asset(&key, conditions),
            Change::DeleteTree { prefix } => self.delete_below(&prefix),
            Change::Rename { from, to } => self.rename_asset(&from, &to, conditions),
            Change::RenameTree { from, to } => self.rename_below(&from, &to),
            Change::Copy { from, to } => self.copy_asset(&from, &to, conditions),
            Change::MakeDirectory { key } => self.put_directory(&key),
            Change::RemoveDirectory { key } => self.delete_directory(&key),
        }
    }

    fn put_draft(&mut self, key: &Key, mut draft: Draft, conditions: &[Condition]) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        // Access before anything is said about, or done with, the payload; the guard asks again with the rest.
        self.guard(&documents).access(Right::WRITE, key).map_err(|error| error.at(key))?;
        let ready = prepare(self.shared, &documents, key, &mut draft).map_err(|error| error.at(key))?;
        self.put_ready(key, &draft, ready, conditions)
    }

    /// Applies a put whose payload was made ready before the transaction began.
    pub(crate) fn apply_ready(
        &mut self,
        key: &Key,
        draft: &Draft,
        ready: Ready,
        conditions: &[Condition],
    ) -> Result<Outcome> {
        let result = self.put_ready(key, draft, ready, conditions);
        self.audited(result)
    }

    fn put_ready(
        &mut self,
        key: &Key,
        draft: &Draft,
        ready: Ready,
        conditions: &[Condition],
    ) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        let old = self.reading().row(key)?;
        let (linked, head, typed, status) = match ready {
            Ready::Absent(AbsentReason::Collection) => {
                let (expected, got) =
                    ("a payload, or why there is none", "a collection without a definition");
                let (expected, got) = (expected.to_owned(), got.to_owned());
                return Err(
                    Error::from(ErrorKind::InvalidArgument { argument: "draft", expected, got }).at(key)
                );
            }
            Ready::Absent(reason) => {
                let status = match reason {
                    AbsentReason::Directory => Status::Directory,
                    AbsentReason::Transient => Status::Transient,
                    AbsentReason::NeverProduced => Status::None,
                    _ => Status::Source,
                };
                let state = PayloadState::Absent(reason);
                let linked =
                    Linked { state, inline: Bytes::new(), content: None, chunks: Vec::new(), staged: None };
                (linked, Bytes::new(), None, status)
            }
            Ready::Payload { prepared, typed } => {
                let head = prepared.head().clone();
                (self.link(prepared)?, head, typed, Status::Source)
            }
        };
        let mut builder = self.successor(RecordBuilder::new(linked.state), old.as_ref());
        if old.is_none() {
            builder.generation += self.last_former(key)?;
        }
        let generation = builder.generation;
        builder.version = linked.state.hash().map_or(0, |hash| hash.version());
        builder.set_status(status);
        if let Some(type_name) = typed {
            builder.flags = builder.flags.with(RecordFlags::TYPED, true);
            builder.set_text(SectionTag::TypeName, &larder_format::short_type_name(type_name));
        }
        if let Some(old) = &old {
            builder.set_tags(old.record.tags());
        }
        let has_recipe = draft.metadata.has_recipe.unwrap_or_else(|| {
            old.as_ref().is_some_and(|old| old.record.flags().contains(RecordFlags::HAS_RECIPE))
        });
        builder.flags = builder.flags.with(RecordFlags::HAS_RECIPE, has_recipe);
        if has_recipe && *builder.status() == Status::Source {
            builder.set_status(Status::Override);
        }
        let resolved = self.resolve(key, &draft.metadata).map_err(|error| error.at(key))?;
        let ignored = annotate(&mut builder, &draft.metadata, self.info.time);
        settle(&mut builder, &draft.metadata, resolved);
        let is_transient = matches!(
            linked.state,
            PayloadState::Absent(AbsentReason::Transient | AbsentReason::NonSerializable)
        );
        let new = New {
            builder,
            loses_data: is_transient && !has_recipe && !draft.metadata.loss_is_known,
            inline: linked.inline.clone(),
            claim: Some(claim_of(key, draft)),
            head: &head,
            is_new_payload: true,
        };
        let previous = old.as_ref().map(|row| row.record.generation());
        let proposal = Proposal {
            key,
            right: Right::WRITE,
            kind: EventKind::Put,
            from: None,
            old,
            new: Some(new),
            conditions,
        };
        let (admitted, warnings) = match self.guard(&documents).admit(proposal)? {
            Verdict::Admitted(admitted, warnings) => (admitted, warnings),
            Verdict::Refused(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        self.record_change(&admitted, Some(linked))?;
        Ok(outcome_of(Stored { generation, previous, warnings, tags_ignored: ignored }))
    }

    /// Finds where a payload lies, or where it will.
    fn link(&mut self, prepared: Prepared) -> Result<Linked> {
        let (written, chunks, staged) = match prepared.0 {
            PreparedBody::Inline { payload, hash } => {
                let state = PayloadState::Inline { length: payload.len() as u64, hash };
                return Ok(Linked {
                    state,
                    inline: payload,
                    content: None,
                    chunks: Vec::new(),
                    staged: None,
                });
            }
            PreparedBody::Chunked { encoded, .. } => (encoded.written, encoded.chunks, None),
            PreparedBody::Staged { written, staged, .. } => {
                staged.check(&self.shared.commit)?;
                // The chunks came into the store after this transaction began. Nothing else has changed: the
                // sequencer is held.
                self.view = self.shared.commit.accepted_view()?;
                (written, Vec::new(), Some(staged))
            }
        };
        let known = self.view.get(Some(&self.changes), Table::Contents, &written.hash.0)?;
        let (content, chunks, staged) = match known {
            // The same content is there: the chunks are not needed, and what was staged is given back.
            Some(row) => (ContentRow::decode(&row)?, Vec::new(), None),
            None => {
                let id =
                    staged.as_ref().map_or_else(|| self.shared.next_payload_id(), crate::payload::Staged::id);
                let content = ContentRow {
                    id,
                    references: 0,
                    length: written.length,
                    stored_length: written.stored_length,
                    codec: written.codec,
                    class: written.class,
                };
                (content, chunks, staged)
            }
        };
        let state = PayloadState::Stored { length: written.length, hash: written.hash, id: content.id };
        Ok(Linked { state, inline: Bytes::new(), content: Some((written.hash, content)), chunks, staged })
    }

    /// Gives a builder the generation, times and commit that follow from what is there.
    pub(super) fn successor(&self, mut builder: RecordBuilder, old: Option<&Row>) -> RecordBuilder {
        let old = old.map(|row| &row.record);
        builder.generation = old.map_or(0, Record::generation) + 1;
        builder.created = old.map_or(self.info.time, Record::created);
        builder.updated = self.info.time;
        builder.commit = self.info.sequence;
        builder
    }

    fn annotate_asset(
        &mut self,
        key: &Key,
        annotation: Annotation,
        conditions: &[Condition],
    ) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        let guard = self.guard(&documents);
        guard.access(Right::WRITE, key).map_err(|error| error.at(key))?;
        let Some(old) = self.reading().row(key)? else { return Ok(Outcome::NotFound) };
        let mut builder = self.successor(RecordBuilder::from_record(&old.record), Some(&old));
        let resolved = self.resolve(key, &annotation).map_err(|error| error.at(key))?;
        let ignored = annotate(&mut builder, &annotation, self.info.time);
        turn_volatile(&mut builder, &annotation);
        settle(&mut builder, &annotation, resolved);
        let previous = old.record.generation();
        let inline = old.inline.clone();
        let new = New::kept(builder, &inline);
        let proposal = Proposal {
            key,
            right: Right::WRITE,
            kind: EventKind::Annotated,
            from: None,
            old: Some(old),
            new: Some(new),
            conditions,
        };
        match guard.admit(proposal)? {
            Verdict::Refused(refusal) => Ok(Outcome::Refused(refusal)),
            Verdict::Admitted(admitted, warnings) => {
                self.record_change(&admitted, None)?;
                Ok(Outcome::Replaced(Stored {
                    generation: previous + 1,
                    previous: Some(previous),
                    warnings,
                    tags_ignored: ignored,
                }))
            }
        }
    }

    fn delete_asset(&mut self, key: &Key, conditions: &[Condition]) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        let guard = self.guard(&documents);
        guard.access(Right::DELETE, key).map_err(|error| error.at(key))?;
        let old = self.reading().row(key)?;
        if old.is_none() && conditions.is_empty() {
            return Ok(Outcome::NotFound);
        }
        let is_there = old.is_some();
        // What a recipe makes goes back to it.
        let recipe = old.as_ref().and_then(|old| Some((back_to_recipe(old)?, old)));
        let new = recipe.map(|(builder, old)| New::bare(self.successor(builder, Some(old))));
        let kind = EventKind::Deleted;
        let proposal = Proposal { key, right: Right::DELETE, kind, from: None, old, new, conditions };
        match guard.admit(proposal)? {
            Verdict::Refused(refusal) => Ok(Outcome::Refused(refusal)),
            Verdict::Admitted(admitted, _) => {
                if !is_there {
                    return Ok(Outcome::NotFound);
                }
                self.record_change(&admitted, None)?;
                Ok(Outcome::Removed { count: 1 })
            }
        }
    }

    /// Shows every row of a recursive operation, asking about its key before it is shown; nothing may be changed by
    /// that, because the next key can be refused.
    fn each_below(
        &self,
        place: &Prefix,
        right: Right,
        mut show: impl FnMut(Key, Row) -> Result<()>,
    ) -> Result<u64> {
        let guard = self.guard(&self.documents);
        let is_uniform = match guard.uniform_below(right, place) {
            Some(true) => true,
            Some(false) => {
                let refused = guard.access(right, place);
                refused.map_err(|error| place.as_key().map_or(error.clone(), |key| error.at(key)))?;
                false
            }
            None => false,
        };
        let (start, end) = place.subtree_range();
        let start = std::ops::Bound::Included(start.into());
        let end = end.map_or(std::ops::Bound::Unbounded, |end| std::ops::Bound::Excluded(end.into()));
        let mut count = 0;
        for row in self.view.range(Some(&self.changes), Table::Records, start, end)? {
            let (key, row) = row?;
            let key = Key::decode(&key).map_err(|error| crate::store::corrupt(error.to_string()))?;
            if !is_uniform {
                // Whoever may not know of the key is told of the place that he named.
                let denied_at = |error: Error| match place.as_key() {
                    Some(place) if !guard.allows(Right::LIST, &key) => error.at(place),
                    _ => error.at(&key),
                };
                guard.access(right, &key).map_err(denied_at)?;
            }
            let (record, inline) = Record::split(&row).map_err(|error| Error::from(error).at(&key))?;
            show(key, Row { record, inline })?;
            count += 1;
        }
        if count == 0 && !is_uniform {
            // Nothing is there; that is told to those who would have been allowed.
            let allowed = guard.access(right, place);
            allowed.map_err(|error| place.as_key().map_or(error.clone(), |key| error.at(key)))?;
        }
        Ok(count)
    }

    fn delete_below(&mut self, place: &Prefix) -> Result<Outcome> {
        // What follows from it is kept, not the rows: there may be many.
        let (mut statistics, mut tag_rows) = (StatisticsMap::default(), Vec::new());
        let (mut life, mut kept, mut collections) = (Vec::new(), Vec::new(), Vec::new());
        let mut length = 0;
        let mut references: BTreeMap<ContentHash, u64> = BTreeMap::new();
        let count = self.each_below(place, Right::DELETE, |key, row| {
            statistics.count(&row.record, -1);
            length += key.encoded().len() + row.record.as_bytes().len();
            tag_rows.extend(tag_changes(&key, Some(&row.record), None).0);
            collections.extend(DefinedCollection::id_of(&row.record));
            let history = self.history_limit(&key).filter(|_| row.record.has_payload());
            if let (PayloadState::Stored { hash, .. }, None) = (row.record.payload(), history) {
                *references.entry(hash).or_default() += 1;
            }
            if let Some(limit) = history {
                kept.push((key.clone(), row.clone(), limit));
            }
            if self.has_edges || expiry_of(&row.record).is_some() {
                life.push((key, row.record));
            }
            Ok(())
        })?;
        if count == 0 {
            return Ok(Outcome::NotFound);
        }
        let affected = self.affected_by_removal(&life)?;
        let (start, end) = place.subtree_range();
        self.may_revoke_below(&start, end.as_deref()).map_err(|error| match place.as_key() {
            Some(place) => error.at(place),
            None => error,
        })?;
        self.revoke_below(&start, end.as_deref())?;
        for (key, record) in &life {
            self.change_life(key, Some(record), None);
        }
        self.changes.remove_range(Table::Records, start.into(), end.map(Bytes::from), count);
        self.note_shrinking(length, 0);
        self.rows.forget_all_opened();
        collections.into_iter().for_each(|id| self.drop_rows(id));
        self.statistics.add_all(statistics);
        for tag_row in tag_rows {
            self.changes.remove(Table::Tags, tag_row);
        }
        for (hash, references) in references {
            self.unlink(&hash, references)?;
        }
        if self.has_logs {
            let (start, end) = place.subtree_range();
            self.changes.remove_range(Table::Logs, start.into(), end.map(Bytes::from), 0);
        }
        for (key, row, limit) in kept {
            self.remember(&key, &row, limit)?;
        }
        self.events.push(EventRow {
            kind: EventKind::TreeDeleted,
            key: place.encoded().to_vec(),
            from: Vec::new(),
            old_generation: 0,
            new_generation: 0,
            bytes: count,
        });
        self.shared.audit_allowed(&self.guard(&self.documents), Right::DELETE, place, self.info.time);
        self.expire_all(affected)?;
        Ok(Outcome::Removed { count })
    }

    fn rename_asset(&mut self, from: &Key, to: &Key, conditions: &[Condition]) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        let guard = self.guard(&documents);
        guard.access(Right::DELETE, from).map_err(|error| error.at(from))?;
        guard.access(Right::WRITE, to).map_err(|error| error.at(to))?;
        guard.reading(from)?;
        let Some(row) = self.reading().row(from)? else { return Ok(Outcome::NotFound) };
        if from != to && self.reading().row(to)?.is_some() {
            return Err(Error::from(ErrorKind::AlreadyExists).at(to));
        }
        let removal = Proposal {
            key: from,
            right: Right::DELETE,
            kind: EventKind::Deleted,
            from: None,
            old: Some(row.clone()),
            new: None,
            conditions,
        };
        let removed = match guard.admit(removal)? {
            Verdict::Refused(refusal) => return Ok(Outcome::Refused(refusal)),
            Verdict::Admitted(admitted, _) => admitted,
        };
        let stored = |generation| {
            let previous = Some(row.record.generation());
            Stored { generation, previous, warnings: Vec::new(), tags_ignored: Vec::new() }
        };
        if from == to {
            return Ok(Outcome::Replaced(stored(row.record.generation())));
        }
        let arrived = self.arrival(&guard, from, to, &row, EventKind::Renamed, &[])?;
        let stored = stored(generation_of(&arrived));
        // Before anything is changed: it can be too much.
        self.affected(from, Some(&row.record), None)?;
        // What arrives refers to the payload before what leaves lets go of it.
        self.record_change(&arrived, None)?;
        self.record_change(&removed, None)?;
        Ok(Outcome::Replaced(stored))
    }

    /// Proposes the record of one key under another.
    fn arrival(
        &self,
        guard: &Guard<'_>,
        from: &Key,
        to: &Key,
        row: &Row,
        kind: EventKind,
        conditions: &[Condition],
    ) -> Result<Box<Admitted>> {
        self.check_cycle(to, &row.record.dependencies()).map_err(|error| error.at(to))?;
        let old = self.reading().row(to)?;
        let mut builder = RecordBuilder::from_record(&row.record);
        let there = match &old {
            Some(old) => old.record.generation(),
            None => self.last_former(to)?,
        };
        let generation = if kind == EventKind::Renamed { there.max(row.record.generation()) } else { there };
        builder.generation = generation + 1;
        builder.updated = self.info.time;
        builder.commit = self.info.sequence;
        if kind == EventKind::Copied {
            builder.created = old.as_ref().map_or(self.info.time, |row| row.record.created());
        }
        let new = New::kept(builder, &row.inline);
        let proposal = Proposal {
            key: to,
            right: Right::WRITE,
            kind,
            from: Some(from),
            old,
            new: Some(new),
            conditions,
        };
        match guard.admit(proposal)? {
            Verdict::Admitted(admitted, _) => Ok(admitted),
            Verdict::Refused(refusal) => Err(refused(&refusal).at(to)),
        }
    }

    fn rename_below(&mut self, from: &Prefix, to: &Prefix) -> Result<Outcome> {
        if let Some(to) = to.as_key()
            && from.covers(to)
        {
            let got = format!("{to}, which lies below {from}");
            let expected = "a place outside of what is moved".to_owned();
            return Err(ErrorKind::InvalidArgument { argument: "to", expected, got }.into());
        }
        let documents = Arc::clone(&self.documents);
        let guard = self.guard(&documents);
        let mut rows = Vec::new();
        self.each_below(from, Right::DELETE, |key, row| {
            rows.push((key, row));
            Ok(())
        })?;
        let mut admitted = Vec::with_capacity(rows.len() * 2);
        for (key, row) in &rows {
            guard.reading(key)?;
            let target = key.rebase(from, to)?;
            // Before anything is said about what is there.
            guard.access(Right::WRITE, &target).map_err(|error| error.at(&target))?;
            if self.reading().row(&target)?.is_some() {
                return Err(Error::from(ErrorKind::AlreadyExists).at(&target));
            }
            admitted.push(self.moving(&guard, key, &target, row)?);
        }
        // Before anything is changed: it can be too much.
        for (key, row) in &rows {
            self.affected(key, Some(&row.record), None)?;
        }
        for ((key, row), (arrived, removed)) in rows.iter().zip(admitted) {
            // What went before may have let this one expire, which depends on it.
            let now = self.reading().row(key)?;
            let (arrived, removed) =
                match now.filter(|now| now.record.generation() != row.record.generation()) {
                    Some(now) => self.moving(&self.guard(&documents), key, arrived.key(), &now)?,
                    None => (arrived, removed),
                };
            self.record_change(&arrived, None)?;
            self.record_change(&removed, None)?;
        }
        match rows.len() as u64 {
            0 => Ok(Outcome::NotFound),
            count => Ok(Outcome::Removed { count }),
        }
    }

    /// Admits an asset under another key, and its removal where it was.
    fn moving(
        &self,
        guard: &Guard<'_>,
        key: &Key,
        target: &Key,
        row: &Row,
    ) -> Result<(Box<Admitted>, Box<Admitted>)> {
        let arrived = self.arrival(guard, key, target, row, EventKind::Renamed, &[])?;
        let removal = Proposal {
            key,
            right: Right::DELETE,
            kind: EventKind::Deleted,
            from: None,
            old: Some(row.clone()),
            new: None,
            conditions: &[],
        };
        match guard.admit(removal)? {
            Verdict::Admitted(removed, _) => Ok((arrived, removed)),
            Verdict::Refused(refusal) => Err(refused(&refusal)),
        }
    }

    fn copy_asset(&mut self, from: &Key, to: &Key, conditions: &[Condition]) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        let guard = self.guard(&documents);
        guard.access(Right::WRITE, to).map_err(|error| error.at(to))?;
        guard.reading(from)?;
        let Some(row) = self.reading().row(from)? else { return Ok(Outcome::NotFound) };
        if row.record.is_collection() {
            return Err(Error::from(ErrorKind::IsACollection).at(from));
        }
        let previous = self.reading().row(to)?.map(|row| row.record.generation());
        let proposal = Proposal {
            key: to,
            right: Right::WRITE,
            kind: EventKind::Copied,
            from: Some(from),
            old: self.reading().row(to)?,
            new: None,
            conditions,
        };
        if let Verdict::Refused(refusal) = guard.admit(proposal)? {
            return Ok(Outcome::Refused(refusal));
        }
        let arrived = self.arrival(&guard, from, to, &row, EventKind::Copied, &[])?;
        self.record_change(&arrived, None)?;
        let generation = generation_of(&arrived);
        Ok(outcome_of(Stored { generation, previous, warnings: Vec::new(), tags_ignored: Vec::new() }))
    }

    fn put_directory(&mut self, key: &Key) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        let guard = self.guard(&documents);
        guard.access(Right::WRITE, key).map_err(|error| error.at(key))?;
        match self.reading().row(key)? {
            Some(row) if row.record.is_directory() => {
                let generation = row.record.generation();
                Ok(Outcome::Replaced(Stored {
                    generation,
                    previous: Some(generation),
                    warnings: Vec::new(),
                    tags_ignored: Vec::new(),
                }))
            }
            Some(_) => Err(Error::from(ErrorKind::AlreadyExists).at(key)),
            None => {
                let payload = PayloadState::Absent(AbsentReason::Directory);
                let mut builder = self.successor(RecordBuilder::new(payload), None);
                builder.generation += self.last_former(key)?;
                builder.set_status(Status::Directory);
                let new = New::bare(builder);
                let proposal = Proposal {
                    key,
                    right: Right::WRITE,
                    kind: EventKind::DirectoryMade,
                    from: None,
                    old: None,
                    new: Some(new),
                    conditions: &[],
                };
                let Verdict::Admitted(admitted, warnings) = guard.admit(proposal)? else {
                    return Ok(Outcome::NotFound);
                };
                self.record_change(&admitted, None)?;
                Ok(Outcome::Created(Stored {
                    generation: 1,
                    previous: None,
                    warnings,
                    tags_ignored: Vec::new(),
                }))
            }
        }
    }

    fn delete_directory(&mut self, key: &Key) -> Result<Outcome> {
        let documents = Arc::clone(&self.documents);
        self.guard(&documents).access(Right::DELETE, key).map_err(|error| error.at(key))?;
        let (start, end) = Prefix::from(key).descendants_range();
        let start = std::ops::Bound::Included(start.into());
        let end = end.map_or(std::ops::Bound::Unbounded, |end| std::ops::Bound::Excluded(end.into()));
        let below = self.view.range(Some(&self.changes), Table::Records, start, end)?.take(1).count() as u64;
        if below > 0 {
            return Err(Error::from(ErrorKind::NotEmpty { below }).at(key));
        }
        match self.reading().row(key)? {
            None => Ok(Outcome::NotFound),
            Some(row) if row.record.is_directory() => self.delete_asset(key, &[]),
            Some(_) => {
                let expected = "a directory".to_owned();
                let got = "an asset".to_owned();
                Err(Error::from(ErrorKind::InvalidArgument { argument: "key", expected, got }).at(key))
            }
        }
    }
}

/// The generation that an asset has where it arrives.
fn generation_of(arrived: &Admitted) -> u64 {
    arrived.new_record().map_or(0, |(record, _)| record.generation())
}

fn outcome_of(stored: Stored) -> Outcome {
    if stored.previous.is_none() { Outcome::Created(stored) } else { Outcome::Replaced(stored) }
}

/// Changes metadata; gives the tags that were ignored.
fn annotate(builder: &mut RecordBuilder, annotation: &Annotation, now: i64) -> Vec<String> {
    if let Some(status) = &annotation.status {
        builder.set_status(status.clone());
    }
    for (tag, text) in &annotation.texts {
        builder.set_text(*tag, text);
    }
    if let Some(extra) = &annotation.extra {
        builder.set_section(SectionTag::Extra.number(), extra.clone());
    }
    if let Some(expires) = annotation.expires {
        builder.expires = expires;
    }
    if let Some(volatile) = annotation.volatile {
        builder.flags = builder.flags.with(RecordFlags::VOLATILE, volatile);
    }
    if let Some(has_recipe) = annotation.has_recipe {
        builder.flags = builder.flags.with(RecordFlags::HAS_RECIPE, has_recipe);
    }
    if let Some(pinned) = annotation.pinned {
        builder.flags = builder.flags.with(RecordFlags::PINNED, pinned);
    }
    if !annotation.attributes.is_empty() {
        let mut attributes = builder.attributes();
        for (name, value) in &annotation.attributes {
            match value {
                Some(value) => attributes.0.insert(name.clone(), value.clone()),
                None => attributes.0.remove(name),
            };
        }
        builder.set_attributes(&attributes);
    }
    let stable =
        annotation.stable_because.as_ref().map(|why| (LogKind::Info, format!("not volatile: {why}")));
    if !annotation.log.is_empty() || stable.is_some() {
        let mut log = builder.log();
        let entries = annotation.log.iter().chain(&stable);
        log.extend(entries.map(|(kind, message)| LogEntry {
            kind: *kind,
            time: now,
            message: message.clone(),
        }));
        builder.set_log(&log);
    }
    change_tags(builder, annotation)
}

fn change_tags(builder: &mut RecordBuilder, annotation: &Annotation) -> Vec<String> {
    let replace = annotation.tag_policy == TagPolicy::Replace;
    if annotation.tags.is_empty() && annotation.tags_removed.is_empty() && !replace {
        return Vec::new();
    }
    let mut tags: Vec<String> = builder.tags().map(str::to_owned).collect();
    let had_tags = !tags.is_empty();
    let mut ignored = Vec::new();
    if replace {
        tags.clear();
    }
    for tag in &annotation.tags {
        if tags.contains(tag) {
            continue;
        }
        if annotation.tag_policy == TagPolicy::Keep && had_tags {
            ignored.push(tag.clone());
        } else {
            tags.push(tag.clone());
        }
    }
    tags.retain(|tag| !annotation.tags_removed.contains(tag));
    builder.set_tags(tags.iter().map(String::as_str));
    ignored
}
