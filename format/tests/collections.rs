//! Collections: definitions, entries of indexes, shares of aggregates, and rows.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use bytes::Bytes;
use larder_format::{
    Aggregate, AggregateDefinition, CollectionDefinition, CollectionRights, Differing, INDEX_FIELDS_MAX,
    INDEXES_MAX, IndexDefinition, IndexEntry, Labelled, Part, Right, RowContent, Tuple,
};

fn fields<const N: usize>(pairs: [(&str, Part); N]) -> Labelled {
    Labelled::new(pairs).unwrap()
}

fn list(parts: Vec<Part>) -> Part {
    Part::List(parts)
}

fn index(index: IndexDefinition) -> IndexDefinition {
    let before = IndexDefinition::new("before").by("before");
    CollectionDefinition::new().index(before).index(index).numbered().unwrap().indexes.remove(1)
}

fn aggregate(aggregate: AggregateDefinition) -> AggregateDefinition {
    CollectionDefinition::new().aggregate(aggregate).numbered().unwrap().aggregates.remove(0)
}

const COLLECTION: u64 = 7;

/// The entries of a row, without the number of the collection that they begin with.
fn entries_of(index: &IndexDefinition, key: &[u8], fields: &Labelled) -> Vec<IndexEntry> {
    let without = |IndexEntry { key, values_length }| {
        let key: &[u8] = &key;
        let key = key.strip_prefix(&COLLECTION.to_be_bytes()).unwrap().to_vec();
        IndexEntry { key, values_length: values_length - 8 }
    };
    index.entries(COLLECTION, key, fields).into_iter().map(without).collect()
}

/// What a row adds, to what lies under the key without the number of the collection.
fn share_of(aggregate: &AggregateDefinition, fields: &Labelled) -> Option<(Vec<u8>, i128)> {
    let (at, sum) = aggregate.share(COLLECTION, fields)?;
    Some((at.strip_prefix(&COLLECTION.to_be_bytes()).unwrap().to_vec(), sum))
}

#[test]
fn an_entry_is_number_values_end_and_row_key_and_begins_with_the_prefix_of_its_values() {
    let row = fields([("n", 300.into()), ("s", "x".into())]);
    for index in [
        index(IndexDefinition::new("up").by("n").by("s")),
        index(IndexDefinition::new("down").by_descending("n").by("s")),
        index(IndexDefinition::new("each").by("n").by_each("s")),
    ] {
        let entries = entries_of(&index, b"\0key", &row);
        let [IndexEntry { key, values_length }] = entries.as_slice() else { panic!("one entry") };
        assert_eq!((index.number(), &key[..2]), (2, &[0, 2][..]));
        assert_eq!((&key[*values_length..], key[values_length - 1]), (&b"\0key"[..], 0));
        for values in [&[][..], &[300.into()], &[300.into(), "x".into()]] {
            assert!(key.starts_with(&index.prefix(values).unwrap()), "{}: {values:?}", index.name);
        }
        assert_eq!(index.prefix(&[300.into(), "x".into()]).unwrap(), key[..values_length - 1]);
        assert!(!key.starts_with(&index.prefix(&[301.into()]).unwrap()));
        assert_eq!(index.row_of(key), Some(&b"\0key"[..]));
        assert_eq!(index.row_of(&key[1..]), None, "of another index");
        for length in 0..*values_length {
            assert_eq!(index.row_of(&key[..length]), None, "{}: cut to {length}", index.name);
        }
    }
}

#[test]
fn entries_are_in_the_order_of_their_index() {
    let (up, down) = (IndexDefinition::new("i").by("n"), IndexDefinition::new("i").by_descending("n"));
    let key =
        |index: &IndexDefinition, n: i32| entries_of(index, b"k", &fields([("n", n.into())]))[0].key.clone();
    let (up, down) = (index(up), index(down));
    for (low, high) in [(-300, -1), (-1, 0), (0, 1), (255, 256)] {
        assert!(key(&up, low) < key(&up, high), "{low}, {high}");
        assert!(key(&down, low) > key(&down, high), "{low}, {high}");
    }
}

#[test]
fn only_an_index_by_each_takes_a_list_apart_and_each_part_counts_once() {
    let row = |value: Part| fields([("n", 1.into()), ("tags", value)]);
    let given = row(list(vec!["b".into(), "a".into(), "b".into()]));
    let each = index(IndexDefinition::new("i").by_each("tags").by("n"));
    let entries = entries_of(&each, b"k", &given);
    let expected = ["a", "b"].map(|tag| [each.prefix(&[tag.into(), 1.into()]).unwrap(), b"\0k".to_vec()]);
    assert_eq!(
        entries.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(),
        expected.map(|it| it.concat())
    );
    assert!(entries_of(&each, b"k", &row(list(Vec::new()))).is_empty());
    assert_eq!(entries_of(&each, b"k", &row("a".into())), entries[..1]);
    for whole in [IndexDefinition::new("i").by("tags"), IndexDefinition::new("i").by_descending("tags")] {
        assert_eq!(entries_of(&index(whole), b"k", &given).len(), 1);
    }
}

#[test]
fn rows_that_lack_a_field_or_that_the_filter_leaves_out_have_no_entry_and_no_share() {
    let index = index(IndexDefinition::new("i").by("n").only("kind", ["a", "b"]));
    let aggregate = aggregate(AggregateDefinition::new("g").group_by("n").only("kind", ["a", "b"]));
    for (row, is_in) in [
        (fields([("n", 1.into()), ("kind", "a".into())]), true),
        (fields([("n", 1.into()), ("kind", "b".into())]), true),
        (fields([("n", Part::Nil), ("kind", "b".into())]), true),
        (fields([("n", 1.into()), ("kind", "c".into())]), false),
        (fields([("n", 1.into())]), false),
        (fields([("kind", "a".into())]), false),
    ] {
        assert_eq!(entries_of(&index, b"k", &row).len(), usize::from(is_in), "{row:?}");
        assert_eq!(share_of(&aggregate, &row).is_some(), is_in, "{row:?}");
    }
}

#[test]
fn an_index_and_an_aggregate_are_concerned_by_the_fields_that_they_name_and_no_other() {
    let bare = IndexDefinition::new("bare").by("n").by("m");
    let filtered = IndexDefinition::new("filtered").by("n").by("m").only("kind", ["a"]);
    let plain = AggregateDefinition::new("plain").group_by("n").sum("m");
    let chosen = AggregateDefinition::new("chosen").group_by("n").sum("m").only("kind", ["a"]);
    let definition = CollectionDefinition::new()
        .index(bare)
        .index(filtered)
        .aggregate(plain)
        .aggregate(chosen)
        .aggregate(AggregateDefinition::new("all"))
        .numbered()
        .unwrap();
    let row = |field: &str, value: u32| {
        let of = |name: &str| if name == field { value } else { 0 };
        Labelled::new(["n", "m", "kind", "other"].map(|name| (name, Part::from(of(name))))).unwrap()
    };
    let concerned = |differing: Differing| {
        let indexes = definition.indexes.iter().map(|index| differing.concerns_index(index));
        let aggregates =
            definition.aggregates.iter().map(|aggregate| differing.concerns_aggregate(aggregate));
        indexes.chain(aggregates).collect::<Vec<bool>>()
    };
    for (field, expected) in [
        ("n", [true, true, true, true, false]),
        ("m", [true, true, true, true, false]),
        ("kind", [false, true, false, true, false]),
        ("other", [false; 5]),
    ] {
        assert_eq!(concerned(definition.differing(&row("", 0), &row(field, 1))), expected, "{field}");
        assert_eq!(concerned(definition.differing(&row(field, 1), &row("", 0))), expected, "{field}");
    }
    // A field that only one of two rows has differs.
    let fewer = Labelled::new([("kind", Part::from(0))]).unwrap();
    let expected = [true, true, true, true, false];
    assert_eq!(concerned(definition.differing(&fewer, &row("", 0))), expected);
    assert_eq!(concerned(definition.differing(&row("", 0), &fewer)), expected);
    assert_eq!(concerned(Differing::ALL), [true; 5]);
}

#[test]
fn of_more_fields_than_bits_each_is_still_noticed() {
    let definition = (0..32_u32).fold(CollectionDefinition::new(), |definition, n| {
        let index = IndexDefinition::new(format!("i{n}"));
        definition.index((0..8).fold(index, |index, field| index.by(format!("f{}", n * 8 + field))))
    });
    let definition = definition.numbered().unwrap();
    for n in 0..256_u32 {
        let row = |value: u32| Labelled::new([(format!("f{n}"), Part::from(value))]).unwrap();
        let differing = definition.differing(&row(0), &row(1));
        assert!(differing.concerns_index(&definition.indexes[n as usize / 8]), "{n}");
    }
}

#[test]
fn a_share_goes_to_its_group_and_is_the_summed_field_where_that_is_an_integer() {
    let aggregate = aggregate(AggregateDefinition::new("g").group_by("kind").sum("n"));
    let kind = || ("kind", Part::from("a"));
    let key = [&[0x80, 1][..], &Tuple::encode(&["a".into()]).unwrap()].concat();
    assert_eq!(aggregate.key(&["a".into()]).unwrap(), key);
    for (row, sum) in [
        (fields([kind(), ("n", (-7).into())]), -7),
        (fields([kind(), ("n", "7".into())]), 0),
        (fields([kind()]), 0),
    ] {
        assert_eq!(share_of(&aggregate, &row), Some((key.clone(), sum)), "{row:?}");
    }
    assert_eq!(share_of(&aggregate, &fields([("n", 1.into())])), None);
}

#[test]
fn an_aggregate_counts_in_and_out_and_stops_at_its_ends() {
    let three = Aggregate { count: 3, sum: -5 };
    assert_eq!(three.with(1, 7), Aggregate { count: 4, sum: 2 });
    assert_eq!(three.with(-1, -7), Aggregate { count: 2, sum: -12 });
    assert_eq!(Aggregate::default().with(-1, 0).count, 0);
    assert_eq!(Aggregate { count: u64::MAX, sum: i128::MAX }.with(1, 1).sum, i128::MAX);
    let bytes = three.encode();
    assert_eq!(bytes[..8], 3_u64.to_le_bytes());
    assert_eq!(bytes[8..], (-5_i128).to_le_bytes());
    assert_eq!(Aggregate::decode(&bytes), Some(three));
    assert_eq!(Aggregate::decode(&bytes[..23]), None);
    assert_eq!(Aggregate::decode(&[&bytes[..], &[0]].concat()), None);
}

fn whole() -> CollectionDefinition {
    let rights = CollectionRights {
        read: vec![Right::READ, Right::WRITE],
        insert: vec![Right::WRITE],
        change: vec![Right::DELETE],
        remove: vec![Right::READ],
    };
    CollectionDefinition::new()
        .index(IndexDefinition::new("one").unique().by("a").by_descending("b").by_each("c"))
        .index(IndexDefinition::new("two").by("a").only("kind", [1, 2]))
        .aggregate(AggregateDefinition::new("three").group_by("a").sum("b"))
        .aggregate(AggregateDefinition::new("four").only("kind", ["x"]))
        .rights(rights)
}

#[test]
fn a_definition_comes_back_with_its_numbers_and_what_it_has_is_found_by_name() {
    let definition = whole().numbered().unwrap();
    let (id, read) = CollectionDefinition::decode(&definition.encode(77).unwrap()).unwrap();
    assert_eq!((id, &read), (77, &definition));
    assert_eq!(read.indexes.iter().map(IndexDefinition::number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(read.aggregate_named("four").unwrap().key(&[]).unwrap(), [0x80, 2]);
    assert_eq!(CollectionDefinition::total_key(), [0x80, 0]);
    assert!(read.index_named("one").unwrap().is_unique && !read.index_named("two").unwrap().is_unique);
    assert!(read.index_named("three").is_none() && read.aggregate_named("two").is_none());
    assert!(whole().index(IndexDefinition::new("long").only("kind", ["x".repeat(4_096)])).encode(1).is_err());
}

#[test]
fn names_have_1_to_64_bytes_without_control_characters() {
    let long = "n".repeat(65);
    let makers: [fn(&str) -> CollectionDefinition; 5] = [
        |name| CollectionDefinition::new().index(IndexDefinition::new(name).by("a")),
        |name| CollectionDefinition::new().index(IndexDefinition::new("a").by(name)),
        |name| CollectionDefinition::new().aggregate(AggregateDefinition::new(name)),
        |name| CollectionDefinition::new().aggregate(AggregateDefinition::new("a").group_by(name)),
        |name| CollectionDefinition::new().aggregate(AggregateDefinition::new("a").sum(name)),
    ];
    for make in makers {
        for name in ["n", &long[..64], "two words"] {
            assert!(make(name).numbered().is_ok(), "{name:?}");
        }
        for name in ["", " ", &long, "a\nb"] {
            assert!(make(name).numbered().is_err(), "{name:?}");
        }
    }
}

#[test]
fn a_definition_has_as_much_of_everything_as_it_may_and_not_one_more() {
    let indexes = |count: usize| {
        (0..count).fold(CollectionDefinition::new(), |definition, at| {
            definition.index(IndexDefinition::new(format!("{at}")).by("a"))
        })
    };
    let aggregates = |count: usize| {
        (0..count).fold(CollectionDefinition::new(), |definition, at| {
            definition.aggregate(AggregateDefinition::new(format!("{at}")))
        })
    };
    let by = |count: usize| {
        let index = (0..count).fold(IndexDefinition::new("i"), |index, at| index.by(format!("{at}")));
        CollectionDefinition::new().index(index)
    };
    let each = |count: usize| {
        let index =
            (0..count).fold(IndexDefinition::new("i").by("a"), |index, at| index.by_each(format!("{at}")));
        CollectionDefinition::new().index(index)
    };
    let groups = |count: usize| {
        let aggregate = (0..count)
            .fold(AggregateDefinition::new("g"), |aggregate, at| aggregate.group_by(format!("{at}")));
        CollectionDefinition::new().aggregate(aggregate)
    };
    assert!(indexes(INDEXES_MAX).numbered().is_ok() && indexes(INDEXES_MAX + 1).numbered().is_err());
    assert!(aggregates(INDEXES_MAX).numbered().is_ok() && aggregates(INDEXES_MAX + 1).numbered().is_err());
    assert!(by(0).numbered().is_err() && by(1).numbered().is_ok());
    assert!(by(INDEX_FIELDS_MAX).numbered().is_ok() && by(INDEX_FIELDS_MAX + 1).numbered().is_err());
    assert!(each(1).numbered().is_ok() && each(2).numbered().is_err());
    assert!(groups(INDEX_FIELDS_MAX).numbered().is_ok() && groups(INDEX_FIELDS_MAX + 1).numbered().is_err());
}

#[test]
fn two_of_one_name_and_rights_that_nobody_has_are_refused() {
    assert!(whole().index(IndexDefinition::new("one").by("z")).numbered().is_err());
    assert!(whole().aggregate(AggregateDefinition::new("three")).numbered().is_err());
    assert!(whole().aggregate(AggregateDefinition::new("one")).numbered().is_ok(), "of another kind");
    let lists: [fn(&mut CollectionRights) -> &mut Vec<Right>; 4] =
        [|it| &mut it.read, |it| &mut it.insert, |it| &mut it.change, |it| &mut it.remove];
    for of in lists {
        let mut definition = whole();
        of(&mut definition.rights).clear();
        assert!(definition.numbered().is_err());
    }
}

#[test]
fn bytes_that_are_no_definition_are_refused() {
    let rights = || list(vec![list(vec![1.into()]); 4]);
    let none = || list(Vec::new());
    let encoded = |parts: &[Part]| [&[0; 8][..], &Tuple::encode(parts).unwrap()].concat();
    let of_index = |parts: Vec<Part>| [1.into(), rights(), list(vec![list(parts)]), none()];
    let of_aggregate = |parts: Vec<Part>| [1.into(), rights(), none(), list(vec![list(parts)])];
    let by = |order: Part| list(vec![list(vec!["a".into(), order])]);
    let filter = || list(vec!["kind".into(), 1.into()]);
    for sound in [
        [1.into(), rights(), none(), none()],
        of_index(vec!["i".into(), true.into(), by(0.into()), Part::Nil]),
        of_index(vec!["i".into(), true.into(), by(1.into()), filter()]),
        of_index(vec!["i".into(), true.into(), by(2.into()), Part::Nil]),
        of_aggregate(vec!["g".into(), list(vec!["a".into()]), "b".into(), filter()]),
        of_aggregate(vec!["g".into(), none(), Part::Nil, Part::Nil]),
    ] {
        assert!(CollectionDefinition::decode(&encoded(&sound)).is_ok(), "{sound:?}");
    }
    for wrong in [
        [2.into(), rights(), none(), none()],
        [1.into(), list(vec![list(vec![1.into()]); 3]), none(), none()],
        [1.into(), list(vec![list(vec![0.into()]); 4]), none(), none()],
        [1.into(), list(vec![list(vec![256.into()]); 4]), none(), none()],
        [1.into(), list(vec![list(vec!["read".into()]); 4]), none(), none()],
        [1.into(), list(vec![1.into(); 4]), none(), none()],
        [1.into(), rights(), list(vec!["i".into()]), none()],
        [1.into(), rights(), none(), list(vec!["g".into()])],
        of_index(vec!["i".into(), 1.into(), by(0.into()), Part::Nil]),
        of_index(vec!["i".into(), true.into(), by(3.into()), Part::Nil]),
        of_index(vec!["i".into(), true.into(), list(vec!["a".into()]), Part::Nil]),
        of_index(vec!["i".into(), true.into(), list(vec![list(vec!["a".into()])]), Part::Nil]),
        of_index(vec!["i".into(), true.into(), by(0.into()), none()]),
        of_index(vec!["i".into(), true.into(), by(0.into()), list(vec![1.into()])]),
        of_index(vec!["i".into(), true.into(), by(0.into()), "kind".into()]),
        of_index(vec!["i".into(), true.into(), by(0.into())]),
        of_aggregate(vec!["g".into(), list(vec![1.into()]), Part::Nil, Part::Nil]),
        of_aggregate(vec!["g".into(), none(), 1.into(), Part::Nil]),
        of_aggregate(vec!["g".into(), none(), Part::Nil]),
    ] {
        assert!(CollectionDefinition::decode(&encoded(&wrong)).is_err(), "{wrong:?}");
    }
    assert!(CollectionDefinition::decode(&[0; 7]).is_err());
    assert!(CollectionDefinition::decode(&encoded(&[1.into(), rights(), none()])).is_err());
}

#[test]
fn a_row_comes_back_and_what_is_cut_or_of_another_version_is_refused() {
    let row = RowContent { fields: fields([("n", 300.into())]), value: Bytes::from_static(b"soup") };
    let bytes = row.encode(9);
    assert_eq!(RowContent::decode(&bytes.clone().into()).unwrap(), (9, row));
    for length in 0..bytes.len() - 4 {
        assert!(RowContent::decode(&Bytes::copy_from_slice(&bytes[..length])).is_err(), "{length} bytes");
    }
    for at in 0..2 {
        let mut other = bytes.clone();
        other[at] += 1;
        assert!(RowContent::decode(&other.into()).is_err(), "byte {at}");
    }
}

/// S4-1.1: where the entries of a text begin, in an index from the greatest on, those of longer texts that begin with it are past.
#[test]
fn s4_1_1_entries_of_a_value_begin_behind_those_of_longer_ones() {
    for (index, is_descending) in [
        (index(IndexDefinition::new("i").by("t")), false),
        (index(IndexDefinition::new("i").by_descending("t")), true),
    ] {
        let start = index.start(&["a".into()]).unwrap();
        let entry = |text: &str| entries_of(&index, b"k", &fields([("t", text.into())])).remove(0).key;
        assert!(start <= entry("a"));
        assert_eq!(entry("ab") < start, is_descending);
        assert_eq!(entry("b") < start, is_descending);
    }
}
