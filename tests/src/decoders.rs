//! Every decoder of the file format, for whoever feeds them with what is none of theirs.
//!
//! This file is also a part of `tests/fuzz`, which knows the format and nothing else of larder.

use crate::format::{
    BatchHeader, CollectionDefinition, Envelope, FeedRow, Key, Limits, LogFileHeader, Operation,
    PIECE_HEADER_LENGTH, Pattern, PieceHeader, Position, Record, Registry, Retention, RowContent, Rules,
    SnapshotHeader, SnapshotManifest, Tuple, WriteSet,
};

/// A decoder: whatever it is given, it returns.
pub type Decoder = fn(&[u8]);

/// All of them, by name.
pub const DECODERS: [(&str, Decoder); 16] = [
    ("record", |bytes| {
        drop(Record::in_place(bytes).map(|(record, _)| record.to_record().tags().count()));
    }),
    ("key", |bytes| drop(Key::decode(bytes))),
    ("key_text", |bytes| drop(std::str::from_utf8(bytes).map(Key::parse))),
    ("tuple", |bytes| drop(Tuple::decode(bytes))),
    ("collection", |bytes| {
        if let Ok((_, definition)) = CollectionDefinition::decode(bytes) {
            definition.indexes.iter().for_each(|index| {
                let _ = index.row_of(bytes);
            });
        }
    }),
    ("row", |bytes| drop(RowContent::decode(&bytes.to_vec().into()))),
    ("write_set", |bytes| drop(WriteSet::decode(bytes.to_vec().into()))),
    ("operation", |bytes| drop(Operation::decode(&bytes.to_vec().into(), &mut 0))),
    ("feed_row", |bytes| drop(FeedRow::decode(bytes))),
    ("log", |bytes| drop((LogFileHeader::decode(bytes), BatchHeader::decode(bytes)))),
    ("envelope", |bytes| drop(Envelope::split(bytes))),
    ("snapshot", |bytes| {
        let mut header = [0; PIECE_HEADER_LENGTH];
        header.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        drop((PieceHeader::decode(&header), SnapshotHeader::decode(bytes)));
        drop((SnapshotManifest::decode(bytes), Position::decode(bytes)));
    }),
    ("pattern", |bytes| drop(std::str::from_utf8(bytes).map(Pattern::parse))),
    ("rules", |bytes| drop(std::str::from_utf8(bytes).map(Rules::parse))),
    ("limits", |bytes| {
        drop(std::str::from_utf8(bytes).map(|text| (Limits::parse(text), Retention::parse(text))));
    }),
    ("registry", |bytes| drop(std::str::from_utf8(bytes).map(|text| Registry::shipped().extended(text)))),
];
