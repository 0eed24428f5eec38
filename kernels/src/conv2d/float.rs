//! Convolution in the float precisions: sums in the device's order, a thread eight output channels of a pixel.

#[cfg(feature = "host")]
use alloc::vec::Vec;

use bytemuck::{Pod, Zeroable};
use waft::arithmetic::conv2d::{FLOAT_CHAIN, gathered_float};
use waft::format::{CHANNEL_BLOCK, NONE};

use super::Parameters;
use crate::element::float;
use crate::memory::{Memory, Space};
use crate::{State, Threads};

/// The weights of operation `index`, from `file`: the model's own bytes, or those of its weights' file; by block of eight
/// output channels, tap, channel. `None` if it is no convolution of a float precision.
#[cfg(feature = "host")]
pub fn pack(model: &waft::Model<'_>, index: u16, file: &[u8]) -> Option<Vec<u8>> {
    use waft::format::{Op, Precision};

    let Op::Conv2d(op) = model.op(index)? else { return None };
    let width = match model.precision() {
        Precision::I8 => return None,
        Precision::F16 => 2,
        Precision::F32 => 4,
    };
    let weights = super::Weights::new(model, &op, file)?;
    let mut packed = Vec::new();
    for block in 0..weights.outputs.div_ceil(CHANNEL_BLOCK) {
        for tap in 0..weights.taps {
            for output in 0..CHANNEL_BLOCK {
                let bits = weights.bits(block * CHANNEL_BLOCK + output, tap)?;
                packed.extend_from_slice(bits.to_le_bytes().get(..width)?);
            }
        }
    }
    Some(packed)
}

/// Gathers the padded, transformed input: a thread one element.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GatherKernel(pub Parameters);

impl Threads for GatherKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.padded_rows * self.0.padded_columns * self.0.channels
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let p = &self.0;
        let [row, column, channel] = p.gather_place(element, p.channels);
        let op = p.op;
        let arena = p.strides.arena(picture);
        let value = match p.source_pixel(&op, row, column) {
            None => 0.0,
            Some(pixel) => {
                let (_, tensor, in_source) = p.source_channel(channel);
                let value = tensor.float(memory, arena, pixel * tensor.channels + in_source);
                gathered_float(&op, value, p.map(&op, memory, arena, channel))
            }
        };
        memory.store(Space::Scratch, p.strides.scratch(picture) + 4 * element as usize, value);
    }
}

/// Multiplies.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct MultiplyKernel(pub Parameters);

impl Threads for MultiplyKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        let output = &self.0.output;
        output.rows * output.columns * output.channels.div_ceil(CHANNEL_BLOCK as u32)
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let op = p.op;
        // Neighbouring threads take neighbouring pixels and share their weights.
        let pixels = p.output.rows * p.output.columns;
        let (block, pixel) = (item / pixels, item % pixels);
        let (y, x) = (pixel / p.output.columns, pixel % p.output.columns);
        let stride = u32::from(op.stride);
        let [kernel_rows, kernel_columns] = op.kernel.map(u32::from);
        let run = kernel_columns * p.channels;
        let (arena, scratch) = (p.strides.arena(picture), p.strides.scratch(picture));
        let first = block * CHANNEL_BLOCK as u32;
        let state: State = memory.load(Space::State, 0);

        // Past the last channel the last one is computed again; its sums are not stored.
        let mut sums: [f32; CHANNEL_BLOCK] = [0, 1, 2, 3, 4, 5, 6, 7]
            .map(|i| p.bias(&op, memory, arena, &state, (first + i).min(p.output.channels - 1)));
        let mut weight = block * kernel_rows * run * CHANNEL_BLOCK as u32;
        for row in 0..kernel_rows {
            let start = ((y * stride + row) * p.padded_columns + x * stride) * p.channels;
            let chain = if p.half != 0 { run } else { FLOAT_CHAIN as u32 };
            let mut begin = 0;
            while begin < run {
                let end = run.min(begin + chain);
                let mut parts = if p.half != 0 { sums } else { [0f32; CHANNEL_BLOCK] };
                for k in begin..end {
                    let activation: f32 = memory.load(Space::Scratch, scratch + 4 * (start + k) as usize);
                    for (i, part) in parts.iter_mut().enumerate() {
                        let at = p.weights_at as usize;
                        *part += activation * float(memory, Space::Constants, at, p.half != 0, weight + i as u32);
                    }
                    weight += CHANNEL_BLOCK as u32;
                }
                if p.half != 0 {
                    sums = parts;
                } else {
                    sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
                }
                begin = end;
            }
        }
        (0..CHANNEL_BLOCK as u32).for_each(|i| {
            if first + i < p.output.channels {
                let element = pixel * p.output.channels + first + i;
                let kept = if op.residual == NONE { 0.0 } else { p.residual.float(memory, arena, element) };
                p.output.set_float(memory, arena, element, sums[i as usize] + op.residual_gain * kept);
            }
        });
    }
}
