//! Random programs against a plain model: a map of keys, whatever the store does below.

use std::collections::BTreeMap;

use larder::{
    AbsentReason, Annotation, DocumentKind, Draft, Durability, Edit, ErrorKind, Larder, Options, Outcome,
    ReadTxn, Session, TagPolicy,
};
use proptest::prelude::*;

const PRINCIPALS: [&str; 3] = ["ana", "bob", "eve"];
const KEYS: [&str; 10] =
    ["a", "a/b", "a/b/c", "a-b", "a.txt", "a/b.json", "b/x", "b/x/y", "b/private/z", "c"];
const TAGS: [&str; 3] = ["red", "green", "blue"];

/// Bob may not touch what is private, eve may only read and list below `b`.
const RULES: &str = r#"
default = "allow"
[[rule]]
deny = ["read", "write", "delete", "list"]
who = ["bob"]
on = "b/private/**"
[[rule]]
deny = ["write", "delete"]
who = ["eve"]
on = "**"
[[rule]]
deny = ["read", "list"]
who = ["eve"]
on = "a/**"
"#;

fn may(principal: &str, right: &str, key: &str) -> bool {
    let below = |place: &str| key == place || key.starts_with(&format!("{place}/"));
    match principal {
        "bob" => !below("b/private"),
        "eve" if right == "write" || right == "delete" => false,
        "eve" => !below("a"),
        _ => true,
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    payload: Option<Vec<u8>>,
    generation: u64,
    tags: Vec<String>,
    title: String,
    is_directory: bool,
}

type Model = BTreeMap<Vec<String>, Item>;

fn path(key: &str) -> Vec<String> {
    key.split('/').map(str::to_owned).collect()
}

#[derive(Debug, Clone)]
enum Op {
    Put { key: usize, size: usize, tag: Option<usize>, absent: bool },
    Condition { key: usize, size: usize, generation: Option<u64> },
    Annotate { key: usize, title: u8 },
    Tag { key: usize, tag: usize, replace: bool },
    Delete { key: usize },
    DeleteTree { key: usize },
    Rename { from: usize, to: usize },
    RenameTree { from: usize, to: usize },
    Copy { from: usize, to: usize },
    MakeDirectory { key: usize },
    RemoveDirectory { key: usize },
    Abort { key: usize },
    Hold,
    Check,
    Reopen,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => prop_oneof![Just(0usize), Just(1), Just(1_023), Just(1_024), Just(1_025), Just(5_000)],
        2 => Just(70_000usize),
        1 => Just(1_200_000usize),
    ]
}

fn ops() -> impl Strategy<Value = (usize, Op)> {
    let key = || 0..KEYS.len();
    let op = prop_oneof![
        8 => (key(), sizes(), proptest::option::of(0..TAGS.len()), proptest::bool::weighted(0.1))
            .prop_map(|(key, size, tag, absent)| Op::Put { key, size, tag, absent }),
        2 => (key(), sizes(), proptest::option::of(0u64..4))
            .prop_map(|(key, size, generation)| Op::Condition { key, size, generation }),
        2 => (key(), any::<u8>()).prop_map(|(key, title)| Op::Annotate { key, title }),
        2 => (key(), 0..TAGS.len(), any::<bool>()).prop_map(|(key, tag, replace)| Op::Tag { key, tag, replace }),
        3 => key().prop_map(|key| Op::Delete { key }),
        1 => key().prop_map(|key| Op::DeleteTree { key }),
        2 => (key(), key()).prop_map(|(from, to)| Op::Rename { from, to }),
        1 => (key(), key()).prop_map(|(from, to)| Op::RenameTree { from, to }),
        2 => (key(), key()).prop_map(|(from, to)| Op::Copy { from, to }),
        1 => key().prop_map(|key| Op::MakeDirectory { key }),
        1 => key().prop_map(|key| Op::RemoveDirectory { key }),
        1 => key().prop_map(|key| Op::Abort { key }),
        1 => Just(Op::Hold),
        2 => Just(Op::Check),
        1 => Just(Op::Reopen),
    ];
    (0..PRINCIPALS.len(), op)
}

fn bytes(size: usize, salt: usize) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ salt as u8).collect()
}

fn subtree(model: &Model, place: &str) -> Vec<Vec<String>> {
    let place = path(place);
    model.keys().filter(|key| key.starts_with(&place)).cloned().collect()
}

/// What the model says of an operation: whether it was carried out.
fn apply_model(model: &mut Model, principal: &str, op: &Op, salt: usize) -> bool {
    let allowed = |right: &str, key: &str| may(principal, right, key);
    match op {
        Op::Put { key, size, tag, absent } => {
            let key = KEYS[*key];
            if !allowed("write", key) {
                return false;
            }
            let old = model.get(&path(key));
            let mut tags = old.map(|item| item.tags.clone()).unwrap_or_default();
            tags.extend(tag.map(|tag| TAGS[tag].to_owned()).filter(|tag| !tags.contains(tag)));
            let item = Item {
                payload: (!absent).then(|| bytes(*size, salt % 3)),
                generation: old.map_or(0, |item| item.generation) + 1,
                tags,
                title: String::new(),
                is_directory: false,
            };
            model.insert(path(key), item);
            true
        }
        Op::Condition { key, size, generation } => {
            let key = KEYS[*key];
            let there = model.get(&path(key)).map(|item| item.generation);
            if !allowed("write", key) || there != *generation {
                return false;
            }
            let put = Op::Put {
                key: KEYS.iter().position(|other| *other == key).unwrap(),
                size: *size,
                tag: None,
                absent: false,
            };
            apply_model(model, principal, &put, salt)
        }
        Op::Annotate { key, title } => {
            change(model, principal, KEYS[*key], |item| item.title = title.to_string())
        }
        Op::Tag { key, tag, replace } => change(model, principal, KEYS[*key], |item| {
            if *replace {
                item.tags.clear();
            }
            if !item.tags.iter().any(|other| other == TAGS[*tag]) {
                item.tags.push(TAGS[*tag].to_owned());
            }
        }),
        Op::Delete { key } => allowed("delete", KEYS[*key]) && model.remove(&path(KEYS[*key])).is_some(),
        Op::DeleteTree { key } => {
            let keys = subtree(model, KEYS[*key]);
            let all = keys.iter().all(|key| allowed("delete", &key.join("/")));
            if !all || keys.is_empty() {
                return false;
            }
            model.retain(|key, _| !keys.contains(key));
            true
        }
        Op::Rename { from, to } => {
            let (from, to) = (KEYS[*from], KEYS[*to]);
            let may_both = allowed("delete", from) && allowed("write", to) && allowed("read", from);
            if !may_both || !model.contains_key(&path(from)) {
                return false;
            }
            if from == to {
                return true;
            }
            if model.contains_key(&path(to)) {
                return false;
            }
            let mut item = model.remove(&path(from)).unwrap();
            item.generation += 1;
            model.insert(path(to), item);
            true
        }
        Op::RenameTree { from, to } => {
            let (from, to) = (path(KEYS[*from]), path(KEYS[*to]));
            if to.starts_with(&from) {
                return false;
            }
            let keys = subtree(model, &from.join("/"));
            let moves: Vec<_> = keys
                .iter()
                .map(|key| (key.clone(), [to.clone(), key[from.len()..].to_vec()].concat()))
                .collect();
            let good = moves.iter().all(|(old, new)| {
                allowed("delete", &old.join("/"))
                    && allowed("read", &old.join("/"))
                    && allowed("write", &new.join("/"))
                    && !model.contains_key(new)
            });
            if !good || moves.is_empty() {
                return false;
            }
            for (old, new) in moves {
                let mut item = model.remove(&old).unwrap();
                item.generation += 1;
                model.insert(new, item);
            }
            true
        }
        Op::Copy { from, to } => {
            let (from, to) = (KEYS[*from], KEYS[*to]);
            if !allowed("write", to) || !allowed("read", from) {
                return false;
            }
            let Some(item) = model.get(&path(from)).cloned() else { return false };
            let generation = model.get(&path(to)).map_or(0, |item| item.generation) + 1;
            model.insert(path(to), Item { generation, ..item });
            true
        }
        Op::MakeDirectory { key } => {
            let key = KEYS[*key];
            if !allowed("write", key) || model.get(&path(key)).is_some_and(|item| !item.is_directory) {
                return false;
            }
            let item = Item {
                payload: None,
                generation: 1,
                tags: Vec::new(),
                title: String::new(),
                is_directory: true,
            };
            model.entry(path(key)).or_insert(item);
            true
        }
        Op::RemoveDirectory { key } => {
            let key = KEYS[*key];
            let is_empty = subtree(model, key).len() == 1;
            let is_directory = model.get(&path(key)).is_some_and(|item| item.is_directory);
            if !allowed("delete", key) || !is_directory || !is_empty {
                return false;
            }
            model.remove(&path(key));
            true
        }
        _ => true,
    }
}

fn change(model: &mut Model, principal: &str, key: &str, act: impl FnOnce(&mut Item)) -> bool {
    if !may(principal, "write", key) {
        return false;
    }
    let Some(item) = model.get_mut(&path(key)) else { return false };
    item.generation += 1;
    act(item);
    true
}

/// What the store says of it.
fn apply_store(session: &Session, op: &Op, salt: usize) -> bool {
    let done = |result: larder::Result<larder::Receipt<Outcome>>| match result {
        Ok(receipt) => receipt.value.is_done(),
        Err(error) => {
            let expected = ["AccessDenied", "NotFound", "AlreadyExists", "NotEmpty", "InvalidArgument"];
            assert!(expected.contains(&error.kind().name()), "{op:?}: {error}");
            false
        }
    };
    let key = |key: &usize| KEYS[*key];
    match op {
        Op::Put { key: at, size, tag, absent } => {
            let draft = if *absent {
                Draft::absent(AbsentReason::NeverProduced)
            } else {
                Draft::from(bytes(*size, salt % 3))
            };
            let draft = match tag {
                Some(tag) => draft.tag(TAGS[*tag]),
                None => draft,
            };
            done(session.apply(Edit::put(key(at), draft)))
        }
        Op::Condition { key: at, size, generation } => {
            let edit = Edit::put(key(at), bytes(*size, salt % 3));
            done(session.apply(match generation {
                None => edit.if_absent(),
                Some(generation) => edit.if_generation(*generation),
            }))
        }
        Op::Annotate { key: at, title } => {
            done(session.apply(Edit::annotate(key(at), Annotation::new().title(title.to_string()))))
        }
        Op::Tag { key: at, tag, replace } => {
            let policy = if *replace { TagPolicy::Replace } else { TagPolicy::Union };
            done(session.apply(Edit::annotate(key(at), Annotation::new().tag(TAGS[*tag]).tag_policy(policy))))
        }
        Op::Delete { key: at } => done(session.apply(Edit::delete(key(at)))),
        Op::DeleteTree { key: at } => done(session.apply(Edit::delete_tree(key(at)))),
        Op::Rename { from, to } => done(session.apply(Edit::rename(key(from), key(to)))),
        Op::RenameTree { from, to } => done(session.apply(Edit::rename_tree(key(from), key(to)))),
        Op::Copy { from, to } => done(session.apply(Edit::copy(key(from), key(to)))),
        Op::MakeDirectory { key: at } => done(session.apply(Edit::make_directory(key(at)))),
        Op::RemoveDirectory { key: at } => done(session.apply(Edit::remove_directory(key(at)))),
        Op::Abort { key: at } => {
            let gone = session.write(|txn| {
                let _ = txn.put(key(at), "never");
                let _ = txn.apply(Edit::delete_tree("a"));
                Err::<(), _>(larder::Error::abort("changed my mind"))
            });
            assert!(gone.is_err());
            true
        }
        _ => true,
    }
}

/// Compares all that a principal can see with what the model says.
fn compare(view: &ReadTxn, model: &Model, principal: &str) {
    let visible: Vec<(String, &Item)> = model
        .iter()
        .map(|(key, item)| (key.join("/"), item))
        .filter(|(key, _)| may(principal, "list", key))
        .collect();
    let walked: Vec<String> = view.walk("").unwrap().map(|row| row.unwrap().0.to_string()).collect();
    assert_eq!(walked, visible.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), "{principal}");
    for (key, item) in &visible {
        let asset = view.get(key.as_str()).unwrap();
        assert_eq!(asset.record().generation(), item.generation, "{key}");
        assert_eq!(asset.record().tags().collect::<Vec<_>>(), item.tags, "{key}");
        assert_eq!(asset.record().is_directory(), item.is_directory, "{key}");
        match (&item.payload, asset.bytes()) {
            (Some(payload), Ok(bytes)) => assert!(bytes == payload, "{key}: {} bytes", bytes.len()),
            (None, Err(error)) => {
                assert!(matches!(
                    error.kind(),
                    ErrorKind::PayloadUnavailable { .. } | ErrorKind::IsADirectory
                ));
            }
            (expected, got) => panic!("{key}: {} {got:?}", expected.is_some()),
        }
    }
    for tag in TAGS {
        let expected: Vec<String> = visible
            .iter()
            .filter(|(_, item)| item.tags.iter().any(|other| other == tag))
            .map(|(key, _)| key.clone())
            .collect();
        let found: Vec<String> =
            view.find_by_tag(tag).unwrap().iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(found, expected, "{tag}");
    }
    for place in ["", "a", "a/b", "b", "b/x"] {
        let depth = if place.is_empty() { 0 } else { path(place).len() };
        let mut expected: Vec<String> = visible
            .iter()
            .filter(|(key, _)| place.is_empty() || key.starts_with(&format!("{place}/")))
            .map(|(key, _)| path(key)[depth].clone())
            .collect();
        expected.dedup();
        match view.list(place) {
            Ok(entries) => {
                assert_eq!(
                    entries.iter().map(|entry| entry.name().to_owned()).collect::<Vec<_>>(),
                    expected,
                    "{place}"
                );
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::NotFound), "{error}");
                assert!(expected.is_empty(), "{place}");
            }
        }
    }
}

fn open(path: &std::path::Path) -> Larder {
    Options::new().inline().durability(Durability::Lazy).cache_bytes(8 << 20).open(path).unwrap()
}

fn run(program: Vec<(usize, Op)>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.larder");
    let mut larder = open(&file);
    larder.root().unwrap().set_document(DocumentKind::Rules, RULES).unwrap();
    let mut model = Model::new();
    let mut held: Vec<(usize, ReadTxn, Model)> = Vec::new();
    for (salt, (who, op)) in program.iter().enumerate() {
        let session = larder.session(PRINCIPALS[*who]).unwrap();
        match op {
            Op::Hold => held.push((*who, session.snapshot().unwrap(), model.clone())),
            Op::Check => {
                compare(&session.snapshot().unwrap(), &model, PRINCIPALS[*who]);
                for (who, view, then) in &held {
                    compare(view, then, PRINCIPALS[*who]);
                }
            }
            Op::Reopen => {
                held.clear();
                drop(session);
                larder.close().unwrap();
                larder = open(&file);
            }
            op => {
                let mut after = model.clone();
                let expected = apply_model(&mut after, PRINCIPALS[*who], op, salt);
                let got = apply_store(&session, op, salt);
                assert_eq!(got, expected, "step {salt}: {} {op:?}", PRINCIPALS[*who]);
                if expected {
                    model = after;
                }
            }
        }
    }
    for (who, view, then) in &held {
        compare(view, then, PRINCIPALS[*who]);
    }
    for principal in PRINCIPALS {
        compare(&larder.session(principal).unwrap().snapshot().unwrap(), &model, principal);
    }
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.records, model.len() as u64);
    let assets = model.values().filter(|item| !item.is_directory).count() as u64;
    assert_eq!(larder.statistics().unwrap().total.assets, assets);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn x_1_random_programs_agree_with_a_plain_map(program in proptest::collection::vec(ops(), 1..60)) {
        run(program);
    }
}
