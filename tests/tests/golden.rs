//! Files of released formats open, and are what they were. `tests/golden/v1.larder` was written by format 1.

use larder::{DocumentKind, Larder, Options};

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

#[test]
fn x_10_a_file_of_format_1_opens_and_is_what_it_was() {
    if std::env::var_os("LARDER_WRITE_GOLDEN").is_some() {
        let _ = std::fs::remove_file(path("v1.larder"));
        let options = Options::new()
            .inline()
            .clock(std::sync::Arc::new(larder::ManualClock::at(1_000_000)))
            .ids(std::sync::Arc::new(larder::CountingIds::from(1)));
        let larder = options.open(path("v1.larder")).unwrap();
        fill(&larder);
        larder.close().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("v1.larder");
    std::fs::copy(path("v1.larder"), &copy).unwrap();
    for is_read_only in [true, false] {
        let larder =
            if is_read_only { Options::new().open_read_only(&copy) } else { Larder::open(&copy) }.unwrap();
        let info = larder.info().unwrap();
        assert_eq!((info.format, info.last_commit.sequence, info.store_id), (1, 7, 1));
        assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
        let ana = larder.session("ana").unwrap();
        let dish = ana.get("menus/friday.json").unwrap();
        assert_eq!(dish.bytes().unwrap(), "{\"soup\":\"leek\"}");
        assert_eq!(dish.record().tags().collect::<Vec<_>>(), ["soup"]);
        assert_eq!(ana.get("notes/copy.txt").unwrap().bytes().unwrap(), "leeks and salt\n".repeat(1_000));
        assert_eq!(ana.open("raw.bin").unwrap().len(), 100_000);
        assert_eq!(ana.feed_since(0, 100).unwrap().len(), 7);
        larder.close().unwrap();
    }
}

#[test]
fn t50_the_same_writes_give_the_same_state() {
    let state = || {
        let options = Options::new()
            .inline()
            .clock(std::sync::Arc::new(larder::ManualClock::at(1_000_000)))
            .ids(std::sync::Arc::new(larder::CountingIds::from(1)));
        let larder = options.open_in_memory().unwrap();
        fill(&larder);
        larder.info().unwrap().state
    };
    assert_eq!(state(), state());
}
