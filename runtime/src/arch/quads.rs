//! Products of patches where a family has them for four channels at a time.

use super::patches::{GROUP, Group, rows};
use super::{PIXELS, QUAD, reference};

/// See [`reference::dot_patches`]: by `dot_quad` where channels are four and their rows of weights whole groups.
#[inline(always)]
pub(super) fn dot_in_quads(
    sums: &mut [[i32; PIXELS]],
    patches: &[Group],
    weights: &[i8],
    [taps, stride]: [usize; 2],
    dot_quad: impl Fn(&mut [[i32; PIXELS]; QUAD], &[Group], [&[[i8; GROUP]]; QUAD]),
) {
    let mut blocks = weights.chunks((QUAD * stride).max(1));
    for sums in sums.chunks_mut(QUAD) {
        let weights = blocks.next().unwrap_or_default();
        let mut rows = rows(weights, taps, stride);
        let quad = [(); QUAD].map(|()| rows.next().unwrap_or_default().as_chunks().0);
        match sums.as_chunks_mut().0.first_mut() {
            Some(sums) if taps.is_multiple_of(GROUP) && weights.len() >= (QUAD - 1) * stride + taps => {
                dot_quad(sums, patches, quad);
            }
            _ => reference::dot_patches(sums, patches, weights, taps, stride),
        }
    }
}
