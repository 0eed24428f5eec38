//! The commands of the documents, as a user would type them: each is understood by the program that it names, and those of the
//! READMEs that need nothing but a clone are run, over stand-ins for the reader's own files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::CommandFactory;
use clap::error::ErrorKind;

use super::readme::blocks;
use crate::Cli;
use crate::repository::{link, root};

/// How a document writes what it leaves out or leaves to its reader.
const LEFT_OUT: &str = "…";

/// The files of the README's reader, and what stands for them.
const READERS: [(&str, &str); 6] = [
    ("models", "models"),
    ("path/to/checkpoint", "models/digits/checkpoint"),
    ("my-policy", "models/reach/checkpoint"),
    ("my-model-2step", "models/digits/2step"),
    ("observations.safetensors", "models/reach/observations.safetensors"),
    ("now.safetensors", "models/reach/observations.safetensors"),
];

/// Pictures of the reader's, and a PNG that stands for them: 8 by 8 pixels, grey, the right half white.
const PICTURES: [&str; 2] = ["three.png", "right-half.png"];
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEUlEQVR42mNgAIL/QMBAGQMAPEQf4XZV0ScAAAAASUVORK5CYII=";

/// What is run: each is a matter of seconds, and its inputs are files that a clone has.
const QUICK: [&str; 3] = ["sample", "inspect", "export-weights"];

/// A command of a document.
#[derive(Debug, PartialEq)]
struct Documented {
    /// The program and its arguments.
    words: Vec<String>,
    /// Whether it stands in a block, to be typed as it is, rather than in a sentence.
    is_whole: bool,
}

/// Checks every command of every document, and runs those of README.md.
pub(super) fn commands() -> anyhow::Result<()> {
    let mut count = 0;
    for file in documents()? {
        let text = fs::read_to_string(root().join(&file))?;
        for command in documented(&text) {
            understood(&command).with_context(|| format!("{file}: {}", command.words.join(" ")))?;
            count += 1;
        }
    }
    ensure!(count >= 100, "only {count} commands were found");
    eprintln!("{count} commands of the documents are understood");
    run_quick(&fs::read_to_string(root().join("README.md"))?)
}

/// The documents that belong to the repository.
fn documents() -> anyhow::Result<Vec<String>> {
    let listed = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output().context("git")?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    Ok(String::from_utf8(listed.stdout)?.lines().map(Into::into).collect())
}

/// The commands in a document's blocks of shell and in its sentences.
fn documented(text: &str) -> Vec<Documented> {
    let of = |line: &str, is_whole| Documented { words: line.split_whitespace().map(Into::into).collect(), is_whole };
    let mut found = vec![];
    for line in blocks(text, "sh").iter().flat_map(|block| block.lines()) {
        let line = line.split_once(" #").map_or(line, |(command, _)| command);
        let commands = line.split(" && ").map(|command| command.split(" > ").next().unwrap_or(command));
        found.extend(commands.filter(|command| !command.starts_with('#')).map(|command| of(command, true)));
    }
    // Between fences there are no sentences.
    let sentences: String = text.split("```").step_by(2).collect();
    found.extend(sentences.split('`').skip(1).step_by(2).map(|code| of(code, false)));
    for command in &mut found {
        let is_setting = |word: &String| word.split_once('=').is_some_and(|(name, _)| name.starts_with("WAFT_"));
        command.words = command.words.drain(..).skip_while(is_setting).collect();
    }
    found.retain(|command| match command.words.as_slice() {
        [] => false,
        [program, subcommand, ..] if !command.is_whole => {
            program == "waft" || program == "cargo" && subcommand == "xtask"
        }
        _ => command.is_whole,
    });
    found
}

/// The arguments of a command that is waft's.
fn of_waft(words: &[String]) -> Option<&[String]> {
    match words {
        [program, arguments @ ..] if program == "waft" => Some(arguments),
        [program, subcommand, arguments @ ..] if program == "cargo" && subcommand == "xtask" => Some(arguments),
        _ => None,
    }
}

/// An error if the program would not understand a command, or is not in the repository.
fn understood(command: &Documented) -> anyhow::Result<()> {
    let Some(arguments) = of_waft(&command.words) else {
        // Others' programs are theirs; what they are given of ours exists.
        let is_ours =
            |word: &&String| command.words[0] == "cd" || word.ends_with(".py") || word.ends_with("Cargo.toml");
        let missing = command.words.iter().skip(1).filter(is_ours).find(|file| !root().join(file).exists());
        ensure!(missing.is_none(), "there is no {missing:?}");
        return Ok(());
    };
    let given = arguments.iter().map(String::as_str).filter(|word| command.is_whole || *word != LEFT_OUT);
    match Cli::command().try_get_matches_from([command.words[0].as_str()].into_iter().chain(given)) {
        Ok(_) => Ok(()),
        // A sentence names a command without what it needs, and capitals stand for a value.
        Err(error) if !command.is_whole && is_left_open(&error) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    }
}

/// Whether what is wrong is only that something is left to the reader.
fn is_left_open(error: &clap::Error) -> bool {
    let value = error.get(clap::error::ContextKind::InvalidValue).map(ToString::to_string).unwrap_or_default();
    match error.kind() {
        ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand => true,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            value.is_empty() || value.chars().all(char::is_uppercase)
        }
        _ => false,
    }
}

/// Runs the commands of a document's blocks that are quick, one after the other as they stand there.
fn run_quick(text: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, real) in READERS {
        let place = folder.path().join(name);
        fs::create_dir_all(place.parent().unwrap_or(folder.path()))?;
        link(real, &place)?;
    }
    for name in PICTURES {
        fs::write(folder.path().join(name), STANDARD.decode(PICTURE)?)?;
    }
    let mut count = 0;
    for command in documented(text).iter().filter(|command| command.is_whole) {
        let Some([subcommand, rest @ ..]) = of_waft(&command.words) else { continue };
        if QUICK.contains(&subcommand.as_str()) {
            let arguments: Vec<&str> = [subcommand].into_iter().chain(rest).map(String::as_str).collect();
            waft(folder.path(), &arguments).with_context(|| command.words.join(" "))?;
            count += 1;
        }
    }
    ensure!(count >= 10, "only {count} commands were run");
    eprintln!("{count} commands of README.md were run");
    Ok(())
}

/// Runs a command of waft's in a folder.
fn waft(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(std::env::current_exe()?).args(arguments).current_dir(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(line: &str) -> Documented {
        Documented { words: line.split_whitespace().map(Into::into).collect(), is_whole: true }
    }

    #[test]
    fn commands_are_found_in_blocks_and_sentences() {
        let text = "Say `waft inspect m`, not `waft.h`.\n```sh\n# why\nWAFT_X=1 waft a --b # c\ncd d && cargo e\n```\n";
        let found: Vec<(String, bool)> =
            documented(text).into_iter().map(|found| (found.words.join(" "), found.is_whole)).collect();
        let expected = [("waft a --b", true), ("cd d", true), ("cargo e", true), ("waft inspect m", false)];
        assert_eq!(found, expected.map(|(words, is_whole)| (words.to_string(), is_whole)));
    }

    #[test]
    fn what_the_program_refuses_is_an_error() {
        assert!(understood(&whole("waft sample --model digits --out d.png")).is_ok());
        assert!(understood(&whole("waft sample --modle digits --out d.png")).is_err());
        assert!(understood(&whole("waft sampel")).is_err());
        assert!(understood(&whole("cargo xtask test --only nothing")).is_err());
        assert!(understood(&whole("python models/no-such.py")).is_err());
        assert!(understood(&whole("cd runtime/no-such")).is_err());
        let sentence = |line| Documented { is_whole: false, ..whole(line) };
        assert!(understood(&sentence("cargo xtask test --only PART")).is_ok());
        assert!(understood(&sentence("waft export-weights … --no-such")).is_err());
    }
}
