//! What to export.

use std::path::PathBuf;

use waft::format::Precision;

use super::ExportError;
use crate::checkpoint::ExportDefaults;
use crate::cost::Core;
use crate::recipe::{Recipe, Rounding};
use crate::schedule::{Ddim, Solver, StepRequest};
use crate::target_core;
use crate::widths::WeightWidth;

/// Bytes of a name, at most, as the format says.
const MOST_NAME: usize = 64;
/// Bytes of provenance, at most: a file holds 1024, with the exporter's line.
const MOST_PROVENANCE: usize = 960;
/// Most step lists of a file.
const MOST_LISTS: usize = 64;
/// Most pictures to calibrate with.
const MOST_IMAGES: usize = 100_000;

/// How wide the residual stream, the skips and the inputs of convolutions are in the `i8` precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResidualWidth {
    /// 16 bits where the arena grows by a seventh at most, or by a sixteenth of a small one, and for all streams if it stays small.
    #[default]
    Auto,
    /// 8 bits wherever the arithmetic allows it.
    Narrow,
    /// 16 bits for streams, and for inputs of convolutions where they cost no arena.
    Wide,
}

/// How large an arena may be with what makes convolutions fast: patches and tiles, see [`patches`](crate::patches).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// There are none.
    None,
    /// The arena has room for them, or grows by a third at most.
    #[default]
    Third,
    /// At most this many bytes.
    Bytes(u64),
}

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// How the device computes.
    pub precision: Precision,
    /// Step counts of the lists that the file carries, each once, at most 64; the first is the default. Empty: the
    /// checkpoint's own, or 10.
    pub steps: Vec<usize>,
    /// Lists of timesteps instead of step counts, each strictly falling, as students of few steps need them.
    pub timesteps: Vec<Vec<i64>>,
    /// Lists of noise levels instead, each strictly falling, see [`StepRequest::Sigmas`].
    pub sigmas: Vec<Vec<f64>>,
    /// What turns timesteps into steps; `None`: that of the checkpoint's scheduler.
    pub solver: Option<Solver>,
    /// η of DDIM, 0 to 1; 0 for other solvers.
    pub eta: f64,
    /// Guidance that the model will be used with, −1000 to 1000: calibrates for it, and keeps room for it if it is not 1.
    /// `None`: room if the model knows "no class", and half of calibration's pictures at 2.
    pub guidance: Option<f32>,
    /// Folder of a classifier that guides, see [`import::add_classifier`](crate::import::add_classifier); with it there is no
    /// classifier-free guidance.
    pub classifier: Option<PathBuf>,
    /// With a classifier: draw with the class that means "no class", so that the classifier alone says which.
    pub unconditional: bool,
    /// Derive ε from the clipped sample; `None`: as the checkpoint says.
    pub use_clipped_model_output: Option<bool>,
    /// Lead each step of DDIM to the next timestep of its list, where diffusers leads to `t − T // N`, whatever comes next.
    pub corrected: bool,
    /// Pictures to calibrate the `i8` precision with, 1 to 100,000.
    pub calibration_images: usize,
    /// File of conditions to draw with, for a network that reads one beside the sample, see
    /// [`Conditions::read`](crate::condition::Conditions::read); calibration's pictures take turns.
    pub conditions: Option<PathBuf>,
    /// File of observations to act on, for a policy, see
    /// [`Conditions::read_observations`](crate::condition::Conditions::read_observations); calibration's runs take turns.
    pub observations: Option<PathBuf>,
    /// Width of activations in the `i8` precision.
    pub residual: ResidualWidth,
    /// Width of weights in the `i8` precision.
    pub weights: WeightWidth,
    /// How reals of the `i8` precision become integers.
    pub recipe: Recipe,
    /// Scale each step's prediction of the `i8` precision by the factor that brings it nearest to that of `f32` (the
    /// correlated part of the error, He et al., 2023, PTQD, arXiv:2305.10657); it is folded into the step's coefficients.
    pub output_correction: bool,
    /// Most bytes of the arena in the `i8` precision: activations get 16 bits as long as they fit. `None`: as `residual` says.
    pub budget_ram: Option<u64>,
    /// Where convolutions of the `i8` precision may unfold or transform their input: a matter of speed alone. With
    /// `budget_ram`, anything but [`Room::None`] is that budget.
    pub patches: Room,
    /// Most bytes of the file in the `i8` precision: weights of convolutions get four bits until it fits, those first that
    /// lose least by it; what is left is spent on weights that are stored transformed, where that saves the most instructions
    /// for each byte. `None`: as `weights` says, and nothing is stored transformed.
    pub budget_flash: Option<u64>,
    /// The core by whose instructions the `i8` precision chooses how each convolution is computed, from [`target_core::find`]: a matter of
    /// speed alone over rings of 8 bits; those of 16 keep 14 where tiles are to take them. Every core runs every file.
    pub core: &'static Core,
    /// Name in the header; `None`: the checkpoint's, or its folder's.
    pub name: Option<String>,
    /// Keep the weights of convolutions in a file of their own, and stream them through a window of at most this many
    /// bytes of the arena.
    pub stream: Option<u64>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            precision: Precision::I8,
            steps: vec![],
            timesteps: vec![],
            sigmas: vec![],
            solver: None,
            eta: 0.0,
            guidance: None,
            classifier: None,
            unconditional: false,
            use_clipped_model_output: None,
            corrected: false,
            calibration_images: 24,
            conditions: None,
            observations: None,
            residual: ResidualWidth::Auto,
            weights: WeightWidth::Eight,
            recipe: Recipe::default(),
            output_correction: false,
            budget_ram: None,
            patches: Room::default(),
            budget_flash: None,
            core: target_core::default_core(),
            name: None,
            stream: None,
        }
    }
}

fn refuse(field: &'static str, value: impl ToString, expected: impl Into<String>) -> ExportError {
    ExportError::Option { field, value: value.to_string(), expected: expected.into() }
}

impl ExportOptions {
    /// The same with one list, of so many steps: that of the checkpoint's defaults which has as many, or the sampler's own.
    pub fn in_steps(mut self, count: usize, defaults: &ExportDefaults) -> Self {
        let own = defaults.timesteps.iter().flatten().find(|list| list.len() == count);
        (self.steps, self.timesteps) = match own {
            Some(list) => (vec![], vec![list.clone()]),
            None => (vec![count], vec![]),
        };
        self
    }

    /// Ranges, and what options say of each other.
    pub(super) fn check(&self) -> Result<(), ExportError> {
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(refuse("eta", self.eta, "between 0 and 1"));
        }
        let given = [!self.steps.is_empty(), !self.timesteps.is_empty(), !self.sigmas.is_empty()];
        if given.into_iter().filter(|&given| given).count() > 1 {
            let found = format!("{:?}, {:?}, {:?}", self.steps, self.timesteps, self.sigmas);
            return Err(refuse("steps, timesteps, sigmas", found, "name one of the three"));
        }
        if let Some(guidance) = self.guidance
            && !(-1000.0..=1000.0).contains(&guidance)
        {
            return Err(refuse("guidance", guidance, "between -1000 and 1000"));
        }
        if self.unconditional && self.classifier.is_none() {
            return Err(refuse("unconditional", true, "is for networks that a classifier guides; name one"));
        }
        if !(1..=MOST_IMAGES).contains(&self.calibration_images) {
            let expected = format!("between 1 and {MOST_IMAGES} pictures");
            return Err(refuse("calibration_images", self.calibration_images, expected));
        }
        for (field, budget) in [("budget_ram", self.budget_ram), ("budget_flash", self.budget_flash)] {
            if let (Some(budget), Precision::F16 | Precision::F32) = (budget, self.precision) {
                return Err(refuse(field, budget, "only the i8 precision has widths to choose"));
            }
        }
        if let Some(budget) = self.budget_flash {
            if self.recipe.rounding == Rounding::Nearest {
                let expected = "needs rounding = gptq, which says what four bits lose";
                return Err(refuse("budget_flash", budget, expected));
            }
            if self.stream.is_some() {
                return Err(refuse("budget_flash", budget, "is for files that hold their weights: without stream"));
            }
        }
        Ok(())
    }

    /// The solver that is asked for, or the checkpoint's own, with what DDIM's step takes besides.
    pub(super) fn solver(&self, own: Option<Solver>, defaults: &ExportDefaults) -> Result<Option<Solver>, ExportError> {
        let Some(solver) = self.solver.or(own) else { return Ok(None) };
        if matches!(solver, Solver::Ddim(_)) {
            let use_clipped_model_output = self.use_clipped_model_output.unwrap_or(defaults.use_clipped_model_output);
            return Ok(Some(Solver::Ddim(Ddim { eta: self.eta, use_clipped_model_output })));
        }
        let expected = format!("is DDIM's; leave it out with {}", solver.name());
        if self.eta != 0.0 {
            return Err(refuse("eta", self.eta, expected));
        }
        match self.use_clipped_model_output {
            Some(value) => Err(refuse("use_clipped_model_output", value, expected)),
            None => Ok(Some(solver)),
        }
    }

    /// What the file's lists are made from, with the checkpoint's defaults.
    pub(super) fn lists(&self, defaults: &ExportDefaults) -> Result<Vec<StepRequest>, ExportError> {
        let counts = |counts: &[usize]| counts.iter().copied().map(StepRequest::Count).collect::<Vec<_>>();
        let at = |lists: &[Vec<i64>]| lists.iter().cloned().map(StepRequest::Timesteps).collect::<Vec<_>>();
        if !self.sigmas.is_empty() {
            return Ok(self.sigmas.iter().cloned().map(StepRequest::Sigmas).collect());
        }
        if let (Some(steps), Some(timesteps), true) =
            (&defaults.steps, &defaults.timesteps, self.steps.is_empty() && self.timesteps.is_empty())
        {
            let found = format!("{steps:?}, {timesteps:?}");
            return Err(refuse("steps, timesteps", found, "waft.json names both; name one of the two"));
        }
        let lists = match (self.steps.as_slice(), self.timesteps.as_slice(), &defaults.timesteps, &defaults.steps) {
            (steps @ [_, ..], ..) => counts(steps),
            (_, timesteps @ [_, ..], ..) => at(timesteps),
            (_, _, Some(timesteps), _) => at(timesteps),
            (_, _, None, Some(steps)) => counts(steps),
            (_, _, None, None) => vec![StepRequest::Count(10)],
        };
        Ok(lists)
    }

    /// Whether what the user calls the model fits the file as it is.
    pub(super) fn check_texts(&self, defaults: &ExportDefaults) -> Result<(), ExportError> {
        if let Some(name) = self.name.as_ref().or(defaults.name.as_ref())
            && name.len() > MOST_NAME
        {
            return Err(refuse("name", format!("{} bytes", name.len()), format!("at most {MOST_NAME} bytes")));
        }
        match &defaults.provenance {
            Some(text) if text.len() > MOST_PROVENANCE => {
                let expected = format!("at most {MOST_PROVENANCE} bytes");
                Err(refuse("provenance", format!("{} bytes", text.len()), expected))
            }
            _ => Ok(()),
        }
    }

    /// Whether the lengths of the lists fit a file: a request names a list by its length.
    pub(super) fn check_lengths(&self, steps: &[usize]) -> Result<(), ExportError> {
        let mut sorted = steps.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != steps.len() || steps.len() > MOST_LISTS {
            let expected = format!("name each count once, at most {MOST_LISTS} of them");
            return Err(refuse("steps", format!("{steps:?}"), expected));
        }
        let (images, count) = (self.calibration_images, steps.len());
        if self.precision == Precision::I8 && self.recipe.step_scales && images < count {
            let expected = format!(
                "with step_scales, each of the step lists needs a picture for its scales, so at least {count}, better a multiple"
            );
            return Err(refuse("calibration_images", images, expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut ExportOptions)) -> String {
        let mut options = ExportOptions::default();
        change(&mut options);
        let checked = options.check().and_then(|()| options.check_lengths(&options.steps));
        checked.expect_err("a mistake").to_string()
    }

    #[test]
    fn mistakes_name_the_field_the_value_and_what_is_expected() {
        assert_eq!(refusal(|options| options.eta = 2.0), "eta = 2: between 0 and 1");
        assert_eq!(refusal(|options| options.eta = f64::NAN), "eta = NaN: between 0 and 1");
        assert_eq!(refusal(|options| options.guidance = Some(1e4)), "guidance = 10000: between -1000 and 1000");
        for images in [0, 100_001] {
            let refused = refusal(|options| options.calibration_images = images);
            assert_eq!(refused, format!("calibration_images = {images}: between 1 and 100000 pictures"));
        }
        let refused = refusal(|options| options.steps = vec![10, 20, 10]);
        assert_eq!(refused, "steps = [10, 20, 10]: name each count once, at most 64 of them");
        let refused = refusal(|options| options.steps = (1..=65).collect());
        assert!(refused.ends_with("name each count once, at most 64 of them"), "{refused}");
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let refused = refusal(|options| (options.precision, options.budget_ram) = (Precision::F16, Some(5)));
        assert!(refused.starts_with("budget_ram = 5: only the i8 precision"), "{refused}");
        let refused = refusal(|options| (options.budget_flash, options.stream) = (Some(5), Some(6)));
        assert!(refused.starts_with("budget_flash = 5") && refused.contains("stream"), "{refused}");
        let refused = refusal(|options| (options.budget_flash, options.recipe.rounding) = (Some(5), Rounding::Nearest));
        assert!(refused.starts_with("budget_flash = 5") && refused.contains("gptq"), "{refused}");
        let refused = refusal(|options| {
            (options.steps, options.calibration_images) = (vec![2, 3, 4], 2);
            options.recipe.step_scales = true;
        });
        assert!(refused.starts_with("calibration_images = 2") && refused.contains("at least 3"), "{refused}");
    }

    #[test]
    fn step_counts_are_those_of_the_options_then_of_the_checkpoint() {
        let lists = |steps: &[usize], defaults: ExportDefaults| {
            ExportOptions { steps: steps.to_vec(), ..Default::default() }.lists(&defaults).expect("valid")
        };
        let counts = |counts: &[usize]| ExportDefaults { steps: Some(counts.to_vec()), ..Default::default() };
        assert_eq!(lists(&[3], counts(&[4])), [StepRequest::Count(3)]);
        assert_eq!(lists(&[], counts(&[4, 5])), [StepRequest::Count(4), StepRequest::Count(5)]);
        assert_eq!(lists(&[], ExportDefaults::default()), [StepRequest::Count(10)]);
        let timesteps = ExportDefaults { timesteps: Some(vec![vec![750, 250]]), ..Default::default() };
        assert_eq!(lists(&[], timesteps.clone()), [StepRequest::Timesteps(vec![750, 250])]);
        assert_eq!(lists(&[3], timesteps.clone()), [StepRequest::Count(3)]);
        let in_steps = |count| ExportOptions::default().in_steps(count, &timesteps).lists(&timesteps).expect("valid");
        assert_eq!(in_steps(2), [StepRequest::Timesteps(vec![750, 250])]);
        assert_eq!(in_steps(3), [StepRequest::Count(3)]);
        let both = ExportDefaults { timesteps: timesteps.timesteps, ..counts(&[4]) };
        let refused = ExportOptions::default().lists(&both).expect_err("two lists").to_string();
        assert!(refused.contains("steps, timesteps") && refused.contains("name one of the two"), "{refused}");
    }
}
