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
use waft::format::{Element, LinearAttention, Op};

use crate::element::{Place, float};
use crate::memory::{Memory, Space};
use crate::warp::{LANES, Warp};
use crate::{Body, Strides};

/// What the kernels know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Parameters {
    strides: Strides,
    op: LinearAttention,
    query: Place,
    key_value: Place,
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
        Some(Self {
            strides,
            op,
            query,
            key_value: Place::of(Some(model.tensor(op.key_value)?)),
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

    fn weight_warps(&self, batch: u32) -> u64 {
        let threads = self.query_heads() + self.query.channels * self.head;
        (u64::from(threads) * u64::from(batch)).div_ceil(LANES as u64)
    }

    fn result_warps(&self, batch: u32) -> u64 {
        (u64::from(self.pixels * self.query.channels) * u64::from(batch)).div_ceil(LANES as u64)
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

    /// What a thread of the first kernel does.
    #[inline(always)]
    fn weight_place(&self, thread: u32, batch: u32) -> Option<(At, Task)> {
        let (heads, contexts) = (self.query_heads(), self.query.channels * self.head);
        let (picture, task) = (thread / (heads + contexts), thread % (heads + contexts));
        let task = if task < heads {
            // The first element of a head of a query.
            Task::Weigh { first: task * self.head }
        } else {
            let (key, channel) = ((task - heads) / self.head, (task - heads) % self.head);
            Task::Context { key, value: key - key % self.head + channel, element: task - heads }
        };
        (picture < batch).then(|| (self.at(picture), task))
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

/// Runs a thread for each lane.
macro_rules! threads {
    ($(#[$attribute:meta])* $kernel:ident, $warps:ident) => {
        $(#[$attribute])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Pod, Zeroable)]
        pub struct $kernel(pub Parameters);

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

threads!(
    /// Weights and contexts in the `i8` precision.
    IntegerContextKernel,
    weight_warps
);
threads!(
    /// Results in the `i8` precision: a thread one channel of one query.
    IntegerResultKernel,
    result_warps
);
threads!(
    /// Weights and contexts in the float precisions.
    FloatContextKernel,
    weight_warps
);
threads!(
    /// Results in the float precisions.
    FloatResultKernel,
    result_warps
);

impl IntegerContextKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let (p, op) = (&self.0, self.0.op);
        let Some((At { arena, weights, normalizers }, task)) = p.weight_place(thread, batch) else { return };
        match task {
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
                for row in 0..p.keys() {
                    largest = largest.max(p.key_integer(memory, arena, row, key));
                }
                let (mut sum, mut total) = (0i32, 0u32);
                for row in 0..p.keys() {
                    let weight = key_weight(&op, largest, p.key_integer(memory, arena, row, key));
                    total = total.wrapping_add(weight.unsigned_abs());
                    let value = p.key_integer(memory, arena, row, p.query.channels + value);
                    sum = sum.wrapping_add(weight.wrapping_mul(value));
                }
                p.contexts.set_integer(memory, arena, element, context_of(sum, total).into());
            }
        }
    }
}

impl IntegerResultKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let p = &self.0;
        let elements = p.pixels * p.query.channels;
        if thread / elements >= batch {
            return;
        }
        let At { arena, weights, normalizers } = p.at(thread / elements);
        let element = thread % elements;
        let (first, channel) = (element - element % p.head, element % p.head);
        let row = first % p.query.channels;
        let mut sum = 0i32;
        for of in 0..p.head {
            let weight: i32 = memory.load(Space::Scratch, weights + 4 * (first + of) as usize);
            let context = p.contexts.integer(memory, arena, (row + of) * p.head + channel);
            sum = sum.wrapping_add(weight.wrapping_mul(context));
        }
        let at = normalizers + 8 * (first / p.head) as usize;
        let [multiplier, shift]: [i32; 2] = memory.load(Space::Scratch, at);
        p.query.set_integer(memory, arena, element, saturate_i8(requantize(sum, multiplier, shift)).into());
    }
}

impl FloatContextKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let p = &self.0;
        let Some((At { arena, weights, normalizers }, task)) = p.weight_place(thread, batch) else { return };
        match task {
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
                for row in 0..p.keys() {
                    largest = largest.max(p.key_float(memory, arena, row, key));
                }
                let (mut sum, mut total) = (0f32, 0f32);
                for row in 0..p.keys() {
                    let weight = exp(p.key_float(memory, arena, row, key) - largest);
                    total += weight;
                    sum += weight * p.key_float(memory, arena, row, p.query.channels + value);
                }
                p.contexts.set_float(memory, arena, element, sum / total);
            }
        }
    }
}

impl FloatResultKernel {
    #[inline(always)]
    fn thread<M: Memory>(&self, memory: M, thread: u32, batch: u32) {
        let p = &self.0;
        let elements = p.pixels * p.query.channels;
        if thread / elements >= batch {
            return;
        }
        let At { arena, weights, normalizers } = p.at(thread / elements);
        let element = thread % elements;
        let (first, channel) = (element - element % p.head, element % p.head);
        let row = first % p.query.channels;
        let mut sum = 0f32;
        for of in 0..p.head {
            let weight: f32 = memory.load(Space::Scratch, weights + 4 * (first + of) as usize);
            sum += weight * p.contexts.float(memory, arena, (row + of) * p.head + channel);
        }
        let total: f32 = memory.load(Space::Scratch, normalizers + 8 * (first / p.head) as usize);
        p.query.set_float(memory, arena, element, sum / total * p.op.gain);
    }
}
