//! Who may do what: every verb, with every set of rights that there is, where they were given and where they were not.

use std::time::Duration;

use larder::format::Right;
use larder::{
    Annotation, CollectionDefinition, DocumentKind, Error, ErrorKind, IndexDefinition, Larder, LogKind,
    ReadTxn, Result, RowDraft, RowRange, Session, WriteTxn,
};
use larder_tests::in_memory;

/// What is done at a place; gives whether it was done, or something of it was seen.
enum Does {
    Change(fn(&mut WriteTxn<'_>, &str) -> Result<bool>),
    Look(fn(&ReadTxn, &str) -> Result<bool>),
}

use Does::{Change, Look};

const MINUTE: Duration = Duration::from_secs(60);

const READ: Right = Right::READ;
const WRITE: Right = Right::WRITE;
const DELETE: Right = Right::DELETE;
const LIST: Right = Right::LIST;
const CLAIM: Right = Right::CLAIM;
const CANCEL: Right = Right::CANCEL;
const MANAGE: Right = Right::MANAGE;

/// A verb, the sets of rights of which each is enough, and what it does.
type Verb = (&'static str, &'static [&'static [Right]], Does);

fn of(at: &str, name: &str) -> String {
    format!("{at}/{name}")
}

const VERBS: &[Verb] = &[
    ("put, new", &[&[WRITE]], Change(|txn, at| txn.put(of(at, "new"), "x").map(|_| true))),
    ("put, over one", &[&[WRITE]], Change(|txn, at| txn.put(of(at, "a"), "x").map(|_| true))),
    (
        "annotate",
        &[&[WRITE]],
        Change(|txn, at| txn.annotate(of(at, "a"), Annotation::new().title("x")).map(|_| true)),
    ),
    ("tag", &[&[WRITE]], Change(|txn, at| txn.tag(of(at, "a"), ["pie"], Default::default()).map(|_| true))),
    ("log", &[&[WRITE]], Change(|txn, at| txn.log(of(at, "a"), LogKind::Info, "x").map(|()| true))),
    ("make a directory", &[&[WRITE]], Change(|txn, at| txn.make_directory(of(at, "new")).map(|_| true))),
    ("delete", &[&[DELETE]], Change(|txn, at| txn.delete(of(at, "a")))),
    (
        "delete a tree",
        &[&[DELETE]],
        Change(|txn, at| txn.delete_tree(&*of(at, "tree")).map(|count| count == 2)),
    ),
    ("remove a directory", &[&[DELETE]], Change(|txn, at| txn.remove_directory(of(at, "empty")))),
    (
        "rename",
        &[&[READ, DELETE, WRITE]],
        Change(|txn, at| txn.rename(of(at, "a"), of(at, "b")).map(|_| true)),
    ),
    ("rename from elsewhere", &[], Change(|txn, at| txn.rename("third/a", of(at, "b")).map(|_| true))),
    ("rename to elsewhere", &[], Change(|txn, at| txn.rename(of(at, "a"), "third/b").map(|_| true))),
    (
        "rename a tree",
        &[&[READ, DELETE, WRITE]],
        Change(|txn, at| txn.rename_tree(&*of(at, "tree"), &*of(at, "pot")).map(|count| count == 2)),
    ),
    ("copy", &[&[READ, WRITE]], Change(|txn, at| txn.copy(of(at, "a"), of(at, "b")).map(|_| true))),
    ("copy from elsewhere", &[], Change(|txn, at| txn.copy("third/a", of(at, "b")).map(|_| true))),
    ("copy to elsewhere", &[], Change(|txn, at| txn.copy(of(at, "a"), "third/b").map(|_| true))),
    ("expire", &[&[WRITE]], Change(|txn, at| txn.expire(of(at, "made")))),
    ("claim", &[&[CLAIM]], Change(|txn, at| txn.claim(of(at, "a"), MINUTE, None).map(|_| true))),
    ("cancel", &[&[CANCEL]], Change(|txn, at| txn.cancel(of(at, "held")).map(|_| true))),
    (
        "define a collection",
        &[&[MANAGE]],
        Change(|txn, at| txn.define_collection(of(at, "new"), &CollectionDefinition::new()).map(|_| true)),
    ),
    (
        "derive a collection anew",
        &[&[MANAGE]],
        Change(|txn, at| txn.rebuild_collection(of(at, "rows")).map(|_| true)),
    ),
    (
        "put a row",
        &[&[WRITE]],
        Change(|txn, at| txn.collection(of(at, "rows"))?.put(2, RowDraft::default()).map(|_| true)),
    ),
    ("remove a row", &[&[DELETE]], Change(|txn, at| txn.collection(of(at, "rows"))?.remove(1))),
    ("get", &[&[READ]], Look(|view, at| view.get(of(at, "a"))?.bytes().map(|bytes| bytes == "leek"))),
    ("record", &[&[READ]], Look(|view, at| view.record(of(at, "a")).map(|_| true))),
    ("open", &[&[READ]], Look(|view, at| view.open(of(at, "a")).map(|_| true))),
    ("history", &[&[READ]], Look(|view, at| view.history(of(at, "a")).map(|_| true))),
    ("get a row", &[&[READ]], Look(|view, at| Ok(view.collection(of(at, "rows"))?.get(1)?.is_some()))),
    (
        "find rows",
        &[&[READ]],
        Look(|view, at| {
            Ok(!view.collection(of(at, "rows"))?.find("owner", &RowRange::all())?.rows.is_empty())
        }),
    ),
    ("exists", &[&[READ], &[LIST]], Look(|view, at| view.exists(of(at, "a")))),
    ("list", &[&[LIST]], Look(|view, at| Ok(view.list(at)?.iter().any(|entry| entry.name() == "a")))),
    ("names", &[&[LIST]], Look(|view, at| Ok(view.names(at)?.iter().any(|name| name == "a")))),
    (
        "walk",
        &[&[LIST]],
        Look(|view, at| {
            Ok(view.walk(at)?.filter_map(Result::ok).any(|(key, _)| key.as_str() == of(at, "a")))
        }),
    ),
    (
        "find by tag",
        &[&[LIST]],
        Look(|view, at| Ok(view.find_by_tag("soup")?.iter().any(|(key, _)| key.as_str() == of(at, "a")))),
    ),
];

fn filled() -> Larder {
    let larder = in_memory();
    let root = larder.root().unwrap();
    let definition = CollectionDefinition::new().index(IndexDefinition::new("owner").by("owner"));
    for at in ["own", "other", "third"] {
        root.write(|txn| {
            txn.put(of(at, "a"), larder::Draft::from("leek").tag("soup"))?;
            txn.put(of(at, "held"), "x")?;
            txn.put(of(at, "made"), larder::Draft::from("x").status(larder::Status::Ready))?;
            txn.put(of(at, "tree/x"), "x")?;
            txn.put(of(at, "tree/y"), "x")?;
            txn.make_directory(of(at, "empty"))?;
            txn.claim(of(at, "held"), MINUTE, None)?;
            let _ = txn.define_collection(of(at, "rows"), &definition)?;
            txn.collection(of(at, "rows"))?.put(1, RowDraft::default().field("owner", "ana")).map(drop)
        })
        .unwrap();
    }
    larder
}

/// Tries a verb, and takes back what it did; tells whether it may be done, which is another thing than that nothing was seen of it.
fn may(session: &Session, (name, _, does): &Verb, at: &str) -> bool {
    let mut tried = None;
    match does {
        Change(change) => {
            let aborted = session.write(|txn| -> Result<()> {
                tried = Some(change(txn, at));
                Err(Error::abort("only tried"))
            });
            assert!(aborted.is_err());
        }
        Look(look) => {
            let looked = session.read(|view| {
                tried = Some(look(view, at));
                Ok(())
            });
            looked.unwrap();
        }
    }
    match tried.unwrap() {
        Ok(is_done) => is_done,
        Err(error) if matches!(error.kind(), ErrorKind::AccessDenied { .. } | ErrorKind::NotFound) => false,
        Err(error) => panic!("{name} at {at}: {error}"),
    }
}

/// T32. All sets of seven rights, and all verbs: what is done is what the rights say, and elsewhere nothing is.
#[test]
fn t32_every_verb_wants_its_rights_and_no_others_where_it_is_done() {
    let larder = filled();
    let root = larder.root().unwrap();
    let ana = larder.session("ana").unwrap();
    let rights = [READ, WRITE, DELETE, LIST, CLAIM, CANCEL, MANAGE];
    let mut wrong = Vec::new();
    for set in 0..1_u32 << rights.len() {
        let given: Vec<Right> =
            (0..).zip(rights).filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, right)| right).collect();
        let names: Vec<String> = given.iter().map(|right| format!("{:?}", right.to_string())).collect();
        let rule = format!("[[rule]]\nallow = [{}]\nwho = [\"ana\"]\non = [\"own/**\"]\n", names.join(", "));
        let rule = if given.is_empty() { String::new() } else { rule };
        root.set_document(DocumentKind::Rules, &format!("default = \"deny\"\n{rule}")).unwrap();
        for verb in VERBS {
            let should = verb.1.iter().any(|needed| needed.iter().all(|right| given.contains(right)));
            if may(&ana, verb, "own") != should {
                wrong.push(format!("{}: {should} was expected with {}", verb.0, names.join(", ")));
            }
            if may(&ana, verb, "other") {
                wrong.push(format!("{}: elsewhere, with {}", verb.0, names.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}

/// T32. What is of the whole store wants its right for the whole of it.
#[test]
fn t32_what_is_of_the_whole_store_wants_the_right_for_all_of_it() {
    type OfTheWhole = (&'static str, Right, fn(&Session) -> Result<()>);
    let verbs: [OfTheWhole; 4] = [
        ("set rules", Right::ADMIN, |ana| {
            ana.write(|txn| {
                txn.set_document(DocumentKind::Limits, "max_binary_size = \"1 MiB\"\n")?;
                Err::<(), _>(Error::abort("only tried"))
            })
            .map(drop)
        }),
        ("read the audit", Right::ADMIN, |ana| ana.audit(0, 10).map(drop)),
        ("explain another's rights", Right::ADMIN, |ana| {
            ana.explain("bob", [], Right::READ, "own/a").map(drop)
        }),
        ("say what is outside", MANAGE, |ana| ana.write(|txn| txn.set_external("clock", 7)).map(drop)),
    ];
    for right in Right::ALL {
        for (on, is_whole) in [("**", true), ("own/**", false)] {
            let larder = filled();
            let rules = format!(
                "default = \"deny\"\n[[rule]]\nallow = [\"{right}\"]\nwho = [\"ana\"]\non = [\"{on}\"]\n"
            );
            larder.root().unwrap().set_document(DocumentKind::Rules, &rules).unwrap();
            let ana = larder.session("ana").unwrap();
            for (name, needed, does) in verbs {
                let may = match does(&ana) {
                    Err(error) if matches!(error.kind(), ErrorKind::AccessDenied { .. }) => false,
                    Err(error) if error.kind().name() != "Aborted" => panic!("{name}: {error}"),
                    _ => true,
                };
                assert_eq!(may, is_whole && *right == needed, "{name}, with {right} on {on}");
            }
        }
    }
}
