//! Plants the bugs of `planted.toml`, one by one, in a copy of the source, and runs the test that has to find each.
//!
//! A test that cannot fail is worth nothing; this is how it is known that these can.

#![expect(
    clippy::disallowed_methods,
    reason = "a test that never ends has to be given up by the clock of the machine"
)]
#![expect(clippy::print_stdout, reason = "a command")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a test may take, its compilation included; one that hangs has found the bug too.
const TIME_MAX: Duration = Duration::from_secs(300);

struct Bug {
    name: String,
    file: String,
    find: String,
    put: String,
    package: String,
    test: String,
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace");
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let copy = root.join("target/planted");
    let (mut planted, mut missed) = (0, 0);
    for bug in bugs(&root).iter().filter(|bug| bug.name.contains(&wanted)) {
        let source = copy.join("source");
        refresh(&root, &source);
        let path = source.join(&bug.file);
        let text = std::fs::read_to_string(&path).expect("a file of the source");
        assert_eq!(
            text.matches(&bug.find).count(),
            1,
            "{}: the place is not there, or there twice",
            bug.name
        );
        std::fs::write(&path, text.replace(&bug.find, &bug.put)).expect("room for a copy");
        let verdict = run(&source, &copy, &bug.package, &bug.test);
        std::fs::write(&path, text).expect("room for a copy");
        planted += 1;
        missed += u32::from(verdict != "found");
        println!("{verdict:<16} {:<64} {}", bug.name, bug.test);
    }
    println!("{planted} bugs planted, {missed} not found");
    std::process::exit(i32::from(missed > 0));
}

fn bugs(root: &Path) -> Vec<Bug> {
    let text = std::fs::read_to_string(root.join("tests/planted.toml")).expect("the list of bugs");
    let document: toml::Table = text.parse().expect("TOML");
    let list = document.get("bug").and_then(toml::Value::as_array).expect("a list of bugs");
    let of = |bug: &toml::Value, name: &str| {
        bug.get(name)
            .and_then(toml::Value::as_str)
            .unwrap_or_else(|| panic!("a bug without {name}"))
            .to_owned()
    };
    let bug = |bug: &toml::Value| Bug {
        name: of(bug, "name"),
        file: of(bug, "file"),
        find: of(bug, "find"),
        put: of(bug, "put"),
        package: if bug.get("package").is_some() { of(bug, "package") } else { "larder-tests".to_owned() },
        test: of(bug, "test"),
    };
    list.iter().map(bug).collect()
}

/// Copies what is not there, or is another; so that little has to be compiled again.
fn refresh(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("room for a copy");
    for entry in std::fs::read_dir(from).expect("a folder of the source") {
        let entry = entry.expect("a folder of the source");
        let name = entry.file_name();
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        let (from, to): (PathBuf, PathBuf) = (entry.path(), to.join(&name));
        if from.is_dir() {
            refresh(&from, &to);
        } else {
            let bytes = std::fs::read(&from).expect("a file of the source");
            if std::fs::read(&to).ok().as_ref() != Some(&bytes) {
                std::fs::write(&to, bytes).expect("room for a copy");
            }
        }
    }
}

/// Runs a test, and says what it says of the bug.
fn run(source: &Path, copy: &Path, package: &str, test: &str) -> &'static str {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        command.args(arguments).args(["--quiet", "--package", package]);
        // A test of the crate itself, or one from outside.
        match test {
            "lib" => command.arg("--lib"),
            _ => command.args(["--test", test]),
        };
        command
            .current_dir(source)
            .env("CARGO_TARGET_DIR", copy.join("build"))
            .env("RUSTFLAGS", "-Awarnings");
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command
    };
    // A bug that does not compile is none.
    if !cargo(&["test", "--no-run"]).status().is_ok_and(|status| status.success()) {
        return "NOT COMPILED";
    }
    let mut child = cargo(&["test"]).process_group(0).spawn().expect("a process");
    let began = Instant::now();
    loop {
        match child.try_wait().expect("a process of ours") {
            Some(status) => return if status.success() { "NOT FOUND" } else { "found" },
            None if began.elapsed() > TIME_MAX => {
                // With the test that it runs, which would go on without it.
                let group = format!("-{}", child.id());
                let ended = Command::new("kill").args(["-KILL", "--", &group]).status();
                assert!(ended.is_ok_and(|status| status.success()), "processes of ours");
                child.wait().expect("a process of ours");
                return "found";
            }
            None => std::thread::park_timeout(Duration::from_millis(50)),
        }
    }
}
