use super::{Check, File, ensure, is_zero};
use crate::format::{ALIGN, NONE, OP_BYTES, Schedule, Tensor, slice_at};

const fn is_utf8(bytes: &[u8], [at, len]: [u32; 2]) -> bool {
    core::str::from_utf8(slice_at(bytes, at as usize, len as usize)).is_ok()
}

pub(super) const fn validate(file: File<'_>) -> Check {
    let h = file.header;
    ensure!(h.has_known_codes() && is_zero(h.reserved_end), Header, 0);
    ensure!(h.tensors < NONE && h.ops < NONE, Header, 0);
    ensure!(h.arena_bytes.is_multiple_of(ALIGN as u32) && h.arena_bytes <= 1 << 30, Header, 0);
    ensure!(file.holds(h.tensors_at, h.tensors as u64 * size_of::<Tensor>() as u64), Offset, 0);
    ensure!(file.holds(h.ops_at, h.ops as u64 * OP_BYTES as u64), Offset, 0);
    ensure!(file.holds(h.schedules_at, h.schedules as u64 * size_of::<Schedule>() as u64), Offset, 0);
    ensure!(h.name[1] <= 64 && file.holds(h.name[0], h.name[1] as u64), Text, 0);
    ensure!(h.provenance[1] <= 1024 && file.holds(h.provenance[0], h.provenance[1] as u64), Text, 0);
    ensure!(is_utf8(file.bytes, h.name) && is_utf8(file.bytes, h.provenance), Text, 0);
    ensure!(h.schedules > 0, Header, 0);
    ensure!(h.unconditional_class == NONE || h.unconditional_class < h.classes, Header, 0);
    ensure!(h.conditioning <= 1 << 15, Header, 0);
    // What a run executes once reads the observation, and is not all there is.
    ensure!(h.once < h.ops && (h.once > 0) == (h.observation != 0), Header, 0);
    // Without a conditioning vector or a classifier there is nothing that a class could change.
    ensure!(h.conditioning > 0 || h.classes == 0 || h.gradient != 0, Header, 0);
    Ok(())
}
