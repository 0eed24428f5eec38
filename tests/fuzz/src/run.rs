//! What is done with an input: the whole run of what validates, every step, in memory that held zeros and in memory that held
//! something else, which must not show.

use std::cell::Cell;

use waft::format::{Gather, Op, Precision};
use waft::{
    Accelerator, Guidance, Model, ModelError, Original, Request, Rescale, RunError, Samples, SamplesMut, Session,
    WeightSource,
};

use crate::count::Fate;
use crate::file::File;

/// Models that need more are valid but too slow to fuzz: several times the seeds' memory, and slices of a run.
const ARENA: usize = 1 << 14;
const SLICES: u32 = 2000;
/// What lies behind the arena, and must stay.
const CANARY: [u8; 64] = [0xC5; 64];
/// Bytes of pictures to start from, and of masks.
const ORIGINAL: [u8; 1 << 12] = [200; 1 << 12];

/// Memory for inputs, kept from one to the next.
pub struct Bench {
    memory: Vec<u128>,
    file: File,
}

impl Default for Bench {
    fn default() -> Self {
        Self { memory: vec![0; (ARENA + CANARY.len()) / 16], file: File::default() }
    }
}

impl Bench {
    /// Validates an input with mended checksums, and runs what is valid to its end, twice.
    ///
    /// # Panics
    /// If something is wrong: a finding.
    pub fn execute(&mut self, data: &[u8]) -> Fate {
        execute(&mut self.memory, &mut self.file, data)
    }
}

fn execute(memory: &mut [u128], file: &mut File, data: &[u8]) -> Fate {
    // The bytes of the checksum's field choose: it is overwritten in the file.
    let [choice, way] = [12, 13].map(|at| data.get(at).copied().unwrap_or(0));
    let (model, weights) = match file.read(data) {
        Ok(read) => read,
        Err(error) => return refusal(error),
    };
    if model.arena_bytes() > ARENA {
        return Fate::Large;
    }
    check_domains(&model);
    // Only a model that knows "no class" draws without one.
    let without = model.unconditional_class().is_some() && choice % 4 == 3;
    let class = (model.classes() > 0 && !without).then_some(0);
    let mut request = Request::new();
    if let Some(class) = class {
        request = request.class(class);
    }
    if model.has_guidance() && choice % 2 == 0 {
        request =
            request.guidance(Guidance::from_ratio(3, 1)).guidance_rescale(Rescale::from_ratio(choice.into(), 255));
    }
    let original = original(&model, way);
    if original.is_some() && way % 4 == 3 {
        request = request.start(1);
    }
    let run = |memory: &mut [u128], fill, accelerated| {
        Run { model: &model, weights, request, original, fill, accelerated }.finish(memory)
    };
    // A processor's own kernels compute the same bits.
    let accelerated = choice % 8 >= 6;
    let [first, second] =
        [(0x00, false), (0xA5, accelerated)].map(|(fill, accelerated)| run(memory, fill, accelerated));
    assert_eq!(first, second, "the run depends on what the memory held, or on the kernels");
    first.map_or(Fate::Unfinished, |_| Fate::Finished)
}

/// The integer arithmetic masks shifts, so that none can do harm: what its functions are defined for is looked at here.
fn check_domains(model: &Model<'_>) {
    if model.precision() != Precision::I8 {
        return;
    }
    for op in (0..model.ops()).filter_map(|index| model.op(index)) {
        let shift = match op {
            Op::Conv2d(op) if op.gather() != Gather::Raw => op.affine_shift,
            Op::GroupNorm(op) => op.affine_shift,
            Op::Activate(op) => op.affine_shift,
            _ => continue,
        };
        assert!((4..=30).contains(&shift), "an affine map is shifted by {shift}: {op:?}");
    }
}

/// Why a file was refused.
fn refusal(error: ModelError) -> Fate {
    match error {
        ModelError::Malformed { field, .. } => Fate::Refused(field as usize),
        _ => Fate::Unreadable,
    }
}

/// A picture to start from, where the model can, sometimes with a mask and resampling.
fn original(model: &Model<'_>, way: u8) -> Option<Original<'static>> {
    let [rows, columns, channels] = model.image_shape();
    let has_levels = model.schedule(0).is_some_and(|schedule| schedule.levels != 0);
    let image = ORIGINAL.get(..rows * columns * channels).filter(|_| has_levels && way % 2 == 1)?;
    let original = Original::new(image);
    Some(match way / 4 % 4 {
        0 => original,
        1 => original.mask(&ORIGINAL[..rows * columns]),
        2 => original.mask(&[0; ORIGINAL.len()][..rows * columns]),
        _ => original.mask(&ORIGINAL[..rows * columns]).resample(1, 2),
    })
}

/// Weights that are there, and how often they were asked for.
struct Source<'a> {
    weights: &'a [u8],
    reads: &'a Cell<u32>,
}

impl WeightSource for Source<'_> {
    type Error = ();

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, ()> {
        self.reads.set(self.reads.get() + 1);
        self.weights.read(offset, into)
    }
}

/// A run of a model.
struct Run<'a> {
    model: &'a Model<'a>,
    weights: &'a [u8],
    request: Request,
    original: Option<Original<'a>>,
    fill: u8,
    accelerated: bool,
}

impl Run<'_> {
    /// What it draws or does, if it comes to an end.
    fn finish(self, memory: &mut [u128]) -> Option<Vec<u8>> {
        let (arena, canary) = bytemuck::cast_slice_mut(memory).split_at_mut(self.model.arena_bytes());
        let canary = &mut canary[..CANARY.len()];
        arena.fill(self.fill);
        canary.copy_from_slice(&CANARY);
        let finished = self.steps(arena);
        assert_eq!(canary, CANARY, "written beyond the arena");
        finished
    }

    fn steps(self, arena: &mut [u8]) -> Option<Vec<u8>> {
        let mut accelerator = self.accelerated.then(|| Accelerator::new(self.model));
        let reads = Cell::new(0);
        let mut session =
            Session::with_weights(self.model, arena, Source { weights: self.weights, reads: &reads }).ok()?;
        session.condition().into_iter().for_each(fill);
        session.observation().into_iter().for_each(fill);
        if let Some(accelerator) = &mut accelerator {
            session = session.accelerated(accelerator);
        }
        let mut run = match self.original {
            Some(original) => session.sample_from(self.request, original),
            None => session.sample(self.request),
        }
        .ok()?;
        let mut before = run.progress();
        while before.slice < SLICES {
            let asked = reads.get();
            match run.step() {
                Ok(Some(progress)) => {
                    assert!(progress.slice > before.slice || reads.get() > asked, "a step did nothing");
                    before = progress;
                }
                Ok(None) => break,
                Err(error) => {
                    let corrupt = matches!(error, RunError::Corrupt { .. });
                    assert!(!corrupt, "a validated model whose bytes did not change: {error:?}");
                    return None;
                }
            }
        }
        if self.model.has_actions() {
            return run.actions().map(|actions| match actions {
                Samples::Fixed(actions) => bytemuck::cast_slice(actions).to_vec(),
                // Which bits stand for "not a number" differs between kernels.
                Samples::Float(actions) => {
                    actions.iter().flat_map(|a| if a.is_nan() { [0xFF; 4] } else { a.to_le_bytes() }).collect()
                }
            });
        }
        run.image().map(|image| image.data().to_vec())
    }
}

/// Writes a condition or an observation.
fn fill(samples: SamplesMut<'_>) {
    match samples {
        SamplesMut::Fixed(values) => values.iter_mut().zip(0..).for_each(|(value, index)| *value = index << 18),
        SamplesMut::Float(values) => {
            values.iter_mut().zip(0u8..).for_each(|(value, index)| *value = f32::from(index) / 4.0)
        }
    }
}
