//! RISC-V without vectors: 31 registers hold the sums of four output channels at four pixels, so that each activation and
//! each weight is loaded once for four products. A product and its sum are two instructions; loads add a half.

use super::blocks;
use super::patches::{Group, Idle};
use super::{PIXELS, QUAD};

/// See [`reference::dot_patches`](super::reference::dot_patches).
#[inline]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    dot_edges(sums, patches, weights, taps, stride, Idle::default());
}

/// The same where a pixel may be idle.
pub(crate) fn dot_edges(
    sums: &mut [[i32; PIXELS]],
    patches: &[Group],
    weights: &[i8],
    taps: usize,
    stride: usize,
    idle: Idle,
) {
    blocks::dot_blocks(sums, patches, weights, [taps, stride], |sums, rows| {
        dot_quads(sums, patches, weights, rows, idle);
    });
}

/// The sums of fours of channels, at least one, over groups that are all there, at least one.
#[inline(always)]
fn dot_quads(
    sums: &mut [[[i32; PIXELS]; QUAD]],
    patches: &[Group],
    weights: &[i8],
    [groups, stride]: [usize; 2],
    idle: Idle,
) {
    #[cfg(riscv)]
    {
        let mut call = blocks::Call::new(sums, patches, weights, [groups, stride], idle);
        // SAFETY: there are so many groups in patches and in each of four rows of weights that are `stride` apart, for as many sums; of rows
        // of the kernel, whose groups `bytes` counts, there is a whole number.
        unsafe { multiply_quads(&mut call) };
    }
    #[cfg(not(riscv))]
    for (channel, sums) in sums.as_flattened_mut().iter_mut().enumerate() {
        let row = weights.get(channel * stride..channel * stride + groups * super::patches::GROUP).unwrap_or_default();
        super::patches::sum_groups(sums, patches, row, idle);
    }
}

/// Writes the sums of fours of rows of weights, `stride` apart, over the patches up to `end`, which is not where they begin.
///
/// A tap takes 40 instructions for 16 products: 4 loads of weights, 4 of activations, 16 products, 16 sums. It takes 31 where a
/// pixel is idle.
#[cfg(riscv)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_quads(call: &mut blocks::Call<QUAD>) {
    core::arch::naked_asm!(
        // The assembler of a naked function does not know the target's extensions.
        ".option push",
        ".option arch, +m",
        // One pixel's activation, which lies at `at`, times the four channels' weights.
        ".macro waft_pixel at, a, b, c, d",
        "lh a6, \\at(a0)",
        "mul a7, a6, t3",
        "add \\a, \\a, a7",
        "mul a7, a6, t4",
        "add \\b, \\b, a7",
        "mul a7, a6, t5",
        "add \\c, \\c, a7",
        "mul a7, a6, t6",
        "add \\d, \\d, a7",
        ".endm",
        // One tap: its weights, where its activations lie in the group, and whether the first and the last pixel have any.
        ".macro waft_tap tap, place, first, last",
        "lb t3, \\tap(a1)",
        "lb t4, \\tap(t0)",
        "lb t5, \\tap(t1)",
        "lb t6, \\tap(t2)",
        ".if \\first",
        "waft_pixel \\place, s0, s1, s2, s3",
        ".endif",
        "waft_pixel 8+\\place, s4, s5, s6, s7",
        "waft_pixel 16+\\place, s8, s9, s10, s11",
        ".if \\last",
        "waft_pixel 24+\\place, a2, a4, a5, ra",
        ".endif",
        ".endm",
        ".macro waft_move groups",
        "addi a0, a0, 32*\\groups",
        "addi a1, a1, 4*\\groups",
        "addi t0, t0, 4*\\groups",
        "addi t1, t1, 4*\\groups",
        "addi t2, t2, 4*\\groups",
        ".endm",
        ".macro waft_group group, first, last",
        "waft_tap 4*\\group, 32*\\group, \\first, \\last",
        "waft_tap 4*\\group+1, 32*\\group+4, \\first, \\last",
        "waft_tap 4*\\group+2, 32*\\group+2, \\first, \\last",
        "waft_tap 4*\\group+3, 32*\\group+6, \\first, \\last",
        ".endm",
        // As many groups as the word at `bytes` of the call says, two at a time; of an odd number the first is a second one.
        ".macro waft_groups bytes, first, last",
        "lw a3, 52(sp)",
        "lw a3, \\bytes(a3)",
        "beqz a3, 9f",
        "andi t3, a3, 32",
        "add a3, a3, a0",
        "beqz t3, 8f",
        "waft_move -1",
        "j 7f",
        "8:",
        "waft_group 0, \\first, \\last",
        "7:",
        "waft_group 1, \\first, \\last",
        "waft_move 2",
        "bne a0, a3, 8b",
        "9:",
        ".endm",
        "addi sp, sp, -64",
        "sw ra, 0(sp)",
        "sw s0, 4(sp)",
        "sw s1, 8(sp)",
        "sw s2, 12(sp)",
        "sw s3, 16(sp)",
        "sw s4, 20(sp)",
        "sw s5, 24(sp)",
        "sw s6, 28(sp)",
        "sw s7, 32(sp)",
        "sw s8, 36(sp)",
        "sw s9, 40(sp)",
        "sw s10, 44(sp)",
        "sw s11, 48(sp)",
        "sw a0, 52(sp)",
        "1:",
        "lw a1, 8(a0)",
        "lw a2, 12(a0)",
        "lw a0, 0(a0)",
        "add t0, a1, a2",
        "add t1, t0, a2",
        "add t2, t1, a2",
        "li s0, 0",
        "li s1, 0",
        "li s2, 0",
        "li s3, 0",
        "li s4, 0",
        "li s5, 0",
        "li s6, 0",
        "li s7, 0",
        "li s8, 0",
        "li s9, 0",
        "li s10, 0",
        "li s11, 0",
        "li a2, 0",
        "li a4, 0",
        "li a5, 0",
        "li ra, 0",
        "2:",
        "waft_groups 20, 0, 1",
        "waft_groups 24, 1, 1",
        "waft_groups 28, 1, 0",
        "lw a3, 52(sp)",
        "lw a3, 4(a3)",
        "bne a0, a3, 2b",
        "lw a0, 52(sp)",
        "lw a0, 16(a0)",
        "sw s0, 0(a0)",
        "sw s4, 4(a0)",
        "sw s8, 8(a0)",
        "sw a2, 12(a0)",
        "sw s1, 16(a0)",
        "sw s5, 20(a0)",
        "sw s9, 24(a0)",
        "sw a4, 28(a0)",
        "sw s2, 32(a0)",
        "sw s6, 36(a0)",
        "sw s10, 40(a0)",
        "sw a5, 44(a0)",
        "sw s3, 48(a0)",
        "sw s7, 52(a0)",
        "sw s11, 56(a0)",
        "sw ra, 60(a0)",
        "addi a1, a0, 64",
        // The next four: their sums and weights.
        "lw a0, 52(sp)",
        "sw a1, 16(a0)",
        "lw a2, 8(a0)",
        "lw a3, 12(a0)",
        "slli a3, a3, 2",
        "add a2, a2, a3",
        "sw a2, 8(a0)",
        "lw a2, 32(a0)",
        "bne a1, a2, 1b",
        "lw ra, 0(sp)",
        "lw s0, 4(sp)",
        "lw s1, 8(sp)",
        "lw s2, 12(sp)",
        "lw s3, 16(sp)",
        "lw s4, 20(sp)",
        "lw s5, 24(sp)",
        "lw s6, 28(sp)",
        "lw s7, 32(sp)",
        "lw s8, 36(sp)",
        "lw s9, 40(sp)",
        "lw s10, 44(sp)",
        "lw s11, 48(sp)",
        "addi sp, sp, 64",
        "ret",
        ".purgem waft_groups",
        ".purgem waft_group",
        ".purgem waft_move",
        ".purgem waft_tap",
        ".purgem waft_pixel",
        ".option pop",
    )
}
