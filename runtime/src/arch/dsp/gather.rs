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

/// Kernels of pairs of types: source, ring.
macro_rules! kernels {
    ($($kernel:ident: $source:ty, $ring:ty;)*) => {
        $(
            /// See [`reference`](crate::arch::reference).
            #[inline]
            pub(crate) fn $kernel(
                map: IntoRing,
                values: &[$source],
                maps: &[[i32; 2]],
                targets: &mut [$ring],
                sizes: [usize; 2],
            ) -> bool {
                each(map, values, maps, targets, sizes)
            }
        )*
    };
}

kernels! {
    gather_i8_i8: i8, i8;
    gather_i16_i8: i16, i8;
    gather_i8_i16: i8, i16;
    gather_i16_i16: i16, i16;
}

/// What the loop keeps in registers, in their order, and what it reads for each pixel.
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
    maps: *const [i32; 2],
    number: usize,
    /// Bytes of a pixel's targets, and from their end to the next one's.
    bytes: usize,
    gap: usize,
    pixels: usize,
}

#[cfg(dsp)]
#[inline(always)]
fn each<S: Element, R: Element>(
    map: IntoRing,
    values: &[S],
    maps: &[[i32; 2]],
    targets: &mut [R],
    [channels, advance]: [usize; 2],
) -> bool {
    let places =
        targets.len().checked_sub(channels).and_then(|more| more.checked_div(advance)).map_or(0, |more| more + 1);
    let pixels = places.min(values.len().checked_div(channels).unwrap_or(0));
    let widths = [size_of::<S>(), size_of::<R>()];
    // SAFETY: there are as many pixels of values and targets of these widths.
    unsafe {
        enter(&map, values.as_ptr().cast(), maps, targets.as_mut_ptr().cast(), [channels, advance, pixels], widths)
    }
}

/// Brings pixels into the ring; false if there is no loop for them.
///
/// # Safety
/// There are as many pixels of values and targets, whose elements have so many bytes.
#[cfg(dsp)]
#[inline(never)]
unsafe fn enter(
    map: &IntoRing,
    values: *const u8,
    maps: &[[i32; 2]],
    targets: *mut u8,
    [channels, advance, pixels]: [usize; 3],
    widths: [usize; 2],
) -> bool {
    let number = match (map.entry, widths) {
        (Entry::Silu, [1, 1]) => 0,
        (Entry::Silu, [2, 1]) => 1,
        (Entry::Silu, [1, _]) => 2,
        (Entry::Silu, _) => 3,
        (Entry::FineSilu, [2, 2]) => 4,
        (Entry::Affine, [2, 1]) => 5,
        (Entry::Affine, [2, _]) => 6,
        (Entry::Raw, [2, 1]) => 7,
        (Entry::Raw, [2, _]) => 8,
        (Entry::Raw, [_, 2]) => 9,
        // There is no loop for others.
        _ => return false,
    };
    let is_raw = matches!(map.entry, Entry::Raw);
    if pixels == 0 || !map.takes(maps.len(), [channels, advance]) {
        return false;
    }
    let [_, width] = widths;
    let mut words = Words {
        left: if is_raw { map.left } else { map.left - 1 },
        half: if is_raw { map.zero } else { 128 },
        table: SILU_TAIL.as_ptr(),
        multiplier: map.multiplier,
        rounding: map.rounding,
        right: map.right,
        maps: maps.as_ptr(),
        number,
        bytes: channels * width,
        gap: (advance - channels) * width,
        pixels,
    };
    // SAFETY: there are as many pixels of what the loop reads and writes, and maps for their channels.
    unsafe { pass(values, &mut words, targets) };
    true
}

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
fn each<S: Element, R: Element>(
    map: IntoRing,
    values: &[S],
    maps: &[[i32; 2]],
    targets: &mut [R],
    [channels, advance]: [usize; 2],
) -> bool {
    let high = |a: i32, b: i32, rounding: i64| ((i64::from(a) * i64::from(b) + rounding) >> 32) as i32;
    if !map.takes(maps.len(), [channels, advance]) {
        return false;
    }
    for (values, targets) in values.chunks_exact(channels).zip(targets.chunks_mut(advance)) {
        let Some(targets) = targets.get_mut(..channels) else { break };
        for (channel, (&value, target)) in values.iter().zip(targets).enumerate() {
            let value = value.into();
            let mapped = || {
                let [a, b] = maps[channel];
                high(value << (map.left - 1), a, 1 << 31).saturating_add(b)
            };
            let most = 1 << (IntoRing::BITS - 1);
            *target = R::nearest(map.to_ring(match map.entry {
                Entry::Silu => silu(mapped()),
                Entry::FineSilu => silu(mapped()) << 1,
                Entry::Affine => mapped().clamp(-most, most - 1) << IntoRing::AFFINE_LEFT,
                Entry::Raw => (value - map.zero) << map.left,
            }));
        }
    }
    true
}

/// Brings pixels into the ring: 24 instructions for each value, 13 without a SiLU, 9 of raw ones, and 15 for each pixel.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn pass(values: *const u8, words: *mut Words, targets: *mut u8) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // Requantizes, saturates and stores a value.
        ".macro waft_store store, to, bits",
        "smmla r4, r4, r10, r11",
        "asr r4, r4, r12",
        "ssat r4, #\\bits, r4",
        "\\store r4, [r2], #\\to",
        "cmp r2, r3",
        "bne 1b",
        "b 9f",
        ".endm",
        ".macro waft_mapped load, from",
        "\\load r4, [r0], #\\from",
        "ldrd r5, r6, [r1], #8",
        "lsl r4, r4, r7",
        "smmulr r4, r4, r5",
        "qadd r4, r4, r6",
        ".endm",
        ".macro waft_silu load, from, store, to, bits, left=0",
        "1:",
        "waft_mapped \\load, \\from",
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
        ".if \\left",
        "lsls r4, r4, #\\left",
        ".endif",
        "waft_store \\store, \\to, \\bits",
        // Behind the table nothing is left of the tail.
        "3:",
        "usat r4, #27, r4",
        "lsls r4, r4, #3",
        "b 2b",
        ".endm",
        ".macro waft_affine store, to, bits",
        "1:",
        "waft_mapped ldrsh, 2",
        "ssat r4, #{affine_bits}, r4",
        "lsls r4, r4, #{affine_left}",
        "waft_store \\store, \\to, \\bits",
        ".endm",
        ".macro waft_raw load, from, store, to, bits",
        "1:",
        "\\load r4, [r0], #\\from",
        "sub r4, r4, r8",
        "lsls r4, r4, r7",
        "waft_store \\store, \\to, \\bits",
        ".endm",
        "push {{r1, r4-r11, lr}}",
        "ldm r1, {{r7-r12}}",
        // A pixel.
        "8:",
        "ldrd r5, r6, [r1, #{number}]",
        "ldr r1, [r1, #{maps}]",
        "adds r3, r2, r6",
        "tbh [pc, r5, lsl #1]",
        "10:",
        ".short (20f-10b)/2, (21f-10b)/2, (22f-10b)/2, (23f-10b)/2, (24f-10b)/2",
        ".short (25f-10b)/2, (26f-10b)/2, (27f-10b)/2, (28f-10b)/2, (29f-10b)/2",
        "20:", "waft_silu ldrsb, 1, strb, 1, 8",
        "21:", "waft_silu ldrsh, 2, strb, 1, 8",
        "22:", "waft_silu ldrsb, 1, strh, 2, 16",
        "23:", "waft_silu ldrsh, 2, strh, 2, 16",
        "24:", "waft_silu ldrsh, 2, strh, 2, 16, 1",
        "25:", "waft_affine strb, 1, 8",
        "26:", "waft_affine strh, 2, 16",
        "27:", "waft_raw ldrsh, 2, strb, 1, 8",
        "28:", "waft_raw ldrsh, 2, strh, 2, 16",
        "29:", "waft_raw ldrsb, 1, strh, 2, 16",
        "9:",
        "ldr r1, [sp]",
        "ldrd r5, r6, [r1, #{gap}]",
        "add r2, r2, r5",
        "subs r6, r6, #1",
        "str r6, [r1, #{pixels}]",
        "bne 8b",
        "pop {{r1, r4-r11, pc}}",
        ".purgem waft_store",
        ".purgem waft_mapped",
        ".purgem waft_silu",
        ".purgem waft_affine",
        ".purgem waft_raw",
        last = const SILU_TAIL.len() - 1,
        affine_bits = const IntoRing::BITS,
        affine_left = const IntoRing::AFFINE_LEFT,
        number = const core::mem::offset_of!(Words, number),
        maps = const core::mem::offset_of!(Words, maps),
        gap = const core::mem::offset_of!(Words, gap),
        pixels = const core::mem::offset_of!(Words, pixels),
    )
}
