//! `config/cluster.toml`: one table of defaults, unknown keys denied, relations checked once at the start.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::secrets::{self, NodeSecrets, SecretsError};
use crate::id::NodeId;
use crate::protocol::kv::{KEY_LIMIT_BYTES, MOST_KEY_BYTES, MOST_VALUE_BYTES, VALUE_LIMIT_BYTES};
use crate::protocol::membership::{self, MEMBERS_LIMIT, Place};
use crate::protocol::sync::FailCommand;

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_CONFIG: &str = "config/cluster.toml";

/// The most of any size: 1 TiB.
const MOST_MIB: u64 = 1 << 20;

/// The most that the ledger may hold: with its kept answers it must fit a snapshot, which may have 1 GiB.
const MOST_LEDGER_MIB: u64 = 768;

/// The most jobs per worker that mean anything as a difference.
const MOST_LOAD: f64 = 1e6;

/// The longest of any time in milliseconds: an hour.
const MOST_MS: u64 = 3_600_000;

/// The longest that a body may take to arrive: an hour.
const MOST_UPLOAD_SECONDS: f64 = 3600.0;

/// The longest of any time in seconds, such as that between two hand-overs: a year.
const MOST_SECONDS: f64 = 31_536_000.0;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The named file cannot be read.
    #[error("cannot read the configuration {path}: {source}; name an existing file with --config")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not of the expected form; the text names line, column and key.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, column and key.
        reason: String,
    },
    /// Values contradict one another.
    #[error("the configuration cannot work: {0}")]
    Contradiction(String),
    /// A node that is not in the list.
    #[error(
        "node {node} is not in the configuration, which lists {known}; add it there or name another node; one that was added to a running cluster \
         needs its address, with --listen, and the first time --join"
    )]
    UnknownNode {
        /// The node.
        node: NodeId,
        /// The configured ids.
        known: String,
    },
}

/// The whole configuration of a cluster; every key has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Directory of the nodes' data and of the secrets.
    pub data: PathBuf,
    /// The bundle of secrets of this machine's node, from `cloud-node init`; without it the nodes make their own in `data`.
    pub secrets: Option<PathBuf>,
    /// The nodes.
    pub nodes: Vec<ConfiguredNode>,
    /// How people and programs are served.
    pub http: HttpRules,
    /// Numbers of the election.
    pub election: ElectionNumbers,
    /// Numbers of the ledger's log on disk.
    pub log: LogNumbers,
    /// Numbers of the image jobs.
    pub jobs: JobNumbers,
    /// Numbers of the failure simulation.
    pub failures: FailureNumbers,
    /// Numbers of the recovery.
    pub recovery: RecoveryNumbers,
    /// Limits of what is accepted.
    pub limits: LimitNumbers,
}

/// One node and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredNode {
    /// Its id, as in `cloud-node 1`.
    pub id: NodeId,
    /// Where it listens for people and programs.
    pub http: SocketAddr,
    /// Where it listens for other nodes; by default the HTTP port + 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
}

impl ConfiguredNode {
    /// Where it is found, for people and programs and for other nodes.
    pub fn place(&self) -> Place {
        Place::new(self.http, self.peer_address())
    }

    /// Where it listens for other nodes. A port with no room for one beside it is refused by [`ClusterConfig::validate`].
    pub fn peer_address(&self) -> SocketAddr {
        let beside = Place::beside(self.http).map_or(self.http, |place| place.peer);
        self.peer.unwrap_or(beside)
    }
}

/// How people and programs are served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpRules {
    /// When HTTP is TLS.
    pub tls: HttpTls,
    /// Names that `Host` may say besides addresses and `localhost`: those of a proxy.
    pub hosts: Vec<String>,
    /// Connections of people and programs at any time; further ones wait until one is free.
    pub connections: u32,
    /// How long the body of a request may take to arrive, in seconds.
    pub upload_s: f64,
}

/// When HTTP is TLS, with the node's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpTls {
    /// Off loopback.
    #[default]
    Auto,
    /// On loopback too; then every call needs the admin token there as well.
    Always,
    /// Never, because a proxy on the same machine does it. Every call needs the admin token.
    Never,
}

impl HttpRules {
    /// Whether an address is served with TLS.
    pub fn is_tls(&self, address: SocketAddr) -> bool {
        match self.tls {
            HttpTls::Auto => !address.ip().is_loopback(),
            HttpTls::Always => true,
            HttpTls::Never => false,
        }
    }

    /// An address as people and programs call it: `http://IP:PORT`, or `https` where that is served.
    pub fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.is_tls(address) { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Whether every call to an address needs the admin token, not only those that administer.
    pub fn needs_token(&self, address: SocketAddr) -> bool {
        self.tls != HttpTls::Auto || !address.ip().is_loopback()
    }
}

/// Numbers of the election; what was measured for them stands in ARCHITECTURE.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElectionNumbers {
    /// `bully` or `raft`.
    pub strategy: StrategyName,
    /// Time between two heartbeats to each peer, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after which a node is suspected, in milliseconds.
    pub suspicion_ms: u64,
    /// Time between two ticks of the cores, in milliseconds.
    pub tick_ms: u64,
    /// Time between two Raft heartbeats, in milliseconds.
    pub raft_heartbeat_ms: u64,
    /// Shortest native election timeout of Raft, in milliseconds.
    pub raft_election_min_ms: u64,
    /// Longest native election timeout of Raft, and the voters' lease, in milliseconds.
    pub raft_election_max_ms: u64,
    /// How long the caller of a round waits for answers, in milliseconds.
    pub round_timeout_ms: u64,
    /// How long a nominee may take to win before it is passed over, in milliseconds.
    pub nominee_timeout_ms: u64,
    /// Least time between two campaigns of one node in one vacancy, in milliseconds.
    pub back_off_ms: u64,
    /// Without a confirmed leader for this long, Raft's native elections go on, in milliseconds.
    pub dead_man_ms: u64,
    /// Which nodes should lead, the most wanted first; whoever is not named comes after them. Empty: load decides.
    pub prefer: Vec<NodeId>,
    /// A live coordinator hands over to a node that is less loaded by this much, in jobs per worker.
    pub hand_over_margin: f64,
    /// What leading costs a node, in jobs per worker: it would move along, so it is taken off the coordinator's load.
    pub hand_over_cost: f64,
    /// For how long without a break the other node must have been less loaded, or ready and preferred, in seconds.
    pub hand_over_hold_s: f64,
    /// After an election or a hand-over the coordinator stays for at least this long, in seconds.
    pub hand_over_cooldown_s: f64,
    /// A coordinator whose disk has not finished a sync for this long hands over, in milliseconds.
    pub disk_stall_ms: u64,
}

/// The name of an election strategy in the file and on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// Load-based Bully nominates, Raft confirms.
    #[default]
    Bully,
    /// Raft's own randomised timeouts.
    Raft,
}

/// When the ledger's log is folded into a snapshot, and how much of it stays; what that costs on disk stands in ARCHITECTURE.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogNumbers {
    /// Entries after which a snapshot is made.
    pub snapshot_entries: u64,
    /// Size of the log after which a snapshot is made, in mebibytes; with more keys and values than that, their size.
    pub snapshot_mib: u64,
    /// Time after which a snapshot is made if anything was written since the last one, in seconds.
    pub snapshot_s: f64,
    /// Entries kept behind a snapshot, for nodes that were away briefly.
    pub keep_entries: u64,
    /// What these may take on disk, in mebibytes.
    pub keep_mib: u64,
}

/// Numbers of the image jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobNumbers {
    /// Image workers; 0 means one per core.
    pub workers: u32,
    /// Jobs that may wait per worker; beyond that the node answers Busy.
    pub waiting_per_worker: u32,
    /// Every job is made to last at least this long, in milliseconds; 0 for real work only.
    pub simulated_delay_ms: u64,
    /// Load added to the node's own, in jobs per worker: simulated I/O.
    pub simulated_load: f64,
    /// How long a node that was told to stop may go on to finish its jobs, in seconds.
    pub finish_s: f64,
    /// Answers kept for repeated request ids, in mebibytes.
    pub repeats_mib: u64,
    /// A picture file of your own in place of the Access Denied banner.
    pub cover: Option<PathBuf>,
}

/// Numbers of the failure simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureNumbers {
    /// Whether nodes fail at random.
    pub random: bool,
    /// Time between two throws of the dice, in seconds.
    pub every_s: f64,
    /// Probability of a failure at each throw.
    pub probability: f64,
    /// Shortest failure, in seconds.
    pub min_s: f64,
    /// Longest failure, in seconds.
    pub max_s: f64,
}

/// Numbers of the recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryNumbers {
    /// How long a `StateSync` may go unanswered before the next peer is asked, in milliseconds.
    pub answer_limit_ms: u64,
    /// Without a coordinator for this long, a node takes jobs though it is not in sync, in milliseconds.
    pub jobs_only_after_ms: u64,
}

/// Limits of what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitNumbers {
    /// Largest original, in mebibytes.
    pub original_mib: u64,
    /// Largest sealed file, in mebibytes.
    pub sealed_mib: u64,
    /// Most pixels of an image, in millions.
    pub megapixels: u64,
    /// Longest side of an image, in pixels.
    pub side: u32,
    /// Most that the ledger may hold, in mebibytes: keys, values and 128 bytes for each key, users and images.
    pub ledger_mib: u64,
    /// Memory for decoding at any time, in mebibytes.
    pub decode_memory_mib: u64,
    /// Memory for images, in mebibytes, from the first byte that is received to the last one of the answer that is taken.
    pub transfer_memory_mib: u64,
    /// Longest key of the key-value store, in bytes.
    pub key_bytes: u32,
    /// Largest value of the key-value store, in kibibytes.
    pub value_kib: u32,
    /// Writes that may wait for their answers at the leader; beyond that it answers Overloaded.
    pub waiting_writes: u32,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        let node = |id: u16| ConfiguredNode {
            id: NodeId(id),
            http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000 + id),
            peer: None,
        };
        ClusterConfig {
            data: PathBuf::from("data"),
            secrets: None,
            nodes: (1..=3).map(node).collect(),
            http: HttpRules::default(),
            election: ElectionNumbers::default(),
            log: LogNumbers::default(),
            jobs: JobNumbers::default(),
            failures: FailureNumbers::default(),
            recovery: RecoveryNumbers::default(),
            limits: LimitNumbers::default(),
        }
    }
}

impl Default for HttpRules {
    fn default() -> Self {
        HttpRules { tls: HttpTls::Auto, hosts: Vec::new(), connections: 12_288, upload_s: 60.0 }
    }
}

impl Default for ElectionNumbers {
    fn default() -> Self {
        ElectionNumbers {
            strategy: StrategyName::Bully,
            heartbeat_ms: 20,
            suspicion_ms: 150,
            tick_ms: 5,
            raft_heartbeat_ms: 50,
            raft_election_min_ms: 200,
            raft_election_max_ms: 300,
            round_timeout_ms: 60,
            nominee_timeout_ms: 150,
            back_off_ms: 20,
            dead_man_ms: 3000,
            prefer: Vec::new(),
            hand_over_margin: 1.0,
            hand_over_cost: 0.25,
            hand_over_hold_s: 30.0,
            hand_over_cooldown_s: 60.0,
            disk_stall_ms: 500,
        }
    }
}

impl Default for LogNumbers {
    fn default() -> Self {
        LogNumbers { snapshot_entries: 5_000, snapshot_mib: 64, snapshot_s: 3600.0, keep_entries: 1_000, keep_mib: 16 }
    }
}

impl Default for JobNumbers {
    fn default() -> Self {
        JobNumbers {
            workers: 0,
            waiting_per_worker: 32,
            simulated_delay_ms: 0,
            simulated_load: 0.0,
            finish_s: 8.0,
            repeats_mib: 64,
            cover: None,
        }
    }
}

impl Default for FailureNumbers {
    fn default() -> Self {
        FailureNumbers { random: false, every_s: 30.0, probability: 0.2, min_s: 10.0, max_s: 20.0 }
    }
}

impl Default for RecoveryNumbers {
    fn default() -> Self {
        RecoveryNumbers { answer_limit_ms: 200, jobs_only_after_ms: 2000 }
    }
}

impl Default for LimitNumbers {
    fn default() -> Self {
        LimitNumbers {
            original_mib: 64,
            sealed_mib: 160,
            megapixels: 100,
            side: 16_384,
            ledger_mib: 512,
            decode_memory_mib: 512,
            transfer_memory_mib: 512,
            key_bytes: KEY_LIMIT_BYTES as u32,
            value_kib: (VALUE_LIMIT_BYTES >> 10) as u32,
            waiting_writes: 256,
        }
    }
}

impl ClusterConfig {
    /// Reads the named file; without a name, [`DEFAULT_CONFIG`] where it exists, else the defaults.
    ///
    /// # Errors
    /// A named file that is missing, an unknown key, or values that contradict one another.
    pub fn load(named: Option<&Path>) -> Result<ClusterConfig, ConfigError> {
        let default = Path::new(DEFAULT_CONFIG);
        let path = match named {
            Some(path) => path,
            None if default.exists() => default,
            None => return Ok(ClusterConfig::default()),
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let config: ClusterConfig = toml::from_str(&text)
            .map_err(|error| ConfigError::Invalid { path: path.to_owned(), reason: one_line(&text, &error) })?;
        config.validate()?;
        Ok(config)
    }

    /// Checks the relations between the values.
    ///
    /// # Errors
    /// [`ConfigError::Contradiction`] with the values that clash.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Contradiction(text));
        if self.nodes.is_empty() {
            return wrong("it lists no node; add [[nodes]] with id and http".into());
        }
        if self.nodes.len() > MEMBERS_LIMIT {
            let nodes = self.nodes.len();
            return wrong(format!(
                "it lists {nodes} nodes, a cluster has at most {MEMBERS_LIMIT} members: remove some"
            ));
        }
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for node in &self.nodes {
            if node.peer.is_none() && Place::beside(node.http).is_none() {
                return wrong(format!(
                    "node {} has HTTP port {}, so its node port would be over 65535; name one with peer",
                    node.id,
                    node.http.port()
                ));
            }
            if node.id.0 == 0 || !ids.insert(node.id) {
                return wrong(format!("node id {} is 0 or stands twice; ids are different numbers from 1", node.id));
            }
            for address in [node.http, node.peer_address()] {
                if !addresses.insert(address) {
                    return wrong(format!("address {address} of node {} is taken by another port or node", node.id));
                }
            }
            // All addresses of a machine include each one. Between nodes that is no clash: they may be on different machines.
            let (http, peer) = (node.http, node.peer_address());
            if http.port() == peer.port() && (http.ip().is_unspecified() || peer.ip().is_unspecified()) {
                return wrong(format!(
                    "http {http} and peer {peer} of node {} overlap: give them different ports",
                    node.id
                ));
            }
        }
        self.validate_times()?;
        let election = &self.election;
        if election.suspicion_ms < 3 * election.heartbeat_ms {
            return wrong(format!(
                "suspicion_ms {} must be at least three times heartbeat_ms {}",
                election.suspicion_ms, election.heartbeat_ms
            ));
        }
        if election.raft_heartbeat_ms * 3 > election.raft_election_min_ms
            || election.raft_election_min_ms >= election.raft_election_max_ms
        {
            return wrong(format!(
                "raft_heartbeat_ms {} must be at most a third of raft_election_min_ms {}, and that less than \
                 raft_election_max_ms {}",
                election.raft_heartbeat_ms, election.raft_election_min_ms, election.raft_election_max_ms
            ));
        }
        self.validate_hand_over(&ids)?;
        let failures = &self.failures;
        let is_probability = (0.0..=1.0).contains(&failures.probability);
        // Written so that a NaN is refused as well.
        let is_span = failures.every_s > 0.0 && failures.min_s > 0.0 && failures.max_s >= failures.min_s;
        let longest = FailCommand::LONGEST.as_secs_f64();
        if !is_probability || !is_span || failures.max_s > longest {
            return wrong(format!(
                "[failures] needs 0 ≤ probability ≤ 1, every_s > 0 and 0 < min_s ≤ max_s ≤ {longest}"
            ));
        }
        if !self.jobs.simulated_load.is_finite() || self.jobs.simulated_load < 0.0 {
            return wrong("jobs.simulated_load must be a number of 0 or more".into());
        }
        if !(0.0..=MOST_SECONDS).contains(&self.jobs.finish_s) {
            return wrong(format!("jobs.finish_s is {}; use a number from 0 to {MOST_SECONDS}", self.jobs.finish_s));
        }
        if !(1.0..=MOST_SECONDS).contains(&self.log.snapshot_s) {
            return wrong(format!("log.snapshot_s is {}; use a number from 1 to {MOST_SECONDS}", self.log.snapshot_s));
        }
        // Written so that a NaN is refused as well.
        if !(0.1..=MOST_UPLOAD_SECONDS).contains(&self.http.upload_s) {
            let text =
                format!("http.upload_s is {}; use a number from 0.1 to {MOST_UPLOAD_SECONDS}", self.http.upload_s);
            return wrong(text);
        }
        self.validate_sizes()
    }

    /// Times in milliseconds with which something happens at all, and that can be added and multiplied without overflow.
    fn validate_times(&self) -> Result<(), ConfigError> {
        let (election, recovery) = (&self.election, &self.recovery);
        for (key, value, least) in [
            ("election.heartbeat_ms", election.heartbeat_ms, 1),
            ("election.suspicion_ms", election.suspicion_ms, 1),
            ("election.tick_ms", election.tick_ms, 1),
            ("election.raft_heartbeat_ms", election.raft_heartbeat_ms, 1),
            ("election.raft_election_min_ms", election.raft_election_min_ms, 1),
            ("election.raft_election_max_ms", election.raft_election_max_ms, 1),
            ("election.round_timeout_ms", election.round_timeout_ms, 1),
            ("election.nominee_timeout_ms", election.nominee_timeout_ms, 1),
            ("election.back_off_ms", election.back_off_ms, 1),
            ("election.dead_man_ms", election.dead_man_ms, 1),
            // A healthy disk may take 50 ms.
            ("election.disk_stall_ms", election.disk_stall_ms, 50),
            ("jobs.simulated_delay_ms", self.jobs.simulated_delay_ms, 0),
            ("recovery.answer_limit_ms", recovery.answer_limit_ms, 1),
            ("recovery.jobs_only_after_ms", recovery.jobs_only_after_ms, 1),
        ] {
            if !(least..=MOST_MS).contains(&value) {
                let text = format!("{key} is {value}; use a number from {least} to {MOST_MS}");
                return Err(ConfigError::Contradiction(text));
            }
        }
        Ok(())
    }

    /// Who is preferred, and when a live coordinator hands over.
    fn validate_hand_over(&self, known: &BTreeSet<NodeId>) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Contradiction(text));
        let election = &self.election;
        let mut named = BTreeSet::new();
        for node in &election.prefer {
            if !known.contains(node) {
                let known: Vec<String> = known.iter().map(ToString::to_string).collect();
                return wrong(format!("election.prefer names node {node}; the nodes are {}", known.join(", ")));
            }
            if !named.insert(node) {
                return wrong(format!("election.prefer names node {node} twice; give each node one place"));
            }
        }
        if !election.prefer.is_empty() && election.strategy == StrategyName::Raft {
            return wrong("election.prefer needs strategy \"bully\": with \"raft\" chance decides who leads".into());
        }
        for (key, value, most) in [
            ("election.hand_over_margin", election.hand_over_margin, MOST_LOAD),
            ("election.hand_over_cost", election.hand_over_cost, MOST_LOAD),
            ("election.hand_over_hold_s", election.hand_over_hold_s, MOST_SECONDS),
            ("election.hand_over_cooldown_s", election.hand_over_cooldown_s, MOST_SECONDS),
        ] {
            // Written so that a NaN is refused as well.
            if !(0.0..=most).contains(&value) {
                return wrong(format!("{key} is {value}; use a number from 0 to {most}"));
            }
        }
        if election.hand_over_margin == 0.0 {
            return wrong(
                "election.hand_over_margin is 0: the lead would follow every change of load; use 0.01 or more".into(),
            );
        }
        Ok(())
    }

    /// Sizes that the nodes can add and multiply without overflow, and with which they can do anything at all.
    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let (log, jobs, limits) = (&self.log, &self.jobs, &self.limits);
        for (key, value, least, most) in [
            ("log.snapshot_entries", log.snapshot_entries, 1, 1_000_000),
            ("log.snapshot_mib", log.snapshot_mib, 1, MOST_MIB),
            ("log.keep_entries", log.keep_entries, 0, 1_000_000),
            ("log.keep_mib", log.keep_mib, 0, MOST_MIB),
            ("jobs.workers", u64::from(jobs.workers), 0, 1024),
            ("jobs.waiting_per_worker", u64::from(jobs.waiting_per_worker), 0, 100_000),
            ("jobs.repeats_mib", jobs.repeats_mib, 0, MOST_MIB),
            ("limits.original_mib", limits.original_mib, 1, MOST_MIB),
            ("limits.sealed_mib", limits.sealed_mib, 1, MOST_MIB),
            ("limits.ledger_mib", limits.ledger_mib, 1, MOST_LEDGER_MIB),
            ("limits.decode_memory_mib", limits.decode_memory_mib, 1, MOST_MIB),
            ("limits.transfer_memory_mib", limits.transfer_memory_mib, 1, MOST_MIB),
            ("limits.megapixels", limits.megapixels, 1, 1_000_000),
            ("limits.side", u64::from(limits.side), 1, 1_000_000),
            ("limits.key_bytes", u64::from(limits.key_bytes), 1, MOST_KEY_BYTES as u64),
            ("limits.value_kib", u64::from(limits.value_kib), 1, (MOST_VALUE_BYTES >> 10) as u64),
            ("limits.waiting_writes", u64::from(limits.waiting_writes), 1, 65_536),
            ("http.connections", u64::from(self.http.connections), 16, 100_000),
        ] {
            if !(least..=most).contains(&value) {
                let text = format!("{key} is {value}; use a number from {least} to {most}");
                return Err(ConfigError::Contradiction(text));
            }
        }
        Ok(())
    }

    /// The entry of one node.
    ///
    /// # Errors
    /// [`ConfigError::UnknownNode`].
    pub fn node(&self, id: NodeId) -> Result<&ConfiguredNode, ConfigError> {
        self.nodes.iter().find(|node| node.id == id).ok_or_else(|| ConfigError::UnknownNode {
            node: id,
            known: self.nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(", "),
        })
    }

    /// What the number of nodes means for who may be lost, where it is not what people expect.
    pub fn warning_of_size(&self) -> Option<String> {
        membership::warning_of_size(self.nodes.len())
    }

    /// Where people and programs find a node: `http://IP:PORT`, or `https` where that is served.
    pub fn url(&self, node: &ConfiguredNode) -> String {
        self.http.url(node.http)
    }

    /// Where the secrets of this machine's nodes lie.
    pub fn secrets_directory(&self) -> PathBuf {
        self.secrets.clone().unwrap_or_else(|| self.data.join("cluster"))
    }

    /// The secrets of a node: from its bundle if there is one, else of this machine, where they are made if need be.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn node_secrets(&self, node: NodeId) -> Result<NodeSecrets, SecretsError> {
        match &self.secrets {
            Some(bundle) => secrets::of_bundle(bundle, node),
            None => secrets::of_one_machine(&self.secrets_directory(), node),
        }
    }

    /// Where a node keeps its log and snapshots.
    pub fn node_directory(&self, id: NodeId) -> PathBuf {
        self.data.join(format!("node-{id}"))
    }
}

/// The parser's many-line message as one line: position, reason.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    format!("line {line}: {}", error.message().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ClusterConfig, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.toml");
        std::fs::write(&path, text).unwrap();
        ClusterConfig::load(Some(&path))
    }

    #[test]
    fn an_empty_file_is_the_documented_cluster() {
        let config = parse("").unwrap();
        assert_eq!(config, ClusterConfig::default());
        assert_eq!(config.node(NodeId(2)).unwrap().http.to_string(), "127.0.0.1:8002");
        assert_eq!(config.node(NodeId(2)).unwrap().peer_address().to_string(), "127.0.0.1:9002");
    }

    #[test]
    fn the_file_of_the_repository_shows_the_defaults() {
        let file: ClusterConfig = toml::from_str(include_str!("../../config/cluster.toml")).unwrap();
        assert_eq!(file, ClusterConfig::default());
    }

    #[test]
    fn numbers_that_no_node_can_work_with_are_refused_by_name() {
        for (text, name) in [
            ("[jobs]\nwaiting_per_worker = 4294967295\n", "jobs.waiting_per_worker"),
            ("[limits]\noriginal_mib = 17592186044416\n", "limits.original_mib"),
            ("[limits]\nside = 0\n", "limits.side"),
            ("[limits]\nkey_bytes = 0\n", "limits.key_bytes"),
            ("[limits]\nvalue_kib = 2048\n", "limits.value_kib"),
            ("[limits]\nwaiting_writes = 0\n", "limits.waiting_writes"),
            ("[http]\nconnections = 1\n", "http.connections"),
            ("[http]\nupload_s = nan\n", "http.upload_s"),
            ("[[nodes]]\nid = 1\nhttp = \"127.0.0.1:65000\"\n", "65000"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    /// Each key whose name ends in `_ms` has a bound at both ends, those that will be added too, and is refused by name.
    #[test]
    fn times_that_no_node_can_work_with_are_refused_by_name() {
        let all = toml::Value::try_from(ClusterConfig::default()).unwrap();
        let mut checked = 0;
        for (section, keys) in all.as_table().unwrap() {
            for key in keys.as_table().into_iter().flat_map(|keys| keys.keys()).filter(|key| key.ends_with("_ms")) {
                let least = if key == "simulated_delay_ms" { "3600001" } else { "0" };
                for value in [least, "3600001", "9223372036854775807"] {
                    let error = parse(&format!("[{section}]\n{key} = {value}\n")).unwrap_err().to_string();
                    assert!(error.contains(&format!("{section}.{key} is {value}; use")), "{error}");
                }
                checked += 1;
            }
        }
        assert!(checked >= 14, "{checked}");
        parse("[jobs]\nsimulated_delay_ms = 0\n").unwrap();
    }

    /// More first members than a cluster may have are refused before the log begins with them.
    #[test]
    fn more_nodes_than_members_may_be_are_refused() {
        let nodes = |count: u16| {
            let node = |id| format!("[[nodes]]\nid = {id}\nhttp = \"127.0.0.1:{}\"\n", 8000 + id);
            (1..=count).map(node).collect::<String>()
        };
        parse(&nodes(31)).unwrap();
        let error = parse(&nodes(32)).unwrap_err().to_string();
        assert!(error.contains("32 nodes") && error.contains("at most 31"), "{error}");
    }

    #[test]
    fn off_loopback_people_and_programs_are_served_with_tls_and_a_token() {
        let here: SocketAddr = "127.0.0.1:8001".parse().unwrap();
        let (anywhere, elsewhere) = ("0.0.0.0:8001".parse().unwrap(), "10.0.0.1:8001".parse().unwrap());
        let rules = |tls| HttpRules { tls, ..HttpRules::default() };
        for (tls, address, is_tls, needs_token) in [
            (HttpTls::Auto, here, false, false),
            (HttpTls::Auto, elsewhere, true, true),
            (HttpTls::Auto, anywhere, true, true),
            (HttpTls::Always, here, true, true),
            // Whom a proxy serves may come from anywhere.
            (HttpTls::Never, here, false, true),
            (HttpTls::Never, elsewhere, false, true),
        ] {
            let rules = rules(tls);
            assert_eq!((rules.is_tls(address), rules.needs_token(address)), (is_tls, needs_token), "{tls:?} {address}");
        }
        let file = "[http]\ntls = \"always\"\n[[nodes]]\nid = 1\nhttp = \"127.0.0.1:8001\"\n";
        let config = parse(file).unwrap();
        assert_eq!(config.url(&config.nodes[0]), "https://127.0.0.1:8001");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("\n[election]\nheartbeet_ms = 3\n").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("heartbeet_ms"), "{error}");
    }

    #[test]
    fn a_missing_named_file_is_an_error_that_names_it() {
        let error = ClusterConfig::load(Some(Path::new("no/such.toml"))).unwrap_err().to_string();
        assert!(error.contains("no/such.toml") && error.contains("--config"), "{error}");
    }

    #[test]
    fn clashing_values_are_refused_with_both() {
        let error = parse("[election]\nsuspicion_ms = 30\n").unwrap_err().to_string();
        assert!(error.contains("30") && error.contains("20"), "{error}");
        let twice = "[[nodes]]\nid = 1\nhttp = \"127.0.0.1:1\"\n[[nodes]]\nid = 1\nhttp = \"127.0.0.1:2\"\n";
        assert!(parse(twice).unwrap_err().to_string().contains("stands twice"));
    }

    /// Addresses that overlap are refused by name: those of two nodes, of two ports of one, and all addresses beside one of them.
    #[test]
    fn overlapping_addresses_are_refused_with_both() {
        let node =
            |id: u16, http: &str, peer: &str| format!("[[nodes]]\nid = {id}\nhttp = \"{http}\"\npeer = \"{peer}\"\n");
        for (text, words) in [
            (node(1, "127.0.0.1:1", "127.0.0.1:2") + &node(2, "127.0.0.1:3", "127.0.0.1:2"), "127.0.0.1:2 of node 2"),
            (node(1, "127.0.0.1:1", "127.0.0.1:1"), "127.0.0.1:1 of node 1"),
            (node(1, "0.0.0.0:1", "127.0.0.1:1"), "http 0.0.0.0:1 and peer 127.0.0.1:1 of node 1 overlap"),
            // Without a peer of its own a node takes the HTTP port + 1000.
            (
                "[[nodes]]\nid = 1\nhttp = \"127.0.0.1:1\"\n".to_owned() + &node(2, "127.0.0.1:1001", "127.0.0.1:9"),
                "127.0.0.1:1001",
            ),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(parse(&(node(1, "0.0.0.0:1", "0.0.0.0:2") + &node(2, "10.0.0.2:1", "10.0.0.2:2"))).is_ok());
    }

    /// Bad input of the preferred order and of the hand-over is refused by name.
    #[test]
    fn wrong_preferences_and_hand_over_numbers_are_refused_by_name() {
        for (text, name) in [
            ("prefer = [2, 9]", "node 9; the nodes are 1, 2, 3"),
            ("prefer = [2, 1, 2]", "node 2 twice"),
            ("prefer = [2]\nstrategy = \"raft\"", "strategy"),
            ("hand_over_margin = nan", "hand_over_margin"),
            ("hand_over_margin = 0.0", "hand_over_margin"),
            ("hand_over_cost = -1.0", "hand_over_cost"),
            ("hand_over_hold_s = inf", "hand_over_hold_s"),
            ("hand_over_cooldown_s = -0.5", "hand_over_cooldown_s"),
            ("disk_stall_ms = 0", "disk_stall_ms"),
        ] {
            let error = parse(&format!("[election]\n{text}\n")).unwrap_err().to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
        assert_eq!(parse("[election]\nprefer = [3, 1]\n").unwrap().election.prefer, [NodeId(3), NodeId(1)]);
    }

    #[test]
    fn a_log_that_could_not_be_kept_short_is_refused_by_name() {
        for text in
            ["snapshot_entries = 0", "snapshot_mib = 0", "snapshot_s = nan", "snapshot_s = 0.5", "keep_mib = 99999999"]
        {
            let error = parse(&format!("[log]\n{text}\n")).unwrap_err().to_string();
            let key = text.split(' ').next().unwrap();
            assert!(error.contains(&format!("log.{key}")), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_node_is_told_which_there_are() {
        let error = ClusterConfig::default().node(NodeId(9)).unwrap_err().to_string();
        assert!(error.contains("1, 2, 3"), "{error}");
    }
}
