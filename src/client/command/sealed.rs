//! A sealed picture as the commands about rights need it: its header, which is all that travels.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::exit::CommandError;
use super::files;
use super::target::TargetArguments;
use crate::id::ImageId;
use crate::image::{self, Header, Limits};
use crate::protocol::rights::ImageAction;
use crate::protocol::sharing::{LookRequest, RightsRequest};

/// A sealed file that was read.
pub struct SealedFile {
    pub bytes: Bytes,
    pub header: Header,
    pub image: ImageId,
    pub limits: Limits,
}

impl SealedFile {
    pub fn read(path: &Path, target: &TargetArguments) -> Result<SealedFile, CommandError> {
        let limits = target.limits();
        let bytes = files::read(path, limits.file_bytes())?;
        let header = image::header_of(&bytes, &limits)?;
        let image = ImageId(*blake3::hash(header.as_bytes()).as_bytes());
        Ok(SealedFile { bytes, header, image, limits })
    }

    fn coded(&self) -> String {
        BASE64_STANDARD.encode(self.header.as_bytes())
    }

    pub fn request(&self, action: ImageAction) -> RightsRequest {
        RightsRequest { header: self.coded(), action }
    }

    /// A look, with the audit entries behind that number.
    pub fn look(&self, after: u64) -> LookRequest {
        LookRequest { header: self.coded(), after }
    }
}
