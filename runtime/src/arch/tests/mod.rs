//! Each implementation of a kernel against the kernel's definition, on the same cases.

extern crate std;

use std::vec::Vec;

use super::QUAD;
use super::*;
use crate::fixed::{HighWord, IntoRing};
use crate::format::{CHANNEL_BLOCK, Tiling};
use crate::noise::philox;

mod convolutions;
mod dots;
mod tiles;

/// A test for each implementation that this machine can run: the reference and each family in the list.
macro_rules! tests {
    ($($kernel:ident ($enabled:meta): $($family:ident),*;)*) => {
        $(
            #[cfg($enabled)]
            mod $kernel {
                #[test]
                #[cfg_attr(miri, ignore = "it has no unsafe code")]
                fn reference() {
                    super::cases::$kernel(super::super::reference::$kernel);
                }
                $(
                    #[test]
                    fn $family() {
                        super::cases::$kernel(super::super::$family::$kernel);
                    }
                )*
            }
        )*
    };
}
kernels!(tests);

/// Lengths from nothing over every remainder of a vector to several of them.
const LENGTHS: core::ops::Range<usize> = 0..if cfg!(miri) { 12 } else { 68 };

/// How operands are filled: the extremes of the type in all combinations of sign, or at random.
const FILLS: usize = if cfg!(miri) { 1 } else { 6 };

/// `len` numbers between the bounds, by case and operand; deterministic.
fn numbers(len: usize, fill: usize, operand: u32, [low, high]: [i64; 2]) -> Vec<i64> {
    (0..len)
        .map(|i| match (fill, operand) {
            (0, _) | (1, 0) | (2, 1..) => low,
            (1, _) | (2, _) | (3, _) => high,
            _ => {
                let word = philox([fill as u32, operand], [i as u32, len as u32, 0, 0])[0];
                low + ((i64::from(word) * (high - low + 1)) >> 32)
            }
        })
        .collect()
}

fn i8s(len: usize, fill: usize, operand: u32) -> Vec<i8> {
    numbers(len, fill, operand, [-128, 127]).into_iter().map(|v| v as i8).collect()
}

fn i16s(len: usize, fill: usize, operand: u32) -> Vec<i16> {
    numbers(len, fill, operand, [-32_768, 32_767]).into_iter().map(|v| v as i16).collect()
}

/// Multiples of 1/16 up to 8, whose products and sums single precision holds exactly, so that order does not show.
fn floats(len: usize, fill: usize, operand: u32) -> Vec<f32> {
    numbers(len, fill, operand, [-128, 128]).into_iter().map(|v| v as f32 / 16.0).collect()
}

/// `sum + Σ a·b` modulo 2³².
fn wrapped<A: Copy + Into<i64>, B: Copy + Into<i64>>(sum: i32, a: &[A], b: &[B]) -> i32 {
    let sum = i128::from(sum) + a.iter().zip(b).map(|(&a, &b)| i128::from(a.into() * b.into())).sum::<i128>();
    sum as i32
}

/// Sums to start from; two of them wrap at the first product.
const SUMS: [i32; QUAD] = [0, i32::MAX, i32::MIN, -12_345];

/// Where a group of four has a channel.
const PLACE: [usize; 4] = [0, 2, 1, 3];

/// What a kernel is, and on which operands that is checked.
mod cases {
    pub(super) use super::{convolutions::*, dots::*, tiles::*};
}
