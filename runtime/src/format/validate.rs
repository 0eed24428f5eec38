//! The structural check, a `const fn`: what it accepts can be run without a bound or an overlap in doubt.

use super::*;

/// Returns the error from the enclosing function unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $field:ident, $index:expr) => {
        if !$condition {
            return Err(malformed(Field::$field, $index as usize));
        }
    };
}

/// `match` with early return: `?` for `Option` in a `const fn`.
macro_rules! require {
    ($option:expr, $field:ident, $index:expr) => {
        match $option {
            Some(value) => value,
            None => return Err(malformed(Field::$field, $index as usize)),
        }
    };
}

/// `match` with early return: `?` for `Result` in a `const fn`.
macro_rules! check {
    ($result:expr) => {
        if let Err(error) = $result {
            return Err(error);
        }
    };
}

type Check = Result<(), ModelError>;

/// Checks everything that the operations rely on.
pub(crate) const fn validate(bytes: &[u8]) -> Result<Header, ModelError> {
    let header = match Header::decode(bytes) {
        Ok(header) => header,
        Err(error) => return Err(error),
    };
    if bytes.len() < header.file_bytes as usize {
        return Err(ModelError::Truncated { expected: header.file_bytes as usize, found: bytes.len() });
    }
    ensure!(bytes.len() == header.file_bytes as usize, Header, 0);
    let found = checksum(bytes);
    let expected = u32_at(bytes, 12);
    if found != expected {
        return Err(ModelError::Checksum { expected, found });
    }
    check!(validate_header(&header, bytes));
    check!(validate_tensors(&header, bytes));
    check!(validate_ops(&header, bytes));
    check!(validate_overlaps(&header, bytes));
    check!(validate_schedules(&header, bytes));
    Ok(header)
}

/// Whether `len` bytes at `at` lie in the file, aligned for the device's loads.
const fn inside(header: &Header, at: u32, len: u64) -> bool {
    at.is_multiple_of(ALIGN as u32) && at as usize >= HEADER_BYTES && at as u64 + len <= header.file_bytes as u64
}

const fn is_utf8(bytes: &[u8], at_len: [u32; 2]) -> bool {
    core::str::from_utf8(slice_at(bytes, at_len[0] as usize, at_len[1] as usize)).is_ok()
}

const fn validate_header(header: &Header, bytes: &[u8]) -> Check {
    ensure!(header.tensors > 0 && header.tensors < NONE, Header, 0);
    ensure!(header.ops > 0 && header.ops < NONE, Header, 0);
    ensure!(header.arena_bytes.is_multiple_of(ALIGN as u32) && header.arena_bytes <= 1 << 30, Header, 0);
    ensure!(inside(header, header.tensors_at, header.tensors as u64 * TENSOR_BYTES as u64), Offset, 0);
    ensure!(inside(header, header.ops_at, header.ops as u64 * OP_BYTES as u64), Offset, 0);
    ensure!(inside(header, header.schedules_at, header.schedules as u64 * SCHEDULE_BYTES as u64), Offset, 0);
    ensure!(header.name[1] <= 64 && inside(header, header.name[0], header.name[1] as u64), Text, 0);
    ensure!(header.provenance[1] <= 1024, Text, 0);
    ensure!(inside(header, header.provenance[0], header.provenance[1] as u64), Text, 0);
    ensure!(is_utf8(bytes, header.name) && is_utf8(bytes, header.provenance), Text, 0);
    ensure!(header.schedules > 0, Header, 0);
    ensure!(header.unconditional_class == NONE || header.unconditional_class < header.classes, Header, 0);
    ensure!(header.conditioning <= 1 << 15, Header, 0);
    // Without a conditioning vector there is nothing that a class could change.
    ensure!(header.conditioning > 0 || header.classes == 0, Header, 0);
    Ok(())
}

/// Element of accumulators, norm maps and the sample.
const fn wide(precision: Precision) -> Element {
    match precision {
        Precision::I8 => Element::I32,
        Precision::F16 | Precision::F32 => Element::F32,
    }
}

/// Whether activations of the precision may have this element type.
const fn is_activation(precision: Precision, element: Element) -> bool {
    matches!(
        (precision, element),
        (Precision::I8, Element::I8 | Element::I16) | (Precision::F16, Element::F16) | (Precision::F32, Element::F32)
    )
}

/// Bytes of one weight of a linear operation.
const fn linear_weight_bytes(precision: Precision) -> u64 {
    match precision {
        Precision::I8 | Precision::F16 => 2,
        Precision::F32 => 4,
    }
}

/// Bytes of one entry of a time or class table.
const fn embedding_bytes(precision: Precision) -> u64 {
    match precision {
        Precision::I8 => 2,
        Precision::F16 | Precision::F32 => 4,
    }
}

const fn validate_tensors(header: &Header, bytes: &[u8]) -> Check {
    let mut id = 0;
    while id < header.tensors {
        let t = require!(header.tensor(bytes, id), Tensor, id);
        ensure!(t.rows > 0 && t.columns > 0 && t.channels > 0, Tensor, id);
        let len = t.rows as u64 * t.columns as u64 * t.channels as u64;
        ensure!(len < 1 << 28 && t.bytes as u64 == len * t.element.bytes() as u64, Tensor, id);
        ensure!(t.offset.is_multiple_of(ALIGN as u32), Tensor, id);
        ensure!(t.offset as u64 + t.bytes as u64 <= header.arena_bytes as u64, Tensor, id);
        ensure!(t.first <= t.last && t.last <= header.ops, Lifetime, id);
        id += 1;
    }
    let wide = wide(header.precision);
    let sample = require!(header.tensor(bytes, header.sample), Header, 0);
    let prediction = require!(header.tensor(bytes, header.prediction), Header, 0);
    ensure!(matches_element(sample.element, wide) && matches_element(prediction.element, wide), Header, 0);
    ensure!(sample.rows == prediction.rows && sample.columns == prediction.columns, Header, 0);
    // The sample lives through every pass, the prediction until the sampler has read it.
    ensure!(sample.first == 0 && sample.last == header.ops && prediction.last == header.ops, Lifetime, header.sample);
    if header.unconditional != NONE {
        let kept = require!(header.tensor(bytes, header.unconditional), Header, 0);
        ensure!(header.unconditional_class != NONE && matches_element(kept.element, wide), Header, 0);
        ensure!(same_shape(&kept, &prediction) && kept.first == 0 && kept.last == header.ops, Header, 0);
        ensure!(header.unconditional != header.sample && header.unconditional != header.prediction, Header, 0);
    }
    ensure!(header.sample != header.prediction, Header, 0);
    Ok(())
}

const fn matches_element(a: Element, b: Element) -> bool {
    a as u8 == b as u8
}

const fn same_shape(a: &Tensor, b: &Tensor) -> bool {
    a.rows == b.rows && a.columns == b.columns && a.channels == b.channels
}

const fn validate_ops(header: &Header, bytes: &[u8]) -> Check {
    let mut index = 0;
    let mut predicted = false;
    while index < header.ops {
        let op = require!(header.op(bytes, index), Op, index);
        let operands = op.operands();
        let mut i = 0;
        while i < operands.len() {
            let id = operands[i];
            if id != NONE {
                let t = require!(header.tensor(bytes, id), Operand, index);
                ensure!(t.first <= index && index <= t.last, Lifetime, id);
                // Results are read after the operation that wrote them; the sample is there from the start.
                let written = t.first < index || id == header.sample || op.is_scratch(id);
                ensure!(written && id != header.unconditional, Lifetime, id);
                if op.is_scratch(id) {
                    ensure!(t.first == index && t.last == index && id != header.sample, Lifetime, id);
                    let mut other = 0;
                    while other < operands.len() {
                        ensure!(other == i || operands[other] != id, Operand, index);
                        other += 1;
                    }
                }
            }
            i += 1;
        }
        // A result's life starts where it is written: nothing else can be lost by writing it.
        let output = require!(header.tensor(bytes, op.output()), Operand, index);
        ensure!(output.first == index && op.output() != header.sample, Lifetime, op.output());
        ensure!(op.output() != header.unconditional && !op.is_scratch(op.output()), Lifetime, op.output());
        if op.output() == header.prediction {
            predicted = true;
        }
        check!(match op {
            Op::Conv2d(op) => validate_conv2d(header, bytes, index, &op),
            Op::GroupNorm(op) => validate_group_norm(header, bytes, index, &op),
            Op::Attention(op) => validate_attention(header, bytes, index, &op),
            Op::Embed(op) => validate_embed(header, bytes, index, &op),
            Op::Linear(op) => validate_linear(header, bytes, index, &op),
        });
        index += 1;
    }
    ensure!(predicted, Header, 0);
    Ok(())
}

/// Rows, columns and channels of one or two sources that are joined along the channels.
const fn joined(header: &Header, bytes: &[u8], index: u16, sources: [u16; 2]) -> Result<[usize; 3], ModelError> {
    let first = require!(header.tensor(bytes, sources[0]), Operand, index);
    let mut channels = first.channels as usize;
    if sources[1] != NONE {
        let second = require!(header.tensor(bytes, sources[1]), Operand, index);
        ensure!(first.rows == second.rows && first.columns == second.columns, Operand, index);
        channels += second.channels as usize;
    }
    Ok([first.rows as usize, first.columns as usize, channels])
}

/// Whether every source has an element type that the operation reads.
const fn readable(header: &Header, bytes: &[u8], sources: [u16; 2], sample: bool) -> bool {
    let mut i = 0;
    while i < 2 {
        if sources[i] != NONE {
            let element = match header.tensor(bytes, sources[i]) {
                Some(t) => t.element,
                None => return false,
            };
            let raw_sample = sample && sources[i] == header.sample && matches_element(element, wide(header.precision));
            if !is_activation(header.precision, element) && !raw_sample {
                return false;
            }
        }
        i += 1;
    }
    true
}

/// Whether `len` bytes at `at` lie in the biases of a step, in every schedule.
const fn in_every_step(header: &Header, bytes: &[u8], index: u16, at: u32, len: u64) -> Check {
    let mut i = 0;
    while i < header.schedules {
        let schedule = require!(header.schedule(bytes, i), Schedule, i);
        ensure!(at as u64 + len <= schedule.bias_bytes as u64, Offset, index);
        i += 1;
    }
    Ok(())
}

const fn validate_conv2d(header: &Header, bytes: &[u8], index: u16, op: &Conv2d) -> Check {
    let [rows, columns, channels] = match joined(header, bytes, index, op.sources) {
        Ok(shape) => shape,
        Err(error) => return Err(error),
    };
    let output = require!(header.tensor(bytes, op.output), Operand, index);
    let ring = require!(header.tensor(bytes, op.scratch), Operand, index);
    let [kh, kw] = op.kernel;
    ensure!(kh >= 1 && kh <= 15 && kw >= 1 && kw <= 15 && op.stride >= 1 && op.stride <= 4, Op, index);
    ensure!(op.padding[0] < kh && op.padding[1] < kw, Op, index);
    ensure!(!op.four_bits || matches!(header.precision, Precision::I8), Op, index);
    // The output's size may leave out or pad up to one kernel at the far edges, not more.
    let scale = if op.upsample { 2 } else { 1 };
    let reach = (output.rows as usize - 1) * op.stride as usize + kh as usize;
    ensure!(reach < op.padding[0] as usize + rows * scale + kh as usize, Op, index);
    let reach = (output.columns as usize - 1) * op.stride as usize + kw as usize;
    ensure!(reach < op.padding[1] as usize + columns * scale + kw as usize, Op, index);

    ensure!(readable(header, bytes, op.sources, matches!(op.gather, Gather::Raw)), Operand, index);
    let to_prediction = op.output == header.prediction && matches_element(output.element, wide(header.precision));
    ensure!(is_activation(header.precision, output.element) || to_prediction, Operand, index);
    let ring_element = match header.precision {
        Precision::I8 => matches!(ring.element, Element::I8 | Element::I16),
        Precision::F16 | Precision::F32 => matches!(ring.element, Element::F32),
    };
    ensure!(ring_element && ring.rows == kh as u16, Operand, index);
    ensure!(ring.columns as usize == op.ring_width(columns, output.columns as usize), Operand, index);
    ensure!(ring.channels as usize == channels, Operand, index);

    match op.gather {
        Gather::Raw => ensure!(op.norm == NONE, Op, index),
        Gather::Affine | Gather::AffineSilu => {
            let norm = require!(header.tensor(bytes, op.norm), Operand, index);
            ensure!(matches_element(norm.element, wide(header.precision)), Operand, index);
            ensure!(norm.columns as usize == channels && norm.rows == 1 && norm.channels == 2, Operand, index);
            ensure!(op.affine_shift >= 4 && op.affine_shift <= 30, Op, index);
        }
    }
    if op.residual != NONE {
        let residual = require!(header.tensor(bytes, op.residual), Operand, index);
        ensure!(same_shape(&residual, &output) && is_activation(header.precision, residual.element), Operand, index);
    }
    let outputs = output.channels as u64;
    match op.chunks(header.precision, outputs, channels as u64) {
        None => {
            ensure!(op.window == NONE, Op, index);
            ensure!(
                inside(header, op.weights, op.weights_len(outputs, channels as u64, header.precision)),
                Offset,
                index
            );
        }
        Some(chunks) => {
            let window = require!(header.tensor(bytes, op.window), Operand, index);
            ensure!(window.bytes as u64 >= chunks.largest(), Operand, index);
            ensure!(op.weights.is_multiple_of(ALIGN as u32), Offset, index);
            ensure!(op.weights as u64 + chunks.total() <= header.weights_bytes as u64, Offset, index);
            ensure!(inside(header, op.checks, chunks.count * 4), Offset, index);
        }
    }
    if matches!(header.precision, Precision::I8) {
        ensure!(inside(header, op.requant, outputs * 8), Offset, index);
    }
    if op.weight_sums != 0 {
        ensure!(matches!((header.precision, ring.element), (Precision::I8, Element::I8)), Op, index);
        ensure!(!matches!(op.gather, Gather::Raw), Op, index);
        ensure!(inside(header, op.weight_sums, outputs * 4), Offset, index);
        ensure!(op.step_scales.is_multiple_of(4), Offset, index);
        check!(in_every_step(header, bytes, index, op.step_scales, STEP_SCALES_BYTES as u64));
    }
    match op.bias {
        Bias::Constant => {
            ensure!(op.bias_tensor == NONE && inside(header, op.bias_at, outputs * 4), Offset, index);
        }
        Bias::Step => {
            ensure!(op.bias_tensor == NONE && op.bias_at.is_multiple_of(ALIGN as u32), Offset, index);
            check!(in_every_step(header, bytes, index, op.bias_at, outputs * 4));
        }
        Bias::Tensor => {
            let bias = require!(header.tensor(bytes, op.bias_tensor), Operand, index);
            ensure!(
                bias.len() as u64 == outputs && matches_element(bias.element, wide(header.precision)),
                Operand,
                index
            );
        }
    }
    Ok(())
}

const fn validate_group_norm(header: &Header, bytes: &[u8], index: u16, op: &GroupNorm) -> Check {
    let [rows, columns, channels] = match joined(header, bytes, index, op.sources) {
        Ok(shape) => shape,
        Err(error) => return Err(error),
    };
    let output = require!(header.tensor(bytes, op.output), Operand, index);
    ensure!(readable(header, bytes, op.sources, false), Operand, index);
    ensure!(matches_element(output.element, wide(header.precision)), Operand, index);
    ensure!(output.rows == 1 && output.columns as usize == channels && output.channels == 2, Operand, index);
    ensure!(op.groups > 0 && channels.is_multiple_of(op.groups as usize), Op, index);
    // Bounds the sum of squares of 16-bit values so that 16 fractional bits of its mean fit an unsigned 64-bit word.
    ensure!(rows as u64 * columns as u64 * (channels / op.groups as usize) as u64 <= 1 << 17, Op, index);
    ensure!(
        inside(header, op.gamma, channels as u64 * 4) && inside(header, op.beta, channels as u64 * 4),
        Offset,
        index
    );
    if matches!(header.precision, Precision::I8) {
        ensure!(op.ratio[0] >= 1 && op.ratio[0] <= 1 << 15 && op.ratio[1] >= 1 && op.ratio[1] <= 1 << 15, Op, index);
        ensure!(op.epsilon_q16 >= 1 && op.epsilon_q16 < 1 << 62, Op, index);
        ensure!(op.affine_shift >= 4 && op.affine_shift <= 30, Op, index);
        ensure!(op.zero[0].unsigned_abs() <= 1 << 15 && op.zero[1].unsigned_abs() <= 1 << 15, Op, index);
    }
    Ok(())
}

const fn validate_attention(header: &Header, bytes: &[u8], index: u16, op: &Attention) -> Check {
    let query = require!(header.tensor(bytes, op.query), Operand, index);
    let key_value = require!(header.tensor(bytes, op.key_value), Operand, index);
    let output = require!(header.tensor(bytes, op.output), Operand, index);
    let scratch = require!(header.tensor(bytes, op.scratch), Operand, index);
    ensure!(same_shape(&query, &output) && matches_element(query.element, output.element), Operand, index);
    ensure!(query.offset == output.offset, Operand, index);
    ensure!(key_value.rows == query.rows && key_value.columns == query.columns, Operand, index);
    ensure!(key_value.channels as u32 == 2 * query.channels as u32, Operand, index);
    let element = match header.precision {
        Precision::I8 => Element::I8,
        Precision::F16 => Element::F16,
        Precision::F32 => Element::F32,
    };
    ensure!(matches_element(query.element, element) && matches_element(key_value.element, element), Operand, index);
    ensure!(op.heads > 0 && query.channels.is_multiple_of(op.heads), Op, index);
    let tokens = query.rows as u64 * query.columns as u64;
    ensure!(scratch.len() as u64 == tokens && matches_element(scratch.element, wide(header.precision)), Operand, index);
    if matches!(header.precision, Precision::I8) {
        // The weighted sum of values, at most 128 each, fits 32 bits.
        ensure!(op.weight_bits >= 1 && op.weight_bits <= 15, Op, index);
        ensure!(tokens << (op.weight_bits + 7) <= i32::MAX as u64, Op, index);
        ensure!(op.value_multiplier >= 0 && op.score_multiplier >= 0, Op, index);
    }
    Ok(())
}

const fn validate_embed(header: &Header, bytes: &[u8], index: u16, op: &Embed) -> Check {
    let output = require!(header.tensor(bytes, op.output), Operand, index);
    let element = match header.precision {
        Precision::I8 => Element::I16,
        Precision::F16 | Precision::F32 => Element::F32,
    };
    ensure!(output.len() as u64 == header.conditioning as u64, Operand, index);
    ensure!(matches_element(output.element, element), Operand, index);
    let table = header.classes as u64 * header.conditioning as u64 * embedding_bytes(header.precision);
    ensure!(header.classes == 0 || inside(header, op.table, table), Offset, index);
    ensure!(op.input_shift <= 12 && op.output_shift <= 15, Op, index);
    Ok(())
}

const fn validate_linear(header: &Header, bytes: &[u8], index: u16, op: &Linear) -> Check {
    let source = require!(header.tensor(bytes, op.source), Operand, index);
    let output = require!(header.tensor(bytes, op.output), Operand, index);
    let element = match header.precision {
        Precision::I8 => Element::I16,
        Precision::F16 | Precision::F32 => Element::F32,
    };
    ensure!(matches_element(source.element, element), Operand, index);
    ensure!(matches_element(output.element, wide(header.precision)), Operand, index);
    let outputs = output.len() as u64;
    let weights = outputs * source.len() as u64 * linear_weight_bytes(header.precision);
    ensure!(inside(header, op.weights, weights) && inside(header, op.bias, outputs * 4), Offset, index);
    if matches!(header.precision, Precision::I8) {
        ensure!(inside(header, op.requant, outputs * 8), Offset, index);
    }
    Ok(())
}

/// No two tensors that are alive together share memory, but where an operation may write over what it has read.
const fn validate_overlaps(header: &Header, bytes: &[u8]) -> Check {
    let mut i = 0;
    while i < header.tensors {
        let a = require!(header.tensor(bytes, i), Tensor, i);
        let mut j = i + 1;
        while j < header.tensors {
            let b = require!(header.tensor(bytes, j), Tensor, j);
            let share = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
            if share && a.first <= b.last && b.first <= a.last {
                let in_place = if a.last == b.first {
                    may_overwrite(header, bytes, a.last, i, j)
                } else if b.last == a.first {
                    may_overwrite(header, bytes, b.last, j, i)
                } else {
                    false
                };
                ensure!(in_place, Overlap, j);
            }
            j += 1;
        }
        i += 1;
    }
    Ok(())
}

/// Whether operation `index` may write its result `output` over its operand `dying`, which nobody reads later.
const fn may_overwrite(header: &Header, bytes: &[u8], index: u16, dying: u16, output: u16) -> bool {
    let (Some(op), Some(from), Some(to)) =
        (header.op(bytes, index), header.tensor(bytes, dying), header.tensor(bytes, output))
    else {
        return false;
    };
    if op.output() != output {
        return false;
    }
    match op {
        // Each query is read before the context is written over it.
        Op::Attention(op) => op.query == dying && op.key_value != dying && op.scratch != dying,
        Op::Conv2d(op) => {
            let is_source = op.sources[0] == dying || op.sources[1] == dying;
            let is_residual = op.residual == dying;
            let is_other = op.norm == dying || op.bias_tensor == dying || op.scratch == dying || op.window == dying;
            if is_other || !(is_source || is_residual) {
                return false;
            }
            // A residual is read element by element, just before the result is written to the same place.
            if is_residual && (from.offset != to.offset || !matches_element(from.element, to.element)) {
                return false;
            }
            // A convolution whose weights come in several chunks reads its sources once for each.
            let channels = match joined(header, bytes, index, op.sources) {
                Ok([_, _, channels]) => channels,
                Err(_) => return false,
            };
            let passes = match op.chunks(header.precision, to.channels as u64, channels as u64) {
                Some(chunks) => chunks.count,
                None => 1,
            };
            !is_source || (passes == 1 && rows_are_read_first(&op, &from, &to))
        }
        Op::GroupNorm(_) | Op::Embed(_) | Op::Linear(_) => false,
    }
}

/// Whether each output row ends before the first source row that has not been gathered when it is written.
const fn rows_are_read_first(op: &Conv2d, from: &Tensor, to: &Tensor) -> bool {
    let mut y = 0u64;
    while y < to.rows as u64 {
        let next = y * op.stride as u64 + op.kernel[0] as u64;
        let next = next.saturating_sub(op.padding[0] as u64);
        let unread = if op.upsample { next / 2 } else { next };
        if unread >= from.rows as u64 {
            return true;
        }
        let written = to.offset as u64 + (y + 1) * to.row_bytes();
        if written > from.offset as u64 + unread * from.row_bytes() {
            return false;
        }
        y += 1;
    }
    true
}

const fn validate_schedules(header: &Header, bytes: &[u8]) -> Check {
    let mut i = 0;
    while i < header.schedules {
        let schedule = require!(header.schedule(bytes, i), Schedule, i);
        let steps = schedule.steps as u64;
        ensure!(steps >= 1 && steps <= 10_000, Schedule, i);
        ensure!(inside(header, schedule.rows, steps * STEP_BYTES as u64), Offset, i);
        let row = header.conditioning as u64 * embedding_bytes(header.precision);
        ensure!(row == 0 || inside(header, schedule.embeddings, steps * row), Offset, i);
        ensure!(schedule.bias_bytes.is_multiple_of(ALIGN as u32), Schedule, i);
        let biases = steps * schedule.bias_bytes as u64;
        ensure!(biases == 0 || inside(header, schedule.biases, biases), Offset, i);
        if matches!(header.precision, Precision::I8) {
            let mut step = 0;
            while step < schedule.steps {
                let record = slice_at(bytes, schedule.rows as usize + step as usize * STEP_BYTES, STEP_BYTES);
                ensure!(u32_at(record, 16) <= 62 && u32_at(record, 36) <= 62, Schedule, i);
                ensure!(i32_at(record, 4) >= 0, Schedule, i);
                // Sums of four products of such a mantissa with a 32-bit value fit 64 bits.
                let mut at = 8;
                while at <= 32 {
                    ensure!(at == 16 || i32_at(record, at).unsigned_abs() <= 1 << 29, Schedule, i);
                    at += 4;
                }
                step += 1;
            }
        }
        i += 1;
    }
    Ok(())
}
