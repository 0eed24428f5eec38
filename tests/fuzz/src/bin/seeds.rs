//! Writes the seeds of the target `model` into a folder, once each was run to its end: `cargo run --bin seeds -- FOLDER`.

use std::fs;
use std::io::{Error, Result};
use std::path::PathBuf;

use waft_fuzz::count::Fate;
use waft_fuzz::run::Bench;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or_else(|| Error::other("name a folder"))?);
    fs::create_dir_all(&folder)?;
    for (name, bytes) in waft_fuzz::seeds::seeds() {
        let fate = Bench::default().execute(&bytes);
        if fate != Fate::Finished {
            return Err(Error::other(format!("{name}: {fate:?}")));
        }
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
