//! What a node is started with.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use thiserror::Error;

use crate::config::secrets::SecretsError;
use crate::config::{ClusterConfig, ConfigError};
use crate::core::election::FirstStart;
use crate::id::{MemberId, NodeId};
use crate::protocol::membership::Place;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Which node of the configuration it is.
    pub id: NodeId,
    /// The cluster.
    pub config: ClusterConfig,
    /// Whom the first start waits for.
    pub first_start: FirstStart,
    /// Where other nodes and clients find this one, as far as that is not where it listens.
    pub place: Place,
    /// For a node that joins the cluster of this machine with a data directory of its own: where that cluster's secrets are.
    pub secrets_from: Option<PathBuf>,
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
    Secrets(#[from] SecretsError),
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
    /// Data would be deleted.
    #[error(
        "this would delete {path} ({bytes} bytes): the log, the snapshots and the vote of node {id}, which nothing brings back; to do so, add --yes"
    )]
    NotConfirmed {
        /// The node.
        id: NodeId,
        /// Its directory.
        path: std::path::PathBuf,
        /// What it holds, in bytes.
        bytes: u64,
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
    /// This life of the node was removed from the cluster.
    #[error(
        "node {} was removed from the cluster in this life ({member}) and has stopped: its data in {directory} is of no use any more; \
         to take it in again delete that directory, start it with --join, and run `client members add {} ADDRESS`", .member.node, .member.node
    )]
    Removed {
        /// The node in this life.
        member: MemberId,
        /// Its data directory.
        directory: PathBuf,
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
        use NodeError::{Config, Cover, NotConfirmed, NotLoopback, Secrets};
        use SecretsError::{IsCurrent, NoSuchKey};
        matches!(
            self,
            Config(_)
                | NotLoopback { .. }
                | Cover { .. }
                | NotConfirmed { .. }
                | Secrets(IsCurrent { .. } | NoSuchKey { .. })
        )
    }

    /// Whether the node is no member any more, so that there is no sense in starting it again.
    pub const fn is_removal(&self) -> bool {
        matches!(self, NodeError::Removed { .. })
    }
}

/// Binds an address. `SO_REUSEADDR` is set (the standard library does), so a restart at once works.
pub(super) fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).map_err(|source| NodeError::PortInUse { address, flag, source })
}
