//! How inner products are computed: the room for kernels.
//!
//! What an operation *is* (geometry, gather, requantization, residual) stands in `ops`; the loops in which it spends its
//! time are kernels, and stand here. `reference` has all of them in portable Rust. A file beside it has those that an
//! instruction family does better; `build.rs` sets the `cfg` of the family's name for the targets that have it, and that
//! is the only place where one is chosen. All implementations of a kernel give the same bits: integer sums wrap, float
//! sums are added in the order that the reference states.
//!
//! # A kernel for a core
//! 1. Write `arch/<family>.rs` with functions of the reference's names and signatures, as many as are worth it.
//! 2. Name the family in the list `kernels` behind each of them, and declare its module below.
//! 3. Say in `build.rs` which targets have it.
//!
//! Of several families of a target the first in the list is taken. A family whose loads want another order of unfolded
//! activations has kernels of its own for both ends, `patches_i8` and `patches_i16`.
//!
//! The list is where dispatch and the tests come from: each implementation that this machine can run is held against
//! the definition of its kernel on the same cases. Instructions that it cannot run are modelled in tests.
//!
//! # Algorithms that need more than a dot product
//! A kernel here sees one pixel's activations. An algorithm that takes a layer as a whole (several pixels that share
//! unfolded activations, Winograd with transformed weights) replaces what an operation does after its gather: a file for
//! each family that has it and a name in the same list, called by the operation where shape and ranges admit it. Its
//! scratch is a tensor of the plan and its weights a section of the file, both laid out by the exporter, so that nothing
//! about it is decided on the device but the presence of the family.

#[cfg_attr(
    any(dsp, armv7m, armv6m),
    allow(dead_code, reason = "compiled for every target, called where no family has the kernel")
)]
mod reference;

#[cfg(feature = "i8")]
pub(crate) mod patches;

#[cfg(all(feature = "i8", any(armv7m, riscv, test)))]
mod blocks;

#[cfg(feature = "std")]
pub(crate) mod wide;

#[cfg(all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles")))]
pub(crate) mod winograd;

#[cfg(all(feature = "tiles", any(scalar, test)))]
#[allow(unsafe_code, reason = "a loop for which the compiler runs out of registers; addresses that it would test")]
mod scalar;

#[cfg(all(feature = "i8", any(dsp, test)))]
#[cfg_attr(mve, allow(dead_code, unused_imports, reason = "called where the vector extension has no kernel"))]
#[allow(unsafe_code, reason = "instructions that the compiler does not choose by itself")]
mod dsp;

#[cfg(all(feature = "i8", any(mve, test)))]
#[cfg_attr(mve, allow(unsafe_code, reason = "instructions that the compiler does not choose by itself"))]
pub(crate) mod mve;
#[cfg(all(feature = "i8", mve))]
pub(crate) use self::mve::{convolve_i8, convolve_i16};

#[cfg(all(feature = "i8", any(armv7m, test)))]
#[cfg_attr(armv7m, allow(unsafe_code, reason = "a loop for which the compiler runs out of registers"))]
mod armv7m;

#[cfg(all(any(feature = "f16", feature = "f32"), vfp))]
#[allow(unsafe_code, reason = "instructions that the compiler does not choose by itself")]
pub(crate) mod vfp;

#[cfg(all(feature = "i8", any(armv6m, test)))]
#[cfg_attr(armv6m, allow(unsafe_code, reason = "a loop for which the compiler runs out of registers"))]
mod armv6m;

#[cfg(all(feature = "i8", any(riscv, test)))]
#[cfg_attr(riscv, allow(unsafe_code, reason = "a loop for which the compiler runs out of registers"))]
mod riscv;

#[cfg(all(feature = "i8", any(sse2, neon)))]
mod quads;

#[cfg(all(feature = "i8", sse2))]
#[allow(unsafe_code, reason = "instructions that the compiler does not choose by itself")]
mod sse2;
// Where no instructions model it, a machine without the family tests the reference once more.
#[cfg(all(test, not(sse2)))]
use reference as sse2;

#[cfg(all(feature = "i8", neon))]
#[allow(unsafe_code, reason = "instructions that the compiler does not choose by itself")]
mod neon;
#[cfg(all(test, not(neon)))]
use reference as neon;
#[cfg(all(test, not(vfp)))]
use reference as vfp;

#[cfg(test)]
mod tests;

/// Output channels that share each activation that is loaded; also those whose four-bit weights stand side by side.
#[cfg(feature = "i8")]
pub(crate) const QUAD: usize = crate::format::WeightLayout::Groups4.group();

/// Taps of four-bit weights that become rows of eight bits at a time.
#[cfg(feature = "i4")]
pub(crate) const SPREAD: usize = 64;

/// Output pixels whose sums are computed together, so that each weight is loaded or converted once for all of them.
pub(crate) const PIXELS: usize = crate::format::PATCH_PIXELS;

/// The list: each kernel once, the features with which an operation calls it, and the families that have one of their own.
/// Hands the list to a macro.
macro_rules! kernels {
    ($use:ident) => {
        $use! {
            dot4_i8 (feature = "i8"): mve, dsp, armv6m;
            dot4_i16 (feature = "i8"): mve, dsp, armv6m;
            patches_i8 (feature = "i8"): mve, armv7m, armv6m;
            patches_i16 (feature = "i8"): mve, armv6m;
            unfold_i8 (feature = "i8"): dsp;
            unfold_i16 (feature = "i8"): dsp;
            dot_patches (feature = "i8"): dsp, armv7m, riscv, sse2, neon;
            dot_edges (all(feature = "i8", any(scalar, test))): armv7m, riscv;
            convolve_i8 (all(feature = "i8", any(all(dsp, not(mve)), test))): dsp;
            convolve_i16 (all(feature = "i8", any(all(dsp, not(mve)), test))): dsp;
            gather_i8_i8 (all(feature = "i8", not(no_long_multiply))): dsp;
            gather_i8_i16 (all(feature = "i8", not(no_long_multiply))): dsp;
            gather_i16_i8 (all(feature = "i8", not(no_long_multiply))): dsp;
            gather_i16_i16 (all(feature = "i8", not(no_long_multiply))): dsp;
            finish_i8 (all(feature = "i8", any(armv6m, test))): armv6m;
            finish_i16 (all(feature = "i8", any(armv6m, test))): armv6m;
            scale_each (all(feature = "i8", any(armv6m, test))): armv6m;
            moments_i8 (feature = "i8"): dsp;
            moments_i16 (feature = "i8"): dsp;
            scores_i8 (all(feature = "i8", feature = "attention")): dsp;
            limit_i16 (all(feature = "i8", feature = "tiles")): dsp;
            winograd_input (all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles"))): dsp, scalar;
            winograd_weights (all(feature = "tiles", any(tile_kernels, test))): dsp, scalar;
            winograd_multiply (all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles"))): dsp, scalar;
            winograd_output (all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles"))): dsp;
            winograd2_output (all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles"))): dsp;
            finish_blocks_i8 (all(feature = "tiles", any(all(dsp, not(mve)), test))): dsp;
            finish_blocks_i16 (all(feature = "tiles", any(all(dsp, not(mve)), test))): dsp;
            winograd2_input (all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles"))): dsp, scalar;
            winograd2_weights (all(feature = "tiles", any(tile_kernels, test))): dsp, scalar;
            dot4_packed_i8 (feature = "i4"):;
            dot4_packed_i16 (feature = "i4"):;
            spread_packed (feature = "i4"):;
            weighted4_i8 (all(feature = "i8", feature = "attention")): dsp, armv6m;
            dot_i16 (all(feature = "i8", feature = "conditioning")): dsp;
            dot_pixels (any(feature = "f16", feature = "f32")): vfp;
            dot_float (all(any(feature = "f16", feature = "f32"), any(feature = "attention", feature = "conditioning"))):;
            weighted_float (all(any(feature = "f16", feature = "f32"), feature = "attention")):;
        }
    };
}
#[cfg(test)]
use kernels;

/// Makes each kernel available under its name: that of the first of its families that the target has, else the reference.
macro_rules! dispatch {
    ($($kernel:ident ($enabled:meta): $($family:ident),*;)*) => {
        $(first! { $kernel ($enabled) () $($family)* })*
    };
}

/// The kernel of the first family that the target has; it has none of those `before`.
macro_rules! first {
    ($kernel:ident ($enabled:meta) ($($before:ident)*)) => {
        #[cfg(all($enabled, not(any($($before),*))))]
        pub(crate) use reference::$kernel;
    };
    ($kernel:ident ($enabled:meta) ($($before:ident)*) $family:ident $($behind:ident)*) => {
        #[cfg(all($enabled, $family, not(any($($before),*))))]
        pub(crate) use $family::$kernel;
        first! { $kernel ($enabled) ($($before)* $family) $($behind)* }
    };
}
kernels!(dispatch);
