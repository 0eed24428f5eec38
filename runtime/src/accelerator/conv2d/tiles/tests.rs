//! Against the definition of a convolution, at the limit that its record states.

use super::*;
use crate::accelerator::packed::Source;
use crate::arch::wide::{Instructions, Lanes, Work};
use crate::format::WeightLayout;

/// Takes sums with a bias of a hundred for each block.
struct Sink {
    outputs: usize,
    sums: Vec<Option<i32>>,
}

impl Finish<i32> for Sink {
    fn begin(&self, block: usize) -> Lanes<i32> {
        [100 * block as i32; LANES]
    }

    fn finish<W: Wide>(&mut self, _wide: W, pixel: usize, block: usize, sums: &mut Lanes<i32>) {
        for (channel, &sum) in (block * LANES..self.outputs).zip(&*sums) {
            assert_eq!(self.sums[pixel * self.outputs + channel].replace(sum), None, "taken twice");
        }
    }
}

/// A convolution of `[rows, columns, inputs, outputs]` of numbers that `fill` chooses.
#[derive(Clone, Copy)]
struct Case([usize; 4], usize);

impl Case {
    fn number(self, at: usize, most: i64) -> i64 {
        match self.1 {
            0 => most,
            1 => -most,
            2 => most * [1, -1][at % 2],
            fill => (at as i64 * 104_729 + fill as i64 * 7919).rem_euclid(2 * most + 1) - most,
        }
    }

    fn activation(self, at: usize) -> i64 {
        self.number(at, Tiling::Two.ring_limit(self.0[2] as u64).into())
    }

    fn weight(self, at: usize) -> i64 {
        self.number(at / 2, 127) - i64::from(self.1 == 1)
    }
}

impl Work for Case {
    type Output = ();

    fn run<W: Wide>(self, wide: W) {
        let Case([rows, columns, inputs, outputs], _) = self;
        let geometry = Geometry {
            padded: [rows + 2, columns + 2],
            channels: inputs,
            kernel: [3, 3],
            stride: 1,
            padding: [1, 1],
            doubling: 0,
            output: [rows, columns],
            outputs,
        };
        let input: Vec<i16> = (0..geometry.len()).map(|at| self.activation(at) as i16).collect();
        let values: Vec<u8> = (0..outputs * 9 * inputs).map(|at| self.weight(at) as u8).collect();
        let source =
            Source { kernel: [3, 3], inputs, outputs, padded: inputs, values: &values, layout: WeightLayout::Rows8 };
        let mut sink = Sink { outputs, sums: std::vec![None; rows * columns * outputs] };
        let mut memory = [std::vec![], std::vec![], std::vec![]];
        multiply(wide, &geometry, (&input, &source.pack_tiles()), memory.each_mut(), &mut sink).expect("lies within");
        for (at, &sum) in sink.sums.iter().enumerate() {
            let (pixel, output) = (at / outputs, at % outputs);
            let taps = (0..9 * inputs).map(|tap| {
                let (y, x, input) =
                    (pixel / columns + tap / inputs / 3, pixel % columns + tap / inputs % 3, tap % inputs);
                self.activation((y * (columns + 2) + x) * inputs + input) * self.weight(output * 9 * inputs + tap)
            });
            let expected = taps.sum::<i64>() + 100 * (output / LANES) as i64;
            assert_eq!(sum.map(i64::from), Some(expected), "{:?}, fill {}: pixel {pixel}, {output}", self.0, self.1);
        }
    }
}

#[test]
fn tiles_are_the_convolution() {
    for shape in [[2, 4, 4, 3], [4, 10, 8, 17], [6, 18, 4, 50], [2, 16, 60, 16], [2, 4, 512, 33], [34, 64, 4, 2]] {
        for fill in 0..5 {
            for instructions in Instructions::available() {
                instructions.dispatch(Case(shape, fill));
            }
        }
    }
}
