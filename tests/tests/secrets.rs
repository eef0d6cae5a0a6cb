//! What must not be anywhere: payloads in what is shown to people, and memory of the process in a file.

use std::fmt::Debug;

use larder::{Annotation, Draft, Edit, Options, RowDraft};
use larder_layers::queue::{Message, QueueSettings, Queues};
use larder_tests::in_memory;

/// What must not be shown: a payload, as text and as bytes are shown.
const CANARY: &str = "canary-in-the-pantry";

fn hidden(what: &str, shown: impl Debug) {
    let shown = format!("{shown:?} {shown:#?}");
    let numbers: Vec<String> = CANARY.bytes().map(|byte| byte.to_string()).collect();
    assert!(!shown.contains(CANARY) && !shown.contains(&numbers.join(", ")), "{what}: {shown}");
}

/// T39. Whatever has a payload shows how long it is.
#[test]
fn t39_no_payload_is_shown_by_what_has_one() {
    let larder = in_memory();
    let session = larder.root().unwrap();
    hidden("a draft", Draft::from(CANARY));
    hidden("an edit", Edit::put("a", CANARY));
    hidden("a prepared payload", session.prepare(&"a".parse().unwrap(), &mut CANARY.as_bytes(), &"".into()));
    hidden("a receipt", session.put("a", Draft::from(CANARY).tag("t")).unwrap());
    hidden("an asset", session.get("a").unwrap());
    hidden("a reader", session.open("a").unwrap());
    hidden("a lookup", session.get_loadable("a"));
    hidden("a record", session.record("a").unwrap());
    hidden("entries", session.list("").unwrap());
    hidden("what has a tag", session.find_by_tag("t").unwrap());
    hidden("what happened", session.feed_since(0, 10).unwrap());
    hidden("a refusal", session.annotate("b", Annotation::new().title("x")).unwrap_err());
    hidden("a refused edit", session.write(|txn| txn.put("a/b/../c", CANARY)).unwrap_err());
    session
        .write(|txn| {
            hidden("a transaction", &*txn);
            hidden("an asset in it", txn.get("a")?);
            hidden("a row that is to be put", RowDraft::new(CANARY));
            let _ = txn.define_collection("rows", &larder::CollectionDefinition::new())?;
            let mut rows = txn.collection("rows")?;
            rows.put(1, RowDraft::new(CANARY))?;
            hidden("rows", &rows);
            hidden("a row", rows.get(1)?.unwrap());
            Ok(())
        })
        .unwrap();
    hidden("a view", session.snapshot().unwrap());
    let queue = Queues::at("queues").unwrap().queue("q").unwrap();
    hidden("a message", Message::new(CANARY));
    let taken = session.try_write(|txn| {
        queue.create(txn, &QueueSettings::new())?;
        let _ = queue.enqueue(txn, Message::new(CANARY))?;
        queue.dequeue(txn)
    });
    hidden("a message that was taken", taken.unwrap().value.unwrap());
    hidden("a store", &larder);
    hidden("a session", &session);
    hidden("how it is", larder.health());
}

/// T30. What memory had before is not in a file: nothing is written that was not set.
#[test]
fn t30_nothing_of_the_memory_of_the_process_is_in_a_file() {
    const MARK: &[u8] = b"of another tenant";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.larder");
    let larder = Options::new().inline().log_segment_bytes(256 << 10).open(&path).unwrap();
    let session = larder.root().unwrap();
    let mark_memory = || {
        // Pieces of all sizes, so that whatever is asked for next may be one of them.
        let pieces: Vec<Vec<u8>> = (4..16)
            .flat_map(|bits| (0..64).map(move |_| MARK.repeat((1 << bits) / MARK.len() + 1)))
            .collect();
        drop(pieces);
    };
    let mut marked = 0;
    for number in 0..200_usize {
        mark_memory();
        session.put(format!("n/{number}"), vec![7; number * 97 % 9_000]).unwrap();
        if number % 50 == 49 {
            for file in std::fs::read_dir(folder.path()).unwrap() {
                let bytes = std::fs::read(file.unwrap().path()).unwrap();
                marked += bytes.windows(MARK.len()).filter(|window| *window == MARK).count();
            }
        }
    }
    drop(session);
    larder.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    marked += bytes.windows(MARK.len()).filter(|window| *window == MARK).count();
    assert_eq!(marked, 0);
}
