//! Kernels that are a part of an operation, by themselves: what a query of an attention takes for its scores, and for the
//! weights of these. The same on a device and, for comparison, on the host.

use core::hint::black_box;

use waft::arithmetic::attention::{normalizer, scores, weigh};
use waft::format::Attention;
use waft::noise::philox;

/// Queries, which are as many as there are keys, and channels of each.
const PIXELS: usize = 64;
const CHANNELS: usize = 32;

/// What a kernel took by the clock, and a number that its results give.
pub struct Trial {
    pub name: &'static str,
    pub ticks: u64,
    pub checksum: u64,
}

/// Numbers of 8 bits without a pattern.
fn random(operand: u32) -> [i8; PIXELS * CHANNELS] {
    core::array::from_fn(|i| philox([operand, 0x6b65_726e], [i as u32, 0, 0, 0])[0] as i8)
}

/// Another number for every other result, as far as 64 bits go.
fn checksum(values: impl Iterator<Item = i32>) -> u64 {
    values.fold(0, |sum, value| (sum ^ u64::from(value as u32)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Runs each kernel once over all queries.
pub fn trials(clock: impl Fn() -> u64) -> [Trial; 2] {
    let (queries, keys) = (random(0), random(1));
    let mut all = [[0; PIXELS]; PIXELS];
    let before = clock();
    for (row, query) in all.iter_mut().zip(black_box(&queries).chunks_exact(CHANNELS)) {
        scores(row, query, black_box(&keys), CHANNELS);
    }
    let products = Trial {
        name: "bmm_64x64x32",
        ticks: clock().wrapping_sub(before),
        checksum: checksum(all.as_flattened().iter().copied()),
    };
    // Scores of about 2¹⁵ are spread over some binary orders; weights have 15 bits.
    let op = Attention {
        kind: 0,
        reserved: [0; 3],
        query: 0,
        key_value: 0,
        output: 0,
        scratch: 0,
        heads: 1,
        memory: 0,
        score_multiplier: 1 << 30,
        score_shift: -4,
        value_multiplier: 1 << 30,
        value_shift: 0,
        weight_bits: 15,
        scale: 0.0,
        memory_at: 0,
        reserved_end: [0; 76],
    };
    let mut maps = [[0; 2]; PIXELS];
    let before = clock();
    for (row, map) in black_box(&mut all).iter_mut().zip(&mut maps) {
        let largest = row.iter().copied().max().unwrap_or_default();
        let total = weigh(black_box(&op), largest, row);
        *map = normalizer([op.value_multiplier, op.value_shift], total);
    }
    let softmax = Trial {
        name: "softmax_64x64",
        ticks: clock().wrapping_sub(before),
        checksum: checksum(all.as_flattened().iter().chain(maps.as_flattened()).copied()),
    };
    [products, softmax]
}
