//! The load-based Bully election: it nominates, Raft confirms.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Load, LogPosition, MemberId, NodeId, Term};
use crate::protocol::election::{Campaign, Cause, ElectionMessage, ElectionResult, Finding, RoundId};
use crate::protocol::status::{Leadership, NodeState};

/// The numbers of the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// This node, in this life.
    pub me: MemberId,
    /// Every configured node, this one included.
    pub nodes: Vec<NodeId>,
    /// `bully` (default) or `raft`.
    pub strategy: Strategy,
    /// Start with the majority that answered instead of waiting for every configured node.
    pub bootstrap: bool,
    /// How long a caller waits for the answers of a round (60 ms).
    pub round_timeout: Duration,
    /// How long after its votes could be granted a nominee may take to win before it is passed over (150 ms).
    pub nominee_timeout: Duration,
    /// The voters' lease of the last leader: Raft's election_timeout_max (300 ms).
    pub lease: Duration,
    /// Least time between two campaigns of this node in one vacancy.
    pub back_off: Duration,
    /// With no confirmed leader for this long, Raft's native elections are switched on.
    pub dead_man: Duration,
}

/// How a coordinator is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The least-loaded node is nominated and Raft confirms it.
    #[default]
    Bully,
    /// Raft's own randomised timeouts: the same code with the dead-man switch always on.
    Raft,
}

/// Raft as the election sees it: what the adapter reports whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftView {
    /// The latest term that this node has seen.
    pub term: Term,
    /// The leader of that term, if this node knows that a majority confirmed it (itself included).
    pub leader: Option<NodeId>,
    /// Where this node's log ends.
    pub last_log: LogPosition,
    /// The voters, empty before the first start.
    pub voters: Vec<MemberId>,
    /// Entries known to be committed.
    pub commit: u64,
    /// Entries applied.
    pub applied: u64,
    /// Voters that granted the vote, while this node leads; empty where the library does not tell.
    pub votes: Vec<NodeId>,
    /// While this node leads: where each voter's log is known to match.
    pub matched: BTreeMap<NodeId, LogPosition>,
}

/// Everything that can happen to the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passes (every 5 ms).
    Tick,
    /// Raft changed.
    Raft(RaftView),
    /// This node's own load and state, as of now.
    Own {
        /// Load.
        load: Load,
        /// State. A Failed node takes part in nothing: it drops its round and answers nothing.
        state: NodeState,
    },
    /// The liveness core takes a node for lost, by what this node saw itself.
    Suspected {
        /// Whom.
        node: NodeId,
        /// How it showed.
        cause: Cause,
    },
    /// The liveness core hears the node again.
    Trusted {
        /// Whom.
        node: NodeId,
    },
    /// The answer to [`Effect::Probe`].
    Probed {
        /// The round it was asked for.
        round: RoundId,
        /// The node that was probed.
        node: NodeId,
        /// What was found.
        finding: Finding,
    },
    /// A message of a peer.
    Received {
        /// The sender, in its present life.
        from: MemberId,
        /// The message.
        message: ElectionMessage,
    },
    /// [`Effect::Campaign`] or [`Effect::HandOver`] came back without success (an answer, or 100 ms without one). Success is
    /// never reported here: it shows in [`Input::Raft`].
    CampaignRefused {
        /// The term from which it campaigned.
        term: Term,
        /// Why, for people.
        why: String,
    },
}

/// Everything that the election may want done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send a message to one peer.
    Send {
        /// To whom.
        to: NodeId,
        /// The message.
        message: ElectionMessage,
    },
    /// See for yourself whether that node is gone, and report [`Input::Probed`] within 20 ms.
    Probe {
        /// For this round.
        round: RoundId,
        /// Whom.
        node: NodeId,
    },
    /// Ask Raft for confirmation.
    Campaign {
        /// How.
        campaign: Campaign,
        /// The leadership that was found vacant.
        vacancy: Option<Leadership>,
        /// For [`Campaign::Initialise`]: the first members.
        members: Vec<MemberId>,
    },
    /// As leader: hand over to a caught-up, less loaded node.
    HandOver {
        /// To whom.
        to: MemberId,
    },
    /// Switch Raft's native elections on or off.
    NativeElections(bool),
    /// A coordinator is confirmed, and is the latest known. Sent once per leadership, at the winner and at everybody else.
    CoordinatorConfirmed(Leadership),
    /// No coordinator is known any more.
    CoordinatorLost,
    /// At the winner only: print, log and record the election.
    Decided(ElectionResult),
    /// Raft said no: log it.
    Refused {
        /// The term from which this node campaigned.
        term: Term,
        /// Why, for people.
        why: String,
    },
    /// Tell the operator.
    Alarm(String),
    /// Say whom the first start waits for (at most once a second).
    Waiting {
        /// Nodes that have not answered.
        missing: Vec<NodeId>,
    },
}
