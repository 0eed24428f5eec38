//! Whole runs of a small model in memory that nothing else may touch: what Miri and
//! AddressSanitizer watch.

extern crate std;

use std::vec::Vec;

use super::*;
use crate::draft::chain::Chain;
use crate::draft::{Draft, convolution};
#[cfg(feature = "thresholding")]
use crate::format::Threshold;
use crate::format::{Film, Precision};
#[cfg(feature = "learned-variance")]
use crate::format::{ORDER_BITS, Variance};
#[cfg(feature = "i4")]
use crate::format::{Op, WeightLayout};
use crate::{Guidance, Model};

/// A chain whose middle convolution has its weights in two chunks.
fn chunked(precision: Precision) -> Draft {
    let mut chain = Chain::new(precision, [1, 2, 1], 3);
    for outputs in [3, 12, 1] {
        chain.push([1, 2, outputs], convolution(precision));
    }
    chain.draft
}

/// The picture, with what lies behind the arena untouched.
fn draw(draft: &Draft, request: Request, fill: u8) -> Vec<u8> {
    draw_with(draft, request, fill, Resident)
}

/// The same with weights from elsewhere, which nobody has to wait for.
fn draw_with<W: WeightSource>(draft: &Draft, request: Request, fill: u8, weights: W) -> Vec<u8> {
    let file = draft.file();
    let model = Model::from_bytes(file.bytes()).expect("valid");
    let mut words = std::vec![u128::from_le_bytes([fill; 16]); model.arena_bytes() / 16 + 1];
    let mut session = Session::with_weights(&model, bytemuck::cast_slice_mut(&mut words), weights).expect("fits");
    session.observation().into_iter().for_each(|observation| match observation {
        SamplesMut::Fixed(values) => values.fill(1 << 18),
        SamplesMut::Float(values) => values.fill(0.25),
    });
    let mut run = session.sample(request).expect("valid");
    let slices = run.progress().slices;
    // A step may read a piece of weights besides.
    let (mut done, mut patience) = (0, if W::STREAMS { 1000 } else { 0 });
    while let Some(progress) = run.step().expect("a valid model") {
        if progress.slice == done {
            assert!(patience > 0, "a step did nothing");
            patience -= 1;
        } else {
            done += 1;
        }
        assert!(progress.slice == done && progress.slices == slices, "{progress:?}");
    }
    let picture = run.image().expect("complete").data().to_vec();
    assert_eq!(words.last(), Some(&u128::from_le_bytes([fill; 16])), "written behind the arena");
    picture
}

/// The same with operations done at once.
#[cfg(feature = "std")]
fn draw_at_once(draft: &Draft, request: Request, instructions: crate::Instructions) -> Vec<u8> {
    let file = draft.file();
    let model = Model::from_bytes(file.bytes()).expect("valid");
    let mut words = std::vec![0u128; model.arena_bytes() / 16];
    let mut accelerator = crate::Accelerator::with_instructions(&model, instructions);
    let session = Session::new(&model, bytemuck::cast_slice_mut(&mut words)).expect("fits");
    let mut session = session.accelerated(&mut accelerator);
    let mut run = session.sample(request).expect("valid");
    while run.step().expect("a valid model").is_some() {}
    run.image().expect("complete").data().to_vec()
}

#[test]
fn runs_depend_on_the_request_alone() {
    // The square root of the float precisions is inline assembly on x86, which Miri does not execute.
    let precisions = if cfg!(miri) { &[Precision::I8] } else { Precision::ALL };
    precisions.iter().for_each(|&precision| {
        depends_on_the_request_alone(&Draft::new(precision));
        let draft = Draft::pixels(precision);
        let picture = draw(&draft, Request::new().seed(5), 0xFF);
        // What follows shows nothing new to an interpreter.
        if cfg!(miri) {
            return;
        }
        assert_eq!(draw(&draft, Request::new().seed(5), 0x00), picture, "{precision:?}: the memory shows");
        assert_ne!(draw(&draft, Request::new().seed(6), 0x00), picture, "{precision:?}: the seed does not show");
        let mut learned = Draft::new(precision);
        (learned.attention().memory, learned.attention().memory_at) = (3, crate::draft::PARAMETERS);
        let element = learned.tensors[usize::from(crate::draft::SCORES)].element();
        learned.resize(crate::draft::SCORES, [1, 1, 7], element);
        depends_on_the_request_alone(&learned);
    });
}

#[cfg(feature = "classifier")]
#[test]
#[cfg_attr(miri, ignore = "it differs in safe code alone")]
fn runs_that_a_classifier_guides_do_too() {
    for &precision in Precision::ALL {
        let draft = Draft::classified(precision);
        let request = Request::new().class(0).seed(5).guidance(crate::Guidance::from_ratio(3, 1));
        let picture = draw(&draft, request, 0xFF);
        assert_eq!(draw(&draft, request, 0x00), picture, "{precision:?}: the memory shows");
        let without = draw(&draft, request.guidance_interval(0, 0), 0x00);
        assert_eq!(without, draw(&draft, request.guidance(crate::Guidance::NONE), 0x00));
    }
}

#[cfg(feature = "thresholding")]
#[test]
#[cfg_attr(miri, ignore = "it differs in safe code alone")]
fn runs_with_thresholds_do_too() {
    for &precision in Precision::ALL {
        let mut draft = Draft::new(precision);
        draft.threshold = Some(Threshold { rank: 2, weight: 1 << 23, limit: i32::MAX, reserved: [0; 4] });
        draft.fixed.iter_mut().for_each(|step| step.clip = i32::MAX);
        draft.float.iter_mut().for_each(|step| step.clip = f32::INFINITY);
        depends_on_the_request_alone(&draft);
    }
}

#[cfg(feature = "learned-variance")]
#[test]
#[cfg_attr(miri, ignore = "it differs in safe code alone")]
fn runs_with_learned_variances_do_too() {
    for &precision in Precision::ALL {
        let mut draft = Draft::new(precision);
        draft.learn_variance();
        // What the network says is far from 1 in the others.
        let orders = if precision == Precision::F32 { 3 << ORDER_BITS } else { 3 << (ORDER_BITS - 10) };
        draft.variances.fill(Variance { orders });
        depends_on_the_request_alone(&draft);
        let request = Request::new().class(1).seed(5);
        let picture = draw(&draft, request, 0x00);
        draft.variances.fill(Variance { orders: 0 });
        assert_ne!(draw(&draft, request, 0x00), picture, "{precision:?}: the variance does not show");
    }
}

#[cfg(feature = "i4")]
#[test]
#[cfg_attr(miri, ignore = "it differs in safe code alone")]
fn runs_with_four_bit_weights_do_too() {
    let mut draft = Draft::new(Precision::I8);
    for op in &mut draft.ops {
        if let Op::Conv2d(conv) = op {
            conv.layout = WeightLayout::Groups4.code();
        }
    }
    depends_on_the_request_alone(&draft);
}

fn depends_on_the_request_alone(draft: &Draft) {
    let precision = draft.header.precision();
    let request = Request::new().class(1).seed(5);
    let guided = request.guidance(Guidance::from_ratio(3, 1));
    let drawn = draw(draft, guided, 0xFF);
    // An interpreter takes long for the others; a run with guidance executes all that they do.
    if cfg!(miri) {
        return;
    }
    assert_eq!(draw(draft, guided, 0x00), drawn, "{precision:?}, with guidance");
    let picture = draw(draft, request, 0x00);
    assert_eq!(picture.len(), 4);
    assert_eq!(draw(draft, request, 0xFF), picture, "{precision:?}: the memory shows");
    assert_ne!(draw(draft, request.seed(6), 0x00), picture, "{precision:?}: the seed does not show");
    #[cfg(feature = "std")]
    for instructions in crate::Instructions::available() {
        assert_eq!(draw_at_once(draft, guided, instructions), drawn, "{precision:?}, {instructions:?}");
    }
}

/// Weights that pass through windows, for one chunk or for two, give the pictures of weights in the file; those of transposed
/// convolutions too, which have twice the channels of what they write.
#[test]
#[cfg_attr(miri, ignore = "it differs in safe code alone")]
fn runs_with_streamed_weights_draw_the_same() {
    for &precision in Precision::ALL {
        for (draft, request) in [
            (Draft::new as fn(_) -> _, Request::new().class(1).guidance(Guidance::from_ratio(3, 1))),
            (Draft::policy, Request::new()),
            (chunked, Request::new()),
        ] {
            let resident = draft(precision);
            let picture = draw(&resident, request.seed(5), 0x00);
            for buffers in [1, 2] {
                let mut streamed = draft(precision);
                let weights = streamed.stream(buffers);
                for fill in [0x00, 0xFF] {
                    let drawn = draw_with(&streamed, request.seed(5), fill, &weights[..]);
                    assert_eq!(drawn, picture, "{precision:?}, {buffers} chunks at once");
                }
            }
        }
    }
}

/// Validation does not look at the offset of biases that a step has none of; nor does a run.
#[test]
fn offsets_of_nothing_do_not_matter() {
    for &precision in if cfg!(miri) { &[Precision::I8] } else { Precision::ALL } {
        let mut draft = Draft::policy(precision);
        (draft.activate().film, draft.activate().observed) = (Film::None.code(), NONE);
        (draft.schedule.bias_bytes, draft.schedule.biases) = (0, u32::MAX);
        draw(&draft, Request::new(), 0x00);
    }
}
