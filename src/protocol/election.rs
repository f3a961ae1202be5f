//! The conversation of an election: the messages of the load-based Bully algorithm, and the heartbeat.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Load, LogPosition, MemberId, NodeId};
use crate::protocol::status::{Leadership, NodeState};

/// Sent to every peer, every 20 ms by default, on a connection of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who, in which life.
    pub member: MemberId,
    /// Number of the report; ages are measured by the receiver's clock.
    pub sequence: u64,
    /// Its state. A Failed node sends nothing.
    pub state: NodeState,
    /// Its load, smoothed: what is printed and what decides elections.
    pub load: Load,
    /// Its load at this instant: what decides placements.
    pub pressure: Load,
    /// Its image workers.
    pub workers: u32,
    /// Jobs accepted since the start: a placement is covered by the first report that counts it.
    pub jobs_accepted: u64,
    /// For how long its log's disk has been working on a sync without finishing any, in milliseconds; 0 while nothing waits for it.
    pub disk_waits_ms: u32,
    /// Where its log ends.
    pub last_log: LogPosition,
    /// The confirmed coordinator that it knows.
    pub coordinator: Option<Leadership>,
}

/// One round of an election: its caller and the caller's count of rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoundId {
    /// Who called it.
    pub caller: NodeId,
    /// Number of the caller's round.
    pub number: u64,
}

/// Why an election was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// All logs are empty: the cluster begins.
    FirstStart,
    /// The coordinator's connection closed and its port refuses.
    ConnectionRefused,
    /// No heartbeat for the suspicion time.
    Silence,
    /// Heartbeats go on, but Raft has appended nothing for the lease.
    RaftSilence,
    /// Nobody knows a coordinator.
    NoCoordinator,
    /// The coordinator handed over to this node; or it tried to, and could not lead any more.
    HandOver,
    /// The coordinator handed over to a much less loaded node.
    LessLoaded,
    /// The coordinator handed over to a node that the configuration prefers.
    Preferred,
    /// The coordinator was told to stop, and handed over before.
    PlannedStop,
    /// The coordinator's disk stalled, and it handed over.
    DiskStall,
    /// The coordinator is to be removed or replaced, and handed over before.
    MembershipChange,
}

/// What one node found of the vacant leadership, by its own probe, in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It answers.
    Alive,
    /// Its connection is closed and its port refuses, or it was silent for the suspicion time.
    Gone,
    /// It sends heartbeats, its Raft appends nothing.
    RaftSilent,
    /// The node knows that nobody leads in that term: it knows a later one, or it is the vacant coordinator itself and does not
    /// lead; or no coordinator was named.
    Unknown,
}

/// One candidate in one round: its standing is frozen when it answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// The candidate.
    pub member: MemberId,
    /// Its load, as printed.
    pub load: Load,
    /// Where its log ends.
    pub last_log: LogPosition,
    /// Active, Recovering or Stopping: a Failed node answers nobody.
    pub state: NodeState,
    /// What it found of the vacant leadership in this round.
    pub finding: Finding,
}

/// How the nominee asks Raft for its confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Campaign {
    /// All logs are empty: initialise with these standings' members.
    Initialise,
    /// A majority found the coordinator gone: the transfer path, which voters grant at once.
    AgreedDeath,
    /// Otherwise: pre-vote, granted once the voters' lease has run out.
    PreVote,
}

/// The messages of the election.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ElectionMessage {
    /// The caller opens a round and asks everybody for load, log and finding.
    LoadQuery {
        /// The round.
        round: RoundId,
        /// The leadership that is taken for vacant; none if the caller knows of none.
        vacancy: Option<Leadership>,
        /// Why it was called.
        cause: Cause,
    },
    /// The answer to a `LoadQuery`.
    LoadResponse {
        /// The round.
        round: RoundId,
        /// The answering node, frozen.
        standing: Standing,
        /// The latest leadership that it knows; a later one than the vacancy ends the round.
        latest: Option<Leadership>,
        /// The voters that it knows; empty if its log is. They tell a wiped node that it is not among them.
        voters: Vec<MemberId>,
    },
    /// The caller nominates the first in rank.
    Election {
        /// The round.
        round: RoundId,
        /// The leadership that was found vacant.
        vacancy: Option<Leadership>,
        /// Why it was called.
        cause: Cause,
        /// Everybody's standing in this round.
        standings: Vec<Standing>,
        /// How to ask Raft.
        campaign: Campaign,
    },
    /// The nominee takes the nomination.
    Ok {
        /// The round.
        round: RoundId,
    },
    /// Raft has confirmed the sender in this term, and the term is the latest it knows.
    Coordinator {
        /// Term and node.
        leadership: Leadership,
        /// How it came about.
        result: ElectionResult,
    },
    /// The coordinator is about to hand over to the receiver, for this reason. It only explains: Raft moves the lead.
    HandingOver {
        /// Term and coordinator.
        leadership: Leadership,
        /// Why.
        cause: Cause,
    },
}

/// What an election leaves behind: who won and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct ElectionResult {
    /// The winner and its term.
    pub coordinator: Leadership,
    /// The leadership that was vacant.
    pub vacancy: Option<Leadership>,
    /// Who called the election, or handed over; none if Raft elected by itself (strategy `raft`, or the dead-man switch).
    pub caller: Option<NodeId>,
    /// Why.
    pub cause: Cause,
    /// Everybody who answered, with the loads that decided, in rank order.
    pub standings: Vec<Standing>,
    /// How Raft was asked.
    pub campaign: Option<Campaign>,
    /// The voters that granted their vote, where known.
    pub votes: Vec<NodeId>,
    /// How many voters there are.
    pub voters: u32,
    /// Time from the suspicion to the confirmation, in microseconds.
    pub took_micros: u64,
    /// The node that the winner handed over to as the last step, if the least-loaded one was behind.
    pub handed_over_to: Option<NodeId>,
}

impl Cause {
    /// Whether the coordinator gave its lead away, rather than being missed.
    pub const fn is_hand_over(self) -> bool {
        matches!(
            self,
            Cause::HandOver
                | Cause::LessLoaded
                | Cause::Preferred
                | Cause::PlannedStop
                | Cause::DiskStall
                | Cause::MembershipChange
        )
    }
}

impl Leadership {
    /// Whether this leadership is of a later term than `other`.
    pub fn is_later_than(self, other: Option<Leadership>) -> bool {
        other.is_none_or(|other| self.term > other.term)
    }
}
