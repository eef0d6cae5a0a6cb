//! Who decides: the stored rules, an authorizer of the application, or nobody, because the holder of the file asks.

use std::sync::Arc;

use larder::format::Principal;
use larder::{
    AccessDecision, AccessRequest, Authorizer, DocumentKind, Edit, Key, Larder, ManualClock, Options,
    PageRequest, Right,
};
use larder_tests::{in_memory, kind_of, still};

#[test]
fn an_authorizer_can_be_asked_without_a_store() {
    let (ana, bob) = (Principal::new("ana").unwrap(), Principal::new("bob").unwrap());
    let key = Key::parse("a/k").unwrap();
    assert!(OnlyAna.decide(&AccessRequest::new(&ana, Right::READ, &key)).allowed);
    assert!(!OnlyAna.decide(&AccessRequest::new(&bob, Right::READ, &key)).allowed);
}

/// Allows everything to ana, and nothing to others.
struct OnlyAna;

impl Authorizer for OnlyAna {
    fn decide(&self, request: &AccessRequest<'_>) -> AccessDecision {
        AccessDecision { allowed: request.principal.name() == "ana", by: "only ana".to_owned() }
    }
}

fn deny(larder: &Larder) {
    larder.root().unwrap().set_document(DocumentKind::Rules, "default = \"deny\"\n").unwrap();
}

#[test]
fn s0_7_an_explanation_asks_whoever_decides() {
    let larder = still().authorizer(Arc::new(OnlyAna)).open_in_memory().unwrap();
    assert_eq!(kind_of(larder.session("bob").unwrap().put("k", "x")), "AccessDenied");
    let root = larder.root().unwrap();
    let explanation = root.explain("bob", [], Right::WRITE, "k").unwrap();
    assert!(!explanation.allowed && explanation.to_string().contains("by only ana"), "{explanation}");
    assert_eq!(explanation.decision().by.to_string(), "only ana");
    assert!(root.explain("ana", [], Right::WRITE, "k").unwrap().allowed);
}

#[test]
fn s0_7_the_holder_of_the_file_is_explained_as_what_it_is_and_nobody_else_has_its_name() {
    let larder = in_memory();
    deny(&larder);
    let root = larder.root().unwrap();
    root.put("k", "x").unwrap();
    let explanation = root.explain("root", [], Right::WRITE, "k").unwrap();
    assert!(
        explanation.allowed && explanation.to_string().contains("the holder of the file"),
        "{explanation}"
    );
    assert_eq!(kind_of(larder.session("root")), "InvalidName");
}

#[test]
fn s0_7_what_was_allowed_is_audited_with_what_allowed_it() {
    let larder = still().authorizer(Arc::new(OnlyAna)).audit_allowed().open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    ana.put("t/k", "x").unwrap();
    ana.delete_tree("t").unwrap();
    deny(&larder);
    let audit = larder.root().unwrap().audit(0, 10).unwrap();
    let seen: Vec<_> = audit
        .iter()
        .map(|(_, entry)| (entry.right.as_str(), entry.place.as_str(), entry.by.as_str(), entry.allowed))
        .collect();
    let expected = [
        ("write", "t/k", "only ana", true),
        ("delete", "t", "only ana", true),
        ("admin", "", "the holder of the file", true),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn s0_7_a_stranger_to_an_authorizer_does_not_learn_whether_a_tree_is_there() {
    let larder = still().authorizer(Arc::new(OnlyAna)).open_in_memory().unwrap();
    larder.session("ana").unwrap().put("safe/gold", "x").unwrap();
    let bob = larder.session("bob").unwrap();
    assert_eq!(kind_of(bob.delete_tree("safe")), "AccessDenied");
    assert_eq!(kind_of(bob.delete_tree("void")), "AccessDenied");
    assert_eq!(kind_of(bob.rename_tree("safe", "mine")), "AccessDenied");
    assert_eq!(kind_of(bob.rename_tree("void", "mine")), "AccessDenied");
}

#[test]
fn s0_7_a_stranger_to_the_rules_does_not_learn_what_lies_in_a_tree() {
    let larder = in_memory();
    let rules = r#"
        default = "deny"
        [[rule]]
        allow = ["read", "write", "delete", "list"]
        who = ["*"]
        on = ["users/{owner}/shared/**", "mine/**"]
    "#;
    let root = larder.root().unwrap();
    root.put("users/ana/private/diary.txt", "x").unwrap();
    root.set_document(DocumentKind::Rules, rules).unwrap();
    let bob = larder.session("bob").unwrap();
    let edits = [|place| Edit::delete_tree(place), |place| Edit::rename_tree(place, "mine")];
    for edit in edits {
        let [there, not_there] = ["users/ana", "users/zoe"].map(|place| bob.apply(edit(place)).unwrap_err());
        assert!(!there.to_string().contains("diary"), "names a key that bob may not list: {there}");
        assert_eq!(there.kind().name(), not_there.kind().name());
    }
    assert_eq!(bob.delete_tree("users/ana/shared").unwrap().value, 0);
}

#[test]
fn t35_a_walk_obeys_the_rules_that_are_in_force_when_it_is_called() {
    let larder = in_memory();
    let ana = larder.session("ana").unwrap();
    ana.put("a/k", "x").unwrap();
    let view = ana.snapshot().unwrap();
    assert_eq!(view.walk("a").unwrap().count(), 1);
    deny(&larder);
    assert!(view.page("a", &PageRequest::new()).unwrap().assets.is_empty());
    assert_eq!(view.walk("a").unwrap().count(), 0);
}

#[test]
fn s3_1_an_expired_reader_is_told_so_by_every_question() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let options = Options::new().inline().clock(Arc::clone(&clock) as _).reader_age_max(1_000);
    let larder = options.open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    ana.put("k", "x").unwrap();
    let view = ana.snapshot().unwrap();
    clock.advance(10_000);
    assert_eq!(kind_of(view.record("k")), "ReaderExpired");
    assert_eq!(kind_of(view.exists("k")), "ReaderExpired");
    assert_eq!(kind_of(view.list("")), "ReaderExpired");
    assert_eq!(kind_of(view.page("", &PageRequest::new())), "ReaderExpired");
}
