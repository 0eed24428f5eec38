//! The transforms of tiles and weights, for registers that hold one channel or several.
//!
//! What a group of four channels has at a point is read, transformed and written one register after another. There are no
//! loops over rows and columns: small code would keep what they index in memory.

use super::super::patches::GROUP;
use super::{Pair, SIDE, transform_weights};
#[cfg(any(not(dsp), test))]
use super::{transform_input, two};

/// How registers hold the channels of a group.
pub(in crate::arch) trait Lanes {
    /// What a register holds.
    type Word: Copy;
    /// What it takes up in a [`Pair`].
    type Place;
    /// Registers for a group.
    const PARTS: usize;

    fn add(a: Self::Word, b: Self::Word) -> Self::Word;
    fn sub(a: Self::Word, b: Self::Word) -> Self::Word;

    /// Writes a register.
    ///
    /// # Safety
    /// There is such a place of a [`Pair`], whose alignment it has.
    unsafe fn store(at: *mut Self::Place, word: Self::Word);
}

/// How they come from a ring or from weights.
pub(in crate::arch) trait Load<T>: Lanes {
    /// Part `part` of a group.
    ///
    /// # Safety
    /// There are four elements; they need no alignment but their own.
    unsafe fn load(from: *const T, part: usize) -> Self::Word;
}

/// Where the points of one tile or output channel of a pair go.
struct Points<L: Lanes> {
    first: *mut L::Place,
    /// Places from one point to the next.
    next: usize,
}

impl<L: Lanes> Points<L> {
    /// Places of a pair.
    const PAIR: usize = 2 * L::PARTS;

    fn new(pair: &mut [Pair], groups: usize, side: usize) -> Self {
        let first = pair.as_mut_ptr().cast::<L::Place>().wrapping_add(side * L::PARTS);
        Self { first, next: groups * Self::PAIR }
    }

    /// Where a part of a group has its first point.
    #[inline(always)]
    fn of(&self, group: usize, part: usize) -> *mut L::Place {
        self.first.wrapping_add(group * Self::PAIR + part)
    }

    /// Writes four neighbouring points from the place of the first on, and returns that of the one behind.
    ///
    /// # Safety
    /// There are such places.
    #[inline(always)]
    unsafe fn store(&self, at: *mut L::Place, [a, b, c, d]: [L::Word; 4]) -> *mut L::Place {
        // A place that the compiler knows nothing of: else it computes those of all points first, for which there are no registers.
        let mut at = core::hint::black_box(at);
        // SAFETY: said above.
        let mut put = |word| unsafe {
            L::store(at, word);
            at = at.wrapping_add(self.next);
        };
        put(a);
        put(b);
        put(c);
        put(d);
        at
    }

    /// The same of six.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn store_six(&self, at: *mut L::Place, [a, b, c, d, e, f]: [L::Word; SIDE]) -> *mut L::Place {
        // SAFETY: said above.
        unsafe {
            let at = self.store(at, [a, b, c, d]);
            L::store(at, e);
            let at = at.wrapping_add(self.next);
            L::store(at, f);
            at.wrapping_add(self.next)
        }
    }
}

/// Groups of channels of a pair with so many points, if there are any and it is whole.
#[inline(always)]
fn groups(pair: &[Pair], points: usize) -> Option<usize> {
    let groups = pair.len() / points;
    (groups > 0 && pair.len() == groups * points).then_some(groups)
}

/// See [`reference::winograd_input`](super::reference::winograd_input).
#[cfg(any(not(dsp), test))]
#[inline(always)]
pub(in crate::arch) fn input<L: Load<i8>>(pair: &mut [Pair], tile: usize, rows: [&[i8]; SIDE]) {
    let Some(groups) = groups(pair, super::POINTS) else { return };
    let pixel = groups * GROUP;
    if tile > 1 || rows.iter().any(|row| row.len() < SIDE * pixel) {
        return;
    }
    let points = Points::<L>::new(pair, groups, tile);
    let mut rows = rows.map(<[i8]>::as_ptr);
    for group in 0..groups {
        for part in 0..L::PARTS {
            // SAFETY: rows have six pixels, and each group four channels of a pixel.
            let column = |x: usize| unsafe {
                let [a, b, c, d, e, f] = rows;
                let at = |row: *const i8| L::load(row.add(x * pixel), part);
                transform_input([at(a), at(b), at(c), at(d), at(e), at(f)], L::add, L::sub)
            };
            let [a, b, c, d, e, f] = [column(0), column(1), column(2), column(3), column(4), column(5)];
            let row = |point, y: usize| {
                let words = transform_input([a[y], b[y], c[y], d[y], e[y], f[y]], L::add, L::sub);
                // SAFETY: there are 36 points of as many groups; `tile` is 0 or 1.
                unsafe { points.store_six(point, words) }
            };
            row(row(row(row(row(row(points.of(group, part), 0), 1), 2), 3), 4), 5);
        }
        rows = rows.map(|row| row.wrapping_add(GROUP));
    }
}

/// See [`two::reference::winograd2_input`].
#[cfg(any(not(dsp), test))]
#[inline(always)]
pub(in crate::arch) fn input_of_two<L: Load<i16>>(pair: &mut [Pair], rows: [&[i16]; two::SIDE]) {
    let Some(groups) = groups(pair, two::POINTS) else { return };
    let pixel = groups * GROUP;
    if rows.iter().any(|row| row.len() < two::COLUMNS * pixel) {
        return;
    }
    let points = Points::<L>::new(pair, groups, 0);
    let mut rows = rows.map(<[i16]>::as_ptr);
    for group in 0..groups {
        for part in 0..L::PARTS {
            // SAFETY: rows have six pixels, and each group four channels of a pixel.
            let column = |x: usize| unsafe {
                let [a, b, c, d] = rows;
                let at = |row: *const i16| L::load(row.add(x * pixel), part);
                two::transform_input([at(a), at(b), at(c), at(d)], L::add, L::sub)
            };
            let [a, b, c, d, e, f] = [column(0), column(1), column(2), column(3), column(4), column(5)];
            let row = |point: *mut L::Place, y: usize| {
                let second = two::transform_input([c[y], d[y], e[y], f[y]], L::add, L::sub);
                let first = two::transform_input([a[y], b[y], c[y], d[y]], L::add, L::sub);
                // SAFETY: there are 16 points of as many groups, those of the second tile behind the parts of the first.
                unsafe {
                    points.store(point.wrapping_add(L::PARTS), second);
                    points.store(point, first)
                }
            };
            row(row(row(row(points.of(group, part), 0), 1), 2), 3);
        }
        rows = rows.map(|row| row.wrapping_add(GROUP));
    }
}

/// The weights of output channel `channel`, 0 or 1, of a pair, whose tiles have so many points, part by part of each group:
/// `put` gets where they come from, the bytes of a tap, the part, and where its points go.
#[inline(always)]
fn weights<L: Load<i8>>(
    pair: &mut [Pair],
    of: usize,
    channel: usize,
    weights: &[i8],
    put: impl Fn(*const i8, usize, usize, &Points<L>, *mut L::Place),
) {
    let Some(groups) = groups(pair, of) else { return };
    let tap = groups * GROUP;
    if channel > 1 || weights.len() < 9 * tap {
        return;
    }
    let points = Points::<L>::new(pair, groups, channel);
    let mut weight = weights.as_ptr();
    for group in 0..groups {
        for part in 0..L::PARTS {
            put(weight, tap, part, &points, points.of(group, part));
        }
        weight = weight.wrapping_add(GROUP);
    }
}

/// A column of the kernel.
///
/// # Safety
/// There are nine taps with four inputs each, `tap` apart.
#[inline(always)]
unsafe fn column<L: Load<i8>>(weight: *const i8, tap: usize, part: usize, x: usize) -> [L::Word; 3] {
    // SAFETY: said above.
    let at = |row: usize| unsafe { L::load(weight.add((row + x) * tap), part) };
    [at(0), at(3), at(6)]
}

/// See [`reference::winograd_weights`](super::reference::winograd_weights).
#[inline(always)]
pub(in crate::arch) fn weights_of_four<L: Load<i8>>(pair: &mut [Pair], channel: usize, values: &[i8]) {
    weights::<L>(pair, super::POINTS, channel, values, |weight, tap, part, points, point| {
        let transform = |g| transform_weights(g, L::add, L::sub);
        // SAFETY: there are nine taps, and each group is four inputs of a tap.
        let column = |x| unsafe { transform(column::<L>(weight, tap, part, x)) };
        let [a, b, c] = [column(0), column(1), column(2)];
        let row = |point, y: usize| {
            // SAFETY: there are 36 points of as many groups; `channel` is 0 or 1.
            unsafe { points.store_six(point, transform([a[y], b[y], c[y]])) }
        };
        row(row(row(row(row(row(point, 0), 1), 2), 3), 4), 5);
    });
}

/// See [`two::reference::winograd2_weights`].
#[cfg(any(not(dsp), test))]
#[inline(always)]
pub(in crate::arch) fn weights_of_two<L: Load<i8>>(pair: &mut [Pair], channel: usize, values: &[i8]) {
    weights::<L>(pair, two::POINTS, channel, values, |weight, tap, part, points, point| {
        let transform = |g| two::transform_weights(g, L::add, L::sub);
        // SAFETY: there are nine taps, and each group is four inputs of a tap.
        let column = |x| unsafe { transform(column::<L>(weight, tap, part, x)) };
        let [a, b, c] = [column(0), column(1), column(2)];
        let row = |point, y: usize| {
            // SAFETY: there are 16 points of as many groups; `channel` is 0 or 1.
            unsafe { points.store(point, transform([a[y], b[y], c[y]])) }
        };
        row(row(row(row(point, 0), 1), 2), 3);
    });
}
