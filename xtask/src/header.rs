//! `header`: writes the C header from the C interface's source, or checks that it is what the source gives.

use anyhow::{Context, bail};

use crate::args::write_whole;
use crate::repository::root;

/// The interface's files in the order of the header.
const SOURCES: [&str; 6] = ["info.rs", "context.rs", "weights.rs", "request.rs", "run.rs", "status.rs"];

/// Writes runtime/c/waft.h.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only checks that the header is what the source gives.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = root().join("runtime").join("c");
    let path = folder.join("waft.h");
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).map_err(anyhow::Error::msg)?;
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(folder.join("src").join(name))
    });
    let bindings = builder.generate().context("runtime/c/src")?;
    let mut text = vec![];
    bindings.write(&mut text);
    if !args.check {
        return write_whole(&path, &text);
    }
    if std::fs::read(&path).with_context(|| path.display().to_string())? != text {
        bail!("{} is not what the source gives: run `cargo xtask header`", path.display());
    }
    Ok(())
}
