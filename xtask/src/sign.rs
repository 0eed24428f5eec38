//! `sign`: puts an Ed25519 signature at the end of a model file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::json;
use waft::Model;
use waft_host::sample::AlignedBytes;

use crate::args::{print_json, write_whole};

/// Signs a .waft file, so that devices that know the public key accept nothing else.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file.
    model: PathBuf,
    /// File with the secret key, 64 hexadecimal digits; keep it out of repositories.
    #[arg(long)]
    key: PathBuf,
    /// Makes a new key first; refuses to write over an old one.
    #[arg(long)]
    new_key: bool,
    /// The signed file.
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let file = std::fs::read(&args.model).with_context(|| args.model.display().to_string())?;
    Model::from_bytes(AlignedBytes::copy_of(&file).as_slice())
        .with_context(|| format!("{} is not a model", args.model.display()))?;
    if args.new_key {
        create(&args.key)?;
    }
    let key = read(&args.key)?;
    let signature = key.sign(&file).to_bytes();
    let signed = [file.as_slice(), &signature].concat();
    write_whole(&args.out, |path| Ok(std::fs::write(path, &signed)?))?;
    let public: String = hex(key.verifying_key().as_bytes());
    if args.json {
        return print_json(&json!({ "public_key": public, "signature": hex(&signature) }));
    }
    println!("{} signed; public key for Model::from_signed_bytes:\n{public}", args.out.display());
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<()> {
    let mut secret = [0u8; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| format!("cannot create the key {}", path.display()))?;
    writeln!(file, "{}", hex(&secret))?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<SigningKey> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the key {}; --new-key makes one", path.display()))?;
    let digits = text.trim().as_bytes();
    ensure!(digits.len() == 64, "{}: a key is 64 hexadecimal digits", path.display());
    let mut secret = [0u8; 32];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            bail!("{}: a key is 64 hexadecimal digits", path.display());
        };
        *byte = (high << 4 | low) as u8;
    }
    Ok(SigningKey::from_bytes(&secret))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
