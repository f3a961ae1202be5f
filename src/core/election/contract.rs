//! What goes into the election and what comes out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Load, LogPosition, MemberId, NodeId, Term};
use crate::protocol::election::{Campaign, Cause, ElectionMessage, ElectionResult, Finding, Heartbeat, RoundId};
use crate::protocol::status::{Leadership, NodeState};
use crate::time::Moment;

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
    pub matched: BTreeMap<MemberId, LogPosition>,
}

/// Everything that can happen to the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passes (every 5 ms by default).
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
    /// A peer reported: its load is kept for elections that Raft held by itself, and its coordinator is learned.
    Heartbeat(Heartbeat),
    /// A `StateSync` answered: this is the coordinator that the cluster has confirmed.
    Learned(Leadership),
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
    /// A member refused this node because it is no member in its present life.
    NotAMember,
    /// This node is to leave the membership, and should not lead until that time: it hands over.
    GiveUpLead {
        /// So long, if nobody takes over.
        until: Moment,
    },
    /// For how long the log's disk has been working on a sync without finishing any; zero while nothing waits for it.
    Disk {
        /// How long.
        waits: Duration,
    },
    /// [`Effect::HandOver`] was not begun: the other node is not ready. Whether one that was begun succeeds shows in
    /// [`Input::Raft`].
    HandOverRefused {
        /// The `term` of that effect.
        term: Term,
        /// Why, for people.
        why: String,
    },
    /// [`Effect::Campaign`] came back without success (an answer, or 100 ms without one). Success is never reported here: it
    /// shows in [`Input::Raft`].
    CampaignRefused {
        /// The `term` of that effect.
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
    /// Ask Raft for confirmation, once: repeating is the election's business.
    Campaign {
        /// How.
        campaign: Campaign,
        /// This node's term as it asks, to be given back in [`Input::CampaignRefused`].
        term: Term,
        /// The leadership that was found vacant.
        vacancy: Option<Leadership>,
        /// For [`Campaign::Initialise`]: the first members.
        members: Vec<MemberId>,
    },
    /// As leader: hand over to a caught-up node.
    HandOver {
        /// To whom.
        to: MemberId,
        /// The term in which this node leads.
        term: Term,
        /// Why.
        cause: Cause,
    },
    /// This node has handed over: log and record it. (The last step of an election is part of its result instead.)
    HandedOver {
        /// Its leadership.
        from: Leadership,
        /// Who leads now.
        to: NodeId,
        /// Why.
        cause: Cause,
        /// How long it took.
        took: Duration,
    },
    /// Switch Raft's native elections on or off. They are off until this says otherwise.
    NativeElections(NativeElections),
    /// This node knows a coordinator: one that Raft confirmed, in the latest known term, not suspected. Sent when that changes,
    /// so again for the same leadership when a coordinator that was suspected is heard again.
    CoordinatorConfirmed(Leadership),
    /// No coordinator is known any more.
    CoordinatorLost,
    /// At the winner only, once per election, when its last step is done: print, log and record it.
    Decided(ElectionResult),
    /// Raft did not confirm this node: log it.
    CampaignRefused {
        /// The term from which this node campaigned.
        term: Term,
        /// Why, for people.
        why: String,
    },
    /// The other node was not ready to take over, so this one leads on: log it.
    HandOverRefused {
        /// Who should have taken over.
        to: NodeId,
        /// The term in which this node leads.
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

/// Whether Raft elects by itself, by randomised timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NativeElections {
    /// Only when it is asked.
    Off,
    /// By itself.
    On,
}
