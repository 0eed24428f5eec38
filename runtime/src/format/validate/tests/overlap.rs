//! What an operation may write over what it has read.

use bytemuck::Zeroable;

use super::super::overlap::rows_are_read_first;
use super::*;
use crate::draft::chain::Chain;
use crate::format::{Tensor, Upsample};

/// Writes a result row by row, as a convolution does, and looks at what is gathered for it: a source row that is gathered after
/// bytes of it were written has lost its values.
fn loses_nothing(op: &Conv2d, from: &Tensor, to: &Tensor) -> bool {
    let bytes = |tensor: &Tensor, row: u64| {
        let start = u64::from(tensor.offset) + row * tensor.row_bytes();
        start..start + tensor.row_bytes()
    };
    let doubled = u64::from(from.rows) << op.doubling();
    let margin = u64::from(op.padding[0]);
    let mut gathered = 0;
    (0..u64::from(to.rows)).all(|y| {
        // Rows under the kernel, margins included.
        gathered = gathered.max(y * u64::from(op.stride) + u64::from(op.kernel[0]));
        let written = bytes(to, y);
        // All that follow are gathered some time; the rows behind the last kernel are taken for them.
        (gathered.saturating_sub(margin)..doubled)
            .map(|row| bytes(from, row >> op.doubling()))
            .all(|unread| written.end <= unread.start || unread.end <= written.start)
    })
}

/// For all small convolutions of maps in or near one place, the rule allows what loses nothing, and, where the result begins at or
/// before the source, nothing else.
#[test]
fn results_over_sources_lose_nothing() {
    let tensor = |rows: u16, channels: u16, offset: u32| Tensor {
        offset,
        rows,
        columns: 1,
        channels,
        element: Element::I8.code(),
        ..Tensor::zeroed()
    };
    let mut found = [0; 2];
    for kernel in 1..=4u8 {
        for (padding, stride, upsample) in (0..kernel).flat_map(|padding| {
            [(1, 0), (2, 0), (3, 0), (1, 1)].map(move |(stride, upsample)| (padding, stride, upsample))
        }) {
            let op = Conv2d { kernel: [kernel, 1], padding: [padding, 0], stride, upsample, ..Conv2d::zeroed() };
            assert_eq!(op.upsample() == Upsample::Nearest, upsample == 1);
            for (rows, results, channels) in (1..=4u16)
                .flat_map(|rows| (1..=5u16).flat_map(move |results| (1..=3u16).map(move |c| (rows, results, c))))
            {
                let from = tensor(rows, 2, 32);
                for offset in 20..40 {
                    let to = tensor(results, channels, offset);
                    let (allowed, loses_nothing) =
                        (rows_are_read_first(&op, &from, &to), loses_nothing(&op, &from, &to));
                    assert!(!allowed || loses_nothing, "{op:?} {from:?} {to:?}");
                    if offset <= from.offset {
                        assert_eq!(allowed, loses_nothing, "{op:?} {from:?} {to:?}");
                        found[usize::from(allowed)] += 1;
                    }
                }
            }
        }
    }
    assert!(found.iter().all(|&count| count > 1000), "{found:?}");
}

/// A result over what dies with its operation, but was no operand of it.
#[test]
fn what_is_no_operand_is_not_written_over() {
    // The map is read for the last time by the convolution before.
    let over_map = |d: &mut Draft, last: u16| {
        d.conv(ADD).residual = NONE;
        d.tensor(MAP).last = last;
        d.tensor(SUM).offset = d.tensors[usize::from(MAP)].offset;
    };
    bounds!(I8, Overlap, |d, v| over_map(d, v), [5, 6], [7]);
}

/// A result over the second source.
#[test]
fn second_sources_are_written_over() {
    let over_second = |d: &mut Draft, last: u16| {
        (d.conv(ADD).sources, d.conv(ADD).residual) = ([MAP, CONTEXT], NONE);
        (d.tensor(MAP).last, d.tensor(CONTEXT).last) = (7, last);
        d.resize(RINGS + 3, [1, 2, 8], Element::I8);
        d.conv(LAST).sources[1] = NONE;
        d.resize(RINGS + 4, [3, 4, 4], Element::I8);
        d.tensor(SUM).offset = d.tensors[usize::from(CONTEXT)].offset;
    };
    bounds!(I8, Overlap, |d, v| over_second(d, v), [7], [8]);
}

/// The first map of a chain.
const FIRST_MAP: u16 = 2;

/// A convolution of a pixel that is enlarged, over what is added to it, which has more rows than its source; in chunks too, each
/// of which reads the pixel again.
#[test]
fn residuals_are_written_over_whatever_the_source_is() {
    let enlarged = |shift: u32, is_streamed: bool| {
        let mut chain = Chain::new(I8, [2, 2, 12], 4);
        let conv = convolution(I8);
        chain.push([2, 2, 12], conv);
        chain.push([1, 1, 12], Conv2d { stride: 2, ..conv });
        let op = *chain.push([2, 2, 12], Conv2d { upsample: Upsample::Nearest.code(), residual: FIRST_MAP, ..conv });
        chain.push([2, 2, 12], conv);
        let mut draft = chain.draft;
        draft.tensor(FIRST_MAP).last = 2;
        if is_streamed {
            draft.stream(1);
        }
        draft.tensor(op.output).offset = draft.tensors[usize::from(FIRST_MAP)].offset + shift;
        draft
    };
    for is_streamed in [false, true] {
        accepted(enlarged(0, is_streamed), |_| ());
        refused(enlarged(16, is_streamed), Field::Overlap, |_| ());
    }
}

/// A chain of three whose second convolution writes over its source.
fn over_source(precision: Precision, shape: [u16; 3], second: impl FnOnce(&mut Conv2d)) -> Draft {
    let mut chain = Chain::new(precision, shape, 3);
    chain.push(shape, convolution(precision));
    second(chain.push(shape, convolution(precision)));
    chain.push(shape, convolution(precision));
    let mut draft = chain.draft;
    let result = draft.conv(1).output;
    draft.tensor(result).offset = draft.tensors[usize::from(FIRST_MAP)].offset;
    draft
}

/// Each chunk of streamed weights reads the whole source.
#[test]
fn sources_are_written_over_in_one_pass() {
    let streamed = |channels: u16| {
        let mut draft = over_source(I8, [1, 2, channels], |_| ());
        draft.stream(1);
        draft
    };
    accepted(over_source(I8, [1, 2, 9], |_| ()), |_| ());
    accepted(streamed(8), |_| ());
    refused(streamed(9), Field::Overlap, |_| ());
}

/// In single precision one tensor may be the source and the norm, or the source and the bias: these are read for every row.
#[test]
fn sources_that_are_read_again_are_not_written_over() {
    let apart = |mut draft: Draft| {
        let result = draft.conv(1).output;
        draft.tensor(result).offset = draft.header.arena_bytes;
        draft.header.arena_bytes += 16;
        draft
    };
    let norm = || over_source(F32, [1, 2, 2], |op| (op.gather, op.norm) = (Gather::Affine.code(), FIRST_MAP));
    let bias = || over_source(F32, [1, 1, 4], |op| (op.bias, op.bias_tensor) = (Bias::Tensor.code(), FIRST_MAP));
    for both in [norm(), bias()] {
        refused(both.clone(), Field::Overlap, |_| ());
        accepted(apart(both), |_| ());
    }
}
