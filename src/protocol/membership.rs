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

/// The most members: more voters make a cluster slower, not safer.
pub const MEMBERS_LIMIT: usize = 31;

/// From the HTTP port of a node to the port of its node protocol, unless that is named.
pub const PEER_PORT_DISTANCE: u16 = 1000;

/// Votes needed of so many voters.
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// What so many voters survive, where it is not what people expect.
pub fn warning_of_size(voters: usize) -> Option<String> {
    match voters {
        1 => Some(
            "one voter survives no loss: while it is away the ledger stops, and its disk is the only copy; use 3, 5 or 7 nodes"
                .to_owned(),
        ),
        even if even > 0 && even.is_multiple_of(2) => {
            let (survives, needed) = (even - majority(even), majority(even));
            let loss = if survives == 0 { "no loss".to_owned() } else { format!("the loss of {survives}") };
            Some(format!(
                "{even} voters survive {loss}, no more than {} would, as a majority is {needed} of them: use an odd number",
                even - 1
            ))
        }
        _ => None,
    }
}

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

    /// The place of a node that listens for the others beside its HTTP port; none if that port would be over 65535.
    pub fn beside(http: SocketAddr) -> Option<Self> {
        let port = http.port().checked_add(PEER_PORT_DISTANCE)?;
        Some(Place::new(http, SocketAddr::new(http.ip(), port)))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An even or single cluster is allowed, with a word about what it survives.
    #[test]
    fn even_and_single_clusters_come_with_a_warning() {
        assert_eq!([0, 3, 5, 7].map(warning_of_size), [const { None }; 4]);
        assert!(warning_of_size(1).unwrap().contains("survives no loss"));
        let words = |voters| warning_of_size(voters).unwrap();
        assert_eq!(
            words(2),
            "2 voters survive no loss, no more than 1 would, as a majority is 2 of them: use an odd number"
        );
        assert_eq!(
            words(4),
            "4 voters survive the loss of 1, no more than 3 would, as a majority is 3 of them: use an odd number"
        );
    }

    #[test]
    fn the_node_port_is_beside_the_http_port_where_there_is_room() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(Place::beside(address(8001)), Some(Place::new(address(8001), address(9001))));
        assert_eq!(Place::beside(address(64_535)).map(|place| place.peer), Some(address(65_535)));
        assert_eq!(Place::beside(address(64_536)), None);
    }
}
