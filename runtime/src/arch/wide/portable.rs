//! What every processor can do, and what the others give the bits of.

use super::{LANES, Lanes, Sums, Wide, Window};

/// No more than the target's own instructions.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Adds the products of groups of `GROUP` taps.
#[inline(always)]
fn dot<T: Copy, V: Copy, S: Copy, const N: usize, const GROUP: usize>(
    sums: &mut Sums<S>,
    window: &Window<'_, T>,
    weights: &[V],
    add: impl Fn(&mut Lanes<S>, [T; GROUP], &[[V; GROUP]]),
) {
    let mut groups = weights.as_chunks::<GROUP>().0.chunks_exact(N * LANES);
    for row in 0..window.rows {
        for group in 0..window.run / GROUP {
            let Some(weights) = groups.next() else { return };
            for pixel in 0..super::PIXELS {
                let Some(&taps) = window.run_of(row, pixel).as_chunks::<GROUP>().0.get(group) else { return };
                for (block, weights) in sums.iter_mut().zip(weights.chunks_exact(LANES)) {
                    if let Some(sums) = block.get_mut(pixel) {
                        add(sums, taps, weights);
                    }
                }
            }
        }
    }
}

/// See [`Wide::dot_bytes`].
#[inline(always)]
pub(super) fn dot_bytes<W: Wide, const N: usize>(sums: &mut Sums<i32>, window: &Window<'_, u8>, weights: &[i8]) {
    let offset = W::OFFSET.unwrap_or(0);
    let value = |byte: u8| i32::from(byte.wrapping_sub(offset as u8) as i8) + offset;
    dot::<_, _, _, N, 4>(sums, window, weights, |sums, taps, weights| {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            let products = taps.iter().zip(weights).map(|(&a, &w)| value(a) * i32::from(w));
            *sum = products.fold(*sum, i32::wrapping_add);
        }
    });
}

impl Wide for Portable {
    const OFFSET: Option<i32> = None;

    fn dot_words<const N: usize>(self, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        dot::<_, _, _, N, 2>(sums, window, weights, |sums, taps, weights| {
            for (sum, weights) in sums.iter_mut().zip(weights) {
                let products = taps.iter().zip(weights).map(|(&a, &w)| i32::from(a) * i32::from(w));
                *sum = products.fold(*sum, i32::wrapping_add);
            }
        });
    }

    fn dot_floats<const N: usize>(self, sums: &mut Sums<f32>, window: &Window<'_, f32>, weights: &[f32]) {
        dot::<_, _, _, N, 1>(sums, window, weights, |sums, [tap], weights| {
            for (sum, [weight]) in sums.iter_mut().zip(weights) {
                *sum += tap * weight;
            }
        });
    }
}
