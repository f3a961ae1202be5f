//! A sealed picture as the commands about rights read it.

use std::path::Path;

use super::exit::CommandError;
use super::files;
use super::target::TargetArguments;
pub use crate::client::SealedFile;

impl SealedFile {
    pub(super) fn read(path: &Path, target: &TargetArguments) -> Result<SealedFile, CommandError> {
        let limits = target.limits();
        let bytes = files::read(path, limits.file_bytes())?;
        Ok(SealedFile::of(bytes, limits)?)
    }
}
