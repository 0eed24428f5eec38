//! The cores that export chooses for.

use std::sync::LazyLock;

use thiserror::Error;

use crate::cost::{Core, cores};

/// The core that is chosen for where none is named.
const DEFAULT: &str = "Cortex-M4";

/// What export takes for the instructions of its default core's convolutions: about what they were when the shipped files were
/// made. They stay, so that a checkpoint gives the same file when kernels have been measured again.
const COEFFICIENTS: [(&str, f64); 34] = [
    ("conv2d i8 Rows8 multiply", 2.46),
    ("conv2d i8 Rows8 output", 135.0),
    ("conv2d i8 Rows8 run", 0.0),
    ("conv2d i8 Rows8 slice", 0.0),
    ("conv2d i8 Rows8 unfolded multiply", 0.82),
    ("conv2d i8 Rows8 unfolded output", 45.0),
    ("conv2d i8 Rows8 unfolded run", 0.0),
    ("conv2d i8 Rows8 unfolded slice", 0.0),
    ("conv2d i8 Rows8 tiled multiply", 22.56),
    ("conv2d i8 Rows8 tiled input", 320.0),
    ("conv2d i8 Rows8 tiled weight", 75.0),
    ("conv2d i8 Rows8 tiled output", 60.0),
    ("conv2d i8 Rows8 tiled slice", 0.0),
    ("conv2d i16 Rows8 multiply", 2.46),
    ("conv2d i16 Rows8 output", 135.0),
    ("conv2d i16 Rows8 run", 0.0),
    ("conv2d i16 Rows8 slice", 0.0),
    ("conv2d i16 Rows8 unfolded multiply", 0.82),
    ("conv2d i16 Rows8 unfolded output", 45.0),
    ("conv2d i16 Rows8 unfolded run", 0.0),
    ("conv2d i16 Rows8 unfolded slice", 0.0),
    ("conv2d i16 Rows8 tiled multiply", 10.0),
    ("conv2d i16 Rows8 tiled input", 80.0),
    ("conv2d i16 Rows8 tiled weight", 60.0),
    ("conv2d i16 Rows8 tiled output", 110.0),
    ("conv2d i16 Rows8 tiled slice", 0.0),
    ("conv2d i8 Tiles4 tiled multiply", 22.56),
    ("conv2d i8 Tiles4 tiled input", 224.0),
    ("conv2d i8 Tiles4 tiled output", 48.0),
    ("conv2d i8 Tiles4 tiled slice", 0.0),
    ("conv2d i16 Tiles2 tiled multiply", 10.0),
    ("conv2d i16 Tiles2 tiled input", 48.0),
    ("conv2d i16 Tiles2 tiled output", 72.0),
    ("conv2d i16 Tiles2 tiled slice", 0.0),
];

/// A name that no core has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name:?} is no core that instructions were counted on; these are {}", names())]
pub struct UnknownCore {
    /// The name.
    pub name: String,
}

/// The core of a name, as people write it or as `cargo xtask firmware --target` does.
///
/// # Errors
/// If no core has that name.
pub fn find(name: &str) -> Result<&'static Core, UnknownCore> {
    let names = |(target, core): &(&'static String, &'static Core)| {
        [target.as_str(), &core.core].iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    let (_, core) = cores().iter().find(names).ok_or_else(|| UnknownCore { name: name.into() })?;
    Ok(if core.core == DEFAULT { default_core() } else { core })
}

/// The core that is chosen for where none is named, as the choice takes it.
pub fn default_core() -> &'static Core {
    static CORE: LazyLock<Core> = LazyLock::new(|| Core {
        core: DEFAULT.into(),
        coefficients: COEFFICIENTS.map(|(kind, instructions)| (kind.into(), instructions)).into(),
        ..Core::default()
    });
    &CORE
}

/// The share of the instructions of patches that tiles may take at most on a core, to be worth their memory and the two bits of
/// resolution that rings of 16 bits lose: more where instructions were counted than where they are about right.
pub fn worth(core: &Core) -> f64 {
    if core.core == DEFAULT { 0.75 } else { 0.9 }
}

/// Each core with its target.
fn names() -> String {
    let names: Vec<String> = cores().iter().map(|(target, core)| format!("{} ({target})", core.core)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use waft::format::{Element, WeightLayout};

    use super::*;
    use crate::cost::{Convolution, Way, instructions};

    #[test]
    fn cores_are_found_by_name_and_target() {
        for (target, core) in cores() {
            assert_eq!(find(target).map(|found| &found.core), Ok(&core.core));
            assert_eq!(find(&core.core.to_lowercase()).map(|found| &found.core), Ok(&core.core));
        }
        let refused = find("Cortex-M9").expect_err("there is none").to_string();
        assert!(refused.starts_with("\"Cortex-M9\" is no core") && refused.contains("Cortex-M0+ (thumbv6m-none-eabi)"));
    }

    /// Each core knows what each way to compute a convolution takes.
    #[test]
    fn every_way_was_measured_on_every_core() {
        let (rows, tiles) = (WeightLayout::Rows8, Way::Tiles(2));
        for core in cores().values().chain([default_core()]) {
            for (element, stored) in [(Element::I8, WeightLayout::Tiles4), (Element::I16, WeightLayout::Tiles2)] {
                for (layout, way) in [(rows, Way::Ring), (rows, Way::Patches), (rows, tiles), (stored, tiles)] {
                    let convolution =
                        Convolution { element, layout, way, output: [8, 8, 16], inputs: 16, kernel: [3, 3] };
                    let found = instructions(core, &convolution.work());
                    assert!(found.is_some_and(|found| found > 0.0), "{}, {element:?}, {layout:?}, {way:?}", core.core);
                }
            }
        }
    }
}
