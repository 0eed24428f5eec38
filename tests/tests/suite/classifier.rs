//! Classifier guidance of the digits against PyTorch's automatic differentiation and diffusers' DDIM
//! (`tests/goldens/classifier.py`), in every precision and on the GPU backend.

use std::path::Path;

use waft::format::Precision;
use waft::{Guidance, Model, Request, RequestError, Session};
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{Export, ExportOptions, export};
use waft_host::gpu::host::Host;
use waft_host::parity::{images, ops};
use waft_host::sample::{Batch, arena, draw, set_input};
use waft_host::tensors::{self, Tensors};
use waft_tests::{digits, exported, golden, model, oracle, psnr, relative_error};

const STEPS: usize = 10;

fn goldens() -> Tensors {
    tensors::read(&golden("classifier.safetensors")).expect("golden")
}

fn floats(name: &str) -> Vec<f32> {
    goldens().f32(name).expect("floats").1
}

fn options(precision: Precision, unconditional: bool) -> ExportOptions {
    let classifier = Some(digits().with_file_name("guide"));
    ExportOptions { precision, classifier, unconditional, steps: vec![STEPS], ..ExportOptions::default() }
}

fn guided(precision: Precision, unconditional: bool) -> Export {
    exported(&digits(), &options(precision, unconditional))
}

/// What the network's gradient is in each of the golden's steps.
fn gradients(model: &Model<'_>) -> Vec<Vec<f32>> {
    let (samples, labels) = (floats("sample"), goldens().integers("labels").expect("integers"));
    let tensor = model.tensor(model.header().gradient).expect("it has one");
    let mut memory = arena(model);
    let mut session = Session::new(model, memory.as_mut_slice()).expect("fits");
    let gradient = |(step, (sample, label)): (usize, (&[f32], i64))| {
        set_input(&mut session, sample).expect("a sample");
        let mut call = session.predict(0, step as u32, Some(label as u16)).expect("a step");
        while call.step().expect("runs") {}
        let bytes = call.tensor_bytes(model.header().gradient).expect("there");
        oracle::reals(&tensor, bytes).into_iter().map(|value| value as f32).collect()
    };
    samples.chunks_exact(64).zip(labels).enumerate().map(gradient).collect()
}

/// Those of PyTorch, times the factor of a network that predicts noise.
fn expected_gradients() -> Vec<Vec<f32>> {
    let config = Checkpoint::open(digits()).expect("opens").scheduler().expect("its own").clone();
    let alphas = config.alphas_cumprod();
    let timesteps = goldens().integers("timesteps").expect("integers");
    let scaled = |(gradient, timestep): (&[f32], i64)| {
        let factor = -(1.0 - alphas[timestep as usize]).sqrt();
        gradient.iter().map(|value| factor * value).collect()
    };
    floats("gradient").chunks_exact(64).zip(timesteps).map(scaled).collect()
}

#[test]
fn gradients_are_those_of_automatic_differentiation() {
    for (precision, most) in [(Precision::F32, 2e-5), (Precision::F16, 2e-2), (Precision::I8, 0.15)] {
        let export = guided(precision, true);
        let found = gradients(&model(&export.bytes));
        for (step, (found, expected)) in found.iter().zip(expected_gradients()).enumerate() {
            let error = relative_error(found, &expected);
            println!("{precision:?} step {step}: {error:e}");
            assert!(error <= most, "{precision:?} step {step}: {error:e}");
        }
    }
}

fn batch(scale: f32) -> Batch {
    Batch {
        request: Request::new().guidance(Guidance::from_f32(scale)),
        classes: goldens().integers("classes").expect("integers").into_iter().map(|class| class as u16).collect(),
        count: 4,
        latents: Some(floats("latents")),
        ..Batch::default()
    }
}

#[test]
fn pictures_are_guided_as_diffusers_guides_them() {
    for (unconditional, kind) in [(true, "unconditional"), (false, "conditional")] {
        for precision in [Precision::F32, Precision::F16, Precision::I8] {
            let export = guided(precision, unconditional);
            for scale in [0.0, 1.0, 4.0] {
                let expected = floats(&format!("drawn {kind} {scale:.0}"));
                let drawn = draw(&model(&export.bytes), &batch(scale), &()).expect("draws");
                let found: Vec<f32> = drawn.into_iter().flat_map(|picture| picture.sample).collect();
                let (error, ratio) = (relative_error(&found, &expected), psnr(&found, &expected));
                println!("{kind} {precision:?} {scale}: {error:e}, {ratio:.1} dB");
                match precision {
                    Precision::F32 => assert!(error <= 1e-3, "{kind}, scale {scale}: {error:e}"),
                    Precision::F16 => assert!(ratio >= 40.0, "{kind}, scale {scale}: {ratio:.1} dB"),
                    Precision::I8 => assert!(ratio >= 24.0, "{kind}, scale {scale}: {ratio:.1} dB"),
                }
            }
        }
    }
}

#[test]
fn the_gpu_backend_draws_the_same() {
    for precision in [Precision::F32, Precision::F16, Precision::I8] {
        let export = guided(precision, false);
        let model = model(&export.bytes);
        let mut device = Host::default();
        for parity in ops(&mut device, &model, &[], &()).expect("runs") {
            assert_eq!(parity.mismatches, 0, "{precision:?} {}", parity.op);
        }
        for scale in [1.0, 3.0] {
            let batch = Batch { latents: None, seed: 3, ..batch(scale) };
            let parity = images(&mut device, &model, &batch, None, &()).expect("draws");
            assert_eq!(parity.different, 0, "{precision:?}, scale {scale}: {parity:?}");
        }
    }
}

#[test]
fn one_network_call_is_enough_whatever_the_scale() {
    let export = guided(Precision::I8, true);
    let model = model(&export.bytes);
    let slices = |scale: f32| {
        let mut memory = arena(&model);
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        let request = Request::new().class(1).guidance(Guidance::from_f32(scale));
        let mut run = session.sample(request).expect("valid");
        let told = run.progress().slices;
        let mut taken = 0;
        while run.step().expect("runs").is_some() {
            taken += 1;
        }
        assert_eq!(taken, told, "scale {scale}");
        taken
    };
    assert_eq!(slices(1.0), slices(5.0));
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    assert_eq!(session.sample(Request::new()).err(), Some(RequestError::ClassMissing));
    assert_eq!(session.sample(Request::new().class(10)).err(), Some(RequestError::Class { asked: 10, classes: 10 }));
}

fn refusal(classifier: &Path, change: impl FnOnce(&mut ExportOptions), checkpoint: &Path) -> String {
    let mut options = ExportOptions { classifier: Some(classifier.into()), ..options(Precision::F32, false) };
    change(&mut options);
    let checkpoint = Checkpoint::open(checkpoint).expect("opens");
    export(&checkpoint, &options, &()).err().map(|error| error.to_string()).expect("refused")
}

#[test]
fn classifiers_that_do_not_fit_are_refused_by_what_differs() {
    let guide = digits().with_file_name("guide");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        std::fs::copy(guide.join("classifier.safetensors"), at("classifier.safetensors")).expect("copies");
        let text = std::fs::read_to_string(guide.join("config.json")).expect("readable");
        let mut config = serde_json::from_str(&text).expect("JSON");
        change(&mut config);
        std::fs::write(at("config.json"), config.to_string()).expect("writes");
        refusal(folder.path(), |_| (), &digits())
    };
    for (field, value, expected) in [
        ("sample_size", 16.into(), "the classifier reads 16×16×1, the network draws 8×8×1"),
        ("in_channels", 3.into(), "the classifier reads 8×8×3, the network draws 8×8×1"),
        ("num_classes", 9.into(), "the classifier tells 9 classes apart, the network draws 10"),
        ("time_embedding_dim", 31.into(), "time_embedding_dim = 31: an even number"),
        ("time_embedding_dim", 16.into(), "time.weight [32, 32]: [16, 16], as config.json says"),
        ("pools", serde_json::json!([true]), "pools = [true]: one entry for each of channels"),
        ("pools", serde_json::json!([true, true, true]), "head.weight"),
        ("sample_size", 6.into(), "the classifier reads 6×6×1"),
        ("channels", serde_json::json!([]), "channels = []"),
        ("channels", serde_json::json!([16, 32]), "pools"),
        ("depth", 3.into(), "unknown field `depth`"),
    ] {
        let refused = changed(&|config| config[field] = value.clone());
        assert!(refused.contains(expected), "{field} {value}: {refused}");
    }
    let refused = changed(&|config| config["scheduler"]["beta_schedule"] = "linear".into());
    assert!(refused.starts_with("the classifier was trained with other noise levels: at timestep 0"), "{refused}");
    let refused = changed(&|config| config["scheduler"]["num_train_timesteps"] = 500.into());
    assert!(refused.starts_with("the classifier was trained with other noise levels"), "{refused}");
    // Noise levels that are no table of betas cannot be compared by one, however equal the tables.
    let flow = "FlowMatchEulerDiscreteScheduler";
    let refused = changed(&|config| config["scheduler"] = serde_json::json!({ "_class_name": flow }));
    assert!(refused.contains("do not follow from betas"), "{refused}");
    let refused = refusal(&at("nowhere"), |_| (), &digits());
    assert!(refused.contains("nowhere/config.json"), "{refused}");
    let refused = refusal(&guide, |options| (options.classifier, options.unconditional) = (None, true), &digits());
    assert!(refused.starts_with("unconditional = true: is for networks that a classifier guides"), "{refused}");
    let refused = refusal(&guide, |_| (), &golden("velocity"));
    assert!(refused.starts_with("the classifier reads 8×8×1, the network draws 6×6×2"), "{refused}");
    let refused = refusal(&guide, |_| (), &golden("edm_classes/network-snapshot-000001.pkl"));
    assert!(refused.contains("before the layers of the noise level"), "{refused}");
}

/// A sample at alpha 0 is noise, of which a classifier says nothing: the step is drawn without its gradient, and said to be.
#[test]
fn steps_without_signal_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (checkpoint, classifier) = (folder.path().join("checkpoint"), folder.path().join("guide"));
    for (from, to) in [(digits(), &checkpoint), (digits().with_file_name("guide"), &classifier)] {
        std::fs::create_dir(to).expect("a folder");
        for file in std::fs::read_dir(from).expect("a folder") {
            let file = file.expect("an entry");
            std::fs::copy(file.path(), to.join(file.file_name())).expect("copies");
        }
    }
    let rewrite = |path: std::path::PathBuf, change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::from_str(&std::fs::read_to_string(&path).expect("readable")).expect("JSON");
        change(&mut json);
        std::fs::write(path, json.to_string()).expect("writes");
    };
    let notes = || {
        let options = ExportOptions { classifier: Some(classifier.clone()), ..options(Precision::F32, false) };
        let checkpoint = Checkpoint::open(&checkpoint).expect("opens");
        export(&checkpoint, &options, &()).expect("exports").report.notes.join("\n")
    };
    assert!(!notes().contains("does not guide"), "{}", notes());
    let zero = |scheduler: &mut serde_json::Value| {
        scheduler["rescale_betas_zero_snr"] = true.into();
        scheduler["prediction_type"] = "v_prediction".into();
        scheduler["timestep_spacing"] = "trailing".into();
    };
    rewrite(checkpoint.join("scheduler_config.json"), &zero);
    rewrite(classifier.join("config.json"), &|config| zero(&mut config["scheduler"]));
    assert!(
        notes().contains("the classifier does not guide steps at timestep 999: the sample has no signal"),
        "{}",
        notes()
    );
}
