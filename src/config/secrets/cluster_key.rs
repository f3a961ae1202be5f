//! The cluster key: 32 bytes, as text with a first line that names the version.

use std::fmt;
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::SecretsError;
use super::files::{self, SecretDirectory};
use crate::id::KeyId;

/// The file of the cluster key.
pub const CLUSTER_KEY_FILE: &str = "cluster.key";
const FIRST_LINE: &str = "image-cloud cluster key 1";

/// The 32 secret bytes of a cluster key. They are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(pub [u8; 32]);

impl KeyBytes {
    /// The name of the key.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.0)
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyBytes(secret)")
    }
}

/// Reads a cluster key file.
///
/// # Errors
/// A file that is missing, too open or not a cluster key.
pub fn read_cluster_key(path: &Path) -> Result<KeyBytes, SecretsError> {
    let key = files::read(path)?.and_then(|text| parse(&text)).map(KeyBytes);
    key.ok_or_else(|| SecretsError::Damaged { path: path.to_owned() })
}

pub(super) fn read(directory: &SecretDirectory) -> Result<KeyBytes, SecretsError> {
    read_cluster_key(&directory.existing(CLUSTER_KEY_FILE)?)
}

/// The text of a new key.
pub(super) fn fresh() -> Result<String, SecretsError> {
    Ok(render(&files::random()?))
}

pub(super) fn render(key: &[u8; 32]) -> String {
    format!("{FIRST_LINE}\n{}\n", files::hex(key))
}

fn parse(text: &str) -> Option<[u8; 32]> {
    from_hex(text.strip_prefix(FIRST_LINE)?.trim())
}

pub(super) fn from_hex(digits: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}
