//! Group normalization (Wu and He, 2018, arXiv:1803.08494), reduced to what needs the whole map: per channel the
//! factor `A` and summand `B` of `y = x·A + B`. Applying them is part of the convolution that reads the result. Slice
//! `s` is group `s`.

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

use core::ops::Range;

use super::Source;

/// The part of a group's channels that lies in a source, counted within the source.
fn overlap(group: &Range<usize>, source: &Source) -> Range<usize> {
    let channels = usize::from(source.tensor.channels);
    let start = group.start.saturating_sub(source.channel).min(channels);
    let end = group.end.saturating_sub(source.channel).min(channels);
    start..end
}
