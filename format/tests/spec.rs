//! SPEC.md says what the code does: its constants, its tables, its worked examples.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use bytes::Bytes;
use larder_format::{
    BATCH_HEADER_LENGTH, BatchHeader, ByteOrder, CHECKSUM_LENGTH, CollectionDefinition, ContentHash,
    ENVELOPE_ALIGNMENT_MAX, ENVELOPE_LENGTH, Envelope, EventKind, FeedRow, INDEX_FIELDS_MAX, INDEXES_MAX,
    IndexDefinition, Key, LOG_BLOCK, LOG_VERSION, Labelled, LogFileHeader, Operation, Part, PayloadState,
    PieceHeader, PieceKind, RECORD_HEADER_LENGTH, RECORD_VERSION, RKYV_FORMAT, ROW_VALUE_MAX, Record,
    RecordBuilder, RowContent, SNAPSHOT_CONTENT_MAX, SectionTag, StateIdentity, Status, Tuple,
    WRITE_SET_HEADER_LENGTH, WRITE_SET_LENGTH_MAX, WriteSet, WriteSetBuilder, seal_into, type_fingerprint,
    unseal,
};

const SPEC: &str = include_str!("../../SPEC.md");
const GOLDEN: &str = include_str!("golden/encodings_v1.txt");

fn golden(name: &str) -> Vec<u8> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
    (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_constants_are_those_of_the_code() {
    let constants: [(&str, usize); 19] = [
        ("CHECKSUM_LENGTH", CHECKSUM_LENGTH),
        ("RECORD_HEADER_LENGTH", RECORD_HEADER_LENGTH),
        ("RECORD_VERSION", RECORD_VERSION.into()),
        ("WRITE_SET_HEADER_LENGTH", WRITE_SET_HEADER_LENGTH),
        ("WRITE_SET_LENGTH_MAX", WRITE_SET_LENGTH_MAX),
        ("LOG_BLOCK", LOG_BLOCK),
        ("LOG_VERSION", LOG_VERSION as usize),
        ("BATCH_HEADER_LENGTH", BATCH_HEADER_LENGTH),
        ("ENVELOPE_LENGTH", ENVELOPE_LENGTH),
        ("ENVELOPE_ALIGNMENT_MAX", ENVELOPE_ALIGNMENT_MAX.into()),
        ("RKYV_FORMAT", RKYV_FORMAT.into()),
        ("KEY_ENCODED_LENGTH_MAX", Key::ENCODED_LEN_MAX),
        ("KEY_SEGMENT_LENGTH_MAX", Key::SEGMENT_LEN_MAX),
        ("KEY_DEPTH_MAX", Key::DEPTH_MAX),
        ("TUPLE_ENCODED_LENGTH_MAX", Tuple::ENCODED_LEN_MAX),
        ("TUPLE_DEPTH_MAX", Tuple::DEPTH_MAX),
        ("INDEXES_MAX", INDEXES_MAX),
        ("INDEX_FIELDS_MAX", INDEX_FIELDS_MAX),
        ("ROW_VALUE_MAX", ROW_VALUE_MAX),
    ];
    for (name, value) in constants {
        assert!(SPEC.contains(&format!("| {name} | {value} |")), "{name} = {value}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_example_of_a_collection_is_that_of_the_code() {
    let spec: String = SPEC.chars().filter(|c| !c.is_whitespace()).collect();
    let key = Tuple::new(vec!["a".into()]).unwrap();
    let fields = Labelled::new([("n", Part::from(300))]).unwrap();
    let row = RowContent { fields: fields.clone(), value: Bytes::from("x") };
    let encoded = row.encode(9);
    assert_eq!(RowContent::decode(&encoded.clone().into()).unwrap(), (9, row));
    assert!(spec.contains(&format!("`{}`andthecommit", hex(&encoded[..4]))), "{}", hex(&encoded));
    assert!(
        spec.contains(&format!("`{}`(alistofalist),and`{}`", hex(fields.encoded()), hex(b"x"))),
        "{}",
        hex(fields.encoded())
    );
    let definition = CollectionDefinition::new().index(IndexDefinition::new("by n").by_descending("n"));
    let definition = definition.numbered().unwrap();
    let section = definition.encode(7).unwrap();
    assert_eq!(CollectionDefinition::decode(&section).unwrap(), (7, definition.clone()));
    let entry = &definition.indexes[0].entries(7, key.encoded(), &fields)[0];
    assert!(spec.contains(&format!("{}`", hex(&entry.key))), "{}", hex(&entry.key));
    assert_eq!(definition.indexes[0].row_of(&entry.key[8..]), Some(key.encoded()));
}

#[test]
fn the_statuses_and_kinds_of_events_are_those_of_the_code() {
    for status in Status::known() {
        assert!(SPEC.contains(&format!("| {} | {} |", status.number(), status.name())), "{status}");
    }
    let kinds =
        [EventKind::Put, EventKind::Annotated, EventKind::Deleted, EventKind::Renamed, EventKind::Copied];
    for (number, kind) in (1..).zip(kinds) {
        assert!(SPEC.contains(&format!("{number} {}", kind.name())), "{}", kind.name());
    }
    let header: Vec<_> =
        SPEC.lines().filter(|line| line.starts_with("| 112 | 8 | expires")).map(cells).collect();
    assert_eq!(header.len(), 1);
}

fn record() -> (RecordBuilder, &'static [u8]) {
    let payload = b"{}";
    let hash = ContentHash::of(payload);
    let mut builder = RecordBuilder::new(PayloadState::Inline { length: 2, hash });
    (builder.generation, builder.created, builder.updated, builder.commit) = (1, 1_000_000, 1_000_000, 1);
    builder.version = hash.version();
    builder.set_text(SectionTag::DataFormat, "json");
    builder.set_text(SectionTag::MediaType, "application/json");
    builder.set_text(SectionTag::TypeIdentifier, "generic");
    builder.set_tags(["soup"].into_iter());
    (builder, payload)
}

#[test]
fn the_worked_examples_are_what_the_code_writes_and_reads() {
    let mut sealed = Vec::new();
    seal_into(3, b"a\0b\0", b"soup", &mut sealed);
    assert_eq!(sealed, golden("seal"));
    assert_eq!(unseal(3, b"a\0b\0", &golden("seal")).unwrap(), b"soup");

    let key = Key::parse("menus/friday.json").unwrap();
    assert_eq!(key.encoded(), golden("key"));
    assert_eq!(Key::decode(&golden("key")).unwrap(), key);

    let (builder, payload) = record();
    assert_eq!(builder.encode(payload).unwrap().1, golden("record"));
    let (read, inline) = Record::split(&golden("record").into()).unwrap();
    assert_eq!((read.media_type(), inline.as_ref()), ("application/json", payload));
    assert_eq!(read.tags().collect::<Vec<_>>(), ["soup"]);
    assert_eq!(RecordBuilder::from_record(&read).encode(&inline).unwrap().1, golden("record"));

    let feed = FeedRow::decode(&golden("feed")).unwrap();
    assert_eq!((feed.principal.as_str(), feed.events.len()), ("ana", 1));
    assert_eq!(feed.encode(), golden("feed"));

    let write_set = WriteSet::decode(golden("writeset").into()).unwrap();
    let header = write_set.header().unwrap();
    assert_eq!((header.sequence, header.store_id, header.base), (1, [7; 16], StateIdentity::default()));
    let operations: Vec<Operation> = write_set.operations().unwrap().map(Result::unwrap).collect();
    assert_eq!(operations.len(), 3);
    let mut again = WriteSetBuilder::default();
    again.put(3, key.encoded(), &golden("record")).unwrap();
    again.delete(6, b"soup\0menus\0").unwrap();
    again.delete_range(4, &[0; 16], Some(&[1; 16]), 2).unwrap();
    let again = again.encode(&header).unwrap();
    assert_eq!(
        (again.as_bytes().as_ref(), again.identity()),
        (golden("writeset").as_slice(), write_set.identity())
    );

    let envelope = Envelope {
        rkyv_format: RKYV_FORMAT,
        byte_order: ByteOrder::Little,
        pointer_width: 32,
        alignment: 4,
        fingerprint: type_fingerprint("kitchen::Menu", 8, 4),
        archive_length: 4,
    };
    assert_eq!(envelope.encode().as_slice(), golden("envelope"));
}

/// Every truncation is refused; a flipped bit gives another value or an error, and never a panic.
fn withstands(name: &str, decode: impl Fn(Bytes) -> bool) {
    let whole = golden(name);
    assert!(decode(whole.clone().into()), "{name}");
    for length in 0..whole.len() {
        assert!(!decode(Bytes::copy_from_slice(&whole[..length])), "{name} cut to {length}");
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        decode(flipped.into());
    }
}

#[test]
fn t24_decoders_withstand_what_is_cut_and_flipped() {
    withstands("record", |bytes| Record::split(&bytes).is_ok());
    withstands("feed", |bytes| FeedRow::decode(&bytes).is_ok());
    withstands("writeset", |bytes| WriteSet::decode(bytes).is_ok());
    withstands("key", |bytes| Key::decode(&bytes).is_ok_and(|key| key.as_str() == "menus/friday.json"));
    withstands("seal", |bytes| unseal(3, b"a\0b\0", &bytes).is_ok());
}

#[test]
fn the_headers_of_the_log_are_as_the_tables_say() {
    let file =
        LogFileHeader { store_id: [7; 16], log_id: [8; 16], process: 0x0102_0304, segment_length: 1 << 20 };
    let bytes = file.encode();
    assert_eq!(&bytes[..12], b"LARDLOG\x01\x01\0\0\0");
    assert_eq!(
        (&bytes[12..16], &bytes[16..32], &bytes[32..48]),
        (&[4u8, 3, 2, 1][..], &[7; 16][..], &[8; 16][..])
    );
    assert_eq!(bytes[48..56], (1u64 << 20).to_le_bytes());
    let write_set = golden("writeset");
    let batch = BatchHeader {
        count: 1,
        generation: 2,
        store_id: [7; 16],
        log_id: [8; 16],
        length: write_set.len() as u64,
        first: 5,
        last: 5,
        synced: 4,
        base: StateIdentity([9; 32]),
        checksum: BatchHeader::checksum_of(&write_set),
    };
    let bytes = batch.encode();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..8], b"LBT\x01\x01\0\0\0");
    assert_eq!(
        (&bytes[16..32], &bytes[32..48], &bytes[80..112]),
        (&[7u8; 16][..], &[8u8; 16][..], &[9u8; 32][..])
    );
    assert_eq!([8, 48, 56, 64, 72].map(number), [2, write_set.len() as u64, 5, 5, 4]);
    assert_eq!(number(112), BatchHeader::checksum_of(&write_set));
}

#[test]
fn sections_that_are_not_known_survive_a_rewrite() {
    let (mut builder, payload) = record();
    builder.set_section(0x9001, Bytes::from_static(b"from a later version"));
    let (_, row) = builder.encode(payload).unwrap();
    let (read, inline) = Record::split(&row).unwrap();
    let mut rewritten = RecordBuilder::from_record(&read);
    rewritten.set_text(SectionTag::Title, "Friday");
    let (_, row) = rewritten.encode(&inline).unwrap();
    let (read, _) = Record::split(&row).unwrap();
    assert_eq!(read.section(0x9001), Some(&b"from a later version"[..]));
    assert_eq!(read.text(SectionTag::Title), Some("Friday"));
}

#[test]
fn a_piece_of_a_snapshot_has_the_length_of_the_largest_row_at_most() {
    assert_eq!(SNAPSHOT_CONTENT_MAX, 65 << 20);
    let largest = |more: u32| PieceHeader {
        kind: PieceKind::Rows,
        number: 1,
        frame_length: SNAPSHOT_CONTENT_MAX + more,
        content_length: SNAPSHOT_CONTENT_MAX,
        digest: [7; 32],
    };
    assert_eq!(PieceHeader::decode(&largest(0).encode()).unwrap().frame_length, SNAPSHOT_CONTENT_MAX);
    assert!(PieceHeader::decode(&largest(1).encode()).is_err());
}
