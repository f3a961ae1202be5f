//! What a node shows to others, and whom it believes: its certificate with its key, and the cluster's authority.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::files::{self, SecretDirectory, unusable};
use super::{AUTHORITY_FILE, SecretsError, authority};
use crate::id::NodeId;

/// The last label of every name in a certificate of ours.
const SUFFIX: &str = "image-cloud";

/// What is wrong with a certificate of our own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateFault {
    /// Not the file that it should be.
    #[error("it is not PEM of the expected kind; restore it from a copy")]
    NotPem,
    /// Not a certificate of an authority of ours.
    #[error("it is not the authority of an Image Cloud; copy ca.pem from the directory that `cloud-node init` made")]
    NoAuthority,
    /// Of another node, or of another cluster.
    #[error("it is a certificate for {found}, not for {wanted}; each node needs the bundle that was made for it")]
    NotForThisNode {
        /// Whom it names.
        found: String,
        /// Whom it should name.
        wanted: String,
    },
    /// Not signed by the authority beside it.
    #[error("the authority in ca.pem beside it did not sign it ({0}); copy the whole bundle of this node again")]
    NotSigned(String),
    /// Its time is over.
    #[error(
        "it expired {} days ago; make a new one with `cloud-node init --renew` where ca.key is, and copy the bundle again",
        .ago_s / authority::DAY_S
    )]
    Expired {
        /// For how long, in seconds.
        ago_s: u64,
    },
    /// Its time has not come.
    #[error("it is not valid yet; set the clock of this machine")]
    NotYetValid,
}

/// A node's certificate and key, and the authority of its cluster.
#[derive(Debug)]
pub struct Credentials {
    /// The node.
    pub node: NodeId,
    /// The name of its cluster.
    pub cluster: String,
    /// The authority's certificate.
    pub authority: CertificateDer<'static>,
    /// The node's certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key. It is never printed.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Credentials {
            node: self.node,
            cluster: self.cluster.clone(),
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Credentials {
    /// Puts together what belongs together: name, signature and time are checked.
    ///
    /// # Errors
    /// [`CertificateFault`].
    pub fn new(
        node: NodeId,
        authority_pem: &str,
        certificate_pem: &str,
        key_pem: &str,
        now_s: u64,
    ) -> Result<Credentials, CertificateFault> {
        let authority = authority_of_pem(authority_pem)?;
        let cluster = cluster_of_authority(&authority).ok_or(CertificateFault::NoAuthority)?;
        let not_pem = |_| CertificateFault::NotPem;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(not_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(not_pem)?;
        check(&authority, &certificate, &node_name(node, &cluster), now_s)?;
        Ok(Credentials { node, cluster, authority, certificate, key })
    }

    pub(super) fn read(directory: &SecretDirectory, node: NodeId, now_s: u64) -> Result<Credentials, SecretsError> {
        let path = directory.existing(&certificate_file(node))?;
        let fault = |fault| SecretsError::Certificate { path: path.clone(), fault };
        let text = |path: &Path| files::read(path)?.ok_or_else(|| fault(CertificateFault::NotPem));
        let authority = text(&directory.existing(AUTHORITY_FILE)?)?;
        let key = text(&directory.existing(&key_file(node))?)?;
        Credentials::new(node, &authority, &text(&path)?, &key, now_s).map_err(fault)
    }
}

fn check(
    authority: &CertificateDer<'static>,
    certificate: &CertificateDer<'static>,
    wanted: &str,
    now_s: u64,
) -> Result<(), CertificateFault> {
    let own = EndEntityCert::try_from(certificate).map_err(|_| CertificateFault::NotPem)?;
    if !own.valid_dns_names().any(|name| name == wanted) {
        let found = own.valid_dns_names().next().unwrap_or("nobody").to_owned();
        return Err(CertificateFault::NotForThisNode { found, wanted: wanted.to_owned() });
    }
    let anchors = [anchor_from_trusted_cert(authority).map_err(|_| CertificateFault::NoAuthority)?];
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
    let path = own.verify_for_usage(algorithms, &anchors, &[], now, KeyUsage::client_auth(), None, None);
    match path {
        Ok(_) => Ok(()),
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            Err(CertificateFault::Expired { ago_s: now_s.saturating_sub(not_after.as_secs()) })
        }
        Err(webpki::Error::CertNotValidYet { .. }) => Err(CertificateFault::NotYetValid),
        Err(error) => Err(CertificateFault::NotSigned(error.to_string())),
    }
}

/// The name that a node's certificate bears.
pub fn node_name(node: NodeId, cluster: &str) -> String {
    format!("node-{node}.{cluster}.{SUFFIX}")
}

/// Node and cluster of such a name.
pub fn node_of_name(name: &str) -> Option<(NodeId, &str)> {
    let (node, cluster) = name.strip_suffix(SUFFIX)?.strip_suffix('.')?.split_once('.')?;
    Some((node.strip_prefix("node-")?.parse().ok()?, cluster))
}

pub(super) fn authority_name(cluster: &str) -> String {
    format!("{cluster}.{SUFFIX}")
}

/// The name of the cluster that an authority's certificate names.
pub(super) fn cluster_of_authority(authority: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(authority).ok()?;
    let cluster = certificate.valid_dns_names().find_map(|name| name.strip_suffix(SUFFIX)?.strip_suffix('.'));
    cluster.map(str::to_owned)
}

pub(super) fn authority_of_pem(text: &str) -> Result<CertificateDer<'static>, CertificateFault> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| CertificateFault::NotPem)
}

pub(super) fn certificate_file(node: NodeId) -> String {
    format!("node-{node}.pem")
}

pub(super) fn key_file(node: NodeId) -> String {
    format!("node-{node}.key")
}

/// All certificates of a PEM file that need not be secret, for clients: whom to believe.
///
/// # Errors
/// A file that cannot be read, or that holds no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecretsError> {
    let text = std::fs::read(path).map_err(unusable(path))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(SecretsError::Certificate { path: path.to_owned(), fault: CertificateFault::NotPem }),
    }
}
