//! How far each activation of a file is from that of the `f32` model.

use typed_index_collections::{TiVec, ti_vec};
use waft::format::{Element, Tensor};
use waft::{Accelerator, Model, Request, Session};

use super::file::File;
use super::prepared::Prepared;
use super::{ExportError, TensorError};
use crate::condition::Conditions;
use crate::fixed::to_floats;
use crate::network::{Network, OpId, Role};
use crate::progress::Progress;
use crate::sample;

/// Error of every activation: both models see the same samples, those of a run of the first list with `reference`, the
/// `f32` model.
///
/// # Panics
/// If the files are not of this network: a defect of the exporter.
pub(super) fn measure(
    prepared: &Prepared,
    reference: &File,
    file: &File,
    progress: &dyn Progress,
) -> Result<Vec<TensorError>, ExportError> {
    let Prepared { network, conditions, .. } = prepared;
    let model = reference.model()?;
    let class = (model.classes() > 0).then_some(0);
    let request = class.map_or(Request::new(), |class| Request::new().class(class)).seed(1);
    let mut memory = sample::arena(&model);
    let mut accelerator = Accelerator::new(&model);
    let session = Session::new(&model, memory.as_mut_slice()).expect("the exporter's own model runs");
    let mut session = session.accelerated(&mut accelerator);
    conditions.give(&mut session, 0);
    let run = session.sample(request).expect("the exporter's own request is valid");
    let samples = sample::finish(run, true).expect("seeds do not run out").trajectory;

    let steps = model.schedule(0).map_or(0, |list| list.steps as usize);
    let [reference, quantized] = [Loaded::new(reference)?, Loaded::new(file)?];
    let mut power: TiVec<OpId, [f64; 2]> = ti_vec![[0.0; 2]; network.ops.len()];
    progress.begin("measuring errors", steps as u64);
    for (step, x) in samples.iter().take(steps).enumerate() {
        let call = Call { x, step: step as u32, class, conditions };
        let (want, got) = rayon::join(|| reference.results(network, &call), || quantized.results(network, &call));
        for (power, (want, got)) in power.iter_mut().zip(want.iter().zip(&got)) {
            for (&want, &got) in want.iter().zip(got) {
                power[0] += want * want;
                power[1] += (want - got) * (want - got);
            }
        }
        progress.advance(1);
    }
    progress.end();
    let element = |id| {
        quantized.model.tensor(id).map_or_else(String::new, |tensor| format!("{:?}", tensor.element()).to_lowercase())
    };
    let measured = network.ops.iter().zip(power).filter(|(_, [signal, _])| *signal > 0.0);
    let of = |((name, op), [signal, error]): (&(String, crate::network::Op), [f64; 2])| TensorError {
        name: name.clone(),
        element: element(op.output().in_file()),
        sqnr_db: 10.0 * (signal / error.max(signal * 1e-20)).log10(),
    };
    Ok(measured.map(of).collect())
}

/// One network call.
pub(super) struct Call<'a> {
    pub x: &'a [f32],
    pub step: u32,
    pub class: Option<u16>,
    /// The first is taken.
    pub conditions: &'a Conditions,
}

/// A model whose calls are looked into.
pub(super) struct Loaded<'a> {
    model: Model<'a>,
    weights: &'a [u8],
    accelerator: Accelerator,
}

impl<'a> Loaded<'a> {
    pub(super) fn new(file: &'a File) -> Result<Self, ExportError> {
        let model = file.model()?;
        let accelerator = Accelerator::new(&model);
        Ok(Self { model, weights: &file.weights, accelerator })
    }

    /// Real values of each operation's result; empty for what has no real scale.
    pub(super) fn results(&self, network: &Network, call: &Call<'_>) -> TiVec<OpId, Vec<f64>> {
        let model = &self.model;
        let mut memory = sample::arena(model);
        let mut accelerator = self.accelerator.clone();
        let mut session = Session::with_weights(model, memory.as_mut_slice(), self.weights)
            .expect("the exporter's own model runs")
            .accelerated(&mut accelerator);
        sample::set_input(&mut session, call.x).expect("the exporter's own model has an input");
        call.conditions.give(&mut session, 0);
        let mut call = session.predict(0, call.step, call.class).expect("a step of the model");
        let mut results: TiVec<OpId, Vec<f64>> = ti_vec![vec![]; network.ops.len()];
        let mut before = None;
        loop {
            let starts = call.starts().map(OpId::from);
            // An operation that waits for its weights starts several times.
            if let (Some(op), true) = (before, starts.is_some() && starts != before) {
                let id = network.ops[op].1.output();
                if matches!(network.tensors[id].role, Role::Stream | Role::Attention)
                    && let (Some(tensor), Some(bytes)) = (model.tensor(id.in_file()), call.tensor_bytes(id.in_file()))
                {
                    results[op] = reals(&tensor, bytes);
                }
            }
            before = starts.or(before);
            if !call.step().expect("an operation of the model") {
                break;
            }
        }
        if let Some(last) = results.last_mut() {
            *last = to_floats(call.output()).into_iter().map(f64::from).collect();
        }
        results
    }
}

/// A tensor's bytes as real numbers.
fn reals(tensor: &Tensor, bytes: &[u8]) -> Vec<f64> {
    let scale = f64::from(tensor.scale);
    let zero = f64::from(tensor.zero_point);
    let dequantize = |q: f64| (q - zero) * scale;
    match tensor.element() {
        Element::I8 => bytes.iter().map(|&b| dequantize(f64::from(b as i8))).collect(),
        Element::I16 => bytes.as_chunks().0.iter().map(|&b| dequantize(f64::from(i16::from_le_bytes(b)))).collect(),
        Element::I32 => bytes.as_chunks().0.iter().map(|&b| dequantize(f64::from(i32::from_le_bytes(b)))).collect(),
        Element::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f64()).collect(),
        Element::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
    }
}
