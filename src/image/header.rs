//! The header of a seal: a public part, and the wrap that only the cluster can open.
//!
//! ```text
//! public part (93 bytes, numbers big-endian)
//!   0  magic "IMGCLOUD"        8
//!   8  version                 1
//!   9  cluster id             32
//!  41  key id                  8
//!  49  image nonce            32
//!  81  bytes of the original   8
//!  89  bytes of the header     4
//! wrap: AES-256-GCM of the following, and its tag (16 bytes)
//!   data key 32 | flags 1 (1: owner, 2: expiry) | owner 32 | expiry 8 | number of rights 1 | user 32, views 8 for each |
//!   length 1, media type | length 1, name
//! ```
//! The wrap's key and nonce are HKDF-SHA256(cluster key, salt = image nonce); the public part is associated data. The image
//! nonce is drawn anew for every wrap, so neither repeats.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Salt};
use serde::Serialize;

use crate::id::ImageId;
use crate::image::error::ImageError;
use crate::image::keys::{ClusterId, ClusterKey, ImageNonce, KeyId, UserId};
use crate::image::limits::Limits;
pub use crate::protocol::rights::MOST_RIGHTS;

/// The version of the format that this program reads and writes.
pub const VERSION: u8 = 1;
/// Bytes that authentication adds to what is encrypted.
pub(crate) const TAG_BYTES: usize = 16;
/// The longest file name in a wrap, in bytes; that of common file systems.
pub const LONGEST_NAME: usize = 255;

const MAGIC: [u8; 8] = *b"IMGCLOUD";
/// Bytes of the public part.
pub(crate) const PUBLIC_BYTES: usize = 93;

/// What a stranger can read of a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PublicPart {
    /// Version of the format.
    pub version: u8,
    /// The ledger that the seal belongs to.
    pub cluster_id: ClusterId,
    /// The key that the wrap is under.
    pub key_id: KeyId,
    /// The random number of this wrap.
    pub image_nonce: ImageNonce,
    /// Bytes of the original.
    pub payload_bytes: u64,
    /// Bytes of the header, this part included.
    pub header_bytes: u32,
}

/// A data key; its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(pub [u8; 32]);

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DataKey(…)")
    }
}

/// Who may open a seal. The default is an *unowned* one, which only the cluster key opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Who may change the rights.
    pub owner: Option<UserId>,
    /// How many views each user has; at most [`MOST_RIGHTS`] users.
    pub rights: BTreeMap<UserId, u64>,
    /// When the rights end, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// Whether views of a lease may be given back.
    pub leases_returnable: bool,
}

/// What a wrap holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// The key of the payload.
    pub data_key: DataKey,
    /// Who may open it.
    pub terms: Terms,
    /// Media type of the original.
    pub media_type: String,
    /// File name of the original, without any folder.
    pub name: String,
}

/// A finished header: public part and closed wrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The part that everybody can read.
    pub public: PublicPart,
    bytes: Vec<u8>,
}

impl Header {
    /// Closes a wrap: all that needs the cluster key. The rest of sealing needs the finished header and the data key only, so
    /// that it can be done elsewhere ([`seal_under`](crate::image::seal::seal_under)).
    ///
    /// # Errors
    /// [`ImageError::TooManyRights`], [`ImageError::NameTooLong`], [`ImageError::TooLarge`].
    pub fn create(
        wrap: &Wrap,
        cluster_key: &ClusterKey,
        cluster_id: ClusterId,
        image_nonce: ImageNonce,
        payload_bytes: u64,
        limits: &Limits,
    ) -> Result<Header, ImageError> {
        let mut contents = wrap.to_bytes()?;
        let header_bytes = (PUBLIC_BYTES + contents.len() + TAG_BYTES) as u32;
        if header_bytes > limits.header_bytes {
            let (have, limit) = (header_bytes.into(), limits.header_bytes.into());
            return Err(ImageError::TooLarge { what: "header", have, limit });
        }
        let key_id = cluster_key.id();
        let public = PublicPart { version: VERSION, cluster_id, key_id, image_nonce, payload_bytes, header_bytes };
        let mut bytes = public.to_bytes().to_vec();
        let (key, nonce) = wrap_key(cluster_key, &image_nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(&bytes), &mut contents)
            .expect("AES-GCM seals anything shorter than 64 GiB");
        bytes.append(&mut contents);
        Ok(Header { public, bytes })
    }

    /// Reads a header from the beginning of `data`, which may go on. Nothing is allocated before its length is checked.
    ///
    /// # Errors
    /// [`ImageError::NotSealed`], [`ImageError::WrongVersion`], [`ImageError::TooLarge`], [`ImageError::Tampered`].
    pub fn read(data: &[u8], limits: &Limits) -> Result<Header, ImageError> {
        let public = PublicPart::read(data, limits)?;
        let bytes = data.get(..public.header_bytes as usize).ok_or(ImageError::Tampered { part: "header" })?;
        Ok(Header { public, bytes: bytes.to_vec() })
    }

    /// The whole header as it stands in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The name of the image: BLAKE3-256 of the whole header.
    pub fn image_id(&self) -> ImageId {
        ImageId(*blake3::hash(&self.bytes).as_bytes())
    }

    /// Opens the wrap.
    ///
    /// # Errors
    /// [`ImageError::WrongKey`] if it names another key, [`ImageError::Tampered`] if it does not open under this one.
    pub fn open(&self, cluster_key: &ClusterKey) -> Result<Wrap, ImageError> {
        let own = cluster_key.id();
        if self.public.key_id != own {
            return Err(ImageError::WrongKey { file: self.public.key_id, own });
        }
        let altered = ImageError::Tampered { part: "header" };
        let (public, wrap) = self.bytes.split_at_checked(PUBLIC_BYTES).ok_or(altered.clone())?;
        let (key, nonce) = wrap_key(cluster_key, &self.public.image_nonce);
        let mut wrap = wrap.to_vec();
        let contents = key.open_in_place(nonce, Aad::from(public), &mut wrap).map_err(|_| altered.clone())?;
        Wrap::from_bytes(contents).ok_or(altered)
    }

    /// Key and nonce of the payload: HKDF-SHA256(data key, salt = BLAKE3-256 of this header). A data key that two headers hold
    /// therefore never repeats a key.
    pub(crate) fn payload_key(&self, data_key: &DataKey) -> (LessSafeKey, Nonce) {
        derive(&data_key.0, &self.image_id().0, b"image-cloud payload v1")
    }
}

impl PublicPart {
    fn to_bytes(self) -> [u8; PUBLIC_BYTES] {
        let mut bytes = Vec::with_capacity(PUBLIC_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(self.version);
        bytes.extend_from_slice(&self.cluster_id.0);
        bytes.extend_from_slice(&self.key_id.0);
        bytes.extend_from_slice(&self.image_nonce.0);
        bytes.extend_from_slice(&self.payload_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.header_bytes.to_be_bytes());
        bytes.try_into().expect("the fields add up to the length of the public part")
    }

    pub(crate) fn read(data: &[u8], limits: &Limits) -> Result<PublicPart, ImageError> {
        let mut reader = Reader(data);
        if reader.take::<8>() != Some(MAGIC) {
            return Err(ImageError::NotSealed);
        }
        let [found] = reader.take().ok_or(ImageError::NotSealed)?;
        if found != VERSION {
            return Err(ImageError::WrongVersion { found, known: VERSION });
        }
        let mut fields = || {
            Some(PublicPart {
                version: found,
                cluster_id: ClusterId(reader.take()?),
                key_id: KeyId(reader.take()?),
                image_nonce: ImageNonce(reader.take()?),
                payload_bytes: u64::from_be_bytes(reader.take()?),
                header_bytes: u32::from_be_bytes(reader.take()?),
            })
        };
        let public = fields().ok_or(ImageError::Tampered { part: "header" })?;
        let (have, limit) = (public.header_bytes, limits.header_bytes);
        if have > limit {
            return Err(ImageError::TooLarge { what: "header", have: have.into(), limit: limit.into() });
        }
        let (have, limit) = (public.payload_bytes, limits.original_bytes);
        if have > limit {
            return Err(ImageError::TooLarge { what: "sealed original", have, limit });
        }
        if (public.header_bytes as usize) < PUBLIC_BYTES + TAG_BYTES {
            return Err(ImageError::Tampered { part: "header" });
        }
        Ok(public)
    }
}

impl Wrap {
    /// What is encrypted.
    ///
    /// # Errors
    /// [`ImageError::TooManyRights`], [`ImageError::NameTooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ImageError> {
        let Terms { owner, rights, expires_at_ms, leases_returnable } = &self.terms;
        if rights.len() > MOST_RIGHTS {
            return Err(ImageError::TooManyRights { have: rights.len(), limit: MOST_RIGHTS });
        }
        let mut bytes = self.data_key.0.to_vec();
        let flags = [owner.is_some(), expires_at_ms.is_some(), *leases_returnable];
        bytes.push(flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag)));
        bytes.extend(owner.iter().flat_map(|user| user.0));
        bytes.extend(expires_at_ms.iter().flat_map(|time| time.to_be_bytes()));
        bytes.push(rights.len() as u8);
        for (user, views) in rights {
            bytes.extend_from_slice(&user.0);
            bytes.extend_from_slice(&views.to_be_bytes());
        }
        for text in [&self.media_type, &self.name] {
            let length = u8::try_from(text.len());
            bytes.push(length.map_err(|_| ImageError::NameTooLong { have: text.len(), limit: LONGEST_NAME })?);
            bytes.extend_from_slice(text.as_bytes());
        }
        Ok(bytes)
    }

    /// Reads what was decrypted. None if it is not what [`Self::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Wrap> {
        let mut reader = Reader(bytes);
        let data_key = DataKey(reader.take()?);
        let [flags] = reader.take()?;
        if flags > 7 {
            return None;
        }
        let owner = if flags & 1 == 1 { Some(UserId(reader.take()?)) } else { None };
        let expires_at_ms = if flags & 2 == 2 { Some(u64::from_be_bytes(reader.take()?)) } else { None };
        let leases_returnable = flags & 4 == 4;
        let [count] = reader.take()?;
        let mut rights = BTreeMap::new();
        for _ in 0..count {
            rights.insert(UserId(reader.take()?), u64::from_be_bytes(reader.take()?));
        }
        let media_type = reader.text()?;
        let name = reader.text()?;
        let complete = reader.0.is_empty() && rights.len() == usize::from(count) && rights.len() <= MOST_RIGHTS;
        let terms = Terms { owner, rights, expires_at_ms, leases_returnable };
        complete.then_some(Wrap { data_key, terms, media_type, name })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn text(&mut self) -> Option<String> {
        let [length] = self.take()?;
        let (taken, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        String::from_utf8(taken.to_vec()).ok()
    }
}

fn wrap_key(cluster_key: &ClusterKey, image_nonce: &ImageNonce) -> (LessSafeKey, Nonce) {
    derive(cluster_key.secret_bytes(), &image_nonce.0, b"image-cloud wrap v1")
}

/// HKDF-SHA256 (RFC 5869) to a key for AES-256-GCM and its 96-bit nonce.
fn derive(secret: &[u8; 32], salt: &[u8; 32], purpose: &[u8]) -> (LessSafeKey, Nonce) {
    struct KeyAndNonce;
    impl hkdf::KeyType for KeyAndNonce {
        fn len(&self) -> usize {
            44
        }
    }
    let mut bytes = [0; 44];
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[purpose], KeyAndNonce)
        .and_then(|output| output.fill(&mut bytes))
        .expect("44 bytes are fewer than the 8,160 that HKDF-SHA256 gives");
    let (key, nonce) = bytes.split_at(32);
    let key = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes");
    (LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).expect("a nonce has 12 bytes"))
}
