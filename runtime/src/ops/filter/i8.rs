//! In integers: exact sums, rounded once.

use super::Bound;
use crate::fixed::{requantize, saturate_i8, saturate_i16};
use crate::format::{Element, Filter};
use crate::ops::{Context, view};

pub(crate) fn run(context: &Context<'_>, op: &Filter, slice: u32, arena: &mut [u8]) -> Option<()> {
    let mut bound = Bound::bind(context, op, slice, arena)?;
    let (element, source) = bound.source;
    match element {
        Element::I8 => write(&mut bound, op, view::<i8>(source)?),
        Element::I16 => write(&mut bound, op, view::<i16>(source)?),
        _ => None,
    }
}

fn write<T: Copy + Into<i32>>(bound: &mut Bound<'_>, op: &Filter, source: &[T]) -> Option<()> {
    let width = bound.output.0.bytes();
    for index in 0..bound.output.1.len() / width {
        let mut sum = 0;
        for (weight, at) in bound.taps(op, index)? {
            let value: i32 = (*source.get(at)?).into();
            sum = added(op, sum, weight, value);
        }
        let result = filtered(op, sum);
        match bound.output.1.chunks_exact_mut(width).nth(index)? {
            [byte] => *byte = saturate_i8(result) as u8,
            [low, high] => [*low, *high] = saturate_i16(result).to_le_bytes(),
            _ => return None,
        }
    }
    Some(())
}

/// A sum with one more tap.
#[inline(always)]
pub fn added(op: &Filter, sum: i32, weight: i32, value: i32) -> i32 {
    sum.wrapping_add(weight.wrapping_mul(value.wrapping_sub(op.zero)))
}

/// A result of a sum, to be saturated to the output's width.
#[inline(always)]
pub fn filtered(op: &Filter, sum: i32) -> i32 {
    requantize(sum, op.multiplier, op.shift).saturating_add(op.output_zero)
}
