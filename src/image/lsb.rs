//! The bits of samples: where a label and a seal are hidden.
//!
//! Each loop has the shape that the compiler turns into vector code: eight samples are one `u64`. `multiversion` compiles it
//! for AVX-512, AVX2 and the baseline and picks one at run time, so that all of them run at the speed of `memcpy`.

use multiversion::multiversion;

/// Every sample's lowest bit.
const LOWEST: u64 = 0x0101_0101_0101_0101;
/// Bits 0, 9, 18 … 63: spreads the bits of a byte over eight bytes, or gathers them, most significant bit first.
const SPREAD: u64 = 0x8040_2010_0804_0201;

/// Writes `data` into the lowest bits of `samples`, most significant bit first, one bit a sample. Samples past
/// `8 × data.len()` stay as they are; so do the upper seven bits of all of them.
///
/// # Panics
/// If there are fewer than `8 × data.len()` samples.
pub fn embed_bits(samples: &mut [u8], data: &[u8]) {
    assert!(samples.len() / 8 >= data.len(), "the caller has checked the capacity");
    embed_bits_kernel(samples, data);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+bmi2", "x86_64+avx2+bmi2"))]
fn embed_bits_kernel(samples: &mut [u8], data: &[u8]) {
    for (eight, &byte) in samples.as_chunks_mut::<8>().0.iter_mut().zip(data) {
        let bits = (u64::from(byte).wrapping_mul(SPREAD) >> 7) & LOWEST;
        *eight = ((u64::from_le_bytes(*eight) & !LOWEST) | bits).to_le_bytes();
    }
}

/// Reads `data.len()` bytes from the lowest bits of `samples`, the reverse of [`embed_bits`].
///
/// # Panics
/// If there are fewer than `8 × data.len()` samples.
pub fn extract_bits(samples: &[u8], data: &mut [u8]) {
    assert!(samples.len() / 8 >= data.len(), "the caller has checked the capacity");
    extract_bits_kernel(samples, data);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+bmi2", "x86_64+avx2+bmi2"))]
fn extract_bits_kernel(samples: &[u8], data: &mut [u8]) {
    for (eight, byte) in samples.as_chunks::<8>().0.iter().zip(data) {
        *byte = ((u64::from_le_bytes(*eight) & LOWEST).wrapping_mul(SPREAD) >> 56) as u8;
    }
}

/// The upper four bits of every sample of a seal's data area: nearly black.
pub const DATA_AREA: u8 = 0x20;

/// Writes `data` as samples of a seal's data area, four bits each, upper half of a byte first.
///
/// # Panics
/// If there are not exactly `2 × data.len()` samples, or if `data.len()` is no multiple of 4.
pub fn write_nibbles(samples: &mut [u8], data: &[u8]) {
    assert!(samples.len() == 2 * data.len() && data.len().is_multiple_of(4), "rows are whole groups of eight samples");
    write_nibbles_kernel(samples, data);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+bmi2", "x86_64+avx2+bmi2"))]
fn write_nibbles_kernel(samples: &mut [u8], data: &[u8]) {
    for (eight, four) in samples.as_chunks_mut::<8>().0.iter_mut().zip(data.as_chunks::<4>().0) {
        let mut spread = u64::from(u32::from_le_bytes(*four));
        spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
        spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
        spread = (spread >> 4 | spread << 8) & 0x0f0f_0f0f_0f0f_0f0f;
        *eight = (spread | u64::from_ne_bytes([DATA_AREA; 8])).to_le_bytes();
    }
}

/// Reads the lower four bits of each sample, the reverse of [`write_nibbles`]; the upper four may be anything.
///
/// # Panics
/// If there are not exactly `2 × data.len()` samples, or if `data.len()` is no multiple of 4.
pub fn read_nibbles(samples: &[u8], data: &mut [u8]) {
    assert!(samples.len() == 2 * data.len() && data.len().is_multiple_of(4), "rows are whole groups of eight samples");
    read_nibbles_kernel(samples, data);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+bmi2", "x86_64+avx2+bmi2"))]
fn read_nibbles_kernel(samples: &[u8], data: &mut [u8]) {
    for (eight, four) in samples.as_chunks::<8>().0.iter().zip(data.as_chunks_mut::<4>().0) {
        let nibbles = u64::from_le_bytes(*eight) & 0x0f0f_0f0f_0f0f_0f0f;
        let mut packed = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
        packed = (packed | packed >> 8) & 0x0000_ffff_0000_ffff;
        packed |= packed >> 16;
        *four = (packed as u32).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ from one another, the same in every run.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn bits_go_most_significant_first_and_touch_nothing_else() {
        let before = bytes(8 * 37 + 5);
        let data = bytes(37);
        let mut samples = before.clone();
        embed_bits(&mut samples, &data);
        for (index, (&new, &old)) in samples.iter().zip(&before).enumerate() {
            let bit = data.get(index / 8).map_or(old & 1, |byte| byte >> (7 - index % 8) & 1);
            assert_eq!(new, old & 0xfe | bit, "sample {index}");
        }
        let mut back = vec![0; 37];
        extract_bits(&samples, &mut back);
        assert_eq!(back, data);
    }

    #[test]
    fn the_documented_8_by_8_example_holds() {
        let mut samples = [0x80; 64];
        embed_bits(&mut samples, &[0, 0, 0, 3, b'{', b'}', b'x']);
        let rows: Vec<String> =
            samples.chunks(8).map(|row| row.iter().map(|sample| char::from(b'0' + (sample & 1))).collect()).collect();
        let expected = ["00000000", "00000000", "00000000", "00000011", "01111011", "01111101", "01111000", "00000000"];
        assert_eq!(rows, expected);
    }

    #[test]
    fn nibbles_go_upper_half_first_and_come_back_whatever_is_above_them() {
        let data = bytes(4 * 41);
        let mut samples = vec![0xff; 2 * data.len()];
        write_nibbles(&mut samples, &data);
        for (pair, byte) in samples.chunks(2).zip(&data) {
            assert_eq!(pair, [0x20 | byte >> 4, 0x20 | byte & 15]);
        }
        samples.iter_mut().enumerate().for_each(|(index, sample)| *sample ^= (index as u8) << 4);
        let mut back = vec![0; data.len()];
        read_nibbles(&samples, &mut back);
        assert_eq!(back, data);
    }
}
