//! What tiles and patches hold, and that sums of tiles are exact.

use bytemuck::Zeroable;

use super::*;

#[test]
fn tiles_are_whole_pairs_of_whole_groups() {
    let fits = |op: Conv2d, inputs: u64, shape: [usize; 3]| op.tiles(inputs, shape);
    for (tiling, side, most) in [(Tiling::Four, 4, MOST_TILED_INPUTS), (Tiling::Two, 2, MOST_WIDE_TILED_INPUTS)] {
        let tiled = |tile_rows| {
            let ring_limit = tiling.ring_limit(4);
            Conv2d { kernel: [3, 3], stride: 1, tile_rows, ring_limit, ..Conv2d::zeroed() }
        };
        assert!(fits(tiled(1), 4, [side, 2 * side, 2]));
        assert!(fits(tiled(2), u64::from(most), [4 * side, 6 * side, 6]));
        for (inputs, shape) in [
            (4, [side / 2, 2 * side, 2]),
            (4, [3 * side / 2, 2 * side, 2]),
            (4, [side, side, 2]),
            (4, [side, 3 * side, 2]),
            (4, [side, 2 * side, 1]),
            (6, [side, 2 * side, 2]),
            (u64::from(most) + 4, [side, 2 * side, 2]),
        ] {
            assert!(!fits(tiled(1), inputs, shape), "{tiling:?}: {inputs} inputs, {shape:?}");
        }
        assert!(!fits(tiled(2), 4, [side, 2 * side, 2]));
        let other = if tiling == Tiling::Four { Tiling::Two } else { Tiling::Four };
        let stored = |layout: WeightLayout| Conv2d { layout: layout.code(), ..tiled(1) };
        assert!(fits(stored(tiling.layout()), 4, [side, 2 * side, 2]));
        assert!(!fits(stored(other.layout()), 4, [side, 2 * side, 2]));
        let changed: [fn(&mut Conv2d); 4] =
            [|op| op.kernel = [3, 1], |op| op.kernel = [1, 3], |op| op.stride = 2, |op| op.layout = 1];
        for change in changed {
            let mut op = tiled(1);
            change(&mut op);
            assert!(!fits(op, 4, [side, 2 * side, 2]), "{op:?}");
        }
    }
}

/// The weights as a polynomial of two variables, whose values at 0, ±1, ±2 and at infinity they are transformed to (Toom and
/// Cook's algorithm, which Lavin and Gray's transforms are).
#[test]
fn transforms_are_values_of_a_polynomial() {
    let power = |point: Option<i32>, exponent: usize| match point {
        Some(point) => point.pow(exponent as u32),
        None => i32::from(exponent == 2),
    };
    let weights = [-128, 3, 77, -5, 127, 40, 9, -61, 100];
    for (tiling, points) in [
        (Tiling::Four, &[Some(0), Some(1), Some(-1), Some(2), Some(-2), None][..]),
        (Tiling::Two, &[Some(0), Some(1), Some(-1), None][..]),
    ] {
        assert_eq!([tiling.side() + 2, tiling.points()], [points.len(), points.len() * points.len()]);
        for (y, &row) in points.iter().enumerate() {
            for (x, &column) in points.iter().enumerate() {
                let terms = weights
                    .iter()
                    .enumerate()
                    .map(|(tap, &weight)| power(row, tap / 3) * power(column, tap % 3) * i32::from(weight));
                let value = terms.sum::<i32>();
                assert_eq!(i32::from(tiling.transformed(&weights, y * points.len() + x)), value, "{tiling:?} {y} {x}");
            }
        }
    }
}

/// Eight columns in steps of two under three taps reach to 17; what the source and its padding hold may be more.
#[test]
fn rings_are_as_wide_as_what_is_read_or_held() {
    let op = Conv2d { kernel: [3, 3], stride: 2, padding: [1, 1], ..Conv2d::zeroed() };
    assert_eq!([op.ring_width(16, 8), op.ring_width(15, 8), op.ring_width(20, 8)], [17, 17, 21]);
    let doubled = Conv2d { stride: 1, upsample: Upsample::Nearest.code(), ..op };
    assert_eq!([doubled.ring_width(8, 16), doubled.ring_width(9, 16)], [18, 19]);
    assert_eq!([op.ring_width(2, 0), doubled.ring_width(0, 1)], [3, 3]);
}

/// 45 taps of five channels are eleven groups of four and one more.
#[test]
fn patches_are_whole_groups() {
    let op = Conv2d { kernel: [3, 3], ..Conv2d::zeroed() };
    assert_eq!([op.patch_groups(4), op.patch_groups(5), op.patch_groups(1)], [9, 12, 3]);
}

/// Room for tiles of four rows over sixteen columns, two pairs of 36 points each, and of 24 inputs at 8 columns, counted by hand:
/// points of each pair, of weights unless the file has them transformed, four products a point and eight sums a pixel.
#[test]
fn tiles_have_room_for_all_that_they_hold() {
    let of = |tiling: Tiling, tile_rows: u8, layout: WeightLayout| {
        let ring_limit = tiling.ring_limit(4);
        Conv2d { kernel: [3, 3], stride: 1, tile_rows, ring_limit, layout: layout.code(), ..Conv2d::zeroed() }
    };
    let four = of(Tiling::Four, 1, WeightLayout::Rows8);
    assert_eq!([four.band_rows(), four.ring_rows()], [4, 6]);
    // (2 + 1)·36 points; 4·36 + 4·16·8 = 656 values, 164 of four channels, and 55 of twelve, for which there are 56.
    assert_eq!([four.tile_columns(16, 4), four.tile_columns(16, 12)], [108 + 164, 108 + 56]);
    assert_eq!(of(Tiling::Four, 1, WeightLayout::Tiles4).tile_columns(16, 4), 72 + 164);
    // Three pairs, 144 + 768 values; and as many of no channels as of one.
    assert_eq!([four.tile_columns(24, 4), four.tile_columns(16, 0)], [144 + 228, 108 + 656]);
    let two = of(Tiling::Two, 3, WeightLayout::Rows8);
    assert_eq!([two.band_rows(), two.ring_rows()], [6, 8]);
    // Three rows of two pairs and the weights: 7·16 points; 4·16 + 6·8·8 = 448 values.
    assert_eq!([two.tile_columns(8, 8), two.tile_columns(8, 24)], [112 + 56, 112 + 20]);
    let untiled = of(Tiling::Four, 0, WeightLayout::Rows8);
    assert_eq!([untiled.band_rows(), untiled.ring_rows()], [1, 3]);
}

/// Weights come back from what they are transformed to; numbers that no weights are transformed to are told.
#[test]
fn transforms_of_weights_are_inverted() {
    for tiling in [Tiling::Four, Tiling::Two] {
        for seed in 0..200i32 {
            let weights: [i8; 9] = core::array::from_fn(|tap| match seed {
                0 => -128,
                1 => 127,
                _ => (seed * 7919 + tap as i32 * 104_729).rem_euclid(256).wrapping_sub(128) as i8,
            });
            let at = |point| tiling.transformed(&weights, point);
            assert_eq!(tiling.weights(at), Some(weights), "{tiling:?}");
            let wrong = seed as usize % tiling.points();
            assert_eq!(tiling.weights(|point| at(point) + i16::from(point == wrong)), None, "{tiling:?}");
        }
    }
}

/// The most input channels keep sums below what is left of 32 bits by a factor of 64, or of four.
#[test]
fn sums_of_tiles_are_exact() {
    assert!(9 * 128 * 128 * i64::from(MOST_TILED_INPUTS) < 1 << 25);
    let mut before = u16::MAX;
    for inputs in 1..=MOST_WIDE_TILED_INPUTS {
        let limit = Tiling::Two.ring_limit(inputs.into());
        assert!(limit > 0 && limit <= before && 4 * i32::from(limit) <= i16::MAX.into());
        assert!(9 * 128 * i64::from(limit) * i64::from(inputs) < 1 << 29, "{inputs}");
        before = limit;
    }
    assert_eq!([1, 56, 57, 512].map(|inputs| Tiling::Two.ring_limit(inputs)), [8191, 8191, 8176, 910]);
}
