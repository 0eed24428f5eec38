//! Normalizations over the channels of each pixel.

use super::*;
use crate::draft::pixels::{CONTEXTS, MAP, PREDICTION, SAMPLE, SHORTCUT, SUM};
use crate::format::Center;

fn pixels(precision: Precision) -> Draft {
    Draft::pixels(precision)
}

#[test]
fn normalizations_of_pixels() {
    let end = pixels(I8).file().bytes().len() as u32;
    let [center, affine, gather] = [Center::ALL.len(), Affine::ALL.len(), Gather::ALL.len()].map(|len| len as u8);
    bounds!(pixels(I8), Op, |d, v| d.layer_norm().center = v, [0, 1], [center]);
    bounds!(pixels(I8), Op, |d, v| d.layer_norm().affine = v, [0], [2, affine]);
    bounds!(pixels(I8), Op, |d, v| d.layer_norm().gather = v, [1, gather - 1], [0, gather]);
    bounds!(pixels(I8), Op, |d, v| d.layer_norm().reserved[1] = v, [0], [1]);
    bounds!(pixels(I8), Op, |d, v| d.layer_norm().reserved_end[59] = v, [0], [1]);
    bounds!(pixels(I8), Op, |d, v| d.layer_norm().epsilon_q16 = v, [1, (1 << 62) - 1], [0, 1 << 62]);
    bounds!(pixels(I8), Op, |d, v| d.layer_norm().zero = v, [-128, 127], [-129, 128]);
    accepted(pixels(F32), |d| (d.layer_norm().epsilon_q16, d.layer_norm().zero) = (0, 1 << 20));
    // Maps of 16 bits are symmetric.
    let wide = |d: &mut Draft, zero: i32| {
        d.resize(MAP, [2, 2, 4], Element::I16);
        d.layer_norm().zero = zero;
    };
    bounds!(pixels(I8), Op, |d, v| wide(d, v), [0], [1, -1]);
    // Four words each, to the end of the file.
    bounds!(pixels(I8), Offset, |d, v| d.layer_norm().gamma = v, [end - 16], [end, 0, 8]);
    bounds!(pixels(I8), Offset, |d, v| d.layer_norm().beta = v, [end - 16], [end, 0, 8]);
    let of_steps = |d: &mut Draft, [gamma, beta]: [u32; 2]| {
        d.schedule.bias_bytes = 32;
        d.layer_norm().affine = Affine::Step.code();
        (d.layer_norm().gamma, d.layer_norm().beta) = (gamma, beta);
    };
    bounds!(pixels(I8), Offset, |d, v| of_steps(d, v), [[0, 16], [16, 0]], [[0, 8], [8, 0], [0, 32], [32, 0]]);
}

#[test]
fn what_normalizations_of_pixels_read_and_write() {
    bounds!(pixels(I8), Operand, |d, v| d.layer_norm().source = v, [], [NONE, NONE - 1, SAMPLE]);
    bounds!(pixels(I8), Operand, |d, v| d.layer_norm().residual = v, [], [NONE - 1, SAMPLE, MAP]);
    bounds!(pixels(I8), Lifetime, |d, v| d.layer_norm().output = v, [], [PREDICTION]);
    let without_residual = |d: &mut Draft| {
        d.layer_norm().residual = NONE;
        d.tensor(SUM).offset = d.tensors[usize::from(MAP)].offset;
    };
    accepted(pixels(I8), without_residual);
    // Another width is not written pixel by pixel over what was read.
    refused(pixels(I8), Field::Overlap, |d| {
        let offset = d.tensor(SHORTCUT).offset;
        d.resize(SHORTCUT, [2, 2, 4], Element::I16);
        d.tensor(SHORTCUT).offset = offset;
    });
    refused(pixels(I8), Field::Operand, |d| d.resize(MAP, [2, 2, 3], Element::I8));
    refused(pixels(I8), Field::Operand, |d| {
        d.resize(SHORTCUT, [2, 1, 4], Element::I8);
        d.conv(1).stride = 1;
    });
    refused(pixels(I8), Field::Operand, |d| d.resize(SUM, [2, 2, 4], Element::I32));
}

#[test]
fn linear_attentions() {
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().reserved[2] = v, [0], [1]);
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().reserved_end[63] = v, [0], [1]);
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().heads = v, [2], [0, 3]);
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().key_bits = v, [1, 15], [0, 16]);
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().query_bits = v, [1, 14], [0, 15]);
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().key_multiplier = v, [0], [-1]);
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().query_multiplier = v, [0], [-1]);
    bounds!(pixels(I8), Op, |d, v| d.linear_attention().value_multiplier = v, [0], [-1]);
    bounds!(pixels(I8), Offset, |d, v| d.linear_attention().memory_at = v, [PARAMETERS], [0, PARAMETERS + 8]);
    accepted(pixels(F32), |d| (d.linear_attention().key_bits, d.linear_attention().query_bits) = (0, 0));
    for shape in [[1, 4, 2], [1, 3, 3], [1, 4, 4]] {
        refused(pixels(I8), Field::Operand, |d| d.resize(CONTEXTS, shape, Element::I16));
    }
    refused(pixels(I8), Field::Operand, |d| d.resize(CONTEXTS, [1, 4, 3], Element::I32));
}
