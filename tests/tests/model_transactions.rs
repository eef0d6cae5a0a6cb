//! Random transactions of many edits against a plain model, to the kind of every refusal: alone, as batches, given
//! up by an error or a panic, seen from inside and from snapshots that are held across them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use larder::{
    Annotation, BatchMode, ContentHash, DocumentKind, Draft, Edit, Entry, Error, Key, Larder, Outcome,
    PageRequest, ReadTxn, Record, Result, Session, TagPolicy, WriteTxn,
};
use larder_tests::{FaultyDisk, Plan, still, verified};
use proptest::prelude::*;

const PRINCIPALS: [&str; 3] = ["ana", "bob", "cyd"];
const SEGMENTS: [&str; 3] = ["a", "b", "a.b"];
const TAGS: [&str; 3] = ["red", "red wine", "rosé"];

/// Ana may everything. Bob may everything below `a`, but change nothing in `a/b`, and delete nothing in `a/a`; below
/// `b` he may write without reading. Cyd may list all but `b/a`, and read that, but for `a/a`.
const RULES: &str = r#"
default = "deny"
[[rule]]
allow = ["read", "write", "delete", "list"]
who = ["ana"]
on = "**"
[[rule]]
allow = ["read", "write", "delete", "list"]
who = ["bob"]
on = "a/**"
[[rule]]
deny = ["write", "delete"]
who = ["bob"]
on = "a/b/**"
[[rule]]
deny = ["delete"]
who = ["bob"]
on = "a/a/*"
[[rule]]
allow = ["write"]
who = ["bob"]
on = "b/**"
[[rule]]
allow = ["list", "read"]
who = ["cyd"]
on = "**"
[[rule]]
deny = ["read"]
who = ["cyd"]
on = "a/a/**"
[[rule]]
deny = ["read", "list"]
who = ["cyd"]
on = "b/a/**"
"#;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Right {
    Read,
    Write,
    Delete,
    List,
}

type Path = Vec<&'static str>;

/// The rules once more, in plain words.
fn may(who: &str, right: Right, key: &[&str]) -> bool {
    let below = |place: &[&str]| key.starts_with(place);
    match who {
        "ana" => true,
        "bob" if below(&["b"]) => right == Right::Write,
        "bob" if !below(&["a"]) => false,
        "bob" => match right {
            Right::Write => !below(&["a", "b"]),
            Right::Delete => !(below(&["a", "b"]) || below(&["a", "a"]) && key.len() == 3),
            _ => true,
        },
        _ => match right {
            Right::Read => !below(&["a", "a"]) && !below(&["b", "a"]),
            Right::List => !below(&["b", "a"]),
            _ => false,
        },
    }
}

/// A payload, by its length and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Content {
    length: usize,
    salt: u8,
}

impl Content {
    fn bytes(self) -> Vec<u8> {
        (0..self.length).map(|at| ((at as u32).wrapping_mul(2_654_435_761) >> 13) as u8 ^ self.salt).collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    /// Nothing for a directory.
    content: Option<Content>,
    generation: u64,
    tags: Vec<&'static str>,
}

type Model = BTreeMap<Path, Item>;

#[derive(Debug, Clone)]
enum When {
    Always,
    Absent,
    Exists,
    Generation(u64),
    Content(Content),
}

#[derive(Debug, Clone)]
enum Op {
    Put { key: Path, content: Content, tag: Option<usize>, when: When },
    Tag { key: Path, tag: usize, policy: u8, when: When },
    Delete { key: Path, when: When },
    DeleteTree { place: Path },
    Rename { from: Path, to: Path, when: When },
    RenameTree { from: Path, to: Path },
    Copy { from: Path, to: Path, when: When },
    MakeDirectory { key: Path },
    RemoveDirectory { key: Path },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Commit,
    Error,
    Panic,
}

#[derive(Debug, Clone)]
enum Step {
    Single(Op),
    Transaction(Vec<Op>, End),
    Batch(Vec<Op>, bool),
    Hold,
    Drain,
    Crash,
    Reopen,
}

fn text(path: &[&str]) -> String {
    path.join("/")
}

fn holds(when: &When, item: Option<&Item>) -> bool {
    match (when, item) {
        (When::Always, _) => true,
        (When::Absent, item) => item.is_none(),
        (_, None) => false,
        (When::Exists, _) => true,
        (When::Generation(generation), Some(item)) => item.generation == *generation,
        (When::Content(content), Some(item)) => item.content == Some(*content),
    }
}

fn subtree(model: &Model, place: &[&str]) -> Vec<Path> {
    model.keys().filter(|key| key.starts_with(place)).cloned().collect()
}

/// Carries an edit out in the model, and says what the store has to answer: the name of an outcome, or of a kind of
/// error.
fn expect(model: &mut Model, who: &str, op: &Op) -> String {
    let may = |right, key: &[&str]| may(who, right, key);
    // Who may not read is told so only if he may list.
    let unread = |key: &Path| if may(Right::List, key) { "AccessDenied" } else { "NotFound" };
    let removed = |count: usize| match count {
        0 => "nothing below".to_owned(),
        count => format!("Removed {count}"),
    };
    let store = |model: &mut Model, key: &Path, item: Item| {
        let name = if model.contains_key(key) { "Replaced" } else { "Created" };
        let generation = model.get(key).map_or(0, |item| item.generation) + 1;
        model.insert(key.clone(), Item { generation, ..item });
        name
    };
    let answer = match op {
        Op::Put { key, .. } | Op::Tag { key, .. } | Op::MakeDirectory { key } if !may(Right::Write, key) => {
            "AccessDenied"
        }
        Op::Delete { key, .. } | Op::RemoveDirectory { key } if !may(Right::Delete, key) => "AccessDenied",
        Op::Rename { from, to, .. } if !may(Right::Delete, from) || !may(Right::Write, to) => "AccessDenied",
        Op::Copy { to, .. } if !may(Right::Write, to) => "AccessDenied",
        Op::Rename { from, .. } | Op::Copy { from, .. } if !may(Right::Read, from) => unread(from),
        Op::Tag { key, .. } if !model.contains_key(key) => "not there",
        Op::Rename { from, .. } | Op::Copy { from, .. } if !model.contains_key(from) => "not there",
        Op::Rename { from, to, .. } if from != to && model.contains_key(to) => "AlreadyExists",
        Op::Put { key, when, .. } | Op::Tag { key, when, .. } | Op::Delete { key, when }
            if !holds(when, model.get(key)) =>
        {
            "Refused"
        }
        Op::Rename { from: key, when, .. } | Op::Copy { to: key, when, .. }
            if !holds(when, model.get(key)) =>
        {
            "Refused"
        }
        Op::Put { key, content, tag, .. } => {
            let mut tags = model.get(key).map(|item| item.tags.clone()).unwrap_or_default();
            tags.extend(tag.map(|tag| TAGS[tag]).filter(|tag| !tags.contains(tag)));
            store(model, key, Item { content: Some(*content), generation: 0, tags })
        }
        Op::Tag { key, tag, policy, .. } => {
            let (item, tag) = (model.get_mut(key).unwrap(), TAGS[*tag]);
            match policy {
                0 if !item.tags.contains(&tag) => item.tags.push(tag),
                1 => item.tags = vec![tag],
                2 if item.tags.is_empty() => item.tags.push(tag),
                3 => item.tags.retain(|other| *other != tag),
                _ => {}
            }
            item.generation += 1;
            "Replaced"
        }
        Op::Delete { key, .. } => model.remove(key).map_or("not there", |_| "Removed 1"),
        Op::Rename { from, to, .. } => {
            if from != to {
                let item = model.remove(from).unwrap();
                model.insert(to.clone(), Item { generation: item.generation + 1, ..item });
            }
            "Replaced"
        }
        Op::Copy { from, to, .. } => {
            let item = model[from].clone();
            store(model, to, item)
        }
        Op::DeleteTree { place } => {
            let keys = subtree(model, place);
            if keys.iter().any(|key| !may(Right::Delete, key)) {
                return "AccessDenied".to_owned();
            }
            model.retain(|key, _| !key.starts_with(place));
            return removed(keys.len());
        }
        Op::RenameTree { from, to } if !to.is_empty() && to.starts_with(from) => "InvalidArgument",
        Op::RenameTree { from, to } => {
            let keys = subtree(model, from);
            if keys.iter().any(|key| !may(Right::Delete, key)) {
                return "AccessDenied".to_owned();
            }
            let target = |key: &Path| -> Path { [to.as_slice(), &key[from.len()..]].concat() };
            let refused = keys.iter().find_map(|key| match target(key) {
                _ if !may(Right::Read, key) => Some(unread(key)),
                target if target.is_empty() => Some("InvalidKey"),
                target if !may(Right::Write, &target) => Some("AccessDenied"),
                target => model.contains_key(&target).then_some("AlreadyExists"),
            });
            if let Some(refused) = refused {
                return refused.to_owned();
            }
            for key in &keys {
                let item = model.remove(key).unwrap();
                model.insert(target(key), Item { generation: item.generation + 1, ..item });
            }
            return removed(keys.len());
        }
        Op::MakeDirectory { key } => match model.get(key) {
            Some(item) if item.content.is_none() => "Replaced",
            Some(_) => "AlreadyExists",
            None => store(model, key, Item { content: None, generation: 0, tags: Vec::new() }),
        },
        Op::RemoveDirectory { key } => {
            let itself = usize::from(model.contains_key(key));
            match model.get(key) {
                _ if subtree(model, key).len() > itself => "NotEmpty",
                None => "not there",
                Some(item) if item.content.is_some() => "InvalidArgument",
                Some(_) => model.remove(key).map_or("not there", |_| "Removed 1"),
            }
        }
    };
    answer.to_owned()
}

fn edit(op: &Op) -> Edit {
    let given = |edit: Edit, when: &When| match when {
        When::Always => edit,
        When::Absent => edit.if_absent(),
        When::Exists => edit.if_exists(),
        When::Generation(generation) => edit.if_generation(*generation),
        When::Content(content) => edit.if_content(ContentHash::of(&content.bytes())),
    };
    match op {
        Op::Put { key, content, tag, when } => {
            let draft = Draft::from(content.bytes());
            let draft = tag.iter().fold(draft, |draft, tag| draft.tag(TAGS[*tag]));
            given(Edit::put(text(key), draft), when)
        }
        Op::Tag { key, tag, policy, when } => {
            let annotation = Annotation::new();
            let annotation = match policy {
                0 => annotation.tag(TAGS[*tag]),
                1 => annotation.tag(TAGS[*tag]).tag_policy(TagPolicy::Replace),
                2 => annotation.tag(TAGS[*tag]).tag_policy(TagPolicy::Keep),
                _ => annotation.untag(TAGS[*tag]),
            };
            given(Edit::annotate(text(key), annotation), when)
        }
        Op::Delete { key, when } => given(Edit::delete(text(key)), when),
        Op::DeleteTree { place } => Edit::delete_tree(text(place)),
        Op::Rename { from, to, when } => given(Edit::rename(text(from), text(to)), when),
        Op::RenameTree { from, to } => Edit::rename_tree(text(from), text(to)),
        Op::Copy { from, to, when } => given(Edit::copy(text(from), text(to)), when),
        Op::MakeDirectory { key } => Edit::make_directory(text(key)),
        Op::RemoveDirectory { key } => Edit::remove_directory(text(key)),
    }
}

#[track_caller]
fn agree(got: &Result<Outcome>, expected: &str, who: &str, op: &Op) {
    let got = match got {
        Ok(Outcome::Created(_)) => "Created".to_owned(),
        Ok(Outcome::Replaced(_)) => "Replaced".to_owned(),
        Ok(Outcome::Removed { count }) => format!("Removed {count}"),
        Ok(Outcome::NotFound) => "not there".to_owned(),
        Ok(Outcome::Refused(_)) => "Refused".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.kind().name().to_owned(),
    };
    // Where nothing is below, a denial of the whole place is as good an answer.
    let same = match expected {
        "nothing below" => got == "not there" || (who != "ana" && got == "AccessDenied"),
        expected => got == expected,
    };
    assert!(same, "{who} {op:?}: expected {expected}, got {got}");
}

/// Somewhere to read from: a snapshot, or a transaction from inside.
enum View<'v> {
    Snapshot(&'v ReadTxn),
    Inside(&'v WriteTxn<'v>),
}

macro_rules! of_view {
    ($view:expr, $txn:ident => $read:expr) => {
        match $view {
            View::Snapshot($txn) => $read,
            View::Inside($txn) => $read,
        }
    };
}

impl View<'_> {
    fn all(&self, place: &str) -> Vec<(Key, Record)> {
        match self {
            View::Snapshot(txn) => txn.walk(place).unwrap().collect::<Result<_>>().unwrap(),
            View::Inside(txn) => txn.page(place, &PageRequest::new().size(100)).unwrap().assets,
        }
    }

    fn list(&self, place: &str) -> Result<Vec<Entry>> {
        of_view!(self, txn => txn.list(place))
    }
}

fn names(rows: &[(Key, Record)]) -> Vec<String> {
    rows.iter().map(|(key, _)| key.to_string()).collect()
}

/// Compares everything that somebody can ask with what the model says.
fn compare(view: &View<'_>, model: &Model, who: &str) {
    let seen: Vec<&Path> = model.keys().filter(|key| may(who, Right::List, key)).collect();
    for place in places() {
        let expected: Vec<String> =
            seen.iter().filter(|key| key.starts_with(&place)).map(|key| text(key)).collect();
        assert_eq!(names(&view.all(&text(&place))), expected, "{who} walks {place:?}");
        compare_list(view, model, who, &place);
        if !place.is_empty() {
            compare_key(view, model.get(&place), who, &place);
        }
    }
    for tag in TAGS {
        let expected: Vec<String> =
            seen.iter().filter(|key| model[**key].tags.contains(&tag)).map(|key| text(key)).collect();
        let found = of_view!(view, txn => txn.find_by_tag(tag)).unwrap();
        assert_eq!(names(&found), expected, "{who} {tag}");
    }
}

fn compare_key(view: &View<'_>, item: Option<&Item>, who: &str, key: &Path) {
    let (name, may_read, may_list) = (text(key), may(who, Right::Read, key), may(who, Right::List, key));
    let exists = of_view!(view, txn => txn.exists(name.as_str())).unwrap();
    assert_eq!(exists, item.is_some() && (may_read || may_list), "{who} {name}");
    match (of_view!(view, txn => txn.get(name.as_str())), item) {
        (Ok(asset), Some(item)) if may_read => {
            assert_eq!(asset.record().generation(), item.generation, "{name}");
            assert_eq!(asset.record().tags().collect::<Vec<_>>(), item.tags, "{name}");
            match (asset.bytes(), item.content) {
                (Ok(bytes), Some(content)) => assert!(bytes == content.bytes(), "{name}: other bytes"),
                (Err(error), None) => assert_eq!(error.kind().name(), "IsADirectory"),
                (got, expected) => panic!("{name}: {got:?}, expected {expected:?}"),
            }
        }
        (Err(error), item) => {
            let expected = match (may_read, may_list) {
                (true, _) => item.is_none().then_some("NotFound"),
                (false, true) => Some("AccessDenied"),
                (false, false) => Some("NotFound"),
            };
            assert_eq!(Some(error.kind().name()), expected, "{who} {name}");
        }
        (Ok(_), _) => panic!("{who} gets {name}"),
    }
}

fn compare_list(view: &View<'_>, model: &Model, who: &str, place: &Path) {
    // Of each child: whether its record is seen, and whether anything below it is.
    let mut expected: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    let below = model.keys().filter(|key| key.starts_with(place) && key.len() > place.len());
    for key in below.filter(|key| may(who, Right::List, key)) {
        let entry = expected.entry(key[place.len()]).or_default();
        if key.len() == place.len() + 1 { entry.0 = true } else { entry.1 = true }
    }
    match view.list(&text(place)) {
        Ok(entries) => {
            let got: BTreeMap<&str, (bool, bool)> = entries
                .iter()
                .map(|entry| (entry.name(), (entry.record.is_some(), entry.has_children)))
                .collect();
            assert_eq!((entries.len(), got), (expected.len(), expected), "{who} lists {place:?}");
        }
        Err(error) => {
            assert_eq!(error.kind().name(), "NotFound");
            let is_seen = model.contains_key(place) && may(who, Right::List, place);
            assert!(expected.is_empty() && !is_seen, "{who} does not list {place:?}");
        }
    }
}

/// The root, every place of one or two segments, and some of three.
fn places() -> Vec<Path> {
    let mut places = vec![Vec::new()];
    for one in SEGMENTS {
        places.push(vec![one]);
        places.extend(SEGMENTS.map(|two| vec![one, two]));
    }
    places.extend([vec!["a", "a", "b"], vec!["a", "b", "a"], vec!["b", "a", "b"]]);
    places
}

fn key() -> impl Strategy<Value = Path> {
    prop::sample::select(places().split_off(1))
}

fn place() -> impl Strategy<Value = Path> {
    prop::sample::select(places())
}

fn content() -> impl Strategy<Value = Content> {
    let length = prop_oneof![
        40 => prop::sample::select(vec![0usize, 1, 1_023, 1_024, 1_025, 5_000]),
        4 => Just(70_000usize),
        1 => Just(1_200_000usize),
    ];
    (length, 0u8..2).prop_map(|(length, salt)| Content { length, salt })
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        6 => Just(When::Always),
        1 => Just(When::Absent),
        1 => Just(When::Exists),
        1 => (1u64..4).prop_map(When::Generation),
        1 => (1usize..2, 0u8..2).prop_map(|(length, salt)| When::Content(Content { length, salt })),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (key(), content(), proptest::option::of(0..TAGS.len()), when())
            .prop_map(|(key, content, tag, when)| Op::Put { key, content, tag, when }),
        3 => (key(), 0..TAGS.len(), 0u8..4, when())
            .prop_map(|(key, tag, policy, when)| Op::Tag { key, tag, policy, when }),
        3 => (key(), when()).prop_map(|(key, when)| Op::Delete { key, when }),
        1 => place().prop_map(|place| Op::DeleteTree { place }),
        2 => (key(), key(), when()).prop_map(|(from, to, when)| Op::Rename { from, to, when }),
        2 => (place(), place()).prop_map(|(from, to)| Op::RenameTree { from, to }),
        2 => (key(), key(), when()).prop_map(|(from, to, when)| Op::Copy { from, to, when }),
        2 => key().prop_map(|key| Op::MakeDirectory { key }),
        1 => key().prop_map(|key| Op::RemoveDirectory { key }),
    ]
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let ops = || prop::collection::vec(op(), 1..8);
    let end = prop_oneof![4 => Just(End::Commit), 1 => Just(End::Error), 1 => Just(End::Panic)];
    let step = prop_oneof![
        4 => op().prop_map(Step::Single),
        4 => (ops(), end).prop_map(|(ops, end)| Step::Transaction(ops, end)),
        2 => (ops(), any::<bool>()).prop_map(|(ops, atomic)| Step::Batch(ops, atomic)),
        1 => Just(Step::Hold),
        1 => Just(Step::Drain),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
    ];
    // Ana more often, or little gets done.
    (prop::sample::select(vec![0usize, 0, 0, 1, 1, 2]), step)
}

fn transaction(session: &Session, model: &mut Model, who: &str, ops: &[Op], end: End) {
    let mut after = model.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        session.write(|txn| {
            for op in ops {
                let expected = expect(&mut after, who, op);
                agree(&txn.apply(edit(op)), &expected, who, op);
            }
            compare(&View::Inside(txn), &after, who);
            match end {
                End::Commit => Ok(()),
                End::Error => Err(Error::abort("changed my mind")),
                End::Panic => resume_unwind(Box::new("given up")),
            }
        })
    }));
    match (end, outcome) {
        (End::Commit, Ok(Ok(_))) => *model = after,
        (End::Error, Ok(Err(error))) => assert_eq!(error.kind().name(), "Aborted"),
        (End::Panic, Err(panic)) if panic.downcast_ref::<&str>() == Some(&"given up") => {}
        (_, Err(panic)) => resume_unwind(panic),
        (end, outcome) => panic!("{end:?}: {outcome:?}"),
    }
}

fn batch(session: &Session, model: &mut Model, who: &str, ops: &[Op], is_atomic: bool) {
    let mut after = model.clone();
    let expected: Vec<String> = ops.iter().map(|op| expect(&mut after, who, op)).collect();
    let mode = if is_atomic { BatchMode::Atomic } else { BatchMode::PerItem };
    match session.batch(ops.iter().map(edit), mode) {
        Ok(receipt) => {
            for ((got, expected), op) in receipt.value.iter().zip(&expected).zip(ops) {
                agree(got, expected, who, op);
                assert!(!is_atomic || !matches!(got, Err(_) | Ok(Outcome::Refused(_))), "{op:?}");
            }
            *model = after;
        }
        Err(error) => {
            assert!(is_atomic, "{error}");
            for (at, (expected, op)) in expected.iter().zip(ops).enumerate() {
                let is_done =
                    matches!(expected.as_str(), "Created" | "Replaced" | "not there" | "nothing below")
                        || expected.starts_with("Removed");
                match error.items().iter().find(|(other, _)| *other == at) {
                    Some((_, error)) if expected == "Refused" => {
                        assert_eq!(error.kind().name(), "PreconditionFailed", "{op:?}");
                    }
                    Some((_, error)) => agree(&Err(error.clone()), expected, who, op),
                    None => assert!(is_done, "{op:?} is not among the errors"),
                }
            }
        }
    }
}

fn open(storage: &FaultyDisk) -> Larder {
    storage.open(still(), true).unwrap()
}

fn run(steps: Vec<(usize, Step)>) {
    let mut storage = FaultyDisk::default();
    let mut larder = open(&storage);
    larder.root().unwrap().set_document(DocumentKind::Rules, RULES).unwrap();
    let mut model = Model::new();
    let mut held: Vec<(&str, ReadTxn, Model)> = Vec::new();
    for (who, step) in &steps {
        let who = PRINCIPALS[*who];
        let session = larder.session(who).unwrap();
        match step {
            Step::Single(op) => {
                let expected = expect(&mut model, who, op);
                agree(&session.apply(edit(op)).map(|receipt| receipt.value), &expected, who, op);
            }
            Step::Transaction(ops, end) => transaction(&session, &mut model, who, ops, *end),
            Step::Batch(ops, is_atomic) => batch(&session, &mut model, who, ops, *is_atomic),
            Step::Hold => {
                let view = session.snapshot().unwrap();
                compare(&View::Snapshot(&view), &model, who);
                held.push((who, view, model.clone()));
            }
            Step::Drain => {
                larder.upkeep(1_000_000).unwrap();
            }
            Step::Crash => {
                // What was acknowledged is on disk: the machine may go, and nothing with it.
                held.clear();
                drop(session);
                storage = FaultyDisk::holding(storage.durable(), Plan::default());
                larder = open(&storage);
            }
            Step::Reopen => {
                for (who, view, then) in held.drain(..) {
                    compare(&View::Snapshot(&view), &then, who);
                }
                drop(session);
                larder.close().unwrap();
                larder = open(&storage);
            }
        }
    }
    for (who, view, then) in &held {
        compare(&View::Snapshot(view), then, who);
    }
    for who in PRINCIPALS {
        let view = larder.session(who).unwrap().snapshot().unwrap();
        compare(&View::Snapshot(&view), &model, who);
    }
    let report = verified(&larder);
    assert_eq!(report.records, model.len() as u64);
    let assets: Vec<Content> = model.values().filter_map(|item| item.content).collect();
    let total = larder.statistics().unwrap().total;
    assert_eq!(total.assets, assets.len() as u64);
    assert_eq!(total.bytes, assets.iter().map(|content| content.length as u64).sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn x_1_transactions_agree_with_a_plain_map(steps in prop::collection::vec(step(), 1..20)) {
        run(steps);
    }
}
