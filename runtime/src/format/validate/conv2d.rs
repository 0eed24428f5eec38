use super::{Check, File, check, ensure, in_every_step, is_zero, joined, readable, require};
use crate::format::{
    ALIGN, Bias, Conv2d, Element, Gather, NONE, PATCH_PIXELS, Precision, StepScales, Tensor, Tiling, WeightLayout,
};

pub(super) const fn validate(file: File<'_>, index: u16, op: &Conv2d) -> Check {
    ensure!(op.has_known_codes() && is_zero(op.reserved_end), Op, index);
    let [rows, columns, channels] = check!(joined(file, index, op.sources));
    let output = require!(file.tensor(op.output), Operand, index);
    // The other half of the channels of a shuffle has to be countable.
    let phases = op.shuffle().code() as u32;
    ensure!(output.columns.trailing_zeros() >= phases && output.channels.leading_zeros() >= phases, Op, index);
    let stored = output;
    let output = op.computed(stored);
    check!(validate_geometry(op, [rows, columns], &output, index));
    let layout_fits = matches!(
        (file.precision(), op.layout()),
        (Precision::I8, WeightLayout::Rows8 | WeightLayout::Groups4 | WeightLayout::Tiles4 | WeightLayout::Tiles2)
            | (Precision::F16, WeightLayout::Groups16)
            | (Precision::F32, WeightLayout::Groups32)
    );
    ensure!(layout_fits, Op, index);

    ensure!(readable(file, op.sources, matches!(op.gather(), Gather::Raw)), Operand, index);
    let to_sampler = file.is_result(op.output) && output.element().is(file.wide());
    ensure!(file.is_activation(output.element()) || to_sampler, Operand, index);
    let ring = require!(file.tensor(op.scratch), Operand, index);
    let ring_fits = if file.is_i8() {
        matches!(ring.element(), Element::I8 | Element::I16)
    } else {
        matches!(ring.element(), Element::F32)
    };
    ensure!(ring_fits && ring.rows as usize == op.ring_rows(), Operand, index);
    ensure!(ring.columns as usize == op.ring_width(columns, output.columns as usize), Operand, index);
    ensure!(ring.channels as usize == channels, Operand, index);

    if op.patches != NONE {
        let patches = require!(file.tensor(op.patches), Operand, index);
        ensure!(file.is_i8(), Op, index);
        ensure!(patches.element().is(Element::I32) && patches.rows == 1, Operand, index);
        if op.tile_rows == 0 {
            ensure!(patches.columns as u64 == op.patch_groups(channels as u64), Operand, index);
            ensure!(patches.channels as usize == 2 * PATCH_PIXELS, Operand, index);
        } else {
            ensure!(
                patches.columns as usize == op.tile_columns(output.columns as usize, channels as u64),
                Operand,
                index
            );
            ensure!(patches.channels as usize == channels, Operand, index);
        }
    }
    // Only tiles read what is transformed for them.
    ensure!(op.tile_rows != 0 || !op.layout().is_transformed(), Op, index);
    // Only tiles of two rows ask for limits, the tighter the more input channels there are.
    let limit = if op.tile_rows == 0 { 0 } else { op.tiling().ring_limit(channels as u64) };
    ensure!(op.ring_limit <= limit, Op, index);
    if op.tile_rows != 0 {
        let shape = [output.rows as usize, output.columns as usize, output.channels as usize];
        let ring_fits = match op.tiling() {
            Tiling::Four => matches!(ring.element(), Element::I8),
            Tiling::Two => matches!(ring.element(), Element::I16),
        };
        ensure!(op.patches != NONE && ring_fits, Op, index);
        ensure!(op.tiles(channels as u64, shape), Op, index);
    }

    match op.gather() {
        Gather::Raw => ensure!(op.norm == NONE, Op, index),
        _ => {
            let norm = require!(file.tensor(op.norm), Operand, index);
            ensure!(norm.element().is(file.wide()), Operand, index);
            ensure!(norm.columns as usize == channels && norm.rows == 1 && norm.channels == 2, Operand, index);
            ensure!(op.affine_shift >= 4 && op.affine_shift <= 30, Op, index);
        }
    }
    if op.residual != NONE {
        let residual = require!(file.tensor(op.residual), Operand, index);
        ensure!(residual.has_shape_of(&stored) && file.is_activation(residual.element()), Operand, index);
        // Both are read at once.
        ensure!(op.bias_tensor != op.residual, Operand, index);
    }
    check!(validate_weights(file, index, op, &output, channels as u64));
    check!(validate_step_scales(file, index, op, &output, &ring));
    validate_bias(file, index, op, &output)
}

/// Kernel, stride and padding; the output's size may leave out or pad up to one kernel at the far edges, not more.
const fn validate_geometry(op: &Conv2d, input: [usize; 2], output: &Tensor, index: u16) -> Check {
    let size = [output.rows as usize, output.columns as usize];
    ensure!(op.stride >= 1 && op.stride <= 4, Op, index);
    let mut axis = 0;
    while axis < 2 {
        let kernel = op.kernel[axis] as usize;
        // No kernel of 0 is larger than its padding.
        ensure!(kernel <= 15 && op.padding[axis] < op.kernel[axis], Op, index);
        let reach = (size[axis] - 1) * op.stride as usize + kernel;
        ensure!(reach < op.padding[axis] as usize + (input[axis] << op.doubling()) + kernel, Op, index);
        axis += 1;
    }
    Ok(())
}

const fn validate_weights(file: File<'_>, index: u16, op: &Conv2d, output: &Tensor, inputs: u64) -> Check {
    let outputs = output.channels as u64;
    ensure!(!file.is_i8() || file.holds(op.requant, outputs * 8), Offset, index);
    match op.chunks(outputs, inputs) {
        None => {
            ensure!(op.window == NONE, Op, index);
            ensure!(file.holds(op.weights, op.layout().bytes(outputs, op.taps(inputs))), Offset, index);
        }
        Some(chunks) => {
            let window = require!(file.tensor(op.window), Operand, index);
            // Whole weights of any width.
            ensure!(window.bytes.is_multiple_of(ALIGN as u32), Operand, index);
            ensure!(window.bytes as u64 >= chunks.largest(), Operand, index);
            ensure!(op.weights.is_multiple_of(ALIGN as u32), Offset, index);
            ensure!(op.weights as u64 + chunks.total() <= file.header.weights_bytes as u64, Offset, index);
            ensure!(file.holds(op.checks, chunks.count * 4), Offset, index);
        }
    }
    Ok(())
}

const fn validate_step_scales(file: File<'_>, index: u16, op: &Conv2d, output: &Tensor, ring: &Tensor) -> Check {
    if op.weight_sums == 0 {
        return Ok(());
    }
    // Only the i8 precision has rings of such elements.
    ensure!(matches!(ring.element(), Element::I8), Op, index);
    ensure!(!matches!(op.gather(), Gather::Raw), Op, index);
    ensure!(file.holds(op.weight_sums, output.channels as u64 * 4), Offset, index);
    ensure!(op.step_scales.is_multiple_of(4), Offset, index);
    in_every_step(file, index, op.step_scales, size_of::<StepScales>() as u64)
}

const fn validate_bias(file: File<'_>, index: u16, op: &Conv2d, output: &Tensor) -> Check {
    let outputs = output.channels as u64;
    match op.bias() {
        Bias::Constant => {
            ensure!(op.bias_tensor == NONE && file.holds(op.bias_at, outputs * 4), Offset, index);
        }
        Bias::Step => {
            ensure!(op.bias_tensor == NONE && op.bias_at.is_multiple_of(ALIGN as u32), Offset, index);
            check!(in_every_step(file, index, op.bias_at, outputs * 4));
        }
        Bias::Tensor => {
            let bias = require!(file.tensor(op.bias_tensor), Operand, index);
            ensure!(bias.len() as u64 == outputs && bias.element().is(file.wide()), Operand, index);
        }
    }
    Ok(())
}
