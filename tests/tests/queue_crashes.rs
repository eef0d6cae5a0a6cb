//! Queues and a cache under crashes: what was acknowledged is gone, what was enqueued is in one place, and no delivery counts twice.

use larder_tests::{Crash, Deliveries, Loss};

#[test]
fn t45_x_2_no_message_is_lost_and_none_comes_back() {
    let (mut images, mut acknowledged, seeds) = (0, 0, if cfg!(debug_assertions) { 4 } else { 40 });
    for seed in 1..=seeds {
        let deliveries = Deliveries::run(seed).unwrap();
        acknowledged += deliveries.acknowledged();
        for at in 0..deliveries.points() {
            let loss = Loss::ALL[at % Loss::ALL.len()];
            deliveries.judge(&Crash { at, loss, seed }, at.is_multiple_of(50)).unwrap();
            images += 1;
        }
    }
    assert!(
        images > 200 && acknowledged > 2 * seeds as usize,
        "{images} images, {acknowledged} acknowledged"
    );
}
