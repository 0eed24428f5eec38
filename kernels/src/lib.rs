//! The GPU's side of waft: kernel bodies as plain functions of a thread's index.
//!
//! A kernel body calls the runtime's own arithmetic, so that what a GPU computes is what a device computes, bit for
//! bit, by construction; and because it is a plain function, a host without a GPU can run it over its whole grid and
//! hold it against the runtime. So far there is one, the initial noise of a batch of pictures; the operators' kernels
//! and their PTX are not written yet.
#![no_std]
#![deny(missing_docs)]

use waft::Noise;
use waft::noise::Seed;

/// Elements that one thread of [`noise`] draws: a block of the generator.
pub const NOISE_ELEMENTS: usize = 4;

/// Threads of [`noise`] for one picture of `len` elements.
pub const fn noise_threads(len: usize) -> usize {
    len.div_ceil(NOISE_ELEMENTS)
}

/// Body of the noise kernel: thread `thread` of picture `picture` writes its elements of draw `draw` of the seed
/// `first_seed + picture` to `samples`, (picture, element) order, `len` elements a picture, 20 fractional bits.
///
/// Threads write disjoint elements, so they may run in any order or at once.
pub fn noise(thread: usize, picture: usize, first_seed: u64, draw: u32, len: usize, samples: &mut [i32]) {
    let mut seed = Seed::new(first_seed.wrapping_add(picture as u64));
    let first = thread * NOISE_ELEMENTS;
    for element in first..(first + NOISE_ELEMENTS).min(len) {
        if let (Some(sample), Some(value)) =
            (samples.get_mut(picture * len + element), seed.sample(draw, element as u32))
        {
            *sample = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_in_any_order_draw_what_a_session_draws() {
        use waft::{Request, Samples, Session};
        static ARENA: waft::Arena<{ waft_models::digits::I8.arena_bytes() }> = waft::Arena::new();
        let mut session = Session::new(&waft_models::digits::I8, ARENA.take().expect("first use")).expect("fits");
        const LEN: usize = 64;
        let mut samples = [0; 3 * LEN];
        for picture in (0..3).rev() {
            for thread in (0..noise_threads(LEN)).rev() {
                noise(thread, picture, 41, 0, LEN, &mut samples);
            }
        }
        for (picture, drawn) in samples.chunks_exact(LEN).enumerate() {
            let mut run = session.sample(Request::new().seed(41 + picture as u64)).expect("valid");
            while run.starts().is_none() {
                run.step().expect("seeds do not run out");
            }
            assert_eq!(run.sample(), Some(Samples::Fixed(drawn)));
        }
    }
}
