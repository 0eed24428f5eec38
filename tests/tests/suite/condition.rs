//! Networks that read a condition beside the sample: against diffusers (`tests/goldens/make.py`), in every precision, on the
//! runtime and on the GPU backend.

use std::path::PathBuf;

use waft::format::{Header, Precision, seal};
use waft::{Model, Request, RequestError, SamplesMut, Session};
use waft_host::checkpoint::Checkpoint;
use waft_host::condition::Conditions;
use waft_host::export::{Export, ExportError, ExportOptions, export, predictor};
use waft_host::fixed::to_floats;
use waft_host::gpu::host::Host;
use waft_host::import::import_for_sampling;
use waft_host::parity::{images, ops};
use waft_host::sample::{Batch, arena, draw, set_input};
use waft_host::tensors::{self, Tensors, to_chw, to_hwc};
use waft_tests::{exported, golden, model, relative_error};

fn trajectories() -> (PathBuf, Tensors) {
    let path = golden("conditioned_trajectories.safetensors");
    let tensors = tensors::read(&path).expect("golden");
    (path, tensors)
}

fn options(precision: Precision) -> ExportOptions {
    let conditions = Some(trajectories().0);
    ExportOptions { precision, conditions, steps: vec![10], calibration_images: 6, ..Default::default() }
}

fn conditions(tensors: &Tensors) -> Conditions {
    let (shape, values) = tensors.f32("condition").expect("floats");
    Conditions::new(&shape, &values, [8, 8, 2]).expect("of that shape")
}

/// Pictures from the golden's noise and conditions; (N, C, H, W).
fn drawn(export: &Export) -> Vec<f32> {
    let (_, tensors) = trajectories();
    let model = model(&export.bytes);
    let latents = to_hwc(&tensors.f32("latents").expect("floats").1, [8, 8, 1]);
    let batch = Batch { count: 3, latents: Some(latents), conditions: conditions(&tensors), ..Batch::default() };
    let pictures = draw(&model, &batch, &()).expect("draws");
    to_chw(&pictures.into_iter().flat_map(|picture| picture.sample).collect::<Vec<_>>(), [8, 8, 1])
}

#[test]
fn calls_are_those_of_diffusers_variances_included() {
    let input = tensors::read(&golden("conditioned_predict.safetensors")).expect("golden");
    let timesteps = input.integers("timestep").expect("integers");
    let bytes = predictor(&Checkpoint::open(golden("conditioned")).expect("opens"), &timesteps).expect("imports");
    let model = model(&bytes);
    assert_eq!((model.image_shape(), model.condition_shape()), ([8, 8, 1], Some([8, 8, 2])));
    let (samples, conditions) = (input.f32("sample").expect("floats").1, conditions(&input));
    let mut memory = arena(&model);
    let mut found = vec![];
    for (call, sample) in to_hwc(&samples, [8, 8, 1]).chunks_exact(64).enumerate() {
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        conditions.give(&mut session, call);
        set_input(&mut session, sample).expect("an input");
        let mut prediction = session.predict(0, call as u32, None).expect("valid");
        while prediction.step().expect("runs") {}
        found.extend(to_floats(prediction.output()));
    }
    let error = relative_error(&to_chw(&found, [8, 8, 2]), &input.f32("out").expect("floats").1);
    assert!(error <= 1e-5, "relative error {error:e}");
}

#[test]
fn pictures_are_those_of_diffusers() {
    let expected = trajectories().1.f32("drawn").expect("floats").1;
    for (precision, least) in [(Precision::F32, 60.0), (Precision::F16, 50.0), (Precision::I8, 30.0)] {
        let export = exported(&golden("conditioned"), &options(precision));
        assert!(export.report.notes.iter().any(|note| note.contains("learned variances are dropped")));
        let found = drawn(&export);
        let signal: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
        let error: f64 = expected.iter().zip(&found).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
        let ratio = 10.0 * (signal / error).log10();
        println!("{precision:?}: {ratio:.1} dB");
        assert!(ratio >= least, "{precision:?}: {ratio:.1} dB");
    }
}

/// It stays from picture to picture until it is replaced, and nothing is drawn before it was given.
#[test]
fn a_session_asks_for_it_once() {
    let export = exported(&golden("conditioned"), &options(Precision::I8));
    let model = model(&export.bytes);
    let mut memory = arena(&model);
    // What the arena held is no condition.
    memory.as_mut_slice().fill(0x55);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    assert_eq!(session.sample(Request::new()).err(), Some(RequestError::ConditionMissing));
    assert_eq!(session.predict(0, 0, None).err(), Some(RequestError::ConditionMissing));
    let mut pictures = vec![];
    for value in [Some(0), None, Some(1 << 19), Some(0)] {
        if let Some(value) = value {
            let Some(SamplesMut::Fixed(condition)) = session.condition() else { panic!("the i8 precision") };
            condition.fill(value);
        }
        let mut run = session.sample(Request::new().seed(5)).expect("valid");
        while run.step().expect("runs").is_some() {}
        pictures.push(run.image().expect("complete").data().to_vec());
    }
    assert_eq!((&pictures[0], &pictures[0]), (&pictures[1], &pictures[3]));
    assert_ne!(pictures[0], pictures[2], "another condition, another picture");
}

#[test]
fn the_gpu_backend_reads_it_too() {
    for precision in [Precision::I8, Precision::F16, Precision::F32] {
        let export = exported(&golden("conditioned"), &options(precision));
        let model = model(&export.bytes);
        for op in ops(&mut Host::default(), &model, &[], &()).expect("runs") {
            assert_eq!((op.mismatches, op.max_abs_err), (0, 0.0), "{}", op.op);
        }
        let batch = Batch { count: 5, conditions: conditions(&trajectories().1), ..Batch::default() };
        let found = images(&mut Host::default(), &model, &batch, Some(2), &()).expect("draws");
        assert_eq!((found.images, found.different), (5, 0), "{precision:?}");
        let without = Batch { count: 1, ..Batch::default() };
        assert!(images(&mut Host::default(), &model, &without, None, &()).is_err(), "no condition");
    }
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    let refusal = |checkpoint: &str, options: &ExportOptions| {
        let checkpoint = Checkpoint::open(golden(checkpoint)).expect("opens");
        export(&checkpoint, options, &()).expect_err("refused")
    };
    let without = ExportOptions { conditions: None, ..options(Precision::I8) };
    let error = refusal("conditioned", &without);
    assert!(matches!(error, ExportError::NoConditions { channels: 2, .. }), "{error}");
    let error = refusal("velocity", &options(Precision::F32));
    assert!(error.to_string().contains("reads no condition"), "{error}");
    // Pictures in single precision need none: nothing is calibrated.
    assert!(
        export(
            &Checkpoint::open(golden("conditioned")).expect("opens"),
            &ExportOptions { conditions: None, ..options(Precision::F32) },
            &()
        )
        .is_ok()
    );
}

/// Three channels in, two out: without a word about them one is a condition, and the output is the sample's.
#[test]
fn channels_that_waft_json_does_not_explain_follow_from_the_output() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = |defaults: Option<&str>| {
        for entry in std::fs::read_dir(golden("conditioned")).expect("there").map(|entry| entry.expect("an entry")) {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copies");
        }
        let path = folder.path().join("waft.json");
        match defaults {
            Some(text) => std::fs::write(path, text).expect("writes"),
            None => std::fs::remove_file(path).expect("removes"),
        }
        Checkpoint::open(folder.path()).expect("opens")
    };
    let graph = import_for_sampling(&copy(None)).expect("imports");
    assert_eq!((graph.shape(graph.input).c, graph.condition.map(|id| graph.shape(id).c)), (2, Some(1)));
    let error =
        import_for_sampling(&copy(Some(r#"{"condition_channels": 0}"#))).expect_err("three in, two out").to_string();
    assert!(error.contains("3 channels and its output 2") && error.contains("condition_channels"), "{error}");
    let error = import_for_sampling(&copy(Some(r#"{"condition_channels": 3}"#))).expect_err("no sample").to_string();
    assert!(error.contains("in_channels = 3"), "{error}");
}

#[test]
fn headers_that_name_no_condition_of_their_own_are_refused() {
    let export = exported(&golden("conditioned"), &options(Precision::I8));
    let header = *model(&export.bytes).header();
    for condition in [header.prediction, header.tensors, header.condition + 1] {
        let mut copy = export.bytes.clone();
        let mut forged: Header = header;
        forged.condition = condition;
        copy.as_mut_slice()[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&forged));
        seal(copy.as_mut_slice());
        assert!(Model::from_bytes(copy.as_slice()).is_err(), "{condition}");
    }
}
