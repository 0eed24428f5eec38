//! Models of many tensors, made from a small one. Uses nothing but the format: `tests/compile_fail`, which builds little else,
//! includes this file too.

use waft::Model;
use waft::format::{ALIGN, Header, Op, Tensor, seal};

/// Repeats the first normalization of a model `more` times before it is computed. Each result gets a tensor of its own: in the
/// memory that the normalization itself writes later, or, if they are `kept`, in memory behind the arena until the end.
///
/// # Panics
/// If the model has no normalization.
pub fn with_more_tensors(model: &Model<'_>, more: u16, kept: bool) -> Vec<u8> {
    let mut header = *model.header();
    let mut ops: Vec<Op> = (0..header.ops).filter_map(|index| model.op(index)).collect();
    let mut tensors: Vec<Tensor> = (0..header.tensors).filter_map(|id| model.tensor(id)).collect();
    let at = ops.iter().position(|op| matches!(op, Op::GroupNorm(_))).expect("a normalization");
    let Op::GroupNorm(norm) = ops[at] else { unreachable!("found above") };
    let at = at as u16;
    for tensor in &mut tensors {
        for time in [&mut tensor.first, &mut tensor.last] {
            *time += if *time >= at { more } else { 0 };
        }
    }
    let result = tensors[usize::from(norm.output)];
    for k in 0..more {
        let mut op = norm;
        op.output = header.tensors + k;
        let mut tensor = Tensor { first: at + k, last: at + k, ..result };
        if kept {
            (tensor.offset, tensor.last) = (header.arena_bytes, header.ops + more);
            header.arena_bytes += tensor.bytes.next_multiple_of(ALIGN as u32);
        }
        tensors.push(tensor);
        ops.insert(usize::from(at), Op::GroupNorm(op));
    }
    // Each was inserted before those before it.
    ops[usize::from(at)..usize::from(at + more)].reverse();

    let mut bytes = model.bytes().to_vec();
    let mut append = |records: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes.extend(records);
        (bytes.len() - records.len()) as u32
    };
    header.tensors_at = append(bytemuck::cast_slice(&tensors));
    header.ops_at = append(&ops.iter().flat_map(|op| op.bytes()).copied().collect::<Vec<u8>>());
    (header.tensors, header.ops) = (header.tensors + more, header.ops + more);
    header.file_bytes = bytes.len() as u32;
    bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
    seal(&mut bytes);
    bytes
}
