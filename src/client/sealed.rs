//! A sealed picture as those who open it have it: its header travels, the picture does not.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::audit::Told;
use super::cluster::Cluster;
use super::error::ClientError;
use super::signer::Signer;
use crate::id::{ImageId, RequestId};
use crate::identity::{Released, SealedFor, UserSecret, open};
use crate::image::{self, DataKey, Header, ImageError, Limits};
use crate::protocol::codec;
use crate::protocol::rights::{AuditEntry, ImageAction};
use crate::protocol::sharing::{LookRequest, RightsAnswer, RightsRequest};

/// A sealed file that was read.
#[derive(Clone, Debug)]
pub struct SealedFile {
    /// The file.
    pub bytes: Bytes,
    /// Its header.
    pub header: Header,
    /// The hash of the header, by which the ledger knows the image.
    pub image: ImageId,
    /// What a picture may ask for.
    pub limits: Limits,
}

impl SealedFile {
    /// Reads the header of a sealed picture.
    ///
    /// # Errors
    /// As [`image::header_of`].
    pub fn of(bytes: Bytes, limits: Limits) -> Result<SealedFile, ImageError> {
        let header = image::header_of(&bytes, &limits)?;
        let image = header.image_id();
        Ok(SealedFile { bytes, header, image, limits })
    }

    fn coded(&self) -> String {
        BASE64_STANDARD.encode(self.header.as_bytes())
    }

    /// The body with which something is done with the rights.
    pub fn request(&self, action: ImageAction) -> RightsRequest {
        RightsRequest { header: self.coded(), action }
    }

    /// A look, with the audit entries behind that number.
    pub fn look(&self, after: u64) -> LookRequest {
        LookRequest { header: self.coded(), after }
    }

    /// What the answer to a view or a lease holds for the signer, under one of these keys; none if it is not for them.
    pub fn released<'a>(
        &self,
        signer: &Signer,
        mut secrets: impl Iterator<Item = &'a UserSecret>,
        id: RequestId,
        answer: &RightsAnswer,
    ) -> Option<Released> {
        let purpose = SealedFor::Release { cluster: signer.cluster, image: self.image, user: signer.user, id };
        let sealed = BASE64_STANDARD.decode(answer.key.as_ref()?).ok()?;
        codec::decode(&secrets.find_map(|secret| open(&sealed, secret, &purpose))?).ok()
    }

    /// The original.
    ///
    /// # Errors
    /// As [`image::unseal_with`].
    pub fn open(&self, released: &Released) -> Result<Vec<u8>, ImageError> {
        image::unseal_with(&self.bytes, &DataKey(released.data_key), &self.limits)
    }
}

impl Cluster {
    /// All that the cluster tells the owner of an image, to be checked with [`audit::verify`](super::audit::verify); none for others.
    /// Entries come in pages, and more may be added meanwhile: the last page counts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn told(
        &self,
        signer: &Signer,
        file: &SealedFile,
        mut fresh_id: impl FnMut() -> RequestId,
    ) -> Result<Option<Told>, ClientError> {
        let mut audit: Vec<AuditEntry> = Vec::new();
        loop {
            let after = audit.len() as u64;
            let look = self.look(signer, fresh_id(), &file.look(after)).await?;
            let Some(owned) = look.owned else { return Ok(None) };
            let is_last = owned.audit.is_empty() || after + owned.audit.len() as u64 >= owned.entries;
            audit.extend(owned.audit);
            if is_last {
                return Ok(Some(Told {
                    image: file.image,
                    terms: owned.terms,
                    expires: look.expires,
                    rights: owned.rights,
                    leases_returnable: owned.leases_returnable,
                    audit,
                    entries: owned.entries,
                    link: owned.link,
                }));
            }
        }
    }
}
