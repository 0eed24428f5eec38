//! Conversions between half and single precision, which are instructions.

/// Half precision, by its bits, in single precision. A signalling NaN becomes a quiet one.
#[unsafe(naked)]
pub(crate) extern "C" fn half_to_single(bits: u16) -> f32 {
    core::arch::naked_asm!(".cpu cortex-m4", ".fpu fpv4-sp-d16", "vmov s0, r0", "vcvtb.f32.f16 s0, s0", "bx lr",)
}

/// The bits of the nearest half precision, ties to even.
#[unsafe(naked)]
pub(crate) extern "C" fn single_to_half(value: f32) -> u16 {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        ".fpu fpv4-sp-d16",
        "vcvtb.f16.f32 s0, s0",
        "vmov r0, s0",
        "uxth r0, r0",
        "bx lr",
    )
}
