//! Armv6-M: eight registers that instructions reach, products of 32 bits. Sums lie in the high registers, to which a product
//! can be added.
//!
//! A word of patches holds two pixels at one tap, `W = (a₀ + 2¹⁵) + 2¹⁶·a₁`: `W >> 16` is `a₁` in one instruction, and what `W`
//! itself gives times the weights is `Σa₀·w + 2¹⁵·Σw + 2¹⁶·Σa₁·w` modulo 2³², of which the other two are known. So two
//! products take five instructions, where halves brought apart would take six. Pixels at the ends of a map's rows are the upper
//! ones, whose three instructions are left out where they are idle.

mod dots;
mod results;
mod unfold;

#[cfg(feature = "attention")]
pub(crate) use self::dots::weighted4_i8;
pub(crate) use self::dots::{dot4_i8, dot4_i16};
pub(crate) use self::results::{finish_i8, finish_i16, scale_each};
use self::unfold::{unfold_bytes, unfold_halves};
use super::PIXELS;
use super::patches::{GROUP, Group, Idle, Patches, rows};

/// See [`reference::patches_i8`](super::reference::patches_i8).
#[inline(always)]
pub(crate) fn patches_i8() -> Patches<i8> {
    Patches { unfold: unfold_bytes, multiply, edges: multiply_edges, taps: GROUP }
}

/// See [`reference::patches_i16`](super::reference::patches_i16).
#[inline(always)]
pub(crate) fn patches_i16() -> Patches<i16> {
    Patches { unfold: unfold_halves, multiply, edges: multiply_edges, taps: GROUP }
}

/// The four pixels at one tap, the second, first, third and fourth: the second and third of them with their highest bit changed,
/// which adds 2¹⁵ modulo 2¹⁶.
type Tap = [i16; PIXELS];

/// See [`reference::dot_patches`](super::reference::dot_patches).
fn multiply(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    multiply_edges(sums, patches, weights, taps, stride, Idle::default());
}

/// The same where a pixel may be idle.
#[inline(never)]
fn multiply_edges(
    sums: &mut [[i32; PIXELS]],
    patches: &[Group],
    weights: &[i8],
    taps: usize,
    stride: usize,
    idle: Idle,
) {
    let patches: &[Tap] = patches.as_flattened();
    let aligned = stride.is_multiple_of(GROUP) && weights.as_ptr().addr().is_multiple_of(4);
    let whole = if aligned { (taps - taps % GROUP).min(patches.len()) } else { 0 };
    let parts = idle.groups(whole / GROUP);
    #[cfg(armv6m)]
    let parts =
        Rows { bytes: parts.map(|groups| groups * size_of::<Group>()), end: patches.as_ptr().wrapping_add(whole) };
    for (sums, weights) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        if whole > 0 {
            // SAFETY: there are `whole` taps of both, rows of whole groups; weights are aligned.
            #[cfg(armv6m)]
            unsafe {
                multiply_groups(patches.as_ptr(), weights.as_ptr().cast(), &parts, sums);
            }
            #[cfg(not(armv6m))]
            multiply_taps(sums, patches, weights, whole, parts);
        } else {
            *sums = [0; PIXELS];
        }
        let rest = weights.get(whole..).unwrap_or_default();
        if !rest.is_empty() {
            add_taps(sums, patches.get(whole..).unwrap_or_default(), rest);
        }
    }
}

/// Adds the products of taps one by one.
// Sums have names: where code is to be small, the compiler keeps an array in memory.
#[inline(never)]
fn add_taps(sums: &mut [i32; PIXELS], taps: &[Tap], weights: &[i8]) {
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = *sums;
    for (&[b, a, c, d], &weight) in taps.iter().zip(weights) {
        let weight = i32::from(weight);
        sum_a = sum_a.wrapping_add(i32::from(a).wrapping_mul(weight));
        sum_b = sum_b.wrapping_add(i32::from(b ^ i16::MIN).wrapping_mul(weight));
        sum_c = sum_c.wrapping_add(i32::from(c ^ i16::MIN).wrapping_mul(weight));
        sum_d = sum_d.wrapping_add(i32::from(d).wrapping_mul(weight));
    }
    *sums = [sum_a, sum_b, sum_c, sum_d];
}

/// What the instructions do: the sums over the first taps, of which there are whole groups, one at least, and rows of so many
/// groups where the first pixel is idle, none, and the last.
#[cfg(not(armv6m))]
fn multiply_taps(sums: &mut [i32; PIXELS], patches: &[Tap], weights: &[i8], taps: usize, parts: [usize; 3]) {
    let (mut words, mut highs, mut all) = ([0i32; 2], [0i32; 2], 0i32);
    let [first, middle, last] = parts.map(|groups| groups * GROUP);
    for (at, (&[b, a, c, d], &weight)) in patches.iter().zip(weights).take(taps).enumerate() {
        let weight = i32::from(weight);
        let of_row = at % (first + middle + last);
        all = all.wrapping_add(weight);
        let idle = [of_row < first, of_row >= first + middle];
        for (pair, (low, high)) in [(b, a), (c, d)].into_iter().enumerate() {
            let word = i32::from(low as u16) | i32::from(high) << 16;
            words[pair] = words[pair].wrapping_add(word.wrapping_mul(weight));
            if !idle[pair] {
                highs[pair] = highs[pair].wrapping_add((word >> 16).wrapping_mul(weight));
            }
        }
    }
    let low = |pair: usize| words[pair].wrapping_sub(highs[pair] << 16).wrapping_sub(all << 15);
    *sums = [highs[0], low(0), low(1), highs[1]];
}

/// What all channels have in common.
#[cfg(armv6m)]
#[repr(C)]
struct Rows {
    /// Of a row of the kernel: where the first pixel, none, and the last is idle.
    bytes: [usize; 3],
    /// Where patches end.
    end: *const Tap,
}

/// Writes the sums of products from `patches` to the end of whole rows, which is not where they begin; weights are aligned to words.
///
/// A group has 16 products and takes 57 instructions: 40 for products and sums, 4 loads of activations, 7 that load and spread
/// weights, 4 that add them up, 2 for the loop. It takes 45 where a pixel is idle.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_groups(
    patches: *const Tap,
    weights: *const [i8; GROUP],
    rows: &Rows,
    sums: *mut [i32; PIXELS],
) {
    core::arch::naked_asm!(
        // Two pixels at a tap, whose weight is in r5; the upper one may have none.
        ".macro waft_pair word, low, high, has",
        ".if \\has",
        "asrs r4, \\word, #16",
        "muls r4, r5, r4",
        "add \\high, r4",
        ".endif",
        "muls \\word, r5, \\word",
        "add \\low, \\word",
        ".endm",
        ".macro waft_tap first, last",
        "ldmia r0!, {{r2, r3}}",
        "add r12, r5",
        "waft_pair r2, r8, r9, \\first",
        "waft_pair r3, r10, r11, \\last",
        ".endm",
        // As many groups as the word at `bytes` says.
        ".macro waft_groups bytes, first, last",
        "ldr r2, [sp, #16]",
        "ldr r3, [r2, #\\bytes]",
        "cmp r3, #0",
        "beq 3f",
        "adds r3, r3, r0",
        "mov lr, r3",
        "2:",
        "ldmia r1!, {{r6}}",
        "sxtb r5, r6",
        "waft_tap \\first, \\last",
        "asrs r6, r6, #8",
        "sxtb r5, r6",
        "waft_tap \\first, \\last",
        "asrs r6, r6, #8",
        "sxtb r5, r6",
        "waft_tap \\first, \\last",
        "asrs r5, r6, #8",
        "waft_tap \\first, \\last",
        "cmp r0, lr",
        "bne 2b",
        "3:",
        ".endm",
        "push {{r2-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "movs r2, #0",
        "mov r8, r2",
        "mov r9, r2",
        "mov r10, r2",
        "mov r11, r2",
        "mov r12, r2",
        "1:",
        "waft_groups 0, 0, 1",
        "waft_groups 4, 1, 1",
        "waft_groups 8, 1, 0",
        "ldr r2, [sp, #16]",
        "ldr r3, [r2, #12]",
        "cmp r0, r3",
        "beq 4f",
        "b 1b",
        "4:",
        // What the words gave, less what is not the lower pixel's.
        "mov r3, r12",
        "lsls r3, r3, #15",
        "mov r4, r9",
        "mov r5, r8",
        "mov r6, r10",
        "mov r7, r11",
        "subs r5, r5, r3",
        "subs r6, r6, r3",
        "lsls r3, r4, #16",
        "subs r5, r5, r3",
        "lsls r3, r7, #16",
        "subs r6, r6, r3",
        "ldr r0, [sp, #20]",
        "stmia r0!, {{r4-r7}}",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r2-r7, pc}}",
        ".purgem waft_groups",
        ".purgem waft_tap",
        ".purgem waft_pair",
    )
}
