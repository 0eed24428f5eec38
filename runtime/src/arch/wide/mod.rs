//! Kernels of whole operations, for processors with wide vectors: what [`Accelerator`](crate::Accelerator) is made of.
//!
//! An operation is written once, over [`Wide`], in code that the compiler turns into vectors of the instruction set at hand; only
//! what it cannot find by itself, the inner products and the requantization, has a file for each instruction set here. A new one
//! is a file with a type that implements [`Wide`], a line in [`Instructions::available`] and one in [`Instructions::dispatch`].
//!
//! Sums of integers wrap, and those of floats are added in the order of the taps, each product rounded: every instruction set gives
//! the bits of the other kernels.

mod portable;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "instructions that not every processor of the target has")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "instructions that not every processor of the target has")]
mod avx512;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "instructions that the compiler does not choose by itself")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[allow(unsafe_code, reason = "instructions that the compiler does not choose by itself")]
mod simd128;
#[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
mod tile;

#[cfg(test)]
mod tests;

use core::fmt;

use crate::fixed::{NORM_BITS, SILU_BITS, saturate_i8, saturate_i16};
use crate::tables::SILU_TAIL;

/// Output channels whose sums stand side by side.
pub(crate) const LANES: usize = 16;

/// Output pixels whose sums are computed together.
pub(crate) const PIXELS: usize = 8;

/// Most blocks of [`LANES`] channels that share each activation that is loaded.
pub(crate) const PANEL: usize = 3;

/// The nearest `i32`.
#[inline(always)]
fn saturate(value: i64) -> i32 {
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// One number for each of a block's channels.
pub(crate) type Lanes<T> = [T; LANES];

/// Sums of a panel: by block, pixel, channel.
pub(crate) type Sums<T> = [[Lanes<T>; PIXELS]; PANEL];

/// The activations under the kernel at each of [`PIXELS`] output pixels: `rows` runs of `run` neighbours, `pitch` elements from
/// one to the next.
pub(crate) struct Window<'a, T> {
    values: &'a [T],
    starts: [usize; PIXELS],
    rows: usize,
    run: usize,
    pitch: usize,
}

impl<'a, T> Window<'a, T> {
    /// `None` if an activation would lie outside of `values`.
    #[inline(always)]
    pub(crate) fn new(values: &'a [T], starts: [usize; PIXELS], [rows, run]: [usize; 2], pitch: usize) -> Option<Self> {
        let reach = rows.saturating_sub(1).checked_mul(pitch)?.checked_add(run)?;
        let last = starts.iter().fold(0, |last, &start| last.max(start));
        (last.checked_add(reach)? <= values.len()).then_some(Self { values, starts, rows, run, pitch })
    }

    /// Its runs in pieces of at most so many neighbours, one after another.
    #[inline(always)]
    pub(crate) fn pieces(&self, most: usize) -> impl Iterator<Item = Self> {
        (0..self.rows).flat_map(move |row| {
            (0..self.run).step_by(most).map(move |first| Self {
                values: self.values,
                starts: self.starts.map(|start| start + row * self.pitch + first),
                rows: 1,
                run: most.min(self.run - first),
                pitch: 0,
            })
        })
    }

    /// Activations of a pixel.
    #[inline(always)]
    pub(crate) fn taps(&self) -> usize {
        self.rows * self.run
    }

    /// The run of a row of the kernel at a pixel.
    #[inline(always)]
    fn run_of(&self, row: usize, pixel: usize) -> &'a [T] {
        let start = self.starts.get(pixel).map_or(0, |start| start + row * self.pitch);
        self.values.get(start..start + self.run).unwrap_or_default()
    }
}

/// How the accumulators of a block's channels become results, see [`requantize`](crate::fixed::requantize).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    multiplier: Lanes<i64>,
    /// Bits by which products are shifted right.
    right: Lanes<i64>,
    rounding: Lanes<i64>,
}

impl Scale {
    /// The same for all channels.
    pub(crate) fn uniform(multiplier: i32, shift: i32) -> Self {
        Self::new(&[[multiplier, shift]; LANES], 0)
    }

    /// From the (multiplier, shift) of each channel; channels beyond them give zeros.
    pub(crate) fn new(channels: &[[i32; 2]], bits: u32) -> Self {
        let mut scale = Self { multiplier: [0; LANES], right: [1; LANES], rounding: [0; LANES] };
        let lanes = scale.multiplier.iter_mut().zip(&mut scale.right).zip(&mut scale.rounding);
        for (((multiplier, right), rounding), &[factor, shift]) in lanes.zip(channels) {
            *multiplier = factor.into();
            *right = i64::from(31 - shift.saturating_add(bits as i32).clamp(-31, 30));
            *rounding = 1 << (*right - 1);
        }
        scale
    }
}

/// Integers that tensors hold.
pub(crate) trait Narrow: bytemuck::Pod + Into<i32> + Send + Sync {
    /// The nearest.
    fn nearest(value: i32) -> Self;
}

impl Narrow for i8 {
    #[inline(always)]
    fn nearest(value: i32) -> Self {
        saturate_i8(value)
    }
}

impl Narrow for i16 {
    #[inline(always)]
    fn nearest(value: i32) -> Self {
        saturate_i16(value)
    }
}

impl Narrow for i32 {
    #[inline(always)]
    fn nearest(value: i32) -> Self {
        value
    }
}

/// The affine map of each of a block's channels, with bits by which products are shifted right, see
/// [`affine`](crate::fixed::affine).
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub(crate) factors: &'a Lanes<i32>,
    pub(crate) summands: &'a Lanes<i32>,
    pub(crate) right: u32,
}

/// What an instruction set brings. Weights of a panel of `N` blocks stand in (row, group of taps, block, channel, tap in group)
/// order, groups of four for bytes, two for words, one for floats; runs are a whole number of groups.
pub(crate) trait Wide: Copy {
    /// What is added to activations of eight bits for products of bytes: 128 where they have no sign there, else 0. `None` if there
    /// are no such products; activations of eight bits are words then.
    const OFFSET: Option<i32>;

    /// `sums[block][pixel][channel] += Σ activations·weights`, modulo 2³², of activations with [`OFFSET`](Self::OFFSET).
    #[inline(always)]
    fn dot_bytes<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, u8>, weights: &[i8]) {
        portable::dot_bytes::<Self, N>(sums, window, weights);
    }

    /// The same for activations and weights of 16 bits, whose products of neighbours fit 32 bits together.
    fn dot_words<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]);

    /// The same with `=` in the place of `+=`.
    #[inline(always)]
    fn multiply_words<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        for sums in sums.iter_mut().take(N) {
            *sums = [[0; LANES]; PIXELS];
        }
        self.dot_words::<N>(sums, window, weights);
    }

    /// The same as `dot_words` in single precision, in the order of the taps.
    fn dot_floats<const N: usize>(self, sums: &mut Sums<f32>, window: &Window<'_, f32>, weights: &[f32]);

    /// [`requantize`](crate::fixed::requantize) of a block's accumulators.
    #[inline(always)]
    fn requantize(self, values: &mut Lanes<i32>, scale: &Scale) {
        let scales = scale.multiplier.iter().zip(&scale.right).zip(&scale.rounding);
        for (value, ((&multiplier, &right), &rounding)) in values.iter_mut().zip(scales) {
            let product = i64::from(*value) * multiplier + rounding;
            *value = saturate(product >> (right & 63));
        }
    }

    /// Wider values.
    #[inline(always)]
    fn load<T: Narrow>(self, values: &Lanes<T>) -> Lanes<i32> {
        values.map(Into::into)
    }

    /// The nearest values of a type.
    #[inline(always)]
    fn store<T: Narrow>(self, lanes: &Lanes<i32>, values: &mut Lanes<T>) {
        for (value, &lane) in values.iter_mut().zip(lanes) {
            *value = T::nearest(lane);
        }
    }

    /// Adds a number to each, saturating.
    #[inline(always)]
    fn saturating_add(self, lanes: &mut Lanes<i32>, summand: i32) {
        for lane in lanes {
            *lane = lane.saturating_add(summand);
        }
    }

    /// The weights of attention's scores below the largest one, see [`exp2_neg`](crate::fixed::exp2_neg); of negative numbers, that
    /// of 0.
    #[inline(always)]
    fn exp2_neg(self, lanes: &mut Lanes<i32>, bits: u32) {
        for lane in lanes {
            *lane = crate::fixed::exp2_neg((*lane).max(0).unsigned_abs(), bits);
        }
    }

    /// [`affine`](crate::fixed::affine).
    #[inline(always)]
    fn affine(self, values: &mut Lanes<i32>, map: &Affine<'_>) {
        let right = map.right & 31;
        let rounding = i64::from(1u32 << right >> 1);
        for ((value, &factor), &summand) in values.iter_mut().zip(map.factors).zip(map.summands) {
            let product = i64::from(*value) * i64::from(factor) + rounding;
            *value = saturate((product >> right) + i64::from(summand));
        }
    }

    /// [`silu`](crate::fixed::silu).
    #[inline(always)]
    fn silu(self, values: &mut Lanes<i32>) {
        const LIMIT: i32 = (1 << 27) - 1;
        for value in values {
            let magnitude = value.unsigned_abs();
            let pair = SILU[(magnitude >> 8).min(256) as usize];
            let tail = (pair & 0xFFFF) + (((pair >> 16) * (magnitude & 255) as i32 + 128) >> 8);
            *value = ((*value).clamp(0, LIMIT) << (SILU_BITS - NORM_BITS)) - tail;
        }
    }
}

/// The tail of SiLU, see [`fixed::silu`](crate::fixed::silu): for each interval of its table where it starts, in the low half, and
/// by how much it grows; zeros behind.
static SILU: [i32; 512] = {
    let mut pairs = [0; 512];
    let mut at = 0;
    while at + 1 < SILU_TAIL.len() {
        let (low, high) = (SILU_TAIL[at] as i32, SILU_TAIL[at + 1] as i32);
        pairs[at] = low | (high - low) << 16;
        at += 1;
    }
    pairs
};

/// Work that is compiled once for each instruction set. `run` and what it calls are to be inlined: code that is not has no more
/// than the target's own instructions.
pub(crate) trait Work {
    type Output;

    fn run<W: Wide>(self, wide: W) -> Self::Output;
}

/// An instruction set that the processor at hand has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instructions(Set);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128(simd128::Simd128),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon<false>),
    #[cfg(target_arch = "aarch64")]
    DotProduct(neon::Neon<true>),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Instructions {
    /// The best that the processor has.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self(Set::Portable))
    }

    /// All that the processor has, the best first; the last is what the program was compiled for.
    pub fn available() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "aarch64")]
            neon::Neon::detect().map(Set::DotProduct),
            #[cfg(target_arch = "aarch64")]
            Some(Set::Neon(neon::Neon::ALWAYS)),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Some(Set::Simd128(simd128::Simd128)),
            #[cfg(target_arch = "x86_64")]
            avx512::Avx512::detect().map(Set::Avx512),
            #[cfg(target_arch = "x86_64")]
            avx2::Avx2::detect().map(Set::Avx2),
            Some(Set::Portable),
        ]
        .into_iter()
        .flatten()
        .map(Self)
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Set::Simd128(_) => "SIMD of WebAssembly",
            #[cfg(target_arch = "aarch64")]
            Set::Neon(_) => "NEON",
            #[cfg(target_arch = "aarch64")]
            Set::DotProduct(_) => "NEON with dot products",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => "AVX-512 with VNNI",
        }
    }

    /// Does work with these instructions.
    #[inline]
    pub(crate) fn dispatch<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            Set::Portable => work.run(portable::Portable),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Set::Simd128(simd) => work.run(simd),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(neon) => work.run(neon),
            #[cfg(target_arch = "aarch64")]
            Set::DotProduct(proof) => proof.dispatch(work),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(proof) => proof.dispatch(work),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(proof) => proof.dispatch(work),
        }
    }

    /// What is added to activations of eight bits for products of bytes, see [`Wide::OFFSET`].
    pub(crate) fn offset(self) -> Option<i32> {
        struct Offset;
        impl Work for Offset {
            type Output = Option<i32>;

            #[inline(always)]
            fn run<W: Wide>(self, _wide: W) -> Option<i32> {
                W::OFFSET
            }
        }
        self.dispatch(Offset)
    }
}

impl fmt::Debug for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
