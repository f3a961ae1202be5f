//! The secrets of a node: a directory of mode 0700 with files of mode 0600; looser ones are refused.
//!
//! | file | what it is |
//! |---|---|
//! | `cluster.key` | opens what the cluster sealed |
//! | `old-keys.toml` | the cluster's old keys, which still open what they sealed, and the names of the retired ones; see [`key_ring`] |
//! | `ca.pem` | the cluster's certificate authority: whoever shows a certificate of it is one of its nodes |
//! | `ca.key` | its key. With all nodes on one machine it lies beside the rest, else with the operator only |
//! | `node-N.pem`, `node-N.key` | what node N shows to other nodes, and to clients off loopback |
//! | `admin.token` | what whoever administers the cluster shows to a node |
//!
//! A user's own keys lie in files of the same kind ([`IdentityFile`]), elsewhere.
//!
//! [`of_one_machine`] makes what is missing; [`of_bundle`] takes what [`bundles::make`] made for one of several machines.

mod admin_token;
mod authority;
pub mod bundles;
mod cluster_key;
mod credentials;
mod files;
mod identity_file;
pub mod key_ring;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use admin_token::{ADMIN_TOKEN_FILE, AdminToken};
pub use authority::{Authority, NODE_YEARS, Validity};
pub use cluster_key::{CLUSTER_KEY_FILE, KeyBytes, read_cluster_key};
pub use credentials::{CertificateFault, Credentials, node_name, node_of_name, read_certificates};
pub use files::{SecretDirectory, random, read as read_secret};
pub use identity_file::{IdentityFile, Passphrase, SECRET_BYTES};
pub use key_ring::{ClusterKeys, OLD_KEYS_FILE, read_cluster_keys};

use crate::id::{KeyId, NodeId};
use crate::time::unix_millis;

/// Keeps this process's memory out of core dumps: there are keys in it. If the system refuses, it goes on without.
pub fn leave_no_core_dump() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_err() {
        log::warn!("the system does not let core dumps be turned off: a crash could write keys to the disk");
    }
}

/// The certificate of the cluster's authority.
pub const AUTHORITY_FILE: &str = "ca.pem";
const AUTHORITY_KEY_FILE: &str = "ca.key";

/// Why secrets cannot be used. No message holds a secret.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// The system refused.
    #[error("cannot use the secrets in {path}: {source}")]
    Unusable {
        /// File or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Others than the owner may get at it.
    #[error("{path} has mode {mode:04o}, which lets others in: run chmod {wanted:o} {path}")]
    TooOpen {
        /// File or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it must have at most.
        wanted: u32,
    },
    /// The file is not a cluster key.
    #[error(
        "{path} is not a cluster key of version 1; restore it from a copy, or name another file with --cluster-key"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file beside the cluster key is not what `cloud-node key` wrote.
    #[error(
        "{path} is not a record of old cluster keys of version 1: restore it from a copy, with the cluster.key beside it"
    )]
    DamagedRing {
        /// The file.
        path: PathBuf,
    },
    /// The current key was retired: an old copy came back.
    #[error(
        "the cluster key in {path} is {id}, which was retired: restore the current one from another node, or make a new one with \
         `cloud-node key rotate`"
    )]
    CurrentRetired {
        /// Its file.
        path: PathBuf,
        /// Its id.
        id: KeyId,
    },
    /// No key has this id.
    #[error("{path} has no cluster key {id}: `cloud-node key list` shows those that there are")]
    NoSuchKey {
        /// The directory.
        path: PathBuf,
        /// The id.
        id: KeyId,
    },
    /// The key that is to be retired seals what is sealed now.
    #[error(
        "{id} is the current cluster key, under which images are locked now: make another first, with `cloud-node key rotate`"
    )]
    IsCurrent {
        /// Its id.
        id: KeyId,
    },
    /// As many keys as are remembered.
    #[error(
        "the cluster has had {limit} keys, the most that {path} remembers: make a new cluster, or go on with the key that it has"
    )]
    TooManyKeys {
        /// The file.
        path: PathBuf,
        /// How many it may hold.
        limit: usize,
    },
    /// The file is not an admin token.
    #[error("{path} is not an admin token, which is one line of 64 hexadecimal digits; restore it from a copy")]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or its key cannot be used.
    #[error("{path} cannot be used: {fault}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// A bundle is not whole.
    #[error(
        "there is no {path}: copy the whole directory node-N that `cloud-node init` made for this node, and name it with --secrets"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A node is to join a cluster of this machine, and there is none.
    #[error(
        "there are no secrets of a cluster in {path} to join with: start one of its nodes there first, or, where the cluster runs on other \
         machines, name this node's bundle with --secrets; `cloud-node init --add` makes it"
    )]
    NoCluster {
        /// Where they should be.
        path: PathBuf,
    },
    /// A second `init` would make a second cluster in place of the first.
    #[error(
        "{path} exists: `init` would make another cluster over it; add --renew for new certificates of this one, or name another --out"
    )]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// The file holds no keys of a user.
    #[error(
        "{path} holds no keys of a user as this program writes them; restore it from a copy made with `client keys export`"
    )]
    NoIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The keys lie under a passphrase, and none was given.
    #[error("the keys of {name} lie under a passphrase: call from a terminal, or name a file with --passphrase-file")]
    NeedsPassphrase {
        /// The user's name.
        name: String,
    },
    /// The keys lie under another passphrase.
    #[error("that is not the passphrase of {name}'s keys, or their file was altered")]
    WrongPassphrase {
        /// The user's name.
        name: String,
    },
    /// Keys are never overwritten.
    #[error("{path} exists, and keys are never overwritten: move it away first, or take another name")]
    KeysExist {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random bytes.
    #[error("the system gave no random bytes for a new secret")]
    NoRandomness,
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Issuing(String),
}

/// What one node needs.
#[derive(Clone, Debug)]
pub struct NodeSecrets {
    /// Opens what the cluster sealed.
    pub cluster_key: KeyBytes,
    /// Whoever administers shows it.
    pub admin_token: AdminToken,
    /// What the node shows to others, and whom it believes.
    pub credentials: Credentials,
}

/// The secrets of a node whose cluster lives on this machine alone. Whoever comes first makes them, under a lock file, so that
/// nodes which start together share them; what a newer node needs besides is added.
///
/// # Errors
/// A directory or file that is too open, damaged or unusable.
pub fn of_one_machine(directory: &Path, node: NodeId) -> Result<NodeSecrets, SecretsError> {
    let directory = SecretDirectory::create(directory)?;
    let _lock = directory.lock()?;
    if !directory.has(CLUSTER_KEY_FILE) {
        directory.write(CLUSTER_KEY_FILE, &cluster_key::fresh()?)?;
    }
    if !directory.has(ADMIN_TOKEN_FILE) {
        directory.write(ADMIN_TOKEN_FILE, &AdminToken::fresh()?.line())?;
    }
    if !directory.has(AUTHORITY_FILE) && !directory.has(AUTHORITY_KEY_FILE) {
        Authority::fresh(Validity::of_authority(now_s()))?.store(&directory)?;
    }
    if must_be_issued(&directory, node) {
        let issued = Authority::load(&directory)?.issue(node, &[], Validity::of_node(now_s()))?;
        issued.store(&directory, node)?;
    }
    load(&directory, node)
}

/// The secrets of a node that joins the cluster of this machine with a directory of its own: a certificate of that cluster's authority,
/// and copies of the rest, so that the node finds them at its next start too.
///
/// # Errors
/// There is no such cluster; a directory or file that is too open, damaged or unusable.
pub fn of_cluster_here(cluster: &Path, own: &Path, node: NodeId) -> Result<NodeSecrets, SecretsError> {
    if !cluster.join(AUTHORITY_KEY_FILE).exists() && !own.join(AUTHORITY_FILE).exists() {
        return Err(SecretsError::NoCluster { path: cluster.to_owned() });
    }
    if cluster == own || own.join(AUTHORITY_FILE).exists() {
        return of_one_machine(own, node);
    }
    let cluster = SecretDirectory::open(cluster)?;
    let own = SecretDirectory::create(own)?;
    let _lock = own.lock()?;
    let issued = Authority::load(&cluster)?.issue(node, &[], Validity::of_node(now_s()))?;
    issued.store(&own, node)?;
    // The authority's certificate comes last: it says that the rest is there.
    for name in [CLUSTER_KEY_FILE, ADMIN_TOKEN_FILE, AUTHORITY_FILE] {
        bundles::copy(&cluster, &own, name)?;
        if name == CLUSTER_KEY_FILE && cluster.has(OLD_KEYS_FILE) {
            bundles::copy(&cluster, &own, OLD_KEYS_FILE)?;
        }
    }
    load(&own, node)
}

/// The secrets of a node from its own bundle; nothing is made.
///
/// # Errors
/// A directory or file that is missing, too open, damaged or unusable.
pub fn of_bundle(directory: &Path, node: NodeId) -> Result<NodeSecrets, SecretsError> {
    load(&SecretDirectory::open(directory)?, node)
}

fn load(directory: &SecretDirectory, node: NodeId) -> Result<NodeSecrets, SecretsError> {
    Ok(NodeSecrets {
        cluster_key: cluster_key::read(directory)?,
        admin_token: AdminToken::read(&directory.existing(ADMIN_TOKEN_FILE)?)?,
        credentials: Credentials::read(directory, node, now_s())?,
    })
}

/// Whether the node has no certificate yet, or one that will not do much longer.
fn must_be_issued(directory: &SecretDirectory, node: NodeId) -> bool {
    const AHEAD_S: u64 = 30 * authority::DAY_S;
    let expires_soon = || {
        let later = Credentials::read(directory, node, now_s() + AHEAD_S);
        matches!(later, Err(SecretsError::Certificate { fault: CertificateFault::Expired { .. }, .. }))
    };
    directory.has(AUTHORITY_KEY_FILE) && (!directory.has(&credentials::certificate_file(node)) || expires_soon())
}

/// Wall time in seconds since 1970: certificates are valid by it.
fn now_s() -> u64 {
    unix_millis() / 1000
}

#[cfg(test)]
mod tests;
