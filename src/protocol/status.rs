//! What a node says of itself and of the others.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Incarnation, Load, LogPosition, NodeId, Term};
use crate::protocol::election::Cause;
use crate::protocol::fault::LinkFault;

/// The life of a node: Active → Failed → Recovering → Active, and Stopping at the end. It starts in Recovering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Takes part in everything.
    Active,
    /// Ignores all communication (a simulated failure).
    Failed,
    /// Votes and appends, takes no jobs until its state is in sync.
    Recovering,
    /// It was told to stop: finishes its jobs, takes no new ones, leads no more.
    Stopping,
}

impl fmt::Display for NodeState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            NodeState::Active => "Active",
            NodeState::Failed => "Failed",
            NodeState::Recovering => "Recovering",
            NodeState::Stopping => "Stopping",
        })
    }
}

/// The part that a node plays in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RaftRole {
    /// Confirmed by a majority in its term.
    Leader,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Gets the log, does not vote.
    Learner,
}

impl fmt::Display for RaftRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            RaftRole::Leader => "leader",
            RaftRole::Follower => "follower",
            RaftRole::Candidate => "candidate",
            RaftRole::Learner => "learner",
        })
    }
}

/// Who coordinates, since which term. A fact only when Raft has confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Leadership {
    /// The term in which a majority voted for the node.
    pub term: Term,
    /// The coordinator.
    pub node: NodeId,
}

/// Answer of `GET /api/v1/status`: one node, by its own word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Its HTTP address, `host:port`.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// Active, Failed, Recovering or Stopping.
    pub state: NodeState,
    /// Whether it keeps out of the cluster because this life of its data directory does not vote: it waits to be taken in.
    #[serde(default)]
    pub is_outsider: bool,
    /// Its part in Raft.
    pub role: RaftRole,
    /// Its term.
    pub term: Term,
    /// The confirmed coordinator that it knows. A node that leads knows none while no majority confirms it.
    pub coordinator: Option<Leadership>,
    /// Milliseconds for which no majority has confirmed a leader, as far as the node knows; none if one has within the last second.
    #[serde(default)]
    pub without_quorum_ms: Option<u64>,
    /// Why that one was elected, once its record has come through the log.
    pub cause: Option<Cause>,
    /// Its load in jobs per worker.
    pub load: Load,
    /// Image workers.
    pub workers: u32,
    /// Jobs that wait for a worker.
    pub queued: u32,
    /// Jobs that a worker is doing.
    pub running: u32,
    /// Jobs done since the start.
    pub jobs_done: u64,
    /// Jobs refused as Busy since the start.
    pub jobs_refused: u64,
    /// Answers given from the cache of repeated request ids.
    pub repeats_answered: u64,
    /// Placements made as coordinator since the start.
    pub placements: u64,
    /// Entries of the log known to be committed (index of the last one + 1).
    pub commit: u64,
    /// Entries applied.
    pub applied: u64,
    /// Where its log ends.
    pub last_log: LogPosition,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Processor time used since the start, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in bytes, now.
    pub memory_bytes: u64,
    /// The cluster id in hexadecimal, once the node has learned it.
    pub cluster_id: Option<String>,
    /// The simulated faults of its links; empty when all are as good as new.
    #[serde(default)]
    pub faults: Vec<LinkFault>,
    /// The other nodes as this one sees them.
    pub peers: Vec<PeerStatus>,
}

/// Another node, as one node sees it by its heartbeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerStatus {
    /// The other node.
    pub node: NodeId,
    /// Where it answers HTTP, `host:port`.
    #[serde(default)]
    pub address: Option<String>,
    /// What its last heartbeat said.
    pub state: NodeState,
    /// Its load by its last heartbeat.
    pub load: Load,
    /// Milliseconds since its last heartbeat, if there ever was one.
    pub last_seen_ms: Option<u64>,
}
