//! Thirty-two threads in step. A kernel body is written once, for a whole warp; a GPU executes it with each thread doing
//! its lane, the host with loops over the lanes.

/// Threads of a warp.
pub const LANES: usize = 32;

/// Pixels of a [`Tile`]: four fragments of eight.
pub const TILE_PIXELS: usize = 32;
/// Output channels of a [`Tile`]: two fragments of eight.
pub const TILE_CHANNELS: usize = 16;
/// Products that one [`Warp::multiply`] sums in each result.
pub const TILE_DEPTH: usize = 16;

/// One lane's part of 32 pixels × 16 channels of sums: by fragment of pixels, fragment of channels, and the two channels
/// that the lane holds.
pub type Tile = [[[i32; 2]; 2]; 4];

/// The pixel and the channel, within the tile, that a lane's part of a [`Tile`] starts with, for fragments 0: others lie 8
/// pixels or 8 channels further. (The layout of `mma.m8n8k16`, PTX ISA, "Matrix fragments".)
#[inline(always)]
pub const fn tile_place(lane: u32) -> (u32, u32) {
    (lane / 4, lane % 4 * 2)
}

/// A warp.
pub trait Warp: Copy {
    /// A value for each lane.
    type Each<T: Copy>: Copy;

    /// Computes a value in each lane.
    fn each<T: Copy>(self, f: impl FnMut(u32) -> T) -> Self::Each<T>;

    /// Uses the value of each lane.
    fn with<T: Copy>(self, values: Self::Each<T>, f: impl FnMut(u32, T));

    /// Runs `f` for each thread of warp `index`.
    #[inline(always)]
    fn threads(self, index: u32, mut f: impl FnMut(u32)) {
        let threads = self.each(|lane| index * LANES as u32 + lane);
        self.with(threads, |_, thread| f(thread));
    }

    /// Gives each lane the value of the lane whose number differs in the bits of `mask`.
    fn exchange(self, values: Self::Each<u32>, mask: u32) -> Self::Each<u32>;

    /// Gives every lane the value of one lane.
    fn broadcast(self, values: Self::Each<f32>, lane: u32) -> Self::Each<f32>;

    /// Adds products of bytes to 32 × 16 sums, wrapping: of each pixel `TILE_DEPTH` activations, four in a lane for each
    /// of four fragments, and of each channel as many weights, four in a lane for each of two fragments. Lane `l` holds
    /// bytes `4·(l mod 4)..` of row `l / 4`. Weights are signed, activations unsigned if `unsigned`.
    fn multiply(
        self,
        sums: &mut Self::Each<Tile>,
        activations: Self::Each<[u32; 4]>,
        weights: Self::Each<[u32; 2]>,
        unsigned: bool,
    );

    /// The sum over all lanes, the same in each; it wraps.
    #[inline(always)]
    fn sum(self, values: Self::Each<i64>) -> Self::Each<i64> {
        let mut sums = values;
        let mut mask = LANES as u32 / 2;
        while mask > 0 {
            let low = self.exchange(self.map(sums, |sum| sum as u32), mask);
            let high = self.exchange(self.map(sums, |sum| (sum >> 32) as u32), mask);
            let other = self.zip(low, high, |low, high| (u64::from(high) << 32 | u64::from(low)) as i64);
            sums = self.zip(sums, other, i64::wrapping_add);
            mask /= 2;
        }
        sums
    }

    /// The largest value over all lanes, the same in each.
    #[inline(always)]
    fn largest(self, values: Self::Each<u32>) -> Self::Each<u32> {
        let mut largest = values;
        let mut mask = LANES as u32 / 2;
        while mask > 0 {
            largest = self.zip(largest, self.exchange(largest, mask), u32::max);
            mask /= 2;
        }
        largest
    }

    /// A function of each lane's value.
    fn map<T: Copy, U: Copy>(self, values: Self::Each<T>, f: impl FnMut(T) -> U) -> Self::Each<U>;

    /// A function of each lane's two values.
    fn zip<T: Copy, U: Copy, V: Copy>(
        self,
        left: Self::Each<T>,
        right: Self::Each<U>,
        f: impl FnMut(T, U) -> V,
    ) -> Self::Each<V>;
}

/// A warp on the host: loops over the lanes.
#[derive(Clone, Copy, Debug)]
pub struct HostWarp;

impl Warp for HostWarp {
    type Each<T: Copy> = [T; LANES];

    fn each<T: Copy>(self, mut f: impl FnMut(u32) -> T) -> [T; LANES] {
        core::array::from_fn(|lane| f(lane as u32))
    }

    fn with<T: Copy>(self, values: [T; LANES], mut f: impl FnMut(u32, T)) {
        for (lane, value) in values.into_iter().enumerate() {
            f(lane as u32, value);
        }
    }

    fn exchange(self, values: [u32; LANES], mask: u32) -> [u32; LANES] {
        core::array::from_fn(|lane| values[lane ^ mask as usize])
    }

    fn broadcast(self, values: [f32; LANES], lane: u32) -> [f32; LANES] {
        [values[lane as usize]; LANES]
    }

    fn multiply(
        self,
        sums: &mut [Tile; LANES],
        activations: [[u32; 4]; LANES],
        weights: [[u32; 2]; LANES],
        unsigned: bool,
    ) {
        let activation = |byte: u8| if unsigned { i32::from(byte) } else { i32::from(byte as i8) };
        // Row `r` of a fragment lies in lanes 4·r..4·r + 4, four bytes each.
        let row = |fragment: &dyn Fn(usize) -> u32, row: usize| -> [u8; TILE_DEPTH] {
            let words = [0, 1, 2, 3].map(|part| fragment(4 * row + part).to_le_bytes());
            bytemuck::cast(words)
        };
        for (j, channel) in (0..2).flat_map(|j| (0..8).map(move |channel| (j, channel))) {
            let taps = row(&|lane| weights[lane][j], channel);
            for (i, pixel) in (0..4).flat_map(|i| (0..8).map(move |pixel| (i, pixel))) {
                let patch = row(&|lane| activations[lane][i], pixel);
                let products = patch.iter().zip(&taps).map(|(&a, &w)| activation(a) * i32::from(w as i8));
                let sum = &mut sums[4 * pixel + channel / 2][i][j][channel % 2];
                *sum = products.fold(*sum, i32::wrapping_add);
            }
        }
    }

    fn map<T: Copy, U: Copy>(self, values: [T; LANES], f: impl FnMut(T) -> U) -> [U; LANES] {
        values.map(f)
    }

    fn zip<T: Copy, U: Copy, V: Copy>(
        self,
        left: [T; LANES],
        right: [U; LANES],
        mut f: impl FnMut(T, U) -> V,
    ) -> [V; LANES] {
        core::array::from_fn(|lane| f(left[lane], right[lane]))
    }
}
