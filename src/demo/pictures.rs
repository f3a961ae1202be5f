//! What the clients send: eight photo-like pictures made from the seed, or the user's own files.
//!
//! A photograph is smooth gradients, shapes with soft edges and a little noise. The noise matters: without it a PNG would shrink
//! to a hundredth and the run would measure nothing.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, ImageReader, RgbImage};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use thiserror::Error;

/// One picture as it is sent.
#[derive(Clone, Debug)]
pub struct Picture {
    /// File name.
    pub name: String,
    /// `jpeg`, `png` or `webp`.
    pub format: &'static str,
    /// Width and height in pixels, as stored in the file.
    pub size: (u32, u32),
    /// The file.
    pub bytes: Bytes,
}

/// Why there are no pictures.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The directory cannot be read.
    #[error("cannot read --images {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No file in it is a picture.
    #[error(
        "--images {path} holds no PNG, JPEG or WebP picture ({skipped} other files); name a directory with pictures in it"
    )]
    Empty {
        /// The directory.
        path: PathBuf,
        /// Files that were not pictures.
        skipped: usize,
    },
    /// More than is kept in memory.
    #[error("the pictures in --images {path} take more than {} MiB; use fewer or smaller ones", TOTAL_LIMIT_BYTES >> 20)]
    TooMuch {
        /// The directory.
        path: PathBuf,
    },
    /// The encoder failed, which only a fault of the program can cause.
    #[error("cannot make the demo's pictures: {0}")]
    Encoding(#[from] image::ImageError),
}

/// Pictures are kept in memory during the run; more than this is refused.
const TOTAL_LIMIT_BYTES: u64 = 1 << 30;

/// Formats and sizes of the made pictures: the ones that phones, screens and web pages produce.
const MADE: [(ImageFormat, u32, u32); 8] = [
    (ImageFormat::Jpeg, 640, 480),
    (ImageFormat::Png, 640, 480),
    (ImageFormat::Jpeg, 1024, 768),
    (ImageFormat::Png, 800, 600),
    (ImageFormat::Jpeg, 1280, 720),
    (ImageFormat::Png, 1024, 768),
    (ImageFormat::Jpeg, 1600, 1200),
    (ImageFormat::Jpeg, 1920, 1080),
];

/// Makes the eight pictures of a seed.
///
/// # Errors
/// [`PictureError::Encoding`] only.
pub fn make(seed: u64) -> Result<Vec<Picture>, PictureError> {
    let mut generator = Xoshiro256PlusPlus::seed_from_u64(seed);
    let made = MADE.iter().enumerate();
    made.map(|(number, (format, width, height))| {
        let image = paint(*width, *height, &mut generator);
        let mut file = Cursor::new(Vec::new());
        let (format, extension) = match format {
            ImageFormat::Jpeg => {
                image.write_with_encoder(JpegEncoder::new_with_quality(&mut file, 94))?;
                ("jpeg", "jpg")
            }
            _ => {
                image.write_to(&mut file, ImageFormat::Png)?;
                ("png", "png")
            }
        };
        Ok(Picture {
            name: format!("demo-{}.{extension}", number + 1),
            format,
            size: (*width, *height),
            bytes: file.into_inner().into(),
        })
    })
    .collect()
}

/// A soft disc: a hill, a sun, a face.
struct Disc {
    x: f32,
    y: f32,
    radius: f32,
    colour: [f32; 3],
}

fn paint(width: u32, height: u32, generator: &mut Xoshiro256PlusPlus) -> RgbImage {
    let mut colour = |darkest: f32, lightest: f32| [(); 3].map(|()| generator.random_range(darkest..lightest));
    let corners = [colour(90.0, 240.0), colour(90.0, 240.0), colour(20.0, 160.0), colour(20.0, 160.0)];
    let colours: Vec<[f32; 3]> = (0..12).map(|_| colour(10.0, 245.0)).collect();
    let (width_f, height_f) = (width as f32, height as f32);
    let discs: Vec<Disc> = colours
        .into_iter()
        .map(|colour| Disc {
            x: generator.random_range(0.0..width_f),
            y: generator.random_range(0.0..height_f),
            radius: generator.random_range(0.05..0.3) * height_f,
            colour,
        })
        .collect();
    let waves: Vec<(f32, f32, f32)> = (0..4)
        .map(|_| {
            let direction = generator.random_range(0.0..std::f32::consts::TAU);
            let length = generator.random_range(6.0..60.0);
            (direction.cos() / length, direction.sin() / length, generator.random_range(1.0..5.0))
        })
        .collect();
    let mut noise = vec![0u8; width as usize * height as usize];
    generator.fill_bytes(&mut noise);

    let mut pixels = Vec::with_capacity(noise.len() * 3);
    for (position, grain) in noise.iter().enumerate() {
        let x = (position % width as usize) as f32;
        let y = (position / width as usize) as f32;
        let (across, down) = (x / width_f, y / height_f);
        let texture: f32 =
            waves.iter().map(|(along_x, along_y, height)| (x * along_x + y * along_y).sin() * height).sum();
        let mut pixel = [0.0; 3];
        for (channel, value) in pixel.iter_mut().enumerate() {
            let top = corners[0][channel] * (1.0 - across) + corners[1][channel] * across;
            let bottom = corners[2][channel] * (1.0 - across) + corners[3][channel] * across;
            *value = top * (1.0 - down) + bottom * down + texture;
        }
        for disc in &discs {
            let distance = ((x - disc.x).powi(2) + (y - disc.y).powi(2)).sqrt();
            // Full inside, nothing outside, soft over the last fiftieth of the height.
            let cover = ((disc.radius - distance) / (height_f / 50.0)).clamp(0.0, 1.0) * 0.85;
            if cover > 0.0 {
                for (value, colour) in pixel.iter_mut().zip(disc.colour) {
                    *value = *value * (1.0 - cover) + (colour + texture) * cover;
                }
            }
        }
        // Fine texture and the sensor's noise: a grain of brightness from −5 to 5, a triangle because two draws are added.
        let brightness = (f32::from(grain & 15) + f32::from(grain >> 4)) / 3.0 - 5.0;
        pixels.extend(pixel.map(|value| (value + brightness).round().clamp(0.0, 255.0) as u8));
    }
    RgbImage::from_raw(width, height, pixels).expect("three samples were pushed for every pixel")
}

/// The user's own pictures.
#[derive(Debug)]
pub struct OwnPictures {
    /// The pictures, by name.
    pub pictures: Vec<Picture>,
    /// Files that are none, by name.
    pub skipped: Vec<String>,
}

/// Room for the label that the demo writes, in bytes.
pub const LABEL_ROOM_BYTES: u64 = 64;

/// Loads every picture file that lies directly in `directory` and can hold a label of `room` bytes; the content decides, not
/// the name.
///
/// # Errors
/// An unreadable directory, no picture in it, or more than fits in memory.
pub fn load(directory: &Path, room: u64) -> Result<OwnPictures, PictureError> {
    let unreadable = |source| PictureError::Directory { path: directory.to_owned(), source };
    let mut paths = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
        .map_err(unreadable)?;
    paths.sort();
    let mut own = OwnPictures { pictures: Vec::new(), skipped: Vec::new() };
    let mut total_bytes = 0;
    for path in paths.into_iter().filter(|path| path.is_file()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        total_bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if total_bytes > TOTAL_LIMIT_BYTES {
            return Err(PictureError::TooMuch { path: directory.to_owned() });
        }
        match read(&path) {
            Some((format, size, bytes)) if has_room(&bytes, room) => {
                own.pictures.push(Picture { name, format, size, bytes: bytes.into() });
            }
            Some(_) | None => own.skipped.push(name),
        }
    }
    if own.pictures.is_empty() {
        return Err(PictureError::Empty { path: directory.to_owned(), skipped: own.skipped.len() });
    }
    Ok(own)
}

fn has_room(file: &[u8], room: u64) -> bool {
    room == 0
        || crate::image::capacity(file, &crate::image::Limits::default())
            .is_ok_and(|capacity| capacity.label_bytes >= room)
}

fn read(path: &Path) -> Option<(&'static str, (u32, u32), Vec<u8>)> {
    let bytes = fs::read(path).ok()?;
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format().ok()?;
    let format = match reader.format()? {
        ImageFormat::Png => "png",
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::WebP => "webp",
        _ => return None,
    };
    let size = reader.into_dimensions().ok()?;
    Some((format, size, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_made_pictures_follow_the_seed_decode_and_have_the_sizes_of_photographs() {
        let pictures = make(42).unwrap();
        assert_eq!(pictures.len(), 8);
        for (picture, again) in pictures.iter().zip(make(42).unwrap()) {
            assert!(picture.bytes == again.bytes, "{} differs between two runs of one seed", picture.name);
            let decoded = image::load_from_memory(&picture.bytes).unwrap();
            assert_eq!((decoded.width(), decoded.height()), picture.size);
            let kib = picture.bytes.len() >> 10;
            let expected = if picture.format == "jpeg" { 60..=420 } else { 200..=1536 };
            assert!(expected.contains(&kib), "{} {}: {kib} KiB", picture.name, picture.format);
        }
        assert!(make(43).unwrap()[0].bytes != pictures[0].bytes);
    }

    #[test]
    fn the_users_own_pictures_are_known_by_their_content_and_the_rest_is_skipped_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let picture = &make(1).unwrap()[0];
        fs::write(directory.path().join("holiday.dat"), &picture.bytes).unwrap();
        fs::write(directory.path().join("notes.png"), "no picture at all").unwrap();
        fs::create_dir(directory.path().join("more")).unwrap();
        let own = load(directory.path(), 0).unwrap();
        assert_eq!(own.pictures.len(), 1);
        assert_eq!((own.pictures[0].format, own.pictures[0].size), ("jpeg", (640, 480)));
        assert_eq!(own.skipped, ["notes.png"]);
    }

    #[test]
    fn a_directory_without_pictures_or_none_at_all_is_an_error_that_names_the_flag() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("notes.txt"), "x").unwrap();
        for path in [directory.path().to_owned(), directory.path().join("missing")] {
            let error = load(&path, 0).unwrap_err().to_string();
            assert!(error.contains("--images") && error.contains(&path.display().to_string()), "{error}");
        }
    }
}
