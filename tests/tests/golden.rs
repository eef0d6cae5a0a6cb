//! Files of released formats open, and are what they were. `tests/golden/vN.larder` was written by format N.

use std::sync::Arc;
use std::time::Duration;

use larder::format::Node;
use larder::{
    AggregateDefinition, Annotation, CollectionDefinition, DocumentKind, IndexDefinition, Larder, Options,
    RowDraft, RowRange, Status,
};
use larder_tests::kind_of;

fn path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// What the golden file holds. To write the file of a new format: `LARDER_WRITE_GOLDEN=1 cargo test -p larder-tests
/// --test golden`.
fn fill(larder: &Larder) {
    let ana = larder.session("ana").unwrap();
    ana.put(
        "menus/friday.json",
        larder::Draft::from("{\"soup\":\"leek\"}").tag("soup").attribute("servings", 4i64),
    )
    .unwrap();
    ana.put("notes/long.txt", "leeks and salt\n".repeat(1_000)).unwrap();
    ana.put("notes/copy.txt", "leeks and salt\n".repeat(1_000)).unwrap();
    ana.put(
        "raw.bin",
        (0..100_000u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect::<Vec<u8>>(),
    )
    .unwrap();
    ana.put("gone", larder::Draft::absent(larder::AbsentReason::Transient)).unwrap();
    ana.make_directory("empty").unwrap();
    larder.root().unwrap().set_document(DocumentKind::Rules, "default = \"allow\"\n").unwrap();
}

/// What the golden file of format 3 holds beside.
fn fill_rows(larder: &Larder) {
    let definition = CollectionDefinition::new()
        .index(IndexDefinition::new("by n").by_descending("n"))
        .aggregate(AggregateDefinition::new("all").sum("n"));
    let ana = larder.session("ana").unwrap();
    ana.write(|txn| {
        let _ = txn.define_collection("rows", &definition)?;
        let mut rows = txn.collection("rows")?;
        rows.put("a", RowDraft::new("x").field("n", 300))?;
        rows.put(("b", 2), RowDraft::new("y").field("n", 400)).map(drop)
    })
    .unwrap();
}

/// What the golden file of format 2 holds beside.
fn fill_life(larder: &Larder) {
    let ana = larder.session("ana").unwrap();
    let ready = |text: &str| larder::Draft::from(text).status(Status::Ready);
    ana.put("made/pie.txt", ready("pie").with(|about| about.depends_on("raw.bin").expires(5_000_000)))
        .unwrap();
    ana.write(|txn| txn.annotate("made/pie.txt", Annotation::new().title("a pie"))).unwrap();
    let claim = ana.claim("made/tart.txt").in_group("oven", 2).for_at_most(Duration::from_secs(60)).unwrap();
    assert_eq!(claim.detach(), 1);
    let claim = ana.claim("made/cake.txt").for_at_most(Duration::from_secs(60)).unwrap();
    assert_eq!(claim.detach(), 2);
    let _ = ana.cancel("made/cake.txt").unwrap();
    larder.root().unwrap().write(|txn| txn.set_external("command:bake", 7)).unwrap();
}

fn still() -> Options {
    let ids = Arc::new(larder::CountingIds::from(1));
    Options::new().inline().clock(Arc::new(larder::ManualClock::at(1_000_000))).ids(ids)
}

/// Looks at what every format has.
fn check(larder: &Larder, commits: u64) {
    let info = larder.info().unwrap();
    assert_eq!((info.last_commit.sequence, info.store_id), (commits, 1));
    assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
    let ana = larder.session("ana").unwrap();
    let dish = ana.get("menus/friday.json").unwrap();
    assert_eq!(dish.bytes().unwrap(), "{\"soup\":\"leek\"}");
    assert_eq!(dish.record().tags().collect::<Vec<_>>(), ["soup"]);
    assert_eq!(ana.get("notes/copy.txt").unwrap().bytes().unwrap(), "leeks and salt\n".repeat(1_000));
    assert_eq!(ana.open("raw.bin").unwrap().len(), 100_000);
    assert_eq!(ana.feed_since(0, 7).unwrap().len(), 7);
}

#[test]
fn x_10_a_file_of_format_1_is_upgraded_and_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("v1.larder");
    std::fs::copy(path("v1.larder"), &copy).unwrap();
    // In memory, for one who only looks.
    let looked_at = Options::new().open_read_only(&copy).unwrap();
    check(&looked_at, 7);
    assert_eq!(looked_at.info().unwrap().format, 1, "that is what the file has");
    drop(looked_at);
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(path("v1.larder")).unwrap());
    assert_eq!(kind_of(Larder::open(&copy)), "UpgradeRequired");
    let larder = Options::new().upgrade().open(&copy).unwrap();
    assert_eq!(larder.upgraded().unwrap().from, 1);
    check(&larder, 7);
    assert_eq!(larder.info().unwrap().format, 3);
    fill_life(&larder);
    larder.close().unwrap();
    let larder = Larder::open(&copy).unwrap();
    assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
    assert_eq!(larder.session("ana").unwrap().snapshot().unwrap().claims("").unwrap().len(), 1);
}

fn check_life(larder: &Larder) {
    let ana = larder.session("ana").unwrap();
    let why = ana.why("made/pie.txt").unwrap();
    assert_eq!(why.made_from.len(), 1);
    assert_eq!(why.miss, None);
    let view = ana.snapshot().unwrap();
    let dependents = view.dependents(&Node::Asset("raw.bin".parse().unwrap())).unwrap();
    assert_eq!(dependents, ["made/pie.txt".parse().unwrap()]);
    let [claim] = &view.claims("").unwrap()[..] else { panic!("one claim") };
    assert_eq!((claim.fence, claim.group.as_deref(), claim.until), (1, Some("oven"), 61_000_000));
    let [orphan] = &view.orphans().unwrap()[..] else { panic!("one that was revoked") };
    assert_eq!((orphan.fence, orphan.by.as_str()), (2, "ana"));
    assert_eq!(larder.next_deadline().unwrap().unwrap().at, 5_000_000);
}

#[test]
fn x_10_a_file_of_format_2_is_upgraded_and_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("v2.larder");
    std::fs::copy(path("v2.larder"), &copy).unwrap();
    assert_eq!(kind_of(still().open(&copy)), "UpgradeRequired");
    for options in [still().upgrade(), still()] {
        let larder = options.open(&copy).unwrap();
        check(&larder, 13);
        check_life(&larder);
        larder.close().unwrap();
    }
    let larder = still().open(&copy).unwrap();
    fill_rows(&larder);
    assert_eq!(larder.verify(&mut |_| {}).unwrap().rows, 2);
}

#[test]
fn x_10_a_file_of_format_3_opens_and_is_what_it_was() {
    if std::env::var_os("LARDER_WRITE_GOLDEN").is_some() {
        let _ = std::fs::remove_file(path("v3.larder"));
        let larder = still().open(path("v3.larder")).unwrap();
        fill(&larder);
        fill_life(&larder);
        fill_rows(&larder);
        larder.close().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("v3.larder");
    std::fs::copy(path("v3.larder"), &copy).unwrap();
    for is_read_only in [true, false] {
        let larder = if is_read_only { still().open_read_only(&copy) } else { still().open(&copy) }.unwrap();
        check(&larder, 14);
        assert_eq!(larder.info().unwrap().format, 3);
        check_life(&larder);
        let view = larder.root().unwrap().snapshot().unwrap();
        let rows = view.collection("rows").unwrap();
        let found = rows.find("by n", &RowRange::all()).unwrap().rows;
        let values: Vec<_> = found.iter().map(|row| row.value().as_ref()).collect();
        assert_eq!(values, [b"y", b"x"]);
        assert_eq!(rows.aggregate("all", &[]).unwrap().sum, 700);
        drop(view);
        larder.close().unwrap();
    }
}

#[test]
fn x_5_s4_1_t50_the_same_writes_give_the_same_state() {
    let state = || {
        let larder = still().open_in_memory().unwrap();
        fill(&larder);
        fill_life(&larder);
        larder.info().unwrap().state
    };
    assert_eq!(state(), state());
}
