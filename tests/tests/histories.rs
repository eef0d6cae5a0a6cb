//! T41: recorded histories of several threads, each explained by one order; and the checker, which must be able to say no.

use std::sync::Arc;

use larder::{Larder, ManualClock, Options};
use larder_tests::history::{
    Call, Change, Checked, Ended, Happened, History, Only, Program, Rule, Step, Told, Version, check,
    principal_of, record,
};
use larder_tests::{FaultyDisk, in_memory, still, verified};

/// Runs the programs of some seeds on stores that `open` makes, and checks what was seen.
fn explained(
    seeds: std::ops::Range<u64>,
    threads: usize,
    calls: usize,
    open: impl Fn() -> Larder,
) -> Checked {
    let mut sum = Checked::default();
    for seed in seeds {
        let larder = open();
        let history = record(&larder, &Program::new(seed, threads, calls));
        match check(&history) {
            Ok(checked) => sum += checked,
            Err(violation) => panic!("seed {seed}: {violation}\n{history}"),
        }
        if seed.is_multiple_of(16) {
            verified(&larder);
        }
    }
    sum
}

/// T41, in memory: nothing but what is in memory takes part.
#[test]
fn t41_one_order_explains_what_threads_see_in_memory() {
    let sum = explained(0..200, 4, 20, in_memory);
    assert!(sum.commits > 1_000 && sum.reads > 5_000 && sum.refusals > 1_000, "{sum:?}");
}

/// T41, with a log beside the store, in small segments, and without.
#[test]
fn t41_one_order_explains_what_threads_see_on_a_disk() {
    let options = || still().reserve_bytes(0).cache_bytes(1 << 20).log_segment_bytes(64 << 10);
    for with_log in [true, false] {
        explained(200..240, 4, 20, || {
            FaultyDisk::default().open(options(), with_log).expect("a store on a disk in memory")
        });
    }
}

/// T41, on a file, with the thread of the store, and more threads than there are processors.
#[test]
fn t41_one_order_explains_what_threads_see_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 300..310 {
        let path = folder.path().join(format!("{seed}.larder"));
        let open = || Options::new().cache_bytes(4 << 20).open(&path).unwrap();
        let larder = open();
        let history = record(&larder, &Program::new(seed, 8, 20));
        check(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}\n{history}"));
        larder.close().unwrap();
        let larder = open();
        let commits = history.feed.last().map_or(0, |event| event.commit);
        assert_eq!(larder.info().unwrap().last_commit.sequence, commits);
        assert_eq!(larder.statistics().unwrap().total.assets, history.end.len() as u64);
        verified(&larder);
    }
}

/// T41, without a cache of records: every read goes through the layers.
#[test]
fn t41_one_order_explains_what_threads_see_without_a_cache() {
    explained(400..450, 4, 20, || still().record_cache_bytes(0).open_in_memory().unwrap());
}

#[test]
fn programs_of_one_seed_are_the_same() {
    let text = |seed| format!("{:?}", Program::new(seed, 4, 20));
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
    // With one thread the machine has no say: the history is the same, too.
    let history = |seed| {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let larder = still().clock(clock).open_in_memory().unwrap();
        record(&larder, &Program::new(seed, 1, 40))
    };
    assert_eq!(history(7), history(7));
}

/// What a history is told of that was spoilt.
#[track_caller]
fn against(rule: Rule, words: &[&str], history: &History) {
    let violation = check(history).expect_err("this cannot be explained");
    let text = violation.to_string();
    assert_eq!(violation.rule, rule, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Two keys of one value each, put together three times by one thread, and read by another, call by call.
struct Written(History);

const A: &str = "a";
const B: &str = "b";

impl Written {
    fn new() -> Self {
        let larder = in_memory();
        let mut history = record(&larder, &Program::new(0, 1, 0));
        assert_eq!(check(&history), Ok(Checked { histories: 1, ..Checked::default() }));
        let mut ticks = 0;
        let mut call = |thread, ended, steps| {
            ticks += 2;
            history.calls.push(Call { thread, called: ticks, answered: ticks + 1, ended, steps });
        };
        let put = |key, value, generation: u64| {
            let previous = (generation > 1).then_some(generation - 1);
            Step::Change(Change::Put(key, value, Only::Always), Told::Stored { generation, previous })
        };
        let version = |value, generation| Some(Version { value, generation, commit: generation });
        for commit in 1..=3 {
            let (a, b) = (commit * 10, commit * 10 + 1);
            let read = Step::Read(A, (commit > 1).then(|| version(a - 10, commit - 1)).flatten());
            call(0, Ended::Committed(commit), vec![read, put(A, a, commit), put(B, b, commit)]);
            let both = vec![Step::Read(A, version(a, commit)), Step::Read(B, version(b, commit))];
            call(1, Ended::View(commit), both);
            call(1, Ended::Unplaced, vec![Step::Read(B, version(b, commit))]);
            let refused = Step::Change(Change::Put(A, 7, Only::IfAbsent), Told::Refused(Some(commit)));
            call(1, Ended::Unchanged(commit), vec![refused]);
            let taken = Step::Change(Change::Rename(A, B, Only::Always), Told::AlreadyExists);
            call(1, Ended::Unplaced, vec![taken]);
        }
        let events = (1..=3).flat_map(|commit| [A, B].map(|key| (commit, key)));
        history.feed = events
            .map(|(commit, key)| Happened {
                commit,
                kind: larder::EventKind::Put,
                place: key.to_owned(),
                from: None,
                old_generation: (commit > 1).then(|| commit - 1),
                new_generation: Some(commit),
                principal: principal_of(0),
            })
            .collect();
        history.notices = history.feed.clone();
        let end = [(A, version(30, 3)), (B, version(31, 3))];
        history.end = end.into_iter().map(|(key, version)| (key.to_owned(), version.unwrap())).collect();
        let checked = Checked { histories: 1, calls: 15, overlapping: 0, commits: 3, reads: 12, refusals: 6 };
        assert_eq!(check(&history), Ok(checked));
        Self(history)
    }

    /// The history, with one thing that is not as it was.
    fn but(spoil: impl FnOnce(&mut History)) -> History {
        let Self(mut history) = Self::new();
        spoil(&mut history);
        history
    }
}

/// Where the calls are that follow a commit.
const VIEW: usize = 1;
const GET: usize = 2;
const REFUSED: usize = 3;
const TAKEN: usize = 4;

fn call_of(commit: usize, which: usize) -> usize {
    (commit - 1) * 5 + which
}

#[test]
fn commits_whose_numbers_are_swapped_doubled_or_missing_are_found() {
    let swapped = Written::but(|history| {
        // Without what the transactions read, which gives it away, too.
        history.calls.retain(|call| call.thread == 0);
        history.calls.iter_mut().for_each(|call| call.steps.clear());
        history.calls[1].ended = Ended::Committed(3);
        history.calls[2].ended = Ended::Committed(2);
        history.calls.iter_mut().for_each(|call| {
            let told = Told::Stored { generation: 1, previous: None };
            let key = ["c", "d", "e"][(call.called / 10) as usize % 3];
            call.steps.push(Step::Change(Change::Put(key, call.called, Only::Always), told));
        });
    });
    against(Rule::Time, &["commit 2", "comes before it", "commit 3"], &swapped);
    let as_read = Written::but(|history| {
        history.calls[call_of(2, 0)].ended = Ended::Committed(3);
        history.calls[call_of(3, 0)].ended = Ended::Committed(2);
    });
    against(Rule::Transaction, &["a read of \"a\"", "value 20", "value 10"], &as_read);
    let doubled = Written::but(|history| history.calls[call_of(3, 0)].ended = Ended::Committed(2));
    against(Rule::Numbers, &["two commits have the number 2"], &doubled);
    let missing = Written::but(|history| history.calls[call_of(3, 0)].ended = Ended::Committed(4));
    against(Rule::Numbers, &["nobody was told of commit 3"], &missing);
    let beyond = Written::but(|history| history.calls[call_of(3, VIEW)].ended = Ended::View(9));
    against(Rule::Numbers, &["a view of commit 9", "nobody made"], &beyond);
}

#[test]
fn a_stale_read_is_found_in_a_transaction_and_alone() {
    let stale =
        |step: &mut Step| *step = Step::Read(A, Some(Version { value: 10, generation: 1, commit: 1 }));
    let history = Written::but(|history| stale(&mut history.calls[call_of(3, 0)].steps[0]));
    against(Rule::Transaction, &["value 10", "after commit 2", "value 20"], &history);
    let history = Written::but(|history| stale(&mut history.calls[call_of(3, GET)].steps[0]));
    against(Rule::Read, &["value 10", "no commit from 3 to 3"], &history);
    // What was answered while the commit was under way may be of before it, or after it.
    let early = Written::but(|history| {
        let (commit, get) = (call_of(3, 0), call_of(3, GET));
        history.calls[get].called = history.calls[commit].called - 1;
        history.calls.remove(call_of(2, TAKEN));
        history.calls.remove(call_of(3, VIEW) - 1);
        stale(&mut history.calls[get - 2].steps[0]);
    });
    against(Rule::Read, &["no commit from 2 to 3"], &early);
}

#[test]
fn a_read_of_what_is_not_begun_is_found() {
    let history = Written::but(|history| {
        let later = Some(Version { value: 31, generation: 3, commit: 3 });
        history.calls[call_of(2, GET)].steps[0] = Step::Read(B, later);
    });
    against(Rule::Read, &["value 31", "no commit from 2 to 2"], &history);
    let history = Written::but(|history| {
        let later = history.calls[call_of(3, VIEW)].clone();
        let view = &mut history.calls[call_of(2, VIEW)];
        (view.ended, view.steps) = (later.ended, later.steps);
        history.calls.truncate(call_of(3, GET));
        history.calls.drain(call_of(2, GET)..call_of(3, 0));
    });
    against(Rule::Time, &["commit 3", "a view of commit 3", "comes before it"], &history);
}

#[test]
fn a_view_that_is_torn_late_or_goes_back_is_found() {
    let torn = Written::but(|history| {
        let before = history.calls[call_of(2, VIEW)].steps[1].clone();
        history.calls[call_of(3, VIEW)].steps[1] = before;
    });
    against(Rule::View, &["a view of commit 3", "a read of \"b\"", "value 21", "value 31"], &torn);
    let behind = Written::but(|history| {
        let before = history.calls[call_of(2, VIEW)].clone();
        let view = &mut history.calls[call_of(3, VIEW)];
        (view.ended, view.steps) = (before.ended, before.steps);
    });
    against(Rule::Time, &["a view of commit 2", "commit 3"], &behind);
    let back = Written::but(|history| {
        // Of two views of one thread, while the third commit is under way, the second is of before.
        let last = history.calls[call_of(3, REFUSED)].answered;
        history.calls[call_of(3, 0)].answered = last + 100;
        history.calls.truncate(call_of(3, GET));
        let mut again = history.calls[call_of(2, VIEW)].clone();
        (again.called, again.answered) = (last + 1, last + 2);
        history.calls.push(again);
    });
    against(Rule::Time, &["thread 1", "a view of commit 2", "a view of commit 3"], &back);
    let walked = Written::but(|history| {
        history.calls[call_of(3, VIEW)].steps.push(Step::Walk("", vec![(A.to_owned(), 3, 3)]));
    });
    against(Rule::View, &["a walk below \"\"", "(\"b\", 3, 3)"], &walked);
}

#[test]
fn a_lost_write_is_found() {
    // Everybody agrees that the second commit put nothing under b: but for who was told that it did.
    let lost = Written::but(|history| {
        history.calls.truncate(call_of(2, VIEW));
        history.feed.truncate(4);
        history.notices.truncate(4);
        let end = [(A, 20, 2), (B, 11, 1)];
        history.end = end
            .map(|(key, value, commit)| (key.to_owned(), Version { value, generation: commit, commit }))
            .into();
    });
    against(Rule::End, &["value: 11", "value: 21"], &lost);
    let by_the_next = Written::but(|history| {
        let told = Told::Stored { generation: 2, previous: Some(1) };
        let put = Change::Put(B, 31, Only::Always);
        history.calls[call_of(3, 0)].steps[2] = Step::Change(put, told);
    });
    against(Rule::Transaction, &["generation: 2", "after commit 2", "generation: 3"], &by_the_next);
}

#[test]
fn a_refusal_that_should_not_have_been_is_found() {
    let refused = Written::but(|history| {
        let condition = Change::Put(A, 7, Only::IfGeneration(2));
        history.calls[call_of(2, REFUSED)].steps[0] = Step::Change(condition, Told::Refused(Some(1)));
    });
    against(Rule::Refusal, &["IfGeneration(2)", "Refused(Some(1))", "that it is done"], &refused);
    let admitted = Written::but(|history| {
        let put = Change::Put(A, 20, Only::IfAbsent);
        let told = Told::Stored { generation: 2, previous: Some(1) };
        history.calls[call_of(2, 0)].steps[1] = Step::Change(put, told);
    });
    against(Rule::Transaction, &["IfAbsent", "Refused(Some(1))"], &admitted);
    let taken = Written::but(|history| {
        let rename = Change::Rename(A, "c", Only::Always);
        history.calls[call_of(2, TAKEN)].steps[0] = Step::Change(rename, Told::AlreadyExists);
    });
    against(Rule::Refusal, &["AlreadyExists", "no commit from 2 to 2"], &taken);
}

#[test]
fn a_feed_that_is_not_that_of_the_commits_is_found() {
    let lost = Written::but(|history| drop(history.feed.pop()));
    against(Rule::Feed, &["the feed does not have", "commit: 3"], &lost);
    let swapped = Written::but(|history| history.feed.swap(1, 2));
    against(Rule::Feed, &["the feed has"], &swapped);
    let twice = Written::but(|history| {
        let last = history.notices[5].clone();
        history.notices.push(last);
    });
    against(Rule::Feed, &["the subscriber", "did not happen"], &twice);
    let another = Written::but(|history| history.feed[0].principal = "eve".to_owned());
    against(Rule::Feed, &["eve", "thread-0"], &another);
}

/// Whatever is changed in a recorded history of what somebody was told, it does not go unnoticed.
#[test]
fn nothing_that_was_recorded_can_be_changed_unnoticed() {
    let mut spoilt = 0;
    for seed in 0..10 {
        let history = record(&in_memory(), &Program::new(seed, 3, 12));
        check(&history).unwrap();
        for call in 0..history.calls.len() {
            for step in 0..history.calls[call].steps.len() {
                let mut other = history.clone();
                match &mut other.calls[call].steps[step] {
                    Step::Read(_, Some(version)) => version.value += 1_000_000,
                    Step::Read(_, nothing) => {
                        *nothing = Some(Version { value: 1_000_000, generation: 1, commit: 1 });
                    }
                    Step::Walk(_, found) => found.push(("nowhere".to_owned(), 1, 1)),
                    Step::Change(_, told) => {
                        *told = match told {
                            Told::Stored { .. } => Told::NotFound,
                            _ => Told::Stored { generation: 1_000_000, previous: None },
                        }
                    }
                }
                assert!(check(&other).is_err(), "seed {seed}: {:?}", other.calls[call]);
                spoilt += 1;
            }
            let mut other = history.clone();
            let number = &mut other.calls[call].ended;
            *number = match *number {
                Ended::Committed(number) => Ended::Committed(number + 1),
                Ended::Submitted(number) => Ended::Submitted(number + 1),
                _ => continue,
            };
            assert!(check(&other).is_err(), "seed {seed}: {:?}", other.calls[call]);
            spoilt += 1;
        }
    }
    assert!(spoilt > 300, "{spoilt}");
}
