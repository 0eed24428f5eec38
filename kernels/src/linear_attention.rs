//! Linear attention in two kernels: contexts and the weights of the queries, then the results over the queries.
//!
//! The scratch of a picture holds a 32-bit weight for each channel of each query, then two words for each head of each query:
//! multiplier and shift in the `i8` precision, the sum of weights in the float precisions.

use bytemuck::{Pod, Zeroable};
use waft::Model;
use waft::arithmetic::attention::normalizer;
use waft::arithmetic::exp;
use waft::arithmetic::linear_attention::{context_of, key_weight, query_weight};
use waft::fixed::{requantize, saturate_i8};
use waft::format::{LinearAttention, Op};

use crate::element::Place;
use crate::keys::Keys;
use crate::memory::{Memory, Space};
use crate::{Strides, Threads};

/// What the kernels know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Parameters {
    strides: Strides,
    op: LinearAttention,
    query: Place,
    keys: Keys,
    contexts: Place,
    pixels: u32,
    /// Channels of a head.
    head: u32,
}

impl Parameters {
    /// Of operation `index` of a model; `None` if it is not a linear attention, or has more than 4 GiB of weights.
    pub fn new(model: &Model<'_>, index: u16, strides: Strides) -> Option<Self> {
        let Op::LinearAttention(op) = model.op(index)? else { return None };
        let query = Place::of(Some(model.tensor(op.query)?));
        let pixels = query.rows.checked_mul(query.columns)?;
        pixels.checked_mul(query.channels)?.checked_mul(12)?;
        let key_value = Place::of(Some(model.tensor(op.key_value)?));
        Some(Self {
            strides,
            op,
            query,
            keys: Keys { pixels: key_value, learned: op.memory.into(), learned_at: op.memory_at },
            contexts: Place::of(Some(model.tensor(op.scratch)?)),
            pixels,
            head: query.channels / u32::from(op.heads),
        })
    }

    /// Bytes of scratch that one picture needs.
    pub fn scratch_bytes(&self) -> u32 {
        self.pixels * (4 * self.query.channels + 8 * u32::from(self.op.heads))
    }

    /// Heads of all queries.
    #[inline(always)]
    fn query_heads(&self) -> u32 {
        self.pixels * (self.query.channels / self.head)
    }

    /// Items of the first kernel.
    #[inline(always)]
    fn tasks(&self) -> u32 {
        self.query_heads() + self.query.channels * self.head
    }

    /// What a thread of the first kernel does.
    #[inline(always)]
    fn task(&self, item: u32) -> Task {
        let heads = self.query_heads();
        if item < heads {
            // The first element of a head of a query.
            return Task::Weigh { first: item * self.head };
        }
        let element = item - heads;
        let (key, channel) = (element / self.head, element % self.head);
        Task::Context { key, value: key - key % self.head + channel, element }
    }

    #[inline(always)]
    fn at(&self, picture: u32) -> At {
        let weights = self.strides.scratch(picture);
        let normalizers = weights + (4 * self.pixels * self.query.channels) as usize;
        At { arena: self.strides.arena(picture), weights, normalizers }
    }
}

/// Where a picture's memory starts.
#[derive(Clone, Copy)]
struct At {
    /// Address of the arena.
    arena: usize,
    /// Addresses in the scratch.
    weights: usize,
    normalizers: usize,
}

/// What a thread of the first kernel computes.
#[derive(Clone, Copy)]
enum Task {
    /// The weights of a head of a query.
    Weigh { first: u32 },
    /// An element of the contexts, from a channel of the keys and one of the values.
    Context { key: u32, value: u32, element: u32 },
}

/// Weights and contexts in the `i8` precision.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct IntegerContextKernel(pub Parameters);

impl Threads for IntegerContextKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.tasks()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let (p, op) = (&self.0, self.0.op);
        let At { arena, weights, normalizers } = p.at(picture);
        match p.task(item) {
            Task::Weigh { first } => {
                let mut largest = i32::MIN;
                for element in first..first + p.head {
                    largest = largest.max(p.query.integer(memory, arena, element));
                }
                let mut total = 0u32;
                for element in first..first + p.head {
                    let weight = query_weight(&op, largest, p.query.integer(memory, arena, element));
                    memory.store(Space::Scratch, weights + 4 * element as usize, weight);
                    total = total.wrapping_add(weight.unsigned_abs());
                }
                let at = normalizers + 8 * (first / p.head) as usize;
                memory.store(Space::Scratch, at, normalizer([op.value_multiplier, op.value_shift], total));
            }
            Task::Context { key, value, element } => {
                let mut largest = i32::MIN;
                for row in 0..p.keys.len() {
                    largest = largest.max(p.keys.integer(memory, arena, row, key));
                }
                let (mut sum, mut total) = (0i32, 0u32);
                for row in 0..p.keys.len() {
                    let weight = key_weight(&op, largest, p.keys.integer(memory, arena, row, key));
                    total = total.wrapping_add(weight.unsigned_abs());
                    let value = p.keys.integer(memory, arena, row, p.query.channels + value);
                    sum = sum.wrapping_add(weight.wrapping_mul(value));
                }
                p.contexts.set_integer(memory, arena, element, context_of(sum, total).into());
            }
        }
    }
}

/// Results in the `i8` precision: a thread one channel of one query.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct IntegerResultKernel(pub Parameters);

impl Threads for IntegerResultKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.pixels * self.0.query.channels
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let At { arena, weights, normalizers } = p.at(picture);
        let (first, channel) = (item - item % p.head, item % p.head);
        let row = first % p.query.channels;
        let mut sum = 0i32;
        for of in 0..p.head {
            let weight: i32 = memory.load(Space::Scratch, weights + 4 * (first + of) as usize);
            let context = p.contexts.integer(memory, arena, (row + of) * p.head + channel);
            sum = sum.wrapping_add(weight.wrapping_mul(context));
        }
        let at = normalizers + 8 * (first / p.head) as usize;
        let [multiplier, shift]: [i32; 2] = memory.load(Space::Scratch, at);
        p.query.set_integer(memory, arena, item, saturate_i8(requantize(sum, multiplier, shift)).into());
    }
}

/// Weights and contexts in the float precisions.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FloatContextKernel(pub Parameters);

impl Threads for FloatContextKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.tasks()
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let At { arena, weights, normalizers } = p.at(picture);
        match p.task(item) {
            Task::Weigh { first } => {
                let mut largest = f32::NEG_INFINITY;
                for element in first..first + p.head {
                    largest = largest.max(p.query.float(memory, arena, element));
                }
                let mut total = 0f32;
                for element in first..first + p.head {
                    let weight = exp(p.query.float(memory, arena, element) - largest);
                    memory.store(Space::Scratch, weights + 4 * element as usize, weight);
                    total += weight;
                }
                memory.store(Space::Scratch, normalizers + 8 * (first / p.head) as usize, total);
            }
            Task::Context { key, value, element } => {
                let mut largest = f32::NEG_INFINITY;
                for row in 0..p.keys.len() {
                    largest = largest.max(p.keys.float(memory, arena, row, key));
                }
                let (mut sum, mut total) = (0f32, 0f32);
                for row in 0..p.keys.len() {
                    let weight = exp(p.keys.float(memory, arena, row, key) - largest);
                    total += weight;
                    sum += weight * p.keys.float(memory, arena, row, p.query.channels + value);
                }
                p.contexts.set_float(memory, arena, element, sum / total);
            }
        }
    }
}

/// Results in the float precisions.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FloatResultKernel(pub Parameters);

impl Threads for FloatResultKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.pixels * self.0.query.channels
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, item: u32, _batch: u32) {
        let p = &self.0;
        let At { arena, weights, normalizers } = p.at(picture);
        let (first, channel) = (item - item % p.head, item % p.head);
        let row = first % p.query.channels;
        let mut sum = 0f32;
        for of in 0..p.head {
            let weight: f32 = memory.load(Space::Scratch, weights + 4 * (first + of) as usize);
            sum += weight * p.contexts.float(memory, arena, (row + of) * p.head + channel);
        }
        let total: f32 = memory.load(Space::Scratch, normalizers + 8 * (first / p.head) as usize);
        p.query.set_float(memory, arena, item, sum / total * p.op.gain);
    }
}
