//! What the names of an OpenAI `UNetModel`'s tensors say of its levels.

use super::super::ImportError;
use crate::checkpoint::Checkpoint;

/// One size of maps.
pub(super) struct Level {
    pub(super) channels: usize,
    /// Whether an attention follows each residual block.
    pub(super) attention: bool,
}

/// How the blocks are numbered: a list on the way down, `layers` for each level and one that halves between levels, and one
/// on the way up, `layers + 1` for each level, the last of which doubles.
pub(super) struct Layout {
    /// From the largest maps to the smallest.
    pub(super) levels: Vec<Level>,
    /// Residual blocks of a level on the way down.
    pub(super) layers: usize,
    /// Whether residual blocks halve and double; else convolutions.
    pub(super) resnets_resample: bool,
}

/// What doubles at the end of a block on the way up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubling {
    Conv,
    Resnet,
}

impl Layout {
    /// Reads it off the keys.
    pub(super) fn find(checkpoint: &Checkpoint) -> Result<Self, ImportError> {
        let has = |key: String| checkpoint.has(&key);
        let refuse = |what: String| Err(ImportError::Layout { what });
        let outputs = (0..).take_while(|i| has(format!("output_blocks.{i}.0.in_layers.0.weight"))).count();
        let inputs = 1
            + (1..)
                .take_while(|i| {
                    has(format!("input_blocks.{i}.0.in_layers.0.weight"))
                        || has(format!("input_blocks.{i}.0.op.weight"))
                })
                .count();
        let doubling = |i: usize| {
            let part = 1 + usize::from(has(format!("output_blocks.{i}.1.qkv.weight")));
            match part {
                _ if has(format!("output_blocks.{i}.{part}.conv.weight")) => Some(Doubling::Conv),
                _ if has(format!("output_blocks.{i}.{part}.in_layers.0.weight")) => Some(Doubling::Resnet),
                _ => None,
            }
        };
        let doublings: Vec<(usize, Doubling)> = (0..outputs).filter_map(|i| Some((i, doubling(i)?))).collect();
        let levels = doublings.len() + 1;
        let per_level = outputs / levels;
        let is_even = outputs.is_multiple_of(levels) && per_level >= 2;
        let are_last = doublings.iter().enumerate().all(|(level, &(i, _))| i + 1 == (level + 1) * per_level);
        if !is_even || !are_last {
            let places: Vec<usize> = doublings.iter().map(|&(i, _)| i).collect();
            return refuse(format!(
                "{outputs} output_blocks, of which {places:?} double the map: not the end of every level's; resampling without \
                 weights (conv_resample=False) is not supported"
            ));
        }
        let layers = per_level - 1;
        let expected = 1 + levels * layers + levels - 1;
        if inputs != expected {
            return refuse(format!(
                "{inputs} input_blocks, where {outputs} output_blocks of {levels} levels need {expected}"
            ));
        }
        let resnets_resample = matches!(doublings.first(), Some((_, Doubling::Resnet)));
        let mut found = Self { levels: vec![], layers, resnets_resample };
        for level in 0..levels {
            let block = |layer: usize| found.input(level, layer);
            let key = format!("input_blocks.{}.0.out_layers.3.weight", block(0));
            let Some(&channels) = checkpoint.shape(&key).and_then(<[usize]>::first) else {
                return refuse(format!("there is no {key}"));
            };
            let attends = |layer: usize| has(format!("input_blocks.{}.1.qkv.weight", block(layer)));
            let attention = attends(0);
            let down = (0..layers).all(|layer| attends(layer) == attention);
            let up = (0..=layers).all(|layer| {
                has(format!("output_blocks.{}.1.qkv.weight", (levels - 1 - level) * per_level + layer)) == attention
            });
            if !down || !up {
                return refuse(format!("some blocks of level {level} have an attention and some have none"));
            }
            let halves = format!("input_blocks.{}.0.op.weight", block(layers));
            if level + 1 < levels && has(halves.clone()) == resnets_resample {
                return refuse(format!("{halves}: maps are halved and doubled by different kinds of blocks"));
            }
            found.levels.push(Level { channels, attention });
        }
        if doublings.iter().any(|&(_, kind)| (kind == Doubling::Resnet) != resnets_resample) {
            return refuse("maps are doubled by different kinds of blocks".into());
        }
        Ok(found)
    }

    /// Number of a block on the way down; that of layer `layers` halves.
    pub(super) fn input(&self, level: usize, layer: usize) -> usize {
        1 + level * (self.layers + 1) + layer
    }

    /// Number of a block on the way up.
    pub(super) fn output(&self, level: usize, layer: usize) -> usize {
        (self.levels.len() - 1 - level) * (self.layers + 1) + layer
    }
}
