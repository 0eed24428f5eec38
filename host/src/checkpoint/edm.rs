//! What a snapshot of NVIDIA's EDM (Karras et al., 2022, arXiv:2206.00364) says of its network and of its noise, beside tensors.

use serde_json::{Map, Value, json};

use super::pickle::persistent::Network;
use super::{CheckpointError, SchedulerConfig};

/// What `config.json` calls the networks of a snapshot.
pub(crate) const SONG: &str = "edm.SongUNet";
pub(crate) const DHARIWAL: &str = "edm.DhariwalUNet";
/// What the network of a snapshot is wrapped in.
const PRECONDITIONING: &str = "EDMPrecond";
/// What `config.json` calls the share of labels that the training left out.
pub(crate) const LABEL_DROPOUT: &str = "label_dropout";

/// A pickled network without its tensors.
#[derive(Debug)]
pub(super) struct Snapshot {
    preconditioning: String,
    network: String,
    sigma_data: Option<f64>,
    label_dim: Option<f64>,
    label_dropout: f64,
}

impl Snapshot {
    pub(super) fn of(network: &Network<'_>) -> Self {
        let [preconditioning, inner] = network.classes.map(|class| class.unwrap_or("nothing").to_string());
        let number = |index: usize, name: &str| {
            network.numbers[index].iter().find(|(found, _)| *found == name).map(|&(_, number)| number)
        };
        Self {
            preconditioning,
            network: inner,
            sigma_data: number(0, "sigma_data"),
            label_dim: number(0, "label_dim"),
            label_dropout: number(1, LABEL_DROPOUT).unwrap_or(0.0),
        }
    }

    /// The class that means "no class": the one behind the others, if the training left out labels.
    pub(super) fn unconditional_class(&self) -> Option<usize> {
        self.label_dim.filter(|&classes| classes > 0.0 && self.label_dropout > 0.0).map(|classes| classes as usize)
    }

    /// Completes the configuration, and gives the noise of the training.
    pub(super) fn complete(&self, config: &mut Map<String, Value>) -> Result<SchedulerConfig, CheckpointError> {
        let refuse = |what: String| Err(CheckpointError::Snapshot { what });
        let Some(class) = [SONG, DHARIWAL].into_iter().find(|class| class.strip_prefix("edm.") == Some(&self.network))
        else {
            return refuse(format!(
                "its network is a {:?}, and waft imports SongUNet (DDPM++ and NCSN++) and DhariwalUNet (ADM)",
                self.network
            ));
        };
        let Some(sigma_data) = self.sigma_data.filter(|_| self.preconditioning == PRECONDITIONING) else {
            return refuse(format!(
                "its preconditioning is {:?}, whose input, noise levels and output are scaled otherwise than in {PRECONDITIONING}, the \
                 only one that a sampler here knows; take a network that was trained with --precond=edm",
                self.preconditioning
            ));
        };
        config.insert("_class_name".into(), class.into());
        if self.label_dropout > 0.0 {
            config.insert(LABEL_DROPOUT.into(), self.label_dropout.into());
        }
        let scheduler = json!({ "_class_name": "EDMEulerScheduler", "sigma_data": sigma_data });
        Ok(SchedulerConfig::from_json(&scheduler.to_string())?)
    }
}
