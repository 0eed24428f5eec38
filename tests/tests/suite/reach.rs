//! The shipped policy in a closed loop: how often it succeeds, and that it does as often in integers as in single precision.

use waft::Model;
use waft::format::Precision;
use waft_host::shipped;
use waft_tests::model;
use waft_tests::reach::{CLEAR, DEMONSTRATED, Discs, Episode, roll_out};

/// Episodes that each precision is given, the same.
const EPISODES: u64 = 400;

fn successes(model: &Model<'_>, discs: &Discs) -> u64 {
    let succeeds = |&seed: &u64| roll_out(model, Episode::draw(seed, discs), seed).succeeded;
    (0..EPISODES).filter(succeeds).count() as u64
}

#[test]
fn the_robot_reaches_its_goal_in_integers_as_often() {
    let files = [Precision::F32, Precision::I8]
        .map(|precision| shipped::find("reach", Some(precision), None, &()).expect("a shipped model"));
    let models = files.each_ref().map(|bytes| model(bytes));
    // In per cent, some points below what the card says: rounding differs a little between platforms.
    for (discs, least) in [(DEMONSTRATED, 97), (CLEAR, 97)] {
        let [single, integers] = models.each_ref().map(|model| successes(model, &discs));
        println!("{single} in f32, {integers} in i8 of {EPISODES}, {discs:?}");
        assert!(100 * single >= least * EPISODES, "{single} of {EPISODES}, {discs:?}");
        assert!(100 * integers.abs_diff(single) <= EPISODES, "{integers} of {EPISODES}, in f32 {single}, {discs:?}");
    }
}
