//! The shipped policy in a closed loop: it succeeds, and as often in integers as in single precision.

use waft::Model;
use waft::format::Precision;
use waft_host::shipped;
use waft_tests::model;
use waft_tests::reach::{CLEAR, Episode, roll_out};

/// Episodes that each precision is given, the same.
const EPISODES: u64 = 400;

fn successes(model: &Model<'_>) -> u64 {
    let succeeds = |&seed: &u64| roll_out(model, Episode::draw(seed, &CLEAR), seed).succeeded;
    (0..EPISODES).filter(succeeds).count() as u64
}

#[test]
fn the_robot_reaches_its_goal_in_integers_too() {
    let [single, integers] = [Precision::F32, Precision::I8].map(|precision| {
        let bytes = shipped::find("reach", Some(precision), None, &()).expect("a shipped model");
        successes(&model(&bytes))
    });
    println!("{single} in f32, {integers} in i8 of {EPISODES}");
    // 95 % where this was measured; rounding differs a little between platforms.
    assert!(100 * single >= 94 * EPISODES, "{single} of {EPISODES}");
    assert!(100 * integers.abs_diff(single) <= EPISODES, "{integers} of {EPISODES}, in f32 {single}");
}
