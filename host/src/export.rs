//! The whole line: checkpoint to `.waft` file.

use serde::Serialize;
use thiserror::Error;
use waft::format::{Element, Precision};
use waft::{Guidance, Model, ModelError, Session};

use crate::calibrate::{self, Calibration, Observations, calibrate};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::emit::i8::{QuantizedConv, Widths, shares_scale};
pub use crate::emit::i8::{Recipe, Rounding, Shortcuts};
use crate::emit::{self, Source, StepList};
use crate::graph::Graph;
use crate::import::{ImportError, import, import_for_sampling};
use crate::lower::{LowerError, Network, Op, Role, lower};
use crate::plan::{Plan, materialized_bytes, plan};
use crate::progress::Progress;
pub use crate::quantize::Ranges;
use crate::sample::{self, AlignedBytes, to_floats};
use crate::schedule::{DdimOptions, ScheduleError};
use crate::stream::with_windows;
use crate::write::{Fields, Writer};

/// Arena up to which every stream gets 16 bits without being asked.
const SMALL_ARENA: u64 = 64 * 1024;

/// Why a checkpoint was not exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The network is not supported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The network does not fold into device operations.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The step list is not possible.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// An option that contradicts the model or itself.
    #[error("{0}")]
    Option(String),
    /// The file that was written does not validate: too large a model, or a defect of the exporter.
    #[error("the plan does not fit the format ({0}); reduce the model, or report it if it is small")]
    Format(#[from] ModelError),
}

/// How wide the residual stream, the skips and the inputs of convolutions are in the `i8` precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResidualWidth {
    /// 16 bits where they cost no arena, and for all streams if the arena stays small.
    #[default]
    Auto,
    /// 8 bits wherever the arithmetic allows it.
    Narrow,
    /// 16 bits for streams, and for inputs of convolutions where they cost no arena.
    Wide,
}

/// Width of weights in the `i8` precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightWidth {
    /// Eight bits.
    #[default]
    Eight,
    /// Four bits, but for the first and the last convolution.
    Four,
}

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// How the device computes.
    pub precision: Precision,
    /// Step counts of the lists that the file carries; the first is the default. Empty: the checkpoint's own, or 10.
    pub steps: Vec<usize>,
    /// η of DDIM.
    pub eta: f64,
    /// Guidance that the model will be used with: calibrates for it, and keeps room for it if it is not 1. `None`:
    /// room if the model knows "no class".
    pub guidance: Option<f32>,
    /// Derive ε from the clipped sample; `None`: as the checkpoint says.
    pub use_clipped_model_output: Option<bool>,
    /// Pictures to calibrate with.
    pub calibration_images: usize,
    /// Width of activations in the `i8` precision.
    pub residual: ResidualWidth,
    /// Width of weights in the `i8` precision.
    pub weights: WeightWidth,
    /// How reals of the `i8` precision become integers.
    pub recipe: Recipe,
    /// Scale each step's prediction of the `i8` precision by the factor that brings it nearest to that of `f32` (the
    /// correlated part of the error, He et al., 2023, PTQD, arXiv:2305.10657); it is folded into the step's coefficients.
    pub output_correction: bool,
    /// Most bytes of the arena in the `i8` precision: activations get 16 bits as long as they fit. `None`: as `residual` says.
    pub budget_ram: Option<u64>,
    /// Most bytes of the file in the `i8` precision: weights of convolutions get four bits until it fits, those first that
    /// lose least by it. `None`: as `weights` says.
    pub budget_flash: Option<u64>,
    /// Name in the header; `None`: the checkpoint's, or its folder's.
    pub name: Option<String>,
    /// Keep the weights of convolutions in a file of their own, and stream them through a window of at most this many
    /// bytes of the arena.
    pub stream: Option<u64>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            precision: Precision::I8,
            steps: vec![],
            eta: 0.0,
            guidance: None,
            use_clipped_model_output: None,
            calibration_images: 24,
            residual: ResidualWidth::Auto,
            weights: WeightWidth::Eight,
            recipe: Recipe::default(),
            output_correction: false,
            budget_ram: None,
            budget_flash: None,
            name: None,
            stream: None,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// Bytes of the file.
    pub flash_bytes: u64,
    /// Bytes of the weights' own file, 0 if there is none.
    pub weights_bytes: u64,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// The largest sum of live buffers.
    pub arena_lower_bound_bytes: u64,
    /// Arena of the same graph in 8 bits with every node's result in a buffer of its own.
    pub arena_materialized_bytes: u64,
    /// Multiply-accumulates of one network call.
    pub macs_per_step: u64,
    /// Parameters of the checkpoint.
    pub params: u64,
    /// `i8`, `f16` or `f32`.
    pub precision: &'static str,
    /// Steps of the first list.
    pub steps: usize,
    /// Steps of all lists.
    pub step_lists: Vec<usize>,
    /// Error of every activation against `f32` on the same samples.
    pub tensors: Vec<TensorError>,
}

/// How far one activation is from `f32`.
#[derive(Clone, Debug, Serialize)]
pub struct TensorError {
    /// The operation that computes it.
    pub name: String,
    /// Its element type.
    pub element: String,
    /// Signal to error, in decibels; errors of all operations before are included.
    pub sqnr_db: f64,
}

/// An exported model.
#[derive(Debug)]
pub struct Export {
    /// The file.
    pub bytes: AlignedBytes,
    /// The weights' own file, if they are streamed.
    pub weights: Option<Vec<u8>>,
    /// What to tell people.
    pub report: ExportReport,
    /// The operations in real numbers, by the file's indices: what parity is checked against.
    pub network: Network,
}

/// A network ready to be emitted in any precision.
pub struct Prepared {
    graph: Graph,
    network: Network,
    lists: Vec<StepList>,
    name: String,
    provenance: String,
    unconditional_class: Option<usize>,
}

/// Exports a checkpoint. `progress` shows calibration.
///
/// # Errors
/// If something is not supported, by name.
pub fn export(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<Export, ExportError> {
    let mut prepared = prepare(checkpoint, options)?;
    if options.weights == WeightWidth::Four {
        prepared.narrow_weights();
    }
    let (reference, _) = prepared.emit_float(Precision::F32, None)?;
    let seen = match options.precision {
        Precision::F16 | Precision::F32 => None,
        Precision::I8 => {
            let model = Model::from_bytes(reference.as_slice())?;
            let how = Calibration {
                images: options.calibration_images.max(1),
                steps: prepared.lists.iter().map(|list| list.steps.len()).collect(),
                classes: prepared.graph.classes.as_ref().map_or(0, |classes| classes.classes),
                guidance: prepared.network.unconditional.map(|_| Guidance::from_f32(options.guidance.unwrap_or(2.0))),
                by_step: options.recipe.step_scales,
            };
            let seen = calibrate(&prepared.network, &model, &how, progress);
            let (widths, elements) = prepared.widths(options)?;
            let quantize = |prepared: &Prepared| {
                let source = Source { graph: &prepared.graph, network: &prepared.network, lists: &prepared.lists };
                emit::i8::quantize(&source, &widths, &seen, options.recipe, progress)
            };
            let mut convs = quantize(&prepared);
            if let Some(budget) = options.budget_flash {
                let flash =
                    prepared.emit_i8(&seen, &widths, &elements, options.recipe, &convs, None)?.0.as_slice().len()
                        as u64;
                if flash > budget {
                    prepared.narrow_weights();
                    let narrow = quantize(&prepared);
                    prepared.widen_weights(&seen, &mut convs, narrow, flash, budget)?;
                }
            }
            if options.output_correction {
                let quantized = prepared.emit_i8(&seen, &widths, &elements, options.recipe, &convs, None)?.0;
                let quantized = Model::from_bytes(quantized.as_slice())?;
                let gains = calibrate::output_gains(&model, &quantized, &how, progress);
                for (list, gains) in prepared.lists.iter_mut().zip(gains) {
                    for (step, gain) in list.steps.iter_mut().zip(gains) {
                        step.x0_m *= gain;
                        step.prev_m *= gain;
                    }
                }
            }
            Some((seen, widths, elements, convs))
        }
    };
    let emit = |stream| match &seen {
        Some((seen, widths, elements, convs)) => {
            prepared.emit_i8(seen, widths, elements, options.recipe, convs, stream)
        }
        None => prepared.emit_float(options.precision, stream),
    };
    let (mut bytes, mut weights) = emit(None)?;
    let tensors = if options.precision == Precision::F32 {
        vec![]
    } else {
        prepared.errors(&Model::from_bytes(reference.as_slice())?, &Model::from_bytes(bytes.as_slice())?)
    };
    // Streaming changes where weights are, not a bit of what is computed.
    if options.stream.is_some() {
        (bytes, weights) = emit(options.stream)?;
    }
    let weights = options.stream.map(|_| weights);
    let model = Model::from_bytes(bytes.as_slice())?;
    let header = model.header();
    let step_lists: Vec<usize> = prepared.lists.iter().map(|list| list.steps.len()).collect();
    let report = ExportReport {
        flash_bytes: u64::from(header.file_bytes),
        weights_bytes: u64::from(header.weights_bytes),
        arena_bytes: u64::from(header.arena_bytes),
        arena_lower_bound_bytes: u64::from(header.arena_lower_bound),
        arena_materialized_bytes: materialized_bytes(&prepared.graph),
        macs_per_step: header.macs,
        params: header.params,
        precision: precision_name(options.precision),
        steps: step_lists.first().copied().unwrap_or(0),
        step_lists,
        tensors,
    };
    Ok(Export { bytes, weights, report, network: prepared.network })
}

/// The precision's name in commands and reports.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::I8 => "i8",
        Precision::F16 => "f16",
        Precision::F32 => "f32",
    }
}

/// An `f32` model whose single list visits the given timesteps, for one network call at each.
///
/// # Errors
/// If the checkpoint is not supported.
pub fn predictor(checkpoint: &Checkpoint, timesteps: &[i64]) -> Result<AlignedBytes, ExportError> {
    let graph = import(checkpoint)?;
    let network = lower(&graph, false)?;
    // Only the timesteps matter: the model predicts and does not step.
    let still = crate::schedule::DdimStep {
        timestep: 0,
        prev_timestep: 0,
        x0_x: 0.0,
        x0_m: 0.0,
        clip: None,
        prev_x0: 0.0,
        prev_x: 1.0,
        prev_m: 0.0,
        noise: 0.0,
    };
    let steps = timesteps.iter().map(|&timestep| crate::schedule::DdimStep { timestep, ..still }).collect();
    let lists = vec![StepList::new(&graph, steps)];
    let (name, provenance) = (String::new(), String::new());
    let prepared = Prepared { graph, network, lists, name, provenance, unconditional_class: None };
    Ok(prepared.emit_float(Precision::F32, None)?.0)
}

fn prepare(checkpoint: &Checkpoint, options: &ExportOptions) -> Result<Prepared, ExportError> {
    let refuse = |text: String| ExportError::Option(text);
    let defaults = checkpoint.defaults();
    let graph = import_for_sampling(checkpoint)?;
    let mut steps = options.steps.clone();
    if steps.is_empty() {
        steps = defaults.steps.clone().unwrap_or_else(|| vec![10]);
    }
    let mut sorted = steps.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != steps.len() || steps.len() > 64 {
        return Err(refuse(format!("--steps {steps:?}: name each count once, at most 64 of them")));
    }
    if !(0.0..=1.0).contains(&options.eta) {
        return Err(refuse(format!("--eta {}: between 0 and 1", options.eta)));
    }
    if let Some(guidance) = options.guidance
        && !(-1000.0..=1000.0).contains(&guidance)
    {
        return Err(refuse(format!("--guidance {guidance}: between -1000 and 1000")));
    }
    if options.budget_flash.is_some() && (options.recipe.rounding == Rounding::Nearest || options.stream.is_some()) {
        return Err(refuse("--budget-flash needs --rounding gptq, and no --stream".into()));
    }
    if options.calibration_images > 100_000 {
        return Err(refuse(format!("--calib {}: at most 100000 pictures", options.calibration_images)));
    }
    if options.recipe.step_scales && options.calibration_images < steps.len() {
        let (images, lists) = (options.calibration_images, steps.len());
        let what = "each of the step lists needs a picture for its scales";
        return Err(refuse(format!(
            "--step-scales with --calib {images}: {what}, so at least {lists}, better a multiple"
        )));
    }
    let classes = graph.classes.as_ref().map_or(0, |classes| classes.classes);
    let unconditional_class = match defaults.unconditional_class {
        Some(class) if class >= classes => {
            return Err(refuse(format!("waft.json: unconditional_class {class}, but the model has {classes} classes")));
        }
        class => class,
    };
    if options.guidance.is_some_and(|guidance| guidance != 1.0) && unconditional_class.is_none() {
        let what = "guidance needs a class that means \"no class\": name it as unconditional_class in waft.json";
        return Err(refuse(what.into()));
    }
    let guided = unconditional_class.is_some() && options.guidance != Some(1.0);
    let network = lower(&graph, guided)?;
    let ddim = DdimOptions {
        eta: options.eta,
        use_clipped_model_output: options.use_clipped_model_output.unwrap_or(defaults.use_clipped_model_output),
    };
    let lists = steps
        .iter()
        .map(|&n| Ok(StepList::new(&graph, checkpoint.scheduler()?.ddim(n, ddim)?)))
        .collect::<Result<_, ExportError>>()?;
    let folder = || checkpoint.folder().file_name().map(|name| name.to_string_lossy().into_owned());
    let name = options.name.clone().or_else(|| defaults.name.clone()).or_else(folder).unwrap_or_default();
    let provenance = defaults.provenance.clone().unwrap_or_default();
    let provenance = format!("{provenance}\nexported by waft-host {}", env!("CARGO_PKG_VERSION"));
    Ok(Prepared { graph, network, lists, name, provenance: provenance.trim().into(), unconditional_class })
}

impl Prepared {
    fn plan(&self, elements: &[Element]) -> Plan {
        plan(&self.network, &element_bytes(elements))
    }

    /// The network with its weights streamed through windows, and its elements.
    fn streamed(
        &self,
        elements: &[Element],
        precision: Precision,
        stream: Option<u64>,
    ) -> Result<(Network, Vec<Element>), ExportError> {
        let Some(limit) = stream else { return Ok((self.network.clone(), elements.to_vec())) };
        let network =
            with_windows(&self.network, &element_bytes(elements), precision, limit).map_err(|(name, bytes)| {
                ExportError::Option(format!("--stream {limit}: {name} needs a window of at least {bytes} bytes"))
            })?;
        let mut elements = elements.to_vec();
        elements.resize(network.tensors.len(), Element::I8);
        Ok((network, elements))
    }

    fn emit_float(&self, precision: Precision, stream: Option<u64>) -> Result<(AlignedBytes, Vec<u8>), ExportError> {
        let activation = if precision == Precision::F16 { Element::F16 } else { Element::F32 };
        let elements = emit::float_elements(&self.network, activation);
        let (network, elements) = self.streamed(&elements, precision, stream)?;
        let plan = plan(&network, &element_bytes(&elements));
        self.check(&plan)?;
        let mut writer = Writer::default();
        let source = Source { graph: &self.graph, network: &network, lists: &self.lists };
        let emitted = emit::float::emit(&source, precision, &plan, &elements, &mut writer);
        self.finish(writer, precision, &plan, &emitted)
    }

    fn emit_i8(
        &self,
        seen: &Observations,
        widths: &Widths,
        elements: &[Element],
        recipe: Recipe,
        convs: &[Option<QuantizedConv>],
        stream: Option<u64>,
    ) -> Result<(AlignedBytes, Vec<u8>), ExportError> {
        let (network, elements) = self.streamed(elements, Precision::I8, stream)?;
        let plan = plan(&network, &element_bytes(&elements));
        self.check(&plan)?;
        let mut writer = Writer::default();
        let source = Source { graph: &self.graph, network: &network, lists: &self.lists };
        let emitted = emit::i8::emit(&source, widths, seen, recipe, convs, &plan, &elements, &mut writer);
        self.finish(writer, Precision::I8, &plan, &emitted)
    }

    /// Gives four bits to the weights of all convolutions but the first and the last: these are small, and everything
    /// goes through them.
    fn narrow_weights(&mut self) {
        let (sample, prediction) = (self.network.sample, self.network.prediction);
        for (_, op) in &mut self.network.ops {
            if let Op::Conv(conv) = op {
                conv.four_bits = !conv.sources.contains(&sample) && conv.output != prediction;
            }
        }
    }

    /// Which streams and rings get 16 bits.
    fn widths(&self, options: &ExportOptions) -> Result<(Widths, Vec<Element>), ExportError> {
        let stream = options.residual;
        let arena = |widths: &Widths| self.plan(&widths.elements(&self.network)).arena_bytes;
        let shortcuts = options.recipe.shortcuts;
        let all = |wide: bool| Widths::new(&self.network, vec![wide; self.network.tensors.len()], shortcuts);
        let mut best = match stream {
            _ if options.budget_ram.is_some() => all(false),
            ResidualWidth::Wide => all(true),
            ResidualWidth::Auto if arena(&all(true)) <= SMALL_ARENA => all(true),
            ResidualWidth::Auto | ResidualWidth::Narrow => all(false),
        };
        if let Some(budget) = options.budget_ram
            && arena(&best) > budget
        {
            let text = format!("--budget-ram {budget}: the arena needs {} bytes at least", arena(&best));
            return Err(ExportError::Option(text));
        }
        if stream != ResidualWidth::Narrow || options.budget_ram.is_some() {
            // Widen one after the other what does not raise the arena: first what many operations read.
            let limit = options.budget_ram.unwrap_or_else(|| arena(&best));
            let attempt = |candidate: Widths, best: &mut Widths| {
                if arena(&candidate) <= limit {
                    *best = candidate;
                }
            };
            for id in 0..self.network.tensors.len() {
                if self.network.tensors[id].role == Role::Stream && !best.wide_stream[id] {
                    let mut wide = best.wide_stream.clone();
                    wide[id] = true;
                    attempt(Widths::new(&self.network, wide, shortcuts), &mut best);
                }
            }
            for (index, (_, op)) in self.network.ops.iter().enumerate() {
                if matches!(op, Op::Conv(conv) if !shares_scale(conv, shortcuts)) && !best.wide_ring[index] {
                    let mut candidate = best.clone();
                    candidate.wide_ring[index] = true;
                    attempt(candidate, &mut best);
                }
            }
        }
        let elements = best.elements(&self.network);
        Ok((best, elements))
    }

    /// Takes the eight-bit weights of as many convolutions as the budget allows, and of the others, which lose least by
    /// it, `narrow` ones into `convs`. `flash` is the file's size with eight bits everywhere.
    fn widen_weights(
        &mut self,
        seen: &Observations,
        convs: &mut [Option<QuantizedConv>],
        narrow: Vec<Option<QuantizedConv>>,
        mut flash: u64,
        budget: u64,
    ) -> Result<(), ExportError> {
        // Noise over signal for each byte that four bits save.
        let mut candidates = vec![];
        for (index, ((_, op), quantized)) in self.network.ops.iter().zip(&narrow).enumerate() {
            if let (Op::Conv(conv), Some(quantized)) = (op, quantized)
                && conv.four_bits
            {
                let [keys, values] = &seen.key_value[conv.output];
                let own = &seen.tensors[conv.output];
                let signal = [own, keys, values].iter().map(|observer| observer.variance()).sum::<f64>().max(1e-12);
                let taps = (conv.conv.weight.len() / conv.conv.outputs) as u64;
                let section = |bytes: u64| bytes.next_multiple_of(waft::format::ALIGN as u64);
                let outputs = conv.conv.outputs as u64;
                let saved = section(outputs * taps) - section(outputs.next_multiple_of(4) / 2 * taps);
                candidates.push((quantized.noise / signal / saved.max(1) as f64, index, saved));
            }
        }
        candidates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut narrow = narrow;
        for (_, index, saved) in candidates {
            if flash > budget {
                flash -= saved;
                convs[index] = narrow[index].take();
            } else if let Op::Conv(conv) = &mut self.network.ops[index].1 {
                conv.four_bits = false;
            }
        }
        if flash > budget {
            let text =
                format!("--budget-flash {budget}: the file needs {flash} bytes at least; export fewer step lists");
            return Err(ExportError::Option(text));
        }
        Ok(())
    }

    /// Sizes that the format's fields hold.
    fn check(&self, plan: &Plan) -> Result<(), ExportError> {
        let refuse = |text: String| Err(ExportError::Option(text));
        if plan.arena_bytes > 1 << 30 {
            return refuse(format!("the arena would have {} bytes; the format ends at 1 GiB", plan.arena_bytes));
        }
        if self.network.tensors.len() >= 65_535 || self.network.ops.len() >= 65_535 {
            return refuse("the network has more than 65534 tensors or operations".into());
        }
        match self.network.tensors.iter().find(|t| t.shape.h > 65_535 || t.shape.w > 65_535 || t.shape.c > 65_535) {
            Some(tensor) => refuse(format!("{} is {}; no dimension may exceed 65535", tensor.name, tensor.shape)),
            None => Ok(()),
        }
    }

    fn finish(
        &self,
        writer: Writer,
        precision: Precision,
        plan: &Plan,
        emitted: &emit::Emitted,
    ) -> Result<(AlignedBytes, Vec<u8>), ExportError> {
        let network = &self.network;
        if writer.len() > 1 << 31 {
            return Err(ExportError::Option("the file would exceed 2 GiB; export in a smaller precision".into()));
        }
        let fields = Fields {
            precision,
            arena: [plan.arena_bytes, plan.lower_bound_bytes],
            classes: self.graph.classes.as_ref().map_or(0, |classes| classes.classes),
            unconditional_class: self.unconditional_class,
            tensors: [Some(network.sample), Some(network.prediction), network.unconditional],
            name: self.name.clone(),
            provenance: self.provenance.clone(),
            conditioning: network.conditioning,
            macs: network.macs(),
            params: self.graph.params,
        };
        let (file, weights) = writer.finish(&fields, &emitted.tensors, &emitted.ops, &emitted.schedules);
        let bytes = AlignedBytes::copy_of(&file);
        Model::from_bytes(bytes.as_slice())?;
        Ok((bytes, weights))
    }

    /// Error of every activation: both models see the same samples, those of an `f32` run of the first list.
    fn errors(&self, reference: &Model<'_>, quantized: &Model<'_>) -> Vec<TensorError> {
        let network = &self.network;
        let mut memory = [sample::arena(reference), sample::arena(reference), sample::arena(quantized)];
        let [run_memory, reference_memory, quantized_memory] = &mut memory;
        let class = (reference.classes() > 0).then_some(0);
        let mut request = waft::Request::new().seed(1);
        if let Some(class) = class {
            request = request.class(class);
        }
        let mut session = Session::new(reference, run_memory.as_mut_slice()).expect("the exporter's own model runs");
        let Ok(run) = session.sample(request) else { return vec![] };
        let Ok(picture) = sample::finish(run, true) else { return vec![] };
        let mut power = vec![[0f64; 2]; network.ops.len()];
        for (step, x) in
            picture.trajectory.iter().take(reference.schedule(0).map_or(0, |s| s.steps as usize)).enumerate()
        {
            let outputs = [(reference, &mut *reference_memory), (quantized, &mut *quantized_memory)]
                .map(|(model, memory)| self.outputs(model, memory.as_mut_slice(), x, step as u32, class));
            for ((power, want), got) in power.iter_mut().zip(&outputs[0]).zip(&outputs[1]) {
                for (&want, &got) in want.iter().zip(got) {
                    power[0] += want * want;
                    power[1] += (want - got) * (want - got);
                }
            }
        }
        network
            .ops
            .iter()
            .zip(power)
            .filter(|(_, power)| power[0] > 0.0)
            .map(|((name, op), [signal, error])| TensorError {
                name: name.clone(),
                element: quantized
                    .tensor(op.output() as u16)
                    .map_or_else(String::new, |tensor| format!("{:?}", tensor.element).to_lowercase()),
                sqnr_db: 10.0 * (signal / error.max(signal * 1e-20)).log10(),
            })
            .collect()
    }

    /// Real values of each operation's result in one call; empty for what has no real scale.
    fn outputs(&self, model: &Model<'_>, arena: &mut [u8], x: &[f32], step: u32, class: Option<u16>) -> Vec<Vec<f64>> {
        let network = &self.network;
        let mut outputs = vec![vec![]; network.ops.len()];
        let mut session = Session::new(model, arena).expect("the exporter's own model runs");
        if sample::set_input(&mut session, x).is_none() {
            return outputs;
        }
        let Ok(mut call) = session.predict(0, step, class) else { return outputs };
        let mut before = None;
        loop {
            let starts = call.starts();
            if let (Some(_), Some(op)) = (starts, before) {
                let id = network.ops[usize::from(op)].1.output();
                let uniform = network.tensors[id].role == Role::Stream
                    || (network.tensors[id].role == Role::Attention && !self.is_joint(id));
                if uniform && let (Some(tensor), Some(bytes)) = (model.tensor(id as u16), call.tensor_bytes(id as u16))
                {
                    outputs[usize::from(op)] = reals(&tensor, bytes);
                }
            }
            before = starts.or(before);
            match call.step() {
                Ok(true) => {}
                _ => break,
            }
        }
        if let Some(last) = outputs.last_mut() {
            *last = to_floats(call.output()).into_iter().map(f64::from).collect();
        }
        outputs
    }

    fn is_joint(&self, id: usize) -> bool {
        let joins =
            |op: &crate::lower::Op| matches!(op, crate::lower::Op::Attention { key_value, .. } if *key_value == id);
        self.network.ops.iter().any(|(_, op)| joins(op))
    }
}

fn element_bytes(elements: &[Element]) -> Vec<u64> {
    elements.iter().map(|element| element.bytes() as u64).collect()
}

/// A tensor's bytes as real numbers.
fn reals(tensor: &waft::format::Tensor, bytes: &[u8]) -> Vec<f64> {
    let scale = f64::from(tensor.scale);
    let zero = f64::from(tensor.zero_point);
    let dequantize = |q: f64| (q - zero) * scale;
    match tensor.element {
        Element::I8 => bytes.iter().map(|&b| dequantize(f64::from(b as i8))).collect(),
        Element::I16 => bytes.as_chunks().0.iter().map(|&b| dequantize(f64::from(i16::from_le_bytes(b)))).collect(),
        Element::I32 => bytes.as_chunks().0.iter().map(|&b| dequantize(f64::from(i32::from_le_bytes(b)))).collect(),
        Element::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f64()).collect(),
        Element::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
    }
}
