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
