//! Values that are in memory only: kept while there is room, told of in the store, stored at the last moment or lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder::{Annotation, Draft, Key, LiveDraft, LiveObjects, LiveOptions, Miss, Session, Status};
use larder_tests::{FaultyDisk, Plan, in_memory, kind_of, still, verified};
use parking_lot::Mutex;

/// Something that cannot be stored.
#[derive(Debug, PartialEq)]
struct Pot(&'static str);

fn pot(name: &'static str, weight: u64) -> LiveDraft {
    LiveDraft::new(Arc::new(Pot(name)), weight).with(Annotation::loss_is_known)
}

fn found(live: &LiveObjects, session: &Session, key: &str) -> Option<&'static str> {
    live.get::<Pot>(session, key).unwrap().map(|pot| pot.0)
}

#[test]
fn s0_4_s0_5_a_value_is_here_and_its_record_says_what_it_is() {
    let disk = FaultyDisk::default();
    let larder = disk.open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let live = LiveObjects::new(LiveOptions::new());
    live.put(&session, "stove/pot", pot("soup", 1).type_identifier("widget")).unwrap();
    assert_eq!(found(&live, &session, "stove/pot"), Some("soup"));
    assert_eq!(live.get::<String>(&session, "stove/pot").unwrap(), None, "of another type");
    assert_eq!(session.record("stove/pot").unwrap().status(), Status::Transient);
    assert_eq!(session.get_loadable("stove/pot").unwrap().miss(), Some(&Miss::Status(Status::Transient)));
    assert_eq!(kind_of(live.get::<Pot>(&session, "nothing")), "NotFound");
    larder.close().unwrap();
    // After a restart the record says that there was something, and what.
    let larder = FaultyDisk::holding(disk.current(), Plan::default()).open(still(), true).unwrap();
    let session = larder.session("ana").unwrap();
    let error = session.get("stove/pot").unwrap().bytes().unwrap_err();
    assert!(error.to_string().contains("transient"), "{error}");
    assert_eq!(found(&LiveObjects::new(LiveOptions::new()), &session, "stove/pot"), None);
    verified(&larder);
}

#[test]
fn s0_5_what_would_be_lost_needs_a_pin_a_recipe_a_last_call_or_a_word() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let live = LiveObjects::new(LiveOptions::new());
    let bare = || LiveDraft::new(Arc::new(Pot("soup")), 1);
    assert_eq!(kind_of(live.put(&session, "k", bare())), "WouldLoseData");
    assert!(!session.exists("k").unwrap());
    live.put(&session, "a", bare().pinned()).unwrap();
    live.put(&session, "b", bare().with(|about| about.has_recipe(true))).unwrap();
    live.put(&session, "c", bare().stored_by(|_: &Pot| None)).unwrap();
    live.put(&session, "d", bare().with(Annotation::loss_is_known)).unwrap();
    let statistics = live.statistics();
    assert_eq!((statistics.entries, statistics.pinned_entries, statistics.pinned_weight), (4, 1, 1));
}

#[test]
fn a_value_goes_with_the_record_that_it_was_put_with() {
    let larder = in_memory();
    let (ana, bob) = (larder.session("ana").unwrap(), larder.session("bob").unwrap());
    let live = LiveObjects::new(LiveOptions::new());
    live.put(&ana, "k", pot("soup", 1)).unwrap();
    bob.put("k", "something else").unwrap();
    assert_eq!(found(&live, &ana, "k"), None);
    assert_eq!(live.statistics().entries, 0);
    live.put(&ana, "k", pot("stew", 1)).unwrap();
    live.put(&bob, "k", pot("broth", 5)).unwrap();
    assert_eq!((found(&live, &ana, "k"), live.statistics().weight), (Some("broth"), 5));
    ana.delete("k").unwrap();
    assert_eq!(kind_of(live.get::<Pot>(&ana, "k")), "NotFound");
    assert!(live.remove(&"k".parse::<Key>().unwrap()));
    assert!(!live.remove(&"k".parse::<Key>().unwrap()));
}

/// Another asset that got the same generation was taken for the one that the value was put with, and written over.
#[test]
fn a_value_is_not_mistaken_for_what_came_after_its_record() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let live = LiveObjects::new(LiveOptions::new());
    let stored = || LiveDraft::new(Arc::new(Pot("soup")), 1).stored_by(|pot: &Pot| Some(Draft::from(pot.0)));
    for is_asked_for in [true, false] {
        live.put(&session, "k", stored()).unwrap();
        session.delete("k").unwrap();
        session.put("k", "something else").unwrap();
        if is_asked_for {
            assert_eq!(found(&live, &session, "k"), None);
        }
        live.close();
        assert_eq!(session.get("k").unwrap().bytes().unwrap(), "something else");
        session.delete("k").unwrap();
    }
    live.put(&session, "k", stored()).unwrap();
    live.close();
    assert_eq!(session.get("k").unwrap().bytes().unwrap(), "soup");
    verified(&larder);
}

/// Who asks while others put finds the value of the newest record, or none that is older.
#[test]
fn the_newest_value_stays_whoever_asks_meanwhile() {
    let larder = in_memory();
    let live = LiveObjects::new(LiveOptions::new());
    let session = larder.session("ana").unwrap();
    live.put(&session, "k", pot("first", 1).pinned()).unwrap();
    std::thread::scope(|scope| {
        for name in ["b", "c"] {
            let (live, session) = (&live, session.clone());
            scope.spawn(move || {
                (0..300).for_each(|_| live.put(&session, "k", pot(name, 1).pinned()).unwrap());
            });
        }
        let (live, session) = (&live, session.clone());
        scope.spawn(move || {
            for _ in 0..2_000 {
                let _ = found(live, &session, "k");
            }
        });
    });
    assert!(found(&live, &session, "k").is_some(), "it is pinned");
    assert_eq!(live.statistics().pinned_entries, 1);
}

#[test]
fn s0_5_the_oldest_go_the_pinned_stay_and_everyone_is_told_before() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    let options = LiveOptions::new()
        .entries_max(3)
        .weight_max(100)
        .before_eviction(move |key, weight| hook.lock().push((key.to_string(), weight)));
    let live = LiveObjects::new(options);
    live.put(&session, "pinned", pot("p", 10).pinned()).unwrap();
    live.put(&session, "a", pot("a", 10)).unwrap();
    live.put(&session, "b", pot("b", 10)).unwrap();
    assert_eq!(found(&live, &session, "a"), Some("a"));
    live.put(&session, "c", pot("c", 10)).unwrap();
    assert_eq!(*told.lock(), [("b".to_owned(), 10)], "a was asked for since");
    live.put(&session, "heavy", pot("h", 85)).unwrap();
    assert_eq!(told.lock().len(), 3);
    assert_eq!((found(&live, &session, "pinned"), found(&live, &session, "heavy")), (Some("p"), Some("h")));
    assert_eq!((live.statistics().entries, live.statistics().weight, live.statistics().lost), (2, 95, 3));
    // What the pinned leave no room for is refused, and nothing goes for it.
    assert_eq!(kind_of(live.put(&session, "huge", pot("x", 91))), "QuotaExceeded");
    assert_eq!(kind_of(live.put(&session, "huge", pot("x", u64::MAX))), "QuotaExceeded");
    assert!(!session.exists("huge").unwrap());
    assert_eq!(live.statistics().entries, 2);
    // Let go of, a pinned one goes like any other.
    assert!(live.set_pinned(&"pinned".parse().unwrap(), false));
    live.put(&session, "d", pot("d", 100)).unwrap();
    assert_eq!(live.statistics().entries, 1);
}

#[test]
fn s0_5_a_last_call_stores_what_has_to_go() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let live = LiveObjects::new(LiveOptions::new().entries_max(1));
    let storable = |name| {
        let live = LiveDraft::new(Arc::new(Pot(name)), 1);
        live.stored_by(|pot: &Pot| Some(Draft::from(pot.0).status(Status::Ready)))
    };
    live.put(&session, "a", storable("soup")).unwrap();
    live.put(&session, "b", storable("stew")).unwrap();
    assert_eq!(session.get_loadable("a").unwrap().hit().unwrap().bytes().unwrap(), "soup");
    assert_eq!(found(&live, &session, "a"), None, "it is stored now");
    // Not over what somebody has put there since.
    session.put("b", "by hand").unwrap();
    live.put(&session, "c", storable("broth")).unwrap();
    assert_eq!(session.get("b").unwrap().bytes().unwrap(), "by hand");
    // At the end, everything that can be is stored.
    live.put(&session, "d", storable("stock").pinned()).unwrap();
    live.close();
    assert_eq!(session.get("d").unwrap().bytes().unwrap(), "stock");
    let statistics = live.statistics();
    assert_eq!((statistics.entries, statistics.weight, statistics.stored, statistics.lost), (0, 0, 3, 1));
    verified(&larder);
}

#[test]
fn callbacks_that_panic_or_call_back_harm_nobody() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let holder: Arc<Mutex<Option<LiveObjects>>> = Arc::default();
    let (inner, count, asking) = (Arc::clone(&holder), Arc::clone(&calls), session.clone());
    let live = LiveObjects::new(LiveOptions::new().entries_max(1).before_eviction(move |key, _| {
        count.fetch_add(1, Ordering::SeqCst);
        // Into the collection, and into the store.
        let live = inner.lock().clone().unwrap();
        assert!(live.statistics().entries <= 1);
        asking.put(format!("told/{key}"), "x").unwrap();
    }));
    *holder.lock() = Some(live.clone());
    live.put(&session, "a", pot("a", 1).stored_by(|_: &Pot| panic!("of the application"))).unwrap();
    live.put(&session, "b", pot("b", 1)).unwrap();
    live.put(&session, "c", pot("c", 1)).unwrap();
    assert_eq!((calls.load(Ordering::SeqCst), live.statistics().lost), (2, 2));
    assert!(session.exists("told/a").unwrap() && session.exists("told/b").unwrap());
    assert_eq!(found(&live, &session, "c"), Some("c"));

    /// Looks into the collection when it goes.
    struct Nosy(LiveObjects);
    impl Drop for Nosy {
        fn drop(&mut self) {
            assert!(self.0.statistics().entries < 10);
        }
    }
    let nosy = || LiveDraft::new(Arc::new(Nosy(live.clone())), 1).with(Annotation::loss_is_known);
    live.put(&session, "n", nosy()).unwrap();
    live.put(&session, "n", nosy()).unwrap();
    session.put("n", "x").unwrap();
    assert!(live.get::<Nosy>(&session, "n").unwrap().is_none());
    live.put(&session, "n", nosy()).unwrap();
    live.close();
    *holder.lock() = None;
}
