//! LeRobot's diffusion policy: `config.json` of type `diffusion`, and statistics among the tensors.

use serde_json::{Map, Value};

use super::super::ImportError;
use super::super::config::{Fields, refuse};
use super::statistics::{self, Mode};
use super::{Config, build};
use crate::checkpoint::Checkpoint;
use crate::graph::{Graph, Observation};

/// Fields that say how it is trained, executed or stored, how pictures are encoded, or what
/// the scheduler's configuration is made from.
const NOT_OF_THE_NETWORK: [&str; 49] = [
    "type",
    "device",
    "use_amp",
    "use_peft",
    "push_to_hub",
    "repo_id",
    "private",
    "tags",
    "license",
    "pretrained_path",
    "pretrained_backbone_weights",
    "n_action_steps",
    "drop_n_last_frames",
    "do_mask_loss_for_padding",
    "vision_backbone",
    "crop_shape",
    "crop_is_random",
    "crop_ratio",
    "resize_shape",
    "use_group_norm",
    "spatial_softmax_num_keypoints",
    "use_separate_rgb_encoder_per_camera",
    "noise_scheduler_type",
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "prediction_type",
    "clip_sample",
    "clip_sample_range",
    "num_inference_steps",
    "optimizer_lr",
    "optimizer_betas",
    "optimizer_eps",
    "optimizer_weight_decay",
    "scheduler_name",
    "scheduler_warmup_steps",
    "compile_model",
    "compile_mode",
    "robot_type",
    "observation_delta_indices",
    "action_delta_indices",
    "reward_delta_indices",
    "image_features",
    "env_state_feature",
    "robot_state_feature",
    "action_feature",
    "pretrained_revision",
    "rtc_config",
];

/// A vector that is observed or acted.
struct Feature {
    name: String,
    kind: String,
    len: usize,
}

/// Imports the network.
pub(in super::super) fn import(checkpoint: &Checkpoint) -> Result<Graph, ImportError> {
    let mut fields = Fields::new(checkpoint.config());
    for field in NOT_OF_THE_NETWORK {
        fields.take_stated(field);
    }
    let horizon = fields.count("horizon", 16, 1 << 14)?;
    let steps = fields.count("n_obs_steps", 2, 1 << 10)?;
    let groups = fields.count("n_groups", 8, 1 << 14)?;
    let is_scaled = fields.flag("use_film_scale_modulation", true)?;
    // The tensors have these.
    for field in ["down_dims", "kernel_size", "diffusion_step_embed_dim"] {
        fields.take_stated(field);
    }
    let inputs = features(&mut fields, ["input_features", "input_shapes"])?;
    let outputs = features(&mut fields, ["output_features", "output_shapes"])?;
    let modes = [
        fields.take("normalization_mapping"),
        fields.take("input_normalization_modes"),
        fields.take("output_normalization_modes"),
    ];
    fields.finish()?;
    if let Some(image) = inputs.iter().find(|feature| feature.kind == "VISUAL") {
        let expected = "image encoders (vision_backbone) are not supported: only policies that act on states and \
                        environment states come in";
        return Err(refuse("input_features", &image.name, expected));
    }
    let mode = |feature: &Feature| mode(&modes, feature);

    // Of each step the robot's state, then the environment's.
    let mut of_a_step = vec![];
    for name in ["observation.state", "observation.environment_state"] {
        if let Some(feature) = inputs.iter().find(|feature| feature.name == name) {
            let key = format!("normalize_inputs.buffer_{}", name.replace('.', "_"));
            of_a_step.extend(statistics::observed(checkpoint, &key, mode(feature)?, feature.len)?);
        }
    }
    let known = ["observation.state", "observation.environment_state"];
    if let Some(other) = inputs.iter().find(|feature| !known.contains(&feature.name.as_str())) {
        return Err(refuse("input_features", &other.name, format!("supported: {}", known.join(", "))));
    }
    let [action] = &outputs[..] else {
        let names: Vec<_> = outputs.iter().map(|feature| feature.name.as_str()).collect();
        return Err(refuse("output_features", names.join(", "), "one feature, action"));
    };
    let actions = statistics::acted(checkpoint, "unnormalize_outputs.buffer_action", mode(action)?, action.len)?;
    if mode(action)? != Mode::Identity {
        // The same, for training.
        statistics::acted(checkpoint, "normalize_targets.buffer_action", mode(action)?, action.len)?;
    }
    let config = Config {
        prefix: "diffusion.unet.",
        halves: ["conv1.block", "conv2.block"],
        resampler: "",
        horizon,
        groups,
        is_scaled,
        observation: Some(Observation { normalization: of_a_step.repeat(steps) }),
        actions,
    };
    build(checkpoint, config)
}

/// The features of a field, as newer and as older versions have them: a kind and a shape, or a shape.
fn features(fields: &mut Fields, names: [&str; 2]) -> Result<Vec<Feature>, ImportError> {
    let stated = names.map(|name| fields.take(name));
    let (name, value) = match stated {
        [Some(value), _] => (names[0], value),
        [None, Some(value)] => (names[1], value),
        [None, None] => return Err(refuse(names[0], "null", "what the policy observes and does is stated here")),
    };
    let expected = "features by name, each with the shape of a vector";
    let features: Map<String, Value> =
        serde_json::from_value(value.clone()).map_err(|_| refuse(name, &value, expected))?;
    let feature = |(feature, value): (String, Value)| {
        let shape = value.get("shape").unwrap_or(&value);
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).map_err(|_| refuse(name, &value, expected))?;
        let kind = match value.get("type").and_then(Value::as_str) {
            Some(kind) => kind.to_string(),
            None if feature.starts_with("observation.image") => "VISUAL".into(),
            None if feature == "observation.environment_state" => "ENV".into(),
            None if feature == "action" => "ACTION".into(),
            None => "STATE".into(),
        };
        match shape[..] {
            [len] if (1..1 << 14).contains(&len) => Ok(Feature { name: feature, kind, len }),
            _ if kind == "VISUAL" => Ok(Feature { name: feature, kind, len: 0 }),
            _ => Err(refuse(name, &value, expected)),
        }
    };
    features.into_iter().map(feature).collect()
}

/// How a feature is normalized: by its kind, or in older versions by its name.
fn mode(stated: &[Option<Value>; 3], feature: &Feature) -> Result<Mode, ImportError> {
    let [by_kind, inputs, outputs] = stated;
    let by_name = if feature.kind == "ACTION" {
        ("output_normalization_modes", outputs)
    } else {
        ("input_normalization_modes", inputs)
    };
    let (field, value) = match (by_kind, by_name) {
        (Some(map), _) => ("normalization_mapping", map.get(&feature.kind)),
        (None, (field, Some(map))) => (field, map.get(&feature.name)),
        // The defaults of the configuration's class; what it does not name is not normalized.
        (None, _) if feature.kind == "ENV" => return Ok(Mode::Identity),
        (None, _) => return Ok(Mode::MinMax),
    };
    let Some(value) = value else { return Ok(Mode::Identity) };
    let name = value.as_str().unwrap_or_default().to_ascii_uppercase();
    let found = Mode::NAMES.iter().find(|(known, _)| *known == name);
    let names: Vec<_> = Mode::NAMES.iter().map(|(known, _)| *known).collect();
    found.map(|&(_, mode)| mode).ok_or_else(|| refuse(field, value, format!("supported: {}", names.join(", "))))
}
