//! Registry documents: extending, storing, and hostile ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use larder_format::{Claim, REGISTRY_LEN_MAX, Registry, RegistryError, Strictness};
use proptest::prelude::*;

fn refused(document: &str) -> RegistryError {
    let error = Registry::shipped().extended(document).unwrap_err();
    assert!(error.to_string().len() < 1000, "{error}");
    error
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn with_format(fields: &str) -> String {
    format!("version = 1\n\n[[format]]\n{fields}\n")
}

#[test]
fn an_application_adds_formats_and_types_of_its_own() {
    let registry = Registry::shipped()
        .extended(
            r#"
            version = 1
            [[format]]
            name = "recipe"
            aliases = ["rcp"]
            media_type = "application/vnd.kitchen.recipe+json"
            text = true
            types = ["soup", "text"]
            magic = ["52435031"]
            [[format]]
            name = "recipe:short"
            [[type]]
            name = "soup"
            default_format = "recipe"
            "#,
        )
        .unwrap();
    let claim = Claim { extension: Some("rcp"), ..Claim::default() };
    let verdict = registry.validate(&claim, b"RCP1", Strictness::Strict).unwrap();
    assert_eq!(verdict.data_format, "recipe");
    assert_eq!(
        (verdict.media_type, verdict.type_identifier),
        ("application/vnd.kitchen.recipe+json", "soup")
    );
    assert_eq!(registry.canonical("recipe:short").unwrap().default_type(), "soup");
    assert_eq!(registry.sniff(b"RCP1").unwrap().name(), "recipe");
    assert_eq!(registry.default_format_of("soup").unwrap().name(), "recipe");
    // The shipped formats are still there, and the whole can be stored.
    assert_eq!(registry.media_type_of("json"), Some("application/json"));
    assert_ne!(&registry, Registry::shipped());
    let stored = Registry::parse(registry.to_toml()).unwrap();
    assert_eq!(stored, registry);
    assert_eq!(stored.extended("version = 1").unwrap(), registry);
}

#[test]
fn an_entry_of_the_same_name_replaces_the_fields_that_it_has() {
    let registry = Registry::shipped()
        .extended(
            r#"
            version = 1
            fallback = "txt"
            format = [
              { name = "json", types = ["dictionary", "bytes"] },
              { name = "feather", aliases = ["ipc", "arrow_ipc"] },
              { name = "arrow", media_type = "application/vnd.apache.arrow.stream" },
            ]
            type = [{ name = "image", default_format = "webp" }]
            "#,
        )
        .unwrap();
    assert_eq!(registry.default_type_of("json"), Some("dictionary"));
    assert_eq!(registry.media_type_of("json"), Some("application/json"));
    assert_eq!(registry.format_of_extension("arrow").unwrap().name(), "arrow");
    assert_eq!(registry.canonical("ipc").unwrap().name(), "feather");
    assert_eq!(registry.default_format_of("image").unwrap().name(), "webp");
    assert_eq!(registry.infer(&Claim::default(), b"").data_format, "txt");
}

#[test]
fn two_owners_of_a_name_are_refused_with_both() {
    let error = refused(&with_format("name = 'mine'\nmedia_type = 'a/b'\naliases = ['yml']"));
    let RegistryError::Duplicate { line, ref name, ref first, ref second, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((line, name.as_str()), (3, "yml"));
    assert_eq!((first.as_str(), second.as_str()), ("yaml", "mine"));
    for fields in [
        "name = 'jpg'\nmedia_type = 'a/b'",
        "name = 'mine'\nmedia_type = 'a/b'\nextensions = ['json']",
        "name = 'mine'\nmedia_type = 'a/b'\naliases = ['mine']",
        "name = 'mine'\nmedia_type = 'a/b'\naliases = ['x', 'x']",
        "name = 'mine'\nmedia_type = 'a/b'\n[[format]]\nname = 'mine'\nmedia_type = 'a/b'",
        "name = 'json'\n[[format]]\nname = 'json'",
        "name = 'json'\n[[type]]\nname = 'soup'\n[[type]]\nname = 'soup'",
    ] {
        let error = refused(&with_format(fields));
        assert!(matches!(error, RegistryError::Duplicate { line: 3.., .. }), "{error}");
    }
}

#[test]
fn a_reference_to_nothing_is_refused() {
    for fields in [
        "name = 'json'\ntypes = ['no_such_type']",
        "name = 'json'\nsniffs_as = ['no_such_format']",
        "name = 'nothing:qualified'",
        "name = 'json'\n[[type]]\nname = 'soup'\ndefault_format = 'nope'",
    ] {
        let error = refused(&with_format(fields));
        assert!(matches!(error, RegistryError::Unresolved { line: 3.., .. }), "{error}");
    }
    assert!(matches!(refused("version = 1\nfallback = 'nope'"), RegistryError::Unresolved { .. }));
    assert!(matches!(
        Registry::parse("version = 1"),
        Err(RegistryError::Unresolved { field: "fallback", .. })
    ));
    let error = refused(&with_format("name = 'mine'"));
    assert!(matches!(error, RegistryError::Incomplete { field: "media_type", .. }), "{error}");
    let error = refused(&with_format("name = 'json'\ntypes = []"));
    assert!(matches!(error, RegistryError::Incomplete { field: "types", .. }), "{error}");
}

#[test]
fn a_bad_name_is_refused_with_line_and_field() {
    let long = "x".repeat(65);
    for (field, value) in [
        ("name", ""),
        ("name", "JSON"),
        ("name", "a b"),
        ("name", long.as_str()),
        ("name", "csv:"),
        ("aliases", "A"),
        ("extensions", ".csv"),
        ("extensions", "a:b"),
        ("media_type", "json"),
        ("media_type", "Text/CSV"),
        ("media_type", "text/csv; charset=utf-8"),
        ("media_aliases", "a/b/c"),
        ("types", ""),
        ("types", "a b"),
        ("types", long.as_str()),
        ("sniffs_as", "Zip"),
    ] {
        let value = match field {
            "name" | "media_type" => format!("{value:?}"),
            _ => format!("[{value:?}]"),
        };
        let name = if field == "name" { "" } else { "name = 'mine'\n" };
        let error = refused(&with_format(&format!("{name}{field} = {value}")));
        let RegistryError::Name { line: 3, field: named, .. } = error else {
            panic!("{field} {value}: {error}")
        };
        assert_eq!(named, field);
    }
    for magic in ["", "4", "zz", "600:4142", "41"] {
        let error = refused(&with_format(&format!("name = 'json'\nmagic = [{magic:?}]")));
        assert!(matches!(error, RegistryError::Magic { line: 3, .. }), "{error}");
    }
}

#[test]
fn text_that_is_no_registry_is_refused_with_its_line() {
    for document in [
        "",
        "version",
        "version = 'one'",
        "version = -1",
        "version = 1\nformat = 3",
        "version = 1\n[[format]]\nname = 3",
        "version = 1\n[[format]]\nnaem = 'x'",
        "version = 1\n[[format]]\nname = 'x'\nname = 'x'",
        "version = 1\nunheard = 'of'",
        "version = 1\n[[format",
        "version = 1\n\0",
    ] {
        assert!(matches!(refused(document), RegistryError::Syntax { line: 1.., .. }), "{document:?}");
    }
    let error = refused("version = 1\n\n[[format]]\nname = 'x'\naliases = 'y'\n");
    assert!(matches!(error, RegistryError::Syntax { line: 5, .. }), "{error}");
    // The version is looked at first: what follows it has a shape that only it knows.
    assert_eq!(refused("version = 2\nshape = 'unknown'"), RegistryError::Version { got: 2, supported: 1 });
    let nested = format!("version = 1\nformat = {}", "[".repeat(10_000));
    assert!(matches!(refused(&nested), RegistryError::Syntax { .. }));
}

#[test]
fn every_prefix_of_the_stored_document_is_read_or_refused() {
    let registry = Registry::shipped().extended("version = 1\n[[format]]\nname = 'csv:~'\n").unwrap();
    let text = registry.to_toml();
    // Parsing is slow here; the steps are uneven so as to hit all places of a line.
    for end in (0..text.len()).step_by(97) {
        if let Ok(read) = Registry::parse(&text[..end]) {
            assert!(read.formats().count() < registry.formats().count());
        }
    }
}

#[test]
fn sizes_are_bounded() {
    let long = format!("version = 1\n#{}", " ".repeat(REGISTRY_LEN_MAX));
    assert!(matches!(refused(&long), RegistryError::TooMuch { .. }));
    let many: String =
        (0..1025).map(|i| format!("[[format]]\nname = 'f{i}'\nmedia_type = 'a/b'\n")).collect();
    assert!(matches!(
        refused(&format!("version = 1\n{many}")),
        RegistryError::TooMuch { what: "formats", .. }
    ));
    let few: String = (0..1000).map(|i| format!("[[type]]\nname = 't{i}'\n")).collect();
    let full = Registry::shipped().extended(&format!("version = 1\n{few}")).unwrap();
    let more: String = (0..100).map(|i| format!("[[type]]\nname = 'u{i}'\n")).collect();
    assert!(matches!(full.extended(&format!("version = 1\n{more}")), Err(RegistryError::TooMuch { .. })));
    let aliases: Vec<String> = (0..65).map(|i| format!("a{i}")).collect();
    let error = refused(&with_format(&format!("name = 'json'\naliases = {aliases:?}")));
    assert!(matches!(error, RegistryError::TooMuch { line: 3, what: "aliases", .. }), "{error}");
}

#[test]
fn what_an_entry_leaves_out_is_filled_in() {
    let registry = Registry::parse(
        r"
        version = 1
        fallback = 'raw'
        [[format]]
        name = 'raw'
        media_type = 'a/raw'
        [[format]]
        name = 'note'
        aliases = ['memo', 'note:short']
        media_type = 'text/note'
        [[format]]
        name = 'rows'
        media_type = 'a/rows'
        text = true
        types = ['table']
        compressible = false
        [[format]]
        name = 'rows:tab'
        [[format]]
        name = 'both'
        media_type = 'a/both'
        text = true
        types = ['text', 'table']
        [[format]]
        name = 'coded'
        media_type = 'text/coded'
        text = false
        extensions = []
        [[type]]
        name = 'bytes'
        [[type]]
        name = 'text'
        [[type]]
        name = 'table'
        ",
    )
    .unwrap();
    for (name, types, extensions, is_text, is_compressible) in [
        ("raw", &["bytes"][..], &["raw"][..], false, false),
        ("note", &["text"], &["note", "memo"], true, true),
        ("rows", &["table", "text"], &["rows"], true, false),
        ("rows:tab", &["table", "text"], &[], true, false),
        ("both", &["text", "table"], &["both"], true, true),
        ("coded", &["bytes", "text"], &[], false, false),
    ] {
        let format = registry.canonical(name).unwrap();
        assert_eq!((format.types(), format.default_type()), (&texts(types)[..], types[0]), "{name}");
        assert_eq!(format.extensions(), texts(extensions), "{name}");
        assert_eq!((format.is_text(), format.is_compressible()), (is_text, is_compressible), "{name}");
        assert_eq!(registry.is_compressible(name), is_compressible, "{name}");
    }
    assert_eq!(registry.canonical("rows:tab").unwrap().media_type(), "a/rows");
    assert_eq!(
        (registry.canonical("note:short").unwrap().name(), registry.fallback().name()),
        ("note", "raw")
    );
}

#[test]
fn a_registry_has_as_much_of_everything_as_it_may() {
    let one = "version = 1\nfallback = 'f0'\n";
    let formats: String =
        (0..1024).map(|i| format!("[[format]]\nname = 'f{i}'\nmedia_type = 'a/b'\n")).collect();
    let types: String = (0..1023).map(|i| format!("[[type]]\nname = 't{i}'\n")).collect();
    let text = format!("{one}{formats}{types}[[type]]\nname = 'bytes'\n");
    assert_eq!(Registry::parse(&text).unwrap().formats().count(), 1024);
    let filled = [text.as_str(), &" ".repeat(REGISTRY_LEN_MAX - text.len())].concat();
    assert_eq!(Registry::parse(&filled).unwrap(), Registry::parse(&text).unwrap());
    assert!(matches!(refused(&format!("{filled} ")), RegistryError::TooMuch { .. }));
    let longest = "e".repeat(64);
    let text = with_format(&format!("name = 'long'\nmedia_type = 'text/long'\nextensions = ['{longest}']"));
    let extended = Registry::shipped().extended(&text).unwrap();
    assert_eq!(extended.format_of_extension(&longest.to_uppercase()).unwrap().name(), "long");
    assert!(extended.format_of_extension(&format!("{longest}e")).is_none());
    let aliases: Vec<String> = (0..64).map(|i| format!("a{i}")).collect();
    let text = with_format(&format!("name = 'json'\naliases = {aliases:?}"));
    assert!(Registry::shipped().extended(&text).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Hostile text gives an error or a registry that can be stored, never a panic.
    #[test]
    fn any_text_is_read_or_refused(
        noise in any::<String>(),
        name in "[a-z:,~]{1,5}",
        magic in "[0-9a-f?*:]{0,12}",
        media_type in "[a-z/+;]{1,8}",
    ) {
        let _ = Registry::parse(&noise);
        let fields = format!("name = '{name}'\nmagic = ['{magic}']\nmedia_type = '{media_type}'");
        if let Ok(registry) = Registry::shipped().extended(&with_format(&fields)) {
            prop_assert_eq!(&Registry::parse(registry.to_toml()).unwrap(), &registry);
            prop_assert_eq!(Registry::shipped().extended_by_accepted(&with_format(&fields)).unwrap(), registry);
        }
    }
}

/// What a registry accepted once is read by later ones, whatever they ship.
#[test]
fn what_was_accepted_by_an_earlier_registry_keeps_its_names_and_extensions() {
    let earlier = Registry::parse("version = 1\nfallback = 'bin'\n[[format]]\nname = 'bin'\nmedia_type = 'a/b'\n[[type]]\nname = 'bytes'\nany_format = true\n[[type]]\nname = 'text'").unwrap();
    let own = with_format(
        "name = 'mine'\nmedia_type = 'a/mine'\naliases = ['yml', 'json']\n[[format]]\nname = 'jpg'\nmedia_type = 'a/jpg'\n[[format]]\nname = 'notes'\nmedia_type = 'a/notes'\nextensions = ['md']",
    );
    assert!(earlier.extended(&own).is_ok());
    assert!(matches!(refused(&own), RegistryError::Duplicate { .. }));
    let later = Registry::shipped().extended_by_accepted(&own).unwrap();
    let owner = |extension: &str| later.format_of_extension(extension).unwrap().name().to_owned();
    assert_eq!(["yml", "yaml", "jpg", "jpeg", "md"].map(owner), ["mine", "yaml", "jpg", "jpeg", "notes"]);
    assert_eq!(later.canonical("yml").unwrap().name(), "mine");
    assert_eq!(later.canonical("jpg").unwrap().name(), "jpg");
    // The name of a format is that format's.
    assert_eq!(later.canonical("json").unwrap().name(), "json");
    assert_eq!(owner("json"), "json");
    assert!(later.canonical("md").unwrap().extensions().is_empty());
    // The whole can be written and read, and where nothing is in the way it is what is extended otherwise.
    assert_eq!(Registry::parse(later.to_toml()).unwrap(), later);
    let free = with_format(
        "name = 'yaml'\naliases = ['yam']\n[[format]]\nname = 'mine'\nmedia_type = 'a/mine'\naliases = ['yml']",
    );
    assert_eq!(Registry::shipped().extended_by_accepted(&free), Registry::shipped().extended(&free));
}
