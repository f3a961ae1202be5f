//! Pictures for `client 1 5`: made from client and request number, so that every run sends the same ones.

use ::image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use ::image::{ExtendedColorType, ImageEncoder, ImageError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// A made picture file.
pub struct Picture {
    pub name: String,
    pub file: Vec<u8>,
}

/// Hills under a sky, with the grain of a photograph: a JPEG for even requests, a PNG for odd ones.
pub fn make(client: u32, request: u32) -> Result<Picture, ImageError> {
    let mut generator = StdRng::seed_from_u64(u64::from(client) << 32 | u64::from(request));
    let sky: [u8; 3] = generator.random();
    let ground: [u8; 3] = generator.random();
    let (waves, phase) = (generator.random_range(1.0..4.0_f32), generator.random_range(0.0..6.0_f32));
    let mut pixels = Vec::with_capacity((WIDTH * HEIGHT * 3) as usize);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let across = x as f32 / WIDTH as f32;
            let horizon = HEIGHT as f32 * (0.55 + 0.15 * (waves * 6.0 * across + phase).sin());
            let colour = if (y as f32) < horizon { sky } else { ground };
            let shade = 0.6 + 0.4 * (y as f32 / HEIGHT as f32);
            let grain: u8 = generator.random_range(0..12);
            pixels.extend(colour.map(|channel| ((f32::from(channel) * shade) as u8).saturating_add(grain)));
        }
    }
    let mut file = Vec::new();
    let extension = if request.is_multiple_of(2) {
        JpegEncoder::new_with_quality(&mut file, 90).encode(&pixels, WIDTH, HEIGHT, ExtendedColorType::Rgb8)?;
        "jpg"
    } else {
        PngEncoder::new(&mut file).write_image(&pixels, WIDTH, HEIGHT, ExtendedColorType::Rgb8)?;
        "png"
    };
    Ok(Picture { name: format!("picture-{client}-{request}.{extension}"), file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_numbers_make_the_same_picture_and_others_another() {
        let picture = |client, request| make(client, request).unwrap().file;
        assert_eq!(picture(1, 1), picture(1, 1));
        assert_ne!(picture(1, 1), picture(2, 1));
        assert_ne!(picture(1, 1), picture(1, 3));
        for request in [1, 2] {
            let decoded = ::image::load_from_memory(&picture(1, request)).unwrap();
            assert_eq!((decoded.width(), decoded.height()), (WIDTH, HEIGHT));
        }
    }
}
