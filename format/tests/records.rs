//! Records: what is put into one comes out of it, and what cannot be one is refused.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_format::{
    AbsentReason, AttributeValue, Attributes, ContentHash, Dependency, IMMEDIATELY, Key, LogEntry, LogKind,
    NEVER, Node, PayloadState, RECORD_HEADER_LENGTH, Record, RecordBuilder, RecordError, RecordFlags,
    SectionTag, Status,
};

const PAYLOAD: &[u8] = b"soup";

fn inline() -> PayloadState {
    PayloadState::Inline { length: PAYLOAD.len() as u64, hash: ContentHash::of(PAYLOAD) }
}

fn stored() -> PayloadState {
    PayloadState::Stored { length: 1 << 40, hash: ContentHash::of(b"much"), id: 77 }
}

fn absent(reason: AbsentReason) -> PayloadState {
    PayloadState::Absent(reason)
}

fn row_of(builder: &RecordBuilder) -> Bytes {
    let payload = if matches!(builder.payload, PayloadState::Inline { .. }) { PAYLOAD } else { b"" };
    builder.encode(payload).unwrap().1
}

fn record_of(builder: &RecordBuilder) -> Record {
    Record::split(&row_of(builder)).unwrap().0
}

fn with(payload: PayloadState, status: Status, flags: RecordFlags) -> Record {
    let mut builder = RecordBuilder::new(payload);
    builder.set_status(status);
    builder.flags = flags;
    record_of(&builder)
}

fn attributes() -> Attributes {
    let values = [
        ("a", true.into()),
        ("b", false.into()),
        ("c", AttributeValue::Integer(-5)),
        ("d", 1.5.into()),
        ("e", "text".into()),
        ("f", AttributeValue::Bytes(vec![0, 255])),
        ("g", AttributeValue::Timestamp(-9)),
    ];
    Attributes(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>())
}

fn log() -> Vec<LogEntry> {
    [LogKind::Debug, LogKind::Info, LogKind::Warning, LogKind::Error]
        .into_iter()
        .zip(-1..)
        .map(|(kind, time)| LogEntry { kind, time, message: format!("it was {kind}") })
        .collect()
}

fn dependencies() -> Vec<Dependency> {
    vec![
        Dependency { on: Node::Asset(Key::parse("menus/friday").unwrap()), version: 3 },
        Dependency { on: Node::External("command:plot".to_owned()), version: 0 },
    ]
}

fn full() -> RecordBuilder {
    let mut builder = RecordBuilder::new(inline());
    (builder.generation, builder.created, builder.updated, builder.commit) = (300, -2, 3, 70_000);
    (builder.expires, builder.version) = (IMMEDIATELY, 1 << 100);
    builder.flags = RecordFlags::TYPED.with(RecordFlags::PINNED, true);
    builder.set_status(Status::Ready);
    builder.set_text(SectionTag::DataFormat, "json");
    builder.set_text(SectionTag::MediaType, "application/json");
    builder.set_text(SectionTag::TypeIdentifier, "generic");
    builder.set_tags(["soup", "", "friday"].into_iter());
    builder.set_attributes(&attributes());
    builder.set_section(SectionTag::Extra.number(), Bytes::from_static(b"\xff\0"));
    builder.set_log(&log());
    builder.set_dependencies(&dependencies());
    builder
}

#[test]
fn everything_that_a_record_has_comes_back() {
    let builder = full();
    let row = row_of(&builder);
    let (record, payload) = Record::split(&row).unwrap();
    assert_eq!((payload.as_ref(), builder.encoded_length()), (PAYLOAD, record.as_bytes().len()));
    assert_eq!((record.generation(), record.created(), record.updated()), (300, -2, 3));
    assert_eq!((record.commit(), record.expires(), record.version()), (70_000, IMMEDIATELY, 1 << 100));
    assert_eq!((record.payload(), record.status()), (inline(), Status::Ready));
    assert_eq!(record.status_properties(), Status::Ready.properties());
    assert_eq!(record.flags().bits(), 2 | 4);
    assert_eq!((record.data_format(), record.media_type()), ("json", "application/json"));
    assert_eq!(record.type_identifier(), "generic");
    assert_eq!(record.tags().collect::<Vec<_>>(), ["soup", "", "friday"]);
    assert_eq!(record.attributes(), attributes());
    assert_eq!(record.extra(), Some(&b"\xff\0"[..]));
    assert_eq!((record.log(), record.dependencies()), (log(), dependencies()));
    assert_eq!(record.sections().map(|(tag, _)| tag).collect::<Vec<_>>(), [1, 2, 3, 6, 7, 8, 13, 14]);
    for (name, value) in &attributes().0 {
        assert_eq!(record.attribute(name).as_ref(), Some(value), "{name}");
        assert_eq!(record.attributes().get(name), Some(value), "{name}");
    }
    assert_eq!((record.attribute("h"), record.attributes().get("h")), (None, None));
    let (in_place, behind) = Record::in_place(&row).unwrap();
    assert_eq!((in_place.to_record(), behind), (record.clone(), PAYLOAD));
    assert!(format!("{record:?}").contains("generation: 300"));
}

#[test]
fn a_record_that_was_taken_apart_encodes_to_the_same_row() {
    for builder in [full(), RecordBuilder::new(stored()), RecordBuilder::new(absent(AbsentReason::Evicted))] {
        let again = RecordBuilder::from_record(&record_of(&builder));
        assert_eq!(row_of(&again), row_of(&builder));
    }
    let again = RecordBuilder::from_record(&record_of(&full()));
    assert_eq!((again.status(), again.text(SectionTag::DataFormat)), (&Status::Ready, "json"));
    assert_eq!(again.tags().collect::<Vec<_>>(), ["soup", "", "friday"]);
    assert_eq!((again.attributes(), again.log()), (attributes(), log()));
}

#[test]
fn a_record_of_which_nothing_is_known_says_so() {
    let builder = RecordBuilder::new(stored());
    let record = record_of(&builder);
    assert_eq!((record.payload(), record.expires(), record.version()), (stored(), NEVER, 0));
    assert_eq!((record.status(), record.flags()), (Status::Source, RecordFlags::default()));
    assert_eq!((record.data_format(), record.media_type(), record.type_identifier()), ("", "", ""));
    assert_eq!((record.tags().count(), record.attribute("a"), record.extra()), (0, None, None));
    assert!(record.attributes().0.is_empty() && record.log().is_empty() && record.dependencies().is_empty());
    assert_eq!(record.sections().count(), 0);
    assert_eq!((builder.text(SectionTag::Title), builder.tags().count()), ("", 0));
    assert!(builder.attributes().0.is_empty() && builder.log().is_empty());
}

#[test]
fn what_is_set_to_nothing_is_not_there() {
    let mut builder = RecordBuilder::new(stored());
    builder.set_status(Status::Custom("drying".to_owned()));
    builder.set_text(SectionTag::Title, "Friday");
    let record = record_of(&builder);
    assert_eq!(
        (record.status(), record.status_properties()),
        (Status::Custom("drying".into()), Default::default())
    );
    assert_eq!(record.text(SectionTag::Title), Some("Friday"));
    builder.set_status(Status::Ready);
    builder.set_text(SectionTag::Title, "");
    let record = record_of(&builder);
    assert_eq!((record.status(), record.text(SectionTag::Title)), (Status::Ready, None));
    assert_eq!(record.sections().count(), 0);
}

#[test]
fn a_payload_state_has_length_and_digest_where_there_is_a_payload() {
    assert_eq!((inline().length(), inline().hash()), (4, Some(ContentHash::of(PAYLOAD))));
    assert_eq!((stored().length(), stored().hash()), (1 << 40, Some(ContentHash::of(b"much"))));
    assert_eq!((absent(AbsentReason::Evicted).length(), absent(AbsentReason::Evicted).hash()), (0, None));
    let hash = ContentHash::of(PAYLOAD);
    assert_eq!(hash.version().to_be_bytes(), hash.0[..16]);
    let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((hash.to_string(), format!("{hash:?}")), (hex.clone(), format!("ContentHash({hex})")));
}

#[test]
fn a_record_is_what_its_payload_says() {
    for (payload, has_payload, is_directory, is_collection) in [
        (inline(), true, false, false),
        (stored(), true, false, false),
        (absent(AbsentReason::Directory), false, true, false),
        (absent(AbsentReason::Collection), false, false, true),
        (absent(AbsentReason::NeverProduced), false, false, false),
    ] {
        let record = record_of(&RecordBuilder::new(payload));
        assert_eq!(record.payload(), payload);
        assert_eq!(
            (record.has_payload(), record.is_directory(), record.is_collection()),
            (has_payload, is_directory, is_collection),
            "{payload:?}"
        );
    }
}

#[test]
fn flags_are_set_and_cleared_one_by_one() {
    let (volatile, pinned) = (RecordFlags::VOLATILE, RecordFlags::PINNED);
    let both = volatile.with(pinned, true);
    assert_eq!(both.bits(), 3);
    assert!(both.contains(volatile) && both.contains(pinned) && both.contains(both));
    assert!(!volatile.contains(both) && !volatile.contains(pinned));
    assert_eq!((both.with(pinned, true), both.with(pinned, false)), (both, volatile));
    assert_eq!(volatile.with(pinned, false), volatile);
}

#[test]
fn what_nothing_makes_again_and_what_is_pinned_is_protected() {
    let none = RecordFlags::default();
    for (status, flags, is_irreplaceable, is_protected) in [
        (Status::Source, none, true, true),
        (Status::Override, none, true, true),
        (Status::Source, RecordFlags::HAS_RECIPE, false, false),
        (Status::Override, RecordFlags::HAS_RECIPE.with(RecordFlags::PINNED, true), false, true),
        (Status::Ready, none, false, false),
        (Status::Ready, RecordFlags::HAS_RECIPE, false, false),
        (Status::Ready, RecordFlags::PINNED, false, true),
    ] {
        let record = with(stored(), status.clone(), flags);
        assert_eq!(record.is_irreplaceable(), is_irreplaceable, "{status} {flags:?}");
        assert_eq!(record.is_protected(), is_protected, "{status} {flags:?}");
    }
}

#[test]
fn an_asset_is_volatile_by_its_flag_or_its_status() {
    assert!(with(stored(), Status::Ready, RecordFlags::VOLATILE).is_volatile());
    assert!(with(stored(), Status::Volatile, RecordFlags::default()).is_volatile());
    assert!(!with(stored(), Status::Ready, RecordFlags::PINNED).is_volatile());
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let inline = row_of(&RecordBuilder::new(inline()));
    let stored = row_of(&RecordBuilder::new(stored()));
    let absent = row_of(&RecordBuilder::new(absent(AbsentReason::Evicted)));
    for row in [&inline, &stored, &absent] {
        assert!(Record::split(row).is_ok());
        assert!(Record::split(&[row, &b"!"[..]].concat().into()).is_err(), "a byte behind");
        for length in 0..row.len() {
            assert!(Record::split(&row.slice(..length)).is_err(), "cut to {length}");
        }
    }
    let one_byte = |at: usize| (at, 1_u8);
    let reserved: Vec<(usize, u8)> = (104..108).chain(120..RECORD_HEADER_LENGTH).map(one_byte).collect();
    for (row, changes) in [
        (&inline, &[(0, 2), (1, 0), (1, 2), (1, 3), (1, 4), (2, 1), (40, 3), (40, 5), (108, 1)][..]),
        (&stored, &[(0, 0), (1, 0), (1, 1), (1, 3), (1, 4), (2, 1), (108, 1)]),
        (&absent, &[(0, 2), (1, 0), (1, 1), (1, 2), (1, 4), (2, 0), (2, 7), (40, 1), (108, 1)]),
        (&inline, &reserved),
    ] {
        for (at, byte) in changes {
            let mut other = row.to_vec();
            other[*at] = *byte;
            assert!(Record::split(&other.into()).is_err(), "byte {at} is {byte} in {:?}", row[1]);
        }
    }
    let mut other = inline.to_vec();
    other[0] = 9;
    assert_eq!(Record::split(&other.into()), Err(RecordError::Version { found: 9 }));
}

#[test]
fn a_payload_that_the_record_does_not_describe_is_not_encoded() {
    for (payload, inline, is_described) in [
        (inline(), &b"soup"[..], true),
        (inline(), b"", false),
        (inline(), b"soup!", false),
        (stored(), b"", true),
        (stored(), b"soup", false),
        (absent(AbsentReason::Evicted), b"", true),
        (absent(AbsentReason::Evicted), b"s", false),
    ] {
        assert_eq!(
            RecordBuilder::new(payload).encode(inline).is_ok(),
            is_described,
            "{payload:?} {inline:?}"
        );
    }
}

/// Puts sections behind the header of a record as they are.
fn sections_are_sound(sections: &[u8]) -> bool {
    let mut row = row_of(&RecordBuilder::new(stored())).to_vec();
    row[108..112].copy_from_slice(&u32::try_from(sections.len()).unwrap().to_le_bytes());
    row.extend_from_slice(sections);
    Record::split(&row.into()).is_ok()
}

fn section(tag: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&tag.to_le_bytes()[..], &[0, 0], &length.to_le_bytes(), body].concat()
}

#[test]
fn sections_are_in_ascending_order_each_once_and_whole() {
    let (one, two) = (section(1, b"a"), section(0x9000, b"\xff"));
    assert!(sections_are_sound(&[]) && sections_are_sound(&[&one[..], &two].concat()));
    assert!(!sections_are_sound(&[&two[..], &one].concat()), "descending");
    assert!(!sections_are_sound(&[&one[..], &one].concat()), "twice");
    assert!(!sections_are_sound(&section(0, b"a")), "no tag");
    for at in [2, 3] {
        let mut other = one.clone();
        other[at] = 1;
        assert!(!sections_are_sound(&other), "reserved byte {at}");
    }
    for length in 1..one.len() {
        assert!(!sections_are_sound(&one[..length]), "cut to {length}");
    }
}

#[test]
fn what_is_inside_of_the_sections_that_are_known_is_sound() {
    let text = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat();
    let attribute = |name: &[u8], value: &[u8]| [text(name), value.to_vec()].concat();
    for tag in 1..=15 {
        let is_text = SectionTag::is_text(tag);
        assert_eq!(is_text, [1, 2, 3, 4, 5, 9, 10, 11, 12].contains(&tag), "{tag}");
        assert_eq!(sections_are_sound(&section(tag, b"\xff")), [8, 15].contains(&tag), "{tag}");
    }
    let (tags, of, log, from) = (6, 7, 13, 14);
    let pair = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    for (tag, body) in [
        (tags, pair(text(b"a"), text(b""))),
        (of, pair(attribute(b"a", &[1, 0]), attribute(b"b", &[1, 1]))),
        (of, attribute(b"a", &[2, 0, 0, 0, 0, 0, 0, 0, 0])),
        (of, attribute(b"a", &pair(vec![4], text(b"t")))),
        (of, attribute(b"a", &pair(vec![5], text(b"\xff")))),
        (log, pair(vec![1, 0, 0, 0, 0, 0, 0, 0, 0], text(b"m"))),
        (from, [&[2, 0, 1, 0][..], &[0; 16], b"e"].concat()),
    ] {
        assert!(sections_are_sound(&section(tag, &body)), "{tag}: {body:?}");
        assert!(!sections_are_sound(&section(tag, &body[..body.len() - 1])), "{tag}: {body:?}, cut");
    }
    for (tag, body) in [
        (tags, text(b"\xff")),
        (of, pair(attribute(b"b", &[1, 0]), attribute(b"a", &[1, 1]))),
        (of, pair(attribute(b"a", &[1, 0]), attribute(b"a", &[1, 1]))),
        (of, attribute(b"\xff", &[1, 0])),
        (of, attribute(b"a", &[1, 2])),
        (of, attribute(b"a", &[0])),
        (of, attribute(b"a", &[7, 0, 0, 0, 0, 0, 0, 0, 0])),
        (of, attribute(b"a", &pair(vec![4], text(b"\xff")))),
        (log, pair(vec![1, 0, 0, 0, 0, 0, 0, 0, 0], text(b"\xff"))),
        (log, pair(vec![5, 0, 0, 0, 0, 0, 0, 0, 0], text(b"m"))),
        (from, [&[2, 1, 1, 0][..], &[0; 16], b"e"].concat()),
        (from, [&[2, 0, 1, 0][..], &[0; 16], b"\n"].concat()),
    ] {
        assert!(!sections_are_sound(&section(tag, &body)), "{tag}: {body:?}");
    }
}

#[test]
fn the_name_of_something_outside_has_1_to_1_024_bytes_without_control_characters() {
    let long = "n".repeat(1_025);
    for (name, is_sound) in
        [("n", true), (&long[..1_024], true), ("", false), (&long, false), ("a\tb", false)]
    {
        assert_eq!(larder_format::is_external_name(name.as_bytes()), is_sound, "{} bytes", name.len());
        assert_eq!(Node::from_parts(2, name.as_bytes()).is_some(), is_sound, "{} bytes", name.len());
    }
    assert_eq!(Node::from_parts(1, b"a\0"), Some(Node::Asset(Key::parse("a").unwrap())));
    assert_eq!((Node::from_parts(1, b"a"), Node::from_parts(3, b"a")), (None, None));
}
