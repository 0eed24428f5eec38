//! Any bytes as a model file, as they are and with mended checksums, then the whole run of what validates. What follows the model
//! in the input are its streamed weights.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use waft::Model;
use waft_fuzz::boundary;
use waft_fuzz::count::{Counts, Fate};
use waft_fuzz::run::Bench;

thread_local! {
    static STATE: RefCell<(Bench, Counts)> = RefCell::default();
}

// A quarter of the changes are bytes anywhere.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(4) {
        return fuzzer_mutate(data, size, max_size);
    }
    boundary::mutate(&mut data[..size], seed);
    size
});

fuzz_target!(|data: &[u8]| -> Corpus {
    // As they are: nearly always another checksum.
    if data.len() < 256 {
        let _ = Model::from_bytes(data);
    }
    let fate = STATE.with_borrow_mut(|(bench, counts)| {
        let fate = bench.execute(data);
        counts.add(fate);
        fate
    });
    // What changes of a refused model come to is refused as well, nearly always.
    match fate {
        Fate::Finished | Fate::Unfinished => Corpus::Keep,
        Fate::Unreadable | Fate::Refused(_) | Fate::Large => Corpus::Reject,
    }
});
