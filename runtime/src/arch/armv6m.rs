//! Armv6-M: eight registers that instructions reach, products of 32 bits. Sums lie in the high registers, to which a product
//! can be added; a word of a patch holds two activations.

use super::patches::{GROUP, Group, rows};
use super::{PIXELS, reference};

/// See [`reference::dot_patches`].
#[inline]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let whole = taps.is_multiple_of(GROUP) && stride.is_multiple_of(GROUP);
    if !whole || taps == 0 || !weights.as_ptr().addr().is_multiple_of(4) {
        return reference::dot_patches(sums, patches, weights, taps, stride);
    }
    for (sums, weights) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        dot_channel(sums, patches, weights.as_chunks().0);
    }
}

/// The sums of one channel, whose weights begin at a word's address.
fn dot_channel(sums: &mut [i32; PIXELS], patches: &[Group], weights: &[[i8; GROUP]]) {
    let groups = patches.len().min(weights.len());
    *sums = [0; PIXELS];
    #[cfg(armv6m)]
    if groups > 0 {
        // SAFETY: there are `groups` of both, and the loop ends behind the last group of patches; weights are aligned.
        unsafe { multiply_groups(patches.as_ptr(), weights.as_ptr(), patches.as_ptr().add(groups), sums) };
    }
    #[cfg(not(armv6m))]
    for (group, &[a, b, c, d]) in patches.iter().zip(weights).take(groups) {
        for (sum, pixel) in sums.iter_mut().zip(group) {
            for (&activation, weight) in pixel.iter().zip([a, c, b, d]) {
                *sum = sum.wrapping_add(i32::from(activation).wrapping_mul(weight.into()));
            }
        }
    }
}

/// Writes the sums of products from `patches` to `end`, which is not where they begin; weights are aligned to words.
///
/// Two products of a pixel take 7 instructions: a load, two that bring the halves apart, two products, two sums. The weights of
/// a group are loaded at once and spread by 6.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_groups(
    patches: *const Group,
    weights: *const [i8; GROUP],
    end: *const Group,
    sums: *mut [i32; PIXELS],
) {
    core::arch::naked_asm!(
        // The activations of one pixel of a group.
        ".macro waft_pixel at, sum",
        "ldr r2, [r0, #\\at]",
        "sxth r3, r2",
        "muls r3, r4, r3",
        "add \\sum, r3",
        "asrs r2, r2, #16",
        "muls r2, r5, r2",
        "add \\sum, r2",
        "ldr r2, [r0, #4+\\at]",
        "sxth r3, r2",
        "muls r3, r6, r3",
        "add \\sum, r3",
        "asrs r2, r2, #16",
        "muls r2, r7, r2",
        "add \\sum, r2",
        ".endm",
        "push {{r3-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov r12, r2",
        "movs r2, #0",
        "mov r8, r2",
        "mov r9, r2",
        "mov r10, r2",
        "mov r11, r2",
        "2:",
        "ldmia r1!, {{r2}}",
        "sxtb r4, r2",
        "lsrs r3, r2, #8",
        "sxtb r6, r3",
        "lsrs r3, r2, #16",
        "sxtb r5, r3",
        "asrs r7, r2, #24",
        "waft_pixel 0, r8",
        "waft_pixel 8, r9",
        "waft_pixel 16, r10",
        "waft_pixel 24, r11",
        "adds r0, #32",
        "cmp r0, r12",
        "bne 2b",
        "ldr r0, [sp, #16]",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "stmia r0!, {{r4-r7}}",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r3-r7, pc}}",
        ".purgem waft_pixel",
    )
}
