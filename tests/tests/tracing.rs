//! What is told to whoever traces the application.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::{Annotation, Edit, ManualClock, PageRequest, Session, Storage, TagPolicy};
use larder_tests::{FaultyDisk, FaultyStorage, STORE, in_memory, still};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Notes the operation and the place of every span of larder's.
#[derive(Clone, Default)]
struct Notes {
    spans: Arc<Mutex<Vec<(String, String)>>>,
    next: Arc<AtomicU64>,
}

#[derive(Default)]
struct Fields {
    operation: String,
    place: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "operation" => self.operation = value.to_owned(),
            "place" => self.place = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("larder")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        self.spans.lock().push((fields.operation, fields.place));
        Id::from_u64(self.next.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn s2_28_every_operation_has_one_span_with_what_it_is_about() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let notes = Notes::default();
    let seen = |expected: &[(&str, &str)]| {
        let spans = std::mem::take(&mut *notes.spans.lock());
        let spans: Vec<(&str, &str)> =
            spans.iter().map(|(operation, place)| (operation.as_str(), place.as_str())).collect();
        assert_eq!(spans, expected);
    };
    tracing::subscriber::with_default(notes.clone(), || {
        session.put("a/b", "x").unwrap();
        session.annotate("a/b", Annotation::new()).unwrap();
        session.tag("a/b", ["t"], TagPolicy::Union).unwrap();
        session.apply(Edit::delete("c")).unwrap();
        session.write(|txn| txn.put("a/c", "x")).unwrap();
        seen(&[("write", "a/b"), ("write", "a/b"), ("write", "a/b"), ("write", "c"), ("write", "")]);
        session.clone().named("stock up").put("a/c", "x").unwrap();
        seen(&[("stock up", "a/c")]);
        for _ in 0..2 {
            // Once from the view, and once from the cache.
            session.get("a/b").unwrap();
            session.record("a/b").unwrap();
        }
        seen(&[("get", "a/b"), ("record", "a/b"), ("get", "a/b"), ("record", "a/b")]);
        session.exists("a/b").unwrap();
        session.open("a/b").unwrap();
        session.list("a").unwrap();
        session.page("a", &PageRequest::new()).unwrap();
        session.find_by_tag("t").unwrap();
        larder.flush().unwrap();
        session.put_reader("a/d", &mut &b"x"[..], "").unwrap();
        session.feed_since(0, 1).unwrap();
        session.snapshot().unwrap().record("a/b").unwrap();
        larder.verify(&mut |_| {}).unwrap();
        seen(&[
            ("exists", "a/b"),
            ("open", "a/b"),
            ("list", "a"),
            ("page", "a"),
            ("find_by_tag", "t"),
            ("flush", ""),
            ("write", "a/d"),
            ("feed_since", ""),
            ("record", "a/b"),
            ("verify", ""),
        ]);
    });
}

/// A source that takes its time.
struct Slowly<'a>(&'a ManualClock, i64);

impl io::Read for Slowly<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.advance(std::mem::take(&mut self.1));
        Ok(0)
    }
}

/// A disk whose next sync takes its time.
#[derive(Debug)]
struct SlowDisk {
    storage: FaultyStorage,
    clock: Arc<ManualClock>,
    sync_micros: Arc<AtomicU64>,
}

impl Storage for SlowDisk {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.storage.set_len(length)
    }
    fn sync(&self) -> io::Result<()> {
        // Only the first: a commit may need more than one.
        self.clock.advance(self.sync_micros.swap(0, Ordering::Relaxed).cast_signed());
        self.storage.sync()
    }
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.storage.write(offset, bytes)
    }
}

type Told = Arc<Mutex<Vec<(&'static str, i64)>>>;

/// A session on a slow disk, and what was reported as slow.
fn told(clock: &Arc<ManualClock>, sync_micros: &Arc<AtomicU64>) -> (Session, Told) {
    let told = Told::default();
    let hook = Arc::clone(&told);
    let disk = SlowDisk {
        storage: FaultyDisk::default().file(STORE),
        clock: Arc::clone(clock),
        sync_micros: Arc::clone(sync_micros),
    };
    let larder = still()
        .clock(Arc::clone(clock) as _)
        .on_slow(Arc::new(move |slow| hook.lock().push((slow.operation, slow.micros))))
        .open_storage(Box::new(disk))
        .unwrap();
    (larder.session("ana").unwrap(), told)
}

#[test]
fn s2_30_a_put_that_waits_for_the_disk_is_slow() {
    let (clock, sync) = (Arc::new(ManualClock::at(1_000_000)), Arc::new(AtomicU64::new(0)));
    let (ana, told) = told(&clock, &sync);
    sync.store(150_000, Ordering::Relaxed);
    ana.put("k", "x").unwrap();
    assert_eq!(sync.load(Ordering::Relaxed), 0, "there was a sync");
    assert_eq!(*told.lock(), [("write", 150_000)]);
}

#[test]
fn s2_30_a_write_that_waits_for_the_disk_is_slow() {
    let (clock, sync) = (Arc::new(ManualClock::at(1_000_000)), Arc::new(AtomicU64::new(0)));
    let (ana, told) = told(&clock, &sync);
    sync.store(150_000, Ordering::Relaxed);
    ana.write(|txn| txn.put("k", "y")).unwrap();
    assert_eq!(sync.load(Ordering::Relaxed), 0, "there was a sync");
    assert_eq!(*told.lock(), [("write", 150_000)]);
}

#[test]
fn s2_30_a_put_from_a_slow_source_is_slow() {
    let (clock, sync) = (Arc::new(ManualClock::at(1_000_000)), Arc::new(AtomicU64::new(0)));
    let (ana, told) = told(&clock, &sync);
    ana.put_reader("k", &mut Slowly(&clock, 150_000), "").unwrap();
    assert_eq!(*told.lock(), [("write", 150_000)]);
}
