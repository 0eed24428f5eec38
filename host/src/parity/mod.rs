//! Whether the GPU backend computes what the device computes: operation by operation, then whole pictures.
//!
//! Each operation runs in the runtime and on the GPU backend from the same arenas: those of real runs, and adversarial ones whose
//! inputs are noise over the whole range of their type, its extremes, or zeros. In the `i8` precision not one bit may differ. The
//! float precisions add in the same order and agree in every bit on a host; a GPU's compiler is allowed errors up to [`bound`].

pub mod report;

use serde::Serialize;
use thiserror::Error;
use waft::format::{Element, NONE, Op, Precision, Tensor, WeightLayout};
use waft::noise::{gaussian, philox};
use waft::{Model, Request, RequestError, Rescale, RunError, Session, SessionError};
use waft_kernels::{STATE_BYTES, Space};

use crate::condition::Conditions;
use crate::export::precision_name;
use crate::gpu::{self, Device, GpuError, Program};
use crate::image::to_bytes;
use crate::progress::Progress;
use crate::sample::{Batch, Picture, SampleError, arena, draw};

/// Why parity was not checked.
#[derive(Debug, Error)]
pub enum ParityError {
    /// The GPU backend failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The model cannot run here.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The model cannot draw this.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The runtime ended early.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The runtime's pictures failed.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

/// Largest error of an operation of a float precision, as a share of its largest result: that of contracted sums, and in half
/// precision one rounding.
pub fn bound(precision: Precision) -> f64 {
    match precision {
        Precision::I8 => 0.0,
        Precision::F16 => 2e-3,
        Precision::F32 => 1e-5,
    }
}

/// Where an operation first differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What the arena held.
    pub case: String,
    /// The tensor of the plan.
    pub tensor: u16,
    /// The element in it, (row, column, channel) order.
    pub index: usize,
    /// What the device computes.
    pub expected: f64,
    /// What the GPU backend computes.
    pub found: f64,
}

/// How an operation compares.
#[derive(Clone, Debug, Serialize)]
pub struct OpParity {
    /// Its precision, number, kind and the shape of its result.
    pub op: String,
    /// Elements that were compared.
    pub elements: u64,
    /// Elements that differ, in the float precisions by more than [`bound`].
    pub mismatches: u64,
    /// Largest difference, in the tensor's own units.
    pub max_abs_err: f64,
    /// Largest difference of each case over its largest result, for plots.
    #[serde(skip)]
    pub case_errors: Vec<(String, f64)>,
    /// The first mismatch.
    pub first: Option<Difference>,
}

/// How whole pictures compare.
#[derive(Clone, Debug, Serialize)]
pub struct ImageParity {
    /// Precision, steps, guidance.
    pub what: String,
    /// Pictures.
    pub images: usize,
    /// Pictures that differ in any byte.
    pub different: usize,
    /// Largest difference of a byte.
    pub max_byte_err: u8,
    /// How many the GPU backend draws in a second, copies and start included.
    pub pictures_per_second: f64,
}

/// An arena to start an operation from.
struct Case {
    name: String,
    /// Of the runtime's classes.
    class: u16,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A run of this seed, at this step.
    Real { seed: u64, step: u32 },
    /// Noise over the whole range.
    Noise { seed: u64 },
    /// The least value everywhere.
    Least,
    /// The largest value everywhere.
    Largest,
    /// One and the other.
    Alternating,
    /// Zeros.
    Zeros,
}

/// Compares every operation of a model.
///
/// # Errors
/// If the model cannot run, or the device fails.
pub fn ops(
    device: &mut dyn Device,
    model: &Model<'_>,
    weights: &[u8],
    progress: &dyn Progress,
) -> Result<Vec<OpParity>, ParityError> {
    let program = Program::new(model, weights)?;
    let steps = model.schedule(0).map_or(1, |list| list.steps);
    let own = |index: u16| if model.classes() > 0 { index % model.classes() } else { NONE };
    let mut cases: Vec<Case> = [0, steps / 2, steps - 1]
        .into_iter()
        .enumerate()
        .map(|(i, step)| Case {
            name: format!("step {step}"),
            class: own(3 * i as u16 + 1),
            kind: Kind::Real { seed: 40 + i as u64, step },
        })
        .collect();
    let adversarial = [
        ("noise", Kind::Noise { seed: 1 }),
        ("other noise", Kind::Noise { seed: 2 }),
        ("least values", Kind::Least),
        ("largest values", Kind::Largest),
        ("alternating", Kind::Alternating),
        ("zeros", Kind::Zeros),
    ];
    cases.extend(adversarial.map(|(name, kind)| Case { name: name.into(), class: own(2), kind }));
    let batch = cases.len() as u32;
    device.prepare(&program, batch)?;

    // The runtime's arena of each case, before the operation and after it.
    let mut arenas = vec![];
    for case in &cases {
        let mut memory = arena(model);
        if let Kind::Real { seed, step } = case.kind {
            let mut session = Session::with_weights(model, memory.as_mut_slice(), weights)?;
            if let Some(shape) = model.condition_shape() {
                Conditions::zeros(shape).give(&mut session, 0);
            }
            Conditions::central(model).give(&mut session, 0);
            let mut request = Request::new().seed(seed).steps(steps);
            if model.classes() > 0 {
                request = request.class(case.class);
            }
            let mut run = session.sample(request)?;
            // At the first operation of the step's call.
            while run.starts().is_none() || run.progress().step < step {
                run.step()?;
            }
        }
        arenas.push(memory);
    }
    // All cases of a launch share the step's number.
    let shared_step = steps / 2;
    let schedule = Request::new().schedule(model)?;
    let state = gpu::state(model, &schedule, shared_step, 0, &Request::new());
    let classes: Vec<u32> = cases.iter().map(|case| case.class.into()).collect();
    device.write(Space::State, 0, bytemuck::bytes_of(&state))?;
    device.write(Space::State, STATE_BYTES, bytemuck::cast_slice(&classes))?;
    let mut found = vec![];
    progress.begin("operations", model.ops().into());
    for index in 0..model.ops() {
        let Some(op) = model.op(index) else { continue };
        let Some(output) = model.tensor(op.output()) else { continue };
        let mut expected = vec![];
        for (picture, (case, memory)) in cases.iter().zip(&mut arenas).enumerate() {
            provoke(model, &op, case.kind, index, memory.as_mut_slice());
            let at = picture * program.strides.arena as usize;
            device.write(Space::Arenas, at, memory.as_slice())?;
            let mut session = Session::with_weights(model, memory.as_mut_slice(), weights)?;
            session.execute(0, shared_step, case.class, index)?;
            expected.push(memory.as_slice()[output.range()].to_vec());
        }
        device.launch(program.op(index), 1)?;
        let mut parity = OpParity {
            op: name(model, index, &op, &output),
            elements: 0,
            mismatches: 0,
            max_abs_err: 0.0,
            case_errors: vec![],
            first: None,
        };
        for (picture, (case, expected)) in cases.iter().zip(&expected).enumerate() {
            let mut result = vec![0; expected.len()];
            device.read(
                Space::Arenas,
                picture * program.strides.arena as usize + output.offset as usize,
                &mut result,
            )?;
            parity.compare(bound(model.precision()), (op.output(), &output), &case.name, [expected, &result]);
        }
        found.push(parity);
        progress.advance(1);
    }
    progress.end();
    Ok(found)
}

fn name(model: &Model<'_>, index: u16, op: &Op, output: &Tensor) -> String {
    let kind = match op {
        Op::Conv2d(op) if op.layout() == WeightLayout::Groups4 => "conv2d_i4",
        _ => op.name(),
    };
    let Tensor { rows, columns, channels, .. } = output;
    format!("{} {index:03} {kind} {rows}x{columns}x{channels}", precision_name(model.precision()))
}

/// Replaces what an operation reads by an adversary's values.
fn provoke(model: &Model<'_>, op: &Op, kind: Kind, index: u16, arena: &mut [u8]) {
    let (scratch, inputs) = match op {
        Op::Conv2d(op) => {
            ([op.scratch, op.patches, op.window], [op.sources[0], op.sources[1], op.residual, op.norm, op.bias_tensor])
        }
        Op::Attention(op) => ([op.scratch, NONE, NONE], [op.query, op.key_value, NONE, NONE, NONE]),
        _ => {
            let [a, b, c, d, ..] = op.operands();
            ([NONE; 3], [a, b, c, d, NONE])
        }
    };
    for (place, id) in inputs.into_iter().enumerate() {
        let Some(tensor) = model.tensor(id).filter(|_| !scratch.contains(&id)) else { continue };
        let Some(bytes) = arena.get_mut(tensor.range()) else { continue };
        let size = tensor.element().bytes();
        for (element, bytes) in bytes.chunks_exact_mut(size).enumerate() {
            let word = match kind {
                Kind::Real { .. } => continue,
                Kind::Noise { seed } => philox([seed as u32, place as u32], [element as u32, index.into(), 0, 0])[0],
                Kind::Least => 0x8000_0000,
                Kind::Largest => 0x7FFF_FFFF,
                Kind::Alternating if element % 2 == 0 => 0x8000_0000,
                Kind::Alternating => 0x7FFF_FFFF,
                Kind::Zeros => 0,
            };
            let value = word as i32;
            // Floats reach from −1000 to 1000: more would leave the range of half precision in a sum.
            let real = match kind {
                Kind::Noise { .. } => gaussian(word) as f32 / (1 << 18) as f32,
                _ => value as f32 / 2_147_483_648.0 * 1000.0,
            };
            match tensor.element() {
                Element::I8 => bytes.copy_from_slice(&((value >> 24) as i8).to_le_bytes()),
                Element::I16 => bytes.copy_from_slice(&((value >> 16) as i16).to_le_bytes()),
                Element::I32 => bytes.copy_from_slice(&value.to_le_bytes()),
                Element::F16 => bytes.copy_from_slice(&half::f16::from_f32(real).to_le_bytes()),
                Element::F32 => bytes.copy_from_slice(&real.to_le_bytes()),
            }
        }
    }
}

/// A tensor's elements as reals, integers as they are.
fn values(element: Element, bytes: &[u8]) -> Vec<f64> {
    let read = |chunk: &[u8]| match (element, chunk) {
        (Element::I8, &[a]) => f64::from(a as i8),
        (Element::I16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
        (Element::I32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
        (Element::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
        (Element::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        _ => f64::NAN,
    };
    bytes.chunks_exact(element.bytes()).map(read).collect()
}

impl OpParity {
    /// Takes note of a case: what was `expected` in a tensor, whose number is `id`, and what was `found`.
    fn compare(&mut self, bound: f64, (id, tensor): (u16, &Tensor), case: &str, [expected, found]: [&[u8]; 2]) {
        let [expected, found] = [expected, found].map(|bytes| values(tensor.element(), bytes));
        let largest = expected.iter().filter(|x| x.is_finite()).fold(0f64, |largest, x| largest.max(x.abs()));
        let mut worst = 0f64;
        for (index, (&expected, &found)) in expected.iter().zip(&found).enumerate() {
            self.elements += 1;
            if expected == found || expected.is_nan() && found.is_nan() {
                continue;
            }
            let error = (expected - found).abs();
            worst = worst.max(error);
            // An error that is no number is beyond any bound.
            let is_within = error <= bound * largest;
            if !is_within {
                self.mismatches += 1;
                let first = Difference { case: case.into(), tensor: id, index, expected, found };
                self.first.get_or_insert(first);
            }
        }
        self.max_abs_err = self.max_abs_err.max(worst);
        self.case_errors.push((case.into(), worst / largest.max(1e-30)));
    }
}

/// Draws pictures with both and compares their bytes.
///
/// # Errors
/// If the model cannot draw this, or the device fails.
pub fn images(
    device: &mut dyn Device,
    model: &Model<'_>,
    batch: &Batch,
    most: Option<u32>,
    progress: &dyn Progress,
) -> Result<ImageParity, ParityError> {
    let expected = draw(model, batch, progress)?;
    let started = std::time::Instant::now();
    let found = gpu::draw(device, model, batch, most, progress)?;
    let pictures_per_second = found.len() as f64 / started.elapsed().as_secs_f64();
    let (mut different, mut max_byte_err) = (0, 0);
    // A policy's bytes are those of numbers, which are near each other where their bytes need not be.
    let shown = |picture: &Picture| match model.precision() {
        Precision::F16 | Precision::F32 if model.has_actions() => to_bytes(&picture.sample),
        _ => picture.bytes.clone(),
    };
    for (expected, found) in expected.iter().zip(&found) {
        different += usize::from(expected.bytes != found.bytes);
        let (expected, found) = (shown(expected), shown(found));
        let errors = expected.iter().zip(&found).map(|(a, b)| a.abs_diff(*b));
        max_byte_err = errors.fold(max_byte_err, u8::max);
    }
    let steps = batch.request.schedule(model)?.steps;
    let guidance = batch.request.asked_guidance().to_bits() as f32 / 65_536.0;
    let mut what = format!("{}, {steps} steps, guidance {guidance}", precision_name(model.precision()));
    let rescale = batch.request.asked_rescale();
    if rescale != Rescale::NONE {
        what += &format!(" rescaled by {:.2}", f64::from(rescale.to_bits()) / 65_536.0);
    }
    Ok(ImageParity { what, images: found.len(), different, max_byte_err, pictures_per_second })
}
