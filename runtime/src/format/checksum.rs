//! CRC-32 (IEEE 802.3, reflected, as zip).

use super::Header;
use super::record::slice_at;

/// Where the checksum stands in the file.
pub(crate) const CHECKSUM_AT: usize = core::mem::offset_of!(Header, checksum);

/// The checksum of a model file: all of it without the checksum field.
pub const fn checksum(bytes: &[u8]) -> u32 {
    let (head, tail) = bytes.split_at(if bytes.len() < CHECKSUM_AT { bytes.len() } else { CHECKSUM_AT });
    !crc32(crc32(!0, head), slice_at(tail, 4, tail.len().saturating_sub(4)))
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

/// The register after more bytes; it starts as `!0` and is inverted at the end.
pub(crate) const fn crc32(mut crc: u32, bytes: &[u8]) -> u32 {
    const NIBBLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        crc ^= byte as u32;
        crc = crc >> 4 ^ NIBBLE[(crc & 15) as usize];
        crc = crc >> 4 ^ NIBBLE[(crc & 15) as usize];
        rest = tail;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    #[test]
    fn agrees_with_the_published_check_value() {
        assert_eq!(chunk_checksum(b"123456789"), 0xCBF4_3926);
        assert_eq!(chunk_checksum(b""), 0);
    }

    #[test]
    fn leaves_its_own_field_out() {
        let mut bytes: [u8; 64] = core::array::from_fn(|i| i as u8);
        seal(&mut bytes);
        let sum = checksum(&bytes);
        assert_eq!(bytes[CHECKSUM_AT..CHECKSUM_AT + 4], sum.to_le_bytes());
    }
}
