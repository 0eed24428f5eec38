//! What the firmware of `digits` costs on every target, as it was recorded, and how today's compares.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use waft_host::shipped;

use crate::args::write_whole;
use crate::boards::{self, BOARDS};
use crate::build::Contents;
use crate::emulate::{PLAIN, Request};
use crate::measure::{Firmware, Report};
use crate::repository::root;

/// The image whose cost is recorded, of the `digits` model in the `i8` precision.
pub(crate) const REQUEST: Request = Request { steps: Some(10), seed: 1, class: Some(7), ..PLAIN };

/// How far a figure may be from the recorded one, in thousandths.
const TOLERANCE: u64 = 5;

/// What rewrites the file.
const COMMAND: &str = "cargo xtask firmware --record";

/// The costs of one target. Instructions are absent where the machine has no exact counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Costs {
    /// The compiler of the firmware: another one's figures are others.
    compiler: String,
    instructions: Option<u64>,
    max_step_instructions: Option<u64>,
    text_bytes: u64,
    data_bss_bytes: u64,
    stack_bytes: u64,
    arena_bytes: u64,
}

impl From<&Report> for Costs {
    fn from(report: &Report) -> Self {
        Self {
            compiler: report.compiler.clone(),
            instructions: report.instructions,
            max_step_instructions: report.max_step_instructions,
            text_bytes: report.text_bytes,
            data_bss_bytes: report.data_bss_bytes,
            stack_bytes: report.stack_bytes,
            arena_bytes: report.arena_bytes,
        }
    }
}

impl Costs {
    /// The figures by name.
    fn figures(&self) -> [(&'static str, Option<u64>); 6] {
        [
            ("instructions", self.instructions),
            ("instructions of the longest step", self.max_step_instructions),
            ("bytes of code and constants", Some(self.text_bytes)),
            ("bytes of data and bss", Some(self.data_bss_bytes)),
            ("bytes of stack", Some(self.stack_bytes)),
            ("bytes of arena", Some(self.arena_bytes)),
        ]
    }

    /// The figures that are further from the recorded ones than they may be, in words.
    fn deviations(&self, recorded: &Self) -> Vec<String> {
        let pairs = self.figures().into_iter().zip(recorded.figures());
        pairs
            .filter_map(|((name, now), (_, recorded))| match (now, recorded) {
                (Some(now), Some(then)) if now.abs_diff(then) * 1000 <= then * TOLERANCE => None,
                (Some(now), Some(then)) => {
                    let percent = (now as f64 / then as f64 - 1.0) * 100.0;
                    Some(format!("{now} {name}, recorded are {then} ({percent:+.2} %)"))
                }
                (None, None) => None,
                (now, then) => Some(format!("{name}: {now:?}, recorded is {then:?}")),
            })
            .collect()
    }
}

fn path() -> PathBuf {
    root().join("tests").join("firmware").join("counts.json")
}

/// Measures every target that this machine can run and rewrites the file.
pub(crate) fn record() -> anyhow::Result<()> {
    let bytes = shipped::find("digits", None, None, &())?;
    let mut recorded = BTreeMap::new();
    for board in boards::find("all")? {
        let report = Firmware::build(board, Contents::of(bytes.as_slice()))?.draw(&REQUEST)?;
        recorded.insert(board.name, Costs::from(&report));
    }
    let text = serde_json::to_string_pretty(&recorded)? + "\n";
    write_whole(&path(), text.as_bytes())?;
    println!("{}: {} targets", path().display(), recorded.len());
    Ok(())
}

/// Compares measured costs of [`REQUEST`] with the recorded ones. Returns what could not be compared, because another
/// compiler built it; an error if a figure is further from the recorded one than 0.5 %, for better or worse.
pub(crate) fn compare(reports: &[Report]) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path()).with_context(|| format!("{}: run `{COMMAND}`", path().display()))?;
    let recorded: BTreeMap<String, Costs> =
        serde_json::from_str(&text).with_context(|| format!("{}: run `{COMMAND}`", path().display()))?;
    let (mut deviations, mut incomparable) = (vec![], vec![]);
    for target in recorded.keys().filter(|target| BOARDS.iter().all(|board| board.name != **target)) {
        deviations.push(format!("{target}: recorded, but no target of the firmware"));
    }
    for report in reports {
        let (target, now) = (&report.target, Costs::from(report));
        match recorded.get(target) {
            None => deviations.push(format!("{target}: nothing is recorded")),
            Some(then) if then.compiler != now.compiler => incomparable.push(format!(
                "costs of the firmware on {target} against the recorded ones: {} built those, here is {}",
                then.compiler, now.compiler
            )),
            Some(then) => deviations.extend(now.deviations(then).iter().map(|found| format!("{target}: {found}"))),
        }
    }
    ensure!(
        deviations.is_empty(),
        "the firmware's costs are not the recorded ones:\n  {}\nif that is meant, record them: `{COMMAND}`",
        deviations.join("\n  ")
    );
    Ok(incomparable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(instructions: u64, stack_bytes: u64) -> Costs {
        Costs {
            compiler: "rustc".into(),
            instructions: Some(instructions),
            max_step_instructions: None,
            text_bytes: 20_000,
            data_bss_bytes: 0,
            stack_bytes,
            arena_bytes: 12_768,
        }
    }

    #[test]
    fn half_a_percent_is_allowed_either_way() {
        let recorded = costs(1_000_000, 1_000);
        assert!(costs(1_005_000, 995).deviations(&recorded).is_empty());
        assert_eq!(
            costs(1_005_001, 1_000).deviations(&recorded),
            ["1005001 instructions, recorded are 1000000 (+0.50 %)"]
        );
        assert_eq!(costs(1_000_000, 900).deviations(&recorded), ["900 bytes of stack, recorded are 1000 (-10.00 %)"]);
    }

    #[test]
    fn a_figure_that_appears_is_a_deviation() {
        let recorded = Costs { instructions: None, ..costs(1, 1_000) };
        assert_eq!(costs(1, 1_000).deviations(&recorded), ["instructions: Some(1), recorded is None"]);
    }
}
