//! Labels: names and a quota in the lowest bits of the user's own picture. A mark, not a secret; one lossy save removes it.

use serde::Serialize;

use ::image::metadata::Orientation;

use crate::image::decode::{self, Decoded, decode, metadata, png_decoder};
use crate::image::error::ImageError;
use crate::image::limits::Limits;
use crate::image::lsb::{embed_bits, extract_bits};
use crate::image::png::encode::encode;
use crate::image::png::splice::{Spliceable, splice};
use crate::image::png::{Chunk, Chunks};
use crate::image::probe::{Format, Probe, probe};
use crate::image::scratch::Scratch;
use crate::protocol::job::{Label, SealForm};

/// Bytes of the length that stands before a label's JSON.
const LENGTH_BYTES: usize = 4;

/// Memory that [`label()`] will take for this file at most, in bytes: from the header, before anything is allocated. A node takes
/// a permit of this size first.
///
/// # Errors
/// As [`probe`], and [`ImageError::TooLarge`].
pub fn decoded_bytes(file: &[u8], limits: &Limits) -> Result<u64, ImageError> {
    limits.check_original(file.len())?;
    Ok(decode::memory(&probe(file, limits)?, file.len()))
}

/// Writes `label` into the lowest bits of a picture and returns that picture as a PNG.
///
/// A plain PNG (8-bit grey or RGB, not interlaced) keeps its own compression, whatever `form` says: only its first rows are
/// written anew. The rest is checked by its check sums, not decoded.
///
/// # Example
/// An 8 × 8 grey picture has 64 samples. A label's JSON is longer, so the example shows the bits of the 3-byte text `{}x`:
/// length 3 as 32 bits, then 24 bits, row by row, one bit a sample, most significant bit first:
/// ```text
/// row 0   0 0 0 0 0 0 0 0   length, byte 0 = 0
/// row 1   0 0 0 0 0 0 0 0   length, byte 1 = 0
/// row 2   0 0 0 0 0 0 0 0   length, byte 2 = 0
/// row 3   0 0 0 0 0 0 1 1   length, byte 3 = 3
/// row 4   0 1 1 1 1 0 1 1   '{' = 0x7b
/// row 5   0 1 1 1 1 1 0 1   '}' = 0x7d
/// row 6   0 1 1 1 1 0 0 0   'x' = 0x78
/// row 7   – – – – – – – –   as before
/// ```
/// An RGB picture of 8 × 8 has 192 samples, R G B R G B … of each row, room for 20 bytes.
///
/// # Errors
/// As [`probe`]; [`ImageError::Animated`], [`ImageError::LabelTooLong`], [`ImageError::CarrierTooSmall`], and what the decoder
/// finds damaged.
pub fn label(
    file: &[u8],
    label: &Label,
    limits: &Limits,
    form: SealForm,
    scratch: &mut Scratch,
) -> Result<Vec<u8>, ImageError> {
    let json = serde_json::to_vec(label).expect("names and a number have no way to fail");
    let (have, limit) = (json.len() as u64, u64::from(limits.label_bytes));
    if have > limit {
        return Err(ImageError::LabelTooLong { have, limit });
    }
    let probe = still_picture(file, limits)?;
    // Refuse before decoding what no transparency can make fit, and what nobody could read again.
    let samples = u64::from(probe.width) * u64::from(probe.height) * u64::from(colour_samples(probe.channels));
    check_fits(&json, samples)?;
    if form == SealForm::Stored {
        limits.check_labelled(samples)?;
    }
    let message = message(&json);
    if let Some(written) = spliced(file, &probe, &message, scratch) {
        return Ok(written);
    }
    let mut decoded = decode(file, &probe, limits, scratch)?;
    let embedded = embed(&mut decoded, &json);
    let written = embedded.map(|()| encode(decoded.picture(), &decoded.colour_chunks, form, scratch));
    scratch.give_back(decoded.samples);
    let written = written?;
    limits.check_labelled(written.len() as u64)?;
    Ok(written)
}

/// What is embedded: the length and the JSON.
fn message(json: &[u8]) -> Vec<u8> {
    [&(json.len() as u32).to_be_bytes(), json].concat()
}

/// Labels a PNG that is stored as it would be written anyway, by changing its first rows only.
fn spliced(file: &[u8], probe: &Probe, message: &[u8], scratch: &mut Scratch) -> Option<Vec<u8>> {
    let is_plain = probe.format == Format::Png && probe.bit_depth == 8 && !probe.palette && !probe.interlaced;
    if !is_plain || probe.channels.is_multiple_of(2) {
        return None;
    }
    let (extra, orientation) = metadata(file);
    if orientation != Orientation::NoTransforms {
        return None;
    }
    let data: Vec<Chunk<'_>> = Chunks::new(file).filter(|chunk| chunk.kind == *b"IDAT").collect();
    if !data.iter().all(Chunk::is_intact) {
        return None;
    }
    let mut stream = scratch.take(data.iter().map(|chunk| chunk.data.len()).sum());
    let mut rest = &mut stream[..];
    for chunk in &data {
        let (now, later) = rest.split_at_mut(chunk.data.len());
        now.copy_from_slice(chunk.data);
        rest = later;
    }
    let (width, height, channels) = (probe.width, probe.height, probe.channels);
    let rows = (8 * message.len()).div_ceil(width as usize * usize::from(channels));
    let png = Spliceable { width, height, channels, stream: &stream, extra: &extra };
    let written = splice(&png, rows, |samples| embed_bits(samples, message), scratch);
    scratch.give_back(stream);
    written
}

/// Reads the label of a PNG picture; decodes only the rows that hold it.
///
/// # Errors
/// As [`probe`]; [`ImageError::NoLabel`] if the samples hold no valid one.
pub fn read_label(png: &[u8], limits: &Limits) -> Result<Label, ImageError> {
    limits.check_labelled(png.len() as u64)?;
    let probe = probe(png, limits)?;
    if probe.format != Format::Png {
        return Err(ImageError::NoLabel);
    }
    let mut samples = Samples::new(png, &probe, limits)?;
    let mut length = [0; LENGTH_BYTES];
    samples.read(&mut length)?;
    let length = u32::from_be_bytes(length);
    // The length is what somebody wrote: it is checked before anything is allocated for it.
    let most = u64::from(probe.width) * u64::from(probe.height) * u64::from(colour_samples(probe.channels)) / 8;
    if length > limits.label_bytes || u64::from(length) + LENGTH_BYTES as u64 > most {
        return Err(ImageError::NoLabel);
    }
    let mut json = vec![0; length as usize];
    samples.read(&mut json)?;
    serde_json::from_slice(&json).map_err(|_| ImageError::NoLabel)
}

/// What a picture can carry as a label, and what labelling makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// The longest JSON that fits, in bytes; at most [`Limits::label_bytes`].
    pub label_bytes: u64,
    /// Format of the file.
    pub format: Format,
    /// Width of the labelled picture in pixels.
    pub width: u32,
    /// Height of the labelled picture in pixels.
    pub height: u32,
    /// Colour type of the labelled picture: `grey`, `grey+alpha`, `rgb` or `rgb+alpha`, 8 bits a sample.
    pub colour: &'static str,
    /// What labelling changes in the picture, apart from the lowest bits.
    pub changes: Vec<&'static str>,
}

/// Measures what a picture can carry. Decodes it, since only opaque pixels count.
///
/// # Errors
/// As [`label()`].
pub fn capacity(file: &[u8], limits: &Limits) -> Result<Capacity, ImageError> {
    let probe = still_picture(file, limits)?;
    let decoded = decode(file, &probe, limits, &mut Scratch::new(0))?;
    let rules = [
        (probe.bit_depth > 8, "samples of 16 bits keep their upper 8"),
        (probe.bit_depth < 8 && !probe.palette, "samples of fewer than 8 bits become 8"),
        (probe.palette, "the palette is expanded to rgb"),
        (probe.format == Format::Png && probe.interlaced, "interlacing is removed"),
        (probe.format != Format::Png, "the picture is written as png"),
        (decoded.rotated, "the picture is turned as its exif data says"),
        (decoded.channels.is_multiple_of(2), "pixels that are not opaque carry nothing"),
    ];
    Ok(Capacity {
        label_bytes: (usable_samples(&decoded) / 8)
            .saturating_sub(LENGTH_BYTES as u64)
            .min(u64::from(limits.label_bytes)),
        format: probe.format,
        width: decoded.width,
        height: decoded.height,
        colour: ["grey", "grey+alpha", "rgb", "rgb+alpha"][usize::from(decoded.channels) - 1],
        changes: rules.into_iter().filter_map(|(applies, rule)| applies.then_some(rule)).collect(),
    })
}

/// Probes a picture of one frame.
fn still_picture(file: &[u8], limits: &Limits) -> Result<Probe, ImageError> {
    limits.check_original(file.len())?;
    let probe = probe(file, limits)?;
    if probe.animated { Err(ImageError::Animated { format: probe.format }) } else { Ok(probe) }
}

/// Samples of a pixel that are not alpha.
const fn colour_samples(channels: u8) -> u8 {
    channels - (channels + 1) % 2
}

fn usable_samples(decoded: &Decoded) -> u64 {
    let channels = usize::from(decoded.channels);
    if channels % 2 == 1 {
        return decoded.samples.len() as u64;
    }
    let opaque = decoded.samples.chunks_exact(channels).filter(|pixel| pixel[channels - 1] == 255).count();
    opaque as u64 * u64::from(colour_samples(decoded.channels))
}

fn check_fits(json: &[u8], samples: u64) -> Result<(), ImageError> {
    let have_bytes = (samples / 8).saturating_sub(LENGTH_BYTES as u64);
    let need_bytes = json.len() as u64;
    if need_bytes > have_bytes { Err(ImageError::CarrierTooSmall { need_bytes, have_bytes }) } else { Ok(()) }
}

fn embed(decoded: &mut Decoded, json: &[u8]) -> Result<(), ImageError> {
    let message = message(json);
    let channels = usize::from(decoded.channels);
    if channels % 2 == 1 {
        check_fits(json, decoded.samples.len() as u64)?;
        embed_bits(&mut decoded.samples, &message);
        return Ok(());
    }
    check_fits(json, usable_samples(decoded))?;
    let opaque = decoded.samples.chunks_exact_mut(channels).filter(|pixel| pixel[channels - 1] == 255);
    let samples = opaque.flat_map(|pixel| &mut pixel[..channels - 1]);
    let bits = message.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1));
    samples.zip(bits).for_each(|(sample, bit)| *sample = *sample & 0xfe | bit);
    Ok(())
}

/// The usable samples of a PNG, decoded row by row as they are asked for.
struct Samples<'a> {
    reader: png::Reader<std::io::Cursor<&'a [u8]>>,
    gathered: Vec<u8>,
    used: usize,
    interlaced: bool,
    channels: usize,
}

impl<'a> Samples<'a> {
    fn new(png: &'a [u8], probe: &Probe, limits: &Limits) -> Result<Self, ImageError> {
        let reader = png_decoder(png).read_info().map_err(|error| decode::damaged(Format::Png, &error))?;
        let channels = reader.output_color_type().0.samples();
        let mut samples = Samples { reader, gathered: Vec::new(), used: 0, interlaced: probe.interlaced, channels };
        if samples.interlaced {
            // Rows do not come in order: decode them all.
            let decoded = decode(png, probe, limits, &mut Scratch::new(0))?;
            gather(&mut samples.gathered, &decoded.samples, channels);
        }
        Ok(samples)
    }

    /// Fills `data` from the next samples.
    fn read(&mut self, data: &mut [u8]) -> Result<(), ImageError> {
        while self.gathered.len() - self.used < 8 * data.len() {
            if self.interlaced {
                return Err(ImageError::NoLabel);
            }
            match self.reader.next_row() {
                Ok(Some(row)) => gather(&mut self.gathered, row.data(), self.channels),
                Ok(None) => return Err(ImageError::NoLabel),
                Err(error) => return Err(decode::damaged(Format::Png, &error)),
            }
        }
        extract_bits(&self.gathered[self.used..], data);
        self.used += 8 * data.len();
        Ok(())
    }
}

fn gather(gathered: &mut Vec<u8>, row: &[u8], channels: usize) {
    if channels % 2 == 1 {
        gathered.extend_from_slice(row);
    } else {
        let opaque = row.chunks_exact(channels).filter(|pixel| pixel[channels - 1] == 255);
        gathered.extend(opaque.flat_map(|pixel| &pixel[..channels - 1]));
    }
}
