//! What a file claims to be, read from its header without a decoder and without allocating.

use std::fmt;

use serde::Serialize;

use crate::image::error::ImageError;
use crate::image::limits::Limits;

/// A format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Portable Network Graphics (ISO/IEC 15948).
    Png,
    /// JPEG (ITU-T T.81).
    Jpeg,
    /// WebP (RFC 9649).
    #[serde(rename = "webp")]
    WebP,
}

impl Format {
    /// The media type, as HTTP writes it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::WebP => "image/webp",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::WebP => "WebP",
        })
    }
}

/// What the header of a picture says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The format.
    pub format: Format,
    /// Width in pixels, before any rotation.
    pub width: u32,
    /// Height in pixels, before any rotation.
    pub height: u32,
    /// Samples of a pixel once it is normalised to 8 bits: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    pub channels: u8,
    /// Bits of a sample in the file.
    pub bit_depth: u8,
    /// A PNG of palette type.
    pub palette: bool,
    /// An interlaced PNG or a progressive JPEG.
    pub interlaced: bool,
    /// More than one frame.
    pub animated: bool,
}

/// Reads the header of a picture and checks that its dimensions are within `limits` and that the file reaches its end.
///
/// # Errors
/// [`ImageError::NotAnImage`], [`ImageError::Truncated`], [`ImageError::Damaged`], [`ImageError::TooManyPixels`].
pub fn probe(file: &[u8], limits: &Limits) -> Result<Probe, ImageError> {
    if file.starts_with(&crate::image::png::SIGNATURE) {
        png(file, limits)
    } else if file.starts_with(&[0xff, 0xd8, 0xff]) {
        jpeg(file, limits)
    } else if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WEBP") {
        webp(file, limits)
    } else {
        Err(ImageError::NotAnImage)
    }
}

fn damaged(format: Format, reason: &str) -> ImageError {
    ImageError::Damaged { format, reason: reason.to_owned() }
}

fn checked(probe: Probe, limits: &Limits) -> Result<Probe, ImageError> {
    if probe.width == 0 || probe.height == 0 {
        return Err(damaged(probe.format, "it has no pixels"));
    }
    limits.check_pixels(probe.width, probe.height)?;
    Ok(probe)
}

fn png(file: &[u8], limits: &Limits) -> Result<Probe, ImageError> {
    let cut = ImageError::Truncated { format: Format::Png };
    let mut chunks = crate::image::png::Chunks::new(file);
    let header = chunks.next().ok_or(cut.clone())?;
    let (b"IHDR", &[w0, w1, w2, w3, h0, h1, h2, h3, bit_depth, colour, _, _, interlace]) = (&header.kind, header.data)
    else {
        return Err(damaged(Format::Png, "it does not begin with a header chunk"));
    };
    let channels = match colour {
        0 => 1,
        2 | 3 => 3,
        4 => 2,
        6 => 4,
        _ => return Err(damaged(Format::Png, "unknown colour type")),
    };
    let mut probe = checked(
        Probe {
            format: Format::Png,
            width: u32::from_be_bytes([w0, w1, w2, w3]),
            height: u32::from_be_bytes([h0, h1, h2, h3]),
            channels,
            bit_depth,
            palette: colour == 3,
            interlaced: interlace != 0,
            animated: false,
        },
        limits,
    )?;
    let mut has_data = false;
    for chunk in chunks {
        match &chunk.kind {
            b"IDAT" => has_data = true,
            b"acTL" if !has_data => probe.animated = true,
            // Transparency without an alpha channel: decoding adds the channel.
            b"tRNS" if channels % 2 == 1 => probe.channels = channels + 1,
            b"IEND" if has_data => return Ok(probe),
            _ => {}
        }
    }
    Err(cut)
}

fn jpeg(file: &[u8], limits: &Limits) -> Result<Probe, ImageError> {
    let cut = || ImageError::Truncated { format: Format::Jpeg };
    let mut at = 2;
    let mut frame = None;
    loop {
        let marker = match file.get(at..at + 2).ok_or_else(cut)? {
            [0xff, 0xff] => {
                at += 1;
                continue;
            }
            [0xff, marker] => *marker,
            _ => return Err(damaged(Format::Jpeg, "a marker is missing")),
        };
        at += 2;
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            continue;
        }
        let segment = file.get(at..).unwrap_or_default();
        let [high, low, body @ ..] = segment else { return Err(cut()) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) && frame.is_none() => {
                let &[bit_depth, h0, h1, w0, w1, components, ..] = body else { return Err(cut()) };
                let probe = Probe {
                    format: Format::Jpeg,
                    width: u32::from(u16::from_be_bytes([w0, w1])),
                    height: u32::from(u16::from_be_bytes([h0, h1])),
                    channels: if components == 1 { 1 } else { 3 },
                    bit_depth,
                    palette: false,
                    interlaced: matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce),
                    animated: false,
                };
                frame = Some(checked(probe, limits)?);
            }
            0xda => {
                let probe = frame.ok_or_else(|| damaged(Format::Jpeg, "its scan comes before its header"))?;
                // In entropy-coded data 0xff is followed by 0x00, so this pair can only be the end marker.
                let ends = segment.windows(2).rev().any(|pair| pair == [0xff, 0xd9]);
                return if ends { Ok(probe) } else { Err(cut()) };
            }
            0xd9 => return Err(cut()),
            _ => {}
        }
        if length < 2 {
            return Err(damaged(Format::Jpeg, "a segment has no length"));
        }
        at += length;
    }
}

fn webp(file: &[u8], limits: &Limits) -> Result<Probe, ImageError> {
    let cut = ImageError::Truncated { format: Format::WebP };
    let number = |at: usize| file.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let announced = number(4).ok_or(cut.clone())? as usize;
    let (Some(kind), Some(body)) = (file.get(12..16), file.get(20..30)) else { return Err(cut) };
    if announced.saturating_add(8) > file.len() {
        return Err(cut);
    }
    let u24 = |at: usize| u32::from(body[at]) | u32::from(body[at + 1]) << 8 | u32::from(body[at + 2]) << 16;
    let (width, height, alpha, animated) = match kind {
        b"VP8X" => (u24(4) + 1, u24(7) + 1, body[0] & 0x10 != 0, body[0] & 0x02 != 0),
        b"VP8L" if body[0] == 0x2f => {
            let bits = u32::from_le_bytes([body[1], body[2], body[3], body[4]]);
            ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1, bits >> 28 & 1 == 1, false)
        }
        b"VP8 " if body[3..6] == [0x9d, 0x01, 0x2a] => {
            let side = |at: usize| u32::from(u16::from_le_bytes([body[at], body[at + 1]]) & 0x3fff);
            (side(6), side(8), false, false)
        }
        _ => return Err(damaged(Format::WebP, "its first chunk is no picture")),
    };
    let channels = if alpha { 4 } else { 3 };
    let format = Format::WebP;
    checked(
        Probe { format, width, height, channels, bit_depth: 8, palette: false, interlaced: false, animated },
        limits,
    )
}
