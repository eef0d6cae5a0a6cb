//! The tag index: a row for every tag of every asset. Key: tag, 0, encoded key.

use bytes::Bytes;
use larder_format::{Key, Record};

/// The key of the row that says that an asset has a tag.
pub(crate) fn tag_key(tag: &str, key: &Key) -> Bytes {
    [tag.as_bytes(), &[0], key.encoded()].concat().into()
}

/// In front of all rows of a tag.
pub(crate) fn tag_prefix(tag: &str) -> Bytes {
    [tag.as_bytes(), &[0]].concat().into()
}

/// The encoded key of the asset in a row of the index.
pub(crate) fn tagged_key(row_key: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = row_key.iter().position(|byte| *byte == 0)?;
    Some((row_key.get(..at)?, row_key.get(at + 1..)?))
}

/// What changes between two records: rows to remove and rows to put. Rows that stay are not written.
pub(crate) fn tag_changes(key: &Key, old: Option<&Record>, new: Option<&Record>) -> (Vec<Bytes>, Vec<Bytes>) {
    let of = |record: Option<&Record>| -> Vec<String> {
        record.map(|record| record.tags().map(str::to_owned).collect()).unwrap_or_default()
    };
    let (old, new) = (of(old), of(new));
    let rows = |from: &[String], without: &[String]| {
        from.iter().filter(|tag| !without.contains(tag)).map(|tag| tag_key(tag, key)).collect()
    };
    (rows(&old, &new), rows(&new, &old))
}
