//! From sums to results: four pixels of a channel in a vector.
//!
//! `vqdmulh` gives the high word of twice the product, and `vrshl` by a shift below −1 rounds it once, half up: together that
//! is `requantize`. A residual has [`RESIDUAL_BITS`] more bits, as have the results that it is added to; `vhadd` halves their
//! sum, which may have 33 bits, and `vrshr` rounds what is left of them.

use super::{Lane, Loop, PIXELS};
use crate::arch::patches::{GROUP, Group};
use crate::fixed::RESIDUAL_BITS;

/// Channels whose sums are held before they become results.
const BLOCK: usize = 32;

/// Shifts that the high word decides.
const SHIFTS: core::ops::RangeInclusive<i32> = -31..=-2;

/// What `vrshr` takes off in the functions below, besides the bit of `vhadd`.
const _: () = assert!(RESIDUAL_BITS == 8);

/// An element of results or of a residual.
pub(crate) trait Stored: Copy {
    /// The functions that write it: without a residual, with one of bytes, with one of halves.
    const FINISH: [unsafe extern "C" fn(&Finish); 3];
    /// Which of them adds this.
    const ADDED: usize;
}

impl Stored for i8 {
    const FINISH: [unsafe extern "C" fn(&Finish); 3] = [finish_i8, finish_i8_i8, finish_i8_i16];
    const ADDED: usize = 1;
}

impl Stored for i16 {
    const FINISH: [unsafe extern "C" fn(&Finish); 3] = [finish_i16, finish_i16_i8, finish_i16_i16];
    const ADDED: usize = 2;
}

/// What is added to results: values less a zero point of 16 bits, by multiplier and shift.
pub(crate) struct Added<'a, K> {
    /// What stands at the results' place if there are none.
    pub(crate) values: Option<&'a [K]>,
    pub(crate) zero: i32,
    pub(crate) multiplier: i32,
    pub(crate) shift: i32,
}

/// Where the results of neighbouring pixels go.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The element of the first pixel's first channel.
    pub(crate) at: usize,
    /// Elements from one pixel to the next.
    pub(crate) advance: usize,
    /// Pixels that there are.
    pub(crate) pixels: usize,
}

impl Place {
    /// One past the last element of `channels` channels.
    fn end(self, channels: usize) -> usize {
        self.at + (self.pixels - 1) * self.advance + channels
    }
}

/// Operands of the functions below.
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
    /// Bytes from the first pixel's results to each, and of the residual's values.
    targets: [u32; PIXELS],
    keeps: [u32; PIXELS],
    pixels: usize,
    channels: usize,
}

/// Channels of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct Channels<'a> {
    /// A row for each channel, which begins at its first weight that is used.
    pub(crate) weights: &'a [i8],
    /// Weights of a row that are used, which are the patches' taps.
    pub(crate) taps: usize,
    /// Weights from one row to the next.
    pub(crate) stride: usize,
    pub(crate) bias: &'a [i32],
    /// Multiplier and shift of each.
    pub(crate) requant: &'a [[i32; 2]],
    /// The output's zero point.
    pub(crate) zero: i32,
}

/// Whether 32 bits decide the results of channels, with or without a residual.
pub(crate) fn decide(requant: &[[i32; 2]], residual: bool) -> bool {
    let more = if residual { RESIDUAL_BITS as i32 } else { 0 };
    requant.iter().all(|&[_, shift]| SHIFTS.contains(&shift.saturating_add(more)))
}

/// Computes the results of channels that [`decide`] admits, from patches to what is stored. Returns false, and writes nothing,
/// where operands do not fit.
#[inline(never)]
pub(crate) fn convolve<R: Lane, T: Stored, K: Stored>(
    channels: &Channels<'_>,
    patches: &[Group],
    output: &mut [T],
    place: Place,
    added: Option<Added<'_, K>>,
) -> bool {
    let &Channels { weights, taps, stride, bias, requant, zero } = channels;
    let count = bias.len().min(requant.len());
    let place = Place { pixels: place.pixels.min(PIXELS), ..place };
    let taps = taps.min(patches.len() * GROUP);
    let fits = count > 0 && place.pixels > 0 && place.end(count) <= output.len();
    if !fits || (count - 1) * stride + taps > weights.len() {
        return false;
    }
    let offsets = |bytes: usize| [0, 1, 2, 3].map(|pixel| (pixel * place.advance * bytes) as u32);
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
        targets: offsets(size_of::<T>()),
        keeps: offsets(size_of::<K>()),
        pixels: place.pixels,
        channels: 0,
    };
    let mut function = T::FINISH[0];
    if let Some(Added { values, zero, multiplier, shift }) = added {
        match values {
            Some(values) if place.end(count) <= values.len() => {
                operands.kept = values.as_ptr().wrapping_add(place.at).cast();
            }
            None if T::ADDED == K::ADDED => {}
            _ => return false,
        }
        // A value of 17 bits has room for a shift to the left that makes up for one of more than −2.
        if !(-31..=11).contains(&shift) || i16::try_from(zero).is_err() {
            return false;
        }
        operands.kept_zero = -zero;
        operands.kept_left = (shift + 2).max(0);
        operands.kept_multiplier = multiplier;
        operands.kept_shift = shift.min(-2);
        function = T::FINISH[K::ADDED];
    }
    let through = Loop::of::<R>(patches, taps);
    let mut row = weights.as_ptr();
    let mut left = count;
    while left > 0 {
        let block = left.min(BLOCK);
        operands.channels = block;
        // SAFETY: there is a row of weights for each channel, and a bias, multiplier and shift; results and values of the
        // residual that exist end within their slices, others are masked. Sums have room for a block; an odd one's last
        // channel is computed once more in place of the next, whose row there may not be.
        unsafe {
            let start = sums.as_mut_ptr();
            let pairs = block - block % 2;
            if pairs > 0 {
                R::MULTIPLY(patches.as_ptr(), row, &through, stride, start, start.add(pairs));
            }
            if block > pairs {
                R::MULTIPLY(patches.as_ptr(), row.add(pairs * stride), &through, 0, start.add(pairs), start.add(pairs + 2));
            }
            function(&operands);
            operands.bias = operands.bias.add(block);
            operands.requant = operands.requant.add(block);
        }
        operands.target = operands.target.wrapping_add(block * size_of::<T>());
        operands.kept = operands.kept.wrapping_add(block * size_of::<K>());
        row = row.wrapping_add(block * stride);
        left -= block;
    }
    true
}

/// A function that adds the bias, requantizes, adds the residual if there is one, and stores.
macro_rules! finish {
    ($name:ident, $advance:literal, [$($narrow:literal)?], $store:literal, [$($added:expr),*]) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(operands: &Finish) {
            core::arch::naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r11, lr}}",
                "ldrd r4, r5, [r0, #72]",
                "add r1, r0, #40",
                "vldrw.u32 q3, [r1]",
                "add r1, r0, #56",
                "vldrw.u32 q2, [r1]",
                "vctp.32 r4",
                "dls lr, r5",
                "ldm r0, {{r0-r4, r6-r10}}",
                "2:",
                "vldrw.u32 q0, [r0], #16",
                "ldr r12, [r1], #4",
                "vadd.i32 q0, q0, r12",
                "ldrd r5, r12, [r2], #8",
                "vqdmulh.s32 q0, q0, r5",
                $($added,)*
                "vqadd.s32 q0, q0, r4",
                "vqmovnb.s32 q0, q0",
                $($narrow,)?
                "vpst",
                $store,
                concat!("adds r3, #", $advance),
                "le lr, 2b",
                "pop {{r4-r11, pc}}",
            )
        }
    };
}

finish!(finish_i8, "1", ["vqmovnb.s16 q0, q0"], "vstrbt.32 q0, [r3, q3]", ["vrshl.s32 q0, r12"]);
finish!(finish_i16, "2", [], "vstrht.32 q0, [r3, q3]", ["vrshl.s32 q0, r12"]);

/// The same with a residual, which is loaded by an instruction and has so many bytes.
macro_rules! finish_added {
    ($name:ident, $advance:literal, [$($narrow:literal)?], $store:literal, $load:literal, $bytes:literal) => {
        finish!(
            $name,
            $advance,
            [$($narrow)?],
            $store,
            [
                "add r12, #8",
                "vrshl.s32 q0, r12",
                "vpst",
                $load,
                concat!("adds r6, #", $bytes),
                "vadd.i32 q1, q1, r7",
                "vshl.s32 q1, r8",
                "vqdmulh.s32 q1, q1, r9",
                "vrshl.s32 q1, r10",
                "vhadd.s32 q0, q0, q1",
                "vrshr.s32 q0, q0, #7"
            ]
        );
    };
}

finish_added!(
    finish_i8_i8,
    "1",
    ["vqmovnb.s16 q0, q0"],
    "vstrbt.32 q0, [r3, q3]",
    "vldrbt.s32 q1, [r6, q2]",
    "1"
);
finish_added!(
    finish_i8_i16,
    "1",
    ["vqmovnb.s16 q0, q0"],
    "vstrbt.32 q0, [r3, q3]",
    "vldrht.s32 q1, [r6, q2]",
    "2"
);
finish_added!(finish_i16_i8, "2", [], "vstrht.32 q0, [r3, q3]", "vldrbt.s32 q1, [r6, q2]", "1");
finish_added!(finish_i16_i16, "2", [], "vstrht.32 q0, [r3, q3]", "vldrht.s32 q1, [r6, q2]", "2");
