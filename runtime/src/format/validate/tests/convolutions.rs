//! Convolutions and their parameters.

use super::*;

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
        [6, WeightLayout::Groups16.code(), 3, WeightLayout::Tiles4.code(), WeightLayout::Tiles2.code()]
    );
    bounds!(Precision::F16, Op, |d, v| d.conv(ADD).layout = v, [2], [0, 1, 3, 4, 5]);
    bounds!(F32, Op, |d, v| d.conv(ADD).layout = v, [3], [0, 1, 2, 4, 5]);
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
    refused(I8, Field::Op, |d| {
        let conv = d.conv(FIRST);
        (conv.stride, conv.kernel, conv.padding) = (5, [15, 15], [8, 8]);
        let width = conv.ring_width(2, 2) as u16;
        d.resize(RINGS, [15, width, 1], Element::I16);
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
    bounds!(
        I8,
        Op,
        |d, v| {
            patched(d, [1, 1, 8], Element::I32);
            d.conv(ADD).layout = v;
        },
        [WeightLayout::Rows8.code(), WeightLayout::Groups4.code()],
        [WeightLayout::Groups16.code(), WeightLayout::Groups32.code()]
    );
    bounds!(I8, Op, |d, v| d.conv(ADD).reserved_end[1] = v, [0], [1]);
}

/// The draft over maps of 4×8, whose sum is a 3×3 convolution by a row of tiles.
fn tiled(d: &mut Draft, tiling: Tiling) {
    let element = if tiling == Tiling::Four { Element::I8 } else { Element::I16 };
    for id in [SAMPLE, PREDICTION, UNCONDITIONAL, NEWER, OLDER] {
        d.resize(id, [4, 8, 1], Element::I32);
    }
    for id in [MAP, QUERY, CONTEXT, SUM] {
        d.resize(id, [4, 8, 4], Element::I8);
    }
    d.resize(KEY_VALUE, [4, 8, 8], Element::I8);
    d.resize(SCORES, [1, 1, 32], Element::I32);
    d.tensor(CONTEXT).offset = d.tensor(QUERY).offset;
    d.resize(RINGS, [3, 10, 1], Element::I16);
    for id in [RINGS + 1, RINGS + 2] {
        d.resize(id, [1, 8, 4], Element::I8);
    }
    d.resize(RINGS + 4, [3, 10, 8], Element::I8);
    let conv = d.conv(ADD);
    (conv.kernel, conv.padding, conv.tile_rows) = ([3, 3], [1, 1], 1);
    conv.ring_limit = tiling.ring_limit(4);
    let (rows, columns) = (conv.ring_rows() as u16, conv.tile_columns(8, 4) as u16);
    d.resize(RINGS + 3, [rows, 10, 4], element);
    d.conv(ADD).patches = d.add([1, columns, 4], Element::I32, [7, 7]);
}

#[test]
fn tiles() {
    for tiling in [Tiling::Four, Tiling::Two] {
        accepted(I8, |d| tiled(d, tiling));
        let tiles = OLDER + 1;
        for (row, column, channel) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
            refused(I8, Field::Operand, |d| {
                tiled(d, tiling);
                let Tensor { columns, channels, .. } = *d.tensor(tiles);
                d.resize(tiles, [1 + row, columns + column, channels + channel], Element::I32);
            });
        }
        refused(I8, Field::Op, |d| {
            tiled(d, tiling);
            d.tensors.pop();
            d.conv(ADD).patches = NONE;
        });
        // The other tiles' ring.
        refused(I8, Field::Op, |d| {
            tiled(d, tiling);
            let Tensor { rows, columns, channels, .. } = *d.tensor(RINGS + 3);
            let other = if tiling == Tiling::Four { Element::I16 } else { Element::I8 };
            d.resize(RINGS + 3, [rows, columns, channels], other);
        });
        refused(I8, Field::Op, |d| {
            tiled(d, tiling);
            d.conv(ADD).layout = WeightLayout::Groups4.code();
        });
        // Weights that are transformed: for these tiles, whose room they do not need, and for nothing else.
        let stored = |d: &mut Draft, layout: WeightLayout| {
            tiled(d, tiling);
            d.conv(ADD).layout = layout.code();
            let columns = d.conv(ADD).tile_columns(8, 4) as u16;
            d.resize(tiles, [1, columns, 4], Element::I32);
        };
        accepted(I8, |d| stored(d, tiling.layout()));
        let other = if tiling == Tiling::Four { WeightLayout::Tiles2 } else { WeightLayout::Tiles4 };
        refused(I8, Field::Op, |d| stored(d, other));
        refused(I8, Field::Operand, |d| {
            stored(d, tiling.layout());
            let Tensor { columns, channels, .. } = *d.tensor(tiles);
            d.resize(tiles, [1, columns + tiling.points() as u16, channels], Element::I32);
        });
        refused(I8, Field::Op, |d| d.conv(ADD).layout = tiling.layout().code());
    }
    // Limits are for tiles of two rows, and keep their sums exact.
    bounds!(
        I8,
        Op,
        |d, v| {
            tiled(d, Tiling::Two);
            d.conv(ADD).ring_limit = v;
        },
        [1, 8191],
        [8192, u16::MAX]
    );
    bounds!(I8, Op, |d, v| d.conv(ADD).ring_limit = v, [0], [1, 8191]);
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
    // Another vector of the length, whose elements only single precision adds.
    let vector = |d: &mut Draft| {
        d.tensor(CONDITIONING).last = 2;
        d.conv(FIRST).bias_tensor = CONDITIONING;
    };
    refused(I8, Field::Operand, vector);
    accepted(F32, vector);
    // A residual of one pixel has as many elements as a bias, which is another tensor.
    let with_both = |bias: usize| {
        let mut chain = chain::Chain::new(F32, [1, 1, 4], 5);
        for _ in 0..5 {
            chain.push([1, 1, 4], convolution(F32));
        }
        let mut draft = chain.draft;
        let [residual, bias_tensor] = [0, bias].map(|index| draft.conv(index).output);
        [residual, bias_tensor].into_iter().for_each(|id| draft.tensor(id).last = 3);
        let conv = draft.conv(3);
        (conv.residual, conv.bias, conv.bias_tensor) = (residual, Bias::Tensor.code(), bias_tensor);
        draft
    };
    accepted(with_both(1), |_| ());
    refused(with_both(0), Field::Operand, |_| ());
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
    let later = |d: &mut Draft, weights: u32| {
        streamed(d, 32, 64);
        d.conv(TO_KEY_VALUE).weights = weights;
    };
    bounds!(I8, Offset, |d, v| later(d, v), [16, 32], [8, 24, 48]);
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

/// Maps that are joined have as many rows and columns, though a convolution may leave out or add one at an end.
#[test]
fn joined_maps() {
    let joins = |axis: usize, length: u16| {
        let (mut shape, mut kernel, mut padding) = ([4, 4, 2], [1, 1], [0, 0]);
        (shape[axis], kernel[axis], padding[axis]) = (length, 3, 1);
        let mut chain = chain::Chain::new(I8, [4, 4, 2], 3);
        let conv = convolution(I8);
        let along = Conv2d { kernel, padding, ..conv };
        for (shape, op) in [([4, 4, 2], conv), (shape, along), ([4, 4, 2], along)] {
            chain.push(shape, op);
        }
        let mut draft = chain.draft;
        let first = draft.conv(0).output;
        draft.tensor(first).last = 2;
        draft.conv(2).sources[1] = first;
        for (op, channels, [from, to]) in [(1, 2, [4, shape[1]]), (2, 4, [shape[1], 4])] {
            let (ring, rows) = (draft.conv(op).scratch, draft.conv(op).ring_rows() as u16);
            let width = draft.conv(op).ring_width(from.into(), to.into()) as u16;
            draft.resize(ring, [rows, width, channels], Element::I8);
        }
        draft
    };
    for axis in [0, 1] {
        accepted(joins(axis, 4), |_| ());
        refused(joins(axis, 3), Field::Operand, |_| ());
        refused(joins(axis, 5), Field::Operand, |_| ());
    }
}

/// A factor and a summand for each channel that a convolution reads, in one row. The sample of one row and two channels is one, too.
#[test]
fn maps_of_channels() {
    let reads = |precision, sample: [u16; 3], channels: u16, norm: u16| {
        let [rows, columns, _] = sample;
        let mut chain = chain::Chain::new(precision, sample, 4);
        let conv = convolution(precision);
        chain.push([rows, columns, 2], conv);
        chain.push([rows, columns, channels], conv);
        let map = Conv2d { gather: Gather::Affine.code(), norm, affine_shift: 16, ..conv };
        chain.push([rows, columns, 1], map);
        chain.push(sample, conv);
        let first = chain.draft.conv(0).output;
        chain.draft.tensor(first).last = 2;
        chain.draft
    };
    for precision in [I8, F32] {
        accepted(reads(precision, [1, 4, 2], 4, 0), |_| ());
        for (sample, channels) in [([2, 4, 2], 4), ([1, 4, 2], 3), ([1, 5, 2], 4), ([1, 4, 1], 4), ([1, 4, 3], 4)] {
            refused(reads(precision, sample, channels, 0), Field::Operand, |_| ());
        }
    }
    // Of the shape, but with eight bits.
    let narrow = reads(I8, [1, 4, 2], 4, 0).conv(0).output;
    refused(reads(I8, [1, 4, 2], 4, narrow), Field::Operand, |_| ());
    let narrow = reads(F32, [1, 4, 2], 4, 0).conv(0).output;
    accepted(reads(F32, [1, 4, 2], 4, narrow), |_| ());
}
