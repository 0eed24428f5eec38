//! Convolution in the `i8` precision, see [`ops::conv2d`](crate::ops::conv2d::i8).

use core::ops::Range;
use std::vec::Vec;

use super::super::packed::Weights;
use super::super::threads::Team;
use super::super::{Scratch, room};
use super::{
    Activation, Finish, Geometry, InputBand, Layer, OutputBand, Transform, block_of, gather, multiply, spread, tiles,
};
use crate::arch::wide::{self, Affine, Instructions, LANES, Lanes, Narrow, Scale, Sums, Wide, Window};
use crate::fixed::{NORM_BITS, SILU_BITS, activate, saturate_i8, saturate_i16};
use crate::format::{self, Conv2d, Element, Gather, NONE};
use crate::ops::conv2d::i8::{limited, raw_map, sum};
use crate::ops::{Source, view, view_mut};

/// An element of the padded input.
pub(super) trait Ring: Activation<Sum = i32> {
    /// The nearest, as it is stored.
    fn nearest<W: Wide>(value: i32) -> Self;

    /// The nearest value that is at most `limit` from zero; bytes have no limit.
    fn limited(self, limit: u16) -> Self;

    /// The first lanes' nearest values, as many as there is room for; those of eight bits where the ring `is_narrow`, though it is
    /// of words here.
    fn store<W: Wide>(wide: W, lanes: &Lanes<i32>, values: &mut [Self], is_narrow: bool);

    /// Multiplies the padded input with all weights.
    fn multiply<W: Wide>(wide: W, product: Product<'_, Self>, results: &mut impl Finish<i32>) -> Option<()>;
}

/// A padded input and the weights that it meets.
pub(super) struct Product<'a, T: Activation> {
    geometry: &'a Geometry,
    starts: &'a [usize],
    input: &'a [T],
    weights: &'a [T::Weight],
    /// Whether these are transformed, see [`tiles`], and memory for that.
    is_tiled: bool,
    memory: [&'a mut Vec<u64>; 3],
}

impl Ring for u8 {
    #[inline(always)]
    fn nearest<W: Wide>(value: i32) -> Self {
        (i32::from(saturate_i8(value)) + W::OFFSET.unwrap_or(0)) as u8
    }

    #[inline(always)]
    fn limited(self, _limit: u16) -> Self {
        self
    }

    #[inline(always)]
    fn store<W: Wide>(wide: W, lanes: &Lanes<i32>, values: &mut [Self], _is_narrow: bool) {
        let mut bytes = [0i8; LANES];
        wide.store(lanes, &mut bytes);
        // To flip the sign bits is to add 128, the only offset but 0.
        let signs = u128::from_le_bytes([W::OFFSET.unwrap_or(0) as u8; LANES]);
        let bytes = (u128::from_le_bytes(bytemuck::cast(bytes)) ^ signs).to_le_bytes();
        match values.first_chunk_mut::<LANES>() {
            Some(values) => *values = bytes,
            None => {
                if let Some(bytes) = bytes.get(..values.len()) {
                    values.copy_from_slice(bytes);
                }
            }
        }
    }

    #[inline(always)]
    fn multiply<W: Wide>(wide: W, product: Product<'_, Self>, results: &mut impl Finish<i32>) -> Option<()> {
        let Product { geometry, starts, input, weights, .. } = product;
        multiply(wide, geometry, (starts, input, weights), results)
    }
}

impl Activation for u8 {
    type Weight = i8;
    type Sum = i32;

    #[inline(always)]
    fn dot<W: Wide, const N: usize>(wide: W, sums: &mut Sums<i32>, window: &Window<'_, u8>, weights: &[i8]) {
        wide.dot_bytes::<N>(sums, window, weights);
    }
}

impl Ring for i16 {
    #[inline(always)]
    fn nearest<W: Wide>(value: i32) -> Self {
        saturate_i16(value)
    }

    #[inline(always)]
    fn limited(self, limit: u16) -> Self {
        saturate_i16(limited(limit, self.into()))
    }

    #[inline(always)]
    fn store<W: Wide>(wide: W, lanes: &Lanes<i32>, values: &mut [Self], is_narrow: bool) {
        if is_narrow {
            let mut bytes = [0i8; LANES];
            wide.store(lanes, &mut bytes);
            store_lanes(wide, &wide.load(&bytes), values);
        } else {
            store_lanes(wide, lanes, values);
        }
    }

    #[inline(always)]
    fn multiply<W: Wide>(wide: W, product: Product<'_, Self>, results: &mut impl Finish<i32>) -> Option<()> {
        let Product { geometry, starts, input, weights, is_tiled, memory } = product;
        if is_tiled {
            tiles::multiply(wide, geometry, (input, weights), memory, results)
        } else {
            multiply(wide, geometry, (starts, input, weights), results)
        }
    }
}

impl Activation for i16 {
    type Weight = i16;
    type Sum = i32;

    #[inline(always)]
    fn dot<W: Wide, const N: usize>(wide: W, sums: &mut Sums<i32>, window: &Window<'_, i16>, weights: &[i16]) {
        wide.dot_words::<N>(sums, window, weights);
    }
}

/// Gathers the padded input, then multiplies it.
pub(super) fn run<T: Ring>(
    instructions: Instructions,
    layer: &Layer<'_>,
    weights: &[T::Weight],
    (mut team, input): (Team<'_>, &mut Vec<u64>),
    arena: &mut [u8],
) -> Option<()> {
    let input: &mut [T] = room(input, layer.geometry.len());
    let bands = layer.input_bands(&team, input);
    let from = &*arena;
    team.each(bands, |band, scratch| instructions.dispatch(Gathering { layer, band, scratch, arena: from }))?;
    let input = &*input;
    let place = |tensor: Option<&format::Tensor>| tensor.map_or(0..0, format::Tensor::range);
    let bias_tensor = layer.context.tensor(layer.op.bias_tensor);
    let residual = layer.residual();
    let [bias, kept, output] =
        arena.get_disjoint_mut([place(bias_tensor), place(residual), layer.output.range()]).ok()?;
    let kept = residual.map(|tensor| Kept::new(tensor.element(), kept)).unwrap_or(Some(Kept::Output))?;
    let bias = layer.bias(bias)?;
    let product = (input, weights, bias, &kept);
    match layer.output.element() {
        Element::I8 => multiply_bands::<T, i8>((instructions, &mut team), layer, product, view_mut(output)?),
        Element::I16 => multiply_bands::<T, i16>((instructions, &mut team), layer, product, view_mut(output)?),
        Element::I32 => multiply_bands::<T, i32>((instructions, &mut team), layer, product, view_mut(output)?),
        Element::F16 | Element::F32 => None,
    }
}

fn multiply_bands<T: Ring, O: Narrow>(
    (instructions, team): (Instructions, &mut Team<'_>),
    layer: &Layer<'_>,
    (input, weights, bias, kept): (&[T], &[T::Weight], &[i32], &Kept<'_>),
    output: &mut [O],
) -> Option<()> {
    let bands = layer.output_bands(team, input, output)?;
    team.each(bands, |OutputBand { geometry, input, results, output }, scratch| {
        let results = Results { layer, bias, kept: kept.band(results), output };
        instructions.dispatch(Multiplication { geometry: &geometry, input, weights, results, scratch })
    })
}

/// A band of the padded input, and all that comes there.
struct Gathering<'a, T> {
    layer: &'a Layer<'a>,
    band: InputBand<'a, T>,
    scratch: &'a mut Scratch,
    arena: &'a [u8],
}

impl<T: Ring> wide::Work for Gathering<'_, T> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<W: Wide>(self, wide: W) -> Option<()> {
        let Self { layer, mut band, scratch, arena } = self;
        let Scratch { row, maps, .. } = scratch;
        let is_narrow = layer.context.tensor(layer.op.scratch)?.element() == Element::I8;
        let zero = layer.op.ring_zero;
        band.input.fill(T::nearest::<W>(if is_narrow { saturate_i8(zero).into() } else { zero }));
        for source in layer.sources.iter().flatten() {
            let row = room(row, usize::from(source.tensor.columns) * usize::from(source.tensor.channels));
            let maps = spread(layer.maps(source, arena)?, room(maps, 2 * row.len()))?;
            let tensor = arena.get(source.tensor.range())?;
            let map = Map::new(layer.op, source.index(), is_narrow);
            let (what, target) = ((source, &map), (&mut band, row));
            match source.tensor.element() {
                Element::I8 => gather_source::<i8, T, W>((wide, layer), what, view(tensor)?, target, maps)?,
                Element::I16 => gather_source::<i16, T, W>((wide, layer), what, view(tensor)?, target, maps)?,
                Element::I32 => gather_source::<i32, T, W>((wide, layer), what, view(tensor)?, target, maps)?,
                Element::F16 | Element::F32 => return None,
            }
        }
        let limit = layer.op.ring_limit;
        if limit != 0 {
            band.input.iter_mut().for_each(|value| *value = value.limited(limit));
        }
        Some(())
    }
}

/// A band of results, and all that they are computed from.
struct Multiplication<'a, T: Activation, O> {
    geometry: &'a Geometry,
    /// From the first row on that is read.
    input: &'a [T],
    weights: &'a [T::Weight],
    results: Results<'a, O>,
    scratch: &'a mut Scratch,
}

impl<T: Ring, O: Narrow> wide::Work for Multiplication<'_, T, O> {
    type Output = Option<()>;

    #[inline(always)]
    fn run<W: Wide>(self, wide: W) -> Option<()> {
        let Self { geometry, input, weights, mut results, scratch } = self;
        let Scratch { starts, row, sums, weights: tiles, .. } = scratch;
        geometry.starts(starts);
        let is_tiled = matches!(results.layer.packed.weights, Weights::Tiles(_));
        let product = Product { geometry, starts, input, weights, is_tiled, memory: [row, tiles, sums] };
        T::multiply(wide, product, &mut results)
    }
}

/// What the values of a source meet on their way into the padded input.
struct Map {
    /// Zero point of a raw source.
    zero: i32,
    /// How raw or activated values come into the units of the ring; `None`: they are in them.
    scale: Option<Scale>,
    ring_zero: i32,
    /// Whether the ring has eight bits, though it is of words here.
    is_narrow: bool,
}

impl Map {
    fn new(op: &Conv2d, source: usize, is_narrow: bool) -> Self {
        let [zero, multiplier, shift] = raw_map(op, source);
        let (multiplier, shift) = match op.gather() {
            Gather::Raw => (multiplier, shift),
            _ => (op.multiplier[0], op.shift[0]),
        };
        let is_scaled = !(op.gather() == Gather::Raw && multiplier == 0);
        let scale = is_scaled.then(|| Scale::uniform(multiplier, shift));
        Self { zero, scale, ring_zero: op.ring_zero, is_narrow }
    }
}

/// How a row of a source's `values` becomes one of the input.
struct Rows<'a, S, W, K> {
    wide: W,
    values: &'a [S],
    /// Factors and summands of a row's values; empty for a raw source.
    maps: [&'a [i32]; 2],
    right: u32,
    map: &'a Map,
    kind: K,
}

/// What becomes of values before they are scaled.
trait Kind: Copy {
    fn apply<W: Wide>(self, wide: W, values: &mut Lanes<i32>, map: &Affine<'_>);
}

/// Nothing but that their zero point is taken off.
#[derive(Clone, Copy)]
struct Raw(i32);

/// They are normalized, and activated by SiLU.
#[derive(Clone, Copy)]
struct Silu;

/// They are normalized, and activated otherwise if at all.
#[derive(Clone, Copy)]
struct Other(Option<format::Activation>);

impl Kind for Raw {
    #[inline(always)]
    fn apply<W: Wide>(self, wide: W, values: &mut Lanes<i32>, _map: &Affine<'_>) {
        wide.saturating_add(values, self.0.saturating_neg());
    }
}

impl Kind for Silu {
    #[inline(always)]
    fn apply<W: Wide>(self, wide: W, values: &mut Lanes<i32>, map: &Affine<'_>) {
        wide.affine(values, map);
        wide.silu(values);
    }
}

impl Kind for Other {
    #[inline(always)]
    fn apply<W: Wide>(self, wide: W, values: &mut Lanes<i32>, map: &Affine<'_>) {
        wide.affine(values, map);
        if let Some(activation) = self.0 {
            for value in values {
                *value = activate(activation, *value);
            }
        } else {
            for value in values {
                *value = (*value).clamp(-(1 << 27), 1 << 27) << (SILU_BITS - NORM_BITS);
            }
        }
    }
}

impl<S: Narrow, T: Ring, W: Wide, K: Kind> Transform<T> for Rows<'_, S, W, K> {
    #[inline(always)]
    fn row(&self, y: usize, target: &mut [T]) {
        let row = self.values.get(y * target.len()..(y + 1) * target.len()).unwrap_or_default();
        let [factors, summands] = self.maps;
        for (at, target) in (0..).step_by(LANES).zip(target.chunks_mut(LANES)) {
            let mut lanes = load_lanes(self.wide, row, at);
            // Not by a closure, in which the compiler would not use the instructions.
            let (factors, summands) = (load_lanes(self.wide, factors, at), load_lanes(self.wide, summands, at));
            let map = Affine { factors: &factors, summands: &summands, right: self.right };
            self.kind.apply(self.wide, &mut lanes, &map);
            if let Some(scale) = &self.map.scale {
                self.wide.requantize(&mut lanes, scale);
                self.wide.saturating_add(&mut lanes, self.map.ring_zero);
            }
            T::store(self.wide, &lanes, target, self.map.is_narrow);
        }
    }
}

#[inline(always)]
fn gather_source<S: Narrow, T: Ring, W: Wide>(
    (wide, layer): (W, &Layer<'_>),
    (source, map): (&Source, &Map),
    values: &[S],
    target: (&mut InputBand<'_, T>, &mut [T]),
    maps: [&[i32]; 2],
) -> Option<()> {
    let geometry = &layer.geometry;
    let right = layer.op.affine_shift;
    match layer.op.gather() {
        Gather::Raw => {
            // Without a scale values are copied as they are.
            let kind = Raw(if map.scale.is_some() { map.zero } else { 0 });
            gather(geometry, source, target, &Rows { wide, values, maps, right, map, kind })
        }
        Gather::AffineSilu => gather(geometry, source, target, &Rows { wide, values, maps, right, map, kind: Silu }),
        other => {
            let kind = Other(other.activation());
            gather(geometry, source, target, &Rows { wide, values, maps, right, map, kind })
        }
    }
}

/// What is added to the results.
enum Kept<'a> {
    /// What stands at the output's place, if there is a residual at all.
    Output,
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
}

impl<'a> Kept<'a> {
    fn new(element: Element, bytes: &'a [u8]) -> Option<Self> {
        match element {
            Element::I8 => view(bytes).map(Kept::I8),
            Element::I16 => view(bytes).map(Kept::I16),
            Element::I32 => view(bytes).map(Kept::I32),
            Element::F16 | Element::F32 => None,
        }
    }
}

impl Kept<'_> {
    /// What belongs to a band of results.
    fn band(&self, results: Range<usize>) -> Kept<'_> {
        match self {
            Kept::Output => Kept::Output,
            Kept::I8(values) => Kept::I8(values.get(results).unwrap_or_default()),
            Kept::I16(values) => Kept::I16(values.get(results).unwrap_or_default()),
            Kept::I32(values) => Kept::I32(values.get(results).unwrap_or_default()),
        }
    }
}

/// What turns accumulators into results.
struct Results<'a, O> {
    layer: &'a Layer<'a>,
    bias: &'a [i32],
    kept: Kept<'a>,
    output: &'a mut [O],
}

impl<O: Narrow> Finish<i32> for Results<'_, O> {
    #[inline(always)]
    fn begin(&self, block: usize) -> Lanes<i32> {
        let (mut bias, excess) = (block_of(self.bias, block), block_of(&self.layer.packed.excess, block));
        for (bias, excess) in bias.iter_mut().zip(excess) {
            *bias = bias.wrapping_sub(excess);
        }
        bias
    }

    #[inline(always)]
    fn finish<W: Wide>(&mut self, wide: W, pixel: usize, block: usize, lanes: &mut Lanes<i32>) {
        let Layer { op, packed, geometry, .. } = self.layer;
        let Some(scale) = packed.scales.get(block) else { return };
        let place = pixel * geometry.outputs..(pixel + 1) * geometry.outputs;
        let Some(output) = self.output.get_mut(place.clone()) else { return };
        wide.requantize(lanes, scale);
        if op.residual != NONE {
            let mut kept: Lanes<i32> = match &self.kept {
                Kept::Output => load_lanes(wide, output, block * LANES),
                Kept::I8(values) => load_lanes(wide, values.get(place).unwrap_or_default(), block * LANES),
                Kept::I16(values) => load_lanes(wide, values.get(place).unwrap_or_default(), block * LANES),
                Kept::I32(values) => load_lanes(wide, values.get(place).unwrap_or_default(), block * LANES),
            };
            wide.saturating_add(&mut kept, op.residual_zero.saturating_neg());
            wide.requantize(&mut kept, &packed.residual);
            for (lane, kept) in lanes.iter_mut().zip(kept) {
                *lane = sum(*lane, kept);
            }
        }
        wide.saturating_add(lanes, op.output_zero);
        store_lanes(wide, lanes, output.get_mut(block * LANES..).unwrap_or_default());
    }
}

/// Values from a place on; zeros where there are none.
#[inline(always)]
fn load_lanes<T: Narrow, W: Wide>(wide: W, values: &[T], at: usize) -> Lanes<i32> {
    let values = values.get(at..).unwrap_or_default();
    match values.first_chunk::<LANES>() {
        Some(values) => wide.load(values),
        None => {
            let mut padded = [T::zeroed(); LANES];
            if let Some(padded) = padded.get_mut(..values.len()) {
                padded.copy_from_slice(values);
            }
            wide.load(&padded)
        }
    }
}

/// The first lanes' nearest values, as many as there is room for.
#[inline(always)]
fn store_lanes<T: Narrow, W: Wide>(wide: W, lanes: &Lanes<i32>, values: &mut [T]) {
    match values.first_chunk_mut::<LANES>() {
        Some(values) => wide.store(lanes, values),
        None => {
            let mut padded = [T::zeroed(); LANES];
            wide.store(lanes, &mut padded);
            if let Some(padded) = padded.get(..values.len()) {
                values.copy_from_slice(padded);
            }
        }
    }
}
