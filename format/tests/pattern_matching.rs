//! The grammar of patterns as a table, and the trie against a matcher too simple to be wrong.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails may panic, in its helpers too"
)]

use larder_format::{
    MAX_PATTERN_BYTES, MAX_PATTERN_SEGMENTS, Pattern, PatternErrorKind as Kind, PatternSegment, PatternSet,
};
use proptest::prelude::*;

fn encode(path: &str) -> Vec<u8> {
    let mut key = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        key.extend_from_slice(segment.as_bytes());
        key.push(0);
    }
    key
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

/// Matches by the definition, on the written forms.
fn oracle(pattern: &str, path: &str) -> bool {
    fn go(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            (["**"], _) | ([], []) => true,
            ([], _) | (_, []) => false,
            ([p, ps @ ..], [s, ss @ ..]) => (*p == "*" || p.starts_with('{') || p == s) && go(ps, ss),
        }
    }
    let pattern: Vec<_> = pattern.split('/').collect();
    let path: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    go(&pattern, &path)
}

fn matched(set: &PatternSet<usize>, key: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    set.for_each_match(key, |number, _| found.push(*number));
    found.sort_unstable();
    found
}

/// Every pattern of up to three segments over a small alphabet, each without and with `**`.
fn patterns() -> Vec<String> {
    let mut all = vec!["**".to_owned()];
    let mut longest = vec![String::new()];
    for _ in 0..3 {
        let mut longer = Vec::new();
        for beginning in &longest {
            for segment in ["a", "b", "*", "{x}"] {
                if segment == "{x}" && beginning.contains("{x}") {
                    continue;
                }
                longer.push(if beginning.is_empty() {
                    segment.to_owned()
                } else {
                    format!("{beginning}/{segment}")
                });
            }
        }
        all.extend(longer.iter().cloned());
        all.extend(longer.iter().map(|text| format!("{text}/**")));
        longest = longer;
    }
    all
}

/// Every path of up to `depth` segments over the alphabet, the root among them.
fn paths(depth: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut longest = vec![String::new()];
    for _ in 0..depth {
        longest = longest.iter().flat_map(|path| ["a", "b", "ab"].map(|s| format!("{path}/{s}"))).collect();
        all.extend(longest.iter().map(|path| path[1..].to_owned()));
    }
    all
}

#[test]
fn s0_7_spec_table() {
    for (text, path, expected) in [
        ("a", "a", true),
        ("a", "", false),
        ("a", "b", false),
        ("a", "a/b", false),
        ("a", "ab", false),
        ("a/**", "a", true),
        ("a/**", "a/b", true),
        ("a/**", "a/b/c/d", true),
        ("a/**", "ab", false),
        ("a/**", "", false),
        ("**", "", true),
        ("**", "a", true),
        ("**", "a/b/c", true),
        ("*", "", false),
        ("*", "a", true),
        ("*", "a/b", false),
        ("*/b", "a/b", true),
        ("*/b", "b", false),
        ("*/**", "", false),
        ("*/**", "a", true),
        ("*/**", "a/b", true),
        ("{owner}/x", "ana/x", true),
        ("{owner}/x", "ana/y", false),
        ("A", "a", false),
        ("é", "e\u{301}", false),
        ("a?", "ab", false),
        ("a?", "a?", true),
        ("[ab]", "a", false),
        ("a\\b", "a\\b", true),
        ("user/*/private/*", "user/alice/private/f", true),
        ("user/*/private/*", "user/alice/public/f", false),
        ("user/*/private/*", "user/alice/private/f/g", false),
    ] {
        assert_eq!(pattern(text).matches_encoded(&encode(path)), expected, "{text} on {path}");
        assert_eq!(oracle(text, path), expected, "oracle: {text} on {path}");
    }
}

#[test]
fn the_trie_finds_what_the_oracle_finds() {
    let patterns = patterns();
    assert!(patterns.len() >= 100, "{}", patterns.len());
    let mut set = PatternSet::new();
    for (number, text) in patterns.iter().enumerate() {
        set.insert(&pattern(text), number);
    }
    assert_eq!(set.len(), patterns.len());
    for path in paths(4) {
        let key = encode(&path);
        let expected: Vec<usize> = (0..patterns.len()).filter(|&n| oracle(&patterns[n], &path)).collect();
        assert_eq!(matched(&set, &key), expected, "{path}");
        for text in &patterns {
            assert_eq!(pattern(text).matches_encoded(&key), oracle(text, &path), "{text} on {path}");
        }
    }
}

#[test]
fn captures_are_the_keys_segments() {
    let mut set = PatternSet::new();
    set.insert(&pattern("users/{owner}/private/{file}"), 1);
    set.insert(&pattern("users/{who}/**"), 2);
    set.insert(&pattern("users/*/**"), 3);
    let mut found = Vec::new();
    set.for_each_match(b"users\0ana\0private\0diary\0", |number, captures| {
        let names: Vec<_> =
            captures.iter().map(|(n, s)| format!("{n}={}", String::from_utf8_lossy(s))).collect();
        found.push((*number, names.join(" "), captures.get("owner").map(<[u8]>::to_vec)));
    });
    found.sort();
    assert_eq!(found[0], (1, "owner=ana file=diary".to_owned(), Some(b"ana".to_vec())));
    assert_eq!(found[1], (2, "who=ana".to_owned(), None));
    assert_eq!(found[2], (3, String::new(), None));
}

#[test]
fn a_key_without_its_last_zero_byte_is_not_missed() {
    assert!(pattern("a/b").matches_encoded(b"a\0b"));
    assert!(!pattern("a").matches_encoded(b"a\0\0"));
}

#[test]
fn may_differ_below_is_false_only_when_nothing_differs() {
    for texts in [vec!["a/**"], vec!["a/b", "b/**"], vec!["*/a/**"], vec!["{x}/{y}"], vec!["**", "a/b/ab"]] {
        let mut set = PatternSet::new();
        for (number, text) in texts.iter().enumerate() {
            set.insert(&pattern(text), number);
        }
        for prefix in paths(2) {
            let beginning = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            let all = paths(4).into_iter();
            let below: Vec<_> = all.filter(|path| !path.is_empty() && path.starts_with(&beginning)).collect();
            let first = matched(&set, &encode(&below[0]));
            let differs = below.iter().any(|path| matched(&set, &encode(path)) != first);
            assert!(set.may_differ_below(&encode(&prefix)) || !differs, "{texts:?} below {prefix}");
        }
    }
    let mut set = PatternSet::new();
    set.insert(&pattern("users/{owner}/**"), 0);
    assert!(set.may_differ_below(b""));
    assert!(set.may_differ_below(b"users\0"));
    assert!(!set.may_differ_below(b"users\0ana\0"));
    assert!(!set.may_differ_below(b"recipes\0"));
}

#[test]
fn specificity_is_decided_from_the_left() {
    let rising = ["**", "*/**", "*/b/**", "*/b", "a/**", "a/*/**", "a/*/c/**", "a/*/c", "a/b/**", "a/b/c"];
    for pair in rising.windows(2) {
        assert!(pattern(pair[0]).cmp_specificity(&pattern(pair[1])).is_lt(), "{pair:?}");
    }
    assert!(pattern("{x}/a").cmp_specificity(&pattern("*/b")).is_eq());
    assert!(pattern("a").cmp_specificity(&pattern("a/**")).is_gt());
}

#[test]
fn hostile_patterns_are_refused_each_for_its_own_reason() {
    let long = "x".repeat(256);
    let deep = ["a"; MAX_PATTERN_SEGMENTS + 1].join("/");
    let longest = "x/".repeat(MAX_PATTERN_BYTES);
    let name = format!("{{{}}}", "n".repeat(33));
    for (text, position, kind) in [
        ("", 0, Kind::Empty),
        ("/admin/**", 0, Kind::LeadingSlash),
        ("/", 0, Kind::LeadingSlash),
        ("a//b", 2, Kind::EmptySegment),
        ("a/", 2, Kind::EmptySegment),
        ("a/**/", 2, Kind::RestNotLast),
        ("**/a", 0, Kind::RestNotLast),
        ("a/**/b", 2, Kind::RestNotLast),
        ("**/**", 0, Kind::RestNotLast),
        (".", 0, Kind::DotSegment),
        ("a/../b", 2, Kind::DotSegment),
        ("data/*.csv", 5, Kind::PartialWildcard),
        ("a/b*", 3, Kind::PartialWildcard),
        ("***", 0, Kind::PartialWildcard),
        ("a/{", 2, Kind::StrayBrace),
        ("a/}", 2, Kind::StrayBrace),
        ("user-{name}", 5, Kind::StrayBrace),
        ("{a}{b}", 0, Kind::CaptureName),
        ("{}", 0, Kind::CaptureName),
        ("{Owner}", 0, Kind::CaptureName),
        ("{1}", 0, Kind::CaptureName),
        ("{a,b}", 0, Kind::CaptureName),
        ("{*}", 0, Kind::CaptureName),
        (&name, 0, Kind::CaptureName),
        ("{a}/{b}/{a}", 8, Kind::DuplicateCapture),
        ("a/\0", 2, Kind::ControlCharacter),
        ("a/b\nc", 3, Kind::ControlCharacter),
        ("a/\u{85}", 2, Kind::ControlCharacter),
        (&long, 255, Kind::SegmentTooLong { bytes: 256 }),
        (&deep, 128, Kind::TooManySegments),
        (&longest, MAX_PATTERN_BYTES, Kind::TooLong { bytes: 2 * MAX_PATTERN_BYTES }),
    ] {
        let error = Pattern::parse(text).unwrap_err();
        assert_eq!((error.position, &error.kind), (position, &kind), "{text:?}");
        assert!(error.pattern.len() <= 80 && text.starts_with(&error.pattern));
        let shown = error.to_string();
        assert!(shown.contains(&format!("byte {position}")) && shown.len() > 40, "{shown}");
    }
    let deepest = format!("{}/**", ["a"; MAX_PATTERN_SEGMENTS].join("/"));
    assert_eq!(pattern(&deepest).segments().len(), MAX_PATTERN_SEGMENTS);
}

#[test]
fn patterns_that_all_begin_alike_are_met_once_each() {
    let mut set = PatternSet::new();
    for depth in 1..=64_usize {
        for at in 0..depth {
            let text: Vec<_> = (0..depth).map(|n| if n == at { "a" } else { "*" }).collect();
            set.insert(&pattern(&text.join("/")), depth);
        }
    }
    assert_eq!(matched(&set, &encode(&["a"; 64].join("/"))).len(), 64);
}

#[test]
fn parsed_parts_are_as_written() {
    let parsed: Pattern = "users/{owner}/*/**".parse().unwrap();
    assert_eq!(parsed.as_str(), "users/{owner}/*/**");
    assert_eq!(parsed.to_string(), parsed.as_str());
    assert!(parsed.has_rest());
    assert_eq!(
        parsed.segments(),
        [
            PatternSegment::Literal("users".into()),
            PatternSegment::Capture("owner".into()),
            PatternSegment::Any
        ]
    );
    assert_eq!(parsed.captures().collect::<Vec<_>>(), [("owner", 1)]);
}

fn any_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("abc"), Just("*"), Just("é")];
    (prop::collection::vec(segment, 1..7), any::<bool>()).prop_map(|(segments, rest)| {
        let text = segments.join("/");
        if rest { format!("{text}/**") } else { text }
    })
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("abc"), Just("c"), Just("é")], 0..8)
        .prop_map(|segments| segments.join("/"))
}

proptest! {
    #[test]
    fn the_trie_agrees_with_the_oracle(texts in prop::collection::vec(any_pattern(), 0..60), path in any_path()) {
        let mut set = PatternSet::new();
        for (number, text) in texts.iter().enumerate() {
            set.insert(&pattern(text), number);
        }
        let expected: Vec<usize> = (0..texts.len()).filter(|&n| oracle(&texts[n], &path)).collect();
        prop_assert_eq!(matched(&set, &encode(&path)), expected);
    }

    #[test]
    fn no_text_and_no_key_panics(text in "[a*{}/._]{0,20}|.{0,40}", key in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(pattern) = Pattern::parse(&text) {
            let mut set = PatternSet::new();
            set.insert(&pattern, 0);
            prop_assert_eq!(matched(&set, &key).len() == 1, pattern.matches_encoded(&key));
            set.may_differ_below(&key);
        }
    }
}

#[test]
fn a_set_is_empty_until_there_is_a_pattern_in_it() {
    let mut set = PatternSet::new();
    assert!(set.is_empty());
    set.insert(&pattern("a/**"), 1);
    assert!(!set.is_empty());
}
