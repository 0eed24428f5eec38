//! From accumulators to results, and requantization of words.

#[cfg(armv6m)]
use crate::arch::PIXELS;
use crate::arch::patches::Finish;
use crate::fixed::HighWord;
#[cfg(armv6m)]
use crate::fixed::RESIDUAL_BITS;

/// In assembly: the high word of the product of r1 with the word whose low and high half are r5 and r6, and rounding in r8 added.
/// Changes r2 to r4.
#[cfg(armv6m)]
macro_rules! high_word {
    () => {
        concat!(
            "uxth r2, r1\n",
            "asrs r1, r1, #16\n",
            "mov r3, r2\n",
            "muls r3, r5, r3\n",
            "lsrs r3, r3, #16\n",
            "mov r4, r1\n",
            "muls r4, r5, r4\n",
            "adds r3, r3, r4\n",
            "muls r2, r6, r2\n",
            "muls r1, r6, r1\n",
            "uxth r4, r3\n",
            "adds r2, r2, r4\n",
            "asrs r3, r3, #16\n",
            "asrs r2, r2, #16\n",
            "adds r1, r1, r3\n",
            "adds r1, r1, r2\n",
            "add r1, r8",
        )
    };
}

/// See [`reference::scale_each`](crate::arch::reference::scale_each).
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
    crate::arch::reference::scale_each(values, high);
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
        high_word!(),
        "asrs r1, r7",
        "stmia r0!, {{r1}}",
        "cmp r0, r12",
        "bne 2b",
        "pop {{r4}}",
        "mov r8, r4",
        "pop {{r4-r7, pc}}",
    )
}

/// See [`reference::finish_i8`](crate::arch::reference::finish_i8).
#[inline(always)]
pub(crate) fn finish_i8(finish: Finish<'_>, output: &mut [i8], advance: usize, pixels: usize) -> usize {
    #[cfg(armv6m)]
    // SAFETY: what the call points at holds as many values and places as it says, one at least.
    return finish_by(finish, output, [advance, pixels], |call| unsafe { finish_bytes(call) });
    #[cfg(not(armv6m))]
    crate::arch::reference::finish_i8(finish, output, advance, pixels)
}

/// See [`reference::finish_i16`](crate::arch::reference::finish_i16).
#[inline(always)]
pub(crate) fn finish_i16(finish: Finish<'_>, output: &mut [i16], advance: usize, pixels: usize) -> usize {
    #[cfg(armv6m)]
    // SAFETY: what the call points at holds as many values and places as it says, one at least.
    return finish_by(finish, output, [advance, pixels], |call| unsafe { finish_halves(call) });
    #[cfg(not(armv6m))]
    crate::arch::reference::finish_i16(finish, output, advance, pixels)
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
/// A result takes 36 instructions, 53 with a residual: 16 for the high word from products of halves. A channel takes 48 more.
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
                high_word!(),
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
