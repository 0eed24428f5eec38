//! Normalization statistics: how observations enter the network, and how what it draws becomes actions.

use super::super::ImportError;
use crate::checkpoint::Checkpoint;

/// How a feature is normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// To mean 0 and deviation 1.
    MeanStd,
    /// From its least and largest value to −1 and 1.
    MinMax,
    /// Not at all.
    Identity,
}

impl Mode {
    /// By their names.
    pub(super) const NAMES: [(&str, Self); 3] =
        [("MEAN_STD", Self::MeanStd), ("MIN_MAX", Self::MinMax), ("IDENTITY", Self::Identity)];
}

/// What LeRobot adds to ranges and deviations.
const EPS: f64 = 1e-8;

/// The two statistics that a mode reads.
fn pair(checkpoint: &Checkpoint, key: &str, names: [&str; 2], len: usize) -> Result<Vec<[f64; 2]>, ImportError> {
    let keys = names.map(|name| format!("{key}.{name}"));
    if let Some(missing) = keys.iter().find(|key| !checkpoint.has(key)) {
        return Err(ImportError::Statistics { key: missing.clone() });
    }
    let read = |key: &String| checkpoint.tensor(key, &[len]);
    let (first, second) = (read(&keys[0])?, read(&keys[1])?);
    Ok(first.into_iter().zip(second).map(|(first, second)| [first.into(), second.into()]).collect())
}

/// A center and a gain of each element of an observed feature, from LeRobot's buffers at `key`.
pub(super) fn observed(
    checkpoint: &Checkpoint,
    key: &str,
    mode: Mode,
    len: usize,
) -> Result<Vec<[f64; 2]>, ImportError> {
    Ok(match mode {
        Mode::Identity => vec![[0.0, 1.0]; len],
        Mode::MeanStd => {
            let pairs = pair(checkpoint, key, ["mean", "std"], len)?;
            pairs.into_iter().map(|[mean, deviation]| [mean, 1.0 / (deviation + EPS)]).collect()
        }
        Mode::MinMax => {
            let pairs = pair(checkpoint, key, ["min", "max"], len)?;
            let of = |[min, max]: [f64; 2]| [min + (max - min + EPS) / 2.0, 2.0 / (max - min + EPS)];
            pairs.into_iter().map(of).collect()
        }
    })
}

/// A gain and an offset of each action, from LeRobot's buffers at `key`.
pub(super) fn acted(checkpoint: &Checkpoint, key: &str, mode: Mode, len: usize) -> Result<Vec<[f64; 2]>, ImportError> {
    Ok(match mode {
        Mode::Identity => vec![[1.0, 0.0]; len],
        Mode::MeanStd => {
            pair(checkpoint, key, ["mean", "std"], len)?.into_iter().map(|[mean, std]| [std, mean]).collect()
        }
        Mode::MinMax => {
            let of = |[min, max]: [f64; 2]| [(max - min) / 2.0, f64::midpoint(min, max)];
            pair(checkpoint, key, ["min", "max"], len)?.into_iter().map(of).collect()
        }
    })
}

/// A factor and a summand of each element, diffusion_policy's `LinearNormalizer`: `normalized = x·scale + offset`.
pub(super) fn linear(checkpoint: &Checkpoint, key: &str, len: usize) -> Result<Vec<[f64; 2]>, ImportError> {
    let pairs = pair(checkpoint, key, ["scale", "offset"], len)?;
    if let Some(index) = pairs.iter().position(|[scale, _]| *scale == 0.0) {
        let what = format!("{key}.scale has a zero at {index}; what is not normalized has a scale of 1");
        return Err(ImportError::Policy { what });
    }
    // What the factors were made from is kept beside them, and not needed.
    for name in ["min", "max", "mean", "std"] {
        let statistic = format!("{key}.input_stats.{name}");
        if checkpoint.has(&statistic) {
            checkpoint.tensor(&statistic, &[len])?;
        }
    }
    Ok(pairs)
}
