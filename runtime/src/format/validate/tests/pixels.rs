//! Normalizations over the channels of each pixel.

use super::*;
use crate::draft::pixels::{
    CONTEXT, CONTEXTS, KEY_VALUE, LAST, MAP, PREDICTION, QUERY, SAMPLE, SHORTCUT, SUM, TO_KEY_VALUE, TO_QUERY,
};
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
    // The sample, where it is no activation.
    let of_sample = |d: &mut Draft| {
        (d.layer_norm().source, d.layer_norm().residual) = (SAMPLE, NONE);
        let element = d.tensor(MAP).element();
        d.resize(SUM, [2, 2, 1], element);
        for op in [TO_QUERY, TO_KEY_VALUE] {
            let ring = d.conv(op).scratch;
            let element = d.tensor(ring).element();
            d.resize(ring, [1, 2, 1], element);
        }
    };
    refused(pixels(I8), Field::Operand, of_sample);
    accepted(pixels(F32), of_sample);
    // A result of another kind that nobody reads.
    let unread = |d: &mut Draft, element: Element| {
        d.layer_norm().residual = NONE;
        d.resize(SUM, [2, 2, 4], element);
        d.tensor(SHORTCUT).last = 4;
        [TO_QUERY, TO_KEY_VALUE].into_iter().for_each(|op| d.conv(op).sources[0] = SHORTCUT);
    };
    bounds!(pixels(I8), Operand, |d, v| unread(d, v), [Element::I8, Element::I16], [Element::I32, Element::F32]);
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
    // Sums of weighted values, of 511 pixels and learned keys at most with 15 bits, and of contexts, 15 with 14 bits.
    let keys = |d: &mut Draft, memory: u16| (d.linear_attention().memory, d.linear_attention().key_bits) = (memory, 15);
    bounds!(pixels(I8), Op, |d, v| keys(d, v), [507], [508]);
    let head = |d: &mut Draft, channels: u16| {
        (d.linear_attention().heads, d.linear_attention().query_bits) = (1, 14);
        for (id, channels) in [(QUERY, channels), (CONTEXT, channels), (KEY_VALUE, 2 * channels)] {
            d.resize(id, [2, 2, channels], Element::I8);
        }
        d.tensor(CONTEXT).offset = d.tensors[usize::from(QUERY)].offset;
        d.resize(CONTEXTS, [1, channels, channels + 1], Element::I16);
        let ring = d.conv(LAST).scratch;
        d.resize(ring, [3, 4, channels], Element::I8);
    };
    bounds!(pixels(I8), Op, |d, v| head(d, v), [1, 15], [16]);
}
