//! Who belongs to the cluster: the members as they stand in the log, and the conversation about changing them.

// The addresses of the standard library without its sockets: values, not I/O.
use core::net::SocketAddr;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Incarnation, LogPosition, MemberId, NodeId};

/// Routes of the membership.
pub mod route {
    /// `GET`: the members; `POST`: change them.
    pub const MEMBERS: &str = "/api/v1/cluster/members";
}

/// The longest that a change may wait for a new member's log: an hour.
pub const LONGEST_WAIT_MS: u64 = 3_600_000;

/// How long a change waits for a new member's log, unless it says otherwise: a minute.
pub const WAIT_MS: u64 = 60_000;

/// Where a member is found. It stands in the membership, so that all nodes know it, whatever their configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// For people and programs.
    pub http: SocketAddr,
    /// For the other nodes.
    pub peer: SocketAddr,
    /// When it was taken in, by the leader's clock, in milliseconds since 1970; none for those that the cluster began with.
    pub since_unix_ms: Option<u64>,
}

impl Place {
    /// The place of a node that begins a cluster, or of one that is not a member yet.
    pub const fn new(http: SocketAddr, peer: SocketAddr) -> Self {
        Place { http, peer, since_unix_ms: None }
    }

    /// Whether two nodes cannot be at these places at the same time.
    pub fn overlaps(&self, other: &Place) -> bool {
        [self.http, self.peer].iter().any(|address| [other.http, other.peer].contains(address))
    }
}

/// What a member does in the Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// It counts for majorities.
    Voter,
    /// It gets the log and does not count yet.
    Learner,
}

impl fmt::Display for MemberRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            MemberRole::Voter => "voter",
            MemberRole::Learner => "learner",
        })
    }
}

/// One member, as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
    /// The node as people name it.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Voter or learner.
    pub role: MemberRole,
    /// Where it answers people and programs, `host:port`.
    pub address: String,
    /// Where it answers other nodes, `host:port`.
    pub peer_address: String,
    /// When it was taken in, in milliseconds since 1970; none for those that the cluster began with.
    pub since_unix_ms: Option<u64>,
    /// Milliseconds since its last heartbeat at the node that answers; none for that node itself, and if there was none.
    pub last_seen_ms: Option<u64>,
    /// Entries of the log that it is known to have; only the leader knows.
    pub entries: Option<u64>,
}

/// Answer of `GET /api/v1/cluster/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Members {
    /// Who answers.
    pub node: NodeId,
    /// Whether it leads, so that the list is the latest as far as it knows.
    pub leads: bool,
    /// Entries of the log up to and including the one that brought this membership.
    pub commit: u64,
    /// Entries of the log of the node that answers.
    pub entries: u64,
    /// Whether a change of voters has begun and is not finished.
    pub is_changing: bool,
    /// The members, by node and incarnation.
    pub members: Vec<MemberStatus>,
    /// What the operator should know about this membership.
    pub warnings: Vec<String>,
}

/// What is to be changed. Body of `POST /api/v1/cluster/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// Add, replace or remove.
    pub change: Change,
    /// Which node.
    pub node: NodeId,
    /// Where the new member answers people and programs; for add and replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// Where it answers other nodes; by default the port of `address` + 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub peer_address: Option<SocketAddr>,
    /// How long the new member may take to catch up, in milliseconds; by default a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// The kinds of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = MemberChange)]
pub enum Change {
    /// A node that was not there.
    Add,
    /// Another life of a node that is there; or the same life at another address.
    Replace,
    /// A node leaves.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Change::Add => "add",
            Change::Replace => "replace",
            Change::Remove => "remove",
        })
    }
}

/// A change that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MembersChanged)]
pub struct Changed {
    /// What was done, for people.
    pub done: String,
    /// The membership now.
    pub members: Members,
}

/// Who answers at an address, as it says when it is greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The node in its present life.
    pub member: MemberId,
    /// Where it is found, as it says.
    pub place: Place,
    /// Where its log ends.
    pub last_log: LogPosition,
}

impl ChangeRequest {
    /// Whether the membership is as the change would make it.
    pub fn is_done_in(&self, members: &Members) -> bool {
        let mut of_node = members.members.iter().filter(|member| member.node == self.node);
        match (self.change, self.address) {
            (Change::Remove, _) => of_node.next().is_none(),
            (Change::Add | Change::Replace, Some(address)) => {
                let others = of_node.clone().count();
                let is_there =
                    |member: &MemberStatus| member.role == MemberRole::Voter && member.address == address.to_string();
                others == 1 && of_node.any(is_there) && !members.is_changing
            }
            (Change::Add | Change::Replace, None) => false,
        }
    }
}
