//! Rows of a key by a number: `[encoded key][0][number u64 big-endian]`. What was said of an asset, and what it was.

use bytes::Bytes;
use larder_format::Key;

use crate::error::Result;
use crate::store::corrupt;

/// In front of the rows of a key, and of nothing else: no encoded key has two bytes of 0 in a row.
pub(crate) fn numbered_prefix(key: &Key) -> Bytes {
    [key.encoded(), &[0]].concat().into()
}

pub(crate) fn numbered_key(key: &Key, number: u64) -> Bytes {
    [key.encoded(), &[0], &number.to_be_bytes()].concat().into()
}

/// The key and the number of a row.
pub(crate) fn numbered_of(row_key: &[u8]) -> Result<(Key, u64)> {
    let parts = || {
        let (front, number) = row_key.split_last_chunk::<8>()?;
        Some((Key::decode(front.strip_suffix(&[0])?).ok()?, u64::from_be_bytes(*number)))
    };
    parts().ok_or_else(|| corrupt("the key of a row of a history or a log is malformed"))
}
