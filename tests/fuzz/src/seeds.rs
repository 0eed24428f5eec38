//! Seeds of the target `model`: the core's models by hand, of one to 32 pixels and a few kilobytes, with each kind of operation,
//! each precision and each way to compute it, so that thousands are run to their end in a second.

use std::cell::RefCell;

use bytemuck::Zeroable;
use waft::format::{
    Conv2d, Element, Gather, Linear, Observe, Op, OpKind, Precision, Threshold, Tiling, Upsample, WeightLayout,
};

use crate::draft::chain::Chain;
use crate::draft::{
    BIAS, CONDITIONING, Draft, FIRST, LINEAR, MAP, NEWER, OLDER, PARAMETERS, SAMPLE, SUM, TO_QUERY, UNCONDITIONAL,
    convolution,
};

/// Each seed by name: a model, and the weights that it streams behind it.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let seeds = RefCell::new(vec![]);
    let add = |name: String, draft: Draft| seeds.borrow_mut().push((name, draft.file().bytes().to_vec()));
    let stream = |name: &str, mut draft: Draft, buffers: u64| {
        let weights = draft.stream(buffers);
        seeds.borrow_mut().push((name.into(), [draft.file().bytes(), &weights].concat()));
    };
    for &precision in Precision::ALL {
        let name = precision.name();
        let picture = || Draft::new(precision);
        add(format!("{name}-picture"), picture());
        add(format!("{name}-one-step"), with(plain(precision), |_| ()));
        add(format!("{name}-newer"), with(picture(), |draft| draft.keep_before(OLDER)));
        add(format!("{name}-guided"), with(picture(), |draft| draft.keep_before(NEWER)));
        add(format!("{name}-policy"), Draft::policy(precision));
        add(format!("{name}-pixels"), Draft::pixels(precision));
        add(format!("{name}-classified"), Draft::classified(precision));
        add(format!("{name}-rows"), Draft::rows(precision));
        add(format!("{name}-learned-keys"), with(plain(precision), learned_keys));
        add(format!("{name}-condition"), with(plain(precision), condition));
        add(format!("{name}-perceptron"), with(plain(precision), perceptron));
        add(format!("{name}-threshold"), with(plain(precision), threshold));
        add(format!("{name}-learned-variance"), with(plain(precision), Draft::learn_variance));
        add(format!("{name}-original"), with(plain(precision), original));
        let chunked = || chunked(precision, convolution(precision).layout());
        stream(&format!("{name}-streamed"), chunked(), 1);
        stream(&format!("{name}-read-ahead"), chunked(), 2);
        stream(&format!("{name}-streamed-picture"), plain(precision), 1);
        stream(&format!("{name}-streamed-policy"), Draft::policy(precision), 1);
        stream(&format!("{name}-streamed-classified"), Draft::classified(precision), 1);
        add(format!("{name}-levels"), levels(precision));
        add(format!("{name}-pixel"), pixel(precision));
        for gather in [Gather::Affine, Gather::AffineRelu, Gather::AffineGelu, Gather::AffineMish] {
            let of_gather = with(plain(precision), |draft| draft.conv(TO_QUERY).gather = gather.code());
            add(format!("{name}-{gather:?}"), of_gather);
        }
    }
    let plain = || plain(Precision::I8);
    add("i4".into(), with(plain(), four_bits));
    stream("i4-streamed", chunked(Precision::I8, WeightLayout::Groups4), 2);
    add("i8-patches".into(), with(plain(), patches));
    add("i8-step-scales".into(), with(plain(), step_scales));
    add("i8-wide".into(), with(plain(), wide));
    add("i8-tiles".into(), tiles(Tiling::Four));
    add("i8-tiles-of-two".into(), tiles(Tiling::Two));
    for tiling in [Tiling::Four, Tiling::Two] {
        add(format!("i8-{:?}", tiling.layout()), stored_tiles(tiling));
        stream(&format!("i8-{:?}-streamed", tiling.layout()), stored_tiles(tiling), 1);
    }
    seeds.into_inner()
}

fn with(mut draft: Draft, change: impl FnOnce(&mut Draft)) -> Draft {
    change(&mut draft);
    draft
}

/// The model of pictures in one step, without guidance.
fn plain(precision: Precision) -> Draft {
    with(Draft::new(precision), |draft| {
        draft.keep_before(UNCONDITIONAL);
        draft.schedule.steps = 1;
    })
}

/// The clean sample is bounded by a quantile of its four magnitudes.
fn threshold(draft: &mut Draft) {
    draft.threshold = Some(Threshold { rank: 2, weight: 1 << 23, limit: i32::MAX, reserved: [0; 4] });
}

/// A picture to start from, at the first step or the second.
fn original(draft: &mut Draft) {
    (draft.schedule.levels, draft.schedule.steps) = (PARAMETERS, 2);
}

/// A key and a value besides those of the pixels.
fn learned_keys(draft: &mut Draft) {
    let scores = draft.attention().scratch;
    let tensor = *draft.tensor(scores);
    draft.resize(scores, [tensor.rows, tensor.columns, tensor.channels + 1], tensor.element());
    (draft.attention().memory, draft.attention().memory_at) = (1, PARAMETERS);
}

/// The first convolution reads a condition beside the sample.
fn condition(draft: &mut Draft) {
    let sample = *draft.tensor(SAMPLE);
    draft.header.condition = draft.add([2, 2, 1], sample.element(), [sample.first, sample.last]);
    draft.conv(FIRST).sources[1] = draft.header.condition;
    let ring = draft.conv(FIRST).scratch;
    let element = draft.tensor(ring).element();
    draft.resize(ring, [3, 4, 2], element);
}

/// The sum of a step's and a class's rows passes two layers, as in EDM's networks.
fn perceptron(draft: &mut Draft) {
    for tensor in &mut draft.tensors {
        tensor.first += if tensor.first < 1 { 0 } else { 2 };
        tensor.last += if tensor.last < 2 { 0 } else { 2 };
    }
    let [hidden, observed] = [BIAS, CONDITIONING].map(|like| *draft.tensor(like));
    let hidden = draft.add([1, 1, 4], hidden.element(), [1, 2]);
    let observed = draft.add([1, 1, 4], observed.element(), [2, 3]);
    let second = Linear { source: observed, ..*draft.linear() };
    draft.linear().output = hidden;
    let activate = Observe {
        kind: OpKind::Observe.code(),
        source: hidden,
        output: observed,
        centers: PARAMETERS,
        gains: PARAMETERS,
        ..Observe::zeroed()
    };
    draft.ops.insert(LINEAR + 1, Op::Observe(activate));
    draft.ops.insert(LINEAR + 2, Op::Linear(second));
}

fn four_bits(draft: &mut Draft) {
    for op in &mut draft.ops {
        if let Op::Conv2d(conv) = op {
            conv.layout = WeightLayout::Groups4.code();
        }
    }
}

/// Every convolution is computed from patches.
fn patches(draft: &mut Draft) {
    for index in 0..draft.ops.len() {
        let Op::Conv2d(conv) = draft.ops[index] else { continue };
        let inputs = draft.tensor(conv.scratch).channels;
        let groups = conv.patch_groups(inputs.into()) as u16;
        draft.conv(index).patches = draft.add([1, groups, 8], Element::I32, [index as u16; 2]);
    }
}

fn step_scales(draft: &mut Draft) {
    (draft.conv(TO_QUERY).weight_sums, draft.conv(TO_QUERY).step_scales) = (PARAMETERS, 12);
    draft.schedule.bias_bytes = 32;
}

/// A stream of 16 bits, with the result in the residual's place.
fn wide(draft: &mut Draft) {
    draft.resize(MAP, [2, 2, 4], Element::I16);
    draft.resize(SUM, [2, 2, 4], Element::I16);
    draft.tensor(SUM).offset = draft.tensor(MAP).offset;
}

/// Maps are halved and doubled.
fn levels(precision: Precision) -> Draft {
    let mut chain = Chain::new(precision, [4, 4, 1], 3);
    let conv = Conv2d { kernel: [3, 3], padding: [1, 1], ..convolution(precision) };
    chain.push([2, 2, 3], Conv2d { stride: 2, ..conv });
    chain.push([4, 4, 2], Conv2d { upsample: Upsample::Nearest.code(), ..conv });
    chain.push([4, 4, 1], conv);
    chain.draft
}

/// One pixel of three channels.
fn pixel(precision: Precision) -> Draft {
    let mut chain = Chain::new(precision, [1, 1, 3], 2);
    chain.push([1, 1, 9], convolution(precision));
    chain.push([1, 1, 3], convolution(precision));
    chain.draft
}

/// Weights that come in two chunks, through a window for one or for both.
fn chunked(precision: Precision, layout: WeightLayout) -> Draft {
    let mut chain = Chain::new(precision, [1, 2, 1], 3);
    let conv = Conv2d { layout: layout.code(), ..convolution(precision) };
    for outputs in [3, 12, 1] {
        chain.push([1, 2, outputs], conv);
    }
    chain.draft
}

/// A convolution by tiles whose weights are transformed.
fn stored_tiles(tiling: Tiling) -> Draft {
    let mut draft = tiles(tiling);
    draft.conv(1).layout = tiling.layout().code();
    let (patches, columns) = (draft.conv(1).patches, draft.conv(1).tile_columns(8, 4) as u16);
    draft.resize(patches, [1, columns, 4], Element::I32);
    draft
}

/// A convolution by tiles, over a ring of their width.
fn tiles(tiling: Tiling) -> Draft {
    let mut chain = Chain::new(Precision::I8, [4, 8, 1], 3);
    let conv = Conv2d { kernel: [3, 3], padding: [1, 1], ..convolution(Precision::I8) };
    chain.push([4, 8, 4], conv);
    let tiled = *chain.push([4, 8, 4], Conv2d { tile_rows: 1, ring_limit: tiling.ring_limit(4), ..conv });
    let element = if tiled.ring_limit > 0 { Element::I16 } else { Element::I8 };
    chain.draft.resize(tiled.scratch, [tiled.ring_rows() as u16, 10, 4], element);
    let columns = tiled.tile_columns(8, 4) as u16;
    let patches = chain.draft.add([1, columns, 4], Element::I32, [1; 2]);
    chain.draft.conv(1).patches = patches;
    chain.push([4, 8, 1], conv);
    chain.draft
}
