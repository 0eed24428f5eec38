//! Whole operations at once, with the instructions that the processor at hand has: for hosts, which have a heap.
//!
//! A session alone computes what the plan says in slices, in the arena. With an [`Accelerator`] it computes each operation in one
//! go where there is an implementation here: weights are repacked once, and the transformed input of a convolution is held as a
//! whole, in memory of the accelerator's own. What ends up in the tensors of the plan is the same, bit for bit, in every
//! precision; rings and patches are left alone.

mod activation;
mod attention;
mod conv2d;
mod group_norm;
mod packed;
mod threads;

use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

use self::packed::Packed;
use self::threads::Team;
pub use self::threads::ThreadPool;
pub use crate::arch::wide::Instructions;
use crate::format::{Op, Precision};
use crate::model::Model;
use crate::ops::Context;

/// Weights of a model as a processor's kernels read them, and memory to compute in, which grows on first use and stays. A clone
/// shares the weights, for another thread. See [`Session::accelerated`](crate::Session::accelerated).
#[derive(Clone, Debug)]
pub struct Accelerator {
    instructions: Instructions,
    /// How many bytes the model has, and where: it is for no other.
    model: [usize; 2],
    packed: Arc<[Option<Packed>]>,
    /// The padded, transformed input of a convolution.
    input: Vec<u64>,
    pool: Option<Arc<dyn ThreadPool>>,
    /// Of each thread.
    scratch: Box<[Scratch]>,
}

/// Memory to compute in.
#[derive(Clone, Debug, Default)]
struct Scratch {
    /// The transposed keys of an attention.
    values: Vec<u64>,
    /// The first activation under the kernel at each output pixel.
    starts: Vec<usize>,
    /// A row of a source on its way into the input, or one of tiles.
    row: Vec<u64>,
    /// The affine maps of a row's channels: factors, then summands.
    maps: Vec<u64>,
    /// The weights of some queries' scores, or transformed tiles.
    weights: Vec<u64>,
    /// Statistics of each channel or group, scores of a query, products of tiles.
    sums: Vec<u64>,
}

impl Accelerator {
    /// Repacks the weights of `model` for the best instructions of this processor.
    pub fn new(model: &Model<'_>) -> Self {
        Self::with_instructions(model, Instructions::best())
    }

    /// The same for others.
    pub fn with_instructions(model: &Model<'_>, instructions: Instructions) -> Self {
        let packed = (0..model.ops()).map(|index| match model.op(index)? {
            Op::Conv2d(op) => Packed::new(model, &op, instructions.offset()),
            _ => None,
        });
        let scratch = Box::new([Scratch::default()]);
        Self { instructions, model: place(model), packed: packed.collect(), input: Vec::new(), pool: None, scratch }
    }

    /// Lets operations run on the threads of `pool`: for fewer pictures than threads.
    #[must_use]
    pub fn with_threads(mut self, pool: Arc<dyn ThreadPool>) -> Self {
        self.scratch = (0..pool.threads().max(1)).map(|_| Scratch::default()).collect();
        self.pool = Some(pool);
        self
    }

    /// The instructions that it uses.
    pub const fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// Whether the weights are those of `model`.
    pub(crate) fn is_for(&self, model: &Model<'_>) -> bool {
        self.model == place(model)
    }

    /// Executes an operation as a whole; `None` if it has to be executed in slices.
    pub(crate) fn run(&mut self, context: &Context<'_>, index: u16, op: &Op, arena: &mut [u8]) -> Option<()> {
        let Self { instructions, packed, input, pool, scratch, .. } = self;
        let mut team = Team::new(pool.as_ref(), scratch);
        match op {
            Op::Conv2d(op) => {
                let packed = packed.get(usize::from(index))?.as_ref()?;
                conv2d::run(*instructions, context, (op, packed), (team, input), arena)
            }
            Op::GroupNorm(op) => match context.model.precision() {
                Precision::I8 => group_norm::run_i8(*instructions, context, op, team.alone()?, arena),
                Precision::F16 => group_norm::run_float::<half::f16>(*instructions, context, op, team.alone()?, arena),
                Precision::F32 => group_norm::run_float::<f32>(*instructions, context, op, team.alone()?, arena),
            },
            Op::Attention(op) => attention::run(*instructions, context, op, team.alone()?, arena),
            _ => None,
        }
    }
}

/// Address and number of a model's bytes.
fn place(model: &Model<'_>) -> [usize; 2] {
    [model.bytes().as_ptr().addr(), model.bytes().len()]
}

/// The first `len` values of some memory, which grows if need be; what they are does not matter.
fn room<T: bytemuck::Pod>(memory: &mut Vec<u64>, len: usize) -> &mut [T] {
    let words = (len * size_of::<T>()).div_ceil(size_of::<u64>());
    if memory.len() < words {
        memory.resize(words, 0);
    }
    let values: &mut [T] = bytemuck::cast_slice_mut(memory);
    values.get_mut(..len).unwrap_or_default()
}
