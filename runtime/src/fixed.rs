//! Integer arithmetic of the `i8` precision: the one place where rounding, tables and fixed-point formats are defined.
//!
//! Every function here is total: it saturates or wraps as stated, and never panics. Each is held against an `f64` or
//! `i128` oracle over its whole domain in the tests.

mod division;

pub use self::division::{divide, divide_signed, isqrt};
use crate::format::Activation;
use crate::tables::{EXP2, SILU_TAIL};
#[cfg(feature = "activations")]
use crate::tables::{GELU_TAIL, MISH_NEGATIVE_TAIL, MISH_TAIL};

/// Fractional bits of the sample `x_t`, the model output and the noise in the `i8` precision.
pub const SAMPLE_BITS: u32 = 20;

/// Fractional bits of a normalized activation between the affine map and the SiLU.
pub const NORM_BITS: u32 = 12;

/// Fractional bits of the result of [`silu`].
pub const SILU_BITS: u32 = 15;

/// Extra fractional bits that a convolution with a residual keeps until the sum is rounded.
pub const RESIDUAL_BITS: u32 = 8;

/// Bits that the 64-bit sum of a linear operation gives up on its way to 32 bits.
pub const LINEAR_SHIFT: u32 = 12;

/// `value · multiplier · 2^(shift − 31)`, rounded once, half toward +∞, saturated to `i32`.
///
/// `multiplier` is normally in [2³⁰, 2³¹) and `shift` in [−31, 30]; a shift outside is clamped, so that no input can
/// overflow. With `k = 31 − shift` this is `(value·multiplier + 2^(k−1)) >> k` over an `i64` product: for `shift ≤ −1`
/// a 32-bit core needs only the high word.
#[inline(always)]
pub const fn requantize(value: i32, multiplier: i32, shift: i32) -> i32 {
    let shift = if shift < -31 { -31 } else { shift };
    let shift = if shift > 30 { 30 } else { shift };
    let right = (31 - shift) as u32;
    if let Some(high) = HighWord::new(multiplier, right) {
        return high.scale(value);
    }
    saturate_i32((multiply(value, multiplier) + (1 << (right - 1))) >> right)
}

/// `(value·multiplier + 2^(k−1)) >> k` for `k > 32`, which the high word of the product decides: the rounding constant has
/// no low word, and the product has at most 62 bits.
#[derive(Clone, Copy)]
pub(crate) struct HighWord {
    multiplier: i32,
    rounding: i32,
    right: u32,
}

impl HighWord {
    /// For a product that is shifted right by `right` bits; `None` if its low word counts.
    #[inline(always)]
    pub(crate) const fn new(multiplier: i32, right: u32) -> Option<Self> {
        if right > 32 && right <= 62 {
            Some(Self { multiplier, rounding: 1 << (right - 33), right: right - 32 })
        } else {
            None
        }
    }

    /// For [`requantize`] of these values by this multiplier and shift, for which they are shifted left if there is room above
    /// them: the low word of a product takes more instructions where products have 32 bits. None of those results is saturated.
    #[cfg(any(all(armv6m, feature = "i8"), test))]
    pub(crate) fn with_room(values: &mut [i32], multiplier: i32, shift: i32) -> Option<Self> {
        let right = (31 - shift.clamp(-31, 30)) as u32;
        if let Some(room @ 0..=30) = right.checked_sub(2) {
            let bits = values.iter().fold(0, |bits, &value| bits | (value ^ value >> 31));
            if bits >> room != 0 {
                return None;
            }
            values.iter_mut().for_each(|value| *value <<= 31 - room);
            return Self::new(multiplier, 33);
        }
        Self::new(multiplier, right)
    }

    /// For high words to which `rounding` is added before they are shifted right, by 1 to 30; no sum may leave 32 bits.
    #[cfg(all(feature = "i8", not(any(no_long_multiply, dsp))))]
    pub(crate) const fn with_rounding(multiplier: i32, rounding: i32, right: u32) -> Self {
        Self { multiplier, rounding, right }
    }

    /// For [`requantize`] by this multiplier and shift.
    #[cfg(feature = "i8")]
    #[inline(always)]
    pub(crate) const fn of(multiplier: i32, shift: i32) -> Option<Self> {
        let shift = if shift < -31 { -31 } else { shift };
        if shift < -1 { Self::new(multiplier, (31 - shift) as u32) } else { None }
    }

    /// The multiplier, and what the high word is shifted right by, 1 to 30.
    #[cfg(all(feature = "i8", any(armv6m, test)))]
    pub(crate) const fn parts(self) -> (i32, u32) {
        (self.multiplier, self.right)
    }

    /// The same with `zero` added to each result; `None` where a sum might leave 32 bits.
    #[cfg(feature = "i8")]
    #[inline(always)]
    pub(crate) const fn around(self, zero: i32) -> Option<Self> {
        let Some(twice) = zero.checked_mul(2) else { return None };
        // Half a unit and the zero point, below 2³⁰ where the product is too.
        let constant = twice + 1;
        if constant.unsigned_abs().leading_zeros() <= self.right {
            return None;
        }
        Some(Self { rounding: constant << (self.right - 1), ..self })
    }

    #[inline(always)]
    pub(crate) const fn scale(self, value: i32) -> i32 {
        // The mask keeps 1 to 30, and spares the test of a shift that is too far.
        (multiply_high(value, self.multiplier) + self.rounding) >> (self.right & 31)
    }
}

/// The high word of the product.
#[inline(always)]
const fn multiply_high(a: i32, b: i32) -> i32 {
    if cfg!(no_long_multiply) { multiply_high_by_halves(a, b) } else { ((a as i64 * b as i64) >> 32) as i32 }
}

/// The product.
#[inline(always)]
pub(crate) const fn multiply(a: i32, b: i32) -> i64 {
    if cfg!(no_long_multiply) {
        (multiply_high(a, b) as i64) << 32 | a.wrapping_mul(b) as u32 as i64
    } else {
        a as i64 * b as i64
    }
}

/// [`multiply_high`] from products of halves, for processors whose products have 32 bits.
#[inline(always)]
const fn multiply_high_by_halves(a: i32, b: i32) -> i32 {
    let (a_high, a_low, b_high, b_low) = (a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF);
    let low = (a_low as u32 * b_low as u32) >> 16;
    // No sum leaves 32 bits: a product of halves is at most 2³¹ − 2¹⁶ from zero.
    let middle = a_high * b_low + low as i32;
    let other = a_low * b_high + (middle & 0xFFFF);
    a_high * b_high + (middle >> 16) + (other >> 16)
}

/// `value·factor`, shifted right by `right` bits, 4 to 30, and rounded half up, plus `summand`, saturated.
#[inline(always)]
pub const fn affine(value: i32, factor: i32, right: u32, summand: i32) -> i32 {
    let right = right & 31;
    let product = multiply(value, factor) + (1 << right >> 1);
    let (high, low) = ((product >> 32) as i32, product as u32);
    // Shifts of words, where 64 bits would take branches; two for one, so that 32 is none too many.
    let shifted = (low >> right | (high as u32) << 1 << (31 - right)) as i32;
    if high >> right == shifted >> 31 {
        shifted.saturating_add(summand)
    } else {
        saturate_i32((product >> right) + summand as i64)
    }
}

/// [`affine`] of values of 16 bits by the high word: what it multiplies the value by first; `None` where the shift is too
/// short.
#[cfg(feature = "i8")]
#[inline(always)]
pub(crate) const fn affine_room(right: u32) -> Option<u32> {
    if right >= 17 && right <= 30 { Some(33 - right) } else { None }
}

/// [`affine`] of a value of 16 bits that was shifted left by [`affine_room`]. The product has at most 62 bits, and the word
/// that is left of it at most 30.
#[cfg(feature = "i8")]
#[inline(always)]
pub(crate) const fn affine_narrow(value: i32, factor: i32, summand: i32) -> i32 {
    ((multiply_high(value, factor) + 1) >> 1).saturating_add(summand)
}

/// [`affine`] of a value of 16 bits where there is [`affine_room`], by products of halves: the lower half of the lower one is
/// below what is rounded.
#[cfg(feature = "i8")]
#[inline(always)]
pub(crate) const fn affine_by_halves(value: i32, factor: i32, right: u32, summand: i32) -> i32 {
    let low = value.wrapping_mul(factor & 0xFFFF) >> 16;
    let high = value.wrapping_mul(factor >> 16).wrapping_add(low);
    (high.wrapping_add(1 << ((right - 17) & 31)) >> ((right - 16) & 31)).saturating_add(summand)
}

/// The nearest `i32` of `value >> right`, for 1 ≤ `right` ≤ 32: shifts of words, where 64 bits would take branches.
#[cfg(feature = "i8")]
#[inline(always)]
pub(crate) const fn saturating_shift(value: i64, right: u32) -> i32 {
    let (high, low) = ((value >> 32) as i32, value as u32);
    // Two shifts, so that 32 is none too many.
    let result = ((low >> (right - 1) >> 1) | (high as u32) << (32 - right)) as i32;
    if high >> (right - 1) >> 1 == result >> 31 {
        result
    } else if high < 0 {
        i32::MIN
    } else {
        i32::MAX
    }
}

/// The nearest `i32`.
#[inline(always)]
pub const fn saturate_i32(value: i64) -> i32 {
    if value > i32::MAX as i64 {
        i32::MAX
    } else if value < i32::MIN as i64 {
        i32::MIN
    } else {
        value as i32
    }
}

/// The nearest `i16`.
#[inline(always)]
pub const fn saturate_i16(value: i32) -> i16 {
    if value > i16::MAX as i32 {
        i16::MAX
    } else if value < i16::MIN as i32 {
        i16::MIN
    } else {
        value as i16
    }
}

/// The nearest `i8`.
#[inline(always)]
pub const fn saturate_i8(value: i32) -> i8 {
    if value > i8::MAX as i32 {
        i8::MAX
    } else if value < i8::MIN as i32 {
        i8::MIN
    } else {
        value as i8
    }
}

/// `value >> shift`, rounded half toward +∞; a shift of 0 is exact, shifts above 62 give 0 or −1 rounded to 0.
#[inline(always)]
pub const fn round_shift(value: i64, shift: u32) -> i64 {
    if shift == 0 {
        return value;
    }
    let shift = if shift > 62 { 62 } else { shift };
    // Halving first leaves room for the rounding constant at any value.
    ((value >> (shift - 1)) + 1) >> 1
}

/// `value·2^(−by)`, rounded half toward +∞, saturated.
#[cfg(feature = "i8")]
pub(crate) fn scale_by_power(value: i64, by: i32) -> i64 {
    if by >= 0 { round_shift(value, by.unsigned_abs()) } else { value.saturating_mul(1 << (-by).clamp(0, 62)) }
}

/// `x·sigmoid(x)` for `x` in [`NORM_BITS`] fractional bits, result in [`SILU_BITS`], saturated to |x| < 2¹⁵.
///
/// Uses `silu(x) = max(x, 0) − g(|x|)` with `g(u) = u·sigmoid(−u)`, an even function that vanishes, so that one table
/// over [0, 16) in steps of 1/16 with linear interpolation serves the whole line. The absolute error is below
/// 2.6·10⁻⁴ (h²/8·max|g″| = 1/4096, and the table's rounding).
#[inline(always)]
pub const fn silu(x: i32) -> i32 {
    const LIMIT: i32 = (1 << 27) - 1;
    let magnitude = x.unsigned_abs();
    let index = (magnitude >> 8) as usize;
    if index + 1 >= SILU_TAIL.len() {
        // Beyond the table nothing is left of the tail.
        return if x > LIMIT {
            LIMIT << (SILU_BITS - NORM_BITS)
        } else if x > 0 {
            x << (SILU_BITS - NORM_BITS)
        } else {
            0
        };
    }
    let (low, high) = (SILU_TAIL[index] as i32, SILU_TAIL[index + 1] as i32);
    let fraction = (magnitude & 255) as i32;
    let positive = (x & !(x >> 31)) << (SILU_BITS - NORM_BITS);
    positive - (low + (((high - low) * fraction + 128) >> 8))
}

/// What happens to a value on its way into a ring, before its units become the ring's.
#[cfg(all(feature = "i8", not(no_long_multiply)))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The map of its channel, then [`silu`].
    Silu,
    /// The same, shifted left by one more bit than that has.
    FineSilu,
    /// The map of its channel.
    Affine,
    /// Nothing.
    Raw,
}

/// How values come into a ring where high words of products decide: of 16 bits, those of a SiLU of 8 bits as well.
#[cfg(all(feature = "i8", not(no_long_multiply)))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntoRing {
    pub(crate) entry: Entry,
    /// Subtracted from a raw value.
    pub(crate) zero: i32,
    /// What a value is shifted left by before it is multiplied: 3 to 16, so that the product is 33 bits too far left, or for
    /// raw values what the last shift needs.
    pub(crate) left: u32,
    pub(crate) multiplier: i32,
    /// Added to the high word of the last product, which is then shifted right: rounding and the ring's zero point.
    pub(crate) rounding: i32,
    pub(crate) right: u32,
}

#[cfg(all(feature = "i8", not(no_long_multiply)))]
impl IntoRing {
    /// Bits of a value behind an affine map alone. More would be beyond both ends of the ring, or there is no kernel.
    pub(crate) const BITS: u32 = 25;

    /// What such a value is shifted left by, to have as many bits as a SiLU leaves.
    pub(crate) const AFFINE_LEFT: u32 = 31 - Self::BITS;

    /// By the maps of channels with this shift, and a SiLU if there `is_silu`, then multiplier and shift, into a ring with this zero
    /// point and this largest value.
    pub(crate) fn mapped(affine_shift: u32, requant: [i32; 2], [zero, most]: [i32; 2], is_silu: bool) -> Option<Self> {
        let right = (-1i32).checked_sub(requant[1])?;
        let (entry, more) = match (is_silu, right) {
            (true, 0) => (Entry::FineSilu, 1),
            (true, _) => (Entry::Silu, 0),
            _ => (Entry::Affine, Self::AFFINE_LEFT - (SILU_BITS - NORM_BITS)),
        };
        let right = right.checked_add(more as i32)?;
        let map = Self::new(entry, 0, affine_room(affine_shift)?, requant[0], right, zero)?;
        let ends = [-(1 << 30), ((1 << (Self::BITS - 1)) - 1) << Self::AFFINE_LEFT].map(|end| map.to_ring(end));
        (is_silu || ends[0] < -most && ends[1] >= most).then_some(map)
    }

    /// A raw value less `from`, by multiplier and shift, then the zero point; not a copy.
    pub(crate) fn raw(from: i32, [multiplier, shift]: [i32; 2], zero: i32) -> Option<Self> {
        // A difference has 17 bits and a sign, shifted left by at most 13, and its product with the multiplier 30 bits at most.
        if from.unsigned_abs() >> 16 != 0 || !(-31..=11).contains(&shift) || multiplier == 0 {
            return None;
        }
        let (left, right) = if shift < -1 { (0, -1 - shift) } else { (shift + 2, 1) };
        Self::new(Entry::Raw, from, left as u32, multiplier, right, zero)
    }

    // Out of line, as there is more than one caller.
    #[inline(never)]
    fn new(entry: Entry, from: i32, left: u32, multiplier: i32, right: i32, zero: i32) -> Option<Self> {
        let right = Some(right).filter(|right| (1..=30).contains(right))? as u32;
        // Half a unit and the zero point, below 2³⁰ where the product is too.
        let constant = zero.checked_mul(2)?.checked_add(1)?;
        let fits = constant.unsigned_abs().leading_zeros() > right;
        fits.then(|| Self { entry, zero: from, left, multiplier, rounding: constant << (right - 1), right })
    }

    /// Whether pixels of some channels may be so many elements apart, and have a map for each channel if they need any.
    #[inline(always)]
    pub(crate) const fn takes(&self, maps: usize, [channels, advance]: [usize; 2]) -> bool {
        channels > 0 && channels <= advance && (matches!(self.entry, Entry::Raw) || channels <= maps)
    }

    /// An activation with [`SILU_BITS`], or what was shifted left, in the units of the ring.
    #[inline(always)]
    pub(crate) const fn to_ring(self, value: i32) -> i32 {
        (multiply_high(value, self.multiplier) + self.rounding) >> self.right
    }
}

/// The limit of what activations read.
#[cfg(feature = "activations")]
const LIMIT: i32 = (1 << 27) - 1;

/// `max(x, 0)` less what a table holds for `|x|`, which depends on whether `x` is positive.
#[cfg(feature = "activations")]
#[inline(always)]
fn rectified(x: i32, tail: impl Fn(bool) -> &'static [u16]) -> i32 {
    let x = x.clamp(-LIMIT, LIMIT);
    let magnitude = x.unsigned_abs();
    let index = (magnitude >> 8) as usize;
    let table = tail(x > 0);
    let tail = match (table.get(index), table.get(index + 1)) {
        (Some(&low), Some(&high)) => {
            let fraction = (magnitude & 255) as i32;
            let (low, high) = (i32::from(low), i32::from(high));
            low + (((high - low) * fraction + 128) >> 8)
        }
        _ => 0,
    };
    let positive = if x > 0 { x << (SILU_BITS - NORM_BITS) } else { 0 };
    positive - tail
}

/// An activation of `x` in [`NORM_BITS`] fractional bits, result in [`SILU_BITS`], saturated to |x| < 2¹⁵.
///
/// [`silu`], or `max(x, 0)` less one table (GELU) or one for each sign (Mish) as there; absolute errors below 4.1·10⁻⁴.
/// Without the feature `activations` it is [`silu`] whatever the activation: sessions refuse such models.
#[inline(always)]
pub fn activate(activation: Activation, x: i32) -> i32 {
    #[cfg(feature = "activations")]
    match activation {
        Activation::Silu => {}
        Activation::Relu => return x.clamp(0, LIMIT) << (SILU_BITS - NORM_BITS),
        Activation::Gelu => return rectified(x, |_| &GELU_TAIL),
        Activation::Mish => return rectified(x, |positive| if positive { &MISH_TAIL } else { &MISH_NEGATIVE_TAIL }),
    }
    let _ = activation;
    silu(x)
}

/// `2^(bits − t/256)` rounded, for `t ≥ 0` in 8 fractional bits and `bits ≤ 15`: the unnormalized softmax weight of
/// a score that lies `t/256` binary orders below the largest. Error below 0.5 unit of the result plus 2⁻¹⁵ relative.
#[inline(always)]
pub fn exp2_neg(t: u32, bits: u32) -> i32 {
    let whole = t >> 8;
    if whole > bits {
        return 0;
    }
    let fraction = (t & 255) as usize;
    // Entries carry 15 fractional bits; one more shift for the rounding bit.
    let entry = match EXP2.get(fraction) {
        Some(&entry) => u32::from(entry),
        None => 0,
    };
    let shift = 15 + whole - bits;
    if shift == 0 { entry as i32 } else { ((entry >> (shift - 1)) + 1).wrapping_shr(1) as i32 }
}

/// `2^x` for `x` in 24 fractional bits, from −32 to 32: a mantissa with 30 fractional bits, from √½ to √2, and the power of two
/// that it is to be multiplied by. The relative error is below 2⁻²⁸.
///
/// The series of `2^r` to its eighth power, of `r` from −½ to ½.
pub fn exp2(x: i32) -> (i32, i32) {
    const BITS: u32 = 24;
    const MANTISSA_BITS: u32 = 30;
    /// `ln(2)^k / k!`.
    const SERIES: [i32; 9] = {
        let mut series = [0; 9];
        let (mut term, mut k) = ((1u64 << MANTISSA_BITS) as f64, 0);
        while k < series.len() {
            series[k] = (term + 0.5) as i32;
            k += 1;
            term *= core::f64::consts::LN_2 / k as f64;
        }
        series
    };
    let power = x.saturating_add(1 << (BITS - 1)) >> BITS;
    let rest = i64::from(x.wrapping_sub(power << BITS) << (MANTISSA_BITS - BITS));
    let mantissa = SERIES.iter().rev().fold(0, |sum, &term| term + ((rest * i64::from(sum)) >> MANTISSA_BITS) as i32);
    (mantissa, power)
}

/// `1/√(v·2⁻¹⁶)` for `v ≥ 1` as `(mantissa, exponent)`: the value is `mantissa·2^(−exponent)` with `mantissa` in
/// [2³⁰, 2³¹]. Relative error below 2⁻³⁰.
pub const fn rsqrt_q16(v: u64) -> (u32, i32) {
    let v = if v == 0 { 1 } else { v };
    // An even left shift brings v into [2⁶², 2⁶⁴), its root into [2³¹, 2³²).
    let even = v.leading_zeros() & !1;
    let root = isqrt(v << even);
    let mantissa = divide(1 << 62, root) as u32;
    // 1/√(v/2¹⁶) = 2⁸·2^(even/2)/root = mantissa·2^(8 + even/2 − 62).
    (mantissa, 54 - (even / 2) as i32)
}

#[cfg(test)]
mod tests;
