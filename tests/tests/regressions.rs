//! What went wrong once: found by the model, and kept as small as it can be said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::{
    AccessDecision, AccessRequest, Authorizer, Clock, DocumentKind, Draft, Edit, ManualClock, Options, Status,
};
use larder_tests::{block_on, in_memory, kind_of, still, verified};

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn a_transaction_reads_the_large_payload_that_it_put() {
    let directory = tempfile::tempdir().unwrap();
    for larder in [in_memory(), still().open(directory.path().join("a.larder")).unwrap()] {
        let session = larder.session("ana").unwrap();
        for length in [1_048_575, 1_048_576, 1_200_000, 9_000_000] {
            let (key, copy) = (format!("{length}"), format!("{length}.copy"));
            session
                .write(|txn| {
                    txn.put(key.as_str(), noise(length))?;
                    assert!(txn.get(key.as_str())?.bytes()? == noise(length));
                    let _ = txn.apply(Edit::copy(key.as_str(), copy.as_str()))?;
                    let mut reader = txn.open(copy.as_str())?;
                    assert!(reader.range(1_000_000..1_000_100)? == noise(length)[1_000_000..1_000_100]);
                    Ok(())
                })
                .unwrap();
        }
        verified(&larder);
    }
}

#[test]
fn a_transaction_reads_the_large_payload_of_one_that_is_on_its_way() {
    for options in [still(), Options::new()] {
        let larder = options.open_in_memory().unwrap();
        let session = larder.session("ana").unwrap();
        let (_, first) = session.submit(|txn| txn.put("a", noise(3_000_000))).unwrap();
        let (bytes, second) = session.submit(|txn| txn.get("a")?.bytes()).unwrap();
        assert!(bytes == noise(3_000_000));
        block_on(first).unwrap();
        block_on(second).unwrap();
    }
}

#[test]
fn a_large_payload_that_was_given_up_leaves_nothing() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    let given_up = session.write(|txn| {
        txn.put("a", noise(3_000_000))?;
        assert_eq!(txn.get("a")?.bytes()?.len(), 3_000_000);
        Err::<(), _>(larder::Error::abort("no"))
    });
    assert_eq!(kind_of(given_up), "Aborted");
    larder.flush().unwrap();
    session.put("b", "x").unwrap();
    assert_eq!(verified(&larder).chunks, 0);
}

#[test]
fn nobody_learns_by_moving_a_tree_what_is_there_where_he_has_no_right() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    root.put("secret/there", "x").unwrap();
    let rules = "default = \"deny\"\n[[rule]]\nallow = [\"read\", \"write\", \"delete\", \"list\"]\nwho = [\"bob\"]\non = \"bob/**\"\n";
    root.set_document(DocumentKind::Rules, rules).unwrap();
    let bob = larder.session("bob").unwrap();
    for name in ["there", "not-there"] {
        bob.put(format!("bob/{name}/{name}"), "x").unwrap();
        bob.put(format!("bob/{name}"), "x").unwrap();
        let target = format!("secret/{name}");
        assert_eq!(kind_of(bob.rename_tree(format!("bob/{name}"), target.as_str())), "AccessDenied");
        assert_eq!(kind_of(bob.rename(format!("bob/{name}"), target.as_str())), "AccessDenied");
        assert_eq!(kind_of(bob.copy(format!("bob/{name}"), target.as_str())), "AccessDenied");
        assert_eq!(kind_of(bob.put(target.as_str(), "x")), "AccessDenied");
        assert_eq!(kind_of(bob.make_directory(target.as_str())), "AccessDenied");
        assert_eq!(kind_of(bob.remove_directory(target.as_str())), "AccessDenied");
        assert_eq!(kind_of(bob.delete(target.as_str())), "AccessDenied");
    }
}

/// Allows everything to ana, and nothing to others.
struct OnlyAna;

impl Authorizer for OnlyAna {
    fn decide(&self, request: &AccessRequest<'_>) -> AccessDecision {
        AccessDecision { allowed: request.principal.name() == "ana", by: "only ana".to_owned() }
    }
}

#[test]
fn a_stranger_does_not_learn_by_removing_a_tree_whether_it_is_there() {
    let larder = still().authorizer(Arc::new(OnlyAna)).open_in_memory().unwrap();
    larder.session("ana").unwrap().put("there/secret.txt", "x").unwrap();
    let bob = larder.session("bob").unwrap();
    for place in ["there", "not-there"] {
        let refused = bob.delete_tree(place).unwrap_err();
        assert_eq!(refused.kind().name(), "AccessDenied");
        assert_eq!(refused.key().unwrap().to_string(), place, "and no key below is named");
    }
}

#[test]
fn a_reader_that_is_too_old_is_told_so_by_exists_too() {
    let clock = Arc::new(ManualClock::at(0));
    let larder = still().clock(clock.clone()).reader_age_max(1_000).open_in_memory().unwrap();
    let view = larder.session("ana").unwrap().snapshot().unwrap();
    clock.advance(1_001);
    assert_eq!(kind_of(view.exists("k")), "ReaderExpired");
}

#[test]
fn a_tree_that_is_moved_with_what_depends_on_what_in_it_is_counted_as_it_is() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put("d/base", "x").unwrap();
    let draft = Draft::from("y").status(Status::Ready).with(|annotation| annotation.depends_on("d/base"));
    session.put("d/made", draft).unwrap();
    session.rename_tree("d", "e").unwrap();
    // What it was made from is not there any more under the name that it knows.
    assert_eq!(session.record("e/made").unwrap().status(), Status::Expired);
    verified(&larder);
}

/// What was on its way from the log to being visible was drained into the store: a transaction then read from the cache what
/// had passed, and a view showed what was behind it.
#[test]
fn a_commit_that_was_drained_before_it_was_visible_lost_an_update_and_tore_views() {
    const WRITERS: usize = 3;
    const EACH: usize = 200;
    let number = |asset: larder::Result<larder::Asset>| {
        asset.map_or(0, |asset| String::from_utf8_lossy(&asset.bytes().unwrap()).parse::<usize>().unwrap())
    };
    for _ in 0..5 {
        let larder = &in_memory();
        let is_done = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|_| {
                    let session = larder.session("ana").unwrap();
                    let count = move || {
                        let count = |txn: &mut larder::WriteTxn<'_>| {
                            let next = number(txn.get("n")) + 1;
                            assert_eq!(next as u64, txn.info().sequence);
                            txn.put("n", next.to_string()).and_then(|_| txn.put("m", next.to_string()))
                        };
                        session.write(count).unwrap();
                    };
                    scope.spawn(move || (0..EACH).for_each(|_| count()))
                })
                .collect();
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    // Recounting brings everything that is visible into the store.
                    verified(larder);
                }
            });
            scope.spawn(|| {
                let session = larder.session("eve").unwrap();
                while !is_done.load(Ordering::Relaxed) {
                    let view = session.snapshot().unwrap();
                    let at = usize::try_from(view.commit().unwrap().sequence).unwrap();
                    assert_eq!((number(view.get("n")), number(view.get("m"))), (at, at));
                }
            });
            let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            is_done.store(true, Ordering::Relaxed);
            assert!(ended.iter().all(Result::is_ok), "a writer read what had passed");
        });
        assert_eq!(number(larder.root().unwrap().get("n")), WRITERS * EACH);
    }
}

/// A payload that another store had staged was acknowledged, and nobody could read it.
#[test]
fn what_another_store_prepared_is_refused() {
    let (one, other) = (in_memory(), in_memory());
    let key: larder::Key = "k".parse().unwrap();
    let bytes = larder_tests::Random::new(1).bytes(2 << 20);
    let prepared = || one.root().unwrap().prepare(&key, &mut bytes.as_slice(), &"".into()).unwrap();
    let refused = other.root().unwrap().put(&key, larder::Draft::prepared(prepared()));
    assert_eq!(kind_of(refused), "InvalidArgument");
    one.root().unwrap().put(&key, larder::Draft::prepared(prepared())).unwrap();
    assert!(one.root().unwrap().get(&key).unwrap().bytes().unwrap() == bytes);
    assert!(!other.root().unwrap().exists(&key).unwrap());
    verified(&one);
    verified(&other);
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Zeros(Vec<u64>);

/// A typed value that was put as bytes, and so compressed, could be opened only until it was brought into the store.
#[test]
fn a_typed_value_is_opened_however_it_is_stored() {
    let larder = in_memory();
    let session = larder.session("ana").unwrap();
    session.put_typed("typed", &Zeros(vec![7; 800])).unwrap();
    let bytes = session.get("typed").unwrap().bytes().unwrap();
    session.delete("typed").unwrap();
    session.put("copy.bin", bytes).unwrap();
    session.put_typed("again", &Zeros(vec![7; 800])).unwrap();
    for _ in 0..2 {
        for key in ["copy.bin", "again"] {
            assert_eq!(session.get_typed::<Zeros>(key).unwrap().0.len(), 800, "{key}");
        }
        // Recounting brings everything into the store.
        verified(&larder);
    }
}

/// Who may know what is in a tree, and not of the tree, was never told that it went.
#[test]
fn who_may_list_something_in_a_tree_is_told_that_it_goes() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    let rules =
        "default = \"deny\"\n[[rule]]\nallow = [\"list\", \"read\"]\nwho = [\"bob\"]\non = \"team/b/**\"\n";
    root.set_document(larder::DocumentKind::Rules, rules).unwrap();
    for place in ["team", ""] {
        root.put("team/b/x", "1").unwrap();
        root.put("team/c/y", "2").unwrap();
        let since = larder.info().unwrap().last_commit.sequence;
        let (bob, eve) = (larder.session("bob").unwrap(), larder.session("eve").unwrap());
        let subscription = bob.subscribe("team/b", 10).unwrap();
        root.delete_tree(place).unwrap();
        let Some(larder::Notice::Events(told)) = subscription.next_within(std::time::Duration::ZERO) else {
            panic!("nothing came")
        };
        assert_eq!((told[0].place.as_str(), told[0].bytes), ("team/b", 0));
        assert_eq!(bob.feed_since(since, 10).unwrap().len(), 1);
        assert!(eve.feed_since(since, 10).unwrap().is_empty());
    }
}

/// Whoever may read what was made from a secret was told its digest.
#[test]
fn why_tells_nothing_of_what_may_not_be_read() {
    let larder = in_memory();
    let root = larder.root().unwrap();
    root.put("secret/pin", "1234").unwrap();
    let ready = larder::Draft::from("x").status(larder::Status::Ready);
    root.put("reports/q", ready.with(|about| about.depends_on("secret/pin"))).unwrap();
    let rules =
        "default = \"allow\"\n[[rule]]\ndeny = [\"read\", \"list\"]\nwho = [\"ana\"]\non = \"secret/**\"\n";
    root.set_document(larder::DocumentKind::Rules, rules).unwrap();
    let ana = larder.session("ana").unwrap();
    assert_eq!(ana.why("reports/q").unwrap().made_from[0].1, Some(0));
    assert_ne!(root.why("reports/q").unwrap().made_from[0].1, Some(0));
    root.delete("secret/pin").unwrap();
    assert_eq!(ana.why("reports/q").unwrap().made_from[0].1, Some(0));
    assert_eq!(root.why("reports/q").unwrap().made_from[0].1, None);
}

#[test]
fn what_was_read_in_a_transaction_stays_readable_after_it() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    let large = noise(3 << 20);
    for is_removed_at_once in [true, false] {
        // Something that is not in the store yet lies over it.
        ana.put("before", "x").unwrap();
        let asset = ana.write(|txn| {
            txn.put("large", large.clone())?;
            let asset = txn.get("large")?;
            if is_removed_at_once {
                txn.delete("large")?;
            }
            Ok(asset)
        });
        let asset = asset.unwrap().value;
        ana.delete("large").unwrap();
        larder.flush().unwrap();
        let _ = larder.upkeep(2_000_000).unwrap();
        assert!(asset.bytes().unwrap() == large, "{is_removed_at_once}");
    }
}

/// What is read of a large payload in a transaction, and kept, is a reader afterwards: it is counted, and gets too
/// old like any other.
#[test]
fn x_4_what_a_transaction_gives_of_a_large_payload_counts_as_a_reader() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let options = still().clock(Arc::clone(&clock) as Arc<dyn Clock>).reader_age_max(5_000_000);
    let larder = options.open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let large = noise(3 << 20);
    ana.put("small", noise(5_000)).unwrap();
    let write = |key: &str| {
        let receipt = ana.write(|txn| {
            txn.put(key, large.clone())?;
            // The transaction itself may take as long as it takes.
            clock.advance(5_000_001);
            assert_eq!(txn.get("small")?.bytes()?.len(), 5_000);
            txn.get(key)
        });
        receipt.unwrap().value
    };
    drop(write("one"));
    assert_eq!(larder.health().readers.open, 0, "nothing is kept");
    let (two, three) = (write("two"), write("three"));
    ana.delete("two").unwrap();
    ana.delete("three").unwrap();
    larder.flush().unwrap();
    let readers = larder.health().readers;
    assert_eq!((readers.open, readers.oldest_since), (2, Some(clock.now() - 5_000_001)));
    assert_eq!(kind_of(two.bytes()), "ReaderExpired");
    assert!(three.bytes().unwrap() == large);
    drop(two);
    clock.advance(5_000_001);
    assert_eq!(kind_of(three.bytes()), "ReaderExpired");
    drop(three);
    assert_eq!(larder.health().readers.open, 0);
}
