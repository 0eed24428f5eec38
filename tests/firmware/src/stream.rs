//! Streamed weights: a source that behaves like a slow memory. It hands out at most 100 bytes at a time, and nothing every
//! third time.

use waft::{Model, Session, SessionError, WeightSource};

/// Bytes that arrive at once.
const BURST: usize = 100;

/// The weights' own file, and how often it was asked.
pub struct Slow {
    weights: &'static [u8],
    asked: u32,
}

impl WeightSource for Slow {
    type Error = ();

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, ()> {
        self.asked = self.asked.wrapping_add(1);
        if self.asked.is_multiple_of(3) {
            return Ok(0);
        }
        let from = self.weights.get(offset as usize..).ok_or(())?;
        let mut read = 0;
        for (to, &from) in into.iter_mut().zip(from).take(BURST) {
            *to = from;
            read += 1;
        }
        Ok(read)
    }
}

/// A session over the model and the slow source.
pub fn session(
    model: &'static Model<'static>,
    memory: &'static mut [u8],
) -> Result<Session<'static, Slow>, SessionError> {
    let weights = include_bytes!(env!("WAFT_WEIGHTS_FILE"));
    Session::with_weights(model, memory, Slow { weights, asked: 0 })
}
