//! The bugs of `planted.toml` can be planted: each place that they name is in the source, once.

use std::path::Path;

#[test]
fn t52_every_bug_has_its_place_in_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("tests/planted.toml")).unwrap();
    let document: toml::Table = text.parse().unwrap();
    let bugs = document["bug"].as_array().unwrap();
    let mut names = std::collections::BTreeSet::new();
    for bug in bugs {
        let of = |name: &str| bug[name].as_str().unwrap();
        let source = std::fs::read_to_string(root.join(of("file"))).unwrap();
        assert_eq!(source.matches(of("find")).count(), 1, "{}: where it is to be planted", of("name"));
        assert_ne!(of("find"), of("put"), "{}: it changes nothing", of("name"));
        assert!(names.insert(of("name")), "{}: there twice", of("name"));
    }
    assert!(names.len() >= 25, "{} bugs", names.len());
}
