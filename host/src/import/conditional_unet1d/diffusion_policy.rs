//! diffusion_policy's `DiffusionUnetLowdimPolicy`: the YAML of its training script, and the tensors of the policy.

use serde_json::{Map, Value};

use super::super::ImportError;
use super::super::config::refuse;
use super::{Config, build, statistics};
use crate::checkpoint::Checkpoint;
use crate::graph::{Graph, Observation};

const POLICY: &str = "DiffusionUnetLowdimPolicy";
const NETWORK: &str = "ConditionalUnet1D";

/// Imports the network.
pub(in super::super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let root = checkpoint.config();
    let policy = Section { root, path: "policy", fields: section(root, "policy")? };
    policy.target(POLICY)?;
    let model = Section { root, path: "policy.model", fields: section(policy.fields, "model")? };
    model.target(NETWORK)?;
    for (field, expected) in [
        ("obs_as_local_cond", "observations of each step are not supported: train with obs_as_global_cond"),
        ("pred_action_steps_only", "only policies that draw the whole horizon are supported"),
    ] {
        if policy.flag(field, false)? {
            return Err(refuse(&format!("policy.{field}"), true, expected));
        }
    }
    if !policy.flag("obs_as_global_cond", false)? {
        let expected = "policies that draw observations along with actions are not supported";
        return Err(refuse("policy.obs_as_global_cond", false, expected));
    }
    let steps = policy.int("n_obs_steps", None)?;
    let observed = policy.int("obs_dim", None)?;
    let actions = policy.int("action_dim", None)?;
    let observation = statistics::linear(checkpoint, "normalizer.params_dict.obs", observed)?;
    let observation: Vec<_> = observation.into_iter().map(|[scale, offset]| [-offset / scale, scale]).collect();
    let actions = statistics::linear(checkpoint, "normalizer.params_dict.action", actions)?;
    let config = Config {
        prefix: "model.",
        halves: ["blocks.0.block", "blocks.1.block"],
        resampler: ".conv",
        horizon: policy.int("horizon", None)?,
        groups: model.int("n_groups", Some(8))?,
        is_scaled: model.flag("cond_predict_scale", false)?,
        observation: Some(Observation { normalization: observation.repeat(steps) }),
        actions: actions.into_iter().map(|[scale, offset]| [1.0 / scale, -offset / scale]).collect(),
    };
    build(checkpoint, config)
}

fn section<'c>(fields: &'c Map<String, Value>, name: &str) -> Result<&'c Map<String, Value>, ImportError> {
    let value = fields.get(name);
    let expected = "a section of the configuration that the training script saves";
    value.and_then(Value::as_object).ok_or_else(|| refuse(name, value.unwrap_or(&Value::Null), expected))
}

/// A part of the configuration, whose fields may refer to those of the root as `${name}`.
struct Section<'c> {
    root: &'c Map<String, Value>,
    path: &'static str,
    fields: &'c Map<String, Value>,
}

impl Section<'_> {
    /// Refuses another class than `expected`.
    fn target(&self, expected: &str) -> Result<(), ImportError> {
        let target = self.fields.get("_target_").and_then(Value::as_str).unwrap_or_default();
        match target.rsplit('.').next() {
            Some(class) if class == expected => Ok(()),
            _ => Err(refuse(&format!("{}._target_", self.path), target, format!("supported: {expected}"))),
        }
    }

    /// A field's value, that of the root if it refers to one.
    fn get(&self, field: &str) -> Option<&Value> {
        let value = self.fields.get(field)?;
        let name = value.as_str().and_then(|text| text.strip_prefix("${")?.strip_suffix('}'));
        name.map_or(Some(value), |name| self.root.get(name))
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, ImportError> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(refuse(&format!("{}.{field}", self.path), value, "true or false")),
        }
    }

    fn int(&self, field: &str, default: Option<usize>) -> Result<usize, ImportError> {
        const MOST: u64 = 1 << 14;
        let name = format!("{}.{field}", self.path);
        let expected = format!("an integer from 1 to {MOST}");
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(refuse(&name, "null", expected)),
            (Some(value), _) => match value.as_u64() {
                Some(value) if (1..=MOST).contains(&value) => Ok(value as usize),
                _ => Err(refuse(&name, value, expected)),
            },
        }
    }
}
