//! The bounds of everything that a picture may ask for.

use crate::image::error::ImageError;

/// Limits of the image work; each is checked before memory is allocated for what it bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest original, in bytes.
    pub original_bytes: u64,
    /// The largest sealed file, in bytes. Whatever may be sealed can be opened: a stored seal takes twice the original.
    pub sealed_bytes: u64,
    /// The most pixels of a picture.
    pub pixels: u64,
    /// The longest side of a picture, in pixels.
    pub side: u32,
    /// The longest header of a seal, in bytes.
    pub header_bytes: u32,
    /// The longest JSON of a label, in bytes.
    pub label_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            original_bytes: 64 << 20,
            sealed_bytes: 160 << 20,
            pixels: 100_000_000,
            side: 16_384,
            header_bytes: 16 << 10,
            label_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// The limits of a configuration, which counts in mebibytes and millions of pixels.
    pub fn configured(original_mib: u64, sealed_mib: u64, megapixels: u64, side: u32) -> Self {
        let (original_bytes, sealed_bytes) = (original_mib << 20, sealed_mib << 20);
        Limits { original_bytes, sealed_bytes, pixels: megapixels * 1_000_000, side, ..Limits::default() }
    }

    /// The largest file that may come in or out, sealed, labelled or neither.
    pub fn file_bytes(&self) -> u64 {
        self.original_bytes.max(self.sealed_bytes)
    }

    pub(crate) fn check_original(&self, bytes: usize) -> Result<(), ImageError> {
        check("picture", bytes as u64, self.original_bytes)
    }

    pub(crate) fn check_sealed(&self, bytes: u64) -> Result<(), ImageError> {
        check("sealed file", bytes, self.sealed_bytes)
    }

    /// A labelled picture may be as large as a sealed one: stored, it is as large as its pixels.
    pub(crate) fn check_labelled(&self, bytes: u64) -> Result<(), ImageError> {
        check("labelled picture", bytes, self.file_bytes())
    }

    pub(crate) fn check_pixels(&self, width: u32, height: u32) -> Result<(), ImageError> {
        let too_long = width > self.side || height > self.side;
        if too_long || u64::from(width) * u64::from(height) > self.pixels {
            return Err(ImageError::TooManyPixels { width, height, pixels: self.pixels, side: self.side });
        }
        Ok(())
    }
}

fn check(what: &'static str, have: u64, limit: u64) -> Result<(), ImageError> {
    if have > limit { Err(ImageError::TooLarge { what, have, limit }) } else { Ok(()) }
}
