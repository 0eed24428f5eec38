//! Convolution with its input transformation.
//!
//! The input is never unfolded. A ring holds the last `kh` rows of the padded, transformed input, each of
//! `ring_width·channels` elements, so that the patch under the kernel is `kh` runs of `kw·channels` neighbours. Row `r`
//! of the padded input lies in slot `r mod kh`. Slice `s` computes output row `s / blocks`, channels
//! `8·(s mod blocks)..`; the first slice of a row brings the rows into the ring that the row before did not need.

use super::Context;
use crate::format::{CHANNEL_BLOCK, Conv2d};
use crate::model::Model;

#[cfg(any(feature = "f16", feature = "f32"))]
pub(crate) mod float;
#[cfg(feature = "i8")]
pub(crate) mod i8;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    rows: usize,
    channels: usize,
    output_columns: usize,
    output_channels: usize,
    ring_width: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
    /// 1 if rows and columns are doubled, else 0.
    doubling: usize,
}

impl Geometry {
    fn new(context: &Context<'_>, op: &Conv2d) -> Option<Self> {
        let source = context.tensor(op.sources[0])?;
        let output = context.tensor(op.output)?;
        let ring = context.tensor(op.scratch)?;
        Some(Self {
            rows: source.rows.into(),
            channels: ring.channels.into(),
            output_columns: output.columns.into(),
            output_channels: output.channels.into(),
            ring_width: ring.columns.into(),
            kernel: op.kernel.map(usize::from),
            stride: op.stride.into(),
            padding: op.padding.map(usize::from),
            doubling: op.upsample.into(),
        })
    }

    /// Rows of the padded input that output row `y` needs and the row before did not.
    fn new_rows(&self, y: usize) -> core::ops::Range<usize> {
        let start = y * self.stride;
        let end = start + self.kernel[0];
        if y == 0 { start..end } else { start.max(end - self.stride)..end }
    }

    /// The source row of a row of the padded input; `None` for padding.
    fn source_row(&self, ring_row: usize) -> Option<usize> {
        let row = ring_row.checked_sub(self.padding[0])? >> self.doubling;
        (row < self.rows).then_some(row)
    }

    /// Elements of one row of the ring.
    fn ring_row_len(&self) -> usize {
        self.ring_width * self.channels
    }

    /// First element of the ring's slot of a row of the padded input.
    fn slot(&self, ring_row: usize) -> usize {
        ring_row.checked_rem(self.kernel[0]).unwrap_or(0) * self.ring_row_len()
    }

    /// Output row, first output channel and number of channels of a slice.
    fn tile(&self, slice: u32) -> (usize, usize, usize) {
        let blocks = self.output_channels.div_ceil(CHANNEL_BLOCK).max(1);
        let channel = (slice as usize % blocks) * CHANNEL_BLOCK;
        (slice as usize / blocks, channel, self.output_channels.saturating_sub(channel).min(CHANNEL_BLOCK))
    }
}

/// Number of slices.
pub(super) fn slices(model: &Model<'_>, op: &Conv2d) -> Option<u32> {
    let output = model.tensor(op.output)?;
    Some(u32::from(output.rows) * u32::from(output.channels).div_ceil(CHANNEL_BLOCK as u32))
}
