//! The operations of the device. One folder each: geometry and slices in `mod.rs`, arithmetic per precision beside it.
//!
//! An operation binds what a slice reads and writes, which fails if something is missing, and then computes, which cannot
//! fail. Every operation is cut into slices of bounded work; a slice is a pure function of the model, the arena and its
//! index, executed in ascending order. Operations return `None` if the plan does not hold together, which a validated
//! model excludes: it means that the model's bytes changed under the run.

use core::ops::Range;

use bytemuck::Pod;

#[cfg(feature = "attention")]
use crate::format::Attention;
#[cfg(feature = "classifier")]
use crate::format::Classifier;
#[cfg(feature = "filter")]
use crate::format::Filter;
#[cfg(feature = "layer-norm")]
use crate::format::LayerNorm;
#[cfg(feature = "linear-attention")]
use crate::format::LinearAttention;
#[cfg(feature = "unet1d")]
use crate::format::{Activate, Observe};
use crate::format::{Activation, Affine, Conv2d, GroupNorm, NONE, Op, Schedule, Shuffle, Tensor, WeightLayout};
#[cfg(feature = "conditioning")]
use crate::format::{Embed, Linear};
use crate::model::Model;

#[cfg(feature = "unet1d")]
pub(crate) mod activate;
#[cfg(feature = "attention")]
pub(crate) mod attention;
#[cfg(feature = "classifier")]
pub(crate) mod classifier;
pub(crate) mod conv2d;
#[cfg(feature = "conditioning")]
pub(crate) mod embedding;
#[cfg(feature = "filter")]
pub(crate) mod filter;
pub(crate) mod group_norm;
#[cfg(feature = "layer-norm")]
pub(crate) mod layer_norm;
#[cfg(feature = "linear-attention")]
pub(crate) mod linear_attention;
#[cfg(feature = "unet1d")]
pub(crate) mod observe;
#[cfg(feature = "i8")]
pub(crate) mod requantize;

/// What an operation knows besides its own record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'m> {
    pub(crate) model: &'m Model<'m>,
    pub(crate) schedule: Schedule,
    pub(crate) step: u32,
    #[cfg_attr(
        not(any(feature = "conditioning", feature = "classifier")),
        expect(dead_code, reason = "only class embeddings and classifiers read it")
    )]
    pub(crate) class: u16,
}

impl<'m> Context<'m> {
    /// A tensor of the plan, `None` for [`NONE`] and for ids that do not exist.
    pub(crate) fn tensor(&self, id: u16) -> Option<&'m Tensor> {
        self.model.tensor_ref(id)
    }

    /// The place of a tensor in the arena; empty for [`NONE`] and for ids that do not exist.
    pub(crate) fn range(&self, id: u16) -> Range<usize> {
        self.tensor(id).map_or(0..0, Tensor::range)
    }

    /// Offset of the biases of the step.
    pub(crate) fn biases_of_step(&self) -> u32 {
        self.schedule.biases + self.step * self.schedule.bias_bytes
    }

    /// `len` values of the file at offset `at`.
    pub(crate) fn data<T: Pod>(&self, at: u32, len: usize) -> Option<&'m [T]> {
        view(self.model.data(at as usize, len.checked_mul(size_of::<T>())?))
    }
}

/// Bytes as values; `None` if they are misaligned or do not divide.
pub(crate) fn view<T: Pod>(bytes: &[u8]) -> Option<&[T]> {
    bytemuck::try_cast_slice(bytes).ok()
}

/// Bytes as values, for writing; `None` if they are misaligned or do not divide.
pub(crate) fn view_mut<T: Pod>(bytes: &mut [u8]) -> Option<&mut [T]> {
    bytemuck::try_cast_slice_mut(bytes).ok()
}

/// Values from a place on, of which there are some: whoever binds them knows how many they are.
#[cfg(any(feature = "i8", feature = "attention", feature = "unet1d"))]
pub(crate) fn tail<T>(values: &[T], from: usize) -> &[T] {
    values.get(from..).unwrap_or_default()
}

/// Number of slices of an operation.
pub(crate) fn slices(model: &Model<'_>, op: &Op) -> u32 {
    let slices = match op {
        Op::Conv2d(op) => conv2d::slices(model, op),
        Op::GroupNorm(op) => {
            group_norm::per_slice(model, op).map(|groups| u32::from(op.groups).div_ceil(groups.max(1)))
        }
        #[cfg(feature = "attention")]
        Op::Attention(op) => {
            attention::per_slice(model, op).map(|[per_slice, queries]| queries.div_ceil(per_slice.max(1)))
        }
        #[cfg(feature = "conditioning")]
        Op::Embed(_) => Some(1),
        #[cfg(feature = "conditioning")]
        Op::Linear(op) => embedding::linear_slices(model, op),
        #[cfg(feature = "unet1d")]
        Op::Activate(op) => activate::slices(model, op),
        #[cfg(feature = "unet1d")]
        Op::Observe(_) => Some(1),
        #[cfg(feature = "layer-norm")]
        Op::LayerNorm(op) => layer_norm::slices(model, op),
        #[cfg(feature = "linear-attention")]
        Op::LinearAttention(op) => linear_attention::Work::new(model, op).map(linear_attention::Work::slices),
        #[cfg(not(feature = "attention"))]
        Op::Attention(_) => None,
        #[cfg(not(feature = "conditioning"))]
        Op::Embed(_) | Op::Linear(_) => None,
        #[cfg(not(feature = "unet1d"))]
        Op::Activate(_) | Op::Observe(_) => None,
        #[cfg(not(feature = "layer-norm"))]
        Op::LayerNorm(_) => None,
        #[cfg(feature = "classifier")]
        Op::Classifier(op) => classifier::slices(model, op),
        #[cfg(feature = "filter")]
        Op::Filter(op) => filter::slices(model, op),
        #[cfg(not(feature = "linear-attention"))]
        Op::LinearAttention(_) => None,
        #[cfg(not(feature = "classifier"))]
        Op::Classifier(_) => None,
        #[cfg(not(feature = "filter"))]
        Op::Filter(_) => None,
    };
    slices.unwrap_or(0)
}

/// What a precision makes of each operation: executes one slice, or some groups, or one query.
pub(crate) trait Operations {
    fn conv2d(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()>;

    fn group_norm(context: &Context<'_>, op: &GroupNorm, groups: Range<u32>, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "attention")]
    fn attention(context: &Context<'_>, op: &Attention, query: u32, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "conditioning")]
    fn embed(context: &Context<'_>, op: &Embed, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "conditioning")]
    fn linear(context: &Context<'_>, op: &Linear, slice: u32, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "unet1d")]
    fn activate(context: &Context<'_>, op: &Activate, slice: u32, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "unet1d")]
    fn observe(context: &Context<'_>, op: &Observe, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "layer-norm")]
    fn layer_norm(context: &Context<'_>, op: &LayerNorm, slice: u32, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "linear-attention")]
    fn linear_attention(context: &Context<'_>, op: &LinearAttention, slice: u32, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "classifier")]
    fn classifier(context: &Context<'_>, op: &Classifier, slice: u32, arena: &mut [u8]) -> Option<()>;

    #[cfg(feature = "filter")]
    fn filter(context: &Context<'_>, op: &Filter, slice: u32, arena: &mut [u8]) -> Option<()>;
}

#[cfg(feature = "i8")]
impl Operations for i8 {
    fn conv2d(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()> {
        conv2d::i8::run(context, op, slice, arena)
    }

    fn group_norm(context: &Context<'_>, op: &GroupNorm, groups: Range<u32>, arena: &mut [u8]) -> Option<()> {
        group_norm::i8::run(context, op, groups, arena)
    }

    #[cfg(feature = "attention")]
    fn attention(context: &Context<'_>, op: &Attention, query: u32, arena: &mut [u8]) -> Option<()> {
        attention::i8::run(context, op, query, arena)
    }

    #[cfg(feature = "conditioning")]
    fn embed(context: &Context<'_>, op: &Embed, arena: &mut [u8]) -> Option<()> {
        embedding::i8::embed(context, op, arena)
    }

    #[cfg(feature = "conditioning")]
    fn linear(context: &Context<'_>, op: &Linear, slice: u32, arena: &mut [u8]) -> Option<()> {
        embedding::i8::linear(context, op, slice, arena)
    }

    #[cfg(feature = "unet1d")]
    fn activate(context: &Context<'_>, op: &Activate, slice: u32, arena: &mut [u8]) -> Option<()> {
        activate::i8::run(context, op, slice, arena)
    }

    #[cfg(feature = "unet1d")]
    fn observe(context: &Context<'_>, op: &Observe, arena: &mut [u8]) -> Option<()> {
        observe::i8::run(context, op, arena)
    }

    #[cfg(feature = "layer-norm")]
    fn layer_norm(context: &Context<'_>, op: &LayerNorm, slice: u32, arena: &mut [u8]) -> Option<()> {
        layer_norm::i8::run(context, op, slice, arena)
    }

    #[cfg(feature = "linear-attention")]
    fn linear_attention(context: &Context<'_>, op: &LinearAttention, slice: u32, arena: &mut [u8]) -> Option<()> {
        linear_attention::i8::run(context, op, slice, arena)
    }

    #[cfg(feature = "classifier")]
    fn classifier(context: &Context<'_>, op: &Classifier, slice: u32, arena: &mut [u8]) -> Option<()> {
        classifier::i8::run(context, op, slice, arena)
    }

    #[cfg(feature = "filter")]
    fn filter(context: &Context<'_>, op: &Filter, slice: u32, arena: &mut [u8]) -> Option<()> {
        filter::i8::run(context, op, slice, arena)
    }
}

#[cfg(any(feature = "f16", feature = "f32"))]
impl<E: crate::float::Float> Operations for E {
    fn conv2d(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()> {
        conv2d::float::run::<E>(context, op, slice, arena)
    }

    fn group_norm(context: &Context<'_>, op: &GroupNorm, groups: Range<u32>, arena: &mut [u8]) -> Option<()> {
        group_norm::float::run::<E>(context, op, groups, arena)
    }

    #[cfg(feature = "attention")]
    fn attention(context: &Context<'_>, op: &Attention, query: u32, arena: &mut [u8]) -> Option<()> {
        attention::float::run::<E>(context, op, query, arena)
    }

    #[cfg(feature = "conditioning")]
    fn embed(context: &Context<'_>, op: &Embed, arena: &mut [u8]) -> Option<()> {
        embedding::float::embed(context, op, arena)
    }

    #[cfg(feature = "conditioning")]
    fn linear(context: &Context<'_>, op: &Linear, slice: u32, arena: &mut [u8]) -> Option<()> {
        embedding::float::linear::<E>(context, op, slice, arena)
    }

    #[cfg(feature = "unet1d")]
    fn activate(context: &Context<'_>, op: &Activate, slice: u32, arena: &mut [u8]) -> Option<()> {
        activate::float::run::<E>(context, op, slice, arena)
    }

    #[cfg(feature = "unet1d")]
    fn observe(context: &Context<'_>, op: &Observe, arena: &mut [u8]) -> Option<()> {
        observe::float::run(context, op, arena)
    }

    #[cfg(feature = "layer-norm")]
    fn layer_norm(context: &Context<'_>, op: &LayerNorm, slice: u32, arena: &mut [u8]) -> Option<()> {
        layer_norm::float::run::<E>(context, op, slice, arena)
    }

    #[cfg(feature = "linear-attention")]
    fn linear_attention(context: &Context<'_>, op: &LinearAttention, slice: u32, arena: &mut [u8]) -> Option<()> {
        linear_attention::float::run::<E>(context, op, slice, arena)
    }

    #[cfg(feature = "classifier")]
    fn classifier(context: &Context<'_>, op: &Classifier, slice: u32, arena: &mut [u8]) -> Option<()> {
        classifier::float::run::<E>(context, op, slice, arena)
    }

    #[cfg(feature = "filter")]
    fn filter(context: &Context<'_>, op: &Filter, slice: u32, arena: &mut [u8]) -> Option<()> {
        filter::float::run::<E>(context, op, slice, arena)
    }
}

/// What slice `slice` takes of some units, `per_slice` of which are one.
fn units(slice: u32, per_slice: u32, units: u32) -> Range<u32> {
    let start = slice.saturating_mul(per_slice);
    start..start.saturating_add(per_slice).min(units)
}

/// Executes one slice of an operation.
pub(crate) fn run<P: Operations>(context: &Context<'_>, op: &Op, slice: u32, arena: &mut [u8]) -> Option<()> {
    match op {
        Op::Conv2d(op) => P::conv2d(context, op, slice, arena),
        Op::GroupNorm(op) => {
            let per_slice = group_norm::per_slice(context.model, op)?;
            P::group_norm(context, op, units(slice, per_slice, op.groups.into()), arena)
        }
        #[cfg(feature = "attention")]
        Op::Attention(op) => {
            let [per_slice, queries] = attention::per_slice(context.model, op)?;
            units(slice, per_slice, queries).try_for_each(|query| P::attention(context, op, query, arena))
        }
        #[cfg(feature = "conditioning")]
        Op::Embed(op) => P::embed(context, op, arena),
        #[cfg(feature = "conditioning")]
        Op::Linear(op) => P::linear(context, op, slice, arena),
        #[cfg(feature = "unet1d")]
        Op::Activate(op) => P::activate(context, op, slice, arena),
        #[cfg(feature = "unet1d")]
        Op::Observe(op) => P::observe(context, op, arena),
        #[cfg(feature = "layer-norm")]
        Op::LayerNorm(op) => P::layer_norm(context, op, slice, arena),
        #[cfg(feature = "linear-attention")]
        Op::LinearAttention(op) => P::linear_attention(context, op, slice, arena),
        #[cfg(feature = "classifier")]
        Op::Classifier(op) => P::classifier(context, op, slice, arena),
        #[cfg(feature = "filter")]
        Op::Filter(op) => P::filter(context, op, slice, arena),
        // A session of such a model is refused.
        #[cfg(not(feature = "attention"))]
        Op::Attention(_) => None,
        #[cfg(not(feature = "conditioning"))]
        Op::Embed(_) | Op::Linear(_) => None,
        #[cfg(not(feature = "unet1d"))]
        Op::Activate(_) | Op::Observe(_) => None,
        #[cfg(not(feature = "layer-norm"))]
        Op::LayerNorm(_) => None,
        #[cfg(not(feature = "linear-attention"))]
        Op::LinearAttention(_) => None,
        #[cfg(not(feature = "classifier"))]
        Op::Classifier(_) => None,
        #[cfg(not(feature = "filter"))]
        Op::Filter(_) => None,
    }
}

/// Name of the feature that an operation needs and the crate was built without.
pub(crate) const fn missing_feature(op: &Op) -> Option<&'static str> {
    match op {
        Op::Conv2d(op) if matches!(op.layout(), WeightLayout::Groups4) && !cfg!(feature = "i4") => Some("i4"),
        Op::Conv2d(op) if op.weight_sums != 0 && !cfg!(feature = "step-scales") => Some("step-scales"),
        Op::Conv2d(op) if op.layout().is_transformed() && !cfg!(feature = "stored-tiles") => Some("stored-tiles"),
        // Other tiles are the convolution as it is defined.
        Op::Conv2d(op) if op.ring_limit != 0 && !cfg!(feature = "tiles") => Some("tiles"),
        Op::Conv2d(op) if !is_built(op.gather().activation()) => Some("activations"),
        Op::Embed(op) if !is_built(Some(op.activation())) => Some("activations"),
        Op::Activate(op) if !is_built(Some(op.activation())) => Some("activations"),
        Op::Observe(op) if !is_built(Some(op.activation())) => Some("activations"),
        Op::LayerNorm(op) if !is_built(op.gather().activation()) => Some("activations"),
        Op::GroupNorm(op) if !matches!(op.affine(), Affine::Constant) && !cfg!(feature = "scale-shift") => {
            Some("scale-shift")
        }
        Op::Conv2d(op) if !matches!(op.shuffle(), Shuffle::None) && !cfg!(feature = "unet1d") => Some("unet1d"),
        Op::Activate(_) | Op::Observe(_) if !cfg!(feature = "unet1d") => Some("unet1d"),
        Op::LayerNorm(_) if !cfg!(feature = "layer-norm") => Some("layer-norm"),
        Op::LinearAttention(_) if !cfg!(feature = "linear-attention") => Some("linear-attention"),
        Op::Classifier(_) if !cfg!(feature = "classifier") => Some("classifier"),
        Op::Filter(_) if !cfg!(feature = "filter") => Some("filter"),
        Op::Attention(op) if op.memory > 0 && !cfg!(feature = "linear-attention") => Some("linear-attention"),
        Op::Attention(_) if !cfg!(feature = "attention") => Some("attention"),
        Op::Embed(_) | Op::Linear(_) if !cfg!(feature = "conditioning") => Some("conditioning"),
        _ => None,
    }
}

/// Whether the crate was built with an activation.
const fn is_built(activation: Option<Activation>) -> bool {
    matches!(activation, None | Some(Activation::Silu)) || cfg!(feature = "activations")
}

/// One or two sources that are joined along the channels.
pub(crate) type Sources<'m> = [Option<Source<'m>>; 2];

/// The sources of these tensors, with the first channel of each.
pub(crate) fn sources<'m>(context: &Context<'m>, ids: [u16; 2]) -> Option<Sources<'m>> {
    let mut channel = 0;
    let mut sources = [None; 2];
    for (source, id) in sources.iter_mut().zip(ids) {
        if id != NONE {
            let tensor = context.tensor(id)?;
            *source = Some(Source { tensor, channel });
            channel += usize::from(tensor.channels);
        }
    }
    Some(sources)
}

/// One input of an operation that joins its inputs along the channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'m> {
    pub(crate) tensor: &'m Tensor,
    /// Its first channel in the joined input.
    pub(crate) channel: usize,
}

#[cfg(feature = "i8")]
impl Source<'_> {
    /// Which of the two.
    pub(crate) fn index(&self) -> usize {
        usize::from(self.channel > 0)
    }
}
