//! Payload history: what an asset was before its payload changed, by key pattern.
//!
//! Key: `[encoded key][0][generation u64 big-endian]`. Value: `[time until which it was so, i64][the row of the record]`. A row
//! refers to its content as a record does.

use bytes::Bytes;
use larder_format::{Key, Micros, Record};

use crate::error::Result;
use crate::guard::Row;
use crate::store::corrupt;

/// In front of the rows of a key, and of nothing else: no encoded key has two bytes of 0 in a row.
pub(crate) fn history_prefix(key: &Key) -> Bytes {
    [key.encoded(), &[0]].concat().into()
}

pub(crate) fn history_key(key: &Key, generation: u64) -> Bytes {
    [key.encoded(), &[0], &generation.to_be_bytes()].concat().into()
}

/// The key and the generation of a row.
pub(crate) fn history_of(row_key: &[u8]) -> Result<(Key, u64)> {
    let parts = || {
        let (front, generation) = row_key.split_last_chunk::<8>()?;
        let key = Key::decode(front.strip_suffix(&[0])?).ok()?;
        Some((key, u64::from_be_bytes(*generation)))
    };
    parts().ok_or_else(|| corrupt("the key of a row of the history is malformed"))
}

pub(crate) fn encode(until: Micros, row: &Row) -> Vec<u8> {
    [&until.to_le_bytes()[..], row.record.as_bytes(), &row.inline].concat()
}

/// Until when it was so, and the row.
pub(crate) fn decode(body: &Bytes) -> Result<(Micros, Row)> {
    let Some((until, _)) = body.split_first_chunk::<8>() else {
        return Err(corrupt("a row of the history is malformed"));
    };
    let (record, inline) = Record::split(&body.slice(8..))?;
    Ok((i64::from_le_bytes(*until), Row { record, inline }))
}
