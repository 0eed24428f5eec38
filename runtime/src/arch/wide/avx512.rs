//! AVX-512 with VNNI: 64 products of bytes, or 32 of words, in an instruction.

use core::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_storeu_si128, _mm256_loadu_si256, _mm256_storeu_si256,
    _mm512_abs_epi32, _mm512_add_epi32, _mm512_add_epi64, _mm512_add_ps, _mm512_and_si512, _mm512_castsi256_si512,
    _mm512_castsi512_si256, _mm512_cmple_epu32_mask, _mm512_cmplt_epu32_mask, _mm512_cvtepi8_epi32,
    _mm512_cvtepi16_epi32, _mm512_cvtepi32_epi64, _mm512_cvtsepi32_epi8, _mm512_cvtsepi32_epi16,
    _mm512_cvtsepi64_epi32, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_extracti64x4_epi64, _mm512_inserti64x4,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mask_blend_epi16, _mm512_mask_mov_epi32,
    _mm512_maskz_mov_epi32, _mm512_maskz_srai_epi32, _mm512_max_epi32, _mm512_min_epi32, _mm512_movepi32_mask,
    _mm512_mul_epi32, _mm512_mul_ps, _mm512_or_si512, _mm512_permutex2var_epi16, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_set1_ps, _mm512_slli_epi32, _mm512_sra_epi64, _mm512_srai_epi32, _mm512_srav_epi64,
    _mm512_srli_epi32, _mm512_srlv_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi32,
    _mm512_test_epi16_mask, _mm512_xor_si512,
};

use super::{Affine, LANES, Lanes, Narrow, PIXELS, Scale, Sums, Wide, Window, Work};
use crate::fixed::{NORM_BITS, SILU_BITS};
use crate::tables::{EXP2, SILU_TAIL};

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

/// [`SILU_TAIL`] but its last entry, which is zero as the first is.
static SILU: [u16; 256] = {
    let mut table = [0; 256];
    table.copy_from_slice(SILU_TAIL.split_at(256).0);
    table
};

/// The entries of a table at places of words, modulo its length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn look_up(table: &[u16; 256], places: __m512i) -> __m512i {
    // A quarter is two registers.
    macro_rules! quarter {
        ($at:literal) => {{
            // SAFETY: each register is a part of the table.
            let [low, high] = unsafe {
                let at = table.as_ptr().add(64 * $at);
                [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(32).cast())]
            };
            _mm512_permutex2var_epi16(low, places, high)
        }};
    }
    let is_odd = _mm512_test_epi16_mask(places, _mm512_set1_epi16(64));
    let low = _mm512_mask_blend_epi16(is_odd, quarter!(0), quarter!(1));
    let high = _mm512_mask_blend_epi16(is_odd, quarter!(2), quarter!(3));
    _mm512_mask_blend_epi16(_mm512_test_epi16_mask(places, _mm512_set1_epi16(128)), low, high)
}

/// The sums of `N` blocks in registers, which start with what `begin` makes of those in memory, around a loop over the taps: `add`
/// adds the products of a pixel's group, which `read` spreads over a register, with the weights of each block.
macro_rules! dot {
    ($sums:ident, $window:ident, $weights:ident, $group:literal, $zero:expr, $begin:expr, $load:expr, $store:expr, $read:expr, $add:expr) => {{
        let Some(weights) = $weights.get(..N * LANES * $window.taps()) else { return };
        if !$window.run.is_multiple_of($group) {
            return;
        }
        let mut weights = weights.as_ptr();
        let mut registers = [[$zero; PIXELS]; N];
        for (registers, sums) in registers.iter_mut().zip(&*$sums) {
            for (register, sum) in registers.iter_mut().zip(sums) {
                *register = $begin(sum.as_ptr().cast());
            }
        }
        for row in 0..$window.rows {
            let mut pixels = [$window.values.as_ptr(); PIXELS];
            for (place, start) in pixels.iter_mut().zip($window.starts) {
                *place = place.add(start + row * $window.pitch);
            }
            let mut tap = 0;
            while tap < $window.run {
                let mut blocks = [$load(weights.cast()); N];
                for (block, value) in blocks.iter_mut().enumerate().skip(1) {
                    *value = $load(weights.add(block * LANES * $group).cast());
                }
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
    const OFFSET: Option<i32> = Some(128);

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
                |at: *const __m512i| _mm512_loadu_si512(at),
                |at: *mut __m512i, value| _mm512_storeu_si512(at, value),
                |at: *const i16| _mm512_set1_epi32(at.cast::<i32>().read_unaligned()),
                |sum, value, weights| _mm512_dpwssd_epi32(sum, value, weights)
            );
        }
    }

    #[inline(always)]
    fn multiply_words<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        // SAFETY: as above.
        unsafe {
            dot!(
                sums,
                window,
                weights,
                2,
                _mm512_set1_epi32(0),
                |_: *const __m512i| _mm512_set1_epi32(0),
                |at: *const __m512i| _mm512_loadu_si512(at),
                |at: *mut __m512i, value| _mm512_storeu_si512(at, value),
                |at: *const i16| _mm512_set1_epi32(at.cast::<i32>().read_unaligned()),
                |sum, value, weights| _mm512_dpwssd_epi32(sum, value, weights)
            );
        }
    }

    #[inline(always)]
    fn dot_floats<const N: usize>(self, sums: &mut Sums<f32>, window: &Window<'_, f32>, weights: &[f32]) {
        let Some(weights) = weights.get(..N * LANES * window.taps()) else { return };
        // A value that is used once is an operand in memory: to load it for several blocks takes longer than to read it again.
        for (block, sums) in sums.iter_mut().take(N).enumerate() {
            // SAFETY: as above.
            unsafe {
                let mut weights = weights.as_ptr().add(block * LANES);
                let mut registers = [_mm512_set1_ps(0.0); PIXELS];
                // By index: references would keep them in memory.
                for (pixel, sum) in sums.iter().enumerate() {
                    registers[pixel] = _mm512_loadu_ps(sum.as_ptr());
                }
                for row in 0..window.rows {
                    let mut pixels = [window.values.as_ptr(); PIXELS];
                    for (place, start) in pixels.iter_mut().zip(window.starts) {
                        *place = place.add(start + row * window.pitch);
                    }
                    for tap in 0..window.run {
                        let block = _mm512_loadu_ps(weights);
                        for (pixel, place) in pixels.into_iter().enumerate() {
                            let product = _mm512_mul_ps(_mm512_set1_ps(place.add(tap).read()), block);
                            registers[pixel] = _mm512_add_ps(registers[pixel], product);
                        }
                        // Wrapping: behind the last tap it leaves the weights, where nothing is read.
                        weights = weights.wrapping_add(N * LANES);
                    }
                }
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    _mm512_storeu_ps(sum.as_mut_ptr(), registers[pixel]);
                }
            }
        }
    }

    #[inline(always)]
    fn requantize(self, values: &mut Lanes<i32>, scale: &Scale) {
        // SAFETY: the processor has the instructions; each half of a scale's lanes is as long as a register.
        unsafe {
            macro_rules! half {
                ($value:expr, $at:expr) => {{
                    let multiplier = _mm512_loadu_si512(scale.multiplier.as_ptr().add($at).cast());
                    let rounding = _mm512_loadu_si512(scale.rounding.as_ptr().add($at).cast());
                    let right = _mm512_loadu_si512(scale.right.as_ptr().add($at).cast());
                    let product = _mm512_mul_epi32(_mm512_cvtepi32_epi64($value), multiplier);
                    _mm512_cvtsepi64_epi32(_mm512_srav_epi64(_mm512_add_epi64(product, rounding), right))
                }};
            }
            let value = _mm512_loadu_si512(values.as_ptr().cast());
            let low = half!(_mm512_castsi512_si256(value), 0);
            let high = half!(_mm512_extracti64x4_epi64::<1>(value), LANES / 2);
            let result = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            _mm512_storeu_si512(values.as_mut_ptr().cast(), result);
        }
    }

    #[inline(always)]
    fn load<T: Narrow>(self, values: &Lanes<T>) -> Lanes<i32> {
        let mut lanes = [0; LANES];
        // SAFETY: the processor has the instructions; 16 values of one, two or four bytes are read, and as many lanes written.
        unsafe {
            let value = match size_of::<T>() {
                1 => _mm512_cvtepi8_epi32(_mm_loadu_si128(values.as_ptr().cast())),
                2 => _mm512_cvtepi16_epi32(_mm256_loadu_si256(values.as_ptr().cast())),
                _ => _mm512_loadu_si512(values.as_ptr().cast()),
            };
            _mm512_storeu_si512(lanes.as_mut_ptr().cast(), value);
        }
        lanes
    }

    #[inline(always)]
    fn store<T: Narrow>(self, lanes: &Lanes<i32>, values: &mut Lanes<T>) {
        // SAFETY: the processor has the instructions; 16 lanes are read, and as many values of one, two or four bytes written, of
        // which any bits are a value.
        unsafe {
            let value = _mm512_loadu_si512(lanes.as_ptr().cast());
            match size_of::<T>() {
                1 => _mm_storeu_si128(values.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(value)),
                2 => _mm256_storeu_si256(values.as_mut_ptr().cast(), _mm512_cvtsepi32_epi16(value)),
                _ => _mm512_storeu_si512(values.as_mut_ptr().cast(), value),
            }
        }
    }

    #[inline(always)]
    fn saturating_add(self, lanes: &mut Lanes<i32>, summand: i32) {
        if summand == 0 {
            return;
        }
        // SAFETY: the processor has the instructions; lanes are as long as a register.
        unsafe {
            let value = _mm512_loadu_si512(lanes.as_ptr().cast());
            let summand = _mm512_set1_epi32(summand);
            let sum = _mm512_add_epi32(value, summand);
            // It overflows where both have another sign than their sum.
            let differs = _mm512_and_si512(_mm512_xor_si512(sum, value), _mm512_xor_si512(sum, summand));
            let limit = _mm512_xor_si512(_mm512_srai_epi32::<31>(value), _mm512_set1_epi32(i32::MAX));
            let result = _mm512_mask_mov_epi32(sum, _mm512_movepi32_mask(differs), limit);
            _mm512_storeu_si512(lanes.as_mut_ptr().cast(), result);
        }
    }

    #[inline(always)]
    fn exp2_neg(self, lanes: &mut Lanes<i32>, bits: u32) {
        // SAFETY: the processor has the instructions; lanes are as long as a register, and indices end with the table.
        unsafe {
            let below = _mm512_max_epi32(_mm512_loadu_si512(lanes.as_ptr().cast()), _mm512_set1_epi32(0));
            let whole = _mm512_srli_epi32::<8>(below);
            let fraction = _mm512_and_si512(below, _mm512_set1_epi32(255));
            // Upper halves find the table's first entry.
            let entry = _mm512_and_si512(look_up(&EXP2, fraction), _mm512_set1_epi32(0xFFFF));
            let entry = _mm512_slli_epi32::<1>(entry);
            let shift =
                _mm512_sub_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(15)), _mm512_set1_epi32(bits as i32));
            let shifted = _mm512_add_epi32(_mm512_srlv_epi32(entry, shift), _mm512_set1_epi32(1));
            let is_left = _mm512_cmple_epu32_mask(whole, _mm512_set1_epi32(bits as i32));
            let result = _mm512_maskz_mov_epi32(is_left, _mm512_srli_epi32::<1>(shifted));
            _mm512_storeu_si512(lanes.as_mut_ptr().cast(), result);
        }
    }

    #[inline(always)]
    fn affine(self, values: &mut Lanes<i32>, map: &Affine<'_>) {
        // SAFETY: the processor has the instructions; lanes are as long as a register.
        unsafe {
            let right = map.right & 31;
            let count = _mm_cvtsi32_si128(right as i32);
            let rounding = _mm512_set1_epi64(i64::from(1u32 << right >> 1));
            macro_rules! half {
                ($half:ident) => {{
                    let product = _mm512_mul_epi32($half!(values), $half!(map.factors));
                    let shifted = _mm512_sra_epi64(_mm512_add_epi64(product, rounding), count);
                    _mm512_cvtsepi64_epi32(_mm512_add_epi64(shifted, $half!(map.summands)))
                }};
            }
            macro_rules! low {
                ($lanes:expr) => {
                    _mm512_cvtepi32_epi64(_mm256_loadu_si256($lanes.as_ptr().cast()))
                };
            }
            macro_rules! high {
                ($lanes:expr) => {
                    _mm512_cvtepi32_epi64(_mm256_loadu_si256($lanes.as_ptr().add(LANES / 2).cast()))
                };
            }
            let result = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half!(low)), half!(high));
            _mm512_storeu_si512(values.as_mut_ptr().cast(), result);
        }
    }

    #[inline(always)]
    fn silu(self, values: &mut Lanes<i32>) {
        // SAFETY: the processor has the instructions; lanes are as long as a register.
        unsafe {
            let normalized = _mm512_loadu_si512(values.as_ptr().cast());
            let magnitude = _mm512_abs_epi32(normalized);
            let index = _mm512_srli_epi32::<8>(magnitude);
            // A word for the interval's start and one for its end.
            let places = _mm512_or_si512(index, _mm512_slli_epi32::<16>(index));
            let ends = look_up(&SILU, _mm512_add_epi32(places, _mm512_set1_epi32(1 << 16)));
            let fraction = _mm512_and_si512(magnitude, _mm512_set1_epi32(255));
            let shares = _mm512_sub_epi32(_mm512_slli_epi32::<16>(fraction), fraction);
            let shares = _mm512_add_epi32(shares, _mm512_set1_epi32(256));
            let sum = _mm512_add_epi32(_mm512_madd_epi16(ends, shares), _mm512_set1_epi32(128));
            // Nothing is left of the tail beyond the table.
            let is_within = _mm512_cmplt_epu32_mask(magnitude, _mm512_set1_epi32(1 << 16));
            let tail = _mm512_maskz_srai_epi32::<8>(is_within, sum);
            let positive = _mm512_max_epi32(normalized, _mm512_set1_epi32(0));
            let positive = _mm512_min_epi32(positive, _mm512_set1_epi32((1 << 27) - 1));
            let result = _mm512_sub_epi32(_mm512_slli_epi32::<{ SILU_BITS - NORM_BITS }>(positive), tail);
            _mm512_storeu_si512(values.as_mut_ptr().cast(), result);
        }
    }
}
