//! Tiles for cores whose registers hold one number: Armv6-M, Armv7-M, RISC-V without vectors. Numbers have 32 bits on the way,
//! and lose what 16 do not hold when they are written, as sums that wrap do.

use super::winograd::transforms::{self, Lanes, Load};
use super::winograd::{Pair, Products, SIDE, two};

/// One channel in a register.
struct Single;

impl Lanes for Single {
    type Word = i32;
    type Place = i16;
    const PARTS: usize = 4;

    #[inline(always)]
    fn add(a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    #[inline(always)]
    fn sub(a: i32, b: i32) -> i32 {
        a.wrapping_sub(b)
    }

    #[inline(always)]
    unsafe fn store(at: *mut i16, word: i32) {
        // SAFETY: said of the trait's; elements of a pair are halves.
        unsafe { at.write(word as i16) };
    }
}

impl<T: Copy + Into<i32>> Load<T> for Single {
    #[inline(always)]
    unsafe fn load(from: *const T, part: usize) -> i32 {
        // SAFETY: there are four elements: 0, 2, 1, 3.
        unsafe { from.add(part % 2 * 2 + part / 2).read() }.into()
    }
}

/// See [`reference::winograd_input`](super::reference::winograd_input).
#[inline(never)]
pub(crate) fn winograd_input(pair: &mut [Pair], tile: usize, rows: [&[i8]; SIDE]) {
    transforms::input::<Single>(pair, tile, rows);
}

/// See [`reference::winograd2_input`](super::reference::winograd2_input).
#[inline(never)]
pub(crate) fn winograd2_input(pair: &mut [Pair], rows: [&[i16]; two::SIDE]) {
    transforms::input_of_two::<Single>(pair, rows);
}

/// See [`reference::winograd_weights`](super::reference::winograd_weights).
#[inline(never)]
pub(crate) fn winograd_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
    transforms::weights_of_four::<Single>(pair, channel, weights);
}

/// See [`reference::winograd2_weights`](super::reference::winograd2_weights).
#[inline(never)]
pub(crate) fn winograd2_weights(pair: &mut [Pair], channel: usize, weights: &[i8]) {
    transforms::weights_of_two::<Single>(pair, channel, weights);
}

/// See [`reference::winograd_multiply`](super::reference::winograd_multiply).
#[inline(always)]
#[cfg_attr(not(scalar), forbid(unsafe_code))]
pub(crate) fn winograd_multiply(products: &mut [Products], tiles: &[Pair], channels: &[Pair]) {
    #[cfg(scalar)]
    {
        let groups = tiles.len().checked_div(products.len()).unwrap_or(0);
        if groups == 0 || channels.len() < groups * products.len() {
            products.fill([0; 4]);
            return;
        }
        let ends = products.as_mut_ptr_range();
        // SAFETY: there are as many points as products, at least one, each of `groups` pairs in both.
        unsafe { multiply_points(tiles.as_ptr(), channels.as_ptr(), ends.start, groups, ends.end) };
    }
    #[cfg(not(scalar))]
    super::reference::winograd_multiply(products, tiles, channels);
}

/// Writes the sums of points with `groups` pairs each, at least one, until `end`.
///
/// A pair has 16 products and takes 48 instructions, 16 of which are loads; two pairs 3 for the loop.
#[cfg(riscv)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_points(
    tiles: *const Pair,
    channels: *const Pair,
    products: *mut Products,
    groups: usize,
    end: *mut Products,
) {
    core::arch::naked_asm!(
        // The assembler of a naked function does not know the target's extensions.
        ".option push",
        ".option arch, +m",
        // What both tiles and both output channels have of an input channel at `at`.
        ".macro waft_lane at",
        "lh t0, \\at(a0)",
        "lh t2, \\at(a1)",
        "lh t3, 8+\\at(a1)",
        "lh t1, 8+\\at(a0)",
        "mul t4, t0, t2",
        "mul t0, t0, t3",
        "mul t2, t1, t2",
        "mul t1, t1, t3",
        "add a5, a5, t4",
        "add a6, a6, t0",
        "add a7, a7, t2",
        "add t6, t6, t1",
        ".endm",
        ".macro waft_pair at",
        "waft_lane \\at",
        "waft_lane 2+\\at",
        "waft_lane 4+\\at",
        "waft_lane 6+\\at",
        ".endm",
        "slli a3, a3, 4",
        "0:",
        // Where all pairs end; an odd one comes first.
        "add t5, a0, a3",
        "andi t0, a3, 16",
        "li a5, 0",
        "li a6, 0",
        "li a7, 0",
        "li t6, 0",
        "beqz t0, 1f",
        "waft_pair 0",
        "addi a0, a0, 16",
        "addi a1, a1, 16",
        "beq a0, t5, 2f",
        "1:",
        "waft_pair 0",
        "waft_pair 16",
        "addi a0, a0, 32",
        "addi a1, a1, 32",
        "bne a0, t5, 1b",
        "2:",
        "sw a5, 0(a2)",
        "sw a6, 4(a2)",
        "sw a7, 8(a2)",
        "sw t6, 12(a2)",
        "addi a2, a2, 16",
        "bne a2, a4, 0b",
        "ret",
        ".purgem waft_pair",
        ".purgem waft_lane",
        ".option pop",
    )
}

/// Writes the sums of points with `groups` pairs each, at least one, until `end`.
///
/// A pair has 16 products and takes 32 instructions, 16 of which are loads; two pairs 4 for the loop.
#[cfg(armv7m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_points(
    tiles: *const Pair,
    channels: *const Pair,
    products: *mut Products,
    groups: usize,
    end: *mut Products,
) {
    core::arch::naked_asm!(
        // What both tiles and both output channels have of an input channel at `at`.
        ".macro waft_lane at",
        "ldrsh r8, [r0, #\\at]",
        "ldrsh r9, [r0, #8+\\at]",
        "ldrsh r10, [r1, #\\at]",
        "ldrsh r11, [r1, #8+\\at]",
        "mla r4, r8, r10, r4",
        "mla r5, r8, r11, r5",
        "mla r6, r9, r10, r6",
        "mla r7, r9, r11, r7",
        ".endm",
        ".macro waft_pair at",
        "waft_lane \\at",
        "waft_lane 2+\\at",
        "waft_lane 4+\\at",
        "waft_lane 6+\\at",
        ".endm",
        "push {{r4-r11, lr}}",
        "ldr r12, [sp, #36]",
        "lsls r3, r3, #4",
        "0:",
        // Where all pairs end; an odd one comes first.
        "add lr, r0, r3",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        "tst r3, #16",
        "beq 1f",
        "waft_pair 0",
        "adds r0, #16",
        "adds r1, #16",
        "cmp r0, lr",
        "beq 2f",
        "1:",
        "waft_pair 0",
        "waft_pair 16",
        "adds r0, #32",
        "adds r1, #32",
        "cmp r0, lr",
        "bne 1b",
        "2:",
        "stmia r2!, {{r4-r7}}",
        "cmp r2, r12",
        "bne 0b",
        "pop {{r4-r11, pc}}",
        ".purgem waft_pair",
        ".purgem waft_lane",
    )
}

/// Writes the sums of points with `groups` pairs each, at least one, until `end`.
///
/// A pair has 16 products and takes 56 instructions, 16 of which are loads, and 3 for the loop; sums lie in the high registers.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_points(
    tiles: *const Pair,
    channels: *const Pair,
    products: *mut Products,
    groups: usize,
    end: *mut Products,
) {
    core::arch::naked_asm!(
        // What both tiles and both output channels have of the input channel that r7 bytes lead to.
        ".macro waft_lane",
        "ldrsh r4, [r0, r7]",
        "ldrsh r5, [r2, r7]",
        "mov r6, r4",
        "muls r6, r5, r6",
        "add r8, r6",
        "ldrsh r6, [r3, r7]",
        "muls r4, r6, r4",
        "add r9, r4",
        "ldrsh r4, [r1, r7]",
        "muls r5, r4, r5",
        "add r10, r5",
        "muls r6, r4, r6",
        "add r11, r6",
        ".endm",
        "push {{r2-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        // On the stack: what is saved, products, groups, more of what is saved, and the products' end.
        "lsls r4, r3, #4",
        "mov r12, r4",
        "mov lr, r4",
        "mov r3, r1",
        "adds r3, #8",
        "mov r2, r1",
        "mov r1, r0",
        "adds r1, #8",
        "movs r7, #0",
        "0:",
        "movs r4, #0",
        "mov r8, r4",
        "mov r9, r4",
        "mov r10, r4",
        "mov r11, r4",
        "1:",
        "waft_lane",
        "adds r7, #2",
        "waft_lane",
        "adds r7, #2",
        "waft_lane",
        "adds r7, #2",
        "waft_lane",
        "adds r7, #10",
        "cmp r7, r12",
        "bne 1b",
        "add r12, lr",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r8, r6",
        "ldr r6, [sp, #16]",
        "stmia r6!, {{r4, r5}}",
        "mov r4, r8",
        "mov r5, r11",
        "stmia r6!, {{r4, r5}}",
        "str r6, [sp, #16]",
        "ldr r4, [sp, #44]",
        "cmp r6, r4",
        "bne 0b",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r2-r7, pc}}",
        ".purgem waft_lane",
    )
}
