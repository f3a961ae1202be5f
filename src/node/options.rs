//! What a node is started with.

use std::net::{SocketAddr, TcpListener};

use thiserror::Error;

use crate::config::{ClusterConfig, ConfigError};
use crate::id::NodeId;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Which node of the configuration it is.
    pub id: NodeId,
    /// The cluster.
    pub config: ClusterConfig,
    /// Start with the majority that answers instead of waiting for every configured node (first start only).
    pub bootstrap: bool,
    /// Seed of jitter and random failures.
    pub seed: u64,
    /// Stop when standard input ends: for nodes whose parent may die.
    pub exit_with_parent: bool,
}

/// Why a node did not start, or stopped.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secrets.
    #[error(transparent)]
    Secrets(#[from] crate::config::secrets::SecretsError),
    /// The data directory.
    #[error(transparent)]
    DataDirectory(#[from] super::data_dir::DataDirError),
    /// The Raft log.
    #[error(transparent)]
    Raft(#[from] crate::raft::RaftError),
    /// An address that is not loopback, without the secrets that it takes.
    #[error(
        "{address} is not a loopback address, and this node has only the secrets of one machine: make a bundle for each node with \
         `cloud-node init --out DIR`, copy DIR/node-N to its machine and start it with --secrets DIR/node-N; or change {key} in \
         the configuration, or the flag {flag}"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
        /// Its key in the file.
        key: &'static str,
        /// Its flag.
        flag: &'static str,
    },
    /// A port in use.
    #[error("cannot listen on {address}: {source}; stop what holds it, or choose another with {flag}")]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The picture that replaces the banner.
    #[error("cannot use {path} as the cover: {reason}")]
    Cover {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS does not take the node's certificate and key.
    #[error(
        "the node's certificate and key do not belong together ({0}): copy its bundle again, or delete both files in data/cluster"
    )]
    Tls(#[from] rustls::Error),
    /// The system refused.
    #[error("the node cannot run: {0}")]
    System(String),
}

impl NodeError {
    /// Whether the cause is what the user asked for, rather than the state of the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, NodeError::Config(_) | NodeError::NotLoopback { .. } | NodeError::Cover { .. })
    }
}

/// Binds an address. `SO_REUSEADDR` is set (the standard library does), so a restart at once works.
pub(super) fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).map_err(|source| NodeError::PortInUse { address, flag, source })
}
