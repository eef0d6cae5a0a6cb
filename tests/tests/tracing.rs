//! What is told to whoever traces the application.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::{Annotation, Edit, PageRequest, TagPolicy};
use larder_tests::in_memory;
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
        seen(&[
            ("exists", "a/b"),
            ("open", "a/b"),
            ("list", "a"),
            ("page", "a"),
            ("find_by_tag", "t"),
            ("flush", ""),
        ]);
    });
}
