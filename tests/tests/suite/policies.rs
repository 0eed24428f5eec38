//! Robot policies of both layouts: against PyTorch (`tests/goldens/policies.py`), in every precision, on the runtime and on the
//! GPU backend.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use waft::format::{Activate, Film, Header, Observe, Op, Precision, Shuffle};
use waft::{Request, RequestError, SamplesMut, Session};
use waft_host::checkpoint::Checkpoint;
use waft_host::condition::Conditions;
use waft_host::export::{Export, ExportError, ExportOptions, ResidualWidth, export, predictor};
use waft_host::fixed::to_floats;
use waft_host::gpu::host::Host;
use waft_host::import::import;
use waft_host::parity::{images, ops};
use waft_host::sample::{Batch, arena, draw, set_input};
use waft_host::tensors::{self, Tensors};
use waft_tests::forge::changed;
use waft_tests::{exported, golden, model, oracle, relative_error};

const LAYOUTS: [&str; 2] = ["lerobot", "diffusion_policy"];

fn tensors(layout: &str) -> Tensors {
    tensors::read(&golden(&format!("{layout}.safetensors"))).expect("golden")
}

fn options(layout: &str, precision: Precision) -> ExportOptions {
    let observations = Some(golden(&format!("{layout}.safetensors")));
    ExportOptions { precision, observations, calibration_images: 9, ..ExportOptions::default() }
}

fn policy(layout: &str, precision: Precision) -> Export {
    exported(&golden(layout), &options(layout, precision))
}

fn observations(layout: &str) -> Conditions {
    let (shape, values) = tensors(layout).f32("observation").expect("floats");
    Conditions::observations(&shape, &values, shape[1]).expect("of that shape")
}

/// The golden's noise, initial and of the steps, and observations.
fn batch(layout: &str) -> Batch {
    let tensors = tensors(layout);
    let (shape, latents) = tensors.f32("latents").expect("floats");
    let noise = Some(tensors.f32("noise").expect("floats").1);
    Batch { count: shape[0], latents: Some(latents), noise, conditions: observations(layout), ..Batch::default() }
}

#[test]
fn calls_are_those_of_pytorch() {
    for layout in LAYOUTS {
        let input = tensors(layout);
        let timesteps = input.integers("timestep").expect("integers");
        let bytes = predictor(&Checkpoint::open(golden(layout)).expect("opens"), &timesteps).expect("imports");
        let model = model(&bytes);
        let (shape, samples) = input.f32("sample").expect("floats");
        let (given, observed) = input.f32("global_cond").expect("floats");
        assert_eq!((model.image_shape(), model.observation_len()), ([1, shape[1], shape[2]], Some(given[1])));
        let observed = Conditions::observations(&given, &observed, given[1]).expect("of that shape");
        let mut memory = arena(&model);
        let mut found = vec![];
        for (call, sample) in samples.chunks_exact(shape[1] * shape[2]).enumerate() {
            let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
            observed.give(&mut session, call);
            set_input(&mut session, sample).expect("an input");
            let mut prediction = session.predict(0, call as u32, None).expect("valid");
            while prediction.step().expect("runs") {}
            found.extend(to_floats(prediction.output()));
        }
        let error = relative_error(&found, &input.f32("out").expect("floats").1);
        assert!(error <= 1e-5, "{layout}: relative error {error:e}");
    }
}

#[test]
fn actions_are_those_of_diffusers() {
    for layout in LAYOUTS {
        let expected = tensors(layout).f32("actions").expect("floats").1;
        for (precision, bound) in [(Precision::F32, 1e-5), (Precision::F16, 5e-3), (Precision::I8, 2e-2)] {
            let export = policy(layout, precision);
            let drawn = draw(&model(&export.bytes), &batch(layout), &()).expect("draws");
            let found: Vec<f32> = drawn.into_iter().flat_map(|drawn| drawn.actions).collect();
            let error = relative_error(&found, &expected);
            assert!(error <= bound, "{layout} in {precision:?}: relative error {error:e}");
        }
    }
}

/// Weights that pass through windows give the same actions; a transposed convolution has twice the channels of its result.
#[test]
fn streamed_policies_act_the_same() {
    for layout in LAYOUTS {
        for precision in [Precision::F32, Precision::F16, Precision::I8] {
            let act = |stream: Option<u64>| {
                let export = exported(&golden(layout), &ExportOptions { stream, ..options(layout, precision) });
                let batch = Batch { weights: export.weights.unwrap_or_default(), ..batch(layout) };
                let drawn = draw(&model(&export.bytes), &batch, &()).expect("draws");
                drawn.into_iter().flat_map(|drawn| drawn.actions).collect::<Vec<f32>>()
            };
            assert_eq!(act(Some(1 << 20)), act(None), "{layout} in {precision:?}");
        }
    }
}

/// Each form of an activation, and shuffled convolutions, bit for bit, in 8 and in 16 bits.
#[test]
fn integers_are_those_of_the_records() {
    let mut films = vec![];
    let mut shuffled = 0;
    for layout in LAYOUTS {
        for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
            let export = exported(&golden(layout), &ExportOptions { residual, ..options(layout, Precision::I8) });
            let model = model(&export.bytes);
            let schedule = model.schedule(0).expect("there is one");
            let step = 1;
            let biases = &model.bytes()[(schedule.biases + step * schedule.bias_bytes) as usize..];
            let mut memory = arena(&model);
            let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
            observations(layout).give(&mut session, 0);
            let noise: Vec<f32> = (0..model.image_shape().iter().product()).map(|i: usize| (i as f32).sin()).collect();
            set_input(&mut session, &noise).expect("an input");
            let integers = |session: &Session<'_>, id: u16| {
                oracle::integers(&model.tensor(id).expect("exists"), session.tensor_bytes(id).expect("exists"))
            };
            for index in 0..model.ops() {
                let before: Vec<Vec<i64>> = (0..model.tensors()).map(|id| integers(&session, id)).collect();
                let read = |id: u16| before[usize::from(id)].clone();
                session.execute(0, step, u16::MAX, index).expect("runs");
                let (expected, output) = match model.op(index).expect("exists") {
                    Op::Activate(op) => {
                        films.push(op.film());
                        (oracle::integer_activation(&model, &op, biases, &read), op.output)
                    }
                    Op::Conv2d(op) => {
                        shuffled += usize::from(op.shuffle() == Shuffle::Columns);
                        (oracle::integer_conv(&model, &op, biases, &read), op.output)
                    }
                    _ => continue,
                };
                assert_eq!(integers(&session, output), expected, "operation {index} of {layout}");
            }
        }
    }
    for film in Film::ALL {
        assert!(films.contains(film), "{film:?}");
    }
    assert!(shuffled >= 4, "{shuffled}");
}

#[test]
fn the_gpu_backend_does_the_same() {
    for layout in LAYOUTS {
        for precision in [Precision::I8, Precision::F16, Precision::F32] {
            let export = policy(layout, precision);
            let model = model(&export.bytes);
            for op in ops(&mut Host::default(), &model, &[], &()).expect("runs") {
                assert_eq!((op.mismatches, op.max_abs_err), (0, 0.0), "{}", op.op);
            }
            let batch = Batch { count: 5, conditions: observations(layout), ..Batch::default() };
            let found = images(&mut Host::default(), &model, &batch, Some(2), &()).expect("draws");
            assert_eq!((found.images, found.different), (5, 0), "{layout} in {precision:?}");
            let without = Batch { count: 1, ..Batch::default() };
            assert!(images(&mut Host::default(), &model, &without, None, &()).is_err(), "no observation");
        }
    }
}

/// What depends on the observation is computed once a run, and what it says is there in every step.
#[test]
fn observations_are_projected_once_a_run() {
    let export = policy("lerobot", Precision::I8);
    let model = model(&export.bytes);
    let once = model.header().once;
    assert!(once > 1, "an observation and its projections");
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    observations("lerobot").give(&mut session, 0);
    let mut run = session.sample(Request::new()).expect("valid");
    let mut started = vec![0; usize::from(model.ops())];
    let mut slices = 0;
    loop {
        if let Some(op) = run.starts() {
            started[usize::from(op)] += 1;
        }
        let Some(progress) = run.step().expect("runs") else { break };
        slices += 1;
        assert_eq!(progress.slice, slices);
    }
    assert_eq!(run.progress().slices, slices, "as many as were announced");
    let steps = model.schedule(0).expect("there is one").steps;
    let expected: Vec<u32> = (0..model.ops()).map(|op| if op < once { 1 } else { steps }).collect();
    assert_eq!(started, expected);
}

#[test]
fn a_session_asks_for_numbers() {
    let export = policy("lerobot", Precision::F32);
    let model = model(&export.bytes);
    let mut memory = arena(&model);
    // What the arena held is no observation.
    memory.as_mut_slice().fill(0x3F);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    assert_eq!(session.sample(Request::new()).err(), Some(RequestError::ObservationMissing));
    assert_eq!(session.predict(0, 0, None).err(), Some(RequestError::ObservationMissing));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let Some(SamplesMut::Float(observation)) = session.observation() else { panic!("f32") };
        observation.fill(0.0);
        observation[2] = value;
        assert_eq!(session.sample(Request::new()).err(), Some(RequestError::ObservationNotFinite { index: 2 }));
    }
    let mut drawn = vec![];
    for value in [Some(0.25), None, Some(0.5)] {
        if let (Some(value), Some(SamplesMut::Float(observation))) = (value, session.observation()) {
            observation.fill(value);
        }
        let mut run = session.sample(Request::new().seed(5)).expect("valid");
        assert!(run.actions().is_none(), "not complete");
        while run.step().expect("runs").is_some() {}
        drawn.push(to_floats(run.actions()));
        assert_eq!(to_floats(run.actions()), drawn[drawn.len() - 1], "once more");
        assert!(run.image().is_none() && run.sample().is_none(), "replaced by the actions");
    }
    assert_eq!(drawn[0], drawn[1]);
    assert_ne!(drawn[0], drawn[2], "another observation, other actions");
}

/// A copy of LeRobot's golden with fields of its configuration changed, null taking one out, or without tensors.
fn copy(fields: &Value, without: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let from = golden("lerobot");
    let bytes = std::fs::read(from.join("model.safetensors")).expect("there");
    let all = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let kept = all.tensors().into_iter().filter(|(name, _)| without.is_empty() || !name.starts_with(without));
    safetensors::serialize_to_file(kept, None, &folder.path().join("model.safetensors")).expect("writes");
    let text = std::fs::read_to_string(from.join("config.json")).expect("there");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (field, value) in fields.as_object().expect("an object") {
        config[field] = value.clone();
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("writes");
    folder
}

fn refusal(folder: &Path) -> String {
    import(&Checkpoint::open(folder).expect("opens")).expect_err("refused").to_string()
}

#[test]
fn what_is_not_supported_is_named() {
    let image = json!({ "observation.image": { "type": "VISUAL", "shape": [3, 96, 96] } });
    for (fields, expected) in [
        (json!({ "input_features": image }), "observation.image is not supported; image encoders (vision_backbone)"),
        (json!({ "horizon": 15 }), "horizon = 15 is not supported; a multiple of 2^1"),
        (json!({ "n_groups": 3 }), "n_groups = 3"),
        (json!({ "n_obs_steps": 1 }), "observations have"),
        (json!({ "normalization_mapping": { "STATE": "QUANTILES" } }), "QUANTILES"),
        (json!({ "film": true }), "waft does not know this field"),
        (json!({ "output_features": {} }), "one feature, action"),
        (json!({ "use_film_scale_modulation": false }), "cond_encoder.1.weight"),
    ] {
        let found = refusal(copy(&fields, "").path());
        assert!(found.contains(expected), "{fields}: {found}");
    }
    assert!(import(&Checkpoint::open(copy(&json!({}), "").path()).expect("opens")).is_ok());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("writes");
    write("config.yaml", b"policy:\n  _target_: a.b.DiffusionTransformerLowdimPolicy\n");
    write("model.safetensors", &std::fs::read(golden("lerobot").join("model.safetensors")).expect("there"));
    let found = refusal(folder.path());
    assert!(
        found.contains("DiffusionTransformerLowdimPolicy is not supported; supported: DiffusionUnetLowdimPolicy"),
        "{found}"
    );
    write("config.yaml", b"policy: [\n");
    let found = Checkpoint::open(folder.path()).expect_err("no YAML").to_string();
    assert!(found.contains("config.yaml"), "{found}");
}

#[test]
fn missing_statistics_are_refused() {
    for without in ["normalize_inputs", "unnormalize_outputs", "normalize_targets"] {
        let found = refusal(copy(&json!({}), without).path());
        assert!(found.contains("no normalization statistics") && found.contains(without), "{found}");
    }
    let checkpoint = Checkpoint::open(golden("lerobot")).expect("opens");
    let without = ExportOptions { observations: None, ..options("lerobot", Precision::I8) };
    let error = export(&checkpoint, &without, &()).expect_err("refused");
    assert!(matches!(error, ExportError::NoObservations { len: 18 }), "{error}");
    let digits = Checkpoint::open(waft_tests::digits()).expect("opens");
    let error = export(&digits, &options("lerobot", Precision::F32), &()).expect_err("refused").to_string();
    assert!(error.contains("acts on no observation"), "{error}");
}

#[test]
fn forged_records_are_refused() {
    let export = policy("lerobot", Precision::I8);
    let (file, model) = (&export.bytes, model(&export.bytes));
    let header = *model.header();
    let at = |index: u16| header.ops_at as usize + usize::from(index) * waft::format::OP_BYTES;
    let find = |wanted: &dyn Fn(Op) -> bool| {
        (0..model.ops()).find(|&index| model.op(index).is_some_and(wanted)).expect("there is one")
    };
    let header_is_bad = |change: fn(&mut Header)| assert!(changed::<Header>(file, 0, change).is_err());
    header_is_bad(|header| header.once = 0);
    header_is_bad(|header| header.once += 1);
    header_is_bad(|header| header.once = header.ops);
    header_is_bad(|header| header.observation = 0);
    header_is_bad(|header| header.observation = header.sample);
    header_is_bad(|header| header.observation = header.prediction);
    header_is_bad(|header| header.observation += 1);
    header_is_bad(|header| header.actions = header.file_bytes);
    header_is_bad(|header| header.actions += 8);
    header_is_bad(|header| header.variance = header.observation);
    header_is_bad(|header| header.reserved_end[0] = 1);

    let observe = at(find(&|op| matches!(op, Op::Observe(_))));
    let observe_is_bad = |change: fn(&mut Observe)| assert!(changed::<Observe>(file, observe, change).is_err());
    observe_is_bad(|op| op.source = 0);
    observe_is_bad(|op| op.centers = 0);
    observe_is_bad(|op| op.gains = u32::MAX - 15);
    observe_is_bad(|op| op.activation = 9);
    observe_is_bad(|op| op.reserved_end[103] = 1);

    let film = at(find(&|op| matches!(op, Op::Activate(op) if op.film() == Film::ScaleShift)));
    let film_is_bad = |change: fn(&mut Activate)| assert!(changed::<Activate>(file, film, change).is_err());
    film_is_bad(|op| op.film = Film::None.code());
    film_is_bad(|op| op.film = Film::Shift.code());
    film_is_bad(|op| op.film_at += 4);
    film_is_bad(|op| op.film_at = 1 << 20);
    film_is_bad(|op| op.observed = op.norm);
    film_is_bad(|op| op.norm = op.source);
    film_is_bad(|op| op.residual = op.source);
    film_is_bad(|op| op.output = op.norm);
    film_is_bad(|op| op.affine_shift = 31);
    film_is_bad(|op| op.activation = 7);
    film_is_bad(|op| op.reserved = 1);
    film_is_bad(|op| op.reserved_end[0] = 1);
    assert!(changed::<Activate>(file, film, |op| op.multiplier = i32::MIN).is_ok(), "any factor will do");
    let conv = at(find(&|op| matches!(op, Op::Conv2d(op) if op.shuffle() == Shuffle::Columns)));
    assert!(changed::<waft::format::Conv2d>(file, conv, |op| op.shuffle = 0).is_err());
    let plain = at(find(&|op| matches!(op, Op::Conv2d(op) if op.shuffle() == Shuffle::None)));
    assert!(changed::<waft::format::Conv2d>(file, plain, |op| op.shuffle = 1).is_err());
    assert!(changed::<waft::format::Conv2d>(file, plain, |op| op.shuffle = 2).is_err());
}
