//! Self-attention in two kernels: weights of every pair of pixels into the scratch, then the context over the queries.
//!
//! The scratch of a picture holds one 32-bit weight for each (head, query, key), then two words for each (head, query):
//! multiplier and shift in the `i8` precision, the sum of weights in the float precisions.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::attention::{normalizer, weight};
use waft::arithmetic::exp;
use waft::fixed::{requantize, saturate_i8};
use waft::format::{Attention, Op};

use crate::element::Place;
use crate::keys::Keys;
use crate::memory::{Memory, Space};
use crate::{Strides, Threads};

/// What the kernels know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Parameters {
    strides: Strides,
    op: Attention,
    query: Place,
    keys: Keys,
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
        let key_value = Place::of(Some(model.tensor(op.key_value)?));
        let keys = Keys { pixels: key_value, learned: op.memory.into(), learned_at: op.memory_at };
        keys.checked_len()?.checked_mul(4)?.checked_add(8)?.checked_mul(pixels)?.checked_mul(op.heads.into())?;
        Some(Self { strides, op, query, keys, pixels, head: query.channels / u32::from(op.heads) })
    }

    /// Bytes of scratch that one picture needs.
    pub fn scratch_bytes(&self) -> u32 {
        self.heads() * self.pixels * (4 * self.keys.len() + 8)
    }

    #[inline(always)]
    fn heads(&self) -> u32 {
        self.query.channels / self.head
    }

    /// Where a thread that computes weights works: at the first channel of a head.
    #[inline(always)]
    fn score_place(&self, picture: u32, row: u32) -> At {
        self.at(picture, row, row % self.pixels, row / self.pixels * self.head)
    }

    /// Where a thread that computes a context works.
    #[inline(always)]
    fn context_place(&self, picture: u32, element: u32) -> At {
        let (query, channel) = (element / self.query.channels, element % self.query.channels);
        self.at(picture, channel / self.head * self.pixels + query, query, channel)
    }

    #[inline(always)]
    fn at(&self, picture: u32, row: u32, query: u32, channel: u32) -> At {
        let scratch = self.strides.scratch(picture);
        let rows = self.heads() * self.pixels;
        At {
            arena: self.strides.arena(picture),
            weights: scratch + (4 * row * self.keys.len()) as usize,
            normalizer: scratch + (4 * rows * self.keys.len() + 8 * row) as usize,
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

/// Weights in the `i8` precision: a thread one query of one head.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct IntegerScoresKernel(pub Parameters);

impl Threads for IntegerScoresKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.heads() * self.0.pixels
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let At { arena, weights, normalizer: normalizer_at, query, channel: first } = p.score_place(picture, item);
        let op = p.op;
        let mut largest = i32::MIN;
        for key in 0..p.keys.len() {
            let mut score = 0i32;
            for channel in first..first + p.head {
                let q = p.query.integer(memory, arena, query * p.query.channels + channel);
                let k = p.keys.integer(memory, arena, key, channel);
                score = score.wrapping_add(q * k);
            }
            memory.store(Space::Scratch, weights + 4 * key as usize, score);
            largest = largest.max(score);
        }
        let mut total = 0u32;
        for key in 0..p.keys.len() {
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

impl Threads for IntegerContextKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.pixels * self.0.query.channels
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let At { arena, weights, normalizer: normalizer_at, query, channel } = p.context_place(picture, item);
        let mut sum = 0i32;
        for key in 0..p.keys.len() {
            let weight: i32 = memory.load(Space::Scratch, weights + 4 * key as usize);
            let value = p.keys.integer(memory, arena, key, p.query.channels + channel);
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

impl Threads for FloatScoresKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.heads() * self.0.pixels
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let At { arena, weights, normalizer: total_at, query, channel: first } = p.score_place(picture, item);
        let op = p.op;
        let mut largest = f32::NEG_INFINITY;
        for key in 0..p.keys.len() {
            let mut score = 0f32;
            for channel in first..first + p.head {
                let q = p.query.float(memory, arena, query * p.query.channels + channel);
                let k = p.keys.float(memory, arena, key, channel);
                score += q * k;
            }
            score *= op.scale;
            memory.store(Space::Scratch, weights + 4 * key as usize, score);
            largest = largest.max(score);
        }
        let mut total = 0f32;
        for key in 0..p.keys.len() {
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

impl Threads for FloatContextKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.pixels * self.0.query.channels
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let At { arena, weights, normalizer: total_at, query, channel } = p.context_place(picture, item);
        // The learned ones' sum and the pixels', as the device has them.
        let sum = |first: u32, end: u32| {
            let mut sum = 0f32;
            for key in first..end {
                let weight: f32 = memory.load(Space::Scratch, weights + 4 * key as usize);
                sum += weight * p.keys.float(memory, arena, key, p.query.channels + channel);
            }
            sum
        };
        let learned = u32::from(p.op.memory);
        let sum = sum(0, learned) + sum(learned, p.keys.len());
        let total: f32 = memory.load(Space::Scratch, total_at);
        p.query.set_float(memory, arena, query * p.query.channels + channel, sum / total);
    }
}
