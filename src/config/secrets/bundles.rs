//! Secrets for a cluster of several machines: one bundle for each node, and one for whoever operates it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::authority::{Authority, Validity};
use super::cluster_key::{self, CLUSTER_KEY_FILE};
use super::files::{self, SecretDirectory};
use super::{ADMIN_TOKEN_FILE, AUTHORITY_FILE, AdminToken, OLD_KEYS_FILE, SecretsError, now_s};
use crate::config::ConfiguredNode;
use crate::id::NodeId;

const OPERATOR: &str = "operator";

/// Whether a cluster is made, or certificates of one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A new cluster.
    Create,
    /// New certificates, also for nodes that were added: cluster key, authority and admin token stay.
    Renew,
    /// The bundle of one more node, or of a machine that takes the place of one: the same, and no other bundle is touched.
    Add,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Bundles {
    /// The operator's directory, the only one with the authority's key.
    pub operator: PathBuf,
    /// The directory of each node.
    pub nodes: Vec<(NodeId, PathBuf)>,
    /// Until when the certificates of the nodes are valid, in seconds since 1970.
    pub valid_until_s: u64,
}

/// Makes one bundle for each of `nodes` in `out`, and the operator's; modes 0700 and 0600.
///
/// # Errors
/// There is a cluster already, or none to renew, or the system refused.
pub fn make(out: &Path, nodes: &[ConfiguredNode], occasion: Occasion) -> Result<Bundles, SecretsError> {
    let path = out.join(OPERATOR);
    let operator = match occasion {
        Occasion::Create if path.exists() => return Err(SecretsError::Exists { path }),
        Occasion::Create => {
            SecretDirectory::create(out)?;
            let operator = SecretDirectory::create(&path)?;
            operator.write(CLUSTER_KEY_FILE, &cluster_key::fresh()?)?;
            operator.write(ADMIN_TOKEN_FILE, &AdminToken::fresh()?.line())?;
            Authority::fresh(Validity::of_authority(now_s()))?.store(&operator)?;
            operator
        }
        Occasion::Renew | Occasion::Add => SecretDirectory::open(&path)?,
    };
    let authority = Authority::load(&operator)?;
    let valid = Validity::of_node(now_s());
    let mut made = Vec::new();
    for node in nodes {
        let path = out.join(format!("node-{}", node.id));
        let bundle = SecretDirectory::create(&path)?;
        if operator.has(OLD_KEYS_FILE) {
            copy(&operator, &bundle, OLD_KEYS_FILE)?;
        }
        for name in [CLUSTER_KEY_FILE, ADMIN_TOKEN_FILE, AUTHORITY_FILE] {
            copy(&operator, &bundle, name)?;
        }
        let addresses: [IpAddr; 2] = [node.http.ip(), node.peer_address().ip()];
        let addresses = if addresses[0] == addresses[1] { &addresses[..1] } else { &addresses[..] };
        authority.issue(node.id, addresses, valid)?.store(&bundle, node.id)?;
        made.push((node.id, path));
    }
    Ok(Bundles { operator: path, nodes: made, valid_until_s: valid.until_s })
}

/// The operator's directory of the bundles in `out`.
pub fn operator(out: &Path) -> PathBuf {
    out.join(OPERATOR)
}

/// Gives the operator's cluster keys to each bundle in `out`; returns the bundles.
///
/// # Errors
/// A directory or file that is too open, damaged or unusable.
pub fn spread_keys(out: &Path) -> Result<Vec<PathBuf>, SecretsError> {
    let operator = SecretDirectory::open(&operator(out))?;
    let is_bundle = |name: &str| name.strip_prefix("node-").is_some_and(|id| id.parse::<NodeId>().is_ok());
    let mut given = Vec::new();
    for entry in std::fs::read_dir(out).map_err(files::unusable(out))? {
        let path = entry.map_err(files::unusable(out))?.path();
        if path.is_dir() && path.file_name().and_then(|name| name.to_str()).is_some_and(is_bundle) {
            let bundle = SecretDirectory::open(&path)?;
            // First the old keys: at no moment is a key missing that was there before.
            copy(&operator, &bundle, OLD_KEYS_FILE)?;
            copy(&operator, &bundle, CLUSTER_KEY_FILE)?;
            given.push(path);
        }
    }
    given.sort();
    Ok(given)
}

pub(super) fn copy(from: &SecretDirectory, to: &SecretDirectory, name: &str) -> Result<(), SecretsError> {
    let path = from.existing(name)?;
    let text = files::read(&path)?.ok_or(SecretsError::Damaged { path })?;
    to.write(name, &text)
}
