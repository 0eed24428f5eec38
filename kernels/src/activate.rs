//! Activations that are written out, and observations: a thread one element.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::activate::{activated, activated_float, observed, observed_float};
use waft::format::{Activate, Film, NONE, Observe, Op, Precision};

use crate::element::Place;
use crate::memory::{Memory, Space};
use crate::{State, Strides, Threads};

/// What both kernels of an activation know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Parameters {
    strides: Strides,
    op: Activate,
    source: Place,
    residual: Place,
    output: Place,
    /// Places in the arena of the map and of the observation's part.
    norm_at: u32,
    observed_at: u32,
}

impl Parameters {
    fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::Activate(op) = model.op(index)? else { return None };
        Some(Self {
            strides,
            op,
            source: Place::of(Some(model.tensor(op.source)?)),
            residual: Place::of(model.tensor(op.residual)),
            output: Place::of(Some(model.tensor(op.output)?)),
            norm_at: model.tensor(op.norm)?.offset,
            observed_at: model.tensor(op.observed).map_or(0, |tensor| tensor.offset),
        })
    }

    /// The map of a channel.
    #[inline(always)]
    fn map<T: Pod, M: Memory>(&self, memory: M, arena: usize, channel: u32) -> [T; 2] {
        memory.load(Space::Arenas, arena + self.norm_at as usize + 2 * size_of::<T>() * channel as usize)
    }

    /// The parts of the step and of the observation of a channel's factor, then of its summand; defaults for what there is not.
    #[inline(always)]
    fn film<T: Pod, M: Memory>(&self, memory: M, arena: usize, channel: u32) -> [[T; 2]; 2] {
        let (op, zero) = (self.op, T::zeroed());
        let state: State = memory.load(Space::State, 0);
        let step = state.biases as usize + state.step as usize * state.bias_bytes as usize + op.film_at as usize;
        let observed = arena + self.observed_at as usize;
        let part = |element: u32| {
            let at = element as usize * size_of::<T>();
            let of_observation = if op.observed == NONE { zero } else { memory.load(Space::Arenas, observed + at) };
            [memory.load(Space::Constants, step + at), of_observation]
        };
        match op.film() {
            Film::None => [[zero; 2]; 2],
            Film::Shift => [[zero; 2], part(channel)],
            Film::ScaleShift => [part(channel), part(self.source.channels + channel)],
        }
    }
}

/// An activation in the `i8` precision.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct IntegerKernel(Parameters);

impl IntegerKernel {
    /// Of operation `index` of a model; `None` if it is not an activation.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        Parameters::new(model, index, strides).map(Self)
    }
}

impl Threads for IntegerKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.output.len()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let p = &self.0;
        let (op, arena, channel) = (p.op, p.strides.arena(picture), element % p.source.channels);
        let [scale, shift]: [[i32; 2]; 2] = p.film(memory, arena, channel);
        let film = [scale[0].saturating_add(scale[1]), shift[0].saturating_add(shift[1])];
        let kept = if op.residual == NONE { None } else { Some(p.residual.integer(memory, arena, element)) };
        let value = p.source.integer(memory, arena, element);
        let value = activated(&op, value, p.map(memory, arena, channel), film, kept);
        p.output.set_integer(memory, arena, element, value);
    }
}

/// An activation in the float precisions.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FloatKernel(Parameters);

impl FloatKernel {
    /// Of operation `index` of a model; `None` if it is not an activation.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        Parameters::new(model, index, strides).map(Self)
    }
}

impl Threads for FloatKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.output.len()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let p = &self.0;
        let (op, arena, channel) = (p.op, p.strides.arena(picture), element % p.source.channels);
        let [scale, shift]: [[f32; 2]; 2] = p.film(memory, arena, channel);
        let film = [scale[0] + scale[1], shift[0] + shift[1]];
        let kept = if op.residual == NONE { 0.0 } else { p.residual.float(memory, arena, element) };
        let value = p.source.float(memory, arena, element);
        let value = activated_float(&op, value, p.map(memory, arena, channel), film);
        p.output.set_float(memory, arena, element, value + kept);
    }
}

/// The observation of each picture.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ObserveKernel {
    strides: Strides,
    op: Observe,
    source: Place,
    output: Place,
    /// Whether it is in the `i8` precision.
    integer: u32,
}

impl ObserveKernel {
    /// Of operation `index` of a model; `None` if it is not an observation.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::Observe(op) = model.op(index)? else { return None };
        Some(Self {
            strides,
            op,
            source: Place::of(Some(model.tensor(op.source)?)),
            output: Place::of(Some(model.tensor(op.output)?)),
            integer: u32::from(model.precision() == Precision::I8),
        })
    }
}

impl Threads for ObserveKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.output.len()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let (op, arena) = (self.op, self.strides.arena(picture));
        let center = op.centers as usize + 4 * element as usize;
        if self.integer != 0 {
            let x = self.source.integer(memory, arena, element);
            let gain: [i32; 2] = memory.load(Space::Constants, op.gains as usize + 8 * element as usize);
            let value = observed(&op, x, memory.load(Space::Constants, center), gain);
            self.output.set_integer(memory, arena, element, value.into());
        } else {
            let x = self.source.float(memory, arena, element);
            let gain: f32 = memory.load(Space::Constants, op.gains as usize + 4 * element as usize);
            let value = observed_float(&op, x, memory.load(Space::Constants, center), gain);
            self.output.set_float(memory, arena, element, value);
        }
    }
}
