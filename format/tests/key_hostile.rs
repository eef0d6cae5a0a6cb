//! Texts and bytes that are no keys, each refused for its own reason.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in test functions; here they are in what those call"
)]

use larder_format::{Key, KeyError, Prefix};

fn empty_segment(position: usize) -> KeyError {
    KeyError::EmptySegment { position }
}

fn dot(segment: &str, position: usize) -> KeyError {
    KeyError::DotSegment { segment: segment.into(), position }
}

fn control(code: u32, position: usize) -> KeyError {
    KeyError::ControlCharacter { code, position }
}

fn too_long(len: usize) -> KeyError {
    KeyError::TooLong { len, max: 1024 }
}

fn too_deep(depth: usize) -> KeyError {
    KeyError::TooDeep { depth, max: 64 }
}

fn segment_too_long(excerpt: &str, len: usize) -> KeyError {
    KeyError::SegmentTooLong { segment: excerpt.into(), len, max: 255 }
}

#[test]
fn hostile_texts_are_refused_each_for_its_own_reason() {
    let long = |len: usize| "s".repeat(len);
    let quoted = format!("{}…", "s".repeat(64));
    let mut cases: Vec<(String, KeyError)> = vec![
        (String::new(), KeyError::Empty),
        (long(256), segment_too_long(&quoted, 256)),
        (format!("a/{}", long(256)), segment_too_long(&quoted, 256)),
        (format!("{}/a", long(300)), segment_too_long(&quoted, 300)),
        (long(1023), segment_too_long(&quoted, 1023)),
        (format!("{}...", long(253)), segment_too_long(&quoted, 256)),
        (format!("{}.../a", long(253)), segment_too_long(&quoted, 256)),
        ("é".repeat(128), segment_too_long(&format!("{}…", "é".repeat(64)), 256)),
        ("\u{202e}".repeat(86), segment_too_long(&format!("{}…", "\\u{202e}".repeat(64)), 258)),
        (long(1024), too_long(1025)),
        (long(1 << 20), too_long((1 << 20) + 1)),
        ([long(255), long(255), long(255), long(255), "a".into()].join("/"), too_long(1026)),
        ("/".repeat(2000), too_long(2001)),
        ("../".repeat(400), too_long(1201)),
        (["a"; 65].join("/"), too_deep(65)),
        (["a"; 512].join("/"), too_deep(512)),
        ("/".repeat(1000), too_deep(1001)),
        ("../".repeat(100), too_deep(101)),
    ];
    let short = [
        ("/", empty_segment(0)),
        ("//", empty_segment(0)),
        ("///", empty_segment(0)),
        ("/a", empty_segment(0)),
        ("a/", empty_segment(2)),
        ("a//b", empty_segment(2)),
        ("a/b/", empty_segment(4)),
        ("a///b", empty_segment(2)),
        ("/etc/passwd", empty_segment(0)),
        ("é//b", empty_segment(3)),
        ("//host/share", empty_segment(0)),
        (".", dot(".", 0)),
        ("..", dot("..", 0)),
        ("./a", dot(".", 0)),
        ("../a", dot("..", 0)),
        ("a/.", dot(".", 2)),
        ("a/..", dot("..", 2)),
        ("a/./b", dot(".", 2)),
        ("a/../b", dot("..", 2)),
        ("a/b/../../..", dot("..", 4)),
        ("../../etc/passwd", dot("..", 0)),
        ("./", dot(".", 0)),
        ("\0", control(0, 0)),
        ("a\0", control(0, 1)),
        ("a\0b", control(0, 1)),
        ("a/b\0/c", control(0, 3)),
        ("..\0", control(0, 2)),
        ("a\u{1}", control(1, 1)),
        ("a\u{7}b", control(7, 1)),
        ("a\tb", control(9, 1)),
        ("a\nb", control(10, 1)),
        ("a\r\nb", control(13, 1)),
        ("\n", control(10, 0)),
        ("\u{1b}[31mred", control(0x1b, 0)),
        ("a/\u{1b}]0;title\u{7}", control(0x1b, 2)),
        ("a\u{1f}", control(0x1f, 1)),
        ("a\u{7f}", control(0x7f, 1)),
        ("é\u{80}", control(0x80, 2)),
        ("a\u{85}b", control(0x85, 1)),
        ("a\u{9b}31m", control(0x9b, 1)),
        ("a/b/\u{9f}", control(0x9f, 4)),
        ("a/\u{0}/../b", control(0, 2)),
        ("a/../\u{0}", dot("..", 2)),
        ("a//\u{0}", empty_segment(2)),
    ];
    cases.extend(short.map(|(text, error)| (text.to_owned(), error)));
    for code in (0..0x20).chain(0x7f..0xa0) {
        let character = char::from_u32(code).unwrap();
        cases.push((format!("dir/{character}"), control(code, 4)));
    }
    assert!(cases.len() >= 60);
    for (text, expected) in cases {
        let error = Key::parse(&text).unwrap_err();
        assert_eq!(error, expected, "{text:?}");
        let message = error.to_string();
        assert!(!message.contains(char::is_control), "{message:?}");
        assert!(message.chars().count() < 1000, "{message:?}");
        if text.is_empty() {
            assert_eq!(Prefix::parse(&text), Ok(Prefix::root()));
        } else {
            assert_eq!(Prefix::parse(&text), Err(expected));
        }
    }
}

#[test]
fn hostile_bytes_are_refused_each_for_its_own_reason() {
    let missing =
        |position| KeyError::NotCanonical { position, expected: "the byte 00 after the last segment" };
    let slash =
        |position| KeyError::NotCanonical { position, expected: "the byte 00 between segments, not a slash" };
    let cases: Vec<(Vec<u8>, KeyError)> = vec![
        (b"".to_vec(), KeyError::Empty),
        (b"a".to_vec(), missing(1)),
        (b"a\0b".to_vec(), missing(3)),
        (b"/".to_vec(), missing(1)),
        (b"\0".to_vec(), empty_segment(0)),
        (b"\0\0".to_vec(), empty_segment(0)),
        (b"a\0\0".to_vec(), empty_segment(2)),
        (b"\0a\0".to_vec(), empty_segment(0)),
        (b"a\0\0b\0".to_vec(), empty_segment(2)),
        (b"a/b\0".to_vec(), slash(1)),
        (b"/\0".to_vec(), slash(0)),
        (b"..\0".to_vec(), dot("..", 0)),
        (b"a\0.\0".to_vec(), dot(".", 2)),
        (b"a\x01\0".to_vec(), control(1, 1)),
        (b"a\x01".to_vec(), missing(2)),
        (b"\xc2\x80\0".to_vec(), control(0x80, 0)),
        (b"\xff\0".to_vec(), KeyError::NotUtf8 { position: 0 }),
        (b"a\0\xc3\0".to_vec(), KeyError::NotUtf8 { position: 2 }),
        (b"a\0\xc0\x80\0".to_vec(), KeyError::NotUtf8 { position: 2 }),
        (b"\xed\xa0\x80\0".to_vec(), KeyError::NotUtf8 { position: 0 }),
        (vec![b'a'; 1025], too_long(1025)),
        (vec![0; 1 << 20], too_long(1 << 20)),
        (b"a\0".repeat(65), too_deep(65)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Key::decode(&bytes), Err(expected), "{bytes:?}");
    }
}

#[test]
fn join_takes_one_segment() {
    let a = Key::parse("a").unwrap();
    for text in ["b/c", "/b", "b/", "/", "../x"] {
        let position = text.find('/').unwrap();
        let expected = KeyError::SlashInSegment { segment: text.into(), position };
        assert_eq!(a.join(text), Err(expected.clone()));
        assert_eq!(Prefix::root().join(text), Err(expected));
    }
    assert_eq!(a.join(""), Err(empty_segment(2)));
    assert_eq!(Prefix::root().join(""), Err(KeyError::Empty));
    assert_eq!(a.join(".."), Err(dot("..", 2)));
    assert_eq!(a.join("b\0"), Err(control(0, 3)));
    assert_eq!(a.join(&"s".repeat(2000)), Err(too_long(2003)));
    assert_eq!(a.join(&"s".repeat(256)), Err(segment_too_long(&format!("{}…", "s".repeat(64)), 256)));
    let KeyError::SlashInSegment { segment, .. } = a.join("\u{1b}[2J/x").unwrap_err() else { panic!() };
    assert_eq!(segment, "\\u{1b}[2J/x");
}

#[test]
fn keys_at_the_limits_and_unusual_ones_are_kept() {
    let segment = "s".repeat(255);
    let longest = [&segment, &segment, &segment, &segment].map(String::as_str).join("/");
    assert_eq!(longest.len(), 1023);
    let accepted = [
        segment,
        longest,
        ["a"; 64].join("/"),
        "...".into(),
        "..a/a..".into(),
        " ".into(),
        "a b/ c ".into(),
        "C:\\x".into(),
        "NUL".into(),
        "a:b|c*?\"<>".into(),
        "-rf".into(),
        "~".into(),
        "%2e%2e%2f".into(),
        "\u{a0}".into(),
        "\u{feff}a".into(),
        "\u{2028}".into(),
        "\u{202e}txt".into(),
        "\u{ff0f}\u{2044}\u{ff0e}".into(),
        "日本語/ключ/🗝".into(),
        "\u{10ffff}".into(),
    ];
    for text in accepted {
        let key = Key::parse(&text).unwrap();
        assert_eq!(key.as_str(), text);
        assert_eq!(Key::decode(key.encoded()).unwrap(), key);
    }
    assert_ne!(Key::parse("\u{e9}").unwrap(), Key::parse("e\u{301}").unwrap());
    assert_ne!(Key::parse("A").unwrap(), Key::parse("a").unwrap());
}

#[test]
fn a_segment_has_255_bytes_at_most_also_of_other_letters() {
    let most = format!("{}x", "ä".repeat(127));
    assert_eq!(Key::parse(&most).unwrap().as_str().len(), 255);
    assert!(matches!(Key::parse(&"ä".repeat(128)), Err(KeyError::SegmentTooLong { len: 256, max: 255, .. })));
}
