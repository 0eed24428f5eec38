//! The DSP extension of Armv7E-M and Armv8-M Mainline: two products of 16 bits and their sum in one instruction.
//!
//! Four weights of a row are one word, from any address. `sxtb16` spreads two of its bytes, 0 and 2 or 1 and 3, over the
//! halves of a register; the activations come in the same pairs, and `smlad` adds both products of a pair. A sum beyond
//! 32 bits wraps, as in the reference.

use super::QUAD;
use super::reference::dot4;

/// Activations and weights that are taken at once.
const STEP: usize = 4;

/// See [`reference::dot4_i8`](super::reference::dot4_i8).
#[inline(never)]
pub(crate) fn dot4_i8(sums: [i32; QUAD], activations: &[i8], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    dot4_pairs(sums, activations, weights, |four: &[i8; STEP]| {
        let word = bytemuck::cast(*four);
        [even_bytes(word), odd_bytes(word)]
    })
}

/// See [`reference::dot4_i16`](super::reference::dot4_i16).
#[inline(never)]
pub(crate) fn dot4_i16(sums: [i32; QUAD], activations: &[i16], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
    dot4_pairs(sums, activations, weights, |four: &[i16; STEP]| {
        let [low, high]: [u32; 2] = bytemuck::cast(*four);
        [low & 0xFFFF | high << 16, low >> 16 | high & 0xFFFF_0000]
    })
}

/// `pairs` gives activations 0 and 2, and 1 and 3, as halves of a word.
#[inline(always)]
fn dot4_pairs<T: Copy + Into<i32>>(
    mut sums: [i32; QUAD],
    activations: &[T],
    [a, b, c, d]: [&[i8]; QUAD],
    pairs: impl Fn(&[T; STEP]) -> [u32; 2],
) -> [i32; QUAD] {
    let (activations, activations_rest) = activations.as_chunks();
    let (a, a_rest) = a.as_chunks::<STEP>();
    let (b, b_rest) = b.as_chunks::<STEP>();
    let (c, c_rest) = c.as_chunks::<STEP>();
    let (d, d_rest) = d.as_chunks::<STEP>();
    for ((((x, &a), &b), &c), &d) in activations.iter().zip(a).zip(b).zip(c).zip(d) {
        let [even, odd] = pairs(x);
        for (sum, weights) in sums.iter_mut().zip([a, b, c, d]) {
            let weights = bytemuck::cast(weights);
            *sum = multiply_add(*sum, even, even_bytes(weights));
            *sum = multiply_add(*sum, odd, odd_bytes(weights));
        }
    }
    dot4(sums, activations_rest, [a_rest, b_rest, c_rest, d_rest])
}

/// Bytes 0 and 2, sign-extended to halves.
#[inline(always)]
fn even_bytes(word: u32) -> u32 {
    #[cfg(dsp)]
    {
        let result;
        // SAFETY: arithmetic on registers; the target has the extension, or `build.rs` would not have chosen this file.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "sxtb16 {result}, {word}",
                result = lateout(reg) result, word = in(reg) word,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    model::even_bytes(word)
}

/// Bytes 1 and 3, sign-extended to halves.
#[inline(always)]
fn odd_bytes(word: u32) -> u32 {
    #[cfg(dsp)]
    {
        let result;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "sxtb16 {result}, {word}, ror #8",
                result = lateout(reg) result, word = in(reg) word,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    model::even_bytes(word.rotate_right(8))
}

/// The sum and the products of both halves, as signed numbers, modulo 2³².
#[inline(always)]
fn multiply_add(sum: i32, a: u32, b: u32) -> i32 {
    #[cfg(dsp)]
    {
        let result;
        // SAFETY: as above. A sum that wraps sets the flag Q, so flags are not preserved.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "smlad {result}, {a}, {b}, {sum}",
                result = lateout(reg) result, a = in(reg) a, b = in(reg) b, sum = in(reg) sum,
                options(pure, nomem, nostack),
            );
        }
        result
    }
    #[cfg(not(dsp))]
    model::multiply_add(sum, a, b)
}

/// The instructions as the architecture manual defines them (Armv7-M, A7.7), for machines without.
#[cfg(not(dsp))]
mod model {
    pub(super) fn even_bytes(word: u32) -> u32 {
        let extend = |byte: u32| u32::from(i16::from(byte as u8 as i8) as u16);
        extend(word) | extend(word >> 16) << 16
    }

    pub(super) fn multiply_add(sum: i32, a: u32, b: u32) -> i32 {
        let half = |word: u32| i32::from(word as u16 as i16);
        sum.wrapping_add(half(a) * half(b)).wrapping_add(half(a >> 16) * half(b >> 16))
    }
}
