//! The image work that needs no node, in one place.

use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use super::exit::{CommandError, Exit};
use crate::config::secrets::{KeyBytes, read_cluster_key};
use crate::protocol::job::Label;

/// Why an image cannot be opened, read or measured.
#[derive(Debug, Error)]
pub enum LocalError {
    #[error("not built yet")]
    NotBuilt,
}

impl LocalError {
    pub const fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// What a seal gave back.
pub struct Opened {
    pub image: Vec<u8>,
    pub name: String,
}

pub fn cluster_key(path: &Path) -> Result<KeyBytes, CommandError> {
    Ok(read_cluster_key(path)?)
}

pub fn unseal(_file: &[u8], _key: &KeyBytes) -> Result<Opened, LocalError> {
    Err(LocalError::NotBuilt)
}

pub fn inspect(_file: &[u8]) -> Result<Value, LocalError> {
    Err(LocalError::NotBuilt)
}

pub fn read_label(_file: &[u8]) -> Result<Label, LocalError> {
    Err(LocalError::NotBuilt)
}

pub fn capacity(_file: &[u8]) -> Result<Value, LocalError> {
    Err(LocalError::NotBuilt)
}
