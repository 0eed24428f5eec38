//! Calibration without data: the `f32` precision samples from its own noise over the exact step lists of the export, and
//! every tensor that will be quantized is watched.

mod gathered;

use std::sync::mpsc::sync_channel;

use typed_index_collections::{TiVec, ti_vec};
use waft::{Accelerator, Guidance, Model, Request, Session};

use self::gathered::Gathered;
use crate::condition::Conditions;
use crate::fixed::to_floats;
use crate::network::{Conv2d, Network, Op, OpId, Role, TensorId};
use crate::progress::Progress;
use crate::quantize::{Observer, Reservoir};
use crate::rounding::Moments;
use crate::sample;
use crate::threads::together;

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
}

impl Observations {
    /// Nothing seen. Covariances are large: there is room for those of the operations that `owns` names.
    fn new(network: &Network, how: &Calibration, owns: impl Fn(usize) -> bool) -> Self {
        let mut gathered_by_step = ti_vec![];
        if how.by_step {
            let lists: Vec<_> = how.steps.iter().map(|&steps| vec![Observer::default(); steps]).collect();
            gathered_by_step = ti_vec![lists; network.ops.len()];
        }
        Self {
            tensors: ti_vec![Observer::default(); network.tensors.len()],
            key_value: ti_vec![[Observer::default(), Observer::default()]; network.tensors.len()],
            gathered: ti_vec![Observer::default(); network.ops.len()],
            gathered_by_step,
            factors: ti_vec![[0.0; 2]; network.tensors.len()],
            moments: network
                .ops
                .iter()
                .enumerate()
                .map(|(at, (_, op))| owns(at).then(|| moments(op)).flatten())
                .collect(),
        }
    }

    /// Takes what was seen of other operations and tensors: number `index` of both is seen by the watcher `index % count`.
    fn join(&mut self, watchers: Vec<Self>) {
        let count = watchers.len();
        for (number, other) in watchers.into_iter().enumerate() {
            take_each(&mut self.tensors.raw, other.tensors.raw, number, count);
            take_each(&mut self.key_value.raw, other.key_value.raw, number, count);
            take_each(&mut self.gathered.raw, other.gathered.raw, number, count);
            take_each(&mut self.gathered_by_step.raw, other.gathered_by_step.raw, number, count);
            take_each(&mut self.moments.raw, other.moments.raw, number, count);
            for (factors, others) in self.factors.iter_mut().zip(other.factors) {
                *factors = [factors[0].max(others[0]), factors[1].max(others[1])];
            }
        }
    }
}

/// Takes each `count`th of `from`, from `first` on.
fn take_each<T>(to: &mut [T], from: Vec<T>, first: usize, count: usize) {
    to.iter_mut().zip(from).skip(first).step_by(count).for_each(|(to, from)| *to = from);
}

/// What is looked at while the network runs on: copies of tensors.
enum Sight {
    /// The inputs of a convolution, its map, the list and step, and the output pixels whose inputs are noted.
    Inputs { op: OpId, sources: Vec<Vec<f32>>, map: Option<Vec<f32>>, at: [usize; 2], pixels: Vec<usize> },
    /// The map of an activation.
    Map { norm: TensorId, map: Vec<f32> },
    /// The result of an operation.
    Output { output: TensorId, values: Vec<f32> },
}

impl Sight {
    /// What tells its watcher.
    fn index(&self) -> usize {
        match self {
            Self::Inputs { op, .. } => usize::from(*op),
            Self::Map { norm: tensor, .. } | Self::Output { output: tensor, .. } => usize::from(*tensor),
        }
    }
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

/// What waits for a watcher at most.
const WAITING: usize = 16;

/// Values that are kept of a tensor.
const KEPT: usize = 1 << 15;

/// Values that are kept of a convolution's inputs during one step.
const KEPT_OF_STEP: usize = 1 << 12;

/// Seeds of calibration lie apart from those that people type.
const FIRST_SEED: u64 = 0xCA11_B8A7_0000_0000;

/// Draws pictures with the `f32` model and watches.
///
/// # Panics
/// If `model` is not the `f32` model of `network`: a defect of the exporter.
pub fn calibrate(network: &Network, model: &Model<'_>, how: &Calibration, progress: &dyn Progress) -> Observations {
    let mut seen = Observations::new(network, how, |_| false);
    let [of_all, of_step] = &[KEPT, KEPT_OF_STEP].map(Reservoir::new);
    let count = rayon::current_num_threads();
    std::thread::scope(|scope| {
        let watchers = (0..count).map(|watcher| {
            let (sender, receiver) = sync_channel(WAITING);
            let mut seen = Observations::new(network, how, |index| index % count == watcher);
            let watcher = scope.spawn(move || {
                receiver.into_iter().for_each(|sight| watch(network, sight, &mut seen, [of_all, of_step]));
                seen
            });
            (sender, watcher)
        });
        let (senders, watchers): (Vec<_>, Vec<_>) = watchers.unzip();
        draw(network, model, how, progress, &|sight| {
            // A watcher that has ended has panicked, which is told where it is joined.
            let _ = senders[sight.index() % count].send(sight);
        });
        drop(senders);
        seen.join(watchers.into_iter().map(|watcher| watcher.join().expect("a watcher does not panic")).collect());
    });
    // What is learned shares the scales of what was seen.
    for (_, op) in &network.ops {
        let (memory, query, key_value) = match op {
            Op::Attention(op) => (&op.memory, op.query, op.key_value),
            Op::LinearAttention(op) => (&op.memory, op.query, op.key_value),
            _ => continue,
        };
        for (part, values) in memory.values.chunks_exact(network.tensors[query].shape.c).enumerate() {
            seen.key_value[key_value][part % 2].observe(values, of_all);
        }
    }
    seen
}

/// Draws the pictures, and shows what there is to see.
fn draw(network: &Network, model: &Model<'_>, how: &Calibration, progress: &dyn Progress, show: &dyn Fn(Sight)) {
    let calls = how.images * how.steps.iter().sum::<usize>() / how.steps.len().max(1);
    let mut picks = Picks { state: 0x9E37_79B9_7F4A_7C15, calls };
    let mut arena = sample::arena(model);
    let mut accelerator = together(Accelerator::new(model));
    let session = Session::new(model, arena.as_mut_slice()).expect("the exporter's own model runs");
    let mut session = session.accelerated(&mut accelerator);
    let steps = (0..how.images).map(|image| how.steps[image % how.steps.len()]);
    progress.begin("calibrating", steps.sum::<usize>() as u64);
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
                let read = |id: TensorId| floats(run.tensor_bytes(id.in_file()));
                // The result of the operation before, untouched so far; the last one's is the prediction.
                if let Some(previous) = before {
                    show_output(network, previous, &read, show);
                }
                let at = [list, run.progress().step as usize];
                show_inputs(network, op.into(), at, &mut picks, &read, show);
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
    let mut accelerators = [reference, quantized].map(|model| together(Accelerator::new(model)));
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

/// What an operation that is about to run in a list's step will transform.
fn show_inputs(
    network: &Network,
    id: OpId,
    at: [usize; 2],
    picks: &mut Picks,
    read: &dyn Fn(TensorId) -> Vec<f32>,
    show: &dyn Fn(Sight),
) {
    match &network.ops[id].1 {
        Op::Conv2d(conv) => {
            let sources = conv.sources.iter().map(|&source| read(source)).collect();
            let pixels = picks.of(network, conv);
            show(Sight::Inputs { op: id, sources, map: conv.norm.map(read), at, pixels });
        }
        Op::Activate(op) => show(Sight::Map { norm: op.norm, map: read(op.norm) }),
        _ => {}
    }
}

/// Picks the output pixels whose inputs are noted.
struct Picks {
    /// Of the generator.
    state: u64,
    /// Calls of the network over which they are spread.
    calls: usize,
}

impl Picks {
    /// Those of one call: together as many as describe a covariance well.
    fn of(&mut self, network: &Network, conv: &Conv2d) -> Vec<usize> {
        // What is computed once more is not looked at once more, and changes nothing of what others see.
        if conv.repeats.is_some() {
            return vec![];
        }
        let pixels = conv.computed(&network.tensors).pixels();
        let rows = Moments::wanted(conv.taps()).div_ceil(self.calls.max(1)).min(pixels);
        let pick = |_| {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.state >> 33) as usize % pixels
        };
        (0..rows).map(pick).collect()
    }
}

/// Takes note of what is shown.
fn watch(network: &Network, sight: Sight, seen: &mut Observations, [of_all, of_step]: [&Reservoir; 2]) {
    match sight {
        Sight::Inputs { op, sources, map, at: [list, step], pixels } => {
            let Op::Conv2d(conv) = &network.ops[op].1 else { return };
            if let (Some(norm), Some(map)) = (conv.norm, &map) {
                let mut first = 0;
                for (values, factor) in conv.sources.iter().zip(&mut seen.factors[norm]) {
                    let channels = network.tensors[*values].shape.c;
                    *factor = factor.max(largest_factor(&map[2 * first..2 * (first + channels)]));
                    first += channels;
                }
            }
            let gathered = Gathered::new(network, conv, &sources, map.as_deref());
            let extremes = gathered.extremes();
            let observe = |observer: &mut Observer, reservoir| {
                observer.observe_each(extremes, gathered.len(), |index| gathered.value(index), reservoir);
            };
            observe(&mut seen.gathered[op], of_all);
            if let Some(lists) = seen.gathered_by_step.get_mut(op) {
                observe(&mut lists[list][step], of_step);
            }
            let Some(moments) = &mut seen.moments[op] else { return };
            let width = conv.computed(&network.tensors).w;
            for pixel in pixels {
                moments.observe(gathered.patch([pixel / width, pixel % width]));
            }
        }
        Sight::Map { norm, map } => {
            let factor = &mut seen.factors[norm][0];
            *factor = factor.max(largest_factor(&map));
        }
        Sight::Output { output, values } => match network.tensors[output].role {
            Role::KeyValue => {
                let half = network.tensors[output].shape.c / 2;
                for pixel in values.chunks_exact(2 * half) {
                    seen.key_value[output][0].observe(&pixel[..half], of_all);
                    seen.key_value[output][1].observe(&pixel[half..], of_all);
                }
            }
            _ => seen.tensors[output].observe(&values, of_all),
        },
    }
}

/// The largest |A| of a map's channels.
fn largest_factor(map: &[f32]) -> f64 {
    map.iter().step_by(2).fold(0.0, |largest, &factor| largest.max(f64::from(factor).abs()))
}

/// The result of an operation that has just run.
fn show_output(network: &Network, id: OpId, read: &dyn Fn(TensorId) -> Vec<f32>, show: &dyn Fn(Sight)) {
    let output = network.ops[id].1.output();
    let role = network.tensors[output].role;
    if matches!(role, Role::Stream | Role::Attention | Role::KeyValue | Role::Features | Role::Backward) {
        show(Sight::Output { output, values: read(output) });
    }
}
