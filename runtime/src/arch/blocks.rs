//! Products of patches by instructions that take the channels in blocks: what RISC-V's and Cortex-M3's loops are told, and what the
//! reference takes over.

#[cfg(any(armv7m, riscv))]
use super::patches::Idle;
use super::patches::{GROUP, Group};
use super::{PIXELS, reference};

/// Rows of weights, `stride` apart, that have some for each tap of so many groups: behind a row's last weight stand those of the
/// next, which meet zeros.
fn whole_rows(weights: &[i8], groups: usize, stride: usize) -> usize {
    let behind = weights.len().checked_sub(groups * GROUP).filter(|_| groups > 0);
    behind.and_then(|behind| behind.checked_div(stride)).map_or(0, |more| more + 1)
}

/// What a family's `dot_edges` is: `multiply` takes the sums of `N` channels after `N`, at least one, with the whole rows of weights
/// that are there, and the reference takes the other channels.
#[inline(always)]
pub(super) fn dot_blocks<const N: usize>(
    sums: &mut [[i32; PIXELS]],
    patches: &[Group],
    weights: &[i8],
    [taps, stride]: [usize; 2],
    multiply: impl FnOnce(&mut [[[i32; PIXELS]; N]], [usize; 2]),
) {
    let groups = taps.div_ceil(GROUP);
    let rows = if groups <= patches.len() { whole_rows(weights, groups, stride) } else { 0 };
    let (blocks, _) = sums.as_chunks_mut();
    let blocks = blocks.get_mut(..blocks.len().min(rows / N)).unwrap_or_default();
    let done = N * blocks.len();
    if done > 0 {
        multiply(blocks, [groups, stride]);
    }
    let (sums, weights) = (sums.get_mut(done..), weights.get(done * stride..));
    reference::dot_patches(sums.unwrap_or_default(), patches, weights.unwrap_or_default(), taps, stride);
}

/// What instructions of whole rows of weights are told, and where they keep how far they are; `N` channels take a call together.
#[cfg(any(armv7m, riscv))]
#[repr(C)]
pub(super) struct Call<const N: usize> {
    patches: *const Group,
    end: *const Group,
    weights: *const i8,
    stride: usize,
    sums: *mut [[i32; PIXELS]; N],
    /// Of a row of the kernel: where the first pixel, none, and the last is idle.
    bytes: [usize; 3],
    sums_end: *mut [[i32; PIXELS]; N],
}

#[cfg(any(armv7m, riscv))]
impl<const N: usize> Call<N> {
    /// For the sums of `N` channels after `N`, which have a row of weights each, `stride` apart, over so many groups.
    #[inline(always)]
    pub(super) fn new(
        sums: &mut [[[i32; PIXELS]; N]],
        patches: &[Group],
        weights: &[i8],
        [groups, stride]: [usize; 2],
        idle: Idle,
    ) -> Self {
        let patches = patches.as_ptr();
        let sums = sums.as_mut_ptr_range();
        Self {
            patches,
            end: patches.wrapping_add(groups),
            weights: weights.as_ptr(),
            stride,
            sums: sums.start,
            bytes: idle.groups(groups).map(|groups| groups * size_of::<Group>()),
            sums_end: sums.end,
        }
    }
}
