//! The way of an input into the ring: rescaled, or normalized and activated; padded; doubled.

use super::values::Values;
use super::weights::Activation;
#[cfg(any(dsp, test))]
use crate::fixed::{Entry, IntoRing};
use crate::fixed::{
    HighWord, NORM_BITS, SILU_BITS, activate, affine, affine_by_halves, affine_narrow, affine_room, requantize, silu,
};
use crate::format::{Activation as Function, Conv2d, Gather};
use crate::ops::conv2d::{Gathered, Layer};
use crate::ops::requantize::{requantize_centered, requantize_each};
use crate::ops::{Source, Sources, tail, view, view_mut};

/// Brings one row of the padded, transformed input into its slot of the ring.
pub(super) fn gather_row<R: Activation>(
    layer: &Layer<'_>,
    sources: &Sources,
    ring_row: usize,
    arena: &mut [u8],
) -> Option<()> {
    let limit = if cfg!(feature = "tiles") { layer.op.ring_limit } else { 0 };
    let slot: &mut [R] = view_mut(arena.get_mut(layer.slot(ring_row))?)?;
    let zero = R::saturate(limited(limit, layer.op.ring_zero));
    let Some(row) = layer.geometry.source_row(ring_row) else {
        slot.fill(zero);
        return Some(());
    };
    // The sources fill what lies between.
    let [before, behind] = layer.geometry.margins();
    slot.get_mut(..before).unwrap_or_default().fill(zero);
    slot.get_mut(behind..).unwrap_or_default().fill(zero);
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
fn is_copied(layer: &Layer<'_>, source: &Source) -> bool {
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
    source: &Source,
    input: &Values<'_>,
    norm: &[[i32; 2]],
    slot: &mut [R],
) {
    let Layer { op, geometry, .. } = layer;
    let channels = usize::from(source.tensor.channels);
    let columns = usize::from(source.tensor.columns);
    let raw = raw_map(op, source.index());
    let bits = 8 * source.tensor.element().bytes() as u32;
    #[cfg(any(dsp, test))]
    let entry = {
        let requant = [op.multiplier[0], op.shift[0]];
        let ring = [op.ring_zero, R::saturate(i32::MAX).into()];
        match op.gather() {
            Gather::Raw if bits == i16::BITS => IntoRing::raw(raw[0], [raw[1], raw[2]], op.ring_zero),
            Gather::Affine if bits == i16::BITS => IntoRing::mapped(op.affine_shift, requant, ring, Entry::Affine),
            Gather::AffineSilu => IntoRing::mapped(op.affine_shift, requant, ring, Entry::Silu),
            _ => None,
        }
    };
    // Raw values have no maps that begin again with each pixel.
    #[cfg(any(dsp, test))]
    if let (Some(map @ IntoRing { entry: Entry::Raw, .. }), 0, true) =
        (entry, geometry.doubling, channels == geometry.channels)
    {
        let targets = slot.get_mut(..columns * channels).unwrap_or_default();
        if input.gather(map, 0, norm, targets) {
            return;
        }
    }
    let mut at = 0;
    let mut values = [0; GATHERED];
    for target in slot.chunks_exact_mut((geometry.channels << geometry.doubling).max(1)).take(columns) {
        let targets = target.get_mut(source.channel..source.channel + channels).unwrap_or_default();
        #[cfg(not(any(dsp, test)))]
        let is_done = false;
        #[cfg(any(dsp, test))]
        let is_done = entry.is_some_and(|map| input.gather(map, at, norm, targets));
        let rest = if is_done { &mut [] } else { targets };
        for (first, target) in (0..).step_by(GATHERED).zip(rest.chunks_mut(GATHERED)) {
            let (values, _) = values.split_at_mut(target.len());
            input.read(at + first, values);
            match op.gather() {
                Gather::Raw => put_raw(op, raw, bits, values, target),
                _ => put_mapped(op, bits, values, tail(norm, first), target),
            }
        }
        at += channels;
        if let Some((pixel, double)) = target.split_at_mut_checked(geometry.channels) {
            for (copy, &value) in double.iter_mut().zip(&*pixel) {
                *copy = value;
            }
        }
    }
}

/// [`gathered`] of neighbouring channels, of values of some bits, by their source's map.
// Out of line, as is what follows: these loops want the registers for themselves.
#[inline(never)]
fn put_raw<R: Activation>(op: &Conv2d, raw: [i32; 3], bits: u32, values: &mut [i32], targets: &mut [R]) {
    let [zero, multiplier, shift] = raw;
    let mut offset = 0;
    if multiplier != 0 {
        requantize_centered(values, (bits, zero), multiplier, shift);
        offset = op.ring_zero;
    }
    put(targets, values, |value| value.saturating_add(offset));
}

/// [`gathered`] of neighbouring channels, of values of some bits, by their maps.
#[inline(never)]
fn put_mapped<R: Activation>(op: &Conv2d, bits: u32, values: &mut [i32], maps: &[[i32; 2]], targets: &mut [R]) {
    normalize_each(op, bits, values, maps);
    let (multiplier, shift, zero) = (op.multiplier[0], op.shift[0], op.ring_zero);
    // By far the most frequent: in one go where a product has 64 bits and there is no kernel.
    if let (Some(Function::Silu), Some(high), false) =
        (op.gather().activation(), HighWord::of(multiplier, shift), cfg!(any(no_long_multiply, dsp)))
    {
        return put(targets, values, |value| high.scale(silu(value)).saturating_add(zero));
    }
    activate_each(op, values);
    put(targets, values, |value| value.saturating_add(zero));
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

/// The nearest values of the ring.
#[inline(always)]
fn put<R: Activation>(targets: &mut [R], values: &[i32], finish: impl Fn(i32) -> i32) {
    targets.iter_mut().zip(values).for_each(|(target, &value)| *target = R::saturate(finish(value)));
}
