//! Sums and sums of squares of a group's channels, and sums of products in 64 bits: `smlad` and `smlald` take two elements of a
//! word at once.

use crate::arch::reference;

/// See [`reference::moments_i8`](crate::arch::reference::moments_i8).
#[inline]
pub(crate) fn moments_i8(values: &[i8], stride: usize, run: usize, zero: i32) -> (i64, u64) {
    reference::moments_i8(values, stride, run, zero)
}

/// See [`reference::moments_i16`](crate::arch::reference::moments_i16).
#[inline]
pub(crate) fn moments_i16(values: &[i16], stride: usize, run: usize, zero: i32) -> (i64, u64) {
    #[cfg(dsp)]
    if let Some(moments) = in_words(values, stride, run, zero) {
        return moments;
    }
    reference::moments_i16(values, stride, run, zero)
}

/// See [`reference::dot_i16`](crate::arch::reference::dot_i16).
#[cfg(feature = "conditioning")]
#[inline]
pub(crate) fn dot_i16(a: &[i16], b: &[i16]) -> i64 {
    let len = a.len().min(b.len());
    let (whole, _) = a.as_chunks::<2>();
    let pairs = whole.iter().zip(b.as_chunks::<2>().0);
    let last = a.get(len & !1..len).unwrap_or_default().iter().zip(b.get(len & !1..).unwrap_or_default());
    let rest = last.fold(0, |sum, (&a, &b)| sum + i64::from(a) * i64::from(b));
    pairs.fold(rest, |sum, (&a, &b)| add_products(sum, bytemuck::cast(a), bytemuck::cast(b)))
}

/// The sum and the products of both halves, as signed numbers.
#[cfg(feature = "conditioning")]
#[inline(always)]
fn add_products(sum: i64, a: u32, b: u32) -> i64 {
    #[cfg(dsp)]
    {
        let (mut low, mut high) = (sum as u32, (sum >> 32) as u32);
        // SAFETY: `smlald` reads and writes these registers alone, and no flags.
        unsafe {
            core::arch::asm!(
                ".cpu cortex-m4",
                "smlald {low}, {high}, {a}, {b}",
                low = inout(reg) low, high = inout(reg) high, a = in(reg) a, b = in(reg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        i64::from(high as i32) << 32 | i64::from(low)
    }
    #[cfg(not(dsp))]
    {
        let half = |word: u32| i64::from(word as u16 as i16);
        sum + half(a) * half(b) + half(a >> 16) * half(b >> 16)
    }
}

/// Elements whose sum fits a word.
#[cfg(dsp)]
const ELEMENTS: usize = 1 << 15;

/// `None` where a pixel's elements are not whole words, or more than a sum of 32 bits holds.
#[cfg(dsp)]
#[inline(never)]
fn in_words(values: &[i16], stride: usize, run: usize, zero: i32) -> Option<(i64, u64)> {
    let pixels = values.len().checked_sub(run)?.checked_div(stride)? + 1;
    let count = pixels.checked_mul(run)?;
    let aligned = values.as_ptr().addr().is_multiple_of(4);
    if !aligned
        || run == 0
        || run % 2 + stride % 2 > 0
        || run > stride
        || count > ELEMENTS
        || zero.unsigned_abs() >> 16 > 0
    {
        return None;
    }
    // SAFETY: there is a pixel at each multiple of the stride, of `run` elements in whole words.
    let (sum, squares) = unsafe {
        let (mut sum, mut squares) = (0, 0);
        add(values.as_ptr().cast(), run / 2, 2 * (stride - run), pixels, &mut sum, &mut squares);
        (i64::from(sum), squares)
    };
    Some(reference::around(zero, count as i64, sum, squares as u64))
}

/// Adds the elements of `pixels` pixels of some words, `behind` bytes apart, and their squares.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn add(
    values: *const u32,
    words: usize,
    behind: usize,
    pixels: usize,
    sum: *mut i32,
    squares: *mut i64,
) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        "push {{r4-r9, lr}}",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        "mov r8, #0x00010001",
        "1:",
        "mov r4, r1",
        "2:",
        "ldr r9, [r0], #4",
        "smlad r5, r9, r8, r5",
        "smlald r6, r7, r9, r9",
        "subs r4, r4, #1",
        "bne 2b",
        "add r0, r0, r2",
        "subs r3, r3, #1",
        "bne 1b",
        "ldrd r0, r1, [sp, #28]",
        "str r5, [r0]",
        "strd r6, r7, [r1]",
        "pop {{r4-r9, pc}}",
    )
}
