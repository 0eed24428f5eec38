//! `bench host`.

mod chart;
mod peers;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cpu_time::ThreadTime;
use serde_json::{Map, Value, json};
use waft::{Accelerator, Instructions, Model, Precision, Session, ThreadPool};
use waft_host::checkpoint::Checkpoint;
use waft_host::export::{ExportOptions, Recipe, Rounding, export, precision_name, predictor};
use waft_host::sample::{AlignedBytes, arena};
use waft_host::shipped;

use self::peers::Peers;
use crate::args::{Bar, print_json};

/// One network call on this computer, beside ONNX Runtime, OpenVINO and PyTorch.
///
/// All take turns in one run, round by round, and the median of the rounds is told: a machine whose speed drifts does so for all.
/// With one thread it is the processor's time that counts, so that other work on the machine does not; with more, the clock's.
/// The peers come by pip into target/peers, with the interpreter that `--python` names; what it has already is not installed again.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of a shipped model, a checkpoint folder, or w2 or w3: networks of random weights, 32×32, of 303 million and 6 billion
    /// multiply-accumulates.
    #[arg(long)]
    model: String,
    /// Threads of each, which compute as many samples at once [default: 1].
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Rounds.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Interpreter of the peers.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Measure waft alone.
    #[arg(long)]
    alone: bool,
    /// Draw a bar chart.
    #[arg(long, value_name = "F.svg")]
    svg: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How long each computes in a round.
const ROUND: Duration = Duration::from_millis(400);

/// The timestep of the calls.
const TIMESTEP: i64 = 500;

/// What is measured, with its milliseconds a call in each round.
struct Measured {
    name: String,
    rounds: Vec<f64>,
}

impl Measured {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), rounds: vec![] }
    }

    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let peers = if args.alone { None } else { Some(Peers::find(&args.python)?) };
    let checkpoint = folder(&args.model, peers.as_ref(), &args.python)?;
    let files = [Precision::I8, Precision::F32].map(|precision| Ok((precision, file(args, &checkpoint, precision)?)));
    let files = files.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut running = peers.map(|peers| peers.start(&checkpoint, args.threads)).transpose()?;
    let names = running.as_ref().map_or(vec![], |running| running.names().to_vec());

    let mut ours: Vec<Measured> =
        files.iter().map(|(precision, _)| Measured::new(format!("waft {}", precision_name(*precision)))).collect();
    let mut others: Vec<Measured> = names.iter().map(Measured::new).collect();
    for _ in 0..args.rounds {
        for ((_, bytes), measured) in files.iter().zip(&mut ours) {
            measured.rounds.push(time(bytes, args.threads)?);
        }
        if let Some(running) = &mut running {
            for (index, measured) in others.iter_mut().enumerate() {
                measured.rounds.push(running.time(index, ROUND)?);
            }
        }
    }

    let alone: Vec<Together> = match args.threads {
        1 => vec![],
        threads => {
            files.iter().map(|(_, bytes)| Together::of(bytes, threads, args.rounds)).collect::<Result<_, _>>()?
        }
    };
    let macs = Model::from_bytes(files[0].1.as_slice())?.header().macs;
    let table = |measured: &[Measured]| -> Map<String, Value> {
        measured.iter().map(|measured| (measured.name.clone(), json!(measured.median()))).collect()
    };
    let best = others.iter().map(Measured::median).min_by(f64::total_cmp);
    let report = json!({
        "model": args.model,
        "processor": processor(),
        "instructions": Instructions::best().name(),
        "threads": args.threads,
        "macs": macs,
        "waft_ms": ours[0].median(),
        "waft": table(&ours),
        "peers": table(&others),
        "one_sample": ours.iter().zip(&alone).map(|(ours, alone)| (ours.name.clone(), json!(alone.milliseconds))).collect::<Map<_, _>>(),
        "speed_to_best_peer": best.map(|best| best / ours[0].median()),
        "versions": running.as_ref().map(|running| running.versions().clone()),
    });
    if let Some(path) = &args.svg {
        let title = format!("{}, {} thread(s), {}", args.model, args.threads, processor());
        let bars: Vec<(&str, f64)> =
            ours.iter().chain(&others).map(|measured| (measured.name.as_str(), measured.median())).collect();
        std::fs::write(path, chart::svg(&title, &bars)).with_context(|| path.display().to_string())?;
    }
    if args.json {
        return print_json(&report);
    }
    println!(
        "{} ({}), {} threads, milliseconds a network call:",
        processor(),
        Instructions::best().name(),
        args.threads
    );
    for measured in ours.iter().chain(&others) {
        println!("  {:<28} {:>9.3}", measured.name, measured.median());
    }
    for (ours, Together { milliseconds: [one, all], wakings }) in ours.iter().zip(&alone) {
        println!(
            "  {}, one sample: {one:.3} on one thread, {all:.3} on {} with a core each, woken {wakings} times",
            ours.name, args.threads
        );
    }
    if let Some(best) = best {
        println!("i8 has {:.2} times the speed of the best peer", best / ours[0].median());
    }
    Ok(())
}

/// The checkpoint's folder.
fn folder(model: &str, peers: Option<&Peers>, python: &Path) -> anyhow::Result<PathBuf> {
    if ["w2", "w3"].contains(&model) {
        return match peers {
            Some(peers) => peers.make(model),
            None => Peers::find(python)?.make(model),
        };
    }
    let given = PathBuf::from(model);
    if given.is_dir() {
        return Ok(given);
    }
    let shipped = shipped::models_folder().join(model).join("checkpoint");
    ensure!(shipped.is_dir(), "{model}: no folder, no shipped model, neither w2 nor w3");
    Ok(shipped)
}

/// The model in a precision. Speed does not depend on how well it is calibrated.
fn file(args: &Args, checkpoint: &Path, precision: Precision) -> anyhow::Result<AlignedBytes> {
    let checkpoint = Checkpoint::open(checkpoint)?;
    if precision == Precision::F32 {
        return Ok(predictor(&checkpoint, &[TIMESTEP])?);
    }
    if let Ok(shipped) = shipped::find(&args.model, None, None, &Bar::default()) {
        return Ok(shipped);
    }
    let recipe = Recipe { rounding: Rounding::Nearest, ..Recipe::default() };
    let options = ExportOptions { calibration_images: 1, steps: vec![1], recipe, ..ExportOptions::default() };
    Ok(export(&checkpoint, &options, &Bar::default())?.bytes)
}

/// Milliseconds a call, where each of `threads` computes calls of its own.
fn time(bytes: &AlignedBytes, threads: u32) -> anyhow::Result<f64> {
    let model = Model::from_bytes(bytes.as_slice())?;
    let accelerator = Accelerator::new(&model);
    let rates = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| milliseconds(&model, accelerator.clone(), threads == 1))).collect();
        workers.into_iter().map(|worker| worker.join().expect("does not panic")).collect::<anyhow::Result<Vec<f64>>>()
    })?;
    // Each thread's calls a millisecond add up.
    Ok(1.0 / rates.iter().map(|milliseconds| 1.0 / milliseconds).sum::<f64>())
}

/// Threads in the head: tasks run one after the other, and what all but the longest take is added up.
#[derive(Debug)]
struct InTurn {
    threads: u32,
    /// Of all calls, and how often there were tasks.
    hidden: Mutex<(Duration, u32)>,
}

impl ThreadPool for InTurn {
    fn threads(&self) -> usize {
        self.threads as usize
    }

    fn run(&self, tasks: &mut [&mut (dyn FnMut() + Send)]) {
        let time = |task: &mut &mut (dyn FnMut() + Send)| {
            let begun = ThreadTime::now();
            task();
            begun.elapsed()
        };
        let times: Vec<Duration> = tasks.iter_mut().map(time).collect();
        let hidden = times.iter().sum::<Duration>() - times.iter().max().copied().unwrap_or_default();
        let mut sum = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = (sum.0 + hidden, sum.1 + 1);
    }
}

/// What several threads make of one sample. Other work on a machine takes threads away from each other, so that the clock says
/// little: it is the processor's time of what cannot run beside something else that is told, without what waking a thread takes.
struct Together {
    /// On one thread, and on several.
    milliseconds: [f64; 2],
    /// How often threads are woken.
    wakings: u32,
}

impl Together {
    /// Both take turns.
    fn of(bytes: &AlignedBytes, threads: u32, rounds: u32) -> anyhow::Result<Self> {
        let model = Model::from_bytes(bytes.as_slice())?;
        let pool = Arc::new(InTurn { threads, hidden: Mutex::default() });
        let mut memory = arena(&model);
        let mut accelerators = [Accelerator::new(&model), Accelerator::new(&model).with_threads(pool.clone())];
        let (mut times, mut wakings) = ([vec![], vec![]], 0);
        let begun = Instant::now();
        while begun.elapsed() < ROUND * rounds || times[0].len() < 4 {
            for (accelerator, times) in accelerators.iter_mut().zip(&mut times) {
                let mut session = Session::new(&model, memory.as_mut_slice())?.accelerated(accelerator);
                let begun = ThreadTime::now();
                let mut call = session.predict(0, 0, (model.classes() > 0).then_some(0))?;
                while call.step()? {}
                let (hidden, count) = std::mem::take(&mut *pool.hidden.lock().unwrap_or_else(PoisonError::into_inner));
                times.push((begun.elapsed() - hidden).as_secs_f64() * 1e3);
                wakings = count;
            }
        }
        let milliseconds = times.map(|mut times| {
            // The first warms up.
            times.remove(0);
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        Ok(Self { milliseconds, wakings })
    }
}

/// The median of a thread's calls.
fn milliseconds(model: &Model<'_>, mut accelerator: Accelerator, is_alone: bool) -> anyhow::Result<f64> {
    let mut memory = arena(model);
    let mut session = Session::new(model, memory.as_mut_slice())?.accelerated(&mut accelerator);
    let class = (model.classes() > 0).then_some(0);
    let mut times = vec![];
    let started = Instant::now();
    // The first warms up.
    while started.elapsed() < ROUND || times.len() < 2 {
        let (begun, computed) = (Instant::now(), ThreadTime::now());
        let mut call = session.predict(0, 0, class)?;
        while call.step()? {}
        let time = if is_alone { computed.elapsed() } else { begun.elapsed() };
        times.push(time.as_secs_f64() * 1e3);
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// What the processor calls itself.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}
