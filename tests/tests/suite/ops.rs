//! Every operation in every precision through one suite: each is run inside a real network and its result held against an
//! oracle that computes it from the very values that it read.

use waft::format::{self, Affine, Precision};
use waft::{Model, Request, SamplesMut, Session};
use waft_host::export::{Export, ExportOptions, Recipe, ResidualWidth, Room, Shortcuts, WeightWidth};
use waft_host::network::{Op, OpId, Role, TensorId};
use waft_host::sample::{AlignedBytes, arena};
use waft_host::shipped;
use waft_tests::{digits, exported, golden, model, oracle};

fn options(precision: Precision, residual: ResidualWidth) -> ExportOptions {
    ExportOptions { precision, residual, steps: vec![4], calibration_images: 4, ..Default::default() }
}

/// Digits with their classifier.
fn classified(precision: Precision) -> ExportOptions {
    let classifier = Some(digits().with_file_name("guide"));
    ExportOptions { classifier, ..options(precision, ResidualWidth::Auto) }
}

/// Visits every operation of one network call: its index, what its operands held before and its result after.
fn visit(model: &Model<'_>, step: u32, mut check: impl FnMut(u16, &dyn Fn(u16) -> Vec<u8>, Vec<u8>)) {
    let mut memory = arena(model);
    let mut session = Session::new(model, memory.as_mut_slice()).expect("fits");
    // The initial noise of a seed.
    let class = (model.classes() > 0).then_some(oracle::classifier::CLASS as u16);
    let mut request = Request::new().seed(99);
    if let Some(class) = class {
        request = request.class(class);
    }
    {
        let mut run = session.sample(request).expect("valid");
        while run.starts().is_none() {
            run.step().expect("runs");
        }
    }
    assert!(matches!(session.input(), Some(SamplesMut::Fixed(_) | SamplesMut::Float(_))));
    let mut call = session.predict(0, step, class).expect("valid");
    let mut before: Option<(u16, Vec<Vec<u8>>)> = None;
    loop {
        let starts = call.starts();
        if let (Some((index, tensors)), true) = (&before, starts.is_some()) {
            let output = model.op(*index).expect("exists").output();
            let result = call.tensor_bytes(output).expect("exists").to_vec();
            check(*index, &|id| tensors[usize::from(id)].clone(), result);
        }
        if let Some(index) = starts {
            let tensors = (0..model.tensors()).map(|id| call.tensor_bytes(id).expect("exists").to_vec()).collect();
            before = Some((index, tensors));
        }
        if !call.step().expect("runs") {
            break;
        }
    }
    let (index, tensors) = before.expect("there are operations");
    let output = model.op(index).expect("exists").output();
    let result = call.tensor_bytes(output).expect("exists").to_vec();
    check(index, &|id| tensors[usize::from(id)].clone(), result);
}

/// Signal to error in decibels.
fn sqnr(found: &[f64], expected: &[f64]) -> f64 {
    let signal: f64 = expected.iter().map(|x| x * x).sum();
    let error: f64 = expected.iter().zip(found).map(|(a, b)| (a - b) * (a - b)).sum();
    10.0 * (signal / error.max(1e-300)).log10()
}

/// Least signal-to-error ratio of one operation, given what it read. In the `i8` precision weights and inner activations
/// have eight bits, which leaves some 30 dB for a convolution of random weights; gradients are a tenth of their range in
/// some steps.
fn floor(precision: Precision, is_gradient: bool) -> f64 {
    match precision {
        Precision::I8 if is_gradient => 15.0,
        Precision::I8 => 24.0,
        Precision::F16 => 55.0,
        Precision::F32 => 115.0,
    }
}

fn real_suite(export: &Export) {
    let model = model(&export.bytes);
    let mut seen = [0; 9];
    visit(&model, 1, |index, read, result| {
        let op = &export.network.ops[OpId::from(index)].1;
        // Integer maps and bias vectors have scales of their own, which the integer suite knows.
        let real = |id: TensorId| {
            model.precision() != Precision::I8
                || matches!(
                    export.network.tensors[id].role,
                    Role::Sample
                        | Role::Prediction
                        | Role::Unconditional
                        | Role::Stream
                        | Role::Attention
                        | Role::Gradient
                        | Role::Features
                        | Role::Backward
                        | Role::Loss
                )
        };
        if !op.inputs().into_iter().chain([op.output()]).all(real) {
            return;
        }
        let values = |id: TensorId| oracle::reals(&model.tensor(id.in_file()).expect("exists"), &read(id.in_file()));
        let Some(expected) = oracle::real_result(&export.network, index.into(), &values) else { return };
        let found = oracle::reals(&model.tensor(op.output().in_file()).expect("exists"), &result);
        let ratio = sqnr(&found, &expected);
        let name = &export.network.ops[OpId::from(index)].0;
        let floor = floor(model.precision(), name.ends_with("(gradient)"));
        assert!(ratio >= floor, "{name}: {ratio:.1} dB in {:?}", model.precision());
        seen[match op {
            Op::Conv2d(_) => 0,
            Op::GroupNorm(_) => 1,
            Op::Attention(_) => 2,
            Op::Linear(_) | Op::Embed(_) | Op::Observe(_) => 3,
            Op::Activate(_) => 4,
            Op::LayerNorm(_) => 5,
            Op::LinearAttention(_) => 6,
            Op::Classifier(_) => 7,
            Op::Filter(_) => 8,
        }] += 1;
    });
    assert!(seen[0] >= 3, "{seen:?}");
}

/// Scales of each step, in 8 bits as far as the network allows.
fn stepwise(weights: WeightWidth, shortcuts: Shortcuts) -> ExportOptions {
    let recipe = Recipe { step_scales: true, shortcuts, ..Recipe::default() };
    ExportOptions { recipe, weights, ..options(Precision::I8, ResidualWidth::Narrow) }
}

/// Every convolution bit for bit against the unfolded one. Returns how many have scales of each step.
fn integer_suite(export: &Export) -> usize {
    let model = model(&export.bytes);
    let step = 2;
    let (mut seen, mut stepwise) = (0, 0);
    let schedule = model.schedule(0).expect("there is one");
    let biases = &model.bytes()[(schedule.biases + step * schedule.bias_bytes) as usize..];
    visit(&model, step, |index, read, result| {
        let Some(format::Op::Conv2d(op)) = model.op(index) else { return };
        let read = |id: u16| oracle::integers(&model.tensor(id).expect("exists"), &read(id));
        let expected = oracle::integer_conv(&model, &op, biases, &read);
        let found = oracle::integers(&model.tensor(op.output).expect("exists"), &result);
        let first = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(first, None, "{} differs", export.network.ops[OpId::from(index)].0);
        seen += 1;
        stepwise += usize::from(op.weight_sums != 0);
    });
    assert!(seen >= 3);
    stepwise
}

/// Integer normalization maps against real statistics of the same integers.
fn norm_suite(export: &Export) {
    let model = model(&export.bytes);
    visit(&model, 0, |index, read, result| {
        let Some(format::Op::GroupNorm(op)) = model.op(index) else { return };
        let values = |id: TensorId| {
            let tensor = model.tensor(id.in_file()).expect("exists");
            let mut reals = oracle::reals(&tensor, &read(id.in_file()));
            if op.affine() == Affine::Tensor && id.in_file() == op.affine_tensor {
                // Factors have 20 fractional bits, summands 12.
                let (factors, summands) = reals.split_at_mut(tensor.len() / 2);
                factors.iter_mut().for_each(|factor| *factor /= 1_048_576.0);
                summands.iter_mut().for_each(|summand| *summand /= 4096.0);
            }
            reals
        };
        let expected = oracle::real_result(&export.network, index.into(), &values).expect("a map");
        let map = oracle::integers(&model.tensor(op.output).expect("exists"), &result);
        // Applied to what the operation read, the integer map gives the real one's values to a few units of 2⁻¹².
        let mut channel = 0;
        for id in op.sources.into_iter().filter(|&id| id != format::NONE) {
            let tensor = model.tensor(id).expect("exists");
            let integers = oracle::integers(&tensor, &read(id));
            let reals = oracle::reals(&tensor, &read(id));
            let width = usize::from(tensor.channels);
            for (at, (&q, &x)) in integers.iter().zip(&reals).enumerate() {
                let c = channel + at % width;
                let found = ((q * map[2 * c]) >> op.affine_shift) + map[2 * c + 1];
                let want = x * expected[2 * c] + expected[2 * c + 1];
                let error = (found as f64 / 4096.0 - want).abs();
                assert!(error <= 2e-3 + 2e-4 * want.abs(), "channel {c}: {want} became {}", found as f64 / 4096.0);
            }
            channel += width;
        }
    });
}

/// The suites for one precision over networks that together reach every form of every operation.
macro_rules! precision_suite {
    ($name:ident, $precision:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn digits_network() {
                real_suite(&exported(&digits(), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn downsampling_without_padding_and_one_head() {
                real_suite(&exported(&golden("cifar_small"), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn heads_centered_input_and_output_factor() {
                real_suite(&exported(&golden("heads"), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn scaled_and_shifted_normalizations_of_steps_and_mish() {
                real_suite(&exported(&golden("scale_shift"), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn scaled_and_shifted_normalizations_of_classes_and_gelu() {
                real_suite(&exported(&golden("class_timestep"), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn relu_and_vectors_for_classes() {
                real_suite(&exported(&golden("fourier"), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn classifiers_and_their_gradients() {
                real_suite(&exported(&digits(), &classified($precision)));
            }

            #[test]
            fn normalized_pixels_linear_attention_and_learned_keys() {
                real_suite(&exported(&golden("denoising_diffusion"), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn rows_that_filters_halve_and_double() {
                real_suite(&exported(&golden("unet1d_sound"), &options($precision, ResidualWidth::Auto)));
            }

            #[test]
            fn no_attention_and_odd_sizes() {
                real_suite(&exported(&golden("velocity"), &options($precision, ResidualWidth::Auto)));
            }
        }
    };
}

#[test]
fn the_suite_has_every_operation() {
    let kinds_of = |bytes: &AlignedBytes| -> Vec<u8> {
        let model = model(bytes);
        (0..model.ops()).map(|index| model.op(index).expect("exists").bytes()[0]).collect()
    };
    let export = exported(&digits(), &options(Precision::F32, ResidualWidth::Auto));
    let mut kinds = kinds_of(&export.bytes);
    // Those of policies are held against their own network in `policies.rs`, which has this one.
    kinds.extend(kinds_of(&shipped::find("reach", None, None, &()).expect("a shipped model")));
    // Those over the channels of pixels are in `denoising_diffusion.rs` too.
    let export = exported(&golden("denoising_diffusion"), &options(Precision::F32, ResidualWidth::Auto));
    kinds.extend(kinds_of(&export.bytes));
    let export = exported(&golden("unet1d_sound"), &options(Precision::F32, ResidualWidth::Auto));
    kinds.extend(kinds_of(&export.bytes));
    // Those of a classifier are held against PyTorch in `classifier.rs` too.
    let export = exported(&digits(), &classified(Precision::F32));
    kinds.extend(kinds_of(&export.bytes));
    for kind in format::OpKind::ALL {
        assert!(kinds.contains(&kind.code()), "no suite has {kind:?}: let a model of this one have it");
    }
}

precision_suite!(f32, Precision::F32);
precision_suite!(f16, Precision::F16);
precision_suite!(i8, Precision::I8);

/// The checkpoints whose integers are looked at; `None` is digits.
const INTEGER: [Option<&str>; 8] = [
    None,
    Some("cifar_small"),
    Some("heads"),
    Some("velocity"),
    Some("scale_shift"),
    Some("class_timestep"),
    Some("fourier"),
    Some("denoising_diffusion"),
];

#[test]
fn integer_convolutions_are_exact_in_every_width() {
    for name in INTEGER {
        let checkpoint = name.map_or_else(digits, golden);
        // Its normalizations over the channels of pixels are operations of their own, not in front of a ring.
        let with_scales = if name == Some("denoising_diffusion") { 0..1 } else { 3..usize::MAX };
        for residual in [ResidualWidth::Auto, ResidualWidth::Narrow, ResidualWidth::Wide] {
            integer_suite(&exported(&checkpoint, &options(Precision::I8, residual)));
        }
        let four = ExportOptions { weights: WeightWidth::Four, ..options(Precision::I8, ResidualWidth::Auto) };
        assert_eq!(integer_suite(&exported(&checkpoint, &four)), 0, "it is an option");
        for weights in [WeightWidth::Eight, WeightWidth::Four] {
            let found = integer_suite(&exported(&checkpoint, &stepwise(weights, Shortcuts::Joint)));
            assert!(with_scales.contains(&found), "{name:?}: {found} convolutions have scales of each step");
        }
    }
}

/// The file has the weights of tiles transformed, where flash is free: over rings of both widths, with scales of each step.
#[test]
fn integer_convolutions_of_transformed_weights_are_exact() {
    for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
        for step_scales in [false, residual == ResidualWidth::Narrow] {
            let recipe = Recipe { step_scales, ..Recipe::default() };
            let patches = Room::Bytes(1 << 20);
            let options =
                ExportOptions { budget_flash: Some(1 << 24), recipe, patches, ..options(Precision::I8, residual) };
            let export = exported(&digits(), &options);
            let parsed = model(&export.bytes);
            let ops: Vec<_> = (0..parsed.ops()).filter_map(|index| parsed.op(index)).collect();
            let stored = |op: &&format::Op| matches!(op, format::Op::Conv2d(op) if op.layout().is_transformed());
            assert!(ops.iter().filter(stored).count() >= 4, "{residual:?}");
            integer_suite(&export);
        }
    }
}

/// The oracle of integers takes the scales of a step as they are; that they stand for the network's values shows in its
/// prediction.
#[test]
fn integer_filters_are_exact_in_every_width() {
    for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
        let export = exported(&golden("unet1d_sound"), &options(Precision::I8, residual));
        let model = model(&export.bytes);
        let mut seen = 0;
        visit(&model, 1, |index, read, result| {
            let Some(format::Op::Filter(op)) = model.op(index) else { return };
            let read = |id: u16| oracle::integers(&model.tensor(id).expect("exists"), &read(id));
            let found = oracle::integers(&model.tensor(op.output).expect("exists"), &result);
            assert_eq!(found, oracle::filter::of_integers(&model, &op, &read), "{:?}", op.resampling());
            seen += 1;
        });
        assert_eq!(seen, 4, "two on the way down, two on the way up");
    }
}

#[test]
fn scales_of_each_step_mean_the_same_real_values() {
    for checkpoint in [digits(), golden("cifar_small"), golden("heads"), golden("velocity")] {
        let prediction = |options: &ExportOptions| {
            let export = exported(&checkpoint, options);
            let model = model(&export.bytes);
            let mut last = vec![];
            visit(&model, 0, |index, _, result| {
                let output = model.op(index).expect("exists").output();
                last = oracle::reals(&model.tensor(output).expect("exists"), &result);
            });
            last
        };
        let expected = prediction(&options(Precision::F32, ResidualWidth::Auto));
        let one = sqnr(&prediction(&options(Precision::I8, ResidualWidth::Narrow)), &expected);
        let each = sqnr(&prediction(&stepwise(WeightWidth::Eight, Shortcuts::Split)), &expected);
        println!("{}: {one:.1} dB, with scales of each step {each:.1} dB", checkpoint.display());
        // Ranges of a step are estimated from fewer values; a wrong scale would cost tens of decibels.
        assert!(each >= one - 3.0, "{one:.1} dB became {each:.1}");
    }
}

#[test]
fn integer_normalizations_follow_the_real_statistics() {
    let names = ["cifar_small", "heads", "class_timestep"].map(golden);
    for checkpoint in [digits()].into_iter().chain(names) {
        for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
            norm_suite(&exported(&checkpoint, &options(Precision::I8, residual)));
        }
    }
}

/// A whole call in integers against the same in single precision, over random weights, which is harder than a trained network:
/// nothing there makes up for what rounding loses.
#[test]
fn integer_calls_of_every_configuration_stay_close() {
    let names = ["heads", "resampling", "scale_shift", "class_timestep", "fourier", "denoising_diffusion"];
    let more =
        ["filtered", "class_channels", "edm/network-snapshot-000001.pkl", "edm_classes/network-snapshot-000001.pkl"];
    for name in names.into_iter().chain(more) {
        let output = |precision| {
            let export = exported(&golden(name), &options(precision, ResidualWidth::Auto));
            let model = model(&export.bytes);
            let mut last = vec![];
            visit(&model, 1, |index, _, result| {
                let output = model.op(index).expect("exists").output();
                last = oracle::reals(&model.tensor(output).expect("exists"), &result);
            });
            last
        };
        let ratio = sqnr(&output(Precision::I8), &output(Precision::F32));
        println!("{name}: {ratio:.1} dB");
        assert!(ratio >= 30.0, "{name}: {ratio:.1} dB");
    }
}

/// Integer attention against the real softmax of the same integers, to one unit of its result.
#[test]
fn integer_attention_follows_the_real_one() {
    let mut seen = 0;
    for checkpoint in [digits(), golden("cifar_small"), golden("heads"), golden("denoising_diffusion")] {
        let export = exported(&checkpoint, &options(Precision::I8, ResidualWidth::Auto));
        let model = model(&export.bytes);
        visit(&model, 1, |index, read, result| {
            let Some(format::Op::Attention(op)) = model.op(index) else { return };
            let read = |id: u16| oracle::integers(&model.tensor(id).expect("exists"), &read(id));
            let channels = usize::from(model.tensor(op.query).expect("exists").channels);
            let as_reals = |values: Vec<i64>| values.into_iter().map(|q| q as f64).collect::<Vec<_>>();
            let learned = (0..usize::from(op.memory) * 2 * channels)
                .map(|at| i64::from(model.bytes()[op.memory_at as usize + at] as i8));
            let (query, key_value) = (read(op.query), learned.chain(read(op.key_value)).collect());
            let (query, key_value) = (as_reals(query), as_reals(key_value));
            let factor = |m: i32, s: i32| f64::from(m) * 2f64.powi(s - 31);
            // A difference of scores is in 1/256 binary orders.
            let scale = factor(op.score_multiplier, op.score_shift) / 256.0 * std::f64::consts::LN_2;
            let mean = oracle::attention(&query, &key_value, channels, op.heads.into(), scale);
            let found = oracle::integers(&model.tensor(op.output).expect("exists"), &result);
            for (found, mean) in found.into_iter().zip(mean) {
                let want = (mean * factor(op.value_multiplier, op.value_shift)).clamp(-128.0, 127.0);
                assert!((found as f64 - want).abs() <= 1.0, "{found} but {want}");
            }
            seen += 1;
        });
    }
    assert!(seen >= 5);
}

/// Integer projections against real sums of the same integers, to one unit of the accumulator they feed.
#[test]
fn integer_projections_are_rounded_sums() {
    let export = exported(&digits(), &options(Precision::I8, ResidualWidth::Auto));
    let model = model(&export.bytes);
    let mut seen = 0;
    visit(&model, 1, |index, read, result| {
        let Some(format::Op::Linear(op)) = model.op(index) else { return };
        let source = oracle::integers(&model.tensor(op.source).expect("exists"), &read(op.source));
        let found = oracle::integers(&model.tensor(op.output).expect("exists"), &result);
        let bytes = model.bytes();
        let word = |at: usize| i32::from_le_bytes(*bytes[at..].first_chunk().expect("inside"));
        for (i, found) in found.into_iter().enumerate() {
            let weight = |j: usize| {
                let at = op.weights as usize + 2 * (i * source.len() + j);
                i64::from(i16::from_le_bytes(*bytes[at..].first_chunk().expect("inside")))
            };
            let sum: i64 = source.iter().enumerate().map(|(j, x)| x * weight(j)).sum();
            let (m, s) = (word(op.requant as usize + 8 * i), word(op.requant as usize + 8 * i + 4));
            let factor = f64::from(m) * 2f64.powi(s - 31);
            let want = sum as f64 / 4096.0 * factor + f64::from(word(op.bias as usize + 4 * i));
            // Rounding of the sum to its upper bits, times the factor, and of the result.
            assert!((found as f64 - want).abs() <= 0.5 * factor + 0.51, "{found} but {want}");
        }
        seen += 1;
    });
    assert_eq!(seen, 8, "one for each residual block");
}

/// What a projection adds to its convolution, in real numbers: the integers are checked through the network's values.
#[test]
fn conditioning_reaches_the_network_in_sixteen_bits() {
    let [quantized, reference] =
        [Precision::I8, Precision::F32].map(|precision| exported(&digits(), &options(precision, ResidualWidth::Auto)));
    let (quantized_model, reference_model) = (model(&quantized.bytes), model(&reference.bytes));
    let mut expected = vec![];
    visit(&reference_model, 3, |index, _, result| {
        if let Op::Embed(embed) = &quantized.network.ops[OpId::from(index)].1 {
            expected = oracle::reals(&reference_model.tensor(embed.output.in_file()).expect("exists"), &result);
        }
    });
    visit(&quantized_model, 3, |index, _, result| {
        if let Some(format::Op::Embed(op)) = quantized_model.op(index) {
            let integers = oracle::integers(&quantized_model.tensor(op.output).expect("exists"), &result);
            let unit = 2f64.powi(op.output_shift as i32 - 15);
            for (found, expected) in integers.into_iter().zip(&expected) {
                assert!((found as f64 * unit - expected).abs() < 2e-3, "{} but {expected}", found as f64 * unit);
            }
        }
    });
    assert!(!expected.is_empty());
}
