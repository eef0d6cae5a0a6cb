//! The command on files that are no stores, or not whole ones: it says so and ends, in time, and changes nothing.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output};

use larder::{CollectionDefinition, Draft, IndexDefinition, Options, RowDraft};

/// How many seconds of the processor a command may take, in a build that is not made fast.
const SECONDS_MAX: u32 = 10;

/// What only looks, and what writes elsewhere.
const VERBS: [&[&str]; 9] = [
    &["info", "a.larder"],
    &["verify", "a.larder"],
    &["ls", "-l", "a.larder"],
    &["health", "a.larder"],
    &["doctor", "a.larder"],
    &["repair", "a.larder"],
    &["snapshot", "create", "a.larder", "out.snapshot"],
    &["export", "a.larder", "out"],
    &["salvage", "a.larder", "out.larder"],
];

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let limited = format!("ulimit -t {SECONDS_MAX}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &limited, env!("CARGO_BIN_EXE_larder")])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// A store with something of everything that the command shows.
fn store(path: &Path) -> Vec<u8> {
    let larder = Options::new().inline().open(path).unwrap();
    let root = larder.root().unwrap();
    for number in 0..40_u32 {
        let draft = Draft::from(format!("leek {number}").repeat(number as usize)).tag("soup");
        root.put(format!("menus/{}/{number}", number % 5), draft).unwrap();
    }
    root.put("large", vec![7; 100_000]).unwrap();
    root.delete("menus/0/0").unwrap();
    let definition = CollectionDefinition::new().index(IndexDefinition::new("owner").by("owner"));
    root.write(|txn| {
        let _ = txn.define_collection("jobs", &definition)?;
        let mut jobs = txn.collection("jobs")?;
        (0..30_i64)
            .try_for_each(|number| jobs.put(number, RowDraft::default().field("owner", number)).map(drop))
    })
    .unwrap();
    larder.compact(None).unwrap();
    drop(root);
    larder.close().unwrap();
    std::fs::read(path).unwrap()
}

/// Numbers that are drawn, the same for the same seed (G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 2003).
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Damages a file in one of the ways in which files are.
fn damage(bytes: &mut Vec<u8>, drawn: &mut Drawn) {
    const PAGE: usize = 4_096;
    let (one, other) = (drawn.below(bytes.len() / PAGE) * PAGE, drawn.below(bytes.len() / PAGE) * PAGE);
    match drawn.below(6) {
        0 => bytes.truncate(drawn.below(bytes.len())),
        1 => bytes[one..one + PAGE].fill(0),
        2 => bytes.copy_within(one..one + PAGE, other),
        3 => bytes[one..one + PAGE].iter_mut().for_each(|byte| *byte = drawn.below(256) as u8),
        4 => {
            // In the header, where a bit changes most.
            let at = drawn.below(512);
            bytes[at] ^= 1 << drawn.below(8);
        }
        _ => {
            for _ in 0..=drawn.below(20) {
                let at = drawn.below(bytes.len());
                bytes[at] = drawn.below(256) as u8;
            }
        }
    }
}

fn survives(folder: &Path, bytes: &[u8], verb: &[&str], what: &str) {
    let (file, log) = (folder.join("a.larder"), folder.join("a.larder-log"));
    std::fs::write(&file, bytes).unwrap();
    let output = run(folder, verb);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0..=3)), "{what}, {verb:?}: {:?}, {said}", output.status);
    assert!(!said.contains("ended by signal"), "{what}, {verb:?}: {said}");
    assert!(std::fs::read(&file).unwrap() == bytes, "{what}, {verb:?} changed the file");
    assert!(!log.exists(), "{what}, {verb:?} left a log");
    for made in ["out.snapshot", "out.larder"] {
        let _ = std::fs::remove_file(folder.join(made));
    }
    let _ = std::fs::remove_dir_all(folder.join("out"));
}

/// T31. Every verb that looks at a file, or makes another of it, ends by itself with a code that is known, whatever the file is.
#[test]
fn t31_no_file_ends_the_command_or_is_changed_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let good = store(&folder.join("a.larder"));
    let count = if std::env::var_os("LARDER_LONG").is_some() { 1_000 } else { 12 };
    for seed in 1..=count {
        let (mut bytes, mut drawn) = (good.clone(), Drawn(0x9E37_79B9_7F4A_7C15 ^ seed));
        damage(&mut bytes, &mut drawn);
        for verb in VERBS {
            survives(folder, &bytes, verb, &format!("seed {seed}"));
        }
    }
    for (what, bytes) in
        [("nothing", Vec::new()), ("a text", b"leek soup\n".repeat(1_000)), ("zeros", vec![0; 65_536])]
    {
        for verb in VERBS {
            survives(folder, &bytes, verb, what);
        }
    }
}
