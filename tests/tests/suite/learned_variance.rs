//! Variances that the network learned, against diffusers (`tests/goldens/learned_variance.py`), in every precision and on the GPU
//! backend.

use serde_json::Value;
use waft::format::Precision;
use waft::{Request, Session};
use waft_host::checkpoint::{Checkpoint, Options};
use waft_host::condition::Conditions;
use waft_host::export::{Export, ExportOptions, export};
use waft_host::fixed::to_floats;
use waft_host::gpu::host::Host;
use waft_host::parity::{images, ops};
use waft_host::sample::{Batch, arena, draw, finish, set_input};
use waft_host::schedule::{SchedulerConfig, Solver};
use waft_host::tensors::{self, Tensors, to_chw, to_hwc};
use waft_tests::{golden, model};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::I8];
const SHAPE: [usize; 3] = [8, 8, 1];

fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(golden("learned_variance.json")).expect("golden");
    let goldens: Value = serde_json::from_str(&text).expect("JSON");
    goldens["pictures"].as_array().expect("a list").clone()
}

fn tensors(name: &str) -> Tensors {
    tensors::read(&golden(name)).expect("golden")
}

fn given() -> Tensors {
    tensors("conditioned_trajectories.safetensors")
}

/// The scheduler of a row, with a kind of variance.
fn config(row: &Value, kind: &str) -> Value {
    let mut config = row["fields"].clone();
    config["_class_name"] = "DDPMScheduler".into();
    config["variance_type"] = kind.into();
    config
}

/// What is exported of a checkpoint with a scheduler.
fn exported(checkpoint: &str, config: &Value, options: &ExportOptions) -> Result<Export, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scheduler_config.json");
    std::fs::write(&path, config.to_string()).expect("writes");
    let opened = Options { scheduler_config: Some(path), ..Default::default() };
    let checkpoint = Checkpoint::open_with(golden(checkpoint), &opened).expect("opens");
    export(&checkpoint, options, &()).map_err(|error| error.to_string())
}

fn options(row: &Value, precision: Precision) -> ExportOptions {
    let conditions = Some(golden("conditioned_trajectories.safetensors"));
    let steps = vec![row["steps"].as_u64().expect("a count") as usize];
    ExportOptions { precision, conditions, steps, calibration_images: 6, ..Default::default() }
}

fn conditions() -> Conditions {
    let (shape, values) = given().f32("condition").expect("floats");
    Conditions::new(&shape, &values, [8, 8, 2]).expect("of that shape")
}

/// Three pictures from the noise of the golden number `index`.
fn batch(index: usize) -> Batch {
    let latents = to_hwc(&given().f32("latents").expect("floats").1, SHAPE);
    let noise = tensors("learned_variance.safetensors").f32(&format!("noise {index}")).expect("floats").1;
    Batch {
        count: 3,
        latents: Some(latents),
        noise: Some(to_hwc(&noise, SHAPE)),
        conditions: conditions(),
        ..Batch::default()
    }
}

/// Signal over error in decibels.
fn ratio(found: &[f32], expected: &[f32]) -> f64 {
    let signal: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let error: f64 = expected.iter().zip(found).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
    10.0 * (signal / error).log10()
}

#[test]
fn pictures_are_those_of_diffusers() {
    for (index, row) in rows().iter().enumerate() {
        let expected = tensors("learned_variance.safetensors").f32(&format!("drawn {index}")).expect("floats").1;
        let drawn = |kind: &str, precision| {
            let export = exported("conditioned", &config(row, kind), &options(row, precision)).expect("exports");
            let learned = export.report.notes.iter().all(|note| !note.contains("variances"));
            assert_eq!(learned, kind == "learned_range", "{:?}", export.report.notes);
            let pictures = draw(&model(&export.bytes), &batch(index), &()).expect("draws");
            to_chw(&pictures.into_iter().flat_map(|picture| picture.sample).collect::<Vec<_>>(), SHAPE)
        };
        for (precision, least) in PRECISIONS.into_iter().zip([100.0, 75.0, 50.0]) {
            let found = ratio(&drawn("learned_range", precision), &expected);
            println!("{row} {precision:?}: {found:.1} dB");
            assert!(found >= least, "{row} {precision:?}: {found:.1} dB");
        }
        // What the variances are there for: neither fixed one gives these pictures.
        for kind in ["fixed_small", "fixed_large"] {
            let found = ratio(&drawn(kind, Precision::F32), &expected);
            assert!(found < 45.0, "{row}, {kind}: {found:.1} dB");
        }
    }
}

/// The device's own outputs and variances, moved on by the steps in double precision, are the device's samples.
#[test]
fn every_precision_steps_by_the_closed_form() {
    for (index, row) in rows().iter().enumerate() {
        let config = config(row, "learned_range");
        let scheduler = SchedulerConfig::from_json(&config.to_string()).expect("a configuration");
        let n = row["steps"].as_u64().expect("a count") as usize;
        let steps = Solver::Ddpm.steps(&scheduler, n).expect("steps");
        let given_noise = batch(index).noise.expect("given");
        for precision in PRECISIONS {
            let export = exported("conditioned", &config, &options(row, precision)).expect("exports");
            let model = model(&export.bytes);
            let one = Batch { trajectory: true, ..batch(index) };
            let pictures = draw(&model, &one, &()).expect("draws");
            let mut memory = arena(&model);
            let samples = &pictures[0].trajectory;
            for (k, step) in steps.iter().enumerate() {
                let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
                conditions().give(&mut session, 0);
                set_input(&mut session, &samples[k]).expect("an input");
                let mut call = session.predict(0, k as u32, None).expect("a step");
                while call.step().expect("runs") {}
                let m = to_floats(call.output());
                let variance = call.tensor_bytes(model.header().variance).expect("there");
                let v: Vec<f64> = match precision {
                    Precision::I8 => variance.chunks(4).map(|v| f64::from(word(v)) / f64::from(1 << 20)).collect(),
                    _ => variance.chunks(4).map(|v| f64::from(f32::from_bits(word(v) as u32))).collect(),
                };
                // Three pictures of 64 elements a step.
                let noise = &given_noise[k * 3 * 64..][..64];
                for i in 0..64 {
                    let (x, m) = (f64::from(samples[k][i]), f64::from(m[i]));
                    let z = step.varied(f64::from(noise[i]), v[i]);
                    let expected = step.next(x, m, z, step.clean(x, m), [0.0; 2]);
                    let error = (f64::from(samples[k + 1][i]) - expected).abs() / expected.abs().max(1.0);
                    assert!(error <= 1e-5, "{row} {precision:?}, step {k}: {error:e}");
                }
            }
        }
    }
}

fn word(bytes: &[u8]) -> i32 {
    i32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

#[test]
fn the_gpu_backend_draws_the_same() {
    let row = &rows()[2];
    for precision in PRECISIONS {
        let export = exported("conditioned", &config(row, "learned_range"), &options(row, precision)).expect("exports");
        let model = model(&export.bytes);
        let found = ops(&mut Host::default(), &model, &[], &()).expect("runs");
        assert!(found.iter().all(|op| op.mismatches == 0), "{found:?}");
        let batch = Batch { count: 5, conditions: conditions(), ..Batch::default() };
        let found = images(&mut Host::default(), &model, &batch, Some(3), &()).expect("draws");
        assert_eq!((found.images, found.different), (5, 0), "{found:?}");
    }
}

/// Streamed weights and four bits do not change what the last two convolutions write.
#[test]
fn streamed_weights_draw_the_same() {
    let row = &rows()[0];
    for precision in [Precision::F32, Precision::I8] {
        let config = config(row, "learned_range");
        let resident = exported("conditioned", &config, &options(row, precision)).expect("exports");
        let streaming = ExportOptions { stream: Some(8192), ..options(row, precision) };
        let streamed = exported("conditioned", &config, &streaming).expect("exports");
        let pictures = [resident, streamed].map(|export| {
            let batch = Batch { weights: export.weights.clone().unwrap_or_default(), ..batch(0) };
            let pictures = draw(&model(&export.bytes), &batch, &()).expect("draws");
            pictures.into_iter().map(|picture| picture.bytes).collect::<Vec<_>>()
        });
        assert_eq!(pictures[0], pictures[1], "{precision:?}");
    }
}

/// A request's seed draws the same whatever the arena held.
#[test]
fn the_memory_does_not_show() {
    let row = &rows()[0];
    let export = exported("conditioned", &config(row, "learned_range"), &options(row, Precision::I8)).expect("exports");
    let model = model(&export.bytes);
    let pictures = [0x00, 0xFF].map(|fill| {
        let mut memory = arena(&model);
        memory.as_mut_slice().fill(fill);
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        conditions().give(&mut session, 0);
        finish(session.sample(Request::new().seed(4)).expect("valid"), false).expect("draws").bytes
    });
    assert_eq!(pictures[0], pictures[1]);
}

#[test]
fn networks_that_cannot_say_are_refused() {
    let row = &rows()[0];
    let error = exported("velocity", &config(row, "learned_range"), &ExportOptions::default()).expect_err("refused");
    assert!(error.contains("variance_type = learned_range") && error.contains("no channels for variances"), "{error}");
    let error = exported("conditioned", &config(row, "learned"), &options(row, Precision::F32)).expect_err("refused");
    assert!(error.contains("variance_type = \"learned\"") && error.contains("learned_range"), "{error}");
}
