//! Patches: the activations under the kernel of a convolution at [`PIXELS`] output pixels, unfolded.
//!
//! Taps stand in groups of [`GROUP`]. A group holds its taps of the first pixel, then those of the second, and so on; of a
//! pixel, taps 0 and 2, then 1 and 3, which is how instructions that spread the bytes of a word over halves leave the
//! weights. Behind the last tap a group is filled with zeros. One pass over a channel's weights then serves all pixels.

use super::PIXELS;

/// Taps of a group.
pub(crate) const GROUP: usize = crate::format::PATCH_GROUP;

/// The taps of one group at each pixel.
pub(crate) type Group = [[i16; GROUP]; PIXELS];

/// How patches of one type of ring are made and multiplied. A family whose loads want another order than that of [`Group`]
/// has one of its own; the room is the same.
pub(crate) struct Patches<T> {
    /// See [`unfold_i8`](super::reference::unfold_i8).
    pub(crate) unfold: fn(&mut [Group], usize, [&[T]; PIXELS]),
    /// See [`fill`].
    pub(crate) fill: fn(&mut [Group], usize),
    /// See [`dot_patches`](super::reference::dot_patches).
    pub(crate) multiply: fn(&mut [[i32; PIXELS]], &[Group], &[i8], usize, usize),
}

/// Where a group holds each of its taps.
const ORDER: [usize; GROUP] = [0, 2, 1, 3];

/// Writes the neighbours that a row of the kernel covers at each pixel, as the taps from number `tap` on. `pairs` brings four
/// neighbours into the order of a group.
#[inline(always)]
pub(super) fn unfold<T: Copy + Into<i16>>(
    patches: &mut [Group],
    tap: usize,
    runs: [&[T]; PIXELS],
    pairs: impl Fn([T; GROUP]) -> [i16; GROUP],
) {
    let whole = runs.iter().all(|run| run.len().is_multiple_of(GROUP));
    if whole && tap.is_multiple_of(GROUP) {
        let groups = patches.iter_mut().skip(tap / GROUP);
        let [a, b, c, d] = runs.map(|run| run.as_chunks::<GROUP>().0);
        for ((((group, &a), &b), &c), &d) in groups.zip(a).zip(b).zip(c).zip(d) {
            *group = [pairs(a), pairs(b), pairs(c), pairs(d)];
        }
    } else {
        for (pixel, run) in runs.into_iter().enumerate() {
            for (tap, &value) in (tap..).zip(run) {
                let group = patches.get_mut(tap / GROUP).and_then(|group| group.get_mut(pixel));
                if let (Some(group), Some(&place)) = (group, ORDER.get(tap % GROUP))
                    && let Some(element) = group.get_mut(place)
                {
                    *element = value.into();
                }
            }
        }
    }
}

/// Writes zeros behind the last of `taps` taps.
#[inline]
pub(crate) fn fill(patches: &mut [Group], taps: usize) {
    let used = taps % GROUP;
    if used > 0
        && let Some(group) = patches.get_mut(taps / GROUP)
    {
        for pixel in group {
            for element in pixel.iter_mut().zip(ORDER).filter(|&(_, tap)| tap >= used).map(|(element, _)| element) {
                *element = 0;
            }
        }
    }
}

/// The weights of each channel: the first `taps` of every `stride`.
#[inline(always)]
pub(super) fn rows(weights: &[i8], taps: usize, stride: usize) -> impl Iterator<Item = &[i8]> {
    weights.chunks(stride.max(1)).map_while(move |row| row.get(..taps))
}
