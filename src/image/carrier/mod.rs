//! The picture that carries a seal: a banner, and below it the data, four bits a sample.
//!
//! ```text
//! signature  IHDR (8-bit RGB)  icLS (rows of the banner)
//! IDAT …     the banner, compressed once for each size
//! IDAT …     a segment of the data each: whole rows, at most 64 KiB of samples, either one stored block
//!            or one block of Huffman codes and an empty stored block, so that each begins at a whole byte
//! IDAT       an empty last block and the check sum
//! IEND
//! ```
//! Since segments are independent of one another, the reader decodes four at a time. Any PNG reader sees an ordinary picture.
//! A file that was written anew without loss has other chunks; then the data is found through the *locator*, which stands in
//! the lower halves of the first sixteen samples.

pub(crate) mod read;
mod tables;
pub(crate) mod write;

use crate::image::cover::{Banner, Cover};
use crate::image::error::ImageError;
use crate::image::limits::Limits;
use crate::image::png::encode::LONGEST_STORED;

/// Widths of sealed pictures in pixels: each about √2 times the one before, and multiples of 16, so that a row is a whole number
/// of eight-byte groups.
pub(crate) const WIDTHS: [u32; 11] = [512, 720, 1024, 1440, 2048, 2880, 4096, 5760, 8192, 11_584, 16_384];

/// The chunk that tells our own reader the rows of the banner: ancillary, private, not to be copied by editors.
pub(crate) const LAYOUT_CHUNK: [u8; 4] = *b"icLS";

const LOCATOR: [u8; 4] = *b"ICs1";

/// Eight bytes that say how many rows of banner there are.
pub(crate) fn locator(banner_rows: u32) -> [u8; 8] {
    let [a, b, c, d] = LOCATOR;
    let [e, f, g, h] = banner_rows.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Where things are in a sealed picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub width: u32,
    pub banner_rows: u32,
    pub data_rows: u32,
}

impl Layout {
    /// Bytes of data in a row.
    pub const fn row_bytes(&self) -> usize {
        self.width as usize * 3 / 2
    }

    /// Bytes of a row of samples with its filter byte.
    pub const fn raw_row_bytes(&self) -> usize {
        self.width as usize * 3 + 1
    }

    /// Rows of every segment but the last, which has what is left.
    pub const fn rows_per_segment(&self) -> usize {
        LONGEST_STORED / self.raw_row_bytes()
    }

    /// Bytes of data in every segment but the last.
    pub const fn segment_bytes(&self) -> usize {
        self.rows_per_segment() * self.row_bytes()
    }

    /// Bytes of data in the whole area.
    pub const fn data_bytes(&self) -> usize {
        self.data_rows as usize * self.row_bytes()
    }

    pub const fn height(&self) -> u32 {
        self.banner_rows + self.data_rows
    }
}

/// Chooses the size of the picture for so many bytes: as narrow as leaves the banner a good third of the height, so that the
/// picture reads as a thumbnail.
pub(crate) fn plan<'a>(
    data_bytes: usize,
    cover: &'a Cover,
    limits: &Limits,
) -> Result<(Layout, &'a Banner), ImageError> {
    let pixels = (data_bytes as u64 * 2).div_ceil(3);
    let number = WIDTHS.iter().position(|&width| u64::from(width).pow(2) >= pixels).unwrap_or(WIDTHS.len() - 1);
    let width = WIDTHS[number];
    // Checked before the banner is drawn: it has at most half as many rows as the picture is wide.
    let data_rows = u32::try_from(pixels.div_ceil(u64::from(width))).unwrap_or(u32::MAX).max(1);
    limits.check_pixels(width, data_rows.saturating_add(width / 2))?;
    let banner = cover.banner(number);
    Ok((Layout { width, banner_rows: banner.rows, data_rows }, banner))
}
