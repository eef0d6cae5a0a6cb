//! Every limit at its edge: what is one less and what is just as much is taken, one more is refused, and leaves nothing.

use std::fmt::Display;
use std::time::Duration;

use larder::format::{INDEX_FIELDS_MAX, INDEXES_MAX, ROW_VALUE_MAX};
use larder::{
    CollectionDefinition, DocumentKind, Draft, Edit, IndexDefinition, Key, Larder, PageRequest, Part,
    RowDraft, Session, Tuple,
};
use larder_layers::queue::{Message, QueueError, QueueSettings, Queues};
use larder_layers::runs::{Asset, PARTITION_LENGTH_MAX};
use larder_layers::tasks::{self, TaskDraft, Tasks};
use larder_tests::{Random, still, verified};

/// Tries a limit at its edge; gives what was said of one more.
#[track_caller]
fn edge<T, E: Display>(limit: usize, mut attempt: impl FnMut(usize) -> Result<T, E>) -> String {
    for size in [limit - 1, limit] {
        if let Err(error) = attempt(size) {
            panic!("{size} of {limit}: {error}");
        }
    }
    match attempt(limit + 1) {
        Ok(_) => panic!("{} of {limit} was taken", limit + 1),
        Err(error) => error.to_string(),
    }
}

fn store() -> (Larder, Session) {
    let larder = still().open_in_memory().unwrap();
    let session = larder.root().unwrap();
    (larder, session)
}

#[test]
fn x_8_payloads_metadata_and_tags() {
    let (larder, session) = store();
    let limits = "max_binary_size = \"1 MB\"\nmax_metadata_size = \"64 KiB\"\n\
                  [[limit]]\non = [\"small/**\"]\nmax_binary_size = \"10 B\"\n";
    session.set_document(DocumentKind::Limits, limits).unwrap();
    let put = |key: &str, size: usize| session.put(key, vec![7; size]);
    let told = edge(1_000_000, |size| put("payload", size));
    assert!(told.contains("1000001") || told.contains("1 000 001"), "{told}");
    assert_eq!(session.record("payload").unwrap().payload().length(), 1_000_000);
    edge(10, |size| put("small/payload", size));

    let annotated = |size: usize| Draft::from("x").with(|it| it.extra(vec![7; size]));
    session.put("metadata", annotated(1_000)).unwrap();
    let beside = session.record("metadata").unwrap().as_bytes().len() - 1_000;
    edge(64 << 10, |size| session.put("metadata", annotated(size - beside)));
    assert_eq!(session.record("metadata").unwrap().as_bytes().len(), 64 << 10);

    let tagged = |count: usize| (0..count).fold(Draft::from("x"), |draft, n| draft.tag(format!("tag {n}")));
    edge(64, |count| session.put("tags", tagged(count)));
    assert_eq!(session.record("tags").unwrap().tags().count(), 64);
    edge(128, |size| session.put("tag", Draft::from("x").tag("t".repeat(size))));
    verified(&larder);
}

#[test]
fn x_8_keys() {
    let (larder, session) = store();
    edge(255, |size| session.put("s".repeat(size), "x"));
    edge(64, |count| session.put(vec!["s"; count].join("/"), "x"));
    // Every segment takes a byte more than it has.
    let long = |size: usize| {
        let mut key = "s".repeat(size - 4 - 4 * 200);
        (0..4).for_each(|_| key += &format!("/{}", "t".repeat(199)));
        key
    };
    assert_eq!(Key::parse(&long(1_024)).unwrap().encoded().len(), 1_021);
    edge(1_027, |size| session.put(long(size), "x"));
    verified(&larder);
}

#[test]
fn x_8_pages() {
    let (_larder, session) = store();
    session.write(|txn| (0..150).try_for_each(|n| txn.put(format!("a/{n:03}"), "x").map(drop))).unwrap();
    let view = session.snapshot().unwrap();
    let page = |size: usize| view.page("a", &PageRequest::new().size(size)).unwrap().assets.len();
    assert_eq!(
        [page(0), page(1), page(99), page(100), page(101), page(usize::MAX)],
        [50, 1, 99, 100, 100, 100]
    );
}

#[test]
fn x_8_batches() {
    let (larder, session) = store();
    session.set_document(DocumentKind::Limits, "max_batch_count = 5\n").unwrap();
    let batch = |count: usize, size: usize| -> Vec<Edit> {
        (0..count)
            .map(|n| Edit::put(format!("b/{count}/{size:05}/{n}"), Random::new(7).bytes(size)))
            .collect()
    };
    let apply = |edits: Vec<Edit>| session.batch(edits, larder::BatchMode::Atomic);
    edge(5, |count| apply(batch(count, 1)));
    // What is counted is what the transaction has: also what goes with the payload.
    let with = |size: usize| match apply(batch(1, size)).unwrap_err().kind() {
        larder::ErrorKind::BatchTooLarge { size, .. } => usize::try_from(*size).unwrap(),
        other => panic!("{other:?}"),
    };
    session.set_document(DocumentKind::Limits, "max_batch_bytes = \"1800 B\"\n").unwrap();
    let beside = with(2_000) - 2_000;
    edge(1_800, |size| apply(batch(1, size - beside)));
    assert_eq!(session.snapshot().unwrap().walk("b").unwrap().count(), 4 + 5 + 1 + 1);
    verified(&larder);
}

#[test]
fn x_8_rows() {
    let (larder, session) = store();
    let rows = |act: &mut dyn FnMut(&mut larder::CollectionMut<'_, '_>) -> larder::Result<bool>| {
        session.write(|txn| act(&mut txn.collection("rows")?))
    };
    session.write(|txn| txn.define_collection("rows", &CollectionDefinition::new()).map(drop)).unwrap();
    // A text takes its tag and its end.
    let key = |size: usize| "k".repeat(size - 2);
    edge(Tuple::ENCODED_LEN_MAX, |size| rows(&mut |rows| rows.put(key(size), "x")));
    // Fields: the lists around them, and the label.
    let draft = |size: usize| RowDraft::default().field("f", "v".repeat(size - 9));
    edge(Tuple::ENCODED_LEN_MAX, |size| rows(&mut |rows| rows.put("fields", draft(size))));
    edge(ROW_VALUE_MAX, |size| rows(&mut |rows| rows.put("value", vec![7; size])));
    let nested = |depth: usize| (1..depth).fold(Part::List(Vec::new()), |inner, _| Part::List(vec![inner]));
    edge(Tuple::DEPTH_MAX, |depth| rows(&mut |rows| rows.put(nested(depth), "x")));
    edge(Tuple::DEPTH_MAX - 2, |depth| {
        rows(&mut |rows| rows.put("nested", RowDraft::default().field("f", nested(depth))))
    });

    let index = |n: usize| IndexDefinition::new(format!("i{n}")).by("f");
    let indexed = |count: usize| (0..count).fold(CollectionDefinition::new(), |it, n| it.index(index(n)));
    edge(INDEXES_MAX, |count| {
        session.write(|txn| txn.define_collection("indexes", &indexed(count)).map(drop))
    });
    let long = |count: usize| {
        let index = (0..count).fold(IndexDefinition::new("i"), |index, n| index.by(format!("f{n}")));
        CollectionDefinition::new().index(index)
    };
    edge(INDEX_FIELDS_MAX, |count| {
        session.write(|txn| txn.define_collection("fields", &long(count)).map(drop))
    });
    verified(&larder);
}

#[test]
fn x_8_queues() {
    let (larder, session) = store();
    let queues = Queues::at("queues").unwrap();
    edge(128, |size| queues.queue(&"q".repeat(size)));
    assert!(matches!(queues.queue(""), Err(QueueError::InvalidName { .. })));
    let queue = queues.queue("jobs").unwrap();
    let settings =
        QueueSettings::new().message_bytes_max(1_000).batch_bytes_max(2_000).messages_max(7).bytes_max(5_000);
    session.try_write(|txn| queue.create(txn, &settings)).unwrap();
    let enqueue = |sizes: &[usize]| {
        let messages: Vec<Message> = sizes.iter().map(|size| Message::new(vec![7; *size])).collect();
        session.try_write(|txn| queue.enqueue_all(txn, messages.clone()).map(drop))
    };
    let empty = || session.try_write(|txn| queue.purge(txn).map(drop)).unwrap();
    edge(1_000, |size| enqueue(&[size]));
    empty();
    edge(2_000, |size| enqueue(&[1_000, size - 1_000]));
    empty();
    edge(7, |count| {
        empty();
        enqueue(&vec![1; count])
    });
    empty();
    enqueue(&[1_000, 1_000]).unwrap();
    enqueue(&[1_000, 500]).unwrap();
    assert_eq!(queue.stats(&session.snapshot().unwrap()).unwrap().bytes, 3_500);
    enqueue(&[1_000]).unwrap();
    assert!(enqueue(&[501]).is_err());
    enqueue(&[500]).unwrap();
    assert!(enqueue(&[1]).is_err());
    verified(&larder);
}

#[test]
fn x_8_tasks_and_assets_of_runs() {
    let (larder, session) = store();
    let store = Tasks::at("tasks").unwrap();
    let create =
        |draft: TaskDraft| session.try_write(|txn| store.create(txn, std::slice::from_ref(&draft)).map(drop));
    let task = || TaskDraft::new("a", "a", "a");
    edge(tasks::NAME_LENGTH_MAX, |size| create(TaskDraft::new("a", "n".repeat(size), "a")));
    edge(tasks::KIND_LENGTH_MAX, |size| create(TaskDraft::new("a", "a", "k".repeat(size))));
    let priority = |size: usize| i32::try_from(size).unwrap();
    edge(priority_max(), |size| create(task().priority(priority(size))));
    edge(priority_max(), |size| create(task().priority(-priority(size))));
    edge(86_400, |seconds| create(task().timeout(Duration::from_secs(seconds as u64))));
    // {"m":"..."}
    edge(tasks::METADATA_LENGTH_MAX, |size| create(task().metadata("m", "v".repeat(size - 8))));

    edge(255, |size| Asset::of("n".repeat(size), 1));
    edge(PARTITION_LENGTH_MAX, |size| Asset::of("a", "p".repeat(size - 2)));
    verified(&larder);
}

fn priority_max() -> usize {
    usize::try_from(tasks::PRIORITY_MAX).unwrap()
}
