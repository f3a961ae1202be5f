//! The image work that needs no node, in one place, within the limits of the configuration.

use std::path::Path;

use super::exit::CommandError;
use crate::config::secrets::{self, ClusterKeys};
use crate::image::{self, Capacity, ClusterKey, ImageError, Inspection, KeyRing, Limits, Unsealed};
use crate::protocol::job::Label;

/// The key in a file, with the old and retired ones that are recorded beside it.
pub fn cluster_keys(path: &Path) -> Result<KeyRing, CommandError> {
    let ClusterKeys { current, old, retired } = secrets::read_cluster_keys(path)?;
    Ok(KeyRing::new(ClusterKey::new(current.0), old.into_iter().map(|key| ClusterKey::new(key.0)), retired))
}

pub fn unseal(file: &[u8], keys: &KeyRing, limits: &Limits) -> Result<Unsealed, ImageError> {
    image::unseal_under(file, keys, limits)
}

pub fn inspect(file: &[u8], limits: &Limits) -> Result<Inspection, ImageError> {
    image::inspect(file, limits)
}

pub fn read_label(file: &[u8], limits: &Limits) -> Result<Label, ImageError> {
    image::read_label(file, limits)
}

pub fn capacity(file: &[u8], limits: &Limits) -> Result<Capacity, ImageError> {
    image::capacity(file, limits)
}
