//! Each rule of validation: what is just inside is accepted, what is just outside is refused for its own reason.

extern crate std;

use std::vec::Vec;

use super::*;
use crate::draft::*;
use crate::error::Field;
use crate::format::{Bias, Gather, OpKind, WeightLayout, checksum};

fn check(draft: &Draft) -> Result<(), ModelError> {
    let file = draft.file();
    validate(file.bytes(), checksum(file.bytes())).map(|_| ())
}

#[track_caller]
fn accepted(precision: Precision, change: impl FnOnce(&mut Draft)) {
    let mut draft = Draft::new(precision);
    change(&mut draft);
    assert_eq!(check(&draft), Ok(()), "{precision:?}");
}

#[track_caller]
fn refused(precision: Precision, field: Field, change: impl FnOnce(&mut Draft)) {
    let mut draft = Draft::new(precision);
    change(&mut draft);
    let found = check(&draft);
    assert!(
        matches!(found, Err(ModelError::Malformed { field: found, .. }) if found == field),
        "{precision:?}, {field:?} expected: {found:?}"
    );
}

/// A value of one field: those that are accepted, and those that are refused.
macro_rules! bounds {
    ($precision:expr, $field:ident, |$draft:ident, $value:ident| $set:expr, [$($good:expr),*], [$($bad:expr),*]) => {
        $( accepted($precision, |$draft| { let $value = $good; $set; }); )*
        $( refused($precision, Field::$field, |$draft| { let $value = $bad; $set; }); )*
    };
}

const ALL: &[Precision] = Precision::ALL;
const I8: Precision = Precision::I8;
const F32: Precision = Precision::F32;

#[test]
fn the_draft_is_valid() {
    ALL.iter().for_each(|&precision| accepted(precision, |_| ()));
}

#[test]
fn what_is_no_file_is_told_from_what_is_damaged() {
    let file = Draft::new(I8).file();
    let bytes = file.bytes();
    let with = |at: usize, value: u8| {
        let mut copy = bytes.to_vec();
        copy[at] = value;
        let sum = checksum(&copy);
        validate(&copy, sum).map(|_| ())
    };
    let header = size_of::<Header>();
    assert_eq!(
        validate(&bytes[..header - 1], 0).err(),
        Some(ModelError::Truncated { expected: header, found: header - 1 })
    );
    let expected = bytes.len();
    for found in [header, expected - 1] {
        assert_eq!(validate(&bytes[..found], 0).err(), Some(ModelError::Truncated { expected, found }));
    }
    assert_eq!(with(0, b'V'), Err(ModelError::Magic));
    assert_eq!(with(3, b'V'), Err(ModelError::Magic));
    assert_eq!(with(5, 1), Err(ModelError::Version { found: crate::format::VERSION + 256 }));
    assert_eq!(with(6, 3), Err(ModelError::Precision { found: 3 }));
    assert!(matches!(with(bytes.len() - 1, 0xFF), Err(ModelError::Checksum { .. })));
    let longer: Vec<u8> = [bytes, &[0]].concat();
    assert!(matches!(validate(&longer, checksum(&longer)), Err(ModelError::Malformed { field: Field::Header, .. })));
}

#[test]
fn header() {
    let tensors = Draft::new(I8).tensors.len() as u16;
    bounds!(I8, Header, |d, v| d.header.output = v, [0, 1], [2]);
    bounds!(I8, Header, |d, v| d.header.arena_bytes += v, [16], [1, 8]);
    bounds!(I8, Header, |d, v| d.header.arena_bytes = v, [1 << 30], [(1 << 30) + 16]);
    bounds!(I8, Offset, |d, v| d.header.tensors_at = v, [], [1, 0xFFFF_FFF0, 16]);
    bounds!(I8, Offset, |d, v| d.header.ops_at = v, [], [1, 0xFFFF_FFF0, 16]);
    bounds!(I8, Offset, |d, v| d.header.schedules_at = v, [], [1, 0xFFFF_FFF0, 16]);
    bounds!(I8, Header, |d, v| d.header.tensors = v, [], [NONE]);
    bounds!(I8, Header, |d, v| d.header.ops = v, [], [NONE]);
    bounds!(I8, Offset, |d, v| d.header.tensors = v, [], [NONE - 1]);
    bounds!(I8, Offset, |d, v| d.header.ops = v, [], [NONE - 1]);
    bounds!(I8, Header, |d, v| d.header.schedules = v, [1], [0]);
    bounds!(I8, Offset, |d, v| d.header.schedules = v, [], [u16::MAX]);
    bounds!(I8, Text, |d, v| d.header.name = [PARAMETERS, v], [], [65]);
    // Sixty-four bytes of text: the pattern of the parameters is text up to its end.
    bounds!(I8, Text, |d, v| d.header.name = v, [[PARAMETERS, 64]], [[PARAMETERS + 1, 4], [0xFFFF_FFF0, 4], [16, 4]]);
    bounds!(
        I8,
        Text,
        |d, v| d.header.provenance = v,
        [[PARAMETERS, 1024]],
        [[PARAMETERS, 1025], [PARAMETERS + 1, 4], [0xFFFF_FFF0, 4]]
    );
    bounds!(I8, Header, |d, v| d.header.classes = v, [3, 4], [2, 0]);
    bounds!(I8, Header, |d, v| d.header.unconditional_class = v, [0, 2], [3, NONE]);
    bounds!(I8, Header, |d, v| d.header.conditioning = v, [], [(1 << 15) + 1]);
    bounds!(I8, Operand, |d, v| d.header.conditioning = v, [], [1 << 15, 3, 5]);
    bounds!(I8, Lifetime, |d, v| d.header.sample = v, [], [tensors, NONE, PREDICTION]);
    bounds!(I8, Header, |d, v| d.header.prediction = v, [], [tensors, SAMPLE, NORM]);
    accepted(I8, |d| d.keep_before(OLDER));
    accepted(I8, |d| d.keep_before(NEWER));
    accepted(I8, |d| {
        d.keep_before(UNCONDITIONAL);
        d.header.unconditional_class = NONE;
    });
    refused(I8, Field::Lifetime, |d| d.header.unconditional = NONE);
    accepted(I8, |d| d.header.history = [OLDER, NEWER]);
    for history in [[NONE, NEWER], [NEWER, NEWER]] {
        refused(I8, Field::Header, |d| {
            d.keep_before(OLDER);
            d.header.history = history;
        });
    }
    for history in [[SAMPLE, NONE], [UNCONDITIONAL, NONE], [tensors, NONE]] {
        refused(I8, Field::Header, |d| {
            d.keep_before(NEWER);
            d.header.history = history;
        });
    }
    for unconditional in [SAMPLE, tensors] {
        refused(I8, Field::Header, |d| {
            d.keep_before(UNCONDITIONAL);
            d.header.unconditional = unconditional;
        });
    }
    // Classes without a conditioning vector.
    refused(I8, Field::Header, |d| d.header.conditioning = 0);
}

#[test]
fn text_is_utf_8() {
    // In the file a byte of a name that no text has: 0xFF of a history's NONE.
    refused(I8, Field::Text, |d| {
        d.conv(FIRST).residual = NONE;
        let at = d.file();
        let ops = Header::read(at.bytes(), 0).ops_at;
        d.header.name = [ops + 2 * crate::format::OP_BYTES as u32, 16];
    });
}

#[test]
fn tensors() {
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).element = v, [0], [5, 255]);
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).reserved = v, [0], [1]);
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).reserved_end[3] = v, [0], [1]);
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).rows = v, [2], [0, 1, 3]);
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).columns = v, [2], [0, 1, 3]);
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).channels = v, [4], [0, 3, 5]);
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).bytes += v, [0], [1, 16]);
    bounds!(I8, Tensor, |d, v| d.tensor(MAP).offset += v, [0], [1, 8]);
    let arena = Draft::new(I8).header.arena_bytes;
    bounds!(I8, Tensor, |d, v| d.tensor(OLDER).offset = arena - v, [16], [0]);
    refused(I8, Field::Tensor, |d| {
        let tensor = d.tensor(MAP);
        (tensor.rows, tensor.columns, tensor.channels, tensor.bytes) = (1 << 10, 1 << 10, 1 << 8, 1 << 28);
        d.header.arena_bytes = 1 << 30;
    });
    // Half of that is a tensor, but no map of these operations.
    refused(I8, Field::Op, |d| {
        let tensor = d.tensor(MAP);
        (tensor.rows, tensor.columns, tensor.channels, tensor.bytes) = (1 << 10, 1 << 10, 1 << 7, 1 << 27);
        d.header.arena_bytes = 1 << 30;
    });
    bounds!(I8, Lifetime, |d, v| d.tensor(MAP).last = v, [7], [1, 10]);
    for (id, field) in
        [(SAMPLE, Field::Header), (PREDICTION, Field::Header), (UNCONDITIONAL, Field::Header), (NEWER, Field::Header)]
    {
        refused(I8, field, |d| d.tensor(id).element = 4);
        refused(F32, field, |d| d.tensor(id).element = 2);
        refused(I8, field, |d| {
            let tensor = d.tensor(id);
            (tensor.rows, tensor.columns) = (1, 4);
        });
        refused(I8, Field::Lifetime, |d| d.tensor(id).last = 8);
    }
    for id in [SAMPLE, UNCONDITIONAL, NEWER] {
        refused(I8, Field::Lifetime, |d| d.tensor(id).first = 1);
    }
    refused(I8, Field::Header, |d| (d.tensor(SAMPLE).rows, d.tensor(SAMPLE).columns) = (4, 1));
    // Nobody's tensor.
    refused(I8, Field::Lifetime, |d| {
        d.add([1, 1, 4], Element::I8, [0, 0]);
    });
    refused(I8, Field::Lifetime, |d| {
        d.add([1, 1, 4], Element::I8, [9, 9]);
    });
}

#[test]
fn operands_live_when_they_are_used() {
    bounds!(I8, Lifetime, |d, v| d.tensor(MAP).first = v, [2], [1, 3]);
    bounds!(I8, Lifetime, |d, v| d.tensor(QUERY).last = v, [6], [5]);
    bounds!(I8, Lifetime, |d, v| d.tensor(SCORES).last = v, [6], [7]);
    bounds!(I8, Lifetime, |d, v| d.conv(ADD).residual = v, [], [SUM, UNCONDITIONAL, NEWER, PREDICTION, BIAS]);
    bounds!(I8, Operand, |d, v| d.conv(ADD).residual = v, [], [NONE - 1, 19]);
    bounds!(I8, Lifetime, |d, v| d.conv(ADD).output = v, [], [SAMPLE, UNCONDITIONAL, RINGS + 3, MAP, NEWER]);
    refused(I8, Field::Lifetime, |d| d.conv(ADD).output = NONE);
    refused(I8, Field::Operand, |d| d.conv(ADD).sources[0] = RINGS + 3);
    refused(I8, Field::Operand, |d| d.conv(ADD).window = RINGS + 3);
    // No operation, so nobody writes its result.
    refused(I8, Field::Lifetime, |d| d.conv(ADD).kind = OpKind::ALL.len() as u8);
    refused(I8, Field::Lifetime, |d| d.conv(LAST).output = UNCONDITIONAL);
}

#[test]
fn convolutions() {
    bounds!(I8, Op, |d, v| d.conv(ADD).gather = v, [0], [Gather::ALL.len() as u8]);
    bounds!(I8, Operand, |d, v| d.conv(ADD).gather = v, [], [Gather::Affine.code(), Gather::AffineSilu.code()]);
    bounds!(
        I8,
        Op,
        |d, v| d.conv(TO_QUERY).gather = v,
        [Gather::Affine.code()],
        [Gather::ALL.len() as u8, Gather::Raw.code()]
    );
    bounds!(I8, Op, |d, v| d.conv(ADD).upsample = v, [], [2]);
    bounds!(I8, Op, |d, v| d.conv(ADD).bias = v, [], [3]);
    bounds!(
        I8,
        Op,
        |d, v| d.conv(ADD).layout = v,
        [WeightLayout::Groups4.code()],
        [4, WeightLayout::Groups16.code(), 3]
    );
    bounds!(Precision::F16, Op, |d, v| d.conv(ADD).layout = v, [2], [0, 1, 3]);
    bounds!(F32, Op, |d, v| d.conv(ADD).layout = v, [3], [0, 1, 2]);
    bounds!(I8, Op, |d, v| d.conv(TO_QUERY).affine_shift = v, [4, 30], [3, 31]);
    bounds!(I8, Op, |d, v| d.conv(FIRST).stride = v, [1], [0, 3, 4, 5]);
    bounds!(I8, Op, |d, v| d.conv(FIRST).kernel = v, [], [[0, 3], [3, 0], [16, 3], [3, 16]]);
    bounds!(I8, Op, |d, v| d.conv(FIRST).padding = v, [[1, 1], [0, 1], [2, 1]], [[3, 1], [1, 3]]);
    bounds!(I8, Lifetime, |d, v| d.conv(FIRST).scratch = v, [], [NONE]);
    // The largest.
    accepted(I8, |d| {
        let conv = d.conv(FIRST);
        (conv.stride, conv.kernel, conv.padding) = (4, [5, 5], [3, 3]);
        let width = conv.ring_width(2, 2) as u16;
        d.resize(RINGS, [5, width, 1], Element::I16);
    });
    accepted(I8, |d| {
        d.conv(FIRST).kernel[0] = 15;
        d.resize(RINGS, [15, 4, 1], Element::I16);
    });
    bounds!(I8, Operand, |d, v| d.conv(TO_QUERY).norm = v, [], [NONE]);
    refused(I8, Field::Operand, |d| {
        d.tensor(BIAS).last = 4;
        d.conv(TO_QUERY).norm = BIAS;
    });
    // Rings.
    for shape in [[2, 4, 1], [4, 4, 1], [3, 3, 1], [3, 5, 1], [3, 4, 2]] {
        refused(I8, Field::Operand, |d| d.resize(RINGS, shape, Element::I16));
    }
    accepted(I8, |d| d.resize(RINGS, [3, 4, 1], Element::I8));
    refused(I8, Field::Operand, |d| d.resize(RINGS, [3, 4, 1], Element::I32));
    refused(F32, Field::Operand, |d| d.resize(RINGS, [3, 4, 1], Element::F16));
    // Results: activations, or the prediction as it is.
    refused(I8, Field::Operand, |d| d.resize(MAP, [2, 2, 4], Element::I32));
    refused(Precision::F16, Field::Operand, |d| d.resize(MAP, [2, 2, 4], Element::F32));
    // A residual has the result's shape and is an activation.
    refused(I8, Field::Operand, |d| {
        d.tensor(KEY_VALUE).last = 7;
        d.conv(ADD).residual = KEY_VALUE;
    });
    refused(I8, Field::Operand, |d| d.conv(LAST).residual = SAMPLE);
    // The result may be up to a kernel larger or smaller than the input gives.
    let with_rows = |d: &mut Draft, rows: u16| {
        for id in [SAMPLE, PREDICTION, UNCONDITIONAL, NEWER, OLDER] {
            d.resize(id, [rows, 2, 1], Element::I32);
        }
    };
    bounds!(I8, Op, |d, v| with_rows(d, v), [1, 2, 3], [4]);
}

/// Only the sample is read as it is, and only the prediction written.
#[test]
fn maps_are_activations() {
    refused(I8, Field::Operand, |d| {
        d.resize(BIAS, [2, 2, 1], Element::I32);
        d.tensor(BIAS).last = 5;
        d.conv(TO_KEY_VALUE).sources = [BIAS, NONE];
        d.resize(RINGS + 2, [1, 2, 1], Element::I8);
    });
    refused(I8, Field::Operand, |d| {
        d.resize(BIAS, [2, 2, 1], Element::I32);
        d.tensor(BIAS).last = 5;
        d.conv(TO_KEY_VALUE).sources = [MAP, BIAS];
        d.resize(RINGS + 2, [1, 2, 5], Element::I8);
    });
    // A result that nobody reads, so that only its own operation can object.
    let unread = |d: &mut Draft, element: Element| {
        d.conv(ADD).residual = NONE;
        d.resize(SUM, [2, 2, 4], element);
        d.conv(LAST).sources = [CONTEXT, NONE];
        d.resize(RINGS + 4, [3, 4, 4], Element::I8);
    };
    bounds!(I8, Operand, |d, v| unread(d, v), [Element::I8, Element::I16], [Element::I32, Element::F16]);
}

#[test]
fn patches() {
    // Of four taps: one group, of eight words.
    let patched = |d: &mut Draft, shape: [u16; 3], element: Element| {
        let id = d.add(shape, element, [7, 7]);
        d.conv(ADD).patches = id;
    };
    accepted(I8, |d| patched(d, [1, 1, 8], Element::I32));
    for shape in [[2, 1, 8], [1, 2, 8], [1, 1, 7], [1, 8, 1]] {
        refused(I8, Field::Operand, |d| patched(d, shape, Element::I32));
    }
    refused(I8, Field::Operand, |d| patched(d, [1, 1, 8], Element::I16));
    refused(F32, Field::Op, |d| patched(d, [1, 1, 8], Element::I32));
    refused(I8, Field::Op, |d| {
        patched(d, [1, 1, 8], Element::I32);
        d.conv(ADD).layout = WeightLayout::Groups4.code();
    });
    bounds!(I8, Op, |d, v| d.conv(ADD).reserved_end[4] = v, [0], [1]);
}

#[test]
fn parameters_lie_in_the_file() {
    for far in [PARAMETERS + 8, 16, 0, 0xFFFF_FFF0, 1 << 20] {
        refused(I8, Field::Offset, |d| d.conv(ADD).weights = far);
        refused(I8, Field::Offset, |d| d.conv(ADD).requant = far);
        refused(I8, Field::Offset, |d| d.conv(ADD).bias_at = far);
        refused(I8, Field::Offset, |d| d.group_norm().gamma = far);
        refused(I8, Field::Offset, |d| d.group_norm().beta = far);
        refused(I8, Field::Offset, |d| d.embed().table = far);
        refused(I8, Field::Offset, |d| d.linear().weights = far);
        refused(I8, Field::Offset, |d| d.linear().bias = far);
        refused(I8, Field::Offset, |d| d.linear().requant = far);
        if far != 0 {
            refused(I8, Field::Offset, |d| d.schedule.rows = far);
            refused(I8, Field::Offset, |d| d.schedule.embeddings = far);
            refused(I8, Field::Offset, |d| d.schedule.biases = far);
        }
    }
    // What f32 does not have may be anywhere.
    accepted(F32, |d| {
        d.conv(ADD).requant = 1;
        d.linear().requant = 1;
    });
}

#[test]
fn biases() {
    let step = Bias::Step.code();
    bounds!(I8, Offset, |d, v| d.conv(LAST).bias_at = v, [0], [4, 16, 0xFFFF_FFF0]);
    bounds!(I8, Offset, |d, v| d.conv(LAST).bias_tensor = v, [], [CONTEXT]);
    refused(I8, Field::Offset, |d| {
        d.conv(ADD).bias = step;
        d.conv(ADD).bias_at = 16;
    });
    accepted(I8, |d| {
        d.conv(ADD).bias = step;
        d.conv(ADD).bias_at = 0;
    });
    refused(I8, Field::Offset, |d| {
        d.tensor(KEY_VALUE).last = 7;
        d.conv(ADD).bias_tensor = KEY_VALUE;
    });
    refused(I8, Field::Operand, |d| d.conv(FIRST).bias_tensor = NONE);
    refused(I8, Field::Operand, |d| d.resize(BIAS, [1, 1, 3], Element::I32));
    refused(I8, Field::Operand, |d| d.resize(BIAS, [1, 1, 4], Element::F32));
    accepted(I8, |d| d.resize(BIAS, [2, 2, 1], Element::I32));
}

#[test]
fn scales_of_steps() {
    let with = |d: &mut Draft, at: u32, bias_bytes: u32| {
        (d.conv(TO_QUERY).weight_sums, d.conv(TO_QUERY).step_scales) = (PARAMETERS, at);
        d.schedule.bias_bytes = bias_bytes;
    };
    accepted(I8, |d| with(d, 12, 32));
    for (at, bytes) in [(16, 32), (13, 48), (0xFFFF_FFFC, 32), (0, 16)] {
        refused(I8, Field::Offset, |d| with(d, at, bytes));
    }
    refused(F32, Field::Op, |d| with(d, 0, 32));
    refused(I8, Field::Op, |d| {
        with(d, 0, 32);
        d.resize(RINGS + 1, [1, 2, 4], Element::I16);
    });
    refused(I8, Field::Op, |d| {
        d.schedule.bias_bytes = 32;
        d.conv(ADD).weight_sums = PARAMETERS;
    });
    refused(I8, Field::Offset, |d| {
        with(d, 0, 32);
        d.conv(TO_QUERY).weight_sums = 8;
    });
}

#[test]
fn streamed_weights() {
    // Eight outputs of four taps: one chunk of 32 bytes.
    let streamed = |d: &mut Draft, window_bytes: u16, weights_bytes: u32| {
        let window = d.add([1, 1, window_bytes], Element::I8, [5, 5]);
        let conv = d.conv(TO_KEY_VALUE);
        (conv.window, conv.weights, conv.checks) = (window, 0, PARAMETERS);
        d.header.weights_bytes = weights_bytes;
    };
    accepted(I8, |d| streamed(d, 32, 32));
    accepted(I8, |d| streamed(d, 48, 64));
    for window in [16, 31, 40] {
        refused(I8, Field::Operand, |d| streamed(d, window, 32));
    }
    refused(I8, Field::Offset, |d| streamed(d, 32, 31));
    refused(I8, Field::Op, |d| {
        streamed(d, 32, 32);
        d.conv(TO_KEY_VALUE).chunk_blocks = 0;
    });
    for far in [8, 16, 0xFFFF_FFF0] {
        refused(I8, Field::Offset, |d| {
            streamed(d, 32, 32);
            d.conv(TO_KEY_VALUE).weights = far;
        });
        refused(I8, Field::Offset, |d| {
            streamed(d, 32, 32);
            d.conv(TO_KEY_VALUE).checks = far;
        });
    }
}

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

#[test]
fn attentions() {
    for at in 0..3 {
        bounds!(I8, Op, |d, v| d.attention().reserved[at] = v, [0], [1]);
    }
    bounds!(I8, Op, |d, v| d.attention().reserved_middle[1] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.attention().reserved_end[71] = v, [0], [1]);
    bounds!(I8, Op, |d, v| d.attention().heads = v, [1, 2, 4], [0, 3, 8]);
    bounds!(I8, Op, |d, v| d.attention().weight_bits = v, [1, 15], [0, 16]);
    bounds!(I8, Op, |d, v| d.attention().value_multiplier = v, [0], [-1]);
    bounds!(I8, Op, |d, v| d.attention().score_multiplier = v, [0], [-1]);
    accepted(F32, |d| d.attention().weight_bits = 0);
    refused(I8, Field::Operand, |d| d.resize(CONTEXT, [2, 2, 4], Element::I8));
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
}

#[test]
fn schedules() {
    bounds!(I8, Schedule, |d, v| d.schedule.reserved[3] = v, [0], [1]);
    bounds!(I8, Schedule, |d, v| d.schedule.steps = v, [1, 3], [0, 10_001]);
    bounds!(I8, Offset, |d, v| d.schedule.steps = v, [], [10_000]);
    bounds!(I8, Offset, |d, v| d.schedule.levels = v, [0, PARAMETERS], [8, 16, PARAMETERS + 8, 0xFFFF_FFF0]);
    bounds!(I8, Schedule, |d, v| d.schedule.bias_bytes = v, [16, 32], [20]);
    bounds!(I8, Offset, |d, v| d.schedule.bias_bytes = v, [], [1 << 20]);
    for step in 0..STEPS {
        bounds!(I8, Schedule, |d, v| d.fixed[step].x0_shift = v, [0, 62], [63]);
        bounds!(I8, Schedule, |d, v| d.fixed[step].next_shift = v, [0, 62], [63]);
        bounds!(I8, Schedule, |d, v| d.fixed[step].clip = v, [0, i32::MAX], [-1]);
        for k in 0..2 {
            bounds!(I8, Schedule, |d, v| d.fixed[step].x0[k] = v, [1 << 29, -(1 << 29)], [(1 << 29) + 1, i32::MIN]);
            bounds!(F32, Schedule, |d, v| d.float[step].x0[k] = v, [f32::MAX], [f32::NAN, f32::INFINITY]);
            bounds!(F32, Schedule, |d, v| d.float[step].history[k] = v, [0.0], [f32::NAN]);
        }
        for k in 0..4 {
            bounds!(I8, Schedule, |d, v| d.fixed[step].next[k] = v, [1 << 29, -(1 << 29)], [(1 << 29) + 1, i32::MIN]);
            bounds!(F32, Schedule, |d, v| d.float[step].next[k] = v, [f32::MIN], [f32::NAN, f32::NEG_INFINITY]);
        }
        bounds!(F32, Schedule, |d, v| d.float[step].clip = v, [0.0, f32::INFINITY], [f32::NAN, -1.0, -0.0]);
        bounds!(F32, Schedule, |d, v| d.float[step].reserved[3] = v, [0], [1]);
        bounds!(F32, Schedule, |d, v| d.float[step].reserved_middle[3] = v, [0], [1]);
        // The first step cannot look back, the second by one.
        for k in 0..2 {
            let fixed = |d: &mut Draft| d.fixed[step].history[k] = 1 << 29;
            let float = |d: &mut Draft| d.float[step].history[k] = 1.0;
            if step > k {
                accepted(I8, fixed);
                accepted(F32, float);
                refused(I8, Field::Schedule, |d| d.fixed[step].history[k] = (1 << 29) + 1);
                let forgotten = [NEWER, OLDER][k];
                refused(I8, Field::Schedule, |d| {
                    d.keep_before(forgotten);
                    d.fixed[step].history[k] = 1;
                });
                refused(F32, Field::Schedule, |d| {
                    d.keep_before(forgotten);
                    d.float[step].history[k] = 1.0;
                });
            } else {
                refused(I8, Field::Schedule, fixed);
                refused(F32, Field::Schedule, float);
            }
        }
    }
}

/// The exceptions are results over operands that die: a residual in the very place, a query, and sources whose rows are read
/// before results are written over them.
#[test]
fn overlaps() {
    for (id, other) in [(MAP, SAMPLE), (MAP, OLDER), (QUERY, MAP), (NORM, MAP), (SCORES, KEY_VALUE), (RINGS, BIAS)] {
        refused(I8, Field::Overlap, |d| {
            let offset = d.tensor(other).offset;
            d.tensor(id).offset = offset;
            // Attention's result goes along.
            d.tensor(CONTEXT).offset = d.tensors[usize::from(QUERY)].offset;
        });
    }
    // One after the other any memory will do.
    for (id, other) in [(CONDITIONING, MAP), (SCORES, BIAS), (SCORES, RINGS), (RINGS + 4, KEY_VALUE)] {
        accepted(I8, |d| {
            let offset = d.tensor(other).offset;
            if d.tensor(id).bytes <= d.tensor(other).bytes {
                d.tensor(id).offset = offset;
            }
        });
    }
    // A residual a little beside, or of another type; one that is read later; and none.
    refused(F32, Field::Overlap, |d| d.tensor(SUM).offset += 16);
    refused(I8, Field::Overlap, |d| {
        d.tensor(SUM).element = Element::I16.code();
        d.tensor(SUM).bytes *= 2;
    });
    refused(I8, Field::Overlap, |d| d.tensor(MAP).last = 8);
    refused(I8, Field::Overlap, |d| d.conv(ADD).residual = NONE);
    // The source of a convolution, in F32 two rows of 32 bytes.
    let over_source = |d: &mut Draft, shift: i32| {
        let offset = d.tensor(CONTEXT).offset;
        (d.tensor(CONTEXT).last, d.tensor(MAP).last) = (7, 5);
        d.conv(ADD).residual = NONE;
        d.conv(LAST).sources[1] = NONE;
        d.resize(RINGS + 4, [3, 4, 4], Element::F32);
        d.tensor(SUM).offset = offset.wrapping_add_signed(shift);
    };
    bounds!(F32, Overlap, |d, v| over_source(d, v), [0, -16, -32], [16, 32, 48]);
    // Three rows are read before the first is written: all there are.
    accepted(F32, |d| {
        over_source(d, 16);
        (d.conv(ADD).kernel, d.conv(ADD).padding) = ([3, 1], [1, 0]);
        d.resize(RINGS + 3, [3, 2, 4], Element::F32);
    });
    // Normalizations and projections read their operands more than once.
    refused(I8, Field::Overlap, |d| {
        d.tensor(BIAS).offset = d.tensors[usize::from(CONDITIONING)].offset;
    });
}
