//! Whole operations against slices, bit for bit, with every instruction set that this machine has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use waft::format::{Op, Precision};
use waft::{Accelerator, Instructions, Model, Request, Session, ThreadPool};
use waft_host::export::{ExportOptions, ResidualWidth, WeightWidth};
use waft_host::sample::arena;
use waft_host::shipped;
use waft_tests::{digits, exported, golden, model, small};

/// The result of every operation of a network call on the noise of a seed, and how many steps it took.
fn results(model: &Model<'_>, accelerator: Option<&mut Accelerator>) -> (Vec<Vec<u8>>, Vec<u32>) {
    let mut memory = arena(model);
    let session = Session::new(model, memory.as_mut_slice()).expect("fits");
    let mut session = match accelerator {
        Some(accelerator) => session.accelerated(accelerator),
        None => session,
    };
    let mut request = Request::new().seed(5);
    if model.classes() > 0 {
        request = request.class(1);
    }
    let mut run = session.sample(request).expect("valid");
    let (mut results, mut steps): (Vec<Vec<u8>>, Vec<u32>) = (vec![], vec![]);
    while run.progress().step == 0 {
        let at = run.operation();
        run.step().expect("runs");
        if let Some(op) = at.map(usize::from) {
            steps.resize(op + 1, 0);
            steps[op] += 1;
            if run.operation() != at {
                let output = model.op(op as u16).expect("exists").output();
                results.push(run.tensor_bytes(output).expect("exists").to_vec());
            }
        }
    }
    assert_eq!(results.len(), usize::from(model.ops()));
    (results, steps)
}

/// Threads that share everything that can be cut.
#[derive(Debug)]
struct Pool {
    threads: usize,
    /// How often something was cut.
    runs: AtomicUsize,
}

impl ThreadPool for Pool {
    fn threads(&self) -> usize {
        self.threads
    }

    fn worth(&self) -> usize {
        1
    }

    fn run(&self, tasks: &mut [&mut (dyn FnMut() + Send)]) {
        assert!((2..=self.threads).contains(&tasks.len()));
        self.runs.fetch_add(1, Ordering::Relaxed);
        thread::scope(|scope| {
            // Those behind first.
            for task in tasks.iter_mut().rev() {
                scope.spawn(task);
            }
        });
    }
}

/// Asserts that all instruction sets and numbers of threads give what slices give. `is_whole` says which operations have to be done at once.
fn assert_same(model: &Model<'_>, is_whole: impl Fn(&Op) -> bool) {
    let (expected, slices) = results(model, None);
    assert_eq!(slices.len(), usize::from(model.ops()));
    let alone = Instructions::available().map(|instructions| Accelerator::with_instructions(model, instructions));
    let pools = [1, 2, 3, 5].map(|threads| Arc::new(Pool { threads, runs: AtomicUsize::new(0) }));
    let together = pools.iter().map(|pool| Accelerator::new(model).with_threads(pool.clone()));
    let mut steps_at_once = vec![];
    for mut accelerator in alone.chain(together) {
        let (found, steps) = results(model, Some(&mut accelerator));
        let instructions = accelerator.instructions();
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let op = model.op(index as u16).expect("exists");
            assert!(found == expected, "operation {index} with {}: {op:?}", instructions.name());
            assert!(!is_whole(&op) || steps[index] == 1, "operation {index} took {} steps", steps[index]);
        }
        steps_at_once = steps;
    }
    // Convolutions that are done at once, of maps with rows enough for every tiling.
    let is_cut = (0..model.ops()).any(|index| match model.op(index) {
        Some(Op::Conv2d(op)) => {
            steps_at_once[usize::from(index)] == 1 && model.tensor(op.output).is_some_and(|map| map.rows > 2)
        }
        _ => false,
    });
    for pool in pools.iter().filter(|pool| is_cut && pool.threads > 1) {
        assert!(pool.runs.load(Ordering::Relaxed) > 0, "{} threads", pool.threads);
    }
}

/// Convolutions, normalizations and attentions.
fn all(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::Attention(_) | Op::GroupNorm(_))
}

fn options(precision: Precision) -> ExportOptions {
    ExportOptions { precision, steps: vec![3], calibration_images: 2, ..Default::default() }
}

#[test]
fn shipped_models_are_the_same() {
    for name in ["digits", "emoji"] {
        let bytes = shipped::find(name, None, None, &()).expect("ships");
        assert_same(&model(&bytes), all);
    }
}

#[test]
fn all_precisions_and_widths_are_the_same() {
    for precision in [Precision::I8, Precision::F16, Precision::F32] {
        assert_same(&model(&exported(&digits(), &options(precision)).bytes), all);
    }
    let widths = [(ResidualWidth::Narrow, WeightWidth::Eight), (ResidualWidth::Wide, WeightWidth::Four)];
    for (residual, weights) in widths {
        let options = ExportOptions { residual, weights, ..options(Precision::I8) };
        assert_same(&model(&exported(&digits(), &options).bytes), all);
    }
    for residual in [ResidualWidth::Narrow, ResidualWidth::Wide] {
        let options = ExportOptions { residual, budget_flash: Some(1 << 24), ..options(Precision::I8) };
        assert_same(&model(&exported(&digits(), &options).bytes), all);
    }
}

/// Joins that cut groups in two, heads, resampling by residual blocks, other activations and normalizations, odd sizes.
#[test]
fn networks_of_many_kinds_are_the_same() {
    for name in [
        "cifar_small",
        "heads",
        "resampling",
        "scale_shift",
        "improved_diffusion",
        "filtered",
        "class_channels",
        "unet1d_sound",
        "unet1d_trajectory",
    ] {
        for precision in [Precision::I8, Precision::F32] {
            let export = exported(&golden(name), &options(precision));
            let model = model(&export.bytes);
            assert_same(&model, all);
        }
    }
    assert_same(&model(&small::small_of_size(5, &ExportOptions::default())), all);
}

/// What has no whole operations, and an accelerator of another model, is done in slices.
#[test]
fn the_rest_is_done_in_slices() {
    let stepwise = small::small_stepwise();
    assert_same(&model(&stepwise), |_| false);
    let other = small::small();
    let (own, other) = (model(&stepwise), model(&other));
    let (expected, slices) = results(&own, None);
    let mut accelerator = Accelerator::new(&other);
    assert_eq!(results(&own, Some(&mut accelerator)), (expected, slices));
}

/// Progress counts all slices, whether they are done one by one or not.
#[test]
fn progress_is_complete() {
    let bytes = shipped::find("digits", None, None, &()).expect("ships");
    let model = model(&bytes);
    let (mut memory, mut accelerator) = (arena(&model), Accelerator::new(&model));
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits").accelerated(&mut accelerator);
    let mut run = session.sample(Request::new().class(2)).expect("valid");
    while run.step().expect("runs").is_some() {}
    let progress = run.progress();
    assert_eq!((progress.step, progress.slice), (progress.steps, progress.slices));
}
