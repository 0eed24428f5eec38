//! `sign`: puts an Ed25519 signature at the end of a model file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ed25519_dalek::{SIGNATURE_LENGTH, Signer, SigningKey};
use serde_json::json;
use waft::Model;

use super::output::{self, print_json, write_whole};
use crate::sample::AlignedBytes;

/// Bytes of a key's file that are read: more than its digits and the end of a line.
const MOST: u64 = 1024;

/// Signs a .waft file, so that devices that know the public key accept nothing else.
#[derive(clap::Args)]
pub struct Args {
    /// The .waft file.
    model: PathBuf,
    /// File with the secret key, 64 hexadecimal digits; keep it out of repositories.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Make a new key first, readable by its owner only; nothing is overwritten by it.
    #[arg(long)]
    new_key: bool,
    /// The signed file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    check_files(args)?;
    let file = std::fs::read(&args.model).with_context(|| args.model.display().to_string())?;
    check_model(&args.model, &file)?;
    if args.new_key {
        create(&args.key)?;
        // Only now can a second name of the key's file be seen.
        check_files(args)?;
    }
    let key = read(&args.key)?;
    let signature = key.sign(&file).to_bytes();
    write_whole(&args.out, &[file.as_slice(), &signature].concat())?;
    let public = hex::encode(key.verifying_key().as_bytes());
    if args.json {
        return print_json(&json!({ "public_key": public, "signature": hex::encode(signature) }));
    }
    output::print(&format!("{} signed; public key for Model::from_signed_bytes:\n{public}\n", args.out.display()))
}

/// What is signed is a model and nothing else: a device takes one signature away, not two.
fn check_model(path: &Path, file: &[u8]) -> anyhow::Result<()> {
    let is_model = |bytes: &[u8]| Model::from_bytes(AlignedBytes::copy_of(bytes).as_slice()).map(|_| ());
    let Err(error) = is_model(file) else { return Ok(()) };
    let unsigned = file.split_last_chunk::<SIGNATURE_LENGTH>().map(|(model, _)| model);
    ensure!(
        unsigned.is_none_or(|model| is_model(model).is_err()),
        "{0} is signed already; sign the file that was exported, or take the signature off first: \
         head -c -{SIGNATURE_LENGTH} {0} > unsigned.waft",
        path.display()
    );
    Err(error).with_context(|| format!("{} is not a model", path.display()))
}

/// The key is an input, and an output too where it is to be made.
fn check_files(args: &Args) -> anyhow::Result<()> {
    output::check(&[("MODEL", &args.model), ("--key", &args.key)], &[("--out", &args.out)])?;
    output::distinct(("--key", &args.key), ("--out", &args.out))
}

fn create(path: &Path) -> anyhow::Result<()> {
    let mut secret = [0u8; ed25519_dalek::SECRET_KEY_LENGTH];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    output::create_secret(path, &format!("{}\n", hex::encode(secret)))
        .with_context(|| format!("cannot create the key {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<SigningKey> {
    // A device may never end.
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .with_context(|| format!("cannot read the key {}; --new-key makes one", path.display()))?;
    let mut secret = [0u8; ed25519_dalek::SECRET_KEY_LENGTH];
    hex::decode_to_slice(text.trim(), &mut secret)
        .with_context(|| format!("{}: a key is 64 hexadecimal digits", path.display()))?;
    Ok(SigningKey::from_bytes(&secret))
}
