//! The shipped digits model: what its pictures are worth, in every precision.

use waft::format::Precision;
use waft::{Guidance, Model, Request, Session};
use waft_host::sample::{AlignedBytes, Batch, Picture, arena, digest, draw};
use waft_host::shipped::find;
use waft_tests::classifier::Classifier;
use waft_tests::psnr;

fn shipped(precision: Precision) -> AlignedBytes {
    find("digits", Some(precision), None, &()).expect("shipped")
}

fn classes(count: usize) -> Vec<u16> {
    (0..count).map(|i| (i % 10) as u16).collect()
}

fn pictures(bytes: &AlignedBytes, count: usize, steps: u32, guidance: Guidance) -> Vec<Picture> {
    let model = Model::from_bytes(bytes.as_slice()).expect("a model");
    let request = Request::new().steps(steps).guidance(guidance);
    let batch = Batch { request, seed: 10_000, classes: classes(count), count, ..Batch::default() };
    draw(&model, &batch, &()).expect("draws")
}

fn accuracy(pictures: &[Picture]) -> f64 {
    let classifier = Classifier::digits();
    let right =
        pictures.iter().zip(classes(pictures.len())).filter(|(p, c)| classifier.classify(&p.bytes) == usize::from(*c));
    right.count() as f64 / pictures.len() as f64
}

#[test]
fn single_precision_draws_what_it_is_asked_for() {
    let pictures = pictures(&shipped(Precision::F32), 1000, 10, Guidance::NONE);
    let accuracy = accuracy(&pictures);
    println!("f32, 10 steps, guidance 1: {accuracy}");
    assert!(accuracy >= 0.99, "{accuracy}");
}

#[test]
fn guidance_is_usable_at_many_steps() {
    for precision in [Precision::F32, Precision::I8] {
        for steps in [20, 50] {
            let pictures = pictures(&shipped(precision), 200, steps, Guidance::from_ratio(2, 1));
            let accuracy = accuracy(&pictures);
            println!("{precision:?}, {steps} steps, guidance 2: {accuracy}");
            assert!(accuracy >= 0.98, "{precision:?}, {steps} steps: {accuracy}");
        }
    }
}

#[test]
fn integers_draw_the_same_pictures() {
    let reference = pictures(&shipped(Precision::F32), 500, 10, Guidance::NONE);
    for (precision, least) in [(Precision::I8, 34.0), (Precision::F16, 50.0)] {
        let found = pictures(&shipped(precision), 500, 10, Guidance::NONE);
        let clamp = |p: &Picture| p.sample.iter().map(|v| v.clamp(-1.0, 1.0)).collect::<Vec<_>>();
        let mut ratios: Vec<f64> = found.iter().zip(&reference).map(|(a, b)| psnr(&clamp(a), &clamp(b))).collect();
        ratios.sort_by(f64::total_cmp);
        let median = (ratios[249] + ratios[250]) / 2.0;
        let (ours, theirs) = (accuracy(&found), accuracy(&reference));
        println!(
            "{precision:?}: median PSNR {median:.2} dB, lowest {:.2}, accuracy {ours} against {theirs}",
            ratios[0]
        );
        assert!(median >= least, "{precision:?}: median PSNR {median:.2} dB");
        assert!((ours - theirs).abs() <= 0.005, "{precision:?}: accuracy {ours} against {theirs}");
    }
}

/// The digest that `cargo xtask sample --model digits --class 7 --seed 1 --steps 10 --count 16 --json` prints. It comes
/// from the portable code on x86-64, and is what every target and kernel must give.
#[test]
fn the_picture_is_the_same_everywhere() {
    let bytes = shipped(Precision::I8);
    let model = Model::from_bytes(bytes.as_slice()).expect("a model");
    let request = Request::new().class(7).steps(10);
    let batch = Batch { request, seed: 1, count: 16, ..Batch::default() };
    let pictures = draw(&model, &batch, &()).expect("draws");
    assert_eq!(digest(pictures.iter().map(|p| p.bytes.as_slice())), DIGEST);
}

const DIGEST: &str = "7e8f7135e827196ee92d406255a68de9049668e94db95259a9832819d255d125";

#[test]
fn a_dropped_run_leaves_nothing_behind() {
    let bytes = shipped(Precision::I8);
    let model = Model::from_bytes(bytes.as_slice()).expect("a model");
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    let request = Request::new().class(3).seed(8).steps(10);
    let draw = |session: &mut Session<'_>| {
        let mut run = session.sample(request).expect("valid");
        let total = run.progress().slices;
        let mut last = 0;
        while let Some(progress) = run.step().expect("runs") {
            assert_eq!(progress.slice, last + 1, "each step is one slice");
            assert!(progress.step <= progress.steps && progress.slice <= total);
            assert!(run.image().is_none() || progress.slice == total, "no picture before the end");
            last = progress.slice;
        }
        assert_eq!(last, total, "the announced work is the work done");
        assert_eq!(run.step().expect("runs"), None, "a complete run stays complete");
        run.image().expect("complete").data().to_vec()
    };
    let first = draw(&mut session);
    for abandoned in [1, 50, 700] {
        {
            let mut run = session.sample(request.class(9)).expect("valid");
            for _ in 0..abandoned {
                run.step().expect("runs");
            }
        }
        assert_eq!(draw(&mut session), first);
    }
}
