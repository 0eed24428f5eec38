//! AVX2: 16 products of words in an instruction. Its products of bytes saturate, so that activations of eight bits are words.

use core::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_add_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::tile::dot;
use super::{LANES, Sums, Wide, Window, Work};

/// Pixels whose sums fit the registers.
const PIXELS: usize = 4;

/// Registers of a block's channels.
const REGISTERS: usize = 2;

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    #[inline]
    pub(super) fn dispatch<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx2")]
        fn run<W: Work>(work: W, proof: Avx2) -> W::Output {
            work.run(proof)
        }
        // SAFETY: `self` exists only where the processor has the instructions.
        unsafe { run(work, self) }
    }
}

impl Wide for Avx2 {
    const OFFSET: Option<i32> = None;

    #[inline(always)]
    fn dot_words<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        // SAFETY: the processor has the instructions. The window lies within its values, and a run is read in whole groups of its
        // own; the weights that are read have been taken as a slice.
        unsafe {
            dot!(
                sums,
                window,
                weights,
                2,
                |at: *const __m256i| _mm256_loadu_si256(at),
                |at: *mut __m256i, value| _mm256_storeu_si256(at, value),
                |at: *const i16| _mm256_set1_epi32(at.cast::<i32>().read_unaligned()),
                |sum, value, weights| _mm256_add_epi32(sum, _mm256_madd_epi16(value, weights))
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
                |at: *const f32| _mm256_loadu_ps(at),
                |at: *mut f32, value: __m256| _mm256_storeu_ps(at, value),
                |at: *const f32| _mm256_set1_ps(at.read()),
                |sum, value, weights| _mm256_add_ps(sum, _mm256_mul_ps(value, weights))
            );
        }
    }
}
