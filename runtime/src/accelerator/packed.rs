//! Weights in the order in which kernels read them.

use std::vec;
use std::vec::Vec;

use bytemuck::Pod;

use super::conv2d::tiles::{POINTS, SIDE, TILE, transform_weights};
use crate::arch::wide::{LANES, PANEL, PIXELS, Scale};
use crate::fixed::RESIDUAL_BITS;
use crate::format::{Conv2d, Element, NONE, Tiling, WeightLayout};
use crate::model::Model;

/// A convolution's weights and what belongs to its channels.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) weights: Weights,
    /// For bytes, what each channel's accumulator has too much, as activations are stored with an offset; else empty.
    pub(super) excess: Vec<i32>,
    /// How accumulators become results, by block of channels; empty in float precisions.
    pub(super) scales: Vec<Scale>,
    /// How the residual comes into the units of the output.
    pub(super) residual: Scale,
}

/// Weights by their type.
#[derive(Clone, Debug)]
pub(super) enum Weights {
    Bytes(Vec<i8>),
    Words(Vec<i16>),
    /// Transformed for tiles of two rows.
    Tiles(Vec<i16>),
    Floats(Vec<f32>),
}

impl Weights {
    /// Input channels with those that make every run of activations whole groups of taps.
    pub(super) fn padded(&self, inputs: usize) -> usize {
        inputs.next_multiple_of(match self {
            Weights::Bytes(_) => 4,
            Weights::Words(_) | Weights::Tiles(_) => 2,
            Weights::Floats(_) => 1,
        })
    }
}

/// Blocks of each panel that `channels` output channels are cut into: as few panels as can be, of like size.
pub(super) fn panels(channels: usize) -> impl Iterator<Item = usize> {
    let blocks = channels.div_ceil(LANES);
    let panels = blocks.div_ceil(PANEL);
    (0..panels).map(move |panel| (panel + 1) * blocks / panels - panel * blocks / panels)
}

/// A convolution's weights by row of the kernel, column, input channel and output channel.
pub(super) struct Source<'a> {
    pub(super) kernel: [usize; 2],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Input channels with those that make runs whole groups.
    pub(super) padded: usize,
    pub(super) values: &'a [u8],
    pub(super) layout: WeightLayout,
}

impl Source<'_> {
    /// The place of a weight, as [`WeightLayout::index`] counts; `None` for one that only fills a group or a block.
    fn index(&self, output: usize, [row, column, input]: [usize; 3]) -> Option<usize> {
        let tap = (row * self.kernel[1] + column) * self.inputs + input;
        let taps = self.kernel[0] * self.kernel[1] * self.inputs;
        (output < self.outputs && input < self.inputs).then(|| self.layout.index(output, tap, taps))
    }

    /// The integer there.
    fn integer(&self, index: usize) -> i8 {
        match self.layout {
            WeightLayout::Groups4 => {
                let pair = self.values.get(index / 2).copied().unwrap_or_default();
                (pair << (4 * (1 - index % 2))) as i8 >> 4
            }
            _ => self.values.get(index).map_or(0, |&value| value as i8),
        }
    }

    /// The float there.
    fn float(&self, index: usize) -> f32 {
        match self.layout {
            WeightLayout::Groups16 => {
                let bytes = self.values.as_chunks().0.get(index).copied().unwrap_or_default();
                half::f16::from_le_bytes(bytes).to_f32()
            }
            _ => self.values.as_chunks().0.get(index).map_or(0.0, |&bytes| f32::from_le_bytes(bytes)),
        }
    }

    /// All weights in the order that [`Wide`](crate::arch::wide::Wide) states, with groups of `group` taps.
    fn pack<T: Pod>(&self, group: usize, value: impl Fn(usize) -> T) -> Vec<T> {
        let run = self.kernel[1] * self.padded;
        let mut weights = Vec::with_capacity(self.outputs.next_multiple_of(LANES) * self.kernel[0] * run);
        let mut first = 0;
        for blocks in panels(self.outputs) {
            let end = first + blocks * LANES;
            for row in 0..self.kernel[0] {
                for taps in (0..run).step_by(group) {
                    for output in first..end {
                        let taps = (taps..taps + group).map(|tap| [row, tap / self.padded, tap % self.padded]);
                        weights.extend(taps.map(|tap| self.index(output, tap).map_or(T::zeroed(), &value)));
                    }
                }
            }
            first = end;
        }
        weights
    }

    /// The weights of a 3×3 kernel, transformed for tiles of two rows: for each panel and point those of a kernel of one pixel.
    pub(super) fn pack_tiles(&self) -> Vec<i16> {
        const GROUP: usize = 2;
        let of_block = LANES * self.padded;
        let mut weights = vec![0; self.outputs.div_ceil(LANES) * POINTS * of_block];
        let mut rest = weights.as_mut_slice();
        let mut first = 0;
        for blocks in panels(self.outputs) {
            let panel;
            (panel, rest) = rest.split_at_mut(blocks * POINTS * of_block);
            for (at, (input, output)) in (0..self.padded)
                .step_by(GROUP)
                .flat_map(|input| (0..blocks * LANES).map(move |output| (input, output)))
                .enumerate()
            {
                for tap in 0..GROUP {
                    let of_row = |row: usize| {
                        let weight = |column| self.index(first + output, [row, column, input + tap]);
                        let weight = |column| weight(column).map_or(0, |index| self.integer(index).into());
                        transform_weights([weight(0), weight(1), weight(2)])
                    };
                    let [a, b, c] = [of_row(0), of_row(1), of_row(2)];
                    for (column, ((a, b), c)) in a.into_iter().zip(b).zip(c).enumerate() {
                        for (row, value) in transform_weights([a, b, c]).into_iter().enumerate() {
                            let point = row * SIDE + column;
                            panel[point * blocks * of_block + at * GROUP + tap] = value;
                        }
                    }
                }
            }
            first += blocks * LANES;
        }
        weights
    }

    /// The sum of each output's weights.
    fn sums(&self) -> Vec<i32> {
        let taps = self.kernel[0] * self.kernel[1] * self.inputs;
        let sum = |output| (0..taps).map(|tap| i32::from(self.integer(self.layout.index(output, tap, taps)))).sum();
        (0..self.outputs).map(sum).collect()
    }
}

/// Weights in rows, from what they are transformed to; `None` where there are none of eight bits.
fn untransformed(tiling: Tiling, values: &[u8], [outputs, inputs]: [usize; 2]) -> Option<Vec<u8>> {
    let numbers = tiling.points() * inputs;
    let mut rows = vec![0; outputs * 9 * inputs];
    for (output, row) in rows.chunks_exact_mut(9 * inputs).enumerate() {
        for input in 0..inputs {
            let weights = tiling.weights(|point| {
                let index = tiling.layout().index(output, point * inputs + input, numbers);
                values.as_chunks().0.get(index).map_or(0, |&bytes| i16::from_le_bytes(bytes))
            })?;
            for (tap, weight) in weights.into_iter().enumerate() {
                *row.get_mut(tap * inputs + input)? = weight as u8;
            }
        }
    }
    Some(rows)
}

impl Packed {
    /// `None` for what has to be executed in slices: streamed weights, scales of each step, and numbers that no weights are
    /// transformed to. `offset` is that of [`Wide`](crate::arch::wide::Wide).
    pub(super) fn new(model: &Model<'_>, op: &Conv2d, offset: Option<i32>) -> Option<Self> {
        let (ring, output) = (model.tensor(op.scratch)?, op.computed(model.tensor(op.output)?));
        if op.window != NONE || op.weight_sums != 0 {
            return None;
        }
        let (inputs, outputs) = (usize::from(ring.channels), usize::from(output.channels));
        let pixels = usize::from(output.rows) * usize::from(output.columns);
        let bytes = op.layout().bytes(outputs as u64, op.taps(inputs as u64)) as usize;
        let values = model.data(op.weights as usize, bytes);
        if values.len() != bytes {
            return None;
        }
        let plain;
        let (values, layout) = match op.layout().tiling() {
            None => (values, op.layout()),
            Some(tiling) => {
                plain = untransformed(tiling, values, [outputs, inputs])?;
                (plain.as_slice(), WeightLayout::Rows8)
            }
        };
        let kernel = op.kernel.map(usize::from);
        let source =
            |group: usize| Source { kernel, inputs, outputs, padded: inputs.next_multiple_of(group), values, layout };
        let residual = Scale::uniform(op.residual_multiplier, op.residual_shift);
        let integers = |weights, excess| {
            let bits = if op.residual == NONE { 0 } else { RESIDUAL_BITS };
            let requant: &[[i32; 2]] =
                crate::ops::view(model.data(op.requant as usize, outputs * size_of::<[i32; 2]>()))?;
            let scales = requant.chunks(LANES).map(|channels| Scale::new(channels, bits)).collect();
            Some(Self { weights, excess, scales, residual })
        };
        match (ring.element(), offset) {
            (Element::I8, Some(offset)) => {
                let source = source(4);
                let excess = source.sums().into_iter().map(|sum| sum.wrapping_mul(offset)).collect();
                integers(Weights::Bytes(source.pack(4, |index| source.integer(index))), excess)
            }
            // With fewer tiles than are multiplied together nothing is saved.
            (Element::I16, _) if op.ring_limit != 0 && pixels >= PIXELS * TILE * TILE => {
                integers(Weights::Tiles(source(2).pack_tiles()), Vec::new())
            }
            (Element::I8 | Element::I16, _) => {
                let source = source(2);
                integers(Weights::Words(source.pack(2, |index| source.integer(index).into())), Vec::new())
            }
            _ => {
                let source = source(1);
                let weights = Weights::Floats(source.pack(1, |index| source.float(index)));
                Some(Self { weights, excess: Vec::new(), scales: Vec::new(), residual })
            }
        }
    }
}
