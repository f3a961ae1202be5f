//! What happened at a node: a bounded, numbered list that anybody may read, the demo's report among them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{NodeId, Term};
use crate::protocol::election::{Cause, ElectionResult};
use crate::protocol::fault::LinkFault;
use crate::protocol::status::{Leadership, NodeState};

/// One event of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Number of the event at this node, from 1, without gaps.
    pub seq: u64,
    /// Wall time in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Where it happened.
    pub node: NodeId,
    /// The node's term then.
    pub term: Term,
    /// The node's state then.
    pub state: NodeState,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The node changed its state.
    StateChanged {
        /// Before.
        from: NodeState,
        /// After.
        to: NodeState,
        /// Why, for people.
        why: String,
    },
    /// The node took the coordinator for lost.
    Suspected {
        /// Whom.
        coordinator: Leadership,
        /// Why, for people.
        why: String,
    },
    /// This node won an election and Raft confirmed it.
    Elected(ElectionResult),
    /// The node learned of a confirmed coordinator.
    CoordinatorKnown {
        /// Who it is.
        coordinator: Leadership,
    },
    /// This node led, and handed over.
    HandedOver {
        /// Its leadership.
        coordinator: Leadership,
        /// To whom.
        to: NodeId,
        /// Why.
        cause: Cause,
        /// From the request to Raft's confirmation of the other, in microseconds.
        took_micros: u64,
    },
    /// Raft did not confirm this node's nomination, or did not take up its hand-over.
    Refused {
        /// The term that it campaigned from.
        campaign_term: Term,
        /// Why, for people.
        why: String,
    },
    /// The node is in sync again.
    Recovered {
        /// Who answered its `StateSync`; the node itself if it was confirmed as coordinator; none if it went on without.
        from: Option<NodeId>,
        /// Log entries that it had missed.
        entries: u64,
        /// Time from the end of the failure (or the start) to Active, in milliseconds.
        took_ms: u64,
    },
    /// An operator set the faults of this node's links; none means that all are healed.
    LinkFaults {
        /// All that stand from now on.
        faults: Vec<LinkFault>,
    },
    /// Something an operator should know.
    Alarm {
        /// What, for people.
        text: String,
    },
}
