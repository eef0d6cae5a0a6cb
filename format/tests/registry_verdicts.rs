//! Verdicts of the registry: S0-2 a to e, consistency facts, content, and arbitrary claims.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use larder_format::{Claim, FormatError, Registry, Strictness, Verdict, Warning};
use proptest::prelude::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";

fn claim<'a>(data_format: &'a str, media_type: &'a str) -> Claim<'a> {
    Claim { data_format: Some(data_format), media_type: Some(media_type), ..Claim::default() }
}

fn strict<'a>(claim: &Claim<'a>) -> Result<Verdict<'a>, FormatError> {
    Registry::shipped().validate(claim, b"", Strictness::Strict)
}

fn warn<'a>(claim: &Claim<'a>) -> Verdict<'a> {
    Registry::shipped().validate(claim, b"", Strictness::Warn).unwrap()
}

fn codes(verdict: &Verdict<'_>) -> Vec<u16> {
    verdict.warnings.iter().map(Warning::code).collect()
}

#[test]
fn s0_2_a_a_blank_type_is_missing_when_strict_and_an_absent_one_inferred() {
    for blank in ["", " \t"] {
        let blank = Claim { type_identifier: Some(blank), ..claim("json", "") };
        assert_eq!(strict(&blank), Err(FormatError::MissingField { field: "type_identifier" }));
        let verdict = warn(&blank);
        assert_eq!((verdict.type_identifier, codes(&verdict)), ("generic", vec![3]));
    }
    assert_eq!(strict(&claim("json", "")).unwrap().type_identifier, "generic");
}

#[test]
fn s0_2_b_an_empty_media_type_is_inferred() {
    for strictness in [Strictness::Off, Strictness::Warn, Strictness::Strict] {
        let claim = claim("json", "");
        let verdict = Registry::shipped().validate(&claim, b"{}", strictness).unwrap();
        assert_eq!(verdict.media_type, "application/json");
        assert_eq!(verdict.warnings, []);
    }
}

#[test]
fn s0_2_c_a_media_type_that_contradicts_the_format() {
    let expected = FormatError::Inconsistent {
        field: "media_type",
        format: "json".to_owned(),
        expected: "application/json".to_owned(),
        got: "image/png".to_owned(),
    };
    assert_eq!(strict(&claim("json", "image/png")), Err(expected.clone()));
    assert_eq!(
        expected.to_string(),
        "media_type: expected application/json for data_format \"json\", got \"image/png\"; correct one of the \
         two, or extend the registry's entry for \"json\""
    );
    let verdict = warn(&claim("json", "image/png"));
    assert_eq!(verdict.media_type, "image/png");
    assert_eq!(verdict.warnings, [Warning::Tolerated(expected)]);
    // By extension, too.
    let by_key = Claim { extension: Some("json"), media_type: Some("image/png"), ..Claim::default() };
    assert_eq!(strict(&by_key).unwrap_err().code(), 4);
}

#[test]
fn s0_2_d_an_extension_of_another_format_is_only_a_warning() {
    let claim = Claim { extension: Some("csv"), data_format: Some("json"), ..Claim::default() };
    for verdict in [warn(&claim), strict(&claim).unwrap()] {
        assert_eq!(
            verdict.warnings,
            [Warning::Extension {
                extension: "csv".to_owned(),
                expected: "csv".to_owned(),
                got: "json".to_owned()
            }]
        );
    }
    // The same format by other names, a qualifier, a container, an unknown extension: nothing to say.
    for (extension, format) in [
        ("JPG", "jpe"),
        ("csv", "csv:semicolon"),
        ("zip", "docx"),
        ("gz", "tgz"),
        ("ext", "json"),
        ("", "json"),
    ] {
        let claim = Claim { extension: Some(extension), data_format: Some(format), ..Claim::default() };
        assert_eq!(strict(&claim).unwrap().warnings, [], "{extension} {format}");
    }
}

#[test]
fn s0_2_e_an_unknown_format_is_stored_with_a_warning_or_refused() {
    for extension in [None, Some("csv"), Some("xyz")] {
        let claim = Claim { extension, data_format: Some("xyz"), ..Claim::default() };
        let verdict = warn(&claim);
        assert_eq!(verdict.data_format, "xyz");
        assert_eq!(verdict.media_type, "application/octet-stream");
        assert_eq!(verdict.type_identifier, "bytes");
        assert_eq!(codes(&verdict), [1]);
        let error = strict(&claim).unwrap_err();
        assert_eq!(error, FormatError::UnknownFormat { got: "xyz".to_owned(), suggestion: None });
    }
    let error = strict(&claim("JSON", "")).unwrap_err();
    assert_eq!(
        error,
        FormatError::UnknownFormat { got: "JSON".to_owned(), suggestion: Some("json".to_owned()) }
    );
    assert!(error.to_string().contains("use \"json\""), "{error}");
}

#[test]
fn qualified_csv_with_its_media_type_gives_no_false_warning() {
    for name in ["csv", "csv:comma", "csv_comma", "csv:semicolon", "csv_pipe", "csv:~", "csv:;"] {
        assert_eq!(strict(&claim(name, "text/csv")).unwrap().warnings, [], "{name}");
        assert_eq!(strict(&claim(name, "")).unwrap().media_type, "text/csv");
    }
    assert_eq!(warn(&claim("csv:comma", "application/octet-stream")).warnings.len(), 1);
}

#[test]
fn a_type_that_the_format_cannot_hold() {
    let image_in_json = Claim { type_identifier: Some("image"), ..claim("json", "") };
    let FormatError::Inconsistent { field, expected, got, .. } = strict(&image_in_json).unwrap_err() else {
        panic!("another error");
    };
    assert_eq!((field, got.as_str()), ("type_identifier", "image"));
    assert!(expected.starts_with("generic, text, dictionary"), "{expected}");
    assert_eq!(codes(&warn(&image_in_json)), [5]);

    let foreign = Claim { type_identifier: Some("plugin::Thing"), ..claim("json", "") };
    assert_eq!(strict(&foreign), Err(FormatError::UnknownType { got: "plugin::Thing".to_owned() }));
    assert_eq!(codes(&warn(&foreign)), [2]);
    assert_eq!(warn(&foreign).type_identifier, "plugin::Thing");

    // What says nothing about the payload fits everywhere.
    assert_eq!(strict(&Claim { type_identifier: Some("error"), ..claim("png", "") }).unwrap().warnings, []);
}

#[test]
fn bytes_of_another_format_are_only_a_warning() {
    let registry = Registry::shipped();
    let oddity = |format: &str, head: &[u8]| {
        let claim = Claim { data_format: Some(format), ..Claim::default() };
        let strict = registry.validate(&claim, head, Strictness::Strict).unwrap().warnings;
        assert_eq!(registry.validate(&claim, head, Strictness::Warn).unwrap().warnings, strict);
        strict
    };
    let content =
        |expected: &str, got: &str| vec![Warning::Content { expected: expected.into(), got: got.into() }];
    assert_eq!(oddity("png", JPEG), content("png", "jpeg"));
    assert_eq!(oddity("json", PNG), content("json", "png"));
    assert_eq!(oddity("xlsx", PNG), content("xlsx", "png"));
    assert_eq!(oddity("jpg", JPEG), []);
    for zip in ["zip", "xlsx", "docx", "pptx", "ods", "epub", "npz", "pt"] {
        assert_eq!(oddity(zip, b"PK\x03\x04\x14\0\0\0"), [], "{zip}");
    }
    // Nothing known, nothing said: raw bytes, formats of any beginning, texts about other formats, accidents.
    for (format, head) in [
        ("bin", PNG),
        ("pb", PNG),
        ("svg", b"<?xml version='1.0'?><svg/>"),
        ("md", b"%PDF-1.7 is how a PDF begins"),
        ("png", b"not a picture"),
        ("png", b"\xff\xfbnoise"),
        ("webm", b"\x1a\x45\xdf\xa3"),
    ] {
        assert_eq!(oddity(format, head), [], "{format}");
    }
}

#[test]
fn off_fills_in_and_says_nothing() {
    let wrong = Claim {
        extension: Some("csv"),
        data_format: Some("jpg"),
        media_type: Some("text/plain"),
        type_identifier: Some("nonsense"),
    };
    let verdict = Registry::shipped().validate(&wrong, PNG, Strictness::Off).unwrap();
    assert_eq!(verdict.data_format, "jpeg");
    assert_eq!((verdict.media_type, verdict.type_identifier), ("text/plain", "nonsense"));
    assert_eq!(verdict.warnings, []);
}

#[test]
fn inference_goes_from_extension_over_media_type_to_content() {
    let registry = Registry::shipped();
    let format = |extension, media_type, type_identifier, head: &[u8]| {
        let claim = Claim { extension, data_format: Some(""), media_type, type_identifier };
        registry.infer(&claim, head).data_format.into_owned()
    };
    assert_eq!(format(Some("csv"), Some("image/png"), None, PNG), "csv");
    assert_eq!(format(Some("ext"), Some("application/json"), None, PNG), "json");
    assert_eq!(format(None, None, None, PNG), "png");
    assert_eq!(format(None, None, Some("image"), PNG), "png");
    assert_eq!(format(None, None, Some("text"), PNG), "bin");
    assert_eq!(format(None, Some("application/x-unheard-of"), None, PNG), "bin");
    // Two bytes are too few to decide on.
    assert_eq!(format(None, None, None, b"\xff\xfb\0\0"), "bin");
}

#[test]
fn a_media_type_that_nobody_knows_goes_with_bin() {
    assert_eq!(strict(&claim("", "application/x-unheard-of; v=1")).unwrap().warnings, []);
    assert_eq!(strict(&claim("bin", "application/x-unheard-of")).unwrap().warnings, []);
    assert_eq!(strict(&claim("bin", "image/png")).unwrap_err().code(), 4);
    assert_eq!(strict(&claim("bin", "not a media type")).unwrap_err().code(), 4);
}

#[test]
fn strictness_is_written_in_a_word() {
    for strictness in [Strictness::Off, Strictness::Warn, Strictness::Strict] {
        assert_eq!(strictness.to_string().parse(), Ok(strictness));
    }
    assert_eq!("permissive".parse(), Ok(Strictness::Warn));
    assert_eq!("loud".parse::<Strictness>().unwrap_err().code(), 8);
    #[derive(serde::Deserialize, serde::Serialize, PartialEq, Debug)]
    struct Rule {
        check: Strictness,
    }
    let rule: Rule = toml::from_str("check = 'permissive'").unwrap();
    assert_eq!(toml::to_string(&rule).unwrap(), "check = \"warn\"\n");
}

#[test]
fn an_error_repeats_only_so_much_of_a_callers_text() {
    let long = "ü".repeat(100_000);
    assert!(strict(&claim(&long, "")).unwrap_err().to_string().len() < 500);
    assert!(strict(&claim("json", &long)).unwrap_err().to_string().len() < 500);
    let long_type = Claim { type_identifier: Some(&long), ..Claim::default() };
    assert!(strict(&long_type).unwrap_err().to_string().len() < 500);
}

/// Texts that are names of the registry about half of the time.
fn field() -> impl Strategy<Value = Option<String>> {
    let registry = Registry::shipped();
    let known: Vec<String> = registry
        .formats()
        .flat_map(|f| [f.name(), f.media_type()].into_iter().chain(f.aliases().iter().map(String::as_str)))
        .chain(registry.type_identifiers())
        .map(str::to_owned)
        .collect();
    proptest::option::of(prop_oneof![
        proptest::sample::select(known),
        any::<String>(),
        "[a-z_]{1,6}:[^A-Z]{0,3}"
    ])
}

fn head() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..600),
        Just(PNG.to_vec()),
        Just(JPEG.to_vec()),
        Just(b"PK\x03\x04\x14\0\0\0".to_vec())
    ]
}

proptest! {
    /// Whatever is claimed: only a strict check refuses, and what passes passes again with the same findings.
    #[test]
    fn a_verdict_passes_again(
        extension in field(),
        data_format in field(),
        media_type in field(),
        type_identifier in field(),
        head in head(),
    ) {
        let registry = Registry::shipped();
        let claim = Claim {
            extension: extension.as_deref(),
            data_format: data_format.as_deref(),
            media_type: media_type.as_deref(),
            type_identifier: type_identifier.as_deref(),
        };
        let inferred = registry.infer(&claim, &head);
        for strictness in [Strictness::Off, Strictness::Warn, Strictness::Strict] {
            let verdict = match registry.validate(&claim, &head, strictness) {
                Ok(verdict) => verdict,
                Err(_) => {
                    prop_assert_eq!(strictness, Strictness::Strict);
                    let tolerant = registry.validate(&claim, &head, Strictness::Warn).unwrap();
                    prop_assert!(tolerant.warnings.iter().any(|w| matches!(w, Warning::Tolerated(_))));
                    continue;
                }
            };
            prop_assert_eq!(&verdict.data_format, &inferred.data_format);
            prop_assert_eq!(verdict.media_type, inferred.media_type);
            prop_assert_eq!(verdict.type_identifier, inferred.type_identifier);
            let full = Claim {
                extension: claim.extension,
                data_format: Some(&verdict.data_format),
                media_type: Some(verdict.media_type),
                type_identifier: Some(verdict.type_identifier),
            };
            let again = registry.validate(&full, &head, strictness).unwrap();
            prop_assert_eq!(&again.data_format, &verdict.data_format);
            for warning in &again.warnings {
                prop_assert!(verdict.warnings.contains(warning), "{}", warning);
            }
        }
    }

    /// What is inferred from a key and its payload alone is never refused.
    #[test]
    fn what_is_inferred_is_never_refused(extension in field(), head in head()) {
        let registry = Registry::shipped();
        let claim = Claim { extension: extension.as_deref(), ..Claim::default() };
        let inferred = registry.infer(&claim, &head);
        let full = Claim {
            extension: claim.extension,
            data_format: Some(&inferred.data_format),
            media_type: Some(inferred.media_type),
            type_identifier: Some(inferred.type_identifier),
        };
        prop_assert!(registry.validate(&full, &head, Strictness::Strict).is_ok());
    }
}

#[test]
fn a_finding_says_which_field_it_is_about() {
    let unknown = FormatError::UnknownFormat { got: "x".to_owned(), suggestion: None };
    let missing = FormatError::MissingField { field: "media_type" };
    assert_eq!((unknown.field(), missing.field()), ("data_format", "media_type"));
}
