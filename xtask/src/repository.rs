//! The repository: where it lies, and cargo run in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Its folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Lets a file or folder of the repository appear elsewhere.
pub(crate) fn link(name: &str, place: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(root().join(name), place);
    #[cfg(not(unix))]
    return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, format!("{name} for {}", place.display())));
}

/// Runs a command in the repository's folder; an error if it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.current_dir(root()).status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Runs cargo in the repository's folder, without the files of incremental builds: they are larger than all the others.
pub(crate) fn cargo<S: AsRef<str>>(arguments: &[S]) -> anyhow::Result<()> {
    run(Command::new("cargo").env("CARGO_INCREMENTAL", "0").args(arguments.iter().map(AsRef::as_ref)))
}
