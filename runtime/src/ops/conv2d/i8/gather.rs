//! The way of an input into the ring: rescaled, or normalized and activated; padded; doubled.

use super::values::Values;
use super::weights::Activation;
#[cfg(not(no_long_multiply))]
use crate::fixed::IntoRing;
use crate::fixed::{NORM_BITS, SILU_BITS, activate, affine, affine_by_halves, affine_narrow, affine_room, requantize};
#[cfg(not(no_long_multiply))]
use crate::format::Activation as Function;
use crate::format::{Conv2d, Gather};
use crate::ops::conv2d::{Gathered, Layer};
use crate::ops::requantize::{requantize_centered, requantize_each};
use crate::ops::{Source, Sources, tail, view, view_mut};

/// Brings one row of the padded, transformed input into its slot of the ring.
pub(super) fn gather_row<R: Activation>(
    layer: &Layer<'_>,
    sources: &Sources<'_>,
    ring_row: usize,
    arena: &mut [u8],
) -> Option<()> {
    let limit = if cfg!(feature = "tiles") { layer.op.ring_limit } else { 0 };
    let slot: &mut [R] = view_mut(arena.get_mut(layer.slot(ring_row))?)?;
    let zero = R::saturate(limited(limit, layer.op.ring_zero));
    // The sources fill what lies between. Margins stay as they are once each slot has had a row.
    let [before, behind] = layer.geometry.margins();
    if ring_row < layer.geometry.ring_rows {
        slot.get_mut(..before).unwrap_or_default().fill(zero);
        slot.get_mut(behind..).unwrap_or_default().fill(zero);
    }
    let Some(row) = layer.geometry.source_row(ring_row) else {
        // Rows of padding are read by tiles, and where zero is not zero.
        if layer.op.ring_zero != 0 || layer.op.tile_rows > 0 {
            slot.fill(zero);
        }
        return Some(());
    };
    for source in sources.iter().flatten() {
        let Gathered { input, norm, slot } = Gathered::bind(layer, source, row, ring_row, arena)?;
        if is_copied(layer, source) {
            let slot = slot.get_mut(..input.len())?;
            #[cfg(mve)]
            crate::arch::mve::copy_row(slot, input);
            #[cfg(not(mve))]
            slot.copy_from_slice(input);
            continue;
        }
        let input = Values::new(source.tensor.element(), input)?;
        gather_pixels::<R>(layer, source, &input, view(norm)?, view_mut(slot)?);
    }
    // Validation has seen that rings with limits have 16 bits.
    #[cfg(feature = "tiles")]
    if limit != 0 {
        crate::arch::limit_i16(view_mut(arena.get_mut(layer.slot(ring_row))?)?, limit);
    }
    Some(())
}

/// Whether a row comes into the ring as it is.
fn is_copied(layer: &Layer<'_>, source: &Source<'_>) -> bool {
    let Layer { op, geometry, ring, .. } = layer;
    let [_, multiplier, _] = raw_map(op, source.index());
    let all = usize::from(source.tensor.channels) == geometry.channels && geometry.doubling == 0;
    all && source.tensor.element() == ring.element() && matches!((op.gather(), multiplier), (Gather::Raw, 0))
}

/// The nearest value that is at most `limit` from zero; as it is if that is zero.
#[inline(always)]
pub fn limited(limit: u16, value: i32) -> i32 {
    if limit == 0 { value } else { value.clamp(-i32::from(limit), limit.into()) }
}

/// Zero point, multiplier and shift of a raw input, by its place among the sources.
#[inline]
pub fn raw_map(op: &Conv2d, source: usize) -> [i32; 3] {
    let of = |[first, second]: [i32; 2]| if source == 0 { first } else { second };
    [of(op.source_zero), of(op.multiplier), of(op.shift)]
}

/// One value on its way into the ring, to be saturated to the ring's width: by the raw map of its source, or by the map of
/// its channel.
#[inline(always)]
pub fn gathered(op: &Conv2d, raw: [i32; 3], value: i32, map: [i32; 2]) -> i32 {
    match op.gather() {
        Gather::Raw => rescaled_input(op, raw, value),
        gather => {
            let value = normalized(op, value, map);
            activated(op, gather.activation().map_or_else(|| unactivated(value), |f| activate(f, value)))
        }
    }
}

/// A raw value in the units of the ring; as it is where the multiplier is zero.
#[inline(always)]
fn rescaled_input(op: &Conv2d, [zero, multiplier, shift]: [i32; 3], value: i32) -> i32 {
    if multiplier == 0 {
        return value;
    }
    requantize(value.saturating_sub(zero), multiplier, shift).saturating_add(op.ring_zero)
}

/// A value behind its channel's map, with [`NORM_BITS`] fractional bits.
#[inline(always)]
fn normalized(op: &Conv2d, value: i32, [a, b]: [i32; 2]) -> i32 {
    affine(value, a, op.affine_shift, b)
}

/// A normalized value with [`SILU_BITS`] fractional bits.
#[inline(always)]
fn unactivated(value: i32) -> i32 {
    value.clamp(-(1 << 27), 1 << 27) << (SILU_BITS - NORM_BITS)
}

/// A value with [`SILU_BITS`] fractional bits in the units of the ring.
#[inline(always)]
fn activated(op: &Conv2d, value: i32) -> i32 {
    requantize(value, op.multiplier[0], op.shift[0]).saturating_add(op.ring_zero)
}

/// Channels that are brought into the ring together.
const GATHERED: usize = 16;

/// Transforms the pixels of one source row into the ring, each twice if columns are doubled.
fn gather_pixels<R: Activation>(
    layer: &Layer<'_>,
    source: &Source<'_>,
    input: &Values<'_>,
    norm: &[[i32; 2]],
    slot: &mut [R],
) {
    let Layer { op, geometry, .. } = layer;
    let channels = usize::from(source.tensor.channels);
    let columns = usize::from(source.tensor.columns);
    let raw = raw_map(op, source.index());
    let bits = 8 * source.tensor.element().bytes() as u32;
    let slot = slot.get_mut(source.channel..).unwrap_or_default();
    let advance = geometry.channels << geometry.doubling;
    #[cfg(no_long_multiply)]
    let is_done = false;
    #[cfg(not(no_long_multiply))]
    let is_done = into_ring::<R>(op, raw).is_some_and(|map| input.gather(map, norm, slot, [channels, advance]));
    if !is_done {
        let is_copied = matches!((op.gather(), raw), (Gather::Raw, [_, 0, _]));
        let zero = if is_copied { 0 } else { op.ring_zero };
        let mut values = [0; GATHERED];
        for (pixel, target) in (0..columns).zip(slot.chunks_mut(advance.max(1))) {
            let targets = target.get_mut(..channels).unwrap_or_default();
            for (first, targets) in (0..).step_by(GATHERED).zip(targets.chunks_mut(GATHERED)) {
                let (values, _) = values.split_at_mut(targets.len());
                input.read(pixel * channels + first, values);
                gather_each(op, raw, bits, values, tail(norm, first));
                for (target, &value) in targets.iter_mut().zip(&*values) {
                    *target = R::saturate(value.saturating_add(zero));
                }
            }
        }
    }
    if geometry.doubling > 0 {
        for target in slot.chunks_mut(advance.max(1)).take(columns) {
            if let Some((pixel, double)) = target.split_at_mut_checked(geometry.channels) {
                for (copy, &value) in double.iter_mut().zip(pixel.iter().take(channels)) {
                    *copy = value;
                }
            }
        }
    }
}

/// How values come into the ring by a kernel, if they can.
#[cfg(not(no_long_multiply))]
fn into_ring<R: Activation>(op: &Conv2d, [zero, multiplier, shift]: [i32; 3]) -> Option<IntoRing> {
    match op.gather() {
        Gather::Raw => IntoRing::raw(zero, [multiplier, shift], op.ring_zero),
        gather => {
            let is_silu = match gather.activation() {
                None => false,
                Some(Function::Silu) => true,
                _ => return None,
            };
            let ring = [op.ring_zero, R::saturate(i32::MAX).into()];
            IntoRing::mapped(op.affine_shift, [op.multiplier[0], op.shift[0]], ring, is_silu)
        }
    }
}

/// [`gathered`] of neighbouring channels, of values of some bits, but for the ring's zero point: by their source's map, or by maps
/// of their own.
// Out of line, as is what follows: these loops want the registers for themselves.
#[inline(never)]
fn gather_each(op: &Conv2d, raw: [i32; 3], bits: u32, values: &mut [i32], maps: &[[i32; 2]]) {
    match (op.gather(), raw) {
        (Gather::Raw, [_, 0, _]) => {}
        (Gather::Raw, [zero, multiplier, shift]) => requantize_centered(values, (bits, zero), multiplier, shift),
        _ => {
            normalize_each(op, bits, values, maps);
            activate_each(op, values);
        }
    }
}

/// [`normalized`] neighbouring channels.
#[inline(never)]
fn normalize_each(op: &Conv2d, bits: u32, values: &mut [i32], maps: &[[i32; 2]]) {
    let mapped = values.iter_mut().zip(maps);
    match affine_room(op.affine_shift).filter(|_| bits <= 16) {
        Some(_) if cfg!(no_long_multiply) => {
            mapped.for_each(|(value, &[a, b])| *value = affine_by_halves(*value, a, op.affine_shift, b));
        }
        Some(left) => mapped.for_each(|(value, &[a, b])| *value = affine_narrow(*value << left, a, b)),
        None => mapped.for_each(|(value, &map)| *value = normalized(op, *value, map)),
    }
}

/// Normalized values behind the gather's activation, in the units of the ring but for its zero point.
#[inline(never)]
fn activate_each(op: &Conv2d, values: &mut [i32]) {
    match op.gather().activation() {
        None => values.iter_mut().for_each(|value| *value = unactivated(*value)),
        Some(function) => values.iter_mut().for_each(|value| *value = activate(function, *value)),
    }
    requantize_each(values, op.multiplier[0], op.shift[0]);
}
