//! The image work that needs no node, in one place, within the limits of the configuration.

use std::path::Path;

use super::exit::CommandError;
use crate::config::secrets;
use crate::image::{self, Capacity, ClusterKey, ImageError, Inspection, Limits, Opened};
use crate::protocol::job::Label;

pub fn cluster_key(path: &Path) -> Result<ClusterKey, CommandError> {
    Ok(ClusterKey::new(secrets::read_cluster_key(path)?.0))
}

pub fn unseal(file: &[u8], key: &ClusterKey, limits: &Limits) -> Result<Opened, ImageError> {
    image::unseal(file, key, limits)
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
