//! A convolution at one pixel, as a dense layer is: three channels share the activations, which are those of a patch's first
//! pixel.

use core::mem::offset_of;

use super::call::Call;

/// Where a field of [`Call`] is from the stack pointer on, behind the registers that are saved.
macro_rules! field {
    ($field:ident) => {
        36 + offset_of!(Call, $field)
    };
}

/// Channels that are computed together.
pub(super) const CHANNELS: usize = 3;

/// Groups that a round of the loop takes.
pub(super) const ROUND: usize = 2;

/// Computes three channels after three, as [`multiply_and_write`](super::call::multiply_and_write) does one after one,
/// without a residual; shifts have to be in range. Groups are taken in pairs, of which there is a whole number.
///
/// Eight taps of three channels have 24 products and take 29 instructions: 2 loads of activations, and for each channel one
/// of weights, 4 `sxtb16` and 4 `smlad`.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn multiply_pixel(call: Call) -> *const i32 {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        ".macro waft_row row, sum",
        "ldrd r11, r12, [\\row], #8",
        "sxtb16 lr, r11",
        "sxtb16 r11, r11, ror #8",
        "smlad \\sum, lr, r7, \\sum",
        "smlad \\sum, r11, r8, \\sum",
        "sxtb16 lr, r12",
        "sxtb16 r12, r12, ror #8",
        "smlad \\sum, lr, r9, \\sum",
        "smlad \\sum, r12, r10, \\sum",
        ".endm",
        ".macro waft_scaled sum, multiplier, shift",
        "sub \\shift, r1, \\shift",
        "sub r7, \\shift, #1",
        "cmp r7, r2",
        "bhs 4f",
        "lsl r7, r0, r7",
        "smmla \\sum, \\sum, \\multiplier, r7",
        "asr \\sum, \\sum, \\shift",
        ".endm",
        "push {{r0-r3}}",
        "push {{r4-r11, lr}}",
        // The unrolled loop is entered where as many pairs are left as there are.
        "subs r1, r1, r0",
        "lsrs r1, r1, #6",
        "negs r1, r1",
        "and r1, r1, #3",
        "movs r2, #116",
        "adr.w r3, 2f",
        "mla r3, r1, r2, r3",
        "adds r3, r3, #1",
        "str r3, [sp, #{entry}]",
        "ldr r3, [sp, #{weights}]",
        "ldr r12, [sp, #{behind}]",
        "sub r3, r3, r12",
        "1:",
        // The next rows and biases.
        "ldrd r4, r5, [sp, #{bias}]",
        "cmp r4, r5",
        "beq 3f",
        "mov r7, r4",
        "ldmia r7!, {{r4-r6}}",
        "str r7, [sp, #{bias}]",
        "ldr r7, [sp, #{behind}]",
        "ldr r0, [sp, #{stride}]",
        "add r1, r3, r7",
        "add r2, r1, r0",
        "add r3, r2, r0",
        "ldr r0, [sp, #{patches}]",
        "ldr pc, [sp, #{entry}]",
        ".p2align 2",
        "2:",
        ".rept 4",
        "ldrd r7, r8, [r0], #32",
        "ldrd r9, r10, [r0], #32",
        "waft_row r1, r4",
        "waft_row r2, r5",
        "waft_row r3, r6",
        ".endr",
        "ldr r12, [sp, #{end}]",
        "cmp r0, r12",
        "bne 2b",
        "ldr r7, [sp, #{requant}]",
        "ldmia r7!, {{r8-r12, lr}}",
        "str r7, [sp, #{requant}]",
        "add r7, sp, #{constant}",
        "ldm r7, {{r0, r1, r2}}",
        "waft_scaled r4, r8, r9",
        "waft_scaled r5, r10, r11",
        "waft_scaled r6, r12, lr",
        "ldr r0, [sp, #{mode}]",
        "ldr r7, [sp, #{output}]",
        "lsls r0, r0, #31",
        "bne 5f",
        "ssat r4, #8, r4",
        "ssat r5, #8, r5",
        "ssat r6, #8, r6",
        "strb r4, [r7], #1",
        "strb r5, [r7], #1",
        "strb r6, [r7], #1",
        "str r7, [sp, #{output}]",
        "b 1b",
        "5:",
        "ssat r4, #16, r4",
        "ssat r5, #16, r5",
        "ssat r6, #16, r6",
        "strh r4, [r7], #2",
        "strh r5, [r7], #2",
        "strh r6, [r7], #2",
        "str r7, [sp, #{output}]",
        "b 1b",
        // The channels that are begun do not count.
        "4:",
        "ldr r4, [sp, #{bias}]",
        "subs r4, r4, #12",
        "3:",
        "mov r0, r4",
        "pop {{r4-r11, lr}}",
        "add sp, sp, #16",
        "bx lr",
        ".purgem waft_row",
        ".purgem waft_scaled",
        patches = const field!(patches),
        end = const field!(end),
        requant = const field!(requant),
        output = const field!(output),
        bias = const field!(bias),
        constant = const field!(constant),
        behind = const field!(behind),
        stride = const field!(stride),
        weights = const field!(weights),
        mode = const field!(mode),
        entry = const field!(entry),
    )
}
