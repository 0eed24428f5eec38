//! The noise schedule that lucidrains' denoising-diffusion-pytorch keeps among its tensors: β of each timestep and, in the
//! weights of the loss, what the network predicts.

use serde_json::{Map, Value, json};

use super::weights::Weights;
use super::{CheckpointError, SchedulerConfig};

/// What `config.json` calls the network.
pub(crate) const CLASS: &str = "denoising_diffusion_pytorch.Unet";
/// Where the tensors of `GaussianDiffusion` stand, those of averages first.
pub(crate) const PREFIXES: [&str; 2] = ["ema_model.", ""];

/// The schedule, if the configuration is of such a network and there is one.
pub(super) fn scheduler(
    config: &Map<String, Value>,
    weights: &Weights,
) -> Result<Option<SchedulerConfig>, CheckpointError> {
    if config.get("_class_name").and_then(Value::as_str) != Some(CLASS) {
        return Ok(None);
    }
    let Some(prefix) = PREFIXES.into_iter().find(|prefix| weights.has(&format!("{prefix}betas"))) else {
        return Ok(None);
    };
    let of_timesteps = |name: &str| -> Result<Option<Vec<f32>>, CheckpointError> {
        let key = format!("{prefix}{name}");
        let Some(shape) = weights.shape(&key).map(<[usize]>::to_vec) else { return Ok(None) };
        weights.tensor(&key, &shape).map(Some)
    };
    let betas = of_timesteps("betas")?.unwrap_or_default();
    let objective = match config.get("objective").filter(|value| !value.is_null()) {
        Some(value) => value.as_str().and_then(|name| {
            OBJECTIVES.iter().find(|(objective, _)| *objective == name).map(|(_, prediction)| *prediction)
        }),
        None => match (of_timesteps("loss_weight")?, of_timesteps("alphas_cumprod")?) {
            (Some(weights), Some(alphas)) => objective(&weights, &alphas),
            _ => None,
        },
    };
    let Some(prediction) = objective else {
        return Err(CheckpointError::Objective { found: config.get("objective").unwrap_or(&Value::Null).to_string() });
    };
    let scheduler = json!({
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": betas.len(),
        "trained_betas": betas,
        "clip_sample": true,
        "set_alpha_to_one": true,
        "timestep_spacing": "trailing",
        "prediction_type": prediction,
    });
    Ok(Some(SchedulerConfig::from_json(&scheduler.to_string())?))
}

/// What a network predicts, by its names there and in diffusers.
const OBJECTIVES: [(&str, &str); 3] = [("pred_noise", "epsilon"), ("pred_x0", "sample"), ("pred_v", "v_prediction")];

/// What the weights of the loss belong to: with the ratio r of signal to noise and its bound b (Hang et al., 2023,
/// arXiv:2303.09556) they are b/r for noise, b for the clean sample, and b/(r + 1) for v. The bound is above 1, so where r is near 1
/// they are 1, 1 and 1/2, and where it is small 1, r and r.
fn objective(weights: &[f32], alphas: &[f32]) -> Option<&'static str> {
    let ratio = |alpha: f32| f64::from(alpha) / (1.0 - f64::from(alpha));
    let mut fits = [true; 3];
    let mut told = 0;
    for (&weight, &alpha) in weights.iter().zip(alphas) {
        let r = ratio(alpha);
        // Not where the bound may be; in single precision a small ratio is coarse.
        if r.is_finite() && (1e-4..=1.0).contains(&r) {
            let expected = [1.0, r, r / (r + 1.0)];
            let near = |expected: &f64| (f64::from(weight) - expected).abs() <= 1e-3 * expected;
            fits.iter_mut().zip(&expected).for_each(|(fits, expected)| *fits &= near(expected));
            told += 1;
        }
    }
    let found: Vec<&'static str> =
        OBJECTIVES.iter().zip(fits).filter(|(_, fits)| *fits).map(|((_, prediction), _)| *prediction).collect();
    match found[..] {
        [only] if told > 0 => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::objective;

    #[test]
    fn weights_of_the_loss_tell_the_objective() {
        let alphas: Vec<f32> = (0..100).map(|t| 0.999 - 0.00998 * t as f32).collect();
        let weigh = |f: &dyn Fn(f32) -> f32| -> Vec<f32> { alphas.iter().map(|a| f(a / (1.0 - a))).collect() };
        assert_eq!(objective(&weigh(&|_| 1.0), &alphas), Some("epsilon"));
        assert_eq!(objective(&weigh(&|r| r.min(5.0) / r), &alphas), Some("epsilon"));
        assert_eq!(objective(&weigh(&|r| r.min(5.0)), &alphas), Some("sample"));
        assert_eq!(objective(&weigh(&|r| r.min(5.0) / (r + 1.0)), &alphas), Some("v_prediction"));
        assert_eq!(objective(&weigh(&|r| r * r), &alphas), None);
        assert_eq!(objective(&[], &[]), None);
    }
}
