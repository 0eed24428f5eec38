//! The measures of quality against well-known implementations, the judges against PyTorch, and the shipped models.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use waft::format::Precision;
use waft_host::calibrate::{Calibration, output_gains};
use waft_host::export::{ExportOptions, Ranges, Recipe, ResidualWidth, Rounding, Shortcuts, WeightWidth};
use waft_host::image::Canvas;
use waft_host::quality::judge::{Judge, pixel_features};
use waft_host::quality::metrics::{
    Estimate, Features, Gaussian, frechet, inception_score, median, psnr, ssim, within_manifold,
};
use waft_host::quality::{Options, QualityError, measure, report};
use waft_host::sample::{Batch, Picture, draw};
use waft_host::schedule::Solver;
use waft_host::tensors::{self, Tensors};
use waft_tests::{digits, exported, golden, model, root};

fn goldens() -> Tensors {
    tensors::read(&golden("metrics.safetensors")).expect("the repository holds it")
}

fn close(found: f64, expected: f32, tolerance: f64) {
    let expected = f64::from(expected);
    assert!((found - expected).abs() <= tolerance * expected.abs(), "{found}, expected {expected}");
}

fn one(file: &Tensors, name: &str) -> f32 {
    file.f32(name).expect("present").1[0]
}

/// Doubles, stored as two singles each.
fn doubles(file: &Tensors, name: &str) -> (usize, Vec<f64>) {
    let (shape, high) = file.f32(name).expect("present");
    let (_, rest) = file.f32(&format!("{name}.rest")).expect("present");
    (shape[1], high.iter().zip(rest).map(|(&a, b)| f64::from(a) + f64::from(b)).collect())
}

fn features(file: &Tensors, name: &str) -> Features {
    let (dim, values) = doubles(file, name);
    Features { dim, values }
}

#[test]
fn distances_scores_and_manifolds_are_those_of_known_implementations() {
    let file = goldens();
    let (real, fake) = (features(&file, "real"), features(&file, "fake"));
    let fit = |features: &Features| Gaussian::fit(features, 0..features.len());
    close(frechet(&fit(&fake), &fit(&real)), one(&file, "fid"), 1e-6);
    assert!(frechet(&fit(&real), &fit(&real)).abs() < 1e-9);

    let (classes, logits) = doubles(&file, "logits");
    let probabilities: Vec<Vec<f64>> = logits
        .chunks_exact(classes)
        .map(|row| {
            let sum: f64 = row.iter().map(|v| v.exp()).sum();
            row.iter().map(|v| v.exp() / sum).collect()
        })
        .collect();
    let all: Vec<usize> = (0..probabilities.len()).collect();
    close(inception_score(&probabilities, &all), one(&file, "inception_score"), 1e-6);

    let share = |flags: Vec<bool>| flags.iter().filter(|&&flag| flag).count() as f64 / flags.len() as f64;
    close(share(within_manifold(&fake, &real, 3)), one(&file, "precision"), 1e-6);
    close(share(within_manifold(&real, &fake, 3)), one(&file, "recall"), 1e-6);
}

#[test]
fn similarity_is_that_of_a_known_implementation() {
    let file = goldens();
    for (clean, noisy, expected) in [("pictures", "noisy", "ssim"), ("tiny", "tiny_noisy", "ssim_tiny")] {
        let (shape, clean) = file.f32(clean).expect("present");
        let (_, noisy) = file.f32(noisy).expect("present");
        let (_, expected) = file.f32(expected).expect("present");
        let shape = [shape[1], shape[2], shape[3]];
        let len = shape.iter().product();
        for ((a, b), expected) in clean.chunks_exact(len).zip(noisy.chunks_exact(len)).zip(expected) {
            close(ssim(a, b, shape), expected, 1e-5);
            assert!((ssim(a, a, shape) - 1.0).abs() < 1e-12);
        }
    }
    close(psnr(&[0.0, 0.5], &[0.2, 0.5]), 23.0103, 1e-6);
    assert!((median(&[5.0, 1.0, 9.0, 3.0], &[0, 1, 2, 3]) - 4.0).abs() < 1e-12);
}

#[test]
fn bootstrap_intervals_have_the_width_of_the_mean() {
    // The standard error of the mean of 0 … 999 is 288.7 / √1000, a 95 % interval is 3.92 of them.
    let mean = |pick: &[usize]| pick.iter().sum::<usize>() as f64 / pick.len() as f64;
    let Estimate { value, interval: [low, high] } = Estimate::bootstrap(1000, mean);
    assert!((value - 499.5).abs() < 1e-9 && low < value && value < high);
    assert!(((high - low) / 35.8 - 1.0).abs() < 0.2, "{low} to {high}");
    assert_eq!(Estimate::share(&[true; 50]).interval, [1.0, 1.0]);
}

#[test]
fn judges_say_what_torch_says() {
    for (model, shape) in [("digits", [8, 8, 1]), ("emoji", [32, 32, 3])] {
        let path = root().join("models").join(model).join("judge.safetensors");
        let judge = Judge::read(&path, shape).expect("fits");
        let file = tensors::read(&path).expect("the repository holds it");
        let images = file.bytes("probe.images").expect("present");
        let (_, features) = file.f32("probe.features").expect("present");
        let (_, logits) = file.f32("probe.logits").expect("present");
        let pictures: Vec<&[u8]> = images.chunks_exact(shape.iter().product()).collect();
        assert_eq!(pictures.len(), 16);
        for (index, picture) in pictures.iter().enumerate() {
            let found = judge.judge(picture, shape);
            let expected = (&features[index * 64..][..64], &logits[index * judge.classes()..][..judge.classes()]);
            assert!(waft_tests::relative_error(&found.0, expected.0) < 1e-4);
            assert!(waft_tests::relative_error(&found.1, expected.1) < 1e-4);
        }
        assert!(Judge::read(&path, [shape[0], shape[1], shape[2] + 1]).is_err(), "pictures of another shape");
    }
}

/// The shipped digits files within the figures of `BENCHMARKS.md`.
#[test]
fn quantized_digits_are_as_good() {
    let options = Options { count: Some(1000), seed: 20_000, ..Options::default() };
    let quality = measure("digits", &options, None, &()).expect("measures");
    let accuracy = |figures: &waft_host::quality::Figures| figures.class_accuracy.expect("there is a judge").value;
    let of = |name: &str| &quality.files.iter().find(|(figures, _)| figures.name == name).expect("shipped").0;
    for (name, psnr, points, distance) in [
        ("digits-i8.waft", 47.0, 0.005, 1.05),
        ("digits-i4.waft", 28.0, 0.01, 1.5),
        ("digits-f16.waft", 70.0, 0.002, 1.01),
    ] {
        let found = of(name);
        let ratio = found.psnr_median_db.expect("compared").value;
        println!("{name}: {ratio:.2} dB, accuracy {}, distance {:?}", accuracy(found), found.fid_above_f32);
        assert!(ratio >= psnr, "{name}: {ratio:.2} dB");
        assert!((accuracy(found) - accuracy(&quality.reference)).abs() <= points, "{name}");
        assert!(found.fid.value <= distance * quality.reference.fid.value, "{name}");
    }
    let [low, high] = of("digits-i8.waft").fid_above_f32.interval;
    assert!(low <= 0.0 && 0.0 <= high, "{low} to {high}");
    assert!(of("digits-i4.waft").flash_bytes * 3 < of("digits-i8.waft").flash_bytes * 2 + 2000);
    let page = report::html(&quality, "digits <script>").expect("encodes");
    assert!(page.contains("data:image/png;base64,") && !page.contains("<script>"));
}

/// Median PSNR of 200 digits in 10 steps against single precision.
fn decibels(options: &ExportOptions) -> f64 {
    static REFERENCE: OnceLock<Vec<Picture>> = OnceLock::new();
    let pictures = |options: &ExportOptions| {
        let export = exported(&digits(), &ExportOptions { steps: vec![10], ..options.clone() });
        let classes = (0..200).map(|image| image % 10).collect();
        draw(&model(&export.bytes), &Batch { classes, count: 200, ..Batch::default() }, &()).expect("draws")
    };
    let reference =
        REFERENCE.get_or_init(|| pictures(&ExportOptions { precision: Precision::F32, ..ExportOptions::default() }));
    let found = pictures(options);
    let each: Vec<f64> = found.iter().zip(reference).map(|(a, b)| waft_tests::psnr(&a.sample, &b.sample)).collect();
    median(&each, &(0..each.len()).collect::<Vec<_>>())
}

#[test]
fn rounding_by_results_beats_the_nearest() {
    let measured = |weights, rounding| {
        let recipe = Recipe { rounding, bias_correction: rounding == Rounding::Gptq, ..Recipe::default() };
        decibels(&ExportOptions { weights, recipe, ..ExportOptions::default() })
    };
    for (weights, gain) in [(WeightWidth::Eight, 1.0), (WeightWidth::Four, 4.0)] {
        let (nearest, gptq) = (measured(weights, Rounding::Nearest), measured(weights, Rounding::Gptq));
        println!("{weights:?}: nearest {nearest:.2} dB, gptq {gptq:.2} dB");
        assert!(gptq >= nearest + gain, "{weights:?}: {nearest:.2} dB became {gptq:.2}");
    }
}

/// The gains that `BENCHMARKS.md` names, with room for a smaller count.
#[test]
fn options_of_the_exporter_buy_what_is_said() {
    let with = |weights, change: &dyn Fn(&mut ExportOptions)| {
        let mut options = ExportOptions { weights, ..ExportOptions::default() };
        change(&mut options);
        decibels(&options)
    };
    let [eight, four] = [WeightWidth::Eight, WeightWidth::Four].map(|weights| with(weights, &|_| ()));
    let joint = with(WeightWidth::Eight, &|options| options.recipe.shortcuts = Shortcuts::Joint);
    let narrow = with(WeightWidth::Eight, &|options| options.residual = ResidualWidth::Narrow);
    let biased = with(WeightWidth::Four, &|options| options.recipe.bias_correction = false);
    let corrected = with(WeightWidth::Four, &|options| options.output_correction = true);
    println!("i8 {eight:.2} dB, joint {joint:.2}, narrow {narrow:.2}");
    println!("i4 {four:.2} dB, without bias correction {biased:.2}, with output correction {corrected:.2}");
    assert!(eight >= joint + 1.0 && eight >= narrow + 4.0);
    assert!(four >= biased && (corrected - four).abs() <= 0.5);
    for ranges in [Ranges::MinMax, Ranges::Percentile] {
        let other = with(WeightWidth::Eight, &|options| options.recipe.ranges = ranges);
        assert!((other - eight).abs() <= 0.5, "{ranges:?}: {other:.2} dB");
    }
}

/// A model needs no correction towards itself, and a quantized one a small one.
#[test]
fn output_gains_are_those_of_least_squares() {
    let export = |precision| {
        let weights = WeightWidth::Four;
        exported(&digits(), &ExportOptions { precision, weights, steps: vec![3], ..ExportOptions::default() })
    };
    let (reference, quantized) = (export(Precision::F32), export(Precision::I8));
    let [reference, quantized] = [&reference, &quantized].map(|export| model(&export.bytes));
    let how = Calibration {
        images: 2,
        steps: vec![3],
        classes: 11,
        guidance: None,
        by_step: false,
        conditions: Default::default(),
    };
    let gains = |other| output_gains(&reference, other, &how, &()).concat();
    assert_eq!(gains(&reference), [1.0; 3]);
    let found = gains(&quantized);
    assert!(found.iter().all(|gain| (gain - 1.0).abs() < 0.1 && *gain != 1.0), "{found:?}");
}

/// Pictures of other timesteps or of another sampler than the checkpoint's are not compared with its own; those of timesteps that
/// its `waft.json` names are.
#[test]
fn pictures_are_compared_at_the_same_timesteps() {
    let folder = tempfile::tempdir().expect("a folder");
    let (checkpoint, model) = (folder.path().join("checkpoint"), folder.path().join("three.waft"));
    copy_digits(&checkpoint);
    let options = ExportOptions { timesteps: vec![vec![900, 500, 100]], ..ExportOptions::default() };
    std::fs::write(&model, exported(&checkpoint, &options).bytes.as_slice()).expect("writes");
    let judge = Some(digits().with_file_name("judge.safetensors"));
    let options = Options { judge, count: Some(64), ..Options::default() };
    let refused = measure(&model, &options, None, &()).expect_err("other timesteps").to_string();
    assert!(refused.contains("at timesteps [900, 500, 100], its checkpoint at [685, 352, 19]"), "{refused}");
    let text = r#"{"timesteps": [[900, 500, 100]], "unconditional_class": 10, "use_clipped_model_output": true}"#;
    std::fs::write(checkpoint.join("waft.json"), text).expect("writes");
    let figures = measure(&model, &options, None, &()).expect("measures");
    let ratio = figures.files[0].0.psnr_median_db.expect("compared").value;
    assert!(ratio > 35.0, "{ratio:.1} dB");
    let other = ExportOptions { timesteps: vec![vec![900, 500, 100]], eta: 0.5, ..ExportOptions::default() };
    std::fs::write(&model, exported(&checkpoint, &other).bytes.as_slice()).expect("writes");
    let refused = measure(&model, &options, None, &()).expect_err("another sampler").to_string();
    assert!(refused.contains("another sampler than its checkpoint"), "{refused}");
    // Sampler and timesteps that the checkpoint does not name.
    let timesteps = vec![900, 680, 460, 240, 60];
    let solver = Some(Solver::DpmSolver);
    let other = ExportOptions { timesteps: vec![timesteps.clone()], solver, ..ExportOptions::default() };
    std::fs::write(&model, exported(&checkpoint, &other).bytes.as_slice()).expect("writes");
    let given = Options { timesteps, solver, ..options.clone() };
    let five = measure(&model, &given, None, &()).expect("measures").files[0].0.psnr_median_db.expect("compared").value;
    assert!(five > 35.0, "{five:.1} dB");
    // Heun's three steps are five network calls, named by their timesteps, as a count, or not at all.
    let timesteps = vec![900, 500, 100];
    let solver = Some(Solver::Heun);
    let other = ExportOptions { timesteps: vec![timesteps.clone()], solver, ..ExportOptions::default() };
    std::fs::write(&model, exported(&checkpoint, &other).bytes.as_slice()).expect("writes");
    for (timesteps, steps) in [(timesteps, None), (vec![], Some(5)), (vec![], None)] {
        let given = Options { timesteps, steps, solver, ..options.clone() };
        let found = measure(&model, &given, None, &()).expect("measures");
        assert_eq!(found.steps, 5);
        let ratio = found.files[0].0.psnr_median_db.expect("compared").value;
        assert!(ratio > 35.0, "{ratio:.1} dB");
    }
}

/// Neither are those of steps that differ in their clip alone, or in their thresholds.
#[test]
fn pictures_are_compared_at_the_same_clip() {
    let folder = tempfile::tempdir().expect("a folder");
    let (checkpoint, model) = (folder.path().join("checkpoint"), folder.path().join("one.waft"));
    copy_digits(&checkpoint);
    let options = ExportOptions { steps: vec![2], ..ExportOptions::default() };
    std::fs::write(&model, exported(&checkpoint, &options).bytes.as_slice()).expect("writes");
    let judge = Some(digits().with_file_name("judge.safetensors"));
    let options = Options { judge, count: Some(16), ..Options::default() };
    measure(&model, &options, None, &()).expect("the same");
    let scheduler = checkpoint.join("scheduler_config.json");
    let text = std::fs::read_to_string(&scheduler).expect("reads");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    // A threshold of at most 1 would be the clip that the checkpoint has.
    config["sample_max_value"] = 1.5.into();
    for (field, value) in [("clip_sample_range", serde_json::json!(2.0)), ("thresholding", serde_json::json!(true))] {
        let mut changed = config.clone();
        changed[field] = value;
        std::fs::write(&scheduler, changed.to_string()).expect("writes");
        let found = measure(&model, &options, None, &()).map(|_| ());
        let refused = found.expect_err(field).to_string();
        assert!(refused.contains("another sampler than its checkpoint"), "{refused}");
    }
}

/// A copy of the shipped checkpoint, to be changed.
fn copy_digits(to: &Path) {
    std::fs::create_dir(to).expect("creates");
    for entry in std::fs::read_dir(digits()).expect("lists") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copies");
    }
}

#[test]
fn real_pictures_come_from_a_folder_of_their_shape() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: String| -> PathBuf { folder.path().join(name) };
    let model = root().join("models").join("digits").join("digits-i8.waft");
    let options = Options { real: Some(folder.path().into()), count: Some(16), ..Options::default() };
    let found = |options: &Options| measure(&model, options, None, &());
    assert!(matches!(found(&options), Err(QualityError::Image { .. })), "an empty folder");
    for index in 0..9u8 {
        let file = std::fs::File::create(path(format!("{index}.png"))).expect("creates");
        let mut encoder = png::Encoder::new(file, 8, 8);
        encoder.set_color(png::ColorType::Grayscale);
        let pixels: Vec<u8> = (0..64).map(|at| at * (index + 1)).collect();
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels)).expect("encodes");
    }
    assert_eq!(found(&options).expect("measures").count, 16);
    Canvas::grid([[0u8; 64].as_slice()], [8, 8, 1], 1).write_png(&path("z.png".into())).expect("writes");
    assert!(matches!(found(&options), Err(QualityError::Image { .. })), "a picture of another size");

    let means = pixel_features(&[&[0, 255, 255, 255], &[255; 4]], [2, 2, 1]);
    assert_eq!((means.dim, means.values[..5].to_vec()), (4, vec![-1.0, 1.0, 1.0, 1.0, 1.0]));
}

#[test]
fn budgets_are_kept_and_used() {
    let export = |budget_flash, budget_ram| {
        let options = ExportOptions {
            budget_flash,
            budget_ram,
            steps: vec![10],
            calibration_images: 8,
            ..ExportOptions::default()
        };
        let checkpoint = waft_host::checkpoint::Checkpoint::open(digits()).expect("opens");
        waft_host::export::export(&checkpoint, &options, &())
    };
    let bits = |export: &waft_host::export::Export| {
        let model = waft_tests::model(&export.bytes);
        let convolutions = (0..model.ops()).filter_map(|index| match model.op(index) {
            Some(waft::format::Op::Conv2d(op)) => Some(op.layout() == waft::format::WeightLayout::Groups4),
            _ => None,
        });
        convolutions.collect::<Vec<_>>()
    };
    let free = export(None, None).expect("exports");
    assert!(bits(&free).iter().all(|four| !four));
    let whole = free.report.flash_bytes;
    for budget in [whole, whole - 1, whole - 40_000] {
        let export = export(Some(budget), None).expect("exports");
        let (found, four) = (export.report.flash_bytes, bits(&export));
        assert!(found <= budget && found + 6_000 > budget, "{found} of {budget}");
        assert_eq!(four.contains(&true), budget < whole);
        assert!(!four[0] && !four[four.len() - 1], "the first and the last convolution keep eight bits");
    }
    assert!(export(Some(whole / 3), None).is_err());

    let narrow = export(None, Some(free.report.arena_bytes - 2_000)).expect("exports");
    assert!(narrow.report.arena_bytes <= free.report.arena_bytes - 2_000);
    assert!(narrow.report.arena_lower_bound_bytes < free.report.arena_lower_bound_bytes);
    assert!(export(None, Some(4_000)).is_err());
}
