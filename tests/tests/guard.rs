//! What the guard asks before it lets a change in: each question, on both sides of its bound.

use std::sync::Arc;

use larder::format::{Key, Record};
use larder::{Annotation, DocumentKind, Draft, Edit, Objection, Outcome, Session, Status};
use larder_tests::{in_memory, kind_of, still};

/// S3-1. Each condition holds or does not, by what is there; where it does not, nothing is changed, and what is there is said.
#[test]
fn s3_1_every_condition_is_asked_of_what_is_there() {
    type Ask = fn(Edit) -> Edit;
    let conditions: [(&str, Ask, bool); 8] = [
        ("absent", |edit| edit.if_absent(), false),
        ("exists", |edit| edit.if_exists(), true),
        ("its generation", |edit| edit.if_generation(1), true),
        ("another generation", |edit| edit.if_generation(2), false),
        ("its content", |edit| edit.if_content(Session::content_hash(b"leek soup")), true),
        ("another content", |edit| edit.if_content(Session::content_hash(b"onion soup")), false),
        ("its status among others", |edit| edit.if_status([Status::Source, Status::Ready]), true),
        ("another status", |edit| edit.if_status([Status::Source]), false),
    ];
    for (name, ask, holds) in conditions {
        let larder = in_memory();
        let ana = larder.session("ana").unwrap();
        // Where nothing is, only its absence can be asked for.
        let outcome = ana.apply(ask(Edit::put("soup", "onion soup"))).unwrap().value;
        match &outcome {
            Outcome::Refused(refusal) => assert!(name != "absent" && refusal.actual.is_none(), "{name}"),
            _ => assert!(name == "absent" && outcome.is_done(), "{name}: {outcome:?}"),
        }
        ana.delete("soup").unwrap();
        let soup = ana.put("soup", Draft::from("leek soup").status(Status::Ready)).unwrap().value;
        let generation = soup.generation;
        let ask: &dyn Fn(Edit) -> Edit = match name {
            // One life more, where the first put was done.
            "its generation" => &|edit| edit.if_generation(generation),
            "another generation" => &|edit| edit.if_generation(generation + 1),
            _ => &ask,
        };
        let outcome = ana.apply(ask(Edit::put("soup", "onion soup"))).unwrap().value;
        assert_eq!(outcome.is_done(), holds, "{name}: {outcome:?}");
        if let Outcome::Refused(refusal) = &outcome {
            let actual = refusal.actual.as_ref().unwrap();
            let content = Some(Session::content_hash(b"leek soup"));
            assert_eq!((actual.generation, actual.content), (generation, content), "{name}");
            assert_eq!(actual.status, Status::Ready, "{name}");
        }
        let now = ana.get("soup").unwrap().bytes().unwrap();
        assert_eq!(now, if holds { "onion soup" } else { "leek soup" }, "{name}");
    }
}

/// S0-5. All payloads together may have as many bytes as the quota says, and not one more; what does not grow is let in also
/// where there is too much already, and what only changes its key, too.
#[test]
fn s0_5_a_quota_is_for_what_grows_to_the_byte() {
    let larder = in_memory();
    let (root, ana) = (larder.root().unwrap(), larder.session("ana").unwrap());
    let quota = |bytes: u32| {
        root.set_document(DocumentKind::Limits, &format!("max_total_size = {bytes}\n")).unwrap();
    };
    quota(100);
    ana.put("a", vec![1; 60]).unwrap();
    assert_eq!(kind_of(ana.put("b", vec![2; 41])), "QuotaExceeded");
    ana.put("b", vec![2; 40]).unwrap();
    assert_eq!(kind_of(ana.put("b", vec![2; 41])), "QuotaExceeded");
    ana.put("b", vec![3; 40]).unwrap();
    quota(50);
    ana.put("b", vec![4; 40]).unwrap();
    ana.put("b", vec![4; 39]).unwrap();
    assert_eq!(kind_of(ana.put("b", vec![4; 40])), "QuotaExceeded");
    ana.rename("a", "c").unwrap();
    assert_eq!(kind_of(ana.copy("c", "d")), "QuotaExceeded");
    ana.annotate("c", Annotation::new().title("sixty")).unwrap();
}

/// A validator sees the payload that an asset has, also where only what is said of it changes.
#[test]
fn s0_2_a_validator_sees_the_payload_that_is_kept() {
    let validator = |_: &Key, _: &Record, head: &[u8]| {
        if head.starts_with(b"soup") {
            return Ok(());
        }
        Err(Objection { field: "payload".into(), what: format!("{} bytes of no soup", head.len()) })
    };
    let larder = still().validator("menu/**", Arc::new(validator)).unwrap().open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    ana.put("menu/1", "soup of leek").unwrap();
    assert_eq!(kind_of(ana.put("menu/2", "cake")), "Validation");
    ana.annotate("menu/1", Annotation::new().title("Leek")).unwrap();
    ana.rename("menu/1", "menu/3").unwrap();
    ana.put("cake", "cake").unwrap();
    assert_eq!(kind_of(ana.rename("cake", "menu/4")), "Validation");
}

/// S0-9. What was renamed or copied says where it came from; of a tree that went, who may list something in it is told, also if
/// he may not list all of it, and who may not is not.
#[test]
fn s0_9_events_say_where_something_came_from_and_are_told_to_those_who_may_know() {
    let larder = in_memory();
    let rules = "default = \"deny\"\n\
        [[rule]]\nallow = [\"read\", \"list\", \"write\", \"delete\"]\nwho = [\"ana\"]\non = \"**\"\n\
        [[rule]]\nallow = [\"read\", \"list\"]\nwho = [\"ben\"]\non = \"menu/soups/**\"\n";
    larder.root().unwrap().set_document(DocumentKind::Rules, rules).unwrap();
    let ana = larder.session("ana").unwrap();
    ana.put("menu/soups/leek", "x").unwrap();
    ana.put("menu/cakes/plum", "x").unwrap();
    let before = larder.info().unwrap().last_commit.sequence;
    ana.rename("menu/soups/leek", "menu/soups/onion").unwrap();
    ana.copy("menu/soups/onion", "menu/soups/copy").unwrap();
    ana.delete_tree("menu").unwrap();
    let told = |principal: &str| {
        let events = larder.session(principal).unwrap().feed_since(before, 100).unwrap();
        let tell = |event: larder::Event| (event.kind.name(), event.place, event.from);
        events.into_iter().map(tell).collect::<Vec<_>>()
    };
    let event = |kind, place: &str, from: Option<&str>| (kind, place.to_owned(), from.map(str::to_owned));
    let all = [
        event("renamed", "menu/soups/onion", Some("menu/soups/leek")),
        event("deleted", "menu/soups/leek", None),
        event("copied", "menu/soups/copy", Some("menu/soups/onion")),
        event("tree-deleted", "menu", None),
    ];
    assert_eq!(told("ana"), all);
    assert_eq!(told("ben"), all);
    assert!(told("eve").is_empty());
}
