//! lucidrains' layout: what its trainer saves, against its own network and sampler (`tests/goldens/denoising_diffusion.py`).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use waft::format::{Affine, Op, Precision};
use waft::{Request, Session};
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{ExportOptions, ResidualWidth, export, predictor};
use waft_host::fixed::to_floats;
use waft_host::import::import;
use waft_host::sample::{Batch, arena, draw, set_input};
use waft_host::tensors::{self, Tensors};
use waft_tests::{exported, golden, model, oracle, relative_error};

fn checkpoint() -> PathBuf {
    golden("denoising_diffusion")
}

fn reference() -> Tensors {
    tensors::read(&golden("denoising_diffusion.safetensors")).expect("golden")
}

fn options(precision: Precision) -> ExportOptions {
    ExportOptions { precision, steps: vec![5], calibration_images: 8, ..ExportOptions::default() }
}

/// (channel, pixel) as (pixel, channel).
fn turned(values: &[f32], [channels, pixels]: [usize; 2]) -> Vec<f32> {
    (0..pixels).flat_map(|pixel| (0..channels).map(move |c| values[c * pixels + pixel])).collect()
}

#[test]
fn calls_are_those_of_its_own_network() {
    let input = reference();
    let timesteps = input.integers("timestep").expect("integers");
    let bytes = predictor(&Checkpoint::open(checkpoint()).expect("opens"), &timesteps).expect("imports");
    let model = model(&bytes);
    let (shape, samples) = input.f32("sample").expect("floats");
    let (channels, pixels) = (shape[1], shape[2] * shape[3]);
    let turned = |values: &[f32]| turned(values, [channels, pixels]);
    let expected = input.f32("out").expect("floats").1;
    let mut memory = arena(&model);
    for (call, sample) in samples.chunks_exact(channels * pixels).enumerate() {
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        set_input(&mut session, &turned(sample)).expect("an input");
        let mut prediction = session.predict(0, call as u32, None).expect("valid");
        while prediction.step().expect("runs") {}
        let expected = turned(&expected[call * channels * pixels..][..channels * pixels]);
        let error = relative_error(&to_floats(prediction.output()), &expected);
        assert!(error <= 1e-5, "relative error {error:e}");
    }
}

/// The schedule and the objective are in the file; its sampler takes evenly spaced timesteps, and clips.
#[test]
fn pictures_are_those_of_its_own_sampler() {
    let tensors = reference();
    let (shape, latents) = tensors.f32("latents").expect("floats");
    let expected = tensors.f32("pictures").expect("floats").1;
    let one = [shape[1], shape[2] * shape[3]];
    let [latents, expected] = [latents, expected].map(|values| -> Vec<f32> {
        values.chunks_exact(one[0] * one[1]).flat_map(|values| turned(values, one)).collect()
    });
    for (precision, bound) in [(Precision::F32, 1e-4), (Precision::F16, 1e-2), (Precision::I8, 6e-2)] {
        let export = exported(&checkpoint(), &options(precision));
        let batch =
            Batch { request: Request::new(), count: shape[0], latents: Some(latents.clone()), ..Batch::default() };
        let drawn = draw(&model(&export.bytes), &batch, &()).expect("draws");
        let found: Vec<f32> = drawn.into_iter().flat_map(|drawn| drawn.sample).collect();
        let error = relative_error(&found, &expected);
        println!("{precision:?}: {error:e}");
        assert!(error <= bound, "{precision:?}: relative error {error:e}");
    }
}

/// Both operations in integers, against real numbers from the integers that they read.
#[test]
fn integers_are_those_of_real_arithmetic() {
    let (mut norms, mut attentions, mut steps) = (0, 0, 0);
    for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
        let export = exported(&checkpoint(), &ExportOptions { residual, ..options(Precision::I8) });
        let model = model(&export.bytes);
        let schedule = model.schedule(0).expect("there is one");
        let step = 1;
        let biases = &model.bytes()[(schedule.biases + step * schedule.bias_bytes) as usize..];
        let mut memory = arena(&model);
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        let noise: Vec<f32> = (0..model.image_shape().iter().product()).map(|i: usize| (i as f32).sin()).collect();
        set_input(&mut session, &noise).expect("an input");
        let integers = |session: &Session<'_>, id: u16| {
            oracle::integers(&model.tensor(id).expect("exists"), session.tensor_bytes(id).expect("exists"))
        };
        for index in 0..model.ops() {
            let readable = |id: u16| session.tensor_bytes(id).is_some();
            let before: Vec<Vec<i64>> =
                (0..model.tensors()).map(|id| if readable(id) { integers(&session, id) } else { vec![] }).collect();
            let read = |id: u16| before[usize::from(id)].clone();
            session.execute(0, step, u16::MAX, index).expect("runs");
            match model.op(index).expect("exists") {
                Op::LayerNorm(op) => {
                    norms += 1;
                    steps += usize::from(op.affine() == Affine::Step);
                    let wide = model.tensor(op.output).expect("exists").element() == waft::format::Element::I16;
                    let (low, high) = if wide { (-32_768.0, 32_767.0) } else { (-128.0, 127.0) };
                    // SiLU's table is right to 2.6e-4, which is some units of 16 bits.
                    let unit = f64::from(op.multiplier) * 2f64.powi(op.shift - 31) * 32_768.0;
                    let unit = if op.residual == waft::format::NONE { unit } else { unit / 256.0 };
                    let found = integers(&session, op.output);
                    let expected = oracle::layer_norm_of_integers(&model, &op, biases, &read);
                    for (found, expected) in found.into_iter().zip(expected) {
                        let error = (found as f64 - expected.clamp(low, high)).abs();
                        assert!(error <= 1.0 + 6e-4 * unit, "{found} but {expected}, a unit is {unit}");
                    }
                }
                Op::LinearAttention(op) => {
                    attentions += 1;
                    let channels = usize::from(model.tensor(op.query).expect("exists").channels);
                    let learned = (0..usize::from(op.memory) * 2 * channels)
                        .map(|at| f64::from(model.bytes()[op.memory_at as usize + at] as i8));
                    let reals = |id: u16| read(id).into_iter().map(|q| q as f64);
                    let key_value: Vec<f64> = learned.chain(reals(op.key_value)).collect();
                    let factor = |m: i32, s: i32| f64::from(m) * 2f64.powi(s - 31);
                    let order = std::f64::consts::LN_2 / 256.0;
                    let scales = [(op.key_multiplier, op.key_shift), (op.query_multiplier, op.query_shift)];
                    let scales = scales.map(|(m, s)| factor(m, s) * order);
                    let query: Vec<f64> = reals(op.query).collect();
                    let mean = oracle::linear_attention(&query, &key_value, channels, op.heads.into(), scales);
                    let gain = factor(op.value_multiplier, op.value_shift) * 64.0;
                    for (found, mean) in integers(&session, op.output).into_iter().zip(mean) {
                        let expected = (mean * gain).clamp(-128.0, 127.0);
                        assert!((found as f64 - expected).abs() <= 1.0 + gain / 32.0, "{found} but {expected}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(norms >= 20 && attentions >= 4 && steps >= 10, "{norms} {attentions} {steps}");
}

fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let folder = TempDir::new().expect("a folder");
    copy(&checkpoint(), folder.path());
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).expect("reads")).expect("JSON");
    change(&mut config);
    fs::write(&path, config.to_string()).expect("writes");
    match Checkpoint::open(folder.path()) {
        Err(error) => error.to_string(),
        Ok(checkpoint) => import(&checkpoint).expect_err("refused").to_string(),
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
    }
}

#[test]
fn what_the_tensors_do_not_say_is_asked_for_by_name() {
    let set = |field: &'static str, value: Value| move |config: &mut Value| config[field] = value;
    for (field, value) in [
        ("image_size", json!(null)),
        ("image_size", json!([8, 7])),
        ("self_condition", json!(true)),
        ("auto_normalize", json!(false)),
        ("sinusoidal_pos_emb_theta", json!(0)),
        ("objective", json!("pred_x")),
        ("channels", json!(2)),
        ("heads", json!(2)),
    ] {
        let refused = refusal(set(field, value));
        assert!(refused.contains(field) || field == "channels", "{field}: {refused}");
    }
}

/// What the network of a trainer's file is drawn with is its average, and nothing else in the file is left over.
#[test]
fn the_average_is_taken_and_the_schedule_with_it() {
    let checkpoint = Checkpoint::open(checkpoint()).expect("opens");
    let scheduler = checkpoint.scheduler().expect("among the tensors");
    assert_eq!(scheduler.num_train_timesteps(), 100);
    assert_eq!(scheduler.prediction_type(), waft_host::schedule::PredictionType::VPrediction);
    assert!(checkpoint.defaults().use_clipped_model_output);
    assert!(export(&checkpoint, &options(Precision::F32), &()).is_ok());
}
