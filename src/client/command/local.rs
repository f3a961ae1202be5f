//! The image work that needs no node, in one place, within the default limits.

use std::path::Path;

use super::exit::CommandError;
use crate::config::secrets;
use crate::image::{self, Capacity, ClusterKey, ImageError, Inspection, Limits, Opened};
use crate::protocol::job::Label;

pub fn cluster_key(path: &Path) -> Result<ClusterKey, CommandError> {
    Ok(ClusterKey::new(secrets::read_cluster_key(path)?.0))
}

pub fn unseal(file: &[u8], key: &ClusterKey) -> Result<Opened, ImageError> {
    image::unseal(file, key, &Limits::default())
}

pub fn inspect(file: &[u8]) -> Result<Inspection, ImageError> {
    image::inspect(file, &Limits::default())
}

pub fn read_label(file: &[u8]) -> Result<Label, ImageError> {
    image::read_label(file, &Limits::default())
}

pub fn capacity(file: &[u8]) -> Result<Capacity, ImageError> {
    image::capacity(file, &Limits::default())
}
