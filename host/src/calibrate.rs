//! Calibration without data: the `f32` precision samples from its own noise over the exact step lists of the export, and
//! every tensor that will be quantized is watched.

use typed_index_collections::{TiVec, ti_vec};
use waft::{Accelerator, Guidance, Model, Request, Session};

use crate::condition::Conditions;
use crate::fixed::to_floats;
use crate::graph::activate;
use crate::network::{Conv2d, Network, Op, OpId, Role, TensorId};
use crate::progress::Progress;
use crate::quantize::Observer;
use crate::rounding::Moments;
use crate::sample;

/// What was seen of every quantity that becomes an integer.
#[derive(Clone, Debug)]
pub struct Observations {
    /// Values of each tensor; streams, queries and contexts.
    pub tensors: TiVec<TensorId, Observer>,
    /// Keys and values apart, of the tensors that hold both.
    pub key_value: TiVec<TensorId, [Observer; 2]>,
    /// Transformed inputs of each convolution, by operation.
    pub gathered: TiVec<OpId, Observer>,
    /// The same of each list and step; empty unless asked for.
    pub gathered_by_step: TiVec<OpId, Vec<Vec<Observer>>>,
    /// For each normalization's map: the largest |A| of the channels of each source.
    pub factors: TiVec<TensorId, [f64; 2]>,
    /// Unfolded inputs of each convolution, by operation.
    pub moments: TiVec<OpId, Option<Moments>>,
    /// State of the generator that picks among them.
    picks: u64,
}

/// How to sample.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Pictures to draw.
    pub images: usize,
    /// Step counts to cycle through; lists of the model.
    pub steps: Vec<usize>,
    /// Number of classes to cycle through, 0 for none.
    pub classes: usize,
    /// Guidance of every second picture.
    pub guidance: Option<Guidance>,
    /// Whether to tell steps apart.
    pub by_step: bool,
    /// Of the pictures in turn.
    pub conditions: Conditions,
}

/// Values that are kept of a convolution's inputs during one step.
const KEPT_OF_STEP: usize = 1 << 12;

/// Seeds of calibration lie apart from those that people type.
const FIRST_SEED: u64 = 0xCA11_B8A7_0000_0000;

/// Draws pictures with the `f32` model and watches.
///
/// # Panics
/// If `model` is not the `f32` model of `network`: a defect of the exporter.
pub fn calibrate(network: &Network, model: &Model<'_>, how: &Calibration, progress: &dyn Progress) -> Observations {
    let mut seen = Observations {
        tensors: ti_vec![Observer::default(); network.tensors.len()],
        key_value: ti_vec![[Observer::default(), Observer::default()]; network.tensors.len()],
        gathered: ti_vec![Observer::default(); network.ops.len()],
        gathered_by_step: ti_vec![],
        factors: ti_vec![[0.0; 2]; network.tensors.len()],
        moments: network.ops.iter().map(|(_, op)| moments(op)).collect(),
        picks: 0x9E37_79B9_7F4A_7C15,
    };
    if how.by_step {
        let lists: Vec<_> = how.steps.iter().map(|&steps| vec![Observer::keeping(KEPT_OF_STEP); steps]).collect();
        seen.gathered_by_step = ti_vec![lists; network.ops.len()];
    }
    let calls = how.images * how.steps.iter().sum::<usize>() / how.steps.len().max(1);
    let mut arena = sample::arena(model);
    let mut accelerator = Accelerator::new(model);
    let session = Session::new(model, arena.as_mut_slice()).expect("the exporter's own model runs");
    let mut session = session.accelerated(&mut accelerator);
    progress.begin("calibrating", (how.images * how.steps.iter().max().copied().unwrap_or(1)) as u64);
    for image in 0..how.images {
        let list = image % how.steps.len();
        let mut request = Request::new().seed(FIRST_SEED + image as u64).steps(how.steps[list] as u32);
        if how.classes > 0 {
            request = request.class((image % how.classes) as u16);
        }
        if let (Some(guidance), 1) = (how.guidance, image / how.classes.max(1) % 2) {
            request = request.guidance(guidance);
        }
        how.conditions.give(&mut session, image);
        let mut run = session.sample(request).expect("the exporter's own request is valid");
        let mut before = None;
        let mut step = 0;
        loop {
            if let Some(op) = run.starts() {
                // The result of the operation before, untouched so far; the last one's is the prediction.
                if let Some(previous) = before {
                    watch_output(network, previous, &mut seen, |id| floats(run.tensor_bytes(id.in_file())));
                }
                let at = [list, run.progress().step as usize];
                let read = |id: TensorId| floats(run.tensor_bytes(id.in_file()));
                watch_inputs(network, op.into(), at, calls, &mut seen, read);
                before = Some(OpId::from(op));
            }
            match run.step().expect("seeds do not run out") {
                Some(now) => {
                    if now.step != step {
                        step = now.step;
                        progress.advance(1);
                    }
                }
                None => break,
            }
        }
    }
    progress.end();
    // What is learned shares the scales of what was seen.
    for (_, op) in &network.ops {
        let (memory, query, key_value) = match op {
            Op::Attention(op) => (&op.memory, op.query, op.key_value),
            Op::LinearAttention(op) => (&op.memory, op.query, op.key_value),
            _ => continue,
        };
        for (part, values) in memory.values.chunks_exact(network.tensors[query].shape.c).enumerate() {
            seen.key_value[key_value][part % 2].observe(values.iter().copied());
        }
    }
    seen
}

/// For each list and step, the factor that brings the predictions of `quantized` nearest to those of `reference` over the
/// samples that `reference` passes through.
///
/// # Panics
/// If the models are not of one network: a defect of the exporter.
pub fn output_gains(
    reference: &Model<'_>,
    quantized: &Model<'_>,
    how: &Calibration,
    progress: &dyn Progress,
) -> Vec<Vec<f64>> {
    let mut memory = [sample::arena(reference), sample::arena(reference), sample::arena(quantized)];
    let mut accelerators = [reference, quantized].map(Accelerator::new);
    let [run_memory, reference_memory, quantized_memory] = &mut memory;
    progress.begin("correcting outputs", (how.images * how.steps.len()) as u64);
    let mut gains = vec![];
    for (list, &steps) in how.steps.iter().enumerate() {
        // Σ want·got and Σ got² of each step.
        let mut products = vec![[0f64; 2]; steps];
        for image in 0..how.images {
            let class = (how.classes > 0).then_some((image % how.classes.max(1)) as u16);
            let mut request = Request::new().seed(FIRST_SEED + image as u64).steps(steps as u32);
            if let Some(class) = class {
                request = request.class(class);
            }
            let session = Session::new(reference, run_memory.as_mut_slice()).expect("the exporter's own model runs");
            let mut session = session.accelerated(&mut accelerators[0]);
            how.conditions.give(&mut session, image);
            let run = session.sample(request).expect("the exporter's own request is valid");
            let picture = sample::finish(run, true).expect("seeds do not run out");
            for (step, (products, x)) in products.iter_mut().zip(&picture.trajectory).enumerate() {
                let models = [(reference, &mut *reference_memory), (quantized, &mut *quantized_memory)];
                let mut accelerators = accelerators.iter_mut();
                let [want, got] = models.map(|(model, memory)| {
                    let session = Session::new(model, memory.as_mut_slice()).expect("the exporter's own model runs");
                    let accelerator = accelerators.next().expect("one for each model");
                    let mut session = session.accelerated(accelerator);
                    how.conditions.give(&mut session, image);
                    predict(&mut session, x, [list, step], class)
                });
                for (&want, &got) in want.iter().zip(&got) {
                    products[0] += f64::from(want) * f64::from(got);
                    products[1] += f64::from(got) * f64::from(got);
                }
            }
            progress.advance(1);
        }
        gains.push(
            products.into_iter().map(|[cross, square]| if square > 0.0 { cross / square } else { 1.0 }).collect(),
        );
    }
    progress.end();
    gains
}

fn predict(session: &mut Session<'_>, x: &[f32], [list, step]: [usize; 2], class: Option<u16>) -> Vec<f32> {
    sample::set_input(session, x).expect("the exporter's own model has an input");
    let mut call = session.predict(list as u16, step as u32, class).expect("a step of the model");
    while call.step().expect("an operation of the model") {}
    to_floats(call.output())
}

fn floats(bytes: Option<&[u8]>) -> Vec<f32> {
    bytes.unwrap_or(&[]).as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn moments(op: &Op) -> Option<Moments> {
    let Op::Conv2d(conv) = op else { return None };
    Some(Moments::new(conv.taps()))
}

/// The transformed input of a convolution that is about to run in a list's step.
fn watch_inputs(
    network: &Network,
    id: OpId,
    [list, step]: [usize; 2],
    calls: usize,
    seen: &mut Observations,
    read: impl Fn(TensorId) -> Vec<f32>,
) {
    let conv = match &network.ops[id].1 {
        Op::Conv2d(conv) => conv,
        Op::Activate(op) => {
            let factor = &mut seen.factors[op.norm][0];
            *factor = read(op.norm).iter().step_by(2).fold(*factor, |a, &b| a.max(f64::from(b).abs()));
            return;
        }
        _ => return,
    };
    let map = conv.norm.map(&read);
    let inputs = conv.conv.inputs;
    let mut image = vec![0f32; network.tensors[conv.sources[0]].shape.pixels() * inputs];
    let mut first = 0;
    for (number, &source) in conv.sources.iter().enumerate() {
        let channels = network.tensors[source].shape.c;
        let values = read(source);
        let transform = |(channel, &x): (usize, &f32)| match &map {
            None => conv.input_affine.0 * x + conv.input_affine.1,
            Some(map) => {
                let at = 2 * (first + channel);
                let y = x * map[at] + map[at + 1];
                conv.activation.map_or(y, |activation| activate(activation, f64::from(y)) as f32)
            }
        };
        for (pixel, values) in image.chunks_exact_mut(inputs).zip(values.chunks_exact(channels)) {
            for (to, from) in pixel[first..].iter_mut().zip(values.iter().enumerate().map(transform)) {
                *to = from;
            }
        }
        if let (Some(norm), Some(map)) = (conv.norm, &map) {
            let map = &map[2 * first..2 * (first + channels)];
            let largest = map.iter().step_by(2).fold(0f64, |a, &b| a.max(f64::from(b).abs()));
            let factor = &mut seen.factors[norm][number];
            *factor = factor.max(largest);
        }
        first += channels;
    }
    seen.gathered[id].observe(image.iter().copied());
    if let Some(lists) = seen.gathered_by_step.get_mut(id) {
        lists[list][step].observe(image.iter().copied());
    }

    // What is computed once more is not looked at once more, and changes nothing of what others see.
    if conv.repeats.is_some() {
        return;
    }
    let Some(moments) = &mut seen.moments[id] else { return };
    let output = conv.computed(&network.tensors);
    let rows = moments.wanted().div_ceil(calls.max(1)).min(output.pixels());
    for _ in 0..rows {
        seen.picks = seen.picks.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pixel = (seen.picks >> 33) as usize % output.pixels();
        moments.observe(patch(network, conv, &image, [pixel / output.w, pixel % output.w]));
    }
}

/// The values under the kernel at an output pixel, in the order of the weights.
fn patch(network: &Network, conv: &Conv2d, image: &[f32], [y, x]: [usize; 2]) -> Vec<f32> {
    let shape = network.tensors[conv.sources[0]].shape;
    let inputs = conv.conv.inputs;
    let doubling = usize::from(conv.upsample);
    // The source's index along one side; `None` for padding.
    let place = |at: usize, tap: usize, padding: usize, size: usize| {
        let at = (at * conv.conv.stride + tap).checked_sub(padding)? >> doubling;
        (at < size).then_some(at)
    };
    let mut values = vec![0.0; conv.conv.kernel[0] * conv.conv.kernel[1] * inputs];
    for (tap, values) in values.chunks_exact_mut(inputs).enumerate() {
        let (row, column) = (tap / conv.conv.kernel[1], tap % conv.conv.kernel[1]);
        let row = place(y, row, conv.conv.padding[0], shape.h);
        let column = place(x, column, conv.conv.padding[1], shape.w);
        if let (Some(row), Some(column)) = (row, column) {
            let at = (row * shape.w + column) * inputs;
            values.copy_from_slice(&image[at..at + inputs]);
        }
    }
    values
}

/// The result of an operation that has just run.
fn watch_output(network: &Network, id: OpId, seen: &mut Observations, read: impl Fn(TensorId) -> Vec<f32>) {
    let output = network.ops[id].1.output();
    match network.tensors[output].role {
        Role::Stream | Role::Attention => seen.tensors[output].observe(read(output)),
        Role::KeyValue => {
            let half = network.tensors[output].shape.c / 2;
            for pixel in read(output).chunks_exact(2 * half) {
                seen.key_value[output][0].observe(pixel[..half].iter().copied());
                seen.key_value[output][1].observe(pixel[half..].iter().copied());
            }
        }
        _ => {}
    }
}
