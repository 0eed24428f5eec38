//! Types of values, and what instructions compute from values.

use waft_kernels::LANES;

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

/// A value of each thread of a warp.
pub(super) type Values = [u64; LANES];

/// Computes the results of an instruction of a type from its sources.
pub(super) type Compute = Box<dyn Fn(Type, [&Values; 3], &mut Values) + Send + Sync>;

fn each(compute: impl Fn(Type, [u64; 3]) -> u64 + Send + Sync + 'static) -> Compute {
    Box::new(move |ty, [a, b, c], results| {
        for (((result, &a), &b), &c) in results.iter_mut().zip(a).zip(b).zip(c) {
            *result = compute(ty, [a, b, c]);
        }
    })
}

fn float(value: u64) -> f32 {
    f32::from_bits(value as u32)
}

fn bits(value: f32) -> u64 {
    value.to_bits().into()
}

/// What an instruction computes: chosen once, as it runs millions of times.
pub(super) fn arithmetic(name: &str, ty: Type) -> Compute {
    if ty.float {
        return match name {
            "add" => each(|_, [a, b, _]| bits(float(a) + float(b))),
            "sub" => each(|_, [a, b, _]| bits(float(a) - float(b))),
            "mul.rn" => each(|_, [a, b, _]| bits(float(a) * float(b))),
            "div" => each(|_, [a, b, _]| bits(float(a) / float(b))),
            "rcp" => each(|_, [a, _, _]| bits(1.0 / float(a))),
            "neg" => each(|_, [a, _, _]| bits(-float(a))),
            "abs" => each(|_, [a, _, _]| bits(float(a).abs())),
            "min" => each(|_, [a, b, _]| bits(float(a).min(float(b)))),
            "max" => each(|_, [a, b, _]| bits(float(a).max(float(b)))),
            _ => panic!("{name}.f32 is unknown"),
        };
    }
    match name {
        "add" => each(|_, [a, b, _]| a.wrapping_add(b)),
        "sub" => each(|_, [a, b, _]| a.wrapping_sub(b)),
        "add with carry" => each(|_, [a, b, carry]| a.wrapping_add(b).wrapping_add(carry)),
        "carry" => each(|_, [a, b, carry]| ((u128::from(a) + u128::from(b) + u128::from(carry)) >> 64) as u64),
        "sub with borrow" => each(|_, [a, b, borrow]| a.wrapping_sub(b).wrapping_sub(borrow)),
        "borrow" => each(|_, [a, b, borrow]| (u128::from(a) < u128::from(b) + u128::from(borrow)).into()),
        "mul.lo" => each(|_, [a, b, _]| a.wrapping_mul(b)),
        "mul.wide" => each(|ty, [a, b, _]| ty.extended(a).wrapping_mul(ty.extended(b)) as u64),
        "mul.hi" if ty.signed => {
            each(|ty, [a, b, _]| ((i128::from(ty.extended(a)) * i128::from(ty.extended(b))) >> ty.bits) as u64)
        }
        "mul.hi" => each(|ty, [a, b, _]| ((u128::from(ty.unsigned(a)) * u128::from(ty.unsigned(b))) >> ty.bits) as u64),
        "mad.lo" => each(|_, [a, b, c]| a.wrapping_mul(b).wrapping_add(c)),
        "div" if ty.signed => each(|ty, [a, b, _]| ty.extended(a).wrapping_div(ty.extended(b)) as u64),
        "div" => each(|ty, [a, b, _]| ty.unsigned(a) / ty.unsigned(b)),
        "rem" if ty.signed => each(|ty, [a, b, _]| ty.extended(a).wrapping_rem(ty.extended(b)) as u64),
        "rem" => each(|ty, [a, b, _]| ty.unsigned(a) % ty.unsigned(b)),
        "and" => each(|_, [a, b, _]| a & b),
        "or" => each(|_, [a, b, _]| a | b),
        "xor" => each(|_, [a, b, _]| a ^ b),
        "not" => each(|_, [a, _, _]| !a),
        "neg" => each(|ty, [a, _, _]| ty.extended(a).wrapping_neg() as u64),
        "abs" => each(|ty, [a, _, _]| ty.extended(a).wrapping_abs() as u64),
        // The second word before the first, shifted by the third modulo 32: its low word, or its high one.
        "shf.r.wrap" => each(|ty, [a, b, c]| (ty.unsigned(b) << 32 | ty.unsigned(a)) >> (c & 31) & 0xFFFF_FFFF),
        "shf.l.wrap" => each(|ty, [a, b, c]| (ty.unsigned(b) << 32 | ty.unsigned(a)) << (c & 31) >> 32),
        "shl" => each(|ty, [a, b, _]| ty.unsigned(a).checked_shl((b as u32).min(ty.bits)).unwrap_or(0)),
        "shr" if ty.signed => each(|ty, [a, b, _]| (ty.extended(a) >> (b as u32).min(ty.bits).min(63)) as u64),
        "shr" => each(|ty, [a, b, _]| ty.unsigned(a).checked_shr((b as u32).min(ty.bits)).unwrap_or(0)),
        "min" if ty.signed => each(|ty, [a, b, _]| ty.extended(a).min(ty.extended(b)) as u64),
        "max" if ty.signed => each(|ty, [a, b, _]| ty.extended(a).max(ty.extended(b)) as u64),
        "min" => each(|ty, [a, b, _]| ty.unsigned(a).min(ty.unsigned(b))),
        "max" => each(|ty, [a, b, _]| ty.unsigned(a).max(ty.unsigned(b))),
        "clz" => each(|ty, [a, _, _]| u64::from(ty.unsigned(a).leading_zeros()) - (64 - u64::from(ty.bits))),
        "popc" => each(|ty, [a, _, _]| ty.unsigned(a).count_ones().into()),
        "bfe" if !ty.signed => {
            each(|ty, [a, start, len]| ty.unsigned(a).checked_shr(start as u32).unwrap_or(0) & ((1 << len) - 1))
        }
        "prmt" => each(permute),
        _ => panic!("{name} is unknown for {ty:?}"),
    }
}

/// Four bytes of two words, each named by a digit of the third source.
fn permute(_: Type, [low, high, selectors]: [u64; 3]) -> u64 {
    let bytes = (high << 32 | low & 0xFFFF_FFFF).to_le_bytes();
    let pick = |place: u32| {
        let selector = selectors >> (4 * place) & 15;
        let byte = bytes[selector as usize & 7];
        // The upper bit asks for copies of the sign.
        let byte = if selector < 8 { byte } else { ((byte as i8) >> 7) as u8 };
        u64::from(byte) << (8 * place)
    };
    (0..4).map(pick).sum()
}

/// What a comparison asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relation {
    less: bool,
    equal: bool,
    greater: bool,
    /// Whether it holds of what is no number.
    unordered: bool,
}

impl Relation {
    pub(super) fn parse(name: &str) -> Self {
        let (ordered, unordered) = match name.strip_suffix('u') {
            Some(ordered) => (ordered, true),
            None => (name, name == "nan"),
        };
        let (less, equal, greater) = match ordered {
            "eq" => (false, true, false),
            "ne" => (true, false, true),
            "lt" => (true, false, false),
            "le" => (true, true, false),
            "gt" => (false, false, true),
            "ge" => (false, true, true),
            "nan" => (false, false, false),
            _ => panic!("setp.{name} is unknown"),
        };
        Self { less, equal, greater, unordered }
    }

    pub(super) fn holds(self, ty: Type, left: u64, right: u64) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = if ty.float {
            float(left).partial_cmp(&float(right))
        } else if ty.signed {
            Some(ty.extended(left).cmp(&ty.extended(right)))
        } else {
            Some(ty.unsigned(left).cmp(&ty.unsigned(right)))
        };
        match order {
            Some(Less) => self.less,
            Some(Equal) => self.equal,
            Some(Greater) => self.greater,
            None => self.unordered,
        }
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
