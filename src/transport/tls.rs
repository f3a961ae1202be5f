//! TLS between nodes: version 1.3 only, both sides show a certificate of the cluster's authority, and each names its node.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, HandshakeKind,
    InvalidMessage, OtherError, RootCertStore, ServerConfig, SignatureScheme,
};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use webpki::EndEntityCert;

use crate::config::secrets::{Credentials, node_name, node_of_name};
use crate::id::NodeId;
use crate::time::unix_millis;
use crate::transport::wire::FrameReader;

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// An authenticated connection to or from another node.
pub type PeerStream = TlsStream<TcpStream>;

/// What is wrong with the other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsFault {
    /// It does not speak TLS.
    #[error(
        "it does not speak TLS (its first bytes are \"{}\"): is this an HTTP request to the node port, or a node of an older release?",
        .found.escape_ascii()
    )]
    Plain {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// It shows no certificate.
    #[error("it shows no certificate: only nodes of this cluster are let in")]
    NoCertificate,
    /// An authority that nobody here knows.
    #[error("its certificate is a stranger's: this cluster's authority did not sign it")]
    Stranger,
    /// A node of another cluster.
    #[error(
        "it is a node of another cluster ({theirs}, this one is {ours}): give it the secrets of this cluster, or correct the address: \
         before the first start in config/cluster.toml, later with `client members replace N ADDRESS`"
    )]
    OtherCluster {
        /// The other cluster, as its certificate names it.
        theirs: String,
        /// This cluster.
        ours: String,
    },
    /// Its certificate is too old.
    #[error("its certificate has expired: make a new one with `cloud-node init --renew` and copy it there")]
    Expired,
    /// Its certificate is of the future.
    #[error("its certificate is not valid yet: set the clocks of both machines")]
    NotYetValid,
    /// Its certificate is of another node than was called.
    #[error(
        "its certificate is that of node {0}: give each node the bundle that was made for it, or correct the address: before the \
         first start in config/cluster.toml, later with `client members replace N ADDRESS`"
    )]
    OtherNode(NodeId),
    /// Its certificate names no node.
    #[error("its certificate names no node")]
    NoNode,
    /// It does not accept this node's certificate.
    #[error("it refuses this node's certificate ({0}): its log says why")]
    RefusesUs(String),
    /// What arrives is not what was sent.
    #[error("what arrives is not what was sent, or is no TLS ({0})")]
    Altered(String),
    /// Anything else.
    #[error("TLS failed: {0}")]
    Other(String),
}

impl From<&rustls::Error> for TlsFault {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => certificate_fault(error),
            rustls::Error::NoCertificatesPresented => TlsFault::NoCertificate,
            rustls::Error::AlertReceived(
                alert @ (AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied),
            ) => TlsFault::RefusesUs(format!("{alert:?}")),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                TlsFault::Altered("not a TLS record".to_owned())
            }
            rustls::Error::DecryptError
            | rustls::Error::InvalidMessage(_)
            | rustls::Error::PeerMisbehaved(_)
            | rustls::Error::AlertReceived(AlertDescription::BadRecordMac) => TlsFault::Altered(error.to_string()),
            other => TlsFault::Other(other.to_string()),
        }
    }
}

fn certificate_fault(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::Stranger,
        // What our own verifiers found.
        CertificateError::Other(OtherError(other)) => {
            other.downcast_ref().cloned().unwrap_or_else(|| TlsFault::Other(other.to_string()))
        }
        other => TlsFault::Other(other.to_string()),
    }
}

impl TlsFault {
    /// The fault behind an error of the stream, if TLS found it.
    pub fn of(error: &io::Error) -> Option<TlsFault> {
        let inner: &(dyn Error + 'static) = error.get_ref()?;
        inner.downcast_ref::<rustls::Error>().map(TlsFault::from)
    }
}

/// Why there is no authenticated connection.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The other side is not who it should be.
    #[error(transparent)]
    Fault(#[from] TlsFault),
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
}

impl HandshakeError {
    /// Tells the kinds apart, of which there are few. (The text may hold a stranger's own bytes.)
    pub fn kind(&self) -> String {
        match self {
            HandshakeError::Fault(fault) => format!("{:?}", std::mem::discriminant(fault)),
            HandshakeError::Io(_) => "socket".to_owned(),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        TlsFault::of(&error).map_or_else(|| HandshakeError::Io(error), HandshakeError::Fault)
    }
}

/// Both sides of TLS for one node. Clones share the sessions, which make the next connection to a peer cheaper.
#[derive(Clone)]
pub struct NodeTls {
    cluster: Arc<str>,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    /// Looks at callers' certificates.
    clients: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for NodeTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeTls({})", self.cluster)
    }
}

/// A caller whose certificate is good.
pub struct Accepted {
    /// The connection.
    pub stream: PeerStream,
    /// The node that its certificate names.
    pub node: NodeId,
}

/// A caller that is not let in.
pub struct Refused {
    /// Why.
    pub why: HandshakeError,
    /// The connection, if the caller is to be told.
    pub stream: Option<TcpStream>,
}

impl Refused {
    /// Ends the connection so that what the caller was told reaches it: closing it with unread bytes would reset it.
    pub async fn leave(self, limit: Duration) {
        let Some(mut stream) = self.stream else { return };
        let last_words = async {
            if stream.shutdown().await.is_ok() {
                FrameReader::new(stream).discard().await;
            }
        };
        // Who does not leave by then is left.
        let _ = tokio::time::timeout(limit, last_words).await;
    }
}

impl NodeTls {
    /// TLS with these credentials.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn new(credentials: &Credentials) -> Result<NodeTls, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(credentials.authority.clone())?;
        let roots = Arc::new(roots);
        let invalid = |error: rustls::server::VerifierBuilderError| rustls::Error::General(error.to_string());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let cluster: Arc<str> = credentials.cluster.as_str().into();
        let clients = Named { cluster: cluster.clone(), inner: clients.build().map_err(invalid)? };
        let clients: Arc<dyn ClientCertVerifier> = Arc::new(clients);
        let servers = Named { cluster: cluster.clone(), inner: servers.build().map_err(invalid)? };
        let chain = || vec![credentials.certificate.clone()];

        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(chain(), credentials.key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_auth_cert(chain(), credentials.key.clone_key())?;
        let (connector, acceptor) = (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server)));
        Ok(NodeTls { cluster, connector, acceptor, clients })
    }

    /// Makes sure that node `to` answers on a connection that this node opened.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect(&self, to: NodeId, stream: TcpStream) -> Result<PeerStream, HandshakeError> {
        let name =
            ServerName::try_from(node_name(to, &self.cluster)).map_err(|error| TlsFault::Other(error.to_string()))?;
        Ok(self.connector.connect(name, stream).await?.into())
    }

    /// Finds out which node calls; none if it leaves without a word, as a probe does.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn accept(&self, stream: TcpStream) -> Result<Option<Accepted>, Refused> {
        let refused = |why: HandshakeError| Refused { why, stream: None };
        let mut first = [0; 4];
        let found = match stream.peek(&mut first).await {
            Ok(0) => return Ok(None),
            Ok(found) => &first[..found],
            Err(error) => return Err(refused(error.into())),
        };
        if found[0] != HANDSHAKE_RECORD {
            return Err(refused(TlsFault::Plain { found: found.to_vec() }.into()));
        }
        match self.acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                // A session goes on without the certificate being shown once more, also when it has expired meanwhile.
                if let Some(certificate) = certificate
                    && stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
                {
                    let now = UnixTime::since_unix_epoch(Duration::from_millis(unix_millis()));
                    let verified = self.clients.verify_client_cert(certificate, &[], now);
                    verified.map_err(|error| refused(TlsFault::from(&error).into()))?;
                }
                match certificate.and_then(|certificate| self.named(certificate)) {
                    Some(node) => Ok(Some(Accepted { stream: stream.into(), node })),
                    None => Err(refused(TlsFault::NoNode.into())),
                }
            }
            Err((error, stream)) => Err(Refused { why: error.into(), stream: Some(stream) }),
        }
    }

    /// The node that a certificate of this cluster names.
    fn named(&self, certificate: &CertificateDer<'_>) -> Option<NodeId> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let mut nodes = certificate.valid_dns_names().filter_map(node_of_name);
        nodes.find(|(_, cluster)| **cluster == *self.cluster).map(|(node, _)| node)
    }
}

/// The library's verifier, which says besides whose the certificate is that it refuses.
#[derive(Debug)]
struct Named<V: ?Sized> {
    cluster: Arc<str>,
    inner: Arc<V>,
}

impl<V: ?Sized> Named<V> {
    fn explain(&self, certificate: &CertificateDer<'_>, error: rustls::Error) -> rustls::Error {
        let rustls::Error::InvalidCertificate(refused) = &error else { return error };
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return error };
        let named = certificate.valid_dns_names().find_map(node_of_name);
        let fault = match (refused, named) {
            (CertificateError::UnknownIssuer | CertificateError::BadSignature, Some((_, theirs)))
                if *theirs != *self.cluster =>
            {
                TlsFault::OtherCluster { theirs: theirs.to_owned(), ours: self.cluster.as_ref().to_owned() }
            }
            (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, named) => {
                TlsFault::OtherNode(named.map(|(node, _)| node).unwrap_or_default())
            }
            _ => return error,
        };
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

impl ClientCertVerifier for Named<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now);
        verified.map_err(|error| self.explain(end_entity, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Named<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| self.explain(end_entity, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
pub(crate) mod for_tests {
    //! Certificates made in memory.

    use super::*;
    use crate::config::secrets::{Authority, Validity};

    pub(crate) fn now_s() -> u64 {
        unix_millis() / 1000
    }

    pub(crate) fn authority() -> Authority {
        Authority::fresh(Validity::of_authority(now_s())).unwrap()
    }

    pub(crate) fn tls_of(authority: &Authority, node: u16) -> NodeTls {
        tls_valid(authority, node, Validity::of_node(now_s()))
    }

    pub(crate) fn tls_valid(authority: &Authority, node: u16, valid: Validity) -> NodeTls {
        let issued = authority.issue(NodeId(node), &[], valid).unwrap();
        // As of a time at which it was good.
        let (certificate, key) = (&issued.certificate_pem, &issued.key_pem);
        let credentials =
            Credentials::new(NodeId(node), authority.certificate_pem(), certificate, key, valid.from_s + 1);
        NodeTls::new(&credentials.unwrap()).unwrap()
    }
}
