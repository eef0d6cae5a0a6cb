//! Labelled parts, and the bytes that no version may change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in test functions; here they are in what those call"
)]

use std::collections::BTreeMap;

use larder_format::{
    Date, Labelled, LabelledBuilder, LocalDateTime, Part, Time, Tuple, TupleError, ZonedInstant,
};
use proptest::prelude::*;

fn one() -> Part {
    1.into()
}

fn decode(encoded: &[u8]) -> Result<Labelled, TupleError> {
    Labelled::decode(&encoded.to_vec().into())
}

#[test]
fn s3_2_a_order_of_labels_does_not_matter_and_types_do() {
    let ab = Labelled::new([("a", one()), ("b", 2.into())]).unwrap();
    let ba = Labelled::new([("b", 2.into()), ("a", one())]).unwrap();
    assert_eq!(ab, ba);
    assert_eq!(ab.encoded(), ba.encoded());
    assert_ne!(Labelled::new([("a", Part::from("1"))]), Labelled::new([("a", one())]));
    assert_ne!(Labelled::new([("a", one())]), Labelled::new([("A", one())]));
    assert_eq!(ab.get("b"), Some(Part::from(2)));
    assert_eq!(ab.get("c"), None);
    assert_eq!(ab.iter().map(|(label, _)| label).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(decode(ab.encoded()), Ok(ab.clone()));
    assert_eq!(Labelled::from_part(ab.to_tuple().parts()[0].clone()), Ok(ab));
    assert_eq!(Labelled::new::<&str>([]).unwrap().encoded(), [0x90, 0x00]);
}

#[test]
fn s3_2_b_unlabelled_parts_are_refused() {
    let pair = |label: Part| Part::List(vec![label, one()]);
    let unlabelled = [
        one(),
        Part::Nil,
        "a".into(),
        Part::List(vec![one()]),
        Part::List(vec![one(), 2.into()]),
        Part::List(vec![pair(one())]),
        Part::List(vec![pair(Part::Symbol("a".into()))]),
        Part::List(vec![Part::List(vec!["a".into()])]),
        Part::List(vec![Part::List(vec!["a".into(), one(), one()])]),
        Part::List(vec![pair("a".into()), one()]),
    ];
    for part in unlabelled {
        let bytes = Tuple::encode(std::slice::from_ref(&part)).unwrap();
        assert_eq!(decode(&bytes), Err(TupleError::UnlabelledPart));
        assert_eq!(Labelled::from_part(part), Err(TupleError::UnlabelledPart));
    }
    for parts in [vec![], vec![Part::List(vec![]), Part::List(vec![])]] {
        assert_eq!(decode(&Tuple::encode(&parts).unwrap()), Err(TupleError::UnlabelledPart));
    }
}

#[test]
fn s3_2_d_blank_and_duplicate_labels_are_refused() {
    for blank in ["", " ", "\t\n", "\u{a0}\u{2003}"] {
        assert_eq!(Labelled::new([("a", one()), (blank, one())]), Err(TupleError::BlankLabel));
    }
    let twice = Labelled::new([("a", one()), ("b", one()), ("a", 2.into())]);
    assert_eq!(twice, Err(TupleError::DuplicateLabel { label: "a".into() }));
    let hostile = "\u{1b}".repeat(1000);
    let error = Labelled::new([(&hostile, one()), (&hostile, one())]).unwrap_err();
    assert!(!error.to_string().contains(char::is_control) && error.to_string().len() < 1000);
}

#[test]
fn labels_out_of_order_are_not_decoded() {
    let pair = |label: &str| Part::List(vec![label.into(), one()]);
    let bytes = Tuple::encode(&[Part::List(vec![pair("b"), pair("a")])]).unwrap();
    let expected = TupleError::NotCanonical { position: 3, expected: "the labels in their order" };
    assert_eq!(decode(&bytes), Err(expected));
}

#[test]
fn labels_that_are_there_twice_or_blank_are_not_decoded() {
    let decode = |labels: [&str; 2]| {
        let pair = |label: &str| Part::List(vec![label.into(), one()]);
        decode(&Tuple::encode(&[Part::List(labels.map(pair).to_vec())]).unwrap())
    };
    assert!(decode(["a", "b"]).is_ok());
    assert_eq!(decode(["a", "a"]), Err(TupleError::DuplicateLabel { label: "a".into() }));
    assert_eq!(decode([" ", "a"]), Err(TupleError::BlankLabel));
}

#[test]
fn labelled_parts_obey_the_limits_of_tuples() {
    let nested = |lists: usize| (1..lists).fold(Part::List(vec![]), |inner, _| Part::List(vec![inner]));
    Labelled::new([("a", nested(14))]).unwrap();
    assert_eq!(Labelled::new([("a", nested(15))]), Err(TupleError::TooDeep { max: 16 }));
    let long = Labelled::new([("a", Part::String("s".repeat(5000)))]);
    assert_eq!(long, Err(TupleError::TooLong { len: 5009, max: 4096 }));
}

/// Few labels, so that some are there twice; some have bytes that are escaped.
fn any_label() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "a\0", "a\0b", "a\u{1}", "b", "\0", "\u{ff}", "zz"])
        .prop_map(str::to_owned)
}

fn any_part() -> impl Strategy<Value = Part> {
    let leaf = prop_oneof![
        Just(Part::Nil),
        any::<bool>().prop_map(Part::from),
        any::<i64>().prop_map(Part::from),
        any::<f64>().prop_filter("not NaN", |value| !value.is_nan()).prop_map(Part::from),
        ".{0,6}".prop_map(Part::from),
        "\\PC{0,3}\\x00\\PC{0,3}".prop_map(Part::Symbol),
        proptest::collection::vec(any::<u8>(), 0..6).prop_map(Part::from),
        any::<[u8; 16]>().prop_map(Part::Uuid),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Part::from))
}

proptest! {
    /// What is built, changed, encoded and decoded is what a map of the same labels and parts is.
    #[test]
    fn labelled_parts_are_a_map(
        sets in proptest::collection::vec((any_label(), any_part()), 0..12),
        removed in proptest::collection::vec(any_label(), 0..3),
        later in proptest::collection::vec((any_label(), any_part()), 0..3),
    ) {
        let (mut builder, mut model) = (LabelledBuilder::default(), BTreeMap::new());
        for (label, part) in &sets {
            let was = model.insert(label.clone(), part.clone()).is_some();
            prop_assert_eq!(builder.set(label, part), was);
        }
        for label in &removed {
            builder.remove(label);
            model.remove(label);
        }
        let labelled = builder.build().unwrap();
        prop_assert_eq!(&labelled, &Labelled::new(model.clone()).unwrap());
        let pairs = |labelled: &Labelled| -> Vec<(String, Part)> {
            labelled.iter().map(|(label, part)| (label.into_owned(), part)).collect()
        };
        prop_assert_eq!(pairs(&labelled), model.clone().into_iter().collect::<Vec<_>>());
        for (label, _) in sets.iter().chain(&later) {
            let part = model.get(label);
            prop_assert_eq!(labelled.get(label), part.cloned());
            prop_assert_eq!(labelled.contains(label), part.is_some());
            let integer = match part { Some(Part::Integer(value)) => i64::try_from(*value).ok(), _ => None };
            prop_assert_eq!(labelled.integer(label), integer);
            let text = match part { Some(Part::String(text)) => Some(text.as_str()), _ => None };
            let read = labelled.text(label);
            prop_assert_eq!(read.as_deref(), text);
        }
        let decoded = decode(labelled.encoded()).unwrap();
        prop_assert_eq!(pairs(&decoded), pairs(&labelled));
        let list: Vec<Part> =
            model.iter().map(|(label, part)| Part::List(vec![label.as_str().into(), part.clone()])).collect();
        prop_assert_eq!(decoded.to_tuple(), Tuple::new(vec![Part::List(list)]).unwrap());

        let mut builder = LabelledBuilder::from(&decoded);
        for (label, part) in later {
            builder.set(&label, &part);
            model.insert(label, part);
        }
        prop_assert_eq!(builder.build().unwrap(), Labelled::new(model).unwrap());
    }

    /// What is decoded is what is encoded again; whatever else is refused as a tuple of the same bytes is, or for its labels.
    #[test]
    fn damaged_labelled_parts_are_refused_or_canonical(
        pairs in proptest::collection::btree_map(any_label(), any_part(), 0..6),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = Labelled::new(pairs).unwrap().encoded().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        match decode(&bytes) {
            Ok(labelled) => {
                let pairs: Vec<_> = labelled.iter().map(|(label, part)| (label.into_owned(), part)).collect();
                let again = Labelled::new(pairs).unwrap();
                prop_assert_eq!(again.encoded(), &bytes[..]);
            }
            Err(error) => {
                if let Err(of_tuple) = Tuple::decode(&bytes) {
                    prop_assert_eq!(error, of_tuple);
                }
            }
        }
    }
}

#[test]
fn a_draft_of_labelled_parts_tells_what_was_wrong_first() {
    let mut builder = LabelledBuilder::default();
    builder.set("a", &f64::NAN.into());
    builder.set(" ", &one());
    assert_eq!(builder.clone().build(), Err(TupleError::NotANumber));
    // Of two parts of a label the last one counts.
    builder.set("a", &one());
    assert_eq!(builder.clone().build(), Err(TupleError::BlankLabel));
    builder.remove(" ");
    assert_eq!(builder.clone().build(), Labelled::new([("a", one())]));
    builder.set("a", &f64::NAN.into());
    builder.remove("a");
    assert_eq!(builder.build(), Labelled::new::<&str>([]));

    let three = |pairs: [(&str, Part); 3]| Labelled::new(pairs);
    let duplicate = || TupleError::DuplicateLabel { label: "a".to_owned() };
    assert_eq!(three([("a", one()), ("a", one()), ("", one())]), Err(TupleError::BlankLabel));
    assert_eq!(three([("a", f64::NAN.into()), ("b", one()), ("a", one())]), Err(duplicate()));
}

fn golden() -> Vec<(&'static str, Vec<Part>)> {
    let date = Date::new(2024, 1, 1).unwrap();
    let time = Time::new(1).unwrap();
    let labelled = Labelled::new([("b", 2.into()), ("a", Part::from("1"))]).unwrap();
    vec![
        ("empty", vec![]),
        ("nil", vec![Part::Nil]),
        ("booleans", vec![false.into(), true.into()]),
        ("integers-small", vec![0.into(), 1.into(), (-1).into()]),
        ("integers-two-bytes", vec![300.into(), (-300).into()]),
        ("integers-extreme", vec![Part::Integer(Part::INTEGER_MIN), Part::Integer(Part::INTEGER_MAX)]),
        ("floats", vec![1.0.into(), (-1.0).into()]),
        ("zeros", vec![(-0.0).into(), 0.0.into()]),
        ("infinities", vec![f64::NEG_INFINITY.into(), f64::INFINITY.into()]),
        ("symbol", vec![Part::Symbol("ok".into())]),
        ("string", vec!["a".into()]),
        ("string-nul", vec!["a\0b".into(), "".into()]),
        ("string-unicode", vec!["\u{e9}e\u{301}\u{10ffff}".into()]),
        ("bytes", vec![Part::Bytes(vec![0xff, 0x00])]),
        ("date", vec![date.into(), Date::new(-1, 12, 31).unwrap().into()]),
        ("time", vec![time.into()]),
        ("local-date-time", vec![LocalDateTime { date, time }.into()]),
        ("instant", vec![ZonedInstant::new(-1, 999_999_999, "Europe/Berlin").unwrap().into()]),
        ("uuid-and-list", vec![Part::Uuid(*b"0123456789abcdef"), vec![Part::Nil, vec![one()].into()].into()]),
        ("labelled", labelled.to_tuple().parts().to_vec()),
    ]
}

#[test]
fn s3_2_c_golden_encodings_stay_byte_stable() {
    let file: BTreeMap<&str, &str> = include_str!("golden/tuples.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" =").unwrap())
        .collect();
    let golden = golden();
    assert_eq!((golden.len(), file.len()), (20, 20));
    for (name, parts) in golden {
        let bytes = Tuple::encode(&parts).unwrap();
        let hex: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
        assert_eq!(file.get(name), Some(&hex.as_str()), "{name}");
        assert_eq!(Tuple::decode(&bytes).unwrap().parts(), parts, "{name}");
    }
}

#[test]
fn text_is_given_as_it_is_and_nothing_else_as_text() {
    let labelled = Labelled::new([("t", "leek".into()), ("zero", "a\0b".into()), ("n", one())]).unwrap();
    assert_eq!(labelled.text("t").unwrap(), "leek");
    assert_eq!(labelled.text("zero").unwrap(), "a\0b");
    assert!(labelled.text("n").is_none() && labelled.text("none").is_none());
}
