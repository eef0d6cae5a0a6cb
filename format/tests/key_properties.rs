//! What holds for all keys, against oracles that know nothing of the encoding.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in test functions; here they are in what those call"
)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use larder_format::{Child, Key, KeyError, Prefix};
use proptest::prelude::*;

/// Segments over a small alphabet, so that keys meet, with the characters that sort before the slash.
fn segment() -> impl Strategy<Value = String> {
    let letters =
        prop::sample::select(vec!["a", "b", "-", ".", " ", "!", "~", "0", "é", "e\u{301}", "\u{10ffff}"]);
    prop::collection::vec(letters, 1..4)
        .prop_map(|letters| letters.concat())
        .prop_filter("not relative", |segment| segment != "." && segment != "..")
}

fn segments() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(segment(), 1..5)
}

/// A tree with few names, so that most keys have descendants.
fn tree() -> impl Strategy<Value = BTreeSet<String>> {
    let segment = prop::sample::select(vec!["a", "b", "a-b", "a.txt", "a b", "ab", "é"]);
    let path = prop::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"));
    prop::collection::btree_set(path, 0..60)
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn upper(end: Option<Vec<u8>>) -> Bound<Vec<u8>> {
    end.map_or(Bound::Unbounded, Bound::Excluded)
}

fn scan(map: &BTreeMap<Vec<u8>, String>, range: (Vec<u8>, Option<Vec<u8>>)) -> Vec<String> {
    map.range((Bound::Included(range.0), upper(range.1))).map(|(_, text)| text.clone()).collect()
}

/// Lists the direct children by seeking: the name, whether it is a key, and (not shown) one or two reads for each.
fn list_by_skipping(map: &BTreeMap<Vec<u8>, String>, prefix: &Prefix) -> (Vec<String>, usize) {
    let (mut start, end) = prefix.descendants_range();
    let (mut names, mut reads) = (Vec::new(), 0);
    while let Some((encoded, _)) = map.range((Bound::Included(start.clone()), upper(end.clone()))).next() {
        reads += 1;
        let name = prefix.child_of(encoded).unwrap().name();
        names.push(name.to_owned());
        start = prefix.after_child(name);
    }
    (names, reads)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parse_undoes_print_and_decode_undoes_encode(segments in segments()) {
        let text = segments.join("/");
        let parsed = key(&text);
        prop_assert_eq!(parsed.as_str(), &text);
        prop_assert_eq!(parsed.to_string(), text.clone());
        prop_assert_eq!(&Key::decode(parsed.encoded()).unwrap(), &parsed);
        let expected: Vec<u8> = segments.iter().flat_map(|s| s.bytes().chain([0])).collect();
        prop_assert_eq!(parsed.encoded(), &expected);
        prop_assert_eq!(&parsed.encoded_bytes()[..], &expected[..]);
        prop_assert_eq!(parsed.segments().collect::<Vec<_>>(), segments.iter().collect::<Vec<_>>());
        prop_assert_eq!(parsed.depth(), segments.len());
        prop_assert_eq!(parsed.parent().join(parsed.name()).unwrap(), parsed);
    }

    #[test]
    fn order_is_that_of_the_segments(a in segments(), b in segments()) {
        let (ka, kb) = (key(&a.join("/")), key(&b.join("/")));
        prop_assert_eq!(ka.cmp(&kb), a.cmp(&b));
        prop_assert_eq!(ka.encoded().cmp(kb.encoded()), a.cmp(&b));
        prop_assert_eq!(ka == kb, a == b);
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(
        bytes in prop::collection::vec(prop::sample::select(vec![0_u8, 1, b'/', b'.', b'a', 0xc3, 0xa9, 0xff]), 0..12)
    ) {
        if let Ok(key) = Key::decode(&bytes) {
            prop_assert_eq!(key.encoded(), &bytes);
            prop_assert_eq!(Key::parse(key.as_str()).unwrap(), key);
        }
    }

    #[test]
    fn any_text_is_kept_exactly_or_refused(text in any::<String>()) {
        match Key::parse(&text) {
            Ok(key) => prop_assert_eq!(key.as_str(), &text),
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }

    #[test]
    fn scans_and_listings_agree_with_naive_ones(tree in tree(), at in tree()) {
        let map: BTreeMap<Vec<u8>, String> =
            tree.iter().map(|text| (key(text).encoded().to_vec(), text.clone())).collect();
        let places = at.iter().chain(&tree).map(|text| Prefix::parse(text).unwrap()).chain([Prefix::root()]);
        for prefix in places {
            let split = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
            let base = if prefix.is_root() { vec![] } else { split(prefix.as_str()) };
            let mut all: Vec<Vec<String>> =
                tree.iter().map(|text| split(text)).filter(|key| key.starts_with(&base)).collect();
            all.sort();
            let below: Vec<_> = all.iter().filter(|key| key.len() > base.len()).cloned().collect();
            let print = |keys: &[Vec<String>]| keys.iter().map(|key| key.join("/")).collect::<Vec<_>>();

            prop_assert_eq!(scan(&map, prefix.subtree_range()), print(&all));
            prop_assert_eq!(scan(&map, prefix.descendants_range()), print(&below));
            for text in &tree {
                prop_assert_eq!(prefix.covers(&key(text)), all.contains(&split(text)));
                prop_assert_eq!(prefix.is_ancestor_of(&key(text)), below.contains(&split(text)));
                let child = prefix.child_of(key(text).encoded()).map(|child| child.name().to_owned());
                prop_assert_eq!(child, split(text).get(base.len()).filter(|_| below.contains(&split(text))).cloned());
            }

            let mut children: Vec<String> = below.iter().map(|key| key[base.len()].clone()).collect();
            children.dedup();
            let (listed, reads) = list_by_skipping(&map, &prefix);
            prop_assert_eq!(reads, children.len());
            prop_assert_eq!(listed, children);
        }
    }

    #[test]
    fn rebase_moves_and_moves_back(below in segments(), from in segments(), to in segments()) {
        let (from, to) = (Prefix::parse(&from.join("/")).unwrap(), Prefix::parse(&to.join("/")).unwrap());
        let start = key(&format!("{from}/{}", below.join("/")));
        let moved = start.rebase(&from, &to).unwrap();
        prop_assert_eq!(moved.as_str(), format!("{to}/{}", below.join("/")));
        prop_assert_eq!(moved.rebase(&to, &from).unwrap(), start);
    }
}

#[test]
fn a_sibling_that_sorts_before_the_slash_is_no_descendant() {
    let mut keys: Vec<Key> = ["a.txt", "a-b", "a/b", "a", "ab", "a/b/c", "a b"].map(key).to_vec();
    keys.sort();
    let texts: Vec<&str> = keys.iter().map(Key::as_str).collect();
    assert_eq!(texts, ["a", "a/b", "a/b/c", "a b", "a-b", "a.txt", "ab"]);
    let below_a: Vec<&str> =
        keys.iter().filter(|key| Prefix::parse("a").unwrap().is_ancestor_of(key)).map(Key::as_str).collect();
    assert_eq!(below_a, ["a/b", "a/b/c"]);
}

#[test]
fn listing_tells_a_key_from_what_only_has_keys_below() {
    let root = Prefix::root();
    assert_eq!(root.child_of(key("a").encoded()), Some(Child::Itself("a")));
    assert_eq!(root.child_of(key("a/b").encoded()), Some(Child::Deeper("a")));
    assert_eq!(key("a").parent(), root);
    let a = Prefix::from(key("a"));
    assert_eq!(a.child_of(key("a/b").encoded()), Some(Child::Itself("b")));
    assert_eq!(a.child_of(key("a").encoded()), None);
    assert_eq!(a.child_of(key("b/c").encoded()), None);
    assert_eq!(a.child_of(b"a\0b"), None, "no terminator");
    assert_eq!(a.child_of(b"a\0\0"), None, "empty name");
    assert_eq!(a.child_of(b"a\0\xff\0"), None, "not UTF-8");
    assert_eq!(root.child_of(b""), None);
}

#[test]
fn extension_follows_the_last_dot_of_the_name() {
    let cases = [
        ("a/b.txt", Some("txt")),
        ("b.tar.gz", Some("gz")),
        ("a.d/b", None),
        (".bashrc", None),
        (".bashrc.bak", Some("bak")),
        ("a.", None),
        ("...", None),
        ("A.CSV", Some("CSV")),
    ];
    for (text, extension) in cases {
        assert_eq!(key(text).extension(), extension, "{text}");
    }
}

#[test]
fn rebase_refuses_what_is_elsewhere_or_ends_at_the_root() {
    let prefix = |text: &str| Prefix::parse(text).unwrap();
    assert_eq!(key("a/b").rebase(&prefix("a"), &Prefix::root()).unwrap(), key("b"));
    assert_eq!(key("b").rebase(&Prefix::root(), &prefix("x/y")).unwrap(), key("x/y/b"));
    assert_eq!(key("a").rebase(&prefix("a"), &prefix("x")).unwrap(), key("x"));
    assert_eq!(key("a").rebase(&prefix("a"), &Prefix::root()), Err(KeyError::Empty));
    for elsewhere in ["ab/c", "a-b", "b"] {
        let error = key(elsewhere).rebase(&prefix("a"), &prefix("x"));
        assert_eq!(error, Err(KeyError::NotBelow { key: elsewhere.into(), prefix: "a".into() }));
    }
    let deep = key(&["d"; 64].join("/"));
    assert_eq!(deep.rebase(&Prefix::root(), &prefix("x")), Err(KeyError::TooDeep { depth: 65, max: 64 }));
    let long = key(&["s".repeat(255), "s".repeat(255), "s".repeat(255), "s".repeat(254)].join("/"));
    let error = long.rebase(&Prefix::root(), &prefix("xx"));
    assert_eq!(error, Err(KeyError::TooLong { len: 1026, max: 1024 }));
}

#[test]
fn conversions_check_and_serde_keeps_the_text() {
    assert_eq!("a/b".parse::<Key>().unwrap(), Key::try_from("a/b").unwrap());
    assert_eq!(Key::try_from(String::from("a/b")), Key::try_from(&String::from("a/b")));
    assert_eq!(Key::from(&key("a/b")), key("a/b"));
    assert_eq!(Prefix::from(&key("a/b")).as_key(), Some(&key("a/b")));
    assert_eq!(Prefix::try_from("").unwrap(), Prefix::root());
    assert_eq!("a/b".parse::<Prefix>().unwrap().as_key(), Some(&key("a/b")));
    assert_eq!(Prefix::try_from(String::from("a")).unwrap().join("b").unwrap(), key("a/b"));
    assert_eq!(Prefix::root().to_string(), "");
    assert_eq!(format!("{:?} {:?}", key("a/b"), Prefix::root()), "Key(\"a/b\") Prefix(\"\")");
    assert_eq!(HashSet::from([key("a"), key("a"), key("b")]).len(), 2);

    let map = BTreeMap::from([("k".to_owned(), key("a/é.txt"))]);
    let text = toml::to_string(&map).unwrap();
    assert_eq!(text, "k = \"a/é.txt\"\n");
    assert_eq!(toml::from_str::<BTreeMap<String, Key>>(&text).unwrap(), map);
    let error = toml::from_str::<BTreeMap<String, Key>>("k = \"a/../b\"").unwrap_err();
    assert!(error.to_string().contains("relative"), "{error}");
    assert!(toml::from_str::<BTreeMap<String, Key>>("k = 1").is_err());
}

#[test]
fn shared_bytes_outlive_the_key() {
    let bytes = key("a/b").encoded_bytes();
    assert_eq!(&bytes[..], b"a\0b\0");
}
