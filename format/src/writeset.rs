//! The outcome of a transaction: a plain list of what to put and what to delete, with everything decided.
//!
//! A write-set is the unit of commit, of the log, of incremental snapshots and of replication. It names the
//! state that it builds on by its identity, and gives the next one: a hash chained over write-sets. Nothing
//! that applies it asks a clock or draws a random number. The layout is section 9 of SPEC.md.
//!
//! ```text
//!  0  4  magic "LWS\x01"              80  2  length of the principal, p
//!  4  4  number of operations, n      82  2  length of the idempotency key, i
//!  8  8  commit sequence number       84  4  reserved, 0
//! 16  8  commit time, microseconds    88  p  principal
//! 24 16  store id                         i  idempotency key
//! 40 32  identity of the state below      .  n operations
//! 72  8  length of all, bytes
//!
//! operation: [kind u8][table u8][key length u16][value length u32][key][value]
//! kind 1 put: value = checksum and body    2 delete: no value
//!      3 delete range [key, end): value = [count u64][end]; no end bytes: to the end of the table
//! ```

use bytes::{Bytes, BytesMut};

use crate::checksum;
use crate::operation::{self, OPERATION_HEADER_LENGTH, Operation};

/// The length of the part of a write-set whose length is fixed, in bytes.
pub const WRITE_SET_HEADER_LENGTH: usize = 88;
/// The greatest length of a write-set, in bytes.
pub const WRITE_SET_LENGTH_MAX: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"LWS\x01";

/// The identity of a state: a hash chained over the write-sets that led to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StateIdentity(pub [u8; 32]);

impl std::fmt::Display for StateIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(16).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for StateIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateIdentity({self})")
    }
}

/// What is decided about a transaction before it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteSetHeader {
    /// The commit sequence number: one more than that of the state below.
    pub sequence: u64,
    /// The commit time, in microseconds since the epoch; never less than that of the state below.
    pub time: i64,
    /// The store that it belongs to.
    pub store_id: [u8; 16],
    /// The identity of the state that it builds on.
    pub base: StateIdentity,
    /// Who caused it.
    pub principal: String,
    /// The key under which its outcome can be asked for; empty if there is none.
    pub idempotency_key: String,
}

/// The bytes are not a write-set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteSetError {
    /// The write-set would be, or claims to be, larger than the limit.
    #[error("a write-set of {length} bytes is larger than the limit of {max}; split the transaction")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The bytes do not follow the layout.
    #[error("the write-set is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// The fixed part, the principal, the idempotency key, and where the operations begin.
type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8], usize);

/// An encoded write-set.
#[derive(Clone, PartialEq, Eq)]
pub struct WriteSet {
    bytes: Bytes,
    identity: StateIdentity,
}

impl WriteSet {
    /// Gives the encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Gives the identity of the state after it.
    #[must_use]
    pub fn identity(&self) -> StateIdentity {
        self.identity
    }

    /// Takes encoded bytes, after checking the whole of them.
    ///
    /// # Errors
    /// [`WriteSetError`] where the bytes are not one whole write-set.
    pub fn decode(bytes: Bytes) -> Result<Self, WriteSetError> {
        if bytes.len() > WRITE_SET_LENGTH_MAX {
            return Err(WriteSetError::TooLarge { length: bytes.len(), max: WRITE_SET_LENGTH_MAX });
        }
        let identity = StateIdentity(*blake3::hash(&bytes).as_bytes());
        let write_set = Self { bytes, identity };
        write_set.header()?;
        for operation in write_set.operations()? {
            operation?;
        }
        Ok(write_set)
    }

    /// Gives the length that a write-set says it has, in bytes, where one begins at the front of `bytes`.
    #[must_use]
    pub fn length_at(bytes: &[u8]) -> Option<usize> {
        let fixed = bytes.first_chunk::<WRITE_SET_HEADER_LENGTH>()?;
        let length = usize::try_from(u64::from_le_bytes(array_at(fixed, 72))).ok()?;
        (array_at(fixed, 0) == MAGIC && length >= WRITE_SET_HEADER_LENGTH).then_some(length)
    }

    /// Reads the header.
    ///
    /// # Errors
    /// [`WriteSetError::Malformed`]; never for a write-set that was encoded or decoded here.
    pub fn header(&self) -> Result<WriteSetHeader, WriteSetError> {
        let (fixed, principal, idempotency_key, _) = self.parts()?;
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| WriteSetError::Malformed { what: "a name is not UTF-8" })
        };
        Ok(WriteSetHeader {
            sequence: u64::from_le_bytes(array_at(fixed, 8)),
            time: i64::from_le_bytes(array_at(fixed, 16)),
            store_id: array_at(fixed, 24),
            base: StateIdentity(array_at(fixed, 40)),
            principal: text(principal)?,
            idempotency_key: text(idempotency_key)?,
        })
    }

    /// Iterates over the operations, in their order; ends after the first malformed one.
    ///
    /// # Errors
    /// [`WriteSetError::Malformed`] where the header is; never for a write-set that was encoded or decoded here.
    pub fn operations(
        &self,
    ) -> Result<impl Iterator<Item = Result<Operation, WriteSetError>> + '_, WriteSetError> {
        let (fixed, _, _, mut at) = self.parts()?;
        let mut left = u32::from_le_bytes(array_at(fixed, 4));
        Ok(std::iter::from_fn(move || {
            if left == 0 {
                return if at == self.bytes.len() {
                    None
                } else {
                    at = self.bytes.len();
                    Some(Err(WriteSetError::Malformed { what: "bytes follow the last operation" }))
                };
            }
            left -= 1;
            let operation = Operation::decode(&self.bytes, &mut at)
                .map_err(|error| WriteSetError::Malformed { what: error.what });
            if operation.is_err() {
                left = 0;
                at = self.bytes.len();
            }
            Some(operation)
        }))
    }

    fn parts(&self) -> Result<Parts<'_>, WriteSetError> {
        let malformed = |what| WriteSetError::Malformed { what };
        let (fixed, rest) = self
            .bytes
            .split_at_checked(WRITE_SET_HEADER_LENGTH)
            .ok_or(malformed("the header is cut short"))?;
        if array_at(fixed, 0) != MAGIC {
            return Err(malformed("it does not begin with the mark of a write-set"));
        }
        if u64::from_le_bytes(array_at(fixed, 72)) != self.bytes.len() as u64 {
            return Err(malformed("its length is another one than it says"));
        }
        if array_at(fixed, 84) != [0; 4] {
            return Err(malformed("reserved bytes are not zero"));
        }
        let principal_length = usize::from(u16::from_le_bytes(array_at(fixed, 80)));
        let idempotency_length = usize::from(u16::from_le_bytes(array_at(fixed, 82)));
        let (principal, rest) =
            rest.split_at_checked(principal_length).ok_or(malformed("the principal is cut short"))?;
        let (idempotency_key, _) =
            rest.split_at_checked(idempotency_length).ok_or(malformed("the idempotency key is cut short"))?;
        let operations_at = WRITE_SET_HEADER_LENGTH + principal_length + idempotency_length;
        Ok((fixed, principal, idempotency_key, operations_at))
    }
}

impl std::fmt::Debug for WriteSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteSet")
            .field("length", &self.bytes.len())
            .field("identity", &self.identity)
            .finish()
    }
}

/// Collects the operations of a transaction and encodes them.
#[derive(Debug, Default)]
pub struct WriteSetBuilder {
    operations: Vec<u8>,
    count: u32,
}

impl WriteSetBuilder {
    /// Begins with room for operations of so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { operations: Vec::with_capacity(bytes.min(WRITE_SET_LENGTH_MAX)), count: 0 }
    }

    /// Adds the storing of a value under its checksum.
    ///
    /// # Errors
    /// [`WriteSetError::TooLarge`] where the write-set passes its limit; [`WriteSetError::Malformed`] for a key of
    /// 64 KiB or more.
    pub fn put(&mut self, table: u8, key: &[u8], body: &[u8]) -> Result<(), WriteSetError> {
        let checksum = checksum::checksum(table, key, body).to_le_bytes();
        self.push(1, table, key, &[&checksum, body])
    }

    /// Adds the removal of a value.
    ///
    /// # Errors
    /// As [`WriteSetBuilder::put`].
    pub fn delete(&mut self, table: u8, key: &[u8]) -> Result<(), WriteSetError> {
        self.push(2, table, key, &[])
    }

    /// Adds the removal of a range: from `start` up to, and without, `end`, or to the end of the table.
    ///
    /// # Errors
    /// As [`WriteSetBuilder::put`].
    pub fn delete_range(
        &mut self,
        table: u8,
        start: &[u8],
        end: Option<&[u8]>,
        count: u64,
    ) -> Result<(), WriteSetError> {
        self.push(3, table, start, &[&count.to_le_bytes(), end.unwrap_or_default()])
    }

    /// Gives the length of what was collected, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        WRITE_SET_HEADER_LENGTH + self.operations.len()
    }

    fn push(&mut self, kind: u8, table: u8, key: &[u8], value: &[&[u8]]) -> Result<(), WriteSetError> {
        let value_length: usize = value.iter().map(|part| part.len()).sum();
        let length = self.length() + OPERATION_HEADER_LENGTH + key.len() + value_length;
        if length > WRITE_SET_LENGTH_MAX {
            return Err(WriteSetError::TooLarge { length, max: WRITE_SET_LENGTH_MAX });
        }
        if !operation::push(&mut self.operations, kind, table, key, value) {
            return Err(WriteSetError::Malformed { what: "a key has 64 KiB or more" });
        }
        self.count += 1;
        Ok(())
    }

    /// Encodes what was collected under a header.
    ///
    /// # Errors
    /// [`WriteSetError::Malformed`] where principal or idempotency key have 64 KiB or more.
    pub fn encode(self, header: &WriteSetHeader) -> Result<WriteSet, WriteSetError> {
        let short = |text: &str| {
            u16::try_from(text.len())
                .map_err(|_| WriteSetError::Malformed { what: "a name has 64 KiB or more" })
        };
        let (principal_length, idempotency_length) =
            (short(&header.principal)?, short(&header.idempotency_key)?);
        let length = self.length() + usize::from(principal_length) + usize::from(idempotency_length);
        let mut out = BytesMut::with_capacity(length);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&header.sequence.to_le_bytes());
        out.extend_from_slice(&header.time.to_le_bytes());
        out.extend_from_slice(&header.store_id);
        out.extend_from_slice(&header.base.0);
        out.extend_from_slice(&(length as u64).to_le_bytes());
        out.extend_from_slice(&principal_length.to_le_bytes());
        out.extend_from_slice(&idempotency_length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(header.principal.as_bytes());
        out.extend_from_slice(header.idempotency_key.as_bytes());
        out.extend_from_slice(&self.operations);
        let bytes = out.freeze();
        let identity = StateIdentity(*blake3::hash(&bytes).as_bytes());
        Ok(WriteSet { bytes, identity })
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> WriteSetHeader {
        WriteSetHeader {
            sequence: 7,
            time: -3,
            store_id: [5; 16],
            base: StateIdentity([6; 32]),
            principal: "ana".to_owned(),
            idempotency_key: "order 8".to_owned(),
        }
    }

    fn write_set() -> WriteSet {
        let mut builder = WriteSetBuilder::default();
        builder.put(3, b"a\0", b"soup").unwrap();
        builder.delete_range(4, b"b", None, 2).unwrap();
        builder.encode(&header()).unwrap()
    }

    fn patched(at: usize, bytes: &[u8]) -> Bytes {
        let mut all = write_set().as_bytes().to_vec();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        all.into()
    }

    #[test]
    fn a_write_set_comes_back_with_its_header_operations_and_identity() {
        let written = write_set();
        let read = WriteSet::decode(written.as_bytes().clone()).unwrap();
        assert_eq!((read.header().unwrap(), read.identity()), (header(), written.identity()));
        assert_eq!(read.identity().0, *blake3::hash(written.as_bytes()).as_bytes());
        let operations: Vec<_> = read.operations().unwrap().map(Result::unwrap).collect();
        let [Operation::Put { table: 3, value, .. }, range] = operations.as_slice() else {
            panic!("{operations:?}")
        };
        assert_eq!(checksum::unseal(3, b"a\0", value).unwrap(), b"soup");
        let start = Bytes::from_static(b"b");
        assert_eq!(*range, Operation::DeleteRange { table: 4, start, end: None, count: 2 });
    }

    #[test]
    fn the_length_is_known_before_it_is_encoded_and_from_its_first_bytes() {
        let mut builder = WriteSetBuilder::default();
        assert_eq!(builder.length(), WRITE_SET_HEADER_LENGTH);
        builder.delete(3, b"abc").unwrap();
        assert_eq!(builder.length(), WRITE_SET_HEADER_LENGTH + OPERATION_HEADER_LENGTH + 3);
        let (names, length) = ("ana".len() + "order 8".len(), builder.length());
        let bytes = builder.encode(&header()).unwrap().as_bytes().clone();
        assert_eq!(bytes.len(), length + names);
        assert_eq!(WriteSet::length_at(&bytes), Some(bytes.len()));
        assert_eq!(WriteSet::length_at(&bytes[..WRITE_SET_HEADER_LENGTH]), Some(bytes.len()));
        assert_eq!(WriteSet::length_at(&bytes[..WRITE_SET_HEADER_LENGTH - 1]), None);
        assert_eq!(WriteSet::length_at(&bytes[1..]), None);
        assert_eq!(WriteSet::length_at(&patched(72, &88_u64.to_le_bytes())), Some(88));
        assert_eq!(WriteSet::length_at(&patched(72, &87_u64.to_le_bytes())), None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let whole = write_set().as_bytes().clone();
        let longer = {
            let mut bytes = [&whole[..], b"0123456789"].concat();
            let length = bytes.len() as u64;
            bytes[72..80].copy_from_slice(&length.to_le_bytes());
            Bytes::from(bytes)
        };
        for (what, bytes) in [
            ("bytes behind", [&whole[..], &[0]].concat().into()),
            ("bytes behind that its length counts", longer),
            ("a smaller count", patched(4, &[1])),
            ("a greater count", patched(4, &[3])),
            ("another mark", patched(0, b"l")),
            ("reserved bytes", patched(84, &[1])),
            ("reserved bytes", patched(87, &[1])),
            ("a principal beyond its end", patched(80, &[0xff; 2])),
            ("an idempotency key beyond its end", patched(82, &[0xff; 2])),
            ("a principal that is not UTF-8", patched(88, &[0xff])),
            ("an idempotency key that is not UTF-8", patched(91, &[0xff])),
            ("an operation of no kind", patched(98, &[4])),
        ] {
            assert!(matches!(WriteSet::decode(bytes), Err(WriteSetError::Malformed { .. })), "{what}");
        }
    }

    #[test]
    fn the_limit_is_what_fits_and_one_byte_more_does_not() {
        let room = WRITE_SET_LENGTH_MAX - WRITE_SET_HEADER_LENGTH - OPERATION_HEADER_LENGTH - 1;
        let body = vec![0; room - checksum::CHECKSUM_LENGTH + 1];
        let mut builder = WriteSetBuilder::default();
        let error = builder.put(3, b"k", &body).unwrap_err();
        let length = WRITE_SET_LENGTH_MAX + 1;
        assert_eq!(error, WriteSetError::TooLarge { length, max: WRITE_SET_LENGTH_MAX });
        builder.put(3, b"k", &body[1..]).unwrap();
        assert_eq!(builder.length(), WRITE_SET_LENGTH_MAX);
        assert!(matches!(builder.delete(3, b""), Err(WriteSetError::TooLarge { .. })));
        let nothing = Bytes::from(vec![0; WRITE_SET_LENGTH_MAX + 1]);
        assert!(matches!(WriteSet::decode(nothing.clone()), Err(WriteSetError::TooLarge { .. })));
        assert!(matches!(WriteSet::decode(nothing.slice(1..)), Err(WriteSetError::Malformed { .. })));
    }

    #[test]
    fn names_and_keys_have_less_than_64_kib() {
        let (fits, long) = ("n".repeat(65_535), "n".repeat(65_536));
        let mut builder = WriteSetBuilder::default();
        assert!(builder.delete(3, long.as_bytes()).is_err());
        assert!(builder.delete(3, fits.as_bytes()).is_ok());
        for (principal, idempotency_key, is_sound) in
            [(&fits, &fits, true), (&long, &fits, false), (&fits, &long, false)]
        {
            let (principal, idempotency_key) = (principal.clone(), idempotency_key.clone());
            let header = WriteSetHeader { principal, idempotency_key, ..header() };
            assert_eq!(WriteSetBuilder::default().encode(&header).is_ok(), is_sound);
        }
    }
}
