//! Types of values, and what instructions compute from values.

/// Kind and bits of a type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Type {
    pub(super) signed: bool,
    pub(super) float: bool,
    pub(super) bits: u32,
}

impl Type {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let bits = match name {
            "pred" => 1,
            _ => name.get(1..)?.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?,
        };
        let kind = name.chars().next()?;
        "busfp".contains(kind).then_some(Self { signed: kind == 's', float: kind == 'f', bits })
    }

    pub(super) fn unsigned(self, value: u64) -> u64 {
        if self.bits == 64 { value } else { value & ((1 << self.bits) - 1) }
    }

    pub(super) fn extended(self, value: u64) -> i64 {
        let unused = 64 - self.bits;
        if self.signed { (value << unused) as i64 >> unused } else { self.unsigned(value) as i64 }
    }
}

pub(super) fn arithmetic(name: &str, ty: Type, source: &dyn Fn(usize) -> u64) -> u64 {
    let float = |place: usize| f32::from_bits(source(place) as u32);
    if ty.float {
        let result = match name {
            "add" => float(0) + float(1),
            "sub" => float(0) - float(1),
            "mul.rn" => float(0) * float(1),
            "div" => float(0) / float(1),
            "rcp" => 1.0 / float(0),
            "neg" => -float(0),
            "abs" => float(0).abs(),
            "min" => float(0).min(float(1)),
            "max" => float(0).max(float(1)),
            _ => panic!("{name}.f32 is unknown"),
        };
        return result.to_bits().into();
    }
    let integer = |place: usize| ty.extended(source(place));
    let unsigned = |place: usize| ty.unsigned(source(place));
    let amount = || (source(1) as u32).min(ty.bits);
    match name {
        "add" => source(0).wrapping_add(source(1)),
        "sub" => source(0).wrapping_sub(source(1)),
        "add with carry" => source(0).wrapping_add(source(1)).wrapping_add(source(2)),
        "carry" => ((u128::from(source(0)) + u128::from(source(1)) + u128::from(source(2))) >> 64) as u64,
        "sub with borrow" => source(0).wrapping_sub(source(1)).wrapping_sub(source(2)),
        "borrow" => (u128::from(source(0)) < u128::from(source(1)) + u128::from(source(2))).into(),
        "mul.lo" => source(0).wrapping_mul(source(1)),
        "mul.wide" => integer(0).wrapping_mul(integer(1)) as u64,
        "mul.hi" if ty.signed => ((i128::from(integer(0)) * i128::from(integer(1))) >> ty.bits) as u64,
        "mul.hi" => ((u128::from(unsigned(0)) * u128::from(unsigned(1))) >> ty.bits) as u64,
        "mad.lo" => source(0).wrapping_mul(source(1)).wrapping_add(source(2)),
        "div" if ty.signed => integer(0).wrapping_div(integer(1)) as u64,
        "div" => unsigned(0) / unsigned(1),
        "rem" if ty.signed => integer(0).wrapping_rem(integer(1)) as u64,
        "rem" => unsigned(0) % unsigned(1),
        "and" => source(0) & source(1),
        "or" => source(0) | source(1),
        "xor" => source(0) ^ source(1),
        "not" => !source(0),
        "neg" => integer(0).wrapping_neg() as u64,
        "abs" => integer(0).wrapping_abs() as u64,
        // The second word before the first, shifted by the third modulo 32: its low word, or its high one.
        "shf.r.wrap" => (unsigned(1) << 32 | unsigned(0)) >> (source(2) & 31) & 0xFFFF_FFFF,
        "shf.l.wrap" => (unsigned(1) << 32 | unsigned(0)) << (source(2) & 31) >> 32,
        "shl" => unsigned(0).checked_shl(amount()).unwrap_or(0),
        "shr" if ty.signed => (integer(0) >> amount().min(63)) as u64,
        "shr" => unsigned(0).checked_shr(amount()).unwrap_or(0),
        "min" if ty.signed => integer(0).min(integer(1)) as u64,
        "max" if ty.signed => integer(0).max(integer(1)) as u64,
        "min" => unsigned(0).min(unsigned(1)),
        "max" => unsigned(0).max(unsigned(1)),
        "clz" => u64::from(unsigned(0).leading_zeros()) - (64 - u64::from(ty.bits)),
        "bfe" if !ty.signed => unsigned(0).checked_shr(source(1) as u32).unwrap_or(0) & ((1 << source(2)) - 1),
        "prmt" => {
            let bytes = (source(1) << 32 | source(0) & 0xFFFF_FFFF).to_le_bytes();
            let pick = |place: u32| {
                let selector = source(2) >> (4 * place) & 15;
                let byte = bytes[selector as usize & 7];
                // The upper bit asks for copies of the sign.
                let byte = if selector < 8 { byte } else { ((byte as i8) >> 7) as u8 };
                u64::from(byte) << (8 * place)
            };
            (0..4).map(pick).sum()
        }
        _ => panic!("{name} is unknown for {ty:?}"),
    }
}

pub(super) fn compare(name: &str, ty: Type, left: u64, right: u64) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let (order, name) = if ty.float {
        let (left, right) = (f32::from_bits(left as u32), f32::from_bits(right as u32));
        match left.partial_cmp(&right) {
            Some(order) => (order, name.strip_suffix('u').unwrap_or(name)),
            // Comparisons of what is no number hold only in their unordered form.
            None => return name == "nan" || name.len() == 3 && name.ends_with('u'),
        }
    } else if ty.signed {
        (ty.extended(left).cmp(&ty.extended(right)), name)
    } else {
        (ty.unsigned(left).cmp(&ty.unsigned(right)), name)
    };
    match name {
        "eq" => order == Equal,
        "ne" => order != Equal,
        "lt" => order == Less,
        "le" => order != Greater,
        "gt" => order == Greater,
        "ge" => order != Less,
        "nan" => false,
        _ => panic!("setp.{name} is unknown"),
    }
}

pub(super) fn convert(to: Type, from: Type, value: u64) -> u64 {
    match (to.float, from.float) {
        (false, false) => from.extended(value) as u64,
        (true, false) => (from.extended(value) as f32).to_bits().into(),
        (false, true) => {
            // Towards zero, saturated to the type; what is no number becomes 0.
            let value = f64::from(f32::from_bits(value as u32));
            let (least, most) = match (to.signed, to.bits) {
                (true, bits) => (-(2f64.powi(bits as i32 - 1)), 2f64.powi(bits as i32 - 1) - 1.0),
                (false, bits) => (0.0, 2f64.powi(bits as i32) - 1.0),
            };
            value.max(least).min(most) as i64 as u64
        }
        (true, true) => panic!("conversions between floats are unknown"),
    }
}
