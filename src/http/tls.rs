//! HTTP over TLS with the node's certificate. Clients show none: they have tokens.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;

use crate::config::secrets::Credentials;

/// The server's side of TLS.
///
/// # Errors
/// Certificate and key do not belong together.
pub fn server_config(credentials: &Credentials) -> Result<ServerConfig, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![credentials.certificate.clone()], credentials.key.clone_key())
}
