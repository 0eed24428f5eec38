//! Convolution in the `i8` precision: `i8` or `i16` activations, `i8` or four-bit weights, `i32` accumulators that wrap.
//!
//! The exporter chooses the width of `i16` rings so that no accumulator of the layer can leave 32 bits.

use bytemuck::Pod;

use super::{Bound, Gathered, Layer, Tile};
use crate::arch::patches::{self, Group};
use crate::arch::{self, PIXELS, QUAD};
use crate::fixed::{
    NORM_BITS, RESIDUAL_BITS, SILU_BITS, activate, affine, requantize, requantize_each, saturate_i8, saturate_i16,
};
use crate::format::{CHANNEL_BLOCK, Conv2d, Element, Gather, NONE, StepScales, WeightLayout};
use crate::ops::{Context, Source, sources, tail, view, view_mut};

/// An element of the ring.
trait Activation: Pod + Into<i32> {
    /// The nearest.
    fn saturate(value: i32) -> Self;

    /// `sums[c] + Σ activations[k]·weights[c][k]`, modulo 2³².
    fn dot4(sums: [i32; QUAD], activations: &[Self], weights: [&[i8]; QUAD]) -> [i32; QUAD];

    /// Writes a row of the kernel's taps at each pixel into patches, as the taps from number `tap` on.
    fn unfold(patches: &mut [Group], tap: usize, runs: [&[Self]; PIXELS]);

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

    fn unfold(patches: &mut [Group], tap: usize, runs: [&[Self]; PIXELS]) {
        arch::unfold_i8(patches, tap, runs);
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

    fn unfold(patches: &mut [Group], tap: usize, runs: [&[Self]; PIXELS]) {
        arch::unfold_i16(patches, tap, runs);
    }

    #[cfg(feature = "i4")]
    fn dot4_packed(sums: [i32; QUAD], activations: &[Self], weights: &[u16]) -> [i32; QUAD] {
        arch::dot4_packed_i16(sums, activations, weights)
    }
}

/// What a ring's scales ask of accumulators. A type, so that a firmware without scales of steps is none the larger.
trait Scales: Copy {
    /// An accumulator in the units of its bias, with the bias.
    fn complete(self, op: &Conv2d, accumulator: i32, sum: i32, bias: i32) -> i32;
}

/// Those of the record.
#[derive(Clone, Copy)]
struct OfRecord;

impl Scales for OfRecord {
    fn complete(self, _op: &Conv2d, accumulator: i32, _sum: i32, bias: i32) -> i32 {
        accumulator.wrapping_add(bias)
    }
}

/// Those of the step: multiplier and shift of accumulators.
#[derive(Clone, Copy)]
struct OfStep([i32; 2]);

impl Scales for OfStep {
    fn complete(self, op: &Conv2d, accumulator: i32, sum: i32, bias: i32) -> i32 {
        rescaled(op.ring_zero, accumulator, sum, self.0, bias)
    }
}

pub(crate) fn run(context: &Context<'_>, op: &Conv2d, slice: u32, arena: &mut [u8]) -> Option<()> {
    let layer = Layer::new(context, op)?;
    let tile = layer.geometry.tile(slice);
    if cfg!(feature = "step-scales") && op.weight_sums != 0 {
        let at = context.biases_of_step() + op.step_scales;
        let scales = StepScales::read(context.model.bytes(), at as usize);
        let layer = Layer { op: &op.during(&scales), ..layer };
        return run_ring::<i8, _>(&layer, OfStep(scales.rescale), &tile, arena);
    }
    match layer.ring.element() {
        Element::I8 => run_ring::<i8, _>(&layer, OfRecord, &tile, arena),
        Element::I16 => run_ring::<i16, _>(&layer, OfRecord, &tile, arena),
        _ => None,
    }
}

fn run_ring<R: Activation, S: Scales>(layer: &Layer<'_>, scales: S, tile: &Tile, arena: &mut [u8]) -> Option<()> {
    if tile.gathers() {
        for ring_row in layer.geometry.new_rows(tile.y) {
            gather_row::<R>(layer, ring_row, arena)?;
        }
    }
    compute(layer, scales, tile, Operands::<R>::bind(layer, tile, arena)?);
    Some(())
}

/// Brings one row of the padded, transformed input into its slot of the ring.
fn gather_row<R: Activation>(layer: &Layer<'_>, ring_row: usize, arena: &mut [u8]) -> Option<()> {
    let slot: &mut [R] = view_mut(arena.get_mut(layer.slot(ring_row))?)?;
    slot.fill(R::saturate(layer.op.ring_zero));
    let Some(row) = layer.geometry.source_row(ring_row) else { return Some(()) };
    for source in &sources(layer.context, layer.op.sources)? {
        let Gathered { input, norm, slot } = Gathered::bind(layer, source, row, ring_row, arena)?;
        let input = Values::new(source.tensor.element(), input)?;
        gather_pixels::<R>(layer, source, &input, view(norm)?, view_mut(slot)?);
    }
    Some(())
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

/// [`gathered`] of neighbouring channels, in place.
fn gather_each(op: &Conv2d, [zero, multiplier, shift]: [i32; 3], values: &mut [i32], maps: &[[i32; 2]]) {
    match op.gather() {
        Gather::Raw if multiplier == 0 => return,
        Gather::Raw => {
            values.iter_mut().for_each(|value| *value = value.saturating_sub(zero));
            requantize_each(values, multiplier, shift);
        }
        gather => {
            let mapped = values.iter_mut().zip(maps);
            match gather.activation() {
                None => mapped.for_each(|(value, &map)| *value = unactivated(normalized(op, *value, map))),
                Some(f) => mapped.for_each(|(value, &map)| *value = activate(f, normalized(op, *value, map))),
            }
            requantize_each(values, op.multiplier[0], op.shift[0]);
        }
    }
    values.iter_mut().for_each(|value| *value = value.saturating_add(op.ring_zero));
}

/// An accumulator that started at zero over a ring with the step's own scales, in the units of its bias; `sum` is that of
/// the channel's weights. Products and differences wrap.
#[inline(always)]
pub fn rescaled(ring_zero: i32, accumulator: i32, sum: i32, [multiplier, shift]: [i32; 2], bias: i32) -> i32 {
    let centered = accumulator.wrapping_sub(ring_zero.wrapping_mul(sum));
    requantize(centered, multiplier, shift).saturating_add(bias)
}

/// One result, to be saturated to the output's width, from its accumulator and what the residual holds there.
#[inline(always)]
pub fn finished(op: &Conv2d, accumulator: i32, requant: [i32; 2], kept: Option<i32>) -> i32 {
    let value = match kept {
        None => scaled(accumulator, requant, 0),
        Some(kept) => added(op, scaled(accumulator, requant, RESIDUAL_BITS), kept),
    };
    value.saturating_add(op.output_zero)
}

/// An accumulator in the units of the output, with some more fractional bits.
#[inline(always)]
fn scaled(accumulator: i32, [multiplier, shift]: [i32; 2], bits: u32) -> i32 {
    requantize(accumulator, multiplier, shift.saturating_add(bits as i32))
}

/// The sum of a result with [`RESIDUAL_BITS`] more bits and what the residual holds.
#[inline(always)]
fn added(op: &Conv2d, value: i32, kept: i32) -> i32 {
    let kept = requantize(kept.saturating_sub(op.residual_zero), op.residual_multiplier, op.residual_shift);
    sum(value, kept)
}

/// The sum of two values with [`RESIDUAL_BITS`] more bits than the output, rounded half up: high and low bits apart, as the
/// sum itself may have 33.
#[inline(always)]
fn sum(value: i32, kept: i32) -> i32 {
    const MASK: i32 = (1 << RESIDUAL_BITS) - 1;
    let carry = ((value & MASK) + (kept & MASK) + (1 << (RESIDUAL_BITS - 1))) >> RESIDUAL_BITS;
    (value >> RESIDUAL_BITS) + (kept >> RESIDUAL_BITS) + carry
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
    let raw = raw_map(op, source.index());
    let mut at = 0;
    let mut values = [0; GATHERED];
    for target in
        slot.chunks_exact_mut((geometry.channels << geometry.doubling).max(1)).take(source.tensor.columns.into())
    {
        let targets = target.get_mut(source.channel..source.channel + channels).unwrap_or_default();
        for (first, target) in (0..).step_by(GATHERED).zip(targets.chunks_mut(GATHERED)) {
            let (values, _) = values.split_at_mut(target.len());
            input.read(at + first, values);
            gather_each(op, raw, values, tail(norm, first));
            for (target, &value) in target.iter_mut().zip(&*values) {
                *target = R::saturate(value);
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

/// Values that a convolution reads, writes or adds.
enum Values<'a> {
    I8(&'a mut [i8]),
    I16(&'a mut [i16]),
    I32(&'a mut [i32]),
}

impl<'a> Values<'a> {
    fn new(element: Element, bytes: &'a mut [u8]) -> Option<Self> {
        Some(match element {
            Element::I8 => Values::I8(view_mut(bytes)?),
            Element::I16 => Values::I16(view_mut(bytes)?),
            Element::I32 => Values::I32(view_mut(bytes)?),
            Element::F16 | Element::F32 => return None,
        })
    }

    /// The elements from `at` on, which exist: whoever binds values knows how many they are.
    fn read(&self, at: usize, into: &mut [i32]) {
        fn copy<T: Copy + Into<i32>>(values: &[T], at: usize, into: &mut [i32]) {
            into.iter_mut().zip(tail(values, at)).for_each(|(into, &value)| *into = value.into());
        }
        match self {
            Values::I8(values) => copy(values, at, into),
            Values::I16(values) => copy(values, at, into),
            Values::I32(values) => copy(values, at, into),
        }
    }

    /// Replaces the elements from `at` on, which exist, by the nearest values of their type.
    #[inline]
    fn write(&mut self, at: usize, from: impl Iterator<Item = i32>) {
        fn copy<T>(values: &mut [T], at: usize, from: impl Iterator<Item = i32>, nearest: impl Fn(i32) -> T) {
            let values = values.get_mut(at..).unwrap_or_default();
            values.iter_mut().zip(from).for_each(|(value, from)| *value = nearest(from));
        }
        match self {
            Values::I8(values) => copy(values, at, from, saturate_i8),
            Values::I16(values) => copy(values, at, from, saturate_i16),
            Values::I32(values) => copy(values, at, from, |value| value),
        }
    }
}

/// What the computation of one tile reads and writes.
struct Operands<'a, R> {
    ring: &'a [R],
    /// Room for the patches of four pixels; empty if there is none.
    patches: &'a mut [Group],
    weights: Weights<'a>,
    bias: &'a [i32],
    /// Sums of each channel's weights; empty if the record's scales hold.
    sums: &'a [i32],
    requant: &'a [[i32; 2]],
    /// The row of the residual, if there is one at a place of its own.
    residual: Option<Values<'a>>,
    /// The row of the output.
    output: Values<'a>,
}

impl<'a, R: Activation> Operands<'a, R> {
    fn bind(layer: &'a Layer<'_>, tile: &Tile, arena: &'a mut [u8]) -> Option<Self> {
        let Layer { context, op, output, geometry, .. } = layer;
        let bound = Bound::bind(layer, tile.y, arena)?;
        let taps = geometry.taps();
        let (first, end) = (tile.first(), tile.first() + tile.count);
        let weights = match op.layout() {
            #[cfg(feature = "i4")]
            WeightLayout::Groups4 => {
                let weights: &[u16] = layer.weights(tile, bound.window)?;
                Weights::I4(weights.get(first / QUAD * taps..end.div_ceil(QUAD) * taps)?)
            }
            WeightLayout::Rows8 => Weights::I8(layer.weights(tile, bound.window)?.get(first * taps..end * taps)?),
            // Those of other precisions, or without the feature.
            _ => return None,
        };
        let sums: &[i32] = if op.weight_sums == 0 {
            &[]
        } else {
            context.data(op.weight_sums, geometry.output_channels)?.get(tile.channels())?
        };
        let residual = match context.tensor(op.residual) {
            Some(residual) if !bound.residual.is_empty() => Some(Values::new(residual.element(), bound.residual)?),
            _ => None,
        };
        Some(Self {
            ring: view(bound.ring)?,
            patches: view_mut(bound.patches)?,
            weights,
            bias: layer.bias(tile, bound.bias)?,
            sums,
            requant: context.data(op.requant, geometry.output_channels)?.get(tile.channels())?,
            residual,
            output: Values::new(output.element(), bound.output)?,
        })
    }
}

/// The channels of a tile in one row.
fn compute<R: Activation, S: Scales>(layer: &Layer<'_>, scales: S, tile: &Tile, operands: Operands<'_, R>) {
    let Layer { geometry, .. } = layer;
    let Operands { ring, patches, weights, bias, sums, requant, residual, mut output } = operands;
    let last = geometry.output_columns.saturating_sub(1);
    let mut accumulators = [[0; PIXELS]; CHANNEL_BLOCK];
    for x in (0..geometry.output_columns).step_by(PIXELS) {
        // Past the last pixel the last one is computed again; its sums are not stored.
        let pixels = core::array::from_fn(|pixel| (x + pixel).min(last));
        if !patches.is_empty() {
            for ky in 0..geometry.kernel[0] {
                let runs = pixels.map(|x| geometry.patch(ring, [tile.y, x], ky));
                R::unfold(patches, ky * geometry.run(), runs);
            }
            patches::fill(patches, geometry.taps());
        }
        for first in (0..tile.count).step_by(CHANNEL_BLOCK) {
            let count = (tile.count - first).min(CHANNEL_BLOCK);
            let block = weights.of_channels(first, count, geometry.taps());
            if patches.is_empty() {
                for (pixel, x) in pixels.into_iter().enumerate() {
                    let run = |ky| geometry.patch(ring, [tile.y, x], ky);
                    block.multiply((0..geometry.kernel[0]).map(run), geometry.taps(), pixel, &mut accumulators);
                }
            } else {
                block.multiply_patches(patches, geometry.taps(), &mut accumulators);
            }
            let block = Block {
                op: layer.op,
                scales,
                bias: tail(bias, first),
                sums: tail(sums, first),
                requant: tail(requant, first),
            };
            let accumulators = accumulators.get_mut(..count).unwrap_or_default();
            block.scale(accumulators);
            for (pixel, x) in (x..=last).take(PIXELS).enumerate() {
                let at = x * geometry.output_channels + tile.channel + first;
                block.store(accumulators, pixel, residual.as_ref(), &mut output, at);
            }
        }
    }
}

/// What turns the accumulators of some output channels into results.
struct Block<'a, S> {
    op: &'a Conv2d,
    scales: S,
    bias: &'a [i32],
    sums: &'a [i32],
    requant: &'a [[i32; 2]],
}

impl<S: Scales> Block<'_, S> {
    /// Brings accumulators into the units of the output, with more bits if a residual is to be added.
    fn scale(&self, accumulators: &mut [[i32; PIXELS]]) {
        let bits = if self.op.residual == NONE { 0 } else { RESIDUAL_BITS };
        let mut sums = self.sums.iter();
        for ((accumulators, &bias), &requant) in accumulators.iter_mut().zip(self.bias).zip(self.requant) {
            let sum = sums.next().copied().unwrap_or_default();
            for accumulator in accumulators.iter_mut() {
                *accumulator = self.scales.complete(self.op, *accumulator, sum, bias);
            }
            let [multiplier, shift] = requant;
            requantize_each(accumulators, multiplier, shift.saturating_add(bits as i32));
        }
    }

    /// The results of one pixel go to `at`; a residual without values of its own is what stands there.
    fn store(
        &self,
        scaled: &[[i32; PIXELS]],
        pixel: usize,
        residual: Option<&Values<'_>>,
        output: &mut Values<'_>,
        at: usize,
    ) {
        let op = self.op;
        let values = scaled.iter().map(|pixels| pixels.get(pixel).copied().unwrap_or_default());
        if op.residual == NONE {
            output.write(at, values.map(|value| value.saturating_add(op.output_zero)));
        } else {
            let mut kept = [0; CHANNEL_BLOCK];
            residual.unwrap_or(output).read(at, &mut kept);
            kept.iter_mut().for_each(|kept| *kept = kept.saturating_sub(op.residual_zero));
            requantize_each(&mut kept, op.residual_multiplier, op.residual_shift);
            output.write(at, values.zip(kept).map(|(value, kept)| sum(value, kept).saturating_add(op.output_zero)));
        }
    }
}

/// The weights of some output channels.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// One row for each channel.
    I8(&'a [i8]),
    /// One row for each four.
    #[cfg(feature = "i4")]
    I4(&'a [u16]),
}

impl Weights<'_> {
    /// Those of `count` channels from `first` on, a multiple of four, each with `taps` weights.
    fn of_channels(self, first: usize, count: usize, taps: usize) -> Self {
        match self {
            Weights::I8(weights) => Weights::I8(weights.get(first * taps..(first + count) * taps).unwrap_or_default()),
            #[cfg(feature = "i4")]
            Weights::I4(weights) => {
                let groups = first / QUAD..(first + count).div_ceil(QUAD);
                Weights::I4(weights.get(groups.start * taps..groups.end * taps).unwrap_or_default())
            }
        }
    }

    /// `Σ activations[k]·weights[c][k]` of each channel at one pixel, wrapping; `runs` are the activations of each row of the
    /// kernel.
    #[inline]
    fn multiply<'r, R: Activation>(
        self,
        runs: impl Iterator<Item = &'r [R]>,
        taps: usize,
        pixel: usize,
        accumulators: &mut [[i32; PIXELS]; CHANNEL_BLOCK],
    ) {
        let mut sums = [[0; QUAD]; CHANNEL_BLOCK / QUAD];
        let mut at = 0;
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
            }
            at += activations.len();
        }
        for (accumulators, &sum) in accumulators.iter_mut().zip(sums.as_flattened()) {
            accumulators.get_mut(pixel).into_iter().for_each(|accumulator| *accumulator = sum);
        }
    }

    /// The same at each pixel of the patches.
    #[inline]
    fn multiply_patches(self, patches: &[Group], taps: usize, accumulators: &mut [[i32; PIXELS]; CHANNEL_BLOCK]) {
        // Patches go with rows of eight bits.
        #[cfg_attr(
            not(feature = "i4"),
            expect(irrefutable_let_patterns, reason = "the only layout without the feature")
        )]
        if let Weights::I8(weights) = self {
            arch::dot_patches(accumulators, patches, weights, taps);
        }
    }
}
