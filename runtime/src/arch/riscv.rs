//! RISC-V without vectors: 31 registers hold the sums of four output channels at four pixels, so that each activation and
//! each weight is loaded once for four products. A product and its sum are two instructions; loads add a half.

#[cfg(not(riscv))]
use super::patches::rows;
use super::patches::{GROUP, Group};
use super::{PIXELS, QUAD, reference};

/// See [`reference::dot_patches`].
#[inline]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let mut blocks = weights.chunks((QUAD * stride).max(1));
    for sums in sums.chunks_mut(QUAD) {
        let weights = blocks.next().unwrap_or_default();
        let whole = sums.as_chunks_mut().0.first_mut();
        let quad = taps.is_multiple_of(GROUP) && weights.len() >= (QUAD - 1) * stride + taps;
        if let (Some(sums), true) = (whole, quad) {
            dot_quad(sums, patches, weights, taps, stride);
        } else {
            reference::dot_patches(sums, patches, weights, taps, stride);
        }
    }
}

/// The sums of four channels whose taps are a whole number of groups.
fn dot_quad(sums: &mut [[i32; PIXELS]; QUAD], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let groups = patches.len().min(taps / GROUP);
    if groups == 0 || weights.len() < (QUAD - 1) * stride + taps {
        *sums = [[0; PIXELS]; QUAD];
        return;
    }
    #[cfg(riscv)]
    // SAFETY: there are `groups` of patches and of weights in each of four rows that are `stride` apart; the loop ends behind
    // the last group of patches.
    unsafe {
        let patches = patches.as_ptr();
        multiply_quad(patches, weights.as_ptr(), stride, patches.add(groups), sums);
    }
    #[cfg(not(riscv))]
    for (sums, row) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        *sums = core::array::from_fn(|pixel| {
            let products = patches
                .iter()
                .zip(row.as_chunks::<GROUP>().0)
                .flat_map(|(group, &[a, b, c, d])| group[pixel].into_iter().zip([a, c, b, d]));
            products.fold(0, |sum: i32, (x, w)| sum.wrapping_add(i32::from(x).wrapping_mul(w.into())))
        });
    }
}

/// Writes the sums of four rows of weights, `stride` apart, over the patches up to `end`, which is not where they begin.
///
/// A tap takes 40 instructions for 16 products: 4 loads of weights, 4 of activations, 16 products, 16 sums.
#[cfg(riscv)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_quad(
    patches: *const Group,
    weights: *const i8,
    stride: usize,
    end: *const Group,
    sums: *mut [[i32; PIXELS]; QUAD],
) {
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
        // One tap: its weights, and where its activations lie in the group.
        ".macro waft_tap tap, place",
        "lb t3, \\tap(a1)",
        "lb t4, \\tap(t0)",
        "lb t5, \\tap(t1)",
        "lb t6, \\tap(t2)",
        "waft_pixel \\place, s0, s1, s2, s3",
        "waft_pixel 8+\\place, s4, s5, s6, s7",
        "waft_pixel 16+\\place, s8, s9, s10, s11",
        "waft_pixel 24+\\place, a2, a4, a5, ra",
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
        "sw a4, 52(sp)",
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
        "waft_tap 0, 0",
        "waft_tap 1, 4",
        "waft_tap 2, 2",
        "waft_tap 3, 6",
        "addi a0, a0, 32",
        "addi a1, a1, 4",
        "addi t0, t0, 4",
        "addi t1, t1, 4",
        "addi t2, t2, 4",
        "bne a0, a3, 2b",
        "lw a0, 52(sp)",
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
        ".purgem waft_tap",
        ".purgem waft_pixel",
        ".option pop",
    )
}
