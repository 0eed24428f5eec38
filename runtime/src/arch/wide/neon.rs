//! NEON, which AArch64 has by its standard: 4 products of words or floats in an instruction, 16 of bytes where the processor has
//! the dot product (`FEAT_DotProd`, from the Cortex-A55 and A76 on).

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int16x8_t, int32x4_t, vaddq_f32, vdup_n_s32, vdupq_laneq_f32, vdupq_n_f32, vdupq_n_s32,
    vget_high_s32, vget_low_s16, vget_low_s32, vld1_s16, vld1q_dup_f32, vld1q_f32, vld1q_s8, vld1q_s16, vld1q_s32,
    vld1q_s64, vld2q_s16, vmlal_high_laneq_s16, vmlal_laneq_s16, vmovl_s8, vmovl_s16, vmovn_s64, vmull_s32, vmulq_f32,
    vnegq_s64, vqaddq_s32, vqmovn_high_s16, vqmovn_high_s32, vqmovn_high_s64, vqmovn_s16, vqmovn_s32, vqmovn_s64,
    vreinterpret_s8_s32, vreinterpretq_s8_s32, vreinterpretq_s16_s32, vrshlq_s64, vst1q_f32, vst1q_s8, vst1q_s16,
    vst1q_s32,
};

use super::{LANES, Lanes, Narrow, Scale, Sums, Wide, Window, Work, portable};

/// Pixels whose sums fit the registers.
const PIXELS: usize = 4;

/// Registers of a block's channels.
const REGISTERS: usize = LANES / 4;

/// Groups of taps whose activations come with one load.
const GROUPS: usize = 4;

/// What every processor of the target has or, if `DOTS`, those that have the dot product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Neon<const DOTS: bool>(());

impl Neon<false> {
    pub(super) const ALWAYS: Self = Self(());
}

impl Neon<true> {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }

    #[inline]
    pub(super) fn dispatch<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "dotprod")]
        fn run<W: Work>(work: W, proof: Neon<true>) -> W::Output {
            work.run(proof)
        }
        // SAFETY: `self` exists only where the processor has the instructions.
        unsafe { run(work, self) }
    }
}

/// For each block and four pixels: the sums in registers, around a loop over the taps. Runs are read in rounds of four groups,
/// whose activations come with `wide`, and the groups that are left one at a time, whose activations come with `narrow`; `add` adds
/// the products of a lane of them with what `weights` has read.
macro_rules! dot {
    (
        $sums:ident, $window:ident, $weights:ident, $group:literal,
        $zero:expr, $load:expr, $store:expr, $read:expr, $wide:expr, $narrow:expr, $add:ident
    ) => {{
        let Some(weights) = $weights.get(..N * LANES * $window.taps()) else { return };
        if !$window.run.is_multiple_of($group) {
            return;
        }
        for (block, sums) in $sums.iter_mut().take(N).enumerate() {
            let (sums, _) = sums.as_chunks_mut::<PIXELS>();
            for (sums, starts) in sums.iter_mut().zip($window.starts.as_chunks::<PIXELS>().0) {
                let mut weights = weights.as_ptr().add(block * LANES * $group);
                let mut registers = [[$zero; REGISTERS]; PIXELS];
                for (registers, sum) in registers.iter_mut().zip(&*sums) {
                    for (register, four) in registers.iter_mut().zip(sum.as_chunks::<4>().0) {
                        *register = $load(four.as_ptr());
                    }
                }
                for row in 0..$window.rows {
                    let mut pixels = [$window.values.as_ptr(); PIXELS];
                    for (place, start) in pixels.iter_mut().zip(starts) {
                        *place = place.add(start + row * $window.pitch);
                    }
                    macro_rules! group {
                        ($values:ident, $lane:literal) => {
                            let group = $read(weights);
                            // Wrapping: behind the last group it leaves the weights, where nothing is read.
                            weights = weights.wrapping_add(N * LANES * $group);
                            for (registers, value) in registers.iter_mut().zip($values) {
                                *registers = $add::<$lane>(*registers, value, group);
                            }
                        };
                    }
                    for _ in 0..$window.run / (GROUPS * $group) {
                        let values = pixels.map(|place| $wide(place));
                        pixels = pixels.map(|place| place.wrapping_add(GROUPS * $group));
                        group!(values, 0);
                        group!(values, 1);
                        group!(values, 2);
                        group!(values, 3);
                    }
                    for _ in 0..$window.run / $group % GROUPS {
                        let values = pixels.map(|place| $narrow(place));
                        pixels = pixels.map(|place| place.wrapping_add($group));
                        group!(values, 0);
                    }
                }
                for (registers, sum) in registers.iter().zip(sums) {
                    for (register, four) in registers.iter().zip(sum.as_chunks_mut::<4>().0) {
                        $store(four.as_mut_ptr(), *register);
                    }
                }
            }
        }
    }};
}

/// Adds the products of four bytes of each channel with those of a lane.
#[inline]
#[target_feature(enable = "dotprod")]
fn add_bytes<const LANE: i32>(
    sums: [int32x4_t; REGISTERS],
    values: int8x16_t,
    weights: [int8x16_t; REGISTERS],
) -> [int32x4_t; REGISTERS] {
    let [mut a, mut b, mut c, mut d] = sums;
    let [e, f, g, h] = weights;
    // SAFETY: computes in registers, with instructions that the function enables.
    unsafe {
        core::arch::asm!(
            "sdot {a:v}.4s, {e:v}.16b, {values:v}.4b[{lane}]",
            "sdot {b:v}.4s, {f:v}.16b, {values:v}.4b[{lane}]",
            "sdot {c:v}.4s, {g:v}.16b, {values:v}.4b[{lane}]",
            "sdot {d:v}.4s, {h:v}.16b, {values:v}.4b[{lane}]",
            a = inout(vreg) a,
            b = inout(vreg) b,
            c = inout(vreg) c,
            d = inout(vreg) d,
            e = in(vreg) e,
            f = in(vreg) f,
            g = in(vreg) g,
            h = in(vreg) h,
            values = in(vreg) values,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// Adds the products of two words of each channel with those of a pair of lanes: first of each channel, then second.
#[inline]
#[target_feature(enable = "neon")]
fn add_words<const LANE: i32>(
    [mut a, mut b, mut c, mut d]: [int32x4_t; REGISTERS],
    values: int16x8_t,
    [low, high]: [[int16x8_t; 2]; 2],
) -> [int32x4_t; REGISTERS] {
    macro_rules! tap {
        ($tap:literal, $lane:expr) => {
            a = vmlal_laneq_s16::<{ $lane }>(a, vget_low_s16(low[$tap]), values);
            b = vmlal_high_laneq_s16::<{ $lane }>(b, low[$tap], values);
            c = vmlal_laneq_s16::<{ $lane }>(c, vget_low_s16(high[$tap]), values);
            d = vmlal_high_laneq_s16::<{ $lane }>(d, high[$tap], values);
        };
    }
    match LANE {
        0 => {
            tap!(0, 0);
            tap!(1, 1);
        }
        1 => {
            tap!(0, 2);
            tap!(1, 3);
        }
        2 => {
            tap!(0, 4);
            tap!(1, 5);
        }
        _ => {
            tap!(0, 6);
            tap!(1, 7);
        }
    }
    [a, b, c, d]
}

/// Adds the products of a float of each channel with that of a lane, each rounded.
#[inline]
#[target_feature(enable = "neon")]
fn add_floats<const LANE: i32>(
    [a, b, c, d]: [float32x4_t; REGISTERS],
    values: float32x4_t,
    [e, f, g, h]: [float32x4_t; REGISTERS],
) -> [float32x4_t; REGISTERS] {
    let value = vdupq_laneq_f32::<LANE>(values);
    [
        vaddq_f32(a, vmulq_f32(e, value)),
        vaddq_f32(b, vmulq_f32(f, value)),
        vaddq_f32(c, vmulq_f32(g, value)),
        vaddq_f32(d, vmulq_f32(h, value)),
    ]
}

impl<const DOTS: bool> Wide for Neon<DOTS> {
    /// Activations and weights have a sign.
    const OFFSET: Option<i32> = if DOTS { Some(0) } else { None };

    #[inline(always)]
    fn dot_bytes<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, u8>, weights: &[i8]) {
        if !DOTS {
            return portable::dot_bytes::<Self, N>(sums, window, weights);
        }
        // SAFETY: the processor has the instructions. The window lies within its values, and a run is read in whole groups of its
        // own; the weights that are read have been taken as a slice.
        unsafe {
            dot!(
                sums,
                window,
                weights,
                4,
                vdupq_n_s32(0),
                |at: *const i32| vld1q_s32(at),
                |at: *mut i32, value| vst1q_s32(at, value),
                |at: *const i8| [0, 16, 32, 48].map(|channel| vld1q_s8(at.add(channel))),
                |at: *const u8| vld1q_s8(at.cast()),
                |at: *const u8| vreinterpretq_s8_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())),
                add_bytes
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
                vdupq_n_s32(0),
                |at: *const i32| vld1q_s32(at),
                |at: *mut i32, value| vst1q_s32(at, value),
                |at: *const i16| [vld2q_s16(at), vld2q_s16(at.add(16))].map(|taps| [taps.0, taps.1]),
                |at: *const i16| vld1q_s16(at),
                |at: *const i16| vreinterpretq_s16_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())),
                add_words
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
                vdupq_n_f32(0.0),
                |at: *const f32| vld1q_f32(at),
                |at: *mut f32, value| vst1q_f32(at, value),
                |at: *const f32| [0, 4, 8, 12].map(|channel| vld1q_f32(at.add(channel))),
                |at: *const f32| vld1q_f32(at),
                |at: *const f32| vld1q_dup_f32(at),
                add_floats
            );
        }
    }

    #[inline(always)]
    fn requantize(self, values: &mut Lanes<i32>, scale: &Scale) {
        let multipliers = scale.multiplier.as_chunks::<4>().0;
        for ((values, multiplier), right) in
            values.as_chunks_mut::<4>().0.iter_mut().zip(multipliers).zip(scale.right.as_chunks::<4>().0)
        {
            // SAFETY: the processor has the instructions; four values and constants are read, and as many values written.
            unsafe {
                let value = vld1q_s32(values.as_ptr());
                let half = |at: usize| (vld1q_s64(multiplier.as_ptr().add(at)), vld1q_s64(right.as_ptr().add(at)));
                let [(low, right_low), (high, right_high)] = [half(0), half(2)];
                // Constants of 32 bits; the shift to the left by a negative number rounds half up, as the definition does.
                let low = vrshlq_s64(vmull_s32(vget_low_s32(value), vmovn_s64(low)), vnegq_s64(right_low));
                let high = vrshlq_s64(vmull_s32(vget_high_s32(value), vmovn_s64(high)), vnegq_s64(right_high));
                vst1q_s32(values.as_mut_ptr(), vqmovn_high_s64(vqmovn_s64(low), high));
            }
        }
    }

    #[inline(always)]
    fn load<T: Narrow>(self, values: &Lanes<T>) -> Lanes<i32> {
        let mut lanes = [0; LANES];
        for (at, four) in (0..).step_by(4).zip(lanes.as_chunks_mut::<4>().0) {
            // SAFETY: the processor has the instructions; 4 values of one, two or four bytes are read, and as many lanes written.
            unsafe {
                let value = match size_of::<T>() {
                    1 => {
                        let four = values.as_ptr().cast::<u8>().add(at).cast::<i32>().read_unaligned();
                        vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)))))
                    }
                    2 => vmovl_s16(vld1_s16(values.as_ptr().cast::<i16>().add(at))),
                    _ => vld1q_s32(values.as_ptr().cast::<i32>().add(at)),
                };
                vst1q_s32(four.as_mut_ptr(), value);
            }
        }
        lanes
    }

    #[inline(always)]
    fn store<T: Narrow>(self, lanes: &Lanes<i32>, values: &mut Lanes<T>) {
        // SAFETY: the processor has the instructions; 16 lanes are read, and as many values of one, two or four bytes written, of
        // which any bits are a value.
        unsafe {
            let [a, b, c, d] = [0, 4, 8, 12].map(|at| vld1q_s32(lanes.as_ptr().add(at)));
            match size_of::<T>() {
                1 => {
                    let [low, high] = [[a, b], [c, d]].map(|[a, b]| vqmovn_high_s32(vqmovn_s32(a), b));
                    vst1q_s8(values.as_mut_ptr().cast(), vqmovn_high_s16(vqmovn_s16(low), high));
                }
                2 => {
                    let at = values.as_mut_ptr().cast::<i16>();
                    vst1q_s16(at, vqmovn_high_s32(vqmovn_s32(a), b));
                    vst1q_s16(at.add(8), vqmovn_high_s32(vqmovn_s32(c), d));
                }
                _ => {
                    let at = values.as_mut_ptr().cast::<i32>();
                    for (register, value) in [a, b, c, d].into_iter().enumerate() {
                        vst1q_s32(at.add(4 * register), value);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn saturating_add(self, lanes: &mut Lanes<i32>, summand: i32) {
        if summand == 0 {
            return;
        }
        for four in lanes.as_chunks_mut::<4>().0 {
            // SAFETY: the processor has the instructions; four lanes are read and written.
            unsafe { vst1q_s32(four.as_mut_ptr(), vqaddq_s32(vld1q_s32(four.as_ptr()), vdupq_n_s32(summand))) };
        }
    }
}
