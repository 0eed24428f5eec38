//! What happens around the network: noise, guidance, the step of the sampler, bytes. A thread one element.

use bytemuck::{Pod, Zeroable};
use waft::arithmetic::{
    FACTOR_BITS, Moments, PASSES, Sample, Search, Spread, Step, Terms, byte_fixed, byte_float, to_float,
};
use waft::format::{FixedStep, FloatStep, Precision, STEP_BYTES, Threshold, Variance};
use waft::noise::{gaussian, philox};
use waft::{Guidance, Model, Rescale};

use crate::memory::{Memory, Space};
use crate::warp::{LANES, Warp};
use crate::{Body, State, Strides, Threads, pictures_at, samples_at};

/// What the kernels know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Parameters {
    strides: Strides,
    /// Places in the arena: the sample, the model output, the unconditional one.
    sample_at: u32,
    prediction_at: u32,
    unconditional_at: u32,
    /// Places of the clean samples of the step before and of the one before that; `u32::MAX` if there are none.
    history_at: [u32; 2],
    /// Place of the learned variance, if there is one.
    variance_at: u32,
    /// Place of a classifier's gradient, and whether there is one.
    gradient_at: u32,
    has_gradient: u32,
    /// Elements of the sample.
    len: u32,
    /// Whether it is in the `i8` precision.
    integer: u32,
}

impl Parameters {
    /// Of a model; `None` if it is no sampler.
    pub fn new(model: &Model<'_>, strides: Strides) -> Option<Self> {
        let header = model.header();
        let sample = model.tensor(header.sample)?;
        Some(Self {
            strides,
            sample_at: sample.offset,
            prediction_at: model.tensor(header.prediction)?.offset,
            unconditional_at: model.tensor(header.unconditional).map_or(0, |tensor| tensor.offset),
            history_at: header.history.map(|id| model.tensor(id).map_or(u32::MAX, |tensor| tensor.offset)),
            variance_at: if header.variance == 0 { 0 } else { model.tensor(header.variance)?.offset },
            gradient_at: if header.gradient == 0 { 0 } else { model.tensor(header.gradient)?.offset },
            has_gradient: u32::from(header.gradient != 0),
            len: sample.len() as u32,
            integer: u32::from(model.precision() == Precision::I8),
        })
    }

    /// Element `element` of draw `draw` for a picture, see [`waft::noise`].
    #[inline(always)]
    fn noise(&self, state: &State, picture: u32, draw: u32, element: u32) -> i32 {
        let [low, high] = state.seed;
        let seed = (u64::from(high) << 32 | u64::from(low)).wrapping_add(picture.into());
        let words = philox([seed as u32, (seed >> 32) as u32], [element >> 2, draw, 0, 0]);
        gaussian(words[(element & 3) as usize])
    }
}

/// The initial sample.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct NoiseKernel(pub Parameters);

impl Threads for NoiseKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.len
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let p = &self.0;
        let state: State = memory.load(Space::State, 0);
        let at = p.strides.arena(picture) + (p.sample_at + 4 * element) as usize;
        let value = p.noise(&state, picture, 0, element);
        if p.integer != 0 {
            memory.store(Space::Arenas, at, value);
        } else {
            memory.store(Space::Arenas, at, to_float(value));
        }
    }
}

/// Keeps the unconditional output while the conditional one is computed, or makes that of it by adding a classifier's gradient.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct KeepKernel(pub Parameters);

impl Threads for KeepKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.len
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let p = &self.0;
        let arena = p.strides.arena(picture) + 4 * element as usize;
        let prediction_at = arena + p.prediction_at as usize;
        let word: u32 = memory.load(Space::Arenas, prediction_at);
        memory.store(Space::Arenas, arena + p.unconditional_at as usize, word);
        if p.has_gradient != 0 {
            let gradient: u32 = memory.load(Space::Arenas, arena + p.gradient_at as usize);
            let guided = if p.integer != 0 {
                (word as i32).plus(gradient as i32) as u32
            } else {
                f32::from_bits(word).plus(f32::from_bits(gradient)).to_bits()
            };
            memory.store(Space::Arenas, prediction_at, guided);
        }
    }
}

/// Measures how far a picture's guided output spreads, and leaves the factor that rescales it in the scratch: a warp one
/// picture. All sums are exact, so that their order does not matter.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct MeasureKernel(pub Parameters);

impl Body for MeasureKernel {
    fn warps(&self, batch: u32) -> u64 {
        batch.into()
    }

    #[inline(always)]
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
        let p = &self.0;
        if index >= batch {
            return;
        }
        let state: State = memory.load(Space::State, 0);
        let guidance = Guidance::from_bits(state.guidance);
        let arena = p.strides.arena(index);
        let parts = warp.each(|lane| {
            if p.integer != 0 {
                p.spread::<i32, M>(memory, arena, lane, guidance)
            } else {
                p.spread::<f32, M>(memory, arena, lane, guidance)
            }
        });
        let moments = |of: usize| {
            let sums = warp.sum(warp.map(parts, |part| part.moments[of].sum));
            let [low, high] =
                [0, 1].map(|word| warp.sum(warp.map(parts, |part| part.moments[of].squares[word] as i64)));
            let squares = warp.zip(low, high, |low, high| [low as u64, high as u64]);
            warp.zip(sums, squares, |sum, squares| Moments { sum, squares })
        };
        let spreads = warp
            .zip(moments(0), moments(1), |conditional, guided| Spread { count: p.len, moments: [conditional, guided] });
        warp.with(spreads, |lane, spread| {
            if lane == 0 {
                let factor = spread.factor(Rescale::from_bits(state.rescale));
                memory.store(Space::Scratch, p.strides.scratch(index), factor);
            }
        });
    }
}

/// Where [`SearchKernel`] leaves the two magnitudes in a picture's scratch, behind the factor of [`MeasureKernel`].
const FOUND_AT: usize = 8;

/// Finds the two magnitudes of a picture's clean sample between which its threshold lies, and leaves them in the scratch: a warp
/// one picture.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SearchKernel(pub Parameters);

impl Body for SearchKernel {
    fn warps(&self, batch: u32) -> u64 {
        batch.into()
    }

    #[inline(always)]
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, index: u32, batch: u32) {
        let p = &self.0;
        if index >= batch {
            return;
        }
        let state: State = memory.load(Space::State, 0);
        let threshold: Threshold = memory.load(Space::Constants, state.threshold as usize);
        let lanes = warp.each(|lane| lane);
        let mut search = warp.each(|_| Search::default());
        for _ in 0..PASSES {
            let parts = warp.zip(lanes, search, |lane, search| {
                if p.integer != 0 {
                    p.searched::<FixedStep, i32, M>(memory, &state, [index, lane], search)
                } else {
                    p.searched::<FloatStep, f32, M>(memory, &state, [index, lane], search)
                }
            });
            let below = warp.sum(warp.map(parts, |part| part.below.into()));
            let least = warp.largest(warp.map(parts, |part| part.least));
            let joined = warp.zip(below, least, |below, least| (below as u32, least));
            search =
                warp.zip(parts, joined, |part, (below, least)| part.joined(below, least).after_pass(threshold.rank));
        }
        warp.with(search, |lane, search| {
            if lane == 0 {
                memory.store(Space::Scratch, p.strides.scratch(index) + FOUND_AT, search.found());
            }
        });
    }
}

/// Moves the sample to the next step.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct UpdateKernel(pub Parameters);

impl Threads for UpdateKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.len
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, _batch: u32) {
        let p = &self.0;
        let state: State = memory.load(Space::State, 0);
        let noise = || p.noise(&state, picture, state.step + 1, element);
        if p.integer != 0 {
            let step: FixedStep = p.coefficients(memory, &state);
            let z = if Step::<i32>::has_noise(&step) { noise() } else { 0 };
            p.step(memory, &state, [picture, element], &step, z);
        } else {
            let step: FloatStep = p.coefficients(memory, &state);
            let z = if Step::<f32>::has_noise(&step) { to_float(noise()) } else { 0.0 };
            p.step(memory, &state, [picture, element], &step, z);
        }
    }
}

impl Parameters {
    /// The sums over the elements of a picture that fall to a lane.
    #[inline(always)]
    fn spread<S: Sample, M: Memory>(&self, memory: M, arena: usize, lane: u32, guidance: Guidance) -> Spread {
        let mut spread = Spread::default();
        let mut element = lane;
        while element < self.len {
            let load = |place: u32| memory.load::<S>(Space::Arenas, arena + place as usize + 4 * element as usize);
            let conditional = load(self.prediction_at);
            let guided = S::guide(load(self.unconditional_at), conditional, guidance);
            spread.add(conditional.to_fixed(), guided.to_fixed());
            element += LANES as u32;
        }
        spread
    }

    /// A search with the elements of a picture that fall to a lane.
    #[inline(always)]
    fn searched<T: Step<S> + Pod, S: Sample, M: Memory>(
        &self,
        memory: M,
        state: &State,
        [picture, lane]: [u32; 2],
        mut search: Search,
    ) -> Search {
        let step: T = self.coefficients(memory, state);
        let mut element = lane;
        while element < self.len {
            let x: S = self.load(memory, self.sample_at, [picture, element]);
            let m = self.output(memory, state, [picture, element]);
            search.add(step.clean(x, m).magnitude());
            element += LANES as u32;
        }
        search
    }

    /// The coefficients of the step.
    #[inline(always)]
    fn coefficients<T: Pod, M: Memory>(&self, memory: M, state: &State) -> T {
        memory.load(Space::Constants, state.rows as usize + state.step as usize * STEP_BYTES)
    }

    /// An element of a picture's tensor at a place of the arena.
    #[inline(always)]
    fn load<S: Sample, M: Memory>(&self, memory: M, place: u32, [picture, element]: [u32; 2]) -> S {
        memory.load(Space::Arenas, self.strides.arena(picture) + 4 * element as usize + place as usize)
    }

    /// The model output of an element, guided as the state says.
    #[inline(always)]
    fn output<S: Sample, M: Memory>(&self, memory: M, state: &State, at: [u32; 2]) -> S {
        let conditional = self.load(memory, self.prediction_at, at);
        let guidance = Guidance::from_bits(state.guidance);
        if guidance == Guidance::NONE {
            return conditional;
        }
        let guided = S::guide(self.load(memory, self.unconditional_at, at), conditional, guidance);
        if state.rescale == 0 {
            return guided;
        }
        let factor = memory.load(Space::Scratch, self.strides.scratch(at[0]));
        if factor == 1 << FACTOR_BITS { guided } else { guided.scaled(factor) }
    }

    /// Moves one element to the next step.
    #[inline(always)]
    fn step<S: Sample, M: Memory>(&self, memory: M, state: &State, at: [u32; 2], step: &impl Step<S>, z: S) {
        let arena = self.strides.arena(at[0]) + 4 * at[1] as usize;
        let load = |place: u32| self.load(memory, place, at);
        let store = |place: u32, value: S| memory.store(Space::Arenas, arena + place as usize, value);
        let (x, m): (S, S) = (load(self.sample_at), self.output(memory, state, at));
        let mut x0 = step.clean(x, m);
        if state.threshold != 0 {
            let threshold: Threshold = memory.load(Space::Constants, state.threshold as usize);
            let found: [u32; 2] = memory.load(Space::Scratch, self.strides.scratch(at[0]) + FOUND_AT);
            x0 = x0.bounded(S::bound(threshold, found));
        }
        let z = if state.variances == 0 {
            z
        } else {
            let place = state.variances as usize + state.step as usize * size_of::<Variance>();
            z.varied(load(self.variance_at), memory.load(Space::Constants, place))
        };
        let terms = Terms { x0, x, m, z };
        let [newer_at, older_at] = self.history_at;
        let kept = |place: u32| if place == u32::MAX { S::zeroed() } else { load(place) };
        let history = [kept(newer_at), kept(older_at)];
        store(self.sample_at, step.next(terms, history));
        if older_at != u32::MAX {
            store(older_at, history[0]);
        }
        if newer_at != u32::MAX {
            store(newer_at, terms.x0);
        }
    }
}

/// Writes the pictures' bytes and samples behind the state, where one copy brings them all.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ResultsKernel(pub Parameters);

impl Threads for ResultsKernel {
    #[inline(always)]
    fn items(&self) -> u32 {
        self.0.len
    }

    #[inline(always)]
    fn compute<M: Memory>(&self, memory: M, picture: u32, element: u32, batch: u32) {
        let p = &self.0;
        let at = p.strides.arena(picture) + (p.sample_at + 4 * element) as usize;
        let word: u32 = memory.load(Space::Arenas, at);
        let byte = if p.integer != 0 { byte_fixed(word as i32) } else { byte_float(f32::from_bits(word)) };
        let index = (picture * p.len + element) as usize;
        memory.store(Space::State, pictures_at(batch) + index, byte);
        memory.store(Space::State, samples_at(batch, p.len) + 4 * index, word);
    }
}

/// Counts the step that is complete.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AdvanceKernel {
    /// Added to the step's number.
    pub steps: u32,
}

impl Body for AdvanceKernel {
    fn warps(&self, _batch: u32) -> u64 {
        1
    }

    #[inline(always)]
    fn run<M: Memory, W: Warp>(&self, memory: M, warp: W, _index: u32, _batch: u32) {
        let lanes = warp.each(|lane| lane);
        warp.with(lanes, |_, lane| {
            if lane == 0 {
                let mut state: State = memory.load(Space::State, 0);
                state.step += self.steps;
                memory.store(Space::State, 0, state);
            }
        });
    }
}
