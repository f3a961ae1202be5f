//! Nodes of one test process that talk over TCP: listener, connections and Raft, without actors and HTTP.

#[path = "../common/wait.rs"]
mod wait;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use image_cloud::config::secrets::{Authority, Credentials, Validity};
use image_cloud::core::election::RaftView;
use image_cloud::core::membership::Roster;
use image_cloud::id::{Load, LogPosition, MemberId, NodeId, Term};
use image_cloud::node::data_dir::DataDir;
use image_cloud::node::listener::{self, Inbound, ListenerSettings};
use image_cloud::protocol::election::{Cause, ElectionMessage, ElectionResult, Heartbeat};
use image_cloud::protocol::frame::Lane;
use image_cloud::protocol::membership::Place;
use image_cloud::protocol::status::{Leadership, NodeState};
use image_cloud::protocol::sync::{StateSync, StateSyncResponse};
use image_cloud::raft::state::ELECTIONS_LIMIT;
use image_cloud::raft::{Command, RaftNode, RaftSettings, RaftTransport, TransportError};
use image_cloud::time::unix_millis;
use image_cloud::transport::{CallError, Faults, Gate, LinkSettings, Links, NodeTls};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use self::wait::{DEADLINE, eventually};

struct Transport {
    links: Links,
    snapshot_chunks: Arc<AtomicU64>,
    loses_appends: Arc<AtomicBool>,
    votes_left: Arc<AtomicU64>,
    votes_lost: Arc<AtomicU64>,
}

impl RaftTransport for Transport {
    fn call(
        &self,
        to: MemberId,
        lane: Lane,
        request: Vec<u8>,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let links = self.links.clone();
        if lane == Lane::Snapshot {
            self.snapshot_chunks.fetch_add(1, Ordering::Relaxed);
        }
        let has_left = |left: u64| left.checked_sub(1);
        if lane == Lane::Vote && self.votes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_left).is_err() {
            self.votes_lost.fetch_add(1, Ordering::Relaxed);
            return Box::pin(async { Err(TransportError::Unreachable("the test loses votes".into())) });
        }
        if lane == Lane::Append && self.loses_appends.load(Ordering::Relaxed) {
            return Box::pin(async { Err(TransportError::Unreachable("the test loses appends".into())) });
        }
        Box::pin(async move {
            links.raft(to, lane, request, limit).await.map_err(|error| match error {
                CallError::Timeout(_) => TransportError::Timeout,
                error => TransportError::Unreachable(error.to_string()),
            })
        })
    }
}

/// What a node has heard.
#[derive(Default)]
pub struct Heard {
    pub heartbeats: Vec<Heartbeat>,
    pub closed: Vec<MemberId>,
    pub elections: Vec<(MemberId, ElectionMessage)>,
}

struct Node {
    raft: RaftNode,
    heard: Arc<Mutex<Heard>>,
}

impl Inbound for Node {
    fn heartbeat(&self, heartbeat: Heartbeat) {
        self.heard.lock().unwrap().heartbeats.push(heartbeat);
    }

    fn closed(&self, member: MemberId) {
        self.heard.lock().unwrap().closed.push(member);
    }

    fn election(&self, from: MemberId, message: ElectionMessage) {
        self.heard.lock().unwrap().elections.push((from, message));
    }

    async fn state_sync(&self, request: StateSync) -> StateSyncResponse {
        StateSyncResponse {
            node: request.node,
            active: true,
            coordinator: None,
            placements: Vec::new(),
            commit: self.raft.views().borrow().commit,
        }
    }

    fn last_log(&self) -> LogPosition {
        self.raft.views().borrow().last_log
    }

    async fn raft(&self, from: MemberId, request: Vec<u8>) -> Vec<u8> {
        self.raft.receive(from, request).await
    }
}

pub struct Running {
    pub raft: RaftNode,
    pub links: Links,
    pub gate: Gate,
    pub heard: Arc<Mutex<Heard>>,
    pub member: MemberId,
    runtime: Option<Runtime>,
    _data: DataDir,
}

impl Running {
    pub fn view(&self) -> RaftView {
        self.raft.views().borrow().clone()
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    pub fn propose(&self, number: u64) -> Result<LogPosition, String> {
        let result = self.run(self.raft.propose(record(number)));
        result.map(|applied| applied.position).map_err(|error| error.to_string())
    }

    /// The numbers that were recorded with [`Running::propose`].
    pub fn recorded(&self) -> Vec<u64> {
        self.raft.elections().iter().map(|result| result.took_micros).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Like a kill: every task is dropped where it stands, nothing is said to anybody.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// A command that can be told from the others.
pub fn record(number: u64) -> Command {
    Command::RecordElection(ElectionResult {
        coordinator: Leadership { term: Term(0), node: NodeId(1) },
        vacancy: None,
        caller: None,
        cause: Cause::NoCoordinator,
        standings: Vec::new(),
        campaign: None,
        votes: Vec::new(),
        voters: 3,
        took_micros: number,
        handed_over_to: None,
    })
}

pub fn heartbeat(member: MemberId, sequence: u64) -> Heartbeat {
    Heartbeat {
        member,
        sequence,
        state: NodeState::Active,
        load: Load::from_hundredths(50),
        pressure: Load::default(),
        workers: 1,
        jobs_accepted: 0,
        disk_waits_ms: 0,
        last_log: LogPosition::default(),
        coordinator: None,
    }
}

/// The cluster: directories and addresses stay, nodes come and go.
pub struct Cluster {
    root: tempfile::TempDir,
    addresses: BTreeMap<NodeId, SocketAddr>,
    /// Ports are held until their node starts for the first time, so that no other test gets them.
    held: BTreeMap<NodeId, std::net::TcpListener>,
    pub nodes: BTreeMap<NodeId, Running>,
    authority: Authority,
    pub snapshot_after: u64,
    pub keep_after_snapshot: u64,
    /// Chunks of snapshots that nodes have sent to one another.
    pub snapshot_chunks: Arc<AtomicU64>,
    /// While set, no append of any node arrives; heartbeats do.
    pub loses_appends: Arc<AtomicBool>,
    /// So many requests on the lane of votes and transfers still arrive.
    pub votes_left: Arc<AtomicU64>,
    /// So many did not.
    pub votes_lost: Arc<AtomicU64>,
}

impl Cluster {
    pub fn new(count: u16) -> Cluster {
        let mut cluster = Cluster {
            root: tempfile::tempdir().unwrap(),
            addresses: BTreeMap::new(),
            held: BTreeMap::new(),
            nodes: BTreeMap::new(),
            authority: Authority::fresh(Validity::of_authority(unix_millis() / 1000)).unwrap(),
            snapshot_after: 5_000,
            keep_after_snapshot: 1_000,
            snapshot_chunks: Arc::default(),
            loses_appends: Arc::default(),
            votes_left: Arc::new(AtomicU64::new(u64::MAX)),
            votes_lost: Arc::default(),
        };
        for node in (1..=count).map(NodeId) {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            cluster.addresses.insert(node, socket.local_addr().unwrap());
            cluster.held.insert(node, socket);
        }
        cluster
    }

    /// All nodes started, initialised and led by node 1.
    pub fn begun(count: u16) -> Cluster {
        let mut cluster = Cluster::new(count);
        cluster.start_all();
        cluster.begin();
        cluster
    }

    pub fn start_all(&mut self) {
        for node in self.addresses.keys().copied().collect::<Vec<_>>() {
            self.start(node.0);
        }
    }

    pub fn begin(&self) {
        let members = self.first_members();
        self.node(1).run(self.node(1).raft.initialise(members)).unwrap();
        self.led_by(1);
    }

    /// All running nodes and their places.
    pub fn first_members(&self) -> BTreeMap<MemberId, Place> {
        self.nodes.values().map(|node| (node.member, self.place(node.member.node))).collect()
    }

    /// Nobody serves HTTP here.
    fn place(&self, node: NodeId) -> Place {
        Place::new(SocketAddr::from(([127, 0, 0, 1], node.0)), self.addresses[&node])
    }

    pub fn path(&self, node: u16) -> PathBuf {
        self.root.path().join(format!("node-{node}"))
    }

    pub fn address(&self, node: u16) -> SocketAddr {
        self.addresses[&NodeId(node)]
    }

    pub fn start(&mut self, number: u16) {
        let node = NodeId(number);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let data = open_data(&self.path(number), node);
        let member = data.member();
        let mut settings = RaftSettings::new(member, data.raft());
        settings.snapshot_after = self.snapshot_after;
        settings.keep_after_snapshot = self.keep_after_snapshot;
        // Here hundreds of writers come at the same moment, with no server in between that takes them in one after the other.
        settings.waiting_writes = 1024;
        let gate = Gate::default();
        let faults = Faults::new(self.addresses.keys().copied().filter(|id| *id != node), 1);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let peers = self.addresses.iter().filter(|(id, _)| **id != node).map(|(id, address)| (*id, *address)).collect();
        let held = self.held.remove(&node);
        let address = self.address(number);
        let nodes = self.addresses.keys().copied().collect();
        let tls = self.tls(node);
        let place = self.place(node);
        let (snapshot_chunks, loses_appends) = (self.snapshot_chunks.clone(), self.loses_appends.clone());
        let (votes_left, votes_lost) = (self.votes_left.clone(), self.votes_lost.clone());
        let (raft, links) = runtime.block_on(async {
            let links = Links::open(
                &LinkSettings { me: member, peers, connect_timeout: Duration::from_millis(200), tls: tls.clone() },
                gate.clone(),
                faults.clone(),
            );
            let transport = Transport { links: links.clone(), snapshot_chunks, loses_appends, votes_left, votes_lost };
            let raft = RaftNode::open(settings, Arc::new(transport)).await.unwrap();
            let socket = match held {
                Some(socket) => {
                    socket.set_nonblocking(true).unwrap();
                    TcpListener::from_std(socket).unwrap()
                }
                None => TcpListener::bind(address).await.unwrap(),
            };
            let inbound = Arc::new(Node { raft: raft.clone(), heard: heard.clone() });
            let greeting_timeout = Duration::from_secs(1);
            let roster = raft.rosters();
            let settings =
                ListenerSettings { me: member, place, nodes, roster, connections: 256, greeting_timeout, tls };
            tokio::spawn(follow(links.clone(), raft.rosters()));
            tokio::spawn(listener::serve(socket, settings, gate.clone(), faults, inbound));
            (raft, links)
        });
        self.nodes.insert(node, Running { raft, links, gate, heard, member, runtime: Some(runtime), _data: data });
    }

    fn tls(&self, node: NodeId) -> NodeTls {
        let now_s = unix_millis() / 1000;
        let issued = self.authority.issue(node, &[], Validity::of_node(now_s)).unwrap();
        let authority = self.authority.certificate_pem();
        let credentials = Credentials::new(node, authority, &issued.certificate_pem, &issued.key_pem, now_s).unwrap();
        NodeTls::new(&credentials).unwrap()
    }

    /// Ends a node without a word.
    pub fn kill(&mut self, node: u16) {
        self.nodes.remove(&NodeId(node)).expect("it runs");
    }

    /// Forgets its disk.
    pub fn wipe(&mut self, node: u16) {
        std::fs::remove_dir_all(self.path(node)).unwrap();
    }

    pub fn node(&self, node: u16) -> &Running {
        &self.nodes[&NodeId(node)]
    }

    /// Waits until every running node knows that `node` leads; gives the term.
    #[track_caller]
    pub fn led_by(&self, node: u16) -> Term {
        eventually(&format!("all know that node {node} leads"), || {
            let mut terms = self.nodes.values().map(|running| {
                let view = running.view();
                (view.leader == Some(NodeId(node))).then_some(view.term)
            });
            let first = terms.next()??;
            terms.all(|term| term == Some(first)).then_some(first)
        })
    }

    /// Proposes at that node until it works: a new leader needs a moment.
    #[track_caller]
    pub fn commit(&self, node: u16, number: u64) -> LogPosition {
        eventually("a commit", || self.node(node).propose(number).ok())
    }

    #[track_caller]
    pub fn all_recorded(&self, expected: &[u64]) {
        let expected = &expected[expected.len().saturating_sub(ELECTIONS_LIMIT)..];
        for (id, node) in &self.nodes {
            eventually(&format!("node {id} has applied {expected:?}"), || (node.recorded() == expected).then_some(()));
        }
    }
}

/// Keeps the links as the membership wants them, as the node's actor does.
async fn follow(links: Links, mut rosters: watch::Receiver<Roster>) {
    loop {
        let roster = rosters.borrow_and_update().clone();
        links.follow(&roster);
        if rosters.changed().await.is_err() {
            return;
        }
    }
}

/// The tasks of a node that was killed a moment ago may still hold its files.
fn open_data(path: &Path, node: NodeId) -> DataDir {
    eventually("the data directory is free", || DataDir::open(path, node).ok())
}
