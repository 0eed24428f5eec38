//! A model that the emulator puts into memory before the program begins.

use core::slice;

use waft::Model;

/// Memory for a session with any of them; the board whose code has no room for a model has little of it too.
pub const ARENA_BYTES: usize = if cfg!(model_memory) { 384 * 1024 } else { 1024 * 1024 };

/// Where it lies.
const ADDRESS: usize = match usize::from_str_radix(env!("WAFT_MODEL_AT"), 10) {
    Ok(address) => address,
    Err(_) => panic!("WAFT_MODEL_AT is a number"),
};

static mut MODEL: Option<Model<'static>> = None;

/// The model, if it is one. Called once.
pub fn model() -> Option<&'static Model<'static>> {
    let start = ADDRESS as *const u8;
    // SAFETY: memory of the machine that nothing in this program uses.
    let head = unsafe { slice::from_raw_parts(start, 12) };
    let len = u32::from_le_bytes(*head.last_chunk()?);
    // SAFETY: as above; a length that is none would fault under the emulator.
    let model = Model::from_bytes(unsafe { slice::from_raw_parts(start, len as usize) }).ok()?;
    // SAFETY: nothing else refers to it, as there is one thread, which comes here once.
    Some(unsafe { (*(&raw mut MODEL)).insert(model) })
}
