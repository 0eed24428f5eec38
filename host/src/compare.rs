//! Which sampler with how many steps: the same seeds drawn with each, what the pictures are worth, and what they cost.

use std::path::{Path, PathBuf};

use serde::Serialize;
use waft::format::Precision;
use waft::{Guidance, Model, Request};

use crate::checkpoint::Checkpoint;
use crate::cost::chips::{self, Chip};
use crate::export::{ExportOptions, export};
use crate::gpu::{self, Device};
use crate::progress::Progress;
use crate::quality::metrics::Estimate;
use crate::quality::{Judged, QualityError};
use crate::sample::{Batch, Picture, classes_in_turn, draw};
use crate::schedule::{SchedulerConfig, Solver};

/// What to compare.
#[derive(Clone, Debug)]
pub struct Options {
    /// Samplers; empty: the checkpoint's own and all others that take over its noise levels.
    pub solvers: Vec<Solver>,
    /// Step counts.
    pub steps: Vec<usize>,
    /// How the device computes.
    pub precision: Precision,
    /// Guidance.
    pub guidance: Guidance,
    /// Folder of a classifier that guides, see [`ExportOptions::classifier`].
    pub classifier: Option<PathBuf>,
    /// See [`ExportOptions::unconditional`].
    pub unconditional: bool,
    /// Pictures of each combination, 16 to 1,000,000.
    pub count: usize,
    /// Seed of the first picture; the others count up from it.
    pub seed: u64,
    /// The judge's file; `None`: `judge.safetensors` in the checkpoint's folder or beside it, or pixels if there is none.
    pub judge: Option<PathBuf>,
    /// Folder of real pictures, PNG; `None`: the judge's training data.
    pub real: Option<PathBuf>,
    /// What costs are estimated for.
    pub chip: Chip,
}

/// A sampler with a number of steps.
#[derive(Clone, Debug, Serialize)]
pub struct Combination {
    /// The sampler's name in commands.
    pub scheduler: &'static str,
    /// Steps asked for.
    pub steps: usize,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a combination.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Pictures were drawn.
    Drawn(Box<Figures>),
    /// There is no such list, or no such model.
    Refused {
        /// Why.
        error: String,
    },
}

/// What pictures of a combination are worth, and what one costs.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Network calls of a picture.
    pub calls: u32,
    /// Fréchet distance to the real pictures.
    pub distance: Estimate,
    /// Share of pictures in which the judge sees the class asked for.
    pub accuracy: Option<Estimate>,
    /// Instructions of a picture on the chip: an estimate.
    pub instructions: Option<u64>,
    /// Seconds of a picture on the chip that follow.
    pub seconds: Option<f64>,
    /// Bytes of the arena; samplers that look back need more.
    pub arena_bytes: u64,
    /// The pictures, for a grid.
    #[serde(skip)]
    pub pictures: Vec<Picture>,
}

/// What was compared.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What pictures were compared by.
    pub features: String,
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// All combinations, sampler by sampler.
    pub combinations: Vec<Combination>,
    /// What to know about the models that were exported for this.
    pub notes: Vec<String>,
}

impl Comparison {
    /// The combination of fewest network calls whose distance is at most `1 + tolerance` times the least; of several the one of
    /// the least distance.
    pub fn cheapest(&self, tolerance: f64) -> Option<usize> {
        let drawn = || {
            self.combinations.iter().enumerate().filter_map(|(index, combination)| match &combination.outcome {
                Outcome::Drawn(figures) => Some((index, &**figures)),
                Outcome::Refused { .. } => None,
            })
        };
        let best = drawn().map(|(_, figures)| figures.distance.value).fold(f64::INFINITY, f64::min);
        let cheap = drawn().filter(|(_, figures)| figures.distance.value <= best * (1.0 + tolerance));
        let order = |(_, a): &(usize, &Figures), (_, b): &(usize, &Figures)| {
            a.calls.cmp(&b.calls).then(a.distance.value.total_cmp(&b.distance.value))
        };
        cheap.min_by(order).map(|(index, _)| index)
    }
}

/// The samplers that take a configuration over, its own first. Those that draw only from models that were distilled for them,
/// and those that do not draw, are left out, unless it is theirs.
fn candidates(config: &SchedulerConfig, steps: &[usize]) -> Vec<Solver> {
    let own = Solver::of(config);
    let is_own = |solver: &Solver| own.is_some_and(|own| own.name() == solver.name());
    let is_special = |solver: &Solver| matches!(solver, Solver::Lcm | Solver::Consistency | Solver::DdimInverse);
    let others = Solver::ALL.iter().copied().filter(|solver| !is_own(solver) && !is_special(solver));
    let others = others.filter(|solver| steps.iter().any(|&n| solver.steps(config, n).is_ok()));
    own.into_iter().chain(others).collect()
}

/// The judge that lies in a checkpoint's folder or beside it.
fn judge_of(folder: &Path) -> Option<PathBuf> {
    let folders = [Some(folder), folder.parent()];
    folders.into_iter().flatten().map(|folder| folder.join("judge.safetensors")).find(|path| path.is_file())
}

/// Exports the checkpoint with each sampler, all step counts in one file, draws the same seeds with each list, on the GPU
/// backend if there is one, and compares.
///
/// # Errors
/// If there is nothing to compare with, or a model that was exported cannot draw. Combinations that do not exist are among
/// the results.
pub fn compare(
    checkpoint: &Checkpoint,
    options: &Options,
    mut device: Option<&mut dyn Device>,
    progress: &dyn Progress,
) -> Result<Comparison, QualityError> {
    if !(16..=1_000_000).contains(&options.count) {
        return Err(QualityError::Option(format!("{} pictures: ask for 16 to 1000000", options.count)));
    }
    if options.steps.is_empty() {
        return Err(QualityError::Option("name at least one number of steps".into()));
    }
    let config = checkpoint.scheduler()?;
    let solvers = match options.solvers.as_slice() {
        [] => candidates(config, &options.steps),
        solvers => solvers.to_vec(),
    };
    let mut judged: Option<Judged> = None;
    let mut notes: Vec<String> = vec![];
    let mut combinations = vec![];
    for solver in solvers {
        let lists = options.steps.iter().map(|&n| (n, solver.steps(config, n)));
        let (drawn, refused): (Vec<_>, Vec<_>) = lists.partition(|(_, steps)| steps.is_ok());
        let mut found: Vec<Combination> =
            refused.into_iter().filter_map(|(steps, list)| Some(refusal(solver, steps, &list.err()?))).collect();
        let counts: Vec<usize> = drawn.iter().map(|&(n, _)| n).collect();
        if !counts.is_empty() {
            let export_options = ExportOptions {
                precision: options.precision,
                steps: counts.clone(),
                solver: Some(solver),
                guidance: (options.guidance != Guidance::NONE).then(|| options.guidance.to_bits() as f32 / 65_536.0),
                classifier: options.classifier.clone(),
                unconditional: options.unconditional,
                ..ExportOptions::default()
            };
            match export(checkpoint, &export_options, progress) {
                Err(error) => found.extend(counts.iter().map(|&steps| refusal(solver, steps, &error))),
                Ok(exported) => {
                    notes.extend(exported.report.notes.iter().map(|note| format!("{}: {note}", solver.name())));
                    let model = Model::from_bytes(exported.bytes.as_slice())?;
                    let judged = match &mut judged {
                        Some(judged) => judged,
                        empty => {
                            let judge = options.judge.clone().or_else(|| judge_of(checkpoint.folder()));
                            let classes = classes_in_turn(&model, options.count);
                            let real = options.real.as_deref();
                            empty.insert(Judged::open(judge.as_deref(), real, classes, model.image_shape())?)
                        }
                    };
                    for (index, &steps) in counts.iter().enumerate() {
                        let figures = figures(&model, index as u16, options, judged, &mut device, progress)?;
                        let outcome = Outcome::Drawn(Box::new(figures));
                        found.push(Combination { scheduler: solver.name(), steps, outcome });
                    }
                }
            }
        }
        found.sort_by_key(|combination| options.steps.iter().position(|&steps| steps == combination.steps));
        combinations.extend(found);
    }
    notes.sort();
    notes.dedup();
    let Some(judged) = judged else {
        let reasons = combinations.iter().filter_map(|combination| match &combination.outcome {
            Outcome::Refused { error } => Some(format!("{} {}: {error}", combination.scheduler, combination.steps)),
            Outcome::Drawn(_) => None,
        });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        return Err(QualityError::Option(format!("there is no combination to compare: {reasons}")));
    };
    Ok(Comparison { features: judged.described(), shape: judged.shape(), combinations, notes })
}

fn refusal(solver: Solver, steps: usize, error: &dyn std::error::Error) -> Combination {
    Combination { scheduler: solver.name(), steps, outcome: Outcome::Refused { error: error.to_string() } }
}

/// Draws with one list of a model and judges.
fn figures(
    model: &Model<'_>,
    list: u16,
    options: &Options,
    judged: &Judged,
    device: &mut Option<&mut dyn Device>,
    progress: &dyn Progress,
) -> Result<Figures, QualityError> {
    let corrupt = || QualityError::Option("the exported model has no such list: a defect of the exporter".into());
    let schedule = model.schedule(list).ok_or_else(corrupt)?;
    let batch = Batch {
        request: Request::new().steps(schedule.steps).guidance(options.guidance),
        seed: options.seed,
        classes: judged.classes().to_vec(),
        count: options.count,
        ..Batch::default()
    };
    let pictures = match device {
        Some(device) => gpu::draw(&mut **device, model, &batch, None, progress)?,
        None => draw(model, &batch, progress)?,
    };
    let seen = judged.features(&pictures);
    // A classifier takes part in every call, and needs no other.
    let guided = if options.guidance == Guidance::NONE || options.classifier.is_some() { 0 } else { schedule.steps };
    let cost = chips::cost(&options.chip, model, Some(&schedule), guided);
    Ok(Figures {
        calls: schedule.steps + guided,
        distance: judged.distance(&seen),
        accuracy: judged.accuracy(&seen),
        instructions: cost.instructions,
        seconds: cost.seconds,
        arena_bytes: model.header().arena_bytes.into(),
        pictures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(calls: u32, distance: f64) -> Combination {
        let distance = Estimate { value: distance, interval: [distance; 2] };
        let figures = Figures {
            calls,
            distance,
            accuracy: None,
            instructions: None,
            seconds: None,
            arena_bytes: 0,
            pictures: vec![],
        };
        Combination { scheduler: "ddim", steps: 1, outcome: Outcome::Drawn(Box::new(figures)) }
    }

    #[test]
    fn the_cheapest_has_the_fewest_calls_of_those_that_are_good_enough() {
        let refused = refusal(Solver::Ddpm, 3, &std::fmt::Error);
        let of = |combinations: &[Combination]| Comparison {
            features: String::new(),
            shape: [0; 3],
            combinations: combinations.to_vec(),
            notes: vec![],
        };
        let all = [refused.clone(), drawn(20, 1.0), drawn(10, 1.09), drawn(5, 1.2), drawn(10, 1.05)];
        assert_eq!(of(&all).cheapest(0.1), Some(4), "ten calls, the better of the two");
        assert_eq!(of(&all).cheapest(0.0), Some(1));
        assert_eq!(of(&all).cheapest(1.0), Some(3));
        assert_eq!(of(&[refused]).cheapest(0.1), None);
    }

    #[test]
    fn samplers_of_other_noise_levels_and_of_distilled_models_are_no_candidates() {
        let names = |json: &str| -> Vec<&str> {
            let config = SchedulerConfig::from_json(json).expect("a configuration");
            candidates(&config, &[10]).iter().map(Solver::name).collect()
        };
        let ddpm = names(r#"{"_class_name": "DDPMScheduler"}"#);
        assert_eq!(ddpm, ["ddpm", "ddim", "dpm-solver++", "unipc", "euler", "euler-ancestral", "heun"]);
        assert_eq!(names(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#), ["flow-match-euler"]);
        assert_eq!(names(r#"{"_class_name": "LCMScheduler"}"#)[0], "lcm");
    }
}
