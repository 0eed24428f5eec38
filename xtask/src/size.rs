//! `size`: what a firmware spends on code and memory, target by target.

use serde_json::json;
use waft::Model;
use waft_host::shipped;

use crate::args::{Bar, Precision, print_json};
use crate::boards;
use crate::build::Contents;
use crate::measure::Firmware;

/// Measures code, constants and memory of the firmware besides the model and the arena.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target triple, with `/core` where several cores share it, or `all`.
    #[arg(long, default_value = "all")]
    target: String,
    /// Name of a shipped model, or a .waft file; only the operations that it uses are linked.
    #[arg(long, default_value = "digits")]
    model: String,
    /// Precision of a shipped model [default: i8].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Print one JSON object a target.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bytes = shipped::find(&args.model, args.precision.map(Into::into), None, &Bar::default())?;
    let weights = shipped::weights(&args.model, &Model::from_bytes(bytes.as_slice())?)?;
    let contents = Contents { weights: &weights, ..Contents::of(bytes.as_slice()) };
    if !args.json {
        println!("bytes besides the model and the arena, the test harness included");
        println!("{:<37} {:>8} {:>10} {:>6} {:>6}", "target", "code", "constants", "data", "bss");
    }
    for board in boards::find(&args.target)? {
        let firmware = Firmware::build(board, contents)?;
        let sizes = firmware.sizes;
        let constants = sizes.constants.saturating_sub(firmware.model_bytes);
        let bss = sizes.bss.saturating_sub(firmware.arena_bytes);
        if args.json {
            print_json(&json!({
                "target": board.name,
                "code_bytes": sizes.code,
                "constants_bytes": constants,
                "data_bytes": sizes.data,
                "bss_bytes": bss,
            }))?;
        } else {
            println!("{:<37} {:>8} {:>10} {:>6} {:>6}", board.name, sizes.code, constants, sizes.data, bss);
        }
    }
    Ok(())
}
