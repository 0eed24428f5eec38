//! The stage of the `i8` precision at which the widths of activations are chosen and their values are known.

use waft::{Guidance, Model};

use super::prepared::Prepared;
use super::{ExportError, ExportOptions, activations};
use crate::calibrate::{Calibration, Observations, calibrate};
use crate::cost::Core;
use crate::emit::i8::Quantization;
use crate::network::Network;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::widths::Widths;

/// Guidance of calibration where the options name none.
const DEFAULT_GUIDANCE: f32 = 2.0;

/// A network whose activations were watched.
pub(super) struct Calibrated {
    pub prepared: Prepared,
    /// How the pictures were drawn.
    pub how: Calibration,
    pub widths: Widths,
    pub seen: Observations,
    pub recipe: Recipe,
    /// The core that is chosen for.
    pub core: &'static Core,
}

impl Calibrated {
    /// Chooses the widths of activations and draws pictures with `reference`, the `f32` model of the same network.
    pub(super) fn new(
        prepared: Prepared,
        reference: &Model<'_>,
        options: &ExportOptions,
        progress: &dyn Progress,
    ) -> Result<Self, ExportError> {
        let widths = activations::choose(&prepared.network, options, progress)?;
        let guidance = Guidance::from_f32(options.guidance.unwrap_or(DEFAULT_GUIDANCE));
        let how = Calibration {
            images: options.calibration_images,
            steps: prepared.lists.iter().map(|list| list.steps.len()).collect(),
            classes: prepared.graph.class_count(),
            guidance: prepared.network.unconditional.map(|_| guidance),
            by_step: options.recipe.step_scales,
            conditions: prepared.conditions.clone(),
        };
        let seen = calibrate(&prepared.network, reference, &how, progress);
        Ok(Self { prepared, how, widths, seen, recipe: options.recipe, core: options.core })
    }

    /// What the integers of `network` follow from: the prepared one, or that with windows.
    pub(super) fn quantization<'a>(&'a self, network: &'a Network) -> Quantization<'a> {
        let source = self.prepared.source(network);
        Quantization { source, widths: &self.widths, seen: &self.seen, recipe: self.recipe, core: self.core }
    }
}
