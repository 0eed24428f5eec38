//! Runs the first operations of a network call with a set of instructions, as often as asked for, and prints the checksum of the
//! last one's result: what `cargo xtask bench kernels` counts the instructions of.
//!
//! `operations MODEL COUNT RUNS INSTRUCTIONS`, the last a name as `Instructions::name` has it.

use std::process::ExitCode;

use waft::format::chunk_checksum;
use waft::{Accelerator, Instructions, Model, Request, Session};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(checksum) => {
            println!("{checksum:08x}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<u32, Box<dyn std::error::Error>> {
    let [file, count, runs, name] = arguments else {
        return Err("usage: operations MODEL COUNT RUNS INSTRUCTIONS".into());
    };
    let (count, runs): (u16, u32) = (count.parse()?, runs.parse()?);
    let bytes = std::fs::read(file)?;
    let mut aligned = vec![0u128; bytes.len().div_ceil(size_of::<u128>())];
    let aligned = &mut bytemuck::cast_slice_mut(&mut aligned)[..bytes.len()];
    aligned.copy_from_slice(&bytes);
    let model = Model::from_bytes(aligned).map_err(|error| format!("{file}: {error}"))?;
    if count == 0 || count >= model.ops() {
        return Err(format!("COUNT {count}: the model has {} operations, and the last one stays", model.ops()).into());
    }
    let available = || Instructions::available().map(Instructions::name);
    let instructions = Instructions::available().find(|instructions| instructions.name() == name).ok_or_else(|| {
        format!("INSTRUCTIONS {name}: this processor has {}", available().collect::<Vec<_>>().join(", "))
    })?;
    let mut accelerator = Accelerator::with_instructions(&model, instructions);
    let mut arena = vec![0u128; model.arena_bytes().div_ceil(size_of::<u128>())];
    let output = model.op(count - 1).ok_or("a valid model has its operations")?.output();
    let mut checksum = 0;
    for _ in 0..runs {
        let mut session = Session::new(&model, bytemuck::cast_slice_mut(&mut arena))?.accelerated(&mut accelerator);
        let mut run = session.sample(Request::new())?;
        while run.operation() != Some(count) {
            run.step()?;
        }
        checksum = chunk_checksum(run.tensor_bytes(output).ok_or("an operation has a result")?);
    }
    Ok(checksum)
}
