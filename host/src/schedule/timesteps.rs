//! Which training timesteps a list visits, as numpy computes them.

use super::{ScheduleError, SchedulerConfig, TimestepSpacing};

impl SchedulerConfig {
    /// The timesteps of a list of `n` in DDIM and DDPM, first to last.
    ///
    /// # Errors
    /// If there is no such list.
    pub fn timesteps(&self, n: usize) -> Result<Vec<i64>, ScheduleError> {
        let train = self.num_train_timesteps;
        let spacing = self.timestep_spacing.unwrap_or(TimestepSpacing::Leading);
        self.checked_timesteps(spacing, n, |n| match spacing {
            TimestepSpacing::Leading => leading(n, train / n, self.steps_offset),
            TimestepSpacing::Linspace => linspace(n, train - 1),
            TimestepSpacing::Trailing => trailing(n, train, train),
        })
    }

    /// The timesteps of a list of `n` in DPM-Solver++ and UniPC, of the first `last` timesteps of training: linspace and
    /// leading leave out the last of `n` + 1.
    pub(super) fn truncated_timesteps(&self, n: usize, last: usize) -> Result<Vec<i64>, ScheduleError> {
        let train = self.num_train_timesteps;
        let spacing = self.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        let truncated = |mut list: Vec<i64>| {
            list.pop();
            list
        };
        self.checked_timesteps(spacing, n, |n| match spacing {
            TimestepSpacing::Leading => truncated(leading(n + 1, last / (n + 1), self.steps_offset)),
            TimestepSpacing::Linspace => truncated(linspace(n + 1, last - 1)),
            TimestepSpacing::Trailing => trailing(n, last, train),
        })
    }

    /// The list that `list` makes of `n`, if it has `n` entries that fall and exist.
    pub(super) fn checked_timesteps(
        &self,
        spacing: TimestepSpacing,
        n: usize,
        list: impl Fn(usize) -> Vec<i64>,
    ) -> Result<Vec<i64>, ScheduleError> {
        let train = self.num_train_timesteps;
        let refuse = |what: String| ScheduleError::Steps { steps: n, spacing, train, what };
        if n == 0 || n > train {
            return Err(refuse(format!("ask for 1 to {train}")));
        }
        let found = list(n);
        if let Some(t) = found.iter().find(|&&t| t >= train as i64) {
            return Err(refuse(format!("timestep {t} does not exist; lower steps_offset")));
        }
        let is_good = |list: &[i64], n| list.len() == n && list.iter().all(|&t| t >= 0) && falls(list);
        if is_good(&found, n) {
            return Ok(found);
        }
        let near = (1..64).flat_map(|d| [n.saturating_sub(d), n + d]).filter(|m| (1..=train).contains(m));
        let advice = near.into_iter().find(|&m| is_good(&list(m), m));
        let advice = advice.map_or("ask for another number".into(), |m| format!("take {m} steps"));
        let fault = match found.last() {
            Some(-1) => "ends at timestep −1",
            _ if !falls(&found) => "visits a timestep twice",
            _ => "is not as long",
        };
        Err(refuse(format!("diffusers makes a list of {} that {fault}; {advice}", found.len())))
    }

    /// Checks a list of timesteps that somebody wrote.
    pub(super) fn check_timesteps(&self, timesteps: &[i64]) -> Result<(), ScheduleError> {
        let train = self.num_train_timesteps;
        let refuse = |what: String| Err(ScheduleError::Timesteps { what });
        if timesteps.is_empty() {
            return refuse("the list is empty; name at least one".into());
        }
        if let Some(t) = timesteps.iter().find(|&&t| t < 0 || t >= train as i64) {
            return refuse(format!("{t} does not exist; name 0 to {}", train - 1));
        }
        match timesteps.windows(2).find(|pair| pair[1] >= pair[0]) {
            Some(pair) => refuse(format!("{} follows {}; the list must fall", pair[1], pair[0])),
            None => Ok(()),
        }
    }
}

fn falls(list: &[i64]) -> bool {
    list.windows(2).all(|pair| pair[1] < pair[0])
}

/// Multiples of `stride`, from the `n`th downwards to 0, plus `offset`.
pub(super) fn leading(n: usize, stride: usize, offset: usize) -> Vec<i64> {
    (0..n).rev().map(|i| (i * stride + offset) as i64).collect()
}

/// `numpy.linspace(0, last, n)` rounded, downwards: multiples of the step. The last, which numpy sets, is rounded to itself.
pub(super) fn linspace(n: usize, last: usize) -> Vec<i64> {
    let step = last as f64 / (n.max(2) - 1) as f64;
    (0..n).rev().map(|i| (i as f64 * step).round_ties_even() as i64).collect()
}

/// `numpy.arange(first, 0, −train/n)` rounded, less 1. Its length is the rounded-up quotient, whatever rounding makes of
/// it, and its entries are multiples of the difference of its first two, which is not quite the step.
pub(super) fn trailing(n: usize, first: usize, train: usize) -> Vec<i64> {
    let (first, step) = (first as f64, -(train as f64 / n as f64));
    let len = ((0.0 - first) / step).ceil() as usize;
    let difference = (first + step) - first;
    (0..len).map(|i| (first + i as f64 * difference).round_ties_even() as i64 - 1).collect()
}

/// Each timestep with the next of its list, −1 after the last.
pub(super) fn pairs(timesteps: &[i64]) -> impl Iterator<Item = (i64, i64)> {
    timesteps.iter().copied().zip(timesteps.iter().copied().skip(1).chain([-1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a list of four, where five would be a good one.
    fn refusal(four: &[i64]) -> String {
        let config = SchedulerConfig::from_json("{}").expect("a configuration");
        let list = |n| match n {
            4 => four.to_vec(),
            5 => vec![9, 7, 5, 3, 1],
            _ => vec![],
        };
        config.checked_timesteps(TimestepSpacing::Linspace, 4, list).expect_err("refused").to_string()
    }

    #[test]
    fn faults_of_lists_are_named_and_the_next_good_count_too() {
        for (four, expected) in [
            (&[9, 5, 1, -1][..], "a list of 4 that ends at timestep −1"),
            (&[9, 5, 5, 1], "a list of 4 that visits a timestep twice"),
            (&[9, 5, 1], "a list of 3 that is not as long"),
            (&[9, 7, 5, 3, 1], "a list of 5 that is not as long"),
        ] {
            let refusal = refusal(four);
            assert!(refusal.contains(expected) && refusal.contains("take 5 steps"), "{refusal}");
        }
    }
}
