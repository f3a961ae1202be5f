//! Where a node may listen: off loopback only with a bundle of secrets of its own.

use super::options::NodeError;
use crate::config::{ClusterConfig, ConfiguredNode, HttpTls};

/// Refuses an address that the node's secrets do not allow. What is allowed and deserves a warning is returned.
pub(super) fn check(config: &ClusterConfig, node: &ConfiguredNode) -> Result<Option<String>, NodeError> {
    let addresses = [(node.http, "nodes.http", "--listen"), (node.peer_address(), "nodes.peer", "--peer-listen")];
    let outward = addresses.into_iter().find(|(address, ..)| !address.ip().is_loopback());
    if let (Some((address, key, flag)), None) = (outward, &config.secrets) {
        return Err(NodeError::NotLoopback { address, key, flag });
    }
    let in_clear = config.http.tls == HttpTls::Never;
    Ok(in_clear.then(|| {
        let http = node.http;
        format!(
            "HTTP on {http} is not encrypted (--insecure-http, or http.tls = \"never\"): only a proxy with TLS on this machine may \
             reach it; every call needs the admin token, which travels in clear"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn checked(http: &str, peer: &str, bundle: bool, tls: HttpTls) -> Result<Option<String>, NodeError> {
        let node = ConfiguredNode { id: NodeId(1), http: http.parse().unwrap(), peer: Some(peer.parse().unwrap()) };
        let mut config = ClusterConfig { secrets: bundle.then(|| "secrets/node-1".into()), ..ClusterConfig::default() };
        config.http.tls = tls;
        check(&config, &node)
    }

    #[test]
    fn off_loopback_needs_a_bundle_for_either_port() {
        let (here, there) = ("127.0.0.1:8001", "10.0.0.1:9001");
        for (http, peer) in [(there, here), (here, there), ("0.0.0.0:1", here), (here, "[::]:1")] {
            let error = checked(http, peer, false, HttpTls::Auto).unwrap_err().to_string();
            assert!(error.contains("cloud-node init") && error.contains("--secrets"), "{error}");
            assert_eq!(checked(http, peer, true, HttpTls::Auto).unwrap(), None);
        }
        assert_eq!(checked(here, "[::1]:9001", false, HttpTls::Auto).unwrap(), None);
    }

    #[test]
    fn http_in_clear_needs_a_bundle_off_loopback_too_and_always_warns() {
        assert!(checked("10.0.0.1:8001", "10.0.0.1:9001", false, HttpTls::Never).is_err());
        for http in ["10.0.0.1:8001", "127.0.0.1:8001"] {
            let warning = checked(http, "127.0.0.1:9001", true, HttpTls::Never).unwrap().unwrap();
            assert!(warning.contains(http) && warning.contains("not encrypted"), "{warning}");
        }
    }
}
