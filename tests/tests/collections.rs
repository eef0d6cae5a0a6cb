//! Collections: rows, their indexes and aggregates, and counters, through the public API.

use std::collections::BTreeMap;

use larder::{
    Aggregate, AggregateDefinition, CollectionDefinition, CollectionRights, Defined, DocumentKind, Error,
    ErrorKind, EventKind, IndexDefinition, Inserted, Larder, Part, Right, Row, RowDraft, RowRange, Session,
    SnapshotOptions, Tuple,
};
use larder_tests::{FaultyDisk, Plan, dump, everywhere, in_memory, kind_of, still, verified};
use proptest::prelude::*;

fn jobs() -> CollectionDefinition {
    CollectionDefinition::new()
        .index(IndexDefinition::new("ready").by_descending("priority").by("order").only("state", ["ready"]))
        .index(IndexDefinition::new("state").by("state"))
        .index(IndexDefinition::new("owner").unique().by("owner"))
        .index(IndexDefinition::new("label").by_each("labels"))
        .aggregate(AggregateDefinition::new("by state").group_by("state").sum("cost"))
}

fn job(state: &str, priority: i64, order: i64) -> RowDraft {
    RowDraft::new(format!("{state} {priority} {order}"))
        .field("state", state)
        .field("priority", priority)
        .field("order", order)
}

fn with_jobs() -> (Larder, Session) {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    assert_eq!(ana.write(|txn| txn.define_collection("jobs", &jobs())).unwrap().value, Defined::Created);
    (larder, ana)
}

fn keys(rows: &[Row]) -> Vec<Part> {
    rows.iter().map(|row| row.key().parts()[0].clone()).collect()
}

fn numbers(of: impl IntoIterator<Item = i64>) -> Vec<Part> {
    of.into_iter().map(Part::from).collect()
}

#[test]
fn rows_are_put_found_counted_and_removed_in_one_commit_with_assets() {
    let (larder, ana) = with_jobs();
    let receipt = ana
        .write(|txn| {
            txn.put("results/1.txt", "done")?;
            let mut jobs = txn.collection("jobs")?;
            assert!(!jobs.put(1, job("ready", 0, 10))?);
            assert!(!jobs.put(2, job("ready", 5, 20).field("cost", 7))?);
            assert!(!jobs.put(3, job("done", 0, 30).field("cost", 5))?);
            assert!(jobs.put(3, job("done", 1, 30).field("cost", 6))?);
            assert_eq!(
                keys(&jobs.find("ready", &RowRange::all())?.rows),
                numbers([2, 1]),
                "the greater priority first"
            );
            jobs.total()
        })
        .unwrap();
    assert_eq!(receipt.value.count, 3);
    let view = ana.snapshot().unwrap();
    let jobs = view.collection("jobs").unwrap();
    assert_eq!(keys(&jobs.page(&RowRange::all()).unwrap().rows), numbers([1, 2, 3]));
    assert_eq!(jobs.get(2).unwrap().unwrap().value().as_ref(), b"ready 5 20");
    assert_eq!(jobs.aggregate("by state", &["done".into()]).unwrap(), Aggregate { count: 1, sum: 6 });
    assert_eq!(jobs.groups("by state").unwrap().len(), 2);
    // What is not committed leaves nothing.
    let aborted = ana.write(|txn| {
        txn.collection("jobs")?.remove(1)?;
        txn.collection("jobs")?.put(9, job("ready", 9, 9))?;
        Err::<(), Error>(Error::abort("on second thoughts"))
    });
    assert_eq!(kind_of(aborted), "Aborted");
    let state = ana.read(|view| Ok(view.collection("jobs")?.find("ready", &RowRange::all())?.rows)).unwrap();
    assert_eq!(keys(&state), numbers([2, 1]));
    let report = verified(&larder);
    assert_eq!((report.rows, report.records), (3, 2));
}

#[test]
fn p5_indexes_are_unique_null_safe_multi_partial_composite_and_descending() {
    let (larder, ana) = with_jobs();
    let put = |key: i64, draft: RowDraft| ana.write(|txn| txn.collection("jobs")?.put(key, draft));
    put(1, RowDraft::new("").field("owner", "ana")).unwrap();
    let error = put(2, RowDraft::new("").field("owner", "ana")).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotUnique { index, .. } if index == "owner"), "{error}");
    assert!(error.to_string().contains("the row 1 "), "{error}");
    // A row without the field is in no index; one whose field is nil is, and nil is equal to itself.
    put(3, RowDraft::new("")).unwrap();
    put(4, RowDraft::new("")).unwrap();
    put(5, RowDraft::new("").field("owner", Part::Nil)).unwrap();
    assert_eq!(kind_of(put(6, RowDraft::new("").field("owner", Part::Nil))), "NotUnique");
    // A row does not stand in its own way.
    put(1, RowDraft::new("again").field("owner", "ana")).unwrap();
    // Each part of a list once.
    put(7, RowDraft::new("").field("labels", vec![Part::from("b"), Part::from("a"), Part::from("b")]))
        .unwrap();
    put(8, RowDraft::new("").field("labels", vec![Part::from("b")])).unwrap();
    let view = ana.snapshot().unwrap();
    let rows = view.collection("jobs").unwrap();
    let labelled = |label: &str| keys(&rows.find("label", &RowRange::all().with(label)).unwrap().rows);
    assert_eq!((labelled("a"), labelled("b"), labelled("c")), (numbers([7]), numbers([7, 8]), numbers([])));
    // Between two values, in both directions.
    for (key, priority) in [(11, 1), (12, 3), (13, 3), (14, 8)] {
        put(key, job("ready", priority, key)).unwrap();
    }
    put(15, job("done", 3, 0)).unwrap();
    let view = ana.snapshot().unwrap();
    let rows = view.collection("jobs").unwrap();
    let ready = |range: RowRange| keys(&rows.find("ready", &range).unwrap().rows);
    assert_eq!(ready(RowRange::all()), numbers([14, 12, 13, 11]));
    assert_eq!(ready(RowRange::all().at_least(2).at_most(5)), numbers([12, 13]));
    assert_eq!(ready(RowRange::all().at_least(3)), numbers([14, 12, 13]));
    assert_eq!(ready(RowRange::all().with(3).at_least(13)), numbers([13]));
    assert_eq!(kind_of(rows.find("colour", &RowRange::all())), "InvalidArgument");
    verified(&larder);
}

/// What an index has of a row may be longer than the key of one.
#[test]
fn p5_an_index_tells_values_that_are_long() {
    let (larder, ana) = with_jobs();
    let twice = IndexDefinition::new("twice").by("text").by_descending("text");
    let definition = CollectionDefinition::new().index(twice);
    let _ = ana.write(|txn| txn.define_collection("texts", &definition)).unwrap();
    let long = "x".repeat(3_000);
    ana.write(|txn| txn.collection("texts")?.put(1, RowDraft::new("").field("text", &*long))).unwrap();
    let view = ana.snapshot().unwrap();
    let entries = view.collection("texts").unwrap().entries("twice", &RowRange::all()).unwrap().entries;
    assert_eq!(entries[0].values, [Part::from(&*long), Part::from(&*long)]);
    verified(&larder);
}

/// The least and the greatest of a field, and how many begin with something, are what an index says: nobody reads a row.
#[test]
fn p5_p9_an_index_tells_its_values_and_counts_them() {
    let (larder, ana) = with_jobs();
    let put = |key: i64, draft: RowDraft| ana.write(|txn| txn.collection("jobs")?.put(key, draft)).unwrap();
    let labels = |labels: &[&str]| labels.iter().map(|label| Part::from(*label)).collect::<Vec<_>>();
    put(1, job("ready", 3, 10).field("owner", "ana"));
    put(2, job("ready", 8, 20).field("owner", "an\0a").field("labels", labels(&["b", "a"])));
    put(3, job("done", 9, 30).field("owner", Part::Nil).field("labels", labels(&["b"])));
    put(4, job("ready", -7, 5));
    let view = ana.snapshot().unwrap();
    let rows = view.collection("jobs").unwrap();
    let said = |index: &str, range: RowRange| {
        let entries = rows.entries(index, &range).unwrap().entries;
        entries.into_iter().map(|entry| (entry.values, entry.row.into_parts())).collect::<Vec<_>>()
    };
    let greatest = said("ready", RowRange::all().limit(1));
    assert_eq!(greatest, [(numbers([8, 20]), numbers([2]))], "of those that are ready");
    assert_eq!(
        said("owner", RowRange::all()),
        [
            (vec![Part::Nil], numbers([3])),
            (vec!["an\0a".into()], numbers([2])),
            (vec!["ana".into()], numbers([1]))
        ]
    );
    assert_eq!(
        said("label", RowRange::all().at_least("b")),
        [(vec!["b".into()], numbers([2])), (vec!["b".into()], numbers([3]))],
        "an entry for each part of a list"
    );
    let count = |index: &str, range: RowRange| rows.count(index, &range).unwrap();
    assert_eq!(count("state", RowRange::all().with("ready").limit(1)), 3, "whatever the limit");
    assert_eq!((count("label", RowRange::all()), count("state", RowRange::all().with("lost"))), (3, 0));
    // By pages, and from a write transaction with what it has not committed.
    let first = rows.entries("state", &RowRange::all().limit(3)).unwrap();
    let rest = rows.entries("state", &RowRange::all().after(first.next.unwrap())).unwrap();
    assert_eq!((first.entries.len(), rest.entries.len(), rest.next), (3, 1, None));
    ana.write(|txn| {
        let mut rows = txn.collection("jobs")?;
        rows.put(5, job("ready", 12, 1))?;
        let greatest = rows.entries("ready", &RowRange::all().limit(1))?.entries;
        assert_eq!(greatest[0].values, numbers([12, 1]));
        rows.count("ready", &RowRange::all())
    })
    .map(|receipt| assert_eq!(receipt.value, 4))
    .unwrap();
    assert_eq!(kind_of(rows.entries("colour", &RowRange::all())), "InvalidArgument");
    assert_eq!(kind_of(rows.count("owner", &RowRange::all().with(1).with(2))), "InvalidArgument");
    verified(&larder);
}

#[test]
fn s2_10_pages_by_keyset_stay_good_while_rows_come_and_go() {
    let (_larder, ana) = with_jobs();
    ana.write(|txn| {
        let mut jobs = txn.collection("jobs")?;
        (0..25).try_for_each(|key| jobs.put(key, job("ready", key % 3, key)).map(drop))
    })
    .unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let range = after.take().map_or_else(RowRange::all, |cursor| RowRange::all().after(cursor)).limit(4);
        let page = ana.read(|view| view.collection("jobs")?.find("ready", &range)).unwrap();
        seen.extend(keys(&page.rows));
        // What was seen goes; what is new lies before.
        ana.write(|txn| {
            let mut jobs = txn.collection("jobs")?;
            for row in &page.rows {
                jobs.remove(row.key())?;
            }
            jobs.put(1_000 + seen.len() as i64, job("ready", 2, 0)).map(drop)
        })
        .unwrap();
        match page.next {
            Some(cursor) => after = Some(cursor),
            None => break,
        }
    }
    let expected = (0..25i64).filter(|key| key % 3 == 2).chain((0..25).filter(|key| key % 3 == 1));
    assert_eq!(seen, numbers(expected.chain((0..25).filter(|key| key % 3 == 0))));
}

#[test]
fn s2_5_s2_21_counters_are_checked_and_many_go_in_one_commit_each_with_its_result() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let counters = CollectionDefinition::new().aggregate(AggregateDefinition::new("all").sum("n"));
    let results = ana
        .write(|txn| {
            let _ = txn.define_collection("counters", &counters)?;
            let mut counters = txn.collection("counters")?;
            counters.put("full", RowDraft::default().field("n", i64::MAX))?;
            counters.put("words", RowDraft::default().field("n", "three"))?;
            let deltas = [("a", 5), ("b", -1), ("full", 1), ("a", 2), ("words", 1)];
            Ok(deltas.map(|(name, delta)| match name {
                "b" => counters.add_within(name, "n", delta, 0..=10),
                _ => counters.add(name, "n", delta),
            }))
        })
        .unwrap();
    let [a, b, full, again, words] = results.value;
    assert_eq!((a.unwrap(), again.unwrap()), (5, 7));
    let error = b.unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::CounterOutOfRange { value: 0, delta: -1, min: 0, max: 10, .. }
    ));
    assert_eq!(kind_of(full), "CounterOutOfRange");
    assert_eq!(kind_of(words), "InvalidArgument");
    let view = ana.snapshot().unwrap();
    let counters = view.collection("counters").unwrap();
    assert_eq!(counters.get("a").unwrap().unwrap().integer("n"), Some(7));
    assert_eq!(counters.get("b").unwrap(), None, "what was refused made no row");
    assert_eq!(counters.aggregate("all", &[]).unwrap().sum, i128::from(i64::MAX) + 7);
    // 100 deltas for each of 100 counters, from 4 threads: none is lost.
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ana = ana.clone();
            std::thread::spawn(move || {
                for _ in 0..25 {
                    ana.write(|txn| {
                        let mut counters = txn.collection("counters")?;
                        (0..100).try_for_each(|name| counters.add(("many", name), "n", 1).map(drop))
                    })
                    .unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let sum: i64 = ana
        .read(|view| {
            let many = view.collection("counters")?.page(&RowRange::all().with("many"))?;
            assert_eq!(many.rows.len(), 100);
            Ok(many.rows.iter().filter_map(|row| row.integer("n")).sum())
        })
        .unwrap();
    assert_eq!(sum, 10_000);
    verified(&larder);
}

/// The ends of inverted texts and of entries were taken for bytes in the midst of a text: such an index could not be read.
#[test]
fn p5_an_index_goes_by_texts_backwards() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let values: Vec<Part> = vec![
        "2024-01-01".into(),
        "".into(),
        "a".into(),
        "a\0b".into(),
        "a\0".into(),
        Part::Bytes(vec![1]),
        Part::Bytes(vec![1, 0]),
        Part::Bytes(vec![1, 0, 255]),
        Part::Symbol("s".to_owned()),
        7.into(),
        Part::Nil,
    ];
    let definition = CollectionDefinition::new()
        .index(IndexDefinition::new("back").unique().by_descending("v"))
        .index(IndexDefinition::new("forth").by("v"));
    ana.write(|txn| txn.define_collection("c", &definition)).unwrap();
    ana.write(|txn| {
        let mut rows = txn.collection("c")?;
        for (number, value) in values.iter().enumerate() {
            assert!(!rows.put(number as u64, RowDraft::default().field("v", value.clone()))?);
        }
        Ok(())
    })
    .unwrap();
    verified(&larder);
    let view = ana.snapshot().unwrap();
    let rows = view.collection("c").unwrap();
    let found = |index: &str, range: RowRange| -> Vec<Part> {
        rows.find(index, &range).unwrap().rows.iter().map(|row| row.field("v").unwrap()).collect()
    };
    let mut sorted = values.clone();
    sorted.sort();
    assert_eq!(found("forth", RowRange::all()), sorted);
    for value in &values {
        for index in ["forth", "back"] {
            assert_eq!(
                found(index, RowRange::all().with(value.clone())),
                std::slice::from_ref(value),
                "{index}"
            );
            let at_most: Vec<Part> = sorted.iter().filter(|one| *one <= value).cloned().collect();
            let mut is = found(index, RowRange::all().at_most(value.clone()));
            is.sort();
            assert_eq!(is, at_most, "{index}: at most {value:?}");
            let at_least: Vec<Part> = sorted.iter().filter(|one| *one >= value).cloned().collect();
            let mut is = found(index, RowRange::all().at_least(value.clone()));
            is.sort();
            assert_eq!(is, at_least, "{index}: at least {value:?}");
        }
    }
    sorted.reverse();
    assert_eq!(found("back", RowRange::all()), sorted);
    // Page by page, and gone one by one.
    let (mut paged, mut range) = (Vec::new(), RowRange::all().limit(2));
    loop {
        let page = rows.find("back", &range).unwrap();
        paged.extend(page.rows.iter().map(|row| row.field("v").unwrap()));
        let Some(next) = page.next else { break };
        range = RowRange::all().limit(2).after(next);
    }
    assert_eq!(paged, sorted);
    let twice = ana.write(|txn| txn.collection("c")?.put(99, RowDraft::default().field("v", "a")).map(drop));
    assert_eq!(kind_of(twice), "NotUnique");
    ana.write(|txn| (0..values.len()).try_for_each(|n| txn.collection("c")?.remove(n as u64).map(drop)))
        .unwrap();
    verified(&larder);
}

/// A text was found, and removed, with those that only begin with it.
#[test]
fn p5_a_key_is_not_a_longer_one_that_begins_with_it() {
    let (larder, ana) = with_jobs();
    ana.write(|txn| {
        let mut rows = txn.collection("jobs")?;
        rows.put(("a", 1), RowDraft::default())?;
        rows.put(("a\0b", 1), RowDraft::default())?;
        rows.put((Part::Bytes(vec![1]), 1), RowDraft::default())?;
        rows.put((Part::Bytes(vec![1, 0]), 1), RowDraft::default()).map(drop)
    })
    .unwrap();
    let view = ana.snapshot().unwrap();
    let rows = view.collection("jobs").unwrap();
    for part in [Part::from("a"), Part::from("a\0b"), Part::Bytes(vec![1]), Part::Bytes(vec![1, 0])] {
        let found = rows.page(&RowRange::all().with(part.clone())).unwrap().rows;
        assert_eq!(found.iter().map(|row| row.key().parts()[0].clone()).collect::<Vec<_>>(), [part]);
    }
    // More values than there are fields are refused, and not left out.
    assert_eq!(kind_of(rows.find("state", &RowRange::all().with("ready").with(5))), "InvalidArgument");
    assert_eq!(kind_of(rows.find("state", &RowRange::all().with("ready").at_least(5))), "InvalidArgument");
    assert_eq!(kind_of(rows.aggregate("by state", &[])), "InvalidArgument");
    verified(&larder);
}

/// Who asked an index for nothing made the store believe that there is nothing.
#[test]
fn a_page_of_no_rows_hides_none() {
    let (larder, ana) = with_jobs();
    ana.write(|txn| {
        let mut jobs = txn.collection("jobs")?;
        (0..5).try_for_each(|number| jobs.put(number, job("ready", 10 - number, number)).map(drop))
    })
    .unwrap();
    ana.write(|txn| {
        let mut jobs = txn.collection("jobs")?;
        assert!(jobs.find("ready", &RowRange::all().limit(0))?.rows.is_empty());
        jobs.put(9, job("ready", 1, 9)).map(drop)
    })
    .unwrap();
    let found = ana.write(|txn| txn.collection("jobs")?.find("ready", &RowRange::all())).unwrap().value;
    assert_eq!(found.rows.len(), 6);
    verified(&larder);
}

/// It was cut to what a counter may be, and stored so.
#[test]
fn s2_5_what_is_beyond_a_counter_is_refused_and_stays() {
    let (larder, ana) = with_jobs();
    ana.write(|txn| txn.collection("jobs")?.put(1, RowDraft::default().field("n", u64::MAX))).unwrap();
    for delta in [0, -1, 1, i64::MAX] {
        assert_eq!(kind_of(ana.write(|txn| txn.collection("jobs")?.add(1, "n", delta))), "CounterOutOfRange");
    }
    let row = ana.snapshot().unwrap().collection("jobs").unwrap().get(1).unwrap().unwrap();
    assert_eq!(row.field("n"), Some(u64::MAX.into()));
    verified(&larder);
}

#[test]
fn p11_an_insert_decides_once() {
    let (_larder, ana) = with_jobs();
    let decide = |value: &'static str| {
        ana.write(|txn| txn.collection("jobs")?.insert(("route", 7), value)).unwrap().value
    };
    assert_eq!(decide("left"), Inserted::First);
    let Inserted::Existing(row) = decide("right") else { panic!("it was decided") };
    assert_eq!(row.value().as_ref(), b"left");
}

#[test]
fn a_collection_is_defined_anew_only_if_every_row_fits() {
    let (larder, ana) = with_jobs();
    ana.write(|txn| {
        let mut jobs = txn.collection("jobs")?;
        (0..10).try_for_each(|key| jobs.put(key, job("ready", key / 2, key)).map(drop))
    })
    .unwrap();
    let define =
        |definition: &CollectionDefinition| ana.write(|txn| txn.define_collection("jobs", definition));
    assert_eq!(define(&jobs()).unwrap().value, Defined::Unchanged);
    let priority = jobs().index(IndexDefinition::new("priority").unique().by("priority"));
    assert_eq!(kind_of(define(&priority)), "NotUnique");
    let order =
        CollectionDefinition::new().index(IndexDefinition::new("order").unique().by_descending("order"));
    assert_eq!(define(&order).unwrap().value, Defined::Changed);
    let found = ana.read(|view| view.collection("jobs")?.find("order", &RowRange::all().limit(2))).unwrap();
    assert_eq!(keys(&found.rows), numbers([9, 8]));
    assert_eq!(
        kind_of(ana.read(|view| view.collection("jobs")?.find("ready", &RowRange::all()))),
        "InvalidArgument"
    );
    verified(&larder);
    for (definition, what) in [
        (CollectionDefinition::new().index(IndexDefinition::new("empty")), "an index without a field"),
        (CollectionDefinition::new().index(IndexDefinition::new(" ").by("a")), "an index without a name"),
        (jobs().index(IndexDefinition::new("ready").by("a")), "two of one name"),
        (
            (0..33).fold(CollectionDefinition::new(), |all, n| {
                all.index(IndexDefinition::new(n.to_string()).by("a"))
            }),
            "too many",
        ),
    ] {
        assert_eq!(kind_of(define(&definition)), "InvalidArgument", "{what}");
    }
}

#[test]
fn a_collection_is_moved_and_removed_with_what_is_in_it() {
    let (larder, ana) = with_jobs();
    ana.write(|txn| txn.collection("jobs")?.put(1, job("ready", 1, 1)).map(drop)).unwrap();
    assert_eq!(kind_of(ana.put("jobs", "an asset")), "IsACollection");
    assert_eq!(kind_of(ana.copy("jobs", "copy")), "IsACollection");
    ana.put("asset", "x").unwrap();
    assert_eq!(kind_of(ana.copy("asset", "jobs")), "IsACollection");
    assert_eq!(kind_of(ana.write(|txn| txn.collection("asset").map(drop))), "NotACollection");
    assert_eq!(kind_of(ana.write(|txn| txn.define_collection("asset", &jobs()))), "AlreadyExists");
    assert_eq!(kind_of(ana.write(|txn| txn.collection("nothing").map(drop))), "NotFound");
    assert_eq!(kind_of(ana.get("jobs").unwrap().bytes()), "PayloadUnavailable");
    ana.rename("jobs", "old/jobs").unwrap();
    ana.rename_tree("old", "older").unwrap();
    let row = ana.read(|view| view.collection("older/jobs")?.get(1)).unwrap();
    assert!(row.is_some());
    assert_eq!(verified(&larder).rows, 1);
    // Made again under the same name, it is another one.
    ana.delete_tree("older").unwrap();
    assert_eq!(verified(&larder).rows, 0);
    assert_eq!(
        ana.write(|txn| txn.define_collection("older/jobs", &jobs())).unwrap().value,
        Defined::Created
    );
    assert_eq!(ana.read(|view| view.collection("older/jobs")?.total()).unwrap().count, 0);
    ana.write(|txn| {
        let mut jobs = txn.collection("older/jobs")?;
        (0..5).try_for_each(|key| jobs.put(key, job("ready", 0, key)).map(drop))?;
        assert_eq!(jobs.clear()?, 5);
        jobs.put(7, job("ready", 0, 7))?;
        assert_eq!(keys(&jobs.find("ready", &RowRange::all())?.rows), numbers([7]));
        Ok(())
    })
    .unwrap();
    ana.delete("older/jobs").unwrap();
    verified(&larder);
}

#[test]
fn rules_and_limits_hold_for_rows_at_the_key_of_their_collection() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    let rights = CollectionRights {
        read: vec![Right::READ, Right::CONSUME],
        insert: vec![Right::ENQUEUE],
        change: vec![Right::CONSUME],
        remove: vec![Right::CONSUME],
    };
    root.write(|txn| txn.define_collection("queue", &jobs().rights(rights))).unwrap();
    root.write(|txn| txn.define_collection("hidden", &jobs())).unwrap();
    root.set_document(
        DocumentKind::Rules,
        "default = \"deny\"\n[[rule]]\non = \"queue\"\nwho = [\"maker\"]\nallow = [\"enqueue\"]\n\
         [[rule]]\non = \"queue\"\nwho = [\"worker\"]\nallow = [\"consume\"]\n",
    )
    .unwrap();
    root.set_document(DocumentKind::Limits, "[[limit]]\non = \"queue\"\nmax_binary_size = \"100 B\"\n")
        .unwrap();
    let as_user = |name: &str| larder.session(name).unwrap();
    let put = |name: &str, value: usize| {
        as_user(name)
            .write(|txn| txn.collection("queue")?.put(1, vec![b'x'; value]))
            .map(|receipt| receipt.value)
    };
    assert!(!put("maker", 100).unwrap());
    assert_eq!(kind_of(put("maker", 100)), "AccessDenied", "a maker does not change what is there");
    assert_eq!(kind_of(put("worker", 101)), "BinaryTooLarge");
    assert!(put("worker", 99).unwrap());
    // A limit that is lowered later does not concern what is there.
    root.set_document(DocumentKind::Limits, "[[limit]]\non = \"queue\"\nmax_binary_size = \"50 B\"\n")
        .unwrap();
    assert!(put("worker", 98).unwrap());
    assert_eq!(kind_of(put("worker", 99)), "BinaryTooLarge");
    assert_eq!(kind_of(as_user("maker").read(|view| view.collection("queue")?.get(1))), "AccessDenied");
    assert!(as_user("worker").read(|view| view.collection("queue")?.get(1)).unwrap().is_some());
    assert_eq!(kind_of(as_user("maker").write(|txn| txn.collection("queue")?.remove(1))), "AccessDenied");
    assert!(as_user("worker").write(|txn| txn.collection("queue")?.remove(1)).unwrap().value);
    for name in ["hidden", "nothing"] {
        assert_eq!(kind_of(as_user("worker").read(|view| view.collection(name).map(drop))), "NotFound");
        assert_eq!(
            kind_of(as_user("worker").write(|txn| txn.define_collection(name, &jobs()))),
            "AccessDenied"
        );
    }
}

#[test]
fn the_feed_names_every_row_and_snapshots_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let (larder, ana) = with_jobs();
    let full = larder.snapshot(folder.path().join("full"), &SnapshotOptions::new()).unwrap();
    let subscription = ana.subscribe("jobs", 10).unwrap();
    let commit = ana.write(|txn| txn.collection("jobs")?.put(("a", 1), job("ready", 1, 1))).unwrap().commit;
    ana.write(|txn| txn.collection("jobs")?.remove(("a", 1))).unwrap();
    ana.write(|txn| txn.collection("jobs")?.put(("b", 2), job("ready", 1, 1))).unwrap();
    let events = ana.feed_since(commit.sequence - 1, 10).unwrap();
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.row.clone().unwrap())).collect();
    let key = |name: &str, number: i64| Tuple::new(vec![name.into(), number.into()]).unwrap();
    assert_eq!(
        told,
        [
            (EventKind::RowPut, key("a", 1)),
            (EventKind::RowRemoved, key("a", 1)),
            (EventKind::RowPut, key("b", 2))
        ]
    );
    assert!(subscription.next_within(std::time::Duration::ZERO).is_some());
    larder.snapshot(folder.path().join("increment"), &SnapshotOptions::new().since(full.info)).unwrap();
    let paths = [folder.path().join("full"), folder.path().join("increment")];
    let to = folder.path().join("back.larder");
    larder::restore(&paths, &to, &larder::RestoreOptions::new()).unwrap();
    let back = still().open(&to).unwrap();
    assert!(dump(&back) == dump(&larder));
    let number = |session: &Session| session.write(|txn| Ok(txn.unique_number())).unwrap().value;
    let given_out = number(&ana);
    let below = folder.path().join("below");
    larder.snapshot(&below, &SnapshotOptions::new().below("jobs").unwrap()).unwrap();
    let part = folder.path().join("part.larder");
    larder::restore(&[below], &part, &larder::RestoreOptions::new()).unwrap();
    let part = still().open(&part).unwrap();
    assert_eq!(verified(&part).rows, 1);
    assert!(number(&part.session("ana").unwrap()) > given_out, "no number is given out twice");
}

#[test]
fn x_6_a_repaired_file_is_what_it_was_and_salvage_finds_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.larder");
    let larder = still().open(&path).unwrap();
    let ana = larder.session("ana").unwrap();
    ana.write(|txn| {
        let _ = txn.define_collection("jobs", &jobs())?;
        let mut jobs = txn.collection("jobs")?;
        (0..300).try_for_each(|key| jobs.put(key, job("ready", key % 7, key).field("cost", key)).map(drop))
    })
    .unwrap();
    ana.write(|txn| txn.collection("jobs")?.remove(17)).unwrap();
    let before = dump(&larder);
    larder.close().unwrap();
    let repaired = folder.path().join("repaired.larder");
    larder::repair(&path, &repaired).unwrap();
    assert!(dump(&still().open(&repaired).unwrap()) == before, "derived again, every index is the same");
    let saved = folder.path().join("saved.larder");
    let report = larder::salvage(&path, &saved).unwrap();
    assert!(report.verified.is_clean(), "{report:?}");
    assert_eq!(report.verified.rows, 299);
}

#[derive(Debug, Clone)]
enum Step {
    Put(i64, i64, i64),
    Remove(i64),
    First,
    Clear,
    Define(bool),
}

fn steps() -> impl Strategy<Value = Vec<(Vec<Step>, bool)>> {
    let step = prop_oneof![
        6 => (0..20i64, 0..4i64, 0..4i64).prop_map(|(key, a, b)| Step::Put(key, a, b)),
        4 => (0..20i64).prop_map(Step::Remove),
        6 => Just(Step::First),
        1 => Just(Step::Clear),
        1 => any::<bool>().prop_map(Step::Define),
    ];
    prop::collection::vec((prop::collection::vec(step, 1..8), prop::bool::weighted(0.8)), 1..40)
}

fn model_definition(is_other: bool) -> CollectionDefinition {
    let definition = CollectionDefinition::new()
        .index(IndexDefinition::new("a").by("a").by_descending("b"))
        .aggregate(AggregateDefinition::new("a").group_by("a").sum("b").only("b", [1, 2, 3]));
    if is_other { definition.index(IndexDefinition::new("b").by("b")) } else { definition }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is put, taken from the front, cleared and given up: indexes and aggregates say what a map says.
    #[test]
    fn x_1_rows_are_what_a_map_says(transactions in steps(), drains in any::<bool>()) {
        let larder = in_memory();
        let ana = larder.session("ana").unwrap();
        let _ = ana.write(|txn| txn.define_collection("rows", &model_definition(false))).unwrap();
        let mut model: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (steps, is_kept) in transactions {
            let mut next = model.clone();
            let outcome = ana.write(|txn| {
                for step in steps {
                    if let Step::Define(is_other) = step {
                        let _ = txn.define_collection("rows", &model_definition(is_other))?;
                        continue;
                    }
                    let mut rows = txn.collection("rows")?;
                    match step {
                        Step::Put(key, a, b) => {
                            let was = rows.put(key, RowDraft::new("v").field("a", a).field("b", b))?;
                            assert_eq!(was, next.insert(key, (a, b)).is_some());
                        }
                        Step::Remove(key) => assert_eq!(rows.remove(key)?, next.remove(&key).is_some()),
                        Step::Clear => {
                            assert_eq!(rows.clear()?, next.len() as u64);
                            next.clear();
                        }
                        _ => {
                            let found = rows.find("a", &RowRange::all().limit(1))?.rows;
                            let first = next.iter().min_by_key(|(key, (a, b))| (*a, -*b, **key)).map(|(key, _)| *key);
                            assert_eq!(keys(&found), numbers(first));
                            if let Some(first) = first {
                                rows.remove(first)?;
                                next.remove(&first);
                            }
                        }
                    }
                }
                if is_kept { Ok(()) } else { Err(Error::abort("given up")) }
            });
            if outcome.is_ok() {
                model = next;
            }
            if drains {
                larder.flush().unwrap();
            }
            let view = ana.snapshot().unwrap();
            let rows = view.collection("rows").unwrap();
            let mut expected: Vec<_> = model.iter().map(|(key, (a, b))| (*a, -*b, *key)).collect();
            expected.sort_unstable();
            let found = rows.find("a", &RowRange::all()).unwrap().rows;
            prop_assert_eq!(keys(&found), numbers(expected.iter().map(|(_, _, key)| *key)));
            let entries = rows.entries("a", &RowRange::all()).unwrap().entries;
            let said = entries.iter().map(|entry| (entry.values.clone(), entry.row.parts().to_vec()));
            let right = expected.iter().map(|(a, b, key)| (numbers([*a, -*b]), numbers([*key])));
            prop_assert_eq!(said.collect::<Vec<_>>(), right.collect::<Vec<_>>());
            let of_two = expected.iter().filter(|(a, ..)| *a == 2).count();
            prop_assert_eq!(rows.count("a", &RowRange::all().with(2)).unwrap(), of_two as u64);
            prop_assert_eq!(rows.total().unwrap().count, model.len() as u64);
            for group in 0..4 {
                let of_group = model.values().filter(|(a, b)| *a == group && *b > 0);
                let (count, sum) = of_group.fold((0, 0), |(count, sum), (_, b)| (count + 1, sum + i128::from(*b)));
                prop_assert_eq!(rows.aggregate("a", &[group.into()]).unwrap(), Aggregate { count, sum });
            }
        }
        verified(&larder);
    }
}

/// A collection that was opened before is opened as it is now, whatever the transaction did to it meanwhile.
#[test]
fn a_collection_is_opened_as_it_is_in_the_transaction() {
    let (larder, _) = with_jobs();
    let root = larder.root().unwrap();
    let ana = larder.session("ana").unwrap();
    let rows =
        |txn: &mut larder::WriteTxn<'_>, key: &str| txn.collection(key)?.total().map(|total| total.count);
    root.write(|txn| {
        txn.collection("jobs")?.put(1, job("ready", 1, 1))?;
        let _ = txn.annotate("jobs", larder::Annotation::new().attribute("of", "all of them"))?;
        assert_eq!(txn.collection("jobs")?.record().attribute("of"), Some("all of them".into()));
        let other = CollectionDefinition::new().index(IndexDefinition::new("by state").by("state"));
        assert_eq!(txn.define_collection("jobs", &other)?, Defined::Changed);
        assert_eq!(txn.collection("jobs")?.find("by state", &RowRange::all())?.rows.len(), 1);
        let _ = txn.apply(larder::Edit::rename("jobs", "work"))?;
        assert_eq!(kind_of(rows(txn, "jobs")), "NotFound");
        assert_eq!(rows(txn, "work")?, 1);
        let _ = txn.delete("work")?;
        assert_eq!(kind_of(rows(txn, "work")), "NotFound");
        let _ = txn.define_collection("work", &jobs())?;
        assert_eq!(rows(txn, "work")?, 0, "another one");
        let _ = txn.apply(larder::Edit::delete_tree("work"))?;
        assert_eq!(kind_of(rows(txn, "work")), "NotFound");
        let _ = txn.define_collection("work", &jobs())?;
        Ok(())
    })
    .unwrap();
    root.set_document(DocumentKind::Rules, "default = \"deny\"\n").unwrap();
    assert_eq!(kind_of(ana.write(|txn| rows(txn, "work"))), "NotFound");
    verified(&larder);
}

#[derive(Debug, Clone, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
struct Menu {
    name: String,
    dishes: Vec<(u16, Option<i64>)>,
    price: f64,
}

/// The same bytes, under another name.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
struct Card {
    name: String,
    dishes: Vec<(u16, Option<i64>)>,
    price: f64,
}

fn menu(dishes: u16) -> Menu {
    let dishes = (0..dishes).map(|n| (n, n.is_multiple_of(3).then_some(-i64::from(n)))).collect();
    Menu { name: "lunch, the long one of a Sunday".to_owned(), dishes, price: 12.5 }
}

/// A typed value of a row comes back as it was put, however long it is, and is found by its fields as any other: in the transaction
/// that puts it, after it, in memory, on a file, and after a crash.
#[test]
fn a_typed_value_of_a_row_comes_back_as_it_was() {
    const LENGTHS: [u16; 4] = [0, 1, 200, 40_000];
    let check = |row: &Row| {
        let length = row.integer("length").unwrap() as u16;
        let typed = row.typed::<Menu>().unwrap();
        assert_eq!((typed.name.as_str(), typed.dishes.len()), (menu(0).name.as_str(), length.into()));
        assert_eq!(typed.deserialize().unwrap(), menu(length));
        assert!(row.value().len() >= usize::from(length) * 4, "it lies in the value");
    };
    everywhere(
        |larder, _| {
            let ana = larder.session("ana").unwrap();
            let definition = CollectionDefinition::new().index(IndexDefinition::new("length").by("length"));
            ana.write(|txn| txn.define_collection("menus", &definition)).unwrap();
            for (length, key) in LENGTHS.into_iter().zip(0_i64..) {
                ana.write(|txn| {
                    let mut menus = txn.collection("menus")?;
                    menus.put(key, RowDraft::typed(&menu(length))?.field("length", i64::from(length)))?;
                    check(&menus.get(key)?.unwrap());
                    Ok(())
                })
                .unwrap();
            }
            // Put again with another field, it is the same value.
            ana.write(|txn| {
                let mut menus = txn.collection("menus")?;
                let row = menus.get(2)?.unwrap();
                menus.put(2, row.to_draft().field("seen", true))
            })
            .unwrap();
            let view = ana.snapshot().unwrap();
            let found =
                view.collection("menus").unwrap().find("length", &RowRange::all().at_least(200)).unwrap();
            assert_eq!(keys(&found.rows), numbers([2, 3]));
            // What was read stays good when the row has gone.
            let kept = found.rows[0].typed::<Menu>().unwrap();
            ana.write(|txn| txn.collection("menus")?.clear()).unwrap();
            drop((view, found));
            assert_eq!(kept.deserialize().unwrap(), menu(200));
            ana.write(|txn| {
                txn.collection("menus")?.put(9, RowDraft::typed(&menu(7))?.field("length", 7)).map(drop)
            })
            .unwrap();
        },
        |larder| {
            let view = larder.root().unwrap().snapshot().unwrap();
            let Ok(menus) = view.collection("menus") else { return };
            menus.page(&RowRange::all()).unwrap().rows.iter().for_each(check);
        },
    );
}

/// What is no typed value, one of another type, or not whole, is refused with what is wrong, and never read as something that it is
/// not; nor does any damage end in a panic.
#[test]
fn a_value_of_a_row_of_another_type_or_with_damage_is_refused() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    ana.write(|txn| txn.define_collection("menus", &CollectionDefinition::new())).unwrap();
    let row_of = |draft: RowDraft| {
        ana.write(|txn| txn.collection("menus")?.put(1, draft)).unwrap();
        ana.read(|view| view.collection("menus")?.get(1)).unwrap().unwrap()
    };
    let row = row_of(RowDraft::typed(&menu(3)).unwrap());
    let good = row.value().to_vec();
    row.typed::<Menu>().unwrap();
    let other = row.typed::<Card>().unwrap_err();
    assert!(matches!(other.kind(), ErrorKind::TypeMismatch { what } if what.contains("Card")), "{other}");
    assert_eq!(kind_of(row.typed::<u64>()), "TypeMismatch");
    // Bytes that nobody has archived.
    for bytes in [vec![], b"soup".to_vec(), vec![0; 48], vec![255; 200]] {
        let kind = kind_of(row_of(RowDraft::new(bytes)).typed::<Menu>());
        assert!(matches!(kind, "TypeMismatch" | "Corrupt"), "{kind}");
    }
    // Too short, by any number of bytes.
    for length in 0..good.len() {
        let kind = kind_of(row_of(RowDraft::new(good[..length].to_vec())).typed::<Menu>());
        assert!(matches!(kind, "TypeMismatch" | "Corrupt"), "{length} of {} bytes: {kind}", good.len());
    }
    // One bit that is not what it was: refused, or another value of the same type.
    let mut refused = 0;
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match row_of(RowDraft::new(bytes)).typed::<Menu>() {
            Ok(value) => drop(value.deserialize()),
            Err(error) => {
                let kind = error.kind().name();
                assert!(matches!(kind, "TypeMismatch" | "Corrupt"), "bit {bit}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 48 * 8 / 2, "{refused} of {} bits are noticed", good.len() * 8);
    verified(&larder);
}

/// A typed value may be as long as any value of a row: 16 MiB with its envelope, and not a byte more.
#[test]
fn a_typed_value_of_a_row_has_the_limit_of_any() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    ana.write(|txn| txn.define_collection("c", &CollectionDefinition::new())).unwrap();
    let put = |draft: RowDraft| ana.write(|txn| txn.collection("c")?.put(1, draft));
    let of = |length: usize| RowDraft::typed(&vec![7_u8; length]).unwrap();
    put(of(4)).unwrap();
    let envelope = ana.read(|view| view.collection("c")?.get(1)).unwrap().unwrap().value().len() - 4;
    // What is archived is filled up to a multiple of four.
    let longest = (16 << 20) - envelope;
    put(of(longest)).unwrap();
    let row = ana.read(|view| view.collection("c")?.get(1)).unwrap().unwrap();
    assert_eq!((row.value().len(), row.typed::<Vec<u8>>().unwrap().len()), (16 << 20, longest));
    let error = put(of(longest + 1)).unwrap_err();
    assert!(error.to_string().contains("more than the limit of 16 MiB"), "{error}");
    let row = ana.read(|view| view.collection("c")?.get(1)).unwrap().unwrap();
    assert_eq!(row.value().len(), 16 << 20, "what was there is there");
    verified(&larder);
}

/// S2-10. Children whose keys begin with that of their parent lie together: 100 parents with 5 children each are joined with one scan, or
/// with one seek for each parent, of one view; and how many others there are makes no difference.
#[test]
fn s2_10_children_are_joined_by_the_beginning_of_their_keys() {
    const PARENTS: i64 = 100;
    const CHILDREN: i64 = 5;
    let read = |others: i64| {
        let disk = FaultyDisk::default();
        let larder = disk.open(still(), true).unwrap();
        let ana = larder.session("ana").unwrap();
        let join = |txn: &mut larder::WriteTxn<'_>, parent: i64| {
            txn.collection("tasks")?.put(parent, RowDraft::new(vec![b't'; 100]))?;
            (0..CHILDREN).try_for_each(|child| {
                let row = RowDraft::new(vec![b'a'; 100]).field("child", child);
                txn.collection("actions")?.put((parent, child), row).map(drop)
            })
        };
        ana.write(|txn| {
            for name in ["tasks", "actions"] {
                let _ = txn.define_collection(name, &CollectionDefinition::new())?;
            }
            (0..PARENTS + others).try_for_each(|parent| join(txn, parent))
        })
        .unwrap();
        verified(&larder);
        larder.close().unwrap();
        let disk = FaultyDisk::holding(disk.current(), Plan::default());
        let larder = disk.open(still().cache_bytes(0), true).unwrap();
        let ana = larder.session("ana").unwrap();
        let view = ana.snapshot().unwrap();
        ana.write(|txn| {
            txn.collection("tasks")?.remove(7)?;
            join(txn, -1)
        })
        .unwrap();
        let counting = |act: &dyn Fn()| {
            let before = disk.reads();
            act();
            disk.reads() - before
        };
        let (tasks, actions) = (view.collection("tasks").unwrap(), view.collection("actions").unwrap());
        let parents = |parent: &Row| parent.key().parts()[0].clone();
        let all = RowRange::all().limit(PARENTS as usize);
        let by_seek = counting(&|| {
            let page = tasks.page(&all).unwrap();
            assert_eq!(keys(&page.rows), numbers(0..PARENTS), "as it was when the view was made");
            for parent in &page.rows {
                let children = actions.page(&RowRange::all().with(parents(parent))).unwrap().rows;
                let found: Vec<i64> = children.iter().map(|child| child.integer("child").unwrap()).collect();
                assert_eq!(found, [0, 1, 2, 3, 4]);
            }
        });
        let by_scan = counting(&|| {
            let page = tasks.page(&all).unwrap();
            let children = actions.page(&RowRange::all().limit((PARENTS * CHILDREN) as usize)).unwrap().rows;
            let joined = children.chunks(CHILDREN as usize).zip(&page.rows);
            assert!(
                joined.clone().all(|(of, parent)| of.iter().all(|child| parents(child) == parents(parent)))
            );
            assert_eq!(joined.len(), PARENTS as usize);
        });
        let one_by_one = counting(&|| {
            for parent in 0..PARENTS {
                assert!(tasks.get(parent).unwrap().is_some());
                (0..CHILDREN).for_each(|child| assert!(actions.get((parent, child)).unwrap().is_some()));
            }
        });
        (by_scan, by_seek, one_by_one)
    };
    let (scan, seek, one_by_one) = read(0);
    assert!(scan * 5 < seek && seek * 2 < one_by_one, "{scan}, {seek}, {one_by_one}");
    let (scan_of_many, seek_of_many, _) = read(20 * PARENTS);
    assert!(scan_of_many <= scan + 8, "{scan} reads of 100 in 100, {scan_of_many} in 2 100");
    assert!(seek_of_many <= seek + 2 * PARENTS as u64, "{seek} reads of 100 in 100, {seek_of_many} in 2 100");
}
