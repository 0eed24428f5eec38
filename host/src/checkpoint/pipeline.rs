//! What lies around a model: its scheduler's configuration, and the other parts of a pipeline.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::folder::{Found, first_file, has_file};
use super::{CheckpointError, Note, parse, read};
use crate::schedule::SchedulerConfig;

const SCHEDULER: &str = "scheduler_config.json";

/// A scheduler's configuration and where it was found.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) config: SchedulerConfig,
    /// `None` if it was given as text.
    pub(super) path: Option<PathBuf>,
}

/// The folder that a folder lies in.
fn parent(folder: &Path) -> Option<PathBuf> {
    Some(fs::canonicalize(folder).ok()?.parent()?.to_path_buf())
}

/// The pipeline's folder, if the model's is a part of one.
fn pipeline(found: &Found) -> Option<PathBuf> {
    if found.model != found.top {
        return Some(found.top.clone());
    }
    let name = fs::canonicalize(&found.model).ok()?;
    let name = name.file_name()?.to_string_lossy().into_owned();
    let outer = parent(&found.model)?;
    let is_part = outer.join("model_index.json").is_file() || outer.join("scheduler").join(SCHEDULER).is_file();
    // The parent of a model that is no part of a pipeline may be anything.
    (is_part || name.starts_with("unet") && !outer.join("config.json").is_file()).then_some(outer)
}

/// The scheduler's configuration: the one that was asked for, or wherever diffusers puts it.
pub(super) fn scheduler(
    found: &Found,
    asked: Option<&Path>,
    notes: &mut Vec<Note>,
) -> Result<Option<Scheduler>, CheckpointError> {
    let open = |path: PathBuf| {
        let config = SchedulerConfig::from_json(&read(&path)?)?;
        Ok(Some(Scheduler { config, path: Some(path) }))
    };
    if let Some(asked) = asked {
        return open(if asked.is_dir() { asked.join(SCHEDULER) } else { asked.into() });
    }
    let pipeline = pipeline(found);
    let mut places = vec![found.model.join("scheduler").join(SCHEDULER), found.model.join(SCHEDULER)];
    if let Some(pipeline) = &pipeline {
        places =
            vec![pipeline.join("scheduler").join(SCHEDULER), found.model.join(SCHEDULER), pipeline.join(SCHEDULER)];
    }
    let mut places = places.into_iter();
    let Some(taken) = first_file(&mut places)? else { return Ok(None) };
    while let Some(other) = first_file(&mut places)? {
        if read(&other)? != read(&taken)? {
            notes.push(Note::OtherScheduler { taken: taken.clone(), other });
        }
    }
    if !taken.starts_with(&found.top) {
        notes.push(Note::Scheduler { path: taken.clone() });
    }
    open(taken)
}

/// A scheduler's configuration that is not where the model's would be, but near.
pub(super) fn near_scheduler(top: &Path) -> Option<PathBuf> {
    let outer = parent(top)?;
    let further = parent(&outer);
    let places = [Some(outer), further].into_iter().flatten();
    places.flat_map(|folder| [folder.join("scheduler").join(SCHEDULER), folder.join(SCHEDULER)]).find(|p| p.is_file())
}

/// Parts of a pipeline that decode latents into pictures.
const DECODERS: [&str; 3] = ["vae", "vqvae", "movq"];
/// Parts that change nothing in a sample, or that are read here.
const READ: [&str; 2] = ["unet", "scheduler"];

/// Tells of a pipeline's other parts; the one that decodes latents, if there is one.
pub(super) fn decoder(found: &Found, notes: &mut Vec<Note>) -> Result<Option<String>, CheckpointError> {
    let Some(pipeline) = pipeline(found) else { return Ok(None) };
    let mut parts: Vec<(String, String)> = vec![];
    let index = pipeline.join("model_index.json");
    if has_file(&index)? {
        let index: Map<String, Value> = parse(&index)?;
        for (name, value) in index {
            // A library and a class; nulls where an optional part is missing.
            if let Some([_, Value::String(class)]) = value.as_array().map(Vec::as_slice) {
                parts.push((name, class.clone()));
            }
        }
    }
    for name in DECODERS {
        let config = pipeline.join(name).join("config.json");
        if has_file(&config)? && !parts.iter().any(|(part, _)| part == name) {
            parts.push((name.into(), String::new()));
        }
    }
    let name = found.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut decoder = None;
    for (part, class) in parts {
        if DECODERS.contains(&part.as_str()) {
            decoder = Some(if class.is_empty() { part } else { format!("{part} ({class})") });
        } else if !READ.contains(&part.as_str()) && part != name {
            notes.push(Note::Part { name: part, class });
        }
    }
    Ok(decoder)
}

/// Tells of averaged weights beside the ones that were opened.
pub(super) fn averaged_beside(found: &Found, notes: &mut Vec<Note>) {
    let averaged = found.top.join("unet_ema");
    if found.model != found.top && averaged.join("config.json").is_file() {
        notes.push(Note::AveragedBeside { folder: averaged });
    }
}
