//! The products of weights and activations, whatever the widths of both.

use core::ops::Range;

use bytemuck::Pod;

#[cfg(feature = "i4")]
use crate::arch::SPREAD;
#[cfg(any(feature = "i4", scalar, test))]
use crate::arch::patches::GROUP;
#[cfg(any(scalar, test))]
use crate::arch::patches::Idle;
use crate::arch::patches::{Group, Patches};
#[cfg(feature = "stored-tiles")]
use crate::arch::winograd::Pair;
use crate::arch::{self, PIXELS, QUAD};
#[cfg(not(no_long_multiply))]
use crate::fixed::IntoRing;
use crate::fixed::{saturate_i8, saturate_i16};
use crate::format::CHANNEL_BLOCK;
use crate::ops::tail;

/// What tiles the elements of a ring are computed by, on cores that have kernels for them, and where files may have weights that
/// are transformed.
#[cfg(all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles")))]
pub(super) use super::winograd::Tiles;
#[cfg(not(all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles"))))]
pub(super) trait Tiles {}
#[cfg(not(all(feature = "tiles", any(tile_kernels, test, feature = "stored-tiles"))))]
impl<T> Tiles for T {}

/// An element of the ring.
pub(super) trait Activation: Pod + Into<i32> + Tiles {
    /// The nearest.
    fn saturate(value: i32) -> Self;

    /// `sums[c] + Σ activations[k]·weights[c][k]`, modulo 2³².
    fn dot4(sums: [i32; QUAD], activations: &[Self], weights: [&[i8]; QUAD]) -> [i32; QUAD];

    /// How patches are made and multiplied.
    fn patches() -> Patches<Self>;

    /// Brings pixels of some channels into the ring, where they are so many elements apart; false where there is no kernel for them.
    #[cfg(not(no_long_multiply))]
    fn gather_i8(map: IntoRing, values: &[i8], maps: &[[i32; 2]], targets: &mut [Self], sizes: [usize; 2]) -> bool;

    /// The same of 16-bit ones.
    #[cfg(not(no_long_multiply))]
    fn gather_i16(map: IntoRing, values: &[i16], maps: &[[i32; 2]], targets: &mut [Self], sizes: [usize; 2]) -> bool;

    /// [`dot4`](Self::dot4) for four-bit weights, those of the four channels side by side.
    #[cfg(feature = "i4")]
    fn dot4_packed(sums: [i32; QUAD], activations: &[Self], weights: &[u16]) -> [i32; QUAD];
}

impl Activation for i8 {
    fn saturate(value: i32) -> Self {
        saturate_i8(value)
    }

    fn dot4(sums: [i32; QUAD], activations: &[Self], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
        arch::dot4_i8(sums, activations, weights)
    }

    #[inline(always)]
    fn patches() -> Patches<Self> {
        arch::patches_i8()
    }

    #[cfg(not(no_long_multiply))]
    fn gather_i8(map: IntoRing, values: &[i8], maps: &[[i32; 2]], targets: &mut [Self], sizes: [usize; 2]) -> bool {
        arch::gather_i8_i8(map, values, maps, targets, sizes)
    }

    #[cfg(not(no_long_multiply))]
    fn gather_i16(map: IntoRing, values: &[i16], maps: &[[i32; 2]], targets: &mut [Self], sizes: [usize; 2]) -> bool {
        arch::gather_i16_i8(map, values, maps, targets, sizes)
    }

    #[cfg(feature = "i4")]
    fn dot4_packed(sums: [i32; QUAD], activations: &[Self], weights: &[u16]) -> [i32; QUAD] {
        arch::dot4_packed_i8(sums, activations, weights)
    }
}

impl Activation for i16 {
    fn saturate(value: i32) -> Self {
        saturate_i16(value)
    }

    fn dot4(sums: [i32; QUAD], activations: &[Self], weights: [&[i8]; QUAD]) -> [i32; QUAD] {
        arch::dot4_i16(sums, activations, weights)
    }

    #[inline(always)]
    fn patches() -> Patches<Self> {
        arch::patches_i16()
    }

    #[cfg(not(no_long_multiply))]
    fn gather_i8(map: IntoRing, values: &[i8], maps: &[[i32; 2]], targets: &mut [Self], sizes: [usize; 2]) -> bool {
        arch::gather_i8_i16(map, values, maps, targets, sizes)
    }

    #[cfg(not(no_long_multiply))]
    fn gather_i16(map: IntoRing, values: &[i16], maps: &[[i32; 2]], targets: &mut [Self], sizes: [usize; 2]) -> bool {
        arch::gather_i16_i16(map, values, maps, targets, sizes)
    }

    #[cfg(feature = "i4")]
    fn dot4_packed(sums: [i32; QUAD], activations: &[Self], weights: &[u16]) -> [i32; QUAD] {
        arch::dot4_packed_i16(sums, activations, weights)
    }
}

/// The weights of some output channels.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    /// One row for each channel.
    I8(&'a [i8]),
    /// One row for each four.
    #[cfg(feature = "i4")]
    I4(&'a [u16]),
    /// Transformed for tiles, two channels after another.
    #[cfg(feature = "stored-tiles")]
    Tiled(&'a [Pair]),
}

/// The taps of a convolution.
#[derive(Clone)]
pub(super) struct Taps {
    pub(super) all: usize,
    /// Those that are in the patches.
    pub(super) used: Range<usize>,
    /// Where a pixel of them has nothing but zeros.
    #[cfg(any(scalar, test))]
    pub(super) idle: Idle,
}

impl Weights<'_> {
    /// Those of `count` channels from `first` on, a multiple of four, each with `taps` weights.
    pub(super) fn of_channels(self, first: usize, count: usize, taps: usize) -> Self {
        match self {
            Weights::I8(weights) => Weights::I8(weights.get(first * taps..(first + count) * taps).unwrap_or_default()),
            #[cfg(feature = "i4")]
            Weights::I4(weights) => {
                let groups = first / QUAD..(first + count).div_ceil(QUAD);
                Weights::I4(weights.get(groups.start * taps..groups.end * taps).unwrap_or_default())
            }
            // Tiles take all of them.
            #[cfg(feature = "stored-tiles")]
            Weights::Tiled(weights) => Weights::Tiled(weights),
        }
    }

    /// The same with what lies behind, as kernels for edges read whole groups of taps, of which the last may reach into the next
    /// channel's row.
    #[cfg(any(scalar, test))]
    pub(super) fn with_behind(self, first: usize, count: usize, taps: usize) -> Self {
        match self {
            Weights::I8(weights) => {
                let end = weights.len().min((first + count) * taps + GROUP - 1);
                Weights::I8(weights.get(first * taps..end).unwrap_or_default())
            }
            #[cfg(any(feature = "i4", feature = "stored-tiles"))]
            others => others.of_channels(first, count, taps),
        }
    }

    /// `Σ activations[k]·weights[c][k]` of each channel at one pixel, wrapping; `runs` are the activations of rows of the
    /// kernel, whose first tap is number `at`.
    #[inline]
    pub(super) fn multiply<'r, R: Activation>(
        self,
        runs: impl Iterator<Item = &'r [R]>,
        [taps, mut at]: [usize; 2],
        pixel: usize,
        accumulators: &mut [[i32; PIXELS]; CHANNEL_BLOCK],
    ) {
        let mut sums = [[0; QUAD]; CHANNEL_BLOCK / QUAD];
        for activations in runs {
            match self {
                Weights::I8(weights) => {
                    for (quad, weights) in sums.iter_mut().zip(weights.chunks((QUAD * taps).max(1))) {
                        // Past the last channel the last row is computed again; its sums are not stored.
                        let mut rows = weights.chunks(taps.max(1));
                        let mut last = &[] as &[i8];
                        let rows = [(); QUAD].map(|()| {
                            last = rows.next().map_or(last, |row| tail(row, at));
                            last
                        });
                        *quad = R::dot4(*quad, activations, rows);
                    }
                }
                #[cfg(feature = "i4")]
                Weights::I4(weights) => {
                    for (quad, row) in sums.iter_mut().zip(weights.chunks(taps.max(1))) {
                        *quad = R::dot4_packed(*quad, activations, tail(row, at));
                    }
                }
                #[cfg(feature = "stored-tiles")]
                Weights::Tiled(_) => {}
            }
            at += activations.len();
        }
        for (accumulators, &sum) in accumulators.iter_mut().zip(sums.as_flattened()) {
            accumulators.get_mut(pixel).into_iter().for_each(|accumulator| *accumulator = sum);
        }
    }

    /// The same at each pixel of the patches, which hold the taps that are used.
    #[inline]
    pub(super) fn multiply_patches<R: Activation>(
        self,
        patches: &[Group],
        of: Taps,
        accumulators: &mut [[i32; PIXELS]; CHANNEL_BLOCK],
    ) {
        let (taps, used) = (of.all, of.used);
        match self {
            #[cfg(any(scalar, test))]
            Weights::I8(weights) => {
                (R::patches().edges)(accumulators, patches, tail(weights, used.start), used.len(), taps, of.idle);
            }
            #[cfg(not(any(scalar, test)))]
            Weights::I8(weights) => {
                (R::patches().multiply)(accumulators, patches, tail(weights, used.start), used.len(), taps);
            }
            #[cfg(feature = "i4")]
            Weights::I4(weights) => {
                for (sums, row) in accumulators.chunks_mut(QUAD).zip(weights.chunks(taps.max(1))) {
                    multiply_packed(&R::patches(), patches, row.get(used.clone()).unwrap_or_default(), sums);
                }
            }
            // Patches go with rows of eight bits.
            #[cfg(feature = "stored-tiles")]
            Weights::Tiled(_) => {}
        }
    }
}

/// The sums of four channels whose four-bit weights stand side by side: some taps at a time become rows of eight bits.
#[cfg(feature = "i4")]
#[inline(never)]
fn multiply_packed<R>(kind: &Patches<R>, patches: &[Group], weights: &[u16], sums: &mut [[i32; PIXELS]]) {
    let mut rows = [[0; SPREAD / GROUP]; QUAD];
    let places = (0..).step_by((SPREAD / kind.taps.max(1)).max(1));
    sums.fill([0; PIXELS]);
    for (weights, place) in weights.chunks(SPREAD).zip(places) {
        arch::spread_packed(&mut rows, weights);
        let mut more = [[0; PIXELS]; QUAD];
        let rows = bytemuck::cast_slice(rows.as_flattened());
        (kind.multiply)(&mut more, tail(patches, place), rows, weights.len(), SPREAD);
        for (sum, more) in sums.as_flattened_mut().iter_mut().zip(more.as_flattened()) {
            *sum = sum.wrapping_add(*more);
        }
    }
}
