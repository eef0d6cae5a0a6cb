//! The command, from outside: what it prints, what it leaves behind, how it ends.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Kitchen {
    folder: tempfile::TempDir,
}

impl Kitchen {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A folder with what real folders have: nesting, nothing, much, names of all kinds.
fn tree(kitchen: &Kitchen) {
    for number in 0..40 {
        kitchen.write(
            &format!("tree/src/m{}/f{number}.rs", number % 5),
            format!("fn f{number}() {{}}\n").repeat(number),
        );
    }
    kitchen.write("tree/empty.txt", "");
    kitchen.write("tree/menus/käse & brot.json", "{}");
    kitchen.write("tree/.hidden", "yes");
    kitchen.write("tree/noext", [0u8, 255, 3]);
    let noise: Vec<u8> =
        (0..3_000_000u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[1]).collect();
    kitchen.write("tree/big.bin", noise);
}

fn files(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let modified = path.metadata().unwrap().modified().unwrap();
                found.insert(
                    path.strip_prefix(root).unwrap().to_owned(),
                    (std::fs::read(&path).unwrap(), modified),
                );
            }
        }
    }
    found
}

#[test]
fn a_tree_goes_in_and_comes_out_the_same_to_the_byte_and_the_nanosecond() {
    let kitchen = Kitchen::new();
    tree(&kitchen);
    let text = kitchen.ok(&["import", "tree", "p.larder"]);
    assert!(text.contains("45 files") && text.contains("45 new"), "{text}");
    let text = kitchen.ok(&["import", "tree", "p.larder"]);
    assert!(text.contains("0 new, 0 changed, 45 unchanged"), "{text}");
    kitchen.ok(&["verify", "p.larder"]);
    kitchen.ok(&["export", "p.larder", "back"]);
    assert_eq!(files(&kitchen.at("tree")), files(&kitchen.at("back")));
    kitchen.write("tree/empty.txt", "no more");
    let text = kitchen.ok(&["import", "tree", "p.larder"]);
    assert!(text.contains("1 changed, 44 unchanged"), "{text}");
}

#[cfg(unix)]
#[test]
fn links_are_not_followed_in_either_direction() {
    let kitchen = Kitchen::new();
    kitchen.write("tree/a/f.txt", "inside");
    kitchen.write("tree/a/g.txt", "inside, too");
    kitchen.write("outside/secret.txt", "outside");
    std::os::unix::fs::symlink(kitchen.at("outside"), kitchen.at("tree/link")).unwrap();
    let text = kitchen.ok(&["import", "tree", "p.larder"]);
    assert!(text.contains("1 links skipped"), "{text}");
    // A link where a directory of the export would be.
    std::fs::create_dir(kitchen.at("back")).unwrap();
    std::os::unix::fs::symlink(kitchen.at("outside"), kitchen.at("back/a")).unwrap();
    kitchen.fails(1, &["export", "p.larder", "back"]);
    assert!(!kitchen.at("outside/f.txt").exists() && !kitchen.at("outside/g.txt").exists());
}

/// T30: what a name or a status has in it that a terminal would obey is shown, and not sent.
#[test]
fn t30_what_a_terminal_would_obey_is_shown() {
    let kitchen = Kitchen::new();
    kitchen.write("tree/soup", "leek");
    kitchen.write("tree/soup.__metadata__", r#"{"status":"\u001b]0;x\u0007"}"#);
    kitchen.ok(&["import", "tree", "p.larder"]);
    let listed = kitchen.ok(&["ls", "-l", "p.larder"]);
    assert!(!listed.contains('\u{1b}') && listed.contains("\\u{1b}"), "{listed:?}");
}

#[test]
fn a_sidecar_that_has_changed_is_taken_in_and_the_stores_own_log_is_not() {
    let kitchen = Kitchen::new();
    kitchen.write("tree/soup", "leek");
    kitchen.write("tree/soup.__metadata__", r#"{"title":"Soup"}"#);
    kitchen.ok(&["import", "tree", "tree/p.larder"]);
    kitchen.write("tree/soup.__metadata__", r#"{"title":"Leek soup"}"#);
    let text = kitchen.ok(&["import", "tree", "tree/p.larder"]);
    assert!(text.contains("1 changed, 0 unchanged"), "{text}");
    kitchen.ok(&["export", "tree/p.larder", "back", "--sidecars"]);
    let sidecar = std::fs::read_to_string(kitchen.at("back/soup.__metadata__")).unwrap();
    assert_eq!(sidecar, r#"{"title":"Leek soup"}"#);
    assert_eq!(kitchen.ok(&["ls", "tree/p.larder"]), "soup\n");
}

#[test]
fn liquers_sidecars_are_understood_both_ways() {
    let kitchen = Kitchen::new();
    let sidecar = r#"{"type_identifier":"text","data_format":"txt","title":"Soup","status":"Ready","is_volatile":false,"x":1}"#;
    kitchen.write("tree/soup", "leek");
    kitchen.write("tree/soup.__metadata__", sidecar);
    kitchen.ok(&["import", "tree", "p.larder"]);
    assert_eq!(kitchen.ok(&["ls", "p.larder"]), "soup\n");
    let stat = kitchen.ok(&["stat", "p.larder", "soup", "--json"]);
    assert!(stat.contains("\"data_format\":\"txt\"") && stat.contains("\"status\":\"ready\""), "{stat}");
    kitchen.ok(&["export", "p.larder", "back", "--sidecars"]);
    assert_eq!(std::fs::read_to_string(kitchen.at("back/soup.__metadata__")).unwrap(), sidecar);
}

#[test]
fn single_assets_are_put_shown_tagged_moved_and_removed() {
    let kitchen = Kitchen::new();
    kitchen.write("leek.txt", "leek soup");
    kitchen.ok(&["put", "p.larder", "menus/friday.txt", "leek.txt", "--tag", "soup"]);
    assert_eq!(kitchen.ok(&["cat", "p.larder", "menus/friday.txt"]), "leek soup");
    assert_eq!(kitchen.ok(&["find", "p.larder", "--tag", "soup"]), "menus/friday.txt\n");
    kitchen.ok(&["tag", "p.larder", "menus/friday.txt", "warm"]);
    kitchen.ok(&["cp", "p.larder", "menus/friday.txt", "menus/monday.txt"]);
    kitchen.ok(&["mv", "p.larder", "menus/monday.txt", "old/monday.txt"]);
    assert_eq!(
        kitchen.ok(&["tree", "p.larder"]),
        "├── menus/\n│   └── friday.txt\n└── old/\n    └── monday.txt\n"
    );
    kitchen.ok(&["rm", "p.larder", "old", "-r"]);
    kitchen.fails(1, &["rm", "p.larder", "old/monday.txt"]);
    let feed = kitchen.ok(&["feed", "p.larder"]);
    assert!(feed.contains("renamed") && feed.contains("tree-deleted"), "{feed}");
    let info = kitchen.ok(&["info", "p.larder"]);
    assert!(info.contains("format 3") && info.contains("default allow"), "{info}");
    kitchen.ok(&["verify", "p.larder"]);
}

const RULES: &str = r#"
default = "deny"
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
max_binary_size = "10 KiB"
"#;

#[test]
fn rules_are_set_obeyed_and_explained() {
    let kitchen = Kitchen::new();
    kitchen.write("rules.toml", RULES);
    kitchen.write("film.mov", vec![7; 14_541]);
    kitchen.write("diary.txt", "salt");
    kitchen.ok(&["put", "p.larder", "users/ana/private/diary.txt", "diary.txt"]);
    kitchen.ok(&["acl", "set", "p.larder", "rules.toml"]);
    let output =
        kitchen.run(&["acl", "explain", "p.larder", "--as", "bob", "read", "users/ana/private/diary.txt"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        "denied   read   users/ana/private/diary.txt   bob\n  by \"nobody reads a private drawer but its owner\"  \
         (rule 2, deny; captures owner = ana)\n  \"own drawer\" (rule 1) does not match: captures principal = ana\n"
    );
    assert_eq!(output.status.code(), Some(1));
    let error =
        kitchen.fails(2, &["put", "p.larder", "users/ana/uploads/film.mov", "film.mov", "--as", "ana"]);
    assert_eq!(
        error,
        "larder: users/ana/uploads/film.mov: 14.2 KiB is larger than the limit of 10 KiB (limit 1 on \
         \"users/*/uploads/**\"); nothing was stored\n  raise the limit with: larder limits set FILE \
         'users/*/uploads/**' --max-binary-size SIZE\n"
    );
    kitchen.fails(2, &["put", "p.larder", "users/ana/x.txt", "diary.txt", "--as", "bob"]);
    let audit = kitchen.ok(&["audit", "p.larder"]);
    assert!(
        audit.contains("denied") && audit.contains("users/ana/x.txt") && audit.contains("bob"),
        "{audit}"
    );
    kitchen.write("bad.toml", "default = \"perhaps\"\n");
    let error = kitchen.fails(2, &["acl", "set", "p.larder", "bad.toml"]);
    assert!(error.contains("line 1"), "{error}");
    assert!(kitchen.ok(&["limits", "show", "p.larder"]).contains("uploads"));
}

#[test]
fn s0_6_one_limit_is_set_and_the_others_stay() {
    let kitchen = Kitchen::new();
    kitchen.write(
        "limits.toml",
        "max_tags = 7\n[[limit]]\non = [\"photos/**\", \"films/**\"]\nmax_binary_size = \"1 MiB\"",
    );
    kitchen.write("film.mov", vec![0; 3 << 20]);
    let put = ["put", "p.larder", "films/one.mov", "film.mov"];
    let set = |size: &str| ["limits", "set", "p.larder", "films/**", "--max-binary-size", size].join(" ");
    kitchen.ok(&["put", "p.larder", "limits.toml", "limits.toml"]);
    kitchen.ok(&["limits", "set", "p.larder", "limits.toml"]);
    let error = kitchen.fails(2, &put);
    assert!(error.contains("larder limits set FILE 'films/**' --max-binary-size"), "{error}");
    kitchen.ok(&set("4MiB").split(' ').collect::<Vec<_>>());
    kitchen.ok(&put);
    let shown = kitchen.ok(&["limits", "show", "p.larder"]);
    for kept in ["max_tags = 7", "\"photos/**\"", "\"4 MiB\"", "\"1 MiB\""] {
        assert!(shown.contains(kept), "{kept}: {shown}");
    }
    assert_eq!(shown.matches("films/**").count(), 1, "{shown}");
    assert!(kitchen.fails(2, &set("much").split(' ').collect::<Vec<_>>()).contains("20MiB"));
    let bad = ["limits", "set", "p.larder", "a//b", "--max-binary-size", "1KiB"];
    assert!(kitchen.fails(2, &bad).contains("a//b"));
}

#[test]
fn what_is_not_a_store_is_refused_and_left_as_it_is() {
    let kitchen = Kitchen::new();
    kitchen.write("not.larder", "hello");
    for verb in ["ls", "info", "verify", "tree", "feed"] {
        let error = kitchen.fails(2, &[verb, "not.larder"]);
        assert!(error.contains("not a larder file"), "{verb}: {error}");
        kitchen.fails(2, &[verb, "none.larder"]);
    }
    assert_eq!(std::fs::read(kitchen.at("not.larder")).unwrap(), b"hello");
    assert!(!kitchen.at("none.larder").exists());
    let error = kitchen.fails(2, &["stat", "none.larder", "k", "--json"]);
    assert!(error.contains("\"name\":\"NoSuchFile\""), "{error}");
}

#[test]
fn looking_changes_no_byte() {
    let kitchen = Kitchen::new();
    tree(&kitchen);
    kitchen.ok(&["import", "tree", "p.larder"]);
    let before = std::fs::read(kitchen.at("p.larder")).unwrap();
    for arguments in [
        &["ls", "p.larder", "-l"][..],
        &["tree", "p.larder"],
        &["info", "p.larder", "--json"],
        &["verify", "p.larder", "--json"],
        &["cat", "p.larder", "big.bin"],
        &["registry", "show", "p.larder"],
    ] {
        kitchen.run(arguments);
    }
    assert!(before == std::fs::read(kitchen.at("p.larder")).unwrap());
}

/// What a crash leaves: a store with three commits in its log.
fn crashed(kitchen: &Kitchen) {
    let larder = larder::Options::new().inline().open(kitchen.at("live.larder")).unwrap();
    let session = larder.session("ana").unwrap();
    for number in 0..3 {
        session.put(format!("{number}.txt"), "soup").unwrap();
    }
    std::fs::copy(kitchen.at("live.larder"), kitchen.at("a.larder")).unwrap();
    std::fs::copy(kitchen.at("live.larder-log"), kitchen.at("a.larder-log")).unwrap();
}

#[test]
fn what_a_crash_left_is_shown_and_recovered() {
    let kitchen = Kitchen::new();
    crashed(&kitchen);
    assert!(kitchen.ok(&["info", "a.larder"]).contains("not closed: 3 of the commits are in its log only"));
    assert!(kitchen.at("a.larder-log").exists(), "looking changes nothing");
    assert!(kitchen.ok(&["recover", "a.larder"]).starts_with("3 commits taken from the log; the last is 3"));
    assert!(!kitchen.at("a.larder-log").exists());
    assert_eq!(kitchen.ok(&["--json", "recover", "a.larder"]), "{\"recovered\":false}\n");
    assert_eq!(kitchen.ok(&["cat", "a.larder", "2.txt"]), "soup");

    let kitchen = Kitchen::new();
    crashed(&kitchen);
    std::fs::remove_file(kitchen.at("a.larder-log")).unwrap();
    let error = kitchen.fails(2, &["info", "a.larder"]);
    assert!(error.contains("a.larder-log") && error.contains("larder recover --discard-log FILE"), "{error}");
    kitchen.fails(2, &["recover", "a.larder"]);
    kitchen.ok(&["recover", "--discard-log", "a.larder"]);
    assert!(kitchen.ok(&["info", "a.larder"]).contains("assets   0"));
}

#[test]
fn lives_are_shown_swept_and_ended() {
    use larder::{Draft, Larder, Status};

    let kitchen = Kitchen::new();
    let larder = Larder::open(kitchen.at("l.larder")).unwrap();
    let ana = larder.session("ana").unwrap();
    ana.put("in/salt", "salt").unwrap();
    let soup =
        || Draft::from("soup").status(Status::Ready).with(|about| about.depends_on("in/salt").expires(1));
    ana.put("out/soup", soup()).unwrap();
    ana.log("in/salt", larder::LogKind::Info, "weighed").unwrap();
    ana.progress("in/salt", 1, 3, "grinding").unwrap();
    let minute = std::time::Duration::from_secs(60);
    let fence = ana.claim("out/pie").in_group("oven", 1).for_at_most(minute).unwrap().detach();
    larder.close().unwrap();

    let claims = kitchen.ok(&["claims", "l.larder"]);
    assert!(claims.contains("out/pie") && claims.contains("ana") && claims.contains("in oven"), "{claims}");
    assert!(kitchen.ok(&["claims", "l.larder", "--orphans"]).is_empty());
    let deadlines = kitchen.ok(&["deadlines", "l.larder", "--json"]);
    assert_eq!(deadlines.lines().count(), 2, "{deadlines}");
    assert!(deadlines.contains("\"purpose\":\"expiry\""), "{deadlines}");
    let deps = kitchen.ok(&["deps", "l.larder", "out/soup"]);
    assert!(deps.contains("out/soup") && deps.contains("in/salt"), "{deps}");
    let stat = kitchen.ok(&["stat", "l.larder", "in/salt"]);
    assert!(stat.contains("1 of 3  grinding") && stat.contains("info: weighed"), "{stat}");
    assert!(kitchen.ok(&["ls", "l.larder", "out", "-l"]).contains(" ready "), "the status is a column");
    assert!(kitchen.ok(&["deps", "l.larder", "out/soup", "--up", "--depth", "1"]).contains("in/salt"));
    assert!(kitchen.ok(&["deps", "l.larder", "in/salt", "--down"]).contains("out/soup"));
    kitchen.fails(1, &["why", "l.larder", "out/soup"]);
    assert!(kitchen.ok(&["why", "l.larder", "in/salt"]).contains("made from it  out/soup"));
    kitchen.fails(2, &["why", "l.larder", "nothing"]);
    assert!(kitchen.ok(&["sweep", "l.larder"]).contains("1 assets expired, 0 claims revoked"));
    assert!(kitchen.ok(&["sweep", "l.larder"]).contains("0 assets expired"));
    let why = kitchen.run(&["why", "l.larder", "out/soup", "--json"]);
    assert!(String::from_utf8(why.stdout).unwrap().contains("it has expired"));

    kitchen.write("rules.toml", "[[retain]]\non = \"out/**\"\nmax_bytes = 0\n");
    let said = kitchen.ok(&["retention", "l.larder", "rules.toml", "--dry-run"]);
    assert!(said.contains("out/soup") && said.contains("1 assets would go"), "{said}");
    kitchen.ok(&["stat", "l.larder", "out/soup"]);
    assert!(kitchen.ok(&["retention", "l.larder", "rules.toml"]).contains("1 assets went"));
    kitchen.fails(2, &["stat", "l.larder", "out/soup"]);
    kitchen.write("bad.toml", "[[retain]]\non = \"a*\"\nmax_count = 1\n");
    assert!(kitchen.fails(2, &["retention", "l.larder", "bad.toml"]).contains("line 2"));
    kitchen.ok(&["verify", "l.larder"]);
    assert_eq!(fence, 1);
}

#[test]
fn snapshots_are_made_checked_compared_and_restored() {
    let kitchen = Kitchen::new();
    tree(&kitchen);
    kitchen.ok(&["import", "tree", "a.larder"]);
    let before = std::fs::read(kitchen.at("a.larder")).unwrap();
    kitchen.ok(&["snapshot", "create", "a.larder", "1.snapshot"]);
    assert!(std::fs::read(kitchen.at("a.larder")).unwrap() == before, "to make a snapshot is to look");
    kitchen.write("pie.txt", "apple");
    kitchen.ok(&["put", "a.larder", "new.txt", "pie.txt"]);
    kitchen.ok(&["rm", "a.larder", "noext"]);
    kitchen.ok(&["tag", "a.larder", "empty.txt", "nothing"]);
    kitchen.ok(&["snapshot", "create", "a.larder", "2.snapshot", "--since", "1.snapshot"]);
    kitchen.ok(&["snapshot", "create", "a.larder", "3.snapshot", "--threads", "1"]);
    kitchen.ok(&["snapshot", "verify", "1.snapshot", "2.snapshot", "3.snapshot"]);
    assert_eq!(kitchen.ok(&["snapshot", "list", "."]).lines().count(), 3);
    let output = kitchen.run(&["snapshot", "diff", "1.snapshot", "3.snapshot"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "~ empty.txt\n- noext\n+ new.txt\n");
    kitchen.ok(&["snapshot", "diff", "3.snapshot", "3.snapshot"]);
    kitchen.fails(2, &["snapshot", "diff", "1.snapshot", "2.snapshot"]);

    kitchen.ok(&["restore", "1.snapshot", "2.snapshot", "b.larder"]);
    kitchen.ok(&["verify", "b.larder"]);
    kitchen.ok(&["snapshot", "create", "b.larder", "4.snapshot"]);
    kitchen.ok(&["snapshot", "diff", "3.snapshot", "4.snapshot"]);
    kitchen.ok(&["restore", "3.snapshot", "c.larder", "--new-epoch", "--json"]);
    let error = kitchen.fails(2, &["restore", "2.snapshot", "d.larder"]);
    assert!(error.contains("what it builds on has to come before it"), "{error}");
    assert!(kitchen.fails(2, &["restore", "1.snapshot", "b.larder"]).contains("already"));
    let mut damaged = std::fs::read(kitchen.at("1.snapshot")).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    kitchen.write("damaged.snapshot", damaged);
    assert!(kitchen.fails(2, &["snapshot", "verify", "damaged.snapshot"]).contains("damaged"));
    kitchen.fails(2, &["restore", "damaged.snapshot", "d.larder"]);
    assert!(!kitchen.at("d.larder").exists());
}

#[test]
fn stores_are_compacted_repaired_and_salvaged() {
    let kitchen = Kitchen::new();
    tree(&kitchen);
    kitchen.write("tree/sour.txt", "sour cream and chives");
    kitchen.ok(&["import", "tree", "a.larder"]);
    let before = kitchen.ok(&["tree", "a.larder"]);
    kitchen.ok(&["compact", "a.larder"]);
    assert_eq!(kitchen.ok(&["repair", "a.larder"]), "nothing to repair\n");
    assert_eq!(kitchen.ok(&["repair", "a.larder", "b.larder"]).matches("0 findings").count(), 1);
    kitchen.ok(&["verify", "b.larder"]);
    assert_eq!(kitchen.ok(&["tree", "b.larder"]), before);
    kitchen.fails(2, &["repair", "a.larder", "b.larder"]);
    kitchen.fails(2, &["repair", "a.larder", "d.larder", "--in-place"]);
    assert_eq!(kitchen.ok(&["repair", "a.larder", "--in-place"]), "nothing to repair\n");
    let mut rotten = std::fs::read(kitchen.at("a.larder")).unwrap();
    let at = rotten.windows(10).position(|bytes| bytes == b"sour cream").unwrap();
    rotten[at] ^= 1;
    kitchen.write("rotten.larder", &rotten);
    let repaired = kitchen.run(&["repair", "rotten.larder", "--in-place"]);
    let said = String::from_utf8_lossy(&repaired.stdout);
    assert!(repaired.status.code() == Some(1) && said.contains("1 left out"), "{said}");
    kitchen.ok(&["verify", "rotten.larder"]);
    assert!(std::fs::read(kitchen.at("rotten.larder.before-repair")).unwrap() == rotten);
    let mut headless = std::fs::read(kitchen.at("a.larder")).unwrap();
    headless[..4_096].fill(0);
    kitchen.write("headless.larder", headless);
    kitchen.fails(2, &["ls", "headless.larder"]);
    kitchen.ok(&["salvage", "headless.larder", "c.larder"]);
    kitchen.ok(&["verify", "c.larder"]);
    assert_eq!(kitchen.ok(&["tree", "c.larder"]), before);
}

#[test]
fn a_store_is_asked_how_it_is_and_where_it_lies() {
    let kitchen = Kitchen::new();
    kitchen.write("tree/a.txt", "a");
    kitchen.ok(&["import", "tree", "a.larder"]);
    let before = std::fs::read(kitchen.at("a.larder")).unwrap();
    assert!(kitchen.ok(&["health", "a.larder"]).contains("default allow"));
    assert!(kitchen.ok(&["health", "a.larder", "--json"]).contains("\"is_full\":false"));
    assert!(kitchen.ok(&["doctor", "a.larder"]).contains("file system"));
    assert!(std::fs::read(kitchen.at("a.larder")).unwrap() == before);
    std::fs::hard_link(kitchen.at("a.larder"), kitchen.at("b.larder")).unwrap();
    assert_eq!(kitchen.run(&["doctor", "a.larder"]).status.code(), Some(1), "a second name");
    kitchen.fails(2, &["health", "nothing.larder"]);
}

#[test]
fn queues_caches_rows_and_indexes_are_shown_and_mended() {
    use larder::{CollectionDefinition, IndexDefinition, Options, RowDraft};
    use larder_layers::queue::{Message, Nack, QueueError, QueueSettings, Queues};
    use larder_layers::remember::{Cache, Parts, Remember};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l.larder");
    let larder = Options::new().open(&path).unwrap();
    let ana = larder.session("ana").unwrap();
    let queue = Queues::at("queues").unwrap().queue("orders").unwrap();
    ana.try_write(|txn| -> Result<(), QueueError> {
        queue.create(txn, &QueueSettings::new().attempts_max(1))?;
        let _ =
            queue.enqueue_all(txn, ["soup", "pie"].map(|text| Message::new(text).header("table", "7")))?;
        let taken = queue.dequeue(txn)?.unwrap();
        let _ = queue.nack(txn, taken.token(), &Nack::new().reason("no leeks"))?;
        let _ = txn.define_collection(
            "counts",
            &CollectionDefinition::new().index(IndexDefinition::new("n").by_descending("n")),
        )?;
        let mut counts = txn.collection("counts")?;
        counts.put(("a", 1), RowDraft::default().field("n", 5).field("of", "soup"))?;
        counts.put(("b", 2), RowDraft::default().field("n", 9)).map(drop)?;
        Ok(())
    })
    .unwrap();
    let cache = Cache::at("cache").unwrap().namespace("n").unwrap();
    let _ = cache.store(&ana, &Parts::new().with("of", 3), "nine", &Remember::new().tag("odd")).unwrap();
    larder.close().unwrap();

    let file = path.to_str().unwrap();
    let said = |arguments: &[&str], code: i32| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_larder")).args(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |arguments: &[&str], words: &[&str]| {
        let text = said(arguments, 0);
        words.iter().for_each(|word| assert!(text.contains(word), "{word} in {text}"));
    };
    has(&["queue", "ls", file, "queues"], &["1 ready", "1 dead", "orders"]);
    has(&["queue", "stat", file, "queues/orders"], &["2 enqueued", "1 given back", "1 attempts"]);
    has(&["queue", "peek", file, "queues/orders", "--state", "dead"], &["no leeks", "4 B"]);
    has(
        &["--json", "queue", "peek", file, "queues/orders"],
        &["\"headers\":[[\"table\",\"7\"]]", "\"attempts\":0"],
    );
    has(&["queue", "redrive", file, "queues/orders"], &["1 redriven"]);
    has(&["queue", "purge", file, "queues/orders"], &["2 purged"]);
    has(&["--json", "queue", "stat", file, "queues/orders"], &["\"purged\":2", "\"ready\":0"]);
    assert!(said(&["queue", "stat", file, "queues/nothing"], 2).is_empty());
    has(&["rows", file, "counts", "--by", "n"], &["\"b\" 2", "n=9"]);
    has(
        &["--json", "rows", file, "counts"],
        &["{\"bytes\":0,\"fields\":{\"n\":5,\"of\":\"soup\"},\"key\":[\"a\",1]}"],
    );
    has(&["counters", file, "counts"], &["9  \"b\" 2 n"]);
    has(&["index", "ls", file, "counts"], &["by n", "2 rows"]);
    has(&["index", "verify", file], &["rows", "entries"]);
    has(&["index", "rebuild", file, "counts"], &["3 entries"]);
    has(&["verify", file], &["nothing"]);
    has(&["cache", "ls", file, "cache"], &["1 entries", "4 B", "n"]);
    has(&["cache", "stat", file, "cache/n"], &["1 entries"]);
    has(&["cache", "explain", file, "cache/n", "--by", "cost"], &["0 hits", "of"]);
    has(&["cache", "explain", file, "cache/n", "--incoming", "1000"], &[]);
    has(&["cache", "sweep", file, "cache/n"], &["0 forgotten"]);
    has(&["cache", "invalidate", file, "cache/n", "--tag", "even"], &["0 forgotten"]);
    has(&["cache", "invalidate", file, "cache/n", "--prefix", "of=sou"], &["0 forgotten"]);
    has(&["cache", "invalidate", file, "cache/n", "--part", "of=4"], &["0 forgotten"]);
    has(&["cache", "invalidate", file, "cache/n"], &["1 forgotten"]);
}

/// Dead letters are purged and redriven to the last one, however many there are, in transactions of a good size.
#[test]
fn many_dead_letters_are_redriven_and_purged_to_the_last() {
    use larder::Options;
    use larder_layers::queue::{Message, Nack, QueueError, QueueSettings, Queues};

    let kitchen = Kitchen::new();
    let larder = Options::new().open(kitchen.at("store.larder")).unwrap();
    let ana = larder.session("ana").unwrap();
    let queue = Queues::at("queues").unwrap().queue("orders").unwrap();
    ana.try_write(|txn| -> Result<(), QueueError> {
        queue.create(txn, &QueueSettings::new().attempts_max(1).messages_max(3_000))?;
        let _ = queue.enqueue_all(txn, (0..2_500).map(|_| Message::new("soup")))?;
        let tokens: Vec<_> =
            queue.dequeue_up_to(txn, 2_500, None)?.iter().map(|taken| taken.token()).collect();
        queue.nack_all(txn, &tokens, &Nack::new()).map(drop)
    })
    .unwrap();
    larder.close().unwrap();
    let redriven =
        kitchen.ok(&["--json", "queue", "redrive", "store.larder", "queues/orders", "--limit", "1200"]);
    assert_eq!(redriven.trim(), "{\"redriven\":1200}");
    let purged = kitchen.ok(&["--json", "queue", "purge", "store.larder", "queues/orders", "--dead"]);
    assert_eq!(purged.trim(), "{\"purged\":1300}");
    let stat = kitchen.ok(&["--json", "queue", "stat", "store.larder", "queues/orders"]);
    assert!(stat.contains("\"dead\":0") && stat.contains("\"ready\":1200"), "{stat}");
}

#[test]
fn tasks_and_runs_are_shown_drawn_and_explained() {
    use larder::{Options, Part};
    use larder_layers::runs::{Asset, BarrierDraft, GateDraft, Produced, RunState, Runs, RunsError};
    use larder_layers::tasks::{TaskDraft, TaskOutcome, Tasks, TasksError, Trigger};

    let kitchen = Kitchen::new();
    let larder = Options::new().open(kitchen.at("w.larder")).unwrap();
    let ana = larder.session("ana").unwrap();
    let tasks = Tasks::at("tasks").unwrap();
    let batch = [
        TaskDraft::new("a", "peel <leeks> \"two\"", "cut").metadata("table", 7).action(Trigger::Start, "go"),
        TaskDraft::new("b", "cook", "heat").after_success_of("a"),
        TaskDraft::new("c", "serve", "carry").after_end_of("b").after_end_of("a"),
    ];
    let created = ana.try_write(|txn| tasks.create(txn, &batch)).unwrap().value;
    let ids: Vec<String> = created.tasks.iter().map(|task| task.id().to_string()).collect();
    let batch = created.batch.to_string();
    ana.try_write(|txn| -> Result<(), TasksError> {
        let claimed = tasks.claim(txn)?.unwrap();
        tasks.run(txn, claimed.token())?;
        tasks.finish(txn, claimed.token(), &TaskOutcome::Success).map(|_| ())
    })
    .unwrap();
    let runs = Runs::at("runs").unwrap();
    let (orders, report) = (Asset::of("orders", 7).unwrap(), Asset::of("report", Part::Nil).unwrap());
    ana.try_write(|txn| -> Result<(), RunsError> {
        runs.set_run(txn, "r1", RunState::Running)?;
        for (asset, from) in [(&orders, vec![]), (&report, vec![orders.clone()])] {
            let ticket = runs.start(txn, asset, "r1")?;
            let _ = runs.commit(txn, &ticket, Produced::new("text", "soup").from(from))?;
        }
        runs.open_gate(txn, &GateDraft::new("r1", "secret"))?;
        let barrier = runs.open_barrier(txn, &BarrierDraft::new("r1", orders.clone()))?;
        let _ = runs.add_items(txn, barrier, &[1.into(), 2.into()], None)?;
        let _ = runs.complete_item(txn, barrier, &1.into(), "")?;
        Ok(())
    })
    .unwrap();
    larder.close().unwrap();

    let has = |arguments: &[&str], words: &[&str]| {
        let text = kitchen.ok(arguments);
        words.iter().for_each(|word| assert!(text.contains(word), "{word} in {text}"));
        text
    };
    let file = "w.larder";
    has(&["tasks", "ls", file, "tasks"], &["success", "cook", "waiting"]);
    assert_eq!(kitchen.ok(&["tasks", "ls", file, "tasks", "--status", "pending"]).lines().count(), 1);
    assert_eq!(kitchen.ok(&["tasks", "ls", file, "tasks", "--limit", "2"]).lines().count(), 2);
    kitchen.fails(2, &["tasks", "ls", file, "tasks", "--status", "lost"]);
    has(&["tasks", "stat", file, "tasks"], &["1 success", "1 pending", &format!("batch {batch}")]);
    has(&["tasks", "show", file, "tasks", &ids[0]], &["metadata", "table", "effect", "waiting"]);
    kitchen.fails(2, &["tasks", "show", file, "tasks", "1"]);
    has(&["--json", "tasks", "show", file, "tasks", &ids[1]], &["\"status\":\"pending\"", "\"after\":["]);
    has(&["tasks", "graph", file, "tasks", &batch], &[&format!("after [{}, {}]", ids[0], ids[1])]);
    let dot = has(
        &["tasks", "graph", file, "tasks", &batch, "--format", "dot"],
        &["digraph", "n0 -> n1;", "n1 -> n2 [style=dashed]"],
    );
    assert!(dot.contains("peel <leeks> \\\"two\\\""), "{dot}");
    has(
        &["tasks", "graph", file, "tasks", &batch, "--format", "svg"],
        &["<svg", "peel &lt;leeks&gt; &quot;two&quot;", "</svg>"],
    );
    has(&["tasks", "critical-path", file, "tasks", &batch], &["cook", "serve", "ms"]);
    has(&["tasks", "why-blocked", file, "tasks", &ids[1]], &["nobody has claimed it"]);
    let why = kitchen.run(&["tasks", "why-blocked", file, "tasks", &ids[2]]);
    assert_eq!(why.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&why.stdout).contains(&format!("waits for [{}]", ids[1])));

    has(&["runs", "ls", file, "runs"], &["running", "r1"]);
    has(&["runs", "show", file, "runs", "r1"], &["success", "orders[7]", "made", "ana"]);
    has(&["runs", "lineage", file, "runs", "report"], &["1  orders[7]"]);
    let seven = ["--partition", "7", "--partition-type", "integer"];
    has(
        &[&["runs", "lineage", file, "runs", "orders", "--down", "--format", "dot"], &seven[..]].concat(),
        &["n0 -> n1"],
    );
    has(&[&["runs", "impact", file, "runs", "orders"], &seven[..]].concat(), &["success", "report"]);
    kitchen.fails(
        2,
        &["runs", "impact", file, "runs", "orders", "--partition", "x", "--partition-type", "integer"],
    );
    let gates = has(&["runs", "gates", file, "runs"], &["r1"]);
    assert!(!gates.contains("secret"), "a token is not shown");
    has(&["runs", "barriers", file, "runs", "r1"], &["open", "1 of 2 done"]);
    has(&["runs", "health", file, "runs"], &["1 runs", "2 made", "1 gates"]);
    has(&["verify", file], &["nothing"]);
}
