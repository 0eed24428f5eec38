//! Each instruction set that this machine has against the definition of each kernel, on the same cases.

extern crate std;

use std::vec::Vec;

use super::*;
use crate::fixed;
use crate::noise::philox;

/// Runs each case on every instruction set.
fn everywhere<W: Work<Output = ()> + Clone>(work: &W) {
    for instructions in Instructions::available() {
        instructions.dispatch(work.clone());
    }
}

/// `len` numbers between the bounds, at random or, where `fill` says so, at the bounds.
fn numbers(len: usize, fill: usize, operand: u32, [low, high]: [i64; 2]) -> Vec<i64> {
    let number = |i: usize| match (fill, operand) {
        (0, _) | (1, 0) => low,
        (1, _) | (2, _) => high,
        _ => low + ((i64::from(philox([fill as u32, operand], [i as u32, 0, 0, 0])[0]) * (high - low + 1)) >> 32),
    };
    (0..len).map(number).collect()
}

#[test]
fn the_portable_kernels_are_always_there() {
    assert_eq!(Instructions::available().last().map(Instructions::name), Some("portable"));
}

/// Whoever runs the tests for the sake of instructions says which are to be the best.
#[test]
fn the_best_instructions_are_those_that_were_asked_for() {
    if let Ok(name) = std::env::var("WAFT_TEST_INSTRUCTIONS") {
        assert_eq!(Instructions::best().name(), name);
    }
}

/// A window of rows of the kernel over rows of activations, and a panel of `N` blocks.
#[derive(Clone, Copy)]
struct Dot<const N: usize> {
    rows: usize,
    run: usize,
    fill: usize,
}

const STARTS: [usize; PIXELS] = [0, 4, 8, 1, 3, 30, 12, 12];

impl<const N: usize> Dot<N> {
    const PITCH: usize = 101;

    fn activations(&self, bounds: [i64; 2]) -> Vec<i64> {
        numbers(30 + (self.rows - 1) * Self::PITCH + self.run, self.fill, 0, bounds)
    }

    /// The products of a block's channel at a pixel; weights stand in the order that the trait states.
    fn products<'a>(
        &self,
        activations: &'a [i64],
        weights: &'a [i64],
        group: usize,
        [block, pixel, channel]: [usize; 3],
    ) -> impl Iterator<Item = (i64, i64)> + use<'a, N> {
        let Self { rows, run, .. } = *self;
        (0..rows).flat_map(move |row| (0..run).map(move |tap| (row, tap))).map(move |(row, tap)| {
            let groups = row * (run / group) + tap / group;
            let place = ((groups * N + block) * LANES + channel) * group + tap % group;
            (activations[STARTS[pixel] + row * Self::PITCH + tap], weights[place])
        })
    }

    fn check_integers<A, V: TryFrom<i64>>(
        &self,
        group: usize,
        [activations, weights]: [[i64; 2]; 2],
        stored: impl Fn(i64) -> A,
        dot: impl Fn(&mut Sums<i32>, &Window<'_, A>, &[V]),
    ) {
        let run = self.run.next_multiple_of(group);
        let this = Self { run, ..*self };
        let activations = this.activations(activations);
        let weights = numbers(N * LANES * this.rows * run, this.fill, 1, weights);
        let narrow_weights: Vec<V> = weights.iter().map(|&v| V::try_from(v).ok().unwrap()).collect();
        let values: Vec<A> = activations.iter().map(|&value| stored(value)).collect();
        let window = Window::new(&values, STARTS, [this.rows, run], Self::PITCH).expect("lies within");
        let start = i32::MAX - 5;
        let mut sums = [[[start; LANES]; PIXELS]; PANEL];
        dot(&mut sums, &window, &narrow_weights);
        for (block, sums) in sums.iter().enumerate() {
            for (pixel, sums) in sums.iter().enumerate() {
                for (channel, &sum) in sums.iter().enumerate() {
                    let place = [block, pixel, channel];
                    let expected = if block < N {
                        this.products(&activations, &weights, group, place)
                            .fold(i64::from(start), |sum, (a, w)| sum + a * w)
                    } else {
                        start.into()
                    };
                    assert_eq!(
                        sum, expected as i32,
                        "{N} blocks, {} rows of {run}, fill {}, {place:?}",
                        this.rows, this.fill
                    );
                }
            }
        }
    }
}

impl<const N: usize> Work for Dot<N> {
    type Output = ();

    fn run<W: Wide>(self, wide: W) {
        let offset = i64::from(W::OFFSET.unwrap_or(0));
        let bounds = [[offset - 128, offset + 127], [-128, 127]];
        self.check_integers::<_, i8>(
            4,
            bounds,
            |value| value as u8,
            |sums, window, weights| {
                wide.dot_bytes::<N>(sums, window, weights);
            },
        );
        let bounds = [[-32_768, 32_767], [-128, 127]];
        self.check_integers::<_, i16>(
            2,
            bounds,
            |value| value as i16,
            |sums, window, weights| {
                wide.dot_words::<N>(sums, window, weights);
            },
        );
        self.check_integers::<_, i16>(
            2,
            bounds,
            |value| value as i16,
            |sums, window, weights| {
                let mut products = [[[7; LANES]; PIXELS]; PANEL];
                wide.multiply_words::<N>(&mut products, window, weights);
                let sums = sums.iter_mut().take(N).flatten().flatten();
                sums.zip(products.iter().flatten().flatten())
                    .for_each(|(sum, product)| *sum = sum.wrapping_add(*product));
            },
        );
        // Products and sums of these are exact in single precision.
        let (activations, weights) =
            (self.activations([-64, 64]), numbers(N * LANES * self.rows * self.run, self.fill, 1, [-64, 64]));
        let [values, floats] = [&activations, &weights].map(|of| of.iter().map(|&v| v as f32).collect::<Vec<_>>());
        let window = Window::new(&values, STARTS, [self.rows, self.run], Self::PITCH).expect("lies within");
        let mut sums = [[[0.5; LANES]; PIXELS]; PANEL];
        wide.dot_floats::<N>(&mut sums, &window, &floats);
        for (block, sums) in sums.iter().enumerate().take(N) {
            for (pixel, sums) in sums.iter().enumerate() {
                for (channel, &sum) in sums.iter().enumerate() {
                    let products = self.products(&activations, &weights, 1, [block, pixel, channel]);
                    assert_eq!(f64::from(sum), products.fold(0.5, |sum, (a, w)| sum + (a * w) as f64));
                }
            }
        }
    }
}

#[test]
fn products_are_those_of_the_definition() {
    for (rows, run) in [(1, 1), (1, 8), (3, 5), (3, 12), (2, 37)] {
        for fill in 0..if cfg!(miri) { 4 } else { 8 } {
            everywhere(&Dot::<1> { rows, run, fill });
            everywhere(&Dot::<2> { rows, run, fill });
            everywhere(&Dot::<3> { rows, run, fill });
        }
    }
}

/// The order in which floats are added: sums in another order, or with products that are not rounded, differ here.
#[derive(Clone)]
struct Order;

impl Work for Order {
    type Output = ();

    fn run<W: Wide>(self, wide: W) {
        let uniform = |operand, i: usize| (philox([operand, 7], [i as u32, 0, 0, 0])[0] as f32 / 2f32.powi(31)) - 1.0;
        let values: Vec<f32> = (0..64).map(|i| uniform(0, i)).collect();
        let weights: Vec<f32> = (0..64 * LANES).map(|i| uniform(1, i)).collect();
        let window = Window::new(&values, [0; PIXELS], [1, 64], 0).expect("lies within");
        let mut sums = [[[0.0; LANES]; PIXELS]; PANEL];
        wide.dot_floats::<1>(&mut sums, &window, &weights);
        for (channel, &sum) in sums[0][5].iter().enumerate() {
            let mut expected = 0f32;
            for (tap, value) in values.iter().enumerate() {
                expected += value * weights[tap * LANES + channel];
            }
            assert_eq!(sum.to_bits(), expected.to_bits(), "{channel}");
        }
    }
}

#[test]
fn floats_are_added_in_order() {
    everywhere(&Order);
}

#[test]
fn windows_lie_within_their_values() {
    let values = [0u8; 20];
    assert!(Window::new(&values, [4; PIXELS], [2, 6], 10).is_some());
    assert!(Window::new(&values, [5; PIXELS], [2, 6], 10).is_none());
    assert!(Window::new(&values, [0; PIXELS], [2, 6], usize::MAX).is_none());
    assert!(Window::new(&values, [usize::MAX; PIXELS], [2, 6], 10).is_none());
}

/// Everything that is done to single lanes.
#[derive(Clone)]
struct Elementwise;

impl Work for Elementwise {
    type Output = ();

    fn run<W: Wide>(self, wide: W) {
        let edges = [
            i32::MIN,
            i32::MIN + 1,
            -(1 << 27),
            -65_537,
            -65_536,
            -256,
            -129,
            -1,
            0,
            1,
            127,
            255,
            65_535,
            65_536,
            i32::MAX,
        ];
        for case in 0..if cfg!(miri) { 20 } else { 4000u32 } {
            let word =
                |operand: u32, lane: usize| philox([case, operand], [lane as u32, 0, 0, 0])[0] as i32 >> (case % 23);
            let values: Lanes<i32> = core::array::from_fn(|lane| match case {
                0..15 => edges[(case as usize + lane) % edges.len()],
                _ => word(0, lane),
            });
            let factors: Lanes<i32> = core::array::from_fn(|lane| word(1, lane));
            let summands: Lanes<i32> = core::array::from_fn(|lane| word(2, lane));

            let channels: Lanes<[i32; 2]> = core::array::from_fn(|lane| [factors[lane], summands[lane] % 45]);
            let mut found = values;
            wide.requantize(&mut found, &Scale::new(&channels, 8));
            let one = |lane: usize| fixed::requantize(values[lane], channels[lane][0], channels[lane][1] + 8);
            assert_eq!(found, core::array::from_fn(one), "{values:?} {channels:?}");

            let right = case % 32;
            let mut found = values;
            wide.affine(&mut found, &Affine { factors: &factors, summands: &summands, right });
            let one = |lane: usize| fixed::affine(values[lane], factors[lane], right, summands[lane]);
            assert_eq!(found, core::array::from_fn(one), "{values:?} {factors:?} {summands:?} {right}");

            let mut found = values;
            wide.silu(&mut found);
            assert_eq!(found, values.map(fixed::silu), "{values:?}");

            let mut found = values;
            wide.saturating_add(&mut found, summands[0]);
            assert_eq!(found, values.map(|value| value.saturating_add(summands[0])));

            for bits in 0..16 {
                let mut found = values.map(|value| value >> (case % 17));
                let expected = found.map(|value| fixed::exp2_neg(value.max(0).unsigned_abs(), bits));
                wide.exp2_neg(&mut found, bits);
                assert_eq!(found, expected);
            }

            let (mut bytes, mut words, mut wholes) = ([0i8; LANES], [0i16; LANES], [0i32; LANES]);
            wide.store(&values, &mut bytes);
            wide.store(&values, &mut words);
            wide.store(&values, &mut wholes);
            assert_eq!(bytes, values.map(fixed::saturate_i8));
            assert_eq!(words, values.map(fixed::saturate_i16));
            assert_eq!(wholes, values);
            assert_eq!(wide.load(&bytes), bytes.map(i32::from));
            assert_eq!(wide.load(&words), words.map(i32::from));
            assert_eq!(wide.load(&wholes), values);
        }
    }
}

/// SiLU of the whole domain of its table and some beyond.
#[derive(Clone)]
struct Silu;

impl Work for Silu {
    type Output = ();

    fn run<W: Wide>(self, wide: W) {
        let step = if cfg!(miri) { 1009 } else { LANES };
        for first in (-70_000..70_000).step_by(step) {
            let values: Lanes<i32> = core::array::from_fn(|lane| first + lane as i32);
            let mut found = values;
            wide.silu(&mut found);
            assert_eq!(found, values.map(fixed::silu), "{values:?}");
        }
    }
}

#[test]
fn activations_are_those_of_the_integer_arithmetic() {
    everywhere(&Silu);
}

#[test]
fn lanes_are_those_of_the_integer_arithmetic() {
    everywhere(&Elementwise);
}
