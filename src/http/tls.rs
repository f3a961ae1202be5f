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
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![credentials.certificate.clone()], credentials.key.clone_key())?;
    // RFC 7301: whoever offers other protocols beside it is told that this one is spoken.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;
    use crate::config::secrets::{Authority, Validity};
    use crate::id::NodeId;

    /// The promise: a client or proxy that offers several protocols hears which one is spoken, instead of guessing.
    #[test]
    fn http_1_1_is_announced() {
        let valid = Validity::of_node(crate::time::unix_millis() / 1000);
        let authority = Authority::fresh(valid).unwrap();
        let address = IpAddr::from([127, 0, 0, 1]);
        let issued = authority.issue(NodeId(1), &[address], valid).unwrap();
        let pem = (authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem);
        let credentials = Credentials::new(NodeId(1), pem.0, pem.1, pem.2, valid.from_s + 1).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(credentials.authority.clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut client = ClientConnection::new(Arc::new(client), ServerName::from(address)).unwrap();
        let mut server = ServerConnection::new(Arc::new(server_config(&credentials).unwrap())).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).unwrap();
            server.read_tls(&mut sent.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut answered = Vec::new();
            server.write_tls(&mut answered).unwrap();
            client.read_tls(&mut answered.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}
