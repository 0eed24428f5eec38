//! Normalized activations on their way into a ring: affine map, SiLU, requantization in one pass.
//!
//! The map takes the high word of a product, `smmulr` with its rounding. The tail of the SiLU lies between two neighbours of a
//! table, which are one word: `smlad` weighs both.

use crate::fixed::Silu;
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
            pub(crate) fn $kernel(map: Silu, values: &[$source], maps: &[[i32; 2]], targets: &mut [$ring]) {
                each(map, values, maps, targets, $loop);
            }
        )*
    };
}

kernels! {
    silu_i8_i8: i8, i8, 0;
    silu_i16_i8: i16, i8, 1;
    silu_i8_i16: i8, i16, 2;
    silu_i16_i16: i16, i16, 3;
}

/// What the loop keeps in registers, in their order.
#[cfg(dsp)]
#[repr(C)]
struct Words {
    /// Of a value, one less than what puts the product's result into the high word.
    left: u32,
    half: i32,
    table: *const u16,
    multiplier: i32,
    rounding: i32,
    right: u32,
}

#[cfg(dsp)]
#[inline(always)]
fn each<S: Element, R: Element>(map: Silu, values: &[S], maps: &[[i32; 2]], targets: &mut [R], number: usize) {
    let count = values.len().min(maps.len()).min(targets.len());
    if count == 0 {
        return;
    }
    let words = Words {
        left: map.left - 1,
        half: 128,
        table: SILU_TAIL.as_ptr(),
        multiplier: map.multiplier,
        rounding: map.rounding,
        right: map.right,
    };
    // SAFETY: there are `count` values, maps and targets, and one of each; the loop of that number reads and writes elements of
    // these types.
    unsafe {
        let end = targets.as_mut_ptr().add(count);
        pass(values.as_ptr().cast(), maps.as_ptr(), targets.as_mut_ptr().cast(), end.cast(), &words, number);
    }
}

/// The same over the modelled instructions.
#[cfg(not(dsp))]
fn each<S: Element, R: Element>(map: Silu, values: &[S], maps: &[[i32; 2]], targets: &mut [R], _number: usize) {
    let high = |a: i32, b: i32, rounding: i64| ((i64::from(a) * i64::from(b) + rounding) >> 32) as i32;
    for ((&value, &[a, b]), target) in values.iter().zip(maps).zip(targets) {
        let x = high(value.into() << (map.left - 1), a, 1 << 31).saturating_add(b);
        let magnitude = x.unsigned_abs();
        let index = (magnitude >> 8) as usize;
        let activated = if index < SILU_TAIL.len() - 1 {
            let fraction = (magnitude & 255) as i32;
            let weighted = i32::from(SILU_TAIL[index]) * (256 - fraction) + i32::from(SILU_TAIL[index + 1]) * fraction;
            ((x & !(x >> 31)) << 3) - ((weighted + 128) >> 8)
        } else {
            x.clamp(0, (1 << 27) - 1) << 3
        };
        *target = R::nearest((high(activated, map.multiplier, 0) + map.rounding) >> map.right);
    }
}

/// Brings values up to the end of their targets into the ring: 24 instructions for each.
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
        "smmla r4, r4, r10, r11",
        "asr r4, r4, r12",
        "ssat r4, #\\bits, r4",
        "\\store r4, [r2], #\\to",
        "cmp r2, r3",
        "bne 1b",
        "pop {{r4-r11, pc}}",
        // Behind the table nothing is left of the tail.
        "3:",
        "usat r4, #27, r4",
        "lsls r4, r4, #3",
        "b 2b",
        ".endm",
        "push {{r4-r11, lr}}",
        "ldrd r4, r5, [sp, #36]",
        "ldm r4, {{r7-r12}}",
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
        ".purgem waft_silu",
        last = const SILU_TAIL.len() - 1,
    )
}
