//! The floating-point extension of Cortex-M: 32 registers of single precision, and conversions from half precision, of which
//! compilers know only the routine in software.
//!
//! Products are rounded before they are added, as everywhere: `vmul` and `vadd`, which are faster than `vmla` there.

#[cfg(feature = "f16")]
pub(crate) mod convert;

use super::{PIXELS, reference};
use crate::float::Float;
use crate::format::CHANNEL_BLOCK;

/// Channels that are computed together.
const CHANNELS: usize = 4;

/// See [`reference::dot_pixels`](super::reference::dot_pixels).
#[inline(never)]
pub(crate) fn dot_pixels<E: Float>(
    sums: &mut [[f32; CHANNEL_BLOCK]; PIXELS],
    pixels: [&[f32]; PIXELS],
    weights: &[[E; CHANNEL_BLOCK]],
) {
    let count = pixels.iter().fold(weights.len(), |least, pixel| least.min(pixel.len()));
    let multiply = match size_of::<E>() {
        2 => multiply_f16,
        4 => multiply_f32,
        _ => return reference::dot_pixels(sums, pixels, weights),
    };
    if count == 0 {
        return;
    }
    let starts = pixels.map(<[f32]>::as_ptr);
    for first in (0..CHANNEL_BLOCK).step_by(CHANNELS) {
        let sums = sums.as_flattened_mut().as_mut_ptr().wrapping_add(first);
        let weights = weights.as_flattened().as_ptr().wrapping_add(first);
        // SAFETY: there are `count` activations of each pixel, and as many times eight weights of the function's type, of which
        // these are the channels from `first` on; sums are eight for each pixel.
        unsafe { multiply(sums, &starts, weights.cast(), count) };
    }
}

/// Two loops of one shape: how four weights are loaded is what they differ in.
macro_rules! multiply {
    ($(#[$doc:meta])* $name:ident, $($load:literal),*) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(sums: *mut f32, pixels: &[*const f32; PIXELS], weights: *const u8, count: usize) {
            core::arch::naked_asm!(
                ".cpu cortex-m4",
                ".fpu fpv4-sp-d16",
                "push {{r4-r7, lr}}",
                "vpush {{d8-d13}}",
                "ldm r1, {{r4-r7}}",
                "vldmia r0!, {{s0-s3}}",
                "adds r0, r0, #16",
                "vldmia r0!, {{s4-s7}}",
                "adds r0, r0, #16",
                "vldmia r0!, {{s8-s11}}",
                "adds r0, r0, #16",
                "vldmia r0!, {{s12-s15}}",
                ".p2align 2",
                "1:",
                "vldmia r4!, {{s16}}",
                "vldmia r5!, {{s17}}",
                "vldmia r6!, {{s18}}",
                "vldmia r7!, {{s19}}",
                $($load,)*
                ".macro waft_pixel x, a, b, c, d",
                "vmul.f32 s24, \\x, s20",
                "vmul.f32 s25, \\x, s21",
                "vmul.f32 s26, \\x, s22",
                "vmul.f32 s27, \\x, s23",
                "vadd.f32 \\a, \\a, s24",
                "vadd.f32 \\b, \\b, s25",
                "vadd.f32 \\c, \\c, s26",
                "vadd.f32 \\d, \\d, s27",
                ".endm",
                "waft_pixel s16, s0, s1, s2, s3",
                "waft_pixel s17, s4, s5, s6, s7",
                "waft_pixel s18, s8, s9, s10, s11",
                "waft_pixel s19, s12, s13, s14, s15",
                "subs r3, r3, #1",
                "bne 1b",
                "subs r0, r0, #112",
                "vstmia r0!, {{s0-s3}}",
                "adds r0, r0, #16",
                "vstmia r0!, {{s4-s7}}",
                "adds r0, r0, #16",
                "vstmia r0!, {{s8-s11}}",
                "adds r0, r0, #16",
                "vstmia r0!, {{s12-s15}}",
                "vpop {{d8-d13}}",
                "pop {{r4-r7, pc}}",
                ".purgem waft_pixel",
            )
        }
    };
}

multiply! {
    /// Adds the products of four channels at four pixels: 16 in 40 instructions.
    multiply_f32,
    "vldmia r2, {{s20-s23}}",
    "adds r2, r2, #32"
}

multiply! {
    /// The same for weights in half precision: 16 in 44 instructions.
    multiply_f16,
    "vldmia r2, {{s22-s23}}",
    "adds r2, r2, #16",
    "vcvtb.f32.f16 s20, s22",
    "vcvtt.f32.f16 s21, s22",
    "vcvtb.f32.f16 s22, s23",
    "vcvtt.f32.f16 s23, s23"
}
