//! Which cluster: `--nodes`, else CLOUD_NODES, else the configuration file, else 127.0.0.1:8001 to 8003.

use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};

use super::exit::{CommandError, Exit};
use crate::client::{ClientCredentials, ClientSettings, Cluster, NodeAddress};
use crate::config::secrets::{ADMIN_TOKEN_FILE, AUTHORITY_FILE, AdminToken, read_certificates};
use crate::config::{ClusterConfig, ConfiguredNode};
use crate::id::RequestId;
use crate::image::Limits;

#[derive(Clone, Debug, clap::Args)]
pub struct TargetArguments {
    /// The nodes, with commas between them, as in 127.0.0.1:8001,127.0.0.1:8002
    #[arg(
        long,
        global = true,
        env = "CLOUD_NODES",
        value_delimiter = ',',
        value_name = "URL",
        help_heading = "Cluster"
    )]
    pub nodes: Vec<String>,
    /// Take the nodes from this file [default: config/cluster.toml where it exists, else 127.0.0.1:8001 to 8003]
    #[arg(long, global = true, env = "CLOUD_CONFIG", value_name = "FILE", help_heading = "Cluster")]
    pub config: Option<PathBuf>,
    /// The certificate of the cluster's authority, for nodes with TLS [default: ca.pem beside the admin token]
    #[arg(long, global = true, env = "CLOUD_CA", value_name = "FILE", help_heading = "Cluster")]
    pub ca: Option<PathBuf>,
    /// The file of the cluster's admin token [default: admin.token in the secrets of the configuration, as in data/cluster]
    #[arg(long, global = true, env = "CLOUD_ADMIN_TOKEN_FILE", value_name = "FILE", help_heading = "Cluster")]
    pub admin_token_file: Option<PathBuf>,
}

/// The cluster and a generator for request ids, seeded by the system: ids of two runs must never be the same.
pub struct Target {
    pub cluster: Cluster,
    pub generator: StdRng,
}

impl Target {
    pub fn fresh_id(&mut self) -> RequestId {
        RequestId(self.generator.random())
    }
}

impl TargetArguments {
    /// Sets up the client; nothing is sent yet.
    pub fn open(&self, request_deadline: Option<Duration>) -> Result<Target, CommandError> {
        let mut generator = StdRng::try_from_rng(&mut SysRng)
            .map_err(|error| CommandError::new(Exit::Failed, format!("the system gives no random numbers: {error}")))?;
        let mut settings = ClientSettings::new(self.addresses()?, generator.random());
        settings.credentials = self.credentials()?;
        settings.answer_limit = self.limits().file_bytes();
        settings.request_deadline = request_deadline.unwrap_or(settings.request_deadline);
        Ok(Target { cluster: Cluster::new(settings)?, generator })
    }

    fn addresses(&self) -> Result<Vec<NodeAddress>, CommandError> {
        if !self.nodes.is_empty() {
            let named = self.nodes.iter().filter(|text| !text.trim().is_empty());
            return Ok(named.map(|text| text.parse()).collect::<Result<_, _>>()?);
        }
        let config = ClusterConfig::load(self.config.as_deref())?;
        let address = |node: &ConfiguredNode| NodeAddress { node: Some(node.id), url: config.url(node) };
        Ok(config.nodes.iter().map(address).collect())
    }

    /// What a picture may ask for on this machine. As for the credentials, a configuration is not needed.
    pub fn limits(&self) -> Limits {
        let limits = ClusterConfig::load(self.config.as_deref()).unwrap_or_default().limits;
        Limits::configured(limits.original_mib, limits.sealed_mib, limits.megapixels, limits.side)
    }

    /// Named files must be there; the configured ones are used if they are.
    fn credentials(&self) -> Result<ClientCredentials, CommandError> {
        // With --nodes no configuration is needed, and a broken one must not matter.
        let config = ClusterConfig::load(self.config.as_deref()).unwrap_or_default();
        let configured = |name| Some(config.secrets_directory().join(name)).filter(|path: &PathBuf| path.exists());
        let token = self.admin_token_file.clone().or_else(|| configured(ADMIN_TOKEN_FILE));
        let beside = || token.as_ref().map(|token| token.with_file_name(AUTHORITY_FILE)).filter(|path| path.exists());
        let authority = self.ca.clone().or_else(beside).or_else(|| configured(AUTHORITY_FILE));
        Ok(ClientCredentials {
            authorities: authority.as_deref().map(read_certificates).transpose()?.unwrap_or_default(),
            token: token.as_deref().map(AdminToken::read).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn named_nodes_come_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.toml");
        std::fs::write(&path, "[[nodes]]\nid = 7\nhttp = \"127.0.0.1:9999\"\n").unwrap();
        let from = |nodes: &[&str]| {
            let nodes = nodes.iter().map(|&text| text.to_owned()).collect();
            TargetArguments { nodes, config: Some(path.clone()), ca: None, admin_token_file: None }.addresses()
        };
        let file = from(&[]).unwrap();
        assert_eq!((file[0].node, file[0].url.as_str()), (Some(NodeId(7)), "http://127.0.0.1:9999"));
        let named = from(&["127.0.0.1:1", "", "http://127.0.0.1:2"]).unwrap();
        let urls: Vec<_> = named.iter().map(|node| node.url.as_str()).collect();
        assert_eq!(urls, ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        assert_eq!(from(&["nonsense::"]).unwrap_err().exit, Exit::Usage);
    }

    /// What the nodes of a configuration may seal, its client may send, read and open.
    #[test]
    fn the_limits_are_those_of_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.toml");
        let limits = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let config = Some(path.clone());
            TargetArguments { nodes: Vec::new(), config, ca: None, admin_token_file: None }.limits()
        };
        assert_eq!(limits(""), Limits::default());
        let raised = limits("[limits]\nsealed_mib = 500\noriginal_mib = 200\nmegapixels = 300\nside = 40000\n");
        assert_eq!((raised.sealed_bytes, raised.original_bytes), (500 << 20, 200 << 20));
        assert_eq!((raised.pixels, raised.side, raised.file_bytes()), (300_000_000, 40_000, 500 << 20));
    }

    #[test]
    fn a_named_file_that_is_missing_is_not_found() {
        let missing = TargetArguments {
            nodes: Vec::new(),
            config: Some("no/such.toml".into()),
            ca: None,
            admin_token_file: None,
        };
        assert_eq!(missing.addresses().unwrap_err().exit, Exit::NotFound);
    }
}
