//! `predict`.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use waft::format::Output;
use waft::{Accelerator, Model, Precision, Session};

use super::args::{CheckpointArgs, check_extension, tell_unread};
use super::output::{self, print_json, write_whole};
use crate::checkpoint::{ClassVectors, MOST_CLASSES, is_weights};
use crate::condition::Conditions;
use crate::export::{precision_name, predictor};
use crate::fixed::{fits_fixed, to_floats};
use crate::sample::{AlignedBytes, arena, set_input, timesteps};
use crate::shipped;
use crate::tensors::{self, Tensors, to_chw, to_hwc};
use crate::threads::together;

/// Runs one network call on given tensors: how the importer is held against diffusers.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint, a folder or its file of weights (runs the f32 precision at any timestep), or .waft file (runs its precision at its own timesteps).
    model: PathBuf,
    /// Tensors `sample` (N, C, H, W) f32, `timestep` (N) i64 or f32, and `class_labels` (N) i64 where there are classes, or
    /// (N, D) f32 where a vector stands for one, and `condition` (N, C', H, W) f32 where there is one, unless `sample` has its
    /// channels behind its own; of a policy `sample` (N, C, steps) or, if that does not fit, (N, steps, C), and `global_cond`
    /// (N, D) f32, the normalized observation; all numbers finite.
    #[arg(long, value_name = "F.safetensors")]
    input: PathBuf,
    /// Gets tensor `out` (N, C, H, W) f32, of a policy in the order of its sample.
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: CheckpointArgs,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    check_extension("--out", Some(&args.out), &["safetensors"])?;
    let model = shipped::sources(&args.model, None);
    let mut inputs = output::all("MODEL", &model);
    inputs.push(("--input", &args.input));
    inputs.extend(args.reading.inputs());
    output::check(&inputs, &[("--out", &args.out)])?;
    let input = tensors::read(&args.input)?;
    ensure!(!input.has("encoder_hidden_states"), "encoder_hidden_states: no network here reads a text; leave it out");
    tell_unread(&args.input, &input, &["sample", "timestep", "class_labels", "condition", "global_cond", "out"]);
    let (shape, sample) = input.f32("sample")?;
    let timesteps = input.integers("timestep")?;
    if let Some(timestep) = timesteps.iter().find(|timestep| timestep.unsigned_abs() > 1 << 24) {
        bail!("timestep holds {timestep}; networks are told numbers of single precision, so give at most 16777216");
    }
    let classes = labels(&input)?;
    let Some(&count) = shape.first() else { bail!("{}: sample has no dimensions", args.input.display()) };
    if count == 0 || timesteps.len() != count || classes.as_ref().is_some_and(|c| c.count() != count) {
        bail!("{}: sample, timestep and class_labels must hold the same number of calls", args.input.display());
    }

    let is_checkpoint = args.model.is_dir() || is_weights(&args.model);
    let bytes: AlignedBytes = if is_checkpoint {
        let mut checkpoint = args.reading.open(&args.model)?;
        match &classes {
            Some(Labels::Numbers(numbers)) => {
                let classes = numbers.iter().max().map_or(1, |&last| usize::try_from(last).unwrap_or(0) + 1);
                checkpoint.set_called_classes(classes.min(MOST_CLASSES));
            }
            Some(Labels::Vectors(vectors)) => checkpoint.set_class_vectors(vectors.clone()),
            None => {}
        }
        predictor(&checkpoint, &timesteps)?
    } else {
        shipped::read(&args.model)?
    };
    let model = Model::from_bytes(bytes.as_slice())?;
    let input_shape = model.image_shape();
    let [rows, cols, channels] = input_shape;
    let expected = [count, channels, rows, cols];
    let order = Order::of(&shape, expected);
    let (shape, sample) = order.to_chw((shape, sample), expected);
    let (sample, conditions) =
        inputs_of(&input, &model, expected, (&shape, sample)).with_context(|| args.input.display().to_string())?;
    if let Some(value) = sample.iter().find(|value| model.precision() == Precision::I8 && !fits_fixed(**value)) {
        bail!("{}: sample holds {value}; the i8 precision takes numbers between -2048 and 2048", args.input.display());
    }
    let output = model.tensor(model.header().prediction).context("the model has no output")?;
    let output_shape = [rows, cols, usize::from(output.channels)];
    let samples = to_hwc(&sample, input_shape);
    let weights = shipped::weights(&args.model, &model)?;
    let mut memory = arena(&model);
    let mut accelerator = together(Accelerator::new(&model));
    let mut outputs = vec![];
    for (call, sample) in samples.chunks_exact(rows * cols * channels).enumerate() {
        let (schedule, step) = if is_checkpoint { (0, call as u32) } else { find_step(&model, timesteps[call])? };
        let class = match &classes {
            Some(Labels::Numbers(numbers)) => Some(class_of(numbers[call])?),
            // Each is a class of its own.
            Some(Labels::Vectors(_)) if is_checkpoint => Some(call as u16),
            Some(Labels::Vectors(_)) => bail!("a .waft file numbers its classes: give class_labels (N) i64"),
            None => None,
        };
        let session = Session::with_weights(&model, memory.as_mut_slice(), weights.as_slice())?;
        let mut session = session.accelerated(&mut accelerator);
        set_input(&mut session, sample).context("the model has no input")?;
        conditions.give(&mut session, call);
        let mut prediction = session.predict(schedule, step, class)?;
        while prediction.step()? {}
        let divisor = match model.header().output() {
            Output::Prediction => 1.0,
            Output::TimesTimestep => timesteps[call] as f32,
        };
        outputs.extend(to_floats(prediction.output()).into_iter().map(|value| value / divisor));
    }
    let (shape, values) = order.of_outputs(count, output_shape, outputs);
    write_whole(&args.out, &tensors::encode("out", &shape, &values)?)?;
    let precision = precision_name(model.precision());
    if args.json {
        return print_json(&json!({ "calls": count, "precision": precision }));
    }
    output::print(&format!("{}: {count} calls in precision {precision}\n", args.out.display()))
}

/// The sample and the condition of each call: tensors of their own, or a sample that has the condition's channels behind its
/// own, as PyTorch's network takes it.
fn inputs_of(
    input: &Tensors,
    model: &Model<'_>,
    expected: [usize; 4],
    (shape, sample): (&[usize], Vec<f32>),
) -> anyhow::Result<(Vec<f32>, Conditions)> {
    let [count, channels, rows, cols] = expected;
    let condition = model.condition_shape();
    ensure!(condition.is_some() || !input.has("condition"), "condition: the model reads none; leave it out");
    if shape == expected {
        let Some(condition) = condition else { return Ok((sample, observations(input, model, count)?)) };
        let (found, values) = input.f32("condition")?;
        ensure!(found.first() == Some(&count), "condition holds {found:?}, sample {count} calls");
        return Ok((sample, Conditions::new(&found, &values, condition)?));
    }
    if let Some([.., more]) = condition.filter(|_| !input.has("condition"))
        && shape == [count, channels + more, rows, cols]
    {
        let pixels = rows * cols;
        let calls = || sample.chunks_exact((channels + more) * pixels).map(|call| call.split_at(channels * pixels));
        let own = calls().flat_map(|(own, _)| own).copied().collect();
        let behind: Vec<f32> = calls().flat_map(|(_, behind)| behind).copied().collect();
        return Ok((own, Conditions::new(&[count, more, rows, cols], &behind, [rows, cols, more])?));
    }
    bail!("sample has shape {shape:?}, expected (N, {channels}, {rows}, {cols})")
}

/// In which order a sample has its dimensions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// (N, C, H, W).
    Map,
    /// (N, C, steps), as diffusers' 1-D networks take it.
    ChannelsFirst,
    /// (N, steps, C), as policies' networks take it.
    ChannelsLast,
}

impl Order {
    fn of(shape: &[usize], [count, channels, rows, cols]: [usize; 4]) -> Self {
        match *shape {
            [n, c, w] if rows == 1 && [n, c, w] == [count, channels, cols] => Self::ChannelsFirst,
            [n, w, c] if rows == 1 && [n, c, w] == [count, channels, cols] => Self::ChannelsLast,
            _ => Self::Map,
        }
    }

    /// The sample as (N, C, H, W); as it is, if it has another order than is expected.
    fn to_chw(self, (shape, sample): (Vec<usize>, Vec<f32>), expected: [usize; 4]) -> (Vec<usize>, Vec<f32>) {
        let [_, channels, rows, cols] = expected;
        match self {
            Self::Map => (shape, sample),
            Self::ChannelsFirst => (expected.to_vec(), sample),
            Self::ChannelsLast => (expected.to_vec(), to_chw(&sample, [rows, cols, channels])),
        }
    }

    /// Outputs in (row, column, channel) order, and their shape, in this order.
    fn of_outputs(self, count: usize, shape: [usize; 3], outputs: Vec<f32>) -> (Vec<usize>, Vec<f32>) {
        let [rows, cols, channels] = shape;
        match self {
            Self::Map => (vec![count, channels, rows, cols], to_chw(&outputs, shape)),
            Self::ChannelsFirst => (vec![count, channels, cols], to_chw(&outputs, shape)),
            Self::ChannelsLast => (vec![count, cols, channels], outputs),
        }
    }
}

/// The observations of the calls, of a policy, in the units that the model takes.
fn observations(input: &Tensors, model: &Model<'_>, count: usize) -> anyhow::Result<Conditions> {
    let Some(len) = model.observation_len() else {
        ensure!(!input.has("global_cond"), "global_cond: the model acts on no observation; leave it out");
        return Ok(Conditions::default());
    };
    let (found, mut values) = input.f32("global_cond")?;
    ensure!(found == [count, len], "global_cond has shape {found:?}, expected ({count}, {len})");
    let normalization = crate::report::normalization(model);
    for (value, [center, gain]) in values.iter_mut().zip(normalization.iter().cycle()) {
        *value = (f64::from(*value) / gain + center) as f32;
    }
    Ok(Conditions::observations(&found, &values, len)?)
}

/// What stands for the classes of the calls.
enum Labels {
    /// Their numbers.
    Numbers(Vec<i64>),
    /// A vector each.
    Vectors(ClassVectors),
}

impl Labels {
    /// Number of calls.
    fn count(&self) -> usize {
        match self {
            Labels::Numbers(numbers) => numbers.len(),
            Labels::Vectors(vectors) => vectors.values.len() / vectors.length.max(1),
        }
    }
}

fn labels(input: &Tensors) -> anyhow::Result<Option<Labels>> {
    if !input.has("class_labels") {
        return Ok(None);
    }
    if input.rank("class_labels") == 1 {
        return Ok(Some(Labels::Numbers(input.integers("class_labels")?)));
    }
    let (shape, values) = input.f32("class_labels")?;
    match shape[..] {
        [calls, length] if calls <= MOST_CLASSES => Ok(Some(Labels::Vectors(ClassVectors { length, values }))),
        _ => bail!("class_labels has shape {shape:?}, expected (N) i64 or (N, D) f32 with N up to {MOST_CLASSES}"),
    }
}

/// The class of a label.
fn class_of(label: i64) -> anyhow::Result<u16> {
    let class = u16::try_from(label).ok().filter(|&class| usize::from(class) < MOST_CLASSES);
    class.with_context(|| format!("class_labels holds {label}; classes are numbers from 0 to {}", MOST_CLASSES - 1))
}

/// The list and step of a .waft file that visits a timestep.
fn find_step(model: &Model<'_>, timestep: i64) -> anyhow::Result<(u16, u32)> {
    let mut known = vec![];
    for index in 0..model.schedules() {
        let list = model.schedule(index).map_or_else(Vec::new, |list| timesteps(model, &list));
        if let Some(step) = list.iter().position(|&t| i64::from(t) == timestep) {
            return Ok((index, step as u32));
        }
        known.extend(list);
    }
    known.sort_unstable();
    known.dedup();
    bail!("timestep {timestep} is not in the file, which visits {known:?}; use the checkpoint for others")
}
