//! A call to the disk that fails, anywhere in two hundred commits: a sample of what the crash lab does in full.

use larder_tests::{Call, Fault, LongRun, Survived};

/// Of so many faults one is tried here.
const ONE_IN: usize = 181;

#[test]
fn t06_t07_t08_a_call_that_fails_anywhere_loses_nothing_and_invents_nothing() {
    let run = LongRun::new();
    let tried: Vec<(Fault, Survived)> = run
        .faults()
        .into_iter()
        .step_by(ONE_IN)
        .map(|fault| (fault, run.with(fault).unwrap_or_else(|what| panic!("{fault:?}: {what}"))))
        .collect();
    let count = |is: fn(&(Fault, Survived)) -> bool| tried.iter().filter(|one| is(one)).count();
    let calls = [
        count(|(fault, _)| fault.call == Call::Read),
        count(|(fault, _)| fault.call == Call::Write),
        count(|(fault, _)| fault.call == Call::Sync),
    ];
    let unknown = count(|(_, survived)| survived.is_unknown);
    let went_on = count(|(_, survived)| survived.went_on);
    println!("reads, writes, syncs: {calls:?}; {unknown} unknown, {went_on} went on");
    assert!(calls.iter().all(|count| *count > 1), "{calls:?}");
    // The run is the same every time: all of them happen.
    assert_eq!(count(|(_, survived)| survived.is_hit), tried.len());
    assert!(unknown > 0 && went_on > 0, "{unknown} unknown, {went_on} went on");
}
