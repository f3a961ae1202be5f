//! Sealing: the original's bytes, encrypted and hidden in a cover.

use aws_lc_rs::aead::Aad;

use crate::image::carrier::plan;
use crate::image::carrier::write::{bound, write};
use crate::image::cover::Cover;
use crate::image::error::ImageError;
use crate::image::header::{DataKey, Header, LONGEST_NAME, TAG_BYTES, Terms, Wrap};
use crate::image::keys::{ClusterId, ClusterKey, ImageNonce};
use crate::image::limits::Limits;
use crate::image::probe::probe;
use crate::image::scratch::Scratch;
use crate::protocol::job::SealForm;

/// Everything secret or random that a seal needs. The node that seals draws nonce and data key anew for each seal.
#[derive(Clone, Debug)]
pub struct SealKeys {
    /// The cluster's key.
    pub cluster_key: ClusterKey,
    /// The cluster's ledger.
    pub cluster_id: ClusterId,
    /// 32 random bytes, never from a client, never used again.
    pub image_nonce: ImageNonce,
    /// 32 random bytes.
    pub data_key: DataKey,
}

/// How a seal is made.
#[derive(Clone, Debug)]
pub struct SealOptions {
    /// What everybody sees.
    pub cover: Cover,
    /// How the file is written.
    pub form: SealForm,
    /// Who may open it.
    pub terms: Terms,
}

impl Default for SealOptions {
    /// An unowned, compact seal under the Access Denied banner.
    fn default() -> Self {
        SealOptions { cover: Cover::access_denied(), form: SealForm::Compact, terms: Terms::default() }
    }
}

/// Seals a picture: returns a PNG that shows the cover. The original's bytes are not decoded and come back bit for bit;
/// only its header is checked. Of `name` the last component is kept.
///
/// # Errors
/// As [`probe`]; [`ImageError::TooLarge`], [`ImageError::TooManyPixels`] (of the sealed picture), [`ImageError::NameTooLong`],
/// [`ImageError::TooManyRights`].
pub fn seal(
    original: &[u8],
    name: &str,
    keys: &SealKeys,
    options: &SealOptions,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Vec<u8>, ImageError> {
    limits.check_original(original.len())?;
    let format = probe(original, limits)?.format;
    let name = file_name(name);
    if name.len() > LONGEST_NAME {
        return Err(ImageError::NameTooLong { have: name.len(), limit: LONGEST_NAME });
    }
    let wrap = Wrap {
        data_key: keys.data_key.clone(),
        terms: options.terms.clone(),
        media_type: format.media_type().to_owned(),
        name,
    };
    let payload_bytes = original.len() as u64;
    let header = Header::create(&wrap, &keys.cluster_key, keys.cluster_id, keys.image_nonce, payload_bytes, limits)?;
    seal_under(original, &header, &keys.data_key, options, limits, scratch)
}

/// The second half of sealing, which needs no cluster key: encrypts `original` under a finished header and writes the picture.
/// `options.terms` are those of the header already and are not looked at.
///
/// # Errors
/// [`ImageError::TooLarge`], [`ImageError::TooManyPixels`]; [`ImageError::Tampered`] if the header is for an original of another
/// length.
pub fn seal_under(
    original: &[u8],
    header: &Header,
    data_key: &DataKey,
    options: &SealOptions,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Vec<u8>, ImageError> {
    limits.check_original(original.len())?;
    if header.public.payload_bytes != original.len() as u64 {
        return Err(ImageError::Tampered { part: "header" });
    }
    let head = header.as_bytes();
    let (layout, banner) = plan(head.len() + original.len() + TAG_BYTES, &options.cover, limits)?;
    if options.form == SealForm::Stored {
        limits.check_sealed(bound(&layout, banner, options.form) as u64)?;
    }

    let mut data = scratch.take(layout.data_bytes());
    encrypt(original, header, data_key, &mut data);
    let file = write(&data, &layout, banner, options.form, scratch);
    scratch.give_back(data);
    limits.check_sealed(file.len() as u64)?;
    Ok(file)
}

/// Memory that [`seal()`] will take at most beside the original, in bytes, banner aside.
pub fn sealing_bytes(original_bytes: u64) -> u64 {
    // The encrypted data, and twice as much of samples; a header, a row and the rounding of both.
    3 * original_bytes + (1 << 20)
}

/// Fills the data area: header, encrypted original, tag, zeros.
fn encrypt(original: &[u8], header: &Header, data_key: &DataKey, data: &mut [u8]) {
    let (head, rest) = data.split_at_mut(header.as_bytes().len());
    let (encrypted, rest) = rest.split_at_mut(original.len());
    let (tag, padding) = rest.split_at_mut(TAG_BYTES);
    head.copy_from_slice(header.as_bytes());
    let (key, nonce) = header.payload_key(data_key);
    key.seal_out_of_place_scatter(nonce, Aad::from(header.as_bytes()), original, encrypted, &[], tag)
        .expect("AES-GCM seals anything shorter than 64 GiB, and the lengths fit");
    padding.fill(0);
}

/// The last component of a path, without anything that could make it more than a file name.
pub(crate) fn file_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|letter| !letter.is_control()).collect();
    if clean.chars().all(|letter| letter == '.') { "image".to_owned() } else { clean }
}
