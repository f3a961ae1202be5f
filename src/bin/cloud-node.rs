//! `cloud-node N`: one node of the cluster.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use image_cloud::config::secrets::bundles::Occasion;
use image_cloud::config::{ClusterConfig, ConfiguredNode, HttpTls, StrategyName};
use image_cloud::core::election::FirstStart;
use image_cloud::id::{KeyId, NodeId};
use image_cloud::node::key_command::{self, KeyPlace};
use image_cloud::node::reset::reset;
use image_cloud::node::{self, NodeError, NodeOptions, init};
use image_cloud::protocol::membership::Place;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// One node of an Image Cloud.
#[derive(Parser)]
#[command(
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    before_help = "Examples:\n  cloud-node 1                        node 1 of config/cluster.toml; 2 and 3 in other terminals\n  \
                   cloud-node 2 --listen 127.0.0.1:8012 --data /tmp/two\n  RUST_LOG=debug cloud-node 3\n  \
                   cloud-node init --out secrets        secrets for a cluster on several machines\n  \
                   cloud-node 1 --secrets secrets/node-1\n  \
                   cloud-node key rotate                a new key for new images; old ones still open\n  \
                   cloud-node reset 2 --yes             deletes what node 2 keeps on this machine\n  \
                   cloud-node openapi > openapi.json    the description of the HTTP interface, without a running node\n  \
                   cloud-node 4 --listen 127.0.0.1:8004 --join   waits until `client members add 4 127.0.0.1:8004` takes it in",
    after_help = "Ctrl-C or SIGTERM: takes no new jobs, hands over if it coordinates, finishes its jobs, stops; a second one does not wait for them.\n\
                  Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 failed, 2 usage or configuration, 5 removed from the cluster."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which node of the configuration this is
    #[arg(required = true)]
    node: Option<NodeId>,
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
    /// This node's bundle from `cloud-node init`; without it the nodes of one machine make their own secrets in data/cluster
    #[arg(long, env = "CLOUD_SECRETS", value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// HTTP without TLS, for a proxy with TLS on this machine; every call needs the admin token
    #[arg(long, env = "CLOUD_INSECURE_HTTP")]
    insecure_http: bool,
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
    /// With an empty directory: wait until `client members add` or `replace` takes this node in; a node outside the configuration needs --listen
    #[arg(long, conflicts_with = "bootstrap")]
    join: bool,
    /// Seed of jitter and random failures [default: drawn and logged]
    #[arg(long, env = "CLOUD_SEED", value_name = "N")]
    seed: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// Make the secrets of a cluster on several machines: one bundle for each node, and the operator's
    #[command(
        before_help = "Examples:\n  cloud-node init --out secrets                     for the nodes of config/cluster.toml\n  \
                             cloud-node init --out secrets --renew             new certificates of the same cluster\n  \
                             cloud-node init --out secrets --add 4=10.0.0.4:8001   the bundle of one more node"
    )]
    Init {
        /// Where the bundles go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The configuration file, which lists the nodes [default: config/cluster.toml where it exists]
        #[arg(long, env = "CLOUD_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// New certificates, for added nodes too; cluster key, authority and admin token stay
        #[arg(long)]
        renew: bool,
        /// The bundle of one more node, or of a new machine for one, without touching the others
        #[arg(long, value_name = "N=IP:PORT", conflicts_with_all = ["renew", "config"], value_parser = added_node)]
        add: Option<ConfiguredNode>,
    },
    /// Delete a node's data directory: its log, its snapshots and its vote. Secrets stay. Refused while the node runs
    #[command(
        before_help = "Examples:\n  cloud-node reset 2             says what would be deleted\n  cloud-node reset 2 --yes       deletes it"
    )]
    Reset {
        /// Whose
        node: NodeId,
        /// Really
        #[arg(long)]
        yes: bool,
        /// The configuration file [default: config/cluster.toml where it exists]
        #[arg(long, env = "CLOUD_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Directory of logs and secrets [default: data]
        #[arg(long, env = "CLOUD_DATA", value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// The cluster's keys, under which images are locked: make a new one, take an old one out, show them
    #[command(
        before_help = "Examples:\n  cloud-node key list                             id, state and date of each\n  \
                             cloud-node key rotate                           a new current key; old images still open\n  \
                             cloud-node key retire 1a2b3c4d5e6f7081          images under this one no longer open\n  \
                             cloud-node key rotate --out secrets             for the bundles of `cloud-node init --out secrets`"
    )]
    Key {
        #[command(subcommand)]
        action: KeyAction,
        #[command(flatten)]
        place: KeyArguments,
    },
    /// Print the description of the HTTP interface (OpenAPI 3.1), which every node serves at /api/v1/openapi.json
    Openapi,
}

#[derive(Subcommand)]
enum KeyAction {
    /// Make a new current key. Images that are locked already still open
    Rotate,
    /// Take an old key out of use: images that are locked under it are refused by its name
    Retire {
        /// Which, as `cloud-node key list` shows it
        id: KeyId,
    },
    /// Show the keys: id, current, old or retired, when made
    List,
}

#[derive(clap::Args)]
struct KeyArguments {
    /// The directory of the keys [default: data/cluster]
    #[arg(long, env = "CLOUD_SECRETS", value_name = "DIR", global = true)]
    secrets: Option<PathBuf>,
    /// What `cloud-node init --out` made: the operator's keys change, and each bundle gets a copy
    #[arg(long, value_name = "DIR", global = true)]
    out: Option<PathBuf>,
    /// The configuration file [default: config/cluster.toml where it exists]
    #[arg(long, env = "CLOUD_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Directory of logs and secrets [default: data]
    #[arg(long, env = "CLOUD_DATA", value_name = "DIR", global = true)]
    data: Option<PathBuf>,
}

impl KeyArguments {
    fn place(&self) -> Result<KeyPlace, NodeError> {
        if let Some(out) = &self.out {
            return Ok(KeyPlace::Bundles(out.clone()));
        }
        let mut config = ClusterConfig::load(self.config.as_deref())?;
        config.data = self.data.clone().unwrap_or(config.data);
        config.secrets = self.secrets.clone().or(config.secrets);
        Ok(KeyPlace::Directory(config.secrets_directory()))
    }
}

fn options(id: NodeId, arguments: Arguments) -> Result<NodeOptions, NodeError> {
    let mut config = ClusterConfig::load(arguments.config.as_deref())?;
    let cluster_here = config.secrets_directory();
    config.data = arguments.data.unwrap_or(config.data);
    config.secrets = arguments.secrets.or(config.secrets);
    let secrets_from = Some(cluster_here).filter(|_| arguments.join && config.secrets.is_none());
    // A node that was added while the cluster ran need not stand in the file: where the others are, its log tells.
    let was_taken_in = arguments.join || config.node_directory(id).exists();
    if let (Err(_), true, Some(http)) = (config.node(id), was_taken_in, arguments.listen) {
        config.nodes.push(ConfiguredNode { id, http, peer: None });
    }
    let configured = config.node(id)?.clone();
    for node in config.nodes.iter_mut().filter(|node| node.id == id) {
        node.http = arguments.listen.unwrap_or(node.http);
        node.peer = arguments.peer_listen.or(node.peer);
    }
    let own = config.node(id)?;
    let place =
        Place::new(reachable(own.http, configured.http), reachable(own.peer_address(), configured.peer_address()));
    if arguments.insecure_http {
        config.http.tls = HttpTls::Never;
    }
    config.election.strategy = arguments.strategy.unwrap_or(config.election.strategy);
    config.jobs.workers = arguments.workers.unwrap_or(config.jobs.workers);
    config.jobs.simulated_delay_ms = arguments.simulated_delay.unwrap_or(config.jobs.simulated_delay_ms);
    config.jobs.cover = arguments.cover.or(config.jobs.cover);
    config.failures.random |= arguments.failures;
    config.validate()?;
    let seed = arguments.seed.unwrap_or_else(image_cloud::time::unix_millis);
    let first_start = match (arguments.join, arguments.bootstrap) {
        (true, _) => FirstStart::Never,
        (false, true) => FirstStart::Majority,
        (false, false) => FirstStart::Everybody,
    };
    Ok(NodeOptions { id, config, first_start, place, secrets_from, seed, exit_with_parent: false })
}

/// Where others find a node that listens there: on all addresses means on the configured one.
fn reachable(listens: SocketAddr, configured: SocketAddr) -> SocketAddr {
    let ip = if listens.ip().is_unspecified() { configured.ip() } else { listens.ip() };
    SocketAddr::new(ip, listens.port())
}

/// `4=10.0.0.4:8001`.
fn added_node(text: &str) -> Result<ConfiguredNode, String> {
    let wrong = || format!("\"{text}\" is not a node with its address, as in 4=10.0.0.4:8001");
    let (id, http) = text.split_once('=').ok_or_else(wrong)?;
    Ok(ConfiguredNode { id: id.parse()?, http: http.parse().map_err(|_| wrong())?, peer: None })
}

fn run(arguments: Arguments) -> Result<(), NodeError> {
    match (&arguments.command, arguments.node) {
        (Some(Command::Init { out, config, renew, add }), _) => {
            let occasion = if *renew { Occasion::Renew } else { Occasion::Create };
            let text = match add {
                Some(node) => init::add(node, out)?,
                None => init::init(&ClusterConfig::load(config.as_deref())?, out, occasion)?,
            };
            say(&text);
            Ok(())
        }
        (Some(Command::Reset { node, yes, config, data }), _) => {
            let mut config = ClusterConfig::load(config.as_deref())?;
            config.data = data.clone().unwrap_or(config.data);
            say(&reset(&config, *node, *yes)?);
            Ok(())
        }
        (Some(Command::Key { action, place }), _) => {
            let place = place.place()?;
            say(&match action {
                KeyAction::Rotate => key_command::rotate(&place)?,
                KeyAction::Retire { id } => key_command::retire(&place, *id)?,
                KeyAction::List => key_command::list(&place)?,
            });
            Ok(())
        }
        (Some(Command::Openapi), _) => {
            say(&(image_cloud::http::openapi_json() + "\n"));
            Ok(())
        }
        (None, Some(id)) => options(id, arguments).and_then(node::run),
        (None, None) => unreachable!("clap demands a node or a command"),
    }
}

/// A reader that has gone away changes nothing about what was done.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn main() -> ExitCode {
    node::init_logging();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloud-node: {error}");
            ExitCode::from(match () {
                () if error.is_usage() => 2,
                () if error.is_removal() => 5,
                () => 1,
            })
        }
    }
}
