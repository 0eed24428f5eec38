//! Any bytes as a model file, with and without a mended checksum, then a bounded run of what validates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft::format::checksum;
use waft::{Model, Request, Session};

/// Models that need more are valid but too slow to fuzz.
const ARENA: usize = 1 << 16;

#[repr(align(16))]
struct Aligned([u8; ARENA]);

fuzz_target!(|data: &[u8]| {
    let _ = Model::from_bytes(data);
    // Copied to an aligned place, as a session wants it, and sealed, or nearly nothing would get past the checksum.
    let mut words = vec![0u128; data.len().div_ceil(16)];
    // SAFETY: the words are initialized and any bytes are valid words.
    let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), data.len()) };
    bytes.copy_from_slice(data);
    if bytes.len() >= 16 {
        let len = (bytes.len() as u32).to_le_bytes();
        bytes[8..12].copy_from_slice(&len);
        let sum = checksum(bytes).to_le_bytes();
        bytes[12..16].copy_from_slice(&sum);
    }
    let Ok(model) = Model::from_bytes(bytes) else { return };
    let mut memory = Box::new(Aligned([0; ARENA]));
    let Ok(mut session) = Session::new(&model, &mut memory.0) else { return };
    for request in [Request::new(), Request::new().class(0)] {
        if let Ok(mut run) = session.sample(request) {
            for _ in 0..400 {
                if !matches!(run.step(), Ok(Some(_))) {
                    break;
                }
            }
            let _ = run.image();
        }
    }
});
