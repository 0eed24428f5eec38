//! AVX2: 16 products of words in an instruction. Its products of bytes saturate, so that activations of eight bits are words.

use core::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_add_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::portable::Portable;
use super::{LANES, Sums, Wide, Window, Work};

/// Pixels whose sums fit the registers.
const PIXELS: usize = 4;

/// Channels of a register.
const HALF: usize = LANES / 2;

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

/// For each block and four pixels: the sums in registers, around a loop over the taps.
macro_rules! dot {
    ($sums:ident, $window:ident, $weights:ident, $group:literal, $zero:expr, $load:expr, $store:expr, $read:expr, $add:expr) => {{
        let Some(weights) = $weights.get(..N * LANES * $window.taps()) else { return };
        if !$window.run.is_multiple_of($group) {
            return;
        }
        for (block, sums) in $sums.iter_mut().take(N).enumerate() {
            let (sums, _) = sums.as_chunks_mut::<PIXELS>();
            for (sums, starts) in sums.iter_mut().zip($window.starts.as_chunks::<PIXELS>().0) {
                let mut weights = weights.as_ptr().add(block * LANES * $group);
                let mut registers = [[$zero; 2]; PIXELS];
                for (registers, sum) in registers.iter_mut().zip(&*sums) {
                    *registers = [$load(sum.as_ptr().cast()), $load(sum.as_ptr().add(HALF).cast())];
                }
                for row in 0..$window.rows {
                    let mut pixels = [$window.values.as_ptr(); PIXELS];
                    for (place, start) in pixels.iter_mut().zip(starts) {
                        *place = place.add(start + row * $window.pitch);
                    }
                    let mut tap = 0;
                    while tap < $window.run {
                        let [low, high] = [$load(weights.cast()), $load(weights.add(HALF * $group).cast())];
                        for (registers, place) in registers.iter_mut().zip(pixels) {
                            let value = $read(place.add(tap));
                            *registers = [$add(registers[0], value, low), $add(registers[1], value, high)];
                        }
                        // Wrapping: behind the last group it leaves the weights, where nothing is read.
                        weights = weights.wrapping_add(N * LANES * $group);
                        tap += $group;
                    }
                }
                for (registers, sum) in registers.iter().zip(sums) {
                    $store(sum.as_mut_ptr().cast(), registers[0]);
                    $store(sum.as_mut_ptr().add(HALF).cast(), registers[1]);
                }
            }
        }
    }};
}

impl Wide for Avx2 {
    const BYTES: bool = false;

    #[inline(always)]
    fn dot_bytes<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, u8>, weights: &[i8]) {
        Portable.dot_bytes::<N>(sums, window, weights);
    }

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
                _mm256_set1_epi32(0),
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
                _mm256_set1_ps(0.0),
                |at: *const f32| _mm256_loadu_ps(at),
                |at: *mut f32, value: __m256| _mm256_storeu_ps(at, value),
                |at: *const f32| _mm256_set1_ps(at.read()),
                |sum, value, weights| _mm256_add_ps(sum, _mm256_mul_ps(value, weights))
            );
        }
    }
}
