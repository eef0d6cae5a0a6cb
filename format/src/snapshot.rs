//! Snapshots: the rows of a store at one commit, or what changed since another, as a stream of zstd frames.
//!
//! A snapshot is made of pieces. Each is a skippable frame of zstd (RFC 8878, section 3.1.2), which says what follows, and
//! a frame that has it; so `zstd -t` and `zstd -dc` read the whole. The layout is section 13 of SPEC.md.
//!
//! ```text
//! +--------+ +------+------+ ... +----------+-----+      header: what it is
//! | header | | rows | rows |     | manifest | end |      rows: operations, in the order of table and key
//! +--------+ +------+------+ ... +----------+-----+      manifest: how many there were; end: a digest of it all
//!
//! piece: [magic u32, 0x184D2A5C][72 u32], then
//!  0  4 "LSN\x01"                    20  4 length of its content
//!  4  1 kind                         24 32 blake3 of the frame; of an end: of all descriptors before it
//!  5  3 reserved, 0                  56  8 reserved, 0
//!  8  8 number, from 0               64  8 XXH3-64 of what is above, from "LSN\x01" on
//! 16  4 length of the frame          then the frame
//! ```

use twox_hash::XxHash3_64;

use crate::numbered::numbered;
use crate::position::{POSITION_LENGTH, Position};

/// The version of snapshots that is written, and the only one that is read.
pub const SNAPSHOT_VERSION: u8 = 1;
/// The length of what precedes the frame of a piece, in bytes.
pub const PIECE_HEADER_LENGTH: usize = 80;
/// The greatest length of the content of a piece, in bytes: that of the largest row.
pub const SNAPSHOT_CONTENT_MAX: u32 = (64 << 20) + (1 << 20);

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5C;
const DESCRIPTOR_LENGTH: u32 = 72;
const HEADER_LENGTH: usize = 144;

numbered! {
    /// What a piece of a snapshot has.
    pub enum PieceKind {
        /// What the snapshot is.
        1 Header "header",
        /// Operations.
        2 Rows "rows",
        /// How many rows there are in each table.
        3 Manifest "manifest",
        /// The end, with a digest over everything before it.
        4 End "end",
    }
}

numbered! {
    /// How much of a store a snapshot has.
    pub enum SnapshotKind {
        /// All of it.
        1 Full "full",
        /// The assets at and below a prefix, without feed, audit, claims and idempotency keys.
        2 Prefix "prefix",
        /// What changed since another snapshot.
        3 Increment "increment",
    }
}

/// The bytes are not what a snapshot has there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It does not begin as a snapshot does.
    #[error("it does not begin as a snapshot does")]
    NotASnapshot,
    /// It is of another version.
    #[error("it is of version {found}, and version {SNAPSHOT_VERSION} is read here")]
    Version {
        /// The version that it says.
        found: u8,
    },
    /// It does not follow the layout.
    #[error("{what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

const fn malformed(what: &'static str) -> SnapshotError {
    SnapshotError::Malformed { what }
}

/// What precedes the frame of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHeader {
    /// What it has.
    pub kind: PieceKind,
    /// Its number, from 0.
    pub number: u64,
    /// The length of the frame that follows, in bytes; 0 for the end.
    pub frame_length: u32,
    /// The length of what the frame decompresses to, in bytes.
    pub content_length: u32,
    /// The digest of the frame; of an end, that of all piece headers before it.
    pub digest: [u8; 32],
}

impl PieceHeader {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> [u8; PIECE_HEADER_LENGTH] {
        let mut bytes = Vec::with_capacity(PIECE_HEADER_LENGTH);
        bytes.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&DESCRIPTOR_LENGTH.to_le_bytes());
        bytes.extend_from_slice(&[b'L', b'S', b'N', SNAPSHOT_VERSION, self.kind.number(), 0, 0, 0]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.frame_length.to_le_bytes());
        bytes.extend_from_slice(&self.content_length.to_le_bytes());
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&[0; 8]);
        let checksum = XxHash3_64::oneshot(bytes.get(8..).unwrap_or_default());
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let mut out = [0; PIECE_HEADER_LENGTH];
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        out
    }

    /// Decodes it, after comparing its checksum.
    ///
    /// # Errors
    /// [`SnapshotError`] where the bytes are not a whole header, or say what cannot be.
    pub fn decode(bytes: &[u8; PIECE_HEADER_LENGTH]) -> Result<Self, SnapshotError> {
        let (front, descriptor) = bytes.split_at(8);
        let (body, checksum) = descriptor.split_at(64);
        let [b'L', b'S', b'N', version, kind, 0, 0, 0, rest @ ..] = body else {
            return Err(SnapshotError::NotASnapshot);
        };
        if front != [SKIPPABLE_MAGIC.to_le_bytes(), DESCRIPTOR_LENGTH.to_le_bytes()].concat() {
            return Err(SnapshotError::NotASnapshot);
        }
        if *version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found: *version });
        }
        if XxHash3_64::oneshot(body).to_le_bytes() != *checksum {
            return Err(malformed("the checksum of a piece does not agree with its header"));
        }
        let parts = || {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            let (frame, rest) = rest.split_first_chunk::<4>()?;
            let (content, rest) = rest.split_first_chunk::<4>()?;
            let (digest, reserved) = rest.split_first_chunk::<32>()?;
            (reserved == [0; 8]).then_some((number, frame, content, digest))
        };
        let (number, frame, content, digest) = parts().ok_or(malformed("reserved bytes are not zero"))?;
        let kind = PieceKind::from_number(*kind).ok_or(malformed("a piece is of no known kind"))?;
        let (frame_length, content_length) = (u32::from_le_bytes(*frame), u32::from_le_bytes(*content));
        let is_end = kind == PieceKind::End;
        if content_length > SNAPSHOT_CONTENT_MAX || frame_length > SNAPSHOT_CONTENT_MAX {
            return Err(malformed("a piece is larger than the limit"));
        }
        if is_end != (frame_length == 0) || (is_end && content_length > 0) {
            return Err(malformed("a piece has a length that its kind cannot have"));
        }
        Ok(Self { kind, number: u64::from_le_bytes(*number), frame_length, content_length, digest: *digest })
    }
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// How much of the store it has.
    pub kind: SnapshotKind,
    /// The format of the rows: that of the file.
    pub format: u32,
    /// When it was made, in microseconds since the epoch.
    pub made: i64,
    /// When the store was made.
    pub created: i64,
    /// The store.
    pub store_id: [u8; 16],
    /// The state that it has.
    pub head: Position,
    /// The state that an increment builds on.
    pub base: Position,
    /// The number that the next row of the audit gets, in the state that it has.
    pub audit_next: u64,
    /// The encoded prefix, where it is of one.
    pub prefix: Vec<u8>,
}

impl SnapshotHeader {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LENGTH + self.prefix.len());
        out.extend_from_slice(&self.format.to_le_bytes());
        out.extend_from_slice(&[self.kind.number(), 0, 0, 0]);
        out.extend_from_slice(&self.made.to_le_bytes());
        out.extend_from_slice(&self.created.to_le_bytes());
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.head.encode());
        out.extend_from_slice(&self.base.encode());
        out.extend_from_slice(&self.audit_next.to_le_bytes());
        out.extend_from_slice(&self.prefix);
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] where the bytes are not one whole header.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let parts = || {
            let (format, rest) = bytes.split_first_chunk::<4>()?;
            let ([kind, 0, 0, 0], rest) = rest.split_first_chunk::<4>()? else { return None };
            let (made, rest) = rest.split_first_chunk::<8>()?;
            let (created, rest) = rest.split_first_chunk::<8>()?;
            let (store_id, rest) = rest.split_first_chunk::<16>()?;
            let (head, rest) = rest.split_first_chunk::<POSITION_LENGTH>()?;
            let (base, rest) = rest.split_first_chunk::<POSITION_LENGTH>()?;
            let (audit_next, prefix) = rest.split_first_chunk::<8>()?;
            Some(Self {
                kind: SnapshotKind::from_number(*kind)?,
                format: u32::from_le_bytes(*format),
                made: i64::from_le_bytes(*made),
                created: i64::from_le_bytes(*created),
                store_id: *store_id,
                head: Position::decode(head)?,
                base: Position::decode(base)?,
                audit_next: u64::from_le_bytes(*audit_next),
                prefix: prefix.to_vec(),
            })
        };
        let header = parts().ok_or(malformed("what the snapshot is of is malformed"))?;
        if header.prefix.is_empty() == (header.kind == SnapshotKind::Prefix) {
            return Err(malformed("the prefix and the kind of the snapshot do not agree"));
        }
        if header.kind != SnapshotKind::Increment && header.base != Position::default() {
            return Err(malformed("only an increment builds on another state"));
        }
        Ok(header)
    }
}

/// How many operations a snapshot has for each table, and how many bytes of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotManifest {
    /// By the number of the table: operations, and the lengths of their keys and values.
    pub tables: std::collections::BTreeMap<u8, (u64, u64)>,
}

impl SnapshotManifest {
    /// Counts an operation.
    pub fn count(&mut self, table: u8, bytes: u64) {
        let entry = self.tables.entry(table).or_default();
        entry.0 += 1;
        entry.1 = entry.1.saturating_add(bytes);
    }

    /// Encodes it: `[table u8][operations u64][bytes u64]` each, ascending.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.tables
            .iter()
            .flat_map(|(table, (count, bytes))| {
                [&[*table][..], &count.to_le_bytes(), &bytes.to_le_bytes()].concat()
            })
            .collect()
    }

    /// Decodes it.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] where the bytes are not a whole manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        const WRONG: SnapshotError = malformed("the manifest is malformed");
        let (mut manifest, mut rest) = (Self::default(), bytes);
        while let Some((table, after)) = rest.split_first() {
            let (count, after) = after.split_first_chunk::<8>().ok_or(WRONG)?;
            let (bytes, after) = after.split_first_chunk::<8>().ok_or(WRONG)?;
            if manifest.tables.last_key_value().is_some_and(|(last, _)| last >= table) {
                return Err(WRONG);
            }
            manifest.tables.insert(*table, (u64::from_le_bytes(*count), u64::from_le_bytes(*bytes)));
            rest = after;
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writeset::StateIdentity;

    fn piece() -> PieceHeader {
        let (kind, digest) = (PieceKind::Rows, [7; 32]);
        PieceHeader { kind, number: 3, frame_length: 100, content_length: 200, digest }
    }

    fn header(kind: SnapshotKind) -> SnapshotHeader {
        let position = |sequence| Position { sequence, time: 5, identity: StateIdentity([9; 32]) };
        let base = if kind == SnapshotKind::Increment { position(3) } else { Position::default() };
        let prefix = if kind == SnapshotKind::Prefix { b"a\0".to_vec() } else { Vec::new() };
        let (store_id, head) = ([4; 16], position(8));
        SnapshotHeader { kind, format: 2, made: 1, created: 2, store_id, head, base, audit_next: 6, prefix }
    }

    #[test]
    fn a_piece_comes_back_and_no_bit_of_it_can_change() {
        let bytes = piece().encode();
        assert_eq!(PieceHeader::decode(&bytes).unwrap(), piece());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(PieceHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for (kind, frame_length, content_length) in [
            (PieceKind::Rows, SNAPSHOT_CONTENT_MAX + 1, 1),
            (PieceKind::Rows, 1, u32::MAX),
            (PieceKind::Rows, 0, 0),
            (PieceKind::End, 1, 0),
            (PieceKind::End, 0, 1),
        ] {
            let header = PieceHeader { kind, frame_length, content_length, ..piece() };
            assert!(PieceHeader::decode(&header.encode()).is_err(), "{header:?}");
        }
        let end = PieceHeader { kind: PieceKind::End, frame_length: 0, content_length: 0, ..piece() };
        assert_eq!(PieceHeader::decode(&end.encode()).unwrap(), end);
    }

    #[test]
    fn headers_and_manifests_come_back_and_are_refused_at_every_other_length() {
        for kind in [SnapshotKind::Full, SnapshotKind::Prefix, SnapshotKind::Increment] {
            let bytes = header(kind).encode();
            assert_eq!(SnapshotHeader::decode(&bytes).unwrap(), header(kind));
            for length in 0..HEADER_LENGTH {
                assert!(SnapshotHeader::decode(&bytes[..length]).is_err(), "{kind}, {length} bytes");
            }
        }
        let contradictory = SnapshotHeader { kind: SnapshotKind::Full, ..header(SnapshotKind::Increment) };
        assert!(SnapshotHeader::decode(&contradictory.encode()).is_err());

        let mut manifest = SnapshotManifest::default();
        [(3, 10), (3, 5), (4, 1)].into_iter().for_each(|(table, bytes)| manifest.count(table, bytes));
        let bytes = manifest.encode();
        assert_eq!(SnapshotManifest::decode(&bytes).unwrap(), manifest);
        assert!(SnapshotManifest::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(SnapshotManifest::decode(&[&bytes[..], &bytes[..]].concat()).is_err(), "a table twice");
    }
}
