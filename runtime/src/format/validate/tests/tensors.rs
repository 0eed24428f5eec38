//! Tensors, their lives, and their places in memory.

use super::*;
use crate::draft::policy;
use crate::format::Element;

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
    for dimension in 0..3 {
        refused(I8, Field::Tensor, |d| {
            let tensor = d.tensor(MAP);
            *[&mut tensor.rows, &mut tensor.columns, &mut tensor.channels][dimension] = 0;
            tensor.bytes = 0;
        });
    }
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
    // What its convolution could write, but no sampler reads.
    for [rows, columns] in [[3, 2], [2, 3]] {
        refused(I8, Field::Header, |d| {
            d.keep_before(UNCONDITIONAL);
            d.resize(PREDICTION, [rows, columns, 1], Element::I32);
            let width = d.conv(LAST).ring_width(2, columns.into()) as u16;
            d.resize(RINGS + 4, [3, width, 8], Element::I8);
        });
    }
    // A result that nobody reads, from its operation on.
    let unread = |d: &mut Draft, last: u16| {
        (d.conv(TO_QUERY).gather, d.conv(TO_QUERY).norm) = (Gather::Raw.code(), NONE);
        d.tensor(NORM).last = last;
    };
    bounds!(I8, Lifetime, |d, v| unread(d, v), [3, 9], [2, 0]);
    // Nobody's tensor.
    refused(I8, Field::Lifetime, |d| {
        d.add([1, 1, 4], Element::I8, [0, 0]);
    });
    refused(I8, Field::Lifetime, |d| {
        d.add([1, 1, 4], Element::I8, [9, 9]);
    });
}

/// A condition that nobody reads: as the sample, and memory of its own.
#[test]
fn conditions() {
    let end = Draft::new(I8).ops.len() as u16;
    let given = |d: &mut Draft, element: Element, life: [u16; 2]| d.header.condition = d.add([2, 2, 3], element, life);
    bounds!(I8, Header, |d, v| given(d, v, [0, end]), [Element::I32], [Element::I8, Element::F32]);
    bounds!(F32, Header, |d, v| given(d, v, [0, end]), [Element::F32], [Element::I32]);
    bounds!(I8, Lifetime, |d, v| given(d, Element::I32, v), [], [[1, end], [0, end - 1]]);
    bounds!(I8, Header, |d, v| d.header.condition = v, [], [PREDICTION, UNCONDITIONAL, NEWER, OLDER, NONE]);
    refused(I8, Field::Header, |d| {
        // 0 stands for none, so the sample comes second.
        d.tensors.swap(usize::from(SAMPLE), usize::from(PREDICTION));
        (d.header.sample, d.header.prediction) = (PREDICTION, SAMPLE);
        (d.conv(FIRST).sources[0], d.conv(LAST).output) = (PREDICTION, SAMPLE);
        d.header.condition = PREDICTION;
    });
    for id in [SAMPLE, MAP, SCORES, OLDER] {
        refused(I8, Field::Overlap, |d| {
            given(d, Element::I32, [0, end]);
            d.tensor(OLDER + 1).offset = d.tensors[usize::from(id)].offset;
        });
    }
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

/// Four convolutions of one pixel over rows of four, whose results are as large as their rings.
fn rows_of_four() -> Draft {
    let mut chain = chain::Chain::new(I8, [1, 4, 2], 4);
    for _ in 0..4 {
        chain.push([1, 4, 2], convolution(I8));
    }
    chain.draft
}

/// A result is a tensor of its own: no other's result, none that is given or kept, and not the ring.
#[test]
fn results_are_written_once() {
    accepted(rows_of_four(), |_| ());
    let [first, second, third] = [0, 1, 2].map(|index| rows_of_four().conv(index).output);
    // The last convolution's ring, in the place of the one that was added last.
    let last_ring = |d: &mut Draft, id: u16| {
        d.tensors.pop();
        (d.tensor(id).first, d.tensor(id).last) = (3, 3);
        d.conv(3).scratch = id;
    };
    accepted(rows_of_four(), |d| {
        let ring = d.conv(3).scratch;
        let id = d.add([1, 4, 2], Element::I8, [3, 3]);
        assert_eq!(ring + 1, id);
        last_ring(d, ring);
    });
    refused(rows_of_four(), Field::Lifetime, |d| {
        d.tensor(first).last = 3;
        (d.conv(2).output, d.conv(3).sources[0]) = (first, first);
        last_ring(d, third);
    });
    // An earlier result, or its own, as the third convolution's ring.
    for (id, life) in [(first, [0, 2]), (third, [2, 2])] {
        refused(rows_of_four(), Field::Lifetime, |d| {
            (d.tensor(id).first, d.tensor(id).last) = (life[0], life[1]);
            d.tensor(second).last = 3;
            d.conv(3).sources[0] = second;
            let ring = core::mem::replace(&mut d.conv(2).scratch, id);
            last_ring(d, ring);
        });
    }
    // What the sampler keeps: the conditioning vector's tensor is a condition then, which nobody writes.
    refused(F32, Field::Lifetime, |d| {
        let end = d.ops.len() as u16;
        d.embed().output = UNCONDITIONAL;
        d.resize(CONDITIONING, [2, 2, 1], Element::F32);
        d.tensor(CONDITIONING).last = end;
        d.header.condition = CONDITIONING;
    });
}

/// The observation is given, so that nobody writes it.
#[test]
fn what_is_given_is_not_written() {
    refused(Draft::policy(F32), Field::Lifetime, |d| {
        let end = d.ops.len() as u16;
        d.observe().output = policy::OBSERVATION;
        let Op::Linear(linear) = &mut d.ops[policy::LINEAR] else { panic!("moved") };
        linear.source = policy::OBSERVATION;
        d.resize(policy::OBSERVED, [1, 4, 2], Element::F32);
        d.tensor(policy::OBSERVED).last = end;
        d.header.condition = policy::OBSERVED;
    });
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

/// Convolutions one after the other between the sum and the last, each with memory of its own, whose results live to the end or
/// to the next.
fn chain(draft: &mut Draft, count: u16, lives: bool) {
    let start = LAST as u16;
    for tensor in &mut draft.tensors {
        for at in [&mut tensor.first, &mut tensor.last] {
            *at += if *at >= start { count } else { 0 };
        }
    }
    let mut source = SUM;
    for index in 0..count {
        let at = start + index;
        let scratch = draft.add([1, 2, 4], Element::I8, [at, at]);
        let next = at + u16::from(index + 1 < count);
        let output = draft.add([2, 2, 4], Element::I8, [at, if lives { start + count } else { next }]);
        let conv = Conv2d { sources: [source, NONE], residual: NONE, output, scratch, ..*draft.conv(ADD) };
        draft.ops.insert(at.into(), Op::Conv2d(conv));
        source = output;
    }
}

/// 256 tensors may be alive at once, and any number one after the other: the dead leave their places.
#[test]
fn numbers_of_tensors() {
    accepted(I8, |d| chain(d, 400, false));
    // Beside the results: four of the sampler, the sum, the context, the last ring and the prediction.
    accepted(I8, |d| chain(d, 248, true));
    refused(I8, Field::Alive, |d| chain(d, 249, true));
    // As many before the last operation, and one of them dead when it begins.
    accepted(I8, |d| {
        let first = d.tensors.len() + 1;
        chain(d, 249, true);
        d.tensors[first].last -= 1;
    });
}

/// A tensor takes the memory of several dead ones; those behind it are looked at as before.
#[test]
fn memory_of_several() {
    let place = |d: &mut Draft, over: Option<u16>| {
        let first = d.tensors.len() as u16;
        chain(d, 6, false);
        // Six tensors of 16 bytes each, of the first three convolutions.
        d.tensor(RINGS + 4).offset = d.tensors[usize::from(first)].offset;
        // The last result lives on beside the one before it, which is dead.
        let last = first + 11;
        d.tensor(last).last = LAST as u16 + 6;
        // Over one of the chain, or over what the sampler keeps just before it.
        let id = over.map_or(OLDER, |before| last - before);
        d.tensor(PREDICTION).offset = d.tensors[usize::from(id)].offset;
    };
    bounds!(I8, Overlap, |d, v| place(d, v), [Some(1), Some(2), Some(3), Some(4)], [Some(0), None]);
}
