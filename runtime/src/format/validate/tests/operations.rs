//! The other operations.

use super::*;
use crate::format::{Activation, Embed};

#[test]
fn normalizations() {
    bounds!(I8, Op, |d, v| d.group_norm().affine_tensor = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.group_norm().affine = v, [0], [3]);
    bounds!(I8, Op, |d, v| d.group_norm().reserved_end[0] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.group_norm().groups = v, [1, 2, 4], [0, 3, 8]);
    bounds!(I8, Op, |d, v| d.group_norm().epsilon_q16 = v, [1, (1 << 62) - 1], [0, 1 << 62]);
    bounds!(I8, Op, |d, v| d.group_norm().affine_shift = v, [4, 30], [3, 31]);
    bounds!(I8, Op, |d, v| d.group_norm().ratio[0] = v, [1, 1 << 15], [0, (1 << 15) + 1]);
    bounds!(I8, Op, |d, v| d.group_norm().ratio[1] = v, [1, 1 << 15], [0, (1 << 15) + 1]);
    bounds!(I8, Op, |d, v| d.group_norm().zero[0] = v, [-128, 127], [-129, 128]);
    bounds!(I8, Op, |d, v| d.group_norm().zero[1] = v, [-128, 127], [-129, 128]);
    accepted(F32, |d| (d.group_norm().epsilon_q16, d.group_norm().affine_shift) = (0, 0));
    // Maps of 16 bits are symmetric.
    let wide = |d: &mut Draft, zero: i32| {
        d.resize(MAP, [2, 2, 4], Element::I16);
        d.resize(SUM, [2, 2, 4], Element::I16);
        d.tensor(SUM).offset = d.tensors[usize::from(MAP)].offset;
        d.group_norm().zero[0] = zero;
    };
    bounds!(I8, Op, |d, v| wide(d, v), [0], [1, -1]);
    // Groups of 2¹⁷ elements are the largest; with these the next operation is the first that does not fit.
    let large = |d: &mut Draft, groups: u16| {
        for id in [SAMPLE, PREDICTION, UNCONDITIONAL, NEWER, OLDER] {
            d.resize(id, [256, 256, 1], Element::I32);
        }
        d.resize(MAP, [256, 256, 4], Element::I8);
        d.resize(RINGS, [3, 258, 1], Element::I16);
        d.group_norm().groups = groups;
    };
    refused(I8, Field::Op, |d| large(d, 1));
    refused(I8, Field::Operand, |d| large(d, 2));
    refused(I8, Field::Operand, |d| d.group_norm().sources[0] = SAMPLE);
    refused(I8, Field::Operand, |d| d.resize(NORM, [1, 4, 2], Element::F32));
    for shape in [[2, 4, 1], [1, 2, 4], [1, 3, 2], [1, 4, 1]] {
        refused(I8, Field::Operand, |d| d.resize(NORM, shape, Element::I32));
    }
}

/// A factor and a summand for each channel, in one row, whether or not somebody reads them.
#[test]
fn results_of_normalizations() {
    let unread = |shape: [u16; 3], element| {
        move |d: &mut Draft| {
            (d.conv(TO_QUERY).gather, d.conv(TO_QUERY).norm) = (Gather::Raw.code(), NONE);
            d.resize(NORM, shape, element);
        }
    };
    accepted(I8, unread([1, 4, 2], Element::I32));
    for shape in [[2, 4, 2], [1, 3, 2], [1, 5, 2], [1, 4, 1], [1, 4, 3]] {
        refused(I8, Field::Operand, unread(shape, Element::I32));
    }
    refused(I8, Field::Operand, unread([1, 4, 2], Element::I16));
    // Of the sample, which is no activation in integers, and is one in single precision.
    let of_sample = |precision| {
        move |d: &mut Draft| {
            (d.group_norm().sources, d.group_norm().groups) = ([SAMPLE, NONE], 1);
            (d.conv(TO_QUERY).gather, d.conv(TO_QUERY).norm) = (Gather::Raw.code(), NONE);
            d.resize(NORM, [1, 1, 2], elements(precision)[1]);
        }
    };
    refused(I8, Field::Operand, of_sample(I8));
    accepted(F32, of_sample(F32));
}

/// The first convolution with a bias of its own, so that nothing reads the projection.
fn with_own_bias(d: &mut Draft) {
    (d.conv(FIRST).bias, d.conv(FIRST).bias_tensor, d.conv(FIRST).bias_at) = (Bias::Constant.code(), NONE, PARAMETERS);
}

/// Factors and summands that an operation computed.
#[test]
fn normalizations_of_tensors() {
    let of_tensor = |d: &mut Draft, id: u16, shape: [u16; 3]| {
        with_own_bias(d);
        let [_, wide, conditioning, _] = elements(d.header.precision());
        d.header.conditioning = 8;
        d.resize(CONDITIONING, [1, 1, 8], conditioning);
        d.resize(BIAS, shape, wide);
        d.tensor(id).last = 3;
        (d.group_norm().affine, d.group_norm().affine_tensor) = (Affine::Tensor.code(), id);
    };
    bounds!(I8, Operand, |d, v| of_tensor(d, BIAS, v), [[1, 1, 8], [1, 4, 2]], [[1, 1, 7], [1, 1, 9], [1, 1, 4]]);
    refused(I8, Field::Operand, |d| of_tensor(d, CONDITIONING, [1, 1, 8]));
    accepted(F32, |d| of_tensor(d, CONDITIONING, [1, 1, 8]));
}

/// Parameters of steps start at multiples of 16, each of them.
#[test]
fn normalizations_of_steps() {
    let of_steps = |d: &mut Draft, [gamma, beta]: [u32; 2]| {
        d.schedule.bias_bytes = 32;
        d.group_norm().affine = Affine::Step.code();
        (d.group_norm().gamma, d.group_norm().beta) = (gamma, beta);
    };
    bounds!(I8, Offset, |d, v| of_steps(d, v), [[0, 16], [16, 0]], [[0, 8], [8, 0], [0, 32], [32, 0]]);
}

/// Maps that are not square: as many scores as pixels.
#[test]
fn scores() {
    let of_three_columns = |d: &mut Draft, scores: u16| {
        let (narrow, wide) = (Element::I8, Element::I32);
        for id in [SAMPLE, PREDICTION, UNCONDITIONAL, NEWER, OLDER] {
            d.resize(id, [2, 3, 1], wide);
        }
        for id in [MAP, QUERY, CONTEXT, SUM] {
            d.resize(id, [2, 3, 4], narrow);
        }
        d.tensor(CONTEXT).offset = d.tensor(QUERY).offset;
        d.tensor(SUM).offset = d.tensor(MAP).offset;
        d.resize(KEY_VALUE, [2, 3, 8], narrow);
        d.resize(RINGS, [3, 5, 1], Element::I16);
        (1..4).for_each(|ring| d.resize(RINGS + ring, [1, 3, 4], narrow));
        d.resize(RINGS + 4, [3, 5, 8], narrow);
        d.resize(SCORES, [1, 1, scores], wide);
    };
    bounds!(I8, Operand, |d, v| of_three_columns(d, v), [6], [5, 7]);
}

#[test]
fn attentions() {
    for at in 0..3 {
        bounds!(I8, Op, |d, v| d.attention().reserved[at] = v, [0], [1]);
    }
    bounds!(I8, Op, |d, v| d.attention().reserved_end[71] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.attention().heads = v, [1, 2, 4], [0, 3, 8]);
    bounds!(I8, Op, |d, v| d.attention().weight_bits = v, [1, 15], [0, 16]);
    bounds!(I8, Op, |d, v| d.attention().value_multiplier = v, [0], [-1]);
    bounds!(I8, Op, |d, v| d.attention().score_multiplier = v, [0], [-1]);
    accepted(F32, |d| d.attention().weight_bits = 0);
    refused(I8, Field::Operand, |d| d.resize(CONTEXT, [2, 2, 4], Element::I8));
    // Results are written over queries, as many and of their kind, which is that of keys and values.
    let over_queries = |d: &mut Draft, channels: u16, element: Element| {
        let offset = d.tensor(QUERY).offset;
        d.resize(QUERY, [2, 2, 4], element);
        d.resize(CONTEXT, [2, 2, channels], element);
        d.tensor(CONTEXT).offset = match element {
            Element::I8 => offset,
            _ => d.tensors[usize::from(QUERY)].offset,
        };
        d.tensor(QUERY).offset = d.tensors[usize::from(CONTEXT)].offset;
        d.resize(RINGS + 3, [1, 2, channels], Element::I8);
        d.resize(RINGS + 4, [3, 4, 4 + channels], Element::I8);
    };
    accepted(I8, |d| over_queries(d, 4, Element::I8));
    refused(I8, Field::Operand, |d| over_queries(d, 2, Element::I8));
    refused(I8, Field::Operand, |d| over_queries(d, 4, Element::I16));
    refused(I8, Field::Operand, |d| {
        let offset = d.tensor(QUERY).offset;
        d.resize(CONTEXT, [2, 2, 4], Element::I16);
        d.tensor(CONTEXT).offset = offset;
    });
    refused(I8, Field::Operand, |d| d.resize(SCORES, [1, 1, 3], Element::I32));
    refused(I8, Field::Operand, |d| d.resize(SCORES, [1, 1, 4], Element::F32));
    accepted(I8, |d| d.resize(SCORES, [2, 2, 1], Element::I32));
    for shape in [[1, 2, 8], [2, 1, 8], [2, 2, 7], [2, 2, 4]] {
        refused(I8, Field::Operand, |d| d.resize(KEY_VALUE, shape, Element::I8));
    }
    refused(I8, Field::Operand, |d| d.resize(KEY_VALUE, [2, 2, 8], Element::I16));
}

/// Learned keys and values, eight channels each, have scores as pixels have.
#[test]
fn learned_keys() {
    let end = Draft::new(I8).file().bytes().len() as u32;
    let with = |d: &mut Draft, memory: u16, at: u32, scores: u16| {
        (d.attention().memory, d.attention().memory_at) = (memory, at);
        d.resize(SCORES, [1, 1, scores], Element::I32);
    };
    bounds!(I8, Operand, |d, v| with(d, 2, PARAMETERS, v), [6], [4, 5, 7]);
    bounds!(I8, Offset, |d, v| with(d, 2, v, 6), [end - 16], [0, end, PARAMETERS + 8]);
    bounds!(I8, Offset, |d, v| with(d, 0, v, 4), [0], [PARAMETERS]);
    // Sums of weighted values: of 511 pixels and learned keys at most with 15 bits.
    let many = |d: &mut Draft, memory: u16| {
        with(d, memory, PARAMETERS, 4 + memory);
        d.attention().weight_bits = 15;
    };
    bounds!(I8, Op, |d, v| many(d, v), [507], [508]);
}

#[test]
fn conditioning() {
    bounds!(I8, Op, |d, v| d.embed().reserved[0] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.embed().reserved_middle[0] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.embed().reserved_end[0] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.embed().input_shift = v, [0, 12], [13]);
    bounds!(I8, Op, |d, v| d.embed().output_shift = v, [0, 15], [16]);
    bounds!(I8, Op, |d, v| d.linear().reserved[0] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.linear().reserved_end[0] = v, [0], [1]);
    refused(I8, Field::Operand, |d| d.resize(CONDITIONING, [1, 1, 3], Element::I16));
    refused(I8, Field::Operand, |d| d.resize(CONDITIONING, [1, 1, 4], Element::I32));
    refused(I8, Field::Operand, |d| d.resize(BIAS, [1, 1, 4], Element::I16));
    // The conditioning vector is what `Linear` reads, not any other.
    refused(I8, Field::Operand, |d| d.linear().source = SAMPLE);
    bounds!(I8, Op, |d, v| d.embed().activation = v, [0], [Activation::ALL.len() as u8]);
    // Results that nobody reads, so that only their own operations can object.
    let projection = |d: &mut Draft, element: Element| {
        with_own_bias(d);
        d.resize(BIAS, [1, 1, 4], element);
    };
    bounds!(I8, Operand, |d, v| projection(d, v), [Element::I32], [Element::I16, Element::F32]);
    let vector = |d: &mut Draft, element: Element| {
        with_own_bias(d);
        d.ops[LINEAR] = Op::Embed(Embed { output: BIAS, ..*d.embed() });
        d.resize(BIAS, [1, 1, 4], Element::I16);
        d.resize(CONDITIONING, [1, 1, 4], element);
    };
    bounds!(I8, Operand, |d, v| vector(d, v), [Element::I16], [Element::I32, Element::I8]);
    // Without classes there is no table.
    accepted(I8, |d| {
        d.keep_before(UNCONDITIONAL);
        (d.header.classes, d.header.unconditional_class, d.embed().table) = (0, NONE, 1);
    });
}

/// A row of the table for each class, to the end of the file.
#[test]
fn tables_of_classes() {
    let end = Draft::new(I8).file().bytes().len() as u32;
    let before_the_end = |d: &mut Draft, bytes: u32| {
        d.header.classes = 5;
        d.embed().table = end - bytes;
    };
    // Five rows of four numbers of 16 bits: 40 bytes.
    bounds!(I8, Offset, |d, v| before_the_end(d, v), [48], [32]);
}
