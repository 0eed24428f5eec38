//! SSE2, which every x86-64 has: `pmaddwd` multiplies eight pairs of 16 bits and adds the products of neighbours.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_madd_epi16, _mm_setzero_si128, _mm_shufflelo_epi16,
    _mm_srai_epi16, _mm_unpacklo_epi8, _mm_unpacklo_epi64,
};

use super::patches::{GROUP, Group};
use super::quads::dot_in_quads;
use super::{PIXELS, QUAD};

/// See [`reference::dot_patches`].
#[inline]
pub(crate) fn dot_patches(sums: &mut [[i32; PIXELS]], patches: &[Group], weights: &[i8], taps: usize, stride: usize) {
    dot_in_quads(sums, patches, weights, [taps, stride], |sums, patches, quad| {
        // SAFETY: the target has the instructions, or `build.rs` would not have chosen this file.
        unsafe { dot_quad(sums, patches, quad) };
    });
}

/// The sums of four channels whose taps are a whole number of groups.
#[inline(never)]
#[target_feature(enable = "sse2")]
fn dot_quad(sums: &mut [[i32; PIXELS]; QUAD], patches: &[Group], [a, b, c, d]: [&[[i8; GROUP]]; QUAD]) {
    let mut wide = [[_mm_setzero_si128(); 2]; QUAD];
    for ((((group, &a), &b), &c), &d) in patches.iter().zip(a).zip(b).zip(c).zip(d) {
        let pixels = halves(group);
        for (sums, weights) in wide.iter_mut().zip([a, b, c, d]) {
            let weights = spread(weights);
            for (sum, pixels) in sums.iter_mut().zip(pixels) {
                *sum = _mm_add_epi32(*sum, _mm_madd_epi16(pixels, weights));
            }
        }
    }
    for (sums, wide) in sums.iter_mut().zip(wide) {
        let pairs: [[i32; 2]; PIXELS] = bytemuck::cast(wide.map(|vector| words(vector)));
        *sums = pairs.map(|[first, second]| first.wrapping_add(second));
    }
}

/// The activations of pixels 0 and 1, and of 2 and 3.
#[inline]
#[target_feature(enable = "sse2")]
fn halves(group: &Group) -> [__m128i; 2] {
    let from = group.as_ptr().cast::<__m128i>();
    // SAFETY: a group is 32 bytes; the loads need no alignment.
    unsafe { [_mm_loadu_si128(from), _mm_loadu_si128(from.add(1))] }
}

/// The weights of a group as 16 bits in the order of a patch, twice.
#[inline]
#[target_feature(enable = "sse2")]
fn spread(weights: [i8; GROUP]) -> __m128i {
    let bytes = _mm_cvtsi32_si128(i32::from_le_bytes(bytemuck::cast(weights)));
    let signed = _mm_srai_epi16::<8>(_mm_unpacklo_epi8(bytes, bytes));
    let ordered = _mm_shufflelo_epi16::<0b11_01_10_00>(signed);
    _mm_unpacklo_epi64(ordered, ordered)
}

/// Its four lanes.
#[inline]
#[target_feature(enable = "sse2")]
fn words(vector: __m128i) -> [i32; 4] {
    // SAFETY: both are 16 bytes without padding, and any bits are numbers.
    unsafe { core::mem::transmute(vector) }
}
