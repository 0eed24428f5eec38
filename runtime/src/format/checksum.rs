//! CRC-32 (IEEE 802.3, reflected, as zip), twice: with a table of 64 bytes for devices, and for hosts and the compiler's
//! interpreter, where the number of steps counts and the size of tables does not, eight bytes at a time (slicing-by-8: Kounavis and Berry,
//! "Novel table lookup-based algorithms for high-performance CRC generation", IEEE Transactions on Computers 57, 2008).

use super::Header;
use super::record::slice_at;

/// Where the checksum stands in the file.
pub(crate) const CHECKSUM_AT: usize = core::mem::offset_of!(Header, checksum);

/// The checksum of a model file: all of it without the checksum field.
pub const fn checksum(bytes: &[u8]) -> u32 {
    if cfg!(feature = "std") { checksum_interpreted(bytes) } else { checksum_in_little_memory(bytes) }
}

const fn checksum_in_little_memory(bytes: &[u8]) -> u32 {
    let [head, tail] = summed(bytes);
    !crc32(crc32(!0, head), tail)
}

/// The same in a tenth of the steps, with much more memory.
pub(crate) const fn checksum_interpreted(bytes: &[u8]) -> u32 {
    let [head, tail] = summed(bytes);
    !crc32_interpreted(crc32_interpreted(!0, head), tail)
}

/// What stands before the checksum field and behind it.
const fn summed(bytes: &[u8]) -> [&[u8]; 2] {
    match bytes.split_at_checked(CHECKSUM_AT) {
        Some((head, tail)) => [head, slice_at(tail, 4, tail.len().saturating_sub(4))],
        None => [bytes, &[]],
    }
}

/// Writes the checksum of a model file into it.
pub fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    if let Some(field) = bytes.get_mut(CHECKSUM_AT..).and_then(|tail| tail.first_chunk_mut()) {
        *field = sum.to_le_bytes();
    }
}

/// The checksum of any bytes: what guards a chunk of external weights.
pub const fn chunk_checksum(bytes: &[u8]) -> u32 {
    !crc32(!0, bytes)
}

/// The remainders of all numbers of `BITS` bits.
const fn remainders<const BITS: u32, const N: usize>() -> [u32; N] {
    let mut table = [0; N];
    let mut i = 0;
    while i < N {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < BITS {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

/// The register after more bytes; it starts as `!0` and is inverted at the end.
pub(crate) const fn crc32(mut crc: u32, bytes: &[u8]) -> u32 {
    const NIBBLE: [u32; 16] = remainders::<4, 16>();
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        crc ^= byte as u32;
        crc = crc >> 4 ^ NIBBLE[(crc & 15) as usize];
        crc = crc >> 4 ^ NIBBLE[(crc & 15) as usize];
        rest = tail;
    }
    crc
}

/// [`crc32`] without a call in its loop.
const fn crc32_interpreted(mut crc: u32, bytes: &[u8]) -> u32 {
    /// Remainders of a byte with so many zero bytes behind it.
    const BYTE: [[u32; 256]; 8] = {
        let mut tables = [remainders::<8, 256>(); 8];
        let mut zeros = 1;
        while zeros < 8 {
            let mut i = 0;
            while i < 256 {
                let before = tables[zeros - 1][i];
                tables[zeros][i] = before >> 8 ^ tables[0][(before & 255) as usize];
                i += 1;
            }
            zeros += 1;
        }
        tables
    };
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &BYTE;
    let mut rest = bytes;
    while let [a, b, c, d, e, f, g, h, tail @ ..] = rest {
        crc = t7[(crc as u8 ^ *a) as usize]
            ^ t6[((crc >> 8) as u8 ^ *b) as usize]
            ^ t5[((crc >> 16) as u8 ^ *c) as usize]
            ^ t4[((crc >> 24) as u8 ^ *d) as usize]
            ^ t3[*e as usize]
            ^ t2[*f as usize]
            ^ t1[*g as usize]
            ^ t0[*h as usize];
        rest = tail;
    }
    crc32(crc, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two agree, wherever they start and end.
    #[test]
    fn both_give_the_same() {
        let bytes: [u8; 300] = core::array::from_fn(|i| (i * i + 31 * i) as u8);
        for start in 0..9 {
            for end in (start..start + 20).chain([bytes.len()]) {
                let part = &bytes[start..end];
                assert_eq!(crc32_interpreted(!0, part), crc32(!0, part), "{start}..{end}");
            }
        }
    }

    /// The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    #[test]
    fn agrees_with_the_published_check_value() {
        assert_eq!(chunk_checksum(b"123456789"), 0xCBF4_3926);
        assert_eq!(chunk_checksum(b""), 0);
    }

    /// Of a file too short for the field, and of longer ones without it.
    #[test]
    fn leaves_its_own_field_out() {
        let bytes: [u8; 64] = core::array::from_fn(|i| (i * i) as u8 | 1);
        for len in 0..=bytes.len() {
            let mut file = bytes;
            let file = &mut file[..len];
            seal(file);
            let mut others = [0; 64];
            let others = &mut others[..len - len.saturating_sub(CHECKSUM_AT).min(4)];
            let head = len.min(CHECKSUM_AT);
            others[..head].copy_from_slice(&bytes[..head]);
            let behind = bytes.get(CHECKSUM_AT + 4..len).unwrap_or(&[]);
            others[head..].copy_from_slice(behind);
            let sum = chunk_checksum(others);
            assert_eq!(
                [checksum(file), checksum_interpreted(file), checksum_in_little_memory(file)],
                [sum; 3],
                "{len}"
            );
            let field = if len < CHECKSUM_AT + 4 { &bytes[head..len] } else { &sum.to_le_bytes() };
            assert_eq!(file[head..len.min(CHECKSUM_AT + 4)], *field, "{len}");
        }
    }
}
