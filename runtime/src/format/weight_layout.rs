//! How the weights of a convolution are laid out: the one place that knows their order and size.

use super::record::codes;
use super::{ALIGN, CHANNEL_BLOCK, PATCH_GROUP, Tiling};

codes! {
    /// Order and width of a convolution's weights. A *tap* is one of the (row, column, input channel) positions of the
    /// kernel, in that order; a *group* holds the weights of neighbouring outputs for one tap side by side. Missing outputs
    /// of the last group have zeros.
    pub enum WeightLayout {
        /// `i8` in (output, tap) order: groups of one.
        Rows8 = 0,
        /// Four bits, two's complement, in (group of 4 outputs, tap, output in group) order; the first output of a group is in
        /// the lowest bits of its 16.
        Groups4 = 1,
        /// `f16` in (group of 8 outputs, tap, output in group) order.
        Groups16 = 2,
        /// `f32` in (group of 8 outputs, tap, output in group) order.
        Groups32 = 3,
        /// `i16`, transformed for [`Tiling::Four`], in (pair of outputs, point, four inputs, output in pair, input) order; the four
        /// inputs stand in the order 0, 2, 1, 3. There are 3×3 taps and whole fours of inputs.
        Tiles4 = 4,
        /// The same for [`Tiling::Two`].
        Tiles2 = 5,
    }
}

/// Whether transformed weights are ever read: a session of a model that has any is refused without the feature, so that nothing
/// depends on their size.
const READS_TILES: bool = cfg!(feature = "stored-tiles");

impl WeightLayout {
    /// Outputs whose weights stand side by side.
    pub const fn group(self) -> usize {
        match self {
            WeightLayout::Groups4 => 4,
            WeightLayout::Groups16 | WeightLayout::Groups32 => CHANNEL_BLOCK,
            WeightLayout::Tiles4 | WeightLayout::Tiles2 if READS_TILES => 2,
            WeightLayout::Rows8 | WeightLayout::Tiles4 | WeightLayout::Tiles2 => 1,
        }
    }

    /// The tiles that weights are transformed for, if they are.
    pub const fn tiling(self) -> Option<Tiling> {
        match self {
            WeightLayout::Tiles4 => Some(Tiling::Four),
            WeightLayout::Tiles2 => Some(Tiling::Two),
            WeightLayout::Rows8 | WeightLayout::Groups4 | WeightLayout::Groups16 | WeightLayout::Groups32 => None,
        }
    }

    /// Whether weights are transformed for some tiles.
    pub const fn is_transformed(self) -> bool {
        matches!(self, WeightLayout::Tiles4 | WeightLayout::Tiles2)
    }

    /// Bits of one weight.
    pub const fn bits(self) -> usize {
        match self {
            WeightLayout::Groups4 => 4,
            WeightLayout::Groups16 => 16,
            WeightLayout::Groups32 => 32,
            WeightLayout::Tiles4 | WeightLayout::Tiles2 if READS_TILES => 16,
            WeightLayout::Rows8 | WeightLayout::Tiles4 | WeightLayout::Tiles2 => 8,
        }
    }

    /// Numbers that stand for the `taps` weights of an output: these, or what they are transformed to, a number for each point
    /// and input.
    pub const fn numbers(self, taps: u64) -> u64 {
        match self.tiling() {
            // A convolution has less than 2³² taps.
            Some(tiling) if READS_TILES => (taps as u32 / 9) as u64 * tiling.points() as u64,
            _ => taps,
        }
    }

    /// Bytes of the weights of `outputs` channels of `taps` weights each.
    pub const fn bytes(self, outputs: u64, taps: u64) -> u64 {
        // A power of two, which not every compiler finds out.
        let rest = self.group() as u64 - 1;
        ((outputs + rest) & !rest) * self.numbers(taps) * self.bits() as u64 / 8
    }

    /// Which number of the array is number `at` of the `numbers` of an output: its tap, or `point·inputs + input`.
    #[inline(always)]
    pub const fn index(self, output: usize, at: usize, numbers: usize) -> usize {
        let group = self.group();
        match self.tiling() {
            None => (output / group * numbers + at) * group + output % group,
            Some(_) => {
                let fourth = at % PATCH_GROUP;
                let place = fourth / 2 + fourth % 2 * 2;
                (output / group * numbers + at - fourth) * group + output % group * PATCH_GROUP + place
            }
        }
    }

    /// Cuts the weights of `outputs` channels into chunks of `blocks` times eight channels.
    pub const fn chunks(self, blocks: u16, outputs: u64, taps: u64) -> Chunks {
        let channels = if blocks == 0 { 1 } else { blocks as u64 } * CHANNEL_BLOCK as u64;
        let count = outputs.div_ceil(channels);
        let last = outputs - (count.saturating_sub(1)) * channels;
        Chunks {
            count,
            bytes: self.bytes(channels, taps).next_multiple_of(ALIGN as u64),
            last_bytes: self.bytes(last, taps).next_multiple_of(ALIGN as u64),
        }
    }
}

/// The chunks of one convolution's external weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// How many.
    pub count: u64,
    /// Bytes of each but the last.
    pub bytes: u64,
    /// Bytes of the last.
    pub last_bytes: u64,
}

impl Chunks {
    /// Bytes of the largest.
    pub const fn largest(&self) -> u64 {
        if self.count > 1 { self.bytes } else { self.last_bytes }
    }

    /// How many fit a window of `window` bytes: with two or more, one is read while another is in use.
    pub const fn buffers(&self, window: u64) -> u64 {
        // A division of words: a longer one would be all that links the library's.
        let fit = if self.bytes > u32::MAX as u64 { 0 } else { crate::fixed::divide(window, self.bytes as u32) };
        if fit > 0 { fit } else { 1 }
    }

    /// Bytes of all.
    pub const fn total(&self) -> u64 {
        self.count.saturating_sub(1) * self.bytes + self.last_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every weight has a place of its own inside the array, and groups are contiguous.
    #[test]
    fn places_are_distinct_and_inside() {
        for &layout in WeightLayout::ALL {
            let sizes = match layout.tiling() {
                None => [(1, 1), (3, 9), (8, 9), (13, 5), (16, 25)],
                Some(_) => [(1, 36), (2, 36), (3, 36), (2, 72), (7, 36)],
            };
            for (outputs, taps) in sizes {
                let bytes = layout.bytes(outputs as u64, taps) as usize;
                let numbers = layout.numbers(taps) as usize;
                let mut seen = [false; 2048];
                for output in 0..outputs {
                    for tap in 0..numbers {
                        let index = layout.index(output, tap, numbers);
                        assert!((index + 1) * layout.bits() <= 8 * bytes, "{layout:?} {output} {tap}");
                        assert!(!core::mem::replace(&mut seen[index], true), "{layout:?} {output} {tap}");
                    }
                }
            }
        }
    }

    /// Two bytes for each of 36 or 16 points instead of nine taps, for whole pairs of outputs.
    #[test]
    fn transformed_weights_take_more() {
        assert_eq!([1, 2, 3].map(|outputs| WeightLayout::Tiles4.bytes(outputs, 9 * 20)), [2880, 2880, 5760]);
        assert_eq!([1, 2, 3].map(|outputs| WeightLayout::Tiles2.bytes(outputs, 9 * 20)), [1280, 1280, 2560]);
    }

    #[test]
    fn chunks_cover_all_outputs() {
        for &layout in WeightLayout::ALL {
            for outputs in 1..70 {
                for blocks in 1..5 {
                    let chunks = layout.chunks(blocks, outputs, 9);
                    let channels = u64::from(blocks) * CHANNEL_BLOCK as u64;
                    assert_eq!(chunks.count, outputs.div_ceil(channels));
                    let last = outputs - (chunks.count - 1) * channels;
                    assert!((1..=channels).contains(&last));
                    assert_eq!(chunks.last_bytes, layout.bytes(last, 9).next_multiple_of(16));
                    assert_eq!(chunks.total(), (chunks.count - 1) * chunks.bytes + chunks.last_bytes);
                    let sizes =
                        (1..=chunks.count).map(|at| if at < chunks.count { chunks.bytes } else { chunks.last_bytes });
                    assert_eq!(Some(chunks.largest()), sizes.max());
                }
            }
        }
    }

    /// As many whole chunks as a window holds, and one if it holds none: a single chunk may be shorter than the others would be.
    #[test]
    fn windows_hold_whole_chunks() {
        let of = |bytes| Chunks { count: 9, bytes, last_bytes: 16 };
        for window in [0, 79, 80, 159, 160, 161, 400] {
            let fit = (1..).take_while(|count| 80 * count <= window).count();
            assert_eq!(of(80).buffers(window), fit.max(1) as u64, "{window}");
        }
        assert_eq!([of(u64::from(u32::MAX)).buffers(1 << 33), of((1 << 32) + 16).buffers(1 << 32)], [2, 1]);
    }
}
