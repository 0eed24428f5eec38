//! The float precisions against files that diffusers wrote (`tests/goldens/make.py`).

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use waft::format::{Output, Precision};
use waft::noise::Given;
use waft::{Guidance, Request, SamplesMut, Session};
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{ExportOptions, export, predictor};
use waft_host::fixed::{to_fixed, to_floats};
use waft_host::sample::{AlignedBytes, arena, finish};
use waft_host::schedule::SchedulerConfig;
use waft_host::tensors::{self, Tensors, to_chw, to_hwc};
use waft_tests::{digits, exported, golden, model, relative_error};

/// One call a row through a model whose only list visits the rows' timesteps; (N, C, H, W).
fn predict(bytes: &AlignedBytes, input: &Tensors) -> Vec<f32> {
    let model = model(bytes);
    let shape = model.image_shape();
    let classes = input.has("class_labels").then(|| input.integers("class_labels").expect("integers"));
    let samples = to_hwc(&input.f32("sample").expect("floats").1, shape);
    let schedule = model.schedule(0).expect("a list");
    let mut memory = arena(&model);
    let mut outputs = vec![];
    for (call, sample) in samples.chunks_exact(shape.iter().product()).enumerate() {
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        let Some(SamplesMut::Float(values)) = session.input() else { panic!("a float precision") };
        values.copy_from_slice(sample);
        let class = classes.as_ref().map(|classes| classes[call] as u16);
        let mut prediction = session.predict(0, call as u32, class).expect("valid");
        while prediction.step().expect("runs") {}
        let divisor = match model.header().output() {
            Output::Prediction => 1.0,
            Output::TimesTimestep => model.float_steps(&schedule).nth(call).expect("a step").timestep as f32,
        };
        outputs.extend(to_floats(prediction.output()).into_iter().map(|value| value / divisor));
    }
    let channels = model.tensor(model.header().prediction).expect("an output").channels;
    to_chw(&outputs, [shape[0], shape[1], channels.into()])
}

fn check_calls(checkpoint: &Path, name: &str) {
    let input = tensors::read(&golden(&format!("{name}_predict.safetensors"))).expect("golden");
    let timesteps = input.integers("timestep").expect("integers");
    let opened = Checkpoint::open(checkpoint).expect("a checkpoint");
    let found = predict(&predictor(&opened, &timesteps).expect("imports"), &input);
    let error = relative_error(&found, &input.f32("out").expect("floats").1);
    assert!(error <= 1e-5, "{name}: relative error {error:e}");
}

#[test]
fn calls_of_the_digits_model() {
    check_calls(&digits(), "digits");
}

#[test]
fn calls_of_a_small_ddpm_cifar10() {
    check_calls(&golden("cifar_small"), "cifar_small");
}

#[test]
fn calls_with_heads_center_input_scale_factor_and_no_mid_attention() {
    check_calls(&golden("heads"), "heads");
}

#[test]
fn calls_with_residual_blocks_that_halve_and_double() {
    check_calls(&golden("resampling"), "resampling");
}

#[test]
fn calls_of_a_single_level_with_classes_and_another_embedding_width() {
    check_calls(&golden("velocity"), "velocity");
}

#[test]
fn calls_with_scaled_and_shifted_normalizations_learned_timesteps_mish_and_heads_that_do_not_divide() {
    check_calls(&golden("scale_shift"), "scale_shift");
}

#[test]
fn calls_with_classes_as_timesteps_gelu_and_odd_channels() {
    check_calls(&golden("class_timestep"), "class_timestep");
}

#[test]
fn calls_with_fourier_features_vectors_for_classes_and_relu() {
    check_calls(&golden("fourier"), "fourier");
}

#[test]
fn calls_with_blocks_that_filter_beside_a_path_of_pictures() {
    check_calls(&golden("filtered"), "filtered");
}

#[test]
fn calls_of_the_diffusion_courses_network_whose_classes_are_channels() {
    check_calls(&golden("class_channels"), "class_channels");
}

#[test]
fn calls_of_unet1d_with_filters_attention_and_channels_of_the_time() {
    check_calls(&golden("unet1d_sound"), "unet1d_sound");
}

#[test]
fn calls_of_unet1d_with_residual_blocks_of_the_timestep() {
    check_calls(&golden("unet1d_trajectory"), "unet1d_trajectory");
}

#[test]
fn calls_of_edms_ncsnpp() {
    check_calls(&golden("edm/network-snapshot-000001.pkl"), "edm");
}

#[test]
fn calls_of_edms_ddpmpp_with_classes_and_none() {
    check_calls(&golden("edm_classes/network-snapshot-000001.pkl"), "edm_classes");
}

#[test]
fn calls_of_edms_adm() {
    check_calls(&golden("edm_adm/network-snapshot-000001.pkl"), "edm_adm");
}

#[test]
fn calls_of_openais_layout_with_classes_variances_and_residual_blocks_that_resample() {
    check_calls(&golden("guided_diffusion"), "guided_diffusion");
}

#[test]
fn calls_of_openais_layout_with_added_embeddings_and_convolutions_that_resample() {
    check_calls(&golden("improved_diffusion"), "improved_diffusion");
}

/// A copy of a checkpoint with some of its scheduler's fields replaced.
fn with_scheduler(checkpoint: &Path, fields: serde_json::Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json", "waft.json"] {
        let from = checkpoint.join(file);
        if from.is_file() {
            std::fs::copy(from, folder.path().join(file)).expect("copies");
        }
    }
    let path = folder.path().join("scheduler_config.json");
    let text = std::fs::read_to_string(&path).expect("present");
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    config.extend(fields.as_object().expect("an object").clone());
    std::fs::write(&path, serde_json::to_string(&config).expect("JSON")).expect("writes");
    folder
}

struct Sampling<'t> {
    goldens: &'t Tensors,
    guidance: Option<f32>,
    noise: Option<&'t str>,
}

/// Draws the goldens' pictures with an exported model; (N, C, H, W) samples, and the trajectory of each.
fn sample(bytes: &AlignedBytes, how: &Sampling<'_>) -> (Vec<f32>, Vec<Vec<Vec<f32>>>) {
    let model = model(bytes);
    let shape = model.image_shape();
    let len: usize = shape.iter().product();
    let classes = how.goldens.integers("class_labels").expect("integers");
    let latents = to_hwc(&how.goldens.f32("latents").expect("floats").1, shape);
    let noise = how.noise.map(|name| to_hwc(&how.goldens.f32(name).expect("floats").1, shape));
    let mut memory = arena(&model);
    let (mut samples, mut trajectories) = (vec![], vec![]);
    for (index, &class) in classes.iter().enumerate() {
        let mut values = to_fixed(&latents[index * len..(index + 1) * len]);
        // The goldens hold (step, picture, …), the runtime takes one picture's draws in a row.
        for step in noise.iter().flat_map(|noise| noise.chunks_exact(len * classes.len())) {
            values.extend(to_fixed(&step[index * len..(index + 1) * len]));
        }
        let mut request = Request::new().class(class as u16);
        if let Some(guidance) = how.guidance {
            request = request.guidance(Guidance::from_f32(guidance));
        }
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        let run = session.sample_with(request, Given::new(&values, len as u32)).expect("valid");
        let picture = finish(run, true).expect("runs");
        samples.extend(picture.sample);
        trajectories.push(picture.trajectory);
    }
    (to_chw(&samples, shape), trajectories)
}

fn options(precision: Precision, steps: usize, clipped: bool, eta: f64) -> ExportOptions {
    ExportOptions { precision, steps: vec![steps], use_clipped_model_output: Some(clipped), eta, ..Default::default() }
}

fn trajectories() -> (PathBuf, Tensors) {
    (digits(), tensors::read(&golden("digits_trajectories.safetensors")).expect("golden"))
}

#[test]
fn ddim_trajectories_of_every_spacing_and_length() {
    let (checkpoint, goldens) = trajectories();
    for spacing in ["leading", "linspace", "trailing"] {
        let folder = with_scheduler(&checkpoint, serde_json::json!({ "timestep_spacing": spacing }));
        for steps in [10, 20, 50] {
            let export = exported(folder.path(), &options(Precision::F32, steps, false, 0.0));
            let how = Sampling { goldens: &goldens, guidance: None, noise: None };
            let (found, _) = sample(&export.bytes, &how);
            let expected = goldens.f32(&format!("{spacing}_{steps}")).expect("floats").1;
            let error = relative_error(&found, &expected);
            assert!(error <= 1e-3, "{spacing}, {steps} steps: relative error {error:e}");
        }
    }
}

#[test]
fn every_sample_on_the_way() {
    let (checkpoint, goldens) = trajectories();
    let export = exported(&checkpoint, &options(Precision::F32, 10, false, 0.0));
    let (_, found) = sample(&export.bytes, &Sampling { goldens: &goldens, guidance: None, noise: None });
    let expected = goldens.f32("own_10_all").expect("floats").1;
    for step in 0..=10 {
        let found: Vec<f32> = found.iter().flat_map(|picture| picture[step].clone()).collect();
        let error = relative_error(&found, &expected[step * found.len()..(step + 1) * found.len()]);
        assert!(error <= 1e-3, "after {step} steps: relative error {error:e}");
    }
}

#[test]
fn guidance_with_the_clipped_sample_fed_back() {
    let (checkpoint, goldens) = trajectories();
    let export = exported(&checkpoint, &options(Precision::F32, 20, true, 0.0));
    let (found, _) = sample(&export.bytes, &Sampling { goldens: &goldens, guidance: Some(2.0), noise: None });
    let error = relative_error(&found, &goldens.f32("guided_20").expect("floats").1);
    assert!(error <= 1e-3, "relative error {error:e}");
}

#[test]
fn eta_with_given_noise() {
    let (checkpoint, goldens) = trajectories();
    let export = exported(&checkpoint, &options(Precision::F32, 10, false, 0.7));
    let how = Sampling { goldens: &goldens, guidance: None, noise: Some("eta_noise") };
    let (found, _) = sample(&export.bytes, &how);
    let error = relative_error(&found, &goldens.f32("eta_10").expect("floats").1);
    assert!(error <= 1e-3, "relative error {error:e}");
}

#[test]
fn v_prediction() {
    let goldens = tensors::read(&golden("velocity_trajectories.safetensors")).expect("golden");
    for clipped in [false, true] {
        let export = exported(&golden("velocity"), &options(Precision::F32, 10, clipped, 0.0));
        let (found, _) = sample(&export.bytes, &Sampling { goldens: &goldens, guidance: None, noise: None });
        let error = relative_error(&found, &goldens.f32(&format!("clipped_{clipped}")).expect("floats").1);
        assert!(error <= 1e-3, "clipped {clipped}: relative error {error:e}");
    }
}

#[test]
fn half_precision_stays_within_a_percent_per_call() {
    // The first trajectory step of each picture is one call from the same latents in both precisions.
    let (checkpoint, goldens) = trajectories();
    let how = Sampling { goldens: &goldens, guidance: None, noise: None };
    let outputs = [Precision::F32, Precision::F16].map(|precision| {
        let export = exported(&checkpoint, &options(precision, 10, false, 0.0));
        let model = model(&export.bytes);
        let shape = model.image_shape();
        let latents = to_hwc(&how.goldens.f32("latents").expect("floats").1, shape);
        let mut memory = arena(&model);
        let mut outputs = vec![];
        for step in 0..10 {
            let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
            let Some(SamplesMut::Float(values)) = session.input() else { panic!("a float precision") };
            values.copy_from_slice(&latents[..64]);
            let mut prediction = session.predict(0, step, Some(step as u16)).expect("valid");
            while prediction.step().expect("runs") {}
            outputs.push(to_floats(prediction.output()));
        }
        outputs
    });
    for (found, expected) in outputs[1].iter().zip(&outputs[0]) {
        let error = relative_error(found, expected);
        assert!(error <= 1e-2, "relative error {error:e}");
        assert!(error > 0.0, "half precision that equals single precision was not computed in half precision");
    }
}

fn config(row: &serde_json::Value, extra: serde_json::Value) -> SchedulerConfig {
    let mut fields = serde_json::json!({ "_class_name": "DDIMScheduler", "num_train_timesteps": row["train"] });
    fields.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    SchedulerConfig::from_json(&fields.to_string()).expect("a valid configuration")
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn timesteps_are_those_of_diffusers() {
    let text = std::fs::read_to_string(golden("schedules.json")).expect("golden");
    let goldens: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut refused = 0;
    for row in goldens["timesteps"].as_array().expect("a list") {
        let extra = serde_json::json!({ "timestep_spacing": row["spacing"], "steps_offset": row["offset"] });
        let steps = row["steps"].as_u64().expect("a number") as usize;
        match config(row, extra).timesteps(steps) {
            Ok(list) => {
                let text: Vec<String> = list.iter().map(ToString::to_string).collect();
                assert_eq!(hex(text.join(",").as_bytes()), row["sha256"].as_str().expect("text"), "{row}");
            }
            Err(error) => {
                // Only lists that name a timestep that does not exist.
                let last = row["last"].as_array().expect("a list").last().and_then(|t| t.as_i64());
                let first = row["first"][0].as_i64().expect("a number");
                let train = row["train"].as_i64().expect("a number");
                assert!(last == Some(-1) || first >= train, "{row}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 4, "61 and 103 of 1000, 31 and 97 of 100 in trailing spacing, {refused} refused");
}

#[test]
fn alphas_are_those_of_diffusers_to_the_last_bit() {
    let text = std::fs::read_to_string(golden("schedules.json")).expect("golden");
    let goldens: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for row in goldens["alphas_cumprod"].as_array().expect("a list") {
        let extra = serde_json::json!({
            "beta_schedule": row["beta_schedule"], "rescale_betas_zero_snr": row["zero_snr"],
        });
        let alphas = config(row, extra).alphas_cumprod();
        for (at, value) in row["at"].as_array().expect("a list").iter().zip(row["values"].as_array().expect("a list")) {
            let (at, value) = (at.as_u64().expect("a number") as usize, value.as_f64().expect("a number"));
            let error = (f64::from(alphas[at]) - value).abs();
            assert!(error <= 3e-7, "{} {at}: {} but {value}", row["beta_schedule"], alphas[at]);
        }
        // PyTorch's vectorized square root is an ulp off for a handful of entries, which the rescaling goes through.
        if row["zero_snr"] == true {
            continue;
        }
        let bytes: Vec<u8> = alphas.iter().flat_map(|alpha| alpha.to_le_bytes()).collect();
        assert_eq!(hex(&bytes), row["sha256"].as_str().expect("text"), "{}", row["beta_schedule"]);
    }
}

/// With 16 trailing steps diffusers' DDIM leads to timesteps that are not in the list; corrected, it is the first order of
/// DPM-Solver++ (Lu et al., 2022), which goes by the list. Where it hits the list nothing changes.
#[test]
fn corrected_ddim_goes_by_its_list() {
    let trailing =
        serde_json::json!({ "beta_schedule": "linear", "clip_sample": false, "timestep_spacing": "trailing" });
    let folder = with_scheduler(&digits(), trailing);
    let first_order = with_scheduler(
        folder.path(),
        serde_json::json!({ "_class_name": "DPMSolverMultistepScheduler", "solver_order": 1 }),
    );
    let (_, goldens) = trajectories();
    let draw = |checkpoint: &std::path::Path, steps: usize, corrected: bool, clipped: Option<bool>| {
        let options = ExportOptions {
            precision: Precision::F32,
            steps: vec![steps],
            corrected,
            use_clipped_model_output: clipped,
            ..Default::default()
        };
        sample(&exported(checkpoint, &options).bytes, &Sampling { goldens: &goldens, guidance: None, noise: None }).0
    };
    for (steps, hits) in [(10, true), (16, false)] {
        let plain = draw(folder.path(), steps, false, Some(false));
        let corrected = draw(folder.path(), steps, true, Some(false));
        let expected = draw(first_order.path(), steps, false, None);
        assert!(relative_error(&corrected, &expected) < 1e-3, "{steps}");
        assert_eq!(plain == corrected, hits, "{steps}");
    }
    let options = ExportOptions { corrected: true, steps: vec![4], ..Default::default() };
    let refused = export(&Checkpoint::open(first_order.path()).expect("opens"), &options, &());
    assert!(refused.expect_err("refused").to_string().contains("corrected"));
}
