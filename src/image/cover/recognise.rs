//! Whether a picture shows our banner, though it is not sealed: then it is a copy that was changed on its way.
//!
//! The upper part of the picture, twice as wide as high, is averaged over a grid of 64 × 32 cells, as a banner of our own is. What
//! recompression, scaling and a palette do to single pixels hardly moves the mean of a cell. A picture is taken for the banner if its cells
//! rise and fall with ours (their correlation), and are about as bright. Correlation alone would not do: it says nothing of how bright a
//! picture is. Nor would brightness: much of the banner is plain ground, as is a photograph of the night.

use std::ops::Range;

use crate::image::cover::draw::Drawing;
use crate::image::decode::decode;
use crate::image::limits::Limits;
use crate::image::probe::probe;
use crate::image::scratch::Scratch;

const COLUMNS: usize = 64;
const ROWS: usize = 32;
/// Narrower pictures have less than a pixel for each cell.
const NARROWEST: u32 = 96;
/// Above this width our own banner is not drawn wider: whole pixels are then a small part of a cell.
const WIDEST_DRAWN: u32 = 1024;
/// Copies that went through JPEG of quality 30 at a quarter of the size, or through 256 colours, have 0.95 or more; a photograph
/// stays below a half.
const LEAST_CORRELATION: f64 = 0.8;
/// Mean difference of the cells, of 255.
const MOST_DIFFERENCE: f64 = 30.0;

/// Whether a file of any format that is read shows the Access Denied banner. Costs as much as decoding the picture, within the limits
/// of that; what cannot be decoded shows none.
pub(crate) fn shows_banner(file: &[u8], limits: &Limits) -> bool {
    let Ok(probe) = probe(file, limits) else { return false };
    let is_of_shape = probe.width >= NARROWEST && u64::from(probe.height) * 2 + 4 >= u64::from(probe.width);
    if probe.animated || !is_of_shape {
        return false;
    }
    let Ok(picture) = decode(file, &probe, limits, &mut Scratch::new(0)) else { return false };
    let (width, channels) = (picture.width as usize, usize::from(picture.channels));
    if picture.width < NARROWEST {
        return false;
    }
    let line = width * channels;
    let rows = (width / 2).min(picture.height as usize);
    let mut found = Grid::new(width, rows);
    for (y, row) in picture.samples.chunks_exact(line).take(rows).enumerate() {
        found.add(y, row, channels);
    }
    let drawn = picture.width.min(WIDEST_DRAWN);
    let drawing = Drawing::new(drawn);
    let mut expected = Grid::new(drawn as usize, drawn as usize / 2);
    let mut row = vec![0; drawn as usize * 3];
    for y in 0..drawn / 2 {
        drawing.row(y, &mut row);
        expected.add(y as usize, &row, 3);
    }
    is_like(&found.means(), &expected.means())
}

fn is_like(found: &[f64], expected: &[f64]) -> bool {
    let count = found.len() as f64;
    let mean = |cells: &[f64]| cells.iter().sum::<f64>() / count;
    let (mean_found, mean_expected) = (mean(found), mean(expected));
    let (mut both, mut of_found, mut of_expected, mut apart) = (0.0, 0.0, 0.0, 0.0);
    for (found, expected) in found.iter().zip(expected) {
        let (a, b) = (found - mean_found, expected - mean_expected);
        both += a * b;
        of_found += a * a;
        of_expected += b * b;
        apart += (found - expected).abs();
    }
    // A picture of one colour rises and falls with nothing.
    let correlation = both / (of_found * of_expected).sqrt().max(1.0);
    correlation >= LEAST_CORRELATION && apart / count <= MOST_DIFFERENCE
}

/// Sums of brightness over the cells of a picture.
struct Grid {
    width: usize,
    height: usize,
    sums: Vec<u64>,
    pixels: Vec<u64>,
}

impl Grid {
    fn new(width: usize, height: usize) -> Grid {
        Grid { width, height, sums: vec![0; COLUMNS * ROWS], pixels: vec![0; COLUMNS * ROWS] }
    }

    fn add(&mut self, y: usize, row: &[u8], channels: usize) {
        let cells = y * ROWS / self.height * COLUMNS;
        for column in 0..COLUMNS {
            let Range { start, end } = column * self.width / COLUMNS..(column + 1) * self.width / COLUMNS;
            let pixels = row[start * channels..end * channels].chunks_exact(channels);
            self.pixels[cells + column] += (end - start) as u64;
            self.sums[cells + column] += pixels.map(|pixel| u64::from(brightness(pixel))).sum::<u64>();
        }
    }

    fn means(&self) -> Vec<f64> {
        self.sums.iter().zip(&self.pixels).map(|(sum, pixels)| *sum as f64 / (*pixels).max(1) as f64).collect()
    }
}

/// Of 255, as the eye weighs the colours.
fn brightness(pixel: &[u8]) -> u32 {
    match *pixel {
        [red, green, blue, ..] => (77 * u32::from(red) + 150 * u32::from(green) + 29 * u32::from(blue)) / 256,
        [grey, ..] => u32::from(grey),
        [] => 0,
    }
}
