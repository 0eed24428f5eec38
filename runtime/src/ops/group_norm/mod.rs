//! Group normalization (Wu and He, 2018, arXiv:1803.08494), reduced to what needs the whole map: per channel the
//! factor `A` and summand `B` of `y = x·A + B`. Applying them is part of the convolution that reads the result. A slice
//! is some groups.

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

use core::ops::Range;

use bytemuck::Pod;

use super::{Context, Source, Sources, sources, view, view_mut};
use crate::format::{Affine, GroupNorm, Tensor};
use crate::model::Model;

/// Elements of a slice of more than one group, at most.
const SLICE_ELEMENTS: usize = 1 << 13;

/// Groups of a slice.
pub(super) fn per_slice(model: &Model<'_>, op: &GroupNorm) -> Option<u32> {
    let source = model.tensor_ref(op.sources[0])?;
    let channels = usize::from(model.tensor_ref(op.output)?.columns).checked_div(op.groups.into())?;
    let elements = usize::from(source.rows) * usize::from(source.columns) * channels;
    Some(SLICE_ELEMENTS.checked_div(elements).unwrap_or(1).max(1) as u32)
}

/// What all groups have in common.
pub(crate) struct Groups<'m> {
    sources: Sources<'m>,
    /// Where the maps go.
    output: &'m Tensor,
    /// Channels of a group.
    width: usize,
}

impl<'m> Groups<'m> {
    pub(crate) fn bind(context: &Context<'m>, op: &GroupNorm) -> Option<Self> {
        let output = context.tensor(op.output)?;
        let width = usize::from(output.columns).checked_div(op.groups.into())?;
        Some(Self { sources: sources(context, op.sources)?, output, width })
    }

    /// The parts of a group that lie in a source each.
    fn parts(&self, group: u32) -> impl Iterator<Item = Part<'_>> {
        let start = group as usize * self.width;
        let end = start + self.width;
        let parts = self.sources.iter().flatten().map(move |source| {
            let channels = usize::from(source.tensor.channels);
            let within = |channel: usize| channel.saturating_sub(source.channel).min(channels);
            Part { channels: within(start)..within(end), source, output: self.output }
        });
        parts.filter(|part| !part.channels.is_empty())
    }
}

/// A group's channels in one source.
pub(crate) struct Part<'g> {
    source: &'g Source<'g>,
    output: &'g Tensor,
    /// Counted within the source.
    channels: Range<usize>,
}

impl Part<'_> {
    /// The channels, counted through all sources.
    #[cfg(feature = "std")]
    pub(crate) fn joined_channels(&self) -> Range<usize> {
        self.source.channel + self.channels.start..self.source.channel + self.channels.end
    }

    /// Elements.
    fn count(&self) -> u64 {
        let tensor = &self.source.tensor;
        self.channels.len() as u64 * u64::from(tensor.rows) * u64::from(tensor.columns)
    }

    /// The source's elements from the group's first channel on.
    fn values<'a, S: Pod>(&self, arena: &'a [u8]) -> Option<&'a [S]> {
        view(arena.get(self.source.tensor.range())?)?.get(self.channels.start..)
    }

    /// The group's channels of each pixel, row by row.
    #[cfg(any(feature = "f16", feature = "f32"))]
    fn pixels<'a, S: Pod>(&self, arena: &'a [u8]) -> Option<impl Iterator<Item = &'a [S]> + use<'a, S>> {
        let run = self.channels.len();
        let pixels = self.values::<S>(arena)?.chunks(usize::from(self.source.tensor.channels).max(1));
        Some(pixels.map(move |pixel| pixel.get(..run).unwrap_or_default()))
    }

    /// (gamma, beta, map) of each channel, with parameters `T` and maps of pairs of them.
    fn channels<'a, T: Pod>(
        &self,
        context: &Context<'a>,
        op: &GroupNorm,
        arena: &'a mut [u8],
    ) -> Option<impl Iterator<Item = (T, T, &'a mut [T; 2])> + use<'a, T>> {
        let output = self.output;
        let len = usize::from(output.columns);
        let joined = self.source.channel + self.channels.start..self.source.channel + self.channels.end;
        let (affine, map) = match op.affine() {
            Affine::Tensor if cfg!(feature = "scale-shift") => {
                let affine = context.tensor(op.affine_tensor)?.range();
                let [affine, map] = arena.get_disjoint_mut([affine, output.range()]).ok()?;
                (view(affine)?.split_at_checked(len)?, map)
            }
            affine => {
                let at = match affine {
                    Affine::Step if cfg!(feature = "scale-shift") => context.biases_of_step(),
                    _ => 0,
                };
                let vectors = (context.data(at + op.gamma, len)?, context.data(at + op.beta, len)?);
                (vectors, arena.get_mut(output.range())?)
            }
        };
        let (gamma, beta): (&[T], &[T]) = (affine.0.get(joined.clone())?, affine.1.get(joined.clone())?);
        let map = view_mut::<T>(map)?.as_chunks_mut().0.get_mut(joined)?;
        Some(gamma.iter().zip(beta).zip(map).map(|((&gamma, &beta), map)| (gamma, beta, map)))
    }
}
