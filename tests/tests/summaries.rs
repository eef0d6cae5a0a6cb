//! Summaries say what a walk says, of every state that somebody still sees, whether they come from columns or not.

use std::cell::RefCell;

use larder::{
    AbsentReason, DocumentKind, Draft, Edit, Key, Larder, Options, ReadTxn, Record, RecordFlags, Session,
    Status, Summary,
};
use larder_tests::{FaultyDisk, Plan, still};
use proptest::prelude::*;

/// Everything that a summary says.
type Said = (Key, u8, String, u64, Option<AbsentReason>, i64, RecordFlags);

fn said(summary: &Summary<'_>) -> Said {
    let key = summary.key().unwrap();
    assert_eq!(key.encoded(), summary.encoded_key());
    (
        key,
        summary.status_number(),
        summary.data_format().to_owned(),
        summary.length(),
        summary.absent(),
        summary.updated(),
        summary.flags(),
    )
}

fn said_by((key, record): (Key, Record)) -> Said {
    let absent = match record.payload() {
        larder::PayloadState::Absent(reason) => Some(reason),
        _ => None,
    };
    let (status, format) = (record.status().number(), record.data_format().to_owned());
    (key, status, format, record.payload().length(), absent, record.updated(), record.flags())
}

/// What a view says of the assets at and below a place: the same, whoever is asked, and in which way.
fn all(view: &ReadTxn, place: &str) -> Vec<Said> {
    let walked: Vec<Said> = view.walk(place).unwrap().map(Result::unwrap).map(said_by).collect();
    let mut summed = Vec::new();
    let summaries = view.summaries(place).unwrap();
    summaries
        .each(|summary| {
            summed.push(said(summary));
            Ok(())
        })
        .unwrap();
    assert_eq!(summed, walked);
    let is_wanted = |format: &str, length: u64| format == "csv" || length > 2;
    let found = summaries.find(|summary| is_wanted(summary.data_format(), summary.length())).unwrap();
    let wanted = walked.iter().filter(|asset| is_wanted(&asset.2, asset.3));
    assert!(found.iter().eq(wanted.clone().map(|asset| &asset.0)));
    let count = summaries.count(|summary| is_wanted(summary.data_format(), summary.length())).unwrap();
    assert_eq!(count, wanted.count() as u64);
    let names = |entries: Vec<larder::Entry>| entries.iter().map(|entry| entry.name().to_owned()).collect();
    let listed: Result<Vec<String>, _> = view.list(place).map(names);
    assert_eq!(
        view.names(place).map_err(|error| error.to_string()),
        listed.map_err(|error| error.to_string())
    );
    walked
}

fn in_columns(larder: &Larder) -> u64 {
    larder.info().unwrap().cache.column_records
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    DeleteTree(u8),
    RenameTree(u8, u8),
    Directory(u8),
    /// Commits many puts at once.
    Many(u8, u16),
    Drain,
    /// Keeps a view.
    Keep,
    /// Asks the newest view, which makes columns or takes in what changed.
    Ask(u8),
    /// Asks a view that was kept.
    AskKept(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let (folder, name) = (0..4_u8, 0..24_u8);
    prop_oneof![
        6 => (name.clone(), any::<u8>()).prop_map(|(name, kind)| Step::Put(name, kind)),
        2 => name.clone().prop_map(Step::Delete),
        1 => folder.clone().prop_map(Step::DeleteTree),
        1 => (folder.clone(), folder.clone()).prop_map(|(from, to)| Step::RenameTree(from, to)),
        1 => folder.clone().prop_map(Step::Directory),
        1 => (folder.clone(), 0..300_u16).prop_map(|(folder, count)| Step::Many(folder, count)),
        1 => Just(Step::Drain),
        2 => Just(Step::Keep),
        5 => folder.prop_map(Step::Ask),
        3 => any::<prop::sample::Index>().prop_map(Step::AskKept),
    ]
}

fn key(name: u8) -> String {
    format!("d{}/{name}", name % 4)
}

fn draft(kind: u8) -> Draft {
    let draft = Draft::from(vec![b'1'; usize::from(kind % 5)]);
    let draft = draft.data_format(["csv", "txt", "json"][usize::from(kind % 3)]);
    if kind.is_multiple_of(7) { draft.status(Status::Ready) } else { draft }
}

fn run(options: Options, steps: Vec<Step>) -> (Larder, Session) {
    let larder = options.open_in_memory().unwrap();
    let session = larder.root().unwrap();
    let mut kept = vec![session.snapshot().unwrap()];
    for step in steps {
        // What is not there, or is there already, is refused.
        match step {
            Step::Put(name, kind) => drop(session.put(key(name), draft(kind))),
            Step::Delete(name) => drop(session.delete(key(name))),
            Step::DeleteTree(folder) => drop(session.delete_tree(format!("d{folder}"))),
            Step::RenameTree(from, to) => drop(session.rename_tree(format!("d{from}"), format!("e{to}"))),
            Step::Directory(folder) => drop(session.apply(Edit::make_directory(format!("d{folder}/x")))),
            Step::Many(folder, count) => {
                let put = session.write(|txn| {
                    (0..count).try_for_each(|n| txn.put(format!("d{folder}/m{n}"), draft(3)).map(drop))
                });
                put.unwrap();
            }
            Step::Drain => drop(larder.upkeep(0).unwrap()),
            Step::Keep => kept.push(session.snapshot().unwrap()),
            Step::Ask(folder) => {
                let view = session.snapshot().unwrap();
                all(&view, "");
                all(&view, &format!("d{folder}"));
            }
            Step::AskKept(place) => drop(all(place.get(&kept), "")),
        }
    }
    (larder, session)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn summaries_of_every_view_are_what_a_walk_of_it_says(steps in prop::collection::vec(step(), 1..60)) {
        for bytes in [0, 4_096, 64 << 20] {
            let (larder, session) = run(still().column_bytes(bytes), steps.clone());
            let records = all(&session.snapshot().unwrap(), "").len();
            prop_assert!(larder.info().unwrap().cache.column_bytes <= bytes as u64);
            if bytes == 0 {
                prop_assert_eq!(in_columns(&larder), 0);
            } else if bytes > 1 << 20 && records > 2_000 {
                prop_assert!(in_columns(&larder) > 0);
            }
        }
    }
}

#[test]
fn columns_are_made_once_and_follow_the_commits() {
    let larder = still().open_in_memory().unwrap();
    let session = larder.root().unwrap();
    for n in 0..100 {
        session.put(format!("d{}/{n}", n % 7), draft(n)).unwrap();
    }
    assert_eq!(in_columns(&larder), 0, "nobody has asked");
    let before = session.snapshot().unwrap();
    assert_eq!(all(&before, "").len(), 100);
    assert_eq!(in_columns(&larder), 100);

    session.put("d0/new", draft(1)).unwrap();
    session.delete("d1/1").unwrap();
    session.put("d2/2", draft(4)).unwrap();
    assert_eq!(all(&session.snapshot().unwrap(), "").len(), 100);
    // Whoever sees an older state is told that.
    assert!(all(&before, "").iter().any(|asset| asset.0.as_str() == "d1/1"));
    assert_eq!(in_columns(&larder), 100, "what is newer lies over the columns");

    // So much that everything is put in columns again.
    for n in 0..2_000 {
        session.put(format!("e/{n}"), draft(2)).unwrap();
    }
    assert_eq!(all(&session.snapshot().unwrap(), "").len(), 2_100);
    assert_eq!(in_columns(&larder), 2_100);
    // Many records at once: the columns are made anew.
    session.delete_tree("e").unwrap();
    assert_eq!(all(&session.snapshot().unwrap(), "").len(), 100);
    assert_eq!(in_columns(&larder), 100);
}

#[test]
fn changes_near_the_limit_are_put_in_columns_and_what_is_removed_makes_room() {
    const RECORDS: u64 = 600;
    let larder = still().column_bytes(48 * 1_000).open_in_memory().unwrap();
    let session = larder.root().unwrap();
    let put = |n: u64| drop(session.put(format!("d/{n:04}"), draft(2)).unwrap());
    (0..RECORDS).for_each(put);
    let ask = || all(&session.snapshot().unwrap(), "").len() as u64;
    assert_eq!((ask(), in_columns(&larder)), (RECORDS, RECORDS));
    // As changes these take more than there is left, and as columns no more than before.
    for n in 0..RECORDS {
        put(n);
        if n % 50 == 0 {
            assert_eq!((ask(), in_columns(&larder)), (RECORDS, RECORDS));
        }
    }
    (RECORDS..2 * RECORDS).for_each(put);
    assert_eq!((ask(), in_columns(&larder)), (2 * RECORDS, 0), "too many");
    session.delete_tree("d").unwrap();
    (0..10).for_each(put);
    assert_eq!((ask(), in_columns(&larder)), (10, 10));
}

#[test]
fn a_record_that_cannot_be_read_concerns_those_who_look_at_it() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.root().unwrap();
    for n in 0..20 {
        session.put(format!("a/{n}"), draft(2)).unwrap();
        session.put(format!("b/{n}"), Draft::from("x").attribute("note", "find me here")).unwrap();
    }
    larder.close().unwrap();
    let mut store = disk.store();
    let text = b"find me here";
    let places: Vec<usize> =
        (0..store.len() - text.len()).filter(|at| store[*at..].starts_with(text)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| store[at] ^= 1);
    let larder = FaultyDisk::closed(store, Plan::default()).open(still(), true).unwrap();
    let view = larder.root().unwrap().snapshot().unwrap();
    for _ in 0..2 {
        assert_eq!(all(&view, "a").len(), 20);
        let error = view.summaries("b").unwrap().count(|_| true).unwrap_err();
        assert_eq!(error.kind().name(), "Corrupt");
    }
}

#[test]
fn where_there_is_no_room_there_are_no_columns() {
    let larder = still().column_bytes(2_000).open_in_memory().unwrap();
    let session = larder.root().unwrap();
    for n in 0..200 {
        session.put(format!("d/{n}"), draft(n)).unwrap();
    }
    assert_eq!(all(&session.snapshot().unwrap(), "").len(), 200);
    assert_eq!(in_columns(&larder), 0);
}

#[test]
fn s0_7_summaries_show_what_the_caller_may_list() {
    let larder = still().open_in_memory().unwrap();
    let root = larder.root().unwrap();
    for n in 0..60 {
        root.put(format!("{}/{n}", ["open", "closed", "half"][n % 3]), draft(2)).unwrap();
    }
    let rules = r#"
        default = "allow"
        [[rule]]
        deny = ["list"]
        who = ["*"]
        on = ["closed/**", "half/5"]
    "#;
    root.set_document(DocumentKind::Rules, rules).unwrap();
    let bob = larder.session("bob").unwrap();
    let seen = all(&bob.snapshot().unwrap(), "");
    assert_eq!(seen.len(), 39);
    assert!(in_columns(&larder) >= 60);
    // Nor are they shown what they may not list, to ask whether they want it.
    for bytes in [0, 64 << 20] {
        let larder = still().column_bytes(bytes).open_in_memory().unwrap();
        let root = larder.root().unwrap();
        root.set_document(DocumentKind::Rules, rules).unwrap();
        for n in 0..60 {
            root.put(format!("{}/{n}", ["open", "closed", "half"][n % 3]), draft(2)).unwrap();
        }
        let view = larder.session("bob").unwrap().snapshot().unwrap();
        let shown = RefCell::new(Vec::new());
        let look = |summary: &Summary<'_>| {
            shown.borrow_mut().push(summary.key().unwrap());
            false
        };
        assert_eq!(view.summaries("").unwrap().count(look).unwrap(), 0);
        assert!(shown.into_inner().iter().eq(seen.iter().map(|asset| &asset.0)));
    }
    assert!(all(&bob.snapshot().unwrap(), "closed").is_empty());
    assert_eq!(all(&root.snapshot().unwrap(), "closed").len(), 20);
}
