//! What a user should know about how a checkpoint was read.

use std::fmt;
use std::path::PathBuf;

/// A choice that was made, or something that was found and not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The only variant of the weights was taken.
    Variant {
        /// Its name.
        variant: String,
    },
    /// Weights were taken from a file that diffusers does not name so.
    File {
        /// The file.
        path: PathBuf,
    },
    /// The state dictionary lay inside of another.
    Nested {
        /// Its key.
        key: String,
        /// Keys of state dictionaries that were not taken.
        others: Vec<String>,
    },
    /// Entries of the state dictionary that are no tensors.
    NotTensors {
        /// Some of their keys.
        keys: Vec<String>,
    },
    /// All keys began with the name of a wrapper.
    Wrapper {
        /// What was taken off.
        prefix: String,
    },
    /// What neither the tensors nor the configuration say for certain of a state dictionary.
    Untold {
        /// The class of the network.
        class: &'static str,
        /// Fields that have the defaults of diffusers' class, and what was taken for certain fields.
        taken: Vec<String>,
    },
    /// The configuration was written by diffusers' `EMAModel`.
    Averaged,
    /// There are averaged weights beside the ones that were opened.
    AveragedBeside {
        /// Their folder.
        folder: PathBuf,
    },
    /// The scheduler's configuration lies outside of the folder that was opened.
    Scheduler {
        /// The file.
        path: PathBuf,
    },
    /// There is another scheduler's configuration, which says something else.
    OtherScheduler {
        /// The one that was taken.
        taken: PathBuf,
        /// The one that was not.
        other: PathBuf,
    },
    /// The size is not the one of the configuration.
    Size {
        /// Height and width.
        size: [usize; 2],
        /// What the configuration says.
        configured: String,
    },
    /// A part of the pipeline that waft does not run.
    Part {
        /// Its name in the pipeline.
        name: String,
        /// Its class, if it is known.
        class: String,
    },
    /// Adapter weights, which are not applied.
    Adapter {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Variant { variant } => write!(f, "took the weights of variant {variant}, the only one there is"),
            Note::File { path } => write!(f, "took the weights from {}", path.display()),
            Note::Nested { key, others } if others.is_empty() => write!(f, "took the weights under {key:?}"),
            Note::Nested { key, others } => {
                write!(f, "took the weights under {key:?}, not those under {}", others.join(", "))
            }
            Note::NotTensors { keys } => write!(f, "ignored what is no tensor: {}", keys.join(", ")),
            Note::Wrapper { prefix } => write!(f, "took {prefix:?} off the keys of all tensors"),
            Note::Untold { class, taken } => write!(
                f,
                "the tensors are a {class}'s; what they do not tell and config.json does not state was taken to be as diffusers has \
                 it if nothing is said: {}",
                taken.join(", ")
            ),
            Note::Averaged => write!(f, "the weights are averages over the training (EMAModel)"),
            Note::AveragedBeside { folder } => {
                let folder = folder.display();
                write!(f, "averaged weights, which usually draw better, are in {folder}; give that folder to use them")
            }
            Note::Scheduler { path } => write!(f, "took the scheduler's configuration from {}", path.display()),
            Note::OtherScheduler { taken, other } => {
                let (taken, other) = (taken.display(), other.display());
                write!(f, "took the scheduler's configuration from {taken}; {other} differs from it and is ignored")
            }
            Note::Size { size: [h, w], configured } => {
                write!(f, "draws {h}×{w}, where the configuration says sample_size = {configured}")
            }
            Note::Part { name, class } if class.is_empty() => write!(f, "the pipeline's {name} is not used"),
            Note::Part { name, class } => write!(f, "the pipeline's {name} ({class}) is not used"),
            Note::Adapter { path } => {
                let path = path.display();
                write!(f, "{path} holds adapter weights (LoRA), which are not applied; merge them into the model first")
            }
        }
    }
}
