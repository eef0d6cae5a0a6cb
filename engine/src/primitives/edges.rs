//! Edges from what something was made from to what was made from it. The other direction lies in the records.
//!
//! ```text
//! [1][encoded key of the asset depended on][0][encoded key of the dependent]: the version that was seen, 16 bytes
//! [2][external name][0][encoded key of the dependent]:                        the same
//! [3][external name]:                                                         its version, 16 bytes
//! ```
//! Versions are big-endian. No encoded key has two bytes of 0 in a row, so that the first 0 that follows one ends it.

use bytes::Bytes;
use larder_format::{Key, Node, Record};

use crate::store::Table;
use crate::txn::Changes;

/// In front of the rows that have the versions of what is outside the store.
pub(crate) const EXTERNALS: [u8; 1] = [3];

/// In front of the edges from something to all that depends on it.
pub(crate) fn edges_of(node: &Node) -> Bytes {
    [&[node.kind()][..], node.name(), &[0]].concat().into()
}

/// The key of the row that says that an asset was made from something.
pub(crate) fn edge_key(on: &Node, dependent: &Key) -> Bytes {
    [&edges_of(on)[..], dependent.encoded()].concat().into()
}

/// The encoded key of the dependent in a row that begins with [`edges_of`].
pub(crate) fn dependent_in(row_key: &[u8], front: &[u8]) -> Option<Key> {
    Key::decode(row_key.strip_prefix(front)?).ok()
}

/// The key of the row that has the version of something outside the store.
pub(crate) fn external_key(name: &str) -> Bytes {
    [&EXTERNALS[..], name.as_bytes()].concat().into()
}

/// Reads a version.
pub(crate) fn version_in(row: &[u8]) -> u128 {
    row.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// Tells whether a row of the table is an edge.
pub(crate) fn is_edge(row_key: &[u8]) -> bool {
    matches!(row_key.first(), Some(1 | 2))
}

/// Writes the edges that change with a record; tells whether it has some now.
pub(crate) fn change_edges(
    changes: &mut Changes,
    key: &Key,
    old: Option<&Record>,
    new: Option<&Record>,
) -> bool {
    let of = |record: Option<&Record>| record.map(Record::dependencies).unwrap_or_default();
    let (old, new) = (of(old), of(new));
    for gone in old.iter().filter(|one| !new.iter().any(|other| other.on == one.on)) {
        changes.remove(Table::Edges, edge_key(&gone.on, key));
    }
    for come in new.iter().filter(|one| !old.contains(one)) {
        changes.put(Table::Edges, edge_key(&come.on, key), come.version.to_be_bytes().to_vec());
    }
    !new.is_empty()
}
