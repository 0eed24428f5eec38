//! The quantile of dynamic thresholding: two neighbouring magnitudes of a whole picture, found without sorting or storing any.
//!
//! Magnitudes are compared as integers: those of fixed point as they are, those of floats by their bits, whose order is the same.

/// Passes over all magnitudes that a [`Search`] takes.
pub const PASSES: u32 = 33;

/// A search for the magnitude of some rank, and for the next one. Each of 32 passes decides a bit, from the highest, by how many
/// magnitudes are below a candidate; the last finds the neighbour. Counts and minima may be taken in parts and joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Passes that are complete.
    pass: u32,
    /// The bits that are decided.
    value: u32,
    /// Magnitudes below the candidate.
    pub below: u32,
    /// The largest number less the smallest magnitude that is not below.
    pub least: u32,
}

impl Search {
    /// What magnitudes are compared with in this pass.
    #[inline(always)]
    fn candidate(&self) -> u32 {
        match 31u32.checked_sub(self.pass) {
            Some(bit) => self.value | 1 << bit,
            None => self.value.wrapping_add(1),
        }
    }

    /// Takes a magnitude into account, at most 2³¹.
    #[inline(always)]
    pub fn add(&mut self, magnitude: u32) {
        if magnitude < self.candidate() {
            self.below = self.below.wrapping_add(1);
        } else {
            self.least = self.least.max(!magnitude);
        }
    }

    /// Ends a pass over all magnitudes; those at `rank`, counted from 0 for the smallest, and at the rank after it are sought.
    #[inline(always)]
    #[must_use]
    pub fn after_pass(self, rank: u32) -> Self {
        let next = Self { pass: self.pass + 1, value: self.value, below: 0, least: 0 };
        if self.pass + 1 < PASSES {
            let value = if self.below <= rank { self.candidate() } else { self.value };
            return Self { value, ..next };
        }
        // As many as are not above the value itself.
        let least = if self.below > rank.saturating_add(1) { !self.value } else { self.least };
        Self { least, ..next }
    }

    /// With what all parts counted, and the largest of what they found.
    #[inline(always)]
    #[must_use]
    pub fn joined(self, below: u32, least: u32) -> Self {
        Self { below, least, ..self }
    }

    /// Whether all passes are complete.
    pub fn is_complete(&self) -> bool {
        self.pass >= PASSES
    }

    /// After the last pass: the magnitude at the rank, and the next one.
    #[inline(always)]
    pub fn found(&self) -> [u32; 2] {
        [self.value, !self.least]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::noise::philox;

    fn search(magnitudes: &[u32], rank: u32) -> [u32; 2] {
        let mut search = Search::default();
        while !search.is_complete() {
            magnitudes.iter().for_each(|&magnitude| search.add(magnitude));
            search = search.after_pass(rank);
        }
        search.found()
    }

    /// The same with magnitudes in two parts, as the threads of a GPU take them.
    fn search_in_parts(magnitudes: &[u32], rank: u32) -> [u32; 2] {
        let mut search = Search::default();
        while !search.is_complete() {
            let parts = [0, 1].map(|part| {
                let mut search = search;
                magnitudes.iter().skip(part).step_by(2).for_each(|&magnitude| search.add(magnitude));
                search
            });
            let [first, second] = parts;
            search = first.joined(first.below + second.below, first.least.max(second.least)).after_pass(rank);
        }
        search.found()
    }

    #[test]
    fn magnitudes_of_neighbouring_ranks_are_those_of_a_sorted_list() {
        for (seed, len) in (0..).zip([2usize, 3, 4, 17, 64]) {
            for right in [0, 7, 20, 29, 31] {
                let mut magnitudes: Vec<u32> =
                    (0..len as u32).map(|i| philox([seed, right], [i, 0, 0, 0])[0] >> right).collect();
                let found: Vec<_> = (0..len as u32 - 1).map(|rank| search(&magnitudes, rank)).collect();
                let in_parts: Vec<_> = (0..len as u32 - 1).map(|rank| search_in_parts(&magnitudes, rank)).collect();
                assert_eq!(in_parts, found);
                magnitudes.sort_unstable();
                for (rank, found) in found.into_iter().enumerate() {
                    assert_eq!(found, [magnitudes[rank], magnitudes[rank + 1]], "{seed} {right} {rank}");
                }
            }
        }
        assert_eq!(search(&[5, 7, 6], 2)[0], 7, "the largest has no neighbour");
        assert_eq!(search(&[1 << 31, 0, 1 << 31], 1), [1 << 31; 2], "the magnitude of i32::MIN");
        assert_eq!(search(&[0; 5], 3), [0; 2]);
    }
}
