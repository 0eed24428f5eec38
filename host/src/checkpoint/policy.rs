//! What robot policies' own configurations say of sampling: LeRobot's `config.json`, and the YAML that diffusion_policy's
//! training scripts leave in `.hydra`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::folder::{CONFIGS, first_file};
use super::{CheckpointError, parse, read};
use crate::schedule::SchedulerConfig;

/// Reads a folder's configuration.
pub(super) fn config(folder: &Path) -> Result<Map<String, Value>, CheckpointError> {
    let path = first_file(CONFIGS.map(|name| folder.join(name)))?;
    let path = path.unwrap_or_else(|| folder.join(CONFIGS[0]));
    if path.extension().is_some_and(|extension| extension == "json") {
        return parse(&path);
    }
    let text = read(&path)?;
    serde_saphyr::from_str(&text).map_err(|error| CheckpointError::Yaml { path, error: Box::new(error) })
}

/// How a policy is sampled.
pub(super) struct Sampling {
    pub(super) scheduler: SchedulerConfig,
    pub(super) steps: Option<usize>,
}

/// How the policy of a configuration is sampled; `None` if it is none.
pub(super) fn sampling(config: &Map<String, Value>) -> Result<Option<Sampling>, CheckpointError> {
    let of_lerobot = config.get("type").and_then(Value::as_str) == Some("diffusion");
    match config.get("policy").and_then(Value::as_object) {
        None if of_lerobot => lerobot(config).map(Some),
        Some(policy) => diffusion_policy(policy),
        None => Ok(None),
    }
}

/// LeRobot hands these fields, with these defaults, to the scheduler that `noise_scheduler_type` names.
fn lerobot(config: &Map<String, Value>) -> Result<Sampling, CheckpointError> {
    let defaults = json!({
        "num_train_timesteps": 100, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "epsilon", "clip_sample": true, "clip_sample_range": 1.0,
    });
    let mut scheduler = defaults.as_object().cloned().unwrap_or_default();
    for (field, value) in &mut scheduler {
        if let Some(stated) = config.get(field) {
            value.clone_from(stated);
        }
    }
    let kind = match config.get("noise_scheduler_type") {
        None => "DDPM",
        Some(Value::String(kind)) => kind,
        Some(value) => return Err(refuse("noise_scheduler_type", value, "a scheduler's name, DDPM or DDIM")),
    };
    scheduler.insert("_class_name".into(), format!("{kind}Scheduler").into());
    sampled(config, &scheduler)
}

/// The scheduler's class is the last part of its `_target_`, its other fields are that class's.
fn diffusion_policy(policy: &Map<String, Value>) -> Result<Option<Sampling>, CheckpointError> {
    let Some(stated) = policy.get("noise_scheduler").and_then(Value::as_object) else { return Ok(None) };
    let mut scheduler = stated.clone();
    match scheduler.remove("_target_") {
        Some(Value::String(target)) => {
            let class = target.rsplit('.').next().unwrap_or_default();
            scheduler.insert("_class_name".into(), class.into());
        }
        stated => {
            let value = stated.unwrap_or_default();
            return Err(refuse("policy.noise_scheduler._target_", &value, "the name of a scheduler's class"));
        }
    }
    sampled(policy, &scheduler).map(Some)
}

/// Runs of a policy take as many steps as it states, or as its scheduler was trained with.
fn sampled(policy: &Map<String, Value>, scheduler: &Map<String, Value>) -> Result<Sampling, CheckpointError> {
    let steps = match policy.get("num_inference_steps") {
        None | Some(Value::Null) => scheduler.get("num_train_timesteps").and_then(count),
        Some(value) => {
            let expected = "an integer from 1, or null: as many as the training had";
            Some(count(value).ok_or_else(|| refuse("num_inference_steps", value, expected))?)
        }
    };
    Ok(Sampling { scheduler: SchedulerConfig::from_json(&Value::Object(scheduler.clone()).to_string())?, steps })
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0)
}

fn refuse(field: &'static str, value: &Value, expected: &'static str) -> CheckpointError {
    CheckpointError::Field { field, value: value.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Sampling> {
        let config: Map<String, Value> = serde_saphyr::from_str(text).expect("YAML");
        sampling(&config).expect("a scheduler")
    }

    #[test]
    fn lerobots_defaults_are_its_own() {
        let found = of("type: diffusion\nnoise_scheduler_type: DDIM\nnum_inference_steps: 10").expect("a policy");
        assert_eq!((found.scheduler.class_name.as_str(), found.steps), ("DDIMScheduler", Some(10)));
        assert_eq!((found.scheduler.num_train_timesteps, found.scheduler.clip), (100, Some(1.0)));
        let found = of("type: diffusion\nnum_inference_steps: null\nnum_train_timesteps: 50").expect("a policy");
        assert_eq!((found.scheduler.class_name.as_str(), found.steps), ("DDPMScheduler", Some(50)));
        assert!(of("type: act").is_none());
    }

    #[test]
    fn diffusion_policy_names_the_schedulers_class() {
        let text = "policy:\n  noise_scheduler:\n    _target_: diffusers.schedulers.scheduling_ddpm.DDPMScheduler\n    \
                    num_train_timesteps: 100\n    beta_schedule: squaredcos_cap_v2\n  num_inference_steps: 16\n";
        let found = of(text).expect("a policy");
        assert_eq!((found.scheduler.class_name.as_str(), found.steps), ("DDPMScheduler", Some(16)));
        assert!(of("policy:\n  _target_: x").is_none());
    }

    #[test]
    fn values_of_another_kind_are_not_taken_for_absent() {
        let class = "policy:\n  noise_scheduler:\n    _target_: a.DDPMScheduler\n";
        for (text, expected) in [
            ("type: diffusion\nnoise_scheduler_type: 5".into(), "noise_scheduler_type = 5"),
            ("type: diffusion\nnoise_scheduler_type: null".into(), "noise_scheduler_type = null"),
            ("type: diffusion\nnum_inference_steps: 0".into(), "num_inference_steps = 0"),
            ("type: diffusion\nnum_inference_steps: '16'".into(), "num_inference_steps = \"16\""),
            (format!("{class}  num_inference_steps: 1.5"), "num_inference_steps = 1.5"),
            ("policy:\n  noise_scheduler:\n    _target_: 3".into(), "_target_ = 3"),
            ("policy:\n  noise_scheduler:\n    beta_end: 0.1".into(), "_target_ = null"),
        ] {
            let config: Map<String, Value> = serde_saphyr::from_str(&text).expect("YAML");
            let error = sampling(&config).err().expect(&text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
