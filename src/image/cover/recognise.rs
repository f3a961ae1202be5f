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
/// Half-way between the poorest copies and the best likenesses of the tests below.
const LEAST_CORRELATION: f64 = 0.8;
/// Mean difference of the cells, of 255.
const MOST_DIFFERENCE: f64 = 30.0;

/// Whether a file of any format that is read shows the Access Denied banner. Costs as much as decoding the picture, within the limits
/// of that; what cannot be decoded shows none.
pub(crate) fn shows_banner(file: &[u8], limits: &Limits) -> bool {
    likeness(file, limits)
        .is_some_and(|likeness| likeness.correlation >= LEAST_CORRELATION && likeness.difference <= MOST_DIFFERENCE)
}

/// How much a picture is like our banner.
#[derive(Clone, Copy, Debug)]
struct Likeness {
    /// From -1 to 1.
    correlation: f64,
    /// Mean difference of the cells, of 255.
    difference: f64,
}

fn likeness(file: &[u8], limits: &Limits) -> Option<Likeness> {
    let probe = probe(file, limits).ok()?;
    let is_of_shape = probe.width >= NARROWEST && u64::from(probe.height) * 2 + 4 >= u64::from(probe.width);
    if probe.animated || !is_of_shape {
        return None;
    }
    let picture = decode(file, &probe, limits, &mut Scratch::new(0)).ok()?;
    let (width, channels) = (picture.width as usize, usize::from(picture.channels));
    // It may have been turned.
    if picture.width < NARROWEST {
        return None;
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
    Some(compare(&found.means(), &expected.means()))
}

fn compare(found: &[f64], expected: &[f64]) -> Likeness {
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
    Likeness { correlation, difference: apart / count }
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

#[cfg(test)]
mod tests {
    use ::image::codecs::jpeg::JpegEncoder;
    use ::image::imageops::FilterType;
    use ::image::{DynamicImage, Rgb, RgbImage};

    use super::*;
    use crate::image::cover::draw::GROUND;

    /// The banner of this width above as many rows of data.
    fn sealed(width: u32) -> DynamicImage {
        let drawing = Drawing::new(width);
        let mut samples = vec![0; (width * width * 3) as usize];
        for (y, row) in samples.chunks_exact_mut(width as usize * 3).enumerate() {
            match u32::try_from(y).unwrap() {
                y if y < width / 2 => drawing.row(y, row),
                y => row.iter_mut().zip(0u32..).for_each(|(sample, x)| *sample = 0x20 | (x * x + y * 7) as u8 & 15),
            }
        }
        RgbImage::from_raw(width, width, samples).unwrap().into()
    }

    fn jpeg(picture: &DynamicImage, quality: u8) -> Likeness {
        let mut file = Vec::new();
        picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut file, quality)).unwrap();
        likeness(&file, &Limits::default()).unwrap()
    }

    #[test]
    fn the_thresholds_lie_between_poor_copies_and_good_likenesses() {
        let mut poorest = 1f64;
        for width in [512, 720, 1440] {
            for quarters in [1, 2, 3, 4, 6, 8] {
                let side = width * quarters / 4;
                let copy = jpeg(&sealed(width).resize_exact(side, side, FilterType::Nearest), 30);
                println!("{width} x {quarters}/4: {copy:?}");
                poorest = poorest.min(copy.correlation);
                assert!(copy.difference < MOST_DIFFERENCE / 2.0, "{copy:?}");
            }
        }
        let draw = |draw: &dyn Fn(f32, f32) -> [u8; 3]| {
            jpeg(&RgbImage::from_fn(640, 480, |x, y| Rgb(draw(x as f32 / 320.0, y as f32 / 320.0))).into(), 90)
        };
        let inside = |x: f32, y: f32, (left, top): (f32, f32), (right, bottom): (f32, f32)| {
            (left..right).contains(&x) && (top..bottom).contains(&y)
        };
        let (red, white) = ([0xe5, 0x48, 0x4d], [0xf2, 0xf2, 0xf3]);
        let mut best = 0f64;
        for (what, likeness) in [
            ("a red plate", draw(&|x, y| if inside(x, y, (0.82, 0.33), (1.18, 0.58)) { red } else { GROUND })),
            ("a bar of white", draw(&|x, y| if inside(x, y, (0.3, 0.69), (1.7, 0.84)) { white } else { GROUND })),
            ("a dim bar", draw(&|x, y| if inside(x, y, (0.3, 0.69), (1.7, 0.84)) { [110; 3] } else { GROUND })),
            ("nothing", draw(&|_, _| GROUND)),
        ] {
            println!("{what}: {likeness:?}");
            best = best.max(likeness.correlation);
        }
        println!("the poorest copy has {poorest:.3}, the best likeness {best:.3}");
        assert!(poorest > LEAST_CORRELATION + 0.05 && best < LEAST_CORRELATION - 0.05, "{poorest} {best}");
    }

    #[test]
    fn small_flat_and_foreign_files_show_no_banner() {
        let limits = Limits::default();
        let tiny = sealed(512).resize_exact(64, 64, FilterType::Triangle);
        let wide = RgbImage::from_pixel(900, 100, Rgb(GROUND)).into();
        for picture in [tiny, wide] {
            let mut file = Vec::new();
            picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut file, 90)).unwrap();
            assert!(likeness(&file, &limits).is_none());
        }
        assert!(!shows_banner(b"text", &limits));
    }
}
