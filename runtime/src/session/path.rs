//! In which order the steps of a list are taken: one after the other, or with ways back (RePaint).

use super::Request;
use crate::fixed::{isqrt, saturate_i32};
use crate::format::{LEVEL_BITS, Level};

/// The way through a list of steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// First step that is taken.
    first: u32,
    /// Steps of the list.
    steps: u32,
    /// How many steps a way back undoes, 0 if there are none, and how often each part of the list is taken.
    jump: u32,
    times: u32,
}

/// A place on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Number of the step in the list.
    pub(super) step: u32,
    /// How often the part behind was taken again.
    again: u32,
    /// Ways back so far.
    pub(super) jumps: u32,
}

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next step of the list.
    Step(Position),
    /// The way back to the sample before a step.
    Back(Position),
    /// Nothing.
    End,
}

impl Path {
    /// Of a request for a list of so many steps.
    pub(super) fn new(request: &Request, steps: u32, resampling: Option<[u32; 2]>) -> Self {
        let [jump, times] = match resampling {
            Some(resampling) if cfg!(feature = "original") => resampling,
            _ => [0; 2],
        };
        Self { first: request.first_step(), steps, jump, times }
    }

    /// Its beginning.
    pub(super) fn start(&self) -> Position {
        Position { step: self.first, again: 0, jumps: 0 }
    }

    /// What follows the step at a position. Ways back start where the number of steps that are left is a multiple of their
    /// length, as in diffusers' `RePaintScheduler`.
    pub(super) fn next(&self, at: Position) -> Next {
        let step = at.step.saturating_add(1);
        let left = self.steps.saturating_sub(step);
        if cfg!(feature = "original")
            && self.jump > 0
            && left.is_multiple_of(self.jump.max(1))
            && step > self.first.saturating_add(self.jump)
        {
            let again = at.again.saturating_add(1);
            if again < self.times {
                return Next::Back(Position { step: step - self.jump, again, jumps: at.jumps.saturating_add(1) });
            }
            return if left == 0 { Next::End } else { Next::Step(Position { step, again: 0, ..at }) };
        }
        if left == 0 { Next::End } else { Next::Step(Position { step, ..at }) }
    }
}

/// Whether ways back of so many steps, each part taken so often, are none too long.
pub(super) fn is_valid([jump, times]: [u32; 2]) -> bool {
    (1..=10_000).contains(&jump) && (1..=1_000).contains(&times)
}

/// What the noise of a level does to a sample that already has that of a cleaner one: factors of the sample and of new noise.
/// For Gaussian noise it is the product of the forward process' single steps (Lugmayr et al., 2022, arXiv:2201.09865, equation
/// 1). Rounded down.
pub(super) fn back(from: Level, to: Level) -> Level {
    let one = 1i64 << LEVEL_BITS;
    let signal = saturate_i32((i64::from(to.signal) * one).checked_div(from.signal.into()).unwrap_or(0));
    let kept = (i64::from(signal) * i64::from(from.noise)) >> LEVEL_BITS;
    let variance = (i64::from(to.noise) * i64::from(to.noise)).saturating_sub(kept.saturating_mul(kept));
    Level { signal, noise: saturate_i32(isqrt(variance.max(0) as u64).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_that_of_the_forward_process() {
        let fixed = |value: f64| (value * f64::from(1 << LEVEL_BITS)).round() as i32;
        let level = |alpha: f64| Level { signal: fixed(alpha.sqrt()), noise: fixed((1.0 - alpha).sqrt()) };
        for (from, to) in [(1.0, 0.9), (0.9, 0.2), (0.2, 1e-4), (0.5, 0.5), (1.0, 0.0), (0.3, 0.0)] {
            let found = back(level(from), level(to));
            // x_t given x_s is √(ᾱ_t/ᾱ_s)·x_s with the variance 1 − ᾱ_t/ᾱ_s.
            let ratio: f64 = to / from;
            for (found, expected) in [(found.signal, ratio.sqrt()), (found.noise, (1.0 - ratio).sqrt())] {
                let found = f64::from(found) / f64::from(1 << LEVEL_BITS);
                assert!((found - expected).abs() < 2e-4, "{from} to {to}: {found}, not {expected}");
                assert!(from == to || (found - expected).abs() < 1e-7, "{from} to {to}: {found}, not {expected}");
            }
        }
        let extremes = [i32::MIN, -1, 0, 1, i32::MAX];
        for signal in extremes {
            for noise in extremes {
                back(Level { signal, noise }, Level { signal: noise, noise: signal });
            }
        }
    }

    #[test]
    fn without_ways_back_the_steps_follow_one_another() {
        let path = Path::new(&Request::new().start(2), 5, None);
        let mut at = path.start();
        for expected in 3..5 {
            assert_eq!(at.step + 1, expected);
            at = match path.next(at) {
                Next::Step(next) => next,
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(path.next(at), Next::End);
    }
}
