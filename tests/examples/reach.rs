//! The policy `reach` in a closed loop on this computer: how often it succeeds, and a picture of its ways.
//!
//! ```text
//! cargo run --release -p waft-tests --example reach -- MODEL.waft [EPISODES [PICTURE.svg]]
//! ```
//!
//! Twice: with discs as in the demonstrations, and with the clear ones among them, which the picture shows; each by how far the
//! discs are beside the straight way.

use std::ops::Range;
use std::process::ExitCode;

use waft::Model;
use waft_host::shipped;
use waft_tests::reach::{CLEAR, DEMONSTRATED, Episode, Rollout, picture, roll_out};

/// Distances of discs from the straight way, apart from rounding 0.06 to 0.2.
const BANDS: [Range<f32>; 4] = [0.0..0.09, 0.09..0.12, 0.12..0.15, 0.15..1.0];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, rest @ ..] = &arguments[..] else {
        eprintln!("usage: reach MODEL.waft [EPISODES [PICTURE.svg]]");
        return ExitCode::FAILURE;
    };
    let episodes: u64 = rest.first().and_then(|count| count.parse().ok()).unwrap_or(100);
    let bytes = shipped::read(model.as_ref()).expect("a model");
    let model = Model::from_bytes(bytes.as_slice()).expect("a model");
    for (discs, path) in [(DEMONSTRATED, None), (CLEAR, rest.get(1))] {
        let episode = |seed| Episode::draw(seed, &discs);
        let rollouts: Vec<Rollout> = (0..episodes).map(|seed| roll_out(&model, episode(seed), seed)).collect();
        let count = |rollouts: &[&Rollout]| rollouts.iter().filter(|rollout| rollout.succeeded).count();
        println!("{} of {episodes} episodes succeeded, {discs:?}", count(&rollouts.iter().collect::<Vec<_>>()));
        for band in BANDS {
            let inside: Vec<&Rollout> =
                rollouts.iter().filter(|rollout| band.contains(&rollout.episode.beside())).collect();
            if !inside.is_empty() {
                println!("    {} of {} with discs {band:?} beside the straight way", count(&inside), inside.len());
            }
        }
        if let Some(path) = path {
            std::fs::write(path, picture(&rollouts[..rollouts.len().min(18)], 6)).expect("the picture can be written");
        }
    }
    ExitCode::SUCCESS
}
