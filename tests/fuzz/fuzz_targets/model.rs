//! Any bytes as a model file, as they are and with mended checksums, then a run of what validates, from its beginning to
//! its end where that is not too far. What follows the model in the input are its streamed weights.
#![no_main]

use std::cell::RefCell;
use std::mem::offset_of;

use libfuzzer_sys::fuzz_target;
use waft::format::{Header, Op, chunk_checksum};
use waft::{Guidance, Model, Request, Session, WeightSource};

/// Models that need more are valid but too slow to fuzz.
const ARENA: usize = 1 << 16;
/// Slices after which a run is abandoned: several steps of the seeds, which are small.
const SLICES: usize = 1500;

thread_local! {
    static MEMORY: RefCell<Vec<u128>> = RefCell::new(vec![0; 2 * ARENA / 16]);
}

fuzz_target!(|data: &[u8]| {
    let _ = Model::from_bytes(data);
    // Copied to an aligned place, as a session wants it, and sealed, or nearly nothing would get past the checksum.
    let header = Header::read(data, 0);
    let named = header.file_bytes as usize;
    let inside = (size_of::<Header>()..=data.len()).contains(&named);
    let (model, weights) = data.split_at(if inside { named } else { data.len() });
    let mut words = vec![0u128; model.len().div_ceil(16)];
    // SAFETY: the words are initialized and any bytes are valid words.
    let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), model.len()) };
    bytes.copy_from_slice(model);
    seal(bytes);
    if !weights.is_empty() {
        mend_chunks(bytes, weights);
    }
    let Ok(model) = Model::from_bytes(bytes) else { return };
    MEMORY.with_borrow_mut(|memory| {
        // SAFETY: as above.
        let memory = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), 2 * ARENA) };
        let (arena, canary) = memory.split_at_mut(model.arena_bytes().min(ARENA));
        canary[..64].fill(0xC5);
        let Ok(mut session) = Session::with_weights(&model, arena, weights) else { return };
        let guided = Request::new().class(0).guidance(Guidance::from_ratio(3, 1));
        // The checksum was overwritten, so the input's chooses.
        run(&mut session, if header.checksum.is_multiple_of(2) { Request::new() } else { guided });
        assert!(canary[..64].iter().all(|&byte| byte == 0xC5), "written beyond the arena");
    });
});

fn run<W: WeightSource>(session: &mut Session<'_, W>, request: Request) {
    let Ok(mut run) = session.sample(request) else { return };
    for _ in 0..SLICES {
        if !matches!(run.step(), Ok(Some(_))) {
            break;
        }
    }
    let _ = run.image();
}

/// Writes the length and the checksum of a file.
fn seal(bytes: &mut [u8]) {
    let len = (bytes.len() as u32).to_le_bytes();
    if let Some(field) = bytes.get_mut(offset_of!(Header, file_bytes)..).and_then(|tail| tail.first_chunk_mut()) {
        *field = len;
    }
    waft::format::seal(bytes);
}

/// Writes the checksums of the chunks of streamed weights, where the file is valid otherwise.
fn mend_chunks(bytes: &mut [u8], weights: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes) else { return };
    let mut mended = vec![];
    for op in (0..model.ops()).filter_map(|index| model.op(index)) {
        let Op::Conv2d(op) = op else { continue };
        let channels = |id| model.tensor(id).map_or(1, |tensor| u64::from(tensor.channels));
        let Some(chunks) = op.chunks(channels(op.output), channels(op.scratch)) else { continue };
        for chunk in 0..chunks.count.min(64) {
            let size = if chunk + 1 == chunks.count { chunks.last_bytes } else { chunks.bytes };
            let start = u64::from(op.weights) + chunk * chunks.bytes;
            if let Some(bytes) = weights.get(start as usize..(start + size) as usize) {
                mended.push((op.checks as usize + 4 * chunk as usize, chunk_checksum(bytes)));
            }
        }
    }
    if mended.is_empty() {
        return;
    }
    for (at, sum) in mended {
        bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    }
    seal(bytes);
}
