//! Which nodes there are, and the numbers of the client.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use rustls::pki_types::CertificateDer;

use super::error::ClientError;
use crate::config::secrets::AdminToken;
use crate::id::NodeId;
use crate::image::Limits;

/// A node as the client finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Its id where it is known; otherwise learned from its first answer.
    pub node: Option<NodeId>,
    /// `http://HOST:PORT` or `https://HOST:PORT`, without a path.
    pub url: String,
}

impl FromStr for NodeAddress {
    type Err = ClientError;

    /// Takes `http://HOST:PORT`, `https://HOST:PORT` and `HOST:PORT`, which stands for the first.
    fn from_str(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let wrong = |reason: String| ClientError::BadAddress { address: text.to_owned(), reason };
        let url = Url::parse(&full).map_err(|error| wrong(error.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(wrong(format!("nodes speak http and https, not {}", url.scheme())));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            return Err(wrong("only host and port are expected".into()));
        }
        Ok(NodeAddress { node: None, url: url.as_str().trim_end_matches('/').to_owned() })
    }
}

/// The numbers of the client. Start from [`ClientSettings::new`] and change what you need.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// All nodes of the cluster.
    pub nodes: Vec<NodeAddress>,
    /// How long one logical request may take, all attempts included.
    pub request_deadline: Duration,
    /// The least time that one attempt gets; it is given twice the moving 99th percentile if that is more.
    pub attempt_timeout: Duration,
    /// How long the coordinator's placement is waited for, and after which a node counts as late.
    pub announce_timeout: Duration,
    /// How long an announcement may hang before its connection is dropped and the node counts as silent.
    pub announce_hang: Duration,
    /// Pace at which a silent node is tried again while there are requests to announce.
    pub probe_interval: Duration,
    /// Mean of the first back-off is half of this; it doubles with each attempt.
    pub back_off_base: Duration,
    /// Longest back-off that the client chooses by itself.
    pub back_off_cap: Duration,
    /// Most uploads at any time; further ones wait for a place.
    pub upload_limit: usize,
    /// Largest answer that is accepted, in bytes.
    pub answer_limit: u64,
    /// How long status, events and commands may take.
    pub query_timeout: Duration,
    /// Seed of the generator for back-off and ties.
    pub seed: u64,
    /// What the client shows, and whom it believes.
    pub credentials: ClientCredentials,
}

/// What a client shows to nodes, and whom it believes.
#[derive(Clone, Debug, Default)]
pub struct ClientCredentials {
    /// The authorities whose certificates a node with TLS may show.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Shown where it stays secret: to nodes with TLS in every call, to nodes on loopback in those that administer.
    pub token: Option<AdminToken>,
}

impl ClientCredentials {
    /// The token for a call that administers; none for an address to which it would travel in clear.
    pub(super) fn token_for(&self, url: &str) -> Option<&AdminToken> {
        let url = Url::parse(url).ok()?;
        let is_loopback = match url.host_str()? {
            "localhost" => true,
            host => host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        };
        self.token.as_ref().filter(|_| is_loopback || url.scheme() == "https")
    }
}

impl ClientSettings {
    /// The defaults, for these nodes.
    pub fn new(nodes: Vec<NodeAddress>, seed: u64) -> Self {
        ClientSettings {
            nodes,
            request_deadline: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(1),
            announce_timeout: Duration::from_millis(100),
            announce_hang: Duration::from_millis(500),
            probe_interval: Duration::from_millis(200),
            back_off_base: Duration::from_millis(20),
            back_off_cap: Duration::from_millis(500),
            upload_limit: 256,
            answer_limit: Limits::default().file_bytes(),
            query_timeout: Duration::from_secs(1),
            seed,
            credentials: ClientCredentials::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_the_scheme() {
        for text in ["127.0.0.1:8001", "http://127.0.0.1:8001", "http://127.0.0.1:8001/", " 127.0.0.1:8001 "] {
            assert_eq!(text.parse::<NodeAddress>().unwrap().url, "http://127.0.0.1:8001", "{text}");
        }
        assert_eq!("localhost:8001".parse::<NodeAddress>().unwrap().url, "http://localhost:8001");
        assert_eq!("https://10.0.0.1:8001/".parse::<NodeAddress>().unwrap().url, "https://10.0.0.1:8001");
    }

    #[test]
    fn the_token_never_travels_in_clear() {
        let token = Some(AdminToken::fresh().unwrap());
        let credentials = ClientCredentials { authorities: Vec::new(), token };
        for (url, shown) in [
            ("http://127.0.0.1:8001", true),
            ("http://[::1]:8001", true),
            ("http://localhost:8001", true),
            ("https://10.0.0.1:8001", true),
            ("http://10.0.0.1:8001", false),
            ("http://localhost.evil.example:8001", false),
            ("http://127.0.0.1.evil.example:8001", false),
        ] {
            assert_eq!(credentials.token_for(url).is_some(), shown, "{url}");
        }
        assert!(ClientCredentials::default().token_for("https://10.0.0.1:8001").is_none());
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for text in ["", "ftp://127.0.0.1:8001", "127.0.0.1:8001/status", "127.0.0.1:99999", "http://a:1?x=1"] {
            let error = text.parse::<NodeAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
        }
    }
}
