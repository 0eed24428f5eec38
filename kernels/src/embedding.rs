//! Conditioning: a thread one element of the vector, or one result of a projection.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::activate;
use waft::arithmetic::embedding::{activated, projected};
use waft::format::{Embed, Linear, Op, Precision};

use crate::element::{Place, float};
use crate::memory::{Memory, Space};
use crate::{STATE_BYTES, State, Strides, Threads};

/// The conditioning vector of each picture's class and the current step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct EmbedKernel {
    strides: Strides,
    op: Embed,
    output: Place,
    /// Number of classes.
    classes: u32,
    /// The class of every picture, or `u32::MAX` for each its own.
    class: u32,
    /// Whether it is in the `i8` precision.
    integer: u32,
}

impl EmbedKernel {
    /// Of operation `index` of a model, for the class that means "no class" or for each picture's own; `None` if it is not
    /// an embedding.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides, unconditional: bool) -> Option<Self> {
        let Op::Embed(op) = model.op(index)? else { return None };
        Some(Self {
            strides,
            op,
            output: Place::of(Some(model.tensor(op.output)?)),
            classes: model.classes().into(),
            class: if unconditional { model.unconditional_class()?.into() } else { u32::MAX },
            integer: u32::from(model.precision() == Precision::I8),
        })
    }
}

impl Threads for EmbedKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.output.len()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let len = self.output.len();
        let op = self.op;
        let state: State = memory.load(Space::State, 0);
        let class = if self.class == u32::MAX {
            memory.load(Space::State, STATE_BYTES + 4 * picture as usize)
        } else {
            self.class
        };
        let time = (state.step * len + element) as usize;
        let class = (class * len + element) as usize;
        let arena = self.strides.arena(picture);
        if self.integer != 0 {
            let time = memory.load(Space::Constants, state.embeddings as usize + 2 * time);
            let class =
                if self.classes == 0 { 0 } else { memory.load(Space::Constants, op.table as usize + 2 * class) };
            self.output.set_integer(memory, arena, element, activated(&op, time, class).into());
        } else {
            let time: f32 = memory.load(Space::Constants, state.embeddings as usize + 4 * time);
            let class =
                if self.classes == 0 { 0.0 } else { memory.load(Space::Constants, op.table as usize + 4 * class) };
            self.output.set_float(memory, arena, element, activate(op.activation(), time + class));
        }
    }
}

/// A projection of the conditioning vector into a bias.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct LinearKernel {
    strides: Strides,
    op: Linear,
    source: Place,
    output: Place,
    /// Whether it is in the `i8` precision.
    integer: u32,
    /// Whether weights are half precision.
    half: u32,
}

impl LinearKernel {
    /// Of operation `index` of a model; `None` if it is not a linear map.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::Linear(op) = model.op(index)? else { return None };
        Some(Self {
            strides,
            op,
            source: Place::of(Some(model.tensor(op.source)?)),
            output: Place::of(Some(model.tensor(op.output)?)),
            integer: u32::from(model.precision() == Precision::I8),
            half: u32::from(model.precision() == Precision::F16),
        })
    }
}

impl Threads for LinearKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.output.len()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, output: u32, _batch: u32) {
        let op = self.op;
        let arena = self.strides.arena(picture);
        let inputs = self.source.len();
        if self.integer != 0 {
            let mut sum = 0i64;
            for input in 0..inputs {
                let at = op.weights as usize + 2 * (output * inputs + input) as usize;
                let weight = i32::from(memory.load::<i16>(Space::Constants, at));
                sum += i64::from(weight * self.source.integer(memory, arena, input));
            }
            let requant = memory.load(Space::Constants, op.requant as usize + 8 * output as usize);
            let bias = memory.load(Space::Constants, op.bias as usize + 4 * output as usize);
            self.output.set_integer(memory, arena, output, projected(sum, requant, bias));
        } else {
            let mut sum = 0f32;
            for input in 0..inputs {
                let index = output * inputs + input;
                let weight = float(memory, Space::Constants, op.weights as usize, self.half != 0, index);
                sum += weight * self.source.float(memory, arena, input);
            }
            let bias: f32 = memory.load(Space::Constants, op.bias as usize + 4 * output as usize);
            self.output.set_float(memory, arena, output, bias + sum);
        }
    }
}
