//! [`requantize`](crate::fixed::requantize) of many values, for which a core may have a kernel.

#[cfg(any(armv6m, test))]
use crate::arch;
use crate::fixed::{HighWord, multiply, saturating_shift};

/// [`requantize`](crate::fixed::requantize) of each value: what depends on the multiplier alone is done once.
#[inline(never)]
pub fn requantize_each(values: &mut [i32], multiplier: i32, shift: i32) {
    let right = (31 - shift.clamp(-31, 30)) as u32;
    #[cfg(armv6m)]
    let high = HighWord::with_room(values, multiplier, shift);
    #[cfg(not(armv6m))]
    let high = HighWord::new(multiplier, right);
    if let Some(high) = high {
        #[cfg(any(armv6m, test))]
        arch::scale_each(values, high);
        #[cfg(not(any(armv6m, test)))]
        values.iter_mut().for_each(|value| *value = high.scale(*value));
    } else {
        let rounding = 1i64 << (right - 1);
        values.iter_mut().for_each(|value| *value = saturating_shift(multiply(*value, multiplier) + rounding, right));
    }
}

/// [`requantize`](crate::fixed::requantize) of each value less `zero`; values have some bits. Where these are few there is room
/// above them, and the high word decides for every shift of practical size.
pub(crate) fn requantize_centered(values: &mut [i32], (bits, zero): (u32, i32), multiplier: i32, shift: i32) {
    values.iter_mut().for_each(|value| *value = value.saturating_sub(zero));
    let right = (31 - shift.clamp(-31, 30)) as u32;
    let left = 33u32.saturating_sub(right);
    let is_narrow = bits <= 16 && zero.unsigned_abs() <= NARROW / 2;
    // Where a product of 64 bits takes long anyway, small code wins.
    if !cfg!(no_long_multiply) && is_narrow && left > 0 && left <= NARROW_ROOM {
        values.iter_mut().for_each(|value| *value <<= left);
        requantize_each(values, multiplier, -2);
    } else {
        requantize_each(values, multiplier, shift);
    }
}

/// What a value of 16 bits and a zero point of 16 bits are apart at most.
const NARROW: u32 = 1 << 17;

/// Bits by which [`NARROW`] can grow.
const NARROW_ROOM: u32 = 13;
