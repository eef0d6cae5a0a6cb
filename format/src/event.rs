//! The change feed's row: what one commit did to which keys, without values.
//!
//! ```text
//! row: [version u8, 1][reserved 3, 0][count u32][time i64][principal length u16][principal] then the events
//! event: [kind u8][reserved u8, 0][key length u16][second key length u16][reserved u16, 0]
//!        [old generation u64][new generation u64][bytes u64][key][second key]
//! ```
//! Keys are in their encoded form. The second key is where a rename or copy came from, or those of rows of a
//! collection, in their order, `[length u16][key]` each. Of a row that a commit changed more than once the last time counts.

use crate::numbered::numbered;

numbered! {
    /// What happened to a key.
    pub enum EventKind {
        /// An asset was created or replaced.
        1 Put "put",
        /// The metadata of an asset changed; its payload did not.
        2 Annotated "annotated",
        /// An asset was removed.
        3 Deleted "deleted",
        /// An asset came here under another key.
        4 Renamed "renamed",
        /// An asset was copied here.
        5 Copied "copied",
        /// An explicit directory was made.
        6 DirectoryMade "directory-made",
        /// Everything at and below a key was removed.
        7 TreeDeleted "tree-deleted",
        /// Rules, limits or registry changed; the key names which.
        8 DocumentChanged "document-changed",
        /// An asset is past its time, or what it was made from has changed.
        9 Expired "expired",
        /// A claim was made, given back, or revoked; the asset itself did not change.
        10 ClaimChanged "claim-changed",
        /// An asset was removed by a rule of retention.
        11 Evicted "evicted",
        /// Something was said of the work on an asset; its record did not change.
        12 Logged "logged",
        /// Rows of a collection were put. The second key is their keys, packed; the new generation is the collection's
        /// number.
        13 RowPut "row-put",
        /// Rows of a collection were removed: all of them, if no key is given.
        14 RowRemoved "row-removed",
    }
}

/// One change, as it lies in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// What happened.
    pub kind: EventKind,
    /// The encoded key that it happened to.
    pub key: Vec<u8>,
    /// The encoded key that it came from; empty if it came from nowhere. Of rows of a collection, their keys, packed.
    pub from: Vec<u8>,
    /// The generation before; 0 if there was none.
    pub old_generation: u64,
    /// The generation after; 0 if there is none. Of a row of a collection, the number of the collection.
    pub new_generation: u64,
    /// The length of the payload after, in bytes; for a removed tree, how many assets went.
    pub bytes: u64,
}

/// All changes of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRow {
    /// The commit time, in microseconds since the epoch.
    pub time: i64,
    /// Who caused it.
    pub principal: String,
    /// What happened, in order.
    pub events: Vec<EventRow>,
}

/// The bytes are not a row of the feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the feed row is malformed: {what}")]
pub struct FeedRowError {
    /// What is wrong.
    pub what: &'static str,
}

const VERSION: u8 = 1;

impl FeedRow {
    /// Encodes the row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
        let mut out = Vec::with_capacity(18 + self.principal.len() + self.events.len() * 96);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.extend_from_slice(&u32::try_from(self.events.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&short(self.principal.len()));
        out.extend_from_slice(self.principal.as_bytes());
        for event in &self.events {
            out.extend_from_slice(&[event.kind.number(), 0]);
            out.extend_from_slice(&short(event.key.len()));
            out.extend_from_slice(&short(event.from.len()));
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&event.old_generation.to_le_bytes());
            out.extend_from_slice(&event.new_generation.to_le_bytes());
            out.extend_from_slice(&event.bytes.to_le_bytes());
            out.extend_from_slice(&event.key);
            out.extend_from_slice(&event.from);
        }
        out
    }

    /// Decodes a row.
    ///
    /// # Errors
    /// [`FeedRowError`] where the bytes are not one whole row.
    pub fn decode(bytes: &[u8]) -> Result<Self, FeedRowError> {
        let error = |what| FeedRowError { what };
        let ([version, r0, r1, r2], rest) = bytes.split_first_chunk::<4>().ok_or(error("it is cut short"))?;
        if (*version, *r0, *r1, *r2) != (VERSION, 0, 0, 0) {
            return Err(error("it has a version that is not known here"));
        }
        let (count, rest) = rest.split_first_chunk::<4>().ok_or(error("it is cut short"))?;
        let (time, rest) = rest.split_first_chunk::<8>().ok_or(error("it is cut short"))?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(error("it is cut short"))?;
        let (principal, mut rest) = rest
            .split_at_checked(usize::from(u16::from_le_bytes(*length)))
            .ok_or(error("it is cut short"))?;
        let principal =
            String::from_utf8(principal.to_vec()).map_err(|_| error("the principal is not UTF-8"))?;
        let mut events = Vec::new();
        for _ in 0..u32::from_le_bytes(*count) {
            let (event, after) = EventRow::decode(rest).ok_or(error("an event is malformed"))?;
            events.push(event);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(error("bytes follow the last event"));
        }
        Ok(Self { time: i64::from_le_bytes(*time), principal, events })
    }
}

/// How many bytes of packed keys an event has at most, or one key if that is longer.
const PACKED_MAX: usize = 32 << 10;

impl EventRow {
    /// Says of rows of a collection, in their order, that something happened to them: in as few events as it takes.
    #[must_use]
    pub fn of_rows<'r>(
        kind: EventKind,
        key: &[u8],
        number: u64,
        rows: impl IntoIterator<Item = &'r [u8]>,
    ) -> Vec<Self> {
        let event = |from: Vec<u8>| Self {
            kind,
            key: key.to_vec(),
            from,
            old_generation: 0,
            new_generation: number,
            bytes: 0,
        };
        let (mut events, mut packed) = (Vec::new(), Vec::new());
        for row in rows {
            if !packed.is_empty() && packed.len() + 2 + row.len() > PACKED_MAX {
                events.push(event(std::mem::take(&mut packed)));
            }
            packed.extend_from_slice(&u16::try_from(row.len()).unwrap_or(u16::MAX).to_le_bytes());
            packed.extend_from_slice(row);
        }
        if !packed.is_empty() {
            events.push(event(packed));
        }
        events
    }

    /// Gives the keys of the rows that the event is about, as far as they can be read.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.from.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let (row, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = behind;
            Some(row)
        })
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let ([kind, 0, k0, k1, f0, f1, 0, 0], rest) = bytes.split_first_chunk::<8>()? else { return None };
        let kind = EventKind::from_number(*kind)?;
        let (old, rest) = rest.split_first_chunk::<8>()?;
        let (new, rest) = rest.split_first_chunk::<8>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*k0, *k1])))?;
        let (from, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*f0, *f1])))?;
        let event = Self {
            kind,
            key: key.to_vec(),
            from: from.to_vec(),
            old_generation: u64::from_le_bytes(*old),
            new_generation: u64::from_le_bytes(*new),
            bytes: u64::from_le_bytes(*size),
        };
        Some((event, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_rows(rows: &[Vec<u8>]) -> Vec<EventRow> {
        EventRow::of_rows(EventKind::RowPut, b"c\0", 7, rows.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_row_of_the_feed_comes_back_and_every_cut_is_refused() {
        let event = |kind, from: &[u8], number| EventRow {
            kind,
            key: b"a\0".to_vec(),
            from: from.to_vec(),
            old_generation: number,
            new_generation: number + 1,
            bytes: number + 2,
        };
        let events = vec![event(EventKind::Renamed, b"b\0c\0", 300), event(EventKind::Deleted, b"", 70_000)];
        let row = FeedRow { time: -5, principal: "ana".to_owned(), events };
        let bytes = row.encode();
        assert_eq!(FeedRow::decode(&bytes).unwrap(), row);
        for length in 0..bytes.len() {
            assert!(FeedRow::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(FeedRow::decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte more");
        let first_event = 18 + "ana".len();
        for at in [0, 1, 2, 3, first_event + 1, first_event + 6, first_event + 7] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(FeedRow::decode(&other).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_keys_of_rows_share_an_event_until_it_is_full() {
        let fill = |length: usize| vec![b'r'; length];
        let half = PACKED_MAX / 2 - 2;
        for (rows, expected) in [
            (vec![], vec![]),
            (vec![fill(1), fill(0), fill(3)], vec![3]),
            (vec![fill(half), fill(half)], vec![2]),
            (vec![fill(half), fill(half + 1)], vec![1, 1]),
            (vec![fill(half), fill(half), fill(0)], vec![2, 1]),
            (vec![fill(PACKED_MAX), fill(1)], vec![1, 1]),
        ] {
            let events = of_rows(&rows);
            let counts: Vec<usize> = events.iter().map(|event| event.rows().count()).collect();
            assert_eq!(counts, expected);
            let back: Vec<&[u8]> = events.iter().flat_map(EventRow::rows).collect();
            assert_eq!(back, rows);
            assert!(events.iter().all(|it| (it.new_generation, it.key.as_slice()) == (7, b"c\0")));
        }
    }

    #[test]
    fn packed_keys_are_read_as_far_as_they_are_whole() {
        let mut event = of_rows(&[b"one".to_vec(), b"two".to_vec()]).remove(0);
        event.from.pop();
        assert_eq!(event.rows().collect::<Vec<_>>(), [b"one"]);
    }
}
