//! Values on their way into the ring: maps of their channels, the SiLU, requantization.
//!
//! The map takes the high word of a product, `smmulr` with its rounding. The tail of the SiLU lies between two neighbours of a
//! table, which are one word: `smlad` weighs both.

use crate::fixed::{Entry, IntoRing};
use crate::tables::SILU_TAIL;

/// An element of a source or of a ring.
trait Element: Copy + Into<i32> {
    #[cfg(not(dsp))]
    fn nearest(value: i32) -> Self;
}

impl Element for i8 {
    #[cfg(not(dsp))]
    fn nearest(value: i32) -> Self {
        crate::fixed::saturate_i8(value)
    }
}

impl Element for i16 {
    #[cfg(not(dsp))]
    fn nearest(value: i32) -> Self {
        crate::fixed::saturate_i16(value)
    }
}

/// Kernels of pairs of types: source, ring, and the loop's number.
macro_rules! kernels {
    ($($kernel:ident: $source:ty, $ring:ty, $loop:literal;)*) => {
        $(
            /// See [`reference`](crate::arch::reference).
            #[inline]
            pub(crate) fn $kernel(map: IntoRing, values: &[$source], maps: &[[i32; 2]], targets: &mut [$ring]) {
                each(map, values, maps, targets, $loop);
            }
        )*
    };
}

kernels! {
    gather_i8_i8: i8, i8, 0;
    gather_i16_i8: i16, i8, 1;
    gather_i8_i16: i8, i16, 2;
    gather_i16_i16: i16, i16, 3;
}

/// What the loop keeps in registers, in their order.
#[cfg(dsp)]
#[repr(C)]
struct Words {
    /// Of a value, one less than what puts the product's result into the high word.
    left: u32,
    /// 128, which rounds the SiLU, or what is subtracted from a raw value.
    half: i32,
    table: *const u16,
    multiplier: i32,
    rounding: i32,
    right: u32,
}

#[cfg(dsp)]
#[inline(always)]
fn each<S: Element, R: Element>(map: IntoRing, values: &[S], maps: &[[i32; 2]], targets: &mut [R], number: usize) {
    let count = values.len().min(targets.len());
    // SAFETY: there are `count` values and targets, whose types are those of the loop.
    unsafe { enter(&map, values.as_ptr().cast(), maps, targets.as_mut_ptr().cast(), count, number) }
}

/// Brings `count` values into the ring, or as many as there are maps.
///
/// # Safety
/// There are as many values and targets, of the types of this number.
#[cfg(dsp)]
#[inline(never)]
unsafe fn enter(map: &IntoRing, values: *const u8, maps: &[[i32; 2]], targets: *mut u8, count: usize, number: usize) {
    // Rings of 16 bits are those of the last two numbers, values of 16 bits those of odd ones.
    let (bytes, is_wide) = (1 + (number >> 1), number & 1 == 1);
    let (is_raw, number) = match map.entry {
        Entry::Silu => (false, number),
        Entry::Affine if is_wide => (false, AFFINE + (number >> 1)),
        Entry::Raw if is_wide => (true, RAW + (number >> 1)),
        // There is no loop for values of 8 bits.
        Entry::Affine | Entry::Raw => return,
    };
    let count = if is_raw { count } else { count.min(maps.len()) };
    if count == 0 {
        return;
    }
    let words = Words {
        left: if is_raw { map.left } else { map.left - 1 },
        half: if is_raw { map.zero } else { 128 },
        table: SILU_TAIL.as_ptr(),
        multiplier: map.multiplier,
        rounding: map.rounding,
        right: map.right,
    };
    let end = targets.wrapping_add(count * bytes);
    // SAFETY: there are `count` of what the loop reads and writes, and one of each.
    unsafe { pass(values, maps.as_ptr(), targets, end, &words, number) }
}

/// The first of the loops without a SiLU.
#[cfg(dsp)]
const AFFINE: usize = 4;

/// The first of the loops without maps.
#[cfg(dsp)]
const RAW: usize = 6;

/// The SiLU as the loop has it.
#[cfg(not(dsp))]
fn silu(x: i32) -> i32 {
    let magnitude = x.unsigned_abs();
    let index = (magnitude >> 8) as usize;
    if index < SILU_TAIL.len() - 1 {
        let fraction = (magnitude & 255) as i32;
        let weighted = i32::from(SILU_TAIL[index]) * (256 - fraction) + i32::from(SILU_TAIL[index + 1]) * fraction;
        ((x & !(x >> 31)) << 3) - ((weighted + 128) >> 8)
    } else {
        x.clamp(0, (1 << 27) - 1) << 3
    }
}

/// The same over the modelled instructions.
#[cfg(not(dsp))]
fn each<S: Element, R: Element>(map: IntoRing, values: &[S], maps: &[[i32; 2]], targets: &mut [R], _number: usize) {
    let high = |a: i32, b: i32, rounding: i64| ((i64::from(a) * i64::from(b) + rounding) >> 32) as i32;
    let mut maps = maps.iter();
    for (&value, target) in values.iter().zip(targets) {
        let value = value.into();
        let mut mapped = || maps.next().map(|&[a, b]| high(value << (map.left - 1), a, 1 << 31).saturating_add(b));
        let most = 1 << (IntoRing::BITS - 1);
        let found = match map.entry {
            Entry::Silu => mapped().map(silu),
            Entry::Affine => mapped().map(|x| x.clamp(-most, most - 1) << IntoRing::AFFINE_LEFT),
            Entry::Raw => Some((value - map.zero) << map.left),
        };
        let Some(found) = found else { return };
        *target = R::nearest(map.to_ring(found));
    }
}

/// Brings values up to the end of their targets into the ring: 24 instructions for each, 13 without a
/// SiLU, 9 of raw ones.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn pass(
    values: *const u8,
    maps: *const [i32; 2],
    targets: *mut u8,
    end: *mut u8,
    words: *const Words,
    number: usize,
) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // Requantizes, saturates and stores a value, and ends where it was the last one.
        ".macro waft_store store, to, bits",
        "smmla r4, r4, r10, r11",
        "asr r4, r4, r12",
        "ssat r4, #\\bits, r4",
        "\\store r4, [r2], #\\to",
        "cmp r2, r3",
        "bne 1b",
        "pop {{r4-r11, pc}}",
        ".endm",
        ".macro waft_silu load, from, store, to, bits",
        ".p2align 2",
        "1:",
        "\\load r4, [r0], #\\from",
        "ldrd r5, r6, [r1], #8",
        "lsl r4, r4, r7",
        "smmulr r4, r4, r5",
        "qadd r4, r4, r6",
        "eor r5, r4, r4, asr #31",
        "sub r5, r5, r4, asr #31",
        "lsrs r6, r5, #8",
        "cmp r6, #{last}",
        "bhs 3f",
        "ldr lr, [r9, r6, lsl #1]",
        "uxtb r5, r5",
        "rsb r6, r5, #256",
        "pkhbt r6, r6, r5, lsl #16",
        "smlad r6, lr, r6, r8",
        "bic r5, r4, r4, asr #31",
        "asrs r6, r6, #8",
        "rsb r4, r6, r5, lsl #3",
        "2:",
        "waft_store \\store, \\to, \\bits",
        // Behind the table nothing is left of the tail.
        "3:",
        "usat r4, #27, r4",
        "lsls r4, r4, #3",
        "b 2b",
        ".endm",
        ".macro waft_affine load, from, store, to, bits",
        ".p2align 2",
        "1:",
        "\\load r4, [r0], #\\from",
        "ldrd r5, r6, [r1], #8",
        "lsl r4, r4, r7",
        "smmulr r4, r4, r5",
        "qadd r4, r4, r6",
        "ssat r4, #{affine_bits}, r4",
        "lsls r4, r4, #{affine_left}",
        "waft_store \\store, \\to, \\bits",
        ".endm",
        ".macro waft_raw load, from, store, to, bits",
        ".p2align 2",
        "1:",
        "\\load r4, [r0], #\\from",
        "sub r4, r4, r8",
        "lsls r4, r4, r7",
        "waft_store \\store, \\to, \\bits",
        ".endm",
        "push {{r4-r11, lr}}",
        "ldrd r4, r5, [sp, #36]",
        "ldm r4, {{r7-r12}}",
        "subs r6, r5, #4",
        "bhs 20f",
        "cmp r5, #1",
        "blo 10f",
        "beq 11f",
        "cmp r5, #2",
        "beq 12f",
        "waft_silu ldrsh, 2, strh, 2, 16",
        "10:",
        "waft_silu ldrsb, 1, strb, 1, 8",
        "11:",
        "waft_silu ldrsh, 2, strb, 1, 8",
        "12:",
        "waft_silu ldrsb, 1, strh, 2, 16",
        "20:",
        "cmp r6, #1",
        "blo 13f",
        "beq 14f",
        "cmp r6, #2",
        "beq 15f",
        "waft_raw ldrsh, 2, strh, 2, 16",
        "13:",
        "waft_affine ldrsh, 2, strb, 1, 8",
        "14:",
        "waft_affine ldrsh, 2, strh, 2, 16",
        "15:",
        "waft_raw ldrsh, 2, strb, 1, 8",
        ".purgem waft_store",
        ".purgem waft_silu",
        ".purgem waft_affine",
        ".purgem waft_raw",
        last = const SILU_TAIL.len() - 1,
        affine_bits = const IntoRing::BITS,
        affine_left = const IntoRing::AFFINE_LEFT,
    )
}
