//! Convolution: the padded, transformed input as a whole, then tiles of pixels and channels.

mod float;
mod integer;
pub(super) mod tiles;

use core::ops::Range;
use std::vec::Vec;

use bytemuck::{Pod, Zeroable};

use super::packed::{Packed, Weights, panels};
use super::threads::Team;
use crate::arch::wide::{Instructions, LANES, Lanes, PANEL, PIXELS, Sums, Wide, Window};
use crate::format::{Bias, Conv2d, NONE, Tensor};
use crate::ops::{Context, Source, Sources, sources, view};

pub(super) fn run(
    instructions: Instructions,
    context: &Context<'_>,
    (op, packed): (&Conv2d, &Packed),
    machine: (Team<'_>, &mut Vec<u64>),
    arena: &mut [u8],
) -> Option<()> {
    let layer = &Layer::new(context, op, packed)?;
    match &packed.weights {
        Weights::Bytes(weights) => integer::run::<u8>(instructions, layer, weights, machine, arena),
        Weights::Words(weights) | Weights::Tiles(weights) => {
            integer::run::<i16>(instructions, layer, weights, machine, arena)
        }
        Weights::Floats(weights) => float::run(instructions, layer, weights, machine, arena),
    }
}

/// A convolution and where it stands.
struct Layer<'a> {
    context: &'a Context<'a>,
    op: &'a Conv2d,
    packed: &'a Packed,
    sources: Sources<'a>,
    output: Tensor,
    geometry: Geometry,
}

/// Sizes.
#[derive(Clone, Copy)]
struct Geometry {
    /// Rows and pixels of a row of the padded input.
    padded: [usize; 2],
    /// Elements of its pixels: input channels, and those that make runs whole groups.
    channels: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
    /// 1 if rows and columns are doubled, else 0.
    doubling: usize,
    /// Rows and columns of the output.
    output: [usize; 2],
    outputs: usize,
}

impl<'a> Layer<'a> {
    fn new(context: &'a Context<'a>, op: &'a Conv2d, packed: &'a Packed) -> Option<Self> {
        let (ring, output) = (context.tensor(op.scratch)?, op.computed(*context.tensor(op.output)?));
        let kernel = op.kernel.map(usize::from);
        let stride = usize::from(op.stride);
        let rows = usize::from(output.rows.checked_sub(1)?) * stride + kernel[0];
        let geometry = Geometry {
            padded: [rows, ring.columns.into()],
            channels: packed.weights.padded(ring.channels.into()),
            kernel,
            stride,
            padding: op.padding.map(usize::from),
            doubling: op.doubling() as usize,
            output: [output.rows.into(), output.columns.into()],
            outputs: output.channels.into(),
        };
        let sources = sources(context, op.sources)?;
        Some(Self { context, op, packed, sources, output, geometry })
    }

    /// The biases of all output channels; `tensor` is what a tensor of biases holds.
    fn bias<'b, T: Pod>(&self, tensor: &'b [u8]) -> Option<&'b [T]>
    where
        'a: 'b,
    {
        let Self { context, op, geometry, .. } = self;
        match op.bias() {
            Bias::Constant => context.data(op.bias_at, geometry.outputs),
            Bias::Step => context.data(context.biases_of_step() + op.bias_at, geometry.outputs),
            Bias::Tensor => view(tensor)?.get(..geometry.outputs),
        }
    }

    /// The maps of a source's channels, behind a normalization; else nothing.
    fn maps<'b, T: Pod>(&self, source: &Source<'_>, arena: &'b [u8]) -> Option<&'b [[T; 2]]> {
        if self.op.norm == NONE {
            return Some(&[]);
        }
        let maps: &[[T; 2]] = view(arena.get(self.context.tensor(self.op.norm)?.range())?)?;
        maps.get(source.channel..source.channel + usize::from(source.tensor.channels))
    }

    /// The padded input in bands, for rows of the sources.
    fn input_bands<'i, T>(&self, team: &Team<'_>, input: &'i mut [T]) -> Vec<InputBand<'i, T>> {
        let Geometry { padding: [above, _], doubling, .. } = self.geometry;
        let rows = self.sources.iter().flatten().map(|source| usize::from(source.tensor.rows)).max().unwrap_or(0);
        // What brings a value there takes about as long as so many products.
        let bands = team.bands(rows, 1, 16 * input.len());
        let mut rest = input;
        let mut first = 0;
        let count = bands.len();
        let cut = |(index, rows): (usize, Range<usize>)| {
            let end =
                if index + 1 == count { usize::MAX } else { (above + (rows.end << doubling)) * self.geometry.pitch() };
            let all = core::mem::take(&mut rest);
            let (input, others) = all.split_at_mut((end - first).min(all.len()));
            let band = InputBand { rows, first, input };
            first += band.input.len();
            rest = others;
            band
        };
        bands.into_iter().enumerate().map(cut).collect()
    }

    /// The output in bands of rows, each with what it reads of the padded input; `None` if there is too little of either.
    fn output_bands<'i, 'o, T, O>(
        &self,
        team: &Team<'_>,
        input: &'i [T],
        output: &'o mut [O],
    ) -> Option<Vec<OutputBand<'i, 'o, T, O>>> {
        let geometry = self.geometry;
        let [rows, columns] = geometry.output;
        let unit = if matches!(self.packed.weights, Weights::Tiles(_)) { tiles::TILE } else { 1 };
        let work = rows * columns * geometry.outputs * geometry.kernel[0] * geometry.kernel[1] * geometry.channels;
        let mut rest = output;
        let band = |rows: Range<usize>| {
            let results = rows.start * columns * geometry.outputs..rows.end * columns * geometry.outputs;
            let output;
            (output, rest) = core::mem::take(&mut rest).split_at_mut_checked(results.len())?;
            let input = input.get(rows.start * geometry.stride * geometry.pitch()..)?;
            let geometry = Geometry { output: [rows.len(), columns], ..geometry };
            Some(OutputBand { geometry, input, results, output })
        };
        team.bands(rows, unit, work).into_iter().map(band).collect()
    }

    /// The tensor that is added, unless it lies at the output's place.
    fn residual(&self) -> Option<&'a Tensor> {
        self.context.tensor(self.op.residual).filter(|residual| residual.offset != self.output.offset)
    }
}

/// Some rows of the padded input.
struct InputBand<'a, T> {
    /// The rows of the sources that come there.
    rows: Range<usize>,
    /// The first element.
    first: usize,
    input: &'a mut [T],
}

/// Some rows of the output.
struct OutputBand<'i, 'o, T, O> {
    geometry: Geometry,
    /// The padded input from the first row on that they read.
    input: &'i [T],
    /// Where they stand in the output.
    results: Range<usize>,
    output: &'o mut [O],
}

impl Geometry {
    /// Elements of the padded input.
    fn len(&self) -> usize {
        self.padded[0] * self.pitch()
    }

    /// Elements of a row of it.
    fn pitch(&self) -> usize {
        self.padded[1] * self.channels
    }

    /// The first activation under the kernel at each output pixel.
    fn starts(&self, starts: &mut Vec<usize>) {
        starts.clear();
        let [rows, columns] = self.output;
        let [down, right] = [self.stride * self.pitch(), self.stride * self.channels];
        starts.extend((0..rows).flat_map(|y| (0..columns).map(move |x| y * down + x * right)));
    }
}

/// Elements of the padded input, and their products.
pub(super) trait Activation: Pod + Send + Sync {
    type Weight: Pod + Sync;
    type Sum: Pod;

    /// Adds products of a window's activations.
    fn dot<W: Wide, const N: usize>(
        wide: W,
        sums: &mut Sums<Self::Sum>,
        window: &Window<'_, Self>,
        weights: &[Self::Weight],
    );

    /// Adds them in short chains, if the type has these.
    #[inline(always)]
    fn dot_chains<W: Wide, const N: usize>(
        wide: W,
        sums: &mut Sums<Self::Sum>,
        window: &Window<'_, Self>,
        weights: &[Self::Weight],
    ) {
        Self::dot::<W, N>(wide, sums, window, weights);
    }
}

/// What makes a row of the padded input of a source's row. A trait, as closures are not always inlined, see [`wide::Work`].
///
/// [`wide::Work`]: crate::arch::wide::Work
trait Transform<T> {
    fn row(&self, y: usize, target: &mut [T]);
}

/// Brings the rows of a source into a band of the padded input. `row` holds one.
#[inline(always)]
fn gather<T: Pod>(
    geometry: &Geometry,
    source: &Source,
    (InputBand { rows, first, input }, row): (&mut InputBand<'_, T>, &mut [T]),
    transform: &impl Transform<T>,
) -> Option<()> {
    let Geometry { padding: [above, left], doubling, channels: pixel, .. } = *geometry;
    let channels = usize::from(source.tensor.channels);
    let columns = usize::from(source.tensor.columns);
    let pitch = geometry.pitch();
    let is_direct = doubling == 0 && channels == pixel;
    for y in rows.clone() {
        let start = ((above + (y << doubling)) * pitch).checked_sub(*first)?;
        // A stride may leave the last rows unread.
        let Some(target) = input.get_mut(start..start + pitch) else { break };
        let target = target.get_mut(left * pixel..(left + (columns << doubling)) * pixel)?;
        transform.row(y, if is_direct { &mut *target } else { &mut *row });
        if is_direct {
            continue;
        }
        for (target, values) in target.chunks_exact_mut(pixel << doubling).zip(row.chunks_exact(channels)) {
            for target in target.chunks_exact_mut(pixel) {
                target.get_mut(source.channel..source.channel + channels)?.copy_from_slice(values);
            }
        }
        if doubling > 0 && input.len() >= start + 2 * pitch {
            input.copy_within(start..start + pitch, start + pitch);
        }
    }
    Some(())
}

/// What becomes of sums.
trait Finish<S> {
    /// Whether they are sums of short chains.
    const OF_CHAINS: bool = false;

    /// How those of a block of channels start.
    fn begin(&self, block: usize) -> Lanes<S>;

    /// Takes those of a pixel and a block.
    fn finish<W: Wide>(&mut self, wide: W, pixel: usize, block: usize, sums: &mut Lanes<S>);
}

/// Multiplies the padded input with all weights.
#[inline(always)]
fn multiply<T: Activation, W: Wide, R: Finish<T::Sum>>(
    wide: W,
    geometry: &Geometry,
    (starts, input, mut weights): (&[usize], &[T], &[T::Weight]),
    results: &mut R,
) -> Option<()> {
    let [rows, run] = [geometry.kernel[0], geometry.kernel[1] * geometry.channels];
    let mut first = 0;
    for blocks in panels(geometry.outputs) {
        let panel;
        (panel, weights) = weights.split_at_checked(blocks * LANES * rows * run)?;
        let mut initial = [Lanes::<T::Sum>::zeroed(); PANEL];
        for (block, initial) in (first..).zip(initial.iter_mut().take(blocks)) {
            *initial = results.begin(block);
        }
        let mut sums = Sums::<T::Sum>::zeroed();
        for (tile, starts) in starts.chunks(PIXELS).enumerate() {
            // Past the last pixel the last one is computed again; its sums are not used.
            let last = starts.last().copied()?;
            let mut places = [last; PIXELS];
            for (place, &start) in places.iter_mut().zip(starts) {
                *place = start;
            }
            let window = Window::new(input, places, [rows, run], geometry.pitch())?;
            for (sums, &lanes) in sums.iter_mut().zip(&initial).take(blocks) {
                *sums = [lanes; PIXELS];
            }
            match (blocks, R::OF_CHAINS) {
                (1, false) => T::dot::<W, 1>(wide, &mut sums, &window, panel),
                (2, false) => T::dot::<W, 2>(wide, &mut sums, &window, panel),
                (_, false) => T::dot::<W, PANEL>(wide, &mut sums, &window, panel),
                (1, true) => T::dot_chains::<W, 1>(wide, &mut sums, &window, panel),
                (2, true) => T::dot_chains::<W, 2>(wide, &mut sums, &window, panel),
                (_, true) => T::dot_chains::<W, PANEL>(wide, &mut sums, &window, panel),
            }
            for (block, sums) in (first..).zip(sums.iter_mut().take(blocks)) {
                for (pixel, sums) in (tile * PIXELS..).zip(sums.iter_mut().take(starts.len())) {
                    results.finish(wide, pixel, block, sums);
                }
            }
        }
        first += blocks;
    }
    Some(())
}

/// The values of a block's channels, from `values` of all channels.
#[inline(always)]
fn block_of<T: Pod>(values: &[T], block: usize) -> Lanes<T> {
    let mut lanes = [T::zeroed(); LANES];
    let values = values.get(block * LANES..).unwrap_or_default();
    for (lane, &value) in lanes.iter_mut().zip(values) {
        *lane = value;
    }
    lanes
}

/// Repeats the maps of a source's channels along a row, so that a row is one loop: its factors and its summands.
#[inline(always)]
fn spread<'a, T: Pod>(maps: &[[T; 2]], row: &'a mut [T]) -> Option<[&'a [T]; 2]> {
    let (factors, summands) = row.split_at_mut_checked(row.len() / 2)?;
    let channels = maps.len().max(1);
    for (factors, summands) in factors.chunks_mut(channels).zip(summands.chunks_mut(channels)) {
        for ((factor, summand), &[a, b]) in factors.iter_mut().zip(summands).zip(maps) {
            (*factor, *summand) = (a, b);
        }
    }
    Some([factors, summands])
}
