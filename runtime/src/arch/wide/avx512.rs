//! AVX-512 with VNNI: 64 products of bytes, or 32 of words, in an instruction.

use core::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi64, _mm512_add_ps, _mm512_castsi256_si512, _mm512_castsi512_si256,
    _mm512_cvtepi32_epi64, _mm512_cvtsepi64_epi32, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_extracti64x4_epi64,
    _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_epi32, _mm512_mul_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_srav_epi64, _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::{LANES, Lanes, PIXELS, Scale, Sums, Wide, Window, Work};

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let has_all = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512vnni");
        has_all.then_some(Self(()))
    }

    #[inline]
    pub(super) fn dispatch<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn run<W: Work>(work: W, proof: Avx512) -> W::Output {
            work.run(proof)
        }
        // SAFETY: `self` exists only where the processor has the instructions.
        unsafe { run(work, self) }
    }
}

/// The sums of `N` blocks in registers, around a loop over the taps: `step` adds the products of a pixel's group, which `broadcast`
/// loads, with the weights of each block.
macro_rules! dot {
    ($sums:ident, $window:ident, $weights:ident, $group:literal, $zero:expr, $load:expr, $store:expr, $read:expr, $add:expr) => {{
        let Some(weights) = $weights.get(..N * LANES * $window.taps()) else { return };
        let mut weights = weights.as_ptr();
        let mut registers = [[$zero; PIXELS]; N];
        for (registers, sums) in registers.iter_mut().zip(&*$sums) {
            for (register, sum) in registers.iter_mut().zip(sums) {
                *register = $load(sum.as_ptr().cast());
            }
        }
        for row in 0..$window.rows {
            let pixels = $window.starts.map(|start| $window.values.as_ptr().add(start + row * $window.pitch));
            let mut tap = 0;
            while tap + $group <= $window.run {
                let blocks: [_; N] = core::array::from_fn(|block| $load(weights.add(block * LANES * $group).cast()));
                for (pixel, place) in pixels.into_iter().enumerate() {
                    let value = $read(place.add(tap));
                    for block in 0..N {
                        registers[block][pixel] = $add(registers[block][pixel], value, blocks[block]);
                    }
                }
                weights = weights.add(N * LANES * $group);
                tap += $group;
            }
        }
        for (registers, sums) in registers.iter().zip($sums) {
            for (register, sum) in registers.iter().zip(sums) {
                $store(sum.as_mut_ptr().cast(), *register);
            }
        }
    }};
}

impl Wide for Avx512 {
    const BYTES: bool = true;

    #[inline(always)]
    fn dot_bytes<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, u8>, weights: &[i8]) {
        // SAFETY: the processor has the instructions. The window lies within its values, and a run is read in whole groups of its
        // own; the weights that are read have been taken as a slice.
        unsafe {
            dot!(
                sums,
                window,
                weights,
                4,
                _mm512_set1_epi32(0),
                |at: *const __m512i| _mm512_loadu_si512(at),
                |at: *mut __m512i, value| _mm512_storeu_si512(at, value),
                |at: *const u8| _mm512_set1_epi32(at.cast::<i32>().read_unaligned()),
                |sum, value, weights| _mm512_dpbusd_epi32(sum, value, weights)
            );
        }
    }

    #[inline(always)]
    fn dot_words<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        // SAFETY: as above.
        unsafe {
            dot!(
                sums,
                window,
                weights,
                2,
                _mm512_set1_epi32(0),
                |at: *const __m512i| _mm512_loadu_si512(at),
                |at: *mut __m512i, value| _mm512_storeu_si512(at, value),
                |at: *const i16| _mm512_set1_epi32(at.cast::<i32>().read_unaligned()),
                |sum, value, weights| _mm512_dpwssd_epi32(sum, value, weights)
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
                _mm512_set1_ps(0.0),
                |at: *const f32| _mm512_loadu_ps(at),
                |at: *mut f32, value: __m512| _mm512_storeu_ps(at, value),
                |at: *const f32| _mm512_set1_ps(at.read()),
                |sum, value, weights| _mm512_add_ps(sum, _mm512_mul_ps(value, weights))
            );
        }
    }

    #[inline(always)]
    fn requantize(self, values: &mut Lanes<i32>, scale: &Scale) {
        // SAFETY: the processor has the instructions; each half of a scale's lanes is as long as a register.
        unsafe {
            let value = _mm512_loadu_si512(values.as_ptr().cast());
            let halves = [_mm512_castsi512_si256(value), _mm512_extracti64x4_epi64::<1>(value)];
            let mut half = 0;
            let [low, high] = halves.map(|value| {
                let load = |lanes: &Lanes<i64>| _mm512_loadu_si512(lanes.as_ptr().add(half * LANES / 2).cast());
                let product = _mm512_mul_epi32(_mm512_cvtepi32_epi64(value), load(&scale.multiplier));
                let sum = _mm512_add_epi64(product, load(&scale.rounding));
                let result = _mm512_cvtsepi64_epi32(_mm512_srav_epi64(sum, load(&scale.right)));
                half += 1;
                result
            });
            let result = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            _mm512_storeu_si512(values.as_mut_ptr().cast(), result);
        }
    }
}
