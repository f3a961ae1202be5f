//! `cloud-node N`: one node of the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use image_cloud::config::{ClusterConfig, StrategyName};
use image_cloud::id::NodeId;
use image_cloud::node::{self, NodeError, NodeOptions};

/// One node of an Image Cloud.
#[derive(Parser)]
#[command(
    version,
    before_help = "Examples:\n  cloud-node 1                        node 1 of config/cluster.toml; 2 and 3 in other terminals\n  \
                   cloud-node 2 --listen 127.0.0.1:8012 --data /tmp/two\n  RUST_LOG=debug cloud-node 3",
    after_help = "Ctrl-C or SIGTERM: takes no new jobs, hands over if it coordinates, finishes its jobs, stops; a second one does not wait for them.\n\
                  Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 failed, 2 usage or configuration."
)]
struct Arguments {
    /// Which node of the configuration this is
    node: NodeId,
    /// The configuration file [default: config/cluster.toml where it exists]
    #[arg(long, env = "CLOUD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for people and programs (HTTP)
    #[arg(long, env = "CLOUD_LISTEN", value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Address for the other nodes [default: the HTTP port + 1000]
    #[arg(long, env = "CLOUD_PEER_LISTEN", value_name = "IP:PORT")]
    peer_listen: Option<SocketAddr>,
    /// Directory of logs and secrets [default: data]
    #[arg(long, env = "CLOUD_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// How a coordinator is found
    #[arg(long, env = "CLOUD_STRATEGY", value_enum)]
    strategy: Option<StrategyName>,
    /// Image workers; 0 means one per core
    #[arg(long, env = "CLOUD_WORKERS", value_name = "N")]
    workers: Option<u32>,
    /// Make every job last at least this many milliseconds
    #[arg(long, env = "CLOUD_SIMULATED_DELAY_MS", value_name = "MS")]
    simulated_delay: Option<u64>,
    /// Simulate random failures (by default 20 % every 30 s, for 10 to 20 s)
    #[arg(long, env = "CLOUD_FAILURES")]
    failures: bool,
    /// A picture of your own in place of the Access Denied banner
    #[arg(long, env = "CLOUD_COVER", value_name = "FILE")]
    cover: Option<PathBuf>,
    /// First start only, one node only: begin with the majority that answers
    #[arg(long)]
    bootstrap: bool,
    /// Seed of jitter and random failures [default: drawn and logged]
    #[arg(long, env = "CLOUD_SEED", value_name = "N")]
    seed: Option<u64>,
}

fn options(arguments: Arguments) -> Result<NodeOptions, NodeError> {
    let id = arguments.node;
    let mut config = ClusterConfig::load(arguments.config.as_deref())?;
    config.node(id)?;
    for node in config.nodes.iter_mut().filter(|node| node.id == id) {
        node.http = arguments.listen.unwrap_or(node.http);
        node.peer = arguments.peer_listen.or(node.peer);
    }
    config.data = arguments.data.unwrap_or(config.data);
    config.election.strategy = arguments.strategy.unwrap_or(config.election.strategy);
    config.jobs.workers = arguments.workers.unwrap_or(config.jobs.workers);
    config.jobs.simulated_delay_ms = arguments.simulated_delay.unwrap_or(config.jobs.simulated_delay_ms);
    config.jobs.cover = arguments.cover.or(config.jobs.cover);
    config.failures.random |= arguments.failures;
    config.validate()?;
    let seed = arguments.seed.unwrap_or_else(image_cloud::time::unix_millis);
    Ok(NodeOptions { id, config, bootstrap: arguments.bootstrap, seed, exit_with_parent: false })
}

fn main() -> ExitCode {
    node::init_logging();
    match options(Arguments::parse()).and_then(node::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloud-node: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}
