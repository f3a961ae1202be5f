//! Opening a seal, and looking at it from outside.

use aws_lc_rs::aead::Aad;
use serde::Serialize;

use crate::image::carrier::read::{Container, is_intact};
use crate::image::cover::recognise::shows_banner;
use crate::image::error::ImageError;
use crate::image::header::{DataKey, Header, PUBLIC_BYTES, PublicPart, TAG_BYTES, Terms, Wrap};
use crate::image::keys::{ClusterKey, KeyRing};
use crate::image::limits::Limits;
use crate::image::probe::Format;
use crate::image::seal::file_name;
use crate::protocol::job::SealForm;

/// What a seal held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsealed {
    /// The original, bit for bit.
    pub original: Vec<u8>,
    /// Its file name: never a path.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Who may open it.
    pub terms: Terms,
}

/// What a stranger can see of a sealed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The public part of the header.
    #[serde(flatten)]
    pub public: PublicPart,
    /// How the file is written; none if other software wrote it anew.
    pub form: Option<SealForm>,
    /// Width of the picture in pixels.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Rows of the banner.
    pub banner_rows: u32,
}

/// Opens a seal with the cluster's key, for whoever holds that key.
///
/// # Errors
/// [`ImageError::NotSealed`], [`ImageError::ChangedCopy`], [`ImageError::WrongVersion`], [`ImageError::WrongKey`], [`ImageError::Tampered`],
/// [`ImageError::Damaged`], [`ImageError::Truncated`], [`ImageError::TooLarge`], [`ImageError::TooManyPixels`].
pub fn unseal(png: &[u8], cluster_key: &ClusterKey, limits: &Limits) -> Result<Unsealed, ImageError> {
    unseal_as(png, limits, |header| header.open(cluster_key))
}

/// Opens a seal with that one of the cluster's keys under which it was made.
///
/// # Errors
/// As [`unseal`], and [`ImageError::RetiredKey`].
pub fn unseal_under(png: &[u8], keys: &KeyRing, limits: &Limits) -> Result<Unsealed, ImageError> {
    unseal_as(png, limits, |header| keys.open(header))
}

fn unseal_as(
    png: &[u8],
    limits: &Limits,
    open: impl Fn(&Header) -> Result<Wrap, ImageError>,
) -> Result<Unsealed, ImageError> {
    let sealed = Sealed::find(png, limits)?;
    let wrap = sealed.checked(open(&sealed.header))?;
    let original = sealed.open(&wrap.data_key, limits)?;
    Ok(Unsealed { original, name: file_name(&wrap.name), media_type: wrap.media_type, terms: wrap.terms })
}

/// Opens a seal with its data key, for whoever was given that.
///
/// # Errors
/// As [`unseal`], but for the wrap.
pub fn unseal_with(png: &[u8], data_key: &DataKey, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    Sealed::find(png, limits)?.open(data_key, limits)
}

/// The whole header of a sealed file: what is sent to a node to ask for its key.
///
/// # Errors
/// As [`unseal`], but for what needs a key.
pub fn header_of(png: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    Ok(Sealed::find(png, limits)?.header)
}

/// What everybody can see of a sealed file.
///
/// # Errors
/// As [`header_of`].
pub fn inspect(png: &[u8], limits: &Limits) -> Result<Inspection, ImageError> {
    let Sealed { container, header, .. } = Sealed::find(png, limits)?;
    Ok(Inspection {
        public: header.public,
        form: container.form,
        width: container.layout.width,
        height: container.layout.height(),
        banner_rows: container.layout.banner_rows,
    })
}

struct Sealed<'a> {
    png: &'a [u8],
    container: Container<'a>,
    header: Header,
    /// The first bytes of the data: header, and some of the payload.
    beginning: Vec<u8>,
}

impl<'a> Sealed<'a> {
    /// Finds the header: directly if the file is as our writer made it, else by decoding the picture.
    fn find(png: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        limits.check_sealed(png.len() as u64)?;
        if let Some(container) = Container::direct(png, limits)
            && let Some(Ok(sealed)) = Sealed::read(png, container, limits)
        {
            return Ok(sealed);
        }
        Sealed::find_decoded(png, limits)
    }

    fn find_decoded(png: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let found = Container::decoded(png, limits)
            .and_then(|container| Sealed::read(png, container, limits).unwrap_or(Err(ImageError::NotSealed)));
        match found {
            Err(ImageError::NotSealed) if shows_banner(png, limits) => Err(ImageError::ChangedCopy),
            found => found,
        }
    }

    fn read(png: &'a [u8], container: Container<'a>, limits: &Limits) -> Option<Result<Self, ImageError>> {
        let mut beginning = container.beginning(PUBLIC_BYTES)?;
        let public = match PublicPart::read(&beginning, limits) {
            Ok(public) => public,
            Err(error) => return Some(Err(error)),
        };
        let needed = public.header_bytes as usize;
        if beginning.len() < needed {
            let Some(longer) = container.beginning(needed) else {
                return Some(Err(ImageError::Tampered { part: "header" }));
            };
            beginning = longer;
        }
        Some(Header::read(&beginning, limits).map(|header| Sealed { png, container, header, beginning }))
    }

    /// Says of a file that does not authenticate whether it is damaged rather than altered.
    fn checked<T>(&self, result: Result<T, ImageError>) -> Result<T, ImageError> {
        match result {
            Err(ImageError::Tampered { part }) => {
                Err(altered(part, self.container.form.is_none() || is_intact(self.png)))
            }
            other => other,
        }
    }

    fn open(self, data_key: &DataKey, limits: &Limits) -> Result<Vec<u8>, ImageError> {
        let Sealed { png, container, header, beginning } = self;
        let was_decoded = container.form.is_none();
        let length = header.public.payload_bytes as usize + TAG_BYTES;
        let skip = header.as_bytes().len();
        let Some(mut payload) = container.payload(&beginning, skip, length) else {
            // Some segment is not as our writer makes it. A decoder reads it, or says what is wrong with it.
            return if was_decoded {
                Err(ImageError::Tampered { part: "length" })
            } else {
                Sealed::find_decoded(png, limits)?.open(data_key, limits)
            };
        };
        let (key, nonce) = header.payload_key(data_key);
        let opened = key.open_in_place(nonce, Aad::from(header.as_bytes()), &mut payload);
        match opened.map(|original| original.len()) {
            Ok(length) => {
                payload.truncate(length);
                Ok(payload)
            }
            Err(_) => Err(altered("payload", was_decoded || is_intact(png))),
        }
    }
}

/// A file that does not authenticate is damaged if its check sums are wrong, else somebody altered it.
fn altered(part: &'static str, is_intact: bool) -> ImageError {
    if is_intact {
        ImageError::Tampered { part }
    } else {
        ImageError::Damaged { format: Format::Png, reason: "a check sum is wrong".to_owned() }
    }
}
