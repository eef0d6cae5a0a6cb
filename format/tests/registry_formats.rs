//! The shipped registry against the tables of the requirements: S0-2 f and g, tables A, B and C.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use larder_format::{Claim, FormatName, Registry, Strictness};

/// Table A as it was read from the requirements: extension, tab, media type.
const TABLE_A: &str = include_str!("golden/table_a.txt");

/// Table C: the formats by any of their names, and what they accept.
const TABLE_C: &[(&[&str], &[&str])] = &[
    (
        &["json"],
        &[
            "generic",
            "text",
            "dictionary",
            "metadata",
            "asset_info",
            "recipe",
            "command_metadata",
            "query",
            "key",
        ],
    ),
    (&["txt", "text"], &["text", "generic", "query", "key"]),
    (&["html", "htm"], &["text", "generic"]),
    (&["md"], &["text"]),
    (&["css"], &["text"]),
    (&["js"], &["text"]),
    (&["py"], &["text"]),
    (&["rs"], &["text"]),
    (&["toml"], &["text"]),
    (&["yaml", "yml"], &["text"]),
    (&["xml"], &["text"]),
    (&["svg"], &["text"]),
    (&["sql"], &["text"]),
    (&["sh"], &["text"]),
    (&["b", "bin", "bytes", "binary"], &["bytes", "text"]),
    (&["csv", "csv_comma", "csv:comma"], &["polars_dataframe", "text"]),
    (&["csv:semicolon", "csv_semicolon"], &["polars_dataframe"]),
    (&["csv:pipe", "csv_pipe"], &["polars_dataframe"]),
    (&["csv:~"], &["polars_dataframe"]),
    (&["tsv", "csv_tab", "csv:tab"], &["polars_dataframe", "text"]),
    (&["parquet"], &["polars_dataframe"]),
    (&["feather", "ipc", "arrow_ipc", "arrow"], &["polars_dataframe"]),
    (&["jsonl", "ndjson"], &["polars_dataframe", "text"]),
    (&["avro"], &["polars_dataframe"]),
    (&["xlsx"], &["polars_dataframe"]),
    (&["png"], &["image"]),
    (&["jpeg", "jpg", "jpe"], &["image"]),
    (&["gif"], &["image"]),
    (&["bmp"], &["image"]),
    (&["webp"], &["image"]),
    (&["tiff", "tif"], &["image"]),
    (&["ico"], &["image"]),
    (&["dataurl"], &["image"]),
    (&["pickle", "pkl"], &["python_value"]),
    (&["ui"], &["ui_command", "ui_element", "widget"]),
    (&["widget"], &["ui_command", "ui_element", "widget"]),
];

/// Table B: the types and the formats that they are written in by default.
const TABLE_B: &[(&str, &str)] = &[
    ("generic", "json"),
    ("text", "txt"),
    ("dictionary", "json"),
    ("bytes", "b"),
    ("metadata", "json"),
    ("asset_info", "json"),
    ("recipe", "json"),
    ("command_metadata", "json"),
    ("query", "txt"),
    ("key", "txt"),
    ("polars_dataframe", "csv"),
    ("image", "png"),
    ("ui_command", "ui"),
    ("widget", "widget"),
    ("ui_element", "ui"),
    ("js", "json"),
    ("python_value", "pickle"),
];

fn table_a() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE_A.lines().map(|line| line.split_once('\t').unwrap())
}

fn by_extension(extension: &str) -> Claim<'_> {
    Claim { extension: Some(extension), ..Claim::default() }
}

#[test]
fn the_shipped_registry_is_read() {
    assert!(Registry::shipped().formats().count() > 100);
    let again = Registry::parse(Registry::shipped().to_toml()).unwrap();
    assert_eq!(&again, Registry::shipped());
}

#[test]
fn s0_2_f_all_133_extensions_give_the_tables_media_type_and_pass_strictly() {
    let registry = Registry::shipped();
    assert_eq!(table_a().count(), 133);
    for (extension, media_type) in table_a() {
        let inferred = registry.infer(&by_extension(extension), b"");
        let format = registry.format_of_extension(extension).unwrap();
        assert_eq!(inferred.data_format, format.name(), "{extension}");
        assert!(format.accepts_media_type(inferred.media_type), "{extension}");
        assert!(format.accepts_media_type(media_type), "{extension}: {media_type}");
        // The extension is a name of its format, upstream's habit.
        assert_eq!(registry.canonical(extension).unwrap().name(), format.name(), "{extension}");
        // What was inferred passes, alone and spelled out; so does the table's own media type.
        for media_type in [None, Some(inferred.media_type), Some(media_type)] {
            let full = Claim {
                extension: Some(extension),
                data_format: media_type.map(|_| inferred.data_format.as_ref()),
                media_type,
                type_identifier: media_type.map(|_| inferred.type_identifier),
            };
            let verdict = registry.validate(&full, b"", Strictness::Strict).unwrap();
            assert_eq!(verdict.warnings, [], "{extension}");
        }
        let upper = extension.to_uppercase();
        assert_eq!(registry.format_of_extension(&upper).unwrap().name(), format.name());
    }
}

#[test]
fn s0_2_g_a_format_comes_from_the_extension_or_is_bin() {
    let registry = Registry::shipped();
    assert_eq!(registry.infer(&by_extension("parquet"), b"").data_format, "parquet");
    for nothing in [None, Some(""), Some("unheard-of")] {
        let inferred = registry.infer(&Claim { extension: nothing, ..Claim::default() }, b"");
        assert_eq!(inferred.data_format, "bin");
        assert_eq!(inferred.media_type, "application/octet-stream");
        assert_eq!(inferred.type_identifier, "bytes");
    }
}

#[test]
fn table_b_types_have_their_default_formats_which_accept_them() {
    let registry = Registry::shipped();
    for (name, format) in TABLE_B {
        let default = registry.default_format_of(name).unwrap();
        assert_eq!(default.name(), registry.canonical(format).unwrap().name(), "{name}");
        // json: "bytes, js: not".
        assert_eq!(default.accepts_type(name), *name != "js", "{name}");
    }
    let known: Vec<_> = registry.type_identifiers().collect();
    for name in ["error", "dir", "i32", "i64", "f64", "bool"] {
        assert!(known.contains(&name), "{name}");
    }
}

#[test]
fn table_c_triples_are_accepted_under_every_name() {
    let registry = Registry::shipped();
    for (names, types) in TABLE_C {
        let canonical = registry.canonical_name(names[0]).unwrap();
        for name in *names {
            assert_eq!(registry.canonical_name(name).unwrap(), canonical, "{name}");
            for type_identifier in *types {
                let claim = Claim {
                    data_format: Some(name),
                    type_identifier: Some(type_identifier),
                    ..Claim::default()
                };
                let verdict = registry.validate(&claim, b"", Strictness::Strict).unwrap();
                assert_eq!(verdict.data_format, canonical);
                assert_eq!(verdict.warnings, []);
            }
        }
    }
}

#[test]
fn table_c_any_other_format_accepts_bytes_and_a_text_media_type_text() {
    let registry = Registry::shipped();
    let listed: Vec<_> =
        TABLE_C.iter().map(|(names, _)| registry.canonical_name(names[0]).unwrap().into_owned()).collect();
    for format in registry.formats() {
        assert!(format.accepts_type(format.default_type()));
        if format.media_type().starts_with("text/") {
            assert!(format.accepts_type("text"), "{}", format.name());
        }
        if !listed.iter().any(|name| name == format.name()) {
            assert!(format.accepts_type("bytes") || format.is_text(), "{}", format.name());
        }
    }
}

#[test]
fn the_types_inferred_are_neutral_ones() {
    let registry = Registry::shipped();
    for (format, type_identifier) in [
        ("json", "generic"),
        ("txt", "text"),
        ("html", "text"),
        ("csv", "text"),
        ("csv:semicolon", "text"),
        ("rs", "text"),
        ("svg", "text"),
        ("b", "bytes"),
        ("ply", "bytes"),
        ("jpg", "image"),
        ("parquet", "polars_dataframe"),
        ("pkl", "python_value"),
        ("zip", "bytes"),
    ] {
        assert_eq!(registry.default_type_of(format), Some(type_identifier), "{format}");
    }
}

#[test]
fn the_names_that_the_table_lacks_are_known() {
    let registry = Registry::shipped();
    for (name, canonical, media_type) in [
        ("tif", "tiff", "image/tiff"),
        ("jpe", "jpeg", "image/jpeg"),
        ("ndjson", "jsonl", "application/jsonlines"),
        ("ipc", "feather", "application/vnd.apache.arrow.file"),
        ("arrow_ipc", "feather", "application/vnd.apache.arrow.file"),
        ("dataurl", "dataurl", "text/plain"),
        ("text", "txt", "text/plain"),
        ("bytes", "bin", "application/octet-stream"),
        ("binary", "bin", "application/octet-stream"),
        ("ui", "ui", "application/octet-stream"),
        ("widget", "widget", "application/octet-stream"),
        ("csv_pipe", "csv:pipe", "text/csv"),
        ("csv:;", "csv:semicolon", "text/csv"),
        ("csv:tab", "tsv", "text/tab-separated-values"),
        ("docx", "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ] {
        assert_eq!(registry.canonical_name(name).unwrap(), canonical, "{name}");
        assert_eq!(registry.media_type_of(name), Some(media_type), "{name}");
    }
}

#[test]
fn names_are_exact_and_a_qualifier_is_split_off() {
    let registry = Registry::shipped();
    for unknown in ["", "JSON", " json", "json ", "csv:", ":csv", "csv:a b", "csv:A", "nope:comma", "csv:\t"]
    {
        assert!(registry.canonical(unknown).is_none(), "{unknown:?}");
    }
    let name = FormatName::parse("csv:~").unwrap();
    assert_eq!((name.base(), name.qualifier(), name.to_string()), ("csv", Some("~"), "csv:~".to_owned()));
    assert_eq!(registry.canonical("csv:~").unwrap().name(), "csv");
    // What an alias stands for may have a qualified entry.
    assert_eq!(registry.canonical_name("csv_comma:tab").unwrap(), "tsv");
    assert_eq!(registry.canonical_name("htm:x").unwrap(), "html:x");
    assert_eq!(registry.canonical_name("csv_pipe:x"), None);
    // Canonical names stay as they are.
    for format in registry.formats() {
        assert_eq!(registry.canonical_name(format.name()).unwrap(), format.name());
    }
}

#[test]
fn a_media_type_alone_gives_its_first_format() {
    let registry = Registry::shipped();
    for (media_type, format) in [
        ("application/octet-stream", "bin"),
        ("text/plain; charset=utf-8", "txt"),
        ("Application/JSON", "json"),
        ("application/gzip", "gz"),
        ("application/x-yaml", "yaml"),
        ("application/protobuf", "protobuf"),
        ("application/xml", "xml"),
    ] {
        assert_eq!(registry.format_of_media_type(media_type).unwrap().name(), format);
    }
    assert!(registry.format_of_media_type("no media type").is_none());
}

#[test]
fn packed_formats_are_not_compressed_again() {
    let registry = Registry::shipped();
    for format in ["json", "csv:pipe", "bin", "bmp", "wav", "tar", "sqlite", "unheard-of"] {
        assert!(registry.is_compressible(format), "{format}");
    }
    for format in ["png", "jpg", "zip", "zst", "tgz", "xlsx", "mp4", "woff2", "parquet"] {
        assert!(!registry.is_compressible(format), "{format}");
    }
}

#[test]
fn payloads_are_recognised_by_their_magic_numbers() {
    let registry = Registry::shipped();
    let mut tar = vec![0; 257];
    tar.extend_from_slice(b"ustar\x0000");
    let mut epub = b"PK\x03\x04".to_vec();
    epub.extend_from_slice(&[0; 26]);
    epub.extend_from_slice(b"mimetypeapplication/epub+zip");
    let samples: &[(&str, &[u8])] = &[
        ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("gif", b"GIF89a\x01\0"),
        ("webp", b"RIFF\x10\0\0\0WEBPVP8 "),
        ("wav", b"RIFF\x10\0\0\0WAVEfmt "),
        ("avi", b"RIFF\x10\0\0\0AVI LIST"),
        ("bmp", b"BM\x46\0\0\0\0\0\0\0\x36\0"),
        ("tiff", b"II*\0\x08\0\0\0"),
        ("tiff", b"MM\0*\0\0\0\x08"),
        ("ico", b"\0\0\x01\0\x01\0"),
        ("pdf", b"%PDF-1.7\n"),
        ("zip", b"PK\x03\x04\x14\0"),
        ("epub", &epub),
        ("gz", b"\x1f\x8b\x08\0"),
        ("bz2", b"BZh91AY&SY"),
        ("xz", b"\xfd7zXZ\0"),
        ("zst", b"\x28\xb5\x2f\xfd\x04"),
        ("lz4", b"\x04\x22\x4d\x18"),
        ("7z", b"7z\xbc\xaf\x27\x1c"),
        ("rar", b"Rar!\x1a\x07\x01\0"),
        ("tar", &tar),
        ("sqlite", b"SQLite format 3\0\x10\0"),
        ("parquet", b"PAR1\x15"),
        ("feather", b"ARROW1\0\0"),
        ("avro", b"Obj\x01"),
        ("orc", b"ORC\x08"),
        ("hdf5", b"\x89HDF\r\n\x1a\n"),
        ("npy", b"\x93NUMPY\x01\0"),
        ("wasm", b"\0asm\x01\0\0\0"),
        ("woff", b"wOFF\0\x01\0\0"),
        ("woff2", b"wOF2\0\x01\0\0"),
        ("mp4", b"\0\0\0\x20ftypisom"),
        ("mov", b"\0\0\0\x14ftypqt  "),
        ("mkv", b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska"),
        ("webm", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm"),
        ("flac", b"fLaC\0\0\0\x22"),
        ("ogg", b"OggS\0\x02"),
        ("mp3", b"ID3\x04\0"),
        ("mp3", b"\xff\xfb\x90\x64"),
        ("midi", b"MThd\0\0\0\x06"),
        ("aiff", b"FORM\0\0\0\0AIFFCOMM"),
        ("psd", b"8BPS\0\x01"),
        ("glb", b"glTF\x02\0\0\0"),
        ("gguf", b"GGUF\x03\0\0\0"),
        ("elf", b"\x7fELF\x02\x01"),
    ];
    for (format, head) in samples {
        assert_eq!(registry.sniff(head).map(|f| f.name()), Some(*format));
        // A prefix too short for the whole number never panics.
        for end in 0..head.len() {
            let _ = registry.sniff(&head[..end]);
        }
    }
    for nothing in [&b""[..], b"{}", b"plain text", b"\0\0\0\0", &[b'x'; 4096]] {
        assert!(registry.sniff(nothing).is_none());
    }
    // Only the first 512 bytes count.
    let mut late = vec![b' '; 511];
    late.extend_from_slice(b"\x89PNG\r\n\x1a\n");
    assert!(registry.sniff(&late).is_none());
}

#[test]
fn a_name_of_a_format_is_given_as_it_is() {
    let name = FormatName::parse("csv:~").unwrap();
    assert_eq!((name.as_str(), name.base(), name.qualifier()), ("csv:~", "csv", Some("~")));
}
