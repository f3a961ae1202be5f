//! The names that the project began with: encrypting an image is sealing it, decrypting is opening the seal.

use crate::image::error::ImageError;
use crate::image::keys::ClusterKey;
use crate::image::limits::Limits;
use crate::image::scratch::Scratch;
use crate::image::seal::{SealKeys, SealOptions, seal};
use crate::image::unseal::{Unsealed, unseal};

/// Seals a picture with the default options: unowned, compact, under the Access Denied banner. See [`seal`].
///
/// # Errors
/// As [`seal`].
pub fn encrypt_image(original: &[u8], name: &str, keys: &SealKeys, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    seal(original, name, keys, &SealOptions::default(), limits, &mut Scratch::new(0))
}

/// Opens a sealed picture. See [`unseal`].
///
/// # Errors
/// As [`unseal`].
pub fn decrypt_image(png: &[u8], cluster_key: &ClusterKey, limits: &Limits) -> Result<Unsealed, ImageError> {
    unseal(png, cluster_key, limits)
}
