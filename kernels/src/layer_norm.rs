//! Normalization over the channels of each pixel: a thread one pixel, which may be written over the input's.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::layer_norm::{Sums, center, inverse_deviation, normalized, normalized_float, squared};
use waft::format::{Affine, LayerNorm, NONE, Op};

use crate::element::Place;
use crate::memory::{Memory, Space};
use crate::{State, Strides, Threads};

/// What both kernels know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Parameters {
    strides: Strides,
    op: LayerNorm,
    source: Place,
    residual: Place,
    output: Place,
    pixels: u32,
}

impl Parameters {
    fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::LayerNorm(op) = model.op(index)? else { return None };
        let output = Place::of(Some(model.tensor(op.output)?));
        Some(Self {
            strides,
            op,
            source: Place::of(Some(model.tensor(op.source)?)),
            residual: Place::of(model.tensor(op.residual)),
            output,
            pixels: output.rows * output.columns,
        })
    }

    /// Where the constants of a step or of all of them start.
    #[inline(always)]
    fn constants<M: Memory>(&self, memory: M) -> usize {
        match self.op.affine() {
            Affine::Step => {
                let state: State = memory.load(Space::State, 0);
                state.biases as usize + state.step as usize * state.bias_bytes as usize
            }
            _ => 0,
        }
    }

    /// Factor and summand of a channel.
    #[inline(always)]
    fn affine<T: Pod, M: Memory>(&self, memory: M, constants: usize, channel: u32) -> [T; 2] {
        [self.op.gamma, self.op.beta]
            .map(|at| memory.load(Space::Constants, constants + at as usize + 4 * channel as usize))
    }
}

/// Declares a kernel that calls `pixel` for each pixel of each picture.
macro_rules! kernel {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Pod, Zeroable)]
        pub struct $name(Parameters);

        impl $name {
            /// Of operation `index` of a model; `None` if it is not such a normalization.
            pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
                Parameters::new(model, index, strides).map(Self)
            }
        }

        impl Threads for $name {
            #[inline(always)]
            fn items(&self) -> u32 {
                self.0.pixels
            }

            #[inline(always)]
            fn compute<M: Memory>(&self, memory: M, picture: u32, pixel: u32, _batch: u32) {
                self.pixel(memory, self.0.strides.arena(picture), pixel * self.0.source.channels);
            }
        }
    };
}

kernel!(
    /// In the `i8` precision.
    IntegerKernel
);
kernel!(
    /// In the float precisions: sums in the device's order.
    FloatKernel
);

impl IntegerKernel {
    #[inline(always)]
    fn pixel<M: Memory>(&self, memory: M, arena: usize, first: u32) {
        let (p, op) = (&self.0, self.0.op);
        let mut sums = Sums::default();
        for channel in 0..p.source.channels {
            sums.add(p.source.integer(memory, arena, first + channel).wrapping_sub(op.zero));
        }
        let Some(statistics) = sums.statistics(&op, p.source.channels.into()) else { return };
        let constants = p.constants(memory);
        for channel in 0..p.source.channels {
            let element = first + channel;
            let kept = if op.residual == NONE { None } else { Some(p.residual.integer(memory, arena, element)) };
            let value = p.source.integer(memory, arena, element);
            let value = normalized(&op, statistics, value, p.affine(memory, constants, channel), kept);
            p.output.set_integer(memory, arena, element, value);
        }
    }
}

impl FloatKernel {
    #[inline(always)]
    fn pixel<M: Memory>(&self, memory: M, arena: usize, first: u32) {
        let (p, op) = (&self.0, self.0.op);
        let count = p.source.channels as f32;
        let (mut sum, mut squares) = (0f32, 0f32);
        for channel in 0..p.source.channels {
            sum += p.source.float(memory, arena, first + channel);
        }
        let center = center(&op, sum, count);
        for channel in 0..p.source.channels {
            squares += squared(p.source.float(memory, arena, first + channel), center);
        }
        let inverse = inverse_deviation(&op, squares, count);
        let constants = p.constants(memory);
        for channel in 0..p.source.channels {
            let element = first + channel;
            let kept = if op.residual == NONE { 0.0 } else { p.residual.float(memory, arena, element) };
            let value = p.source.float(memory, arena, element);
            let affine = p.affine(memory, constants, channel);
            p.output.set_float(memory, arena, element, normalized_float(&op, value, [center, inverse], affine) + kept);
        }
    }
}
