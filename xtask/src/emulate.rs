//! Running the firmware: a request, the machine that runs the image, and what the image printed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use waft::Guidance;
use waft_host::sample::digest;

use crate::boards::{Board, Machine};
use crate::repository::root;

/// An image to draw on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) steps: Option<u32>,
    pub(crate) seed: u64,
    pub(crate) class: Option<u16>,
    pub(crate) guidance: Option<f32>,
    /// First step, of a firmware that starts from a picture.
    pub(crate) start: u32,
}

/// Seed 0 and whatever the model draws of itself.
pub(crate) const PLAIN: Request = Request { steps: None, seed: 0, class: None, guidance: None, start: 0 };

impl Request {
    /// The same for the host.
    pub(crate) fn on_host(&self) -> waft::Request {
        let mut request = waft::Request::new().seed(self.seed).start(self.start);
        if let Some(class) = self.class {
            request = request.class(class);
        }
        if let Some(steps) = self.steps {
            request = request.steps(steps);
        }
        if let Some(scale) = self.guidance {
            request = request.guidance(Guidance::from_f32(scale));
        }
        request
    }

    /// The firmware's command line.
    fn words(&self) -> Vec<String> {
        let mut words = vec![format!("seed={}", self.seed)];
        words.extend(self.class.map(|class| format!("class={class}")));
        words.extend(self.steps.map(|steps| format!("steps={steps}")));
        words.extend(self.guidance.map(|scale| format!("guidance={}", Guidance::from_f32(scale).to_bits())));
        words.extend((self.start > 0).then(|| format!("start={}", self.start)));
        words
    }
}

/// How long an image may run.
const LIMIT: Duration = Duration::from_secs(600);

/// What a firmware printed: lines `key=value`.
pub(crate) struct Printed(String);

impl Printed {
    /// What the image of a board prints until its end.
    pub(crate) fn by(board: &Board, image: &Path, request: &Request) -> anyhow::Result<Self> {
        run_for(&mut command(board, image, &request.words()), LIMIT).map(Self)
    }

    /// The same with a model that the image does not carry; it goes where the image looks for it.
    pub(crate) fn by_loading(board: &Board, image: &Path, model: &Path, request: &Request) -> anyhow::Result<Self> {
        let mut command = command(board, image, &request.words());
        if let Some(address) = board.model_at {
            let device = format!("loader,file={},addr={address:#x},force-raw=on", model.display());
            command.args(["-device", &device]);
        }
        run_for(&mut command, LIMIT).map(Self)
    }

    /// What a program of this computer printed.
    pub(crate) fn text(text: String) -> Self {
        Self(text)
    }

    /// All of it.
    pub(crate) fn whole(&self) -> &str {
        &self.0
    }

    fn value(&self, key: &str) -> anyhow::Result<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once('='));
        lines.find(|(found, _)| *found == key).map(|(_, value)| value).with_context(|| {
            format!("the firmware printed no {key} ({}); does the model have that class and step count?", self.0.trim())
        })
    }

    /// A number that it printed.
    pub(crate) fn number(&self, key: &str) -> anyhow::Result<u64> {
        Ok(u64::from_str_radix(self.value(key)?, 16)?)
    }

    /// The numbers of all keys that begin with `prefix`, with what follows it.
    pub(crate) fn numbers<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, anyhow::Result<u64>)> {
        let lines = self.0.lines().filter_map(|line| line.split_once('='));
        lines.filter_map(move |(key, value)| {
            Some((key.strip_prefix(prefix)?, u64::from_str_radix(value, 16).map_err(Into::into)))
        })
    }

    /// SHA-256 of the image's bytes.
    pub(crate) fn digest(&self) -> anyhow::Result<String> {
        let pairs = self.value("image")?.as_bytes().chunks(2);
        let bytes: Vec<u8> =
            pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect::<anyhow::Result<_>>()?;
        Ok(digest([bytes.as_slice()]))
    }
}

/// The command that runs an image with a command line.
fn command(board: &Board, image: &Path, words: &[String]) -> Command {
    match board.machine {
        Machine::Qemu { program, arguments, .. } => {
            let mut semihosting = "enable=on,target=native,arg=waft".to_string();
            words.iter().for_each(|word| semihosting += &format!(",arg={word}"));
            let mut command = Command::new(program);
            command
                .args(arguments)
                .args(["-nographic", "-monitor", "none", "-serial", "none"])
                .args(["-icount", "shift=0,align=off,sleep=off"])
                .args(["-semihosting-config", &semihosting, "-kernel"])
                .arg(image);
            command
        }
        Machine::Node => {
            let mut command = Command::new("node");
            command.arg(root().join("tests").join("firmware").join("wasm.mjs")).arg(image).arg(words.join(" "));
            command
        }
        Machine::Native => {
            let mut command = Command::new(image);
            command.arg(words.join(" "));
            command
        }
    }
}

/// Standard output of a program that ends in time and successfully.
fn run_for(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("piped above")?;
    let mut stderr = child.stderr.take().context("piped above")?;
    // Semihosting prints on one or the other, depending on QEMU's version.
    let readers = [
        std::thread::spawn(move || std::io::read_to_string(&mut stdout)),
        std::thread::spawn(move || std::io::read_to_string(&mut stderr)),
    ];
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            bail!("the emulator did not end within {} seconds", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    for reader in readers {
        text += &reader.join().map_err(|_| anyhow::anyhow!("reading the emulator's output failed"))??;
    }
    if !status.success() {
        bail!("the firmware ended with {status}: {}", text.trim());
    }
    Ok(text)
}
