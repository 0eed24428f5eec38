//! Winograd's F(4×4, 3×3) with the DSP extension: `sadd16` and `ssub16` transform two channels at a time.

use super::super::patches::GROUP;
pub(super) mod two;

use super::super::winograd::{POINTS, Pair, Products, SIDE, transform_input, transform_weights};
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
    let next = groups * WORDS;
    let mut first = pair.as_mut_ptr().cast::<u32>().wrapping_add(2 * tile);
    let mut rows = rows.map(<[i8]>::as_ptr);
    for _ in 0..groups {
        for half in 0..2 {
            // SAFETY: rows have six pixels, and each group four channels of a pixel.
            let column = |x: usize| unsafe {
                let [a, b, c, d, e, f] = rows;
                let at = |row: *const i8| bytes(row.add(x * pixel), half);
                transform_input([at(a), at(b), at(c), at(d), at(e), at(f)], add, sub)
            };
            let [a, b, c, d, e, f] = [column(0), column(1), column(2), column(3), column(4), column(5)];
            // Without a loop, for which the compiler would keep six pointers.
            let row = |point, y: usize| {
                // SAFETY: there are 36 points of as many groups; `tile` and `half` are 0 or 1.
                unsafe { store(point, next, transform_input([a[y], b[y], c[y], d[y], e[y], f[y]], add, sub)) }
            };
            row(row(row(row(row(row(first.wrapping_add(half), 0), 1), 2), 3), 4), 5);
        }
        first = first.wrapping_add(WORDS);
        rows = rows.map(|row| row.wrapping_add(GROUP));
    }
}

/// See [`reference::winograd_weights`](super::super::reference::winograd_weights).
#[inline(never)]
pub(crate) fn winograd_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
    let groups = pair.len() / POINTS;
    let tap = groups * GROUP;
    if pair.len() != groups * POINTS || channel > 1 || weights.len() < 9 * tap {
        return;
    }
    let next = groups * WORDS;
    let mut first = pair.as_mut_ptr().cast::<u32>().wrapping_add(2 * channel);
    let mut weight = weights.as_ptr();
    for _ in 0..groups {
        for half in 0..2 {
            // SAFETY: there are nine taps, and each group is four inputs of a tap.
            let column = |x: usize| unsafe {
                let at = |row: usize| bytes(weight.add((row + x) * tap), half);
                transform_weights([at(0), at(3), at(6)], add, sub)
            };
            let [a, b, c] = [column(0), column(1), column(2)];
            let row = |point, y: usize| {
                // SAFETY: there are 36 points of as many groups; `channel` and `half` are 0 or 1.
                unsafe { store(point, next, transform_weights([a[y], b[y], c[y]], add, sub)) }
            };
            row(row(row(row(row(row(first.wrapping_add(half), 0), 1), 2), 3), 4), 5);
        }
        first = first.wrapping_add(WORDS);
        weight = weight.wrapping_add(GROUP);
    }
}

/// Words of a pair.
const WORDS: usize = size_of::<Pair>() / size_of::<u32>();

/// Bytes 0 and 2 of a word, or 1 and 3, sign-extended to halves.
///
/// # Safety
/// There are four bytes; they need no alignment.
#[inline(always)]
unsafe fn bytes(from: *const i8, half: usize) -> u32 {
    // SAFETY: said above.
    even_bytes(unsafe { from.cast::<u32>().read_unaligned() }.rotate_right(8 * half as u32))
}

/// Writes six words, each `next` behind the one before. Returns where a seventh would go.
///
/// # Safety
/// There are such words; they need no alignment.
#[inline(always)]
unsafe fn store(mut at: *mut u32, next: usize, words: [u32; SIDE]) -> *mut u32 {
    let [a, b, c, d, e, f] = words;
    // SAFETY: said above.
    let mut put = |word| unsafe {
        at.write_unaligned(word);
        at = at.wrapping_add(next);
    };
    put(a);
    put(b);
    put(c);
    put(d);
    put(e);
    put(f);
    at
}

/// See [`reference::winograd_multiply`](super::super::reference::winograd_multiply).
#[inline(always)]
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
/// A pair has 16 products and takes 10 instructions: two loads of four words, and 8 `smlad` that add two products each. Eight
/// pairs are a round of the loop, which is entered where as many are left as there are; a point takes 13 besides, a round 3.
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
        "push {{r3-r11, lr}}",
        "lsrs r4, r3, #4",
        "negs r4, r4",
        "and r4, r4, #7",
        "movs r5, #40",
        "adr.w r6, 1f",
        "mla r6, r4, r5, r6",
        "adds r6, r6, #1",
        // On the stack: the entry, where the point's pairs end, products and their end, bytes.
        "sub sp, #16",
        "ldr r7, [sp, #56]",
        "strd r2, r7, [sp, #8]",
        "str r6, [sp]",
        "0:",
        "ldr r2, [sp, #16]",
        "movs r3, #0",
        "add r2, r0",
        "str r2, [sp, #4]",
        "movs r2, #0",
        "movs r4, #0",
        "movs r5, #0",
        "ldr pc, [sp]",
        ".p2align 2",
        "1:",
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
        "ldr r6, [sp, #4]",
        "cmp r0, r6",
        "bne 1b",
        "ldrd r6, r7, [sp, #8]",
        "stmia r6!, {{r2-r5}}",
        "str r6, [sp, #8]",
        "cmp r6, r7",
        "bne 0b",
        "add sp, #20",
        "pop {{r4-r11, pc}}",
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
