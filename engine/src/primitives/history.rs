//! Payload history: what an asset was before its payload changed, by key pattern.
//!
//! Key: that of a numbered row, by the generation. Value: `[time until which it was so, i64][the row of the record]`. A row
//! refers to its content as a record does.

use bytes::Bytes;
use larder_format::{Micros, Record};

use crate::error::Result;
use crate::guard::Row;
use crate::store::corrupt;

/// The row of `state` that has the newest commit that let go of former states of assets without changing the assets.
pub(crate) const PRUNED: &[u8] = b"history-pruned";

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
