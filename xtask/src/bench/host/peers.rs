//! The peers: one Python process that measures when it is told to.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::repository::root;

/// What the script needs: package and module.
const PACKAGES: [(&str, &str); 6] = [
    ("torch", "torch"),
    ("diffusers", "diffusers"),
    ("onnx", "onnx"),
    ("onnxscript", "onnxscript"),
    ("onnxruntime", "onnxruntime"),
    ("openvino", "openvino"),
];

/// An interpreter that has them.
pub(super) struct Peers {
    python: PathBuf,
    /// Where what it lacked was installed.
    packages: PathBuf,
}

impl Peers {
    /// Installs what the interpreter lacks.
    pub(super) fn find(python: &Path) -> anyhow::Result<Self> {
        let found = Self { python: python.to_path_buf(), packages: root().join("target/peers") };
        let missing: Vec<&str> = PACKAGES
            .iter()
            .filter(|(_, module)| {
                !found
                    .command(&[
                        "-c",
                        &format!("import importlib.util as u, sys; sys.exit(u.find_spec({module:?}) is None)"),
                    ])
                    .status()
                    .is_ok_and(|status| status.success())
            })
            .map(|&(package, _)| package)
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }
        if std::env::var_os("WAFT_NO_INSTALL").is_some() {
            bail!("{} lacks {}; install them, or unset WAFT_NO_INSTALL", python.display(), missing.join(", "));
        }
        eprintln!("set-up: pip install --target {} {}", found.packages.display(), missing.join(" "));
        let mut install = Command::new(python);
        install.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&found.packages).args(&missing);
        let status = install.stdout(Stdio::null()).status().with_context(|| python.display().to_string())?;
        ensure!(status.success(), "pip could not install {}", missing.join(", "));
        Ok(found)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.args(arguments).env("PYTHONPATH", &self.packages).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// A checkpoint of random weights.
    pub(super) fn make(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = root().join("target/peers-models").join(name);
        if !folder.is_dir() {
            let mut command = self.command(&[]);
            command.arg(script()).args(["make", name]).arg(&folder).stderr(Stdio::inherit());
            ensure!(command.status()?.success(), "no checkpoint {name}");
        }
        Ok(folder)
    }

    /// Loads a checkpoint into all peers.
    pub(super) fn start(&self, checkpoint: &Path, threads: u32) -> anyhow::Result<Running> {
        let work = root().join("target/peers-models");
        std::fs::create_dir_all(&work)?;
        let mut command = self.command(&[]);
        command.arg(script()).arg("serve").arg(checkpoint).arg(threads.to_string()).arg(&work);
        command.env("OMP_NUM_THREADS", threads.to_string());
        let log = std::fs::File::create(work.join("log.txt"))?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut running = Running { child, input, output, names: vec![], versions: Value::Null };
        let hello =
            running.read().with_context(|| format!("the peers failed, see {}", work.join("log.txt").display()))?;
        for (name, error) in hello["failed"].as_object().into_iter().flatten() {
            eprintln!("note: {name} was not measured: {}", error.as_str().unwrap_or_default());
        }
        let names = hello["names"].as_array().context("no names")?;
        running.names = names.iter().filter_map(|name| Some(name.as_str()?.to_string())).collect();
        running.versions = hello["versions"].clone();
        Ok(running)
    }
}

fn script() -> PathBuf {
    root().join("xtask/bench_host.py")
}

/// The process.
pub(super) struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    names: Vec<String>,
    versions: Value,
}

impl Running {
    /// What it measures.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Versions of the packages.
    pub(super) fn versions(&self) -> &Value {
        &self.versions
    }

    /// Milliseconds a call of a peer, the median over some time.
    pub(super) fn time(&mut self, index: usize, during: Duration) -> anyhow::Result<f64> {
        writeln!(self.input, "{}", json!({ "peer": index, "seconds": during.as_secs_f64() }))?;
        self.read()?["milliseconds"].as_f64().context("no milliseconds")
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line)? > 0, "the peers' process ended");
            // Libraries print lines of their own.
            if let Some(json) = line.strip_prefix("waft-bench ") {
                return Ok(serde_json::from_str(json)?);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is of no use any more, whatever it says.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
