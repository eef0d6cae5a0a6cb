//! A record taken apart, to be changed and encoded again.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::section::{self, Attributes, LogEntry, SectionTag};
use super::{
    ContentHash, Micros, NEVER, PayloadState, RECORD_HEADER_LENGTH, RECORD_VERSION, Record, RecordError,
    RecordFlags,
};
use crate::dependency::Dependency;
use crate::status::{CUSTOM_STATUS, Status};

/// A record in parts. What the parts do not name (unknown sections) is carried along.
#[derive(Debug, Clone)]
pub struct RecordBuilder {
    /// How often the asset was changed.
    pub generation: u64,
    /// When it was created.
    pub created: Micros,
    /// When it was last changed.
    pub updated: Micros,
    /// The commit that last changed it.
    pub commit: u64,
    /// When it expires.
    pub expires: Micros,
    /// The version of its content.
    pub version: u128,
    /// Its flags.
    pub flags: RecordFlags,
    /// Where its payload is.
    pub payload: PayloadState,
    status: Status,
    sections: BTreeMap<u16, Bytes>,
}

impl RecordBuilder {
    /// Begins a record with the given payload, and nothing else known.
    #[must_use]
    pub fn new(payload: PayloadState) -> Self {
        Self {
            generation: 0,
            created: 0,
            updated: 0,
            commit: 0,
            expires: NEVER,
            version: 0,
            flags: RecordFlags::default(),
            payload,
            status: Status::default(),
            sections: BTreeMap::new(),
        }
    }

    /// Takes a record apart.
    #[must_use]
    pub fn from_record(record: &Record) -> Self {
        Self {
            generation: record.generation(),
            created: record.created(),
            updated: record.updated(),
            commit: record.commit(),
            expires: record.expires(),
            version: record.version(),
            flags: record.flags(),
            payload: record.payload(),
            status: record.status(),
            sections: record.sections().map(|(tag, body)| (tag, Bytes::copy_from_slice(body))).collect(),
        }
    }

    /// Gives the status.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Sets the status.
    pub fn set_status(&mut self, status: Status) {
        match &status {
            Status::Custom(name) => self.set_text(SectionTag::StatusName, name),
            _ => self.set_text(SectionTag::StatusName, ""),
        }
        self.status = status;
    }

    /// Sets a section of text; the empty text removes it.
    pub fn set_text(&mut self, tag: SectionTag, text: &str) {
        self.set_section(tag.number(), Bytes::copy_from_slice(text.as_bytes()));
    }

    /// Gives a section of text; empty if it is not there.
    #[must_use]
    pub fn text(&self, tag: SectionTag) -> &str {
        self.sections.get(&tag.number()).and_then(|body| std::str::from_utf8(body).ok()).unwrap_or_default()
    }

    /// Sets a section; an empty one is removed.
    pub fn set_section(&mut self, tag: u16, body: Bytes) {
        if body.is_empty() {
            self.sections.remove(&tag);
        } else {
            self.sections.insert(tag, body);
        }
    }

    /// Gives the tags, in their order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        section::strings(self.sections.get(&SectionTag::Tags.number()).map_or(&[], |body| body))
    }

    /// Sets the tags.
    pub fn set_tags<'a>(&mut self, tags: impl Iterator<Item = &'a str>) {
        self.set_section(SectionTag::Tags.number(), section::encode_strings(tags).into());
    }

    /// Gives the attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        self.sections
            .get(&SectionTag::Attributes.number())
            .and_then(|body| Attributes::decode(body).ok())
            .unwrap_or_default()
    }

    /// Sets the attributes.
    pub fn set_attributes(&mut self, attributes: &Attributes) {
        self.set_section(SectionTag::Attributes.number(), attributes.encode().into());
    }

    /// Sets what the asset was made from.
    pub fn set_dependencies(&mut self, dependencies: &[Dependency]) {
        self.set_section(SectionTag::Dependencies.number(), Dependency::encode_all(dependencies).into());
    }

    /// Sets the log.
    pub fn set_log(&mut self, log: &[LogEntry]) {
        self.set_section(SectionTag::Log.number(), LogEntry::encode_all(log).into());
    }

    /// Gives the log, oldest entry first.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.sections
            .get(&SectionTag::Log.number())
            .and_then(|body| LogEntry::decode_all(body).ok())
            .unwrap_or_default()
    }

    /// Gives the length of the encoded record without its payload, in bytes.
    #[must_use]
    pub fn encoded_length(&self) -> usize {
        RECORD_HEADER_LENGTH + self.sections.values().map(|body| body.len() + 8).sum::<usize>()
    }

    /// Encodes a row: the record, and behind it the payload, which is empty unless it is inline.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] where a section does not fit its length field; [`RecordError::Malformed`] where
    /// the payload is not the one that the record describes.
    pub fn encode(&self, inline: &[u8]) -> Result<(Record, Bytes), RecordError> {
        let (state, reason, length, id, hash) = match self.payload {
            PayloadState::Inline { length, hash } => (1, 0, length, 0, hash),
            PayloadState::Stored { length, hash, id } => (2, 0, length, id, hash),
            PayloadState::Absent(reason) => (3, reason.number(), 0, 0, ContentHash::default()),
        };
        let expected = if state == 1 { length } else { 0 };
        if inline.len() as u64 != expected {
            return Err(RecordError::Malformed {
                what: "the payload is not the one that the record describes",
            });
        }
        let mut sections = Vec::with_capacity(self.encoded_length());
        for (tag, body) in &self.sections {
            section::append(*tag, body, &mut sections)?;
        }
        let sections_length = u32::try_from(sections.len()).map_err(|_| RecordError::TooLarge {
            what: "the metadata",
            found: sections.len(),
            max: u32::MAX as usize,
        })?;
        let status = match &self.status {
            Status::Custom(_) => CUSTOM_STATUS,
            known => known.number(),
        };
        let mut row = BytesMut::with_capacity(RECORD_HEADER_LENGTH + sections.len() + inline.len());
        row.extend_from_slice(&[RECORD_VERSION, state, reason, status]);
        row.extend_from_slice(&self.flags.bits().to_le_bytes());
        row.extend_from_slice(&self.generation.to_le_bytes());
        row.extend_from_slice(&self.created.to_le_bytes());
        row.extend_from_slice(&self.updated.to_le_bytes());
        row.extend_from_slice(&self.commit.to_le_bytes());
        row.extend_from_slice(&length.to_le_bytes());
        row.extend_from_slice(&id.to_le_bytes());
        row.extend_from_slice(&hash.0);
        row.extend_from_slice(&self.version.to_be_bytes());
        row.extend_from_slice(&[0; 4]);
        row.extend_from_slice(&sections_length.to_le_bytes());
        row.extend_from_slice(&self.expires.to_le_bytes());
        row.extend_from_slice(&[0; 8]);
        debug_assert_eq!(row.len(), RECORD_HEADER_LENGTH);
        row.extend_from_slice(&sections);
        let length = row.len();
        row.extend_from_slice(inline);
        let row = row.freeze();
        Ok((Record::from_checked(row.slice(..length)), row))
    }
}
