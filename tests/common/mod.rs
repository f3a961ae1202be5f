//! A cluster of real `cloud-node` processes in a temporary directory, on free loopback ports. Dropping it kills what it started.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of this harness")]

pub mod wait;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use image_cloud::config::secrets::AdminToken;
use image_cloud::id::NodeId;
use image_cloud::protocol::event::{Event, EventKind};
use image_cloud::protocol::job::route;
use image_cloud::protocol::kv::{self, StateHash};
use image_cloud::protocol::status::{Leadership, NodeState, NodeStatus};
use image_cloud::protocol::sync::FailCommand;
use rustix::process::{Pid, Signal, kill_process};

pub use self::wait::{DEADLINE, wait_for};

/// A cluster of processes.
pub struct TestCluster {
    directory: tempfile::TempDir,
    /// The HTTP port and the node port of each node.
    ports: BTreeMap<u16, (u16, u16)>,
    /// Which node a process is, where that is not its name here: while a node is replaced there are two of it.
    nodes: BTreeMap<u16, u16>,
    children: BTreeMap<u16, Child>,
    http: reqwest::Client,
    /// What is run as a node; the benchmarks compare two builds.
    pub program: PathBuf,
}

/// Ports below the range from which the system takes ports for outgoing connections, so that a killed node's port is still free
/// when it comes back.
fn free_ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let spread = (std::process::id() as u16).wrapping_mul(37).wrapping_add(step.wrapping_mul(3));
        let http = 10_000 + spread % 10_000;
        let peer = http + 11_000;
        if TcpListener::bind(("127.0.0.1", http)).is_ok() && TcpListener::bind(("127.0.0.1", peer)).is_ok() {
            return (http, peer);
        }
    }
}

impl TestCluster {
    /// Writes the configuration of `nodes` nodes; `more` is added to it. No node is started.
    pub fn configure(nodes: u16, more: &str) -> TestCluster {
        let directory = tempfile::tempdir().unwrap();
        let mut text = format!("data = {:?}\n", directory.path().join("data"));
        let mut ports = BTreeMap::new();
        for id in 1..=nodes {
            let (http, peer) = free_ports();
            ports.insert(id, (http, peer));
            text += &format!("[[nodes]]\nid = {id}\nhttp = \"127.0.0.1:{http}\"\npeer = \"127.0.0.1:{peer}\"\n");
        }
        fs::write(directory.path().join("cluster.toml"), text + more).unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let program = env!("CARGO_BIN_EXE_cloud-node").into();
        let (nodes, children) = (BTreeMap::new(), BTreeMap::new());
        TestCluster { directory, ports, nodes, children, http, program }
    }

    /// Starts all nodes and waits until all are Active and agree on the coordinator.
    pub async fn start(nodes: u16, more: &str) -> TestCluster {
        let mut cluster = TestCluster::configure(nodes, more);
        for id in 1..=nodes {
            cluster.spawn(id);
        }
        cluster.settled().await;
        cluster
    }

    /// The process ids of the running nodes.
    pub fn pids(&self) -> Vec<u32> {
        self.children.values().map(Child::id).collect()
    }

    /// Starts one node.
    pub fn spawn(&mut self, id: u16) {
        self.spawn_with(id, &[]);
    }

    /// Starts one node with more arguments.
    pub fn spawn_with(&mut self, id: u16, arguments: &[&str]) {
        self.spawn_command(id, arguments, &[]);
    }

    /// Starts one node in an environment of its own.
    pub fn spawn_in(&mut self, id: u16, environment: &[(&str, PathBuf)]) {
        self.spawn_command(id, &[], environment);
    }

    fn spawn_command(&mut self, id: u16, arguments: &[&str], environment: &[(&str, PathBuf)]) {
        let log = File::options().create(true).append(true).open(self.log_path(id)).unwrap();
        let child = Command::new(&self.program)
            .arg(self.node(id).to_string())
            .arg("--config")
            .arg(self.directory.path().join("cluster.toml"))
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        assert!(self.children.insert(id, child).is_none(), "node {id} was running");
    }

    /// Which node a process is.
    pub fn node(&self, id: u16) -> u16 {
        self.nodes.get(&id).copied().unwrap_or(id)
    }

    /// Starts a node with an empty directory and addresses of its own, to be taken in; here it has the name `id`.
    pub fn join(&mut self, id: u16, node: u16) {
        self.ports.insert(id, free_ports());
        self.nodes.insert(id, node);
        self.spawn_elsewhere(id, &["--join"]);
    }

    /// Starts such a node, or starts it again; of its addresses and its directory the configuration knows nothing.
    pub fn spawn_elsewhere(&mut self, id: u16, more: &[&str]) {
        let directory = self.directory().join(format!("elsewhere-{id}"));
        let (http, peer) = (self.http_address(id).to_string(), self.peer_address(id).to_string());
        let arguments = ["--listen", &http, "--peer-listen", &peer, "--data", directory.to_str().unwrap()];
        self.spawn_with(id, &[&arguments[..], more].concat());
    }

    /// `client members CHANGE NODE` with the addresses of that process.
    pub fn change(&self, change: &str, id: u16) -> String {
        let (node, http, peer) = (self.node(id), self.http_address(id), self.peer_address(id));
        format!("members {change} {node} {http} --peer {peer}")
    }

    /// Makes all addresses of this process free for another one, which is to be node `node` there with an empty disk.
    pub fn wipe(&self, id: u16) {
        fs::remove_dir_all(self.directory().join(format!("data/node-{id}"))).unwrap();
    }

    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn log_path(&self, id: u16) -> PathBuf {
        self.directory.path().join(format!("node-{id}.log"))
    }

    /// Everything that a node printed and logged.
    pub fn log(&self, id: u16) -> String {
        fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    pub fn url(&self, id: u16) -> String {
        format!("http://{}", self.http_address(id))
    }

    /// Where the running nodes answer.
    pub fn urls(&self) -> Vec<String> {
        self.running().into_iter().map(|id| self.url(id)).collect()
    }

    pub fn http_address(&self, id: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[&id].0))
    }

    pub fn peer_address(&self, id: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[&id].1))
    }

    pub fn signal(&self, id: u16, signal: Signal) {
        kill_process(Pid::from_child(&self.children[&id]), signal).unwrap();
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self, id: u16) {
        let mut child = self.children.remove(&id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the node must stop by itself, with exit code 0.
    pub async fn stop(&mut self, id: u16) {
        self.signal(id, Signal::TERM);
        let mut child = self.children.remove(&id).unwrap();
        let status = wait_for(&format!("node {id} stops"), async || child.try_wait().unwrap()).await;
        assert!(status.success(), "node {id} stopped with {status}:\n{}", self.log(id));
    }

    /// Waits until a node has ended by itself.
    pub async fn ended(&mut self, id: u16) -> ExitStatus {
        let child = self.children.get_mut(&id).unwrap();
        let status = wait_for(&format!("node {id} ends"), async || child.try_wait().unwrap()).await;
        self.children.remove(&id);
        status
    }

    pub fn running(&self) -> Vec<u16> {
        self.children.keys().copied().collect()
    }

    pub async fn status(&self, id: u16) -> Option<NodeStatus> {
        let request = self.http.get(self.url(id) + route::STATUS).timeout(Duration::from_millis(500));
        let body = request.send().await.ok()?.bytes().await.ok()?;
        serde_json::from_slice(&body).ok()
    }

    pub async fn events(&self, id: u16) -> Vec<Event> {
        let body = self.http.get(self.url(id) + route::EVENTS).send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// What calls need that administer.
    pub fn admin_token(&self) -> AdminToken {
        AdminToken::read(&self.directory().join("data/cluster/admin.token")).unwrap()
    }

    pub async fn fail(&self, id: u16, duration: Duration) {
        let command = FailCommand { duration_ms: duration.as_millis() as u64 };
        let request = self.http.post(self.url(id) + route::FAIL).bearer_auth(self.admin_token().secret());
        let request = request.header("content-type", "application/json");
        let response = request.body(serde_json::to_vec(&command).unwrap()).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 202);
    }

    /// The `client` program for this cluster.
    pub fn client_command(&self, arguments: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client"));
        command.args(arguments.split_whitespace()).arg("--config").arg(self.directory.path().join("cluster.toml"));
        command.env_remove("CLOUD_NODES").env_remove("RUST_LOG");
        command
    }

    /// Runs it: exit code, stdout, stderr.
    pub async fn client(&self, arguments: &str) -> (i32, String, String) {
        let output = self.client_command(arguments).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The same, and it must work.
    pub async fn done(&self, arguments: &str) {
        let (code, _, stderr) = self.client(arguments).await;
        assert_eq!(code, 0, "client {arguments}: {stderr}");
    }

    /// Sends JSON to one node.
    pub async fn post_json(&self, id: u16, path: &str, json: &str) -> reqwest::Response {
        let request = self.http.post(self.url(id) + path).bearer_auth(self.admin_token().secret());
        let request = request.header("content-type", "application/json");
        request.body(json.to_owned()).send().await.unwrap()
    }

    /// Sends an image to one node.
    pub async fn post(&self, id: u16, path: &str, image: Vec<u8>) -> reqwest::Result<reqwest::Response> {
        self.http.post(self.url(id) + path).body(image).send().await
    }

    /// Waits until all running nodes are Active and name the same coordinator, which is one of them.
    pub async fn settled(&self) -> Leadership {
        self.settled_after(0).await
    }

    /// The same, in a term later than `term`.
    pub async fn settled_after(&self, term: u64) -> Leadership {
        let running = self.running();
        wait_for("the cluster settles", async || {
            let mut coordinators = Vec::new();
            for id in &running {
                let status = self.status(*id).await?;
                if status.state != NodeState::Active {
                    return None;
                }
                coordinators.push(status.coordinator?);
            }
            let first = coordinators[0];
            let agreed = coordinators.iter().all(|coordinator| *coordinator == first);
            let leads = running.iter().any(|id| self.node(*id) == first.node.0);
            (agreed && first.term.0 > term && leads).then_some(first)
        })
        .await
    }

    /// Waits until these nodes have applied the same entries, and checks that they hold the same state.
    pub async fn replicas_are_equal(&self, nodes: &[u16]) {
        let hashes = wait_for("all nodes have applied the same entries", async || {
            let mut hashes: Vec<StateHash> = Vec::new();
            for node in nodes {
                let response = self.http.get(self.url(*node) + kv::route::HASH).send().await.ok()?;
                hashes.push(serde_json::from_slice(&response.bytes().await.ok()?).ok()?);
            }
            hashes.windows(2).all(|pair| pair[0].commit == pair[1].commit).then_some(hashes)
        });
        let hashes = hashes.await;
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    }

    /// Every leadership that any of these nodes announced as won; fails if a term was won twice.
    pub async fn won_terms(&self, nodes: &[u16]) -> BTreeMap<u64, NodeId> {
        let mut won = BTreeMap::new();
        for id in nodes {
            for event in self.events(*id).await {
                if let EventKind::Elected(result) = event.what {
                    let Leadership { term, node } = result.coordinator;
                    let before = won.insert(term.0, node);
                    assert!(before.is_none_or(|before| before == node), "term {term} was won by {before:?} and {node}");
                }
            }
        }
        won
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            let _ = kill_process(Pid::from_child(child), Signal::CONT);
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for id in self.ports.keys() {
                eprintln!("--- node {id}\n{}", self.log(*id));
            }
        }
    }
}

/// A number from the environment, by which the figures of a test can be made larger.
pub fn from_environment(name: &str, default: u64) -> u64 {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"));
    std::env::var(name).map_or(default, parse)
}

/// A small PNG whose pixels follow from `seed`.
pub fn picture(seed: u8) -> Vec<u8> {
    let image = image::RgbImage::from_fn(96, 64, |x, y| image::Rgb([seed, (x * 2) as u8, (y * 3) as u8 ^ seed]));
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}
