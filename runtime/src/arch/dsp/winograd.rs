//! Winograd's F(4×4, 3×3) with the DSP extension: `sadd16` and `ssub16` transform two channels at a time.

use super::super::patches::GROUP;
#[cfg_attr(not(dsp), forbid(unsafe_code))]
pub(super) mod output;
pub(super) mod two;

use super::super::winograd::transforms::{self, Lanes, Load};
use super::super::winograd::{POINTS, Pair, Products, SIDE};
use super::even_bytes;

/// A [`Pair`] as words: of the first tile or channel, then of the second.
#[cfg(not(dsp))]
type Words = [[u32; 2]; 2];

/// See [`reference::winograd_input`](super::super::reference::winograd_input).
#[inline(never)]
pub(crate) fn winograd_input(pair: &mut [Pair], tile: usize, rows: [&[i8]; SIDE]) {
    let groups = pair.len() / POINTS;
    let pixel = groups * GROUP;
    if pair.len() != groups * POINTS || tile > 1 || rows.iter().any(|row| row.len() < SIDE * pixel) {
        return;
    }
    #[cfg(dsp)]
    if groups > 0 {
        // SAFETY: there are 36 points of `groups` pairs, of which `tile` is a half, and rows have six pixels of as many groups of
        // four channels.
        unsafe {
            let first = pair.as_mut_ptr().cast::<u32>().wrapping_add(2 * tile);
            let rows = rows.map(<[i8]>::as_ptr);
            transform_tile(first, &rows, pixel, groups * size_of::<Pair>(), groups);
        }
    }
    // The same over the modelled instructions.
    #[cfg(not(dsp))]
    transforms::input::<Halves>(pair, tile, rows);
}

/// Transforms a tile, from six rows whose pixels are `pixel` bytes apart, for some groups of four channels, at least one. Points
/// are `next` bytes apart, groups 16.
///
/// Columns pass through the stack: one of a group takes 68 instructions, a row of two channels 36.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn transform_tile(
    first: *mut u32,
    rows: &[*const i8; SIDE],
    pixel: usize,
    next: usize,
    groups: usize,
) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // `Bᵀ` of r4 to r9, in their place.
        ".macro waft_input",
        "ssub16 r10, r8, r6",
        "ssub16 r11, r7, r5",
        "ssub16 r4, r4, r6",
        "sadd16 r4, r4, r4",
        "sadd16 r4, r4, r4",
        "sadd16 r4, r10, r4",
        "ssub16 r9, r9, r7",
        "sadd16 r12, r11, r11",
        "sadd16 r11, r12, r12",
        "ssub16 r9, r9, r11",
        "sadd16 r6, r6, r6",
        "sadd16 r6, r6, r6",
        "ssub16 r11, r8, r6",
        "sadd16 r5, r5, r5",
        "sadd16 r5, r5, r5",
        "ssub16 r5, r7, r5",
        "ssub16 r6, r11, r5",
        "sadd16 r5, r11, r5",
        "sadd16 r7, r10, r12",
        "ssub16 r8, r10, r12",
        ".endm",
        ".macro waft_spread by",
        "sxtb16 r4, r4, ror #\\by",
        "sxtb16 r5, r5, ror #\\by",
        "sxtb16 r6, r6, ror #\\by",
        "sxtb16 r7, r7, ror #\\by",
        "sxtb16 r8, r8, ror #\\by",
        "sxtb16 r9, r9, ror #\\by",
        ".endm",
        // On the stack: six columns of six words of both halves, then rows, `first`, `next`, `pixel`; behind what is saved: the
        // groups that are left.
        "push {{r4-r11, lr}}",
        "sub sp, #324",
        "ldmia r1, {{r4-r9}}",
        "add r10, sp, #288",
        "stmia r10!, {{r4-r9}}",
        "strd r0, r3, [r10]",
        "str r2, [r10, #8]",
        "mov lr, r2",
        "0:",
        "movs r0, #0",
        "add r3, sp, #24",
        "add r2, sp, #288",
        // A column: what the rows have at an offset.
        "1:",
        "ldmia r2, {{r4-r9}}",
        "ldr r4, [r4, r0]",
        "ldr r5, [r5, r0]",
        "ldr r6, [r6, r0]",
        "ldr r7, [r7, r0]",
        "ldr r8, [r8, r0]",
        "ldr r9, [r9, r0]",
        "stmia r3, {{r4-r9}}",
        "waft_spread 0",
        "waft_input",
        "stmdb r3, {{r4-r9}}",
        "ldmia r3, {{r4-r9}}",
        "waft_spread 8",
        "waft_input",
        "stmia r3, {{r4-r9}}",
        "add r0, lr",
        "adds r3, r3, #48",
        "cmp r3, r2",
        "blo 1b",
        // Rows of both halves.
        "ldrd r0, r1, [sp, #312]",
        "mov r3, sp",
        "add r2, r1, r1, lsl #1",
        "lsls r2, r2, #1",
        "2:",
        "add lr, r3, #24",
        "3:",
        "ldr r5, [r3, #48]",
        "ldr r6, [r3, #96]",
        "ldr r7, [r3, #144]",
        "ldr r8, [r3, #192]",
        "ldr r9, [r3, #240]",
        "ldr r4, [r3], #4",
        "waft_input",
        "add r10, r0, r1",
        "str r4, [r0]",
        "str r5, [r0, r1]",
        "str r6, [r0, r1, lsl #1]",
        "str r7, [r10, r1, lsl #1]",
        "str r8, [r0, r1, lsl #2]",
        "str r9, [r10, r1, lsl #2]",
        "add r0, r2",
        "cmp r3, lr",
        "bne 3b",
        // The other half, a word further.
        "ldr r0, [sp, #312]",
        "adds r0, r0, #4",
        "add r12, sp, #48",
        "cmp r3, r12",
        "bne 2b",
        // The next group.
        "ldr r10, [sp, #360]",
        "subs r10, r10, #1",
        "beq 4f",
        "str r10, [sp, #360]",
        "ldr r0, [sp, #312]",
        "adds r0, r0, #16",
        "str r0, [sp, #312]",
        "add r3, sp, #288",
        "ldmia r3, {{r4-r9}}",
        "adds r4, r4, #4",
        "adds r5, r5, #4",
        "adds r6, r6, #4",
        "adds r7, r7, #4",
        "add r8, r8, #4",
        "add r9, r9, #4",
        "stmia r3, {{r4-r9}}",
        "ldr lr, [sp, #320]",
        "b 0b",
        "4:",
        "add sp, #324",
        "pop {{r4-r11, pc}}",
        ".purgem waft_input",
        ".purgem waft_spread",
    )
}

/// See [`reference::winograd_weights`](super::super::reference::winograd_weights).
#[inline(never)]
pub(crate) fn winograd_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
    transforms::weights_of_four::<Halves>(pair, channel, weights);
}

/// Two channels in a register.
struct Halves;

impl Lanes for Halves {
    type Word = u32;
    type Place = u32;
    const PARTS: usize = 2;

    #[inline(always)]
    fn add(a: u32, b: u32) -> u32 {
        add(a, b)
    }

    #[inline(always)]
    fn sub(a: u32, b: u32) -> u32 {
        sub(a, b)
    }

    #[inline(always)]
    unsafe fn store(at: *mut u32, word: u32) {
        // SAFETY: said of the trait's; a pair has the alignment of halves.
        unsafe { at.write_unaligned(word) };
    }
}

impl Load<i8> for Halves {
    /// Bytes 0 and 2 of a word, or 1 and 3, sign-extended.
    #[inline(always)]
    unsafe fn load(from: *const i8, part: usize) -> u32 {
        // SAFETY: there are four bytes.
        even_bytes(unsafe { from.cast::<u32>().read_unaligned() }.rotate_right(8 * part as u32))
    }
}

/// See [`reference::winograd_multiply`](super::super::reference::winograd_multiply).
#[inline(always)]
#[cfg_attr(not(dsp), forbid(unsafe_code))]
pub(crate) fn winograd_multiply(products: &mut [Products], tiles: &[Pair], channels: &[Pair]) {
    let groups = tiles.len().checked_div(products.len()).unwrap_or(0);
    if groups == 0 || channels.len() < groups * products.len() {
        products.fill([0; 4]);
        return;
    }
    #[cfg(dsp)]
    // SAFETY: there are as many points as products, each of `groups` pairs in both; pairs are 16 bytes and, as their type
    // does not say, where the plan and the compiler put words.
    unsafe {
        let bytes = groups * size_of::<Pair>();
        let ends = products.as_mut_ptr_range();
        multiply_points(tiles.as_ptr(), channels.as_ptr(), ends.start, bytes, ends.end);
    }
    // The same over the modelled instructions.
    #[cfg(not(dsp))]
    for (products, (tiles, channels)) in products.iter_mut().zip(tiles.chunks(groups).zip(channels.chunks(groups))) {
        *products = [0; 4];
        for (&tiles, &channels) in tiles.iter().zip(channels) {
            let (tiles, channels): (Words, Words) = (bytemuck::cast(tiles), bytemuck::cast(channels));
            for (which, sum) in products.iter_mut().enumerate() {
                let ([a, b], [c, d]) = (tiles[which / 2], channels[which % 2]);
                *sum = super::multiply_add(super::multiply_add(*sum, a, c), b, d);
            }
        }
    }
}

/// Writes the sums of points with `bytes` of pairs each, at least one, until `end`.
///
/// A pair has 16 products and takes 10 instructions: two loads of four words, and 8 `smlad` that add two products each. The first
/// pair of a point begins the sums; the code for those behind is unrolled eight times, and entered where as many are left as there are.
/// Up to nine pairs a point takes 6 instructions besides, more 9 and 3 for each round.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_points(
    tiles: *const Pair,
    channels: *const Pair,
    products: *mut Products,
    bytes: usize,
    end: *mut Products,
) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        ".macro waft_first",
        "ldmia r0!, {{r6-r9}}",
        "ldmia r1!, {{r10, r11, r12, lr}}",
        "smuad r2, r6, r10",
        "smlad r2, r7, r11, r2",
        "smuad r3, r6, r12",
        "smlad r3, r7, lr, r3",
        "smuad r4, r8, r10",
        "smlad r4, r9, r11, r4",
        "smuad r5, r8, r12",
        "smlad r5, r9, lr, r5",
        "ldr pc, [sp]",
        ".p2align 2",
        ".endm",
        ".macro waft_others",
        ".rept 8",
        "ldmia r0!, {{r6-r9}}",
        "ldmia r1!, {{r10, r11, r12, lr}}",
        "smlad r2, r6, r10, r2",
        "smlad r2, r7, r11, r2",
        "smlad r3, r6, r12, r3",
        "smlad r3, r7, lr, r3",
        "smlad r4, r8, r10, r4",
        "smlad r4, r9, r11, r4",
        "smlad r5, r8, r12, r5",
        "smlad r5, r9, lr, r5",
        ".endr",
        ".endm",
        ".macro waft_store",
        "ldrd r6, r7, [sp, #8]",
        "stmia r6!, {{r2-r5}}",
        "str r6, [sp, #8]",
        "cmp r6, r7",
        ".endm",
        "push {{r3-r11, lr}}",
        // On the stack: the entry, where the point's pairs end, products and their end, bytes.
        "sub sp, #16",
        "ldr r7, [sp, #56]",
        "strd r2, r7, [sp, #8]",
        "lsrs r4, r3, #4",
        "subs r4, r4, #1",
        "rsb r2, r4, #0",
        "and r2, r2, #7",
        "movs r5, #40",
        "cmp r4, #8",
        "bhi 4f",
        "adr.w r6, 2f",
        "mla r6, r2, r5, r6",
        "cmp r4, #0",
        "it eq",
        // Behind all eight.
        "addeq r6, #320",
        "adds r6, r6, #1",
        "str r6, [sp]",
        "6:",
        "waft_first",
        "2:",
        "waft_others",
        "waft_store",
        "bne 6b",
        "b 5f",
        "4:",
        "adr.w r6, 1f",
        "mla r6, r2, r5, r6",
        "adds r6, r6, #1",
        "str r6, [sp]",
        "0:",
        "ldr r2, [sp, #16]",
        "add r2, r0",
        "str r2, [sp, #4]",
        "waft_first",
        "1:",
        "waft_others",
        "ldr r6, [sp, #4]",
        "cmp r0, r6",
        "bne 1b",
        "waft_store",
        "bne 0b",
        "5:",
        "add sp, #20",
        "pop {{r4-r11, pc}}",
        ".purgem waft_first",
        ".purgem waft_others",
        ".purgem waft_store",
    )
}

/// See [`reference::limit_i16`](super::super::reference::limit_i16).
#[inline(never)]
pub(crate) fn limit_i16(values: &mut [i16], limit: u16) {
    let limit = limit.min(i16::MAX as u16);
    let both = |half: u16| u32::from(half) << 16 | u32::from(half);
    let (most, least) = (both(limit), both(limit.wrapping_neg()));
    let (before, words, behind) = bytemuck::pod_align_to_mut::<i16, u32>(values);
    words.iter_mut().for_each(|word| *word = clamp(*word, most, least));
    for value in before.iter_mut().chain(behind) {
        *value = clamp((*value as u16).into(), most, least) as i16;
    }
}

/// Halves that are above `most` or below `least` become these.
#[inline(always)]
fn clamp(halves: u32, most: u32, least: u32) -> u32 {
    #[cfg(dsp)]
    {
        let mut result = halves;
        // SAFETY: as below: flags of greater-or-equal are written, and chosen by.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "ssub16 {spare}, {result}, {most}",
                "sel {result}, {most}, {result}",
                "ssub16 {spare}, {result}, {least}",
                "sel {result}, {result}, {least}",
                result = inout(reg) result, most = in(reg) most, least = in(reg) least, spare = out(reg) _,
                options(pure, nomem, nostack),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    {
        let below = self::halves(halves, most, i16::min);
        self::halves(below, least, i16::max)
    }
}

/// Sums of halves.
#[inline(always)]
fn add(a: u32, b: u32) -> u32 {
    #[cfg(dsp)]
    {
        let result;
        // SAFETY: arithmetic on registers; the target has the extension, or `build.rs` would not have chosen this file.
        unsafe {
            // Flags of greater-or-equal are written.
            core::arch::asm!(
                ".cpu cortex-m4",
                "sadd16 {result}, {a}, {b}",
                result = lateout(reg) result, a = in(reg) a, b = in(reg) b,
                options(pure, nomem, nostack),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    halves(a, b, i16::wrapping_add)
}

/// Differences of halves.
#[inline(always)]
fn sub(a: u32, b: u32) -> u32 {
    #[cfg(dsp)]
    {
        let result;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "ssub16 {result}, {a}, {b}",
                result = lateout(reg) result, a = in(reg) a, b = in(reg) b,
                options(pure, nomem, nostack),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    halves(a, b, i16::wrapping_sub)
}

/// The instructions as the architecture manual defines them (Armv7-M, A7.7), for machines without.
#[cfg(not(dsp))]
fn halves(a: u32, b: u32, f: impl Fn(i16, i16) -> i16) -> u32 {
    let half = |shift: u32| u32::from(f((a >> shift) as i16, (b >> shift) as i16) as u16) << shift;
    half(0) | half(16)
}
