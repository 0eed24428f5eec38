//! One operation on several threads: bands of rows, each computed by a task with memory of its own. What a task computes does not
//! depend on where bands end, so that results are the same for every number of threads.

use core::fmt::Debug;
use core::ops::Range;
use std::sync::Arc;
use std::vec::Vec;

use super::Scratch;

/// Threads that a host lends to operations.
pub trait ThreadPool: Debug + Send + Sync {
    /// How many tasks run at the same time.
    fn threads(&self) -> usize;

    /// From how many multiply-accumulates on a task is worth a thread.
    fn worth(&self) -> usize {
        1 << 20
    }

    /// Runs each task once, in any order, and returns when all have ended.
    fn run(&self, tasks: &mut [&mut (dyn FnMut() + Send)]);
}

/// Threads, and the memory of each.
pub(super) struct Team<'s> {
    pool: Option<&'s dyn ThreadPool>,
    scratch: &'s mut [Scratch],
}

impl<'s> Team<'s> {
    pub(super) fn new(pool: Option<&'s Arc<dyn ThreadPool>>, scratch: &'s mut [Scratch]) -> Self {
        Self { pool: pool.map(|pool| &**pool), scratch }
    }

    /// The memory of what runs on one thread.
    pub(super) fn alone(&mut self) -> Option<&mut Scratch> {
        self.scratch.first_mut()
    }

    /// `rows` cut into bands of whole `units`, as many as are worth it for `work` multiply-accumulates.
    pub(super) fn bands(&self, rows: usize, unit: usize, work: usize) -> Vec<Range<usize>> {
        let units = rows.div_ceil(unit);
        let most = self.pool.map_or(1, |pool| self.scratch.len().min(work / pool.worth().max(1)));
        let count = most.min(units).max(1);
        (0..count).map(|band| units * band / count * unit..(units * (band + 1) / count * unit).min(rows)).collect()
    }

    /// Executes `task` with each item, at most as many as there are threads; `None` if one of them is.
    pub(super) fn each<T: Send>(
        &mut self,
        items: Vec<T>,
        task: impl Fn(T, &mut Scratch) -> Option<()> + Sync,
    ) -> Option<()> {
        let Some(pool) = self.pool.filter(|_| items.len() > 1) else {
            let scratch = self.alone()?;
            return items.into_iter().try_for_each(|item| task(item, scratch));
        };
        let task = &task;
        let mut outcomes: Vec<Option<()>> = items.iter().map(|_| None).collect();
        let mut tasks: Vec<_> = items
            .into_iter()
            .zip(self.scratch.iter_mut())
            .zip(&mut outcomes)
            .map(|((item, scratch), outcome)| {
                let mut item = Some(item);
                move || *outcome = item.take().and_then(|item| task(item, scratch))
            })
            .collect();
        let mut calls: Vec<&mut (dyn FnMut() + Send)> = Vec::with_capacity(tasks.len());
        for task in &mut tasks {
            calls.push(task);
        }
        pool.run(&mut calls);
        drop(tasks);
        outcomes.into_iter().collect()
    }
}
