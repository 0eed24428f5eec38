//! From sums of products at the points of tiles to those of outputs, in assembly.

use super::super::super::winograd::Products;
#[cfg(dsp)]
use super::super::super::winograd::{TILE, two};
use crate::arch::PIXELS;

/// See [`reference::winograd_output`](crate::arch::reference::winograd_output).
#[inline(always)]
pub(crate) fn winograd_output(sums: &mut [[i32; PIXELS]], stride: usize, products: &[Products], which: usize) {
    #[cfg(dsp)]
    if products.len() >= super::POINTS
        && which < size_of::<Products>() / size_of::<i32>()
        && sums.len() > (TILE - 1) * stride
    {
        // SAFETY: there are 36 products of each of four, and rows of four sums at four places.
        unsafe {
            let products = products.as_ptr().cast::<i32>().wrapping_add(which);
            rows_of_four(products, sums.as_mut_ptr(), stride * size_of::<[i32; PIXELS]>());
        }
    }
    #[cfg(not(dsp))]
    crate::arch::reference::winograd_output(sums, stride, products, which);
}

/// See [`reference::winograd2_output`](crate::arch::reference::winograd2_output).
#[inline(always)]
pub(crate) fn winograd2_output(sums: &mut [[i32; PIXELS]], stride: usize, products: &[Products], channel: usize) {
    #[cfg(dsp)]
    if products.len() >= two::POINTS && channel < 2 && sums.len() > (two::TILE - 1) * stride {
        // SAFETY: there are 16 products of each of four, and rows of four sums at two places.
        unsafe {
            let products = products.as_ptr().cast::<i32>().wrapping_add(channel);
            rows_of_two(products, sums.as_mut_ptr(), stride * size_of::<[i32; PIXELS]>());
        }
    }
    #[cfg(not(dsp))]
    crate::arch::reference::winograd2_output(sums, stride, products, channel);
}

/// Writes the four rows of a tile, `stride` bytes apart, from its products, 16 bytes apart.
///
/// A column takes 21 instructions, a row 30: 16 for an output.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn rows_of_four(products: *const i32, sums: *mut [i32; PIXELS], stride: usize) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // r4 to r9 become four in r4 to r7.
        ".macro waft_inverse",
        "add r10, r5, r6",
        "subs r5, r5, r6",
        "add r6, r7, r8",
        "sub r7, r7, r8",
        "add r4, r4, r4, lsl #1",
        "sub r11, r6, r10, lsl #2",
        "add r4, r11, r4, lsl #1",
        "sub r6, r6, r10",
        "rsb r8, r5, r7, lsl #1",
        "add r9, r9, r9, lsl #1",
        "sub r5, r7, r5, lsl #1",
        "add r7, r8, r9, lsl #1",
        ".endm",
        "push {{r4-r11, lr}}",
        "sub sp, #100",
        "mov r3, sp",
        "add lr, r0, #96",
        ".p2align 2",
        "0:",
        "ldr r5, [r0, #96]",
        "ldr r6, [r0, #192]",
        "ldr r7, [r0, #288]",
        "ldr r8, [r0, #384]",
        "ldr r9, [r0, #480]",
        "ldr r4, [r0], #16",
        "waft_inverse",
        "stmia r3!, {{r4-r7}}",
        "cmp r0, lr",
        "bne 0b",
        // What rows and columns lack of 576, as powers of two, and the inverse of 9; then 64 is left.
        "movw r12, #0x8E39",
        "movt r12, #0x38E3",
        "mov r3, sp",
        ".macro waft_row",
        "ldr r5, [r3, #16]",
        "ldr r6, [r3, #32]",
        "ldr r7, [r3, #48]",
        "ldr r8, [r3, #64]",
        "ldr r9, [r3, #80]",
        "ldr r4, [r3], #4",
        "waft_inverse",
        "lsl r10, r12, #1",
        "lsl r11, r12, #2",
        "mul r4, r4, r12",
        "mul r5, r5, r10",
        "mul r6, r6, r11",
        "mul r7, r7, r11",
        "asrs r4, r4, #6",
        "asrs r5, r5, #6",
        "asrs r6, r6, #6",
        "asrs r7, r7, #6",
        "stm r1, {{r4-r7}}",
        "add r1, r1, r2",
        ".endm",
        "waft_row",
        "lsl r12, r12, #1",
        "waft_row",
        "lsl r12, r12, #1",
        "waft_row",
        "waft_row",
        "add sp, #100",
        "pop {{r4-r11, pc}}",
        ".purgem waft_inverse",
        ".purgem waft_row",
    )
}

/// Writes two rows of both tiles of a pair, `stride` bytes apart, from the products of the first, 16 bytes apart; those of the
/// second are 8 bytes behind.
///
/// A tile takes 46 instructions: 12 for an output.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn rows_of_two(products: *const i32, sums: *mut [i32; PIXELS], stride: usize) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // Column `x` becomes two numbers.
        ".macro waft_column x, near, far",
        "ldr r11, [r0, #(64+\\x)]",
        "ldr r12, [r0, #(128+\\x)]",
        "add \\near, r11, r12",
        "sub \\far, r11, r12",
        "ldr r11, [r0, #\\x]",
        "ldr r12, [r0, #(192+\\x)]",
        "add \\near, \\near, r11, lsl #1",
        "sub \\far, \\far, r12, lsl #1",
        ".endm",
        ".macro waft_pair a, b, c, d, x, to",
        "add r11, \\b, \\c",
        "sub r12, \\b, \\c",
        "add r11, r11, \\a, lsl #1",
        "sub r12, r12, \\d, lsl #1",
        "asr r11, r11, #2",
        "asr r12, r12, #2",
        "strd r11, r12, [\\to, #\\x]",
        ".endm",
        ".macro waft_tile from, to",
        "waft_column (\\from), r3, r4",
        "waft_column (\\from+16), r5, r6",
        "waft_column (\\from+32), r7, r8",
        "waft_column (\\from+48), r9, r10",
        "waft_pair r3, r5, r7, r9, \\to, r1",
        "waft_pair r4, r6, r8, r10, \\to, r2",
        ".endm",
        "push {{r4-r11, lr}}",
        "add r2, r2, r1",
        "waft_tile 0, 0",
        "waft_tile 8, 8",
        "pop {{r4-r11, pc}}",
        ".purgem waft_column",
        ".purgem waft_pair",
        ".purgem waft_tile",
    )
}
