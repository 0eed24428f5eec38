//! Self-attention in two kernels: weights of every pair of pixels into the scratch, then the context over the queries.
//!
//! The scratch of a picture holds one 32-bit weight for each (head, query, key), then two words for each (head, query):
//! multiplier and shift in the `i8` precision, the sum of weights in the float precisions.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::attention::{normalizer, weight};
use waft::arithmetic::exp;
use waft::fixed::{requantize, saturate_i8};
use waft::format::{Attention, Element, Op};

use crate::element::{Place, float};
use crate::memory::{Memory, Space};
use crate::warp::{LANES, Warp};
use crate::{Body, Strides};

/// What the kernels know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Parameters {
    strides: Strides,
    op: Attention,
    query: Place,
    key_value: Place,
    pixels: u32,
    /// Channels of a head.
    head: u32,
}

impl Parameters {
    /// Of operation `index` of a model; `None` if it is not an attention, or has more than 4 GiB of scores.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::Attention(op) = model.op(index)? else { return None };
        let query = Place::of(Some(model.tensor(op.query)?));
        let pixels = query.rows.checked_mul(query.columns)?;
        let keys = pixels.checked_add(op.memory.into())?;
        keys.checked_mul(4)?.checked_add(8)?.checked_mul(pixels)?.checked_mul(op.heads.into())?;
        Some(Self {
            strides,
            op,
            query,
            key_value: Place::of(Some(model.tensor(op.key_value)?)),
            pixels,
            head: query.channels / u32::from(op.heads),
        })
    }

    /// Bytes of scratch that one picture needs.
    pub fn scratch_bytes(&self) -> u32 {
        self.heads() * self.pixels * (4 * self.keys() + 8)
    }

    #[inline(always)]
    fn heads(&self) -> u32 {
        self.query.channels / self.head
    }

    /// Learned keys, then pixels.
    #[inline(always)]
    fn keys(&self) -> u32 {
        u32::from(self.op.memory) + self.pixels
    }

    /// A channel of a key, or of its value if `channel` is beyond the query's.
    #[inline(always)]
    fn key_integer<M: Memory>(&self, memory: M, arena: usize, key: u32, channel: u32) -> i32 {
        let learned = u32::from(self.op.memory);
        if key < learned {
            let at = self.op.memory_at + key * self.key_value.channels + channel;
            return memory.load::<i8>(Space::Constants, at as usize).into();
        }
        self.key_value.integer(memory, arena, (key - learned) * self.key_value.channels + channel)
    }

    /// The same in single precision.
    #[inline(always)]
    fn key_float<M: Memory>(&self, memory: M, arena: usize, key: u32, channel: u32) -> f32 {
        let learned = u32::from(self.op.memory);
        if key < learned {
            let half = self.key_value.element == Element::F16 as u32;
            let index = key * self.key_value.channels + channel;
            return float(memory, Space::Constants, self.op.memory_at as usize, half, index);
        }
        self.key_value.float(memory, arena, (key - learned) * self.key_value.channels + channel)
    }

    fn score_warps(&self, batch: u32) -> u64 {
        (u64::from(self.heads() * self.pixels) * u64::from(batch)).div_ceil(LANES as u64)
    }

    fn context_warps(&self, batch: u32) -> u64 {
        (u64::from(self.pixels * self.query.channels) * u64::from(batch)).div_ceil(LANES as u64)
    }

    /// Where a thread that computes weights works: at the first channel of a head.
    #[inline(always)]
    fn score_place(&self, thread: u32, batch: u32) -> Option<At> {
        let rows = self.heads() * self.pixels;
        let (picture, row) = (thread / rows, thread % rows);
        (picture < batch).then(|| self.at(picture, row, row % self.pixels, row / self.pixels * self.head))
    }

    /// Where a thread that computes a context works.
    #[inline(always)]
    fn context_place(&self, thread: u32, batch: u32) -> Option<At> {
        let elements = self.pixels * self.query.channels;
        let (picture, element) = (thread / elements, thread % elements);
        let (query, channel) = (element / self.query.channels, element % self.query.channels);
        let row = channel / self.head * self.pixels + query;
        (picture < batch).then(|| self.at(picture, row, query, channel))
    }

    #[inline(always)]
    fn at(&self, picture: u32, row: u32, query: u32, channel: u32) -> At {
        let scratch = self.strides.scratch(picture);
        let rows = self.heads() * self.pixels;
        At {
            arena: self.strides.arena(picture),
            weights: scratch + (4 * row * self.keys()) as usize,
            normalizer: scratch + (4 * rows * self.keys() + 8 * row) as usize,
            query,
            channel,
        }
    }
}

/// Where a thread works.
#[derive(Clone, Copy)]
struct At {
    /// Address of the picture's arena.
    arena: usize,
    /// Addresses of the weights of a head and query, and of what normalizes them.
    weights: usize,
    normalizer: usize,
    query: u32,
    channel: u32,
}

/// Runs a thread for each lane.
macro_rules! threads {
    ($kernel:ident, $warps:ident) => {
        impl Body for $kernel {
            fn warps(&self, batch: u32) -> u64 {
                self.0.$warps(batch)
            }

            #[inline(always)]
            fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
                warp.threads(index, |thread| self.thread(memory, thread, batch));
            }
        }
    };
}

/// Weights in the `i8` precision: a thread one query of one head.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct IntegerScoresKernel(pub Parameters);

threads!(IntegerScoresKernel, score_warps);

impl IntegerScoresKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let p = &self.0;
        let Some(At { arena, weights, normalizer: normalizer_at, query, channel: first }) =
            p.score_place(thread, batch)
        else {
            return;
        };
        let op = p.op;
        let mut largest = i32::MIN;
        for key in 0..p.keys() {
            let mut score = 0i32;
            for channel in first..first + p.head {
                let q = p.query.integer(memory, arena, query * p.query.channels + channel);
                let k = p.key_integer(memory, arena, key, channel);
                score = score.wrapping_add(q * k);
            }
            memory.store(Space::Scratch, weights + 4 * key as usize, score);
            largest = largest.max(score);
        }
        let mut total = 0u32;
        for key in 0..p.keys() {
            let at = weights + 4 * key as usize;
            let weight = weight(&op, largest, memory.load(Space::Scratch, at));
            memory.store(Space::Scratch, at, weight);
            total = total.wrapping_add(weight.unsigned_abs());
        }
        memory.store(Space::Scratch, normalizer_at, normalizer([op.value_multiplier, op.value_shift], total));
    }
}

/// Context in the `i8` precision: a thread one channel of one query.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct IntegerContextKernel(pub Parameters);

threads!(IntegerContextKernel, context_warps);

impl IntegerContextKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let p = &self.0;
        let Some(At { arena, weights, normalizer: normalizer_at, query, channel }) = p.context_place(thread, batch)
        else {
            return;
        };
        let mut sum = 0i32;
        for key in 0..p.keys() {
            let weight: i32 = memory.load(Space::Scratch, weights + 4 * key as usize);
            let value = p.key_integer(memory, arena, key, p.query.channels + channel);
            sum = sum.wrapping_add(weight.wrapping_mul(value));
        }
        let [multiplier, shift]: [i32; 2] = memory.load(Space::Scratch, normalizer_at);
        let value = saturate_i8(requantize(sum, multiplier, shift));
        p.query.set_integer(memory, arena, query * p.query.channels + channel, value.into());
    }
}

/// Weights in the float precisions.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FloatScoresKernel(pub Parameters);

threads!(FloatScoresKernel, score_warps);

impl FloatScoresKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let p = &self.0;
        let Some(At { arena, weights, normalizer: total_at, query, channel: first }) = p.score_place(thread, batch)
        else {
            return;
        };
        let op = p.op;
        let mut largest = f32::NEG_INFINITY;
        for key in 0..p.keys() {
            let mut score = 0f32;
            for channel in first..first + p.head {
                let q = p.query.float(memory, arena, query * p.query.channels + channel);
                let k = p.key_float(memory, arena, key, channel);
                score += q * k;
            }
            score *= op.scale;
            memory.store(Space::Scratch, weights + 4 * key as usize, score);
            largest = largest.max(score);
        }
        let mut total = 0f32;
        for key in 0..p.keys() {
            let at = weights + 4 * key as usize;
            let weight = exp(memory.load::<f32>(Space::Scratch, at) - largest);
            memory.store(Space::Scratch, at, weight);
            total += weight;
        }
        memory.store(Space::Scratch, total_at, total);
    }
}

/// Context in the float precisions.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FloatContextKernel(pub Parameters);

threads!(FloatContextKernel, context_warps);

impl FloatContextKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let p = &self.0;
        let Some(At { arena, weights, normalizer: total_at, query, channel }) = p.context_place(thread, batch) else {
            return;
        };
        // The learned ones' sum and the pixels', as the device has them.
        let sum = |first: u32, end: u32| {
            let mut sum = 0f32;
            for key in first..end {
                let weight: f32 = memory.load(Space::Scratch, weights + 4 * key as usize);
                sum += weight * p.key_float(memory, arena, key, p.query.channels + channel);
            }
            sum
        };
        let learned = u32::from(p.op.memory);
        let sum = sum(0, learned) + sum(learned, p.keys());
        let total: f32 = memory.load(Space::Scratch, total_at);
        p.query.set_float(memory, arena, query * p.query.channels + channel, sum / total);
    }
}
