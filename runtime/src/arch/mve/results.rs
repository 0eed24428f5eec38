//! From sums to results: four pixels of a channel in a vector.
//!
//! `vqdmulh` gives the high word of twice the product, and `vrshl` by a shift below −1 rounds it once, half up: together that
//! is `requantize`. A residual has [`RESIDUAL_BITS`] more bits, as have the results that it is added to; `vhadd` halves their
//! sum, which may have 33 bits, and the shift by what is left of them rounds it.

use super::{Loop, MultiplyPairs, PIXELS, multiply_pairs_i8, multiply_pairs_i16};
use crate::arch::patches::{Channels, GROUP, Group, Kept, Place};
use crate::fixed::RESIDUAL_BITS;

/// Channels whose sums are held before they become results.
const BLOCK: usize = 16;

/// Shifts that the high word decides.
const SHIFTS: core::ops::RangeInclusive<i32> = -31..=-2;

/// What shifts in the functions below count on.
const _: () = assert!(RESIDUAL_BITS == 8);

/// The functions below: without a residual, and with one of the results' type.
type Functions = [unsafe extern "C" fn(&Finish); 2];

/// Operands of them.
#[repr(C)]
struct Finish {
    sums: *const [i32; PIXELS],
    bias: *const i32,
    requant: *const [i32; 2],
    target: *mut u8,
    zero: i32,
    kept: *const u8,
    kept_zero: i32,
    kept_left: i32,
    kept_multiplier: i32,
    kept_shift: i32,
    /// Bytes from the first pixel's results to each.
    offsets: [u32; PIXELS],
    channels: usize,
}

/// Whether 32 bits decide the results of channels, with or without a residual: whether they can be computed here.
pub(crate) fn decide(requant: &[[i32; 2]], residual: bool) -> bool {
    let more = if residual { RESIDUAL_BITS as i32 } else { 0 };
    requant.iter().all(|&[_, shift]| SHIFTS.contains(&shift.saturating_add(more)))
}

/// See [`reference::convolve_i8`](crate::arch::reference::convolve_i8); for channels that [`decide`] admits.
pub(crate) fn convolve_i8(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[i8]>)>,
    output: &mut [i8],
) -> usize {
    convolve(channels, patches, place, kept, output, [finish_i8, finish_added_i8])
}

/// The same for `i16` results.
pub(crate) fn convolve_i16(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[i16]>)>,
    output: &mut [i16],
) -> usize {
    convolve(channels, patches, place, kept, output, [finish_i16, finish_added_i16])
}

/// All channels, or none where operands do not fit.
#[inline(never)]
fn convolve<T>(
    channels: &Channels<'_>,
    patches: &[Group],
    place: Place,
    kept: Option<(Kept, Option<&[T]>)>,
    output: &mut [T],
    [plain, added]: Functions,
) -> usize {
    let &Channels { weights, taps, stride, narrow, bias, requant, zero } = channels;
    let count = bias.len().min(requant.len());
    let taps = taps.min(patches.len() * GROUP);
    let end = place.at + place.offsets[PIXELS - 1] + count;
    if count == 0 || end > output.len() || (count - 1) * stride + taps > weights.len() {
        return 0;
    }
    let target = output.as_mut_ptr().wrapping_add(place.at).cast::<u8>();
    let mut sums = [[0; PIXELS]; BLOCK];
    let mut operands = Finish {
        sums: sums.as_ptr(),
        bias: bias.as_ptr(),
        requant: requant.as_ptr(),
        target,
        zero,
        kept: target,
        kept_zero: 0,
        kept_left: 0,
        kept_multiplier: 0,
        kept_shift: 0,
        offsets: place.offsets.map(|offset| (offset * size_of::<T>()) as u32),
        channels: 0,
    };
    let mut function = plain;
    if let Some((Kept { zero, map: [multiplier, shift] }, values)) = kept {
        // A value of 17 bits has room for a shift to the left that makes up for one of more than −2.
        if !(-31..=11).contains(&shift) || i16::try_from(zero).is_err() {
            return 0;
        }
        if let Some(values) = values {
            if end > values.len() {
                return 0;
            }
            operands.kept = values.as_ptr().wrapping_add(place.at).cast();
        }
        operands.kept_zero = -zero;
        operands.kept_left = (shift + 2).max(0);
        operands.kept_multiplier = multiplier;
        operands.kept_shift = shift.min(-2);
        function = added;
    }
    let multiply = if narrow { multiply_pairs_i8 } else { multiply_pairs_i16 as MultiplyPairs };
    let through = if narrow { Loop::of::<i8>(patches, taps) } else { Loop::of::<i16>(patches, taps) };
    let mut row = weights.as_ptr();
    let mut left = count;
    while left > 0 {
        let block = left.min(BLOCK);
        operands.channels = block;
        // SAFETY: there is a row of weights for each channel, and a bias, multiplier and shift; offsets ascend, so that results
        // and values of the residual end within their slices. Sums have room for a block, which is even; an odd one's last
        // channel is computed once more in place of the next, whose row there may not be.
        unsafe {
            let start = sums.as_mut_ptr();
            let pairs = block - block % 2;
            if pairs > 0 {
                multiply(patches.as_ptr(), row, &through, stride, start, start.add(pairs));
            }
            if block > pairs {
                let row = row.add(pairs * stride);
                multiply(patches.as_ptr(), row, &through, 0, start.add(pairs), start.add(pairs + 2));
            }
            function(&operands);
            operands.bias = operands.bias.add(block);
            operands.requant = operands.requant.add(block);
        }
        operands.target = operands.target.wrapping_add(block * size_of::<T>());
        operands.kept = operands.kept.wrapping_add(block * size_of::<T>());
        row = row.wrapping_add(block * stride);
        left -= block;
    }
    count
}

/// A function that adds the bias, requantizes, adds the residual if there is one, and stores.
macro_rules! finish {
    ($name:ident, $advance:literal, [$($narrow:literal)?], $store:literal, [$($added:expr),*]) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(operands: &Finish) {
            core::arch::naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r10, lr}}",
                "ldr r5, [r0, #56]",
                "add r1, r0, #40",
                "vldrw.u32 q3, [r1]",
                "dls lr, r5",
                "ldm r0, {{r0-r4, r6-r10}}",
                "2:",
                "vldrw.u32 q0, [r0], #16",
                "ldr r12, [r1], #4",
                "vadd.i32 q0, q0, r12",
                "ldrd r5, r12, [r2], #8",
                "vqdmulh.s32 q0, q0, r5",
                $($added,)*
                "vrshl.s32 q0, r12",
                "vqadd.s32 q0, q0, r4",
                "vqmovnb.s32 q0, q0",
                $($narrow,)?
                $store,
                concat!("adds r3, #", $advance),
                "le lr, 2b",
                "pop {{r4-r10, pc}}",
            )
        }
    };
}

/// The same with a residual, which an instruction loads. Results have its bits until the sum is rounded.
macro_rules! finish_added {
    ($name:ident, $advance:literal, [$($narrow:literal)?], $store:literal, $load:literal) => {
        finish!(
            $name,
            $advance,
            [$($narrow)?],
            $store,
            [
                "add r12, #8",
                "vrshl.s32 q0, r12",
                $load,
                concat!("adds r6, #", $advance),
                "vadd.i32 q1, q1, r7",
                "vshl.s32 q1, r8",
                "vqdmulh.s32 q1, q1, r9",
                "vrshl.s32 q1, r10",
                "vhadd.s32 q0, q0, q1",
                "mvn r12, #6"
            ]
        );
    };
}

finish!(finish_i8, "1", ["vqmovnb.s16 q0, q0"], "vstrb.32 q0, [r3, q3]", []);
finish!(finish_i16, "2", [], "vstrh.32 q0, [r3, q3]", []);
finish_added!(finish_added_i8, "1", ["vqmovnb.s16 q0, q0"], "vstrb.32 q0, [r3, q3]", "vldrb.s32 q1, [r6, q3]");
finish_added!(finish_added_i16, "2", [], "vstrh.32 q0, [r3, q3]", "vldrh.s32 q1, [r6, q3]");
