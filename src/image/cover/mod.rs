//! The picture that everybody sees: a banner above the data area of a sealed picture.

mod draw;
pub(crate) mod recognise;

use std::sync::{Arc, OnceLock};

use ::image::imageops::{FilterType, resize};
use ::image::{DynamicImage, ImageBuffer, RgbImage};

use crate::image::carrier::{WIDTHS, locator};
use crate::image::cover::draw::{Drawing, GROUND};
use crate::image::decode::decode;
use crate::image::error::ImageError;
use crate::image::limits::Limits;
use crate::image::lsb::write_nibbles;
use crate::image::png::encode::{Compressor, EMPTY_STORED};
use crate::image::png::sink::Sink;
use crate::image::probe::probe;
use crate::image::scratch::Scratch;

/// A cover: the Access Denied banner, or a picture of the user's. A banner is compressed once for each size and then kept, so a
/// clone shares its work.
#[derive(Clone, Debug)]
pub struct Cover(Arc<Source>);

#[derive(Debug)]
struct Source {
    /// The user's picture; none for the drawn banner.
    picture: Option<RgbImage>,
    banners: [OnceLock<Banner>; WIDTHS.len()],
}

/// A banner as it goes into a file.
#[derive(Debug)]
pub(crate) struct Banner {
    pub rows: u32,
    /// Its chunks. The stream in them begins with its head and stands at a whole byte behind them.
    pub chunks: Vec<u8>,
    /// Check sum of its rows.
    pub check_sum: u32,
}

/// The user's picture is kept at this width at most. Wider banners repeat its pixels, which costs next to nothing in a file.
const KEPT_WIDTH: u32 = 2048;

impl Cover {
    /// The banner that the project draws: a padlock and the words ACCESS DENIED.
    pub fn access_denied() -> Cover {
        static DRAWN: OnceLock<Cover> = OnceLock::new();
        DRAWN.get_or_init(|| Cover::of(None)).clone()
    }

    /// A picture in place of the banner, fitted into twice as wide as high; where it is transparent the ground shows.
    ///
    /// # Errors
    /// As [`probe`], and what the decoder finds damaged.
    pub fn from_file(file: &[u8], limits: &Limits) -> Result<Cover, ImageError> {
        limits.check_original(file.len())?;
        let probed = probe(file, limits)?;
        let decoded = decode(file, &probed, limits, &mut Scratch::new(0))?;
        let channels = usize::from(decoded.channels);
        let rgb = decoded.samples.chunks_exact(channels).flat_map(|pixel| {
            let alpha = if channels.is_multiple_of(2) { u32::from(pixel[channels - 1]) } else { 255 };
            let colour = if channels < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] };
            let over =
                |index: usize| (u32::from(colour[index]) * alpha + u32::from(GROUND[index]) * (255 - alpha)) / 255;
            [over(0) as u8, over(1) as u8, over(2) as u8]
        });
        let picture: RgbImage = ImageBuffer::from_raw(decoded.width, decoded.height, rgb.collect())
            .expect("three samples were made of each pixel");
        let longest = picture.width().max(picture.height());
        if longest <= KEPT_WIDTH {
            return Ok(Cover::of(Some(picture)));
        }
        let smaller = DynamicImage::from(picture).resize(KEPT_WIDTH, KEPT_WIDTH, FilterType::Triangle);
        Ok(Cover::of(Some(smaller.into_rgb8())))
    }

    fn of(picture: Option<RgbImage>) -> Cover {
        Cover(Arc::new(Source { picture, banners: std::array::from_fn(|_| OnceLock::new()) }))
    }

    /// The banner for the width of this number in [`WIDTHS`].
    pub(crate) fn banner(&self, number: usize) -> &Banner {
        self.0.banners[number].get_or_init(|| match &self.0.picture {
            None => {
                let drawing = Drawing::new(WIDTHS[number]);
                compress(WIDTHS[number], WIDTHS[number] / 2, |y, row| drawing.row(y, row))
            }
            Some(picture) => {
                let mut repeats = 1;
                while WIDTHS[number] / repeats > KEPT_WIDTH {
                    repeats *= 2;
                }
                let fitted = fit(picture, WIDTHS[number] / repeats);
                compress(WIDTHS[number], fitted.height() * repeats, |y, row| {
                    let line = fitted.width() as usize * 3;
                    let from = &fitted.as_raw()[(y / repeats) as usize * line..][..line];
                    let blocks = row.chunks_exact_mut(3 * repeats as usize);
                    for (block, pixel) in blocks.zip(from.as_chunks::<3>().0) {
                        block.as_chunks_mut::<3>().0.fill(*pixel);
                    }
                })
            }
        })
    }
}

/// Fits a picture into `width` and half of it; a narrow one stands in the middle of the ground.
fn fit(picture: &RgbImage, width: u32) -> RgbImage {
    let (from_width, from_height) = (u64::from(picture.width()), u64::from(picture.height()));
    let height = (from_height * u64::from(width) / from_width).clamp(8, u64::from(width) / 2);
    let narrow = (from_width * height / from_height).clamp(1, u64::from(width));
    let scaled = resize(picture, narrow as u32, height as u32, FilterType::Triangle);
    let mut fitted = RgbImage::from_pixel(width, height as u32, ::image::Rgb(GROUND));
    ::image::imageops::replace(&mut fitted, &scaled, (i64::from(width) - narrow as i64) / 2, 0);
    fitted
}

/// Compresses a banner whose rows `draw` provides. Its first sixteen samples hide where the data area begins.
fn compress(width: u32, rows: u32, draw: impl Fn(u32, &mut [u8])) -> Banner {
    let line = width as usize * 3;
    let mut scratch = Scratch::new(0);
    // Never touched beyond what is written, so the system gives no memory for the rest.
    let mut sink = Sink::new(vec![0; (line + 64) * rows as usize + 4096]);
    let mut compressor = Compressor::new(line, 3, &mut scratch);
    let (mut above, mut row) = (vec![0; line], vec![0; line]);
    for y in 0..rows {
        draw(y, &mut row);
        if y == 0 {
            let mut hidden = [0; 16];
            write_nibbles(&mut hidden, &locator(rows));
            row.iter_mut().zip(hidden).for_each(|(sample, hidden)| *sample = *sample & 0xf0 | hidden & 0x0f);
        }
        compressor.push(&row, &above, &mut sink);
        std::mem::swap(&mut above, &mut row);
    }
    compressor.flush(&mut sink);
    let chunk = sink.open(b"IDAT");
    sink.put_bits(0, 3);
    sink.align();
    sink.put(&EMPTY_STORED);
    sink.close(chunk);
    let mut chunks = sink.finish();
    chunks.shrink_to_fit();
    Banner { rows, chunks, check_sum: compressor.finish(&mut scratch) }
}
