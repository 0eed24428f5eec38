//! One row of activations against many rows, as a query against all keys: three of them share what is loaded.

/// See [`reference::scores_i8`](crate::arch::reference::scores_i8).
#[inline]
pub(crate) fn scores_i8(scores: &mut [i32], query: &[i8], keys: &[i8], stride: usize) {
    #[cfg(dsp)]
    if multiply_in_threes(scores, query, keys, stride).is_some() {
        return;
    }
    crate::arch::reference::scores_i8(scores, query, keys, stride);
}

/// Words of spread activations, of which two hold four.
#[cfg(dsp)]
const WORDS: usize = 32;

/// Rows that are multiplied together.
#[cfg(dsp)]
const ROWS: usize = 3;

/// Elements that a round of the loop takes.
#[cfg(dsp)]
const ROUND: usize = 8;

/// `None` where lengths or addresses are not those that the loop wants.
#[cfg(dsp)]
#[inline(never)]
fn multiply_in_threes(scores: &mut [i32], query: &[i8], keys: &[i8], stride: usize) -> Option<()> {
    let count = scores.len();
    let needed = count.checked_sub(1)?.checked_mul(stride)?.checked_add(query.len())?;
    let whole = query.len().is_multiple_of(ROUND) && !query.is_empty() && query.len() <= 2 * WORDS;
    let aligned = stride.is_multiple_of(4) && keys.as_ptr().addr().is_multiple_of(4);
    if count < ROWS || needed > keys.len() || !whole || !aligned || stride < query.len() {
        return None;
    }
    let mut spread = [0; WORDS];
    let spread = spread.get_mut(..query.len() / 2)?;
    for (pair, &four) in spread.as_chunks_mut().0.iter_mut().zip(query.as_chunks::<4>().0) {
        let word = bytemuck::cast(four);
        *pair = [super::even_bytes(word), super::odd_bytes(word)];
    }
    let spread = spread.as_ptr_range();
    let mut multiply = |first: usize, count: usize| {
        // SAFETY: there are as many scores, and rows of keys at each multiple of the stride, which words may be loaded from;
        // rounds and rows are whole.
        unsafe {
            let sums = scores.as_mut_ptr().add(first);
            multiply_rows(spread.start, spread.end, keys.as_ptr().add(first * stride), stride, sums, sums.add(count));
        }
    };
    multiply(0, count - count % ROWS);
    if !count.is_multiple_of(ROWS) {
        // The last ones, some of them a second time.
        multiply(count - ROWS, ROWS);
    }
    Some(())
}

/// Writes the products of a row, spread, with each of some rows. Eight elements of three rows have 24 products and take 28
/// instructions: a load of activations, and for each row one of elements, 4 `sxtb16` and 4 `smlad`.
#[cfg(dsp)]
#[unsafe(naked)]
unsafe extern "C" fn multiply_rows(
    row: *const u32,
    end: *const u32,
    rows: *const i8,
    stride: usize,
    sums: *mut i32,
    sums_end: *mut i32,
) {
    core::arch::naked_asm!(
        ".cpu cortex-m4",
        row_products!(),
        "push {{r4-r11, lr}}",
        // The unrolled loop is entered where as many rounds are left as there are.
        "subs r5, r1, r0",
        "lsrs r4, r5, #4",
        "negs r4, r4",
        "and r4, r4, #3",
        "movs r7, #112",
        "adr.w r6, 2f",
        "mla r6, r4, r7, r6",
        "adds r6, r6, #1",
        // From the end of a row to the next.
        "sub r4, r3, r5, lsr #1",
        "mov r5, r6",
        // On the stack: row, its end, stride, what lies behind, the entry; then what is saved; then sums and their end.
        "push {{r0, r1, r3, r4, r5}}",
        "subs r3, r2, r4",
        "1:",
        "ldrd r7, r8, [sp, #8]",
        "ldr r0, [sp]",
        "add r1, r3, r8",
        "add r2, r1, r7",
        "add r3, r2, r7",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "ldr pc, [sp, #16]",
        ".p2align 2",
        "2:",
        ".rept 4",
        "ldmia r0!, {{r7-r10}}",
        "waft_row r1, r4",
        "waft_row r2, r5",
        "waft_row r3, r6",
        ".endr",
        "ldr r12, [sp, #4]",
        "cmp r0, r12",
        "bne 2b",
        "ldrd r7, r8, [sp, #56]",
        "stmia r7!, {{r4-r6}}",
        "str r7, [sp, #56]",
        "cmp r7, r8",
        "bne 1b",
        "add sp, sp, #20",
        "pop {{r4-r11, pc}}",
        ".purgem waft_row",
    )
}
