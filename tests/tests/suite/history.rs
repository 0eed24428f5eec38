//! Samplers that look back: what the device does with the clean samples of earlier steps, against the steps themselves.

use waft::format::Precision;
use waft::{Model, Request, Session};
use waft_host::checkpoint::Checkpoint;
use waft_host::export::ExportOptions;
use waft_host::fixed::to_floats;
use waft_host::gpu::host::Host;
use waft_host::parity::images;
use waft_host::sample::{Batch, arena, draw, finish, set_input};
use waft_host::schedule::{MAX_HISTORY, Solver, history};
use waft_tests::{digits, exported, model};

const TIMESTEPS: [i64; 6] = [900, 720, 540, 360, 180, 20];

fn options(precision: Precision, solver: Solver) -> ExportOptions {
    ExportOptions {
        precision,
        solver: Some(solver),
        timesteps: vec![TIMESTEPS.to_vec()],
        calibration_images: 2,
        ..Default::default()
    }
}

/// One network call at a step, on a sample.
fn predict(model: &Model<'_>, step: u32, class: u16, x: &[f32]) -> Vec<f64> {
    let mut memory = arena(model);
    let mut session = Session::new(model, memory.as_mut_slice()).expect("fits");
    set_input(&mut session, x).expect("an input");
    let mut call = session.predict(0, step, Some(class)).expect("a step");
    while call.step().expect("runs") {}
    to_floats(call.output()).into_iter().map(f64::from).collect()
}

/// The device's own model outputs, moved on by the steps in double precision, are the device's samples: what integers lose, they
/// lose in the network.
#[test]
fn clean_samples_of_earlier_steps_are_kept() {
    let checkpoint = Checkpoint::open(digits()).expect("opens");
    for (solver, length) in [(Solver::DpmSolver, 1), (Solver::Heun, 1), (Solver::UniPc, 2)] {
        let steps = solver.steps_at(checkpoint.scheduler().expect("found"), &TIMESTEPS).expect("steps");
        assert_eq!(history(&steps), length);
        for (precision, bound) in [(Precision::F32, 1e-5), (Precision::F16, 1e-5), (Precision::I8, 1e-5)] {
            let export = exported(&digits(), &options(precision, solver));
            let model = model(&export.bytes);
            let mut memory = arena(&model);
            // Nothing may depend on what memory held: here, numbers that are none.
            memory.as_mut_slice().fill(0xFF);
            let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
            let run = session.sample(Request::new().class(3).seed(5)).expect("valid");
            let samples = finish(run, true).expect("draws").trajectory;
            let mut kept: Vec<[f64; MAX_HISTORY]> = vec![[0.0; MAX_HISTORY]; samples[0].len()];
            for (k, step) in steps.iter().enumerate() {
                let m = predict(&model, k as u32, 3, &samples[k]);
                let largest = samples[k + 1].iter().fold(1f64, |largest, x| largest.max(f64::from(x.abs())));
                for (i, history) in kept.iter_mut().enumerate() {
                    let x = f64::from(samples[k][i]);
                    let x0 = step.clean(x, m[i]);
                    let expected = step.next(x, m[i], 0.0, x0, *history);
                    let found = f64::from(samples[k + 1][i]);
                    let error = (found - expected).abs() / largest;
                    assert!(error <= bound, "{} {precision:?}, step {k}: {error:e}", solver.name());
                    *history = [x0, history[0]];
                }
            }
        }
    }
}

#[test]
fn the_gpu_backend_keeps_them_too() {
    for precision in [Precision::I8, Precision::F16, Precision::F32] {
        let export = exported(&digits(), &options(precision, Solver::DpmSolver));
        let model = model(&export.bytes);
        let batch = Batch { count: 3, classes: vec![1, 2, 3], ..Batch::default() };
        let found = images(&mut Host::default(), &model, &batch, None, &()).expect("draws");
        assert_eq!((found.images, found.different), (3, 0), "{precision:?}");
        let drawn = draw(&model, &batch, &()).expect("draws");
        assert!(
            drawn.iter().all(|image| image.bytes.iter().any(|&byte| byte != image.bytes[0])),
            "an image, not a blank"
        );
    }
}
