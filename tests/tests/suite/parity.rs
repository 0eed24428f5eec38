//! The kernels of the GPU without a GPU: every body over its whole grid, and the PTX that ships instruction by
//! instruction, held against the runtime.

use std::path::{Path, PathBuf};

use waft::format::Precision;
use waft::{Guidance, Model, Request, Rescale};
use waft_host::checkpoint::{Checkpoint, Options};
use waft_host::export::{Export, ExportOptions, Recipe, ResidualWidth, Shortcuts, WeightWidth, export};
use waft_host::gpu::host::Host;
use waft_host::gpu::{self, Device, GpuError, Launch, Program};
use waft_host::parity::{images, ops, report};
use waft_host::sample::{Batch, draw};
use waft_kernels::Space;
use waft_tests::ptx::Emulator;
use waft_tests::{digits, exported, golden, model};

fn options(precision: Precision) -> ExportOptions {
    ExportOptions { precision, steps: vec![4], calibration_images: 4, ..ExportOptions::default() }
}

/// Scales of each step and joint shortcuts, in 8 bits as far as the network allows.
fn stepwise() -> ExportOptions {
    let recipe = Recipe { step_scales: true, shortcuts: Shortcuts::Joint, ..Recipe::default() };
    ExportOptions { recipe, residual: ResidualWidth::Narrow, ..options(Precision::I8) }
}

fn assert_ops(device: &mut dyn Device, model: &Model<'_>, weights: &[u8]) {
    let ops = ops(device, model, weights, &()).expect("runs");
    assert_eq!(ops.len(), usize::from(model.ops()));
    for op in &ops {
        assert_eq!((op.mismatches, &op.first), (0, &None), "{} on {}", op.op, device.name());
        // No GPU adds in another order here: the float precisions agree in every bit as well.
        assert!(op.elements > 0 && op.max_abs_err == 0.0, "{}: {}", op.op, op.max_abs_err);
    }
}

fn batch(model: &Model<'_>, count: usize) -> Batch {
    let classes = if model.classes() > 0 { (0..count as u16).map(|i| i % model.classes()).collect() } else { vec![] };
    Batch { request: Request::new(), seed: 11, classes, count, ..Batch::default() }
}

/// Networks that together have every form of every operation.
fn checkpoints() -> [PathBuf; 14] {
    let [small, heads, velocity, steps, classes, relu, pixels] =
        ["cifar_small", "heads", "velocity", "scale_shift", "class_timestep", "fourier", "denoising_diffusion"]
            .map(golden);
    let [filtered, channels, sound, trajectory] =
        ["filtered", "class_channels", "unet1d_sound", "unet1d_trajectory"].map(golden);
    let [edm, layers] = ["edm", "edm_classes"].map(|name| golden(name).join("network-snapshot-000001.pkl"));
    [digits(), small, heads, velocity, steps, classes, relu, pixels, filtered, channels, edm, layers, sound, trajectory]
}

#[test]
fn integer_operations_agree_in_every_bit() {
    for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
        let stored = ExportOptions { residual, budget_flash: Some(1 << 24), ..options(Precision::I8) };
        assert_ops(&mut Host::default(), &model(&exported(&digits(), &stored).bytes), &[]);
    }
    for checkpoint in checkpoints() {
        for residual in [ResidualWidth::Auto, ResidualWidth::Narrow, ResidualWidth::Wide] {
            let export = exported(&checkpoint, &ExportOptions { residual, ..options(Precision::I8) });
            assert_ops(&mut Host::default(), &model(&export.bytes), &[]);
        }
        let four = ExportOptions { weights: WeightWidth::Four, ..options(Precision::I8) };
        assert_ops(&mut Host::default(), &model(&exported(&checkpoint, &four).bytes), &[]);
        assert_ops(&mut Host::default(), &model(&exported(&checkpoint, &stepwise()).bytes), &[]);
    }
}

#[test]
fn float_operations_agree_in_every_bit() {
    for checkpoint in checkpoints() {
        for precision in [Precision::F16, Precision::F32] {
            assert_ops(&mut Host::default(), &model(&exported(&checkpoint, &options(precision)).bytes), &[]);
        }
    }
}

#[test]
fn streamed_weights_are_the_same_weights() {
    let stream = ExportOptions { stream: Some(6144), ..options(Precision::I8) };
    for stream in [ExportOptions { stream: Some(16_384), ..options(Precision::F16) }, stream] {
        let export = exported(&digits(), &stream);
        let (model, weights) = (model(&export.bytes), export.weights.expect("streams"));
        assert_ops(&mut Host::default(), &model, &weights);
        assert!(Program::new(&model, &weights[1..]).is_err(), "weights of another size");
    }
}

#[test]
fn pictures_are_the_devices() {
    for (checkpoint, eta, guidance) in [(digits(), 0.0, 1.0), (digits(), 0.7, 2.5), (golden("velocity"), 0.0, 1.0)] {
        let export = exported(&checkpoint, &ExportOptions { eta, ..options(Precision::I8) });
        let model = model(&export.bytes);
        let mut batch = batch(&model, 21);
        batch.request = batch.request.guidance(Guidance::from_f32(guidance));
        // More pictures than a batch holds, and a last batch that is not full.
        let found = images(&mut Host::default(), &model, &batch, Some(8), &()).expect("draws");
        assert_eq!((found.images, found.different), (21, 0), "{}", found.what);
    }
}

/// In an interval of the steps, with a scale for each step, and rescaled, which needs sums over whole pictures.
#[test]
fn guidance_of_steps_is_the_devices() {
    for precision in [Precision::I8, Precision::F16, Precision::F32] {
        let export = exported(&digits(), &options(precision));
        let model = model(&export.bytes);
        let plain = batch(&model, 9);
        let request = plain.request.guidance(Guidance::from_f32(6.0));
        let scales = [1.0, 4.0, 4.0, -1.0].map(Guidance::from_f32).to_vec();
        for (request, guidance) in [
            (request.guidance_interval(1, 3), vec![]),
            (request.guidance_rescale(Rescale::from_f32(0.8)), vec![]),
            (request.guidance_interval(0, 3).guidance_rescale(Rescale::from_f32(1.0)), scales),
        ] {
            let batch = Batch { request, guidance, ..plain.clone() };
            let found = images(&mut Host::default(), &model, &batch, Some(4), &()).expect("draws");
            assert_eq!((found.images, found.different), (9, 0), "{found:?}");
        }
    }
}

/// The digits with dynamic thresholding.
fn thresholded(options: &ExportOptions) -> Export {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scheduler_config.json");
    let text = std::fs::read_to_string(digits().join("scheduler_config.json")).expect("readable");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["thresholding"] = true.into();
    config["sample_max_value"] = 3.0.into();
    config["dynamic_thresholding_ratio"] = 0.8.into();
    std::fs::write(&path, config.to_string()).expect("writes");
    let opened = Options { scheduler_config: Some(path), ..Default::default() };
    export(&Checkpoint::open_with(digits(), &opened).expect("opens"), options, &()).expect("exports")
}

/// Dynamic thresholding needs a quantile over whole pictures, of guided and rescaled outputs too.
#[test]
fn thresholds_are_the_devices() {
    for precision in [Precision::I8, Precision::F16, Precision::F32] {
        let export = thresholded(&options(precision));
        let model = model(&export.bytes);
        let plain = batch(&model, 9);
        let rescaled = plain.request.guidance(Guidance::from_f32(6.0)).guidance_rescale(Rescale::from_f32(0.8));
        for request in [plain.request, rescaled] {
            let batch = Batch { request, ..plain.clone() };
            let found = images(&mut Host::default(), &model, &batch, Some(4), &()).expect("draws");
            assert_eq!((found.images, found.different), (9, 0), "{found:?}");
        }
    }
}

#[test]
fn given_noise_is_taken() {
    for precision in [Precision::I8, Precision::F32] {
        let export = exported(&digits(), &options(precision));
        let model = model(&export.bytes);
        let latents = (0..3 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let batch = Batch { latents: Some(latents), ..batch(&model, 3) };
        let expected = draw(&model, &batch, &()).expect("draws");
        let found = gpu::draw(&mut Host::default(), &model, &batch, None, &()).expect("draws");
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found, "{precision:?}");
        }
    }
}

#[test]
fn what_a_session_refuses_the_gpu_backend_refuses() {
    let export = exported(&golden("cifar_small"), &options(Precision::I8));
    let model = model(&export.bytes);
    let plain = batch(&model, 1);
    let refused = [
        Batch { request: plain.request.class(0), ..plain.clone() },
        Batch { request: plain.request.steps(77), ..plain.clone() },
        Batch { request: plain.request.guidance(Guidance::from_f32(2.0)), ..plain.clone() },
        Batch { guidance: vec![Guidance::from_f32(2.0); 4], ..plain.clone() },
        Batch { guidance: vec![Guidance::NONE; 5], ..plain.clone() },
        Batch { latents: Some(vec![0.0; 3]), ..plain.clone() },
    ];
    for batch in refused {
        let error = gpu::draw(&mut Host::default(), &model, &batch, None, &());
        assert!(draw(&model, &batch, &()).is_err() && error.is_err(), "{batch:?}");
    }
}

/// A device with one wrong bit: in what is read from the arenas at one time, and in the bytes of pictures.
struct Faulty {
    host: Host,
    reads: usize,
    wrong_read: usize,
}

impl Device for Faulty {
    fn name(&self) -> String {
        "faulty".into()
    }

    fn driver(&self) -> Option<String> {
        None
    }

    fn capacity(&mut self, program: &Program) -> Result<u32, GpuError> {
        self.host.capacity(program)
    }

    fn prepare(&mut self, program: &Program, batch: u32) -> Result<(), GpuError> {
        self.host.prepare(program, batch)
    }

    fn write(&mut self, space: Space, at: usize, bytes: &[u8]) -> Result<(), GpuError> {
        self.host.write(space, at, bytes)
    }

    fn read(&mut self, space: Space, at: usize, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.host.read(space, at, bytes)?;
        self.reads += 1;
        bytes[5] ^= u8::from(self.reads - 1 == self.wrong_read);
        Ok(())
    }

    fn launch(&mut self, launches: &[Launch], times: u32) -> Result<(), GpuError> {
        self.host.launch(launches, times)
    }
}

#[test]
fn a_wrong_bit_is_found_and_located() {
    let export = exported(&digits(), &ExportOptions { residual: ResidualWidth::Narrow, ..options(Precision::I8) });
    let model = model(&export.bytes);
    // Nine cases are read for each operation; the fourth operation is a convolution of bytes.
    let mut device = Faulty { host: Host::default(), reads: 0, wrong_read: 4 * 9 + 3 };
    let ops = ops(&mut device, &model, &[], &()).expect("runs");
    let wrong: Vec<usize> = (0..ops.len()).filter(|&op| ops[op].mismatches > 0).collect();
    assert_eq!(wrong, [4]);
    let first = ops[4].first.as_ref().expect("located");
    assert_eq!((ops[4].mismatches, first.index, first.case.as_str()), (1, 5, "noise"));
    assert_eq!((first.expected - first.found).abs(), 1.0);
    assert!(report::html("digits", "faulty", &ops, &[]).contains("element 5"));

    // The bytes of pictures are the first thing that a drawing reads.
    let mut device = Faulty { host: Host::default(), reads: 0, wrong_read: 0 };
    let found = images(&mut device, &model, &batch(&model, 2), None, &()).expect("draws");
    assert_eq!((found.different, found.max_byte_err), (1, 1));
}

/// The instructions that ship, with every access checked and every race refused.
#[test]
fn shipped_ptx_computes_what_the_device_computes() {
    let check = |checkpoint: &Path, options: &ExportOptions| {
        assert_ops(&mut Emulator::default(), &model(&exported(checkpoint, options).bytes), &[]);
    };
    // The largest: its pictures are drawn by these instructions in other precisions, below.
    let [largest, others @ ..] = checkpoints();
    check(&largest, &options(Precision::I8));
    for checkpoint in others {
        for precision in [Precision::I8, Precision::F16, Precision::F32] {
            check(&checkpoint, &options(precision));
        }
        check(&checkpoint, &stepwise());
    }
}

#[test]
fn shipped_ptx_draws_the_devices_pictures() {
    for (precision, guidance, rescale) in
        [(Precision::I8, 1.0, 0.0), (Precision::I8, 2.5, 0.0), (Precision::I8, 2.5, 0.7), (Precision::F32, 2.5, 0.7)]
    {
        let export = exported(&digits(), &ExportOptions { eta: 0.5, ..options(precision) });
        let model = model(&export.bytes);
        let mut batch = batch(&model, 4);
        let request = batch.request.guidance(Guidance::from_f32(guidance)).guidance_rescale(Rescale::from_f32(rescale));
        // Steps with and without guidance.
        batch.request = request.guidance_interval(1, 3);
        let found = images(&mut Emulator::default(), &model, &batch, None, &()).expect("draws");
        assert_eq!((found.images, found.different), (4, 0), "{found:?}");
    }
    for precision in [Precision::I8, Precision::F32] {
        let export = thresholded(&options(precision));
        let model = model(&export.bytes);
        let plain = batch(&model, 3);
        let request = plain.request.guidance(Guidance::from_f32(2.5)).guidance_interval(1, 3);
        let found = images(&mut Emulator::default(), &model, &Batch { request, ..plain }, None, &()).expect("draws");
        assert_eq!((found.images, found.different), (3, 0), "{found:?}");
    }
}
