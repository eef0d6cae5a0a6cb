//! The acceptance checks of the five systems that concern the foundation, named after their ids.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::{
    AbsentReason, Annotation, BatchMode, DocumentKind, Draft, Edit, ErrorKind, Larder, LogKind, ManualClock,
    Objection, Options, Outcome, PageRequest, Right, Session, TagPolicy,
};

fn store() -> (Larder, Session) {
    let larder = Options::new().open_in_memory().unwrap();
    let session = larder.session("ana").unwrap();
    (larder, session)
}

fn limits(larder: &Larder, text: &str) {
    larder.root().unwrap().set_document(DocumentKind::Limits, text).unwrap();
}

fn rules(larder: &Larder, text: &str) {
    larder.root().unwrap().set_document(DocumentKind::Rules, text).unwrap();
}

const STRICT: &str = "[[strictness]]\non = \"**\"\nlevel = \"strict\"\n";

#[test]
fn s0_2_a_a_blank_type_is_refused_when_strict_and_nothing_is_stored() {
    let (larder, ana) = store();
    limits(&larder, STRICT);
    let before = larder.info().unwrap().last_commit;
    let error = ana
        .put("k.json", Draft::from("{}").data_format("json").type_identifier("").media_type(""))
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::MissingField { field } if field == "type_identifier"),
        "{error}"
    );
    assert!(!ana.exists("k.json").unwrap());
    assert_eq!(larder.info().unwrap().last_commit, before);
}

#[test]
fn s0_2_b_an_empty_media_type_is_inferred() {
    let (_larder, ana) = store();
    ana.put("k", Draft::from("{}").data_format("json").media_type("")).unwrap();
    assert_eq!(ana.record("k").unwrap().media_type(), "application/json");
}

#[test]
fn s0_2_c_a_contradiction_is_refused_when_strict_and_a_warning_otherwise() {
    let (larder, ana) = store();
    let draft = || Draft::from("{}").data_format("json").media_type("image/png");
    let stored = ana.put("k.json", draft()).unwrap().value;
    assert_eq!(stored.warnings.len(), 1);
    assert_eq!(ana.record("k.json").unwrap().log().len(), 1);
    limits(&larder, STRICT);
    let error = ana.put("l.json", draft()).unwrap_err();
    let ErrorKind::Inconsistent { field, expected, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((field.as_str(), expected.contains("application/json")), ("media_type", true));
}

#[test]
fn s0_2_d_e_g_extension_unknown_format_and_defaults() {
    let (larder, ana) = store();
    assert_eq!(ana.put("a/b.csv", Draft::from("{}").data_format("json")).unwrap().value.warnings.len(), 1);
    let stored = ana.put("u", Draft::from("x").data_format("xyz")).unwrap().value;
    assert_eq!(stored.warnings.len(), 1);
    assert_eq!(ana.record("u").unwrap().media_type(), "application/octet-stream");
    ana.put("x/y.parquet", "x").unwrap();
    ana.put("x/y", "x").unwrap();
    assert_eq!(ana.record("x/y.parquet").unwrap().data_format(), "parquet");
    assert_eq!(ana.record("x/y").unwrap().data_format(), "bin");
    limits(&larder, STRICT);
    let error = ana.put("v", Draft::from("x").data_format("xyz")).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::UnknownFormat { data_format } if data_format == "xyz"),
        "{error}"
    );
}

#[test]
fn s0_2_h_verify_lists_exactly_what_contradicts_the_registry() {
    let (larder, ana) = store();
    limits(&larder, "[[strictness]]\non = \"**\"\nlevel = \"off\"\n");
    for number in 0..200 {
        let draft = Draft::from("{}").data_format("json");
        let draft = if number % 29 == 3 { draft.media_type("image/png") } else { draft };
        ana.put(format!("k/{number}"), draft).unwrap();
    }
    let report = larder.verify(&mut |_| {}).unwrap();
    let found: BTreeSet<&str> = report.warnings.iter().map(|warning| warning.place.as_str()).collect();
    assert_eq!(found, BTreeSet::from(["k/3", "k/32", "k/61", "k/90", "k/119", "k/148", "k/177"]));
    assert!(report.is_clean());
}

#[test]
fn s0_4_a_b_an_absent_payload_is_not_an_empty_one() {
    let (_larder, ana) = store();
    ana.put("meta", Draft::absent(AbsentReason::NonSerializable)).unwrap();
    ana.put("empty", "").unwrap();
    assert!(ana.exists("meta").unwrap() && !ana.record("meta").unwrap().has_payload());
    let error = ana.get("meta").unwrap().bytes().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::PayloadUnavailable { reason: AbsentReason::NonSerializable }),
        "{error}"
    );
    assert!(ana.record("empty").unwrap().has_payload());
    assert_eq!(ana.get("empty").unwrap().bytes().unwrap().len(), 0);
}

#[test]
fn s0_4_c_dropping_the_payload_reclaims_it_in_the_same_commit() {
    for size in [100, 5_000, 3_000_000] {
        let (larder, ana) = store();
        let noise: Vec<u8> =
            (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        ana.put("k", noise.clone()).unwrap();
        ana.put("other", noise).unwrap();
        ana.put("k", Draft::absent(AbsentReason::Evicted)).unwrap();
        assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
        assert_eq!(ana.get("other").unwrap().bytes().unwrap().len(), size);
        ana.delete("other").unwrap();
        let report = larder.verify(&mut |_| {}).unwrap();
        assert!(report.is_clean() && report.chunks == 0 && report.payloads == 0, "{report:?}");
    }
}

#[test]
fn s0_4_d_e_after_a_restart_the_answers_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.larder");
    for round in 0..3 {
        let larder = Larder::open(&path).unwrap();
        let ana = larder.session("ana").unwrap();
        if round == 0 {
            for number in 0..10 {
                let draft =
                    if number < 3 { Draft::absent(AbsentReason::Transient) } else { Draft::from("x") };
                ana.put(format!("k/{number}"), draft).unwrap();
            }
        }
        let without = ana
            .read(|view| Ok(view.walk("k")?.filter(|row| !row.as_ref().unwrap().1.has_payload()).count()))
            .unwrap();
        assert_eq!(without, 3);
        let error = ana.get("k/0").unwrap().bytes().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::PayloadUnavailable { reason: AbsentReason::Transient }),
            "{error}"
        );
        larder.close().unwrap();
    }
}

#[test]
fn s0_4_f_s1_4_a_failing_codec_leaves_the_old_value_and_its_text_can_be_kept() {
    let (_larder, ana) = store();
    ana.put("k.json", "{}").unwrap();
    let failed = ana.write(|txn| {
        txn.put("other.txt", "x")?;
        Err::<(), _>(larder::Error::from(ErrorKind::Serialization {
            format: "json".into(),
            type_name: "Gpu".into(),
            what: "a tensor on a device".into(),
        }))
    });
    let error = failed.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Serialization { .. }));
    assert_eq!(ana.record("k.json").unwrap().generation(), 1);
    assert!(!ana.exists("other.txt").unwrap());
    let text = error.to_string();
    let draft =
        Draft::absent(AbsentReason::NonSerializable).with(|metadata| metadata.log(LogKind::Warning, &text));
    ana.put("k.json", draft).unwrap();
    assert!(ana.record("k.json").unwrap().log().iter().any(|entry| entry.message == text));
}

#[test]
fn s0_4_g_a_change_of_status_makes_no_phantom() {
    let (larder, ana) = store();
    let annotation = Annotation::new().status(larder::Status::Expired);
    let error = ana.annotate("never", annotation).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound), "{error}");
    assert!(!ana.exists("never").unwrap());
    assert_eq!(larder.statistics().unwrap().total.assets, 0);
}

#[test]
fn s0_6_a_d_the_limit_holds_to_the_byte() {
    let (larder, ana) = store();
    limits(&larder, "max_binary_size = 1000000\n");
    for size in [0, 1, 999_999, 1_000_000] {
        ana.put("k", vec![7; size]).unwrap();
    }
    let error = ana.put("big", vec![7; 1_000_001]).unwrap_err();
    let ErrorKind::BinaryTooLarge { size, limit, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((*size, *limit), (1_000_001, 1_000_000));
    assert!(!ana.exists("big").unwrap());
    assert!(larder.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn s0_6_b_a_stream_is_stopped_at_the_limit_and_leaves_nothing() {
    let (larder, ana) = store();
    limits(&larder, "max_binary_size = 10000000\n");
    let error = ana.put_reader("big.bin", &mut std::io::repeat(7).take(50_000_000), "").unwrap_err();
    let ErrorKind::BinaryTooLarge { size, .. } = error.kind() else { panic!("{error}") };
    assert!(*size > 10_000_000 && *size < 12_000_000, "{size}");
    larder.flush().unwrap();
    ana.put("after.txt", "x").unwrap();
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean() && report.chunks == 0, "{report:?}");
    ana.put_reader("fits.bin", &mut std::io::repeat(7).take(10_000_000), "").unwrap();
}

#[test]
fn s0_6_c_e_f_limits_by_pattern_lowered_later_and_the_default() {
    let (larder, ana) = store();
    assert_eq!(larder::format::Limits::default().default_binary_size(), 1 << 30);
    limits(
        &larder,
        "max_binary_size = \"1 MiB\"\n[[limit]]\non = \"img/**\"\nmax_binary_size = \"10 MiB\"\n",
    );
    ana.put("img/a", vec![7; 5 << 20]).unwrap();
    assert!(ana.put("doc/a", vec![7; 5 << 20]).is_err());
    limits(&larder, "max_binary_size = \"1 KiB\"\n");
    ana.annotate("img/a", Annotation::new().title("still here")).unwrap();
    ana.rename("img/a", "img/b").unwrap();
    assert_eq!(ana.open("img/b").unwrap().len(), 5 << 20);
}

#[test]
fn a_source_that_fails_half_way_leaves_nothing() {
    struct Fails(u64);
    impl Read for Fails {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| std::io::Error::other("the line is cut"))?;
            out.fill(self.0 as u8);
            Ok(out.len())
        }
    }
    let (larder, ana) = store();
    let error = ana.put_reader("k", &mut Fails(80), "").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Source { after } if *after > 0), "{error}");
    assert!(!ana.exists("k").unwrap());
    ana.put("next", "x").unwrap();
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean() && report.chunks == 0);
}

#[test]
fn s0_7_a_b_rules_by_pattern() {
    let (larder, _) = store();
    rules(
        &larder,
        r#"
        default = "allow"
        [[rule]]
        deny = ["write"]
        who = ["*"]
        except = ["admin-service"]
        on = "admin/**"
        [[rule]]
        deny = ["read", "list", "write"]
        who = ["*"]
        except = ["{owner}"]
        on = "user/{owner}/private/*"
        "#,
    );
    let (bob, admin) = (larder.session("bob").unwrap(), larder.session("admin-service").unwrap());
    let error = bob.put("admin/x", "x").unwrap_err();
    let ErrorKind::AccessDenied { principal, right, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((principal.as_str(), right.as_str()), ("bob", "write"));
    admin.put("admin/x", "x").unwrap();
    let alice = larder.session("alice").unwrap();
    alice.put("user/alice/private/f", "secret").unwrap();
    alice.put("user/alice/public/f", "open").unwrap();
    assert!(matches!(bob.get("user/alice/private/f").unwrap_err().kind(), ErrorKind::NotFound));
    assert!(!bob.exists("user/alice/private/f").unwrap());
    assert_eq!(bob.get("user/alice/public/f").unwrap().bytes().unwrap(), "open");
    assert_eq!(bob.list("user/alice").unwrap().len(), 1);
    // Refused mutations say the same whether or not anything is there.
    let texts = ["user/alice/private/f", "user/alice/private/none"]
        .map(|key| bob.put(key, "x").unwrap_err().kind().to_string());
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn s0_7_c_one_denied_key_keeps_the_whole_tree() {
    let (larder, ana) = store();
    for number in 0..10 {
        ana.put(format!("user/{number}"), "x").unwrap();
    }
    rules(&larder, "default = \"allow\"\n[[rule]]\ndeny = [\"delete\"]\nwho = [\"bob\"]\non = \"user/7\"\n");
    let bob = larder.session("bob").unwrap();
    assert!(matches!(bob.delete_tree("user").unwrap_err().kind(), ErrorKind::AccessDenied { .. }));
    assert!(bob.rename_tree("user", "mine").is_err());
    assert_eq!(ana.list("user").unwrap().len(), 10);
    assert_eq!(larder.root().unwrap().delete_tree("user").unwrap().value, 10);
}

#[test]
fn s0_7_d_deny_by_default_refuses_everything() {
    let (larder, ana) = store();
    ana.put("k", "x").unwrap();
    rules(&larder, "default = \"deny\"\n");
    assert!(matches!(ana.put("k", "y").unwrap_err().kind(), ErrorKind::AccessDenied { .. }));
    assert!(matches!(ana.delete("k").unwrap_err().kind(), ErrorKind::AccessDenied { .. }));
    assert!(matches!(ana.copy("k", "l").unwrap_err().kind(), ErrorKind::AccessDenied { .. }));
    assert!(matches!(ana.rename("k", "l").unwrap_err().kind(), ErrorKind::AccessDenied { .. }));
    assert!(matches!(
        ana.set_document(DocumentKind::Rules, "default = \"allow\"").unwrap_err().kind(),
        ErrorKind::AccessDenied { .. }
    ));
    assert!(matches!(ana.get("k").unwrap_err().kind(), ErrorKind::NotFound));
    assert!(ana.list("").unwrap().is_empty());
    assert!(ana.find_by_tag("t").unwrap().is_empty());
    assert!(ana.feed_since(0, 10).unwrap().is_empty());
    // And it can be explained.
    let explanation = larder.root().unwrap().explain("ana", [], Right::WRITE, "k").unwrap();
    assert!(!explanation.allowed);
}

#[test]
fn s0_7_e_the_audit_has_what_was_allowed_and_what_was_refused_in_order() {
    let larder = Options::new().audit_allowed().open_in_memory().unwrap();
    let root = larder.root().unwrap();
    rules(
        &larder,
        "default = \"allow\"\n[[rule]]\ndeny = [\"write\"]\nwho = [\"bob\"]\non = \"closed/**\"\n",
    );
    let bob = larder.session("bob").unwrap();
    bob.put("a", "x").unwrap();
    bob.put("closed/b", "x").unwrap_err();
    bob.put("c", "x").unwrap();
    bob.put("closed/d", "x").unwrap_err();
    bob.put("e", "x").unwrap();
    let entries = root.audit(0, 100).unwrap();
    let seen: Vec<(String, bool)> =
        entries.into_iter().map(|(_, entry)| (entry.place, entry.allowed)).collect();
    // The first is the document with the rules.
    let expected =
        [("", true), ("a", true), ("closed/b", false), ("c", true), ("closed/d", false), ("e", true)];
    assert_eq!(seen, expected.map(|(place, allowed)| (place.to_owned(), allowed)));
}

#[test]
fn t35_rules_that_change_in_a_transaction_hold_for_the_rest_of_it() {
    let (larder, _) = store();
    rules(&larder, "default = \"allow\"\n");
    let bob = larder.session("bob").unwrap();
    let view = bob.snapshot().unwrap();
    bob.put("k", "x").unwrap();
    bob.write(|txn| {
        txn.set_document(DocumentKind::Rules, "default = \"deny\"\n")?;
        assert!(matches!(txn.put("k", "y").unwrap_err().kind(), ErrorKind::AccessDenied { .. }));
        Ok(())
    })
    .unwrap();
    // The newest rules hold on an old view too.
    assert!(view.get("k").is_err() && view.list("").unwrap().is_empty());
}

#[test]
fn s1_1_a_prefix_is_dropped_in_one_transaction() {
    let (larder, ana) = store();
    for pipeline in 1..=3 {
        for number in 0..10 {
            ana.put(format!("defs/p{pipeline}/{number}"), "x").unwrap();
        }
    }
    let before = larder.info().unwrap().last_commit.sequence;
    assert_eq!(ana.delete_tree("defs/p2").unwrap().value, 10);
    assert_eq!(larder.info().unwrap().last_commit.sequence, before + 1);
    let names: Vec<String> = ana.list("defs").unwrap().iter().map(|entry| entry.name().to_owned()).collect();
    assert_eq!(names, ["p1", "p3"]);
    assert_eq!(larder.statistics().unwrap().total.assets, 20);
}

#[test]
fn s1_4_b_c_the_format_is_the_version_s_own_and_a_batch_is_whole() {
    let (_larder, ana) = store();
    ana.put("k", Draft::from("{}").data_format("json")).unwrap();
    let old = ana.snapshot().unwrap();
    ana.put("k", Draft::from("x").data_format("bin")).unwrap();
    assert_eq!(old.record("k").unwrap().data_format(), "json");
    assert_eq!(ana.record("k").unwrap().data_format(), "bin");
    let edits =
        (0..5).map(|at| if at == 2 { Edit::put("a//b", "x") } else { Edit::put(format!("n/{at}"), "x") });
    ana.batch(edits, BatchMode::Atomic).unwrap_err();
    assert!(ana.list("").unwrap().iter().all(|entry| entry.name() == "k"));
}

#[test]
fn s1_7_s2_36_bad_files_are_told_apart_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let larder = Larder::open(at("open.larder")).unwrap();
    std::fs::write(at("text"), "not a store").unwrap();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    let code = |result: larder::Result<Larder>| result.map(drop).unwrap_err().kind().name();
    assert_eq!(code(Larder::open(at("open.larder"))), "Locked");
    assert_eq!(code(Options::new().open_read_only(at("open.larder"))), "Locked");
    assert_eq!(code(Larder::open(at("text"))), "NotALarderFile");
    assert_eq!(code(Larder::open(at("empty"))), "NotALarderFile");
    assert_eq!(code(Larder::open(at("folder"))), "NotALarderFile");
    assert_eq!(code(Options::new().existing_only().open(at("none"))), "NoSuchFile");
    assert_eq!(code(Options::new().open_read_only(at("none"))), "NoSuchFile");
    assert!(!at("none").exists());
    assert_eq!(std::fs::read_to_string(at("text")).unwrap(), "not a store");
    larder.session("ana").unwrap().put("k", "x").unwrap();
    larder.close().unwrap();
    let bytes = std::fs::read(at("open.larder")).unwrap();
    std::fs::write(at("cut"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(code(Larder::open(at("cut"))), "Corrupt" | "NotALarderFile"));
    let names: BTreeSet<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn s1_8_many_namespaces_come_and_go() {
    let (larder, ana) = store();
    for round in 0..20 {
        ana.write(|txn| {
            for number in 0..500 {
                txn.put(format!("ns/{round}-{number}/x"), "x")?;
            }
            Ok(())
        })
        .unwrap();
        ana.delete_tree("ns").unwrap();
    }
    let statistics = larder.statistics().unwrap();
    assert_eq!(statistics.total.assets, 0);
    assert!(statistics.by_format.is_empty(), "{statistics:?}");
    assert!(ana.list("").unwrap().is_empty());
}

#[test]
fn s2_1_no_principal_is_needed_where_there_are_no_rules() {
    let larder = Options::new().open_in_memory().unwrap();
    larder.root().unwrap().put("k", "x").unwrap();
    assert_eq!(larder.session("anybody").unwrap().get("k").unwrap().bytes().unwrap(), "x");
}

#[test]
fn s2_2_a_validator_refuses_the_whole_batch() {
    let validator = |_: &larder::Key, _: &larder::Record, head: &[u8]| {
        if head.windows(15).any(|window| window == b"169.254.169.254") {
            return Err(Objection { field: "params.url".into(), what: "a link-local address".into() });
        }
        Ok(())
    };
    let larder =
        Options::new().validator("actions/**", Arc::new(validator)).unwrap().open_in_memory().unwrap();
    let ana = larder.session("ana").unwrap();
    let edits = [
        Edit::put("actions/1.json", "{}"),
        Edit::put("actions/2.json", r#"{"url":"http://169.254.169.254"}"#),
    ];
    let error = ana.batch(edits, BatchMode::Atomic).unwrap_err();
    assert!(
        matches!(error.items()[0].1.kind(), ErrorKind::Validation { field, .. } if field == "params.url")
    );
    assert_eq!(larder.statistics().unwrap().total.assets, 0);
    ana.put("elsewhere.json", r#"{"url":"http://169.254.169.254"}"#).unwrap();
}

#[test]
fn s2_3_pages_have_no_gap_and_no_double_while_rows_come_in() {
    let (_larder, ana) = store();
    for number in 0..120 {
        ana.put(format!("p/{number:03}"), "x").unwrap();
    }
    let mut request = PageRequest::new().size(20);
    let mut seen = Vec::new();
    for page in 0.. {
        let got = ana.page("p", &request).unwrap();
        seen.extend(got.assets.iter().map(|(key, _)| key.name().to_owned()));
        if page == 2 {
            for number in 0..10 {
                ana.put(format!("p/{:03}x", number * 3), "x").unwrap();
            }
        }
        match got.next {
            Some(cursor) => request = PageRequest::new().size(20).after(cursor),
            None => break,
        }
    }
    let expected: Vec<String> = (0..120).map(|number| format!("{number:03}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(ana.page("p", &PageRequest::new().size(0)).unwrap().assets.len(), 50);
    assert_eq!(ana.page("p", &PageRequest::new().size(1_000)).unwrap().assets.len(), 100);
    assert!(ana.page("p", &PageRequest::new().number(1_000_000_000_000)).unwrap().assets.is_empty());
    assert_eq!(ana.page("p", &PageRequest::new().size(100).number(1)).unwrap().assets.len(), 30);
}

#[test]
fn s2_12_a_writer_that_waits_too_long_is_told_and_readers_never_wait() {
    let (larder, ana) = store();
    ana.put("k", "x").unwrap();
    let (entered_in, entered) = std::sync::mpsc::channel();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let holder = larder.session("holder").unwrap();
    let thread = std::thread::spawn(move || {
        holder.write(|txn| {
            entered_in.send(()).unwrap();
            left.recv().unwrap();
            txn.put("held", "x")
        })
    });
    entered.recv().unwrap();
    let error = ana.clone().wait_max(Duration::from_millis(50)).put("k", "y").unwrap_err();
    let ErrorKind::Busy { by, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(by, "holder");
    assert!(error.is_retryable());
    for _ in 0..1_000 {
        assert_eq!(ana.get("k").unwrap().bytes().unwrap(), "x");
    }
    leave.send(()).unwrap();
    thread.join().unwrap().unwrap();
    ana.put("k", "y").unwrap();
}

#[test]
fn s2_6_s2_18_every_kind_has_a_code_of_its_own_and_its_operands_in_its_text() {
    let text = |text: &str| text.to_owned();
    let kinds: Vec<(ErrorKind, Vec<&str>)> = vec![
        (ErrorKind::InvalidKey { what: text("w1") }, vec!["w1"]),
        (ErrorKind::InvalidName { field: "principal", what: text("w2") }, vec!["principal", "w2"]),
        (ErrorKind::InvalidTag { tag: text("t3"), what: text("w3") }, vec!["t3", "w3"]),
        (ErrorKind::InvalidDocument { document: text("d4"), what: text("w4") }, vec!["d4", "w4"]),
        (
            ErrorKind::InvalidArgument { argument: "a5", expected: text("e5"), got: text("g5") },
            vec!["a5", "e5", "g5"],
        ),
        (ErrorKind::NotFound, vec![]),
        (ErrorKind::PayloadUnavailable { reason: AbsentReason::Evicted }, vec!["evicted"]),
        (ErrorKind::AlreadyExists, vec![]),
        (ErrorKind::NotEmpty { below: 17 }, vec!["17"]),
        (ErrorKind::IsADirectory, vec![]),
        (
            ErrorKind::AccessDenied { principal: text("p"), right: text("write"), by: text("b8") },
            vec!["p", "write", "b8"],
        ),
        (
            ErrorKind::BinaryTooLarge { size: 1_000_001, limit: 1_000_000, by: text("l9") },
            vec!["1000001", "l9"],
        ),
        (ErrorKind::MetadataTooLarge { size: 71, limit: 70 }, vec!["71", "70"]),
        (ErrorKind::TooManyTags { count: 65, limit: 64 }, vec!["65", "64"]),
        (ErrorKind::TransactionTooLarge { size: 81, limit: 80 }, vec!["81", "80"]),
        (ErrorKind::BatchTooLarge { what: "edits", size: 91, limit: 90 }, vec!["edits", "91", "90"]),
        (ErrorKind::MissingField { field: text("f10") }, vec!["f10"]),
        (
            ErrorKind::Inconsistent { field: text("f11"), expected: text("e11"), got: text("g11") },
            vec!["f11", "e11", "g11"],
        ),
        (ErrorKind::UnknownFormat { data_format: text("xyz") }, vec!["xyz"]),
        (ErrorKind::Validation { field: text("f12"), what: text("w12") }, vec!["f12", "w12"]),
        (ErrorKind::TypeMismatch { what: text("w13") }, vec!["w13"]),
        (ErrorKind::PreconditionFailed { expected: text("e14"), actual: text("a14") }, vec!["e14", "a14"]),
        (ErrorKind::Busy { held_ms: 123, by: text("b15") }, vec!["123", "b15"]),
        (ErrorKind::Nested, vec![]),
        (ErrorKind::ReaderExpired { age_ms: 61, age_ms_max: 60 }, vec!["61", "60"]),
        (ErrorKind::Aborted { what: text("w16") }, vec!["w16"]),
        (ErrorKind::Closed, vec![]),
        (ErrorKind::Locked { pid: Some(4_711) }, vec!["4711"]),
        (ErrorKind::NotALarderFile { found: text("f17") }, vec!["f17"]),
        (ErrorKind::UnsupportedVersion { found: 9, max: 1 }, vec!["9", "1"]),
        (ErrorKind::ReadOnly, vec![]),
        (ErrorKind::Corrupt { what: text("w18") }, vec!["w18"]),
        (
            ErrorKind::StoreFull { doing: text("d19"), used: 7, limit: 9, pinned: 3, reserve: 5 },
            vec!["d19", "7 B", "9 B", "3 B", "5 B"],
        ),
        (ErrorKind::OutcomeUnknown { commit: 42 }, vec!["42"]),
        (ErrorKind::Poisoned { by: text("b20") }, vec!["b20"]),
        (ErrorKind::Source { after: 512 }, vec!["512"]),
        (ErrorKind::Lagged { wanted: 3, first: 7 }, vec!["3", "7"]),
    ];
    let codes: BTreeSet<u16> = kinds.iter().map(|(kind, _)| kind.code()).collect();
    assert_eq!(codes.len(), kinds.len());
    for (kind, operands) in &kinds {
        let shown = larder::Error::new(kind.clone()).to_string();
        for operand in operands {
            assert!(shown.contains(operand), "{shown:?} lacks {operand:?}");
        }
    }
}

#[test]
fn s2_22_a_batch_reports_every_error_with_its_place() {
    let (larder, ana) = store();
    limits(&larder, STRICT);
    let edits = || {
        [
            Edit::put("ok/1", "x"),
            Edit::put("bad//name", "x"),
            Edit::put("ok/2", "x"),
            Edit::put("k", Draft::from("x").data_format("xyz")),
            Edit::put("l", Draft::from("x").tag("")),
        ]
    };
    let error = ana.batch(edits(), BatchMode::Atomic).unwrap_err();
    let places: Vec<(usize, &str)> =
        error.items().iter().map(|(at, error)| (*at, error.kind().name())).collect();
    assert_eq!(places, [(1, "InvalidKey"), (3, "UnknownFormat"), (4, "InvalidTag")]);
    assert_eq!(larder.statistics().unwrap().total.assets, 0);
    let outcomes = ana.batch(edits(), BatchMode::PerItem).unwrap().value;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    assert_eq!(larder.statistics().unwrap().total.assets, 2);
}

#[test]
fn s2_30_a_slow_operation_is_reported_once_and_a_quick_one_is_not() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let larder = Options::new()
        .inline()
        .clock(clock.clone())
        .on_slow(Arc::new(move |slow| {
            assert_eq!((slow.operation, slow.micros), ("write", 150_000));
            counter.fetch_add(1, Ordering::SeqCst);
        }))
        .open_in_memory()
        .unwrap();
    let ana = larder.session("ana").unwrap();
    for (micros, expected) in [(50_000, 0), (150_000, 1), (0, 1)] {
        ana.write(|txn| {
            clock.advance(micros);
            txn.put("k", "x")
        })
        .unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), expected);
    }
}

/// S3-1a. For each of 1 000 keys that 16 threads put something different under, one is told that it was the first, 15 are told which
/// one is there, and what is there is what the first one put.
#[test]
fn s3_1_a_of_many_who_put_if_absent_one_wins() {
    const THREADS: usize = 16;
    const KEYS: usize = 1_000;
    let (larder, ana) = store();
    let winners: Vec<AtomicUsize> = (0..KEYS).map(|_| AtomicUsize::new(usize::MAX)).collect();
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ana, winners, refused) = (ana.clone(), &winners, &refused);
            scope.spawn(move || {
                for (key, winner) in winners.iter().enumerate() {
                    let edit = Edit::put(format!("k/{key}"), format!("thread {thread}")).if_absent();
                    match ana.apply(edit).unwrap().value {
                        Outcome::Created(_) => {
                            assert_eq!(winner.swap(thread, Ordering::SeqCst), usize::MAX, "one wins");
                        }
                        Outcome::Refused(refusal) => {
                            assert_eq!(refusal.actual.unwrap().generation, 1);
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), (THREADS - 1) * KEYS);
    for (key, winner) in winners.into_iter().enumerate() {
        let there = ana.get(format!("k/{key}")).unwrap().bytes().unwrap();
        assert_eq!(there, format!("thread {}", winner.into_inner()));
    }
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean() && report.records == KEYS as u64, "{report:?}");
}

#[test]
fn s3_1_d_an_overwrite_is_whole_and_old_views_keep_the_old_bytes() {
    let (larder, ana) = store();
    for size in [10, 3_000, 2_000_000] {
        let key = format!("k{size}");
        ana.put(key.as_str(), vec![1; size]).unwrap();
        let old = ana.snapshot().unwrap();
        let stored = ana.put(key.as_str(), vec![2; size]).unwrap().value;
        assert_eq!((stored.previous, stored.generation), (Some(1), 2));
        assert_eq!(ana.get(key.as_str()).unwrap().bytes().unwrap(), vec![2; size]);
        assert_eq!(old.get(key.as_str()).unwrap().bytes().unwrap(), vec![1; size]);
    }
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean() && report.records == 3, "{report:?}");
}

#[test]
fn s3_3_a_tag_policies() {
    let (larder, ana) = store();
    let tags = |ana: &Session| ana.record("k").unwrap().tags().map(str::to_owned).collect::<Vec<_>>();
    ana.put("k", Draft::from("x").tag("a").tag("b")).unwrap();
    ana.tag("k", ["b", "c"], TagPolicy::Union).unwrap();
    assert_eq!(tags(&ana), ["a", "b", "c"]);
    ana.tag("k", ["b", "d"], TagPolicy::Replace).unwrap();
    assert_eq!(tags(&ana), ["b", "d"]);
    let stored = ana.tag("k", ["d", "e"], TagPolicy::Keep).unwrap().value;
    assert_eq!(
        (tags(&ana), stored.tags_ignored),
        (vec!["b".to_owned(), "d".to_owned()], vec!["e".to_owned()])
    );
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean() && report.tags == 2, "{report:?}");
}

/// S3-3b, d and e. Of 100 threads that each add a tag to the same asset every one has added it, and the asset is found by each.
#[test]
fn s3_3_b_d_e_many_tags_their_limits_and_their_end() {
    let (larder, ana) = store();
    limits(&larder, "max_tags = 100\n");
    ana.put("k", "x").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..100 {
            let ana = ana.clone();
            scope.spawn(move || {
                ana.tag("k", [format!("t{thread}").as_str()], TagPolicy::Union).unwrap();
            });
        }
    });
    assert_eq!(ana.record("k").unwrap().tags().count(), 100);
    for thread in 0..100 {
        assert_eq!(ana.find_by_tag(&format!("t{thread}")).unwrap().len(), 1);
    }
    let error = ana.tag("k", ["one more"], TagPolicy::Union).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooManyTags { count: 101, limit: 100 }), "{error}");
    let long = "x".repeat(129);
    assert!(matches!(
        ana.tag("k", [long.as_str()], TagPolicy::Replace).unwrap_err().kind(),
        ErrorKind::InvalidTag { .. }
    ));
    ana.tag("k", [&long[..128]], TagPolicy::Replace).unwrap();
    ana.delete("k").unwrap();
    assert!(ana.find_by_tag(&long[..128]).unwrap().is_empty());
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean() && report.tags == 0);
}
