//! The loop in assembly that computes channels of a convolution at four pixels, and what it reads.

#[cfg(dsp)]
use core::mem::offset_of;

#[cfg(dsp)]
use super::pixel;
#[cfg(dsp)]
use crate::arch::patches::Group;

/// Shift of a sum that the high word decides at the right place, at most.
pub(super) const MOST_LEFT: u32 = 13;

/// What the loops in assembly read.
#[cfg(dsp)]
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Call {
    pub(super) patches: *const Group,
    pub(super) end: *const Group,
    pub(super) requant: *const [i32; 2],
    pub(super) output: *mut u8,
    pub(super) bias: *const i32,
    pub(super) bias_end: *const i32,
    pub(super) constant: i32,
    /// −1 and the fractional bits of the residual, less the shift, are the shift to the right.
    pub(super) base: i32,
    /// What a shift to the right is not above.
    pub(super) most: u32,
    /// Bytes from the first pixel's element to the others'.
    pub(super) offsets: [usize; 3],
    /// Weights from the end of a channel's to the next one's.
    pub(super) behind: usize,
    pub(super) residual: *const u8,
    pub(super) kept: [i32; 5],
    pub(super) weights: *const i8,
    /// Weights from one row to the next.
    pub(super) stride: usize,
    /// 1: elements of 16 bits, 2: a residual, 4: weights are aligned to words.
    pub(super) mode: usize,
    /// Places in the code that the function notes: where a channel begins, its pairs of groups, and its results.
    pub(super) entry: usize,
    pub(super) pairs: usize,
    pub(super) finish: usize,
}

#[cfg(dsp)]
impl Call {
    /// Computes `count` channels with elements of some bytes, or as many as the loops can.
    ///
    /// # Safety
    /// Pointers lead to what [`multiply_and_write`] reads and writes for as many channels.
    #[inline(never)]
    pub(super) unsafe fn run(&mut self, count: usize, bytes: usize) -> usize {
        let aligned = self.weights.addr().is_multiple_of(4) && self.stride.is_multiple_of(4);
        self.mode |= usize::from(aligned) << 2;
        let groups = (self.end.addr() - self.patches.addr()) / size_of::<Group>();
        let [b, c, d] = self.offsets;
        let is_dense = b | c | d == 0 && self.mode & !1 == 4 && groups.is_multiple_of(pixel::ROUND);
        let (mut done, mut at) = (0, 0);
        // SAFETY: parts of what the caller promises. A row may lie anywhere, if not `aligned`.
        unsafe {
            if is_dense && count >= pixel::CHANNELS {
                let whole = count - count % pixel::CHANNELS;
                done = self.part(0, whole, bytes, pixel::multiply_pixel);
                if done == whole && done < count {
                    // The last ones, some of them a second time.
                    at = count - pixel::CHANNELS;
                    if self.part(at as isize, pixel::CHANNELS, bytes, pixel::multiply_pixel) > 0 {
                        done = count;
                    }
                }
            }
            if done < count {
                done += self.part(done as isize - at as isize, count - done, bytes, multiply_and_write);
            }
        }
        done
    }

    /// Moves on by some channels and computes as many as a loop can of `count`; how many.
    #[inline(never)]
    unsafe fn part(
        &mut self,
        by: isize,
        count: usize,
        bytes: usize,
        multiply: unsafe extern "C" fn(Self) -> *const i32,
    ) -> usize {
        self.requant = self.requant.wrapping_offset(by);
        self.output = self.output.wrapping_offset(by * bytes as isize);
        self.residual = self.residual.wrapping_offset(by * bytes as isize);
        self.weights = self.weights.wrapping_offset(by * self.stride as isize);
        self.bias = self.bias.wrapping_offset(by);
        self.bias_end = self.bias.wrapping_add(count);
        // SAFETY: as of the loop.
        (unsafe { multiply(*self) }.addr() - self.bias.addr()) / size_of::<i32>()
    }
}

/// Where a field of [`Call`] is from the stack pointer on, behind the registers that are saved.
#[cfg(dsp)]
macro_rules! field {
    ($field:ident) => {
        36 + offset_of!(Call, $field)
    };
}

/// Computes channels until one's shift is out of range, or to the end: returns the place of the bias behind the last.
///
/// A group has 16 products and takes 12.5 instructions: 2 loads of four words of activations, half a load of two words of
/// weights, 2 `sxtb16` that spread a word of weights, and 8 `smlad` that add two products each. What is left of a channel are 42
/// instructions, or 66 with a residual, for four results.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_and_write(call: Call) -> *const i32 {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        // One group: its weights are in a register, spread into that and r12.
        ".macro waft_products word",
        "ldmia r0!, {{r6-r9}}",
        "sxtb16 r12, \\word",
        "sxtb16 \\word, \\word, ror #8",
        "smlad r2, r6, r12, r2",
        "smlad r2, r7, \\word, r2",
        "smlad r3, r8, r12, r3",
        "smlad r3, r9, \\word, r3",
        "ldmia r0!, {{r6-r9}}",
        "smlad r4, r6, r12, r4",
        "smlad r4, r7, \\word, r4",
        "smlad r5, r8, r12, r5",
        "smlad r5, r9, \\word, r5",
        ".endm",
        // The first argument's words, which come in registers, join the others on the stack.
        "push {{r0-r3}}",
        "push {{r4-r11, lr}}",
        // Loops are unrolled, and entered where as many groups are left as there are.
        "subs r1, r1, r0",
        "lsrs r1, r1, #5",
        "ldr r4, [sp, #{mode}]",
        "lsls r5, r4, #30",
        "bmi 30f",
        "adr.w r6, 21f",
        "adr.w r7, 22f",
        "b 31f",
        "30:",
        "adr.w r6, 23f",
        "adr.w r7, 24f",
        "31:",
        "lsls r5, r4, #31",
        "it ne",
        "movne r6, r7",
        "adds r6, r6, #1",
        "str r6, [sp, #{finish}]",
        "lsls r5, r4, #29",
        "bmi 32f",
        // One group at a time.
        "adr.w r6, 16f",
        "negs r2, r1",
        "and r2, r2, #3",
        "movs r3, #52",
        "b 34f",
        // Two at a time, and one before.
        "32:",
        "adr.w r6, 13f",
        "movs r3, #100",
        "lsrs r2, r1, #1",
        "beq 33f",
        "negs r2, r2",
        "and r2, r2, #3",
        "b 34f",
        "33:",
        "adr.w r6, 14f",
        "34:",
        "mla r6, r2, r3, r6",
        "adds r6, r6, #1",
        "str r6, [sp, #{pairs}]",
        "and r2, r1, r4, lsr #2",
        "lsls r2, r2, #31",
        "beq 35f",
        "adr.w r6, 12f",
        "adds r6, r6, #1",
        "35:",
        "str r6, [sp, #{entry}]",
        "ldr r1, [sp, #{weights}]",
        "ldr r12, [sp, #{behind}]",
        "sub r1, r1, r12",
        "b 2f",
        // A channel, its bias in r2.
        "1:",
        "ldrd r0, lr, [sp, #{patches}]",
        "mov r3, r2",
        "mov r4, r2",
        "mov r5, r2",
        "ldr pc, [sp, #{entry}]",
        ".p2align 2",
        "16:",
        ".rept 4",
        "ldr r10, [r1], #4",
        "waft_products r10",
        ".endr",
        "cmp r0, lr",
        "bne 16b",
        "b 14f",
        ".p2align 2",
        "12:",
        "ldr r10, [r1], #4",
        "waft_products r10",
        "ldr pc, [sp, #{pairs}]",
        ".p2align 2",
        "13:",
        ".rept 4",
        "ldrd r10, r11, [r1], #8",
        "waft_products r10",
        "waft_products r11",
        ".endr",
        "cmp r0, lr",
        "bne 13b",
        // The channel's scale: multiplier r6, shift r9, rounding r8.
        "14:",
        "ldrd r10, r11, [sp, #{requant}]",
        "add r12, sp, #{constant}",
        "ldm r12, {{r0, r9, r12}}",
        "ldrd r6, r7, [r10], #8",
        "subs r9, r9, r7",
        "sub r8, r9, #1",
        "cmp r8, r12",
        "bhs 40f",
        "15:",
        "lsls r0, r0, r8",
        "smmla r2, r2, r6, r0",
        "smmla r3, r3, r6, r0",
        "smmla r4, r4, r6, r0",
        "smmla r5, r5, r6, r0",
        "asrs r2, r2, r9",
        "asrs r3, r3, r9",
        "asrs r4, r4, r9",
        "asrs r5, r5, r9",
        "ldr pc, [sp, #{finish}]",
        // Results of eight bits.
        ".p2align 2",
        "21:",
        "ssat r2, #8, r2",
        "ssat r3, #8, r3",
        "ssat r4, #8, r4",
        "ssat r5, #8, r5",
        "add r12, sp, #{offsets}",
        "ldm r12, {{r0, r12, lr}}",
        "20:",
        "strb r2, [r11]",
        "strb r3, [r11, r0]",
        "strb r4, [r11, r12]",
        "strb r5, [r11, lr]",
        "adds r11, r11, #1",
        "strd r10, r11, [sp, #{requant}]",
        // The next channel, if there is one.
        "2:",
        "ldrd r6, r7, [sp, #{bias}]",
        "ldr r12, [sp, #{behind}]",
        "add r1, r1, r12",
        "cmp r6, r7",
        "beq 3f",
        "ldr r2, [r6], #4",
        "str r6, [sp, #{bias}]",
        "b 1b",
        // Results of sixteen bits.
        ".p2align 2",
        "22:",
        "ssat r2, #16, r2",
        "ssat r3, #16, r3",
        "ssat r4, #16, r4",
        "ssat r5, #16, r5",
        "add r12, sp, #{offsets}",
        "ldm r12, {{r0, r12, lr}}",
        "26:",
        "strh r2, [r11]",
        "strh r3, [r11, r0]",
        "strh r4, [r11, r12]",
        "strh r5, [r11, lr]",
        "adds r11, r11, #2",
        "strd r10, r11, [sp, #{requant}]",
        "b 2b",
        // What a residual holds, at the results' places: in r6 to r9, and added.
        ".macro waft_residual load, bytes",
        "str r10, [sp, #{requant}]",
        "ldr r10, [sp, #{residual}]",
        "add r12, sp, #{offsets}",
        "ldm r12, {{r0, r12, lr}}",
        "\\load r6, [r10]",
        "\\load r7, [r10, r0]",
        "\\load r8, [r10, r12]",
        "\\load r9, [r10, lr]",
        "adds r10, r10, #\\bytes",
        "str r10, [sp, #{residual}]",
        "add r12, sp, #{kept}",
        "ldm r12, {{r0, r10, r11, r12, lr}}",
        "subs r6, r6, r0",
        "subs r7, r7, r0",
        "sub r8, r8, r0",
        "sub r9, r9, r0",
        "lsl r6, r6, r10",
        "lsl r7, r7, r10",
        "lsl r8, r8, r10",
        "lsl r9, r9, r10",
        "smmla r6, r6, r11, r12",
        "smmla r7, r7, r11, r12",
        "smmla r8, r8, r11, r12",
        "smmla r9, r9, r11, r12",
        "asr r6, r6, lr",
        "asr r7, r7, lr",
        "asr r8, r8, lr",
        "asr r9, r9, lr",
        "add r2, r2, r6",
        "add r3, r3, r7",
        "add r4, r4, r8",
        "add r5, r5, r9",
        "ldrd r10, r11, [sp, #{requant}]",
        "add r12, sp, #{offsets}",
        "ldm r12, {{r0, r12, lr}}",
        ".endm",
        ".p2align 2",
        "23:",
        "waft_residual ldrsb, 1",
        "ssat r2, #8, r2, asr #8",
        "ssat r3, #8, r3, asr #8",
        "ssat r4, #8, r4, asr #8",
        "ssat r5, #8, r5, asr #8",
        "b 20b",
        ".p2align 2",
        "24:",
        "waft_residual ldrsh, 2",
        "ssat r2, #16, r2, asr #8",
        "ssat r3, #16, r3, asr #8",
        "ssat r4, #16, r4, asr #8",
        "ssat r5, #16, r5, asr #8",
        "b 26b",
        // A shift that the high word alone does not decide: sums are shifted left before, as far as they fit.
        "40:",
        "rsbs r7, r9, #1",
        "ble 4f",
        "cmp r7, #{most_left}",
        "bhi 4f",
        "cmp r6, #0x40000000",
        "blt 4f",
        "tbb [pc, r7]",
        "41:",
        ".byte 0, (51f-41b)/2, (52f-41b)/2, (53f-41b)/2, (54f-41b)/2, (55f-41b)/2, (56f-41b)/2, (57f-41b)/2",
        ".byte (58f-41b)/2, (59f-41b)/2, (60f-41b)/2, (61f-41b)/2, (62f-41b)/2, (63f-41b)/2",
        ".macro waft_saturate bits",
        "ssat r2, #\\bits, r2",
        "ssat r3, #\\bits, r3",
        "ssat r4, #\\bits, r4",
        "ssat r5, #\\bits, r5",
        "b 42f",
        ".endm",
        "51:", "waft_saturate 31",
        "52:", "waft_saturate 30",
        "53:", "waft_saturate 29",
        "54:", "waft_saturate 28",
        "55:", "waft_saturate 27",
        "56:", "waft_saturate 26",
        "57:", "waft_saturate 25",
        "58:", "waft_saturate 24",
        "59:", "waft_saturate 23",
        "60:", "waft_saturate 22",
        "61:", "waft_saturate 21",
        "62:", "waft_saturate 20",
        "63:", "waft_saturate 19",
        "42:",
        "lsls r2, r2, r7",
        "lsls r3, r3, r7",
        "lsls r4, r4, r7",
        "lsls r5, r5, r7",
        "movs r9, #1",
        "movs r8, #0",
        "b 15b",
        // The channel that is begun does not count.
        "4:",
        "ldr r6, [sp, #{bias}]",
        "subs r6, r6, #4",
        "3:",
        "mov r0, r6",
        "pop {{r4-r11, lr}}",
        "add sp, #16",
        "bx lr",
        ".purgem waft_products",
        ".purgem waft_residual",
        ".purgem waft_saturate",
        patches = const field!(patches),
        requant = const field!(requant),
        bias = const field!(bias),
        constant = const field!(constant),
        offsets = const field!(offsets),
        behind = const field!(behind),
        residual = const field!(residual),
        kept = const field!(kept),
        weights = const field!(weights),
        mode = const field!(mode),
        entry = const field!(entry),
        pairs = const field!(pairs),
        finish = const field!(finish),
        most_left = const MOST_LEFT,
    )
}
