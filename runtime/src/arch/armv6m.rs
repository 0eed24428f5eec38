//! Armv6-M: eight registers that instructions reach, products of 32 bits. Sums lie in the high registers, to which a product
//! can be added.
//!
//! A word of patches holds two pixels at one tap, `W = (a₀ + 2¹⁵) + 2¹⁶·a₁`: `W >> 16` is `a₁` in one instruction, and what `W`
//! itself gives times the weights is `Σa₀·w + 2¹⁵·Σw + 2¹⁶·Σa₁·w` modulo 2³², of which the other two are known. So two
//! products take five instructions, where halves brought apart would take six.

use super::PIXELS;
use super::patches::{Finish, GROUP, Group, Patches, Window, rows};
use crate::fixed::HighWord;
#[cfg(armv6m)]
use crate::fixed::RESIDUAL_BITS;

/// See [`reference::patches_i8`](super::reference::patches_i8).
#[inline(always)]
pub(crate) fn patches_i8() -> Patches<i8> {
    Patches { unfold: unfold_bytes, multiply, taps: GROUP }
}

/// See [`reference::patches_i16`](super::reference::patches_i16).
#[inline(always)]
pub(crate) fn patches_i16() -> Patches<i16> {
    Patches { unfold: unfold_halves, multiply, taps: GROUP }
}

/// The four pixels at one tap: the first and third of them with their highest bit changed, which adds 2¹⁵ modulo 2¹⁶.
type Tap = [i16; PIXELS];

/// Unfolds a window of a ring of 8 bits.
#[inline(never)]
fn unfold_bytes(patches: &mut [Group], window: &Window<'_, i8>) {
    unfold(patches, window, |taps, runs, bytes| {
        #[cfg(armv6m)]
        // SAFETY: there are as many taps as a run has bytes, one at least.
        unsafe {
            unfold_run_of_bytes(taps.as_mut_ptr(), runs, bytes);
        }
        #[cfg(not(armv6m))]
        unfold_run(taps, runs, bytes);
    });
}

/// The same of 16 bits.
#[inline(never)]
fn unfold_halves(patches: &mut [Group], window: &Window<'_, i16>) {
    unfold(patches, window, |taps, runs, bytes| {
        #[cfg(armv6m)]
        // SAFETY: there are as many taps as a run has elements, one at least.
        unsafe {
            unfold_run_of_halves(taps.as_mut_ptr(), runs, bytes);
        }
        #[cfg(not(armv6m))]
        unfold_run(taps, runs, bytes);
    });
}

/// Where a row of the kernel covers the ring at each pixel: pointers for instructions, else the runs themselves.
#[cfg(armv6m)]
type Runs<'a, T> = [*const T; PIXELS];
#[cfg(not(armv6m))]
type Runs<'a, T> = [&'a [T]; PIXELS];

/// Unfolds a window row by row of the kernel: taps, runs, and the bytes of each.
#[inline(always)]
fn unfold<'a, T>(patches: &mut [Group], window: &Window<'a, T>, unfold_run: impl Fn(&mut [Tap], &Runs<'a, T>, usize)) {
    let Window { ring, rows, pixels, run } = *window;
    for (row, taps) in rows.iter().zip(patches.as_flattened_mut().chunks_exact_mut(run.max(1))) {
        let runs = pixels.map(|pixel| ring.get(row + pixel..row + pixel + run).unwrap_or_default());
        if run > 0 && runs.iter().all(|found| found.len() == run) {
            #[cfg(armv6m)]
            let runs = runs.map(<[T]>::as_ptr);
            unfold_run(taps, &runs, run * size_of::<T>());
        }
    }
}

/// What the instructions do.
#[cfg(not(armv6m))]
fn unfold_run<T: Copy + Into<i16>>(taps: &mut [Tap], runs: &Runs<'_, T>, _bytes: usize) {
    for (at, tap) in taps.iter_mut().enumerate() {
        let [a, b, c, d] = runs.map(|run| run[at].into());
        *tap = [a ^ i16::MIN, b, c ^ i16::MIN, d];
    }
}

/// A function that unfolds a row of the kernel of so many bytes, which are not none: how an element is loaded, and its bytes.
///
/// A tap takes 15 instructions.
#[cfg(armv6m)]
macro_rules! unfold_run {
    ($name:ident, $element:ty, $load:literal, $bytes:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(taps: *mut Tap, runs: &Runs<'_, $element>, bytes: usize) {
            core::arch::naked_asm!(
                "push {{r4-r7, lr}}",
                "mov r4, r8",
                "push {{r4}}",
                "mov r12, r2",
                "movs r4, #1",
                "lsls r4, r4, #15",
                "mov r8, r4",
                "ldmia r1!, {{r2-r5}}",
                "mov r1, r2",
                "mov r2, r3",
                "mov r3, r4",
                "mov r4, r5",
                "movs r5, #0",
                "2:",
                concat!($load, " r6, [r1, r5]"),
                concat!($load, " r7, [r2, r5]"),
                "lsls r7, r7, #16",
                "adds r6, r6, r7",
                "add r6, r8",
                "stmia r0!, {{r6}}",
                concat!($load, " r6, [r3, r5]"),
                concat!($load, " r7, [r4, r5]"),
                "lsls r7, r7, #16",
                "adds r6, r6, r7",
                "add r6, r8",
                "stmia r0!, {{r6}}",
                concat!("adds r5, #", $bytes),
                "cmp r5, r12",
                "bne 2b",
                "pop {{r4}}",
                "mov r8, r4",
                "pop {{r4-r7, pc}}",
            )
        }
    };
}
#[cfg(armv6m)]
unfold_run!(unfold_run_of_bytes, i8, "ldrsb", "1");
#[cfg(armv6m)]
unfold_run!(unfold_run_of_halves, i16, "ldrsh", "2");

/// See [`reference::dot_patches`](super::reference::dot_patches).
#[inline(never)]
fn multiply(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    let patches: &[Tap] = patches.as_flattened();
    let aligned = stride.is_multiple_of(GROUP) && weights.as_ptr().addr().is_multiple_of(4);
    let whole = if aligned { (taps - taps % GROUP).min(patches.len()) } else { 0 };
    for (sums, weights) in sums.iter_mut().zip(rows(weights, taps, stride)) {
        *sums = [0; PIXELS];
        if whole > 0 {
            multiply_taps(sums, patches, weights, whole);
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
    for (&[a, b, c, d], &weight) in taps.iter().zip(weights) {
        let weight = i32::from(weight);
        sum_a = sum_a.wrapping_add(i32::from(a ^ i16::MIN).wrapping_mul(weight));
        sum_b = sum_b.wrapping_add(i32::from(b).wrapping_mul(weight));
        sum_c = sum_c.wrapping_add(i32::from(c ^ i16::MIN).wrapping_mul(weight));
        sum_d = sum_d.wrapping_add(i32::from(d).wrapping_mul(weight));
    }
    *sums = [sum_a, sum_b, sum_c, sum_d];
}

/// The sums over the first taps, of which there are whole groups, one at least; weights begin at a word's address.
#[inline(always)]
fn multiply_taps(sums: &mut [i32; PIXELS], patches: &[Tap], weights: &[i8], taps: usize) {
    #[cfg(armv6m)]
    // SAFETY: there are `taps` of both, whole groups, and the loop ends behind the last; weights are aligned.
    unsafe {
        multiply_groups(patches.as_ptr(), weights.as_ptr().cast(), patches.as_ptr().add(taps), sums);
    }
    #[cfg(not(armv6m))]
    {
        let (mut words, mut highs, mut all) = ([0i32; 2], [0i32; 2], 0i32);
        for (&[a, b, c, d], &weight) in patches.iter().zip(weights).take(taps) {
            let weight = i32::from(weight);
            all = all.wrapping_add(weight);
            for (pair, (low, high)) in [(a, b), (c, d)].into_iter().enumerate() {
                let word = i32::from(low as u16) | i32::from(high) << 16;
                words[pair] = words[pair].wrapping_add(word.wrapping_mul(weight));
                highs[pair] = highs[pair].wrapping_add((word >> 16).wrapping_mul(weight));
            }
        }
        let low = |pair: usize| words[pair].wrapping_sub(highs[pair] << 16).wrapping_sub(all << 15);
        *sums = [low(0), highs[0], low(1), highs[1]];
    }
}

/// Writes the sums of products from `patches` to `end`, which is not where they begin; weights are aligned to words.
///
/// A group has 16 products and takes 57 instructions: 40 for products and sums, 4 loads of activations, 7 that load and spread
/// weights, 4 that add them up, 2 for the loop.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_groups(
    patches: *const Tap,
    weights: *const [i8; GROUP],
    end: *const Tap,
    sums: *mut [i32; PIXELS],
) {
    core::arch::naked_asm!(
        // A tap, whose weight is in r5.
        ".macro waft_tap",
        "ldmia r0!, {{r2, r3}}",
        "add r12, r5",
        "asrs r4, r2, #16",
        "muls r2, r5, r2",
        "add r8, r2",
        "muls r4, r5, r4",
        "add r9, r4",
        "asrs r4, r3, #16",
        "muls r3, r5, r3",
        "add r10, r3",
        "muls r4, r5, r4",
        "add r11, r4",
        ".endm",
        "push {{r3-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov lr, r2",
        "movs r2, #0",
        "mov r8, r2",
        "mov r9, r2",
        "mov r10, r2",
        "mov r11, r2",
        "mov r12, r2",
        "2:",
        "ldmia r1!, {{r6}}",
        "sxtb r5, r6",
        "waft_tap",
        "asrs r6, r6, #8",
        "sxtb r5, r6",
        "waft_tap",
        "asrs r6, r6, #8",
        "sxtb r5, r6",
        "waft_tap",
        "asrs r5, r6, #8",
        "waft_tap",
        "cmp r0, lr",
        "bne 2b",
        // What the words gave, less what is not the lower pixel's.
        "mov r3, r12",
        "lsls r3, r3, #15",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "subs r4, r4, r3",
        "subs r6, r6, r3",
        "lsls r3, r5, #16",
        "subs r4, r4, r3",
        "lsls r3, r7, #16",
        "subs r6, r6, r3",
        "ldr r0, [sp, #16]",
        "stmia r0!, {{r4-r7}}",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r3-r7, pc}}",
        ".purgem waft_tap",
    )
}

/// See [`reference::scale_each`](super::reference::scale_each).
#[inline(always)]
pub(crate) fn scale_each(values: &mut [i32], high: HighWord) {
    #[cfg(armv6m)]
    if !values.is_empty() {
        let (multiplier, right) = high.parts();
        let ends = values.as_mut_ptr_range();
        // SAFETY: the values between both ends are this function's own, and there is one.
        unsafe { scale_words(ends.start, ends.end, multiplier, right) };
    }
    #[cfg(not(armv6m))]
    super::reference::scale_each(values, high);
}

/// Multiplies the words from `values` to `end`, which is not where they begin, takes the high words, and shifts them right by 1
/// to 30 bits, rounded half up.
///
/// A word takes 22 instructions: 16 for the high word from products of halves.
#[cfg(armv6m)]
#[unsafe(naked)]
unsafe extern "C" fn scale_words(values: *mut i32, end: *mut i32, multiplier: i32, right: u32) {
    core::arch::naked_asm!(
        "push {{r4-r7, lr}}",
        "mov r4, r8",
        "push {{r4}}",
        "mov r12, r1",
        "uxth r5, r2",
        "asrs r6, r2, #16",
        "mov r7, r3",
        "subs r3, r3, #1",
        "movs r4, #1",
        "lsls r4, r3",
        "mov r8, r4",
        "2:",
        "ldr r1, [r0]",
        "uxth r2, r1",
        "asrs r1, r1, #16",
        "mov r3, r2",
        "muls r3, r5, r3",
        "lsrs r3, r3, #16",
        "mov r4, r1",
        "muls r4, r5, r4",
        "adds r3, r3, r4",
        "muls r2, r6, r2",
        "muls r1, r6, r1",
        "uxth r4, r3",
        "adds r2, r2, r4",
        "asrs r3, r3, #16",
        "asrs r2, r2, #16",
        "adds r1, r1, r3",
        "adds r1, r1, r2",
        "add r1, r8",
        "asrs r1, r7",
        "stmia r0!, {{r1}}",
        "cmp r0, r12",
        "bne 2b",
        "pop {{r4}}",
        "mov r8, r4",
        "pop {{r4-r7, pc}}",
    )
}

/// See [`reference::finish_i8`](super::reference::finish_i8).
#[inline(always)]
pub(crate) fn finish_i8(finish: Finish<'_>, output: &mut [i8], advance: usize, pixels: usize) -> usize {
    #[cfg(armv6m)]
    // SAFETY: what the call points at holds as many values and places as it says, one at least.
    return finish_by(finish, output, [advance, pixels], |call| unsafe { finish_bytes(call) });
    #[cfg(not(armv6m))]
    super::reference::finish_i8(finish, output, advance, pixels)
}

/// See [`reference::finish_i16`](super::reference::finish_i16).
#[inline(always)]
pub(crate) fn finish_i16(finish: Finish<'_>, output: &mut [i16], advance: usize, pixels: usize) -> usize {
    #[cfg(armv6m)]
    // SAFETY: what the call points at holds as many values and places as it says, one at least.
    return finish_by(finish, output, [advance, pixels], |call| unsafe { finish_halves(call) });
    #[cfg(not(armv6m))]
    super::reference::finish_i16(finish, output, advance, pixels)
}

/// What instructions are told, and where they keep how far they are.
#[cfg(armv6m)]
#[repr(C)]
struct Call<T> {
    accumulators: *const [i32; PIXELS],
    bias: *const i32,
    requant: *const [i32; 2],
    /// None is null.
    kept: *const [i32; PIXELS],
    output: *mut T,
    channels: usize,
    /// Bytes of a channel's accumulators that are used.
    used: usize,
    zero: i32,
    /// Bytes from a pixel's results to the next one's.
    advance: usize,
    /// What a product of a shift of 0 is shifted right by.
    right: i32,
}

/// Finishes channels by instructions that return how many they left.
#[cfg(armv6m)]
#[inline(never)]
fn finish_by<T>(
    finish: Finish<'_>,
    output: &mut [T],
    [advance, pixels]: [usize; 2],
    instructions: impl Fn(&mut Call<T>) -> usize,
) -> usize {
    let Finish { accumulators, bias, requant, kept, zero } = finish;
    let channels = accumulators.len().min(bias.len()).min(requant.len());
    let channels = kept.map_or(channels, |kept| channels.min(kept.len()));
    let pixels = pixels.min(PIXELS);
    // The last place is that of the last pixel's last channel.
    if channels == 0 || pixels == 0 || (pixels - 1) * advance + channels > output.len() {
        return 0;
    }
    let mut call = Call {
        accumulators: accumulators.as_ptr(),
        bias: bias.as_ptr(),
        requant: requant.as_ptr(),
        kept: kept.map_or(core::ptr::null(), <[_]>::as_ptr),
        output: output.as_mut_ptr(),
        channels,
        used: pixels * size_of::<i32>(),
        zero,
        advance: advance * size_of::<T>(),
        right: 31 - if kept.is_some() { RESIDUAL_BITS as i32 } else { 0 },
    };
    channels - instructions(&mut call)
}

/// A function that finishes what a [`Call`] has, and returns how many channels it left: how a word is cut to the results' type,
/// what is left of 2³² − 1 as their largest value, how they are stored, and their bytes.
///
/// A result takes 33 instructions, 49 with a residual: 16 for the high word from products of halves. A channel takes 45 more.
#[cfg(armv6m)]
macro_rules! finish {
    ($name:ident, $element:ty, $cut:literal, $largest:literal, $store:literal, $bytes:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(call: *mut Call<$element>) -> usize {
            core::arch::naked_asm!(
                "push {{r4-r7, lr}}",
                "mov r4, r8",
                "mov r5, r9",
                "mov r6, r10",
                "mov r7, r11",
                "push {{r4-r7}}",
                // On the stack: right and left shifts, where values end, the call.
                "sub sp, #16",
                "str r0, [sp, #12]",
                "ldr r1, [r0, #28]",
                "mov r11, r1",
                "ldr r1, [r0, #32]",
                "mov r12, r1",
                "1:",
                "ldr r7, [sp, #12]",
                "ldr r1, [r7, #4]",
                "ldmia r1!, {{r2}}",
                "str r1, [r7, #4]",
                "mov r9, r2",
                "ldr r1, [r7, #8]",
                "ldmia r1!, {{r2, r3}}",
                "str r1, [r7, #8]",
                "uxth r5, r2",
                "asrs r6, r2, #16",
                // A right shift of 2 to 62; those of less than 33 become one of 33 by a left one.
                "ldr r4, [r7, #36]",
                "subs r4, r4, r3",
                "subs r4, #2",
                "cmp r4, #60",
                "bhi 8f",
                "movs r2, #1",
                "movs r1, #31",
                "subs r1, r1, r4",
                "bgt 2f",
                "subs r2, r2, r1",
                "movs r1, #0",
                "2:",
                "str r2, [sp]",
                "str r1, [sp, #4]",
                "movs r3, #1",
                "subs r2, #1",
                "lsls r3, r2",
                "mov r8, r3",
                "ldr r3, [r7, #12]",
                "mov r10, r3",
                "cmp r3, #0",
                "beq 3f",
                "adds r3, #16",
                "str r3, [r7, #12]",
                "3:",
                "ldr r0, [r7, #0]",
                "ldr r1, [r7, #24]",
                "adds r1, r1, r0",
                "str r1, [sp, #8]",
                "ldr r2, [r7, #16]",
                concat!("adds r3, r2, #", $bytes),
                "str r3, [r7, #16]",
                "mov r7, r2",
                "4:",
                "ldmia r0!, {{r1}}",
                "add r1, r9",
                "ldr r2, [sp, #4]",
                "cmp r2, #0",
                "beq 5f",
                "mov r3, r1",
                "lsls r1, r2",
                "mov r4, r1",
                "asrs r4, r2",
                "cmp r4, r3",
                "bne 7f",
                "5:",
                "uxth r2, r1",
                "asrs r1, r1, #16",
                "mov r3, r2",
                "muls r3, r5, r3",
                "lsrs r3, r3, #16",
                "mov r4, r1",
                "muls r4, r5, r4",
                "adds r3, r3, r4",
                "muls r2, r6, r2",
                "muls r1, r6, r1",
                "uxth r4, r3",
                "adds r2, r2, r4",
                "asrs r3, r3, #16",
                "asrs r2, r2, #16",
                "adds r1, r1, r3",
                "adds r1, r1, r2",
                "add r1, r8",
                "ldr r2, [sp]",
                "asrs r1, r2",
                "mov r3, r10",
                "cmp r3, #0",
                "beq 6f",
                // The residual: high and low bits apart, as the sum may have 33.
                "ldmia r3!, {{r2}}",
                "mov r10, r3",
                "asrs r3, r1, #8",
                "asrs r4, r2, #8",
                "uxtb r1, r1",
                "uxtb r2, r2",
                "adds r1, r1, r2",
                "adds r1, #128",
                "lsrs r1, r1, #8",
                "adds r1, r1, r3",
                "adds r1, r1, r4",
                "6:",
                "add r1, r11",
                concat!($cut, " r2, r1"),
                "cmp r2, r1",
                "beq 9f",
                "asrs r1, r1, #31",
                "movs r2, #0",
                "mvns r2, r2",
                concat!("lsrs r2, r2, #", $largest),
                "eors r1, r2",
                "9:",
                concat!($store, " r1, [r7]"),
                "add r7, r12",
                "ldr r2, [sp, #8]",
                "cmp r0, r2",
                "bne 4b",
                "ldr r7, [sp, #12]",
                "ldr r0, [r7, #0]",
                "adds r0, #16",
                "str r0, [r7, #0]",
                "ldr r0, [r7, #20]",
                "subs r0, #1",
                "str r0, [r7, #20]",
                "bne 1b",
                "b 8f",
                "7:",
                "ldr r7, [sp, #12]",
                "8:",
                "ldr r0, [r7, #20]",
                "add sp, #16",
                "pop {{r4-r7}}",
                "mov r8, r4",
                "mov r9, r5",
                "mov r10, r6",
                "mov r11, r7",
                "pop {{r4-r7, pc}}",
            )
        }
    };
}
#[cfg(armv6m)]
finish!(finish_bytes, i8, "sxtb", "25", "strb", "1");
#[cfg(armv6m)]
finish!(finish_halves, i16, "sxth", "17", "strh", "2");
