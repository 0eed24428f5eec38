//! The threads of a picture's operations, where there are fewer pictures than threads.

use std::sync::Arc;

use rayon::prelude::*;
use waft::{Accelerator, ThreadPool};

/// The threads of the rayon pool that the caller is in.
#[derive(Debug)]
struct Threads;

impl ThreadPool for Threads {
    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    fn run(&self, tasks: &mut [&mut (dyn FnMut() + Send)]) {
        tasks.par_iter_mut().for_each(|task| task());
    }
}

/// The same accelerator with all threads for each operation.
pub fn together(accelerator: Accelerator) -> Accelerator {
    accelerator.with_threads(Arc::new(Threads))
}
