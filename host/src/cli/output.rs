//! Everything that a command prints or writes goes through here. A file is whole or as it was before; nothing replaces
//! an input, a key, a device, or two results at once by accident.

use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use tempfile::{Builder, NamedTempFile};

use super::signals::{forget, temporary};
use crate::text::{is_hidden, visible_lines};

/// Whoever reads standard output has closed it. No error: `waft inspect digits | head` ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(super) struct Closed;

/// A path with the option or argument that names it.
pub(super) type Named<'a> = (&'a str, &'a Path);

/// Several paths that one option or argument stands for.
pub(super) fn all<'a>(option: &'a str, paths: &'a [PathBuf]) -> Vec<Named<'a>> {
    paths.iter().map(|path| (option, path.as_path())).collect()
}

/// Depth to which a folder that is an input is searched for files.
const INPUT_DEPTH: usize = 3;

/// Refuses outputs that would replace what they must not, before any work is done.
pub(super) fn check(inputs: &[Named<'_>], outputs: &[Named<'_>]) -> anyhow::Result<()> {
    for (index, &(option, path)) in outputs.iter().enumerate() {
        let what = || format!("{option} {}", path.display());
        let target = Target::of(path).with_context(what)?;
        for &(other, other_path) in &outputs[..index] {
            distinct((other, other_path), (option, path))?;
        }
        let Some(found) = &target.found else { continue };
        let identity = identity(found, path);
        for &(input, input_path) in inputs {
            ensure!(
                !contains(input_path, identity.as_ref(), INPUT_DEPTH),
                "{}: that is {input}, an input; name another file",
                what()
            );
        }
        if found.is_file() {
            ensure!(!found.permissions().readonly(), "{}: the file is write-protected", what());
            ensure!(!is_key(path, found), "{}: the file is a secret key; keep it, or remove it yourself", what());
        }
    }
    Ok(())
}

/// Refuses an output that has the name of another, whether or not that exists.
pub(super) fn distinct((other, other_path): Named<'_>, (option, path): Named<'_>) -> anyhow::Result<()> {
    let what = || format!("{option} {}", path.display());
    let place = |option: &str, path: &Path| {
        let found = Target::of(path).with_context(|| format!("{option} {}", path.display()));
        found.map(|target| target.place)
    };
    ensure!(
        place(option, path)? != place(other, other_path)?,
        "{}: {other} names the same file; give each a name of its own",
        what()
    );
    Ok(())
}

/// Where an output goes.
struct Target {
    /// What is there, behind all links.
    found: Option<Metadata>,
    /// The file itself: links followed, and the folder's one true name.
    place: PathBuf,
}

impl Target {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => bail!("that is a folder; name a file"),
            Ok(found) => {
                refuse_special(&found)?;
                // What has no path, as the pipe behind /dev/stdout, is known by the name that it was given.
                let place = fs::canonicalize(path).unwrap_or_else(|_| path.into());
                Ok(Self { found: Some(found), place })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let path = follow(path)?;
                let name = path.file_name().context("that is no file name")?;
                let folder = match path.parent() {
                    Some(folder) if !folder.as_os_str().is_empty() => folder,
                    _ => Path::new("."),
                };
                let folder =
                    fs::canonicalize(folder).with_context(|| format!("cannot open the folder {}", folder.display()))?;
                Ok(Self { found: None, place: folder.join(name) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Follows links whose target does not exist yet.
fn follow(path: &Path) -> anyhow::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    bail!("too many symbolic links")
}

/// Devices that a stray write would destroy, and files that writing makes no sense for.
fn refuse_special(found: &Metadata) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;

        ensure!(!found.file_type().is_block_device(), "that is a block device; writing would destroy what is on it");
        ensure!(!found.file_type().is_socket(), "that is a socket; name a file");
        // A terminal may show both; a file or a pipe would hold the output and the report in one.
        let stdout = fs::metadata("/dev/stdout").ok().filter(|stdout| !is_character_device(stdout));
        let same = stdout.is_some_and(|stdout| identity(&stdout, Path::new("")) == identity(found, Path::new("")));
        ensure!(!same, "that is standard output, where the report goes; name a file");
    }
    Ok(())
}

#[cfg(unix)]
fn is_character_device(found: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type())
}

/// What makes a file the same file under every name.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(unix)]
fn identity(found: &Metadata, _path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;

    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(_found: &Metadata, path: &Path) -> Option<Identity> {
    fs::canonicalize(path).ok()
}

/// Whether an input is a file, or a folder that holds it. Models in the folder of a checkpoint are no part of it.
fn contains(input: &Path, file: Option<&Identity>, depth: usize) -> bool {
    let Ok(found) = fs::metadata(input) else { return false };
    if !found.is_dir() {
        return file.is_some() && identity(&found, input).as_ref() == file;
    }
    let entries = fs::read_dir(input).into_iter().flatten().flatten();
    depth > 0
        && entries.map(|entry| entry.path()).any(|path| {
            let model = path.extension().is_some_and(|extension| extension == "waft" || extension == "weights");
            !model && contains(&path, file, depth - 1)
        })
}

/// Whether a file is what `sign --new-key` writes.
fn is_key(path: &Path, found: &Metadata) -> bool {
    let digits = 2 * ed25519_dalek::SECRET_KEY_LENGTH as u64;
    (digits..=digits + 2).contains(&found.len())
        && fs::read_to_string(path).is_ok_and(|text| {
            text.trim_end().len() as u64 == digits && text.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

/// Writes files, each completely, and none if one cannot be written: into temporary files in the same folders first,
/// which then take the names. Links are followed; a file that is replaced hands its permissions on. Pipes and character
/// devices are written to as they are.
///
/// # Errors
/// If a file cannot be written.
pub fn write_files(files: &[(&Path, &[u8])]) -> anyhow::Result<()> {
    let mut pending = vec![];
    let mut result = Ok(());
    for &(path, bytes) in files {
        result = begin(path, bytes, &mut pending).with_context(|| format!("cannot write {}", path.display()));
        if result.is_err() {
            break;
        }
    }
    // From here on nothing can fail for want of space, and no signal comes between two files.
    let mut names = temporary();
    for (file, place) in pending {
        let path = file.path().to_path_buf();
        if result.is_ok() {
            result = match file.persist(&place) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.error).with_context(|| format!("cannot write {}", place.display())),
            };
        }
        forget(&mut names, &path);
    }
    result
}

/// Writes one file, see [`write_files`].
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_files(&[(path, bytes)])
}

fn begin(path: &Path, bytes: &[u8], pending: &mut Vec<(NamedTempFile, PathBuf)>) -> anyhow::Result<()> {
    let Target { found, place } = Target::of(path)?;
    if found.as_ref().is_some_and(|found| !found.is_file()) {
        return Ok(OpenOptions::new().write(true).open(path)?.write_all(bytes)?);
    }
    let mut builder = Builder::new();
    builder.prefix(".waft-").suffix(".part");
    // What the umask leaves of it, as for any new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = create(&builder, &place)?;
    let written = fill(file.as_file_mut(), bytes, found.as_ref());
    // In the list in any case: `write_files` takes it off again.
    pending.push((file, place));
    Ok(written?)
}

fn create(builder: &Builder<'_, '_>, place: &Path) -> anyhow::Result<NamedTempFile> {
    let mut names = temporary();
    let file = builder.tempfile_in(place.parent().context("that is no file name")?)?;
    names.push(file.path().into());
    Ok(file)
}

fn fill(file: &mut File, bytes: &[u8], replaced: Option<&Metadata>) -> io::Result<()> {
    file.write_all(bytes)?;
    if let Some(replaced) = replaced {
        file.set_permissions(replaced.permissions())?;
    }
    file.sync_all()
}

/// Creates a file that only its owner can read, and that replaces nothing, a link without a target included.
///
/// # Errors
/// If something of that name exists, or it cannot be written.
pub(super) fn create_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Without permissions of its own the library's temporary file is its owner's alone.
    let mut builder = Builder::new();
    builder.prefix(".waft-").suffix(".part");
    let name = path.file_name().context("that is no file name")?;
    let mut file = create(&builder, &folder.join(name))?;
    let written = fill(file.as_file_mut(), text.as_bytes(), None);
    let mut names = temporary();
    let temporary = file.path().to_path_buf();
    let result = written.and_then(|()| file.persist_noclobber(path).map(|_| ()).map_err(|error| error.error));
    forget(&mut names, &temporary);
    Ok(result?)
}

/// Prints a report on standard output; control characters in it become visible.
///
/// # Errors
/// If nobody reads it, or what the system says.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_raw(visible_lines(text).as_bytes())
}

/// Prints clap's help in the colours of the terminal.
pub(super) fn print_styled(help: &clap::Error) -> anyhow::Result<()> {
    finish(help.print().and_then(|()| io::stdout().flush()))
}

/// Prints one JSON object on standard output; control characters that JSON allows are escaped too.
///
/// # Errors
/// If nobody reads it, or what the system says.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = String::new();
    // They occur in strings only, and none lies outside the basic plane.
    for character in serde_json::to_string(value)?.chars() {
        match is_hidden(character) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => text.push(character),
        }
    }
    text.push('\n');
    print_raw(text.as_bytes())
}

fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    finish(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

fn finish(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        result => result.context("cannot write to standard output"),
    }
}

/// Prints a message on stderr; control characters in it become visible.
pub(super) fn complain(text: &(impl Display + ?Sized)) {
    // If nobody hears it, there is nobody to tell that.
    let _ = io::stderr().lock().write_all(visible_lines(&text.to_string()).as_bytes());
}
