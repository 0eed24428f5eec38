//! What a picture costs on a core, in instructions: a model of each operation's work, and what a piece of it takes.
//!
//! The coefficients in `instructions.json` are fitted by `cargo xtask cost` to what an emulator counts for each operation of
//! the shipped models. [`chips`] turns instructions into seconds.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use waft::Model;
use waft::arithmetic::Step;
use waft::format::{Element, Op, Precision, Schedule, Tensor};

mod convolution;
pub use convolution::{Convolution, Way};
pub mod chips;

/// How much of each kind of work something is. The kind's name is that of its coefficient.
pub type Work = Vec<(String, f64)>;

/// What was found out about a core.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// The core's name.
    pub core: String,
    /// The compiler of what was measured.
    pub compiler: String,
    /// Instructions that a unit of each kind of work takes.
    pub coefficients: BTreeMap<String, f64>,
    /// Instructions of a picture of each shipped model, first list of steps, counted by the emulator.
    pub measured: BTreeMap<String, u64>,
}

/// All cores, by the names that `cargo xtask firmware --target` has for them.
pub fn cores() -> &'static BTreeMap<String, Core> {
    static CORES: LazyLock<BTreeMap<String, Core>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("instructions.json")).expect("instructions.json is part of this crate")
    });
    &CORES
}

/// The work of one operation.
pub fn of_op(model: &Model<'_>, op: &Op) -> Work {
    let shape = |id: u16| model.tensor(id).map_or([0.0; 3], |t| [t.rows, t.columns, t.channels].map(f64::from));
    let len = |id: u16| shape(id).iter().product::<f64>();
    let element = |id: u16| model.tensor(id).map_or(String::new(), |t| format!("{:?}", t.element()).to_lowercase());
    let precision = format!("{:?}", model.precision()).to_lowercase();
    match op {
        Op::Conv2d(op) => {
            let computed = model.tensor(op.output).map(|output| op.computed(output));
            let sizes = |t: Tensor| [t.rows, t.columns, t.channels].map(usize::from);
            let inputs: f64 = op.sources.iter().map(|&source| shape(source)[2]).sum();
            let mut work = Convolution {
                element: model.tensor(op.scratch).map_or(Element::I8, |ring| ring.element()),
                layout: op.layout(),
                way: Way::of(op),
                output: computed.map_or([0; 3], sizes),
                inputs: inputs as usize,
                kernel: op.kernel.map(usize::from),
            }
            .work();
            let enlarged = f64::from(1 << (2 * op.doubling()));
            let [source_rows, source_columns, _] = shape(op.sources[0]);
            let gather = format!("conv2d {} {:?} gather", element(op.scratch), op.gather());
            work.push((gather, source_rows * source_columns * enlarged * inputs));
            work
        }
        Op::GroupNorm(op) => {
            let sources = op.sources.iter().filter(|&&source| len(source) > 0.0);
            let kind = |source: u16| format!("group_norm {} element", element(source));
            let mut work: Work = sources.map(|&source| (kind(source), len(source))).collect();
            work.push((format!("group_norm {precision} channel"), shape(op.output)[1]));
            work.push((format!("group_norm {precision} group"), op.groups.into()));
            work
        }
        Op::Attention(op) => {
            let [rows, columns, channels] = shape(op.query);
            let [key_rows, key_columns, _] = shape(op.key_value);
            let (queries, keys) = (rows * columns, f64::from(op.memory) + key_rows * key_columns);
            vec![
                (format!("attention {precision} multiply"), 2.0 * queries * keys * channels),
                (format!("attention {precision} score"), queries * keys * f64::from(op.heads)),
                (format!("attention {precision} output"), queries * channels),
            ]
        }
        Op::Embed(op) => vec![(format!("embed {precision} output"), len(op.output))],
        Op::Linear(op) => vec![
            (format!("linear {precision} multiply"), len(op.source) * len(op.output)),
            (format!("linear {precision} output"), len(op.output)),
        ],
        Op::Activate(op) => vec![(format!("activate {precision} {:?} element", op.film()), len(op.output))],
        Op::LinearAttention(op) => {
            let [rows, columns, channels] = shape(op.query);
            let (head, keys) = (channels / f64::from(op.heads), f64::from(op.memory) + rows * columns);
            vec![
                (format!("linear_attention {precision} context"), keys * channels * (head / 8.0).ceil()),
                (format!("linear_attention {precision} multiply"), (keys + rows * columns) * channels * head),
                (format!("linear_attention {precision} output"), rows * columns * channels),
            ]
        }
        Op::LayerNorm(op) => {
            let pixels = shape(op.output)[0] * shape(op.output)[1];
            vec![
                (format!("layer_norm {precision} element"), len(op.output)),
                (format!("layer_norm {precision} pixel"), pixels),
            ]
        }
        Op::Filter(op) => {
            vec![(format!("filter {precision} {:?} element", op.resampling()), len(op.output))]
        }
        Op::Classifier(op) => {
            vec![(format!("classifier {precision} {:?} element", op.pass()), len(op.output))]
        }
        Op::Observe(op) => vec![(format!("observe {precision} element"), len(op.output))],
    }
}

/// The work of drawing noise for one sample.
pub fn of_noise(model: &Model<'_>) -> Work {
    vec![(format!("sampler {:?} noise", model.precision()).to_lowercase(), elements(model))]
}

/// The work of moving the sample to the next step, without noise.
pub fn of_update(model: &Model<'_>) -> Work {
    vec![(format!("sampler {:?} update", model.precision()).to_lowercase(), elements(model))]
}

fn elements(model: &Model<'_>) -> f64 {
    model.image_shape().into_iter().product::<usize>() as f64
}

/// Instructions that work takes on a core; `None` if it is of a kind that was never measured there.
pub fn instructions(core: &Core, work: &Work) -> Option<f64> {
    work.iter()
        .filter(|(_, amount)| *amount > 0.0)
        .map(|(kind, amount)| Some(core.coefficients.get(kind)? * amount))
        .sum()
}

/// What a picture is made of, in instructions.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Each operation of the network, by index.
    pub ops: Vec<f64>,
    /// Drawing noise for one sample.
    pub noise: f64,
    /// Moving the sample to the next step.
    pub update: f64,
}

impl Parts {
    /// Instructions of a picture by a list of steps, of which some are guided, which is a second network call.
    pub fn picture(&self, model: &Model<'_>, list: &Schedule, guided_steps: u32) -> f64 {
        // What depends on the observation alone.
        let (once, call) = self.ops.split_at(self.ops.len().min(model.header().once.into()));
        let noisy = match model.precision() {
            Precision::I8 => model.fixed_steps(list).filter(Step::has_noise).count(),
            Precision::F16 | Precision::F32 => model.float_steps(list).filter(Step::has_noise).count(),
        };
        let steps = f64::from(list.steps);
        self.noise * (1 + noisy) as f64
            + once.iter().sum::<f64>()
            + call.iter().sum::<f64>() * (steps + f64::from(guided_steps))
            + self.update * steps
    }
}

/// Instructions of a picture by a list of steps, of which some are guided: an estimate. `None` if the core was never measured
/// with that kind of arithmetic.
pub fn of_picture(core: &Core, model: &Model<'_>, list: &Schedule, guided_steps: u32) -> Option<f64> {
    let ops = (0..model.ops()).filter_map(|index| model.op(index));
    let parts = Parts {
        ops: ops.map(|op| instructions(core, &of_op(model, &op))).collect::<Option<_>>()?,
        noise: instructions(core, &of_noise(model))?,
        update: instructions(core, &of_update(model))?,
    };
    Some(parts.picture(model, list, guided_steps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped;

    /// The estimate is within 10 % of what the emulator counted, for every shipped model on every core.
    #[test]
    fn estimates_are_near_what_was_counted() {
        assert!(!cores().is_empty(), "no core was measured; `cargo xtask cost` does");
        let files = shipped::files();
        assert!(files.len() >= 12, "{files:?}");
        for (name, core) in cores() {
            for path in &files {
                let file = path.file_stem().expect("a file").to_string_lossy();
                let counted = *core.measured.get(&*file).unwrap_or_else(|| {
                    panic!("{file} was not counted on {name}; `cargo xtask cost` does");
                });
                let bytes = shipped::read(path).expect("a shipped model");
                let model = Model::from_bytes(bytes.as_slice()).expect("a model");
                let list = model.schedule(0).expect("a list of steps");
                let estimate = of_picture(core, &model, &list, 0).expect("was measured");
                let error = estimate / counted as f64 - 1.0;
                assert!(
                    error.abs() <= 0.10,
                    "{file} on {name}: {:+.1} %; refit with `cargo xtask cost`",
                    100.0 * error
                );
            }
        }
    }
}
