//! The configuration of a `UNet1DModel`.

use serde_json::{Map, Value};

use super::super::ImportError;
use super::super::config::{ACTIVATIONS, Fields, refuse};
use crate::graph::Activation;

/// Blocks on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// `DownBlock1DNoSkip`: the time's channels beside the sample's.
    NoSkip,
    /// `DownBlock1D`
    Plain,
    /// `AttnDownBlock1D`
    Attention,
    /// `DownResnetBlock1D`
    Resnet,
}

/// Blocks on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Up {
    /// `UpBlock1DNoSkip`: the last, without a normalization at its end.
    NoSkip,
    /// `UpBlock1D`
    Plain,
    /// `AttnUpBlock1D`
    Attention,
    /// `UpResnetBlock1D`
    Resnet,
}

/// Blocks in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Middle {
    /// `UNetMidBlock1D`
    Attention,
    /// `MidResTemporalBlock1D`
    Resnet,
    /// `ValueFunctionMidBlock1D`
    Value,
}

const DOWNS: [(&str, Down); 4] = [
    ("DownBlock1DNoSkip", Down::NoSkip),
    ("DownBlock1D", Down::Plain),
    ("AttnDownBlock1D", Down::Attention),
    ("DownResnetBlock1D", Down::Resnet),
];
const UPS: [(&str, Up); 4] = [
    ("UpBlock1DNoSkip", Up::NoSkip),
    ("UpBlock1D", Up::Plain),
    ("AttnUpBlock1D", Up::Attention),
    ("UpResnetBlock1D", Up::Resnet),
];
const MIDDLES: [(&str, Middle); 3] = [
    ("UNetMidBlock1D", Middle::Attention),
    ("MidResTemporalBlock1D", Middle::Resnet),
    ("ValueFunctionMidBlock1D", Middle::Value),
];

/// Most steps of a row.
const MOST_STEPS: usize = 1 << 15;

/// The fields that change the network, with diffusers' defaults.
pub(super) struct Config {
    pub(super) steps: usize,
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) is_fourier: bool,
    /// Length of the projected timestep.
    pub(super) time: usize,
    pub(super) flip_sin_to_cos: bool,
    pub(super) freq_shift: f64,
    /// The activation of the timestep's perceptron, if there is one.
    pub(super) perceptron: Option<Activation>,
    pub(super) down: Vec<Down>,
    pub(super) up: Vec<Up>,
    pub(super) middle: Middle,
    pub(super) channels: Vec<usize>,
    pub(super) layers_per_block: usize,
    pub(super) downsample_each_block: bool,
    /// Groups and activation of `OutConv1DBlock`, if that is the last.
    pub(super) out_block: Option<(usize, Activation)>,
}

impl Config {
    pub(super) fn read(config: &Map<String, Value>) -> Result<Self, ImportError> {
        let mut fields = Fields::new(config);
        let channels = channels(fields.take_stated("block_out_channels"))?;
        let first = channels[0];
        let is_fourier = fields.choice("time_embedding_type", &[("fourier", true), ("positional", false)])?;
        let time_embedding_dim = fields.int("time_embedding_dim", 1 << 12)?;
        let time = if is_fourier { time_embedding_dim.unwrap_or(2 * first) } else { first };
        if is_fourier && !time.is_multiple_of(2) {
            return Err(refuse("time_embedding_dim", time, "an even number"));
        }
        let activation = match fields.take("act_fn") {
            None => None,
            Some(value) => {
                let mut field = Fields::new(&Map::from_iter([("act_fn".to_owned(), value)]));
                Some(field.choice_in_any_case("act_fn", &ACTIVATIONS)?)
            }
        };
        let named =
            |field: &str| refuse(field, "without act_fn", "an act_fn, without which diffusers does not build it");
        let has_perceptron = fields.flag("use_timestep_embedding", false)?;
        let perceptron = has_perceptron.then(|| activation.ok_or_else(|| named("use_timestep_embedding")));
        let groups = match fields.int("norm_num_groups", 1 << 12)? {
            None if config.contains_key("norm_num_groups") => (first / 4).min(32),
            stated => stated.unwrap_or(8),
        };
        let out_block = match fields.take("out_block_type") {
            None => None,
            Some(Value::String(name)) if name == "OutConv1DBlock" => {
                Some((groups, activation.ok_or_else(|| named("out_block_type"))?))
            }
            Some(value) if value == "ValueFunction" => {
                let expected = "null or OutConv1DBlock: the value of a trajectory is no noise to remove";
                return Err(refuse("out_block_type", value, expected));
            }
            // diffusers builds none of another name.
            Some(_) => None,
        };
        let read = Self {
            steps: steps(fields.take("sample_size"), config.contains_key("sample_size"))?,
            in_channels: fields.count("in_channels", 2, 1024)?,
            out_channels: fields.count("out_channels", 2, 1024)?,
            is_fourier,
            time,
            flip_sin_to_cos: fields.flag("flip_sin_to_cos", true)?,
            freq_shift: fields.float("freq_shift", 0.0)?,
            perceptron: perceptron.transpose()?,
            down: fields
                .choices("down_block_types", |name| named_of(&DOWNS, name))?
                .unwrap_or_else(|| vec![Down::NoSkip, Down::Plain, Down::Attention]),
            up: fields
                .choices("up_block_types", |name| named_of(&UPS, name))?
                .unwrap_or_else(|| vec![Up::Attention, Up::Plain, Up::NoSkip]),
            middle: fields.choice("mid_block_type", &MIDDLES)?,
            channels,
            layers_per_block: fields.count("layers_per_block", 1, 64)?,
            downsample_each_block: fields.flag("downsample_each_block", false)?,
            out_block,
        };
        let extra = match fields.take_stated("extra_in_channels") {
            None => 0,
            Some(value) => match value.as_u64() {
                Some(channels @ 0..=8192) => channels as usize,
                _ => return Err(refuse("extra_in_channels", value, "an integer from 0 to 8192")),
            },
        };
        // It says how the sound was recorded, not what is computed.
        fields.take("sample_rate");
        fields.finish()?;
        read.check(extra)?;
        Ok(read)
    }

    /// Whether some block projects the embedding of the timestep.
    fn is_conditioned(&self) -> bool {
        self.down.contains(&Down::Resnet) || self.up.contains(&Up::Resnet) || self.middle != Middle::Attention
    }

    /// What diffusers asks for when it builds the network or runs it.
    fn check(&self, extra: usize) -> Result<(), ImportError> {
        let blocks = self.channels.len();
        if self.down.is_empty() || self.down.len() > blocks {
            let expected = format!("one to {blocks}, as many as block_out_channels");
            return Err(refuse("down_block_types", format!("{} blocks", self.down.len()), expected));
        }
        if self.up.len() > self.down.len() {
            let expected = format!("at most {}, as many as there are on the way down", self.down.len());
            return Err(refuse("up_block_types", format!("{} blocks", self.up.len()), expected));
        }
        let beside = if self.down[0] == Down::NoSkip { self.time } else { 0 };
        if extra != beside {
            let expected = format!("{beside}: the channels of the time that the first block reads beside the sample");
            return Err(refuse("extra_in_channels", extra, expected));
        }
        if self.down[1..].contains(&Down::NoSkip) {
            return Err(refuse("down_block_types", "DownBlock1DNoSkip behind others", "it as the first alone"));
        }
        if beside > 0 && self.perceptron.is_some() {
            let expected = "false, as DownBlock1DNoSkip reads the projected timestep itself";
            return Err(refuse("use_timestep_embedding", true, expected));
        }
        if self.is_conditioned() && self.perceptron.is_none() {
            return Err(refuse("use_timestep_embedding", false, "true, as residual blocks project the embedding"));
        }
        if let Some((groups, _)) = self.out_block
            && (groups == 0 || !self.channels[0].is_multiple_of(groups))
        {
            return Err(refuse("norm_num_groups", groups, format!("a divisor of {} channels", self.channels[0])));
        }
        if self.freq_shift >= (self.channels[0] / 2) as f64 && !self.is_fourier {
            return Err(refuse("freq_shift", self.freq_shift, "below half the first channel count"));
        }
        Ok(())
    }
}

fn named_of<T: Copy>(choices: &[(&str, T)], name: &str) -> Result<T, String> {
    choices.iter().find(|(known, _)| *known == name).map(|&(_, choice)| choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
        format!("supported: {}", names.join(", "))
    })
}

/// The length of a row: a number, or one row of it.
fn steps(value: Option<Value>, is_stated: bool) -> Result<usize, ImportError> {
    let found = match &value {
        None if !is_stated => Some(65_536),
        Some(Value::Number(steps)) => steps.as_u64(),
        Some(Value::Array(list)) => match list.as_slice() {
            [rows, steps] if rows.as_u64() == Some(1) => steps.as_u64(),
            _ => None,
        },
        _ => None,
    };
    match found.and_then(|steps| usize::try_from(steps).ok()) {
        Some(steps) if (1..=MOST_STEPS).contains(&steps) => Ok(steps),
        _ => {
            let value = found.map_or(value.unwrap_or(Value::Null), Value::from);
            let expected =
                format!("the plan is for one length: give 1 to {MOST_STEPS} steps, on the command line as --size 1,64");
            Err(refuse("sample_size", value, expected))
        }
    }
}

fn channels(value: Option<Value>) -> Result<Vec<usize>, ImportError> {
    let Some(value) = value else { return Ok(vec![32, 32, 64]) };
    serde_json::from_value::<Vec<usize>>(value.clone())
        .ok()
        .filter(|list| (1..=16).contains(&list.len()) && list.iter().all(|c| (2..=8192).contains(c)))
        .ok_or_else(|| refuse("block_out_channels", value, "1 to 16 channel counts from 2 to 8192"))
}
