//! The first stage: the network, its step lists and names, ready to be emitted in a float precision.

use std::collections::BTreeSet;

use typed_index_collections::TiVec;
use waft::arithmetic::activate::OBSERVED_BITS;
use waft::format::{Element, Precision, WeightLayout};

use super::file::{File, Layout};
use super::{ExportError, ExportOptions};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::condition::Conditions;
use crate::emit::{self, Emitted, Source, StepList};
use crate::graph::{Graph, Layer, activate};
use crate::import::{add_classifier, import, import_for_sampling};
use crate::network::{Network, OpId};
use crate::rewrite::{again, rewrite};
use crate::schedule::{Ddim, ScheduleError, SchedulerConfig, Solver, Step, StepRequest, history};
use crate::write::{Fields, Writer};

/// A network ready to be emitted.
pub(super) struct Prepared {
    pub graph: Graph,
    pub network: Network,
    pub lists: Vec<StepList>,
    pub name: String,
    pub provenance: String,
    pub unconditional_class: Option<usize>,
    /// Of the pictures that the exporter draws; none for a network that reads none.
    pub conditions: Conditions,
    /// What to know about the result.
    pub notes: Vec<String>,
}

/// Which steps a classifier leaves alone: a sample without signal is noise, and its gradient, times what is infinite there, is no
/// number (see [`Step::gradient_factor`]).
fn unguided(lists: &[StepList]) -> Option<String> {
    let steps = || lists.iter().flat_map(|list| &list.steps);
    let without: BTreeSet<String> =
        steps().filter(|step| step.leaves_gradient_out()).map(|step| step.timestep.to_string()).collect();
    let timesteps = without.into_iter().collect::<Vec<_>>().join(", ");
    (!timesteps.is_empty()).then(|| {
        format!("the classifier does not guide steps at timestep {timesteps}: the sample has no signal there (alpha 0)")
    })
}

impl Prepared {
    /// Imports a checkpoint and folds it into the operations of a device.
    pub(super) fn new(checkpoint: &Checkpoint, options: &ExportOptions) -> Result<Self, ExportError> {
        let defaults = checkpoint.defaults();
        let mut graph = import_for_sampling(checkpoint)?;
        let conditions = conditions(&graph, options)?;
        if options.precision == Precision::I8 {
            check_units(&graph)?;
        }
        let requests = options.lists(defaults)?;
        options.check_texts(defaults)?;
        let classes = graph.classes.as_ref().map_or(0, |classes| classes.classes);
        let mut unconditional_class = defaults.unconditional_class;
        if let Some(class) = unconditional_class.filter(|&class| class >= classes) {
            return Err(ExportError::UnconditionalClass { class, classes });
        }
        if let Some(folder) = &options.classifier {
            let drawn = classes - usize::from(unconditional_class.is_some());
            // A classifier's classes are numbered as the network's; the last may mean "no class".
            if let Some(class) = unconditional_class.filter(|&class| class != drawn) {
                let expected =
                    format!("\"no class\" is class {class}, between the others; a classifier needs it behind them");
                return Err(ExportError::Option { field: "classifier", value: folder.display().to_string(), expected });
            }
            if graph.class_layer() == Layer::First && !options.unconditional {
                let expected = "its class is added before the layers of the noise level, where a classifier has no place: draw with \
                                the class that means \"no class\" (unconditional), or leave it out";
                return Err(ExportError::Option {
                    field: "classifier",
                    value: folder.display().to_string(),
                    expected: expected.into(),
                });
            }
            let default = SchedulerConfig::default();
            let scheduler = checkpoint.scheduler().unwrap_or(&default);
            add_classifier(&mut graph, folder, scheduler, drawn)?;
            if options.unconditional {
                make_unconditional(&mut graph, unconditional_class)?;
            }
            unconditional_class = None;
        } else if let (Some(guidance), None) =
            (options.guidance.filter(|&guidance| guidance != 1.0), unconditional_class)
        {
            return Err(ExportError::NoUnconditionalClass { guidance });
        }
        let guided = options.classifier.is_some() || unconditional_class.is_some() && options.guidance != Some(1.0);
        let mut notes = vec![];
        if let Some(classes) = graph.classes.as_ref().filter(|classes| classes.is_assumed) {
            notes.push(format!(
                "any number is a class to the network (class_embed_type timestep); the file has 0 to {}: --classes has more",
                classes.classes - 1
            ));
        }
        let default;
        let config = match checkpoint.scheduler() {
            Err(error @ CheckpointError::NoScheduler { .. }) => {
                notes.push(format!(
                    "{error}; took the defaults of diffusers' DDIMScheduler (linear betas from 0.0001 to 0.02, 1000 timesteps)"
                ));
                default = SchedulerConfig::default();
                &default
            }
            found => found?,
        };
        let own = Solver::of(config);
        let Some(solver) = options.solver(own, defaults)? else {
            return Err(ExportError::NoSolver { class_name: config.class_name.clone() });
        };
        if solver == Solver::DdimInverse && options.precision == Precision::I8 {
            return Err(ExportError::Option {
                field: "scheduler",
                value: solver.name().into(),
                expected: "f32 or f16: calibration of the i8 precision draws from noise, and this leads to it".into(),
            });
        }
        if own.is_none_or(|own| own.class_name() != solver.class_name()) {
            notes.push(format!(
                "the checkpoint's scheduler is {}; its noise levels are sampled with {}, as asked",
                config.class_name,
                solver.name()
            ));
        }
        if options.corrected && !matches!(solver, Solver::Ddim(_) | Solver::DdimInverse) {
            return Err(ExportError::Option {
                field: "corrected",
                value: "true".into(),
                expected: format!("is for DDIM, whose steps miss the list; leave it out with {}", solver.name()),
            });
        }
        let steps = |request: &StepRequest| match request {
            StepRequest::Count(n) if options.corrected => solver.steps_at(config, &config.timesteps(*n)?),
            request => solver.steps_of(config, request),
        };
        let lists: Vec<StepList> =
            requests.iter().map(|request| embedded(&graph, steps(request)?)).collect::<Result<_, _>>()?;
        if options.precision == Precision::I8 {
            check_conditioning(&graph, &lists)?;
        }
        let learns = lists.iter().flat_map(|list| &list.steps).any(|step| step.variance.is_some());
        check_variance(&graph, learns)?;
        if !learns && graph.drop_variance() {
            notes.push(format!("the learned variances are dropped: {} has noise of its own, if any", solver.name()));
        }
        if options.classifier.is_some() {
            notes.extend(unguided(&lists));
        }
        let lengths: Vec<usize> = lists.iter().map(|list| list.steps.len()).collect();
        options.check_lengths(&lengths)?;
        for (request, length) in requests.iter().zip(lengths) {
            if let StepRequest::Count(count) = request
                && *count != length
            {
                notes.push(format!(
                    "{count} steps of {} are {length} network calls, which is their list's length",
                    solver.name()
                ));
            }
        }
        let mut network = again(rewrite(&graph, guided)?);
        network.keep_history(lists.iter().map(|list| history(&list.steps)).max().unwrap_or(0));
        let folder = || checkpoint.folder().file_name().map(|name| name.to_string_lossy().into_owned());
        let name = options.name.clone().or_else(|| defaults.name.clone()).or_else(folder).unwrap_or_default();
        let provenance = defaults.provenance.clone().unwrap_or_default();
        let provenance = format!("{provenance}\nexported by waft-host {}", env!("CARGO_PKG_VERSION"));
        let provenance = provenance.trim().into();
        Ok(Self { graph, network, lists, name, provenance, unconditional_class, conditions, notes })
    }

    /// A graph with one list of as many of DDIM's default steps as the options' first count.
    pub(super) fn of_graph(graph: Graph, options: &ExportOptions) -> Result<Self, ExportError> {
        let network = rewrite(&graph, false)?;
        let steps = Solver::Ddim(Ddim { eta: options.eta, use_clipped_model_output: false })
            .steps(&SchedulerConfig::default(), options.steps.first().copied().unwrap_or(1))?;
        let lists = vec![StepList::new(&graph, steps)];
        let name = options.name.clone().unwrap_or_default();
        let provenance = format!("exported by waft-host {}", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            graph,
            network,
            lists,
            name,
            provenance,
            unconditional_class: None,
            conditions: Conditions::default(),
            notes: vec![],
        })
    }

    /// A model that predicts at the given timesteps and does not step.
    pub(super) fn predictor(checkpoint: &Checkpoint, timesteps: &[i64]) -> Result<Self, ExportError> {
        let mut graph = import(checkpoint)?;
        // A call gets the observation as the network does.
        if let Some(observation) = &mut graph.observation {
            observation.normalization.fill([0.0, 1.0]);
        }
        graph.actions.clear();
        let network = rewrite(&graph, false)?;
        let still = |timestep: i64| Step { timestep: timestep as f64, next_x: 1.0, ..Step::default() };
        let lists = vec![embedded(&graph, timesteps.iter().copied().map(still).collect())?];
        let (name, provenance) = (String::new(), String::new());
        let conditions = Conditions::default();
        Ok(Self { graph, network, lists, name, provenance, unconditional_class: None, conditions, notes: vec![] })
    }

    /// What an emitter starts from, with the operations of `network`: the prepared one, or that with windows.
    pub(super) fn source<'a>(&'a self, network: &'a Network) -> Source<'a> {
        Source { graph: &self.graph, network, lists: &self.lists }
    }

    /// Emits the file of a float precision.
    pub(super) fn emit(&self, precision: Precision, stream: Option<u64>) -> Result<File, ExportError> {
        let element = if precision == Precision::F16 { Element::F16 } else { Element::F32 };
        let elements = emit::float_elements(&self.network, element);
        let layouts: TiVec<OpId, WeightLayout> =
            self.network.ops.iter().map(|_| emit::float::float_layout(precision)).collect();
        let layout = Layout::new(&self.network, elements, &layouts, stream)?;
        let mut writer = Writer::default();
        let source = self.source(&layout.network);
        let emitted = emit::float::emit(&source, precision, &layout.plan, &layout.elements, &mut writer);
        self.finish(writer, precision, &layout, &emitted)
    }

    /// Writes and validates the file.
    pub(super) fn finish(
        &self,
        writer: Writer,
        precision: Precision,
        layout: &Layout,
        emitted: &Emitted,
    ) -> Result<File, ExportError> {
        let network = &self.network;
        let fields = Fields {
            precision,
            arena: [layout.plan.arena_bytes, layout.plan.lower_bound_bytes],
            classes: self.graph.class_count(),
            unconditional_class: self.unconditional_class,
            tensors: [network.sample, network.prediction],
            variance: network.variance,
            gradient: network.gradient,
            condition: network.condition,
            observation: (network.observation, network.once),
            actions: self.graph.actions.clone(),
            unconditional: network.unconditional,
            history: network.history,
            name: self.name.clone(),
            provenance: self.provenance.clone(),
            conditioning: network.conditioning,
            macs: network.macs(),
            over_timestep: self.graph.over_timestep,
            params: self.graph.params,
        };
        File::write(writer, &fields, emitted)
    }
}

/// The conditions of the pictures that the exporter draws. The `i8` precision learns ranges from them; others are drawn to
/// see whether numbers stay in range, for which zeros do.
fn conditions(graph: &Graph, options: &ExportOptions) -> Result<Conditions, ExportError> {
    match (&graph.observation, &options.observations) {
        (None, None) => {}
        (Some(observation), Some(path)) => {
            return Ok(Conditions::read_observations(path, observation.normalization.len())?);
        }
        (Some(observation), None) if options.precision == Precision::I8 => {
            return Err(ExportError::NoObservations { len: observation.normalization.len() });
        }
        (Some(observation), None) => {
            let centers: Vec<f32> = observation.normalization.iter().map(|of| of[0] as f32).collect();
            return Ok(Conditions::observations(&[1, centers.len()], &centers, centers.len())?);
        }
        (None, Some(path)) => {
            return Err(ExportError::Option {
                field: "observations",
                value: path.display().to_string(),
                expected: "the network acts on no observation; leave it out".into(),
            });
        }
    }
    let shape = graph.condition.map(|id| graph.shape(id)).map(|shape| [shape.h, shape.w, shape.c]);
    match (shape, &options.conditions) {
        (None, None) => Ok(Conditions::default()),
        (None, Some(path)) => Err(ExportError::Option {
            field: "conditions",
            value: path.display().to_string(),
            expected: "the network reads no condition; leave it out".into(),
        }),
        (Some(shape), Some(path)) => Ok(Conditions::read(path, shape)?),
        (Some([rows, columns, channels]), None) if options.precision == Precision::I8 => {
            Err(ExportError::NoConditions { channels, rows, columns })
        }
        (Some(shape), None) => Ok(Conditions::zeros(shape)),
    }
}

/// Adds the class that means "no class" to the time embedding, and leaves out the others.
fn make_unconditional(graph: &mut Graph, class: Option<usize>) -> Result<(), ExportError> {
    let Some(classes) = graph.classes.take() else { return Ok(()) };
    let Some(class) = class else {
        let expected = "the network has no class that means \"no class\"; name it as unconditional_class in waft.json";
        return Err(ExportError::Option { field: "unconditional", value: "true".into(), expected: expected.into() });
    };
    let bias = match classes.layer {
        Layer::First => &mut graph.time.linear_1.bias,
        Layer::Second => &mut graph.time.linear_2.bias,
    };
    let row = classes.table.chunks_exact(bias.len()).nth(class).unwrap_or_default();
    bias.iter_mut().zip(row).for_each(|(bias, entry)| *bias += entry);
    Ok(())
}

/// Whether the network says what steps with learned variances ask.
fn check_variance(graph: &Graph, learns: bool) -> Result<(), ExportError> {
    let expected = match graph.variance {
        _ if !learns => return Ok(()),
        None => "the network has no channels for variances behind those of its prediction; take fixed_small",
        Some(_) if graph.over_timestep => "its network's outputs are divided by the timestep; take another scheduler",
        Some(_) => return Ok(()),
    };
    Err(ScheduleError::field("variance_type", "learned_range", expected).into())
}

/// Whether observations and actions are numbers that the runtime's fixed point holds: from −2048 to 2048, with a resolution of
/// normalized observations of at least 12 fractional bits.
fn check_units(graph: &Graph) -> Result<(), ExportError> {
    const LIMIT: f64 = 2048.0;
    let observation = graph.observation.iter().flat_map(|observation| &observation.normalization);
    for (index, &[center, gain]) in observation.enumerate() {
        if gain.abs() > 256.0 || center.abs() + 1.0 / gain.abs() >= LIMIT {
            return Err(ExportError::Units { what: "observation", index, gain, center });
        }
    }
    for (index, &[gain, center]) in graph.actions.iter().enumerate() {
        if center.abs() + gain.abs() >= LIMIT {
            return Err(ExportError::Units { what: "action", index, gain: 1.0 / gain, center });
        }
    }
    Ok(())
}

/// Whether what the device makes of time and class in two layers is held by 16 bits with 12 fractional ones.
fn check_conditioning(graph: &Graph, lists: &[StepList]) -> Result<(), ExportError> {
    const LIMIT: f64 = (i16::MAX >> OBSERVED_BITS) as f64 + 1.0;
    let Some(classes) = graph.classes.as_ref().filter(|classes| classes.layer == Layer::First) else { return Ok(()) };
    let (length, activation) = graph.class_row();
    let mut largest = 0f64;
    for time in lists.iter().flat_map(|list| &list.embeddings) {
        for row in classes.table.chunks_exact(length) {
            let hidden: Vec<f64> =
                time.iter().zip(row).map(|(time, &class)| activate(activation, time + f64::from(class))).collect();
            let result = graph.time.linear_2.apply(&hidden).into_iter().map(|x| activate(graph.activation, x));
            largest = result.fold(largest, |largest, x| largest.max(x.abs()));
        }
    }
    if largest < LIMIT { Ok(()) } else { Err(ExportError::Conditioning { largest, limit: LIMIT }) }
}

/// A step list with its embeddings. Where the prediction is the network's output over the timestep, the division is part of
/// each step's coefficients.
fn embedded(graph: &Graph, mut steps: Vec<Step>) -> Result<StepList, ExportError> {
    for step in &mut steps {
        let timestep = step.timestep;
        if let Some(reason) = graph.time.projection.missing(timestep) {
            return Err(ExportError::Timestep { timestep, reason });
        }
        if graph.over_timestep {
            step.x0_m /= timestep;
            step.next_m /= timestep;
        }
    }
    Ok(StepList::new(graph, steps))
}
