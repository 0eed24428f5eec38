//! Which files of a folder are the model.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{CheckpointError, Note, parse};

/// Where a checkpoint was found.
pub(super) struct Found {
    /// The folder that was asked for.
    pub(super) top: PathBuf,
    /// The folder with the model's `config.json`.
    pub(super) model: PathBuf,
    /// A file of weights, if one was asked for.
    pub(super) file: Option<PathBuf>,
    /// Whether it is a whole network, which needs no configuration beside it.
    pub(super) is_snapshot: bool,
}

/// Names of a model's configuration in its folder, in the order in which they are looked for.
pub(super) const CONFIGS: [&str; 3] = ["config.json", "config.yaml", ".hydra/config.yaml"];
/// What diffusers calls its weights.
const STEM: &str = "diffusion_pytorch_model";
/// Kinds of files that weights come in, those first that are read without a pickle.
const KINDS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];
/// What a pickled network is called.
const SNAPSHOT: &str = "pkl";
/// What training scripts save beside the model.
const NOT_WEIGHTS: [&str; 5] = ["optimizer", "scheduler", "scaler", "random_states", "training_args"];
/// Folders that are looked through for a checkpoint when the one that was given is none.
const NEAR: usize = 4;

pub(super) fn find(path: &Path) -> Result<Found, CheckpointError> {
    if path.is_file() {
        let top = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // diffusion_policy keeps its checkpoints in a folder beside that of the configuration.
        let beside = || with_config(&top.join("..")).map(|found| found.filter(|at| at.join(CONFIGS[2]).is_file()));
        if path.extension().is_some_and(|extension| extension == SNAPSHOT) {
            return Ok(Found { top: top.into(), model: top.into(), file: Some(path.into()), is_snapshot: true });
        }
        let model = match with_config(top)? {
            None => beside()?.ok_or_else(|| no_config(top))?,
            Some(model) => model,
        };
        return Ok(Found { top: top.into(), model, file: Some(path.into()), is_snapshot: false });
    }
    if !path.is_dir() && !has_file(path)? {
        return Err(CheckpointError::NotFound { path: path.into(), advice: advice(path) });
    }
    let model = with_config(path)?.ok_or_else(|| no_config(path))?;
    Ok(Found { top: path.into(), model, file: None, is_snapshot: false })
}

/// Whether there is a file. What is there and is none is refused, so that it is not taken for one that is missing: downloads
/// leave links to nothing.
pub(super) fn has_file(path: &Path) -> Result<bool, CheckpointError> {
    let what = match (fs::metadata(path), fs::symlink_metadata(path)) {
        (Ok(found), _) if found.is_file() => return Ok(true),
        (Ok(found), _) if found.is_dir() => "a folder",
        (Ok(_), _) => "a device, a pipe or a socket",
        (Err(_), Ok(_)) => "a link that leads nowhere (download what it is for again)",
        (Err(_), Err(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        (Err(_), Err(error)) => return Err(CheckpointError::Io { path: path.into(), error }),
    };
    Err(CheckpointError::NotAFile { path: path.into(), what })
}

/// The first of some paths that is a file.
pub(super) fn first_file(paths: impl IntoIterator<Item = PathBuf>) -> Result<Option<PathBuf>, CheckpointError> {
    for path in paths {
        if has_file(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// A folder or its `unet`, whichever has a configuration.
fn with_config(folder: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    for folder in [folder.join("unet"), folder.into()] {
        if first_file(CONFIGS.map(|name| folder.join(name)))?.is_some() {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// Whether a folder is a model's or a pipeline's.
fn is_checkpoint(folder: &Path) -> bool {
    matches!(with_config(folder), Ok(Some(_)))
}

/// What to do about a path that leads nowhere.
fn advice(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut parts = text.split('/');
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    match (parts.next(), parts.next(), parts.next()) {
        (Some(owner), Some(name), None) if is_name(owner) && is_name(name) && !Path::new(owner).exists() => format!(
            "if it is a model of the Hugging Face hub, download it, for example with `hf download {text} --local-dir \
             {name}`, and give that folder"
        ),
        _ => "give the folder that save_pretrained wrote".into(),
    }
}

fn no_config(folder: &Path) -> CheckpointError {
    let advice = match names(folder) {
        names if names.is_empty() => "the folder is empty; give the folder that save_pretrained wrote".into(),
        names => match checkpoints(folder).as_slice() {
            [] if names.iter().any(|name| KINDS.iter().any(|kind| is_kind(name, kind))) => {
                "weights alone do not say which network they belong to: put its configuration beside them, which \
                 save_pretrained writes; of the state dictionary of a UNet2DModel or of the diffusion course's \
                 ClassConditionedUnet, what its call stated and tensors do not tell is enough, at least {\"sample_size\": 28}"
                    .into()
            }
            [] if names.iter().any(|name| is_kind(name, SNAPSHOT)) => {
                "a pickled network (.pkl) needs none: give the path of the file".into()
            }
            [] => "give the folder that save_pretrained wrote".into(),
            near => format!("there is one in {}: give that folder", near.join(", ")),
        },
    };
    CheckpointError::Missing { folder: folder.into(), file: "config.json", advice }
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Folders inside of a folder, or inside of these, that are checkpoints.
fn checkpoints(folder: &Path) -> Vec<String> {
    let inside = |folder: &Path| names(folder).into_iter().map(|name| folder.join(name)).collect::<Vec<_>>();
    let near = inside(folder)
        .into_iter()
        .filter(|path| path.is_dir())
        .flat_map(|path| if is_checkpoint(&path) { vec![path] } else { inside(&path) });
    let near = near.filter(|path| is_checkpoint(path));
    near.take(NEAR).map(|path| path.display().to_string()).collect()
}

/// Whether a path is that of a file of weights, by its name.
pub fn is_weights(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && KINDS.iter().chain(&[SNAPSHOT]).any(|kind| is_kind(&name, kind))
}

fn is_kind(name: &str, kind: &str) -> bool {
    name.strip_suffix(kind).is_some_and(|rest| rest.ends_with('.'))
}

/// Names of files in a folder, in order. What is called as weights are and is no file is refused, but for folders with names
/// other than diffusers'.
fn files(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut files = vec![];
    for name in names(folder) {
        let path = folder.join(&name);
        let is_weights = || name.starts_with(STEM) || KINDS.iter().any(|kind| is_kind(&name, kind)) && !path.is_dir();
        if path.is_file() || is_weights() && has_file(&path)? {
            files.push(name);
        }
    }
    Ok(files)
}

/// The files that hold the model's weights.
pub(super) fn weights(
    found: &Found,
    variant: Option<&str>,
    notes: &mut Vec<Note>,
) -> Result<Vec<PathBuf>, CheckpointError> {
    if let Some(file) = &found.file {
        return Ok(vec![file.clone()]);
    }
    let folder = &found.model;
    let names = files(folder)?;
    for name in names.iter().filter(|name| name.contains("lora_weights")) {
        notes.push(Note::Adapter { path: folder.join(name) });
    }
    let variants: BTreeSet<&str> = names.iter().filter_map(|name| variant_of(name)).collect();
    let chosen = match variant {
        Some(variant) if variants.contains(variant) => Some(variant),
        Some(_) => {
            let what = "no weights of the variant that was asked for; there are variants";
            let found = match variants.len() {
                0 => vec!["none".into()],
                _ => variants.iter().map(ToString::to_string).collect(),
            };
            return Err(CheckpointError::Ambiguous { folder: folder.clone(), what, found });
        }
        None if file_of(&names, None).is_some() => None,
        None => match variants.iter().collect::<Vec<_>>()[..] {
            [] => return other_weights(folder, &names, notes),
            [only] => {
                notes.push(Note::Variant { variant: (*only).into() });
                Some(*only)
            }
            _ => {
                let what = "the weights come in several variants; choose one as the variant to read";
                let found = variants.iter().map(ToString::to_string).collect();
                return Err(CheckpointError::Ambiguous { folder: folder.clone(), what, found });
            }
        },
    };
    match file_of(&names, chosen) {
        Some(name) if name.ends_with(".json") => shards(folder, name),
        Some(name) => Ok(vec![folder.join(name)]),
        None => Err(no_weights(folder)),
    }
}

/// `fp16` of `diffusion_pytorch_model.fp16.safetensors` and `diffusion_pytorch_model.safetensors.index.fp16.json`.
fn variant_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(STEM)?.strip_prefix('.')?;
    let whole = ["safetensors", "bin"].iter().find_map(|kind| rest.strip_suffix(kind)?.strip_suffix('.'));
    let index = ["safetensors.index.", "bin.index."];
    let sharded = || index.iter().find_map(|index| rest.strip_prefix(index)?.strip_suffix(".json"));
    // A shard's name carries its number behind the variant's.
    whole.or_else(sharded).filter(|variant| !variant.contains("-of-"))
}

/// The file of a variant: whole before sharded, safetensors before pickles.
fn file_of<'n>(names: &'n [String], variant: Option<&str>) -> Option<&'n String> {
    ["safetensors", "bin"]
        .iter()
        .flat_map(|kind| match variant {
            None => [format!("{STEM}.{kind}"), format!("{STEM}.{kind}.index.json")],
            Some(variant) => [format!("{STEM}.{variant}.{kind}"), format!("{STEM}.{kind}.index.{variant}.json")],
        })
        .find_map(|wanted| names.iter().find(|name| **name == wanted))
}

/// The one file of weights that has another name than diffusers gives.
fn other_weights(folder: &Path, names: &[String], notes: &mut Vec<Note>) -> Result<Vec<PathBuf>, CheckpointError> {
    let is_weights = |name: &&String| {
        KINDS.iter().any(|kind| is_kind(name, kind))
            && !NOT_WEIGHTS.iter().any(|other| name.starts_with(other))
            && !name.contains("lora_weights")
    };
    match names.iter().filter(is_weights).collect::<Vec<_>>()[..] {
        [] => Err(no_weights(folder)),
        [only] => {
            let path = folder.join(only);
            notes.push(Note::File { path: path.clone() });
            Ok(vec![path])
        }
        ref several => {
            let what = "several files may be the weights; give the path of one instead of the folder";
            let found = several.iter().map(ToString::to_string).collect();
            Err(CheckpointError::Ambiguous { folder: folder.into(), what, found })
        }
    }
}

fn no_weights(folder: &Path) -> CheckpointError {
    let advice = "give the folder that save_pretrained wrote".into();
    CheckpointError::Missing { folder: folder.into(), file: "diffusion_pytorch_model.safetensors", advice }
}

/// The files that an index names.
fn shards(folder: &Path, name: &str) -> Result<Vec<PathBuf>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index = folder.join(name);
    let parsed: Index = parse(&index)?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    // A shard is a file of this folder; a path that leads elsewhere is not followed.
    if names.iter().all(|name| Path::new(name).file_name().is_some_and(|file| file == name.as_str())) {
        return Ok(names.into_iter().map(|name| folder.join(name)).collect());
    }
    Err(CheckpointError::Weights { path: index, what: "names shards outside the folder".into() })
}
