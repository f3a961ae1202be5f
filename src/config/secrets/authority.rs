//! The cluster's own certificate authority. The only file that names rcgen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ::time::OffsetDateTime;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::credentials::{self, cluster_of_authority, node_name};
use super::files::{self, SecretDirectory};
use super::{AUTHORITY_FILE, AUTHORITY_KEY_FILE, CertificateFault, SecretsError};
use crate::id::NodeId;

/// Years for which a node's certificate is valid.
pub const NODE_YEARS: u64 = 5;
const AUTHORITY_YEARS: u64 = 10;

pub(super) const DAY_S: u64 = 24 * 60 * 60;
const YEAR_S: u64 = 365 * DAY_S;

/// From when until when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from_s: u64,
    /// The last second.
    pub until_s: u64,
}

impl Validity {
    /// Of a node's certificate that is made now. It begins a day earlier: clocks differ.
    pub fn of_node(now_s: u64) -> Validity {
        Validity { from_s: now_s.saturating_sub(DAY_S), until_s: now_s + NODE_YEARS * YEAR_S }
    }

    /// Of an authority that is made now.
    pub fn of_authority(now_s: u64) -> Validity {
        Validity { from_s: now_s.saturating_sub(DAY_S), until_s: now_s + AUTHORITY_YEARS * YEAR_S }
    }
}

/// Makes certificates for the nodes of one cluster.
pub struct Authority {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as their files hold them.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl Authority {
    /// A new one, of a cluster with a name drawn at random.
    ///
    /// # Errors
    /// The system has no random bytes, or the certificate cannot be made.
    pub fn fresh(valid: Validity) -> Result<Authority, SecretsError> {
        let cluster = files::hex(&files::random::<6>()?);
        let key = KeyPair::generate().map_err(issuing)?;
        let params = authority_params(&cluster, valid)?;
        let certificate_pem = params.self_signed(&key).map_err(issuing)?.pem();
        Ok(Authority { cluster, certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes a certificate for a node, which also names loopback and these addresses, for clients.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn issue(&self, node: NodeId, addresses: &[IpAddr], valid: Validity) -> Result<Issued, SecretsError> {
        let key = KeyPair::generate().map_err(issuing)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("node {node} of Image Cloud {}", self.cluster));
        params.subject_alt_names = vec![dns(&node_name(node, &self.cluster))?, dns("localhost")?];
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let others = addresses.iter().filter(|address| !address.is_unspecified() && !loopback.contains(address));
        params.subject_alt_names.extend(loopback.iter().chain(others).copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (date(valid.from_s)?, date(valid.until_s)?);
        let certificate = params.signed_by(&key, &self.issuer).map_err(issuing)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The authority whose key lies in a directory of secrets.
    ///
    /// # Errors
    /// It is missing, too open or damaged.
    pub fn open(directory: &Path) -> Result<Authority, SecretsError> {
        Authority::load(&SecretDirectory::open(directory)?)
    }

    pub(super) fn load(directory: &SecretDirectory) -> Result<Authority, SecretsError> {
        let path = directory.existing(AUTHORITY_FILE)?;
        let fault = |fault| SecretsError::Certificate { path: path.clone(), fault };
        let certificate_pem = files::read(&path)?.ok_or_else(|| fault(CertificateFault::NotPem))?;
        let cluster = cluster_of_authority(&credentials::authority_of_pem(&certificate_pem).map_err(fault)?);
        let cluster = cluster.ok_or_else(|| fault(CertificateFault::NoAuthority))?;

        let path = directory.existing(AUTHORITY_KEY_FILE)?;
        let key = files::read(&path)?.and_then(|text| KeyPair::from_pem(&text).ok());
        let key = key.ok_or(SecretsError::Certificate { path, fault: CertificateFault::NotPem })?;
        // Only name and key of the issuer stand in what it issues.
        let params = authority_params(&cluster, Validity { from_s: 0, until_s: 0 })?;
        Ok(Authority { cluster, certificate_pem, issuer: Issuer::new(params, key) })
    }

    pub(super) fn store(&self, directory: &SecretDirectory) -> Result<(), SecretsError> {
        directory.write(AUTHORITY_KEY_FILE, &self.issuer.key().serialize_pem())?;
        directory.write(AUTHORITY_FILE, &self.certificate_pem)
    }
}

impl Issued {
    pub(super) fn store(&self, directory: &SecretDirectory, node: NodeId) -> Result<(), SecretsError> {
        directory.write(&credentials::key_file(node), &self.key_pem)?;
        directory.write(&credentials::certificate_file(node), &self.certificate_pem)
    }
}

/// The authority's name follows from the cluster's, so that its certificate needs not be parsed to issue in its name.
fn authority_params(cluster: &str, valid: Validity) -> Result<CertificateParams, SecretsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Image Cloud {cluster}"));
    params.subject_alt_names = vec![dns(&credentials::authority_name(cluster))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date(valid.from_s)?, date(valid.until_s)?);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn dns(name: &str) -> Result<SanType, SecretsError> {
    Ok(SanType::DnsName(name.try_into().map_err(issuing)?))
}

fn date(unix_s: u64) -> Result<OffsetDateTime, SecretsError> {
    OffsetDateTime::from_unix_timestamp(unix_s as i64).map_err(|error| SecretsError::Issuing(error.to_string()))
}

fn issuing(error: rcgen::Error) -> SecretsError {
    SecretsError::Issuing(error.to_string())
}
