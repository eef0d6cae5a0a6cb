//! Rules: what they decide, what they say about it, and which documents are refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails may panic, in its helpers too"
)]

use larder_format::{
    Deciding, Effect, Finding, Limits, MAX_DOCUMENT_BYTES, PatternErrorKind, Principal, PrincipalError,
    PrincipalName, Right, Rights, Rules, RulesErrorKind as Kind, Who, parse_combined,
};
use proptest::prelude::*;

const PANTRY: &str = r#"default = "deny"
[[rule]]
name = "own drawer"
allow = ["read", "write", "delete", "list"]
who = ["*"]
on = "users/{principal}/**"
[[rule]]
name = "nobody reads a private drawer but its owner"
deny = ["read", "list"]
who = ["*"]
except = ["{owner}"]
on = "users/{owner}/private/**"
[[limit]]
on = "users/*/uploads/**"
max_binary_size = "10 MiB"
"#;

fn encode(path: &str) -> Vec<u8> {
    let mut key = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        key.extend_from_slice(segment.as_bytes());
        key.push(0);
    }
    key
}

fn principal(name: &str) -> Principal {
    Principal::new(name).unwrap()
}

fn allowed(rules: &Rules, who: &str, right: Right, path: &str) -> bool {
    let who = principal(who);
    let decision = rules.decide(&who, right, &encode(path));
    let explanation = rules.explain(&who, right, &encode(path));
    assert_eq!(explanation.decision(), decision, "{path}");
    decision.allowed
}

#[test]
fn s0_7_feel_explains_itself() {
    let (rules, _) = parse_combined(PANTRY).unwrap();
    let bob = principal("bob");
    assert_eq!(
        rules.explain(&bob, Right::READ, &encode("users/ana/private/diary.txt")).to_string(),
        "denied   read   users/ana/private/diary.txt   bob
  by \"nobody reads a private drawer but its owner\"  (rule 2, deny; captures owner = ana)
  \"own drawer\" (rule 1) does not match: captures principal = ana"
    );
    assert_eq!(
        rules.explain(&principal("ana"), Right::READ, &encode("users/ana/private/diary.txt")).to_string(),
        "allowed  read   users/ana/private/diary.txt   ana
  by \"own drawer\"  (rule 1, allow; captures principal = ana)
  \"nobody reads a private drawer but its owner\" (rule 2) does not match: ana is excepted by \"{owner}\"; captures owner = ana"
    );
    assert_eq!(
        rules.explain(&bob, Right::WRITE, &encode("users/ana/private/diary.txt")).to_string(),
        "denied   write   users/ana/private/diary.txt   bob
  by default  (deny; no rule applies)
  \"own drawer\" (rule 1) does not match: captures principal = ana
  \"nobody reads a private drawer but its owner\" (rule 2) does not match: it is about read, list"
    );
    assert_eq!(
        rules.explain(&bob, Right::READ, b"").to_string(),
        "denied   read   (root)   bob
  by default  (deny; no rule applies)
  2 rules are on other keys"
    );
}

#[test]
fn explanations_of_what_else_can_happen() {
    let rules = Rules::parse(
        r#"
        default = "allow"
        [[rule]]
        allow = ["read"]
        who = ["ana", "group:cooks"]
        on = "recipes/**"
        [[rule]]
        deny = ["read"]
        who = ["*"]
        except = ["group:cooks"]
        on = ["recipes/secret", "recipes/{which}/hidden"]
        "#,
    )
    .unwrap();
    let ana = principal("ana");
    assert_eq!(
        rules.explain(&ana, Right::READ, b"recipes\0leek\0hidden\0").to_string(),
        "denied   read   recipes/leek/hidden   ana
  by (rule 2, deny; captures which = leek)
  rule 1 matches too: it allows, and deny wins"
    );
    let bob = principal("bob").with_groups(["guests", "cooks"]).unwrap();
    let explanation = rules.explain(&bob, Right::READ, b"recipes\0secret\0");
    assert!(explanation.allowed);
    assert_eq!(explanation.considered[1].finding, Finding::Excepted("group:cooks".to_owned()));
    let carl = principal("carl");
    assert_eq!(
        rules.explain(&carl, Right::READ, b"recipes\0leek\0").to_string(),
        "allowed  read   recipes/leek   carl
  by default  (allow; no rule applies)
  rule 1 does not match: carl is not among its who
  1 rule is on other keys"
    );
}

#[test]
fn s0_7_a_admin_is_for_the_admin_service() {
    let rules = Rules::parse(
        r#"
        default = "allow"
        [[rule]]
        name = "admin"
        deny = ["write"]
        who = ["*"]
        except = ["admin-service"]
        on = "admin/**"
        "#,
    )
    .unwrap();
    assert!(!allowed(&rules, "bob", Right::WRITE, "admin/x"));
    assert!(allowed(&rules, "admin-service", Right::WRITE, "admin/x"));
    assert!(!allowed(&rules, "bob", Right::WRITE, "admin"), "the directory's own key is covered");
    assert!(allowed(&rules, "bob", Right::READ, "admin/x"));
    assert!(allowed(&rules, "bob", Right::WRITE, "administration/x"));
}

#[test]
fn s0_7_b_private_is_for_the_owner() {
    let rules = Rules::parse(
        r#"
        default = "allow"
        [[rule]]
        deny = ["read", "write"]
        who = ["*"]
        except = ["{owner}"]
        on = "user/{owner}/private/*"
        "#,
    )
    .unwrap();
    assert!(!allowed(&rules, "bob", Right::READ, "user/alice/private/f"));
    assert!(allowed(&rules, "alice", Right::READ, "user/alice/private/f"));
    let explanation = rules.explain(&principal("bob"), Right::READ, &encode("user/alice/public/f"));
    assert!(explanation.allowed);
    assert_eq!(explanation.considered[0].finding, Finding::OtherKeys);
}

#[test]
fn s0_7_c_one_denied_key_of_ten_makes_the_directory_mixed() {
    let rules = Rules::parse(
        r#"
        default = "allow"
        [[rule]]
        deny = ["delete"]
        who = ["bob"]
        on = "user/keep"
        "#,
    )
    .unwrap();
    let bob = principal("bob");
    assert_eq!(rules.uniform_below(b"user\0", &bob, Right::DELETE), None);
    let denied = (0..10).filter(|n| {
        let path = if *n == 7 { "user/keep".to_owned() } else { format!("user/{n}") };
        !allowed(&rules, "bob", Right::DELETE, &path)
    });
    assert_eq!(denied.count(), 1);
    assert_eq!(rules.uniform_below(b"user\0", &principal("ana"), Right::DELETE), Some(true));
    assert_eq!(rules.uniform_below(b"user\0", &bob, Right::READ), Some(true));
    assert_eq!(
        rules.uniform_below(b"user\0keep\0", &bob, Right::DELETE),
        None,
        "what is below it is not denied"
    );
}

#[test]
fn uniform_below_answers_where_one_rule_settles_it() {
    let (rules, _) = parse_combined(PANTRY).unwrap();
    let below = |who: &str, path: &str, right| rules.uniform_below(&encode(path), &principal(who), right);
    assert_eq!(below("bob", "users/ana/private", Right::READ), Some(false), "a deny rule covers all of it");
    assert_eq!(below("ana", "users/ana", Right::READ), Some(true), "the deny rule below excepts its owner");
    assert_eq!(below("ana", "users/ana", Right::WRITE), Some(true));
    assert_eq!(below("bob", "users/ana", Right::WRITE), Some(false));
    assert_eq!(below("bob", "users", Right::WRITE), None);
    assert_eq!(below("bob", "recipes", Right::WRITE), Some(false));
    assert_eq!(below("bob", "", Right::CLAIM), Some(false), "no rule is about it");
    let rules = Rules::parse(&format!(
        "{}\n[[rule]]\ndeny = [\"read\"]\nwho = [\"bob\"]\non = \"users/**\"",
        rules.to_toml()
    ));
    assert_eq!(rules.unwrap().uniform_below(b"users\0", &principal("bob"), Right::READ), Some(false));
}

#[test]
fn s0_7_d_deny_all_without_rules_refuses_every_write() {
    let rules = Rules::parse("default = \"deny\"").unwrap();
    assert!(!rules.is_open());
    for right in Right::ALL {
        for path in ["", "a", "a/b/c"] {
            assert!(!allowed(&rules, "ana", *right, path));
            assert_eq!(rules.uniform_below(&encode(path), &principal("ana"), *right), Some(false));
        }
    }
    let reads = "default = \"deny\"\n[[rule]]\nallow = [\"read\"]\nwho = [\"*\"]\non = \"**\"";
    let rules = Rules::parse(reads).unwrap();
    assert!(allowed(&rules, "ana", Right::READ, "a/b"));
    assert!(!allowed(&rules, "ana", Right::WRITE, "a/b"));
}

#[test]
fn s0_7_f_a_new_file_is_open_and_says_so() {
    let rules = Rules::allow_all();
    assert!(rules.is_open());
    assert_eq!(rules, Rules::parse("default = \"allow\"").unwrap());
    assert_eq!(rules.decide(&principal("ana"), Right::ADMIN, b"").by, Deciding::Default);
    let with_allow = "default = \"allow\"\n[[rule]]\nallow = [\"read\"]\nwho = [\"*\"]\non = \"**\"";
    assert!(Rules::parse(with_allow).unwrap().is_open());
    assert!(!Rules::parse(&with_allow.replace("allow = [", "deny = [")).unwrap().is_open());
}

#[test]
fn a_right_without_a_name_is_denied_by_every_document() {
    let text = "default = \"allow\"\n[[rule]]\nallow = [\"read\", 17]\nwho = [\"*\"]\non = \"**\"";
    let rules = Rules::parse(text).unwrap();
    let later = Right::from_number(17).unwrap();
    let ana = principal("ana");
    assert_eq!(rules.decide(&ana, later, b"a\0").by, Deciding::UnknownRight);
    assert!(!rules.decide(&ana, later, b"a\0").allowed);
    assert_eq!(rules.uniform_below(b"", &ana, later), Some(false));
    let explanation = rules.explain(&ana, later, b"a\0");
    assert_eq!(explanation.decision(), rules.decide(&ana, later, b"a\0"));
    assert!(
        explanation.to_string().starts_with("denied   right 17   a   ana\n  by the right"),
        "{explanation}"
    );
    assert!(rules.to_toml().contains("allow = [\"read\", 17]"), "it is kept");
    assert_eq!((Right::from_number(0), Right::from_number(64)), (None, None));
}

#[test]
fn the_rights_have_these_numbers() {
    let names =
        ["read", "write", "delete", "list", "admin", "claim", "cancel", "enqueue", "consume", "manage"];
    assert_eq!(Right::ALL.len(), names.len());
    for (number, name) in (1..).zip(names) {
        let right = Right::from_number(number).unwrap();
        assert_eq!((right.name(), Right::from_name(name), right.number()), (Some(name), Some(right), number));
    }
    let all: Rights = Right::ALL.iter().copied().collect();
    assert_eq!(all.iter().collect::<Vec<_>>(), Right::ALL);
    assert_eq!(all.with(Right::READ), all, "it is there already");
    assert_eq!(all.union(Rights::NONE.with(Right::READ)), all);
    assert!(Rights::NONE.is_empty() && !all.contains(Right::from_number(11).unwrap()));
}

#[test]
fn the_first_rule_that_applies_is_named_and_deny_comes_first() {
    let rules = Rules::parse(
        r#"
        default = "deny"
        [[rule]]
        allow = ["read"]
        who = ["*"]
        on = "**"
        [[rule]]
        name = "second"
        deny = ["read"]
        who = ["group:guests"]
        on = "a/*"
        [[rule]]
        name = "third"
        deny = ["read"]
        who = ["bob"]
        on = "a/**"
        "#,
    )
    .unwrap();
    let bob = principal("bob").with_groups(["guests"]).unwrap();
    assert_eq!(
        rules.decide(&bob, Right::READ, b"a\0b\0").by,
        Deciding::Rule { number: 2, name: Some("second") }
    );
    assert_eq!(rules.decide(&bob, Right::READ, b"a\0").by, Deciding::Rule { number: 3, name: Some("third") });
    assert_eq!(rules.decide(&bob, Right::READ, b"b\0").by, Deciding::Rule { number: 1, name: None });
    assert_eq!(rules.decide(&bob, Right::READ, b"a\0").by.to_string(), "\"third\" (rule 3)");
}

#[test]
fn a_group_is_not_a_principal_of_that_name() {
    let text = "default = \"deny\"\n[[rule]]\nallow = [\"read\"]\nwho = [\"group:cooks\"]\non = \"**\"";
    let rules = Rules::parse(text).unwrap();
    assert!(!allowed(&rules, "cooks", Right::READ, "a"));
    let cook = principal("ana").with_groups(["cooks"]).unwrap();
    assert!(rules.decide(&cook, Right::READ, b"a\0").allowed);
    let rules = Rules::parse(&text.replace("group:cooks", "cooks")).unwrap();
    assert!(!rules.decide(&cook, Right::READ, b"a\0").allowed);
}

#[test]
fn names_that_rules_could_not_write_are_refused() {
    let reserved = |name: &str| PrincipalError::Reserved { name: name.to_owned() };
    let not_a_segment = |name: &str| PrincipalError::NotASegment { name: name.to_owned() };
    let long = "n".repeat(256);
    for (name, error) in [
        ("", PrincipalError::Empty),
        ("*", reserved("*")),
        ("{owner}", reserved("{owner}")),
        ("group:cooks", reserved("group:cooks")),
        ("a/b", not_a_segment("a/b")),
        ("..", not_a_segment("..")),
        ("a\0b", not_a_segment("a\0b")),
        (&long, PrincipalError::TooLong { bytes: 256 }),
    ] {
        assert_eq!(PrincipalName::parse(name), Err(error.clone()));
        assert_eq!(principal("ana").with_groups([name]), Err(error));
    }
    assert_eq!(PrincipalName::parse("Ana von der Küche").unwrap().as_str(), "Ana von der Küche");
    assert_eq!(PrincipalName::parse(&long[1..]).unwrap().as_str().len(), 255);
}

fn rule(fields: &str) -> String {
    format!("default = \"deny\"\n\n[[rule]]\n{fields}\n")
}

/// A document, the line and field that the refusal must name, and the kind it must have.
type Refused = (String, usize, &'static str, fn(&Kind) -> bool);

fn refused(table: Vec<Refused>) {
    for (text, line, field, is_right) in table {
        let error = Rules::parse(&text).unwrap_err();
        let shown = error.to_string();
        assert!(is_right(&error.kind), "{shown}");
        assert_eq!((error.line, error.field.as_str()), (line, field), "{shown}");
        assert!(shown.len() < 500, "{shown}");
    }
}

#[test]
fn hostile_documents_are_refused_each_for_its_own_reason() {
    refused(vec![
        (String::new(), 1, "default", |k| matches!(k, Kind::Missing { .. })),
        ("default = ".into(), 1, "document", |k| matches!(k, Kind::Syntax { .. })),
        ("default = \"deny\"\ndefault = \"allow\"".into(), 2, "document", |k| {
            matches!(k, Kind::Syntax { .. })
        }),
        ("default = \"Deny\"".into(), 1, "default", |k| matches!(k, Kind::WrongValue { .. })),
        ("default = false".into(), 1, "default", |k| matches!(k, Kind::WrongType { .. })),
        ("default = \"deny\"\nrule = 1".into(), 2, "rule", |k| matches!(k, Kind::WrongType { .. })),
        ("default = \"deny\"\nrule = [1]".into(), 2, "rule", |k| matches!(k, Kind::WrongType { .. })),
        ("default = \"deny\"\n\nfallback = 1".into(), 3, "fallback", |k| {
            matches!(k, Kind::UnknownField { .. })
        }),
        ("default = \"deny\"\n[[limit]]\n".into(), 2, "limit", |k| matches!(k, Kind::UnknownField { .. })),
        ("#".repeat(MAX_DOCUMENT_BYTES + 1), 1, "document", |k| matches!(k, Kind::DocumentTooLarge { .. })),
        (format!("x = {}", "[".repeat(MAX_DOCUMENT_BYTES - 4)), 1, "document", |k| {
            matches!(k, Kind::Syntax { .. })
        }),
        (format!("default = \"deny\"\nrule = [{}]", "{},".repeat(10_001)), 2, "rule", |k| {
            matches!(k, Kind::TooMany { count: 10_001, limit: 10_000, .. })
        }),
    ]);
}

#[test]
fn hostile_rules_are_refused_each_for_its_own_reason() {
    let with = |fields: &str| rule(&format!("{fields}\nwho = [\"*\"]\non = \"**\""));
    let numbered = |letter: &str| (0..600).map(|n| format!("\"{letter}{n}\",")).collect::<String>();
    refused(vec![
        (with("denny = [\"read\"]"), 4, "rule 1, denny", |k| matches!(k, Kind::UnknownField { .. })),
        (with(""), 3, "rule 1", |k| matches!(k, Kind::NeitherAllowNorDeny)),
        (with("allow = [\"read\"]\ndeny = [\"read\"]"), 5, "rule 1, deny", |k| {
            matches!(k, Kind::AllowAndDeny)
        }),
        (with("allow = []"), 4, "rule 1, allow", |k| matches!(k, Kind::EmptyList)),
        (with("allow = \"read\""), 4, "rule 1, allow", |k| matches!(k, Kind::WrongType { .. })),
        (with("allow = [\"reed\"]"), 4, "rule 1, allow", |k| matches!(k, Kind::UnknownRight { .. })),
        (with("allow = [64]"), 4, "rule 1, allow", |k| matches!(k, Kind::UnknownRight { .. })),
        (with("name = \"a\\u001bb\"\nallow = [\"read\"]"), 4, "rule 1, name", |k| {
            matches!(k, Kind::WrongValue { .. })
        }),
        (rule("allow = [\"read\"]\non = \"**\""), 3, "rule 1, who", |k| matches!(k, Kind::Missing { .. })),
        (rule("allow = [\"read\"]\nwho = [\"*\"]"), 3, "rule 1, on", |k| matches!(k, Kind::Missing { .. })),
        (rule("allow = [\"read\"]\nwho = []\non = \"**\""), 5, "rule 1, who", |k| {
            matches!(k, Kind::EmptyList)
        }),
        (rule("allow = [\"read\"]\nwho = [\"*\"]\non = []"), 6, "rule 1, on", |k| {
            matches!(k, Kind::EmptyList)
        }),
        (
            rule("allow = [\"read\"]\nwho = [\"*\"]\non = [\n\"a\",\n\"/b\"]"),
            8,
            "rule 1, on",
            |k| matches!(k, Kind::Pattern(error) if error.kind == PatternErrorKind::LeadingSlash),
        ),
        (rule("allow = [\"read\"]\nwho = [\"a/b\"]\non = \"**\""), 5, "rule 1, who", |k| {
            matches!(k, Kind::Principal(PrincipalError::NotASegment { .. }))
        }),
        (rule("allow = [\"read\"]\nwho = [\"group:\"]\non = \"**\""), 5, "rule 1, who", |k| {
            matches!(k, Kind::Principal(PrincipalError::Empty))
        }),
        (
            rule("allow = [\"read\"]\nwho = [\"{owner}\"]\non = [\"{owner}/**\", \"b/**\"]"),
            5,
            "rule 1, who",
            |k| matches!(k, Kind::UnboundCapture { capture, pattern } if capture == "owner" && pattern == "b/**"),
        ),
        (
            rule("deny = [\"read\"]\nwho = [\"*\"]\nexcept = [\"{o}\"]\non = \"a\""),
            6,
            "rule 1, except",
            |k| matches!(k, Kind::UnboundCapture { .. }),
        ),
        (rule("deny = [\"read\"]\nwho = [\"*\"]\nexcept = [\"*\"]\non = \"a\""), 6, "rule 1, except", |k| {
            matches!(k, Kind::NeverApplies { .. })
        }),
        (
            rule("deny = [\"read\"]\nwho = [\"*\"]\nexcept = [\"{principal}\"]\non = \"{principal}\""),
            6,
            "rule 1, except",
            |k| matches!(k, Kind::NeverApplies { .. }),
        ),
        (
            rule(&format!("allow = [\"read\"]\nwho = [{}]\non = [{}]", numbered("n"), numbered("p"))),
            3,
            "rule 1",
            |k| matches!(k, Kind::TooMany { count: 360_000, limit: 250_000, .. }),
        ),
    ]);
}

#[test]
fn a_rule_gives_back_what_its_document_says() {
    let fields = "name = \"n\"\ndeny = [\"list\", \"read\"]\nwho = [\"{o}\", \"group:g\", \"b\", \"*\", \"b\"]\n\
                  except = [\"{p}\", \"group:h\", \"c\"]\non = [\"a/{o}/{p}\", \"{p}/{o}\"]";
    let rules = Rules::parse(&rule(fields)).unwrap();
    let [rule] = rules.rules() else { unreachable!("one rule") };
    let texts = |list: &[Who]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((rule.name(), rule.effect()), (Some("n"), Effect::Deny));
    assert_eq!(rule.rights(), Rights::NONE.with(Right::READ).with(Right::LIST));
    assert_eq!(texts(rule.who()), ["*", "b", "group:g", "{o}"]);
    assert_eq!(texts(rule.except()), ["c", "group:h", "{p}"]);
    assert_eq!(
        rule.on().iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>(),
        ["a/{o}/{p}", "{p}/{o}"]
    );
    assert_eq!(rules.default_effect(), Effect::Deny);
}

#[test]
fn a_document_has_as_much_of_everything_as_it_may_and_not_one_more() {
    let names = |count: usize| (0..count).map(|n| format!("\"n{n}\",")).collect::<String>();
    let pairs = |who: usize, on: usize| {
        Rules::parse(&rule(&format!("allow = [\"read\"]\nwho = [{}]\non = [{}]", names(who), names(on))))
    };
    assert!(pairs(1, 10_000).is_ok());
    let error = pairs(1, 10_001).unwrap_err().kind;
    assert!(matches!(error, Kind::TooMany { count: 10_001, limit: 10_000, .. }), "{error}");
    assert!(pairs(500, 500).is_ok());
    let error = pairs(500, 501).unwrap_err().kind;
    assert!(matches!(error, Kind::TooMany { count: 250_500, limit: 250_000, .. }), "{error}");

    let rules = |count: usize| {
        let one = "[[rule]]\nallow = [\"read\"]\nwho = [\"*\"]\non = \"a\"\n";
        Rules::parse(&format!("default = \"deny\"\n{}", one.repeat(count)))
    };
    assert_eq!(rules(10_000).unwrap().rules().len(), 10_000);
    assert!(rules(10_001).is_err());

    let text = "default = \"deny\"\n";
    let filled = |bytes: usize| Rules::parse(&[text, &" ".repeat(bytes - text.len())].concat());
    assert!(filled(MAX_DOCUMENT_BYTES).is_ok());
    assert!(matches!(filled(MAX_DOCUMENT_BYTES + 1).unwrap_err().kind, Kind::DocumentTooLarge { .. }));

    for (length, is_name) in [(0, false), (1, true), (255, true), (256, false)] {
        let name = "n".repeat(length);
        let text = rule(&format!("name = \"{name}\"\nallow = [\"read\"]\nwho = [\"*\"]\non = \"a\""));
        assert_eq!(Rules::parse(&text).is_ok(), is_name, "{length} bytes");
    }
}

#[test]
fn rules_and_limits_are_two_documents_and_one_file() {
    let (rules, limits) = parse_combined(PANTRY).unwrap();
    let limits = limits.unwrap();
    assert_eq!((rules.rules().len(), limits.limit_count()), (2, 1));
    assert_eq!(rules.default_effect(), Effect::Deny);
    assert_eq!(Rules::parse(&rules.to_toml()).unwrap(), rules);
    assert_eq!(Limits::parse(&limits.to_toml()).unwrap(), limits);
    assert_eq!(parse_combined("default = \"deny\"").unwrap().1, None);
    let usual = Limits::default().max_tags();
    let repeated = parse_combined(&format!("default = \"deny\"\nmax_tags = {usual}")).unwrap().1;
    assert_eq!(repeated, Some(Limits::default()), "what is said is said, though it be the usual");
    assert!(matches!(Rules::parse(PANTRY).unwrap_err().kind, Kind::UnknownField { .. }));
    assert!(matches!(Limits::parse(PANTRY).unwrap_err().kind, Kind::UnknownField { .. }));
    assert!(matches!(
        parse_combined("default = \"deny\"\nx = 1").unwrap_err().kind,
        Kind::UnknownField { .. }
    ));
    assert_eq!(
        rules.to_toml(),
        r#"default = "deny"

[[rule]]
name = "own drawer"
allow = ["read", "write", "delete", "list"]
who = ["*"]
on = ["users/{principal}/**"]

[[rule]]
name = "nobody reads a private drawer but its owner"
deny = ["read", "list"]
who = ["*"]
except = ["{owner}"]
on = ["users/{owner}/private/**"]
"#
    );
    let quotes =
        rule("name = \"say \\\"hi\\\" \\\\ 'x'\"\nallow = [\"read\"]\nwho = [\"a'b\\\"c\"]\non = \"a\\\"b\"");
    let rules = Rules::parse(&quotes).unwrap();
    assert_eq!(Rules::parse(&rules.to_toml()).unwrap(), rules);
}

#[test]
fn a_thousand_rules_on_one_pattern_find_each_principal() {
    let mut text = "default = \"deny\"\n".to_owned();
    for n in 0..1000 {
        text.push_str(&format!("[[rule]]\nallow = [\"read\"]\nwho = [\"user{n}\"]\non = \"shared/**\"\n"));
    }
    let rules = Rules::parse(&text).unwrap();
    let last = principal("user999");
    let other = principal("user1000");
    assert_eq!(
        rules.decide(&last, Right::READ, b"shared\0x\0").by,
        Deciding::Rule { number: 1000, name: None }
    );
    assert_eq!(rules.decide(&other, Right::READ, b"shared\0x\0").by, Deciding::Default);
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn any_on() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "c", "*", "{principal}", "{o}"]);
    (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, rest)| {
        let mut kept = Vec::new();
        for segment in segments {
            let twice = segment.starts_with('{') && kept.contains(&segment);
            kept.push(if twice { "*" } else { segment });
        }
        if rest || kept.is_empty() {
            kept.push("**");
        }
        kept.join("/")
    })
}

fn any_rule() -> impl Strategy<Value = String> {
    let who =
        prop::collection::vec(prop::sample::select(vec!["*", "a", "b", "group:g", "group:h", "{o}"]), 1..3);
    let except = prop::collection::vec(prop::sample::select(vec!["a", "c", "group:g", "{o}"]), 0..3);
    let rights = prop::sample::select(vec!["\"read\"", "\"write\"", "\"read\", \"write\""]);
    (any::<bool>(), rights, who, except, prop::collection::vec(any_on(), 1..3)).prop_map(
        |(allow, rights, who, except, on)| {
            let bound = on.iter().all(|pattern| pattern.contains("{o}"));
            let list = |entries: Vec<&str>| {
                let kept = entries.into_iter().filter(|entry| bound || *entry != "{o}");
                kept.map(|entry| format!("\"{entry}\"")).collect::<Vec<_>>().join(", ")
            };
            let mut who = list(who);
            if who.is_empty() {
                who = "\"*\"".to_owned();
            }
            let effect = if allow { "allow" } else { "deny" };
            let on = on.iter().map(|pattern| format!("\"{pattern}\"")).collect::<Vec<_>>().join(", ");
            format!(
                "[[rule]]\n{effect} = [{rights}]\nwho = [{who}]\nexcept = [{}]\non = [{on}]\n",
                list(except)
            )
        },
    )
}

fn any_rules() -> impl Strategy<Value = String> {
    (prop::sample::select(vec!["allow", "deny"]), prop::collection::vec(any_rule(), 0..8))
        .prop_map(|(default, rules)| format!("default = \"{default}\"\n{}", rules.concat()))
}

fn any_caller() -> impl Strategy<Value = Principal> {
    let groups = prop::collection::vec(prop::sample::select(vec!["g", "h", "a"]), 0..3);
    (prop::sample::select(NAMES.to_vec()), groups)
        .prop_map(|(name, groups)| principal(name).with_groups(groups).unwrap())
}

/// Every path of up to four segments, each with a slash in front, and the root.
fn all_paths() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut longest = all.clone();
    for _ in 0..4 {
        longest = longest.iter().flat_map(|path| NAMES.map(|name| format!("{path}/{name}"))).collect();
        all.extend(longest.iter().cloned());
    }
    all
}

proptest! {
    #[test]
    fn decide_is_what_explain_says(text in any_rules(), who in any_caller()) {
        let rules = Rules::parse(&text).unwrap();
        for path in all_paths() {
            for right in [Right::READ, Right::WRITE, Right::LIST] {
                let key = encode(&path);
                let decision = rules.decide(&who, right, &key);
                let explanation = rules.explain(&who, right, &key);
                prop_assert_eq!(explanation.decision(), decision, "{} in {}", path, text);
                prop_assert!(decision.allowed || !rules.is_open());
            }
        }
    }

    #[test]
    fn deny_wins_and_another_deny_rule_never_allows_more(
        text in any_rules(), more in any_rule(), who in any_caller()
    ) {
        let rules = Rules::parse(&text).unwrap();
        let stricter = Rules::parse(&format!("{text}{}", more.replace("allow = [", "deny = ["))).unwrap();
        for path in all_paths() {
            let key = encode(&path);
            prop_assert!(
                rules.decide(&who, Right::READ, &key).allowed || !stricter.decide(&who, Right::READ, &key).allowed,
                "{} in {}", path, text
            );
        }
    }

    #[test]
    fn uniform_below_holds_for_every_key_at_and_below(text in any_rules(), who in any_caller()) {
        let rules = Rules::parse(&text).unwrap();
        let all = all_paths();
        for prefix in all.iter().filter(|path| path.len() <= 4) {
            let Some(uniform) = rules.uniform_below(&encode(prefix), &who, Right::READ) else { continue };
            let beginning = format!("{prefix}/");
            for path in all.iter().filter(|path| *path == prefix || path.starts_with(&beginning)) {
                prop_assert_eq!(
                    rules.decide(&who, Right::READ, &encode(path)).allowed, uniform,
                    "{} below {} in {}", path, prefix, text
                );
            }
        }
    }

    #[test]
    fn the_canonical_form_means_the_same(text in any_rules()) {
        let rules = Rules::parse(&text).unwrap();
        let written = rules.to_toml();
        let again = Rules::parse(&written).unwrap();
        prop_assert_eq!(&again, &rules);
        prop_assert_eq!(again.to_toml(), written);
    }

    #[test]
    fn no_document_panics(text in "(default|rule|allow|\\[|\\]|=|\"|\\*|\\{|\\}|who|on|\n| |,|[a-z0-9]){0,60}") {
        let _ = (Rules::parse(&text), Limits::parse(&text), parse_combined(&text));
    }
}
