//! A file's model at work: what the exporter looks at before it hands the file over.

use typed_index_collections::{TiVec, ti_vec};
use waft::format::{Element, Tensor};
use waft::{Accelerator, Model, Request, Session};

use super::ExportError;
use super::file::File;
use crate::condition::Conditions;
use crate::fixed::to_floats;
use crate::network::{Network, OpId, Role};
use crate::sample;
use crate::threads::together;

/// One network call.
pub(super) struct Call<'a> {
    pub x: &'a [f32],
    pub step: u32,
    /// The first is taken.
    pub conditions: &'a Conditions,
}

/// A file's model, checked and packed once.
pub(super) struct Loaded<'a> {
    pub model: Model<'a>,
    weights: &'a [u8],
    accelerator: Accelerator,
}

impl<'a> Loaded<'a> {
    pub(super) fn new(file: &'a File) -> Result<Self, ExportError> {
        let model = file.model()?;
        let accelerator = together(Accelerator::new(&model));
        Ok(Self { model, weights: &file.weights, accelerator })
    }

    /// The class of pictures that are drawn to see whether the model is right.
    fn class(&self) -> Option<u16> {
        (self.model.classes() > 0).then_some(0)
    }

    /// The samples of a run of the first list, from noise on.
    pub(super) fn trajectory(&self, conditions: &Conditions) -> Vec<Vec<f32>> {
        let request = self.class().map_or(Request::new(), |class| Request::new().class(class)).seed(1);
        let mut memory = sample::arena(&self.model);
        let mut accelerator = self.accelerator.clone();
        let mut session = Session::with_weights(&self.model, memory.as_mut_slice(), self.weights)
            .expect("the exporter's own model runs")
            .accelerated(&mut accelerator);
        conditions.give(&mut session, 0);
        let run = session.sample(request).expect("the exporter's own request is valid");
        sample::finish(run, true).expect("seeds do not run out").trajectory
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
        let mut call = session.predict(0, call.step, self.class()).expect("a step of the model");
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
