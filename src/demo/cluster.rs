//! The demo's own cluster: its nodes are processes of this same program, on free loopback ports, in a temporary directory.
//!
//! Nothing is left behind, whatever happens to the demo. It ends its nodes and removes the directory when the cluster is dropped,
//! after a panic too. If it is killed, its end of each node's standard input closes: the node stops, and because its parent is
//! gone, it removes the directory.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use crate::config::secrets::{self, AdminToken, KeyBytes, NodeSecrets, SecretsError};
use crate::config::{ClusterConfig, ConfiguredNode, FailureNumbers, JobNumbers};
use crate::core::election::FirstStart;
use crate::id::NodeId;
use crate::node::{self, END_OF_FAILURE, NodeOptions};
use crate::time::now;

/// The hidden first argument that makes this program a node.
pub const NODE_ARGUMENT: &str = "__node";
const DIRECTORY_PREFIX: &str = "image-cloud-demo-";
const CONFIG_FILE: &str = "cluster.toml";
/// How long a node may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why the demo has no cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The system refused.
    #[error("cannot start the nodes: {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No pair of ports is free.
    #[error("found no free loopback ports for the nodes between 10000 and 31000")]
    NoPorts,
    /// A node ended by itself.
    #[error("node {node} ended at its start ({status}); the end of its log, {log}:\n{tail}")]
    Ended {
        /// The node.
        node: NodeId,
        /// How it ended.
        status: String,
        /// Its log.
        log: String,
        /// The last lines of it.
        tail: String,
    },
    /// The secrets of the new cluster cannot be made.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ClusterError {
    let what = what.into();
    |source| ClusterError::System { what, source }
}

/// What the nodes are started with.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// How many.
    pub nodes: u16,
    /// Image workers of each.
    pub workers: u32,
    /// Whether they fail at random by themselves.
    pub failures: FailureNumbers,
    /// Seed; each node gets one of its own from it.
    pub seed: u64,
    /// Name of the run.
    pub run_id: String,
    /// Where the logs of the nodes go.
    pub logs: PathBuf,
    /// Whether the lines of the logs are printed too.
    pub echo: Echo,
}

/// Whether the lines of the nodes' logs are also printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// To standard error, each with its node.
    On,
    /// To the file only.
    Off,
}

/// The standard inputs of the nodes. Their ends tell a node that its parent is gone, so the cluster keeps them too.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    inputs: Arc<BTreeMap<NodeId, Mutex<ChildStdin>>>,
}

impl Lines {
    /// Ends the failure of a node, which hears nobody over the network.
    ///
    /// # Errors
    /// The node is gone.
    pub fn end_failure(&self, node: NodeId) -> std::io::Result<()> {
        let input = self.inputs.get(&node).ok_or(std::io::ErrorKind::NotFound)?;
        let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(input, "{END_OF_FAILURE}")?;
        input.flush()
    }
}

/// Running nodes. Dropping it ends them and removes their directory.
#[derive(Debug)]
pub struct OwnCluster {
    directory: PathBuf,
    config: ClusterConfig,
    plan: ClusterPlan,
    program: PathBuf,
    echo: Option<SyncSender<String>>,
    /// Made before any node starts, so that they are there for the clients too.
    secrets: NodeSecrets,
    children: Vec<(NodeId, Child)>,
    lines: Lines,
}

impl OwnCluster {
    /// Starts the nodes. They are not ready yet.
    ///
    /// # Errors
    /// No ports, no directory, or no processes.
    pub fn start(plan: &ClusterPlan) -> Result<OwnCluster, ClusterError> {
        let directory = std::env::temp_dir().join(format!("{DIRECTORY_PREFIX}{}", plan.run_id));
        DirBuilder::new().mode(0o700).create(&directory).map_err(system(directory.display().to_string()))?;
        let config = ClusterConfig {
            data: directory.join("data"),
            nodes: free_nodes(plan.nodes)?,
            jobs: JobNumbers { workers: plan.workers, ..JobNumbers::default() },
            failures: plan.failures.clone(),
            ..ClusterConfig::default()
        };
        let secrets = match secrets::of_one_machine(&config.secrets_directory(), NodeId(1)) {
            Ok(secrets) => secrets,
            Err(error) => {
                remove(&directory);
                return Err(error.into());
            }
        };
        // From here on a return drops the cluster, which cleans up.
        let mut cluster = OwnCluster {
            directory,
            config,
            plan: plan.clone(),
            program: PathBuf::new(),
            echo: None,
            secrets,
            children: Vec::new(),
            lines: Lines::default(),
        };
        let text = toml::to_string(&cluster.config).map_err(std::io::Error::other).map_err(system(CONFIG_FILE))?;
        let path = cluster.directory.join(CONFIG_FILE);
        fs::write(&path, text).map_err(system(path.display().to_string()))?;
        cluster.program = std::env::current_exe().map_err(system("the path of this program"))?;
        if plan.echo == Echo::On {
            cluster.echo = Some(printer().map_err(system("a thread for the logs"))?);
        }
        for id in (1..=plan.nodes).map(NodeId) {
            let log = cluster.log(id);
            let file = File::create(&log).map_err(system(log.display().to_string()))?;
            let child = cluster.spawn(id, file)?;
            cluster.children.push((id, child));
        }
        let inputs = cluster.children.iter_mut();
        let inputs = inputs.filter_map(|(id, child)| child.stdin.take().map(|input| (*id, Mutex::new(input))));
        cluster.lines = Lines { inputs: Arc::new(inputs.collect()) };
        Ok(cluster)
    }

    fn spawn(&self, id: NodeId, log: File) -> Result<Child, ClusterError> {
        let seed = self.plan.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(id.0));
        let mut child = Command::new(&self.program)
            .args([NODE_ARGUMENT, &id.to_string(), &seed.to_string(), &std::process::id().to_string()])
            .arg(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own, so that Ctrl-C reaches the demo alone, which then ends its nodes in order.
            .process_group(0)
            .spawn()
            .map_err(system(format!("node {id} ({})", self.program.display())))?;
        if let Some(lines) = child.stderr.take() {
            let echo = self.echo.clone();
            let copying = std::thread::Builder::new().name(format!("log-{id}"));
            copying.spawn(move || copy_log(id, lines, log, echo)).map_err(system("a thread for the log"))?;
        }
        Ok(child)
    }

    fn log(&self, id: NodeId) -> PathBuf {
        self.plan.logs.join(format!("node-{id}.log"))
    }

    /// The HTTP addresses of the nodes.
    pub fn addresses(&self) -> Vec<(NodeId, SocketAddr)> {
        self.config.nodes.iter().map(|node| (node.id, node.http)).collect()
    }

    /// The cluster's key, with which the demo opens every seal.
    pub fn key(&self) -> &KeyBytes {
        &self.secrets.cluster_key
    }

    /// The cluster's admin token, with which the demo makes nodes fail.
    pub fn token(&self) -> &AdminToken {
        &self.secrets.admin_token
    }

    /// Sees whether a node has ended by itself.
    ///
    /// # Errors
    /// One has: which, how, and the end of its log.
    pub fn check(&mut self) -> Result<(), ClusterError> {
        for position in 0..self.children.len() {
            let (id, child) = &mut self.children[position];
            let id = *id;
            if let Ok(Some(status)) = child.try_wait() {
                let log = self.log(id);
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(8)..].join("\n");
                return Err(ClusterError::Ended {
                    node: id,
                    status: status.to_string(),
                    log: log.display().to_string(),
                    tail,
                });
            }
        }
        Ok(())
    }

    /// Kills a node as a power cut would (kill -9). Without it [`check`](OwnCluster::check) goes on as if it had never been there.
    ///
    /// # Errors
    /// No such node runs, or the system refuses.
    pub fn kill(&mut self, node: NodeId) -> Result<(), ClusterError> {
        let running = self.children.iter().position(|(id, _)| *id == node);
        let place = running.ok_or(std::io::ErrorKind::NotFound.into()).map_err(system(format!("node {node}")))?;
        let (_, mut child) = self.children.swap_remove(place);
        child.kill().and_then(|()| child.wait()).map_err(system(format!("killing node {node}")))?;
        Ok(())
    }

    /// Starts a killed node again, with its old directory and a log that goes on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn restart(&mut self, node: NodeId) -> Result<(), ClusterError> {
        let log = self.log(node);
        let file = OpenOptions::new().append(true).open(&log).map_err(system(log.display().to_string()))?;
        let mut child = self.spawn(node, file)?;
        if let (Some(line), Some(input)) = (self.lines.inputs.get(&node), child.stdin.take()) {
            *line.lock().unwrap_or_else(PoisonError::into_inner) = input;
        }
        self.children.push((node, child));
        Ok(())
    }

    /// A private directory that goes with the cluster.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Ends the nodes: asks them first, kills what is left after the deadline.
    pub fn end_nodes(&mut self) {
        for (_, child) in &self.children {
            // A child that was not waited for keeps its pid, so this cannot reach a stranger.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let end = now() + STOP_DEADLINE;
        for (id, mut child) in self.children.drain(..) {
            while now() < end && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if matches!(child.try_wait(), Ok(None)) {
                log::warn!("node {id} did not stop within {} s and is killed", STOP_DEADLINE.as_secs());
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }

    /// Ends the nodes and removes their directory.
    pub fn stop(&mut self) {
        self.end_nodes();
        remove(&self.directory);
    }

    /// The lines to the nodes.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", directory.display());
    }
}

/// Lines that wait to be printed; a terminal that is slower than the nodes must not slow them.
const ECHO_LINES: usize = 4096;

/// Copies a node's log line by line into its file, and prints what the terminal can take.
fn copy_log(id: NodeId, lines: impl std::io::Read, mut file: File, echo: Option<SyncSender<String>>) {
    let mut left_out = 0u64;
    for line in BufReader::new(lines).split(b'\n') {
        let Ok(mut line) = line else { return };
        line.push(b'\n');
        let _ = file.write_all(&line);
        let Some(echo) = &echo else { continue };
        let gap = if left_out > 0 {
            format!("node {id} | ({left_out} lines left out here; the file has them)\n")
        } else {
            String::new()
        };
        match echo.try_send(format!("{gap}node {id} | {}", String::from_utf8_lossy(&line))) {
            Ok(()) => left_out = 0,
            Err(_) => left_out += 1,
        }
    }
}

/// Starts the thread that prints the nodes' lines, and ends with the last sender.
fn printer() -> std::io::Result<SyncSender<String>> {
    let (sender, lines) = std::sync::mpsc::sync_channel::<String>(ECHO_LINES);
    std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
        for line in lines {
            eprint!("{line}");
        }
    })?;
    Ok(sender)
}

/// Two free loopback ports for each node, below the range from which the system takes ports for outgoing connections; the start
/// follows from the process id, so that two demos at once do not look at the same ones.
fn free_nodes(count: u16) -> Result<Vec<ConfiguredNode>, ClusterError> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let spread = (std::process::id() as u16).wrapping_mul(37);
    let mut ports = (0..10_000u16).map(|step| 10_000 + spread.wrapping_add(step) % 10_000);
    (1..=count)
        .map(|id| {
            let http = ports.find(|http| is_free(*http) && is_free(http + 11_000)).ok_or(ClusterError::NoPorts)?;
            let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            Ok(ConfiguredNode { id: NodeId(id), http: address(http), peer: Some(address(http + 11_000)) })
        })
        .collect()
}

/// What the program does when its first argument is [`NODE_ARGUMENT`]: node id, seed, the demo's process id and directory follow.
pub fn run_as_node(arguments: &[String]) -> ExitCode {
    node::init_logging();
    let parsed = match arguments {
        [id, seed, demo, directory] => {
            id.parse().ok().zip(seed.parse().ok()).zip(demo.parse().ok()).zip(Some(directory))
        }
        _ => None,
    };
    let Some((((id, seed), demo), directory)) = parsed else {
        eprintln!("demo: {NODE_ARGUMENT} is for the demo's own nodes; use cloud-node to start one");
        return ExitCode::from(2);
    };
    let directory = Path::new(directory);
    let code = node_in(directory, id, seed);
    // A demo that was killed cannot clean up. It may have been gone before this process began, so its id was given.
    let is_orphan = rustix::process::getppid().map(|parent| parent.as_raw_pid()) != Some(demo);
    let is_ours = directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DIRECTORY_PREFIX));
    if is_orphan && is_ours {
        remove(directory);
    }
    code
}

fn node_in(directory: &Path, id: NodeId, seed: u64) -> ExitCode {
    let config = ClusterConfig::load(Some(&directory.join(CONFIG_FILE)));
    let config = config.and_then(|config| Ok((config.node(id)?.place(), config)));
    let (place, config) = match config {
        Ok(found) => found,
        Err(error) => {
            eprintln!("demo: {error}");
            return ExitCode::from(2);
        }
    };
    let first_start = FirstStart::Everybody;
    let options = NodeOptions { id, config, first_start, place, secrets_from: None, seed, exit_with_parent: true };
    match node::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("node {id}: {error}");
            ExitCode::FAILURE
        }
    }
}
