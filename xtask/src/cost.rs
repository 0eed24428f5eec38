//! `cost`: what each kind of work takes on each core, fitted to the emulator's counts.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use rayon::prelude::*;
use waft::{Model, Precision};
use waft_host::checkpoint::Checkpoint;
use waft_host::cost::{self, Core, Parts, Work};
use waft_host::export::{ExportOptions, export};
use waft_host::sample::AlignedBytes;
use waft_host::shipped;

use crate::args::write_whole;
use crate::bench::kernels::networks;
use crate::bench::layers::LAYERS;
use crate::boards::{self, BOARDS, Board, Machine};
use crate::build;
use crate::emulate::{Printed, Request};
use crate::repository::root;
use crate::setup;

/// Measures every operation of the shipped models and every way to compute single layers on every core, and fits the coefficients of the estimates that `inspect` and
/// `export-weights` give, host/src/cost/instructions.json.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure this target anew and keep the others.
    #[arg(long, default_value = "all")]
    target: String,
}

/// An equation of the fit: work, and the instructions that it took.
type Row = (Work, f64);

/// What is measured: whether its calls are to be right as wholes, its name, and its file.
type Subject<'a> = (bool, &'a (String, AlignedBytes));

/// A whole network call's relative error weighs as much as that of an operation of so many instructions.
const CALL: f64 = 1e8;

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = root().join("host").join("src").join("cost").join("instructions.json");
    // As it is now, not as it was when this was built.
    let mut cores: BTreeMap<String, Core> = serde_json::from_slice(&std::fs::read(&path)?)?;
    for board in boards::find(&args.target)? {
        if !matches!(board.machine, Machine::Qemu { .. }) {
            continue;
        }
        // Boards of one triple with the same instructions run the same code: the first is measured.
        let same = |other: &&Board| other.triple == board.triple && other.has_mve == board.has_mve;
        let first = BOARDS.iter().find(same).unwrap_or(board);
        let mut core = match cores.get(first.name) {
            Some(measured) if first.name != board.name => measured.clone(),
            _ => measure(first)?,
        };
        core.core = board.core.into();
        cores.insert(board.name.into(), core);
        // What is measured is kept: all of them take half an hour.
        write_whole(&path, (serde_json::to_string_pretty(&cores)? + "\n").as_bytes())?;
    }
    println!("{}: {} cores", path.display(), cores.len());
    Ok(())
}

/// Measures and fits a core.
fn measure(board: &'static Board) -> anyhow::Result<Core> {
    if let Some(emulator) = board.emulator() {
        setup::tool(emulator)?;
    }
    let mut models: Vec<(String, AlignedBytes)> = vec![];
    for path in shipped::files() {
        let name = path.file_stem().context("a file")?.to_string_lossy().into_owned();
        models.push((name, shipped::read(&path)?));
    }
    // No file of the single precision is shipped, and none of a classifier or of filters along rows; their work is measured all the
    // same.
    models.push((String::new(), shipped::find("digits", Some(Precision::F32), None, &())?));
    let digits = shipped::models_folder().join("digits");
    let rows = root().join("tests").join("goldens").join("unet1d_sound");
    for precision in [Precision::I8, Precision::F16, Precision::F32] {
        for (checkpoint, classifier) in [(digits.join("checkpoint"), Some(digits.join("guide"))), (rows.clone(), None)]
        {
            let options =
                ExportOptions { precision, steps: vec![4], calibration_images: 4, classifier, ..Default::default() };
            models.push((String::new(), export(&Checkpoint::open(checkpoint)?, &options, &())?.bytes));
        }
    }
    let mut layers = vec![];
    // What the exporter chooses among, also where no shipped model has it. It chooses by the fixed numbers of its default core, so
    // that these layers are the same whatever was measured before.
    for layer in &LAYERS {
        layers.extend(networks(layer)?.into_iter().map(|bytes| (String::new(), AlignedBytes::copy_of(&bytes))));
    }
    let models: Vec<Subject<'_>> =
        models.iter().map(|model| (true, model)).chain(layers.iter().map(|layer| (false, layer))).collect();
    let (mut rows, mut calls, mut measured): (Vec<Row>, Vec<Row>, _) = (vec![], vec![], BTreeMap::new());
    // Those of the same features are drawn by one image, side by side, as an emulator takes one core.
    let mut groups: BTreeMap<Vec<&str>, Vec<Subject<'_>>> = BTreeMap::new();
    for entry in models {
        groups.entry(build::features(&Model::from_bytes(entry.1.1.as_slice())?)).or_default().push(entry);
    }
    for group in groups.values() {
        let [(_, (_, first)), ..] = group.as_slice() else { continue };
        let image = build::profiling_image(board, first.as_slice())?;
        let counted: Vec<(Vec<Row>, u64)> = group
            .par_iter()
            .map(|(_, (name, bytes))| profile(board, &image, bytes.as_slice()).with_context(|| name.clone()))
            .collect::<anyhow::Result<_>>()?;
        for ((is_model, (name, _)), (found, picture)) in group.iter().zip(counted) {
            if *is_model {
                calls.push(sum(&found));
            }
            rows.extend(found);
            if !name.is_empty() {
                measured.insert(name.clone(), picture);
            }
        }
    }
    let coefficients = fit(&rows, &calls);
    let core = Core {
        core: board.core.into(),
        compiler: setup::toolchain(board.triple)?.version().into(),
        coefficients,
        measured,
    };
    for (work, counted) in &rows {
        ensure!(cost::instructions(&core, work).is_some(), "{}: work without a coefficient of {counted}", board.name);
    }
    Ok(core)
}

/// What the operations of a model take, and the instructions of a picture.
fn profile(board: &'static Board, image: &Path, bytes: &[u8]) -> anyhow::Result<(Vec<Row>, u64)> {
    let model = Model::from_bytes(bytes)?;
    let request = Request { class: (model.classes() > 0).then_some(0), ..Request::default() };
    let printed = Printed::by_loading(board, image, &build::model_file(bytes)?, &request)?;
    let instructions = |ticks: u64| board.instructions(ticks).unwrap_or(0) as f64;
    // Operations that took less than a tick are not printed.
    let mut ops = vec![0.0; usize::from(model.ops())];
    for (key, ticks) in printed.numbers("op") {
        let place = ops.get_mut(usize::from_str_radix(key, 16)?).context("an operation of the model")?;
        *place = instructions(ticks?);
    }
    let works = (0..model.ops()).filter_map(|index| model.op(index)).map(|op| cost::of_op(&model, &op));
    let mut rows: Vec<Row> = works.zip(ops.iter().copied()).collect();
    let [noise, update] = ["noise", "update"].map(|key| printed.number(key).map(instructions));
    let (noise, update) = (noise?, update?);
    rows.extend([(cost::of_noise(&model), noise), (cost::of_update(&model), update)]);
    let list = model.schedule(0).context("a list of steps")?;
    Ok((rows, Parts { ops, noise, update }.picture(&model, &list, 0).round() as u64))
}

/// All of it together.
fn sum(rows: &[Row]) -> Row {
    (rows.iter().flat_map(|(work, _)| work.clone()).collect(), rows.iter().map(|(_, counted)| counted).sum())
}

/// The coefficients, none below zero, of least squared error, an operation's weight falling with the instructions that it
/// takes, and of least squared relative error of whole network calls: by coordinate descent over the normal equations (Franc,
/// Hlaváč, Navara, 2005, "Sequential coordinate-wise algorithm for the non-negative least squares problem").
fn fit(rows: &[Row], calls: &[Row]) -> BTreeMap<String, f64> {
    let mut kinds: Vec<&String> = rows.iter().flat_map(|(work, _)| work.iter().map(|(kind, _)| kind)).collect();
    kinds.sort();
    kinds.dedup();
    let place = |kind: &String| kinds.binary_search(&kind).expect("listed above");
    let mut normal = vec![vec![0.0; kinds.len()]; kinds.len()];
    let mut right = vec![0.0; kinds.len()];
    let weigh = |(_, counted): &Row| 1.0 / counted.max(1.0);
    let weighted = rows.iter().map(|row| (row, weigh(row)));
    for ((work, counted), weight) in weighted.chain(calls.iter().map(|row| (row, CALL * weigh(row).powi(2)))) {
        for (kind, amount) in work {
            right[place(kind)] += weight * amount * counted;
            for (other, factor) in work {
                normal[place(kind)][place(other)] += weight * amount * factor;
            }
        }
    }
    let mut coefficients = vec![0.0; kinds.len()];
    for _ in 0..20_000 {
        for (i, row) in normal.iter().enumerate() {
            if row[i] > 0.0 {
                let gradient: f64 = row.iter().zip(&coefficients).map(|(a, x)| a * x).sum::<f64>() - right[i];
                coefficients[i] = f64::max(0.0, coefficients[i] - gradient / row[i]);
            }
        }
    }
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    kinds.into_iter().cloned().zip(coefficients.into_iter().map(rounded)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_counts_give_their_coefficients_back() {
        let work = |a: f64, b: f64, c: f64| vec![("a".into(), a), ("b".into(), b), ("c".into(), c)];
        let rows: Vec<Row> = [(1.0, 2.0, 1.0), (5.0, 1.0, 2.0), (3.0, 7.0, 1.0), (100.0, 30.0, 9.0)]
            .map(|(a, b, c)| (work(a, b, c), 4.0 * a + 0.5 * b + 20.0 * c))
            .into();
        let expected = [("a", 4.0), ("b", 0.5), ("c", 20.0)].map(|(kind, value)| (kind.to_string(), value));
        assert_eq!(fit(&rows, &[]), expected.into());
    }

    #[test]
    fn nothing_costs_less_than_nothing() {
        let rows: Vec<Row> = vec![(vec![("a".into(), 1.0), ("b".into(), 1.0)], 1.0), (vec![("a".into(), 1.0)], 3.0)];
        assert!(fit(&rows, &[]).values().all(|&value| value >= 0.0));
    }
}
