//! Guidance in an interval of the steps, rescaled, and with a scale for each step, against what diffusers' guiders made in
//! `tests/goldens/guidance.py`.

use serde_json::Value;
use waft::format::Precision;
use waft::{Guidance, Model, Request, RequestError, Rescale, Session};
use waft_host::export::ExportOptions;
use waft_host::sample::{Batch, SampleError, arena, draw};
use waft_tests::{digits, exported, golden, model, psnr, relative_error};

const STEPS: u32 = 10;

fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(golden("guidance.json")).expect("golden");
    serde_json::from_str(&text).expect("JSON")
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

/// What the goldens start from, see `tests/goldens/original.py`.
fn latents() -> Vec<f32> {
    let number = |k: usize| (k as u64 * 2_654_435_761 % (1 << 32)) as f64 / 2f64.powi(31) - 1.0;
    (1000..1064).map(|i| (0..3).map(|k| number(3 * i + k)).sum::<f64>() as f32).collect()
}

fn batch(row: &Value) -> Batch {
    let scales: Vec<Guidance> = floats(&row["scales"]).into_iter().map(Guidance::from_f32).collect();
    let step = |name: &str| (row[name].as_f64().expect("a fraction") * f64::from(STEPS)) as u32;
    let rescale = Rescale::from_f32(row["rescale"].as_f64().expect("a share") as f32);
    let request = Request::new().class(7).guidance_interval(step("start"), step("stop")).guidance_rescale(rescale);
    Batch {
        request: if scales.len() == 1 { request.guidance(scales[0]) } else { request },
        guidance: if scales.len() > 1 { scales } else { vec![] },
        count: 1,
        latents: Some(latents()),
        ..Batch::default()
    }
}

fn digits_in(precision: Precision) -> waft_host::export::Export {
    let options =
        ExportOptions { precision, steps: vec![STEPS as usize], calibration_images: 8, ..ExportOptions::default() };
    exported(&digits(), &options)
}

#[test]
fn pictures_are_guided_as_diffusers_guides_them() {
    let export = digits_in(Precision::F32);
    for row in rows() {
        let drawn = draw(&model(&export.bytes), &batch(&row), &()).expect("draws");
        let error = relative_error(&drawn[0].sample, &floats(&row["sample"]));
        let what = format!("{} {} to {}, {}", row["scales"], row["start"], row["stop"], row["rescale"]);
        assert!(error <= 1e-3, "{what}: {error:e}");
    }
}

/// What rescaling and intervals do is the same in integers: the error is that of quantization, as without them.
#[test]
fn integers_are_guided_in_the_same_way() {
    let export = digits_in(Precision::I8);
    for row in rows() {
        let drawn = draw(&model(&export.bytes), &batch(&row), &()).expect("draws");
        let found = psnr(&drawn[0].sample, &floats(&row["sample"]));
        assert!(found > 24.0, "{} {}: {found:.1} dB", row["scales"], row["rescale"]);
    }
}

/// Network calls of a run.
fn calls(model: &Model<'_>, batch: &Batch) -> u32 {
    let mut memory = arena(model);
    let mut session = Session::new(model, memory.as_mut_slice()).expect("fits");
    let mut run = session.sample(batch.request).expect("valid");
    let mut calls = 0;
    loop {
        calls += u32::from(run.starts() == Some(0));
        let Some(progress) = run.step().expect("runs") else { break };
        assert!(progress.slice <= progress.slices, "{progress:?}");
    }
    assert_eq!(run.progress().slice, run.progress().slices, "what was announced is what was done");
    calls
}

/// Steps outside of the interval take one network call, as diffusers counts them; the number of slices is known beforehand.
#[test]
fn steps_that_are_not_guided_take_one_network_call() {
    for precision in [Precision::F32, Precision::I8] {
        let export = digits_in(precision);
        for row in rows().iter().filter(|row| row["scales"].as_array().expect("a list").len() == 1) {
            let calls = calls(&model(&export.bytes), &batch(row));
            assert_eq!(u64::from(calls), row["calls"].as_u64().expect("a count"), "{} {}", row["start"], row["stop"]);
        }
    }
}

#[test]
fn the_guidance_of_a_step_that_has_begun_stays() {
    let export = digits_in(Precision::I8);
    let model = model(&export.bytes);
    let draw_with = |scales: [Guidance; 2]| {
        let mut memory = arena(&model);
        let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
        let mut run = session.sample(Request::new().class(3).steps(STEPS).guidance(scales[0])).expect("valid");
        while run.starts() != Some(1) {
            run.step().expect("runs").expect("not at its end");
        }
        run.set_guidance(scales[1]).expect("has guidance");
        while run.step().expect("runs").is_some() {}
        assert_eq!(run.progress().slice, run.progress().slices);
        run.image().expect("complete").data().to_vec()
    };
    let steps = |first: f32, others: f32| -> Vec<u8> {
        let guidance = (0..STEPS).map(|step| Guidance::from_f32(if step == 0 { first } else { others })).collect();
        let request = Request::new().class(3);
        let batch = Batch { request, guidance, count: 1, ..Batch::default() };
        draw(&model, &batch, &()).expect("draws").remove(0).bytes
    };
    for (first, others) in [(1.0, 3.0), (3.0, 1.0), (2.0, 4.0)] {
        assert_eq!(draw_with([first, others].map(Guidance::from_f32)), steps(first, others), "{first} {others}");
    }
}

#[test]
fn guidance_that_cannot_be_is_refused() {
    let export = digits_in(Precision::I8);
    let several = Batch { guidance: vec![Guidance::NONE; 3], count: 1, ..batch(&rows()[0]) };
    let refused = draw(&model(&export.bytes), &several, &());
    assert!(matches!(refused, Err(SampleError::Guidance { found: 3, expected: STEPS })));
    let options = ExportOptions { precision: Precision::F32, guidance: Some(1.0), ..ExportOptions::default() };
    let without = exported(&digits(), &ExportOptions { steps: vec![STEPS as usize], ..options });
    let without = model(&without.bytes);
    let mut memory = arena(&without);
    let mut session = Session::new(&without, memory.as_mut_slice()).expect("fits");
    let mut run = session.sample(Request::new().class(3)).expect("valid");
    assert_eq!(run.set_guidance(Guidance::from_ratio(2, 1)), Err(RequestError::GuidanceUnavailable));
    assert_eq!(run.set_guidance(Guidance::NONE), Ok(()));
}
