//! Policies: observations, what a run computes once, activations that are written out, shuffles of columns, and actions.

use super::*;
use crate::draft::policy::{
    FILM, FIRST, LAST, LINEAR, MAP, NORM, OBSERVATION, OBSERVE, OBSERVED, PREDICTION, RINGS, SAMPLE, SHORTCUT, SUM,
};
use crate::format::{Activation, Film, Observe, Shuffle};

fn policy(precision: Precision) -> Draft {
    Draft::policy(precision)
}

/// The length of the file, a multiple of 16.
fn end(precision: Precision) -> u32 {
    policy(precision).file().bytes().len() as u32
}

/// No modulation, and tensor `FILM`, of any shape, for other uses.
fn without_film(d: &mut Draft, shape: [u16; 3], element: Element) {
    (d.activate().film, d.activate().observed) = (Film::None.code(), NONE);
    d.resize(FILM, shape, element);
}

/// Maps of four channels, summands of each step and no residual; `SUM` lies behind `MAP`.
fn with_four_channels(d: &mut Draft, [activation, wide]: [Element; 2]) {
    d.resize(NORM, [1, 4, 2], wide);
    d.resize(RINGS + 2, [1, 2, 4], activation);
    for id in [SHORTCUT, MAP, SUM] {
        d.resize(id, [1, 2, 4], activation);
    }
    d.activate().residual = NONE;
    (d.activate().film, d.activate().observed) = (Film::Shift.code(), NONE);
}

#[test]
fn activations() {
    let map = [1, 2, 2];
    bounds!(policy(I8), Op, |d, v| d.activate().activation = v, [0], [Activation::ALL.len() as u8]);
    let film = |d: &mut Draft, code: u8| {
        without_film(d, [1, 1, 4], Element::I32);
        d.activate().film = code;
    };
    bounds!(policy(I8), Op, |d, v| film(d, v), [0, 1, 2], [3]);
    bounds!(policy(I8), Op, |d, v| d.activate().reserved = v, [0], [1]);
    bounds!(policy(I8), Op, |d, v| d.activate().reserved_middle[1] = v, [0], [1]);
    bounds!(policy(I8), Op, |d, v| d.activate().reserved_end[71] = v, [0], [1]);
    bounds!(policy(I8), Op, |d, v| d.activate().affine_shift = v, [4, 30], [3, 31]);
    bounds!(policy(F32), Op, |d, v| d.activate().affine_shift = v, [0, 31], []);
    bounds!(policy(I8), Operand, |d, v| d.activate().source = v, [], [NONE, NONE - 1]);
    bounds!(policy(I8), Operand, |d, v| d.activate().norm = v, [], [NONE, NONE - 1]);
    bounds!(policy(I8), Operand, |d, v| d.activate().residual = v, [], [NONE - 1]);
    // Sources and residuals are activations, not sums and not what is given.
    let wide = |d: &mut Draft| {
        without_film(d, map, Element::I32);
        d.resize(OBSERVED, map, Element::I16);
        d.resize(OBSERVATION, map, Element::I32);
    };
    for id in [FILM, OBSERVATION] {
        refused(policy(I8), Field::Operand, |d| {
            wide(d);
            d.activate().source = id;
        });
        refused(policy(I8), Field::Operand, |d| {
            wide(d);
            d.activate().residual = id;
        });
    }
    // A result that nobody reads, so that only its own operation can object.
    let unread = |d: &mut Draft, shape: [u16; 3], element: Element| {
        d.activate().residual = NONE;
        d.resize(SUM, shape, element);
        d.conv(LAST).sources[0] = MAP;
        d.tensor(MAP).last = LAST as u16;
    };
    bounds!(policy(I8), Operand, |d, v| unread(d, v, Element::I8), [map], [[2, 2, 2], [1, 3, 2], [1, 2, 3]]);
    bounds!(policy(I8), Operand, |d, v| unread(d, map, v), [Element::I8, Element::I16], [Element::I32, Element::F16]);
    bounds!(policy(Precision::F16), Operand, |d, v| unread(d, map, v), [Element::F16], [Element::F32]);
    // A residual of another shape, in single precision, where elements are all the same.
    let residual = |d: &mut Draft, shape: [u16; 3]| {
        without_film(d, shape, Element::F32);
        d.activate().residual = FILM;
        d.resize(SUM, map, Element::F32);
    };
    bounds!(policy(F32), Operand, |d, v| residual(d, v), [map], [[2, 2, 2], [1, 3, 2], [1, 2, 3]]);
}

#[test]
fn maps_of_activations() {
    // `Linear` writes tensors of any shape.
    let of_shape = |d: &mut Draft, shape: [u16; 3]| {
        without_film(d, shape, Element::I32);
        d.activate().norm = FILM;
    };
    bounds!(policy(I8), Operand, |d, v| of_shape(d, v), [[1, 2, 2]], [[2, 2, 2], [1, 3, 2], [1, 2, 1], [1, 2, 3]]);
    // Of as many channels as the source has, not as many columns.
    let with_columns = |d: &mut Draft, columns: u16| {
        for id in [SAMPLE, PREDICTION] {
            d.resize(id, [1, 2 * columns, 2], Element::I32);
        }
        for id in [MAP, SHORTCUT, SUM] {
            d.resize(id, [1, columns, 2], Element::I8);
        }
        d.tensor(SUM).offset = d.tensors[usize::from(SHORTCUT)].offset;
        for (ring, width) in [(0, 2 * columns + 1), (1, 2 * columns)] {
            d.resize(RINGS + ring, [1, width, 2], Element::I16);
        }
        d.resize(RINGS + 2, [1, columns, 2], Element::I8);
    };
    bounds!(policy(I8), Operand, |d, v| with_columns(d, v), [2, 3], []);
    refused(policy(I8), Field::Operand, |d| {
        d.activate().residual = NONE;
        d.activate().norm = SHORTCUT;
    });
}

/// In single precision, where one shape and element would do for all.
#[test]
fn activations_read_each_tensor_once() {
    bounds!(policy(F32), Operand, |d, v| d.activate().norm = v, [NORM], [MAP]);
    bounds!(policy(F32), Operand, |d, v| d.activate().observed = v, [FILM], [MAP, NORM]);
    let residual = |d: &mut Draft, id: u16| {
        d.resize(FILM, [1, 2, 2], Element::F32);
        d.resize(SUM, [1, 2, 2], Element::F32);
        d.activate().residual = id;
    };
    bounds!(policy(F32), Operand, |d, v| residual(d, v), [SHORTCUT, NONE], [MAP, NORM, FILM]);
}

#[test]
fn modulations() {
    bounds!(policy(I8), Op, |d, v| (without_film(d, [1, 1, 4], Element::I32), d.activate().film_at = v), [0], [16]);
    bounds!(policy(I8), Op, |d, v| (d.activate().film, d.activate().observed) = (0, v), [NONE], [FILM]);
    // Two channels: summands of eight bytes, with factors sixteen, at multiples of sixteen.
    let at = |d: &mut Draft, film: Film, at: u32| {
        d.schedule.bias_bytes = 32;
        (d.activate().film, d.activate().film_at, d.activate().observed) = (film.code(), at, NONE);
    };
    for film in [Film::Shift, Film::ScaleShift] {
        bounds!(policy(I8), Offset, |d, v| at(d, film, v), [0, 16], [4, 8, 32, 0xFFFF_FFF0]);
    }
    // Four channels and a place for four numbers: summands only.
    let of_four = |d: &mut Draft, film: Film| {
        with_four_channels(d, [Element::I8, Element::I32]);
        d.activate().film = film.code();
    };
    bounds!(policy(I8), Offset, |d, v| of_four(d, v), [Film::Shift], [Film::ScaleShift]);
    // The observation's part.
    let observed = |d: &mut Draft, film: Film, len: u16| {
        d.activate().film = film.code();
        d.resize(FILM, [1, 1, len], Element::I32);
    };
    bounds!(policy(I8), Operand, |d, v| observed(d, Film::Shift, v), [2], [1, 3, 4]);
    bounds!(policy(I8), Operand, |d, v| observed(d, Film::ScaleShift, v), [4], [2, 3, 5]);
    bounds!(policy(I8), Operand, |d, v| d.activate().observed = v, [], [NONE - 1]);
    refused(policy(I8), Field::Operand, |d| {
        d.activate().residual = NONE;
        d.activate().observed = SHORTCUT;
    });
}

#[test]
fn activations_write_over_what_they_read() {
    let over = |d: &mut Draft, id: u16, shift: u32| d.tensor(SUM).offset = d.tensors[usize::from(id)].offset + shift;
    bounds!(policy(I8), Overlap, |d, v| over(d, v, 0), [MAP, SHORTCUT, OBSERVED], [NORM, FILM, OBSERVATION]);
    // A little beside, in maps of 32 bytes; of another element; read later; and no operand.
    let beside = |d: &mut Draft, shift: u32| {
        with_four_channels(d, [Element::F32; 2]);
        over(d, MAP, shift);
    };
    bounds!(policy(F32), Overlap, |d, v| beside(d, v), [0, 32], [16]);
    refused(policy(I8), Field::Overlap, |d| {
        d.tensor(SUM).element = Element::I16.code();
        d.tensor(SUM).bytes *= 2;
    });
    refused(policy(I8), Field::Overlap, |d| d.tensor(SHORTCUT).last = LAST as u16);
    refused(policy(I8), Field::Overlap, |d| d.activate().residual = NONE);
}

#[test]
fn observations() {
    bounds!(policy(I8), Op, |d, v| d.observe().activation = v, [0], [Activation::ALL.len() as u8]);
    bounds!(policy(I8), Op, |d, v| d.observe().reserved[1] = v, [0], [1]);
    bounds!(policy(I8), Op, |d, v| d.observe().reserved_end[103] = v, [0], [1]);
    // It reads the observation or another tensor of such elements, and no other.
    let source = |d: &mut Draft, id: u16| {
        d.resize(OBSERVED, [1, 4, 2], Element::I16);
        d.resize(OBSERVATION, [1, 4, 2], Element::I32);
        d.observe().source = id;
    };
    bounds!(policy(I8), Operand, |d, v| source(d, v), [OBSERVATION, SAMPLE], [NONE]);
    let second = |d: &mut Draft, source: u16, element: Element| {
        d.ops[LINEAR] = Op::Observe(Observe { source, output: FILM, ..*d.observe() });
        d.activate().observed = NONE;
        d.resize(FILM, [1, 1, 3], element);
    };
    bounds!(policy(I8), Operand, |d, v| second(d, v, Element::I16), [OBSERVATION], [OBSERVED]);
    bounds!(policy(F32), Operand, |d, v| second(d, v, Element::F32), [OBSERVATION, OBSERVED], [NONE]);
    let shape = |d: &mut Draft, shape: [u16; 3]| d.resize(OBSERVED, shape, Element::I16);
    bounds!(policy(I8), Operand, |d, v| shape(d, v), [[1, 1, 3]], [[1, 3, 1], [3, 1, 1], [1, 1, 2], [1, 1, 4]]);
    // A result that no projection reads.
    let element = |d: &mut Draft, element: Element| second(d, OBSERVATION, element);
    bounds!(policy(I8), Operand, |d, v| element(d, v), [Element::I16], [Element::I8, Element::I32, Element::F32]);
    bounds!(policy(Precision::F16), Operand, |d, v| element(d, v), [Element::F32], [Element::F16]);
    // Three centers of four bytes, as many gains of eight in integers and of four else, to the end of the file.
    let (fixed, float) = (end(I8), end(F32));
    bounds!(policy(I8), Offset, |d, v| d.observe().centers = fixed - v, [16], [0, 8, fixed]);
    bounds!(policy(I8), Offset, |d, v| d.observe().gains = fixed - v, [32], [16, 24, fixed]);
    bounds!(policy(F32), Offset, |d, v| d.observe().gains = float - v, [16], [0, 8, float]);
    let of_five = |d: &mut Draft, centers: u32| {
        d.resize(OBSERVED, [1, 1, 5], Element::I16);
        d.resize(OBSERVATION, [1, 1, 5], Element::I32);
        d.observe().centers = centers;
    };
    bounds!(policy(I8), Offset, |d, v| of_five(d, fixed - v), [32], [16]);
}

/// The tensor of the observation: given as the sample is, and none of the others.
#[test]
fn tensors_of_observations() {
    bounds!(policy(I8), Operand, |d, v| d.resize(OBSERVATION, v, Element::I32), [[1, 1, 3]], [[1, 1, 4]]);
    bounds!(
        policy(I8),
        Header,
        |d, v| d.resize(OBSERVATION, [1, 1, 3], v),
        [Element::I32],
        [Element::I8, Element::I16, Element::F32]
    );
    bounds!(policy(F32), Header, |d, v| d.resize(OBSERVATION, [1, 1, 3], v), [Element::F32], [Element::I32]);
    let last = LAST as u16;
    bounds!(policy(I8), Lifetime, |d, v| d.tensor(OBSERVATION).last = v, [last + 1], [last, last + 2]);
    // From the start on, even if it is read later: after a projection of another tensor, which single precision allows.
    let late = |d: &mut Draft, first: u16| {
        d.ops.swap(OBSERVE, LINEAR);
        let Op::Linear(op) = &mut d.ops[OBSERVE] else { panic!("swapped") };
        op.source = SAMPLE;
        d.tensor(FILM).first = 0;
        d.tensor(OBSERVED).first = 1;
        d.tensor(OBSERVATION).first = first;
    };
    bounds!(policy(F32), Lifetime, |d, v| late(d, v), [0], [1]);
    // Without its tensor, the header names another.
    let is = |d: &mut Draft, id: u16| {
        d.tensors.pop();
        d.header.observation = id;
    };
    bounds!(policy(I8), Header, |d, v| is(d, v), [], [PREDICTION, OBSERVATION, NONE]);
    refused(policy(I8), Field::Header, |d| {
        // 0 stands for none, so the sample comes second.
        d.tensors.swap(usize::from(SAMPLE), usize::from(PREDICTION));
        (d.header.sample, d.header.prediction) = (PREDICTION, SAMPLE);
        d.conv(LAST).output = SAMPLE;
        is(d, PREDICTION);
    });
    refused(policy(I8), Field::Header, |d| d.header.condition = OBSERVATION);
    refused(policy(I8), Field::Header, |d| {
        d.resize(OBSERVED, [1, 4, 2], Element::I16);
        d.resize(OBSERVATION, [1, 4, 2], Element::I32);
        d.header.history[0] = OBSERVATION;
    });
    // Nobody's memory but its own.
    for id in [SAMPLE, OBSERVED, FILM, RINGS, MAP, PREDICTION] {
        refused(policy(I8), Field::Overlap, |d| {
            d.tensor(OBSERVATION).offset = d.tensors[usize::from(id)].offset;
        });
    }
    // No operation writes it.
    refused(policy(I8), Field::Lifetime, |d| d.conv(FIRST).output = OBSERVATION);
}

#[test]
fn what_a_run_computes_once() {
    // An observation without such operations, the reverse, and nothing besides.
    bounds!(policy(I8), Header, |d, v| d.header.once = v, [2], [0, 7, NONE]);
    refused(policy(I8), Field::Header, |d| d.header.observation = 0);
    refused(I8, Field::Header, |d| d.header.once = 1);
    // A result stays for every step, or is used up before the first.
    bounds!(policy(I8), Lifetime, |d, v| d.tensor(FILM).last = v, [7], [5, 6]);
    bounds!(policy(I8), Lifetime, |d, v| d.tensor(OBSERVED).last = v, [1, 7], [2, 6]);
    // Nothing in it depends on the step.
    let also_first = |d: &mut Draft, once: u16| {
        d.header.once = once;
        d.tensor(MAP).last = 7;
    };
    bounds!(policy(I8), Op, |d, v| also_first(d, v), [2], [3]);
}

#[test]
fn shuffles() {
    bounds!(policy(I8), Op, |d, v| d.conv(LAST).shuffle = v, [Shuffle::Columns.code()], [2]);
    // Three columns are not those of two phases.
    let of_columns = |d: &mut Draft, columns: u16| {
        for id in [SAMPLE, PREDICTION] {
            d.resize(id, [1, columns, 2], Element::I32);
        }
        d.resize(RINGS, [1, columns.max(4) + 1, 2], Element::I16);
        d.resize(RINGS + 1, [1, columns, 2], Element::I16);
    };
    bounds!(policy(I8), Op, |d, v| of_columns(d, v), [4], [3]);
    // Neither are there twice 2¹⁵ channels to compute; of one fewer the parameters would have to be in the file.
    let of_channels = |d: &mut Draft, channels: u16| {
        d.resize(MAP, [1, 2, channels], Element::I8);
        d.conv(FIRST).shuffle = Shuffle::Columns.code();
    };
    refused(policy(I8), Field::Op, |d| of_channels(d, 1 << 15));
    refused(policy(I8), Field::Offset, |d| of_channels(d, (1 << 15) - 1));
    // Twice the channels have scales and biases: of two channels four, of four eight.
    let end = end(I8);
    bounds!(policy(I8), Offset, |d, v| d.conv(LAST).requant = end - v, [32], [16]);
    let of_eight = |d: &mut Draft, bias: u32| {
        d.resize(PREDICTION, [1, 4, 4], Element::I32);
        d.conv(LAST).bias_at = bias;
    };
    bounds!(policy(I8), Offset, |d, v| of_eight(d, end - v), [32], [16]);
    // A residual has the shape of what is written.
    let residual = |d: &mut Draft, shape: [u16; 3]| {
        d.resize(OBSERVED, shape, Element::F32);
        d.resize(OBSERVATION, shape, Element::F32);
        d.conv(LAST).residual = OBSERVATION;
    };
    bounds!(policy(F32), Operand, |d, v| residual(d, v), [[1, 4, 2]], [[1, 2, 4]]);
}

#[test]
fn actions() {
    accepted(policy(I8), |d| d.actions.clear());
    let (fixed, float) = (end(I8), end(F32));
    // Two channels of sixteen bytes.
    bounds!(policy(I8), Offset, |d, v| d.header.actions = v, [], [fixed - 16, fixed, 8, 0xFFFF_FFF0]);
    bounds!(policy(F32), Offset, |d, v| d.header.actions = v, [], [float - 16, float, 8, 0xFFFF_FFF0]);
    let set = |d: &mut Draft, at: usize, value: f32| d.actions[at..][..4].copy_from_slice(&value.to_le_bytes());
    for channel in [0, 16] {
        bounds!(policy(I8), Header, |d, v| d.actions[channel + 15] = v, [0], [1]);
        bounds!(policy(F32), Header, |d, v| d.actions[channel + 15] = v, [0], [1]);
        for at in [channel, channel + 4] {
            bounds!(
                policy(F32),
                Header,
                |d, v| set(d, at, v),
                [0.0, f32::MAX],
                [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
            );
        }
    }
}
