//! Pictures of all formats as 8-bit samples. The rules are those of [`crate::image`].

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::codecs::jpeg::JpegDecoder;
use ::image::codecs::webp::WebPDecoder;
use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageBuffer, ImageDecoder};
use png::Transformations;

use crate::image::error::ImageError;
use crate::image::limits::Limits;
use crate::image::png::Chunks;
use crate::image::png::encode::{Picture, chunk_bound};
use crate::image::png::sink::Sink;
use crate::image::probe::{Format, Probe};
use crate::image::scratch::Scratch;

/// A picture as samples.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub width: u32,
    pub height: u32,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    pub channels: u8,
    pub samples: Vec<u8>,
    /// Chunks of the file that say how its colours are meant, as they go into a PNG.
    pub colour_chunks: Vec<u8>,
    /// Whether the picture was turned as its EXIF data says.
    pub rotated: bool,
}

impl Decoded {
    pub fn picture(&self) -> Picture<'_> {
        Picture { width: self.width, height: self.height, channels: self.channels, samples: &self.samples }
    }
}

/// Memory that decoding, turning and writing a picture takes at most, in bytes, from its header alone.
pub(crate) fn memory(probe: &Probe, file_bytes: usize) -> u64 {
    let pixels = u64::from(probe.width) * u64::from(probe.height);
    // The samples, the written picture, and a turned copy.
    let ours = pixels * u64::from(probe.channels) * 3;
    let decoder = match probe.format {
        // A row or two.
        Format::Png => u64::from(probe.width) * 16,
        // The file is copied; a progressive picture keeps its coefficients, 16 bits each.
        Format::Jpeg if probe.interlaced => pixels * 2 * u64::from(probe.channels) + file_bytes as u64,
        Format::Jpeg => u64::from(probe.width) * 256 + file_bytes as u64,
        Format::WebP => pixels * 4 + 2 * file_bytes as u64,
    };
    ours + decoder + (1 << 20)
}

/// Decodes a picture that was probed.
///
/// # Errors
/// [`ImageError::Damaged`], also if a decoder panics: some have done so on hostile files.
pub(crate) fn decode(
    file: &[u8],
    probe: &Probe,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Decoded, ImageError> {
    // What a panic leaves behind is a buffer fewer in the pool.
    let decoded = catch_unwind(AssertUnwindSafe(|| match probe.format {
        Format::Png => decode_png(file, probe, scratch),
        Format::Jpeg => {
            let decoder = JpegDecoder::new(Cursor::new(file)).map_err(|error| damaged(probe.format, &error))?;
            decode_with(decoder, probe, limits, scratch)
        }
        Format::WebP => {
            let decoder = WebPDecoder::new(Cursor::new(file)).map_err(|error| damaged(probe.format, &error))?;
            decode_with(decoder, probe, limits, scratch)
        }
    }));
    decoded.unwrap_or_else(|_| Err(damaged(probe.format, &"its decoder gave up")))
}

pub(crate) fn damaged(format: Format, reason: &dyn std::fmt::Display) -> ImageError {
    // A decoder's text may have several lines; an error has one.
    let reason = reason.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    ImageError::Damaged { format, reason }
}

/// The PNG decoder with every rule set: palettes and low depths expanded, transparency as an alpha channel, 16 bits cut to 8.
pub(crate) fn png_decoder(file: &[u8]) -> png::Decoder<Cursor<&[u8]>> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: 64 << 20 });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

fn decode_png(file: &[u8], probe: &Probe, scratch: &mut Scratch) -> Result<Decoded, ImageError> {
    let wrong = |error: png::DecodingError| damaged(Format::Png, &error);
    let mut reader = png_decoder(file).read_info().map_err(wrong)?;
    let channels = reader.output_color_type().0.samples() as u8;
    let expected = probe.width as usize * probe.height as usize * usize::from(channels);
    if reader.output_buffer_size() != Some(expected) {
        return Err(damaged(Format::Png, &"its header contradicts itself"));
    }
    let mut samples = scratch.take(expected);
    reader.next_frame(&mut samples).map_err(wrong)?;

    let mut colour_chunks = Vec::new();
    let mut orientation = Orientation::NoTransforms;
    for chunk in Chunks::new(file).filter(|chunk| chunk.is_intact()) {
        match &chunk.kind {
            b"cHRM" | b"gAMA" | b"iCCP" | b"sRGB" | b"cICP" | b"pHYs" => {
                colour_chunks.extend_from_slice(&file[chunk.start - 8..chunk.start + chunk.data.len() + 4]);
            }
            b"eXIf" => orientation = Orientation::from_exif_chunk(chunk.data).unwrap_or(orientation),
            _ => {}
        }
    }
    let decoded =
        Decoded { width: probe.width, height: probe.height, channels, samples, colour_chunks, rotated: false };
    Ok(turn(decoded, orientation))
}

fn decode_with(
    mut decoder: impl ImageDecoder,
    probe: &Probe,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Decoded, ImageError> {
    let wrong = |error: ::image::ImageError| damaged(probe.format, &error);
    let mut bounds = ::image::Limits::no_limits();
    bounds.max_image_width = Some(limits.side);
    bounds.max_image_height = Some(limits.side);
    bounds.max_alloc = Some(memory(probe, 0));
    decoder.set_limits(bounds).map_err(wrong)?;
    let channels = decoder.color_type().channel_count();
    let expected = u64::from(probe.width) * u64::from(probe.height) * u64::from(channels);
    if decoder.dimensions() != (probe.width, probe.height) || decoder.total_bytes() != expected {
        return Err(damaged(probe.format, &"its header contradicts itself"));
    }
    let orientation = decoder.orientation().map_err(wrong)?;
    let profile = decoder.icc_profile().ok().flatten();
    let mut samples = scratch.take(expected as usize);
    decoder.read_image(&mut samples).map_err(wrong)?;
    let colour_chunks = profile.and_then(|profile| profile_chunk(&profile, channels)).unwrap_or_default();
    let decoded =
        Decoded { width: probe.width, height: probe.height, channels, samples, colour_chunks, rotated: false };
    Ok(turn(decoded, orientation))
}

/// A colour profile as an `iCCP` chunk, if it is one for such samples (a CMYK profile is none for RGB).
fn profile_chunk(profile: &[u8], channels: u8) -> Option<Vec<u8>> {
    let space: &[u8] = if channels < 3 { b"GRAY" } else { b"RGB " };
    if profile.get(16..20) != Some(space) {
        return None;
    }
    let blocks = profile.len().div_ceil(65_535);
    let mut sink = Sink::new(vec![0; chunk_bound(profile.len() + 5 * blocks + 64)]);
    let chunk = sink.open(b"iCCP");
    sink.put(b"icc\0\0\x78\x01");
    for (index, block) in profile.chunks(65_535).enumerate() {
        let length = block.len() as u16;
        sink.put(&[u8::from(index + 1 == blocks)]);
        sink.put(&length.to_le_bytes());
        sink.put(&(!length).to_le_bytes());
        sink.put(block);
    }
    sink.put(&simd_adler32::adler32(&profile).to_be_bytes());
    sink.close(chunk);
    Some(sink.finish())
}

fn turn(decoded: Decoded, orientation: Orientation) -> Decoded {
    if orientation == Orientation::NoTransforms {
        return decoded;
    }
    let Decoded { width, height, channels, samples, colour_chunks, .. } = decoded;
    let complete = "decoding has filled as many samples as the dimensions say";
    let mut picture = match channels {
        1 => DynamicImage::ImageLuma8(ImageBuffer::from_raw(width, height, samples).expect(complete)),
        2 => DynamicImage::ImageLumaA8(ImageBuffer::from_raw(width, height, samples).expect(complete)),
        3 => DynamicImage::ImageRgb8(ImageBuffer::from_raw(width, height, samples).expect(complete)),
        _ => DynamicImage::ImageRgba8(ImageBuffer::from_raw(width, height, samples).expect(complete)),
    };
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    let samples = picture.into_bytes();
    Decoded { width, height, channels, samples, colour_chunks, rotated: true }
}
