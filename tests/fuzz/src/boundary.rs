//! Changes of single fields of the records to values at and beside the bounds that validation sets: where faults were found by
//! reading that random bytes do not reach.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg32;
use waft::format::{
    Activate, Attention, Classifier, Conv2d, Embed, Field, Filter, FixedStep, FloatStep, GroupNorm, Header, LayerNorm,
    Linear, LinearAttention, OP_BYTES, Observe, OpKind, Precision, Record, STEP_BYTES, Schedule, Tensor, Threshold,
    Variance,
};

/// Changes one to three fields, or places of tensors, more often one.
pub fn mutate(data: &mut [u8], seed: u32) {
    let mut random = Pcg32::seed_from_u64(seed.into());
    for _ in 0..[1, 1, 2, 3][random.random_range(0..4)] {
        let header = Header::read(data, 0);
        // Nothing to do where the tables lie outside.
        let _ = match random.random_range(0..4) {
            0 => change_tensor(data, &header, &mut random),
            _ => change_field(data, &header, &mut random),
        };
    }
}

fn below(random: &mut Pcg32, count: u32) -> Option<usize> {
    (count > 0).then(|| random.random_range(0..count) as usize)
}

/// A place in memory, a size or a lifetime that another tensor has, or one that is next to it.
fn change_tensor(data: &mut [u8], header: &Header, random: &mut Pcg32) -> Option<()> {
    let table = header.tensors_at as usize;
    let mut at = || Some(table + below(random, header.tensors.into())? * size_of::<Tensor>());
    let [at, other_at] = [at()?, at()?];
    let (mut tensor, other) = (Tensor::read(data, at), Tensor::read(data, other_at));
    match random.random_range(0..8) {
        0 => tensor.offset = other.offset,
        1 => tensor.offset = other.offset.wrapping_add(other.bytes).wrapping_add(15) & !15,
        2 => tensor.offset = other.offset.wrapping_sub(tensor.bytes) & !15,
        3 => tensor.offset = header.arena_bytes.wrapping_sub(tensor.bytes) & !15,
        4 => (tensor.rows, tensor.columns, tensor.channels) = (other.rows, other.columns, other.channels),
        5 => tensor.element = random.random_range(0..5),
        6 => (tensor.first, tensor.last) = (other.first, other.last),
        _ => tensor.last = tensor.last.wrapping_add(random.random_range(0..3)).wrapping_sub(1),
    }
    tensor.bytes = (tensor.len() as u32).wrapping_mul(tensor.element().bytes() as u32);
    data.get_mut(at..at + size_of::<Tensor>())?.copy_from_slice(bytemuck::bytes_of(&tensor));
    Some(())
}

/// A record: where it stands, and its fields.
fn record(data: &[u8], header: &Header, random: &mut Pcg32) -> Option<(usize, &'static [Field])> {
    Some(match random.random_range(0..10) {
        0 => (0, Header::FIELDS),
        1 | 2 => {
            (header.tensors_at as usize + below(random, header.tensors.into())? * size_of::<Tensor>(), Tensor::FIELDS)
        }
        3..=6 => {
            let at = header.ops_at as usize + below(random, header.ops.into())? * OP_BYTES;
            let fields = match OpKind::from_code(*data.get(at)?)? {
                OpKind::Conv2d => Conv2d::FIELDS,
                OpKind::GroupNorm => GroupNorm::FIELDS,
                OpKind::Attention => Attention::FIELDS,
                OpKind::Embed => Embed::FIELDS,
                OpKind::Linear => Linear::FIELDS,
                OpKind::Activate => Activate::FIELDS,
                OpKind::Observe => Observe::FIELDS,
                OpKind::LayerNorm => LayerNorm::FIELDS,
                OpKind::LinearAttention => LinearAttention::FIELDS,
                OpKind::Classifier => Classifier::FIELDS,
                OpKind::Filter => Filter::FIELDS,
            };
            (at, fields)
        }
        kind => {
            let at = header.schedules_at as usize + below(random, header.schedules.into())? * size_of::<Schedule>();
            if kind == 7 {
                return Some((at, Schedule::FIELDS));
            }
            let schedule = Schedule::read(data, at);
            if kind == 8 && schedule.threshold != 0 {
                return Some((schedule.threshold as usize, Threshold::FIELDS));
            }
            let step = below(random, schedule.steps)?;
            if kind == 8 && header.variance != 0 {
                let at = usize::try_from(schedule.variances()).ok()?;
                return Some((at + step * size_of::<Variance>(), Variance::FIELDS));
            }
            let fields = if header.precision() == Precision::I8 { FixedStep::FIELDS } else { FloatStep::FIELDS };
            (schedule.rows as usize + step * STEP_BYTES, fields)
        }
    })
}

/// Bytes of a field's elements, and their number: `[u16; 2]` has two of two bytes.
fn elements(field: &Field) -> Option<(usize, u32)> {
    let inner = field.kind.trim_matches(['[', ']']);
    let (kind, count) = inner.split_once(';').unwrap_or((inner, "1"));
    let bits: usize = kind.trim().get(1..)?.parse().ok()?;
    Some((bits / 8, count.trim().parse().ok()?))
}

fn read(data: &[u8], at: usize, width: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(data.get(at..at.checked_add(width)?)?);
    Some(u64::from_le_bytes(bytes))
}

/// One field: what bounds it, what another field holds, or what is one away.
fn change_field(data: &mut [u8], header: &Header, random: &mut Pcg32) -> Option<()> {
    let (record, fields) = record(data, header, random)?;
    let field = fields[below(random, fields.len() as u32)?];
    let (width, count) = elements(&field)?;
    let at = record + field.at + width * below(random, count)?;
    let old = read(data, at, width)?;
    let bits = 8 * width as u32;
    let limits = [
        header.arena_bytes.into(),
        header.file_bytes.into(),
        header.weights_bytes.into(),
        header.ops.into(),
        header.tensors.into(),
        header.sample.into(),
        header.prediction.into(),
        size_of::<Header>() as u64,
    ];
    let value = match random.random_range(0..11) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << (bits - 1),
        3 => (1 << (bits - 1)) - 1,
        4 => old.wrapping_add(1),
        5 => old.wrapping_sub(1),
        6 => old.wrapping_neg(),
        7 => old ^ 1 << random.random_range(0..bits),
        8 => 1 << random.random_range(0..bits),
        // An element of the same width of the same record: an operand for another.
        9 => {
            let same: Vec<&Field> =
                fields.iter().filter(|other| elements(other).is_some_and(|(w, _)| w == width)).collect();
            read(data, record + same[below(random, same.len() as u32)?].at, width)?
        }
        _ => limits[below(random, limits.len() as u32)?].wrapping_add([0, 1, 16, u64::MAX][below(random, 4)?]),
    };
    data.get_mut(at..at + width)?.copy_from_slice(&value.to_le_bytes()[..width]);
    Some(())
}
