//! Dynamic thresholding against diffusers, what `tests/goldens/thresholding.py` wrote, and in every precision against its definition.

use serde_json::Value;
use waft::format::Precision;
use waft::{Guidance, Request, Session};
use waft_host::checkpoint::{Checkpoint, Options};
use waft_host::export::{Export, ExportOptions, export};
use waft_host::fixed::to_floats;
use waft_host::sample::{Batch, arena, draw, finish, set_input};
use waft_host::schedule::{MAX_HISTORY, SchedulerConfig, Solver};
use waft_tests::{digits, golden, model, relative_error};

fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(golden("thresholding.json")).expect("golden");
    serde_json::from_str(&text).expect("JSON")
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

fn solver(row: &Value) -> Solver {
    Solver::ALL.iter().copied().find(|solver| row["solver"] == solver.name()).expect("a solver")
}

/// The digits' scheduler with the class and the fields of a row.
fn config(row: &Value, thresholds: bool) -> Value {
    let text = std::fs::read_to_string(digits().join("scheduler_config.json")).expect("readable");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["_class_name"] = solver(row).class_name().into();
    config["thresholding"] = thresholds.into();
    row["fields"].as_object().expect("fields").iter().for_each(|(name, value)| config[name] = value.clone());
    config
}

/// The digits with that scheduler.
fn exported(row: &Value, thresholds: bool, options: ExportOptions) -> Export {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scheduler_config.json");
    std::fs::write(&path, config(row, thresholds).to_string()).expect("writes");
    let opened = Options { scheduler_config: Some(path), ..Default::default() };
    let checkpoint = Checkpoint::open_with(digits(), &opened).expect("opens");
    // The digits' own default is diffusers' opposite.
    let use_clipped_model_output = matches!(solver(row), Solver::Ddim(_)).then_some(false);
    let options = ExportOptions { calibration_images: 2, use_clipped_model_output, ..options };
    export(&checkpoint, &options, &()).expect("exports")
}

fn steps(row: &Value) -> Vec<usize> {
    vec![row["steps"].as_u64().expect("a count") as usize]
}

fn batch(row: &Value) -> Batch {
    // What the goldens start from, see `tests/goldens/original.py`.
    let number = |k: usize| (k as u64 * 2_654_435_761 % (1 << 32)) as f64 / 2f64.powi(31) - 1.0;
    let latents = (1000..1064).map(|i| (0..3).map(|k| number(3 * i + k)).sum::<f64>() as f32).collect();
    let guidance = Guidance::from_f32(row["guidance"].as_f64().expect("a scale") as f32);
    Batch { request: Request::new().class(7).guidance(guidance), count: 1, latents: Some(latents), ..Batch::default() }
}

#[test]
fn clean_samples_are_bounded_as_diffusers_bounds_them() {
    for row in rows() {
        let options = ExportOptions { precision: Precision::F32, steps: steps(&row), ..Default::default() };
        let export = exported(&row, true, options);
        let drawn = draw(&model(&export.bytes), &batch(&row), &()).expect("draws");
        let error = relative_error(&drawn[0].sample, &floats(&row["sample"]));
        assert!(error <= 1e-3, "{} {}: {error:e}", row["solver"], row["fields"]);
    }
}

/// The device's own model outputs, moved on by the steps in double precision with a quantile of a sorted list, are the device's
/// samples.
#[test]
fn every_precision_bounds_by_the_quantile() {
    const TIMESTEPS: [i64; 6] = [900, 720, 540, 360, 180, 20];
    for row in rows() {
        let scheduler = SchedulerConfig::from_json(&config(&row, true).to_string()).expect("a configuration");
        let steps = solver(&row).steps_at(&scheduler, &TIMESTEPS).expect("steps");
        for precision in [Precision::F32, Precision::F16, Precision::I8] {
            let timesteps = vec![TIMESTEPS.to_vec()];
            let export = exported(&row, true, ExportOptions { precision, timesteps, ..Default::default() });
            let model = model(&export.bytes);
            let mut memory = arena(&model);
            let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
            let run = session.sample(Request::new().class(3).seed(5)).expect("valid");
            let samples = finish(run, true).expect("draws").trajectory;
            let mut kept: Vec<[f64; MAX_HISTORY]> = vec![[0.0; MAX_HISTORY]; samples[0].len()];
            for (k, step) in steps.iter().enumerate() {
                let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
                set_input(&mut session, &samples[k]).expect("an input");
                let mut call = session.predict(0, k as u32, Some(3)).expect("a step");
                while call.step().expect("runs") {}
                let m: Vec<f64> = to_floats(call.output()).into_iter().map(f64::from).collect();
                let x = |i: usize| f64::from(samples[k][i]);
                let mut clean: Vec<f64> = m.iter().enumerate().map(|(i, &m)| step.clean(x(i), m)).collect();
                if let Some(thresholding) = step.thresholding {
                    thresholding.apply(&mut clean);
                }
                let largest = samples[k + 1].iter().fold(1f64, |largest, x| largest.max(f64::from(x.abs())));
                for (i, history) in kept.iter_mut().enumerate() {
                    let expected = step.next(x(i), m[i], 0.0, clean[i], *history);
                    let error = (f64::from(samples[k + 1][i]) - expected).abs() / largest;
                    assert!(error <= 1e-5, "{} {} {precision:?}, step {k}: {error:e}", row["solver"], row["fields"]);
                    *history = [clean[i], history[0]];
                }
            }
        }
    }
}

#[test]
fn the_slices_of_the_search_are_counted() {
    let row = &rows()[0];
    let slices = [false, true].map(|thresholds| {
        let export = exported(row, thresholds, ExportOptions { steps: steps(row), ..Default::default() });
        let model = model(&export.bytes);
        let mut memory = arena(&model);
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        let mut run = session.sample(batch(row).request).expect("valid");
        while run.step().expect("runs").is_some() {}
        assert_eq!(run.progress().slice, run.progress().slices, "what was announced is what was done");
        run.progress().slices
    });
    // Thirty-three passes over a sample of one slice, in each of ten steps.
    assert_eq!(slices[1] - slices[0], 330);
}
