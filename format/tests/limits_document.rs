//! Limits: sizes by pattern, levels by pattern, byte sizes, refused documents.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails may panic, in its helpers too"
)]

use larder_format::{ByteSize, LimitedBy, Limits, PatternErrorKind, RulesErrorKind as Kind, Strictness};
use proptest::prelude::*;

fn limits(text: &str) -> Limits {
    Limits::parse(text).unwrap()
}

#[test]
fn s0_6_a_one_byte_over_is_over() {
    let limits = limits("max_binary_size = 1_000_000");
    let limit = limits.max_binary_size(b"a\0");
    assert_eq!((limit.bytes, limit.by), (1_000_000, LimitedBy::Default));
    assert!(limit.allows(1_000_000));
    assert!(!limit.allows(1_000_001));
}

#[test]
fn s0_6_c_a_prefix_overrides_the_default() {
    let limits =
        limits("max_binary_size = \"1 MiB\"\n[[limit]]\non = \"img/**\"\nmax_binary_size = \"10 MiB\"");
    assert!(limits.max_binary_size(b"img\0a\0").allows(5 << 20));
    assert!(!limits.max_binary_size(b"doc\0a\0").allows(5 << 20));
    assert_eq!(limits.max_binary_size(b"img\0a\0").by.to_string(), "limit 1 on \"img/**\"");
    assert_eq!(limits.max_binary_size(b"doc\0a\0").by.to_string(), "the default");
}

#[test]
fn s0_6_d_boundaries() {
    for bytes in [0_u64, 1, 1000] {
        let limits = limits(&format!("max_binary_size = {bytes}"));
        let limit = limits.max_binary_size(b"a\0");
        for size in [0, 1, bytes.saturating_sub(1), bytes, bytes + 1] {
            assert_eq!(limit.allows(size), size <= bytes);
        }
    }
}

#[test]
fn s0_6_f_defaults() {
    let limits = limits("");
    assert_eq!(limits, Limits::default());
    assert_eq!(limits.max_binary_size(b"a\0").bytes, 1 << 30);
    assert_eq!(limits.default_binary_size(), 1 << 30);
    assert_eq!(limits.max_metadata_size(), 1 << 20);
    assert_eq!((limits.max_tags(), limits.max_tag_length()), (64, 128));
    assert_eq!((limits.max_batch_bytes(), limits.max_batch_count()), (64 << 20, 100_000));
    assert_eq!(limits.strictness(b"a\0"), Strictness::Warn);
    assert_eq!(limits.limit_count(), 0);
}

#[test]
fn the_most_specific_limit_decides_whatever_the_order() {
    let tables = [
        "[[limit]]\non = \"**\"\nmax_binary_size = 1\n",
        "[[limit]]\non = \"users/**\"\nmax_binary_size = 2\n",
        "[[limit]]\non = \"users/*/uploads/**\"\nmax_binary_size = 30\n",
        "[[limit]]\non = [\"users/ana/**\", \"users/ann/**\"]\nmax_binary_size = 4\n",
        "[[limit]]\non = \"users/{who}/uploads/**\"\nmax_binary_size = 31\n",
    ];
    let reversed: Vec<_> = tables.iter().rev().copied().collect();
    for text in [tables.concat(), reversed.concat()] {
        let limits = limits(&text);
        let bytes = |key: &[u8]| limits.max_binary_size(key).bytes;
        assert_eq!(bytes(b""), 1);
        assert_eq!(bytes(b"users\0"), 2);
        assert_eq!(bytes(b"users\0bob\0x\0"), 2);
        assert_eq!(bytes(b"users\0bob\0uploads\0x\0"), 30, "the smaller of two as specific");
        assert_eq!(bytes(b"users\0ana\0uploads\0x\0"), 4, "more literal segments in front");
        assert_eq!(bytes(b"users\0ann\0"), 4);
    }
    let twice =
        limits("[[limit]]\non = \"a\"\nmax_binary_size = 7\n[[limit]]\non = \"a\"\nmax_binary_size = 7");
    assert!(matches!(twice.max_binary_size(b"a\0").by, LimitedBy::Limit { number: 1, .. }));
}

#[test]
fn strictness_by_pattern() {
    let limits = limits(
        r#"
        [[strictness]]
        on = "**"
        level = "off"
        [[strictness]]
        on = "in/**"
        level = "strict"
        [[strictness]]
        on = "in/**"
        level = "warn"
        "#,
    );
    assert_eq!(limits.strictness(b"a\0"), Strictness::Off);
    assert_eq!(limits.strictness(b"in\0a\0"), Strictness::Strict, "the stricter of two as specific");
}

#[test]
fn byte_sizes_are_read_exactly() {
    for (text, bytes) in [
        ("0", Some(0)),
        ("500", Some(500)),
        ("500 B", Some(500)),
        ("1 KB", Some(1000)),
        ("1 KiB", Some(1024)),
        ("10MiB", Some(10 << 20)),
        ("1.5 GiB", Some(3 << 29)),
        ("2 GB", Some(2_000_000_000)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("17179869184 GiB", None),
        ("0.3 B", None),
        ("0.1 KiB", None),
        ("", None),
        ("MiB", None),
        (" 1 MiB", None),
        ("1  MiB", None),
        ("1 MiB ", None),
        ("500 ", None),
        ("1 mib", None),
        ("1 TiB", None),
        ("-1", None),
        ("+1", None),
        ("1_000", None),
        ("1e3", None),
        ("1.", None),
        (".5 KiB", None),
        ("1.5.5 KiB", None),
        ("１ B", None),
    ] {
        assert_eq!(ByteSize::parse(text), bytes.map(ByteSize), "{text:?}");
    }
}

#[test]
fn byte_sizes_are_shown_to_one_decimal() {
    for (bytes, shown, exact) in [
        (0, "0 B", "0 B"),
        (1023, "1023 B", "1023 B"),
        (1024, "1 KiB", "1 KiB"),
        (1536, "1.5 KiB", "1536 B"),
        (983 << 10, "983 KiB", "983 KiB"),
        (10 << 20, "10 MiB", "10 MiB"),
        (14_889_779, "14.2 MiB", "14889779 B"),
        ((1 << 20) - 1, "1 MiB", "1048575 B"),
        (1 << 30, "1 GiB", "1 GiB"),
        (u64::MAX, "17179869184 GiB", "18446744073709551615 B"),
    ] {
        assert_eq!(ByteSize(bytes).to_string(), shown);
        assert_eq!(ByteSize(bytes).to_exact(), exact);
    }
}

#[test]
fn hostile_documents_are_refused_each_for_its_own_reason() {
    type Check = fn(&Kind) -> bool;
    let table: [(&str, usize, &str, Check); 14] = [
        ("max_size = 1", 1, "max_size", |k| matches!(k, Kind::UnknownField { .. })),
        ("default = \"deny\"", 1, "default", |k| matches!(k, Kind::UnknownField { .. })),
        ("\nmax_binary_size = -1", 2, "max_binary_size", |k| matches!(k, Kind::WrongValue { .. })),
        ("max_binary_size = 1.5", 1, "max_binary_size", |k| matches!(k, Kind::WrongType { .. })),
        ("max_binary_size = \"ten\"", 1, "max_binary_size", |k| matches!(k, Kind::WrongValue { .. })),
        ("max_binary_size = 99999999999999999999", 1, "max_binary_size", |k| {
            matches!(k, Kind::WrongValue { .. })
        }),
        ("max_tags = \"64\"", 1, "max_tags", |k| matches!(k, Kind::WrongType { .. })),
        ("max_batch_count = 0", 1, "max_batch_count", |k| matches!(k, Kind::WrongValue { .. })),
        ("max_batch_bytes = \"0 B\"", 1, "max_batch_bytes", |k| matches!(k, Kind::WrongValue { .. })),
        ("[[limit]]\non = \"a\"", 1, "limit 1, max_binary_size", |k| matches!(k, Kind::Missing { .. })),
        ("[[limit]]\nmax_binary_size = 1", 1, "limit 1, on", |k| matches!(k, Kind::Missing { .. })),
        (
            "[[limit]]\nmax_binary_size = 1\non = \"*.csv\"",
            3,
            "limit 1, on",
            |k| matches!(k, Kind::Pattern(error) if error.kind == PatternErrorKind::PartialWildcard),
        ),
        ("[[strictness]]\non = \"a\"\nlevel = \"lenient\"", 3, "strictness 1, level", |k| {
            matches!(k, Kind::WrongValue { .. })
        }),
        ("[limit]\non = \"a\"", 1, "limit", |k| matches!(k, Kind::WrongType { .. })),
    ];
    for (text, line, field, is_right) in table {
        let error = Limits::parse(text).unwrap_err();
        assert!(is_right(&error.kind), "{error}");
        assert_eq!((error.line, error.field.as_str()), (line, field), "{error}");
    }
}

#[test]
fn the_canonical_form_means_the_same() {
    let limits = limits(
        r#"
        max_binary_size = 12345
        max_tags = 3
        [[limit]]
        on = ["a/{b}", "c\"d"]
        max_binary_size = "1.5 KiB"
        [[strictness]]
        on = "x"
        level = "off"
        "#,
    );
    let written = limits.to_toml();
    assert_eq!(limits, Limits::parse(&written).unwrap());
    assert_eq!(Limits::parse(&written).unwrap().to_toml(), written);
}

#[test]
fn every_bound_is_read_and_written() {
    let given = limits(
        r#"
        max_binary_size = "2 MiB"
        max_metadata_size = "3 KiB"
        max_tags = 4
        max_tag_length = "5 B"
        max_batch_bytes = "6 MiB"
        max_batch_count = 7
        max_total_size = "8 GiB"
        "#,
    );
    for limits in [limits(&given.to_toml()), given] {
        assert_eq!((limits.default_binary_size(), limits.max_metadata_size()), (2 << 20, 3 << 10));
        assert_eq!((limits.max_tags(), limits.max_tag_length()), (4, 5));
        assert_eq!((limits.max_batch_bytes(), limits.max_batch_count()), (6 << 20, 7));
        assert_eq!((limits.max_total_size(), limits.limit_count()), (Some(8 << 30), 0));
    }
    assert_eq!(Limits::default().max_total_size(), None);
}

#[test]
fn history_by_pattern() {
    let given = limits(
        r#"
        [[history]]
        on = "reports/**"
        generations = 5
        [[history]]
        on = ["reports/daily/*", "log"]
        max_age = "30 d"
        [[history]]
        on = "reports/daily/x"
        generations = 0
        max_age = "1 h"
        "#,
    );
    for limits in [limits(&given.to_toml()), given] {
        let history = |key: &[u8]| limits.history(key).map(|it| (it.generations, it.age_max));
        assert_eq!(history(b"reports\0a\0"), Some((Some(5), None)));
        assert_eq!(history(b"reports\0daily\0a\0"), Some((None, Some(30 * 86_400_000_000))));
        assert_eq!(history(b"log\0"), Some((None, Some(30 * 86_400_000_000))));
        assert_eq!(history(b"reports\0daily\0x\0"), Some((Some(0), Some(3_600_000_000))));
        assert_eq!(history(b"other\0"), None);
    }
    assert_eq!(Limits::default().history(b"a\0"), None);
    assert!(Limits::parse("[[history]]\non = \"a\"\n").is_err());
}

#[test]
fn limits_are_equal_only_where_every_part_of_them_is() {
    let default = limits("");
    assert_eq!(default, Limits::default());
    for text in [
        "max_tags = 1",
        "[[limit]]\non = \"a\"\nmax_binary_size = 1",
        "[[strictness]]\non = \"a\"\nlevel = \"off\"",
        "[[history]]\non = \"a\"\ngenerations = 1",
    ] {
        assert_ne!(limits(text), default, "{text}");
        assert_eq!(limits(text), limits(text), "{text}");
    }
}

proptest! {
    #[test]
    fn exact_sizes_round_trip(bytes in any::<u64>(), shift in 0_u32..40) {
        let size = ByteSize(bytes >> shift << (shift / 2));
        prop_assert_eq!(ByteSize::parse(&size.to_exact()), Some(size));
        prop_assert!(!size.to_string().is_empty());
    }

    #[test]
    fn no_size_panics(text in "[0-9. BKMGi+-]{0,30}") {
        let _ = ByteSize::parse(&text);
    }
}

#[test]
fn a_limit_for_a_pattern_takes_the_place_of_the_one_that_it_has() {
    let before = limits("[[limit]]\non = [\"img/**\", \"doc/**\"]\nmax_binary_size = 10");
    let after = before.with_max_binary_size("img/**".parse().unwrap(), 20);
    let bytes = |limits: &Limits, key: &[u8]| limits.max_binary_size(key).bytes;
    assert_eq!((bytes(&after, b"img\0a\0"), bytes(&after, b"doc\0a\0")), (20, 10));
    assert_eq!((bytes(&before, b"img\0a\0"), after.limit_count()), (10, 2));
}
