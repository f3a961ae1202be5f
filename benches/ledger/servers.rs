//! Three nodes of each system: start, leader, processor time and memory, stop.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use crate::common::{TestCluster, wait_for};
use crate::grpc::Channel;
use crate::support::memory_mib;
use crate::zookeeper;

/// What is measured.
pub enum System {
    Ours { name: &'static str, program: PathBuf },
    Etcd,
    ZooKeeper,
}

impl System {
    pub fn name(&self) -> &'static str {
        match self {
            System::Ours { name, .. } => name,
            System::Etcd => "etcd",
            System::ZooKeeper => "ZooKeeper",
        }
    }

    pub fn describe(&self) -> String {
        match self {
            System::Ours { program, .. } => {
                format!("{}, HTTP/1.1; no TLS to the client, TLS 1.3 between the nodes", program.display())
            }
            System::Etcd => {
                let output = Command::new("etcd").arg("--version").output();
                let version = output
                    .map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
                let version = version.lines().next().unwrap_or_default().to_owned();
                format!("{version}, gRPC over HTTP/2; no TLS to the client, none between the nodes")
            }
            System::ZooKeeper => {
                "Debian's, writes alone, each client on a connection of its own; no TLS to the client, none between the nodes".to_owned()
            }
        }
    }
}

pub fn has_etcd() -> bool {
    Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

pub fn has_zookeeper() -> bool {
    let java = Command::new("java").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    java.is_ok() && Path::new(ZOOKEEPER).exists()
}

/// Debian's, with what it needs beside it.
const ZOOKEEPER: &str = "/usr/share/java/zookeeper.jar";

/// How long a peer may take to say that it is ready, before it is asked again.
const READY: Duration = Duration::from_secs(1);

/// Three running nodes; stopped when dropped.
pub enum Servers {
    Ours { cluster: TestCluster, leader: u16 },
    Etcd(Peer),
    ZooKeeper(Peer),
}

/// Three processes of another system, and the leader's port for clients.
pub struct Peer {
    processes: Vec<Child>,
    leader: u16,
    _directory: tempfile::TempDir,
}

impl Servers {
    pub async fn start(system: &System) -> Servers {
        match system {
            System::Ours { program, .. } => {
                let mut cluster = TestCluster::configure(3, "");
                cluster.program = program.clone();
                (1..=3).for_each(|id| cluster.spawn(id));
                let leader = cluster.settled().await.node.0;
                Servers::Ours { cluster, leader }
            }
            System::Etcd => Servers::Etcd(start_etcd().await),
            System::ZooKeeper => Servers::ZooKeeper(start_zookeeper().await),
        }
    }

    /// The leader's address for clients.
    pub fn leader(&self) -> String {
        match self {
            Servers::Ours { cluster, leader } => cluster.url(*leader).trim_start_matches("http://").to_owned(),
            Servers::Etcd(peer) | Servers::ZooKeeper(peer) => format!("127.0.0.1:{}", peer.leader),
        }
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Servers::Ours { cluster, .. } => cluster.pids(),
            Servers::Etcd(peer) | Servers::ZooKeeper(peer) => peer.processes.iter().map(Child::id).collect(),
        }
    }

    /// Processor time of all three so far, in the kernel and outside.
    pub fn cpu_seconds(&self) -> f64 {
        self.pids().iter().map(|pid| cpu_seconds(&pid.to_string())).sum()
    }

    /// Resident memory of the largest of the three.
    pub fn memory_mib(&self) -> f64 {
        self.pids().iter().map(|pid| memory_mib(*pid)).fold(0.0, f64::max)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Free ports, and all at once, so that none is given twice.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

fn spawn(mut program: Command, log: &Path) -> Child {
    let log = File::create(log).unwrap();
    program.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

async fn start_etcd() -> Peer {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports::<6>();
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let cluster: Vec<String> = (0..3).map(|node| format!("n{node}={}", url(ports[3 + node]))).collect();
    let processes = (0..3).map(|node| {
        let (client, peer) = (url(ports[node]), url(ports[3 + node]));
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", &format!("n{node}"), "--data-dir"])
            .arg(directory.path().join(format!("n{node}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
            .args(["--quota-backend-bytes", "8589934592"]);
        spawn(etcd, &directory.path().join(format!("n{node}.log")))
    });
    let mut peer = Peer { processes: processes.collect(), leader: 0, _directory: directory };
    peer.leader = wait_for("etcd has a leader", async || {
        for port in &ports[..3] {
            let mut channel = Channel::open(&format!("127.0.0.1:{port}")).await.ok()?;
            let (member, leader) = channel.status().await.ok()?;
            if member == leader {
                return Some(*port);
            }
        }
        None
    })
    .await;
    peer
}

async fn start_zookeeper() -> Peer {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports::<9>();
    let quorum = (0..3).map(|node| format!("server.{}=127.0.0.1:{}:{}\n", node + 1, ports[3 + node], ports[6 + node]));
    let quorum: String = quorum.collect();
    let processes = (0..3).map(|node| {
        let home = directory.path().join(format!("n{node}"));
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("myid"), format!("{}", node + 1)).unwrap();
        // Debian's times; every write is synced, as by default.
        let configuration = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\nmaxClientCnxns=0\n\
             maxSessionTimeout={}\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n{quorum}",
            home.display(),
            ports[node],
            zookeeper::SESSION_MS,
        );
        std::fs::write(home.join("zoo.cfg"), configuration).unwrap();
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-cp", ZOOKEEPER, "org.apache.zookeeper.server.quorum.QuorumPeerMain"]);
        java.arg(home.join("zoo.cfg"));
        spawn(java, &home.join("log"))
    });
    let mut peer = Peer { processes: processes.collect(), leader: 0, _directory: directory };
    peer.leader = wait_for("ZooKeeper has a leader", async || {
        for port in &ports[..3] {
            // Who leads drops its clients for a moment more, or lets them wait, until its followers have caught up.
            if timeout(READY, zookeeper::is_ready(&format!("127.0.0.1:{port}"))).await.is_ok_and(|ready| ready) {
                return Some(*port);
            }
        }
        None
    })
    .await;
    peer
}

pub fn own_cpu_seconds() -> f64 {
    cpu_seconds("self")
}

fn cpu_seconds(process: &str) -> f64 {
    // Linux counts these two in hundredths of a second on every architecture.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}
