//! What a classifier and its backward pass are made of besides convolutions: a thread one element.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::classifier::{backward, backward_float, index, loss, loss_float, silu, weight};
use waft::arithmetic::exp;
use waft::format::{Classifier, Op, Pass, Precision};

use crate::element::Place;
use crate::memory::{Memory, Space};
use crate::{STATE_BYTES, State, Strides, Threads};

/// Any part, in any precision.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ClassifierKernel {
    strides: Strides,
    op: Classifier,
    source: Place,
    gradient: Place,
    output: Place,
    /// Whether it is in the `i8` precision.
    integer: u32,
}

impl ClassifierKernel {
    /// Of operation `index` of a model; `None` if it is none of a classifier.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::Classifier(op) = model.op(index)? else { return None };
        Some(Self {
            strides,
            op,
            source: Place::of(Some(model.tensor(op.source)?)),
            gradient: Place::of(model.tensor(op.gradient)),
            output: Place::of(Some(model.tensor(op.output)?)),
            integer: u32::from(model.precision() == Precision::I8),
        })
    }

    /// An element in the `i8` precision.
    #[inline(always)]
    fn fixed<M: Memory>(&self, memory: M, arena: usize, class: u32, element: u32) -> i32 {
        let (op, z) = (self.op, self.source.integer(memory, arena, element));
        let entry = || -> i16 { memory.load(Space::Constants, op.table as usize + 2 * index(z as i8)) };
        let gradient = || self.gradient.integer(memory, arena, element);
        match op.pass() {
            Pass::Forward => entry().into(),
            Pass::Backward => backward(gradient(), entry(), [op.multiplier, op.shift]).into(),
            Pass::BackwardScaled => backward(gradient(), entry(), self.factor(memory)).into(),
            Pass::Loss => {
                let (mut largest, mut total) = (i32::MIN, 0u32);
                for other in 0..self.source.len() {
                    largest = largest.max(self.source.integer(memory, arena, other));
                }
                for other in 0..self.source.len() {
                    total = total.wrapping_add(weight(&op, largest, self.source.integer(memory, arena, other)));
                }
                loss(weight(&op, largest, z), total, element == class).into()
            }
        }
    }

    /// An element in the float precisions.
    #[inline(always)]
    fn float<M: Memory>(&self, memory: M, arena: usize, class: u32, element: u32) -> f32 {
        let z = self.source.float(memory, arena, element);
        let gradient = || self.gradient.float(memory, arena, element);
        match self.op.pass() {
            Pass::Forward => silu(z),
            Pass::Backward => backward_float(gradient(), z, 1.0),
            Pass::BackwardScaled => backward_float(gradient(), z, self.factor(memory)),
            Pass::Loss => {
                let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0);
                for other in 0..self.source.len() {
                    largest = largest.max(self.source.float(memory, arena, other));
                }
                for other in 0..self.source.len() {
                    total += exp(self.source.float(memory, arena, other) - largest);
                }
                loss_float(exp(z - largest), total, element == class)
            }
        }
    }

    /// The factor of the step.
    #[inline(always)]
    fn factor<T: Pod, M: Memory>(&self, memory: M) -> T {
        let state: State = memory.load(Space::State, 0);
        let biases = state.biases as usize + state.step as usize * state.bias_bytes as usize;
        memory.load(Space::Constants, biases + self.op.factor_at as usize)
    }
}

impl Threads for ClassifierKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.output.len()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let arena = self.strides.arena(picture);
        let class = memory.load(Space::State, STATE_BYTES + 4 * picture as usize);
        if self.integer != 0 {
            let value = self.fixed(memory, arena, class, element);
            self.output.set_integer(memory, arena, element, value);
        } else {
            let value = self.float(memory, arena, class, element);
            self.output.set_float(memory, arena, element, value);
        }
    }
}
