//! Quotients and roots of 64 bits from divisions of words.

/// `⌊n/d⌋`, 0 for `d = 0`.
// Out of line, as there is more than one caller; GPU kernels call nothing.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
#[cfg_attr(not(target_arch = "nvptx64"), inline(never))]
pub const fn divide(n: u64, d: u32) -> u64 {
    // As counts of elements often are.
    if d.is_power_of_two() {
        return n >> d.trailing_zeros();
    }
    if cfg!(any(target_arch = "arm", target_arch = "riscv32")) {
        return divide_words(n, d);
    }
    match n.checked_div(d as u64) {
        Some(quotient) => quotient,
        None => 0,
    }
}

/// The same by divisions of words (Knuth, 1997, section 4.3.1, algorithm D): processors of 32 bits have no others, and that of
/// the compiler's library takes more code and more time.
const fn divide_words(n: u64, d: u32) -> u64 {
    let Some(first) = ((n >> 32) as u32).checked_div(d) else { return 0 };
    let rest = ((n >> 32) as u32).wrapping_sub(first.wrapping_mul(d));
    // The rest is below the divisor, so that nothing is shifted out.
    let shift = d.leading_zeros();
    let (n, d) = (((rest as u64) << 32 | n & 0xFFFF_FFFF) << shift, d << shift);
    let (second, rest) = divide_digit((n >> 32) as u32, (n >> 16) as u32 & 0xFFFF, d);
    let (third, _) = divide_digit(rest, n as u32 & 0xFFFF, d);
    (first as u64) << 32 | (second << 16 | third) as u64
}

/// Quotient and rest of `rest·2¹⁶ + next` by `d`, which is at least 2³¹ and more than `rest`; `next` has 16 bits.
const fn divide_digit(rest: u32, next: u32, d: u32) -> (u32, u32) {
    let (high, low) = (d >> 16, d & 0xFFFF);
    // From the upper half of the divisor: at most two too many.
    let mut digit = match rest.checked_div(high) {
        Some(digit) => digit,
        None => 0,
    };
    let mut left = rest.wrapping_sub(digit.wrapping_mul(high));
    while left < 1 << 16 && (digit >= 1 << 16 || digit.wrapping_mul(low) > left << 16 | next) {
        (digit, left) = (digit.wrapping_sub(1), left.wrapping_add(high));
    }
    (digit, (rest << 16 | next).wrapping_sub(digit.wrapping_mul(d)))
}

/// `n/d` rounded to zero, 0 for `d = 0`.
pub const fn divide_signed(n: i64, d: u32) -> i64 {
    let magnitude = divide(n.unsigned_abs(), d) as i64;
    if n < 0 { magnitude.wrapping_neg() } else { magnitude }
}

/// `⌊√v⌋`: the upper half of its bits one by one, the lower half by a division (Zimmermann, 1999, "Karatsuba square root").
pub const fn isqrt(v: u64) -> u32 {
    if v == 0 {
        return 0;
    }
    // An even left shift brings v into [2⁶², 2⁶⁴), its root into [2³¹, 2³²).
    let even = v.leading_zeros() & !1;
    let v = v << even;
    let (mut rest, mut root, mut bit) = ((v >> 32) as u32, 0u32, 1u32 << 30);
    while bit != 0 {
        let trial = root.wrapping_add(bit);
        root >>= 1;
        if rest >= trial {
            rest -= trial;
            root = root.wrapping_add(bit);
        }
        bit >>= 2;
    }
    // v is root²·2³² + rest·2³² + low; the rest is at most twice the root. Halves of both sides of the division fit 32 bits.
    let next = (v >> 16) as u32 & 0xFFFF;
    let half = rest << 15 | next >> 1;
    let digit = match half.checked_div(root) {
        Some(digit) => digit,
        None => 0,
    };
    let left = (half.wrapping_sub(digit.wrapping_mul(root)) as u64) << 1 | (next & 1) as u64;
    let is_above = left << 16 | v & 0xFFFF;
    let root = (root << 16).wrapping_add(digit).wrapping_sub((is_above < digit as u64 * digit as u64) as u32);
    root >> (even / 2)
}

#[cfg(test)]
mod tests {
    use super::{divide, divide_signed, divide_words, isqrt};
    use crate::noise::philox;

    /// Numbers with their first bits at every place, and those beside powers of two.
    fn numbers() -> impl Iterator<Item = u64> {
        let random = (0..1000).map(|i| {
            let [high, low, by, _] = philox([i, 1], [0; 4]);
            (u64::from(high) << 32 | u64::from(low)) >> (by % 64)
        });
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1, !0 << bit]);
        edges.chain([0, u64::MAX]).chain(random)
    }

    #[test]
    fn quotients_are_those_of_long_division() {
        let divisors = || numbers().step_by(3).map(|d| d as u32).chain([0x8000_FFFF, 0x8000_0001, 0xFFFF, 0x1_0001]);
        for (n, d) in numbers().flat_map(|n| divisors().map(move |d| (n, d))) {
            let expected = n.checked_div(d.into()).unwrap_or(0);
            assert_eq!([divide(n, d), divide_words(n, d)], [expected; 2], "{n} / {d}");
            assert_eq!(divide_signed(n as i64, d), (n as i64).checked_div(d.into()).unwrap_or(0), "{n} / {d}");
        }
    }

    #[test]
    fn roots_are_those_of_the_library() {
        // Squares, and the digits of roots at their limits.
        let squares = || numbers().map(|n| u64::from(n as u32).pow(2));
        for v in numbers().chain(squares()).chain(squares().map(|v| v.wrapping_sub(1))) {
            assert_eq!(u64::from(isqrt(v)), v.isqrt(), "{v}");
        }
    }
}
