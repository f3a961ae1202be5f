//! PNG's row filters (ISO/IEC 15948, 9.2), as loops that the compiler turns into vector code.

use multiversion::multiversion;

/// A row filter; the number is the byte that stands before the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Sub = 1,
    Up = 2,
    Paeth = 4,
}

impl Filter {
    /// Writes the filtered `row` to `out`. `above` is the row before it, `pixel` the bytes of a pixel.
    pub fn apply(self, row: &[u8], above: &[u8], pixel: usize, out: &mut [u8]) {
        let pixel = pixel.min(row.len());
        match self {
            Filter::Sub => {
                out[..pixel].copy_from_slice(&row[..pixel]);
                subtract(&row[pixel..], &row[..row.len() - pixel], &mut out[pixel..]);
            }
            Filter::Up => subtract(row, above, out),
            Filter::Paeth => {
                subtract(&row[..pixel], &above[..pixel], &mut out[..pixel]);
                let before = row.len() - pixel;
                paeth(&row[pixel..], &row[..before], &above[pixel..], &above[..before], &mut out[pixel..]);
            }
        }
    }

    /// The filter that makes this row cheapest to encode, by the usual estimate: the smallest sum of absolute values.
    pub fn choose(row: &[u8], above: &[u8], pixel: usize, out: &mut [u8]) -> Filter {
        let cost = |filter: &Filter| {
            filter.apply(row, above, pixel, out);
            sum_of_magnitudes(out)
        };
        [Filter::Up, Filter::Paeth, Filter::Sub].into_iter().min_by_key(cost).unwrap_or(Filter::Up)
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+bmi2", "x86_64+avx2+bmi2"))]
fn subtract(row: &[u8], other: &[u8], out: &mut [u8]) {
    for ((out, &byte), &other) in out.iter_mut().zip(row).zip(other) {
        *out = byte.wrapping_sub(other);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+bmi2", "x86_64+avx2+bmi2"))]
fn paeth(row: &[u8], left: &[u8], above: &[u8], corner: &[u8], out: &mut [u8]) {
    for ((((out, &byte), &left), &above), &corner) in out.iter_mut().zip(row).zip(left).zip(above).zip(corner) {
        let (a, b, c) = (i16::from(left), i16::from(above), i16::from(corner));
        let (to_left, to_above, to_corner) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
        let other = if to_above <= to_corner { above } else { corner };
        let predicted = if to_left <= to_above && to_left <= to_corner { left } else { other };
        *out = byte.wrapping_sub(predicted);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+bmi2", "x86_64+avx2+bmi2"))]
fn sum_of_magnitudes(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    for &byte in bytes {
        sum += u32::from((byte as i8).unsigned_abs());
    }
    sum
}
