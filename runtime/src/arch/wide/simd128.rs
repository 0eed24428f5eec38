//! WebAssembly with `simd128`: 8 products of words, or 4 of floats, in an instruction. A program is compiled with it or without.

use core::arch::wasm32::{
    f32x4_add, f32x4_mul, i32x4_add, i32x4_dot_i16x8, v128, v128_load, v128_load32_splat, v128_store,
};

use super::tile::dot;
use super::{LANES, Sums, Wide, Window};

/// Pixels whose sums fit the registers that processors behind it have.
const PIXELS: usize = 2;

/// Registers of a block's channels.
const REGISTERS: usize = LANES / 4;

/// What the program is compiled with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Simd128;

impl Wide for Simd128 {
    const OFFSET: Option<i32> = None;

    #[inline(always)]
    fn dot_words<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        // SAFETY: the window lies within its values, and a run is read in whole groups of its own; the weights that are read have been
        // taken as a slice.
        unsafe {
            dot!(
                sums,
                window,
                weights,
                2,
                |at: *const v128| v128_load(at),
                |at: *mut v128, value| v128_store(at, value),
                |at: *const i16| v128_load32_splat(at.cast()),
                |sum, value, weights| i32x4_add(sum, i32x4_dot_i16x8(value, weights))
            );
        }
    }

    #[inline(always)]
    fn dot_floats<const N: usize>(self, sums: &mut Sums<f32>, window: &Window<'_, f32>, weights: &[f32]) {
        // SAFETY: as above.
        unsafe {
            dot!(
                sums,
                window,
                weights,
                1,
                |at: *const v128| v128_load(at),
                |at: *mut v128, value| v128_store(at, value),
                |at: *const f32| v128_load32_splat(at.cast()),
                |sum, value, weights| f32x4_add(sum, f32x4_mul(value, weights))
            );
        }
    }
}
