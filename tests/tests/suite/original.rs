//! Pictures to start from: image-to-image and inpainting against diffusers, what `tests/goldens/original.py` wrote.

use serde_json::Value;
use waft::format::Precision;
use waft::{Noise, Original, Request, RequestError, Session};
use waft_host::checkpoint::{Checkpoint, Options};
use waft_host::export::{Export, ExportOptions, export};
use waft_host::fixed::{to_fixed, to_floats};
use waft_host::sample::{Batch, Source, arena, draw, first_step, leads_to_noise};
use waft_host::schedule::Solver;
use waft_tests::{digits, golden, model, psnr, relative_error};

const LEN: usize = 64;

/// The k-th of the sequence that the goldens were made from.
fn number(k: usize) -> f64 {
    (k as u64 * 2_654_435_761 % (1 << 32)) as f64 / 2f64.powi(31) - 1.0
}

fn gaussian(start: usize, len: usize) -> Vec<f32> {
    let sum = |i: usize| (0..3).map(|k| number(3 * (start + i) + k)).sum::<f64>() as f32;
    (0..len).map(sum).collect()
}

fn rows() -> Vec<Value> {
    let text = std::fs::read_to_string(golden("original.json")).expect("golden");
    serde_json::from_str(&text).expect("JSON")
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_array().map(|list| list.iter().map(|byte| byte.as_u64().expect("a byte") as u8).collect())
}

/// The digits with the scheduler of a row.
fn exported(row: &Value, precision: Precision) -> Export {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("scheduler_config.json");
    std::fs::write(&config, row["config"].as_str().expect("text")).expect("writes");
    let options = Options { scheduler_config: Some(config), ..Default::default() };
    let checkpoint = Checkpoint::open_with(digits(), &options).expect("opens");
    let steps = vec![row["steps"].as_u64().expect("a count") as usize];
    let is_ddim = row["config"].as_str().expect("text").contains("DDIM");
    let options = ExportOptions {
        precision,
        steps,
        calibration_images: 4,
        // The digits' own default is diffusers' opposite.
        use_clipped_model_output: is_ddim.then_some(false),
        ..Default::default()
    };
    export(&checkpoint, &options, &()).expect("exports")
}

fn batch(row: &Value) -> Batch {
    let (first, calls) = (row["first"].as_u64().expect("a step"), row["calls"].as_u64().expect("a count") as usize);
    Batch {
        request: Request::new().class(7).start(first as u32),
        count: 1,
        latents: Some(gaussian(1000, LEN)),
        noise: Some(gaussian(2000, LEN * calls)),
        original: Some(Source {
            image: bytes(&row["image"]).expect("a picture"),
            mask: bytes(&row["mask"]),
            ..Source::default()
        }),
        ..Batch::default()
    }
}

#[test]
fn pictures_are_redrawn_as_diffusers_does() {
    for row in rows() {
        let expected: Vec<f32> =
            row["sample"].as_array().expect("a list").iter().map(|v| v.as_f64().expect("real") as f32).collect();
        let name = format!("{} {} {} {}", row["config"], row["steps"], row["strength"], row["mask"].is_array());
        let export = exported(&row, Precision::F32);
        let model = model(&export.bytes);
        let schedule = model.schedule(0).expect("a list");
        let strength = row["strength"].as_f64().expect("a number");
        assert_eq!(first_step(&model, &schedule, strength).map(u64::from), row["first"].as_u64(), "{name}");
        let drawn = draw(&model, &batch(&row), &()).expect("draws");
        let error = relative_error(&drawn[0].sample, &expected);
        assert!(error <= 1e-3, "{name}: {error:e}");
    }
}

#[test]
fn integers_redraw_what_floats_do_and_keep_bytes_exactly() {
    let mut seen = vec![];
    for row in rows().iter().filter(|row| row["config"].as_str().expect("text").contains("squaredcos")) {
        let exports = [Precision::F32, Precision::I8].map(|precision| exported(row, precision));
        let [float, fixed] = exports.each_ref().map(|export| {
            let mut batch = batch(row);
            batch.count = 1;
            draw(&model(&export.bytes), &batch, &()).expect("draws").remove(0)
        });
        seen.push(psnr(&fixed.sample, &float.sample));
        if let Some(mask) = bytes(&row["mask"]) {
            let image = bytes(&row["image"]).expect("a picture");
            for (index, &drawn) in fixed.bytes.iter().enumerate().filter(|&(index, _)| mask[index] < 128) {
                assert_eq!(drawn, image[index], "element {index}");
            }
            assert_ne!(fixed.bytes, image);
        }
    }
    seen.sort_by(f64::total_cmp);
    assert!(seen[seen.len() / 2] > 25.0, "{seen:?}");
}

#[test]
fn what_a_model_cannot_start_from_is_refused() {
    let rows = rows();
    let row = rows.iter().find(|row| row["steps"] == 10).expect("one");
    let ddim = exported(row, Precision::I8);
    let model = model(&ddim.bytes);
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    let (image, mask) = ([0u8; LEN], [255u8; LEN]);
    let request = Request::new().class(1);
    let mut refusal = |request, original: Option<Original<'_>>| match original {
        Some(original) => session.sample_from(request, original).err(),
        None => session.sample(request).err(),
    };
    assert_eq!(refusal(request.start(1), None), Some(RequestError::StartNeedsOriginal));
    let whole = Original::new(&image);
    assert_eq!(refusal(request.start(10), Some(whole)), Some(RequestError::Start { asked: 10, steps: 10 }));
    let size = |found| Some(RequestError::OriginalSize { found, expected: [LEN, LEN] });
    assert_eq!(refusal(request, Some(Original::new(&image[1..]))), size([LEN - 1, LEN]));
    assert_eq!(refusal(request, Some(whole.mask(&mask[2..]))), size([LEN, LEN - 2]));
    assert_eq!(refusal(request.start(9), Some(whole.mask(&mask))), None);

    // Two clean samples back, and levels that are not there.
    let checkpoint = Checkpoint::open(digits()).expect("opens");
    let options =
        ExportOptions { precision: Precision::F32, steps: vec![6], solver: Some(Solver::UniPc), ..Default::default() };
    let looking_back = export(&checkpoint, &options, &()).expect("exports");
    let model = waft_tests::model(&looking_back.bytes);
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    assert!(session.sample_from(request, whole).is_ok());
    let refused = session.sample_from(request.start(2), whole).err();
    assert_eq!(refused, Some(RequestError::StartLooksBack));
}

/// The goldens' noise: the initial one, and that of the ways back.
struct Ways {
    initial: Vec<i32>,
    ways: Vec<i32>,
}

impl Noise for Ways {
    fn sample(&mut self, draw: u32, index: u32) -> Option<i32> {
        match draw {
            0 => self.initial.get(index as usize).copied(),
            _ => self.ways.get((u32::MAX - draw) as usize * LEN + index as usize).copied(),
        }
    }
}

/// Numbers of the steps that were taken, and the sample at the end.
fn resampled(row: &Value, precision: Precision) -> (Vec<u64>, Vec<f32>) {
    let export = exported(row, precision);
    let model = model(&export.bytes);
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    let (image, mask) = (bytes(&row["image"]).expect("a picture"), bytes(&row["mask"]).expect("a mask"));
    let [jump, times] = [0, 1].map(|i| row["resample"][i].as_u64().expect("a count") as u32);
    let jumps = row["jumps"].as_u64().expect("a count") as usize;
    let noise = Ways { initial: to_fixed(&gaussian(1000, LEN)), ways: to_fixed(&gaussian(2000, LEN * jumps)) };
    let original = Original::new(&image).mask(&mask).resample(jump, times);
    let mut run = session.sample_from_with(Request::new().class(7), original, noise).expect("valid");
    let mut taken = vec![];
    let announced = run.progress();
    let mut next = run.next_step();
    loop {
        if run.starts() == Some(0) {
            taken.extend(next.map(u64::from));
        }
        if run.starts().is_none() {
            next = run.next_step();
        }
        let Some(progress) = run.step().expect("runs") else { break };
        assert_eq!((progress.steps, progress.slices), (announced.steps, announced.slices));
    }
    let done = run.progress();
    assert_eq!((done.step, done.slice), (done.steps, done.slices), "what was announced is what was done");
    assert_eq!(taken.len(), done.steps as usize);
    (taken, to_floats(run.sample()))
}

#[test]
fn parts_are_taken_again_as_repaint_does() {
    let text = std::fs::read_to_string(golden("resample.json")).expect("golden");
    let rows: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    for row in rows {
        let expected: Vec<f32> =
            row["sample"].as_array().expect("a list").iter().map(|v| v.as_f64().expect("real") as f32).collect();
        let (taken, sample) = resampled(&row, Precision::F32);
        let name = format!("{} {}", row["steps"], row["resample"]);
        assert_eq!(row["taken"], Value::from(taken), "{name}");
        let error = relative_error(&sample, &expected);
        assert!(error <= 1e-3, "{name}: {error:e}");
        let found = psnr(&resampled(&row, Precision::I8).1, &expected);
        assert!(found > 24.0, "{name}: {found:.1} dB");
    }
}

#[test]
fn resampling_that_cannot_be_is_refused() {
    let export = exported(&rows()[0], Precision::I8);
    let model = model(&export.bytes);
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    let image = [0u8; LEN];
    let original = Original::new(&image);
    let masked = original.mask(&image);
    for original in [original.resample(2, 2), masked.resample(0, 2), masked.resample(2, 0), masked.resample(2, 1001)] {
        let refused = session.sample_from(Request::new().class(7), original).map(drop);
        assert_eq!(refused, Err(RequestError::ResampleUnavailable));
    }
    // A sampler that looks back on earlier steps.
    let row =
        rows().into_iter().find(|row| row["config"].as_str().expect("text").contains("DPMSolver")).expect("there");
    let export = exported(&row, Precision::I8);
    let model = waft_tests::model(&export.bytes);
    let mut memory = arena(&model);
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    let refused = session.sample_from(Request::new().class(7), masked.resample(2, 2)).map(drop);
    assert_eq!(refused, Err(RequestError::ResampleUnavailable));
}

/// DDIM backwards gives the noise of a picture, from which DDIM draws it again.
#[test]
fn pictures_come_back_from_their_noise() {
    let lists = 50;
    let options = ExportOptions { precision: Precision::F32, steps: vec![lists], ..Default::default() };
    let backwards = ExportOptions { solver: Some(Solver::DdimInverse), ..options.clone() };
    let (forwards, backwards) =
        (waft_tests::exported(&digits(), &options), waft_tests::exported(&digits(), &backwards));
    let (forwards, backwards) = (model(&forwards.bytes), model(&backwards.bytes));
    assert!(leads_to_noise(&backwards, &backwards.schedule(0).expect("a list")));
    assert!(!leads_to_noise(&forwards, &forwards.schedule(0).expect("a list")));
    let drawn = Batch { request: Request::new().class(7), seed: 3, count: 1, ..Batch::default() };
    let picture = draw(&forwards, &drawn, &()).expect("draws").remove(0);
    let original = Some(Source { image: picture.bytes.clone(), ..Source::default() });
    let noise = draw(&backwards, &Batch { original, ..drawn.clone() }, &()).expect("draws").remove(0).sample;
    let again = Batch { latents: Some(noise), seed: 99, ..drawn };
    let again = draw(&forwards, &again, &()).expect("draws").remove(0);
    let found = psnr(&again.sample, &picture.sample);
    assert!(found > 20.0, "{found:.1} dB");
    let integers = ExportOptions { precision: Precision::I8, solver: Some(Solver::DdimInverse), ..Default::default() };
    let refused = export(&Checkpoint::open(digits()).expect("opens"), &integers, &());
    assert!(refused.expect_err("refused").to_string().contains("calibration"));
}

/// The noise of the pictures leads from one seed to the other.
#[test]
fn pictures_lead_from_one_seed_to_another() {
    let export = exported(&rows()[0], Precision::I8);
    let model = model(&export.bytes);
    let request = Request::new().class(7);
    let of = |batch: Batch| -> Vec<Vec<u8>> {
        draw(&model, &Batch { request, ..batch }, &())
            .expect("draws")
            .into_iter()
            .map(|picture| picture.bytes)
            .collect()
    };
    let way = of(Batch { seed: 5, to_seed: Some(1 << 40), count: 9, ..Batch::default() });
    let ends = [5, 1 << 40].map(|seed| of(Batch { seed, count: 1, ..Batch::default() }).remove(0));
    assert_eq!([&way[0], &way[8]], [&ends[0], &ends[1]]);
    let distance = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>();
    // Neighbours are nearer to each other than the ends are.
    let longest = way.windows(2).map(|pair| distance(&pair[0], &pair[1])).fold(0.0, f64::max);
    assert!(longest < distance(&ends[0], &ends[1]), "{longest}");
}
