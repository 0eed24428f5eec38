//! The configuration of a `UNet2DModel` whose state dictionary was saved without it, or as a member of the diffusion course's
//! `ClassConditionedUnet`: what its tensors say, beside what a `config.json` without a `_class_name` states, under the names of
//! the arguments of diffusers' class. What neither says has the default of the class, as in the call that made the network.

use serde_json::{Map, Value, json};

use super::weights::Weights;
use super::{CheckpointError, Note};

/// Where the course's class keeps the `UNet2DModel`.
pub(crate) const CLASS_CONDITIONED: &str = "model.";

/// What no tensor says.
const UNTOLD: [&str; 10] = [
    "act_fn",
    "attention_head_dim",
    "attn_norm_num_groups",
    "center_input_sample",
    "downsample_padding",
    "flip_sin_to_cos",
    "freq_shift",
    "mid_block_scale_factor",
    "norm_eps",
    "norm_num_groups",
];

/// Whether the tensors are those of one, and under which prefix.
fn find(weights: &Weights) -> Option<(&'static str, &'static str)> {
    let is_unet = |prefix: &str| {
        ["conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight"]
            .iter()
            .all(|key| weights.has(&format!("{prefix}{key}")))
    };
    match () {
        () if is_unet("") => Some(("UNet2DModel", "")),
        () if is_unet(CLASS_CONDITIONED) && weights.has("class_emb.weight") => {
            Some(("ClassConditionedUnet", CLASS_CONDITIONED))
        }
        () => None,
    }
}

/// Completes the configuration, if it does not name what it is of, or if that is a member of the course's class.
pub(super) fn complete(
    config: &mut Map<String, Value>,
    weights: &Weights,
    notes: &mut Vec<Note>,
) -> Result<(), CheckpointError> {
    let Some((class, prefix)) = find(weights) else { return Ok(()) };
    let is_open = match config.get("_class_name").and_then(Value::as_str) {
        None => !["type", "policy"].iter().any(|field| config.contains_key(*field)),
        // The configuration of the member.
        Some("UNet2DModel") => !prefix.is_empty(),
        Some(name) => name == class,
    };
    if !is_open || prefix.is_empty() && config.contains_key("_class_name") {
        return Ok(());
    }
    let told = Told { weights, prefix };
    for (field, value) in told.fields() {
        match config.get(field).filter(|stated| !stated.is_null()) {
            Some(stated) if *stated != value => {
                let (field, stated) = (field.into(), stated.to_string());
                return Err(CheckpointError::Contradiction { field, stated, told: value.to_string() });
            }
            _ => config.insert(field.into(), value),
        };
    }
    let mut taken: Vec<String> =
        UNTOLD.iter().filter(|field| !config.contains_key(**field)).map(ToString::to_string).collect();
    for (field, value) in told.blocks(config)? {
        if config.get(field).is_none_or(Value::is_null) {
            if field.ends_with("types") {
                taken.push(format!("{field} = {value}"));
            }
            config.insert(field.into(), value);
        }
    }
    if !taken.is_empty() {
        notes.push(Note::Untold { class, taken });
    }
    config.insert("_class_name".into(), class.into());
    Ok(())
}

/// What tensors say.
struct Told<'w> {
    weights: &'w Weights,
    prefix: &'static str,
}

impl Told<'_> {
    fn has(&self, key: &str) -> bool {
        self.weights.has(&format!("{}{key}", self.prefix))
    }

    fn size(&self, key: &str, axis: usize) -> Option<usize> {
        self.weights.shape(&format!("{}{key}", self.prefix))?.get(axis).copied()
    }

    /// How many members a list of modules has, by a tensor of each.
    fn count(&self, list: &str, tensor: &str) -> usize {
        (0..).take_while(|at| self.has(&format!("{list}.{at}.{tensor}"))).count()
    }

    /// Fields that one value alone fits.
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let levels = self.count("down_blocks", "resnets.0.conv1.weight");
        let channels: Vec<usize> = (0..levels)
            .filter_map(|level| self.size(&format!("down_blocks.{level}.resnets.0.conv1.weight"), 0))
            .collect();
        let projected = self.size("down_blocks.0.resnets.0.time_emb_proj.weight", 0);
        let is_scaled = projected.zip(channels.first()).is_some_and(|(projected, &channels)| projected == 2 * channels);
        let (time, timesteps) = match (self.size("time_proj.weight", 0), self.size("time_proj.weight", 1)) {
            (None, _) => ("positional", None),
            (Some(_), None) => ("fourier", None),
            (Some(timesteps), Some(_)) => ("learned", Some(timesteps)),
        };
        let mut fields = vec![
            ("block_out_channels", json!(channels)),
            ("layers_per_block", json!(self.count("down_blocks.0.resnets", "conv1.weight"))),
            ("resnet_time_scale_shift", json!(if is_scaled { "scale_shift" } else { "default" })),
            ("time_embedding_type", json!(time)),
        ];
        let sizes = [
            ("in_channels", self.size("conv_in.weight", 1)),
            ("out_channels", self.size("conv_out.weight", 0)),
            ("time_embedding_dim", self.size("time_embedding.linear_1.weight", 0)),
            ("num_train_timesteps", timesteps),
            ("num_class_embeds", self.size("class_embedding.weight", 0)),
        ];
        fields.extend(sizes.into_iter().filter_map(|(field, size)| Some((field, json!(size?)))));
        if self.has("class_embedding.linear_1.weight") {
            fields.push(("class_embed_type", json!("timestep")));
        }
        if self.has("mid_block.resnets.0.conv1.weight") {
            fields.push((
                "add_attention",
                json!(
                    self.has("mid_block.attentions.0.to_out.0.weight")
                        || self.has("mid_block.attentions.0.proj_attn.weight")
                ),
            ));
        } else {
            fields.push(("mid_block_type", Value::Null));
        }
        fields
    }

    /// The kinds of blocks, of which several may have the same tensors.
    fn blocks(&self, config: &Map<String, Value>) -> Result<Vec<(&'static str, Value)>, CheckpointError> {
        let mut found = vec![];
        for (way, types, resampling, list, filter) in [
            ("Down", "down_block_types", "downsample_type", "downsamplers", "resnet_down"),
            ("Up", "up_block_types", "upsample_type", "upsamplers", "resnet_up"),
        ] {
            let path = format!("{}_blocks", way.to_lowercase());
            let levels = self.count(&path, "resnets.0.conv1.weight");
            let (mut kinds, mut resample) = (vec![], "conv");
            let is_stated = config.get(types).is_some_and(|stated| !stated.is_null());
            for level in 0..levels {
                let attentions = self.count(&format!("{path}.{level}.attentions"), "group_norm.weight");
                let (attends, is_resnet) = (attentions > 0, self.has(&format!("{path}.{level}.{list}.0.conv1.weight")));
                let is_filtered = self.has(&format!("{path}.{level}.{filter}.conv1.weight"))
                    || attends && attentions < self.count(&format!("{path}.{level}.resnets"), "conv1.weight");
                if is_filtered && !is_stated {
                    return Err(CheckpointError::Unstated { field: types });
                }
                if attends && is_resnet {
                    resample = "resnet";
                }
                kinds.push(match (attends, is_resnet) {
                    (true, _) => format!("Attn{way}Block2D"),
                    (false, true) => format!("Resnet{way}sampleBlock2D"),
                    (false, false) => format!("{way}Block2D"),
                });
            }
            found.extend([(types, json!(kinds)), (resampling, json!(resample))]);
        }
        Ok(found)
    }
}
