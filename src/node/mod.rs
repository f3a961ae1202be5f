//! Node.

pub mod data_dir;
pub mod listener;
