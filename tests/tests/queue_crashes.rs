//! The queue under crashes: what was acknowledged is gone, what was enqueued is there, and no delivery counts twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use larder::{Clock, Larder, ManualClock, Options};
use larder_layers::queue::{Message, MessageState, Nack, QueueSettings, Queues, Requeued};
use larder_tests::{Crash, FaultyDisk, Loss, Plan, Random, Trace, still, verified};

/// What is known of a message: by steps of the disk, when it was there for good, and when it was gone.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    asked: usize,
    is_in: Option<usize>,
    leaving: Option<usize>,
    is_out: Option<usize>,
}

fn options(clock: &Arc<ManualClock>) -> Options {
    still().clock(Arc::clone(clock) as Arc<dyn Clock>).cache_bytes(1 << 20).reserve_bytes(0)
}

/// Runs a program over a queue on a disk that remembers.
fn run(seed: u64) -> (Trace, BTreeMap<u64, Known>) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let queue = Queues::at("queues").unwrap().queue("q").unwrap();
    let fresh = FaultyDisk::default();
    let larder = fresh.open(options(&clock), true).unwrap();
    let settings = QueueSettings::new().visibility(Duration::from_millis(2)).attempts_max(3);
    let _ = larder.session("ana").unwrap().try_write(|txn| queue.create(txn, &settings)).unwrap();
    larder.close().unwrap();
    let base = [fresh.store(), Vec::new()];
    let disk = FaultyDisk::holding(base.clone(), Plan { is_recorded: true, ..Plan::default() });
    let larder = disk.open(options(&clock), true).unwrap();
    let ana = larder.session("ana").unwrap();
    let (mut random, mut known, mut held) = (Random::new(seed), BTreeMap::<u64, Known>::new(), Vec::new());
    for _ in 0..60 {
        let before = disk.step_count();
        match random.below(6) {
            0..=2 => {
                let length = if random.percent(20) { 4_000 } else { random.below(60) };
                let put = ana.try_write(|txn| queue.enqueue(txn, Message::new(vec![b'm'; length]))).unwrap();
                let now = Known { asked: before, is_in: Some(disk.step_count()), ..Known::default() };
                known.insert(put.value.id(), now);
            }
            3 => {
                let taken = ana.try_write(|txn| queue.dequeue_up_to(txn, 2, None)).unwrap().value;
                held.extend(taken.iter().map(|message| message.token()));
            }
            4 if !held.is_empty() => {
                let token = held.swap_remove(random.below(held.len()));
                if ana.try_write(|txn| queue.ack(txn, token)).is_ok() {
                    let message = known.get_mut(&token.message).unwrap();
                    assert!(message.is_out.is_none(), "nobody acknowledges twice");
                    (message.leaving, message.is_out) = (Some(before), Some(disk.step_count()));
                }
            }
            5 if !held.is_empty() => {
                let token = held.swap_remove(random.below(held.len()));
                let back = ana.try_write(|txn| queue.nack(txn, token, &Nack::new()));
                assert!(back.is_err() || matches!(back.unwrap().value, Requeued::Ready | Requeued::Dead));
            }
            _ => clock.advance(random.below(1_500) as i64),
        }
    }
    drop(ana);
    drop(larder);
    (Trace { base, steps: disk.take_steps() }, known)
}

fn ids(larder: &Larder) -> Vec<u64> {
    let ana = larder.session("ana").unwrap();
    let queue = Queues::at("queues").unwrap().queue("q").unwrap();
    let view = ana.snapshot().unwrap();
    let states = [MessageState::Ready, MessageState::Delayed, MessageState::InFlight, MessageState::Dead];
    let mut ids = Vec::new();
    for state in states {
        ids.extend(queue.peek(&view, state, 10_000).unwrap().iter().map(|message| message.id));
    }
    let stats = queue.stats(&view).unwrap();
    assert_eq!(stats.enqueued, stats.acked + ids.len() as u64, "the totals are of the same commit");
    ids
}

#[test]
fn t45_x_2_no_message_is_lost_and_none_comes_back() {
    let (mut images, seeds) = (0, if cfg!(debug_assertions) { 2 } else { 40 });
    for seed in 1..=seeds {
        let (trace, known) = run(seed);
        for at in 0..=trace.steps.len() {
            let loss = Loss::ALL[at % Loss::ALL.len()];
            let disk = FaultyDisk::holding(trace.image(&Crash { at, loss, seed }), Plan::default());
            let larder = disk.open(options(&Arc::new(ManualClock::at(1_000_000))), true).unwrap();
            let ids = ids(&larder);
            for (id, known) in &known {
                let is_there = ids.contains(id);
                let place = format!("message {id} {known:?}, crash of seed {seed} at {at} with {loss:?}");
                assert!(
                    is_there
                        || known.is_in.is_none_or(|done| done > at)
                        || known.leaving.is_some_and(|asked| asked < at),
                    "lost: {place}"
                );
                assert!(!is_there || known.is_out.is_none_or(|done| done > at), "came back: {place}");
                assert!(!is_there || known.asked < at, "out of nowhere: {place}");
            }
            if at % 50 == 0 {
                verified(&larder);
            }
            images += 1;
        }
    }
    assert!(images > 200, "{images}");
}
