//! A crash at every step of a life: whatever was acknowledged is there, whatever follows from it too, and no fence is given
//! out twice.

use std::sync::Arc;
use std::time::Duration;

use larder::format::Retention;
use larder::{DocumentKind, Draft, Durability, Larder, LogKind, ManualClock, Options, Result, Status};
use larder_tests::{FaultyDisk, Image, Plan, verified};

const MINUTE: Duration = Duration::from_secs(60);
const LIMITS: &str = "[[history]]\non = \"kept/**\"\ngenerations = 2\n";

fn options(clock: &Arc<ManualClock>) -> Options {
    Options::new().inline().log_segment_bytes(256 << 10).cache_bytes(1 << 20).clock(Arc::clone(clock) as _)
}

/// What the application was told before the crash.
#[derive(Default)]
struct Told {
    /// How many steps were done.
    steps: usize,
    fences: Vec<u64>,
}

/// A life with everything in it. Every step is one commit, but for claims, which are lazy.
fn live(larder: &Larder, clock: &ManualClock, told: &mut Told) -> Result<()> {
    let ana = larder.session("ana")?;
    let lazy = ana.clone().durability(Durability::Lazy);
    let ready = |text: String| Draft::from(text).status(Status::Ready);
    larder.root()?.set_document(DocumentKind::Limits, LIMITS)?;
    for round in 0..3 {
        ana.put("in", format!("source {round}"))?;
        told.steps += 1;
        let claim = lazy.claim(format!("out/{round}")).in_group("two", 2).for_at_most(MINUTE)?;
        let fence = claim.detach();
        told.fences.push(fence);
        let claim = ana.resume_claim(format!("out/{round}"), fence)?;
        let made =
            ready(format!("made {round}")).with(|about| about.depends_on("in").expires(round * 7_000_000));
        let _ = claim.put(made)?;
        told.steps += 1;
        ana.log(format!("out/{round}"), LogKind::Info, "made")?;
        ana.put("kept/k", vec![round as u8; 9_000])?;
        told.steps += 1;
        told.fences.push(lazy.claim("open").for_at_most(Duration::from_millis(1))?.detach());
        clock.advance(5_000_000);
        let _ = larder.sweep(10)?;
        larder.flush()?;
        ana.rename(format!("out/{round}"), format!("moved/{round}"))?;
    }
    let _ = larder.retain(&Retention::within(9_100), false)?;
    ana.delete_tree("kept")?;
    larder.flush()?;
    told.steps += 1;
    Ok(())
}

fn check(image: Image, told: &Told, what: &str) {
    let clock = Arc::new(ManualClock::at(90_000_000));
    let disk = FaultyDisk::holding(image, Plan::default());
    let larder =
        disk.open(options(&clock), true).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    let report = larder.verify(&mut |_| {}).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.findings);
    let ana = larder.session("ana").unwrap();
    let steps = told.steps;
    if steps > 0 {
        let source = String::from_utf8(ana.get("in").unwrap().bytes().unwrap().to_vec()).unwrap();
        let round: usize = source.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(round >= (steps.min(9) - 1) / 3, "{what}: {steps} steps were done, {source:?} is there");
    }
    // What was made from a source that has changed is expired, in whatever state it was found.
    for round in 0..3 {
        for place in ["out", "moved"] {
            let Ok(lookup) = ana.get_loadable(format!("{place}/{round}")) else { continue };
            let is_of_now = ana.get("in").unwrap().bytes().unwrap() == format!("source {round}");
            assert!(lookup.hit().is_none() || is_of_now, "{what}: {place}/{round} is served");
        }
    }
    let fence = ana.claim("next").for_at_most(MINUTE).unwrap().fence();
    assert!(told.fences.iter().all(|told| *told < fence), "{what}: {fence} was given out before");
    verified(&larder);
}

#[test]
fn x_2_a_crash_at_every_operation_of_a_life_leaves_all_of_it_consistent() {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let disk = FaultyDisk::default();
    let larder = disk.open(options(&clock), true).unwrap();
    live(&larder, &clock, &mut Told::default()).unwrap();
    larder.close().unwrap();
    let operations = disk.operations();
    assert!(operations > 80, "{operations}");
    let mut checked = 0;
    for at in 0..operations {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let disk = FaultyDisk::holding(Image::default(), Plan { freeze_at: Some(at), ..Plan::default() });
        let mut told = Told::default();
        let Ok(larder) = disk.open(options(&clock), true) else { continue };
        // What the machine's end does to the rest does not matter.
        let _ = live(&larder, &clock, &mut told);
        let (durable, torn) = (disk.durable(), disk.torn(at));
        drop(larder);
        for (image, how) in [(durable, "what was synced"), (torn, "and some of the rest")] {
            check(image, &told, &format!("operation {at} of {operations}, {how}"));
            checked += 1;
        }
    }
    assert!(checked > operations, "{checked} images of {operations} operations");
}
