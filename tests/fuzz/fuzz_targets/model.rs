//! Any bytes as a model file, as they are and with mended checksums, then the whole run of what validates: every step, in
//! memory that held zeros and in memory that held something else, which must not show. What follows the model in the input are
//! its streamed weights.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use waft::{Guidance, Model, Request, RunError, Session};
use waft_fuzz::boundary;
use waft_fuzz::file::File;

/// Models that need more are valid but too slow to fuzz.
const ARENA: usize = 1 << 16;
/// Slices after which a run is abandoned: several times those of the seeds.
const SLICES: usize = 4000;
/// What lies behind the arena, and must stay.
const CANARY: [u8; 64] = [0xC5; 64];

thread_local! {
    static MEMORY: RefCell<Vec<u128>> = RefCell::new(vec![0; (ARENA + CANARY.len()) / 16]);
}

// Half of the changes are bytes anywhere.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(2) {
        return fuzzer_mutate(data, size, max_size);
    }
    boundary::mutate(&mut data[..size], seed / 2);
    size
});

fuzz_target!(|data: &[u8]| {
    // The bytes of the checksum's field choose: it is overwritten in the file. Most inputs have another checksum, which takes
    // as long to find out as the rest of validation.
    let choice = data.get(12).copied().unwrap_or(0);
    let (is_guided, is_raw) = (choice % 2 == 1, choice < 16);
    if is_raw || data.len() < 32 {
        let _ = Model::from_bytes(data);
    }
    let (file, weights) = File::split(data);
    let Ok(model) = Model::from_bytes(file.bytes()) else { return };
    if model.arena_bytes() > ARENA {
        return;
    }
    let request = if is_guided { Request::new().class(0).guidance(Guidance::from_ratio(3, 1)) } else { Request::new() };
    let runs = [0x00, 0xA5].map(|fill| run(&model, weights, request, fill));
    assert_eq!(runs[0], runs[1], "the run depends on what the memory held");
});

/// The picture, if the run is completed, and the slices that it took.
fn run(model: &Model<'_>, weights: &[u8], request: Request, fill: u8) -> (usize, Option<Vec<u8>>) {
    MEMORY.with_borrow_mut(|memory| {
        let (arena, canary) = bytemuck::cast_slice_mut(memory).split_at_mut(model.arena_bytes());
        let canary = &mut canary[..CANARY.len()];
        arena.fill(fill);
        canary.copy_from_slice(&CANARY);
        let mut slices = 0;
        let mut picture = None;
        if let Ok(mut session) = Session::with_weights(model, arena, weights)
            && let Ok(mut run) = session.sample(request)
        {
            while slices < SLICES {
                match run.step() {
                    Ok(Some(_)) => slices += 1,
                    Ok(None) => break,
                    Err(error) => {
                        let corrupt = matches!(error, RunError::Corrupt { .. });
                        assert!(!corrupt, "a validated model whose bytes did not change: {error:?}");
                        break;
                    }
                }
            }
            picture = run.image().map(|image| image.data().to_vec());
        }
        assert_eq!(canary, CANARY, "written beyond the arena");
        (slices, picture)
    })
}
