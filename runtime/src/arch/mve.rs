//! Helium, the vector extension (MVE) of Armv8.1-M: 16 products of bytes, or 8 of halves, and their sum in one instruction.
//!
//! Patches are laid out for its loads: a block of 64 bytes holds 16 bytes of the taps of each pixel, one pixel after the other.
//! Where the room of patches has only 32 bytes left, the last block holds 8 bytes of each. Lanes without a tap are loaded as
//! zeros, so that nothing has to be filled.

#[cfg(mve)]
mod results;
#[cfg(mve)]
pub(crate) use self::results::{convolve_i8, convolve_i16, decide};

use core::ops::Range;

use bytemuck::Pod;

use super::patches::{GROUP, Group, Patches, Window, rows};
use super::{PIXELS, QUAD};

/// Bytes of a vector.
const VECTOR: usize = 16;

/// Bytes of a block.
const BLOCK: usize = PIXELS * VECTOR;

/// See [`reference::patches_i8`](super::reference::patches_i8).
#[inline(always)]
pub(crate) fn patches_i8() -> Patches<i8> {
    Patches {
        unfold,
        multiply: multiply::<i8>,
        #[cfg(any(scalar, test))]
        edges: |sums, patches, weights, taps, stride, _| multiply::<i8>(sums, patches, weights, taps, stride),
        taps: size_of::<Group>() / PIXELS,
    }
}

/// See [`reference::patches_i16`](super::reference::patches_i16).
#[inline(always)]
pub(crate) fn patches_i16() -> Patches<i16> {
    Patches {
        unfold,
        multiply: multiply::<i16>,
        #[cfg(any(scalar, test))]
        edges: |sums, patches, weights, taps, stride, _| multiply::<i16>(sums, patches, weights, taps, stride),
        taps: GROUP,
    }
}

/// Where a room of so many bytes has a block's taps of a pixel.
fn place(room: usize, block: usize, pixel: usize) -> Range<usize> {
    let start = block * BLOCK;
    let bytes = pixel_bytes(room, block);
    start + pixel * bytes..start + (pixel + 1) * bytes
}

/// Bytes of a block's taps of a pixel.
fn pixel_bytes(room: usize, block: usize) -> usize {
    if (block + 1) * BLOCK <= room { VECTOR } else { VECTOR / 2 }
}

/// Unfolds a window.
#[inline(never)]
fn unfold<T: Pod>(patches: &mut [Group], window: &Window<'_, T>) {
    for (index, &row) in window.rows.iter().enumerate() {
        unfold_row(patches, index * window.run, window.runs(row));
    }
}

/// Writes a row of the kernel's taps at each pixel, as those from number `tap` on.
#[inline(always)]
fn unfold_row<T: Pod>(patches: &mut [Group], tap: usize, runs: [&[T]; PIXELS]) {
    let room: &mut [u8] = bytemuck::must_cast_slice_mut(patches);
    let runs = runs.map(bytemuck::cast_slice::<T, u8>);
    let from = tap * size_of::<T>();
    let [a, b, c, d] = runs.map(<[u8]>::len);
    #[cfg(mve)]
    if (from | a).is_multiple_of(VECTOR) && a > 0 && [b, c, d] == [a; PIXELS - 1] {
        if let Some(target) = room.get_mut(from * PIXELS..(from + a) * PIXELS) {
            // SAFETY: the target has as many blocks as each run has vectors.
            unsafe { unfold_blocks(target.as_mut_ptr(), &runs.map(<[u8]>::as_ptr), a / VECTOR) };
        }
        return;
    }
    let _ = [a, b, c, d];
    let bytes = room.len();
    for (pixel, mut run) in runs.into_iter().enumerate() {
        let mut at = from;
        while let Some((now, rest)) = run.split_at_checked(run.len().min(VECTOR - at % VECTOR)) {
            let place = room.get_mut(place(bytes, at / VECTOR, pixel)).unwrap_or_default();
            let target = place.get_mut(at % VECTOR..).unwrap_or_default();
            copy(target, now);
            at += now.len();
            run = rest;
            if rest.is_empty() {
                break;
            }
        }
    }
}

/// Copies a row, as many bytes as both have.
#[cfg(mve)]
pub(crate) fn copy_row(target: &mut [u8], from: &[u8]) {
    let len = target.len().min(from.len());
    // SAFETY: both have so many bytes.
    unsafe { copy_bytes(target.as_mut_ptr(), from.as_ptr(), len) };
}

/// Copies at most a vector.
#[inline(always)]
fn copy(target: &mut [u8], from: &[u8]) {
    let len = target.len().min(from.len()).min(VECTOR);
    #[cfg(mve)]
    // SAFETY: both have so many bytes.
    unsafe {
        copy_bytes(target.as_mut_ptr(), from.as_ptr(), len);
    }
    #[cfg(not(mve))]
    target.iter_mut().zip(from).take(len).for_each(|(target, &byte)| *target = byte);
}

/// An element of a ring.
trait Lane: Pod + Into<i32> {
    /// [`multiply_pairs_i8`] or [`multiply_pairs_i16`].
    #[cfg(mve)]
    const MULTIPLY: MultiplyPairs;
}

impl Lane for i8 {
    #[cfg(mve)]
    const MULTIPLY: MultiplyPairs = multiply_pairs_i8;
}

impl Lane for i16 {
    #[cfg(mve)]
    const MULTIPLY: MultiplyPairs = multiply_pairs_i16;
}

/// Patches, weights, what the loop goes through, bytes from channel to channel, sums and their end.
#[cfg(mve)]
type MultiplyPairs =
    unsafe extern "C" fn(*const Group, *const i8, &Loop, usize, *mut [i32; PIXELS], *mut [i32; PIXELS]);

/// What the products of two channels go through.
#[cfg(mve)]
#[repr(C)]
struct Loop {
    /// Blocks whose lanes are all taps, in a room of 64 bytes each.
    whole: usize,
    /// Taps in the last block, if that is not whole.
    rest: usize,
    /// Bytes from pixel to pixel there.
    pixel: usize,
}

#[cfg(mve)]
impl Loop {
    fn of<T>(patches: &[Group], taps: usize) -> Self {
        let lanes = VECTOR / size_of::<T>();
        Self { whole: taps / lanes, rest: taps % lanes, pixel: pixel_bytes(size_of_val(patches), taps / lanes) }
    }
}

/// See [`reference::dot_patches`](super::reference::dot_patches).
#[inline(never)]
fn multiply<T: Lane>(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let there = rows(weights, taps, stride).take(sums.len()).count();
    let sums = sums.get_mut(..there).unwrap_or_default();
    // What reaches beyond is no tap of these patches.
    let taps = taps.min(patches.len() * super::patches::GROUP);
    #[cfg(mve)]
    {
        let through = Loop::of::<T>(patches, taps);
        let (pairs, last) = sums.as_chunks_mut::<2>();
        let patches = patches.as_ptr();
        // SAFETY: patches have `whole` blocks and the rest; there is a row of as many weights for each sum, `stride` apart;
        // the loop ends after whole pairs, of which there is one at least.
        unsafe {
            if !pairs.is_empty() {
                let ends = pairs.as_flattened_mut().as_mut_ptr_range();
                T::MULTIPLY(patches, weights.as_ptr(), &through, stride, ends.start, ends.end);
            }
            if let [last] = last {
                let mut both = [[0; PIXELS]; 2];
                let ends = both.as_mut_ptr_range();
                T::MULTIPLY(patches, weights.as_ptr().add((there - 1) * stride), &through, 0, ends.start, ends.end);
                *last = both[0];
            }
        }
    }
    #[cfg(not(mve))]
    for (sums, row) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        let bytes: &[u8] = bytemuck::must_cast_slice(patches);
        let (room, lanes) = (bytes.len(), VECTOR / size_of::<T>());
        *sums = core::array::from_fn(|pixel| {
            row.iter().enumerate().fold(0, |sum: i32, (tap, &weight)| {
                let at = place(room, tap / lanes, pixel).start + tap % lanes * size_of::<T>();
                let activation: T = bytemuck::pod_read_unaligned(&bytes[at..][..size_of::<T>()]);
                sum.wrapping_add(activation.into().wrapping_mul(weight.into()))
            })
        });
    }
}

/// See [`reference::dot4_i8`](super::reference::dot4_i8).
#[inline(never)]
pub(crate) fn dot4_i8(sums: [i32; QUAD], activations: &[i8], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    #[cfg(mve)]
    return dot4(sums, activations, weights, dot_rows_i8);
    #[cfg(not(mve))]
    super::reference::dot4_i8(sums, activations, weights)
}

/// See [`reference::dot4_i16`](super::reference::dot4_i16).
#[inline(never)]
pub(crate) fn dot4_i16(sums: [i32; QUAD], activations: &[i16], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    #[cfg(mve)]
    return dot4(sums, activations, weights, dot_rows_i16);
    #[cfg(not(mve))]
    super::reference::dot4_i16(sums, activations, weights)
}

#[cfg(mve)]
#[inline(always)]
fn dot4<T>(
    mut sums: [i32; QUAD],
    activations: &[T],
    weights: [&[i8]; QUAD],
    rows: unsafe extern "C" fn(*const T, usize, &[*const i8; QUAD], &mut [i32; QUAD]),
) -> [i32; QUAD] {
    let len = weights.iter().fold(activations.len(), |len, row| len.min(row.len()));
    // SAFETY: there are so many elements of each.
    unsafe { rows(activations.as_ptr(), len, &weights.map(<[i8]>::as_ptr), &mut sums) };
    sums
}

/// Writes `blocks` blocks, at least one, of as many vectors of each pixel.
#[cfg(mve)]
#[unsafe(naked)]
unsafe extern "C" fn unfold_blocks(target: *mut u8, pixels: &[*const u8; PIXELS], blocks: usize) {
    core::arch::naked_asm!(
        ".cpu cortex-m55",
        "push {{r4, r5, r7, lr}}",
        "ldm r1, {{r1, r3, r4, r5}}",
        "dls lr, r2",
        "2:",
        "vldrb.u8 q0, [r1], #16",
        "vldrb.u8 q1, [r3], #16",
        "vldrb.u8 q2, [r4], #16",
        "vldrb.u8 q3, [r5], #16",
        "vstrb.8 q0, [r0], #16",
        "vstrb.8 q1, [r0], #16",
        "vstrb.8 q2, [r0], #16",
        "vstrb.8 q3, [r0], #16",
        "le lr, 2b",
        "pop {{r4, r5, r7, pc}}",
    )
}

/// Copies `len` bytes.
#[cfg(mve)]
#[unsafe(naked)]
unsafe extern "C" fn copy_bytes(target: *mut u8, from: *const u8, len: usize) {
    core::arch::naked_asm!(
        ".cpu cortex-m55",
        "push {{r7, lr}}",
        "wlstp.8 lr, r2, 3f",
        "2:",
        "vldrb.u8 q0, [r1], #16",
        "vstrb.8 q0, [r0], #16",
        "letp lr, 2b",
        "3:",
        "pop {{r7, pc}}",
    )
}

/// A function that writes the sums of products from `sums` to `end`, of two channels at a time, which is not where they begin.
///
/// A block takes 14 instructions for two channels: a load of each channel's weights, and for each pixel a load of its activations
/// and two instructions that multiply and add; those are the floor for as many products as fit a vector.
#[cfg(mve)]
macro_rules! multiply_pairs {
    ($name:ident, $lanes:literal, $size:literal, $weights:literal, $type:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            patches: *const Group,
            weights: *const i8,
            through: &Loop,
            stride: usize,
            sums: *mut [i32; PIXELS],
            end: *mut [i32; PIXELS],
        ) {
            core::arch::naked_asm!(
                ".cpu cortex-m55",
                // One block; `a` where sums go on.
                ".macro waft_block a",
                concat!($weights, " q2, [r3], #", $lanes),
                "vldrw.u32 q0, [r1], #16",
                concat!("vmladav\\a\\().", $type, " r0, q0, q2"),
                concat!($weights, " q3, [r5], #", $lanes),
                concat!("vmladav\\a\\().", $type, " r8, q0, q3"),
                "vldrw.u32 q1, [r1], #16",
                concat!("vmladav\\a\\().", $type, " r2, q1, q2"),
                concat!("vmladav\\a\\().", $type, " r10, q1, q3"),
                "vldrw.u32 q0, [r1], #16",
                concat!("vmladav\\a\\().", $type, " r4, q0, q2"),
                concat!("vmladav\\a\\().", $type, " r12, q0, q3"),
                "vldrw.u32 q1, [r1], #16",
                concat!("vmladav\\a\\().", $type, " r6, q1, q2"),
                concat!("vmladav\\a\\().", $type, " lr, q1, q3"),
                ".endm",
                // One pixel of the last block, without what its lanes have beyond the taps.
                ".macro waft_pixel first, second",
                "vpst",
                "vldrbt.u8 q0, [r1]",
                concat!("vmladava.", $type, " \\first, q0, q2"),
                concat!("vmladava.", $type, " \\second, q0, q3"),
                "add r1, r7",
                ".endm",
                // On the stack: patches, rounds, stride, entry, rest, pixel; behind what is saved, sums and end. r9 is where the
                // weights of a pair begin.
                "push {{r4-r11, lr}}",
                "mov r9, r1",
                "ldr r11, [sp, #36]",
                "ldm r2, {{r1, r4, r5}}",
                "sub sp, #24",
                "strd r4, r5, [sp, #16]",
                "str r0, [sp]",
                // Rounds of four blocks behind the first, and how many the first round has; the first block counts as one.
                "adds r5, r1, #2",
                "lsrs r4, r5, #2",
                "and r5, r5, #3",
                "add r5, #1",
                "cmp r1, #1",
                "it eq",
                "moveq r4, #1",
                "it le",
                "movle r5, #0",
                "strd r4, r3, [sp, #4]",
                "adr r6, 1f",
                "ldrh r5, [r6, r5, lsl #1]",
                "add r6, r5",
                "adds r6, #1",
                "str r6, [sp, #12]",
                "0:",
                "ldrd r1, r7, [sp]",
                "mov r3, r9",
                "ldr r5, [sp, #8]",
                "add r5, r9",
                "cmp r7, #0",
                "beq 7f",
                "waft_block",
                // Into the loop, so that its rounds are whole.
                "ldr pc, [sp, #12]",
                ".p2align 2",
                "1:",
                ".hword 5f - 1b, 14f - 1b, 13f - 1b, 12f - 1b, 11f - 1b",
                ".p2align 2",
                "11:",
                "waft_block a",
                "12:",
                "waft_block a",
                "13:",
                "waft_block a",
                "14:",
                "waft_block a",
                "subs r7, #1",
                "bne 11b",
                "5:",
                "ldr r7, [sp, #16]",
                "cbz r7, 6f",
                concat!("vctp.", $size, " r7"),
                "ldr r7, [sp, #20]",
                "vpstt",
                concat!("vldrbt.", $type, " q2, [r3]"),
                concat!("vldrbt.", $type, " q3, [r5]"),
                "waft_pixel r0, r8",
                "waft_pixel r2, r10",
                "waft_pixel r4, r12",
                "waft_pixel r6, lr",
                "6:",
                "stmia r11!, {{r0, r2, r4, r6, r8, r10, r12, lr}}",
                "ldr r7, [sp, #8]",
                "ldr r5, [sp, #64]",
                "add r9, r9, r7, lsl #1",
                "cmp r11, r5",
                "bne 0b",
                "add sp, #24",
                "pop {{r4-r11, pc}}",
                "7:",
                "movs r0, #0",
                "movs r2, #0",
                "movs r4, #0",
                "movs r6, #0",
                "mov r8, r0",
                "mov r10, r0",
                "mov r12, r0",
                "mov lr, r0",
                "b 5b",
                ".purgem waft_block",
                ".purgem waft_pixel",
            )
        }
    };
}
#[cfg(mve)]
multiply_pairs!(multiply_pairs_i8, "16", "8", "vldrb.u8", "s8");
#[cfg(mve)]
multiply_pairs!(multiply_pairs_i16, "8", "16", "vldrb.s16", "s16");

/// A function that adds the products of `len` activations and four rows of weights to the sums: 10 instructions for 64 bytes'
/// or 32 halves' products.
#[cfg(mve)]
macro_rules! dot_rows {
    ($name:ident, $element:ty, $size:literal, $lanes:literal, $activations:literal, $weights:literal, $type:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            activations: *const $element,
            len: usize,
            weights: &[*const i8; QUAD],
            sums: &mut [i32; QUAD],
        ) {
            core::arch::naked_asm!(
                ".cpu cortex-m55",
                "push {{r4-r8, r10, r11, lr}}",
                "ldr r4, [r3]",
                "ldr r6, [r3, #4]",
                "ldr r8, [r3, #8]",
                "ldr r10, [r3, #12]",
                "ldr r5, [r2]",
                "ldr r7, [r2, #4]",
                concat!("wlstp.", $size, " lr, r1, 3f"),
                // Widening loads take low registers only.
                "ldr r1, [r2, #8]",
                "ldr r2, [r2, #12]",
                "2:",
                concat!($activations, " q0, [r0], #16"),
                concat!($weights, " q1, [r5], #", $lanes),
                concat!("vmladava.", $type, " r4, q0, q1"),
                concat!($weights, " q2, [r7], #", $lanes),
                concat!("vmladava.", $type, " r6, q0, q2"),
                concat!($weights, " q1, [r1], #", $lanes),
                concat!("vmladava.", $type, " r8, q0, q1"),
                concat!($weights, " q2, [r2], #", $lanes),
                concat!("vmladava.", $type, " r10, q0, q2"),
                "letp lr, 2b",
                "3:",
                "str r4, [r3]",
                "str r6, [r3, #4]",
                "str r8, [r3, #8]",
                "str r10, [r3, #12]",
                "pop {{r4-r8, r10, r11, pc}}",
            )
        }
    };
}
#[cfg(mve)]
dot_rows!(dot_rows_i8, i8, "8", "16", "vldrb.u8", "vldrb.u8", "s8");
#[cfg(mve)]
dot_rows!(dot_rows_i16, i16, "16", "8", "vldrh.u16", "vldrb.s16", "s16");
