//! `header`: writes the C header from the C interface's source, or checks that it is what the source gives.

use anyhow::{Context, bail};

use crate::args::write_whole;
use crate::repository::root;

/// The interface's files in the order of the header: all but the crate's root.
const SOURCES: [&str; 8] =
    ["info.rs", "context.rs", "weights.rs", "noise.rs", "request.rs", "run.rs", "actions.rs", "status.rs"];
const ROOT: &str = "lib.rs";

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
    for file in std::fs::read_dir(folder.join("src"))? {
        let name = file?.file_name();
        if name != ROOT && !SOURCES.iter().any(|source| name == *source) {
            bail!("runtime/c/src/{}: put it into the list of xtask/src/header.rs, or C never sees it", name.display());
        }
    }
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(folder.join("src").join(name))
    });
    let bindings = builder.generate().context("runtime/c/src")?;
    let mut text = vec![];
    bindings.write(&mut text);
    if let Some(name) =
        String::from_utf8_lossy(&text).split(|c: char| !c.is_alphanumeric()).find(|w| w.starts_with("Waft"))
    {
        bail!("the header has {name}: give it a name in C in runtime/c/cbindgen.toml");
    }
    if !args.check {
        return write_whole(&path, &text);
    }
    if std::fs::read(&path).with_context(|| path.display().to_string())? != text {
        bail!("{} is not what the source gives: run `cargo xtask header`", path.display());
    }
    Ok(())
}
