//! Nothing stays behind when the user stops a command.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Temporary files that exist now. Whoever creates, renames or removes one holds the lock, so that a signal sees either
/// the state before or the state after.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(vec![]);

pub(super) fn temporary() -> MutexGuard<'static, Vec<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a file that was renamed or removed off the list.
pub(super) fn forget(files: &mut Vec<PathBuf>, path: &Path) {
    files.retain(|file| file != path);
}

/// From here on SIGHUP, SIGINT and SIGTERM remove temporary files before they end the program.
#[cfg(unix)]
pub(super) fn clean_up_on_signals() -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Kept to the end: nothing may be created any more.
            let files = temporary();
            for file in files.iter() {
                // There is nobody left to tell.
                let _ = std::fs::remove_file(file);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Where there are no such signals, the system ends the program.
#[cfg(not(unix))]
pub(super) fn clean_up_on_signals() -> anyhow::Result<()> {
    Ok(())
}
