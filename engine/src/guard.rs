//! The guard: every change passes here, inside the transaction that makes it.
//!
//! Order of the checks, and there is no other place for any of them:
//! 1. access: may the caller do this here? Asked before anything is said about what is there.
//! 2. limits: payload, metadata, tags.
//! 3. conditions: a refusal is an answer, not an error.
//! 4. registry: do format, media type and type agree?
//! 5. validators of the application.
//!
//! A check takes what is proposed and the facts, and answers; it reads nothing itself. Only [`Guard::admit`] makes
//! an [`Admitted`] change, and only an admitted change is recorded by a transaction.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{
    Claim, Deciding, EventKind, Key, LogKind, ROW_VALUE_MAX, Record, RecordBuilder, RecordFlags, Right,
    SectionTag, Strictness, Warning,
};

use crate::authorizer::{AccessDecision, AccessRequest, Caller, Hooks, Place, denied};
use crate::commit::NoRoom;
use crate::documents::Documents;
use crate::edit::{Actual, Condition, Refusal};
use crate::error::{Error, ErrorKind, Result};

/// The checks, with what they go by.
#[derive(Clone, Copy)]
pub(crate) struct Guard<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) documents: &'a Arc<Documents>,
    pub(crate) hooks: &'a Arc<Hooks>,
    /// How much there is, where that is limited.
    pub(crate) totals: Option<Totals>,
    /// That there is no room, where it has run low.
    pub(crate) room: Option<NoRoom>,
}

/// The bytes of all payloads, and of those that no policy may remove.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) used: u64,
    pub(crate) protected: u64,
}

/// A guard that outlives the call that made it.
pub(crate) struct KeptGuard {
    caller: Caller,
    documents: Arc<Documents>,
    hooks: Arc<Hooks>,
}

impl KeptGuard {
    pub(crate) fn guard(&self) -> Guard<'_> {
        Guard {
            caller: &self.caller,
            documents: &self.documents,
            hooks: &self.hooks,
            totals: None,
            room: None,
        }
    }
}

/// An answer to a question of access.
pub(crate) struct Judgement<'r> {
    pub(crate) allowed: bool,
    pub(crate) by: By<'r>,
}

/// What decided.
pub(crate) enum By<'r> {
    Rules(Deciding<'r>),
    /// The caller holds the file.
    Holder,
    /// The application's own authorizer, which says what.
    Authorizer(String),
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(deciding) => deciding.fmt(f),
            Self::Holder => f.write_str("the holder of the file"),
            Self::Authorizer(by) => f.write_str(by),
        }
    }
}

/// A record and the payload that lies behind it in its row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) record: Record,
    pub(crate) inline: Bytes,
}

/// What is to become of a key.
pub(crate) struct Proposal<'a> {
    pub(crate) key: &'a Key,
    pub(crate) right: Right,
    pub(crate) kind: EventKind,
    /// Where it came from, for a rename or a copy.
    pub(crate) from: Option<&'a Key>,
    /// What is there.
    pub(crate) old: Option<Row>,
    /// What is to be there; nothing, if it is to be removed.
    pub(crate) new: Option<New<'a>>,
    pub(crate) conditions: &'a [Condition],
}

/// A record that is to be stored.
pub(crate) struct New<'a> {
    pub(crate) builder: RecordBuilder,
    pub(crate) inline: Bytes,
    /// What the caller says about the format, where the payload is new.
    pub(crate) claim: Option<Claim<'a>>,
    /// The beginning of the payload.
    pub(crate) head: &'a [u8],
    /// Whether there is a value that will not be here after a restart, nothing makes it again, and nobody said that
    /// this is known.
    pub(crate) loses_data: bool,
    /// Whether the payload is new, and its limit applies.
    pub(crate) is_new_payload: bool,
}

impl<'a> New<'a> {
    /// A record whose payload is the one that was there; `inline` is what of it lies in the row.
    pub(crate) fn kept(builder: RecordBuilder, inline: &'a Bytes) -> Self {
        Self { inline: inline.clone(), head: inline, ..Self::bare(builder) }
    }

    /// A record without a payload, about which nothing is claimed.
    pub(crate) fn bare(builder: RecordBuilder) -> Self {
        Self {
            builder,
            inline: Bytes::new(),
            claim: None,
            head: &[],
            loses_data: false,
            is_new_payload: false,
        }
    }
}

/// A change that was admitted. Nothing else reaches the write-set.
pub(crate) struct Admitted {
    key: Key,
    kind: EventKind,
    from: Option<Key>,
    old: Option<Row>,
    new: Option<(Record, Bytes)>,
}

impl Admitted {
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn kind(&self) -> EventKind {
        self.kind
    }

    pub(crate) fn from(&self) -> Option<&Key> {
        self.from.as_ref()
    }

    pub(crate) fn old(&self) -> Option<&Row> {
        self.old.as_ref()
    }

    /// The record and its row.
    pub(crate) fn new_record(&self) -> Option<&(Record, Bytes)> {
        self.new.as_ref()
    }
}

/// What the guard says.
pub(crate) enum Verdict {
    Admitted(Box<Admitted>, Vec<Warning>),
    Refused(Refusal),
}

impl Guard<'_> {
    /// Checks a proposal: access, limits, conditions, registry, validators, in this order.
    pub(crate) fn admit(&self, proposal: Proposal<'_>) -> Result<Verdict> {
        let key = proposal.key;
        self.access(proposal.right, key).map_err(|error| error.at(key))?;
        let is_over = matches!(proposal.kind, EventKind::Annotated | EventKind::Renamed);
        if proposal.new.is_some()
            && !is_over
            && proposal.old.as_ref().is_some_and(|old| old.record.is_collection())
        {
            return Err(Error::from(ErrorKind::IsACollection).at(key));
        }
        // What the store does to what was accepted once, nothing that was said later may keep it from: one asset would stop all
        // that are past their time.
        let is_by_store = matches!(proposal.kind, EventKind::Expired | EventKind::Evicted);
        if let Some(new) = proposal.new.as_ref().filter(|_| !is_by_store) {
            self.limits(key, new).map_err(|error| error.at(key))?;
            // What is renamed was there before.
            if proposal.kind != EventKind::Renamed {
                self.room_for(&proposal)?;
                self.quota(new, proposal.old.as_ref()).map_err(|error| error.at(key))?;
            }
        }
        if let Some(refusal) = self.conditions(key, proposal.conditions, proposal.old.as_ref()) {
            return Ok(Verdict::Refused(refusal));
        }
        let mut warnings = Vec::new();
        let new = match proposal.new {
            None => None,
            Some(mut new) => {
                if !is_by_store {
                    self.formats(key, &mut new, &mut warnings).map_err(|error| error.at(key))?;
                    // Once more, with what was inferred.
                    self.metadata(&new).map_err(|error| error.at(key))?;
                }
                let (record, row) =
                    new.builder.encode(&new.inline).map_err(|error| unencodable(&error).at(key))?;
                if !is_by_store {
                    self.validators(key, &record, new.head).map_err(|error| error.at(key))?;
                }
                Some((record, row))
            }
        };
        let admitted = Admitted {
            key: key.clone(),
            kind: proposal.kind,
            from: proposal.from.cloned(),
            old: proposal.old,
            new,
        };
        Ok(Verdict::Admitted(Box::new(admitted), warnings))
    }

    /// Checks that there is room for what grows: what is stored anew, not what is said of it, or made of it by the store.
    fn room_for(&self, proposal: &Proposal<'_>) -> Result<()> {
        if self.room.is_none() || proposal.kind == EventKind::Annotated {
            return Ok(());
        }
        self.grow().map_err(|error| error.at(proposal.key))
    }

    /// Refuses what grows, where there is no room for it.
    pub(crate) fn grow(&self) -> Result<()> {
        self.room.map_or(Ok(()), |room| Err(room.refusal()))
    }

    /// Checks a change of a row: access, by the rights that its collection asks for, then its size and room where it grows:
    /// a limit that was lowered later does not concern what is there.
    pub(crate) fn row(
        &self,
        key: &Key,
        rights: &[Right],
        size: Option<usize>,
        is_growing: bool,
    ) -> Result<()> {
        self.access_by_any(rights, key)?;
        if let Some(size) = size {
            if is_growing {
                check_size(self.documents, key, size as u64)?;
            }
            if size > ROW_VALUE_MAX {
                let by = "rows: store what is larger as an asset".to_owned();
                return Err(
                    ErrorKind::BinaryTooLarge { size: size as u64, limit: ROW_VALUE_MAX as u64, by }.into()
                );
            }
        }
        if is_growing { self.grow() } else { Ok(()) }
    }

    /// Checks that one of several rights is given at one place.
    pub(crate) fn access_by_any(&self, rights: &[Right], place: &impl Place) -> Result<()> {
        if rights.iter().any(|right| self.allows(*right, place)) {
            return Ok(());
        }
        rights.iter().try_for_each(|right| self.access(*right, place))
    }

    /// Checks one right at one place.
    pub(crate) fn access(&self, right: Right, place: &impl Place) -> Result<()> {
        let Judgement { allowed, by } = self.judge(right, place);
        if allowed { Ok(()) } else { Err(denied(self.caller, right, by.to_string())) }
    }

    /// Checks the right to read: who may not even list here is not told whether anything is here.
    pub(crate) fn reading(&self, key: &Key) -> Result<()> {
        let Err(denied) = self.access(Right::READ, key) else { return Ok(()) };
        if self.allows(Right::LIST, key) {
            return Err(denied.at(key));
        }
        Err(Error::from(ErrorKind::NotFound).in_place_of(&denied).at(key))
    }

    /// Tells whether a right is given at a place.
    pub(crate) fn allows(&self, right: Right, place: &impl Place) -> bool {
        self.judge(right, place).allowed
    }

    /// Tells whether every key at and below a place has the same answer, and which.
    pub(crate) fn uniform_below(&self, right: Right, place: &impl Place) -> Option<bool> {
        if self.caller.is_root() {
            return Some(true);
        }
        match &self.hooks.authorizer {
            Some(authorizer) => authorizer.uniform_below(&self.request(right, place)),
            None if self.documents.rules.is_open() => Some(true),
            None => self.documents.rules.uniform_below(place.bytes(), self.caller.principal(), right),
        }
    }

    fn request<'r>(&'r self, right: Right, place: &'r impl Place) -> AccessRequest<'r> {
        AccessRequest {
            principal: self.caller.principal(),
            right,
            place: place.text(),
            encoded: place.bytes(),
        }
    }

    /// Answers, and says what decided.
    pub(crate) fn judge(&self, right: Right, place: &impl Place) -> Judgement<'_> {
        if self.caller.is_root() {
            return Judgement { allowed: true, by: By::Holder };
        }
        if let Some(authorizer) = &self.hooks.authorizer {
            let AccessDecision { allowed, by } = authorizer.decide(&self.request(right, place));
            return Judgement { allowed, by: By::Authorizer(by) };
        }
        if self.documents.rules.is_open() {
            return Judgement { allowed: true, by: By::Rules(Deciding::Default) };
        }
        let decision = self.documents.rules.decide(self.caller.principal(), right, place.bytes());
        Judgement { allowed: decision.allowed, by: By::Rules(decision.by) }
    }

    /// Gives the same guard, to be kept.
    pub(crate) fn keep(&self) -> KeptGuard {
        KeptGuard {
            caller: self.caller.clone(),
            documents: Arc::clone(self.documents),
            hooks: Arc::clone(self.hooks),
        }
    }

    /// Checks how large a record is.
    fn metadata(&self, new: &New<'_>) -> Result<()> {
        let (size, limit) = (new.builder.encoded_length() as u64, self.documents.limits.max_metadata_size());
        if size > limit { Err(ErrorKind::MetadataTooLarge { size, limit }.into()) } else { Ok(()) }
    }

    fn limits(&self, key: &Key, new: &New<'_>) -> Result<()> {
        let limits = &self.documents.limits;
        if new.is_new_payload {
            check_size(self.documents, key, new.builder.payload.length())?;
        }
        self.metadata(new)?;
        let mut count = 0;
        for tag in new.builder.tags() {
            count += 1;
            check_tag(tag, limits.max_tag_length())?;
        }
        if count > limits.max_tags() {
            return Err(ErrorKind::TooManyTags { count, limit: limits.max_tags() }.into());
        }
        Ok(())
    }

    fn quota(&self, new: &New<'_>, old: Option<&Row>) -> Result<()> {
        let (Some(limit), Some(totals)) = (self.documents.limits.max_total_size(), self.totals) else {
            return Ok(());
        };
        let (before, after) =
            (old.map_or(0, |old| old.record.payload().length()), new.builder.payload.length());
        let used = totals.used.saturating_sub(before).saturating_add(after);
        if after > before && used > limit {
            let Totals { used, protected } = totals;
            return Err(ErrorKind::QuotaExceeded { used, size: after, limit, protected }.into());
        }
        Ok(())
    }

    fn conditions(&self, key: &Key, conditions: &[Condition], old: Option<&Row>) -> Option<Refusal> {
        let old = old.map(|row| &row.record);
        let failed = conditions.iter().find(|condition| match (condition, old) {
            (Condition::Absent, old) => old.is_some(),
            (_, None) => true,
            (Condition::Exists, Some(_)) => false,
            (Condition::Generation(generation), Some(old)) => old.generation() != *generation,
            (Condition::Content(hash), Some(old)) => old.payload().hash() != Some(*hash),
            (Condition::Status(statuses), Some(old)) => !statuses.contains(&old.status()),
        })?;
        let actual = old.filter(|_| self.allows(Right::READ, key)).map(|old| Actual {
            generation: old.generation(),
            content: old.payload().hash(),
            status: old.status(),
        });
        Some(Refusal { expected: failed.clone(), actual })
    }

    fn formats(&self, key: &Key, new: &mut New<'_>, warnings: &mut Vec<Warning>) -> Result<()> {
        let Some(claim) = &new.claim else { return Ok(()) };
        let strictness = self.documents.limits.strictness(key.encoded());
        if strictness == Strictness::Strict && new.loses_data {
            return Err(ErrorKind::WouldLoseData.into());
        }
        let registry = self.documents.registry();
        let typed = new.builder.flags.contains(RecordFlags::TYPED);
        let head = if typed { &[][..] } else { new.head };
        let verdict = registry.validate(claim, head, strictness).map_err(format_error)?;
        new.builder.set_text(SectionTag::DataFormat, &verdict.data_format);
        new.builder.set_text(SectionTag::MediaType, verdict.media_type);
        new.builder.set_text(SectionTag::TypeIdentifier, verdict.type_identifier);
        if !verdict.warnings.is_empty() {
            let mut log = new.builder.log();
            log.extend(verdict.warnings.iter().map(|warning| larder_format::LogEntry {
                kind: LogKind::Warning,
                time: new.builder.updated,
                message: warning.to_string(),
            }));
            new.builder.set_log(&log);
        }
        warnings.extend(verdict.warnings);
        Ok(())
    }

    fn validators(&self, key: &Key, record: &Record, head: &[u8]) -> Result<()> {
        for (pattern, validator) in &self.hooks.validators {
            if pattern.matches_encoded(key.encoded()) {
                validator.validate(key, record, head).map_err(|objection| ErrorKind::Validation {
                    field: objection.field,
                    what: objection.what,
                })?;
            }
        }
        Ok(())
    }
}

/// Checks the size of a payload against the limit of its key.
pub(crate) fn check_size(documents: &Documents, key: &Key, size: u64) -> Result<()> {
    let limit = documents.limits.max_binary_size(key.encoded());
    if limit.allows(size) {
        return Ok(());
    }
    Err(ErrorKind::BinaryTooLarge { size, limit: limit.bytes, by: limit.by.to_string() }.into())
}

fn check_tag(tag: &str, length_max: u64) -> Result<()> {
    let what = if tag.is_empty() {
        "it is empty".to_owned()
    } else if tag.len() as u64 > length_max {
        format!("it has {} bytes, more than {length_max}", tag.len())
    } else if tag.chars().any(char::is_control) {
        "it has a control character".to_owned()
    } else {
        return Ok(());
    };
    let tag = tag.chars().take(64).collect();
    Err(ErrorKind::InvalidTag { tag, what }.into())
}

fn unencodable(error: &larder_format::RecordError) -> Error {
    match error {
        larder_format::RecordError::TooLarge { found, max, .. } => {
            ErrorKind::MetadataTooLarge { size: *found as u64, limit: *max as u64 }.into()
        }
        other => ErrorKind::InvalidArgument {
            argument: "metadata",
            expected: "a record that can be encoded".to_owned(),
            got: other.to_string(),
        }
        .into(),
    }
}

fn format_error(error: larder_format::FormatError) -> Error {
    use larder_format::FormatError;
    let kind = match &error {
        FormatError::MissingField { field } => ErrorKind::MissingField { field: (*field).to_owned() },
        FormatError::UnknownFormat { got, .. } => ErrorKind::UnknownFormat { data_format: got.clone() },
        FormatError::Inconsistent { field, expected, got, .. } => ErrorKind::Inconsistent {
            field: (*field).to_owned(),
            expected: expected.to_string(),
            got: got.clone(),
        },
        other => ErrorKind::Inconsistent {
            field: other.field().to_owned(),
            expected: "a name that the registry knows".to_owned(),
            got: other.to_string(),
        },
    };
    kind.into()
}
