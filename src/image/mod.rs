//! Images: labels and seals. Pure: bytes in, bytes or a typed error out.
//!
//! # What becomes of a picture
//!
//! Sealing keeps the file's bytes as they are, whatever they hold (EXIF data included); only the header is checked. Labelling
//! decodes the picture and writes a PNG of 8-bit samples, not interlaced:
//!
//! | the picture | the rule |
//! |---|---|
//! | 8-bit grey | stays grey: one sample a pixel |
//! | 8-bit RGB | stays RGB |
//! | 16 bits a sample | the upper 8 bits are kept |
//! | grey of 1, 2 or 4 bits | becomes 8-bit grey over the full range |
//! | palette | becomes RGB: the lowest bit of an index would pick another colour |
//! | transparent colour (`tRNS`) | becomes an alpha channel |
//! | alpha | never changed; pixels with alpha below 255 carry nothing |
//! | interlaced PNG, progressive JPEG | decoded, written without interlacing |
//! | JPEG, CMYK JPEG | RGB, or grey if the file is grey |
//! | EXIF orientation | applied to the pixels (JPEG, WebP and PNG) |
//! | colour profile (ICC) | copied as `iCCP` if it is one for the samples; a PNG's `gAMA`, `cHRM`, `sRGB`, `cICP`, `pHYs` are copied |
//! | EXIF, GPS position, XMP, text | dropped |
//! | 8-bit grey or RGB, PNG, not interlaced | its own compression is kept: only the first rows are decoded and written anew |
//! | animated PNG or WebP | refused: a PNG would keep one frame only |
//! | too small | refused, with the bytes that are needed and those there are |
//! | over the limits | refused from the header, before anything is allocated |

mod carrier;
pub mod cover;
mod decode;
pub mod encrypt;
pub mod error;
pub mod header;
pub mod keys;
pub mod label;
pub mod limits;
pub mod lsb;
mod png;
pub mod probe;
pub mod scratch;
pub mod seal;
pub mod unseal;

pub use cover::Cover;
pub use encrypt::{decrypt_image, encrypt_image};
pub use error::ImageError;
pub use header::{DataKey, Header, PublicPart, Terms, Wrap};
pub use keys::{ClusterId, ClusterKey, ImageNonce, KeyId, KeyRing, UserId};
pub use label::{Capacity, capacity, decoded_bytes, label, read_label};
pub use limits::Limits;
pub use probe::{Format, Probe, probe};
pub use scratch::Scratch;
pub use seal::{SealKeys, SealOptions, seal, seal_under, sealing_bytes};
pub use unseal::{Inspection, Unsealed, header_of, inspect, unseal, unseal_under, unseal_with};
