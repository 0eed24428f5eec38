//! Products of rows that lie side by side in memory, and of values that lie apart.

use crate::arch::QUAD;

/// See [`reference::dot4_i8`](crate::arch::reference::dot4_i8).
#[inline(never)]
pub(crate) fn dot4_i8(sums: [i32; QUAD], activations: &[i8], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    #[cfg(armv6m)]
    // SAFETY: the activations and each row have as many elements as the call says.
    return dot4_by(sums, activations, weights, |call| unsafe { multiply_bytes(call) });
    #[cfg(not(armv6m))]
    crate::arch::reference::dot4_i8(sums, activations, weights)
}

/// See [`reference::dot4_i16`](crate::arch::reference::dot4_i16).
#[inline(never)]
pub(crate) fn dot4_i16(sums: [i32; QUAD], activations: &[i16], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    #[cfg(armv6m)]
    // SAFETY: the activations and each row have as many elements as the call says.
    return dot4_by(sums, activations, weights, |call| unsafe { multiply_halves(call) });
    #[cfg(not(armv6m))]
    crate::arch::reference::dot4_i16(sums, activations, weights)
}

/// What instructions are told.
#[cfg(armv6m)]
#[repr(C)]
struct Call<T> {
    sums: [i32; QUAD],
    activations: *const T,
    weights: [*const i8; QUAD],
    /// Elements of each, one at least.
    len: usize,
}

#[cfg(armv6m)]
#[inline(always)]
fn dot4_by<T>(
    sums: [i32; QUAD],
    activations: &[T],
    weights: [&[i8]; QUAD],
    multiply: impl Fn(&mut Call<T>),
) -> [i32; QUAD] {
    let len = weights.iter().fold(activations.len(), |len, row| len.min(row.len()));
    if len == 0 {
        return sums;
    }
    let mut call = Call { sums, activations: activations.as_ptr(), weights: weights.map(<[i8]>::as_ptr), len };
    multiply(&mut call);
    call.sums
}

/// A function that adds the products of a [`Call`] to its sums: how an activation comes from place `r7` to `r0`.
///
/// Four products take 16 instructions, or 17.
#[cfg(armv6m)]
macro_rules! multiply {
    ($name:ident, $element:ty, $($load:literal),+) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(call: *mut Call<$element>) {
            core::arch::naked_asm!(
                "push {{r0, r4-r7, lr}}",
                "mov r4, r8",
                "mov r5, r9",
                "mov r6, r10",
                "mov r7, r11",
                "push {{r4-r7}}",
                "ldmia r0!, {{r4-r7}}",
                "mov r8, r4",
                "mov r9, r5",
                "mov r10, r6",
                "mov r11, r7",
                "ldmia r0!, {{r1-r5}}",
                "ldr r0, [r0]",
                "mov r12, r0",
                "movs r7, #0",
                "2:",
                $($load,)+
                "ldrsb r6, [r2, r7]",
                "muls r6, r0, r6",
                "add r8, r6",
                "ldrsb r6, [r3, r7]",
                "muls r6, r0, r6",
                "add r9, r6",
                "ldrsb r6, [r4, r7]",
                "muls r6, r0, r6",
                "add r10, r6",
                "ldrsb r6, [r5, r7]",
                "muls r6, r0, r6",
                "add r11, r6",
                "adds r7, #1",
                "cmp r7, r12",
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
                "pop {{r0, r4-r7, pc}}",
            )
        }
    };
}
#[cfg(armv6m)]
multiply!(multiply_bytes, i8, "ldrsb r0, [r1, r7]");
#[cfg(armv6m)]
multiply!(multiply_halves, i16, "lsls r0, r7, #1", "ldrsh r0, [r1, r0]");

/// See [`reference::weighted4_i8`](crate::arch::reference::weighted4_i8).
#[cfg(feature = "attention")]
#[inline(never)]
pub(crate) fn weighted4_i8(weights: &[i32], values: &[i8], stride: usize) -> [i32; QUAD] {
    #[cfg(armv6m)]
    if let (Some(last), true) = (weights.len().checked_sub(1), stride > 0) {
        if last * stride + QUAD <= values.len() {
            let mut sums = [0; QUAD];
            let ends = weights.as_ptr_range();
            // SAFETY: there are weights from start to end, one at least, and four values for each of them, `stride` apart.
            unsafe { weigh(ends.start, values.as_ptr(), stride, ends.end, &mut sums) };
            return sums;
        }
    }
    crate::arch::reference::weighted4_i8(weights, values, stride)
}

/// Writes the sums of four neighbours times the weights up to `end`, which is not where they begin.
///
/// Four products take 16 instructions.
#[cfg(all(armv6m, feature = "attention"))]
#[unsafe(naked)]
unsafe extern "C" fn weigh(
    weights: *const i32,
    values: *const i8,
    stride: usize,
    end: *const i32,
    sums: *mut [i32; QUAD],
) {
    core::arch::naked_asm!(
        "push {{r2-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov r12, r3",
        "mov lr, r2",
        "movs r4, #0",
        "mov r8, r4",
        "mov r9, r4",
        "mov r10, r4",
        "mov r11, r4",
        "movs r5, #1",
        "movs r6, #2",
        "movs r7, #3",
        "2:",
        "ldmia r0!, {{r2}}",
        "ldrsb r3, [r1, r4]",
        "muls r3, r2, r3",
        "add r8, r3",
        "ldrsb r3, [r1, r5]",
        "muls r3, r2, r3",
        "add r9, r3",
        "ldrsb r3, [r1, r6]",
        "muls r3, r2, r3",
        "add r10, r3",
        "ldrsb r3, [r1, r7]",
        "muls r3, r2, r3",
        "add r11, r3",
        "add r1, lr",
        "cmp r0, r12",
        "bne 2b",
        "ldr r0, [sp, #44]",
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
        "pop {{r2-r7, pc}}",
    )
}
