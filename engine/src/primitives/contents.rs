//! Payloads by their content: one row for each, with how many records refer to it.
//!
//! ```text
//!  0 8 payload id    16 8 length         32 1 codec   34 6 reserved, 0
//!  8 8 references    24 8 stored length  33 1 class
//! ```

use larder_format::ContentHash;

use crate::error::Result;
use crate::payload::Stored;
use crate::store::corrupt;

/// Where a content lies, and who needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRow {
    pub(crate) id: u64,
    pub(crate) references: u64,
    pub(crate) length: u64,
    pub(crate) stored_length: u64,
    pub(crate) codec: u8,
    pub(crate) class: u8,
}

impl ContentRow {
    /// Gives what a reader needs to know of it.
    pub(crate) fn stored(&self, hash: ContentHash) -> Stored {
        Stored {
            id: self.id,
            length: self.length,
            stored_length: self.stored_length,
            codec: self.codec,
            class: self.class,
            hash,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(40);
        for number in [self.id, self.references, self.length, self.stored_length] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row.extend_from_slice(&[self.codec, self.class, 0, 0, 0, 0, 0, 0]);
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        let parts = || {
            let (id, rest) = row.split_first_chunk::<8>()?;
            let (references, rest) = rest.split_first_chunk::<8>()?;
            let (length, rest) = rest.split_first_chunk::<8>()?;
            let (stored_length, rest) = rest.split_first_chunk::<8>()?;
            let [codec, class, 0, 0, 0, 0, 0, 0] = rest else { return None };
            Some(Self {
                id: u64::from_le_bytes(*id),
                references: u64::from_le_bytes(*references),
                length: u64::from_le_bytes(*length),
                stored_length: u64::from_le_bytes(*stored_length),
                codec: *codec,
                class: *class,
            })
        };
        parts().ok_or_else(|| corrupt("a row of the contents is malformed"))
    }
}
