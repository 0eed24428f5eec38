//! The GPU backend against the runtime. Without a GPU these tests are ignored, and the report says why.

use libtest_mimic::{Arguments, Failed, Trial};
use waft::format::Precision;
use waft::{Guidance, Model, Request};
use waft_host::export::ExportOptions;
use waft_host::gpu::cuda::Cuda;
use waft_host::parity::{images, ops};
use waft_host::sample::Batch;
use waft_tests::{digits, exported, golden, model};

/// Pictures that each model draws: a last block that is not full.
const PICTURES: u16 = 33;
const COUNT: usize = PICTURES as usize;

fn main() {
    let arguments = Arguments::from_args();
    let missing = Cuda::open(0).err();
    if let Some(error) = &missing {
        println!("skipped: {error}");
    }
    let mut trials = vec![];
    for checkpoint in [digits(), golden("cifar_small"), golden("heads"), golden("velocity")] {
        for precision in [Precision::I8, Precision::F16, Precision::F32] {
            let name = format!(
                "{}_{precision:?}",
                checkpoint.file_name().map_or("digits".into(), |name| name.to_string_lossy())
            );
            let checkpoint = checkpoint.clone();
            trials.push(Trial::test(name, move || {
                let options =
                    ExportOptions { precision, steps: vec![4], calibration_images: 4, ..ExportOptions::default() };
                let export = exported(&checkpoint, &options);
                check(&model(&export.bytes))
            }));
        }
    }
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(missing.is_some())).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn check(model: &Model<'_>) -> Result<(), Failed> {
    let mut device = Cuda::open(0)?;
    for op in ops(&mut device, model, &[], &())? {
        if let Some(first) = op.first {
            return Err(format!("{}: {} mismatches, the first: {first:?}", op.op, op.mismatches).into());
        }
    }
    let classes = (0..PICTURES).map(|i| i % model.classes().max(1)).take(if model.classes() > 0 { COUNT } else { 0 });
    let mut batch =
        Batch { request: Request::new(), seed: 3, classes: classes.collect(), count: COUNT, ..Batch::default() };
    let guided = model.has_guidance().then(|| Guidance::from_f32(2.0));
    for guidance in [Some(Guidance::NONE), guided].into_iter().flatten() {
        batch.request = batch.request.guidance(guidance);
        let found = images(&mut device, model, &batch, None, &())?;
        // A contracted sum of a float precision may change a picture that is near the edge of two.
        let most = if model.precision() == Precision::I8 { 0 } else { found.images / 20 };
        if found.different > most {
            return Err(format!("{found:?}").into());
        }
    }
    Ok(())
}
