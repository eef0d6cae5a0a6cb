//! One change of a table: the unit of write-sets and of snapshots.
//!
//! ```text
//! [kind u8][table u8][key length u16][value length u32][key][value]
//! kind 1 put: value = checksum and body    2 delete: no value
//!      3 delete range [key, end): value = [count u64][end]; no end bytes: to the end of the table
//! ```

use bytes::Bytes;

pub(crate) const OPERATION_HEADER_LENGTH: usize = 8;

/// One change of a table. Values carry their checksum in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Stores a value.
    Put {
        /// The table's number.
        table: u8,
        /// The key.
        key: Bytes,
        /// Checksum and body.
        value: Bytes,
    },
    /// Removes a value.
    Delete {
        /// The table's number.
        table: u8,
        /// The key.
        key: Bytes,
    },
    /// Removes every value from `start` up to, and without, `end`.
    DeleteRange {
        /// The table's number.
        table: u8,
        /// The first key.
        start: Bytes,
        /// The first key that stays; `None` for the end of the table.
        end: Option<Bytes>,
        /// How many values it removes.
        count: u64,
    },
}

/// The bytes are not an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the operation is malformed: {what}")]
pub struct OperationError {
    /// What is wrong.
    pub what: &'static str,
}

impl Operation {
    /// Decodes the operation at a place, and moves the place behind it. Keys and values share the bytes.
    ///
    /// # Errors
    /// [`OperationError`] where none is there, whole.
    pub fn decode(bytes: &Bytes, at: &mut usize) -> Result<Self, OperationError> {
        const SHORT: OperationError = OperationError { what: "an operation is cut short" };
        let take = |at: &mut usize, length: usize| {
            let end = at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(SHORT)?;
            let slice = bytes.slice(*at..end);
            *at = end;
            Ok::<_, OperationError>(slice)
        };
        let head = take(at, OPERATION_HEADER_LENGTH)?;
        let [kind, table, k0, k1, v0, v1, v2, v3] =
            *head.first_chunk::<OPERATION_HEADER_LENGTH>().ok_or(SHORT)?;
        let key = take(at, usize::from(u16::from_le_bytes([k0, k1])))?;
        let value = take(at, u32::from_le_bytes([v0, v1, v2, v3]) as usize)?;
        match kind {
            1 => Ok(Self::Put { table, key, value }),
            2 if value.is_empty() => Ok(Self::Delete { table, key }),
            3 => {
                let count = u64::from_le_bytes(*value.first_chunk().ok_or(SHORT)?);
                let end = value.slice(8..);
                let end = (!end.is_empty()).then_some(end);
                Ok(Self::DeleteRange { table, start: key, end, count })
            }
            _ => Err(OperationError { what: "an operation is of no known kind" }),
        }
    }

    /// Gives the number of the table, and the key, or the first of the range.
    #[must_use]
    pub fn place(&self) -> (u8, &Bytes) {
        match self {
            Self::Put { table, key, .. } | Self::Delete { table, key } => (*table, key),
            Self::DeleteRange { table, start, .. } => (*table, start),
        }
    }

    /// Appends a put, whose value has its checksum in front already; tells whether its lengths can be said.
    #[must_use]
    pub fn put_sealed(out: &mut Vec<u8>, table: u8, key: &[u8], value: &[&[u8]]) -> bool {
        push(out, 1, table, key, value)
    }

    /// Appends a deletion.
    #[must_use]
    pub fn delete(out: &mut Vec<u8>, table: u8, key: &[u8]) -> bool {
        push(out, 2, table, key, &[])
    }

    /// Appends the deletion of a range, up to an end and without it, or to the end of the table.
    #[must_use]
    pub fn delete_range(out: &mut Vec<u8>, table: u8, start: &[u8], end: Option<&[u8]>) -> bool {
        push(out, 3, table, start, &[&[0; 8], end.unwrap_or_default()])
    }
}

pub(crate) fn push(out: &mut Vec<u8>, kind: u8, table: u8, key: &[u8], value: &[&[u8]]) -> bool {
    let length: usize = value.iter().map(|part| part.len()).sum();
    let (Ok(key_length), Ok(length)) = (u16::try_from(key.len()), u32::try_from(length)) else {
        return false;
    };
    out.extend_from_slice(&[kind, table]);
    out.extend_from_slice(&key_length.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(key);
    for part in value {
        out.extend_from_slice(part);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<u8> {
        let mut out = Vec::new();
        assert!(Operation::put_sealed(&mut out, 3, b"key", &[b"va", b"lue"]));
        assert!(Operation::delete(&mut out, 4, b"gone"));
        assert!(Operation::delete_range(&mut out, 5, b"a", Some(b"b")));
        assert!(Operation::delete_range(&mut out, 6, b"c", None));
        out
    }

    #[test]
    fn operations_come_back_one_behind_the_other_and_say_their_place() {
        let (bytes, mut at) = (Bytes::from(all()), 0);
        let expected = [
            Operation::Put { table: 3, key: "key".into(), value: "value".into() },
            Operation::Delete { table: 4, key: "gone".into() },
            Operation::DeleteRange { table: 5, start: "a".into(), end: Some("b".into()), count: 0 },
            Operation::DeleteRange { table: 6, start: "c".into(), end: None, count: 0 },
        ];
        let places: [(u8, &[u8]); 4] = [(3, b"key"), (4, b"gone"), (5, b"a"), (6, b"c")];
        for (operation, (table, key)) in expected.into_iter().zip(places) {
            assert_eq!(operation.place(), (table, &Bytes::from_static(key)));
            assert_eq!(Operation::decode(&bytes, &mut at), Ok(operation));
        }
        assert_eq!(at, bytes.len());
        assert!(Operation::decode(&bytes, &mut at).is_err());
    }

    #[test]
    fn what_is_cut_or_of_no_kind_is_refused() {
        let mut put = Vec::new();
        assert!(push(&mut put, 1, 3, b"key", &[b"value"]));
        for length in 0..put.len() {
            assert!(Operation::decode(&Bytes::copy_from_slice(&put[..length]), &mut 0).is_err(), "{length}");
        }
        for (kind, value, is_sound) in
            [(0, &b""[..], false), (2, b"", true), (2, b"v", false), (3, b"1234567", false), (4, b"", false)]
        {
            let mut out = Vec::new();
            assert!(push(&mut out, kind, 3, b"key", &[value]));
            assert_eq!(Operation::decode(&out.into(), &mut 0).is_ok(), is_sound, "kind {kind}, {value:?}");
        }
        let mut beyond = usize::MAX;
        assert!(Operation::decode(&Bytes::from(all()), &mut beyond).is_err());
    }

    #[test]
    fn a_key_of_64_kib_has_no_encoding() {
        let (key, mut out) = (vec![b'k'; 65_536], Vec::new());
        assert!(!Operation::put_sealed(&mut out, 3, &key, &[b"value"]));
        assert!(!Operation::delete(&mut out, 3, &key) && !Operation::delete_range(&mut out, 3, &key, None));
        assert!(out.is_empty());
        assert!(Operation::delete(&mut out, 3, &key[1..]));
    }
}
