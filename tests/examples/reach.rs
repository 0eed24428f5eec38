//! The policy `reach` in a closed loop on this computer: how often it succeeds, and a picture of its ways.
//!
//! ```text
//! cargo run --release -p waft-tests --example reach -- MODEL.waft [EPISODES [PICTURE.svg]]
//! ```
//!
//! Twice: with discs that leave one side to take and room there, which the picture shows, and with all that the demonstrations have.

use std::process::ExitCode;

use waft::Model;
use waft_host::shipped;
use waft_tests::reach::{CLEAR, DEMONSTRATED, Episode, Rollout, picture, roll_out};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, rest @ ..] = &arguments[..] else {
        eprintln!("usage: reach MODEL.waft [EPISODES [PICTURE.svg]]");
        return ExitCode::FAILURE;
    };
    let episodes: u64 = rest.first().and_then(|count| count.parse().ok()).unwrap_or(100);
    let bytes = shipped::read(model.as_ref()).expect("a model");
    let model = Model::from_bytes(bytes.as_slice()).expect("a model");
    for (discs, path) in [(CLEAR, rest.get(1)), (DEMONSTRATED, None)] {
        let episode = |seed| Episode::draw(seed, &discs);
        let rollouts: Vec<Rollout> = (0..episodes).map(|seed| roll_out(&model, episode(seed), seed)).collect();
        let succeeded = rollouts.iter().filter(|rollout| rollout.succeeded).count();
        println!("{succeeded} of {episodes} episodes succeeded, {discs:?}");
        if let Some(path) = path {
            std::fs::write(path, picture(&rollouts[..rollouts.len().min(18)], 6)).expect("the picture can be written");
        }
    }
    ExitCode::SUCCESS
}
