//! The verbs for what is built on the store: queues, caches, rows and what they are found by.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::process::Command;
use std::time::Duration;

use larder::format::Tuple;
use larder::{
    AggregateDefinition, CollectionDefinition, IndexDefinition, Larder, Options, RowDraft, Session,
};
use larder_layers::queue::{Message, MessageState, Nack, Queue, QueueError, QueueSettings, Queues};
use larder_layers::remember::{Cache, Namespace, Parts, Remember};

/// A folder with a store in it.
struct Kitchen {
    folder: tempfile::TempDir,
}

impl Kitchen {
    /// Fills a store, and closes it.
    fn with(fill: impl FnOnce(&Session)) -> Self {
        let kitchen = Self { folder: tempfile::tempdir().unwrap() };
        kitchen.look(fill);
        kitchen
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("a.larder")
    }

    /// Opens the store; it is whole, before and after.
    fn look(&self, act: impl FnOnce(&Session)) {
        let larder = Options::new().inline().open(self.path()).unwrap();
        let verified = |larder: &Larder| {
            let report = larder.verify(&mut |_| {}).unwrap();
            assert!(report.is_clean(), "{:#?}", report.findings);
        };
        verified(&larder);
        act(&larder.session("ana").unwrap());
        verified(&larder);
        larder.close().unwrap();
    }

    /// Runs a verb; gives the code that it ended with, and what it said.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {error}");
        out
    }

    /// The identity of what is in the store.
    fn state(&self) -> String {
        let larder = Options::new().inline().open(self.path()).unwrap();
        let state = larder.info().unwrap().state;
        larder.close().unwrap();
        state
    }

    /// What a verb says where it fails; nothing is changed.
    fn fails(&self, arguments: &[&str]) -> String {
        let before = self.state();
        let (code, out, error) = self.run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {error}");
        assert_eq!(self.state(), before, "{arguments:?}");
        error
    }
}

fn squares() -> Namespace {
    Cache::at("cache").unwrap().namespace("square").unwrap()
}

fn of(number: i64) -> Parts {
    Parts::new().with("of", number).with("file", format!("src/{number}"))
}

/// Ten squares: of odd and of even numbers, from files of those names.
fn with_squares(ana: &Session) {
    for number in 0..10 {
        let how = Remember::new().tag(if number % 2 == 0 { "even" } else { "odd" });
        let how = if number == 9 { how.expires_after(Duration::from_micros(1)) } else { how };
        squares().store(ana, &of(number), (number * number).to_string(), &how).unwrap();
    }
}

fn numbers_there(kitchen: &Kitchen) -> Vec<i64> {
    let mut there = Vec::new();
    kitchen.look(|ana| {
        let is_there = |number: &i64| ana.exists(squares().fingerprint(&of(*number)).unwrap().key()).unwrap();
        there = (0..10).filter(is_there).collect();
        let total = squares().total(&ana.snapshot().unwrap()).unwrap();
        assert_eq!(total.count, there.len() as u64);
    });
    there
}

#[test]
fn s3_3_cache_invalidate_forgets_what_it_is_asked_to_and_says_how_much() {
    let kitchen = Kitchen::with(with_squares);
    let forget = |how: &[&str], is_json: bool| {
        let json: &[&str] = if is_json { &["--json"] } else { &[] };
        kitchen.ok(&[json, &["cache", "invalidate", "a.larder", "cache/square"], how].concat())
    };
    assert_eq!(forget(&["--part", "file=src/4"], false), "1 forgotten\n");
    assert_eq!(forget(&["--part", "file=src/4"], false), "0 forgotten\n");
    // A part that is a number is no text.
    assert_eq!(forget(&["--part", "of=5"], true), "{\"forgotten\":0}\n");
    assert_eq!(numbers_there(&kitchen), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(forget(&["--tag", "even"], true), "{\"forgotten\":4}\n");
    assert_eq!(numbers_there(&kitchen), [1, 3, 5, 7, 9]);
    assert_eq!(forget(&["--prefix", "file=src/3"], true), "{\"forgotten\":1}\n");
    assert_eq!(numbers_there(&kitchen), [1, 5, 7, 9]);
    assert_eq!(kitchen.ok(&["cache", "sweep", "a.larder", "cache/square"]), "1 forgotten\n");
    assert_eq!(forget(&[], false), "3 forgotten\n");
    assert_eq!(forget(&[], true), "{\"forgotten\":0}\n");
    assert!(numbers_there(&kitchen).is_empty());
    for bad in
        [&["--part", "file"][..], &["--tag", "odd", "--part", "a=b"], &["--tag", "a", "--prefix", "a=b"]]
    {
        kitchen.fails(&[&["cache", "invalidate", "a.larder", "cache/square"], bad].concat());
    }
    kitchen.fails(&["cache", "invalidate", "none.larder", "cache/square"]);
    assert!(!kitchen.folder.path().join("none.larder").exists());
}

/// Whoever mistypes the name of a namespace is told, and makes none.
#[test]
fn s3_3_cache_invalidate_makes_no_namespace() {
    let kitchen = Kitchen::with(with_squares);
    let mistyped = ["a.larder", "cache/squares"];
    for how in [&[][..], &["--tag", "even"], &["--part", "of=1"], &["--prefix", "of=1"]] {
        let error = kitchen.fails(&[&["cache", "invalidate"], &mistyped[..], how].concat());
        assert!(error.contains("cache/squares"), "{error}");
    }
    for verb in ["stat", "explain", "sweep"] {
        let error = kitchen.fails(&[&["cache", verb], &mistyped[..]].concat());
        assert!(error.contains("cache/squares"), "{verb}: {error}");
    }
    assert_eq!(kitchen.ok(&["cache", "ls", "a.larder", "cache"]).lines().count(), 1);
    assert_eq!(numbers_there(&kitchen).len(), 10);
}

fn owner(number: i64) -> String {
    format!("zebra-owner-{number:03}")
}

fn with_jobs(ana: &Session) {
    let definition = CollectionDefinition::new()
        .index(IndexDefinition::new("owner").by("owner"))
        .aggregate(AggregateDefinition::new("cost").sum("cost"));
    ana.write(|txn| {
        let _ = txn.define_collection("jobs", &definition)?;
        let mut jobs = txn.collection("jobs")?;
        (0..300_i64).try_for_each(|number| {
            jobs.put(number, RowDraft::default().field("owner", owner(number)).field("cost", number))
                .map(drop)
        })
    })
    .unwrap();
}

/// Turns a bit of the entry of a row in the index of its owners, and of nothing else.
fn damage(kitchen: &Kitchen, number: i64) {
    let mut entry = owner(number).into_bytes();
    entry.extend([0, 0]);
    entry.extend(Tuple::encode(&[number.into()]).unwrap());
    let mut bytes = std::fs::read(kitchen.path()).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - entry.len()).filter(|at| bytes[*at..].starts_with(&entry)).collect();
    assert_eq!(places.len(), 1);
    bytes[places[0] + entry.len() / 2] ^= 4;
    std::fs::write(kitchen.path(), bytes).unwrap();
}

#[test]
fn x_6_index_verify_ends_with_1_and_names_the_row_and_index_rebuild_mends_it() {
    let kitchen = Kitchen::with(with_jobs);
    // An entry for each row, and one for each of the two aggregates that there are: of all, and of their cost.
    assert_eq!(kitchen.ok(&["index", "verify", "a.larder"]), "300 rows, 302 entries\n");
    let clean = kitchen.ok(&["--json", "index", "verify", "a.larder"]);
    assert_eq!(clean, "{\"entries\":302,\"findings\":[],\"rows\":300}\n");
    damage(&kitchen, 150);
    let before = std::fs::read(kitchen.path()).unwrap();
    let (code, out, _) = kitchen.run(&["index", "verify", "a.larder"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.starts_with("300 rows, ") && out.contains("\n  jobs, row 150: "), "{out}");
    let (code, out, _) = kitchen.run(&["--json", "index", "verify", "a.larder"]);
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    let findings: Vec<&str> =
        said["findings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!((code, said["rows"].as_u64()), (1, Some(300)));
    assert!(findings.iter().any(|finding| finding.starts_with("jobs, row 150: ")), "{findings:?}");
    let (code, out, _) = kitchen.run(&["verify", "a.larder"]);
    assert!(code == 1 && out.contains("jobs, row 150"), "{out}");
    assert!(std::fs::read(kitchen.path()).unwrap() == before, "to look mends nothing");

    assert_eq!(kitchen.ok(&["index", "rebuild", "a.larder", "jobs"]), "302 entries\n");
    assert_eq!(kitchen.ok(&["index", "verify", "a.larder"]), "300 rows, 302 entries\n");
    assert_eq!(kitchen.ok(&["--json", "index", "rebuild", "a.larder", "jobs"]), "{\"entries\":302}\n");
    let by_owner = kitchen.ok(&["rows", "a.larder", "jobs", "--by", "owner"]);
    assert_eq!(by_owner.lines().count(), 300);
    assert!(by_owner.lines().nth(150).unwrap().starts_with("150 "), "{by_owner}");
    kitchen.fails(&["index", "rebuild", "a.larder", "none"]);
    kitchen.fails(&["index", "verify", "none.larder"]);
}

fn q() -> Queue {
    Queues::at("queues").unwrap().queue("q").unwrap()
}

/// Three that are ready, one in flight, and two dead letters.
fn with_messages(ana: &Session) {
    ana.try_write(|txn| -> Result<(), QueueError> {
        q().create(txn, &QueueSettings::new().attempts_max(1))?;
        let _ = q().enqueue_all(txn, (0..6).map(|number| Message::new(format!("{number}"))))?;
        for _ in 0..2 {
            let taken = q().dequeue(txn)?.unwrap();
            let _ = q().nack(txn, taken.token(), &Nack::new().reason("no leeks"))?;
        }
        q().dequeue(txn).map(drop)
    })
    .unwrap();
}

/// Ready, delayed, in flight, dead: counted.
fn counts(kitchen: &Kitchen) -> [u64; 4] {
    let mut counts = [0; 4];
    kitchen.look(|ana| {
        let view = ana.snapshot().unwrap();
        let stats = q().stats(&view).unwrap();
        counts = MessageState::ALL.map(|state| q().peek(&view, state, 100).unwrap().len() as u64);
        assert_eq!(counts, [stats.ready, stats.delayed, stats.in_flight, stats.dead]);
        assert_eq!(stats.enqueued, stats.acked + stats.purged + counts.iter().sum::<u64>());
    });
    counts
}

#[test]
fn s4_1_3_queue_redrive_lets_dead_letters_be_taken_again_as_many_as_are_asked_for() {
    let kitchen = Kitchen::with(with_messages);
    assert_eq!(counts(&kitchen), [3, 0, 1, 2]);
    let redrive = ["queue", "redrive", "a.larder", "queues/q"];
    assert_eq!(kitchen.ok(&[&redrive[..], &["--limit", "0"]].concat()), "0 redriven\n");
    assert_eq!(kitchen.ok(&[&redrive[..], &["--limit", "1"]].concat()), "1 redriven\n");
    assert_eq!(counts(&kitchen), [4, 0, 1, 1]);
    assert_eq!(kitchen.ok(&[&["--json"], &redrive[..]].concat()), "{\"redriven\":1}\n");
    assert_eq!(kitchen.ok(&[&["--json"], &redrive[..]].concat()), "{\"redriven\":0}\n");
    assert_eq!(counts(&kitchen), [5, 0, 1, 0]);
    kitchen.look(|ana| {
        let taken = ana.try_write(|txn| q().dequeue(txn)).unwrap().value.unwrap();
        assert_eq!((taken.payload().as_ref(), taken.attempts), (&b"0"[..], 1), "as if never tried");
    });
    assert!(kitchen.fails(&["queue", "redrive", "a.larder", "queues/none"]).contains("none"));
    kitchen.fails(&["queue", "redrive", "a.larder", "queues/a b"]);
}

#[test]
fn s4_1_3_queue_purge_removes_the_dead_letters_or_everything_and_says_how_much() {
    let kitchen = Kitchen::with(with_messages);
    let purge = ["queue", "purge", "a.larder", "queues/q"];
    assert_eq!(kitchen.ok(&[&purge[..], &["--dead"]].concat()), "2 purged\n");
    assert_eq!(counts(&kitchen), [3, 0, 1, 0]);
    assert_eq!(kitchen.ok(&[&["--json"], &purge[..], &["--dead"]].concat()), "{\"purged\":0}\n");
    assert_eq!(kitchen.ok(&[&["--json"], &purge[..]].concat()), "{\"purged\":4}\n", "what is in flight, too");
    assert_eq!(counts(&kitchen), [0, 0, 0, 0]);
    let stat = kitchen.ok(&["queue", "stat", "a.larder", "queues/q"]);
    assert!(stat.contains("6 enqueued") && stat.contains("6 purged"), "{stat}");
    assert!(kitchen.fails(&["queue", "purge", "a.larder", "queues/none"]).contains("none"));
}

#[test]
fn s2_5_counters_are_shown_for_people_and_for_programs() {
    let kitchen = Kitchen::with(|ana| {
        ana.write(|txn| {
            let _ = txn.define_collection("counts", &CollectionDefinition::new())?;
            let mut counts = txn.collection("counts")?;
            counts.add("soups", "served", 41)?;
            counts.add("soups", "served", 1)?;
            counts.add("soups", "spilt", -7)?;
            counts.put("text", RowDraft::default().field("n", "three").field("is", true))?;
            counts.add(("pies", 2), "baked", i64::MAX).map(drop)
        })
        .unwrap();
    });
    let json = kitchen.ok(&["--json", "counters", "a.larder", "counts"]);
    let said: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [
        serde_json::json!({"key": ["pies", 2], "field": "baked", "value": i64::MAX}),
        serde_json::json!({"key": ["soups"], "field": "served", "value": 42}),
        serde_json::json!({"key": ["soups"], "field": "spilt", "value": -7}),
    ];
    assert_eq!(said, expected, "what is no integer is no counter");
    let text = kitchen.ok(&["counters", "a.larder", "counts"]);
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    assert_eq!(
        lines,
        ["9223372036854775807  \"pies\" 2 baked", "42  \"soups\" served", "-7  \"soups\" spilt"]
    );
    assert_eq!(kitchen.ok(&["counters", "a.larder", "counts", "--limit", "1"]).lines().count(), 1);
    assert!(kitchen.fails(&["counters", "a.larder", "none"]).contains("none"));
}
