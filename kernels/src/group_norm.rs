//! Group normalization: a warp one group of one picture.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::group_norm::{GroupMap, channel_map, inverse_deviation, to_common_scale};
use waft::format::{Affine, GroupNorm, Op};

use crate::element::Place;
use crate::memory::{Memory, Space};
use crate::warp::{LANES, Warp};
use crate::{Body, State, Strides};

/// What the kernels know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Parameters {
    strides: Strides,
    op: GroupNorm,
    sources: [Place; 2],
    output_at: u32,
    /// Channels of a group.
    per_group: u32,
}

impl Parameters {
    /// Of operation `index` of a model; `None` if it is not a group normalization.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::GroupNorm(mut op) = model.op(index)? else { return None };
        let output = model.tensor(op.output)?;
        if op.affine() == Affine::Tensor {
            // Offsets in the arena then.
            op.gamma = model.tensor(op.affine_tensor)?.offset;
            op.beta = op.gamma + 4 * u32::from(output.columns);
        }
        Some(Self {
            strides,
            op,
            sources: op.sources.map(|id| Place::of(model.tensor(id))),
            output_at: output.offset,
            per_group: u32::from(output.columns) / u32::from(op.groups),
        })
    }

    fn warps(&self, batch: u32) -> u64 {
        u64::from(self.op.groups) * u64::from(batch)
    }

    /// Address of a warp's arena, and its group.
    #[inline(always)]
    fn place(&self, op: &GroupNorm, index: u32, batch: u32) -> Option<(usize, u32)> {
        let groups = u32::from(op.groups);
        (index / groups < batch).then(|| (self.strides.arena(index / groups), index % groups))
    }

    /// Writes the maps of a lane's channels of a group: `f` of a channel of the joined input, its factor and its summand.
    #[inline(always)]
    fn set_maps<M: Memory, T: Pod, U: Pod>(
        &self,
        memory: M,
        op: &GroupNorm,
        arena: usize,
        [group, lane]: [u32; 2],
        f: impl Fn(u32, T, T) -> U,
    ) {
        let mut channel = lane;
        while channel < self.per_group {
            let joined = group * self.per_group + channel;
            let place = joined as usize;
            let (space, gamma_at, beta_at) = Self::affine(memory, op, arena);
            let gamma = memory.load(space, gamma_at + 4 * place);
            let beta = memory.load(space, beta_at + 4 * place);
            memory.store(Space::Arenas, arena + self.output_at as usize + 8 * place, f(joined, gamma, beta));
            channel += LANES as u32;
        }
    }

    /// Where the factors and the summands lie.
    #[inline(always)]
    fn affine<M: Memory>(memory: M, op: &GroupNorm, arena: usize) -> (Space, usize, usize) {
        let (gamma, beta) = (op.gamma as usize, op.beta as usize);
        match op.affine() {
            Affine::Constant => (Space::Constants, gamma, beta),
            Affine::Step => {
                let state: State = memory.load(Space::State, 0);
                let step = state.biases as usize + state.step as usize * state.bias_bytes as usize;
                (Space::Constants, step + gamma, step + beta)
            }
            Affine::Tensor => (Space::Arenas, arena + gamma, arena + beta),
        }
    }

    /// The channels of a group that each source holds, in one arena.
    #[inline(always)]
    fn parts(&self, arena: usize, group: u32) -> [Part; 2] {
        let part = |source: usize| {
            let first = if source == 0 { 0 } else { self.sources[0].channels };
            let tensor = self.sources[source];
            let start = (group * self.per_group).saturating_sub(first).min(tensor.channels);
            let end = ((group + 1) * self.per_group).saturating_sub(first).min(tensor.channels);
            Part { tensor, arena, start, len: end - start }
        };
        [part(0), part(1)]
    }
}

/// A group's share of a source: where it lies, its first channel there, and how many.
#[derive(Clone, Copy)]
struct Part {
    tensor: Place,
    arena: usize,
    start: u32,
    len: u32,
}

impl Part {
    /// Visits the elements that fall to a lane.
    #[inline(always)]
    fn visit(self, lane: u32, mut f: impl FnMut(u32)) {
        let mut index = lane;
        while index < self.tensor.rows * self.tensor.columns * self.len {
            f(index / self.len * self.tensor.channels + self.start + index % self.len);
            index += LANES as u32;
        }
    }

    /// Its sums and its sums of squares, in the common scale of the two sources.
    #[inline(always)]
    fn sums<M: Memory, W: Warp>(self, memory: M, warp: W, zero: i32, ratio: u32) -> W::Each<(i64, u64)> {
        let sums = warp.each(|lane| {
            let (mut sum, mut squares) = (0i64, 0u64);
            self.visit(lane, |element| {
                let value = self.tensor.integer(memory, self.arena, element).wrapping_sub(zero);
                sum = sum.wrapping_add(value.into());
                squares = squares.wrapping_add(u64::from(value.unsigned_abs()).pow(2));
            });
            (sum, squares as i64)
        });
        let total = warp.sum(warp.map(sums, |(sum, _)| sum));
        let total_squares = warp.sum(warp.map(sums, |(_, squares)| squares));
        warp.zip(total, total_squares, |sum, squares: i64| to_common_scale(sum, squares as u64, ratio))
    }

    /// Adds `f` of each element and of the mean to a total, row by row.
    #[inline(always)]
    fn add<M: Memory, W: Warp>(
        self,
        memory: M,
        warp: W,
        means: W::Each<f32>,
        total: W::Each<f32>,
        f: impl Fn(f32, f32) -> f32,
    ) -> W::Each<f32> {
        let tensor = self.tensor;
        let mut total = total;
        if self.len == 0 {
            return total;
        }
        let lanes = warp.each(|lane| lane);
        let mut first = 0;
        while first < tensor.rows {
            let sums = warp.zip(lanes, means, |lane, mean| {
                let mut row_sum = 0f32;
                if first + lane < tensor.rows {
                    for column in 0..tensor.columns {
                        let pixel = ((first + lane) * tensor.columns + column) * tensor.channels + self.start;
                        let mut sum = 0f32;
                        for channel in 0..self.len {
                            sum += f(tensor.float(memory, self.arena, pixel + channel), mean);
                        }
                        row_sum += sum;
                    }
                }
                row_sum
            });
            for row in 0..(tensor.rows - first).min(LANES as u32) {
                total = warp.zip(total, warp.broadcast(sums, row), |total, sum| total + sum);
            }
            first += LANES as u32;
        }
        total
    }
}

/// The `i8` precision: exact sums in any order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct IntegerKernel(pub Parameters);

impl Body for IntegerKernel {
    fn warps(&self, batch: u32) -> u64 {
        self.0.warps(batch)
    }

    #[inline(always)]
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
        let p = &self.0;
        let op = p.op;
        let Some((arena, group)) = p.place(&op, index, batch) else { return };
        let parts = p.parts(arena, group);
        let first = parts[0].sums(memory, warp, op.zero[0], op.ratio[0]);
        let second = parts[1].sums(memory, warp, op.zero[1], op.ratio[1]);
        let sums = warp.zip(first, second, |(sum, squares): (i64, u64), (more, more_squares): (i64, u64)| {
            (sum.wrapping_add(more), squares.wrapping_add(more_squares))
        });
        let count = u64::from(p.sources[0].rows * p.sources[0].columns) * u64::from(parts[0].len + parts[1].len);
        warp.with(sums, |lane, (sum, squares)| {
            let Some(map) = GroupMap::new(&op, sum, squares, count) else { return };
            p.set_maps(memory, &op, arena, [group, lane], |joined, gamma, beta| {
                let is_first = joined < p.sources[0].channels;
                let (ratio, zero) = if is_first { (op.ratio[0], op.zero[0]) } else { (op.ratio[1], op.zero[1]) };
                map.channel(&op, gamma, beta, ratio, zero)
            });
        });
    }
}

/// The float precisions: sums in the device's order, by pixel, row, then rows, a lane each row.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FloatKernel(pub Parameters);

impl Body for FloatKernel {
    fn warps(&self, batch: u32) -> u64 {
        self.0.warps(batch)
    }

    #[inline(always)]
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
        let p = &self.0;
        let op = p.op;
        let Some((arena, group)) = p.place(&op, index, batch) else { return };
        let parts = p.parts(arena, group);
        let count = (p.sources[0].rows * p.sources[0].columns * (parts[0].len + parts[1].len)) as f32;
        let zero = warp.each(|_| 0f32);
        let sum = parts[0].add(memory, warp, zero, zero, |x, _| x);
        let sum = parts[1].add(memory, warp, zero, sum, |x, _| x);
        let means = warp.map(sum, |sum| sum / count);
        let square = |x: f32, mean: f32| (x - mean) * (x - mean);
        let squares = parts[0].add(memory, warp, means, zero, square);
        let squares = parts[1].add(memory, warp, means, squares, square);
        let moments = warp.zip(means, squares, |mean, squares| (mean, squares / count));
        warp.with(moments, |lane, (mean, variance)| {
            let inverse = inverse_deviation(&op, variance);
            p.set_maps(memory, &op, arena, [group, lane], |_, gamma, beta| channel_map(mean, inverse, gamma, beta));
        });
    }
}
