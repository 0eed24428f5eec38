//! Patches: the activations under the kernel of a convolution at [`PIXELS`] output pixels, unfolded.
//!
//! Taps stand in groups of [`GROUP`]. A group holds its taps of the first pixel, then those of the second, and so on; of a
//! pixel, taps 0 and 2, then 1 and 3, which is how instructions that spread the bytes of a word over halves leave the
//! weights. Behind the last tap a group is filled with zeros. One pass over a channel's weights then serves all pixels.

use super::PIXELS;
#[cfg(not(no_long_multiply))]
use crate::fixed::RESIDUAL_BITS;

/// Taps of a group.
pub(crate) const GROUP: usize = crate::format::PATCH_GROUP;

/// The taps of one group at each pixel.
pub(crate) type Group = [[i16; GROUP]; PIXELS];

/// How patches of one type of ring are made and multiplied. A family whose loads want another order than that of [`Group`]
/// has one of its own; the room is the same.
pub(crate) struct Patches<T> {
    /// See [`unfold_i8`](super::reference::unfold_i8).
    pub(crate) unfold: fn(&mut [Group], &Window<'_, T>),
    /// See [`dot_patches`](super::reference::dot_patches).
    #[cfg_attr(all(scalar, not(feature = "i4")), allow(dead_code, reason = "four-bit weights know no edges"))]
    pub(crate) multiply: Multiply,
    /// The same where a pixel may be idle.
    #[cfg(any(scalar, test))]
    pub(crate) edges: Edges,
    /// Taps in the room of a group.
    #[cfg_attr(not(feature = "i4"), allow(dead_code, reason = "rows of eight bits meet all taps at once"))]
    pub(crate) taps: usize,
}

/// Sums, patches, weights, their taps and what lies from channel to channel.
type Multiply = fn(&mut [[i32; PIXELS]], &[Group], &[i8], usize, usize);

/// The same, and where a pixel is idle.
#[cfg(any(scalar, test))]
type Edges = fn(&mut [[i32; PIXELS]], &[Group], &[i8], usize, usize, Idle);

/// Where one of the pixels has nothing but zeros, as at the ends of a map's rows: the first pixel in the first of three columns of
/// the kernel, the last pixel in the last.
#[cfg(any(scalar, test))]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Idle {
    /// Taps of a column.
    pub(crate) column: usize,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

#[cfg(any(scalar, test))]
impl Idle {
    /// Of so many groups, those of a row of the kernel where the first pixel, none, and the last is idle. Where columns do not
    /// begin with groups, none is, and all groups are one row.
    pub(super) fn groups(self, groups: usize) -> [usize; 3] {
        let column = self.column / GROUP;
        if self.column.is_multiple_of(GROUP) && column > 0 && groups.is_multiple_of(3 * column) {
            let [first, last] = [self.first, self.last].map(|idle| if idle { column } else { 0 });
            [first, 3 * column - first - last, last]
        } else {
            [0, groups, 0]
        }
    }

    /// Whether a pixel is idle in a group.
    #[cfg(all(test, not(scalar)))]
    pub(super) fn skips(self, groups: usize, group: usize, pixel: usize) -> bool {
        let [first, all, last] = self.groups(groups);
        let at = group % (first + all + last);
        pixel == 0 && at < first || pixel + 1 == PIXELS && at >= first + all
    }
}

/// Adds up the products of whole groups as instructions do that skip what is idle.
#[cfg(all(test, not(scalar)))]
pub(super) fn sum_groups(sums: &mut [i32; PIXELS], patches: &[Group], weights: &[i8], idle: Idle) {
    *sums = [0; PIXELS];
    for (at, (group, &[a, b, c, d])) in patches.iter().zip(weights.as_chunks().0).enumerate() {
        for (pixel, (sum, taps)) in sums.iter_mut().zip(group).enumerate() {
            if !idle.skips(weights.len() / GROUP, at, pixel) {
                let products = taps.iter().zip([a, c, b, d]);
                *sum = products.fold(*sum, |sum, (&x, w)| sum.wrapping_add(i32::from(x).wrapping_mul(w.into())));
            }
        }
    }
}

/// The output channels of a slice.
#[cfg(any(dsp, test))]
#[derive(Clone, Copy)]
pub(crate) struct Channels<'a> {
    /// A row for each channel, which begins at its first weight that is used, and what lies behind the last row.
    pub(crate) weights: &'a [i8],
    /// Weights of a row that are used, which are the patches' taps.
    pub(crate) taps: usize,
    /// Weights from one row to the next.
    pub(crate) stride: usize,
    /// Whether the ring, whose patches they meet, has 8 bits.
    #[cfg_attr(not(mve), allow(dead_code, reason = "other families have one order of patches"))]
    pub(crate) narrow: bool,
    pub(crate) bias: &'a [i32],
    /// Multiplier and shift of each.
    pub(crate) requant: &'a [[i32; 2]],
    /// The output's zero point.
    pub(crate) zero: i32,
}

/// The sums of a block of channels at [`PIXELS`] neighbouring pixels.
#[cfg(all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles")))]
pub(crate) type BlockSums = [[i32; PIXELS]; crate::format::CHANNEL_BLOCK];

/// Where the results of [`PIXELS`] pixels go, and where their residual is.
#[cfg(any(dsp, test))]
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The element of the first pixel's first channel.
    pub(crate) at: usize,
    /// Elements from there to each pixel's, ascending; a pixel that does not exist is computed as the last one, at its place.
    pub(crate) offsets: [usize; PIXELS],
}

/// What makes results of the accumulators of output channels at neighbouring pixels.
#[cfg(any(armv6m, test))]
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub(crate) accumulators: &'a [[i32; PIXELS]],
    pub(crate) bias: &'a [i32],
    /// Multiplier and shift of each channel.
    pub(crate) requant: &'a [[i32; 2]],
    /// What the residual holds for each accumulator, with [`RESIDUAL_BITS`] more bits than the
    /// output, if there is one.
    pub(crate) kept: Option<&'a [[i32; PIXELS]]>,
    /// The output's zero point, at most [`MOST_ZERO`](Self::MOST_ZERO) from zero.
    pub(crate) zero: i32,
}

#[cfg(any(armv6m, test))]
impl Finish<'_> {
    /// With which no sum leaves 32 bits.
    pub(crate) const MOST_ZERO: u32 = 1 << 16;
}

/// What a residual is added by, with [`RESIDUAL_BITS`] more bits than the output.
#[cfg(not(no_long_multiply))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) zero: i32,
    /// Multiplier and shift.
    pub(crate) map: [i32; 2],
}

#[cfg(not(no_long_multiply))]
impl Kept {
    /// Zero point, shift to the left, multiplier, rounding and shift to the right of a residual's elements of some bits, the
    /// output's zero point and the rounding of the sum included; `None` where results are not small beside those that are
    /// saturated, at 2²⁸.
    #[inline(always)]
    pub(crate) fn words(self, zero: i32, element: u32) -> Option<[i32; 5]> {
        let [multiplier, shift] = self.map;
        let bits = element as i32 + 1;
        // A model says what it likes.
        let small = self.zero.unsigned_abs() >> element == 0 && zero.unsigned_abs() >> 16 == 0;
        if !small || !(-7..=27 - bits).contains(&shift) {
            return None;
        }
        let (left, right) = if shift < -1 { (0, -1 - shift) } else { (shift + 2, 1) };
        // Less than 2³¹: 2¹⁶ as often as a product of 2⁸ and at most 2⁶.
        let summand = (1 << (RESIDUAL_BITS - 1)) + (zero << RESIDUAL_BITS);
        Some([self.zero, left, multiplier, (1 << (right - 1)) + (summand << right), right])
    }
}

/// The activations under the kernel at [`PIXELS`] output pixels.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a, T> {
    pub(crate) ring: &'a [T],
    /// Where each row of the kernel begins at the first column.
    pub(crate) rows: &'a [usize],
    /// What each pixel adds to that, ascending.
    pub(crate) pixels: [usize; PIXELS],
    /// Neighbours that a row of the kernel covers.
    pub(crate) run: usize,
}

impl<'a, T> Window<'a, T> {
    /// What a row of the kernel covers at each pixel.
    #[cfg(any(mve, test))]
    #[inline(always)]
    pub(super) fn runs(&self, row: usize) -> [&'a [T]; PIXELS] {
        let Self { ring, pixels, run, .. } = *self;
        pixels.map(|pixel| ring.get(row + pixel..row + pixel + run).unwrap_or_default())
    }
}

/// Unfolds a window; behind the last tap are zeros. `pairs` brings four neighbours into the order of a group.
#[inline(always)]
pub(super) fn unfold<T: Copy + Into<i16>>(
    patches: &mut [Group],
    window: &Window<'_, T>,
    pairs: impl Fn(&[T; GROUP]) -> [i16; GROUP],
) {
    if !window.run.is_multiple_of(GROUP) {
        return unfold_taps(patches, window);
    }
    let Window { ring, rows, pixels, run } = *window;
    // Pixel by pixel: four at once would want more registers than there are.
    for (&row, groups) in rows.iter().zip(patches.chunks_mut((run / GROUP).max(1))) {
        for (pixel, offset) in pixels.into_iter().enumerate() {
            let (run, _) = ring.get(row + offset..row + offset + run).unwrap_or_default().as_chunks();
            // By reference: small code would copy four elements by a call.
            for (group, four) in groups.iter_mut().zip(run) {
                group.get_mut(pixel).into_iter().for_each(|places| *places = pairs(four));
            }
        }
    }
}

/// The same tap by tap, as rows of the kernel may begin in the midst of a group.
#[inline(always)]
pub(super) fn unfold_taps<T: Copy + Into<i16>>(patches: &mut [Group], window: &Window<'_, T>) {
    let Window { ring, rows, pixels, run } = *window;
    put_taps(patches, rows, pixels, run, &|at| ring.get(at).map_or(0, |&value| value.into()));
}

/// What does not depend on the type of the ring.
#[inline(never)]
fn put_taps(patches: &mut [Group], rows: &[usize], pixels: [usize; PIXELS], run: usize, read: &dyn Fn(usize) -> i16) {
    for (pixel, offset) in pixels.into_iter().enumerate() {
        for (tap, at) in rows.iter().flat_map(|row| (row + offset..).take(run)).enumerate() {
            if let Some(places) = patches.get_mut(tap / GROUP).and_then(|group| group.get_mut(pixel)) {
                if tap.is_multiple_of(GROUP) {
                    *places = [0; GROUP];
                }
                // 0, 2, 1, 3.
                places.get_mut(tap % 2 * 2 + tap / 2 % 2).into_iter().for_each(|place| *place = read(at));
            }
        }
    }
}

/// The weights of each channel: the first `taps` of every `stride`.
#[inline(always)]
pub(super) fn rows(weights: &[i8], taps: usize, stride: usize) -> impl Iterator<Item = &[i8]> {
    weights.chunks(stride.max(1)).map_while(move |row| row.get(..taps))
}
