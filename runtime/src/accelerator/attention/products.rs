//! Products of the rows of a tile with a matrix that takes the place of weights.

use bytemuck::Zeroable;

use super::super::conv2d::Activation;
use super::super::packed::panels;
use crate::arch::wide::{LANES, Lanes, PANEL, PIXELS, Sums, Wide, Window};

/// Brings a matrix into the order of weights in groups of `GROUP` taps: `rows` outputs of `columns` taps, filled up to `taps`.
#[inline(always)]
pub(super) fn pack<T: Zeroable, const GROUP: usize>(
    into: &mut [T],
    [rows, columns]: [usize; 2],
    taps: usize,
    value: impl Fn(usize, usize) -> Option<T>,
) {
    let mut first = 0;
    let mut groups = into.as_chunks_mut::<GROUP>().0.iter_mut();
    for blocks in panels(rows) {
        for tap in (0..taps).step_by(GROUP) {
            for row in first..first + blocks * LANES {
                let Some(group) = groups.next() else { return };
                for (place, tap) in group.iter_mut().zip(tap..) {
                    let value = if row < rows && tap < columns { value(row, tap) } else { None };
                    *place = value.unwrap_or_else(T::zeroed);
                }
            }
        }
        first += blocks * LANES;
    }
}

/// The products of the rows of a tile, of `taps` values each, with a matrix of `outputs` rows; whole blocks of sums, which begin
/// with `begin`, go to the rows of `into`.
#[inline(always)]
pub(super) fn multiply<'a, T: Activation, W: Wide>(
    wide: W,
    (rows, taps, mut matrix): (&[T], usize, &[T::Weight]),
    outputs: usize,
    begin: impl Fn(usize) -> Lanes<T::Sum>,
    into: impl Iterator<Item = &'a mut [T::Sum]>,
) -> Option<()>
where
    T::Sum: 'a,
{
    let mut places = [0; PIXELS];
    for (row, place) in places.iter_mut().enumerate() {
        *place = row * taps;
    }
    let window = Window::new(rows, places, [1, taps], 0)?;
    let mut into = into;
    let mut rows: [&mut [T::Sum]; PIXELS] = core::array::from_fn(|_| into.next().unwrap_or_default());
    let mut first = 0;
    let mut sums = Sums::<T::Sum>::zeroed();
    for blocks in panels(outputs) {
        let panel;
        (panel, matrix) = matrix.split_at_checked(blocks * LANES * taps)?;
        for (block, sums) in (first..).zip(sums.iter_mut().take(blocks)) {
            *sums = [begin(block); PIXELS];
        }
        match blocks {
            1 => T::dot::<W, 1>(wide, &mut sums, &window, panel),
            2 => T::dot::<W, 2>(wide, &mut sums, &window, panel),
            _ => T::dot::<W, PANEL>(wide, &mut sums, &window, panel),
        }
        for (block, sums) in (first..).zip(sums.iter().take(blocks)) {
            for (row, sums) in rows.iter_mut().zip(sums) {
                if let Some(row) = row.get_mut(block * LANES..(block + 1) * LANES) {
                    row.copy_from_slice(sums);
                }
            }
        }
        first += blocks;
    }
    Some(())
}
