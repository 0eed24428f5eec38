//! What robot policies' own configurations say of sampling: LeRobot's `config.json`, and the YAML that diffusion_policy's
//! training scripts leave in `.hydra`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{CheckpointError, parse, read};
use crate::schedule::SchedulerConfig;

/// Names of the configuration in a folder, in the order in which they are looked for.
pub(super) const CONFIGS: [&str; 3] = ["config.json", "config.yaml", ".hydra/config.yaml"];

/// Reads a folder's configuration.
pub(super) fn config(folder: &Path) -> Result<Map<String, Value>, CheckpointError> {
    let path = CONFIGS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
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
    let kind = config.get("noise_scheduler_type").and_then(Value::as_str).unwrap_or("DDPM");
    scheduler.insert("_class_name".into(), format!("{kind}Scheduler").into());
    let steps = [config.get("num_inference_steps"), scheduler.get("num_train_timesteps")];
    Ok(Sampling { steps: steps.into_iter().flatten().find_map(count), scheduler: read_scheduler(&scheduler)? })
}

/// The scheduler's class is the last part of its `_target_`, its other fields are that class's.
fn diffusion_policy(policy: &Map<String, Value>) -> Result<Option<Sampling>, CheckpointError> {
    let Some(stated) = policy.get("noise_scheduler").and_then(Value::as_object) else { return Ok(None) };
    let mut scheduler = stated.clone();
    if let Some(Value::String(target)) = scheduler.remove("_target_") {
        let class = target.rsplit('.').next().unwrap_or_default();
        scheduler.insert("_class_name".into(), class.into());
    }
    let steps = [policy.get("num_inference_steps"), scheduler.get("num_train_timesteps")];
    Ok(Some(Sampling { steps: steps.into_iter().flatten().find_map(count), scheduler: read_scheduler(&scheduler)? }))
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0)
}

fn read_scheduler(fields: &Map<String, Value>) -> Result<SchedulerConfig, CheckpointError> {
    Ok(SchedulerConfig::from_json(&Value::Object(fields.clone()).to_string())?)
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
}
